//! The controller's clock. It neither jumps nor stands still when the machine's clock is set.
//!
//! Graces and limits are spans between times that were written down, some of them by an earlier
//! controller. Were they measured on the machine's clock, setting that ahead would end VMs as
//! overdue, and setting it back would make graces endless. So:
//!
//! - Our time advances with the kernel's time since boot (`CLOCK_BOOTTIME`, clock_gettime(2)),
//!   which nobody sets.
//! - It starts at the machine's time, and follows it when that is set: by a tenth faster or
//!   slower until both agree. A grace is a tenth off meanwhile, and people read times that are
//!   off by what is left of the step. It never goes back.
//! - How far both are apart is stored ([`Saved`]). The next controller of the same boot goes on
//!   with the same time, whatever was set in between. After another boot, or if the clock was
//!   off by more than [`FARTHEST`] (a machine without a battery begins in 1970), it starts at the
//!   machine's time; what is written down as of later counts as of now (`NodeRecord::not_after`).
//! - Hooks know the machine's time only. [`Clock::of_wall`] turns it into ours: of the instants
//!   at which the machine's clock showed that time, the latest that has been. So an order that
//!   was given after the clock was set back counts as newer than one from before it. Names in the
//!   spool sort by the machine's time; orders are taken by ours.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thiao_core::ids::Time;

/// Nanoseconds, on whichever clock.
type Nanos = i128;

const MILLI: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MILLI;
const DAY: Nanos = 86_400 * SECOND;

/// We gain or lose one part in so many while we follow the machine's clock.
const FOLLOW: Nanos = 10;

/// A difference above this between two readings is a step, and no drift.
const STEP: Nanos = SECOND;

/// The clock of an earlier controller is not followed when it is farther off than this.
const FARTHEST: Nanos = 7 * DAY;

/// So often both clocks are read until they were read close together.
const READINGS: usize = 8;

/// So many settings of the machine's clock are remembered, to read times from before them.
const SETTINGS: usize = 16;

/// What both clocks of the machine show at one instant.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// Since the Unix epoch: people and NTP set it.
    wall: Nanos,
    /// Since the machine's boot.
    boot: Nanos,
}

/// What the next controller needs of our clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Which boot of the machine it is about: the kernel's random `boot_id`.
    pub boot_id: String,
    /// From the time since boot to ours, in milliseconds.
    pub ours_ms: i64,
    /// From the time since boot to the machine's time, in milliseconds.
    pub wall_ms: i64,
}

/// Our time as a function of what is read; nothing here asks a clock.
#[derive(Debug)]
struct Steady {
    /// The time since boot of the latest reading.
    boot: Nanos,
    /// Our time at that reading.
    ours: Nanos,
    /// From the time since boot to the machine's, the newest last: one for each setting of its clock.
    settings: Vec<Nanos>,
    /// By how much the machine's clock was set since [`Clock::steps`] was asked.
    steps: Vec<Nanos>,
}

impl Steady {
    fn start(read: Reading, saved: Option<&Saved>) -> Self {
        let offset = read.wall - read.boot;
        let mut steady = Self {
            boot: read.boot,
            ours: read.wall,
            settings: vec![offset],
            steps: Vec::new(),
        };
        if let Some(saved) = saved {
            let ours = read.boot + Nanos::from(saved.ours_ms) * MILLI;
            if (ours - read.wall).abs() <= FARTHEST {
                steady.ours = ours;
                steady.settings = vec![Nanos::from(saved.wall_ms) * MILLI];
                steady.notice(offset);
            }
        }
        steady
    }

    /// Our time at this reading.
    fn at(&mut self, read: Reading) -> Nanos {
        // Threads may bring their readings in another order than they took them.
        let passed = (read.boot - self.boot).max(0);
        self.boot += passed;
        let ours = self.ours + passed;
        let behind = read.wall - ours;
        self.ours = ours + behind.clamp(-passed / FOLLOW, passed / FOLLOW);
        self.notice(read.wall - read.boot);
        self.ours
    }

    fn notice(&mut self, offset: Nanos) {
        let Some(last) = self.settings.last_mut() else {
            return;
        };
        let by = offset - *last;
        if by.abs() <= STEP {
            *last = offset;
            return;
        }
        self.steps.push(by);
        self.settings.push(offset);
        if self.settings.len() > SETTINGS {
            self.settings.remove(0);
        }
    }

    /// Our time when the machine's clock showed `wall`; not after the latest reading.
    fn of_wall(&self, wall: Nanos) -> Nanos {
        let boots = self.settings.iter().map(|offset| wall - offset);
        // A reading is not taken in one instant.
        let been = boots.filter(|boot| *boot <= self.boot + STEP);
        let age = been.max().map_or(0, |boot| (self.boot - boot).max(0));
        self.ours - age
    }

