//! What an image of the site's own lacks, by what it answered: pure.

use thiao_core::finding::Finding;
use thiao_qemu::trial::Answers;
use thiao_slurm::Version;

/// What the cluster asks of an image.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// slurmctld's version, if it is known.
    pub slurmctld: Option<Version>,
    /// The number of Slurm's user, if it is known.
    pub slurm_uid: Option<u32>,
    /// Whether Slurm's credentials are munge's.
    pub munge: bool,
}

/// Programs, what they are for, and in which package of Debian's they are.
const PROGRAMS: [(&str, &str, &str); 6] = [
    ("systemctl", "it starts slurmd", "systemd"),
    ("slurmd", "jobs need it", "slurmd"),
    ("slurmstepd", "jobs need it", "slurmd"),
    ("srun", "jobs start their steps by it", "slurm-client"),
    ("scontrol", "jobs ask by it", "slurm-client"),
    ("useradd", "users are made known by it", "passwd"),
];

/// Judges an image by its answers.
#[must_use]
pub fn judge(answers: &Answers, wanted: Wanted) -> Vec<Finding> {
    let said = |word: &str| {
        answers
            .lines
            .iter()
            .find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
    };
    let (Some(kernel), Some(system)) = (said("kernel"), said("system")) else {
        return vec![
            Finding::bad(
                "start",
                format!(
                    "it did not say anything within {} s; its console: {}",
                    answers.took.as_secs(),
                    answers.last_words
                ),
            )
            .advice(
                "it must start by itself on a machine with a BIOS, have a virtio disk and card, show its console on \
                 ttyS0, and have cloud-init with the source NoCloud",
            ),
        ];
    };
    let took = answers.took.as_secs();
    let mut found = vec![Finding::ok(
        "start",
        format!("{system}, kernel {kernel}: it answered after {took} s"),
    )];
    let has = |name: &str| answers.lines.iter().any(|line| *line == format!("has {name}"));
    let lacking = |name: &str, why: &str, package: &str| {
        Finding::bad(name, format!("is not in it: {why}")).advice(format!("install {package} in it"))
    };
    let programs = PROGRAMS.iter().filter(|(name, ..)| !has(name));
    found.extend(programs.map(|(name, why, package)| lacking(name, why, package)));
    if wanted.munge && !has("munged") {
        found.push(lacking(
            "munged",
            "the cluster's daemons know each other by it",
            "munge",
        ));
    }
    if !has("nfs") {
        found.push(
            Finding::warn("nfs", "its kernel cannot mount users' folders")
                .advice("install a kernel with the module nfsv3 in it"),
        );
    }
    found.extend(said("slurm").and_then(|text| version(text, wanted.slurmctld)));
    found.extend(said("slurm_uid").and_then(|text| slurm_user(text, wanted.slurm_uid)));
    found.extend(said("cgroup").map(cgroups));
    found
}

/// A slurmd must not be newer than slurmctld.
fn version(text: &str, slurmctld: Option<Version>) -> Option<Finding> {
    let version = Version::parse(text)?;
    let Some(slurmctld) = slurmctld else {
        return Some(Finding::warn(
            "slurm",
            format!("it has {version}; slurmctld's version is not known"),
        ));
    };
    let release = |version: Version| (version.major, version.minor);
    Some(match release(version) > release(slurmctld) {
        true => Finding::bad(
            "slurm",
            format!("it has {version}: slurmctld is {slurmctld}, and refuses a newer slurmd"),
        )
        .advice("install Slurm of slurmctld's release, or of one just before it"),
        false => Finding::ok("slurm", format!("it has {version}, and slurmctld is {slurmctld}")),
    })
}

/// slurmd knows slurmctld by the number of Slurm's user.
fn slurm_user(text: &str, wanted: Option<u32>) -> Option<Finding> {
    let wanted = wanted?;
    match text.parse::<u32>() {
        Ok(uid) if uid == wanted => Some(Finding::ok(
            "slurm's user",
            format!("has the cluster's number, {uid}"),
        )),
        Ok(uid) => Some(
            Finding::bad(
                "slurm's user",
                format!("has the number {uid}; the cluster's has {wanted}, and slurmd refuses it"),
            )
            .advice(format!(
                "give it the number {wanted} in the image: usermod -u {wanted} slurm"
            )),
        ),
        // Its VMs are told it.
        Err(_) => None,
    }
}

fn cgroups(text: &str) -> Finding {
    match text {
        "cgroup2fs" => Finding::ok("cgroups", "are of version 2"),
        other => Finding::warn(
            "cgroups",
            format!("/sys/fs/cgroup is {other}: of version 2 it would be cgroup2fs"),
        )
        .advice("start its kernel with systemd.unified_cgroup_hierarchy=1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use thiao_core::finding::Verdict;

    const GOOD: &str = "kernel 6.1\nsystem Debian\nhas systemctl\nhas slurmd\nhas slurmstepd\nhas srun\n\
                        has scontrol\nhas munged\nhas useradd\nhas nfs\nslurm slurm-wlm 22.05.8\nslurm_uid 64030\n\
                        cgroup cgroup2fs\nend";

    fn verdicts(lines: &str) -> Vec<(Verdict, String)> {
        let answers = Answers {
            lines: lines.lines().map(str::to_owned).collect(),
            last_words: "GRUB".into(),
            took: Duration::from_secs(40),
        };
        let wanted = Wanted {
            slurmctld: Some(Version::new(22, 5, 8)),
            slurm_uid: Some(64030),
            munge: true,
        };
        judge(&answers, wanted)
            .into_iter()
            .filter(|finding| finding.verdict != Verdict::Ok)
            .map(|finding| (finding.verdict, format!("{}: {}", finding.what, finding.text)))
            .collect()
    }

    #[test]
    fn what_an_image_lacks_is_told() {
        assert_eq!(verdicts(GOOD), []);
        let one = |from: &str, to: &str| {
            let found = verdicts(&GOOD.replace(from, to));
            assert_eq!(found.len(), 1, "{found:?}");
            found.into_iter().next().unwrap()
        };
        let (verdict, text) = one("has munged", "lacks munged");
        assert!(
            verdict == Verdict::Bad && text.starts_with("munged: is not in it"),
            "{text}"
        );
        let (verdict, text) = one("22.05.8", "24.11.5");
        assert!(
            verdict == Verdict::Bad && text.contains("refuses a newer slurmd"),
            "{text}"
        );
        assert_eq!(one("64030", "999").0, Verdict::Bad);
        assert_eq!(one("cgroup2fs", "tmpfs").0, Verdict::Warn);
        assert_eq!(one("has nfs", "lacks nfs").0, Verdict::Warn);
    }

    #[test]
    fn one_that_says_nothing_is_told_by_its_console() {
        let found = verdicts("");
        assert!(found.len() == 1 && found[0].1.contains("GRUB"), "{found:?}");
    }
}
