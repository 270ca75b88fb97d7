//! At most so many bytes a second, over all blobs of all jobs of a process.
//!
//! Each piece reserves its time on one line that all share, and waits for its turn. What could not be used because nothing
//! was there to send is lost but for a moment's worth, so that a pause is not followed by a flood.

use crate::clock::{BootTime, Clock};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Unused time that may be made up for: longer than a timer is late.
const CREDIT: Duration = Duration::from_millis(100);

/// The limit. Shared by all clones.
#[derive(Debug, Clone, Default)]
pub(super) struct Bandwidth(Option<Arc<Line>>);

#[derive(Debug)]
struct Line {
    bytes_per_sec: NonZeroU64,
    clock: Clock,
    /// When all that was let pass will have passed.
    end: Mutex<BootTime>,
}

impl Bandwidth {
    /// No limit when `bytes_per_sec` is 0.
    pub fn new(bytes_per_sec: u64, clock: Clock) -> Self {
        let line = |bytes_per_sec| Arc::new(Line { bytes_per_sec, clock, end: Mutex::new(BootTime::default()) });
        Self(NonZeroU64::new(bytes_per_sec).map(line))
    }

    /// Waits until so many bytes may pass. Dropped while it waits, it leaves its reservation unused.
    pub async fn pass(&self, bytes: usize) {
        if let Some(line) = &self.0 {
            let wait = line.reserve(line.clock.boot(), u64::try_from(bytes).unwrap_or(u64::MAX));
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
        }
    }
}

impl Line {
    /// How long to wait at `now` before so many bytes pass.
    fn reserve(&self, now: BootTime, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_sec.get());
        let needed = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = end.0.max(now.0.saturating_sub(CREDIT));
        end.0 = begin.saturating_add(needed);
        end.since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootTime {
        BootTime(Duration::from_millis(millis))
    }

    #[test]
    fn what_passes_in_a_while_is_what_the_limit_says() {
        let Bandwidth(Some(line)) = Bandwidth::new(1_000_000, Clock::System) else { panic!("there is a limit") };
        let mut now = at(50_000);
        let mut passed = 0;
        while now < at(60_000) {
            now.0 += line.reserve(now, 128 * 1024);
            passed += 128 * 1024;
        }
        // One piece more, and the credit at the start.
        assert!((10_000_000..=10_240_000).contains(&passed), "{passed}");
    }

    #[test]
    fn a_pause_is_not_followed_by_a_flood() {
        let Bandwidth(Some(line)) = Bandwidth::new(1_000_000, Clock::System) else { panic!("there is a limit") };
        assert!(line.reserve(at(10_000), 50_000).is_zero(), "within the credit");
        assert!(line.reserve(at(20_000), 100_000).is_zero());
        assert_eq!(line.reserve(at(20_000), 500_000), Duration::from_millis(500));
        assert_eq!(line.reserve(at(20_100), 100_000), Duration::from_millis(500), "others wait behind it");
    }

    #[tokio::test]
    async fn without_a_limit_nobody_waits() {
        assert!(Bandwidth::new(0, Clock::System).0.is_none());
        Bandwidth::default().pass(usize::MAX).await;
    }
}
