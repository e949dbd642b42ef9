//! What the simulated bad days of `thiao-sim` found, each as a case of its own.

use super::*;
use crate::event::Kind;
use crate::fold::Outcome;

pub(super) fn seen_as(base: BaseState, set: impl FnOnce(&mut NodeFlags)) -> SlurmNode {
    let mut flags = NodeFlags::default();
    set(&mut flags);
    slurm_node(base, flags, None)
}

fn silent() -> SlurmNode {
    seen_as(BaseState::Allocated, |flags| flags.not_responding = true)
}

impl World {
    pub(super) fn state_of(&self, name: &str) -> &'static str {
        self.records[&node(name)].vm.as_ref().unwrap().word()
    }

    /// Observes the provider once a second for `span`, always with the same result.
    pub(super) fn watch(&mut self, span: Millis, vms: &[VmView]) {
        for _ in 0..span.0 / 1000 {
            self.pass(Millis::secs(1));
            self.see(vms.to_vec());
        }
    }

    /// Has the action on `name` fail without effect.
    fn unanswered(&mut self, name: &str) {
        self.busy.remove(&node(name));
    }

    pub(super) fn down(&mut self, name: &str) {
        self.order(&node(name), &Order::Down, self.now);
    }

    fn job(&mut self, id: u32, on: &[&str], size: u32, reason: JobReason) {
        let pending = on.is_empty();
        let job = SlurmJob {
            id: JobId(id),
            name: "j".into(),
            uid: 1,
            user: "u".into(),
            partition: "vm".into(),
            state: if pending {
                JobState::Pending
            } else {
                JobState::Running
            },
            reason,
            nodes: on.iter().map(|name| node(name)).collect(),
            node_count: size,
            submit: None,
            ..SlurmJob::new(JobId(7))
        };
        Arc::make_mut(self.slurm.as_mut().unwrap())
            .jobs
            .insert(job.id, job);
    }
}

#[test]
fn a_node_waits_until_the_listing_no_longer_shows_its_ended_vm() {
    let mut w = world();
    w.up("n0");
    w.down("n0");
    assert_eq!(kinds(&w.tick()), ["destroy"]);
    w.busy.clear();
    w.destroyed(&w.tag(&node("n0"), Generation(1)), None);
    w.pass(Millis(1));
    w.ask_up("n0");
    assert_eq!(w.tick(), [], "the last observation still shows it alive");
    w.pass(Millis(1));
    w.see(vec![]);
    assert_eq!(kinds(&w.tick()), ["create"]);
}

#[test]
fn a_node_that_is_down_is_wanted_no_more() {
    let mut w = world();
    w.ask_up("n0");
    w.pass(Millis(1));
    // Killed after Slurm was told, before that was stored.
    w.see_node(
        "n0",
        slurm_node(
            BaseState::Down,
            NodeFlags::default(),
            Some(NodeReason::ours("thiao: no capacity")),
        ),
    );
    assert_eq!(kinds(&w.tick()), ["return"]);
    w.busy.clear();
    w.returned(&node("n0"));
    w.pass(Millis(1));
    w.see_node("n0", powered_down());
    assert_eq!(w.tick(), [], "Slurm asks again when it wants it");
}

#[test]
fn a_stale_listing_brings_no_ended_vm_back() {
    let mut w = world();
    w.up("n0");
    w.down("n0");
    w.tick();
    w.busy.clear();
    w.destroyed(&w.tag(&node("n0"), Generation(1)), None);
    w.ask_up("n0");
    w.pass(Millis(1));
    w.see(vec![w.shown("n0", 1, VmState::Ready)]);
    assert_eq!(w.records[&node("n0")].vm, None);
    w.pass(Millis(1));
    w.see(vec![]);
    assert_eq!(kinds(&w.tick()), ["create"]);
}

