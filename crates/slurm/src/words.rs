//! Slurm's reasons, of jobs and of nodes: its words become enums here, and nothing else knows them.
//!
//! *Of jobs*: what `squeue` prints as the reason is one of about two hundred words, or a sentence that
//! slurmctld puts in the place of some. Read from 22.05.8 (`job_reason_string` in slurm_protocol_defs.c) to
//! 26.05.3 (`job_state_reason_string` in job_state_reason.c). Of an array's tasks squeue puts the words
//! together, with commas, unless it lists them one by one.
//!
//! On 23.11.11 a job at the gate was seen with `None`, then `InvalidAccount` for a second, then `Licenses`.
//!
//! *Of nodes*: `scontrol update` puts a reason in the place of any other. What slurmctld itself says goes
//! in the place of another at ResumeTimeout and is else lost (22.05.8), or is put behind it: `a look at it :
//! ResumeTimeout reached` (`set_node_reason`, 23.02 and later), once. RESUME keeps the reason in 23.11 to
//! 25.11, until a job gets the node; so the last is the one that counts.

use thiao_core::view::REASON_PREFIX;
use thiao_core::view::{JobReason, NodeReason, WaitsFor, Whose};

/// Longest text given to a job or as a reason, in bytes.
const MAX_TEXT: usize = 500;

/// Between a node's reason and the one that slurmctld puts behind it.
const BEHIND: &str = " : ";

/// What slurmctld says of a node that was not up in time.
const RESUME_TIMEOUT: &str = "ResumeTimeout reached";

/// What it says of one whose slurmd does not answer.
const SILENCE: &str = "Not responding";

/// What slurmd, its steps (`stepd_drain_node`) and slurmctld (`drain_nodes`) drain a node for that went wrong in the VM
/// which it has, word by word, 22.05.8 to 26.05.3. Not among them is what the next VM would have as well: that it
/// registers with less than slurm.conf says (`Low RealMemory ...`, `Low CPUs`, `Low TmpDisk`, GPUs), `Bad core count`,
/// `NO NETWORK ADDRESS FOUND`; and what a site's programs say, as that of HealthCheckProgram.
const OF_ITS_VM: [&str; 10] = [
    "SlurmdSpoolDir is full",
    "Kill task failed",
    "Job step not running",
    "Job env setup error",
    "Prolog error",
    "Epilog error",
    "Prolog/Epilog failure",
    "Duplicate jobid",
    "batch job complete failure",
    "switch_g_job_postfini failed",
];

/// The beginnings of slurmctld's sentences about jobs, and of its words with more behind them.
const SENTENCES: [(&str, WaitsFor); 5] = [
    ("Nodes required for job are DOWN, DRAINED", WaitsFor::Nodes),
    ("ReqNodeNotAvail", WaitsFor::NamedNodes),
    ("Job is at or exceeds ", WaitsFor::Other),
    ("Reservation ", WaitsFor::Other),
    ("job requeued in held state", WaitsFor::Release),
];

/// The words that say that a job waits for something of Slurm's that is nothing to us.
const OTHERS: &str = "\
AccountNotAllowed AccountingPolicy BadConstraints BlockFreeAction BlockMaxError BurstBufferOperation \
BurstBufferResources BurstBufferStageIn Constraints DeadLine Dependency DependencyNeverSatisfied FedJobLock \
FrontEndDown InactiveLimit InvaildReason InvalidAccount InvalidQOS InvalidReason JobArrayTaskLimit JobHeldUser \
JobHoldMaxRequeue JobLaunchFailure MaxMemPerLimit MaxPoweredUpNodes MpiPortsBusy NodeDown NonZeroExitCode \
NvidiaImexChannels OutOfMemory PartitionConfig PartitionDown PartitionInactive PartitionNodeLimit \
PartitionTimeLimit PowerNotAvail PowerReserved Prolog RaisedSignal Reservation ReservationDeleted \
ReservationInvalid SchedDefer SystemFailure TimeLimit";

/// Limits of accounting have many words, which begin and go on like this.
const LIMITS: [(&str, &[&str]); 4] = [
    (
        "QOS",
        &[
            "Grp",
            "Max",
            "Min",
            "Job",
            "Resource",
            "Time",
            "Usage",
            "NotAllowed",
        ],
    ),
    ("Assoc", &["Grp", "Max", "iation"]),
    (
        "Max",
        &[
            "BB", "Billing", "Cpu", "Energy", "GRES", "License", "Memory", "Node", "Unknown",
        ],
    ),
    ("Max", &["JobsPerAccount", "SubmitJobsPerAccount"]),
];

