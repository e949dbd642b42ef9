//! Job mode: the gate, and what is done to its jobs and nodes.

use std::path::PathBuf;
use std::time::{Duration, Instant};
use thiao_core::ids::{JobId, NodeName};
use thiao_core::view::{
    Alloc, ArrayTasks, BaseState, Gate, GateSeen, GpusBy, JobState, MemoryBy, Request, SlurmJob, WaitsFor,
};
use thiao_slurm::conf::Timeouts;
use thiao_slurm::gate::Admission;
use thiao_slurm::{Slurm, SlurmError};
use thiao_testkit::ids::node;
use thiao_testkit::slurmctld::{Ctld, inside, job_nodes};

pub const TIMES: Timeouts = Timeouts {
    resume_s: 60,
    suspend_s: 2,
    idle_s: 60,
};

pub fn start(dir: PathBuf) -> Ctld {
    let ctld = Ctld::start(dir, TIMES, |lab| lab.nodes.push(job_nodes()));
    ctld.slurm.ensure_gate().unwrap();
    ctld
}

pub fn whole(job: JobId, licenses: &str) -> Admission {
    Admission {
        job,
        array: None,
        nodes: None,
        licenses: licenses.into(),
    }
}

/// A job with all that it may ask for, and one that has its nodes whole.
fn two_wait_for_capacity(ctld: &Ctld) -> (JobId, JobId) {
    ctld.hold(true);
    let job = ctld
        .submit(
            Some("share=50"),
            &["-p", "jobs", "-c3", "--mem=700", "-L", "a:2", "--wrap", "sleep 2"],
        )
        .unwrap();
    let next = ctld.sbatch(&["-p", "jobs", "-N2", "--exclusive", "--wrap", "sleep 60"]);
    ctld.until("both wait for capacity", |c| {
        [job, next]
            .iter()
            .all(|job| c.seen(*job).reason.text == "Licenses")
    });
    let seen = ctld.seen(job);
    assert_eq!((seen.gate, seen.licenses.as_str()), (Gate::Waits, "a:2"));
    let wanted = Request {
        cpus: 3,
        memory_mb: 700,
        nodes: 1,
        most_nodes: 1,
        node_cpus: 3,
        task_cpus: 3,
        memory_by: MemoryBy::Node,
        gpus_by: GpusBy::Node,
        gpus: 0,
        whole_nodes: false,
    };
    assert_eq!(seen.request, wanted);
    assert!(seen.has_options && seen.requeue && seen.priority > ctld.seen(next).priority);
    assert_eq!(seen.admin_comment.as_deref(), Some("vm: share=50"));
    (job, next)
}

/// They would stay so.
fn cancelled_while_its_nodes_power_up(ctld: &Ctld, next: JobId, others: &[NodeName]) {
    ctld.run(false, &["scancel", &next.to_string()]).unwrap();
    ctld.until("its nodes have no job", |c| {
        others.iter().all(|n| !c.node(n.as_str()).may_run_job())
    });
    assert!(ctld.node(others[0].as_str()).flags.powering_up);
    ctld.slurm
        .power_down_now(others, "thiao: its job is over")
        .unwrap();
    let free = |c: &Ctld, name: &str| {
        let n = c.node(name);
        n.base == BaseState::Idle && n.flags.powered_down && !n.flags.drain
    };
    ctld.until("they are free again", |c| {
        others.iter().all(|n| free(c, n.as_str()))
    });
}

