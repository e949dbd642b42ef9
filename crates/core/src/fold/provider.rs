//! Observations of the provider.

use super::{generation, unrecorded};
use crate::event::{Event, Kind};
use crate::ids::{Millis, NodeName, Time, VmId};
use crate::view::{JobState, ProviderView, SlurmNode, VmState, VmView, VmsOf};
use crate::vm::{Life, Part};
use crate::world::{NodeRecord, Unrecorded, World};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn node(vm: &VmView) -> Option<&NodeName> {
    vm.tag.as_ref().map(|tag| &tag.node)
}

/// VMs of an observation that back nothing.
#[derive(Default)]
struct Strays {
    /// When they were first seen so.
    since: BTreeMap<VmId, Time>,
    /// Those that only listings know.
    unrecorded: BTreeMap<VmId, Unrecorded>,
}

impl World {
    /// Takes a whole observation of the provider that began at `began`; records touched
    /// after that, and busy ones, keep what they know.
    pub fn see_provider(&mut self, mut view: ProviderView, began: Time) -> Vec<Event> {
        let mut events = Vec::new();
        self.add_left_out(&mut view);
        // So are the records: who walks through both need not look each up.
        view.vms
            .sort_by_cached_key(|vm| (node(vm).cloned(), Reverse(generation(vm))));
        let by_node = view.vms_of(&self.cluster);
        let mut strays = self.adopt_and_sort_out(&by_node, began, &mut events);
        let now = self.now;
        // Two observations far apart say nothing of the time between them.
        let watched = now.since(self.provider_seen) <= Millis(self.policy.missing_grace.0 * 2);
        self.provider_seen = now;
        self.provider_began = began;
        self.asked_later.retain(|_, at| *at > began);
        self.see_recorded(&by_node, watched, &mut strays, &mut events);
        self.absences
            .retain(|node, _| self.records.get(node).is_some_and(|record| record.vm.is_some()));
        let kept_still = |node: &NodeName| {
            let vms = by_node.get(node);
            let vm = self.records.get(node).and_then(|record| record.vm.as_ref());
            // One that was saved may wait for a host, or to be let go.
            vms.iter().any(|vm| vm.state.is_kept_still()) || vm.is_some_and(|vm| vm.life.is_kept_still())
        };
        self.unbacked = self
            .lacking_vms(began)
            .filter(|node| !kept_still(node))
            .map(|node| (node.clone(), self.unbacked.get(node).copied().unwrap_or(now)))
            .collect();
        events.extend(self.see_hosts(&view.hosts));
        self.strays = strays.since;
        self.unrecorded = strays.unrecorded;
        self.provider = Some(Arc::new(view));
        events
    }

    /// Adopts VMs that no record has, where their node may be backed by them; the rest backs nothing.
    fn adopt_and_sort_out(&mut self, by_node: &VmsOf<'_>, began: Time, events: &mut Vec<Event>) -> Strays {
        let now = self.now;
        let mut strays = Strays::default();
        for (node, vms) in by_node.iter() {
            let record = self.records.or_default(node);
            let newest = generation(vms[0]);
            let busy = self.busy.contains(*node) || record.acted > began;
            // One whose end we heard of is shown by a stale listing, or is a stray.
            let fresh = |vm: &VmView| match record.acted == Time::default() {
                true => generation(vm) >= record.generation,
                false => generation(vm) > record.generation,
            };
            let alive = |vm: &VmView| !matches!(vm.state, VmState::Dead(_) | VmState::Stopping);
            let backs = vms.iter().find(|vm| alive(vm) && fresh(vm));
            let may_back = record.vm.is_none() && !busy && self.specs.contains_key(*node);
            if let Some(vm) = backs.filter(|_| may_back) {
                let text = "found at the provider by its tag and adopted";
                events.push(adopted(node, record, vm, now, text));
            }
            let kept = record.generation;
            record.generation = kept.max(newest);
            let ours = |seen: &&&VmView| match &record.vm {
                Some(vm) => vm.is(generation(seen), Some(&seen.id)),
                None => false,
            };
            for vm in vms.iter().filter(|seen| !ours(seen)) {
                let later = generation(vm) > kept;
                let remembered = unrecorded::only_listed(&self.unrecorded, vm, later);
                strays.unrecorded.extend(remembered.map(|it| (vm.id.clone(), it)));
                // What is done to the node makes no new strays, and keeps no old one young.
                let first = self.strays.get(&vm.id).copied();
                if let Some(first) = first.or((!busy).then_some(now)) {
                    strays.since.insert(vm.id.clone(), first);
                }
            }
        }
        strays
    }

