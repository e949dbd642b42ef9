//! What the keeper says, and to whom: on the line to `lab up`, and on its socket.

use crate::services::ServiceStatus;
use serde::{Deserialize, Serialize};

/// What the keeper says on the line while it brings the lab up, one JSON value per line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Progress {
    /// Something is done or under way.
    Say(String),
    /// The lab can be used.
    Ready,
    /// It cannot; why and what to do.
    Failed(String),
}

/// Said on the line by `lab up` when the lab shall stay after it has gone.
pub const DETACH: u8 = b'd';

/// The keeper's answer on its socket, one JSON value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// The answer to `status`.
    Status(Status),
    /// Done, or begun (`down`).
    Done,
    /// It is not done, and why.
    Refused(String),
}

/// What runs in the lab, and since when.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Whether the lab came up wholly.
    pub ready: bool,
    /// Seconds since it was started.
    pub age_s: u64,
    pub services: Vec<ServiceStatus>,
    /// How many QEMU processes there are.
    pub vms: usize,
}
