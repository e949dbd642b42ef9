//! What holds of queues and of the DFRS papers' algorithms, whatever jobs come: a small world runs them to their ends and
//! looks at every decision.

use proptest::prelude::*;
use std::collections::BTreeMap;
use thiao_share::{
    Arrival, Backfill, Dfrs, Event, Host, Job, JobId, Ms, Overheads, Planner, Policy, Queue, Standing, State,
};

/// A job, and how long it runs.
type Told = (Job, Ms);

struct World<'a> {
    planner: Planner,
    jobs: &'a [Told],
    now: Ms,
    live: Vec<JobId>,
    starts: BTreeMap<u32, Ms>,
}

impl World<'_> {
    /// The next end of a job.
    fn ending(&self) -> Option<(Ms, JobId)> {
        let end = |id: &JobId| {
            Some((
                self.planner
                    .state()
                    .job(*id)
                    .progress
                    .reaches(self.jobs[id.index()].1)?,
                *id,
            ))
        };
        self.live.iter().filter_map(end).min()
    }

    /// Looks at a decision.
    fn check(&self, cpu_too: bool) {
        let state = self.planner.state();
        let mut used = vec![(0, 0); state.hosts().len()];
        for id in &self.live {
            let entry = state.job(*id);
            let tasks: u32 = entry.slots.iter().map(|slot| slot.tasks).sum();
            let resident = entry.standing == Standing::Resident;
            assert_eq!(
                tasks,
                if resident { entry.job.tasks } else { 0 },
                "all tasks or none of {id:?}"
            );
            assert!(entry.progress.alloc() <= entry.job.cpu);
            for slot in &entry.slots {
                let used = &mut used[slot.host.index()];
                *used = (
                    used.0 + entry.progress.alloc() * slot.tasks,
                    used.1 + entry.job.memory * slot.tasks,
                );
            }
        }
        for ((used, host), load) in used.into_iter().zip(state.hosts()).zip(state.loads()) {
            assert_eq!(used, (load.cpu, load.memory));
            assert!(used.1 <= host.memory, "memory is promised twice");
            assert!(!cpu_too || used.0 <= host.cpu, "CPU is promised twice");
        }
    }
}

/// Runs all jobs; `look` sees each decision. Says when each started.
fn run(
    policy: &Policy,
    hosts: &[Host],
    jobs: &[Told],
    cpu_too: bool,
    look: &mut dyn FnMut(Ms, &State, &[JobId]),
) -> BTreeMap<u32, Ms> {
    let overheads = Overheads {
        restore: 7000,
        moves: 5000,
        ..Overheads::default()
    };
    let planner = Planner::new(policy, hosts.to_vec(), overheads);
    let mut world = World {
        planner,
        jobs,
        now: 0,
        live: Vec::new(),
        starts: BTreeMap::new(),
    };
    let mut come = 0;
    for _ in 0..100_000 {
        let arrival = jobs.get(come).map(|(job, _)| job.submit);
        let ending = world.ending().map(|(end, _)| end);
        let asked = world.planner.next().map(|when| when.max(world.now));
        let Some(now) = [arrival, ending, asked].into_iter().flatten().min() else {
            assert!(world.live.is_empty(), "{:?} wait for ever", world.live);
            return world.starts;
        };
        world.now = now;
        while let Some((end, id)) = world.ending()
            && end <= now
        {
            world.planner.fold(now, Event::Ended(id));
            world.live.retain(|live| *live != id);
        }
        while jobs.get(come).is_some_and(|(job, _)| job.submit <= now) {
            let id = JobId(come as u32);
            world.planner.fold(now, Event::Submitted(id, jobs[come].0));
            world.live.push(id);
            come += 1;
        }
        world.planner.decide(now);
        world.check(cpu_too);
        for id in &world.live {
            if world.planner.state().job(*id).standing != Standing::Waiting {
                world.starts.entry(id.0).or_insert(now);
            }
        }
        look(now, world.planner.state(), &world.live);
    }
    panic!("it comes to no end");
}

/// When a job fits at last if those that run end by their limits and nobody else starts: by counting alone.
fn promise(now: Ms, state: &State, live: &[JobId], starts: &BTreeMap<JobId, Ms>, job: &Job) -> Ms {
    let mut ends: Vec<Ms> = starts
        .iter()
        .map(|(id, start)| start + state.job(*id).job.limit)
        .chain([now])
        .collect();
    ends.sort_unstable();
    let fits = |when: Ms| {
        let mut free: Vec<(u32, u32)> = state.hosts().iter().map(|host| (host.cpu, host.memory)).collect();
        for id in live.iter().filter(|id| {
            starts
                .get(id)
                .is_some_and(|start| start + state.job(**id).job.limit > when)
        }) {
            let entry = state.job(*id);
            for slot in &entry.slots {
                let free = &mut free[slot.host.index()];
                *free = (
                    free.0 - entry.job.cpu * slot.tasks,
                    free.1 - entry.job.memory * slot.tasks,
                );
            }
        }
        let room = |(cpu, memory): &(u32, u32)| {
            (cpu / job.cpu).min(memory.checked_div(job.memory).unwrap_or(u32::MAX))
        };
        free.iter().map(room).map(u64::from).sum::<u64>() >= u64::from(job.tasks)
    };
    ends.into_iter()
        .filter(|end| *end >= now)
        .find(|end| fits(*end))
        .expect("it fits on empty hosts")
}

