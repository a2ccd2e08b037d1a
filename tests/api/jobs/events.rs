//! How a Job changes, told by a scripted Kubernetes; the real one's part is in tests/kube.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream},
    extract::Request,
};
use futures_util::StreamExt;
use math_service::{config::Config, jobs::events::Delivery, lifecycle::Phase, targets::container};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{
        mpsc::{UnboundedSender, unbounded_channel},
        oneshot,
    },
    task::JoinHandle,
};

use super::{Answer, Asked, Kubernetes, Service, Setup, status};
use crate::support::PATIENCE;

const EVENTS: &str = "/api/v1/namespaces/jobs-a/jobs/a/events";

/// A Job and its watches, as the cluster has them.
#[derive(Clone, Default)]
struct World(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    revision: u64,
    step: u64,
    conditions: Value,
    is_gone: bool,
    /// What makes its document as long as a test needs it.
    ballast: String,
    /// Every list and watch that was asked for.
    asked: Vec<String>,
    /// The other ends of the watches on the Job, and of those on its pods.
    watches: [Vec<UnboundedSender<String>>; 2],
    /// Revisions up to this are forgotten.
    forgotten: u64,
}

impl State {
    fn job(&self) -> Value {
        json!({
            "kind": "Job",
            "metadata": {"name": "a", "namespace": "jobs-a", "uid": "u-1", "resourceVersion": self.revision.to_string(), "labels": {"step": self.step.to_string(), "ballast": self.ballast}},
            "spec": {"selector": {"matchLabels": {"c": "u-1"}}, "template": {"spec": "large"}},
            "status": {"conditions": self.conditions},
        })
    }

    fn answer(&mut self, asked: &Asked) -> Answer {
        self.asked.push(asked.path.clone());
        let of_pods = usize::from(asked.path.contains("/pods?"));
        let since =
            asked.path.split("resourceVersion=").nth(1).and_then(|rest| rest.split('&').next()?.parse().ok());
        if since.is_some_and(|since: u64| since < self.forgotten) {
            return Answer::Json(410, status(410, "Expired", "too old resource version"));
        }
        if asked.path.contains("watch=true") {
            assert!(asked.path.contains("allowWatchBookmarks=true&timeoutSeconds=30"), "{}", asked.path);
            let (send, receive) = unbounded_channel();
            self.watches[of_pods].push(send);
            return Answer::Stream(receive);
        }
        let items = if of_pods == 1 || self.is_gone { vec![] } else { vec![self.job()] };
        // As Kubernetes 1.20 does: of one object, even an exact list says that it is of now.
        let revision = self.revision.to_string();
        Answer::Json(200, json!({"metadata": {"resourceVersion": revision}, "items": items}))
    }
}

impl World {
    fn start(delivery: Delivery) -> (Self, Service) {
        let world = Self::default();
        world.0.lock().unwrap().revision = 100;
        let answering = world.clone();
        let (_, cluster) = Kubernetes::with(move |asked| answering.0.lock().unwrap().answer(asked));
        (world, Setup { cluster: Some(cluster), delivery: Some(delivery), ..Setup::default() }.start())
    }

    /// Changes the Job, and tells whoever watches.
    fn step(&self) {
        let mut state = self.0.lock().unwrap();
        (state.revision, state.step) = (state.revision + 1, state.step + 1);
        let line = json!({"type": "MODIFIED", "object": state.job()});
        state.watches[0].retain(|watch| watch.send(format!("{line}\n")).is_ok());
    }

    fn finish(&self) {
        self.0.lock().unwrap().conditions = json!([{"type": "Complete", "status": "True"}]);
        self.step();
    }

    /// Says something to those who watch the Job, or its pods.
    fn say(&self, of_pods: usize, line: &str) {
        self.0.lock().unwrap().watches[of_pods].retain(|watch| watch.send(line.to_owned()).is_ok());
    }

    fn asked(&self, what: &str) -> usize {
        self.0.lock().unwrap().asked.iter().filter(|path| path.contains(what)).count()
    }

    async fn is_watched(&self, times: usize) {
        wait(|| self.asked("/jobs?") >= 1 && self.asked("watch=true") >= 2 * times).await;
    }
}

