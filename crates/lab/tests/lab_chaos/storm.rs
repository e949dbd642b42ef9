//! What is killed, and how. Only processes of the lab, by their ids or by its keeper.

use super::dice::Dice;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;
use thiao_testkit::lab::Lab;

/// Who is killed with signal 9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// thiaod. The lab's keeper starts it again, as systemd does by `Restart=`.
    Controller,
    /// slurmctld, which the keeper starts again, too.
    Slurmctld,
    /// The QEMU of a VM. A slurmd is killed from inside its VM: by jobs of the stream.
    Qemu,
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Controller => "thiaod",
            Self::Slurmctld => "slurmctld",
            Self::Qemu => "QEMU",
        })
    }
}

/// Each as often as it stands here.
const VICTIMS: [Victim; 7] = [
    Victim::Controller,
    Victim::Controller,
    Victim::Controller,
    Victim::Slurmctld,
    Victim::Slurmctld,
    Victim::Qemu,
    Victim::Qemu,
];

/// Who was killed when.
#[derive(Default)]
pub struct Kills {
    pub of: BTreeMap<Victim, Vec<Instant>>,
}

impl Kills {
    pub fn of(&self, victim: Victim) -> &[Instant] {
        self.of.get(&victim).map_or(&[], Vec::as_slice)
    }

    /// Draws one and kills it, if it is there to be killed.
    pub fn strike(&mut self, dice: &mut Dice, lab: &Lab) {
        let Some(victim) = dice.one_of(&VICTIMS).copied() else {
            return;
        };
        // Before it is done: what is forgotten by it was taken before.
        let at = Instant::now();
        let what = match victim {
            Victim::Controller => kill_service(lab, "thiao"),
            Victim::Slurmctld => kill_service(lab, "slurmctld"),
            Victim::Qemu => kill_qemu(dice, lab),
        };
        if let Some(what) = what {
            println!("{} kill -9 {victim}{what}", jiff::Timestamp::now());
            let at = match victim {
                Victim::Slurmctld => Instant::now(),
                Victim::Controller | Victim::Qemu => at,
            };
            self.of.entry(victim).or_default().push(at);
        }
    }
}

/// None when it does not run at the moment: it was killed shortly before.
fn kill_service(lab: &Lab, name: &str) -> Option<String> {
    lab.lab("service", &["kill", name])
        .status
        .success()
        .then(String::new)
}

fn kill_qemu(dice: &mut Dice, lab: &Lab) -> Option<String> {
    let all = qemus(lab);
    let (pid, node) = dice.one_of(&all)?;
    let killed = lab.run_as_admin(&["kill", "-KILL", pid]);
    killed.status.success().then(|| format!(" of {node}"))
}

/// The QEMU processes of nodes: their ids inside the lab, and their nodes.
pub fn qemus(lab: &Lab) -> Vec<(String, String)> {
    let list = lab.admin(&["ps", "-eo", "pid=,args="]);
    let named = |line: &str| {
        // QEMU's -name is thiao-CLUSTER-NODE.GENERATION; a template's has no generation.
        let (pid, args) = line.trim().split_once(' ')?;
        let name = args.split_once(" -name ")?.1.split(' ').next()?;
        let (node, generation) = name.rsplit('-').next()?.split_once('.')?;
        let vm = args.contains("qemu-system") && generation.bytes().next()?.is_ascii_digit();
        vm.then(|| (pid.to_owned(), node.to_owned()))
    };
    list.lines().filter_map(named).collect()
}
