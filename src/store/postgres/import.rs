//! The target of a copy from another database: one transaction that fills all tables of an empty database.
//!
//! Whoever writes meanwhile waits for its end, for a few seconds; whoever reads sees an empty database. The server rolls it
//! back when this process ends or falls silent.

use super::connect::part;
use super::keep::EPOCHS;
use super::{Postgres, statements as sql};
use crate::store::Error;
use crate::store::copy::{Sequence, TABLES};
use crate::store::rows::Columns;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor};

/// Tables that are not copied and must be empty too.
const OTHERS: [&str; 2] = ["workers", "temp_files"];
/// Who falls silent for a minute is taken for dead; a statement may write every job.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '3s'; \
    SET LOCAL statement_timeout = '1h'; SET LOCAL idle_in_transaction_session_timeout = '60s'; \
    SET LOCAL synchronous_commit = on; SET LOCAL jit = off";

/// A transaction that fills a database.
pub(in crate::store) struct Import {
    connection: PgConnection,
    shown: String,
    now: Option<i64>,
}

impl Postgres {
    /// Nothing is done yet.
    pub(in crate::store) async fn import(&self) -> Result<Import, Error> {
        let connection = self.inner.sessions.connect().await?;
        Ok(Import { connection, shown: self.inner.url.clone(), now: self.inner.now() })
    }
}

impl Import {
    /// Nobody else writes from here on, the database is empty, and its triggers sleep until [`Import::make_safe`].
    pub(in crate::store) async fn prepare(&mut self) -> Result<(), Error> {
        sqlx::raw_sql(BEGIN).execute(&mut self.connection).await?;
        let all = [TABLES.as_slice(), OTHERS.as_slice()].concat();
        self.run(format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", all.join(", "))).await?;
        for table in all {
            let rows = self.count(table).await?;
            if rows > 0 {
                return Err(Error::Invalid(format!(
                    "the database {} is not empty, table {table} has {rows} rows: a copy needs an empty one; nothing was changed",
                    self.shown
                )));
            }
        }
        self.triggers("DISABLE").await
    }

    /// The names of a table's columns, sorted.
    pub(in crate::store) async fn columns(&mut self, table: &str) -> Result<Vec<String>, Error> {
        let look = "SELECT attname::TEXT COLLATE \"C\" AS name FROM pg_attribute \
            WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY 1";
        let look = sqlx::query(look).persistent(false).bind(table);
        look.fetch_all(&mut self.connection).await?.iter().map(|row| row.text("name")).collect()
    }

    /// How many rows a table has.
    pub(in crate::store) async fn count(&mut self, table: &str) -> Result<u64, Error> {
        let look = AssertSqlSafe(format!("SELECT COUNT(*) AS n FROM {table}"));
        sqlx::query(look).persistent(false).fetch_one(&mut self.connection).await?.count("n")
    }

    /// Adds rows, a JSON array of objects by names of columns, with the numbers that they have.
    pub(in crate::store) async fn insert(&mut self, table: &str, rows: &str) -> Result<(), Error> {
        let insert = format!(
            "INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_recordset(NULL::{table}, $1::TEXT::JSON)"
        );
        let insert = sqlx::query(AssertSqlSafe(insert)).persistent(false).bind(rows);
        let inserted = insert.execute(&mut self.connection).await.map_err(Error::from);
        inserted.map(drop).map_err(|error| match error {
            Error::Invalid(message) => Error::Invalid(format!("rows of {table} do not fit: {message}")),
            other => other,
        })
    }

    /// The next row of the table gets a higher number than that. RESTART is undone with the transaction, which setval is not.
    pub(in crate::store) async fn go_on_after(&mut self, sequence: &Sequence) -> Result<(), Error> {
        let name = match sequence.table.as_str() {
            "jobs" => "jobs_id_seq",
            "job_events" => "job_events_seq_seq",
            "transfers" => "transfers_id_seq",
            "queue_changes" => "queue_changes_id_seq",
            "prunes" => "prunes_id_seq",
            "restores" => "restores_id_seq",
            other => return Err(Error::Unusable(format!("table {other} gives numbers here and none in the target"))),
        };
        if sequence.last > 0 {
            self.run(format!("ALTER SEQUENCE {name} RESTART WITH {}", sequence.last)).await?;
            self.run(format!("SELECT nextval('{name}')")).await?;
        }
        Ok(())
    }

    /// The triggers wake up, and the copy is made safe as a restored backup is. Returns how many jobs were running.
    pub(in crate::store) async fn make_safe(&mut self, actor: &str) -> Result<u64, Error> {
        self.triggers("ENABLE").await?;
        let restore = sqlx::query(sql::RESTORE).persistent(false).bind(self.now).bind(actor).bind(EPOCHS);
        restore.fetch_one(&mut self.connection).await?.count("requeued")
    }

    /// All of it is there.
    pub(in crate::store) async fn commit(mut self) -> Result<(), Error> {
        if let Err(error) = self.connection.execute("COMMIT").await {
            let message =
                format!("{error}; it is not known whether the copy was made: look with `freightliner db info`");
            return Err(match error {
                sqlx::Error::Database(_) => error.into(),
                _ => Error::Backend { message, busy: false },
            });
        }
        part(self.connection).await;
        Ok(())
    }

    /// None of it is there.
    pub(in crate::store) async fn abandon(mut self) {
        if let Err(error) = self.connection.execute("ROLLBACK").await {
            tracing::debug!(%error, "rolling back: the server does so when the connection ends");
        }
        part(self.connection).await;
    }

    /// The owner of the tables may do this; in a transaction nobody else sees it.
    async fn triggers(&mut self, how: &str) -> Result<(), Error> {
        for table in TABLES {
            self.run(format!("ALTER TABLE {table} {how} TRIGGER USER")).await?;
        }
        Ok(())
    }

    async fn run(&mut self, text: String) -> Result<(), Error> {
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut self.connection).await?;
        Ok(())
    }
}