#[test]
fn a_job_waits_at_the_gate_and_its_node_ends_with_it() {
    let Some(dir) = inside("job_mode::a_job_waits_at_the_gate_and_its_node_ends_with_it") else {
        return;
    };
    let ctld = start(dir);
    // Again: nothing to do, no error.
    ctld.slurm.ensure_gate().unwrap();
    assert!(ctld.slurm.has_gate().unwrap());

    let (job, next) = two_wait_for_capacity(&ctld);
    ctld.admit(&[whole(job, "a:2"), whole(next, "")]);
    assert_eq!(ctld.seen(job).gate, Gate::Open);
    ctld.until("both have nodes that power up", |c| {
        (5..8).all(|n| c.node(&format!("n{n}")).flags.powering_up)
    });
    let view = ctld.slurm.observe().unwrap();
    let of = |job: JobId| {
        let nodes = &view.jobs[&job].nodes;
        nodes.iter().map(|n| view.nodes[n].alloc).collect::<Vec<_>>()
    };
    let alloc = |cpus, memory_mb| Alloc {
        cpus,
        memory_mb,
        gpus: 0,
    };
    assert_eq!(of(job), [Some(alloc(3, 700))]);
    assert_eq!(of(next), [Some(alloc(64, 6400)); 2], "all CPUs, memory by CPU");

    let its = view.jobs[&job].nodes.clone();
    let others = view.jobs[&next].nodes.clone();
    ctld.slurm.end_with_job(&its, "thiao: ends with its job").unwrap();
    ctld.slurm
        .end_with_job(&others, "thiao: ends with its job")
        .unwrap();
    assert!(ctld.node(its[0].as_str()).flags.powering_up);

    cancelled_while_its_nodes_power_up(&ctld, next, &others);
    // A VM with less than its node's line.
    ctld.hook("Start", its[0].as_str());
    ctld.until("the job runs", |c| c.is(job, &JobState::Running));
    let up = ctld.node(its[0].as_str());
    assert!(up.flags.power_down && !up.flags.drain && up.is_up(), "{up:?}");
    // Nobody gets the node before its VM is ended.
    let heir = ctld.sbatch(&["-p", "jobs", "-w", its[0].as_str(), "--wrap", "sleep 60"]);
    ctld.admit(&[whole(heir, "")]);
    ctld.until("the job is over", |c| c.job(job).is_none());
    ctld.until("its heir has the node", |c| c.is(heir, &JobState::Configuring));
    let prolog = format!("PrologSlurmctld {heir}");
    ctld.until("its heir's prolog runs", |c| c.hooks().contains(&prolog));
    let calls = ctld.hooks();
    let place = |call: &str| calls.iter().position(|c| c == call);
    let (ended, given) = (place(&format!("Suspend {}", its[0])), place(&prolog));
    assert!(ended.is_some() && ended < given, "{calls:?}");
}

#[test]
fn an_array_of_irregular_tasks_hides_nothing() {
    let Some(dir) = inside("job_mode::an_array_of_irregular_tasks_hides_nothing") else {
        return;
    };
    let ctld = start(dir);
    ctld.hold(true);
    let tasks: Vec<u32> = (0..60).map(|n| n * 3 + n % 2).collect();
    let list: Vec<String> = tasks.iter().map(u32::to_string).collect();
    let array = ctld.sbatch(&[
        "-p",
        "jobs",
        &format!("--array={}%50", list.join(",")),
        "--wrap",
        "true",
    ]);
    let other = ctld.sbatch(&["-H", "--wrap", "true"]);
    let seen = ctld.seen(array);
    assert_eq!(
        seen.array,
        Some(ArrayTasks {
            job: array,
            tasks: tasks.clone()
        })
    );
    assert_eq!(seen.gate, Gate::Waits);
    assert!(ctld.job(other).is_some());

    let let_go = ArrayTasks {
        job: array,
        tasks: tasks[10..20].to_vec(),
    };
    ctld.admit(&[Admission {
        job: array,
        array: Some(let_go),
        nodes: None,
        licenses: String::new(),
    }]);
    let view = ctld.slurm.observe().unwrap();
    let rest = view.jobs[&array].array.as_ref().unwrap();
    assert_eq!(rest.tasks, [&tasks[..10], &tasks[20..]].concat());
    let apart: Vec<u32> = view
        .jobs
        .values()
        .filter(|job| job.gate == Gate::Open)
        .flat_map(|job| job.array.iter().flat_map(|array| array.tasks.clone()))
        .collect();
    assert_eq!(apart, tasks[10..20]);
}

