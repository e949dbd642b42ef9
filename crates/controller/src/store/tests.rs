use super::*;
use thiao_core::event::{Event, Kind, Subject};
use thiao_core::ids::{Generation, HostName, JobId, VmId};
use thiao_core::journal::{Begun, TakenIntent};
use thiao_core::options::VmOptions;
use thiao_core::view::{JobOwner, Shape, VmSpec};
use thiao_core::vm::{Cause, Life, Registration, VmRecord};
use thiao_core::world::{Desired, Trouble};
use thiao_testkit::ids::node;

fn record(life: Life, registration: Registration) -> NodeRecord {
    NodeRecord {
        desired: Desired::Up { since: Time(5) },
        generation: Generation(3),
        vm: Some(VmRecord {
            generation: Generation(3),
            id: Some(VmId::new("n0.3").unwrap()),
            host: Some(HostName::new("a").unwrap()),
            spec: None,
            life,
            registration,
            asked: Time(6),
            since: Time(7),
            aside: Default::default(),
            missing_since: Some(Time(8)),
            kept: Some(Time(10)),
            starts: thiao_core::vm::Starts {
                times: 2,
                last: Time(11),
            },
        }),
        trouble: Trouble {
            failures: 2,
            retry_at: Some(Time(9)),
            avoid: [HostName::new("b").unwrap()].into(),
            last: "it \"broke\"\n".into(),
            told: true,
        },
        down: Some("thiao: x".into()),
        jobs: vec![JobId(4), JobId(5)],
        acted: Time(0),
    }
}

#[test]
fn records_survive_a_restart_in_every_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("thiao.db");
    let why = || "w".to_owned();
    let end = |cause| Life::Ending { cause };
    let host = HostName::new("c").unwrap();
    let states = [
        (Life::Asked, Registration::NotYet),
        (Life::Booting, Registration::NotYet),
        (Life::Running, Registration::GuestReady),
        (Life::Running, Registration::Registered),
        (Life::Held, Registration::NotYet),
        (Life::Paused, Registration::Registered),
        (Life::Saving, Registration::Registered),
        (Life::Saved, Registration::Registered),
        (Life::Restoring, Registration::Registered),
        (Life::Moving { from: None }, Registration::Registered),
        (Life::Moving { from: Some(host) }, Registration::Registered),
        (Life::Dead { why: why() }, Registration::Registered),
        (Life::Dead { why: why() }, Registration::NotYet),
        (end(Cause::Ordered), Registration::Registered),
        (end(Cause::BootTimeout), Registration::GuestReady),
        (end(Cause::Orphan), Registration::NotYet),
        (end(Cause::Dead { why: why() }), Registration::Registered),
    ];
    let mut records: Table<_, _> = states
        .into_iter()
        .enumerate()
        .map(|(i, (life, registration))| (node(&format!("n{i}")), record(life, registration)))
        .collect();
    records.insert(node("plain"), NodeRecord::default());
    let shape = Shape {
        cpus: 3,
        memory_mb: 700,
        share_percent: 40,
    };
    let of_job = VmSpec {
        gpus: 2,
        job: Some(JobId(17)),
        owner: Some(JobOwner {
            uid: 1001,
            leader: JobId(16),
        }),
        options: VmOptions::parse("template=x image=y share=40 keep-on-failure").unwrap(),
        ..VmSpec::of_node(shape)
    };
    for (name, spec) in [("n2", of_job), ("n3", VmSpec::of_node(shape))] {
        records.get_mut(name).unwrap().vm.as_mut().unwrap().spec = Some(spec);
    }
    let mut store = Store::open(&path).unwrap();
    store.save(&records, &Entry::default(), Time(1)).unwrap();
    drop(store);
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.load().unwrap(), records);
    records.get_mut("n0").unwrap().vm = None;
    records.remove("n1");
    store.save(&records, &Entry::default(), Time(2)).unwrap();
    assert_eq!(Store::open(&path).unwrap().load().unwrap(), records);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o077, 0, "others can read it");
}