#[test]
fn a_vm_has_its_capacity_from_asked_to_surely_gone() {
    let mut w = world();
    Arc::make_mut(w.provider.as_mut().unwrap()).hosts.truncate(1);
    for name in ["n0", "n1"] {
        w.ask_up(name);
    }
    assert_eq!(w.tick().len(), 2);
    for name in ["n0", "n1"] {
        w.unanswered(name);
        w.created(&node(name), VmId::new(&format!("{name}.1")).unwrap());
    }
    w.ask_up("n2");
    w.pass(Millis(1));
    let pending = |name: &str| VmView {
        host: None,
        ..w.shown(name, 1, VmState::Pending)
    };
    let vms = vec![pending("n0"), pending("n1")];
    w.see(vms);
    assert_eq!(w.tick(), [], "both are shown, and not yet as placed");
    for name in ["n0", "n1"] {
        w.down(name);
    }
    w.pass(Millis(1));
    w.see(vec![]);
    assert_eq!(
        kinds(&w.tick()),
        ["destroy", "destroy"],
        "not shown, and not surely gone"
    );
    w.busy.clear();
    w.destroyed(&w.tag(&node("n0"), Generation(1)), None);
    assert_eq!(kinds(&w.tick()), ["destroy", "create"]);
}

#[test]
fn a_job_on_a_node_without_vm_does_not_hang_for_ever() {
    let mut w = world();
    w.up("n0");
    w.down("n0"); // by hand, under a job: Slurm notices nothing
    w.tick();
    w.busy.clear();
    w.destroyed(&w.tag(&node("n0"), Generation(1)), None);
    w.job(7, &["n0"], 1, JobReason::default());
    w.see_node("n0", silent());
    w.watch(w.policy.missing_grace, &[]);
    assert_eq!(
        w.tick(),
        [],
        "the first observation in which it lacked a VM was a second later"
    );
    w.watch(Millis::secs(1), &[]);
    let actions = w.tick();
    let [Action::Node(_, NodeVerb::SetDown { reason, jobs })] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(reason.starts_with("thiao: it has no VM"), "{reason}");
    assert_eq!(*jobs, [JobId(7)]);
}

#[test]
fn a_boot_timeout_ends_no_vm_that_slurm_may_be_using() {
    let mut w = world();
    w.ask_up("n0");
    w.tick();
    w.busy.clear();
    w.created(&node("n0"), VmId::new("n0.1").unwrap());
    let vms = vec![w.shown("n0", 1, VmState::Ready)];
    w.pass(w.policy.boot_timeout);
    w.see(vms.clone());
    // Registered while we were away; slurmctld has just restarted and not heard of it yet.
    w.see_node("n0", silent());
    assert_eq!(w.tick(), []);
    w.see_node("n0", seen_as(BaseState::Allocated, |flags| flags.unknown = true));
    assert_eq!(w.tick(), []);
    // But not for ever.
    w.see_node("n0", silent());
    w.watch(Millis(w.policy.missing_grace.0 + 1000), &vms);
    assert_eq!(kinds(&w.tick()), ["down"]);
}

#[test]
fn a_creation_that_is_never_confirmed_fails_in_time() {
    let mut w = world();
    w.ask_up("n0");
    for _ in 0..3 {
        assert_eq!(kinds(&w.tick()), ["create"]);
        w.unanswered("n0");
    }
    w.pass(w.policy.boot_timeout);
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}

#[test]
fn what_kept_a_vm_from_being_made_is_the_reason_of_its_failure() {
    let failed = |made_at_last: bool| {
        let mut w = world();
        w.ask_up("n0");
        let create = w.tick().remove(0);
        let nowhere = Outcome::Failed("the file server is not found".into());
        let (told, _) = w.ended(&create, &nowhere);
        assert!(told[0].text.contains("the file server is not found"), "{told:?}");
        w.release(&node("n0"));
        if made_at_last {
            w.created(&node("n0"), VmId::new("n0.1").unwrap());
        }
        w.pass(w.policy.boot_timeout);
        if made_at_last {
            w.see(vec![w.shown("n0", 1, VmState::Booting)]);
        }
        let end = w.tick().remove(0);
        w.ended(&end, &Outcome::Done);
        w.records[&node("n0")].trouble.last.clone()
    };
    assert!(
        failed(false).contains("the file server is not found"),
        "{}",
        failed(false)
    );
    assert!(
        failed(true).contains("did not register with Slurm in time"),
        "{}",
        failed(true)
    );
}

