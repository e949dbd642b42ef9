//! OpenNebula's event bus: its hook manager publishes what VMs and hosts become (`one_hm`, ZeroMQ, port 2101).
//!
//! It is spoken to by a small client of our own. The crate `zeromq` (0.7.0) was looked at: it makes room for a frame
//! of whatever length the other side announces, and does not say when a connection is lost, which it opens again by
//! itself. Nobody vouches for this bus, so both must be known; what a subscriber needs of ZMTP is in one file.
//!
//! *Architecture invariant:* nothing that comes from here is evidence of an end. The bus knows no credentials, loses
//! messages while nobody is connected or when too many wait, and they come when they come.

pub mod link;
pub mod message;
pub mod zmtp;
