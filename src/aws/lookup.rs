//! Something that others know and that is asked for when it is needed: once for all who wait, and kept.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::task::JoinError;

use crate::auth::Clock;

/// The least time between two questions: whoever answers badly is not hammered.
pub const PAUSE: Duration = Duration::from_secs(5);

/// The last answer, and the question under way. Clones share them.
pub struct Lookup<T, E>(Arc<Inner<T, E>>);

impl<T, E> Clone for Lookup<T, E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<T, E> {
    clock: Clock,
    state: Mutex<State<T, E>>,
}

struct State<T, E> {
    known: Option<T>,
    /// When the last question was answered, and the error if it was.
    last: Option<(SystemTime, Option<E>)>,
    asking: Option<Asking<T, E>>,
}

/// A question under way: many may wait for the answer, and it goes on when none does.
type Asking<T, E> = Shared<BoxFuture<'static, Result<T, E>>>;

impl<T, E> Lookup<T, E>
where
    T: Clone + Send + Sync + 'static,
    E: Clone + From<JoinError> + Send + Sync + 'static,
{
    /// Nothing is known, and nobody asked, yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let state = State { known: None, last: None, asking: None };
        Self(Arc::new(Inner { clock, state: Mutex::new(state) }))
    }

    /// What is known if it is good, else the answer to `question`.
    ///
    /// # Errors
    /// The question's. Within [`PAUSE`] of the last answer nothing is asked, and that answer is given again, good or not.
    pub async fn get<Q>(&self, is_good: impl Fn(&T) -> bool, question: impl FnOnce() -> Q) -> Result<T, E>
    where
        Q: Future<Output = Result<T, E>> + Send + 'static,
    {
        let asking = {
            let mut state = self.0.state();
            if let Some(known) = state.known.as_ref().filter(|known| is_good(known)) {
                return Ok(known.clone());
            }
            // A question that was answered, or panicked, stays here until the next.
            match state.asking.as_ref().filter(|asking| asking.peek().is_none()) {
                Some(asking) => asking.clone(),
                None => match state.again((self.0.clock)()) {
                    Some(answer) => return answer,
                    None => state.asking.insert(self.ask(question())).clone(),
                },
            }
        };
        asking.await
    }

    /// What the last good answer was, however old.
    #[must_use]
    pub fn known(&self) -> Option<T> {
        self.0.state().known.clone()
    }

    /// Asks in a task of its own: a caller who goes away must not end it for the others.
    fn ask(&self, question: impl Future<Output = Result<T, E>> + Send + 'static) -> Asking<T, E> {
        let inner = self.0.clone();
        let task = tokio::spawn(async move {
            let answer = question.await;
            let mut state = inner.state();
            state.last = Some(((inner.clock)(), answer.as_ref().err().cloned()));
            if let Ok(new) = &answer {
                state.known = Some(new.clone());
            }
            answer
        });
        task.map(|ended| ended.unwrap_or_else(|panicked| Err(panicked.into()))).boxed().shared()
    }
}

impl<T, E> Inner<T, E> {
    fn state(&self) -> MutexGuard<'_, State<T, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone, E: Clone> State<T, E> {
    /// The last answer, if it is so recent that it must do.
    fn again(&self, now: SystemTime) -> Option<Result<T, E>> {
        let (at, error) = self.last.as_ref()?;
        // A clock that was set back tells nothing.
        now.duration_since(*at).ok().filter(|age| *age < PAUSE)?;
        match error {
            Some(error) => Some(Err(error.clone())),
            None => self.known.clone().map(Ok),
        }
    }
}
