//! Everything that people read on a terminal or a pipe goes through here:
//! tables, colours, times, and the end of a pipe.

use comfy_table::{Attribute, Cell as TableCell, Color, ContentArrangement, Table, presets};
use serde::Serialize;
use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

/// How a text is shown where colours are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// In no colour of its own.
    #[default]
    Plain,
    /// All is well: green.
    Good,
    /// Under way still: yellow.
    Busy,
    /// Somebody should look: red.
    Bad,
    /// Of little weight: dim.
    Faint,
}

/// One field of a table.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A field in a tone.
    #[must_use]
    pub fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        Self {
            text: line(text.as_ref()),
            tone,
        }
    }

    /// A field that may be absent.
    #[must_use]
    pub fn maybe(text: Option<impl AsRef<str>>) -> Self {
        text.map_or_else(|| Self::toned("-", Tone::Faint), Self::from)
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// Knows where the output goes.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    /// Whether a person looks at a terminal.
    pub terminal: bool,
    colour: bool,
}

impl Printer {
    /// For this process's standard output: colours only on a terminal and without `NO_COLOR` (no-color.org).
    #[must_use]
    pub fn stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            terminal,
            colour: terminal && !refused && !dumb,
        }
    }

    /// A text in a tone.
    #[must_use]
    pub fn toned(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Plain => return clean(text),
            Tone::Good => "32",
            Tone::Busy => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        let text = clean(text);
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text
        }
    }

    /// A table without lines; long fields are wrapped on a terminal, never in a pipe.
    #[must_use]
    pub fn table(self, head: &[&str], rows: Vec<Vec<Cell>>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        if self.terminal {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        table.set_header(
            head.iter()
                .map(|name| TableCell::new(name).add_attribute(Attribute::Bold)),
        );
        for row in rows {
            table.add_row(row.into_iter().map(|cell| {
                let shown = TableCell::new(cell.text);
                match cell.tone {
                    Tone::Plain => shown,
                    Tone::Good => shown.fg(Color::Green),
                    Tone::Busy => shown.fg(Color::Yellow),
                    Tone::Bad => shown.fg(Color::Red),
                    Tone::Faint => shown.add_attribute(Attribute::Dim),
                }
            }));
        }
        let last = head.len().saturating_sub(1);
        for (at, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if at == last { 0 } else { 2 }));
        }
        let mut text = table.trim_fmt();
        text.push('\n');
        text
    }

    /// Writes to standard output.
    ///
    /// # Errors
    /// When it cannot be written; a reader that has left is [`io::ErrorKind::BrokenPipe`].
    pub fn print(self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Writes a sentence, whoever made it.
    ///
    /// # Errors
    /// As [`Printer::print`].
    pub fn say(self, sentence: &str) -> io::Result<()> {
        self.print(&(clean(sentence) + "\n"))
    }

    /// Writes over what the terminal showed; what does not fit its height is counted.
    ///
    /// # Errors
    /// As [`Printer::print`].
    pub fn redraw(self, text: &str) -> io::Result<()> {
        let rows = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_row));
        self.print(&frame(text, rows))
    }
}

/// Writes a line to standard output about work that goes on whether anybody reads it or not: a reader that has
/// left stops nothing. What only shows something prints by [`Printer::print`], and ends there.
#[macro_export]
macro_rules! say {
    () => {
        $crate::output::put(::std::io::stdout(), ::std::format_args!(""))
    };
    ($($words:tt)+) => {
        $crate::output::put(::std::io::stdout(), ::std::format_args!($($words)+))
    };
}

/// The same to standard error.
#[macro_export]
macro_rules! tell {
    ($($words:tt)+) => {
        $crate::output::put(::std::io::stderr(), ::std::format_args!($($words)+))
    };
}

/// Writes a line, if it can be written.
pub fn put(mut to: impl io::Write, line: fmt::Arguments<'_>) {
    // `println` panics when nobody reads any more.
    let _ = writeln!(to, "{line}").and_then(|()| to.flush());
}

/// A text as one picture on a terminal of so many rows (0: unknown).
fn frame(text: &str, rows: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    // The last row stays free: a line end there would scroll.
    let room = if rows > 2 { rows - 1 } else { usize::MAX };
    let mut frame = String::from("\x1b[H");
    let shown = if lines.len() > room { room - 1 } else { lines.len() };
    for line in &lines[..shown] {
        // Each line's rest is erased.
        frame.push_str(line);
        frame.push_str("\x1b[K\n");
    }
    if shown < lines.len() {
        frame.push_str(&format!("... and {} lines more\x1b[K\n", lines.len() - shown));
    }
    // And everything below.
    frame.push_str("\x1b[J");
    frame
}

/// What strangers wrote (job names, reasons, consoles) cannot steer the terminal: control
/// characters become visible, ends of lines excepted.
#[must_use]
pub fn clean(text: &str) -> String {
    made_visible(
        text,
        |c| c != '\n' && steers(c),
        |c| c.escape_default().to_string(),
    )
}

