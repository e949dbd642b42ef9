//! One run of a world as a value: its summary, or what it broke; a panic counts.

use crate::outcome::Summary;
use crate::outcome::{Broken, Invariant, Violation};
use crate::setup::Setup;
use crate::sim::Sim;
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether this thread is within a trial, where a panic is a result and no message.
    static TRIES: Cell<bool> = const { Cell::new(false) };
}

/// Runs `setup` to its end.
///
/// # Errors
/// The first broken invariant. A panic is one, too.
pub fn trial(setup: &Setup) -> Result<Summary, Violation> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !TRIES.get() {
                usual(panic);
            }
        }));
    });
    let mut sim = Sim::new(setup.clone());
    TRIES.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| sim.finish()));
    TRIES.set(false);
    result.unwrap_or_else(|panic| {
        Err(sim.violation(Broken {
            invariant: Invariant::NoPanic,
            what: words(panic.as_ref()),
        }))
    })
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without words"))
}
