//! `thiao setup`: the settings file if there is none, the programs that Slurm calls, the lines for
//! `slurm.conf`, and what a person does next. Everything is looked at first; nothing is written when
//! something of somebody else's is in the way, or when new settings cannot work.

mod ask;
mod create;
mod draft;
mod given;
mod names;
mod pieces;
mod refusals;
mod script;
mod settings;
mod site;
mod text;
mod undo;

use super::args::Setup;
use crate::doctor;
use anyhow::{Context as _, bail};
use names::Known;
use pieces::{Found, Piece, What, look, write};
use refusals::Refusals;
use script::Leaves;
use settings::Settings;
use site::{fits_slurm_conf, place_of_lines, slurm_conf};
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use thiao_cli::output::{Printer, Tone};
use thiao_config::{Config, ProviderSettings, programs};
use thiao_qemu::Guests;
use thiao_qemu::image::built::About;
use thiao_slurm::fragment::Fragment;
use thiao_slurm::names::HOOKS;
use thiao_slurm::{Slurm, SlurmError, Version};

pub(super) fn run(file: Option<&Path>, printer: Printer, how: &Setup) -> anyhow::Result<()> {
    fits_slurm_conf(&how.hooks)?;
    if how.undo {
        return undo::run(file, printer, how);
    }
    if how.place.remove {
        return create::remove(file, printer, how);
    }
    let created = match how.place.create {
        true => Some(ask::with_somebody(printer, |asker| {
            create::prepare(file, how, asker)
        })?),
        false => None,
    };
    let how = created.as_ref().map_or(how, |created| &created.how);
    if let Some(created) = &created
        && created.only_shown(printer)?
    {
        return Ok(());
    }
    let settings = Settings::find(file, printer, how)?;
    let site = Asked::of(&settings.config, how)?;
    let lines = place_of_lines(how, &site.slurm_conf)?;
    let mut plan = plan(&settings.config, how, &site, &lines)?;
    plan.pieces.splice(0..0, settings.piece());
    let places = plan.list(printer, how, &lines)?;
    if let Some(created) = &created {
        created.carry_out(printer)?;
    }
    let checked = settings.check(printer, how, site.version, &mut plan.refused)?;
    let mut steps = plan.fragment.next_steps(&plan.text, &lines, &site.slurm_conf);
    steps.splice(0..0, users_step(file, &settings.config, how));
    steps.splice(0..0, image_steps(&settings.config));
    let advice = advice(&plan, &site.present, &steps);
    let report = format!("{checked}{places}");
    if how.dry_run {
        let (new, shown) = (settings.shown(), plan.shown(&lines));
        printer.print(&format!("{report}{new}{shown}{advice}"))?;
        return plan.refused.end();
    }
    plan.carry_out(&lines)?;
    Ok(printer.print(&format!("{report}\n{advice}"))?)
}

/// What a person does before VMs can run images that are not there yet.
fn image_steps(config: &Config) -> Vec<String> {
    let ProviderSettings::Qemu(settings) = &config.provider else {
        return Vec::new();
    };
    let lacking = |kind: &&Guests| {
        match kind {
        Guests::Built(name) => About::read(&settings.cache_dir, name)
            .ok()
            .flatten()
            .is_none()
            .then(|| {
                format!("Make the image of the VMs, with what your users need: thiao image build {name} --packages python3,gcc")
            }),
        Guests::Small | Guests::Brought(_) => None,
    }
    };
    settings.kinds().iter().filter_map(lacking).collect()
}

/// What a person does before jobs of others than root run in guests of ours that were made just now.
fn users_step(file: Option<&Path>, config: &Config, how: &Setup) -> Option<String> {
    let ProviderSettings::OpenNebula(settings) = &config.provider else {
        return None;
    };
    let unknown = how.place.guest.is_some() && settings.guest.users.is_empty();
    unknown.then(|| {
        format!(
            "Name the users whose jobs run there, and the folder that nodes share with the other machines, in {}: \
             users or [[opennebula.user]], and [[opennebula.share]]. Guests know root alone, and share nothing.",
            file.unwrap_or(Path::new(thiao_config::DEFAULT_FILE)).display()
        )
    })
}

/// Who was asked what is in effect, and what was said.
struct Asked {
    slurm: Slurm,
    present: Result<thiao_slurm::Config, SlurmError>,
    version: Version,
    slurm_conf: PathBuf,
}