#[test]
fn a_taken_order_is_known_and_cannot_be_taken_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("thiao.db")).unwrap();
    let round = || Entry {
        intents: vec![TakenIntent {
            name: "17-resume".into(),
            kind: "resume".into(),
            nodes: "n0".into(),
            at: Time(1),
            uid: 0,
        }],
        ..Entry::default()
    };
    assert!(!store.is_taken("17-resume").unwrap());
    store.save(&Table::new(), &round(), Time(1)).unwrap();
    assert!(store.is_taken("17-resume").unwrap());
    assert!(store.save(&Table::new(), &round(), Time(1)).is_err());
}

#[test]
fn events_are_found_by_subject_and_followed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("thiao.db")).unwrap();
    let event = |name: &str, text: &str| (Event::new(Subject::Node(node(name)), Kind::NodeUp, text), None);
    let round = Entry {
        events: vec![
            event("n0", "1"),
            event("n1", "2"),
            event("n0", "3"),
            event("n10", "4"),
        ],
        ..Entry::default()
    };
    store.save(&Table::new(), &round, Time(1)).unwrap();
    let texts =
        |events: Vec<thiao_api::types::Event>| events.into_iter().map(|e| e.message).collect::<Vec<_>>();
    assert_eq!(texts(store.past().events(2, None, &[]).unwrap()), ["3", "4"]);
    assert_eq!(texts(store.past().events(2, Some(0), &[]).unwrap()), ["1", "2"]);
    assert_eq!(
        texts(store.past().events(9, None, &["node n0".into()]).unwrap()),
        ["1", "3"]
    );
    assert_eq!(
        texts(
            store
                .past()
                .events(9, None, &["node n1".into(), "node n10".into()])
                .unwrap()
        ),
        ["2", "4"]
    );
    store.prune(Time(2)).unwrap();
    assert!(store.past().events(9, None, &[]).unwrap().is_empty());
}

#[test]
fn actions_without_an_end_are_told_once_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("thiao.db")).unwrap();
    let begun = |id, what: &str| Begun {
        id,
        subject: "vm n0.1".into(),
        what: what.into(),
        why: "w".into(),
    };
    let round = Entry {
        begun: vec![begun(1, "one"), begun(2, "two")],
        ..Entry::default()
    };
    store.save(&Table::new(), &round, Time(1)).unwrap();
    assert_eq!(store.next_action().unwrap(), 3);
    store
        .save(
            &Table::new(),
            &Entry {
                ended: vec![(1, "done".into())],
                ..Entry::default()
            },
            Time(2),
        )
        .unwrap();
    assert_eq!(store.interrupted(Time(3)).unwrap(), ["two"]);
    assert!(store.interrupted(Time(4)).unwrap().is_empty());
}

#[test]
fn a_newer_layout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("thiao.db");
    drop(Store::open(&path).unwrap());
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    assert!(
        Store::open(&path)
            .err()
            .unwrap()
            .to_string()
            .contains("layout 99")
    );
}

#[test]
fn vms_of_the_first_layout_are_those_of_its_only_provider() {
    let dir = tempfile::tempdir().unwrap();
    for (name, with_vm, expected) in [("with.db", true, Some("qemu")), ("without.db", false, None)] {
        let path = dir.path().join(name);
        let db = Connection::open(&path).unwrap();
        db.execute_batch(include_str!("schema1.sql")).unwrap();
        if with_vm {
            db.execute_batch(
                "INSERT INTO nodes VALUES ('n0', 'up', 5, 3, 0, NULL, '[]', '', 0, NULL, '[]');
                 INSERT INTO vms VALUES ('n0', 3, 'n0.3', 'a', 'up', '{}', 6, 7, NULL);",
            )
            .unwrap();
        }
        db.pragma_update(None, "user_version", 1).unwrap();
        drop(db);
        let mut store = Store::open(&path).unwrap();
        assert_eq!(store.provider().unwrap().as_deref(), expected);
        // What it is nobody has written down.
        let records = store.load().unwrap();
        assert!(
            records
                .values()
                .all(|record| record.vm.as_ref().is_some_and(|vm| vm.spec.is_none()))
        );
        store.set_provider("opennebula").unwrap();
        store.set_provider("other").unwrap();
        assert_eq!(store.provider().unwrap().as_deref(), Some("other"));
    }
}

