//! Real machines for the stand-in: microVMs of the embedded provider, told by
//! a context disc as OpenNebula's are.

use crate::machines::{Machines, Seen, VmSpec};
use crate::wall::Wall;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use thiao_core::ids::{ClusterName, Generation, HostName, NodeName, VmId, VmTag};
use thiao_core::view::VmState;
use thiao_guest::context_disk::{CONTEXT_FILE, LABEL, TOKEN_FILE};
use thiao_qemu::iso;
use thiao_qemu::{DiskVm, Error, Prepared, Qemu, Settings};

/// What the machines' names begin with; OpenNebula's id follows.
const NAME: &str = "one-";

/// Runs the stand-in's VMs by QEMU. They outlive it, and the next one finds them.
pub struct QemuMachines {
    qemu: Qemu,
    cluster: ClusterName,
    /// What security groups let pass at their cards.
    wall: Wall,
    /// What the last observation that succeeded showed.
    seen: Mutex<Vec<(u32, Seen)>>,
}

impl QemuMachines {
    /// Takes up the machines that run already, and readies image and
    /// acceleration. `settings.guest` matters only for the folders that are
    /// exported: what guests are told stands in their CONTEXT.
    pub fn open(settings: Settings, progress: &dyn Fn(&str)) -> Result<(Self, Prepared), Error> {
        let cluster = settings.cluster.clone();
        let qemu = Qemu::open(settings, Arc::new(|| {}))?;
        let prepared = qemu.prepare(&[], progress)?;
        let machines = Self {
            qemu,
            cluster,
            wall: Wall::default(),
            seen: Mutex::default(),
        };
        Ok((machines, prepared))
    }

    /// The ports of the shares' servers, in the settings' order.
    #[must_use]
    pub fn export_ports(&self) -> Vec<u16> {
        self.qemu.export_ports()
    }

    /// What the machine of a VM went through, for people.
    #[must_use]
    pub fn story(&self, id: u32) -> Vec<String> {
        let told = vm_id(id).map(|id| self.qemu.timeline(&id)).unwrap_or_default();
        told.into_iter().map(|(_, what)| what).collect()
    }

    fn create(&self, spec: &VmSpec) -> Result<(), String> {
        let [nic, ..] = &spec.nics[..] else {
            return Err("a microVM needs a network card".to_owned());
        };
        let mac = mac(&nic.mac).ok_or_else(|| format!("{} is no hardware address", nic.mac))?;
        let host = HostName::new(&spec.host).map_err(|e| e.to_string())?;
        let node = NodeName::new(&format!("{NAME}{}", spec.id)).map_err(|e| e.to_string())?;
        let tag = VmTag {
            cluster: self.cluster.clone(),
            node,
            generation: Generation(1),
        };
        let iso = context_disc(spec)?;
        // Before its card is there.
        self.wall.hold(spec.id, nic)?;
        let vm = DiskVm {
            cpus: spec.vcpu,
            memory_mb: spec.memory_mb,
            share_percent: (spec.cpu_percent / spec.vcpu.max(1)).max(1),
            address: nic.ip,
            mac,
            iso: &iso,
        };
        self.qemu
            .create_told(&tag, &host, &vm)
            .map(drop)
            .map_err(|e| e.to_string())
    }
}

impl Machines for QemuMachines {
    fn start(&self, spec: &VmSpec) -> Result<(), String> {
        let ended = self.poll().contains(&(spec.id, Seen::Ended));
        if ended {
            self.remove(spec.id)?;
        }
        self.create(spec)
    }

    fn stop(&self, id: u32, hard: bool) -> Result<(), String> {
        let id = vm_id(id)?;
        let done = if hard {
            self.qemu.kill(&id)
        } else {
            self.qemu.shut_down(&id)
        };
        done.map_err(|e| e.to_string())
    }

    fn save(&self, id: u32) -> Result<(), String> {
        self.qemu.stand_still(&vm_id(id)?).map_err(|e| e.to_string())
    }

    // All hosts are this machine: it need not go anywhere.
    fn restore(&self, spec: &VmSpec) -> Result<(), String> {
        self.qemu.go_on(&vm_id(spec.id)?).map_err(|e| e.to_string())
    }

    fn remove(&self, id: u32) -> Result<(), String> {
        self.qemu.destroy(&vm_id(id)?).map_err(|e| e.to_string())?;
        self.wall.forget(id)
    }

    fn rules(&self, spec: &VmSpec) -> Result<(), String> {
        spec.nics
            .first()
            .map_or(Ok(()), |nic| self.wall.hold(spec.id, nic))
    }

    fn poll(&self) -> Vec<(u32, Seen)> {
        let mut last = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match self.qemu.observe() {
            Ok(view) => {
                *last = view
                    .vms
                    .iter()
                    .filter_map(|vm| Some((number(&vm.id)?, seen(&vm.state))))
                    .collect();
            }
            // What cannot be seen has not ended for that.
            Err(error) => tracing::error!(%error, "cannot observe the machines"),
        }
        last.clone()
    }
}

fn seen(state: &VmState) -> Seen {
    match state {
        VmState::Dead(_) => Seen::Ended,
        VmState::Pending
        | VmState::Held
        | VmState::Booting
        | VmState::Ready
        | VmState::Paused(_)
        | VmState::Saving
        | VmState::Saved
        | VmState::Restoring
        | VmState::Moving
        | VmState::Stopping
        | VmState::Unknown(_) => Seen::Running,
    }
}

fn vm_id(id: u32) -> Result<VmId, String> {
    VmId::new(&format!("{NAME}{id}.1")).map_err(|e| e.to_string())
}

fn number(id: &VmId) -> Option<u32> {
    id.as_str().strip_prefix(NAME)?.strip_suffix(".1")?.parse().ok()
}

/// Reads an address like `02:00:0a:09:00:07`.
fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    bytes?.try_into().ok()
}

/// The files as oned writes them (`VirtualMachineContext.cc` of OpenNebula 7.4).
fn context_disc(spec: &VmSpec) -> Result<Vec<u8>, String> {
    let mut text = String::from("# Context variables generated by OpenNebula\n");
    for (name, value) in &spec.context {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name}='{}'", value.replace('\'', "'\\''"));
    }
    let mut files = BTreeMap::from([(CONTEXT_FILE, text.as_bytes())]);
    if let Some(token) = &spec.onegate_token {
        files.insert(TOKEN_FILE, token.as_bytes());
    }
    iso::disc(LABEL, &files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_known_by_opennebulas_number() {
        let id = vm_id(42).unwrap();
        assert_eq!(id.as_str(), "one-42.1");
        assert_eq!(number(&id), Some(42));
        assert_eq!(number(&VmId::new("fg1.1").unwrap()), None);
    }

    #[test]
    fn hardware_addresses_are_read() {
        assert_eq!(mac("02:00:0a:09:00:07"), Some([2, 0, 10, 9, 0, 7]));
        assert_eq!(mac("02:00:0a:09:00"), None);
        assert_eq!(mac("02:00:0a:09:00:xx"), None);
    }
}
