//! Events in, decisions out.

use crate::change::Change;
use crate::dfrs;
use crate::job::{Host, Job, JobId, Ms};
use crate::levels;
use crate::overheads::Overheads;
use crate::papers_easy;
use crate::policy::Policy;
use crate::queue;
use crate::state::State;

/// What happened to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It came; its index is free.
    Submitted(JobId, Job),
    /// It is over, for whatever reason.
    Ended(JobId),
    /// Its VMs run, all of them: what was reckoned for their start, restore or move is over.
    Started(JobId),
    /// So much it has really attained.
    Measured(JobId, Ms),
}

/// The state, and what decides about it.
#[derive(Debug)]
pub struct Planner {
    state: State,
    deciding: Deciding,
}

/// What each kind of policy remembers.
#[derive(Debug)]
enum Deciding {
    Queue(queue::Deciding),
    Levels(levels::Deciding),
    PapersEasy(papers_easy::Deciding),
    Dfrs(Box<dfrs::Deciding>),
}

impl Planner {
    /// Of hosts without jobs.
    #[must_use]
    pub fn new(policy: &Policy, hosts: Vec<Host>, overheads: Overheads) -> Self {
        let state = State::new(hosts, overheads);
        let deciding = match policy {
            Policy::Queue(how) => Deciding::Queue(queue::Deciding::new(*how, &state)),
            Policy::Levels(how) => Deciding::Levels(levels::Deciding::new(how.clone(), &state)),
            Policy::PapersEasy(how) => Deciding::PapersEasy(papers_easy::Deciding::new(*how, &state)),
            Policy::Dfrs(how) => Deciding::Dfrs(Box::new(dfrs::Deciding::new(*how, &state))),
        };
        Self { state, deciding }
    }

    /// What is decided so far.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Takes in what happened.
    pub fn fold(&mut self, now: Ms, event: Event) {
        match event {
            Event::Submitted(id, job) => {
                self.state.submitted(id, job);
                match &mut self.deciding {
                    Deciding::Queue(deciding) => deciding.submitted(&self.state, id),
                    Deciding::Levels(deciding) => deciding.submitted(id),
                    Deciding::PapersEasy(deciding) => deciding.submitted(&self.state, id),
                    Deciding::Dfrs(deciding) => deciding.submitted(&self.state, id),
                }
            }
            Event::Ended(id) => {
                let Some(entry) = self.state.ended(now, id) else {
                    return;
                };
                match &mut self.deciding {
                    Deciding::Queue(deciding) => deciding.ended(id, &entry),
                    Deciding::Levels(deciding) => deciding.ended(id),
                    Deciding::PapersEasy(deciding) => deciding.ended(id, &entry),
                    Deciding::Dfrs(deciding) => deciding.ended(id, &entry),
                }
            }
            Event::Started(id) => self.state.started(now, id),
            Event::Measured(id, attained) => self.state.measured(now, id, attained),
        }
    }

    /// What changes now, in the order in which it is to be done.
    pub fn decide(&mut self, now: Ms) -> &[Change] {
        self.state.changes.clear();
        match &mut self.deciding {
            Deciding::Queue(deciding) => deciding.decide(&mut self.state, now),
            Deciding::Levels(deciding) => deciding.decide(&mut self.state, now),
            Deciding::PapersEasy(deciding) => deciding.decide(&mut self.state, now),
            Deciding::Dfrs(deciding) => deciding.decide(&mut self.state, now),
        }
        &self.state.changes
    }

    /// When it must be asked again, if nothing happens before.
    #[must_use]
    pub fn next(&self) -> Option<Ms> {
        match &self.deciding {
            Deciding::Queue(_) | Deciding::PapersEasy(_) => None,
            Deciding::Levels(deciding) => deciding.next(),
            Deciding::Dfrs(deciding) => deciding.next(),
        }
    }
}
