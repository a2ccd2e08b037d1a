//! PostgreSQL (RDS, Aurora, any other): a pool of connections, one round trip a call.

use std::{fs::File, io::BufReader, path::Path, sync::Arc};

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Transaction,
};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use tokio::sync::OnceCell;
use tokio_postgres::{
    Client, NoTls, Row,
    config::SslMode,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    Answer, Seconds, SequenceId, Step, Store, StoreError,
    location::Server,
    records::{self, Change, Page, Query, Record, Records},
};

/// Changes to the schema, oldest first, numbered from 1.
const MIGRATIONS: [&str; 2] = [
    include_str!("../../migrations/postgres/0001_sequences.sql"),
    include_str!("../../migrations/postgres/0002_records.sql"),
];

/// The lock that one of several processes starting together holds while it changes the schema: two
/// numbers of no meaning, the same in every version of this service.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock(1179208002, 1)";

/// Each connection, once: the server gives up when the caller has, rather than hold on to a row; and
/// each statement sees what was committed before it, whatever the database's default is.
const SESSION: &str =
    "SET statement_timeout = '1500ms'; SET default_transaction_isolation = 'read committed'";

/// Stands for "never"; databases have no number above it.
const NEVER: i64 = i64::MAX;

/// A PostgreSQL server.
pub struct Postgres {
    pool: Pool,
    migrated: OnceCell<()>,
}

impl Postgres {
    /// At most `connections` connections to `server`; the first call makes the first.
    ///
    /// # Errors
    /// When the URL or the certificate file cannot be used.
    pub fn open(server: &Server, connections: usize) -> Result<Self, StoreError> {
        let mut config: tokio_postgres::Config = server.url.parse().map_err(StoreError::new)?;
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = if server.is_verified {
            config.ssl_mode(SslMode::Require);
            let tls = MakeRustlsConnect::new(tls(server.root_certificates.as_deref())?);
            Manager::from_config(config, tls, recycling)
        } else {
            config.ssl_mode(SslMode::Disable);
            Manager::from_config(config, NoTls, recycling)
        };
        let prepare = Hook::async_fn(|client, _| {
            Box::pin(async move { client.batch_execute(SESSION).await.map_err(HookError::Backend) })
        });
        let pool = Pool::builder(manager).max_size(connections).post_create(prepare).build();
        Ok(Self { pool: pool.map_err(StoreError::new)?, migrated: OnceCell::new() })
    }

    async fn lease(&self) -> Result<Lease, StoreError> {
        let mut lease = Lease(Some(self.pool.get().await.map_err(StoreError::new)?));
        self.migrated.get_or_try_init(async || migrate(lease.client()?).await).await?;
        Ok(lease)
    }

