//! What releases of Slurm do in other ways than each other, as far as the simulated one does it.

use std::fmt;
use std::str::FromStr;

/// A release: `24.11`.
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
