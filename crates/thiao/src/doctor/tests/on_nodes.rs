use super::*;
use thiao_core::table::Table;

/// As Slurm says it, e.g. `idle+cloud+powered_down`.
fn slurm(state: &str, reason: Option<&str>) -> SlurmNode {
    let (base, flags) = thiao_slurm::nodes::parse_state(state);
    SlurmNode {
        base,
        flags,
        reason: reason.and_then(thiao_slurm::words::node_reason),
        alloc: None,
    }
}

fn ours(state: &str, desired: &str, vm: Option<&str>, age: u64) -> Node {
    Node {
        name: "fg0".to_owned(),
        nodeset: "fg".to_owned(),
        cpus: 1,
        memory_mb: 200,
        state: state.into(),
        slurm: None,
        reason: None,
        desired: desired.into(),
        vm: vm.map(str::to_owned),
        host: None,
        jobs: Vec::new(),
        failures: 0,
        retry_at: None,
        since: NOW - age,
    }
}

/// What is said of fg0 in that state; `ours` is the controller's word, if it answers.
fn said(state: Option<SlurmNode>, ours: Option<Node>) -> Vec<Finding> {
    let nodes = [(name("fg0"), "vm".to_owned())].into();
    let slurm = SlurmView {
        nodes: state.map(|state| (name("fg0"), state)).into_iter().collect(),
        jobs: Table::new(),
        ..SlurmView::default()
    };
    let ours = ours.map(|ours| BTreeMap::from([("fg0".to_owned(), ours)]));
    let facts = nodes::Facts {
        nodes: &nodes,
        slurm: &slurm,
        ours: ours.as_ref(),
        boot_timeout: BOOT_TIMEOUT,
        impatient: &BTreeMap::new(),
        now: NOW,
    };
    nodes::troubles(facts)
        .iter()
        .map(|(trouble, names)| nodes::finding(trouble, names, Some("so it is")))
        .collect()
}

#[track_caller]
fn check(state: &str, ours: Option<Node>, verdict: Verdict, words: &str, remedy: &str) {
    holds(
        &said(Some(slurm(state, None)), ours),
        "node fg0",
        verdict,
        words,
        remedy,
    );
}

#[test]
fn good_ones_are_not_mentioned() {
    for (state, ours) in [
        ("idle+cloud+powered_down", None),
        ("idle+cloud+powered_down+not_responding", None),
        ("idle+cloud", Some(ours("up", "up", Some("fg0.1"), 0))),
        ("idle+cloud", None),
        ("mixed+cloud", Some(ours("up", "up", Some("fg0.1"), 0))),
        (
            "idle+cloud+powering_down",
            Some(ours("stopping", "down", Some("fg0.1"), 0)),
        ),
        ("idle+cloud+power_down+not_responding", None),
        (
            "allocated+cloud+powering_up",
            Some(ours("booting", "up", Some("fg0.1"), 1_000)),
        ),
        (
            "allocated+cloud+powered_down",
            Some(ours("asked", "up", Some("fg0.1"), 0)),
        ),
    ] {
        assert_eq!(said(Some(slurm(state, None)), ours), [], "{state}");
    }
}

#[test]
fn down_and_silent() {
    let anew = "scontrol update NodeName=fg0 State=POWER_DOWN && scontrol update NodeName=fg0 State=RESUME";
    check(
        "down+cloud+not_responding",
        None,
        Verdict::Bad,
        "down*: its slurmd does not answer (so it is)",
        anew,
    );
    check(
        "down*+cloud",
        Some(ours("down", "down", None, 0)),
        Verdict::Bad,
        "there is no VM",
        anew,
    );
    check(
        "down*+cloud",
        Some(ours("up", "up", Some("fg0.1"), 0)),
        Verdict::Bad,
        "it has a VM",
        anew,
    );
}

#[test]
fn down_for_a_reason() {
    for (reason, verdict, words, remedy) in [
        (
            "thiao: no capacity",
            Verdict::Warn,
            "it returns by itself",
            "thiao resume --force fg0",
        ),
        ("ResumeTimeout reached", Verdict::Bad, "gave up", "State=RESUME"),
        (
            "a look at it : ResumeTimeout reached",
            Verdict::Bad,
            "gave up",
            "State=RESUME",
        ),
        (
            "disk",
            Verdict::Warn,
            "somebody set it DOWN (disk)",
            "State=RESUME",
        ),
        ("Not responding", Verdict::Bad, "down*", "State=POWER_DOWN"),
    ] {
        let found = said(Some(slurm("down+cloud+powered_down", Some(reason))), None);
        holds(&found, "node fg0", verdict, words, remedy);
    }
}

