//! Paths as routes know them.

use std::borrow::Cow;

use axum::{
    extract::Request,
    http::{Uri, uri::PathAndQuery},
};

/// The URI as the client sent it; in a request's extensions where [`normalise`] changed it.
#[derive(Debug, Clone)]
pub struct AsSent(pub Uri);

/// The way from a page right below the service's root to that root, and to what is below the page, as a browser sees it:
/// `.` and the page's `name`, or `..` and `.` behind a slash; each slash is a folder.
#[must_use]
pub fn around(name: &str, as_sent: Option<&AsSent>) -> (String, String) {
    let slashes = as_sent.map_or(0, |AsSent(uri)| uri.path().len() - uri.path().trim_end_matches('/').len());
    match slashes {
        0 => (".".to_owned(), name.to_owned()),
        _ => (vec![".."; slashes].join("/"), ".".to_owned()),
    }
}

/// Removes doubled slashes, a trailing slash and the base path, and decodes what needs no encoding, so
/// that `//`, `/healthz/`, `/%68ealthz` and `/math/healthz` (with base path `/math`) reach the same
/// routes as `/` and `/healthz`.
///
/// A request outside of the base path is left as it is: probes inside the cluster do not know it.
pub fn normalise(request: &mut Request, base_path: &str) {
    if let Cow::Owned(path) = routed(request.uri().path(), base_path) {
        let clean = with_path(request.uri(), &path);
        let as_sent = std::mem::replace(request.uri_mut(), clean);
        // A target that changed the path already has said what it was.
        if request.extensions().get::<AsSent>().is_none() {
            request.extensions_mut().insert(AsSent(as_sent));
        }
    }
}

/// The path that is routed; borrowed when it is right already, which is the usual case.
fn routed<'a>(path: &'a str, base_path: &str) -> Cow<'a, str> {
    let is_clean = (path == "/" || !path.ends_with('/')) && !path.contains("//") && !path.contains('%');
    let clean = if is_clean { Cow::Borrowed(path) } else { Cow::Owned(collapsed(&unreserved_decoded(path))) };
    match strip(&clean, base_path) {
        rest if rest.len() == clean.len() => clean,
        "" => Cow::Owned("/".to_owned()),
        rest => Cow::Owned(rest.to_owned()),
    }
}

fn collapsed(path: &str) -> String {
    let mut clean = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        clean.push('/');
        clean.push_str(segment);
    }
    if clean.is_empty() { "/".to_owned() } else { clean }
}

/// Letters, digits and `-._~` mean the same encoded or not (RFC 3986 §6.2.2.2).
fn unreserved_decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).map(char::from);
        match code.filter(|c| c.is_ascii_alphanumeric() || "-._~".contains(*c)) {
            Some(unreserved) => {
                decoded.push(unreserved);
                decoded.push_str(&part[2..]);
            }
            None => {
                decoded.push('%');
                decoded.push_str(part);
            }
        }
    }
    decoded
}

/// `path` without `prefix`, if `prefix` is whole segments of it.
#[must_use]
pub fn strip<'a>(path: &'a str, prefix: &str) -> &'a str {
    match path.strip_prefix(prefix) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => path,
    }
}

fn with_path(uri: &Uri, path: &str) -> Uri {
    let target = match uri.query() {
        Some(query) => Cow::Owned(format!("{path}?{query}")),
        None => Cow::Borrowed(path),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(target.as_ref()).ok();
    // Parts of a valid URI, with a path made of its own segments, are a valid URI again.
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalised(uri: &str, base: &str) -> String {
        let mut request = Request::builder().uri(uri).body(axum::body::Body::empty()).unwrap();
        normalise(&mut request, base);
        request.uri().to_string()
    }

    #[test]
    fn a_page_finds_the_root_and_its_folder_however_many_slashes_end_its_address() {
        let around = |uri: &str| {
            let (root, folder) = around("lab", Some(&AsSent(uri.parse().unwrap())));
            format!("{root} {folder}")
        };
        assert_eq!(super::around("lab", None), (".".to_owned(), "lab".to_owned()));
        assert_eq!(around("//lab"), ". lab");
        assert_eq!(around("/lab/?x=/"), ".. .");
        assert_eq!(around("/base/lab///"), "../../.. .");
    }

    #[test]
    fn slashes_do_not_matter() {
        for (given, routed) in [
            ("/", "/"),
            ("//", "/"),
            ("///", "/"),
            ("/healthz/", "/healthz"),
            ("//healthz//", "/healthz"),
            ("/a//b/?x=1//2", "/a/b?x=1//2"),
            ("/a/b", "/a/b"),
            ("http://host//healthz/", "http://host/healthz"),
            ("/%68ealthz", "/healthz"),
            ("/%2F%3f%C3%BC%zz%", "/%2F%3f%C3%BC%zz%"),
            ("/a%2Eb%7e", "/a.b~"),
        ] {
            assert_eq!(normalised(given, ""), routed, "{given}");
        }
    }

    #[test]
    fn only_whole_segments_of_the_base_path_are_removed() {
        for (given, routed) in [
            ("/math", "/"),
            ("/math/", "/"),
            ("/math/healthz", "/healthz"),
            ("/math?x=1", "/?x=1"),
            ("/mathematics", "/mathematics"),
            ("/healthz", "/healthz"),
            ("/math/math", "/math"),
            ("//math//healthz/", "/healthz"),
            ("/m%61th/healthz", "/healthz"),
        ] {
            assert_eq!(normalised(given, "/math"), routed, "{given}");
        }
    }
}
