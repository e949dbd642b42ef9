//! The settings file: the one that is there, or a new one.

use super::given::{Given, Here};
use super::pieces::{Piece, What};
use super::refusals::Refusals;
use super::{ask, draft};
use crate::cli::args::Setup;
use crate::cli::findings;
use crate::doctor;
use anyhow::Context as _;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiao_api::client::Client;
use thiao_cli::output::{Printer, Tone, clean};
use thiao_config::Config;
use thiao_config::import::{self, Imported};
use thiao_core::finding::{Verdict, worst};
use thiao_slurm::{Slurm, Version};

/// The settings that are set up: those of the file, or new ones.
pub(super) struct Settings {
    place: PathBuf,
    pub(super) config: Config,
    new: Option<New>,
}

/// Settings that are not written yet.
struct New {
    text: String,
    /// What was taken over of an old file, for people.
    imported: String,
}

impl Settings {
    /// Reads them; new ones are made of what was typed, and where there is no file.
    pub(super) fn find(file: Option<&Path>, printer: Printer, how: &Setup) -> anyhow::Result<Self> {
        let place = file.unwrap_or(Path::new(thiao_config::DEFAULT_FILE));
        if how.settings.are_given() || !place.exists() {
            return Self::make(place, printer, how);
        }
        Ok(Self {
            place: place.to_owned(),
            config: Config::load(file)?,
            new: None,
        })
    }

    /// New ones, by what was typed, imported or answered.
    fn make(place: &Path, printer: Printer, how: &Setup) -> anyhow::Result<Self> {
        let typed = &how.settings;
        let imported = match &typed.import {
            Some(file) => import::read(file)?,
            None => Imported::default(),
        };
        let slurm = Slurm::new(
            typed.slurm_conf.clone(),
            typed.slurm_bin_dir.clone(),
            Duration::from_secs(20),
        );
        let given = Given {
            flags: typed,
            imported: &imported,
            site: &Here::of(&slurm),
        };
        let text = ask::with_somebody(printer, |asker| draft::draft(given, asker))?.to_toml();
        let config = thiao_config::from_text(place, &text)
            .with_context(|| format!("these settings are not valid (nothing was written):\n{text}"))?;
        let imported = typed
            .import
            .as_ref()
            .map(|file| draw_import(file, &imported, printer));
        Ok(Self {
            place: place.to_owned(),
            config,
            new: Some(New {
                text,
                imported: imported.unwrap_or_default(),
            }),
        })
    }

    /// The file that new ones become.
    pub(super) fn piece(&self) -> Option<Piece> {
        Some(Piece {
            path: self.place.clone(),
            what: What::Settings(self.new.as_ref()?.text.clone()),
        })
    }

    /// What new ones would be.
    pub(super) fn shown(&self) -> String {
        let text = |new: &New| format!("\n{}:\n{}", self.place.display(), new.text);
        self.new.as_ref().map(text).unwrap_or_default()
    }

    /// Says whether VMs can be made with them. Those that are in use stay in use; new ones have to work, or
    /// nothing is written.
    pub(super) fn check(
        &self,
        printer: Printer,
        how: &Setup,
        version: Version,
        refused: &mut Refusals,
    ) -> anyhow::Result<String> {
        let client = Client::new(&self.config.state_dir);
        let provider = doctor::provider(&self.config, &client, how.try_vm);
        let mut checked = provider.findings;
        checked.extend(doctor::images::judge(
            &self.config,
            provider.seen.as_ref(),
            Some(version),
        ));
        let imported = self.new.as_ref().map(|new| new.imported.as_str());
        let report = format!(
            "{}Checks:\n{}\n",
            imported.unwrap_or_default(),
            findings::draw(printer, &checked)
        );
        if worst(&checked) == Verdict::Bad && self.new.is_some() && !how.force {
            if !how.dry_run {
                printer.print(&report)?;
            }
            refused.add(
                "no VM could be made with these settings; mend what the checks say, or write them anyway \
                 with --force",
            )?;
        }
        Ok(report)
    }
}

/// What was taken over of an old file, and what not.
fn draw_import(file: &Path, imported: &Imported, printer: Printer) -> String {
    let mut text = format!("From {}:\n", file.display());
    for (verb, tone, lines) in [
        ("taken", Tone::Good, &imported.taken),
        ("not needed", Tone::Faint, &imported.dropped),
        ("look", Tone::Bad, &imported.warnings),
    ] {
        for line in lines {
            let _ = writeln!(
                text,
                "  {} {}",
                printer.toned(&format!("{verb:<11}"), tone),
                clean(line)
            );
        }
    }
    text.push('\n');
    text
}
