//! What becomes of Jobs is written down: by a watcher before a small Kubernetes, on each store.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use math_service::{
    auth::{Clock, trail::Trail},
    config::Config,
    jobs::{
        cluster::{Cluster, ClusterError},
        watch::{Event, Watch},
    },
    store::{
        self, Seconds, SequenceId, Step, Store, StoreError,
        ledger::Ledger,
        records::{Change, Log, Name, Page, Query, Record, Records},
        state::State,
    },
    telemetry::metrics::Metrics,
};
use serde_json::{Value, json};

use super::{Answer, Asked, IMAGE, Kubernetes, Setup, figures, ledger, patiently, status};
use crate::{
    access::NOW,
    databases::{Database, Kind},
    support::PATIENCE,
};

/// Jobs, their versions and what happened to them, as an API server keeps them.
#[derive(Default)]
struct Api {
    version: u64,
    jobs: Vec<Value>,
    events: Vec<(u64, Value)>,
    /// Versions up to this are forgotten.
    forgotten: u64,
    is_away: bool,
    /// Whether watches fail once they have begun.
    fails_to_watch: bool,
    /// What it answers instead of a list's second page.
    second_page: Option<(u16, &'static str)>,
}

impl Api {
    fn put(&mut self, uid: &str, status: Value) {
        self.version += 1;
        // u-1 at eight, each other one a minute after the one before.
        let minute: u32 = uid.trim_start_matches("u-").parse::<u32>().unwrap() - 1;
        let created = format!("2027-01-15T08:{minute:02}:00Z");
        let mut job = json!({
            "metadata": {"name": "a", "namespace": "jobs-a", "uid": uid, "creationTimestamp": created,
                "resourceVersion": self.version.to_string(), "labels": {"app.kubernetes.io/managed-by": "math-service"}},
        });
        job["status"] = status;
        let known = self.jobs.iter_mut().find(|job| job["metadata"]["uid"] == uid);
        let kind = if known.is_some() { "MODIFIED" } else { "ADDED" };
        match known {
            Some(known) => *known = job.clone(),
            None => self.jobs.push(job.clone()),
        }
        self.events.push((self.version, json!({"type": kind, "object": job})));
    }

