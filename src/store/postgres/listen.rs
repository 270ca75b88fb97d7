//! Notices commits of any process: LISTEN at once, a look at the server's transactions as the truth beneath it.
//!
//! A notification can be lost: with its connection, or behind a pooler where there is none. The look cannot miss a commit: it
//! compares which transactions are done (see the statement `SNAPSHOT`), and costs the server next to nothing. It is taken
//! often while nobody listens, and now and then while somebody does.

use super::connect::{Connections, Sessions, Statement};
use super::statements as sql;
use crate::store::Error;
use crate::store::rows::Columns;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::{OnceCell, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The channel of the triggers.
const CHANNEL: &str = "freightliner";
/// How often it is looked while nobody listens: a foreign row must be noticed within 50 ms.
const LOOK_DEAF: Duration = Duration::from_millis(40);
/// How often it is looked while somebody listens.
const LOOK_LISTENING: Duration = Duration::from_secs(1);
/// Pause before listening is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What the listening task has heard.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    /// Rises with every notification, and when some may have been lost.
    count: u64,
    listens: bool,
}

pub(super) struct Listener {
    /// None behind a pooler: it keeps no session to listen in.
    options: Option<PgConnectOptions>,
    task: OnceCell<(watch::Receiver<Heard>, Mutex<Option<JoinHandle<()>>>)>,
    stop: CancellationToken,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    heard: u64,
    snapshot: Option<String>,
}

impl Listener {
    pub(super) fn new(sessions: &Sessions) -> Self {
        let options = (!sessions.is_pooled()).then(|| sessions.options().clone());
        Self { options, task: OnceCell::new(), stop: CancellationToken::new(), seen: Mutex::default() }
    }

    /// Returns when something was committed since the last return, or after `at_most`. The first call returns at once. Safe to
    /// drop while it waits.
    pub(super) async fn changed(&self, at_most: Duration, connections: &Connections) -> Result<(), Error> {
        let wait = async {
            let mut heard = self.heard().await;
            // The first look has nothing to compare with.
            if self.seen().snapshot.is_none() && self.look(connections).await? {
                return Ok(());
            }
            loop {
                if self.is_news(heard.as_mut()) {
                    return Ok(());
                }
                let told = match &mut heard {
                    Some(heard) if heard.borrow().listens => {
                        matches!(tokio::time::timeout(LOOK_LISTENING, heard.changed()).await, Ok(Ok(())))
                    }
                    _ => {
                        tokio::time::sleep(LOOK_DEAF).await;
                        false
                    }
                };
                // Others' transactions of any kind show in the look too: it is only taken when nobody told us more.
                if !told && self.look(connections).await? {
                    return Ok(());
                }
            }
        };
        tokio::time::timeout(at_most, wait).await.unwrap_or(Ok(()))
    }

    /// What the task hears; it is started by the first who waits.
    async fn heard(&self) -> Option<watch::Receiver<Heard>> {
        let options = self.options.clone()?;
        let (heard, _) = self.task.get_or_init(|| async { start(options, self.stop.clone()) }).await;
        Some(heard.clone())
    }

    fn is_news(&self, heard: Option<&mut watch::Receiver<Heard>>) -> bool {
        let Some(heard) = heard else { return false };
        let count = heard.borrow_and_update().count;
        let mut seen = self.seen();
        std::mem::replace(&mut seen.heard, count) != count
    }

    async fn look(&self, connections: &Connections) -> Result<bool, Error> {
        let snapshot = connections.row(&Statement::new(sql::SNAPSHOT)).await?.text("snapshot")?;
        let mut seen = self.seen();
        let news = seen.snapshot.as_ref() != Some(&snapshot);
        seen.snapshot = Some(snapshot);
        Ok(news)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) async fn close(&self) {
        self.stop.cancel();
        let task = self.task.get().and_then(|(_, task)| task.lock().ok().and_then(|mut task| task.take()));
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "listening to the database ended badly");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "one task that listens; its handle is kept and awaited by close")]
fn start(
    options: PgConnectOptions,
    stop: CancellationToken,
) -> (watch::Receiver<Heard>, Mutex<Option<JoinHandle<()>>>) {
    let (sender, receiver) = watch::channel(Heard::default());
    let task = tokio::spawn(async move {
        stop.run_until_cancelled(async {
            loop {
                if let Err(error) = listen(&options, &sender).await {
                    tracing::debug!(%error, "listening to the database failed; it is looked at more often meanwhile");
                }
                sender.send_modify(|heard| heard.listens = false);
                tokio::time::sleep(RETRY).await;
            }
        })
        .await;
    });
    (receiver, Mutex::new(Some(task)))
}

/// Listens until the connection ends.
async fn listen(options: &PgConnectOptions, sender: &watch::Sender<Heard>) -> Result<(), sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
    let mut listener = PgListener::connect_with(&pool.connect_lazy_with(options.clone())).await?;
    listener.listen(CHANNEL).await?;
    listener.eager_reconnect(false);
    // Whatever was committed before the first notification counts as heard.
    sender.send_modify(|heard| *heard = Heard { count: heard.count + 1, listens: true });
    while listener.try_recv().await?.is_some() {
        while listener.next_buffered().is_some() {}
        sender.send_modify(|heard| heard.count += 1);
    }
    Ok(())
}
