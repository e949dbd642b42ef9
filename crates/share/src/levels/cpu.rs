//! The hosts' CPU while a decision is made.

use crate::job::Slot;
use crate::state::State;

/// Of each host, in the order of the hosts. Signed: what jobs are to have and what others still have overlap.
#[derive(Debug)]
pub(super) struct Cpu {
    /// What those leave whose turn has come.
    free: Vec<i64>,
    /// What residents lack that may soon have it back: nothing new is placed there.
    held: Vec<i64>,
    /// What those have now whose turn has not come.
    unseen: Vec<i64>,
    /// The same, of the level whose turn it is.
    peers: Vec<i64>,
}

impl Cpu {
    pub(super) fn new(hosts: usize) -> Self {
        let zeros = vec![0; hosts];
        Self {
            free: zeros.clone(),
            held: zeros.clone(),
            unseen: zeros.clone(),
            peers: zeros,
        }
    }

    /// Nobody's turn has come.
    pub(super) fn begin(&mut self, state: &State) {
        for (h, (host, load)) in state.hosts().iter().zip(state.loads()).enumerate() {
            self.free[h] = i64::from(host.cpu);
            self.unseen[h] = i64::from(load.cpu);
        }
        self.held.fill(0);
        self.peers.fill(0);
    }

    /// A level's turn comes.
    pub(super) fn begin_level(&mut self) {
        self.peers.fill(0);
    }

    /// One of that level has so much now.
    pub(super) fn add_peer(&mut self, slots: &[Slot], alloc: u32) {
        for slot in slots {
            self.peers[slot.host.index()] += all(slot, alloc);
        }
    }

    /// A job's turn comes, or it is gone; it has so much now.
    pub(super) fn see(&mut self, slots: &[Slot], alloc: u32, peer: bool) {
        for slot in slots {
            self.unseen[slot.host.index()] -= all(slot, alloc);
            if peer {
                self.peers[slot.host.index()] -= all(slot, alloc);
            }
        }
    }

    /// A job is to have so much.
    pub(super) fn take(&mut self, slots: &[Slot], alloc: u32) {
        for slot in slots {
            self.free[slot.host.index()] -= all(slot, alloc);
        }
    }

    /// A job lacks so much, and may soon have it back.
    pub(super) fn hold(&mut self, slots: &[Slot], lacks: u32) {
        for slot in slots {
            self.held[slot.host.index()] += all(slot, lacks);
        }
    }

    /// What those leave whose turn has come.
    pub(super) fn free(&self, h: usize) -> i64 {
        self.free[h]
    }

    /// What a new placement may take: of worse levels all, of its own level nothing that is in use, or everything of
    /// those behind it if it is `strict`.
    pub(super) fn claimable(&self, h: usize, strict: bool) -> i64 {
        self.free[h] - self.held[h] - if strict { 0 } else { self.peers[h] }
    }

    /// What nobody has, nor is to have.
    pub(super) fn idle(&self, h: usize) -> i64 {
        self.free[h] - self.unseen[h].max(0) - self.held[h]
    }
}

fn all(slot: &Slot, alloc: u32) -> i64 {
    i64::from(alloc) * i64::from(slot.tasks)
}
