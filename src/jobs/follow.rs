//! One Job, followed: two watches on Kubernetes (the Job, its pods) for however many want to know.
//!
//! What is told is the document that `GET` of the Job answers with, whenever it has changed. Each has an id,
//! `revision-hash`: the newest revision of the cluster's that went into it, and what it says. From the revision,
//! another replica, or a function that knows nothing, finds out what the caller missed: Kubernetes lists the
//! past exactly (`resourceVersionMatch=Exact`) and tells what happened since, for as long as it remembers (some minutes).
//! From the hash it knows whether the caller has the present already.
//!
//! A watch that ends or breaks is begun again after the last thing that it told, so nothing is lost while the API server
//! restarts. If the cluster does not remember that far back (410), the present is asked for: what lay between cannot be
//! told then, and how it is now always is.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use axum::http::StatusCode;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::BodyExt;
use kube::client::Body;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    Jobs,
    api::{self, Call, Resource, Verb},
    error::Failure,
    job::{MOST_PODS, pods_of},
    pointer::Pointer,
    request::MOST,
    status::{self, JobStatus, Phase, text},
};
use crate::{problem::Problem, telemetry::log};

/// How long Kubernetes lets a watch go on, in seconds. A connection that died without a word is noticed so late.
const WATCH_SECONDS: u64 = 30;
/// How much later it is given up.
const GRACE: Duration = Duration::from_secs(5);

/// How soon a watch that failed is begun again, at first and at last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// Longest line of a watch: Kubernetes stores no object of more than 1.5 MB.
const LONGEST_LINE: usize = 4 << 20;

/// Changes that are kept for those who come back or are slow.
const KEPT: usize = 64;

/// A change's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Id {
    revision: u64,
    hash: String,
}

impl Id {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (revision, hash) = text.split_once('-')?;
        let is_hash = hash.len() == HASH && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let revision = revision.parse().ok().filter(|revision| *revision > 0 && is_hash)?;
        Some(Self { revision, hash: hash.to_owned() })
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.revision, self.hash)
    }
}

/// Digits of a hash.
const HASH: usize = 16;

fn hash(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    digest.as_ref().iter().take(HASH / 2).map(|byte| format!("{byte:02x}")).collect()
}

/// How the Job was at some moment.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) id: Id,
    /// The document, in one line.
    pub(super) data: Arc<str>,
    is_last: bool,
}

/// Why there is nothing more to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It succeeded or failed.
    Finished,
    /// There is no such Job any more.
    Gone,
}

// ---------------------------------------------------------------- what was told

/// A Job's latest changes. Clones share them.
#[derive(Debug, Clone)]
struct Told(Arc<(Mutex<History>, watch::Sender<()>)>);

#[derive(Debug, Default)]
struct History {
    /// The number of the first that is kept.
    first: u64,
    changes: VecDeque<Change>,
    end: Option<End>,
}

impl Told {
    fn new(seen: &Seen) -> Self {
        let told = Self(Arc::new((Mutex::default(), watch::Sender::new(()))));
        told.tell(seen);
        told
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells how the Job is, unless that is what was told last.
    fn tell(&self, seen: &Seen) {
        let change = seen.change();
        let mut history = self.history();
        if history.changes.back().is_some_and(|last| last.id.hash == change.id.hash) {
            return;
        }
        history.changes.push_back(change);
        if history.changes.len() > KEPT {
            history.changes.pop_front();
            history.first += 1;
        }
        drop(history);
        self.0.1.send_replace(());
    }

    fn end(&self, end: End) {
        self.history().end = Some(end);
        self.0.1.send_replace(());
    }
}

impl History {
    /// The number of the first change that somebody who has `id` has not seen; `None` when that lies too far back.
    fn after(&self, id: Option<&Id>) -> Option<u64> {
        let last = self.first + self.changes.len().saturating_sub(1) as u64;
        let Some(id) = id else { return Some(last) };
        let number = |at: usize| self.first + at as u64;
        if let Some(at) = self.changes.iter().position(|change| change.id == *id) {
            return Some(number(at) + 1);
        }
        if self.changes.front().is_none_or(|oldest| oldest.id.revision > id.revision) {
            return None;
        }
        let later = self.changes.iter().position(|change| change.id.revision > id.revision);
        Some(later.map_or(last, number))
    }
}

// ---------------------------------------------------------------- who is told

/// The Jobs that somebody follows, by cluster, namespace and name. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Followed(Arc<Mutex<HashMap<[String; 3], Weak<Following>>>>);

/// Follows a Job for as long as anybody has it.
#[derive(Debug)]
struct Following {
    told: Told,
    task: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One who follows a Job, and how far that one has come.
pub(super) struct Follower {
    following: Arc<Following>,
    next: u64,
    woken: watch::Receiver<()>,
}

/// What a follower gets next.
#[derive(Debug)]
pub(super) enum News {
    Change(Change),
    End(End),
}

impl Follower {
    fn new(following: Arc<Following>, next: u64) -> Self {
        let woken = following.told.0.1.subscribe();
        Self { following, next, woken }
    }

