//! `thiao image`: makes, shows and removes the images that VMs of `provider = "qemu"` run.

use super::args::{Image, ImageCommand, ImageRecipe};
use super::findings;
use crate::image::{self, Built, Listener, USUAL, Wanted, disk_of, judge};
use anyhow::{Context as _, anyhow, bail};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use thiao_cli::exit::FAILED;
use thiao_cli::output::{Cell, Printer, Tone, json, memory, now, when};
use thiao_cli::signals;
use thiao_config::{Config, ConfigError, DEFAULT_CACHE_DIR, DEFAULT_FILE, ProviderSettings, SMALL};
use thiao_core::finding::Verdict;
use thiao_qemu::Guests;
use thiao_qemu::image::built::{self, About, ImageName, Recipe};
use thiao_qemu::image::work;

/// An image, for programs.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a ImageName,
    #[serde(flatten)]
    about: &'a About,
    /// What its disk takes on this machine's, in MiB.
    disk_mb: u64,
}

pub(super) fn run(file: Option<&Path>, printer: Printer, how: &Image) -> anyhow::Result<ExitCode> {
    let cache = match &how.cache_dir {
        Some(dir) => dir.clone(),
        None => cache_of(file)?,
    };
    match &how.command {
        ImageCommand::Build { name, recipe } => {
            if name.as_str() == SMALL {
                bail!(
                    "{SMALL} is what thiao.toml calls the guests that are made from this machine's programs: give \
                     the image another name"
                );
            }
            if About::read(&cache, name)?.is_some() {
                bail!(
                    "there is an image {name} already; `thiao image rebuild {name}` makes it anew, with newer \
                     packages or others"
                );
            }
            return make(&cache, name, &recipe_of(recipe, None)?, printer);
        }
        ImageCommand::Rebuild { name, recipe } => {
            let before = existing(&cache, name)?;
            return make(&cache, name, &recipe_of(recipe, Some(before.recipe))?, printer);
        }
        ImageCommand::List { json } => list(&cache, printer, *json),
        ImageCommand::Show { name, json } => show(&cache, name, printer, *json),
        ImageCommand::Check { file: image, limit } => {
            return check(file, image, &cache, Duration::from_secs(*limit), printer);
        }
        ImageCommand::Remove { name, force } => {
            existing(&cache, name)?;
            if !force && let Some(why) = needed(file, &cache, name) {
                bail!("{why}; `thiao image remove --force {name}` removes it all the same");
            }
            built::remove(&cache, name)?;
            built::prune(&cache);
            Ok(printer.say(&format!(
                "removed {name}; VMs that run it stay, and its files go when nobody has used them for two weeks"
            ))?)
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Starts an image and judges its answers.
fn check(
    settings: Option<&Path>,
    image: &Path,
    cache: &Path,
    limit: Duration,
    printer: Printer,
) -> anyhow::Result<ExitCode> {
    let places = thiao_config::places(settings).unwrap_or_default();
    let disk = thiao_qemu::disk::brought(image)?;
    let work = tempfile::tempdir().context("no folder can be made for the check")?;
    thiao_cli::tell!(
        "starting {} on a throw-away disk; it may take a minute or two",
        image.display()
    );
    signals::watch();
    let stop = || signals::seen().is_some();
    let answers = thiao_qemu::trial::ask(&disk, cache, work.path(), limit, &stop)?;
    if let Some(code) = signals::interrupted() {
        return Ok(ExitCode::from(code));
    }
    let wanted = Wanted {
        slurmctld: thiao_slurm::installed_version(places.slurm_bin_dir.as_deref()).ok(),
        slurm_uid: thiao_config::user_id("slurm").ok(),
        munge: true,
    };
    let findings = judge(&answers, wanted);
    printer.print(&findings::draw(printer, &findings))?;
    printer.say(&findings::sum(&findings))?;
    let bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    Ok(match bad {
        true => ExitCode::from(FAILED),
        false => ExitCode::SUCCESS,
    })
}

/// The cache that the settings name; without settings, the usual one.
fn cache_of(file: Option<&Path>) -> anyhow::Result<PathBuf> {
    let usual = || PathBuf::from(DEFAULT_CACHE_DIR);
    match thiao_config::places(file) {
        Err(ConfigError::Unreadable { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(usual())
        }
        places => Ok(places?.qemu_cache_dir.unwrap_or_else(usual)),
    }
}

/// Why an image should stay: the settings name it, or do not say.
fn needed(file: Option<&Path>, cache: &Path, name: &ImageName) -> Option<String> {
    let shown = file.unwrap_or(Path::new(DEFAULT_FILE)).display();
    match Config::load(file) {
        Ok(config) => names(&config, cache, name).then(|| {
            format!("{shown} names {name}: VMs of it can be made no more without it. Name another image there first")
        }),
        Err(ConfigError::Unreadable { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(format!("whether {shown} names {name} is not known: {error}")),
    }
}

/// Whether VMs run the image of this name in this cache.
fn names(config: &Config, cache: &Path, name: &ImageName) -> bool {
    let ProviderSettings::Qemu(settings) = &config.provider else {
        return false;
    };
    let same = |a: &Path, b: &Path| {
        a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
    };
    let named = |kind: &&Guests| matches!(kind, Guests::Built(built) if built == name);
    same(cache, &settings.cache_dir) && settings.kinds().iter().any(named)
}

fn existing(cache: &Path, name: &ImageName) -> anyhow::Result<About> {
    About::read(cache, name)?.ok_or_else(|| {
        anyhow!(
            "there is no image {name} in {}; `thiao image list` shows those that are there",
            cache.display()
        )
    })
}

/// What was typed, over what was there.
fn recipe_of(typed: &ImageRecipe, before: Option<Recipe>) -> anyhow::Result<Recipe> {
    let suite = match (&typed.suite, &before) {
        (Some(suite), _) => suite.clone(),
        (None, Some(before)) => before.suite.clone(),
        (None, None) => image::this_suite().ok_or_else(|| {
            anyhow!(
                "/etc/os-release does not say which Debian this is: name a release, e.g. --suite bookworm"
            )
        })?,
    };
    let packages: BTreeSet<String> = match (typed.packages.as_slice(), &before) {
        ([], Some(before)) => before.packages.iter().cloned().collect(),
        ([], None) => USUAL.map(str::to_owned).into(),
        (typed, _) => typed.iter().cloned().collect(),
    };
    Ok(Recipe {
        suite,
        packages: packages.into_iter().collect(),
        free_mb: typed
            .free_mb
            .or(before.map(|before| before.free_mb))
            .unwrap_or(2048),
    })
}

fn make(cache: &Path, name: &ImageName, recipe: &Recipe, printer: Printer) -> anyhow::Result<ExitCode> {
    signals::watch();
    let listener = Listener {
        say: &|step| thiao_cli::tell!("{step}"),
        interrupted: &signals::seen,
    };
    let built = image::build(cache, name, recipe, listener);
    if let (Err(_), Some(code)) = (&built, signals::interrupted()) {
        thiao_cli::tell!("interrupted: nothing of it was kept");
        return Ok(ExitCode::from(code));
    }
    let Built { about, unchanged } = built?;
    let size = memory(disk_mb(cache, &about));
    let what = format!(
        "Debian {}, Slurm {}, kernel {}, {size}",
        about.recipe.suite, about.slurm_version, about.kernel_release
    );
    printer.say(&match unchanged {
        true => format!("{name} is as it was: {what}"),
        false => format!("made {name}: {what}"),
    })?;
    if !unchanged {
        printer.say(&format!(
            "VMs get it with `image = \"{name}\"` in [qemu] of thiao.toml, from thiaod's next start on"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list(cache: &Path, printer: Printer, as_json: bool) -> anyhow::Result<()> {
    work::tidy(cache);
    let all = built::all(cache)?;
    let whole = || {
        all.iter()
            .filter_map(|(name, about)| Some((name, about.as_ref().ok()?)))
    };
    if as_json {
        let shown: Vec<Shown<'_>> = whole().map(|(name, about)| shown(cache, name, about)).collect();
        return Ok(printer.print(&(json(&shown, printer.terminal)? + "\n"))?);
    }
    if all.is_empty() {
        return Ok(printer.say(&format!(
            "there are no images in {}; `thiao image build NAME` makes one",
            cache.display()
        ))?);
    }
    let row = |(name, about): &built::Named| match about {
        Ok(about) => vec![
            Cell::toned(name.as_str(), Tone::Plain),
            Cell::toned(&about.recipe.suite, Tone::Plain),
            Cell::toned(&about.slurm_version, Tone::Plain),
            Cell::toned(memory(disk_mb(cache, about)), Tone::Plain),
            Cell::toned(when(about.made * 1000, now()), Tone::Plain),
        ],
        Err(error) => vec![
            Cell::toned(name.as_str(), Tone::Plain),
            Cell::toned(format!("{error}"), Tone::Bad),
        ],
    };
    let rows = all.iter().map(row).collect();
    Ok(printer.print(&printer.table(&["NAME", "DEBIAN", "SLURM", "DISK", "MADE"], rows))?)
}

fn show(cache: &Path, name: &ImageName, printer: Printer, as_json: bool) -> anyhow::Result<()> {
    let about = existing(cache, name)?;
    if as_json {
        return Ok(printer.print(&(json(&shown(cache, name, &about), printer.terminal)? + "\n"))?);
    }
    let lines = [
        format!(
            "{name}: Debian {}, made {}",
            about.recipe.suite,
            when(about.made * 1000, now())
        ),
        format!("  Slurm      {}", about.slurm_version),
        format!("  kernel     {}", about.kernel_release),
        format!("  asked for  {}", about.recipe.packages.join(" ")),
        format!("  packages   {} in all (--json lists them)", about.packages.len()),
        format!("  digest     {}", about.digest),
        format!("  disk       {}", disk_of(cache, &about).display()),
        format!(
            "             {} on this machine; VMs write to {} of their own",
            memory(disk_mb(cache, &about)),
            memory(about.recipe.free_mb)
        ),
    ];
    Ok(printer.print(&(lines.join("\n") + "\n"))?)
}

fn shown<'a>(cache: &Path, name: &'a ImageName, about: &'a About) -> Shown<'a> {
    Shown {
        name,
        about,
        disk_mb: disk_mb(cache, about),
    }
}

/// What its disk takes; `stat` counts blocks of 512 bytes.
fn disk_mb(cache: &Path, about: &About) -> u64 {
    fs::metadata(disk_of(cache, about)).map_or(0, |meta| meta.blocks() / 2048)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_the_settings_name_stays() {
        let cache = tempfile::tempdir().unwrap();
        let file = cache.path().join("thiao.toml");
        let needed = |name: &str, cache: &Path| needed(Some(&file), cache, &name.parse().unwrap());
        assert_eq!(needed("debian", cache.path()), None, "there are no settings");
        let text = |images: &str| {
            format!(
                "cluster = \"c\"\n[qemu]\ncache_dir = {:?}\n[[nodeset]]\nname = \"a\"\nnodes = \"a[0-1]\"\n\
                 memory_mb = 512\nimage = \"debian\"\n{images}\n",
                cache.path()
            )
        };
        fs::write(&file, text("")).unwrap();
        assert!(needed("debian", cache.path()).unwrap().contains("names debian"));
        assert_eq!(needed("other", cache.path()), None);
        assert_eq!(needed("debian", "/nowhere".as_ref()), None, "of another cache");
        fs::write(&file, text("images = 7")).unwrap();
        assert!(needed("other", cache.path()).unwrap().contains("is not known"));
    }
}
