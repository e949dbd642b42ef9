//! How people name a job.

use std::fmt;
use std::str::FromStr;

/// A job as people name it: `17`, and `17_3` for a task of an array.
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
        let parsed = match text.split_once('_') {
            None => number(text).map(|id| Self { id, task: None }),
            Some((id, task)) => number(id)
                .zip(number(task))
                .map(|(id, task)| Self { id, task: Some(task) }),
        };
        parsed.ok_or_else(|| format!("{text:?} is not a job: write one as 17, a task of an array as 17_3"))
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
    fn jobs_are_named_as_slurm_does() {
        for good in ["17", "17_3", "4294967295_0"] {
            assert_eq!(good.parse::<JobName>().unwrap().to_string(), good);
        }
        for bad in ["", "x", "+17", "17_", "_3", "17_3_4", "17_[0-3]", "4294967296"] {
            assert!(bad.parse::<JobName>().is_err(), "{bad:?}");
        }
    }
}