#[test]
fn an_array_of_500_is_admitted_in_parts() {
    let Some(dir) = inside("job_mode::an_array_of_500_is_admitted_in_parts") else {
        return;
    };
    let ctld = start(dir);
    ctld.hold(true);
    let array = ctld.sbatch(&["-p", "jobs", "--array=0-499%450", "--wrap", "sleep 60"]);
    let held = ctld.sbatch(&["-p", "jobs", "-H", "--wrap", "true"]);
    let seen = ctld.seen(array);
    let all: Vec<u32> = (0..500).collect();
    assert_eq!(
        seen.array,
        Some(ArrayTasks {
            job: array,
            tasks: all
        })
    );
    assert_eq!(seen.request.cpus, 1, "of one task");

    let part = |tasks: Vec<u32>| Admission {
        job: array,
        array: Some(ArrayTasks { job: array, tasks }),
        nodes: None,
        licenses: String::new(),
    };
    let asked = Instant::now();
    ctld.admit(&[part((0..300).chain([302]).collect()), whole(held, "")]);
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    ctld.until("tasks have nodes", |c| {
        let view = c.slurm.observe().unwrap();
        view.jobs.values().filter(|j| !j.nodes.is_empty()).count() == 4
    });
    let view = ctld.slurm.observe().unwrap();
    let open = |job: &&SlurmJob| job.array.is_some() && job.gate == Gate::Open;
    assert_eq!(view.jobs.values().filter(open).count(), 301, "a record each");
    let rest = &view.jobs[&array];
    assert_eq!(
        (rest.gate, rest.array.as_ref().unwrap().tasks.len()),
        (Gate::Waits, 199)
    );
    assert!(view.jobs[&held].gate == Gate::Open && view.jobs[&held].reason.text == "JobHeldUser");

    // Back behind the gate, and what is not there any more is told alone.
    ctld.slurm.close_gate(&part(vec![302])).unwrap();
    let is_302 = |job: &&SlurmJob| job.array.as_ref().is_some_and(|a| a.tasks == [302]);
    let view = ctld.slurm.observe().unwrap();
    assert_eq!(view.jobs.values().find(is_302).unwrap().gate, Gate::Waits);
    let told = ctld
        .slurm
        .admit(&[part(vec![499]), whole(JobId(4_000_000), ""), part(vec![700])]);
    assert!(told[0].1.is_ok(), "{told:?}");
    for (_, result) in &told[1..] {
        assert!(matches!(result, Err(SlurmError::NoSuchJob { .. })), "{told:?}");
    }
}

/// Its reason is "None" until the main scheduler looks at it.
fn waits_behind_the_gate(ctld: &Ctld, job: JobId) -> bool {
    ctld.job(job).is_some_and(|j| {
        let reason = j.reason.waits.iter().all(|what| *what == WaitsFor::Licenses);
        j.state == JobState::Pending && j.gate == Gate::Waits && j.licenses == "a:1" && reason
    })
}

/// The last task has the array's id: no other is touched.
fn one_task_is_put_back(ctld: &Ctld) -> JobId {
    let array = ctld.sbatch(&["-p", "jobs", "-L", "a:1", "--array=3-4", "--wrap", "sleep 60"]);
    ctld.admit(&[Admission {
        job: array,
        array: Some(ArrayTasks {
            job: array,
            tasks: vec![3, 4],
        }),
        nodes: None,
        licenses: "a:1".into(),
    }]);
    let tasks = |c: &Ctld| {
        let jobs = c.slurm.observe().unwrap().jobs;
        jobs.into_values()
            .filter(|j| j.key() == array)
            .collect::<Vec<_>>()
    };
    ctld.until("both have nodes", |c| {
        let tasks = tasks(c);
        tasks.len() == 2 && tasks.iter().all(|j| !j.nodes.is_empty())
    });
    ctld.slurm
        .put_back(array, "a:1", "vm: ; put back: no capacity")
        .unwrap();
    ctld.until("one waits", |c| waits_behind_the_gate(c, array));
    let other = tasks(ctld).into_iter().find(|j| j.id != array).unwrap();
    assert!(
        !other.nodes.is_empty() && other.admin_comment.is_none(),
        "{other:?}"
    );
    assert_eq!(other.array.unwrap().tasks.len(), 1);
    array
}

/// One that may not go back keeps its comment and its node.
fn what_may_not_go_back_stays(ctld: &Ctld, comment: &str) {
    let stays = ctld.sbatch(&["-p", "jobs", "-w", "n8", "--no-requeue", "--wrap", "sleep 60"]);
    assert!(!ctld.seen(stays).requeue);
    ctld.admit(&[whole(stays, "")]);
    ctld.until("it configures", |c| c.is(stays, &JobState::Configuring));
    let error = ctld.slurm.put_back(stays, "", comment).unwrap_err();
    assert!(matches!(error, SlurmError::InvalidState { .. }), "{error}");
    assert!(ctld.is(stays, &JobState::Configuring));
    assert!(ctld.seen(stays).admin_comment.is_none_or(|text| text.is_empty()));
    let error = ctld.slurm.put_back(JobId(4_000_000), "", comment).unwrap_err();
    assert!(matches!(error, SlurmError::NoSuchJob { .. }), "{error}");
}

