//! Keys of `slurm.conf` that do not go together with nodes that are VMs: when, how badly, why, and what
//! mends it, as data. They hold for the whole cluster: Slurm has none of them per node or partition.
//!
//! The first rows of the table were seen with one job on a slurmd that lacked what is named (22.05.8, 24.11.5,
//! 26.05.5). Those behind them were not tried with a guest: they follow from what a guest is without, and
//! what they say to people does not claim more.

use crate::info::Config;
use std::path::{Component, Path, PathBuf};
use thiao_core::finding::{Finding, Verdict};

/// Whose guests a key harms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guests {
    /// Those that have slurmd, busybox and no more.
    Small,
    /// Those that Thiao makes: of the site's own programs they have what was asked for.
    Own,
    /// A site's images too.
    Any,
}

/// When a key harms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// It has a value.
    Set,
    /// It names a program that is in no folder that guests share.
    Lacking,
    /// Its list has this word.
    Has(&'static str),
    /// Its value is none of these.
    Not(&'static [&'static str]),
}

struct Key {
    name: &'static str,
    when: When,
    guests: Guests,
    verdict: Verdict,
    why: &'static str,
    cure: &'static str,
}

/// What mends programs that guests lack.
const SHARE: &str = "give the guests the folder of the program and of all that it calls ([[qemu.share]] in \
                     thiao.toml), or take the key out of slurm.conf";
const WORDS: &str = "change it in slurm.conf, then restart slurmctld";

const fn own(name: &'static str, when: When, verdict: Verdict, why: &'static str, cure: &'static str) -> Key {
    Key {
        name,
        when,
        guests: Guests::Own,
        verdict,
        why,
        cure,
    }
}

const fn small(
    name: &'static str,
    when: When,
    verdict: Verdict,
    why: &'static str,
    cure: &'static str,
) -> Key {
    Key {
        name,
        when,
        guests: Guests::Small,
        verdict,
        why,
        cure,
    }
}

const fn any(name: &'static str, when: When, verdict: Verdict, why: &'static str, cure: &'static str) -> Key {
    Key {
        name,
        when,
        guests: Guests::Any,
        verdict,
        why,
        cure,
    }
}

const TOPOLOGY: &str = "TopologyPlugin";
/// Its values that know no switches.
const FLAT: &[&str] = &["topology/none", "topology/default", "topology/flat"];

/// Whether nodes must be named in `topology.conf`.
#[must_use]
pub fn has_topology(present: &Config) -> bool {
    present
        .get(TOPOLOGY)
        .is_some_and(|plugin| !FLAT.contains(&plugin))
}

