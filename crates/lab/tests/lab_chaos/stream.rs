//! The stream of jobs: of all sizes, in both modes, of several users. Each leaves a mark
//! in its user's home folder when it has run to its end.

use super::dice::Dice;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use thiao_testkit::lab::Lab;

/// What was submitted, as far as Slurm took it.
pub struct Submitted {
    /// Its name, unlike any other's: Slurm gives the number of a job that it forgot to another.
    pub name: String,
    pub user: String,
    /// The tasks of its array; one of a job that is none.
    pub tasks: u64,
    /// Whether it kills its slurmd.
    pub kills: bool,
    /// Since when Slurm has it.
    pub taken: Instant,
}

/// A job of Slurm's as it was last seen.
#[derive(Debug, Clone)]
pub struct Seen {
    pub name: String,
    pub state: String,
    pub reason: String,
    pub restarts: u32,
}

impl Seen {
    pub fn is_over(&self) -> bool {
        !matches!(
            self.state.as_str(),
            "PENDING" | "CONFIGURING" | "RUNNING" | "COMPLETING" | "SUSPENDED" | "REQUEUED" | "RESIZING"
        )
    }
}

/// Not a word of Slurm's: what became of a job that it showed once and knows no more.
const FORGOTTEN: &str = "(forgotten)";

pub const USERS: [&str; 3] = ["user1", "user2", "user3"];

/// One in so many jobs is root's, and kills the slurmd of its own VM under itself: nobody else
/// reaches into a guest. It goes on, as a job does whose slurmd dies, and leaves its mark in the
/// first user's home folder.
const KILLERS: u64 = 8;

/// A guest has no `pkill`; slurmd is told from slurmstepd by its whole name.
const KILL_SLURMD: &str = "for p in /proc/[0-9]*; do read name < $p/comm && [ \"$name\" = slurmd ] && \
                           kill -KILL ${p#/proc/}; done 2>/dev/null; sleep 1; ";

/// How long the longest job runs, in seconds.
const LONGEST: u64 = 12;

/// Draws a job: its size and length, and whose it is.
pub struct Draft {
    name: String,
    user: &'static str,
    tasks: u64,
    kills: bool,
    args: Vec<String>,
}

impl Draft {
    pub fn draw(lab: &Lab, dice: &mut Dice, number: usize) -> Self {
        let name = format!("c{number}");
        let kills = dice.between(1, KILLERS) == 1;
        let user = match kills {
            true => USERS[0],
            false => USERS[usize::try_from(dice.between(0, 2)).unwrap()],
        };
        let seconds = dice.between(1, LONGEST);
        let own = dice.between(0, 1) == 0;
        let home = lab.dir.join("home").join(user);
        let home = home.to_str().unwrap();
        let mut args: Vec<String> = ["-J", &name, "-D", home, "-o", "/dev/null", "-t", "10"]
            .map(str::to_owned)
            .into();
        if own {
            args.push("--partition=jobs".into());
            args.push(format!("--mem={}", dice.between(100, 250)));
        }
        args.push(format!("--cpus-per-task={}", dice.between(1, 2)));
        let mut tasks = 1;
        match dice.between(0, 5) {
            _ if kills => {}
            0 => {
                tasks = dice.between(2, 3);
                args.push(format!("--array=0-{}", tasks - 1));
            }
            1 => args.push("--nodes=2".into()),
            _ => {}
        }
        let mark = format!("done.{name}.${{SLURM_ARRAY_TASK_ID:-0}}");
        args.push("--wrap".into());
        let deed = if kills { KILL_SLURMD } else { "" };
        args.push(format!("{deed}sleep {seconds}; echo $SLURM_JOB_ID >> {mark}"));
        Self {
            name,
            user,
            tasks,
            kills,
            args,
        }
    }

    /// Gives it to Slurm; none if Slurm did not take it, so far as we were told.
    pub fn submit(&self, lab: &Lab) -> Option<Submitted> {
        let mut command = vec!["sbatch", "--parsable"];
        command.extend(self.args.iter().map(String::as_str));
        let output = match self.kills {
            true => lab.run_as_admin(&command),
            false => lab.run_as(self.user, &command),
        };
        output.status.success().then(|| Submitted {
            name: self.name.clone(),
            user: self.user.to_owned(),
            tasks: self.tasks,
            kills: self.kills,
            taken: Instant::now(),
        })
    }
}

