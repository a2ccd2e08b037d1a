//! Watches on Kubernetes, each begun again whenever it ends.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    seen::{Seen, version},
    told::{End, Told},
};
use crate::{
    jobs::{
        Jobs,
        api::{self, Call, Resource, Verb},
        error::Failure,
    },
    telemetry::log,
};

/// How long Kubernetes lets a watch go on, in seconds. A connection that died without a word is noticed so late.
const WATCH_SECONDS: u64 = 30;
/// How much later it is given up.
const GRACE: Duration = Duration::from_secs(5);

/// How soon a watch that failed is begun again, at first and at last.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// Longest line of a watch: Kubernetes stores no object of more than 1.5 MB.
const LONGEST_LINE: usize = 4 << 20;

/// Those that following a Job takes.
pub(super) struct Watches {
    job: Upstream,
    pods: Option<Upstream>,
}

impl Watches {
    /// From where `seen` ends. Nothing is asked yet.
    pub(super) fn new(jobs: &Arc<Jobs>, seen: &Seen) -> Self {
        let job = jobs_call(Verb::Watch, &seen.namespace, &seen.name);
        let selector = seen.selector.as_deref();
        let pods = selector.map(|selector| pods_call(Verb::Watch, &seen.namespace, selector));
        Self {
            job: Upstream::new(jobs, &job, &seen.job_version),
            pods: pods.map(|call| Upstream::new(jobs, &call, &seen.pods_version)),
        }
    }

    /// Begins them, so that it is known whether they can be.
    pub(super) async fn open(&mut self) -> Result<(), (Resource, Failure)> {
        for upstream in std::iter::once(&mut self.job).chain(&mut self.pods) {
            let opened = upstream.open().await;
            upstream.lines = Some(opened.map_err(|failure| (upstream.call.resource, failure))?);
        }
        Ok(())
    }

    /// Follows both until the Job has ended (the watches say how, or the Job does), or they have to begin anew.
    pub(super) async fn follow(self, seen: &mut Seen, told: &Told) -> Option<End> {
        let pods = stream::iter(self.pods.map(Upstream::events)).flatten();
        let mut events = std::pin::pin!(stream::select(self.job.events(), pods));
        while let Some(event) = events.next().await {
            match event {
                Event::Changed { kind, object, .. } if kind == "DELETED" && seen.is_the_job(&object) => {
                    return Some(End::Gone);
                }
                Event::Changed { kind, object, revision } => seen.apply(&kind, object, &revision),
                Event::Expired => return None,
            }
            let change = seen.change();
            if change.is_last {
                return None;
            }
            told.tell(change);
        }
        None
    }
}

/// A watch that is begun again, after the last thing that it told, whenever it ends.
struct Upstream {
    jobs: Arc<Jobs>,
    call: Owned,
    version: String,
    lines: Option<Lines>,
    pause: Duration,
}

/// A call that names what it is about itself.
struct Owned {
    resource: Resource,
    namespace: String,
    query: Vec<(&'static str, String)>,
}

enum Event {
    Changed {
        kind: String,
        object: Value,
        revision: String,
    },
    /// The cluster does not remember what happened since.
    Expired,
}

pub(super) fn jobs_call<'a>(verb: Verb, namespace: &'a str, name: &str) -> Call<'a> {
    Call::new(verb, Resource::Jobs)
        .within(namespace)
        .with("fieldSelector", Some(format!("metadata.name={name}")))
}

pub(super) fn pods_call<'a>(verb: Verb, namespace: &'a str, selector: &str) -> Call<'a> {
    Call::new(verb, Resource::Pods).within(namespace).with("labelSelector", Some(selector))
}

impl Upstream {
    fn new(jobs: &Arc<Jobs>, call: &Call<'_>, version: &str) -> Self {
        let call = Owned {
            resource: call.resource,
            namespace: call.namespace.unwrap_or_default().to_owned(),
            query: call.query.clone(),
        };
        Self { jobs: jobs.clone(), call, version: version.to_owned(), lines: None, pause: PAUSES.0 }
    }

