//! Runs that are held to published and recomputed figures, equal to the last digit.
//!
//! The folder with the figures holds logs of the Parallel Workloads Archive, and is not a part of the repository.

pub mod columns;
pub mod goals;
mod line;
pub mod published;
pub mod rows;

use crate::lublin::{self, Drawn, Kinds, Model};
use crate::read::{self, Log, Options, Shape, Unit};
use crate::workload::{TraceJob, Workload};
use anyhow::Context as _;
pub use line::Line;
use published::Published;
use rows::Row;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use thiao_share::Host;

/// Compares all that the folder has, and tells each line as soon as it is there.
///
/// # Errors
/// If the folder or a file of it is missing, or cannot be read, or a run comes to no end.
pub fn all(folder: &Path, tell: &(dyn Fn(&Line) + Sync)) -> anyhow::Result<Vec<Line>> {
    anyhow::ensure!(
        folder.is_dir(),
        "there is no folder {}: name the one with the golden runs in THIAO_TRACES",
        folder.display()
    );
    let mut lines = Vec::new();
    for published in Published::all() {
        let line = published::compare(&published, &published.read(folder)?)?;
        tell(&line);
        lines.push(line);
    }
    let path = folder.join("dfrs-golden.csv");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let rows = rows::read(&text).with_context(|| format!("cannot use {}", path.display()))?;
    let traces = traces(folder)?;
    let mut groups: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
    for row in &rows {
        groups.entry((&row.dataset, &row.name)).or_default().push(row);
    }
    for ((dataset, name), rows) in groups {
        let line = compare(dataset, name, &rows, &traces)?;
        tell(&line);
        lines.push(line);
    }
    Ok(lines)
}

/// The traces of the golden runs, by their set and their name.
pub type Traces = BTreeMap<(String, String), Workload>;

/// Reads or makes the traces of all rows.
fn traces(folder: &Path) -> anyhow::Result<Traces> {
    let log = |path: PathBuf| read::any(&path, &Options::default());
    let mut traces = Traces::new();
    let mut add = |set: &str, workloads: Vec<Workload>| {
        traces.extend(
            workloads
                .into_iter()
                .map(|workload| ((set.to_owned(), workload.name.clone()), workload)),
        );
    };
    add("hpc2n", hpc2n(&log(folder.join("HPC2N-2002-2.1-cln.swf.gz"))?)?);
    add("lubT", typed(&log(folder.join("jobs/lublin-lubT.txt.gz"))?)?);
    add("lubN", (1..=100).map(untyped).collect());
    Ok(traces)
}

/// The weeks of HPC2N.
///
/// # Errors
/// If no job is left of the log.
pub fn hpc2n(log: &Log) -> anyhow::Result<Vec<Workload>> {
    Ok(Shape::default()
        .workloads(log)?
        .0
        .iter()
        .flat_map(Workload::weeks)
        .collect())
}

/// Traces of typed jobs, of which a job set holds what was drawn for their memory.
///
/// # Errors
/// If no job is left of the log.
pub fn typed(log: &Log) -> anyhow::Result<Vec<Workload>> {
    let shape = Shape {
        hosts: Some(128),
        unit: Some(Unit::Percent),
        ..Shape::default()
    };
    Ok(shape.workloads(log)?.0)
}

/// A trace of untyped jobs on nodes of four cores; jobs of one node use one. Their memory was drawn, too, but no algorithm
/// that has rows of them looks at it.
#[must_use]
pub fn untyped(seed: u32) -> Workload {
    let model = Model {
        kinds: Kinds::Untyped,
        seed,
        ..Model::default()
    };
    let job = |(index, drawn): (usize, Drawn)| TraceJob {
        id: index as u64 + 1,
        submit: drawn.submit,
        run: drawn.run,
        tasks: drawn.nodes,
        cpu: if drawn.nodes == 1 { 25 } else { 100 },
        memory: 10,
        limit: drawn.run,
        user: 0,
        partition: 0,
        wait: None,
        efficiency: 1000,
    };
    Workload {
        name: format!("s{seed:03}"),
        hosts: model.nodes,
        host: Host {
            cpu: 100,
            memory: 100,
        },
        jobs: lublin::draw(&model).into_iter().enumerate().map(job).collect(),
    }
}

/// Runs an algorithm over all traces of a set, on all cores.
///
/// # Errors
/// If a trace is missing, or a run comes to no end.
pub fn compare(dataset: &str, name: &str, rows: &[&Row], traces: &Traces) -> anyhow::Result<Line> {
    let begin = Instant::now();
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = difference(row, traces);
            results
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((&row.trace, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(trace, _)| *trace);
    let mut line = Line::new(dataset, name, "rows");
    for (_, result) in results {
        line.count(result?);
    }
    line.took = begin.elapsed();
    Ok(line)
}

/// What differs between a row and what is computed.
fn difference(row: &Row, traces: &Traces) -> anyhow::Result<Option<String>> {
    let workload = traces.get(&(row.dataset.clone(), row.trace.clone()));
    let workload = workload.with_context(|| format!("there is no trace {} {}", row.dataset, row.trace))?;
    anyhow::ensure!(
        workload.hosts == row.hosts,
        "{} {} is for {} hosts, and not for {}",
        row.dataset,
        row.trace,
        workload.hosts,
        row.hosts
    );
    let computed =
        rows::compute(workload, row.algorithm).with_context(|| format!("{} {}", row.name, row.trace))?;
    let different = rows::differences(row, &computed);
    Ok((!different.is_empty()).then(|| format!("{}: {}", row.trace, different.join(", "))))
}