#[test]
fn a_resume_timeout_that_is_too_short_is_what_is_mended() {
    let found = nodes::finding(&nodes::Trouble::TimedOut(Some((2, 300))), &[name("fg0")], None);
    holds(
        &[found],
        "node fg0",
        Verdict::Bad,
        "ResumeTimeout, 2 s, and gave up; a VM may take 300 s",
        "thiao setup && systemctl restart slurmctld && scontrol update NodeName=fg0 State=RESUME",
    );
}

#[test]
fn idle_or_allocated_and_silent() {
    let off = "scontrol update NodeName=fg0 State=POWER_DOWN";
    check("idle+cloud+not_responding", None, Verdict::Bad, "idle*", off);
    let gone = ours("down", "down", None, 0);
    check(
        "idle+cloud+not_responding",
        Some(gone),
        Verdict::Bad,
        "RESUME on a node that is down starts none",
        off,
    );
    let there = ours("up", "up", Some("fg0.1"), 0);
    check(
        "allocated+cloud+not_responding",
        Some(there),
        Verdict::Bad,
        "its VM exists",
        off,
    );
}

#[test]
fn powering_up_for_too_long() {
    let late = BOOT_TIMEOUT + 1;
    for state in [
        "idle+cloud+powering_up",
        "allocated+cloud+not_responding+powering_up",
    ] {
        for (word, words) in [
            ("asked", "the provider says why"),
            ("booting", "CONTEXT of its template"),
            ("ready", "two VMs have the same name or address"),
            ("stopping", "its VM is stopping"),
        ] {
            let vm = || ours(word, "up", Some("fg0.1"), late);
            check(
                state,
                Some(vm()),
                Verdict::Bad,
                words,
                "thiao explain fg0 && thiao resume --force fg0",
            );
            let young = ours(word, "up", Some("fg0.1"), BOOT_TIMEOUT);
            assert_eq!(said(Some(slurm(state, None)), Some(young)), []);
        }
        let never = ours("down", "down", None, late);
        check(
            state,
            Some(never),
            Verdict::Warn,
            "did not ask Thiao for it",
            "thiao resume fg0",
        );
        let waits = ours("waiting", "up", None, 0);
        check(
            state,
            Some(waits),
            Verdict::Warn,
            "could not be made yet (so it is)",
            "thiao explain fg0",
        );
        check(
            state,
            None,
            Verdict::Warn,
            "only the controller could say",
            "systemctl start thiaod",
        );
    }
}

#[test]
fn the_rest() {
    let found = said(Some(slurm("idle+cloud+drain+powered_down", Some("fan"))), None);
    holds(&found, "node fg0", Verdict::Warn, "drained (fan)", "State=RESUME");
    holds(
        &said(None, None),
        "node fg0",
        Verdict::Bad,
        "slurmctld does not know it",
        "thiao setup",
    );
    check(
        "blink+cloud",
        None,
        Verdict::Warn,
        "blink: a state that Thiao does not know",
        "scontrol show node fg0",
    );
    let unasked = ours("down", "down", None, 0);
    check(
        "allocated+cloud+powered_down",
        Some(unasked.clone()),
        Verdict::Warn,
        "alloc~",
        "thiao resume fg0",
    );
    check(
        "idle+cloud",
        Some(unasked),
        Verdict::Warn,
        "knows no VM behind it",
        "POWER_DOWN",
    );
}

#[test]
fn many_alike_are_one_finding() {
    let list = hostlist::expand("fg[0-9999]").unwrap();
    let nodes: BTreeMap<NodeName, String> = list.iter().map(|node| (node.clone(), "vm".to_owned())).collect();
    let view = SlurmView {
        nodes: list
            .iter()
            .map(|node| (node.clone(), slurm("down*+cloud", None)))
            .collect(),
        jobs: Table::new(),
        ..SlurmView::default()
    };
    let facts = nodes::Facts {
        nodes: &nodes,
        slurm: &view,
        ours: None,
        boot_timeout: BOOT_TIMEOUT,
        impatient: &BTreeMap::new(),
        now: NOW,
    };
    let all = nodes::troubles(facts);
    assert_eq!(all.len(), 1);
    let (trouble, names) = all.first_key_value().unwrap();
    assert_eq!(nodes::finding(trouble, names, None).what, "node fg[0-9999]");
}

