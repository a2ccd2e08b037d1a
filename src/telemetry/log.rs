//! Log events as JSON lines, in the shape of the original service's structlog lines.
//!
//! `{"event":"Computed result","a":10.0,"b":5.0,"result":15.0,"request_id":"…","level":"info","timestamp":"…"}`
//!
//! The message is `event`, the fields stand beside it, and `request_id` (with `trace_id` and
//! `span_id` when the caller sent a trace) comes from the request in whose scope the event happened.

use std::{
    cell::RefCell,
    error::Error,
    fmt::{self, Write as _},
    time::SystemTime,
};

use serde::Serialize;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

use super::{context, timestamp, writer::Writer};

/// The target of audit lines, which no filter stops and for which room was taken before.
pub const AUDIT: &str = "math_service::audit";

/// The layer that writes each event as one line.
pub struct JsonLines {
    writer: Writer,
}

impl JsonLines {
    /// Lines go to `writer`.
    #[must_use]
    pub fn new(writer: Writer) -> Self {
        Self { writer }
    }
}

thread_local! {
    /// One buffer a thread, reused for every line.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl<S: Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        LINE.with(|line| match line.try_borrow_mut() {
            Ok(mut line) => self.write(event, &mut line),
            // A value's Debug output logged something itself: rare, and worth an allocation.
            Err(_) => self.write(event, &mut Vec::new()),
        });
    }
}

impl JsonLines {
    fn write(&self, event: &Event<'_>, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.push(b'{');
        let mut line = Line { buffer };
        event.record(&mut line);
        context::with(|request| {
            // Well-formed ids hold nothing that JSON escapes.
            line.plain(b"\"request_id\":\"", request.request_id.as_bytes());
            if let Some(trace) = &request.trace {
                line.plain(b"\"trace_id\":\"", trace.trace_id.as_bytes());
                line.plain(b"\"span_id\":\"", trace.span_id.as_bytes());
            }
        });
        let metadata = event.metadata();
        if !metadata.target().starts_with("math_service") {
            line.json("logger", metadata.target());
        }
        buffer.extend_from_slice(level_and_time(metadata.level()));
        timestamp::write(buffer, SystemTime::now());
        buffer.extend_from_slice(b"\"}\n");
        if metadata.target() == AUDIT {
            self.writer.push_reserved(buffer);
        } else {
            self.writer.push(buffer);
        }
    }
}

/// The level by structlog's name, and what comes before the time.
fn level_and_time(level: &Level) -> &'static [u8] {
    match *level {
        Level::ERROR => br#""level":"error","timestamp":""#,
        Level::WARN => br#""level":"warning","timestamp":""#,
        Level::INFO => br#""level":"info","timestamp":""#,
        Level::DEBUG => br#""level":"debug","timestamp":""#,
        Level::TRACE => br#""level":"trace","timestamp":""#,
    }
}

/// A JSON object being written, a member at a time, each with the comma that follows it: the last
/// two, level and time, are always there.
///
/// Most of a line's cost is in the number of its pieces, so what is always the same is one piece:
/// that took a fifth off a line's instructions.
struct Line<'a> {
    buffer: &'a mut Vec<u8>,
}

impl Line<'_> {
    /// Names are Rust identifiers or ours: nothing in them is escaped.
    fn name(&mut self, name: &str) {
        if name == MESSAGE {
            return self.buffer.extend_from_slice(b"\"event\":");
        }
        self.buffer.push(b'"');
        self.buffer.extend_from_slice(name.as_bytes());
        self.buffer.extend_from_slice(b"\":");
    }

    /// A name with its opening quotes, and a text that is known to hold nothing that JSON escapes.
    fn plain(&mut self, opening: &[u8], value: &[u8]) {
        self.buffer.extend_from_slice(opening);
        self.buffer.extend_from_slice(value);
        self.buffer.extend_from_slice(b"\",");
    }

    /// Writing simple values to a `Vec` cannot fail; a float that is not finite becomes `null`.
    fn json(&mut self, name: &str, value: &(impl Serialize + ?Sized)) {
        self.name(name);
        let _ = serde_json::to_writer(&mut *self.buffer, value);
        self.buffer.push(b',');
    }
}

/// What `tracing` calls the text of an event; structlog calls it `event`.
const MESSAGE: &str = "message";

/// A float that is written like an integer, with `.0` behind it: finding the shortest digits of any other
/// takes three times as long. From 10^16 on, JSON has an exponent.
fn whole(value: f64) -> Option<i64> {
    const LIMIT: f64 = 1e15;
    let whole = value as i64;
    let is_whole = whole as f64 == value && value.abs() < LIMIT && (whole != 0 || value.is_sign_positive());
    is_whole.then_some(whole)
}

