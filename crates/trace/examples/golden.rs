//! Holds the planner to the golden runs: `cargo xtask golden` runs this. The folder with them is named by `THIAO_TRACES`,
//! by default `../shared/traces` beside the repository.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use thiao_trace::golden::{self, Line, goals};

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("golden: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> anyhow::Result<ExitCode> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/traces");
    let folder = std::env::var_os("THIAO_TRACES").map_or(beside, PathBuf::from);
    let tell = |line: &Line| {
        println!(
            "{:<9} {:<15} {} of {} {}",
            line.of,
            line.algorithm,
            line.equal,
            line.equal + line.different,
            line.unit
        );
        for example in &line.examples {
            println!("    {example}");
        }
    };
    let lines = golden::all(&folder, &tell)?;
    println!(
        "\n{:<9} {:<15} {:<6} {:>8} {:>8} {:>10} {:>8}",
        "of", "algorithm", "", "compared", "equal", "different", "seconds"
    );
    for line in &lines {
        let (all, took) = (line.equal + line.different, line.took.as_secs_f64());
        println!(
            "{:<9} {:<15} {:<6} {all:>8} {:>8} {:>10} {took:>8.2}",
            line.of, line.algorithm, line.unit, line.equal, line.different
        );
    }
    let sum = |of: fn(&Line) -> usize| lines.iter().map(of).sum::<usize>();
    let (equal, different) = (sum(|line| line.equal), sum(|line| line.different));
    println!("\n{equal} equal, {different} different");
    let missed = goals(&folder)?;
    Ok(ExitCode::from(u8::from(different > 0 || missed > 0)))
}

/// What the policy of sharing reaches; how many goals it does not.
fn goals(folder: &Path) -> anyhow::Result<usize> {
    let reached = goals::all(folder)?;
    println!(
        "\n{:<17} {:<24} {:>8} {:>8}",
        "policy shared on", "figure", "at most", "is"
    );
    for row in &reached {
        let missed = if row.is_met() { "" } else { "  MISSED" };
        println!(
            "{:<17} {:<24} {:>8.3} {:>8.3}{missed}",
            row.of, row.what, row.goal, row.got
        );
    }
    Ok(reached.iter().filter(|row| !row.is_met()).count())
}
