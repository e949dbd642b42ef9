//! The demo's jobs: submitted, asked about in one call, their outputs read.

use crate::enter::{As, Running};
use crate::files::JOB_PARTITION;
use crate::person::Person;
use crate::plan::JobSize;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

/// What jobs run, each by its name in the home folders.
const SCRIPTS: [(&str, &str); 2] = [
    (PROOF, include_str!("proof.sh")),
    (STAYS, include_str!("stays.sh")),
];
const PROOF: &str = "proof.sh";
const STAYS: &str = "stays.sh";
/// The file in each home folder that says so.
const TOGETHER: &str = "together";

/// A job as it is to be submitted.
pub struct NewJob<'a> {
    pub user: &'a Person,
    /// What submits it: `sbatch` or `tsub`.
    pub program: &'static str,
    pub name: &'static str,
    /// Nodes, each with one task.
    pub nodes: u32,
    /// CPUs and memory of each node, in job mode; else the node's own.
    pub size: Option<JobSize>,
    /// Tasks of an array; 0: it is none.
    pub array: u32,
    pub runs: Runs,
}

/// What a job does.
#[derive(Debug, Clone, Copy)]
pub enum Runs {
    /// It shows what it sees of its machine.
    Proof {
        /// Seconds that it stays.
        stay: u32,
        /// Whether it stays until it is told that all are there ([`gather`]), a minute at most.
        gathers: bool,
    },
    /// It stays until it is told so, and says each second that it is there ([`tick`]).
    Stays,
}

/// A submitted job, or one task of an array.
#[derive(Debug, Clone)]
pub struct Job {
    /// Slurm's id; of an array its first.
    pub id: u32,
    /// Which task of the array it is.
    pub task: Option<u32>,
    pub name: String,
    pub user: Person,
    /// How many nodes it asked for.
    pub nodes: u32,
    /// What it asked of each, if it runs in VMs of its own.
    pub size: Option<JobSize>,
    /// When sbatch was called, milliseconds since the epoch.
    pub submitted: u64,
    /// Where its output lands, on this machine and in the guests alike.
    pub output: PathBuf,
}

impl Job {
    /// As squeue names it: `5`, `4_3`.
    pub fn label(&self) -> String {
        match self.task {
            Some(task) => format!("{}_{task}", self.id),
            None => self.id.to_string(),
        }
    }
}

/// A job as squeue tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Slurm's word for its state.
    pub state: String,
    /// Its nodes, once it has some.
    pub nodes: String,
    /// Why it waits, in Slurm's word.
    pub reason: String,
}

/// What one task found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    fields: BTreeMap<String, String>,
}

/// What a job wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    pub text: String,
    /// Its first line ran, by the guest's clock, milliseconds since the epoch.
    pub begin: Option<u64>,
    /// Its last line ran.
    pub end: Option<u64>,
    /// What its tasks found, by task.
    pub proofs: BTreeMap<u32, Proof>,
    /// Who owns the file.
    pub uid: Option<u32>,
}

impl Proof {
    /// A finding as text.
    pub fn text(&self, key: &str) -> &str {
        self.fields.get(key).map_or("", String::as_str)
    }

    /// A finding as a number.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.text(key).parse().ok()
    }
}

/// Milliseconds since the epoch.
pub fn now() -> u64 {
    since_epoch(SystemTime::now())
}

fn since_epoch(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Puts the scripts into a user's home folder.
pub fn place_scripts(lab: &Running, user: &Person) -> Result<()> {
    for (name, text) in SCRIPTS {
        let path = lab.home(user).join(name);
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        if user.uid != lab.plan.owner.uid {
            std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid))
                .context("the script cannot be given to its user")?;
        }
    }
    Ok(())
}