    /// What happens, as it happens. Ends only with [`Event::Expired`].
    fn events(self) -> impl Stream<Item = Event> + Send {
        stream::unfold(Some(self), |upstream| async move {
            let mut upstream: Upstream = upstream?;
            match upstream.next().await {
                Event::Expired => Some((Event::Expired, None)),
                event => Some((event, Some(upstream))),
            }
        })
    }

    async fn next(&mut self) -> Event {
        loop {
            let Some(lines) = &mut self.lines else {
                match self.open().await {
                    Ok(lines) => self.lines = Some(lines),
                    Err(failure) if failure.is(StatusCode::GONE) => return Event::Expired,
                    Err(failure) => {
                        // Once: it may go on for as long as somebody follows.
                        if self.pause == PAUSES.0 {
                            let resource = self.call.resource.name();
                            tracing::warn!(
                                resource,
                                ?failure,
                                "Lost a watch on the cluster, and goes on trying"
                            );
                        }
                        self.rest().await;
                    }
                }
                continue;
            };
            match lines.next().await {
                Some(line) => match self.read(&line) {
                    Some(event) => return event,
                    None => continue,
                },
                None => {
                    let was_short = lines.opened.elapsed() < PAUSES.1;
                    self.lines = None;
                    // One that ends as soon as it has begun is no better than one that fails.
                    if was_short {
                        self.rest().await;
                    } else {
                        self.pause = PAUSES.0;
                    }
                }
            }
        }
    }

    async fn rest(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSES.1);
    }

    async fn open(&mut self) -> Result<Lines, Failure> {
        let Owned { resource, namespace, query } = &self.call;
        let mut call = Call::new(Verb::Watch, *resource).within(namespace);
        call.query.extend(query.iter().cloned());
        let call = call
            .with("watch", Some(true))
            .with("resourceVersion", Some(&self.version))
            .with("allowWatchBookmarks", Some(true))
            .with("timeoutSeconds", Some(WATCH_SECONDS));
        let deadline = self.jobs.call_deadline;
        let opened = api::open(self.jobs.client()?, &call, deadline).await;
        self.jobs.noted(opened).map(Lines::new)
    }

    /// A line of a watch; `None` for one that says nothing new.
    fn read(&mut self, line: &[u8]) -> Option<Event> {
        let mut said: Value = serde_json::from_slice(line).unwrap_or(Value::Null);
        let kind = said.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let object = said.get_mut("object").map(Value::take).unwrap_or(Value::Null);
        match kind.as_str() {
            "ADDED" | "MODIFIED" | "DELETED" => {
                self.version = version(&object);
                self.pause = PAUSES.0;
                Some(Event::Changed { kind, object, revision: self.version.clone() })
            }
            "BOOKMARK" => {
                self.version = version(&object);
                None
            }
            _ if object.get("code").and_then(Value::as_u64) == Some(410) => Some(Event::Expired),
            _ => {
                tracing::debug!(line = %String::from_utf8_lossy(line), "A watch broke");
                self.lines = None;
                None
            }
        }
    }
}

/// A body, line by line. What has been read of a line is kept when nobody waits for it any more.
struct Lines {
    body: Body,
    buffer: Vec<u8>,
    opened: Instant,
}

impl Lines {
    fn new(body: Body) -> Self {
        Self { body, buffer: Vec::new(), opened: Instant::now() }
    }

    /// The next line; `None` at the end, however it came.
    async fn next(&mut self) -> Option<Vec<u8>> {
        let until = self.opened + Duration::from_secs(WATCH_SECONDS) + GRACE;
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                return Some(line);
            }
            let frame = tokio::time::timeout_at(until, self.body.frame()).await.ok()??;
            let frame = frame.inspect_err(|error| {
                let error = log::chain(error);
                tracing::debug!(error, "A watch broke");
            });
            self.buffer.extend_from_slice(&frame.ok()?.into_data().unwrap_or_default());
            if self.buffer.len() > LONGEST_LINE {
                return None;
            }
        }
    }
}
