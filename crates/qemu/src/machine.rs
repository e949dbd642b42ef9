//! The machine that QEMU is asked to be: its command line, and the one way to
//! start it. What is here decides whether a saved guest can be restored, so the
//! template's digest covers [`LAYOUT`].

use crate::error::Error;
use crate::image::{Image, System};
use crate::process::{FILE_LIMIT, command, tail};
use crate::vmdir::{
    self, CHANNEL_SOCKET, CONSOLE_FILE, CONSOLE_SOCKET, CONTEXT_DISK, LOG_FILE, PID_FILE, QMP_SOCKET,
    ROOT_DISK, SCRATCH_DISK,
};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use thiao_guest::protocol::{DISK_ARGUMENT, DISK_ROOT, DISK_SCRATCH, HELLO_ARGUMENT, PORT_NAME};

/// The emulator that runs the guests.
pub const PROGRAM: &str = "/usr/bin/qemu-system-x86_64";

/// The firmware that starts the kernel, by QEMU's own name for it. What QEMU takes by itself
/// (SeaBIOS, because of ACPI) hangs silently under emulation on QEMU 10; this one does not, on 7.2,
/// 10.0 and 11.1, and Debian has it in the same package on each.
const FIRMWARE: &str = "qboot.rom";

/// Raise it when a change of the command line makes saved guests unusable.
pub const LAYOUT: u32 = 5;

/// The limit where QEMU saves a guest's device state: 64 MiB.
const SAVE_LIMIT: u64 = 64 << 20;

/// Capacity for translated code under emulation, in MiB; a full one is emptied.
const TRANSLATION_MB: u32 = 128;

/// System calls that QEMU loses. It makes itself a daemon after that, which
/// `spawn` and `elevateprivileges` would forbid; the latter is had by
/// [`clean_slate`] instead.
const SANDBOX: &str = "on,obsolete=deny,resourcecontrol=deny";

/// What the kernel is told. The clock: under emulation it cannot calibrate the
/// TSC, so it is given; the timer check hangs there. The rest leaves out what a
/// guest with one job does not need, at boot or at every call: under emulation
/// each kernel path that is walked for the first time costs most. With memory
/// above 4 GiB the kernel would set 64 MiB aside to bounce what devices below
/// cannot reach; virtio's reach all (seen on Linux 6.1). The first file system may fill more than
/// half of what memory is free while it is unpacked: with forky's (52 MB, Linux 7.2) the smallest
/// guests, of 204 MiB, ended with "No space left on device". Older kernels do not know that option.
/// `-no-reboot` makes a restart end QEMU.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet mitigations=off nokaslr tsc=reliable no_timer_check \
     cryptomgr.notests rcupdate.rcu_expedited=1 lsm=capability audit=0 ipv6.disable=1 \
     nowatchdog init_on_alloc=0 transparent_hugepage=madvise \
     randomize_kstack_offset=off random.trust_cpu=on swiotlb=noforce initramfs_options=size=80% reboot=t panic=-1";

/// And a guest whose system is all in memory, without control groups.
const SMALL_ARGUMENTS: &str = "psi=0 cgroup_disable=memory";

/// And one with a whole system: its card keeps the name that the agent knows it by, all of its control
/// groups are of the second kind, and it says on the console what goes wrong, no more.
const DISK_ARGUMENTS: &str = "net.ifnames=0 systemd.unified_cgroup_hierarchy=1 systemd.show_status=0";

/// What runs a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accel {
    /// The virtualisation that the processor has.
    Kvm,
    /// Emulation by QEMU, on any processor.
    Tcg,
}

impl Accel {
    /// QEMU's name for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        }
    }
}

/// Where the guest's memory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Memory {
    /// In QEMU's own memory, and nowhere else.
    Private,
    /// In this file, written through: a template in the making.
    Shared(PathBuf),
    /// In this file at first, each page copied when it is written.
    CopyOnWrite(PathBuf),
}

