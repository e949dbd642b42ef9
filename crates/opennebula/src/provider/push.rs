//! What to do next for a VM's end. Pure.

use crate::state::{Kind, LcmState, VmState};

/// What can be done to a VM that shall end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Push {
    /// Its guest is told to shut down; other states end at once.
    Terminate,
    /// It ends at once, whatever its guest does.
    TerminateHard,
    /// Removed in whatever state; needs ADMIN rights on the VM.
    Delete,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it is gone.
    Gone,
    /// Nothing: it takes its time; the text says what for.
    Wait(String),
    /// This is to be done.
    Do(Push),
}

/// Decides the next push. `state` is what is known to be true still; `refused` is
/// what oned refused just now for the VM's state.
pub(super) fn next(state: Option<VmState>, hard: bool, refused: Option<Push>) -> Next {
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
    if let VmState::Active(LcmState::Epilog | LcmState::CleanupDelete) = state {
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

    fn at(state: i32, lcm: i32) -> Option<VmState> {
        Some(VmState::new(state, lcm))
    }

    #[test]
    fn each_state_gets_what_it_takes() {
        let soft = |state| next(state, false, None);
        let hard = |state| next(state, true, None);
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
        assert!(matches!(next(None, false, refused), Next::Wait(_)));
        assert_eq!(
            next(None, true, Some(Push::TerminateHard)),
            Next::Do(Push::Delete)
        );
        assert!(matches!(next(None, true, Some(Push::Delete)), Next::Wait(_)));
        assert!(matches!(next(at(3, 3), true, Some(Push::Delete)), Next::Wait(_)));
    }

    proptest! {
        #[test]
        fn nothing_is_removed_unless_it_is_hard(state in -1_i32..15, lcm in -1_i32..80, known: bool, hard: bool) {
            let state = known.then(|| VmState::new(state, lcm));
            let mut refused = None;
            // Every way ends: after each refusal there is less left to do.
            for _ in 0..3 {
                match next(state, hard, refused) {
                    Next::Do(push) => {
                        prop_assert!(hard || push == Push::Terminate);
                        prop_assert!(Some(push) != refused);
                        refused = Some(push);
                    }
                    Next::Gone => {
                        prop_assert_eq!(state, Some(VmState::Done));
                        return Ok(());
                    }
                    Next::Wait(_) => return Ok(()),
                }
            }
            prop_assert!(false, "still something to do");
        }
    }
}
