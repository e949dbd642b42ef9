//! Replays a scenario in a world, and tells what that world went through.

use super::words::{JobWord, NodeWord};
use super::{JobAct, JobRef, NodeAct, Scenario, Step, Submission};
use crate::slurm::{Call, Hook};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use thiao_core::ids::{JobId, Millis, NodeName};
use thiao_core::view::{ArrayTasks, BaseState, SlurmView};

/// How long a state may take to come.
const PATIENCE: Millis = Millis::secs(60);

/// A slurmctld, simulated or real, with what is around it.
pub trait Cluster {
    /// Submits a job.
    ///
    /// # Errors
    /// What went wrong, for people; so of all the others.
    fn submit(&mut self, job: &Submission) -> Result<JobId, String>;
    /// Does something to a node.
    ///
    /// # Errors
    /// If it could not be done.
    fn to_node(&mut self, act: &NodeAct, node: &NodeName) -> Result<(), String>;
    /// Does something to a job.
    ///
    /// # Errors
    /// If it could not be done.
    fn to_job(&mut self, act: JobAct, job: &Target) -> Result<(), String>;
    /// Restarts slurmctld.
    ///
    /// # Errors
    /// If it does not come back.
    fn restart(&mut self) -> Result<(), String>;
    /// An observation of Slurm; none while slurmctld does not answer.
    ///
    /// # Errors
    /// Any other failure.
    fn observe(&mut self) -> Result<Option<SlurmView>, String>;
    /// Calls of hooks since this was last asked.
    ///
    /// # Errors
    /// If they cannot be read.
    fn calls(&mut self) -> Result<Vec<Call>, String>;
    /// Lets a moment pass.
    fn pass(&mut self);
    /// The time since the world's start.
    fn now(&self) -> Millis;
}

/// A job as orders name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The record that stands for it.
    pub id: JobId,
    /// The tasks that are meant, of an array.
    pub array: Option<ArrayTasks>,
}

/// What a world went through: for each node and job its states, one after another, and the
/// hooks that were called for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sequences(BTreeMap<String, Vec<String>>);

const THEN: &str = " > ";

impl Sequences {
    /// Reads what its `Display` wrote; lines that begin with `#` are for people.
    ///
    /// # Errors
    /// The line that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        let read = |line: &str| {
            let (subject, states) = line.split_once(": ").ok_or(format!("no states: {line}"))?;
            Ok((subject.into(), states.split(THEN).map(str::to_owned).collect()))
        };
        lines.map(read).collect::<Result<_, String>>().map(Self)
    }

    /// How `other` is different, by subject; none if it is not.
    #[must_use]
    pub fn difference(&self, mine: &str, other: &Self, others: &str) -> Option<String> {
        let mut text = String::new();
        let subjects: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        for subject in subjects {
            let of = |all: &Self| all.0.get(subject).cloned().unwrap_or_default();
            let (left, right) = (of(self), of(other));
            if left != right {
                let same = left.iter().zip(&right).take_while(|(l, r)| l == r).count();
                let rest = |states: &[String]| match &states[same..] {
                    [] => "nothing more".to_owned(),
                    some => some.join(THEN),
                };
                text += &format!(
                    "{subject}: {}\n    {mine}: {}\n    {others}: {}\n",
                    left[..same].join(THEN),
                    rest(&left),
                    rest(&right)
                );
            }
        }
        (!text.is_empty()).then_some(text)
    }

    fn length(&self, subject: &str) -> usize {
        self.0.get(subject).map_or(0, Vec::len)
    }

    fn lengths(&self) -> BTreeMap<String, usize> {
        let lengths = self
            .0
            .iter()
            .map(|(subject, states)| (subject.clone(), states.len()));
        lengths.collect()
    }

    /// Where one of these words is first, from `mark` on.
    fn position(&self, subject: &str, mark: usize, words: &[impl fmt::Display]) -> Option<usize> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let states = self.0.get(subject)?.iter().enumerate().skip(mark);
        let word = |state: &str| state.split(" (").next().unwrap_or_default().to_owned();
        let mut found = states.filter(|(_, state)| words.contains(&word(state)));
        found.next().map(|(at, _)| at)
    }

    fn call(&mut self, subject: String, hook: &str) {
        self.0.entry(subject).or_default().push(hook.to_owned());
    }

    /// A node's state, and the one that it must have been in since the one before.
    fn node(&mut self, name: &NodeName, word: &NodeWord, reason: Option<&str>) {
        let states = self.0.entry(format!("node {name}")).or_default();
        let state = match reason {
            Some(reason) => format!("{word} ({reason})"),
            None => word.to_string(),
        };
        if states.last() != Some(&state) {
            let between = states.last().and_then(|last| word.between(last));
            states.extend(between.map(|word| word.to_string()));
            states.push(state);
        }
    }

    /// A job's state, and those that it must have been in since the one before.
    fn job(&mut self, job: &JobRef, word: JobWord) {
        let state = word.to_string();
        let subject = format!("job {job}");
        if self.0.get(&subject).and_then(|states| states.last()) == Some(&state) {
            return;
        }
        if let Some(before) = word.before() {
            self.job(job, before);
        }
        self.0.entry(subject).or_default().push(state);
    }
}