    /// Whether the Job is known to have ended: then there is no change to wait for.
    pub(super) fn is_about_to_end(&self) -> bool {
        let history = self.following.told.history();
        history.end.is_some() || history.changes.back().is_some_and(|change| change.is_last)
    }

    /// What there is now, if there is anything.
    pub(super) fn ready(&mut self) -> Option<News> {
        let history = self.following.told.history();
        // Whoever is slower than changes are forgotten goes on with the oldest.
        let at = self.next.max(history.first);
        match history.changes.get(usize::try_from(at - history.first).unwrap_or(usize::MAX)) {
            Some(change) => {
                self.next = at + 1;
                Some(News::Change(change.clone()))
            }
            None => history.end.map(News::End),
        }
    }

    /// What comes next. May be dropped and called again: nothing is lost.
    pub(super) async fn next(&mut self) -> News {
        loop {
            self.woken.borrow_and_update();
            if let Some(news) = self.ready() {
                return news;
            }
            if self.woken.changed().await.is_err() {
                return News::End(End::Gone);
            }
        }
    }
}

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
        let told = Told::new(&seen);
        let task = tokio::spawn(self.clone().follow(seen, watches, told.clone()));
        let following = Arc::new(Following { told, task });
        let is_known =
            |id: &Id| following.told.history().changes.back().is_some_and(|change| change.id.hash == id.hash);
        let next = u64::from(since.is_some_and(is_known));
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
            next = super::namespaces::next(&page);
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
                if let Ok(Some(last)) = self.look(&seen.namespace, &seen.name, None).await {
                    seen.replace(last);
                }
                told.tell(&seen);
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
                told.tell(&seen);
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

impl Followed {
    fn join(&self, key: &[String; 3], since: Option<&Id>) -> Option<Follower> {
        let following = self.map().get(key)?.upgrade()?;
        let next = {
            let history = following.told.history();
            // One that has ended tells nothing of a Job that took its name since.
            if history.end.is_some() {
                return None;
            }
            history.after(since)?
        };
        Some(Follower::new(following, next))
    }

    fn add(&self, key: [String; 3], following: &Arc<Following>) {
        let mut map = self.map();
        map.retain(|_, following| following.strong_count() > 0);
        map.insert(key, Arc::downgrade(following));
    }

    fn map(&self) -> MutexGuard<'_, HashMap<[String; 3], Weak<Following>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// ---------------------------------------------------------------- what is seen

/// A Job and its pods, as far as their status depends on them.
struct Seen {
    namespace: String,
    name: String,
    job: Value,
    selector: Option<String>,
    pods: BTreeMap<String, Value>,
    job_version: String,
    pods_version: String,
    /// The newest of anything seen.
    revision: u64,
}

impl Seen {
    fn new(namespace: &str, name: &str, job: Value, version: String) -> Self {
        let mut seen = Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            selector: pods_of(&job),
            job: Value::Null,
            pods: BTreeMap::new(),
            job_version: version.clone(),
            pods_version: version.clone(),
            revision: 0,
        };
        seen.see(&version);
        seen.job = slim_job(job);
        seen
    }

    fn see(&mut self, version: &str) {
        self.revision = self.revision.max(version.parse().unwrap_or(0));
    }

