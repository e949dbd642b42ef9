//! What was seen: the provider's and Slurm's state as one whole observation each.
//! An observation that failed is `None` where these are used; an observation is never partial. Beside it there is
//! news of single VMs ([`VmNews`]).

mod end;
mod news;
mod provider;
mod reason;

pub use end::JobEnd;
pub use news::{VmNews, Word};
pub use provider::{HostView, Load, ProviderView, VmState, VmView, VmsOf};
pub use reason::{JobReason, NodeReason, REASON_PREFIX, WaitsFor, Whose};

use crate::ids::{JobId, NodeName, Time};
use crate::options::VmOptions;
use crate::policy::{PAGE_TABLE_PART, SMALL_GUEST_MB};
use crate::table::{Groups, Table};
use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;

/// How big a VM is: as its nodeset says, or as its job's allocation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// vCPUs, at least 1.
    pub cpus: u32,
    /// What Slurm promises its jobs (`RealMemory`), in MiB.
    pub memory_mb: u64,
    /// The share of a host's core promised to each vCPU, in percent
    /// (OpenNebula's `CPU` against `VCPU`); 100 is a whole core.
    pub share_percent: u32,
}

impl Shape {
    /// Memory that a VM of this shape takes from its host, in MiB: what is promised to
    /// jobs, `overhead_mb` for the guest itself, and what the page tables of a big one take.
    #[must_use]
    pub fn total_mb(&self, overhead_mb: u64) -> u64 {
        let tables = self.memory_mb.saturating_sub(SMALL_GUEST_MB) / PAGE_TABLE_PART;
        self.memory_mb.saturating_add(overhead_mb).saturating_add(tables)
    }

    /// Core share that a VM of this shape takes, in percent of a core.
    #[must_use]
    pub fn cpu_percent(&self) -> u32 {
        self.cpus.saturating_mul(self.share_percent)
    }
}

/// What a VM is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSpec {
    pub shape: Shape,
    /// Devices of the nodeset's kind that it gets.
    pub gpus: u32,
    /// The one job that it is for; none in power-saving mode, where jobs follow each other.
    pub job: Option<JobId>,
    /// Whose job that is; none, too, of a VM that was made before this was kept.
    pub owner: Option<JobOwner>,
    /// What its job asked for beside Slurm's resources.
    pub options: VmOptions,
}

/// Whose job a VM is for, and with which other VMs it belongs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobOwner {
    pub uid: u32,
    /// The job itself, or the leader of the heterogeneous job that it is a part of: their VMs are one group.
    pub leader: JobId,
}

impl VmSpec {
    /// A VM that backs its node for whatever jobs come.
    #[must_use]
    pub fn of_node(shape: Shape) -> Self {
        Self {
            shape,
            gpus: 0,
            job: None,
            owner: None,
            options: VmOptions::default(),
        }
    }
}

/// Slurm's nodes and jobs, in one observation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlurmView {
    /// All nodes that slurmctld showed, ours or not.
    pub nodes: Table<NodeName, SlurmNode>,
    /// Those of them that are in no partition: they get no further job, and Slurm powers none of
    /// them down by itself (22.05.8, 24.11.5).
    pub without_partition: BTreeSet<NodeName>,
    /// Nodes that were asked for by name, and that slurmctld surely does not have. Of a node
    /// that is neither here nor in `nodes` nothing is known.
    pub gone: BTreeSet<NodeName>,
    /// Jobs that are not yet over, by id.
    pub jobs: Table<JobId, SlurmJob>,
    /// Whether jobs of job mode wait for capacity as they should.
    pub gate: GateSeen,
}

/// What Slurm shows of the gate at which jobs of job mode wait for capacity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum GateSeen {
    /// Nobody asked: there is no job mode.
    #[default]
    Unasked,
    /// Its licences are held: jobs wait until they are admitted.
    Shut,
    /// Jobs start without waiting for capacity; why.
    Open(String),
}

/// The jobs that Slurm has on each node.
pub type JobsOn<'a> = Groups<&'a NodeName, &'a SlurmJob>;

impl SlurmView {
    /// The jobs that name each node and are not over, whatever the nodes' states say.
    #[must_use]
    pub fn jobs_on(&self) -> JobsOn<'_> {
        let there = self.jobs.values().filter(|job| !job.is_over());
        let on_nodes = there.flat_map(|job| job.nodes.iter().map(move |node| (node, job)));
        on_nodes.collect()
    }
}

