//! How workers work.

use crate::clock::UnixMillis;
use crate::job::NewSchedule;
use crate::job::batch::BatchId;
use crate::mirror::Rules;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How a worker works; every value has a default.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Jobs at a time.
    pub concurrency: usize,
    /// Only from this queue.
    pub queue: Option<String>,
    /// How long a lease holds without renewal.
    pub lease_ttl: Duration,
    /// The longest time between two renewals.
    pub lease_renewal: Duration,
    /// How long before its end a lease is not trusted any more.
    pub lease_margin: Duration,
    /// The time between two sweeps.
    pub sweep_interval: Duration,
    /// Pauses between attempts.
    pub retry: crate::job::retry::Policy,
    /// Deaths of workers in a row without progress after which a job fails as poison.
    pub poison_limit: i64,
    /// How long running copies may go on after the first signal.
    pub shutdown_grace: Duration,
    /// For these destination registries: at most so many running jobs, on all workers together.
    pub registry_limits: Arc<BTreeMap<String, u32>>,
    /// How long finished jobs are kept.
    pub retention: Retention,
    /// Only jobs of this batch, and until it is finished.
    pub batch: Option<BatchId>,
    /// The mirrors of the configuration, by name.
    pub mirrors: Arc<BTreeMap<String, Rules>>,
    /// The schedules of the configuration.
    pub schedules: Arc<Vec<NewSchedule>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: 16,
            queue: None,
            lease_ttl: Duration::from_secs(30),
            lease_renewal: Duration::from_secs(10),
            lease_margin: Duration::from_secs(5),
            sweep_interval: Duration::from_secs(5),
            retry: crate::job::retry::Policy::default(),
            poison_limit: 10,
            shutdown_grace: Duration::from_secs(25),
            registry_limits: Arc::default(),
            retention: Retention::default(),
            batch: None,
            mirrors: Arc::default(),
            schedules: Arc::default(),
        }
    }
}

/// How long finished jobs are kept, with their history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Completed and cancelled ones.
    pub finished: Duration,
    /// Failed ones.
    pub failed: Duration,
    /// Idempotency keys of jobs that are not kept any more.
    pub keys: Duration,
}

impl Retention {
    /// What is removed at this moment. A duration of zero keeps for ever.
    #[must_use]
    pub fn at(&self, now: UnixMillis) -> crate::store::Retention {
        let before = |kept: Duration| {
            let ms = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
            (ms > 0).then(|| UnixMillis(now.0.saturating_sub(ms)))
        };
        crate::store::Retention {
            completed_before: before(self.finished),
            cancelled_before: before(self.finished),
            failed_before: before(self.failed),
            keys_before: before(self.keys),
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self { finished: DAY * 30, failed: DAY * 90, keys: DAY * 30 }
    }
}
