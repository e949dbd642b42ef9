//! What the planner, the linter and the folds do, case by case.

use crate::ids::*;
use crate::lint::lint;
use crate::orders::Order;
use crate::plan::{Action, EndWhy, JobVerb, NodeVerb, VmVerb};
use crate::planner::plan;
use crate::policy::Policy;
use crate::view::*;
use crate::vm::*;
use crate::world::*;
use std::collections::BTreeMap;
use std::sync::Arc;

mod absent;
mod axes;
mod by_hand;
mod capacity;
mod caps;
mod drains;
mod faulty;
mod found;
mod gives_way;
mod heard;
mod held;
mod job_mode;
mod lost;
mod many;
mod news;
mod orders;
mod others_jobs;
mod put_back;
mod ranges;
mod reach;
mod refused;
mod strangers;
mod unrecorded;
mod unshown;
mod whole;

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

fn slurm_node(base: BaseState, flags: NodeFlags, reason: Option<NodeReason>) -> SlurmNode {
    SlurmNode {
        base,
        flags: NodeFlags { cloud: true, ..flags },
        reason,
        alloc: None,
    }
}

fn by(text: &str, whose: Whose) -> NodeReason {
    NodeReason {
        text: text.into(),
        whose,
    }
}

fn powered_down() -> SlurmNode {
    slurm_node(
        BaseState::Idle,
        NodeFlags {
            powered_down: true,
            ..NodeFlags::default()
        },
        None,
    )
}

fn powering_up() -> SlurmNode {
    slurm_node(
        BaseState::Allocated,
        NodeFlags {
            powering_up: true,
            ..NodeFlags::default()
        },
        None,
    )
}

fn running() -> SlurmNode {
    slurm_node(BaseState::Allocated, NodeFlags::default(), None)
}

/// Nodes n0 to n3 of 100 MiB (+ 50 overhead), hosts a and b with capacity for two each; all powered down.
fn world() -> World {
    let spec = NodeSpec {
        nodeset: NodesetName::new("n").unwrap(),
        shape: Shape {
            cpus: 1,
            memory_mb: 100,
            share_percent: 100,
        },
        mode: Mode::PowerSaving,
    };
    let names: Vec<NodeName> = (0..4).map(|i| node(&format!("n{i}"))).collect();
    let hosts = ["a", "b"]
        .map(|h| HostView {
            name: host(h),
            cpu_percent: 200,
            memory_mb: 300,
            gpus: None,
            usable: true,
            closed: None,
            not_for: Default::default(),
            load: None,
        })
        .to_vec();
    let policy = Policy {
        overhead_mb: 50,
        ..Policy::default()
    };
    let specs = names.iter().map(|n| (n.clone(), spec.clone())).collect();
    World {
        slurm: Some(Arc::new(SlurmView {
            nodes: names.iter().map(|n| (n.clone(), powered_down())).collect(),
            ..SlurmView::default()
        })),
        provider: Some(Arc::new(ProviderView {
            hosts,
            vms: Vec::new(),
        })),
        ..World::new(Time(1_000_000), ClusterName::new("c").unwrap(), policy, specs)
    }
}

impl World {
    fn ask_up(&mut self, name: &str) {
        self.order(
            &node(name),
            &Order::Up {
                force: false,
                jobs: BTreeMap::new(),
            },
            self.now,
        );
        Arc::make_mut(self.slurm.as_mut().unwrap())
            .nodes
            .insert(node(name), powering_up());
    }

    fn pass(&mut self, span: Millis) {
        self.now = self.now + span;
    }

    /// The node's VM as the provider shows it.
    fn shown(&self, name: &str, generation: u64, state: VmState) -> VmView {
        VmView {
            id: VmId::new(&format!("{name}.{generation}")).unwrap(),
            tag: Some(self.tag(&node(name), Generation(generation))),
            host: Some(host("a")),
            memory_mb: 150,
            cpu_percent: 100,
            state,
        }
    }

    fn see(&mut self, vms: Vec<VmView>) {
        let hosts = self.provider.as_deref().cloned().unwrap().hosts;
        let now = self.now;
        self.see_provider(ProviderView { hosts, vms }, now);
    }

