//! Slurm's side as it is now: everything that the checks need of it, asked once.

use super::{Unseen, folders, partitions, slurm};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiao_config::{Config, DEFAULT_SLURM_CONF};
use thiao_core::finding::Finding;
use thiao_core::ids::NodeName;
use thiao_core::view::SlurmView;
use thiao_slurm::details::NodeDetails;
use thiao_slurm::fragment::Fragment;
use thiao_slurm::{Slurm, SlurmError, defaults};

/// What Slurm said, and the machine of its files.
pub(super) struct Observation {
    /// Its versions and configuration.
    pub facts: slurm::Facts,
    /// What `thiao setup` would write for it; none while its version is not known.
    pub fragment: Option<Fragment>,
    /// Where slurmctld calls our programs.
    pub hooks: PathBuf,
    /// Jobs that wait for VMs that do not see where they run.
    pub folders: Option<Finding>,
    /// Its nodes and jobs, if all could be read.
    pub alive: Option<Alive>,
    /// Why they could not, though slurmctld answers.
    pub unreadable: Vec<SlurmError>,
}

/// Nodes and jobs of a slurmctld that answers.
pub(super) struct Alive {
    pub view: SlurmView,
    pub details: BTreeMap<NodeName, NodeDetails>,
}

impl Observation {
    /// Asks Slurm. `usual` is where the hooks' folder is if slurm.conf does not say.
    pub(super) fn of_slurm(config: &Config, usual: &Path) -> Self {
        let slurm = Slurm::new(
            config.slurm.conf.clone(),
            config.slurm.bin_dir.clone(),
            config.slurm.timeout,
        )
        // Those in no partition are asked for by name.
        .with_nodes(Arc::new(config.nodes.keys().cloned().collect()));
        let facts = facts(&slurm, config);
        let hooks = hooks_folder(&facts, usual);
        let version = facts.version.as_ref().ok();
        let fragment = version.map(|version| slurm::fragment(config, *version, &hooks));
        // Without slurmctld each command would wait for its timeout.
        let up = matches!(&facts.ping, Ok(ping) if ping.is_up());
        let (alive, unreadable) = match up.then(|| (slurm.observe(), slurm.details())) {
            Some((Ok(view), Ok(details))) => (Some(Alive { view, details }), Vec::new()),
            Some((view, details)) => (None, view.err().into_iter().chain(details.err()).collect()),
            None => (None, Vec::new()),
        };
        let folders = alive.as_ref().and_then(|_| folders::look(config, &slurm));
        Self {
            facts,
            fragment,
            hooks,
            folders,
            alive,
            unreadable,
        }
    }

    /// For partitions whose ResumeTimeout is too short: it, and what is needed, in seconds.
    pub(super) fn impatient(&self) -> BTreeMap<String, (u64, u64)> {
        match (&self.fragment, &self.facts.partitions) {
            (Some(fragment), Ok(all)) => partitions::impatient(fragment, all),
            (Some(_) | None, _) => BTreeMap::new(),
        }
    }
}

fn facts(slurm: &Slurm, config: &Config) -> slurm::Facts {
    let version = slurm.version().map_err(Unseen::from);
    // Without Slurm's programs nothing else can be asked.
    let ping = match &version {
        Ok(_) => slurm.ping().map_err(Unseen::from),
        Err(why) => Err(why.clone()),
    };
    let effective = match &ping {
        Ok(ping) if ping.is_up() => slurm.config().map_err(Unseen::from),
        Ok(_) => Err(Unseen::new("slurmctld does not answer")),
        Err(why) => Err(why.clone()),
    };
    let of_slurmctld = effective.as_ref().ok().and_then(thiao_slurm::Config::version);
    let programs = version.as_ref().ok().copied();
    let partitions = match &effective {
        Ok(_) => slurm.partitions().map_err(Unseen::from),
        Err(why) => Err(why.clone()),
    };
    let nodes = slurm::nodes(
        config,
        slurm,
        effective.as_ref().unwrap_or(&thiao_slurm::Config::default()),
    );
    slurm::Facts {
        version: of_slurmctld.map_or(version, Ok),
        programs,
        ping,
        nodes,
        defaults: effective
            .as_ref()
            .map(|effective| defaults::harmful(&slurm_conf(effective)))
            .unwrap_or_default(),
        job_mode: effective
            .as_ref()
            .ok()
            .and_then(|effective| job_mode(slurm, config, effective)),
        config: effective,
        partitions,
        cluster: config.cluster.to_string(),
        silence_s: config.policy.silence_grace.0 / 1000,
    }
}

/// What only job mode needs; none without nodesets of it.
fn job_mode(slurm: &Slurm, config: &Config, effective: &thiao_slurm::Config) -> Option<slurm::JobMode> {
    let script = job_submit(effective);
    // The site's own script is the site's: that it is called is all that is asked.
    let site = script.as_deref().ok().and_then(thiao_slurm::lua::site_of);
    let wanted = slurm::job_submit(config, site.as_deref())?;
    Some(slurm::JobMode {
        gate: slurm.has_gate().map_err(Unseen::from),
        script,
        wanted,
    })
}

/// The file that slurmctld reads.
fn slurm_conf(effective: &thiao_slurm::Config) -> PathBuf {
    effective.get("SLURM_CONF").unwrap_or(DEFAULT_SLURM_CONF).into()
}

/// The script that slurmctld runs at each submission.
fn job_submit(effective: &thiao_slurm::Config) -> Result<String, Unseen> {
    let file = slurm_conf(effective).with_file_name(thiao_slurm::lua::FILE);
    std::fs::read_to_string(&file).map_err(|error| {
        let unseen = Unseen::from(error);
        Unseen {
            why: format!("{}: {unseen}", file.display()),
            ..unseen
        }
    })
}

/// Where slurmctld calls our programs, else where `thiao setup` puts them.
pub(super) fn hooks_folder(facts: &slurm::Facts, usual: &Path) -> PathBuf {
    let program = facts
        .config
        .as_ref()
        .ok()
        .and_then(|config| config.get("ResumeProgram"));
    program
        .map(Path::new)
        .filter(|program| program.file_name().is_some_and(|name| name == "Resume"))
        .and_then(thiao_slurm::join::hooks_of)
        .unwrap_or(usual)
        .to_owned()
}