/// Whether squeue's word tells a reason at all.
#[must_use]
pub fn is_reason(text: &str) -> bool {
    !matches!(text, "" | "None")
}

/// Reads what squeue prints as a job's reason.
#[must_use]
pub fn job_reason(text: &str) -> JobReason {
    let text = text.trim();
    let mut waits = Vec::new();
    for word in pieces(text) {
        match waits_for(word) {
            None => {}
            // Behind "UnavailableNodes:" come the nodes' names.
            Some(WaitsFor::Unknown(_)) if waits.contains(&WaitsFor::NamedNodes) => {}
            Some(what) => waits.push(what),
        }
    }
    JobReason {
        text: text.to_owned(),
        waits,
    }
}

/// The words of a list; a comma with a space behind it is a sentence's.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let all = rest?;
        let mut commas = all.match_indices(',').map(|(at, _)| at);
        let end = commas.find(|at| !all[at + 1..].starts_with(' '));
        rest = end.map(|at| &all[at + 1..]);
        Some(&all[..end.unwrap_or(all.len())])
    })
}

/// What one word, or a sentence, says; nothing if it says nothing.
fn waits_for(word: &str) -> Option<WaitsFor> {
    if !is_reason(word) {
        return None;
    }
    Some(match word {
        "Licenses" => WaitsFor::Licenses,
        "Priority" => WaitsFor::Turn,
        "Resources" => WaitsFor::Nodes,
        "Cleaning" => WaitsFor::Cleaning,
        "BeginTime" => WaitsFor::BeginTime,
        "JobHeldAdmin" => WaitsFor::Release,
        _ if OTHERS.split(' ').any(|other| other == word) || is_limit(word) => WaitsFor::Other,
        _ => match SENTENCES.iter().find(|(begin, _)| word.starts_with(begin)) {
            Some((_, what)) => what.clone(),
            None => WaitsFor::Unknown(word.to_owned()),
        },
    })
}

fn is_limit(word: &str) -> bool {
    LIMITS.iter().any(|(begin, next)| {
        let rest = word.strip_prefix(begin);
        rest.is_some_and(|rest| next.iter().any(|next| rest.starts_with(next)))
    })
}

/// Reads a node's `Reason` as sinfo prints it: nothing for Slurm's words for "none". sinfo adds nothing to it,
/// unlike `scontrol show node`.
#[must_use]
pub fn node_reason(text: &str) -> Option<NodeReason> {
    let text = text.trim();
    if text.is_empty() || text.eq_ignore_ascii_case("none") || text == "(null)" {
        return None;
    }
    let last = text.rsplit(BEHIND).next().unwrap_or(text);
    let whose = match last {
        RESUME_TIMEOUT => Whose::ResumeTimeout,
        // Behind another person's word it says nothing of why the node is kept.
        SILENCE if text == SILENCE || text.starts_with(REASON_PREFIX) => Whose::Silence,
        _ if last.starts_with(REASON_PREFIX) => Whose::Ours,
        _ if is_of_its_vm(last) && (text == last || text.starts_with(REASON_PREFIX)) => Whose::ItsVm,
        _ => Whose::Others,
    };
    Some(NodeReason {
        text: text.to_owned(),
        whose,
    })
}

/// Whether Slurm drains a node with these words for what went wrong in its VM. Newer ones name the step behind them:
/// `Kill task failed (JobId=7 StepId=batch)` (26.05.3).
fn is_of_its_vm(text: &str) -> bool {
    let of_step = |rest: &str| rest.is_empty() || (rest.starts_with(" (JobId=") && rest.ends_with(')'));
    OF_ITS_VM
        .iter()
        .any(|words| text.strip_prefix(words).is_some_and(of_step))
}

/// A reason of ours as it is given to Slurm, and read back: nothing in it looks as if slurmctld had put it
/// there later.
pub(crate) fn given_reason(reason: &str) -> String {
    let mut given = plain(reason);
    while given.contains(BEHIND) {
        given = given.replace(BEHIND, ": ");
    }
    given
}

