//! One replica at a time watches, by a Lease in a Kubernetes that takes updates of the version that it has, and no others.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use math_service::{
    jobs::{
        cluster::ClusterError,
        lease::{DEADLINE, LASTS, NAME, RETRY},
        watch::Watch,
    },
    telemetry::metrics::Metrics,
};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};

use super::{Answer, Asked, Kubernetes, figures, ledger, status};
use crate::databases::Folder;

#[derive(Default)]
struct Api {
    lease: Option<Value>,
    version: u64,
    /// Who has listed or watched Jobs, and when.
    looked: Vec<(&'static str, Instant)>,
    /// Who cannot reach it.
    cut_off: Vec<&'static str>,
    /// Whether it does what it is asked to and keeps it to itself.
    keeps_silent: bool,
}

impl Api {
    fn answer(&mut self, who: &'static str, asked: &Asked) -> Answer {
        if self.cut_off.contains(&who) {
            let gone = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            return Answer::Fails(ClusterError::Unreachable(Arc::new(gone)));
        }
        if !asked.path.contains("/leases") {
            self.looked.push((who, Instant::now()));
            let metadata = json!({"resourceVersion": "1"});
            return Answer::Json(200, json!({"metadata": metadata, "items": []}));
        }
        assert!(
            asked.path.starts_with("/apis/coordination.k8s.io/v1/namespaces/ours/leases"),
            "{}",
            asked.path
        );
        match asked.method.as_str() {
            "GET" => match &self.lease {
                Some(lease) => Answer::Json(200, lease.clone()),
                None => Answer::Json(404, status(404, "NotFound", "none")),
            },
            "POST" if self.lease.is_some() => Answer::Json(409, status(409, "AlreadyExists", "there is one")),
            "PUT"
                if self.lease.as_ref().is_none_or(|lease| {
                    lease["metadata"]["resourceVersion"] != asked.body["metadata"]["resourceVersion"]
                }) =>
            {
                Answer::Json(409, status(409, "Conflict", "it has changed"))
            }
            _ => {
                self.version += 1;
                let mut lease = asked.body.clone();
                assert_eq!(lease["metadata"]["name"], NAME);
                lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
                self.lease = Some(lease.clone());
                Answer::Json(200, lease)
            }
        }
    }

    fn holder(&self) -> String {
        self.lease.as_ref().map_or("", |lease| lease["spec"]["holderIdentity"].as_str().unwrap()).to_owned()
    }

    fn last_looked(&self, who: &str) -> Option<Instant> {
        self.looked.iter().rfind(|(found, _)| *found == who).map(|(_, at)| *at)
    }
}

struct World {
    api: Arc<Mutex<Api>>,
    folder: Folder,
    metrics: Mutex<Vec<Metrics>>,
}

/// A replica that runs, and what ends it.
struct Replica(JoinHandle<()>, oneshot::Sender<()>);

impl World {
    fn new() -> Self {
        Self { api: Arc::default(), folder: Folder::new(), metrics: Mutex::default() }
    }

    fn replica(&self, who: &'static str) -> Replica {
        let api = self.api.clone();
        let (_, cluster) = Kubernetes::with(move |asked| {
            let mut api = api.lock().unwrap();
            // A watch that Kubernetes ends at once would be begun again at once.
            if asked.path.contains("watch=true") {
                api.looked.push((who, Instant::now()));
                return Answer::Never;
            }
            let answer = api.answer(who, asked);
            if api.keeps_silent && asked.method != "GET" { Answer::Never } else { answer }
        });
        let url = format!("sqlite://{}", self.folder.0.join("state.db").display());
        let ledger = ledger(&url, Arc::new(std::time::SystemTime::now));
        let (metrics, figures) = figures(&cluster);
        let watch = Watch {
            cluster,
            ledger,
            lease_namespace: Some("ours".to_owned()),
            holder: who.to_owned(),
            follow: None,
            outbox: None,
            figures,
        };
        let (end, ended) = oneshot::channel::<()>();
        let run = tokio::spawn(async move { watch.run(async { drop(ended.await) }).await });
        self.metrics.lock().unwrap().push(metrics);
        Replica(run, end)
    }

