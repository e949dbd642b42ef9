//! What people type: the command line (`cli`), and whether everything is as it must be (`doctor`).
//!
//! The controller, the lab and the simulated world are programs of their own; `thiao serve`, `thiao lab` and
//! `thiao sim` become them. A library, so that its manual pages can be made of it.

pub mod cli;
pub mod doctor;
