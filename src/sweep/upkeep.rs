//! Upkeep of the database itself, beside the sweeper: what takes seconds must not keep a sweep waiting.

use crate::clock::{BootTime, Clock, UnixMillis};
use crate::shutdown::Shutdown;
use crate::store::{Error, Store};
use std::time::Duration;

/// How often the database is asked whether it needs anything.
const INTERVAL: Duration = Duration::from_secs(10);

/// Uploads that nobody went on with for so long are forgotten: registries forget them sooner.
const UPLOADS_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Where blobs were seen is forgotten after so long, and learned again by the next copy.
const BLOBS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How often it is looked for what may be forgotten.
const TRIM_INTERVAL: Duration = Duration::from_secs(600);
/// Rows forgotten at a time.
const TRIM_PIECE: u32 = 1000;

/// Tends the database.
pub struct Upkeep {
    store: Store,
    clock: Clock,
    /// When it was last looked for what may be forgotten.
    trimmed: Option<BootTime>,
}

impl Upkeep {
    /// For this database.
    #[must_use]
    pub const fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock, trimmed: None }
    }

    /// Tends until the shutdown drains; what is under way then ends by itself at the server. Errors are logged and waited out.
    pub async fn run(mut self, shutdown: Shutdown) {
        let tending = async {
            loop {
                tokio::time::sleep(INTERVAL).await;
                match self.tick().await {
                    Ok(true) => tracing::debug!("the database forgot rows that are gone"),
                    Ok(false) => {}
                    Err(error) => tracing::debug!(%error, "the database could not be tended, trying again"),
                }
            }
        };
        shutdown.drain.run_until_cancelled(tending).await;
    }

    /// One look: forgets what is known of destinations from long ago, and vacuums where that is worth it: see [`Store::tend`].
    /// True when there was a vacuum.
    ///
    /// # Errors
    /// The store's.
    pub async fn tick(&mut self) -> Result<bool, Error> {
        let now = self.clock.boot();
        if self.trimmed.is_none_or(|trimmed| now.since(trimmed) >= TRIM_INTERVAL) {
            let today = self.clock.now();
            let before = |kept: Duration| UnixMillis(today.0 - i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
            // As many as there are wait for the next look when there are more than a piece.
            if self.store.ledger_trim(before(UPLOADS_KEPT), before(BLOBS_KEPT), TRIM_PIECE).await?
                < u64::from(TRIM_PIECE)
            {
                self.trimmed = Some(now);
            }
        }
        self.store.tend().await
    }
}
