//! How many calls per second and at once, and whose turn it is.
//!
//! oned serves 15 connections, of everybody, and OpenNebula documents 30 calls per
//! second for a zone. Acting goes before reading, but a long queue of creations must not
//! blind the controller: reading gets at least one turn in fifteen, and one each half
//! second. One connection is kept for each of the two, or calls of one kind that hang
//! would hold up the other.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It changes something: creating, deploying, ending.
    Acting,
    /// It only reads, and changes nothing.
    Reading,
}

/// So many acting calls may pass a waiting read.
const ACTS_PER_READ: u32 = 14;
/// So long may a read wait while acting calls go.
const READ_WAITS: Duration = Duration::from_millis(500);

/// Whose turn it is: pure, time comes in as a value.
#[derive(Debug)]
pub struct Turns {
    /// Time between two calls; zero: no limit.
    interval: Duration,
    /// So many calls may go without that time between them.
    burst: u32,
    connections: usize,
    /// The time that is paid for; the next call may go `burst - 1` intervals before it.
    paid: Duration,
    next_ticket: u64,
    acting: Line,
    reading: Line,
    /// Acting calls since the last read went, or since one waits.
    acts: u32,
}

/// The calls of one kind.
#[derive(Debug, Default)]
struct Line {
    /// Those who wait, with the time when they came.
    waiting: VecDeque<(u64, Duration)>,
    running: usize,
}

/// Whose turn it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is that one's, by its number.
    Of(u64),
    /// Nobody's before that time.
    NotBefore(Duration),
    /// Nobody's before somebody comes or goes.
    Nobody,
}

impl Turns {
    /// `per_second` 0: no limit. At least one connection is used.
    #[must_use]
    pub fn new(per_second: u32, connections: usize) -> Self {
        let connections = connections.max(1);
        Self {
            interval: match per_second {
                0 => Duration::ZERO,
                rate => Duration::from_secs(1) / rate,
            },
            // What can be under way at once anyway, but never a second's worth.
            burst: u32::try_from(connections)
                .unwrap_or(u32::MAX)
                .min(per_second.max(1)),
            connections,
            paid: Duration::ZERO,
            next_ticket: 0,
            acting: Line::default(),
            reading: Line::default(),
            acts: 0,
        }
    }

    /// Somebody waits from now on.
    pub fn come(&mut self, kind: Kind, now: Duration) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if kind == Kind::Reading && self.reading.waiting.is_empty() {
            self.acts = 0;
        }
        self.line(kind).waiting.push_back((ticket, now));
        ticket
    }

    /// Whose turn it is.
    #[must_use]
    pub fn turn(&self, now: Duration) -> Turn {
        let Some((_, ticket)) = self.first(now) else {
            return Turn::Nobody;
        };
        let earliest = self.paid.saturating_sub(self.interval * (self.burst - 1));
        if now < earliest {
            Turn::NotBefore(earliest)
        } else {
            Turn::Of(ticket)
        }
    }

    /// Whoever's turn it is goes; `None` while it is nobody's.
    pub fn go(&mut self, now: Duration) -> Option<u64> {
        let Turn::Of(_) = self.turn(now) else {
            return None;
        };
        let (kind, ticket) = self.first(now)?;
        let line = self.line(kind);
        line.waiting.pop_front();
        line.running += 1;
        match kind {
            Kind::Acting => self.acts = self.acts.saturating_add(1),
            Kind::Reading => self.acts = 0,
        }
        self.paid = self.paid.max(now) + self.interval;
        Some(ticket)
    }

    /// A call of that kind is over.
    pub fn done(&mut self, kind: Kind) {
        let line = self.line(kind);
        line.running = line.running.saturating_sub(1);
    }

    /// The first of those who may have a connection.
    fn first(&self, now: Duration) -> Option<(Kind, u64)> {
        let front = |line: &Line| line.waiting.front().copied().filter(|_| self.has_capacity(line));
        match (front(&self.acting), front(&self.reading)) {
            (Some((act, _)), Some((read, since))) => {
                let waited = self.acts > 0 && now.saturating_sub(since) >= READ_WAITS;
                if self.acts >= ACTS_PER_READ || waited {
                    Some((Kind::Reading, read))
                } else {
                    Some((Kind::Acting, act))
                }
            }
            (Some((act, _)), None) => Some((Kind::Acting, act)),
            (None, Some((read, _))) => Some((Kind::Reading, read)),
            (None, None) => None,
        }
    }

    /// The first of each kind: nobody else's turn can be next.
    fn fronts(&self) -> impl Iterator<Item = u64> {
        let fronts = [&self.acting, &self.reading].map(|line| line.waiting.front());
        fronts.into_iter().flatten().map(|(ticket, _)| *ticket)
    }

    fn has_capacity(&self, line: &Line) -> bool {
        let most = self.connections.saturating_sub(1).max(1);
        line.running < most && self.acting.running + self.reading.running < self.connections
    }

    fn line(&mut self, kind: Kind) -> &mut Line {
        match kind {
            Kind::Acting => &mut self.acting,
            Kind::Reading => &mut self.reading,
        }
    }
}