/// A node as slurmctld sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmNode {
    pub base: BaseState,
    /// The flags beside it.
    pub flags: NodeFlags,
    /// Its `Reason`, without Slurm's appended `[user@time]`.
    pub reason: Option<NodeReason>,
    /// What of it is allocated to jobs, where that was asked for: nodes of job mode
    /// that wait for their VM.
    pub alloc: Option<Alloc>,
}

/// What of a node is allocated to jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alloc {
    pub cpus: u32,
    /// Memory, in MiB; 0 where Slurm does not manage it.
    pub memory_mb: u64,
    /// Generic resources of the kind `gpu`.
    pub gpus: u32,
}

/// What Slurm shows of a node's power: that it wants the node up, on its way down, or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// Up, or on its way up.
    Up,
    /// On its way down.
    Falling,
    /// Off, or out of service.
    Off,
}

impl SlurmNode {
    /// Whether its slurmd has registered and answers: it can run jobs now or is running them.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.is_counted_on() && !self.flags.not_responding
    }

    /// Whether Slurm considers it up, though it may not answer: Slurm would not ask for it before a job runs there.
    #[must_use]
    pub fn is_counted_on(&self) -> bool {
        let f = &self.flags;
        let off = f.powered_down || f.powering_up || f.powering_down || f.unknown;
        match self.base {
            // A power-down that was asked for waits until its jobs are over.
            BaseState::Allocated | BaseState::Mixed => !off,
            // Slurm waits there for its slurmd to say that the last job's processes are gone.
            BaseState::Idle => !off && (!f.power_down || f.completing),
            BaseState::Down | BaseState::Error | BaseState::Future | BaseState::Unknown(_) => false,
        }
    }

    /// Whether it is up, has no job and could be given one: nothing is to come but its SuspendTime.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let f = &self.flags;
        let kept = f.drain || f.completing || f.not_responding;
        self.base == BaseState::Idle && self.is_counted_on() && !kept
    }

    /// Whether it is given to a job, powered down, and not on its way up: so it is for a moment
    /// when it was given, and no job runs there.
    #[must_use]
    pub fn is_off(&self) -> bool {
        let f = &self.flags;
        let given = matches!(self.base, BaseState::Allocated | BaseState::Mixed);
        given && f.powered_down && !f.powering_up && !f.powering_down && !f.unknown
    }

    /// Whether it is powered down and yet marked as one that does not answer, as when its VM was
    /// killed. A slurmctld that is started then gives it to no job any more, until it is powered
    /// down once more (22.05.8: `_build_bitmaps` in read_config.c leaves such nodes out).
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        let f = &self.flags;
        let under_way = f.powering_up || f.powering_down || f.power_down || f.completing;
        self.base == BaseState::Idle && f.powered_down && f.not_responding && !under_way && !f.unknown
    }

    /// The reason for which it is DOWN, if that is ours to lift. All others are other people's. Slurm's word that
    /// its slurmd is silent is about the VM that it had: once the node is powered down, nothing is left that could
    /// answer, and nobody else would give it back.
    #[must_use]
    pub fn down_of_ours(&self) -> Option<&NodeReason> {
        let f = &self.flags;
        let is_off = f.powered_down && !(f.powering_up || f.powering_down || f.drain || f.unknown);
        let reason = self.reason.as_ref().filter(|reason| match reason.whose {
            Whose::Ours | Whose::ResumeTimeout => true,
            Whose::Silence => is_off,
            // These are of drains.
            Whose::ItsVm | Whose::Others => false,
        });
        reason.filter(|_| self.base == BaseState::Down)
    }

    /// The reason for which Slurm has drained it, where that is about the VM that it had, and is powered down and free:
    /// nothing is left of what was wrong.
    #[must_use]
    pub fn drain_of_its_vm(&self) -> Option<&NodeReason> {
        let f = &self.flags;
        let is_off = f.powered_down && !(f.powering_up || f.powering_down || f.power_down || f.completing);
        let over = self.base == BaseState::Idle && f.drain && is_off && !f.unknown;
        self.reason
            .as_ref()
            .filter(|reason| over && reason.whose == Whose::ItsVm)
    }

    /// Whether somebody else than Slurm drains it, for what went wrong in its VM.
    #[must_use]
    pub fn is_drained_by_others(&self) -> bool {
        let its_vm = self
            .reason
            .as_ref()
            .is_some_and(|reason| reason.whose == Whose::ItsVm);
        self.flags.drain && !its_vm
    }

    /// What it says of the node's power; none if it cannot be known.
    #[must_use]
    pub fn power(&self) -> Option<Power> {
        let f = &self.flags;
        let known = match self.base {
            BaseState::Unknown(_) => false,
            BaseState::Idle
            | BaseState::Allocated
            | BaseState::Mixed
            | BaseState::Down
            | BaseState::Error
            | BaseState::Future => !f.unknown,
        };
        known.then(
            || match (f.powering_down, f.powering_up || self.is_counted_on()) {
                (true, _) => Power::Falling,
                (false, true) => Power::Up,
                (false, false) => Power::Off,
            },
        )
    }

    /// Whether a job may be there: true unless Slurm surely says that none is.
    #[must_use]
    pub fn may_run_job(&self) -> bool {
        let f = &self.flags;
        match &self.base {
            BaseState::Allocated | BaseState::Mixed | BaseState::Unknown(_) => true,
            BaseState::Idle | BaseState::Down | BaseState::Error | BaseState::Future => {
                f.completing || f.unknown
            }
        }
    }
}

