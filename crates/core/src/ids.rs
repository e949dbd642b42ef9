//! Typed names. None of them can hold a character that would need quoting in
//! a shell, a path component, a Slurm command or an OpenNebula attribute.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Why a string is not a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadName {
    /// What was wanted, e.g. "node name".
    pub what: &'static str,
    /// The text that was refused.
    pub text: String,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a {}: use 1 to 63 of letters, digits, '.', '_' and '-', the first a letter or digit",
            self.text, self.what
        )
    }
}

impl std::error::Error for BadName {}

/// Longest name accepted, in bytes: what fits a host name's label.
const MAX_NAME: usize = 63;

fn valid(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a name; refuses anything that would need quoting somewhere.
            pub fn new(text: &str) -> Result<Self, BadName> {
                if valid(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(BadName { what: $what, text: text.to_owned() })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }
    };
}

name!(
    /// The cluster whose nodes these are; written into every VM so that two clusters never touch each other's.
    ClusterName, "cluster name"
);
name!(
    /// A node: a name that Slurm knows.
    NodeName, "node name"
);
name!(
    /// A physical machine (OpenNebula's word) that carries VMs.
    HostName, "host name"
);
name!(
    /// The provider's own id of a VM.
    VmId, "VM id"
);
name!(
    /// Nodes of one shape and one VM template.
    NodesetName, "nodeset name"
);

/// Counts the VMs that a node has had: its next VM has the next number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub u64);

impl Generation {
    /// The last that is believed: with a VM each millisecond a node comes there after 8,900 years.
    pub const LAST: Self = Self(1 << 48);

    /// As a provider shows it; none of what no node comes to.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self).filter(|some| *some <= Self::LAST)
    }

    /// The generation of the node's next VM.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is written into every VM at the provider: creation is idempotent by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmTag {
    /// Whose VM it is.
    pub cluster: ClusterName,
    /// The node that it backs.
    pub node: NodeName,
    /// Which of that node's VMs it is.
    pub generation: Generation,
}

impl fmt::Display for VmTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{}", self.cluster, self.node, self.generation)
    }
}

/// The number of a job in Slurm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u32);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An instant: milliseconds since the Unix epoch. An input everywhere in this crate; nothing here reads a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

/// A span of time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// A span of whole seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(secs * 1000)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            write!(f, "{} s", self.0 / 1000)
        } else {
            write!(f, "{}.{:03} s", self.0 / 1000, self.0 % 1000)
        }
    }
}

impl Time {
    /// The span from `earlier` to here; zero if `earlier` is later (clocks step).
    #[must_use]
    pub fn since(self, earlier: Time) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Millis> for Time {
    type Output = Time;
    fn add(self, span: Millis) -> Time {
        Time(self.0.saturating_add(span.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_need_no_quoting() {
        for good in ["fg0", "vm-001", "a.b", "9x", "A_b"] {
            assert_eq!(NodeName::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "a b",
            "-x",
            ".x",
            "a/b",
            "a;b",
            "a$b",
            "é",
            "a\n",
            &"x".repeat(64),
        ] {
            assert!(NodeName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn time_never_underflows() {
        assert_eq!(Time(5).since(Time(9)), Millis(0));
        assert_eq!(Millis::secs(2).to_string(), "2 s");
        assert_eq!(Millis(1234).to_string(), "1.234 s");
    }
}
