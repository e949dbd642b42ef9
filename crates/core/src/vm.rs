//! A node's VM as we know it, on two axes: its *life* at the provider, and its *registration* with Slurm.
//!
//! Life. A listing shows each step; what we ask for ourselves is asked, and an end.
//! ```text
//!                                          somebody holds it still, or moves it
//!                                       +-> Paused ------------------------------+
//!        made        started   guest or +-> Saving -> Saved -> Restoring --------+
//!  Asked ---> Pending ---> Booting ---> Running -> Moving -----------------------+
//!    |          ^           Slurm       ^    (from Booting just so)              |
//!    +-> Held --+                       +-------------- shown going on ----------+
//!
//!  each of these --- surely ended or failed, or not shown for long ---> Dead
//!  each of these, and Dead --- an end is asked for ---> Ending --- gone ---> (none: the record is dropped)
//!  Ending --- it was our own decision, and Slurm counts on its node after all ---> Running
//!  Dead, or ending as such --- it was only not shown, and is shown again ---> Running
//! ```
//!
//! Registration. It says nothing of a VM that is not there: of a dead one it is the last that was known.
//! ```text
//!          the guest says that slurmd runs      Slurm shows the node up
//!  NotYet ---------------------> GuestReady --------------------> Registered <- - -> (silent)
//!    +----------------------------------------------------------------^
//! ```
//! Silence is no step of it: it is what the last observation of Slurm says ([`crate::world::World::is_silent`]), and
//! is not kept, or each hiccup of a network would be a write of every record to the disk.

use crate::ids::{Generation, HostName, Time, VmId};
use crate::policy::Policy;
use crate::view::{VmSpec, VmState, VmView};

/// A node's VM as we know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmRecord {
    /// Which of the node's VMs it is.
    pub generation: Generation,
    /// The provider's id, once known.
    pub id: Option<VmId>,
    /// The host chosen or seen.
    pub host: Option<HostName>,
    /// What it is; none of one that was found and whose making we do not know.
    pub spec: Option<VmSpec>,
    /// Where it is in its life at the provider.
    pub life: Life,
    /// How far it is with Slurm.
    pub registration: Registration,
    /// When it was asked for; of one that was made early, when Slurm asked.
    pub asked: Time,
    /// When it last came nearer to its node or to its end: pauses and moves do not count.
    pub since: Time,
    /// Since when whole observations of the provider do not show it.
    pub missing_since: Option<Time>,
    /// Until when it stays though its job has failed, because that asked for it.
    pub kept: Option<Time>,
    /// How often its guest was told to start slurmd.
    pub starts: Starts,
    /// What a listing last said of it beside that.
    pub aside: Aside,
}

/// What a listing says of a VM that is no step of its life. Not in the store: after a start it is told once more.
#[derive(Debug, Clone, Eq, Default)]
pub struct Aside {
    pub odd: Option<Odd>,
    /// What it takes from its host: MiB, and percent of a core.
    pub takes: Option<(u64, u32)>,
    /// Why its creation was not confirmed when it was asked for last; none once it is shown.
    pub unmade: Option<String>,
}

/// It is not kept: records that differ in nothing else are the same, or after a start each would be written anew.
impl PartialEq for Aside {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// What is odd about a VM that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Odd {
    /// Somebody holds it back before it is started.
    Held,
    /// It is being shut down, and its end was not asked for by us.
    Ending,
    /// Nobody knows whether it runs, or whose it is; in words.
    Unclear(String),
}

impl Odd {
    /// A sentence's end for people.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Odd::Held => "is held back by somebody: it is not started before it is released",
            Odd::Ending => "is being shut down, and Thiao did not ask for it",
            Odd::Unclear(what) => what,
        }
    }
}

/// How often a guest was told to start slurmd, where guests wait for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Starts {
    pub times: u32,
    /// When it was told last.
    pub last: Time,
}

