//! What is about to be done.

use crate::ids::VmTag;
use crate::plan::{Action, EndWhy, JobVerb, NodeVerb, VmVerb};
use crate::vm::{Life, VmRecord};
use crate::world::World;

impl World {
    /// Records that `action` is about to be executed: from now on its node is busy.
    /// To be kept in the store *before* the provider or Slurm is asked.
    pub fn begin(&mut self, action: &Action) {
        if let Some(node) = action.node() {
            self.busy.insert(node.clone());
        }
        match action {
            Action::Vm(tag, verb) => self.begin_vm(tag, verb),
            Action::Node(node, NodeVerb::EndWithJob(EndWhy::GivesWay)) => {
                self.give_way.insert(node.clone());
            }
            Action::Node(..) => {}
            Action::Job(job, JobVerb::StartNow) => {
                self.jobs_started.insert(*job);
            }
            Action::Job(
                job,
                JobVerb::Admit { .. }
                | JobVerb::CloseGate { .. }
                | JobVerb::PutBack { .. }
                | JobVerb::FinishPutBack { .. }
                | JobVerb::TurnAway { .. }
                | JobVerb::Refuse { .. },
            ) => {
                self.busy_jobs.insert(*job);
            }
        }
    }

    fn begin_vm(&mut self, tag: &VmTag, verb: &VmVerb) {
        let now = self.now;
        match verb {
            VmVerb::Create { host, spec, .. } => {
                let record = self.records.or_default(&tag.node);
                record.generation = record.generation.max(tag.generation);
                record
                    .vm
                    .get_or_insert_with(|| VmRecord::asked(tag.generation, host.clone(), spec.clone(), now));
            }
            VmVerb::StartSlurmd { .. } => {}
            VmVerb::Destroy { id, cause, .. } => {
                let record = self.records.get_mut(&tag.node);
                let ours = record.and_then(|record| record.vm.as_mut());
                if let Some(vm) = ours.filter(|vm| vm.is(tag.generation, id.as_ref())) {
                    // Asked again, it has been ending since the first time.
                    vm.enter(Life::Ending { cause: cause.clone() }, now);
                }
            }
        }
    }
}
