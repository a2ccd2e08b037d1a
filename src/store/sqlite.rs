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

use rusqlite::{Connection, OptionalExtension, Row, ToSql, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::{
    Answer, Seconds, SequenceId, Step, Store, StoreError,
    records::{self, Change, Page, Query, Record, Records},
};

/// Changes to the schema, oldest first; `user_version` counts those that a file has seen.
const MIGRATIONS: [&str; 2] = [
    include_str!("../../migrations/sqlite/0001_sequences.sql"),
    include_str!("../../migrations/sqlite/0002_records.sql"),
];

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

impl Records for Sqlite {
    fn enter(&self, entry: Record, changes: Vec<Change>, now: Seconds) -> Answer<'_, bool> {
        if let Err(error) = records::check(Some(&entry), &changes) {
            return Box::pin(async { Err(error) });
        }
        self.call(true, move |connection| {
            let is_new = put(connection, &entry, Some(now))?;
            if is_new {
                changes.iter().try_for_each(|change| apply(connection, change))?;
            }
            Ok(is_new)
        })
    }

    fn change(&self, changes: Vec<Change>) -> Answer<'_, ()> {
        if let Err(error) = records::check(None, &changes) {
            return Box::pin(async { Err(error) });
        }
        self.call(true, move |connection| changes.iter().try_for_each(|change| apply(connection, change)))
    }

    fn read(&self, query: Query) -> Answer<'_, Page> {
        self.call(false, move |connection| read(connection, &query))
    }

    fn forget(&self, now: Seconds, at_most: u32) -> Answer<'_, u64> {
        self.call(true, move |connection| {
            let sql = "DELETE FROM records WHERE name IN
                (SELECT name FROM records WHERE expires_at <= ?1 LIMIT ?2)";
            Ok(connection.prepare_cached(sql)?.execute(params![signed(now), at_most])? as u64)
        })
    }
}

/// Whether it was written. With a time, one of its name stays, unless that has expired by then.
fn put(connection: &Connection, record: &Record, unless_kept_at: Option<Seconds>) -> rusqlite::Result<bool> {
    let sql = "INSERT INTO records AS known (name, log, place, namespace, caller, body, expires_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
        ON CONFLICT (name) DO UPDATE SET log = excluded.log, place = excluded.place, namespace = excluded.namespace,
            caller = excluded.caller, body = excluded.body, expires_at = excluded.expires_at
        WHERE known.expires_at <= ?8";
    let values = params![
        record.name.as_str(),
        record.log.as_str(),
        signed(record.place),
        record.namespace,
        record.caller,
        record.body,
        record.keep_until.map_or(NEVER, signed),
        unless_kept_at.map_or(NEVER, signed),
    ];
    Ok(connection.prepare_cached(sql)?.execute(values)? > 0)
}

fn apply(connection: &Connection, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::Put(record) => put(connection, record, None).map(drop),
        Change::Remove(name) => connection
            .prepare_cached("DELETE FROM records WHERE name = ?1")?
            .execute([name.as_str()])
            .map(drop),
    }
}

fn read(connection: &Connection, query: &Query) -> rusqlite::Result<Page> {
    let (beyond, order) = if query.newest_first { ("<", "DESC") } else { (">", "ASC") };
    let (log, limit) = (query.log.as_str(), query.limit.saturating_add(1));
    let (from, to, now) = (signed(query.from), signed(query.to), signed(query.now));
    let mut sql = "SELECT name, log, place, namespace, caller, body, expires_at FROM records
        WHERE log = ? AND place BETWEEN ? AND ? AND expires_at > ?"
        .to_owned();
    let mut values: Vec<&dyn ToSql> = vec![&log, &from, &to, &now];
    // Conditions on what was not asked for would keep SQLite from the index that fits.
    for (column, value) in [("namespace", &query.namespace), ("caller", &query.caller)] {
        if let Some(value) = value {
            sql.push_str(&format!(" AND {column} = ?"));
            values.push(value);
        }
    }
    let after = query.after.as_ref().map(|after| (signed(after.place), &after.name));
    if let Some((place, name)) = &after {
        sql.push_str(&format!(" AND (place, name) {beyond} (?, ?)"));
        values.extend([place as &dyn ToSql, name]);
    }
    sql.push_str(&format!(" ORDER BY place {order}, name {order} LIMIT ?"));
    values.push(&limit);
    let records =
        connection.prepare_cached(&sql)?.query_map(&*values, record)?.collect::<rusqlite::Result<_>>()?;
    Ok(Page::of(records, query.limit))
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let number = |index| row.get::<_, i64>(index).map(i64::unsigned_abs);
    let expires_at = row.get::<_, i64>(6)?;
    let keep_until = (expires_at != NEVER).then(|| expires_at.unsigned_abs());
    Ok(records::record(
        (row.get(0)?, row.get(1)?),
        number(2)?,
        (row.get(3)?, row.get(4)?),
        row.get(5)?,
        keep_until,
    ))
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
