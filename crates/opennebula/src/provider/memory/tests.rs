//! What is remembered, when, and for how long.

use super::*;
use crate::state::LcmState;
use crate::template::{TAG_CLUSTER, TAG_GENERATION, TAG_NODE};

const RUNNING: VmState = VmState::Active(LcmState::Running);

fn cluster() -> ClusterName {
    ClusterName::new("prod").unwrap()
}

fn details(id: u32, state: VmState) -> VmDetails {
    let tags = [(TAG_CLUSTER, "prod"), (TAG_NODE, "n1"), (TAG_GENERATION, "1")];
    VmDetails {
        row: VmRow {
            id,
            name: String::new(),
            state,
            host: None,
            cpu_percent: 100,
            memory_mb: 64,
            beyond: None,
            addresses: vec![],
            error: None,
            sched_message: None,
        },
        user_template: tags.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        context: BTreeMap::new(),
        owner: (5, "slurm".to_owned()),
    }
}

/// An observation at that moment which shows these.
fn observe(memory: &mut Memory, at: Instant, vms: Vec<VmDetails>) {
    let listed = vms.iter().filter(|vm| vm.row.state != VmState::Done);
    let rows = listed.map(|vm| vm.row.clone()).collect();
    let now = Now {
        instant: at,
        time: Time(0),
    };
    let seen = Shown {
        rows,
        details: vms,
        ..Shown::default()
    };
    memory.take(&cluster(), seen, at, now);
}

#[test]
fn an_error_of_better_days_is_known_as_such() {
    let mut memory = Memory::default();
    let at = Instant::now();
    let mut see = |state, error: &str| {
        let mut vm = details(1, state);
        vm.row.error = Some(error.to_owned());
        let now = Now {
            instant: at,
            time: Time(0),
        };
        let seen = Shown {
            rows: vec![vm.row.clone()],
            details: vec![vm],
            ..Shown::default()
        };
        memory.take(&cluster(), seen, at, now);
        memory.ours[&1].error().map(str::to_owned)
    };
    assert_eq!(see(RUNNING, "a resize was refused"), None);
    assert_eq!(see(VmState::Poweroff, "a resize was refused"), None);
    let newer = see(VmState::Poweroff, "the driver failed");
    assert_eq!(newer.as_deref(), Some("the driver failed"));
}

#[test]
fn a_state_holds_for_a_while_and_until_something_is_done() {
    let (mut memory, start) = (Memory::default(), Instant::now());
    assert_eq!(memory.known(1, start), Known::Nothing);
    observe(&mut memory, start, vec![details(1, RUNNING)]);
    assert_eq!(memory.state(1, start + FRESH / 2), Some(RUNNING));
    assert_eq!(memory.state(1, start + FRESH), None);
    let at = start + FRESH / 4;
    let now = Now {
        instant: at,
        time: Time(0),
    };
    memory.did(1, now);
    assert_eq!(memory.state(1, start + FRESH / 2), None);
    observe(&mut memory, start + FRESH / 2, vec![details(1, RUNNING)]);
    assert_eq!(memory.state(1, start + FRESH / 2), Some(RUNNING));
}

#[test]
fn an_end_is_shown_for_a_while_and_never_asked_for_again() {
    let (mut memory, start) = (Memory::default(), Instant::now());
    observe(&mut memory, start, vec![details(1, RUNNING)]);
    assert_eq!(memory.to_ask(&[], ReadyBy::Slurm, start), [1]);
    observe(&mut memory, start, vec![details(1, VmState::Done)]);
    assert!(memory.to_ask(&[], ReadyBy::Slurm, start).is_empty());
    assert_eq!(memory.known(1, start), Known::Gone);
    observe(&mut memory, start + SHOW_ENDED / 2, vec![]);
    assert_eq!(memory.ours.len(), 1);
    observe(&mut memory, start + SHOW_ENDED, vec![]);
    assert_eq!((memory.ours.len(), memory.tags.len()), (0, 0));
}

#[test]
fn what_was_made_after_a_listing_began_is_not_missing_from_it() {
    let (mut memory, start) = (Memory::default(), Instant::now());
    let tag = VmTag {
        cluster: cluster(),
        node: thiao_core::ids::NodeName::new("n1").unwrap(),
        generation: thiao_core::ids::Generation(1),
    };
    let later = start + Duration::from_secs(1);
    memory.made(
        &tag,
        1,
        Now {
            instant: later,
            time: Time(0),
        },
    );
    observe(&mut memory, start, vec![]);
    assert_eq!(memory.by_tag(&tag), Some(1));
    observe(&mut memory, later + Duration::from_secs(1), vec![]);
    assert_eq!(memory.by_tag(&tag), None);
}

#[test]
fn a_guest_that_never_says_ready_is_not_asked_for_ever() {
    let (mut memory, start) = (Memory::default(), Instant::now());
    let rows = [details(1, RUNNING).row];
    observe(&mut memory, start, vec![details(1, RUNNING)]);
    assert_eq!(memory.to_ask(&rows, ReadyBy::OneGate, start), [1]);
    assert!(memory.to_ask(&rows, ReadyBy::Slurm, start).is_empty());
    assert!(
        memory
            .to_ask(&rows, ReadyBy::OneGate, start + AWAIT_READY)
            .is_empty()
    );
}

#[test]
fn stories_are_bounded() {
    let mut memory = Memory::default();
    for id in 0..STORIES as u32 + 5 {
        memory.tell(id, Time(0), "made");
    }
    assert_eq!(memory.stories.len(), STORIES);
    assert!(memory.story(0).is_empty());
    for _ in 0..2 * MOMENTS {
        memory.tell(9, Time(0), "again");
    }
    assert_eq!(memory.story(9).len(), MOMENTS);
}
