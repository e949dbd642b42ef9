//! Showing once, or again and again.

use super::args::Show;
use serde::Serialize;
use std::time::Duration;
use thiao_api::client::{Client, ClientError};
use thiao_api::types::{Observation, Status};
use thiao_cli::output::{Printer, Tone, json, span};

/// The pause between two answers.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// The same of what was observed: where that is older than a second, it says how old.
pub(super) fn show_observed<T: Serialize>(
    client: &Client,
    printer: Printer,
    how: Show,
    ask: impl Fn() -> Result<T, ClientError>,
    draw: impl Fn(&T) -> String,
) -> anyhow::Result<()> {
    show(printer, how, ask, |answer| {
        let age = client.status().ok().and_then(|status| age(&status));
        let age = age.map(|age| printer.toned(&format!("({age})"), Tone::Faint) + "\n");
        draw(answer) + &age.unwrap_or_default()
    })
}

/// How old the controller's knowledge is, if older than a second. Where the provider tells what happens, its whole
/// observations may be old.
fn age(status: &Status) -> Option<String> {
    let heard = status.bus.as_ref().is_some_and(|bus| bus.relied_on);
    let sides = [
        ("Slurm", Some(&status.slurm)),
        ("VMs", Some(&status.vms).filter(|_| !heard)),
    ];
    let old = |(what, seen): (&str, Option<&Observation>)| match seen?.last_ok {
        None => Some(format!("{what} not read yet")),
        Some(at) => match status.now.saturating_sub(at) {
            0..=1_000 => None,
            age => Some(format!("{what} as of {} ago", span(age))),
        },
    };
    let told: Vec<String> = sides.into_iter().filter_map(old).collect();
    Some(told.join(", ")).filter(|told| !told.is_empty())
}

/// Asks and shows; with `--watch` until Ctrl-C. A controller that is away for a while does not end a
/// watch that had begun: it restarts.
pub(super) fn show<T: Serialize>(
    printer: Printer,
    how: Show,
    ask: impl Fn() -> Result<T, ClientError>,
    draw: impl Fn(&T) -> String,
) -> anyhow::Result<()> {
    let text = |answer: &T| -> anyhow::Result<String> {
        Ok(match how.json {
            true => json(answer, !how.watch)?,
            false => draw(answer),
        })
    };
    let mut shown = text(&ask()?)?;
    if !how.watch {
        return Ok(printer.print(&shown)?);
    }
    let redraw = printer.terminal && !how.json;
    if redraw {
        printer.print("\x1b[2J")?;
        printer.redraw(&shown)?;
    } else {
        printer.print(&shown)?;
    }
    loop {
        std::thread::sleep(PAUSE);
        let next = match ask() {
            Ok(answer) => text(&answer)?,
            Err(error) if error.unreachable() && !how.json => {
                printer.toned(&format!("thiao: {error}"), Tone::Bad) + "\n"
            }
            Err(error) if error.unreachable() => continue,
            Err(error) => return Err(error.into()),
        };
        if redraw {
            printer.redraw(&next)?;
        } else if next != shown {
            // To a pipe or a log only what is new; JSON lines are many anyway.
            printer.print(&if how.json {
                next.clone()
            } else {
                format!("\n{next}")
            })?;
        }
        shown = next;
    }
}
