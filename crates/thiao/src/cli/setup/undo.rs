//! `thiao setup --undo`: what setup put in place is taken away, once nothing calls it any more.

use super::pieces::{self, Piece, What};
use super::{script, site};
use crate::cli::args::Setup;
use anyhow::{anyhow, bail};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiao_api::client::Client;
use thiao_cli::output::{Printer, Tone};
use thiao_config::Places;
use thiao_core::ids::VmId;
use thiao_qemu::left;
use thiao_slurm::conf_lines;
use thiao_slurm::names::HOOKS;
use thiao_slurm::quirks::NEWEST;
use thiao_slurm::site_keys::{self, SiteKeys};
use thiao_slurm::{Config, Slurm, join, lua};

/// How long slurmctld may take to answer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What setup may have put in place, and where.
struct Placed<'a> {
    fragment: &'a Path,
    hooks: &'a Path,
    /// What the hooks lead to, if its name is not the usual one.
    program: PathBuf,
    slurm_conf: &'a Path,
    /// What is in effect, if slurmctld says so.
    present: Option<&'a Config>,
}

/// Takes it away; settings are not needed for that. Without `--force` only when neither slurm.conf nor
/// slurmctld names it: without a file that it includes no program of Slurm's starts.
pub(super) fn run(file: Option<&Path>, printer: Printer, how: &Setup) -> anyhow::Result<()> {
    let known = match file {
        Some(file) if !file.exists() => Places::default(),
        Some(_) | None => thiao_config::places(file)?,
    };
    let typed = &how.settings;
    let conf = typed.slurm_conf.clone().or(known.slurm_conf);
    let bin_dir = typed.slurm_bin_dir.clone().or(known.slurm_bin_dir);
    let present = Slurm::new(conf.clone(), bin_dir, TIMEOUT).config().ok();
    let slurm_conf = site::slurm_conf(conf, present.as_ref());
    let lines = site::place_of_lines(how, &slurm_conf)?;
    let placed = Placed {
        fragment: &lines,
        hooks: &how.hooks,
        program: how.hook_program.clone().unwrap_or_default(),
        slurm_conf: &slurm_conf,
        present: present.as_ref(),
    };
    let state_dir = std::fs::read_link(how.hooks.join("state")).unwrap_or(known.state_dir);
    let left = left::vms(&state_dir);
    if !how.force {
        let left = left
            .as_ref()
            .map_err(|error| anyhow!("{error}: cannot find out whether VMs are left"))?;
        placed.must_be_unused(left, Client::new(&state_dir).controller().is_some())?;
    }
    let mut report = String::new();
    if let Ok(left) = left {
        left::end(&state_dir)?;
        for id in left {
            let verb = printer.toned(&format!("{:<16}", "ended"), Tone::Busy);
            let _ = writeln!(report, "{verb} VM {id}");
        }
    }
    placed.undo(printer, report)?;
    // Of no use when it is empty.
    let _ = std::fs::remove_dir(how.hooks.join(join::FOLDER));
    if state_dir.exists() {
        let dir = state_dir.display();
        printer.print(&format!("The controller's state is still in {dir}.\n"))?;
    }
    Ok(())
}

/// Lines for slurm.conf, below what is said of them; nothing without.
fn again(said: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    lines
        .iter()
        .fold(said.to_owned(), |text, line| text + "\n       " + line)
}

