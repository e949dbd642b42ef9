use crate::store::Store;
use thiao_core::ids::{JobId, Time};
use thiao_core::journal::{Entry, Journal as _};

fn save(store: &mut Store, tasks: &[(u32, u32, u32)], now: u64) {
    let tasks = tasks.iter();
    let round = Entry {
        tasks: tasks
            .map(|(job, array, task)| (JobId(*job), (JobId(*array), *task)))
            .collect(),
        // What is told of them.
        ended: vec![(1, "done".to_owned())],
        ..Entry::default()
    };
    store.save(&Default::default(), &round, Time(now)).unwrap();
}

#[test]
fn tasks_are_known_by_their_names_until_they_are_old() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("thiao.db");
    let mut store = Store::open(&path).unwrap();
    save(&mut store, &[(11, 10, 1), (12, 10, 2)], 1_000);
    save(&mut store, &[], 2_000);
    save(&mut store, &[(12, 10, 2), (13, 10, 3)], 3_000);
    drop(store);
    let mut store = Store::open(&path).unwrap();
    let job = |store: &Store, task| store.past().job_of_task(JobId(10), task).unwrap();
    assert_eq!(job(&store, 1), Some(JobId(11)));
    assert_eq!(job(&store, 4), None);
    assert_eq!(store.past().task_of_job(JobId(13)).unwrap(), Some((JobId(10), 3)));
    assert_eq!(store.past().task_of_job(JobId(10)).unwrap(), None);
    // Slurm began to count anew: the newest holds.
    save(&mut store, &[(5, 10, 1)], 4_000);
    assert_eq!(job(&store, 1), Some(JobId(5)));
    store.prune(Time(3_500)).unwrap();
    let known: Vec<_> = (1..4).map(|task| job(&store, task)).collect();
    assert_eq!(known, [Some(JobId(5)), None, None]);
}
