//! Jobs that each get VMs of their own.

use super::*;
use crate::options::OptionRule;
use crate::view::JobOwner;

/// The nodes n0 to n3 are of job mode, for jobs of up to 2 CPUs and 200 MiB; hosts a and b
/// have 2 cores and 300 MiB each, and a VM needs 50 MiB more than its job.
pub(super) fn job_mode_world() -> World {
    let mut w = world();
    for spec in Arc::make_mut(&mut w.specs).values_mut() {
        spec.mode = Mode::Job;
        spec.shape.cpus = 2;
        spec.shape.memory_mb = 200;
    }
    let most = w.specs[&node("n0")].shape;
    w.job_partitions = [(
        "jobs".to_owned(),
        JobPartition {
            nodesets: [NodesetName::new("n").unwrap()].into(),
            most,
            gpus: 0,
        },
    )]
    .into();
    w.observe(|_| {});
    w
}

/// A waiting job of `nodes` x (1 CPU, `memory_mb`).
pub(super) fn waiting(id: u32, nodes: u32, memory_mb: u64, priority: u64) -> SlurmJob {
    SlurmJob {
        partition: "jobs".into(),
        user: "ada".into(),
        reason: JobReason::new("Licenses", WaitsFor::Licenses),
        priority,
        request: Request {
            cpus: nodes,
            memory_mb: memory_mb * u64::from(nodes),
            nodes,
            ..Request::default()
        },
        node_count: nodes,
        gate: Gate::Waits,
        ..SlurmJob::new(JobId(id))
    }
}

impl World {
    /// A later observation of Slurm that shows something else.
    pub(super) fn observe(&mut self, change: impl FnOnce(&mut SlurmView)) {
        self.pass(Millis(10));
        let mut view = self.slurm.as_deref().cloned().unwrap();
        change(&mut view);
        let began = self.now;
        self.pass(Millis(1));
        self.see_slurm(view, began);
    }

    pub(super) fn submit(&mut self, job: SlurmJob) {
        self.observe(|view| drop(view.jobs.insert(job.id, job)));
    }

    /// Slurm gives a job these nodes, and 1 CPU and so much memory on each; they come up.
    pub(super) fn allocate(&mut self, id: u32, on: &[&str], memory_mb: u64) {
        self.observe(|view| {
            let job = view.jobs.get_mut(&JobId(id)).unwrap();
            job.gate = Gate::Open;
            job.state = JobState::Configuring;
            job.reason = JobReason::default();
            job.nodes = on.iter().map(|name| node(name)).collect();
            for name in on {
                let alloc = Alloc {
                    cpus: 1,
                    memory_mb,
                    gpus: 0,
                };
                view.nodes.insert(
                    node(name),
                    SlurmNode {
                        alloc: Some(alloc),
                        ..powering_up()
                    },
                );
            }
        });
        for name in on {
            let jobs = [(node(name), vec![JobId(id)])].into();
            self.order(&node(name), &Order::Up { force: false, jobs }, self.now);
        }
    }

    pub(super) fn done(&mut self, actions: &[Action]) {
        for action in actions {
            if let Some(job) = action.job() {
                self.job_action_ended(job);
            }
            if let Some(node) = action.node() {
                self.busy.remove(node);
            }
        }
    }

    pub(super) fn held_of(&self, id: u32) -> Vec<String> {
        let subject = crate::event::Subject::Job(JobId(id));
        let held = plan(self).held.into_iter();
        held.filter(|held| held.subject == subject)
            .map(|held| held.why)
            .collect()
    }
}

pub(super) fn admitted(actions: &[Action]) -> Vec<u32> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Job(job, JobVerb::Admit { .. }) => Some(job.0),
            _ => None,
        })
        .collect()
}

#[test]
fn a_job_is_admitted_when_all_its_vms_have_capacity() {
    let mut w = job_mode_world();
    w.submit(waiting(1, 2, 200, 10));
    let actions = w.tick();
    assert_eq!(kinds(&actions), ["admit"]);
    assert_eq!(w.tick(), [], "its answer is awaited");
    w.done(&actions);
    assert_eq!(w.tick(), [], "and an observation that began after it");
    // Half of this one would fit.
    let mut w = job_mode_world();
    w.submit(waiting(2, 3, 200, 10));
    assert_eq!(w.tick(), []);
    assert!(
        w.held_of(2)[0].starts_with("waits for capacity for 3 x (1 CPUs, 200 MiB)"),
        "{:?}",
        w.held_of(2)
    );
}

