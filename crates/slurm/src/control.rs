//! What Thiao asks of slurmctld, through `sinfo`, `squeue` and `scontrol`.

use crate::details::{Named, NodeDetails};
use crate::error::SlurmError;
use crate::info::{Config, Ping, Version};
use crate::partitions::{self, Partition};
use crate::quirks::{Quirks, Resolved};
use crate::run::Runner;
use crate::words::{given_reason, plain};
use crate::{details, jobs, nodes};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use thiao_core::hostlist;
use thiao_core::ids::{JobId, NodeName};
use thiao_core::table::Table;
use thiao_core::view::{BaseState, GateSeen, SlurmJob, SlurmNode, SlurmView, Whose};

/// Longest hostlist given to one command, in bytes. Linux takes 128 KiB in one argument.
const MAX_LIST: usize = 32 << 10;

/// An address that no node has: a connection to it fails at once (`ENETUNREACH`).
const NO_ADDRESS: &str = "255.255.255.255";
/// Most nodes in one command that has a value for each.
const MOST_VALUES: usize = 200;

/// Nodes that slurmctld knows, and how it sees them.
type Known<'a> = Vec<(&'a NodeName, SlurmNode)>;

/// A way to talk to one slurmctld. Cheap to clone; keeps nothing between calls but which release it is.
#[derive(Debug, Clone)]
pub struct Slurm {
    pub(crate) runner: Runner,
    nodes: Arc<BTreeSet<NodeName>>,
    job_nodes: Arc<BTreeSet<NodeName>>,
    resolved: Arc<Mutex<Resolved<Quirks>>>,
    programs: Arc<Mutex<Resolved<Version>>>,
}

impl Slurm {
    /// `conf` becomes `SLURM_CONF` (default: ours), `bin_dir` is where Slurm's programs are (default: `PATH`
    /// and the usual places), `timeout` bounds each single command.
    #[must_use]
    pub fn new(conf: Option<PathBuf>, bin_dir: Option<PathBuf>, timeout: Duration) -> Self {
        Self {
            runner: Runner {
                conf,
                bin_dir,
                timeout,
            },
            nodes: Arc::default(),
            job_nodes: Arc::default(),
            resolved: Arc::default(),
            programs: Arc::default(),
        }
    }

    /// Which nodes an observation is to find even when they are in no partition.
    #[must_use]
    pub fn with_nodes(self, nodes: Arc<BTreeSet<NodeName>>) -> Self {
        Self { nodes, ..self }
    }

    /// Which nodes are of job mode: of those that wait for their VM an observation shows what is allocated.
    #[must_use]
    pub fn with_job_nodes(self, job_nodes: Arc<BTreeSet<NodeName>>) -> Self {
        Self { job_nodes, ..self }
    }

    /// All nodes that are in a partition, our own also without one, and all jobs that are not over. Two
    /// commands, run side by side, whatever the cluster's size; one more with job mode, one more while nodes of
    /// it wait for their VM, and one more while nodes of ours are in no partition.
    ///
    /// # Errors
    /// Any failure of either command: an observation is whole or none.
    pub fn observe(&self) -> Result<SlurmView, SlurmError> {
        self.observe_also(&BTreeSet::new())
    }

    /// The same, and these nodes also without a partition.
    ///
    /// # Errors
    /// As of [`Slurm::observe`].
    pub fn observe_also(&self, others: &BTreeSet<NodeName>) -> Result<SlurmView, SlurmError> {
        self.observe_once(others)
            .inspect_err(|_| self.resolved().forget())
    }

    fn observe_once(&self, others: &BTreeSet<NodeName>) -> Result<SlurmView, SlurmError> {
        thread::scope(|scope| {
            let jobs = scope.spawn(|| self.jobs());
            let gate = (!self.job_nodes.is_empty()).then(|| scope.spawn(|| self.gate()));
            let mut nodes = self.nodes()?;
            let Named { found, gone } = self.unlisted(&nodes, self.nodes.iter().chain(others))?;
            let without_partition = found.keys().cloned().collect();
            nodes.extend(found);
            self.add_allocs(&mut nodes)?;
            self.leave_others_drains(&mut nodes)?;
            let jobs = jobs
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            let gate = match gate.map(|gate| gate.join()) {
                None => GateSeen::Unasked,
                Some(Ok(gate)) => gate?,
                Some(Err(panic)) => std::panic::resume_unwind(panic),
            };
            Ok(SlurmView {
                nodes,
                without_partition,
                gone,
                jobs,
                gate,
            })
        })
    }