    async fn row(
        &self,
        sql: &str,
        values: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, values).await?.pop())
    }

    async fn rows(&self, sql: &str, values: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, StoreError> {
        let mut lease = self.lease().await?;
        let client = lease.client()?;
        let types: Vec<Type> = values.iter().map(|(_, kind)| kind.clone()).collect();
        let values: Vec<_> = values.iter().map(|(value, _)| *value).collect();
        let answer = async {
            let statement = client.prepare_typed_cached(sql, &types).await?;
            client.query(&statement, &values).await
        };
        let answer = answer.await;
        lease.end();
        answer.map_err(StoreError::new)
    }

    async fn index(
        &self,
        sql: &str,
        values: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Option<u64>, StoreError> {
        let row = self.row(sql, values).await?;
        let index = row.map(|row| row.try_get::<_, Option<i64>>(0)).transpose().map_err(StoreError::new)?;
        Ok(index.flatten().map(i64::unsigned_abs))
    }

    async fn step(&self, step: Step) -> Result<Option<u64>, StoreError> {
        let Step { sequence, retry, max_index, now, keep_until, retry_until } = step;
        let (sequence, max_index, now) = (sequence.as_str(), signed(max_index), signed(now));
        let (keep_until, retry_until) = (keep_until.map_or(NEVER, signed), signed(retry_until));
        let Some(retry) = &retry else {
            let values: [(&(dyn ToSql + Sync), Type); 4] = [
                (&sequence, Type::TEXT),
                (&max_index, Type::INT8),
                (&now, Type::INT8),
                (&keep_until, Type::INT8),
            ];
            return self.index(NEXT, &values).await;
        };
        let values: [(&(dyn ToSql + Sync), Type); 6] = [
            (&sequence, Type::TEXT),
            (&max_index, Type::INT8),
            (&now, Type::INT8),
            (&keep_until, Type::INT8),
            (&retry.as_str(), Type::TEXT),
            (&retry_until, Type::INT8),
        ];
        self.index("SELECT fibonacci_next_once($1, $2, $3, $4, $5, $6)", &values).await
    }
}

/// What the function `fibonacci_next` does, spelt out: the server plans it once a connection.
const NEXT: &str =
    "INSERT INTO fibonacci_sequences AS known (sequence, last_index, expires_at) VALUES ($1, 0, $4)
    ON CONFLICT (sequence) DO UPDATE SET
        last_index = CASE WHEN known.expires_at <= $3 THEN 0 ELSE known.last_index + 1 END,
        expires_at = excluded.expires_at
    WHERE known.expires_at <= $3 OR known.last_index < $2
    RETURNING last_index";

impl Store for Postgres {
    fn next(&self, step: Step) -> Answer<'_, Option<u64>> {
        Box::pin(self.step(step))
    }

    fn current(&self, sequence: SequenceId, now: Seconds) -> Answer<'_, Option<u64>> {
        Box::pin(async move {
            let sql = "SELECT last_index FROM fibonacci_sequences WHERE sequence = $1 AND expires_at > $2";
            self.index(sql, &[(&sequence.as_str(), Type::TEXT), (&signed(now), Type::INT8)]).await
        })
    }

    fn reset(&self, sequence: SequenceId) -> Answer<'_, ()> {
        Box::pin(async move {
            let sql = "DELETE FROM fibonacci_sequences WHERE sequence = $1";
            self.row(sql, &[(&sequence.as_str(), Type::TEXT)]).await.map(drop)
        })
    }

    fn remove_expired(&self, now: Seconds, at_most: u32) -> Answer<'_, u64> {
        Box::pin(async move {
            // Rows that somebody is using right now are left to the next time.
            let sql = "WITH sequences AS (
                DELETE FROM fibonacci_sequences WHERE sequence IN (
                    SELECT sequence FROM fibonacci_sequences WHERE expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED
                ) RETURNING 1
            ), retries AS (
                DELETE FROM fibonacci_retries WHERE retry IN (
                    SELECT retry FROM fibonacci_retries WHERE expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED
                ) RETURNING 1
            ) SELECT (SELECT count(*) FROM sequences) + (SELECT count(*) FROM retries)";
            let values: [(&(dyn ToSql + Sync), Type); 2] =
                [(&signed(now), Type::INT8), (&i64::from(at_most), Type::INT8)];
            self.index(sql, &values).await.map(Option::unwrap_or_default)
        })
    }
}

impl Postgres {
    /// All of it in one transaction, unless the entry is there.
    async fn write(
        &self,
        entry: Option<(Record, Seconds)>,
        changes: Vec<Change>,
    ) -> Result<bool, StoreError> {
        records::check(entry.as_ref().map(|(entry, _)| entry), &changes)?;
        let mut lease = self.lease().await?;
        let answer = async {
            let transaction = lease.client()?.transaction().await.map_err(StoreError::new)?;
            let written = write_all(&transaction, entry, &changes).await.map_err(StoreError::new)?;
            transaction.commit().await.map_err(StoreError::new)?;
            Ok(written)
        };
        let answer = answer.await;
        // After a failure the connection may be in the middle of something.
        if answer.is_ok() {
            lease.end();
        }
        answer
    }

