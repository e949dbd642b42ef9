//! Jobs in the order in which they came.

use crate::change::Why;
use crate::job::{HostId, JobId, Ms, Slot};
use crate::policy::Queue;
use crate::state::{Entry, State};

/// What is remembered between decisions.
#[derive(Debug)]
pub struct Deciding {
    #[allow(dead_code)]
    how: Queue,
    waiting: Vec<JobId>,
}

impl Deciding {
    pub fn new(how: Queue) -> Self {
        Self {
            how,
            waiting: Vec::new(),
        }
    }

    pub fn submitted(&mut self, _state: &State, id: JobId) {
        self.waiting.push(id);
    }

    pub fn ended(&mut self, id: JobId, _entry: &Entry) {
        self.waiting.retain(|waits| *waits != id);
    }

    pub fn decide(&mut self, state: &mut State, now: Ms) {
        // FCFS on one host: to be replaced.
        while let Some(first) = self.waiting.first().copied() {
            let job = state.job(first).job;
            let free = state.hosts()[0].cpu - state.loads()[0].cpu;
            if u64::from(free) < job.demand() {
                break;
            }
            self.waiting.remove(0);
            state.place(
                now,
                first,
                vec![Slot {
                    host: HostId(0),
                    tasks: job.tasks,
                }],
                job.cpu,
                Why::Fits,
            );
        }
    }
}
