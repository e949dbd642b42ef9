//! What the jobs of a log need of the hosts that they are to run on.

use super::log::{Format, Log, Need, Processors, Record, Trace};
use super::odd::{Odd, Oddity};
use crate::workload::{TraceJob, Workload};
use anyhow::Context as _;
use thiao_share::Host;

/// What is made one task, that is, one VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tasks {
    /// A processor: it needs one core.
    Processors,
    /// A processor, which is a whole node: machines of one processor each, as the SP2 was.
    Nodes,
    /// A node that Slurm gave the job, with as many CPUs and as much memory as the job had on each.
    Allocated,
    /// The rule of the DFRS papers for HPC2N, a cluster of nodes with 2 processors and 2 GB: an even number
    /// of processors that need less than half of the memory each become half as many tasks, of whole nodes
    /// and twice the memory; others become tasks of one processor. At least 10 % of the memory each.
    Hpc2n,
}

/// Which of a job's memory counts, where a log has two figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryOf {
    /// What the job asked for, or used, or was given: whichever is more. Who asked for less than it used was
    /// lucky; who asked for more was promised it.
    #[default]
    Larger,
    /// What it asked for, where that is known.
    Asked,
    /// What it used or was given, where that is known.
    Got,
}

/// What the needs of jobs are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Whole percents of a host, rounded: as the DFRS papers' simulator does.
    Percent,
    /// Ten-thousandths of a host, or a little less, so that each core has a whole number of them. Rounded
    /// down, so that what fills a host exactly still does.
    Fine,
}

/// The hosts, and how jobs are put on them. What is not said is taken from the log, where it tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shape {
    /// How many hosts there are.
    pub hosts: Option<u32>,
    /// The cores of each; for a log of `sacct` the CPUs as Slurm counts them.
    pub cores: Option<u32>,
    /// The memory of each, in MiB. If nobody says, what the log says of memory is of no use.
    pub memory: Option<u64>,
    /// What becomes one task: by default what suits the log ([`Shape::tasks`]).
    pub tasks: Option<Tasks>,
    /// Which figure of memory counts, where a log has two.
    pub memory_of: MemoryOf,
    /// The part of a host's memory that a task gets of whose memory nobody knows: by default the same as of
    /// the CPU, and 0.1 where a processor is a node.
    pub share: Option<f64>,
    /// What needs are counted in: by default percents for [`Tasks::Hpc2n`], else the fine unit.
    pub unit: Option<Unit>,
}

/// A shape with everything said.
struct Exact {
    tasks: Tasks,
    cores: u32,
    memory_kib: Option<u64>,
    memory_of: MemoryOf,
    share: Option<f64>,
    hosts: u32,
    host: Host,
    unit: Unit,
}

/// Tasks, and the parts of a host that each needs.
struct Parts {
    tasks: u32,
    cpu: f64,
    memory: f64,
}

impl Shape {
    /// What becomes one task of a log, if nobody says.
    #[must_use]
    pub fn tasks(&self, log: &Log) -> Tasks {
        if let Some(tasks) = self.tasks {
            return tasks;
        }
        let header = &log.header;
        match log.format {
            Format::Sacct => Tasks::Allocated,
            Format::Published | Format::JobSet => Tasks::Nodes,
            Format::Swf if self.cores.is_some() => Tasks::Processors,
            // Its header counts processors as nodes.
            Format::Swf
                if header
                    .installation
                    .as_deref()
                    .is_some_and(|name| name.starts_with("HPC2N")) =>
            {
                Tasks::Hpc2n
            }
            Format::Swf => match (header.nodes, header.processors) {
                (Some(nodes), Some(processors)) if nodes < processors => Tasks::Processors,
                _ => Tasks::Nodes,
            },
        }
    }

