//! The comparison as programs read it: JSON, and a line for each job.

use super::compared::Compared;
use anyhow::Context as _;
use serde_json::{Value, json};
use std::io::{BufWriter, Write};
use std::path::Path;
use thiao_trace::figures::{Class, Figures, Group, OneJob};
use thiao_trace::policies::{Asked, EXACT};
use thiao_trace::runs::Ran;
use thiao_trace::workload::Workload;

fn group(of: &Group) -> Value {
    json!({
        "jobs": of.jobs,
        "cpu_share": of.cpu_share,
        "mean_stretch": of.mean_stretch,
        "median_stretch": of.median_stretch,
        "p99_stretch": of.p99_stretch,
        "max_stretch": of.max_stretch,
        "mean_turnaround_s": of.mean_turnaround,
        "p99_turnaround_s": of.p99_turnaround,
        "turnaround_ratio": of.turnaround_ratio,
        "mean_wait_s": of.mean_wait,
        "median_wait_s": of.median_wait,
        "p90_wait_s": of.p90_wait,
        "p99_wait_s": of.p99_wait,
        "mean_start_s": of.mean_start,
        "later": of.later,
    })
}

fn policy(name: &str, figures: &Figures, seconds: f64, user: &dyn Fn(u32) -> String) -> Value {
    let mut value = group(&figures.all);
    let classes = Class::ALL.iter().zip(&figures.classes);
    let classes = classes.map(|(class, of)| {
        let mut value = group(of);
        value["class"] = json!(class.name());
        value
    });
    let users = figures.users.iter().map(|(who, of)| {
        let mut value = group(of);
        value["user"] = json!(user(*who));
        value
    });
    let more = json!({
        "policy": name,
        "mean_weekly_max_stretch": figures.mean_weekly_max_stretch,
        "worst_week_ratio": figures.worst_week_ratio,
        "pauses_per_job": figures.pauses_per_job,
        "saves_per_job": figures.saves_per_job,
        "moves_per_job": figures.moves_per_job,
        "most_moves": figures.most_moves,
        "utilisation": figures.utilisation,
        "underutilisation": figures.underutilisation,
        "seconds": seconds,
        "classes": classes.collect::<Vec<_>>(),
        "users": users.collect::<Vec<_>>(),
    });
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    value
}

/// What was run, for programs.
#[derive(Debug)]
pub struct About<'a> {
    pub log: &'a str,
    /// What was odd in it.
    pub odd: Value,
    pub costs: Value,
    /// What is other than in the log, in words.
    pub what_if: String,
    /// The runs of each policy.
    pub parts: &'a [Workload],
}

/// All figures; times in seconds.
pub fn json(about: &About<'_>, compared: &Compared, user: &dyn Fn(u32) -> String) -> Value {
    let first = about.parts.first();
    let policies = compared.policies.iter();
    let policies = policies.map(|of| policy(&of.name, &of.figures, of.seconds, user));
    json!({
        "log": about.log,
        "jobs": about.parts.iter().map(|part| part.jobs.len()).sum::<usize>(),
        "hosts": first.map_or(0, |part| part.hosts),
        "runs": about.parts.len(),
        "odd": about.odd,
        "reference": EXACT,
        "costs": about.costs,
        "what_if": about.what_if,
        "policies": policies.collect::<Vec<_>>(),
    })
}

/// The names of the columns of the file of jobs.
const HEAD: &str = "policy,run,job,user,tasks,submit_s,run_s,limit_s,start_s,end_s,turnaround_s,wait_s,stretch,\
                    pauses,saves,moves";

/// A field as spreadsheets take it: no end of it within, and nothing that they would reckon.
fn field(text: &str) -> String {
    let begins = |c: char| matches!(c, '=' | '+' | '-' | '@');
    let text = if text.starts_with(begins) {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

/// A line for each job under each policy.
///
/// # Errors
/// When the file cannot be written.
pub fn csv(
    file: &Path,
    parts: &[Workload],
    asked: &[Asked],
    ran: &[Vec<Ran>],
    user: &dyn Fn(u32) -> String,
) -> anyhow::Result<()> {
    let write = || {
        let mut to = BufWriter::new(std::fs::File::create(file)?);
        writeln!(to, "{HEAD}")?;
        for (asked, ran) in asked.iter().zip(ran) {
            for (part, ran) in parts.iter().zip(ran) {
                let name = field(&part.name);
                for (job, ended) in part.jobs.iter().zip(&ran.outcome.jobs) {
                    let got = OneJob::of(job, ended);
                    let seconds = |ms: u64| ms as f64 / 1000.0;
                    writeln!(
                        to,
                        "{},{name},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
                        asked.name,
                        job.id,
                        field(&user(job.user)),
                        job.tasks,
                        job.submit,
                        job.run,
                        job.limit,
                        seconds(ended.start),
                        seconds(ended.end),
                        got.turnaround,
                        got.wait,
                        got.stretch,
                        ended.pauses,
                        ended.saves,
                        ended.moves,
                    )?;
                }
            }
        }
        to.flush()
    };
    write().with_context(|| format!("{} cannot be written", file.display()))
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_are_one_field_and_no_formula() {
        assert_eq!(
            ["a", "a, b", "a\"b", "=1+1", "-x,y"].map(field),
            ["a", "\"a, b\"", "\"a\"\"b\"", "'=1+1", "\"'-x,y\""]
        );
    }
}
