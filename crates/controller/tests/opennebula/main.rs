//! Bad days with OpenNebula: the controller's own program, killed as a process is
//! killed, against a stand-in `oned` over the wire and stand-ins for Slurm's programs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod answers;
mod clock;
mod crash;
mod created;
mod disk;
mod hosts;
mod people;
mod sources;
mod states;
mod systemd;
mod told;