    /// The workloads of a log, one for each of its traces, and what was odd about it with these hosts.
    ///
    /// # Errors
    /// If neither the shape nor the log says how many hosts or cores there are, or no job is left.
    pub fn workloads(&self, log: &Log) -> anyhow::Result<(Vec<Workload>, Odd)> {
        let exact = self.exact(log)?;
        let mut odd = log.odd.clone();
        let mut workloads: Vec<_> = log
            .traces
            .iter()
            .map(|trace| exact.workload(trace, &mut odd))
            .collect();
        workloads.retain(|workload| !workload.jobs.is_empty());
        anyhow::ensure!(
            !workloads.is_empty(),
            "no job of {} fits on {} such hosts",
            log.name,
            exact.hosts
        );
        Ok((workloads, odd))
    }

    fn exact(&self, log: &Log) -> anyhow::Result<Exact> {
        let tasks = self.tasks(log);
        let header = &log.header;
        let cores = match tasks {
            Tasks::Nodes => 1,
            Tasks::Hpc2n => 2,
            Tasks::Processors | Tasks::Allocated => self
                .cores
                .or_else(|| Some(header.processors?.div_ceil(header.nodes?)))
                .context(match (self.hosts, header.nodes.or(header.processors)) {
                    (None, None) => {
                        "the log says neither how many hosts there are nor how many cores they have: say so with \
                         --hosts and --cores (and --memory, or each task counts as holding as large a part of a \
                         host's memory as of its CPU)"
                    }
                    _ => "the log does not say how many cores a host has: say so with --cores",
                })?,
        };
        let processors = header
            .processors
            .map(|processors| processors.div_ceil(cores.max(1)));
        let hosts = match (tasks, self.hosts) {
            (_, Some(hosts)) => Some(hosts),
            (Tasks::Hpc2n, None) => Some(120),
            (Tasks::Nodes, None) => header.processors.or(header.nodes),
            (Tasks::Processors | Tasks::Allocated, None) => {
                if self.cores.is_some() {
                    processors
                } else {
                    header.nodes.or(processors)
                }
            }
        };
        let hosts = hosts.context("the log does not say how many hosts there are: say so with --hosts")?;
        anyhow::ensure!(hosts > 0 && cores > 0, "there must be a host, and a core in it");
        anyhow::ensure!(
            self.share.is_none_or(|share| share > 0. && share <= 1.),
            "the default share of memory must be over 0 and at most 1"
        );
        let unit = self.unit.unwrap_or(if tasks == Tasks::Hpc2n {
            Unit::Percent
        } else {
            Unit::Fine
        });
        let host = match unit {
            Unit::Percent => Host {
                cpu: 100,
                memory: 100,
            },
            Unit::Fine => Host {
                cpu: fine(cores),
                memory: 10_000,
            },
        };
        let memory_kib = self
            .memory
            .map(|mib| mib.saturating_mul(1024))
            .filter(|kib| *kib > 0);
        let (memory_of, share) = (self.memory_of, self.share);
        Ok(Exact {
            tasks,
            cores,
            memory_kib,
            memory_of,
            share,
            hosts,
            host,
            unit,
        })
    }
}

/// Ten thousand, or the next more of which every core has a whole number.
fn fine(cores: u32) -> u32 {
    let cores = cores.min(1_000_000);
    10_000_u32.div_ceil(cores) * cores
}

impl Exact {
    fn workload(&self, trace: &Trace, odd: &mut Odd) -> Workload {
        let jobs = trace.jobs.iter().filter_map(|job| self.job(job, odd)).collect();
        Workload {
            name: trace.name.clone(),
            hosts: self.hosts,
            host: self.host,
            jobs,
        }
    }

