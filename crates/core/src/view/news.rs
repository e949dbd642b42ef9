//! What is new of single VMs between two whole observations of the provider.

use super::VmView;
use crate::ids::Time;

/// What is new of one VM. Of VMs that are not named nothing is said: they are not missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmNews {
    pub vm: VmView,
    /// Whose word it is.
    pub word: Word,
}

/// Whose word some news is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// A message said so, for which nobody vouches: it may be late, or made up.
    Told,
    /// The provider said so when it was asked, from then on.
    Asked(Time),
}
