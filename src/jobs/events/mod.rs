//! How a Job changes, as server-sent events (the HTML Standard, "Server-sent events").
//!
//! - `follow`: one watch for all who follow a Job, and where each begins.
//! - `upstream`: watches on Kubernetes that go on; `seen`: what they have shown of a Job and its pods.
//! - `told`: what its followers are told, by id; `follower`: how far each of them has come.
//!
//! Where an answer can be sent while it is made, it goes on until the Job has ended, the process is to stop, or a
//! quarter of an hour has passed, so that a token that was taken back is not good for ever. Where it cannot, it ends with the
//! first change, or when there was none for a while. A client that comes back with `Last-Event-ID`, as `EventSource` does by
//! itself, sees the same either way.

mod follow;
mod follower;
mod seen;
mod told;
mod upstream;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

pub use self::follower::Followed;
use self::{
    follower::Follower,
    told::{Change, End, Id, News},
};
use super::{EVENTS, Jobs, docs::Reads, request::InPath};
use crate::{lifecycle::Phase, problem::Problem};

/// How often something is sent when nothing happens: below the 60 s of AWS load balancers.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Longest time that one answer goes on.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Longest time that a whole answer waits for a change.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// What tells clients to come back a second later; they know how by themselves.
const RETRY: &str = "retry: 1000\n\n";

/// How events are delivered.
#[derive(Debug, Clone, Copy)]
pub enum Delivery {
    /// Each when it happens.
    Live {
        /// How often something is sent when nothing happens.
        heartbeat: Duration,
        /// Longest time that one answer goes on.
        longest: Duration,
    },
    /// In an answer that is sent when it is whole: with the first change, or after so long.
    Whole {
        /// Longest time to wait.
        wait: Duration,
    },
}

impl Delivery {
    /// While they happen, for a quarter of an hour.
    #[must_use]
    pub fn live() -> Self {
        Self::Live { heartbeat: HEARTBEAT, longest: LONGEST }
    }

    /// Whole answers, well within the time that a request may take.
    #[must_use]
    pub fn whole(request_timeout: Duration) -> Self {
        Self::Whole { wait: LONGEST_WAIT.min(request_timeout * 3 / 4) }
    }
}

/// How a Job changes, as it happens.
///
/// Server-sent events: `event: status` with the document of the Job as `data`, first how it is, then each change; at
/// last `event: end` with `{"reason":"finished"}` or `{"reason":"gone"}`. With `Last-Event-ID`, only what came after it;
/// 204 where nothing more can come, which ends an `EventSource`. On Lambda an answer ends with the first change or after 20 s:
/// ask again, as `EventSource` does by itself.
#[utoipa::path(get, path = EVENTS, operation_id = "follow_job", tag = "jobs",
    params(
        ("namespace" = String, Path, description = "One that `JOBS_NAMESPACES` opens", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        ("name" = String, Path, description = "The Job", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event that was seen"),
    ),
    responses(
        (status = 200, description = "Events", body = String, content_type = "text/event-stream"),
        (status = 204, description = "The Job has ended, and the caller has seen how"),
        Reads,
    ),
    security(("token" = ["jobs:read"])))]
pub(super) async fn follow(
    State(jobs): State<Arc<Jobs>>,
    InPath([namespace, name]): InPath<2>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let began = Instant::now();
    jobs.check_job(&namespace, &name)?;
    let last = headers.get("last-event-id").and_then(|id| Id::parse(id.to_str().ok()?));
    let mut follower = jobs.followed(&namespace, &name, last.as_ref()).await?;
    let first = match jobs.delivery {
        Delivery::Live { .. } if !follower.is_about_to_end() => follower.ready(),
        Delivery::Live { .. } => Some(follower.next().await),
        Delivery::Whole { wait } => tokio::time::timeout_at(began + wait, follower.next()).await.ok(),
    };
    if last.is_some() && matches!(first, Some(News::End(End::Finished))) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let body = match jobs.delivery {
        Delivery::Live { heartbeat, longest } => {
            let live = Live { jobs, follower, heartbeat, until: began + longest, is_over: false };
            live.body(first)
        }
        Delivery::Whole { .. } => Body::from(whole(&mut follower, first)),
    };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        // Nobody on the way is to keep it, or to gather it for compression.
        (header::CACHE_CONTROL, "no-cache, no-transform"),
    ];
    Ok((headers, body).into_response())
}

/// All that there is by now.
fn whole(follower: &mut Follower, first: Option<News>) -> String {
    let mut text = RETRY.to_owned();
    let mut next = first;
    while let Some(news) = next {
        text.push_str(&written(&news));
        next = if matches!(news, News::End(_)) { None } else { follower.ready() };
    }
    text
}

/// An answer that goes on.
struct Live {
    jobs: Arc<Jobs>,
    follower: Follower,
    heartbeat: Duration,
    until: Instant,
    is_over: bool,
}

impl Live {
    fn body(mut self, first: Option<News>) -> Body {
        self.is_over = matches!(first, Some(News::End(_)));
        let begin = format!("{RETRY}{}", first.as_ref().map(written).unwrap_or_default());
        let rest = stream::unfold(self, |mut live| async move { Some((live.next().await?, live)) });
        let text = stream::iter([begin]).chain(rest);
        Body::from_stream(text.map(Ok::<_, Infallible>))
    }

    async fn next(&mut self) -> Option<String> {
        if self.is_over {
            return None;
        }
        tokio::select! {
            biased;
            // Before any news: those who come back get them, and a Job that never rests must not hold up a drain.
            () = self.jobs.lifecycle.reached(Phase::Draining) => None,
            () = tokio::time::sleep_until(self.until) => None,
            news = self.follower.next() => {
                self.is_over = matches!(news, News::End(_));
                Some(written(&news))
            }
            // A comment: it shows both sides that the other is there.
            () = tokio::time::sleep(self.heartbeat) => Some(":\n\n".to_owned()),
        }
    }
}

fn written(news: &News) -> String {
    match news {
        News::Change(Change { id, data, .. }) => format!("event: status\nid: {id}\ndata: {data}\n\n"),
        News::End(End::Finished) => "event: end\ndata: {\"reason\":\"finished\"}\n\n".to_owned(),
        News::End(End::Gone) => "event: end\ndata: {\"reason\":\"gone\"}\n\n".to_owned(),
    }
}
