//! The machine that QEMU is asked to be: its command line, and the one way to
//! start it. What is here decides whether a saved guest can be restored, so the
//! template's digest covers [`LAYOUT`].

use crate::error::Error;
use crate::image::Image;
use crate::vmdir::{self, CHANNEL_SOCKET, CONSOLE_FILE, CONTEXT_DISK, LOG_FILE, PID_FILE, QMP_SOCKET};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use thiao_guest::protocol::{HELLO_ARGUMENT, PORT_NAME};

/// The emulator that runs the guests.
pub const PROGRAM: &str = "/usr/bin/qemu-system-x86_64";

/// The firmware that starts the kernel, by QEMU's own name for it. What QEMU takes by itself
/// (SeaBIOS, because of ACPI) hangs silently under emulation on QEMU 10; this one does not, on 7.2,
/// 10.0 and 11.1, and Debian has it in the same package on each.
const FIRMWARE: &str = "qboot.rom";

/// Raise it when a change of the command line makes saved guests unusable.
pub const LAYOUT: u32 = 4;

/// The most that QEMU may write to any one file, so that no guest fills the
/// disk through its console: 1 MiB.
const FILE_LIMIT: u64 = 1 << 20;

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
     nowatchdog psi=0 cgroup_disable=memory init_on_alloc=0 transparent_hugepage=madvise \
     randomize_kstack_offset=off random.trust_cpu=on swiotlb=noforce initramfs_options=size=80% reboot=t panic=-1";

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

/// It goes on without us, tells where it is, and may do little.
fn daemon(list: &mut Arguments) {
    list.flag("-daemonize");
    list.option("-pidfile", PID_FILE);
    list.option("-D", LOG_FILE);
    list.option("-sandbox", SANDBOX);
    list.option("-qmp", format!("unix:{QMP_SOCKET},server=on,wait=off"));
}

impl Machine {
    /// QEMU's arguments, for its start in the VM's folder.
    pub fn arguments(&self, image: &Image) -> Vec<OsString> {
        let mut list = Arguments::default();
        self.hardware(&mut list);
        if self.start != Start::Hello {
            daemon(&mut list);
        }
        self.way_to_guest(&mut list);
        self.network(&mut list);
        self.guest(image, &mut list);
        list.0
    }

    fn hardware(&self, list: &mut Arguments) {
        let (accel, cpu) = match self.accel {
            Accel::Kvm => ("kvm".to_owned(), "host"),
            Accel::Tcg => (format!("tcg,thread=multi,tb-size={TRANSLATION_MB}"), "max"),
        };
        list.option("-name", &self.name);
        list.option(
            "-machine",
            "microvm,acpi=on,pit=off,pic=off,rtc=on,isa-serial=on,x-option-roms=off,memory-backend=ram",
        );
        list.option("-bios", FIRMWARE);
        list.option("-accel", accel);
        list.option("-cpu", cpu);
        list.option("-smp", self.cpus.to_string());
        list.option("-m", format!("{}M", self.memory_mb));
        list.option("-object", self.memory_object());
        list.flag("-nodefaults");
        list.flag("-no-user-config");
        list.flag("-no-reboot");
        list.option("-display", "none");
        list.option("-chardev", format!("file,id=console,path={CONSOLE_FILE}"));
        list.option("-serial", "chardev:console");
    }

    /// By what the guest gets its context, and says how far it is.
    fn way_to_guest(&self, list: &mut Arguments) {
        match self.start {
            Start::Boot | Start::Restore => {
                list.option("-device", "virtio-serial-device");
                list.option(
                    "-chardev",
                    format!("socket,id=channel,path={CHANNEL_SOCKET},server=on,wait=off"),
                );
                list.option(
                    "-device",
                    format!("virtserialport,chardev=channel,name={PORT_NAME}"),
                );
            }
            Start::Told => {
                list.option(
                    "-drive",
                    format!("if=none,id=context,format=raw,readonly=on,file={CONTEXT_DISK}"),
                );
                list.option("-device", "virtio-blk-device,drive=context");
            }
            Start::Hello => {}
        }
    }

