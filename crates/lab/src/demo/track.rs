//! What happened to whom, when: the controller's events and squeue's states
//! folded into one story per job and node.

use super::jobs::{Job, Output, Seen};
use crate::slurm_log::{self, Moment, Said};
use std::collections::BTreeMap;
use thiao_api::types::Event;

/// The way of a node for a job. The order is that of a good day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Slurm called Resume for it.
    ResumeAsked,
    /// A QEMU runs for it.
    VmStarted,
    /// The guest says that its slurmd runs.
    VmReady,
    /// slurmctld has the node as up.
    Registered,
    /// Slurm called Suspend for it.
    SuspendAsked,
    /// Nothing of the VM is left.
    VmGone,
}

impl Step {
    fn of(kind: &str) -> Option<Self> {
        match kind {
            "resume-asked" => Some(Self::ResumeAsked),
            "vm-started" => Some(Self::VmStarted),
            "vm-ready" => Some(Self::VmReady),
            "node-up" => Some(Self::Registered),
            "suspend-asked" => Some(Self::SuspendAsked),
            "vm-gone" => Some(Self::VmGone),
            _ => None,
        }
    }

    /// What people read of it.
    pub fn words(self) -> &'static str {
        match self {
            Self::ResumeAsked => "resume asked",
            Self::VmStarted => "VM started",
            Self::VmReady => "slurmd started",
            Self::Registered => "slurmd registered",
            Self::SuspendAsked => "suspend asked",
            Self::VmGone => "VM gone",
        }
    }
}

/// When each step of a node was, milliseconds since the epoch.
pub type Steps = BTreeMap<Step, u64>;

/// A node with one of its VMs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Life {
    /// The VM, by node and generation, once something was said of it.
    pub vm: Option<String>,
    /// What happened, the first of each kind.
    pub steps: Steps,
}

impl Life {
    /// Whether this VM was there at that time or came after it.
    fn reaches(&self, at: u64) -> bool {
        self.steps.get(&Step::VmGone).is_none_or(|gone| *gone > at)
    }
}

/// A job with all that is known of it.
#[derive(Debug, Clone)]
pub struct Track {
    pub job: Job,
    /// Slurm's newest word about it.
    pub state: String,
    pub nodes: Vec<String>,
    /// Why Slurm has it wait, in Slurm's word.
    pub reason: String,
    /// When it was first seen with nodes.
    pub placed: Option<u64>,
    /// Its way by slurmctld's log.
    pub moments: BTreeMap<Moment, u64>,
    /// What it wrote, once it is over.
    pub output: Output,
    /// Whether the demo took it back.
    pub cancelled: bool,
}

/// All jobs and nodes.
#[derive(Debug, Default)]
pub struct Story {
    /// The jobs, as submitted.
    pub tracks: Vec<Track>,
    /// What happened to each node, by its VMs in their order.
    pub nodes: BTreeMap<String, Vec<Life>>,
    /// The last event's number.
    pub last_event: i64,
}

/// Something new, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// When, milliseconds since the epoch.
    pub at: u64,
    /// The job's name, if it is known whom it concerns.
    pub job: Option<String>,
    /// The node, if it is about one.
    pub node: Option<String>,
    /// What happened, for people.
    pub what: String,
}

impl Story {
    /// Takes a job that was just submitted by `command`.
    pub fn submitted(&mut self, job: Job, command: &str) -> News {
        let news = News {
            at: job.submitted,
            job: Some(job.name.clone()),
            node: None,
            what: format!("{} is job {}: {command}", job.user.name, job.label()),
        };
        self.tracks.push(Track {
            job,
            state: "PENDING".to_owned(),
            nodes: Vec::new(),
            reason: String::new(),
            placed: None,
            moments: BTreeMap::new(),
            output: Output::default(),
            cancelled: false,
        });
        news
    }

    /// Takes the controller's events, oldest first.
    pub fn events(&mut self, events: &[Event]) -> Vec<News> {
        let mut news = Vec::new();
        let last = self.last_event;
        for event in events.iter().filter(|event| event.id > last) {
            let (what, node) = match (Step::of(&event.kind), node_of(&event.subject)) {
                (Some(step), Some(node)) if self.step(node, step, event) => {
                    (step.words().to_owned(), Some(node))
                }
                (None, node) if is_trouble(&event.kind) => {
                    (format!("{}: {}", event.kind, event.message), node)
                }
                (None, None) if is_of_jobs(&event.kind) => (event.message.clone(), None),
                (Some(_) | None, _) => continue,
            };
            news.push(News {
                at: event.at,
                job: match node {
                    Some(node) => self.job_of(node),
                    None => self.named(&event.subject),
                },
                node: node.map(str::to_owned),
                what,
            });
        }
        self.last_event = events
            .iter()
            .map(|event| event.id)
            .max()
            .unwrap_or(0)
            .max(self.last_event);
        news
    }