/// How the guest begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Boots, and is told on its channel.
    Boot,
    /// Boots, and is told by its context disk.
    Told,
    /// Boots an image of the site's own, and is told by a disc that cloud-init reads.
    Seeded,
    /// As [`Start::Seeded`], to be asked what is in it.
    Asked,
    /// Boots, says hello on the console and ends.
    Hello,
    /// Waits for a saved state.
    Restore,
}

/// A machine to be.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Shown in the process list.
    pub name: String,
    pub cpus: u32,
    /// The guest's memory in MiB.
    pub memory_mb: u64,
    pub accel: Accel,
    /// The processor's time stamp counter, in kHz.
    pub tsc_khz: u64,
    /// Where its memory is.
    pub memory: Memory,
    pub start: Start,
    /// The card's address at boot; a restored guest has its template's until its context changes it.
    pub mac: [u8; 6],
    /// The tap, open in this process under the same number; none for a machine without a card.
    pub tap: Option<RawFd>,
}

/// The hardware address that goes with an internet address: unique where that is.
pub fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x54, a, b, c, d]
}

/// A disk that the guest writes to. Nobody needs it after QEMU: what the guest has written need not be on a
/// platter when it says so. QEMU opens it again when it saves the guest, and is in another folder then: it
/// gets the whole path.
fn disk(bus: Bus, serial: &str, file: &Path, list: &mut Arguments) {
    let mut drive = OsString::from(format!(
        "if=none,id={serial},format=qcow2,cache=unsafe,discard=unmap,file="
    ));
    drive.push(doubled(file));
    list.option("-drive", drive);
    list.option(
        "-device",
        format!("{},drive={serial},serial={serial}", bus.device("blk")),
    );
}

/// The disc that tells a guest who it is.
fn context_disk(bus: Bus, list: &mut Arguments) {
    list.option(
        "-drive",
        format!("if=none,id=context,format=raw,readonly=on,file={CONTEXT_DISK}"),
    );
    list.option("-device", format!("{},drive=context", bus.device("blk")));
}

/// A command line, as it grows.
#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.extend([name.into(), value.into()]);
    }

    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }
}

/// A path within an option's value: a comma in it is doubled.
fn doubled(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// It goes on without us, tells where it is, and may do little.
fn daemon(list: &mut Arguments) {
    list.flag("-daemonize");
    list.option("-pidfile", PID_FILE);
    list.option("-D", LOG_FILE);
    list.option("-sandbox", SANDBOX);
    list.option("-qmp", format!("unix:{QMP_SOCKET},server=on,wait=off"));
}

/// How devices are attached: a microVM has virtio's own bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bus {
    Mmio,
    Pci,
}

impl Bus {
    /// QEMU's name for a virtio device of this kind.
    fn device(self, kind: &str) -> String {
        match self {
            Bus::Mmio => format!("virtio-{kind}-device"),
            Bus::Pci => format!("virtio-{kind}-pci"),
        }
    }
}

impl Machine {
    /// QEMU's arguments, for its start in the VM's folder.
    pub fn arguments(&self, system: &System, folder: &Path) -> Vec<OsString> {
        let mut list = Arguments::default();
        self.hardware(&mut list);
        if !self.is_tried() {
            daemon(&mut list);
        }
        match system {
            System::Made(image) => self.made(image, folder, &mut list),
            System::Brought(_) => self.brought(folder, &mut list),
        }
        list.0
    }

    /// Whether it is only tried: it ends with who started it.
    fn is_tried(&self) -> bool {
        matches!(self.start, Start::Hello | Start::Asked)
    }

    /// What every machine is.
    fn hardware(&self, list: &mut Arguments) {
        let (accel, cpu) = match self.accel {
            Accel::Kvm => ("kvm".to_owned(), "host"),
            Accel::Tcg => (format!("tcg,thread=multi,tb-size={TRANSLATION_MB}"), "max"),
        };
        list.option("-name", &self.name);
        list.option("-accel", accel);
        list.option("-cpu", cpu);
        list.option("-smp", self.cpus.to_string());
        list.option("-m", format!("{}M", self.memory_mb));
        list.option("-object", self.memory_object());
        list.flag("-nodefaults");
        list.flag("-no-user-config");
        list.flag("-no-reboot");
        list.option("-display", "none");
        list.option("-chardev", self.console());
        list.option("-serial", "chardev:console");
    }