    fn delete(&mut self, uid: &str) {
        let index = self.jobs.iter().position(|job| job["metadata"]["uid"] == uid).unwrap();
        let mut job = self.jobs.remove(index);
        self.version += 1;
        job["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.events.push((self.version, json!({"type": "DELETED", "object": job})));
    }

    fn answer(&self, asked: &Asked) -> Answer {
        if self.is_away {
            let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            return Answer::Fails(ClusterError::Unreachable(Arc::new(refused)));
        }
        let query: Vec<(String, String)> =
            form_urlencoded::parse(asked.path.split_once('?').map_or("", |(_, query)| query).as_bytes())
                .into_owned()
                .collect();
        let given =
            |name: &str| query.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        assert_eq!(given("labelSelector"), Some("app.kubernetes.io/managed-by=math-service"));
        if self.fails_to_watch && given("watch").is_some() {
            let error = json!({"type": "ERROR", "object": status(500, "InternalError", "no idea")});
            return Answer::Lines(vec![error.to_string()]);
        }
        if given("watch").is_none() {
            assert_eq!(given("resourceVersion").is_some(), given("resourceVersionMatch") == Some("Exact"));
            return self.list(given("continue"), given("resourceVersion"));
        }
        let from: u64 = given("resourceVersion").unwrap().parse().unwrap();
        if from < self.forgotten {
            return Answer::Json(410, status(410, "Expired", "too old resource version"));
        }
        let news =
            self.events.iter().filter(|(version, _)| *version > from).map(|(_, event)| event.to_string());
        let bookmark = json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": self.version.to_string()}}});
        Answer::Lines(news.chain([bookmark.to_string()]).collect())
    }

    /// Two on a page, all of the version that the first is of.
    fn list(&self, next: Option<&str>, exactly: Option<&str>) -> Answer {
        assert!(next.is_none() || exactly.is_none(), "Kubernetes takes one of them");
        let (version, from) = next.map_or((exactly, "0"), |next| {
            let (version, from) = next.split_once('/').unwrap();
            (Some(version), from)
        });
        let version = version.map_or(self.version, |version| version.parse().unwrap());
        if version < self.forgotten {
            return Answer::Json(410, status(410, "Expired", "The provided resource version is too old"));
        }
        if let (Some((code, reason)), true) = (self.second_page, next.is_some()) {
            return Answer::Json(code, status(code, reason, "gone away"));
        }
        let (jobs, from) = (self.jobs_at(version), from.parse::<usize>().unwrap());
        let to = (from + 2).min(jobs.len());
        let next = if to < jobs.len() { format!("{version}/{to}") } else { String::new() };
        let metadata = json!({"resourceVersion": version.to_string(), "continue": next});
        Answer::Json(200, json!({"metadata": metadata, "items": jobs[from..to]}))
    }

    fn jobs_at(&self, version: u64) -> Vec<Value> {
        let mut jobs = BTreeMap::new();
        for (_, event) in self.events.iter().filter(|(at, _)| *at <= version) {
            let uid = event["object"]["metadata"]["uid"].to_string();
            match event["type"] == "DELETED" {
                true => drop(jobs.remove(&uid)),
                false => drop(jobs.insert(uid, event["object"].clone())),
            }
        }
        jobs.into_values().collect()
    }
}

fn running() -> Value {
    json!({"active": 1, "ready": 1})
}

fn done() -> Value {
    json!({"succeeded": 1, "completionTime": "2027-01-15T08:00:09Z", "conditions": [{"type": "Complete", "status": "True"}]})
}

/// An API server, and a watch of its Jobs.
struct World {
    api: Arc<Mutex<Api>>,
    kubernetes: Kubernetes,
    watch: Watch,
    metrics: Metrics,
    seconds: Arc<AtomicU64>,
    /// Of the cluster.
    identity: Arc<Mutex<String>>,
    database: Database,
}

impl World {
    async fn new(kind: Kind) -> Option<Self> {
        let database = Database::new(kind).await?;
        let api = Arc::<Mutex<Api>>::default();
        let (kubernetes, cluster) = Self::kubernetes(&api);
        let (seconds, identity) = (Arc::new(AtomicU64::new(NOW)), Arc::<Mutex<String>>::default());
        let told = identity.clone();
        let cluster = cluster.identified(move || told.lock().unwrap().clone());
        let ledger = Self::ledger(&database, &seconds);
        let (metrics, figures) = figures(&cluster);
        let watch = Watch {
            cluster,
            ledger,
            lease_namespace: None,
            holder: "one".to_owned(),
            follow: None,
            outbox: None,
            figures,
        };
        Some(Self { api, kubernetes, watch, metrics, seconds, identity, database })
    }

    fn kubernetes(api: &Arc<Mutex<Api>>) -> (Kubernetes, Cluster) {
        let api = api.clone();
        Kubernetes::with(move |asked| match (asked.path.contains("/leases"), asked.method.as_str()) {
            (true, "GET") => Answer::Json(404, status(404, "NotFound", "nobody has it")),
            (true, _) => Answer::Json(201, asked.body.clone()),
            _ => api.lock().unwrap().answer(asked),
        })
    }

    fn ledger(database: &Database, seconds: &Arc<AtomicU64>) -> Ledger {
        Self::ledger_in(database.open(), seconds)
    }

    fn ledger_in(store: Arc<dyn store::Database>, seconds: &Arc<AtomicU64>) -> Ledger {
        let seconds = seconds.clone();
        let clock: Clock =
            Arc::new(move || UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::Relaxed)));
        let config = Config::from_env(|_| None).unwrap();
        Ledger::new(State::around(&config, store), Duration::from_secs(3600), clock)
    }

