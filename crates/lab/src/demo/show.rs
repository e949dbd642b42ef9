//! How the demo looks: lines as things happen, on a terminal with a table of
//! all jobs below them; at the end the phases, the outputs and the checks.

use super::checks::{Check, gap};
use super::jobs::now;
use super::track::{News, Step, Story, Track};
use crate::slurm_log::Moment;
use comfy_table::{CellAlignment, ColumnConstraint, Table, presets};
use std::io::IsTerminal;
use thiao_cli::output::Printer;
use thiao_cli::say;
use thiao_slurm::words;

/// Prints what the demo does, each line with its time.
pub struct Show {
    begun: u64,
    terminal: bool,
    colours: bool,
    /// The table that stands below the last line.
    standing: String,
}

impl Show {
    /// Starts the clock that the lines show.
    pub fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            begun: now(),
            terminal,
            colours,
            standing: String::new(),
        }
    }

    /// Seconds since the demo began.
    pub fn age_s(&self) -> u64 {
        now().saturating_sub(self.begun) / 1000
    }

    /// A line about the demo itself.
    pub fn say(&mut self, text: &str) {
        self.line(now(), text);
    }

    /// What a program wrote.
    pub fn text(&mut self, text: &str) {
        self.lift();
        text.lines().for_each(|line| say!("{MARGIN}{line}"));
    }

    /// What happened to jobs and nodes.
    pub fn news(&mut self, news: &[News]) {
        for item in news {
            let job = item.job.as_deref().unwrap_or("");
            let node = item.node.as_deref().unwrap_or("");
            let text = format!("{job:<9} {node:<5} {}", item.what);
            self.line(item.at, &text);
        }
    }

    fn line(&mut self, at: u64, text: &str) {
        self.lift();
        let seconds = at.saturating_sub(self.begun);
        let time = format!("{:4}.{:02} s", seconds / 1000, seconds % 1000 / 10);
        let (faint, plain) = match self.colours {
            true => ("\x1b[2m", "\x1b[0m"),
            false => ("", ""),
        };
        let mut lines = wrapped(text, WIDTH - MARGIN.len()).into_iter();
        say!("{faint}{time}{plain}  {}", lines.next().unwrap_or_default());
        lines.for_each(|line| say!("{MARGIN}{line}"));
    }

    /// More of what the last line is about.
    pub fn more(&mut self, text: &str) {
        self.lift();
        let lines = wrapped(text, WIDTH - MARGIN.len());
        lines.into_iter().for_each(|line| say!("{MARGIN}{line}"));
    }

    /// On a terminal: the table of all jobs, in place of the one before.
    pub fn table(&mut self, story: &Story) {
        if !self.terminal {
            return;
        }
        let text = live(story);
        if text != self.standing {
            self.lift();
            say!("{text}");
            self.standing = text;
        }
    }

    /// Takes the standing table away.
    pub fn lift(&mut self) {
        if !self.standing.is_empty() {
            // Up to its first line, and clear from there. Whether anybody sees it is no matter of the demo's.
            let up = format!("\x1b[{}A\x1b[J", self.standing.lines().count());
            let _ = Printer::stdout().print(&up);
            self.standing.clear();
        }
    }

    /// The end of the demo: phases, outputs, checks.
    pub fn end(&mut self, story: &Story) {
        self.lift();
        say!(
            "\nSeconds from sbatch, for the last node of each job:\n{}\n",
            phases(story)
        );
        for track in &story.tracks {
            say!(
                "--- job {} ({}) of {}, {}",
                track.job.label(),
                track.job.name,
                track.job.user.name,
                track.job.output.display()
            );
            say!("{}", track.output.text.trim_end());
        }
        say!();
    }

    /// Prints the checks; whether all hold.
    pub fn checks(&mut self, checks: &[Check]) -> bool {
        self.lift();
        for check in checks {
            let (word, colour) = if check.wrong.is_none() {
                ("ok    ", 32)
            } else {
                ("WRONG ", 31)
            };
            let word = if self.colours {
                format!("\x1b[{colour}m{word}\x1b[0m")
            } else {
                word.to_owned()
            };
            let text = match &check.wrong {
                None => check.what.clone(),
                Some(wrong) => format!("{}: {wrong}", check.what),
            };
            let mut lines = wrapped(&text, WIDTH - 7).into_iter();
            say!("{word} {}", lines.next().unwrap_or_default());
            lines.for_each(|line| say!("       {line}"));
        }
        checks.iter().all(|check| check.wrong.is_none())
    }
}

/// How wide lines are.
const WIDTH: usize = 80;

/// What stands before lines that have no time of their own.
const MARGIN: &str = "           ";