impl Visit for Line<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        match whole(value) {
            Some(whole) => {
                self.name(field.name());
                self.buffer.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
                self.buffer.extend_from_slice(b".0,");
            }
            None => self.json(field.name(), &value),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.json(field.name(), &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.json(field.name(), &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.json(field.name(), &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.json(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.json(field.name(), &chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.name(field.name());
        self.buffer.push(b'"');
        // Writing to a `Vec` cannot fail.
        let _ = write!(Escaped(self.buffer), "{value:?}");
        self.buffer.extend_from_slice(b"\",");
    }
}

/// Text inside a JSON string, written as it comes: messages, and Debug output of any length.
struct Escaped<'a>(&'a mut Vec<u8>);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let needs_escape = |byte: u8| byte < b' ' || matches!(byte, b'"' | b'\\');
        // Without an early end, the processor looks at many bytes at once.
        if !text.bytes().fold(false, |any, byte| any | needs_escape(byte)) {
            self.0.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        let quoted = serde_json::to_string(text).map_err(|_| fmt::Error)?;
        self.0.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
        Ok(())
    }
}

/// An error and its causes: the outermost alone rarely says what happened. Some repeat what their cause says.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.map(ToString::to_string).fold(error.to_string(), |said, cause| {
        if said.ends_with(&cause) { said } else { format!("{said}: {cause}") }
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use axum::http::HeaderMap;
    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn an_error_that_repeats_its_cause_is_told_once() {
        assert_eq!(chain(&Around(io::Error::other("it broke"))), "what was sent: it broke");
    }

    #[derive(Debug)]
    struct Around(io::Error);

    impl fmt::Display for Around {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "what was sent: {}", self.0)
        }
    }

    impl Error for Around {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(log: impl FnOnce()) -> Vec<Value> {
        let memory = Memory::default();
        let writer = Writer::start(memory.clone()).unwrap();
        let subscriber = tracing_subscriber::registry().with(JsonLines::new(writer.clone()));
        tracing::subscriber::with_default(subscriber, log);
        writer.flush();
        let bytes = memory.0.lock().unwrap();
        String::from_utf8_lossy(&bytes).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    #[test]
    fn a_whole_number_is_written_as_serde_json_writes_it() {
        let edges = [0.0, -0.0, 1.0, -1.0, 0.5, 999_999_999_999_999.0, 1e15, 1e16, -1e15, 5e-324, f64::MAX];
        let random = std::iter::repeat_with(|| (fastrand::f64() - 0.5) * 10f64.powi(fastrand::i32(0..18)));
        for value in edges.into_iter().chain(random.take(10_000).flat_map(|value| [value, value.trunc()])) {
            let text = serde_json::to_string(&value).unwrap();
            if let Some(whole) = whole(value) {
                assert_eq!(format!("{whole}.0"), text);
            } else {
                let is_small_and_whole = value.fract() == 0.0 && value.abs() < 1e15 && text != "-0.0";
                assert!(!is_small_and_whole, "{text}");
            }
        }
    }

    #[test]
    fn an_event_is_one_line_with_its_fields_as_json_values() {
        let lines = lines(|| {
            tracing::info!(a = 10.0, n = 3_u64, ok = true, text = "q\"\n", bad = f64::NAN, "Received");
            tracing::debug!(value = ?"tab\t", "quote \" and {}", "line\n");
            tracing::warn!(error = &io::Error::other("disk") as &(dyn Error + 'static), "Failed");
        });
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1]["event"], "quote \" and line\n");
        assert_eq!(lines[1]["value"], "\"tab\\t\"", "Debug output, quotes and all");
        assert_eq!(lines[0]["event"], "Received");
        assert_eq!(lines[0]["a"].to_string(), "10.0");
        assert_eq!((&lines[0]["n"], &lines[0]["ok"]), (&Value::from(3), &Value::from(true)));
        assert_eq!(lines[0]["text"], "q\"\n");
        assert_eq!(lines[0]["bad"], Value::Null);
        assert_eq!(lines[0]["level"], "info");
        assert_eq!((&lines[2]["level"], &lines[2]["error"]), (&Value::from("warning"), &Value::from("disk")));
        let timestamp = lines[0]["timestamp"].as_str().unwrap();
        assert!(timestamp.ends_with('Z') && humantime::parse_rfc3339(timestamp).is_ok(), "{timestamp}");
        assert!(lines[0].get("request_id").is_none());
    }

    #[test]
    fn an_event_inside_a_request_names_it_and_its_trace() {
        let mut headers = HeaderMap::new();
        headers.insert(context::REQUEST_ID, "req-1".parse().unwrap());
        let trace = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01";
        headers.insert("traceparent", trace.parse().unwrap());
        let request = context::RequestContext::of(&headers, None, std::time::Instant::now());
        let span_id = request.trace.clone().unwrap().span_id;
        let future = context::scope(request, async { tracing::info!("Inside") });
        let lines = lines(|| futures_util::FutureExt::now_or_never(future).unwrap());
        assert_eq!(lines[0]["request_id"], "req-1");
        assert_eq!(lines[0]["trace_id"], "5759e988bd862e3fe1be46a994272793");
        assert_eq!(lines[0]["span_id"], span_id.as_str());
    }

    #[test]
    fn a_value_that_logs_while_it_is_printed_does_no_harm() {
        struct Chatty;
        impl fmt::Debug for Chatty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                tracing::info!("inner");
                f.write_str("chatty")
            }
        }
        let lines = lines(|| tracing::info!(value = ?Chatty, "outer"));
        assert!(lines.iter().any(|line| line["value"] == "chatty"), "{lines:?}");
    }
}