    fn api(&self) -> std::sync::MutexGuard<'_, Api> {
        self.api.lock().unwrap()
    }

    async fn catches_up(&self) {
        patiently(async || self.watch.catch_up().await).await;
    }

    /// Catches up as far as it can.
    async fn fails(&self, why: &str) {
        let fails = async || match self.watch.catch_up().await {
            Ok(()) => panic!("nothing failed"),
            Err(trouble) if trouble.to_string().contains(why) => Ok(()),
            Err(other) => Err(other),
        };
        patiently(fails).await;
    }

    /// Three Jobs, of which a list has got no further than the first page, for this reason.
    async fn lists_one_page(&self, code: u16, reason: &'static str, why: &str) {
        for uid in ["u-1", "u-2", "u-3"] {
            self.api().put(uid, json!({}));
        }
        self.api().second_page = Some((code, reason));
        self.fails(why).await;
        self.api().second_page = None;
    }

    /// What became of each Job.
    async fn has_told(&self, jobs: &[(&str, &[&str])]) {
        let history = self.history().await;
        for (uid, stages) in jobs {
            let told: Vec<_> = history.iter().filter(|(found, _)| found == uid).cloned().collect();
            assert_eq!(told, of(uid, stages));
        }
    }

    /// The cluster is deleted and made again under its name: its versions begin anew.
    fn is_made_again(&self) {
        *self.api() = Api::default();
        *self.identity.lock().unwrap() += "'";
    }

    /// UID, what it became, and why.
    async fn history(&self) -> Vec<(String, String)> {
        let service = Setup {
            cluster: Some(self.watch.cluster.clone()),
            ledger: Some(self.watch.ledger.clone()),
            ..Setup::default()
        };
        let service = service.start();
        let reply = patiently(async || {
            let reply = service.get("/api/v1/namespaces/jobs-a/jobs/a/history").await;
            if reply.status == 200 { Ok(reply) } else { Err(reply.text().to_owned()) }
        });
        let reply = reply.await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let answer = reply.json();
        assert!(answer.get("continue").is_none());
        answer["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| (text(&item["uid"]), text(&item["status"])))
            .collect()
    }
}

/// A store that refuses to write one record: the next of the kind that is named, if one is.
struct Refusing {
    store: Arc<dyn store::Database>,
    kind: Arc<Mutex<Option<&'static str>>>,
}

impl Refusing {
    fn refuses(&self, name: &Name) -> bool {
        let is_of = |kind: &mut &str| name.as_str().starts_with(&format!("{kind}/"));
        self.kind.lock().unwrap().take_if(is_of).is_some()
    }
}

fn refused<'a, T: Send + 'a>() -> store::Answer<'a, T> {
    Box::pin(async { Err(StoreError::new("it writes no such thing")) })
}

impl Records for Refusing {
    fn enter(&self, entry: Record, changes: Vec<Change>, now: Seconds) -> store::Answer<'_, bool> {
        let is_refused = self.refuses(&entry.name);
        if is_refused { refused() } else { self.store.enter(entry, changes, now) }
    }

    fn change(&self, changes: Vec<Change>) -> store::Answer<'_, ()> {
        let is_refused = changes.iter().any(|change| self.refuses(change.name()));
        if is_refused { refused() } else { self.store.change(changes) }
    }

    fn read(&self, query: Query) -> store::Answer<'_, Page> {
        self.store.read(query)
    }

    fn forget(&self, now: Seconds, at_most: u32) -> store::Answer<'_, u64> {
        self.store.forget(now, at_most)
    }
}

impl Store for Refusing {
    fn next(&self, step: Step) -> store::Answer<'_, Option<u64>> {
        self.store.next(step)
    }

    fn current(&self, sequence: SequenceId, now: Seconds) -> store::Answer<'_, Option<u64>> {
        self.store.current(sequence, now)
    }

    fn reset(&self, sequence: SequenceId) -> store::Answer<'_, ()> {
        self.store.reset(sequence)
    }

    fn remove_expired(&self, now: Seconds, at_most: u32) -> store::Answer<'_, u64> {
        self.store.remove_expired(now, at_most)
    }
}

