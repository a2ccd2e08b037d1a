//! Content negotiation (RFC 9110 §12.5): how much a client wants something.

use axum::http::{HeaderMap, HeaderName};

/// The quality, 0 to 1, that the header `name` gives to the first of `candidates` that it lists: put
/// the exact value first and its wildcards after. `None` when it lists none of them.
#[must_use]
pub fn quality(headers: &HeaderMap, name: &HeaderName, candidates: &[&str]) -> Option<f32> {
    candidates.iter().find_map(|candidate| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .find_map(|range| {
                let (value, parameters) = range.split_once(';').unwrap_or((range, ""));
                value.trim().eq_ignore_ascii_case(candidate).then(|| weight(parameters))
            })
    })
}

/// The `q` parameter; a malformed one counts as "not wanted".
fn weight(parameters: &str) -> f32 {
    let q = parameters
        .split(';')
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    match q.map(|(_, value)| value.trim().parse::<f32>()) {
        None => 1.0,
        Some(Ok(quality)) if (0.0..=1.0).contains(&quality) => quality,
        Some(_) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::ACCEPT_ENCODING;

    use super::*;

    #[test]
    fn the_first_listed_candidate_decides() {
        let quality = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, value.parse().unwrap());
            super::quality(&headers, &ACCEPT_ENCODING, &["gzip", "*"])
        };
        for (value, expected) in [
            ("gzip", Some(1.0)),
            ("br, GZIP;q=0.5", Some(0.5)),
            ("gzip; Q=0", Some(0.0)),
            ("*", Some(1.0)),
            ("gzip;q=0, *", Some(0.0)),
            ("br", None),
            ("", None),
            ("gzip;q=inf", Some(0.0)),
            ("gzip;q=NaN", Some(0.0)),
            ("gzip;q=2", Some(0.0)),
        ] {
            assert_eq!(quality(value), expected, "{value}");
        }
    }
}
