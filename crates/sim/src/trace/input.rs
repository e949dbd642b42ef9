//! The jobs, from wherever they come.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;
use thiao_cli::exit;
use thiao_share::Host;
use thiao_trace::lublin::{self, Model};
use thiao_trace::read::{self, Log, Malformed, MemoryOf, Names, Odd, Options, Shape, Tasks};
use thiao_trace::what_if::WhatIf;
use thiao_trace::workload::{TraceJob, Workload};

/// Where jobs come from, and what they are for.
#[derive(Debug, Args)]
pub struct Source {
    /// The output of `sacct` (see below), a log in the Standard Workload Format (either may be gzip), or
    /// lublin[:SEED[:LOAD]] for jobs that are drawn by Lublin and Feitelson's model
    #[arg(value_name = "LOG")]
    log: OsString,
    /// Show the names of people and partitions that are in the log, in place of digests
    #[arg(long)]
    keep_names: bool,
    /// The seed of lublin where it names none, and of what else is drawn
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u32,
    /// How many jobs are drawn
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    jobs: u32,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    other: Other,
}

/// What is to be other than in the log.
#[derive(Debug, Args)]
#[command(next_help_heading = "What if")]
struct Other {
    /// Time limits were wrong by up to so many times: drawn, from a job's run time to as many times that
    #[arg(long, value_name = "TIMES", value_parser = times)]
    wrong_limits: Option<f64>,
    /// Each task had so many times its memory
    #[arg(long, value_name = "TIMES", value_parser = times)]
    memory_times: Option<f64>,
    /// So large a part of the jobs could neither be paused nor moved
    #[arg(long, value_name = "PART", value_parser = part)]
    fixed: Option<f64>,
    /// Jobs used so large a part of their CPU, and policies that share saw that
    #[arg(long, value_name = "PART", value_parser = part)]
    cpu_need: Option<f64>,
}

/// A factor from a thousandth to a thousand.
fn times(text: &str) -> Result<f64, String> {
    let times = text
        .parse::<f64>()
        .ok()
        .filter(|times| (0.001..=1000.0).contains(times));
    times.ok_or_else(|| "times are a number from 0.001 to 1000".to_owned())
}

/// The cluster that jobs are run on.
#[derive(Debug, Args)]
#[command(next_help_heading = "The cluster; what is not said is what the log says")]
struct Cluster {
    /// How many hosts there are
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_HOSTS)))]
    hosts: Option<u32>,
    /// Leave out jobs that need more hosts than these
    #[arg(long, requires = "hosts")]
    without_wider: bool,
    /// How many cores each of them has
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    cores: Option<u32>,
    /// Memory of each: MiB, or with a letter as 64G; without it, memory in the log counts for nothing
    #[arg(long, value_name = "M", value_parser = mebibytes)]
    memory: Option<u64>,
    /// What becomes a task, which is one VM [default: as suits the log]
    #[arg(long, value_enum, value_name = "RULE")]
    rule: Option<Rule>,
    /// Which memory of a job counts [default: larger]
    #[arg(long, value_enum, value_name = "WHICH")]
    memory_of: Option<Which>,
    /// The part of a host's memory of a task of which none is known [default: as of its CPU]
    #[arg(long, value_name = "PART", value_parser = part)]
    memory_part: Option<f64>,
}

/// What becomes a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rule {
    /// each processor, on a core
    Processors,
    /// each processor, on a host of its own
    Nodes,
    /// each node that Slurm gave the job
    Allocated,
    /// by the DFRS papers' rule for HPC2N: 120 nodes with two processors
    Hpc2n,
}

/// Which memory of a job counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// the larger of both
    Larger,
    /// what it asked for
    Asked,
    /// what it used, or was given
    Got,
}

/// Memory as people write it.
fn mebibytes(text: &str) -> Result<u64, String> {
    let (digits, each) = match text.to_ascii_uppercase().as_bytes() {
        [.., b'G'] => (&text[..text.len() - 1], 1024),
        [.., b'T'] => (&text[..text.len() - 1], 1024 * 1024),
        [.., b'M'] => (&text[..text.len() - 1], 1),
        _ => (text, 1),
    };
    let all = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(each));
    all.filter(|all| (1..=1 << 40).contains(all))
        .ok_or_else(|| "write MiB, or as 64G".to_owned())
}

