//! The Standard Workload Format of the Parallel Workloads Archive: a line per job, 18 numbers, -1 for what
//! is unknown, and `;` before comments. What the fields are and what their values mean is in
//! <https://www.cs.huji.ac.il/labs/parallel/workload/swf.html>; how odd ones are taken is in [`Oddity`].

use super::log::{Header, LONGEST, Need, Processors, Record};
use super::odd::{Odd, Oddity};
use super::rules;

/// How many fields a line has.
pub const FIELDS: usize = 18;
/// A line with fewer holds no job: number, submission, wait, run time, processors.
pub const NEEDED: usize = 5;

/// Takes what a comment says.
pub fn comment(header: &mut Header, line: &str) {
    let Some((key, value)) = line.trim_start_matches(';').split_once(':') else {
        return;
    };
    let value = value.trim();
    let text = || Some(value.to_owned()).filter(|value| !value.is_empty());
    match key.trim() {
        "Computer" => header.computer = text(),
        "Installation" => header.installation = text(),
        "Acknowledge" => header.acknowledge = text(),
        // CTC's: `MaxNodes: 338 (batch partition; 512 total)`.
        "MaxNodes" => header.nodes = leading(value),
        "MaxProcs" => header.processors = leading(value),
        "UnixStartTime" => header.begins = value.parse().ok(),
        _ => {}
    }
}

fn leading(value: &str) -> Option<u32> {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    value[..digits].parse().ok().filter(|number| *number > 0)
}

/// The numbers of a line; those that it does not have are -1.
///
/// # Errors
/// What is wrong with the line.
pub fn numbers(line: &str) -> Result<([f64; FIELDS], usize), String> {
    let mut numbers = [-1.; FIELDS];
    let mut count = 0;
    for word in line.split_ascii_whitespace() {
        let Some(number) = numbers.get_mut(count) else {
            return Err(format!("more than {FIELDS} fields"));
        };
        count += 1;
        *number = word
            .parse()
            .ok()
            .filter(|number: &f64| number.abs() < 1e15)
            .ok_or_else(|| format!("field {count} is no number: {}", shown(word)))?;
    }
    if count < NEEDED {
        Err(format!("{count} fields of {FIELDS}"))
    } else {
        Ok((numbers, count))
    }
}

/// A word of a log for people: short, and nothing that a terminal would obey.
pub fn shown(word: &str) -> String {
    let short: String = word.chars().take(20).collect();
    format!("{short:?}")
}

/// The job of a line, if there is one.
///
/// # Errors
/// What is wrong with the line.
pub fn job(line: &str, odd: &mut Odd) -> Result<Option<Record>, String> {
    let (fields, count) = numbers(line)?;
    let [
        id,
        submit,
        wait,
        run,
        got,
        _,
        used,
        asked,
        limit,
        memory,
        status,
        user,
        _,
        _,
        queue,
        partition,
        ..,
    ] = fields;
    // Of a job that was checkpointed, 2 to 4 are parts; the whole has 0, 1 or 5.
    let gone = if (2. ..=4.).contains(&status) {
        Some(Oddity::Part)
    } else if submit < 0. {
        Some(Oddity::NoSubmit)
    } else if run.round() < 1. {
        Some(Oddity::NoRun)
    } else if asked.max(got).round() < 1. {
        Some(Oddity::NoProcessors)
    } else {
        None
    };
    if let Some(gone) = gone {
        odd.count(gone);
        return Ok(None);
    }
    let seconds = |field: f64, what: &str| match field.round() as u64 {
        seconds if seconds > LONGEST => Err(format!("{what} of {field:.0} s")),
        seconds => Ok(seconds),
    };
    let (submit, run) = (
        seconds(submit, "a submission after")?,
        seconds(run, "a run time")?,
    );
    let limit = (limit >= 1.)
        .then(|| seconds(limit, "a time limit"))
        .transpose()?;
    let wait = (wait >= 0.).then(|| seconds(wait, "a wait")).transpose()?;
    let (asked, got) = (whole(asked, "processors")?, whole(got, "processors")?);
    let all = u64::from(asked.max(got));
    let kib = |each: f64| {
        if each > 0. {
            (each.ceil() as u64).saturating_mul(all)
        } else {
            0
        }
    };
    let need = Processors {
        asked,
        got,
        nodes: 0,
        memory_asked: kib(memory),
        memory_got: kib(used),
    };
    if count < FIELDS {
        odd.count(Oddity::Short);
    }
    let partition = if partition > 0. { partition } else { queue };
    Ok(Some(Record {
        id: id.max(0.) as u64,
        submit,
        wait,
        run,
        limit: rules::limit(limit, run, odd),
        need: Need::Processors(rules::processors(need, odd)),
        user: if user < 0. {
            odd.count(Oddity::NoUser);
            0
        } else {
            whole(user, "a user")?
        },
        partition: whole(partition, "a partition")?,
        efficiency: 1000,
    }))
}

/// A number that is 0 where it is unknown.
fn whole(field: f64, what: &str) -> Result<u32, String> {
    let field = field.round().max(0.);
    if field > f64::from(u32::MAX - 1) {
        Err(format!("{what}: {field:.0}"))
    } else {
        Ok(field as u32)
    }
}
