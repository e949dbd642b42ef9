//! What is about to be done.

use crate::plan::Action;
use crate::world::{Phase, Starts, VmRecord, World};

impl World {
    /// Records that `action` is about to be executed: from now on its node is busy.
    /// To be kept in the store *before* the provider or Slurm is asked.
    pub fn begin(&mut self, action: &Action) {
        let now = self.now;
        if let Some(node) = action.node() {
            self.busy.insert(node.clone());
        }
        match action {
            Action::CreateVm { tag, host, spec, .. } => {
                let record = self.records.entry(tag.node.clone()).or_default();
                record.generation = record.generation.max(tag.generation);
                record.vm.get_or_insert_with(|| VmRecord {
                    generation: tag.generation,
                    id: None,
                    host: Some(host.clone()),
                    spec: Some(spec.clone()),
                    phase: Phase::Asked,
                    asked: now,
                    since: now,
                    missing_since: None,
                    kept: None,
                    starts: Starts::default(),
                });
            }
            Action::DestroyVm { tag, id, cause, .. } => {
                let ours = self
                    .records
                    .get_mut(&tag.node)
                    .and_then(|record| record.vm.as_mut());
                if let Some(vm) = ours.filter(|vm| vm.is(tag.generation, id.as_ref())) {
                    let phase = Phase::Destroying { cause: cause.clone() };
                    // Asked again, it has been ending since the first time.
                    if vm.phase != phase {
                        vm.enter(phase, now);
                    }
                }
            }
            Action::StartNow { job } => {
                self.jobs_started.insert(*job);
            }
            Action::Admit { job, .. }
            | Action::CloseGate { job, .. }
            | Action::PutBack { job, .. }
            | Action::FinishPutBack { job, .. }
            | Action::TurnAway { job, .. } => {
                self.busy_jobs.insert(*job);
            }
            Action::StartSlurmd { .. }
            | Action::SetDown { .. }
            | Action::ReturnNode { .. }
            | Action::EndWithJob { .. }
            | Action::PowerDown { .. } => {}
        }
    }
}
