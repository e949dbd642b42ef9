//! `thiao setup --undo`: what setup put in place is taken away, once nothing calls it any more.

use super::pieces::{self, Piece, What};
use super::script;
use crate::output::{Printer, Tone};
use anyhow::bail;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use thiao_slurm::conf::HOOKS;
use thiao_slurm::{Config, join};

/// What setup may have put in place, and where.
pub(super) struct Placed<'a> {
    pub(super) pieces: Vec<Piece>,
    pub(super) fragment: &'a Path,
    pub(super) hooks: &'a Path,
    pub(super) slurm_conf: &'a Path,
    /// What is in effect, if slurmctld says so.
    pub(super) present: Option<&'a Config>,
}

/// Takes it away. Without `force` only when neither slurm.conf nor slurmctld names it: without a file that it
/// includes no program of Slurm's starts.
pub(super) fn undo(printer: Printer, placed: Placed<'_>, force: bool) -> anyhow::Result<()> {
    if let (Some(used), false) = (placed.in_use(), force) {
        bail!(
            "nothing was removed: {used}. First:\n  \
             1. Take the line that includes {} out of slurm.conf, and the keys that it needed.\n  \
             2. systemctl disable --now thiaod && systemctl restart slurmctld\n  \
             3. thiao setup --undo (with --force it asks for none of this)",
            placed.fragment.display()
        );
    }
    let mut report = String::new();
    let mut line = |verb: &str, tone: Tone, path: &Path| {
        let verb = printer.toned(&format!("{verb:<16}"), tone);
        // Writing to a String cannot fail.
        let _ = writeln!(report, "{verb} {}", path.display());
    };
    for piece in placed.pieces.iter().chain(&scripts(placed.hooks)) {
        if pieces::remove(piece)? {
            line("removed", Tone::Busy, &piece.path);
        }
    }
    if let Some(back) = script::give_back(placed.fragment)? {
        line("put back", Tone::Good, &back);
    }
    if report.is_empty() {
        report.push_str("There was nothing of setup's.\n");
    }
    Ok(printer.print(&report)?)
}

/// Scripts that call a site's programs beside ours, whichever there are.
fn scripts(hooks: &Path) -> Vec<Piece> {
    let script = |(_, name): &(&str, &str)| Piece {
        path: join::program(hooks, name, true),
        what: What::Program(String::new()),
    };
    HOOKS.iter().map(script).collect()
}

impl Placed<'_> {
    /// Who still names it, in words.
    fn in_use(&self) -> Option<String> {
        if let Some((file, line)) = including(self.slurm_conf, self.fragment, &mut Vec::new()) {
            return Some(format!(
                "{} includes {} (line {line}), and without that file no program of Slurm's starts",
                file.display(),
                self.fragment.display()
            ));
        }
        let present = self.present?;
        let (key, program) = HOOKS.iter().find_map(|(key, name)| {
            let ours = [false, true].map(|joined| join::program(self.hooks, name, joined));
            let mut named = present.values(key).into_iter().map(PathBuf::from);
            named.find(|path| ours.contains(path)).map(|path| (key, path))
        })?;
        Some(format!(
            "slurmctld calls {} ({key}): it has not been restarted since that was taken out",
            program.display()
        ))
    }
}

/// The file, and the number of its line, by which slurm.conf includes `wanted`.
pub(super) fn including(file: &Path, wanted: &Path, seen: &mut Vec<PathBuf>) -> Option<(PathBuf, usize)> {
    if seen.iter().any(|other| other == file) {
        return None;
    }
    seen.push(file.to_owned());
    let text = std::fs::read_to_string(file).ok()?;
    for (number, line) in text.lines().enumerate() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let is_include = words
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("include"));
        let Some(name) = words.next().filter(|_| is_include) else {
            continue;
        };
        let path = file.with_file_name("").join(name);
        if path == wanted {
            return Some((file.to_owned(), number + 1));
        }
        if let Some(found) = including(&path, wanted, seen) {
            return Some(found);
        }
    }
    None
}
