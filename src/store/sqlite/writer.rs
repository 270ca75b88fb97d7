//! The one writer: a thread that owns the one write connection, and commits for many at once.
//!
//! It takes what waits in its two bounded lanes, control before bulk, runs it in one `BEGIN IMMEDIATE` transaction with
//! operations of a kind merged into one statement, commits once, and only then answers. So a commit's fsync and a statement's
//! overhead are shared by all who wait, and nobody is told OK before the commit. When one operation breaks a rule of the
//! database, everything is rolled back and done again one by one, each in a savepoint: its neighbours do not fail with it.
//! The connection is not from a pool, and callers never hold it: a caller that is dropped while it waits leaves no transaction
//! behind. It never runs two transactions at once and never does anything but SQL.

use super::batch::{Batch, Mode, Op, Reply};
use super::checkpoint::Checkpoints;
use super::claim::standing;
use super::direct::Direct;
pub(super) use super::lanes::Lane;
use super::lanes::Lanes;
use crate::clock::Clock;
use crate::store::Error;
use crate::store::standing::Board;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Operations of the control lane in one transaction.
const CONTROL_BATCH: usize = 1024;
/// Operations of the bulk lane in one transaction.
const BULK_BATCH: usize = 512;
/// Rows that the bulk lane may write in one transaction, about: bounds how long a heartbeat waits behind it.
const BULK_ROWS: usize = 2000;
/// How long those who were answered together are waited for, so that one commit serves their next operations too. Less than a
/// commit takes; who works alone waits for nobody.
const GATHERING: Duration = Duration::from_micros(200);
/// When some of them are there, and no other came for so long, no other is waited for.
const QUIET: Duration = Duration::from_micros(50);
/// How long a locked database is waited for before callers are told. A foreign writer may well hold it for seconds.
const BUSY_DEADLINE: Duration = Duration::from_secs(30);
/// Pause between tries when SQLite's own waiting was in vain.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// The handle of the thread. When it is dropped the thread finishes what was sent and ends.
pub(super) struct Writer {
    lanes: Arc<Lanes>,
    ended: Option<oneshot::Receiver<()>>,
}

impl Writer {
    /// Starts the thread on its own connection to `path`.
    ///
    /// # Errors
    /// [`Error::Backend`] when the machine gives no thread.
    pub(super) fn start(connection: Direct, path: PathBuf, clock: Clock, board: Arc<Board>) -> Result<Self, Error> {
        let lanes = Arc::new(Lanes::new());
        let (end, ended) = oneshot::channel();
        let actor = Actor {
            connection: Some(connection),
            checkpoints: Checkpoints::new(&path, clock.clone()),
            path,
            clock,
            lanes: lanes.clone(),
            board,
            hungry: false,
            failing: false,
        };
        let run = move || {
            actor.run();
            if end.send(()).is_err() {
                tracing::debug!("nobody waits for the end of the database writer");
            }
        };
        let thread = std::thread::Builder::new().name("sqlite-writer".to_owned()).spawn(run);
        thread.map_err(|error| Error::Backend { message: format!("starting the writer: {error}"), busy: false })?;
        Ok(Self { lanes, ended: Some(ended) })
    }

    /// Sends an operation and waits for its answer; when that is Ok it is committed and durable.
    ///
    /// # Errors
    /// The operation's own (then none of its writes happened), or that of the commit (then nothing of the batch happened).
    pub(super) async fn send<T>(&self, lane: Lane, op: impl FnOnce(Reply<T>) -> Op) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::Unusable("the database writer has ended; start again".to_owned());
        if !self.lanes.put(lane, op(reply)).await {
            return Err(gone());
        }
        answer.await.map_err(|_| gone())?
    }

    /// The writer has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.lanes.is_closed()
    }

    /// Waits until everything that was sent is committed and the connection is closed. Later writes fail.
    pub(super) async fn close(mut self) {
        self.lanes.close();
        if let Some(ended) = self.ended.take()
            && ended.await.is_err()
        {
            tracing::error!("the database writer ended badly");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.lanes.close();
    }
}

struct Actor {
    connection: Option<Direct>,
    path: PathBuf,
    checkpoints: Checkpoints,
    clock: Clock,
    lanes: Arc<Lanes>,
    board: Arc<Board>,
    /// The last claim was given jobs: who ends one claims the next.
    hungry: bool,
    /// The last transaction failed for a reason that may pass.
    failing: bool,
}

impl Drop for Actor {
    fn drop(&mut self) {
        // However it ends, nobody waits for ever.
        self.lanes.abandon();
    }
}

impl Actor {
    fn run(mut self) {
        let mut batch = Batch::default();
        while self.gather(&mut batch) {
            if !batch.is_empty() {
                let fate = self.commit(&mut batch);
                self.tell(&fate, batch.len());
                let next = batch.leads_to();
                self.hungry = batch.gave_jobs().unwrap_or(self.hungry);
                std::mem::take(&mut batch).answer(&fate);
                self.await_next(next);
            }
            // A commit that failed took its connection along. The log may be what fills the disk: it is looked after all the same.
            if self.connection.is_none() && self.checkpoints.wanted() {
                match Direct::open(&self.path, super::BUSY_TIMEOUT) {
                    Ok(connection) => self.connection = Some(connection),
                    // The next commit opens it too, and tells its caller.
                    Err(error) => tracing::debug!(%error, "the log could not be looked after"),
                }
            }
            if let Some(connection) = &self.connection {
                self.checkpoints.after_commit(connection);
            }
        }
        if let Some(connection) = self.connection.take() {
            connection.close();
        }
    }