/// Where a VM is in its life at the provider; see the picture above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// Its creation was decided; the provider may or may not have it.
    Asked,
    /// The provider has it and holds it back: it has never run.
    Held,
    /// The provider has it, and has not started it yet.
    Pending,
    /// It was started; neither its guest nor Slurm has told of it yet.
    Booting,
    /// It runs: its guest or Slurm has told of it.
    Running,
    /// It is held still, its memory where it was.
    Paused,
    /// Its memory is being written to a disk.
    Saving,
    /// Its memory is on a disk; it does not run.
    Saved,
    /// Its memory is being read back.
    Restoring,
    /// It is on its way to another host.
    Moving {
        /// The host that it leaves, if that is known: until it has arrived it has its capacity on both.
        from: Option<HostName>,
    },
    /// Its end was asked for.
    Ending { cause: Cause },
    /// It surely ended by itself or could not be made.
    Dead {
        /// Why, as far as is known.
        why: String,
    },
}

/// The parts of a life that most decisions tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// The provider may not have it, or holds it back.
    Unconfirmed,
    /// The provider has it, and nobody has asked for its end.
    There,
    /// Its end was asked for, because of this.
    Ending(&'a Cause),
    /// It surely ended; why.
    Dead(&'a str),
}

/// How far a VM is with Slurm; see the picture above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Registration {
    /// Nothing was heard of its slurmd.
    #[default]
    NotYet,
    /// Its guest says that slurmd runs.
    GuestReady,
    /// Slurm shows the node up.
    Registered,
}

/// Why a VM is destroyed. There is no other reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Slurm's power-down of the node, or a person's order.
    Ordered,
    /// It did not register within the boot timeout.
    BootTimeout,
    /// It was dead already; what is left of it is removed.
    Dead { why: String },
    /// It backs nothing and was not asked for.
    Orphan,
}

impl Cause {
    /// A sentence's end for people.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Cause::Ordered => "the node was ordered down".into(),
            Cause::BootTimeout => "it did not register with Slurm in time".into(),
            Cause::Dead { why } => format!("it had died: {why}"),
            Cause::Orphan => "it backs no node and was not asked for".into(),
        }
    }
}

impl VmRecord {
    /// Why it fails that has not registered in time, for people: what is known better than that.
    #[must_use]
    pub fn late(&self) -> String {
        match &self.aside.unmade {
            Some(why) => format!("its creation was not confirmed in time: {why}"),
            None => Cause::BootTimeout.text(),
        }
    }
}

impl Life {
    /// Which part of a life it is in.
    #[must_use]
    pub fn part(&self) -> Part<'_> {
        match self {
            Life::Asked | Life::Held => Part::Unconfirmed,
            Life::Pending
            | Life::Booting
            | Life::Running
            | Life::Paused
            | Life::Saving
            | Life::Saved
            | Life::Restoring
            | Life::Moving { .. } => Part::There,
            Life::Ending { cause } => Part::Ending(cause),
            Life::Dead { why } => Part::Dead(why),
        }
    }

    /// Whether it is not sure that more than a request for it is there: none of it has ever run.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        self.part() == Part::Unconfirmed
    }

    /// Whether the provider has it, and nobody has asked for its end: its guest may run or go on.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.part() == Part::There
    }

    /// Whether somebody keeps it from going on.
    #[must_use]
    pub fn is_kept_still(&self) -> bool {
        match self {
            Life::Paused | Life::Saving | Life::Saved | Life::Restoring | Life::Moving { .. } => true,
            Life::Asked
            | Life::Held
            | Life::Pending
            | Life::Booting
            | Life::Running
            | Life::Ending { .. }
            | Life::Dead { .. } => false,
        }
    }

    /// Whether it was never started, as far as is known.
    #[must_use]
    pub fn is_before_start(&self) -> bool {
        matches!(self, Life::Asked | Life::Held | Life::Pending)
    }

    /// Whether it is on its way to another host.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        matches!(self, Life::Moving { .. })
    }

    /// Whether its end is sure or asked for.
    #[must_use]
    pub fn is_past(&self) -> bool {
        match self.part() {
            Part::Unconfirmed | Part::There => false,
            Part::Ending(_) | Part::Dead(_) => true,
        }
    }

    /// Whether its end was our own decision, by what we saw then, and nobody's order.
    #[must_use]
    pub fn was_ended_by_us(&self) -> bool {
        match self.part() {
            Part::Ending(Cause::BootTimeout | Cause::Orphan) => true,
            Part::Ending(Cause::Ordered | Cause::Dead { .. }) => false,
            Part::Unconfirmed | Part::There | Part::Dead(_) => false,
        }
    }

    /// The host that it is about to leave, and has its capacity on until then.
    #[must_use]
    pub fn leaves(&self) -> Option<&HostName> {
        let Life::Moving { from } = self else { return None };
        from.as_ref()
    }

    /// A stable word, for the store.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Life::Asked => "asked",
            Life::Held => "held",
            Life::Pending => "pending",
            Life::Booting => "booting",
            Life::Running => "running",
            Life::Paused => "paused",
            Life::Saving => "saving",
            Life::Saved => "saved",
            Life::Restoring => "restoring",
            Life::Moving { .. } => "moving",
            Life::Ending { .. } => "ending",
            Life::Dead { .. } => "dead",
        }
    }
}

