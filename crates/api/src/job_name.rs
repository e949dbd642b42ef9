//! How people name a job.

use std::fmt;
use std::str::FromStr;
use thiao_core::ids::JobId;
use thiao_core::view::ArrayTasks;

/// A job as people name it: `17`, `17_3` for a task of an array, and `17+1` for a part of a heterogeneous job, which is
/// a job of its own: its parts are numbered one after the other
/// (<https://slurm.schedmd.com/heterogeneous_jobs.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobName {
    /// The job's number, or the array's.
    pub id: u32,
    /// The task's number; none: the job itself, or the whole array.
    pub task: Option<u32>,
}

impl FromStr for JobName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| plain)
        };
        let pair = |(first, second)| number(first).zip(number(second));
        let parsed = match (text.split_once('_'), text.split_once('+')) {
            (None, None) => number(text).map(|id| Self { id, task: None }),
            (Some(task), _) => pair(task).map(|(id, task)| Self { id, task: Some(task) }),
            (None, Some(part)) => pair(part)
                .and_then(|(leader, part): (u32, u32)| leader.checked_add(part))
                .map(|id| Self { id, task: None }),
        };
        parsed.ok_or_else(|| {
            format!(
                "{text:?} is not a job: write one as 17, a task of an array as 17_3, a part of a heterogeneous job as 17+1"
            )
        })
    }
}

/// Jobs as people name several in one word: a job, or tasks of an array as `squeue` writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobNames(Vec<JobName>);

/// The most tasks in one word: Slurm's arrays have a thousand, if nobody allows more.
const MOST_TASKS: usize = 10_000;

impl JobNames {
    /// Each of them, in the order in which they were named.
    #[must_use]
    pub fn each(&self) -> &[JobName] {
        &self.0
    }
}

/// As they were typed, or nearly.
impl fmt::Display for JobNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => one.fmt(f),
            some => {
                let tasks = some.iter().filter_map(|name| name.task).collect();
                let job = JobId(some.first().map_or(0, |name| name.id));
                ArrayTasks { job, tasks }.fmt(f)
            }
        }
    }
}

impl FromStr for JobNames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((id, list)) = text.split_once("_[") else {
            return text.parse().map(|one| Self(vec![one]));
        };
        let wrong = || format!("{text:?} are no tasks of an array: write them as 17_[0-3,7]");
        let number = |digits: &str| -> Option<u32> {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| plain)
        };
        let id = number(id).ok_or_else(wrong)?;
        let list = list.strip_suffix(']').ok_or_else(wrong)?;
        // How many of them may run at once says nothing of which they are.
        let list = list.split_once('%').map_or(list, |(tasks, _)| tasks);
        let mut names = Vec::new();
        for part in list.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = number(first).zip(number(last)).ok_or_else(wrong)?;
            if first > last {
                return Err(wrong());
            }
            let span = usize::try_from(last - first).unwrap_or(usize::MAX);
            if names.len().saturating_add(span) >= MOST_TASKS {
                return Err(format!("{text:?} are more than {MOST_TASKS} tasks: name fewer"));
            }
            names.extend((first..=last).map(|task| JobName { id, task: Some(task) }));
        }
        Ok(Self(names))
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)?;
        self.task.map_or(Ok(()), |task| write!(f, "_{task}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_tasks_are_named_as_squeue_writes_them() {
        let tasks = |text: &str| -> Vec<String> {
            let names: JobNames = text.parse().unwrap();
            names.each().iter().map(JobName::to_string).collect()
        };
        assert_eq!(tasks("17"), ["17"]);
        assert_eq!(tasks("17_3"), ["17_3"]);
        assert_eq!(tasks("8_[0-2,7%4]"), ["8_0", "8_1", "8_2", "8_7"]);
        assert_eq!(tasks("8_[0-9999]").len(), 10_000);
        for (typed, shown) in [("17", "17"), ("8_[2]", "8_2"), ("8_[0-2,7%4]", "8_[0-2,7]")] {
            assert_eq!(typed.parse::<JobNames>().unwrap().to_string(), shown);
        }
        for bad in [
            "8_[",
            "8_[]",
            "8_[1",
            "8_[1-]",
            "8_[3-1]",
            "8_[+1]",
            "8_[1,...]",
            "_[1]",
            "8_[0-10000]",
            "8_[0-4294967295]",
        ] {
            assert!(bad.parse::<JobNames>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn jobs_are_named_as_slurm_does() {
        for good in ["17", "17_3", "4294967295_0"] {
            assert_eq!(good.parse::<JobName>().unwrap().to_string(), good);
        }
        for (part, job) in [("17+0", "17"), ("17+1", "18")] {
            assert_eq!(part.parse::<JobName>().unwrap().to_string(), job);
        }
        for bad in [
            "",
            "x",
            "+17",
            "17+",
            "17+x",
            "17_1+1",
            "17+1_1",
            "4294967295+1",
            "17_",
            "_3",
            "17_3_4",
            "17_[0-3]",
            "4294967296",
        ] {
            assert!(bad.parse::<JobName>().is_err(), "{bad:?}");
        }
    }
}
