use super::*;
use crate::engine::Ended;
use proptest::prelude::*;
use thiao_share::Host;

fn job(submit: u64, run: u64, tasks: u32, user: u32) -> TraceJob {
    TraceJob {
        id: submit + 1,
        submit,
        run,
        tasks,
        cpu: 1,
        memory: 0,
        limit: run,
        user,
        partition: 0,
        wait: None,
        efficiency: 1000,
    }
}

fn workload(jobs: Vec<TraceJob>) -> Workload {
    Workload {
        name: "w".into(),
        hosts: 8,
        host: Host { cpu: 1, memory: 1 },
        jobs,
    }
}

/// Each job starts so many seconds after it came, and ends so many after that.
fn outcome(workload: &Workload, times: &[(u64, u64)]) -> Outcome {
    let jobs = workload.jobs.iter().zip(times).map(|(job, (wait, takes))| {
        let start = (job.submit + wait) * 1000;
        Ended {
            start,
            end: start + takes * 1000,
            ..Ended::default()
        }
    });
    Outcome {
        jobs: jobs.collect(),
        ..Outcome::default()
    }
}

fn figures(workload: &Workload, outcome: &Outcome, reference: &Outcome) -> Figures {
    Figures::of(&[Part {
        workload,
        outcome,
        reference,
    }])
}

#[test]
fn stretch_is_bounded_on_both_sides() {
    let of = |run, wait, takes| {
        let workload = workload(vec![job(5, run, 1, 0)]);
        OneJob::of(&workload.jobs[0], &outcome(&workload, &[(wait, takes)]).jobs[0])
    };
    // A job of a second that waited for 19 is 20 s of 10.
    assert_eq!(of(1, 19, 1).stretch, 2.0);
    assert_eq!(of(1, 0, 1).stretch, 1.0);
    assert_eq!(of(0, 0, 0).stretch, 1.0);
    let paused = of(100, 50, 150);
    assert_eq!(
        (paused.stretch, paused.turnaround, paused.wait, paused.start),
        (2.0, 200.0, 100.0, 50.0)
    );
}

#[test]
fn ranks_are_values_that_occur() {
    let jobs: Vec<_> = (0..200).map(|submit| job(submit, 10, 1, 0)).collect();
    let workload = workload(jobs);
    // Stretches of 1 to 200.
    let times: Vec<_> = (0..200).map(|at| (10 * at, 10)).collect();
    let outcome = outcome(&workload, &times);
    let all = figures(&workload, &outcome, &outcome).all;
    assert_eq!(
        (all.jobs, all.median_stretch, all.p99_stretch, all.max_stretch),
        (200, 100.0, 198.0, 200.0)
    );
    assert_eq!(
        (all.mean_stretch, all.turnaround_ratio, all.later),
        (100.5, 1.0, 0.0)
    );
    assert_eq!(
        (all.median_wait, all.mean_wait, all.mean_start),
        (990.0, 995.0, 995.0)
    );
}

#[test]
fn weeks_are_those_of_the_submission_in_each_part() {
    let workload = workload(vec![
        job(0, 10, 1, 0),
        job(WEEK - 1, 10, 1, 0),
        job(WEEK, 10, 1, 0),
    ]);
    let now = outcome(&workload, &[(0, 10), (10, 10), (30, 10)]);
    let then = outcome(&workload, &[(10, 10), (10, 10), (10, 10)]);
    let part = Part {
        workload: &workload,
        outcome: &now,
        reference: &then,
    };
    let one = Figures::of(&[part]);
    // Greatest stretches 2 and 4; 30 s against 40 s, and 40 s against 20 s.
    assert_eq!(
        (one.weeks, one.mean_weekly_max_stretch, one.worst_week_ratio),
        (2, 3.0, 2.0)
    );
    assert_eq!(one.all.later, 1.0 / 3.0);
    let two = Figures::of(&[part, part]);
    assert_eq!((two.weeks, two.all.jobs, two.worst_week_ratio), (4, 6, 2.0));
    assert_eq!(two.utilisation, one.utilisation);
}

#[test]
fn moves_and_saves_of_one_job_count_together() {
    let workload = workload(vec![job(0, 10, 8, 0), job(0, 10, 4, 0)]);
    let mut now = outcome(&workload, &[(0, 10), (0, 20)]);
    (now.jobs[0].saves, now.jobs[0].moves, now.jobs[0].pauses) = (2, 3, 9);
    now.jobs[1].moves = 4;
    now.wanted = 180_000;
    let figures = figures(&workload, &now, &now);
    assert_eq!(
        (figures.most_moves, figures.saves_per_job, figures.moves_per_job),
        (5, 1.0, 3.5)
    );
    assert_eq!(figures.pauses_per_job, 4.5);
    // 120 CPU seconds of 8 CPUs in 20 s; 180 could have been used.
    assert_eq!((figures.utilisation, figures.underutilisation), (0.75, 0.5));
}