/// Submits a job; each of its tasks if it is an array, and the command as a person would type it.
pub fn submit(lab: &Running, wanted: &NewJob<'_>) -> Result<(Vec<Job>, String)> {
    let home = lab.home(wanted.user);
    let submitted = now();
    let command = typed(wanted);
    let output = lab
        .command(wanted.program, As::User(wanted.user), &home)?
        .args(["--parsable", "-J", wanted.name, "-o", pattern(wanted)])
        .args(&command[1..])
        .output()
        .with_context(|| format!("{} cannot be run", wanted.program))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(id) = text
        .trim()
        .split(';')
        .next()
        .and_then(|id| id.parse::<u32>().ok())
        .filter(|_| output.status.success())
    else {
        bail!(
            "{} refused the job {}: {}",
            wanted.program,
            wanted.name,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    };
    let name = wanted.name;
    let job = |task: Option<u32>| Job {
        id,
        task,
        name: task.map_or_else(|| name.to_owned(), |task| format!("{name}-{task}")),
        user: wanted.user.clone(),
        nodes: wanted.nodes,
        size: wanted.size,
        submitted,
        output: home.join(match task {
            Some(task) => format!("{name}.{id}_{task}.out"),
            None => format!("{name}.{id}.out"),
        }),
    };
    let jobs = match wanted.array {
        0 => vec![job(None)],
        tasks => (1..=tasks).map(|task| job(Some(task))).collect(),
    };
    Ok((jobs, command.join(" ")))
}

/// Where outputs land, as sbatch's `-o` says it.
fn pattern(wanted: &NewJob<'_>) -> &'static str {
    match wanted.array {
        0 => "%x.%j.out",
        _ => "%x.%A_%a.out",
    }
}

/// The command, without what only the demo needs.
fn typed(wanted: &NewJob<'_>) -> Vec<String> {
    let mut words = vec![wanted.program.to_owned()];
    if let Some(size) = wanted.size {
        // tsub's jobs go there by themselves.
        if wanted.program != "tsub" {
            words.extend(["-p".to_owned(), JOB_PARTITION.to_owned()]);
        }
        words.push(format!("-c{}", size.cpus));
        words.push(format!("--mem={}", size.memory_mb));
    }
    if wanted.nodes > 1 {
        words.push(format!("-N{}", wanted.nodes));
    }
    words.push("--ntasks-per-node=1".to_owned());
    if wanted.array > 0 {
        words.push(format!("--array=1-{}", wanted.array));
    }
    match wanted.runs {
        Runs::Proof { stay, gathers } => {
            words.extend([PROOF.to_owned(), stay.to_string()]);
            words.extend(gathers.then(|| TOGETHER.to_owned()));
        }
        Runs::Stays => words.extend([STAYS.to_owned(), TOGETHER.to_owned()]),
    }
    words
}

/// Tells the jobs that all who are to be there together are there.
pub fn gather(lab: &Running) -> Result<()> {
    for user in &lab.plan.submitters {
        let file = lab.home(user).join(TOGETHER);
        std::fs::write(&file, "").with_context(|| format!("{} cannot be written", file.display()))?;
        std::os::unix::fs::chown(&file, Some(user.uid), Some(user.gid))
            .with_context(|| format!("{} cannot be given to {}", file.display(), user.name))?;
    }
    Ok(())
}

/// All jobs of the lab, in one call.
pub fn observe(lab: &Running) -> Result<BTreeMap<String, Seen>> {
    let output = lab
        .command("squeue", As::Owner, lab.layout.dir())?
        .args(["-h", "-a", "-r", "-t", "all", "-o", "%i|%T|%N|%r"])
        .output()
        .context("squeue cannot be run")?;
    if !output.status.success() {
        bail!("squeue: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(seen_in)
        .collect())
}

fn seen_in(line: &str) -> Option<(String, Seen)> {
    let mut fields = line.splitn(4, '|');
    let label = fields.next()?.trim().to_owned();
    Some((
        label,
        Seen {
            state: fields.next()?.to_owned(),
            nodes: fields.next()?.to_owned(),
            reason: fields.next()?.to_owned(),
        },
    ))
}

/// The nodes' states, in one call: name to Slurm's short word (`idle~`).
pub fn nodes(lab: &Running) -> Result<BTreeMap<String, String>> {
    let output = lab
        .command("sinfo", As::Owner, lab.layout.dir())?
        .args(["-h", "-N", "-o", "%N %t"])
        .output()
        .context("sinfo cannot be run")?;
    if !output.status.success() {
        bail!("sinfo: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, state)| (name.to_owned(), state.trim().to_owned()))
        .collect())
}

/// What a job that stays said last, and when it said so by this machine's clock, milliseconds since the epoch; none
/// before its first word.
pub fn tick(lab: &Running, job: &Job) -> Option<(Output, u64)> {
    let path = lab.home(&job.user).join(format!("ticks.{}", job.id));
    let text = std::fs::read_to_string(&path).ok()?;
    let at = std::fs::metadata(&path).ok()?.modified().ok()?;
    Some((parse(text), since_epoch(at)))
}

/// Reads what a job wrote.
pub fn read(job: &Job) -> Result<Output> {
    let failed = || {
        format!(
            "the output of job {} ({}) is not where it should be: {}",
            job.label(),
            job.name,
            job.output.display()
        )
    };
    let text = String::from_utf8_lossy(&std::fs::read(&job.output).with_context(failed)?).into_owned();
    let uid = std::fs::metadata(&job.output).with_context(failed)?.uid();
    Ok(Output {
        uid: Some(uid),
        ..parse(text)
    })
}

/// Takes a job's output apart.
pub fn parse(text: String) -> Output {
    let mut output = Output::default();
    for line in text.lines() {
        // srun --label puts the task's number first; a task without srun is number 0.
        let (task, rest) = match line.trim_start().split_once(": ") {
            Some((task, rest)) if task.parse::<u32>().is_ok() => (task.parse().unwrap_or(0), rest),
            _ => (0, line),
        };
        let Some((key, value)) = rest.split_once('=') else {
            continue;
        };
        match key {
            "begin" => output.begin = millis(value),
            "end" => output.end = millis(value),
            _ => {
                output
                    .proofs
                    .entry(task)
                    .or_default()
                    .fields
                    .insert(key.to_owned(), value.to_owned());
            }
        }
    }
    output.text = text;
    output
}

/// Bash's `EPOCHREALTIME`; some locales write a comma.
fn millis(text: &str) -> Option<u64> {
    let (seconds, rest) = text.split_once(['.', ','])?;
    Some(seconds.parse::<u64>().ok()? * 1000 + rest.get(..3)?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_of_one_and_of_two_tasks_are_read() {
        let one = parse("begin=12.345678\nhost=vm1\ncpus=1\nend=15.5000\n".into());
        assert_eq!((one.begin, one.end), (Some(12_345), Some(15_500)));
        assert_eq!(one.proofs[&0].text("host"), "vm1");
        assert_eq!(one.proofs[&0].number("cpus"), Some(1));
        let two =
            parse("begin=1.000000\n1: host=vm3\n0: host=vm2\n1: seen=a: b=c\nslurmstepd: error\n".into());
        assert_eq!(two.proofs.len(), 2);
        assert_eq!(
            (two.proofs[&0].text("host"), two.proofs[&1].text("host")),
            ("vm2", "vm3")
        );
        assert_eq!(two.proofs[&1].text("seen"), "a: b=c");
        assert_eq!(two.end, None);
    }

    #[test]
    fn a_job_is_typed_as_a_person_would() {
        let user = Person {
            name: "ada".into(),
            uid: 1000,
            gid: 1000,
        };
        let plain = NewJob {
            user: &user,
            program: "sbatch",
            name: "x",
            nodes: 2,
            size: None,
            array: 0,
            runs: Runs::Proof {
                stay: 3,
                gathers: false,
            },
        };
        assert_eq!(
            typed(&plain).join(" "),
            "sbatch -N2 --ntasks-per-node=1 proof.sh 3"
        );
        let own = NewJob {
            nodes: 1,
            size: Some(JobSize {
                cpus: 2,
                memory_mb: 300,
            }),
            array: 4,
            runs: Runs::Proof {
                stay: 3,
                gathers: true,
            },
            ..plain
        };
        assert_eq!(
            typed(&own).join(" "),
            "sbatch -p jobs -c2 --mem=300 --ntasks-per-node=1 --array=1-4 proof.sh 3 together"
        );
    }

    #[test]
    fn squeue_lines_are_read() {
        let seen = Seen {
            state: "RUNNING".into(),
            nodes: "vm[1-2]".into(),
            reason: "None".into(),
        };
        assert_eq!(
            seen_in("7_1|RUNNING|vm[1-2]|None"),
            Some(("7_1".to_owned(), seen))
        );
        assert_eq!(seen_in("garbage"), None);
    }
}