/// A text in lines of so many characters, broken between words; a word that is longer stays whole.
fn wrapped(text: &str, width: usize) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text.trim_end();
    loop {
        let end = rest.char_indices().nth(width).map(|(at, _)| at);
        let Some(end) = end else {
            lines.push(rest);
            return lines;
        };
        let (head, tail) = rest.split_at(end);
        let at = match tail.starts_with(' ') {
            true => Some(end),
            false => head.rfind(' ').or_else(|| tail.find(' ').map(|at| end + at)),
        };
        let Some(at) = at.filter(|at| *at > 0) else {
            lines.push(rest);
            return lines;
        };
        let (line, after) = rest.split_at(at);
        lines.push(line.trim_end());
        rest = after.trim_start();
    }
}

fn bare() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn live(story: &Story) -> String {
    let mut table = bare();
    table.set_header(["JOB", "NODE", "STATE", "LAST STEP"]);
    for track in &story.tracks {
        let name = format!("{} {}", track.job.label(), track.job.name);
        if track.nodes.is_empty() {
            let reason = match words::is_reason(&track.reason) {
                true => format!("({})", track.reason),
                false => String::new(),
            };
            table.add_row([name.as_str(), &reason, &track.state, ""]);
        }
        for (node, life) in story.lives(track) {
            let last = life
                .and_then(|life| life.steps.keys().max())
                .map_or("", |step| step.words());
            table.add_row([name.as_str(), node, &track.state, last]);
        }
    }
    table.trim_fmt()
}

fn phases(story: &Story) -> String {
    let mut table = bare();
    table.set_header([
        "JOB",
        "NODES",
        "ADMITTED",
        "ALLOCATED",
        "RESUME ASKED",
        "VM STARTED",
        "SLURMD STARTED",
        "REGISTERED",
        "LAUNCHED",
        "RUNNING",
        "REGISTERED TO LAUNCHED",
        "RAN",
        "VM GONE AFTER END",
    ]);
    for track in &story.tracks {
        let since =
            |at: Option<u64>| seconds(at.map(|at| at.cast_signed() - track.job.submitted.cast_signed()));
        let step = |step| since(story.last(track, step));
        let moment = |moment| since(track.moments.get(&moment).copied());
        table.add_row([
            format!("{} {}", track.job.label(), track.job.name),
            track.nodes.join(","),
            moment(Moment::Admitted),
            moment(Moment::Allocated),
            step(Step::ResumeAsked),
            step(Step::VmStarted),
            step(Step::VmReady),
            step(Step::Registered),
            moment(Moment::Launched),
            since(track.output.begin),
            seconds(gap(track, story)),
            seconds(span(track.output.begin, track.output.end)),
            seconds(span(track.output.end, story.last(track, Step::VmGone))),
        ]);
    }
    if story.tracks.iter().all(|track| track.job.size.is_none()) {
        // Nothing waits for capacity there.
        hide(&mut table, 2);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn hide(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_constraint(ColumnConstraint::Hidden);
    }
}

fn span(from: Option<u64>, to: Option<u64>) -> Option<i64> {
    Some(to?.cast_signed() - from?.cast_signed())
}

/// Milliseconds as seconds; a dash for what is not known.
fn seconds(millis: Option<i64>) -> String {
    millis.map_or_else(
        || "-".to_owned(),
        |millis| format!("{:.2}", millis as f64 / 1000.0),
    )
}

/// The phases of one job as plain values, for programs.
pub fn figures(track: &Track, story: &Story) -> serde_json::Value {
    let since = |at: Option<u64>| at.map(|at| at.cast_signed() - track.job.submitted.cast_signed());
    let step = |step| since(story.last(track, step));
    let moment = |moment| since(track.moments.get(&moment).copied());
    serde_json::json!({
        "job": track.job.name,
        "nodes": track.nodes,
        "admitted_ms": moment(Moment::Admitted),
        "allocated_ms": moment(Moment::Allocated),
        "resume_asked_ms": step(Step::ResumeAsked),
        "vm_started_ms": step(Step::VmStarted),
        "slurmd_started_ms": step(Step::VmReady),
        "registered_ms": step(Step::Registered),
        "launched_ms": moment(Moment::Launched),
        "running_ms": since(track.output.begin),
        "gap_ms": gap(track, story),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("one two three", 13), ["one two three"]);
        assert_eq!(wrapped("a_long_word b", 4), ["a_long_word", "b"]);
        assert_eq!(wrapped("ää öö üü", 5), ["ää öö", "üü"]);
        assert_eq!(wrapped("", 5), [""]);
    }

    #[test]
    fn unknown_times_are_dashes() {
        assert_eq!(seconds(None), "-");
        assert_eq!(seconds(Some(1234)), "1.23");
        assert_eq!(seconds(Some(-40)), "-0.04");
    }
}