/// Slurm's base node states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseState {
    Idle,
    /// Jobs have all of it.
    Allocated,
    /// Jobs have a part of it.
    Mixed,
    Down,
    Error,
    /// Defined for future use.
    Future,
    /// `UNKNOWN`, or a word that we do not know.
    Unknown(String),
}

/// Slurm's node state flags that decide anything for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeFlags {
    /// `CLOUD`: a node that power saving makes and removes.
    pub cloud: bool,
    /// `POWERED_DOWN` (`~`): it is off.
    pub powered_down: bool,
    /// `POWERING_UP` (`#`): resume asked, not registered.
    pub powering_up: bool,
    /// `POWERING_DOWN` (`%`): it is on its way down.
    pub powering_down: bool,
    /// `POWER_DOWN` (`!`): will be powered down.
    pub power_down: bool,
    /// `DRAIN`: it gets no new jobs.
    pub drain: bool,
    /// `NOT_RESPONDING` (`*`): its slurmd does not answer.
    pub not_responding: bool,
    /// `COMPLETING`: a job's processes may still be there.
    pub completing: bool,
    /// A flag word that we do not know was there.
    pub unknown: bool,
}

/// A job as slurmctld sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmJob {
    pub id: JobId,
    pub name: String,
    /// The submitting user's uid.
    pub uid: u32,
    /// The submitting user's name.
    pub user: String,
    /// The partition it is in.
    pub partition: String,
    /// What it is doing.
    pub state: JobState,
    /// Why it is in that state.
    pub reason: JobReason,
    /// The nodes allocated to it.
    pub nodes: Vec<NodeName>,
    /// Node count asked for.
    pub node_count: u32,
    /// When it was submitted.
    pub submit: Option<Time>,
    /// When it started or is expected to.
    pub start: Option<Time>,
    /// Slurm's priority: the highest is served first.
    pub priority: u64,
    /// The account that it is charged to; empty without accounting.
    pub account: String,
    /// What it asks for, all its nodes together, as Slurm counts it.
    pub request: Request,
    /// The job array that it belongs to; a pending record may stand for many tasks.
    pub array: Option<ArrayTasks>,
    /// The leader of the heterogeneous job that it is a part of.
    pub het: Option<JobId>,
    /// Whether it waits for capacity for its VMs.
    pub gate: Gate,
    /// The other licences that it asks for, as Slurm writes them.
    pub licenses: String,
    /// Whether it came with options for its VMs, which its `AdminComment` tells.
    pub has_options: bool,
    /// Whether Slurm may put it back into the queue: `--requeue`, and a batch job.
    pub requeue: bool,
    /// Slurm's `AdminComment`, where that was asked for: jobs with options for their VMs,
    /// and those that we have put back.
    pub admin_comment: Option<String>,
}