fn of(uid: &str, stages: &[&str]) -> Vec<(String, String)> {
    stages.iter().map(|stage| (uid.to_owned(), (*stage).to_owned())).collect()
}

async fn in_every_store(test: impl AsyncFn(World)) {
    for kind in crate::databases::KINDS {
        if let Some(world) = World::new(kind).await {
            test(world).await;
        }
    }
}

#[tokio::test]
async fn each_transition_is_kept_when_the_cluster_has_forgotten_the_job() {
    in_every_store(async |world: World| {
        world.catches_up().await;
        assert_eq!(world.history().await, []);
        let lists = || world.kubernetes.calls().iter().filter(|call| !call.contains("watch")).count();
        let before = lists();
        world.api().put("u-1", json!({}));
        world.catches_up().await;
        world.api().put("u-1", running());
        world.api().put("u-1", running());
        world.api().put("u-1", done());
        world.api().delete("u-1");
        world.api().put("u-2", json!({}));
        world.catches_up().await;
        let first = of("u-1", &["pending", "running", "succeeded", "gone"]);
        assert_eq!(world.history().await, [first, of("u-2", &["pending"])].concat());
        assert!(before >= 1 && lists() == before, "each begins where the last one stopped");
    })
    .await;
}

#[tokio::test]
async fn after_410_jobs_are_listed_and_what_is_missing_is_gone() {
    in_every_store(async |world: World| {
        for uid in ["u-1", "u-2", "u-3"] {
            world.api().put(uid, json!({}));
        }
        world.catches_up().await;
        world.api().put("u-2", done());
        world.api().delete("u-1");
        world.api().put("u-4", running());
        let version = world.api().version;
        world.api().forgotten = version;
        world.catches_up().await;
        let history = world.history().await;
        for (uid, stages) in [
            ("u-1", &["pending", "gone"][..]),
            ("u-2", &["pending", "succeeded"]),
            ("u-3", &["pending"]),
            ("u-4", &["pending", "running"]),
        ] {
            let found: Vec<_> = history.iter().filter(|(found, _)| found == uid).cloned().collect();
            assert_eq!(found, of(uid, stages));
        }
        world.api().delete("u-3");
        world.catches_up().await;
        assert!(world.history().await.contains(&("u-3".to_owned(), "gone".to_owned())), "it watches again");
    })
    .await;
}

