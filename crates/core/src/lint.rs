//! Checks every plan against the design's invariants before it is executed.
//!
//! The linter shares no code with the planner's decisions: it asks of each step
//! only whether it may ever be done in this world. A refused step is not
//! executed, is told as an event, and is a bug of ours.

mod jobs;

use crate::evidence::{
    is_in_doubt, is_left_behind, is_shown_again, is_spare, is_superseded, may_have_registered,
    outlived_drain, surely_unused,
};
use crate::ids::{HostName, NodeName, VmId, VmTag};
use crate::orders::{Newer, newer_than_order, newer_use};
use crate::plan::{Action, EndWhy, JobVerb, NodeVerb, Plan, Step, VmVerb};
use crate::resources::Resources;
use crate::view::{
    Gate, HostView, JobsOn, REASON_PREFIX, SlurmJob, SlurmNode, VmSpec, VmState, VmView, VmsOf,
};
use crate::vm::{Cause, Life, VmRecord};
use crate::world::{Desired, Mode, NodeRecord, World};
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

/// A step that breaks an invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub step: Step,
    /// Which invariant, and how.
    pub why: String,
}

/// Parts a plan into what may be executed and what breaks an invariant.
#[must_use]
pub fn lint(world: &World, plan: &Plan) -> (Vec<Step>, Vec<Refusal>) {
    if plan.steps.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let mut linter = Linter::new(world);
    let mut good = Vec::with_capacity(plan.steps.len());
    let mut refused = Vec::new();
    for step in &plan.steps {
        match linter.check(&step.action) {
            Ok(()) => good.push(step.clone()),
            Err(why) => refused.push(Refusal {
                step: step.clone(),
                why,
            }),
        }
    }
    (good, refused)
}

struct Linter<'a> {
    world: &'a World,
    touched: HashSet<NodeName>,
    vms: usize,
    starting: usize,
    /// Of the jobs that this plan admits.
    promised: Resources,
    /// What is in use of each host; grows with each creation that passes.
    load: HashMap<&'a HostName, Resources>,
    hosts: HashMap<&'a HostName, &'a HostView>,
    /// What the provider shows, by its id, once a step asks.
    shown: OnceCell<HashMap<&'a VmId, &'a VmView>>,
    /// Our VMs by node, as the provider shows them.
    vms_of: VmsOf<'a>,
    /// Slurm's jobs by node, once a step asks.
    jobs: OnceCell<JobsOn<'a>>,
}

/// What our VMs take of their hosts beside what the listing shows: those that are not shown on one take all, the
/// others what no listing shows; one that moves takes all on the host that it leaves, too.
fn unlisted<'a>(world: &'a World, shown: &VmsOf<'_>) -> Vec<(&'a HostName, Resources)> {
    let mut all = Vec::new();
    for (node, record) in &world.records {
        let Some(vm) = &record.vm else { continue };
        let of_node = world.specs.get(node).map(|spec| &spec.shape);
        let Some(takes) = Resources::of_record(vm, of_node, &world.policy) else {
            continue;
        };
        all.extend(vm.life.leaves().map(|host| (host, takes)));
        let is_placed = |seen: &&VmView| seen.is(vm.generation) && seen.host.is_some();
        let rest = match shown.get(node).iter().any(is_placed) {
            true => takes.unlisted(),
            false => takes,
        };
        all.extend(vm.host.as_ref().map(|host| (host, rest)));
    }
    all
}

type Checked = Result<(), String>;

