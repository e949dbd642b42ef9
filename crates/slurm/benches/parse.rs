//! What reading a large cluster's listings costs: 10,000 nodes and 5,000 jobs.

use std::fmt::Write as _;
use std::time::{Duration, Instant};
use thiao_slurm::{jobs, nodes};

const MARK: &str = "@0123456789abcdef";
const ROUNDS: u32 = 20;

fn main() {
    let folded: String = ["allocated+cloud", "idle+cloud+powered_down"]
        .iter()
        .zip(["n[0-4999]", "n[5000-9999]"])
        .map(|(state, list)| format!("{list}|{state}|none|{MARK}\n"))
        .collect();
    // Every node with a reason of its own: as many lines as nodes.
    let mut apart = String::new();
    for n in 0..10_000 {
        let _ = writeln!(
            apart,
            "n{n}|down+cloud+powered_down|thiao: VM n{n}.1 died on host{}|{MARK}",
            n % 40
        );
    }
    let mut list = String::new();
    for n in 0..5_000 {
        let _ = writeln!(
            list,
            "{n}|{n}|N/A|N/A|1000|vm|RUNNING|2|2|1795461416|1795461417|n[{}-{}]|4294901759|\
             cpu=6,mem=600M,node=2,billing=6|1|1|2|0|1|100M|OK=oversubscribe{MARK}alice{MARK}physics{MARK}a:2{MARK}\
             None{MARK}N/A|N/A|N/A|N/A{MARK}(null){MARK}simulation_{n}{MARK}",
            2 * n,
            2 * n + 1
        );
    }
    let together = time(|| {
        nodes::parse(&folded, MARK).map(|n| n.len()).unwrap_or_default()
            + jobs::parse(&list, MARK).map(|j| j.len()).unwrap_or_default()
    });
    println!("10,000 nodes in 2 lines and 5,000 jobs: {together:?}");
    let single = time(|| nodes::parse(&apart, MARK).map(|n| n.len()).unwrap_or_default());
    println!("10,000 nodes in a line each: {single:?}");
}

/// The shortest of some runs.
fn time(run: impl Fn() -> usize) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        assert!(std::hint::black_box(run()) >= 10_000);
        best = best.min(start.elapsed());
    }
    best
}
