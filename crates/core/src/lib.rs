//! Thiao's words and decisions: pure, synchronous, without dependencies.
//!
//! *Architecture invariant:* nothing here does I/O, reads a clock, draws a
//! random number or knows a foreign format. Time comes in as a value.

pub mod event;
pub mod evidence;
pub mod finding;
pub mod fold;
pub mod hostlist;
pub mod ids;
pub mod journal;
pub mod lint;
pub mod options;
pub mod orders;
pub mod place;
pub mod plan;
pub mod planner;
pub mod policy;
pub mod prolog;
pub mod resources;
pub mod rounds;
pub mod size;
pub mod spool;
pub mod stays;
pub mod table;
pub mod view;
pub mod vm;
pub mod world;

#[cfg(test)]
mod place_props;
#[cfg(test)]
mod plan_tests;
