//! What each chore runs.

use anyhow::{Context, Result, bail};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Our own binaries: they find each other by lying in one folder.
const BINARIES: [&str; 6] = [
    "thiao",
    "thiaod",
    "thiao-hook",
    "thiao-guest",
    "thiao-lab",
    "thiao-sim",
];

/// The benches that need a lab with real VMs, and the options of `thiao lab bench` that choose them: how long
/// a job waits for its VM, and what job mode costs.
const LAB_BENCHES: [(&str, &[&str]); 2] = [("lab", &[]), (JOB_MODE, &["--job-mode"])];

/// The one that drains a queue.
const JOB_MODE: &str = "job-mode";

/// Our programs' other names, each a link to the program.
const LINKS: [(&str, &str); 2] = [("tsub", "thiao"), ("tclean", "thiao-hook")];

/// How many simulated worlds are run, an hour each.
const SEEDS: &str = "1000";

/// The folder of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

/// Where cargo builds, as it says itself (`CARGO_TARGET_DIR`, else `target`).
pub fn target() -> PathBuf {
    let chosen = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    root().join(chosen.unwrap_or_else(|| "target".into()))
}

/// Cargo, without what `cargo run` says of this package: ring's build script looks at that, and all that
/// needs ring would be built anew whenever `cargo xtask` and `cargo` take turns.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let ours = name.to_string_lossy();
        if ours.starts_with("CARGO_PKG_") || ours.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Where things are kept from run to run, as labs keep their images: `~/.cache/thiao`.
pub fn cache() -> Result<PathBuf> {
    let folder = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    let cache = cache.context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(cache.join("thiao"))
}

/// Shows a command that is about to be run; its program's name.
pub fn show(command: &Command) -> String {
    let words: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    let program = PathBuf::from(command.get_program());
    let program = program.file_name().unwrap_or_default().to_string_lossy();
    println!("+ {program} {}", words.join(" "));
    program.into_owned()
}

/// Runs a command and shows it first; whether it succeeded.
pub fn passes(command: &mut Command) -> Result<bool> {
    let program = show(command);
    Ok(command
        .status()
        .with_context(|| format!("{program} cannot be run"))?
        .success())
}

