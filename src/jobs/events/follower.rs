//! Who follows a Job, and how far each has come.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::{sync::watch, task::JoinHandle};

use super::told::{End, Id, News, Told};

/// The Jobs that somebody follows, by cluster, namespace and name. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Followed(Arc<Mutex<HashMap<[String; 3], Weak<Following>>>>);

impl Followed {
    pub(super) fn join(&self, key: &[String; 3], since: Option<&Id>) -> Option<Follower> {
        let following = self.map().get(key)?.upgrade()?;
        let next = following.told.after(since)?;
        Some(Follower::new(following, next))
    }

    pub(super) fn add(&self, key: [String; 3], following: &Arc<Following>) {
        let mut map = self.map();
        map.retain(|_, following| following.strong_count() > 0);
        map.insert(key, Arc::downgrade(following));
    }

    fn map(&self) -> MutexGuard<'_, HashMap<[String; 3], Weak<Following>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows a Job for as long as anybody has it.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) told: Told,
    pub(super) task: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One who follows a Job, and how far that one has come.
pub(super) struct Follower {
    following: Arc<Following>,
    next: u64,
    woken: watch::Receiver<()>,
}

impl Follower {
    pub(super) fn new(following: Arc<Following>, next: u64) -> Self {
        let woken = following.told.subscribe();
        Self { following, next, woken }
    }

    /// Whether the Job is known to have ended: then there is no change to wait for.
    pub(super) fn is_about_to_end(&self) -> bool {
        self.following.told.is_about_to_end()
    }

    /// What there is now, if there is anything.
    pub(super) fn ready(&mut self) -> Option<News> {
        self.following.told.take(&mut self.next)
    }

    /// What comes next. May be dropped and called again: nothing is lost.
    pub(super) async fn next(&mut self) -> News {
        loop {
            self.woken.borrow_and_update();
            if let Some(news) = self.ready() {
                return news;
            }
            if self.woken.changed().await.is_err() {
                return News::End(End::Gone);
            }
        }
    }
}