    /// Those of `wanted` that sinfo did not list, by name: it lists only nodes in partitions.
    fn unlisted<'a>(
        &self,
        listed: &Table<NodeName, SlurmNode>,
        wanted: impl IntoIterator<Item = &'a NodeName>,
    ) -> Result<Named, SlurmError> {
        let unseen = wanted.into_iter().filter(|node| !listed.contains_key(*node));
        let unseen: Vec<NodeName> = unseen.cloned().collect();
        let mut named = Named::default();
        for list in lists(&unseen) {
            let args = ["-a", "-o", "show", "node", &list];
            let output = self.runner.output("scontrol", args)?;
            let said = details::parse_named(&String::from_utf8_lossy(&output.stdout))?;
            // Exit code 1 says that a node was not found, or that nothing was.
            if said.found.is_empty() && said.gone.is_empty() {
                output.text()?;
            }
            named.found.extend(said.found);
            named.gone.extend(said.gone);
        }
        Ok(named)
    }

    fn nodes(&self) -> Result<Table<NodeName, SlurmNode>, SlurmError> {
        let mark = mark()?;
        let text = self
            .runner
            .run("sinfo", ["-h", "-a", "-O", &nodes::format(&mark)])?;
        nodes::parse(&text, &mark)
    }

    fn jobs(&self) -> Result<Table<JobId, SlurmJob>, SlurmError> {
        let mark = mark()?;
        let text = self.runner.run(
            "squeue",
            ["-h", "-a", "-O", &jobs::format(&mark, self.squeue()), "-r"],
        )?;
        jobs::parse(&text, &mark)
    }

    /// What is allocated of nodes of job mode that wait for their VM.
    fn add_allocs(&self, nodes: &mut Table<NodeName, SlurmNode>) -> Result<(), SlurmError> {
        let waiting: Vec<NodeName> = nodes
            .iter()
            .filter(|(name, node)| waits_for_vm(node) && self.job_nodes.contains(*name))
            .map(|(name, _)| name.clone())
            .collect();
        for list in lists(&waiting) {
            // -d adds what is used of generic resources.
            let text = self
                .runner
                .run("scontrol", ["-a", "-d", "-o", "show", "node", &list])?;
            for (name, alloc) in details::parse_allocs(&text)? {
                if let Some(node) = nodes.get_mut(&name) {
                    node.alloc = alloc;
                }
            }
        }
        Ok(())
    }

    /// A person may use the very words with which Slurm itself drains a node: who gave the reason is asked where
    /// something would be done about it.
    fn leave_others_drains(&self, nodes: &mut Table<NodeName, SlurmNode>) -> Result<(), SlurmError> {
        let over = |node: &SlurmNode| node.drain_of_its_vm().is_some();
        let drained = nodes
            .iter()
            .filter(|(name, node)| over(node) && self.nodes.contains(*name));
        let drained: Vec<NodeName> = drained.map(|(name, _)| name.clone()).collect();
        if drained.is_empty() {
            return Ok(());
        }
        let config = self.config()?;
        let slurm_user = config.get("SlurmUser").unwrap_or_default();
        // `slurm(64030)`
        let itself = |setter: &str| {
            let mut names = slurm_user.split(['(', ')']);
            setter == "root" || setter == "0" || names.any(|name| name == setter)
        };
        for list in lists(&drained) {
            let text = self.runner.run("scontrol", ["-a", "-o", "show", "node", &list])?;
            let setters = details::parse_setters(&text)?;
            for name in hostlist::expand(&list).unwrap_or_default() {
                let by_slurm = setters.get(&name).is_some_and(|setter| itself(setter));
                let reason = nodes.get_mut(&name).and_then(|node| node.reason.as_mut());
                if let Some(reason) = reason.filter(|_| !by_slurm) {
                    reason.whose = Whose::Others;
                }
            }
        }
        Ok(())
    }

    /// Undrains nodes that Slurm itself has drained for what went wrong in a VM that is gone. One that somebody else
    /// has drained since is left alone.
    ///
    /// # Errors
    /// [`SlurmError::NoSuchNode`] names unknown ones, after the known ones were undrained.
    pub fn undrain(&self, nodes: &[NodeName]) -> Result<(), SlurmError> {
        if nodes.is_empty() {
            return Ok(());
        }
        let (mut known, unknown) = self.known(nodes)?;
        known.retain(|(_, node)| node.drain_of_its_vm().is_some());
        let names: Vec<NodeName> = known.iter().map(|(name, _)| (*name).clone()).collect();
        self.update_nodes(&names, &["state=UNDRAIN"])?;
        unknown.map_or(Ok(()), Err)
    }

    /// Puts nodes out of service with a reason that people see in `sinfo -R`, and powers them down.
    ///
    /// What was measured on 22.05.8:
    /// - A job on such a node, configuring or running, is requeued at once; it may start again after
    ///   120 s, or see [`Slurm::start_now`].
    /// - DOWN alone does not last: at ResumeTimeout slurmctld overwrites the reason. So nodes that are not
    ///   powered down get `POWER_DOWN` as well: within 1 s SuspendProgram is called for them (a call that
    ///   we cause ourselves), they are `down%` for SuspendTimeout, then `down~`, and keep the reason. One
    ///   that powers up and was told to end with its job gets it once more: else it powers up, until
    ///   ResumeTimeout puts another reason.
    /// - An admin's drain is forgotten by a `POWER_DOWN`, and by RESUME.
    /// - With `idle_on_node_suspend` they come back by themselves instead: `idle%`, then `idle~`. Call this
    ///   again then: a node that is `idle~` becomes `down~` and stays so.
    /// - A node whose slurmd is alive registers again within 0.2 s and is up (ReturnToService=2) until the
    ///   power-down is done: end the VM first.
    ///
    /// # Errors
    /// [`SlurmError::NoSuchNode`] names unknown ones, after the known ones were set.
    pub fn set_down(&self, nodes: &[NodeName], reason: &str) -> Result<(), SlurmError> {
        if nodes.is_empty() {
            return Ok(());
        }
        let (known, unknown) = self.known(nodes)?;
        let names: Vec<NodeName> = known.iter().map(|(name, _)| (*name).clone()).collect();
        self.update_nodes(
            &names,
            &["state=DOWN", &format!("reason={}", given_reason(reason))],
        )?;
        self.update_nodes(&powered(&known), &["state=POWER_DOWN"])?;
        unknown.map_or(Ok(()), Err)
    }

    /// Gives nodes that we had set DOWN back to Slurm: powered down and free (`idle~`), without a reason.
    ///
    /// `RESUME` makes `idle~` of `down~` and of `down%` at once. A node that is not powered down (or about
    /// to be) gets `POWER_DOWN` first, and is `idle~` after SuspendTimeout and a second; `RESUME` alone would
    /// leave it `POWERING_UP` until ResumeTimeout. No pause is needed between the two. Nodes that are not
    /// DOWN are left alone. Measured on 22.05.8, with and without `idle_on_node_suspend`.
    ///
    /// # Errors
    /// [`SlurmError::NoSuchNode`] names unknown ones, after the known ones were returned;
    /// [`SlurmError::InvalidState`] when a node stopped being DOWN meanwhile.
    pub fn return_to_service(&self, nodes: &[NodeName]) -> Result<(), SlurmError> {
        if nodes.is_empty() {
            return Ok(());
        }
        let (mut known, unknown) = self.known(nodes)?;
        known.retain(|(_, node)| node.base == BaseState::Down);
        let names: Vec<NodeName> = known.iter().map(|(name, _)| (*name).clone()).collect();
        self.update_nodes(&powered(&known), &["state=POWER_DOWN"])?;
        self.update_nodes(&names, &["state=RESUME"])?;
        unknown.map_or(Ok(()), Err)
    }

    /// Keeps slurmctld from looking up the names of nodes whose VMs are not made yet. Their slurmds will bring
    /// their addresses: never for a node that may have one already.
    ///
    /// A cloud node that is powered down has its own name as address, which need not be one that resolves.
    /// Debian's libslurm tries such a name eleven times, with a second between: a slurmctld of 24.11.5 answered
    /// nobody for 20 s when a job of two nodes was cancelled while they booted. `NodeAddr` in slurm.conf lasts
    /// only until the first power-down.
    ///
    /// # Errors
    /// The first failure; the other nodes were told all the same.
    pub fn no_address_yet(&self, nodes: &[NodeName]) -> Result<(), SlurmError> {
        if !self.quirks()?.looks_up_nodes {
            return Ok(());
        }
        let mut outcome = Ok(());
        for some in nodes.chunks(MOST_VALUES) {
            let addresses = vec![NO_ADDRESS; some.len()].join(",");
            outcome = outcome.and(self.update_nodes(some, &[&format!("NodeAddr={addresses}")]));
        }
        outcome
    }

    /// What slurmctld says of these nodes, and an error for those that it does not know: one unknown name
    /// would stop a command half-way through its list.
    fn known<'a>(&self, nodes: &'a [NodeName]) -> Result<(Known<'a>, Option<SlurmError>), SlurmError> {
        let mut all = self.nodes()?;
        let unlisted = self.unlisted(&all, nodes)?;
        all.extend(unlisted.found);
        let (mut known, mut unknown) = (Vec::with_capacity(nodes.len()), Vec::new());
        for name in nodes {
            match all.remove(name) {
                Some(node) => known.push((name, node)),
                None => unknown.push(name),
            }
        }
        let error = (!unknown.is_empty()).then(|| SlurmError::NoSuchNode {
            command: "sinfo".to_owned(),
            detail: hostlist::fold(unknown),
        });
        Ok((known, error))
    }

    /// Tells the users of a job: a message on the output of a running one, and its `AdminComment`, which
    /// stays readable by `scontrol show job`.
    ///
    /// # Errors
    /// [`SlurmError::NoSuchJob`] when it is over and forgotten. A job that can't be messaged (pending ones
    /// can't) only gets the comment.
    pub fn notify_job(&self, job: JobId, message: &str) -> Result<(), SlurmError> {
        let message = plain(message);
        self.runner.run(
            "scontrol",
            [
                "update".to_owned(),
                format!("JobId={job}"),
                format!("AdminComment={message}"),
            ],
        )?;
        match self
            .runner
            .run("scontrol", ["notify".to_owned(), job.to_string(), message])
        {
            Ok(_) | Err(SlurmError::InvalidState { .. } | SlurmError::NoSuchJob { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Lets pending jobs start as soon as they can: a job that Slurm requeued after a node failure otherwise
    /// waits for 120 s.
    ///
    /// # Errors
    /// The first failure; the other jobs were set all the same.
    pub fn start_now(&self, jobs: &[JobId]) -> Result<(), SlurmError> {
        for some in jobs.chunks(1000) {
            let list: Vec<String> = some.iter().map(JobId::to_string).collect();
            self.runner.run(
                "scontrol",
                [
                    "update".to_owned(),
                    format!("JobId={}", list.join(",")),
                    "StartTime=now".to_owned(),
                ],
            )?;
        }
        Ok(())
    }

    /// What is peculiar to the release of the slurmctld that answers: asked anew each minute, and after a
    /// observation that failed.
    ///
    /// # Errors
    /// When slurmctld does not answer, or names no version.
    pub fn quirks(&self) -> Result<Quirks, SlurmError> {
        let now = Instant::now();
        let known = self.resolved().fresh(now);
        if let Some(known) = known {
            return Ok(known);
        }
        let version = self.config()?.version();
        let version =
            version.ok_or_else(|| SlurmError::unparsable("slurmctld's version", "", "no SLURM_VERSION"))?;
        let quirks = Quirks::of(version);
        self.resolved().learn(quirks, now);
        Ok(quirks)
    }

    /// The release of squeue here, where it says it and there are jobs for which it matters; asked anew now
    /// and then, for it may be replaced.
    pub(crate) fn squeue(&self) -> Option<Version> {
        if self.job_nodes.is_empty() {
            return None;
        }
        let now = Instant::now();
        let programs = || self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let known = programs().fresh(now);
        if known.is_some() {
            return known;
        }
        match self.version() {
            Ok(version) => {
                programs().learn(version, now);
                Some(version)
            }
            // It hardly ever changes: what it was holds until it is told again.
            Err(_) => programs().last(),
        }
    }

    fn resolved(&self) -> std::sync::MutexGuard<'_, Resolved<Quirks>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version of Slurm's programs here. That of slurmctld is in its [`Config::version`].
    ///
    /// # Errors
    /// Also when no `slurm.conf` is found: Slurm's programs read it before all else.
    pub fn version(&self) -> Result<Version, SlurmError> {
        let text = self.runner.run("scontrol", ["-V"])?;
        Version::parse(&text)
            .ok_or_else(|| SlurmError::unparsable("Slurm's version", text.trim(), "no version number"))
    }

    /// Whether slurmctld answers. Down is an answer, not an error.
    ///
    /// # Errors
    /// When the program can't be run or there is no configuration.
    pub fn ping(&self) -> Result<Ping, SlurmError> {
        // Exit code 1, with the same text on stdout, when no slurmctld answers.
        let output = self.runner.output("scontrol", ["ping"])?;
        let ping = Ping::parse(&String::from_utf8_lossy(&output.stdout));
        if ping.controllers.is_empty() {
            output.text().map(|_| ping)
        } else {
            Ok(ping)
        }
    }

    /// slurmctld's configuration in effect.
    ///
    /// # Errors
    /// When slurmctld does not answer.
    pub fn config(&self) -> Result<Config, SlurmError> {
        Ok(Config::parse(&self.runner.run("scontrol", ["show", "config"])?))
    }

    /// What slurmctld knows of every node beside its state, in one command.
    ///
    /// # Errors
    /// When slurmctld does not answer, or a line cannot be read.
    pub fn details(&self) -> Result<BTreeMap<NodeName, NodeDetails>, SlurmError> {
        // With -a also nodes of hidden partitions.
        details::parse(&self.runner.run("scontrol", ["-a", "-o", "show", "node"])?)
    }

    /// The nodes that Slurm's topology names, in one command.
    ///
    /// # Errors
    /// When slurmctld does not answer, or a list cannot be read.
    pub fn topology(&self) -> Result<BTreeSet<NodeName>, SlurmError> {
        let text = self.runner.run("scontrol", ["show", "topology"])?;
        let mut all = BTreeSet::new();
        for list in text
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("Nodes="))
        {
            let nodes = hostlist::expand(list)
                .map_err(|e| SlurmError::unparsable("scontrol's topology", list, e.to_string()))?;
            all.extend(nodes);
        }
        Ok(all)
    }

    /// What slurmctld knows of every partition, in one command.
    ///
    /// # Errors
    /// When slurmctld does not answer, or a line cannot be read.
    pub fn partitions(&self) -> Result<BTreeMap<String, Partition>, SlurmError> {
        partitions::parse(&self.runner.run("scontrol", ["-a", "-o", "show", "partition"])?)
    }

    /// One order for many nodes, in as few commands as their names fit.
    pub(crate) fn update_nodes(&self, nodes: &[NodeName], orders: &[&str]) -> Result<(), SlurmError> {
        let mut outcome = Ok(());
        for list in lists(nodes) {
            let mut args: Vec<OsString> = vec!["update".into(), format!("NodeName={list}").into()];
            args.extend(orders.iter().map(OsString::from));
            outcome = outcome.and(self.runner.run("scontrol", args).map(drop));
        }
        outcome
    }
}

/// Whether a job has it and its VM is not there yet.
fn waits_for_vm(node: &SlurmNode) -> bool {
    match node.base {
        BaseState::Allocated | BaseState::Mixed => node.flags.powered_down || node.flags.powering_up,
        BaseState::Idle | BaseState::Down | BaseState::Error | BaseState::Future | BaseState::Unknown(_) => {
            false
        }
    }
}

/// Names of nodes as lists that each fit into one command.
fn lists(nodes: &[NodeName]) -> Vec<String> {
    if nodes.is_empty() {
        return Vec::new();
    }
    let list = hostlist::fold(nodes);
    if list.len() <= MAX_LIST || nodes.len() == 1 {
        return vec![list];
    }
    let (left, right) = nodes.split_at(nodes.len() / 2);
    [lists(left), lists(right)].concat()
}

/// Those nodes that Slurm has neither powered down nor will.
fn powered(nodes: &[(&NodeName, SlurmNode)]) -> Vec<NodeName> {
    let off = |node: &SlurmNode| {
        let f = node.flags;
        // A power-down that was asked for before waits as long as the node powers up.
        f.powered_down || f.powering_down || (f.power_down && !f.powering_up)
    };
    nodes
        .iter()
        .filter(|(_, node)| !off(node))
        .map(|(name, _)| (*name).clone())
        .collect()
}

/// A text that no user of Slurm can foresee, so that none can forge a line of a listing.
pub(crate) fn mark() -> Result<String, SlurmError> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(|e| {
        SlurmError::Io {
            command: "getrandom".to_owned(),
            source: e.into(),
        }
    })?;
    Ok(format!("@{:016x}", u64::from_ne_bytes(bytes)))
}
