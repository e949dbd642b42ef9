//! Pictures as SVG, for the browser and for print: white ground, and what colours say, dashes, patterns or words say too.

mod axis;
mod gantt;
mod stretch;
mod svg;
#[cfg(test)]
mod tests;
mod usage;

pub use gantt::gantt;
pub use stretch::stretch;
pub use usage::usage;

use crate::record::Recording;

/// A line of a plot: what it is called, and where it goes.
#[derive(Debug, Clone)]
pub struct Line<'a, T> {
    /// As the legend has it.
    pub name: &'a str,
    pub of: T,
}

/// The stretches of all jobs under a policy, in any order.
pub type Stretches<'a> = Line<'a, Vec<f64>>;

/// How much of the cluster jobs had under a policy.
pub type Usage<'a> = Line<'a, &'a Recording>;
