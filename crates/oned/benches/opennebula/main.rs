//! How fast VMs are made and ended at one oned: by hand, by Thiao's provider, and one call
//! after another as in 2011.
//!
//! `cargo xtask bench opennebula`, or
//! `cargo bench -p thiao-oned --bench opennebula -- [--vms N] [--rounds N] [--few N] [--template NAME]`
//!
//! Without ONE_XMLRPC and ONE_AUTH in the environment a stand-in is started, whose calls take
//! a real one's time and none of the CPU. With them that front-end is measured: it must have
//! capacity for `--vms` VMs of 0.1 cores and 64 MiB made of the template.

mod raw;
mod site;
mod ways;

use site::{AT_ONCE, CALL, Site};
use std::error::Error;
use std::time::{Duration, Instant};
use ways::{AsIn2011, ByHand, ByThiao, Deploying, Way};

/// Threads of the clients by hand, and whether they make all before they deploy the first.
const BY_HAND: [(usize, bool); 4] = [(4, false), (8, false), (8, true), (12, false)];

struct Args {
    vms: usize,
    rounds: usize,
    /// VMs of the ways that are slow.
    few: usize,
    template: String,
}

/// A way, and what came of it in each round.
struct Row<'a> {
    name: String,
    way: Box<dyn Way + 'a>,
    vms: usize,
    runs: Vec<Run>,
}

/// One round of a way.
struct Run {
    /// Until oned had taken all.
    made: Duration,
    /// Until all of them ran.
    running: Duration,
    /// Until oned had taken all ends.
    ended: Duration,
    /// Until all were gone.
    gone: Duration,
    /// Calls for making, and for ending.
    calls: Option<(u64, u64)>,
}

/// One of a round's times.
type Span = fn(&Run) -> Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let wanted = wanted()?;
    let site = Site::open(&wanted.template)?;
    if site.is_stand_in() {
        println!(
            "a stand-in oned: each call takes {CALL:?}, {AT_ONCE} at once, VMs boot at once; \
             its scheduler places each 10 s"
        );
    } else {
        println!(
            "oned {} at {}, {} hosts",
            site.client.version()?,
            site.endpoint,
            site.hosts.len()
        );
    }
    let row = |name: &str, vms, way: Box<dyn Way>| Row {
        name: name.to_owned(),
        way,
        vms,
        runs: Vec::new(),
    };
    let mut rows = Vec::new();
    for (threads, all_held_first) in BY_HAND {
        let way = Deploying {
            hand: ByHand::new(&site, threads)?,
            site: &site,
            all_held_first,
        };
        rows.push(Row {
            name: format!(
                "by hand, {threads} threads{}",
                if all_held_first { ", all held first" } else { "" }
            ),
            way: Box::new(way),
            vms: wanted.vms,
            runs: Vec::new(),
        });
    }
    let name = "Thiao, no limit";
    rows.push(row(
        name,
        wanted.vms,
        Box::new(ByThiao::new(&site, wanted.vms, 0)?),
    ));
    let mut generation = 0;
    for round in 0..wanted.rounds {
        // Another order each time, so that what drifts hits all alike.
        rows.rotate_left(1);
        if round % 2 == 1 {
            rows.reverse();
        }
        for row in &mut rows {
            generation += 1;
            let run = measure(&site, row.way.as_ref(), row.vms, generation)?;
            row.runs.push(run);
        }
    }
    rows.sort_by_key(|row| row.name.clone());
    rows.sort_by_key(|row| row.name.len());
    let limited = ByThiao::new(&site, wanted.few, 30)?;
    rows.push(row("Thiao, 30 calls/s (default)", wanted.few, Box::new(limited)));
    let old = AsIn2011(ByHand::new(&site, 1)?);
    rows.push(row("one after another (2011)", wanted.few, Box::new(old)));
    for row in rows.iter_mut().rev().take(2) {
        generation += 1;
        row.runs
            .push(measure(&site, row.way.as_ref(), row.vms, generation)?);
    }
    print(&rows);
    Ok(())
}