#[test]
fn a_job_is_put_back_behind_the_gate() {
    let Some(dir) = inside("job_mode::a_job_is_put_back_behind_the_gate") else {
        return;
    };
    let ctld = start(dir);
    let comment = "vm: share=50; put back: host h1 died";
    // One that runs, and one that waits for its node.
    let job = ctld
        .submit(
            Some("share=50"),
            &["-p", "jobs", "-L", "a:1", "--wrap", "sleep 60"],
        )
        .unwrap();
    ctld.admit(&[whole(job, "a:1")]);
    ctld.until("it runs", |c| c.is(job, &JobState::Running));
    ctld.hold(true);
    let two = ctld.sbatch(&["-p", "jobs", "-L", "a:1", "--wrap", "sleep 60"]);
    ctld.admit(&[whole(two, "a:1")]);
    ctld.until("the second configures", |c| c.is(two, &JobState::Configuring));
    for job in [job, two] {
        let asked = Instant::now();
        ctld.slurm.put_back(job, "a:1", comment).unwrap();
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        ctld.until("it waits for capacity", |c| waits_behind_the_gate(c, job));
        assert_eq!(ctld.seen(job).admin_comment.as_deref(), Some(comment));
        // Again is harmless.
        ctld.slurm.reopen(job, "a:1").unwrap();
        ctld.until("it still waits", |c| waits_behind_the_gate(c, job));
    }
    // Cut short after the hold.
    ctld.admit(&[whole(two, "a:1")]);
    ctld.until("it has a node again", |c| !c.seen(two).nodes.is_empty());
    ctld.run(false, &["scontrol", "requeuehold", &two.to_string()])
        .unwrap();
    ctld.until("it is held", |c| {
        let job = c.seen(two);
        job.state == JobState::Pending && job.reason.text == "job requeued in held state"
    });
    ctld.slurm.reopen(two, "a:1").unwrap();
    ctld.until("it waits for capacity once more", |c| {
        waits_behind_the_gate(c, two)
    });
    // One that was admitted and has no node yet.
    ctld.run(false, &["scontrol", "hold", &two.to_string()]).unwrap();
    ctld.admit(&[whole(two, "a:1")]);
    ctld.slurm.put_back(two, "a:1", comment).unwrap();
    assert!(ctld.seen(two).gate == Gate::Waits && ctld.seen(two).reason.text == "JobHeldAdmin");

    let array = one_task_is_put_back(&ctld);
    ctld.run(false, &["scancel", &array.to_string()]).unwrap();
    what_may_not_go_back_stays(&ctld, comment);
}

#[test]
fn a_gate_that_is_taken_away_is_seen_and_made_anew() {
    let Some(dir) = inside("job_mode::a_gate_that_is_taken_away_is_seen_and_made_anew") else {
        return;
    };
    let ctld = start(dir);
    let gate = || ctld.slurm.observe().unwrap().gate;
    let scontrol = |words: &[&str]| ctld.run(false, &[&["scontrol"], words].concat()).unwrap();
    assert_eq!(gate(), GateSeen::Shut);
    scontrol(&["delete", "ReservationName=thiao-room"]);
    assert!(matches!(gate(), GateSeen::Open(_)), "{:?}", gate());
    ctld.slurm.ensure_gate().unwrap();
    assert_eq!(gate(), GateSeen::Shut);
    // One of the same name that holds nothing yet.
    scontrol(&["delete", "ReservationName=thiao-room"]);
    scontrol(&[
        "create",
        "reservation",
        "ReservationName=thiao-room",
        "StartTime=now+1hour",
        "Duration=5",
        "Flags=license_only",
        "Licenses=vm_room:1",
        "Users=root",
    ]);
    assert!(matches!(gate(), GateSeen::Open(_)), "{:?}", gate());
    ctld.slurm.ensure_gate().unwrap();
    assert_eq!(gate(), GateSeen::Shut);
}

