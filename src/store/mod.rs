//! The shared state: where each caller's sequence stands, and what happened; two ports, and an adapter for each database.
//!
//! - [`Store`] is the port to sequences, [`records::Records`] the one to what happened; their documentation is the
//!   contract that `tests/api/contract.rs` and `tests/api/records.rs` hold every adapter to.
//! - [`state::State`] is what the rest of the service sees of the first: deadlines, expiry, health; [`ledger::Ledger`] of
//!   the second.
//! - `sqlite`, `postgres` and `dynamodb` are the adapters, each behind the feature of its name.

#[cfg(feature = "dynamodb")]
pub mod dynamodb;
pub mod ledger;
pub mod location;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres", feature = "dynamodb")),
    expect(dead_code, reason = "the adapters call what is not used then")
)]
pub mod records;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod state;

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use ring::digest::{Context, SHA256};

use self::records::Records;
use crate::{config::Config, store::location::Location};

/// A moment in whole seconds since 1970. It is passed in: stores have no clock of their own, so all
/// of them expire things alike, and tests make time pass.
pub type Seconds = u64;

/// What a store answers, in time.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Where sequences stand, shared by every process that opens the same one.
///
/// A sequence that was never stepped, was reset, or has expired, *has not begun*. One that has begun
/// stands at the last index that was given. Every method is atomic: any number of processes may call
/// any of them at once, and the outcome is that of some order of the calls. A call that answered is
/// durable. A call that failed, or whose future was dropped, may or may not have had its effect.
pub trait Store: Send + Sync + 'static {
    /// Gives the next index: 0 when the sequence has not begun, else one more than where it stands.
    /// From then on it stands there, until [`Step::keep_until`].
    ///
    /// - `None`, and nothing changes, when that index would exceed [`Step::max_index`].
    /// - With a [`Step::retry`] for which an index was given before and is still remembered, that
    ///   index is the answer, and nothing changes. Else the index given is remembered until
    ///   [`Step::retry_until`], together with the step or not at all.
    fn next(&self, step: Step) -> Answer<'_, Option<u64>>;

    /// Where the sequence stands at `now`; `None` when it has not begun.
    fn current(&self, sequence: SequenceId, now: Seconds) -> Answer<'_, Option<u64>>;

    /// From now on the sequence has not begun. What is remembered for retries stays: a retry of an
    /// old step is still that step.
    fn reset(&self, sequence: SequenceId) -> Answer<'_, ()>;

    /// Removes at most `at_most` sequences and as many retries that have expired at `now`, and says
    /// how many. What has expired counts as absent, removed or not.
    fn remove_expired(&self, now: Seconds, at_most: u32) -> Answer<'_, u64>;
}

/// What every adapter is: both ports of one database.
pub trait Database: Store + Records {}

impl<T: Store + Records> Database for T {}

/// One call of [`Store::next`].
#[derive(Debug, Clone)]
pub struct Step {
    /// Whose turn it is.
    pub sequence: SequenceId,
    /// Names the call, so that it can be repeated.
    pub retry: Option<RetryId>,
    /// The last index that may be given.
    pub max_index: u64,
    /// The present moment.
    pub now: Seconds,
    /// When the sequence expires unless it is stepped again; `None` for never.
    pub keep_until: Option<Seconds>,
    /// When the retry is forgotten.
    pub retry_until: Seconds,
}

/// A sequence as stores know it: a namespace and a SHA-256. Whoever reads the database learns no key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SequenceId(String);

/// A call that may be repeated: a SHA-256 over its sequence and the caller's name for it, so that the
/// same name in another sequence is another call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RetryId(String);

impl SequenceId {
    /// The sequence of whoever has this session key.
    #[must_use]
    pub fn of_session(key: &str) -> Self {
        Self(format!("session/{}", digest(&[key])))
    }

    /// The sequence of a signed-in caller. No session key leads here: the namespace is another.
    #[must_use]
    pub fn of_subject(issuer: &str, subject: &str) -> Self {
        Self(format!("subject/{}", digest(&[issuer, subject])))
    }

    /// A sequence of nobody, which health checks step.
    #[must_use]
    pub fn of_probe() -> Self {
        Self("probe/health".to_owned())
    }

    /// The name of a call within this sequence.
    #[must_use]
    pub fn retry(&self, idempotency_key: &str) -> RetryId {
        RetryId(format!("retry/{}", digest(&[&self.0, idempotency_key])))
    }

    /// As stores write it: ASCII, at most 80 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl RetryId {
    /// As stores write it: ASCII, at most 80 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// SHA-256 in hexadecimal. Each part is preceded by its length: no two lists of parts are hashed alike.
fn digest(parts: &[&str]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    hex(context.finish().as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
        text
    })
}

/// Why a store did not answer: for the log, never for a client.
#[derive(Debug)]
pub struct StoreError(Box<dyn std::error::Error + Send + Sync>);

impl StoreError {
    /// An error of the database or of the way to it.
    pub fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the state store failed")
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

/// The store that the settings name; nothing is connected or created before its first call.
///
/// # Errors
/// When this build does not carry that store, or the system refuses what it needs to begin with.
pub fn open(config: &Config) -> Result<Arc<dyn Database>, StoreError> {
    let location: &Location = &config.state_url;
    match location {
        #[cfg(feature = "sqlite")]
        Location::Sqlite(path) => Ok(Arc::new(sqlite::Sqlite::open(path.clone()).map_err(StoreError::new)?)),
        #[cfg(feature = "postgres")]
        Location::Postgres(server) => {
            Ok(Arc::new(postgres::Postgres::open(server, config.state_connections)?))
        }
        #[cfg(feature = "dynamodb")]
        Location::Dynamodb(table) => {
            Ok(Arc::new(dynamodb::Dynamodb::open(table, config.aws.region.as_deref())?))
        }
        #[cfg(not(all(feature = "sqlite", feature = "postgres", feature = "dynamodb")))]
        other => Err(StoreError::new(format!("this build has no {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_session_key_is_a_subjects_sequence() {
        let subject = SequenceId::of_subject("https://issuer.example", "alice");
        for key in ["https://issuer.examplealice", "alice", subject.as_str()] {
            assert_ne!(SequenceId::of_session(key), subject);
        }
        assert_ne!(SequenceId::of_subject("a", "bc"), SequenceId::of_subject("ab", "c"));
    }

    #[test]
    fn ids_reveal_nothing_and_are_the_same_everywhere() {
        let id = SequenceId::of_session("0123456789abcdef0123456789abcdef");
        assert_eq!(
            id.as_str(),
            // printf '\0\0\0\0\0\0\0\x200123456789abcdef0123456789abcdef' | sha256sum
            "session/5edf748ffab3d45585ba93672c4b173ed7c60edbed85d62f8f677912b86f95a2"
        );
        assert_ne!(id.retry("1"), SequenceId::of_session("another").retry("1"));
    }
}
