//! How many VMs fit at once.

/// What a host has left, or a VM takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capacity {
    /// Percent of a core.
    pub cpu_percent: u64,
    pub memory_mb: u64,
    /// VMs: of a host how many more it takes.
    pub vms: usize,
}

/// How many of each kind of VM fit, given as size and count: the largest first, on the first host with capacity. A lower bound; exact
/// when all VMs are alike.
pub(super) fn fit(hosts: &[Capacity], kinds: &[(Capacity, usize)]) -> Vec<usize> {
    let mut left = hosts.to_vec();
    let mut order: Vec<usize> = (0..kinds.len()).collect();
    order.sort_by_key(|n| {
        let size = kinds.get(*n).map(|(size, _)| (size.memory_mb, size.cpu_percent));
        std::cmp::Reverse(size)
    });
    let mut fitting = vec![0; kinds.len()];
    for n in order {
        let (Some((size, count)), Some(fitted)) = (kinds.get(n), fitting.get_mut(n)) else {
            continue;
        };
        for host in &mut left {
            let more = times(host, size).min(count - *fitted);
            host.cpu_percent -= size.cpu_percent * more as u64;
            host.memory_mb -= size.memory_mb * more as u64;
            host.vms -= more;
            *fitted += more;
        }
    }
    fitting
}

/// How many of that size the host takes.
fn times(host: &Capacity, size: &Capacity) -> usize {
    let by = |capacity: u64, each: u64| match capacity.checked_div(each) {
        Some(times) => usize::try_from(times).unwrap_or(usize::MAX),
        // What takes nothing fits always.
        None => usize::MAX,
    };
    host.vms
        .min(by(host.cpu_percent, size.cpu_percent))
        .min(by(host.memory_mb, size.memory_mb))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn capacity(cpu_percent: u64, memory_mb: u64, vms: usize) -> Capacity {
        Capacity {
            cpu_percent,
            memory_mb,
            vms,
        }
    }

    #[test]
    fn cpu_memory_and_count_each_bound_it() {
        let one = (capacity(100, 1_000, 1), 9);
        for (host, expected) in [
            (capacity(800, 100_000, 99), 8),
            (capacity(9_900, 4_999, 99), 4),
            (capacity(9_900, 100_000, 3), 3),
            (capacity(9_900, 100_000, 99), 9),
            (capacity(99, 100_000, 99), 0),
        ] {
            assert_eq!(fit(&[host], &[one]), [expected]);
        }
    }

    #[test]
    fn the_large_ones_go_first() {
        let hosts = [capacity(400, 4_000, 99), capacity(400, 4_000, 99)];
        let kinds = [(capacity(100, 1_000, 1), 8), (capacity(400, 3_000, 1), 1)];
        assert_eq!(fit(&hosts, &kinds), [4, 1]);
        assert_eq!(fit(&[], &kinds), [0, 0]);
        assert_eq!(fit(&hosts, &[(capacity(0, 0, 1), 500)]), [198]);
    }

    proptest! {
        #[test]
        fn no_host_carries_more_than_it_has(
            hosts in prop::collection::vec((0u64..2_000, 0u64..9_000, 0usize..9), 0..5),
            kinds in prop::collection::vec((1u64..900, 1u64..4_000, 0usize..12), 0..4),
        ) {
            let hosts: Vec<Capacity> = hosts.into_iter().map(|(c, m, v)| capacity(c, m, v)).collect();
            let kinds: Vec<(Capacity, usize)> = kinds.into_iter().map(|(c, m, n)| (capacity(c, m, 1), n)).collect();
            let fitting = fit(&hosts, &kinds);
            let taken = |of: fn(&Capacity) -> u64| -> u64 {
                kinds.iter().zip(&fitting).map(|((size, _), n)| of(size) * *n as u64).sum()
            };
            prop_assert!(taken(|r| r.cpu_percent) <= hosts.iter().map(|h| h.cpu_percent).sum());
            prop_assert!(taken(|r| r.memory_mb) <= hosts.iter().map(|h| h.memory_mb).sum());
            prop_assert!(fitting.iter().sum::<usize>() <= hosts.iter().map(|h| h.vms).sum());
            for ((_, count), fitted) in kinds.iter().zip(&fitting) {
                prop_assert!(fitted <= count);
            }
        }
    }
}