    /// A microVM, whose kernel QEMU starts.
    fn made(&self, image: &Image, folder: &Path, list: &mut Arguments) {
        list.option(
            "-machine",
            "microvm,acpi=on,pit=off,pic=off,rtc=on,isa-serial=on,x-option-roms=off,memory-backend=ram",
        );
        list.option("-bios", FIRMWARE);
        self.way_to_guest(list);
        if image.disks.is_some() && self.start != Start::Hello {
            for (file, serial) in [(ROOT_DISK, DISK_ROOT), (SCRATCH_DISK, DISK_SCRATCH)] {
                disk(Bus::Mmio, serial, &folder.join(file), list);
            }
        }
        self.network(Bus::Mmio, list);
        self.guest(image, list);
    }

    /// A whole machine, which starts what is on its disk as any other does.
    fn brought(&self, folder: &Path, list: &mut Arguments) {
        list.option("-machine", "q35,usb=off,smbus=off,vmport=off,memory-backend=ram");
        disk(Bus::Pci, DISK_ROOT, &folder.join(ROOT_DISK), list);
        context_disk(Bus::Pci, list);
        list.option("-device", Bus::Pci.device("rng"));
        if self.start == Start::Asked {
            // A network that leads nowhere: without one, systemd waits for it for two minutes.
            list.option("-netdev", "user,id=net,restrict=on");
            list.option("-device", format!("{},netdev=net", Bus::Pci.device("net")));
        }
        self.network(Bus::Pci, list);
    }

    /// What it writes is kept; a person can go in where the VM has a folder.
    fn console(&self) -> String {
        match self.is_tried() {
            true => format!("file,id=console,path={CONSOLE_FILE}"),
            false => format!(
                "socket,id=console,path={CONSOLE_SOCKET},server=on,wait=off,logfile={CONSOLE_FILE},logappend=on"
            ),
        }
    }

    /// By what a guest of ours gets its context, and says how far it is.
    fn way_to_guest(&self, list: &mut Arguments) {
        match self.start {
            Start::Boot | Start::Restore => {
                list.option("-device", Bus::Mmio.device("serial"));
                list.option(
                    "-chardev",
                    format!("socket,id=channel,path={CHANNEL_SOCKET},server=on,wait=off"),
                );
                list.option(
                    "-device",
                    format!("virtserialport,chardev=channel,name={PORT_NAME}"),
                );
            }
            Start::Told | Start::Seeded | Start::Asked => context_disk(Bus::Mmio, list),
            Start::Hello => {}
        }
    }

    fn network(&self, bus: Bus, list: &mut Arguments) {
        let Some(tap) = self.tap else { return };
        let [a, b, c, d, e, f] = self.mac;
        list.option("-netdev", format!("tap,id=net,fd={tap}"));
        let device = bus.device("net");
        list.option(
            "-device",
            format!("{device},netdev=net,mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
        );
    }

    /// What runs in it.
    fn guest(&self, image: &Image, list: &mut Arguments) {
        let hello = match self.start {
            // The kernel is in the saved memory.
            Start::Restore => return list.option("-incoming", "defer"),
            Start::Hello => HELLO_ARGUMENT,
            Start::Boot | Start::Told | Start::Seeded | Start::Asked => "",
        };
        list.option("-kernel", &image.kernel);
        list.option("-initrd", &image.initramfs);
        let (kind, disk) = match image.disks {
            None => (SMALL_ARGUMENTS, ""),
            Some(_) => (DISK_ARGUMENTS, DISK_ARGUMENT),
        };
        let words = format!(
            "{KERNEL_ARGUMENTS} {kind} tsc_early_khz={} {disk} {hello}",
            self.tsc_khz
        );
        list.option("-append", words.trim_end());
    }

    fn memory_object(&self) -> OsString {
        let size = self.memory_mb;
        let file = |path: &Path, share: &str| {
            let mut text = OsString::from(format!(
                "memory-backend-file,id=ram,size={size}M,share={share},mem-path="
            ));
            text.push(doubled(path));
            text
        };
        match &self.memory {
            Memory::Private => format!("memory-backend-ram,id=ram,size={size}M").into(),
            Memory::Shared(path) => file(path, "on"),
            Memory::CopyOnWrite(path) => file(path, "off"),
        }
    }

    /// Starts it as a daemon in `folder`; returns when its sockets are there.
    /// `inherit` are the descriptors that it may keep.
    pub fn start(&self, system: &System, folder: &Path, inherit: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let life = vmdir::begin_life(folder)?;
        let mut inherit = inherit.to_vec();
        inherit.push(life.as_fd());
        let limit = system.file_limit()?.max(self.file_limit());
        let mut command = command(folder, &inherit, limit)?;
        let status = command
            .args(self.arguments(system, folder))
            .status()
            .map_err(|e| Error::io("run", Path::new(PROGRAM), e))?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Qemu(format!(
            "QEMU did not start ({status}): {}",
            tail(&folder.join(LOG_FILE))
        )))
    }