    fn add_pods(&mut self, list: &Value, version: String) {
        self.see(&version);
        self.pods_version = version;
        for pod in list.get("items").and_then(Value::as_array).into_iter().flatten() {
            self.pods.insert(name_of(pod), slim_pod(pod));
        }
    }

    fn is_the_job(&self, object: &Value) -> bool {
        object.get("kind").and_then(Value::as_str) == Some("Job") && name_of(object) == self.name
    }

    fn apply(&mut self, kind: &str, object: Value, version: &str) {
        self.see(version);
        if self.is_the_job(&object) {
            version.clone_into(&mut self.job_version);
            self.job = slim_job(object);
            return;
        }
        version.clone_into(&mut self.pods_version);
        match kind {
            "DELETED" => drop(self.pods.remove(&name_of(&object))),
            _ => drop(self.pods.insert(name_of(&object), slim_pod(&object))),
        }
    }

    /// What was seen later; ids never go back, even if the cluster's revisions did.
    fn replace(&mut self, later: Self) {
        let revision = self.revision.max(later.revision);
        *self = Self { revision, ..later };
    }

    fn status(&self) -> JobStatus {
        let pods: Vec<_> = self.pods.values().take(MOST_PODS as usize).cloned().collect();
        status::of(&self.job, Some(&pods))
    }

    fn is_finished(&self) -> bool {
        matches!(self.status().status, Phase::Succeeded | Phase::Failed)
    }

    fn uid(&self) -> String {
        text(&Pointer::root(&self.job).at("metadata"), "uid").unwrap_or_default()
    }

    fn change(&self) -> Change {
        // A status is text, numbers and lists of them: it always serializes.
        let data = serde_json::to_string(&self.status()).unwrap_or_default();
        let id = Id { revision: self.revision, hash: hash(&data) };
        Change { id, data: data.into(), is_last: self.is_finished() }
    }
}

fn name_of(object: &Value) -> String {
    text(&Pointer::root(object).at("metadata"), "name").unwrap_or_default()
}

fn version(object: &Value) -> String {
    text(&Pointer::root(object).at("metadata"), "resourceVersion").unwrap_or_default()
}

/// Without what its status does not depend on, which may be large.
fn slim_job(mut job: Value) -> Value {
    if let Some(spec) = job.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("template");
    }
    if let Some(metadata) = job.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        metadata.remove("annotations");
    }
    job
}

fn slim_pod(pod: &Value) -> Value {
    json!({"metadata": {"name": name_of(pod)}, "status": pod.get("status")})
}

// ---------------------------------------------------------------- one watch

/// Those that following a Job takes.
struct Watches {
    job: Upstream,
    pods: Option<Upstream>,
}

impl Watches {
    /// From where `seen` ends. Nothing is asked yet.
    fn new(jobs: &Arc<Jobs>, seen: &Seen) -> Self {
        let job = jobs_call(Verb::Watch, &seen.namespace, &seen.name);
        let selector = seen.selector.as_deref();
        let pods = selector.map(|selector| pods_call(Verb::Watch, &seen.namespace, selector));
        Self {
            job: Upstream::new(jobs, &job, &seen.job_version),
            pods: pods.map(|call| Upstream::new(jobs, &call, &seen.pods_version)),
        }
    }

    /// Begins them, so that it is known whether they can be.
    async fn open(&mut self) -> Result<(), (Resource, Failure)> {
        for upstream in std::iter::once(&mut self.job).chain(&mut self.pods) {
            let opened = upstream.open().await;
            upstream.lines = Some(opened.map_err(|failure| (upstream.call.resource, failure))?);
        }
        Ok(())
    }

    /// Follows both until the Job has ended (the watches say how, or the Job does), or they have to begin anew.
    async fn follow(self, seen: &mut Seen, told: &Told) -> Option<End> {
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
            if seen.is_finished() {
                return None;
            }
            told.tell(seen);
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

fn jobs_call<'a>(verb: Verb, namespace: &'a str, name: &str) -> Call<'a> {
    Call::new(verb, Resource::Jobs)
        .within(namespace)
        .with("fieldSelector", Some(format!("metadata.name={name}")))
}

fn pods_call<'a>(verb: Verb, namespace: &'a str, selector: &str) -> Call<'a> {
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
