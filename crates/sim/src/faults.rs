//! What may go wrong, how often, and how often it did.
//!
//! Each kind of fault has a stream of chance of its own: that one does not strike
//! changes nothing about when others do. So a run with less going wrong stays as
//! near as it can to the one that it was made from.

use crate::rng::Rng;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Declares the faults with a doc line each, and the functions over all of them.
macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident $kind:ident,)*) => {
        /// How often each thing goes wrong, per mille of its occasions.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct Rates { $($(#[$doc])* pub $name: u16,)* }

        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $($(#[$doc])* $kind,)* }

        impl Rates {
            /// How many kinds there are.
            pub const KINDS: usize = Fault::ALL.len();

            /// From one number per kind, in the order of the fields.
            #[must_use]
            pub fn from_rates(rates: [u16; Self::KINDS]) -> Self {
                let [$($name),*] = rates;
                Self { $($name),* }
            }

            /// The rate of a kind.
            #[must_use]
            pub fn of(&self, fault: Fault) -> u16 {
                match fault { $(Fault::$kind => self.$name,)* }
            }

            /// Sets the rate of a kind.
            pub fn set(&mut self, fault: Fault, permille: u16) {
                match fault { $(Fault::$kind => self.$name = permille,)* }
            }
        }

        impl Fault {
            /// All kinds, in the order of the fields of [`Rates`].
            pub const ALL: [Fault; [$(stringify!($name)),*].len()] = [$(Fault::$kind),*];

            /// Its name, which is that of its rate.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Fault::$kind => stringify!($name),)* }
            }
        }
    };
}

faults! {
    /// A creation fails, and says so.
    create_fails CreateFails,
    /// A creation succeeds, and its answer is lost.
    create_unanswered CreateUnanswered,
    /// A creation makes a VM that is held back, and nothing is heard of it.
    create_held CreateHeld,
    /// An earlier try of a creation takes effect, too: a held VM of the same tag.
    create_twice CreateTwice,
    /// A VM takes long to end, or for ever until that is asked hard.
    ends_slowly EndsSlowly,
    /// An end, or an order to Slurm, fails without effect.
    act_fails ActFails,
    /// An end, or an order to Slurm, takes effect and its answer is lost.
    act_unanswered ActUnanswered,
    /// A VM never registers.
    never_registers NeverRegisters,
    /// A VM dies while it boots.
    dies_booting DiesBooting,
    /// A VM dies some time later.
    dies_later DiesLater,
    /// A VM's guest hangs some time later: it is shown as before, and its slurmd is dead.
    hangs_later HangsLater,
    /// A listing of VMs fails.
    list_fails ListFails,
    /// A listing leaves a VM out, once.
    list_omits ListOmits,
    /// A listing shows what was some seconds ago.
    list_stale ListStale,
    /// A listing shows a VM in a state that we do not know.
    list_unknown ListUnknown,
    /// An observation of Slurm fails.
    observation_fails ObservationFails,
    /// An observation of Slurm takes long.
    observation_slow ObservationSlow,
    /// An observation of Slurm shows a node or job in a word that we do not know.
    observation_unknown ObservationUnknown,
    /// A hook writes its order late.
    hook_late HookLate,
    /// A hook leaves its order twice, as one that was called twice.
    hook_twice HookTwice,
    /// A hook is not run, or dies before it has left its order.
    hook_lost HookLost,
    /// The controller is killed, per round.
    killed Killed,
    /// The journal cannot be written, per write: the disk is full.
    disk_full DiskFull,
    /// slurmctld restarts. This and those below: per five seconds.
    slurmctld_restarts SlurmctldRestarts,
    /// A host stops taking VMs for a while.
    host_unusable HostUnusable,
    /// The provider shows a VM to nobody for up to a minute.
    vm_hidden VmHidden,
    /// Somebody starts a VM of no cluster, or of another one.
    foreign_vm ForeignVm,
    /// Somebody copies a VM of ours, tag and all, with a number that we did not give.
    twin_vm TwinVm,
    /// A person calls `Suspend` for a node.
    suspend_by_hand SuspendByHand,
    /// A person calls `Resume` for a node.
    resume_by_hand ResumeByHand,
    /// An admin drains a node for a while.
    admin_drains AdminDrains,
    /// An admin sets a node DOWN for a while.
    admin_downs AdminDowns,
    /// A node is missing from Slurm for a while, as after an edit of `slurm.conf`.
    node_unknown NodeUnknown,
    /// An admin takes a node out of its partition for a while, whatever runs there.
    partition_shrunk PartitionShrunk,
    /// An observation of Slurm does not show a node: nothing is known of it. Per node.
    observation_omits ObservationOmits,
    /// A job of power-saving mode is in a partition that has the nodes of job mode, too. Per job.
    site_partition SitePartition,
    /// A person undeploys a VM: its guest shuts down after a while, or says no.
    undeploy_by_hand UndeployByHand,
    /// A person gives a VM to another user for a while, who keeps it as it is.
    given_away GivenAway,
    /// The controller is killed, and its journal is replaced by an older copy. Per five seconds.
    journal_restored JournalRestored,
    /// A job fills its VM's spool: slurmd drains the node, until its next VM. Per five seconds.
    spool_full SpoolFull,
}

impl Rates {
    /// A world in which nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }
}

