//! Job mode's part of Slurm: the gate at which jobs wait for capacity, and what is done to its jobs and nodes.
//!
//! The gate is a licence of which none is ever free, because a reservation holds it: a job that asks for
//! it is pending with the reason `Licenses`, and everything else about it stays Slurm's. Taking the licence
//! off the job lets it start. All measured on 22.05.8, with the scheduler as in
//! [`crate::conf::SCHEDULER_PARAMETERS`]:
//! - A job is CONFIGURING 0.1 to 1.1 s after its licence was taken off.
//! - `JobId=4_[0-3,7]` splits these tasks off their array's record; several jobs in one command, arrays
//!   among them, are separated by commas.
//! - A requeued job may not start for 120 s (`BeginTime`) if it had run.
//! - A job that is released or gets the gate anew shows the reason `None` until the main scheduler looks at it.
//! - While a job waits its start is foretold (`--test-only`) as the reservation's end, years ahead; 24.11.5 says
//!   `allocation failure: Requested node configuration is not available` instead.
//! - Its reason there may also be `Resources`, `Priority` or `None` (24.11.5).
//!
//! *Arrays.* The last task of an array has the array's own id, by which a command means all of its tasks,
//! so tasks are always named `4_9`.

use crate::control::Slurm;
use crate::error::SlurmError;
use crate::jobs;
use crate::licenses::{gate_count, with_gate};
use crate::names::{GATE, RESERVATION, VM};
use crate::quirks::Quirks;
use crate::words::{given_reason, plain};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use thiao_core::ids::{JobId, NodeName};
use thiao_core::view::{ArrayTasks, GateSeen};

/// How long the reservation lasts, from the time that we last looked after it.
const HELD_DAYS: u32 = 3650;
/// Most jobs in one command, and most bytes of their list.
const MOST_JOBS: usize = 500;
const MOST_BYTES: usize = 32 << 10;

/// Jobs that are admitted, or wait again: one job, or some tasks of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The job; of an array its record.
    pub job: JobId,
    /// The tasks of the array that it is about; none: the whole job.
    pub array: Option<ArrayTasks>,
    /// So many nodes it gets, each task, where it asked for a range and is admitted.
    pub nodes: Option<NonZeroU32>,
    /// The licences that it keeps.
    pub licenses: String,
}

impl Admission {
    /// What `scontrol` calls it.
    fn address(&self) -> String {
        address(self.job, self.array.as_ref())
    }
}

/// What `scontrol` calls a job, or these tasks of an array.
#[must_use]
pub fn address(job: JobId, array: Option<&ArrayTasks>) -> String {
    array.map_or_else(|| job.to_string(), ArrayTasks::to_string)
}

/// What `scontrol` calls the leader of a heterogeneous job without the other parts: by its id alone an update
/// is one of all parts (22.05 to 26.05: `update_job_str`).
pub(crate) fn alone(leader: JobId) -> String {
    format!("{leader}+0")
}

impl Slurm {
    /// Takes the gate away: Slurm may start these jobs from now on. One command for many jobs that keep
    /// the same licences (500 took 0.1 s); if it fails they are told one by one. Again is harmless.
    ///
    /// A count of nodes is fixed by the same command, and stays: the range is gone (a job that had more nodes
    /// once keeps their CPUs when it is given fewer). `scontrol` takes a count for one job or one task alone,
    /// and for no leader of a heterogeneous job (22.05.8, 24.11.5, 26.05.5).
    #[must_use]
    pub fn admit(&self, jobs: &[Admission]) -> Vec<(JobId, Result<(), SlurmError>)> {
        let (fixed, jobs): (Vec<Admission>, Vec<Admission>) =
            jobs.iter().cloned().partition(|job| job.nodes.is_some());
        let mut told = self.admit_as_asked(&jobs);
        told.extend(fixed.iter().map(|job| (job.job, self.admit_on(job))));
        told
    }

    /// Admits a job with a count of nodes, of an array each task.
    fn admit_on(&self, job: &Admission) -> Result<(), SlurmError> {
        let nodes = job.nodes.map(|nodes| format!("NumNodes={nodes}-{nodes}"));
        let orders: Vec<String> = nodes
            .into_iter()
            .chain([format!("Licenses={}", job.licenses)])
            .collect();
        let Some(ArrayTasks { job: array, tasks }) = &job.array else {
            return self.update_job(&job.address(), &orders);
        };
        tasks
            .iter()
            .try_for_each(|task| self.update_job(&format!("{array}_{task}"), &orders))
    }

