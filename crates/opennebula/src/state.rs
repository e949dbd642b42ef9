//! Numeric states of VMs and hosts, as oned writes them.

/// STATE, with LCM_STATE where it is ACTIVE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VmState {
    /// A number that we do not know.
    Unknown(i32),
}

/// A host's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostState {
    /// A number that we do not know.
    Unknown(i32),
}
