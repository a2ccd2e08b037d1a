//! One Job, followed: two watches on Kubernetes (the Job, its pods) for however many want to know.
//!
//! What is told is the document that `GET` of the Job answers with, whenever it has changed.
//!
//! A watch that ends or breaks is begun again after the last thing that it told, so nothing is lost while the API server
//! restarts. If the cluster does not remember that far back (410), the present is asked for: what lay between cannot be
//! told then, and how it is now always is.

use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::Value;

use super::{
    follower::{Follower, Following},
    seen::{Seen, version},
    told::{End, Id, Told},
    upstream::{PAUSES, Watches, jobs_call, pods_call},
};
use crate::{
    jobs::{
        Jobs,
        api::{Call, Resource, Verb},
        error::Failure,
        namespaces::next as more,
        request::MOST,
    },
    problem::Problem,
};

impl Jobs {
    /// Follows a Job from where somebody who has `since` left off.
    ///
    /// # Errors
    /// As for reading it.
    pub(super) async fn followed(
        self: &Arc<Self>,
        namespace: &str,
        name: &str,
        since: Option<&Id>,
    ) -> Result<Follower, Problem> {
        let key = [self.cluster()?.name().to_owned(), namespace.to_owned(), name.to_owned()];
        if let Some(follower) = self.followed.join(&key, since) {
            return Ok(follower);
        }
        let (seen, watches) = self.begin(namespace, name, since).await?;
        // Another may have been as fast.
        if let Some(follower) = self.followed.join(&key, since) {
            return Ok(follower);
        }
        let told = Told::new(seen.change());
        let next = u64::from(since.is_some_and(|id| told.ends_with(id)));
        let task = tokio::spawn(self.clone().follow(seen, watches, told.clone()));
        let following = Arc::new(Following { told, task });
        self.followed.add(key, &following);
        Ok(Follower::new(following, next))
    }

    /// Where to begin, and the watches from there: whoever may not watch, or cannot, is told so at once.
    async fn begin(
        self: &Arc<Self>,
        namespace: &str,
        name: &str,
        since: Option<&Id>,
    ) -> Result<(Seen, Watches), Problem> {
        let seen = self.begin_at(namespace, name, since).await?;
        let mut watches = Watches::new(self, &seen);
        match watches.open().await {
            Ok(()) => Ok((seen, watches)),
            // The past can still be listed, but not what happened since.
            Err((_, failure)) if failure.is(StatusCode::GONE) => {
                let seen = self.begin_at(namespace, name, None).await?;
                let watches = Watches::new(self, &seen);
                Ok((seen, watches))
            }
            Err((resource, failure)) => {
                Err(failure.problem(&Call::new(Verb::Watch, resource).within(namespace), None))
            }
        }
    }

    /// How the Job was at the revision of `since`, or else how it is.
    async fn begin_at(&self, namespace: &str, name: &str, since: Option<&Id>) -> Result<Seen, Problem> {
        let refused = |(resource, failure): (Resource, Failure)| {
            failure.problem(&Call::new(Verb::List, resource).within(namespace), None)
        };
        if let Some(id) = since {
            match self.look(namespace, name, Some(id.revision)).await {
                Ok(Some(seen)) => return Ok(seen),
                Ok(None) => {}
                // The cluster does not remember, or never knew: it may be another one of the same name.
                Err((_, Failure::Refused(refusal))) => tracing::debug!(?refusal, "Cannot go on from there"),
                Err(failure) => return Err(refused(failure)),
            }
        }
        let seen = self.look(namespace, name, None).await;
        let seen = seen.map_err(refused)?;
        seen.ok_or_else(|| {
            let detail = format!("there is no Job {name} in the namespace {namespace}");
            Problem::new(StatusCode::NOT_FOUND, detail)
        })
    }

    /// The Job and its pods, at a moment or now; `None` when there is no such Job.
    async fn look(
        &self,
        namespace: &str,
        name: &str,
        revision: Option<u64>,
    ) -> Result<Option<Seen>, (Resource, Failure)> {
        let exactly = revision.map(|_| "Exact");
        let call = jobs_call(Verb::List, namespace, name)
            .with("resourceVersion", revision)
            .with("resourceVersionMatch", exactly);
        let list = self.send(&call).await.map_err(|failure| (Resource::Jobs, failure))?;
        let Some(job) = list.get("items").and_then(|items| items.get(0)).cloned() else { return Ok(None) };
        // Of an exact list of one object, some versions of Kubernetes say that it is of now.
        let at = |list: &Value| revision.map_or_else(|| version(list), |revision| revision.to_string());
        let mut seen = Seen::new(namespace, name, job, at(&list));
        let Some(selector) = seen.selector.clone() else { return Ok(Some(seen)) };
        let mut next: Option<String> = None;
        loop {
            let first = next.is_none();
            let call = pods_call(Verb::List, namespace, &selector)
                .with("limit", Some(MOST))
                .with("resourceVersion", revision.filter(|_| first))
                .with("resourceVersionMatch", exactly.filter(|_| first))
                .with("continue", next);
            let page = self.send(&call).await.map_err(|failure| (Resource::Pods, failure))?;
            seen.add_pods(&page, at(&page));
            next = more(&page);
            if next.is_none() {
                return Ok(Some(seen));
            }
        }
    }

    /// Tells of every change, until there can be none any more.
    async fn follow(self: Arc<Self>, mut seen: Seen, mut watches: Watches, told: Told) {
        let end = loop {
            if seen.is_finished() {
                // The last words of its pods come by another watch, and may not be here yet.
                match self.look(&seen.namespace, &seen.name, None).await {
                    Ok(Some(last)) if last.uid() == seen.uid() => seen.replace(last),
                    _ => {}
                }
                told.tell(seen.change());
                break End::Finished;
            }
            if let Some(end) = watches.follow(&mut seen, &told).await {
                break end;
            }
            if !seen.is_finished() {
                match self.look_again(&seen).await {
                    Some(now) if now.uid() == seen.uid() => seen.replace(now),
                    _ => break End::Gone,
                }
                told.tell(seen.change());
            }
            watches = Watches::new(&self, &seen);
        };
        told.end(end);
    }

    /// How it is now, as soon as the cluster says so; `None` when there is no such Job.
    async fn look_again(&self, seen: &Seen) -> Option<Seen> {
        let mut pause = PAUSES.0;
        loop {
            match self.look(&seen.namespace, &seen.name, None).await {
                Ok(now) => return now,
                Err((_, failure)) => tracing::debug!(?failure, "Could not look at a followed Job"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}
