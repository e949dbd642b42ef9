//! What a comparison comes to.

use std::time::Duration;

/// What was compared, and how it came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which log or set of traces.
    pub of: String,
    /// What the algorithm is called there.
    pub algorithm: String,
    /// What one of the compared things is.
    pub unit: &'static str,
    /// How many of them are equal.
    pub equal: usize,
    /// How many of them are not.
    pub different: usize,
    /// The first that are not.
    pub examples: Vec<String>,
    /// How long the runs took, on all cores.
    pub took: Duration,
}

impl Line {
    /// With nothing compared yet.
    pub fn new(of: &str, algorithm: &str, unit: &'static str) -> Self {
        let (of, algorithm) = (of.to_owned(), algorithm.to_owned());
        Self {
            of,
            algorithm,
            unit,
            equal: 0,
            different: 0,
            examples: Vec::new(),
            took: Duration::ZERO,
        }
    }

    /// One more: equal, or as the example says.
    pub fn count(&mut self, difference: Option<String>) {
        match difference {
            None => self.equal += 1,
            Some(difference) => {
                self.different += 1;
                if self.examples.len() < 5 {
                    self.examples.push(difference);
                }
            }
        }
    }
}