impl Asked {
    fn of(config: &Config, how: &Setup) -> anyhow::Result<Self> {
        let slurm = Slurm::new(
            config.slurm.conf.clone(),
            config.slurm.bin_dir.clone(),
            config.slurm.timeout,
        );
        let present = slurm.config();
        let version = version(how, present.as_ref().ok(), &slurm)?;
        let slurm_conf = slurm_conf(config.slurm.conf.clone(), present.as_ref().ok());
        Ok(Self {
            slurm,
            present,
            version,
            slurm_conf,
        })
    }
}

/// All that is to be done, and said.
struct Plan {
    fragment: Fragment,
    /// The text of that fragment.
    text: String,
    pieces: Vec<Piece>,
    /// The site's own script, and the name by which it is kept.
    kept: Option<(PathBuf, PathBuf)>,
    leaves: Leaves,
    notes: Vec<String>,
    refused: Refusals,
    /// The hooks' folder that is in effect.
    hooks: PathBuf,
}

/// The Slurm that reads the lines.
fn version(how: &Setup, present: Option<&thiao_slurm::Config>, slurm: &Slurm) -> anyhow::Result<Version> {
    if let Some(text) = &how.slurm_version {
        return Version::parse(text)
            .with_context(|| format!("{text} is not a Slurm release; write e.g. 22.05"));
    }
    match present.and_then(thiao_slurm::Config::version) {
        Some(version) => Ok(version),
        None => slurm
            .version()
            .context("cannot find out which Slurm this is; name its release with --slurm-version"),
    }
}

/// What is to be at `lines` and around it; an error when something of the site's would be lost.
fn plan(config: &Config, how: &Setup, asked: &Asked, lines: &Path) -> anyhow::Result<Plan> {
    let (present, version) = (asked.present.as_ref().ok(), asked.version);
    let mut fragment = fragment(config, version, how);
    let mut refused = Refusals::none(how.dry_run);
    if let Some(name) = &fragment.default_partition
        && !fragment.nodes.iter().any(|line| line.partition == *name)
    {
        bail!("nothing was written: no nodeset has the partition {name} of --default-partition");
    }
    let earlier = site::earlier(lines);
    let hooks = site::hooks_in_effect(present, &how.hooks);
    let own = site::own(present, &hooks, version, earlier.as_ref());
    let (joined, mut notes) = site::programs(&own);
    fragment.joined = joined;
    if let Some(present) = present {
        let before = site::earlier_text(lines);
        let (known, unread) = Known::ask(&asked.slurm, present, &hooks, &fragment, before.as_deref());
        fragment.memory = known.memory_forms();
        let taken = known.taken();
        if !taken.is_empty() && !how.force {
            refused.add(format!(
                "{}. Give ours other names in {}, or repeat with --force",
                taken.join("; "),
                config.file.display()
            ))?;
        }
        notes.extend(unread);
        notes.extend(taken);
        notes.extend(site::harmful(&asked.slurm, present, config, &asked.slurm_conf));
        notes.extend(site::told_otherwise(&asked.slurm, present, config));
        notes.extend(known.with_ours(version));
    }
    let text = fragment.render(&own);
    let mut pieces = pieces(config, how, lines, text.clone(), &mut refused)?;
    pieces.extend(site::scripts(&fragment, config));
    let script = script::job_submit(config, how, lines)?;
    notes.extend(script.as_ref().and_then(|script| script.note.clone()));
    let leaves = match &script {
        Some(_) => Leaves::No,
        None => script::leaves(lines, &asked.slurm_conf, &own)?,
    };
    if let Leaves::Stays(note) = &leaves {
        notes.push(note.clone());
    }
    let kept = script.as_ref().and_then(|script| script.kept.clone());
    pieces.extend(script.map(|script| script.piece));
    if let (Err(error), false) = (&asked.present, how.force) {
        forgets_nothing(&pieces, lines, error, &mut refused)?;
    }
    Ok(Plan {
        fragment,
        text,
        pieces,
        kept,
        leaves,
        notes,
        refused,
        hooks,
    })
}

