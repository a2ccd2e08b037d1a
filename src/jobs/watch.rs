//! Writes down what becomes of this service's Jobs, so that it is known when the cluster has forgotten them.
//!
//! Jobs are listed once and then watched from where the list ended, in short spans: a watch that Kubernetes ends after
//! [`SPAN`] is an answer like any other, with a deadline, over the connections that are there, and nothing happens
//! between two of them that the second does not tell. Lists alone would miss a Job that came and went between two.
//!
//! - Every transition is an entry whose name follows from the cluster, the Job's UID and the transition. Two watchers, or
//!   one that begins again, write it once. What else must happen then ([`Follow`]) is written with it or not at all.
//! - Where the watch stands is stored after what it told is: what was told and not stored is told again. It is stored for
//!   one cluster: one that is made anew under the same name counts its versions anew.
//! - Kubernetes forgets old versions (410). Then Jobs are listed again: those that have ended say when, those that are
//!   missing are recorded as gone. A watch that fails otherwise while it is read is no better: nobody knows how far it came.
//! - Of which version a list is, is stored before anything of it. Whoever comes after one that was stopped in the middle lists
//!   Jobs as they were then, and watches from there: those that came and went meanwhile are told.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    api::{self, Call, Resource, Verb},
    cluster::Cluster,
    error::Failure,
    figures::Figures,
    history::{self, Known, Stage, Step, Transition},
    lease::Lease,
    manifest::MANAGED_BY,
    status,
    webhook::outbox::Outbox,
};
use crate::{
    problem::Problem,
    store::{
        ledger::{Ledger, kept_until},
        records::{Change, Log, Name, Query, Record},
    },
};

/// How long one watch lasts: also how late a transition may be known.
pub const SPAN: Duration = Duration::from_secs(2);

/// The same for a function that only catches up: what there is comes at once.
const CATCHING_UP: Duration = Duration::from_secs(1);

/// Longest time for one call: a page of Jobs takes longest.
const CALL: Duration = Duration::from_secs(10);

/// How often it is stored that nothing happened: often enough that Kubernetes still knows that version.
const STORED_EVERY: Duration = Duration::from_secs(30);

/// How long that is kept: far longer than any Kubernetes knows a version.
const POSITION_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(2);

/// Jobs in one page of a list, and records in one of a log.
const PAGE: u32 = 500;

/// Broken watches after which Jobs are listed again: one that is too long to be read would break for ever.
const TRIES: u32 = 3;

/// What else is to be written when a Job has made a transition: together with the entry or not at all, and once.
pub type Follow = Arc<dyn Fn(&Event<'_>) -> Vec<Change> + Send + Sync>;

/// A transition, and whose.
#[derive(Debug)]
pub struct Event<'a> {
    /// The cluster.
    pub cluster: &'a str,
    /// The Job after it.
    pub job: &'a Known,
    /// What happened.
    pub transition: &'a Transition,
    /// The Job as Kubernetes describes it, where it is still there.
    pub object: Option<&'a Value>,
    /// Milliseconds since 1970.
    pub now: u64,
}

/// What is watched, and where it is written.
#[derive(Clone)]
pub struct Watch {
    /// Whose Jobs.
    pub cluster: Cluster,
    /// The history.
    pub ledger: Ledger,
    /// Where the Lease is; without one, only those who call [`Watch::catch_up`] write.
    pub lease_namespace: Option<String>,
    /// Who this replica is.
    pub holder: String,
    /// What follows a transition, if anything does.
    pub follow: Option<Follow>,
    /// What that leaves to be delivered, by whoever watches.
    pub outbox: Option<Outbox>,
    /// What `/metrics` says of it.
    pub figures: Figures,
}

/// The log of a Job's name.
#[must_use]
pub fn log(cluster: &str, namespace: &str, name: &str) -> Log {
    Log::of("history", &[cluster, namespace, name])
}