    fn saved(&self, boot_id: &str) -> Saved {
        let ms = |nanos: Nanos| i64::try_from(nanos / MILLI).unwrap_or(i64::MAX);
        let wall = self.settings.last().copied().unwrap_or_default();
        Saved {
            boot_id: boot_id.to_owned(),
            ours_ms: ms(self.ours - self.boot),
            wall_ms: ms(wall),
        }
    }
}

/// Our clock, for all who need the time.
#[derive(Debug)]
pub struct Clock {
    steady: Mutex<Steady>,
    boot_id: String,
}

impl Clock {
    /// Starts it, where the last controller's was if that is of use.
    pub fn start(saved: Option<&Saved>) -> Self {
        // Where the kernel does not say it, no boot is like another.
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot_id = boot_id.trim().to_owned();
        let saved = saved.filter(|saved| !boot_id.is_empty() && saved.boot_id == boot_id);
        Self {
            steady: Mutex::new(Steady::start(read(), saved)),
            boot_id,
        }
    }

    /// What time it is now, by our clock.
    pub fn now(&self) -> Time {
        time(self.steady().at(read()))
    }

    /// Our time when the machine's clock showed `wall`, not after the latest [`Self::now`].
    pub fn of_wall(&self, wall: Time) -> Time {
        time(self.steady().of_wall(Nanos::from(wall.0) * MILLI))
    }

    /// How much is left of the second, on the machine's clock, in which our time was `at`.
    ///
    /// slurmd tells its age in whole seconds of another beat than slurmctld's clock: one that
    /// starts within the second of slurmctld's request may look older than that, which slurmctld
    /// takes for a registration from before the boot (`waiting_for_node_boot`, `get_up_time`; seen
    /// on 22.05.8 with nodes that start within 0.3 s). A wait is the same on the guest's clock.
    pub fn left_of_second(&self, at: Time) -> Duration {
        let read = read();
        let age = self.steady().at(read) - Nanos::from(at.0) * MILLI;
        left_of_second(read.wall, age)
    }

    /// Says how the machine's clock was set since this was asked last, for people.
    pub fn steps(&self) -> Vec<String> {
        let steps = std::mem::take(&mut self.steady().steps);
        let text = |by: Nanos| {
            let way = if by > 0 { "ahead" } else { "back" };
            let seconds = u64::try_from((by.abs() + SECOND / 2) / SECOND).unwrap_or(u64::MAX);
            let by = std::time::Duration::from_secs(seconds);
            format!(
                "the machine's clock was set {way} by {by:?}: thiaod's time follows slowly, so that no wait ends early"
            )
        };
        steps.into_iter().map(text).collect()
    }

    /// For the next controller.
    pub fn saved(&self) -> Saved {
        self.steady().saved(&self.boot_id)
    }

    fn steady(&self) -> MutexGuard<'_, Steady> {
        self.steady.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Saved {
    /// As the store keeps it.
    pub fn encode(&self) -> String {
        format!("{} {} {}", self.boot_id, self.ours_ms, self.wall_ms)
    }

    /// Reads it back; anything odd is as good as nothing.
    pub fn decode(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let saved = Self {
            boot_id: words.next()?.to_owned(),
            ours_ms: words.next()?.parse().ok()?,
            wall_ms: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(saved)
    }

    /// Whether the other says something else by more than a second.
    pub fn differs(&self, other: &Self) -> bool {
        let far = |a: i64, b: i64| a.abs_diff(b) > 1_000;
        self.boot_id != other.boot_id || far(self.ours_ms, other.ours_ms) || far(self.wall_ms, other.wall_ms)
    }
}

/// Reads both clocks. They are no pair if we had to wait in between, which would look like a
/// step: the closest of a few is taken.
fn read() -> Reading {
    let pair = || {
        let (before, wall, after) = (boot(), SystemTime::now(), boot());
        let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = Nanos::try_from(wall.as_nanos()).unwrap_or(Nanos::MAX);
        (after - before, Reading { wall, boot: before })
    };
    let mut best = pair();
    for _ in 1..READINGS {
        if best.0 < MILLI {
            break;
        }
        let next = pair();
        if next.0 < best.0 {
            best = next;
        }
    }
    best.1
}

/// What is left of the second of `age` ago, at most a whole one.
fn left_of_second(wall: Nanos, age: Nanos) -> Duration {
    let at = wall - age.max(0);
    let left = (at - at.rem_euclid(SECOND) + SECOND - wall).max(0);
    Duration::from_nanos(u64::try_from(left).unwrap_or_default())
}

fn boot() -> Nanos {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Nanos::from(boot.tv_sec) * SECOND + Nanos::from(boot.tv_nsec)
}

fn time(nanos: Nanos) -> Time {
    Time(u64::try_from(nanos / MILLI).unwrap_or(0))
}

#[cfg(test)]
mod tests;
