//! Who was on which hosts, for a while: job by job where people can still see them, and else summed up by hosts.

use super::axis::{Axes, Frame, Scale, number, unit};
use super::svg::{Anchor, Svg};
use crate::figures::{LONG, Length, SHORT};
use crate::record::{Segment, Window};
use crate::workload::Workload;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use thiao_share::Ms;

/// With more of them, jobs are not drawn one by one.
const MOST_SEGMENTS: usize = 1500;
/// With more hosts, several share a row.
const MOST_ROWS: u32 = 60;
/// So many steps to the right, where jobs are summed up.
const STEPS: usize = 260;

const WIDTH: f64 = 940.0;
const LEFT: f64 = 90.0;
const TOP: f64 = 84.0;
const RIGHT: f64 = 920.0;
/// All rows together are about so high.
const HIGH: f64 = 600.0;

/// What jobs are filled with, by length: told apart by lightness and pattern, too.
const FILLS: [&str; 3] = ["#f4b460", "url(#medium)", "#23395d"];
/// A job that is paused in place.
const PAUSED: &str = "url(#paused)";
/// That there are such, where jobs are summed up.
const SOME_PAUSED: &str = "#999";

const PATTERNS: &str = concat!(
    r##"<pattern id="medium" width="4" height="4" patternUnits="userSpaceOnUse">"##,
    r##"<rect width="4" height="4" fill="#8fc1e3"/><path d="M0,4 L4,0" stroke="#3b7dac" stroke-width="1"/></pattern>"##,
    r##"<pattern id="paused" width="5" height="5" patternUnits="userSpaceOnUse">"##,
    r##"<rect width="5" height="5" fill="#fff"/><path d="M0,0 L5,5" stroke="#999" stroke-width="1"/></pattern>"##,
);

/// The hosts during the window. `pooled`: the run knew of no hosts, and these jobs are put on some for the picture.
#[must_use]
pub fn gantt(
    workload: &Workload,
    policy: &str,
    window: Window,
    segments: &[Segment],
    pooled: bool,
) -> String {
    let spread = pooled.then(|| spread(workload, segments));
    let segments = spread.as_deref().unwrap_or(segments);
    let each = workload.hosts.div_ceil(MOST_ROWS).max(1);
    let rows = workload.hosts.div_ceil(each).max(1);
    let high = (HIGH / f64::from(rows)).min(40.0);
    let bottom = TOP + high * f64::from(rows);
    let (seconds, name) = unit((window.to - window.from) as f64 / 1000.0);
    let axes = Axes {
        frame: Frame {
            left: LEFT,
            top: TOP,
            right: RIGHT,
            bottom,
        },
        x: Scale::Linear {
            from: window.from as f64 / 1000.0 / seconds,
            to: window.to as f64 / 1000.0 / seconds,
        },
        y: Scale::Linear { from: 0.0, to: 1.0 },
    };
    let below = match pooled {
        true => format!(
            "{}; this policy knows no hosts: on which a job is drawn means nothing",
            workload.name
        ),
        false => workload.name.clone(),
    };
    let mut svg = Svg::new(
        WIDTH,
        bottom + 60.0,
        &format!("Who ran where under {policy}"),
        &below,
    );
    let singly = segments.len() <= MOST_SEGMENTS && each == 1;
    legend(&mut svg, singly);
    axes.draw_x(&mut svg, (&format!("{name} since it begins"), &number));
    let plot = Plot {
        workload,
        window,
        each,
        high,
    };
    if singly {
        plot.one_by_one(&mut svg, segments);
    } else {
        plot.summed(&mut svg, segments);
    }
    plot.rows(&mut svg, rows);
    svg.done(PATTERNS)
}

fn legend(svg: &mut Svg, singly: bool) {
    let (short, long) = (SHORT / 60, LONG / 60);
    let words = [
        format!("ran under {short} min"),
        format!("{short} to {long} min"),
        format!("{long} min or longer"),
        if singly {
            "paused in place"
        } else {
            "above: some are paused"
        }
        .to_owned(),
    ];
    let paused = if singly { PAUSED } else { SOME_PAUSED };
    for (at, (fill, words)) in FILLS.into_iter().chain([paused]).zip(words).enumerate() {
        let x = LEFT + 190.0 * at as f64;
        svg.rect((x, 54.0), (24.0, 12.0), fill, "");
        svg.text((x + 30.0, 64.0), &words, Anchor::Start);
    }
}

struct Plot<'a> {
    workload: &'a Workload,
    window: Window,
    /// So many hosts share a row.
    each: u32,
    /// How high a row is.
    high: f64,
}

