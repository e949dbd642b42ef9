//! What people can rely on under sharing by levels, whatever jobs come: a small world with priorities and hosts of many
//! sizes runs them to their ends and looks at every decision.

use proptest::prelude::*;
use thiao_share::{
    Change, Event, Host, Job, JobId, Levels, Ms, Overheads, Pace, Planner, Policy, Standing, State, Verb,
};

/// Worlds of each property.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1500)
    }
}

/// More steps than any of these worlds needs: more is no end.
const MOST_STEPS: usize = 20_000;

/// More questions at one instant than it takes until nothing changes.
const MOST_ASKED: usize = 60;

/// No overhead here is longer.
const OVERHEAD: Ms = 7_000;

const OVERHEADS: Overheads = Overheads {
    boot: 3_000,
    resume: 1_000,
    restore: OVERHEAD,
    moves: 5_000,
    storage: None,
    network: None,
};

/// A job, and how long it runs.
type Told = (Job, Ms);

/// A world to be run.
#[derive(Clone)]
struct World {
    how: Levels,
    hosts: Vec<Host>,
    jobs: Vec<Told>,
    overheads: Overheads,
}

/// Short enough to be read when a property fails.
impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:?}\n{:?}", self.how, self.overheads)?;
        for host in &self.hosts {
            writeln!(f, "{host:?}")?;
        }
        for (job, run) in &self.jobs {
            writeln!(f, "{job:?}, runs {run}")?;
        }
        Ok(())
    }
}

/// How often the planner is asked at each instant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Once,
    UntilQuiet,
}

/// What was done to a job, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Record {
    done: Vec<(Ms, Verb)>,
    end: Ms,
}

impl Record {
    fn times(&self, verb: Verb) -> Vec<Ms> {
        let of = self.done.iter().filter(|(_, what)| *what == verb);
        of.map(|(when, _)| *when).collect()
    }
}

/// A world while it runs.
struct Run<'a> {
    world: &'a World,
    planner: Planner,
    now: Ms,
    live: Vec<JobId>,
    records: Vec<Record>,
}

impl World {
    /// Runs all jobs to their ends; asks once at each instant, or until nothing changes.
    fn run(&self, asked: Asked) -> Vec<Record> {
        let policy = Policy::Levels(self.how.clone());
        let mut run = Run {
            world: self,
            planner: Planner::new(&policy, self.hosts.clone(), self.overheads),
            now: 0,
            live: Vec::new(),
            records: vec![Record::default(); self.jobs.len()],
        };
        let mut come = 0;
        for _ in 0..MOST_STEPS {
            let arrival = self.jobs.get(come).map(|(job, _)| job.submit);
            let ending = run.ending().map(|(end, _)| end);
            let Some(now) = [arrival, ending, run.planner.next()].into_iter().flatten().min() else {
                assert!(run.live.is_empty(), "{:?} wait for ever", run.live);
                return run.records;
            };
            run.now = now;
            run.end_all();
            while self.jobs.get(come).is_some_and(|(job, _)| job.submit <= now) {
                let id = JobId(come as u32);
                run.planner.fold(now, Event::Submitted(id, self.jobs[come].0));
                run.live.push(id);
                come += 1;
            }
            let most = match asked {
                Asked::Once => 1,
                Asked::UntilQuiet => MOST_ASKED,
            };
            let quiet = (0..most).any(|_| run.decide() == 0);
            assert!(quiet || asked == Asked::Once, "it never comes to rest at {now}");
        }
        panic!("it comes to no end");
    }
}

