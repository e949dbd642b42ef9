//! `thiao setup`: the programs that Slurm calls, the lines for `slurm.conf`,
//! and what a person does next. Everything is looked at first; nothing is
//! written when something of somebody else's is in the way.

use super::args::Setup;
use crate::config::Config;
use crate::output::{Printer, Tone};
use anyhow::{Context as _, bail};
use std::fmt::Write as _;
use std::fs::{DirBuilder, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use thiao_slurm::conf::{HOOKS, NodeLine, Timeouts};
use thiao_slurm::fragment::Fragment;
use thiao_slurm::{Slurm, Version};

/// How a file of ours begins.
const MARK: &str = "# Written by `thiao setup`";

/// Something to be put in place.
struct Piece {
    path: PathBuf,
    what: What,
}

enum What {
    Link(PathBuf),
    File(String),
}

/// What is there now.
enum Found {
    Nothing,
    Same,
    /// Ours, of an earlier setup.
    Older,
    /// Somebody else's.
    Foreign(&'static str),
}

pub(super) fn run(config: &Config, printer: Printer, how: &Setup) -> anyhow::Result<()> {
    for path in [&how.hooks, &how.fragment] {
        // slurm.conf knows no quotes.
        let text = path.to_string_lossy();
        let good = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
        if !path.is_absolute() || !text.chars().all(good) {
            bail!("{text}: slurm.conf needs an absolute path of letters, digits and ._-+");
        }
    }
    let slurm = Slurm::new(
        config.slurm.conf.clone(),
        config.slurm.bin_dir.clone(),
        config.slurm.timeout,
    );
    let version = match &how.slurm_version {
        Some(text) => {
            Version::parse(text).with_context(|| format!("{text} is no Slurm release; write e.g. 22.05"))?
        }
        None => slurm
            .version()
            .context("which Slurm is it? Name its release with --slurm-version")?,
    };
    let present = slurm.config();
    let fragment = fragment(config, version, how);
    let text = fragment.render(present.as_ref().ok());
    let pieces = pieces(config, how, text.clone())?;

    let mut foreign = Vec::new();
    let mut report = String::new();
    for piece in &pieces {
        let (verb, tone) = match look(piece)? {
            Found::Same => ("is right", Tone::Faint),
            Found::Nothing => ("new", Tone::Good),
            Found::Older => ("replaced", Tone::Busy),
            Found::Foreign(what) => {
                foreign.push(format!("{} ({what})", piece.path.display()));
                ("somebody else's", Tone::Bad)
            }
        };
        let target = match &piece.what {
            What::Link(target) => format!(" -> {}", target.display()),
            What::File(_) => String::new(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            report,
            "{:<16} {}{target}",
            printer.toned(verb, tone),
            piece.path.display()
        );
    }
    let blocked = !foreign.is_empty() && !how.force;
    let slurm_conf = config
        .slurm
        .conf
        .clone()
        .unwrap_or_else(|| "/etc/slurm/slurm.conf".into());
    let advice = advice(&fragment, &present, how, &slurm_conf);
    if how.dry_run {
        return Ok(printer.print(&format!(
            "{report}\n{}:\n{text}\n{advice}",
            how.fragment.display()
        ))?);
    }
    if blocked {
        bail!(
            "nothing was written: {} in the way; look, then repeat with --force, or choose other places with \
             --hooks and --fragment",
            foreign.join(", ")
        );
    }
    for piece in &pieces {
        write(piece).with_context(|| format!("{} cannot be written", piece.path.display()))?;
    }
    Ok(printer.print(&format!("{report}\n{advice}"))?)
}

/// The lines for slurm.conf.
fn fragment(config: &Config, version: Version, how: &Setup) -> Fragment {
    let nodes = config
        .nodesets
        .values()
        .map(|set| NodeLine {
            nodes: set.nodes.clone(),
            cpus: set.shape.cpus,
            memory_mb: set.shape.memory_mb,
            features: set.features.clone(),
            partition: set.partition.clone(),
        })
        .collect();
    let policy = &config.policy;
    // Slurm's own limit comes after everything that we try, so that it is never what discovers a failure.
    let tries = policy
        .boot_timeout
        .0
        .saturating_mul(policy.tries_before_down.into());
    let pauses: u64 = (1..policy.tries_before_down)
        .map(|failures| policy.backoff(failures).0)
        .sum();
    let ours_s = tries
        .saturating_add(pauses)
        .saturating_add(policy.capacity_patience.0)
        / 1000
        + 30;
    let usual = Timeouts::default();
    let timeouts = Timeouts {
        resume_s: usual.resume_s.max(u32::try_from(ours_s).unwrap_or(u32::MAX)),
        idle_s: how.idle.unwrap_or(usual.idle_s),
        ..usual
    };
    Fragment {
        version,
        hooks: how.hooks.clone(),
        nodes,
        default_partition: how.default_partition.clone(),
        timeouts,
    }
}

/// What is to be there in the end.
fn pieces(config: &Config, how: &Setup, text: String) -> anyhow::Result<Vec<Piece>> {
    let hook = match &how.hook_program {
        Some(program) => std::path::absolute(program)?,
        None => {
            let beside = config.program.with_file_name("thiao-hook");
            if beside.is_file() {
                beside
            } else {
                "/usr/lib/thiao/thiao-hook".into()
            }
        }
    };
    let runs = hook
        .metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    if !runs && !how.dry_run {
        bail!(
            "{} is no program: build or install thiao-hook, or name it with --hook-program",
            hook.display()
        );
    }
    let mut pieces: Vec<Piece> = HOOKS
        .iter()
        .map(|(_, name)| Piece {
            path: how.hooks.join(name),
            what: What::Link(hook.clone()),
        })
        .collect();
    // By this the hooks find the controller: Slurm gives them almost no environment.
    pieces.push(Piece {
        path: how.hooks.join("state"),
        what: What::Link(config.state_dir.clone()),
    });
    pieces.push(Piece {
        path: how.fragment.clone(),
        what: What::File(text),
    });
    Ok(pieces)
}

fn look(piece: &Piece) -> anyhow::Result<Found> {
    let meta = match piece.path.symlink_metadata() {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) => return Err(e).with_context(|| format!("{} cannot be looked at", piece.path.display())),
    };
    if meta.is_dir() {
        bail!(
            "{} is a folder: it is in the way, and is not replaced",
            piece.path.display()
        );
    }
    let unreadable = || format!("{} cannot be read", piece.path.display());
    Ok(match &piece.what {
        What::Link(wanted) if meta.is_symlink() => {
            let target = std::fs::read_link(&piece.path).with_context(unreadable)?;
            if target == *wanted {
                Found::Same
            } else if target.file_name() == Some("thiao-hook".as_ref()) {
                Found::Older
            } else {
                Found::Foreign("it leads elsewhere")
            }
        }
        What::Link(_) => Found::Foreign("it is no link of ours"),
        What::File(_) if !meta.is_file() => Found::Foreign("it is no file of ours"),
        What::File(wanted) => {
            let text = std::fs::read(&piece.path).with_context(unreadable)?;
            if text == wanted.as_bytes() {
                Found::Same
            } else if text.starts_with(MARK.as_bytes()) {
                Found::Older
            } else {
                Found::Foreign("we did not write it")
            }
        }
    })
}

/// Puts a piece in place at once: slurmctld never sees half of it.
fn write(piece: &Piece) -> io::Result<()> {
    let folder = piece.path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    match &piece.what {
        What::File(text) => {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(text.as_bytes())?;
            file.as_file().set_permissions(Permissions::from_mode(0o644))?;
            file.as_file().sync_all()?;
            file.persist(&piece.path).map_err(|e| e.error)?;
        }
        What::Link(target) => {
            let scratch = tempfile::Builder::new()
                .prefix(".thiao-setup-")
                .tempdir_in(folder)?;
            let link = scratch.path().join("link");
            symlink(target, &link)?;
            std::fs::rename(link, &piece.path)?;
        }
    }
    Ok(())
}

/// What does not go together, and what comes next.
fn advice(
    fragment: &Fragment,
    present: &Result<thiao_slurm::Config, thiao_slurm::SlurmError>,
    how: &Setup,
    slurm_conf: &Path,
) -> String {
    let mut warnings = match present {
        Ok(present) => fragment.conflicts(present),
        Err(error) => vec![format!(
            "slurmctld could not be asked what is in effect ({error}): its PrivateData and SlurmctldParameters are \
             not merged into ours; add their words by hand"
        )],
    };
    if let Some(name) = &fragment.default_partition
        && !fragment.nodes.iter().any(|line| line.partition == *name)
    {
        warnings.push(format!(
            "no nodeset has the partition {name}: it does not become the default"
        ));
    }
    let mut text = String::new();
    for warning in warnings {
        let _ = writeln!(text, "Note: {warning}.");
    }
    text.push_str("Next:\n");
    for (n, step) in fragment.next_steps(&how.fragment, slurm_conf).iter().enumerate() {
        let _ = writeln!(text, "{:>3}. {step}", n + 1);
    }
    text
}
