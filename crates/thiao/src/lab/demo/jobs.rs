//! The demo's jobs: submitted, asked about in one call, their outputs read.

use crate::lab::enter::{As, Running};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

/// What every task runs.
const PROOF: &str = include_str!("proof.sh");
const SCRIPT: &str = "proof.sh";

/// A submitted job.
#[derive(Debug, Clone)]
pub struct Job {
    /// Slurm's id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Nodes asked for.
    pub nodes: u32,
    /// When sbatch was called, milliseconds since the epoch.
    pub submitted: u64,
    /// Where its output lands, on this machine and in the guests alike.
    pub output: PathBuf,
}

/// A job as squeue tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Slurm's state word.
    pub state: String,
    /// Its nodes, once it has some.
    pub nodes: String,
}

/// What one task found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    fields: BTreeMap<String, String>,
}

/// What a job wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// The whole text.
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
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Puts the script into the home folder.
pub fn place_script(lab: &Running) -> Result<()> {
    let user = lab.plan.submitter();
    let path = lab.home(user).join(SCRIPT);
    std::fs::write(&path, PROOF).with_context(|| format!("{} cannot be written", path.display()))?;
    if user.uid != lab.plan.owner.uid {
        std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid))
            .context("the script cannot be given to its user")?;
    }
    Ok(())
}

/// Submits one job of `nodes` nodes, one task on each, as the lab's user.
pub fn submit(lab: &Running, name: &str, nodes: u32) -> Result<Job> {
    let user = lab.plan.submitter();
    let home = lab.home(user);
    let submitted = now();
    let output = lab
        .command("sbatch", As::User(user), &home)?
        .args([
            "--parsable",
            "--ntasks-per-node=1",
            "-N",
            &nodes.to_string(),
            "-J",
            name,
            "-o",
            "%x.%j.out",
            SCRIPT,
        ])
        .output()
        .context("sbatch cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(id) = text
        .trim()
        .split(';')
        .next()
        .and_then(|id| id.parse().ok())
        .filter(|_| output.status.success())
    else {
        bail!(
            "sbatch refused the job {name}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    };
    Ok(Job {
        id,
        name: name.to_owned(),
        nodes,
        submitted,
        output: home.join(format!("{name}.{id}.out")),
    })
}

/// All jobs of the lab, in one call.
pub fn look(lab: &Running) -> Result<BTreeMap<u32, Seen>> {
    let output = lab
        .command("squeue", As::Owner, lab.layout.dir())?
        .args(["-h", "-a", "-t", "all", "-o", "%A|%T|%N"])
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

fn seen_in(line: &str) -> Option<(u32, Seen)> {
    let mut fields = line.splitn(3, '|');
    let id = fields.next()?.trim().parse().ok()?;
    Some((
        id,
        Seen {
            state: fields.next()?.to_owned(),
            nodes: fields.next()?.to_owned(),
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

/// Reads what a job wrote.
pub fn read(job: &Job) -> Result<Output> {
    let failed = || {
        format!(
            "the output of job {} ({}) is not where it should be: {}",
            job.id,
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
    fn squeue_lines_are_read() {
        let seen = Seen {
            state: "RUNNING".into(),
            nodes: "vm[1-2]".into(),
        };
        assert_eq!(seen_in("7|RUNNING|vm[1-2]"), Some((7, seen)));
        assert_eq!(seen_in("garbage"), None);
    }
}
