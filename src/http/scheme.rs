//! Whether a request came over TLS.

use axum::http::HeaderMap;

/// In a request's extensions when its client speaks TLS, to us or to a proxy whose word counts.
#[derive(Debug, Clone, Copy)]
pub struct OverTls;

/// Whether the nearest proxy says that it was reached over TLS: the last value of `X-Forwarded-Proto`.
#[must_use]
pub fn forwarded_https(headers: &HeaderMap) -> bool {
    let last = headers.get_all("x-forwarded-proto").iter().next_back();
    let last = last.and_then(|value| value.to_str().ok()).and_then(|value| value.rsplit(',').next());
    last.is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_proxy_decides() {
        let over_tls = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-forwarded-proto", value.parse().unwrap());
            }
            forwarded_https(&headers)
        };
        assert!(over_tls(&["https"]) && over_tls(&["http, HTTPS"]) && over_tls(&["http", "https"]));
        assert!(!over_tls(&[]) && !over_tls(&["https, http"]) && !over_tls(&["https", "http"]));
    }
}
