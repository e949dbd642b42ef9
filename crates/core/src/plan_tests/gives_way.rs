//! Idle VMs that only wait for SuspendTime give way to those that need their place.

use super::job_mode::waiting;
use super::*;
use crate::lint::lint;
use crate::plan::{Plan, Step};
use crate::rounds::Rounds;

/// Host a alone, with place for two VMs.
fn one_host() -> World {
    let mut w = world();
    hosts(&mut w).truncate(1);
    w
}

fn hosts(w: &mut World) -> &mut Vec<HostView> {
    &mut Arc::make_mut(w.provider.as_mut().unwrap()).hosts
}

fn idle() -> SlurmNode {
    slurm_node(BaseState::Idle, NodeFlags::default(), None)
}

impl World {
    /// Has these nodes up with a VM on host a, one after the other idle.
    fn idle_nodes(&mut self, names: &[&str]) {
        for name in names {
            self.ask_up(name);
            self.tick();
            self.busy.clear();
            self.created(&node(name), VmId::new(&format!("{name}.1")).unwrap());
            self.pass(Millis(1));
        }
        let shown: Vec<VmView> = names
            .iter()
            .map(|name| self.shown(name, 1, VmState::Ready))
            .collect();
        self.see(shown);
        for name in names {
            self.see_node(name, running());
            self.pass(Millis::secs(1));
        }
        for name in names {
            self.see_node(name, idle());
            self.pass(Millis::secs(1));
        }
    }

    /// Nodes that give way by this plan.
    fn give_way(&mut self) -> Vec<String> {
        let actions = self.tick();
        let gave = actions.iter().map(|action| match action {
            Action::Node(node, NodeVerb::EndWithJob(EndWhy::GivesWay)) => node.to_string(),
            other => panic!("{other}"),
        });
        gave.collect()
    }

    fn done_with(&mut self, name: &str) {
        let action = Action::Node(node(name), NodeVerb::EndWithJob(EndWhy::GivesWay));
        self.ended(&action, &crate::fold::Outcome::Done);
        self.pass(Millis(1));
    }

    fn why_held(&self, name: &str) -> String {
        let plan = plan(self);
        let of = crate::event::Subject::Node(node(name));
        let held = plan.held.iter().find(|held| held.subject == of);
        held.map(|held| held.why.clone()).unwrap_or_default()
    }
}

#[test]
fn an_idle_vm_gives_way_to_a_node_that_a_job_needs() {
    let mut w = one_host();
    w.idle_nodes(&["n0", "n1"]);
    assert_eq!(w.tick(), [], "nobody needs its place");
    w.see_node("n0", running());
    w.ask_up("n2");
    assert_eq!(
        w.why_held("n2"),
        "waits for capacity: none of 1 hosts has capacity for 150 MiB and 100 % of a core: too little memory and \
         too little CPU (the most that is free: 0 MiB and 0 % of a core); n1 is idle and gives way"
    );
    assert_eq!(w.give_way(), ["n1"]);
    // Slurm is asked once, and what it makes of it is awaited beyond the patience.
    w.pass(w.policy.capacity_patience);
    assert_eq!(w.tick(), []);
    w.done_with("n1");
    assert_eq!(w.tick(), [], "no observation shows yet what came of it");
    assert!(
        w.why_held("n2").ends_with("; it gets what is being freed now"),
        "{}",
        w.why_held("n2")
    );
    let mut falls = idle();
    falls.flags.power_down = true;
    w.see_node("n1", falls.clone());
    assert_eq!(w.tick(), []);
    falls.flags.powering_down = true;
    w.see_node("n1", falls);
    assert_eq!(w.tick(), []);
    w.order(&node("n1"), &Order::Down, w.now);
    assert_eq!(kinds(&w.tick()), ["destroy"]);
    assert_eq!(w.tick(), []);
    w.busy.clear();
    w.gone("n1");
    w.pass(Millis(1));
    w.see(vec![w.shown("n0", 1, VmState::Ready)]);
    assert_eq!(kinds(&w.tick()), ["create"]);
}

