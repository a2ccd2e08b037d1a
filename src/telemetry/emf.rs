//! CloudWatch's Embedded Metric Format: a log line that CloudWatch turns into metrics.
//!
//! Specification: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::metrics::Labels;

/// The namespace that the metrics appear under.
const NAMESPACE: &str = "math-service";

/// One request as one line: its duration, with the dimensions that the Prometheus histogram has.
#[must_use]
pub fn request_line(labels: &Labels, elapsed: Duration, now: SystemTime) -> String {
    let timestamp = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let mut line = json!({
        "_aws": {
            // Milliseconds since 1970 fit an f64 exactly, and JSON has no larger integers to lose.
            "Timestamp": u64::try_from(timestamp).unwrap_or(u64::MAX),
            "CloudWatchMetrics": [{
                "Namespace": NAMESPACE,
                "Dimensions": [["http_route", "http_request_method", "http_response_status_class"]],
                "Metrics": [{ "Name": "http_server_request_duration_seconds", "Unit": "Seconds" }],
            }],
        },
        "http_route": labels.route,
        "http_request_method": labels.method,
        "http_response_status_class": labels.status_class,
        "http_server_request_duration_seconds": elapsed.as_secs_f64(),
    })
    .to_string();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_metric_and_dimension_named_in_the_directive_is_a_member_of_the_line() {
        let labels = Labels { route: "/", method: "POST", status_class: "2xx" };
        let now = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let line: Value =
            serde_json::from_str(&request_line(&labels, Duration::from_millis(5), now)).unwrap();
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(line["_aws"]["Timestamp"], 1_700_000_000_123_u64);
        for dimension in directive["Dimensions"][0].as_array().unwrap() {
            assert!(line[dimension.as_str().unwrap()].is_string(), "{dimension}");
        }
        for metric in directive["Metrics"].as_array().unwrap() {
            assert!(line[metric["Name"].as_str().unwrap()].is_number(), "{metric}");
        }
        assert_eq!(line["http_server_request_duration_seconds"], 0.005);
    }
}
