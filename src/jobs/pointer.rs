//! JSON pointers (RFC 6901): a value together with where it stands.

use serde_json::Value;

/// A place in a document, and what is there, if anything.
#[derive(Debug, Clone)]
pub struct Pointer<'a> {
    path: String,
    value: Option<&'a Value>,
}

impl<'a> Pointer<'a> {
    /// The whole document.
    #[must_use]
    pub fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value: Some(value) }
    }

    /// A member of the object that is here.
    #[must_use]
    pub fn at(&self, name: &str) -> Self {
        let value = self.value.and_then(|value| value.get(name)).filter(|value| !value.is_null());
        Self { path: format!("{}/{}", self.path, escaped(name)), value }
    }

    /// An element of the array that is here.
    #[must_use]
    pub fn item(&self, index: usize) -> Self {
        let value = self.value.and_then(|value| value.get(index)).filter(|value| !value.is_null());
        Self { path: format!("{}/{index}", self.path), value }
    }

    /// The members of the object that is here, without those that are null.
    pub fn members(&self) -> impl Iterator<Item = (&'a str, Self)> {
        let members = self.value.and_then(Value::as_object);
        members
            .into_iter()
            .flatten()
            .map(|(name, _)| (name.as_str(), self.at(name)))
            .filter(|(_, member)| member.value.is_some())
    }

    /// What is here; Kubernetes takes null for absent, and so does this.
    #[must_use]
    pub fn value(&self) -> Option<&'a Value> {
        self.value
    }

    /// Where this is.
    #[must_use]
    pub fn path(&self) -> String {
        self.path.clone()
    }
}

/// One segment of a pointer.
#[must_use]
pub fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Kubernetes' way to say where (`spec.containers[0].image`, `metadata.labels[a.b/c]`) as a pointer.
#[must_use]
pub fn of_field_path(path: &str) -> String {
    let mut pointer = String::new();
    let mut rest = path;
    while !rest.is_empty() {
        let (segment, after) = match rest.strip_prefix('[') {
            // What is in brackets may hold dots.
            Some(inside) => inside.split_once(']').unwrap_or((inside, "")),
            None => rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len())),
        };
        pointer.push('/');
        pointer.push_str(&escaped(segment.trim_matches('"')));
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_paths_become_pointers() {
        for (path, pointer) in [
            ("", ""),
            ("spec", "/spec"),
            ("spec.template.spec.containers[0].image", "/spec/template/spec/containers/0/image"),
            ("metadata.labels[app.kubernetes.io/name]", "/metadata/labels/app.kubernetes.io~1name"),
            ("metadata.annotations[a~b].x", "/metadata/annotations/a~0b/x"),
            ("spec[0][1]", "/spec/0/1"),
            ("spec[", "/spec/"),
        ] {
            assert_eq!(of_field_path(path), pointer);
        }
    }

    #[test]
    fn null_is_as_good_as_absent() {
        let document = serde_json::json!({"a": null, "b": [null, {"c/d": 1}]});
        let root = Pointer::root(&document);
        assert!(root.at("a").value().is_none() && root.at("b").item(0).value().is_none());
        let found = root.at("b").item(1).at("c/d");
        assert_eq!((found.path().as_str(), found.value()), ("/b/1/c~1d", Some(&1.into())));
        assert_eq!(root.members().map(|(name, _)| name).collect::<Vec<_>>(), ["b"]);
    }
}
