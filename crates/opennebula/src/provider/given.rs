//! VMs of ours that somebody gave away (`onevm chown`), or that are there no more. Both are missing wherever VMs are
//! listed. Asked for one by one, oned tells which: what we may not see it refuses (0x200: recording 146 of 7.4.1), and
//! of what is not there it says so (0x400: recording 025).

use super::Inner;
use super::calls::Calls;
use super::fold::{Given, Ours};
use super::memory::{Memory, Now, Shown};
use crate::error::Class;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// So many are asked for one by one beside an observation; the others are missing until it is their turn.
const MOST: usize = 10;

/// When one that may not be seen is asked for again. It looks the same when it has ended (seen with 7.4.0), and is
/// told from that only when it was removed from oned's database.
const AGAIN: Duration = Duration::from_secs(300);

impl<C: Calls> Inner<C> {
    /// Asks for our VMs that nothing of this observation shows, one by one. Whatever else is answered than that it is
    /// not there, or not to be seen, says nothing: then they are missing, and asked for again.
    pub(super) fn ask_for_missing(&self, shown: &mut Shown, began: Instant) {
        let missing = self.memory().unshown(shown);
        let mut asks = MOST;
        for (id, unseen) in missing {
            let late = unseen.is_none_or(|at| began.duration_since(at) >= AGAIN);
            if late && asks > 0 {
                asks -= 1;
                match self.calls.vm(id) {
                    Ok(vm) => {
                        shown.details.push(vm);
                        continue;
                    }
                    Err(error) if error.class == Class::Authorization => {
                        shown.unseen.insert(id, began);
                        continue;
                    }
                    Err(error) if error.class == Class::NoSuchObject => continue,
                    // Who does not answer now is not asked for the next one, either.
                    Err(_) => asks = 0,
                }
            }
            match unseen {
                Some(at) => drop(shown.unseen.insert(id, at)),
                None => drop(shown.unasked.insert(id)),
            }
        }
    }
}

impl Memory {
    /// Our VMs that nothing of an observation shows, and when oned said that we may not see them, if it did; those of
    /// which nothing is known first.
    fn unshown(&self, shown: &Shown) -> Vec<(u32, Option<Instant>)> {
        let rows = shown.rows.iter().map(|row| row.id);
        let seen: BTreeSet<u32> = rows.chain(shown.details.iter().map(|vm| vm.row.id)).collect();
        let ours = self.missing.iter().chain(&self.ours);
        let unshown = ours.filter(|(id, _)| !seen.contains(id) && !self.has_ended(**id));
        let when = |vm: &Ours| match vm.given {
            Some(Given::Unseen(at)) => Some(at),
            Some(Given::To(_)) | None => None,
        };
        let mut unshown: Vec<_> = unshown.map(|(id, vm)| (*id, when(vm))).collect();
        unshown.sort_by_key(|(_, at)| *at);
        unshown
    }

    /// Keeps a VM as it was seen last, which we may not see any more.
    pub(super) fn keep_unseen(&mut self, id: u32, was: Ours, at: Instant, now: Now) {
        let given = Given::Unseen(at);
        if was.given.is_none() {
            self.tell(id, now.time, &format!("given to {given}"));
        }
        let given = Some(given);
        self.ours.insert(id, Ours { given, ..was });
    }
}