impl Plot<'_> {
    /// Lines between rows, and the numbers of their hosts.
    fn rows(&self, svg: &mut Svg, rows: u32) {
        // Words need some room of their own.
        let every = (14.0 / self.high).ceil().max(1.0) as u32;
        for row in 0..=rows {
            let y = TOP + self.high * f64::from(row);
            svg.line((LEFT, y), (RIGHT, y), "#bbb");
            if row < rows && row.is_multiple_of(every) {
                let first = row * self.each;
                let last = (first + self.each).min(self.workload.hosts) - 1;
                let hosts = if first == last {
                    format!("{first}")
                } else {
                    format!("{first}-{last}")
                };
                svg.text(
                    (LEFT - 8.0, y + (self.high / 2.0 + 4.0).min(12.0)),
                    &hosts,
                    Anchor::End,
                );
            }
        }
        svg.upright((22.0, TOP + self.high * f64::from(rows) / 2.0), "hosts");
    }

    fn fill(&self, segment: &Segment) -> usize {
        Length::of(self.workload.jobs[segment.job as usize].run) as usize
    }

    fn x(&self, at: Ms) -> f64 {
        let Window { from, to } = self.window;
        let part = (at.clamp(from, to) - from) as f64 / (to - from) as f64;
        LEFT + part * (RIGHT - LEFT)
    }

    /// Each job where it was: as high as its share of the host, those that are paused as a narrow strip.
    fn one_by_one(&self, svg: &mut Svg, segments: &[Segment]) {
        for host in segments.chunk_by(|one, next| one.host == next.host) {
            let (lanes, count) = lanes(host);
            let lane = self.high / count as f64;
            for (segment, at) in host.iter().zip(lanes) {
                let job = &self.workload.jobs[segment.job as usize];
                let share = f64::from(segment.alloc) / f64::from(job.cpu.max(1));
                let (x, end) = (self.x(segment.from), self.x(segment.to));
                let high = (lane * if segment.alloc == 0 { 1.0 } else { share.max(0.15) }).max(1.0);
                let y = TOP + self.high * f64::from(segment.host) + lane * (at + 1) as f64 - high;
                let fill = self.fill(segment);
                let (fill, what) = match segment.alloc {
                    0 => (PAUSED, "paused".to_owned()),
                    _ => (FILLS[fill], format!("{:.0} % of its CPU", 100.0 * share)),
                };
                let wide = (end - x - 0.4).max(0.4);
                svg.rect(
                    (x, y),
                    (wide, high - 0.4),
                    fill,
                    &format!("job {}, {what}", job.id),
                );
                if wide > 7.0 * (job.id.checked_ilog10().unwrap_or(0) + 1) as f64 && high >= 10.0 {
                    svg.small(
                        (x + wide / 2.0, y + high / 2.0 + 3.0),
                        &job.id.to_string(),
                        fill == FILLS[2],
                    );
                }
            }
        }
    }

    /// For each row and moment, the CPU of its hosts by the lengths of the jobs that have it.
    fn summed(&self, svg: &mut Svg, segments: &[Segment]) {
        let Window { from, to } = self.window;
        let step = (to - from) as f64 / STEPS as f64;
        let rows = self.workload.hosts.div_ceil(self.each).max(1) as usize;
        // By row and step: CPU time by length, and how long somebody was paused.
        let mut cells = vec![[[0.0_f64; 4]; STEPS]; rows];
        for segment in segments {
            let (begin, end) = (
                segment.from.clamp(from, to) - from,
                segment.to.clamp(from, to) - from,
            );
            let (begin, end) = (begin as f64 / step, end as f64 / step);
            let row = &mut cells[(segment.host / self.each) as usize];
            for (at, cell) in row
                .iter_mut()
                .enumerate()
                .take(end.ceil() as usize)
                .skip(begin as usize)
            {
                let during = (end.min(at as f64 + 1.0) - begin.max(at as f64)).max(0.0);
                match segment.alloc {
                    0 => cell[3] += during,
                    alloc => cell[self.fill(segment)] += during * f64::from(alloc) * f64::from(segment.tasks),
                }
            }
        }
        let all = f64::from(self.workload.host.cpu) * f64::from(self.each);
        let wide = (RIGHT - LEFT) / STEPS as f64;
        let strip = (self.high * 0.2).clamp(1.0, 4.0);
        for (row, cells) in cells.iter().enumerate() {
            let floor = TOP + self.high * (row + 1) as f64;
            // What looks the same side by side is one shape: halves of a pixel are not told apart.
            let looks = cells.map(|cell| {
                let heights =
                    [cell[0], cell[1], cell[2]].map(|cpu| (cpu / all * (self.high - strip) * 2.0).round());
                (heights.map(|height| height as u32), cell[3] > 0.25)
            });
            let mut at = 0;
            for same in looks.chunk_by(|one, next| one == next) {
                let (heights, paused) = same[0];
                let (x, width) = (LEFT + wide * at as f64, wide * same.len() as f64);
                at += same.len();
                let mut y = floor;
                // The long ones are the ground that others stand on.
                for (fill, height) in FILLS
                    .into_iter()
                    .zip(heights)
                    .rev()
                    .filter(|(_, height)| *height > 0)
                {
                    let height = (f64::from(height) / 2.0).min(y - (floor - self.high));
                    y -= height;
                    svg.rect((x, y), (width, height), fill, "");
                }
                if paused {
                    svg.rect((x, floor - self.high), (width, strip), SOME_PAUSED, "");
                }
            }
        }
    }
}