#[test]
fn slurms_priorities_decide_and_not_who_was_observed_first() {
    let mut w = job_mode_world();
    for (id, priority) in [(1, 5), (2, 50), (3, 20), (4, 50)] {
        w.submit(waiting(id, 1, 200, priority));
    }
    // Two have capacity; equal priority: the older one first.
    assert_eq!(admitted(&w.tick()), [2, 4]);
}

#[test]
fn others_that_fit_go_ahead_but_not_for_ever() {
    let mut w = job_mode_world();
    w.submit(waiting(1, 3, 200, 90));
    w.submit(waiting(2, 1, 100, 10));
    assert_eq!(admitted(&w.tick()), [2]);
    let mut w = job_mode_world();
    w.submit(waiting(1, 3, 200, 90));
    w.pass(w.policy.overtake_limit);
    w.submit(waiting(2, 1, 100, 10));
    assert_eq!(w.tick(), []);
    assert!(w.held_of(2)[0].contains("behind job 1"), "{:?}", w.held_of(2));
    // One that no empty host could carry keeps nobody waiting.
    let mut w = job_mode_world();
    w.submit(waiting(1, 1, 2000, 90));
    w.pass(w.policy.overtake_limit);
    w.submit(waiting(2, 1, 100, 10));
    assert_eq!(admitted(&w.tick()), [2]);
}

#[test]
fn a_job_with_its_nodes_keeps_its_capacity_while_it_waits_for_an_observation() {
    let mut w = job_mode_world();
    w.submit(waiting(1, 1, 200, 10));
    w.allocate(1, &["n0"], 200);
    // How much of n0 is allocated is not known yet, so its VM is not made in this round.
    w.observe(|view| view.nodes.get_mut(&node("n0")).unwrap().alloc = None);
    w.busy.insert(node("n0"));
    w.submit(waiting(2, 2, 200, 5));
    assert_eq!(w.tick(), [], "one of two hosts is job 1's");
    w.busy.clear();
    assert_eq!(kinds(&w.tick()), ["end-with-job"]);
}

#[test]
fn the_parts_of_a_heterogeneous_job_go_together_or_not_at_all() {
    let part = |id: u32, memory_mb: u64| SlurmJob {
        het: Some(JobId(1)),
        ..waiting(id, 1, memory_mb, 10)
    };
    let mut w = job_mode_world();
    for (id, memory_mb) in [(1, 200), (2, 200), (3, 200)] {
        w.submit(part(id, memory_mb));
    }
    w.submit(waiting(4, 2, 200, 5));
    // Two parts would fit; without the third they serve nobody, and others do.
    assert_eq!(admitted(&w.tick()), [4]);
    let mut w = job_mode_world();
    for (id, memory_mb) in [(1, 200), (2, 100), (3, 50)] {
        w.submit(part(id, memory_mb));
    }
    assert_eq!(admitted(&w.tick()), [1, 2, 3]);
}

#[test]
fn nodes_are_promised_once() {
    let mut w = job_mode_world();
    w.policy.overhead_mb = 0;
    for id in 1..=3 {
        w.submit(waiting(id, 2, 50, 10));
    }
    // Four nodes are free, whatever capacity there is.
    assert!(
        w.held_of(3)[0].contains("fewer than 2 nodes of its partition are free"),
        "{:?}",
        w.held_of(3)
    );
    assert_eq!(admitted(&w.tick()), [1, 2]);
}

#[test]
fn what_ends_by_itself_keeps_no_job_at_the_gate() {
    use WaitsFor::{Cleaning, Licenses, Nodes, Turn};
    for waits in [vec![], vec![Licenses, Turn], vec![Nodes], vec![Cleaning]] {
        let mut w = job_mode_world();
        let reason = JobReason {
            text: "so and so".into(),
            waits: waits.clone(),
        };
        w.submit(SlurmJob {
            reason,
            ..waiting(1, 1, 100, 10)
        });
        assert_eq!(admitted(&w.tick()), [1], "{waits:?}");
    }
}

