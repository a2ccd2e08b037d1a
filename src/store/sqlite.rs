//! The embedded default: a SQLite file, for any number of processes on one machine.
//!
//! One thread owns the connection. Calls that wait for it are committed together, so that one flush
//! to the disk serves all of them; a call whose caller has gone is not begun. Commits are flushed
//! (`synchronous=FULL`): an index that was answered stays given even when the power fails.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::{Answer, Seconds, SequenceId, Step, Store, StoreError};

/// Changes to the schema, oldest first; `user_version` counts those that a file has seen.
const MIGRATIONS: [&str; 1] = [include_str!("../../migrations/sqlite/0001_sequences.sql")];

/// Calls that may wait for the thread; more wait to be let in.
const QUEUE: usize = 1024;

/// Most calls in one commit.
const BATCH: usize = 64;

/// How often a lock that another process holds is tried again, and the pause between two tries: a
/// little less than a caller waits.
const BUSY_TRIES: i32 = 1200;
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// Stands for "never"; databases have no number above it.
const NEVER: i64 = i64::MAX;

/// A SQLite file.
pub struct Sqlite {
    jobs: mpsc::Sender<Box<dyn Job>>,
}

impl Sqlite {
    /// The file at `path`, which the first call opens and, if need be, creates with its folder.
    ///
    /// # Errors
    /// When the system refuses the thread.
    pub fn open(path: PathBuf) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        std::thread::Builder::new().name("sqlite".to_owned()).spawn(move || drive(&path, queue))?;
        Ok(Self { jobs })
    }

    fn call<T: Send + 'static>(
        &self,
        writes: bool,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<'_, T> {
        let (reply, answer) = oneshot::channel();
        let call = Box::new(Call { writes, work: Some(work), value: None, reply });
        Box::pin(async move {
            self.jobs.send(call).await.map_err(|_| StoreError::new("the thread has ended"))?;
            answer.await.map_err(StoreError::new)?
        })
    }
}

impl Store for Sqlite {
    fn next(&self, step: Step) -> Answer<'_, Option<u64>> {
        self.call(true, move |connection| next(connection, &step))
    }

    fn current(&self, sequence: SequenceId, now: Seconds) -> Answer<'_, Option<u64>> {
        self.call(false, move |connection| {
            let sql = "SELECT last_index FROM fibonacci_sequences WHERE sequence = ?1 AND expires_at > ?2";
            index(connection, sql, params![sequence.as_str(), signed(now)])
        })
    }

    fn reset(&self, sequence: SequenceId) -> Answer<'_, ()> {
        self.call(true, move |connection| {
            let sql = "DELETE FROM fibonacci_sequences WHERE sequence = ?1";
            connection.prepare_cached(sql)?.execute([sequence.as_str()]).map(drop)
        })
    }

    fn remove_expired(&self, now: Seconds, at_most: u32) -> Answer<'_, u64> {
        self.call(true, move |connection| {
            let sequences = "DELETE FROM fibonacci_sequences WHERE sequence IN
                (SELECT sequence FROM fibonacci_sequences WHERE expires_at <= ?1 LIMIT ?2)";
            let retries = "DELETE FROM fibonacci_retries WHERE retry IN
                (SELECT retry FROM fibonacci_retries WHERE expires_at <= ?1 LIMIT ?2)";
            [sequences, retries].into_iter().try_fold(0, |removed, sql| {
                Ok(removed + connection.prepare_cached(sql)?.execute(params![signed(now), at_most])? as u64)
            })
        })
    }
}

