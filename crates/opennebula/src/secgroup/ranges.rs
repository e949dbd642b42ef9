//! Runs of IPv4 addresses, as rules of security groups name them: the first one, and how many.

use std::net::Ipv4Addr;

/// Addresses that follow each other; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    first: u32,
    last: u32,
}

impl Range {
    /// The one address, and no other.
    #[must_use]
    pub fn one(address: Ipv4Addr) -> Self {
        let address = address.to_bits();
        Self {
            first: address,
            last: address,
        }
    }

    /// So many, from the first on; none: there are no such addresses.
    #[must_use]
    pub fn of_size(first: Ipv4Addr, size: u64) -> Option<Self> {
        let first = first.to_bits();
        let last = u64::from(first).checked_add(size.checked_sub(1)?)?;
        Some(Self {
            first,
            last: u32::try_from(last).ok()?,
        })
    }

    /// All of a network, whatever address of it is named.
    #[must_use]
    pub fn of_network(address: Ipv4Addr, prefix_len: u8) -> Self {
        let hosts = u32::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
        let first = address.to_bits() & !hosts;
        Self {
            first,
            last: first | hosts,
        }
    }

    /// Where it begins, as a rule's `IP` says.
    #[must_use]
    pub fn first(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first)
    }

    /// How many addresses there are, as a rule's `SIZE` says.
    #[must_use]
    pub fn size(self) -> u64 {
        u64::from(self.last - self.first) + 1
    }

    /// Whether the address is one of them.
    #[must_use]
    pub fn has(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address.to_bits())
    }

    /// Two halves of what is more than a rule's number can say: all addresses there are.
    pub(super) fn sayable(self) -> impl Iterator<Item = Self> {
        let middle = self.first + (self.last - self.first) / 2;
        let whole = u32::try_from(self.size()).is_ok();
        let halves = match whole {
            true => [Some(self), None],
            false => [
                Some(Self {
                    first: self.first,
                    last: middle,
                }),
                Some(Self {
                    first: middle + 1,
                    last: self.last,
                }),
            ],
        };
        halves.into_iter().flatten()
    }

    /// How many networks a host makes of it (`VNMNetwork::to_nets`): as many as are needed.
    pub(super) fn blocks(self) -> u64 {
        let (mut at, end, mut blocks) = (u64::from(self.first), u64::from(self.last) + 1, 0);
        while at < end {
            let aligned = if at == 0 { 32 } else { at.trailing_zeros().min(32) };
            let fits = 63 - (end - at).leading_zeros();
            at += 1 << aligned.min(fits);
            blocks += 1;
        }
        blocks
    }
}

/// The same addresses, sorted, each once, in as few ranges as can be.
#[must_use]
pub fn merged(ranges: impl IntoIterator<Item = Range>) -> Vec<Range> {
    let mut all: Vec<Range> = ranges.into_iter().collect();
    all.sort();
    let mut merged: Vec<Range> = Vec::with_capacity(all.len());
    for range in all {
        match merged.last_mut() {
            Some(before) if u64::from(range.first) <= u64::from(before.last) + 1 => {
                before.last = before.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// What of a range none of `holes` has.
#[must_use]
pub fn without(range: Range, holes: &[Range]) -> Vec<Range> {
    let mut left = Vec::new();
    let mut at = u64::from(range.first);
    let end = u64::from(range.last) + 1;
    let mut keep = |first: u64, end: u64| {
        if first < end
            && let (Ok(first), Ok(last)) = (u32::try_from(first), u32::try_from(end - 1))
        {
            left.push(Range { first, last });
        }
    };
    for hole in merged(holes.iter().copied()) {
        keep(at, u64::from(hole.first).min(end));
        at = at.max(u64::from(hole.last) + 1);
    }
    keep(at, end);
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(first: [u8; 4], size: u64) -> Range {
        Range::of_size(first.into(), size).unwrap()
    }

    #[test]
    fn networks_are_ranges() {
        let of = |address: [u8; 4], len| Range::of_network(address.into(), len);
        assert_eq!(of([10, 1, 2, 3], 8), range([10, 0, 0, 0], 1 << 24));
        assert_eq!(of([10, 1, 2, 3], 32), Range::one([10, 1, 2, 3].into()));
        assert_eq!(of([10, 1, 2, 3], 0).size(), 1 << 32);
        assert_eq!(Range::of_size([255; 4].into(), 2), None);
        assert_eq!(Range::of_size([10; 4].into(), 0), None);
    }

    #[test]
    fn a_hole_leaves_what_is_beside_it() {
        let net = range([10, 0, 0, 0], 256);
        let left = without(net, &[range([10, 0, 0, 100], 10), range([10, 0, 0, 105], 20)]);
        assert_eq!(left, [range([10, 0, 0, 0], 100), range([10, 0, 0, 125], 131)]);
        assert_eq!(without(net, &[net]), []);
        assert_eq!(without(net, &[range([11, 0, 0, 0], 1)]), [net]);
    }

    #[test]
    fn a_host_makes_few_networks_of_what_is_aligned() {
        assert_eq!(range([10, 0, 0, 0], 256).blocks(), 1);
        assert_eq!(range([10, 0, 0, 1], 254).blocks(), 14);
        assert_eq!(Range::of_network([0; 4].into(), 0).blocks(), 1);
        assert_eq!(Range::of_network([0; 4].into(), 0).sayable().count(), 2);
    }

    fn some() -> impl Strategy<Value = Range> {
        (0..64_u32, 1..32_u64).prop_map(|(first, size)| {
            let first = Ipv4Addr::from_bits(0x0A00_0000 + first);
            Range::of_size(first, size).unwrap()
        })
    }

    proptest! {
        #[test]
        fn exactly_the_holes_are_missing(whole in some(), holes in prop::collection::vec(some(), 0..5)) {
            let left = without(whole, &holes);
            for number in 0..128_u32 {
                let address = Ipv4Addr::from_bits(0x0A00_0000 + number);
                let wanted = whole.has(address) && !holes.iter().any(|hole| hole.has(address));
                prop_assert_eq!(left.iter().filter(|range| range.has(address)).count(), usize::from(wanted));
            }
        }

        #[test]
        fn merging_loses_and_adds_nothing(ranges in prop::collection::vec(some(), 0..8)) {
            let all = merged(ranges.clone());
            for number in 0..128_u32 {
                let address = Ipv4Addr::from_bits(0x0A00_0000 + number);
                let wanted = ranges.iter().any(|range| range.has(address));
                prop_assert_eq!(all.iter().filter(|range| range.has(address)).count(), usize::from(wanted));
            }
        }
    }
}
