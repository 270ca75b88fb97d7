//! Rates as they are typed, and the times of day at which they hold.

use crate::replicate::Window;

/// Bytes a second such as `50MiB/s`, `800KiB/s`, `10MB/s` or `1048576`; `0` is no limit. The `/s` may be left out.
///
/// # Errors
/// One line that says what is wrong.
pub fn rate(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no rate: write for example 50MiB/s, 800KiB/s or 10MB/s; 0 is no limit");
    let typed = text.trim();
    let amount = typed.strip_suffix("/s").unwrap_or(typed).trim_end();
    let digits = amount.find(|c: char| !c.is_ascii_digit()).unwrap_or(amount.len());
    let (number, unit) = amount.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_bytes: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_bytes).ok_or_else(|| format!("`{text}` is more than can be counted"))
}

/// The value of `bandwidth`: a rate as it is typed, or a number of bytes.
///
/// # Errors
/// As for [`rate`].
pub(super) fn bandwidth(value: &toml::Value) -> Result<u64, String> {
    let bytes = value.as_integer().and_then(|bytes| u64::try_from(bytes).ok());
    match (bytes, value.as_str()) {
        (Some(bytes), _) => Ok(bytes),
        (None, Some(text)) => rate(text),
        (None, None) => Err("must be a rate such as \"50MiB/s\"".to_owned()),
    }
}

/// The value of `bandwidth_windows`: tables of `from`, `to`, `rate`, and perhaps `utc_offset`.
///
/// # Errors
/// One line that says what is wrong.
pub(super) fn windows(value: &toml::Value) -> Result<Vec<Window>, String> {
    let list = value.as_array().ok_or_else(|| format!("must be a list of tables with {WINDOW}"))?;
    list.iter().map(window).collect()
}

/// What a window looks like.
const WINDOW: &str = "from = \"08:00\", to = \"18:00\", rate = \"5MiB/s\", and perhaps utc_offset = \"+02:00\"";

fn window(value: &toml::Value) -> Result<Window, String> {
    let table = value.as_table().ok_or_else(|| format!("each must be a table with {WINDOW}"))?;
    if let Some(key) = table.keys().find(|key| !["from", "to", "rate", "utc_offset"].contains(&key.as_str())) {
        return Err(format!("unknown key {key}: a window has {WINDOW}"));
    }
    let text = |key: &str| table.get(key).and_then(toml::Value::as_str);
    let time = |key: &str| {
        let time = text(key).and_then(minutes);
        time.ok_or_else(|| format!("{key} must be a time of day such as \"08:00\", in quotes"))
    };
    let offset = match (table.get("utc_offset"), text("utc_offset")) {
        (None, _) | (_, Some("Z")) => 0,
        (_, text) => text.and_then(offset).ok_or("utc_offset must be an offset such as \"+02:00\", or \"Z\"")?,
    };
    let rate = table.get("rate").ok_or_else(|| format!("a window needs its rate: {WINDOW}"))?;
    let (from, to) = (time("from")?, time("to")?);
    if from == to {
        return Err("from and to are the same time: such a window never holds".to_owned());
    }
    Ok(Window { from_minute: from, to_minute: to, offset_minutes: offset, bytes_per_sec: bandwidth(rate)? })
}

/// Minutes of `HH:MM`; 24:00 is the end of the day.
fn minutes(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':') {
        return None;
    }
    let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let time = hours * 60 + minutes;
    (minutes < 60 && time <= 24 * 60).then_some(time)
}

fn offset(text: &str) -> Option<i32> {
    let amount = i32::try_from(minutes(text.get(1..)?)?).ok()?;
    match text.as_bytes().first() {
        Some(b'+') => Some(amount),
        Some(b'-') => Some(-amount),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Window>, String> {
        windows(&text.parse::<toml::Table>().unwrap()["w"])
    }

    #[test]
    fn windows_are_times_of_day_with_a_rate() {
        let text = "w = [{ from = '08:00', to = '18:30', rate = '5MiB/s' }, \
                    { from = '22:00', to = '24:00', rate = 0, utc_offset = '-03:30' }]";
        let day = Window { from_minute: 480, to_minute: 1110, offset_minutes: 0, bytes_per_sec: 5 << 20 };
        let night = Window { from_minute: 1320, to_minute: 1440, offset_minutes: -210, bytes_per_sec: 0 };
        assert_eq!(read(text), Ok(vec![day, night]));
        for (text, word) in [
            ("w = 1", "list"),
            ("w = [1]", "table"),
            ("w = [{ from = '08:00', to = '18:00' }]", "rate"),
            ("w = [{ from = '8:00', to = '18:00', rate = 1 }]", "from"),
            ("w = [{ from = '08:00', to = '24:01', rate = 1 }]", "to must"),
            ("w = [{ from = '08:60', to = '18:00', rate = 1 }]", "from"),
            ("w = [{ from = 08:00:00, to = '18:00', rate = 1 }]", "in quotes"),
            ("w = [{ from = '08:00', to = '08:00', rate = 1 }]", "same time"),
            ("w = [{ from = '08:00', to = '18:00', rate = 'fast' }]", "fast"),
            ("w = [{ from = '08:00', to = '18:00', rate = true }]", "50MiB/s"),
            ("w = [{ from = '08:00', to = '18:00', rate = 1, utc_offset = 'Berlin' }]", "utc_offset"),
            ("w = [{ from = '08:00', to = '18:00', rate = 1, timezone = 'x' }]", "timezone"),
        ] {
            let problem = read(text).unwrap_err();
            assert!(problem.contains(word) && !problem.contains('\n'), "{text}: {problem}");
        }
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("50MiB/s", 50 << 20),
            (" 800 KiB/s ", 800 << 10),
            ("10MB/s", 10_000_000),
            ("1GiB", 1 << 30),
            ("64K", 64 << 10),
            ("1048576", 1 << 20),
            ("7B/s", 7),
            ("0", 0),
        ] {
            assert_eq!(rate(text), Ok(bytes), "{text}");
        }
        for text in ["", "fast", "MiB/s", "-1", "1.5MiB/s", "50Mbit/s", "50mib/s", "50MiB/m", "18446744073709551615GiB"]
        {
            let error = rate(text).unwrap_err();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}
