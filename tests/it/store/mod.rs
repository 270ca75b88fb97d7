//! The store's contract: one test for each sentence of its docs, on every database.
//!
//! The files of tests say `Bench` and do not know which database it is on: each is compiled twice, once below `sqlite` and
//! once below `postgres`.

/// The contract, on a file.
#[path = "."]
mod sqlite {
    pub use super::{TTL, copy, later, numbered};
    pub type Bench = super::Bench<super::OnSqlite>;

    mod api;
    mod attempts;
    mod batches;
    mod checks;
    mod claims;
    mod enqueue;
    mod files;
    mod ledger;
    mod limits;
    mod model;
    mod operators;
    mod order;
    mod retention;
    mod rules;
    mod schedules;
    mod standing;
    mod sweeping;
    mod upgrades;
    mod vault;
}

/// The contract, on a server.
#[path = "."]
#[expect(clippy::duplicate_mod, reason = "the same tests on the other database")]
mod postgres {
    pub use super::{TTL, copy, later, numbered};
    pub type Bench = super::Bench<super::OnPostgres>;

    mod api;
    mod attempts;
    mod batches;
    mod checks;
    mod claims;
    mod enqueue;
    mod ledger;
    mod limits;
    mod model;
    mod operators;
    mod order;
    mod retention;
    mod rules;
    mod schedules;
    mod server;
    mod standing;
    mod sweeping;
    mod upgrades;
    mod vault;
}

mod sentences;

use crate::support::database::Database;
use freightliner::clock::{Clock, ManualClock, UnixMillis};
use freightliner::job::{CopyOptions, Job, JobId, NewJob, State};
use freightliner::store::{Claim, ClaimRequest, Outcome, Store, Work};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

pub const TTL: Duration = Duration::from_secs(30);

/// Which database a bench is on.
pub trait On {
    /// A fresh one.
    fn fresh() -> Database;
}

pub struct OnSqlite;

impl On for OnSqlite {
    fn fresh() -> Database {
        Database::sqlite()
    }
}

pub struct OnPostgres;

impl On for OnPostgres {
    /// Without PostgreSQL, which is said loudly, the test runs on SQLite once more.
    fn fresh() -> Database {
        Database::postgres().unwrap_or_else(Database::sqlite)
    }
}

/// An open store on a fresh database, its clock, and a connection that is somebody else's.
pub struct Bench<K> {
    pub store: Store,
    pub clock: Clock,
    pub hand: Arc<ManualClock>,
    pub database: Database,
    pub worker: Uuid,
    kind: PhantomData<K>,
}

impl<K: On> Bench<K> {
    pub async fn new() -> Self {
        Self::on(Self::fresh()).await
    }

    /// A place for a database of this kind.
    pub fn fresh() -> Database {
        K::fresh()
    }

    pub async fn on(database: Database) -> Self {
        // Triggers ask the machine's clock, so the manual one starts there.
        let (clock, hand) = Clock::manual(Clock::System.now());
        let store = Store::open(&database.url().parse().unwrap(), clock.clone()).await.unwrap();
        Self { store, clock, hand, database, worker: Uuid::now_v7(), kind: PhantomData }
    }

    /// A connection to an SQLite file as a foreign program has it.
    pub async fn foreign(&self) -> SqliteConnection {
        SqliteConnectOptions::new().filename(self.database.file()).foreign_keys(false).connect().await.unwrap()
    }

    /// A connection to a server as a foreign program has it.
    pub async fn foreign_session(&self) -> PgConnection {
        PgConnection::connect(&self.database.url()).await.unwrap()
    }

    /// Runs a foreign statement; the error's message when it is refused.
    pub async fn sql(&self, statement: &str) -> Result<u64, String> {
        let statement = AssertSqlSafe(statement.to_owned());
        let done = if self.database.is_postgres() {
            let mut foreign = self.foreign_session().await;
            let done = sqlx::query(statement).execute(&mut foreign).await.map(|done| done.rows_affected());
            // A server tells of an error before it has given the locks back.
            foreign.ping().await.unwrap();
            done
        } else {
            let mut foreign = self.foreign().await;
            sqlx::query(statement).execute(&mut foreign).await.map(|done| done.rows_affected())
        };
        done.map_err(|error| error.to_string())
    }

    /// What is said differently to the two databases, or by them.
    pub fn either<'a>(&self, sqlite: &'a str, postgres: &'a str) -> &'a str {
        if self.database.is_postgres() { postgres } else { sqlite }
    }

    /// One number by foreign SQL.
    pub async fn number(&self, query: &str) -> i64 {
        let query = AssertSqlSafe(format!("SELECT CAST(({query}) AS BIGINT)"));
        if self.database.is_postgres() {
            sqlx::query(query).fetch_one(&mut self.foreign_session().await).await.unwrap().get(0)
        } else {
            sqlx::query(query).fetch_one(&mut self.foreign().await).await.unwrap().get(0)
        }
    }

    pub async fn enqueue(&self, job: NewJob) -> JobId {
        let enqueued = self.store.enqueue(vec![job], "test").await.unwrap();
        assert!(enqueued[0].created);
        enqueued[0].id
    }

    pub async fn claim(&self, room: usize) -> Vec<Claim> {
        self.claim_as(self.worker, room, None, None).await
    }

    pub async fn claim_as(&self, worker: Uuid, room: usize, queue: Option<&str>, only: Option<JobId>) -> Vec<Claim> {
        let request = ClaimRequest {
            worker,
            room,
            queue: queue.map(str::to_owned),
            only,
            lease_ttl: TTL,
            registry_limits: Arc::default(),
        };
        self.store.claim(request).await.unwrap()
    }

    /// Claims exactly one job.
    pub async fn claim_one(&self) -> Claim {
        let mut claims = self.claim(1).await;
        assert_eq!(claims.len(), 1, "one job can be claimed");
        claims.remove(0)
    }

    pub async fn job(&self, id: JobId) -> Job {
        self.store.job(id).await.unwrap().expect("the job is there")
    }

    pub async fn state(&self, id: JobId) -> State {
        self.job(id).await.state
    }

    pub async fn complete(&self, claim: Claim) {
        let outcome = Outcome::Completed(freightliner::job::Report::default());
        self.store.settle(claim, &outcome, Work::default(), &[]).await.unwrap();
    }
}

pub fn copy(source: &str, destination: &str) -> NewJob {
    NewJob::parse(source, destination, CopyOptions::default(), Path::new("/")).unwrap()
}

/// A job of its own target.
pub fn numbered(number: usize) -> NewJob {
    copy(&format!("a.example/app:{number}"), &format!("b.example/app:{number}"))
}

pub fn later(clock: &Clock, secs: u64) -> UnixMillis {
    clock.now().plus(Duration::from_secs(secs))
}
