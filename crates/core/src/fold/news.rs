//! News of single VMs, between two whole observations of the provider.

use crate::event::Event;
use crate::ids::VmId;
use crate::view::{VmNews, VmState, VmView, Word};
use crate::vm::{Life, VmRecord};
use crate::world::World;
use std::collections::HashMap;
use std::sync::Arc;

impl World {
    /// Takes what is new of single VMs. It is about VMs that records have and says nothing of any other: what is
    /// missing, what is found, and what hosts have left only whole observations say. Without one that holds it is
    /// passed over. A busy node's record keeps what it knows.
    pub fn see_news(&mut self, news: Vec<VmNews>) -> Vec<Event> {
        let mut events = Vec::new();
        let Some(view) = &mut self.provider else {
            return events;
        };
        let (mut shown, mut ended) = (Vec::new(), Vec::new());
        for news in news {
            let Some(tag) = news.vm.tag.as_ref().filter(|tag| tag.cluster == self.cluster) else {
                continue;
            };
            let record = self.records.get_mut(&tag.node);
            let vm = record.and_then(|record| record.vm.as_mut());
            let vm = vm.filter(|vm| vm.is(tag.generation, Some(&news.vm.id)));
            let Some(vm) = vm.filter(|vm| !self.busy.contains(&tag.node) && is_evidence(&news, vm)) else {
                // Its end may be known to the provider's side, and the record without it, before this comes: nothing
                // would say again that it is not there, and the node's next VM waits for that.
                if let (Word::Asked(_), VmState::Dead(_)) = (news.word, &news.vm.state) {
                    ended.push(news.vm);
                }
                continue;
            };
            vm.seen(&tag.node, &news.vm, self.now, &mut events);
            if let Word::Asked(at) = news.word {
                self.absences.remove(&tag.node);
                self.asked_later.insert(news.vm.id.clone(), at);
            }
            shown.push(news.vm);
        }
        if !(shown.is_empty() && ended.is_empty()) {
            let vms = &mut Arc::make_mut(view).vms;
            replace(vms, ended);
            let new = replace(vms, shown);
            vms.extend(new);
        }
        events
    }
}

/// Puts VMs in place of what was shown of them before; gives those that were not shown.
fn replace(vms: &mut [VmView], news: Vec<VmView>) -> Vec<VmView> {
    let mut news: HashMap<VmId, VmView> = news.into_iter().map(|vm| (vm.id.clone(), vm)).collect();
    for vm in vms.iter_mut() {
        if let Some(newer) = news.remove(&vm.id) {
            *vm = newer;
        }
    }
    news.into_values().collect()
}

/// Whether news may be believed of this VM. What is only told may be believed of one that is on its way up, and only
/// that it goes on: it is never evidence of an end.
fn is_evidence(news: &VmNews, vm: &VmRecord) -> bool {
    match news.word {
        Word::Asked(_) => true,
        Word::Told => {
            let goes_on = matches!(
                (&vm.life, &news.vm.state),
                (
                    Life::Asked | Life::Held | Life::Pending,
                    VmState::Pending | VmState::Booting
                ) | (Life::Booting, VmState::Booting)
            );
            goes_on && !vm.registration.is_done()
        }
    }
}
