//! ACL rules: who may do what to which objects.
//!
//! As text they are what `oneacl create` takes, `#5 VM/@100 USE+MANAGE`; on the wire they are four
//! hexadecimal numbers. Read of OpenNebula 7.4.0: `src/acl/AclRule.cc` (the bits of whom and which),
//! `include/PoolObjectSQL.h` (the kinds), `include/AuthRequest.h` (the rights). The same in 5.12.

use std::fmt::{self, Write as _};

const ONE: u64 = 0x1_0000_0000;
const GROUP: u64 = 0x2_0000_0000;
const ALL: u64 = 0x4_0000_0000;
const CLUSTER: u64 = 0x8_0000_0000;
/// The bits that say how the id is meant.
const HOW: u64 = 0xF_0000_0000;
const ID: u64 = 0xFFFF_FFFF;

const KINDS: [(&str, u64); 19] = [
    ("VM", 0x10_0000_0000),
    ("HOST", 0x20_0000_0000),
    ("NET", 0x40_0000_0000),
    ("IMAGE", 0x80_0000_0000),
    ("USER", 0x100_0000_0000),
    ("TEMPLATE", 0x200_0000_0000),
    ("GROUP", 0x400_0000_0000),
    ("DATASTORE", 0x1000_0000_0000),
    ("CLUSTER", 0x2000_0000_0000),
    ("DOCUMENT", 0x4000_0000_0000),
    ("ZONE", 0x8000_0000_0000),
    ("SECGROUP", 0x1_0000_0000_0000),
    ("VDC", 0x2_0000_0000_0000),
    ("VROUTER", 0x4_0000_0000_0000),
    ("MARKETPLACE", 0x8_0000_0000_0000),
    ("MARKETPLACEAPP", 0x10_0000_0000_0000),
    ("VMGROUP", 0x20_0000_0000_0000),
    ("VNTEMPLATE", 0x40_0000_0000_0000),
    ("BACKUPJOB", 0x100_0000_0000_0000),
];

const RIGHTS: [(&str, u64); 4] = [("USE", 1), ("MANAGE", 2), ("ADMIN", 4), ("CREATE", 8)];

/// Whom a rule is for, or which objects it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Which {
    /// `#5`: the one with this id.
    One(u32),
    /// `@100`: those of the group with this id.
    Group(u32),
    /// `%0`: those in the OpenNebula cluster with this id.
    Cluster(u32),
    /// `*`: whoever, or whichever, it is.
    All,
}

impl Which {
    fn parse(text: &str) -> Option<Self> {
        let id = |text: &str| text.parse().ok();
        match text.split_at_checked(1)? {
            ("*", "") => Some(Self::All),
            ("#", rest) => id(rest).map(Self::One),
            ("@", rest) => id(rest).map(Self::Group),
            ("%", rest) => id(rest).map(Self::Cluster),
            _ => None,
        }
    }

    fn bits(self) -> u64 {
        match self {
            Self::One(id) => ONE | u64::from(id),
            Self::Group(id) => GROUP | u64::from(id),
            Self::Cluster(id) => CLUSTER | u64::from(id),
            Self::All => ALL,
        }
    }

    fn of(bits: u64) -> Option<Self> {
        let id = u32::try_from(bits & ID).ok()?;
        match bits & HOW {
            ONE => Some(Self::One(id)),
            GROUP => Some(Self::Group(id)),
            CLUSTER => Some(Self::Cluster(id)),
            ALL => Some(Self::All),
            _ => None,
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(id) => write!(f, "#{id}"),
            Self::Group(id) => write!(f, "@{id}"),
            Self::Cluster(id) => write!(f, "%{id}"),
            Self::All => f.write_str("*"),
        }
    }
}

/// What rights are about: kinds of objects, and which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    /// Bits of the kinds, those of no name here too.
    kinds: u64,
    which: Which,
    /// Bits of the rights.
    rights: u64,
}

impl Grant {
    /// Reads `VM+IMAGE/#7 USE+MANAGE`, as oneacl takes it behind the user; none: it is no such text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (objects, rights) = text.trim().split_once(' ')?;
        let (kinds, which) = objects.split_once('/')?;
        Some(Self {
            kinds: sum(&KINDS, kinds)?,
            which: Which::parse(which)?,
            rights: sum(&RIGHTS, rights.trim())?,
        })
    }

    /// Whether all that this one allows `other` allows, too.
    #[must_use]
    pub fn within(&self, other: &Self) -> bool {
        let of_these = other.which == Which::All || other.which == self.which;
        of_these && self.kinds & !other.kinds == 0 && self.rights & !other.rights == 0
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{} {}",
            names(&KINDS, self.kinds),
            self.which,
            names(&RIGHTS, self.rights)
        )
    }
}

