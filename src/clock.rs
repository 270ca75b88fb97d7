//! The only caller of `now()`: wall time for rows, boot time for leases.
//!
//! Two clocks, because they answer different questions. *Wall* time (unix milliseconds, UTC) is what people read in rows;
//! it may jump. *Boot* time (`CLOCK_BOOTTIME`) never jumps and goes on in suspend, which `std::time::Instant` does not;
//! whether a lease may still be trusted is decided by it alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Unix time in milliseconds, UTC: the time type of all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// This time plus `duration`, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The time from `earlier` to this one; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 in UTC with milliseconds, for example `2026-11-23T06:00:00.000Z`.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        chrono::DateTime::<chrono::Utc>::from_timestamp_millis(self.0)
            .unwrap_or_default()
            .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
    }
}

/// Time since boot, including suspend. Never goes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(pub Duration);

impl BootTime {
    /// The time from `earlier` to this one; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Where the program gets its time from. Cheap to clone; clones of a manual clock share their time.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The clocks of this machine.
    #[default]
    System,
    /// A clock that moves only when a test moves it.
    Manual(Arc<ManualClock>),
}

/// The state of a manual clock.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall_ms: AtomicI64,
    boot_ms: AtomicU64,
}

impl ManualClock {
    /// Moves both clocks forward.
    pub fn advance(&self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.boot_ms.fetch_add(ms, Ordering::SeqCst);
        self.wall_ms.fetch_add(i64::try_from(ms).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Makes the wall clock jump, in either direction, while boot time stands still.
    pub fn jump_wall(&self, by_ms: i64) {
        self.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock {
    /// A manual clock that starts at `wall`, with a boot time of one hour.
    #[must_use]
    pub fn manual(wall: UnixMillis) -> (Self, Arc<ManualClock>) {
        let state = Arc::new(ManualClock { wall_ms: AtomicI64::new(wall.0), boot_ms: AtomicU64::new(3_600_000) });
        (Self::Manual(state.clone()), state)
    }

    /// Wall time now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the machine")]
    pub fn now(&self) -> UnixMillis {
        match self {
            Self::System => UnixMillis(chrono::Utc::now().timestamp_millis()),
            Self::Manual(state) => UnixMillis(state.wall_ms.load(Ordering::SeqCst)),
        }
    }

    /// Time since boot now.
    #[must_use]
    pub fn boot(&self) -> BootTime {
        match self {
            Self::System => {
                let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                let secs = u64::try_from(time.tv_sec).unwrap_or(0);
                let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
                BootTime(Duration::new(secs, nanos))
            }
            Self::Manual(state) => BootTime(Duration::from_millis(state.boot_ms.load(Ordering::SeqCst))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let (clock, hand) = Clock::manual(UnixMillis(1_000));
        let boot = clock.boot();
        hand.advance(Duration::from_secs(5));
        assert_eq!(clock.now(), UnixMillis(6_000));
        assert_eq!(clock.boot().since(boot), Duration::from_secs(5));
        hand.jump_wall(-3_000);
        assert_eq!(clock.now(), UnixMillis(3_000));
        assert_eq!(clock.boot().since(boot), Duration::from_secs(5));
    }

    #[test]
    fn times_print_as_rfc3339() {
        assert_eq!(UnixMillis(1_790_000_000_123).to_rfc3339(), "2026-09-21T14:13:20.123Z");
    }
}