#[tokio::test]
async fn what_is_told_twice_is_written_once_with_what_follows_it() {
    in_every_store(async |mut world: World| {
        let outbox = Log::the("outbox");
        let into = outbox.clone();
        world.watch.follow = Some(Arc::new(move |event: &Event<'_>| {
            let record = |kind: u64| Record {
                // Another name each time: what stands beside an entry that was there must not be written.
                name: Name::of("message", &[&fastrand::u128(..).to_string()]),
                log: into.clone(),
                place: kind,
                namespace: None,
                caller: None,
                body: event.transition.uid.clone(),
                keep_until: None,
            };
            event.job.stage.is_end().then(|| Change::Put(record(event.now))).into_iter().collect()
        }));
        world.api().put("u-1", json!({}));
        world.api().put("u-1", running());
        world.api().put("u-1", done());
        // Two who begin at the same time, and one who begins again at the same place.
        let (_, cluster) = World::kubernetes(&world.api);
        let other = Watch { cluster, ..world.watch.clone() };
        tokio::join!(world.catches_up(), patiently(async || other.catch_up().await));
        let again = Change::Put(Record {
            name: Name::of("watch", &["math", ""]),
            log: Log::of("watch", &["math", ""]),
            place: 0,
            namespace: None,
            caller: None,
            body: r#"{"watched":"1"}"#.to_owned(),
            keep_until: None,
        });
        world.watch.ledger.change(vec![again]).await.unwrap();
        world.catches_up().await;
        assert_eq!(
            world.history().await,
            of("u-1", &["pending", "succeeded"]),
            "or running between them, when it was watched"
        );
        let page = world.watch.ledger.read(Query::all(outbox, 100, NOW)).await.unwrap();
        assert_eq!(page.records.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn history_is_forgotten_after_its_time() {
    in_every_store(async |world: World| {
        world.api().put("u-1", done());
        world.catches_up().await;
        world.seconds.fetch_add(3599, Ordering::Relaxed);
        assert_eq!(world.history().await.len(), 2);
        world.seconds.fetch_add(1, Ordering::Relaxed);
        assert_eq!(world.history().await, []);
        world.catches_up().await;
        assert_eq!(world.history().await, [], "a Job that is still there is no news");
    })
    .await;
}

#[tokio::test]
async fn a_watcher_goes_on_where_it_stopped_when_the_cluster_is_back() {
    in_every_store(async |world: World| {
        world.api().put("u-1", json!({}));
        world.catches_up().await;
        world.api().is_away = true;
        world.api().put("u-1", running());
        let trouble = world.watch.catch_up().await.unwrap_err().to_string();
        assert!(trouble.contains("connect") || trouble.contains("reach"), "{trouble}");
        world.api().is_away = false;
        world.api().put("u-1", done());
        world.catches_up().await;
        assert_eq!(world.history().await, of("u-1", &["pending", "running", "succeeded"]));
    })
    .await;
}

#[tokio::test]
async fn a_cluster_that_is_made_again_under_its_name_is_listed_anew() {
    in_every_store(async |world: World| {
        for uid in ["u-1", "u-2", "u-3"] {
            world.api().put(uid, running());
        }
        world.catches_up().await;
        world.is_made_again();
        world.api().put("u-4", json!({}));
        world.catches_up().await;
        world.api().put("u-4", done());
        world.catches_up().await;
        let history = world.history().await;
        for (uid, stages) in [
            ("u-1", &["pending", "running", "gone"][..]),
            ("u-2", &["pending", "running", "gone"]),
            ("u-3", &["pending", "running", "gone"]),
            ("u-4", &["pending", "succeeded"]),
        ] {
            let found: Vec<_> = history.iter().filter(|(found, _)| found == uid).cloned().collect();
            assert_eq!(found, of(uid, stages));
        }
    })
    .await;
}

#[tokio::test]
async fn whoever_watches_notices_that_the_cluster_was_made_again() {
    let Some(world) = World::new(Kind::Sqlite).await else { return };
    for uid in ["u-1", "u-2"] {
        world.api().put(uid, json!({}));
    }
    let watch = Watch { lease_namespace: Some("ours".to_owned()), ..world.watch.clone() };
    let watching = tokio::spawn(async move { watch.run(std::future::pending()).await });
    let told = async |uid: &str, stage: &str| {
        let told = async || {
            while !world.history().await.contains(&(uid.to_owned(), stage.to_owned())) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, told()).await.expect("it is told");
    };
    told("u-2", "pending").await;
    world.is_made_again();
    world.api().put("u-3", json!({}));
    told("u-3", "pending").await;
    told("u-1", "gone").await;
    world.api().put("u-3", done());
    told("u-3", "succeeded").await;
    watching.abort();
}

#[tokio::test]
async fn after_a_watch_that_failed_jobs_are_listed() {
    in_every_store(async |world: World| {
        world.api().put("u-1", json!({}));
        world.catches_up().await;
        world.api().put("u-1", running());
        world.api().fails_to_watch = true;
        world.fails("the watch failed").await;
        assert_eq!(world.history().await, of("u-1", &["pending", "running"]));
        world.api().fails_to_watch = false;
        world.api().put("u-1", done());
        world.catches_up().await;
        assert_eq!(world.history().await, of("u-1", &["pending", "running", "succeeded"]));
    })
    .await;
}

#[tokio::test]
async fn what_comes_and_goes_after_a_list_was_cut_short_is_told() {
    in_every_store(async |world: World| {
        world.lists_one_page(500, "InternalError", "gone away").await;
        world.api().delete("u-1");
        world.api().delete("u-3");
        world.api().put("u-4", running());
        world.api().put("u-4", done());
        world.api().delete("u-4");
        world.catches_up().await;
        world
            .has_told(&[
                ("u-1", &["pending", "gone"][..]),
                ("u-2", &["pending"]),
                ("u-3", &["pending", "gone"]),
                ("u-4", &["pending", "running", "succeeded", "gone"]),
            ])
            .await;
    })
    .await;
}

#[tokio::test]
async fn of_which_version_a_list_is_is_stored_before_anything_of_it() {
    in_every_store(async |mut world: World| {
        let (kind, store) = (Arc::<Mutex<_>>::default(), world.database.open());
        let store = Arc::new(Refusing { store, kind: Arc::clone(&kind) });
        world.watch.ledger = World::ledger_in(store, &world.seconds);
        let fails = async |written: &'static str| {
            *kind.lock().unwrap() = Some(written);
            // Again where a slow disk was the reason.
            while kind.lock().unwrap().is_some() {
                world.watch.catch_up().await.expect_err(written);
            }
        };
        world.api().put("u-1", json!({}));
        fails("watch").await;
        assert_eq!(world.history().await, [], "nobody would know which list this is of");
        world.api().put("u-2", json!({}));
        fails("transition").await;
        assert_eq!(world.history().await, []);
        // Only who knows of which version that list was learns of these.
        world.api().delete("u-2");
        world.api().put("u-3", running());
        world.api().delete("u-3");
        world.catches_up().await;
        world
            .has_told(&[
                ("u-1", &["pending"][..]),
                ("u-2", &["pending", "gone"]),
                ("u-3", &["pending", "running", "gone"]),
            ])
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_list_that_was_cut_short_too_long_ago_is_made_anew() {
    in_every_store(async |world: World| {
        world.lists_one_page(500, "InternalError", "gone away").await;
        world.api().put("u-3", done());
        world.api().delete("u-1");
        let version = world.api().version;
        world.api().forgotten = version;
        world.catches_up().await;
        world
            .has_told(&[
                ("u-1", &["pending", "gone"][..]),
                ("u-2", &["pending"]),
                ("u-3", &["pending", "succeeded"]),
            ])
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_list_that_expires_before_its_end_is_no_success_and_is_made_anew() {
    in_every_store(async |world: World| {
        world.lists_one_page(410, "Expired", "a list expired before its end").await;
        world.catches_up().await;
        world.has_told(&[("u-1", &["pending"]), ("u-2", &["pending"]), ("u-3", &["pending"])]).await;
    })
    .await;
}

#[tokio::test]
async fn metrics_count_what_was_written_once_and_say_when_all_was_last_well() {
    let Some(world) = World::new(Kind::Sqlite).await else { return };
    let shown = |name: &str| {
        let text = String::from_utf8(world.metrics.render().unwrap()).unwrap();
        let line = format!("{name}{{cluster=\"{}\"}} ", world.watch.cluster.name());
        text.lines().find_map(|l| l.strip_prefix(&line)).map(|value| value.parse::<u64>().unwrap())
    };
    let (entries, success) = ("jobs_history_entries_total", "jobs_watch_last_success_timestamp_seconds");
    assert_eq!((shown(entries), shown("jobs_watch_lease_held")), (Some(0), Some(0)));
    world.watch.run(std::future::ready(())).await;
    assert_eq!(shown(success), None, "nobody is to watch: no alarm may wait for it");
    let to_watch = Watch { lease_namespace: Some("ours".to_owned()), ..world.watch.clone() };
    to_watch.run(std::future::ready(())).await;
    assert_eq!(shown(success), Some(0));
    world.api().put("u-1", json!({}));
    world.catches_up().await;
    assert_eq!((shown(entries), shown(success)), (Some(1), Some(NOW)));
    world.seconds.fetch_add(60, Ordering::Relaxed);
    world.api().put("u-1", running());
    world.api().is_away = true;
    world.watch.catch_up().await.unwrap_err();
    assert_eq!((shown(entries), shown(success)), (Some(1), Some(NOW)), "that went wrong");
    world.api().is_away = false;
    // Another replica is first.
    let cluster = world.watch.cluster.clone();
    let other = Watch { figures: figures(&cluster).1, ..world.watch.clone() };
    patiently(async || other.catch_up().await).await;
    world.catches_up().await;
    assert_eq!((shown(entries), shown(success)), (Some(1), Some(NOW + 60)));
}

#[tokio::test]
async fn what_could_not_be_written_is_told_again_when_the_store_is_back() {
    let Some(mut world) = World::new(Kind::Sqlite).await else { return };
    world.api().put("u-1", json!({}));
    world.catches_up().await;
    world.api().put("u-1", running());
    world.api().put("u-1", done());
    let away = crate::databases::Folder::new();
    std::fs::write(away.0.join("state.db"), "no database").unwrap();
    let file = format!("sqlite://{}", away.0.join("state.db").display());
    let ledger =
        std::mem::replace(&mut world.watch.ledger, ledger(&file, Arc::new(std::time::SystemTime::now)));
    assert!(world.watch.catch_up().await.unwrap_err().to_string().contains("store"));
    world.watch.ledger = ledger;
    world.catches_up().await;
    assert_eq!(world.history().await, of("u-1", &["pending", "running", "succeeded"]));
}

#[tokio::test]
async fn history_is_read_page_by_page_and_a_foreign_cursor_is_refused() {
    let Some(world) = World::new(Kind::Sqlite).await else { return };
    world.api().put("u-1", running());
    world.catches_up().await;
    world.api().delete("u-1");
    world.catches_up().await;
    let (cluster, ledger) = (Some(world.watch.cluster.clone()), Some(world.watch.ledger.clone()));
    let service = Setup { cluster, ledger, ..Setup::default() }.start();
    let path = "/api/v1/namespaces/jobs-a/jobs/a/history?limit=1";
    let (mut found, mut next) = (Vec::new(), String::new());
    loop {
        let answer = service.get(&format!("{path}&continue={next}")).await.json();
        found.extend(answer["items"].as_array().unwrap().iter().map(|item| item["status"].clone()));
        match answer["continue"].as_str() {
            Some(text) => next = text.to_owned(),
            None => break,
        }
    }
    assert_eq!(found, ["pending", "running", "gone"]);
    for text in ["x", "%2e", "AAAA"] {
        let refused = service.get(&format!("{path}&continue={text}")).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["errors"][0]["pointer"]),
            (422, &json!("/continue"))
        );
    }
}

// ---------------------------------------------------------------- the audit

const JOBS: &str = "/api/v1/namespaces/jobs-a/jobs";

fn agreeable(asked: &Asked) -> Answer {
    match asked.method.as_str() {
        "POST" => Answer::Json(201, asked.body.clone()),
        _ => Answer::Json(
            200,
            json!({"metadata": {"name": "a", "uid": "u-1", "labels": {"app.kubernetes.io/managed-by": "math-service"}}}),
        ),
    }
}

#[tokio::test]
async fn the_audit_says_who_changed_what_and_how_it_ended() {
    let Some(database) = Database::new(Kind::Sqlite).await else { return };
    let seconds = Arc::new(AtomicU64::new(NOW));
    let ledger = World::ledger(&database, &seconds);
    let (_, cluster) = Kubernetes::with(agreeable);
    let trail = Some(Trail::new(ledger.clone()));
    let service = Setup { cluster: Some(cluster), ledger: Some(ledger), trail, ..Setup::default() }.start();
    let job = json!({"image": IMAGE, "name": "a"});
    service.send("POST", JOBS, &[("x-request-id", "first")], Some(&job)).await;
    seconds.fetch_add(60, Ordering::Relaxed);
    let reads = [("authorization", "Bearer reads")];
    assert_eq!(service.call("POST", JOBS, &reads, Some(&job)).await.status, 403);
    seconds.fetch_add(1, Ordering::Relaxed);
    service.send("POST", "/api/v1/namespaces/other/jobs", &[], Some(&json!({"image": "evil/image"}))).await;
    service.call("POST", JOBS, &[("authorization", "Bearer unknown")], Some(&job)).await;
    service.get(JOBS).await;
    let items = async |query: &str| {
        let reply = service.get(&format!("/api/v1/audit{query}")).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("cache-control")),
            (200, "no-store"),
            "{}",
            reply.text()
        );
        reply.json()["items"].as_array().unwrap().clone()
    };
    let all = items("").await;
    let what: Vec<_> = all.iter().map(|item| (&item["who"], &item["outcome"], &item["status"])).collect();
    let (admin, reader) = (json!("admin"), json!("reader"));
    let expected = [
        (&admin, &json!("refused"), &json!(422)),
        (&reader, &json!("refused"), &json!(403)),
        (&admin, &json!("done"), &json!(201)),
    ];
    assert_eq!(what, expected, "what was only read, and who is nobody, is not here");
    let first = &all[2];
    for (name, value) in [
        ("time", "2027-01-15T08:00:00Z"),
        ("issuer", "AUTH_TOKENS_FILE"),
        ("verb", "POST"),
        ("route", "/api/v1/namespaces/{namespace}/jobs"),
        ("path", JOBS),
        ("cluster", "math"),
        ("namespace", "jobs-a"),
        ("name", "a"),
        ("request_id", "first"),
    ] {
        assert_eq!(first[name], value, "{name}");
    }
    assert_eq!(items("?namespace=jobs-a").await, [all[2].clone()]);
    assert_eq!(items("?caller=reader").await, [all[1].clone()]);
    assert_eq!(items("?caller=nobody").await, Vec::<Value>::new());
    assert_eq!(items("?since=2027-01-15T08:01:00Z").await, all[..2]);
    let page = service.get("/api/v1/audit?limit=2").await.json();
    let next = page["continue"].as_str().unwrap();
    assert_eq!(items(&format!("?limit=2&continue={next}")).await, [all[2].clone()]);
    seconds.fetch_add(3539, Ordering::Relaxed);
    assert_eq!(items("").await.len(), 2, "the first has had its time");
    for (query, pointer) in [
        ("since=yesterday", "/since"),
        ("continue=x", "/continue"),
        ("limit=0", "/limit"),
        ("caller=a&caller=b", "/caller"),
    ] {
        let refused = service.get(&format!("/api/v1/audit?{query}")).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["errors"][0]["pointer"]),
            (422, &json!(pointer))
        );
    }
    for (token, expected) in
        [("all", 200), ("audits", 200), ("reads", 403), ("writes", 403), ("names", 403), ("unknown", 401)]
    {
        let authorization = format!("Bearer {token}");
        let reply = service.call("GET", "/api/v1/audit", &[("authorization", &authorization)], None).await;
        assert_eq!(reply.status, expected, "{token}");
    }
}

#[tokio::test]
async fn a_store_that_is_away_keeps_no_change_from_being_made() {
    let folder = crate::databases::Folder::new();
    std::fs::write(folder.0.join("state.db"), "no database").unwrap();
    let away = ledger(
        &format!("sqlite://{}", folder.0.join("state.db").display()),
        Arc::new(std::time::SystemTime::now),
    );
    let (kubernetes, cluster) = Kubernetes::with(agreeable);
    let trail = Some(Trail::new(away.clone()));
    let service = Setup { cluster: Some(cluster), ledger: Some(away), trail, ..Setup::default() }.start();
    let reply = service.post(JOBS, &json!({"image": IMAGE, "name": "a"})).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert_eq!(kubernetes.calls().len(), 1);
    for path in ["/api/v1/audit".to_owned(), format!("{JOBS}/a/history")] {
        let reply = service.get(&path).await;
        assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (503, "1"));
    }
}
