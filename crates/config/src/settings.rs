//! What the settings are, once resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use thiao_core::ids::{ClusterName, NodeName, NodesetName};
use thiao_core::options::OptionRule;
use thiao_core::policy::Policy;
use thiao_core::view::Shape;
use thiao_core::world::{JobPartition, Mode, NodeSpec};
use thiao_qemu::Guests;
use thiao_slurm::fragment::Cgroups;

/// Everything that was configured or is the default, resolved.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that was read.
    pub file: PathBuf,
    /// Whose nodes these are.
    pub cluster: ClusterName,
    /// Where sockets, spool, database and VMs live.
    pub state_dir: PathBuf,
    /// How Slurm is reached.
    pub slurm: SlurmSettings,
    /// Nodes of one shape, by name.
    pub nodesets: BTreeMap<NodesetName, Nodeset>,
    /// Every node of all nodesets.
    pub nodes: BTreeMap<NodeName, NodeSpec>,
    /// What holds for jobs in nodesets of job mode.
    pub job: JobSettings,
    /// Whether jobs share their hosts.
    pub sharing: Sharing,
    /// The limits and times that `plan` obeys.
    pub policy: Policy,
    /// When the controller observes and acts.
    pub timing: Timing,
    /// Who makes the VMs, and what it must know.
    pub provider: ProviderSettings,
    /// The `thiao` binary that read the file: other programs of ours are beside it.
    pub program: PathBuf,
}

/// Who makes the VMs, and what it must know.
#[derive(Debug, Clone)]
pub enum ProviderSettings {
    /// The embedded provider: VMs on this machine.
    Qemu(thiao_qemu::Settings),
    /// OpenNebula: VMs on its hosts.
    OpenNebula(thiao_opennebula::Settings),
}

impl ProviderSettings {
    /// The embedded provider's settings, if it is the one.
    #[must_use]
    pub fn qemu(&self) -> Option<&thiao_qemu::Settings> {
        match self {
            Self::Qemu(settings) => Some(settings),
            Self::OpenNebula(_) => None,
        }
    }

    /// OpenNebula's settings, if it is the one.
    #[must_use]
    pub fn opennebula(&self) -> Option<&thiao_opennebula::Settings> {
        match self {
            Self::OpenNebula(settings) => Some(settings),
            Self::Qemu(_) => None,
        }
    }
}

/// How Slurm is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmSettings {
    /// `slurm.conf`; none: where Slurm's programs look themselves.
    pub conf: Option<PathBuf>,
    /// Where `scontrol`, `squeue` and `sinfo` are, with the daemons in its sibling `sbin`; none: by PATH.
    pub bin_dir: Option<PathBuf>,
    /// How long one of them may take.
    pub timeout: Duration,
}

/// Nodes of one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodeset {
    /// Their names as a folded hostlist.
    pub nodes: String,
    /// How many nodes these are.
    pub count: usize,
    /// How big each VM is.
    pub shape: Shape,
    /// The Slurm partition that `thiao setup` puts them in.
    pub partition: String,
    /// Slurm features of them.
    pub features: Vec<String>,
    /// What is set only in job mode; none in power-saving mode.
    pub job: Option<JobNodeset>,
}

impl Nodeset {
    /// For whom its VMs are made.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self.job {
            Some(_) => Mode::Job,
            None => Mode::PowerSaving,
        }
    }

    /// The shapes that VMs of it certainly have: those that a provider readies ahead.
    pub fn shapes(&self) -> impl Iterator<Item = Shape> {
        let (one, many) = match &self.job {
            Some(job) => (None, job.warm.as_slice()),
            None => (Some(self.shape), &[][..]),
        };
        one.into_iter().chain(many.iter().copied())
    }
}

/// What is set only for a nodeset of job mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobNodeset {
    /// Memory for each CPU of a job that names none, in MiB: Slurm's `DefMemPerCPU`.
    pub memory_per_cpu_mb: u64,
    /// Sizes for which a guest is booted and saved ahead.
    pub warm: Vec<Shape>,
    /// The most GPUs of a job on one node.
    pub gpus: u32,
}

/// What holds for jobs in nodesets of job mode.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobSettings {
    /// Who may ask what of VMs (`--vm-*`); empty: nobody anything.
    pub options: Vec<OptionRule>,
    /// Whether a job's VMs are told in its `AdminComment` when it is over.
    pub admin_comment: bool,
}

/// Whether jobs share their hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Each has what it asked for to itself, to its end.
    #[default]
    Exclusive,
}

impl std::fmt::Display for Sharing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Exclusive => "exclusive",
        })
    }
}

