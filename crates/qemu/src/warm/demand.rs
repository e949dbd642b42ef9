//! Which sizes are worth a template that nobody configured: those that are asked for
//! again and again. No clock and no files here.

use crate::settings::Guests;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What tells one template from another of this machine's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// What runs in it.
    pub guests: Guests,
    /// How many vCPUs it has.
    pub cpus: u32,
    /// All of its memory in MiB, overhead included.
    pub total_mb: u64,
}

/// How often a size is asked for within [`WITHIN`] before it is worth a template.
pub const OFTEN: usize = 3;

/// How far back it counts: see [`OFTEN`].
const WITHIN: Duration = Duration::from_secs(3600);

/// What is asked for, and what there is.
#[derive(Debug)]
pub struct Demand {
    /// Most templates at once, those of the configuration included.
    most: usize,
    /// Those of the configuration: they stay.
    kept: BTreeSet<Key>,
    /// The others, and when each was last used.
    made: BTreeMap<Key, Instant>,
    /// When sizes without a template were asked for, oldest first.
    missed: BTreeMap<Key, Vec<Instant>>,
    /// One is being made: one at a time, so that the guests who wait are not slowed.
    making: bool,
}

/// A template is worth being made; the other one gives way for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Worth {
    /// The one that gives way, if one must.
    pub instead_of: Option<Key>,
}

impl Demand {
    /// With this cap, and these of the configuration.
    pub fn new(most: usize, kept: BTreeSet<Key>) -> Self {
        Self {
            most,
            kept,
            made: BTreeMap::new(),
            missed: BTreeMap::new(),
            making: false,
        }
    }

    /// A template was used.
    pub fn used(&mut self, key: &Key, now: Instant) {
        if let Some(last) = self.made.get_mut(key) {
            *last = now;
        }
    }

    /// A size was asked for that has no template. When one is worth it, it counts as
    /// being made until [`Demand::ended`].
    pub fn missed(&mut self, key: &Key, now: Instant) -> Option<Worth> {
        self.missed.retain(|_, times| {
            times.retain(|at| now.duration_since(*at) < WITHIN);
            !times.is_empty()
        });
        let times = self.missed.entry(key.clone()).or_default();
        times.push(now);
        let late = times.len().saturating_sub(OFTEN);
        times.drain(..late);
        if self.making || times.len() < OFTEN {
            return None;
        }
        let since = times.first().copied()?;
        let instead_of = if self.kept.len() + self.made.len() < self.most {
            None
        } else {
            // Only one that nobody wanted while this one was wanted: else they drive each other out.
            let (oldest, last) = self.made.iter().min_by_key(|(_, last)| **last)?;
            (*last < since).then(|| Some(oldest.clone()))?
        };
        self.making = true;
        self.missed.remove(key);
        if let Some(other) = &instead_of {
            self.made.remove(other);
        }
        Some(Worth { instead_of })
    }

    /// The making of one has ended, well or not.
    pub fn ended(&mut self) {
        self.making = false;
    }

    /// There is one now.
    pub fn placed(&mut self, key: Key, now: Instant) {
        if !self.kept.contains(&key) {
            self.made.insert(key, now);
        }
    }

    /// There is none any more.
    pub fn lost(&mut self, key: &Key) {
        self.made.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn key(cpus: u32, total_mb: u64) -> Key {
        Key {
            guests: Guests::Small,
            cpus,
            total_mb,
        }
    }

    const A: Key = key(1, 340);
    const B: Key = key(2, 600);
    const C: Key = key(3, 900);

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    /// Asks for it often, from then on each second.
    fn often(demand: &mut Demand, key: &Key, start: Instant, seconds: u64) -> Option<Worth> {
        (0..OFTEN as u64).find_map(|n| demand.missed(key, after(start, seconds + n)))
    }

    #[test]
    fn what_is_asked_for_often_is_worth_a_template() {
        let now = Instant::now();
        let mut demand = Demand::new(2, BTreeSet::new());
        assert_eq!(demand.missed(&A, now), None);
        assert_eq!(demand.missed(&B, now), None);
        assert_eq!(demand.missed(&A, after(now, 1)), None);
        assert_eq!(demand.missed(&A, after(now, 2)), Some(Worth { instead_of: None }));
        // One at a time, and not again when it failed before it is asked for often again.
        assert_eq!(often(&mut demand, &B, now, 3), None);
        demand.ended();
        assert_eq!(demand.missed(&A, after(now, 9)), None);
        assert_eq!(demand.missed(&B, after(now, 9)), Some(Worth { instead_of: None }));
    }

    #[test]
    fn what_was_asked_for_long_ago_does_not_count() {
        let now = Instant::now();
        let mut demand = Demand::new(2, BTreeSet::new());
        for hour in 0..9 {
            assert_eq!(demand.missed(&A, after(now, hour * 1801)), None);
        }
        assert_eq!(demand.missed.len(), 1);
        demand.missed(&B, after(now, 99_999));
        assert_eq!(demand.missed.len(), 1, "what is old is forgotten");
    }

    #[test]
    fn the_least_recently_used_goes_and_those_of_the_configuration_stay() {
        let now = Instant::now();
        let mut demand = Demand::new(2, BTreeSet::from([A]));
        demand.placed(A, now);
        assert!(often(&mut demand, &B, now, 0).is_some());
        demand.placed(B, after(now, 5));
        demand.ended();
        // It is used as often as the other is asked for: it stays.
        demand.missed(&C, after(now, 6));
        demand.missed(&C, after(now, 7));
        demand.used(&B, after(now, 8));
        assert_eq!(demand.missed(&C, after(now, 9)), None);
        // Not used any more, it goes.
        let worth = often(&mut demand, &C, now, 20);
        assert_eq!(worth, Some(Worth { instead_of: Some(B) }));
        demand.placed(C, after(now, 30));
        demand.ended();
        // Thrown away as broken: its place is free.
        demand.lost(&C);
        assert_eq!(often(&mut demand, &B, now, 40), Some(Worth { instead_of: None }));
        let mut none = Demand::new(1, BTreeSet::from([A]));
        assert_eq!(often(&mut none, &B, now, 0), None);
    }
}
