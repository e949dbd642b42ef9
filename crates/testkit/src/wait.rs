//! Waiting for what comes by itself.

use std::time::{Duration, Instant};

/// Generous, since the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks that cost little.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until `done`, at most a minute.
#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    until_some(PATIENCE, PAUSE, || what.to_owned(), || done().then_some(()));
}

/// Looks until there is something, with this pause; after `limit` it fails, and `story` says what is lacking.
#[track_caller]
pub fn until_some<T>(
    limit: Duration,
    pause: Duration,
    story: impl FnOnce() -> String,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        if Instant::now() >= deadline {
            panic!("not within {limit:?}: {}", story());
        }
        tokio::task::block_in_place(|| std::thread::sleep(pause));
    }
}
