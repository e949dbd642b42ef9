//! Whether all came out right: each check says what it looked at, and fails
//! with what it found instead.

use super::track::{Step, Story, Track};
use crate::plan::{OVERHEAD_MB, Plan};
use crate::slurm_log::Moment;
use std::collections::{BTreeMap, BTreeSet};

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What should hold, for people.
    pub what: String,
    /// What was found wrong; none: it holds.
    pub wrong: Option<String>,
}

/// What a check is measured against.
pub struct Expected<'a> {
    pub plan: &'a Plan,
    /// This machine's own host name.
    pub host: String,
    /// Seconds since the demo began: no VM is older.
    pub age_s: u64,
}

/// All checks of the findings of jobs on nodes of power-saving mode.
pub fn of_jobs(story: &Story, expected: &Expected<'_>) -> Vec<Check> {
    let options = &expected.plan.options;
    let memory = options.memory_mb * 9 / 10..=options.memory_mb + OVERHEAD_MB;
    let mut checks = of_any_jobs(story, expected);
    checks.extend([
        no_host_twice(story, &expected.host),
        proofs(
            &format!("each VM has {} CPU(s)", options.cpus),
            story,
            |_, proof| proof.number("cpus") == Some(u64::from(options.cpus)),
            "cpus",
        ),
        proofs(
            &format!(
                "each VM has the memory of its node, {} MiB, and not this machine's",
                options.memory_mb
            ),
            story,
            |_, proof| proof.number("memory_mb").is_some_and(|mb| memory.contains(&mb)),
            "memory_mb",
        ),
    ]);
    checks
}

/// The checks that hold in both modes.
pub fn of_any_jobs(story: &Story, expected: &Expected<'_>) -> Vec<Check> {
    vec![
        check("every job completed", story, |track| {
            (track.state != "COMPLETED").then(|| format!("state {}", track.state))
        }),
        check(
            "each job's output is in the home folder, owned by its user",
            story,
            |track| {
                (track.output.uid != Some(track.job.user.uid))
                    .then(|| format!("{} is of uid {:?}", track.job.output.display(), track.output.uid))
            },
        ),
        check("every node of a job ran a task", story, |track| {
            let ran: BTreeSet<&str> = track
                .output
                .proofs
                .values()
                .map(|proof| proof.text("host"))
                .collect();
            let nodes: BTreeSet<&str> = track.nodes.iter().map(String::as_str).collect();
            (ran != nodes || ran.len() != track.job.nodes as usize)
                .then(|| format!("its nodes are {nodes:?}, tasks ran on {ran:?}"))
        }),
        proofs(
            "the VMs are younger than this demo",
            story,
            |_, proof| {
                proof
                    .number("uptime_s")
                    .is_some_and(|uptime| uptime <= expected.age_s)
            },
            "uptime_s",
        ),
        proofs(
            "tasks run as their job's user, not as root",
            story,
            |track, proof| {
                let user = &track.job.user;
                proof.number("uid") == Some(user.uid.into()) && proof.text("user") == user.name
            },
            "uid",
        ),
        proofs(
            "a task sees its own job's processes",
            story,
            |_, proof| proof.number("own").is_some_and(|own| own >= 1),
            "own",
        ),
        proofs(
            "a task sees no other job's processes",
            story,
            |_, proof| proof.number("foreign") == Some(0),
            "foreign",
        ),
        proofs(
            "a task sees no other user's processes",
            story,
            |_, proof| proof.number("others") == Some(0),
            "others",
        ),
    ]
}

/// The check after the jobs: nodes and VMs are given back.
pub fn of_return(story: &Story, states: &BTreeMap<String, String>, vms: usize) -> Vec<Check> {
    let used: BTreeSet<&String> = story.tracks.iter().flat_map(|track| &track.nodes).collect();
    let away: Vec<String> = used
        .iter()
        .filter_map(|node| states.get(*node).map(|state| (node, state)))
        .filter(|(_, state)| *state != "idle~")
        .map(|(node, state)| format!("{node} is {state}"))
        .collect();
    vec![
        Check {
            what: "every node is back to idle~ (powered down, ready for the next job)".to_owned(),
            wrong: (!away.is_empty() || used.is_empty()).then(|| away.join(", ")),
        },
        Check {
            what: "every VM is gone".to_owned(),
            wrong: (vms > 0).then(|| format!("{vms} are left")),
        },
    ]
}

/// A check of every job that was not taken back.
pub fn check(what: &str, story: &Story, mut wrong: impl FnMut(&Track) -> Option<String>) -> Check {
    let found: Vec<String> = story
        .tracks
        .iter()
        .filter(|track| !track.cancelled)
        .filter_map(|track| wrong(track).map(|wrong| format!("{}: {wrong}", track.job.name)))
        .collect();
    Check {
        what: what.to_owned(),
        wrong: (!found.is_empty()).then(|| found.join("; ")),
    }
}