    fn admit_as_asked(&self, jobs: &[Admission]) -> Vec<(JobId, Result<(), SlurmError>)> {
        let leaders = match self.leaders(jobs) {
            Ok(leaders) => leaders,
            Err(error) if jobs.len() == 1 => return vec![(jobs[0].job, Err(error))],
            Err(_) => {
                return jobs
                    .iter()
                    .flat_map(|job| self.admit_as_asked(std::slice::from_ref(job)))
                    .collect();
            }
        };
        let address = |job: &Admission| match leaders.contains(&job.job) {
            true => alone(job.job),
            false => job.address(),
        };
        let mut alike: BTreeMap<&str, Vec<&Admission>> = BTreeMap::new();
        for job in jobs {
            alike.entry(&job.licenses).or_default().push(job);
        }
        let mut told = Vec::with_capacity(jobs.len());
        for (licenses, jobs) in alike {
            for some in batches(&jobs) {
                let list: Vec<String> = some.iter().map(|job| address(job)).collect();
                let all = self.set_licenses(&list.join(","), licenses);
                told.extend(some.iter().map(|job| {
                    let result = match (&all, some.len()) {
                        (Ok(()), _) => Ok(()),
                        (Err(_), _) => self.set_licenses(&address(job), licenses),
                    };
                    (job.job, result)
                }));
            }
        }
        told
    }

    /// Which of these lead heterogeneous jobs. Not asked where nothing keeps a licence: then it is the same to
    /// all parts.
    fn leaders(&self, jobs: &[Admission]) -> Result<BTreeSet<JobId>, SlurmError> {
        if jobs.iter().all(|job| job.licenses.is_empty()) {
            return Ok(BTreeSet::new());
        }
        let whole = jobs.iter().filter(|job| job.array.is_none());
        let list: Vec<String> = whole.map(|job| job.job.to_string()).collect();
        if list.is_empty() {
            return Ok(BTreeSet::new());
        }
        let found = self.listed(&list.join(","))?;
        Ok(found
            .into_values()
            .filter(|job| job.het == Some(job.id))
            .map(|job| job.id)
            .collect())
    }

    /// Lets a pending job wait for capacity again.
    ///
    /// # Errors
    /// [`SlurmError::NoSuchJob`] when it is over.
    pub fn close_gate(&self, job: &Admission) -> Result<(), SlurmError> {
        if job.array.is_some() {
            return self.set_licenses(&job.address(), &with_gate(&job.licenses));
        }
        self.close(&self.find(job.job)?, &job.licenses)
    }

    pub(crate) fn set_licenses(&self, address: &str, licenses: &str) -> Result<(), SlurmError> {
        self.update_job(address, &[format!("Licenses={licenses}")])
    }

    pub(crate) fn update_job(&self, address: &str, orders: &[String]) -> Result<(), SlurmError> {
        let mut args = vec!["update".to_owned(), format!("JobId={address}")];
        args.extend_from_slice(orders);
        self.runner.run("scontrol", args).map(drop)
    }

    /// Writes a job's `AdminComment`, which only root and SlurmUser can.
    ///
    /// # Errors
    /// [`SlurmError::NoSuchJob`] when it is over and forgotten.
    pub fn comment(&self, job: JobId, text: &str) -> Result<(), SlurmError> {
        self.update_job(&job.to_string(), &[format!("AdminComment={}", plain(text))])
    }

    /// Has Slurm give nodes to no further job, and power them down as soon as the present one is over.
    ///
    /// Allowed while a node is POWERING_UP, and its job starts all the same. The node shows as
    /// `power_down`; 0.1 to 1 s after its job's end SuspendProgram is called, SuspendTimeout later it is
    /// free again. Between the two slurmctld gives it to nobody (`make_node_idle` of 22.05 takes it from the
    /// available ones), and the job itself has its only `gres/vm`. While it powers up, 24.11 gives it to
    /// jobs that ask for no `gres/vm`, of a site's own partition: they are turned away.
    ///
    /// `POWER_DOWN_ASAP` would drain it as well: then jobs that wait are told that their nodes are "DOWN,
    /// DRAINED or reserved" instead of the truth.
    ///
    /// # Errors
    /// The first failure; the other nodes were told all the same.
    pub fn end_with_job(&self, nodes: &[NodeName], reason: &str) -> Result<(), SlurmError> {
        self.power_nodes(nodes, "POWER_DOWN", reason)
    }

    /// Has Slurm power nodes down at once, also one that still powers up and whose job is over:
    /// SuspendProgram is called within 1 s. Its job would be requeued: only for nodes without one.
    ///
    /// # Errors
    /// The first failure; the other nodes were told all the same.
    pub fn power_down_now(&self, nodes: &[NodeName], reason: &str) -> Result<(), SlurmError> {
        self.power_nodes(nodes, "POWER_DOWN_FORCE", reason)
    }

