//! Who gives way: VMs that only wait for SuspendTime hold what others wait for.
//!
//! Slurm is asked to power their nodes down and stays the judge: one that it gives to a job at that very moment ends
//! with the job (`POWER_DOWN`; 22.05.8 to 26.05.3 take an idle node from those that jobs can get at once). No more
//! give way than are needed, beside what is being freed already, and none if they would not do.

use super::Planner;
use crate::evidence::is_spare;
use crate::hostlist;
use crate::ids::{HostName, Millis, NodeName, NodesetName, Time};
use crate::place::Ledger;
use crate::plan::{Action, EndWhy, NodeVerb, VmVerb};
use crate::resources::Resources;
use crate::size::Vms;
use crate::view::BaseState;
use crate::vm::{Part, VmRecord};
use crate::world::NodeRecord;
use std::collections::{BTreeSet, HashMap};

/// For so many jobs of those that wait it is tried to make place in one round.
const MOST_JOBS: usize = 100;

/// A node that was asked for and has no place.
pub(super) struct Unplaced<'a> {
    pub node: &'a NodeName,
    pub record: &'a NodeRecord,
    /// When it was asked for.
    pub since: Time,
    /// What it lacks, for people.
    pub lacks: String,
    /// Why Slurm is told of that, if it is.
    pub why: &'static str,
}

/// A job at the gate whose VMs have no place.
pub(super) struct UnplacedJob<'a> {
    pub vms: Vms,
    pub of: Vec<&'a NodesetName>,
    /// Where it is among those that are held.
    pub held: usize,
}

/// A VM that may give way.
#[derive(Clone)]
struct Spare<'a> {
    node: &'a NodeName,
    host: &'a HostName,
    takes: Resources,
    idle: Time,
}

/// What there will be when all has ended that is on its way out, and who may give way beside that.
struct Outlook<'a> {
    ledger: Ledger,
    vms_left: usize,
    /// The longest idle first.
    spare: Vec<Spare<'a>>,
}

impl<'a> Outlook<'a> {
    /// Finds places for VMs that need as much, and takes them; who gives way for that, if that is enough.
    fn places(&mut self, needs: &[Resources], of: &[&NodesetName]) -> Option<Vec<Spare<'a>>> {
        let (mark, vms_left, spare) = (self.ledger.mark(), self.vms_left, self.spare.clone());
        let mut all = Vec::new();
        for need in needs {
            let Some(gave) = self.place(need, of) else {
                self.ledger.back_to(mark);
                (self.vms_left, self.spare) = (vms_left, spare);
                return None;
            };
            all.extend(gave);
        }
        Some(all)
    }

    fn place(&mut self, need: &Resources, of: &[&NodesetName]) -> Option<Vec<Spare<'a>>> {
        let free = self.ledger.choose(need, of, &BTreeSet::new()).ok();
        let (host, chosen) = match free {
            Some(host) if self.vms_left > 0 => (host, Vec::new()),
            // It is only one VM too many.
            Some(host) => (host, self.spare.first().map(|first| vec![first.node])?),
            None => self.fewest(need, of)?,
        };
        let (gone, left) = self
            .spare
            .drain(..)
            .partition(|spare| chosen.contains(&spare.node));
        let gave: Vec<Spare<'a>> = gone;
        self.spare = left;
        for spare in &gave {
            self.ledger.give_back(spare.host, &spare.takes);
        }
        self.ledger.take(&host, need);
        self.vms_left = (self.vms_left + gave.len()).saturating_sub(1);
        Some(gave)
    }

    /// The host where the fewest have to give way; of equal ones that of the longest idle.
    fn fewest(&mut self, need: &Resources, of: &[&NodesetName]) -> Option<(HostName, Vec<&'a NodeName>)> {
        let mut hosts: Vec<&'a HostName> = Vec::new();
        for spare in &self.spare {
            if !hosts.contains(&spare.host) {
                hosts.push(spare.host);
            }
        }
        let found = hosts
            .into_iter()
            .filter_map(|host| Some((host.clone(), self.enough_on(host, need, of)?)));
        let found: Vec<_> = found.collect();
        found.into_iter().min_by_key(|(_, nodes)| nodes.len())
    }

    /// Those on `host` without which there is place; nobody is left out who is needed, and none goes in vain.
    fn enough_on(
        &mut self,
        host: &'a HostName,
        need: &Resources,
        of: &[&NodesetName],
    ) -> Option<Vec<&'a NodeName>> {
        let mark = self.ledger.mark();
        let here: Vec<Spare<'a>> = self
            .spare
            .iter()
            .filter(|spare| spare.host == host)
            .cloned()
            .collect();
        let mut chosen: Vec<Spare<'a>> = Vec::new();
        for spare in here {
            self.ledger.give_back(host, &spare.takes);
            chosen.push(spare);
            if self.ledger.fits_of(host, need, of) {
                break;
            }
        }
        let enough = self.ledger.fits_of(host, need, of);
        if enough {
            chosen.retain(|spare| {
                self.ledger.take(host, &spare.takes);
                let without = self.ledger.fits_of(host, need, of);
                if !without {
                    self.ledger.give_back(host, &spare.takes);
                }
                !without
            });
        }
        self.ledger.back_to(mark);
        enough.then(|| chosen.into_iter().map(|spare| spare.node).collect())
    }
}

