//! `AUTH_TOKENS_FILE`: tokens that were given out by hand, known by their SHA-256.
//!
//! One token a line, what belongs to it separated by spaces; `#` begins a comment:
//!
//! ```text
//! # SHA-256 of the token (64 hexadecimal digits)                  name        scopes                expires (optional)
//! 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 ci          jobs:read,jobs:write  2027-01-31T00:00:00Z
//! ```
//!
//! A name may have several tokens, so that an old one and its successor hold at once. The file is read again when it is
//! asked for a token and [`PAUSE`] went by: a mounted Secret changes without a restart. One that cannot be used then is
//! reported, and what it said before goes on to hold; at the start it stops the start. While one is being read, everybody
//! waits for that; and while that takes too long, nobody is let in, because nobody can tell what was removed.
//!
//! Tokens are looked up by their hash, so how long that takes tells nothing of them. Nothing of a line is ever repeated:
//! it may hold a token by mistake.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use tokio::{
    task::{JoinError, spawn_blocking},
    time::{Instant, timeout},
};

use super::{
    Clock,
    scope::{Scope, Scopes},
};

/// The least time between two looks at the file.
pub const PAUSE: Duration = Duration::from_secs(2);

/// Longest time that a request waits for the file.
const DEADLINE: Duration = Duration::from_secs(1);

/// The largest file, in bytes: what a Kubernetes Secret may hold.
const MAX_BYTES: u64 = 1024 * 1024;

/// Longest name, in characters.
const LONGEST_NAME: usize = 64;

type Hash = [u8; SHA256_OUTPUT_LEN];

/// The tokens of a file. Clones share them.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    path: PathBuf,
    read: Reader,
    clock: Clock,
    state: Mutex<State>,
}

/// How the file's content is had.
type Reader = Arc<dyn Fn(&Path) -> Result<Vec<u8>, String> + Send + Sync>;

struct State {
    table: Arc<Table>,
    /// What the last look found, usable or not: a hash of the content, or why there is none.
    seen: Result<Hash, String>,
    looked: Instant,
    look: Option<Look>,
}

/// A look at the file under way: many may wait for it, and it goes on when none does.
type Look = Shared<BoxFuture<'static, Result<(), Unsure>>>;

/// It cannot be told whether a token is good at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unsure;

type Table = HashMap<Hash, Entry>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: String,
    scopes: Scopes,
    expires: Option<SystemTime>,
}

/// What is known of a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing.
    Not,
    /// It was good once.
    Expired,
    /// Whose it is, and what they may do.
    Good(String, Scopes),
}

impl Tokens {
    /// Reads the file.
    ///
    /// # Errors
    /// One line that names the setting, the file, the number of the line, and what was expected there.
    pub fn load(path: &Path, clock: Clock) -> Result<Self, String> {
        Self::read_by(Arc::new(read), path, clock)
    }

    fn read_by(read: Reader, path: &Path, clock: Clock) -> Result<Self, String> {
        let content = read(path).and_then(|content| Ok((hash(&content), parse(&content)?)));
        let (seen, table) = content.map_err(|reason| described(path, &reason))?;
        let table = Arc::new(table);
        let state = State { table, seen: Ok(seen), looked: Instant::now(), look: None };
        Ok(Self(Arc::new(Inner { path: path.to_owned(), read, clock, state: Mutex::new(state) })))
    }

    /// What the file says of a token at present.
    ///
    /// # Errors
    /// When that takes longer than [`DEADLINE`].
    pub(super) async fn find(&self, token: &str) -> Result<Known, Unsure> {
        self.look_again().await?;
        let table = self.0.state().table.clone();
        Ok(match table.get(&hash(token.as_bytes())) {
            None => Known::Not,
            Some(entry) if entry.expires.is_some_and(|end| (self.0.clock)() >= end) => Known::Expired,
            Some(entry) => Known::Good(entry.name.clone(), entry.scopes),
        })
    }

    /// Looks if it is time to, and waits for whoever looks: a token that was removed an hour ago must not be good for one
    /// request more.
    async fn look_again(&self) -> Result<(), Unsure> {
        let look = {
            let mut state = self.0.state();
            // One that has ended takes itself away, unless it panicked.
            match state.look.as_ref().filter(|look| look.peek().is_none()) {
                Some(look) => look.clone(),
                None if state.looked.elapsed() < PAUSE => return Ok(()),
                None => state.look.insert(self.look()).clone(),
            }
        };
        timeout(DEADLINE, look).await.unwrap_or(Err(Unsure))
    }

