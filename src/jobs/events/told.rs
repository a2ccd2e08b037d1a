//! What was told of a Job, and what each change is called.
//!
//! An id is `revision-hash`: the newest revision of the cluster's that went into the change, and what it says. From the
//! revision, another replica, or a function that knows nothing, finds out what the caller missed: Kubernetes lists the past
//! exactly (`resourceVersionMatch=Exact`) and tells what happened since, for as long as it remembers (some minutes). From
//! the hash it knows whether the caller has the present already.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ring::digest::{SHA256, digest};
use tokio::sync::watch;

/// Changes that are kept for those who come back or are slow.
const KEPT: usize = 64;

/// Digits of a hash.
const HASH: usize = 16;

/// A change's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) revision: u64,
    hash: String,
}

impl Id {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (revision, hash) = text.split_once('-')?;
        let is_hash = hash.len() == HASH && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let revision = revision.parse().ok().filter(|revision| *revision > 0 && is_hash)?;
        Some(Self { revision, hash: hash.to_owned() })
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.revision, self.hash)
    }
}

/// How the Job was at some moment.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) id: Id,
    /// The document, in one line.
    pub(super) data: Arc<str>,
    /// Whether the Job has ended with it.
    pub(super) is_last: bool,
}

impl Change {
    pub(super) fn new(revision: u64, data: String, is_last: bool) -> Self {
        let digest = digest(&SHA256, data.as_bytes());
        let hash = digest.as_ref().iter().take(HASH / 2).map(|byte| format!("{byte:02x}")).collect();
        Self { id: Id { revision, hash }, data: data.into(), is_last }
    }
}

/// Why there is nothing more to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It succeeded or failed.
    Finished,
    /// There is no such Job any more.
    Gone,
}

/// What a follower gets next.
#[derive(Debug)]
pub(super) enum News {
    Change(Change),
    End(End),
}

/// A Job's latest changes, numbered. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Told(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    history: Mutex<History>,
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct History {
    /// The number of the first that is kept.
    first: u64,
    /// Never empty.
    changes: VecDeque<Change>,
    end: Option<End>,
}

impl Told {
    pub(super) fn new(change: Change) -> Self {
        let history = History { first: 0, changes: [change].into(), end: None };
        Self(Arc::new(Shared { history: Mutex::new(history), news: watch::Sender::new(()) }))
    }

    /// Tells how the Job is, unless that is what was told last.
    pub(super) fn tell(&self, change: Change) {
        let mut history = self.history();
        if history.ends_with(&change.id) {
            return;
        }
        history.changes.push_back(change);
        if history.changes.len() > KEPT {
            history.changes.pop_front();
            history.first += 1;
        }
        drop(history);
        self.0.news.send_replace(());
    }

    pub(super) fn end(&self, end: End) {
        self.history().end = Some(end);
        self.0.news.send_replace(());
    }

    /// Wakes whoever waits for news.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.0.news.subscribe()
    }

    /// The number of the first change that somebody who has `id` has not seen. `None` when that lies too far back, and where
    /// all was told: of a Job that took the name since, nothing is known here.
    pub(super) fn after(&self, id: Option<&Id>) -> Option<u64> {
        let history = self.history();
        if history.end.is_some() { None } else { history.after(id) }
    }

    /// Whether what was told last says the same as `id`.
    pub(super) fn ends_with(&self, id: &Id) -> bool {
        self.history().ends_with(id)
    }

    /// Whether the Job is known to have ended: then there is no change to wait for.
    pub(super) fn is_about_to_end(&self) -> bool {
        let history = self.history();
        history.end.is_some() || history.changes.back().is_some_and(|change| change.is_last)
    }

    /// What there is now for somebody who has come as far as `next`, which moves on.
    pub(super) fn take(&self, next: &mut u64) -> Option<News> {
        let history = self.history();
        // Whoever is slower than changes are forgotten goes on with the oldest.
        let at = (*next).max(history.first);
        match history.changes.get(usize::try_from(at - history.first).unwrap_or(usize::MAX)) {
            Some(change) => {
                *next = at + 1;
                Some(News::Change(change.clone()))
            }
            None => history.end.map(News::End),
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    fn ends_with(&self, id: &Id) -> bool {
        self.changes.back().is_some_and(|last| last.id.hash == id.hash)
    }

    fn after(&self, id: Option<&Id>) -> Option<u64> {
        let last = self.first + self.changes.len().saturating_sub(1) as u64;
        let Some(id) = id else { return Some(last) };
        let number = |at: usize| self.first + at as u64;
        if let Some(at) = self.changes.iter().position(|change| change.id == *id) {
            return Some(number(at) + 1);
        }
        if self.changes.front().is_none_or(|oldest| oldest.id.revision > id.revision) {
            return None;
        }
        let later = self.changes.iter().position(|change| change.id.revision > id.revision);
        Some(later.map_or(last, number))
    }
}
