//! The planner of sharing: which job runs where, how much of its hosts it gets, and who gives way.
//!
//! Pure: no names, no clock, no I/O. What happens comes in as [`Event`]s and is folded into the [`State`];
//! [`Planner::decide`] says what changes, each [`Change`] with its reason. The trace simulator runs this very code
//! on logs of real clusters.
//!
//! A job's *tasks* are its VMs: alike, and all of them run or none. CPU is shared freely, memory is not. A resident
//! job's *allocation* is the CPU that each of its tasks has; 0 is a job that is paused in place.

mod change;
mod dfrs;
mod job;
mod levels;
mod overheads;
mod papers_easy;
mod planner;
mod policy;
mod progress;
mod queue;
mod state;

pub use change::{Change, Verb, Why};
pub use job::{Host, HostId, Job, JobId, Ms, Slot};
pub use overheads::Overheads;
pub use planner::{Event, Planner};
pub use policy::{Arrival, Backfill, Dfrs, Levels, Overdue, Pace, PapersEasy, Policy, Queue, Used};
pub use progress::Progress;
pub use state::{Entry, Standing, State};