impl Registration {
    /// Whether Slurm has had its node up with it.
    #[must_use]
    pub fn is_done(self) -> bool {
        match self {
            Registration::NotYet | Registration::GuestReady => false,
            Registration::Registered => true,
        }
    }

    /// A stable word, for the store.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Registration::NotYet => "not-yet",
            Registration::GuestReady => "guest-ready",
            Registration::Registered => "registered",
        }
    }

    /// What becomes of it when the guest says that slurmd runs.
    #[must_use]
    pub fn guest_ready(self) -> Self {
        match self {
            Registration::NotYet | Registration::GuestReady => Registration::GuestReady,
            // Slurm's word is the later one.
            Registration::Registered => Registration::Registered,
        }
    }
}

impl VmRecord {
    /// One whose creation is decided now.
    #[must_use]
    pub fn asked(generation: Generation, host: HostName, spec: VmSpec, now: Time) -> Self {
        Self {
            host: Some(host),
            spec: Some(spec),
            ..Self::new(generation, now)
        }
    }

    /// One that the provider shows and no record has.
    #[must_use]
    pub fn found(seen: &VmView, generation: Generation, now: Time) -> Self {
        let life = match seen.state {
            VmState::Held => Life::Held,
            VmState::Pending => Life::Pending,
            VmState::Booting
            | VmState::Ready
            | VmState::Paused(_)
            | VmState::Saving
            | VmState::Saved
            | VmState::Restoring
            | VmState::Moving
            | VmState::Stopping
            | VmState::Dead(_)
            | VmState::Unknown(_) => Life::Booting,
        };
        Self {
            // Of several that are held, the provider chooses the one that it releases.
            id: (life != Life::Held).then(|| seen.id.clone()),
            host: seen.host.clone(),
            life,
            ..Self::new(generation, now)
        }
    }

    fn new(generation: Generation, now: Time) -> Self {
        Self {
            generation,
            id: None,
            host: None,
            spec: None,
            life: Life::Asked,
            registration: Registration::NotYet,
            asked: now,
            since: now,
            missing_since: None,
            kept: None,
            starts: Starts::default(),
            aside: Aside::default(),
        }
    }

    /// Takes what was written down as of later for as of `now`, as [`crate::world::NodeRecord::not_after`].
    pub(crate) fn not_after(&mut self, now: Time, policy: &Policy) {
        let times = [&mut self.asked, &mut self.since, &mut self.starts.last];
        for at in times.into_iter().chain(&mut self.missing_since) {
            *at = now.min(*at);
        }
        if let Some(until) = &mut self.kept {
            *until = (now + policy.keep_failed).min(*until);
        }
    }

    /// Enters a part of its life at `now`.
    pub fn enter(&mut self, life: Life, now: Time) {
        if self.life == life {
            return;
        }
        let both = |is: fn(&Life) -> bool| is(&self.life) && is(&life);
        if !both(Life::is_there) && !both(Life::is_unconfirmed) {
            self.since = now;
        }
        self.life = life;
    }

    /// Takes what was heard of its slurmd at `now`.
    pub fn register(&mut self, registration: Registration, now: Time) {
        if self.registration == registration {
            return;
        }
        if !self.registration.is_done() {
            self.since = now;
        }
        self.registration = registration;
        if matches!(self.life, Life::Pending | Life::Booting) {
            self.life = Life::Running;
        }
    }

