//! The stories of nodes, VMs and jobs: what holds now and why, and what happened.

use super::{Reading, STORY, UNSHOWN, job_state, slurm_word};
use crate::api::ApiError;
use crate::demand::NOT_READ;
use crate::provider::Provider;
use std::collections::BTreeMap;
use thiao_api::JobName;
use thiao_api::types::{Event, Explanation, JobVm};
use thiao_core::event::{Kind, Subject};
use thiao_core::ids::{JobId, NodeName, Time};
use thiao_core::view::{ArrayTasks, SlurmJob, SlurmView};
use thiao_core::vm::VmRecord;
use thiao_core::world::{Desired, NodeRecord};
use thiao_slurm::gate;

/// Most VMs that a sentence names, and most bytes of a list of tasks in one.
const NAMED: usize = 4;
const LISTED: usize = 80;

impl<P: Provider> Reading<'_, P> {
    pub(super) fn explain(&self, name: &str) -> Result<Explanation, ApiError> {
        if let Ok(job) = name.parse::<JobName>() {
            match self.record_of(job)? {
                Some(record) => return self.explain_job(record),
                // A node may be called so.
                None if self.world().records.contains_key(name) => {}
                None => return Err(self.no_job(job)),
            }
        }
        let (node_name, generation) = match name.rsplit_once('.') {
            Some((node, generation)) if !self.world().records.contains_key(name) => {
                (node, generation.parse::<u64>().ok())
            }
            Some(_) | None => (name, None),
        };
        let Some((node, record)) = self.world().records.get_key_value(node_name) else {
            return Err(ApiError::NotFound(format!(
                "{name} is not a node, VM or job known here; `thiao nodes`, `thiao vms` and `thiao jobs` list them"
            )));
        };
        match generation {
            Some(generation) => self.explain_vm(node, record, generation),
            None => Ok(Explanation {
                subject: format!("node {node}"),
                now: self.node_lines(node, record),
                story: self.events(STORY, None, &[format!("node {node}"), format!("vm {node}.*")])?,
                uid: None,
            }),
        }
    }

    fn explain_vm(
        &self,
        node: &NodeName,
        record: &NodeRecord,
        generation: u64,
    ) -> Result<Explanation, ApiError> {
        let subject = format!("vm {node}.{generation}");
        let story = self.events(STORY, None, std::slice::from_ref(&subject))?;
        let backing = record.vm.as_ref().filter(|vm| vm.generation.0 == generation);
        if story.is_empty() && backing.is_none() {
            return Err(ApiError::NotFound(format!(
                "no VM {node}.{generation} is known; {node} has had {}",
                record.generation
            )));
        }
        let mut now = vec![match backing {
            Some(vm) => format!("it backs node {node} and is {}", self.world().word_of(node, vm)),
            None => "it is gone".to_owned(),
        }];
        now.extend(
            backing
                .and_then(VmRecord::odd)
                .map(|odd| format!("it {}", odd.text())),
        );
        now.extend(backing.into_iter().flat_map(|vm| self.way_up(vm)));
        Ok(Explanation {
            subject,
            now,
            story,
            uid: None,
        })
    }

    /// What the provider saw of this VM, step by step.
    fn way_up(&self, vm: &VmRecord) -> Vec<String> {
        let moments = vm.id.iter().flat_map(|id| self.of.provider.timeline(id));
        moments
            .map(|(at, what)| format!("{what}, {} after it was asked for", Time(at).since(vm.asked)))
            .collect()
    }

    fn node_lines(&self, node: &NodeName, record: &NodeRecord) -> Vec<String> {
        let mut lines = vec![match record.desired {
            Desired::Unasked => "nobody has asked for it yet".to_owned(),
            Desired::Early { since } => format!(
                "a job has had it for {}, and Slurm asks for it next",
                self.now.since(since)
            ),
            Desired::Up { since } => format!("asked to be up for {}", self.now.since(since)),
            Desired::Down { since } => format!("asked to be down for {}", self.now.since(since)),
        }];
        if let Some(vm) = &record.vm {
            let on = vm
                .host
                .as_ref()
                .map(|host| format!(" on host {host}"))
                .unwrap_or_default();
            let word = self.world().word_of(node, vm);
            // Since when somebody keeps it still, or it is silent, nobody has written down.
            let span = match vm.life.is_kept_still() || word != vm.word() {
                true => String::new(),
                false => format!(" for {}", self.now.since(vm.since)),
            };
            lines.push(format!("VM {node}.{}{on} is {word}{span}", vm.generation));
            lines.extend(vm.missing_since.map(|_| UNSHOWN.to_owned()));
            lines.extend(vm.odd().map(|odd| format!("it {}", odd.text())));
            // One that is up is told of when it is asked for by its own name.
            if !vm.registration.is_done() {
                lines.extend(self.way_up(vm));
            }
        }
        lines.push(in_slurm(self.world().slurm.as_deref(), node));
        if let Some(why) = self.world().faults.get(node) {
            lines.push(format!("no VM can be made for it: {why}"));
        }
        if record.trouble.failures > 0 {
            lines.push(format!(
                "it failed {} times in a row, last: {}",
                record.trouble.failures, record.trouble.last
            ));
        }
        let subject = Subject::Node(node.clone());
        let plan = self.seen.plan();
        for step in plan.steps.iter().filter(|step| step.action.node() == Some(node)) {
            lines.push(format!("next: {} ({})", step.action, step.why));
        }
        lines.extend(
            plan.held
                .iter()
                .filter(|held| held.subject == subject || held.subject == Subject::Provider)
                .map(|held| held.why.clone()),
        );
        if self.world().busy.contains(node) {
            lines.push("an action on it is under way".to_owned());
        }
        lines
    }

    /// The story of a job's record.
    fn explain_job(&self, id: JobId) -> Result<Explanation, ApiError> {
        let slurm = self.world().slurm.as_deref();
        let job = slurm.and_then(|slurm| slurm.jobs.get(&id));
        let tasks: Vec<&SlurmJob> = slurm
            .iter()
            .flat_map(|slurm| slurm.jobs.values())
            .filter(|other| other.id != id && other.array.as_ref().is_some_and(|array| array.job == id))
            .collect();
        let mut subjects = vec![format!("job {id}")];
        if let Some(job) = job {
            let nodes = job.nodes.iter();
            subjects.extend(nodes.flat_map(|node| [format!("node {node}"), format!("vm {node}.*")]));
        }
        let mut story = self.events(STORY, None, &subjects)?;
        // Slurm's time of submission is that of the last requeue; the number may have been another's before.
        if let Some(job) = job {
            let since = job.submit.unwrap_or_default();
            let own = format!("job {id}");
            story.retain(|event| {
                let is_own = event.subject == own && event.uid == Some(job.uid);
                is_own || event.at >= since.0
            });
        }
        let vms = self.of.past.vms_of_job(id, self.now).map_err(super::internal)?;
        let was_here = !story.is_empty() || !vms.is_empty();
        let mut now = match job {
            Some(job) => self.job_lines(job),
            None if was_here => self.past_lines(id, &vms, &story)?,
            None if !tasks.is_empty() => Vec::new(),
            None => return Err(self.no_job(JobName { id: id.0, task: None })),
        };
        now.extend(tasks_lines(id, &tasks));
        let uid = job.or(tasks.first().copied()).map(|job| job.uid);
        Ok(Explanation {
            subject: format!("job {id}"),
            now,
            uid: Some(uid.unwrap_or_else(|| owner_of_past(&story, &vms))),
            story,
        })
    }

    fn job_lines(&self, job: &SlurmJob) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(array) = &job.array {
            lines.push(format!("it is {}", tasks_name(array)));
        }
        lines.push(format!("Slurm shows it as {}", state(job)));
        lines.extend(self.seen.job_waits.get(&job.id).map(|why| why.to_string()));
        if let Some(why) = &self.seen.preparing {
            lines.push(format!("no VM is made now: {why}"));
        }
        for node in &job.nodes {
            if let Some(record) = self.world().records.get(node) {
                lines.push(format!("{node}: {}", self.node_lines(node, record).join("; ")));
            }
        }
        lines
    }

    /// What is said of a job that was here, and that Slurm does not show.
    fn past_lines(&self, id: JobId, vms: &[JobVm], story: &[Event]) -> Result<Vec<String>, ApiError> {
        let task = self.of.past.task_of_job(id).map_err(super::internal)?;
        let it = task.map_or_else(|| "it".to_owned(), |(array, task)| format!("{array}_{task}"));
        let mut lines = vec![match self.world().slurm {
            Some(_) => format!("{it} is over: Slurm does not list it any more"),
            None => NOT_READ.to_owned(),
        }];
        let own = format!("job {id}");
        let failed = |event: &&Event| event.subject == own && event.kind == Kind::JobFailed.word();
        lines.extend(story.iter().rev().find(failed).map(|event| event.message.clone()));
        let had = match vms {
            [] => return Ok(lines),
            [one] => format!("VM {} was made", one.vm),
            some if some.len() <= NAMED => {
                let names: Vec<&str> = some.iter().map(|vm| vm.vm.as_str()).collect();
                format!("VMs {} were made", names.join(", "))
            }
            many => format!("{} VMs were made", many.len()),
        };
        lines.push(format!("{had} for it alone: `thiao jobs {id}` shows more"));
        Ok(lines)
    }
}

