//! When: a cron expression, an interval or one time, in a time zone. Pure.
//!
//! The crate is `croner`: it is kept up, knows five and six fields and the nicknames, and has the rules of cron for daylight
//! saving. A time of day that a day does not have comes at the first moment after the gap; one that a day has twice comes
//! once, the first time; what is counted by wildcards or steps in the hours runs through both.

use crate::clock::UnixMillis;
use chrono::{DateTime, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use std::time::Duration;

/// Longest text, bytes.
const TEXT_LIMIT: usize = 512;
/// Shortest interval: whoever wants more often wants a queue.
const SHORTEST: Duration = Duration::from_secs(1);

/// When something is to happen.
#[derive(Debug, Clone)]
pub struct Timing {
    when: When,
    zone: Tz,
}

#[derive(Debug, Clone)]
enum When {
    Cron(Box<Cron>),
    Every(Duration),
    /// None: as soon as it is there.
    Once(Option<UnixMillis>),
}

impl Timing {
    /// Reads a timing: a cron expression of five fields, or six with seconds in front; a nickname (`@hourly`, `@daily`,
    /// `@weekly`, `@monthly`, `@yearly`); `@every 15m`; `@once TIME` with an RFC 3339 time; `@now`, which is once and at once.
    ///
    /// # Errors
    /// One line that says what is wrong, and what to write.
    pub fn parse(timing: &str, timezone: &str) -> Result<Self, String> {
        let zone: Tz = timezone.parse().map_err(|_| {
            format!("time zone {} is not known: use a name such as UTC or Europe/Berlin", crate::oci::quote(timezone))
        })?;
        let text = timing.trim();
        if text.len() > TEXT_LIMIT {
            return Err(format!("a timing has at most {TEXT_LIMIT} bytes, this one has {}", text.len()));
        }
        let when = match text.split_once(char::is_whitespace).map_or((text, ""), |(word, rest)| (word, rest.trim())) {
            ("@every", rest) => When::Every(interval(rest)?),
            ("@once" | "@now", "") => When::Once(None),
            ("@once", rest) => {
                let time = DateTime::parse_from_rfc3339(rest).map_err(|_| {
                    format!("{} is no time: write for example @once 2026-11-23T06:00:00Z", crate::oci::quote(rest))
                })?;
                When::Once(Some(UnixMillis(time.timestamp_millis())))
            }
            _ => When::Cron(Box::new(cron(text)?)),
        };
        Ok(Self { when, zone })
    }

    /// The first time of a schedule that counts from `base`.
    #[must_use]
    pub fn first(&self, base: UnixMillis) -> Option<UnixMillis> {
        match self.when {
            When::Once(at) => Some(at.unwrap_or(base)),
            _ => self.next(base, UnixMillis(base.0.saturating_sub(1))),
        }
    }

    /// The first time after `after` of a schedule that counts from `base`; None: never again.
    #[must_use]
    pub fn next(&self, base: UnixMillis, after: UnixMillis) -> Option<UnixMillis> {
        let next = match &self.when {
            When::Once(at) => at.unwrap_or(base),
            When::Every(interval) => {
                let interval = i64::try_from(interval.as_millis()).ok()?;
                let passed = after.0.saturating_sub(base.0).div_euclid(interval).saturating_add(1).max(1);
                UnixMillis(base.0.checked_add(interval.checked_mul(passed)?)?)
            }
            When::Cron(cron) => {
                let after = self.zone.timestamp_opt(after.0.div_euclid(1000), 0).single()?;
                UnixMillis(cron.find_next_occurrence(&after, false).ok()?.timestamp_millis())
            }
        };
        Some(next).filter(|next| *next > after)
    }

    /// A time as the clocks of the time zone show it, RFC 3339 with its offset.
    #[must_use]
    pub fn local(&self, at: UnixMillis) -> String {
        let utc = DateTime::<Utc>::from_timestamp_millis(at.0).unwrap_or_default();
        utc.with_timezone(&self.zone).to_rfc3339_opts(chrono::SecondsFormat::AutoSi, false)
    }
}

/// A time in UTC, RFC 3339.
#[must_use]
pub fn utc(at: UnixMillis) -> String {
    let time = DateTime::<Utc>::from_timestamp_millis(at.0).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = crate::config::duration(text)?;
    if interval < SHORTEST {
        return Err(format!("{} is too short an interval: use 1s or more", crate::oci::quote(text)));
    }
    Ok(interval)
}

fn cron(text: &str) -> Result<Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    parser.parse(text).map_err(|error| {
        format!(
            "{} is no timing ({error}): write five cron fields (minute hour day month weekday), six with seconds in front, \
             @hourly, @every 15m or @once TIME",
            crate::oci::quote(text)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn millis(text: &str) -> UnixMillis {
        UnixMillis(DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis())
    }

    /// The next times after `after`, as the zone's clocks show them.
    fn times(timing: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let timing = Timing::parse(timing, zone).unwrap();
        let mut at = millis(after);
        let mut times = Vec::new();
        while times.len() < count
            && let Some(next) = timing.next(millis(after), at)
        {
            times.push(timing.local(next));
            at = next;
        }
        times
    }

    #[test]
    fn five_fields_six_fields_and_nicknames() {
        let after = "2026-11-23T06:00:00Z";
        assert_eq!(times("30 2 * * *", "UTC", after, 2), ["2026-11-24T02:30:00+00:00", "2026-11-25T02:30:00+00:00"]);
        assert_eq!(times("15 30 2 * * *", "UTC", after, 1), ["2026-11-24T02:30:15+00:00"]);
        assert_eq!(times("@hourly", "UTC", after, 1), ["2026-11-23T07:00:00+00:00"]);
        assert_eq!(times("@daily", "Europe/Berlin", after, 1), ["2026-11-24T00:00:00+01:00"]);
        assert_eq!(times("@weekly", "UTC", after, 1), ["2026-11-29T00:00:00+00:00"]);
        assert_eq!(times("@monthly", "UTC", after, 1), ["2026-12-01T00:00:00+00:00"]);
        assert_eq!(times("@yearly", "UTC", after, 1), ["2027-01-01T00:00:00+00:00"]);
        assert_eq!(times("0 9 * * MON-FRI", "UTC", "2026-11-27T10:00:00Z", 1), ["2026-11-30T09:00:00+00:00"]);
        assert_eq!(times("0 0 29 2 *", "UTC", after, 2), ["2028-02-29T00:00:00+00:00", "2032-02-29T00:00:00+00:00"]);
        assert_eq!(times("0 0 30 2 *", "UTC", after, 1), [""; 0]);
    }

    #[test]
    fn intervals_count_from_the_base_and_once_is_once() {
        let base = millis("2026-11-23T06:00:00.250Z");
        let every = Timing::parse("@every 1h30m", "UTC").unwrap();
        assert_eq!(every.first(base), Some(millis("2026-11-23T07:30:00.250Z")));
        assert_eq!(every.next(base, millis("2026-11-23T07:30:00.250Z")), Some(millis("2026-11-23T09:00:00.250Z")));
        assert_eq!(every.next(base, millis("2020-01-01T00:00:00Z")), every.first(base), "never before the base");
        let once = Timing::parse("@once 2026-11-23T08:00:00+02:00", "UTC").unwrap();
        assert_eq!(once.first(base), Some(millis("2026-11-23T06:00:00Z")), "a time that is over is still the first");
        assert_eq!(once.next(base, base), None);
        assert_eq!(Timing::parse("@now", "UTC").unwrap().first(base), Some(base));
    }

    #[test]
    fn a_time_that_a_day_does_not_have_comes_right_after_the_gap() {
        for (zone, timing, after, expected) in [
            (
                "Europe/Berlin",
                "30 2 * * *",
                "2027-03-27T12:00:00Z",
                ["2027-03-28T03:00:00+02:00", "2027-03-29T02:30:00+02:00"],
            ),
            (
                "America/New_York",
                "0 2 * * *",
                "2027-03-13T12:00:00Z",
                ["2027-03-14T03:00:00-04:00", "2027-03-15T02:00:00-04:00"],
            ),
            // A gap of half an hour.
            (
                "Australia/Lord_Howe",
                "15 2 * * *",
                "2027-10-02T00:00:00Z",
                ["2027-10-03T02:30:00+11:00", "2027-10-04T02:15:00+11:00"],
            ),
            // A gap at midnight.
            (
                "America/Santiago",
                "0 0 * * *",
                "2027-09-04T12:00:00Z",
                ["2027-09-05T01:00:00-03:00", "2027-09-06T00:00:00-03:00"],
            ),
        ] {
            assert_eq!(times(timing, zone, after, 2), expected, "{zone} {timing}");
        }
    }

    #[test]
    fn a_time_that_a_day_has_twice_comes_once_and_intervals_run_through() {
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2027-10-30T12:00:00Z", 2),
            ["2027-10-31T02:30:00+02:00", "2027-11-01T02:30:00+01:00"]
        );
        assert_eq!(
            times("30 1 * * *", "America/New_York", "2027-11-06T12:00:00Z", 2),
            ["2027-11-07T01:30:00-04:00", "2027-11-08T01:30:00-05:00"]
        );
        assert_eq!(
            times("*/30 * * * *", "Europe/Berlin", "2027-10-30T23:45:00Z", 6),
            [
                "2027-10-31T02:00:00+02:00",
                "2027-10-31T02:30:00+02:00",
                "2027-10-31T02:00:00+01:00",
                "2027-10-31T02:30:00+01:00",
                "2027-10-31T03:00:00+01:00",
                "2027-10-31T03:30:00+01:00",
            ]
        );
        assert_eq!(
            times("*/30 * * * *", "Europe/Berlin", "2027-03-28T00:15:00Z", 3),
            ["2027-03-28T01:30:00+01:00", "2027-03-28T03:00:00+02:00", "2027-03-28T03:30:00+02:00"]
        );
    }

    #[test]
    fn nonsense_is_refused_with_what_to_write() {
        for (timing, zone, part) in [
            ("", "UTC", "write five cron fields"),
            ("* * * *", "UTC", "write five cron fields"),
            ("61 * * * *", "UTC", "write five cron fields"),
            ("0 0 2 * * * 2027", "UTC", "write five cron fields"),
            ("@fortnightly", "UTC", "write five cron fields"),
            ("@every", "UTC", "is no duration"),
            ("@every 15", "UTC", "has no unit"),
            ("@every 10ms", "UTC", "use 1s or more"),
            ("@once tomorrow", "UTC", "write for example @once"),
            ("@hourly", "Mars/Olympus", "use a name such as UTC"),
            ("@hourly", "", "use a name such as UTC"),
        ] {
            let error = Timing::parse(timing, zone).unwrap_err();
            assert!(error.contains(part) && !error.contains('\n'), "{timing}: {error}");
        }
        assert!(Timing::parse(&"*".repeat(600), "UTC").is_err());
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_time_goes_forward(
            text in "((@every [0-9]{1,4}(s|m|h|d))|(@(hourly|daily|weekly|monthly|yearly))|([0-9*/,-]{1,6} ){4,5}[0-9*/,-]{1,6}|.{0,30})",
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
            after in 1_500_000_000_000_i64..2_500_000_000_000,
        ) {
            let Ok(timing) = Timing::parse(&text, zone) else { return Ok(()) };
            let mut at = UnixMillis(after);
            for _ in 0..5 {
                let Some(next) = timing.next(UnixMillis(after), at) else { break };
                prop_assert!(next > at);
                at = next;
            }
        }
    }
}
