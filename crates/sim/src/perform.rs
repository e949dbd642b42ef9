//! Carries out actions in the simulated world, as the executor does in the real one, and
//! sees which jobs they meet.

use crate::faults::{Fault, Faults};
use crate::provider::Provider;
use crate::slurm::{BROKEN, DRAINED, Slurm};
use thiao_core::fold::Outcome;
use thiao_core::ids::{HostName, JobId, Millis, NodeName, Time, VmTag};
use thiao_core::plan::{Action, EndWhy, JobVerb, NodeVerb, VmVerb};
use thiao_core::view::VmSpec;

/// A moment at which a job may have been lost to us.
#[derive(Debug, Clone)]
pub struct Harm {
    pub action: Action,
    /// The start of the observation of Slurm that it was decided on.
    pub known: Time,
    /// For how long no listing had shown the VM when it was decided; none: it never was shown.
    pub unshown: Option<Millis>,
    /// The job that ran there on a VM that lived, and since when.
    pub job: (JobId, Time),
}

/// The job that runs on a living VM where `action`, decided on an observation that began at `known`, ends
/// the VM or takes the node down.
pub fn harm(
    action: &Action,
    known: Time,
    unshown: Option<Millis>,
    slurm: &Slurm,
    provider: &Provider,
) -> Option<Harm> {
    let node = match action {
        Action::Vm(tag, VmVerb::Destroy { .. }) => &tag.node,
        Action::Node(node, NodeVerb::SetDown { .. } | NodeVerb::PowerDown) => node,
        Action::Vm(_, VmVerb::Create { .. } | VmVerb::StartSlurmd { .. })
        | Action::Node(_, NodeVerb::Return | NodeVerb::Undrain { .. } | NodeVerb::EndWithJob(_))
        | Action::Job(..) => return None,
    };
    let backed = slurm.nodes.get(node)?.backed.as_ref()?;
    let vm = provider.vms.get(backed).filter(|vm| vm.works())?;
    if let Action::Vm(tag, VmVerb::Destroy { id, .. }) = action {
        let meant = id.as_ref().is_none_or(|id| id == backed);
        vm.view.tag.as_ref().filter(|own| *own == tag && meant)?;
    }
    Some(Harm {
        action: action.clone(),
        known,
        unshown,
        job: slurm.running_on(node)?,
    })
}

/// Whether the action, decided on an observation that began at `known`, lifts what an admin had set before.
pub fn meddled(action: &Action, known: Time, slurm: &Slurm) -> Option<String> {
    let Action::Node(node, verb) = action else {
        return None;
    };
    let seen = slurm.nodes.get(node)?;
    let says = |text| seen.reason.as_ref().is_some_and(|reason| reason.text == text);
    match verb {
        NodeVerb::Return => (seen.down && says(BROKEN) && seen.admin_down < known)
            .then(|| format!("{node} was given back, which an admin had set DOWN: {BROKEN}")),
        NodeVerb::EndWithJob(EndWhy::GivesWay) => (seen.drain && says(DRAINED) && seen.admin_drained < known)
            .then(|| format!("{node} gave way, which an admin had drained: {DRAINED}")),
        NodeVerb::Undrain { .. } => (seen.drain && says(DRAINED) && seen.admin_drained < known)
            .then(|| format!("{node} was undrained, which an admin had drained: {DRAINED}")),
        NodeVerb::EndWithJob(_) | NodeVerb::SetDown { .. } | NodeVerb::PowerDown => None,
    }
}

/// The world outside, as actions meet it at one instant.
struct Outside<'a> {
    slurm: &'a mut Slurm,
    provider: &'a mut Provider,
    faults: &'a Faults,
    now: Time,
}

/// Does what the action says to the world outside; tells how it ended.
pub fn perform(
    action: &Action,
    slurm: &mut Slurm,
    provider: &mut Provider,
    faults: &Faults,
    now: Time,
) -> Outcome {
    let mut outside = Outside {
        slurm,
        provider,
        faults,
        now,
    };
    match action {
        Action::Vm(tag, verb) => outside.vm(tag, verb),
        Action::Node(node, verb) => outside.node(node, verb),
        Action::Job(job, verb) => outside.job(*job, verb),
    }
}