    /// What an observation says of the VMs that records have. `watched`: whether the one before was not long ago.
    fn see_recorded(
        &mut self,
        by_node: &VmsOf<'_>,
        watched: bool,
        strays: &mut Strays,
        events: &mut Vec<Event>,
    ) {
        let (now, began, grace) = (self.now, self.provider_began, self.policy.missing_grace);
        let slurm = self.slurm.as_ref();
        for (node, record) in &mut self.records {
            let shown = by_node.get(node);
            let Some(vm) = record.vm.as_mut() else { continue };
            let is_busy = self.busy.contains(node) || record.acted > began;
            let ours = |seen: &&VmView| vm.is(generation(seen), Some(&seen.id));
            // Of several with one tag before an answer named one, it is the one that was released.
            let candidates = shown.iter().copied().filter(ours);
            let seen = candidates.min_by_key(|seen| (seen.state == VmState::Held, seen.id.clone()));
            let mut others = shown.iter().copied().filter(|seen| !ours(seen));
            let other = others.find(|other| other.state.may_run());
            if seen.is_some() && !vm.life.is_past() {
                // Whatever is done to the node meanwhile, it is not missing.
                vm.missing_since = None;
                self.absences.remove(node);
            }
            let up = || {
                let seen = slurm.and_then(|slurm| slurm.nodes.get(node));
                seen.is_some_and(SlurmNode::is_counted_on)
            };
            // Also while its loss is being told to Slurm, until that is done; not while it is being ended.
            if vm.is_lost()
                && (vm.registration.is_done() || up())
                && !(is_busy && matches!(vm.life, Life::Ending { .. }))
                && record.acted <= began
                && record.down.is_none()
                && seen.is_some_and(|seen| seen.state.may_run())
            {
                self.absences.remove(node);
                vm.found_again(node, now, events);
            }
            if is_busy {
                continue;
            }
            if !watched {
                vm.not_watched(record.down.is_some(), now);
            }
            match seen {
                Some(seen) => {
                    self.absences.remove(node);
                    vm.seen(node, seen, now, events);
                }
                None => {
                    let observations = self.absences.entry(node.clone()).or_default();
                    *observations += 1;
                    let enough = *observations >= self.policy.missing_observations;
                    vm.not_seen(node, now, grace, enough, events);
                }
            }
            if let Some(other) = other.filter(|_| vm.was_found_and_died() && record.down.is_none()) {
                let text =
                    "found at the provider by its tag and adopted: the one that was found before is dead";
                events.push(adopted(node, record, other, now, text));
                strays.since.remove(&other.id);
                strays.unrecorded.remove(&other.id);
                continue;
            }
            let in_time = now.since(vm.asked) < self.policy.boot_timeout;
            let later = shown.first();
            if let Some(later) = later.and_then(|newest| vm.outlived_by(newest, seen.is_some(), in_time)) {
                strays.since.remove(&later.id);
                strays.unrecorded.remove(&later.id);
                let text = "found at the provider by its tag and adopted: what was kept is older";
                events.push(adopted(node, record, later, now, text));
            }
        }
    }

    /// Nodes that Slurm considers up, and whose VM is missing, or silent though it
    /// should answer by now; not those that were acted on after `began`.
    fn lacking_vms(&self, began: Time) -> impl Iterator<Item = &NodeName> {
        let mut nodes = self.slurm.iter().flat_map(|slurm| &slurm.nodes).peekable();
        let running = std::cell::OnceCell::new();
        self.records.iter().filter_map(move |(node, record)| {
            // Both are in order: side by side is faster than looking each up.
            while nodes.next_if(|(name, _)| *name < node).is_some() {}
            let (_, seen) = nodes.next_if(|(name, _)| *name == node)?;
            let lacks = record.vm.as_ref().is_none_or(|vm| {
                let late = self.now.since(vm.asked) >= self.policy.boot_timeout;
                let should_answer = match vm.life.part() {
                    // One that is being ended answers as long as a job is there.
                    Part::Ending(_) => true,
                    Part::Dead(_) => false,
                    Part::Unconfirmed | Part::There => late || vm.registration.is_done(),
                };
                should_answer && seen.flags.not_responding
            });
            let used = || {
                let running = running.get_or_init(|| self.nodes_of_running_jobs());
                seen.is_counted_on() || seen.is_off() && running.contains(node)
            };
            (lacks && record.acted <= began && used()).then_some(node)
        })
    }

    /// A slurmctld that was killed may have stored that a node is powered down, and not that its
    /// job was over before: the job runs there for ever, by its own word.
    fn nodes_of_running_jobs(&self) -> BTreeSet<&NodeName> {
        let jobs = self.slurm.iter().flat_map(|slurm| slurm.jobs.values());
        let running = jobs.filter(|job| job.state == JobState::Running);
        running.flat_map(|job| &job.nodes).collect()
    }
}

/// Adopts a VM, and says so.
fn adopted(node: &NodeName, record: &mut NodeRecord, vm: &VmView, now: Time, text: &str) -> Event {
    record.adopt(vm, now);
    Event::vm(node, generation(vm), Kind::VmAdopted, text)
}