    async fn page(&self, query: &Query) -> Result<Page, StoreError> {
        let (beyond, order) = if query.newest_first { ("<", "DESC") } else { (">", "ASC") };
        let (log, limit) = (query.log.as_str(), i64::from(query.limit) + 1);
        let (from, to, now) = (signed(query.from), signed(query.to), signed(query.now));
        let mut sql = "SELECT name, log, place, namespace, caller, body, expires_at FROM records
            WHERE log = $1 AND place BETWEEN $2 AND $3 AND expires_at > $4"
            .to_owned();
        let mut values: Vec<(&(dyn ToSql + Sync), Type)> =
            vec![(&log, Type::TEXT), (&from, Type::INT8), (&to, Type::INT8), (&now, Type::INT8)];
        for (column, value) in [("namespace", &query.namespace), ("caller", &query.caller)] {
            if let Some(value) = value {
                values.push((value, Type::TEXT));
                sql.push_str(&format!(" AND {column} = ${}", values.len()));
            }
        }
        let after = query.after.as_ref().map(|after| (signed(after.place), &after.name));
        if let Some((place, name)) = &after {
            values.extend([(place as &(dyn ToSql + Sync), Type::INT8), (name, Type::TEXT)]);
            sql.push_str(&format!(
                " AND (place, name) {beyond} (${}, ${} COLLATE \"C\")",
                values.len() - 1,
                values.len()
            ));
        }
        values.push((&limit, Type::INT8));
        sql.push_str(&format!(" ORDER BY place {order}, name {order} LIMIT ${}", values.len()));
        let rows = self.rows(&sql, &values).await?;
        let records = rows.iter().map(record).collect::<Result<_, _>>().map_err(StoreError::new)?;
        Ok(Page::of(records, query.limit))
    }
}

async fn write_all(
    transaction: &Transaction<'_>,
    entry: Option<(Record, Seconds)>,
    changes: &[Change],
) -> Result<bool, tokio_postgres::Error> {
    if let Some((entry, now)) = entry
        && put(transaction, &entry, signed(now)).await? == 0
    {
        return Ok(false);
    }
    for change in changes {
        match change {
            Change::Put(record) => put(transaction, record, NEVER).await?,
            Change::Remove(name) => {
                let remove = transaction.prepare_cached("DELETE FROM records WHERE name = $1").await?;
                transaction.execute(&remove, &[&name.as_str()]).await?
            }
        };
    }
    Ok(true)
}

/// One of its name stays, unless that has expired by then.
async fn put(
    transaction: &Transaction<'_>,
    record: &Record,
    unless_kept_at: i64,
) -> Result<u64, tokio_postgres::Error> {
    let sql = "INSERT INTO records AS known (name, log, place, namespace, caller, body, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (name) DO UPDATE SET log = excluded.log, place = excluded.place, namespace = excluded.namespace,
            caller = excluded.caller, body = excluded.body, expires_at = excluded.expires_at
        WHERE known.expires_at <= $8";
    let put = transaction.prepare_cached(sql).await?;
    let values: [&(dyn ToSql + Sync); 8] = [
        &record.name.as_str(),
        &record.log.as_str(),
        &signed(record.place),
        &record.namespace,
        &record.caller,
        &record.body,
        &record.keep_until.map_or(NEVER, signed),
        &unless_kept_at,
    ];
    transaction.execute(&put, &values).await
}

fn record(row: &Row) -> Result<Record, tokio_postgres::Error> {
    let expires_at = row.try_get::<_, i64>(6)?;
    let keep_until = (expires_at != NEVER).then(|| expires_at.unsigned_abs());
    let place = row.try_get::<_, i64>(2)?.unsigned_abs();
    let (names, tags) = ((row.try_get(0)?, row.try_get(1)?), (row.try_get(3)?, row.try_get(4)?));
    Ok(records::record(names, place, tags, row.try_get(5)?, keep_until))
}

