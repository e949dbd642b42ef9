//! An agent that was killed, and goes on in a guest that systemd has started it once more in.

use crate::kept::{Kept, Place};
use crate::{Event, Guest, Init, Stage, Starts, systemd, uptime_ms};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use thiao_guest::protocol::Phase;

impl Guest {
    /// Keeps what the next agent of this guest has to know, if there can be one.
    pub(crate) fn keep(&self) {
        let context = match &self.stage {
            Stage::Waiting => return,
            Stage::Preparing { context, .. }
            | Stage::Prepared { context }
            | Stage::Running { context, .. } => context,
        };
        let (Init::Systemd, Some(card)) = (self.init, self.card) else {
            return;
        };
        let kept = Kept {
            context: (**context).clone(),
            card,
            asked: self.starts.asked,
            made: self.starts.made,
            history: self.history.clone(),
        };
        // It costs this guest nothing, unless its agent is killed.
        if let Err(why) = kept.write() {
            eprintln!("thiao-guest: {why}");
        }
    }

    /// Goes on where this guest's agent was.
    pub(crate) fn go_on(&mut self, kept: Kept) -> Result<(), String> {
        println!("thiao-guest: was started once more, and goes on");
        let place = kept.place();
        self.history = kept.history;
        self.starts = Starts {
            asked: kept.asked,
            made: kept.made,
            not_before: Instant::now(),
        };
        let context = Box::new(kept.context);
        match place {
            Place::Beginning => {
                self.history
                    .retain(|report| matches!(report.phase, Phase::Waiting | Phase::Up));
                self.take(*context, kept.card)
            }
            Place::Prepared => {
                self.card = Some(kept.card);
                self.stage = Stage::Prepared { context };
                self.start_slurmd()
            }
            Place::Started(at) => {
                let ago = Duration::from_millis(uptime_ms().saturating_sub(at));
                let now = Instant::now();
                let slurmd = systemd::running_slurmd()?;
                self.card = Some(kept.card);
                self.stage = Stage::Running {
                    context,
                    slurmd: attend(slurmd, &self.events),
                    since: now.checked_sub(ago).unwrap_or(now),
                    ended: false,
                };
                Ok(())
            }
        }
    }
}

/// The process id of a slurmd that has ended before it was seen.
const NONE: u32 = 0;

/// Has the end of slurmd told to the main loop, beside it; returns its process id.
pub(crate) fn attend(slurmd: Option<u32>, events: &Sender<Event>) -> u32 {
    let events = events.clone();
    let id = slurmd.unwrap_or(NONE);
    std::thread::spawn(move || {
        systemd::wait_for(id);
        // The main loop is gone only when the guest ends.
        let _ = events.send(Event::Ended(id, systemd::slurmds_end()));
    });
    id
}