    fn file_limit(&self) -> u64 {
        match self.memory {
            Memory::Shared(_) => SAVE_LIMIT,
            Memory::Private | Memory::CopyOnWrite(_) => FILE_LIMIT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(start: Start, memory: Memory) -> Machine {
        Machine {
            name: "thiao-c-fg1.1".into(),
            cpus: 2,
            memory_mb: 320,
            accel: Accel::Tcg,
            tsc_khz: 2_445_428,
            memory,
            start,
            mac: mac_of(Ipv4Addr::new(10, 9, 0, 7)),
            tap: Some(7),
        }
    }

    fn line(machine: &Machine) -> String {
        let system = System::Made(Image {
            digest: "d".into(),
            kernel: "/c/vmlinux".into(),
            compressed: "/boot/vmlinuz".into(),
            initramfs: "/c/initramfs.cpio".into(),
            kernel_release: "6.1".into(),
            disks: None,
            accounts: Default::default(),
        });
        let list = machine.arguments(&system, Path::new("/v"));
        list.iter()
            .map(|text| text.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_cold_machine_boots_its_kernel() {
        let text = line(&machine(Start::Boot, Memory::Private));
        for part in [
            "-accel tcg,thread=multi",
            "-cpu max",
            "-smp 2",
            "-m 320M",
            "memory-backend-ram,id=ram,size=320M",
            "-kernel /c/vmlinux -initrd /c/initramfs.cpio",
            "tsc_early_khz=2445428",
            "tap,id=net,fd=7",
            "mac=02:54:0a:09:00:07",
            "-daemonize",
            "-no-reboot",
            "-sandbox on",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("-incoming") && !text.contains(HELLO_ARGUMENT));
    }

    #[test]
    fn a_clone_has_its_kernel_in_its_memory() {
        let text = line(&machine(Start::Restore, Memory::CopyOnWrite("/s/a,b/ram".into())));
        assert!(
            text.contains("share=off,mem-path=/s/a,,b/ram") && text.contains("-incoming defer"),
            "{text}"
        );
        assert!(!text.contains("-kernel"), "{text}");
    }

    #[test]
    fn a_machine_with_a_context_disk_has_no_channel() {
        let text = line(&machine(Start::Told, Memory::Private));
        assert!(
            text.contains("readonly=on,file=context.iso -device virtio-blk-device")
                && text.contains("-kernel")
                && text.contains("-qmp"),
            "{text}"
        );
        assert!(!text.contains(PORT_NAME), "{text}");
    }

    #[test]
    fn a_trial_runs_in_the_foreground() {
        let text = line(&machine(Start::Hello, Memory::Private));
        assert!(
            text.ends_with(HELLO_ARGUMENT) && !text.contains("-daemonize") && !text.contains("-qmp"),
            "{text}"
        );
    }
}
