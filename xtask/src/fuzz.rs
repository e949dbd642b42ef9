//! `cargo xtask fuzz`: builds the targets of `crates/fuzz` with libFuzzer and runs them.
//!
//! What `cargo fuzz` does with a nightly compiler: LLVM's own coverage pass is asked
//! for by hand, which stable Rust lets one do. No sanitizer: almost no `unsafe` is ours.

use crate::steps::{cargo, passes, root, target};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// How many inputs a target gets when nobody says.
const RUNS: u64 = 10_000_000;

/// The most memory of the whole process, and of one allocation, in MiB: inputs have kilobytes.
const MEMORY_MB: (u32, u32) = (1024, 64);

/// The longest time for one input, in seconds. A thousand times what any should take.
const TIMEOUT: u32 = 5;

/// Counts how often each edge of the program is taken, and what it compares.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// What was typed: targets, and the inputs for each.
struct Args {
    names: Vec<String>,
    runs: u64,
}

fn wanted(args: &[String]) -> Result<Args> {
    let mut wanted = Args {
        names: Vec::new(),
        runs: RUNS,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--runs" => {
                let count = args.next().context("--runs takes a number")?;
                wanted.runs = count
                    .parse()
                    .with_context(|| format!("--runs {count} is no number"))?;
            }
            option if option.starts_with('-') => {
                bail!("fuzz takes names of targets and --runs N, not {option}")
            }
            name => wanted.names.push(name.to_owned()),
        }
    }
    Ok(wanted)
}

/// A target, as the program lists it.
struct Target {
    name: String,
    longest: String,
    seeds: Vec<PathBuf>,
}