impl<'a> Linter<'a> {
    fn new(world: &'a World) -> Self {
        let mut load: HashMap<&HostName, Resources> = HashMap::new();
        let provider = world.provider.as_ref();
        for vm in provider.iter().flat_map(|view| &view.vms) {
            if let Some(host) = &vm.host {
                let entry = load.entry(host).or_default();
                *entry = entry.and(Resources::of_shown(vm));
            }
        }
        let vms_of = provider
            .map(|view| view.vms_of(&world.cluster))
            .unwrap_or_default();
        for (host, takes) in unlisted(world, &vms_of) {
            let entry = load.entry(host).or_default();
            *entry = entry.and(takes);
        }
        let vms = || world.records.values().filter_map(|record| record.vm.as_ref());
        let hosts = world.provider.iter().flat_map(|view| &view.hosts);
        Self {
            world,
            hosts: hosts.map(|host| (&host.name, host)).collect(),
            shown: OnceCell::new(),
            touched: HashSet::new(),
            vms: vms().count(),
            starting: vms().filter(|vm| vm.is_starting()).count(),
            promised: Resources::default(),
            load,
            vms_of,
            jobs: OnceCell::new(),
        }
    }

    fn jobs_on_nodes(&self) -> &JobsOn<'a> {
        let slurm = self.world.slurm.as_ref();
        self.jobs
            .get_or_init(|| slurm.map_or_else(JobsOn::default, |slurm| slurm.jobs_on()))
    }

    /// What the provider shows by this id.
    fn shown(&self, id: &VmId) -> Option<&'a VmView> {
        let provider = self.world.provider.as_ref();
        let shown = self
            .shown
            .get_or_init(|| provider.map(|view| view.by_id()).unwrap_or_default());
        shown.get(id).copied()
    }

    fn check(&mut self, action: &Action) -> Checked {
        if let Some(node) = action.node() {
            refuse_if(self.world.busy.contains(node), || {
                format!("an action on {node} is under way")
            })?;
            refuse_if(!self.touched.insert(node.clone()), || {
                format!("{node} has another step in this plan")
            })?;
        }
        match action {
            Action::Vm(tag, verb) => match verb {
                VmVerb::Create { host, spec, again } => self.create(tag, host, spec, *again),
                VmVerb::StartSlurmd { number, .. } => self.start_slurmd(tag, *number),
                VmVerb::Destroy { id, cause, .. } => self.destroy(tag, id.as_ref(), cause),
            },
            Action::Node(node, verb) => match verb {
                NodeVerb::SetDown { reason, .. } => self.set_down(node, reason),
                NodeVerb::Return => self.give_back(node),
                NodeVerb::Undrain { .. } => self.undrain(node),
                NodeVerb::EndWithJob(why) => self.end_with_job(node, *why),
                NodeVerb::PowerDown => self.power_down(node),
            },
            Action::Job(job, verb) => match verb {
                JobVerb::StartNow => self.start_now(*job),
                JobVerb::Admit { array, nodes, .. } => self.admit(*job, array.as_ref(), *nodes),
                JobVerb::CloseGate { .. } | JobVerb::FinishPutBack { .. } => self.change_gate(*job),
                JobVerb::PutBack { .. } => self.put_back(*job),
                JobVerb::TurnAway { .. } => self.turn_away(*job),
                JobVerb::Refuse { .. } => self.refuse(*job),
            },
        }
    }

    /// Invariant 4: whose end it is to be, by what Slurm shows of it.
    fn end_with_job(&self, node: &NodeName, why: EndWhy) -> Checked {
        let seen = self.slurm_node(node)?;
        let slurm = self.world.slurm.as_ref();
        match why {
            EndWhy::OneJob => self.job_mode_node(node),
            EndWhy::NoPartition => {
                let outside = slurm.is_some_and(|slurm| slurm.without_partition.contains(node));
                refuse_if(!outside, || format!("{node} is in a partition"))
            }
            EndWhy::Strays => {
                let mut shown = self.vms_of.get(node).iter();
                let more = shown.any(|vm| self.world.strays.contains_key(&vm.id));
                refuse_if(!more, || format!("{node} has no other VM"))
            }
            EndWhy::Unheard => refuse_if(!self.world.is_unheard(node), || {
                format!("nobody told the guest of {node} anything that it did not answer")
            }),
            EndWhy::GivesWay => self.give_way(node),
            EndWhy::Forgotten => {
                let record = self.world.records.get(node);
                let bare = record.is_some_and(|record| record.vm.is_none());
                refuse_if(!(seen.is_forgotten() && bare), || {
                    format!("{node} has a VM, or Slurm knows that it is powered down")
                })
            }
        }
    }

    /// Invariants 3 and 4: only who surely is idle, undrained and asked for by nobody gives way; and only to somebody.
    fn give_way(&self, node: &NodeName) -> Checked {
        let world = self.world;
        refuse_if(!is_spare(world, node, self.jobs_on_nodes()), || {
            format!("{node} may have a job, or is kept for one")
        })?;
        let wants = |record: &NodeRecord| match record.desired {
            Desired::Up { .. } | Desired::Early { .. } => record.vm.is_none(),
            Desired::Down { .. } | Desired::Unasked => false,
        };
        let at_the_gate = |job: &SlurmJob| job.gate == Gate::Waits;
        let waits = world.records.values().any(wants)
            || world
                .slurm
                .as_ref()
                .is_some_and(|slurm| slurm.jobs.values().any(at_the_gate));
        refuse_if(!waits, || "nobody waits for capacity".into())
    }

    /// Invariant 3: a node of job mode is powered down at once only when Slurm surely has no job
    /// on it and can give it none.
    fn power_down(&self, node: &NodeName) -> Checked {
        let seen = self.slurm_node(node)?;
        self.job_mode_node(node)?;
        refuse_if(seen.may_run_job() || !seen.flags.power_down, || {
            format!("{node} may have a job, or be given one")
        })
    }

    fn job_mode_node(&self, node: &NodeName) -> Checked {
        refuse_if(!self.world.is_job_mode(node), || {
            format!("{node} is not in job mode")
        })
    }

    fn slurm_node(&self, node: &NodeName) -> Result<&'a SlurmNode, String> {
        let seen = self.world.slurm.as_ref().and_then(|slurm| slurm.nodes.get(node));
        seen.ok_or_else(|| format!("Slurm's last observation lacks {node}"))
    }

    /// Invariants 2 (one VM per node), 4 (only ours), 5 (no act on a failed observation), 7 (bounded).
    fn create(&mut self, tag: &VmTag, host: &HostName, spec: &VmSpec, again: bool) -> Checked {
        let world = self.world;
        self.provider()?;
        self.ours(tag)?;
        refuse_if(!world.specs.contains_key(&tag.node), || {
            format!("{} is not in the configuration", tag.node)
        })?;
        let record = world.records.get(&tag.node);
        let vm = record.and_then(|record| record.vm.as_ref());
        refuse_if(vm.is_some() != again, || {
            format!("the step is wrong about whether {tag} was asked for before")
        })?;
        match vm {
            Some(vm) => {
                let most = world.policy.max_vms;
                refuse_if(self.vms > most, || {
                    format!("more than {most} VMs (limits.max_vms)")
                })?;
                self.carries(host)?;
                let same = vm.life.is_unconfirmed() && vm.generation == tag.generation;
                refuse_if(!same, || {
                    format!("{} has VM {} already ({})", tag.node, vm.generation, vm.word())
                })?;
            }
            None => {
                refuse_if(world.faults.contains_key(&tag.node), || {
                    format!("the provider can make no VM for {}", tag.node)
                })?;
                self.is_as_it_must(&tag.node, spec)?;
                let early = world.policy.guests_wait;
                let is_desired = record.is_some_and(|record| match record.desired {
                    Desired::Up { .. } => true,
                    Desired::Early { .. } => early,
                    Desired::Down { .. } | Desired::Unasked => false,
                });
                refuse_if(!is_desired, || format!("nobody asked for {}", tag.node))?;
                let newer = record.is_none_or(|record| tag.generation > record.generation);
                refuse_if(!newer, || {
                    format!("generation {} of {} has been used", tag.generation, tag.node)
                })?;
                self.vms += 1;
                self.starting += 1;
                let policy = &world.policy;
                refuse_if(self.vms > policy.max_vms, || {
                    format!("more than {} VMs (limits.max_vms)", policy.max_vms)
                })?;
                refuse_if(self.starting > policy.max_starting, || {
                    format!(
                        "more than {} VMs starting (limits.max_starting)",
                        policy.max_starting
                    )
                })?;
                self.fits(host, &tag.node, spec)?;
            }
        }
        let mut alive = self
            .vms_of
            .get(&tag.node)
            .iter()
            .filter(|vm| !matches!(vm.state, VmState::Dead(_)));
        let twin = alive.any(|vm| !vm.is(tag.generation));
        refuse_if(twin, || {
            format!("{} has another live VM at the provider", tag.node)
        })
    }

    /// Invariant 6: a slurmd that starts before Slurm asks for its node is not heard. Invariant 3:
    /// one that Slurm may have heard is not ended.
    fn start_slurmd(&self, tag: &VmTag, number: u32) -> Checked {
        self.ours(tag)?;
        let policy = &self.world.policy;
        refuse_if(!policy.guests_wait, || "guests start slurmd by themselves".into())?;
        let record = self.world.records.get(&tag.node);
        let vm = record.and_then(|record| record.vm.as_ref());
        let Some(vm) = vm.filter(|vm| vm.generation == tag.generation) else {
            return Err(format!("{} has no such VM", tag.node));
        };
        refuse_if(!vm.comes_up(), || format!("it is {}", vm.word()))?;
        refuse_if(self.world.is_of_unknown_job(&tag.node), || {
            format!("{tag} may have been made for another job")
        })?;
        refuse_if(
            number != vm.starts.times + 1 || number > policy.slurmd_starts,
            || format!("start {number} is not the next one"),
        )?;
        let seen = self
            .world
            .slurm
            .as_ref()
            .and_then(|slurm| slurm.nodes.get(&tag.node));
        if number > 1 {
            let waits = seen.is_some_and(|seen| seen.flags.powering_up);
            return refuse_if(!waits, || format!("Slurm does not wait for {}", tag.node));
        }
        let early = match record.map(|record| record.desired) {
            Some(Desired::Up { .. }) => false,
            Some(Desired::Unasked) => seen.is_some_and(SlurmNode::is_off),
            Some(Desired::Early { .. } | Desired::Down { .. }) | None => true,
        };
        refuse_if(early, || format!("Slurm has not asked for {}", tag.node))
    }

    /// A VM is its node's, as big as that; or one job's, as big as its allocation.
    fn is_as_it_must(&self, node: &NodeName, spec: &VmSpec) -> Checked {
        let Some(of_node) = self.world.specs.get(node) else {
            return Err(format!("{node} is not in the configuration"));
        };
        match (of_node.mode, spec.job) {
            (Mode::PowerSaving, None) => refuse_if(spec.shape != of_node.shape, || {
                format!("{node} is of another size")
            }),
            (Mode::PowerSaving, Some(job)) => Err(format!("{node} is for all jobs, not for job {job} alone")),
            (Mode::Job, None) => Err(format!("{node} is in job mode, and this VM would be nobody's")),
            (Mode::Job, Some(job)) => {
                let of = self.job_mode_job(job)?;
                refuse_if(!of.nodes.contains(node), || {
                    format!("job {job} does not have {node}")
                })?;
                // It would see the folders of somebody else, or be let to another job's VMs.
                let its_own = spec.owner.is_some_and(|owner| {
                    owner.uid == of.uid && (owner.leader == job || of.het == Some(owner.leader))
                });
                refuse_if(!its_own, || {
                    format!(
                        "that VM of {node} would not be of the user of job {job}, or of another job's group"
                    )
                })?;
                let slurm = self.world.slurm.as_ref();
                let alloc = slurm.and_then(|slurm| slurm.nodes.get(node)?.alloc);
                let same = alloc.is_some_and(|alloc| {
                    let memory = alloc.memory_mb == spec.shape.memory_mb || alloc.memory_mb == 0;
                    alloc.cpus == spec.shape.cpus && memory
                });
                refuse_if(!same, || {
                    format!("job {job} has another part of {node} than that VM would be")
                })
            }
        }
    }

    /// Invariant 7: a host takes no VM more than it has capacity for, by every cap that there is.
    fn fits(&mut self, host: &HostName, node: &NodeName, spec: &VmSpec) -> Checked {
        let Some(seen) = self.hosts.get(host) else {
            return Err(format!("the provider has no host {host}"));
        };
        refuse_if(!seen.usable, || format!("host {host} takes no VMs now"))?;
        let nodeset = self.world.specs.get(node).map(|of_node| &of_node.nodeset);
        if let Some(why) = nodeset.and_then(|nodeset| seen.not_for.get(nodeset)) {
            return Err(format!("host {host} cannot run {node}: {why}"));
        }
        let load = self.load.entry(&seen.name).or_default();
        *load = load.and(Resources::of_spec(spec, &self.world.policy));
        self.carries(host)
    }

    /// Invariant 7: a host carries no more than it has. One that the provider does not show has nothing to exceed.
    fn carries(&self, host: &HostName) -> Checked {
        let Some(seen) = self.hosts.get(host) else {
            return Ok(());
        };
        let most = Resources::of_host(seen, &self.world.policy);
        let load = self.load.get(host).copied().unwrap_or_default();
        match load.over(&most) {
            None => Ok(()),
            Some(over) => Err(format!("host {host} would carry {}", over.text(&load, &most))),
        }
    }

    /// Invariants 3 (no running job loses its VM), 4, 5.
    fn destroy(&self, tag: &VmTag, id: Option<&VmId>, cause: &Cause) -> Checked {
        let world = self.world;
        self.provider()?;
        self.ours(tag)?;
        let Some(slurm) = &world.slurm else {
            return Err("Slurm could not be read: nothing is destroyed on a failed observation".into());
        };
        let record = world.records.get(&tag.node);
        let ours = record
            .and_then(|record| record.vm.as_ref())
            .filter(|vm| vm.is(tag.generation, id));
        if let Some(life @ Life::Ending { cause: begun }) = ours.map(|vm| &vm.life) {
            let by_us =
                life.was_ended_by_us() || ours.is_some_and(|vm| is_shown_again(vm, |id| self.shown(id)));
            let in_use = by_us && may_have_registered(slurm, &tag.node);
            refuse_if(in_use, || format!("Slurm may be using {} by now", tag.node))?;
            refuse_if(begun != cause, || "its end was begun for another cause".into())?;
            return match (cause, ours) {
                (Cause::Ordered, Some(vm)) => {
                    let desired = record.map(|record| record.desired).unwrap_or_default();
                    let since = match desired {
                        Desired::Down { since } => since.max(vm.since),
                        Desired::Early { .. } | Desired::Up { .. } | Desired::Unasked => vm.since,
                    };
                    agreed(newer_use(world, self.jobs_on_nodes(), &tag.node, since))
                }
                (Cause::Ordered | Cause::BootTimeout | Cause::Dead { .. } | Cause::Orphan, _) => Ok(()),
            };
        }
        let shown = id.and_then(|id| self.shown(id));
        let other = shown.is_some_and(|vm| vm.tag.as_ref() != Some(tag));
        refuse_if(other, || {
            format!("the provider shows another VM than {tag} by that id")
        })?;
        match cause {
            Cause::Ordered => {
                let jobs = self.jobs_on_nodes();
                match (record.map(|record| record.desired), ours) {
                    (Some(Desired::Down { since }), _) => {
                        agreed(newer_than_order(world, jobs, &tag.node, since))
                    }
                    (Some(Desired::Up { .. }), Some(vm)) if is_left_behind(world, &tag.node) => {
                        agreed(newer_use(world, jobs, &tag.node, vm.since))
                    }
                    (Some(Desired::Early { .. } | Desired::Up { .. } | Desired::Unasked) | None, _) => {
                        Err(format!("nobody ordered {} down", tag.node))
                    }
                }
            }
            Cause::BootTimeout => {
                refuse_if(may_have_registered(slurm, &tag.node), || {
                    format!("Slurm may be using {}", tag.node)
                })?;
                let late = ours.is_some_and(|vm| world.now.since(vm.asked) >= world.policy.boot_timeout);
                refuse_if(!late, || "its boot timeout has not passed".into())
            }
            Cause::Dead { .. } => {
                let known_dead = ours.is_some_and(|vm| matches!(vm.life, Life::Dead { .. }));
                refuse_if(!known_dead, || "there is no evidence that it is dead".into())?;
                let in_doubt = ours.is_some_and(|vm| is_in_doubt(slurm, &tag.node, vm));
                refuse_if(in_doubt, || format!("neither {tag} nor its node is shown"))
            }
            Cause::Orphan => {
                let dead = shown.is_some_and(|vm| matches!(vm.state, VmState::Dead(_)));
                let superseded = shown.is_some_and(|vm| is_superseded(world, vm));
                let unasked = record.is_some_and(|record| record.desired == Desired::Unasked);
                let left_behind = ours.is_some_and(VmRecord::is_up);
                refuse_if(ours.is_some() && !unasked && !left_behind, || {
                    format!("it backs {}", tag.node)
                })?;
                let unused = || surely_unused(slurm, &tag.node, self.jobs_on_nodes());
                refuse_if(!(dead || superseded || unused()), || {
                    format!("Slurm may be using {}", tag.node)
                })
            }
        }
    }

    fn set_down(&self, node: &NodeName, reason: &str) -> Checked {
        refuse_if(!reason.starts_with(REASON_PREFIX), || {
            format!("a reason of ours begins with {REASON_PREFIX}")
        })?;
        let record = self.world.records.get(node);
        let working = record
            .and_then(|record| record.vm.as_ref())
            .is_some_and(|vm| !matches!(vm.life, Life::Dead { .. }));
        let vm = record.and_then(|record| record.vm.as_ref());
        let kept = vm.is_some_and(|vm| vm.kept.is_some());
        let working = working && !self.world.is_unbacked(node) && !kept;
        refuse_if(working, || format!("{node} has a VM that may run a job"))?;
        let known = self
            .world
            .slurm
            .as_ref()
            .is_some_and(|slurm| slurm.nodes.contains_key(node));
        refuse_if(!known, || format!("Slurm's last observation lacks {node}"))
    }

    /// Invariant 4: only what we set is lifted.
    fn give_back(&self, node: &NodeName) -> Checked {
        let seen = self.world.slurm.as_ref().and_then(|slurm| slurm.nodes.get(node));
        let ours = seen.is_some_and(|seen| seen.down_of_ours().is_some());
        refuse_if(!ours, || format!("{node} is not DOWN with a reason of ours"))
    }

    /// Invariant 4: of drains only those are lifted that Slurm itself began, for what went wrong in a VM of which
    /// nothing is left.
    fn undrain(&self, node: &NodeName) -> Checked {
        self.provider()?;
        let over = outlived_drain(self.world, node, self.jobs_on_nodes()).is_some();
        refuse_if(!over, || {
            format!("{node} is not drained for what went wrong in a VM that is gone")
        })?;
        refuse_if(!self.vms_of.get(node).is_empty(), || {
            format!("a VM of {node} is still at the provider")
        })
    }

    fn ours(&self, tag: &VmTag) -> Checked {
        refuse_if(tag.cluster != self.world.cluster, || {
            format!("{tag} belongs to another cluster")
        })
    }

    fn provider(&self) -> Checked {
        refuse_if(self.world.provider.is_none(), || {
            "the provider could not be read: nothing is done on a failed observation".into()
        })
    }
}

/// An order is followed only while Slurm shows nothing newer.
fn agreed(newer: Option<Newer>) -> Checked {
    newer.map_or(Ok(()), |newer| {
        Err(format!("the order is too old: {}", newer.text()))
    })
}

fn refuse_if(wrong: bool, why: impl FnOnce() -> String) -> Checked {
    if wrong { Err(why()) } else { Ok(()) }
}
