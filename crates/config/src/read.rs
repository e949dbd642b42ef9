//! A reader for settings that reports everything wrong at once, with the line,
//! and notes for every key what it came to and where that came from. It knows
//! TOML and nothing of Thiao's keys: those are named where they are taken.
//!
//! Serde stops at the first mistake, and forgets whether a value was written
//! or defaulted; both matter here.

mod section;

pub use section::{Section, quoted};

use std::borrow::Cow;
use std::cell::RefCell;

/// Something wrong in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1; 0 when it is about the whole file.
    pub line: usize,
    /// The key's full path, e.g. `limits.max_vms`; may be empty.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The line of the file.
    Line(usize),
    /// The program's own default.
    Default,
    /// This variable of the environment, which is the default where it is set.
    Environment(&'static str),
}

/// One line of the resolved settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// A table's head, with its brackets.
    Head(String),
    /// A key with its value in TOML; none if it has no value.
    Key {
        key: Cow<'static, str>,
        /// Its value in TOML.
        value: Option<String>,
        /// Where it came from.
        origin: Origin,
    },
}

/// Where a text's lines are. Found once: a file may have as many mistakes as lines.
pub struct Lines {
    newlines: Vec<usize>,
}

impl Lines {
    /// The lines of this text.
    pub fn of(text: &str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self {
            newlines: newlines.map(|(at, _)| at).collect(),
        }
    }

    /// The line of this byte, from 1.
    pub fn line(&self, byte: usize) -> usize {
        1 + self.newlines.partition_point(|newline| *newline < byte)
    }
}

/// A file under examination.
pub struct Reader {
    lines: Lines,
    problems: RefCell<Vec<Problem>>,
    shown: RefCell<Vec<Shown>>,
    /// Every key that was asked for, by its section's path; each once, however many tables of one path there are.
    known: RefCell<Vec<(String, &'static str)>>,
    /// Keys that were written but not asked for: section, key, line.
    unknown: RefCell<Vec<(String, String, usize)>>,
    /// Keys that are refused where they are: section, key. They are no typos.
    refused: RefCell<Vec<(String, &'static str)>>,
}

/// What a reading came to.
pub struct Findings {
    /// All that is wrong, by line.
    pub problems: Vec<Problem>,
    /// The settings as resolved, in the order in which they were asked for.
    pub shown: Vec<Shown>,
}

impl Reader {
    /// Starts to read this text.
    pub fn new(text: &str) -> Self {
        Self {
            lines: Lines::of(text),
            problems: RefCell::default(),
            shown: RefCell::default(),
            known: RefCell::default(),
            unknown: RefCell::default(),
            refused: RefCell::default(),
        }
    }

    /// The file's line of this byte, from 1.
    pub fn line(&self, byte: usize) -> usize {
        self.lines.line(byte)
    }

    /// Notes that something is wrong.
    pub fn problem(&self, line: usize, key: impl Into<String>, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem {
            line,
            key: key.into(),
            message: message.into(),
        });
    }

    /// Ends the reading; only now is it known which keys nobody asked for, and which is nearest.
    pub fn finish(self) -> Findings {
        for (section, key, line) in self.unknown.take() {
            let known = self.known.borrow();
            let message = match nearest(&known, &section, &key) {
                Some(right) => format!("there is no such key; did you mean {right}?"),
                None => {
                    let keys: Vec<&str> = known
                        .iter()
                        .filter(|(s, _)| *s == section)
                        .map(|(_, k)| *k)
                        .collect();
                    format!("there is no such key; the keys here are {}", keys.join(", "))
                }
            };
            self.problem(line, join(&section, &key), message);
        }
        let mut problems = self.problems.take();
        problems.sort_by_key(|p| p.line);
        problems.dedup();
        Findings {
            problems,
            shown: self.shown.take(),
        }
    }
}

/// The key that was most likely meant: a similar one here, else the same or a similar one elsewhere.
fn nearest(known: &[(String, &'static str)], section: &str, key: &str) -> Option<String> {
    let best = |here: bool, least: f64| {
        known
            .iter()
            .filter(|(s, _)| (s == section) == here)
            .map(|(s, k)| (strsim::jaro_winkler(&key.to_lowercase(), k), s, k))
            .filter(|(likeness, ..)| *likeness >= least)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, s, k)| if here { (*k).to_owned() } else { join(s, k) })
    };
    best(true, 0.8).or_else(|| best(false, 0.93))
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}
