//! Scenario files: what happens around slurmctld, step by step, as text that people read.
//!
//! The same file is replayed in the simulated slurmctld and on the real one, and both must
//! go through the same states: see [`replay`]. What a state is called and what is left out
//! of the comparison is told in [`words`].
//!
//! ```text
//! # One job on one node, from nothing to nothing.
//! nodes n1
//! ResumeTimeout 30
//! SuspendTime 3
//! SuspendTimeout 3
//!
//! submit a nodes=1 length=2
//! until n1 ALLOCATED+POWERING_UP
//! boot n1
//! until a over
//! until n1 IDLE+POWERED_DOWN
//! ```
//! First the settings, each once, then the steps. Steps wait for states and not for times,
//! so that they mean the same in virtual time and in real time.
//!
//! | step | what happens |
//! |---|---|
//! | `submit JOB nodes=N length=S` | a user submits; `partition=jobs`: of job mode; `tasks=K`: an array of 0 to K-1; `no-requeue` |
//! | `boot NODE`, `kill NODE` | the slurmd of its VM starts, or dies |
//! | `set-down NODE REASON`, `return NODE` | as the controller does it |
//! | `end-with-job NODE`, `power-down-now NODE`, `lift-drain NODE` | the same |
//! | `spool-full NODE` | its slurmd drains it |
//! | `admit JOB`, `close-gate JOB`, `put-back JOB`, `start-now JOB` | the same; a task of an array is `JOB_TASK` |
//! | `cancel JOB` | its user has enough of it |
//! | `drain NODE`, `undrain NODE`, `admin-down NODE`, `admin-resume NODE` | an admin's `state=drain`, `undrain`, `down`, `resume` |
//! | `restart slurmctld` | |
//! | `until NODE STATE`, `until JOB STATE` | waits until an observation shows that; `STATE or STATE`, where releases of Slurm's differ |
//! | `wait SECONDS` | where nothing must happen |
//!
//! In both worlds a node that Slurm has suspended, or failed to resume, loses its slurmd at
//! once, and a job's prolog ends when all of its nodes are up.

pub mod recordings;
pub mod replay;
mod simulated;
pub mod words;

pub use simulated::Simulated;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use thiao_core::hostlist;
use thiao_core::ids::{Millis, NodeName};

/// A scenario, as its file tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// The nodes of power-saving mode.
    pub nodes: Vec<NodeName>,
    /// The nodes of job mode.
    pub job_nodes: Vec<NodeName>,
    pub times: Times,
    /// What happens, each with its line in the file.
    pub steps: Vec<(usize, Step)>,
}

/// How long Slurm waits, by the keys of `slurm.conf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub resume_timeout: Millis,
    pub suspend_time: Millis,
    pub suspend_timeout: Millis,
}

/// What a line of the file says is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A user submits a job.
    Submit(Submission),
    /// Something is done to a node.
    Node(NodeAct, NodeName),
    /// Something is done to a job.
    Job(JobAct, JobRef),
    /// slurmctld ends and starts again.
    Restart,
    /// Waits until a node is shown in one of these states.
    UntilNode(NodeName, Vec<words::NodeWord>),
    /// Waits until a job is shown in one of these states.
    UntilJob(JobRef, Vec<words::JobWord>),
    /// Lets so much time pass.
    Wait(Millis),
}

impl Step {
    /// Whether it does something to the cluster, and does not only wait for it.
    #[must_use]
    pub fn is_act(&self) -> bool {
        match self {
            Self::Submit(_) | Self::Node(..) | Self::Job(..) | Self::Restart => true,
            Self::UntilNode(..) | Self::UntilJob(..) | Self::Wait(_) => false,
        }
    }
}

/// A job that is submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// What the file calls it.
    pub name: String,
    /// Nodes wanted, of each task.
    pub size: usize,
    /// The most of them where it asks for a range.
    pub most: usize,
    /// How long it runs, each task.
    pub length: Millis,
    /// Whether it is of job mode.
    pub job_mode: bool,
    /// Tasks of an array; 0: none.
    pub tasks: u32,
    /// Whether it can go back into the queue.
    pub requeue: bool,
}

/// A job, or a task of an array.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobRef {
    /// What the file calls the job.
    pub name: String,
    /// The task that is meant alone.
    pub task: Option<u32>,
}

