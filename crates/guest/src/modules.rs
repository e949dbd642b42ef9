//! Kernel modules: those that every guest needs, and the drivers for what is there.

use std::fs;
use std::io;
use std::path::Path;
use thiao_guest::protocol::Modules;

/// Loads the modules of a list, in its order. A list that does not exist means
/// that the kernel needs none.
pub fn load(modules: Modules) -> Result<(), String> {
    let path = modules.list();
    let list = match fs::read_to_string(path) {
        Ok(list) => list,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(format!("cannot read {path}: {e}")),
    };
    for path in list.lines() {
        let file = fs::File::open(path).map_err(|e| format!("cannot open the module {path}: {e}"))?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(format!("cannot load the module {path}: {e}")),
        }
    }
    Ok(())
}

const PCI: &str = "/sys/bus/pci/devices";

/// What devices say of themselves in sysfs, and what drives them: virtio's
/// numbers (Virtual I/O Device 1.2, chapter 5), PCI's classes, base and sub.
const DRIVERS: [(&str, &str, &str, Modules); 4] = [
    (PCI, "vendor", "0x1af4", Modules::Pci),
    (PCI, "class", "0x0101", Modules::Ide),
    ("/sys/bus/virtio/devices", "device", "0x0002", Modules::VirtioDisk),
    ("/sys/bus/virtio/devices", "device", "0x0008", Modules::VirtioScsi),
];

/// Loads drivers as devices appear, each once.
#[derive(Default)]
pub struct Drivers {
    loaded: Vec<Modules>,
}

impl Drivers {
    /// Loads the drivers of the devices that are there now.
    pub fn load(&mut self) -> Result<(), String> {
        for (bus, fact, value, modules) in DRIVERS {
            if !self.loaded.contains(&modules) && has(Path::new(bus), fact, value) {
                load(modules)?;
                self.loaded.push(modules);
            }
        }
        Ok(())
    }
}

/// Whether this is more than a microVM, which has no PCI bus.
pub fn is_full_machine() -> bool {
    fs::read_dir(PCI).is_ok_and(|mut devices| devices.next().is_some())
}

/// Whether there is a SATA controller: the kernel has no driver for one.
pub fn has_sata() -> bool {
    has(Path::new(PCI), "class", "0x0106")
}

fn has(bus: &Path, fact: &str, value: &str) -> bool {
    let Ok(devices) = fs::read_dir(bus) else {
        return false;
    };
    devices
        .flatten()
        .any(|device| fs::read_to_string(device.path().join(fact)).is_ok_and(|text| text.starts_with(value)))
}
