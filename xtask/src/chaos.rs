//! Chaos: everything of a lab is killed at random moments.

use crate::steps::{build, cargo, code, passes};
use anyhow::{Context, Result, bail};
use std::process::ExitCode;

/// The test that does it.
const TEST: &str = "lab_chaos_ends_in_peace";

/// How long things are killed, and which ones.
#[derive(Debug, PartialEq, Eq)]
pub struct Chaos {
    minutes: u64,
    /// Another one each time if none is given; printed either way.
    seed: Option<u64>,
}

impl Chaos {
    /// Reads what was typed.
    ///
    /// # Errors
    /// When it is not understood.
    pub fn read(args: &[String]) -> Result<Self> {
        let mut chaos = Self {
            minutes: 10,
            seed: None,
        };
        for pair in args.chunks(2) {
            let [name, value] = pair else {
                bail!("{} needs a number", pair.join(" "))
            };
            let value: u64 = value
                .parse()
                .with_context(|| format!("{name} {value} is no number"))?;
            match name.as_str() {
                "--minutes" => chaos.minutes = value,
                "--seed" => chaos.seed = Some(value),
                other => bail!("chaos takes --minutes and --seed, not {other}"),
            }
        }
        Ok(chaos)
    }
}

/// Runs the test, which is none of the ordinary ones.
pub fn chaos(chaos: &Chaos) -> Result<ExitCode> {
    build(&[])?;
    let mut command = cargo();
    command
        .args([
            "test",
            "--package=thiao-lab",
            "--test=lab_chaos",
            "--",
            "--nocapture",
            "--ignored",
            "--exact",
            TEST,
        ])
        .env("THIAO_CHAOS_SECONDS", (chaos.minutes * 60).to_string());
    let seed = chaos.seed.unwrap_or_else(|| u64::from(std::process::id()));
    command.env("THIAO_CHAOS_SEED", seed.to_string());
    Ok(code(passes(&mut command)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chaos_is_asked_for_in_minutes_and_by_seed() {
        let read = |typed: &str| {
            let args: Vec<String> = typed.split_whitespace().map(str::to_owned).collect();
            Chaos::read(&args)
        };
        let chaos = |minutes, seed| Chaos { minutes, seed };
        assert_eq!(read("").unwrap(), chaos(10, None));
        assert_eq!(read("--seed 7 --minutes 2").unwrap(), chaos(2, Some(7)));
        for wrong in ["--minutes", "--minutes x", "--hours 1", "7"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
