//! The `Host` header: present once and well-formed, or the request is refused.
//!
//! RFC 9112 §3.2 demands 400 for an HTTP/1.1 request without it, with more than one, or with an
//! invalid one. Checking it here gives both targets the same answer.

use std::borrow::Cow;

use axum::http::{HeaderMap, Uri, Version, header};

/// Whether the request names its host as HTTP demands.
///
/// # Errors
/// What is wrong, for the caller.
pub fn check(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Cow<'static, str>> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err("the Host header is given more than once".into()),
        (Some(host), None) if !host.to_str().is_ok_and(is_host) => {
            return Err("the Host header is malformed".into());
        }
        // HTTP/2 carries the host in :authority, HTTP/1.0 needs none.
        (None, _)
            if version == Version::HTTP_11 || (version > Version::HTTP_11 && uri.authority().is_none()) =>
        {
            return Err("the Host header is missing".into());
        }
        _ => {}
    }
    match uri.authority() {
        Some(authority) if !is_host(authority.as_str()) => Err("the request's authority is malformed".into()),
        _ => Ok(()),
    }
}

/// `uri-host [":" port]` (RFC 3986 §3.2.2), less what no real host name has: sub-delimiters, among
/// them the comma that joins two, and percent-encoding. An empty one is allowed by RFC 9112 for targets
/// without an authority.
pub(crate) fn is_host(value: &str) -> bool {
    let (host, port) = match value.bytes().rposition(|byte| matches!(byte, b':' | b']')) {
        Some(index) if value.as_bytes()[index] == b':' => (&value[..index], &value[index + 1..]),
        _ => (value, ""),
    };
    let port_is_valid =
        port.is_empty() || (port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok());
    let host_is_valid = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').is_some_and(|a| a.parse::<std::net::Ipv6Addr>().is_ok()),
        None => host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')),
    };
    host_is_valid && port_is_valid && (!host.is_empty() || value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses_with_an_optional_port() {
        for host in [
            "example.com",
            "example.com:8000",
            "127.0.0.1",
            "[::1]",
            "[::1]:80",
            "localhost:",
            "",
            "a_b.test",
        ] {
            assert!(is_host(host), "{host}");
        }
        for host in [
            "a b",
            "h:99999",
            "h:x",
            "h:-1",
            "h:+1",
            "a/b",
            "[::1",
            "::1",
            "[x]",
            "a,b",
            "user@host",
            "h:1:2",
            "<h>",
            ":80",
            "%zz",
            "a!b",
            "h?",
        ] {
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn http_1_1_needs_exactly_one() {
        let mut headers = HeaderMap::new();
        let uri = Uri::from_static("/");
        assert!(check(Version::HTTP_11, &uri, &headers).is_err());
        assert!(check(Version::HTTP_10, &uri, &headers).is_ok());
        assert!(check(Version::HTTP_2, &uri, &headers).is_err());
        assert!(check(Version::HTTP_11, &Uri::from_static("http://h/"), &headers).is_err());
        assert!(check(Version::HTTP_2, &Uri::from_static("http://u@h/"), &headers).is_err());
        assert!(check(Version::HTTP_2, &Uri::from_static("http://h/"), &headers).is_ok());
        headers.append(header::HOST, "a".parse().unwrap());
        assert!(check(Version::HTTP_11, &uri, &headers).is_ok());
        headers.append(header::HOST, "b".parse().unwrap());
        assert!(check(Version::HTTP_11, &uri, &headers).is_err());
    }
}
