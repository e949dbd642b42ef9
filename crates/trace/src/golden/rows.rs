//! The rows of `dfrs-golden.csv`: one run of one algorithm over one trace each.

use super::columns::{Columns, Counts, NAMES, queued, shared, stretches};
use crate::engine::{Clock, Order, Outcome, Setup, run};
use crate::what_if::WhatIf;
use crate::workload::Workload;
use anyhow::Context;
use thiao_share::{Arrival, Backfill, Dfrs, Overheads, PapersEasy, Policy, Queue};

/// The algorithms that have rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// First come, first served, by whole nodes.
    Fcfs,
    /// EASY by whole nodes, with the published defect.
    EasyReleased,
    /// The same program with its one wrong comparison corrected.
    EasyCorrected,
    /// EASY by whole nodes.
    EasyNode,
    /// EASY by cores, wherever they are.
    EasyCore,
    /// EASY-SJBF by cores, wherever they are.
    SjbfCore,
    /// One of the papers' own.
    Dfrs(DfrsName),
}

/// The papers' own algorithms that have rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "these are their names in the papers")]
pub enum DfrsName {
    Greedy,
    GreedyP,
    GreedyPM,
    GreedyPMPer600VT600,
    Mcb8Per600,
}

impl Algorithm {
    /// By its name in the table.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "fcfs" => Self::Fcfs,
            "easy" => Self::EasyReleased,
            "easyfixed" => Self::EasyCorrected,
            "easynode" => Self::EasyNode,
            "easycore" => Self::EasyCore,
            "easysjbfcore" => Self::SjbfCore,
            "greedy" => Self::Dfrs(DfrsName::Greedy),
            "greedyp" => Self::Dfrs(DfrsName::GreedyP),
            "greedypm" => Self::Dfrs(DfrsName::GreedyPM),
            "gpm_per_vt" => Self::Dfrs(DfrsName::GreedyPMPer600VT600),
            "per" => Self::Dfrs(DfrsName::Mcb8Per600),
            _ => return None,
        })
    }
}

/// The papers' own, as a policy.
#[must_use]
pub fn dfrs(name: DfrsName) -> Dfrs {
    let star = |arrival| Dfrs {
        arrival,
        retry: true,
        period: None,
        keep: 0,
    };
    match name {
        DfrsName::Greedy => star(Arrival::Greedy),
        DfrsName::GreedyP => star(Arrival::Pause),
        DfrsName::GreedyPM => star(Arrival::Move),
        DfrsName::GreedyPMPer600VT600 => Dfrs {
            period: Some(600_000),
            keep: 600_000,
            ..star(Arrival::Move)
        },
        DfrsName::Mcb8Per600 => Dfrs {
            retry: false,
            period: Some(600_000),
            ..star(Arrival::Pack)
        },
    }
}

/// A row of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// Which traces, and which of them.
    pub dataset: String,
    /// What the trace is called.
    pub trace: String,
    /// On so many hosts.
    pub hosts: u32,
    /// The algorithm, and its name in the table.
    pub algorithm: Algorithm,
    /// Its name in the table.
    pub name: String,
    /// What it came to.
    pub columns: Columns,
}

/// Reads the table.
///
/// # Errors
/// If a line has not the columns of the table, or an algorithm's name is not known.
pub fn read(text: &str) -> anyhow::Result<Vec<Row>> {
    let lines = text
        .lines()
        .enumerate()
        .skip(1)
        .filter(|(_, line)| !line.is_empty());
    lines
        .map(|(number, line)| parse(line).with_context(|| format!("line {}: {line}", number + 1)))
        .collect()
}

/// A line; its fifth field may have commas within quotes, and is not needed.
fn parse(line: &str) -> anyhow::Result<Row> {
    let fields: Vec<&str> = line.split(',').collect();
    anyhow::ensure!(fields.len() >= 20, "it has {} fields of 20", fields.len());
    let columns: Vec<String> = fields[fields.len() - 14..]
        .iter()
        .map(|field| (*field).to_owned())
        .collect();
    Ok(Row {
        dataset: fields[0].to_owned(),
        hosts: fields[1].parse().context("the number of hosts")?,
        trace: fields[2].to_owned(),
        algorithm: Algorithm::named(fields[3]).context("an algorithm of this name is not known")?,
        name: fields[3].to_owned(),
        columns: columns
            .try_into()
            .map_err(|_| anyhow::anyhow!("too few columns"))?,
    })
}