/// The turns of all threads. Clones share them.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    started: Instant,
}

struct Queue {
    turns: Turns,
    /// What wakes each of those who wait: waking all for one's turn would cost more than the
    /// calls when many wait.
    bells: BTreeMap<u64, Arc<Condvar>>,
}

impl Queue {
    /// Wakes whom it concerns after somebody came or went.
    fn ring(&self, now: Duration) {
        match self.turns.turn(now) {
            Turn::Of(first) => self.wake(first),
            // Those sleep until then.
            Turn::NotBefore(_) => self.turns.fronts().for_each(|front| self.wake(front)),
            Turn::Nobody => {}
        }
    }

    fn wake(&self, ticket: u64) {
        if let Some(bell) = self.bells.get(&ticket) {
            bell.notify_one();
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Budget").field(&self.lock().turns).finish()
    }
}

impl Budget {
    /// With the limits that [`Turns::new`] takes.
    #[must_use]
    pub fn new(per_second: u32, connections: usize) -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::new(Queue {
                turns: Turns::new(per_second, connections),
                bells: BTreeMap::new(),
            }),
            started: Instant::now(),
        }))
    }

    /// Waits for the turn; it lasts until the permit is dropped.
    pub fn wait(&self, kind: Kind) -> Permit {
        let mut queue = self.lock();
        let ticket = queue.turns.come(kind, self.now());
        let bell = Arc::new(Condvar::new());
        queue.bells.insert(ticket, bell.clone());
        loop {
            let now = self.now();
            let until = match queue.turns.turn(now) {
                Turn::Of(first) if first == ticket => {
                    queue.turns.go(now);
                    queue.bells.remove(&ticket);
                    // The next one may have its turn already.
                    queue.ring(now);
                    return Permit {
                        budget: self.clone(),
                        kind,
                    };
                }
                // Whose turn it is changes with time too, and then nobody else tells.
                Turn::Of(first) => {
                    queue.wake(first);
                    None
                }
                Turn::NotBefore(then) => queue.turns.fronts().any(|front| front == ticket).then_some(then),
                Turn::Nobody => None,
            };
            queue = match until {
                None => bell.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(then) => match bell.wait_timeout(queue, then.saturating_sub(now)) {
                    Ok((queue, _)) => queue,
                    Err(poisoned) => poisoned.into_inner().0,
                },
            };
        }
    }

    fn now(&self) -> Duration {
        self.0.started.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave for one call.
#[derive(Debug)]
#[must_use = "the turn is over when it is dropped"]
pub struct Permit {
    budget: Budget,
    kind: Kind,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut queue = self.budget.lock();
        queue.turns.done(self.kind);
        queue.ring(self.budget.now());
    }
}

#[cfg(test)]
mod tests;
