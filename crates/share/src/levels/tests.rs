//! One situation each, as small as can be.

use crate::{Event, Host, Job, JobId, Levels, Ms, Overheads, Pace, Planner, Policy, Standing, Verb};

const HOUR: Ms = 3_600_000;

/// Hosts of one core and four parts of memory.
struct Cluster {
    planner: Planner,
    now: Ms,
}

impl Cluster {
    fn new(hosts: usize) -> Self {
        Self::with(hosts, Levels::default())
    }

    fn with(hosts: usize, how: Levels) -> Self {
        let policy = Policy::Levels(how);
        let planner = Planner::new(
            &policy,
            vec![Host { cpu: 100, memory: 4 }; hosts],
            Overheads::default(),
        );
        Self { planner, now: 0 }
    }

    fn submit(&mut self, id: u32, tasks: u32, memory: u32, limit: Ms) {
        self.submit_job(
            id,
            Job {
                memory,
                ..job(self.now, tasks, limit)
            },
        );
    }

    fn submit_job(&mut self, id: u32, job: Job) {
        self.planner.fold(self.now, Event::Submitted(JobId(id), job));
        self.planner.decide(self.now);
    }

    fn end(&mut self, id: u32) -> Vec<(u32, Verb)> {
        self.planner.fold(self.now, Event::Ended(JobId(id)));
        self.decide()
    }

    fn decide(&mut self) -> Vec<(u32, Verb)> {
        self.planner
            .decide(self.now)
            .iter()
            .map(|change| (change.job.0, change.verb))
            .collect()
    }

    /// Time passes, and the planner is asked whenever it wants to be.
    fn pass(&mut self, span: Ms) {
        let end = self.now + span;
        while let Some(next) = self.planner.next().filter(|next| *next <= end) {
            self.now = next;
            self.planner.decide(self.now);
        }
        self.now = end;
        self.planner.decide(self.now);
    }

    fn runs(&self, id: u32) -> bool {
        self.planner.state().job(JobId(id)).runs()
    }

    fn standing(&self, id: u32) -> Standing {
        self.planner.state().job(JobId(id)).standing
    }
}

fn job(submit: Ms, tasks: u32, limit: Ms) -> Job {
    Job {
        submit,
        tasks,
        cpu: 100,
        memory: 1,
        limit,
        priority: 0,
        pausable: true,
        movable: true,
    }
}

#[test]
fn a_newcomer_has_the_cpu_of_who_ran_for_long_and_gives_it_back() {
    let mut cluster = Cluster::new(1);
    cluster.submit(1, 1, 1, 100 * HOUR);
    cluster.pass(2 * HOUR);
    cluster.submit(2, 1, 1, HOUR);
    assert!(cluster.runs(2) && !cluster.runs(1));
    assert_eq!(
        cluster.standing(1),
        Standing::Resident,
        "it is paused where it is"
    );
    cluster.pass(60_000);
    assert_eq!(cluster.end(2), [(1, Verb::Resume)]);
}

#[test]
fn nobody_gives_way_to_who_is_no_better() {
    let mut cluster = Cluster::new(1);
    cluster.submit(1, 1, 1, 100 * HOUR);
    cluster.pass(60_000);
    cluster.submit(2, 1, 1, 100 * HOUR);
    assert!(cluster.runs(1) && !cluster.runs(2));
    cluster.pass(240_000);
    assert!(
        !cluster.runs(1) && cluster.runs(2),
        "the first has had its five minutes"
    );
}

#[test]
fn who_came_first_yields_to_priority_within_a_level() {
    let mut cluster = Cluster::new(1);
    cluster.submit(1, 1, 1, HOUR);
    cluster.submit(2, 1, 1, HOUR);
    cluster.submit_job(
        3,
        Job {
            priority: 9,
            ..job(0, 1, HOUR)
        },
    );
    cluster.pass(60_000);
    cluster.end(1);
    assert!(cluster.runs(3) && !cluster.runs(2));
}

#[test]
fn memory_is_taken_from_those_of_a_worse_level_alone() {
    let mut cluster = Cluster::new(1);
    cluster.submit(1, 1, 4, 100 * HOUR);
    cluster.pass(60_000);
    cluster.submit(2, 1, 4, HOUR);
    assert_eq!(cluster.standing(2), Standing::Waiting);
    cluster.pass(10 * 60_000);
    assert_eq!(
        (cluster.standing(1), cluster.standing(2)),
        (Standing::Saved, Standing::Resident)
    );
    assert_eq!(cluster.end(2), [(1, Verb::Restore)]);
}

