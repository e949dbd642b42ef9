//! The workload model of Lublin and Feitelson, "The Workload on Parallel Supercomputers: Modeling the
//! Characteristics of Rigid Jobs" (JPDC 63, 2003): when jobs come, on how many nodes, and for how long.
//! The same seed draws the same jobs as the authors' program does. What a job needs of a node is not in the
//! model: it is drawn by the rule of the DFRS papers.

mod draw;

use crate::workload::{TraceJob, Workload};
use draw::{Draw, gamma_cdf};
use thiao_share::Host;

/// Half hours of a day.
const BUCKETS: usize = 48;
/// The seconds of each.
const BUCKET: f64 = 1800.;
/// The bucket, counted from 1, with which the cycle of a day begins.
const CYCLE: usize = 11;
/// Longer runs are drawn again: the logarithm of seconds.
const LONGEST_RUN: f64 = 12.;
/// Longer times between two jobs are drawn again, likewise.
const LONGEST_GAP: f64 = 13.;

/// Which kinds of jobs there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinds {
    /// Batch jobs and interactive ones, each with its own constants.
    Typed,
    /// One kind, with constants for all.
    Untyped,
}

/// What is to be drawn, and for which cluster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Model {
    /// Which kinds of jobs there are.
    pub kinds: Kinds,
    /// How many nodes the cluster has: at least 8. The constants are for 128.
    pub nodes: u32,
    /// How many cores each has: a job of one task needs one of them, a task of a wider job all.
    pub cores: u32,
    /// How many jobs there are to be.
    pub jobs: u32,
    /// What the draws begin with.
    pub seed: u32,
    /// The load that the jobs are scaled to, if they are.
    pub load: Option<f64>,
}

/// What the DFRS papers have: 1,000 jobs of both kinds, on 128 nodes of 4 cores.
impl Default for Model {
    fn default() -> Self {
        Self {
            kinds: Kinds::Typed,
            nodes: 128,
            cores: 4,
            jobs: 1000,
            seed: 1,
            load: None,
        }
    }
}

/// A job of the model alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// When it comes, in seconds.
    pub submit: u64,
    /// How long it runs, in seconds; may be 0.
    pub run: u64,
    /// On how many nodes.
    pub nodes: u32,
    /// Whether it is a batch job.
    pub batch: bool,
}

/// The constants of one kind of jobs, by the names that the paper has.
#[derive(Clone, Copy)]
struct Kind {
    serial: f64,
    pow2: f64,
    /// The logarithms of the least width of parallel jobs, where the uniform bends, and of the largest.
    widths: [f64; 3],
    /// How many are below the bend.
    narrow: f64,
    /// The two gammas of run times.
    run: [(f64, f64); 2],
    /// How many nodes make the first of them how likely: slope, and what it is with none.
    short: (f64, f64),
    /// The gamma of the time between two jobs.
    gap: (f64, f64),
    /// The gamma of the cycle of a day.
    day: (f64, f64),
    /// How the mean gap is to that of the rush hour.
    ratio: f64,
}

impl Kind {
    fn batch(top: f64) -> Self {
        Self {
            serial: 0.2927,
            pow2: 0.6686,
            widths: [1.2, top - 2., top],
            narrow: 0.875,
            run: [(6.57, 0.823), (639.1, 0.0156)],
            short: (-0.003, 0.6986),
            gap: (6.0415, 0.8531),
            day: (6.1271, 5.2740),
            ratio: 1.0519,
        }
    }

    fn interactive(top: f64) -> Self {
        Self {
            serial: 0.1541,
            pow2: 0.625,
            widths: [1., top - 4., top - 1.5],
            narrow: 0.705,
            run: [(3.8351, 0.6605), (7.073, 0.6856)],
            short: (-0.0118, 0.9156),
            gap: (6.5510, 0.6621),
            day: (8.9186, 3.6680),
            ratio: 0.9797,
        }
    }

    fn any(top: f64) -> Self {
        Self {
            serial: 0.244,
            pow2: 0.576,
            widths: [0.8, top - 2.5, top],
            narrow: 0.86,
            run: [(4.2, 0.94), (312., 0.03)],
            short: (-0.0054, 0.78),
            gap: (10.2303, 0.4871),
            day: (8.1737, 3.9631),
            ratio: 1.0225,
        }
    }

    fn width(&self, draw: &mut Draw) -> u32 {
        let kind = draw.uniform();
        if kind <= self.serial {
            return 1;
        }
        let [low, bend, high] = self.widths;
        let (from, to) = if draw.uniform() <= self.narrow {
            (low, bend)
        } else {
            (bend, high)
        };
        let mut log = draw.uniform() * (to - from) + from;
        if kind <= self.serial + self.pow2 {
            log = (log + 0.5).floor();
        }
        (2_f64.powf(log) + 0.5) as u32
    }

