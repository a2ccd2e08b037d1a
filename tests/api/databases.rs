//! Real databases for the tests, started once and ended with the test process.
//!
//! - SQLite: a file in a scratch folder.
//! - PostgreSQL: this machine's, on a port of its own; or the one that `TEST_POSTGRES_URL` names, where
//!   the tests create databases of their own.
//! - DynamoDB: moto, in a server of one thread.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::SystemTime,
};

use math_service::{
    aws::credentials::{Chain, Credentials},
    config::Config,
    store::{self, Database as Adapter, dynamodb::Dynamodb, location::Location},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::OnceCell,
};

/// The adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
    Dynamodb,
}

pub(crate) const KINDS: [Kind; 3] = [Kind::Sqlite, Kind::Postgres, Kind::Dynamodb];

/// An empty database of one test's own.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) kind: Kind,
    /// As `STATE_URL` takes it.
    pub(crate) url: String,
    _folder: Option<Folder>,
}

/// What DynamoDB's stand-in accepts: anything.
const CREDENTIALS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "eu-west-2")];

impl Database {
    /// A new one; `None` where this machine has no such server, which is said, and fails in CI.
    pub(crate) async fn new(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Sqlite => {
                let folder = Folder::new();
                let url = format!("sqlite://{}", folder.0.join("nested/state.db").display());
                Some(Self { kind, url, _folder: Some(folder) })
            }
            Kind::Postgres => {
                let name = unique();
                let (client, base) = postgres("postgres").await?;
                client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database");
                Some(Self { kind, url: in_database(&base, &name), _folder: None })
            }
            Kind::Dynamodb => {
                let endpoint = dynamodb().await?;
                let name = unique();
                create_table(endpoint, &name, Some(index())).await;
                Some(Self { kind, url: format!("dynamodb://{name}?endpoint={endpoint}"), _folder: None })
            }
        }
    }

    /// A table of DynamoDB's that was made before records were.
    pub(crate) async fn without_index() -> Option<Self> {
        let endpoint = dynamodb().await?;
        let name = unique();
        create_table(endpoint, &name, None).await;
        Some(Self {
            kind: Kind::Dynamodb,
            url: format!("dynamodb://{name}?endpoint={endpoint}"),
            _folder: None,
        })
    }

    /// As the README says.
    pub(crate) async fn add_index(&self) {
        let Some(endpoint) = dynamodb().await else { return };
        let name = self.url.trim_start_matches("dynamodb://").split('?').next();
        let update = json!({
            "TableName": name,
            "AttributeDefinitions": attributes(&["log", "position"]),
            "GlobalSecondaryIndexUpdates": [{"Create": index()}],
        });
        dynamodb_takes(endpoint, "UpdateTable", &update).await;
    }

    /// What a process needs to use it.
    pub(crate) fn settings(&self) -> Vec<(&str, &str)> {
        let mut settings = vec![("STATE_URL", self.url.as_str()), ("ALLOW_EMBEDDED_STORE", "true")];
        if self.kind == Kind::Dynamodb {
            settings.extend(CREDENTIALS);
        }
        settings
    }

    /// An adapter on it, as a process has one.
    pub(crate) fn open(&self) -> Arc<dyn Adapter> {
        let settings = self.settings();
        let get =
            |name: &str| settings.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let config = Config::from_env(get).expect("good settings");
        // The process's own environment has no credentials, and tests never set variables.
        if let Location::Dynamodb(table) = &config.state_url {
            let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
            let credentials = Chain::of(credentials, Arc::new(SystemTime::now));
            let region = config.aws.region.as_deref();
            return Arc::new(Dynamodb::with(table, region, credentials).expect("it opens"));
        }
        store::open(&config).expect("it opens")
    }
}

/// A connection to one of PostgreSQL's databases, and the URL that it was made from.
pub(crate) async fn postgres(database: &str) -> Option<(tokio_postgres::Client, String)> {
    let base = postgres_url().await?;
    let url = in_database(base, database).replace("?sslmode=disable", "");
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect(&url);
    tokio::spawn(connection);
    Some((client, base.to_owned()))
}

fn in_database(base: &str, name: &str) -> String {
    format!("{base}/{name}?sslmode=disable")
}