#[test]
fn jobs_are_of_one_class_and_one_user() {
    let jobs = vec![
        job(0, 599, 1, 7),
        job(0, 600, 1, 7),
        job(0, 3600, 1, 9),
        job(0, 3600, 2, 7),
    ];
    let workload = workload(jobs);
    let now = outcome(&workload, &[(0, 599), (0, 600), (0, 3600), (0, 3600)]);
    let figures = figures(&workload, &now, &now);
    let jobs = |groups: &[Group]| groups.iter().map(|group| group.jobs).collect::<Vec<_>>();
    assert_eq!(jobs(&figures.classes), [1, 1, 1, 0, 0, 1]);
    assert_eq!(jobs(&figures.lengths), [1, 1, 2]);
    let users: Vec<_> = figures
        .users
        .iter()
        .map(|(user, group)| (*user, group.jobs))
        .collect();
    assert_eq!(users, [(7, 3), (9, 1)]);
    for (at, class) in Class::ALL.iter().enumerate() {
        assert_eq!(class.index(), at);
    }
    assert_eq!(Class::ALL[3].name(), "short wide");
}

#[test]
fn nothing_is_no_error() {
    let workload = workload(Vec::new());
    let figures = figures(&workload, &Outcome::default(), &Outcome::default());
    assert_eq!(
        (
            figures.all.jobs,
            figures.all.mean_stretch,
            figures.worst_week_ratio
        ),
        (0, 1.0, 1.0)
    );
    assert_eq!((figures.utilisation, figures.mean_weekly_max_stretch), (0.0, 1.0));
    assert_eq!(Figures::of(&[]), figures);
}

proptest! {
    /// Whatever became of the jobs, the figures are in order, and groups make up the whole.
    #[test]
    fn figures_are_in_order(
        jobs in prop::collection::vec(
            (0_u64..3 * WEEK, 0_u64..100_000, 1_u32..9, 0_u32..5, 0_u64..50_000, 0_u64..50_000, 0_u64..50_000),
            1..60,
        ),
    ) {
        let mut jobs = jobs;
        jobs.sort();
        let workload = workload(jobs.iter().map(|j| job(j.0, j.1, j.2, j.3)).collect());
        let times: Vec<_> = jobs.iter().map(|j| (j.4, j.1 + j.5)).collect();
        let others: Vec<_> = jobs.iter().map(|j| (j.6, j.1)).collect();
        let (now, then) = (outcome(&workload, &times), outcome(&workload, &others));
        let figures = figures(&workload, &now, &then);
        let all = &figures.all;
        let ranks = [1.0, all.median_stretch, all.p99_stretch, all.max_stretch];
        prop_assert!(ranks.is_sorted(), "{ranks:?}");
        prop_assert!(all.mean_stretch >= 1.0 && all.mean_stretch <= all.max_stretch + 1e-9);
        prop_assert!(all.mean_turnaround <= all.p99_turnaround || all.jobs > 1);
        prop_assert!((0.0..=1.0).contains(&all.later));
        prop_assert!(figures.utilisation >= 0.0 && figures.mean_weekly_max_stretch <= all.max_stretch + 1e-9);
        // The whole is not worse than its worst week, nor better than its best.
        prop_assert!(all.turnaround_ratio <= figures.worst_week_ratio + 1e-9);
        for groups in [&figures.classes, &figures.lengths, &figures.users.iter().map(|u| u.1.clone()).collect()] {
            prop_assert_eq!(groups.iter().map(|group| group.jobs).sum::<usize>(), all.jobs);
            let stretch: f64 = groups.iter().map(|group| group.mean_stretch * group.jobs as f64).sum();
            prop_assert!((stretch / all.jobs as f64 - all.mean_stretch).abs() < 1e-6 * all.mean_stretch);
            let greatest = groups.iter().filter(|g| g.jobs > 0).map(|group| group.max_stretch).fold(1.0, f64::max);
            prop_assert_eq!(greatest, all.max_stretch);
        }
        // Against itself everything is 1, and nobody is later.
        let same = Figures::of(&[Part { workload: &workload, outcome: &now, reference: &now }]);
        prop_assert_eq!((same.all.turnaround_ratio, same.worst_week_ratio, same.all.later), (1.0, 1.0, 0.0));
    }
}