fn part(text: &str) -> Result<f64, String> {
    let part = text
        .parse::<f64>()
        .ok()
        .filter(|part| *part > 0.0 && *part <= 1.0);
    part.ok_or_else(|| "a part is over 0 and at most 1".to_owned())
}

impl Cluster {
    fn shape(&self) -> Shape {
        Shape {
            hosts: self.hosts,
            cores: self.cores,
            memory: self.memory,
            tasks: self.rule.map(|rule| match rule {
                Rule::Processors => Tasks::Processors,
                Rule::Nodes => Tasks::Nodes,
                Rule::Allocated => Tasks::Allocated,
                Rule::Hpc2n => Tasks::Hpc2n,
            }),
            memory_of: self.memory_of.map_or(MemoryOf::default(), |which| match which {
                Which::Larger => MemoryOf::Larger,
                Which::Asked => MemoryOf::Asked,
                Which::Got => MemoryOf::Got,
            }),
            share: self.memory_part,
            unit: None,
        }
    }
}

/// No cluster that is simulated has more hosts.
const MOST_HOSTS: u32 = 200_000;
/// As many hosts as no job needs.
const MANY: u32 = 1_000_000;

impl Cluster {
    /// Whether so many hosts as were typed are enough for each job: what is left out is easily taken for what ran well.
    fn carries(&self, log: &Log) -> anyhow::Result<()> {
        let Some(hosts) = self.hosts.filter(|_| !self.without_wider) else {
            return Ok(());
        };
        let (all, _) = Shape {
            hosts: Some(MANY),
            ..self.shape()
        }
        .workloads(log)?;
        let needs = |host: Host, job: &TraceJob| {
            let by_memory = host.memory.checked_div(job.memory).unwrap_or(u32::MAX);
            job.tasks
                .div_ceil((host.cpu / job.cpu.max(1)).min(by_memory).max(1))
        };
        let jobs = all
            .iter()
            .flat_map(|part| part.jobs.iter().map(|job| (needs(part.host, job), job.id)));
        match jobs.max() {
            Some((needed, id)) if needed > hosts => Err(exit::Malformed(format!(
                "job {id} of {} needs {needed} hosts: give --hosts {needed} or more, or leave out what is too wide by \
                 --without-wider",
                log.name
            ))
            .into()),
            _ => Ok(()),
        }
    }
}

/// A log, read and made runs.
#[derive(Debug)]
pub struct Input {
    /// What it was read from, if it was, without its jobs.
    log: Option<Log>,
    /// As it is called in tables.
    name: String,
    /// The runs to be made of it.
    pub parts: Vec<Workload>,
    /// The memory of a host in MiB, if anybody says so.
    pub host_mib: Option<u64>,
    /// What was odd about it.
    odd: Odd,
}

impl Source {
    /// Reads it.
    ///
    /// # Errors
    /// When it cannot be read, or somebody must say more about the cluster.
    pub fn read(&self) -> anyhow::Result<Input> {
        if let Some(model) = self.log.to_str().and_then(|log| log.strip_prefix(MODEL)) {
            return self.drawn(model);
        }
        let names = if self.keep_names {
            Names::Kept
        } else {
            Names::Hashed
        };
        let mut log = read::any(
            Path::new(&self.log),
            &Options {
                names,
                ..Options::default()
            },
        )?;
        self.cluster.carries(&log)?;
        let (parts, odd) = self.cluster.shape().workloads(&log)?;
        if let Some(part) = parts.iter().find(|part| part.hosts > MOST_HOSTS) {
            let (name, hosts) = (&log.name, part.hosts);
            return Err(exit::Malformed(format!(
                "{name} says that it is of {hosts} hosts, and {MOST_HOSTS} is the most: give --hosts"
            ))
            .into());
        }
        let host_mib = match self.cluster.shape().tasks(&log) {
            Tasks::Hpc2n => Some(HPC2N_MIB),
            Tasks::Processors | Tasks::Nodes | Tasks::Allocated => self.cluster.memory,
        };
        log.traces.clear();
        let name = log.name.clone();
        Ok(Input {
            log: Some(log),
            name,
            parts,
            host_mib,
            odd,
        })
    }

