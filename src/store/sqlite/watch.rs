//! Notices commits of any process: `PRAGMA data_version`, asked by a connection that never writes.
//!
//! Polling is the truth and not a file-change notification, because a notification can be lost and a number cannot.

use crate::store::Error;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row};
use std::time::Duration;
use tokio::sync::Mutex;

/// How often the number is read. A foreign row must be noticed within 50 ms; one look costs some 20 microseconds.
const POLL: Duration = Duration::from_millis(20);

pub(super) struct Watch {
    options: SqliteConnectOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<SqliteConnection>,
    seen: Option<i64>,
}

impl Watch {
    pub(super) fn new(options: SqliteConnectOptions) -> Self {
        Self { options, state: Mutex::default() }
    }

    /// Returns when something was committed since the last return, or after `at_most`. The first call returns at once. Safe to
    /// drop while it waits.
    pub(super) async fn changed(&self, at_most: Duration) -> Result<(), Error> {
        let look = async {
            loop {
                if self.look().await? {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
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
