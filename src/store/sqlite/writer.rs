//! The one writer: an actor that owns the one write connection.
//!
//! It drains its bounded channel, runs what it found in one `BEGIN IMMEDIATE` transaction, each operation in a savepoint of
//! its own, commits once, and only then answers. So a commit's fsync is shared by all who wait, and nobody is told OK before
//! it. The connection is not from a pool, and callers never hold it: a caller that is dropped while it waits leaves no
//! transaction behind. It never runs two transactions at once and never does anything but SQL.

use crate::clock::Clock;
use crate::store::Error;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Executor};
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Operations that may wait for the writer; more callers wait outside.
const CHANNEL: usize = 1024;
/// Operations in one transaction: bounds how long the first waits for the last.
const BATCH: usize = 256;
/// How long a locked database is waited for before callers are told. A foreign writer may well hold it for seconds.
const BUSY_DEADLINE: Duration = Duration::from_secs(30);
/// Pause between tries when SQLite's own waiting was in vain.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// The handle of the actor. When it is dropped the actor finishes what was sent and ends.
pub(super) struct Writer {
    sender: mpsc::Sender<Box<dyn Operation>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What an operation does with the connection: statements only, no waiting for anything else.
type Work<T> = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, Error>> + Send>;

impl Writer {
    /// Starts the actor on its own connection.
    #[expect(
        clippy::disallowed_methods,
        reason = "the writer is the store's one task; its handle is kept and awaited by close"
    )]
    pub(super) fn start(connection: SqliteConnection, options: SqliteConnectOptions, clock: Clock) -> Self {
        let (sender, receiver) = mpsc::channel(CHANNEL);
        let actor = Actor { connection: Some(connection), options, clock, receiver };
        Self { sender, task: Mutex::new(Some(tokio::spawn(actor.run()))) }
    }

    /// Runs `work` in a transaction; when this returns Ok it is committed and durable.
    ///
    /// # Errors
    /// Those of `work` (then none of its writes happened), or of the commit (then nothing of the batch happened).
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, Error>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task = Task { work: Some(Box::new(work)), result: None, reply };
        let gone = || Error::Unusable("the database writer has ended; start again".to_owned());
        self.sender.send(Box::new(task)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// The actor has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Waits until everything that was sent is committed and the connection is closed. Later writes fail.
    pub(super) async fn close(self) {
        let task = self.task.lock().ok().and_then(|mut task| task.take());
        drop(self.sender);
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the database writer ended badly");
        }
    }
}

trait Operation: Send {
    fn run<'a>(&'a mut self, connection: &'a mut SqliteConnection) -> BoxFuture<'a, Result<(), Error>>;
    /// Tells the caller: its own result when the batch was committed, else the batch's error.
    fn answer(self: Box<Self>, fate: Result<(), Error>);
}

struct Task<T> {
    work: Option<Work<T>>,
    result: Option<Result<T, Error>>,
    reply: oneshot::Sender<Result<T, Error>>,
}

impl<T: Send> Operation for Task<T> {
    fn run<'a>(&'a mut self, connection: &'a mut SqliteConnection) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let Some(work) = self.work.take() else { return Ok(()) };
            // A bug in one operation must not end the writer. What the connection was about to do is not known then: the
            // batch is rolled back and the connection opened anew.
            let result = AssertUnwindSafe(work(connection)).catch_unwind().await.unwrap_or_else(|_| {
                Err(Error::Backend { message: "the operation panicked; please report this".to_owned(), busy: false })
            });
            let verdict = result.as_ref().map(|_| ()).map_err(Clone::clone);
            self.result = Some(result);
            verdict
        })
    }

    fn answer(self: Box<Self>, fate: Result<(), Error>) {
        let answer = match (self.result, fate) {
            // Its own error is more telling than the batch's.
            (Some(Err(own)), _) => Err(own),
            (_, Err(fate)) => Err(fate),
            (Some(result), Ok(())) => result,
            (None, Ok(())) => Err(Error::Backend { message: "the operation did not run".to_owned(), busy: false }),
        };
        // A caller that has gone does not want to know.
        drop(self.reply.send(answer));
    }
}

struct Actor {
    connection: Option<SqliteConnection>,
    options: SqliteConnectOptions,
    clock: Clock,
    receiver: mpsc::Receiver<Box<dyn Operation>>,
}

impl Actor {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.receiver.recv_many(&mut batch, BATCH).await > 0 {
            let fate = self.commit(&mut batch).await;
            if let Err(error) = &fate {
                tracing::warn!(%error, operations = batch.len(), "a transaction was rolled back");
            }
            for operation in batch.drain(..) {
                operation.answer(fate.clone());
            }
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "closing the database failed");
        }
    }

    /// One transaction over the batch. On an error the connection is opened anew: its state is not known.
    async fn commit(&mut self, batch: &mut [Box<dyn Operation>]) -> Result<(), Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        match transact(&mut connection, batch, &self.clock).await {
            Ok(()) => {
                self.connection = Some(connection);
                Ok(())
            }
            Err(error) => {
                // Closing rolls back what is open.
                if let Err(error) = connection.close().await {
                    tracing::debug!(%error, "closing a failed connection");
                }
                Err(error)
            }
        }
    }
}

async fn transact(
    connection: &mut SqliteConnection,
    batch: &mut [Box<dyn Operation>],
    clock: &Clock,
) -> Result<(), Error> {
    patiently(connection, "BEGIN IMMEDIATE", clock).await?;
    for operation in batch {
        connection.execute("SAVEPOINT operation").await?;
        match operation.run(connection).await {
            Ok(()) => connection.execute("RELEASE operation").await?,
            // The database itself failed: nothing in this transaction can be trusted.
            Err(error) if error.is_transient() => return Err(error),
            Err(_) => connection.execute("ROLLBACK TO operation; RELEASE operation").await?,
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_an_operation_ends_that_batch_and_not_the_writer() {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(folder.path().join("x.db")).create_if_missing(true);
        let writer = Writer::start(options.connect().await.unwrap(), options, Clock::System);
        let run = |statement: &'static str| {
            writer.write(move |connection| {
                Box::pin(async move {
                    connection.execute(statement).await?;
                    assert!(!statement.starts_with("INSERT"), "a bug");
                    Ok(())
                })
            })
        };
        run("CREATE TABLE t (x INTEGER)").await.unwrap();
        let error = run("INSERT INTO t VALUES (1)").await.unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
        run("CREATE UNIQUE INDEX i ON t (x)").await.unwrap();
        let rows = writer
            .write(|connection| {
                Box::pin(async move { Ok(sqlx::query("SELECT x FROM t").fetch_all(connection).await?.len()) })
            })
            .await;
        assert_eq!(rows.unwrap(), 0, "what it wrote was rolled back");
        assert!(!writer.is_closed());
        writer.close().await;
    }
}