impl Plan {
    /// The list of what is written; an error when something of somebody else's is in the way.
    fn list(&mut self, printer: Printer, how: &Setup, lines: &Path) -> anyhow::Result<String> {
        let mut foreign = Vec::new();
        let mut places = String::new();
        let toned = |verb: &str, tone| printer.toned(&format!("{verb:<16}"), tone);
        for piece in &self.pieces {
            let theirs_is_kept = self.kept.as_ref().is_some_and(|(from, _)| *from == piece.path);
            let (verb, tone) = match look(piece)? {
                // It has another name by then.
                Found::Foreign(_) if theirs_is_kept => ("new", Tone::Good),
                Found::Same => ("is right", Tone::Faint),
                Found::Nothing => ("new", Tone::Good),
                Found::Older => ("replaced", Tone::Busy),
                Found::Foreign(what) => {
                    foreign.push(format!("{} ({what})", piece.path.display()));
                    ("somebody else's", Tone::Bad)
                }
            };
            let target = match (&piece.what, pieces::kept_as(piece)?) {
                (What::Link(target), _) => format!(" -> {}", target.display()),
                (_, Some(old)) if !theirs_is_kept => format!(" (what was there: {})", old.display()),
                (What::File(_) | What::Program(_) | What::Settings(_), _) => String::new(),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(places, "{} {}{target}", toned(verb, tone), piece.path.display());
        }
        if let Some((verb, path)) = self.leaves.line(lines) {
            let _ = writeln!(places, "{} {}", toned(verb, Tone::Busy), path.display());
        }
        if !foreign.is_empty() && !how.force {
            self.refused.add(format!(
                "{} in the way; look, then repeat with --force, or choose other places with --hooks and --fragment",
                foreign.join(", ")
            ))?;
        }
        Ok(places)
    }

    /// What the files would be, the lines first.
    fn shown(&self, lines: &Path) -> String {
        let mut text = format!("\n{}:\n{}\n", lines.display(), self.text);
        for piece in self.pieces.iter().filter(|piece| piece.path != lines) {
            if let What::File(script) | What::Program(script) = &piece.what {
                let _ = write!(text, "{}:\n{script}\n", piece.path.display());
            }
        }
        text
    }

    /// Writes all that is to be written.
    fn carry_out(&self, lines: &Path) -> anyhow::Result<()> {
        if let Some((from, to)) = &self.kept {
            std::fs::rename(from, to)
                .with_context(|| format!("{} cannot be kept as {}", from.display(), to.display()))?;
        }
        for piece in &self.pieces {
            write(piece).with_context(|| format!("{} cannot be written", piece.path.display()))?;
        }
        self.leaves.carry_out(lines)
    }
}

/// Refuses to write lines anew that have what was merged of the site's own: only slurmctld knows that, and it
/// does not answer.
fn forgets_nothing(
    pieces: &[Piece],
    lines: &Path,
    error: &SlurmError,
    refused: &mut Refusals,
) -> anyhow::Result<()> {
    let Some(piece) = pieces.iter().find(|piece| piece.path == lines) else {
        return Ok(());
    };
    if matches!(look(piece)?, Found::Older) {
        refused.add(format!(
            "slurmctld does not answer ({error}), and {} holds your own settings, merged when it last did: \
             start slurmctld and repeat, or use --force",
            lines.display()
        ))?;
    }
    Ok(())
}

/// The lines for slurm.conf.
fn fragment(config: &Config, version: Version, how: &Setup) -> Fragment {
    let mut fragment = doctor::slurm::fragment(config, version, &how.hooks);
    fragment.default_partition.clone_from(&how.default_partition);
    if let Some(idle) = how.idle {
        fragment.timeouts.idle_s = idle;
    }
    fragment
}

/// What is to be there in the end.
fn pieces(
    config: &Config,
    how: &Setup,
    fragment: &Path,
    text: String,
    refused: &mut Refusals,
) -> anyhow::Result<Vec<Piece>> {
    let hook = match &how.hook_program {
        Some(program) => std::path::absolute(program)?,
        None => programs::place(&config.program, pieces::HOOK),
    };
    let runs = hook
        .metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    if !runs {
        refused.add(format!(
            "{} is no program: build or install thiao-hook, or name it with --hook-program",
            hook.display()
        ))?;
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
        path: fragment.to_owned(),
        what: What::File(text),
    });
    Ok(pieces)
}

/// What does not go together, and what comes next.
fn advice(plan: &Plan, present: &Result<thiao_slurm::Config, SlurmError>, steps: &[String]) -> String {
    let mut warnings = match present {
        Ok(present) => Fragment {
            hooks: plan.hooks.clone(),
            ..plan.fragment.clone()
        }
        .conflicts(present)
        .iter()
        .map(ToString::to_string)
        .collect(),
        Err(error) => vec![format!(
            "slurmctld does not say which settings are in effect ({error}): of your own programs and \
             values for the same keys, the lines have only what earlier lines kept; start slurmctld and \
             repeat"
        )],
    };
    warnings.extend(plan.notes.iter().cloned());
    let mut text = String::new();
    for warning in warnings {
        let _ = writeln!(text, "Note: {warning}.");
    }
    text.push_str("Next:\n");
    for (n, step) in steps.iter().enumerate() {
        let _ = writeln!(text, "{:>3}. {step}", n + 1);
    }
    text
}
