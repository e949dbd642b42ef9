use super::*;
use thiao_core::table::Table;
use thiao_opennebula::size::Beyond;

fn vm(id: u32, node: &str, generation: &str, address: &str, state: (i32, i32)) -> VmDetails {
    let tags = [
        (TAG_CLUSTER, "lab"),
        (TAG_NODE, node),
        (TAG_GENERATION, generation),
    ];
    VmDetails {
        row: VmRow {
            id,
            name: format!("lab-{node}-{generation}"),
            state: VmState::new(state.0, state.1),
            host: Some(("h1".to_owned(), 1)),
            cpu_percent: 100,
            memory_mb: 1_000,
            beyond: None,
            addresses: address.parse().into_iter().collect(),
            error: None,
            sched_message: None,
        },
        user_template: tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        context: BTreeMap::new(),
        owner: (5, "slurm".to_owned()),
    }
}

const RUNNING: (i32, i32) = (3, 3);

fn said(vms: &[VmDetails], addresses: &[(&str, &str)], strays: &[&str]) -> Vec<Finding> {
    let up = SlurmNode {
        base: BaseState::Idle,
        flags: NodeFlags::default(),
        reason: None,
        alloc: None,
    };
    let view = SlurmView {
        nodes: addresses
            .iter()
            .map(|(node, _)| (name(node), up.clone()))
            .collect(),
        jobs: Table::new(),
        ..SlurmView::default()
    };
    let details = addresses
        .iter()
        .map(|(node, address)| {
            let details = NodeDetails {
                address: (*address).to_owned(),
                host_name: (*node).to_owned(),
                ..NodeDetails::default()
            };
            (name(node), details)
        })
        .collect();
    vms::judge(vms::Facts {
        cluster: &ClusterName::new("lab").unwrap(),
        nodes: &["fg0", "fg1"].map(name).into(),
        vms,
        slurm: Some((&view, &details)),
        strays: Some(&strays.iter().map(|id| (*id).to_owned()).collect()),
    })
}

#[test]
fn good_ones_are_counted() {
    let mut other = vm(9, "fg0", "1", "10.0.0.1", RUNNING);
    other
        .user_template
        .insert(TAG_CLUSTER.to_owned(), "another".to_owned());
    let vms = [
        vm(1, "fg0", "1", "10.0.0.1", RUNNING),
        vm(2, "fg1", "1", "10.0.0.2", (3, 2)),
        // On its way out while its successor comes.
        vm(3, "fg1", "0", "10.0.0.2", (3, 12)),
        other,
    ];
    let addresses = [("fg0", "10.0.0.1"), ("fg1", "fg1")];
    holds(
        &said(&vms, &addresses, &[]),
        "VMs",
        Verdict::Ok,
        "2 of this cluster",
        "",
    );
    holds(&said(&[], &[], &[]), "VMs", Verdict::Ok, "0 of this cluster", "");
}

#[test]
fn a_vm_of_a_size_that_no_machine_has() {
    let mut vm = vm(5, "fg0", "1", "10.0.0.1", RUNNING);
    vm.row.beyond = Some(Beyond::Memory);
    holds(
        &said(&[vm], &[], &[]),
        "VM 5",
        Verdict::Warn,
        "fg0.1: OpenNebula reports more than 1073741824 MiB of memory",
        "onevm show 5",
    );
}

#[test]
fn two_vms_with_one_nodes_tag() {
    let vms = [
        vm(7, "fg0", "2", "10.0.0.2", RUNNING),
        vm(5, "fg0", "1", "10.0.0.1", RUNNING),
    ];
    holds(
        &said(&vms, &[], &[]),
        "node fg0",
        Verdict::Bad,
        "VMs 5 and 7 have its tag",
        "thiao explain fg0 && onevm terminate --hard 5",
    );
}