    /// Logs what became of a transaction. A disk that is full stays so for long, and everybody tries again: that is said once.
    fn tell(&mut self, fate: &Result<(), Error>, operations: usize) {
        let lasts = std::mem::replace(&mut self.failing, fate.as_ref().is_err_and(Error::is_transient));
        match fate {
            Ok(()) if lasts => tracing::info!("the database can be written again"),
            Ok(()) => {}
            Err(error) if lasts && self.failing => {
                tracing::debug!(%error, operations, "a transaction was rolled back again");
            }
            Err(error) => tracing::warn!(%error, operations, "a transaction was rolled back"),
        }
    }

    /// Those who were answered now send their next operations: without this pause the first of them would get a commit of its
    /// own, and all others would wait for it.
    fn await_next(&self, expected: usize) {
        // The machine's own time, also where a test moves the hands of the clock: this is pacing, nobody's lease.
        let start = Clock::System.boot();
        let (mut here, mut last) = (0, start);
        while expected > 1 && here < expected {
            std::thread::yield_now();
            let (now, waiting) = (Clock::System.boot(), self.lanes.len());
            if waiting > here {
                (here, last) = (waiting, now);
            }
            if now.since(start) >= GATHERING || (here > 0 && now.since(last) >= QUIET) {
                return;
            }
        }
    }

    /// Waits for work, then takes what there is: control first, bulk up to its bounds. False when nobody can send any more.
    /// An empty batch means that the log is to be looked at.
    fn gather(&self, batch: &mut Batch) -> bool {
        let (mut control, mut bulk, mut rows) = (0, 0, 0);
        let mut take = |lane: Lane, op: &Op| match lane {
            Lane::Control => {
                control += 1;
                control <= CONTROL_BATCH
            }
            Lane::Bulk => {
                bulk += 1;
                rows += op.rows();
                bulk == 1 || (bulk <= BULK_BATCH && rows <= BULK_ROWS)
            }
        };
        let open = self.lanes.take(self.checkpoints.due(), &mut take, |op| batch.push(op));
        // The end of an attempt frees a place, and the claim that fills it is on its way: one commit serves both.
        if self.hungry && batch.has_settles() && !batch.has_claims() {
            // That nothing comes any more is said at the next call.
            self.lanes.take(GATHERING, &mut take, |op| batch.push(op));
        }
        // Who waits for jobs gets them in the transaction that brings them.
        if batch.has_enqueues()
            && let Some(claim) = standing(&self.board, &self.clock)
        {
            batch.push(claim);
        }
        open
    }

    /// One transaction over the batch. On an error the connection is opened anew: its state is not known.
    fn commit(&mut self, batch: &mut Batch) -> Result<(), Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Direct::open(&self.path, super::BUSY_TIMEOUT)?,
        };
        // A bug in one operation must not end the writer.
        let done = catch_unwind(AssertUnwindSafe(|| transact(&connection, batch, &self.clock))).unwrap_or_else(|_| {
            Err(Error::Backend { message: "an operation panicked; please report this".to_owned(), busy: false })
        });
        if done.is_ok() {
            self.connection = Some(connection);
        } else {
            // Closing rolls back what is open.
            connection.close();
        }
        done
    }
}

fn transact(connection: &Direct, batch: &mut Batch, clock: &Clock) -> Result<(), Error> {
    patiently(connection, "BEGIN IMMEDIATE", clock)?;
    match batch.run(connection, Mode::Together) {
        Ok(()) => {}
        // The database itself failed: nothing in this transaction can be trusted.
        Err(error) if error.is_transient() => return Err(error),
        Err(error) => {
            tracing::debug!(%error, "an operation was refused: doing the batch one by one");
            connection.script("ROLLBACK")?;
            patiently(connection, "BEGIN IMMEDIATE", clock)?;
            batch.run(connection, Mode::OneByOne)?;
        }
    }
    patiently(connection, "COMMIT", clock)
}

/// Runs a statement that may find the database locked, until the deadline.
fn patiently(connection: &Direct, statement: &str, clock: &Clock) -> Result<(), Error> {
    let start = clock.boot();
    loop {
        match connection.run(statement, []) {
            Ok(_) => return Ok(()),
            Err(Error::Backend { busy: true, .. }) if clock.boot().since(start) < BUSY_DEADLINE => {
                std::thread::sleep(BUSY_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::Task;
    use super::*;
    use crate::store::rows::Columns;

    #[tokio::test]
    async fn a_panic_in_an_operation_ends_that_batch_and_not_the_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let direct = Direct::open(&path, Duration::from_secs(1)).unwrap();
        let writer = Writer::start(direct, path, Clock::System, Arc::default()).unwrap();
        let run = |statement: &'static str| {
            writer.send(Lane::Bulk, move |reply| {
                Task::op(
                    move |connection: &Direct| {
                        connection.script(statement)?;
                        assert!(!statement.starts_with("INSERT"), "a bug");
                        Ok(())
                    },
                    reply,
                )
            })
        };
        run("CREATE TABLE t (x INTEGER)").await.unwrap();
        let error = run("INSERT INTO t VALUES (1)").await.unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
        run("CREATE UNIQUE INDEX i ON t (x)").await.unwrap();
        let count = |connection: &Direct| connection.one("SELECT COUNT(*) AS rows FROM t", [], |row| row.int("rows"));
        let rows = writer.send(Lane::Control, |reply| Task::op(count, reply)).await;
        assert_eq!(rows.unwrap(), 0, "what it wrote was rolled back");
        assert!(!writer.is_closed());
        writer.close().await;
    }
}