    /// Looks in a task of its own: a caller who goes away must not end it for the others.
    fn look(&self) -> Look {
        let task = tokio::spawn(self.0.clone().look());
        task.map(|ended| ended.map_err(|_| Unsure)).boxed().shared()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(self: Arc<Self>) {
        let content = self.content().await;
        let content = content.unwrap_or_else(|_| Err("cannot be read: the process is ending".to_owned()));
        let seen = content.as_ref().map(|content| hash(content)).map_err(Clone::clone);
        let is_new = self.state().seen != seen;
        let table = is_new.then(|| content.and_then(|content| parse(&content)));
        match &table {
            Some(Ok(table)) => tracing::info!(tokens = table.len(), "Read AUTH_TOKENS_FILE again"),
            Some(Err(reason)) => {
                let error = described(&self.path, reason);
                tracing::error!(error, "Went on with the tokens as they were");
            }
            None => {}
        }
        let mut state = self.state();
        if let Some(Ok(table)) = table {
            state.table = Arc::new(table);
        }
        state.seen = seen;
        state.looked = Instant::now();
        state.look = None;
    }

    /// Reads the file, however long that takes: a second reader would only be stuck behind the first.
    async fn content(&self) -> Result<Result<Vec<u8>, String>, JoinError> {
        let (read, path) = (self.read.clone(), self.path.clone());
        let mut reading = spawn_blocking(move || read(&path));
        match timeout(DEADLINE, &mut reading).await {
            Ok(content) => content,
            Err(_) => {
                tracing::error!("Lets nobody in until AUTH_TOKENS_FILE has been read: it takes long");
                reading.await
            }
        }
    }
}

fn described(path: &Path, reason: &str) -> String {
    format!("AUTH_TOKENS_FILE={path:?}: {reason}")
}

fn hash(bytes: &[u8]) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// A pipe would be empty when it is read again, and may block for ever.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err("is no file".to_owned());
    }
    let mut content = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut content)).map_err(failed)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(format!("is larger than {MAX_BYTES} bytes"));
    }
    Ok(content)
}

fn parse(content: &[u8]) -> Result<Table, String> {
    let mut table = Table::new();
    for (number, line) in (1..).zip(content.split(|byte| *byte == b'\n')) {
        let line = str::from_utf8(line).map_err(|_| format!("line {number}: is not UTF-8"))?;
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        let (hash, entry) = entry(first, words).map_err(|reason| format!("line {number}: {reason}"))?;
        if table.insert(hash, entry).is_some() {
            return Err(format!("line {number}: an earlier line has the same token"));
        }
    }
    Ok(table)
}

fn entry<'a>(hash: &str, mut words: impl Iterator<Item = &'a str>) -> Result<(Hash, Entry), String> {
    let hash = hexadecimal(hash).ok_or("it must begin with the token's SHA-256, 64 hexadecimal digits")?;
    let name = words.next().filter(|name| is_name(name)).ok_or_else(|| {
        format!("behind the hash comes a name, of 1 to {LONGEST_NAME} characters A-Z a-z 0-9 . _ @ -")
    })?;
    let scopes = words.next().and_then(scopes).ok_or_else(|| {
        let names = Scope::ALL.map(Scope::name).join(", ");
        format!("behind the name come its scopes, with commas between them: {names}")
    })?;
    let expires = words.next().map(humantime::parse_rfc3339).transpose();
    let expires =
        expires.map_err(|_| "behind the scopes comes at most an end, such as 2027-01-31T00:00:00Z")?;
    if words.next().is_some() {
        return Err("there is something behind the end".to_owned());
    }
    Ok((hash, Entry { name: name.to_owned(), scopes, expires }))
}

fn hexadecimal(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if text.len() != 2 * hash.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(hash)
}

fn is_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte))
}

