//! Named days, good and bad.

#![allow(clippy::unwrap_used, reason = "a test may stop at anything unexpected")]

use thiao_sim::sim::{Setup, Sim, Summary};

fn run(setup: Setup) -> Summary {
    Sim::new(setup).run().unwrap()
}

#[test]
fn a_quiet_day() {
    let day = run(Setup::default());
    assert_eq!(
        (day.created, day.downs, day.resume_timeouts),
        (2, 0, 0),
        "{day:?}"
    );
}

#[test]
fn the_same_setup_is_the_same_run() {
    assert_eq!(run(Setup::default()), run(Setup::default()));
}
