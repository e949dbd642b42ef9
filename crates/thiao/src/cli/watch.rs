//! Showing once, or again and again.

use super::args::Show;
use serde::Serialize;
use std::time::Duration;
use thiao_api::client::ClientError;
use thiao_cli::output::{Printer, Tone, json};

/// The pause between two answers.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

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
