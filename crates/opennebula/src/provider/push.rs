//! What to do next for a VM's end. Pure.

use crate::state::{Kind, LcmState, VmState};
use std::time::Duration;

/// What can be done to a VM that shall end, the softest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Push {
    /// Its guest is told to shut down; other states end at once.
    Terminate,
    /// It ends at once, whatever its guest does.
    TerminateHard,
    /// Removed in whatever state; needs ADMIN rights on the VM.
    Delete,
}

impl Push {
    /// What is said of it, once it was taken, for as long as it is under way.
    pub(super) fn told(self) -> &'static str {
        match self {
            Push::Terminate => "OpenNebula was asked to terminate it",
            Push::TerminateHard => "OpenNebula was asked to terminate it at once",
            Push::Delete => "OpenNebula was asked to delete it",
        }
    }
}

/// What OpenNebula took of this so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// The hardest push that it took.
    pub push: Push,
    /// How often it took that one.
    pub times: u32,
    /// How long ago the last one was.
    pub ago: Duration,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it is gone.
    Gone,
    /// Nothing: it takes its time; the text says what for.
    Wait(String),
    /// Nothing more by us: it was asked so often in vain.
    Stuck(u32),
    /// This is to be done.
    Do(Push),
}

/// So often a VM is pushed in the same way. What does not help three times does not help.
const MOST: u32 = 3;

/// Decides the next push. `state` is what is known to be true still; `refused` is
/// what oned refused just now for the VM's state; `asked` is what it took before.
///
/// Each push cancels what the driver is doing for the VM (seen with 7.4: `Driver command for 587 cancelled`): so the
/// same one is repeated after `grace`, and then after twice as long each time.
pub(super) fn next(
    state: Option<VmState>,
    hard: bool,
    refused: Option<Push>,
    asked: Option<Asked>,
    grace: Duration,
) -> Next {
    let ends = state.is_none_or(|state| state.kind() == Kind::Ending);
    let push = match (unpaced(state, hard, refused), asked) {
        (Next::Do(push), _) => push,
        // The same words whether its state is known at the moment or not: each change of them is told to people.
        (Next::Wait(_), Some(asked)) if ends && refused.is_none() => {
            return Next::Wait(asked.push.told().to_owned());
        }
        (other, _) => return other,
    };
    let Some(asked) = asked.filter(|asked| asked.push >= push) else {
        return Next::Do(push);
    };
    let pause = grace.saturating_mul(1 << asked.times.min(MOST).saturating_sub(1));
    match asked.ago < pause {
        true => Next::Wait(asked.push.told().to_owned()),
        false if asked.times >= MOST => Next::Stuck(asked.times),
        false => Next::Do(push),
    }
}

