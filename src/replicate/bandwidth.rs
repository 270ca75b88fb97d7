//! At most so many bytes a second: over all blobs of all jobs of a process, and over those of single registries.
//!
//! Each piece reserves its time on the lines that its copy shares with others (one for the process, one for the source's
//! registry, one for the destination's), and waits for the slowest. What could not be used because nothing was there to
//! send is lost but for a moment's worth, so that a pause is not followed by a flood. A rate may be another one at certain
//! times of the day, by a fixed offset from UTC: the zone of a machine's clock is nobody's decision, and in zones with
//! summer time an hour comes twice.

use crate::clock::{BootTime, Clock, UnixMillis};
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Unused time that may be made up for: longer than a timer is late.
const CREDIT: Duration = Duration::from_millis(100);
const MINUTES_PER_DAY: i64 = 24 * 60;

/// How many bytes a second, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rates {
    /// Bytes a second outside of all windows; 0 is no limit.
    pub bytes_per_sec: u64,
    /// The first one that holds decides.
    pub windows: Vec<Window>,
}

/// A rate at a time of the day, every day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Its first minute, from midnight.
    pub from_minute: u32,
    /// The minute at which it ends; before `from_minute` when midnight is within.
    pub to_minute: u32,
    /// East of UTC.
    pub offset_minutes: i32,
    /// Bytes a second; 0 is no limit.
    pub bytes_per_sec: u64,
}

impl Window {
    fn holds(&self, now: UnixMillis) -> bool {
        let minute = (now.0.div_euclid(60_000) + i64::from(self.offset_minutes)).rem_euclid(MINUTES_PER_DAY);
        let (from, to) = (i64::from(self.from_minute), i64::from(self.to_minute));
        if from <= to { (from..to).contains(&minute) } else { minute >= from || minute < to }
    }
}

impl Rates {
    /// Bytes a second at `now`; None: no limit.
    fn at(&self, now: UnixMillis) -> Option<NonZeroU64> {
        let window = self.windows.iter().find(|window| window.holds(now));
        NonZeroU64::new(window.map_or(self.bytes_per_sec, |window| window.bytes_per_sec))
    }
}

/// All limits of a process. Shared by all clones.
#[derive(Debug, Clone, Default)]
pub(super) struct Bandwidths {
    all: Option<Arc<Line>>,
    registries: Arc<BTreeMap<String, Arc<Line>>>,
}

/// The limits of one copy.
#[derive(Debug, Clone, Default)]
pub(super) struct Bandwidth(Arc<[Arc<Line>]>);

#[derive(Debug)]
struct Line {
    rates: Rates,
    clock: Clock,
    /// When all that was let pass will have passed.
    end: Mutex<BootTime>,
}

impl Bandwidths {
    pub fn new(all: &Rates, registries: &BTreeMap<String, Rates>, clock: &Clock) -> Self {
        let line = |rates: &Rates| {
            let limited = *rates != Rates::default();
            limited.then(|| Arc::new(Line { rates: rates.clone(), clock: clock.clone(), end: Mutex::default() }))
        };
        let registries = registries.iter().filter_map(|(host, rates)| Some((host.clone(), line(rates)?)));
        Self { all: line(all), registries: Arc::new(registries.collect()) }
    }

    /// What limits a copy between these registries (None: a layout). One that is both is counted once.
    pub fn of_copy(&self, mut hosts: [Option<&str>; 2]) -> Bandwidth {
        if hosts[0] == hosts[1] {
            hosts[1] = None;
        }
        let registries = hosts.into_iter().flatten().filter_map(|host| self.registries.get(&host.to_ascii_lowercase()));
        Bandwidth(self.all.iter().chain(registries).cloned().collect())
    }
}