impl fmt::Display for Sequences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (subject, states) in &self.0 {
            writeln!(f, "{subject}: {}", states.join(THEN))?;
        }
        Ok(())
    }
}

/// Replays it, observing all the while.
///
/// # Errors
/// A step that failed, or a state that did not come, with what was seen until then.
pub fn replay(scenario: &Scenario, world: &mut impl Cluster) -> Result<Sequences, String> {
    let mut replay = Replay {
        world,
        jobs: BTreeMap::new(),
        records: BTreeMap::new(),
        unheard: BTreeSet::new(),
        seen: Sequences::default(),
        marks: BTreeMap::new(),
        view: SlurmView::default(),
    };
    replay.observe()?;
    for (line, step) in &scenario.steps {
        replay
            .step(step)
            .map_err(|what| format!("line {line}: {what}\n{}", replay.seen))?;
    }
    replay.observe()?;
    Ok(replay.seen)
}

struct Replay<'a, W> {
    world: &'a mut W,
    /// What the scenario submitted.
    jobs: BTreeMap<JobId, Submission>,
    /// Which job or task each record ever stood for alone.
    records: BTreeMap<JobId, JobRef>,
    /// Jobs whose epilogs are left out.
    unheard: BTreeSet<JobRef>,
    seen: Sequences,
    /// How many of a subject's states are older than the last act, or were waited for since.
    marks: BTreeMap<String, usize>,
    view: SlurmView,
}

