//! Folds what came of actions.

use crate::ids::{JobId, NodeName, VmId, VmTag};
use crate::note::{Note, Subject};
use crate::options::put_back_reason;
use crate::plan::Action;
use crate::world::{Starts, World};

/// What came of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A VM was made, which the provider calls so.
    Created(VmId),
    /// A VM was surely not made, or what was made is dead; why.
    NotCreated(String),
    /// It is done; a VM's end: it is gone.
    Done,
    /// A VM's end has begun; how far it is.
    Ending(String),
    /// It was refused, failed or not heard of: it may have happened or not; why.
    Failed(String),
}

impl Outcome {
    /// For the journal.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Created(_) | Self::Done | Self::Ending(_) => "done".into(),
            Self::NotCreated(why) | Self::Failed(why) => format!("failed: {why}"),
        }
    }
}

impl World {
    /// Folds what came of an action that had begun. A node whose action failed stays busy:
    /// the caller releases it after a pause ([`World::release`]), so that a refused call is
    /// not repeated at once. The second value says whether that is so.
    pub fn ended(&mut self, action: &Action, outcome: &Outcome) -> (Vec<Note>, bool) {
        let (notes, pauses) = self.fold_outcome(action, outcome);
        if let Some(node) = action.node().filter(|_| !pauses) {
            self.busy.remove(node);
        }
        if let Some(job) = action.job().filter(|job| self.busy_jobs.contains(job)) {
            self.job_action_ended(job);
        }
        (notes, pauses)
    }

    /// The guest of the VM with this tag knows that it is to start slurmd for the `number`th time.
    fn told_to_start(&mut self, tag: &VmTag, number: u32) -> Option<Note> {
        let (now, most) = (self.now, self.policy.slurmd_starts);
        let record = self.records.get_mut(&tag.node)?;
        let vm = record.vm.as_mut().filter(|vm| vm.generation == tag.generation)?;
        vm.starts = Starts {
            times: number,
            last: now,
        };
        let (kind, text) = match number {
            1 => (
                "slurmd-asked",
                "Slurm has asked for it: its slurmd may start".to_owned(),
            ),
            number => {
                let text = format!(
                    "Slurm has not heard its slurmd: started again (start {number} of at most {most})"
                );
                ("slurmd-again", text)
            }
        };
        Some(Note::vm(&tag.node, tag.generation, kind, text))
    }

    /// A node's pause after a failed action is over.
    pub fn release(&mut self, node: &NodeName) {
        self.busy.remove(node);
    }