const KEYS: &[Key] = &[
    // Seen.
    own(
        "Prolog",
        When::Lacking,
        Verdict::Bad,
        "slurmd runs it before each job, and a guest has no such file: the job is held (launch failed requeued \
         held), its node drained (Prolog error)",
        SHARE,
    ),
    own(
        "Epilog",
        When::Lacking,
        Verdict::Bad,
        "slurmd runs it after each job, and a guest has no such file: the node is drained (Epilog error)",
        SHARE,
    ),
    own(
        "TaskProlog",
        When::Lacking,
        Verdict::Bad,
        "it runs before each task, and a guest has no such file: the job fails",
        SHARE,
    ),
    own(
        "TaskEpilog",
        When::Lacking,
        Verdict::Warn,
        "it runs after each task, and a guest has no such file: each job's output gets lines of errors",
        SHARE,
    ),
    own(
        "SrunProlog",
        When::Lacking,
        Verdict::Warn,
        "srun runs it where it is called, and a guest has no such file: batch jobs that call srun get a line of \
         errors and go on without it",
        SHARE,
    ),
    own(
        "SrunEpilog",
        When::Lacking,
        Verdict::Warn,
        "srun runs it where it is called, and a guest has no such file: batch jobs that call srun get a line of \
         errors and go on without it",
        SHARE,
    ),
    any(
        "HealthCheckProgram",
        When::Set,
        Verdict::Warn,
        "slurmd runs it in VMs too: a check of hardware, or of a mount that VMs do not have, drains them; without \
         the file nothing is checked",
        "let it do nothing on Thiao's nodes (it has SLURMD_NODENAME)",
    ),
    small(
        "MpiDefault",
        When::Not(&["none", "pmi2"]),
        Verdict::Bad,
        "guests have no such library: each srun fails there (Couldn't load specified plugin)",
        "write MpiDefault=pmi2 or none; on other nodes users then say srun --mpi=...",
    ),
    small(
        "PrologFlags",
        When::Has("X11"),
        Verdict::Warn,
        "guests have no xauth: srun --x11 fails there, and proctrack/linuxproc, which they need, does not go \
         together with it",
        "take X11 out of it",
    ),
    any(
        TOPOLOGY,
        When::Not(FLAT),
        Verdict::Bad,
        "topology.conf does not name all of Thiao's nodes, and jobs for the others are refused (Requested node \
         configuration is not available)",
        "name Thiao's nodes in topology.conf, under a switch of their own, then restart slurmctld",
    ),
    any(
        "PreemptMode",
        When::Has("SUSPEND"),
        Verdict::Warn,
        "a suspended job keeps its VM, in which no other runs: what preempts it waits all the same",
        "write PreemptMode=REQUEUE, or give no partition a higher PriorityTier than Thiao's",
    ),
    // Not tried with a guest.
    small(
        "JobContainerType",
        When::Not(&["none", "job_container/none"]),
        Verdict::Warn,
        "guests have no folders for job_container.conf (not tried with them)",
        WORDS,
    ),
    small(
        "NamespaceType",
        When::Set,
        Verdict::Warn,
        "guests have no folders for namespace.yaml (not tried with them)",
        WORDS,
    ),
    small(
        "UsePAM",
        When::Not(&["0", "no"]),
        Verdict::Warn,
        "guests have no PAM to ask (not tried with them)",
        WORDS,
    ),
    own(
        "PlugStackConfig",
        When::Set,
        Verdict::Warn,
        "guests have no SPANK plugins: a job may fail there if one is required (not tried with them)",
        "make them optional in plugstack.conf",
    ),
    small(
        "NodeFeaturesPlugins",
        When::Set,
        Verdict::Warn,
        "guests have no node features to change, and none of its programs (not tried with them)",
        WORDS,
    ),
    small(
        "AcctGatherEnergyType",
        When::Not(&["none", "acct_gather_energy/none"]),
        Verdict::Warn,
        "guests have no such sensors (not tried with them)",
        WORDS,
    ),
    small(
        "SwitchType",
        When::Not(&["none", "switch/none", "switch/generic"]),
        Verdict::Warn,
        "guests have no such network (not tried with them)",
        WORDS,
    ),
    small(
        "LaunchParameters",
        When::Has("disable_send_gids"),
        Verdict::Warn,
        "guests know their users' own group only: jobs can be in no other there (not tried with them)",
        "take disable_send_gids out of it",
    ),
    small(
        "ProctrackType",
        When::Has("proctrack/cgroup"),
        Verdict::Bad,
        "guests have no control groups: slurmd may not start there (not tried with them)",
        "write ProctrackType=proctrack/linuxproc",
    ),
    small(
        "TaskPlugin",
        When::Has("task/cgroup"),
        Verdict::Bad,
        "guests have no control groups: slurmd may not start there (not tried with them)",
        "write TaskPlugin=task/none, or what it has without task/cgroup",
    ),
    small(
        "JobAcctGatherType",
        When::Has("jobacct_gather/cgroup"),
        Verdict::Bad,
        "guests have no control groups: slurmd may not start there (not tried with them)",
        "write JobAcctGatherType=jobacct_gather/none",
    ),
    // Shown only where something of Slurm's uses cgroups (22.05.8): what comes next after setup tells it always.
    small(
        "CgroupPlugin",
        When::Not(&["cgroup/v1", "disabled"]),
        Verdict::Bad,
        "guests have no control groups, for which slurmd then looks (not tried with them)",
        "write CgroupPlugin=cgroup/v1 into cgroup.conf",
    ),
];

/// What the table does not know of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes {
    /// Some have small guests, without control groups.
    pub small_guests: bool,
    /// Some have guests that Thiao makes: small ones, or of an image that it built.
    pub own_guests: bool,
    /// The folders of the site's that guests see, by their paths there.
    pub shared: Vec<PathBuf>,
    /// Slurm's topology has all of them.
    pub in_topology: bool,
}

/// What of this configuration harms, each with its cure.
#[must_use]
pub fn harmful(present: &Config, nodes: &Nodes) -> Vec<Finding> {
    let concerns = |key: &&Key| {
        let guests = match key.guests {
            Guests::Small => nodes.small_guests,
            Guests::Own => nodes.own_guests,
            Guests::Any => true,
        };
        guests && !(nodes.in_topology && key.name == TOPOLOGY)
    };
    KEYS.iter()
        .filter(concerns)
        .filter_map(|key| {
            let value = found(present, key, nodes)?;
            let text = format!("{} is {value}: {}", key.name, key.why);
            Some(Finding::new("slurm.conf", key.verdict, text).advice(key.cure))
        })
        .collect()
}