    fn see_node(&mut self, name: &str, seen: SlurmNode) {
        let mut view = self.slurm.as_deref().cloned().unwrap();
        view.nodes.insert(node(name), seen);
        let now = self.now;
        self.see_slurm(view, now);
    }

    /// Plans, insists that the linter agrees, and does the bookkeeping that the executor does.
    fn tick(&mut self) -> Vec<Action> {
        let plan = plan(self);
        let (good, refused) = lint(self, &plan);
        assert_eq!(refused, [], "the planner and the linter disagree");
        let actions: Vec<Action> = good.into_iter().map(|step| step.action).collect();
        for action in &actions {
            self.begin(action);
        }
        actions
    }

    fn gone(&mut self, name: &str) {
        let tag = self.tag(&node(name), self.records[&node(name)].generation);
        self.destroyed(&tag, None);
    }

    fn up(&mut self, name: &str) {
        self.ask_up(name);
        self.tick();
        self.busy.clear();
        self.created(&node(name), VmId::new(&format!("{name}.1")).unwrap());
        self.pass(Millis(1));
        self.see(vec![self.shown(name, 1, VmState::Ready)]);
        self.see_node(name, running());
        assert_eq!(self.records[&node(name)].vm.as_ref().unwrap().word(), "up");
    }
}

fn kinds(actions: &[Action]) -> Vec<&'static str> {
    actions
        .iter()
        .map(|action| match action {
            Action::Vm(_, VmVerb::Create { .. }) => "create",
            Action::Vm(_, VmVerb::StartSlurmd { .. }) => "start-slurmd",
            Action::Vm(_, VmVerb::Destroy { .. }) => "destroy",
            Action::Node(_, NodeVerb::SetDown { .. }) => "down",
            Action::Node(_, NodeVerb::Return) => "return",
            Action::Node(_, NodeVerb::Undrain { .. }) => "undrain",
            Action::Job(_, JobVerb::StartNow) => "start",
            Action::Job(_, JobVerb::Admit { .. }) => "admit",
            Action::Job(_, JobVerb::CloseGate { .. }) => "close-gate",
            Action::Job(_, JobVerb::PutBack { .. }) => "put-back",
            Action::Job(_, JobVerb::FinishPutBack { .. }) => "finish-put-back",
            Action::Job(_, JobVerb::TurnAway { .. }) => "turn-away",
            Action::Job(_, JobVerb::Refuse { .. }) => "refuse",
            Action::Node(_, NodeVerb::EndWithJob(_)) => "end-with-job",
            Action::Node(_, NodeVerb::PowerDown) => "power-down",
        })
        .collect()
}

#[test]
fn idle_world_does_nothing() {
    assert_eq!(world().tick(), []);
}

