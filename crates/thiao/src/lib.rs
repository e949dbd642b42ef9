//! Thiao: Slurm jobs in virtual machines of their own.
//!
//! The rooms of the one binary that people type: the command line (`cli`), its
//! words on paper (`output`), the settings (`config`, and `import` from 2011), the local API (`api`),
//! the controller with its memory (`controller`, `store`) and its folder (`state_dir`), and the private lab
//! (`lab`). A library, so that tests and `xtask` reach them.

pub mod api;
pub mod cli;
pub mod controller;
pub mod doctor;
pub mod lab;
pub mod store;
