//! What people type: the command line (`cli`), whether everything is as it must be (`doctor`), and a place for a
//! cluster in OpenNebula (`create`).
//!
//! The controller, the lab and the simulated world are programs of their own; `thiao serve`, `thiao lab` and
//! `thiao sim` become them. A library, so that its manual pages can be made of it.

pub mod cli;
pub mod create;
pub mod doctor;
mod guest;
pub mod image;
mod shell;
