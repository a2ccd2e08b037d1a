//! A YAML document as JSON, and the line on which each of its values stands.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

use crate::jobs::pointer::escaped;

/// A document.
pub(super) struct Document {
    pub(super) value: Value,
    /// By JSON pointer.
    lines: BTreeMap<String, u64>,
}

/// What is wrong, and on which line.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    line: u64,
    detail: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.detail)
    }
}

impl Document {
    /// One document, whose keys are strings, none of them twice.
    pub(super) fn read(text: &str) -> Result<Self, Wrong> {
        let options = serde_saphyr::options! {
            strict_booleans: true,
            with_snippet: false,
        };
        let root: Spanned<Node> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            // What follows the first line repeats where it is.
            let detail = error.without_snippet().to_string();
            let line = error.location().map_or(1, |location| location.line());
            Wrong { line, detail: detail.lines().next().unwrap_or_default().to_owned() }
        })?;
        let mut lines = BTreeMap::new();
        let value = json(root, String::new(), &mut lines);
        Ok(Self { value, lines })
    }

    /// The line of what is at `pointer`, or of what it would stand in.
    pub(super) fn line(&self, pointer: &str) -> u64 {
        let mut pointer = pointer;
        loop {
            if let Some(line) = self.lines.get(pointer) {
                return *line;
            }
            match pointer.rfind('/') {
                Some(end) => pointer = &pointer[..end],
                None => return 1,
            }
        }
    }

    /// Something is wrong with what is at `pointer`.
    pub(super) fn wrong(&self, pointer: &str, detail: impl fmt::Display) -> Wrong {
        let detail = if pointer.is_empty() { detail.to_string() } else { format!("{pointer} {detail}") };
        Wrong { line: self.line(pointer), detail }
    }
}

enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

fn json(node: Spanned<Node>, pointer: String, lines: &mut BTreeMap<String, u64>) -> Value {
    let value = match node.value {
        Node::Scalar(value) => value,
        Node::List(items) => {
            let items = items.into_iter().enumerate();
            items.map(|(index, item)| json(item, format!("{pointer}/{index}"), lines)).collect()
        }
        Node::Map(members) => {
            let members = members.into_iter().map(|(name, member)| {
                let pointer = format!("{pointer}/{}", escaped(&name.value));
                let member = json(member, pointer.clone(), lines);
                // A long value begins below its name.
                lines.insert(pointer, name.referenced.line());
                (name.value, member)
            });
            Value::Object(members.collect::<Map<_, _>>())
        }
    };
    lines.insert(pointer, node.referenced.line());
    value
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar(Value::Null))
            }

            fn visit_none<E: de::Error>(self) -> Result<Node, E> {
                self.visit_unit()
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
                deserializer.deserialize_any(self)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
                let number = Number::from_f64(value).ok_or_else(|| E::custom("is no finite number"))?;
                Ok(Node::Scalar(number.into()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Node::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
                let mut map = Vec::new();
                while let Some(member) = members.next_entry()? {
                    map.push(member);
                }
                Ok(Node::Map(map))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_value_keeps_its_type_and_its_line() {
        let text = "# comment\nname: a\nlist:\n  - 1\n  - {deep: [true, 1.5, null, 'yes', yes]}\ntext: |\n  one\n  two\n";
        let document = Document::read(text).unwrap();
        assert_eq!(
            document.value,
            json!({"name": "a", "list": [1, {"deep": [true, 1.5, null, "yes", "yes"]}], "text": "one\ntwo\n"})
        );
        for (pointer, line) in [("/name", 2), ("/list/0", 4), ("/list/1/deep/0", 5), ("/list/1/other", 5)] {
            assert_eq!(document.line(pointer), line, "{pointer}");
        }
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_line() {
        for (text, line) in
            [("a: 1\nb: [", 2), ("a: 1\nb: 2\na: 3\n", 3), ("a: 1\n---\nb: 1\n", 2), ("a:\n\t- 1", 2)]
        {
            let wrong = Document::read(text).err().unwrap();
            assert!(wrong.line.abs_diff(line) <= 1 && !wrong.detail.contains('\n'), "{text:?} {wrong}");
        }
        let bomb = "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e]\ng: [*f, *f, *f, *f, *f, *f, *f, *f, *f]\n";
        assert!(Document::read(bomb).is_err(), "a document that grows without end");
    }
}
