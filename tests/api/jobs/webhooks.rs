//! Who asked for it is told when a Job has ended: on a receiver of the test's own, over TLS.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::{HeaderMap, Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use math_service::{
    app::App,
    config::Config,
    jobs::{
        watch::Watch,
        webhook::{
            Webhooks,
            address::is_public,
            message::{Message, waiting},
            outbox::Outbox,
            sender::{Resolve, Sender},
            signature::SecretFile,
        },
    },
    problem::Problem,
    store::{ledger::Ledger, records::Change},
    targets::Target,
};
use ring::hmac;
use rustls::{RootCertStore, pki_types::PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_rustls::TlsAcceptor;

use super::{Answer, IMAGE, Kubernetes, Service, Setup, figures, ledger, patiently};
use crate::{
    access::{Folder, NOW},
    support::{listen, silent_port},
};

const JOBS: &str = "/api/v1/namespaces/jobs-a/jobs";
const SECRET: [u8; 32] = [7; 32];
const HOST: &str = "hooks.example.com";

/// A request that a receiver got.
struct Got {
    path: String,
    headers: HeaderMap,
    body: String,
}

/// A status, and perhaps a header.
type Told = (u16, Option<(&'static str, &'static str)>);

/// Somebody who wants to be told.
struct Receiver {
    port: u16,
    roots: RootCertStore,
    acceptor: TlsAcceptor,
    /// What it answers.
    answer: Arc<Mutex<Told>>,
    got: Arc<Mutex<Vec<Got>>>,
    connections: Arc<AtomicU64>,
    /// Until it listens.
    port_held: Option<TcpSocket>,
}

impl Receiver {
    /// One that does not listen yet, with a certificate for `name`.
    fn new(name: &str) -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config =
            rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![cert.der().clone()], key)
                .unwrap();
        let socket = silent_port();
        let port = socket.local_addr().unwrap().port();
        Self {
            port,
            roots,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            answer: Arc::new(Mutex::new((204, None))),
            got: Arc::default(),
            connections: Arc::default(),
            port_held: Some(socket),
        }
    }

    fn listening(name: &str) -> Self {
        let mut receiver = Self::new(name);
        receiver.listen();
        receiver
    }

    fn listen(&mut self) {
        let listener = listen(self.port_held.take().unwrap());
        let (acceptor, answer, got, connections) =
            (self.acceptor.clone(), self.answer.clone(), self.got.clone(), self.connections.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (acceptor, answer, got) = (acceptor.clone(), answer.clone(), got.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request: Request<Incoming>| {
                        let (answer, got) = (answer.clone(), got.clone());
                        async move {
                            let (head, body) = request.into_parts();
                            let body = body.collect().await.unwrap().to_bytes();
                            let body = String::from_utf8(body.to_vec()).unwrap();
                            got.lock().unwrap().push(Got {
                                path: head.uri.to_string(),
                                headers: head.headers,
                                body,
                            });
                            let (status, header) = *answer.lock().unwrap();
                            let mut response = Response::builder().status(status);
                            if let Some((name, value)) = header {
                                response = response.header(name, value);
                            }
                            // More than anybody wants to read.
                            response.body("x".repeat(if status == 204 { 0 } else { 1 << 20 }))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
    }

    fn url(&self) -> String {
        format!("https://{HOST}:{}/jobs?token=private", self.port)
    }

    fn got(&self) -> usize {
        self.got.lock().unwrap().len()
    }
}

/// An outbox in a store of the test's own, and its clock.
struct World {
    outbox: Outbox,
    seconds: Arc<AtomicU64>,
    folder: Folder,
}

fn in_words(problem: Problem) -> String {
    problem.detail().to_owned()
}

fn resolving(addresses: &[&str]) -> Resolve {
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Arc::new(move |_| std::future::ready(Ok(addresses.clone())).boxed())
}

fn webhooks(folder: &Folder, hosts: &str) -> Webhooks {
    let path = folder.path().join("secret");
    std::fs::write(&path, format!("whsec_{}\n", BASE64_STANDARD.encode(SECRET))).unwrap();
    Webhooks { hosts: hosts.parse().unwrap(), secret: Some(SecretFile::open(&path).unwrap()) }
}

fn world(receiver: &Receiver, resolve: Resolve, may_reach: fn(IpAddr) -> bool) -> World {
    let (folder, seconds) = (Folder::new(), Arc::new(AtomicU64::new(NOW)));
    let hands = seconds.clone();
    // Never at the beginning of a second: nothing may be forgotten a part of one too early.
    let part = Duration::from_millis(1);
    let clock = Arc::new(move || UNIX_EPOCH + part + Duration::from_secs(hands.load(Ordering::Relaxed)));
    let ledger = ledger(&format!("sqlite://{}", folder.path().join("state.db").display()), clock);
    let webhooks = webhooks(&folder, &format!("{HOST}:{}", receiver.port));
    let sender = Sender::with(resolve, may_reach, receiver.roots.clone());
    World { outbox: Outbox { cluster: "math".to_owned(), ledger, webhooks, sender }, seconds, folder }
}

/// One whose receiver is on this machine.
fn near(receiver: &Receiver) -> World {
    world(receiver, resolving(&["127.0.0.1"]), |_| true)
}

impl World {
    fn ledger(&self) -> &Ledger {
        &self.outbox.ledger
    }

    async fn put(&self, url: &str) -> Message {
        let message = Message {
            id: format!("msg_{:032x}", fastrand::u128(..)),
            url: url.to_owned(),
            body: r#"{"type":"job.succeeded"}"#.to_owned(),
            namespace: "jobs-a".to_owned(),
            name: "a".to_owned(),
            since: self.ledger().now(),
            attempts: 0,
            reason: None,
        };
        let record = message.record(waiting("math"), self.ledger().now(), None).unwrap();
        let put = async || self.ledger().change(vec![Change::Put(record.clone())]).await.map_err(in_words);
        patiently(put).await;
        message
    }

    async fn deliver(&self) {
        patiently(async || self.outbox.deliver_due().await.map_err(in_words)).await;
    }

    /// A watch of two Jobs whose webhook is `url`, one of which has failed.
    fn watch(&self, url: String) -> Watch {
        let (_, cluster) = Kubernetes::with(move |asked| {
            if asked.path.contains("watch=true") {
                let bookmark = json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}});
                return Answer::Lines(vec![bookmark.to_string()]);
            }
            let job = |name: &str, status: Value| {
                json!({"metadata": {"name": name, "namespace": "jobs-a", "uid": name, "creationTimestamp": "2027-01-15T08:00:00Z",
                    "annotations": {"math-service/webhook": url}}, "status": status})
            };
            let failed = json!({"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "lastTransitionTime": "2027-01-15T08:00:09Z"}]});
            let items = [job("failed", failed), job("running", json!({"active": 1, "ready": 1}))];
            Answer::Json(200, json!({"metadata": {"resourceVersion": "7"}, "items": items}))
        });
        let (_, figures) = figures(&cluster);
        Watch {
            cluster,
            ledger: self.ledger().clone(),
            lease_namespace: None,
            holder: "test".to_owned(),
            follow: Some(self.outbox.follow()),
            outbox: Some(self.outbox.clone()),
            figures,
        }
    }

    /// A service that shows what was given up.
    fn service(&self) -> Service {
        let (_, cluster) = Kubernetes::with(|_| Answer::Never);
        Setup { cluster: Some(cluster), ledger: Some(self.ledger().clone()), ..Setup::default() }.start()
    }

    async fn dead_letters(&self) -> Value {
        let service = self.service();
        let reply = patiently(async || {
            let reply = service.get("/api/v1/webhooks/dead-letters").await;
            if reply.status == 200 { Ok(reply) } else { Err(reply.text().to_owned()) }
        });
        reply.await.json()["items"].clone()
    }
}

fn verify(got: &Got, at: u64) {
    let header = |name: &str| got.headers[name].to_str().unwrap();
    assert_eq!(header("webhook-timestamp"), at.to_string());
    let signature = header("webhook-signature").strip_prefix("v1,").unwrap();
    let signed = format!("{}.{}.{}", header("webhook-id"), at, got.body);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &SECRET);
    hmac::verify(&key, signed.as_bytes(), &BASE64_STANDARD.decode(signature).unwrap()).unwrap();
}

// ---------------------------------------------------------------- what a create may say

#[tokio::test]
async fn a_webhook_is_kept_on_the_job_where_its_host_is_allowed() {
    let folder = Folder::new();
    let (kubernetes, cluster) = Kubernetes::with(|asked| Answer::Json(201, asked.body.clone()));
    let webhooks = Some(webhooks(&folder, "hooks.example.com, *.team.example.com"));
    let service = Setup { cluster: Some(cluster), webhooks, ..Setup::default() }.start();
    let wanted = |url: &str| json!({"image": IMAGE, "webhook": url});
    let url = "https://hooks.example.com/a?b=c";
    let reply = service.post(JOBS, &wanted(url)).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert_eq!(kubernetes.asked()[0].body["metadata"]["annotations"]["math-service/webhook"], url);
    let pod = json!({"containers": [{"name": "main", "image": IMAGE, "resources": {"limits": {"cpu": 1, "memory": "1Mi"}}}]});
    let mut manifest = json!({"spec": {"template": {"spec": pod}}});
    for body in [
        json!({"job_manifest": manifest, "webhook": "https://x.team.example.com"}),
        json!({"template": "a", "parameters": {"word": "hi"}, "webhook": url}),
        json!({"image": IMAGE, "webhook": null}),
    ] {
        let reply = service.post(JOBS, &body).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    let before = kubernetes.calls().len();
    for (body, detail) in [
        (wanted("https://evil.example.com/"), "JOBS_WEBHOOK_HOSTS does not allow"),
        (wanted("http://hooks.example.com/"), "must be an https URL"),
        (wanted("https://2130706433/"), "must be an https URL"),
        (wanted("https://hooks.example.com@127.0.0.1/"), "must be an https URL"),
        (json!({"image": IMAGE, "webhook": 1}), "must be a string"),
    ] {
        let reply = service.post(JOBS, &body).await;
        let error = &reply.json()["errors"][0];
        assert_eq!((reply.status.as_u16(), &error["pointer"]), (422, &json!("/webhook")), "{body}");
        assert!(error["detail"].as_str().unwrap().contains(detail), "{error}");
    }
    manifest["metadata"] = json!({"annotations": {"math-service/webhook": "https://evil.example.com"}});
    let reply = service.post(JOBS, &json!({"job_manifest": manifest})).await;
    assert_eq!(
        reply.json()["errors"][0]["pointer"],
        "/job_manifest/metadata/annotations/math-service~1webhook",
        "nobody gets around the list"
    );
    assert_eq!(kubernetes.calls().len(), before);
    let none = Setup { cluster: Some(Kubernetes::with(|_| Answer::Never).1), ..Setup::default() }.start();
    let reply = none.post(JOBS, &wanted(url)).await;
    assert!(
        reply.status == 422 && reply.text().contains("JOBS_WEBHOOK_HOSTS is not set"),
        "{}",
        reply.text()
    );
}

#[test]
fn hosts_need_a_secret_and_a_secret_a_file_that_holds_one() {
    let folder = Folder::new();
    let path = folder.path().join("secret");
    std::fs::write(&path, "password").unwrap();
    let config = |vars: &[(&str, &str)]| {
        Config::from_env(|name| {
            vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    };
    let file = ("JOBS_WEBHOOK_SECRET_FILE", path.to_str().unwrap());
    let hosts = ("JOBS_WEBHOOK_HOSTS", HOST);
    for vars in [[hosts].as_slice(), &[file]] {
        assert_eq!(config(vars).unwrap_err().variable, "JOBS_WEBHOOK_SECRET_FILE");
    }
    assert_eq!(
        config(&[("JOBS_WEBHOOK_HOSTS", "10.0.0.1"), file]).unwrap_err().variable,
        "JOBS_WEBHOOK_HOSTS"
    );
    let error =
        App::new(&config(&[hosts, file]).unwrap(), Target::Container, None).err().unwrap().to_string();
    assert!(error.contains("line 1: expected whsec_") && !error.contains("password"), "{error}");
}

// ---------------------------------------------------------------- delivery

#[tokio::test]
async fn a_job_that_ends_is_told_once_and_signed() {
    let receiver = Receiver::listening(HOST);
    let world = near(&receiver);
    let watch = world.watch(receiver.url());
    // Twice, as two replicas would, or a function whose schedule comes round again.
    patiently(async || watch.catch_up().await).await;
    patiently(async || watch.catch_up().await).await;
    let got = receiver.got.lock().unwrap();
    assert_eq!(got.len(), 1, "one has ended, and is told of once");
    verify(&got[0], NOW);
    assert_eq!(
        (got[0].path.as_str(), &got[0].headers["content-type"]),
        ("/jobs?token=private", &"application/json".parse().unwrap())
    );
    assert!(got[0].headers["webhook-id"].to_str().unwrap().starts_with("msg_"));
    let body: Value = serde_json::from_str(&got[0].body).unwrap();
    assert_eq!((&body["type"], &body["timestamp"]), (&json!("job.failed"), &json!("2027-01-15T08:00:09Z")));
    let data = &body["data"];
    assert_eq!(
        [&data["cluster"], &data["namespace"], &data["name"], &data["status"], &data["reason"]],
        ["math", "jobs-a", "failed", "failed", "DeadlineExceeded"]
    );
}

#[tokio::test]
async fn a_receiver_that_is_down_for_a_minute_is_told_soon_after() {
    let mut receiver = Receiver::new(HOST);
    let world = near(&receiver);
    let message = world.put(&receiver.url()).await;
    let mut delivered = None;
    for second in 0..180 {
        world.seconds.store(NOW + second, Ordering::Relaxed);
        if second == 60 {
            receiver.listen();
        }
        world.deliver().await;
        if receiver.got() == 1 {
            delivered.get_or_insert(second);
        }
    }
    let delivered = delivered.expect("it was told");
    assert!((60..=140).contains(&delivered), "{delivered}");
    assert_eq!(world.dead_letters().await, json!([]));
    let got = receiver.got.lock().unwrap();
    assert_eq!(got.len(), 1, "and once");
    verify(&got[0], NOW + delivered);
    assert_eq!(got[0].headers["webhook-id"], message.id);
    println!("down for 60 s, told after {delivered} s");
}

#[tokio::test]
async fn whoever_answers_wrongly_is_told_again_under_the_same_id_and_as_late_as_asked() {
    let receiver = Receiver::listening(HOST);
    let world = near(&receiver);
    world.put(&receiver.url()).await;
    *receiver.answer.lock().unwrap() = (503, Some(("retry-after", "120")));
    world.deliver().await;
    *receiver.answer.lock().unwrap() = (200, None);
    world.seconds.fetch_add(119, Ordering::Relaxed);
    world.deliver().await;
    assert_eq!(receiver.got(), 1, "not before");
    world.seconds.fetch_add(2, Ordering::Relaxed);
    world.deliver().await;
    world.deliver().await;
    let got = receiver.got.lock().unwrap();
    assert_eq!(got.len(), 2);
    assert_eq!(got[0].headers["webhook-id"], got[1].headers["webhook-id"]);
    verify(&got[0], NOW);
    verify(&got[1], NOW + 121);
}

#[tokio::test]
async fn after_a_day_or_where_nobody_wants_it_a_message_is_a_dead_letter() {
    let receiver = Receiver::listening(HOST);
    let world = near(&receiver);
    let first = world.put(&receiver.url()).await;
    *receiver.answer.lock().unwrap() = (500, None);
    let mut attempts = 0;
    for _ in 0..200 {
        world.deliver().await;
        attempts = receiver.got();
        world.seconds.fetch_add(600, Ordering::Relaxed);
    }
    assert!((20..60).contains(&attempts), "{attempts} in a day");
    let letters = world.dead_letters().await;
    assert_eq!(letters.as_array().unwrap().len(), 1);
    let letter = &letters[0];
    assert_eq!((&letter["id"], &letter["attempts"]), (&json!(first.id), &json!(attempts)));
    assert_eq!((&letter["host"], &letter["reason"]), (&json!(HOST), &json!("the receiver answered 500")));
    assert!(!letters.to_string().contains("private"), "what else is in the URL may be a secret");
    // 410 says that there is nobody any more; a host that is not allowed any more is not asked.
    *receiver.answer.lock().unwrap() = (410, None);
    world.put(&receiver.url()).await;
    world.put("https://other.example.com/").await;
    world.deliver().await;
    let reasons: Vec<_> = world
        .dead_letters()
        .await
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| letter["reason"].clone())
        .collect();
    assert!(reasons.contains(&json!("the receiver answered 410")), "{reasons:?}");
    assert!(
        reasons.contains(&json!("its URL is at a host that JOBS_WEBHOOK_HOSTS does not allow")),
        "{reasons:?}"
    );
    assert_eq!(receiver.got(), attempts + 1);
    // The first was given up hours before these two.
    world.seconds.fetch_add(7 * 24 * 60 * 60, Ordering::Relaxed);
    assert_eq!(world.dead_letters().await.as_array().unwrap().len(), 2, "a week is not over before its end");
    world.seconds.fetch_add(1, Ordering::Relaxed);
    assert_eq!(world.dead_letters().await, json!([]));
    assert!(world.folder.path().join("state.db").exists());
}

#[tokio::test]
async fn a_message_outlives_the_history_and_its_receiver_being_down() {
    // The history is kept for an hour here.
    for (hours_down, told, dead) in [(2, 1, 0), (30, 0, 1)] {
        let receiver = Receiver::listening(HOST);
        let world = near(&receiver);
        *receiver.answer.lock().unwrap() = (503, None);
        let watch = world.watch(receiver.url());
        patiently(async || watch.catch_up().await).await;
        for _ in 0..hours_down {
            world.seconds.fetch_add(3600, Ordering::Relaxed);
            world.deliver().await;
        }
        *receiver.answer.lock().unwrap() = (200, None);
        let before = receiver.got();
        for _ in 0..2 {
            world.seconds.fetch_add(3600, Ordering::Relaxed);
            world.deliver().await;
        }
        assert_eq!(receiver.got() - before, told, "down for {hours_down} h");
        assert_eq!(world.dead_letters().await.as_array().unwrap().len(), dead, "down for {hours_down} h");
    }
}

// ---------------------------------------------------------------- where it must not go

/// What became of a message that was tried once, by the wait that it has now.
async fn reason_of_failure(world: &World) -> String {
    world.deliver().await;
    let query = math_service::store::records::Query::all(waiting("math"), 10, NOW);
    let page = world.ledger().read(query).await.unwrap();
    let message: Message = serde_json::from_str(&page.records[0].body).unwrap();
    message.reason.unwrap()
}

#[tokio::test]
async fn a_host_that_has_an_address_of_the_inside_is_not_connected_to() {
    let receiver = Receiver::listening(HOST);
    for addresses in [
        &["127.0.0.1"][..],
        &["::1"],
        &["::ffff:127.0.0.1"],
        &["::127.0.0.1"],
        &["64:ff9b::7f00:1"],
        &["2002:7f00:1::"],
        &["0.0.0.0"],
        &["10.0.0.1"],
        &["100.64.0.1"],
        &["169.254.169.254"],
        &["fd00:ec2::254"],
        &["fe80::1"],
        &["224.0.0.1"],
        // One among good ones.
        &["127.0.0.1", "8.8.8.8"],
        &["8.8.8.8", "2600:1f18::1", "127.0.0.1"],
    ] {
        let world = world(&receiver, resolving(addresses), is_public);
        world.put(&receiver.url()).await;
        let reason = reason_of_failure(&world).await;
        assert_eq!(reason, "the host has an address outside of the public Internet", "{addresses:?}");
    }
    assert_eq!(receiver.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_name_that_means_something_else_a_moment_later_is_looked_up_once() {
    let receiver = Receiver::listening(HOST);
    let lookups = Arc::new(AtomicU64::new(0));
    let counted = lookups.clone();
    // Good at the first look, and the metadata of EC2 ever after.
    let rebinding: Resolve = Arc::new(move |_| {
        let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
        let address = if first { "127.0.0.1" } else { "169.254.169.254" };
        std::future::ready(Ok(vec![address.parse().unwrap()])).boxed()
    });
    let world = world(&receiver, rebinding, |address| address.is_loopback());
    world.put(&receiver.url()).await;
    world.deliver().await;
    assert_eq!((receiver.got(), lookups.load(Ordering::Relaxed)), (1, 1), "it goes where was looked");
    // The next message looks again, and is refused.
    world.put(&receiver.url()).await;
    assert!(reason_of_failure(&world).await.contains("outside of the public Internet"));
    assert_eq!((receiver.got(), lookups.load(Ordering::Relaxed)), (1, 2));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let (receiver, other) = (Receiver::listening(HOST), Receiver::listening(HOST));
    let location: &'static str = Box::leak(other.url().into_boxed_str());
    for status in [301, 302, 307, 308] {
        let world = near(&receiver);
        *receiver.answer.lock().unwrap() = (status, Some(("location", location)));
        world.put(&receiver.url()).await;
        assert_eq!(reason_of_failure(&world).await, format!("the receiver answered {status}"));
    }
    assert_eq!((receiver.got(), other.connections.load(Ordering::Relaxed)), (4, 0));
}

#[tokio::test]
async fn a_receiver_that_cannot_prove_who_it_is_gets_nothing() {
    let receiver = Receiver::listening("other.example.com");
    let world = near(&receiver);
    world.put(&receiver.url()).await;
    assert_eq!(reason_of_failure(&world).await, "the receiver could not prove who it is");
    assert_eq!(receiver.got(), 0);
}
