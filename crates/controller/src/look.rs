//! Lookers: one task looks at Slurm, one at the provider, over and over, and
//! reports. A look that hangs ends by its own timeout; it never holds the owner up.

use crate::clock::Clock;
use crate::message::Message;
use std::sync::Arc;
use std::time::Duration;
use thiao_core::ids::Time;
use tokio::sync::{Notify, mpsc, watch};

/// How often to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Nothing is under way.
    Calm,
    /// Nodes or VMs come up or go.
    Busy,
    /// A node registers with Slurm at any moment.
    Urgent,
}

/// Looks until the owner is gone.
pub fn start<V: Send + 'static>(
    look: impl Fn() -> Result<V, String> + Send + Sync + 'static,
    report: impl Fn(Time, Result<V, String>) -> Message + Send + 'static,
    messages: mpsc::Sender<Message>,
    mut pace: watch::Receiver<Pace>,
    pauses: [Duration; 3],
    changed: Arc<Notify>,
    clock: Arc<Clock>,
) {
    let look = Arc::new(look);
    tokio::spawn(async move {
        loop {
            let began = clock.now();
            let looked = {
                let look = look.clone();
                tokio::task::spawn_blocking(move || look()).await
            };
            let result = looked.unwrap_or_else(|error| Err(format!("the look ended badly: {error}")));
            if messages.send(report(began, result)).await.is_err() {
                return;
            }
            let [calm, busy, urgent] = pauses;
            let asked = *pace.borrow_and_update();
            let pause = match asked {
                Pace::Calm => calm,
                Pace::Busy => busy,
                Pace::Urgent => urgent,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = changed.notified() => {}
                Ok(()) = pace.changed() => {}
            }
        }
    });
}
