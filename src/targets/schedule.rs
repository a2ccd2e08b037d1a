//! What calls the function: a gateway with a request, or EventBridge because it is time.

use lambda_http::request::LambdaRequest;
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::value::RawValue;

use super::event::Event;

/// One invocation.
#[derive(Debug)]
pub enum Invocation {
    /// The rule of `template.yaml`. No caller of a gateway can send this: what they send is inside of an event.
    Scheduled,
    /// Everything else, or what it was taken for.
    Request(Box<LambdaRequest>),
}

/// As EventBridge writes it, without spaces in its own events. Inside of a string the quotes would be escaped.
const MARK: &str = "\"detail-type\"";

/// The two members that make an event one of a schedule.
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "detail-type")]
    kind: String,
    source: String,
}

impl<'de> Deserialize<'de> for Invocation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let text = text.get();
        // Looked for first: nearly every event is a gateway's, and is not to be read twice.
        let envelope = text.contains(MARK).then(|| serde_json::from_str::<Envelope>(text).ok()).flatten();
        let is_due = |event: Envelope| event.kind == "Scheduled Event" && event.source == "aws.events";
        if envelope.is_some_and(is_due) {
            return Ok(Self::Scheduled);
        }
        let request = serde_json::from_str(text).map(|Event(request)| Self::Request(Box::new(request)));
        request.map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_told_from_requests() {
        let due = r#"{"version":"0","id":"1","detail-type":"Scheduled Event","source":"aws.events","account":"1","time":"2026-01-31T12:00:00Z","region":"eu-west-2","resources":["arn:aws:events:eu-west-2:1:rule/r"],"detail":{}}"#;
        assert!(matches!(serde_json::from_str(due).unwrap(), Invocation::Scheduled));
        let spaced =
            serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(due).unwrap()).unwrap();
        assert!(matches!(serde_json::from_str(&spaced).unwrap(), Invocation::Scheduled));
        let other = due.replace("aws.events", "somebody");
        assert!(serde_json::from_str::<Invocation>(&other).is_err());
        let request = include_str!("../../tests/data/events/http-v2.json");
        assert!(matches!(serde_json::from_str(request).unwrap(), Invocation::Request(_)));
        // A caller may write what they like into a body or a query.
        let mut event: serde_json::Value = serde_json::from_str(request).unwrap();
        event["body"] = due.into();
        event["rawQueryString"] = "\"detail-type\"".into();
        assert!(matches!(serde_json::from_str(&event.to_string()).unwrap(), Invocation::Request(_)));
    }
}