/// A lane for each segment of a host, so that none covers another; a job keeps its lane where it can. And how many.
fn lanes(host: &[Segment]) -> (Vec<usize>, usize) {
    let mut last: Vec<(Ms, u32)> = Vec::new();
    let mut of = Vec::with_capacity(host.len());
    for segment in host {
        let free = |(until, _): &&(Ms, u32)| *until <= segment.from;
        let its = last.iter().position(|lane| free(&lane) && lane.1 == segment.job);
        let lane = its
            .or_else(|| last.iter().position(|lane| free(&lane)))
            .unwrap_or(last.len());
        if lane == last.len() {
            last.push((0, 0));
        }
        last[lane] = (segment.to, segment.job);
        of.push(lane);
    }
    (of, last.len().max(1))
}

/// Tasks that were on one big host, put on the first hosts that have CPU for them.
fn spread(workload: &Workload, segments: &[Segment]) -> Vec<Segment> {
    let mut by_time = segments.to_vec();
    by_time.sort_unstable_by_key(|segment| (segment.from, segment.job));
    let mut free = vec![workload.host.cpu; workload.hosts as usize];
    let mut ends: BinaryHeap<Reverse<(Ms, usize, u32)>> = BinaryHeap::new();
    let mut placed = Vec::new();
    for segment in by_time {
        while let Some(Reverse((end, host, cpu))) = ends.peek().copied()
            && end <= segment.from
        {
            free[host] += cpu;
            ends.pop();
        }
        let mut left = segment.tasks;
        for (host, free) in free.iter_mut().enumerate() {
            let tasks = left.min(*free / segment.alloc.max(1));
            if tasks == 0 {
                continue;
            }
            *free -= tasks * segment.alloc;
            ends.push(Reverse((segment.to, host, tasks * segment.alloc)));
            placed.push(Segment {
                host: host as u32,
                tasks,
                ..segment
            });
            left -= tasks;
            if left == 0 {
                break;
            }
        }
        // Where what is free is in pieces too small for a task, the rest is not drawn.
    }
    placed.sort_unstable_by_key(|segment| (segment.host, segment.from, segment.job));
    placed
}

#[cfg(test)]
mod tests {
    use super::*;
    use thiao_share::Host;

    fn segment(job: u32, tasks: u32, from: Ms, to: Ms) -> Segment {
        Segment {
            job,
            host: 0,
            tasks,
            alloc: 1,
            from,
            to,
        }
    }

    #[test]
    fn no_segment_covers_another() {
        let host = [
            segment(1, 1, 0, 10),
            segment(2, 1, 5, 8),
            segment(3, 1, 8, 20),
            segment(1, 1, 10, 20),
        ];
        assert_eq!(lanes(&host), (vec![0, 1, 1, 0], 2));
        assert_eq!(lanes(&[]), (vec![], 1));
    }

    #[test]
    fn a_pool_is_drawn_on_hosts_that_have_the_cpu() {
        let workload = Workload {
            name: String::new(),
            hosts: 3,
            host: Host { cpu: 2, memory: 0 },
            jobs: Vec::new(),
        };
        let placed = spread(
            &workload,
            &[segment(0, 3, 0, 10), segment(1, 3, 0, 20), segment(2, 3, 10, 30)],
        );
        let seen: Vec<_> = placed.iter().map(|s| (s.host, s.job, s.tasks)).collect();
        assert_eq!(
            seen,
            [(0, 0, 2), (0, 2, 2), (1, 0, 1), (1, 1, 1), (1, 2, 1), (2, 1, 2)]
        );
    }
}