/// What is done to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeAct {
    /// The slurmd of a new VM starts.
    Boot,
    /// The slurmd on it dies.
    Kill,
    /// The controller sets it DOWN with this reason.
    SetDown(String),
    /// The controller gives it back.
    Return,
    /// The controller has it end with its job.
    EndWithJob,
    /// The controller has it powered down at once.
    PowerDownNow,
    /// An admin sets `state=drain`.
    Drain,
    /// An admin sets `state=undrain`.
    Undrain,
    /// Its slurmd drains it, whose spool is full.
    SpoolFull,
    /// The controller undrains it after that.
    LiftDrain,
    /// An admin sets `state=down`.
    AdminDown,
    /// An admin sets `state=resume`.
    AdminResume,
}

/// What is done to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobAct {
    /// The controller admits it, with a count of nodes if it asked for a range.
    Admit(Option<NonZeroU32>),
    /// The controller has it wait again.
    CloseGate,
    /// The controller takes its nodes away.
    PutBack,
    /// The controller has it wait no longer for `BeginTime`.
    StartNow,
    /// Somebody ends it by `scancel`.
    Cancel,
}

/// Why a text is no scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for ParseError {}

impl fmt::Display for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.task {
            Some(task) => write!(f, "{}_{task}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl FromStr for Scenario {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut reader = Reader::default();
        let mut last = 1;
        for (index, line) in text.lines().enumerate() {
            last = index + 1;
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                reader
                    .line(last, line)
                    .map_err(|what| ParseError { line: last, what })?;
            }
        }
        reader.end().map_err(|what| ParseError { line: last, what })
    }
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    settings: BTreeMap<&'static str, String>,
    nodes: Vec<NodeName>,
    job_nodes: Vec<NodeName>,
    /// Tasks of each job that was submitted.
    jobs: BTreeMap<String, u32>,
    steps: Vec<(usize, Step)>,
}

const SETTINGS: [&str; 5] = [
    "nodes",
    "job-nodes",
    "ResumeTimeout",
    "SuspendTime",
    "SuspendTimeout",
];

