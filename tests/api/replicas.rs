//! Several processes, both targets, one store; processes are killed all the while. No index may be
//! given twice, and none may be skipped but those whose answers were cut off.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    databases::{Database, Kind, unique},
    gateway::{Front, Gateway, Options},
    support::{PATIENCE, Server, lambda_binary},
};

const CLIENTS: usize = 8;

/// How long processes live between two kills.
const PAUSE: Duration = Duration::from_millis(250);

/// When a client gives up, long after the process that it asked has been killed. The kernel resets the connections of a process
/// that is killed, but says so once: a client who misses it (under load even the loopback device drops packets, as
/// /proc/net/softnet_stat counts) would wait for ever.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_that_are_killed_share_postgres() {
    run(Kind::Postgres, 4, 0, 20_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_that_are_killed_share_a_sqlite_file() {
    run(Kind::Sqlite, 4, 0, 20_000).await;
}

/// Fewer calls: its stand-in is one thread of Python.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_that_are_killed_share_dynamodb() {
    run(Kind::Dynamodb, 4, 0, 1_200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_and_functions_that_are_killed_share_postgres() {
    run(Kind::Postgres, 2, 2, 20_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_and_functions_that_are_killed_share_dynamodb() {
    run(Kind::Dynamodb, 2, 2, 1_200).await;
}

/// Half of the calls without an `Idempotency-Key`, never repeated; then half with one, repeated until
/// they are answered.
async fn run(kind: Kind, containers: usize, functions: usize, calls: u64) {
    let Some(database) = Database::new(kind).await else { return };
    let mut settings = database.settings();
    // Of all lines, the one that a server listens is enough.
    settings.push((
        "LOGLEVEL",
        "error,math_service=info,math_service::fibonacci=error,math_service::store=error",
    ));
    let fleet = Arc::new(Fleet::start(&settings, &database.url, containers, functions).await);
    let began = Instant::now();
    let plain = fleet.clone().calls(calls / 2, false).await;
    let repeated = fleet.clone().calls(calls / 2, true).await;
    let kills = fleet.stop().await;

    let skipped = plain.skipped();
    println!(
        "{kind:?}, {containers} containers and {functions} functions: {} answers in {:.1} s, {kills} kills, \
         {} calls without an answer, {skipped} indices skipped; with retries {} answers, {} tries more, none skipped",
        plain.answers() + repeated.answers(),
        began.elapsed().as_secs_f64(),
        plain.unanswered,
        repeated.answers(),
        repeated.unanswered,
    );
    assert!(kills > 0, "nothing was killed");
    assert!(skipped <= plain.unanswered, "{skipped} indices skipped, {} answers cut off", plain.unanswered);
    assert_eq!(repeated.skipped(), 0, "with retries nothing is skipped");
    assert_eq!(repeated.answers(), calls / 2);
}

/// What clients were given, by sequence.
#[derive(Default)]
struct Outcome {
    given: HashMap<String, BTreeSet<u64>>,
    unanswered: u64,
}

impl Outcome {
    fn answers(&self) -> u64 {
        self.given.values().map(|given| given.len() as u64).sum()
    }

    fn skipped(&self) -> u64 {
        self.given.values().map(|given| given.last().map_or(0, |last| last + 1) - given.len() as u64).sum()
    }
}

/// Where the processes listen now. Each starts on a port of its own: while one is down, nothing keeps its port from
/// another test's listener, which need not answer.
type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

/// Processes, and those who kill and restart them.
struct Fleet {
    addresses: Addresses,
    killers: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    kills: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    gateway: Option<Gateway>,
}

impl Fleet {
    async fn start(settings: &[(&str, &str)], mark: &str, containers: usize, functions: usize) -> Self {
        let owned: Vec<(String, String)> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (kills, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (addresses, mut killers) = (Addresses::default(), Vec::new());
        for index in 0..containers {
            let server = Server::start(settings).await;
            addresses.lock().unwrap().push(server.address);
            let publish = {
                let addresses = addresses.clone();
                move |address| addresses.lock().unwrap()[index] = address
            };
            let (kills, is_over) = (kills.clone(), is_over.clone());
            killers.push(tokio::spawn(kill_container(server, owned.clone(), publish, kills, is_over)));
        }
        let mut gateway = None;
        if functions > 0 {
            let mut options = Options::new(Front::HttpV2 { stage: None }, lambda_binary());
            options.processes = functions;
            options.env = owned;
            let started = Gateway::start(options).await.expect("the gateway starts");
            // As many callers per process as the containers have.
            addresses.lock().unwrap().extend(std::iter::repeat_n(started.addr(), functions));
            gateway = Some(started);
            killers.push(tokio::spawn(kill_functions(mark.to_owned(), kills.clone(), is_over.clone())));
        }
        Self { addresses, killers: Mutex::new(killers), kills, is_over, gateway }
    }

    async fn stop(&self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        let killers = std::mem::take(&mut *self.killers.lock().unwrap());
        for killer in killers {
            killer.await.unwrap();
        }
        if let Some(gateway) = &self.gateway {
            gateway.terminate().await;
        }
        self.kills.load(Ordering::Relaxed)
    }

    /// `total` calls of all clients, in two sequences.
    async fn calls(self: Arc<Self>, total: u64, with_retries: bool) -> Outcome {
        let sequences: Arc<[String; 2]> =
            Arc::new([(); 2].map(|()| format!("{:0>40}", unique().replace('_', "-"))));
        let left = Arc::new(AtomicU64::new(total));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let client = Client { fleet: self.clone(), connections: HashMap::new(), number };
                tokio::spawn(client.work(sequences.clone(), left.clone(), with_retries))
            })
            .collect();
        let mut outcome = Outcome::default();
        for client in clients {
            let (given, unanswered) = client.await.unwrap();
            outcome.unanswered += unanswered;
            for (sequence, index) in given {
                let is_new = outcome.given.entry(sequence.clone()).or_default().insert(index);
                assert!(is_new, "index {index} was given twice");
            }
        }
        outcome
    }
}

/// Kills a server with SIGKILL and starts another, again and again.
async fn kill_container(
    mut server: Server,
    settings: Vec<(String, String)>,
    publish: impl Fn(SocketAddr),
    kills: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
) {
    let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    while !is_over.load(Ordering::Relaxed) {
        sleep(PAUSE.mul_f64(1.0 + 3.0 * fastrand::f64())).await;
        server.signal(Signal::KILL);
        server.exit().await;
        kills.fetch_add(1, Ordering::Relaxed);
        server = Server::start(&settings).await;
        publish(server.address);
    }
}

/// Kills one of the functions that carry `mark` in their environment; the gateway starts another.
async fn kill_functions(mark: String, kills: Arc<AtomicU64>, is_over: Arc<AtomicBool>) {
    while !is_over.load(Ordering::Relaxed) {
        sleep(PAUSE.mul_f64(1.0 + 3.0 * fastrand::f64())).await;
        if let Some(pid) = function_with(&mark)
            && kill_process(pid, Signal::KILL).is_ok()
        {
            kills.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn function_with(mark: &str) -> Option<Pid> {
    let mark = mark.as_bytes();
    let mut found: Vec<i32> = std::fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let is_function = std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|comm| comm.trim() == "lambda");
            is_function
                && std::fs::read(format!("/proc/{pid}/environ"))
                    .is_ok_and(|env| env.windows(mark.len()).any(|part| part == mark))
        })
        .collect();
    fastrand::shuffle(&mut found);
    Pid::from_raw(*found.first()?)
}

struct Client {
    fleet: Arc<Fleet>,
    connections: HashMap<SocketAddr, SendRequest<Full<Bytes>>>,
    number: usize,
}

impl Client {
    async fn work(
        mut self,
        sequences: Arc<[String; 2]>,
        left: Arc<AtomicU64>,
        with_retries: bool,
    ) -> (Vec<(String, u64)>, u64) {
        let (mut given, mut unanswered, mut call) = (Vec::new(), 0, 0);
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            let sequence = &sequences[call % 2];
            let key = with_retries.then(|| format!("{}-{call}", self.number));
            call += 1;
            let deadline = Instant::now() + PATIENCE;
            loop {
                match self.next(sequence, key.as_deref()).await {
                    Some(index) => {
                        given.push((sequence.clone(), index));
                        break;
                    }
                    None => unanswered += 1,
                }
                assert!(Instant::now() < deadline, "no answer for a minute");
                if !with_retries {
                    break;
                }
            }
        }
        (given, unanswered)
    }

    /// One call to any of the processes; `None` when it was not answered with an index.
    async fn next(&mut self, sequence: &str, idempotency_key: Option<&str>) -> Option<u64> {
        let address = fastrand::choice(self.fleet.addresses.lock().unwrap().iter().copied()).unwrap();
        let answer =
            timeout(GIVEN_UP_AFTER, self.send(address, sequence, idempotency_key)).await.ok().flatten();
        if answer.is_none() {
            self.connections.remove(&address);
            // Whoever was killed takes a moment to come back.
            sleep(Duration::from_millis(5)).await;
        }
        let answer: Value = serde_json::from_slice(&answer?).expect("JSON");
        Some(answer["index"].as_u64().expect("an index"))
    }

    async fn send(&mut self, to: SocketAddr, sequence: &str, idempotency_key: Option<&str>) -> Option<Bytes> {
        let sender = match self.connections.entry(to) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(connect(to).await?),
        };
        sender.ready().await.ok()?;
        let mut request =
            Request::post("/fibonacci/next").header("host", "localhost").header("x-session-key", sequence);
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let answer = sender.send_request(request.body(Full::default()).unwrap()).await.ok()?;
        let status = answer.status();
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        // 503 from a store under pressure; 500 from the gateway, for a function that was killed.
        let is_of_gateway = body == r#"{"message":"Internal Server Error"}"#;
        assert!(matches!(status.as_u16(), 200 | 503) || is_of_gateway, "{status}: {body:?}");
        (status == 200).then_some(body)
    }
}

async fn connect(to: SocketAddr) -> Option<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(to).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}
