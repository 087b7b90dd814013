//! Sizes, durations, ages and counts as text, and durations parsed from options.

use std::time::Duration;

use crate::core::config::{MAX_SECONDS, parse_size};
use crate::core::numbers::parse_float;

/// Returns a size in units of a thousand, with at most three digits: `1.2 GB`.
pub fn bytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut size = bytes as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while size >= 999.5 {
        let Some(larger) = units.next() else { break };
        (size, unit) = (size / 1000.0, larger);
    }
    let digits = usize::from(size < 9.95 && unit != "B");
    format!("{size:.digits$} {unit}")
}

/// Returns the two largest units of a duration: `3h 12m`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, hours, ..) => format!("{days}d {hours}h"),
    }
}

/// Returns the parser of an option's number of seconds.
pub fn seconds_from(shortest: f64) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let seconds = parse_float(text).filter(|seconds| (shortest..=MAX_SECONDS).contains(seconds));
        let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        duration.ok_or_else(|| format!("expected a number of seconds from {shortest} to {MAX_SECONDS}"))
    }
}

/// Parses an option's number of bytes: `8GB`, `500MiB`, or a bare number.
pub fn bytes_from(text: &str) -> Result<u64, String> {
    let bytes = text.parse().ok().or_else(|| parse_size(text)).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| "expected a size such as 8GB, 7500MB or 16GiB".to_owned())
}

/// Parses an option's number of tokens: `8k` is 8,192, as models count.
pub fn tokens_from(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1024),
        None => (text, 1),
    };
    let number = number.parse::<u32>().ok().filter(|number| *number > 0 && !text.starts_with('+'));
    let tokens = number.map(|number| u64::from(number) * unit);
    tokens.ok_or_else(|| "expected a number of tokens such as 8192 or 8k".to_owned())
}

/// Returns an age in its largest unit: `3 days ago`.
pub fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute")];
    match units.into_iter().find(|(size, _)| seconds >= *size) {
        Some((size, unit)) => {
            let count = seconds / size;
            format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
        }
        None => "just now".to_owned(),
    }
}

/// Returns a count as model cards write it: `3.2B`, `135M`.
pub fn count(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut number = count as f64;
    let mut units = ["", "K", "M", "B", "T"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while number >= 999.5 {
        let Some(larger) = units.next() else { break };
        (number, unit) = (number / 1000.0, larger);
    }
    let digits = usize::from(number < 9.95 && !unit.is_empty());
    format!("{number:.digits$}{unit}")
}

/// Returns a number with its digits in groups of three: `131,072`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number of tokens in steps of 1,024, as context lengths are: `812`, `4.1k`, `32k`.
pub fn tokens(count: u64) -> String {
    match count {
        ..1024 => count.to_string(),
        1024..10_189 => {
            let tenths = (count * 10 + 512) / 1024;
            let decimal = if tenths.is_multiple_of(10) { String::new() } else { format!(".{}", tenths % 10) };
            format!("{}{decimal}k", tenths / 10)
        }
        _ => format!("{}k", count.saturating_add(512) / 1024),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_their_two_largest_units() {
        let shown = [0, 59, 60, 3599, 3600, 86_399, 86_400, 1_000_000]
            .map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0s", "59s", "1m 0s", "59m 59s", "1h 0m", "23h 59m", "1d 0h", "11d 13h"]);
    }

    #[test]
    fn seconds_are_within_what_clocks_can_add() {
        for (text, milliseconds) in [("0", 0), ("0.5", 500), ("31536000", 31_536_000_000)] {
            assert_eq!(seconds_from(0.0)(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["-1", "31536001", "1e300", "inf", "NaN", "", "5s"] {
            let expected = "expected a number of seconds from 0 to 31536000".to_owned();
            assert_eq!(seconds_from(0.0)(text), Err(expected), "{text}");
        }
        let expected = "expected a number of seconds from 0.001 to 31536000".to_owned();
        assert_eq!(seconds_from(0.001)("0"), Err(expected));
    }

    #[test]
    fn sizes_and_tokens_are_parsed() {
        for (text, bytes) in [("8GB", 8_000_000_000), ("1GiB", 1 << 30), ("7", 7), ("7500 MB", 7_500_000_000)]
        {
            assert_eq!(bytes_from(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "-1", "GB", "NaN", "1e9", "8 parsecs", "99999999999GB"] {
            assert!(bytes_from(text).is_err(), "{text}");
        }
        for (text, tokens) in [("8k", 8192), ("8K", 8192), ("1", 1), ("4294967295k", 4_294_967_295 * 1024)] {
            assert_eq!(tokens_from(text), Ok(tokens), "{text}");
        }
        for text in ["", "0", "0k", "k", "-1", "+8k", "1.5k", "NaN", "4294967296"] {
            assert!(tokens_from(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_show_at_most_three_digits() {
        let shown = [0, 999, 1000, 9_949, 9_951, 999_499, 999_500, 1_234_567_890].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "9.9 kB", "10 kB", "999 kB", "1.0 MB", "1.2 GB"]);
    }

    #[test]
    fn ages_show_their_largest_unit() {
        let shown = [0, 59, 60, 7200, 90_000, 864_000].map(|seconds| ago(Duration::from_secs(seconds)));
        let expected = ["just now", "just now", "1 minute ago", "2 hours ago", "1 day ago", "10 days ago"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn counts_are_short_and_numbers_are_grouped() {
        assert_eq!(
            [0, 999, 1_235_814_400, 134_515_008, 70_553_706_496].map(count),
            ["0", "999", "1.2B", "135M", "71B"]
        );
        assert_eq!(
            [0, 999, 1000, 131_072, 1_234_567].map(grouped),
            ["0", "999", "1,000", "131,072", "1,234,567"]
        );
    }

    #[test]
    fn tokens_have_at_most_one_decimal() {
        for (count, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1k"),
            (4200, "4.1k"),
            (10_188, "9.9k"),
            (10_189, "10k"),
            (32_768, "32k"),
            (131_072, "128k"),
            (u64::MAX, "18014398509481983k"),
        ] {
            assert_eq!(tokens(count), text);
        }
    }
}