    /// What the metrics of each replica say, in the order in which they began.
    fn say_to_hold(&self) -> Vec<bool> {
        let shown = |metrics: &Metrics| String::from_utf8(metrics.render().unwrap()).unwrap();
        let held =
            |text: String| text.lines().any(|l| l.starts_with("jobs_watch_lease_held{") && l.ends_with(" 1"));
        self.metrics.lock().unwrap().iter().map(|metrics| held(shown(metrics))).collect()
    }

    fn holder(&self) -> String {
        self.api.lock().unwrap().holder()
    }

    async fn until(&self, what: impl Fn(&Api) -> bool) {
        while !what(&self.api.lock().unwrap()) {
            // Not a sleep alone: the store works in a thread of its own, by the clock on the wall.
            tokio::time::sleep(Duration::from_millis(100)).await;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_replica_watches_and_lets_the_next_one_at_its_end() {
    let world = World::new();
    let Replica(one, end) = world.replica("one");
    world.until(|api| api.last_looked("one").is_some()).await;
    assert_eq!(world.holder(), "one");
    let spec = world.api.lock().unwrap().lease.clone().unwrap()["spec"].clone();
    assert_eq!((&spec["leaseDurationSeconds"], &spec["leaseTransitions"]), (&json!(15), &json!(0)));
    let Replica(two, end_two) = world.replica("two");
    tokio::time::sleep(3 * LASTS).await;
    assert_eq!(world.holder(), "one", "it was renewed");
    assert!(world.api.lock().unwrap().last_looked("two").is_none(), "the other one waits");
    assert_eq!(world.say_to_hold(), [true, false]);
    let began = Instant::now();
    drop(end);
    one.await.unwrap();
    assert_eq!((world.holder().as_str(), world.say_to_hold()), ("", vec![false, false]), "released");
    world.until(|api| api.holder() == "two").await;
    assert!(began.elapsed() < 2 * RETRY, "nobody waits for a Lease that was released");
    world.until(|api| api.last_looked("two").is_some()).await;
    drop(end_two);
    two.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_ends_while_it_takes_the_lease_lets_it_go() {
    let world = World::new();
    world.api.lock().unwrap().keeps_silent = true;
    let Replica(one, end) = world.replica("one");
    world.until(|api| api.holder() == "one").await;
    world.api.lock().unwrap().keeps_silent = false;
    drop(end);
    one.await.unwrap();
    assert_eq!(world.holder(), "", "and nobody waits for it to run out");
    assert!(world.api.lock().unwrap().last_looked("one").is_none(), "it did not know that it had it");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_killed_is_followed_by_another_when_its_lease_has_run_out() {
    let world = World::new();
    let Replica(one, _end) = world.replica("one");
    world.until(|api| api.last_looked("one").is_some()).await;
    let _two = world.replica("two");
    tokio::time::sleep(LASTS).await;
    one.abort();
    let killed = Instant::now();
    world.until(|api| api.holder() == "two").await;
    let waited = killed.elapsed();
    assert!(waited > LASTS - 2 * RETRY && waited < LASTS + 2 * RETRY, "{waited:?}");
    assert_eq!(world.api.lock().unwrap().lease.as_ref().unwrap()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_cannot_renew_its_lease_stops_before_another_begins() {
    let world = World::new();
    let _one = world.replica("one");
    world.until(|api| api.last_looked("one").is_some()).await;
    let _two = world.replica("two");
    tokio::time::sleep(LASTS).await;
    world.api.lock().unwrap().cut_off.push("one");
    world.until(|api| api.last_looked("two").is_some()).await;
    let api = world.api.lock().unwrap();
    let (one, two) = (api.last_looked("one").unwrap(), api.last_looked("two").unwrap());
    assert!(one + (LASTS - DEADLINE - RETRY) < two, "{:?}", two - one);
    assert_eq!(api.holder(), "two");
    assert_eq!(world.say_to_hold(), [false, true]);
}

#[tokio::test(start_paused = true)]
async fn of_many_that_begin_at_once_one_watches() {
    let world = World::new();
    let _replicas = ["a", "b", "c", "d", "e"].map(|who| world.replica(who));
    world.until(|api| !api.looked.is_empty()).await;
    tokio::time::sleep(2 * LASTS).await;
    let api = world.api.lock().unwrap();
    let holder = api.holder();
    assert!(api.looked.iter().all(|(who, _)| *who == holder), "{:?}", api.looked);
}
