//! Where the site has slurm.conf, and what it has of its own where ours is to be: that goes on, beside ours.

use super::pieces::{self, Piece, What};
use crate::cli::args::Setup;
use crate::doctor::{self, reach};
use anyhow::bail;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use thiao_config::Config;
use thiao_core::finding::{Finding, Remedy};
use thiao_core::spool;
use thiao_slurm::fragment::Fragment;
use thiao_slurm::names::HOOKS;
use thiao_slurm::site::Site;
use thiao_slurm::site_keys::{Earlier, SiteKeys};
use thiao_slurm::{Slurm, Version, defaults, join, keys, lua};

/// What an earlier setup wrote there, if it did.
pub(super) fn earlier_text(lines: &Path) -> Option<String> {
    let text = std::fs::read_to_string(lines).ok()?;
    pieces::is_ours(text.as_bytes()).then_some(text)
}

/// The same, read for what it set.
pub(super) fn earlier(lines: &Path) -> Option<Earlier> {
    let has_script = lines.with_file_name(lua::SITE).exists();
    earlier_text(lines).map(|text| Earlier::parse(&text).with_script(has_script))
}

/// What the site has of its own, by slurmctld if it answers, else by the earlier lines.
pub(super) fn own(
    present: Option<&thiao_slurm::Config>,
    hooks: &Path,
    version: Version,
    earlier: Option<&Earlier>,
) -> SiteKeys {
    let Some(present) = present else {
        return earlier.map(SiteKeys::recorded).unwrap_or_default();
    };
    let programs = join::of_site(present, hooks, version, |path| std::fs::read_to_string(path).ok());
    SiteKeys::of(present, hooks, version, &programs, earlier)
}

/// The folder of the hooks that slurmctld calls now: another one than `hooks` when that was changed since.
pub(super) fn hooks_in_effect(present: Option<&thiao_slurm::Config>, hooks: &Path) -> PathBuf {
    let other = || {
        let folder = join::hooks_of(Path::new(present?.get("ResumeProgram")?))?;
        let program = std::fs::read_link(folder.join("Resume")).ok()?;
        let is_ours = program.file_name()? == pieces::HOOK;
        is_ours.then(|| folder.to_owned())
    };
    other().unwrap_or_else(|| hooks.to_owned())
}

/// The site's programs that are called beside ours, by key, and what is to be said of them.
pub(super) fn programs(own: &SiteKeys) -> (BTreeMap<&'static str, String>, Vec<String>) {
    let (joined, odd): (BTreeMap<_, _>, BTreeMap<_, _>) = own
        .programs()
        .into_iter()
        .partition(|(_, site)| join::is_plain(site));
    let told = joined.iter().map(|(key, site)| {
        format!(
            "{key} is {site}: a script in {} calls it beside ours",
            join::FOLDER
        )
    });
    let odd = odd.iter().map(|(key, site)| {
        format!("{key} is {site}, which no script can name: give it a path of letters, digits and ._-+")
    });
    let notes = told.chain(odd).collect();
    (joined, notes)
}

/// The scripts that call the site's programs and ours.
pub(super) fn scripts(fragment: &Fragment, config: &Config) -> Vec<Piece> {
    let nodes = fragment.hooks.join("state/spool").join(spool::NODES);
    let scontrol = thiao_slurm::find("scontrol", config.slurm.bin_dir.as_deref())
        .unwrap_or_else(|_| PathBuf::from("/usr/bin/scontrol"));
    let script = |(key, name): &(&'static str, &'static str)| {
        let site = fragment.joined.get(key)?;
        Some(Piece {
            path: join::program(&fragment.hooks, name, true),
            what: What::Program(join::script(key, &fragment.hooks, name, site, &nodes, &scontrol)),
        })
    };
    HOOKS.iter().filter_map(script).collect()
}

/// What of the site's settings harms, in sentences.
pub(super) fn harmful(
    slurm: &Slurm,
    present: &thiao_slurm::Config,
    config: &Config,
    slurm_conf: &Path,
) -> Vec<String> {
    let nodes = doctor::slurm::nodes(config, slurm, present);
    let keys = keys::harmful(present, &nodes).into_iter().map(sentence);
    keys.chain(defaults::harmful(slurm_conf)).collect()
}

/// What the settings tell guests otherwise than slurmctld says of itself, in sentences.
pub(super) fn told_otherwise(slurm: &Slurm, present: &thiao_slurm::Config, config: &Config) -> Vec<String> {
    let told = reach::GuestContext::of(config);
    let found = reach::against_settings(&Site::of(present), &told, slurm.version().ok());
    let named = |finding: Finding| match finding.what.as_str() {
        "Slurm" => sentence(finding),
        _ => format!("{} {}", finding.what.clone(), sentence(finding)),
    };
    found.into_iter().map(named).collect()
}

fn sentence(finding: Finding) -> String {
    match finding.remedy {
        Some(Remedy::Run(cure) | Remedy::Advice(cure)) => format!("{}; {cure}", finding.text),
        None => finding.text,
    }
}

/// Refuses what slurm.conf, which knows no quotes, cannot hold.
pub(super) fn fits_slurm_conf(path: &Path) -> anyhow::Result<()> {
    let text = path.to_string_lossy();
    let good = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if !path.is_absolute() || !text.chars().all(good) {
        bail!("{text}: slurm.conf needs an absolute path of letters, digits and ._-+");
    }
    Ok(())
}

/// Where slurm.conf is: as the settings say, else as slurmctld itself, else where Debian's is.
pub(super) fn slurm_conf(settings: Option<PathBuf>, present: Option<&thiao_slurm::Config>) -> PathBuf {
    let told = || Site::of(present?).conf;
    settings
        .or_else(told)
        .unwrap_or_else(|| thiao_config::DEFAULT_SLURM_CONF.into())
}

/// Where the lines for it are.
pub(super) fn place_of_lines(how: &Setup, slurm_conf: &Path) -> anyhow::Result<PathBuf> {
    let usual = || slurm_conf.with_file_name("thiao.conf");
    let place = how.fragment.clone().unwrap_or_else(usual);
    fits_slurm_conf(&place)?;
    Ok(place)
}
