//! Whether this machine can carry what the settings promise to VMs. thiaod starts all the same: what fits is
//! made, and memory may have been taken out for a day.

use crate::load::this_machine;
use crate::settings::{Config, ProviderSettings};
use thiao_qemu::Host;

/// What of the settings is more than this machine has, in a sentence.
#[must_use]
pub fn overpromised(config: &Config) -> Option<String> {
    match &config.provider {
        ProviderSettings::Qemu(settings) => by_hosts(&settings.hosts, this_machine().memory_mb),
        ProviderSettings::OpenNebula(_) => None,
    }
}

fn by_hosts(hosts: &[Host], has_mb: u64) -> Option<String> {
    let promised = hosts
        .iter()
        .fold(0, |sum: u64, host| sum.saturating_add(host.memory_mb));
    let who = match hosts {
        [one] => format!("qemu.host {} promises", one.name),
        some => format!("the {} of qemu.host together promise", some.len()),
    };
    (promised > has_mb).then(|| {
        format!(
            "{who} {promised} MiB to VMs, and this machine has {has_mb} MiB: jobs would be killed for want of memory. \
             Make memory_mb smaller; without [[qemu.host]], VMs get three quarters of what there is"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use thiao_core::ids::HostName;

    #[test]
    fn all_hosts_are_parts_of_one_machine() {
        let hosts = |sizes: &[u64]| -> Vec<Host> {
            let host = |(n, memory_mb): (usize, &u64)| Host {
                name: HostName::new(&format!("h{n}")).unwrap(),
                cpus: 1,
                memory_mb: *memory_mb,
            };
            sizes.iter().enumerate().map(host).collect()
        };
        assert_eq!(by_hosts(&hosts(&[24_000]), 24_000), None);
        assert_eq!(by_hosts(&hosts(&[12_000, 12_000]), 24_000), None);
        let one = by_hosts(&hosts(&[240_000]), 24_000).unwrap();
        assert!(
            one.starts_with("qemu.host h0 promises 240000 MiB to VMs, and this machine has 24000 MiB"),
            "{one}"
        );
        let two = by_hosts(&hosts(&[12_000, 12_001]), 24_000).unwrap();
        assert!(
            two.starts_with("the 2 of qemu.host together promise 24001 MiB"),
            "{two}"
        );
        assert!(by_hosts(&hosts(&[u64::MAX, 1]), 24_000).is_some());
    }
}