#[test]
fn asked_nodes_get_vms_spread_over_the_hosts() {
    let mut w = world();
    for name in ["n0", "n1", "n2"] {
        w.ask_up(name);
    }
    let hosts: Vec<String> = w
        .tick()
        .iter()
        .map(|a| match a {
            Action::Vm(_, VmVerb::Create { host, .. }) => host.to_string(),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(hosts, ["a", "b", "a"]);
}

#[test]
fn a_host_never_carries_more_memory_than_it_has() {
    let mut w = world();
    Arc::make_mut(w.provider.as_mut().unwrap()).hosts.truncate(1);
    for name in ["n0", "n1", "n2"] {
        w.ask_up(name);
    }
    assert_eq!(kinds(&w.tick()), ["create", "create"]);
    w.pass(w.policy.capacity_patience);
    let actions = w.tick();
    assert_eq!(kinds(&actions), ["down"], "Slurm is told when patience ends");
    assert!(
        actions[0]
            .to_string()
            .contains("thiao: none of 1 hosts has capacity"),
        "{}",
        actions[0]
    );
}

#[test]
fn a_failed_observation_destroys_nothing() {
    let mut w = world();
    w.up("n0");
    w.order(&node("n0"), &Order::Down, w.now);
    let mut blind = w.clone();
    blind.slurm = None;
    assert_eq!(blind.tick(), []);
    let mut blind = w.clone();
    blind.provider = None;
    assert_eq!(blind.tick(), []);
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}

#[test]
fn creations_go_on_while_slurm_is_away() {
    let mut w = world();
    w.ask_up("n0");
    w.slurm = None;
    assert_eq!(kinds(&w.tick()), ["create"]);
}

#[test]
fn absence_from_one_listing_is_not_death() {
    let mut w = world();
    w.up("n0");
    w.pass(Millis(1));
    w.see(vec![]);
    assert_eq!(w.tick(), []);
    for _ in 1..w.policy.missing_grace.0 / 1000 {
        w.pass(Millis::secs(1));
        w.see(vec![]);
        assert_eq!(w.tick(), []);
    }
    w.pass(Millis::secs(1));
    w.see(vec![]);
    assert_eq!(kinds(&w.tick()), ["down"]);
}

#[test]
fn unknown_states_harm_nothing() {
    let mut w = world();
    w.up("n0");
    w.pass(Millis::secs(9999));
    w.see(vec![w.shown("n0", 1, VmState::Unknown("EVIL".into()))]);
    w.see_node(
        "n0",
        slurm_node(BaseState::Unknown("FUTURE9".into()), NodeFlags::default(), None),
    );
    assert_eq!(w.tick(), []);
}

#[test]
fn a_vm_that_dies_under_a_job_is_told_then_cleaned_then_returned() {
    let mut w = world();
    w.up("n0");
    w.pass(Millis(1));
    w.see(vec![w.shown("n0", 1, VmState::Dead("killed".into()))]);
    let actions = w.tick();
    assert_eq!(kinds(&actions), ["down"]);
    w.busy.clear();
    let Action::Node(_, NodeVerb::SetDown { reason, .. }) = actions[0].clone() else {
        panic!()
    };
    w.told_down(&node("n0"), &reason, &[JobId(7)]);
    w.pass(Millis(1));
    w.see_node(
        "n0",
        slurm_node(
            BaseState::Down,
            NodeFlags::default(),
            Some(NodeReason::ours(&*reason)),
        ),
    );
    assert_eq!(kinds(&w.tick()), ["destroy"]);
    w.busy.clear();
    w.gone("n0");
    w.pass(Millis(1));
    w.see(vec![]);
    assert_eq!(w.tick(), [], "back-off first");
    w.pass(w.policy.retry_first);
    assert_eq!(kinds(&w.tick()), ["return"]);
}

#[test]
fn a_boot_that_fails_is_tried_on_another_host_before_slurm_is_told() {
    let mut w = world();
    w.ask_up("n0");
    w.tick();
    w.busy.clear();
    w.create_failed(&node("n0"), "no image");
    assert_eq!(kinds(&w.tick()), ["destroy"], "what may be left is removed");
    w.busy.clear();
    w.gone("n0");
    w.pass(w.policy.retry_first);
    let actions = w.tick();
    let Action::Vm(tag, VmVerb::Create { host, .. }) = &actions[0] else {
        panic!("{actions:?}")
    };
    assert_eq!((host.as_str(), tag.generation.0), ("b", 2));
    w.busy.clear();
    w.create_failed(&node("n0"), "no image");
    w.tick();
    w.busy.clear();
    w.gone("n0");
    assert_eq!(kinds(&w.tick()), ["down"], "two tries are enough");
}

#[test]
fn a_boot_that_never_ends_is_ended() {
    let mut w = world();
    w.ask_up("n0");
    w.tick();
    w.busy.clear();
    w.created(&node("n0"), VmId::new("n0.1").unwrap());
    w.pass(w.policy.boot_timeout);
    w.see(vec![w.shown("n0", 1, VmState::Booting)]);
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}

#[test]
fn suspend_and_resume_in_either_order_end_as_last_asked() {
    let mut w = world();
    w.up("n0");
    w.order(&node("n0"), &Order::Down, w.now);
    assert_eq!(kinds(&w.tick()), ["destroy"]);
    w.ask_up("n0");
    assert_eq!(w.tick(), [], "never two actions on one node");
    w.busy.clear();
    w.gone("n0");
    w.pass(Millis(1));
    w.see(vec![]);
    let actions = w.tick();
    let Action::Vm(tag, VmVerb::Create { .. }) = &actions[0] else {
        panic!("{actions:?}")
    };
    assert_eq!(tag.generation, Generation(2));
    w.busy.clear();
    w.order(&node("n0"), &Order::Down, w.now);
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}

#[test]
fn a_creation_without_answer_is_asked_again_with_the_same_tag() {
    let mut w = world();
    w.ask_up("n0");
    let mut actions = w.tick();
    let Action::Vm(_, VmVerb::Create { again, .. }) = &mut actions[0] else {
        panic!("{actions:?}")
    };
    assert!(!std::mem::replace(again, true));
    w.busy.clear(); // as after kill -9
    assert_eq!(w.tick(), actions);
}

#[test]
fn a_vm_found_after_the_records_were_lost_is_adopted_and_kept() {
    let mut w = world();
    w.see_node("n0", running());
    w.pass(Millis(1));
    w.see(vec![w.shown("n0", 5, VmState::Ready)]);
    assert_eq!(w.records[&node("n0")].generation, Generation(5));
    w.pass(Millis::secs(9999));
    assert_eq!(w.tick(), [], "it may run a job");
    w.see_node("n0", powered_down());
    assert_eq!(kinds(&w.tick()), ["destroy"], "now it surely does not");
}

#[test]
fn foreign_vms_are_never_touched() {
    let mut w = world();
    let mut foreign = w.shown("n0", 3, VmState::Dead("x".into()));
    foreign.tag.as_mut().unwrap().cluster = ClusterName::new("other").unwrap();
    let mut untagged = foreign.clone();
    untagged.tag = None;
    w.see(vec![foreign, untagged]);
    w.pass(Millis::secs(9999));
    assert_eq!(w.tick(), []);
}

#[test]
fn drains_and_reasons_of_others_are_left_alone() {
    let mut w = world();
    w.see_node(
        "n0",
        slurm_node(
            BaseState::Down,
            NodeFlags::default(),
            Some(by("disk broken", Whose::Others)),
        ),
    );
    w.pass(Millis::secs(9999));
    assert_eq!(w.tick(), []);
}

/// A VM was away for longer than SlurmdTimeout, suspended by a person: Slurm set its node DOWN and powered it down.
#[test]
fn a_node_that_was_silent_comes_back_when_nothing_is_left_of_it() {
    let silent = |flags| slurm_node(BaseState::Down, flags, Some(by("Not responding", Whose::Silence)));
    let off = NodeFlags {
        powered_down: true,
        ..NodeFlags::default()
    };
    let drained = NodeFlags { drain: true, ..off };
    let falling = NodeFlags {
        powering_down: true,
        ..off
    };
    for (flags, acts) in [
        (NodeFlags::default(), &[][..]),
        (falling, &[]),
        (drained, &[]),
        (off, &["return"]),
    ] {
        let mut w = world();
        w.see_node("n0", silent(flags));
        w.pass(w.policy.retry_first);
        assert_eq!(kinds(&w.tick()), acts, "{flags:?}");
    }
}

#[test]
fn the_breaker_opens_and_lets_one_try_pass_later() {
    let mut w = world();
    for _ in 0..w.policy.breaker_failures {
        w.breaker.failed("no image", w.now, &w.policy);
    }
    w.ask_up("n0");
    w.ask_up("n1");
    assert_eq!(w.tick(), []);
    w.pass(w.policy.breaker_pause);
    w.order(
        &node("n0"),
        &Order::Up {
            force: false,
            jobs: BTreeMap::new(),
        },
        w.now,
    );
    assert_eq!(kinds(&w.tick()), ["create"], "one try");
}

#[test]
fn a_node_that_slurm_gave_up_on_while_we_were_away_comes_back() {
    let mut w = world();
    w.ask_up("n0");
    w.tick();
    w.busy.clear();
    w.created(&node("n0"), VmId::new("n0.1").unwrap());
    w.order(&node("n0"), &Order::ResumeFailed, w.now);
    w.see_node(
        "n0",
        slurm_node(
            BaseState::Down,
            NodeFlags::default(),
            Some(by("ResumeTimeout reached", Whose::ResumeTimeout)),
        ),
    );
    assert_eq!(kinds(&w.tick()), ["destroy"]);
    w.busy.clear();
    w.gone("n0");
    w.pass(w.policy.retry_first);
    w.see(vec![]);
    assert_eq!(kinds(&w.tick()), ["return"]);
}
