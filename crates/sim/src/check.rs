//! The design's invariants, asked of the simulated world's truth after every step.

use crate::controller::{Controller, Round, Sight};
use crate::faults::Fault;
use crate::outcome::{Broken, Invariant};
use crate::perform::Harm;
use crate::provider::{Provider, Vm};
use crate::setup::Setup;
use crate::slurm::{Call, Hook, Job, Slurm};
use std::collections::{BTreeMap, BTreeSet};
use thiao_core::ids::{HostName, JobId, Millis, NodeName, Time, VmId, VmTag};
use thiao_core::plan::{Action, NodeVerb, Step, VmVerb};
use thiao_core::planner::NO_HOST;
use thiao_core::view::Gate;
use thiao_core::vm::Cause;
use thiao_core::world::Mode;

/// Remembers what the invariants speak of.
#[derive(Debug, Default)]
pub struct Checker {
    /// Orders given and not yet taken.
    issued: BTreeMap<String, (Time, Call)>,
    /// Orders whose effect was stored.
    taken: BTreeSet<String>,
    /// The newest of these for each node, by when it was given.
    in_force: BTreeMap<NodeName, (Time, Hook)>,
    /// VMs whose end was begun while the order in force was to end them, and when that was given.
    ordered: BTreeMap<VmTag, Time>,
    /// The job that each VM of job mode has run.
    jobs: BTreeMap<VmId, JobId>,
    /// VMs of others that were seen.
    foreign: BTreeSet<VmId>,
    /// How often an invariant was asked for.
    made: u64,
}

