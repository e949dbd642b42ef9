//! What the local API says, version 1: plain values, stable names.
//! Times are milliseconds since the Unix epoch; sizes MiB.

use crate::JobName;
use crate::words::{Desired, JobState, Mode, NodeState, VmState};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use thiao_core::ids::JobId;
use thiao_core::view::ArrayTasks;

/// `GET /v1/status`: how the controller is doing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The version of the controller.
    pub version: String,
    /// The cluster whose nodes these are.
    pub cluster: String,
    /// The provider: `qemu`, `opennebula`.
    pub provider: String,
    /// What the provider says of itself, e.g. its acceleration and how shares are enforced.
    pub provider_notes: Vec<String>,
    /// Why VMs are emulated on this machine, several times slower than they could be, if they are.
    #[serde(default)]
    pub emulated: Option<String>,
    /// What the provider does before it can make VMs, while it does; nothing is made meanwhile.
    #[serde(default)]
    pub preparing: Option<String>,
    /// Of which nodes it can make no VMs, and why, as sentences; nothing is wrong with the others.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Why nothing can be stored, while that is so; nothing that is not stored is done.
    #[serde(default)]
    pub unstored: Option<String>,
    /// When this controller started.
    pub started: u64,
    /// The controller's clock now.
    pub now: u64,
    /// The last observation of Slurm.
    pub slurm: Observation,
    /// The last observation of the provider.
    pub vms: Observation,
    /// What tells the provider of its VMs, where something does.
    #[serde(default)]
    pub bus: Option<EventBus>,
    /// Why jobs of job mode start without waiting for capacity, while that is so.
    #[serde(default)]
    pub ungated: Option<String>,
    /// Why nothing is created now, if the circuit breaker is open.
    pub breaker: Option<String>,
    /// How many nodes are in each state.
    pub nodes_by_state: BTreeMap<NodeState, usize>,
    /// How many VMs exist or are asked for, strays included.
    pub vm_count: usize,
    /// How many orders wait in the spool.
    pub pending_intents: usize,
}

/// OpenNebula's event bus, as the controller hears it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventBus {
    /// Where it is, as `HOST:PORT`.
    pub address: String,
    /// Whether the settings say where it is.
    pub configured: bool,
    /// Whether what happens is told there, and observations are rare for that.
    pub relied_on: bool,
    /// Whether it is connected, and nothing has come so far.
    pub silent: bool,
    /// A sentence for people.
    pub text: String,
}

/// How the last observation of a side went.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Observation {
    /// When it last succeeded.
    pub last_ok: Option<u64>,
    /// Why the newest one failed, if it did.
    pub error: Option<String>,
}

/// `GET /v1/nodes`: one per configured node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    /// The name that Slurm has for it.
    pub name: String,
    /// The nodeset that it is of.
    pub nodeset: String,
    /// How many vCPUs Slurm's jobs may use on it; in job mode at most.
    pub cpus: u32,
    /// Memory that Slurm promises on it, MiB.
    pub memory_mb: u64,
    /// How far it is.
    pub state: NodeState,
    /// Slurm's state, as Slurm writes it (`IDLE+CLOUD+POWERED_DOWN`); none if Slurm could not be read.
    pub slurm: Option<String>,
    /// Why Slurm has it in that state, if Slurm says.
    pub reason: Option<String>,
    /// What Slurm or a person asked for.
    pub desired: Desired,
    /// The VM that backs it.
    pub vm: Option<String>,
    /// Where that VM is.
    pub host: Option<String>,
    /// Jobs on it or for which it was resumed.
    pub jobs: Vec<u32>,
    /// Failures in a row.
    pub failures: u32,
    /// When it is tried again.
    pub retry_at: Option<u64>,
    /// When its state last changed.
    pub since: u64,
}

/// `GET /v1/vms`: one per VM of this cluster that exists or is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Vm {
    /// The provider's id, or the VM's name as long as no id is known.
    pub id: String,
    /// The node it backs.
    pub node: String,
    /// Which VM of its node it is: the next one has the next number.
    pub generation: u64,
    /// The host that it is on, if that is known.
    pub host: Option<String>,
    /// How far it is.
    pub state: VmState,
    /// Memory taken from its host, MiB.
    pub memory_mb: u64,
    /// Core share taken from its host, percent of a core.
    pub cpu_percent: u32,
    /// For whom it was made.
    pub mode: Mode,
    /// That job; told to its owner.
    pub job: Option<u32>,
    /// When it was asked for.
    pub asked: Option<u64>,
    /// Why it will be terminated, if it will.
    pub note: Option<String>,
}

