//! The PostgreSQL half of the store: for several hosts on one queue.
//!
//! Every request is one statement and one round trip; requests that come at the same time share one (`lane`). Claims take
//! turns inside the server. Whose time counts is the database's: hosts may disagree about theirs. LISTEN tells us of work at
//! once; polling beneath it is the truth. A server that goes away and comes back is waited for (`connect`): jobs in progress
//! go on as long as their leases are trusted.
//!
//! What happens when the answer to a commit is lost: renewals and ends of attempts are fenced and can be sent again, and an
//! end that is found written already is answered as such. A claim is followed by a look for running jobs of the worker that
//! this process was never told of. An enqueue or an operator's change is answered with an error that says that its outcome is
//! not known; with an idempotency key it can be repeated.

mod api;
mod attempt;
mod batch;
mod check;
mod claim;
mod connect;
mod import;
mod keep;
mod lane;
mod ledger;
mod listen;
mod migrate;
mod operate;
mod queue;
mod read;
mod schedule;
mod sql;
pub(super) mod statements;
mod steer;
mod vault;
mod workers;

use super::url::PostgresUrl;
use super::{DatabaseUrl, Error};
use crate::clock::Clock;
use connect::{Connections, Sessions};
use std::sync::Arc;
use std::time::Duration;

pub(super) use import::Import;
use migrate::NEWEST as NEWEST_SCHEMA;

/// Connections for claims, renewals, ends, and what else a lease hangs on.
const CONTROL: usize = 4;
/// Connections for enqueues and what operators do.
const BULK: usize = 2;
/// Connections for reads.
const READERS: usize = 3;
/// The longest statement of the first kind: a lease must not end while it waits.
const CONTROL_LIMIT: Duration = Duration::from_secs(8);
/// The longest of the second: thousands of rows.
const BULK_LIMIT: Duration = Duration::from_secs(60);
/// The longest of the third: numbers over millions of rows.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of an idempotency key: an index holds no more of it. SQLite has room for more.
pub(super) const KEY_BYTES: usize = 2600;

/// An open PostgreSQL database. Cheap to clone.
pub struct Postgres {
    inner: Arc<Inner>,
    /// Which commits this clone has told of.
    told: listen::Cursor,
}

impl Clone for Postgres {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), told: listen::Cursor::default() }
    }
}

struct Inner {
    /// As people may see it.
    url: String,
    clock: Clock,
    sessions: Sessions,
    control: Arc<Connections>,
    bulk: Arc<Connections>,
    readers: Connections,
    enqueues: queue::Enqueues,
    claims: claim::Claims,
    claimer: Arc<claim::Claimer>,
    renewals: attempt::Renewals,
    ends: attempt::Ends,
    known: claim::Known,
    listener: listen::Listener,
}

impl Postgres {
    /// Connects and migrates.
    pub(super) async fn open(url: &PostgresUrl, clock: Clock) -> Result<Self, Error> {
        let shown = DatabaseUrl::Postgres(url.clone()).to_string();
        if url.has_password() {
            tracing::warn!(
                database = %shown,
                "the database URL holds a password that others on this machine may see: put it into ~/.pgpass or the file of PGPASSFILE"
            );
        }
        let sessions = Sessions::new(url)?;
        migrate::open(&sessions, &clock).await.map_err(|error| match error {
            Error::Unusable(message) | Error::Backend { message, .. } | Error::Invalid(message) => {
                Error::Unusable(format!("database {shown}: {message}"))
            }
            other => other,
        })?;
        // A plan that reads a whole table would do so under everybody's claims; these statements all have an index.
        let by_index: &[(&str, &str)] = &[("enable_seqscan", "off")];
        let control = Arc::new(Connections::new(&sessions, &clock, CONTROL, CONTROL_LIMIT, by_index));
        let bulk = Arc::new(Connections::new(&sessions, &clock, BULK, BULK_LIMIT, by_index));
        // Filters that are not given must cost nothing: each look is planned for what it asks.
        let by_value: &[(&str, &str)] = &[("plan_cache_mode", "force_custom_plan")];
        let readers = Connections::new(&sessions, &clock, READERS, READ_LIMIT, by_value);
        let known = claim::Known::default();
        let listener = listen::Listener::new(&sessions);
        let (told, times) = (listener.skipped(), clock.clone());
        let claimer = Arc::new(claim::Claimer::new(control.clone(), known.clone(), times, told));
        Ok(Self {
            told: listen::Cursor::default(),
            inner: Arc::new(Inner {
                url: shown,
                enqueues: queue::enqueues(bulk.clone(), claimer.clone(), clock.clone()),
                claims: claim::claims(claimer.clone()),
                claimer,
                renewals: attempt::renewals(control.clone(), clock.clone()),
                ends: attempt::ends(control.clone(), clock.clone()),
                listener,
                known,
                clock,
                sessions,
                control,
                bulk,
                readers,
            }),
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.inner.enqueues.is_closed()
            || self.inner.claims.is_closed()
            || self.inner.renewals.is_closed()
            || self.inner.ends.is_closed()
    }

    /// Finishes what was sent and leaves the server, when this is the last clone.
    pub(super) async fn close(self) {
        if let Some(inner) = Arc::into_inner(self.inner) {
            inner.listener.close().await;
            inner.enqueues.close().await;
            inner.claims.close().await;
            inner.renewals.close().await;
            inner.ends.close().await;
            for connections in [&*inner.control, &*inner.bulk, &inner.readers] {
                connections.close().await;
            }
        }
    }
}

/// What statements take as "now": nothing, so that the database's clock decides; a manual clock's time in tests.
fn test_time(clock: &Clock) -> Option<i64> {
    matches!(clock, Clock::Manual(_)).then(|| clock.now().0)
}

impl Inner {
    fn now(&self) -> Option<i64> {
        test_time(&self.clock)
    }
}

/// PostgreSQL's integers are signed; sizes beyond that do not exist.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Milliseconds of a duration.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
