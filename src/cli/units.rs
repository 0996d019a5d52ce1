//! Durations and sizes as people write them: `45s`, `1h30m`, `64MiB`. What is shown can be given
//! back.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytesize::ByteSize;

/// A duration: `45s`, `1h30m`, `250ms`; a plain number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let secs = text.parse().map_err(|_| too_long(text))?;
        return Ok(Duration::from_secs(secs));
    }
    humantime::parse_duration(text)
        .map_err(|_| "it is no duration; write 30, 45s, 250ms or 1h30m".to_owned())
}

fn too_long(text: &str) -> String {
    format!("it is no duration: {text} seconds are too long")
}

/// A TTL: a duration of at least a millisecond.
pub(crate) fn parse_ttl(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(ttl) if ttl >= Duration::from_millis(1) => Ok(ttl),
        Ok(_) => Err("a TTL is at least 1ms; leave it out for no expiry".to_owned()),
        Err(reason) => Err(reason.replace("no duration", "no TTL")),
    }
}

/// A size in bytes: `64MiB`, `10MB`, `4096`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let size: ByteSize = text
        .parse()
        .map_err(|_| format!("{text:?} is no size; write 4096, 64KiB, 1.5GiB or 10MB"))?;
    Ok(size.as_u64())
}

/// A count: `50000`, `100k`, `10M`.
pub(crate) fn parse_count(text: &str) -> Result<u64, String> {
    const UNITS: [(&[char], u64); 3] = [
        (&['k', 'K'], 1000),
        (&['m', 'M'], 1_000_000),
        (&['g', 'G'], 1_000_000_000),
    ];
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(letters, unit)| Some((text.strip_suffix(*letters)?, *unit)))
        .unwrap_or((text, 1));
    let count = digits.parse().ok().and_then(|n: u64| n.checked_mul(unit));
    count.ok_or_else(|| "it is no count; write 50000, 100k or 10M".to_owned())
}

const UNITS: [(u64, &str); 5] = [
    (1 << 50, "PiB"),
    (1 << 40, "TiB"),
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
];

/// A size to look at, of at most 9 characters: `64MiB`, `1.5GiB`, `900B`.
#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
pub(crate) fn size(bytes: u64) -> String {
    let Some((unit, name)) = UNITS.into_iter().find(|(unit, _)| bytes >= *unit) else {
        return format!("{bytes}B");
    };
    if bytes % unit == 0 || bytes / unit >= 100 {
        return format!(
            "{}{name}",
            bytes / unit + u64::from(bytes % unit >= unit / 2)
        );
    }
    format!("{:.1}{name}", bytes as f64 / unit as f64)
}

const SPANS: [(u128, &str); 5] = [
    (86_400_000, "d"),
    (3_600_000, "h"),
    (60_000, "m"),
    (1000, "s"),
    (1, "ms"),
];

/// A duration to look at, as its two largest units: `1h30m`, `45s`, `2d4h`, `250ms`.
pub(crate) fn duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let Some(first) = SPANS.iter().position(|(span, _)| ms >= *span) else {
        return "0s".to_owned();
    };
    let (span, name) = SPANS[first];
    let mut text = format!("{}{name}", ms / span);
    // From seconds on, milliseconds are of no interest unless there is but one of the former.
    if let Some((next, next_name)) = SPANS.get(first + 1) {
        let rest = ms % span / next;
        if rest > 0 && (*next >= 1000 || ms < 10_000) {
            let _ = write!(text, "{rest}{next_name}");
        }
    }
    text
}

/// Milliseconds since the epoch; 0 before it.
pub(crate) fn epoch_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// A moment, in milliseconds since the epoch, in UTC: `2025-01-31T23:59:59Z`.
pub(crate) fn moment(ms: u64) -> String {
    // What its four digits of a year cannot say is further off than anybody cares.
    const LAST_MS: u64 = 253_402_300_799_999;
    if ms > LAST_MS {
        return "after the year 9999".to_owned();
    }
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

/// A count with a noun: `1 key`, `2,000 keys`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(count))
}

/// A number to look at: `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_seconds_or_has_units() {
        for (text, ms) in [
            ("0", 0),
            ("30", 30_000),
            ("45s", 45_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("250ms", 250),
            ("2d", 172_800_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
        for text in ["", "-1", "1.5", "soon", "s", "18446744073709551616"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_ttl_of_nothing_is_none() {
        assert_eq!(parse_ttl("1"), Ok(Duration::from_secs(1)));
        assert_eq!(
            parse_ttl("18446744073709551615"),
            Ok(Duration::from_secs(u64::MAX))
        );
        for text in ["0", "0s"] {
            assert!(parse_ttl(text).unwrap_err().contains("TTL"), "{text}");
        }
        assert!(parse_ttl("never").unwrap_err().contains("no TTL"));
    }

    #[test]
    fn sizes_and_durations_are_read_as_they_are_shown() {
        for (bytes, text) in [
            (0, "0B"),
            (900, "900B"),
            (1024, "1KiB"),
            (1536, "1.5KiB"),
            (64 << 20, "64MiB"),
            (3 << 40, "3TiB"),
        ] {
            assert_eq!(size(bytes), text);
            assert_eq!(parse_size(text), Ok(bytes));
        }
        assert_eq!(size(1_000_000), "977KiB");
        assert_eq!(size(u64::MAX), "16384PiB");
        assert_eq!(parse_size("10MB"), Ok(10_000_000));
        assert!(parse_size("big").is_err());
        for (ms, text) in [
            (0, "0s"),
            (250, "250ms"),
            (1500, "1s500ms"),
            (45_000, "45s"),
            (5_400_000, "1h30m"),
            (187_200_000, "2d4h"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), text);
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)));
        }
        assert_eq!(duration(Duration::from_millis(45_678)), "45s");
    }

    #[test]
    fn a_count_can_have_thousands_and_millions() {
        for (text, count) in [("0", 0), ("7", 7), ("100k", 100_000), ("10M", 10_000_000)] {
            assert_eq!(parse_count(text), Ok(count), "{text}");
        }
        for text in ["", "k", "-1", "1.5k", "1T", "18446744073709551615k"] {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_moment_is_in_utc_however_far_off() {
        assert_eq!(moment(0), "1970-01-01T00:00:00Z");
        assert_eq!(moment(1_735_689_599_999), "2024-12-31T23:59:59Z");
        assert_eq!(moment(253_402_300_799_999), "9999-12-31T23:59:59Z");
        assert_eq!(moment(u64::MAX), "after the year 9999");
    }

    #[test]
    fn large_numbers_are_grouped_by_threes() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(counted(1, "key"), "1 key");
        assert_eq!(counted(2000, "key"), "2,000 keys");
    }
}
