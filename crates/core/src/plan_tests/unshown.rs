//! VMs that listings leave out for a while, as the simulated bad days have it: what is shown again was never lost.

use super::found::seen_as;
use super::*;

impl World {
    /// VM 1 of `name`, of which an end was begun, could not be ended.
    fn not_destroyed(&mut self, name: &str) {
        self.busy.remove(&node(name));
        self.pass(self.policy.retry_first);
    }

    /// `name` is not in Slurm's observation.
    fn omit(&mut self, name: &str) {
        self.observe(|slurm| drop(slurm.nodes.remove(&node(name))));
    }
}

/// A world whose VM n0.1 is taken for lost.
fn lost() -> World {
    let mut w = world();
    w.up("n0");
    w.watch(Millis(w.policy.missing_grace.0 + 2_000), &[]);
    assert_eq!(w.state_of("n0"), "failed");
    w
}

#[test]
fn a_vm_that_is_shown_while_its_node_is_busy_is_not_missing() {
    let mut w = world();
    w.up("n0");
    let half = Millis(w.policy.missing_grace.0 / 2 + 2_000);
    w.watch(half, &[]);
    w.busy.insert(node("n0"));
    let vms = [w.shown("n0", 1, VmState::Ready)];
    w.watch(Millis::secs(1), &vms);
    w.busy.clear();
    w.watch(half, &[]);
    assert_eq!(w.state_of("n0"), "up", "it was shown in between");
    assert_eq!(w.tick(), []);
}

#[test]
fn a_vm_that_was_lost_before_the_controller_was_away_is_looked_for_anew() {
    let mut w = lost();
    w.provider_seen = Time::default();
    w.pass(Millis::secs(3600));
    w.see(vec![]);
    assert_eq!(w.tick(), [], "one listing says nothing");
    w.watch(Millis(w.policy.missing_grace.0 + 2_000), &[]);
    assert_eq!(kinds(&w.tick()), ["down"]);
}

#[test]
fn a_vm_is_not_ended_that_only_is_not_shown_and_neither_is_its_node() {
    let mut w = lost();
    w.omit("n0");
    assert_eq!(w.tick(), [], "Slurm may be using it");
    w.see_node("n0", running());
    assert_eq!(kinds(&w.tick()), ["down"], "whoever lost a job hears of it first");
    let mut w = lost();
    w.omit("n0");
    w.observe(|slurm| slurm.gone.extend([node("n0")]));
    assert_eq!(kinds(&w.tick()), ["destroy"], "slurmctld surely does not have it");
}

#[test]
fn a_lost_vm_whose_end_failed_and_that_is_shown_again_under_a_job_is_kept() {
    // Ended because Slurm had its node powered down, which then comes up with it for a job.
    let mut w = lost();
    w.records.get_mut(&node("n0")).unwrap().desired = Desired::Down { since: w.now };
    assert_eq!(kinds(&w.tick()), ["destroy"]);
    w.records.get_mut(&node("n0")).unwrap().desired = Desired::Up { since: w.now };
    w.not_destroyed("n0");
    let old = w.clone();
    w.busy.insert(node("n0"));
    let vms = vec![w.shown("n0", 1, VmState::Ready)];
    w.see(vms.clone());
    w.busy.clear();
    assert_eq!(w.tick(), [], "shown while the call failed");
    w.pass(Millis(1));
    w.see(vms);
    assert_eq!(w.state_of("n0"), "up");
    assert_eq!(w.tick(), []);
    // One that goes on its way is ended, as is one that nobody shows.
    for vms in [vec![], vec![old.shown("n0", 1, VmState::Stopping)]] {
        let mut w = old.clone();
        w.see(vms);
        assert_eq!(kinds(&w.tick()), ["destroy"]);
    }
}

#[test]
fn a_lost_vm_that_registers_after_all_is_kept() {
    let mut w = world();
    w.ask_up("n0");
    w.tick();
    w.busy.clear();
    w.created(&node("n0"), VmId::new("n0.1").unwrap());
    w.policy.boot_timeout = Millis(3 * w.policy.missing_grace.0);
    w.watch(Millis(w.policy.missing_grace.0 + 2_000), &[]);
    assert_eq!(kinds(&w.tick()), ["destroy"], "Slurm still waits for its node");
    w.not_destroyed("n0");
    w.see_node("n0", running());
    w.see(vec![w.shown("n0", 1, VmState::Ready)]);
    assert_eq!(w.state_of("n0"), "up");
    assert_eq!(w.tick(), []);
}

#[test]
fn a_lost_vm_of_which_slurm_was_told_is_ended() {
    let mut w = lost();
    assert_eq!(kinds(&w.tick()), ["down"]);
    w.busy.clear();
    w.told_down(&node("n0"), "thiao: lost", &[]);
    let down = seen_as(BaseState::Down, |flags| flags.powered_down = true);
    w.pass(Millis(1));
    w.see_node(
        "n0",
        SlurmNode {
            reason: Some(NodeReason::ours("thiao: lost")),
            ..down
        },
    );
    w.see(vec![w.shown("n0", 1, VmState::Ready)]);
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}