/// Runs the named targets, or all, one after another.
pub fn fuzz(args: &[String]) -> Result<ExitCode> {
    let wanted = wanted(args)?;
    let program = build()?;
    let targets = list(&program)?;
    if let Some(unknown) = wanted
        .names
        .iter()
        .find(|name| targets.iter().all(|target| target.name != **name))
    {
        let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
        bail!("there is no target {unknown}; there are: {}", names.join(", "));
    }
    let mut failed = Vec::new();
    for target in &targets {
        if (wanted.names.is_empty() || wanted.names.contains(&target.name))
            && !run(&program, target, wanted.runs)?
        {
            failed.push(target.name.as_str());
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("xtask: something was found: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// Where all of it is kept: the build, what was learned, and what was found.
fn place() -> PathBuf {
    target().join("fuzz")
}

fn build() -> Result<PathBuf> {
    let compiler = Command::new("c++").arg("--version").output();
    if !compiler.is_ok_and(|output| output.status.success()) {
        bail!("libFuzzer is built by a C++ compiler, and there is none: apt-get install g++");
    }
    let about = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("rustc cannot be run")?;
    let about = String::from_utf8_lossy(&about.stdout).into_owned();
    let host = about
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc -vV names no host")?;
    let mut command = cargo();
    // With a target named, build scripts and macros are built without the coverage.
    command
        .args([
            "build",
            "--package=thiao-fuzz",
            "--features=libfuzzer",
            "--profile=fuzz",
        ])
        .args(["--target", host, "--target-dir"])
        .arg(place())
        .env("RUSTFLAGS", COVERAGE);
    if !passes(&mut command)? {
        bail!("the build failed");
    }
    Ok(place().join(host).join("fuzz/fuzz"))
}

fn list(program: &Path) -> Result<Vec<Target>> {
    let output = Command::new(program)
        .env_remove("FUZZ_TARGET")
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("{} cannot be run", program.display()))?;
    let package = root().join("crates/fuzz");
    let target = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        Some(Target {
            name: words.next()?,
            longest: words.next()?,
            seeds: words.map(|folder| package.join(folder)).collect(),
        })
    };
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(target)
        .collect())
}

/// Runs one target; whether nothing was found.
fn run(program: &Path, target: &Target, runs: u64) -> Result<bool> {
    let place = place();
    let learned = place.join("corpus").join(&target.name);
    let found = place.join("found").join(&target.name);
    for folder in [&learned, &found] {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    let words = place.join(format!("{}.dict", target.name));
    fs::write(&words, dictionary(&target.seeds)?)
        .with_context(|| format!("{} cannot be written", words.display()))?;
    let log = place.join(format!("{}.log", target.name));
    let output = File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;

    println!("{}: {runs} inputs; {} grows", target.name, log.display());
    let mut command = Command::new(program);
    command
        .env("FUZZ_TARGET", &target.name)
        .arg(format!("-runs={runs}"))
        .arg(format!("-max_len={}", target.longest))
        .arg(format!("-timeout={TIMEOUT}"))
        .arg(format!("-rss_limit_mb={}", MEMORY_MB.0))
        .arg(format!("-malloc_limit_mb={}", MEMORY_MB.1))
        .arg(format!("-dict={}", words.display()))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args(["-print_final_stats=1", "-use_value_profile=0"])
        // What takes long is changed less often: many thousands of nodes are no news.
        .arg("-entropic_scale_per_exec_time=1")
        .arg(&learned)
        .args(&target.seeds)
        .stdout(output.try_clone()?)
        .stderr(output);
    let began = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("{} cannot be run", program.display()))?;
    let told = fs::read(&log).with_context(|| format!("{} cannot be read", log.display()))?;
    let told = String::from_utf8_lossy(&told);
    println!("{}", summary(target, &told, began.elapsed().as_secs_f64()));
    if !status.success() {
        println!("{}", found_something(program, target, &told));
    }
    Ok(status.success())
}

/// What was done, by libFuzzer's own count.
fn summary(target: &Target, told: &str, seconds: f64) -> String {
    let stat = |name: &str| {
        told.lines()
            .find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name)?.strip_prefix(':'))
            .map_or("?", str::trim)
    };
    // `#200000 DONE   cov: 187 ft: 978 corp: 268/14960b ...`, and such a line for all that is new.
    let last = told
        .lines()
        .rev()
        .find(|line| line.contains(" cov: "))
        .unwrap_or_default();
    let word = |name: &str| {
        let mut words = last.split_whitespace().skip_while(|word| *word != name);
        words.nth(1).unwrap_or("?").to_owned()
    };
    format!(
        "{}: {} inputs in {seconds:.0} s, {} a second; {} edges, {} features; {} MiB at most",
        target.name,
        stat("number_of_executed_units"),
        stat("average_exec_per_sec"),
        word("cov:"),
        word("ft:"),
        stat("peak_rss_mb"),
    )
}

/// The end of what was said, and how to see it again.
fn found_something(program: &Path, target: &Target, told: &str) -> String {
    let shown = told
        .lines()
        .filter(|line| {
            ["panicked at", "ERROR", "SUMMARY"]
                .iter()
                .any(|word| line.contains(word))
        })
        .collect::<Vec<_>>()
        .join("\n");
    let kept = told
        .lines()
        .find_map(|line| line.split_once("Test unit written to "))
        .map_or("(the input was not kept)", |(_, file)| file);
    format!(
        "{shown}\nThe input is kept. Again: FUZZ_TARGET={} {} {kept}\nWhen it is mended, the input becomes a file in crates/fuzz/corpus/{}.",
        target.name,
        program.display(),
        target.name
    )
}

/// The words of the seeds: what is made up is made up of them too. (Comparisons of whole texts are
/// not seen by the coverage.)
fn dictionary(seeds: &[PathBuf]) -> Result<String> {
    let mut words = BTreeSet::new();
    for folder in seeds {
        for file in fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))? {
            let file = file?.path();
            if !file.is_file() {
                continue;
            }
            let bytes = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
            words.extend(
                bytes
                    .split(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')))
                    .filter(|word| (3..=32).contains(&word.len()))
                    .map(|word| String::from_utf8_lossy(word).into_owned()),
            );
        }
    }
    Ok(words.iter().map(|word| format!("\"{word}\"\n")).collect())
}
