//! The part of the hooks that needs no machine: see [`from_slurm`].

pub mod from_slurm;