    /// Whether that file is the log.
    pub fn is(&self, file: &Path) -> bool {
        let real = |path: &Path| path.canonicalize().ok();
        real(file).is_some_and(|file| real(Path::new(&self.log)) == Some(file))
    }

    /// What is other than in the log.
    pub fn what_if(&self) -> WhatIf {
        WhatIf {
            limits: self.other.wrong_limits,
            memory: self.other.memory_times,
            fixed: self.other.fixed.unwrap_or(0.0),
            cpu: self.other.cpu_need,
            seed: u64::from(self.seed),
        }
    }

    /// Jobs of the model, of which this is what followed its name.
    fn drawn(&self, how: &str) -> anyhow::Result<Input> {
        let wrong = || {
            let log = self.log.to_string_lossy();
            exit::Malformed(format!(
                "{log}: write lublin, lublin:SEED or lublin:SEED:LOAD, as lublin:7:0.5"
            ))
        };
        let mut parts = how.split(':').skip(1);
        let seed = parts
            .next()
            .map_or(Ok(self.seed), |seed| seed.parse().map_err(|_| wrong()))?;
        let load = match parts.next() {
            None => None,
            Some(load) => Some(
                load.parse::<f64>()
                    .ok()
                    .filter(|load| *load > 0.0 && *load <= 9.0)
                    .ok_or_else(wrong)?,
            ),
        };
        if parts.next().is_some() || !(how.is_empty() || how.starts_with(':')) {
            return Err(wrong().into());
        }
        let usual = Model::default();
        let (nodes, cores) = (
            self.cluster.hosts.unwrap_or(usual.nodes),
            self.cluster.cores.unwrap_or(usual.cores),
        );
        if nodes < LEAST_NODES {
            return Err(exit::Malformed(format!(
                "the model has {LEAST_NODES} hosts or more: give --hosts as many"
            ))
            .into());
        }
        let workload = lublin::workload(&Model {
            seed,
            load,
            nodes,
            cores,
            jobs: self.jobs,
            ..usual
        });
        let name = workload.name.clone();
        Ok(Input {
            log: None,
            name,
            parts: vec![workload],
            host_mib: self.cluster.memory,
            odd: Odd::default(),
        })
    }
}

/// What a node of HPC2N has, whatever is typed: that is part of its rule.
const HPC2N_MIB: u64 = 2048;
/// How the model is called that jobs can be drawn by.
const MODEL: &str = "lublin";
/// The model's least cluster.
const LEAST_NODES: u32 = 8;

impl Input {
    /// As it is called in tables.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a user is called.
    pub fn user(&self, user: u32) -> String {
        self.log
            .as_ref()
            .map_or_else(|| user.to_string(), |log| log.user(user))
    }

    /// What was odd, for people: nothing if nothing was.
    pub fn odd(&self) -> String {
        match self.odd.to_string() {
            odd if odd.is_empty() => odd,
            odd => format!("Odd in this log:\n{odd}"),
        }
    }

    /// The same for programs.
    pub fn odd_json(&self) -> Value {
        let kinds = self
            .odd
            .kinds()
            .map(|(kind, count)| (kind.word().to_owned(), json!(count)));
        let first = self
            .odd
            .first
            .iter()
            .map(|Malformed { line, why }| json!({ "line": line, "why": why }));
        json!({
            "left_out": self.odd.left_out(),
            "malformed": self.odd.malformed,
            "malformed_first": first.collect::<Vec<_>>(),
            "kinds": kinds.collect::<serde_json::Map<_, _>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_written_as_people_do() {
        assert_eq!(
            ["512", "512M", "64G", "2t"].map(|text| mebibytes(text).unwrap()),
            [512, 512, 65_536, 2_097_152]
        );
        for wrong in ["", "G", "0", "-1", "1.5G", "99999999999999999T", "é"] {
            assert!(mebibytes(wrong).is_err(), "{wrong}");
        }
    }
}
