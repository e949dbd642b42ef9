use super::*;
use crate::ids::{ClusterName, NodeName, VmTag};
use proptest::prelude::*;

const NOW: Time = Time(10_000);

fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

fn lives() -> Vec<Life> {
    let why = || "it broke".to_owned();
    let causes = [
        Cause::Ordered,
        Cause::BootTimeout,
        Cause::Dead { why: why() },
        Cause::Orphan,
    ];
    let mut all = vec![
        Life::Asked,
        Life::Held,
        Life::Pending,
        Life::Booting,
        Life::Running,
        Life::Paused,
        Life::Saving,
        Life::Saved,
        Life::Restoring,
        Life::Moving { from: None },
        Life::Moving {
            from: Some(host("a")),
        },
        Life::Dead { why: why() },
    ];
    all.extend(causes.map(|cause| Life::Ending { cause }));
    all
}

const REGISTRATIONS: [Registration; 3] = [
    Registration::NotYet,
    Registration::GuestReady,
    Registration::Registered,
];

fn states() -> Vec<VmState> {
    vec![
        VmState::Held,
        VmState::Pending,
        VmState::Booting,
        VmState::Ready,
        VmState::Paused(String::new()),
        VmState::Saving,
        VmState::Saved,
        VmState::Restoring,
        VmState::Moving,
        VmState::Stopping,
        VmState::Dead("gone".into()),
        VmState::Unknown("what".into()),
    ]
}

fn seen(state: VmState) -> VmView {
    VmView {
        id: VmId::new("7").unwrap(),
        tag: Some(VmTag {
            cluster: ClusterName::new("c").unwrap(),
            node: NodeName::new("n0").unwrap(),
            generation: Generation(1),
        }),
        host: Some(host("a")),
        memory_mb: 1,
        cpu_percent: 1,
        state,
    }
}

fn vm(life: Life, registration: Registration) -> VmRecord {
    VmRecord {
        life,
        registration,
        ..VmRecord::found(&seen(VmState::Booting), Generation(1), Time(5))
    }
}

#[test]
fn a_life_is_of_one_kind_alone() {
    for life in lives() {
        let kinds = [life.is_unconfirmed(), life.is_there(), life.is_past()];
        assert_eq!(kinds.iter().filter(|is| **is).count(), 1, "{life:?}");
    }
}

#[test]
fn no_listing_ends_or_revives_one_that_we_end_or_that_is_dead() {
    for life in lives().into_iter().filter(Life::is_past) {
        for state in states() {
            assert_eq!(vm(life.clone(), Registration::Registered).shown(&state), life);
        }
    }
}

#[test]
fn only_a_sure_death_is_death_and_nothing_that_was_there_becomes_a_mere_request() {
    for life in lives().into_iter().filter(|life| !life.is_past()) {
        for state in states() {
            let next = vm(life.clone(), Registration::NotYet).shown(&state);
            let dead = matches!(state, VmState::Dead(_));
            assert_eq!(matches!(next, Life::Dead { .. }), dead, "{life:?} {state:?}");
            assert!(!matches!(next, Life::Ending { .. }), "{life:?} {state:?}");
            assert!(!life.is_there() || !next.is_unconfirmed(), "{life:?} {state:?}");
        }
    }
}

#[test]
fn one_that_goes_on_after_a_pause_is_where_it_was() {
    for (registration, life) in [
        (Registration::NotYet, Life::Booting),
        (Registration::GuestReady, Life::Running),
        (Registration::Registered, Life::Running),
    ] {
        for kept_still in [
            VmState::Paused(String::new()),
            VmState::Saving,
            VmState::Saved,
            VmState::Restoring,
            VmState::Moving,
        ] {
            assert!(kept_still.is_kept_still());
            let mut vm = vm(life.clone(), registration);
            let (word, since) = (vm.word(), vm.since);
            vm.enter(vm.shown(&kept_still), NOW);
            assert_ne!(vm.word(), word);
            assert_eq!(vm.is_up(), registration.is_done(), "a job may be in it");
            vm.enter(vm.shown(&VmState::Booting), NOW);
            assert_eq!((vm.word(), vm.since), (word, since));
        }
    }
}

#[test]
fn times_count_from_what_brings_it_nearer_to_its_node_or_its_end() {
    let mut vm = vm(Life::Asked, Registration::NotYet);
    vm.enter(Life::Held, Time(6));
    assert_eq!(vm.since, Time(5));
    vm.enter(Life::Booting, Time(7));
    assert_eq!(vm.since, Time(7));
    vm.register(Registration::GuestReady, Time(8));
    assert_eq!((&vm.life, vm.since), (&Life::Running, Time(8)));
    vm.register(Registration::Registered, Time(9));
    vm.register(Registration::Registered, Time(11));
    assert_eq!(vm.since, Time(9));
    let end = |cause: Cause| Life::Ending { cause };
    vm.enter(end(Cause::Ordered), Time(12));
    vm.enter(end(Cause::Ordered), Time(13));
    assert_eq!(vm.since, Time(12));
    vm.enter(end(Cause::Orphan), Time(14));
    assert_eq!(vm.since, Time(14));
    vm.enter(Life::Running, Time(15));
    assert_eq!((vm.word(), vm.since), ("up", Time(15)));
}

#[test]
fn registration_never_goes_back_while_a_vm_is_there() {
    for from in REGISTRATIONS {
        assert!(from.guest_ready() >= from);
        assert_eq!(from.guest_ready().is_done(), from.is_done());
    }
}

#[test]
fn every_state_has_a_word_of_its_own_but_those_that_are_one_for_people() {
    let words: std::collections::BTreeSet<_> = lives().iter().map(Life::word).collect();
    assert_eq!(words.len(), 12);
    let words: std::collections::BTreeSet<_> = REGISTRATIONS.map(Registration::word).into();
    assert_eq!(words.len(), REGISTRATIONS.len());
    assert_eq!(vm(Life::Running, Registration::NotYet).word(), "booting");
}

proptest! {
    /// Whatever is shown, and in whatever order: it counts as up if Slurm has had it up and it is there.
    #[test]
    fn whatever_is_shown_it_stays_true_to_what_was_heard(
        steps in prop::collection::vec((0..12_usize, any::<bool>()), 0..40)
    ) {
        let mut vm = vm(Life::Asked, Registration::NotYet);
        let mut was_up = false;
        for (state, up) in steps {
            vm.enter(vm.shown(&states()[state]), NOW);
            if vm.comes_up() && up {
                vm.register(Registration::Registered, NOW);
                was_up = true;
            }
            prop_assert_eq!(vm.registration.is_done(), was_up);
            prop_assert_eq!(vm.is_up(), was_up && vm.life.is_there());
            prop_assert!(!(vm.is_starting() && vm.is_up()));
            prop_assert!(!was_up || !vm.life.is_unconfirmed());
        }
    }
}