impl Records for Postgres {
    fn enter(&self, entry: Record, changes: Vec<Change>, now: Seconds) -> Answer<'_, bool> {
        Box::pin(self.write(Some((entry, now)), changes))
    }

    fn change(&self, changes: Vec<Change>) -> Answer<'_, ()> {
        Box::pin(async move { self.write(None, changes).await.map(drop) })
    }

    fn read(&self, query: Query) -> Answer<'_, Page> {
        Box::pin(async move { self.page(&query).await })
    }

    fn forget(&self, now: Seconds, at_most: u32) -> Answer<'_, u64> {
        Box::pin(async move {
            let sql = "WITH gone AS (
                DELETE FROM records WHERE name IN (
                    SELECT name FROM records WHERE expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED
                ) RETURNING 1
            ) SELECT count(*) FROM gone";
            let values: [(&(dyn ToSql + Sync), Type); 2] =
                [(&signed(now), Type::INT8), (&i64::from(at_most), Type::INT8)];
            self.index(sql, &values).await.map(Option::unwrap_or_default)
        })
    }
}

/// A connection that goes back to the pool only when its answer has come: one that was given up, at
/// the deadline or by a caller who left, may never answer again.
struct Lease(Option<Object>);

impl Lease {
    fn client(&mut self) -> Result<&mut Object, StoreError> {
        self.0.as_mut().ok_or_else(|| StoreError::new("the connection was given back"))
    }

    fn end(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.0.take().map(Object::take));
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(NEVER)
}

/// Applies what this database has not seen. Looks before it takes the lock, so that a role which may
/// not create tables can run the service once another one has.
async fn migrate(client: &mut Client) -> Result<(), StoreError> {
    if applied(client).await? >= MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = client.transaction().await.map_err(StoreError::new)?;
    transaction.batch_execute(MIGRATION_LOCK).await.map_err(StoreError::new)?;
    let create = "CREATE TABLE IF NOT EXISTS math_service_migrations
        (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())";
    transaction.batch_execute(create).await.map_err(StoreError::new)?;
    let applied = applied(transaction.client()).await?;
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(applied) {
        transaction.batch_execute(migration).await.map_err(StoreError::new)?;
        let record = format!("INSERT INTO math_service_migrations (version) VALUES ({})", number + 1);
        transaction.batch_execute(&record).await.map_err(StoreError::new)?;
    }
    transaction.commit().await.map_err(StoreError::new)?;
    tracing::info!(migrations = MIGRATIONS.len() - applied, "Changed the store's schema");
    Ok(())
}

async fn applied(client: &Client) -> Result<usize, StoreError> {
    let number = async |sql| client.query_one(sql, &[]).await?.try_get::<_, i32>(0);
    let tables = number("SELECT count(to_regclass('math_service_migrations'))::integer").await;
    if tables.map_err(StoreError::new)? == 0 {
        return Ok(0);
    }
    let latest = number("SELECT coalesce(max(version), 0) FROM math_service_migrations").await;
    Ok(latest.map_err(StoreError::new)?.unsigned_abs() as usize)
}

/// TLS that checks the server's certificate and name, against the public authorities or the given file.
fn tls(root_certificates: Option<&Path>) -> Result<ClientConfig, StoreError> {
    let roots = match root_certificates {
        None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        Some(path) => read_roots(path)?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(StoreError::new)?.with_root_certificates(roots).with_no_client_auth())
}

fn read_roots(path: &Path) -> Result<RootCertStore, StoreError> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    let file = BufReader::new(File::open(path).map_err(StoreError::new)?);
    for certificate in CertificateDer::pem_reader_iter(file) {
        roots.add(certificate.map_err(StoreError::new)?).map_err(StoreError::new)?;
    }
    if roots.is_empty() {
        return Err(StoreError::new(format!("{} holds no certificate", path.display())));
    }
    Ok(roots)
}
