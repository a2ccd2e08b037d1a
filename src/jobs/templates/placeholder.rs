//! Placeholders: `${{ name }}`, filled with a parameter's value.
//!
//! The template is a tree before anything is filled in, and stays that tree: a value becomes one scalar, or a part of one,
//! and can neither end a string nor begin a member. A placeholder that is a whole scalar keeps the parameter's type;
//! `${{ name | string }}` makes text of it, as arguments and environment variables want it. Shells and Kubernetes, whose own
//! are `$name`, `${name}` and `$(name)`, see none of it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::jobs::pointer::escaped;

/// A tree with its placeholders filled.
#[derive(Debug, PartialEq)]
pub struct Filled {
    /// The tree.
    pub body: Value,
    /// Pointers to what was filled, and the parameter that each was filled with; one scalar may have several.
    pub places: Vec<(String, String)>,
}

/// A placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placeholder<'a> {
    /// The parameter.
    pub name: &'a str,
    /// Whether text is made of it.
    pub is_text: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Filled(Placeholder<'a>),
}

/// Every placeholder of a scalar, and whether each is all there is.
///
/// # Errors
/// What is wrong with one.
pub fn of(text: &str) -> Result<Vec<(Placeholder<'_>, bool)>, &'static str> {
    let pieces = pieces(text)?;
    let is_whole = pieces.len() == 1;
    let placeholders = pieces.into_iter().filter_map(|piece| match piece {
        Piece::Filled(placeholder) => Some((placeholder, is_whole)),
        Piece::Text(_) => None,
    });
    Ok(placeholders.collect())
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, &'static str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${{") {
        let (inside, after) = after.split_once("}}").ok_or("has a ${{ without }}")?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(Piece::Filled(placeholder(inside)?));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

fn placeholder(inside: &str) -> Result<Placeholder<'_>, &'static str> {
    let (name, filter) =
        inside.split_once('|').map_or((inside, None), |(name, filter)| (name, Some(filter.trim())));
    let name = name.trim();
    match (is_name(name), filter) {
        (true, None | Some("string")) => Ok(Placeholder { name, is_text: filter.is_some() }),
        _ => Err("has a placeholder that is neither ${{ name }} nor ${{ name | string }}"),
    }
}

/// What a parameter may be called: a lower-case letter, and letters, digits and underscores behind it.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(is_inner)
}

/// The tree with every placeholder filled. What stands where a parameter without a value was is left out.
#[must_use]
pub fn fill(tree: &Value, values: &BTreeMap<&str, Value>) -> Filled {
    let mut places = Vec::new();
    let body = filled(tree, String::new(), values, &mut places).unwrap_or_default();
    Filled { body, places }
}

fn filled(
    tree: &Value,
    pointer: String,
    values: &BTreeMap<&str, Value>,
    places: &mut Vec<(String, String)>,
) -> Option<Value> {
    match tree {
        Value::Object(members) => {
            let mut object = Map::new();
            for (name, member) in members {
                let member = filled(member, format!("{pointer}/{}", escaped(name)), values, places);
                object.extend(member.map(|member| (name.clone(), member)));
            }
            Some(object.into())
        }
        Value::Array(items) => {
            let mut array = Vec::new();
            for item in items {
                // Where it will stand: what is left out before it leaves no gap.
                let item = filled(item, format!("{pointer}/{}", array.len()), values, places);
                array.extend(item);
            }
            Some(array.into())
        }
        Value::String(text) => scalar(text, pointer, values, places),
        other => Some(other.clone()),
    }
}

fn scalar(
    text: &str,
    pointer: String,
    values: &BTreeMap<&str, Value>,
    places: &mut Vec<(String, String)>,
) -> Option<Value> {
    // Every placeholder was looked at when the template was read.
    let pieces = pieces(text).unwrap_or_default();
    if let [Piece::Filled(placeholder)] = pieces[..] {
        let value = values.get(placeholder.name)?;
        places.push((pointer, placeholder.name.to_owned()));
        return Some(if placeholder.is_text { as_text(value).into() } else { value.clone() });
    }
    let mut whole = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => whole.push_str(text),
            Piece::Filled(placeholder) => {
                whole.push_str(&values.get(placeholder.name).map(as_text).unwrap_or_default());
                places.push((pointer.clone(), placeholder.name.to_owned()));
            }
        }
    }
    Some(whole.into())
}

/// Strings without quotes, everything else as JSON has it.
fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fill_with(tree: Value, values: Value) -> Filled {
        let values: BTreeMap<_, _> =
            values.as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        fill(&tree, &values)
    }

    #[test]
    fn a_value_keeps_its_type_where_it_is_all_there_is() {
        let tree =
            json!({"n": "${{n}}", "s": ["${{ n | string }}", "a-${{ n }}-${{b}}"], "b": "${{ b }}", "k": 1});
        let filled = fill_with(tree, json!({"n": 5, "b": true}));
        assert_eq!(filled.body, json!({"n": 5, "s": ["5", "a-5-true"], "b": true, "k": 1}));
        let places: Vec<_> =
            filled.places.iter().map(|(place, name)| (place.as_str(), name.as_str())).collect();
        assert_eq!(places, [("/b", "b"), ("/n", "n"), ("/s/0", "n"), ("/s/1", "n"), ("/s/1", "b")]);
    }

    #[test]
    fn what_has_no_value_is_left_out_without_a_gap() {
        let filled = fill_with(json!({"a": "${{ a }}", "l": ["${{ a }}", "${{ b }}"]}), json!({"b": "x"}));
        assert_eq!(filled.body, json!({"l": ["x"]}));
        assert_eq!(filled.places, [("/l/0".to_owned(), "b".to_owned())]);
    }

    #[test]
    fn no_value_becomes_anything_but_a_value() {
        let tree = json!({"image": "i", "args": ["--out=${{ a }}", "${{ a }}"]});
        for nasty in [
            "\", \"image\": \"evil",
            "x\n  image: evil",
            "${{ b }}",
            "$(B) ${B} {{ b }}",
            "*anchor &anchor !!tag # comment",
            "</script>",
        ] {
            let filled = fill_with(tree.clone(), json!({"a": nasty, "b": "secret"}));
            assert_eq!(filled.body, json!({"image": "i", "args": [format!("--out={nasty}"), nasty]}));
        }
    }

    #[test]
    fn what_looks_like_a_placeholder_is_one_or_wrong() {
        assert_eq!(of("$a ${a} $(a) {{ a }} $$"), Ok(vec![]));
        let whole = Placeholder { name: "a_1", is_text: false };
        assert_eq!(of("${{a_1}}"), Ok(vec![(whole, true)]));
        assert_eq!(of("x${{ a_1 }}"), Ok(vec![(whole, false)]));
        assert_eq!(of("${{ a_1|string }}"), Ok(vec![(Placeholder { is_text: true, ..whole }, true)]));
        for bad in [
            "${{",
            "${{ }}",
            "${{ A }}",
            "${{ a b }}",
            "${{ a | upper }}",
            "${{ a.b }}",
            "${{ ${{ a }} }}",
            "${{ 1a }}",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