#[test]
fn what_slurm_itself_holds_back_is_left_to_slurm() {
    let unknown = || WaitsFor::Unknown("Moonrise".into());
    for what in [
        WaitsFor::Other,
        WaitsFor::NamedNodes,
        WaitsFor::Release,
        WaitsFor::BeginTime,
        unknown(),
    ] {
        for waits in [vec![what.clone()], vec![WaitsFor::Licenses, what]] {
            let mut w = job_mode_world();
            w.submit(SlurmJob {
                reason: JobReason {
                    text: "so and so".into(),
                    waits: waits.clone(),
                },
                ..waiting(1, 1, 100, 10)
            });
            assert_eq!(w.tick(), [], "{waits:?}");
            let held = &w.held_of(1)[0];
            assert!(
                held.starts_with("Slurm does not let it start: so and so"),
                "{held}"
            );
            assert_eq!(held.contains("Moonrise"), waits.contains(&unknown()), "{held}");
        }
    }
    let mut w = job_mode_world();
    w.submit(SlurmJob {
        partition: "other".into(),
        ..waiting(1, 1, 100, 10)
    });
    assert_eq!(w.tick(), [], "no partition of ours");
    for (partition, cure) in [
        ("other", "jobs"),
        ("other,jobs", "jobs"),
        ("jobs,other", "jobs"),
        ("", "jobs"),
    ] {
        w.observe(|view| view.jobs.get_mut(&JobId(1)).unwrap().partition = partition.into());
        assert_eq!(w.tick(), [], "{partition}");
        let held = &w.held_of(1)[0];
        assert!(
            held.ends_with(&format!("scontrol update jobid=1 partition={cure}")),
            "{held}"
        );
    }
    // Elsewhere a job may have what licences it likes.
    w.observe(|view| view.jobs.get_mut(&JobId(1)).unwrap().gate = Gate::Open);
    assert_eq!(w.held_of(1), [""; 0]);
}

#[test]
fn of_an_array_as_many_tasks_go_as_there_is_capacity_for() {
    let mut w = job_mode_world();
    w.submit(SlurmJob {
        array: Some(ArrayTasks {
            job: JobId(1),
            tasks: (3..500).collect(),
        }),
        ..waiting(1, 1, 60, 10)
    });
    let actions = w.tick();
    let [
        Action::Job(
            _,
            JobVerb::Admit {
                array: Some(array), ..
            },
        ),
    ] = actions.as_slice()
    else {
        panic!("{actions:?}")
    };
    // Two on each host, as many as there are nodes.
    assert_eq!(array.tasks, [3, 4, 5, 6]);
}

#[test]
fn a_jobs_vms_are_as_big_as_its_allocation_and_its_own() {
    let mut w = job_mode_world();
    w.submit(SlurmJob {
        uid: 1001,
        ..waiting(1, 2, 120, 10)
    });
    let admit = w.tick();
    w.done(&admit);
    w.allocate(1, &["n0", "n1"], 123);
    let actions = w.tick();
    assert_eq!(kinds(&actions), ["create", "create"]);
    for action in &actions {
        let Action::Vm(_, VmVerb::Create { spec, .. }) = action else {
            panic!()
        };
        assert_eq!(
            (spec.shape.cpus, spec.shape.memory_mb, spec.job),
            (1, 123, Some(JobId(1)))
        );
        let owner = JobOwner {
            uid: 1001,
            leader: JobId(1),
        };
        assert_eq!(spec.owner, Some(owner));
    }
    // While they come up, Slurm is told to end the nodes with the job.
    w.done(&actions);
    for name in ["n0", "n1"] {
        w.created(&node(name), VmId::new(&format!("{name}.1")).unwrap());
    }
    w.observe(|_| {});
    let actions = w.tick();
    assert_eq!(kinds(&actions), ["end-with-job", "end-with-job"]);
    w.done(&actions);
    w.acted_on(&node("n0"));
    w.acted_on(&node("n1"));
    assert_eq!(
        w.tick(),
        [],
        "an observation that began before says nothing of it"
    );
}

