//! Scales, and the lines and numbers that people read them by.

use super::svg::{Anchor, Svg};

/// Where a plot is within its picture.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

/// From values to places.
#[derive(Debug, Clone, Copy)]
pub enum Scale {
    Linear {
        from: f64,
        to: f64,
    },
    /// Both ends are more than 0.
    Log {
        from: f64,
        to: f64,
    },
}

impl Scale {
    /// A value's place between 0 and 1; what is outside is at the edge.
    pub fn place(self, value: f64) -> f64 {
        let part = match self {
            Self::Linear { from, to } => (value - from) / (to - from),
            Self::Log { from, to } => (value.max(from) / from).ln() / (to / from).ln(),
        };
        part.clamp(0.0, 1.0)
    }

    /// Round values to write at the axis, from 4 to 10 of them where the scale is linear.
    pub fn ticks(self) -> Vec<f64> {
        match self {
            Self::Log { from, to } => {
                let decades = std::iter::successors(Some(from), |tick| Some(tick * 10.0));
                decades.take_while(|tick| *tick <= to * 1.001).collect()
            }
            Self::Linear { from, to } => {
                let rough = (to - from) / 9.0;
                let power = 10_f64.powf(rough.log10().floor());
                let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
                let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(rough);
                let first = (from / step).ceil();
                let ticks = (0..12).map(|at| (first + f64::from(at)) * step);
                ticks.take_while(|tick| *tick <= to + step * 1e-6).collect()
            }
        }
    }
}

/// The two axes of a plot.
#[derive(Debug, Clone, Copy)]
pub struct Axes {
    pub frame: Frame,
    pub x: Scale,
    pub y: Scale,
}

impl Axes {
    /// Where a pair of values is.
    pub fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let Frame {
            left,
            top,
            right,
            bottom,
        } = self.frame;
        (
            left + self.x.place(x) * (right - left),
            bottom - self.y.place(y) * (bottom - top),
        )
    }

    /// Grid, numbers and names.
    pub fn draw(&self, svg: &mut Svg, x: (&str, &dyn Fn(f64) -> String), y: (&str, &dyn Fn(f64) -> String)) {
        let Frame {
            left,
            top,
            right,
            bottom,
        } = self.frame;
        for tick in self.y.ticks() {
            let (_, at) = self.at(0.0, tick);
            svg.line((left, at), (right, at), "#ddd");
            svg.text((left - 8.0, at + 4.0), &(y.1)(tick), Anchor::End);
        }
        svg.upright((18.0, f64::midpoint(top, bottom)), y.0);
        self.draw_x(svg, x);
        svg.line((left, top), (left, bottom), "#222");
    }

    /// The axis below alone.
    pub fn draw_x(&self, svg: &mut Svg, (name, number): (&str, &dyn Fn(f64) -> String)) {
        let Frame {
            left,
            top,
            right,
            bottom,
        } = self.frame;
        for tick in self.x.ticks() {
            let (at, _) = self.at(tick, 0.0);
            svg.line((at, top), (at, bottom + 5.0), "#ddd");
            svg.text((at, bottom + 19.0), &number(tick), Anchor::Middle);
        }
        svg.line((left, bottom), (right, bottom), "#222");
        svg.text((f64::midpoint(left, right), bottom + 38.0), name, Anchor::Middle);
    }
}

/// Seconds in the unit that suits a span, and the unit's name.
pub fn unit(span: f64) -> (f64, &'static str) {
    match span {
        _ if span > 3.0 * 86_400.0 => (86_400.0, "days"),
        _ if span > 3.0 * 3600.0 => (3600.0, "hours"),
        _ if span > 180.0 => (60.0, "minutes"),
        _ => (1.0, "seconds"),
    }
}

/// A number at an axis.
pub fn number(value: f64) -> String {
    let rounded = (value * 1000.0).round() / 1000.0;
    if rounded >= 10_000.0 {
        let digits = format!("{rounded:.0}");
        let (head, tail) = digits.split_at(digits.len() - 3);
        return format!("{head},{tail}");
    }
    format!("{rounded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(
            Scale::Log {
                from: 1.0,
                to: 1000.0
            }
            .ticks(),
            [1.0, 10.0, 100.0, 1000.0]
        );
        assert_eq!(Scale::Linear { from: 0.0, to: 100.0 }.ticks().len(), 6);
        assert_eq!(
            Scale::Linear { from: 24.0, to: 48.0 }.ticks(),
            [25.0, 30.0, 35.0, 40.0, 45.0]
        );
        assert_eq!(
            [0.1 + 0.2, 1200.0, 12_345.0].map(number),
            ["0.3", "1200", "12,345"]
        );
    }

    #[test]
    fn what_is_outside_is_at_the_edge() {
        let log = Scale::Log { from: 1.0, to: 100.0 };
        assert_eq!(
            [0.0, 1.0, 10.0, 1e9].map(|value| log.place(value)),
            [0.0, 0.0, 0.5, 1.0]
        );
        assert_eq!(Scale::Linear { from: 2.0, to: 4.0 }.place(3.0), 0.5);
    }
}