fn measure(site: &Site, way: &dyn Way, vms: usize, generation: u64) -> Result<Run, Box<dyn Error>> {
    let pieces = site.pieces(vms, generation)?;
    let calls = || site.calls().unwrap_or_default();
    let (start, before) = (Instant::now(), calls());
    let ids = way.make(&pieces)?;
    let (made, making) = (start.elapsed(), calls() - before);
    let running = site.wait(start, || site.all_running(&ids))?;
    let (start, before) = (Instant::now(), calls());
    way.end(&ids)?;
    let (ended, ending) = (start.elapsed(), calls() - before);
    let gone = site.wait(start, || way.all_gone(site, &ids))?;
    Ok(Run {
        made,
        running,
        ended,
        gone,
        calls: site.calls().map(|_| (making, ending)),
    })
}

impl Row<'_> {
    fn median(&self, what: impl Fn(&Run) -> Duration) -> f64 {
        let mut all: Vec<Duration> = self.runs.iter().map(what).collect();
        all.sort_unstable();
        all.get(all.len() / 2).map_or(f64::NAN, Duration::as_secs_f64)
    }

    /// The difference between the longest and the shortest, as a part of the median.
    fn spread(&self, what: impl Fn(&Run) -> Duration) -> f64 {
        let all = || self.runs.iter().map(&what);
        let most = all().max().unwrap_or_default() - all().min().unwrap_or_default();
        most.as_secs_f64() / self.median(&what)
    }

    /// How many VMs per second.
    fn rate(&self, what: impl Fn(&Run) -> Duration) -> f64 {
        self.vms as f64 / self.median(what)
    }
}

/// Medians of all rounds; ratios to the best by hand.
fn print(rows: &[Row<'_>]) {
    let kinds: [(&str, Span); 4] = [
        ("made", |run| run.made),
        ("run", |run| run.running),
        ("ended", |run| run.ended),
        ("gone", |run| run.gone),
    ];
    print!(
        "{:34} {:>5} {:>6}",
        "VMs per second (ratio, spread)", "VMs", "rounds"
    );
    for (kind, _) in kinds {
        print!(" | {kind:>20}");
    }
    println!(" | {:>11}", "calls");
    for row in rows {
        print!("{:34} {:>5} {:>6}", row.name, row.vms, row.runs.len());
        for (_, what) in kinds {
            let by_hand = rows.iter().filter(|row| row.name.starts_with("by hand"));
            let best = by_hand.map(|row| row.rate(what)).fold(f64::NAN, f64::max);
            let rate = row.rate(what);
            print!(
                " | {rate:>7.1} {:>5.2} {:>5.0}%",
                rate / best,
                row.spread(what) * 100.0
            );
        }
        println!(
            " | {:>11}",
            match row.runs.last().and_then(|run| run.calls) {
                Some((making, ending)) => format!("{making} + {ending}"),
                None => "-".to_owned(),
            }
        );
    }
    println!(
        "made: oned has taken and deployed them (2011: taken; its scheduler deploys). run: all run.\n\
         ended: oned has taken their ends. gone: all are DONE. calls: for making, for ending.\n\
         Medians of the rounds; ratio to the best by hand; spread between the rounds."
    );
}

fn wanted() -> Result<Args, Box<dyn Error>> {
    let mut wanted = Args {
        vms: 1000,
        rounds: 3,
        few: 100,
        template: "slurm-worker".to_owned(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        // What cargo adds.
        if arg == "--bench" {
            continue;
        }
        let value = args.next().ok_or(format!("{arg} wants a value"))?;
        match arg.as_str() {
            "--vms" => wanted.vms = value.parse()?,
            "--rounds" => wanted.rounds = value.parse()?,
            "--few" => wanted.few = value.parse()?,
            "--template" => wanted.template = value,
            _ => return Err(format!("{arg} is not known: --vms, --rounds, --few, --template").into()),
        }
    }
    Ok(wanted)
}