#[test]
fn a_job_that_was_quicker_keeps_the_node_and_another_one_gives_way() {
    let mut w = one_host();
    w.idle_nodes(&["n0", "n1"]);
    w.ask_up("n2");
    assert_eq!(w.give_way(), ["n0"], "the longest idle");
    w.done_with("n0");
    let mut taken = running();
    taken.flags.power_down = true;
    w.see_node("n0", taken);
    assert_eq!(w.give_way(), ["n1"]);
}

#[test]
fn what_slurm_did_not_do_is_asked_again() {
    let mut w = one_host();
    w.idle_nodes(&["n0", "n1"]);
    w.ask_up("n2");
    assert_eq!(w.give_way(), ["n0"]);
    let action = Action::Node(node("n0"), NodeVerb::EndWithJob(EndWhy::GivesWay));
    let (told, pauses) = w.ended(&action, &crate::fold::Outcome::Failed("no answer".into()));
    assert!(
        pauses && told[0].text.contains("power it down, which is idle"),
        "{told:?}"
    );
    w.release(&node("n0"));
    w.pass(Millis(1));
    w.see_node("n0", idle());
    assert_eq!(w.give_way(), ["n0"]);
}

#[test]
fn who_may_have_a_job_or_is_kept_does_not_give_way() {
    let flagged = |set: fn(&mut NodeFlags)| {
        let mut seen = idle();
        set(&mut seen.flags);
        seen
    };
    let waits = || {
        let mut w = one_host();
        w.idle_nodes(&["n0", "n1"]);
        w.see_node("n0", running());
        w.ask_up("n2");
        w
    };
    assert_eq!(waits().give_way(), ["n1"]);
    for seen in [
        running(),
        flagged(|f| f.drain = true),
        flagged(|f| f.completing = true),
        flagged(|f| f.not_responding = true),
        flagged(|f| f.unknown = true),
        slurm_node(BaseState::Unknown("PERHAPS".into()), NodeFlags::default(), None),
    ] {
        let mut w = waits();
        w.see_node("n1", seen.clone());
        assert_eq!(w.give_way(), Vec::<String>::new(), "{seen:?}");
        // And the linter would not have it.
        let step = Step {
            action: Action::Node(node("n1"), NodeVerb::EndWithJob(EndWhy::GivesWay)),
            why: String::new(),
        };
        let plan = Plan {
            steps: vec![step],
            held: Vec::new(),
        };
        assert_eq!(lint(&w, &plan).1.len(), 1, "{seen:?}");
    }
    // A job that the listing of nodes does not show yet.
    let mut w = waits();
    let job = SlurmJob {
        state: JobState::Configuring,
        nodes: vec![node("n1")],
        ..SlurmJob::new(JobId(5))
    };
    Arc::make_mut(w.slurm.as_mut().unwrap())
        .jobs
        .insert(JobId(5), job);
    assert_eq!(w.give_way(), Vec::<String>::new());
    // It was asked for since, by Slurm or a prolog; nothing is known of Slurm; it is kept for its owner.
    let mut w = waits();
    w.order(
        &node("n1"),
        &Order::Up {
            force: false,
            jobs: BTreeMap::new(),
        },
        w.now,
    );
    assert_eq!(w.give_way(), Vec::<String>::new());
    let mut w = waits();
    w.records.get_mut(&node("n1")).unwrap().desired = Desired::Early { since: w.now };
    assert_eq!(w.give_way(), Vec::<String>::new());
    let mut w = waits();
    w.slurm = None;
    assert_eq!(w.give_way(), Vec::<String>::new());
}

#[test]
fn the_linter_lets_nobody_give_way_to_nobody() {
    let mut w = one_host();
    w.idle_nodes(&["n0"]);
    let plan = Plan {
        steps: vec![Step {
            action: Action::Node(node("n0"), NodeVerb::EndWithJob(EndWhy::GivesWay)),
            why: String::new(),
        }],
        held: Vec::new(),
    };
    assert_eq!(lint(&w, &plan).1[0].why, "nobody waits for capacity");
    w.ask_up("n2");
    assert_eq!(lint(&w, &plan).1, []);
}

