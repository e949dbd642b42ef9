//! The part of the hooks that needs no machine: see [`said`].

pub mod from_slurm;