impl<W: Cluster> Replay<'_, W> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        if step.is_act() {
            self.marks = self.seen.lengths();
        }
        match step {
            Step::Submit(job) => {
                let id = self.world.submit(job)?;
                self.jobs.insert(id, job.clone());
            }
            Step::Node(act, node) => self.world.to_node(act, node)?,
            Step::Job(act, job) => {
                self.observe()?;
                let target = self.target(job)?;
                if *act == JobAct::Cancel && self.job(job) == Some(JobWord::Configuring) {
                    self.unheard.insert(job.clone());
                }
                self.world.to_job(*act, &target)?;
            }
            Step::Restart => self.world.restart()?,
            Step::UntilNode(name, words) => {
                let subject = format!("node {name}");
                self.until(&subject, words, |replay| {
                    replay.view.nodes.get(name).and_then(NodeWord::of)
                })?;
            }
            Step::UntilJob(job, words) => {
                self.until(&format!("job {job}"), words, |replay| replay.job(job))?;
            }
            Step::Wait(long) => {
                let end = Millis(self.world.now().0 + long.0);
                while self.world.now() < end {
                    self.world.pass();
                    self.observe()?;
                }
            }
        }
        Ok(())
    }

    /// Waits until it is so, or was so since the last act: where states follow each other quickly, others may
    /// have been waited for meanwhile.
    fn until<T: PartialEq + fmt::Display>(
        &mut self,
        subject: &str,
        wanted: &[T],
        is: impl Fn(&Self) -> Option<T>,
    ) -> Result<(), String> {
        let end = Millis(self.world.now().0 + PATIENCE.0);
        loop {
            // What was seen before may be older than the step before.
            let fresh = self.observe()?;
            let now = is(self).filter(|_| fresh);
            if now.as_ref().is_some_and(|now| wanted.contains(now)) {
                self.marks.insert(subject.to_owned(), self.seen.length(subject));
                return Ok(());
            }
            let mark = self.marks.get(subject).copied().unwrap_or_default();
            if let Some(at) = self.seen.position(subject, mark, wanted) {
                self.marks.insert(subject.to_owned(), at + 1);
                return Ok(());
            }
            if self.world.now() > end {
                let now = now.map_or("on its way".into(), |now| now.to_string());
                let wanted: Vec<String> = wanted.iter().map(T::to_string).collect();
                let wanted = wanted.join(" or ");
                return Err(format!("not {wanted} within {} s, but {now}", PATIENCE.0 / 1000));
            }
            self.world.pass();
        }
    }

    /// The words of all records that are about it; over without any.
    fn job(&self, job: &JobRef) -> Option<JobWord> {
        let mut all = self.view.jobs.values().filter(|record| {
            let named = self
                .jobs
                .get(&record.key())
                .is_some_and(|known| known.name == job.name);
            let tasks = record.array.as_ref().map(|array| &array.tasks);
            named
                && job
                    .task
                    .is_none_or(|task| tasks.is_some_and(|tasks| tasks.contains(&task)))
        });
        let first = all.next().map_or(Some(JobWord::Over), JobWord::of);
        all.all(|other| JobWord::of(other) == first)
            .then_some(first)
            .flatten()
    }

    fn target(&self, job: &JobRef) -> Result<Target, String> {
        let (id, submitted) = self
            .jobs
            .iter()
            .find(|(_, known)| known.name == job.name)
            .ok_or_else(|| format!("{job} was not submitted"))?;
        let array = |tasks: Vec<u32>| (submitted.tasks > 0).then_some(ArrayTasks { job: *id, tasks });
        let Some(task) = job.task else {
            return Ok(Target {
                id: *id,
                array: array((0..submitted.tasks).collect()),
            });
        };
        let holds = |record: &&thiao_core::view::SlurmJob| {
            record.key() == *id
                && record
                    .array
                    .as_ref()
                    .is_some_and(|array| array.tasks.contains(&task))
        };
        let record = self.view.jobs.values().find(holds);
        Ok(Target {
            id: record.ok_or_else(|| format!("{job} is over"))?.id,
            array: array(vec![task]),
        })
    }

    /// Observes, and tells whether slurmctld answered.
    fn observe(&mut self) -> Result<bool, String> {
        let view = self.world.observe()?;
        let fresh = view.is_some();
        if let Some(view) = view {
            self.view = view;
            self.note();
        }
        for call in self.world.calls()? {
            self.note_call(&call);
        }
        Ok(fresh)
    }

    fn note(&mut self) {
        for (name, node) in &self.view.nodes {
            if let Some(word) = NodeWord::of(node) {
                let reason = node.reason.as_ref().filter(|_| node.base == BaseState::Down);
                self.seen
                    .node(name, &word, reason.map(|reason| reason.text.as_str()));
            }
        }
        let refs: Vec<JobRef> = self.jobs.values().flat_map(refs).collect();
        for job in refs {
            if let Some(word) = self.job(&job) {
                self.seen.job(&job, word);
            }
        }
        for (id, record) in &self.view.jobs {
            let task = match record.array.as_ref().map(|array| &array.tasks[..]) {
                None => None,
                Some([one]) => Some(*one),
                Some(_) => continue,
            };
            if let Some(job) = self.jobs.get(&record.key()) {
                let name = job.name.clone();
                self.records.insert(*id, JobRef { name, task });
            }
        }
    }

    fn note_call(&mut self, call: &Call) {
        let (hook, nodes) = match call.hook {
            Hook::Resume => ("ResumeProgram", &call.nodes),
            Hook::Suspend => ("SuspendProgram", &call.nodes),
            Hook::ResumeFail => ("ResumeFailProgram", &call.nodes),
            Hook::JobEnded { job, .. } => {
                let job_mode = |record: &&JobRef| {
                    let job_mode = self
                        .jobs
                        .values()
                        .any(|job| job.job_mode && job.name == record.name);
                    job_mode && !self.unheard.contains(record)
                };
                if let Some(record) = self.records.get(&job).filter(job_mode) {
                    self.seen.call(format!("hooks {record}"), "EpilogSlurmctld");
                }
                return;
            }
        };
        for node in nodes {
            self.seen.call(format!("hooks {node}"), hook);
        }
    }
}

