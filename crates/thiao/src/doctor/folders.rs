//! Whether jobs that have not started run where their VMs see the same folder: else what they write is lost with the
//! VM, and nobody has refused them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use thiao_config::{Config, ProviderSettings, home_of};
use thiao_core::finding::Finding;
use thiao_slurm::folders::WorkDir;
use thiao_slurm::{Slurm, SlurmError};

const WHAT: &str = "folders";

const REMEDY: &str = "share the folders by [[mount]] or [[qemu.share]] in thiao.toml, or have users submit from shared \
                      ones; docs/people.md says which are";

/// Asks Slurm for the jobs, and judges. What OpenNebula's images see is not known.
pub fn look(config: &Config, slurm: &Slurm) -> Option<Finding> {
    let ProviderSettings::Qemu(settings) = &config.provider else {
        return None;
    };
    let partitions: BTreeSet<&str> = config
        .nodesets
        .values()
        .map(|set| set.partition.as_str())
        .collect();
    // Root's is never exported.
    let exported = |user: &&str| settings.guest.homes && *user != "root";
    let home = |user: &str| Some(user).filter(exported).and_then(home_of);
    judge(&slurm.work_dirs(partitions), &config.shared_folders(), &home)
}

/// `home` tells the exported home of a user.
fn judge(
    jobs: &Result<Vec<WorkDir>, SlurmError>,
    shared: &[PathBuf],
    home: &dyn Fn(&str) -> Option<PathBuf>,
) -> Option<Finding> {
    let jobs = match jobs {
        Ok(jobs) => jobs,
        Err(error) => return Some(Finding::warn(WHAT, error.to_string()).unless_denied(error.is_denied())),
    };
    let below = |folder: &Path, place: &PathBuf| folder.starts_with(place);
    let sees = |job: &WorkDir| {
        shared.iter().any(|place| below(&job.folder, place))
            || home(&job.user).is_some_and(|place| below(&job.folder, &place))
    };
    let blind: Vec<&WorkDir> = jobs.iter().filter(|job| !sees(job)).collect();
    let first = blind.first()?;
    let others = match blind.len() - 1 {
        0 => String::new(),
        1 => ", and another job does".to_owned(),
        more => format!(", and {more} other jobs do"),
    };
    let text = format!(
        "job {} runs in {}, which its VM does not see{others}: what is written there is lost with the VM",
        first.job,
        first.folder.display()
    );
    Some(Finding::warn(WHAT, text).advice(REMEDY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use thiao_core::ids::JobId;

    #[test]
    fn only_jobs_that_would_lose_what_they_write_are_named() {
        let job = |id, user: &str, folder: &str| WorkDir {
            job: JobId(id),
            user: user.to_owned(),
            folder: folder.into(),
        };
        let shared = [PathBuf::from("/opt/site")];
        let home = |user: &str| (user == "ada").then(|| PathBuf::from("/home/ada"));
        let fine = vec![job(1, "ada", "/home/ada/x"), job(2, "bob", "/opt/site")];
        assert_eq!(judge(&Ok(fine.clone()), &shared, &home), None);
        let mut all = fine;
        all.push(job(3, "bob", "/home/bob"));
        let found = judge(&Ok(all.clone()), &shared, &home).unwrap();
        assert_eq!(
            found.text,
            "job 3 runs in /home/bob, which its VM does not see: what is written there is lost with the VM"
        );
        all.push(job(4, "ada", "/home/adam"));
        let found = judge(&Ok(all), &shared, &home).unwrap();
        assert!(found.text.contains(", and another job does: "), "{}", found.text);
    }
}
