use super::*;
use crate::store::Store;
use thiao_core::ids::Generation;
use thiao_core::journal::{Entry, Journal as _};
use thiao_core::options::VmOptions;
use thiao_core::table::Table;
use thiao_core::view::Shape;
use thiao_core::vm::{Cause, Life};
use thiao_core::world::NodeRecord;

fn node() -> NodeName {
    NodeName::new("s1").unwrap()
}

const ASKED: (Life, Registration) = (Life::Asked, Registration::NotYet);
const BOOTING: (Life, Registration) = (Life::Booting, Registration::NotYet);
const READY: (Life, Registration) = (Life::Running, Registration::GuestReady);
const UP: (Life, Registration) = (Life::Running, Registration::Registered);

/// Records with one VM of `s1`, in a state that began then.
fn records(
    job: u32,
    generation: u64,
    state: (Life, Registration),
    since: u64,
) -> Table<NodeName, NodeRecord> {
    let vm = VmRecord {
        generation: Generation(generation),
        id: None,
        host: Some(HostName::new("a").unwrap()),
        spec: Some(VmSpec {
            shape: Shape {
                cpus: 2,
                memory_mb: 500,
                share_percent: 50,
            },
            gpus: 1,
            job: Some(JobId(job)),
            owner: None,
            options: VmOptions::default(),
        }),
        life: state.0,
        registration: state.1,
        asked: Time(1_000),
        since: Time(since),
        aside: Default::default(),
        missing_since: None,
        kept: None,
        starts: Default::default(),
    };
    let record = NodeRecord {
        vm: Some(vm),
        ..NodeRecord::default()
    };
    [(node(), record)].into()
}

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("thiao.db")).unwrap();
    store.load().unwrap();
    (dir, store)
}

fn save(store: &mut Store, records: &Table<NodeName, NodeRecord>, now: u64) {
    let round = Entry {
        owners: [(JobId(17), 1001)].into(),
        ..Entry::default()
    };
    store.save(records, &round, Time(now)).unwrap();
}

fn times(vm: &JobVm) -> [Option<u64>; 4] {
    [vm.started, vm.ready, vm.up, vm.ended]
}

const NOW: Time = Time(3_600_000 + 2_000);

#[test]
fn a_jobs_vm_is_followed_through_its_phases() {
    let (_dir, mut store) = open();
    let cause = Cause::Ordered;
    let ordered = (Life::Ending { cause }, Registration::Registered);
    save(&mut store, &records(17, 3, ASKED, 1_000), 1_001);
    let asked = &store.past().vms_of_job(JobId(17), NOW).unwrap()[0];
    assert_eq!((asked.asked, times(asked)), (1_000, [None; 4]));
    assert_eq!(asked.core_hours, 0.0);
    for (state, since) in [
        (BOOTING, 2_000),
        (READY, 3_000),
        (UP, 4_000),
        // Its node was away for a while: the first time holds.
        (READY, 4_500),
        (UP, 4_600),
        (ordered, 5_000),
    ] {
        save(&mut store, &records(17, 3, state, since), since + 1);
    }
    let vms = store.past().vms_of_job(JobId(17), NOW).unwrap();
    let [vm] = vms.as_slice() else { panic!("{vms:?}") };
    assert_eq!(times(vm), [Some(2_000), Some(3_000), Some(4_000), None]);
    assert_eq!(
        (
            vm.job,
            vm.uid,
            vm.node.as_str(),
            vm.vm.as_str(),
            vm.host.as_deref()
        ),
        (17, Some(1001), "s1", "s1.3", Some("a"))
    );
    assert_eq!(
        (vm.cpus, vm.memory_mb, vm.share_percent, vm.gpus),
        (2, 500, 50, 1)
    );
    assert_eq!(vm.core_hours, 1.0, "2 vCPUs of half a core, for an hour");
    // Gone.
    save(&mut store, &[(node(), NodeRecord::default())].into(), 6_000);
    let vm = &store.past().vms_of_job(JobId(17), NOW).unwrap()[0];
    assert_eq!(vm.ended, Some(6_000));
    assert!(vm.core_hours < 0.01);
}