/// When the controller observes and acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Longest pause between two rounds when nothing wakes the controller.
    pub tick: Duration,
    /// Pause between observations of Slurm when nothing is under way.
    pub slurm_poll: Duration,
    /// Pause between observations of Slurm while nodes or jobs come up or go.
    pub slurm_poll_busy: Duration,
    /// Pause between observations of Slurm in the first seconds after a guest says that its
    /// slurmd runs: its registration is near, and a job waits for us to see it.
    pub slurm_poll_urgent: Duration,
    /// Pause between observations of the provider when nothing is under way.
    pub vm_poll: Duration,
    /// Pause between observations of the provider while VMs come up or go.
    pub vm_poll_busy: Duration,
    /// Observations older than this are not acted on.
    pub observation_max_age: Duration,
    /// How long events are kept.
    pub events_keep: Duration,
    /// Rounds that are only poked for begin so long after one another, however often somebody pokes.
    pub rounds_apart: Duration,
    /// A slurmd that runs registers within this time, or something is wrong with it: Slurm is observed
    /// every `slurm_poll_urgent` for as long.
    pub registers_within: Duration,
    /// Slurm shows a job's nodes as its own within this time, once it runs the job's prolog: the same.
    pub shown_within: Duration,
    /// Those who read while the controller is busy are shown its state of so long before, at most.
    pub shown_every: Duration,
    /// What is told again in the same words within this time is no event, and in no log.
    pub same_words: Duration,
    /// How often what is older than `events_keep` is removed.
    pub prune: Duration,
}

impl Config {
    /// The nodes whose VMs are made for one job each.
    #[must_use]
    pub fn job_nodes(&self) -> BTreeSet<NodeName> {
        let own = self.nodes.iter().filter(|(_, spec)| spec.mode == Mode::Job);
        own.map(|(node, _)| node.clone()).collect()
    }

    /// The shapes that VMs certainly have, with their nodesets: those that a provider readies ahead.
    #[must_use]
    pub fn shapes(&self) -> Vec<(NodesetName, Shape)> {
        let sets = self.nodesets.iter();
        sets.flat_map(|(name, set)| set.shapes().map(move |shape| (name.clone(), shape)))
            .collect()
    }

    /// What job_submit.lua touches when a job of job mode is submitted.
    #[must_use]
    pub fn submitted_file(&self) -> PathBuf {
        self.state_dir.join("spool/submitted")
    }

    /// Whether some VMs are guests that Thiao makes: small ones, or of an image that it built.
    #[must_use]
    pub fn own_guests(&self) -> bool {
        match &self.provider {
            ProviderSettings::Qemu(qemu) => qemu.kinds().iter().any(|kind| match kind {
                Guests::Small | Guests::Built(_) => true,
                Guests::Brought(_) => false,
            }),
            ProviderSettings::OpenNebula(_) => false,
        }
    }

    /// Whether VMs have control groups.
    #[must_use]
    pub fn cgroups(&self) -> Cgroups {
        match &self.provider {
            ProviderSettings::Qemu(qemu) if qemu.kinds().contains(&Guests::Small) => Cgroups::None,
            ProviderSettings::Qemu(_) => Cgroups::All,
            ProviderSettings::OpenNebula(_) => Cgroups::Unknown,
        }
    }

    /// The users whom the guests know, by their uids, if that is known: a job of another one cannot run in a VM.
    /// Whom OpenNebula's images know is not known.
    #[must_use]
    pub fn guests_know(&self) -> Option<BTreeSet<u32>> {
        match &self.provider {
            // Whom this machine's user database knows, it is asked when his job comes.
            ProviderSettings::Qemu(settings) if settings.guest.everybody => None,
            ProviderSettings::Qemu(settings) => {
                let users = settings.guest.users.iter().map(|user| user.uid);
                Some(users.chain([0]).collect())
            }
            ProviderSettings::OpenNebula(_) => None,
        }
    }

    /// The folders that all of Thiao's own guests see, by their paths there; homes, which come with their users, are
    /// not among them. What OpenNebula's images see is not known.
    #[must_use]
    pub fn shared_folders(&self) -> Vec<PathBuf> {
        match &self.provider {
            ProviderSettings::Qemu(settings) => {
                let shares = settings.guest.shares.iter().map(|share| &share.target);
                let mounts = settings.guest.mounts.iter().map(|mount| &mount.target);
                shares.chain(mounts).cloned().collect()
            }
            ProviderSettings::OpenNebula(_) => Vec::new(),
        }
    }

    /// The partitions whose jobs get VMs of their own.
    #[must_use]
    pub fn job_partitions(&self) -> BTreeMap<String, JobPartition> {
        let mut partitions: BTreeMap<String, JobPartition> = BTreeMap::new();
        for (name, set) in self.nodesets.iter().filter(|(_, set)| set.mode() == Mode::Job) {
            let partition = partitions
                .entry(set.partition.clone())
                .or_insert_with(|| JobPartition {
                    nodesets: Default::default(),
                    most: set.shape,
                    gpus: 0,
                });
            let gpus = set.job.as_ref().map_or(0, |job| job.gpus);
            partition.gpus = partition.gpus.max(gpus);
            partition.nodesets.insert(name.clone());
            partition.most.cpus = partition.most.cpus.max(set.shape.cpus);
            partition.most.memory_mb = partition.most.memory_mb.max(set.shape.memory_mb);
        }
        partitions
    }
}
