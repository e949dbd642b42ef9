//! `thiao ssh`: a shell in the VM of one's own job. Slurm is the way in: this process becomes an srun whose step runs
//! beside the job's own, with its rights and in its limits. Nobody needs a key, and no VM an open port.

use super::submit::{places, slurm_program};
use anyhow::Context as _;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use thiao_api::JobName;
use thiao_api::client::Client;
use thiao_api::types::{Job, Vm};
use thiao_api::words::JobState;
use thiao_core::hostlist;

/// A login shell: the user's own, where the VM has it.
const SHELL: [&str; 3] = [
    "sh",
    "-c",
    "test -x \"$SHELL\" || SHELL=/bin/sh; export SHELL; exec \"$SHELL\" -l",
];

/// Becomes srun, or says why nobody is let in.
pub(super) fn run(
    file: Option<&Path>,
    place: &str,
    node: Option<&str>,
    command: &[OsString],
) -> anyhow::Result<()> {
    let places = places(file)?;
    let client = Client::new(&places.state_dir);
    let seen = client.jobs(true).and_then(|jobs| Ok((jobs, client.vms()?)));
    let way = match (seen, place.parse::<JobName>()) {
        (Ok((jobs, vms)), _) => {
            let uid = rustix::process::getuid().as_raw();
            way(place, node, &jobs, &vms, uid).map_err(anyhow::Error::msg)?
        }
        // Slurm knows the job without a controller, too.
        (Err(error), Ok(JobName { id, task: None })) if error.unreachable() => Way {
            job: id,
            part: None,
            node: node.map(str::to_owned),
        },
        (Err(error), Ok(task)) if error.unreachable() => {
            let without = format!(
                "which job {task} is the controller would say; name it by its own number (squeue -h -j {task} -O JobID)"
            );
            return Err(anyhow::Error::new(error).context(without));
        }
        (Err(error), _) => return Err(error.into()),
    };
    let (program, mut words) = slurm_program(&places, "srun")?;
    words.args(way.words(std::io::stdin().is_terminal()));
    match command {
        [] => words.args(SHELL),
        command => words.args(command),
    };
    // Returns only if it fails.
    Err(words.exec()).with_context(|| format!("{} cannot be run", program.display()))
}

/// The job by its own number, since srun takes no `17_3`, and the node where the step is to run.
#[derive(Debug, PartialEq, Eq)]
struct Way {
    job: u32,
    /// Which part of that heterogeneous job: srun takes its leader's number alone.
    part: Option<u32>,
    node: Option<String>,
}

impl Way {
    fn into(job: &Job, node: Option<&str>) -> Self {
        Self {
            job: job.het.unwrap_or(job.id),
            part: job.het.map(|leader| job.id.saturating_sub(leader)),
            node: node.map(str::to_owned),
        }
    }

    /// What srun is told. Without `--overlap` the step would wait for the job's own to leave it a processor.
    fn words(&self, terminal: bool) -> Vec<String> {
        let mut words = vec![format!("--jobid={}", self.job)];
        words.extend(["--overlap", "-N1", "-n1"].map(str::to_owned));
        words.extend(self.part.map(|part| format!("--het-group={part}")));
        words.extend(self.node.iter().map(|node| format!("--nodelist={node}")));
        words.extend(terminal.then(|| "--pty".to_owned()));
        words
    }
}

/// Which job of this user's is meant by a job or a node, and why none.
fn way(place: &str, node: Option<&str>, jobs: &[Job], vms: &[Vm], uid: u32) -> Result<Way, String> {
    match place.parse::<JobName>() {
        Ok(name) => by_job(name, node, jobs, vms, uid),
        Err(_) if node.is_some() => Err(format!("{place} is no job: --node chooses among a job's nodes")),
        Err(_) => by_node(place, jobs, vms, uid),
    }
}

fn by_job(name: JobName, node: Option<&str>, jobs: &[Job], vms: &[Vm], uid: u32) -> Result<Way, String> {
    let Some(job) = jobs.iter().find(|job| is_named(job, name)) else {
        let left = vms.iter().filter(|vm| vm.job == Some(name.id));
        return Err(format!(
            "you have no job {name} in Slurm's queue{}",
            console(left)
        ));
    };
    let nodes = nodes_of(job);
    if job.uid != uid {
        let its = vms.iter().filter(|vm| nodes.contains(&vm.node));
        return Err(format!("job {name} is {}'s, not yours{}", job.user, console(its)));
    }
    if job.state != JobState::Running {
        return Err(format!(
            "job {name} is {}: its VM can be entered while it runs",
            job.state
        ));
    }
    match node {
        Some(node) if !nodes.iter().any(|its| its == node) => {
            Err(format!("job {name} is not on {node}, but on {}", job.nodes))
        }
        node => Ok(Way::into(job, node)),
    }
}

fn by_node(node: &str, jobs: &[Job], vms: &[Vm], uid: u32) -> Result<Way, String> {
    let there = |job: &&Job| {
        job.uid == uid && job.state == JobState::Running && nodes_of(job).iter().any(|its| its == node)
    };
    let mine: Vec<&Job> = jobs.iter().filter(there).collect();
    match mine.as_slice() {
        [] => {
            let its = vms.iter().filter(|vm| vm.node == node);
            Err(format!("no job of yours runs on {node}{}", console(its)))
        }
        [job] => Ok(Way::into(job, Some(node))),
        several => {
            let names: Vec<String> = several.iter().map(|job| job.id.to_string()).collect();
            Err(format!(
                "several jobs of yours run on {node}: name one of {}, with --node={node}",
                names.join(", ")
            ))
        }
    }
}