impl Reader {
    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match SETTINGS.into_iter().find(|setting| *setting == word) {
            Some(setting) => self.setting(setting, rest),
            None => {
                let step = self.step(word, rest)?;
                self.steps.push((number, step));
                Ok(())
            }
        }
    }

    fn setting(&mut self, name: &'static str, value: &str) -> Result<(), String> {
        if !self.steps.is_empty() {
            return Err(format!("{name} comes after the first step"));
        }
        if self.settings.insert(name, value.to_owned()).is_some() {
            return Err(format!("{name} is set twice"));
        }
        let nodes = match name {
            "nodes" => &mut self.nodes,
            "job-nodes" => &mut self.job_nodes,
            _ => return seconds(value).map(drop),
        };
        *nodes = hostlist::expand(value).map_err(|error| format!("{value}: {error}"))?;
        match self.nodes.iter().find(|node| self.job_nodes.contains(node)) {
            Some(node) => Err(format!("{node} is of both modes")),
            None => Ok(()),
        }
    }

    fn end(self) -> Result<Scenario, String> {
        let time = |name: &str| {
            let value = self.settings.get(name).ok_or(format!("{name} is not set"))?;
            seconds(value)
        };
        let times = Times {
            resume_timeout: time("ResumeTimeout")?,
            suspend_time: time("SuspendTime")?,
            suspend_timeout: time("SuspendTimeout")?,
        };
        if self.nodes.is_empty() && self.job_nodes.is_empty() {
            return Err("there are no nodes".into());
        }
        if self.steps.is_empty() {
            return Err("there are no steps".into());
        }
        Ok(Scenario {
            nodes: self.nodes,
            job_nodes: self.job_nodes,
            times,
            steps: self.steps,
        })
    }

    fn step(&mut self, word: &str, rest: &str) -> Result<Step, String> {
        if let Some(act) = node_act(word) {
            return Ok(Step::Node(act, self.node(rest)?));
        }
        if let ("admit", Some((job, count))) = (word, rest.split_once(" nodes=")) {
            let count = NonZeroU32::new(number(count)?);
            return Ok(Step::Job(JobAct::Admit(count), self.job(job)?));
        }
        if let Some(act) = job_act(word) {
            return Ok(Step::Job(act, self.job(rest)?));
        }
        let (subject, more) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let more = more.trim();
        match word {
            "submit" => self.submit(subject, more).map(Step::Submit),
            "set-down" if more.is_empty() => Err("a reason is missing".into()),
            "set-down" => Ok(Step::Node(NodeAct::SetDown(more.into()), self.node(subject)?)),
            "restart" if rest == "slurmctld" => Ok(Step::Restart),
            "until" => match self.node(subject) {
                Ok(node) => Ok(Step::UntilNode(node, states(more)?)),
                Err(_) => Ok(Step::UntilJob(self.job(subject)?, states(more)?)),
            },
            "wait" => seconds(rest).map(Step::Wait),
            _ => Err(format!("\"{word} {rest}\" is neither a setting nor a step")),
        }
    }

    fn node(&self, text: &str) -> Result<NodeName, String> {
        let mut all = self.nodes.iter().chain(&self.job_nodes);
        let found = all.find(|node| node.as_str() == text);
        found
            .cloned()
            .ok_or_else(|| format!("there is no node \"{text}\""))
    }

    fn job(&self, text: &str) -> Result<JobRef, String> {
        let (name, task) = match text.split_once('_') {
            Some((name, task)) => (name, Some(number(task)?)),
            None => (text, None),
        };
        match (self.jobs.get(name), task) {
            (None, _) => Err(format!("no node and no job \"{text}\" is known here")),
            (Some(tasks), Some(task)) if task >= *tasks => Err(format!("{name} has no task {task}")),
            (Some(_), task) => Ok(JobRef {
                name: name.into(),
                task,
            }),
        }
    }

    fn submit(&mut self, name: &str, words: &str) -> Result<Submission, String> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase()) || self.node(name).is_ok() {
            return Err(format!("\"{name}\" is no name for a job: a to z"));
        }
        let mut job = Submission {
            name: name.into(),
            size: 0,
            most: 0,
            length: Millis(0),
            job_mode: false,
            tasks: 0,
            requeue: true,
        };
        for word in words.split_whitespace() {
            match word.split_once('=') {
                Some(("nodes", value)) => {
                    let (least, most) = value.split_once('-').unwrap_or((value, value));
                    (job.size, job.most) = (number(least)? as usize, number(most)? as usize);
                }
                Some(("length", value)) => job.length = seconds(value)?,
                Some(("tasks", value)) => job.tasks = number(value)?,
                Some(("partition", "jobs")) => job.job_mode = true,
                None if word == "no-requeue" => job.requeue = false,
                _ => return Err(format!("\"{word}\" says nothing about a job")),
            }
        }
        let nodes = if job.job_mode {
            &self.job_nodes
        } else {
            &self.nodes
        };
        if job.size == 0 || job.size > job.most || job.most > nodes.len() {
            return Err(format!("nodes= must be 1 to {}", nodes.len()));
        }
        if job.length == Millis(0) {
            return Err("length= is missing".into());
        }
        if !job.job_mode && (job.tasks > 0 || !job.requeue || job.most > job.size) {
            return Err("tasks=, ranges of nodes and no-requeue are for jobs of partition=jobs".into());
        }
        if self.jobs.insert(name.into(), job.tasks).is_some() {
            return Err(format!("{name} was submitted before"));
        }
        Ok(job)
    }
}

fn node_act(word: &str) -> Option<NodeAct> {
    Some(match word {
        "boot" => NodeAct::Boot,
        "kill" => NodeAct::Kill,
        "return" => NodeAct::Return,
        "end-with-job" => NodeAct::EndWithJob,
        "power-down-now" => NodeAct::PowerDownNow,
        "drain" => NodeAct::Drain,
        "undrain" => NodeAct::Undrain,
        "spool-full" => NodeAct::SpoolFull,
        "lift-drain" => NodeAct::LiftDrain,
        "admin-down" => NodeAct::AdminDown,
        "admin-resume" => NodeAct::AdminResume,
        _ => return None,
    })
}

fn job_act(word: &str) -> Option<JobAct> {
    Some(match word {
        "admit" => JobAct::Admit(None),
        "close-gate" => JobAct::CloseGate,
        "put-back" => JobAct::PutBack,
        "start-now" => JobAct::StartNow,
        "cancel" => JobAct::Cancel,
        _ => return None,
    })
}

