//! Waiting for what the stand-in does beside its answers.

use std::time::{Duration, Instant};

/// Waits until it is so; fails after a minute, since the machine may be busy.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} never came");
        std::thread::sleep(Duration::from_millis(1));
    }
}
