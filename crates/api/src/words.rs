//! Words that programs go by. In JSON each is a string; one that a newer controller says, and this program
//! does not know, is kept as it is and steers nothing.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;

/// Declares an enum of words, which is a string in JSON.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$meaning:meta])* $word:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($(#[$meaning])* $word,)+
            /// A word that is none of these.
            Unknown(String),
        }

        impl $name {
            /// The word itself, as JSON has it.
            #[must_use]
            pub fn word(&self) -> &str {
                match self {
                    $(Self::$word => $text,)+
                    Self::Unknown(word) => word,
                }
            }
        }

        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                match word {
                    $($text => Self::$word,)+
                    word => Self::Unknown(word.to_owned()),
                }
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                word.as_str().into()
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.word().to_owned()
            }
        }

        /// By the alphabet, as people find them.
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                self.word().cmp(other.word())
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// How far a node is, as the controller has it.
    NodeState {
        /// Nobody wants it up.
        Down = "down",
        /// It is wanted up, and no VM could be asked for yet.
        Waiting = "waiting",
        /// Its VM is asked for, and the provider does not show it.
        Asked = "asked",
        /// Its VM is held back by the provider, and has never run.
        Held = "held",
        /// The provider has its VM, and has not started it yet.
        Pending = "pending",
        /// Its VM was started; its guest has not said that slurmd runs.
        Booting = "booting",
        /// Its guest says that slurmd runs.
        Ready = "ready",
        /// Slurm shows it up.
        Up = "up",
        /// Slurm counts on it, and its slurmd does not answer.
        Silent = "silent",
        /// Its VM is held still by somebody.
        Paused = "paused",
        /// Its VM's memory is being written to a disk.
        Saving = "saving",
        /// Its VM's memory is on a disk, and it does not run.
        Saved = "saved",
        /// Its VM's memory is being read back.
        Restoring = "restoring",
        /// Its VM is on its way to another host.
        Moving = "moving",
        /// Its VM is being ended.
        Stopping = "stopping",
        /// Its VM died, or it could not be backed and is DOWN.
        Failed = "failed",
    }
}

words! {
    /// What was asked of a node.
    Desired {
        /// Nothing was asked of it yet.
        Unasked = "unasked",
        /// A VM is to back it.
        Up = "up",
        /// Its VM is to go.
        Down = "down",
    }
}

words! {
    /// How far a VM is.
    VmState {
        /// It is asked for, and the provider does not show it.
        Asked = "asked",
        /// It is held back by the provider, and has never run.
        Held = "held",
        /// The provider has it, and has not started it yet.
        Pending = "pending",
        /// It was started; its guest has not said that slurmd runs.
        Booting = "booting",
        /// Its guest says that slurmd runs.
        Ready = "ready",
        /// Slurm shows its node up.
        Up = "up",
        /// Slurm counts on its node, and its slurmd does not answer.
        Silent = "silent",
        /// It is held still by somebody.
        Paused = "paused",
        /// Its memory is being written to a disk.
        Saving = "saving",
        /// Its memory is on a disk, and it does not run.
        Saved = "saved",
        /// Its memory is being read back.
        Restoring = "restoring",
        /// It is on its way to another host.
        Moving = "moving",
        /// It is being ended.
        Stopping = "stopping",
        /// It died, and is not cleaned up yet.
        Failed = "failed",
        /// It has our tag and backs no node.
        Stray = "stray",
    }
}

words! {
    /// For whom a VM was made.
    Mode {
        /// Its node, whatever its jobs.
        PowerSaving = "power-saving",
        /// One job alone, and it ends with that.
        Job = "job",
    }
}

words! {
    /// Slurm's state of a job, as Slurm writes it. How it ended is a word that is not among these.
    JobState {
        /// It waits in Slurm's queue.
        Pending = "PENDING",
        /// It has nodes, which are not up yet.
        Configuring = "CONFIGURING",
        Running = "RUNNING",
        /// It is held still.
        Suspended = "SUSPENDED",
        /// Some of its processes may still run.
        Completing = "COMPLETING",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use thiao_core::ids::{Generation, HostName, Time};
    use thiao_core::view::{Shape, VmSpec};
    use thiao_core::vm::{Cause, Life, Registration, VmRecord};

    #[test]
    fn in_json_they_are_plain_strings() {
        let words = [NodeState::Down, NodeState::Up, "melting".into()];
        let text = serde_json::to_string(&words).unwrap();
        assert_eq!(text, r#"["down","up","melting"]"#);
        assert_eq!(serde_json::from_str::<[NodeState; 3]>(&text).unwrap(), words);
        assert_eq!(words[2], NodeState::Unknown("melting".to_owned()));
        assert_eq!(Mode::from("power-saving").to_string(), "power-saving");
    }

    #[test]
    fn as_names_of_a_map_too_in_the_order_of_the_alphabet() {
        let counts: BTreeMap<NodeState, usize> =
            [(NodeState::Up, 1), (NodeState::Down, 2), ("melting".into(), 3)].into();
        let text = serde_json::to_string(&counts).unwrap();
        assert_eq!(text, r#"{"down":2,"melting":3,"up":1}"#);
        assert_eq!(
            serde_json::from_str::<BTreeMap<NodeState, usize>>(&text).unwrap(),
            counts
        );
    }

    const SHAPE: Shape = Shape {
        cpus: 1,
        memory_mb: 100,
        share_percent: 100,
    };

    #[test]
    fn every_state_of_a_vm_is_a_word_of_both() {
        let (host, spec) = (HostName::new("a").unwrap(), VmSpec::of_node(SHAPE));
        let asked = VmRecord::asked(Generation(1), host, spec, Time(1));
        let lives = [
            Life::Asked,
            Life::Held,
            Life::Pending,
            Life::Booting,
            Life::Running,
            Life::Paused,
            Life::Saving,
            Life::Saved,
            Life::Restoring,
            Life::Moving { from: None },
            Life::Dead { why: String::new() },
            Life::Ending { cause: Cause::Orphan },
        ];
        let registrations = [
            Registration::NotYet,
            Registration::GuestReady,
            Registration::Registered,
        ];
        for life in lives {
            for registration in registrations {
                let vm = VmRecord {
                    life: life.clone(),
                    registration,
                    ..asked.clone()
                };
                let word = vm.word();
                assert!(!matches!(VmState::from(word), VmState::Unknown(_)), "{word}");
                assert!(!matches!(NodeState::from(word), NodeState::Unknown(_)), "{word}");
            }
        }
    }
}
