//! How often and how soon one request is tried again.
//!
//! The patience of a request is small: seconds, for a hiccup. What lasts longer is a matter of the job's own backoff, so
//! an error leaves here with its class and the registry's wish untouched. It never retries what is not `Class::Retry`.

use super::Error;
use crate::clock::UnixMillis;
use crate::job::retry::Class;
use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// First pause between two tries of a request; each further one is twice as long.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(400);
/// Longest pause by our own choice.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// Longest Retry-After that is waited for here; the job gives its place up for longer ones.
pub(super) const LONGEST_WISH: Duration = Duration::from_secs(10);
/// Longest Retry-After that is believed at all: a day. A registry that means more is broken.
const LONGEST_BELIEVED: Duration = Duration::from_secs(24 * 60 * 60);

/// The tries of one request.
pub(super) struct Retries {
    left: u32,
    pause: Duration,
}

impl Retries {
    /// `tries` in all, the first included; `first_pause` is [`FIRST_PAUSE`] but in tests.
    pub fn new(tries: u32, first_pause: Duration) -> Self {
        Self { left: tries.saturating_sub(1), pause: first_pause }
    }

    /// Returns when the request may be tried again.
    ///
    /// # Errors
    /// `error` itself, when it does not pass by waiting, when no try is left, or when the registry wants a longer pause.
    pub async fn pause(&mut self, error: Error) -> Result<(), Error> {
        let Class::Retry { after } = error.class() else { return Err(error) };
        if error.is_exhausted() || self.left == 0 || after.is_some_and(|wish| wish > LONGEST_WISH) {
            return Err(error.exhausted());
        }
        self.left -= 1;
        let wait = jittered(self.pause).max(after.unwrap_or_default());
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        tracing::debug!(reason = %error, wait_ms = wait.as_millis(), "trying again");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Between a half and the whole of `pause`, so that many workers do not come back at once.
fn jittered(pause: Duration) -> Duration {
    // The keys of the standard hasher are random; nothing here needs more than that.
    let random = std::hash::RandomState::new().build_hasher().finish();
    let fraction = f64::from(u32::try_from(random >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
    pause.mul_f64(0.5 + 0.5 * fraction)
}

/// The `Retry-After` of an answer: seconds, or an HTTP date, measured from the answer's own `Date` where it has one
/// (RFC 9110, section 10.2.3). None when there is none or it makes no sense.
pub(super) fn retry_after(headers: &HeaderMap, now: UnixMillis) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wish = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let then = http_date(value)?;
            let here = headers.get(DATE).and_then(|date| http_date(date.to_str().ok()?)).unwrap_or(now);
            then.since(here)
        }
    };
    Some(wish.min(LONGEST_BELIEVED))
}

fn http_date(text: &str) -> Option<UnixMillis> {
    let date = chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?;
    Some(UnixMillis(date.timestamp_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wish(value: &str, date: Option<&str>) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        // 2026-11-23T06:00:00Z
        retry_after(&headers, UnixMillis(1_795_413_600_000))
    }

    #[test]
    fn seconds_and_dates_are_understood() {
        assert_eq!(wish("17", None), Some(Duration::from_secs(17)));
        assert_eq!(wish(" 0 ", None), Some(Duration::ZERO));
        assert_eq!(wish("Mon, 23 Nov 2026 06:00:30 GMT", None), Some(Duration::from_secs(30)));
        // The registry's clock is an hour ahead: its own Date counts.
        let ahead = Some("Mon, 23 Nov 2026 07:00:00 GMT");
        assert_eq!(wish("Mon, 23 Nov 2026 07:00:05 GMT", ahead), Some(Duration::from_secs(5)));
        assert_eq!(wish("Mon, 23 Nov 2020 06:00:00 GMT", None), Some(Duration::ZERO));
        assert_eq!(wish("99999999999", None), Some(LONGEST_BELIEVED));
        assert_eq!(wish("soon", None), None);
        assert_eq!(wish("-5", None), None);
        assert_eq!(retry_after(&HeaderMap::new(), UnixMillis(0)), None);
    }

    #[tokio::test]
    async fn tries_are_counted_and_long_wishes_left_to_the_job() {
        let mut retries = Retries::new(3, Duration::from_millis(1));
        assert!(retries.pause(Error::passing("one")).await.is_ok());
        assert!(retries.pause(Error::passing("two")).await.is_ok());
        let last = retries.pause(Error::passing("three")).await.unwrap_err();
        assert_eq!(last.to_string(), "three");

        let mut retries = Retries::new(3, Duration::from_millis(1));
        let long = Class::Retry { after: Some(Duration::from_secs(60)) };
        let error = retries.pause(Error::new(long, "busy")).await.unwrap_err();
        assert_eq!(error.class(), long);
        assert!(retries.pause(Error::refused("no")).await.is_err());
        assert!(retries.pause(Error::passing("tried elsewhere").exhausted()).await.is_err());
    }

    proptest! {
        #[test]
        fn what_is_made_of_the_corpus_is_a_day_at_most(
            value in crate::corpus::mutated_lines("retry_after"),
            date in crate::corpus::mutated_lines("retry_after"),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in [(RETRY_AFTER, value), (DATE, date)] {
                if let Ok(value) = value.parse() {
                    headers.insert(name, value);
                }
            }
            prop_assert!(retry_after(&headers, UnixMillis(0)).is_none_or(|wish| wish <= LONGEST_BELIEVED));
            prop_assert!(retry_after(&headers, UnixMillis(i64::MIN)).is_none_or(|wish| wish <= LONGEST_BELIEVED));
        }

        #[test]
        fn jitter_stays_between_half_and_whole(ms in 0_u64..100_000) {
            let pause = Duration::from_millis(ms);
            let found = jittered(pause);
            prop_assert!(found <= pause && found >= pause / 2);
        }
    }
}