/// A check of every task; a job without any task's findings fails it.
pub fn proofs(
    what: &str,
    story: &Story,
    holds: impl Fn(&Track, &super::jobs::Proof) -> bool,
    key: &str,
) -> Check {
    check(what, story, |track| {
        if track.output.proofs.is_empty() {
            return Some("it wrote no findings".to_owned());
        }
        let wrong: Vec<String> = track
            .output
            .proofs
            .iter()
            .filter(|(_, proof)| !holds(track, proof))
            .map(|(task, proof)| format!("task {task} has {key}={}", proof.text(key)))
            .collect();
        (!wrong.is_empty()).then(|| wrong.join(", "))
    })
}

fn no_host_twice(story: &Story, host: &str) -> Check {
    let mut seen = BTreeSet::from([host]);
    let twice: Vec<&str> = story
        .tracks
        .iter()
        .flat_map(|track| track.output.proofs.values())
        .map(|proof| proof.text("host"))
        .filter(|name| name.is_empty() || !seen.insert(name))
        .collect();
    Check {
        what: format!("every task has a host of its own, none of them this one ({host})"),
        wrong: (!twice.is_empty()).then(|| format!("seen twice: {}", twice.join(", "))),
    }
}

/// How long Slurm took from the registration of a job's last node to the job's launch, in milliseconds.
pub fn gap(track: &Track, story: &Story) -> Option<i64> {
    let registered = story.last(track, Step::Registered)?;
    let launched = *track.moments.get(&Moment::Launched)?;
    Some(launched.cast_signed() - registered.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::jobs::{Job, Output};

    fn story(text: &str) -> Story {
        let mut story = Story::default();
        let job = Job {
            id: 1,
            task: None,
            name: "one".into(),
            user: plan().submitter().clone(),
            nodes: 1,
            size: None,
            submitted: 0,
            output: "/x".into(),
        };
        story.submitted(job, "sbatch");
        let track = &mut story.tracks[0];
        track.nodes = vec!["vm1".into()];
        track.state = "COMPLETED".into();
        track.output = Output {
            uid: Some(1000),
            ..crate::demo::jobs::parse(text.to_owned())
        };
        story
    }

    fn plan() -> Plan {
        serde_json::from_value(serde_json::json!({
            "options": {"nodes": 8, "cpus": 1, "memory_mb": 200, "hosts": 2, "accel": "auto", "cold": false,
                "slurmctld_port": 6817, "slurmd_port": 6818, "address": "10.127.0.1", "prefix_len": 16, "boot_timeout": 60},
            "owner": {"name": "ada", "uid": 1000, "gid": 1000}, "submitters": [{"name": "ada", "uid": 1000, "gid": 1000}],
            "largest_job": {"cpus": 4, "memory_mb": 800},
            "host_cpus": 4, "host_memory_mb": 2000, "cache_dir": "/c", "thiao": "/t", "thiaod": "/d", "keeper": "/k", "hook": "/h", "agent": "/a", "ephemeral": true
        }))
        .unwrap()
    }

    const GOOD: &str =
        "host=vm1\nuptime_s=9\ncpus=1\nmemory_mb=230\nuid=1000\nuser=ada\nown=1\nforeign=0\nothers=0\n";

    fn failures(text: &str) -> Vec<String> {
        let plan = plan();
        let expected = Expected {
            plan: &plan,
            host: "here".into(),
            age_s: 60,
        };
        of_jobs(&story(text), &expected)
            .into_iter()
            .filter(|check| check.wrong.is_some())
            .map(|check| check.what)
            .collect()
    }

    #[test]
    fn a_good_proof_passes_everything() {
        assert_eq!(failures(GOOD), Vec::<String>::new());
    }

    #[test]
    fn each_wrong_finding_fails_its_check() {
        for (right, wrong, fails) in [
            ("host=vm1", "host=here", 2),
            ("uptime_s=9", "uptime_s=9000", 1),
            ("cpus=1", "cpus=64", 1),
            ("memory_mb=230", "memory_mb=24000", 1),
            ("uid=1000", "uid=0", 1),
            ("own=1", "own=0", 1),
            ("foreign=0", "foreign=1", 1),
            ("foreign=0", "", 1),
            ("others=0", "others=2", 1),
        ] {
            assert_eq!(failures(&GOOD.replace(right, wrong)).len(), fails, "{wrong}");
        }
        assert!(failures("").len() >= 7);
    }

    #[test]
    fn a_node_that_stays_up_is_seen() {
        let story = story(GOOD);
        let states = BTreeMap::from([("vm1".to_owned(), "idle".to_owned())]);
        let checks = of_return(&story, &states, 1);
        assert!(checks.iter().all(|check| check.wrong.is_some()));
        let states = BTreeMap::from([("vm1".to_owned(), "idle~".to_owned())]);
        assert!(
            of_return(&story, &states, 0)
                .iter()
                .all(|check| check.wrong.is_none())
        );
    }
}
