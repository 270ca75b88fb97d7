//! Notices commits of any process: LISTEN at once, a look at the server's transactions as the truth beneath it.
//!
//! A notification can be lost: with its connection, or behind a pooler where there is none. The look cannot miss a commit: it
//! compares which transactions are done (see the statement `SNAPSHOT`), and costs the server next to nothing. It is taken
//! often while nobody listens, and now and then while somebody does. Often too while a claim passed over a row that somebody
//! has locked: who only looked, or takes the change back, notifies nobody.

use super::connect::{Connections, Listening, Sessions, Statement, part};
use super::statements as sql;
use crate::store::Error;
use crate::store::rows::Columns;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions, Row};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The channel of the triggers.
const CHANNEL: &str = "freightliner";
/// What the function `enqueue_jobs` says there.
const ASKED: &str = "asked";
/// How often it is looked while nobody listens, or a row was locked: a foreign row must be noticed within 50 ms.
const LOOK_DEAF: Duration = Duration::from_millis(40);
/// How often it is looked while somebody listens.
const LOOK_LISTENING: Duration = Duration::from_secs(1);
/// Pause before listening is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Up to where one subscriber has been told.
#[derive(Debug, Default)]
pub(super) struct Cursor(AtomicU64);

/// The last claim passed over a row that somebody has locked.
#[derive(Debug, Clone, Default)]
pub(super) struct Skipped(Arc<AtomicBool>);

impl Skipped {
    pub(super) fn set(&self, skipped: bool) {
        self.0.store(skipped, Ordering::Relaxed);
    }
}

pub(super) struct Listener {
    /// None behind a pooler without a way past it.
    way: Option<Listening>,
    heard: Arc<Heard>,
    task: OnceLock<Mutex<Option<JoinHandle<()>>>>,
    stop: CancellationToken,
    snapshot: Mutex<Option<String>>,
    skipped: Skipped,
}

struct Heard {
    /// How many times a commit was noticed, or may have been missed.
    noticed: watch::Sender<u64>,
    listens: AtomicBool,
    /// Jobs were asked for, by somebody whose program made them ready to be claimed.
    asked: AtomicBool,
}

impl Heard {
    fn notice(&self) {
        self.noticed.send_modify(|noticed| *noticed += 1);
    }
}

impl Listener {
    pub(super) fn new(sessions: &Sessions) -> Self {
        // One more than a new cursor has been told, so that its first call returns at once.
        let heard =
            Heard { noticed: watch::Sender::new(1), listens: AtomicBool::new(false), asked: AtomicBool::new(false) };
        Self {
            way: sessions.listening().cloned(),
            heard: Arc::new(heard),
            task: OnceLock::new(),
            stop: CancellationToken::new(),
            snapshot: Mutex::default(),
            skipped: Skipped::default(),
        }
    }

    /// Where claims say that they passed over a row.
    pub(super) fn skipped(&self) -> Skipped {
        self.skipped.clone()
    }

    /// Something was committed here that somebody in this process may wait for. Who listens hears of it from the server too,
    /// but later, and looks once more then.
    pub(super) fn committed(&self) {
        self.heard.notice();
    }

    /// As [`Listener::committed`], and it was jobs that can be claimed.
    pub(super) fn asked(&self) {
        self.heard.asked.store(true, Ordering::Release);
        self.heard.notice();
    }

    /// True once when jobs were asked for since the last call.
    pub(super) fn was_asked(&self) -> bool {
        self.heard.asked.swap(false, Ordering::AcqRel)
    }