#[test]
fn a_vm_that_comes_up_while_its_end_begins_is_kept() {
    let mut w = world();
    w.ask_up("n0");
    w.tick();
    w.busy.clear();
    w.created(&node("n0"), VmId::new("n0.1").unwrap());
    w.pass(w.policy.boot_timeout);
    w.see(vec![w.shown("n0", 1, VmState::Booting)]);
    assert_eq!(kinds(&w.tick()), ["destroy"]);
    w.unanswered("n0"); // killed before it was carried out
    w.pass(Millis(1));
    w.see_node("n0", seen_as(BaseState::Allocated, |flags| flags.unknown = true));
    assert_eq!(w.tick(), [], "it may be in use");
    w.see_node("n0", running());
    assert_eq!(w.tick(), []);
    assert_eq!(w.state_of("n0"), "up");
}

#[test]
fn an_order_that_comes_late_loses_against_a_newer_one() {
    let mut w = world();
    w.up("n0");
    let before = Time(w.now.0 - 1);
    let event = w.order(&node("n0"), &Order::Down, before);
    assert_eq!(event.kind, Kind::SuspendAsked, "newer than the resume");
    let mut w = world();
    w.up("n0");
    let event = w.order(&node("n0"), &Order::Down, Time(1));
    assert_eq!(event.kind, Kind::OrderSuperseded);
    assert_eq!(w.tick(), []);
    w.now = Time(1); // the clock was set back
    let event = w.order(&node("n0"), &Order::Down, Time(1));
    assert_eq!(event.kind, Kind::SuspendAsked);
}

#[test]
fn what_is_written_down_as_of_later_counts_as_of_now() {
    let mut w = world();
    w.now = Time(10_000_000);
    w.up("n0");
    let mut record = w.records[&node("n0")].clone();
    record.trouble.retry_at = Some(w.now + Millis(1));
    let vm = record.vm.as_mut().unwrap();
    (vm.missing_since, vm.kept) = (Some(w.now), Some(w.now));
    let untouched = record.clone();
    record.not_after(w.now, &w.policy);
    assert_eq!(record, untouched);

    let back = Time(5_000);
    record.not_after(back, &w.policy);
    let vm = record.vm.as_ref().unwrap();
    assert_eq!(record.desired, Desired::Up { since: back });
    assert_eq!(record.trouble.retry_at, Some(back + w.policy.retry_max));
    assert_eq!((vm.asked, vm.since, vm.missing_since), (back, back, Some(back)));
    assert_eq!(vm.kept, Some(back + w.policy.keep_failed));
}

#[test]
fn a_stray_beside_the_vm_that_is_up_is_ended() {
    let mut w = world();
    w.up("n0");
    w.pass(Millis(1));
    let vms = vec![w.shown("n0", 1, VmState::Ready), w.shown("n0", 5, VmState::Ready)];
    w.see(vms.clone());
    assert_eq!(w.tick(), []);
    w.watch(w.policy.orphan_grace, &vms);
    let actions = w.tick();
    let [Action::Vm(tag, VmVerb::Destroy { .. })] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(tag.generation, Generation(5), "not the one under the job");
}

#[test]
fn a_stray_grows_old_while_its_node_is_busy() {
    let mut w = world();
    w.up("n0");
    let vms = vec![w.shown("n0", 1, VmState::Ready), w.shown("n0", 5, VmState::Ready)];
    w.pass(Millis(1));
    w.see(vms.clone());
    let first = w.strays.clone();
    w.busy.insert(node("n0"));
    w.pass(Millis::secs(1));
    w.see(vms);
    assert_eq!(w.strays, first);
}

#[test]
fn a_vm_kept_over_a_power_down_is_replaced_not_kept_for_ever() {
    let mut w = world();
    w.up("n0");
    w.down("n0");
    w.ask_up("n0"); // by hand, before the suspend was carried out
    let vms = [w.shown("n0", 1, VmState::Ready)];
    w.see_node("n0", powered_down());
    w.watch(w.policy.orphan_grace, &vms);
    assert_eq!(kinds(&w.tick()), ["destroy"]);
    w.busy.clear();
    w.destroyed(&w.tag(&node("n0"), Generation(1)), None);
    w.watch(Millis::secs(1), &[]);
    assert_eq!(w.tick(), [], "nobody waits for it");
}

