//! When the store fails: what needs it answers 503 in time, what does not need it never notices, and
//! it works again as soon as the store does, without a restart.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

use crate::{
    databases::{Database, Folder, Kind, postgres, postgres_authority, postgres_url},
    support::{PATIENCE, Reply, Server, addition, hold, listen, request, server_command, silent_port},
};

const KEY: &str = "0123456789-0123456789-0123456789";

async fn next(server: SocketAddr) -> Reply {
    request("POST", "/fibonacci/next").header("x-session-key", KEY).send(server).await
}

/// What the service promises while its store is away. Without a deadline of the store's own, what stalls would end in a
/// 504; how long that deadline is, `store::state` tests by a clock that does not depend on this machine's.
async fn it_fails_well(server: SocketAddr, how: &str) {
    let mut longest = Duration::ZERO;
    for call in 0..3 {
        let began = Instant::now();
        let reply = timeout(PATIENCE, next(server)).await.expect("it answers");
        longest = longest.max(began.elapsed());
        assert_eq!(reply.status, 503, "{how}, call {call}: {}", reply.text());
        assert!(
            reply.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0),
            "{how}: {reply:?}"
        );
        assert_eq!(reply.header("x-session-key"), KEY, "every answer names the key");
    }
    println!("{how}: a 503 took {longest:?} at most");
    let health = request("GET", "/health").send(server).await;
    assert_eq!((health.status.as_u16(), &health.json()["status"]), (503, &"degraded".into()), "{how}");
    assert_eq!(health.json()["store"]["status"], "unavailable", "{how}: {}", health.text());
    for path in ["/livez", "/healthz", "/readyz", "/fibonacci/10"] {
        assert_eq!(request("GET", path).send(server).await.status, 200, "{how}: {path}");
    }
}

async fn it_recovers(server: SocketAddr, how: &str) -> Duration {
    let began = Instant::now();
    let deadline = began + PATIENCE;
    while next(server).await.status != 200 {
        assert!(Instant::now() < deadline, "{how}: no recovery");
        sleep(Duration::from_millis(50)).await;
    }
    let recovered = began.elapsed();
    while request("GET", "/health").send(server).await.status != 200 {
        assert!(Instant::now() < deadline, "{how}: health stays degraded");
        sleep(Duration::from_millis(100)).await;
    }
    recovered
}

/// The median time of an addition beside others that ask for the store, and how many were answered before any of those.
async fn additions_beside_the_store(server: SocketAddr) -> (Duration, usize) {
    let waiting: Vec<_> = (0..8).map(|_| tokio::spawn(next(server))).collect();
    let (mut times, mut before_others) = (Vec::new(), 0);
    for _ in 0..51 {
        let began = Instant::now();
        assert_eq!(addition(r#"{"a":1,"b":2}"#).send(server).await.status, 200);
        times.push(began.elapsed());
        before_others += usize::from(!waiting.iter().any(JoinHandle::is_finished));
    }
    for call in waiting {
        call.await.unwrap();
    }
    times.sort();
    (times[times.len() / 2], before_others)
}

/// The median time of an addition while others wait for a store that does not answer, and get no answer themselves.
async fn additions_do_not_wait(server: SocketAddr, how: &str) -> Duration {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (median, before_others) = additions_beside_the_store(server).await;
        // The first two may have come before the others. A machine that is too slow for a dozen gets another try.
        if before_others >= 12 {
            return median;
        }
        assert!(Instant::now() < deadline, "{how}: additions wait for the store: {median:?}");
    }
}

/// What a proxy does with connections, present and future.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Pass,
    /// Ends those there are, and every new one at once.
    Cut,
    /// Nobody listens.
    Refuse,
    /// Keeps those there are, takes new ones, and passes nothing on.
    Stall,
}

/// Nobody else's, listened on or not.
enum Port {
    Listening(TcpListener),
    Silent(TcpSocket),
}

impl Port {
    fn listening(self, listens: bool) -> Self {
        match self {
            Self::Silent(socket) if listens => Self::Listening(listen(socket)),
            Self::Listening(listener) if !listens => {
                let address = listener.local_addr().unwrap();
                drop(listener);
                Self::Silent(hold(address))
            }
            same => same,
        }
    }
}

