//! Rates as they are typed.

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

#[cfg(test)]
mod tests {
    use super::*;

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
