//! Plots of the runs, as files.

use anyhow::{Context as _, bail};
use std::path::Path;
use thiao_trace::figures::OneJob;
use thiao_trace::plot::{Line, gantt, stretch, usage};
use thiao_trace::policies::Asked;
use thiao_trace::record::Window;
use thiao_trace::runs::Ran;
use thiao_trace::workload::Workload;

/// That the folder of a file to be written is there is asked before the long work, not after it.
///
/// # Errors
/// When there is no such folder.
pub fn folder_for(file: Option<&Path>) -> anyhow::Result<()> {
    let folder = file
        .and_then(Path::parent)
        .filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        Some(folder) if !folder.is_dir() => bail!("{} is no folder: make it first", folder.display()),
        _ => Ok(()),
    }
}

/// A policy's name as that of a file.
fn file_name(policy: &str) -> String {
    let name = policy.replace('*', "-star");
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect()
}

/// Draws all into this folder: stretch of all runs, CPU in use and hosts of the one that was looked at closely.
///
/// # Errors
/// When the folder or a file in it cannot be written.
pub fn draw(
    dir: &Path,
    log: &str,
    parts: &[Workload],
    asked: &[Asked],
    ran: &[Vec<Ran>],
    (at, window): (usize, Window),
) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let write = |name: &str, text: String| {
        let file = dir.join(name);
        std::fs::write(&file, text).with_context(|| format!("{} cannot be written", file.display()))
    };
    let stretches = asked.iter().zip(ran).map(|(asked, ran)| {
        let jobs = parts
            .iter()
            .zip(ran)
            .flat_map(|(part, ran)| part.jobs.iter().zip(&ran.outcome.jobs));
        Line {
            name: &asked.name,
            of: jobs.map(|(job, ended)| OneJob::of(job, ended).stretch).collect(),
        }
    });
    write("stretch.svg", stretch(log, &stretches.collect::<Vec<_>>()))?;
    let seen = asked
        .iter()
        .zip(ran)
        .filter_map(|(asked, ran)| Some((asked, ran[at].recording.as_ref()?)));
    let lines: Vec<_> = seen
        .clone()
        .map(|(asked, of)| Line {
            name: &asked.name,
            of,
        })
        .collect();
    let titled = match parts {
        [_] => Workload {
            name: log.to_owned(),
            ..parts[at].clone()
        },
        _ => Workload {
            name: format!("{log}, {}", parts[at].name),
            ..parts[at].clone()
        },
    };
    write("usage.svg", usage(&titled.name, &lines))?;
    for (asked, recording) in seen {
        let svg = gantt(
            &titled,
            &asked.name,
            window,
            &recording.segments,
            asked.is_pooled(),
        );
        write(&format!("hosts-{}.svg", file_name(&asked.name)), svg)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use thiao_trace::policies;

    #[test]
    fn each_policy_has_a_file_of_its_own() {
        let names: HashSet<_> = policies::all().map(|(name, _)| file_name(name)).collect();
        assert_eq!(names.len(), policies::all().count());
        assert_eq!(file_name("greedypm*/per/vt600"), "greedypm-star-per-vt600");
    }
}
