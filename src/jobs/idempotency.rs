//! A create that is asked for twice and done once, by what the created object itself says.
//!
//! The cluster is what all replicas share, so the marks are kept there, and live as long as the object: a label for the
//! caller's `Idempotency-Key`, and an annotation for the body that came with it. A name that nobody chose is made from
//! the key, so that two creates at the same time meet at the same name.

use ring::digest::{Context, SHA256};
use serde_json::{Value, json};

use super::{manifest::SUFFIX, pointer::Pointer};

/// The label that holds the key's digest.
pub const KEY_LABEL: &str = "math-service/idempotency-key";
/// The annotation that holds the digest of the body, or, without a key, of nothing but this request.
pub const REQUEST_ANNOTATION: &str = "math-service/request";

/// Hexadecimal digits of a key's digest: 160 bits, and short enough for a label.
const KEY_DIGITS: usize = 40;

/// How a created object is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    key: Option<String>,
    request: String,
}

/// What an object that is there already is to a request that would create it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This very request made it.
    Same,
    /// The key came with another body then.
    OtherBody,
    /// Somebody else's, or made with another key.
    Other,
}

impl Marks {
    /// Those of a request with a key: the same for the same caller, place (`namespaces`, or the Jobs of one of them), key and
    /// body, on any replica.
    #[must_use]
    pub fn keyed(caller: &str, place: &str, key: &str, body: &Value) -> Self {
        let mut key = digest(&[caller, place, key]);
        key.truncate(KEY_DIGITS);
        // Members in the order of their names: spaces and order do not make another body.
        Self { key: Some(key), request: digest(&[&body.to_string()]) }
    }

    /// Those of a request without a key, which knows itself again by `nonce` when it has to be sent twice.
    #[must_use]
    pub fn unkeyed(nonce: u128) -> Self {
        Self { key: None, request: digest(&[&nonce.to_string()]) }
    }

    /// The label selector that finds what was created with the key.
    #[must_use]
    pub fn selector(&self) -> Option<String> {
        self.key.as_ref().map(|key| format!("{KEY_LABEL}={key}"))
    }

    /// The end of a name that nobody chose.
    #[must_use]
    pub fn suffix(&self) -> &str {
        let source = self.key.as_deref().unwrap_or(&self.request);
        source.get(..SUFFIX).unwrap_or(source)
    }

    /// Puts them on an object.
    pub fn put(&self, object: &mut Value) {
        if let Some(key) = &self.key {
            mark(object, "labels", KEY_LABEL, key);
        }
        mark(object, "annotations", REQUEST_ANNOTATION, &self.request);
    }

    /// What `object` is to the request that has these marks.
    #[must_use]
    pub fn compare(&self, object: &Value) -> Verdict {
        let metadata = Pointer::root(object).at("metadata");
        let mark = |part: &str, name: &str| metadata.at(part).at(name).value().and_then(Value::as_str);
        match (mark("labels", KEY_LABEL) == self.key.as_deref(), mark("annotations", REQUEST_ANNOTATION)) {
            (true, Some(request)) if request == self.request => Verdict::Same,
            (true, _) if self.key.is_some() => Verdict::OtherBody,
            _ => Verdict::Other,
        }
    }
}

/// Sets a label or an annotation.
pub(super) fn mark(object: &mut Value, part: &str, name: &str, value: &str) {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    let part = metadata.map(|metadata| metadata.entry(part).or_insert(Value::Null));
    match part {
        Some(Value::Object(members)) => drop(members.insert(name.to_owned(), value.into())),
        Some(part) => *part = json!({name: value}),
        None => {}
    }
}

/// Hexadecimal SHA-256 over the parts, each behind its length, so that no two lists are the same text.
fn digest(parts: &[&str]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(marks: &Marks) -> Value {
        let mut object = json!({"metadata": {"name": "a", "annotations": null}});
        marks.put(&mut object);
        object
    }

    #[test]
    fn an_object_tells_who_made_it_with_which_key_and_body() {
        let marks = |caller, place, key, body| Marks::keyed(caller, place, key, &body);
        let first = marks("a", "jobs/n", "k", json!({"x": 1, "y": 2}));
        let object = marked(&first);
        let reordered: Value = serde_json::from_str(r#"{ "y":2, "x":1 }"#).unwrap();
        assert_eq!(marks("a", "jobs/n", "k", reordered).compare(&object), Verdict::Same);
        assert_eq!(marks("a", "jobs/n", "k", json!({"x": 2})).compare(&object), Verdict::OtherBody);
        for other in [("b", "jobs/n", "k"), ("a", "jobs/m", "k"), ("a", "jobs/n", "l"), ("aj", "obs/n", "k")]
        {
            let other = marks(other.0, other.1, other.2, json!({"x": 1, "y": 2}));
            assert_eq!(other.compare(&object), Verdict::Other);
            assert_ne!(other.suffix(), first.suffix());
        }
        assert_eq!(Marks::unkeyed(1).compare(&object), Verdict::Other);
        assert_eq!(first.compare(&json!({})), Verdict::Other);
    }

    #[test]
    fn a_request_without_a_key_knows_only_itself() {
        let object = marked(&Marks::unkeyed(7));
        assert_eq!(Marks::unkeyed(7).compare(&object), Verdict::Same);
        assert_eq!(Marks::unkeyed(8).compare(&object), Verdict::Other);
        assert_eq!(Marks::unkeyed(7).selector(), None);
    }

    #[test]
    fn marks_fit_into_names_and_labels() {
        let marks = Marks::keyed("a", "b", "c", &json!({}));
        assert_eq!(marks.suffix().len(), SUFFIX);
        assert_eq!(marks.selector().unwrap().len(), KEY_LABEL.len() + 1 + KEY_DIGITS);
    }
}