impl Run<'_> {
    /// The next end of a job.
    fn ending(&self) -> Option<(Ms, JobId)> {
        let ends = self.live.iter().filter_map(|id| {
            let goal = self.world.jobs[id.index()].1;
            Some((self.planner.state().job(*id).progress.reaches(goal)?, *id))
        });
        ends.min()
    }

    fn end_all(&mut self) {
        while let Some((end, id)) = self.ending()
            && end <= self.now
        {
            assert_eq!(end, self.now, "no end is missed");
            self.planner.fold(self.now, Event::Ended(id));
            self.live.retain(|live| *live != id);
            self.records[id.index()].end = self.now;
        }
    }

    /// Says how much changed.
    fn decide(&mut self) -> usize {
        let changes: Vec<Change> = self.planner.decide(self.now).to_vec();
        let next = self.planner.next();
        assert!(next.is_none_or(|when| when > self.now), "asked again at once");
        assert!(next.is_none() || !self.live.is_empty(), "asked again for nobody");
        for change in &changes {
            let done = &mut self.records[change.job.index()].done;
            done.push((self.now, change.verb));
        }
        check(self.planner.state(), &self.live);
        changes.len()
    }
}

/// Looks at a decision: all of a job's tasks have a place or none, and no host promises what it has not.
fn check(state: &State, live: &[JobId]) {
    let mut used = vec![(0_u64, 0_u64); state.hosts().len()];
    for id in live {
        let entry = state.job(*id);
        let tasks: u32 = entry.slots.iter().map(|slot| slot.tasks).sum();
        let resident = entry.standing == Standing::Resident;
        assert_eq!(
            tasks,
            if resident { entry.job.tasks } else { 0 },
            "all tasks of {id:?} or none"
        );
        let alloc = entry.progress.alloc();
        assert!(alloc <= entry.job.cpu && (resident || alloc == 0));
        for slot in &entry.slots {
            let used = &mut used[slot.host.index()];
            used.0 += u64::from(alloc) * u64::from(slot.tasks);
            used.1 += u64::from(entry.job.memory) * u64::from(slot.tasks);
        }
    }
    for ((used, host), load) in used.into_iter().zip(state.hosts()).zip(state.loads()) {
        assert_eq!(
            used,
            (u64::from(load.cpu), u64::from(load.memory)),
            "what the state says"
        );
        assert!(used.0 <= u64::from(host.cpu), "CPU is promised twice");
        assert!(used.1 <= u64::from(host.memory), "memory is promised twice");
    }
}

prop_compose! {
    /// A job with the gap before it; its limit is right, or wrong by up to 100 times.
    fn any_job()(
        gap in prop_oneof![Just(0_u64), 0..200_000_u64],
        tasks in 1_u32..8,
        cpu in prop_oneof![Just(100_u32), 1..=100_u32],
        memory in 0_u32..=6,
        run in prop_oneof![1..20_000_u64, 1..1_000_000_u64],
        wrong in prop_oneof![Just(1_u64), 1..100_u64],
        priority in 0_u32..3,
        pausable in prop::bool::weighted(0.8),
        movable in prop::bool::weighted(0.8),
    ) -> (Ms, Told) {
        let limit = run * wrong;
        (gap, (Job { submit: 0, tasks, cpu, memory, limit, priority, pausable, movable }, run))
    }
}

fn any_pace() -> impl Strategy<Value = Pace> {
    let every = prop_oneof![Just(0), 1..100_000_u64, 1..1_000_000_u64];
    (every, 1_u32..4).prop_map(|(every, at_once)| Pace { every, at_once })
}

prop_compose! {
    /// Constants about as long as the jobs are, so that all that can come about does.
    fn any_levels()(
        first in 1..100_000_u64,
        patience in 1_u32..8,
        hold in 1..200_000_u64,
        stall in 1..200_000_u64,
        old in 1..1_000_000_u64,
        overdue in prop_oneof![1..1_000_000_u64, Just(Levels::default().overdue)],
        moves in 0_u32..6,
        pauses in any_pace(),
        saves in any_pace(),
    ) -> Levels {
        let bounds = vec![first, first * 4, first * 16];
        Levels { bounds, patience, hold, stall, old, overdue, moves, pauses, saves, ..Levels::default() }
    }
}

