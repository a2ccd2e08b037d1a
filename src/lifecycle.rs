//! From starting to drained: which phase the process is in, and who waits for the next.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Poll, Waker},
};

use tokio::sync::Notify;

/// The phases of a process, in order. None is ever returned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Not ready for requests yet.
    Starting,
    /// Serving.
    Ready,
    /// Asked to stop: readiness fails, requests are still answered.
    Draining,
    /// Out of time: what is still running answers 503.
    Cut,
}

/// A handle on the phase, shared by the listener, the routes and the health checks.
#[derive(Debug, Clone)]
pub struct Lifecycle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    phase: AtomicU8,
    changed: Notify,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self(Arc::new(Shared { phase: AtomicU8::new(Phase::Starting as u8), changed: Notify::new() }))
    }
}

impl Lifecycle {
    /// Moves on to `phase`; moving back is ignored.
    pub fn advance(&self, phase: Phase) {
        self.0.phase.fetch_max(phase as u8, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }

    /// Whether the process is ready for requests and not yet asked to stop.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.current() == Phase::Ready as u8
    }

    /// Whether `phase` has been reached or passed.
    #[must_use]
    pub fn has_reached(&self, phase: Phase) -> bool {
        self.current() >= phase as u8
    }

    /// Waits until `phase` is reached or passed.
    pub fn reached(&self, phase: Phase) -> impl Future<Output = ()> + '_ {
        let mut waiting = Box::pin(self.wait_for(phase));
        let mut asked: Option<(u8, Waker)> = None;
        poll_fn(move |cx| {
            // Asking takes a lock that all connections share, and each is polled at every request: once
            // is enough for as long as nothing has changed.
            let now = self.current();
            if asked.as_ref().is_some_and(|(then, waker)| *then == now && waker.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            asked = Some((now, cx.waker().clone()));
            waiting.as_mut().poll(cx)
        })
    }

    async fn wait_for(&self, phase: Phase) {
        loop {
            // Created before the check, so that a change between the two is not missed.
            let changed = self.0.changed.notified();
            if self.has_reached(phase) {
                return;
            }
            changed.await;
        }
    }

    fn current(&self) -> u8 {
        self.0.phase.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_phase_is_never_left_for_an_earlier_one() {
        let lifecycle = Lifecycle::default();
        assert!(!lifecycle.is_ready());
        lifecycle.advance(Phase::Ready);
        assert!(lifecycle.is_ready());
        lifecycle.advance(Phase::Draining);
        lifecycle.advance(Phase::Ready);
        assert!(!lifecycle.is_ready());
        lifecycle.reached(Phase::Draining).await;
    }

    #[tokio::test]
    async fn those_who_wait_are_woken() {
        let lifecycle = Lifecycle::default();
        let waiting = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { lifecycle.reached(Phase::Cut).await }
        });
        tokio::task::yield_now().await;
        lifecycle.advance(Phase::Draining);
        lifecycle.advance(Phase::Cut);
        waiting.await.unwrap();
    }
}