impl Placed<'_> {
    /// Says what is to be done first while Slurm knows our nodes, VMs are left, or thiaod runs.
    fn must_be_unused(&self, left: &[VmId], runs: bool) -> anyhow::Result<()> {
        let used = self.in_use();
        let vms: Vec<&str> = left.iter().map(VmId::as_str).collect();
        let why = match (&used, vms.as_slice()) {
            (Some(used), _) => used.clone(),
            (None, [_, ..]) => format!("VMs are still running, perhaps with jobs: {}", vms.join(", ")),
            (None, []) if runs => "thiaod is still running".to_owned(),
            (None, []) => return Ok(()),
        };
        let mut first = Vec::new();
        if !left.is_empty() {
            let begin = if runs { "" } else { "systemctl start thiaod. " };
            first.push(format!(
                "{begin}Let the jobs on its nodes end, or cancel them: `squeue -p` with its partitions. End the VMs \
                 that are left: `thiao suspend NODES`, until `thiao vms` shows none."
            ));
        }
        if used.is_some() {
            first.push(format!(
                "Take the line that includes {} out of slurm.conf, and the keys that it needed.{}",
                self.fragment.display(),
                again(" Put back there what it replaced:", &self.took())
            ));
        }
        first.push(match &used {
            Some(_) => "systemctl disable --now thiaod && systemctl restart slurmctld".to_owned(),
            None => "systemctl disable --now thiaod".to_owned(),
        });
        first.push("thiao setup --undo (--force skips all of this, and ends VMs with their jobs)".into());
        let steps = first
            .iter()
            .zip(1..)
            .map(|(step, number)| format!("\n  {number}. {step}"));
        bail!("nothing was removed: {why}. First:{}", steps.collect::<String>())
    }

    fn undo(&self, printer: Printer, mut report: String) -> anyhow::Result<()> {
        let lost = self.lost();
        let mut line = |verb: &str, tone: Tone, path: &Path| {
            let verb = printer.toned(&format!("{verb:<16}"), tone);
            // Writing to a String cannot fail.
            let _ = writeln!(report, "{verb} {}", path.display());
        };
        for piece in self.pieces() {
            if pieces::remove(&piece)? {
                line("removed", Tone::Busy, &piece.path);
            }
            if let Some(kept) = pieces::remove_kept(&piece)? {
                line("removed", Tone::Busy, &kept);
            }
        }
        if let Some(back) = script::give_back(self.fragment)? {
            line("put back", Tone::Good, &back);
        }
        if report.is_empty() {
            report.push_str("There was nothing that setup wrote.\n");
        }
        let lost = again("Put back into slurm.conf what our lines replaced:", &lost);
        if !lost.is_empty() {
            let _ = writeln!(report, "{lost}");
        }
        Ok(printer.print(&report)?)
    }

    /// All that setup may have put in place, whatever the settings were.
    fn pieces(&self) -> Vec<Piece> {
        let link = |name: &str, target: PathBuf| Piece {
            path: self.hooks.join(name),
            what: What::Link(target),
        };
        let text = |path: PathBuf| Piece {
            path,
            what: What::File(String::new()),
        };
        let mut all: Vec<Piece> = HOOKS
            .iter()
            .map(|(_, name)| link(name, self.program.clone()))
            .collect();
        // Wherever it leads.
        let state = std::fs::read_link(self.hooks.join("state")).unwrap_or_default();
        all.push(link("state", state));
        all.push(text(self.fragment.to_owned()));
        let usual = self.fragment.with_file_name(lua::FILE);
        let theirs = std::fs::read_to_string(&usual).unwrap_or_default();
        all.push(text(usual));
        // A site's script may run it.
        if !theirs.contains(lua::BESIDE) {
            all.push(text(self.fragment.with_file_name(lua::BESIDE)));
        }
        all.extend(HOOKS.iter().map(|(_, name)| Piece {
            path: join::program(self.hooks, name, true),
            what: What::Program(String::new()),
        }));
        all
    }

    /// What of the site's the lines took the place of.
    fn took(&self) -> Vec<String> {
        let version = self.present.and_then(Config::version).unwrap_or(NEWEST);
        let earlier = site::earlier(self.fragment);
        site::own(self.present, self.hooks, version, earlier.as_ref()).lines(&self.text())
    }

    /// The same by what they say themselves, if it is not in effect again.
    fn lost(&self) -> Vec<String> {
        let earlier = site::earlier(self.fragment);
        let own = earlier.as_ref().map(SiteKeys::recorded).unwrap_or_default();
        own.lacking(&self.text(), self.present)
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.fragment).unwrap_or_default()
    }

    /// Who still names it, in words.
    fn in_use(&self) -> Option<String> {
        if let Some(line) = conf_lines::including(self.slurm_conf, self.fragment) {
            return Some(format!(
                "{} includes {} (line {}), and without that file none of Slurm's programs starts",
                line.file.display(),
                self.fragment.display(),
                line.number
            ));
        }
        let (key, program) = site_keys::called(self.present?, self.hooks)?;
        Some(format!(
            "slurmctld still calls {} ({key}): it has not been restarted since that was taken out",
            program.display()
        ))
    }
}
