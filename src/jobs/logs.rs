//! What a Job's pods write, as plain text.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    Jobs, LOGS,
    api::{self, Call, Resource, Verb},
    docs::Reads,
    error::Failure,
    pointer::Pointer,
    request::{InPath, Query},
    status::text,
};
use crate::problem::{FieldError, Problem};

/// Most bytes of one answer. A Lambda function's answer has 6 MB, in JSON, where one byte may take six.
const LARGEST: usize = 1_000_000;

/// Lines of each pod, if the caller does not say how many.
const DEFAULT_LINES: u32 = 1000;
/// Most of them.
const MOST_LINES: u32 = 100_000;
/// Longest time to look back, in seconds: a year.
const LONGEST_AGO: u32 = 365 * 24 * 60 * 60;

/// Pods that are asked at once.
const AT_ONCE: usize = 8;

/// Says that something is missing.
const TRUNCATED: HeaderName = HeaderName::from_static("log-truncated");

/// The last lines that a Job's pods wrote.
///
/// With several pods, each line begins with the name of its pod. Lines in brackets that begin with `math-service:` are this
/// service's: a pod that has no log yet or no more, or lines that were left out.
#[utoipa::path(get, path = LOGS, operation_id = "get_job_logs", tag = "jobs",
    params(
        ("namespace" = String, Path, description = "One that `JOBS_NAMESPACES` opens", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        ("name" = String, Path, description = "The Job", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
        ("tail_lines" = Option<u32>, Query, description = "How many lines of each pod, 1 to 100000, from the end; 1000 when not given", minimum = 1, maximum = 100_000),
        ("since_seconds" = Option<u32>, Query, description = "Only lines written in the last so many seconds", minimum = 1, maximum = 31_536_000),
        ("container" = Option<String>, Query, description = "Which container; the first when not given", max_length = 63),
        ("previous" = Option<bool>, Query, description = "Of the container that ran before the last restart"),
    ),
    responses((status = 200, description = "The lines, at most 1,000,000 bytes; `Log-Truncated: true` when there are more", body = String, content_type = "text/plain"), Reads),
    security(("token" = ["jobs:read"])))]
pub(super) async fn show(
    State(jobs): State<Arc<Jobs>>,
    InPath([namespace, name]): InPath<2>,
    uri: Uri,
) -> Result<Response, Problem> {
    jobs.check_job(&namespace, &name)?;
    let wanted = Wanted::of(&Query::of(&uri))?;
    let pods = jobs.containers(&namespace, &name, wanted.container.as_deref()).await?;
    let log = jobs.logs(&namespace, &pods, &wanted).await?;
    Ok(log.into_response())
}

/// What the caller wants to see.
struct Wanted {
    tail_lines: u32,
    since_seconds: Option<u32>,
    container: Option<String>,
    previous: bool,
}

impl Wanted {
    fn of(query: &Query<'_>) -> Result<Self, Problem> {
        Ok(Self {
            tail_lines: query.number("tail_lines", 1..=MOST_LINES)?.unwrap_or(DEFAULT_LINES),
            since_seconds: query.number("since_seconds", 1..=LONGEST_AGO)?,
            container: query.passed_on("container")?.map(str::to_owned),
            previous: query.flag("previous")?,
        })
    }
}

/// A pod, and which of its containers is asked.
struct Source {
    pod: String,
    container: String,
}

impl Jobs {
    /// The Job's pods, and in each the container that was named, or the first.
    ///
    /// # Errors
    /// 422 when none has a container of that name.
    async fn containers(
        &self,
        namespace: &str,
        name: &str,
        wanted: Option<&str>,
    ) -> Result<Vec<Source>, Problem> {
        let (_, pods) = self.job_and_pods(namespace, name).await?;
        let sources: Vec<_> = pods.iter().filter_map(|pod| source(pod, wanted)).collect();
        match wanted {
            Some(wanted) if sources.is_empty() && !pods.is_empty() => {
                let known = pods.first().map(containers_of).unwrap_or_default().join(", ");
                let detail = format!("is none of this Job's containers: {known}");
                tracing::debug!(wanted, "No such container");
                Err(Problem::invalid(vec![FieldError::field("container", detail)]))
            }
            _ => Ok(sources),
        }
    }

    async fn logs(&self, namespace: &str, pods: &[Source], wanted: &Wanted) -> Result<Log, Problem> {
        let share = LARGEST / pods.len().max(1);
        let until = Instant::now() + self.call_deadline;
        let asked: Vec<_> = pods.iter().map(|pod| self.log(namespace, pod, wanted, share, until)).collect();
        let answers: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        let mut log = Log { text: String::new(), is_truncated: false };
        for (pod, answer) in pods.iter().zip(answers) {
            let prefix = if pods.len() > 1 { format!("{}: ", pod.pod) } else { String::new() };
            log.add(&prefix, &answer?, share);
        }
        Ok(log)
    }