async fn wait(mut condition: impl FnMut() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, met).await.expect("it happens");
}

/// An `EventSource`.
struct Client {
    body: BodyDataStream,
    text: String,
}

#[derive(Debug, PartialEq)]
struct Event {
    kind: String,
    id: String,
    data: Value,
}

impl Client {
    async fn open(service: &Service, last: Option<&str>) -> Self {
        let response = respond(service, last).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-cache, no-transform");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next event, or `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.clone().split_once("\n\n") {
                rest.clone_into(&mut self.text);
                let field =
                    |name: &str| block.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
                if let Some(kind) = field("event") {
                    let data = serde_json::from_str(field("data").unwrap()).unwrap();
                    return Some(Event {
                        kind: kind.into(),
                        id: field("id").unwrap_or_default().into(),
                        data,
                    });
                }
                continue;
            }
            let part = tokio::time::timeout(PATIENCE, self.body.next()).await.expect("something comes");
            self.text.push_str(std::str::from_utf8(&part?.unwrap()).unwrap());
        }
    }

    /// The step that the next event tells of.
    async fn step(&mut self) -> u64 {
        step(&self.next().await.expect("an event"))
    }

    async fn all(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

fn step(event: &Event) -> u64 {
    assert_eq!(event.kind, "status");
    event.data["labels"]["step"].as_str().unwrap().parse().unwrap()
}

async fn respond(service: &Service, last: Option<&str>) -> axum::response::Response {
    let mut request = Request::get(EVENTS).header("host", "localhost").header("authorization", "Bearer all");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    service.app.serve(request.body(Body::empty()).unwrap(), None).await
}

#[tokio::test]
async fn a_follower_sees_how_the_job_is_then_each_change_then_the_end() {
    let (world, service) = World::start(Delivery::live());
    let mut client = Client::open(&service, None).await;
    let first = client.next().await.unwrap();
    let shown = service.get("/api/v1/namespaces/jobs-a/jobs/a").await;
    assert_eq!(shown.status, 200);
    assert_eq!(first.data["uid"], "u-1");
    assert_eq!(first.id.split_once('-').unwrap().0, "100");
    world.is_watched(1).await;
    for expected in 1..=5 {
        world.step();
        assert_eq!(client.step().await, expected);
    }
    world.finish();
    let rest = client.all().await;
    assert_eq!((rest.len(), &rest[0].data["status"]), (2, &json!("succeeded")));
    assert_eq!((rest[1].kind.as_str(), &rest[1].data), ("end", &json!({"reason": "finished"})));
}

#[tokio::test]
async fn fifty_followers_share_one_watch_and_the_last_to_leave_ends_it() {
    let (world, service) = World::start(Delivery::live());
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(Client::open(&service, None).await);
    }
    world.is_watched(1).await;
    for _ in 1..=10 {
        world.step();
    }
    for client in &mut clients {
        for expected in 0..=10 {
            assert_eq!(client.step().await, expected);
        }
    }
    assert_eq!((world.asked("/jobs?"), world.asked("/pods?")), (2, 2), "a list and a watch of each");
    drop(clients);
    wait(|| world.0.lock().unwrap().watches.iter().flatten().all(UnboundedSender::is_closed)).await;
}

#[tokio::test]
async fn a_watch_that_breaks_goes_on_after_what_it_told_last() {
    let (world, service) = World::start(Delivery::live());
    let mut client = Client::open(&service, None).await;
    assert_eq!(client.step().await, 0);
    world.is_watched(1).await;
    world.step();
    assert_eq!(client.step().await, 1);
    // In the middle of a line.
    world.say(0, "{\"type\":\"MODI");
    world.0.lock().unwrap().watches = Default::default();
    wait(|| world.asked("resourceVersion=101&") == 1).await;
    wait(|| world.0.lock().unwrap().watches[0].len() == 1).await;
    world.say(
        0,
        &json!({"type": "BOOKMARK", "object": {"kind": "Job", "metadata": {"resourceVersion": "150"}}})
            .to_string(),
    );
    world.say(0, "\n");
    world.step();
    assert_eq!(client.step().await, 2);
}