#[test]
fn half_of_a_jobs_vms_are_never_made() {
    let mut w = job_mode_world();
    // Somebody else's VM takes most of a host: 200 + 50 fit beside nothing else on the other.
    let big = VmView {
        id: VmId::new("other").unwrap(),
        tag: None,
        host: Some(host("a")),
        memory_mb: 250,
        cpu_percent: 100,
        state: VmState::Ready,
    };
    w.submit(waiting(1, 2, 200, 10));
    let admit = w.tick();
    w.done(&admit);
    w.see(vec![big]);
    w.allocate(1, &["n0", "n1"], 200);
    assert!(
        w.held_of(1)[0].contains("wait for capacity"),
        "{:?}",
        w.held_of(1)
    );
    assert!(kinds(&w.tick()).iter().all(|kind| *kind == "end-with-job"));
    // In vain: it goes back, with the reason, and is not admitted at once again.
    w.busy.clear();
    w.pass(w.policy.capacity_patience);
    w.observe(|_| {});
    let actions = w.tick();
    let put_back = actions
        .iter()
        .find(|action| matches!(action, Action::Job(_, JobVerb::PutBack { .. })));
    let Some(Action::Job(_, JobVerb::PutBack { comment, .. })) = put_back else {
        panic!("{actions:?}")
    };
    assert!(comment.contains("has capacity for 250 MiB"), "{comment}");
    w.done(&actions);
    w.put_back(JobId(1), "no capacity");
    w.observe(|view| {
        let job = view.jobs.get_mut(&JobId(1)).unwrap();
        job.state = JobState::Pending;
        job.gate = Gate::Waits;
        job.nodes.clear();
        for name in ["n0", "n1"] {
            view.nodes.insert(node(name), powered_down());
        }
    });
    w.see(vec![]);
    assert_eq!(w.tick(), []);
    assert!(
        w.held_of(1)[0].starts_with("tried again in 4.9"),
        "{:?}",
        w.held_of(1)
    );
    w.pass(w.policy.retry_first);
    w.observe(|_| {});
    assert_eq!(admitted(&w.tick()), [1]);
}

#[test]
fn a_running_job_is_never_put_back() {
    let mut w = job_mode_world();
    w.submit(waiting(1, 1, 100, 10));
    w.allocate(1, &["n0"], 100);
    let step = |action| crate::plan::Plan {
        steps: vec![crate::plan::Step {
            action,
            why: String::new(),
        }],
        held: vec![],
    };
    let put_back = step(Action::Job(
        JobId(1),
        JobVerb::PutBack {
            licenses: String::new(),
            comment: String::new(),
        },
    ));
    assert_eq!(lint(&w, &put_back).1.len(), 0);
    w.observe(|view| view.jobs.get_mut(&JobId(1)).unwrap().state = JobState::Running);
    assert_eq!(
        lint(&w, &put_back).1[0].why,
        "job 1 is not about to start: it may run"
    );
    // Nor is its node powered down now, whatever else is known.
    let down = step(Action::Node(node("n0"), NodeVerb::PowerDown));
    assert!(lint(&w, &down).1[0].why.contains("may have a job"));
}

#[test]
fn the_linter_lets_no_vm_be_of_another_size_or_of_nobody() {
    let mut w = job_mode_world();
    w.submit(waiting(1, 1, 100, 10));
    w.allocate(1, &["n0"], 100);
    let good = plan(&w).steps[0].clone();
    let Action::Vm(_, VmVerb::Create { spec, .. }) = &good.action else {
        panic!()
    };
    let refused = |change: &dyn Fn(&mut VmSpec)| {
        let mut step = good.clone();
        let mut other = spec.clone();
        change(&mut other);
        if let Action::Vm(_, VmVerb::Create { spec, .. }) = &mut step.action {
            *spec = other;
        }
        let plan = crate::plan::Plan {
            steps: vec![step],
            held: vec![],
        };
        lint(&w, &plan).1.pop().map(|refusal| refusal.why)
    };
    assert_eq!(refused(&|_| {}), None);
    assert!(refused(&|spec| spec.job = None).unwrap().contains("nobody's"));
    let owned = |change: fn(&mut JobOwner)| {
        let why = refused(&|spec| spec.owner.iter_mut().for_each(change)).unwrap();
        assert!(why.contains("user of job 1"), "{why}");
    };
    owned(|owner| owner.uid += 1);
    owned(|owner| owner.leader = JobId(7));
    assert!(
        refused(&|spec| spec.owner = None)
            .unwrap()
            .contains("user of job 1")
    );
    assert!(
        refused(&|spec| spec.job = Some(JobId(2)))
            .unwrap()
            .contains("job 2")
    );
    assert!(
        refused(&|spec| spec.shape.memory_mb = 101)
            .unwrap()
            .contains("another part")
    );
    assert!(
        refused(&|spec| spec.shape.cpus = 2)
            .unwrap()
            .contains("another part")
    );
}