impl Checker {
    /// How often an invariant was asked for: each once after every step, over the whole world.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.made
    }

    fn ask(&mut self, invariant: Invariant, answer: Result<(), String>) -> Result<(), Broken> {
        self.made += 1;
        answer.map_err(|what| Broken { invariant, what })
    }

    /// Hears of an order.
    pub fn issued(&mut self, id: String, call: &Call, at: Time) {
        self.issued.insert(id, (at, call.clone()));
    }

    /// Whether that VM is known to be somebody else's.
    #[must_use]
    pub fn is_foreign(&self, id: &VmId) -> bool {
        self.foreign.contains(id)
    }

    /// Hears that the others took all of their VMs away themselves.
    pub fn foreign_gone(&mut self) {
        self.foreign.clear();
    }

    /// Checks the world after a round; an error says what is broken.
    pub fn round(
        &mut self,
        round: &Round,
        controller: &mut Controller,
        provider: &Provider,
        slurm: &Slurm,
        setup: &Setup,
    ) -> Result<(), Broken> {
        let sound = round.refused.first().map_or(Ok(()), |refused| {
            Err(format!("the linter refused the planner's step: {refused}"))
        });
        self.ask(Invariant::PlansAreSound, sound)?;
        let once = self.orders_count_once(round);
        self.ask(Invariant::OrdersCountOnce, once)?;
        let lost = round.forgotten.clone().map_or(Ok(()), Err);
        self.ask(Invariant::NothingKeptIsLost, lost)?;
        let unkept = std::mem::take(&mut controller.unkept);
        let unkept = unkept.first().map_or(Ok(()), |action| {
            Err(format!("\"{action}\" took effect and is not in the journal"))
        });
        self.ask(Invariant::KeptBeforeDone, unkept)?;
        let harms = std::mem::take(&mut controller.harms);
        for step in &round.begun {
            if let Action::Vm(tag, VmVerb::Destroy { .. }) = &step.action
                && let Some(at) = self.ordered_down(&tag.node)
            {
                self.ordered.insert(tag.clone(), at);
            }
        }
        let explained = round.unexplained.first().map_or(Ok(()), |node| {
            Err(format!("{node} wants a VM, gets none, and nobody is told why"))
        });
        self.ask(Invariant::Explained, explained)?;
        let careful = no_act_on_a_failed_observation(round, controller, setup);
        self.ask(Invariant::NoActOnFailedObservation, careful)?;
        let kept = harms.iter().try_for_each(|harm| self.no_job_lost(harm, setup));
        self.ask(Invariant::NoJobLost, kept)?;
        self.ask(Invariant::OneVmPerNode, one_vm_per_node(provider))?;
        let job_mode = self.one_job_per_vm(provider, slurm);
        self.ask(Invariant::OneJobPerVm, job_mode)?;
        let meddled = std::mem::take(&mut controller.meddled);
        let left_alone = self.foreign_vms_stay(controller, provider);
        let left_alone = meddled.into_iter().next().map_or(left_alone, Err);
        self.ask(Invariant::OthersLeftAlone, left_alone)?;
        self.ask(Invariant::ToldInTime, told_in_time(slurm, setup))?;
        self.ask(Invariant::Heard, heard(slurm, setup))?;
        let way = gives_way(round, controller, provider, slurm, setup);
        self.ask(Invariant::GivesWay, way)?;
        let bounded = starts_bounded(round, controller, setup)
            .and_then(|()| bounded(provider, setup))
            .and_then(|()| no_choice_left(slurm));
        self.ask(Invariant::Bounded, bounded)
    }

    /// 1. Hears what orders took effect.
    fn orders_count_once(&mut self, round: &Round) -> Result<(), String> {
        for id in &round.taken {
            if !self.taken.insert(id.clone()) {
                return Err(format!("order {id} was taken twice"));
            }
            let Some((at, call)) = self.issued.remove(id) else {
                return Err(format!("order {id} was taken and never given"));
            };
            if matches!(call.hook, Hook::JobEnded { .. }) {
                continue; // orders nothing of a node
            }
            for node in &call.nodes {
                let newest = self.in_force.entry(node.clone()).or_insert((at, call.hook));
                if newest.0 < at {
                    *newest = (at, call.hook);
                }
            }
        }
        Ok(())
    }

    /// Job mode: a VM runs the job that it was made for and no other, and is as big as
    /// what that has of the node.
    fn one_job_per_vm(&mut self, provider: &Provider, slurm: &Slurm) -> Result<(), String> {
        for (name, node) in slurm.nodes.iter().filter(|(_, node)| node.mode == Mode::Job) {
            let (Some((job, _)), Some(id)) = (slurm.running_on(name), &node.backed) else {
                continue;
            };
            let first = *self.jobs.entry(id.clone()).or_insert(job);
            if first != job {
                return Err(format!(
                    "VM {id} of {name} runs job {job}, and ran job {first} before"
                ));
            }
            let vm = provider.vms.get(id).and_then(|vm| vm.spec.as_ref());
            let alloc = slurm
                .jobs
                .get(&job)
                .and_then(|job| Some(job.job_mode.as_ref()?.each));
            let (Some(spec), Some(alloc)) = (vm, alloc) else {
                continue;
            };
            let size = (spec.shape.cpus, spec.shape.memory_mb, spec.gpus);
            if spec.job != Some(job) || size != (alloc.cpus, alloc.memory_mb, alloc.gpus) {
                return Err(format!(
                    "job {job} has {alloc:?} of {name} and runs in VM {id}, made as {spec:?}"
                ));
            }
        }
        Ok(())
    }

    /// How many orders were given whose effect was never stored.
    #[must_use]
    pub fn untaken(&self) -> usize {
        self.issued.len()
    }

    /// 3. What could be known counts: a job that started after the observation that was decided on is bad luck.
    fn no_job_lost(&self, harm: &Harm, setup: &Setup) -> Result<(), String> {
        let (job, since) = harm.job;
        if since >= harm.known {
            return Ok(());
        }
        // Taken for lost after it was not shown for long.
        let unshown = harm.unshown.is_none_or(|span| span >= setup.policy.missing_grace);
        let excused = match &harm.action {
            Action::Vm(tag, VmVerb::Destroy { cause, .. }) => match cause {
                // One that went by an order and is shown on backs nothing.
                Cause::Ordered | Cause::Orphan => self.ordered.get(tag).is_some_and(|at| since <= *at),
                Cause::Dead { .. } => unshown,
                Cause::BootTimeout => false,
            },
            Action::Node(node, NodeVerb::SetDown { .. }) => self.ordered_down(node).is_some() || unshown,
            Action::Node(_, NodeVerb::PowerDown) => false,
            Action::Vm(_, VmVerb::Create { .. } | VmVerb::StartSlurmd { .. })
            | Action::Node(_, NodeVerb::Return | NodeVerb::Undrain { .. } | NodeVerb::EndWithJob(_))
            | Action::Job(..) => true,
        };
        if excused {
            return Ok(());
        }
        Err(format!(
            "{} took the VM of running job {job}, known to run since {} ms before",
            harm.action,
            harm.known.since(since).0
        ))
    }

    /// When it was given, if the order in force is to take the node's VM away.
    fn ordered_down(&self, node: &NodeName) -> Option<Time> {
        match self.in_force.get(node) {
            Some((at, Hook::Suspend | Hook::ResumeFail)) => Some(*at),
            Some((_, Hook::Resume | Hook::JobEnded { .. })) | None => None,
        }
    }

    /// Invariant 4: VMs of others stay.
    fn foreign_vms_stay(&mut self, controller: &Controller, provider: &Provider) -> Result<(), String> {
        if let Some(gone) = self.foreign.iter().find(|id| !provider.vms.contains_key(*id)) {
            return Err(format!("VM {gone} of somebody else was ended"));
        }
        let cluster = &controller.world().cluster;
        let foreign = |vm: &&Vm| vm.view.tag.as_ref().is_none_or(|tag| tag.cluster != *cluster);
        let ids = provider.vms.values().filter(foreign).map(|vm| vm.view.id.clone());
        self.foreign.extend(ids);
        let records = controller.world().records.values();
        let mut taken = records.filter_map(|record| record.vm.as_ref()?.id.as_ref());
        match taken.find(|id| self.foreign.contains(*id)) {
            Some(id) => Err(format!("VM {id} of somebody else was taken for ours")),
            None => Ok(()),
        }
    }
}