    fn run(&self, width: u32, draw: &mut Draw) -> u64 {
        let short = (self.short.0 * f64::from(width) + self.short.1).clamp(0., 1.);
        loop {
            let (shape, scale) = self.run[usize::from(draw.uniform() > short)];
            let log = draw.gamma(shape, scale);
            if log <= LONGEST_RUN {
                return log.exp() as u64;
            }
        }
    }
}

/// When jobs of one kind come: a gap is paid for in points, of which each half hour asks for its own number.
struct Arrivals {
    kind: Kind,
    price: [f64; BUCKETS],
    bucket: usize,
    points: f64,
    within: f64,
    /// When the next one comes.
    next: u64,
}

impl Arrivals {
    fn new(kind: Kind, draw: &mut Draw) -> Self {
        let mut price = [0.; BUCKETS];
        let mut sum = 0.;
        for hour in CYCLE..CYCLE + BUCKETS {
            let until = |end: f64| gamma_cdf(end, kind.day.0, kind.day.1);
            let share = until(hour as f64 + 0.5) - until(hour as f64 - 0.5);
            price[(hour - 1) % BUCKETS] = share;
            sum += share;
        }
        let mean = sum / BUCKETS as f64;
        let price = price.map(|share| share / mean);
        let mut arrivals = Self {
            kind,
            price,
            bucket: 0,
            points: 0.,
            within: 0.,
            next: 0,
        };
        arrivals.advance(draw);
        arrivals
    }

    fn advance(&mut self, draw: &mut Draw) {
        let gap = loop {
            let gap = draw.gamma(self.kind.gap.0 * self.kind.ratio, self.kind.gap.1);
            if gap <= LONGEST_GAP {
                break gap;
            }
        };
        self.points += gap.exp() / BUCKET;
        let mut time = 0.;
        while self.points > self.price[self.bucket] {
            self.points -= self.price[self.bucket];
            self.bucket = (self.bucket + 1) % BUCKETS;
            time += BUCKET;
        }
        let within = self.points / self.price[self.bucket];
        time += BUCKET * (within - self.within);
        self.within = within;
        // The authors' program keeps whole seconds.
        self.next = (self.next as f64 + time) as u64;
    }
}

/// The model's jobs, as many as the model says: nothing of memory, no scaling.
#[must_use]
pub fn draw(model: &Model) -> Vec<Drawn> {
    let mut draw = Draw::new(model.seed);
    let nodes = model.nodes.max(8);
    let top = f64::from(nodes).log2();
    let (first, second) = match model.kinds {
        Kinds::Typed => (Kind::batch(top), Kind::interactive(top)),
        Kinds::Untyped => (Kind::any(top), Kind::any(top)),
    };
    // The first is drawn for in either case.
    let mut batch = Arrivals::new(first, &mut draw);
    let mut other = Arrivals::new(second, &mut draw);
    if model.kinds == Kinds::Untyped {
        batch.next = u64::MAX;
    }
    let mut next = || {
        let is_batch = batch.next < other.next;
        let arrivals = if is_batch { &mut batch } else { &mut other };
        let submit = arrivals.next;
        arrivals.advance(&mut draw);
        let width = arrivals.kind.width(&mut draw);
        let run = arrivals.kind.run(width, &mut draw);
        Drawn {
            submit,
            run,
            nodes: width.min(nodes),
            batch: is_batch,
        }
    };
    (0..model.jobs).map(|_| next()).collect()
}

/// A workload of the model. CPU as [`Model::cores`] says; 10 % of a node's memory with a probability of 0.55,
/// else 20 to 100 % in tenths; time limits of 60 s and 1 to 5 times the run time. These draws are other
/// ones than the model's, so that they change none of it. A run of 0 s counts as 1 s.
#[must_use]
pub fn workload(model: &Model) -> Workload {
    let host = Host {
        cpu: 10_000_u32.div_ceil(model.cores.max(1)) * model.cores.max(1),
        memory: 10_000,
    };
    let mut needs = Draw::new(!model.seed);
    let job = |(number, drawn): (usize, Drawn)| {
        let small = needs.uniform() < 0.55;
        let tenths = if small {
            1
        } else {
            2 + (needs.uniform() * 9.) as u32
        };
        let run = drawn.run.max(1);
        TraceJob {
            id: number as u64 + 1,
            submit: drawn.submit,
            run,
            tasks: drawn.nodes,
            cpu: if drawn.nodes == 1 {
                host.cpu / model.cores.max(1)
            } else {
                host.cpu
            },
            memory: host.memory / 10 * tenths,
            limit: 60 + (run as f64 * (1. + 4. * needs.uniform())) as u64,
            user: 0,
            partition: u32::from(drawn.batch),
            wait: None,
            efficiency: 1000,
        }
    };
    let jobs = draw(model).into_iter().enumerate().map(job).collect();
    let name = format!("lublin-{}", model.seed);
    let workload = Workload {
        name,
        hosts: model.nodes.max(8),
        host,
        jobs,
    };
    match model.load {
        Some(load) => workload.scaled(load),
        None => workload,
    }
}

#[cfg(test)]
mod tests;