/// A rule of OpenNebula's. Its zone is left out: a new one holds in the zone of the front-end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Whom it is for.
    pub user: Which,
    pub grant: Grant,
}

impl Rule {
    /// Reads `#5 VM/@100 USE+MANAGE`, as oneacl takes it; none: it is no such text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (user, grant) = text.trim().split_once(' ')?;
        Some(Self {
            user: Which::parse(user)?,
            grant: Grant::parse(grant)?,
        })
    }

    /// From the numbers of `one.acl.info` or `one.acl.addrule`, hexadecimal without a prefix; none: they are no
    /// rule.
    #[must_use]
    pub fn of_hex(user: &str, resource: &str, rights: &str) -> Option<Self> {
        let number = |text: &str| u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok();
        let resource = number(resource)?;
        Some(Self {
            user: Which::of(number(user)?)?,
            grant: Grant {
                kinds: resource & !(HOW | ID),
                which: Which::of(resource)?,
                rights: number(rights)?,
            },
        })
    }

    /// The numbers of user, resource and rights as `one.acl.addrule` takes them.
    #[must_use]
    pub fn to_hex(&self) -> [String; 3] {
        let resource = self.grant.kinds | self.grant.which.bits();
        [self.user.bits(), resource, self.grant.rights].map(|number| format!("{number:x}"))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.user, self.grant)
    }
}

/// The bits of `A+B`; none if one is not known.
fn sum(table: &[(&str, u64)], text: &str) -> Option<u64> {
    text.split('+').try_fold(0, |bits, word| {
        let (_, bit) = table.iter().find(|(name, _)| *name == word)?;
        Some(bits | bit)
    })
}

/// The names of bits; of those without a name, the number.
fn names(table: &[(&str, u64)], bits: u64) -> String {
    let mut text = String::new();
    let mut left = bits;
    for (name, bit) in table.iter().filter(|(_, bit)| bits & bit != 0) {
        left &= !bit;
        text.push_str(if text.is_empty() { "" } else { "+" });
        text.push_str(name);
    }
    if left != 0 || text.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}{left:#x}", if text.is_empty() { "" } else { "+" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_numbers_are_the_same_rules() {
        for (text, hex) in [
            ("#5 HOST/* USE+MANAGE", ["100000005", "2400000000", "3"]),
            ("#5 VM/@100 USE+MANAGE+ADMIN", ["100000005", "1200000064", "7"]),
            ("@1 NET+DATASTORE/* USE", ["200000001", "104400000000", "1"]),
            ("* ZONE/* USE", ["400000000", "800400000000", "1"]),
            ("#5 TEMPLATE/#3 USE", ["100000005", "20100000003", "1"]),
            ("#2 HOST/%0 MANAGE", ["100000002", "2800000000", "2"]),
        ] {
            let rule = Rule::parse(text).expect(text);
            assert_eq!(rule.to_string(), text);
            assert_eq!(rule.to_hex(), hex, "{text}");
            assert_eq!(Rule::of_hex(hex[0], hex[1], hex[2]), Some(rule));
        }
        for text in [
            "",
            "#5",
            "5 VM/* USE",
            "#5 VM USE",
            "#5 VM/* GO",
            "#5 CAT/* USE",
            "#x VM/* USE",
        ] {
            assert_eq!(Rule::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_allowed_within_more_is_known() {
        let within = |one: &str, other: &str| {
            Grant::parse(one)
                .expect(one)
                .within(&Grant::parse(other).expect(other))
        };
        assert!(within("NET/#3 USE", "NET+DATASTORE/* USE"));
        assert!(within("NET/#3 USE", "NET/#3 USE+MANAGE"));
        assert!(!within("NET/#3 USE+MANAGE", "NET/#3 USE"));
        assert!(!within("NET/#3 USE", "NET/#4 USE"));
        assert!(!within("NET/* USE", "NET/#3 USE"));
        assert!(!within("IMAGE/#3 USE", "NET/* USE"));
    }
}