/// `GET /v1/hosts`: capacity is what is there for us, what we have taken included.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Host {
    pub name: String,
    /// Cores promised at most, percent of a core.
    pub cpu_percent: u32,
    /// Core shares taken by our VMs.
    pub cpu_percent_used: u32,
    /// Memory for VMs, MiB.
    pub memory_mb: u64,
    /// Memory taken by our VMs, MiB.
    pub memory_mb_used: u64,
    /// Our VMs on it (its density).
    pub vms: usize,
    /// Whether new VMs may be placed there.
    pub usable: bool,
    /// Why it takes no new VMs, whoever places them.
    #[serde(default)]
    pub closed: Option<String>,
    /// Nodesets whose VMs cannot run there, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_for: BTreeMap<String, String>,
    /// What is there of everybody, where others use the host too and the provider tells.
    #[serde(default)]
    pub everybody: Option<Everybody>,
}

/// What of a host is taken by everybody, us included.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Everybody {
    /// How many VMs are on it.
    pub vms: usize,
    /// Core shares promised to them, percent of a core.
    pub cpu_percent: u32,
    /// Memory promised to them, MiB.
    pub memory_mb: u64,
    /// Cores really used, percent of a core, if that is measured.
    pub cpu_percent_load: Option<u32>,
    /// Memory really used, MiB, if that is measured.
    pub memory_mb_load: Option<u64>,
}

/// `GET /v1/jobs?fresh=true`: with `fresh` after another observation of Slurm, so that a job of this moment
/// is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// The number that Slurm has for it.
    pub id: u32,
    pub name: String,
    /// The name of who submitted it.
    pub user: String,
    /// That user's uid: others than root and the controller's user see only their own jobs.
    pub uid: u32,
    /// Slurm's state of it.
    pub state: JobState,
    /// Slurm's reason for it.
    pub reason: String,
    /// The nodes that it was given, as a folded hostlist.
    pub nodes: String,
    /// How many of its nodes are up.
    pub nodes_up: usize,
    /// How many nodes it asked for.
    pub node_count: u32,
    /// When it was submitted, if Slurm says.
    pub submit: Option<u64>,
    /// Started, or expected to.
    pub start: Option<u64>,
    /// The array that it is a task of; several while they wait.
    #[serde(default)]
    pub array: Option<JobArray>,
    /// The leader of the heterogeneous job that it is a part of: the first part's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub het: Option<u32>,
}

/// A part of a job array.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobArray {
    /// The number that the whole array has.
    pub job: u32,
    /// The tasks that this record stands for.
    pub tasks: Vec<u32>,
}

impl JobArray {
    /// As Slurm writes these tasks: `8_2`, `8_[4-9]`.
    #[must_use]
    pub fn name(&self) -> String {
        let (job, tasks) = (JobId(self.job), self.tasks.clone());
        ArrayTasks { job, tasks }.to_string()
    }
}

impl Job {
    /// What Slurm calls it.
    #[must_use]
    pub fn slurm_name(&self) -> String {
        match &self.array {
            Some(array) => array.name(),
            None => self.id.to_string(),
        }
    }

    /// Whether it is called so, or a part of it is, or it is a part of that.
    #[must_use]
    pub fn is(&self, name: JobName) -> bool {
        let array = self.array.as_ref().filter(|array| array.job == name.id);
        match name.task {
            None => self.id == name.id || array.is_some(),
            Some(task) => array.is_some_and(|array| array.tasks.contains(&task)),
        }
    }
}

/// `GET /v1/jobs/NAME/vms`: the VMs that were made for a job alone; a task of an array is named `17_3`, and the
/// array itself has those of all its tasks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobVms {
    /// The job; of a task its own number.
    pub job: u32,
    /// Whose it is, if that was seen.
    pub uid: Option<u32>,
    /// The longest time from asking for a VM to its node's being up, in milliseconds; none if none was.
    pub up_after: Option<u64>,
    /// What all cost until now.
    pub core_hours: f64,
    /// Each of them, in the order in which they were asked for.
    pub vms: Vec<JobVm>,
}

/// A VM that was made for one job; `GET /v1/jobs/vms?since=TIME&after=ID&limit=N` has those of many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobVm {
    /// Rises with every VM that a job gets: what the next page comes after.
    pub id: i64,
    /// The job that it was made for.
    pub job: u32,
    /// What Slurm called that, if it was a task of an array: `8_2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Whose job it is, if that was seen.
    pub uid: Option<u32>,
    /// The node that it backed.
    pub node: String,
    /// Its name: the node, and the VM's generation.
    pub vm: String,
    /// Its host, if it came so far.
    pub host: Option<String>,
    /// How many vCPUs it has.
    pub cpus: u32,
    /// Memory for the job, MiB.
    pub memory_mb: u64,
    /// The share of a core that was promised to each vCPU, in percent.
    pub share_percent: u32,
    /// Devices of the kind `gpu`.
    pub gpus: u32,
    /// When it was asked for.
    pub asked: u64,
    /// When the provider had it.
    pub started: Option<u64>,
    /// When its guest said that slurmd runs.
    pub ready: Option<u64>,
    /// When Slurm showed its node up.
    pub up: Option<u64>,
    /// When it was gone.
    pub ended: Option<u64>,
    /// What it cost until now: cores promised to it, for the time that the provider had it.
    pub core_hours: f64,
}

