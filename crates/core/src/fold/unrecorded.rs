//! VMs of ours that no record holds and that are later than all that was kept of their nodes: the
//! journal is older than the world. Only listings know them, so what one listing leaves out is
//! taken for there as it was last shown, until they have not shown it for as long as any other VM.

use crate::ids::VmId;
use crate::view::{ProviderView, VmState, VmView};
use crate::world::{Unrecorded, World};
use std::collections::{BTreeMap, HashSet};

impl World {
    /// Adds to a whole observation of the provider what it leaves out of these.
    pub(super) fn add_left_out(&mut self, view: &mut ProviderView) {
        if self.unrecorded.is_empty() {
            return;
        }
        let (now, policy) = (self.now, &self.policy);
        let shown: HashSet<&VmId> = view.vms.iter().map(|vm| &vm.id).collect();
        self.unrecorded.retain(|id, vm| {
            if shown.contains(id) {
                vm.missing = None;
                return true;
            }
            let (since, observations) = vm.missing.unwrap_or((now, 0));
            vm.missing = Some((since, observations + 1));
            observations + 1 < policy.missing_observations || now.since(since) < policy.missing_grace
        });
        let left_out = self.unrecorded.values().filter(|vm| vm.missing.is_some());
        let left_out: Vec<VmView> = left_out.map(|vm| vm.seen.clone()).collect();
        view.vms.extend(left_out);
    }
}

/// What is remembered of `seen`, which no record holds, if only listings know of it: it is `later`
/// than all that was kept of its node, or was so before.
pub(super) fn only_listed(
    unrecorded: &BTreeMap<VmId, Unrecorded>,
    seen: &VmView,
    later: bool,
) -> Option<Unrecorded> {
    let before = unrecorded.get(&seen.id);
    let alive = !matches!(seen.state, VmState::Dead(_));
    (alive && (later || before.is_some())).then(|| Unrecorded {
        seen: seen.clone(),
        missing: before.and_then(|before| before.missing),
    })
}
