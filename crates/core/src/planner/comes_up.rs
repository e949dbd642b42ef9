//! VMs on their way up: when their guests are told to start slurmd.

use super::Planner;
use crate::evidence::asked_by_slurm;
use crate::ids::{NodeName, Time};
use crate::plan::{Action, VmVerb};
use crate::vm::{Registration, Starts, VmRecord};
use crate::world::{Desired, NodeRecord};

/// Why a VM of job mode that was found is not brought up.
pub(super) const FOR_WHOM: &str = "for which job it was made is not known";

impl Planner<'_> {
    /// A VM that the provider has, and that Slurm does not show up yet.
    pub(super) fn comes_up(&mut self, node: &NodeName, vm: &VmRecord) {
        let Starts { times, .. } = vm.starts;
        let asked = asked_by_slurm(self.world, node);
        match asked {
            _ if !self.world.policy.guests_wait => {}
            _ if self.world.is_of_unknown_job(node) => {
                return self.hold(
                    node,
                    format!("slurmd is not started in VM {node}.{}: {FOR_WHOM}", vm.generation),
                );
            }
            Some(asked) if times == 0 => {
                return self.start_slurmd(node, vm, asked, "Slurm has asked for the node");
            }
            Some(_) if self.is_unheard(node, vm) => {
                // It may have asked anew since.
                let asked = self.world.now;
                return self.start_slurmd(node, vm, asked, "Slurm waits for it and has not heard from it");
            }
            None if times == 0 => return self.waits_for_slurm(node),
            Some(_) | None => {}
        }
        self.hold(node, format!("its VM {node}.{} is {}", vm.generation, vm.word()));
    }

    /// Whether a VM would start slurmd by itself, before Slurm asks for the node.
    pub fn is_too_early(&self, record: &NodeRecord) -> bool {
        matches!(record.desired, Desired::Early { .. }) && !self.world.policy.guests_wait
    }

    /// A node that a job has and that Slurm has not asked for.
    pub fn waits_for_slurm(&mut self, node: &NodeName) {
        let text = match self.world.policy.guests_wait {
            true => "its slurmd starts when Slurm asks for the node, which it does within a second or two",
            false => "its VM is made when Slurm asks for it, which it does within a second or two",
        };
        self.hold(node, text);
    }

    fn start_slurmd(&mut self, node: &NodeName, vm: &VmRecord, asked: Time, why: &str) {
        let action = Action::Vm(
            self.world.tag(node, vm.generation),
            VmVerb::StartSlurmd {
                id: vm.id.clone(),
                number: vm.starts.times + 1,
                asked,
            },
        );
        self.step(action, why);
    }

    /// Whether Slurm still waits for the node long after its slurmd was started: it takes that for
    /// one from before its request, and would do so until ResumeTimeout.
    fn is_unheard(&self, node: &NodeName, vm: &VmRecord) -> bool {
        let (world, policy) = (self.world, &self.world.policy);
        let waits = self.slurm_node(node).is_some_and(|seen| seen.flags.powering_up);
        let ran = world.slurm_began.since(vm.since.max(vm.starts.last));
        let more = vm.starts.times < policy.slurmd_starts;
        vm.registration == Registration::GuestReady && waits && more && ran >= policy.unheard_grace
    }
}