/// Everything that Slurm has shown of the jobs, by its numbers.
#[derive(Default)]
pub struct Watch {
    pub jobs: BTreeMap<(String, String), Seen>,
}

impl Watch {
    /// Observes once; whether slurmctld answered.
    pub fn observe(&mut self, lab: &Lab) -> bool {
        let output = lab.run_as_admin(&["scontrol", "-o", "show", "jobs"]);
        if !output.status.success() {
            return false;
        }
        let mut shown = BTreeSet::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let field = |name: &str| {
                let start = format!("{name}=");
                let found = line.split(' ').find_map(|word| word.strip_prefix(&start));
                found.unwrap_or_default().to_owned()
            };
            let (id, name) = (field("JobId"), field("JobName"));
            if name.is_empty() {
                continue; // "No jobs in the system"
            }
            let seen = Seen {
                name: name.clone(),
                state: field("JobState"),
                reason: field("Reason"),
                restarts: field("Restarts").parse().unwrap_or(0),
            };
            shown.insert((name.clone(), id.clone()));
            self.jobs.insert((name, id), seen);
        }
        // Jobs that are over stay known for minutes (MinJobAge). One that is not, and is not shown, is lost.
        for (key, job) in &mut self.jobs {
            if !job.is_over() && !shown.contains(key) {
                job.state = FORGOTTEN.to_owned();
            }
        }
        true
    }

    /// How often Slurm put jobs back into its queue.
    pub fn requeues(&self) -> u32 {
        self.jobs.values().map(|job| job.restarts).sum()
    }

    /// The jobs that are not over.
    pub fn open(&self) -> impl Iterator<Item = (&str, &Seen)> {
        let open = self.jobs.iter().filter(|(_, job)| !job.is_over());
        open.map(|((_, id), job)| (id.as_str(), job))
    }
}

/// What became of all that was submitted.
#[derive(Default)]
pub struct Outcome {
    /// Tasks that left their marks.
    pub completed: usize,
    /// How often a job that did so had killed its slurmd.
    pub slurmds: usize,
    /// Those that ran to their ends more than once: killed between the mark and Slurm's knowledge of it.
    pub twice: usize,
    /// Jobs that slurmctld forgot: it was killed before it had written them down.
    pub forgotten: Vec<String>,
    /// What went wrong; empty: nothing did.
    pub wrong: Vec<String>,
}

/// slurmctld writes new jobs down within 5 s (`SAVE_MAX_WAIT` in its state_save.c, 22.05), if the
/// machine is not too busy.
const WRITTEN_DOWN: Duration = Duration::from_secs(15);

/// Compares what was submitted with the marks and with what Slurm said last. `killed`: when slurmctld was.
pub fn judge(lab: &Lab, submitted: &[Submitted], watch: &Watch, killed: &[Instant]) -> Outcome {
    let mut verdict = Outcome::default();
    for job in submitted {
        let home = lab.dir.join("home").join(&job.user);
        let runs: Vec<usize> = (0..job.tasks)
            .map(|task| home.join(format!("done.{}.{task}", job.name)))
            .map(|mark| std::fs::read_to_string(mark).unwrap_or_default().lines().count())
            .collect();
        let shown: Vec<&Seen> = watch.jobs.values().filter(|seen| seen.name == job.name).collect();
        let states: BTreeSet<&str> = shown.iter().map(|seen| seen.state.as_str()).collect();
        let cut_off = killed
            .iter()
            .any(|at| *at >= job.taken && at.duration_since(job.taken) < WRITTEN_DOWN);
        let marked = runs.iter().filter(|runs| **runs > 0).count();
        verdict.completed += marked;
        verdict.slurmds += if job.kills { runs.iter().sum() } else { 0 };
        verdict.twice += runs.iter().filter(|runs| **runs > 1).count();
        // Slurm may have forgotten a task of an array and shown it anew, under another number.
        let well = |state: &&str| matches!(*state, "COMPLETED" | FORGOTTEN);
        if marked == runs.len() && states.iter().all(well) {
            continue;
        }
        if cut_off && states.iter().all(|state| *state == FORGOTTEN) {
            verdict.forgotten.push(job.name.clone());
        } else {
            let of = runs.len();
            verdict.wrong.push(format!(
                "{} of {}: {marked} of {of} tasks completed; Slurm says {shown:?}",
                job.name, job.user
            ));
        }
    }
    verdict
}
