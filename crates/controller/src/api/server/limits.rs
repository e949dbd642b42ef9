//! What an asker may take of us.

use std::time::Duration;

/// Times and counts, for all who come in.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// How long he may take to send a request's head, also between two requests.
    pub(super) head: Duration,
    /// How long he may take from an answer to his next question: to take the one, and to ask the other.
    pub(super) taking: Duration,
    /// How long the controller may take to answer, where nothing is waited for.
    pub(super) answer: Duration,
    /// Most connections at once, of everybody.
    pub(super) connections: usize,
    /// Connections of users that are not trusted, in all.
    pub(super) others: usize,
    /// Connections of one such user.
    pub(super) per_user: usize,
    /// Bytes of answers that one such user may have waiting for him.
    pub(super) untaken: u64,
    /// Questions of all such users that are before the controller at once.
    pub(super) turns: usize,
    /// Their questions that call for an observation of Slurm are gathered for so long.
    pub(super) gather: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            taking: Duration::from_secs(30),
            answer: Duration::from_secs(15),
            // One per job that waits in its prolog.
            connections: 4096,
            others: 256,
            per_user: 32,
            // All of 10,000 nodes are 2.2 MB (measured).
            untaken: 16 << 20,
            turns: 4,
            gather: Duration::from_millis(500),
        }
    }
}