/// The value by which a key harms.
fn found(present: &Config, key: &Key, nodes: &Nodes) -> Option<String> {
    let mut values = present.values(key.name);
    if key.when == When::Lacking {
        values.retain(|program| !nodes.see(Path::new(program)));
    }
    let value = values.join(",");
    let harms = match key.when {
        When::Set | When::Lacking => !values.is_empty(),
        When::Has(word) => present.has(key.name, word),
        When::Not(good) => !values.is_empty() && !good.iter().any(|good| value.eq_ignore_ascii_case(good)),
    };
    harms.then_some(value)
}

impl Nodes {
    /// Whether a program of the site's, or a pattern of several, is in a folder that guests see.
    fn see(&self, program: &Path) -> bool {
        let leaves = program.components().any(|part| part == Component::ParentDir);
        !leaves && self.shared.iter().any(|dir| program.starts_with(dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str, own_guests: bool) -> Vec<(Verdict, String)> {
        named_where(text, own_guests, false)
    }

    fn named_where(text: &str, own_guests: bool, in_topology: bool) -> Vec<(Verdict, String)> {
        let nodes = Nodes {
            small_guests: own_guests,
            own_guests,
            shared: Vec::new(),
            in_topology,
        };
        named_of(text, &nodes)
    }

    fn named_of(text: &str, nodes: &Nodes) -> Vec<(Verdict, String)> {
        harmful(&Config::parse(text), nodes)
            .into_iter()
            .map(|finding| {
                assert!(finding.remedy.is_some(), "{finding:?}");
                (
                    finding.verdict,
                    finding.text.split(':').next().unwrap().to_owned(),
                )
            })
            .collect()
    }

    #[test]
    fn what_slurm_has_by_itself_harms_nothing() {
        for text in [
            include_str!("../tests/data/config/22.05.txt"),
            include_str!("../tests/data/config/24.11.txt"),
            include_str!("../tests/data/config/26.05.txt"),
        ] {
            assert!(Config::parse(text).get("SlurmctldPort").is_some());
            assert_eq!(named(text, true), [], "{text}");
        }
    }

    #[test]
    fn what_harms_is_named_with_its_cure() {
        let bad = |name: &str| vec![(Verdict::Bad, name.to_owned())];
        assert_eq!(
            named("Prolog = /etc/slurm/prolog.d/*\n", true),
            bad("Prolog is /etc/slurm/prolog.d/*")
        );
        // As 24.05 and later list them.
        assert_eq!(
            named("Prolog[0] = /a\nProlog[1] = /b\nPrologSlurmctld[0] = /c\n", true),
            bad("Prolog is /a,/b")
        );
        assert_eq!(named("MpiDefault = pmix\n", true), bad("MpiDefault is pmix"));
        assert_eq!(named("MpiDefault = pmi2\nUsePAM = No\n", true), []);
        assert_eq!(
            named("TaskPlugin = task/affinity,task/cgroup\n", true),
            bad("TaskPlugin is task/affinity,task/cgroup")
        );
        // A site's own images have what its other nodes have.
        assert_eq!(named("Prolog = /p\nTaskPlugin = task/cgroup\n", false), []);
        assert_eq!(named("TopologyPlugin = topology/tree\n", false).len(), 1);
        assert_eq!(named_where("TopologyPlugin = topology/tree\n", false, true), []);
    }

    #[test]
    fn programs_in_a_shared_folder_harm_nothing() {
        let nodes = Nodes {
            small_guests: true,
            own_guests: true,
            shared: vec!["/home/ada".into(), "/opt/site".into()],
            in_topology: false,
        };
        let there = "Prolog = /opt/site/prolog.d/*\nEpilog[0] = /opt/site/a\nEpilog[1] = /opt/site/b\n\
                     TaskProlog = /opt/site/taskprolog.sh\nTaskEpilog = /opt/site/e\nSrunProlog = /opt/site/p\n\
                     SrunEpilog = /opt/site/q\n";
        assert_eq!(named_of(there, &nodes), []);
        for (text, told) in [
            ("Prolog = /opt/sites/a\n", "Prolog is /opt/sites/a"),
            ("Prolog = /opt/site/../b\n", "Prolog is /opt/site/../b"),
            // Of several, those that guests lack.
            (
                "Prolog[0] = /opt/site/a\nProlog[1] = /etc/b\n",
                "Prolog is /etc/b",
            ),
        ] {
            assert_eq!(
                named_of(text, &nodes),
                [(Verdict::Bad, told.to_owned())],
                "{text}"
            );
        }
        // What a program is called for is another matter.
        let checked = named_of("HealthCheckProgram = /opt/site/check\n", &nodes);
        assert_eq!(checked.len(), 1);
    }
}
