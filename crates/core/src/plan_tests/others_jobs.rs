//! Jobs that get no VMs of their own where they are: those that cannot be read, and those of
//! other partitions on nodes of job mode.

use super::job_mode::{job_mode_world, waiting};
use super::*;
use crate::event::Subject;
use crate::plan::{JobVerb, NodeVerb, Plan, Step};
use crate::view::{JobReason, WaitsFor};

#[test]
fn a_job_that_cannot_be_read_is_there_and_left_alone() {
    let mut w = job_mode_world();
    w.submit(waiting(1, 1, 100, 9));
    let admitted = w.tick();
    assert!(
        matches!(admitted.as_slice(), [Action::Job(_, JobVerb::Admit { .. })]),
        "{admitted:?}"
    );
    w.job_action_ended(JobId(1));
    w.observe(|view| view.jobs.get_mut(&JobId(1)).unwrap().gate = Gate::Open);
    assert!(w.jobs[&JobId(1)].admitted.is_some());

    // Nothing but its id: no partition, no nodes.
    let unknown = SlurmJob {
        state: JobState::Unknown("unreadable: x".into()),
        ..SlurmJob::new(JobId(1))
    };
    let mut view = w.slurm.as_deref().cloned().unwrap();
    view.jobs.insert(JobId(1), unknown);
    w.pass(Millis(10));
    let now = w.now;
    let told = w.see_slurm(view.clone(), now);
    assert!(
        told.iter()
            .any(|event| event.subject == Subject::Job(JobId(1)) && event.text.contains("unreadable: x")),
        "{told:?}"
    );
    assert!(w.jobs[&JobId(1)].admitted.is_some(), "it was not forgotten");
    assert_eq!(w.tick(), []);
    assert_eq!(w.see_slurm(view, now), [], "told once");
    let refused = Plan {
        steps: vec![Step {
            action: Action::Job(JobId(1), JobVerb::StartNow),
            why: String::new(),
        }],
        ..Plan::default()
    };
    assert!(lint(&w, &refused).0.is_empty());
}

/// A job of a partition of the site's that Slurm has given n0.
fn out_of_place(id: u32) -> SlurmJob {
    SlurmJob {
        partition: "all".into(),
        state: JobState::Configuring,
        nodes: vec![node("n0")],
        ..SlurmJob::new(JobId(id))
    }
}

#[test]
fn a_job_of_another_partition_is_turned_away_from_nodes_of_job_mode() {
    let mut w = job_mode_world();
    for id in [7, 8] {
        w.submit(out_of_place(id));
    }
    w.observe(|slurm| drop(slurm.nodes.insert(node("n0"), powering_up())));
    w.order(
        &node("n0"),
        &Order::Up {
            force: false,
            jobs: BTreeMap::new(),
        },
        w.now,
    );
    let actions = w.tick();
    let away: Vec<_> = actions.iter().filter_map(Action::job).collect();
    assert_eq!(away, [JobId(7), JobId(8)], "and no VM is made: {actions:?}");
    assert!(!kinds(&actions).contains(&"create"));
    let Some(Action::Job(_, JobVerb::TurnAway { from, why })) = actions.iter().find(|a| a.job().is_some())
    else {
        panic!("{actions:?}")
    };
    assert_eq!(from, "n[0-3]");
    assert!(why.contains("partition all has nodes of job mode"), "{why}");
    w.done(&actions);
    assert!(
        !kinds(&w.tick()).contains(&"turn-away"),
        "not again on the same observation"
    );
}

#[test]
fn a_job_is_turned_away_while_nothing_is_known_of_vms() {
    let mut w = job_mode_world();
    w.submit(out_of_place(7));
    w.submit(SlurmJob {
        requeue: false,
        ..out_of_place(8)
    });
    w.observe(|slurm| drop(slurm.nodes.insert(node("n0"), powering_up())));
    w.provider = None;
    assert_eq!(kinds(&w.tick()), ["turn-away"], "and no node is set DOWN");
}

#[test]
fn turning_a_job_away_is_finished_when_it_was_cut_short() {
    let comment = crate::options::put_back_comment(&crate::options::VmOptions::default(), "no VM");
    let held = SlurmJob {
        state: JobState::Pending,
        reason: JobReason::new("JobHeldAdmin", WaitsFor::Release),
        nodes: vec![],
        admin_comment: Some(comment),
        ..out_of_place(7)
    };
    let mut w = job_mode_world();
    w.submit(held.clone());
    let away = Action::Job(
        JobId(7),
        JobVerb::TurnAway {
            from: "n[0-3]".into(),
            why: "no VM".into(),
        },
    );
    assert_eq!(w.tick(), [away]);
    let done = crate::options::turned_away_comment("n[0-3]", "no VM");
    for left in [
        SlurmJob {
            admin_comment: None,
            ..held.clone()
        },
        SlurmJob {
            admin_comment: Some(done),
            ..held.clone()
        },
        SlurmJob {
            reason: JobReason::new("Resources", WaitsFor::Nodes),
            ..held
        },
    ] {
        let mut w = job_mode_world();
        w.submit(left);
        assert_eq!(w.tick(), [], "an admin's hold is the admin's");
    }
}

#[test]
fn a_job_that_cannot_be_turned_away_is_told_by_its_node() {
    for refused in [false, true] {
        let mut w = job_mode_world();
        w.submit(SlurmJob {
            requeue: refused,
            ..out_of_place(7)
        });
        w.observe(|slurm| drop(slurm.nodes.insert(node("n0"), powering_up())));
        if refused {
            let actions = w.tick();
            w.done(&actions);
            w.busy.clear();
            w.not_put_back(JobId(7), "Invalid job state");
            w.pass(Millis(20));
            w.observe(|_| {});
        }
        let down = w.tick().into_iter().find_map(|action| match action {
            Action::Node(_, NodeVerb::SetDown { reason, jobs }) => Some((reason, jobs)),
            _ => None,
        });
        let (reason, jobs) = down.unwrap();
        assert!(reason.starts_with("thiao: job 7: partition all has"), "{reason}");
        assert_eq!(jobs, [JobId(7)]);
    }
}

#[test]
fn a_node_that_is_busy_is_not_told_of_its_job_yet() {
    let mut w = job_mode_world();
    w.submit(SlurmJob {
        requeue: false,
        ..out_of_place(7)
    });
    w.observe(|slurm| drop(slurm.nodes.insert(node("n0"), powering_up())));
    w.busy.insert(node("n0"));
    assert_eq!(w.tick(), []);
    w.busy.clear();
    assert_eq!(kinds(&w.tick()), ["down"]);
}

#[test]
fn the_linter_turns_no_job_away_that_may_run_or_is_in_place() {
    use crate::plan::{Plan, Step};
    for (job, may) in [
        (out_of_place(7), true),
        (
            SlurmJob {
                state: JobState::Running,
                ..out_of_place(7)
            },
            false,
        ),
        (
            SlurmJob {
                partition: "jobs".into(),
                ..out_of_place(7)
            },
            false,
        ),
        (
            SlurmJob {
                nodes: vec![node("others")],
                ..out_of_place(7)
            },
            false,
        ),
    ] {
        let mut w = job_mode_world();
        w.submit(job.clone());
        let action = Action::Job(
            JobId(7),
            JobVerb::TurnAway {
                from: "n[0-3]".into(),
                why: String::new(),
            },
        );
        let plan = Plan {
            steps: vec![Step {
                action,
                why: String::new(),
            }],
            held: vec![],
        };
        assert_eq!(lint(&w, &plan).0.len() == 1, may, "{job:?}");
    }
}
