//! A site of thousands of nodes and VMs, for what is measured of a whole controller.
//!
//! The bench's own program is Slurm's programs ([`slurm::play`], under their names) and OpenNebula's front-end
//! ([`front::be`], in a process of its own), when it is called as them.

pub mod front;
pub mod site;
pub mod slurm;
