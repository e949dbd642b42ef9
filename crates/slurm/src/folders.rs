//! Where jobs run that have not started: asked for a check by a person, and not with each observation.

use crate::control::{Slurm, mark};
use crate::error::SlurmError;
use std::path::PathBuf;
use thiao_core::ids::JobId;

const WHAT: &str = "squeue's list of working directories";

/// A job that has not started, whose it is, and where it will run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkDir {
    pub job: JobId,
    pub user: String,
    pub folder: PathBuf,
}

impl Slurm {
    /// Where the jobs of these partitions run that have not started; of an array one stands for all.
    ///
    /// # Errors
    /// When slurmctld does not answer, or the answer is cut off.
    pub fn work_dirs<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<WorkDir>, SlurmError> {
        let mark = mark()?;
        let partitions = partitions.into_iter().collect::<Vec<_>>().join(",");
        let format = format!("JobID:{mark},UserName:{mark},WorkDir:{mark}");
        let args = [
            "-h",
            "-a",
            "-O",
            &format,
            "-t",
            "PENDING,CONFIGURING",
            "-p",
            &partitions,
        ];
        parse(&self.runner.run("squeue", args)?, &mark)
    }
}

/// A folder is whatever its user typed, newlines included: the mark ends it.
fn parse(text: &str, mark: &str) -> Result<Vec<WorkDir>, SlurmError> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.trim_ascii().is_empty() {
        let (job, after) = record(rest, mark)
            .ok_or_else(|| SlurmError::unparsable(WHAT, rest.trim(), "the record is cut off"))?;
        found.push(job);
        rest = after.strip_prefix('\n').unwrap_or(after);
    }
    Ok(found)
}

/// The first record, and what comes behind it.
fn record<'a>(text: &'a str, mark: &str) -> Option<(WorkDir, &'a str)> {
    let (job, rest) = text.split_once(mark)?;
    let (user, rest) = rest.split_once(mark)?;
    let (folder, rest) = rest.split_once(mark)?;
    let job = WorkDir {
        job: JobId(job.trim().parse().ok()?),
        user: user.to_owned(),
        folder: folder.into(),
    };
    Some((job, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn any_folder_is_read_and_a_cut_list_is_none() {
        let text = "7=#ada=#/home/ada=#\n8=#bob=#/tmp/a\n9=#b=#\n";
        let read = |text: &str| parse(text, "=#");
        let folders: Vec<_> = read("7=#ada=#/home/ada=#\n8=#bob=#/tmp/a\n9=#")
            .unwrap()
            .into_iter()
            .map(|dir| (dir.job.0, dir.user, dir.folder))
            .collect();
        assert_eq!(
            folders,
            [
                (7, "ada".to_owned(), PathBuf::from("/home/ada")),
                (8, "bob".to_owned(), PathBuf::from("/tmp/a\n9"))
            ]
        );
        assert!(read(text).is_err());
        assert!(read("\n").unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(text in ".*") {
            let _ = parse(&text, "|");
        }
    }
}