#[test]
fn options_hold_when_a_rule_allows_them() {
    let with = |comment: Option<&str>| SlurmJob {
        has_options: true,
        admin_comment: comment.map(str::to_owned),
        ..waiting(1, 1, 100, 10)
    };
    let mut w = job_mode_world();
    w.submit(with(Some("vm: share=50")));
    assert_eq!(w.tick(), []);
    assert!(w.held_of(1)[0].contains("no rule"), "{:?}", w.held_of(1));
    w.option_rules = vec![OptionRule {
        share: Some((25, 100)),
        ..OptionRule::default()
    }];
    assert_eq!(admitted(&w.tick()), [1]);
    w.busy_jobs.clear();
    w.allocate(1, &["n0"], 100);
    let actions = w.tick();
    let [Action::Vm(_, VmVerb::Create { spec, .. })] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!(spec.shape.share_percent, 50);
    // Until they are known it waits.
    let mut w = job_mode_world();
    w.submit(with(None));
    assert_eq!(w.tick(), []);
}

#[test]
fn a_failed_jobs_vm_stays_for_its_owner_and_not_for_ever() {
    let mut w = job_mode_world();
    w.submit(waiting(1, 1, 100, 10));
    w.allocate(1, &["n0"], 100);
    w.tick();
    w.busy.clear();
    w.created(&node("n0"), VmId::new("n0.1").unwrap());
    let vm = w.records.get_mut(&node("n0")).unwrap().vm.as_mut().unwrap();
    vm.spec.as_mut().unwrap().options.keep_on_failure = true;
    let ended = |failed| Order::JobEnded {
        job: JobId(1),
        failed,
    };
    w.order(&node("n0"), &ended(true), w.now);
    w.observe(|view| {
        view.jobs.clear();
        let mut seen = powered_down();
        seen.flags.powered_down = false;
        seen.flags.powering_down = true;
        view.nodes.insert(node("n0"), seen);
    });
    w.order(&node("n0"), &Order::Down, w.now);
    // Slurm must not give its node to somebody meanwhile.
    assert_eq!(kinds(&w.tick()), ["down"]);
    w.busy.clear();
    w.told_down(&node("n0"), "thiao: kept", &[]);
    assert_eq!(w.tick(), []);
    let mut later = w.clone();
    later.pass(w.policy.keep_failed);
    assert_eq!(kinds(&later.tick()), ["destroy"]);
    // His word that it is enough.
    w.order(&node("n0"), &ended(false), w.now);
    assert_eq!(kinds(&w.tick()), ["destroy"]);
}

#[test]
fn both_modes_share_hosts_and_caps() {
    let mut w = job_mode_world();
    let spec = Arc::make_mut(&mut w.specs).get_mut(&node("n3")).unwrap();
    spec.mode = Mode::PowerSaving;
    spec.nodeset = NodesetName::new("p").unwrap();
    w.policy.max_vms = 2;
    w.ask_up("n3");
    w.submit(waiting(1, 2, 60, 10));
    w.submit(waiting(2, 1, 60, 5));
    let actions = w.tick();
    assert_eq!(kinds(&actions), ["create", "admit"]);
    assert_eq!(admitted(&actions), [2], "one VM is left of the cap");
    assert_eq!(
        w.records[&node("n3")]
            .vm
            .as_ref()
            .unwrap()
            .spec
            .as_ref()
            .unwrap()
            .job,
        None
    );
}