#[test]
fn a_death_on_a_node_that_slurm_does_not_show_is_cleaned_up() {
    let mut w = world();
    w.up("n0");
    w.pass(Millis(1));
    w.see(vec![w.shown("n0", 1, VmState::Dead("killed".into()))]);
    Arc::make_mut(w.slurm.as_mut().unwrap()).nodes.remove(&node("n0"));
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}

#[test]
fn a_guest_that_hangs_is_noticed_and_one_held_still_is_not() {
    let mut w = world();
    w.up("n0");
    w.see_node("n0", silent());
    let hung = [w.shown("n0", 1, VmState::Ready)];
    let paused = [w.shown("n0", 1, VmState::Paused(String::new()))];
    let long = Millis(w.policy.silence_grace.0 + 1000);
    let mut held = w.clone();
    held.watch(long, &paused);
    assert_eq!(held.tick(), []);
    w.watch(w.policy.silence_grace, &hung);
    assert_eq!(w.tick(), []);
    w.watch(Millis::secs(1), &hung);
    assert_eq!(kinds(&w.tick()), ["down"]);
}

#[test]
fn jobs_short_of_capacity_do_not_restart_each_other() {
    let mut w = world();
    Arc::make_mut(w.provider.as_mut().unwrap()).hosts.truncate(1); // capacity for two
    for (name, id) in [("n0", 1), ("n1", 2)] {
        let record = w.records.get_mut(&node(name)).unwrap();
        record.jobs = vec![JobId(id)];
        record.trouble.told = true;
        w.job(id, &[], 2, JobReason::new("BeginTime", WaitsFor::BeginTime));
    }
    let actions = w.tick();
    assert_eq!(
        actions,
        [Action::Job(JobId(1), JobVerb::StartNow)],
        "capacity for one of them"
    );
}

#[test]
fn the_nodes_of_one_job_are_served_together() {
    let mut w = world();
    w.policy.max_starting = 2;
    let jobs = [("n0", 1), ("n1", 2), ("n2", 1), ("n3", 2)];
    let jobs: BTreeMap<NodeName, Vec<JobId>> = jobs
        .iter()
        .map(|(name, id)| (node(name), vec![JobId(*id)]))
        .collect();
    for name in jobs.keys() {
        let order = Order::Up {
            force: false,
            jobs: jobs.clone(),
        };
        w.order(name, &order, w.now);
    }
    let names: Vec<String> = w
        .tick()
        .iter()
        .map(|action| action.node().unwrap().to_string())
        .collect();
    assert_eq!(names, ["n0", "n2"]);
}

#[test]
fn a_node_is_not_given_back_while_the_cap_is_reached() {
    let mut w = world();
    w.up("n0");
    w.policy.max_vms = 1;
    let reason = "thiao: the cap of 1 VMs is reached (limits.max_vms)";
    w.see_node(
        "n1",
        slurm_node(
            BaseState::Down,
            NodeFlags::default(),
            Some(NodeReason::ours(reason)),
        ),
    );
    assert_eq!(w.tick(), []);
    w.policy.max_vms = 2;
    assert_eq!(kinds(&w.tick()), ["return"]);
}

#[test]
fn observations_far_apart_do_not_make_an_absence() {
    let mut w = world();
    w.ask_up("n0");
    w.tick();
    w.pass(Millis::secs(1));
    w.see(vec![]); // asked for and not there yet: no absence
    w.busy.clear();
    w.created(&node("n0"), VmId::new("n0.1").unwrap());
    for _ in 0..4 {
        w.pass(Millis(w.policy.missing_grace.0 * 2 + 1)); // as when we were away
        w.see(vec![]);
        assert_eq!(w.state_of("n0"), "pending");
    }
}

