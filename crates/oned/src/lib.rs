//! A stand-in for OpenNebula's `oned`, for tests and the lab: stateful, XML-RPC over HTTP,
//! with faults on demand. Kept honest by recordings of a real one.
//!
//! [`Oned::start`] serves on a port of its own; everything that can go wrong with a real one
//! can be told to it. `front-end` is what it knows, `lifecycle` how VMs go from state to state,
//! `driver` what takes them there. Modules named after OpenNebula's objects say what these are; calls
//! about VMs are in `creation`, `actions` and `pool`, those about the others in `calls`.

mod actions;
mod bus;
mod calls;
mod cards;
mod changes;
mod cluster;
mod context;
mod creation;
mod driver;
pub mod faults;
mod front_end;
mod group;
pub mod host;
mod http;
mod image;
pub mod lifecycle;
pub mod machines;
mod messages;
mod network;
mod onegate;
mod pool;
pub mod qemu;
mod quota;
mod recorded;
mod refusal;
mod rights;
mod scheduler;
mod secgroup;
pub mod settings;
mod template;
mod topology;
mod user;
mod vm;
mod wall;
mod xml;
mod xmlrpc;

mod oned;

pub use bus::BusFaults;
pub use faults::{Fault, Rule};
pub use host::HostState;
pub use lifecycle::{Lcm, Phase, State};
pub use oned::{Oned, VmView};
pub use settings::{Cluster, HostSetup, NetworkSetup, Settings, StoreSetup, TemplateSetup, UserSetup};
