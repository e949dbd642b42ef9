//! What the programs that people type have in common: how they print (`output`), how they end (`exit`),
//! and what interrupts them (`signals`).

// They panic when nobody reads any more.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod exit;
pub mod output;
pub mod signals;