#[tokio::test]
async fn when_the_cluster_has_forgotten_what_happened_the_present_is_told() {
    for (by_event, steps) in [(true, 3), (false, 7)] {
        let (world, service) = World::start(Delivery::live());
        let mut client = Client::open(&service, None).await;
        let first = client.next().await.unwrap();
        world.is_watched(1).await;
        let before = std::mem::take(&mut world.0.lock().unwrap().watches);
        for _ in 0..steps {
            world.step();
        }
        world.0.lock().unwrap().forgotten = 100 + steps;
        if by_event {
            let gone = json!({"type": "ERROR", "object": status(410, "Expired", "too old")});
            before[0][0].send(format!("{gone}\n")).unwrap();
        }
        drop(before);
        let event = client.next().await.unwrap();
        assert_eq!(step(&event), steps, "what lay between cannot be told");
        assert!(revision(&event.id) > revision(&first.id));
        wait(|| world.0.lock().unwrap().watches[0].len() == 1).await;
        world.step();
        assert_eq!(client.step().await, steps + 1);
    }
}

fn revision(id: &str) -> u64 {
    id.split_once('-').unwrap().0.parse().unwrap()
}

#[tokio::test]
async fn a_client_that_comes_back_sees_what_it_missed_and_nothing_twice() {
    let (world, service) = World::start(Delivery::live());
    let mut stays = Client::open(&service, None).await;
    let mut leaves = Client::open(&service, None).await;
    let seen = leaves.next().await.unwrap();
    drop(leaves);
    world.is_watched(1).await;
    for _ in 1..=3 {
        world.step();
    }
    for expected in 0..=3 {
        assert_eq!(stays.step().await, expected);
    }
    let mut back = Client::open(&service, Some(&seen.id)).await;
    for expected in 1..=3 {
        assert_eq!(back.step().await, expected);
    }
    world.step();
    assert_eq!(back.step().await, 4);
}

#[tokio::test]
async fn a_replica_that_knows_nothing_begins_where_the_client_left_off() {
    let (world, service) = World::start(Delivery::live());
    let id = Client::open(&service, None).await.next().await.unwrap().id;
    let (elsewhere, other) = World::start(Delivery::live());
    let mut client = Client::open(&other, Some(&id)).await;
    elsewhere.is_watched(1).await;
    assert_eq!(elsewhere.asked("resourceVersion=100&resourceVersionMatch=Exact"), 2, "the Job, and its pods");
    elsewhere.step();
    assert_eq!(client.step().await, 1, "how it is was known");
    drop(world);
}