impl Watch {
    /// Watches whenever this replica holds the Lease, until `end`; then lets another have it.
    pub async fn run(&self, end: impl Future<Output = ()>) {
        let Self { cluster, lease_namespace, holder, .. } = self;
        let Some(namespace) = lease_namespace else {
            if self.outbox.is_some() {
                let reason = "JOBS_LEASE_NAMESPACE is not set";
                tracing::warn!(cluster = cluster.name(), reason, "Webhooks are not delivered");
            }
            return;
        };
        if let Some(reason) = self.ledger.refusal() {
            tracing::warn!(reason, "The history of Jobs is not kept");
            return;
        }
        self.figures.begin();
        let mut lease = Lease::new(cluster.clone(), namespace.clone(), holder.clone());
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => {
                    // What it was about to take may be its own by now.
                    lease.release().await;
                    return;
                }
                () = lease.acquire() => {}
            }
            tracing::info!(cluster = cluster.name(), "Watches Jobs");
            let _held = self.figures.hold();
            tokio::select! {
                () = &mut end => {
                    lease.release().await;
                    return;
                }
                () = lease.keep() => tracing::warn!(cluster = cluster.name(), "Lost the Lease"),
                () = self.watch() => {}
                () = self.deliver() => {}
            }
        }
    }

    async fn identity(&self) -> Result<String, Trouble> {
        Ok(self.cluster.identity().await.map_err(Failure::Cluster)?)
    }

    /// Delivers for as long as it is let.
    async fn deliver(&self) {
        match &self.outbox {
            Some(outbox) => outbox.run().await,
            None => std::future::pending().await,
        }
    }

    /// Writes down what happened since somebody last did, without a Lease: entries are made once, whoever makes them. Then
    /// delivers what is due.
    ///
    /// # Errors
    /// When the store, or else the cluster, does not answer.
    pub async fn catch_up(&self) -> Result<(), Trouble> {
        // Then nothing could be written down, and nobody has to be asked.
        if let Some(reason) = self.ledger.refusal() {
            return Err(Trouble(reason.to_owned()));
        }
        let watched = self.look_once().await;
        if let Some(outbox) = &self.outbox {
            outbox.deliver_due().await?;
        }
        watched
    }

    async fn look_once(&self) -> Result<(), Trouble> {
        let mut watcher = Watcher::open(self).await?;
        let mut outcome = Ok(());
        // At most a position that is of no use any more, a list, and a watch.
        for _ in 0..3 {
            let before = watcher.position.clone();
            outcome = watcher.go_on(CATCHING_UP).await;
            let is_lost = before.is_some() && watcher.position.is_none();
            let is_over = outcome.is_err() || matches!(before, Some(Position::Watched(_)));
            if is_over && !is_lost {
                break;
            }
        }
        outcome
    }

    /// For as long as it is let.
    async fn watch(&self) {
        let mut failures: u32 = 0;
        let mut watcher = None;
        loop {
            let outcome = match &mut watcher {
                None => Watcher::open(self).await.map(|opened| watcher = Some(opened)),
                Some(watcher) => watcher.go_on(SPAN).await,
            };
            match outcome {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!(cluster = self.cluster.name(), failures, "Watches Jobs again");
                    }
                    failures = 0;
                }
                Err(trouble) => {
                    if failures == 0 {
                        tracing::warn!(
                            cluster = self.cluster.name(),
                            reason = trouble.0,
                            "Could not watch Jobs"
                        );
                    }
                    failures = failures.saturating_add(1);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Why there is nothing new: for the log.
#[derive(Debug)]
pub struct Trouble(String);

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self(failure.in_words())
    }
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        Self(problem.detail().to_owned())
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far the Jobs' history is known, as the store keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Position {
    /// Some of the Jobs that there were at this version.
    Listing(String),
    /// All that happened up to this version.
    Watched(String),
}

/// What is known of the cluster's Jobs while they are watched.
struct Watcher<'a> {
    watch: &'a Watch,
    /// Which cluster of that name it is.
    identity: String,
    /// Those that are not gone, by UID.
    known: HashMap<String, Known>,
    /// What to go on from.
    position: Option<Position>,
    stored: Option<Instant>,
    has_news: bool,
    broken: u32,
}

