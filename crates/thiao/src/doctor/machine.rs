//! This machine, where it carries the VMs itself.

use super::Unseen;
use rustix::process::Pid;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use thiao_api::types::Status;
use thiao_core::finding::Finding;
use thiao_qemu::net::{Bridge, Network};
use thiao_qemu::{AccelChoice, Credentials, Settings};

/// What there is on this machine.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Whether /dev/kvm can be opened for writing; else why not.
    pub kvm: Result<(), Unseen>,
    /// The same of /dev/net/tun.
    pub tun: Result<(), Unseen>,
    pub bridge: BridgeSeen,
    /// Where `qemu-system-x86_64` is, if it was found.
    pub qemu: Option<PathBuf>,
    /// Whether the guests' program can be read.
    pub agent: Result<(), Unseen>,
    /// Whether the cluster's secret can be read.
    pub key: Result<(), Unseen>,
    /// Why VMs are emulated, as the controller has found by trying it.
    pub emulated: Option<String>,
}

/// What was seen of the bridge.
#[derive(Debug, Clone)]
pub enum BridgeSeen {
    /// It is there, where the controller's network is.
    There(Bridge),
    /// It is not there; whether a controller runs.
    Missing { controller: bool },
    /// Why it can be neither used nor made.
    Trouble(String),
}

impl BridgeSeen {
    fn of(network: &Network, controller: Option<Pid>) -> Self {
        let has = |of: &str| {
            let list = std::fs::read_to_string(format!("/proc/{of}/net/dev")).unwrap_or_default();
            list.lines()
                .filter_map(|line| line.split_once(':'))
                .any(|(device, _)| device.trim() == network.bridge)
        };
        let theirs = controller.is_some_and(|pid| has(&pid.as_raw_nonzero().to_string()));
        match (has("self"), theirs) {
            // As in a lab: what is here does not matter.
            (false, true) => Self::There(Bridge::Ours),
            (here, _) => match network.find_bridge() {
                Err(why) => Self::Trouble(why.to_string()),
                Ok(found) if here => Self::There(found),
                Ok(_) => Self::Missing {
                    controller: controller.is_some(),
                },
            },
        }
    }

    fn judge(&self, bridge: &str) -> Finding {
        const WHAT: &str = "bridge";
        match self {
            Self::There(Bridge::Ours | Bridge::Free) => Finding::ok(WHAT, format!("{bridge} is there")),
            Self::There(Bridge::Adopted) => Finding::ok(
                WHAT,
                format!("{bridge} is there; Thiao did not make it, and leaves it as it is"),
            ),
            Self::Missing { controller: true } => Finding::warn(
                WHAT,
                format!("{bridge} is gone: VMs that run have lost their network; thiaod makes it again within 10 s"),
            )
            .run("systemctl restart thiaod"),
            Self::Missing { controller: false } => Finding::warn(
                WHAT,
                format!("{bridge} is not there yet: thiaod makes it when it starts"),
            )
            .run("systemctl start thiaod"),
            Self::Trouble(why) => Finding::bad(WHAT, format!("no VM can be made: {why}"))
                .advice("and then: systemctl restart thiaod"),
        }
    }
}

/// Where the VMs' own program is looked for after PATH.
const USUAL_DIRS: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/usr/libexec"];

/// Observes this machine. A controller that runs may have a network of its own, as in a lab.
#[must_use]
pub fn observe(settings: &Settings, controller: Option<Pid>, status: Option<&Status>) -> Facts {
    let opened = |path: &str| {
        let open = OpenOptions::new().read(true).write(true).open(path);
        open.map_err(Unseen::from)?;
        // Root may open everything; the controller is somebody else.
        let user = controller.and_then(user_of);
        let meta = std::fs::metadata(path).map_err(Unseen::from)?;
        match user {
            Some(user) if !user.may_write(meta.uid(), meta.gid(), meta.mode()) => {
                let mode = meta.mode() & 0o777;
                Err(Unseen::new(format!(
                    "thiaod's user may not open it (mode {mode:04o})"
                )))
            }
            Some(_) | None => Ok(()),
        }
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    Facts {
        kvm: opened("/dev/kvm"),
        tun: opened("/dev/net/tun"),
        bridge: BridgeSeen::of(&settings.network, controller),
        qemu: std::env::split_paths(&path)
            .chain(USUAL_DIRS.iter().map(PathBuf::from))
            .map(|dir| dir.join("qemu-system-x86_64"))
            .find(|program| program.is_file()),
        agent: readable(&settings.agent),
        key: readable(settings.guest.credentials.file()),
        emulated: status.and_then(|status| status.emulated.clone()),
    }
}

/// Who a process is, to the kernel.
#[derive(Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    groups: Vec<u32>,
}