    fn power_nodes(&self, nodes: &[NodeName], state: &str, reason: &str) -> Result<(), SlurmError> {
        self.update_nodes(
            nodes,
            &[
                &format!("State={state}"),
                &format!("Reason={}", given_reason(reason)),
            ],
        )
    }

    /// Makes the reservation that holds the gate, or lets an older one last longer: Slurm knows none without
    /// an end (22.05.8 makes a year of `Duration=infinite`), and with it the gate would open.
    ///
    /// # Errors
    /// [`SlurmError::NoGate`] when `slurm.conf` has no such licence.
    pub fn ensure_gate(&self) -> Result<(), SlurmError> {
        let name = format!("ReservationName={RESERVATION}");
        let end = format!("EndTime=now+{HELD_DAYS}days");
        let count = gate_count(&self.config()?).ok_or(SlurmError::NoGate)?;
        let licenses = format!("Licenses={GATE}:{count}");
        match self.reservation()? {
            Some(Reservation::Active) => {
                let args = ["update", "reservation", &name, &end, &licenses];
                return self.runner.run("scontrol", args).map(drop);
            }
            // Of another time: it holds nothing now, and Slurm moves no start.
            Some(Reservation::Idle) => drop(self.runner.run("scontrol", ["delete", &name])?),
            None => {}
        }
        let made = self.runner.run(
            "scontrol",
            [
                "create",
                "reservation",
                &name,
                "StartTime=now",
                &end,
                "Flags=license_only",
                &licenses,
                "Users=root",
            ],
        );
        match made {
            Ok(_) => Ok(()),
            // Somebody else was quicker.
            Err(error) => match self.has_gate() {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => Err(error),
            },
        }
    }

    /// Whether the reservation that holds the gate is there and active.
    ///
    /// # Errors
    /// When slurmctld does not answer.
    pub fn has_gate(&self) -> Result<bool, SlurmError> {
        Ok(self.reservation()? == Some(Reservation::Active))
    }

    /// Our reservation, if there is one.
    fn reservation(&self) -> Result<Option<Reservation>, SlurmError> {
        let text = self.runner.run("scontrol", ["-o", "show", "reservation"])?;
        let has = |line: &str, word: &str| line.split_whitespace().any(|w| w == word);
        let name = format!("ReservationName={RESERVATION}");
        let ours = text.lines().find(|line| has(line, &name));
        Ok(ours.map(|line| match has(line, "State=ACTIVE") {
            true => Reservation::Active,
            false => Reservation::Idle,
        }))
    }

    /// Whether all of the gate's licences are held by reservations that are active now, whoever made them. A
    /// reservation that is missing, of another time or for fewer than `slurm.conf` has leaves some free.
    ///
    /// # Errors
    /// When slurmctld does not answer.
    pub(crate) fn gate(&self) -> Result<GateSeen, SlurmError> {
        let text = self.runner.run("scontrol", ["-o", "show", "licenses"])?;
        Ok(seen(&text))
    }

    /// Moves a pending job into a partition of job mode, with all that `job_submit.lua` would have given
    /// it at submission; `comment` becomes its `AdminComment` (its options).
    ///
    /// As SlurmUser or root, for whom `job_submit.lua` changes nothing.
    ///
    /// # Errors
    /// [`SlurmError::InvalidState`] when it is not pending, or cannot run in that partition.
    pub fn move_job(
        &self,
        job: JobId,
        partition: &str,
        licenses: &str,
        comment: Option<&str>,
    ) -> Result<(), SlurmError> {
        let text = self
            .runner
            .run("scontrol", ["-o", "show", "job", &job.to_string()])?;
        let has = text.lines().next().and_then(tres_per_node).unwrap_or_default();
        let mut orders = vec![
            format!("Partition={partition}"),
            format!("TresPerNode={}", with_vm(has, self.quirks()?)),
            format!("Licenses={}", with_gate(licenses)),
        ];
        orders.extend(comment.map(|text| format!("AdminComment={}", plain(text))));
        self.update_job(&job.to_string(), &orders)
    }
}

/// The reservation that holds the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reservation {
    /// It holds the licences now.
    Active,
    /// It holds them at another time.
    Idle,
}

/// What `scontrol -o show licenses` says of the gate (`LicenseName=vm_room Total=1 Used=0 Free=1 Reserved=1
/// Remote=no`; seen with 22.05.8: reserved is what reservations hold that are active now).
fn seen(licenses: &str) -> GateSeen {
    let name = format!("LicenseName={GATE}");
    let ours = licenses
        .lines()
        .find(|line| line.split_whitespace().any(|word| word == name));
    let Some(line) = ours else {
        return GateSeen::Open(format!(
            "slurmctld knows no licence {GATE}: run `thiao setup`, then restart slurmctld"
        ));
    };
    let number = |key: &str| {
        let mut words = line.split_whitespace();
        words.find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse::<u32>().ok())
    };
    match (number("Total"), number("Reserved")) {
        (Some(total), Some(reserved)) if reserved >= total => GateSeen::Shut,
        (Some(total), Some(reserved)) => GateSeen::Open(format!(
            "the reservation {RESERVATION} holds {reserved} of {total} licences {GATE}"
        )),
        (None, _) | (_, None) => GateSeen::Open(format!("Slurm does not say who holds {GATE}: {line}")),
    }
}