fn job(reason: &str, age: u64, count: u32) -> SlurmJob {
    SlurmJob {
        id: JobId(17),
        name: "j".to_owned(),
        uid: 1000,
        user: "u".to_owned(),
        partition: "vm".to_owned(),
        state: JobState::Pending,
        reason: thiao_slurm::words::job_reason(reason),
        nodes: Vec::new(),
        node_count: count,
        submit: Some(Time(NOW - age)),
        ..SlurmJob::new(JobId(17))
    }
}

#[test]
fn sleeping_nodes_that_a_job_waits_for_are_told() {
    let partitions = hostlist::expand("fg[0-3]").unwrap();
    let partitions: BTreeMap<NodeName, String> = partitions
        .into_iter()
        .map(|node| (node, "vm".to_owned()))
        .collect();
    let told = |job: SlurmJob, third: &str| {
        let view = SlurmView {
            nodes: partitions
                .keys()
                .map(|node| {
                    let asleep = node.as_str() != "fg3";
                    let state = if asleep { "idle+cloud+powered_down" } else { third };
                    (node.clone(), slurm(state, None))
                })
                .collect(),
            jobs: [(job.id, job)].into(),
            ..SlurmView::default()
        };
        nodes::not_waking(nodes::Facts {
            nodes: &partitions,
            slurm: &view,
            ours: None,
            boot_timeout: BOOT_TIMEOUT,
            impatient: &BTreeMap::new(),
            now: NOW,
        })
    };
    let up = "idle+cloud";
    holds(
        &told(job("Resources", 200_000, 2), up),
        "job 17",
        Verdict::Warn,
        "waits (Resources) though 3 nodes of partition vm are idle~",
        "scontrol update NodeName=fg[0-1] State=POWER_UP",
    );
    // It came just now, waits for something else, wants more, is elsewhere, or runs.
    assert_eq!(told(job("Resources", 10_000, 2), up), []);
    assert_eq!(told(job("Priority", 200_000, 2), up), []);
    assert_eq!(
        told(job("Resources", 200_000, 4), "idle+cloud+drain+powered_down"),
        []
    );
    assert_eq!(
        told(
            SlurmJob {
                partition: "other".to_owned(),
                ..job("None", 200_000, 1)
            },
            up
        ),
        []
    );
    assert_eq!(
        told(
            SlurmJob {
                state: JobState::Running,
                ..job("None", 200_000, 1)
            },
            up
        ),
        []
    );
}

fn known(address: &str, host: &str) -> NodeDetails {
    NodeDetails {
        address: address.to_owned(),
        host_name: host.to_owned(),
        ..NodeDetails::default()
    }
}

#[test]
fn each_others_names_and_addresses_show_in_slurm() {
    let partitions: BTreeMap<NodeName, String> = ["fg0", "fg1", "fg2"]
        .map(|node| (name(node), "vm".to_owned()))
        .into();
    let view = SlurmView {
        nodes: [
            ("fg0", "idle+cloud"),
            ("fg1", "idle+cloud"),
            ("fg2", "idle+cloud+powered_down"),
        ]
        .map(|(node, state)| (name(node), slurm(state, None)))
        .into(),
        jobs: Table::new(),
        ..SlurmView::default()
    };
    let facts = nodes::Facts {
        nodes: &partitions,
        slurm: &view,
        ours: None,
        boot_timeout: BOOT_TIMEOUT,
        impatient: &BTreeMap::new(),
        now: NOW,
    };
    let said = |fg0: NodeDetails, fg1: NodeDetails| {
        // What a node that is off was known by last says nothing.
        let details = [("fg0", fg0), ("fg1", fg1), ("fg2", known("10.0.0.1", "fg9"))]
            .map(|(node, details)| (name(node), details));
        nodes::mixed_up(facts, &details.into())
    };
    assert_eq!(said(known("10.0.0.1", "fg0"), known("10.0.0.2", "fg1")), []);
    holds(
        &said(known("10.0.0.1", "fg1"), known("10.0.0.2", "fg1")),
        "node fg0",
        Verdict::Bad,
        "calls itself fg1: two VMs were told each other's name",
        "thiao explain fg0 && thiao explain fg1",
    );
    holds(
        &said(known("10.0.0.1", "debian"), known("10.0.0.2", "fg1")),
        "node fg0",
        Verdict::Warn,
        "calls itself debian",
        "SET_HOSTNAME",
    );
    holds(
        &said(known("10.0.0.1", "fg0"), known("10.0.0.1", "fg1")),
        "node fg[0-1]",
        Verdict::Bad,
        "one address, 10.0.0.1",
        "scontrol update NodeName=fg[0-1] State=POWER_DOWN",
    );
}
