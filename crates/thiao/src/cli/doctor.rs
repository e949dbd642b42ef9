//! `thiao doctor`: all checks, at any time.

use super::args::Doctor;
use super::findings;
use crate::doctor::{self, Group};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use thiao_cli::exit::FAILED;
use thiao_cli::output::Printer;
use thiao_config::Config;
use thiao_core::finding::{Finding, Remedy, Verdict};

pub(super) fn run(file: Option<&Path>, printer: Printer, how: &Doctor) -> anyhow::Result<ExitCode> {
    let groups = match Config::load(file) {
        Ok(config) => doctor::examine(&config, &how.hooks, how.try_vm),
        Err(error) => vec![Group {
            title: "Settings",
            findings: vec![Finding::bad("settings", error.to_string()).run(setup(file))],
        }],
    };
    let worst = doctor::verdict(&groups);
    let text = if how.json {
        thiao_cli::output::json(&as_json(&groups, worst), true)?
    } else {
        draw(printer, &groups)
    };
    printer.print(&text)?;
    Ok(match worst {
        Verdict::Ok | Verdict::Warn => ExitCode::SUCCESS,
        Verdict::Bad => ExitCode::from(FAILED),
    })
}

/// What makes settings anew, of the file that was named.
fn setup(file: Option<&Path>) -> String {
    file.map_or_else(
        || "thiao setup".to_owned(),
        |file| doctor::with_settings("thiao setup", file),
    )
}

fn draw(printer: Printer, groups: &[Group]) -> String {
    let mut text = String::new();
    for Group { title, findings } in groups {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{title}\n{}", findings::draw(printer, findings));
    }
    let all = groups.iter().flat_map(|group| &group.findings);
    let _ = writeln!(text, "{}", findings::sum(all));
    text
}

fn as_json(groups: &[Group], worst: Verdict) -> Value {
    let finding = |finding: &Finding| {
        let (command, advice) = match &finding.remedy {
            Some(Remedy::Run(command)) => (Some(command), None),
            Some(Remedy::Advice(sentence)) => (None, Some(sentence)),
            None => (None, None),
        };
        json!({
            "what": finding.what,
            "verdict": finding.verdict.word(),
            "text": finding.text,
            "command": command,
            "advice": advice,
        })
    };
    let group = |group: &Group| {
        let findings: Vec<Value> = group.findings.iter().map(finding).collect();
        json!({ "title": group.title, "findings": findings })
    };
    json!({
        "verdict": worst.word(),
        "groups": groups.iter().map(group).collect::<Vec<Value>>(),
    })
}
