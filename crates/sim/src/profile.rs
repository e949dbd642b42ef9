//! Named sets of faults.

use crate::faults::{Fault, Rates};
use crate::rng::Rng;
use std::fmt;
use std::str::FromStr;

/// A kind of bad days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Nothing ever goes wrong.
    None,
    /// A usual week: a bit of everything.
    Light,
    /// The provider and its hosts.
    Provider,
    /// What is seen of both sides.
    Observations,
    /// Answers and orders that are late or lost.
    Network,
    /// slurmctld, and the orders to it.
    Slurm,
    /// The controller is killed.
    Controller,
    /// Users, admins and outsiders.
    People,
    /// All of these at once.
    Heavy,
}

/// How often faults happen, of a thousand times that they could.
type Table = &'static [(Fault, u16)];

/// What is not as often as the rest in a usual week.
const LIGHT: Table = &[
    // Per round, and per five seconds: a few an hour.
    (Fault::Killed, 2),
    (Fault::SlurmctldRestarts, 2),
    (Fault::HostUnusable, 2),
    (Fault::SuspendByHand, 2),
    (Fault::ResumeByHand, 2),
    (Fault::UndeployByHand, 2),
    (Fault::GivenAway, 2),
    (Fault::AdminDrains, 2),
    (Fault::AdminDowns, 2),
    (Fault::PartitionShrunk, 2),
    (Fault::SpoolFull, 2),
    // No usual week has these.
    (Fault::VmHidden, 0),
    (Fault::TwinVm, 0),
    (Fault::JournalRestored, 0),
];
const PROVIDER: Table = &[
    (Fault::CreateFails, 300),
    (Fault::CreateHeld, 60),
    (Fault::CreateTwice, 60),
    (Fault::EndsSlowly, 300),
    (Fault::NeverRegisters, 200),
    (Fault::DiesBooting, 200),
    (Fault::DiesLater, 200),
    (Fault::HangsLater, 100),
    (Fault::HostUnusable, 60),
    (Fault::SpoolFull, 60),
];
const OBSERVATIONS: Table = &[
    (Fault::ListFails, 300),
    (Fault::ListOmits, 200),
    (Fault::ListStale, 200),
    (Fault::ListUnknown, 100),
    (Fault::ObservationFails, 300),
    (Fault::ObservationSlow, 200),
    (Fault::ObservationUnknown, 60),
    (Fault::ObservationOmits, 60),
    (Fault::VmHidden, 30),
];
const NETWORK: Table = &[
    (Fault::CreateUnanswered, 300),
    (Fault::CreateHeld, 200),
    (Fault::CreateTwice, 200),
    (Fault::ActFails, 200),
    (Fault::ActUnanswered, 300),
    (Fault::HookLate, 300),
    (Fault::HookTwice, 200),
    (Fault::HookLost, 60),
    (Fault::ListFails, 50),
    (Fault::ObservationFails, 50),
    (Fault::ObservationSlow, 200),
];
const SLURM: Table = &[
    (Fault::SlurmctldRestarts, 60),
    (Fault::ActFails, 200),
    (Fault::ActUnanswered, 200),
    (Fault::HookLate, 200),
    (Fault::ObservationFails, 200),
    (Fault::ObservationSlow, 200),
    (Fault::ObservationUnknown, 60),
    (Fault::NodeUnknown, 60),
    (Fault::PartitionShrunk, 60),
];
const CONTROLLER: Table = &[
    (Fault::Killed, 150),
    (Fault::DiskFull, 100),
    (Fault::JournalRestored, 100),
    (Fault::HookLate, 200),
    (Fault::CreateUnanswered, 60),
    (Fault::ActUnanswered, 60),
];
const PEOPLE: Table = &[
    (Fault::SuspendByHand, 60),
    (Fault::ResumeByHand, 60),
    (Fault::UndeployByHand, 60),
    (Fault::GivenAway, 60),
    (Fault::AdminDrains, 60),
    (Fault::AdminDowns, 60),
    (Fault::NodeUnknown, 60),
    (Fault::ForeignVm, 60),
    (Fault::TwinVm, 60),
    (Fault::HostUnusable, 30),
    (Fault::PartitionShrunk, 60),
    (Fault::SpoolFull, 60),
    (Fault::SitePartition, 200),
];

