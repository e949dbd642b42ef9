//! `job_submit.lua`: ours, with the site's own beside it, and the site's alone again without job mode.

use super::pieces::{self, Found, Piece, What, look};
use crate::cli::args::Setup;
use crate::cli::place;
use crate::doctor;
use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use thiao_config::Config;
use thiao_slurm::site_keys::SiteKeys;
use thiao_slurm::{conf_lines, lua};

/// What slurmctld is to run at each submission.
pub(super) struct Script {
    pub(super) piece: Piece,
    /// The site's own script, and the name by which it is kept.
    pub(super) kept: Option<(PathBuf, PathBuf)>,
    pub(super) note: Option<String>,
}

/// The script, if there are nodesets of job mode: beside the fragment. One of the site's own is kept under
/// another name, and called by ours.
pub(super) fn job_submit(config: &Config, how: &Setup, fragment: &Path) -> anyhow::Result<Option<Script>> {
    let (usual, site) = (
        fragment.with_file_name(lua::FILE),
        fragment.with_file_name(lua::SITE),
    );
    let piece = |path: &Path, site: Option<&Path>| {
        doctor::slurm::job_submit(config, site).map(|text| Piece {
            path: path.to_owned(),
            what: What::File(text),
        })
    };
    let Some(plain) = piece(&usual, None) else {
        return Ok(None);
    };
    let foreign = matches!(look(&plain)?, Found::Foreign(_));
    if !foreign {
        let called = place::present(&site)?.is_some().then_some(site.as_path());
        return Ok(piece(&usual, called).map(|piece| Script {
            piece,
            kept: None,
            note: None,
        }));
    }
    let read =
        |path: &Path| std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
    let theirs = read(&usual)?;
    // It calls ours already, as an older setup advised.
    if String::from_utf8_lossy(&theirs).contains(lua::BESIDE) {
        return Ok(
            piece(&fragment.with_file_name(lua::BESIDE), None).map(|piece| Script {
                piece,
                kept: None,
                note: None,
            }),
        );
    }
    if place::present(&site)?.is_some() && read(&site)? != theirs && !how.force {
        bail!(
            "nothing was written: {} is somebody else's again, and {} has the script from before: add what \
             is new to the latter and remove the former, or repeat with --force to keep only the new \
             script",
            usual.display(),
            site.display()
        );
    }
    let note = format!(
        "{} is your own: it is kept as {}, and its functions are still called, before ours; change it there",
        usual.display(),
        site.display()
    );
    Ok(piece(&usual, Some(&site)).map(|piece| Script {
        piece,
        kept: Some((usual.clone(), site.clone())),
        note: Some(note),
    }))
}

/// What becomes of our script when no nodeset is of job mode any more.
pub(super) enum Leaves {
    /// Nothing: it is not there, or not ours.
    No,
    /// The site's own takes its place again.
    ForSites,
    /// It is to be removed.
    Goes,
    /// It stays, and why.
    Stays(String),
}

/// Looks at it. slurmctld does not start without a script that it is to run: it goes once `lines`, which do not
/// ask for it, are what slurm.conf includes.
pub(super) fn leaves(lines: &Path, slurm_conf: &Path, own: &SiteKeys) -> anyhow::Result<Leaves> {
    let (usual, site) = (lines.with_file_name(lua::FILE), lines.with_file_name(lua::SITE));
    if !place::present(&usual)?.is_some_and(|meta| meta.is_file()) {
        return Ok(Leaves::No);
    }
    let text = std::fs::read(&usual).with_context(|| format!("{} cannot be read", usual.display()))?;
    if !pieces::is_ours(&text) {
        return Ok(Leaves::No);
    }
    if place::present(&site)?.is_some() {
        return Ok(Leaves::ForSites);
    }
    Ok(if own.has("JobSubmitPlugins", "lua") {
        Leaves::Stays(format!(
            "{} is ours, and no nodeset needs it any more, but JobSubmitPlugins had lua before Thiao, too: \
             put your own script there, or take lua out",
            usual.display()
        ))
    } else if conf_lines::including(slurm_conf, lines).is_none() {
        Leaves::Stays(format!(
            "{} is ours, and no nodeset needs it any more: remove it once JobSubmitPlugins of {} has no lua",
            usual.display(),
            slurm_conf.display()
        ))
    } else {
        Leaves::Goes
    })
}

impl Leaves {
    /// Says it in the list of what is written.
    pub(super) fn line(&self, lines: &Path) -> Option<(&'static str, PathBuf)> {
        let usual = lines.with_file_name(lua::FILE);
        match self {
            Self::No | Self::Stays(_) => None,
            Self::ForSites => Some(("put back", usual)),
            Self::Goes => Some(("removed", usual)),
        }
    }

    /// Does it, once the lines are written.
    pub(super) fn carry_out(&self, lines: &Path) -> anyhow::Result<()> {
        let (usual, site) = (lines.with_file_name(lua::FILE), lines.with_file_name(lua::SITE));
        match self {
            Self::No | Self::Stays(_) => return Ok(()),
            Self::ForSites => std::fs::rename(&site, &usual),
            Self::Goes => std::fs::remove_file(&usual),
        }
        .with_context(|| format!("{} cannot be taken away", usual.display()))
    }
}

/// Gives the site's script its name back, if ours is gone: where it is then.
pub(super) fn give_back(fragment: &Path) -> anyhow::Result<Option<PathBuf>> {
    let (usual, site) = (
        fragment.with_file_name(lua::FILE),
        fragment.with_file_name(lua::SITE),
    );
    if place::present(&site)?.is_none() || place::present(&usual)?.is_some() {
        return Ok(None);
    }
    std::fs::rename(&site, &usual)
        .with_context(|| format!("{} cannot be given its name back", site.display()))?;
    Ok(Some(usual))
}
