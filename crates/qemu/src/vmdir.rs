//! A VM's folder: the one durable trace of a VM. Its name is the VM's id, and
//! making it is what decides who creates the VM.
//!
//! | in it | written by | means |
//! |---|---|---|
//! | `vm.json` | us, before QEMU starts | who and where it is |
//! | `slurmd.json` | us, before the guest hears it | which start of slurmd is due, and when |
//! | `people.json` | us, before QEMU starts and when people come | whom its guest knows, and which folders it sees |
//! | `life` | locked by QEMU while it lives | it runs: nothing else proves it |
//! | `pid` | QEMU | whom to kill |
//! | `timeline` | us | what it reached, and when |

use crate::error::Error;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use thiao_core::ids::{ClusterName, Generation, HostName, NodeName, Time, VmId, VmTag};
use thiao_core::view::VmState;
use thiao_guest::protocol::Phase;

const RECORD_FILE: &str = "vm.json";
const START_FILE: &str = "slurmd.json";
const PEOPLE_FILE: &str = "people.json";
const TIMELINE_FILE: &str = "timeline";
const LIFE_FILE: &str = "life";

/// Where QEMU writes its number. It is started in the folder and gets bare names: no
/// path is too long for a socket.
pub const PID_FILE: &str = "pid";
/// Where QEMU takes commands (QMP).
pub const QMP_SOCKET: &str = "qmp.sock";
/// The other end of the guest's channel.
pub const CHANNEL_SOCKET: &str = "channel.sock";
/// The guest's console, for a person who goes in.
pub const CONSOLE_SOCKET: &str = "console.sock";
/// What the guest writes on its console.
pub const CONSOLE_FILE: &str = "console.log";
/// What tells a guest who it is, where no channel does.
pub const CONTEXT_DISK: &str = "context.iso";
/// The disk with its system, where it is not in memory.
pub const ROOT_DISK: &str = "root.qcow2";
/// The disk for what its jobs write to `/tmp`.
pub const SCRATCH_DISK: &str = "tmp.qcow2";
/// What QEMU itself says.
pub const LOG_FILE: &str = "qemu.log";

/// The most CPUs of a VM: Slurm counts a node's with 16 bits.
const MOST_CPUS: u32 = 65_535;
/// The most memory of a VM, in MiB: a PiB. Sums over all VMs do not overflow.
const MOST_MEMORY_MB: u64 = 1 << 30;

/// How long QEMU may take to write its process id.
const COMING_UP: Duration = Duration::from_secs(5);

/// What is known about a VM before it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The host that carries it.
    pub host: String,
    pub cpus: u32,
    /// What Slurm promises on it, in MiB.
    pub memory_mb: u64,
    /// What it takes from its host, in MiB.
    pub total_mb: u64,
    /// Per vCPU, in percent of a core.
    pub share_percent: u32,
    /// Its address on the guests' network.
    pub address: Ipv4Addr,
    /// How its guest learns who it is.
    #[serde(default)]
    pub told: ContextBy,
    /// The one job that it is for, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<u32>,
    /// Of a heterogeneous job, its leader: its VMs are one group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<u32>,
    /// When it was asked for, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// The boot of this machine in which it was made ([`boot`]); empty where that was not written down.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
}

/// How a guest learns who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContextBy {
    /// On its channel; the hardware address goes with the address.
    #[default]
    Channel,
    /// By a disc that cloud-init reads; the hardware address goes with the address.
    Seed,
    /// By a context disk in its folder.
    Disk {
        /// Its card's hardware address.
        mac: [u8; 6],
    },
}

impl Record {
    /// Its host's name, unless a changed rule forbids it.
    pub fn host(&self) -> Option<HostName> {
        HostName::new(&self.host).ok()
    }

