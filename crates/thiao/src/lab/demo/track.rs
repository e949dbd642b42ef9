//! What happened to whom, when: the controller's events and squeue's states
//! folded into one story per job and node.

use super::jobs::{Job, Output, Seen};
use crate::api::types::Event;
use std::collections::BTreeMap;

/// The way of a node for a job. The order is that of a good day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Slurm called Resume for it.
    ResumeAsked,
    /// QEMU runs.
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

    /// For people.
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

/// A job with all that is known of it.
#[derive(Debug, Clone)]
pub struct Track {
    /// The job.
    pub job: Job,
    /// Slurm's newest word about it.
    pub state: String,
    /// Its nodes.
    pub nodes: Vec<String>,
    /// Its launch, by slurmctld's log.
    pub launched: Option<u64>,
    /// What it wrote, once it is over.
    pub output: Output,
}

/// All jobs and nodes.
#[derive(Debug, Default)]
pub struct Story {
    /// The jobs, as submitted.
    pub tracks: Vec<Track>,
    /// Steps by node, the first of each kind.
    pub nodes: BTreeMap<String, Steps>,
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
    /// What.
    pub what: String,
}

impl Story {
    /// Takes a job that was just submitted.
    pub fn submitted(&mut self, job: Job) -> News {
        let news = News {
            at: job.submitted,
            job: Some(job.name.clone()),
            node: None,
            what: format!("submitted as job {}", job.id),
        };
        self.tracks.push(Track {
            job,
            state: "PENDING".to_owned(),
            nodes: Vec::new(),
            launched: None,
            output: Output::default(),
        });
        news
    }

    /// Takes the controller's events, oldest first.
    pub fn events(&mut self, events: &[Event]) -> Vec<News> {
        let mut news = Vec::new();
        for event in events.iter().filter(|event| event.id > self.last_event) {
            let node = node_of(&event.subject);
            match (Step::of(&event.kind), node) {
                (Some(step), Some(node)) => {
                    let steps = self.nodes.entry(node.to_owned()).or_default();
                    if steps.contains_key(&step) {
                        continue;
                    }
                    steps.insert(step, event.at);
                    news.push(News {
                        at: event.at,
                        job: self.job_of(node),
                        node: Some(node.to_owned()),
                        what: step.words().to_owned(),
                    });
                }
                (None, Some(node)) if is_trouble(&event.kind) => {
                    let what = format!("{}: {}", event.kind, event.message);
                    news.push(News {
                        at: event.at,
                        job: self.job_of(node),
                        node: Some(node.to_owned()),
                        what,
                    });
                }
                _ => {}
            }
        }
        self.last_event = events
            .iter()
            .map(|event| event.id)
            .max()
            .unwrap_or(0)
            .max(self.last_event);
        news
    }

