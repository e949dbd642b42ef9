//! Checks of a live front-end against what is wanted of it: `thiao setup` and `thiao doctor` show them.
//!
//! [`observe()`] asks, [`judge()`] says what that means; what cannot be told without doing harm is said so, or
//! tried with VMs that never run ([`try_vms`]).

mod attributes;
mod capacity;
mod cards;
mod fence;
mod functions;
mod held;
mod judge;
mod needs;
mod networks;
mod observe;
mod requirements;
mod rights;
mod seen;
#[cfg(test)]
mod tests;
mod tries;

pub use judge::judge;
pub use needs::{Asked, Needs, NodesetNeeds};
pub use observe::observe;
pub use requirements::meets;
pub use seen::{Seen, TAG as TAG_TRY, Tried, registered};
pub use thiao_core::finding::{Finding, Remedy, Verdict};
pub use tries::{try_group, try_vms};
