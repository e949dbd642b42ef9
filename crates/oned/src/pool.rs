//! Listings of VMs.

use crate::front_end::FrontEnd;
use crate::lifecycle::State;
use crate::refusal::{Code, Refusal};
use crate::user::User;
use crate::vm::Vm;
use crate::xmlrpc::{Value, escape_into};
use std::time::Instant;

/// What a listing is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Listing {
    /// -4 group, -3 mine, -2 all, -1 mine and group, else a user's id.
    pub filter: i32,
    /// First id; with a page size, how many to skip.
    pub start: i32,
    /// Last id; below -1 a page size.
    pub end: i32,
    /// -2 any, -1 not DONE, else STATE.
    pub state: i32,
}

fn pool(items: &str) -> Value {
    let mut out = String::with_capacity(items.len() + 64);
    escape_into(&mut out, "<VM_POOL>");
    out.push_str(items);
    escape_into(&mut out, "</VM_POOL>");
    Value::Escaped(out)
}

impl FrontEnd {
    /// What `one.vm.info` answers, in XML.
    pub fn vm_info(&self, user: &User, id: i32) -> Result<String, Refusal> {
        let id = u32::try_from(id).map_err(|_| Refusal::no_such_signed("virtual machine", id))?;
        self.authorize(user, id, "info")?;
        let vm = self
            .vms
            .get(&id)
            .ok_or_else(|| Refusal::no_such("virtual machine", id))?;
        let mut out = String::new();
        vm.full(&mut out, true, Instant::now());
        Ok(out)
    }

    /// `one.vmpool.info` and `one.vmpool.infoextended`: newest first.
    pub fn vmpool_info(&mut self, user: &User, listing: Listing, extended: bool) -> Result<Value, Refusal> {
        let Listing {
            filter,
            start,
            end,
            state,
        } = listing;
        if filter < -4 {
            return Err(Refusal::plain(Code::Api, "Incorrect filter_flag"));
        }
        if !(-2..=11).contains(&state) {
            return Err(Refusal::plain(
                Code::Api,
                &format!("Incorrect state filter {state}"),
            ));
        }
        let wanted = |vm: &Vm| {
            self.allowed(user, &vm.object(), "USE")
                && match filter {
                    -4 => vm.gid == user.gid,
                    -3 => vm.uid == user.id,
                    -2 => true,
                    -1 => vm.uid == user.id || vm.gid == user.gid,
                    uid => i64::from(vm.uid) == i64::from(uid),
                }
                && match state {
                    -2 => true,
                    -1 => vm.state != State::Done,
                    number => vm.state.number() == number,
                }
        };
        let by_live = state == -1;
        let all: Box<dyn Iterator<Item = u32>> = if by_live {
            Box::new(self.live.iter().rev().copied())
        } else {
            Box::new(self.vms.keys().rev().copied())
        };
        let found = all.filter(|id| self.vms.get(id).is_some_and(wanted));
        let ids: Vec<u32> = if end < -1 {
            let skip = usize::try_from(start).unwrap_or(0);
            found.skip(skip).take(end.unsigned_abs() as usize).collect()
        } else {
            found
                .filter(|id| {
                    let id = i64::from(*id);
                    (start < 0 || id >= i64::from(start)) && (end < 0 || id <= i64::from(end))
                })
                .collect()
        };
        Ok(self.listed(&ids, extended))
    }

    fn listed(&mut self, ids: &[u32], extended: bool) -> Value {
        let now = Instant::now();
        let mut out = String::with_capacity(ids.len() * 1200);
        for id in ids {
            let Some(vm) = self.vms.get_mut(id) else { continue };
            if extended {
                let mut text = String::with_capacity(2000);
                vm.full(&mut text, false, now);
                escape_into(&mut out, &text);
            } else {
                vm.short_escaped(&mut out, now);
            }
        }
        pool(&out)
    }

    /// `one.vmpool.infoset`: those of the ids that there are and that the user may see, DONE
    /// ones too, newest first.
    pub fn vmpool_infoset(&mut self, user: &User, ids: &str, extended: bool) -> Value {
        let mut wanted: Vec<u32> = ids
            .split(',')
            .filter_map(|text| text.trim().parse().ok())
            .filter(|id| {
                self.vms
                    .get(id)
                    .is_some_and(|vm| self.allowed(user, &vm.object(), "USE"))
            })
            .collect();
        wanted.sort_unstable_by(|a, b| b.cmp(a));
        wanted.dedup();
        self.listed(&wanted, extended)
    }
}