/// As many tasks as fit on the empty hosts.
fn most_tasks(hosts: &[Host], job: &Job) -> u32 {
    let fits =
        |host: &Host| (host.cpu / job.cpu).min(host.memory.checked_div(job.memory).unwrap_or(u32::MAX));
    hosts.iter().map(fits).sum()
}

fn any_hosts() -> impl Strategy<Value = Vec<Host>> {
    let host = (100_u32..300, 6_u32..12).prop_map(|(cpu, memory)| Host { cpu, memory });
    proptest::collection::vec(host, 1..=6)
}

/// Jobs one after the other, none of them too wide for the hosts.
fn in_turn(hosts: &[Host], drawn: Vec<(Ms, Told)>) -> Vec<Told> {
    let mut submit = 0;
    let told = drawn.into_iter().map(|(gap, (job, run))| {
        submit += gap;
        let tasks = job.tasks.min(most_tasks(hosts, &job));
        (Job { submit, tasks, ..job }, run)
    });
    told.collect()
}

/// A policy, hosts, and jobs that fit on them when they are empty.
fn any_world() -> impl Strategy<Value = World> {
    let jobs = proptest::collection::vec(any_job(), 1..=40);
    (any_levels(), any_hosts(), jobs).prop_map(|(how, hosts, drawn)| World {
        jobs: in_turn(&hosts, drawn),
        how,
        hosts,
        overheads: OVERHEADS,
    })
}

/// Worlds whose overheads hang on memory, too.
fn with_storage() -> impl Strategy<Value = World> {
    let rate = || prop_oneof![Just(None), (1_u64..4).prop_map(Some)];
    (any_world(), rate(), rate()).prop_map(|(world, storage, network)| World {
        overheads: Overheads {
            storage,
            network,
            ..OVERHEADS
        },
        ..world
    })
}

/// Whether something was done at most `at_once` times, and once more for each `every`, in whatever span.
fn follows(times: &[Ms], pace: Pace) -> bool {
    let at_once = pace.at_once as usize;
    (0..times.len()).all(|from| {
        (from + at_once..times.len())
            .all(|to| times[to] - times[from] >= pace.every * (to - from + 1 - at_once) as Ms)
    })
}

/// For how long a job that attains so much is on its way at full speed: each thing that is done to it costs one
/// overhead at most.
fn span(attains: Ms, record: &Record) -> Ms {
    attains + OVERHEAD * record.done.len() as Ms
}

