//! What in a site's configuration does not go together with our lines.

use super::Fragment;
use crate::info::{Config, Version};
use crate::join;
use crate::names::HOOKS;
use crate::quirks::{OLDEST, Quirks};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longer than by Slurm's own defaults.
const LONG_PASS: Duration = Duration::from_secs(60);

/// Says where accounting goes to.
const ACCOUNTING: &str = "AccountingStorageType";

/// What does not go together; its text is a sentence that says what follows, without the stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// Slurm is older than what Thiao understands.
    TooOld(Version),
    /// A program of the site's, which `thiao setup` would join with ours, stands in its place.
    OtherProgram {
        /// The key in slurm.conf.
        key: &'static str,
        /// What it says now.
        theirs: String,
        /// What it should say.
        ours: PathBuf,
    },
    /// `idle_on_node_suspend` brings nodes back that Thiao set DOWN.
    IdleOnSuspend,
    /// SuspendTime holds for nodes that are not ours.
    SuspendTime,
    /// Releases like this one start no job that waits without accounting.
    NoAccounting(Version),
    /// `bf_licenses` makes the scheduler plan for job mode's licence.
    PlansForLicence,
    /// The scheduler takes longer than by Slurm's own defaults to look at every job, in job mode.
    LongPass(Duration),
    /// A SelectType that gives jobs whole nodes, in job mode.
    WholeNodes(String),
    /// Memory is not managed, in job mode.
    MemoryUnmanaged,
    /// `thiao setup` adds `config_overrides`, which concerns all nodes.
    ConfigOverrides,
    /// The scheduler is not the backfill one.
    NotBackfill,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooOld(version) => write!(
                f,
                "Slurm {version} is older than {OLDEST}, the first that Thiao understands"
            ),
            Self::OtherProgram { key, theirs, ours } => write!(
                f,
                "{key} is {theirs}, and not {}: `thiao setup` joins the two",
                ours.display()
            ),
            Self::IdleOnSuspend => f.write_str(
                "SlurmctldParameters has idle_on_node_suspend: nodes that Thiao sets DOWN come back before they \
                 can be backed; remove it if nothing else needs it",
            ),
            Self::SuspendTime => f.write_str(
                "SuspendTime is set for the whole cluster: nodes outside Thiao's partitions are suspended through \
                 Thiao's SuspendProgram, which refuses them; list them in SuspendExcNodes or set SuspendTime \
                 per partition only",
            ),
            Self::NoAccounting(version) => write!(
                f,
                "{ACCOUNTING} is not set, and without accounting the main scheduler of Slurm {version} starts no \
                 job that waits (InvalidAccount): the backfill scheduler starts some, and jobs of job mode can wait \
                 for ever; set up slurmdbd ({ACCOUNTING}=accounting_storage/slurmdbd), or upgrade Slurm to 24.11 or \
                 later"
            ),
            Self::PlansForLicence => f.write_str(
                "SchedulerParameters has bf_licenses: the scheduler then plans for the licence by which jobs of job \
                 mode wait for capacity, and starts others around a time that never comes; remove it",
            ),
            Self::LongPass(pass) => write!(
                f,
                "Slurm's scheduler may take {} s to look at every job: heterogeneous jobs of job mode, and those \
                 behind one that does not fit, wait as long; set bf_interval=1 in SchedulerParameters",
                pass.as_secs()
            ),
            Self::WholeNodes(select) => write!(
                f,
                "SelectType is {select}, which gives jobs whole nodes: every VM would be of the largest size; use \
                 select/cons_tres"
            ),
            Self::MemoryUnmanaged => f.write_str(
                "SelectTypeParameters does not manage memory: every VM would have the memory of its node's line; \
                 use CR_Core_Memory",
            ),
            Self::ConfigOverrides => f.write_str(
                "SlurmdParameters gets config_overrides, for VMs that are smaller than their nodes' lines: no node \
                 of this cluster is drained any more when it has less memory or CPUs than its line says",
            ),
            Self::NotBackfill => f.write_str(
                "SchedulerType is not sched/backfill: jobs reach ResumeProgram up to a second later",
            ),
        }
    }
}

impl Fragment {
    /// What in the configuration in effect does not go together with the fragment, in the order in which it is told.
    #[must_use]
    pub fn conflicts(&self, present: &Config) -> Vec<Conflict> {
        let version = self.version;
        let mut found = Vec::new();
        found.extend((version < OLDEST).then_some(Conflict::TooOld(version)));
        found.extend(programs(self, present));
        if present.has("SlurmctldParameters", "idle_on_node_suspend") {
            found.push(Conflict::IdleOnSuspend);
        }
        // A site's own program gets its own nodes.
        let has_script = present.get("SuspendProgram").map(Path::new)
            == Some(join::program(&self.hooks, "Suspend", true).as_path());
        let joined = has_script || self.joined.contains_key("SuspendProgram");
        if present.number("SuspendTime").is_some() && !joined {
            found.push(Conflict::SuspendTime);
        }
        if Quirks::of(version).needs_accounting && !has_accounting(present) {
            found.push(Conflict::NoAccounting(version));
        }
        if self.has_job_mode() {
            found.extend(against_job_mode(present));
        }
        let scheduler = present.get("SchedulerType");
        if scheduler.is_some_and(|scheduler| scheduler != "sched/backfill") {
            found.push(Conflict::NotBackfill);
        }
        found
    }
}

/// Programs of the site's in the place of ours that are not joined with them.
fn programs(fragment: &Fragment, present: &Config) -> Vec<Conflict> {
    let other = |(key, name): &(&'static str, &'static str)| {
        let theirs = join::left_out(present, key, name, &fragment.hooks, fragment.version)?;
        (!fragment.joined.contains_key(key)).then(|| Conflict::OtherProgram {
            key,
            theirs: theirs.to_owned(),
            ours: fragment.hooks.join(name),
        })
    };
    HOOKS.iter().filter_map(other).collect()
}

/// What does not go together with job mode.
fn against_job_mode(present: &Config) -> Vec<Conflict> {
    let mut found = Vec::new();
    if present.has("SchedulerParameters", "bf_licenses") {
        found.push(Conflict::PlansForLicence);
    }
    let pass = present.scheduling_pass();
    if pass > LONG_PASS {
        found.push(Conflict::LongPass(pass));
    }
    let select = present.get("SelectType");
    let whole = select.filter(|select| !matches!(*select, "select/cons_tres" | "select/cons_res"));
    if let Some(select) = whole {
        found.push(Conflict::WholeNodes(select.to_owned()));
    } else if present
        .get("SelectTypeParameters")
        .is_some_and(|words| !words.to_ascii_uppercase().contains("MEMORY"))
    {
        found.push(Conflict::MemoryUnmanaged);
    }
    if select.is_some() && !present.has("SlurmdParameters", "config_overrides") {
        found.push(Conflict::ConfigOverrides);
    }
    found
}

/// Whether jobs are told to an accounting database.
fn has_accounting(present: &Config) -> bool {
    present
        .get(ACCOUNTING)
        .is_some_and(|kind| kind != "accounting_storage/none")
}