impl SlurmJob {
    /// What is remembered of it is kept by this: an array's tasks come and go as records of
    /// their own.
    #[must_use]
    pub fn key(&self) -> JobId {
        self.array.as_ref().map_or(self.id, |array| array.job)
    }

    /// Whether it surely is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self.state {
            JobState::Over(_) => true,
            JobState::Pending
            | JobState::Configuring
            | JobState::Running
            | JobState::Suspended
            | JobState::Completing
            | JobState::Unknown(_) => false,
        }
    }

    /// A pending job of which nothing else is known.
    #[must_use]
    pub fn new(id: JobId) -> Self {
        Self {
            id,
            name: String::new(),
            uid: 0,
            user: String::new(),
            partition: String::new(),
            state: JobState::Pending,
            reason: JobReason::default(),
            nodes: Vec::new(),
            node_count: 1,
            submit: None,
            start: None,
            priority: 0,
            account: String::new(),
            request: Request::default(),
            array: None,
            het: None,
            gate: Gate::Open,
            licenses: String::new(),
            has_options: false,
            requeue: true,
            admin_comment: None,
        }
    }
}

/// What a job asks for, all its nodes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Request {
    pub cpus: u32,
    pub memory_mb: u64,
    /// Nodes, the fewest of them where it asks for a range.
    pub nodes: u32,
    /// The most nodes that Slurm may give it; what is below [`Request::nodes`] says nothing.
    pub most_nodes: u32,
    /// The fewest CPUs on each node; 0 is not known.
    pub node_cpus: u32,
    /// CPUs that are on one node together, those of a task; 0 is not known.
    pub task_cpus: u32,
    /// By what it asks for memory.
    pub memory_by: MemoryBy,
    /// Generic resources of the kind `gpu`.
    pub gpus: u32,
    /// By what it asks for them.
    pub gpus_by: GpusBy,
    /// Its nodes whole (`--exclusive`), whatever CPUs it asks for.
    pub whole_nodes: bool,
}

/// By what a job asks for GPUs: on how many nodes it is, and with how many tasks on each, goes by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GpusBy {
    /// By node or socket, if it asks for any.
    #[default]
    Node,
    /// All of them together: Slurm gives it the fewest nodes that have them.
    Job,
    /// So many for each task.
    Task(NonZeroU32),
}

/// By what a job asks for memory: what it gets on a node goes by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryBy {
    /// It cannot be told.
    #[default]
    Unknown,
    /// `--mem-per-cpu`: so much for each CPU.
    Cpu,
    /// `--mem`: so much for each node.
    Node,
}

/// A job array's part that one record stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayTasks {
    /// The job id of the whole array.
    pub job: JobId,
    /// Numbers of the tasks, ascending.
    pub tasks: Vec<u32>,
}

/// As Slurm writes them: `8_2`, `8_[4-9,11]`.
impl fmt::Display for ArrayTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, tasks } = self;
        if let [one] = tasks.as_slice() {
            return write!(f, "{job}_{one}");
        }
        write!(f, "{job}_[")?;
        let mut rest = tasks.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if(|next| last.checked_add(1) == Some(*next)) {
                last = next;
            }
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        f.write_str("]")
    }
}

/// Whether a pending job of job mode waits until there is capacity for its VMs. Written into
/// Slurm as a licence of which none is ever free: users mostly see `(Licenses)` and Slurm does
/// not start it; all else about the job stays Slurm's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gate {
    /// It does not, or not any more.
    #[default]
    Open,
    /// It waits, and Slurm cannot start it.
    Waits,
}

/// Slurm's job states, as far as they matter to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// Waits in Slurm's queue.
    Pending,
    /// Has nodes, which are not up yet.
    Configuring,
    Running,
    Suspended,
    /// Some of its processes may still run.
    Completing,
    /// Over, in Slurm's word.
    Over(String),
    /// A word that we do not know.
    Unknown(String),
}

/// How far the end of a VM is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The provider surely has it no more.
    Gone,
    /// Asked for; the text says what it waits for.
    Underway(String),
}

/// What a provider's failure means for what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// That host (or the provider) has no capacity: another host may have.
    Full,
    /// It may work when tried again later.
    Transient,
    /// It will not work until a person changes something.
    Refused,
}
