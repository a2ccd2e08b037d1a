//! The statement behind `POST /fibonacci/next` on SQLite, one after the other and nothing around it: each
//! is a transaction of its own, flushed to the disk. Prints steps a second, after `WARM_UP` seconds.

use std::{
    error::Error,
    io::Write,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};

/// As in the service's adapter; a test of the runner compares the two.
const NEXT: &str =
    "INSERT INTO fibonacci_sequences AS known (sequence, last_index, expires_at) VALUES (?1, 0, ?4)
        ON CONFLICT (sequence) DO UPDATE SET
            last_index = CASE WHEN known.expires_at <= ?3 THEN 0 ELSE known.last_index + 1 END,
            expires_at = excluded.expires_at
        WHERE known.expires_at <= ?3 OR known.last_index < ?2
        RETURNING last_index";

/// Any two moments, the second after the first: no sequence expires meanwhile.
const NOW: i64 = 1_000_000;
const KEEP_UNTIL: i64 = 2_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let variable = |name: &str| std::env::var(name).map_err(|error| format!("{name}: {error}"));
    let clients: usize = variable("CLIENTS")?.parse()?;
    let warm_up = Duration::from_secs_f64(variable("WARM_UP")?.parse()?);
    let window = Duration::from_secs_f64(variable("SECONDS")?.parse()?);
    let connection = Connection::open(variable("FILE")?)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(include_str!("../../../../migrations/sqlite/0001_sequences.sql"))?;

    // As many sequences as there are clients, with names as long as the service's.
    let sequences: Vec<String> = (0..clients).map(|client| format!("{client:064}")).collect();
    let mut steps = 0;
    let mut last = 0;
    let (mut began, mut before) = (Instant::now(), None);
    while before.is_none() || began.elapsed() < window {
        if before.is_none() && began.elapsed() >= warm_up {
            (began, before) = (Instant::now(), Some(steps));
        }
        for sequence in &sequences {
            let values = params![sequence, i64::MAX, NOW, KEEP_UNTIL];
            last = connection.prepare_cached(NEXT)?.query_row(values, |row| row.get::<_, i64>(0))?;
            steps += 1;
        }
    }
    let rate = f64::from(steps - before.unwrap_or_default()) / began.elapsed().as_secs_f64();
    if (i64::from(steps) - 1) / i64::try_from(clients)? != last {
        return Err(format!("{steps} steps of {clients} sequences, and the last index is {last}").into());
    }
    Ok(writeln!(std::io::stdout(), r#"{{"figure": {rate}}}"#)?)
}
