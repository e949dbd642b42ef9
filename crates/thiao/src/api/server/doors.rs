//! How many may be inside at once: nobody can keep the others out, and nobody
//! can keep Slurm's prologs out.

use super::Limits;
use crate::api::Viewer;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts those inside.
pub(super) struct Doors {
    connections: usize,
    others: usize,
    per_user: usize,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    all: usize,
    others: usize,
    per_user: HashMap<u32, usize>,
}

/// Held by one who is inside.
pub(super) struct Pass {
    doors: Arc<Doors>,
    viewer: Viewer,
}

impl Doors {
    pub(super) fn new(limits: &Limits) -> Self {
        let &Limits {
            connections,
            others,
            per_user,
            ..
        } = limits;
        Self {
            connections,
            others,
            per_user,
            inside: Mutex::default(),
        }
    }

    /// Lets one in, unless there are too many.
    pub(super) fn enter(self: &Arc<Self>, viewer: Viewer) -> Option<Pass> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.all >= self.connections {
            return None;
        }
        if !viewer.trusted {
            let others = inside.others;
            let own = inside.per_user.entry(viewer.uid).or_default();
            if *own >= self.per_user || others >= self.others {
                return None;
            }
            *own += 1;
            inside.others += 1;
        }
        inside.all += 1;
        Some(Pass {
            doors: self.clone(),
            viewer,
        })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = self.doors.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.all -= 1;
        if !self.viewer.trusted {
            inside.others -= 1;
            if let Some(own) = inside.per_user.get_mut(&self.viewer.uid) {
                *own -= 1;
                if *own == 0 {
                    inside.per_user.remove(&self.viewer.uid);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_keep_others_out() {
        let limits = Limits {
            connections: 5,
            others: 3,
            per_user: 2,
            ..Limits::default()
        };
        let doors = Arc::new(Doors::new(&limits));
        let (alice, bob) = (
            Viewer {
                uid: 1,
                trusted: false,
            },
            Viewer {
                uid: 2,
                trusted: false,
            },
        );
        let root = Viewer {
            uid: 0,
            trusted: true,
        };
        let first = doors.enter(alice);
        let second = doors.enter(alice);
        assert!(first.is_some() && second.is_some());
        assert!(doors.enter(alice).is_none(), "her share is taken");
        let third = doors.enter(bob);
        assert!(third.is_some());
        assert!(doors.enter(bob).is_none(), "the share of all users is taken");
        let (fourth, fifth) = (doors.enter(root), doors.enter(root));
        assert!(fourth.is_some() && fifth.is_some());
        assert!(doors.enter(root).is_none(), "the house is full");
        drop(first);
        assert!(doors.enter(bob).is_some());
        drop((second, third, fourth, fifth));
        let inside = doors.inside.lock().unwrap();
        assert_eq!((inside.all, inside.others, inside.per_user.len()), (0, 0, 0));
    }
}
