//! Carries out actions in the simulated world, as the executor does in the real one, and
//! sees which jobs they meet.

use crate::faults::{Fault, Faults};
use crate::provider::Provider;
use crate::slurm::{BROKEN, Slurm};
use thiao_core::fold::Outcome;
use thiao_core::ids::{JobId, Millis, Time};
use thiao_core::plan::Action;

/// A moment at which a job may have been lost to us.
#[derive(Debug, Clone)]
pub struct Harm {
    /// What we did.
    pub action: Action,
    /// The start of the look at Slurm that it was decided on.
    pub known: Time,
    /// For how long no listing had shown the VM when it was decided; none: it never was shown.
    pub unshown: Option<Millis>,
    /// The job that ran there on a VM that lived, and since when.
    pub job: (JobId, Time),
}

/// The job that runs on a living VM where `action`, decided on a look that began at `known`, ends
/// the VM or takes the node down.
pub fn harm(
    action: &Action,
    known: Time,
    unshown: Option<Millis>,
    slurm: &Slurm,
    provider: &Provider,
) -> Option<Harm> {
    let node = match action {
        Action::DestroyVm { tag, .. } => &tag.node,
        Action::SetDown { node, .. } | Action::PowerDown { node } => node,
        Action::CreateVm { .. }
        | Action::StartSlurmd { .. }
        | Action::ReturnNode { .. }
        | Action::StartNow { .. }
        | Action::Admit { .. }
        | Action::CloseGate { .. }
        | Action::PutBack { .. }
        | Action::FinishPutBack { .. }
        | Action::TurnAway { .. }
        | Action::EndWithJob { .. } => return None,
    };
    let backed = slurm.nodes.get(node)?.backed.as_ref()?;
    let vm = provider.vms.get(backed).filter(|vm| vm.works())?;
    if let Action::DestroyVm { tag, id, .. } = action {
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

/// Whether the action, decided on a look that began at `known`, lifts what an admin had set before.
pub fn meddled(action: &Action, known: Time, slurm: &Slurm) -> Option<String> {
    let Action::ReturnNode { node } = action else {
        return None;
    };
    let seen = slurm.nodes.get(node)?;
    let broken = seen.reason.as_ref().is_some_and(|reason| reason.text == BROKEN);
    (seen.down && broken && seen.admin_down < known)
        .then(|| format!("{node} was given back, which an admin had set DOWN: {BROKEN}"))
}

/// Does what the action says to the world outside; tells how it ended.
pub fn perform(
    action: &Action,
    slurm: &mut Slurm,
    provider: &mut Provider,
    faults: &Faults,
    now: Time,
) -> Outcome {
    if let Action::CreateVm { tag, host, spec, .. } = action {
        if faults.strikes(Fault::CreateHeld) {
            provider.create_held(tag, spec);
            return unheard();
        }
        return match provider.create(tag, host, spec, faults, now) {
            _ if faults.strikes(Fault::CreateUnanswered) => unheard(),
            Ok(id) => Outcome::Created(id),
            Err(why) => Outcome::NotCreated(why),
        };
    }
    let slurm_knows =
        |node| slurm.answers(now) && slurm.nodes.get(node).is_some_and(|n| n.unknown_until <= now);
    let possible = match action {
        Action::CreateVm { .. } | Action::StartSlurmd { .. } | Action::DestroyVm { .. } => true,
        Action::SetDown { node, .. }
        | Action::ReturnNode { node }
        | Action::EndWithJob { node }
        | Action::PowerDown { node } => slurm_knows(node),
        Action::StartNow { .. }
        | Action::Admit { .. }
        | Action::CloseGate { .. }
        | Action::PutBack { .. }
        | Action::FinishPutBack { .. }
        | Action::TurnAway { .. } => slurm.answers(now),
    };
    if !possible || faults.strikes(Fault::ActFails) {
        return unheard();
    }
    match action {
        Action::CreateVm { .. } => {}
        Action::StartSlurmd {
            tag,
            id,
            number,
            asked,
        } => {
            let after = Time((asked.0 / 1000 + 1) * 1000);
            if !provider.start_slurmd(tag, id.as_ref(), *number, after.max(now)) {
                return Outcome::Failed("there is no such VM".into());
            }
        }
        Action::DestroyVm { tag, id, hard, .. } => {
            if !provider.destroy(tag, id.as_ref(), *hard, faults, now) {
                return if faults.strikes(Fault::ActUnanswered) {
                    unheard()
                } else {
                    Outcome::Ending("SHUTDOWN".into())
                };
            }
        }
        Action::SetDown { node, reason, .. } => slurm.set_down(node, reason, |vm| provider.works(vm), now),
        Action::ReturnNode { node } => slurm.return_to_service(node, now),
        Action::StartNow { job } => slurm.start_now(*job),
        Action::Admit {
            job, array, nodes, ..
        } => slurm.admit(*job, array.as_ref(), *nodes),
        Action::CloseGate { job, array, .. } => slurm.close_gate(*job, array.as_ref()),
        Action::PutBack { job, comment, .. } => {
            let whole = !faults.strikes(Fault::ActFails);
            if !(slurm.put_back(*job, comment, whole, now) && whole) {
                return unheard();
            }
        }
        Action::FinishPutBack { job, .. } => slurm.finish_put_back(*job),
        Action::TurnAway { job, why, .. } => {
            let whole = !faults.strikes(Fault::ActFails);
            slurm.turn_away(*job, why, whole, now);
            if !whole {
                return unheard();
            }
        }
        Action::EndWithJob { node } => slurm.end_with_job(node),
        Action::PowerDown { node } => slurm.power_down_now(node, now),
    }
    if faults.strikes(Fault::ActUnanswered) {
        unheard()
    } else {
        Outcome::Done
    }
}

fn unheard() -> Outcome {
    Outcome::Failed("nothing was heard of it".into())
}