/// The same on one line: nobody can write a second one that looks like ours.
#[must_use]
pub fn line(text: &str) -> String {
    made_visible(text, steers, |c| c.escape_default().to_string())
}

/// A value in JSON, in which such characters are escaped too: it may go to a terminal.
///
/// # Errors
/// When it cannot be serialised.
pub fn json<T: Serialize>(value: &T, pretty: bool) -> serde_json::Result<String> {
    let text = match pretty {
        true => serde_json::to_string_pretty(value)?,
        false => serde_json::to_string(value)?,
    };
    // Others stand in strings alone, where this means the same. All are below U+10000.
    let escaped = |c| format!("\\u{:04x}", u32::from(c));
    Ok(made_visible(&text, |c| c != '\n' && steers(c), escaped) + "\n")
}

/// Whether a terminal does something with it instead of showing it: controls, and what
/// turns the direction of the text around (Unicode's "bidirectional formatting").
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn made_visible(text: &str, odd: impl Fn(char) -> bool, shown: impl Fn(char) -> String) -> String {
    if !text.contains(&odd) {
        return text.to_owned();
    }
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        match odd(c) {
            true => visible.push_str(&shown(c)),
            false => visible.push(c),
        }
    }
    visible
}

/// The time now, in milliseconds since the epoch.
#[must_use]
pub fn now() -> u64 {
    // A clock before 1970 is a clock that was never set.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A span of milliseconds in one or two units.
#[must_use]
pub fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// How long ago something was, or in what time it will be.
#[must_use]
pub fn when(at: u64, now: u64) -> String {
    if at > now {
        format!("in {}", span(at - now))
    } else {
        format!("{} ago", span(now - at))
    }
}

/// A local time with milliseconds.
#[must_use]
pub fn clock(at: u64) -> String {
    let stamp = i64::try_from(at)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    match stamp {
        Some(stamp) => {
            let local = stamp.to_zoned_datetime(jiff::tz::TimeZone::system());
            local.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
        }
        None => format!("{at} ms"),
    }
}

/// Mebibytes as people say them.
#[must_use]
pub fn memory(mb: u64) -> String {
    match mb {
        0..10_240 => format!("{mb} MiB"),
        _ => format!("{:.1} GiB", mb as f64 / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let shown: Vec<String> = [0, 59_999, 60_000, 3_600_000, 90_000_000].map(span).into();
        assert_eq!(shown, ["0 s", "59 s", "1 min", "1 h 0 min", "1 d 1 h"]);
        assert_eq!(when(5_000, 17_000), "12 s ago");
        assert_eq!(when(17_000, 5_000), "in 12 s");
        assert_eq!(memory(200), "200 MiB");
        assert_eq!(memory(512 * 1024), "512.0 GiB");
        assert_eq!(clock(u64::MAX), format!("{} ms", u64::MAX));
    }

    #[test]
    fn strangers_cannot_steer_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\nc\r"), "a\\u{1b}[2Jb\nc\\r");
        assert_eq!(line("a\nb"), "a\\nb");
        assert_eq!(Cell::from("\x07\n").text, "\\u{7}\\n");
        // CSI in one character, and a text that is shown backwards.
        assert_eq!(clean("\u{9b}2J \u{202e}abc"), "\\u{9b}2J \\u{202e}abc");
        assert_eq!(clean("Jürgen, Владимир, 漢字 👍"), "Jürgen, Владимир, 漢字 👍");
    }

    #[test]
    fn json_means_the_same_and_steers_no_terminal() {
        let odd = "\x1b[2J\u{9b}2J\x7f\u{202e}\n\"ü";
        for pretty in [false, true] {
            let text = json(&[odd], pretty).unwrap();
            assert!(!text.contains(|c| c != '\n' && steers(c)), "{text:?}");
            assert_eq!(serde_json::from_str::<[String; 1]>(&text).unwrap(), [odd]);
        }
    }

    #[test]
    fn a_picture_fits_the_terminal() {
        assert_eq!(frame("a\nb\n", 3), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(
            frame("a\nb\nc\nd\n", 4),
            "\x1b[Ha\x1b[K\nb\x1b[K\n... and 2 lines more\x1b[K\n\x1b[J"
        );
        assert_eq!(frame("a\n", 0), "\x1b[Ha\x1b[K\n\x1b[J");
    }

    #[test]
    fn tables_are_plain_in_pipes() {
        let printer = Printer {
            terminal: false,
            colour: false,
        };
        let rows = vec![
            vec![Cell::from("fg0"), Cell::toned("up", Tone::Good)],
            vec![Cell::from("x".repeat(300)), Cell::maybe(None::<&str>)],
        ];
        let text = printer.table(&["NODE", "STATE"], rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(
            lines[1].starts_with("fg0 ") && lines[1].ends_with("  up"),
            "{text}"
        );
        assert!(
            !text.contains('\x1b') && lines.iter().all(|l| *l == l.trim_end()),
            "{text:?}"
        );
        assert_eq!(printer.toned("x", Tone::Bad), "x");
    }
}