impl<'a> Planner<'a> {
    /// Decides about nodes that were asked for and have no place: they wait as long as somebody gives way, or
    /// their patience lasts.
    pub(super) fn unplaced_nodes(&mut self) {
        if self.unplaced.is_empty() {
            return;
        }
        let mut outlook = self.outlook();
        for unplaced in std::mem::take(&mut self.unplaced) {
            let Unplaced {
                node,
                record,
                since,
                lacks,
                why,
            } = unplaced;
            let spec = self.world.specs.get(node);
            let way = spec.and_then(|spec| {
                let need = self.takes(&spec.shape);
                let waits = self.is_patient_for(record, since, self.way_patience());
                let of = [&spec.nodeset];
                waits
                    .then(|| outlook.places(&[need], &of))?
                    .map(|gave| (need, gave))
            });
            match way {
                Some((need, gave)) => {
                    self.promised.push((need, spec.map(|spec| &spec.nodeset)));
                    let text = format!("waits for capacity: {lacks}{}", ways(&gave));
                    let whom = self.whom(node, record);
                    self.give_way(&gave, &format!("{whom} waits for capacity: {lacks}"));
                    self.hold(node, text);
                }
                None if self.is_patient(record, since) => {
                    self.hold(node, format!("waits for capacity: {lacks}"))
                }
                None => self.give_up_for_now(node, &lacks, why),
            }
        }
    }

    /// Jobs at the gate whose VMs have no place, in the order in which they are admitted: idle VMs give way to them.
    pub(super) fn unplaced_jobs(&mut self) {
        // Without these a job waits for what is being freed as it did.
        if self.unplaced_jobs.is_empty() || self.world.idle.is_empty() {
            return;
        }
        let mut outlook = self.outlook();
        for (need, nodeset) in std::mem::take(&mut self.promised) {
            // It had place before those were served who came later, and goes first.
            let _ = outlook.places(&[need], nodeset.as_slice());
        }
        for unplaced in std::mem::take(&mut self.unplaced_jobs)
            .into_iter()
            .take(MOST_JOBS)
        {
            if outlook.spare.is_empty() {
                return;
            }
            let needs = unplaced.vms.sizes().iter().flat_map(|(shape, count)| {
                let need = self.takes(shape);
                (0..*count).map(move |_| need)
            });
            let needs: Vec<Resources> = needs.collect();
            let Some(gave) = outlook.places(&needs, &unplaced.of) else {
                continue;
            };
            let Some(held) = self.plan.held.get_mut(unplaced.held) else {
                continue;
            };
            let why = format!("{} {}", held.subject, held.why);
            held.why += &ways(&gave);
            self.give_way(&gave, &why);
        }
    }