/// Whose a job was that is over; root's if that is not known. Its number may have been another's before.
fn owner_of_past(story: &[Event], vms: &[JobVm]) -> u32 {
    let told = story.iter().rev().filter_map(|event| event.uid);
    let had = vms.iter().rev().filter_map(|vm| vm.uid);
    told.filter(|uid| *uid != 0).chain(had).next().unwrap_or(0)
}

/// A job's state in Slurm, for people.
fn state(job: &SlurmJob) -> String {
    match job.reason.waits.as_slice() {
        [] => job_state(&job.state).to_string(),
        [_, ..] => format!("{}, because of {}", job_state(&job.state), job.reason),
    }
}

/// What the other tasks of an array do, those that are alike together.
fn tasks_lines(array: JobId, tasks: &[&SlurmJob]) -> Vec<String> {
    let mut alike: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for job in tasks {
        let numbers = job.array.iter().flat_map(|array| &array.tasks);
        alike.entry(state(job)).or_default().extend(numbers);
    }
    let line = |(state, mut tasks): (String, Vec<u32>)| {
        tasks.sort_unstable();
        let verb = if tasks.len() == 1 { "is" } else { "are" };
        let name = tasks_name(&ArrayTasks { job: array, tasks });
        format!("{name} {verb} {state}")
    };
    let mut lines: Vec<String> = alike.into_iter().map(line).collect();
    let first = tasks
        .iter()
        .flat_map(|job| &job.array)
        .find_map(|array| array.tasks.first());
    lines.extend(first.map(|task| format!("`thiao explain {array}_{task}` says more about that task")));
    lines
}

/// Tasks of an array as Slurm calls them, if they are not too many.
fn tasks_name(array: &ArrayTasks) -> String {
    let name = gate::address(array.job, Some(array));
    match name.len() {
        ..=LISTED => name,
        _ => format!("{} tasks of {}", array.tasks.len(), array.job),
    }
}

/// What Slurm shows of a node, for people.
fn in_slurm(slurm: Option<&SlurmView>, node: &NodeName) -> String {
    let Some(slurm) = slurm else {
        return "Slurm could not be read".to_owned();
    };
    let Some(seen) = slurm.nodes.get(node) else {
        return match slurm.gone.contains(node) {
            true => "Slurm does not know it: is it in slurm.conf?".to_owned(),
            false => "the last observation of Slurm does not show it: nothing of it is ended".to_owned(),
        };
    };
    let reason = seen.reason.as_ref().map(|reason| format!(", reason: {reason}"));
    let partition = slurm
        .without_partition
        .contains(node)
        .then_some(", in no partition");
    format!(
        "Slurm shows it as {}{}{}",
        slurm_word(seen),
        partition.unwrap_or_default(),
        reason.unwrap_or_default()
    )
}