/// `TresPerNode` in a line of `scontrol -o show job`. It comes last but one (22.05.8), behind a command
/// line and folders that users choose.
fn tres_per_node(line: &str) -> Option<&str> {
    line.rsplit(' ')
        .find_map(|word| word.strip_prefix("TresPerNode="))
}

/// Generic resources per node with one of [`VM`].
fn with_vm(tres: &str, quirks: Quirks) -> String {
    let others = tres
        .split(',')
        .filter(|item| !item.is_empty() && *item != "(null)" && jobs::gres_count(item, VM) == 0);
    let ours = format!("{}{VM}:1", quirks.gres);
    others.chain([ours.as_str()]).collect::<Vec<_>>().join(",")
}

/// Groups that fit into a command.
fn batches<'a>(jobs: &'a [&'a Admission]) -> Vec<&'a [&'a Admission]> {
    let (mut groups, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (n, job) in jobs.iter().enumerate() {
        let length = job.address().len() + 1;
        if n > start && (n - start >= MOST_JOBS || bytes + length > MOST_BYTES) {
            groups.push(&jobs[start..n]);
            (start, bytes) = (n, 0);
        }
        bytes += length;
    }
    groups.push(&jobs[start..]);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::Version;

    #[test]
    fn tasks_are_named_as_scontrol_takes_them() {
        let of = |tasks: &[u32]| {
            address(
                JobId(4),
                Some(&ArrayTasks {
                    job: JobId(3),
                    tasks: tasks.into(),
                }),
            )
        };
        assert_eq!(of(&[0, 1, 2, 3, 7, 9, 10]), "3_[0-3,7,9-10]");
        assert_eq!(of(&[9]), "3_9");
        assert_eq!(of(&[u32::MAX - 1, u32::MAX]), "3_[4294967294-4294967295]");
        assert_eq!(address(JobId(4), None), "4");
    }

    #[test]
    fn the_gate_is_shut_when_all_its_licences_are_held() {
        let line = |total, reserved| {
            format!(
                "LicenseName=a Total=9 Used=0 Free=9 Reserved=0 Remote=no\n\
                 LicenseName=vm_room Total={total} Used=0 Free=1 Reserved={reserved} Remote=no\n"
            )
        };
        assert_eq!(seen(&line(1, 1)), GateSeen::Shut);
        let open = |text: &str, words: &str| match seen(text) {
            GateSeen::Open(why) => assert!(why.contains(words), "{why}"),
            other => panic!("{other:?}"),
        };
        open(&line(1, 0), "holds 0 of 1 licences");
        open(&line(4, 1), "holds 1 of 4 licences");
        open(
            "LicenseName=vm_roomy Total=1 Used=0 Free=1 Reserved=1 Remote=no\n",
            "no licence vm_room",
        );
        open("LicenseName=vm_room Total=1 Used=0 Free=1\n", "does not say");
        open("", "thiao setup");
    }

    #[test]
    fn one_vm_per_node_is_added_once() {
        let old = Quirks::of(Version::new(22, 5, 8));
        assert_eq!(with_vm("", old), "gres:vm:1");
        assert_eq!(with_vm("(null)", old), "gres:vm:1");
        assert_eq!(
            with_vm("gres:gpu:tesla:2,gres:vm:3", old),
            "gres:gpu:tesla:2,gres:vm:1"
        );
        let new = Quirks::of(Version::new(23, 2, 0));
        assert_eq!(
            with_vm("gres/gpu:tesla:2,gres/vm:3", new),
            "gres/gpu:tesla:2,gres/vm:1"
        );
        let line =
            "JobId=1 JobName=TresPerNode=x Command=/a TresPerNode=y WorkDir=/ Power= TresPerNode=gres:gpu:1 ";
        assert_eq!(tres_per_node(line), Some("gres:gpu:1"));
    }

    #[test]
    fn many_are_few_commands() {
        let jobs: Vec<Admission> = (0..1200)
            .map(|n| Admission {
                job: JobId(n),
                array: None,
                nodes: None,
                licenses: String::new(),
            })
            .collect();
        let all: Vec<&Admission> = jobs.iter().collect();
        let groups = batches(&all);
        assert_eq!(
            groups.iter().map(|g| g.len()).collect::<Vec<_>>(),
            [500, 500, 200]
        );
    }
}