impl Bandwidth {
    /// Waits until so many bytes may pass. Dropped while it waits, it leaves its reservations unused.
    pub async fn pass(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let waits = self.0.iter().map(|line| line.reserve(line.clock.boot(), line.clock.now(), bytes));
        let wait = waits.max().unwrap_or_default();
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

impl Line {
    /// How long to wait at `now` (`wall` on the wall) before so many bytes pass.
    fn reserve(&self, now: BootTime, wall: UnixMillis, bytes: u64) -> Duration {
        let Some(bytes_per_sec) = self.rates.at(wall) else { return Duration::ZERO };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_sec.get());
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

    /// Midnight UTC.
    const MIDNIGHT: UnixMillis = UnixMillis(20_780 * 24 * 60 * 60 * 1_000);

    fn at(millis: u64) -> BootTime {
        BootTime(Duration::from_millis(millis))
    }

    fn rates(bytes_per_sec: u64) -> Rates {
        Rates { bytes_per_sec, windows: Vec::new() }
    }

    fn line(rates: &Rates) -> Arc<Line> {
        Bandwidths::new(rates, &BTreeMap::new(), &Clock::System).all.unwrap()
    }

    fn clock_time(hours: u64, minutes: u64) -> UnixMillis {
        MIDNIGHT.plus(Duration::from_secs(hours * 3_600 + minutes * 60))
    }

    #[test]
    fn what_passes_in_a_while_is_what_the_limit_says() {
        let line = line(&rates(1_000_000));
        let mut now = at(50_000);
        let mut passed = 0;
        while now < at(60_000) {
            now.0 += line.reserve(now, MIDNIGHT, 128 * 1024);
            passed += 128 * 1024;
        }
        // One piece more, and the credit at the start.
        assert!((10_000_000..=10_240_000).contains(&passed), "{passed}");
    }

    #[test]
    fn a_pause_is_not_followed_by_a_flood() {
        let line = line(&rates(1_000_000));
        let reserve = |millis, bytes| line.reserve(at(millis), MIDNIGHT, bytes);
        assert!(reserve(10_000, 50_000).is_zero(), "within the credit");
        assert!(reserve(20_000, 100_000).is_zero());
        assert_eq!(reserve(20_000, 500_000), Duration::from_millis(500));
        assert_eq!(reserve(20_100, 100_000), Duration::from_millis(500), "others wait behind it");
    }

    #[test]
    fn windows_hold_by_their_own_offset_and_over_midnight() {
        let window = |from_minute, to_minute, offset_minutes, bytes_per_sec| Window {
            from_minute,
            to_minute,
            offset_minutes,
            bytes_per_sec,
        };
        let rates = Rates {
            bytes_per_sec: 50,
            windows: vec![window(480, 1080, 120, 5), window(1320, 120, 0, 0), window(0, 1440, 0, 7)],
        };
        let at = |hours, minutes| rates.at(clock_time(hours, minutes)).map_or(0, NonZeroU64::get);
        assert_eq!((at(5, 59), at(6, 0), at(15, 59), at(16, 0)), (7, 5, 5, 7), "eight to eighteen, two hours east");
        assert_eq!((at(21, 59), at(22, 0), at(23, 59), at(0, 0), at(1, 59), at(2, 0)), (7, 0, 0, 0, 0, 7));
        let day = Rates { bytes_per_sec: 50, windows: vec![window(480, 1080, -180, 5)] };
        assert_eq!(day.at(clock_time(20, 59)).unwrap().get(), 5);
        assert_eq!((day.at(clock_time(21, 0)).unwrap().get(), day.at(clock_time(10, 59)).unwrap().get()), (50, 50));
    }

    #[test]
    fn a_rate_changes_with_the_time_of_day() {
        let window = Window { from_minute: 480, to_minute: 1080, offset_minutes: 0, bytes_per_sec: 1_000 };
        let line = line(&Rates { bytes_per_sec: 0, windows: vec![window] });
        assert!(line.reserve(at(10_000), clock_time(7, 59), 1 << 30).is_zero());
        assert_eq!(line.reserve(at(20_000), clock_time(8, 0), 1_100), Duration::from_secs(1));
        assert!(line.reserve(at(30_000), clock_time(18, 0), 1 << 30).is_zero());
    }

    #[test]
    fn a_copy_is_limited_by_the_process_and_by_both_its_registries() {
        let registries = BTreeMap::from([
            ("slow:5000".to_owned(), rates(1)),
            ("other".to_owned(), rates(2)),
            ("free".to_owned(), rates(0)),
        ]);
        let all = Bandwidths::new(&rates(3), &registries, &Clock::System);
        let of = |one, other| {
            let copy = all.of_copy([one, other]);
            copy.0.iter().map(|line| line.rates.bytes_per_sec).collect::<Vec<_>>()
        };
        assert_eq!(of(Some("Slow:5000"), Some("other")), [3, 1, 2]);
        assert_eq!(of(Some("other"), Some("other")), [3, 2], "counted once");
        assert_eq!(of(None, Some("slow:5000")), [3, 1]);
        assert_eq!(of(Some("free"), Some("slow")), [3]);
    }

    #[tokio::test]
    async fn without_a_limit_nobody_waits() {
        let none = Bandwidths::new(&Rates::default(), &BTreeMap::new(), &Clock::System);
        assert!(none.of_copy([Some("a"), Some("b")]).0.is_empty());
        Bandwidth::default().pass(usize::MAX).await;
    }
}
