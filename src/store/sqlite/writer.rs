//! The one writer: an actor that owns the one write connection, and commits for many at once.
//!
//! It takes what waits in its two bounded lanes, control before bulk, runs it in one `BEGIN IMMEDIATE` transaction with
//! operations of a kind merged into one statement, commits once, and only then answers. So a commit's fsync and a statement's
//! overhead are shared by all who wait, and nobody is told OK before the commit. When one operation breaks a rule of the
//! database, everything is rolled back and done again one by one, each in a savepoint: its neighbours do not fail with it.
//! The connection is not from a pool, and callers never hold it: a caller that is dropped while it waits leaves no transaction
//! behind. It never runs two transactions at once and never does anything but SQL.

use super::batch::{Batch, Mode, Op};
use super::checkpoint::Checkpoints;
use crate::clock::Clock;
use crate::store::Error;
use futures_util::FutureExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Executor};
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Operations that may wait in a lane; more callers wait outside.
const LANE: usize = 1024;
/// Operations of the control lane in one transaction.
const CONTROL_BATCH: usize = 1024;
/// Operations of the bulk lane in one transaction.
const BULK_BATCH: usize = 256;
/// Rows that the bulk lane may write in one transaction, about: bounds how long a heartbeat waits behind it.
const BULK_ROWS: usize = 1000;
/// How long a locked database is waited for before callers are told. A foreign writer may well hold it for seconds.
const BUSY_DEADLINE: Duration = Duration::from_secs(30);
/// Pause between tries when SQLite's own waiting was in vain.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Which operations go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// What keeps running attempts alive and ends them: claims, renewals, settles.
    Control,
    /// What can wait: enqueues, changes by operators, retention.
    Bulk,
}

/// The handle of the actor. When it is dropped the actor finishes what was sent and ends.
pub(super) struct Writer {
    control: mpsc::Sender<Op>,
    bulk: mpsc::Sender<Op>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the actor on its own connection.
    #[expect(
        clippy::disallowed_methods,
        reason = "the writer is the store's one task; its handle is kept and awaited by close"
    )]
    pub(super) fn start(connection: SqliteConnection, options: SqliteConnectOptions, clock: Clock) -> Self {
        let (control, control_receiver) = mpsc::channel(LANE);
        let (bulk, bulk_receiver) = mpsc::channel(LANE);
        let actor = Actor {
            connection: Some(connection),
            checkpoints: Checkpoints::new(&options, clock.clone()),
            options,
            clock,
            control: control_receiver,
            bulk: bulk_receiver,
            held: None,
            failing: false,
        };
        Self { control, bulk, task: Mutex::new(Some(tokio::spawn(actor.run()))) }
    }

    /// Sends an operation and waits for its answer; when that is Ok it is committed and durable.
    ///
    /// # Errors
    /// The operation's own (then none of its writes happened), or that of the commit (then nothing of the batch happened).
    pub(super) async fn send<T>(
        &self,
        lane: Lane,
        op: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Op,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::Unusable("the database writer has ended; start again".to_owned());
        let sender = match lane {
            Lane::Control => &self.control,
            Lane::Bulk => &self.bulk,
        };
        sender.send(op(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// The actor has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.control.is_closed()
    }

    /// Waits until everything that was sent is committed and the connection is closed. Later writes fail.
    pub(super) async fn close(self) {
        let task = self.task.lock().ok().and_then(|mut task| task.take());
        drop((self.control, self.bulk));
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the database writer ended badly");
        }
    }
}

struct Actor {
    connection: Option<SqliteConnection>,
    options: SqliteConnectOptions,
    checkpoints: Checkpoints,
    clock: Clock,
    control: mpsc::Receiver<Op>,
    bulk: mpsc::Receiver<Op>,
    /// A bulk operation that did not fit into the last transaction.
    held: Option<Op>,
    /// The last transaction failed for a reason that may pass.
    failing: bool,
}