#[test]
fn the_linter_lets_nothing_be_ended_by_another_vms_id() {
    use crate::plan::{Plan, Step, VmVerb};
    let mut w = world();
    w.up("n0");
    w.up("n1");
    w.pass(Millis(1));
    w.see(vec![
        w.shown("n0", 1, VmState::Ready),
        w.shown("n1", 1, VmState::Ready),
    ]);
    w.down("n0");
    let step = |id: &str| Step {
        action: Action::Vm(
            w.tag(&node("n0"), Generation(1)),
            VmVerb::Destroy {
                id: Some(VmId::new(id).unwrap()),
                cause: Cause::Ordered,
                hard: false,
            },
        ),
        why: String::new(),
    };
    let refused = |id| {
        let plan = Plan {
            steps: vec![step(id)],
            held: vec![],
        };
        lint(&w, &plan).1.len()
    };
    assert_eq!((refused("n0.1"), refused("n1.1")), (0, 1));
}

#[test]
fn a_vm_that_comes_up_though_its_node_was_down_keeps_its_job() {
    let mut w = world();
    w.ask_up("n0");
    w.tick();
    w.busy.clear();
    w.created(&node("n0"), VmId::new("n0.1").unwrap());
    w.pass(Millis(1));
    w.see(vec![w.shown("n0", 1, VmState::Booting)]);
    // Slurm gave up on it, and nobody has ordered anything.
    w.pass(Millis(1));
    let down = slurm_node(
        BaseState::Down,
        NodeFlags {
            powered_down: true,
            ..NodeFlags::default()
        },
        Some(by("ResumeTimeout reached", Whose::ResumeTimeout)),
    );
    w.see_node("n0", down);
    // It registers all the same, and a job starts there.
    w.pass(Millis(1));
    w.see(vec![w.shown("n0", 1, VmState::Ready)]);
    w.see_node("n0", running());
    w.pass(Millis::secs(3600));
    w.see(vec![w.shown("n0", 1, VmState::Ready)]);
    w.see_node("n0", running());
    assert_eq!(w.tick(), []);
    assert_eq!(w.records[&node("n0")].vm.as_ref().unwrap().word(), "up");
}

#[test]
fn few_whole_observations_among_many_that_failed_do_not_make_a_vm_lost() {
    let mut w = world();
    w.up("n0");
    let gap = Millis(w.policy.missing_grace.0 + 1);
    for _ in 1..w.policy.missing_observations {
        w.pass(gap);
        w.see(vec![]);
        assert_eq!(w.tick(), []);
    }
    w.pass(Millis(1));
    w.see(vec![w.shown("n0", 1, VmState::Ready)]);
    w.see(vec![]);
    assert_eq!(w.tick(), [], "it was there in between");
    for _ in 1..w.policy.missing_observations {
        assert_eq!(w.tick(), []);
        w.pass(gap);
        w.see(vec![]);
    }
    assert_eq!(kinds(&w.tick()), ["down"], "often enough, and for long enough");
}

#[test]
fn a_vm_that_is_shown_again_before_anything_came_of_its_loss_was_not_lost() {
    let lost = || {
        let mut w = world();
        w.up("n0");
        w.watch(Millis(w.policy.missing_grace.0 + 2_000), &[]);
        assert_eq!(w.state_of("n0"), "failed");
        w
    };
    let mut w = lost();
    w.see(vec![w.shown("n0", 1, VmState::Ready)]);
    assert_eq!(w.state_of("n0"), "up");
    assert_eq!(w.tick(), []);
    // Nor one that is shown while Slurm could not be told.
    let mut w = lost();
    assert_eq!(kinds(&w.tick()), ["down"]);
    w.pass(Millis(10));
    w.see(vec![w.shown("n0", 1, VmState::Ready)]);
    w.see(vec![]);
    w.unanswered("n0");
    assert_eq!(w.state_of("n0"), "up");
    assert_eq!(w.tick(), []);
    // One that is shown dead, or on its way out, is what it was taken for.
    for state in [VmState::Dead("it ended".into()), VmState::Stopping] {
        let mut w = lost();
        w.see(vec![w.shown("n0", 1, state)]);
        assert_eq!(kinds(&w.tick()), ["down"]);
    }
    // So is one that was seen to be dead: a listing that shows it alive is an old one.
    let mut w = world();
    w.up("n0");
    w.see(vec![w.shown("n0", 1, VmState::Dead("it ended".into()))]);
    w.see(vec![]);
    w.see(vec![w.shown("n0", 1, VmState::Ready)]);
    assert_eq!(kinds(&w.tick()), ["down"]);
}