    /// Writes it into the VM's folder, as a whole and durably.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        write_whole(folder, RECORD_FILE, self)
    }

    /// Whether this machine was restarted since it was made: no VM lives on after that.
    pub fn is_of_an_earlier_boot(&self) -> bool {
        !self.boot.is_empty() && self.boot != boot()
    }

    /// Core share that it takes from its host, in percent of a core.
    pub fn cpu_percent(&self) -> u32 {
        self.cpus.saturating_mul(self.share_percent)
    }

    /// Reads it; `None` when it is not there, not whole, or of a size that no VM has.
    pub fn read(folder: &Path) -> Option<Self> {
        let record: Self = serde_json::from_slice(&fs::read(folder.join(RECORD_FILE)).ok()?).ok()?;
        let believable = record.cpus <= MOST_CPUS
            && record.share_percent <= 100
            && record.memory_mb.max(record.total_mb) <= MOST_MEMORY_MB;
        believable.then_some(record)
    }
}

/// What tells this boot of the machine from all others; empty if the kernel does not say.
pub fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_owned()
    })
}

/// The start of slurmd that a guest was told last, or is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlurmdStart {
    /// Which it is, from 1 on.
    pub number: u32,
    /// Not before then, in milliseconds since the Unix epoch.
    pub not_before_ms: u64,
}

impl SlurmdStart {
    /// Writes it into the VM's folder, as a whole and durably.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        write_whole(folder, START_FILE, self)
    }

    /// Reads it; `None` when none was due yet.
    pub fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(START_FILE)).ok()?).ok()
    }
}

/// Writes whom a VM's guest knows, as a whole and durably.
pub fn write_people(folder: &Path, people: &impl Serialize) -> Result<(), Error> {
    write_whole(folder, PEOPLE_FILE, people)
}

/// Reads that; `None` when it was never written.
pub fn read_people<T: for<'a> Deserialize<'a>>(folder: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(folder.join(PEOPLE_FILE)).ok()?).ok()
}

fn write_whole(folder: &Path, name: &str, what: &impl Serialize) -> Result<(), Error> {
    let (path, fresh) = (folder.join(name), folder.join(format!("{name}.new")));
    let text = serde_json::to_vec_pretty(what).map_err(|e| Error::io("write", &path, e.into()))?;
    private_file(&fresh)
        .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&fresh, &path))
        .map_err(|e| Error::io("write", &path, e))
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// Makes a folder that only we can enter, and those above it. False when it was there.
pub fn make_private(path: &Path) -> Result<bool, Error> {
    if let Some(above) = path.parent() {
        fs::create_dir_all(above).map_err(|e| Error::io("make", above, e))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(Error::io("make", path, e)),
    }
}

/// Makes a folder that only we can enter, or takes that from others who could until now.
pub fn keep_private(path: &Path) -> Result<(), Error> {
    if !make_private(path)? {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|e| Error::io("close to others", path, e))?;
    }
    Ok(())
}

/// The id of the VM that a tag names, which is its folder's name.
pub fn id_of(tag: &VmTag) -> Result<VmId, Error> {
    VmId::new(&format!("{}.{}", tag.node, tag.generation))
        .map_err(|_| Error::Refused(format!("the node name {} is too long for a VM's id", tag.node)))
}

/// The tag again: the folder is in our cluster's state, so the cluster is known.
pub fn tag_of(cluster: &ClusterName, id: &VmId) -> Option<VmTag> {
    let (node, generation) = id.as_str().rsplit_once('.')?;
    Some(VmTag {
        cluster: cluster.clone(),
        node: NodeName::new(node).ok()?,
        generation: Generation::parse(generation)?,
    })
}

/// Whether a QEMU runs for a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// None was ever started.
    NotStarted,
    /// One runs, or is just coming up.
    Alive,
    /// One ran, and has ended.
    Gone,
}

/// Locks a folder's life for the QEMU that is about to be started: it inherits
/// the open file, and the lock lasts as long as anybody has that. So a QEMU
/// counts as alive from before it exists until the kernel has taken it down,
/// whatever happens to us meanwhile.
pub fn begin_life(folder: &Path) -> Result<File, Error> {
    let path = folder.join(LIFE_FILE);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| Error::io("make", &path, e))?;
    let locked = lock_of(&file, libc::F_OFD_SETLK).map_err(|e| Error::io("lock", &path, e))?;
    debug_assert!(locked);
    // The number of a former QEMU must not be taken for the new one's.
    match fs::remove_file(folder.join(PID_FILE)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &folder.join(PID_FILE), e)),
        _ => Ok(file),
    }
}