    /// Takes a node's step; whether it is news.
    fn step(&mut self, node: &str, step: Step, event: &Event) -> bool {
        let lives = self.nodes.entry(node.to_owned()).or_default();
        // A VM that is gone is followed by another; that its node was to go down may be said later.
        let over = |life: &Life| life.steps.contains_key(&Step::VmGone);
        if lives
            .last()
            .is_none_or(|life| over(life) && step < Step::SuspendAsked)
        {
            lives.push(Life::default());
        }
        let Some(life) = lives.last_mut() else {
            return false;
        };
        if let Some(vm) = event.subject.strip_prefix("vm ") {
            life.vm.get_or_insert_with(|| vm.to_owned());
        }
        let new = !life.steps.contains_key(&step) && !over(life);
        life.steps.entry(step).or_insert(event.at);
        new
    }

    /// Takes squeue's word at `now`.
    pub fn seen(
        &mut self,
        jobs: &BTreeMap<String, Seen>,
        now: u64,
        expand: impl Fn(&str) -> Vec<String>,
    ) -> Vec<News> {
        let mut news = Vec::new();
        for track in &mut self.tracks {
            let Some(seen) = jobs.get(&track.job.label()) else {
                continue;
            };
            if !seen.nodes.is_empty() {
                track.nodes = expand(&seen.nodes);
                track.placed.get_or_insert(now);
            }
            track.reason.clone_from(&seen.reason);
            if track.state == seen.state {
                continue;
            }
            track.state.clone_from(&seen.state);
            let what = match seen.state.as_str() {
                "CONFIGURING" => format!("has {} and waits for it", seen.nodes),
                "RUNNING" => "running".to_owned(),
                "COMPLETING" => continue,
                "COMPLETED" => "done".to_owned(),
                state if is_over(state) => format!("over: {state}"),
                state => state.to_lowercase(),
            };
            news.push(News {
                at: now,
                job: Some(track.job.name.clone()),
                node: None,
                what,
            });
        }
        news
    }

    /// Takes slurmctld's own log: when nodes registered (the controller's events tell when it saw that),
    /// and the way of the jobs.
    pub fn slurm_log(&mut self, log: &str) {
        for (at, said) in slurm_log::read(log) {
            match said {
                Said::Registered(node) => {
                    let lives = self.nodes.get_mut(node).into_iter().flatten();
                    let here = |life: &&mut Life| {
                        let begun = life.steps.values().next();
                        life.reaches(at) && begun.is_some_and(|begun| *begun <= at)
                    };
                    if let Some(life) = lives.rev().find(here) {
                        // What the controller saw is later than what it saw; a node may register again.
                        let seen = life.steps.entry(Step::Registered).or_insert(at);
                        *seen = at.min(*seen);
                    }
                }
                Said::Job(which, moment) => {
                    for track in &mut self.tracks {
                        if which.covers(track.job.id, track.job.task) {
                            track.moments.entry(moment).or_insert(at);
                        }
                    }
                }
            }
        }
    }

    /// Whether all jobs are over.
    pub fn over(&self) -> bool {
        self.tracks.iter().all(|track| is_over(&track.state))
    }

    /// The job that a node works for: the last one that was given it.
    fn job_of(&self, node: &str) -> Option<String> {
        let has = |track: &&Track| track.nodes.iter().any(|own| own == node);
        let tracks = self.tracks.iter().filter(has);
        let last = tracks.max_by_key(|track| track.placed)?;
        Some(last.job.name.clone())
    }

    /// The job of `job 5`; of an array its first one.
    fn named(&self, subject: &str) -> Option<String> {
        let id = subject.strip_prefix("job ")?.parse::<u32>().ok()?;
        let track = self.tracks.iter().find(|track| track.job.id == id)?;
        Some(track.job.name.clone())
    }

    /// A job's nodes, each with the VM that it has had there.
    pub fn lives<'a>(&'a self, track: &'a Track) -> impl Iterator<Item = (&'a str, Option<&'a Life>)> {
        let at = track.output.begin.or(track.placed).unwrap_or(track.job.submitted);
        let of = move |node: &str| self.nodes.get(node)?.iter().find(move |life| life.reaches(at));
        track.nodes.iter().map(move |node| (node.as_str(), of(node)))
    }

    /// When the last of a job's nodes made a step; none until all have.
    pub fn last(&self, track: &Track, step: Step) -> Option<u64> {
        let times: Option<Vec<u64>> = self
            .lives(track)
            .map(|(_, life)| life?.steps.get(&step).copied())
            .collect();
        times?.into_iter().max()
    }
}

/// The node of `node fg0` and of `vm fg0.3`.
fn node_of(subject: &str) -> Option<&str> {
    match subject.split_once(' ')? {
        ("node", node) => Some(node),
        ("vm", vm) => Some(vm.rsplit_once('.').map_or(vm, |(node, _)| node)),
        _ => None,
    }
}

/// Kinds of events that do not belong to a good day.
fn is_trouble(kind: &str) -> bool {
    matches!(
        kind,
        "vm-failed"
            | "vm-died"
            | "vm-lost"
            | "vm-unsure"
            | "node-down"
            | "resume-failed"
            | "destroy-failed"
            | "refused"
    )
}

/// What the controller does about jobs.
fn is_of_jobs(kind: &str) -> bool {
    matches!(kind, "job-admitted" | "job-waits" | "job-put-back")
}