/// A fault that struck: of this kind, at its occasion of this number, the first being 0.
pub type Hit = (Fault, u64);

/// The faults of one run: decides each time whether one strikes, and counts.
#[derive(Debug)]
pub struct Faults {
    rates: Rates,
    /// If given, these strike and no others, whatever the rates.
    only: Option<BTreeSet<Hit>>,
    /// All who may make something go wrong have this at hand, none owns it.
    kinds: RefCell<[Kind; Rates::KINDS]>,
    /// What struck since last asked.
    struck: RefCell<Vec<Hit>>,
    pause: bool,
    over: bool,
}

#[derive(Debug)]
struct Kind {
    rng: Rng,
    tally: Tally,
}

/// How often a kind of fault could have struck, and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Occasions, while faults were about.
    pub occasions: u64,
    /// Those at which it struck.
    pub hits: u64,
}

impl Faults {
    /// Faults at these rates; or, if given, `only` those, for who looks for the shortest bad story.
    #[must_use]
    pub fn new(rates: Rates, only: Option<BTreeSet<Hit>>, rng: &Rng) -> Self {
        let kind = |number: usize| Kind {
            rng: rng.fork(1 + number as u64),
            tally: Tally::default(),
        };
        Self {
            over: rates == Rates::none() && only.as_ref().is_none_or(BTreeSet::is_empty),
            rates,
            only,
            kinds: RefCell::new(std::array::from_fn(kind)),
            struck: RefCell::default(),
            pause: false,
        }
    }

    /// Nothing ever goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Rates::none(), None, &Rng::new(0))
    }

    /// Whether it goes wrong this time.
    #[must_use]
    pub fn strikes(&self, fault: Fault) -> bool {
        if self.over || self.pause {
            return false;
        }
        let mut kinds = self.kinds.borrow_mut();
        let kind = &mut kinds[fault as usize];
        let hit = (fault, kind.tally.occasions);
        kind.tally.occasions += 1;
        let strikes = match &self.only {
            Some(only) => only.contains(&hit),
            None => kind.rng.chance(self.rates.of(fault)),
        };
        if !strikes {
            return false;
        }
        kind.tally.hits += 1;
        self.struck.borrow_mut().push(hit);
        true
    }

    /// What struck since this was last asked.
    pub fn struck(&mut self) -> Vec<Hit> {
        std::mem::take(self.struck.get_mut())
    }

    /// Whether nothing will go wrong any more.
    #[must_use]
    pub fn are_over(&self) -> bool {
        self.over
    }

    /// Whether something may go wrong now.
    #[must_use]
    pub fn are_about(&self) -> bool {
        !self.over && !self.pause
    }

    /// From now on nothing goes wrong any more.
    pub fn stop(&mut self) {
        self.over = true;
    }

    /// Nothing goes wrong, for a while.
    pub fn pause(&mut self, pause: bool) {
        self.pause = pause;
    }

    /// What struck how often.
    #[must_use]
    pub fn tally(&self) -> Vec<(Fault, Tally)> {
        let kinds = self.kinds.borrow();
        let tallies = kinds.iter().map(|kind| kind.tally);
        Fault::ALL.into_iter().zip(tallies).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(rates: &Rates, only: Option<&[Hit]>) -> Faults {
        let only = only.map(|only| only.iter().copied().collect());
        Faults::new(rates.clone(), only, &Rng::new(7))
    }

    fn strikes(faults: &Faults, fault: Fault) -> Vec<bool> {
        (0..200).map(|_| faults.strikes(fault)).collect()
    }

    #[test]
    fn what_struck_can_be_had_again_whole_or_in_part() {
        let rates = Rates {
            list_fails: 200,
            killed: 200,
            ..Rates::none()
        };
        let mut first = faults(&rates, None);
        let all = strikes(&first, Fault::ListFails);
        let mut hits = first.struck();
        let again = faults(&rates, Some(&hits));
        // Another kind in between changes nothing.
        assert_eq!(strikes(&again, Fault::Killed), [false; 200]);
        assert_eq!(strikes(&again, Fault::ListFails), all);
        let (_, number) = hits.remove(2);
        let less = strikes(&faults(&rates, Some(&hits)), Fault::ListFails);
        let differ: Vec<u64> = (0..200)
            .filter(|i| all[*i as usize] != less[*i as usize])
            .collect();
        assert_eq!(differ, [number]);
        let tally = first.tally()[Fault::ListFails as usize].1;
        assert_eq!((tally.occasions, tally.hits), (200, hits.len() as u64 + 1));
    }

    #[test]
    fn nothing_strikes_in_a_pause_or_after_the_end() {
        let mut faults = faults(&Rates::from_rates([1000; Rates::KINDS]), None);
        assert!(faults.strikes(Fault::Killed));
        faults.pause(true);
        assert!(!faults.strikes(Fault::Killed));
        faults.pause(false);
        assert!(faults.strikes(Fault::Killed));
        faults.stop();
        assert!(!faults.strikes(Fault::Killed) && faults.are_over());
    }

    #[test]
    fn a_rate_is_found_by_its_kind() {
        let mut rates = Rates::from_rates(std::array::from_fn(|i| i as u16));
        for (i, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(rates.of(fault)), i, "{}", fault.name());
            rates.set(fault, 0);
        }
        assert_eq!(rates, Rates::none());
    }
}