/// A job on a node, in one of its VMs: whatever that was made for;
/// `GET /v1/jobs/nodes?since=TIME&after=ID&limit=N`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStay {
    /// Rises with every one: what the next page comes after.
    pub id: i64,
    pub job: u32,
    /// What Slurm called that, if it was a task of an array: `8_2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Whose job it is.
    pub uid: u32,
    /// The node, as Slurm calls it.
    pub node: String,
    /// The VM that backed it: the node, and the VM's generation.
    pub vm: String,
    /// Its host, if that was known.
    pub host: Option<String>,
    /// When it was first seen there.
    pub began: u64,
    /// When it was seen there no more.
    pub ended: Option<u64>,
}

impl JobStay {
    /// What Slurm calls the job.
    #[must_use]
    pub fn slurm_name(&self) -> String {
        self.task.clone().unwrap_or_else(|| self.job.to_string())
    }
}

/// What a VM costs that the provider has had from `started` to `until`: the hours of a whole core.
#[must_use]
pub fn core_hours(cpus: u32, share_percent: u32, started: Option<u64>, until: u64) -> f64 {
    let millis = started.map_or(0, |started| until.saturating_sub(started));
    f64::from(cpus) * f64::from(share_percent) / 100.0 * millis as f64 / 3_600_000.0
}

impl JobVms {
    /// Sums a job's VMs up.
    #[must_use]
    pub fn of(job: u32, vms: Vec<JobVm>) -> Self {
        Self {
            job,
            uid: vms.iter().find_map(|vm| vm.uid),
            up_after: up_after(&vms),
            core_hours: cost(&vms),
            vms,
        }
    }
}

/// What all of them cost. (`sum` of no floats is -0.)
fn cost(vms: &[JobVm]) -> f64 {
    vms.iter().fold(0.0, |sum, vm| sum + vm.core_hours)
}

/// The longest time from asking for a VM to its node's being up.
fn up_after(vms: &[JobVm]) -> Option<u64> {
    vms.iter()
        .filter_map(|vm| Some(vm.up?.saturating_sub(vm.asked)))
        .max()
}

/// Most hosts that [`summary_line`] names.
const HOSTS_NAMED: usize = 4;

/// A job's VMs and what they have cost, in one line.
#[must_use]
pub fn summary_line(vms: &[JobVm]) -> String {
    format!("thiao: {}; {:.2} core-hours", in_short(vms), cost(vms))
}

/// A job's VMs and what they cost, in one line for its `AdminComment` when it starts: Slurm
/// takes no comment of a job that is over (22.05).
#[must_use]
pub fn start_line(vms: &[JobVm]) -> String {
    let cores = |vm: &JobVm| f64::from(vm.cpus) * f64::from(vm.share_percent) / 100.0;
    let rate = vms.iter().fold(0.0, |sum, vm| sum + cores(vm));
    format!("thiao: {}; {rate:.2} core-hours per hour", in_short(vms))
}

fn in_short(vms: &[JobVm]) -> String {
    let hosts: BTreeSet<&str> = vms.iter().filter_map(|vm| vm.host.as_deref()).collect();
    let on = match hosts.len() {
        0 => String::new(),
        1..=HOSTS_NAMED => format!(" on {}", Vec::from_iter(hosts).join(",")),
        many => format!(" on {many} hosts"),
    };
    let up = match up_after(vms) {
        Some(millis) => format!("up after {:.1} s", millis as f64 / 1000.0),
        None => "never up".to_owned(),
    };
    let each = if vms.len() == 1 { "VM" } else { "VMs" };
    format!("{} {each}{on}; {up}", vms.len())
}

/// `GET /v1/events?limit=N&after=ID&subject=NAME`, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// Rises by one per event.
    pub id: i64,
    /// When it happened, milliseconds since the epoch.
    pub at: u64,
    /// What it is about: `node fg0`, `vm fg0.3`, `job 17`, `host a`, `controller`, `slurm`, `provider`.
    pub subject: String,
    /// A stable word for programs, e.g. `vm-asked`, `vm-ready`, `node-up`, `node-down`, `intent`, `refused`.
    pub kind: String,
    /// A sentence for people, with the cause.
    pub message: String,
    /// Whose job it is about: only that user, root and the controller's user see it. None: everybody does.
    #[serde(default)]
    pub uid: Option<u32>,
}

