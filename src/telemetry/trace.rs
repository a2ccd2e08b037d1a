//! Trace context: the caller's trace, continued in our log lines.
//!
//! Two headers are understood: W3C Trace Context's `traceparent` and AWS X-Ray's `X-Amzn-Trace-Id`,
//! whose root `1-5759e988-bd862e3fe1be46a994272793` is the W3C trace id with two dashes in it
//! (OpenTelemetry's X-Ray propagator maps them the same way). `traceparent` wins when both are there.

use axum::http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const X_AMZN_TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");

/// The headers that may carry a trace.
pub(super) const HEADERS: [HeaderName; 2] = [TRACEPARENT, X_AMZN_TRACE_ID];

/// The trace that a request belongs to, and our own span in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// 32 lower-case hexadecimal digits, not all zero.
    pub trace_id: String,
    /// Our span in that trace: 16 lower-case hexadecimal digits.
    pub span_id: String,
    /// Whether the caller records the trace.
    pub sampled: bool,
}

impl TraceContext {
    /// The trace that a request's headers carry; `None` when there is none or it is malformed.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let (trace_id, sampled) =
            text(&TRACEPARENT).and_then(traceparent).or_else(|| text(&X_AMZN_TRACE_ID).and_then(xray))?;
        Some(Self { trace_id, span_id: format!("{:016x}", fastrand::u64(1..)), sampled })
    }
}

/// `version-traceid-parentid-flags` (<https://www.w3.org/TR/trace-context/#traceparent-header>).
fn traceparent(value: &str) -> Option<(String, bool)> {
    let mut parts = value.trim().split('-');
    let (version, trace_id, parent_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let known = version != "ff" && (version != "00" || parts.next().is_none());
    let valid = known
        && is_hex(version, 2)
        && is_hex(flags, 2)
        && [(trace_id, 32), (parent_id, 16)].iter().all(|(id, length)| is_hex(id, *length) && !is_zero(id));
    let sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
    valid.then(|| (trace_id.to_owned(), sampled))
}

/// `Root=1-8hex-24hex;Parent=16hex;Sampled=1`
/// (<https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>).
fn xray(value: &str) -> Option<(String, bool)> {
    let field = |name: &str| {
        value
            .split(';')
            .find_map(|part| part.trim().split_once('=').filter(|(key, _)| *key == name))
            .map(|f| f.1)
    };
    let (version, rest) = field("Root")?.split_once('-')?;
    let (time, random) = rest.split_once('-')?;
    let trace_id = format!("{time}{random}");
    let valid = version == "1" && is_hex(time, 8) && is_hex(random, 24) && !is_zero(&trace_id);
    valid.then(|| (trace_id, field("Sampled") == Some("1")))
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &'static str, value: &str) -> Option<(String, bool)> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        TraceContext::of(&headers).map(|trace| (trace.trace_id, trace.sampled))
    }

    #[test]
    fn both_headers_carry_the_same_trace_id() {
        let w3c = of("traceparent", "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01");
        let xray = of(
            "x-amzn-trace-id",
            "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
        );
        assert_eq!(w3c, Some(("5759e988bd862e3fe1be46a994272793".to_owned(), true)));
        assert_eq!(xray, w3c);
    }

    #[test]
    fn a_malformed_header_starts_no_trace() {
        for value in [
            "",
            "00",
            "00-00000000000000000000000000000000-53995c3f42cd8ad8-01",
            "00-5759e988bd862e3fe1be46a994272793-0000000000000000-01",
            "00-5759E988BD862E3FE1BE46A994272793-53995c3f42cd8ad8-01",
            "ff-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01",
            "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01-more",
        ] {
            assert_eq!(of("traceparent", value), None, "{value}");
        }
        for value in ["Root=1-5759e988", "Root=2-5759e988-bd862e3fe1be46a994272793", "Sampled=1", "=;=;"] {
            assert_eq!(of("x-amzn-trace-id", value), None, "{value}");
        }
    }

    #[test]
    fn a_later_version_may_carry_more_fields() {
        assert!(of("traceparent", "01-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-00-more").is_some());
    }
}
