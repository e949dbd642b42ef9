//! Job sets of simulations: a line per job, `trace id submit tasks cpu memory run estimate user efficiency`,
//! where CPU and memory are parts of a node, each task's, and times are seconds. There may be several
//! traces in a file.

use super::log::{LONGEST, Need, Record};
use super::odd::Odd;
use super::rules;
use super::swf::shown;
use std::str::FromStr;

/// How many fields a line has.
pub const FIELDS: usize = 10;

/// The trace of a line, and the job.
///
/// # Errors
/// What is wrong with the line.
pub fn job<'a>(line: &'a str, odd: &mut Odd) -> Result<(&'a str, Record), String> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [
        trace,
        id,
        submit,
        tasks,
        cpu,
        memory,
        run,
        limit,
        user,
        efficiency,
    ] = words[..]
    else {
        return Err(format!("{} fields, not {FIELDS}", words.len()));
    };
    let (run, limit) = (seconds("run time", run)?, seconds("estimate", limit)?);
    let tasks = number::<u32>("tasks", tasks)?;
    let efficiency = part("efficiency", efficiency)?;
    if run == 0 || tasks == 0 {
        return Err("no run time, or no tasks".into());
    }
    let job = Record {
        id: number("id", id)?,
        submit: seconds("submit", submit)?,
        wait: None,
        run,
        limit: rules::limit(Some(limit).filter(|limit| *limit > 0), run, odd),
        need: Need::Fractions {
            tasks,
            cpu: part("CPU", cpu)?,
            memory: part("memory", memory)?,
        },
        user: number("user", user)?,
        partition: 0,
        efficiency: ((efficiency * 1000.).round() as u16).max(1),
    };
    Ok((trace, job))
}

fn number<T: FromStr>(what: &str, word: &str) -> Result<T, String> {
    word.parse()
        .map_err(|_| format!("{what} is no such number: {}", shown(word)))
}

fn seconds(what: &str, word: &str) -> Result<u64, String> {
    match number(what, word)? {
        seconds if seconds > LONGEST => Err(format!("{what} of {seconds} s")),
        seconds => Ok(seconds),
    }
}

/// Something over 0 and at most 1.
fn part(what: &str, word: &str) -> Result<f64, String> {
    let part = number::<f64>(what, word)?;
    if part > 0. && part <= 1. {
        Ok(part)
    } else {
        Err(format!("{what} is not over 0 and up to 1: {part}"))
    }
}
