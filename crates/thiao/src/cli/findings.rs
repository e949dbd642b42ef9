//! Findings for people: a mark, what it is about, how it stands; below, what mends it.

use std::fmt::Write as _;
use thiao_cli::output::{Printer, Tone, clean};
use thiao_core::finding::{Finding, Remedy, Verdict};

/// The mark and tone of a verdict.
fn mark(verdict: Verdict) -> (&'static str, Tone) {
    match verdict {
        Verdict::Ok => ("ok", Tone::Good),
        Verdict::Warn => ("WARN", Tone::Busy),
        Verdict::Bad => ("BAD", Tone::Bad),
    }
}

/// One finding a line, its remedy below it.
pub(super) fn draw(printer: Printer, findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let (word, tone) = mark(finding.verdict);
        // Padded before it is coloured; writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  {} {}: {}",
            printer.toned(&format!("{word:<4}"), tone),
            clean(&finding.what),
            clean(&finding.text)
        );
        let _ = match &finding.remedy {
            Some(Remedy::Run(command)) => writeln!(text, "         run: {}", clean(command)),
            Some(Remedy::Advice(sentence)) => writeln!(text, "         {}", clean(sentence)),
            None => Ok(()),
        };
    }
    text
}

/// How many of each, in a sentence.
pub(super) fn sum<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> String {
    let (mut ok, mut warn, mut bad) = (0_usize, 0_usize, 0_usize);
    for finding in findings {
        match finding.verdict {
            Verdict::Ok => ok += 1,
            Verdict::Warn => warn += 1,
            Verdict::Bad => bad += 1,
        }
    }
    format!("{bad} bad, {warn} to look at, {ok} good")
}