    /// What one pod wrote, or why there is nothing of it: that must not keep what the others wrote.
    async fn log(
        &self,
        namespace: &str,
        source: &Source,
        wanted: &Wanted,
        share: usize,
        until: Instant,
    ) -> Result<Vec<u8>, Problem> {
        let call = Call::new(Verb::Get, Resource::Logs)
            .within(namespace)
            .named(&source.pod)
            .with("container", Some(&source.container))
            .with("tailLines", Some(wanted.tail_lines))
            .with("sinceSeconds", wanted.since_seconds)
            // One more than is shown tells that there is more.
            .with("limitBytes", Some(share + 1))
            .with("previous", wanted.previous.then_some(true));
        let left = until.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) {
            return Ok(note("not asked: there was no time left"));
        }
        let answer = match self.client() {
            Ok(client) => api::bytes(client, &call, left).await,
            Err(failure) => Err(failure),
        };
        match self.noted(answer) {
            Ok(text) => Ok(text.into()),
            Err(Failure::TimedOut) => Ok(note("no answer in time")),
            Err(failure) => match failure.of_the_object() {
                Some(reason) => Ok(note(&format!("no log: {reason}"))),
                None => Err(failure.problem(&call, None)),
            },
        }
    }
}

fn source(pod: &Value, wanted: Option<&str>) -> Option<Source> {
    let containers = containers_of(pod);
    let container = match wanted {
        Some(wanted) => containers.into_iter().find(|name| name == wanted)?,
        None => containers.into_iter().next()?,
    };
    Some(Source { pod: text(&Pointer::root(pod).at("metadata"), "name")?, container })
}

/// The names of a pod's containers, those that prepare it last.
fn containers_of(pod: &Value) -> Vec<String> {
    let lists = ["containers", "initContainers"]
        .into_iter()
        .filter_map(|list| pod.get("spec")?.get(list)?.as_array());
    lists.flatten().filter_map(|container| Some(container.get("name")?.as_str()?.to_owned())).collect()
}

/// A line of this service's own.
fn note(text: &str) -> Vec<u8> {
    format!("[math-service: {text}]\n").into_bytes()
}

struct Log {
    text: String,
    is_truncated: bool,
}

impl Log {
    /// Adds at most `share` bytes of what a pod wrote, each line behind `prefix`. What is no UTF-8 is replaced.
    fn add(&mut self, prefix: &str, written: &[u8], share: usize) {
        let end = self.text.len() + share;
        let written = String::from_utf8_lossy(written);
        for line in written.split_inclusive('\n') {
            let room = end.saturating_sub(self.text.len() + prefix.len());
            if line.len() > room {
                self.cut(prefix, &line[..line.floor_char_boundary(room)]);
                return;
            }
            self.text.push_str(prefix);
            self.text.push_str(line);
        }
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
    }

    fn cut(&mut self, prefix: &str, line: &str) {
        self.is_truncated = true;
        let note = "[math-service: cut off here: ask for fewer tail_lines]\n";
        if !line.is_empty() {
            self.text.push_str(&format!("{prefix}{line}\n"));
        }
        self.text.push_str(&format!("{prefix}{note}"));
    }
}

impl IntoResponse for Log {
    fn into_response(self) -> Response {
        let headers =
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
        let mut response = (StatusCode::OK, headers, self.text).into_response();
        if self.is_truncated {
            response.headers_mut().insert(TRUNCATED, HeaderValue::from_static("true"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Log {
        Log { text: String::new(), is_truncated: false }
    }

    #[test]
    fn lines_of_several_pods_are_told_apart_and_end() {
        let mut log = log();
        log.add("a: ", b"one\ntwo", 100);
        log.add("b: ", b"", 100);
        log.add("c: ", b"\xff\n", 100);
        assert_eq!(log.text, "a: one\na: two\nc: \u{fffd}\n");
        assert!(!log.is_truncated);
    }

    #[test]
    fn a_share_is_never_exceeded_by_more_than_the_note_that_says_so() {
        for share in 0..40 {
            let mut log = log();
            log.add("pod: ", "ä\nlong line\n\n\nlast\n".as_bytes(), share);
            let shown = log.text.replace("pod: [math-service: cut off here: ask for fewer tail_lines]\n", "");
            assert!(shown.len() <= share + 1, "{share}: {shown:?}");
            assert_eq!(log.is_truncated, log.text.contains("cut off"), "{share}");
        }
    }
}