/// `GET /v1/explain/NODE|JOB|VM`: what holds now, and how it came to that.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explanation {
    /// What is explained, e.g. `node fg0`.
    pub subject: String,
    /// What holds now and why, in sentences.
    pub now: Vec<String>,
    /// What happened, oldest first.
    pub story: Vec<Event>,
    /// Whose job is explained; none: everybody may read it.
    #[serde(default)]
    pub uid: Option<u32>,
    /// What VMs of it said last that are gone, for those who may read it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_words: Vec<LastWords>,
}

/// What a VM wrote on its console before its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastWords {
    /// Its name: the node, and the VM's generation.
    pub vm: String,
    /// When it was read.
    pub at: u64,
    pub text: String,
    /// Whose jobs were on it. Only if all were of one user does he see this; root and the controller's user do.
    #[serde(default)]
    pub users: Vec<u32>,
}

/// `GET /v1/plan`: what the controller would do next, and what is held back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanView {
    /// What would be done next, each with its cause.
    pub actions: Vec<PlanLine>,
    /// What is held back, each with the reason.
    #[serde(alias = "notes")]
    pub held: Vec<PlanLine>,
    /// What the linter refuses.
    pub refused: Vec<PlanLine>,
}

/// One line of a plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanLine {
    /// About what, e.g. `node fg0`.
    pub subject: String,
    /// What, e.g. `create VM fg0.3 on host a`.
    pub what: String,
    /// The reason, in a sentence.
    pub why: String,
}

/// The body of `POST /v1/jobs/NAME/give`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Give {
    /// What the job asks of its VMs, e.g. `template=x share=50`; may be empty.
    pub options: String,
}

/// `POST /v1/nodes/HOSTLIST/resume|suspend`, `POST /v1/jobs/NAME/give|clean`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Accepted {
    /// The nodes that it is about, folded; empty if there are none yet.
    pub nodes: String,
    /// What follows now, in a sentence.
    pub message: String,
}

/// `GET /version`, the one path without a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Version {
    /// The version of the controller.
    pub thiao: String,
    /// The API versions that it speaks.
    pub api: Vec<u32>,
}

/// The body of every answer that is not 2xx.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    /// What failed, why, and what can be done.
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(id: i64, host: Option<&str>, up: Option<u64>) -> JobVm {
        JobVm {
            id,
            job: 17,
            task: None,
            uid: (id == 2).then_some(1001),
            node: format!("s{id}"),
            vm: format!("s{id}.1"),
            host: host.map(str::to_owned),
            cpus: 2,
            memory_mb: 500,
            share_percent: 50,
            gpus: 0,
            asked: 1_000,
            started: Some(2_000),
            ready: None,
            up,
            ended: None,
            core_hours: 0.01,
        }
    }

    #[test]
    fn a_core_hour_is_one_core_for_an_hour() {
        let hour = 3_600_000;
        assert_eq!(core_hours(1, 100, Some(5), hour + 5), 1.0);
        assert_eq!(core_hours(4, 25, Some(0), hour / 2), 0.5);
        assert_eq!(core_hours(4, 25, None, hour), 0.0);
        // A clock that was set back.
        assert_eq!(core_hours(1, 100, Some(9), 5), 0.0);
    }

    #[test]
    fn a_jobs_vms_are_summed_up() {
        let vms = vec![
            vm(1, Some("b"), Some(3_000)),
            vm(2, Some("a"), Some(4_140)),
            vm(3, None, None),
        ];
        let line = summary_line(&vms);
        assert_eq!(line, "thiao: 3 VMs on a,b; up after 3.1 s; 0.03 core-hours");
        let sum = JobVms::of(17, vms);
        assert_eq!((sum.uid, sum.up_after), (Some(1001), Some(3_140)));
        assert!((sum.core_hours - 0.03).abs() < 1e-9);
    }

    #[test]
    fn a_summary_stays_short() {
        assert_eq!(
            summary_line(&[vm(1, None, None)]),
            "thiao: 1 VM; never up; 0.01 core-hours"
        );
        let hosts: Vec<String> = (0..5000).map(|n| format!("h{n}")).collect();
        let vms: Vec<JobVm> = hosts.iter().map(|host| vm(1, Some(host), None)).collect();
        assert_eq!(
            summary_line(&vms),
            "thiao: 5000 VMs on 5000 hosts; never up; 50.00 core-hours"
        );
        assert_eq!(summary_line(&[]), "thiao: 0 VMs; never up; 0.00 core-hours");
        assert_eq!(
            start_line(&[]),
            "thiao: 0 VMs; never up; 0.00 core-hours per hour"
        );
        let started = start_line(&vms);
        assert!(started.ends_with(" core-hours per hour"), "{started}");
        assert!(!started.contains(" 0.00 "), "{started}");
    }
}