/// Asks the kernel whether somebody holds the lock on a folder's life. No
/// process id is trusted: a number that was given to another process fools nobody.
pub fn life(folder: &Path) -> Result<Life, Error> {
    let path = folder.join(LIFE_FILE);
    // A write lock is asked about, which wants a descriptor for writing.
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Life::NotStarted),
        Err(e) => return Err(Error::io("read", &path, e)),
    };
    let locked = lock_of(&file, libc::F_OFD_GETLK).map_err(|e| Error::io("ask for the lock of", &path, e))?;
    Ok(if locked { Life::Alive } else { Life::Gone })
}

/// Takes a write lock on the whole file (`F_OFD_SETLK`) or asks whether another
/// open file has one (`F_OFD_GETLK`); true when there is one now.
fn lock_of(file: &File, command: libc::c_int) -> io::Result<bool> {
    // SAFETY: flock is plain data, for which all zeroes is a valid value: the whole file, from its start.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the structure is the one that the commands document, and lives through the call.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// The process id of a live QEMU.
pub fn pid(folder: &Path) -> Option<Pid> {
    let text = fs::read_to_string(folder.join(PID_FILE)).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

/// Waits until QEMU is gone; false when it is not within `limit`.
pub fn wait_gone(folder: &Path, limit: Duration) -> Result<bool, Error> {
    let until = Instant::now() + limit;
    loop {
        if life(folder)? != Life::Alive {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills QEMU. The process is held first and the lock asked for after: if it
/// still is locked then, what we hold is the process that locks it.
pub fn kill(folder: &Path) -> Result<(), Error> {
    let path = folder.join(PID_FILE);
    let until = Instant::now() + COMING_UP;
    let pid = loop {
        if life(folder)? != Life::Alive {
            return Ok(());
        }
        match pid(folder) {
            Some(pid) => break pid,
            // It lives and has not said its number yet.
            None if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            None => {
                return Err(Error::Qemu(format!(
                    "a QEMU runs for {}, under no known id",
                    folder.display()
                )));
            }
        }
    };
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(e) => return Err(Error::io("hold the process of", &path, e.into())),
    };
    if life(folder)? != Life::Alive {
        return Ok(());
    }
    match pidfd_send_signal(handle, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(e) => Err(Error::io("kill the process of", &path, e.into())),
    }
}

/// A line of the story: when, and what.
pub type Moment = (Time, String);

/// Adds a moment to the story on disk. The story is for people: losing a line of it harms nothing.
pub fn tell(folder: &Path, (time, what): &Moment) {
    let line = format!("{}\t{}\n", time.0, what.replace(['\n', '\t'], " "));
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(folder.join(TIMELINE_FILE));
    let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
}

/// The story so far.
pub fn story(folder: &Path) -> Vec<Moment> {
    let text = fs::read_to_string(folder.join(TIMELINE_FILE)).unwrap_or_default();
    let read = |line: &str| {
        let (time, what) = line.split_once('\t')?;
        Some((Time(time.parse().ok()?), what.to_owned()))
    };
    text.lines().filter_map(read).collect()
}

/// What decides a VM's state.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Somebody here is starting it.
    pub starting: bool,
    /// Somebody here is ending it.
    pub stopping: bool,
    /// Whether its QEMU runs.
    pub life: Life,
    /// Whether the machine was restarted since it was made.
    pub restarted: bool,
    /// Why QEMU keeps it still, if it does.
    pub paused: Option<&'a str>,
    /// What its guest reported, with what it said.
    pub reports: &'a [(Phase, Option<String>)],
}

impl Facts<'_> {
    /// The VM's state in the words that all providers share. `last_words` are
    /// asked for when it died before its slurmd ran.
    pub fn state(&self, last_words: impl FnOnce() -> String) -> VmState {
        let report = |phase| self.reports.iter().find(|(seen, _)| *seen == phase);
        let detail = |(phase, detail): &(Phase, Option<String>)| match detail {
            Some(detail) => format!("{}: {detail}", phase.as_str()),
            None => phase.as_str().to_owned(),
        };
        let failed = report(Phase::SlurmdEnded).or(report(Phase::Failed)).map(detail);
        let was_ready = report(Phase::Slurmd).is_some();
        match (self.life, failed) {
            _ if self.stopping => VmState::Stopping,
            // Its job's processes may outlive slurmd: not dead before QEMU is.
            (Life::Alive, Some(_)) => VmState::Stopping,
            (Life::Alive, None) if self.paused.is_some() => {
                VmState::Paused(self.paused.unwrap_or_default().to_owned())
            }
            (Life::Alive, None) if was_ready => VmState::Ready,
            (Life::Alive, None) => VmState::Booting,
            _ if self.starting => VmState::Pending,
            // Its life begins before QEMU does, and only one controller is here: nobody will start it any more.
            (Life::NotStarted, _) => VmState::Dead("QEMU was never started".to_owned()),
            (Life::Gone, _) if self.restarted => {
                VmState::Dead("this machine was restarted, which ended it".to_owned())
            }
            (Life::Gone, Some(why)) => VmState::Dead(why),
            (Life::Gone, None) if was_ready => VmState::Dead("QEMU ended or was killed".to_owned()),
            (Life::Gone, None) => VmState::Dead(format!(
                "QEMU ended before slurmd was started; last words: {}",
                last_words()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(life: Life) -> Facts<'static> {
        Facts {
            starting: false,
            stopping: false,
            life,
            restarted: false,
            paused: None,
            reports: &[],
        }
    }

    fn state(facts: Facts<'_>) -> VmState {
        facts.state(|| "oops".to_owned())
    }

    #[test]
    fn states_follow_from_facts() {
        let ready = [(Phase::Waiting, None), (Phase::Slurmd, None)];
        let ended = [
            (Phase::Slurmd, None),
            (Phase::SlurmdEnded, Some("signal 9".to_owned())),
        ];
        let failed = [(Phase::Failed, Some("no share".to_owned()))];
        assert_eq!(state(facts(Life::Alive)), VmState::Booting);
        assert_eq!(
            state(Facts {
                reports: &ready,
                ..facts(Life::Alive)
            }),
            VmState::Ready
        );
        assert_eq!(
            state(Facts {
                reports: &ready,
                paused: Some("no room"),
                ..facts(Life::Alive)
            }),
            VmState::Paused("no room".to_owned())
        );
        assert_eq!(
            state(Facts {
                reports: &ended,
                ..facts(Life::Alive)
            }),
            VmState::Stopping
        );
        assert_eq!(
            state(Facts {
                stopping: true,
                ..facts(Life::Alive)
            }),
            VmState::Stopping
        );
        assert_eq!(
            state(Facts {
                starting: true,
                ..facts(Life::NotStarted)
            }),
            VmState::Pending
        );
        let dead = |facts| match state(facts) {
            VmState::Dead(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(dead(facts(Life::NotStarted)).contains("never started"));
        assert!(dead(facts(Life::Gone)).contains("last words: oops"));
        assert_eq!(
            dead(Facts {
                reports: &ready,
                ..facts(Life::Gone)
            }),
            "QEMU ended or was killed"
        );
        let restarted = Facts {
            reports: &ready,
            restarted: true,
            ..facts(Life::Gone)
        };
        assert_eq!(dead(restarted), "this machine was restarted, which ended it");
        assert_eq!(
            dead(Facts {
                reports: &ended,
                ..facts(Life::Gone)
            }),
            "slurmd ended: signal 9"
        );
        assert_eq!(
            dead(Facts {
                reports: &failed,
                ..facts(Life::Gone)
            }),
            "guest failed: no share"
        );
    }

    #[test]
    fn a_lock_proves_life_and_a_number_does_not() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(life(folder.path()).unwrap(), Life::NotStarted);
        let held = begin_life(folder.path()).unwrap();
        assert_eq!(life(folder.path()).unwrap(), Life::Alive);
        assert!(begin_life(folder.path()).is_err(), "one QEMU for a folder");
        assert!(!wait_gone(folder.path(), Duration::from_millis(20)).unwrap());
        drop(held);
        assert!(wait_gone(folder.path(), Duration::ZERO).unwrap());
        // Our own number, but nobody holds the lock: nothing is killed.
        fs::write(folder.path().join(PID_FILE), format!("{}\n", std::process::id())).unwrap();
        assert_eq!(life(folder.path()).unwrap(), Life::Gone);
        kill(folder.path()).unwrap();
        // A new life begins without the old number.
        let _held = begin_life(folder.path()).unwrap();
        assert_eq!(pid(folder.path()), None);
    }

    #[test]
    fn a_child_keeps_the_life_that_it_inherits() {
        let folder = tempfile::tempdir().unwrap();
        let held = begin_life(folder.path()).unwrap();
        // As its standard input, which is inherited.
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stdin(held)
            .spawn()
            .unwrap();
        assert_eq!(life(folder.path()).unwrap(), Life::Alive);
        fs::write(folder.path().join(PID_FILE), child.id().to_string()).unwrap();
        kill(folder.path()).unwrap();
        assert!(wait_gone(folder.path(), Duration::from_secs(10)).unwrap());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn ids_and_tags_are_the_same_thing() {
        let cluster = ClusterName::new("c").unwrap();
        let tag = VmTag {
            cluster: cluster.clone(),
            node: NodeName::new("a.b").unwrap(),
            generation: Generation(3),
        };
        let id = id_of(&tag).unwrap();
        assert_eq!(id.as_str(), "a.b.3");
        assert_eq!(tag_of(&cluster, &id), Some(tag));
        for odd in ["junk", "a.18446744073709551615"] {
            assert_eq!(tag_of(&cluster, &VmId::new(odd).unwrap()), None);
        }
        let long = NodeName::new(&"n".repeat(63)).unwrap();
        assert!(
            id_of(&VmTag {
                cluster,
                node: long,
                generation: Generation(1)
            })
            .is_err()
        );
    }

    #[test]
    fn the_record_and_the_story_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(folder.path()), None);
        let record = Record {
            host: "h1".into(),
            cpus: 2,
            memory_mb: 200,
            total_mb: 320,
            share_percent: 50,
            address: Ipv4Addr::new(10, 0, 0, 2),
            told: ContextBy::Disk {
                mac: [2, 0, 10, 0, 0, 2],
            },
            job: Some(42),
            leader: Some(17),
            created_ms: 5,
            boot: "of before".into(),
        };
        assert!(record.is_of_an_earlier_boot());
        record.write(folder.path()).unwrap();
        assert_eq!(Record::read(folder.path()), Some(record));
        // As it was written before there were context disks.
        let former = r#"{"host":"h1","cpus":2,"memory_mb":2,"total_mb":3,"share_percent":1,"address":"10.0.0.2","created_ms":5}"#;
        fs::write(folder.path().join(RECORD_FILE), former).unwrap();
        let record = Record::read(folder.path()).unwrap();
        assert_eq!(record.told, ContextBy::Channel);
        assert!(!record.is_of_an_earlier_boot(), "that is not known");
        let of_now = Record {
            boot: boot().to_owned(),
            ..record
        };
        assert!(!of_now.is_of_an_earlier_boot() && boot().len() > 30);
        for (size, odd) in [
            ("cpus\":2", "cpus\":4294967295"),
            ("share_percent\":1", "share_percent\":4294967295"),
            ("total_mb\":3", "total_mb\":18446744073709551615"),
        ] {
            let text = former.replace(size, odd);
            assert_ne!(text, former);
            fs::write(folder.path().join(RECORD_FILE), text).unwrap();
            assert_eq!(Record::read(folder.path()), None, "{odd}");
        }
        tell(folder.path(), &(Time(7), "a\nb".to_owned()));
        tell(folder.path(), &(Time(8), "c".to_owned()));
        assert_eq!(
            story(folder.path()),
            [(Time(7), "a b".to_owned()), (Time(8), "c".to_owned())]
        );
        let made = folder.path().join("x/y");
        assert!(make_private(&made).unwrap() && !make_private(&made).unwrap());
        fs::set_permissions(&made, fs::Permissions::from_mode(0o755)).unwrap();
        keep_private(&made).unwrap();
        assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
