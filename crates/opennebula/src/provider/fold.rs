//! What oned showed, in the words that all providers share. Pure.

use crate::model::{Host, VmRow};
use crate::settings::{Placement, ReadyBy, VmSource};
use crate::state::{HostState, Kind};
use std::collections::{BTreeMap, BTreeSet};
use thiao_core::ids::{HostName, NodesetName, VmId, VmTag};
use thiao_core::view::{HostView, Load, ProviderView, VmState, VmView};

/// The host that stands for OpenNebula's own scheduler.
pub const PSEUDO_HOST: &str = "opennebula";

/// What decides how oned's answers are to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub placement: Placement,
    pub ready: ReadyBy,
    /// The only hosts that count; empty: all.
    pub hosts: &'a [HostName],
    /// The only OpenNebula cluster whose hosts count.
    pub host_cluster: Option<&'a str>,
    /// What makes VMs, of which some say what a GPU is.
    pub sources: &'a BTreeMap<NodesetName, VmSource>,
}

/// A VM of ours as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ours {
    pub row: VmRow,
    pub tag: VmTag,
    /// Its guest has said READY=YES.
    pub ready: bool,
    /// The host that it leaves and is counted on as well; none of one whose move began before it was seen.
    pub leaves: Option<u32>,
    /// The user to whom somebody has given it (`onevm chown`): it is not ours as long as that holds.
    pub given: Option<String>,
    /// oned's ERROR that was there while the VM was well: oned keeps it, and it is no cause of what came later.
    pub old_error: Option<String>,
}

impl Ours {
    /// What oned says of what is wrong with it now.
    pub fn error(&self) -> Option<&str> {
        let error = self.row.error.as_ref();
        error
            .filter(|_| self.row.error != self.old_error)
            .map(String::as_str)
    }
}

/// A VM's id in the words of all providers.
pub(super) fn vm_id(id: u32) -> Option<VmId> {
    VmId::new(&id.to_string()).ok()
}

/// Everything in one view. `ours` are the VMs with our cluster's tag.
pub(super) fn view(rules: Rules<'_>, ours: &BTreeMap<u32, Ours>, hosts: &[Host]) -> ProviderView {
    let vms = ours.values().filter_map(|vm| vm_view(rules.ready, vm));
    ProviderView {
        hosts: host_views(rules, ours, hosts),
        vms: vms.collect(),
    }
}

fn vm_view(by: ReadyBy, vm: &Ours) -> Option<VmView> {
    let host = vm.row.host.as_ref();
    // One that is over, or could be deployed anywhere, takes nothing from the host where it was.
    let over = vm.row.state.has_left();
    Some(VmView {
        id: vm_id(vm.row.id)?,
        tag: Some(vm.tag.clone()),
        host: host.and_then(|(name, _)| HostName::new(name).ok()),
        memory_mb: if over { 0 } else { vm.row.memory_mb },
        cpu_percent: if over { 0 } else { vm.row.cpu_percent },
        state: state(by, vm),
    })
}

/// What of a VM's size is beyond every machine, where that matters: not of one that is over or failed.
fn odd_size(vm: &Ours) -> Option<VmState> {
    let beyond = vm.row.beyond?;
    match vm.row.state.kind() {
        Kind::Held
        | Kind::Pending
        | Kind::Starting
        | Kind::Running
        | Kind::Moving
        | Kind::Restoring
        | Kind::Saving
        | Kind::Saved
        | Kind::FailedUnsure
        | Kind::Lost
        | Kind::Unknown(_) => Some(VmState::Unknown(format!(
            "cannot be: OpenNebula reports {beyond}"
        ))),
        Kind::Off | Kind::Ending | Kind::Failed | Kind::Done => None,
    }
}