fn of(faults: &[(Fault, u16)]) -> Rates {
    let mut rates = Rates::none();
    faults
        .iter()
        .for_each(|(fault, permille)| rates.set(*fault, *permille));
    rates
}

impl Profile {
    /// All, the mildest first.
    pub const ALL: [Profile; 9] = [
        Profile::None,
        Profile::Light,
        Profile::Provider,
        Profile::Observations,
        Profile::Network,
        Profile::Slurm,
        Profile::Controller,
        Profile::People,
        Profile::Heavy,
    ];

    /// Its name, for people and programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Profile::None => "none",
            Profile::Light => "light",
            Profile::Provider => "provider",
            Profile::Observations => "observations",
            Profile::Network => "network",
            Profile::Slurm => "slurm",
            Profile::Controller => "controller",
            Profile::People => "people",
            Profile::Heavy => "heavy",
        }
    }

    /// What it is, for people.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Profile::None => "nothing goes wrong",
            Profile::Light => "a bit of everything, as in a usual week",
            Profile::Provider => {
                "VMs that fail, die, hang, fill their spool or end slowly; hosts that take none"
            }
            Profile::Observations => "listings that fail, lie, are cut or late",
            Profile::Network => "answers that are lost, orders that are late or made twice",
            Profile::Slurm => "slurmctld restarts, fails, and shows odd states",
            Profile::Controller => {
                "the controller is killed again and again, at any write, or gets an older journal"
            }
            Profile::People => {
                "orders by hand, VMs undeployed or given away, drains, nodes set DOWN or out of their partition, jobs of a partition that has all nodes, VMs of others and copies of ours"
            }
            Profile::Heavy => "all of these at once",
        }
    }

    /// The most that its faults happen.
    #[must_use]
    pub fn rates(self) -> Rates {
        match self {
            Profile::None => Rates::none(),
            Profile::Light => {
                let mut rates = of(&Fault::ALL.map(|fault| (fault, 10)));
                LIGHT
                    .iter()
                    .for_each(|(fault, permille)| rates.set(*fault, *permille));
                rates
            }
            Profile::Provider => of(PROVIDER),
            Profile::Observations => of(OBSERVATIONS),
            Profile::Network => of(NETWORK),
            Profile::Slurm => of(SLURM),
            Profile::Controller => of(CONTROLLER),
            Profile::People => of(PEOPLE),
            Profile::Heavy => of(&Fault::ALL.map(|fault| (fault, 100))),
        }
    }

    /// The rates of one world: some kinds are absent, the others happen rarely to as
    /// often as the profile has it, so that each has its part with few others about.
    #[must_use]
    pub fn drawn(self, rng: &mut Rng) -> Rates {
        let most = self.rates();
        let mut rates = Rates::none();
        for fault in Fault::ALL {
            let absent = rng.chance(300);
            // As many small rates as large ones.
            let share = 1 << rng.below(6);
            let rate = (most.of(fault) / share).max(most.of(fault).min(1));
            rates.set(fault, if absent { 0 } else { rate });
        }
        rates
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|profile| profile.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no profile '{text}' of faults: there are {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_found_by_its_name_and_no_other() {
        for profile in Profile::ALL {
            assert_eq!(profile.name().parse(), Ok(profile));
        }
        assert!("heavier".parse::<Profile>().is_err());
    }

    #[test]
    fn a_draw_keeps_to_the_profile_and_every_fault_is_in_some() {
        let mut rng = Rng::new(3);
        let mut seen = Rates::none();
        for profile in Profile::ALL {
            for _ in 0..50 {
                let drawn = profile.drawn(&mut rng);
                for fault in Fault::ALL {
                    assert!(
                        drawn.of(fault) <= profile.rates().of(fault),
                        "{profile} {fault:?}"
                    );
                    seen.set(fault, seen.of(fault).max(drawn.of(fault)));
                }
            }
        }
        for fault in Fault::ALL {
            assert!(seen.of(fault) > 0, "{fault:?} is in no profile");
        }
    }
}