/// One line of bounded length: what a person may see in a terminal.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_TEXT));
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if out.len() + c.len_utf8() > MAX_TEXT {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn waits(text: &str) -> Vec<WaitsFor> {
        let reason = job_reason(text);
        assert_eq!(reason.text, text);
        reason.waits
    }

    #[test]
    fn what_jobs_wait_for_is_understood() {
        use WaitsFor::*;
        let away =
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions";
        let rebooting = away.replace("DRAINED", "DRAINED, REBOOTING");
        for (text, wanted) in [
            ("None", vec![]),
            ("", vec![]),
            ("Licenses", vec![Licenses]),
            ("Priority", vec![Turn]),
            ("Resources", vec![Nodes]),
            (away, vec![Nodes]),
            (&rebooting, vec![Nodes]),
            (&format!("{away},Licenses"), vec![Nodes, Licenses]),
            ("Cleaning", vec![Cleaning]),
            ("BeginTime", vec![BeginTime]),
            ("JobHeldAdmin", vec![Release]),
            ("job requeued in held state", vec![Release]),
            ("JobHeldUser", vec![Other]),
            ("InvalidAccount", vec![Other]),
            ("Licenses,JobArrayTaskLimit", vec![Licenses, Other]),
            ("None,Priority", vec![Turn]),
            ("ReqNodeNotAvail", vec![NamedNodes]),
            ("ReqNodeNotAvail, Reserved for maintenance", vec![NamedNodes]),
            ("ReqNodeNotAvail, UnavailableNodes:n1,n2[3-4],x", vec![NamedNodes]),
            (
                "Reservation x, which this job was running under, has ended",
                vec![Other],
            ),
            (
                "Job is at or exceeds QOS q's group wall limit of 5 with 6",
                vec![Other],
            ),
            ("QOSMaxCpuPerUserLimit", vec![Other]),
            ("AssocGrpCpuLimit", vec![Other]),
            ("MaxNodeRunMinsPerUser", vec![Other]),
            ("Moonrise", vec![Unknown("Moonrise".into())]),
            ("Licenses,Moonrise", vec![Licenses, Unknown("Moonrise".into())]),
        ] {
            assert_eq!(waits(text), wanted, "{text}");
        }
    }

    #[test]
    fn every_word_that_a_version_has_is_known() {
        let words = include_str!("../tests/data/job-reasons.txt");
        let words: Vec<&str> = words.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(words.len() > 200, "{}", words.len());
        for word in words {
            let unknown = waits(word)
                .iter()
                .any(|what| matches!(what, WaitsFor::Unknown(_)));
            assert!(!unknown, "{word}");
        }
    }

    #[test]
    fn the_last_who_spoke_of_a_node_counts() {
        for (text, whose) in [
            ("thiao: its VM died", Whose::Ours),
            ("ResumeTimeout reached", Whose::ResumeTimeout),
            ("a look at it : ResumeTimeout reached", Whose::ResumeTimeout),
            ("thiao: no capacity : ResumeTimeout reached", Whose::ResumeTimeout),
            (
                "thiao: no capacity : Low RealMemory (reported:9 < 100.00% of configured:99)",
                Whose::Others,
            ),
            ("Not responding", Whose::Silence),
            ("thiao: no capacity : Not responding", Whose::Silence),
            ("disk broken : Not responding", Whose::Others),
            ("SlurmdSpoolDir is full", Whose::ItsVm),
            ("Kill task failed (JobId=7 StepId=batch)", Whose::ItsVm),
            (
                "thiao: ended with its job : batch job complete failure",
                Whose::ItsVm,
            ),
            ("disk broken : Kill task failed", Whose::Others),
            ("SlurmdSpoolDir is full again", Whose::Others),
            ("Kill task failed, look at it", Whose::Others),
            (
                "Low RealMemory (reported:9 < 100.00% of configured:99)",
                Whose::Others,
            ),
            ("Low TmpDisk", Whose::Others),
            ("ResumeTimeout reached : disk broken", Whose::Others),
            ("disk broken", Whose::Others),
            ("not thiao: no", Whose::Others),
        ] {
            let reason = node_reason(text).unwrap();
            assert_eq!((reason.text.as_str(), reason.whose), (text, whose));
        }
        for none in ["", " ", "none", "None", "(null)"] {
            assert_eq!(node_reason(none), None);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_reason(text in ".*") {
            let _ = job_reason(&text);
            let _ = node_reason(&text);
        }

        /// Whatever an error says that we pass on, the reason is read back as ours.
        #[test]
        fn our_reasons_are_read_as_ours(text in "( |:|a|ResumeTimeout reached|Not responding){0,12}") {
            let given = given_reason(&format!("{REASON_PREFIX} {text}"));
            prop_assert_eq!(node_reason(&given).unwrap().whose, Whose::Ours, "{}", given);
        }
    }
}
