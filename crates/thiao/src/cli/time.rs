//! Times on the command line.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use thiao_cli::output::now;

/// A time that was typed: a date, a date and a time, or how long ago; in milliseconds since the epoch.
pub(super) fn typed(text: &str) -> Result<u64, String> {
    let ago = |unit: char, seconds: u64| {
        let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(now().saturating_sub(count.checked_mul(seconds)?.checked_mul(1000)?))
    };
    let date = || {
        let local: DateTime = text.parse().ok()?;
        let stamp = local.to_zoned_datetime(TimeZone::system()).ok()?.timestamp();
        u64::try_from(stamp.as_millisecond()).ok()
    };
    ago('m', 60)
        .or_else(|| ago('h', 3_600))
        .or_else(|| ago('d', 86_400))
        .or_else(date)
        .ok_or_else(|| {
            "write a date (2026-11-25), a date and a time (2026-11-25T08:30), or how long ago (30m, 12h, 7d)"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_or_how_long_ago() {
        let day = typed("2026-11-25").unwrap();
        assert_eq!(typed("2026-11-25T08:30").unwrap() - day, (8 * 60 + 30) * 60_000);
        for (text, millis) in [("30m", 1_800_000), ("12h", 43_200_000), ("7d", 604_800_000)] {
            let (before, at, after) = (now(), typed(text).unwrap() + millis, now());
            assert!((before..=after).contains(&at), "{text}: {before} {at} {after}");
        }
        for bad in [
            "",
            "x",
            "7",
            "-3d",
            "2026-13-01",
            "99999999999999999999d",
            "1900-01-01",
        ] {
            assert!(typed(bad).is_err(), "{bad}");
        }
    }
}