/// Stands between the service and its store.
struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    async fn before(store: SocketAddr) -> Self {
        let socket = silent_port();
        let address = socket.local_addr().unwrap();
        let (mode, seen) = watch::channel(Mode::Pass);
        tokio::spawn(Self::serve(socket, store, seen));
        Self { address, mode }
    }

    async fn serve(socket: TcpSocket, store: SocketAddr, mut mode: watch::Receiver<Mode>) {
        let (mut port, mut connections) = (Port::Silent(socket), JoinSet::new());
        let held = Arc::new(Mutex::new(Vec::new()));
        loop {
            let now = *mode.borrow_and_update();
            port = port.listening(now != Mode::Refuse);
            if matches!(now, Mode::Cut | Mode::Refuse) {
                connections.shutdown().await;
                held.lock().unwrap().clear();
            }
            let accepted = async {
                match &port {
                    Port::Listening(listener) => listener.accept().await.unwrap().0,
                    Port::Silent(_) => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = mode.changed() => if changed.is_err() { return },
                client = accepted => match now {
                    Mode::Pass => drop(connections.spawn(Self::pass(client, store, mode.clone()))),
                    // Held, so that it is neither answered nor closed; never passed on.
                    Mode::Stall => held.lock().unwrap().push(client),
                    Mode::Cut | Mode::Refuse => drop(client),
                },
            }
        }
    }

    async fn pass(mut client: TcpStream, store: SocketAddr, mut mode: watch::Receiver<Mode>) {
        let mut server = TcpStream::connect(store).await.unwrap();
        let stalled = async { mode.wait_for(|mode| *mode == Mode::Stall).await.map(drop) };
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => return,
            _ = stalled => {}
        }
        // For good, as when a firewall has forgotten it: what comes after is for new connections.
        let _ = mode.wait_for(|mode| matches!(mode, Mode::Cut | Mode::Refuse)).await.map(drop);
    }
}

async fn outages_on_the_way(kind: Kind) {
    let Some(database) = Database::new(kind).await else { return };
    let authority = match kind {
        Kind::Postgres => postgres_url().await.unwrap().rsplit('@').next().unwrap().to_owned(),
        _ => database.url.rsplit("http://").next().unwrap().to_owned(),
    };
    let store = tokio::net::lookup_host(&authority).await.unwrap().find(SocketAddr::is_ipv4).unwrap();
    let proxy = Proxy::before(store).await;
    let url = database.url.replace(&authority, &proxy.address.to_string());
    let mut settings = database.settings();
    settings.push(("STATE_URL", &url));
    let server = Server::start(&settings).await;
    it_recovers(server.address, "at first").await;
    let (calm, _) = additions_beside_the_store(server.address).await;

    for mode in [Mode::Cut, Mode::Refuse, Mode::Stall] {
        let how = format!("{kind:?}, {mode:?}");
        proxy.mode.send_replace(mode);
        it_fails_well(server.address, &how).await;
        let troubled = match mode {
            Mode::Stall => additions_do_not_wait(server.address, &how).await,
            _ => additions_beside_the_store(server.address).await.0,
        };
        proxy.mode.send_replace(Mode::Pass);
        let recovered = it_recovers(server.address, &how).await;
        println!("{how}: additions {troubled:?} (before {calm:?}), recovered after {recovered:?}");
    }
}

#[tokio::test]
async fn postgres_cut_refused_and_stalled() {
    outages_on_the_way(Kind::Postgres).await;
}

#[tokio::test]
async fn dynamodb_cut_refused_and_stalled() {
    outages_on_the_way(Kind::Dynamodb).await;
}

