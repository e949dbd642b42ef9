//! How many may be inside at once, and how much each may have waiting for him: nobody
//! can keep the others out, and nobody can keep Slurm's prologs out.

use super::limits::Limits;
use crate::api::Viewer;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts those who are inside: all of them, and each user's.
pub(super) struct Doors {
    connections: usize,
    others: usize,
    per_user: usize,
    untaken: u64,
    ranges: SubordinateUids,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    all: usize,
    others: usize,
    per_user: HashMap<u32, Share>,
}

/// What one user has of us.
#[derive(Default)]
struct Share {
    connections: usize,
    /// Bytes of answers that he has not taken yet.
    untaken: u64,
}

/// Held by one who is inside.
pub(super) struct Pass {
    doors: Arc<Doors>,
    /// Who it counts for; nobody's for the trusted.
    user: Option<u32>,
    /// Bytes of the last answer.
    untaken: Mutex<u64>,
}

impl Doors {
    pub(super) fn new(limits: &Limits, ranges: SubordinateUids) -> Self {
        let &Limits {
            connections,
            others,
            per_user,
            untaken,
            ..
        } = limits;
        Self {
            connections,
            others,
            per_user,
            untaken,
            ranges,
            inside: Mutex::default(),
        }
    }

    fn inside(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one in, unless there are too many.
    pub(super) fn enter(self: &Arc<Self>, viewer: Viewer) -> Option<Pass> {
        let user = (!viewer.trusted).then(|| self.ranges.holder(viewer.uid));
        let mut inside = self.inside();
        if inside.all >= self.connections {
            return None;
        }
        if let Some(user) = user {
            let full = inside.others >= self.others;
            let share = inside.per_user.get(&user);
            if full || share.is_some_and(|share| share.connections >= self.per_user) {
                return None;
            }
            inside.per_user.entry(user).or_default().connections += 1;
            inside.others += 1;
        }
        inside.all += 1;
        Some(Pass {
            doors: self.clone(),
            user,
            untaken: Mutex::new(0),
        })
    }
}

impl Pass {
    /// Whether this connection may get an answer of so many bytes now. What it got before it
    /// has taken, or it would not have asked. One answer may have any size.
    pub(super) fn carry(&self, bytes: u64) -> bool {
        let Some(user) = self.user else { return true };
        let mut inside = self.doors.inside();
        let Some(share) = inside.per_user.get_mut(&user) else {
            return true;
        };
        let mut own = self.untaken.lock().unwrap_or_else(PoisonError::into_inner);
        share.untaken -= *own;
        *own = 0;
        if share.untaken > 0 && share.untaken.saturating_add(bytes) > self.doors.untaken {
            return false;
        }
        share.untaken = share.untaken.saturating_add(bytes);
        *own = bytes;
        true
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = self.doors.inside();
        inside.all -= 1;
        let Some(user) = self.user else { return };
        inside.others -= 1;
        if let Some(share) = inside.per_user.get_mut(&user) {
            share.connections -= 1;
            share.untaken -= *self.untaken.get_mut().unwrap_or_else(PoisonError::into_inner);
            if share.connections == 0 {
                inside.per_user.remove(&user);
            }
        }
    }
}

/// Ranges of uids that users may take for their own containers (subuid(5)): one person has
/// thousands of them, and they count as one.
#[derive(Debug, Default)]
pub(super) struct SubordinateUids(Vec<(u32, u32)>);

impl SubordinateUids {
    /// Those of this machine; none where there is no such file.
    pub(super) fn of_machine() -> Self {
        std::fs::read_to_string("/etc/subuid").map_or_else(|_| Self::default(), |text| Self::parse(&text))
    }

    /// Reads lines `NAME:FIRST:COUNT`; others mean nothing to us.
    fn parse(text: &str) -> Self {
        let range = |line: &str| {
            let mut fields = line.split(':').skip(1);
            let first: u32 = fields.next()?.trim().parse().ok()?;
            let count: u32 = fields.next()?.trim().parse().ok()?;
            Some((first, first.saturating_add(count)))
        };
        Self(text.lines().filter_map(range).collect())
    }

    /// Whose share a uid has: its range's first.
    fn holder(&self, uid: u32) -> u32 {
        let range = self.0.iter().find(|(first, end)| (*first..*end).contains(&uid));
        range.map_or(uid, |(first, _)| *first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors(ranges: &str) -> Arc<Doors> {
        let limits = Limits {
            connections: 5,
            others: 3,
            per_user: 2,
            untaken: 100,
            ..Limits::default()
        };
        Arc::new(Doors::new(&limits, SubordinateUids::parse(ranges)))
    }

    fn user(uid: u32) -> Viewer {
        Viewer { uid, trusted: false }
    }

    const ROOT: Viewer = Viewer {
        uid: 0,
        trusted: true,
    };

    #[test]
    fn one_user_cannot_keep_others_out() {
        let doors = doors("");
        let (alice, bob) = (user(1), user(2));
        let first = doors.enter(alice);
        let second = doors.enter(alice);
        assert!(first.is_some() && second.is_some());
        assert!(doors.enter(alice).is_none(), "her share is taken");
        let third = doors.enter(bob);
        assert!(third.is_some());
        assert!(doors.enter(bob).is_none(), "the share of all users is taken");
        let (fourth, fifth) = (doors.enter(ROOT), doors.enter(ROOT));
        assert!(fourth.is_some() && fifth.is_some());
        assert!(doors.enter(ROOT).is_none(), "the house is full");
        drop(first);
        assert!(doors.enter(bob).is_some());
        drop((second, third, fourth, fifth));
        let inside = doors.inside();
        assert_eq!((inside.all, inside.others, inside.per_user.len()), (0, 0, 0));
    }

    #[test]
    fn the_uids_of_one_persons_containers_are_one_user() {
        let doors = doors("alice:100000:65536\nbob:165536:65536\n\nodd\nx:y:z\n");
        let inside = [doors.enter(user(100_000)), doors.enter(user(165_535))];
        assert!(inside.iter().all(Option::is_some));
        assert!(doors.enter(user(123_456)).is_none());
        assert!(doors.enter(user(165_536)).is_some(), "another's");
    }

    #[test]
    fn answers_that_nobody_takes_are_bounded() {
        let doors = doors("");
        let (first, second) = (doors.enter(user(1)).unwrap(), doors.enter(user(1)).unwrap());
        assert!(first.carry(1_000), "one answer may have any size");
        assert!(!second.carry(1), "not beside that");
        assert!(first.carry(60), "who asks again has taken the one before");
        assert!(second.carry(40));
        assert!(!second.carry(41));
        assert!(
            doors.enter(user(2)).unwrap().carry(100),
            "what another has not taken"
        );
        drop(first);
        assert!(second.carry(100), "who left has none");
        let root = [doors.enter(ROOT).unwrap(), doors.enter(ROOT).unwrap()];
        assert!(root.iter().all(|pass| pass.carry(u64::MAX)));
    }
}