proptest! {
    #![proptest_config(config())]

    /// Everybody starts and ends; each decision is looked at on the way, see [`check`]; the same once more is the same.
    #[test]
    fn nothing_is_promised_twice_and_everybody_ends(world in with_storage()) {
        let records = world.run(Asked::Once);
        for record in &records {
            prop_assert_eq!(record.done.first().map(|(_, verb)| *verb), Some(Verb::Start));
            prop_assert!(record.end > 0);
        }
        prop_assert_eq!(world.run(Asked::Once), records);
    }

    /// All jobs end at most so long after the last was submitted as all of them would run one after the other,
    /// `last submit + sum of (run + overheads)`: at any time whoever is first runs at full speed, or waits for an
    /// overhead.
    #[test]
    fn all_is_done_as_soon_as_one_after_the_other(world in any_world()) {
        let records = world.run(Asked::Once);
        let last = world.jobs.last().map_or(0, |(job, _)| job.submit);
        let spans = world.jobs.iter().zip(&records).map(|((_, run), record)| span(*run, record));
        let bound = last + spans.sum::<Ms>();
        let end = records.iter().map(|record| record.end).max();
        prop_assert!(end <= Some(bound), "{end:?} is after {bound}");
    }

    /// Pauses and saves follow their paces; moves come one for each stall, and no more than there may be.
    #[test]
    fn nobody_is_disturbed_more_often_than_was_said(world in any_world()) {
        let how = &world.how;
        for record in world.run(Asked::Once) {
            let pauses = record.times(Verb::Pause);
            prop_assert!(follows(&pauses, how.pauses), "pauses at {pauses:?}");
            let saves = record.times(Verb::Save);
            prop_assert!(follows(&saves, how.saves), "saves at {saves:?}");
            let moves = record.times(Verb::Move);
            prop_assert!(follows(&moves, Pace { every: how.stall, at_once: 1 }), "moves at {moves:?}");
            prop_assert!(moves.len() <= how.moves as usize);
        }
    }

    /// Who may not be paused is neither paused nor saved; who may not be moved is not.
    #[test]
    fn what_may_not_be_done_is_not_done(world in any_world()) {
        for ((job, _), record) in world.jobs.iter().zip(world.run(Asked::Once)) {
            let none = |verb| record.times(verb).is_empty();
            prop_assert!(job.pausable || none(Verb::Pause) && none(Verb::Save), "{:?}", record);
            prop_assert!(job.movable || none(Verb::Move), "{:?}", record);
        }
    }

    /// With one job it is as if nobody shared.
    #[test]
    fn who_is_alone_runs_at_once_at_full_speed(world in any_world()) {
        let one = World { jobs: world.jobs[..1].to_vec(), ..world };
        let (job, run) = one.jobs[0];
        let record = Record { done: vec![(job.submit, Verb::Start)], end: job.submit + OVERHEADS.boot + run };
        prop_assert_eq!(one.run(Asked::Once), [record]);
    }

    /// Who asks again at the same instant may hear more, since who runs is before who waits, and what a pause or a save
    /// freed is there to be taken; but it comes to rest, and what holds of one question holds of many.
    #[test]
    fn asked_again_and_again_it_comes_to_rest(world in any_world()) {
        let records = world.run(Asked::UntilQuiet);
        for ((job, _), record) in world.jobs.iter().zip(&records) {
            prop_assert!(follows(&record.times(Verb::Pause), world.how.pauses), "{record:?}");
            prop_assert!(follows(&record.times(Verb::Save), world.how.saves), "{record:?}");
            prop_assert!(job.pausable || record.times(Verb::Pause).is_empty(), "{record:?}");
        }
    }
}

prop_compose! {
    /// A wide job, and then many that are not: who came first has the worst of it.
    fn late_world()(
        world in any_world(),
        wide in any_job(),
        stream in proptest::collection::vec(any_job(), 10..30),
        tight in any::<bool>(),
        overdue in 1..100_000_u64,
    ) -> World {
        let World { mut how, hosts, .. } = world;
        how.overdue = overdue;
        how.patience = how.patience.min(2);
        let mut drawn = vec![(wide.0, (Job { tasks: 8, limit: wide.1.1, ..wide.1.0 }, wide.1.1))];
        drawn.extend(stream.into_iter().map(|(gap, (job, run))| {
            let limit = if tight { run } else { job.limit };
            (gap, (Job { limit, ..job }, run))
        }));
        World { jobs: in_turn(&hosts, drawn), how, hosts, overheads: OVERHEADS }
    }
}

proptest! {
    #![proptest_config(config())]

    /// Nobody is kept waiting by those who come later, unless they may not be paused: a job ends at most at
    ///
    /// `submit + patience * limit + overdue + sum of (limit + overheads) + n * (pauses.every + saves.every)`
    ///
    /// where the sum is over the job itself, those that came before it, and those that may not be paused; and `n` is
    /// one more than how many came before it. For once it is overdue, either it runs, or one that came before it does
    /// and is overdue, too, or somebody is in the way of the first of them: who may not be paused at all, or who was
    /// paused or saved so often that this may not be done again until one `every` is over. Nobody new comes in its way.
    #[test]
    fn nobody_waits_for_ever_for_those_who_come_later(world in late_world()) {
        let records = world.run(Asked::Once);
        let how = &world.how;
        let spans: Vec<Ms> = world.jobs.iter().zip(&records).map(|((job, _), record)| span(job.limit, record)).collect();
        for (at, ((job, _), record)) in world.jobs.iter().zip(&records).enumerate() {
            let overdue = job.submit + job.limit * Ms::from(how.patience) + how.overdue;
            let paces = (how.pauses.every + how.saves.every) * (at + 1) as Ms;
            let late = world.jobs[at + 1..].iter().zip(&spans[at + 1..]);
            let fixed = late.filter(|((other, _), _)| !other.pausable).map(|(_, span)| span);
            let bound = overdue + paces + spans[..=at].iter().chain(fixed).sum::<Ms>();
            prop_assert!(record.end <= bound, "{at} ends at {}, after {bound}", record.end);
        }
    }
}