    fn give_way(&mut self, gave: &[Spare<'a>], why: &str) {
        for spare in gave {
            let idle = self.world.now.since(spare.idle);
            self.step(
                Action::Node(spare.node.clone(), NodeVerb::EndWithJob(EndWhy::GivesWay)),
                format!("idle for {idle}; {why}"),
            );
        }
    }

    fn whom(&self, node: &NodeName, record: &NodeRecord) -> String {
        match record.jobs.first() {
            Some(job) => format!("node {node} of job {job}"),
            None => format!("node {node}"),
        }
    }

    /// How long a node waits while others give way: as long as a VM may take to end.
    fn way_patience(&self) -> Millis {
        let policy = &self.world.policy;
        Millis(
            policy
                .capacity_patience
                .0
                .saturating_add(policy.terminate_grace.0),
        )
    }

    fn outlook(&mut self) -> Outlook<'a> {
        let world = self.world;
        let mut ledger = self.ledger().clone();
        let mut vms_left = self.total_left;
        let steps = self.plan.steps.iter();
        let steps = steps.filter_map(|step| Some((step.action.node()?, &step.action)));
        let steps: HashMap<&NodeName, &Action> = steps.collect();
        for (node, record) in &world.records {
            let Some(vm) = &record.vm else { continue };
            let ends = match steps.get(node) {
                // It may be of another VM of the node.
                Some(Action::Vm(tag, VmVerb::Destroy { id, .. })) => vm.is(tag.generation, id.as_ref()),
                Some(Action::Node(_, NodeVerb::EndWithJob(EndWhy::GivesWay))) => true,
                Some(Action::Vm(..) | Action::Node(..) | Action::Job(..)) | None => false,
            };
            if !(ends || self.is_leaving(node, vm)) {
                continue;
            }
            vms_left += 1;
            if let (Some(host), Some(takes)) = (&vm.host, self.taken_by(node, vm)) {
                ledger.give_back(host, &takes);
            }
        }
        let jobs = self.jobs_on_nodes();
        let spare = world.idle.iter().filter_map(|(node, idle)| {
            let (node, record) = world.records.get_key_value(node)?;
            let vm = record.vm.as_ref()?;
            let free = !steps.contains_key(node) && !world.busy.contains(node);
            let spare = free && !self.is_leaving(node, vm) && is_spare(world, node, jobs);
            let host = vm.host.as_ref().filter(|_| spare)?;
            let takes = self.taken_by(node, vm)?;
            Some((
                *idle,
                vm.since,
                Spare {
                    node,
                    host,
                    takes,
                    idle: *idle,
                },
            ))
        });
        let mut spare: Vec<_> = spare.collect();
        spare.sort_by_key(|(idle, since, spare)| (*idle, *since, spare.node));
        Outlook {
            ledger,
            vms_left,
            spare: spare.into_iter().map(|(_, _, spare)| spare).collect(),
        }
    }

    /// Whether a VM is on its way out, as far as it shows.
    fn is_leaving(&self, node: &NodeName, vm: &VmRecord) -> bool {
        match vm.life.part() {
            Part::Ending(_) | Part::Dead(_) => true,
            Part::Unconfirmed => false,
            Part::There if vm.kept.is_some_and(|until| until > self.world.now) => false,
            Part::There => {
                let powers_down = self.slurm_node(node).is_some_and(|seen| {
                    let f = &seen.flags;
                    f.powering_down || (f.power_down && seen.base == BaseState::Idle && !f.powering_up)
                });
                powers_down || self.world.give_way.contains(node)
            }
        }
    }

    /// What a VM takes from its host, as the ledger counts it.
    fn taken_by(&self, node: &NodeName, vm: &VmRecord) -> Option<Resources> {
        let of_node = self.world.specs.get(node).map(|spec| &spec.shape);
        let takes = Resources::of_record(vm, of_node, &self.world.policy)?;
        let seen = vm.id.as_ref().and_then(|id| self.shown(id));
        Some(match seen.filter(|seen| seen.host.is_some()) {
            Some(seen) => Resources::of_shown(seen).and(takes.unlisted()),
            None => takes,
        })
    }
}

/// Behind what somebody lacks: how that comes to an end.
fn ways(gave: &[Spare<'_>]) -> String {
    let names = hostlist::fold(gave.iter().map(|spare| spare.node));
    match gave {
        [] => "; it gets what is being freed now".to_owned(),
        [_] => format!("; {names} is idle and gives way"),
        _ => format!("; {names} are idle and give way"),
    }
}