#[tokio::test]
async fn an_id_that_says_nothing_here_gets_the_present() {
    let (world, service) = World::start(Delivery::live());
    world.0.lock().unwrap().forgotten = 50;
    for id in ["7-0123456789abcdef", "x", "", "100-zz", "-1", "99999999999999999999999-0123456789abcdef"] {
        let mut client = Client::open(&service, Some(id)).await;
        assert_eq!(client.step().await, 0, "{id:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_answers_are_whole_one_ends_with_the_first_change_or_after_a_while() {
    let (world, service) = World::start(Delivery::Whole { wait: Duration::from_millis(400) });
    let events = Client::open(&service, None).await.all().await;
    assert_eq!((events.len(), step(&events[0])), (1, 0), "how it is now is news to whoever has seen nothing");
    let id = &events[0].id;
    let reply = respond(&service, Some(id)).await;
    let text = axum::body::to_bytes(reply.into_body(), 1000).await.unwrap();
    assert_eq!(text, "retry: 1000\n\n", "nothing happened");
    let waiting = Client::open(&service, Some(id));
    let changing = async {
        // Two answers before it, and now the third.
        wait(|| {
            world.asked("watch=true") >= 6
                || world.0.lock().unwrap().watches[0].iter().any(|w| !w.is_closed())
        })
        .await;
        world.step();
    };
    let (client, ()) = tokio::join!(waiting, changing);
    let events = client.all().await;
    assert_eq!((events.len(), step(&events[0])), (1, 1));
}

#[tokio::test]
async fn whoever_has_seen_the_end_is_told_not_to_come_back() {
    for delivery in [Delivery::live(), Delivery::Whole { wait: PATIENCE }] {
        let (world, service) = World::start(delivery);
        world.finish();
        let events = Client::open(&service, None).await.all().await;
        assert_eq!(events[0].data["status"], "succeeded");
        assert!(events.len() == 2 || delivery_is_whole(delivery), "{events:?}");
        assert_eq!(respond(&service, Some(&events[0].id)).await.status(), 204);
    }
}

fn delivery_is_whole(delivery: Delivery) -> bool {
    matches!(delivery, Delivery::Whole { .. })
}

#[tokio::test]
async fn a_job_that_goes_away_ends_the_stream_and_is_not_found_afterwards() {
    let (world, service) = World::start(Delivery::live());
    let mut client = Client::open(&service, None).await;
    let id = client.next().await.unwrap().id;
    world.is_watched(1).await;
    let deleted = {
        let mut state = world.0.lock().unwrap();
        state.is_gone = true;
        json!({"type": "DELETED", "object": state.job()})
    };
    world.say(0, &format!("{deleted}\n"));
    assert_eq!(client.next().await.unwrap().data, json!({"reason": "gone"}));
    assert_eq!(client.next().await, None);
    assert_eq!(respond(&service, None).await.status(), 404);
    assert_eq!(respond(&service, Some("7-0123456789abcdef")).await.status(), 404);
    drop(id);
}

#[tokio::test]
async fn a_drain_ends_every_stream() {
    let (world, service) = World::start(Delivery::live());
    let mut client = Client::open(&service, None).await;
    assert_eq!(client.step().await, 0);
    world.is_watched(1).await;
    service.app.lifecycle().advance(Phase::Draining);
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn while_nothing_happens_a_comment_comes_now_and_then() {
    let delivery = Delivery::Live { heartbeat: Duration::from_millis(20), longest: PATIENCE };
    let (world, service) = World::start(delivery);
    let mut client = Client::open(&service, None).await;
    assert_eq!(client.step().await, 0);
    for _ in 0..3 {
        let part = tokio::time::timeout(PATIENCE, client.body.next()).await.expect("a comment").unwrap();
        assert_eq!(part.unwrap(), ":\n\n", "which says nothing to an EventSource");
    }
    world.is_watched(1).await;
    world.step();
    assert_eq!(client.step().await, 1);
}

#[tokio::test]
async fn an_answer_ends_after_its_time_and_the_next_goes_on() {
    let delivery = Delivery::Live { heartbeat: PATIENCE, longest: Duration::from_millis(300) };
    let (world, service) = World::start(delivery);
    let stays = Client::open(&service, None).await;
    let events = Client::open(&service, None).await.all().await;
    assert_eq!(events.iter().map(step).collect::<Vec<_>>(), [0], "no end: the Job goes on");
    drop(stays);
    world.step();
    let mut client = Client::open(&service, Some(&events[0].id)).await;
    assert_eq!(client.step().await, 1);
}

/// The service behind a socket, for clients that misbehave.
struct Listening {
    address: SocketAddr,
    terminate: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Listening {
    async fn new(service: &Service, settings: &'static [(&'static str, &'static str)]) -> Self {
        let config = Config::from_env(|name| {
            settings.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
        .unwrap();
        let listener = container::listen("127.0.0.1", 0).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (terminate, told) = oneshot::channel::<()>();
        let app = service.app.clone();
        let ended = tokio::spawn(async move {
            container::serve(listener, app, &config, async move { drop(told.await) }).await;
        });
        Self { address, terminate, ended }
    }

    /// A client that has seen how the Job is.
    async fn client(&self) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        let request =
            format!("GET {EVENTS} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer all\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains("event: status") {
            let read = tokio::time::timeout(PATIENCE, client.read_buf(&mut said)).await.expect("an event");
            assert!(read.unwrap() > 0, "{}", String::from_utf8_lossy(&said));
        }
        client
    }
}

#[tokio::test]
async fn a_drain_ends_streams_whole_and_the_process_well_before_its_limit() {
    let (world, service) = World::start(Delivery::live());
    let listening = Listening::new(&service, &[("DRAIN_TIMEOUT", "10m")]).await;
    let mut client = listening.client().await;
    world.is_watched(1).await;
    listening.terminate.send(()).unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, client.read_to_end(&mut rest)).await.expect("the end").unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the last chunk: {}", String::from_utf8_lossy(&rest));
    tokio::time::timeout(PATIENCE, listening.ended).await.expect("the end of the process").unwrap();
    assert!(!service.app.lifecycle().has_reached(Phase::Cut), "nothing had to be cut");
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut_and_holds_up_nobody() {
    let (world, service) = World::start(Delivery::live());
    let listening = Listening::new(&service, &[("REQUEST_TIMEOUT", "500ms")]).await;
    // Kept, and never read again.
    let stuck = listening.client().await;
    world.is_watched(1).await;
    let mut reads = Client::open(&service, None).await;
    assert_eq!(reads.step().await, 0);
    world.0.lock().unwrap().ballast = "x".repeat(1 << 18);
    // More than the system's buffers hold, and than is kept for those who are slow.
    for expected in 1..=100 {
        world.step();
        assert_eq!(reads.step().await, expected);
    }
    drop(reads);
    wait(|| world.0.lock().unwrap().watches.iter().flatten().all(UnboundedSender::is_closed)).await;
    drop(stuck);
}

#[tokio::test]
async fn pods_change_it_too() {
    let (world, service) = World::start(Delivery::live());
    let mut client = Client::open(&service, None).await;
    assert_eq!(client.next().await.unwrap().data["pods"], json!([]));
    world.is_watched(1).await;
    let pod = |kind: &str, revision: u64, phase: &str| {
        let pod = json!({"kind": "Pod", "metadata": {"name": "a-1", "resourceVersion": revision.to_string()}, "status": {"phase": phase}});
        format!("{}\n", json!({"type": kind, "object": pod}))
    };
    world.say(1, &pod("ADDED", 101, "Pending"));
    assert_eq!(client.next().await.unwrap().data["pods"][0]["phase"], "Pending");
    // What changes nothing that is told is no event.
    world.say(1, &pod("MODIFIED", 102, "Pending"));
    world.say(1, &pod("MODIFIED", 103, "Running"));
    let running = client.next().await.unwrap();
    assert_eq!((&running.data["status"], revision(&running.id)), (&json!("running"), 103));
    world.say(1, &pod("DELETED", 104, "Running"));
    assert_eq!(client.next().await.unwrap().data["pods"], json!([]));
}

#[tokio::test]
async fn a_stream_counts_as_a_request_for_as_long_as_it_goes_on() {
    let world = World::default();
    let answering = world.clone();
    let (_, cluster) = Kubernetes::with(move |asked| answering.0.lock().unwrap().answer(asked));
    let service = Setup { cluster: Some(cluster), max_in_flight: Some("2"), ..Setup::default() }.start();
    let first = Client::open(&service, None).await;
    let second = Client::open(&service, None).await;
    assert_eq!(respond(&service, None).await.status(), 503);
    drop(first);
    Client::open(&service, None).await;
    drop(second);
}

#[tokio::test]
async fn whoever_may_not_watch_is_told_so_before_anything_else() {
    let (_, cluster) = Kubernetes::with(|asked| match asked.path.contains("watch=true") {
        true => {
            let message = "pods is forbidden: User \"x\" cannot watch resource \"pods\" in API group \"\"";
            match asked.path.contains("/pods?") {
                true => Answer::Json(403, status(403, "Forbidden", message)),
                false => Answer::Json(200, json!({})),
            }
        }
        false => Answer::Json(
            200,
            json!({"metadata": {"resourceVersion": "1"}, "items": [
            {"metadata": {"name": "a", "uid": "u"}, "spec": {"selector": {"matchLabels": {"c": "u"}}}}]}),
        ),
    });
    let service = Setup { cluster: Some(cluster), ..Setup::default() }.start();
    let reply = service.get(EVENTS).await;
    assert_eq!(reply.status, 403);
    assert!(reply.text().contains("may not watch pods in the namespace jobs-a"), "{}", reply.text());
}