/// One task that uses all of a host.
const ONE: Job = Job {
    submit: 0,
    tasks: 1,
    cpu: 100,
    memory: 0,
    limit: 1_000_000,
    priority: 0,
    pausable: true,
    movable: false,
};

/// Hosts that one task fills, and jobs that are paused once in a minute at most.
fn small_world(hosts: usize, jobs: Vec<Told>) -> World {
    let how = Levels {
        bounds: vec![10_000],
        patience: 1,
        overdue: 1,
        pauses: Pace {
            every: 60_000,
            at_once: 1,
        },
        ..Levels::default()
    };
    let hosts = vec![Host { cpu: 100, memory: 1 }; hosts];
    World {
        how,
        hosts,
        jobs,
        overheads: Overheads::default(),
    }
}

/// Who was paused as often as may be, and came back with half of the CPU, must not take the other half from somebody
/// who keeps what it has, too.
#[test]
fn of_two_who_keep_what_they_have_none_grows_at_the_others_cost() {
    let fixed = Job {
        pausable: false,
        ..ONE
    };
    let world = small_world(
        1,
        vec![
            (ONE, 900_000),
            (
                Job {
                    submit: 20_000,
                    ..fixed
                },
                5_000,
            ),
            (
                Job {
                    submit: 25_000,
                    cpu: 50,
                    ..fixed
                },
                50_000,
            ),
            (
                Job {
                    submit: 30_000,
                    ..ONE
                },
                1,
            ),
        ],
    );
    let records = world.run(Asked::Once);
    assert_eq!(records[2].done, [(25_000, Verb::Start)]);
    assert_eq!(records[2].end, 75_000);
}

/// Two long jobs are paused again and again for short ones, but never both at once, and neither may be paused just
/// after: who needs both hosts comes to its turn all the same.
#[test]
fn a_wide_job_is_not_kept_waiting_by_pauses_that_come_too_often() {
    let mut jobs = vec![(ONE, 900_000_000), (ONE, 900_000_000)];
    jobs.push((
        Job {
            submit: 20_000,
            limit: 1_000,
            ..ONE
        },
        1_000,
    ));
    jobs.push((
        Job {
            submit: 50_000,
            limit: 1_000,
            ..ONE
        },
        1_000,
    ));
    let wide = jobs.len();
    jobs.push((
        Job {
            submit: 60_000,
            tasks: 2,
            limit: 10_000,
            ..ONE
        },
        10_000,
    ));
    for n in 0..1000 {
        jobs.push((
            Job {
                submit: 80_000 + n * 30_000,
                limit: 1_000,
                ..ONE
            },
            1_000,
        ));
    }
    let records = small_world(2, jobs).run(Asked::Once);
    assert!(records[wide].end < 300_000, "it ends at {}", records[wide].end);
}

/// The same when nothing happens meanwhile: the planner asks for the moment from which the long job may be paused again.
#[test]
fn who_is_overdue_has_its_turn_as_soon_as_others_may_be_paused_again() {
    let short = |submit| Job {
        submit,
        limit: 1_000,
        ..ONE
    };
    let jobs = vec![(ONE, 900_000_000), (short(20_000), 1_000), (short(60_000), 1_000)];
    let records = small_world(1, jobs).run(Asked::Once);
    assert_eq!(records[2].done, [(80_000, Verb::Start)]);
}