/// 5. The observations in use at the end of the round are those that it planned with.
fn no_act_on_a_failed_observation(
    round: &Round,
    controller: &Controller,
    setup: &Setup,
) -> Result<(), String> {
    let destroys = |action: &Action| matches!(action, Action::Vm(_, VmVerb::Destroy { .. }));
    let Some(step) = round.begun.iter().find(|step| destroys(&step.action)) else {
        return Ok(());
    };
    let (now, max) = (controller.world().now, setup.policy.observation_max_age);
    let bad = |sight: &Sight| sight.failed || now.since(sight.began) > max;
    let sights = [
        ("Slurm", controller.slurm_sight),
        ("the provider", controller.provider_sight),
    ];
    match sights.iter().find(|(_, sight)| bad(sight)) {
        Some((side, _)) => Err(format!(
            "{} was begun on a failed observation of {side}",
            step.action
        )),
        None => Ok(()),
    }
}

/// Our VMs that take capacity: those that outsiders made are not our doing.
fn ours(provider: &Provider) -> impl Iterator<Item = &Vm> {
    provider.vms.values().filter(|vm| !vm.outsider)
}

/// Invariant 2: no node has two VMs that live.
fn one_vm_per_node(provider: &Provider) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for tag in ours(provider)
        .filter(|vm| vm.lives() && !vm.is_held())
        .filter_map(|vm| vm.view.tag.as_ref())
    {
        if !seen.insert(&tag.node) {
            return Err(format!("node {} has two live VMs", tag.node));
        }
    }
    Ok(())
}

/// What only the provider did wrong can always be told in time, if Slurm waits long enough.
const TELLABLE: [Fault; 10] = [
    Fault::CreateFails,
    Fault::CreateHeld,
    Fault::CreateTwice,
    Fault::EndsSlowly,
    Fault::NeverRegisters,
    Fault::DiesBooting,
    Fault::DiesLater,
    Fault::HangsLater,
    Fault::HostUnusable,
    Fault::SpoolFull,
];

/// Invariant 6: Slurm's own timeout discovers no failure.
fn told_in_time(slurm: &Slurm, setup: &Setup) -> Result<(), String> {
    if slurm.resume_timeouts == 0 {
        return Ok(());
    }
    let tellable = is_tellable(setup);
    let patient = setup.rules.resume_timeout >= setup.told_within();
    if tellable && patient {
        return Err("Slurm's ResumeTimeout ran out before it was told of a failure".into());
    }
    Ok(())
}

/// Whether only the provider goes wrong.
fn is_tellable(setup: &Setup) -> bool {
    let mut about = Fault::ALL.iter().filter(|fault| setup.faults.of(**fault) > 0);
    about.all(|fault| TELLABLE.contains(fault))
}

