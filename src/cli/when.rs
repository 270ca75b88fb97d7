//! Durations and times as they are typed.

use crate::clock::UnixMillis;
pub use crate::config::duration;
use std::time::Duration;

/// Smaller numbers are taken for seconds typed where milliseconds are meant: this one is in March 1973.
const LEAST_UNIX_MS: i64 = 100_000_000_000;

/// A time: RFC 3339 with an offset, or unix milliseconds as in the database.
///
/// # Errors
/// One line that says what is wrong.
pub fn time(text: &str) -> Result<UnixMillis, String> {
    let text = text.trim();
    if let Ok(number) = text.parse::<i64>() {
        return unix_ms(number);
    }
    if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
        return Ok(UnixMillis(time.timestamp_millis()));
    }
    let missing = if chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok() {
        "it has no time of day and no offset"
    } else if text.get(10..11).is_some_and(|separator| separator == "T" || separator == " ")
        && chrono::NaiveDateTime::parse_from_str(&text.replacen(' ', "T", 1), "%Y-%m-%dT%H:%M:%S%.f").is_ok()
    {
        "it has no offset (Z or +02:00)"
    } else {
        "it is not RFC 3339"
    };
    Err(format!("`{text}` is no time: {missing}; write for example 2026-11-23T06:00:00Z"))
}

/// A number in unix milliseconds.
///
/// # Errors
/// It looks like seconds.
pub fn unix_ms(number: i64) -> Result<UnixMillis, String> {
    if number < LEAST_UNIX_MS {
        return Err(format!("`{number}` is no time: numbers are unix milliseconds, and this one looks like seconds"));
    }
    Ok(UnixMillis(number))
}

/// A time, or how long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// From this time on.
    Time(UnixMillis),
    /// From this long ago on.
    Ago(Duration),
}

impl Since {
    /// RFC 3339, or a duration that means "ago".
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains('-') || text.trim().parse::<i64>().is_ok() {
            return time(text).map(Self::Time);
        }
        duration(text).map(Self::Ago).map_err(|_| {
            format!("`{text}` is neither a time (2026-11-23T06:00:00Z) nor a duration (2h: since two hours ago)")
        })
    }

    /// The time it means at `now`.
    #[must_use]
    pub fn at(self, now: UnixMillis) -> UnixMillis {
        match self {
            Self::Time(time) => time,
            Self::Ago(duration) => {
                UnixMillis(now.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
            }
        }
    }
}

/// A duration for people: two units at most (`1h 30m`, `2.4s`, `15ms`).
#[must_use]
pub fn spoken(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        0 => format!("{}ms", duration.as_millis()),
        1..=59 => format!("{:.1}s", duration.as_secs_f64()),
        60..=3599 => format!("{}m {}s", secs / 60, secs % 60),
        3600..=86_399 => format!("{}h {}m", secs / 3600, secs % 3600 / 60),
        _ => format!("{}d {}h", secs / 86_400, secs % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times() {
        assert_eq!(time("2026-09-21T14:13:20Z"), Ok(UnixMillis(1_790_000_000_000)));
        assert_eq!(time("2026-09-21T16:13:20.5+02:00"), Ok(UnixMillis(1_790_000_000_500)));
        assert_eq!(time("1790000000000"), Ok(UnixMillis(1_790_000_000_000)));
        for (text, word) in [
            ("2026-09-21", "no time of day"),
            ("2026-09-21T14:13:20", "no offset"),
            ("2026-09-21 14:13:20", "no offset"),
            ("1790000000", "looks like seconds"),
            ("-5", "milliseconds"),
            ("tomorrow", "RFC 3339"),
            ("2026-13-21T14:13:20Z", "RFC 3339"),
            ("", "RFC 3339"),
        ] {
            let error = time(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn since() {
        let now = UnixMillis(1_790_000_000_000);
        assert_eq!(Since::parse("1h").unwrap().at(now), UnixMillis(1_789_996_400_000));
        assert_eq!(Since::parse("2026-09-21T14:13:20Z").unwrap().at(now), now);
        assert!(Since::parse("yesterday").unwrap_err().contains("2h"));
        assert!(Since::parse("2026-09-21").unwrap_err().contains("no time of day"));
    }

    #[test]
    fn spoken_durations() {
        for (ms, text) in
            [(15, "15ms"), (2_400, "2.4s"), (90_000, "1m 30s"), (5_400_000, "1h 30m"), (90_000_000, "1d 1h")]
        {
            assert_eq!(spoken(Duration::from_millis(ms)), text);
        }
    }

    proptest! {
        #[test]
        fn nothing_typed_panics(text in "\\PC{0,24}") {
            let _ = (duration(&text), time(&text), Since::parse(&text));
        }
    }
}
