//! Upkeep of the database itself, beside the sweeper: what takes seconds must not keep a sweep waiting.

use crate::shutdown::Shutdown;
use crate::store::{Error, Store};
use std::time::Duration;

/// How often the database is asked whether it needs anything.
const INTERVAL: Duration = Duration::from_secs(10);

/// Tends the database.
pub struct Upkeep {
    store: Store,
}

impl Upkeep {
    /// For this database.
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    /// Tends until the shutdown drains; what is under way then ends by itself at the server. Errors are logged and waited out.
    pub async fn run(self, shutdown: Shutdown) {
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

    /// One look, and a vacuum where it is worth one: see [`Store::tend`]. True when there was one.
    ///
    /// # Errors
    /// The store's.
    pub async fn tick(&self) -> Result<bool, Error> {
        self.store.tend().await
    }
}