fn next(connection: &Connection, step: &Step) -> rusqlite::Result<Option<u64>> {
    let now = signed(step.now);
    if let Some(retry) = &step.retry {
        let sql = "SELECT given_index FROM fibonacci_retries WHERE retry = ?1 AND expires_at > ?2";
        if let Some(given) = index(connection, sql, params![retry.as_str(), now])? {
            return Ok(Some(given));
        }
    }
    let sql = "INSERT INTO fibonacci_sequences AS known (sequence, last_index, expires_at) VALUES (?1, 0, ?4)
        ON CONFLICT (sequence) DO UPDATE SET
            last_index = CASE WHEN known.expires_at <= ?3 THEN 0 ELSE known.last_index + 1 END,
            expires_at = excluded.expires_at
        WHERE known.expires_at <= ?3 OR known.last_index < ?2
        RETURNING last_index";
    let keep_until = step.keep_until.map_or(NEVER, signed);
    let given =
        index(connection, sql, params![step.sequence.as_str(), signed(step.max_index), now, keep_until])?;
    if let (Some(retry), Some(given)) = (&step.retry, given) {
        let sql =
            "INSERT OR REPLACE INTO fibonacci_retries (retry, given_index, expires_at) VALUES (?1, ?2, ?3)";
        let values = params![retry.as_str(), signed(given), signed(step.retry_until)];
        connection.prepare_cached(sql)?.execute(values)?;
    }
    Ok(given)
}

fn index(connection: &Connection, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<Option<u64>> {
    let given: Option<i64> =
        connection.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()?;
    Ok(given.map(i64::unsigned_abs))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(NEVER)
}

/// A call on its way through the thread.
trait Job: Send {
    fn is_abandoned(&self) -> bool;
    fn writes(&self) -> bool;
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    fn finish(self: Box<Self>, committed: Result<(), Arc<rusqlite::Error>>);
}

struct Call<T, F> {
    writes: bool,
    work: Option<F>,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, F: FnOnce(&Connection) -> rusqlite::Result<T> + Send> Job for Call<T, F> {
    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn writes(&self) -> bool {
        self.writes
    }

    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.value = self.work.take().map(|work| work(connection)).transpose()?;
        Ok(())
    }

    fn finish(self: Box<Self>, committed: Result<(), Arc<rusqlite::Error>>) {
        let answer = match (committed, self.value) {
            (Ok(()), Some(value)) => Ok(value),
            (Ok(()), None) => Err(StoreError::new("the call was not made")),
            (Err(error), _) => Err(StoreError::new(error)),
        };
        // Nobody may be waiting any more.
        let _ = self.reply.send(answer);
    }
}

/// The thread: everything that waits, in one transaction, again and again until the store is dropped.
fn drive(path: &Path, mut queue: mpsc::Receiver<Box<dyn Job>>) {
    let mut connection = None;
    let mut batch = Vec::with_capacity(BATCH);
    while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
        batch.retain(|job| !job.is_abandoned());
        let committed = commit(&mut connection, path, &mut batch).map_err(Arc::new);
        if committed.is_err() {
            // Whatever went wrong, with the disk or with the file, the next call starts afresh.
            connection = None;
        }
        for job in batch.drain(..) {
            job.finish(committed.clone());
        }
    }
}

fn commit(
    connection: &mut Option<Connection>,
    path: &Path,
    batch: &mut [Box<dyn Job>],
) -> rusqlite::Result<()> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(connect(path)?),
    };
    // A transaction that will write takes its lock at the start: none has to be given up halfway.
    let behaviour = match batch.iter().any(|job| job.writes()) {
        true => TransactionBehavior::Immediate,
        false => TransactionBehavior::Deferred,
    };
    let transaction = connection.transaction_with_behavior(behaviour)?;
    batch.iter_mut().try_for_each(|job| job.run(&transaction))?;
    transaction.commit()
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    if let Some(folder) = path.parent() {
        // What is wrong with the folder shows when the file is opened.
        let _ = std::fs::create_dir_all(folder);
    }
    let mut connection = Connection::open(path)?;
    connection.busy_handler(Some(|tries| {
        std::thread::sleep(BUSY_PAUSE);
        tries < BUSY_TRIES
    }))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// Under the file's own write lock: of several processes that start together, one changes the schema.
fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let seen = |connection: &Connection| -> rusqlite::Result<usize> {
        connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).map(|n| n as usize)
    };
    if seen(connection)? >= MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for migration in MIGRATIONS.iter().skip(seen(&transaction)?) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    transaction.commit()
}