prop_compose! {
    fn any_job()(gap in 0u64..40, tasks in 1u32..6, cpu in 1u32..=10, memory in 0u32..=10, run in 1u64..100, over in 0u64..50)
        -> (u64, Job, Ms) {
        let limit = (run + over) * 1000;
        let job = Job { submit: 0, tasks, cpu: cpu * 10, memory: memory * 10, limit, priority: 0, pausable: true, movable: true };
        (gap * 1000, job, run * 1000)
    }
}

/// Hosts, and jobs that fit on them when they are empty.
fn any_world(alike: bool) -> impl Strategy<Value = (Vec<Host>, Vec<Told>)> {
    let host = (10u32..=20, 10u32..=20).prop_map(move |(cpu, memory)| match alike {
        true => Host {
            cpu: 100,
            memory: 100,
        },
        false => Host {
            cpu: cpu * 10,
            memory: memory * 10,
        },
    });
    (
        proptest::collection::vec(host, 5..9),
        proptest::collection::vec(any_job(), 1..40),
    )
        .prop_map(|(hosts, drawn)| {
            let mut submit = 0;
            let jobs = drawn.into_iter().map(|(gap, job, run)| {
                submit += gap;
                (Job { submit, ..job }, run)
            });
            (hosts, jobs.collect())
        })
}

fn queues() -> impl Strategy<Value = Queue> {
    prop_oneof![
        Just(Backfill::Never),
        Just(Backfill::InOrder),
        Just(Backfill::ShortestFirst)
    ]
    .prop_map(Queue::new)
}

fn dfrs() -> impl Strategy<Value = Dfrs> {
    let arrival = prop_oneof![
        Just(Arrival::Wait),
        Just(Arrival::Greedy),
        Just(Arrival::Pause),
        Just(Arrival::Move),
        Just(Arrival::Pack)
    ];
    (arrival, any::<bool>(), prop_oneof![Just(0), Just(20_000)]).prop_map(|(arrival, retry, keep)| Dfrs {
        arrival,
        retry,
        period: Some(60_000),
        keep,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn queues_promise_nothing_twice_and_start_everybody((hosts, jobs) in any_world(false), queue in queues()) {
        let policy = Policy::Queue(queue);
        let starts = run(&policy, &hosts, &jobs, true, &mut |_, _, _| {});
        prop_assert_eq!(starts.len(), jobs.len());
        prop_assert_eq!(run(&policy, &hosts, &jobs, true, &mut |_, _, _| {}), starts);
    }

    /// Who is first starts no later than it would if nobody came by, and who can pass it so does.
    #[test]
    fn who_can_passes_the_first_and_does_not_delay_it((hosts, jobs) in any_world(false), queue in queues()) {
        let (mut promised, mut began) = (BTreeMap::new(), BTreeMap::new());
        run(&Policy::Queue(queue), &hosts, &jobs, true, &mut |now, state, live| {
            began.retain(|id, _| live.contains(id));
            for id in live {
                if state.job(*id).standing == Standing::Resident && !began.contains_key(id) {
                    began.insert(*id, now);
                    let promise = promised.get(id).copied().unwrap_or(Ms::MAX);
                    assert!(now <= promise, "{id:?} was promised {promise}, and starts at {now}");
                }
            }
            let mut waiting = live.iter().filter(|id| state.job(**id).standing == Standing::Waiting);
            let Some(first) = waiting.next() else { return };
            let when = promise(now, state, live, &began, &state.job(*first).job);
            promised.entry(*first).or_insert(when);
            if queue.backfill == Backfill::Never {
                return;
            }
            for id in waiting {
                let job = &state.job(*id).job;
                let fits = promise(now, state, live, &began, job) == now;
                assert!(!fits || now + job.limit > when, "{id:?} fits, ends in time, and waits");
            }
        });
    }

    #[test]
    fn shared_memory_is_promised_once_and_everybody_ends((hosts, jobs) in any_world(true), dfrs in dfrs()) {
        let policy = Policy::Dfrs(dfrs);
        let starts = run(&policy, &hosts, &jobs, true, &mut |_, _, _| {});
        prop_assert_eq!(starts.len(), jobs.len());
        prop_assert_eq!(run(&policy, &hosts, &jobs, true, &mut |_, _, _| {}), starts);
    }
}