#[test]
fn without_the_licence_there_is_no_gate() {
    let Some(dir) = inside("job_mode::without_the_licence_there_is_no_gate") else {
        return;
    };
    let ctld = Ctld::start(dir, TIMES, |_| {});
    let error = ctld.slurm.ensure_gate().unwrap_err();
    assert!(
        matches!(error, SlurmError::NoGate) && error.to_string().contains("thiao setup"),
        "{error}"
    );
    // Nothing else is asked of nodes that no job has.
    let slurm = Slurm::new(Some(ctld.conf.clone()), None, Duration::from_secs(20));
    assert!(slurm.observe().unwrap().nodes.values().all(|n| n.alloc.is_none()));
}

#[test]
fn a_job_of_another_partition_is_turned_away_for_good() {
    let Some(dir) = inside("job_mode::a_job_of_another_partition_is_turned_away_for_good") else {
        return;
    };
    let ctld = start(dir);
    ctld.run(false, &["scontrol", "create", "partition=site", "nodes=ALL"])
        .unwrap();
    ctld.hold(true);
    // Of the site's partition Slurm gives it a node of job mode, where no VM comes.
    let job = ctld.sbatch(&["-p", "site", "-c", "2", "-x", "n[1-3],n8", "--wrap", "sleep 60"]);
    let on = |c: &Ctld, name: &str| c.job(job).is_some_and(|j| j.nodes == [node(name)]);
    ctld.until("it has a slot", |c| on(c, "n5"));
    ctld.slurm
        .turn_away(job, "n[5-8]", "no VM is made there")
        .unwrap();
    let shown = ctld
        .run(false, &["scontrol", "-o", "show", "job", &job.to_string()])
        .unwrap();
    assert!(shown.contains("ExcNodeList=n[1-3,5-8]"), "{shown}");
    assert!(
        shown.contains("AdminComment=thiao: kept from n[5-8]: no VM is made there"),
        "{shown}"
    );
    // No other node has two CPUs.
    let stays = |job: JobId| {
        std::thread::sleep(Duration::from_secs(4));
        let seen = ctld.job(job).unwrap();
        assert_eq!((seen.state, seen.nodes.len()), (JobState::Pending, 0));
    };
    stays(job);
    // Where it may run it does: the other nodes are still its own.
    let other = ctld.sbatch(&[
        "-p",
        "site",
        "-x",
        "n[1-3],n[6-8]",
        "-w",
        "n5",
        "--wrap",
        "sleep 60",
    ]);
    ctld.until("it has n5", |c| {
        c.job(other)
            .is_some_and(|j| j.nodes == [NodeName::new("n5").unwrap()])
    });
    // Somebody began that, and did not get far.
    let (id, comment) = (other.to_string(), "AdminComment=thiao: put back: no VM");
    ctld.run(false, &["scontrol", "update", &format!("JobId={id}"), comment])
        .unwrap();
    ctld.run(false, &["scontrol", "requeuehold", &id]).unwrap();
    let held = |job: SlurmJob| job.reason.has(&WaitsFor::Release) && job.state == JobState::Pending;
    ctld.until("it is held", |c| c.job(other).is_some_and(held));
    ctld.slurm.turn_away(other, "n[5-8]", "no VM").unwrap();
    assert!(!held(ctld.job(other).unwrap()));
    stays(other);
}

/// The size that is guessed at the gate is the one that Slurm gives then.
#[test]
fn a_job_with_whole_nodes_is_known_before_it_has_them() {
    let Some(dir) = inside("job_mode::a_job_with_whole_nodes_is_known_before_it_has_them") else {
        return;
    };
    let ctld = start(dir);
    let job = ctld.sbatch(&["-p", "jobs", "--exclusive", "--wrap", "true"]);
    let next = ctld.sbatch(&["-p", "jobs", "--wrap", "true"]);
    assert!(ctld.seen(job).request.whole_nodes && !ctld.seen(next).request.whole_nodes);
    ctld.admit(&[whole(job, ""), whole(next, "")]);
    ctld.until("both have nodes", |c| {
        [job, next].iter().all(|job| !c.seen(*job).nodes.is_empty())
    });
    let asked = |job| {
        let seen = ctld.seen(job);
        (
            seen.request.cpus,
            seen.request.memory_mb,
            seen.request.whole_nodes,
        )
    };
    assert_eq!((asked(job), asked(next)), ((64, 6400, true), (1, 100, false)));
}