/// Slurm's final job states.
pub fn is_over(state: &str) -> bool {
    matches!(
        state,
        "COMPLETED"
            | "FAILED"
            | "CANCELLED"
            | "TIMEOUT"
            | "NODE_FAIL"
            | "OUT_OF_MEMORY"
            | "BOOT_FAIL"
            | "DEADLINE"
            | "PREEMPTED"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: i64, at: u64, subject: &str, kind: &str) -> Event {
        serde_json::from_value(
            serde_json::json!({"id": id, "at": at, "subject": subject, "kind": kind, "message": "m"}),
        )
        .unwrap()
    }

    fn job(id: u32) -> Job {
        Job {
            id,
            task: None,
            name: format!("j{id}"),
            user: crate::person::Person {
                name: "ada".into(),
                uid: 1000,
                gid: 1000,
            },
            nodes: 2,
            size: None,
            submitted: 1000,
            output: "/x".into(),
        }
    }

    fn seen(state: &str) -> BTreeMap<String, Seen> {
        let seen = Seen {
            state: state.into(),
            nodes: "vm[1-2]".into(),
            reason: "None".into(),
        };
        BTreeMap::from([("5".to_owned(), seen)])
    }

    fn both(_: &str) -> Vec<String> {
        vec!["vm1".to_owned(), "vm2".to_owned()]
    }

    #[test]
    fn a_good_day_is_followed() {
        let mut story = Story::default();
        story.submitted(job(5), "sbatch");
        assert_eq!(story.seen(&seen("CONFIGURING"), 1100, both).len(), 1);
        assert_eq!(story.seen(&seen("CONFIGURING"), 1200, both).len(), 0);
        let events = [
            event(1, 1300, "node vm1", "resume-asked"),
            event(2, 1400, "vm vm1.1", "vm-started"),
            event(3, 1500, "vm vm1.1", "node-up"),
            event(4, 1600, "vm vm2.7", "node-up"),
            event(5, 1700, "job 5", "job-released"),
            event(6, 1800, "job 5", "job-waits"),
        ];
        let news = story.events(&events);
        assert_eq!(news.len(), 5);
        assert!(news.iter().all(|news| news.job.as_deref() == Some("j5")));
        assert_eq!(story.events(&events), []);
        let last = |step| story.last(&story.tracks[0], step);
        assert_eq!(last(Step::Registered), Some(1600));
        assert_eq!(last(Step::VmStarted), None);
        assert!(!story.over());
        story.seen(&seen("COMPLETED"), 2000, both);
        assert!(story.over());
    }

    #[test]
    fn a_nodes_vms_are_told_apart() {
        let mut story = Story::default();
        story.submitted(job(5), "sbatch");
        story.submitted(job(6), "sbatch");
        story.events(&[
            event(1, 1100, "vm vm1.1", "vm-started"),
            // ResumeProgram may be later than its job's prolog, which is a reason to make a VM, too.
            event(2, 1200, "node vm1", "resume-asked"),
            event(3, 1300, "vm vm1.1", "vm-gone"),
            // What Slurm says of the node may come after its VM's end.
            event(4, 1400, "node vm1", "suspend-asked"),
            event(5, 2000, "node vm1", "resume-asked"),
            event(6, 2100, "vm vm1.2", "vm-started"),
        ]);
        for (track, placed) in story.tracks.iter_mut().zip([1050, 1950]) {
            track.nodes = vec!["vm1".into()];
            track.placed = Some(placed);
        }
        let vm = |at: usize| story.lives(&story.tracks[at]).next().unwrap().1.unwrap();
        assert_eq!(vm(0).vm.as_deref(), Some("vm1.1"));
        assert_eq!(vm(0).steps.len(), 4);
        assert_eq!(vm(1).vm.as_deref(), Some("vm1.2"));
        assert_eq!(vm(1).steps[&Step::VmStarted], 2100);
    }

    #[test]
    fn slurmctlds_log_is_exact() {
        let mut story = Story::default();
        story.submitted(job(1), "sbatch");
        story.tracks[0].nodes = vec!["vm1".into()];
        story.events(&[
            event(1, 5, "vm vm1.1", "vm-started"),
            event(2, 8700, "vm vm1.1", "node-up"),
        ]);
        story.slurm_log(
            "[1970-01-01T00:00:08.579] Node vm1 now responding\n[1970-01-01T00:00:08.633] prolog_running_decr: \
             Configuration for JobId=1 is complete\n[1970-01-01T00:00:09.000] Node vm1 now responding\nrubbish\n",
        );
        assert_eq!(story.tracks[0].moments[&Moment::Launched], 8633);
        assert_eq!(story.last(&story.tracks[0], Step::Registered), Some(8579));
    }

    #[test]
    fn troubles_are_told() {
        let mut story = Story::default();
        let news = story.events(&[
            event(1, 5, "vm vm1.1", "vm-died"),
            event(2, 6, "node vm1", "something-new"),
        ]);
        assert_eq!(news.len(), 1);
        assert!(news[0].what.contains("vm-died"));
    }
}
