//! What came of the parts of a long run: told at its end, in the last lines.

use crate::steps::{passes, show};
use anyhow::{Context, Result};
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// So many of the slowest tests are named.
const SLOWEST: usize = 10;

/// The parts, in their order.
#[derive(Debug, Default)]
pub struct Report {
    /// What is before each line of its tests, and before their names.
    head: String,
    parts: Vec<Part>,
    /// Tests, with what each took in milliseconds.
    tests: Vec<(u64, String)>,
}

#[derive(Debug)]
struct Part {
    name: String,
    outcome: Outcome,
    took: Duration,
    /// What it said in the end.
    words: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

impl Report {
    /// One whose tests are told apart from others' that run beside them.
    #[must_use]
    pub fn headed(head: &str) -> Self {
        Self {
            head: head.to_owned(),
            ..Self::default()
        }
    }

    /// Takes over what another tells.
    pub fn add_all(&mut self, other: Self) {
        self.parts.extend(other.parts);
        self.tests.extend(other.tests);
    }

    /// Runs a part that says itself what is wrong.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run(&mut self, name: &str, command: &mut Command) -> Result<()> {
        let began = Instant::now();
        let passed = passes(command)?;
        self.add(name, passed, began, Vec::new());
        Ok(())
    }

    /// Runs tests, and keeps how many passed, failed and were skipped.
    ///
    /// # Errors
    /// When they cannot be run.
    pub fn tests(&mut self, name: &str, command: &mut Command) -> Result<()> {
        let began = Instant::now();
        show(command);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cargo cannot be run")?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (said, status) = std::thread::scope(|scope| {
            let head = self.head.as_str();
            let out = scope.spawn(move || pass_on(out, |line| println!("{head}{line}")));
            let err = pass_on(err, |line| eprintln!("{head}{line}"));
            let status = child.wait();
            (out.join().unwrap_or_default() + &err, status)
        });
        let passed = status.context("cargo got lost")?.success();
        self.add(name, passed, began, last_words(&said));
        let timed = said.lines().filter_map(test_and_time);
        self.tests
            .extend(timed.map(|(ms, name)| (ms, format!("{}{name}", self.head))));
        Ok(())
    }

    /// A part that failed before it could run.
    pub fn failed(&mut self, name: &str, why: &str) {
        eprintln!("xtask: {name}: {why}");
        self.add(name, false, Instant::now(), vec![why.to_owned()]);
    }

    /// A part that is left out.
    pub fn skipped(&mut self, name: &str, why: &str) {
        println!("skipped: {name}: {why}");
        self.parts.push(Part {
            name: name.to_owned(),
            outcome: Outcome::Skipped,
            took: Duration::ZERO,
            words: vec![why.to_owned()],
        });
    }

    fn add(&mut self, name: &str, passed: bool, began: Instant, words: Vec<String>) {
        self.parts.push(Part {
            name: name.to_owned(),
            outcome: match passed {
                true => Outcome::Passed,
                false => Outcome::Failed,
            },
            took: began.elapsed(),
            words,
        });
    }

    /// Whether no part has failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.parts.iter().all(|part| part.outcome != Outcome::Failed)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            let word = match part.outcome {
                Outcome::Passed => "passed",
                Outcome::Failed => "FAILED",
                Outcome::Skipped => "skipped",
            };
            let seconds = part.took.as_secs();
            let mut words = part.words.iter();
            write!(
                f,
                "{word:7} {:2}:{:02}  {}",
                seconds / 60,
                seconds % 60,
                part.name
            )?;
            match words.next() {
                Some(first) => writeln!(f, ": {first}")?,
                None => writeln!(f)?,
            }
            for more in words {
                writeln!(f, "               {more}")?;
            }
        }
        let mut slowest: Vec<_> = self.tests.iter().collect();
        slowest.sort_by_key(|(ms, _)| std::cmp::Reverse(*ms));
        for (n, (ms, name)) in slowest.into_iter().take(SLOWEST).enumerate() {
            let head = if n == 0 { "slowest" } else { "" };
            writeln!(f, "{head:7} {:4} s  {name}", ms / 1000)?;
        }
        let of = |outcome| self.parts.iter().filter(|part| part.outcome == outcome).count();
        write!(
            f,
            "{} parts passed, {} failed, {} skipped",
            of(Outcome::Passed),
            of(Outcome::Failed),
            of(Outcome::Skipped)
        )
    }
}

/// Passes lines on, and keeps them.
fn pass_on(stream: Option<impl Read>, tell: impl Fn(&str)) -> String {
    let mut said = String::new();
    let Some(stream) = stream else { return said };
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        tell(&line);
        said.push_str(&line);
        said.push('\n');
    }
    said
}

