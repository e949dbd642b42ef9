//! Thiao in virtual time: a simulated Slurm and a simulated provider around the
//! one planner, with faults, so that months of bad days pass in seconds.
//!
//! ```text
//!   people ---> sim::Sim (steps, faults, the clock) ---> check (the invariants)
//!                 |               |            |
//!             slurm::Slurm   controller    provider::Provider
//!                 |  hooks ->  spool, views  <-  VMs   |
//!                 +------- slurmd registers ----------+
//! ```
//! The controller here does what the real one does, step by step: it takes
//! orders from the spool, folds observations and answers, plans, lints, writes down each
//! action as begun, stores, and only then acts. Between any two of these it may
//! be killed, and begins again from what was stored.
//!
//! That the simulated slurmctld goes the way of a real one is checked by [`scenario`]s.
//!
//! Around a run: `draw` makes whole worlds from a seed, with faults of a `profile`;
//! `trial` runs one, `campaign` many on all cores; `shrink` looks for the shortest
//! story of what broke, `text` keeps a world as a few lines, `report` tells people.
//!
//! *Architecture invariant:* there is no second planner here; in a run there is no
//! clock and no thread. The same [`Setup`](sim::Setup) gives the same run, always.

pub mod campaign;
pub mod check;
pub mod cli;
pub mod controller;
pub mod disk;
pub mod draw;
pub mod faults;
pub mod flaw;
pub mod hunt;
pub mod outcome;
pub mod perform;
pub mod profile;
pub mod progress;
pub mod provider;
pub mod report;
pub mod rng;
pub mod scenario;
mod setup;
pub mod shrink;
pub mod sim;
pub mod slurm;
pub mod text;
pub mod trace;
pub mod trial;