/// What a VM's state means to the controller.
fn state(by: ReadyBy, vm: &Ours) -> VmState {
    if let Some(odd) = odd_size(vm) {
        return odd;
    }
    let state = vm.row.state;
    if let (Some(user), false) = (&vm.given, state.kind() == Kind::Done) {
        return VmState::Unknown(format!(
            "belongs to OpenNebula's user {user} now (onevm chown): it is not Thiao's any more, and is left alone"
        ));
    }
    let with_error = |what: String| match vm.error() {
        Some(error) => format!("{what}: {error}"),
        None => what,
    };
    match state.kind() {
        Kind::Held => VmState::Held,
        Kind::Pending => VmState::Pending,
        // Its images are being copied, or its driver starts it.
        Kind::Starting => VmState::Pending,
        Kind::Running => match by {
            ReadyBy::OneGate if vm.ready => VmState::Ready,
            // Without OneGate it is Slurm that sees its slurmd.
            ReadyBy::OneGate | ReadyBy::Slurm => VmState::Booting,
        },
        Kind::Moving => VmState::Moving,
        Kind::Saving => VmState::Saving,
        Kind::Saved => VmState::Saved,
        Kind::Restoring => VmState::Restoring,
        Kind::Off => VmState::Dead(with_error(format!("powered off in OpenNebula ({state})"))),
        Kind::Ending => VmState::Stopping,
        Kind::Failed => VmState::Dead(with_error(format!("failed in OpenNebula ({state})"))),
        Kind::FailedUnsure => VmState::Unknown(with_error(format!("is in {state}, and may still run"))),
        Kind::Lost => VmState::Unknown(with_error(format!(
            "is {state} in OpenNebula: its host does not say whether it runs"
        ))),
        Kind::Done => VmState::Dead("terminated in OpenNebula".to_owned()),
        Kind::Unknown(_) => VmState::Unknown(format!("is in {state}, which Thiao does not know")),
    }
}

/// The hosts, with what is left beside the VMs that are not in our view.
///
/// The VMs must have been listed before the hosts: one of ours that is placed between
/// the two is then counted twice for a moment. The other way round it would not be
/// counted at all, and its place be given away again.
fn host_views(rules: Rules<'_>, ours: &BTreeMap<u32, Ours>, hosts: &[Host]) -> Vec<HostView> {
    let mut promised: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for vm in ours.values().filter(|vm| vm.row.state.holds_capacity()) {
        let host = vm.row.host.as_ref().map(|(_, host)| *host);
        for host in host.into_iter().chain(vm.leaves) {
            let (cpu, memory) = promised.entry(host).or_default();
            *cpu += u64::from(vm.row.cpu_percent);
            *memory += vm.row.memory_mb;
        }
    }
    let by_us = rules.placement == Placement::Thiao;
    let named: BTreeSet<&str> = rules.hosts.iter().map(HostName::as_str).collect();
    let wanted = |host: &&Host| {
        (named.is_empty() || named.contains(host.name.as_str()))
            && rules.host_cluster.is_none_or(|cluster| cluster == host.cluster)
    };
    let left = |host: &Host| {
        let name = HostName::new(&host.name).ok()?;
        let (cpu, memory) = promised.get(&host.id).copied().unwrap_or_default();
        let others_cpu = u64::from(host.promised_cpu_percent).saturating_sub(cpu);
        let others_memory = host.promised_memory_mb.saturating_sub(memory);
        let cpu_left = u64::from(host.max_cpu_percent).saturating_sub(others_cpu);
        Some(HostView {
            name,
            cpu_percent: u32::try_from(cpu_left).unwrap_or(u32::MAX),
            memory_mb: host.max_memory_mb.saturating_sub(others_memory),
            gpus: gpus(rules.sources, ours, host),
            usable: by_us && host.takes_vms(),
            closed: closed(host),
            not_for: Default::default(),
            load: Some(Load {
                cpu_percent: host.load.map(|(cpu, _)| cpu),
                memory_mb: host.load.map(|(_, memory)| memory),
                vms: host.vms as usize,
                promised_cpu_percent: host.promised_cpu_percent,
                promised_memory_mb: host.promised_memory_mb,
            }),
        })
    };
    let mut views: Vec<HostView> = hosts.iter().filter(wanted).filter_map(left).collect();
    if !by_us && let Ok(name) = HostName::new(PSEUDO_HOST) {
        views.push(HostView {
            name,
            cpu_percent: u32::MAX,
            // More than there is, and far from where sums overflow.
            memory_mb: u64::from(u32::MAX) * 1024,
            gpus: None,
            usable: true,
            closed: None,
            not_for: Default::default(),
            load: None,
        });
    }
    views
}