#[test]
fn a_vm_that_was_told_another_name() {
    let told = |name: &str| {
        let mut vm = vm(5, "fg0", "1", "10.0.0.1", RUNNING);
        vm.context.insert("SET_HOSTNAME".to_owned(), name.to_owned());
        said(&[vm], &[], &[])
    };
    holds(
        &told("fg1"),
        "node fg0",
        Verdict::Bad,
        "was told to call itself fg1",
        "NodeName=fg0 State=POWER_DOWN",
    );
    holds(&told("fg0"), "VMs", Verdict::Ok, "1 of this cluster", "");
}

#[test]
fn two_vms_with_one_address() {
    let vms = [
        vm(5, "fg0", "1", "10.0.0.1", RUNNING),
        vm(7, "fg1", "1", "10.0.0.1", RUNNING),
    ];
    holds(
        &said(&vms, &[("fg0", "10.0.0.1")], &[]),
        "node fg[0-1]",
        Verdict::Bad,
        "VMs 5 and 7 have one address, 10.0.0.1",
        "take IP out",
    );
}

#[test]
fn vms_with_each_others_address() {
    let vms = [
        vm(5, "fg0", "1", "10.0.0.1", RUNNING),
        vm(7, "fg1", "1", "10.0.0.2", RUNNING),
    ];
    let found = said(&vms, &[("fg0", "10.0.0.2"), ("fg1", "10.0.0.1")], &[]);
    assert_eq!(found.len(), 2, "{found:#?}");
    holds(
        &found[..1],
        "node fg0",
        Verdict::Bad,
        "reaches it at 10.0.0.2, which is the VM of fg1 (VM 7); its own VM 5 has 10.0.0.1",
        "scontrol update NodeName=fg0,fg1 State=POWER_DOWN",
    );
    holds(
        &said(&vms, &[("fg0", "10.9.9.9")], &[]),
        "node fg0",
        Verdict::Warn,
        "at 10.9.9.9; its VM 5 has 10.0.0.1",
        "onevm show 5",
    );
}

#[test]
fn orphans() {
    let vms = [vm(5, "fg7", "1", "10.0.0.1", RUNNING)];
    holds(
        &said(&vms, &[], &[]),
        "VM 5",
        Verdict::Warn,
        "fg7, which is not a node",
        "onevm terminate 5",
    );
    let vms = [vm(5, "fg0", "1", "10.0.0.1", RUNNING)];
    holds(
        &said(&vms, &[], &["5"]),
        "VM 5",
        Verdict::Warn,
        "backs no node",
        "thiao explain fg0.1",
    );
    let mut half = vm(5, "fg0", "1", "10.0.0.1", RUNNING);
    half.user_template.remove(TAG_GENERATION);
    holds(
        &said(&[half], &[], &[]),
        "VM 5",
        Verdict::Warn,
        "they are not complete",
        "onevm show 5",
    );
}

#[test]
fn states_that_a_vm_does_not_leave_by_itself() {
    for (state, verdict, words, remedy) in [
        (
            (3, 36),
            Verdict::Bad,
            "BOOT_FAILURE: no such disk",
            "onevm recover --delete 5",
        ),
        (
            (3, 38),
            Verdict::Bad,
            "PROLOG_MIGRATE_FAILURE",
            "onevm recover --delete 5",
        ),
        ((3, 16), Verdict::Warn, "it may run", "onehost list"),
        (
            (1, 0),
            Verdict::Warn,
            "waits for a host: none fits",
            "onevm show 5",
        ),
        (
            (8, 0),
            Verdict::Warn,
            "POWEROFF: it was shut down behind",
            "onevm terminate --hard 5",
        ),
        (
            (77, 0),
            Verdict::Warn,
            "STATE 77, which we do not know",
            "onevm show 5",
        ),
    ] {
        let mut vm = vm(5, "fg0", "1", "10.0.0.1", state);
        vm.row.error = Some("no such disk".to_owned());
        vm.row.sched_message = Some("none fits".to_owned());
        holds(&said(&[vm], &[], &[]), "VM 5", verdict, words, remedy);
    }
}