    /// Returns when something was committed since the last return with this cursor, or after `at_most`. The first call returns
    /// at once. Safe to drop while it waits.
    pub(super) async fn changed(
        &self,
        cursor: &Cursor,
        at_most: Duration,
        connections: &Connections,
    ) -> Result<(), Error> {
        let told = cursor.0.load(Ordering::Relaxed);
        let mut noticed = self.heard.noticed.subscribe();
        let wait = async {
            self.listen();
            if told == 0 {
                // What later looks are compared with.
                self.look(connections).await?;
            }
            loop {
                let now = *noticed.borrow_and_update();
                if now != told {
                    cursor.0.fetch_max(now, Ordering::Relaxed);
                    return Ok(());
                }
                let told_of_all = self.heard.listens.load(Ordering::Relaxed) && !self.skipped.0.load(Ordering::Relaxed);
                let pause = if told_of_all { LOOK_LISTENING } else { LOOK_DEAF };
                // Others' transactions of any kind show in the look too: it is only taken when nobody told us more.
                if tokio::time::timeout(pause, noticed.changed()).await.is_err() && self.look(connections).await? {
                    self.heard.notice();
                }
            }
        };
        tokio::time::timeout(at_most, wait).await.unwrap_or(Ok(()))
    }

    /// True when some transaction was committed since the last look of anybody here.
    async fn look(&self, connections: &Connections) -> Result<bool, Error> {
        let snapshot = connections.row(&Statement::new(sql::SNAPSHOT)).await?.text("snapshot")?;
        let mut last = self.snapshot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = last.replace(snapshot);
        Ok(before != *last)
    }

    /// Starts the task that listens, when the first one waits.
    fn listen(&self) {
        if let Some(way) = &self.way {
            self.task.get_or_init(|| start(way.clone(), self.heard.clone(), self.stop.clone()));
        }
    }

    pub(super) async fn close(&self) {
        self.stop.cancel();
        let task = self.task.get().and_then(|task| task.lock().ok().and_then(|mut task| task.take()));
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "listening to the database ended badly");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "one task that listens; its handle is kept and awaited by close")]
fn start(way: Listening, heard: Arc<Heard>, stop: CancellationToken) -> Mutex<Option<JoinHandle<()>>> {
    Mutex::new(Some(tokio::spawn(async move {
        let listening = async {
            let mut told = false;
            loop {
                match listen(&way, &heard).await {
                    // Somebody wants this to work, and nothing else would show that it does not.
                    Err(error) if way.others.is_some() && !std::mem::replace(&mut told, true) => {
                        tracing::warn!(%error, "the database URL's `listen` is of no use; new jobs are looked for instead, until it is");
                    }
                    Err(error) => {
                        tracing::debug!(%error, "listening to the database failed; it is looked at more often meanwhile");
                    }
                    Ok(()) => told = false,
                }
                heard.listens.store(false, Ordering::Relaxed);
                // Whoever waits for long must know that it has to look now.
                heard.notice();
                tokio::time::sleep(RETRY).await;
            }
        };
        stop.run_until_cancelled(listening).await;
    })))
}

/// Listens until the connection ends.
async fn listen(way: &Listening, heard: &Heard) -> Result<(), Error> {
    if let Some(others) = &way.others
        && place(others).await? != place(&way.options).await?
    {
        // Who listens looks less often; in the wrong place it would hear nothing.
        return Err(Error::Unusable("it leads to another database".to_owned()));
    }
    let pool = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
    let mut listener = PgListener::connect_with(&pool.connect_lazy_with(way.options.clone())).await?;
    listener.listen(CHANNEL).await?;
    listener.eager_reconnect(false);
    heard.listens.store(true, Ordering::Relaxed);
    // What was committed before this moment may have been missed.
    heard.notice();
    while let Some(first) = listener.try_recv().await? {
        let mut asked = first.payload() == ASKED;
        while let Some(next) = listener.next_buffered() {
            asked |= next.payload() == ASKED;
        }
        if asked {
            heard.asked.store(true, Ordering::Release);
        }
        heard.notice();
    }
    Ok(())
}

/// Tells one database of one server from all others. The server's start stands for the server: it is known to the microsecond.
async fn place(options: &PgConnectOptions) -> Result<String, Error> {
    const PLACE: &str = "SELECT to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS') || ' ' \
        || (SELECT oid FROM pg_database WHERE datname = current_database()) AS place";
    let mut connection = options.connect().await?;
    let place = sqlx::raw_sql(PLACE).fetch_one(&mut connection).await?.try_get("place")?;
    part(connection).await;
    Ok(place)
}
