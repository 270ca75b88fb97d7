//! What an answer says of the requests that are left: `ratelimit-remaining` and its like. Pure.
//!
//! `N`, or `N;w=SECONDS` where the service counts over a sliding window (Docker Hub). A reset is seconds from now or a
//! Unix time (GitHub). Numbers are read from answers and never assumed: they differ by account and by day.

use crate::clock::UnixMillis;
use http::HeaderMap;
use std::time::Duration;

/// One of so many is kept for others who share the account or the address.
const RESERVE: u64 = 20;
/// Most requests that are kept so.
const RESERVE_MOST: u64 = 20;
/// Longest pause that is believed: a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Smaller numbers of a reset are seconds from now, larger ones a time: one year.
const TIMES_BEGIN_SECS: u64 = 365 * 24 * 60 * 60;

/// How long counted requests should wait, by the headers of an answer. None: they say nothing. Zero: enough is left.
pub(super) fn pause(headers: &HeaderMap, now: UnixMillis) -> Option<Duration> {
    let remaining = number(headers, "remaining")?;
    let limit = number(headers, "limit");
    let window = remaining.window.or(limit.and_then(|limit| limit.window));
    let limit = limit.map(|limit| limit.count).filter(|limit| *limit > 0);
    let reserve = limit.map_or(0, |limit| (limit / RESERVE).min(RESERVE_MOST));
    if remaining.count > reserve {
        return Some(Duration::ZERO);
    }
    let reset = number(headers, "reset").map(|reset| match reset.count {
        seconds if seconds < TIMES_BEGIN_SECS => Duration::from_secs(seconds),
        time => {
            let then = i64::try_from(time.saturating_mul(1_000)).unwrap_or(i64::MAX);
            UnixMillis(then).since(now)
        }
    });
    // A sliding window gives one back every so often.
    let sliding = window.zip(limit).map(|(window, limit)| {
        let missing = reserve + 1 - remaining.count;
        Duration::from_secs(window).mul_f64((missing as f64 / limit as f64).min(1.0))
    });
    Some(reset.or(sliding)?.min(LONGEST))
}

#[derive(Clone, Copy)]
struct Number {
    count: u64,
    window: Option<u64>,
}

fn number(headers: &HeaderMap, what: &str) -> Option<Number> {
    let names = [format!("ratelimit-{what}"), format!("x-ratelimit-{what}")];
    let text = names.iter().find_map(|name| headers.get(name.as_str()))?.to_str().ok()?;
    let mut parts = text.split(';').map(str::trim);
    let count = parts.next()?.parse().ok()?;
    let window = parts.find_map(|part| part.strip_prefix("w=")?.parse().ok());
    Some(Number { count, window })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: UnixMillis = UnixMillis(1_795_413_600_000);

    fn found(pairs: &[(&'static str, &str)]) -> Option<f64> {
        let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        pause(&headers, NOW).map(|pause| pause.as_secs_f64())
    }

    #[test]
    fn the_forms_of_the_services_are_understood() {
        // Docker Hub: 100 in six hours, five are kept.
        assert_eq!(found(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "76;w=21600")]), Some(0.0));
        assert_eq!(found(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "6;w=21600")]), Some(0.0));
        assert_eq!(found(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "5;w=21600")]), Some(216.0));
        assert_eq!(found(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "0;w=21600")]), Some(1296.0));
        // GitHub: a time.
        let github =
            [("x-ratelimit-limit", "2000"), ("x-ratelimit-remaining", "20"), ("x-ratelimit-reset", "1795413630")];
        assert_eq!(found(&github), Some(30.0));
        // Seconds from now; a limit nobody told.
        assert_eq!(found(&[("ratelimit-remaining", "0"), ("ratelimit-reset", "7")]), Some(7.0));
        assert_eq!(found(&[("ratelimit-remaining", "1"), ("ratelimit-reset", "7")]), Some(0.0));
        assert_eq!(found(&[("ratelimit-remaining", "0"), ("ratelimit-reset", "99999999999999")]), Some(86_400.0));
        // Nothing to go by: the registry will say when it is enough.
        assert_eq!(found(&[("ratelimit-remaining", "0")]), None);
        assert_eq!(found(&[("ratelimit-remaining", "many")]), None);
        assert_eq!(found(&[]), None);
    }

    proptest! {
        #[test]
        fn never_panics(limit in "[0-9;w=]{0,24}", remaining in "[0-9;w=]{0,24}", reset in "[0-9]{0,22}") {
            found(&[("ratelimit-limit", &limit), ("ratelimit-remaining", &remaining), ("ratelimit-reset", &reset)]);
        }
    }
}
