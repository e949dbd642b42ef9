//! Folds what came of actions.

use crate::event::{Event, Kind, Subject};
use crate::ids::{JobId, NodeName, VmId, VmTag};
use crate::options::put_back_reason;
use crate::plan::{Action, EndWhy, JobVerb, NodeVerb, VmVerb};
use crate::vm::Starts;
use crate::world::World;

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
    /// What the journal keeps of it.
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
    pub fn ended(&mut self, action: &Action, outcome: &Outcome) -> (Vec<Event>, bool) {
        let (events, pauses) = self.fold_outcome(action, outcome);
        if let Some(node) = action.node().filter(|_| !pauses) {
            self.busy.remove(node);
        }
        if let Some(job) = action.job().filter(|job| self.busy_jobs.contains(job)) {
            self.job_action_ended(job);
        }
        (events, pauses)
    }

    /// The guest of the VM with this tag knows that it is to start slurmd for the `number`th time.
    fn told_to_start(&mut self, tag: &VmTag, number: u32) -> Option<Event> {
        let (now, most) = (self.now, self.policy.slurmd_starts);
        let record = self.records.get_mut(&tag.node)?;
        let vm = record.vm.as_mut().filter(|vm| vm.generation == tag.generation)?;
        vm.starts = Starts {
            times: number,
            last: now,
        };
        let (kind, text) = match number {
            1 => (
                Kind::SlurmdAsked,
                "Slurm has asked for it: its slurmd may start".to_owned(),
            ),
            number => {
                let text = format!(
                    "Slurm has not heard from its slurmd: started again (start {number} of at most {most})"
                );
                (Kind::SlurmdAgain, text)
            }
        };
        Some(Event::vm(&tag.node, tag.generation, kind, text))
    }

    /// A node's pause after a failed action is over.
    pub fn release(&mut self, node: &NodeName) {
        self.busy.remove(node);
    }

    fn fold_outcome(&mut self, action: &Action, outcome: &Outcome) -> (Vec<Event>, bool) {
        let failure = match outcome {
            Outcome::Failed(why) => Some(why.as_str()),
            Outcome::Created(_) | Outcome::NotCreated(_) | Outcome::Done | Outcome::Ending(_) => None,
        };
        match action {
            Action::Vm(tag, verb) => self.fold_vm(tag, verb, outcome, failure),
            Action::Node(node, verb) => self.fold_node(node, verb, failure),
            Action::Job(job, verb) => (vec![self.fold_job(*job, verb, failure)], false),
        }
    }

    fn fold_vm(
        &mut self,
        tag: &VmTag,
        verb: &VmVerb,
        outcome: &Outcome,
        failure: Option<&str>,
    ) -> (Vec<Event>, bool) {
        let unsaid = failure.unwrap_or("it got no answer");
        match (verb, outcome) {
            (VmVerb::Create { .. }, Outcome::Created(id)) => {
                (self.created(&tag.node, id.clone()).into_iter().collect(), false)
            }
            (VmVerb::Create { .. }, Outcome::NotCreated(why)) => {
                (self.create_failed(&tag.node, why).into_iter().collect(), false)
            }
            // "Done" without an id says as little.
            (VmVerb::Create { .. }, Outcome::Failed(_) | Outcome::Done | Outcome::Ending(_)) => {
                let vm = self
                    .records
                    .get_mut(&tag.node)
                    .and_then(|record| record.vm.as_mut());
                if let Some(vm) = vm.filter(|vm| vm.generation == tag.generation && vm.life.is_unconfirmed())
                {
                    vm.aside.unmade = Some(unsaid.to_owned());
                }
                let text = format!("its VM's creation was not confirmed: {unsaid}; asked again");
                (vec![Event::node(&tag.node, Kind::VmUnsure, text)], true)
            }
            (VmVerb::StartSlurmd { .. }, Outcome::Failed(why)) => {
                let text = format!("its guest could not be told to start slurmd: {why}; tried again");
                (
                    vec![Event::vm(&tag.node, tag.generation, Kind::SlurmdNotAsked, text)],
                    true,
                )
            }
            (
                VmVerb::StartSlurmd { number, .. },
                Outcome::Created(_) | Outcome::NotCreated(_) | Outcome::Done | Outcome::Ending(_),
            ) => (self.told_to_start(tag, *number).into_iter().collect(), false),
            (VmVerb::Destroy { id, .. }, Outcome::Done) => (self.destroyed(tag, id.as_ref()), false),
            (VmVerb::Destroy { id, .. }, Outcome::Ending(what)) => {
                let text = format!("is being ended: {what}");
                self.ending(tag);
                // A VM that backs its node is waited for by the planner; a stray has no record.
                let vm = self.records.get(&tag.node).and_then(|record| record.vm.as_ref());
                let backs = vm.is_some_and(|vm| vm.is(tag.generation, id.as_ref()));
                (
                    vec![Event::vm(&tag.node, tag.generation, Kind::VmEnding, text)],
                    !backs,
                )
            }
            (VmVerb::Destroy { .. }, Outcome::Failed(_) | Outcome::Created(_) | Outcome::NotCreated(_)) => {
                let text = format!("could not be destroyed: {unsaid}; tried again");
                (
                    vec![Event::vm(&tag.node, tag.generation, Kind::DestroyFailed, text)],
                    true,
                )
            }
        }
    }

    fn fold_node(&mut self, node: &NodeName, verb: &NodeVerb, failure: Option<&str>) -> (Vec<Event>, bool) {
        if let Some(error) = failure {
            self.give_way.remove(node);
            let what = match verb {
                NodeVerb::SetDown { .. } => "set it DOWN",
                NodeVerb::Return => "take it back",
                NodeVerb::Undrain { .. } => "undrain it",
                NodeVerb::EndWithJob(EndWhy::GivesWay) => "power it down, which is idle",
                NodeVerb::EndWithJob(_) => "keep it from further jobs",
                NodeVerb::PowerDown => "power it down",
            };
            let text = format!("Slurm did not {what}: {error}; tried again");
            return (vec![Event::node(node, Kind::SlurmRefused, text)], true);
        }
        let events = match verb {
            NodeVerb::SetDown { reason, jobs } => self.told_down(node, reason, jobs),
            NodeVerb::Return => self.returned(node).into_iter().collect(),
            NodeVerb::Undrain { was } => {
                self.acted_on(node);
                let text = format!(
                    "Slurm had drained it (\"{was}\"): that was about its VM, which is gone, and it is undrained"
                );
                vec![Event::node(node, Kind::NodeUndrained, text)]
            }
            NodeVerb::EndWithJob(why) => {
                self.acted_on(node);
                let (kind, text) = match why {
                    // Told with its cause when it began; Slurm's order follows.
                    EndWhy::GivesWay => return (Vec::new(), false),
                    EndWhy::OneJob => (
                        Kind::NodeEndsWithJob,
                        "Slurm was asked to power it down as soon as its job is over",
                    ),
                    EndWhy::NoPartition => (
                        Kind::NodeLeft,
                        "it is in no partition any more: Slurm was asked to power it down as soon as its job is over",
                    ),
                    EndWhy::Strays => (
                        Kind::NodeEndsWithJob,
                        "it has more than one VM, and which one its jobs use is not known: Slurm was asked to power it down as soon as its job is over",
                    ),
                    EndWhy::Unheard => (
                        Kind::NodeEndsWithJob,
                        "the guest of its VM does not answer: Slurm was asked to power it down as soon as its job is over",
                    ),
                    EndWhy::Forgotten => (
                        Kind::NodeForgotten,
                        "Slurm was asked to power it down anew, so that it can be given to jobs again",
                    ),
                };
                vec![Event::node(node, kind, text)]
            }
            NodeVerb::PowerDown => {
                self.acted_on(node);
                let text = "Slurm was asked to power it down: its job is over";
                vec![Event::node(node, Kind::NodeEndsWithJob, text)]
            }
        };
        (events, false)
    }

    fn fold_job(&mut self, job: JobId, verb: &JobVerb, failure: Option<&str>) -> Event {
        let done = |kind: Kind, text: String| Event::new(Subject::Job(job), kind, text);
        let failed = |what: &str, why: &str| {
            let text = format!("{what} failed: {why}; tried again if it still holds");
            done(Kind::SlurmRefused, text)
        };
        match (verb, failure) {
            (JobVerb::StartNow, None) => {
                let text = "allowed to start at once: Slurm requeued it because its node was DOWN";
                done(Kind::JobStartNow, text.into())
            }
            (JobVerb::StartNow, Some(error)) => done(
                Kind::JobStartNow,
                format!("could not be allowed to start at once: {error}"),
            ),
            (JobVerb::Admit { .. }, None) => {
                let text = "admitted: there is capacity for its VMs, and Slurm may start it";
                done(Kind::JobAdmitted, text.into())
            }
            (JobVerb::Admit { .. }, Some(why)) => failed("admitting it", why),
            (JobVerb::CloseGate { .. }, None) => self.gate_closed(job),
            (JobVerb::CloseGate { .. }, Some(why)) => failed("letting it wait for capacity again", why),
            (JobVerb::PutBack { comment, .. }, None) => {
                self.put_back(job, put_back_reason(comment).unwrap_or(comment))
            }
            (JobVerb::PutBack { .. } | JobVerb::TurnAway { .. }, Some(error)) => {
                self.not_put_back(job, error)
            }
            (JobVerb::TurnAway { from, .. }, None) => {
                let text = format!(
                    "is back in the queue, and kept from {from}: its partition has nodes of job mode, where no VM is made for it"
                );
                done(Kind::JobTurnedAway, text)
            }
            (JobVerb::Refuse { why }, None) => done(Kind::JobRefused, format!("refused: {why}")),
            (JobVerb::Refuse { .. }, Some(error)) => failed("refusing it", error),
            (JobVerb::FinishPutBack { .. }, None) => {
                let text = "is back in the queue: putting it back had been interrupted";
                done(Kind::JobPutBack, text.into())
            }
            (JobVerb::FinishPutBack { .. }, Some(why)) => failed("putting it back into the queue", why),
        }
    }
}
