//! Observers: one task observes Slurm, one the provider, over and over, and
//! reports. An observation that hangs ends by its own timeout; it never holds the owner up.

use crate::clock::Clock;
use crate::message::{Message, Pace};
use crate::owner::{Owner, millis};
use crate::provider::{News, Observed, Provider, chain};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use thiao_config::Timing;
use thiao_core::ids::Time;
use thiao_core::view::{SlurmJob, SlurmView, VmNews, Word};
use tokio::sync::{Notify, mpsc, watch};

/// Observes until the owner is gone.
fn start<V: Send + 'static>(
    observe: impl Fn() -> Result<V, String> + Send + Sync + 'static,
    report: impl Fn(Time, Result<V, String>) -> Option<Message> + Send + 'static,
    messages: mpsc::Sender<Message>,
    mut pace: watch::Receiver<Pace>,
    pauses: [Duration; 3],
    changed: Arc<Notify>,
    clock: Arc<Clock>,
) {
    let observe = Arc::new(observe);
    tokio::spawn(async move {
        loop {
            let began = clock.now();
            let observed = {
                let observe = observe.clone();
                tokio::task::spawn_blocking(move || observe()).await
            };
            let result =
                observed.unwrap_or_else(|error| Err(format!("the observation ended badly: {error}")));
            if let Some(message) = report(began, result)
                && messages.send(message).await.is_err()
            {
                return;
            }
            if messages.is_closed() {
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

impl<P: Provider> Owner<P> {
    /// Observes both sides from now on.
    pub(super) fn start_observers(&self) {
        let Timing {
            slurm_poll,
            slurm_poll_busy,
            slurm_poll_urgent,
            vm_poll,
            vm_poll_busy,
            ..
        } = self.config.timing.clone();
        let (slurm, left, clock) = (self.slurm.clone(), self.left_nodes.clone(), self.clock.clone());
        start(
            move || {
                let left = left.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let mut view = slurm.observe_also(&left).map_err(|error| chain(&error))?;
                on_our_clock(&mut view, &clock);
                Ok(view)
            },
            |began, seen| Some(Message::Slurm(began, seen)),
            self.messages.0.clone(),
            self.slurm_pace.subscribe(),
            [slurm_poll, slurm_poll_busy, slurm_poll_urgent],
            self.slurm_changed.clone(),
            self.clock.clone(),
        );
        let (provider, clock) = (self.provider.clone(), self.clock.clone());
        start(
            move || provider.observe().map_err(|error| error.text),
            move |began, seen| match seen {
                Ok(Observed::Whole(view)) => Some(Message::Provider(began, Ok(view))),
                Ok(Observed::News(news)) => {
                    (!news.is_empty()).then(|| Message::News(dated(news, clock.now())))
                }
                Err(why) => Some(Message::Provider(began, Err(why))),
            },
            self.messages.0.clone(),
            self.vm_pace.subscribe(),
            [vm_poll, vm_poll_busy, vm_poll_busy],
            self.vms_changed.clone(),
            self.clock.clone(),
        );
    }
}

/// News with the times of our clock.
fn dated(news: Vec<News>, now: Time) -> Vec<VmNews> {
    let dated = |News { vm, asked }| {
        let word = match asked {
            None => Word::Told,
            Some(ago) => Word::Asked(Time(now.0.saturating_sub(millis(ago).0))),
        };
        VmNews { vm, word }
    };
    news.into_iter().map(dated).collect()
}

/// Slurm tells by the machine's clock when jobs started; orders are remembered by ours.
fn on_our_clock(view: &mut SlurmView, clock: &Clock) {
    let has_nodes = |job: &&mut SlurmJob| !job.nodes.is_empty();
    for start in view
        .jobs
        .values_mut()
        .filter(has_nodes)
        .flat_map(|job| &mut job.start)
    {
        *start = clock.of_wall(*start);
    }
}