impl Outside<'_> {
    fn create(&mut self, tag: &VmTag, host: &HostName, spec: &VmSpec) -> Outcome {
        if self.faults.strikes(Fault::CreateHeld) {
            self.provider.create_held(tag, spec);
            return unheard();
        }
        match self.provider.create(tag, host, spec, self.faults, self.now) {
            _ if self.faults.strikes(Fault::CreateUnanswered) => unheard(),
            Ok(id) => Outcome::Created(id),
            Err(why) => Outcome::NotCreated(why),
        }
    }

    fn vm(&mut self, tag: &VmTag, verb: &VmVerb) -> Outcome {
        match verb {
            VmVerb::Create { host, spec, .. } => self.create(tag, host, spec),
            VmVerb::StartSlurmd { .. } | VmVerb::Destroy { .. } if self.faults.strikes(Fault::ActFails) => {
                unheard()
            }
            VmVerb::StartSlurmd { id, number, asked } => {
                let after = Time((asked.0 / 1000 + 1) * 1000).max(self.now);
                match self.provider.start_slurmd(tag, id.as_ref(), *number, after) {
                    true => self.answered(Outcome::Done),
                    false => Outcome::Failed("there is no such VM".into()),
                }
            }
            VmVerb::Destroy { id, hard, .. } => {
                let (faults, now) = (self.faults, self.now);
                match self.provider.destroy(tag, id.as_ref(), *hard, faults, now) {
                    true => self.answered(Outcome::Done),
                    false => self.answered(Outcome::Ending("SHUTDOWN".into())),
                }
            }
        }
    }

    fn node(&mut self, node: &NodeName, verb: &NodeVerb) -> Outcome {
        let now = self.now;
        let seen = self.slurm.nodes.get(node);
        let knows = seen.is_some_and(|node| node.unknown_until <= now);
        if !(self.slurm.answers(now) && knows) || self.faults.strikes(Fault::ActFails) {
            return unheard();
        }
        match verb {
            NodeVerb::SetDown { reason, .. } => {
                let provider = &*self.provider;
                self.slurm.set_down(node, reason, |vm| provider.works(vm), now);
            }
            NodeVerb::Return => self.slurm.return_to_service(node, now),
            NodeVerb::Undrain { .. } => self.slurm.undrain(node),
            NodeVerb::EndWithJob(_) => self.slurm.end_with_job(node),
            NodeVerb::PowerDown => self.slurm.power_down_now(node, now),
        }
        self.answered(Outcome::Done)
    }

    fn job(&mut self, job: JobId, verb: &JobVerb) -> Outcome {
        let now = self.now;
        if !self.slurm.answers(now) || self.faults.strikes(Fault::ActFails) {
            return unheard();
        }
        match verb {
            JobVerb::StartNow => self.slurm.start_now(job),
            JobVerb::Admit { array, nodes, .. } => self.slurm.admit(job, array.as_ref(), *nodes),
            JobVerb::CloseGate { array, .. } => self.slurm.close_gate(job, array.as_ref()),
            JobVerb::PutBack { comment, .. } => {
                let whole = !self.faults.strikes(Fault::ActFails);
                if !(self.slurm.put_back(job, comment, whole, now) && whole) {
                    return unheard();
                }
            }
            JobVerb::FinishPutBack { .. } => self.slurm.finish_put_back(job),
            JobVerb::Refuse { .. } => self.slurm.cancel(job, now),
            JobVerb::TurnAway { why, .. } => {
                let whole = !self.faults.strikes(Fault::ActFails);
                self.slurm.turn_away(job, why, whole, now);
                if !whole {
                    return unheard();
                }
            }
        }
        self.answered(Outcome::Done)
    }

    /// What is heard of something that was done.
    fn answered(&self, outcome: Outcome) -> Outcome {
        match self.faults.strikes(Fault::ActUnanswered) {
            true => unheard(),
            false => outcome,
        }
    }
}

fn unheard() -> Outcome {
    Outcome::Failed("nothing was heard of it".into())
}