/// What the process ends with.
pub fn code(passed: bool) -> ExitCode {
    match passed {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Builds our own binaries, with these options of cargo's.
pub fn build(options: &[&str]) -> Result<()> {
    let mut command = cargo();
    command
        .arg("build")
        .args(options)
        .args(BINARIES.map(|name| format!("--bin={name}")));
    if !passes(&mut command)? {
        bail!("the build failed");
    }
    Ok(())
}

/// The demo itself is `thiao lab demo`: this process becomes it, so that Ctrl-C reaches it alone. Not a release
/// build: who tries it waits for the compiler, not for Thiao.
pub fn demo(args: &[String]) -> Result<ExitCode> {
    build(&[])?;
    let thiao = target().join("debug/thiao");
    Err(Command::new(&thiao).args(["lab", "demo"]).args(args).exec())
        .with_context(|| format!("{} cannot be run", thiao.display()))
}

/// Simulated worlds; `thiao-sim` says what is wrong with the arguments.
pub fn sim(args: &[String]) -> Result<ExitCode> {
    Ok(code(passes(&mut simulate(args))?))
}

/// The simulation as a command.
pub fn simulate(args: &[String]) -> Command {
    let mut command = cargo();
    command.args(["run", "--quiet", "--profile=sim", "--package=thiao-sim", "--"]);
    match args.split_first() {
        Some((first, names)) if first == "--planted" => command.arg("planted").args(names),
        _ if args.iter().any(|arg| arg == "--seeds") => command.arg("run").args(args),
        _ => command.args(["run", "--seeds", SEEDS]).args(args),
    };
    command
}

/// Whether cargo has this subcommand.
pub fn has(subcommand: &str) -> bool {
    cargo()
        .args([subcommand, "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Takes what was typed apart: the benches' names, and how many jobs are drained in job mode.
pub fn bench_args(args: &[String]) -> Result<(&[String], Option<u32>)> {
    let Some(at) = args.iter().position(|arg| arg == "--jobs") else {
        return Ok((args, None));
    };
    match &args[at + 1..] {
        [count] => {
            let count = count
                .parse()
                .with_context(|| format!("--jobs {count} is no number"))?;
            Ok((&args[..at], Some(count)))
        }
        _ => bail!("--jobs takes one number and comes last"),
    }
}

/// All benches of all crates, or those named.
pub fn bench(names: &[String], jobs: Option<u32>) -> Result<ExitCode> {
    build(&["--release"])?;
    let benches = benches()?;
    let known: Vec<&str> = benches
        .iter()
        .map(|(_, bench)| bench.as_str())
        .chain(LAB_BENCHES.map(|(name, _)| name))
        .collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("there is no bench {unknown}; there are: {}", known.join(", "));
    }
    let mut failed = false;
    for (package, bench) in benches {
        if names.is_empty() || names.contains(&bench) {
            let manifest = package.join("Cargo.toml");
            failed |= !passes(
                cargo()
                    .args(["bench", "--manifest-path"])
                    .arg(manifest)
                    .args(["--bench", &bench]),
            )?;
        }
    }
    for (name, options) in LAB_BENCHES {
        if names.is_empty() || names.iter().any(|named| named == name) {
            let mut command = Command::new(target().join("release/thiao"));
            command.args(["lab", "bench"]).args(options);
            if let (JOB_MODE, Some(jobs)) = (name, jobs) {
                command.arg("--jobs").arg(jobs.to_string());
            }
            failed |= !passes(&mut command)?;
        }
    }
    Ok(code(!failed))
}

/// The folder of each package that has benches, with their names.
fn benches() -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for package in std::fs::read_dir(root().join("crates")).context("crates/ cannot be read")? {
        let package = package?.path();
        let Ok(files) = std::fs::read_dir(package.join("benches")) else {
            continue;
        };
        for file in files {
            let file = file?.path();
            let one_file = file.extension().is_some_and(|end| end == "rs");
            if (one_file || file.join("main.rs").is_file())
                && let Some(name) = file.file_stem()
            {
                found.push((package.clone(), name.to_string_lossy().into_owned()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Release binaries, manual pages and shell completions in `target/dist`.
pub fn dist() -> Result<ExitCode> {
    build(&["--release"])?;
    let dist = target().join("dist");
    if dist.exists() {
        std::fs::remove_dir_all(&dist).context("the old target/dist cannot be removed")?;
    }
    let bin = dist.join("bin");
    std::fs::create_dir_all(&bin).context("target/dist cannot be made")?;
    for name in BINARIES {
        std::fs::copy(target().join("release").join(name), bin.join(name))
            .with_context(|| format!("{name} cannot be copied"))?;
    }
    for (name, program) in LINKS {
        std::os::unix::fs::symlink(program, bin.join(name))
            .with_context(|| format!("{name} cannot be linked"))?;
    }
    let papers = ["run", "--quiet", "--release", "--package=thiao-papers", "--"];
    if !passes(cargo().args(papers).arg(&dist))? {
        bail!("manual pages and completions could not be made");
    }
    let man = dist.join("man");
    std::os::unix::fs::symlink("thiao-submit.1", man.join("tsub.1"))
        .context("tsub's manual page cannot be linked")?;
    let page = root().join("packaging/man/tclean.1");
    std::fs::copy(&page, man.join("tclean.1"))
        .with_context(|| format!("{} cannot be copied", page.display()))?;
    for file in [
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "packaging/systemd/thiaod.service",
        "packaging/systemd/opennebula.conf",
        "packaging/thiao.toml.example",
        "packaging/thiao-opennebula.toml.example",
    ] {
        let from = root().join(file);
        if let (true, Some(name)) = (from.exists(), from.file_name()) {
            std::fs::copy(&from, dist.join(name)).with_context(|| format!("{file} cannot be copied"))?;
        }
    }
    // What the examples and the README speak of.
    let docs = dist.join("docs");
    std::fs::create_dir_all(&docs).context("target/dist cannot be made")?;
    for entry in std::fs::read_dir(root().join("docs")).context("docs/ cannot be read")? {
        let from = entry?.path();
        if let Some(name) = from.file_name() {
            std::fs::copy(&from, docs.join(name))
                .with_context(|| format!("{} cannot be copied", from.display()))?;
        }
    }
    println!("{}", dist.display());
    Ok(ExitCode::SUCCESS)
}
