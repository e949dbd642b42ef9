//! How long a controller takes from its start to its first plan that rests on whole
//! views of both sides: until then it holds people's VMs and can do nothing for them.

use std::time::{Duration, Instant};
use thiao_core::event::{Event, Kind, Subject};

/// The way to the first plan. Each step is kept when it is first passed.
pub(super) struct Start {
    began: Instant,
    slurm: Option<Duration>,
    provider: Option<Duration>,
    ready: Option<Duration>,
    told: bool,
}

impl Start {
    /// The controller starts at this moment.
    pub(super) fn now() -> Self {
        Self {
            began: Instant::now(),
            slurm: None,
            provider: None,
            ready: None,
            told: false,
        }
    }

    /// A side was read whole.
    pub(super) fn read(&mut self, side: &Subject) {
        let passed = match side {
            Subject::Slurm => &mut self.slurm,
            Subject::Provider => &mut self.provider,
            Subject::Node(_) | Subject::Vm(..) | Subject::Job(_) | Subject::Host(_) | Subject::Controller => {
                return;
            }
        };
        passed.get_or_insert(self.began.elapsed());
    }

    /// The provider can make VMs.
    pub(super) fn ready(&mut self) {
        self.ready.get_or_insert(self.began.elapsed());
    }

    /// A plan with this many steps was made from whole views of both sides: what is told of the first one.
    pub(super) fn planned(&mut self, steps: usize) -> Option<Event> {
        if self.told {
            return None;
        }
        let (slurm, provider, ready) = (self.slurm?, self.provider?, self.ready?);
        self.told = true;
        let text = format!(
            "the first plan is made, {} ms after the start: {steps} steps (Slurm was read after {} ms, the VMs after {} ms, and the provider was ready after {} ms)",
            self.began.elapsed().as_millis(),
            slurm.as_millis(),
            provider.as_millis(),
            ready.as_millis(),
        );
        Some(Event::new(Subject::Controller, Kind::FirstPlan, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_plan_from_whole_views_is_told_once() {
        let mut start = Start::now();
        assert!(start.planned(0).is_none(), "nothing was read");
        start.read(&Subject::Slurm);
        assert!(start.planned(0).is_none(), "the VMs were not");
        start.read(&Subject::Provider);
        assert!(start.planned(0).is_none(), "it is not ready");
        start.ready();
        let told = start.planned(3).unwrap();
        assert!(told.text.contains(": 3 steps (Slurm was read after "), "{told:?}");
        assert!(start.planned(0).is_none(), "that is said already");
    }
}
