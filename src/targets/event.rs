//! Which gateway an event is from, told before it is read.
//!
//! `lambda_http` reads an event as one gateway's after the other's until one fits: an HTTP API's twice, a load balancer's
//! three times. That was two thirds of what an invocation costs.

use lambda_http::request::LambdaRequest;
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::value::RawValue;

/// An event of any gateway.
#[derive(Debug)]
pub struct Event(pub LambdaRequest);

/// Where these members are, it most likely is an HTTP API's or a Function URL's event, or a load balancer's. As the
/// gateways write them, without spaces; no text in a string looks like this, because its quotes are escaped.
const HTTP: &str = r#""version":"2.0""#;
const ALB: &str = r#""elb":{"#;

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let text = text.get();
        let likely = if text.contains(HTTP) {
            serde_json::from_str(text).map(LambdaRequest::ApiGatewayV2).ok()
        } else if text.contains(ALB) {
            serde_json::from_str(text).map(LambdaRequest::Alb).ok()
        } else {
            None
        };
        // REST APIs' are what `lambda_http` tries first.
        likely.map_or_else(|| serde_json::from_str(text), Ok).map(Self).map_err(D::Error::custom)
    }
}