impl Actor {
    async fn run(mut self) {
        let mut batch = Batch::default();
        while self.gather(&mut batch).await {
            if !batch.is_empty() {
                let fate = self.commit(&mut batch).await;
                self.tell(&fate, batch.len());
                std::mem::take(&mut batch).answer(&fate);
            }
            // A commit that failed took its connection along. The log may be what fills the disk, so it is looked after all the same.
            if self.connection.is_none() && self.checkpoints.wanted() {
                self.connection = self.options.connect().await.ok();
            }
            if let Some(connection) = &mut self.connection {
                self.checkpoints.after_commit(connection).await;
            }
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "closing the database failed");
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

    /// Waits for work, then takes what there is: control first, bulk up to its bound. False when nobody can send any more.
    /// An empty batch means that the log is to be looked at.
    async fn gather(&mut self, batch: &mut Batch) -> bool {
        if self.held.is_none() {
            let first = tokio::select! {
                biased;
                op = receive(&mut self.control, &mut self.bulk) => match op {
                    None => return false,
                    some => some,
                },
                () = self.checkpoints.due() => None,
            };
            // Callers that were answered just now send their next: let them, so that one commit serves them all.
            tokio::task::yield_now().await;
            batch.extend(first);
        }
        while batch.len() < CONTROL_BATCH
            && let Ok(op) = self.control.try_recv()
        {
            batch.extend(Some(op));
        }
        let (mut operations, mut rows) = (0, 0);
        while operations < BULK_BATCH
            && let Some(op) = self.held.take().or_else(|| self.bulk.try_recv().ok())
        {
            if operations > 0 && rows + op.rows() > BULK_ROWS {
                self.held = Some(op);
                break;
            }
            operations += 1;
            rows += op.rows();
            batch.extend(Some(op));
        }
        true
    }

    /// One transaction over the batch. On an error the connection is opened anew: its state is not known.
    async fn commit(&mut self, batch: &mut Batch) -> Result<(), Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        // A bug in one operation must not end the writer.
        let done =
            AssertUnwindSafe(transact(&mut connection, batch, &self.clock)).catch_unwind().await.unwrap_or_else(|_| {
                Err(Error::Backend { message: "an operation panicked; please report this".to_owned(), busy: false })
            });
        if done.is_ok() {
            self.connection = Some(connection);
        } else if let Err(error) = connection.close().await {
            // Closing rolls back what is open.
            tracing::debug!(%error, "closing a failed connection");
        }
        done
    }
}

/// The next operation, of the control lane when both have one; None when nobody can send any more. Safe to drop.
async fn receive(control: &mut mpsc::Receiver<Op>, bulk: &mut mpsc::Receiver<Op>) -> Option<Op> {
    tokio::select! {
        biased;
        Some(op) = control.recv() => Some(op),
        Some(op) = bulk.recv() => Some(op),
        else => None,
    }
}

async fn transact(connection: &mut SqliteConnection, batch: &mut Batch, clock: &Clock) -> Result<(), Error> {
    patiently(connection, "BEGIN IMMEDIATE", clock).await?;
    match batch.run(connection, Mode::Together).await {
        Ok(()) => {}
        // The database itself failed: nothing in this transaction can be trusted.
        Err(error) if error.is_transient() => return Err(error),
        Err(error) => {
            tracing::debug!(%error, "an operation was refused: doing the batch one by one");
            connection.execute("ROLLBACK").await?;
            patiently(connection, "BEGIN IMMEDIATE", clock).await?;
            batch.run(connection, Mode::OneByOne).await?;
        }
    }
    patiently(connection, "COMMIT", clock).await
}

/// Runs a statement that may find the database locked, until the deadline.
async fn patiently(connection: &mut SqliteConnection, statement: &'static str, clock: &Clock) -> Result<(), Error> {
    let start = clock.boot();
    loop {
        match connection.execute(statement).await.map_err(Error::from) {
            Ok(_) => return Ok(()),
            Err(Error::Backend { busy: true, .. }) if clock.boot().since(start) < BUSY_DEADLINE => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}
