//! What Slurm tells about itself: its version, whether it answers, its configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A release of Slurm, e.g. 22.05.8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The year, e.g. 22.
    pub major: u16,
    /// The month, e.g. 5.
    pub minor: u16,
    /// The number of the bug-fix release.
    pub patch: u16,
}

impl Version {
    /// A version from its parts.
    #[must_use]
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// Reads `slurm-wlm 22.05.8`, `slurm 24.11.0-0rc1` and the like.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let word = text
            .split_whitespace()
            .find(|w| w.starts_with(|c: char| c.is_ascii_digit()))?;
        let mut parts = word.splitn(3, '.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        let patch = parts.next().unwrap_or("0");
        let digits = patch
            .find(|c: char| !c.is_ascii_digit())
            .map_or(patch, |end| &patch[..end]);
        Some(Self {
            major,
            minor,
            patch: digits.parse().unwrap_or(0),
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}.{}", self.major, self.minor, self.patch)
    }
}

/// What `scontrol ping` says: which slurmctld answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ping {
    /// Each slurmctld's host and whether it is up, the primary first.
    pub controllers: Vec<(String, bool)>,
}

impl Ping {
    /// Whether any slurmctld answers.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.controllers.iter().any(|(_, up)| *up)
    }

    /// Reads lines like `Slurmctld(primary) at node1 is UP`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (host, state) = line.trim().split_once(") at ")?.1.split_once(" is ")?;
            Some((host.to_owned(), state.starts_with("UP")))
        };
        Self {
            controllers: text.split([';', '\n']).filter_map(line).collect(),
        }
    }
}

/// slurmctld's configuration as `scontrol show config` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    entries: BTreeMap<String, String>,
}

/// No site's scheduler pauses for longer; the value is a person's, and capacity is held by it.
const LONGEST_PASS_S: u64 = 3600;

impl Config {
    /// Reads lines of `Key = value`; other lines are headings. Of a key that is printed as a list, as
    /// `PrologSlurmctld[0]` is from 24.05 on, the values are joined by commas.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let entry = |line: &str| {
            let (key, value) = line.split_once('=')?;
            let (key, value) = (key.trim(), value.trim());
            (!key.is_empty() && !key.contains(' ')).then(|| (key.to_ascii_lowercase(), value.to_owned()))
        };
        let mut entries: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in text.lines().filter_map(entry) {
            let item = key.strip_suffix(']').and_then(|key| key.split_once('['));
            match item {
                Some((key, number)) if number.bytes().all(|b| b.is_ascii_digit()) => {
                    let list = entries.entry(key.to_owned()).or_default();
                    let comma = if list.is_empty() { "" } else { "," };
                    list.push_str(comma);
                    list.push_str(&value);
                }
                Some(_) | None => {
                    entries.insert(key, value);
                }
            }
        }
        Self { entries }
    }

    /// A value by its key, in any case; `None` when absent or `(null)`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries
            .get(&key.to_ascii_lowercase())
            .map(String::as_str)
            .filter(|v| *v != "(null)" && !v.is_empty())
    }

    /// All values of a key that may have several, such as `PrologSlurmctld` from 24.05 on.
    #[must_use]
    pub fn values(&self, key: &str) -> Vec<&str> {
        self.get(key)
            .into_iter()
            .flat_map(|list| list.split(',').map(str::trim))
            .collect()
    }

    /// The version of slurmctld itself.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        Version::parse(self.get("SLURM_VERSION")?)
    }

    /// Whether a comma-separated value such as `SlurmctldParameters` holds `word`, alone or as `word=...`.
    #[must_use]
    pub fn has(&self, key: &str, word: &str) -> bool {
        self.option(key, word).is_some()
    }

    /// The text behind `word=` in a comma-separated value; empty if the word stands alone.
    #[must_use]
    pub fn option(&self, key: &str, word: &str) -> Option<&str> {
        self.get(key)?.split(',').find_map(|item| {
            let (name, value) = item.split_once('=').unwrap_or((item, ""));
            name.trim().eq_ignore_ascii_case(word).then_some(value.trim())
        })
    }

    /// How long the scheduler takes at the most until it has looked at every pending job again: what the backfill
    /// scheduler waits between two passes, and as long as one may last (slurm.conf(5), 22.05 to 26.05: 30 s, and
    /// as long again). Without that scheduler the main one's passes count (60 s).
    #[must_use]
    pub fn scheduling_pass(&self) -> Duration {
        let seconds = |word| {
            let value = self.option("SchedulerParameters", word)?;
            value.parse::<u64>().ok().filter(|seconds| *seconds > 0)
        };
        let seconds = match self.get("SchedulerType") {
            None | Some("sched/backfill") => {
                let interval = seconds("bf_interval").unwrap_or(30);
                interval.saturating_add(seconds("bf_max_time").unwrap_or(interval))
            }
            Some(_) => seconds("sched_interval").unwrap_or(60),
        };
        Duration::from_secs(seconds.min(LONGEST_PASS_S))
    }

    /// The leading number of a value such as `60 sec`.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.split_whitespace().next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_the_scheduler_takes_is_read() {
        let pass = |text: &str| Config::parse(text).scheduling_pass().as_secs();
        assert_eq!(pass(""), 60);
        assert_eq!(pass("SchedulerParameters = bf_interval=120,bf_continue"), 240);
        assert_eq!(pass("SchedulerParameters = bf_max_time=10,bf_interval=1"), 11);
        for odd in ["bf_interval=-1", "bf_interval=x", "bf_interval", "(null)"] {
            assert_eq!(pass(&format!("SchedulerParameters = {odd}")), 60, "{odd}");
        }
        let builtin = "SchedulerType = sched/builtin\nSchedulerParameters = ";
        assert_eq!(pass(&format!("{builtin}bf_interval=5")), 60);
        assert_eq!(pass(&format!("{builtin}sched_interval=20")), 20);
        let huge = format!("SchedulerParameters = bf_interval={}", u64::MAX);
        assert_eq!(pass(&huge), LONGEST_PASS_S);
    }
}