/// The way into VMs without a job of the user's.
fn console<'a>(vms: impl Iterator<Item = &'a Vm>) -> String {
    let names: Vec<String> = vms.map(|vm| format!("{}.{}", vm.node, vm.generation)).collect();
    match names.first() {
        None => String::new(),
        Some(first) => format!(
            "; {} is there: root and the controller's user enter it by `thiao console {first}`",
            names.join(", ")
        ),
    }
}

fn nodes_of(job: &Job) -> Vec<String> {
    let names = hostlist::expand(&job.nodes).unwrap_or_default();
    names.iter().map(ToString::to_string).collect()
}

fn is_named(job: &Job, name: JobName) -> bool {
    let array = job.array.as_ref();
    match name.task {
        Some(task) => array.is_some_and(|array| array.job == name.id && array.tasks.contains(&task)),
        None => job.id == name.id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thiao_api::types::JobArray;
    use thiao_api::words::{Mode, VmState};

    const ADA: u32 = 1000;

    fn job(id: u32, uid: u32, state: JobState, nodes: &str) -> Job {
        Job {
            id,
            name: String::new(),
            user: if uid == ADA { "ada" } else { "bob" }.to_owned(),
            uid,
            state,
            reason: String::new(),
            nodes: nodes.to_owned(),
            nodes_up: 0,
            node_count: 1,
            submit: None,
            start: None,
            array: None,
            het: None,
        }
    }

    fn vm(node: &str, generation: u64, job: Option<u32>) -> Vm {
        Vm {
            id: format!("{node}.{generation}"),
            node: node.to_owned(),
            generation,
            host: None,
            state: VmState::Up,
            memory_mb: 0,
            cpu_percent: 0,
            mode: Mode::Job,
            job,
            asked: None,
            note: None,
        }
    }

    fn jobs() -> Vec<Job> {
        let task = Job {
            array: Some(JobArray {
                job: 20,
                tasks: vec![3],
            }),
            ..job(23, ADA, JobState::Running, "fg7")
        };
        let part = |id| Job {
            het: Some(30),
            ..job(id, ADA, JobState::Running, "fg8")
        };
        vec![
            job(17, ADA, JobState::Running, "fg[0-1]"),
            job(18, ADA, JobState::Configuring, "fg2"),
            job(19, 1001, JobState::Running, "fg3"),
            job(21, ADA, JobState::Running, "fg7"),
            part(30),
            part(31),
            task,
        ]
    }

    fn asked(place: &str, node: Option<&str>) -> Result<String, String> {
        let vms = [vm("fg3", 2, Some(19)), vm("fg5", 4, Some(11))];
        way(place, node, &jobs(), &vms, ADA).map(|way| way.words(false).join(" "))
    }

    #[test]
    fn a_job_and_a_node_lead_into_ones_own_vm() {
        let way = |words: &str| Ok(words.to_owned());
        assert_eq!(asked("17", None), way("--jobid=17 --overlap -N1 -n1"));
        assert_eq!(
            asked("17", Some("fg1")),
            way("--jobid=17 --overlap -N1 -n1 --nodelist=fg1")
        );
        assert_eq!(asked("20_3", None), way("--jobid=23 --overlap -N1 -n1"));
        assert_eq!(
            asked("fg1", None),
            way("--jobid=17 --overlap -N1 -n1 --nodelist=fg1")
        );
        for (part, group) in [("30", 0), ("30+0", 0), ("30+1", 1), ("31", 1)] {
            assert_eq!(
                asked(part, None),
                Ok(format!("--jobid=30 --overlap -N1 -n1 --het-group={group}"))
            );
        }
        let way = Way {
            job: 17,
            part: None,
            node: None,
        };
        assert_eq!(way.words(true).last().unwrap(), "--pty");
    }

    #[test]
    fn who_cannot_enter_reads_why_and_what_else_leads_in() {
        for (place, node, words) in [
            ("12", None, "you have no job 12 in Slurm's queue"),
            (
                "11",
                None,
                "you have no job 11 in Slurm's queue; fg5.4 is there: root and the controller's user enter it by `thiao \
                 console fg5.4`",
            ),
            (
                "18",
                None,
                "job 18 is CONFIGURING: its VM can be entered while it runs",
            ),
            (
                "19",
                None,
                "job 19 is bob's, not yours; fg3.2 is there: root and the controller's user enter it by `thiao console \
                 fg3.2`",
            ),
            ("17", Some("fg9"), "job 17 is not on fg9, but on fg[0-1]"),
            ("fg9", None, "no job of yours runs on fg9"),
            (
                "fg2",
                Some("fg2"),
                "fg2 is no job: --node chooses among a job's nodes",
            ),
            (
                "fg7",
                None,
                "several jobs of yours run on fg7: name one of 21, 23, with --node=fg7",
            ),
        ] {
            assert_eq!(asked(place, node), Err(words.to_owned()), "{place}");
        }
    }
}