#[test]
fn no_more_is_saved_than_a_newcomer_needs() {
    let mut cluster = Cluster::new(1);
    for id in 1..=4 {
        cluster.submit(id, 1, 1, 100 * HOUR);
        cluster.pass(2 * HOUR);
    }
    cluster.submit(5, 1, 2, HOUR);
    let saved = (1..=4)
        .filter(|id| cluster.standing(*id) == Standing::Saved)
        .count();
    assert_eq!((saved, cluster.runs(5)), (2, true));
}

#[test]
fn who_stands_still_for_long_moves_to_where_nobody_is() {
    let mut cluster = Cluster::new(2);
    for id in [1, 2] {
        cluster.submit(id, 1, 1, 100 * HOUR);
    }
    cluster.pass(2 * HOUR);
    cluster.submit(3, 1, 1, 100 * HOUR);
    let paused = if cluster.runs(1) { 2 } else { 1 };
    // The host of the one that runs becomes idle.
    cluster.pass(60_000);
    assert_eq!(cluster.end(3 - paused), [], "it may soon have its own back");
    cluster.pass(300_000);
    assert!(cluster.runs(paused) && cluster.planner.state().job(JobId(paused)).moves == 1);
}

#[test]
fn what_may_not_be_paused_runs_to_its_end() {
    let mut cluster = Cluster::new(1);
    cluster.submit_job(
        1,
        Job {
            pausable: false,
            ..job(0, 1, 100 * HOUR)
        },
    );
    for id in 2..50 {
        cluster.pass(HOUR);
        cluster.submit(id, 1, 1, 60_000);
        assert!(cluster.runs(1) && !cluster.runs(id));
    }
}

#[test]
fn a_wide_job_is_not_kept_waiting_by_an_endless_stream_of_short_ones() {
    let often = Pace { every: 0, at_once: 1 };
    let how = Levels {
        pauses: often,
        ..Levels::default()
    };
    let due = 8 * HOUR + how.overdue;
    let mut cluster = Cluster::with(2, how);
    cluster.submit(0, 2, 1, HOUR);
    cluster.pass(600_000);
    let mut id = 1;
    let mut running = Vec::new();
    // Two short jobs at a time, without a gap: whoever was there first is never first in its level.
    while !cluster.runs(0)
        || cluster
            .planner
            .state()
            .job(JobId(0))
            .progress
            .attained(cluster.now)
            < HOUR / 2
    {
        assert!(cluster.now < due + 2 * HOUR, "it waits for ever");
        for over in std::mem::take(&mut running) {
            cluster.end(over);
        }
        for _ in 0..2 {
            cluster.submit(id, 1, 1, 60_000);
            running.push(id);
            id += 1;
        }
        cluster.pass(59_000);
    }
    assert!(
        cluster.now > 30 * 24 * HOUR,
        "short jobs have no use of their level"
    );
}

#[test]
fn what_is_seen_of_a_job_takes_the_place_of_what_was_reckoned() {
    let overheads = Overheads {
        boot: 60_000,
        ..Overheads::default()
    };
    let policy = Policy::Levels(Levels::default());
    let mut planner = Planner::new(&policy, vec![Host { cpu: 100, memory: 4 }], overheads);
    planner.fold(0, Event::Submitted(JobId(0), job(0, 1, HOUR)));
    planner.decide(0);
    assert_eq!(
        planner.next(),
        Some(60_000 + 240_000),
        "the first level is over after a boot and four minutes"
    );
    planner.fold(10_000, Event::Started(JobId(0)));
    planner.decide(10_000);
    assert_eq!(planner.next(), Some(10_000 + 240_000), "it booted in ten seconds");
    planner.fold(20_000, Event::Measured(JobId(0), 100_000));
    planner.decide(20_000);
    assert_eq!(
        planner.next(),
        Some(20_000 + 140_000),
        "it was quicker than anybody thought"
    );
    planner.fold(20_000, Event::Ended(JobId(0)));
    for event in [
        Event::Started(JobId(0)),
        Event::Measured(JobId(0), 1),
        Event::Ended(JobId(0)),
    ] {
        planner.fold(20_000, event);
    }
    assert_eq!(planner.decide(20_000), []);
}