/// 6. A person may resume a node that Slurm is just about to ask for, and records may be lost.
fn heard(slurm: &Slurm, setup: &Setup) -> Result<(), String> {
    if slurm.unheard == 0 || !setup.policy.guests_wait || !is_tellable(setup) {
        return Ok(());
    }
    Err("a slurmd was started before Slurm had asked for its node, and is not heard".into())
}

/// For how long a VM must have been idle until all could know.
const LONG_IDLE: Millis = Millis::secs(20);

/// Invariant 6: no node fails for want of what a VM holds that only waits for SuspendTime. All VMs of power-saving
/// mode are of one size here.
fn gives_way(
    round: &Round,
    controller: &Controller,
    provider: &Provider,
    slurm: &Slurm,
    setup: &Setup,
) -> Result<(), String> {
    if !is_tellable(setup) {
        return Ok(());
    }
    let failed = round.begun.iter().find_map(|step| match &step.action {
        Action::Node(node, NodeVerb::SetDown { .. }) if step.why == NO_HOST => Some(node),
        _ => None,
    });
    let (Some(failed), now) = (failed, controller.world().now) else {
        return Ok(());
    };
    let usable = |host: &HostName| {
        provider
            .hosts
            .iter()
            .any(|seen| seen.name == *host && seen.usable)
    };
    let asked = |node: &NodeName| {
        controller
            .flights
            .iter()
            .any(|flight| flight.action.node() == Some(node))
    };
    let mut idle = slurm.nodes.iter().filter(|(name, node)| {
        let vm = node.backed.as_ref().and_then(|id| provider.vms.get(id));
        let vm = vm.filter(|vm| vm.works() && vm.view.host.as_ref().is_some_and(usable));
        node.mode == Mode::PowerSaving && node.is_idle(LONG_IDLE, now) && vm.is_some() && !asked(name)
    });
    idle.next().map_or(Ok(()), |(name, _)| {
        Err(format!(
            "{failed} failed for want of capacity, and {name} holds some and is idle"
        ))
    })
}

/// 7. Nothing is begun beyond the cap. VMs that are found and adopted may be more.
fn starts_bounded(round: &Round, controller: &Controller, setup: &Setup) -> Result<(), String> {
    let creates = |step: &Step| matches!(step.action, Action::Vm(_, VmVerb::Create { again: false, .. }));
    if !round.begun.iter().any(creates) {
        return Ok(());
    }
    let vms = controller
        .world()
        .records
        .values()
        .filter_map(|record| record.vm.as_ref());
    let starting = vms.filter(|vm| vm.is_starting()).count();
    if starting > setup.policy.max_starting {
        return Err(format!(
            "{starting} VMs are starting, more than {}",
            setup.policy.max_starting
        ));
    }
    Ok(())
}

/// 7. Slurm may give no job more VMs than it was admitted for.
fn no_choice_left(slurm: &Slurm) -> Result<(), String> {
    let admitted = |job: &Job| {
        job.job_mode
            .as_ref()
            .is_some_and(|job_mode| job_mode.gate == Gate::Open)
    };
    let mut jobs = slurm.jobs.iter();
    let guessed = jobs.find(|(_, job)| admitted(job) && job.most() > job.size);
    guessed.map_or(Ok(()), |(id, job)| {
        Err(format!(
            "job {id} was admitted, and may get {} to {} nodes",
            job.size,
            job.most()
        ))
    })
}

/// Invariant 7: the caps on VMs hold, in all and on each host.
fn bounded(provider: &Provider, setup: &Setup) -> Result<(), String> {
    let vms = ours(provider).filter(|vm| !vm.is_held()).count();
    if vms > setup.policy.max_vms {
        return Err(format!("{vms} VMs, more than {}", setup.policy.max_vms));
    }
    let mut load: BTreeMap<&HostName, (u64, usize)> = BTreeMap::new();
    for vm in ours(provider) {
        if let Some(host) = &vm.view.host {
            let entry = load.entry(host).or_default();
            entry.0 += vm.view.memory_mb;
            entry.1 += 1;
        }
    }
    for host in &provider.hosts {
        let (memory, vms) = load.get(&host.name).copied().unwrap_or_default();
        if memory > host.memory_mb || vms > setup.policy.max_vms_per_host {
            return Err(format!(
                "host {} carries {vms} VMs, {memory} of {} MiB",
                host.name, host.memory_mb
            ));
        }
    }
    Ok(())
}