/// Why a host takes no new VMs. Not in OpenNebula's own words on it: they have the time of each try.
fn closed(host: &Host) -> Option<String> {
    let (name, state) = (&host.name, host.state);
    Some(match state {
        HostState::Monitored => format!("OpenNebula reports {} there", host.beyond?),
        HostState::Init => "OpenNebula has not monitored it yet (INIT)".to_owned(),
        HostState::Error => {
            format!(
                "OpenNebula cannot monitor it (ERROR), and does not know what runs there: `onehost show {name}`"
            )
        }
        HostState::Disabled | HostState::Offline => {
            format!("somebody has set it {state} in OpenNebula, until `onehost enable {name}`")
        }
        HostState::Unknown(_) => format!("it is in {state}, which Thiao does not know"),
    })
}

/// How many GPUs of a host our VMs may have: those that are free, and those that they have. None: no nodeset has
/// any, or what one is cannot be told from the listing.
fn gpus(sources: &BTreeMap<NodesetName, VmSource>, ours: &BTreeMap<u32, Ours>, host: &Host) -> Option<u32> {
    let mut kinds = sources
        .values()
        .filter_map(|source| source.gpu_pci.as_deref())
        .peekable();
    kinds.peek()?;
    let kinds: Vec<_> = kinds.collect();
    let mut count = 0;
    for device in host.pci.as_ref()? {
        let mut is_gpu = false;
        for kind in &kinds {
            is_gpu |= device.is_one_of(kind)?;
        }
        count += u32::from(is_gpu && device.vm.is_none_or(|vm| ours.contains_key(&vm)));
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::TemplateSource;
    use crate::size::Beyond;
    use crate::state::VmState as OneState;
    use proptest::prelude::*;
    use thiao_core::ids::{ClusterName, Generation, NodeName};

    const RULES: Rules<'_> = Rules {
        placement: Placement::Thiao,
        ready: ReadyBy::OneGate,
        hosts: &[],
        host_cluster: None,
        sources: &BTreeMap::new(),
    };

    fn ours(id: u32, (state, lcm): (i32, i32), host: Option<u32>) -> Ours {
        Ours {
            row: VmRow {
                id,
                name: "any".to_owned(),
                state: OneState::new(state, lcm),
                host: host.map(|host| (format!("h{host}"), host)),
                cpu_percent: 150,
                memory_mb: 1024,
                beyond: None,
                addresses: vec![],
                error: Some("boom".to_owned()),
                sched_message: None,
            },
            tag: VmTag {
                cluster: ClusterName::new("prod").unwrap(),
                node: NodeName::new("n1").unwrap(),
                generation: Generation(1),
            },
            ready: false,
            leaves: None,
            given: None,
            old_error: None,
        }
    }

    fn host(id: u32, promised_cpu_percent: u32, promised_memory_mb: u64) -> Host {
        Host {
            id,
            name: format!("h{id}"),
            state: HostState::Monitored,
            cluster: "default".to_owned(),
            cluster_id: 0,
            hypervisor: "dummy".to_owned(),
            max_cpu_percent: 800,
            promised_cpu_percent,
            max_memory_mb: 16_384,
            promised_memory_mb,
            vms: 0,
            beyond: None,
            pci: None,
            load: Some((10, 100)),
        }
    }

    fn map(vms: Vec<Ours>) -> BTreeMap<u32, Ours> {
        vms.into_iter().map(|vm| (vm.row.id, vm)).collect()
    }

    #[test]
    fn states_mean_what_they_mean() {
        let of = |numbers| state(ReadyBy::OneGate, &ours(1, numbers, None));
        assert_eq!(of((2, 0)), VmState::Held);
        assert_eq!(of((1, 0)), VmState::Pending);
        assert_eq!(of((3, 2)), VmState::Pending);
        assert_eq!(of((3, 3)), VmState::Booting);
        assert_eq!(of((5, 0)), VmState::Saved);
        assert_eq!(of((3, 6)), VmState::Saving);
        assert_eq!(of((3, 21)), VmState::Restoring);
        assert_eq!(of((3, 4)), VmState::Moving);
        assert_eq!(of((3, 12)), VmState::Stopping);
        assert!(matches!(of((3, 16)), VmState::Unknown(_)));
        assert!(matches!(of((3, 99)), VmState::Unknown(_)));
        assert!(matches!(of((3, 37)), VmState::Unknown(_)));
        assert_eq!(of((6, 0)), VmState::Dead("terminated in OpenNebula".to_owned()));
        assert_eq!(
            of((3, 36)),
            VmState::Dead("failed in OpenNebula (BOOT_FAILURE): boom".to_owned())
        );
    }

    #[test]
    fn an_older_error_is_no_cause_of_a_death() {
        let vm = Ours {
            old_error: Some("boom".to_owned()),
            ..ours(1, (8, 0), None)
        };
        let dead = |vm: &Ours| match state(ReadyBy::Slurm, vm) {
            VmState::Dead(why) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(dead(&vm), "powered off in OpenNebula (POWEROFF)");
        let newer = Ours {
            old_error: Some("a resize was refused".to_owned()),
            ..vm
        };
        assert_eq!(dead(&newer), "powered off in OpenNebula (POWEROFF): boom");
    }

    #[test]
    fn ready_is_the_guests_word_and_only_while_it_runs() {
        let of = |by, numbers| {
            let vm = Ours {
                ready: true,
                ..ours(1, numbers, None)
            };
            state(by, &vm)
        };
        assert_eq!(of(ReadyBy::OneGate, (3, 3)), VmState::Ready);
        assert_eq!(of(ReadyBy::OneGate, (3, 2)), VmState::Pending);
        assert_eq!(of(ReadyBy::Slurm, (3, 3)), VmState::Booting);
    }

    #[test]
    fn what_others_were_promised_is_not_ours_to_give() {
        // On h1: ours 1024 MiB, others 2048. A held one takes nothing yet.
        let vms = map(vec![ours(1, (3, 3), Some(1)), ours(2, (2, 0), None)]);
        let view = view(RULES, &vms, &[host(1, 250, 3072), host(2, 0, 0)]);
        let capacity: Vec<(u32, u64)> = view.hosts.iter().map(|h| (h.cpu_percent, h.memory_mb)).collect();
        assert_eq!(capacity, [(700, 14_336), (800, 16_384)]);
        assert!(view.hosts.iter().all(|h| h.usable));
    }

    #[test]
    fn a_vm_that_is_over_or_nowhere_takes_nothing() {
        // DONE, POWEROFF, STOPPED, UNDEPLOYED, SUSPENDED.
        let states = [(6, 0), (8, 0), (4, 0), (9, 0), (5, 0)];
        let vms = (1..).zip(states).map(|(id, state)| ours(id, state, Some(1)));
        let view = view(RULES, &map(vms.collect()), &[]);
        let memory: Vec<u64> = view.vms.iter().map(|vm| vm.memory_mb).collect();
        assert_eq!(memory, [0, 1024, 0, 0, 1024]);
    }

    #[test]
    fn a_vm_that_moves_is_ours_on_both_hosts() {
        let moving = Ours {
            leaves: Some(1),
            ..ours(1, (3, 4), Some(2))
        };
        let hosts = view(
            RULES,
            &map(vec![moving]),
            &[host(1, 150, 1024), host(2, 150, 1024)],
        )
        .hosts;
        let left: Vec<u64> = hosts.iter().map(|host| host.memory_mb).collect();
        assert_eq!(left, [16_384, 16_384], "core counts it on both");
    }

    /// As seen on a real oned: a free core was refused beside a VM that a person had suspended.
    #[test]
    fn a_vm_that_a_person_keeps_still_is_counted_once() {
        for state in [(5, 0), (8, 0), (3, 5), (3, 6), (3, 10), (3, 21), (3, 28), (3, 41)] {
            let vms = map(vec![ours(1, state, Some(1))]);
            let hosts = view(RULES, &vms, &[host(1, 150, 1024)]).hosts;
            assert_eq!(
                (hosts[0].cpu_percent, hosts[0].memory_mb),
                (800, 16_384),
                "{state:?}"
            );
        }
        // oned has given its place away, or will.
        for state in [(4, 0), (9, 0), (3, 23), (3, 68)] {
            let vms = map(vec![ours(1, state, Some(1))]);
            let hosts = view(RULES, &vms, &[host(1, 150, 1024)]).hosts;
            assert_eq!(hosts[0].memory_mb, 15_360, "somebody else's: {state:?}");
        }
    }

    #[test]
    fn sizes_that_no_machine_has_are_counted_nowhere() {
        let xml = "<VM><ID>1</ID><STATE>3</STATE><LCM_STATE>3</LCM_STATE><TEMPLATE><MEMORY>18446744073709551615</MEMORY>\
            </TEMPLATE><HISTORY_RECORDS><HISTORY><SEQ>0</SEQ><HOSTNAME>h1</HOSTNAME><HID>1</HID></HISTORY>\
            </HISTORY_RECORDS></VM>";
        let listing = format!("<VM_POOL>{xml}{}</VM_POOL>", xml.replace("<ID>1<", "<ID>2<"));
        let rows = crate::read::vms(&listing).unwrap();
        let of = |row: VmRow| Ours {
            row,
            ..ours(0, (3, 3), None)
        };
        let odd = Host {
            beyond: Some(Beyond::Memory),
            ..host(2, 0, 0)
        };
        let view = view(
            RULES,
            &map(rows.into_iter().map(of).collect()),
            &[host(1, 300, 4096), odd],
        );
        for vm in &view.vms {
            assert_eq!((vm.memory_mb, vm.host.as_ref().unwrap().as_str()), (0, "h1"));
            let VmState::Unknown(why) = &vm.state else {
                panic!("{vm:?}")
            };
            assert_eq!(
                why,
                "cannot be: OpenNebula reports more than 1073741824 MiB of memory"
            );
        }
        // What it promises to them is promised to somebody.
        let hosts: Vec<_> = view.hosts.iter().map(|h| (h.memory_mb, h.usable)).collect();
        assert_eq!(hosts, [(12_288, true), (16_384, false)]);
        let over = Ours {
            row: VmRow {
                beyond: Some(Beyond::Cpu),
                ..ours(1, (6, 0), None).row
            },
            ..ours(1, (6, 0), None)
        };
        assert!(matches!(state(ReadyBy::OneGate, &over), VmState::Dead(_)));
    }

    #[test]
    fn only_the_named_hosts_count() {
        let hosts = [host(1, 0, 0), host(2, 0, 0)];
        let named = [HostName::new("h2").unwrap()];
        let names = |rules| {
            let view = view(rules, &BTreeMap::new(), &hosts);
            view.hosts.iter().map(|h| h.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            names(Rules {
                hosts: &named,
                ..RULES
            }),
            ["h2"]
        );
        let elsewhere = Some("other");
        assert!(
            names(Rules {
                host_cluster: elsewhere,
                ..RULES
            })
            .is_empty()
        );
    }

    #[test]
    fn gpus_that_others_have_are_not_ours_to_give() {
        let card = |vendor: &str, vm: i64| {
            format!(
                "<PCI><VENDOR>{vendor}</VENDOR><DEVICE>2235</DEVICE><CLASS>0302</CLASS><VMID>{vm}</VMID></PCI>"
            )
        };
        let devices = [
            card("10de", -1),
            card("10de", 1),
            card("10de", 77),
            card("8086", -1),
        ];
        let share = format!("<PCI_DEVICES>{}</PCI_DEVICES>", devices.concat());
        let listing = |share: &str| {
            let pool = format!(
                "<HOST_POOL><HOST><ID>1</ID><NAME>h1</NAME><STATE>2</STATE><HOST_SHARE>{share}</HOST_SHARE></HOST></HOST_POOL>"
            );
            crate::read::hosts(&pool, crate::model::Devices::Read).unwrap()
        };
        let source = |gpu: Option<(&str, &str)>| {
            let gpu_pci = gpu.map(|(key, text)| vec![(key.to_owned(), text.to_owned())]);
            let source = VmSource {
                template: TemplateSource::Registered("worker".to_owned()),
                network: None,
                gpu_pci,
                inputs: Default::default(),
                context: Vec::new(),
            };
            BTreeMap::from([(NodesetName::new("set").unwrap(), source)])
        };
        let gpus = |sources: &BTreeMap<NodesetName, VmSource>, hosts: &[Host]| {
            let vms = map(vec![ours(1, (3, 3), Some(1))]);
            view(Rules { sources, ..RULES }, &vms, hosts).hosts[0].gpus
        };
        let hosts = listing(&share);
        assert_eq!(gpus(&source(Some(("VENDOR", "10de"))), &hosts), Some(2));
        assert_eq!(gpus(&source(None), &hosts), None, "nobody asks for any");
        assert_eq!(
            gpus(&source(Some(("PROFILE", "nvidia-63"))), &hosts),
            None,
            "who can tell?"
        );
        assert_eq!(
            gpus(&source(Some(("VENDOR", "10de"))), &listing("")),
            None,
            "it says nothing"
        );
    }

    #[test]
    fn opennebulas_own_scheduler_is_one_host_with_capacity_for_all() {
        let rules = Rules {
            placement: Placement::OpenNebula,
            ..RULES
        };
        let view = view(rules, &BTreeMap::new(), &[host(1, 0, 0)]);
        let usable: Vec<&str> = view
            .hosts
            .iter()
            .filter(|h| h.usable)
            .map(|h| h.name.as_str())
            .collect();
        assert_eq!(usable, [PSEUDO_HOST]);
        assert_eq!(view.hosts.len(), 2);
    }

    proptest! {
        #[test]
        fn no_place_is_promised_twice(
            vms in prop::collection::vec((0..4_i32, 0..70_i32, prop::option::of(0..3_u32)), 0..12),
            others in prop::collection::vec(0..20_000_u64, 3),
        ) {
            let vms = vms.into_iter().enumerate().map(|(id, (state, lcm, host))| ours(id as u32, (state, lcm), host));
            let vms = map(vms.collect());
            let hosts: Vec<Host> = (0_u32..).zip(&others).map(|(id, others)| {
                let counted = vms.values().filter(|vm| vm.row.state.holds_capacity());
                let here = counted.filter(|vm| vm.row.host.as_ref().is_some_and(|h| h.1 == id)).count() as u64;
                host(id, 0, others + here * 1024)
            }).collect();
            for (host, others) in view(RULES, &vms, &hosts).hosts.iter().zip(others) {
                prop_assert_eq!(host.memory_mb, 16_384_u64.saturating_sub(others));
            }
        }
    }
}