/// A role of its own, because superusers pass every limit.
#[tokio::test]
async fn postgres_read_only_without_connections_and_with_a_full_disk() {
    let Some(database) = Database::new(Kind::Postgres).await else { return };
    let (name, role) = (
        database.url.rsplit('/').next().unwrap().replace("?sslmode=disable", ""),
        crate::databases::unique(),
    );
    let (admin, base) = postgres(&name).await.unwrap();
    let run = async |sql: String| {
        admin.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    };
    run(format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT ALL ON DATABASE {name} TO {role}; GRANT ALL ON SCHEMA public TO {role}")).await;
    let host = base.rsplit('@').next().unwrap();
    let url = format!("postgres://{role}:secret@{host}/{name}?sslmode=disable");
    let server = Server::start(&[("STATE_URL", &url)]).await;
    it_recovers(server.address, "at first").await;
    let disconnect =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'");

    for (how, failing, back) in [
        (
            "read-only",
            format!("ALTER ROLE {role} SET default_transaction_read_only = on"),
            format!("ALTER ROLE {role} RESET default_transaction_read_only"),
        ),
        (
            "out of connections",
            format!("ALTER ROLE {role} CONNECTION LIMIT 0"),
            format!("ALTER ROLE {role} CONNECTION LIMIT -1"),
        ),
        (
            // What the server says when the disk is full (SQLSTATE 53100).
            "disk full",
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
             CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON fibonacci_sequences
                FOR EACH ROW EXECUTE FUNCTION full_disk()"
                .to_owned(),
            "DROP TRIGGER full_disk ON fibonacci_sequences".to_owned(),
        ),
    ] {
        run(failing).await;
        run(disconnect.clone()).await;
        it_fails_well(server.address, how).await;
        run(back).await;
        run(disconnect.clone()).await;
        let recovered = it_recovers(server.address, how).await;
        println!("Postgres, {how}: recovered after {recovered:?}");
    }
    // What a role of its own holds would keep it from being dropped with the database.
    let lines = server.stop().await;
    assert!(lines.iter().any(|line| line["event"] == "The state store failed" && line["error"].is_string()));
    assert!(lines.iter().all(|line| !line.to_string().contains(KEY)), "no key in the log");
}

#[tokio::test]
async fn a_sqlite_file_that_cannot_be_opened_is_opened_once_it_can() {
    let folder = Folder::new();
    let place = folder.0.join("place");
    std::fs::write(&place, "a file where the folder should be").unwrap();
    let url = format!("sqlite://{}", place.join("state.db").display());
    let server = Server::start(&[("STATE_URL", &url)]).await;
    it_fails_well(server.address, "no folder").await;
    std::fs::remove_file(&place).unwrap();
    it_recovers(server.address, "no folder").await;
}

/// Under a limit on the size of files that the system enforces, as it enforces a full disk.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_sqlite_file_on_a_full_disk_takes_steps_again_when_there_is_room() {
    let folder = Folder::new();
    let path = folder.0.join("state.db");
    let url = format!("sqlite://{}", path.display());
    // Where a disk would just be full, this limit sends a signal too.
    let server = Server::start(&[("STATE_URL", &url)]).await;
    it_recovers(server.address, "at first").await;
    let limit = async |limit: &str| {
        let pid = server.pid().to_string();
        let status = tokio::process::Command::new("prlimit").args(["--pid", &pid, limit]).status().await;
        assert!(status.unwrap().success(), "prlimit (util-linux) changes the limit");
    };
    limit("--fsize=0:unlimited").await;
    it_fails_well(server.address, "disk full").await;
    limit("--fsize=unlimited:unlimited").await;
    it_recovers(server.address, "disk full").await;
}

#[tokio::test]
async fn another_process_that_holds_the_lock_costs_a_503_and_no_more() {
    let Some(database) = Database::new(Kind::Sqlite).await else { return };
    let server = Server::start(&database.settings()).await;
    it_recovers(server.address, "at first").await;
    let other = rusqlite::Connection::open(database.url.trim_start_matches("sqlite://")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    it_fails_well(server.address, "locked").await;
    other.execute_batch("COMMIT").unwrap();
    it_recovers(server.address, "locked").await;
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let Some(authority) = postgres_authority().await else { return };
    let Some(database) = Database::new(Kind::Postgres).await else { return };
    let url = |parameter: &str| database.url.replace("sslmode=disable", parameter);
    let trusted = url(&format!("sslrootcert={}", authority.display()));
    for (url, status) in [
        (url(""), 503),
        (url("sslmode=require"), 503),
        (trusted.clone(), 200),
        // The certificate is for `localhost`.
        (trusted.replace("localhost", "127.0.0.1"), 503),
    ] {
        let server = Server::start(&[("STATE_URL", &url)]).await;
        match status {
            200 => drop(it_recovers(server.address, &url).await),
            _ => assert_eq!(next(server.address).await.status, status, "{url}"),
        }
    }
}

#[tokio::test]
async fn a_store_that_is_no_store_stops_the_start_and_tells_no_password() {
    let output = server_command().env("STATE_URL", "mysql://user:hunter2@host/db").output().await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(stderr.contains("STATE_URL") && !stderr.contains("hunter2"), "{stderr}");
}
