//! What to do after a failed attempt: a pure decision by error class.
//!
//! The class is given by the door where the error arose and travels with the error, so that nobody reads messages to
//! decide. Jitter is derived from (job, attempt): the same row always gets the same answer, and a thousand jobs that
//! failed together do not come back together.

use super::JobId;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// What kind of failure an error is. Given by the door where the error arose; travels with the error to the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// May pass: network, time-outs, 5xx, 429. `after` is the registry's own wish.
    Retry {
        /// Not before this has passed (Retry-After).
        after: Option<Duration>,
    },
    /// Not allowed: 401 after authentication, 403.
    Denied,
    /// Not there: 404, unknown tag, missing layout entry.
    Absent,
    /// Will never be accepted as it is: 400, 413, 415, unsupported manifest, bad reference.
    Refused,
    /// Content does not match its digest or size, also after reading it again.
    Corrupt,
}

impl Class {
    /// May pass, at a time of our choosing.
    pub const RETRY: Self = Self::Retry { after: None };

    /// The word in rows and JSON (`failure.class`).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry { .. } => "retryable",
            Self::Denied => "denied",
            Self::Absent => "absent",
            Self::Refused => "refused",
            Self::Corrupt => "corrupt",
        }
    }
}

/// How failed attempts are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The pause after the first failed attempt; doubles with each further one.
    pub base: Duration,
    /// The longest pause of our own choosing. A registry's Retry-After may be longer.
    pub cap: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { base: Duration::from_secs(1), cap: Duration::from_secs(600) }
    }
}

/// The share of the pause by which it may be longer or shorter, percent.
const JITTER_PERCENT: u64 = 20;
/// The longest Retry-After that is believed: a registry must not park a job for years.
const RETRY_AFTER_CAP: Duration = Duration::from_secs(24 * 3600);

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Another attempt, not before `pause` has passed.
    Retry {
        /// From the end of the failed attempt.
        pause: Duration,
    },
    /// No other attempt.
    GiveUp,
}

/// Decides what follows the failed attempt number `attempt` (1 is the first) of `max_attempts`.
#[must_use]
pub fn decide(policy: Policy, class: Class, job: JobId, attempt: i64, max_attempts: i64) -> Decision {
    let Class::Retry { after } = class else { return Decision::GiveUp };
    if attempt >= max_attempts {
        return Decision::GiveUp;
    }
    let pause = backoff(policy, job, attempt);
    Decision::Retry { pause: after.map_or(pause, |after| pause.max(after.min(RETRY_AFTER_CAP))) }
}

/// The pause after attempt number `attempt` of `job`: base x 2^(attempt-1), at most the cap, plus or minus 20 %.
#[must_use]
pub fn backoff(policy: Policy, job: JobId, attempt: i64) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1).clamp(0, 40)).unwrap_or(40);
    let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
    let base_ms = u64::try_from(policy.base.as_millis()).unwrap_or(u64::MAX);
    let cap_ms = u64::try_from(policy.cap.as_millis()).unwrap_or(u64::MAX);
    let pause_ms = base_ms.saturating_mul(factor).min(cap_ms);
    let spread = pause_ms.saturating_mul(2 * JITTER_PERCENT) / 100;
    let offset = if spread == 0 { 0 } else { mix(job, attempt) % (spread + 1) };
    Duration::from_millis(pause_ms - pause_ms.saturating_mul(JITTER_PERCENT) / 100 + offset)
}

/// A number that depends on both in no visible way, the same in every process.
fn mix(job: JobId, attempt: i64) -> u64 {
    let mut hash = Sha256::new();
    hash.update(job.to_be_bytes());
    hash.update(attempt.to_be_bytes());
    hash.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: Policy = Policy { base: Duration::from_secs(1), cap: Duration::from_secs(600) };

    #[test]
    fn only_what_may_pass_is_repeated() {
        for class in [Class::Denied, Class::Absent, Class::Refused, Class::Corrupt] {
            assert_eq!(decide(POLICY, class, 1, 1, 8), Decision::GiveUp);
        }
        assert!(matches!(decide(POLICY, Class::RETRY, 1, 1, 8), Decision::Retry { .. }));
        assert_eq!(decide(POLICY, Class::RETRY, 1, 8, 8), Decision::GiveUp);
    }

    #[test]
    fn retry_after_is_honoured_within_a_day() {
        let wish = |secs| Class::Retry { after: Some(Duration::from_secs(secs)) };
        assert_eq!(decide(POLICY, wish(90), 1, 1, 8), Decision::Retry { pause: Duration::from_secs(90) });
        assert_eq!(decide(POLICY, wish(u64::MAX), 1, 1, 8), Decision::Retry { pause: RETRY_AFTER_CAP });
        let Decision::Retry { pause } = decide(POLICY, wish(0), 1, 1, 8) else { panic!("gave up") };
        assert!(pause >= Duration::from_millis(800));
    }

    proptest! {
        #[test]
        fn the_pause_doubles_within_its_jitter(job in any::<i64>(), attempt in 1_i64..1_000_000) {
            let exact = 1_000_u64.saturating_mul(1 << (attempt - 1).min(30)).min(600_000);
            let pause = u64::try_from(backoff(POLICY, job, attempt).as_millis()).unwrap();
            prop_assert!(pause >= exact * 8 / 10 && pause <= exact * 12 / 10 + 1, "{pause} for {exact}");
            prop_assert_eq!(backoff(POLICY, job, attempt), backoff(POLICY, job, attempt));
        }
    }

    #[test]
    fn jobs_that_failed_together_come_back_apart() {
        let pauses: std::collections::BTreeSet<_> = (1..=100).map(|job| backoff(POLICY, job, 5)).collect();
        assert!(pauses.len() > 80, "only {} different pauses", pauses.len());
    }
}
