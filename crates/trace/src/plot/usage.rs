//! How much of the cluster was in use, a strip for each policy: on top of each other lines would hide one another.

use super::Usage;
use super::axis::{Axes, Frame, Scale, number, unit};
use super::svg::{Anchor, Svg};

/// So many steps to the right, at most.
const STEPS: usize = 330;

const WIDTH: f64 = 760.0;
const TOP: f64 = 76.0;
/// Of each strip, and between two.
const HIGH: f64 = 90.0;
const GAP: f64 = 28.0;

/// How much of the cluster jobs had, over time.
#[must_use]
pub fn usage(log: &str, strips: &[Usage<'_>]) -> String {
    let span = |strip: &Usage<'_>| (strip.of.used.len() as u64 * strip.of.bin) as f64 / 1000.0;
    let longest = strips.iter().map(span).fold(1.0, f64::max);
    let (seconds, name) = unit(longest);
    let high = TOP + (HIGH + GAP) * strips.len() as f64;
    let mut svg = Svg::new(WIDTH, high + 36.0, "How much of the cluster was in use", log);
    for (at, strip) in strips.iter().enumerate() {
        let top = TOP + (HIGH + GAP) * at as f64;
        let axes = Axes {
            frame: Frame {
                left: 70.0,
                top,
                right: 740.0,
                bottom: top + HIGH,
            },
            x: Scale::Linear {
                from: 0.0,
                to: longest / seconds,
            },
            y: Scale::Linear { from: 0.0, to: 100.0 },
        };
        if at + 1 == strips.len() {
            axes.draw_x(&mut svg, (&format!("{name} since it begins"), &number));
        }
        one(&mut svg, &axes, strip, seconds);
    }
    svg.done("")
}

fn one(svg: &mut Svg, axes: &Axes, strip: &Usage<'_>, seconds: f64) {
    let Usage { name, of } = strip;
    let Frame {
        left,
        top,
        right,
        bottom,
    } = axes.frame;
    for percent in [0.0, 50.0, 100.0] {
        let (_, y) = axes.at(0.0, percent);
        svg.line((left, y), (right, y), "#ddd");
        svg.text((left - 8.0, y + 4.0), &format!("{percent} %"), Anchor::End);
    }
    let together = of.used.len().div_ceil(STEPS).max(1);
    let at = |bins: usize| bins as f64 * of.bin as f64 / 1000.0 / seconds;
    let mut points = vec![(left, bottom)];
    for (chunk, used) in of.used.chunks(together).enumerate() {
        let mean = 100.0 * used.iter().sum::<f64>() / used.len() as f64;
        let first = chunk * together;
        points.extend([axes.at(at(first), mean), axes.at(at(first + used.len()), mean)]);
    }
    points.push((points.last().map_or(left, |last| last.0), bottom));
    svg.area(&points, "#a6cbe3", "#0072b2");
    svg.text(
        (left, top - 6.0),
        &format!("{name}: share of all CPU that jobs had"),
        Anchor::Start,
    );
}