impl<'a> Watcher<'a> {
    /// Begins where the last one stopped.
    async fn open(watch: &'a Watch) -> Result<Self, Trouble> {
        let mut watcher = Self {
            watch,
            identity: watch.identity().await?,
            known: HashMap::new(),
            position: None,
            stored: None,
            has_news: false,
            broken: 0,
        };
        let ledger = &watch.ledger;
        let mut query = Query::all(watcher.present(), PAGE, ledger.now() / 1000);
        loop {
            let page = ledger.read(query.clone()).await?;
            let known =
                page.records.iter().filter_map(|record| serde_json::from_str::<Known>(&record.body).ok());
            watcher.known.extend(known.map(|known| (known.uid.clone(), known)));
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        let stored = ledger.read(Query::all(watcher.watch_log(), 1, ledger.now() / 1000)).await?;
        watcher.position = stored.records.first().and_then(|record| serde_json::from_str(&record.body).ok());
        Ok(watcher)
    }

    /// Watches for a span, or lists where there is nothing to go on from.
    async fn go_on(&mut self, span: Duration) -> Result<(), Trouble> {
        let identity = self.watch.identity().await?;
        if self.identity != identity {
            (self.identity, self.position) = (identity, None);
            tracing::info!(
                cluster = self.watch.cluster.name(),
                "Lists Jobs again: the cluster is another one"
            );
        }
        match self.position.clone() {
            None => self.list(None).await?,
            Some(Position::Listing(version)) => self.list(Some(version)).await?,
            Some(Position::Watched(version)) => self.watch(&version, span).await?,
        }
        let is_due = self.stored.is_none_or(|stored| stored.elapsed() >= STORED_EVERY);
        if self.has_news || is_due {
            self.store_position().await?;
        }
        self.watch.figures.succeeded(self.watch.ledger.now());
        Ok(())
    }

    async fn watch(&mut self, version: &str, span: Duration) -> Result<(), Trouble> {
        let call = self
            .call(Verb::Watch)
            .with("watch", Some(true))
            .with("allowWatchBookmarks", Some(true))
            .with("resourceVersion", Some(version))
            .with("timeoutSeconds", Some(span.as_secs()));
        let text = match api::bytes(self.watch.cluster.client(), &call, CALL).await {
            Ok(text) => text,
            Err(failure) if failure.is(StatusCode::GONE) => return self.begin_again(),
            Err(failure) => {
                self.broken += u32::from(failure.is_broken());
                if self.broken >= TRIES {
                    self.broken = 0;
                    self.position = None;
                }
                return Err(failure.into());
            }
        };
        self.broken = 0;
        for event in serde_json::Deserializer::from_slice(&text).into_iter::<Value>() {
            let event = event.map_err(|error| Trouble(format!("an event makes no sense: {error}")))?;
            let object = &event["object"];
            match event["type"].as_str() {
                Some("ADDED" | "MODIFIED") => self.saw(object).await?,
                Some("DELETED") => self.saw_it_go(object).await?,
                Some("BOOKMARK") => {}
                Some("ERROR") if object["code"] == 410 => return self.begin_again(),
                _ => {
                    self.position = None;
                    return Err(Trouble(format!("the watch failed: {}", object["message"])));
                }
            }
            if let Some(version) = object["metadata"]["resourceVersion"].as_str() {
                self.position = Some(Position::Watched(version.to_owned()));
            }
        }
        Ok(())
    }

    /// Kubernetes has forgotten what came after the position.
    #[expect(clippy::unnecessary_wraps, reason = "what its callers answer")]
    fn begin_again(&mut self) -> Result<(), Trouble> {
        tracing::info!(
            cluster = self.watch.cluster.name(),
            "Lists Jobs again: Kubernetes has forgotten a version"
        );
        self.position = None;
        Ok(())
    }

    /// Compares what there is with what is known; or what there was, where a list of that version was begun before.
    async fn list(&mut self, mut version: Option<String>) -> Result<(), Trouble> {
        let mut missing: HashSet<_> = self.known.keys().cloned().collect();
        let mut next: Option<String> = None;
        let version = loop {
            // Of each page the one before says which version it is of.
            let exactly = version.as_deref().filter(|_| next.is_none());
            let call = self
                .call(Verb::List)
                .with("limit", Some(PAGE))
                .with("continue", next.as_deref())
                .with("resourceVersion", exactly)
                .with("resourceVersionMatch", exactly.map(|_| "Exact"));
            let list = match api::send(self.watch.cluster.client(), &call, CALL).await {
                Err(failure) if failure.is(StatusCode::GONE) && next.is_none() => return self.begin_again(),
                Err(failure) if failure.is(StatusCode::GONE) => {
                    self.position = None;
                    return Err(Trouble("a list expired before its end".to_owned()));
                }
                answer => answer?,
            };
            let of = match version {
                Some(of) => of,
                None => self.begin_to_list(&list).await?,
            };
            for job in list["items"].as_array().into_iter().flatten() {
                missing.remove(job["metadata"]["uid"].as_str().unwrap_or_default());
                self.saw(job).await?;
            }
            next = list["metadata"]["continue"].as_str().filter(|next| !next.is_empty()).map(str::to_owned);
            if next.is_none() {
                break of;
            }
            version = Some(of);
        };
        for uid in missing {
            if let Some(known) = self.known.get(&uid).cloned() {
                self.end(&known, false).await?;
            }
        }
        // Stored before anything later is: whoever lists this version once more would miss what came after it.
        self.position = Some(Position::Watched(version.clone()));
        let stored = self.store_position().await;
        if stored.is_err() {
            self.position = Some(Position::Listing(version));
        }
        stored
    }

    /// Stores which version a list is of, from its first page.
    async fn begin_to_list(&mut self, page: &Value) -> Result<String, Trouble> {
        let version = page["metadata"]["resourceVersion"].as_str();
        let version = version.ok_or_else(|| Trouble("a list without a version".to_owned()))?.to_owned();
        self.position = Some(Position::Listing(version.clone()));
        self.store_position().await?;
        Ok(version)
    }

    async fn saw(&mut self, job: &Value) -> Result<(), Trouble> {
        let uid = job["metadata"]["uid"].as_str().unwrap_or_default();
        for step in history::steps(self.known.get(uid), job, self.watch.ledger.now()) {
            self.enter(step, Some(job)).await?;
        }
        Ok(())
    }

    async fn saw_it_go(&mut self, job: &Value) -> Result<(), Trouble> {
        // Its last state may be news.
        self.saw(job).await?;
        let uid = status::of(job, None).uid;
        match self.known.get(&uid).cloned() {
            Some(known) => self.end(&known, true).await,
            None => Ok(()),
        }
    }

    async fn end(&mut self, known: &Known, was_seen: bool) -> Result<(), Trouble> {
        self.enter(history::gone(known, self.watch.ledger.now(), was_seen), None).await
    }

    /// Writes a transition with all that belongs to it.
    async fn enter(&mut self, step: Step, object: Option<&Value>) -> Result<(), Trouble> {
        let Watch { cluster, ledger, follow, figures, .. } = self.watch;
        let (cluster, Step { transition, after }) = (cluster.name(), step);
        let entry = Record {
            name: Name::of("transition", &[cluster, &after.uid, after.stage.name(), &after.spell]),
            log: log(cluster, &after.namespace, &after.name),
            place: after.place,
            namespace: Some(after.namespace.clone()),
            caller: None,
            body: json(&transition)?,
            keep_until: ledger.keep_until(),
        };
        let mut changes = vec![self.present_change(&after)?];
        if let Some(follow) = follow {
            let event = Event { cluster, job: &after, transition: &transition, object, now: ledger.now() };
            changes.extend(follow(&event));
        }
        if ledger.enter(entry, changes).await? {
            figures.entered();
        }
        self.has_news = true;
        match after.stage {
            Stage::Gone => drop(self.known.remove(&after.uid)),
            _ => drop(self.known.insert(after.uid.clone(), after)),
        }
        Ok(())
    }

    /// That it is there, or no more: what the next watcher, and the next list, have to know.
    fn present_change(&self, job: &Known) -> Result<Change, Trouble> {
        let name = Name::of("present", &[self.watch.cluster.name(), &job.uid]);
        if job.stage == Stage::Gone {
            return Ok(Change::Remove(name));
        }
        let (log, place, body) = (self.present(), job.place, json(job)?);
        Ok(Change::Put(Record { name, log, place, namespace: None, caller: None, body, keep_until: None }))
    }

    async fn store_position(&mut self) -> Result<(), Trouble> {
        let Some(position) = self.position.clone() else { return Ok(()) };
        let record = Record {
            name: Name::of("watch", &[self.watch.cluster.name(), &self.identity]),
            log: self.watch_log(),
            place: 0,
            namespace: None,
            caller: None,
            body: json(&position)?,
            keep_until: Some(kept_until(self.watch.ledger.now(), POSITION_KEPT)),
        };
        self.watch.ledger.change(vec![Change::Put(record)]).await?;
        (self.stored, self.has_news) = (Some(Instant::now()), false);
        Ok(())
    }

    fn present(&self) -> Log {
        Log::of("present", &[self.watch.cluster.name()])
    }

    fn watch_log(&self) -> Log {
        Log::of("watch", &[self.watch.cluster.name(), &self.identity])
    }

    /// All namespaces at once, this service's own Jobs alone.
    fn call(&self, verb: Verb) -> Call<'static> {
        let (label, ours) = MANAGED_BY;
        Call::new(verb, Resource::Jobs).with("labelSelector", Some(format!("{label}={ours}")))
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, Trouble> {
    serde_json::to_string(value).map_err(|error| Trouble(error.to_string()))
}
