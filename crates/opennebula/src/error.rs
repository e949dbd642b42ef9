//! Why a call failed, by what it means for the next try.

use thiao_core::view::ErrorClass;

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Error {
    /// What kind of failure.
    pub class: Class,
    /// What failed, why, what the person can do. Never holds a secret.
    pub text: String,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The credentials were not accepted (0x100).
    Authentication,
    /// The user may not do that (0x200 without a quota's text).
    Authorization,
    /// There is no object of that id (0x400).
    NoSuchObject,
    /// The template cannot be used: it does not parse, or names what is not there.
    BadTemplate,
    /// A quota is used up, or a host, datastore or network has no room.
    Capacity,
    /// The VM's state does not allow it (0x800).
    WrongState,
    /// oned is busy, locked or starting: the same call may work soon.
    Busy,
    /// oned could not be reached, did not answer in time, or the answer was cut off.
    /// Whether the call was executed is not known.
    Network,
    /// An answer that makes no sense, or a code that we do not know.
    Unknown,
}

impl Class {
    /// What it means to the controller.
    #[must_use]
    pub fn meaning(self) -> ErrorClass {
        match self {
            Class::Capacity => ErrorClass::Full,
            Class::Busy | Class::Network | Class::Unknown | Class::WrongState | Class::Authentication => {
                ErrorClass::Transient
            }
            Class::Authorization | Class::NoSuchObject | Class::BadTemplate => ErrorClass::Refused,
        }
    }
}
