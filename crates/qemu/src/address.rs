//! Which address a new VM gets.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use thiao_core::ids::Time;

/// How many addresses of a wide network are used at most.
const MAX_ADDRESSES: usize = 65_536;

/// The next free address after the last one that was given away, so that an
/// address rests before it is used again; without a last one, anywhere.
pub fn pick(
    pool: impl Iterator<Item = Ipv4Addr>,
    used: &BTreeSet<Ipv4Addr>,
    last: Option<Ipv4Addr>,
    now: Time,
) -> Option<Ipv4Addr> {
    let pool: Vec<Ipv4Addr> = pool.take(MAX_ADDRESSES).collect();
    let start = match last {
        Some(last) => pool.iter().position(|address| *address > last).unwrap_or(0),
        None => usize::try_from(now.0 / 1000).unwrap_or(0) % pool.len().max(1),
    };
    pool[start..]
        .iter()
        .chain(&pool[..start])
        .find(|address| !used.contains(address))
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn addresses_are_fresh_and_never_in_use(
            size in 0_u32..40, used in proptest::collection::btree_set(0_u32..40, 0..40), last in proptest::option::of(0_u32..60), now in any::<u64>()
        ) {
            let address = |n: u32| Ipv4Addr::from(0x0a00_0000 + n);
            let used: BTreeSet<Ipv4Addr> = used.into_iter().map(address).collect();
            let picked = pick((0..size).map(address), &used, last.map(address), Time(now));
            let free: Vec<Ipv4Addr> = (0..size).map(address).filter(|a| !used.contains(a)).collect();
            prop_assert_eq!(picked.is_some(), !free.is_empty());
            if let (Some(picked), Some(last)) = (picked, last) {
                let after = free.iter().find(|a| **a > address(last)).or(free.first());
                prop_assert_eq!(Some(&picked), after);
            }
        }
    }
}