#[test]
fn who_is_on_a_host_that_takes_nothing_makes_no_place() {
    let mut w = one_host();
    w.idle_nodes(&["n0", "n1"]);
    w.ask_up("n2");
    let mut cap = w.clone();
    hosts(&mut w)[0].usable = false;
    assert_eq!(kinds(&w.tick()), ["down"], "no host takes VMs now");
    // But where there are only too many VMs.
    let mut other = hosts(&mut cap)[0].clone();
    (other.name, hosts(&mut cap)[0].usable) = (host("b"), false);
    hosts(&mut cap).push(other);
    cap.policy.max_vms = 2;
    assert_eq!(cap.give_way(), ["n0"]);
}

#[test]
fn a_node_waits_for_a_way_no_longer_than_a_vm_may_take_to_end() {
    let mut w = one_host();
    w.idle_nodes(&["n0", "n1"]);
    w.ask_up("n2");
    assert_eq!(w.give_way(), ["n0"]);
    w.pass(Millis(w.policy.capacity_patience.0 + w.policy.terminate_grace.0));
    assert_eq!(kinds(&w.tick()), ["down"]);
    // Without a way it is told when its patience is over.
    let mut w = one_host();
    w.idle_nodes(&["n0", "n1"]);
    w.see_node("n0", running());
    w.see_node("n1", running());
    w.ask_up("n2");
    w.pass(w.policy.capacity_patience);
    assert_eq!(kinds(&w.tick()), ["down"]);
}

#[test]
fn no_more_give_way_than_are_needed_and_none_in_vain() {
    let mut w = world();
    // Host a has n0 and n1, host b two others' VMs; n3 is too big for one place alone.
    w.idle_nodes(&["n0", "n1"]);
    let others = ["x", "y"].map(|name| VmView {
        tag: None,
        host: Some(host("b")),
        id: VmId::new(name).unwrap(),
        ..w.shown("n3", 1, VmState::Ready)
    });
    let mut vms: Vec<VmView> = ["n0", "n1"].map(|name| w.shown(name, 1, VmState::Ready)).into();
    vms.extend(others);
    w.see(vms);
    let big = |memory_mb| {
        move |w: &mut World| {
            let specs = Arc::make_mut(&mut w.specs);
            specs.get_mut(&node("n3")).unwrap().shape.memory_mb = memory_mb;
            w.ask_up("n3");
        }
    };
    let mut one = w.clone();
    big(100)(&mut one);
    assert_eq!(one.give_way(), ["n0"]);
    let mut two = w.clone();
    big(200)(&mut two);
    assert_eq!(two.give_way(), ["n0", "n1"]);
    // The longest idle is not enough, and the other one alone is.
    let mut other = w.clone();
    hosts(&mut other)[0].memory_mb = 400;
    let mut provider = other.provider.as_deref().cloned().unwrap();
    provider
        .vms
        .iter_mut()
        .filter(|vm| vm.id.as_str() == "n1.1")
        .for_each(|vm| vm.memory_mb = 250);
    other.provider = Some(Arc::new(provider));
    big(200)(&mut other);
    assert_eq!(other.give_way(), ["n1"]);
    // All of them are not enough.
    let mut never = w.clone();
    hosts(&mut never)[1].memory_mb = 500;
    big(400)(&mut never);
    assert_eq!(never.give_way(), Vec::<String>::new());
    // Each of two nodes that wait gets its own.
    let mut both = w;
    both.ask_up("n2");
    both.ask_up("n3");
    assert_eq!(both.give_way(), ["n0", "n1"]);
}

#[test]
fn what_is_being_freed_is_counted_first() {
    let mut w = one_host();
    w.idle_nodes(&["n0", "n1"]);
    w.order(&node("n1"), &Order::Down, w.now);
    w.ask_up("n2");
    assert_eq!(kinds(&w.tick()), ["destroy"], "n0 stays");
    w.pass(w.policy.capacity_patience);
    assert_eq!(w.tick(), []);
    w.ask_up("n3");
    assert_eq!(w.give_way(), ["n0"]);
}

