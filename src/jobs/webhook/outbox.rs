//! Messages that wait: tried, tried again ever later, and given up after a day.
//!
//! The outbox is a log of the store, in which a message stands at the time of its next attempt. Whoever watches a cluster
//! (one replica at a time) delivers its messages; a function does when its schedule comes round. An attempt whose outcome
//! could not be written is made again: receivers know a message by its id.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};

use super::{
    Webhooks,
    message::{self, Message, dead, waiting},
    sender::{Outcome, Sender},
    signature::Secrets,
};
use crate::{
    jobs::watch::Follow,
    problem::Problem,
    store::{
        ledger::{Ledger, kept_until},
        records::{Change, Query, Record},
    },
};

/// How often to look for messages whose time has come.
const LOOK: Duration = Duration::from_secs(2);

/// Messages that are sent at the same time: a receiver that hangs holds up few.
const AT_ONCE: usize = 16;

/// Messages that are taken at once.
const PAGE: u32 = 64;

/// The wait after the first attempt; doubled after each other.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// A message that could not be delivered for so long is given up.
pub const GIVEN_UP_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// So long it can be seen that it was.
pub const DEAD_LETTERS_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The messages of one cluster's Jobs.
#[derive(Clone)]
pub struct Outbox {
    /// The cluster.
    pub cluster: String,
    /// The store.
    pub ledger: Ledger,
    /// What is allowed at present.
    pub webhooks: Webhooks,
    /// How they are sent.
    pub sender: Sender,
}

impl Outbox {
    /// Puts a message in when a Job ends that has a webhook.
    #[must_use]
    pub fn follow(&self) -> Follow {
        let outbox = self.clone();
        Arc::new(move |event| {
            let record = message::of(event).map(|message| outbox.waiting(&message, event.now));
            record.and_then(Result::ok).map(Change::Put).into_iter().collect()
        })
    }

    /// Delivers what is due, for as long as it is let.
    pub async fn run(&self) {
        let mut was_well = true;
        loop {
            let outcome = self.deliver_due().await;
            if let Err(problem) = &outcome
                && was_well
            {
                let reason = problem.detail();
                tracing::warn!(cluster = self.cluster, reason, "Could not look for webhooks to deliver");
            }
            was_well = outcome.is_ok();
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Tries every message once whose time has come.
    ///
    /// # Errors
    /// 503 when the store does not answer.
    pub async fn deliver_due(&self) -> Result<(), Problem> {
        let now = self.ledger.now();
        let mut query = Query { to: now, ..Query::all(waiting(&self.cluster), PAGE, now / 1000) };
        loop {
            let page = self.ledger.read(query.clone()).await?;
            stream::iter(page.records).for_each_concurrent(AT_ONCE, |record| self.deliver(record)).await;
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(()),
            }
        }
    }

    async fn deliver(&self, record: Record) {
        let Ok(mut message) = serde_json::from_str::<Message>(&record.body) else {
            // Of another version, perhaps: it is for that one.
            tracing::error!(record = record.name.as_str(), "A message in the store makes no sense");
            return;
        };
        let outcome = self.attempt(&message).await;
        message.attempts = message.attempts.saturating_add(1);
        let change = match outcome {
            Outcome::Delivered => {
                tracing::info!(id = message.id, attempts = message.attempts, "Delivered a webhook");
                Ok(Change::Remove(record.name))
            }
            Outcome::Again(reason, wait) => self.again(message, reason, wait),
            Outcome::Never(reason) => self.give_up(message, reason),
        };
        let written = match change {
            Ok(change) => {
                self.ledger.change(vec![change]).await.map_err(|problem| problem.detail().to_owned())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = written {
            tracing::warn!(reason, "Could not write down what became of a webhook: it will be sent again");
        }
    }

    async fn attempt(&self, message: &Message) -> Outcome {
        // What was allowed when the Job was created may not be any more.
        let target = match self.webhooks.target(&message.url) {
            Ok(target) => target,
            Err(reason) => return Outcome::Never(format!("its URL {reason}")),
        };
        match self.secrets().await {
            Some(secrets) => self.sender.send(message, &target, &secrets, self.ledger.now() / 1000).await,
            None => Outcome::Again("there is no secret to sign it with".to_owned(), None),
        }
    }

    async fn secrets(&self) -> Option<Secrets> {
        let file = self.webhooks.secret.clone()?;
        let read = tokio::task::spawn_blocking(move || file.secrets()).await.ok()?;
        read.inspect_err(|reason| tracing::error!(reason, "Webhooks cannot be signed")).ok()
    }

    fn again(
        &self,
        message: Message,
        reason: String,
        asked: Option<Duration>,
    ) -> Result<Change, serde_json::Error> {
        let now = self.ledger.now();
        if now.saturating_sub(message.since) >= millis(GIVEN_UP_AFTER) {
            return self.give_up(message, reason);
        }
        let wait = wait(message.attempts, fastrand::f64()).max(asked.unwrap_or_default());
        let message = Message { reason: Some(reason), ..message };
        self.waiting(&message, now + millis(wait)).map(Change::Put)
    }

    /// A message that is due at `place`. It outlives its attempts, however short the history is kept: who could not be told
    /// must be found among the dead letters.
    fn waiting(&self, message: &Message, place: u64) -> Result<Record, serde_json::Error> {
        let keep_until = kept_until(message.since, GIVEN_UP_AFTER + DEAD_LETTERS_KEPT);
        message.record(waiting(&self.cluster), place, Some(keep_until))
    }

    fn give_up(&self, message: Message, reason: String) -> Result<Change, serde_json::Error> {
        let now = self.ledger.now();
        tracing::warn!(id = message.id, attempts = message.attempts, reason, "Gave up a webhook");
        let message = Message { reason: Some(reason), ..message };
        let keep_until = kept_until(now, DEAD_LETTERS_KEPT);
        message.record(dead(&self.cluster), now, Some(keep_until)).map(Change::Put)
    }
}

/// How long to wait after so many attempts: twice as long each time, and up to a half less, so that messages which failed
/// together do not come back together. `random` is from 0 to 1.
#[must_use]
pub fn wait(attempts: u32, random: f64) -> Duration {
    let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1));
    let longest = FIRST_WAIT.saturating_mul(doubled).min(LONGEST_WAIT);
    longest.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour_and_differ() {
        let seconds = |attempts, random| wait(attempts, random).as_secs_f64();
        for (attempts, longest) in
            [(1, 5.0), (2, 10.0), (3, 20.0), (10, 2560.0), (11, 3600.0), (4_000_000_000, 3600.0)]
        {
            assert_eq!(
                (seconds(attempts, 0.0), seconds(attempts, 1.0)),
                (longest, longest / 2.0),
                "{attempts}"
            );
        }
    }
}
