//! Times, spans and sizes as `sacct` writes them. Each answers `None` for what is not such a word.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A moment, in seconds since 1970: both that it may be, if clocks were changed in that hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// The sooner of both.
    pub early: u64,
    /// The later of both; the same if there is no doubt.
    pub late: u64,
}

impl When {
    /// Whether it may be two.
    pub const fn in_doubt(self) -> bool {
        self.early != self.late
    }

    /// That which is not before another moment, if one of both is not.
    pub const fn not_before(self, moment: u64) -> u64 {
        if self.early < moment {
            self.late
        } else {
            self.early
        }
    }
}

/// A moment: seconds since 1970, as with `SLURM_TIME_FORMAT=%s`, or this zone's time, as without; nothing
/// for `Unknown` and `None`, which Slurm writes for 0 and its "no value" (`src/common/parse_time.c`).
pub fn moment(word: &str, zone: &TimeZone) -> Option<Option<When>> {
    if matches!(word, "" | "Unknown" | "None") {
        return Some(None);
    }
    if let Ok(seconds) = word.parse() {
        return Some(Some(When {
            early: seconds,
            late: seconds,
        }));
    }
    let local: DateTime = word.parse().ok()?;
    let seconds = |moment: Result<jiff::Timestamp, jiff::Error>| u64::try_from(moment.ok()?.as_second()).ok();
    let early = seconds(zone.to_ambiguous_timestamp(local).earlier())?;
    let late = seconds(zone.to_ambiguous_timestamp(local).later())?;
    Some(Some(When {
        early: early.min(late),
        late: late.max(early),
    }))
}

/// A span, `[days-]hours:minutes:seconds[.microseconds]`, in whole seconds. Slurm leaves the hours away for
/// some spans under one hour.
pub fn span(word: &str) -> Option<u64> {
    let (days, rest) = word.split_once('-').unwrap_or(("0", word));
    let rest = rest.split_once('.').map_or(rest, |(rest, _)| rest);
    let parts: Vec<u64> = rest
        .split(':')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    let (hours, minutes, seconds) = match parts[..] {
        [hours, minutes, seconds] => (hours, minutes, seconds),
        [minutes, seconds] => (0, minutes, seconds),
        _ => return None,
    };
    let hours = days.parse::<u64>().ok()?.checked_mul(24)?.checked_add(hours)?;
    hours
        .checked_mul(60)?
        .checked_add(minutes)?
        .checked_mul(60)?
        .checked_add(seconds)
}

/// What memory is meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// The whole job: since 21.08, where `ReqMem` is what the requested TRES have.
    Job,
    /// A node: `n` behind it, until 20.11 (`src/sacct/print.c` of these releases).
    Node,
    /// A CPU: `c` behind it, until 20.11.
    Cpu,
}

/// Memory, in KiB; 0 where the job asked for all that there was, or nobody knows. Slurm counts it in MiB.
pub fn memory(word: &str) -> Option<(u64, Per)> {
    let (word, per) = match word.as_bytes().last() {
        None => return Some((0, Per::Job)),
        Some(b'n') => (&word[..word.len() - 1], Per::Node),
        Some(b'c') => (&word[..word.len() - 1], Per::Cpu),
        Some(_) => (word, Per::Job),
    };
    let number = word.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: f64 = match &word[number.len()..] {
        "K" => 1.,
        "" | "M" => 1024.,
        "G" => 1024. * 1024.,
        "T" => 1024. * 1024. * 1024.,
        "P" => 1024. * 1024. * 1024. * 1024.,
        _ => return None,
    };
    let number: f64 = number
        .parse()
        .ok()
        .filter(|number| (0. ..1e12).contains(number))?;
    Some(((number * unit).ceil() as u64, per))
}

/// The value of one TRES of a list such as `billing=4,cpu=4,gres/gpu=1,mem=16G,node=1`.
pub fn tres<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    list.split(',')
        .find_map(|tres| tres.split_once('=').filter(|(key, _)| *key == name))
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Central Europe, by its rule, so that no time zone database is needed.
    fn zone() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone")
    }

    #[test]
    fn a_moment_is_read_in_both_forms() {
        let one = |word| moment(word, &zone()).expect("a moment").expect("known");
        assert_eq!(
            one("1770000000"),
            When {
                early: 1_770_000_000,
                late: 1_770_000_000
            }
        );
        // 2026-02-02 03:40:00 of Central Europe.
        assert_eq!(one("2026-02-02T03:40:00").early, 1_770_000_000);
        assert!(!one("2026-02-02T03:40:00").in_doubt());
        for word in ["Unknown", "None", ""] {
            assert_eq!(moment(word, &zone()), Some(None));
        }
        for word in ["soon", "2026-13-01T00:00:00", "-5", "12:30", "################"] {
            assert_eq!(moment(word, &zone()), None, "{word}");
        }
    }

    #[test]
    fn the_hour_of_a_clock_change_is_two_moments() {
        // 2026-10-25, 3:00 became 2:00: 02:30 was there twice.
        let twice = moment("2026-10-25T02:30:00", &zone())
            .expect("a moment")
            .expect("known");
        assert_eq!(twice.late - twice.early, 3600);
        assert_eq!(twice.not_before(twice.early + 1), twice.late);
        assert_eq!(twice.not_before(twice.early), twice.early);
        // 2026-03-29, 2:00 became 3:00: 02:30 never was.
        let never = moment("2026-03-29T02:30:00", &zone())
            .expect("a moment")
            .expect("known");
        assert!(never.in_doubt());
    }

    #[test]
    fn spans_and_sizes_are_as_sacct_writes_them() {
        let spans = [
            ("00:00:05", 5),
            ("1-00:00:01", 86_401),
            ("02:30", 150),
            ("01:00:00.250", 3600),
        ];
        for (word, seconds) in spans {
            assert_eq!(span(word), Some(seconds), "{word}");
        }
        for word in [
            "",
            "5",
            "a:b:c",
            "1-",
            "99999999999999999999-00:00:00",
            "1:2:3:4",
            "-1:00:00",
        ] {
            assert_eq!(span(word), None, "{word}");
        }
        let gib = 1024 * 1024;
        let sizes = [
            ("4Gn", 4 * gib, Per::Node),
            ("2000Mc", 2_048_000, Per::Cpu),
            ("16G", 16 * gib, Per::Job),
            ("1.50T", 1536 * gib, Per::Job),
            ("0n", 0, Per::Node),
            ("512", 512 * 1024, Per::Job),
            ("", 0, Per::Job),
        ];
        for (word, kib, per) in sizes {
            assert_eq!(memory(word), Some((kib, per)), "{word}");
        }
        for word in ["G", "?", "4X", "-1M", "nan", "infM", "1e300G", "é"] {
            assert_eq!(memory(word), None, "{word}");
        }
        let list = "billing=4,cpu=4,gres/gpu=1,mem=16G,node=1";
        assert_eq!(
            (tres(list, "mem"), tres(list, "cpu"), tres(list, "gpu")),
            (Some("16G"), Some("4"), None)
        );
    }

    proptest! {
        #[test]
        fn no_word_makes_it_panic(word in "\\PC*|[0-9T:.+-]{0,25}|[0-9.]{0,30}[KMGTPnc]{0,3}") {
            let _ = (moment(&word, &zone()), span(&word), memory(&word), tres(&word, "mem"));
        }
    }
}
