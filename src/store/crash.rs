//! What the death of a worker means for its job, the same on every database.

use std::time::Duration;

/// A job whose workers die although bytes move is poison too, in the end: after so many times the limit of fruitless deaths.
const CRASHES_PER_POISON_LIMIT: i64 = 10;
/// Deaths that are answered at once: machines are stopped all the time.
const CRASHES_AT_ONCE: i64 = 3;
/// The longest pause after a death: a job that kills its worker must not have all workers.
const CRASH_PAUSE_CAP: Duration = Duration::from_secs(10);

/// The pause after the death number `crashes` of a generation: none for the first ones, then 1 s, doubling to the cap.
pub(super) fn crash_pause(crashes: i64) -> Duration {
    match crashes.saturating_sub(CRASHES_AT_ONCE) {
        more @ 1.. => Duration::from_secs(1 << (more - 1).min(10)).min(CRASH_PAUSE_CAP),
        _ => Duration::ZERO,
    }
}

/// Whether a death is one too many: this one without progress and the `in_a_row`th such, or the number `crashes` of the
/// generation.
pub(super) fn is_poison(fruitless: bool, in_a_row: i64, crashes: i64, poison_limit: i64) -> bool {
    fruitless && in_a_row >= poison_limit || crashes >= poison_limit.saturating_mul(CRASHES_PER_POISON_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_deaths_are_answered_at_once_and_later_ones_wait() {
        let secs: Vec<_> = (1..=9).map(|crashes| crash_pause(crashes).as_secs()).collect();
        assert_eq!(secs, [0, 0, 0, 1, 2, 4, 8, 10, 10]);
        assert_eq!(crash_pause(i64::MAX), CRASH_PAUSE_CAP);
    }

    #[test]
    fn progress_forgives_for_a_while() {
        assert!(!is_poison(true, 2, 2, 3) && is_poison(true, 3, 3, 3));
        assert!(!is_poison(false, 3, 29, 3) && is_poison(false, 3, 30, 3));
    }
}
