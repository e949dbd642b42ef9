//! How far a long run is, on a terminal that somebody may look at.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often it is shown anew.
const SHOWN_EVERY: Duration = Duration::from_millis(100);

/// A line on standard error that is written over, if that is a terminal.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    shown: Mutex<Instant>,
}

impl Progress {
    /// Nothing is shown yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            shown: Mutex::new(Instant::now()),
        }
    }

    /// This is how far it is; not shown if something was just now.
    pub fn show(&self, words: impl FnOnce() -> String) {
        let Ok(mut shown) = self.shown.lock() else { return };
        if self.terminal && shown.elapsed() >= SHOWN_EVERY {
            *shown = Instant::now();
            // Nothing depends on whether it is seen.
            let _ = write!(io::stderr(), "\r\x1b[K{}", words());
        }
    }

    /// It is over: nothing is left of the line.
    pub fn clear(&self) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
