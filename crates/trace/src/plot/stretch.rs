//! The stretch of all jobs, a line for each policy.

use super::Stretches;
use super::axis::{Axes, Frame, Scale, number};
use super::svg::{Anchor, Svg};

/// Colours that people tell apart who see red and green alike (Okabe and Ito), dark enough for white paper.
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#222222", "#cc79a7", "#8c6d00", "#56b4e9",
];
/// And dashes for those who see no colours.
const DASHES: [&str; 7] = ["", "8 4", "2 3", "10 3 2 3", "4 4", "12 3", "6 2 2 2 2 2"];

const WIDTH: f64 = 760.0;
const FRAME: Frame = Frame {
    left: 70.0,
    top: 60.0,
    right: 580.0,
    bottom: 380.0,
};

/// Each line's name beside the plot, with how it is drawn.
fn legend<'a>(svg: &mut Svg, names: impl Iterator<Item = &'a str>) {
    let x = FRAME.right + 16.0;
    for (at, name) in names.enumerate() {
        let y = FRAME.top + 10.0 + 20.0 * at as f64;
        let (colour, dashes) = style(at);
        svg.path(&[(x, y), (x + 34.0, y)], colour, dashes);
        svg.text((x + 40.0, y + 4.0), name, Anchor::Start);
    }
}

fn style(at: usize) -> (&'static str, &'static str) {
    // With more lines than colours, the same colour comes back with other dashes.
    (
        COLOURS[at % COLOURS.len()],
        DASHES[(at + at / COLOURS.len()) % DASHES.len()],
    )
}

/// For each stretch, how many jobs have at most that.
#[must_use]
pub fn stretch(log: &str, lines: &[Stretches<'_>]) -> String {
    let sorted: Vec<Vec<f64>> = lines
        .iter()
        .map(|line| {
            let mut values = line.of.clone();
            values.sort_unstable_by(f64::total_cmp);
            values
        })
        .collect();
    let greatest = sorted
        .iter()
        .filter_map(|values| values.last())
        .fold(10.0_f64, |a, b| a.max(*b));
    let axes = Axes {
        frame: FRAME,
        x: Scale::Log {
            from: 1.0,
            to: 10_f64.powf(greatest.log10().ceil()),
        },
        y: Scale::Linear { from: 0.0, to: 100.0 },
    };
    let mut svg = Svg::new(WIDTH, 430.0, "How far jobs were stretched", log);
    axes.draw(
        &mut svg,
        ("bounded stretch: turnaround by run time", &number),
        ("% of the jobs have at most this", &number),
    );
    for (at, values) in sorted.iter().enumerate() {
        let (colour, dashes) = style(at);
        svg.path(&steps(&axes, values), colour, dashes);
    }
    legend(&mut svg, lines.iter().map(|line| line.name));
    svg.done("")
}

/// The corners of the line, at most one for each pixel to the right.
fn steps(axes: &Axes, sorted: &[f64]) -> Vec<(f64, f64)> {
    let share = |rank: usize| 100.0 * rank as f64 / sorted.len() as f64;
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (at, value) in sorted.iter().enumerate() {
        let (x, y) = axes.at(*value, share(at + 1));
        match points.last_mut() {
            Some(last) if x - last.0 < 1.0 => last.1 = y,
            _ => {
                // Up to here it was as before.
                let before = points.last().map_or(axes.at(1.0, 0.0).1, |last| last.1);
                points.push((x, before));
                points.push((x, y));
            }
        }
    }
    // All have at most the greatest: to the plot's right.
    points.extend((!sorted.is_empty()).then(|| axes.at(f64::MAX, 100.0)));
    points
}