/// Runs the row's algorithm over its trace.
///
/// # Errors
/// If the run comes to no end.
pub fn compute(workload: &Workload, algorithm: Algorithm) -> anyhow::Result<Columns> {
    Ok(match algorithm {
        Algorithm::Fcfs => queued(workload, &queue(workload, Backfill::Never, true)?, false),
        Algorithm::EasyReleased => queued(workload, &papers(workload, PapersEasy::Released)?, true),
        Algorithm::EasyCorrected => queued(workload, &papers(workload, PapersEasy::Corrected)?, true),
        Algorithm::EasyNode => short(workload, &queue(workload, Backfill::InOrder, true)?),
        Algorithm::EasyCore => short(workload, &queue(workload, Backfill::InOrder, false)?),
        Algorithm::SjbfCore => short(workload, &queue(workload, Backfill::ShortestFirst, false)?),
        Algorithm::Dfrs(name) => {
            let overheads = Overheads {
                restore: 300_000,
                moves: 300_000,
                ..Overheads::default()
            };
            let mut counts = Counts::default();
            let setup = Setup {
                overheads,
                clock: Clock::Seconds,
                ..free(Policy::Dfrs(dfrs(name)), false)
            };
            let outcome = run(workload, &setup, &mut counts)?;
            shared(workload, &outcome, &counts)
        }
    })
}

/// The same jobs, each task of which takes a whole node, whatever it needs of it.
fn by_nodes(workload: &Workload) -> Workload {
    let mut counted = workload.clone();
    for job in &mut counted.jobs {
        (job.cpu, job.memory) = (workload.host.cpu, 0);
    }
    counted
}

/// A setup in which decisions cost nothing, and run times are known.
fn free(policy: Policy, pool: bool) -> Setup {
    let (overheads, clock, order) = (Overheads::default(), Clock::Millis, Order::Together);
    Setup {
        policy,
        overheads,
        exact: true,
        pool,
        clock,
        order,
        what_if: WhatIf::default(),
    }
}

/// A queue on one host that is all of them: by whole nodes as the papers' simulator counts, by cores as the published
/// schedules do.
fn queue(workload: &Workload, backfill: Backfill, nodes: bool) -> anyhow::Result<Outcome> {
    if nodes {
        let setup = free(Policy::Queue(Queue::new(backfill)), true);
        return run(&by_nodes(workload), &setup, &mut ());
    }
    let setup = free(Policy::Queue(Queue::published(backfill)), true);
    run(
        workload,
        &Setup {
            order: Order::OneByOne,
            ..setup
        },
        &mut (),
    )
}

/// The papers' EASY, by whole nodes.
fn papers(workload: &Workload, how: PapersEasy) -> anyhow::Result<Outcome> {
    run(
        &by_nodes(workload),
        &free(Policy::PapersEasy(how), false),
        &mut (),
    )
}

/// The columns of an EASY whose figures have four digits, and nothing but stretches.
fn short(workload: &Workload, outcome: &Outcome) -> Columns {
    let (least, mean, greatest) = stretches(workload, outcome);
    let jobs = workload.jobs.len().to_string();
    let mut columns = [const { String::new() }; 14].map(|_| "0".to_owned());
    columns[..5].clone_from_slice(&[
        jobs.clone(),
        jobs,
        format!("{least}"),
        format!("{mean:.4}"),
        format!("{greatest:.4}"),
    ]);
    columns
}

/// Which columns differ, with what was to be and what is.
#[must_use]
pub fn differences(row: &Row, computed: &Columns) -> Vec<String> {
    let both = NAMES.iter().zip(row.columns.iter().zip(computed));
    both.filter(|(_, (golden, ours))| golden != ours)
        .map(|(name, (golden, ours))| format!("{name} {golden} is {ours}"))
        .collect()
}