/// A name that is no scope is a mistake here: nobody else reads this file.
fn scopes(text: &str) -> Option<Scopes> {
    text.split(',').map(Scope::named).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use axum::{body::Body, extract::Request, routing::get};
    use tower::ServiceExt;

    use super::*;
    use crate::auth::{access::Access, limit::Rate};

    /// `printf %s hello | sha256sum`
    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    /// A file whose content comes when the test says so, read once at the start; and how often it was read.
    fn file(first: &str) -> (mpsc::Sender<String>, Tokens, Arc<AtomicUsize>) {
        let (write, written) = mpsc::channel();
        let written = Mutex::new(written);
        let reads = Arc::new(AtomicUsize::new(0));
        let count = reads.clone();
        let read: Reader = Arc::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            let content: Result<String, _> = written.lock().unwrap().recv();
            content.map(String::into_bytes).map_err(|_| "the test is over".to_owned())
        });
        write.send(first.to_owned()).unwrap();
        let tokens = Tokens::read_by(read, Path::new("tokens"), Arc::new(SystemTime::now)).unwrap();
        (write, tokens, reads)
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_come_while_the_file_is_read_wait_for_what_it_says_now() {
        let (write, tokens, _) = file(&format!("{HELLO} ci jobs:read"));
        assert!(matches!(tokens.find("hello").await, Ok(Known::Good(..))));
        tokio::time::advance(PAUSE).await;
        // The first one leaves at once.
        assert_eq!(tokens.find("hello").now_or_never(), None);
        let written = async {
            tokio::task::yield_now().await;
            write.send("# nobody".to_owned()).unwrap();
        };
        let (second, third, ()) = tokio::join!(tokens.find("hello"), tokens.find("hello"), written);
        assert_eq!((second, third), (Ok(Known::Not), Ok(Known::Not)), "it was removed before they came");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_let_in_while_the_file_takes_too_long_and_one_thread_waits_for_it() {
        let (write, tokens, reads) = file(&format!("{HELLO} ci jobs:read"));
        tokio::time::advance(PAUSE).await;
        for _ in 0..3 {
            let (first, second, ()) =
                tokio::join!(tokens.find("hello"), tokens.find("other"), tokio::time::advance(DEADLINE));
            assert_eq!((first, second), (Err(Unsure), Err(Unsure)));
            tokio::time::advance(10 * PAUSE).await;
        }
        let access = Access::new(Some(tokens.clone()), None, Rate::parse("1/s").unwrap(), None, None);
        let routes = access.guard([("/api/v1/a", Scope::JobsRead, get(async || "in"))]).into_routes();
        let request = Request::get("/api/v1/a").header("authorization", "Bearer hello");
        let asked = routes[0].1.clone().oneshot(request.body(Body::empty()).unwrap());
        let (refused, ()) = tokio::join!(asked, tokio::time::advance(DEADLINE));
        let refused = refused.unwrap();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["retry-after"]),
            (503, &"2".parse().unwrap())
        );

        write.send(format!("{HELLO} again jobs:read")).unwrap();
        let expected = Known::Good("again".to_owned(), Scopes::among(["jobs:read"]));
        assert_eq!(tokens.find("hello").await, Ok(expected));
        assert_eq!(reads.load(Ordering::Relaxed), 2, "at the start, and since then");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_ended_when_nobody_waited_any_more_is_not_believed_later() {
        let (write, tokens, _) = file(&format!("{HELLO} ci jobs:read"));
        tokio::time::advance(PAUSE).await;
        assert_eq!(tokens.find("hello").now_or_never(), None);
        write.send(format!("{HELLO} ci jobs:read")).unwrap();
        while tokens.0.state().look.is_some() {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(PAUSE).await;
        write.send("# nobody".to_owned()).unwrap();
        assert_eq!(tokens.find("hello").await, Ok(Known::Not));
    }

    #[test]
    fn a_line_is_a_hash_a_name_scopes_and_perhaps_an_end() {
        let content = format!(
            "# a comment\n\n  {HELLO}\tci  jobs:read,jobs:write  2027-01-31T00:00:00Z # until then\r\n{} ci@example.com namespaces:write",
            "AB".repeat(32)
        );
        let table = parse(content.as_bytes()).unwrap();
        assert_eq!(table.len(), 2);
        let expected = Entry {
            name: "ci".to_owned(),
            scopes: Scopes::among(["jobs:read", "jobs:write"]),
            expires: Some(humantime::parse_rfc3339("2027-01-31T00:00:00Z").unwrap()),
        };
        assert_eq!(table[&hash(b"hello")], expected);
        assert_eq!(table[&[0xab; 32]].name, "ci@example.com");
        assert_eq!(parse(b"").unwrap().len(), 0, "nobody may call");
        assert_eq!(parse(b"# nobody\n").unwrap().len(), 0);
    }

    #[test]
    fn a_bad_line_is_named_by_its_number_and_never_repeated() {
        let long = "n".repeat(LONGEST_NAME + 1);
        for (line, reason) in [
            ("hunter2 ci jobs:read", "SHA-256, 64 hexadecimal digits"),
            (&HELLO[1..], "SHA-256, 64 hexadecimal digits"),
            (&HELLO.replace('2', "g"), "SHA-256, 64 hexadecimal digits"),
            (&HELLO.replace("2c", "\u{e9}"), "SHA-256, 64 hexadecimal digits"),
            (HELLO, "a name"),
            (&format!("{HELLO} hunter2/ jobs:read"), "a name"),
            (&format!("{HELLO} {long} jobs:read"), "a name"),
            (&format!("{HELLO} hunter2"), "its scopes"),
            (&format!("{HELLO} ci jobs:read,hunter2"), "its scopes"),
            (&format!("{HELLO} ci jobs:read, jobs:write"), "its scopes"),
            (&format!("{HELLO} ci jobs:read hunter2"), "an end"),
            (&format!("{HELLO} ci jobs:read 2027-02-30T00:00:00Z"), "an end"),
            (&format!("{HELLO} ci jobs:read 2027-01-31"), "an end"),
            (&format!("{HELLO} ci jobs:read 2027-01-31T00:00:00Z hunter2"), "behind the end"),
        ] {
            let error = parse(format!("# first\n\n{line}\n").as_bytes()).unwrap_err();
            assert!(error.starts_with("line 3: ") && error.contains(reason), "{line}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let twice = format!("{HELLO} a jobs:read\n{} b jobs:write\n", HELLO.to_uppercase());
        assert_eq!(parse(twice.as_bytes()).unwrap_err(), "line 2: an earlier line has the same token");
        assert_eq!(parse(b"\n\xff").unwrap_err(), "line 2: is not UTF-8");
    }
}