/// `postgres://user@host:port`, with no database.
pub(crate) async fn postgres_url() -> Option<&'static str> {
    static URL: OnceCell<Option<String>> = OnceCell::const_new();
    let start = async || {
        #[expect(clippy::disallowed_methods, reason = "an argument of the tests, not a setting")]
        if let Ok(url) = std::env::var("TEST_POSTGRES_URL") {
            return Some(url.trim_end_matches('/').to_owned());
        }
        let script = root().join("tests/stores/postgres.sh");
        let mut command = Command::new(script);
        // The script removes the folder when it ends.
        command.arg(Folder::new().keep());
        started(&mut command, "there is no PostgreSQL here: make postgres installs Debian's").await
    };
    URL.get_or_init(start).await.as_deref()
}

/// The authority behind the certificate of the PostgreSQL that [`postgres_url`] started.
pub(crate) async fn postgres_authority() -> Option<PathBuf> {
    let (client, _) = postgres("postgres").await?;
    let row = client.query_one("SHOW ssl_cert_file", &[]).await.unwrap();
    let authority = PathBuf::from(row.get::<_, String>(0)).with_file_name("ca.crt");
    if authority.exists() {
        Some(authority)
    } else {
        cannot_run("TEST_POSTGRES_URL names a server of another kind")
    }
}

async fn dynamodb() -> Option<&'static str> {
    static URL: OnceCell<Option<String>> = OnceCell::const_new();
    let start = async || {
        let mut command = Command::new(root().join(".tools/venv/bin/python"));
        command.arg(root().join("tests/stores/dynamodb.py"));
        started(&mut command, "moto is not installed in .tools/venv: make test installs it").await
    };
    URL.get_or_init(start).await.as_deref()
}

/// The table of `template.yaml`, as far as DynamoDB's stand-in knows it; `index` as one says it there, or none.
async fn create_table(endpoint: &str, name: &str, index: Option<Value>) {
    let names = if index.is_some() { &["id", "log", "position"][..] } else { &["id"] };
    let mut body = json!({
        "TableName": name,
        "AttributeDefinitions": attributes(names),
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
    });
    if let Some(index) = index {
        body["GlobalSecondaryIndexes"] = json!([index]);
    }
    dynamodb_takes(endpoint, "CreateTable", &body).await;
}

fn attributes(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"AttributeName": name, "AttributeType": "S"})).collect()
}

/// What records are read through.
fn index() -> Value {
    json!({
        "IndexName": "records",
        "KeySchema": [{"AttributeName": "log", "KeyType": "HASH"}, {"AttributeName": "position", "KeyType": "RANGE"}],
        "Projection": {"ProjectionType": "ALL"},
    })
}

async fn dynamodb_takes(endpoint: &str, action: &str, body: &Value) {
    let address = endpoint.trim_start_matches("http://").parse().unwrap();
    let scope = "AKIDEXAMPLE/20261121/eu-west-2/dynamodb/aws4_request";
    let answer = crate::support::request("POST", "/")
        .header("x-amz-target", &format!("DynamoDB_20120810.{action}"))
        .header("content-type", "application/x-amz-json-1.0")
        .header(
            "authorization",
            &format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"),
        )
        .body(body.to_string())
        .send(address)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Runs a server until this process ends, which closes its standard input; its first line is its URL.
async fn started(command: &mut Command, why_not: &str) -> Option<String> {
    // Held for as long as the process lives.
    static SERVERS: std::sync::Mutex<Vec<Child>> = std::sync::Mutex::new(Vec::new());
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else { return cannot_run(why_not) };
    let stdout = tokio::process::ChildStdout::from_std(child.stdout.take().unwrap()).unwrap();
    let line = BufReader::new(stdout).lines().next_line().await.unwrap();
    SERVERS.lock().unwrap().push(child);
    line.or_else(|| cannot_run(why_not))
}

/// Nothing is skipped silently: in CI it fails.
fn cannot_run<T>(reason: &str) -> Option<T> {
    #[expect(clippy::disallowed_methods, reason = "an argument of the tests, not a setting")]
    let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!is_ci, "a check must not be skipped in CI: {reason}");
    println!("skipped: {reason}");
    None
}

/// A name that no other test of this or another run has.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test_{}_{:08x}_{}", std::process::id(), fastrand::u32(..), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A scratch folder, removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("math-service-{}", unique()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn keep(self) -> PathBuf {
        let path = self.0.clone();
        std::mem::forget(self);
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