/// One state, or several with `or` between them.
fn states<T: FromStr<Err = String>>(text: &str) -> Result<Vec<T>, String> {
    text.split(" or ").map(|state| state.trim().parse()).collect()
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("\"{text}\" is no number"))
}

fn seconds(text: &str) -> Result<Millis, String> {
    match number(text)? {
        0 => Err("0 seconds are not enough".into()),
        some => Ok(Millis::secs(some.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "nodes n[1-2]\njob-nodes n5\nResumeTimeout 9\nSuspendTime 2 # s\nSuspendTimeout 3\n";

    fn parse(steps: &str) -> Result<Scenario, String> {
        format!("{HEAD}\n{steps}")
            .parse()
            .map_err(|error: ParseError| error.to_string())
    }

    #[test]
    fn a_file_is_read() {
        let scenario = parse(
            "submit a nodes=2 length=4\nsubmit b partition=jobs nodes=1 length=1 tasks=3 no-requeue\n\
             set-down n1 thiao: no capacity\nadmit b_2\nuntil a PENDING\nuntil n5 DOWN+POWERED_DOWN or IDLE\n\
             restart slurmctld\nwait 2\n",
        )
        .unwrap();
        assert_eq!((scenario.nodes.len(), scenario.job_nodes.len()), (2, 1));
        assert_eq!(scenario.times.suspend_timeout, Millis::secs(3));
        let steps: Vec<Step> = scenario.steps.into_iter().map(|(_, step)| step).collect();
        let (n1, b) = (
            NodeName::new("n1").unwrap(),
            JobRef {
                name: "b".into(),
                task: Some(2),
            },
        );
        let Step::Submit(job) = &steps[1] else {
            panic!("{steps:?}")
        };
        assert!(job.job_mode && job.tasks == 3 && !job.requeue);
        assert_eq!(
            steps[2],
            Step::Node(NodeAct::SetDown("thiao: no capacity".into()), n1)
        );
        assert_eq!(steps[3], Step::Job(JobAct::Admit(None), b));
        assert!(matches!(&steps[4], Step::UntilJob(job, _) if job.name == "a"));
        assert!(matches!(&steps[5], Step::UntilNode(_, states) if states.len() == 2));
        assert_eq!(steps[6..], [Step::Restart, Step::Wait(Millis::secs(2))]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let submitted = "submit a nodes=1 length=1\n";
        for (steps, why) in [
            ("", "line 6: there are no steps"),
            ("boot n3", "line 7: there is no node \"n3\""),
            ("boot", "there is no node \"\""),
            ("boot n1 n2", "there is no node \"n1 n2\""),
            ("set-down n1", "a reason is missing"),
            ("restart munged", "neither a setting nor a step"),
            ("leap", "neither a setting nor a step"),
            ("wait 0", "0 seconds"),
            ("wait soon", "\"soon\" is no number"),
            ("wait 1\nnodes n9", "line 8: nodes comes after the first step"),
            ("ResumeTimeout 4", "ResumeTimeout is set twice"),
            ("until a RUNNING", "no job \"a\""),
            ("until n1 DOWN or", "is no state of a node"),
            ("until n1 FALLING", "\"FALLING\" is no state of a node"),
            ("until n1 IDLE+POWERING_DOWN+DRAIN", "is no state of a node"),
            ("submit a nodes=3 length=1", "nodes= must be 1 to 2"),
            ("submit a nodes=1", "length= is missing"),
            (
                "submit a nodes=1 length=1 tasks=2",
                "are for jobs of partition=jobs",
            ),
            (
                "submit a nodes=1 length=1 colour=red",
                "\"colour=red\" says nothing",
            ),
            ("submit n1 nodes=1 length=1", "\"n1\" is no name for a job"),
            (
                &format!("{submitted}{submitted}"),
                "line 8: a was submitted before",
            ),
            (
                &format!("{submitted}until a IDLE"),
                "\"IDLE\" is no state of a job",
            ),
            (&format!("{submitted}admit a_0"), "a has no task 0"),
        ] {
            let error = parse(steps).unwrap_err();
            assert!(error.contains(why), "{steps}: {error}");
        }
        for (text, why) in [
            ("wait 1", "ResumeTimeout is not set"),
            ("nodes n[1-", "line 1: n[1-"),
            ("nodes n1\njob-nodes n[1-2]", "line 2: n1 is of both modes"),
        ] {
            let error = text.parse::<Scenario>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