/// A test's name and time in milliseconds, of a line of nextest's that tells how it ended.
fn test_and_time(line: &str) -> Option<(u64, String)> {
    let (word, rest) = line.trim().split_once(" [")?;
    if !["PASS", "FAIL"].iter().any(|end| word.ends_with(end)) {
        return None;
    }
    let (seconds, rest) = rest.split_once("s] ")?;
    let (whole, part) = seconds.trim().split_once('.')?;
    let ms = whole.parse::<u64>().ok()? * 1000 + part.get(..3)?.parse::<u64>().ok()?;
    // Of how many it is says nothing later.
    let name = rest.split_once(") ").map_or(rest, |(_, name)| name);
    Some((ms, name.to_owned()))
}

/// How a run of tests says what came of it: nextest has one summary with the failed ones below it,
/// `cargo test` a line for each program.
fn last_words(said: &str) -> Vec<String> {
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    if let Some(at) = lines.iter().rposition(|line| line.starts_with("Summary [")) {
        let counts = lines[at].split_once("] ").map_or(lines[at], |(_, counts)| counts);
        let failed = lines[at + 1..].iter().filter(|line| line.contains(" ("));
        return std::iter::once(&counts)
            .chain(failed)
            .map(|line| (*line).to_owned())
            .collect();
    }
    let failed = lines
        .iter()
        .filter(|line| line.starts_with("test ") && line.ends_with("FAILED"));
    let counts = lines.iter().filter_map(|line| line.strip_prefix("test result: "));
    counts.chain(failed.copied()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nextest_says_in_the_end_is_kept() {
        let said = "PASS [ 0.1s] (1/2) a b\n────\n     Summary [  12.345s] 2 tests run: 1 passed, 1 failed, 3 skipped\n        \
                    FAIL [   0.2s] (2/2) thiao-slurm::real scenario::x\nerror: test run failed\n";
        assert_eq!(
            last_words(said),
            [
                "2 tests run: 1 passed, 1 failed, 3 skipped",
                "FAIL [   0.2s] (2/2) thiao-slurm::real scenario::x"
            ]
        );
    }

    #[test]
    fn a_test_that_passed_at_the_second_try_is_named() {
        let said = "  TRY 2 PASS [   0.032s] (2/2) fl a\n────\n     Summary [   0.452s] 2 tests run: 2 passed (1 flaky), 0 skipped\n   \
                    FLAKY 2/2 [   0.032s] (2/2) fl a\n";
        assert_eq!(
            last_words(said),
            [
                "2 tests run: 2 passed (1 flaky), 0 skipped",
                "FLAKY 2/2 [   0.032s] (2/2) fl a"
            ]
        );
    }

    #[test]
    fn the_slowest_tests_are_named() {
        let said = "        PASS [  26.794s] (626/1132) thiao-lab::lab_opennebula lab_a\n  TRY 2 PASS [   1.032s] (2/2) fl b\n        SLOW [> 60.000s] (─────) thiao-lab::lab_x c\n     Summary [  12.345s] 2 tests run\n";
        let mut report = Report::default();
        report.tests.extend(said.lines().filter_map(test_and_time));
        assert_eq!(
            report.tests,
            [
                (26_794, "thiao-lab::lab_opennebula lab_a".to_owned()),
                (1032, "fl b".to_owned())
            ]
        );
        assert_eq!(
            report.to_string(),
            "slowest   26 s  thiao-lab::lab_opennebula lab_a\n           1 s  fl b\n0 parts passed, 0 failed, 0 skipped"
        );
    }

    #[test]
    fn what_cargo_test_says_is_kept() {
        let said = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored\n";
        assert_eq!(
            last_words(said),
            ["FAILED. 1 passed; 1 failed; 0 ignored", "test b ... FAILED"]
        );
    }

    #[test]
    fn the_report_says_what_passed_failed_and_was_skipped() {
        let mut report = Report::default();
        report.skipped("labs", "--fast");
        report.add("cargo fmt", true, Instant::now(), Vec::new());
        assert!(report.passed());
        report.add(
            "tests",
            false,
            Instant::now(),
            vec!["1 failed".into(), "FAIL x".into()],
        );
        assert!(!report.passed());
        assert_eq!(
            report.to_string(),
            "skipped  0:00  labs: --fast\npassed   0:00  cargo fmt\nFAILED   0:00  tests: 1 failed\n               \
             FAIL x\n1 parts passed, 1 failed, 1 skipped"
        );
    }
}
