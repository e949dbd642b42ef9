use super::*;
use crate::store::Store;
use thiao_core::journal::{Entry, Journal as _};
use thiao_core::stays::Stay;
use thiao_core::table::Table;

fn stay(job: u32, uid: u32, node: &str, generation: u64, host: Option<&str>) -> Stay {
    Stay {
        job: JobId(job),
        uid,
        node: NodeName::new(node).unwrap(),
        generation: Generation(generation),
        host: host.map(|host| HostName::new(host).unwrap()),
        over: false,
    }
}

fn save(store: &mut Store, moves: Moves, now: u64) {
    let round = Entry {
        moves,
        tasks: [(JobId(12), (JobId(8), 2))].into(),
        ..Entry::default()
    };
    store.save(&Table::new(), &round, Time(now)).unwrap();
}

fn begun(stays: &[Stay]) -> Moves {
    Moves {
        begun: stays.to_vec(),
        ..Moves::default()
    }
}

#[test]
fn a_jobs_vms_are_known_when_it_is_over_and_the_next_controller_ends_what_it_does_not_see() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("thiao.db")).unwrap();
    save(
        &mut store,
        begun(&[stay(12, 1000, "a", 3, None), stay(12, 1000, "b", 1, Some("h"))]),
        10,
    );
    save(
        &mut store,
        begun(&[
            stay(12, 1000, "a", 3, Some("h")),
            stay(13, 1001, "a", 3, Some("h")),
        ]),
        20,
    );
    let [first, second] = &store.past().stays_of_job(JobId(12)).unwrap()[..] else {
        panic!("two nodes")
    };
    assert_eq!(
        (first.vm.as_str(), first.host.as_deref(), first.began, first.ended),
        ("a.3", Some("h"), 10, None)
    );
    assert_eq!((second.vm.as_str(), first.slurm_name().as_str()), ("b.1", "8_2"));
    let users = store
        .past()
        .users_of_vm(&NodeName::new(&first.node).unwrap(), Generation(3))
        .unwrap();
    assert_eq!(users, [1000, 1001]);
    let left = Moves {
        left: vec![JobId(12)],
        ..Moves::default()
    };
    save(&mut store, left, 30);
    let all = Moves {
        all: true,
        ..begun(&[stay(14, 1000, "c", 1, None)])
    };
    save(&mut store, all, 40);
    let which = |since, of| Which {
        since: Time(since),
        of,
        after: 0,
        limit: 10,
    };
    let of_jobs = |which| -> Vec<(u32, Option<u64>)> {
        let stays = store.past().stays_of_jobs(which).unwrap();
        stays.into_iter().map(|stay| (stay.job, stay.ended)).collect()
    };
    assert_eq!(
        of_jobs(which(0, None)),
        [(12, Some(30)), (12, Some(30)), (13, Some(40)), (14, None)]
    );
    assert_eq!(of_jobs(which(35, None)), [(13, Some(40)), (14, None)]);
    assert_eq!(of_jobs(which(0, Some(1001))), [(13, Some(40))]);
    store.prune(Time(35)).unwrap();
    assert!(store.past().stays_of_job(JobId(12)).unwrap().is_empty());
}