    fn fold_outcome(&mut self, action: &Action, outcome: &Outcome) -> (Vec<Note>, bool) {
        let failure = match outcome {
            Outcome::Failed(why) => Some(why.as_str()),
            Outcome::Created(_) | Outcome::NotCreated(_) | Outcome::Done | Outcome::Ending(_) => None,
        };
        match action {
            Action::CreateVm { tag, .. } => match outcome {
                Outcome::Created(id) => (self.created(&tag.node, id.clone()).into_iter().collect(), false),
                Outcome::NotCreated(why) => (self.create_failed(&tag.node, why).into_iter().collect(), false),
                // "Done" without an id says as little.
                Outcome::Failed(_) | Outcome::Done | Outcome::Ending(_) => {
                    let why = failure.unwrap_or("nothing was said of it");
                    let text = format!("its VM's creation was not confirmed: {why}; asked again");
                    (vec![Note::node(&tag.node, "vm-unsure", text)], true)
                }
            },
            Action::StartSlurmd { tag, number, .. } => match failure {
                None => (self.told_to_start(tag, *number).into_iter().collect(), false),
                Some(why) => {
                    let text = format!("its guest could not be told to start slurmd: {why}; tried again");
                    (
                        vec![Note::vm(&tag.node, tag.generation, "slurmd-not-asked", text)],
                        true,
                    )
                }
            },
            Action::DestroyVm { tag, id, .. } => match outcome {
                Outcome::Done => (self.destroyed(tag, id.as_ref()), false),
                Outcome::Ending(what) => {
                    let text = format!("is being ended: {what}");
                    self.ending(tag);
                    // A VM that backs its node is waited for by the planner; a stray has no record.
                    let vm = self.records.get(&tag.node).and_then(|record| record.vm.as_ref());
                    let backs = vm.is_some_and(|vm| vm.is(tag.generation, id.as_ref()));
                    (
                        vec![Note::vm(&tag.node, tag.generation, "vm-ending", text)],
                        !backs,
                    )
                }
                Outcome::Failed(_) | Outcome::Created(_) | Outcome::NotCreated(_) => {
                    let why = failure.unwrap_or("nothing was said of it");
                    let text = format!("could not be destroyed: {why}; tried again");
                    (
                        vec![Note::vm(&tag.node, tag.generation, "destroy-failed", text)],
                        true,
                    )
                }
            },
            Action::SetDown { node, reason, jobs } => match failure {
                None => (self.told_down(node, reason, jobs), false),
                Some(error) => refused(node, "set it DOWN", error),
            },
            Action::ReturnNode { node } => match failure {
                None => (self.returned(node).into_iter().collect(), false),
                Some(error) => refused(node, "take it back", error),
            },
            Action::EndWithJob { node } => match failure {
                None => {
                    self.ends_with_job(node);
                    let text = "Slurm was asked to power it down as soon as its job is over";
                    (vec![Note::node(node, "own-node", text)], false)
                }
                Some(error) => refused(node, "take it for one job's alone", error),
            },
            Action::PowerDown { node } => match failure {
                None => {
                    self.ends_with_job(node);
                    let text = "Slurm was asked to power it down: its job is over";
                    (vec![Note::node(node, "own-node", text)], false)
                }
                Some(error) => refused(node, "power it down", error),
            },
            Action::StartNow { job } => {
                let text = match failure {
                    None => "let start at once: Slurm requeued it because its node was DOWN".to_owned(),
                    Some(error) => format!("could not be let start at once: {error}"),
                };
                (vec![Note::new(Subject::Job(*job), "job-start-now", text)], false)
            }
            Action::Admit { job, .. } => {
                let text = "let go: there is room for its VMs, and Slurm may start it";
                let done = Note::new(Subject::Job(*job), "job-let-go", text);
                (
                    vec![failed_deed(*job, "letting it go", failure).unwrap_or(done)],
                    false,
                )
            }
            Action::CloseGate { job, .. } => {
                let failed = failed_deed(*job, "letting it wait for room again", failure);
                (vec![failed.unwrap_or_else(|| self.gate_closed(*job))], false)
            }
            Action::PutBack { job, comment, .. } => {
                let note = match failure {
                    None => self.put_back(*job, put_back_reason(comment).unwrap_or(comment)),
                    Some(error) => self.not_put_back(*job, error),
                };
                (vec![note], false)
            }
            Action::TurnAway { job, from, .. } => {
                let text = format!(
                    "is back in the queue, and kept from {from}: its partition has nodes of job mode, where no VM is made for it"
                );
                let done = Note::new(Subject::Job(*job), "job-turned-away", text);
                let note = match failure {
                    None => done,
                    Some(error) => self.not_put_back(*job, error),
                };
                (vec![note], false)
            }
            Action::FinishPutBack { job, .. } => {
                let text = "is back in the queue: what began that had been cut short";
                let done = Note::new(Subject::Job(*job), "job-put-back", text);
                let failed = failed_deed(*job, "finishing to put it back into the queue", failure);
                (vec![failed.unwrap_or(done)], false)
            }
        }
    }
}

fn refused(node: &NodeName, what: &str, error: &str) -> (Vec<Note>, bool) {
    let text = format!("Slurm did not {what}: {error}; tried again");
    (vec![Note::node(node, "slurm-refused", text)], true)
}

fn failed_deed(job: JobId, what: &str, failure: Option<&str>) -> Option<Note> {
    let text = format!("{what} failed: {}; tried again if it still holds", failure?);
    Some(Note::new(Subject::Job(job), "slurm-refused", text))
}
