//! Ending a VM: one push at a time.

use super::calls::Calls;
use super::fold::Given;
use super::memory::Known;
use super::push::{Next, Push, next};
use super::{Inner, now};
use crate::client::{Recovery, VmAction};
use crate::error::{Class, Error};
use crate::state::VmState;
use crate::template::read_tag;
use thiao_core::ids::{VmId, VmTag};
use thiao_core::view::Ended;

impl<C: Calls> Inner<C> {
    pub(super) fn destroy(&self, tag: &VmTag, id: Option<&VmId>, hard: bool) -> Result<Ended, Error> {
        if let Some(id) = id {
            let id = id.as_str().parse().map_err(|_| {
                Error::new(
                    Class::NoSuchObject,
                    format!("{id} is not a VM of OpenNebula, whose ids are numbers"),
                )
            })?;
            return self.end(tag, id, hard);
        }
        let mut ids = self.memory().all_by_tag(tag);
        if ids.is_empty() {
            // Only a listing that began now can say that there is none.
            self.fresh()?;
            ids = self.memory().all_by_tag(tag);
        }
        let mut ended = Ended::Gone;
        for id in ids {
            if let Ended::Underway(what) = self.end(tag, id, hard)? {
                ended = Ended::Underway(what);
            }
        }
        if ended == Ended::Gone {
            self.memory().forget_tag(tag);
        }
        Ok(ended)
    }

    fn end(&self, tag: &VmTag, id: u32, hard: bool) -> Result<Ended, Error> {
        let mut known = self.memory().known(id, now().instant);
        if known == Known::Nothing {
            known = self.read(id)?;
        }
        let state = match known {
            Known::Given(given) => {
                let mut memory = self.memory();
                memory.tell(id, now().time, &format!("left to {given}"));
                memory.forget(id);
                return Ok(Ended::Gone);
            }
            Known::Gone | Known::Nothing => {
                self.memory().forget(id);
                return Ok(Ended::Gone);
            }
            Known::Tagged(Some(its), state) if its == *tag => state,
            Known::Tagged(its, _) => {
                let whose = its.map_or("no VM of this cluster".to_owned(), |its| format!("{its}"));
                return Err(Error::new(
                    Class::BadTemplate,
                    format!("VM {id} is not {tag} but {whose}: it is not touched"),
                ));
            }
        };
        self.push(id, state, hard)
    }

    fn push(&self, id: u32, state: Option<VmState>, hard: bool) -> Result<Ended, Error> {
        let (mut refused, mut said) = (None, None);
        loop {
            let (asked, grace) = {
                let memory = self.memory();
                (memory.asked(id, now().instant), self.settings.terminate_grace)
            };
            let push = match next(state, hard, refused, asked, grace) {
                Next::Gone => {
                    self.memory().forget(id);
                    return Ok(Ended::Gone);
                }
                // OpenNebula's own words say more, if there are any.
                Next::Wait(what) => return Ok(Ended::Underway(said.unwrap_or(what))),
                Next::Stuck(times) => return Ok(Ended::Underway(self.stuck(id, state, times))),
                Next::Do(push) => push,
            };
            let done = match push {
                Push::Terminate => self.calls.action(id, VmAction::Terminate),
                Push::TerminateHard => self.calls.action(id, VmAction::TerminateHard),
                Push::Delete => self.calls.recover(id, Recovery::Delete),
            };
            let what = push.told();
            let at = now();
            self.memory().did(id, at);
            match done {
                Ok(()) => {
                    self.memory().pushed(id, push, at);
                    self.memory().tell(id, at.time, what);
                    return Ok(Ended::Underway(what.to_owned()));
                }
                Err(error) => match error.class {
                    Class::WrongState => (refused, said) = (Some(push), Some(error.text)),
                    // It was known, and ids are never used again.
                    Class::NoSuchObject => {
                        self.memory().forget(id);
                        return Ok(Ended::Gone);
                    }
                    Class::Authentication
                    | Class::Authorization
                    | Class::BadTemplate
                    | Class::Capacity
                    | Class::Busy
                    | Class::Network
                    | Class::Unknown => return Err(error),
                },
            }
        }
    }

    /// What a person is told of a VM that does not end, whatever is asked.
    fn stuck(&self, id: u32, state: Option<VmState>, times: u32) -> String {
        let memory = self.memory();
        let words = memory.words(id);
        let state = state.map_or("there".to_owned(), |state| format!("in {state}"));
        let said = words.map_or(String::new(), |words| {
            format!(" (OpenNebula's last word on it: {words})")
        });
        format!(
            "OpenNebula was asked {times} times to end it, and it is still {state}{said}: it is left to you. See what its \
             driver does (`onevm show {id}`, oned.log), then `onevm recover --delete {id}`"
        )
    }

    /// What OpenNebula says of a VM that we know nothing of. One that it does not show was
    /// purged, or given to another user whose VMs we may not see (before this process began): it is not ours any more.
    fn read(&self, id: u32) -> Result<Known, Error> {
        let seen = self.calls.vms_of(&[id])?;
        let Some(vm) = seen.into_iter().find(|vm| vm.row.id == id) else {
            return Ok(Known::Nothing);
        };
        if vm.row.state == VmState::Done {
            return Ok(Known::Gone);
        }
        let (owner, name) = vm.owner;
        if owner != self.me()? {
            return Ok(Known::Given(Given::To(name)));
        }
        let tag = read_tag(|name| vm.user_template.get(name).cloned());
        Ok(Known::Tagged(tag, Some(vm.row.state)))
    }
}