impl User {
    /// Reads what `/proc/PID/status` says.
    fn parse(status: &str) -> Option<Self> {
        let numbers = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            let numbers = line.split_whitespace().map(|number| number.parse().ok());
            numbers.collect::<Option<Vec<u32>>>()
        };
        let mut groups = numbers("Groups:")?;
        groups.extend(numbers("Gid:")?.get(1));
        let uid = *numbers("Uid:")?.get(1)?;
        Some(Self { uid, groups })
    }

    /// Whether it may read and write what is of this owner, group and mode.
    fn may_write(&self, owner: u32, group: u32, mode: u32) -> bool {
        let bits = match () {
            () if self.uid == 0 => return true,
            () if self.uid == owner => mode >> 6,
            () if self.groups.contains(&group) => mode >> 3,
            () => mode,
        };
        bits & 0o6 == 0o6
    }
}

fn user_of(process: Pid) -> Option<User> {
    let status = format!("/proc/{}/status", process.as_raw_nonzero());
    User::parse(&std::fs::read_to_string(status).ok()?)
}

/// The command that says how things are with the controller.
pub const LOOK: &str = "thiao status";

/// What is wrong with it.
#[must_use]
pub fn judge(facts: &Facts, settings: &Settings) -> Vec<Finding> {
    let kvm = kvm(facts, settings.accel);
    let tun = match &facts.tun {
        Ok(()) => Finding::ok("/dev/net/tun", "VMs can have network cards"),
        Err(why) => Finding::bad("/dev/net/tun", format!("cannot be opened: {why}"))
            .run("modprobe tun && chmod 666 /dev/net/tun")
            .unless_denied(why.denied),
    };
    let bridge = facts.bridge.judge(&settings.network.bridge);
    let qemu = match &facts.qemu {
        Some(program) => Finding::ok("QEMU", program.display().to_string()),
        None => {
            Finding::bad("QEMU", "qemu-system-x86_64 is not installed").run("apt install qemu-system-x86")
        }
    };
    let agent = match &facts.agent {
        Ok(()) => Finding::ok("guests' program", settings.agent.display().to_string()),
        Err(why) => Finding::bad("guests' program", format!("{}: {why}", settings.agent.display()))
            .advice("install thiao-guest there, or name it with qemu.agent")
            .unless_denied(why.denied),
    };
    let key = key(&settings.guest.credentials, &facts.key);
    vec![kvm, tun, bridge, qemu, agent, slurm(settings), key]
}

/// Whether VMs run by the processor's virtualisation: what the controller has tried counts, if it was tried.
fn kvm(facts: &Facts, accel: AccelChoice) -> Finding {
    match (&facts.kvm, accel, &facts.emulated) {
        (_, AccelChoice::Tcg, _) => Finding::ok("/dev/kvm", "is not used: qemu.accel is tcg"),
        (Ok(()), AccelChoice::Auto, Some(why)) => Finding::warn(
            "/dev/kvm",
            format!("can be opened, and yet VMs are emulated, several times slower: {why}"),
        )
        .advice(format!(
            "`{LOOK}` says what VMs run with. It is tried again with another kernel, QEMU or processor, or after \
             rm /var/cache/thiao/acceleration.json && systemctl restart thiaod"
        )),
        (Ok(()), AccelChoice::Auto | AccelChoice::Kvm, _) => Finding::ok(
            "/dev/kvm",
            format!(
                "can be opened: VMs run at full speed if a guest boots with it; thiaod tries that, and `{LOOK}` says \
                 how it went"
            ),
        ),
        (Err(why), AccelChoice::Kvm, _) => Finding::bad(
            "/dev/kvm",
            format!("qemu.accel is kvm, and it cannot be opened: {why}"),
        )
        .run("usermod -aG kvm slurm && systemctl restart thiaod")
        .unless_denied(why.denied),
        (Err(why), AccelChoice::Auto, _) => Finding::warn(
            "/dev/kvm",
            format!("cannot be opened ({why}): without it VMs are emulated, several times slower"),
        )
        .run("usermod -aG kvm slurm && systemctl restart thiaod")
        .unless_denied(why.denied),
    }
}

/// Whether the machine has the memory that the settings promise to VMs.
#[must_use]
pub fn memory(overpromised: Option<String>) -> Finding {
    match overpromised {
        None => Finding::ok("memory", "this machine has what its hosts promise to VMs"),
        Some(why) => Finding::bad("memory", why).advice("and then: systemctl restart thiaod"),
    }
}

