//! What releases of Slurm do in other ways than each other, as far as the simulated one does it.

use std::fmt;
use std::str::FromStr;

/// A release of Slurm: `24.11`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    year: u8,
    month: u8,
}

impl Release {
    /// The oldest that Thiao runs on.
    pub const OLDEST: Self = Self::new(22, 5);

    /// Those whose slurmctld the scenarios were replayed on.
    pub const KNOWN: [Self; 5] = [
        Self::OLDEST,
        Self::new(23, 11),
        Self::new(24, 11),
        Self::new(25, 11),
        Self::new(26, 5),
    ];

    /// The one of that month.
    #[must_use]
    pub const fn new(year: u8, month: u8) -> Self {
        Self { year, month }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.year, self.month)
    }
}

impl FromStr for Release {
    type Err = String;

    /// Reads `24.11`, and what may come behind it as in `24.11.5`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut numbers = text.split('.').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(year)), Some(Ok(month))) => Ok(Self { year, month }),
            _ => Err(format!("\"{text}\" is no release of Slurm's, as 24.11")),
        }
    }
}

/// In what ways slurmctlds go that not all do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ways {
    /// What slurmctld itself says of a node goes behind what was said before; else in its place.
    pub reasons_add_up: bool,
    /// A node that is back in service keeps the reason for which it was not, until a job gets it (without
    /// accounting).
    pub reasons_stay: bool,
    /// A drained node is MIXED where its job has a part of it; else ALLOCATED.
    pub drained_is_mixed: bool,
    /// What a slurmd answers undoes a DOWN (`node_did_resp: node n1 returned to service`) until the node powers
    /// down, which begins at once; else within a second. So the DOWN of a live one may last, and that of one
    /// whose slurmd died within a second of a launch, which it had answered, may be undone.
    pub answers_race: bool,
}

impl Release {
    /// Read in slurmctld's source, and seen in the scenarios, of 22.05.8, 23.11.11, 24.11.5, 25.11.7, 26.05.5.
    pub(super) fn ways(self) -> Ways {
        Ways {
            reasons_add_up: self >= Self::new(23, 2),
            reasons_stay: (Self::new(23, 11)..=Self::new(25, 11)).contains(&self),
            drained_is_mixed: self >= Self::new(23, 11),
            answers_race: self >= Self::new(23, 11),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_and_in_order() {
        for (text, release) in [
            ("22.05", Release::new(22, 5)),
            ("24.11.5", Release::new(24, 11)),
            ("26.05.0-0rc1", Release::new(26, 5)),
        ] {
            assert_eq!(text.parse(), Ok(release));
        }
        for bad in ["", "24", "24.", "slurm", "24.x"] {
            assert!(bad.parse::<Release>().is_err(), "{bad}");
        }
        assert_eq!(Release::OLDEST.to_string(), "22.05");
        assert!(Release::KNOWN.is_sorted());
    }
}