    /// Takes squeue's word at `now`.
    pub fn seen(
        &mut self,
        jobs: &BTreeMap<u32, Seen>,
        now: u64,
        expand: impl Fn(&str) -> Vec<String>,
    ) -> Vec<News> {
        let mut news = Vec::new();
        for track in &mut self.tracks {
            let Some(seen) = jobs.get(&track.job.id) else {
                continue;
            };
            if !seen.nodes.is_empty() {
                track.nodes = expand(&seen.nodes);
            }
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

    /// Takes slurmctld's own log, whose times are exact to the millisecond: when nodes registered (the
    /// controller's events tell when it saw that), and when Slurm launched the jobs then.
    pub fn slurm_log(&mut self, log: &str) {
        let mut registered = BTreeMap::new();
        for line in log.lines() {
            let Some((at, text)) = line.strip_prefix('[').and_then(|line| line.split_once("] ")) else {
                continue;
            };
            let Some(at) = log_time(at) else { continue };
            if let Some(node) = text
                .strip_prefix("Node ")
                .and_then(|text| text.strip_suffix(" now responding"))
            {
                registered.entry(node).or_insert(at);
            } else if let Some((_, rest)) = text.split_once("onfiguration for JobId=") {
                let id = rest.split(' ').next().and_then(|id| id.parse().ok());
                if let Some(track) = self.tracks.iter_mut().find(|track| Some(track.job.id) == id) {
                    track.launched.get_or_insert(at);
                }
            }
        }
        for (node, at) in registered {
            if let Some(steps) = self.nodes.get_mut(node) {
                steps.insert(Step::Registered, at);
            }
        }
    }

    /// Whether all jobs are over.
    pub fn over(&self) -> bool {
        self.tracks.iter().all(|track| is_over(&track.state))
    }

    /// The job that a node works for.
    fn job_of(&self, node: &str) -> Option<String> {
        self.tracks
            .iter()
            .find(|track| track.nodes.iter().any(|own| own == node))
            .map(|track| track.job.name.clone())
    }
}

impl Track {
    /// When the last of its nodes made a step; none until all have.
    pub fn last(&self, step: Step, nodes: &BTreeMap<String, Steps>) -> Option<u64> {
        let times: Option<Vec<u64>> = self
            .nodes
            .iter()
            .map(|node| nodes.get(node)?.get(&step).copied())
            .collect();
        times?.into_iter().max()
    }
}

/// A time of slurmctld's log (`LogTimeFormat=iso8601_ms`; it runs with `TZ=UTC`).
fn log_time(text: &str) -> Option<u64> {
    let time: jiff::civil::DateTime = text.parse().ok()?;
    let stamp = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    u64::try_from(stamp.as_millisecond()).ok()
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

/// Slurm's final job states.
fn is_over(state: &str) -> bool {
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
            name: format!("j{id}"),
            nodes: 2,
            submitted: 1000,
            output: "/x".into(),
        }
    }

    #[test]
    fn a_good_day_is_followed() {
        let mut story = Story::default();
        story.submitted(job(5));
        let seen = BTreeMap::from([(
            5,
            Seen {
                state: "CONFIGURING".into(),
                nodes: "vm[1-2]".into(),
            },
        )]);
        let both = |_: &str| vec!["vm1".to_owned(), "vm2".to_owned()];
        assert_eq!(story.seen(&seen, 1100, both).len(), 1);
        assert_eq!(story.seen(&seen, 1200, both).len(), 0);
        let events = [
            event(1, 1300, "node vm1", "resume-asked"),
            event(2, 1400, "vm vm1.1", "vm-started"),
            event(3, 1500, "vm vm1.1", "node-up"),
            event(4, 1600, "vm vm2.7", "node-up"),
            event(5, 1700, "job 5", "job-released"),
        ];
        let news = story.events(&events);
        assert_eq!(news.len(), 4);
        assert_eq!(news[0].job.as_deref(), Some("j5"));
        assert_eq!(story.events(&events), []);
        assert_eq!(story.tracks[0].last(Step::Registered, &story.nodes), Some(1600));
        assert_eq!(story.tracks[0].last(Step::VmStarted, &story.nodes), None);
        assert!(!story.over());
        let done = BTreeMap::from([(
            5,
            Seen {
                state: "COMPLETED".into(),
                nodes: "vm[1-2]".into(),
            },
        )]);
        story.seen(&done, 2000, both);
        assert!(story.over());
    }

    #[test]
    fn slurmctlds_log_is_exact() {
        let mut story = Story::default();
        story.submitted(job(1));
        story.tracks[0].nodes = vec!["vm1".into()];
        story.events(&[event(1, 5, "vm vm1.1", "node-up")]);
        story.slurm_log(
            "[1970-01-01T00:00:08.579] Node vm1 now responding\n[1970-01-01T00:00:08.633] prolog_running_decr: \
             Configuration for JobId=1 is complete\n[1970-01-01T00:00:09.000] Node vm1 now responding\nrubbish\n",
        );
        assert_eq!(story.tracks[0].launched, Some(8633));
        assert_eq!(story.tracks[0].last(Step::Registered, &story.nodes), Some(8579));
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