#[test]
fn what_lacks_is_named_cpu_or_memory() {
    let names = |text: &str, what: &str| assert!(text.contains(&format!(": {what} (the most")), "{text}");
    let mut w = one_host();
    hosts(&mut w)[0].memory_mb = 10_000;
    w.idle_nodes(&["n0", "n1"]);
    w.see_node("n0", running());
    w.see_node("n1", running());
    w.ask_up("n2");
    names(&w.why_held("n2"), "too little CPU");
    let told = |memory_mb: [u64; 2], cpu_percent: [u32; 2]| {
        let mut w = world();
        let sizes = memory_mb.into_iter().zip(cpu_percent);
        for (host, size) in hosts(&mut w).iter_mut().zip(sizes) {
            (host.memory_mb, host.cpu_percent) = size;
        }
        w.ask_up("n2");
        w.tick()[0].to_string()
    };
    names(&told([100, 100], [200, 200]), "too little memory");
    names(&told([300, 300], [50, 50]), "too little CPU");
    names(
        &told([100, 300], [200, 50]),
        "too little memory or too little CPU",
    );
}

#[test]
fn an_idle_vm_gives_way_where_there_are_as_many_as_may_be() {
    let mut w = world();
    w.idle_nodes(&["n0", "n1"]);
    w.policy.max_vms = 2;
    w.ask_up("n2");
    assert!(
        w.why_held("n2")
            .ends_with("the cap of 2 VMs is reached (limits.max_vms); n0 is idle and gives way"),
        "{}",
        w.why_held("n2")
    );
    assert_eq!(w.give_way(), ["n0"]);
}

#[test]
fn a_job_at_the_gate_has_an_idle_vm_give_way() {
    let mut w = one_host();
    w.idle_nodes(&["n0", "n1"]);
    let nodeset = NodesetName::new("jobs").unwrap();
    let specs = Arc::make_mut(&mut w.specs);
    for name in ["n2", "n3"] {
        let spec = specs.get_mut(&node(name)).unwrap();
        (spec.mode, spec.nodeset) = (Mode::Job, nodeset.clone());
    }
    let most = specs[&node("n2")].shape;
    let partition = JobPartition {
        nodesets: [nodeset].into(),
        most,
        gpus: 0,
    };
    w.job_partitions.insert("jobs".into(), partition);
    let submit = |w: &mut World, nodes| {
        let mut view = w.slurm.as_deref().cloned().unwrap();
        let job = waiting(9, nodes, 100, 5);
        view.jobs.insert(
            job.id,
            SlurmJob {
                partition: "jobs".into(),
                ..job
            },
        );
        w.pass(Millis(1));
        let now = w.now;
        w.see_slurm(view, now);
    };
    submit(&mut w, 1);
    let mut two = w.clone();
    assert_eq!(w.give_way(), ["n0"]);
    submit(&mut two, 2);
    assert_eq!(two.give_way(), ["n0", "n1"]);
    // One that gives way to a node is not given to a job as well.
    let mut busy = two.clone();
    busy.busy.clear();
    busy.give_way.clear();
    busy.see_node("n1", running());
    submit(&mut busy, 2);
    assert_eq!(busy.give_way(), Vec::<String>::new(), "it would not be enough");
}

#[test]
fn that_a_node_gives_way_is_told_with_its_cause() {
    let mut w = one_host();
    w.idle_nodes(&["n0", "n1"]);
    w.ask_up("n2");
    let mut disk = super::by_hand::Disk::default();
    let mut rounds = Rounds::open(&mut disk, w).unwrap();
    rounds.take_events();
    let decided = rounds.decide(None);
    assert_eq!(decided.steps.len(), 1);
    let told = rounds.take_events();
    let text = &told[0].text;
    assert_eq!(told[0].kind.word(), "node-gives-way");
    assert!(
        text.contains("have Slurm power idle node n0 down: idle for ") && text.contains("node n2 waits for"),
        "{text}"
    );
}