#[test]
fn a_vm_ends_when_another_follows_and_when_its_node_leaves() {
    let (_dir, mut store) = open();
    save(&mut store, &records(17, 3, UP, 2_000), 2_001);
    // The job was requeued and got another; then another job did.
    save(&mut store, &records(17, 4, ASKED, 3_000), 3_001);
    save(&mut store, &records(18, 5, BOOTING, 4_000), 4_001);
    let ended = |store: &Store, job| -> Vec<Option<u64>> {
        let vms = store.past().vms_of_job(JobId(job), NOW).unwrap();
        vms.iter().map(|vm| vm.ended).collect()
    };
    assert_eq!(ended(&store, 17), [Some(3_001), Some(4_001)]);
    assert_eq!(ended(&store, 18), [None]);
    save(&mut store, &Table::new(), 5_000);
    assert_eq!(ended(&store, 18), [Some(5_000)]);
    // Whose job 18 is nobody has seen.
    assert_eq!(store.past().vms_of_job(JobId(18), NOW).unwrap()[0].uid, None);
}

#[test]
fn a_restart_in_between_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("thiao.db");
    let mut store = Store::open(&path).unwrap();
    save(&mut store, &records(17, 3, UP, 2_000), 2_001);
    let mut store = Store::open(&path).unwrap();
    let mut kept = store.load().unwrap();
    kept.get_mut(&node()).unwrap().vm = None;
    save(&mut store, &kept, 3_000);
    let vms = store.past().vms_of_job(JobId(17), NOW).unwrap();
    assert_eq!(
        vms.iter().map(times).collect::<Vec<_>>(),
        [[Some(2_000), None, Some(2_000), Some(3_000)]]
    );
}

#[test]
fn vms_of_no_job_are_not_counted() {
    let (_dir, mut store) = open();
    let mut plain = records(17, 3, UP, 2_000);
    let vm = plain.get_mut(&node()).unwrap().vm.as_mut().unwrap();
    vm.spec.as_mut().unwrap().job = None;
    save(&mut store, &plain, 2_001);
    plain.get_mut(&node()).unwrap().vm.as_mut().unwrap().spec = None;
    save(&mut store, &plain, 2_002);
    assert!(store.past().vms_of_jobs(all(), NOW).unwrap().is_empty());
}

fn all() -> Which {
    Which {
        since: Time(0),
        of: None,
        after: 0,
        limit: 100,
    }
}

#[test]
fn many_are_read_by_time_by_user_and_in_pages() {
    let (_dir, mut store) = open();
    for (n, job) in [17, 18, 17, 19].into_iter().enumerate() {
        let n = n as u64;
        save(&mut store, &records(job, n, UP, n * 1_000), n * 1_000);
    }
    let jobs = |which| -> Vec<u32> {
        let vms = store.past().vms_of_jobs(which, NOW).unwrap();
        vms.iter().map(|vm| vm.job).collect()
    };
    assert_eq!(jobs(all()), [17, 18, 17, 19]);
    let of = Some(1001);
    assert_eq!(jobs(Which { of, ..all() }), [17, 17]);
    // Ended at 1000, 2000, 3000; the last is there.
    let since = Time(2_000);
    assert_eq!(jobs(Which { since, ..all() }), [18, 17, 19]);
    let first = Which { limit: 3, ..all() };
    let last = store.past().vms_of_jobs(first, NOW).unwrap().last().unwrap().id;
    assert_eq!(jobs(Which { after: last, ..first }), [19]);
    store.prune(Time(2_500)).unwrap();
    let left = store.past().vms_of_jobs(all(), NOW).unwrap();
    assert_eq!(left.iter().map(|vm| vm.job).collect::<Vec<_>>(), [17, 19]);
}

#[test]
fn the_vms_of_an_array_are_those_of_its_tasks_as_long_as_they_are_known() {
    let (_dir, mut store) = open();
    let round = Entry {
        tasks: [(JobId(17), (JobId(10), 1))].into(),
        ..Entry::default()
    };
    store
        .save(&records(17, 3, UP, 2_000), &round, Time(2_001))
        .unwrap();
    save(&mut store, &records(10, 4, UP, 3_000), 3_001);
    save(&mut store, &records(18, 5, UP, 4_000), 4_001);
    let jobs = |store: &Store, job| -> Vec<u32> {
        let vms = store.past().vms_of_array(JobId(job), NOW).unwrap();
        vms.iter().map(|vm| vm.job).collect()
    };
    assert_eq!(jobs(&store, 10), [17, 10]);
    assert_eq!(jobs(&store, 17), [17]);
    // What is told of its VM, its name is told, too.
    store.prune(Time(2_500)).unwrap();
    assert_eq!(jobs(&store, 10), [17, 10]);
    store.prune(Time(3_500)).unwrap();
    assert_eq!(jobs(&store, 10), [10]);
}