/// What is told of a job: itself, or each of its tasks.
fn refs(job: &Submission) -> Vec<JobRef> {
    let of = |task| JobRef {
        name: job.name.clone(),
        task,
    };
    match job.tasks {
        0 => vec![of(None)],
        tasks => (0..tasks).map(|task| of(Some(task))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_different_is_told() {
        let text = "hooks n1: ResumeProgram\njob a: PENDING > over\nnode n1: DOWN (x: y) > IDLE\n";
        let real = Sequences::parse(&format!("# for people\n{text}")).unwrap();
        assert_eq!(real.to_string(), text);
        assert_eq!(real.difference("real", &real, "other"), None);
        let other = Sequences::parse("job a: PENDING > RUNNING > over\nnode n1: DOWN (x: y)\n").unwrap();
        assert_eq!(
            real.difference("real", &other, "other").unwrap(),
            "hooks n1: \n    real: ResumeProgram\n    other: nothing more\n\
             job a: PENDING\n    real: over\n    other: RUNNING > over\n\
             node n1: DOWN (x: y)\n    real: IDLE\n    other: nothing more\n"
        );
        assert!(Sequences::parse("node n1").is_err());
    }

    #[test]
    fn a_state_that_passed_while_another_was_waited_for_counts() {
        let seen = Sequences::parse("node n1: IDLE > ALLOCATED > IDLE > DOWN (thiao: x) > IDLE\n").unwrap();
        let at = |mark, word| seen.position("node n1", mark, &[word]);
        assert_eq!(
            (at(0, "IDLE"), at(1, "IDLE"), at(3, "IDLE")),
            (Some(0), Some(2), Some(4))
        );
        assert_eq!(
            (at(0, "DOWN"), at(4, "DOWN"), at(0, "DOWN+DRAIN")),
            (Some(3), None, None)
        );
        assert_eq!(seen.position("node n2", 0, &["IDLE"]), None);
        assert_eq!(seen.lengths(), BTreeMap::from([("node n1".to_owned(), 5)]));
    }

    #[test]
    fn what_lies_between_two_observations_is_filled_in() {
        let mut seen = Sequences::default();
        let (node, job) = (
            NodeName::new("n1").unwrap(),
            JobRef {
                name: "a".into(),
                task: None,
            },
        );
        for word in ["IDLE", "IDLE+POWERING_DOWN", "ALLOCATED+POWERING_UP"] {
            seen.node(&node, &word.parse().unwrap(), None);
        }
        for word in ["PENDING+GATE", "RUNNING", "RUNNING", "over"] {
            seen.job(&job, word.parse().unwrap());
        }
        assert_eq!(
            seen.to_string(),
            "job a: PENDING+GATE > PENDING > CONFIGURING > RUNNING > over\n\
             node n1: IDLE > IDLE+POWERING_DOWN > IDLE+POWERED_DOWN > ALLOCATED+POWERING_UP\n"
        );
    }
}
