//! Time that passed, and what many samples of it say.

use freightliner::clock::{BootTime, Clock};
use std::time::Duration;

/// Time since a moment.
#[derive(Clone, Copy)]
pub struct Timer(BootTime);

impl Timer {
    /// From now on.
    pub fn start() -> Self {
        Self(Clock::System.boot())
    }

    /// Since the start.
    pub fn elapsed(self) -> Duration {
        Clock::System.boot().since(self.0)
    }

    /// From another moment until this one.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.since(earlier.0)
    }

    /// So many in the time since the start, a second.
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
    pub fn rate(self, count: usize) -> f64 {
        count as f64 / self.elapsed().as_secs_f64()
    }
}

/// Samples of one thing.
#[derive(Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// One more.
    pub fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest sample that is not below so many hundredths of all, milliseconds; nearest rank. 0 without samples.
    pub fn percentile(&self, hundredths: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * hundredths).div_ceil(100).max(1);
        sorted.get(rank - 1).map_or(0.0, |sample| millis(*sample))
    }
}

/// A duration as milliseconds.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
