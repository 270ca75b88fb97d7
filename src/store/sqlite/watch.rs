//! Notices commits of any process: `PRAGMA data_version`, asked by a connection that never writes.
//!
//! Polling that number is the truth. Between two looks at it the size and time of the write-ahead log are looked at, which
//! costs next to nothing and nearly always tells sooner; when they tell nothing, the number still does.

use crate::store::Error;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::Mutex;

/// How often the write-ahead log's size and time are looked at.
const GLANCE: Duration = Duration::from_millis(20);
/// Glances to each look at the number: a foreign row must be noticed within 50 ms, whatever the file says.
const GLANCES: u32 = 2;

pub(super) struct Watch {
    options: SqliteConnectOptions,
    log: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<SqliteConnection>,
    seen: Option<i64>,
}

impl Watch {
    pub(super) fn new(options: SqliteConnectOptions) -> Self {
        let mut log = options.get_filename().as_os_str().to_owned();
        log.push("-wal");
        Self { options, log: log.into(), state: Mutex::default() }
    }

    /// What a commit changes about the write-ahead log; None when it is not there.
    fn glance(&self) -> Option<(u64, i64, i64)> {
        let facts = std::fs::metadata(&self.log).ok()?;
        Some((facts.len(), facts.mtime(), facts.mtime_nsec()))
    }

    /// Returns when something was committed since the last return, or after `at_most`. The first call returns at once. Safe to
    /// drop while it waits.
    pub(super) async fn changed(&self, at_most: Duration) -> Result<(), Error> {
        let look = async {
            loop {
                if self.look().await? {
                    return Ok(());
                }
                let before = self.glance();
                for _ in 0..GLANCES {
                    tokio::time::sleep(GLANCE).await;
                    if self.glance() != before {
                        break;
                    }
                }
            }
        };
        tokio::time::timeout(at_most, look).await.unwrap_or(Ok(()))
    }

    async fn look(&self) -> Result<bool, Error> {
        let mut state = self.state.lock().await;
        // Taken out, so that a look that is dropped half way does not leave a connection in use behind.
        let mut connection = match state.connection.take() {
            Some(connection) => connection,
            None => {
                // The number means nothing across connections.
                state.seen = None;
                self.options.connect().await?
            }
        };
        let version: i64 = sqlx::query("PRAGMA data_version").fetch_one(&mut connection).await?.try_get(0)?;
        state.connection = Some(connection);
        let changed = state.seen != Some(version);
        state.seen = Some(version);
        Ok(changed)
    }

    pub(super) async fn close(self) {
        if let Some(connection) = self.state.into_inner().connection
            && let Err(error) = connection.close().await
        {
            tracing::debug!(%error, "closing the watch connection");
        }
    }
}