/// Up to layout 5 an observation was called a look, a job was let go, and a node of job mode was an own one.
#[test]
fn events_of_the_fifth_layout_have_todays_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("thiao.db");
    let db = Connection::open(&path).unwrap();
    for sql in &MIGRATIONS[..5] {
        db.execute_batch(sql).unwrap();
    }
    for kind in ["look-failed", "look-ok", "job-let-go", "own-node", "node-up"] {
        db.execute(
            "INSERT INTO events (at, subject, kind, message) VALUES (1, 'slurm', ?1, 'm')",
            [kind],
        )
        .unwrap();
    }
    db.pragma_update(None, "user_version", 5).unwrap();
    drop(db);
    let events = Store::open(&path).unwrap().past().events(5, None, &[]).unwrap();
    let kinds: Vec<String> = events.into_iter().map(|event| event.kind).collect();
    let today = [
        Kind::ObservationFailed,
        Kind::ObservationOk,
        Kind::JobAdmitted,
        Kind::NodeEndsWithJob,
        Kind::NodeUp,
    ];
    assert_eq!(kinds, today.map(|kind| kind.to_string()));
}

/// Layout 5 had one phase, where there are a life and a registration now.
#[test]
fn vms_of_the_fifth_layout_keep_what_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("thiao.db");
    let why = || "w".to_owned();
    let end = |cause| Life::Ending { cause };
    let dead = Life::Dead { why: why() };
    let cases = [
        ("asked", "{}", Life::Asked, Registration::NotYet),
        ("booting", "{}", Life::Booting, Registration::NotYet),
        ("ready", "{}", Life::Running, Registration::GuestReady),
        (
            "up",
            "{\"was_up\":false}",
            Life::Running,
            Registration::Registered,
        ),
        (
            "failed",
            "{\"why\":\"w\",\"was_up\":true}",
            dead.clone(),
            Registration::Registered,
        ),
        (
            "failed",
            "{\"why\":\"w\",\"was_up\":false}",
            dead,
            Registration::NotYet,
        ),
        (
            "stopping",
            "{\"cause\":\"ordered\",\"was_up\":false}",
            end(Cause::Ordered),
            Registration::NotYet,
        ),
        (
            "stopping",
            "{\"cause\":\"boot-timeout\"}",
            end(Cause::BootTimeout),
            Registration::NotYet,
        ),
        (
            "stopping",
            "{\"cause\":\"orphan\"}",
            end(Cause::Orphan),
            Registration::NotYet,
        ),
        (
            "stopping",
            "{\"cause\":\"dead\",\"why\":\"w\",\"was_up\":true}",
            end(Cause::Dead { why: why() }),
            Registration::Registered,
        ),
    ];
    let db = Connection::open(&path).unwrap();
    for sql in &MIGRATIONS[..5] {
        db.execute_batch(sql).unwrap();
    }
    for (i, (phase, detail, ..)) in cases.iter().enumerate() {
        db.execute(
            "INSERT INTO nodes VALUES (?1, 'up', 5, 3, 0, NULL, '[]', '', 0, NULL, '[]')",
            [format!("n{i:02}")],
        )
        .unwrap();
        db.execute(
            "INSERT INTO vms (node, generation, id, host, phase, detail, asked, since, starts, last_start)
             VALUES (?1, 3, 'x', 'a', ?2, ?3, 6, 7, 1, 8)",
            [format!("n{i:02}"), (*phase).to_owned(), (*detail).to_owned()],
        )
        .unwrap();
    }
    db.pragma_update(None, "user_version", 5).unwrap();
    drop(db);
    let mut store = Store::open(&path).unwrap();
    let records = store.load().unwrap();
    assert_eq!(records.len(), cases.len());
    for (record, (phase, detail, life, registration)) in records.values().zip(cases) {
        let vm = record.vm.as_ref().unwrap();
        assert_eq!(
            (&vm.life, vm.registration),
            (&life, registration),
            "{phase} {detail}"
        );
        assert_eq!((vm.asked, vm.since, vm.starts.times), (Time(6), Time(7), 1));
    }
    // And what it is now is kept.
    store.save(&records, &Entry::default(), Time(9)).unwrap();
    assert_eq!(Store::open(&path).unwrap().load().unwrap(), records);
}