    fn network(&self, list: &mut Arguments) {
        let Some(tap) = self.tap else { return };
        let [a, b, c, d, e, f] = self.mac;
        list.option("-netdev", format!("tap,id=net,fd={tap}"));
        list.option(
            "-device",
            format!("virtio-net-device,netdev=net,mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
        );
    }

    /// What runs in it.
    fn guest(&self, image: &Image, list: &mut Arguments) {
        let hello = match self.start {
            // The kernel is in the saved memory.
            Start::Restore => return list.option("-incoming", "defer"),
            Start::Hello => HELLO_ARGUMENT,
            Start::Boot | Start::Told => "",
        };
        list.option("-kernel", &image.kernel);
        list.option("-initrd", &image.initramfs);
        let words = format!("{KERNEL_ARGUMENTS} tsc_early_khz={} {hello}", self.tsc_khz);
        list.option("-append", words.trim_end());
    }

    fn memory_object(&self) -> OsString {
        let size = self.memory_mb;
        let file = |path: &Path, share: &str| {
            let mut text = OsString::from(format!(
                "memory-backend-file,id=ram,size={size}M,share={share},mem-path="
            ));
            // A comma in an option's value is doubled.
            text.push(path.to_string_lossy().replace(',', ",,"));
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
    pub fn start(&self, image: &Image, folder: &Path, inherit: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let life = vmdir::begin_life(folder)?;
        let mut inherit = inherit.to_vec();
        inherit.push(life.as_fd());
        let mut command = command(folder, &inherit, self.file_limit())?;
        let status = command
            .args(self.arguments(image))
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

/// QEMU as a command with nothing inherited: no signal mask (programs that
/// slurmctld starts block SIGTERM), no descriptors but those named, private files.
pub fn command(folder: &Path, inherit: &[BorrowedFd<'_>], file_limit: u64) -> Result<Command, Error> {
    let log = open_log(folder).map_err(|e| Error::io("write", &folder.join(LOG_FILE), e))?;
    let keep: Vec<RawFd> = inherit.iter().map(AsRawFd::as_raw_fd).collect();
    let mut command = Command::new(PROGRAM);
    command
        .env_clear()
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    // SAFETY: between fork and exec only async-signal-safe calls are made, on memory prepared before.
    unsafe {
        command.pre_exec(move || clean_slate(&keep, file_limit));
    }
    Ok(command)
}

/// QEMU for a machine that only says hello: it ends with the thread that waits for it.
pub fn hello_command(folder: &Path) -> Result<Command, Error> {
    let mut command = command(folder, &[], FILE_LIMIT)?;
    // SAFETY: one plain system call between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    Ok(command)
}

fn open_log(folder: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(folder.join(LOG_FILE))
}

fn clean_slate(keep: &[RawFd], file_limit: u64) -> io::Result<()> {
    let check = |result: libc::c_int| {
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    };
    // SAFETY: plain system calls; the signal set is initialised by sigemptyset before it is used.
    unsafe {
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        check(libc::sigemptyset(none.as_mut_ptr()))?;
        check(libc::sigprocmask(
            libc::SIG_SETMASK,
            none.as_ptr(),
            std::ptr::null_mut(),
        ))?;
        // A write beyond the limit fails then instead of killing QEMU.
        if libc::signal(libc::SIGXFSZ, libc::SIG_IGN) == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
        let limit = libc::rlimit {
            rlim_cur: file_limit,
            rlim_max: file_limit,
        };
        check(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit))?;
        libc::umask(0o077);
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        // Rights that a service was given for taps and exports are not QEMU's.
        check(libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        ))?;
        let closed = libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
        check(closed as libc::c_int)?;
        for fd in keep {
            check(libc::fcntl(*fd, libc::F_SETFD, 0))?;
        }
    }
    Ok(())
}

/// How much of a log's end is read, in bytes.
const END: u64 = 8 << 10;

/// The end of a log, if there is something.
pub fn end_of(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END))).ok()?;
    let mut bytes = Vec::new();
    file.take(END).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).replace('\r', "");
    Some(text).filter(|text| !text.trim().is_empty())
}

/// The last words in a log: at most five lines, on one.
pub fn tail(path: &Path) -> String {
    let Ok(bytes) = fs::read(path) else {
        return "it said nothing".to_owned();
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    match &lines[lines.len().saturating_sub(5)..] {
        [] => "it said nothing".to_owned(),
        last => last.join(" | "),
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
        let image = Image {
            digest: "d".into(),
            kernel: "/c/vmlinux".into(),
            compressed: "/boot/vmlinuz".into(),
            initramfs: "/c/initramfs.cpio".into(),
            kernel_release: "6.1".into(),
        };
        let list = machine.arguments(&image);
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

    #[test]
    fn nothing_is_inherited_by_accident() {
        let null = File::open("/dev/null").unwrap();
        // SAFETY: plain system call on an open descriptor; the copy is inherited.
        let leak = unsafe { libc::fcntl(null.as_raw_fd(), libc::F_DUPFD, 50) };
        assert!(leak >= 50);
        let mut child = Command::new("/bin/sh");
        child
            .arg("-c")
            .arg("ulimit -f; echo /proc/self/fd/*; grep -E 'SigBlk|CapAmb' /proc/self/status")
            .stdout(Stdio::piped());
        // SAFETY: as in `command`.
        unsafe { child.pre_exec(|| clean_slate(&[], FILE_LIMIT)) };
        let text = String::from_utf8(child.output().unwrap().stdout).unwrap();
        assert!(text.starts_with("2048\n"), "1 MiB in blocks of 512 bytes: {text}");
        assert!(text.contains("SigBlk:\t0000000000000000"), "{text}");
        assert!(text.contains("CapAmb:\t0000000000000000"), "{text}");
        assert!(!text.contains(&format!("/proc/self/fd/{leak}")), "{text}");
    }

    #[test]
    fn last_words_are_few() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        assert_eq!(tail(&log), "it said nothing");
        fs::write(&log, "1\n2\n3\n\n4\n5\n6\n").unwrap();
        assert_eq!(tail(&log), "2 | 3 | 4 | 5 | 6");
    }
}
