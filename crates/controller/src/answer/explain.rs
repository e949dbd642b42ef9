//! The stories of nodes, VMs and jobs: what holds now and why, and what happened.

use super::{Reading, STORY, UNSHOWN, job_state, slurm_word};
use crate::api::ApiError;
use crate::demand::NOT_READ;
use crate::provider::Provider;
use std::collections::{BTreeMap, BTreeSet};
use thiao_api::JobName;
use thiao_api::types::{Event, Explanation, JobStay, JobVm, LastWords};
use thiao_core::event::{Kind, Subject};
use thiao_core::hostlist;
use thiao_core::ids::{Generation, JobId, NodeName, Time};
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
                last_words: self.of_the_last_that_failed(node, record)?,
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
        let kept = self.last_words(node, Generation(generation))?;
        Ok(Explanation {
            subject,
            now,
            story,
            uid: None,
            last_words: kept.into_iter().map(|(words, _)| words).collect(),
        })
    }

    /// What a VM said last, and whether it ended badly.
    fn last_words(
        &self,
        node: &NodeName,
        generation: Generation,
    ) -> Result<Option<(LastWords, bool)>, ApiError> {
        let past = &self.of.past;
        let Some(kept) = past.last_words(node, generation).map_err(super::internal)? else {
            return Ok(None);
        };
        let words = LastWords {
            vm: format!("{node}.{generation}"),
            at: kept.at.0,
            text: kept.text,
            users: past.users_of_vm(node, generation).map_err(super::internal)?,
        };
        Ok(Some((words, kept.badly)))
    }

    /// Of a node that is in trouble.
    fn of_the_last_that_failed(
        &self,
        node: &NodeName,
        record: &NodeRecord,
    ) -> Result<Vec<LastWords>, ApiError> {
        if record.trouble.failures == 0 && record.down.is_none() {
            return Ok(Vec::new());
        }
        let Some(generation) = self.of.past.last_bad_vm(node).map_err(super::internal)? else {
            return Ok(Vec::new());
        };
        let kept = self.last_words(node, generation)?;
        Ok(kept.into_iter().map(|(words, _)| words).collect())
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
        let own = format!("job {id}");
        let mut story = self.events(STORY, None, std::slice::from_ref(&own))?;
        // Slurm's time of submission is that of the last requeue; the number may have been another's before.
        if let Some(job) = job {
            let since = job.submit.unwrap_or_default();
            story.retain(|event| event.uid == Some(job.uid) || event.at >= since.0);
        }
        let vms = self.of.past.vms_of_job(id, self.now).map_err(super::internal)?;
        let mut stays = self.of.past.stays_of_job(id).map_err(super::internal)?;
        let uid = job.or(tasks.first().copied()).map(|job| job.uid);
        let uid = uid.unwrap_or_else(|| owner_of_past(&story, &vms, &stays));
        stays.retain(|stay| stay.uid == uid);
        let alive = job.filter(|job| !job.is_over());
        // Where it is now, more is known.
        let left = |stay: &&JobStay| alive.is_none() || stay.ended.is_some();
        self.add_stays_stories(stays.iter().filter(left), &mut story)?;
        if let Some(job) = alive {
            self.add_nodes_stories(job, &mut story)?;
        }
        let was_here = !story.is_empty() || !vms.is_empty() || !stays.is_empty();
        let mut now = match job {
            Some(job) => self.job_lines(job, &stays),
            None if was_here => self.past_lines(id, &vms, &stays, &story)?,
            None if !tasks.is_empty() => Vec::new(),
            None => return Err(self.no_job(JobName { id: id.0, task: None })),
        };
        now.extend(tasks_lines(id, &tasks));
        Ok(Explanation {
            subject: own,
            now,
            uid: Some(uid),
            story,
            last_words: self.of_vms_that_ended_badly(&stays)?,
        })
    }

    /// What happened to a job's nodes and their VMs since it has them.
    fn add_nodes_stories(&self, job: &SlurmJob, story: &mut Vec<Event>) -> Result<(), ApiError> {
        let since: BTreeMap<&str, Time> = job
            .nodes
            .iter()
            .map(|node| (node.as_str(), self.has_it_since(job, node)))
            .collect();
        if since.is_empty() {
            return Ok(());
        }
        let subjects: Vec<String> = since
            .keys()
            .flat_map(|node| [format!("node {node}"), format!("vm {node}.*")])
            .collect();
        let mut events = self.events(STORY, None, &subjects)?;
        events.retain(|event| {
            let (kind, name) = event.subject.split_once(' ').unwrap_or_default();
            let node = match kind {
                "vm" => name.rsplit_once('.').map_or(name, |(node, _)| node),
                _ => name,
            };
            since.get(node).is_some_and(|since| event.at >= since.0)
        });
        add(story, events);
        Ok(())
    }

    /// What happened to a job's nodes and their VMs while it was there, when it is not there any more.
    fn add_stays_stories<'a>(
        &self,
        stays: impl Iterator<Item = &'a JobStay>,
        story: &mut Vec<Event>,
    ) -> Result<(), ApiError> {
        let stays: Vec<&JobStay> = stays.collect();
        let Some(until) = stays.iter().map(|stay| stay.ended.unwrap_or(self.now.0)).max() else {
            return Ok(());
        };
        let subjects: BTreeSet<String> = stays
            .iter()
            .flat_map(|stay| [format!("node {}", stay.node), format!("vm {}", stay.vm)])
            .collect();
        let subjects: Vec<String> = subjects.into_iter().collect();
        let past = &self.of.past;
        let mut events = past
            .events_until(STORY, Time(until), &subjects)
            .map_err(super::internal)?;
        let spans: Vec<Span> = stays.iter().map(|stay| Span::of(stay, &events)).collect();
        events.retain(|event| spans.iter().any(|span| span.holds(event)));
        add(story, events);
        Ok(())
    }

    /// From when on what happens to a node concerns this job: since it was asked for, if it was for the job;
    /// else since the job is there.
    fn has_it_since(&self, job: &SlurmJob, node: &NodeName) -> Time {
        let submitted = job.submit.unwrap_or_default();
        let Some(record) = self.world().records.get(node) else {
            return submitted;
        };
        let vm = record.vm.as_ref();
        let for_it = vm.and_then(|vm| vm.spec.as_ref()?.job) == Some(job.id) || record.jobs.contains(&job.id);
        let since = match record.desired {
            Desired::Early { since } | Desired::Up { since } if for_it => Some(since),
            Desired::Early { .. } | Desired::Up { .. } | Desired::Down { .. } | Desired::Unasked => None,
        };
        let asked = vm.map(|vm| vm.asked).filter(|_| for_it);
        let began = since.into_iter().chain(asked).chain(job.start).min();
        // Slurm tells whole seconds.
        began.unwrap_or(submitted).max(submitted)
    }

    fn of_vms_that_ended_badly(&self, stays: &[JobStay]) -> Result<Vec<LastWords>, ApiError> {
        let mut all = Vec::new();
        for stay in stays.iter().rev().take(NAMED) {
            let generation = stay
                .vm
                .rsplit_once('.')
                .and_then(|(_, number)| Generation::parse(number));
            let (Ok(node), Some(generation)) = (NodeName::new(&stay.node), generation) else {
                continue;
            };
            let kept = self.last_words(&node, generation)?;
            all.extend(kept.filter(|(_, badly)| *badly).map(|(words, _)| words));
        }
        all.reverse();
        Ok(all)
    }

    fn job_lines(&self, job: &SlurmJob, stays: &[JobStay]) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(array) = &job.array {
            lines.push(format!("it is {}", tasks_name(array)));
        }
        lines.push(format!("Slurm shows it as {}", state(job)));
        lines.extend(self.seen.job_waits.get(&job.id).map(|wait| wait.why.to_string()));
        if let Some(why) = &self.seen.preparing {
            lines.push(format!("no VM is made now: {why}"));
        }
        // Its nodes may have gone to others.
        if job.is_over() {
            lines.extend(stays_lines(stays));
            return lines;
        }
        for node in &job.nodes {
            if let Some(record) = self.world().records.get(node) {
                lines.push(format!("{node}: {}", self.node_lines(node, record).join("; ")));
            }
        }
        lines
    }

    /// What is said of a job that was here, and that Slurm does not show.
    fn past_lines(
        &self,
        id: JobId,
        vms: &[JobVm],
        stays: &[JobStay],
        story: &[Event],
    ) -> Result<Vec<String>, ApiError> {
        let task = self.of.past.task_of_job(id).map_err(super::internal)?;
        let it = task.map_or_else(|| "it".to_owned(), |(array, task)| format!("{array}_{task}"));
        let mut lines = vec![match self.world().slurm {
            Some(_) => format!("{it} is over: Slurm does not list it any more"),
            None => NOT_READ.to_owned(),
        }];
        let own = format!("job {id}");
        let failed = |event: &&Event| event.subject == own && event.kind == Kind::JobFailed.word();
        lines.extend(story.iter().rev().find(failed).map(|event| event.message.clone()));
        lines.extend(stays_lines(stays));
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

/// Adds events to a story, of which the newest are kept.
fn add(story: &mut Vec<Event>, events: Vec<Event>) {
    story.extend(events);
    story.sort_by_key(|event| event.id);
    story.dedup_by_key(|event| event.id);
    let older = story.len().saturating_sub(STORY);
    story.drain(..older);
}

/// Which events of a node and its VM are part of a stay's story.
struct Span {
    node: String,
    vm: String,
    /// The first event of them.
    first: i64,
    /// Until then, in milliseconds since the epoch.
    ended: u64,
}

impl Span {
    /// From the asking for the VM on, if that came up after the job was there; else from then on.
    fn of(stay: &JobStay, events: &[Event]) -> Self {
        let (node, vm) = (format!("node {}", stay.node), format!("vm {}", stay.vm));
        let of_vm = |event: &&Event| event.subject == vm;
        let was_up = events
            .iter()
            .filter(of_vm)
            .any(|event| event.kind == Kind::NodeUp.word() && event.at < stay.began);
        let made = events.iter().find(of_vm).filter(|_| !was_up);
        let first = match made {
            Some(made) => {
                let asking = [Kind::PrologAsked, Kind::ResumeAsked, Kind::ResumeSeen].map(Kind::word);
                let before = events.iter().rev().filter(|event| event.id < made.id);
                before
                    .filter(|event| event.subject == node)
                    .take_while(|event| asking.contains(&event.kind.as_str()))
                    .last()
                    .map_or(made.id, |event| event.id)
            }
            None => {
                let since = events.iter().find(|event| event.at >= stay.began);
                since.map_or(i64::MAX, |event| event.id)
            }
        };
        Self {
            node,
            vm,
            first,
            ended: stay.ended.unwrap_or(u64::MAX),
        }
    }

    fn holds(&self, event: &Event) -> bool {
        let its = event.subject == self.node || event.subject == self.vm;
        its && event.id >= self.first && event.at <= self.ended
    }
}

/// Whose a job was that is over; root's if that is not known. Its number may have been another's before.
fn owner_of_past(story: &[Event], vms: &[JobVm], stays: &[JobStay]) -> u32 {
    let told = story.iter().rev().filter_map(|event| event.uid);
    let had = vms.iter().rev().filter_map(|vm| vm.uid);
    let was = stays.iter().rev().map(|stay| stay.uid);
    told.filter(|uid| *uid != 0)
        .chain(had)
        .chain(was)
        .next()
        .unwrap_or(0)
}

/// Which VMs a job was on; many of them in one line.
fn stays_lines(stays: &[JobStay]) -> Vec<String> {
    let on = |stay: &JobStay| {
        let host = stay.host.as_ref().map(|host| format!(" on host {host}"));
        format!(
            "it was on {}, in VM {}{}",
            stay.node,
            stay.vm,
            host.unwrap_or_default()
        )
    };
    if stays.len() <= NAMED {
        return stays.iter().map(on).collect();
    }
    let nodes: BTreeSet<NodeName> = stays
        .iter()
        .filter_map(|stay| NodeName::new(&stay.node).ok())
        .collect();
    let hosts: BTreeSet<&str> = stays.iter().filter_map(|stay| stay.host.as_deref()).collect();
    let one = if hosts.len() == 1 { "host" } else { "hosts" };
    vec![format!(
        "it was on {}, in {} VMs on {} {one}: `thiao jobs --since 1d` lists them",
        hostlist::fold(&nodes),
        stays.len(),
        hosts.len()
    )]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: i64, subject: &str, kind: Kind) -> Event {
        Event {
            id,
            // One a second.
            at: u64::try_from(id).unwrap() * 1000,
            subject: subject.to_owned(),
            kind: kind.word().to_owned(),
            message: String::new(),
            uid: None,
        }
    }

    fn told(began: u64, ended: Option<u64>, events: &[Event]) -> Vec<i64> {
        let stay = JobStay {
            id: 1,
            job: 7,
            task: None,
            uid: 1000,
            node: "n0".to_owned(),
            vm: "n0.2".to_owned(),
            host: None,
            began: began * 1000,
            ended: ended.map(|ended| ended * 1000),
        };
        let span = Span::of(&stay, events);
        let its = events.iter().filter(|event| span.holds(event));
        its.map(|event| event.id).collect()
    }

    #[test]
    fn the_story_of_a_job_that_is_over_begins_with_the_asking_for_its_vm() {
        let events = [
            event(1, "node n0", Kind::NodeReturned),
            event(2, "node n0", Kind::PrologAsked),
            event(3, "node n1", Kind::NodeDown),
            event(4, "node n0", Kind::ResumeAsked),
            event(5, "vm n0.2", Kind::VmAsked),
            event(7, "vm n0.2", Kind::NodeUp),
            event(9, "node n0", Kind::SuspendAsked),
        ];
        assert_eq!(told(6, Some(8), &events), [2, 4, 5, 7]);
        assert_eq!(told(6, None, &events), [2, 4, 5, 7, 9]);
        assert_eq!(told(8, Some(9), &events), [9], "its VM was another's before");
        assert_eq!(told(6, Some(6), &events[3..5]), [4, 5], "its VM never came up");
        assert!(told(9, Some(9), &events[..2]).is_empty());
    }
}
