//! One log line for each attempt to change something, whatever became of it.
//!
//! `{"event":"Audited","who":"ci","issuer":"AUTH_TOKENS_FILE","verb":"POST","route":"/api/v1/namespaces","path":"…",
//! "cluster":"…","namespace":"…","name":"…","uid":"…","status":201,"outcome":"done","request_id":"…",…}`
//!
//! The guard of a route ([`Access::guard`](super::access::Access::guard)) opens the attempt before it asks who is calling,
//! so refusals leave a line too. What the guard cannot know, the handler adds through [`Audit`]. A request that ends
//! without an answer (its client left, it took too long, it panicked) leaves a line whose outcome is `unknown`: what was
//! asked of Kubernetes may have happened.
//!
//! A copy of the line is kept in the store, where [`trail`](super::trail) shows it.
//!
//! `LOGLEVEL` does not apply to these lines. Room for the line is taken before the handler runs; where there is none,
//! because stdout is not read or fails, the request is refused with 503, and nothing changes unseen.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::{
    extract::FromRequestParts,
    http::{Method, StatusCode, request::Parts},
};

use super::{
    Subject,
    trail::{Entry, Keeping, Trail},
};
use crate::{
    problem::Problem,
    telemetry::{
        context,
        log::AUDIT,
        writer::{Room, Writer},
    },
};

/// The longest text of a caller's that a line repeats, in bytes.
const LONGEST_TEXT: usize = 256;

/// What a handler tells of the change that it was asked for; an extractor, on routes whose scope is one to write.
///
/// Say what is known as soon as it is: the line is written even if nothing more happens.
#[derive(Clone)]
pub struct Audit {
    request: Arc<Asked>,
    record: Arc<Mutex<Record>>,
}

/// What the guard knows of the request.
struct Asked {
    verb: Method,
    route: &'static str,
    path: String,
    logs: Option<Writer>,
}

#[derive(Default)]
struct Record {
    /// Where a copy is kept, of attempts that are.
    trail: Option<Trail>,
    item: Option<usize>,
    who: Option<Subject>,
    cluster: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
}

impl Audit {
    /// Which cluster.
    pub fn cluster(&self, cluster: &str) {
        self.record().cluster = Some(clipped(cluster));
    }

    /// Which namespace.
    pub fn namespace(&self, namespace: &str) {
        self.record().namespace = Some(clipped(namespace));
    }

    /// Which object; of a namespace itself, its own name.
    pub fn name(&self, name: &str) {
        self.record().name = Some(clipped(name));
    }

    /// Which of all objects that ever had this name.
    pub fn uid(&self, uid: &str) {
        self.record().uid = Some(clipped(uid));
    }

    /// A part of the request, counted from 0, with a line of its own.
    ///
    /// # Errors
    /// 503 when that line could not be written: then the part may not be begun.
    pub fn item(&self, index: usize) -> Result<Attempt, Problem> {
        let known = self.record();
        let record = Record {
            item: Some(index),
            trail: known.trail.clone(),
            who: known.who.clone(),
            cluster: known.cluster.clone(),
            namespace: known.namespace.clone(),
            ..Record::default()
        };
        drop(known);
        let audit = Self { request: self.request.clone(), record: Arc::new(Mutex::new(record)) };
        let mut attempt = Attempt { audit, room: None, status: None, is_over: false };
        attempt.take_room().map(|()| attempt)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Sync> FromRequestParts<S> for Audit {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(|| {
            tracing::error!("A handler that changes something has no route with a scope to write");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "this route is not audited")
        })
    }
}

/// One attempt; its line is written when it ends, and at the latest when it is dropped.
pub struct Attempt {
    audit: Audit,
    room: Option<Room>,
    status: Option<StatusCode>,
    is_over: bool,
}

impl Attempt {
    pub(super) fn begin(verb: Method, route: &'static str, path: &str, logs: Option<Writer>) -> Self {
        let request = Arc::new(Asked { verb, route, path: clipped(path), logs });
        Self { audit: Audit { request, record: Arc::default() }, room: None, status: None, is_over: false }
    }

    /// From now on, a copy of its line will be kept, and of those of its parts.
    pub(super) fn leaves(&mut self, trail: Option<Trail>) {
        self.audit.record().trail = trail;
    }

    /// What is told of it.
    #[must_use]
    pub fn audit(&self) -> Audit {
        self.audit.clone()
    }

    pub(super) fn is_by(&self, who: &Subject) {
        self.audit.record().who = Some(who.clone());
    }

    /// Makes sure that its line can be written.
    ///
    /// # Errors
    /// 503 when it cannot: then nothing may be changed.
    pub(super) fn take_room(&mut self) -> Result<(), Problem> {
        let Some(logs) = &self.audit.request.logs else { return Ok(()) };
        self.room = logs.reserve();
        if self.room.is_some() {
            return Ok(());
        }
        let detail = "nothing is changed at present: the audit log cannot be written";
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
            .retry_after(std::time::Duration::from_secs(1)))
    }

    pub(super) async fn end(self, status: StatusCode) {
        if let Some(keeping) = self.written(status) {
            keeping.wait().await;
        }
    }

    /// It has an answer: its line is written, and the copy on its way.
    pub fn written(mut self, status: StatusCode) -> Option<Keeping> {
        self.status = Some(status);
        self.write()
    }

    fn outcome(&self) -> &'static str {
        match self.status {
            Some(status) if status.is_success() => "done",
            Some(status) if status.is_client_error() => "refused",
            Some(_) => "failed",
            None => "unknown",
        }
    }
}

impl Attempt {
    /// The line, and its copy.
    fn write(&mut self) -> Option<Keeping> {
        if std::mem::replace(&mut self.is_over, true) {
            return None;
        }
        let Asked { verb, route, path, logs } = &*self.audit.request;
        if let (None, Some(logs)) = (&self.room, logs) {
            // It was refused before it had room, and may find some now. If not, nothing was changed and the loss is counted.
            self.room = logs.reserve_or_count();
            self.room.as_ref()?;
        }
        let record = self.audit.record();
        let client = context::with(|request| request.client).flatten();
        tracing::info!(
            target: AUDIT,
            who = record.who.as_ref().map(Subject::name),
            issuer = record.who.as_ref().map(Subject::issuer),
            client = client.map(tracing::field::display),
            verb = verb.as_str(),
            route,
            path,
            item = record.item,
            cluster = record.cluster,
            namespace = record.namespace,
            name = record.name,
            uid = record.uid,
            status = self.status.map(|status| status.as_u16()),
            outcome = self.outcome(),
            "Audited"
        );
        let (trail, who) = (record.trail.as_ref()?, record.who.as_ref()?);
        trail.keep(Entry {
            time: trail.now(),
            who: who.name().to_owned(),
            issuer: who.issuer().to_owned(),
            client: client.map(|client| client.to_string()),
            verb: verb.to_string(),
            route: (*route).to_owned(),
            path: path.clone(),
            item: record.item,
            cluster: record.cluster.clone(),
            namespace: record.namespace.clone(),
            name: record.name.clone(),
            uid: record.uid.clone(),
            status: self.status.map(|status| status.as_u16()),
            outcome: self.outcome().to_owned(),
            request_id: context::request_id(),
        })
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // Its copy is on its way, without anybody who waits.
        drop(self.write());
    }
}

/// Bounded, because the room for a line is.
fn clipped(text: &str) -> String {
    let end = text.floor_char_boundary(LONGEST_TEXT);
    text[..end].replace(char::is_control, "\u{fffd}")
}