/// Whether there is a Slurm for the guests.
fn slurm(settings: &Settings) -> Finding {
    match &settings.slurm {
        Ok(files) => Finding::ok("guests' Slurm", files.sbin.join("slurmd").display().to_string()),
        Err(why) => Finding::bad("guests' Slurm", why.clone())
            .advice("install Slurm's slurmd on this machine, or set slurm.bin_dir to where its clients are"),
    }
}

/// Whether the controller can give guests the cluster's secret.
#[must_use]
pub fn key(credentials: &Credentials, read: &Result<(), Unseen>) -> Finding {
    let (what, file) = (credentials.name(), credentials.file());
    match read {
        Ok(()) => Finding::ok(what, format!("{} can be read", file.display())),
        // systemd puts it there for the service alone, while it runs.
        Err(why) if file.starts_with("/run/credentials") => Finding::warn(
            what,
            format!(
                "{}: {why}: systemd puts it there while the controller runs",
                file.display()
            ),
        )
        .run("systemctl start thiaod")
        .unless_denied(why.denied),
        Err(why) => Finding::bad(
            what,
            format!("{}: {why}: guests could not join the cluster", file.display()),
        )
        .advice(match credentials {
            Credentials::Munge { .. } => {
                "set munge_key = \"/run/credentials/thiaod.service/munge.key\", which systemd hands to thiaod"
            }
            Credentials::Slurm { .. } => {
                "let the controller's user read it: it belongs to SlurmUser, and the controller should run as SlurmUser"
            }
        })
        .unless_denied(why.denied),
    }
}

/// Whether it can be read by who asks; else why not.
///
/// # Errors
/// What the system says.
pub fn readable(path: &Path) -> Result<(), Unseen> {
    Ok(File::open(path).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_bridge_the_truth_is_told() {
        let network = |bridge: &str| Network {
            bridge: bridge.to_owned(),
            address: [10, 254, 253, 1].into(),
            prefix_len: 29,
        };
        let judged = |bridge: &str, controller| BridgeSeen::of(&network(bridge), controller).judge(bridge);
        let absent = judged("thiao-none", None);
        assert!(absent.text.contains("makes it when it starts"), "{absent:?}");
        let own = Pid::from_raw(std::process::id().cast_signed());
        let gone = judged("thiao-none", own);
        assert!(gone.text.contains("is gone"), "{gone:?}");
        let other = judged("lo", own);
        assert_eq!(other.verdict, thiao_core::finding::Verdict::Bad);
        assert!(
            other.text.contains("lo exists already and is not a bridge"),
            "{other:?}"
        );
    }

    #[test]
    fn what_was_tried_counts_more_than_that_a_device_opens() {
        let facts = |emulated: Option<&str>| Facts {
            kvm: Ok(()),
            tun: Ok(()),
            bridge: BridgeSeen::There(Bridge::Ours),
            qemu: None,
            agent: Ok(()),
            key: Ok(()),
            emulated: emulated.map(str::to_owned),
        };
        let judged = |emulated, accel| kvm(&facts(emulated), accel).text;
        assert!(judged(None, AccelChoice::Auto).contains("VMs run at full speed"));
        let said = judged(Some("KVM is not usable: a guest hung"), AccelChoice::Auto);
        assert!(
            !said.contains("full speed")
                && said.contains("emulated, several times slower: KVM is not usable"),
            "{said}"
        );
        assert!(judged(Some("configured"), AccelChoice::Tcg).contains("is not used"));
    }

    #[test]
    fn devices_are_opened_as_the_controllers_user() {
        let status = "Name:\tthiaod\nUid:\t64030\t64030\t64030\t64030\nGid:\t64030\t64030\t64030\t64030\nGroups:\t108 64030 \n";
        let slurm = User::parse(status).unwrap();
        assert_eq!((slurm.uid, slurm.groups.len()), (64_030, 3));
        assert!(!slurm.may_write(0, 0, 0o600) && slurm.may_write(0, 0, 0o666));
        assert!(slurm.may_write(0, 108, 0o660) && !slurm.may_write(0, 108, 0o640));
        assert!(
            !slurm.may_write(64_030, 108, 0o066),
            "the owner's bits count alone"
        );
        let root = User::parse(&status.replace("64030", "0")).unwrap();
        assert!(root.may_write(1, 1, 0o000));
        assert_eq!(User::parse("Uid:\t1\n"), None);
    }
}