    /// The life that a listing's word leads to; as it is where that says nothing new, or is no evidence about
    /// what only we end.
    #[must_use]
    pub fn shown(&self, state: &VmState) -> Life {
        match &self.life {
            Life::Asked | Life::Held => match state {
                VmState::Held => Life::Held,
                VmState::Pending | VmState::Stopping | VmState::Unknown(_) => Life::Pending,
                VmState::Booting => Life::Booting,
                VmState::Ready => Life::Running,
                VmState::Paused(_) => Life::Paused,
                VmState::Saving => Life::Saving,
                VmState::Saved => Life::Saved,
                VmState::Restoring => Life::Restoring,
                VmState::Moving => Life::Moving { from: None },
                VmState::Dead(why) => Life::Dead { why: why.clone() },
            },
            life @ (Life::Pending
            | Life::Booting
            | Life::Running
            | Life::Paused
            | Life::Saving
            | Life::Saved
            | Life::Restoring
            | Life::Moving { .. }) => match (state, self.registration) {
                // It waits for its host or its release, until it is started from where it is.
                (VmState::Held | VmState::Stopping | VmState::Unknown(_), _) => life.clone(),
                (VmState::Pending, _) if life.is_kept_still() => life.clone(),
                (VmState::Pending, Registration::NotYet) => Life::Pending,
                (VmState::Booting, Registration::NotYet) => Life::Booting,
                (
                    VmState::Pending | VmState::Booting,
                    Registration::GuestReady | Registration::Registered,
                ) => Life::Running,
                (VmState::Ready, _) => Life::Running,
                (VmState::Paused(_), _) => Life::Paused,
                (VmState::Saving, _) => Life::Saving,
                (VmState::Saved, _) => Life::Saved,
                (VmState::Restoring, _) => Life::Restoring,
                (VmState::Moving, _) => Life::Moving {
                    from: life.leaves().cloned(),
                },
                (VmState::Dead(why), _) => Life::Dead { why: why.clone() },
            },
            life @ (Life::Ending { .. } | Life::Dead { .. }) => life.clone(),
        }
    }

    /// What is odd about it, while it is there.
    #[must_use]
    pub fn odd(&self) -> Option<&Odd> {
        self.aside.odd.as_ref().filter(|_| self.life.is_there())
    }

    /// Whether it is on its way up.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        !self.life.is_past() && !self.registration.is_done()
    }

    /// Whether the provider has it, and Slurm has not had its node up with it.
    #[must_use]
    pub fn comes_up(&self) -> bool {
        self.life.is_there() && !self.registration.is_done()
    }

    /// Whether it backs a node that Slurm has had up with it: a job may be in it.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.life.is_there() && self.registration.is_done()
    }

    /// Whether it is taken for dead, or ended as such, only because no listing has shown it for long.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        let dead = match self.life.part() {
            Part::Dead(_) | Part::Ending(Cause::Dead { .. }) => true,
            Part::Ending(Cause::Ordered | Cause::BootTimeout | Cause::Orphan) => false,
            Part::Unconfirmed | Part::There => false,
        };
        // Nobody misses one that was seen to be dead.
        dead && self.missing_since.is_some()
    }

    /// Whether this is the VM of that generation and id, as far as both ids are known.
    #[must_use]
    pub fn is(&self, generation: Generation, id: Option<&VmId>) -> bool {
        let same_id = match (&self.id, id) {
            (Some(known), Some(id)) => known == id,
            (None, _) | (_, None) => true,
        };
        self.generation == generation && same_id
    }

    /// Both axes in one word, for people and programs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match &self.life {
            Life::Booting | Life::Running => match self.registration {
                Registration::NotYet => "booting",
                Registration::GuestReady => "ready",
                Registration::Registered => "up",
            },
            life @ (Life::Asked
            | Life::Held
            | Life::Pending
            | Life::Paused
            | Life::Saving
            | Life::Saved
            | Life::Restoring
            | Life::Moving { .. }) => life.word(),
            Life::Ending { .. } => "stopping",
            Life::Dead { .. } => "failed",
        }
    }
}

#[cfg(test)]
mod tests;
