//! Every fact about Slurm: its commands and their text formats, `SLURM_RESUME_FILE`, the `slurm.conf`
//! that power saving needs. No decisions: those are `thiao-core`'s.
//!
//! *Architecture invariant:* nothing else in Thiao runs one of Slurm's programs or knows what they print.
//! An observation is whole or an error; no call is made per node or per job to observe.
//!
//! # How Slurm goes about power saving
//! Measured on 22.05.8 with a private slurmctld and real slurmds; the tests in `tests/real` hold the parts
//! that code relies on.
//!
//! *From `sbatch` to the VM.* Allocation comes 0 to 1 s after `sbatch` (a loop of slurmctld's, no setting
//! removes it), PrologSlurmctld 5 to 10 ms after the allocation, ResumeProgram 6 ms to 1 s after it, see
//! [`conf::SCHEDULER_PARAMETERS`]. A node may be started at the prolog's word: if it registers before
//! ResumeProgram was due, the job starts and ResumeProgram is not called for it. If the job is cancelled
//! before, SuspendProgram is not called for it either.
//!
//! *From the last registration to the job.* slurmctld launches a configuring job in a sweep every 30 s, or
//! at the moment when its PrologSlurmctld ends and no node has POWERING_UP or POWERED_DOWN any more: then
//! the job runs 18 to 47 ms after the node's registration (without a prolog 22 to 25 s). A prolog that ends
//! earlier than that gains nothing. No push tells of a registration (`strigger` looks every 15 s); `scontrol
//! wait_job` inside the prolog waits for the prolog itself.
//!
//! *The prolog outlives its job's allocation.* A prolog is not ended when its job loses its nodes; until it
//! ends, the requeued job is PENDING with the reason `Cleaning`. When slurmctld is restarted the prolog is
//! killed and started anew.
//!
//! *Restarts.* States and the clock of ResumeTimeout survive a restart of slurmctld, and no hook is called
//! a second time; after `kill -9` the last seconds may be forgotten, and a hook may be called again.
//! `scontrol reconfigure` changes no node's power state.
//!
//! *A node that nobody asked for.* A slurmd that registers on an `idle~` node makes it `idle` and usable at
//! once. `state=POWER_UP` is not needed and makes Slurm call ResumeProgram for it.
//!
//! *ResumeTimeout.* The node is `down~` with the reason `ResumeTimeout reached`, the job requeued with a
//! delay of 120 s, ResumeFailProgram called; the node stays DOWN until [`Slurm::return_to_service`].

pub mod conf;
pub mod conf_lines;
mod control;
pub mod defaults;
pub mod details;
pub mod ends;
mod error;
pub mod folders;
pub mod fragment;
pub mod gate;
mod info;
mod install;
pub mod jobs;
pub mod join;
pub mod keys;
pub mod lab;
mod licenses;
pub mod lua;
pub mod names;
pub mod nodes;
pub mod partitions;
mod programs;
mod put_back;
pub mod quirks;
pub mod resume_file;
mod run;
pub mod site;
pub mod site_keys;
pub mod words;

pub use control::Slurm;
pub use error::SlurmError;
pub use gate::Admission;
pub use info::{Config, Ping, Version};
pub use install::{Install, installed_version};
pub use programs::{find, package_of};
pub use quirks::Quirks;
pub use run::reset_signal_mask;