    fn job(&self, record: &Record, odd: &mut Odd) -> Option<TraceJob> {
        let parts = match record.need {
            Need::Fractions { tasks, cpu, memory } => Parts { tasks, cpu, memory },
            Need::Processors(need) => {
                let ignored = self.memory_kib.is_none() && self.tasks != Tasks::Hpc2n;
                if ignored && self.memory_of.choose(&need).is_some() {
                    odd.count(Oddity::MemoryIgnored);
                }
                self.parts(&need)
            }
        };
        if parts.cpu > 1. {
            odd.count(Oddity::CpuCut);
        }
        if parts.memory > 1. {
            odd.count(Oddity::MemoryCut);
        }
        let cpu = self.units(parts.cpu, self.host.cpu).max(1);
        let memory = self.units(parts.memory, self.host.memory);
        let on_one = (self.host.cpu / cpu).min(self.host.memory.checked_div(memory).unwrap_or(u32::MAX));
        if u64::from(parts.tasks) > u64::from(on_one) * u64::from(self.hosts) {
            odd.count(Oddity::Wider);
            return None;
        }
        let Record {
            id,
            submit,
            run,
            limit,
            user,
            partition,
            wait,
            efficiency,
            ..
        } = *record;
        let tasks = parts.tasks;
        Some(TraceJob {
            id,
            submit,
            run,
            tasks,
            cpu,
            memory,
            limit,
            user,
            partition,
            wait,
            efficiency,
        })
    }

    /// A part of a host in its unit.
    fn units(&self, part: f64, whole: u32) -> u32 {
        let part = part.min(1.) * f64::from(whole);
        match self.unit {
            Unit::Percent => part.round() as u32,
            // What is a whole number but for its last bits is one.
            Unit::Fine => (part + 1e-6).floor() as u32,
        }
    }

    fn parts(&self, need: &Processors) -> Parts {
        let count = need.count();
        match self.tasks {
            Tasks::Nodes => self.task(need, count, 1., 0.1),
            Tasks::Processors => {
                let cpu = 1. / f64::from(self.cores);
                self.task(need, count, cpu, cpu)
            }
            Tasks::Allocated => {
                let nodes = if need.nodes > 0 {
                    need.nodes
                } else {
                    count.div_ceil(self.cores)
                };
                let cpu = f64::from(count) / f64::from(nodes) / f64::from(self.cores);
                self.task(need, nodes, cpu, cpu.min(1.))
            }
            Tasks::Hpc2n => self.hpc2n(need),
        }
    }

    fn task(&self, need: &Processors, tasks: u32, cpu: f64, share: f64) -> Parts {
        let known = self.memory_kib.zip(self.memory_of.choose(need));
        let memory = match known {
            Some((host, all)) => all as f64 / f64::from(tasks) / host as f64,
            None => self.share.unwrap_or(share),
        };
        Parts { tasks, cpu, memory }
    }

    /// [`Tasks::Hpc2n`]. What the golden runs count is what the job asked for: their useful work is equal to
    /// that in each of the 182 weeks, and not to what the job got, nor to the more of both.
    fn hpc2n(&self, need: &Processors) -> Parts {
        const NODE: f64 = 2. * 1024. * 1024.;
        let processors = if need.asked > 0 { need.asked } else { need.got };
        let all = self.memory_of.choose(need).unwrap_or(0) as f64;
        let each = (all / f64::from(need.count()) / NODE).max(0.1);
        if processors.is_multiple_of(2) && each < 0.5 {
            Parts {
                tasks: processors / 2,
                cpu: 1.,
                memory: each * 2.,
            }
        } else {
            Parts {
                tasks: processors,
                cpu: 0.5,
                memory: each,
            }
        }
    }
}

impl MemoryOf {
    /// What counts of a job's memory, in KiB, if anything is known.
    fn choose(self, need: &Processors) -> Option<u64> {
        let (asked, got) = (need.memory_asked, need.memory_got);
        let chosen = match self {
            Self::Larger => asked.max(got),
            Self::Asked if asked > 0 => asked,
            Self::Got if got > 0 => got,
            Self::Asked | Self::Got => asked.max(got),
        };
        Some(chosen).filter(|chosen| *chosen > 0)
    }
}
