//! The fence around VMs: in job mode the VMs of one job reach each other, slurmctld, the folders of their job's
//! user, and what an administrator allows; nobody speaks under an address that is not his. The kernel's nftables
//! keep it, on the bridge: no guest can get around them, whoever is root in it.
//!
//! A VM is let in before its card exists and forgotten after it is gone: its name is all that the rules go by. What
//! was told is kept in memory and is told anew, whole, by the next process that takes the VMs up, and when somebody
//! has emptied the tables (as `systemctl restart nftables` does).

mod nft;
mod rules;

pub use nft::{FenceError, tell};
pub use rules::{Allowed, Rules, Server};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use thiao_core::ids::{ClusterName, VmId};

/// The group of the VMs of power-saving mode: no job has that number (Slurm's end at 2^26).
pub const POWER_SAVING: u32 = 1 << 31;

/// A VM as the fence knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fenced {
    pub vm: VmId,
    /// Its card's name on this machine.
    pub tap: String,
    pub mac: [u8; 6],
    pub address: Ipv4Addr,
    /// VMs of one group reach each other.
    pub group: u32,
    /// The ports of the exports that it may use.
    pub exports: BTreeSet<u16>,
}

impl Fenced {
    fn mac_text(&self) -> String {
        let mut text = String::new();
        for byte in self.mac {
            let colon = if text.is_empty() { "" } else { ":" };
            // Writing to a String does not fail.
            let _ = write!(text, "{colon}{byte:02x}");
        }
        text
    }
}

/// The table's name: nft takes letters, digits and `_` alone.
#[must_use]
pub fn table_of(cluster: &ClusterName) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!(
        "thiao_{}",
        cluster.as_str().chars().map(plain).collect::<String>()
    )
}

/// The fence, and who is in it.
#[derive(Debug)]
pub struct Fence {
    rules: Rules,
    state: Mutex<State>,
}

/// What the kernel was told.
#[derive(Debug, Default)]
struct State {
    vms: BTreeMap<String, Fenced>,
    servers: BTreeSet<Server>,
    /// Whether the table is there as far as we know.
    stands: bool,
}

impl Fence {
    /// One that the kernel knows nothing of yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            state: Mutex::default(),
        }
    }

    /// Fences these VMs and nobody else, whatever was there before.
    pub fn adopt(&self, vms: impl IntoIterator<Item = Fenced>) -> Result<(), FenceError> {
        let mut state = self.state();
        state.vms = vms.into_iter().map(|vm| (vm.tap.clone(), vm)).collect();
        self.whole(&mut state)
    }

    /// Lets a VM in; also with more exports than before.
    pub fn admit(&self, vm: Fenced) -> Result<(), FenceError> {
        let mut state = self.state();
        let before = state.vms.insert(vm.tap.clone(), vm.clone());
        if before.as_ref() == Some(&vm) && state.stands {
            return Ok(());
        }
        // What is taken from a VM is taken by telling everything: it is rare.
        let only_more = before.is_none_or(|before| {
            let Fenced { exports, .. } = &before;
            exports.is_subset(&vm.exports)
                && Fenced {
                    exports: vm.exports.clone(),
                    ..before.clone()
                } == vm
        });
        if only_more && state.stands && nft::tell(&self.rules.admit(&vm)).is_ok() {
            return Ok(());
        }
        self.whole(&mut state)
    }

    /// Opens more exports to a VM; to one that is not there, nothing.
    pub fn open(&self, vm: &VmId, ports: impl IntoIterator<Item = u16>) -> Result<(), FenceError> {
        let mut state = self.state();
        let Some(vm) = state.vms.values_mut().find(|known| known.vm == *vm) else {
            return Ok(());
        };
        vm.exports.extend(ports);
        let vm = vm.clone();
        match state.stands && nft::tell(&self.rules.admit(&vm)).is_ok() {
            true => Ok(()),
            false => self.whole(&mut state),
        }
    }

    /// Opens a file server to all VMs.
    pub fn open_server(&self, server: Server) -> Result<(), FenceError> {
        let mut state = self.state();
        if !state.servers.insert(server) && state.stands {
            return Ok(());
        }
        match state.stands && nft::tell(&self.rules.admit_server(&server)).is_ok() {
            true => Ok(()),
            false => self.whole(&mut state),
        }
    }

    /// Forgets a VM, whose card is gone. Its address may be another VM's by now, and so may its card's name.
    pub fn forget(&self, vm: &VmId) -> Result<(), FenceError> {
        let mut state = self.state();
        let tap = state
            .vms
            .iter()
            .find(|(_, known)| known.vm == *vm)
            .map(|(tap, _)| tap.clone());
        match tap.and_then(|tap| state.vms.remove(&tap)) {
            None => Ok(()),
            Some(vm) if state.stands && nft::tell(&self.rules.forget(&vm)).is_ok() => Ok(()),
            Some(_) => self.whole(&mut state),
        }
    }

    /// Tells everything anew if it is gone; true if it was.
    pub fn tend(&self) -> Result<bool, FenceError> {
        let mut state = self.state();
        if state.stands && nft::has(&self.rules.table)? {
            return Ok(false);
        }
        self.whole(&mut state).map(|()| true)
    }

    fn whole(&self, state: &mut State) -> Result<(), FenceError> {
        state.stands = false;
        nft::tell(&self.rules.whole(state.vms.values(), state.servers.iter()))?;
        state.stands = true;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a cluster's fence away, as when its last VM is gone for good; one that is not there is fine.
pub fn remove(cluster: &ClusterName) -> Result<(), FenceError> {
    let table = table_of(cluster);
    match nft::has(&table)? {
        true => nft::remove(&table),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