/// The same without a thought of what was asked before.
fn unpaced(state: Option<VmState>, hard: bool, refused: Option<Push>) -> Next {
    let terminate = if hard {
        Push::TerminateHard
    } else {
        Push::Terminate
    };
    let Some(state) = state else {
        // One that takes no terminate is in PROLOG, BOOT and such: there only Delete works.
        return match refused {
            None => Next::Do(terminate),
            Some(Push::Terminate | Push::TerminateHard) if hard => Next::Do(Push::Delete),
            Some(Push::Terminate | Push::TerminateHard | Push::Delete) => {
                Next::Wait("OpenNebula refuses to terminate it in its present state".to_owned())
            }
        };
    };
    if state.kind() == Kind::Done {
        return Next::Gone;
    }
    // It does not run any more, and only its files are put away: that must not be cut short.
    if let VmState::Active(
        LcmState::Epilog | LcmState::EpilogStop | LcmState::EpilogUndeploy | LcmState::CleanupDelete,
    ) = state
    {
        return Next::Wait(format!("in {state}, on its way out"));
    }
    match refused {
        None if state.takes_terminate(hard) => Next::Do(terminate),
        None | Some(Push::Terminate | Push::TerminateHard) if hard && state.takes_recover_delete() => {
            Next::Do(Push::Delete)
        }
        None if state.kind() == Kind::Ending => Next::Wait(format!("in {state}, on its way out")),
        None | Some(Push::Terminate | Push::TerminateHard | Push::Delete) => {
            Next::Wait(format!("in {state}, where OpenNebula refuses terminate"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn first(state: Option<VmState>, hard: bool, refused: Option<Push>) -> Next {
        next(state, hard, refused, None, GRACE)
    }

    fn at(state: i32, lcm: i32) -> Option<VmState> {
        Some(VmState::new(state, lcm))
    }

    #[test]
    fn each_state_gets_what_it_takes() {
        let soft = |state| first(state, false, None);
        let hard = |state| first(state, true, None);
        assert_eq!(soft(at(2, 0)), Next::Do(Push::Terminate));
        assert_eq!(soft(at(3, 3)), Next::Do(Push::Terminate));
        assert_eq!(soft(at(3, 36)), Next::Do(Push::Terminate));
        assert_eq!(hard(at(3, 3)), Next::Do(Push::TerminateHard));
        // SHUTDOWN: a second soft one is refused, a hard one overrides it.
        assert!(matches!(soft(at(3, 12)), Next::Wait(_)));
        assert_eq!(hard(at(3, 12)), Next::Do(Push::TerminateHard));
        // PROLOG and BOOT refuse both.
        assert_eq!(
            soft(at(3, 2)),
            Next::Wait("in BOOT, where OpenNebula refuses terminate".to_owned())
        );
        assert_eq!(hard(at(3, 1)), Next::Do(Push::Delete));
        assert!(matches!(hard(at(3, 11)), Next::Wait(_)));
        assert_eq!(hard(at(6, 0)), Next::Gone);
    }

    #[test]
    fn a_refusal_leads_to_more_only_when_it_is_hard() {
        let refused = Some(Push::Terminate);
        assert!(matches!(first(None, false, refused), Next::Wait(_)));
        assert_eq!(
            first(None, true, Some(Push::TerminateHard)),
            Next::Do(Push::Delete)
        );
        assert!(matches!(first(None, true, Some(Push::Delete)), Next::Wait(_)));
        assert!(matches!(first(at(3, 3), true, Some(Push::Delete)), Next::Wait(_)));
    }

    #[test]
    fn of_an_end_that_is_under_way_the_same_is_said_whatever_is_known() {
        for push in [Push::Terminate, Push::TerminateHard, Push::Delete] {
            let (times, ago) = (1, Duration::from_secs(5));
            let asked = Some(Asked { push, times, ago });
            let hard = push != Push::Terminate;
            // RUNNING still, SHUTDOWN, EPILOG, not observed since.
            for state in [at(3, 3), at(3, 12), at(3, 11), None] {
                assert_eq!(
                    next(state, hard, None, asked, GRACE),
                    Next::Wait(push.told().to_owned()),
                    "{state:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_under_way_is_left_to_it() {
        let asked = |push, times, seconds| {
            let ago = Duration::from_secs(seconds);
            Some(Asked { push, times, ago })
        };
        let shutdown = |hard, asked| next(at(3, 12), hard, None, asked, GRACE);
        // A soft one does not keep a hard one waiting: when it is time for that, is the planner's business.
        let soft = asked(Push::Terminate, 1, 1);
        assert_eq!(shutdown(true, soft), Next::Do(Push::TerminateHard));
        let hard = |times, seconds| shutdown(true, asked(Push::TerminateHard, times, seconds));
        assert!(matches!(hard(1, 59), Next::Wait(_)));
        assert_eq!(hard(1, 60), Next::Do(Push::TerminateHard));
        assert!(matches!(hard(2, 119), Next::Wait(_)));
        assert_eq!(hard(2, 120), Next::Do(Push::TerminateHard));
        assert!(matches!(hard(3, 239), Next::Wait(_)));
        assert_eq!(hard(3, 240), Next::Stuck(3));
        // A guest that does not listen runs on: it is not told again at once.
        let runs = |seconds| next(at(3, 3), false, None, asked(Push::Terminate, 1, seconds), GRACE);
        assert!(matches!(runs(59), Next::Wait(_)));
        assert_eq!(runs(60), Next::Do(Push::Terminate));
        // Not observed since: what it is in nobody knows.
        let unseen = next(None, true, None, asked(Push::TerminateHard, 1, 1), GRACE);
        assert!(matches!(unseen, Next::Wait(_)));
        assert_eq!(
            next(at(6, 0), true, None, asked(Push::Delete, 3, 999), GRACE),
            Next::Gone
        );
    }

    proptest! {
        #[test]
        fn nothing_is_removed_unless_it_is_hard(state in -1_i32..15, lcm in -1_i32..80, known: bool, hard: bool) {
            let state = known.then(|| VmState::new(state, lcm));
            let mut refused = None;
            // Every way ends: after each refusal there is less left to do.
            for _ in 0..3 {
                match first(state, hard, refused) {
                    Next::Do(push) => {
                        prop_assert!(hard || push == Push::Terminate);
                        prop_assert!(Some(push) != refused);
                        refused = Some(push);
                    }
                    Next::Gone => {
                        prop_assert_eq!(state, Some(VmState::Done));
                        return Ok(());
                    }
                    Next::Wait(_) | Next::Stuck(_) => return Ok(()),
                }
            }
            prop_assert!(false, "still something to do");
        }
    }
}
