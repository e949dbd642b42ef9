//! Exports as processes: started, adopted, killed, started again, ended, each under its share's user.

#![allow(clippy::unwrap_used, reason = "these helpers fail their test by it")]

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use thiao_nfs::{ExportError, Exports, Folder, PORTS, SUBCOMMAND, child};
use thiao_testkit::isolated::{ip, isolated};
use thiao_testkit::nfs::{Client, Handle};
use thiao_testkit::wait::until;

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// What the stand-in for `thiao` hands the arguments over by.
const ARGUMENTS: [&str; 5] = [
    "THIAO_TEST_SUBCOMMAND",
    "THIAO_TEST_FOLDER",
    "THIAO_TEST_BIND",
    "THIAO_TEST_UID",
    "THIAO_TEST_GID",
];

/// A user that the machine does not know; inside a user namespace, the one that there is.
fn user() -> u32 {
    let whole = fs::read_to_string("/proc/self/uid_map")
        .unwrap()
        .split_whitespace()
        .last()
        == Some("4294967295");
    if whole { 54_321 } else { 0 }
}

/// Not a test of its own: the process that `thiao nfs-export` is, started by [`Exported::thiao`].
#[test]
#[ignore = "started by the other tests"]
fn the_export_itself() {
    let given: Option<Vec<OsString>> = ARGUMENTS.into_iter().map(std::env::var_os).collect();
    let Some(given) = given else { return };
    assert_eq!(given[0], SUBCOMMAND);
    // The test harness has its own output at 1; descriptor 3 is what the controller listens to.
    // SAFETY: the wrapper opened 3, and nobody else in this process knows of it.
    let out = unsafe { std::os::fd::BorrowedFd::borrow_raw(3) };
    rustix::stdio::dup2_stdout(out).unwrap();
    if given[1].to_string_lossy().ends_with("/by-service") {
        become_service();
    }
    let _ = child(&given[1..]);
    std::process::exit(1);
}

/// The user whom a service runs as.
const SERVICE: u32 = 54_322;

/// What systemd does for a service with `User=` and `AmbientCapabilities=`; for this thread alone, because rights are
/// each thread's own.
fn become_service() {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities};
    set_keep_capabilities(true).unwrap();
    // SAFETY: plain numbers.
    assert_eq!(unsafe { libc::syscall(libc::SYS_setuid, SERVICE) }, 0);
    let rights = CapabilitySet::SETUID | CapabilitySet::SETGID;
    let sets = CapabilitySets {
        effective: rights,
        permitted: rights,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).unwrap();
}

struct Exported {
    dir: TempDir,
}

impl Exported {
    fn new() -> Self {
        ip(&["link", "set", "lo", "up"]);
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let world = Self { dir };
        let sets: String = ARGUMENTS
            .iter()
            .zip(1..)
            .map(|(name, i)| format!("{name}=\"${i}\" "))
            .collect();
        let binary = std::env::current_exe().unwrap();
        let script = format!(
            "#!/bin/sh\n{sets} exec '{}' --exact the_export_itself --ignored --nocapture 3>&1 >/dev/null\n",
            binary.display()
        );
        fs::write(world.thiao(), script).unwrap();
        fs::set_permissions(world.thiao(), fs::Permissions::from_mode(0o755)).unwrap();
        world
    }

    fn thiao(&self) -> PathBuf {
        self.dir.path().join("thiao")
    }

    /// A share of a new folder that its user owns.
    fn share(&self, name: &str, uid: u32) -> Folder {
        let source = self.dir.path().join(name);
        fs::create_dir_all(&source).unwrap();
        chown(&source, Some(uid), Some(uid)).unwrap();
        fs::set_permissions(&source, fs::Permissions::from_mode(0o700)).unwrap();
        Folder {
            path: source,
            uid,
            gid: uid,
        }
    }

    fn start(&self, shares: &[Folder]) -> Result<Exports, ExportError> {
        Exports::start(shares, HERE, &self.thiao(), self.dir.path())
    }

    /// Pids of the exports, by the kernel's word.
    fn pids(&self) -> Vec<i32> {
        let ours = |pid: i32| {
            let record = fs::read_link(format!("/proc/{pid}/fd/0")).unwrap_or_default();
            record.starts_with(self.dir.path().join("exports"))
        };
        let all = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
        all.filter(|&pid| ours(pid)).collect()
    }
}

fn kill(pid: i32) {
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
}

fn write(nfs: &mut Client, name: &str, text: &str) -> Handle {
    let root = nfs.root.clone();
    let (file, _) = nfs.create(&root, name, 0o640).unwrap();
    nfs.write(&file, 0, text.as_bytes(), 0).unwrap();
    file
}

#[test]
fn exports_act_as_their_users() {
    isolated("exports_act_as_their_users", || {
        let world = Exported::new();
        let (alice, root) = (world.share("alice", user()), world.share("root", 0));
        let exports = world.start(&[alice.clone(), root.clone()]).unwrap();
        assert_ne!(exports.port(0), exports.port(1));
        let mut nfs = Client::mount(HERE, exports.port(0));
        let root_of_export = nfs.root.clone();
        write(&mut nfs, "file", "by root of the guest");
        let made = fs::metadata(alice.path.join("file")).unwrap();
        assert_eq!(
            (made.uid(), made.gid(), made.mode() & 0o7777),
            (alice.uid, alice.gid, 0o640)
        );
        nfs.caller = Some((alice.uid, alice.gid));
        let file = write(&mut nfs, "own", "by the user");
        assert_eq!(nfs.getattr(&file).unwrap().uid, alice.uid);
        if alice.uid != 0 {
            // What the user may not do on the machine, nobody may through the export.
            fs::write(alice.path.join("foreign"), "root's").unwrap();
            fs::set_permissions(alice.path.join("foreign"), fs::Permissions::from_mode(0o600)).unwrap();
            nfs.caller = Some((0, 0));
            let (foreign, seen) = nfs.lookup(&root_of_export, "foreign").unwrap();
            assert_eq!(seen.uid, 0);
            assert_eq!(
                nfs.read(&foreign, 0, 1).unwrap_err(),
                thiao_testkit::nfs::status::ACCES
            );
            assert!(nfs.setattr(&foreign, Some(0o666), None).is_err());
            // But his own read-only files he writes on, as programs do that made them so.
            let (sealed, _) = nfs.create(&root_of_export, "sealed", 0o444).unwrap();
            nfs.write(&sealed, 0, b"1", 0).unwrap();
            let pids = world.pids();
            let status = fs::read_to_string(format!("/proc/{}/status", pids[0])).unwrap()
                + &fs::read_to_string(format!("/proc/{}/status", pids[1])).unwrap();
            assert!(status.contains("Uid:\t54321\t54321\t54321\t54321"), "{status}");
            assert!(
                status.contains("CapEff:\t0000000000000000") && status.contains("Groups:\t54321"),
                "{status}"
            );
            pids.into_iter().for_each(kill);
            until("their end", || world.pids().is_empty());
            let mut exports = exports;
            exports.tend().unwrap();
            let mut nfs = Client::mount(HERE, exports.port(0));
            nfs.write(&sealed, 1, b"2", 0).unwrap();
            assert_eq!(fs::read_to_string(alice.path.join("sealed")).unwrap(), "12");
            assert_eq!(
                fs::metadata(alice.path.join("sealed")).unwrap().mode() & 0o7777,
                0o444
            );
            return exports.stop().unwrap();
        }
        exports.stop().unwrap();
    });
}

#[test]
fn a_service_needs_two_rights_and_not_to_be_root() {
    isolated("a_service_needs_two_rights_and_not_to_be_root", || {
        if user() == 0 {
            // One user only: nobody to become.
            return;
        }
        let world = Exported::new();
        let share = world.share("by-service", user());
        let exports = world.start(std::slice::from_ref(&share)).unwrap();
        let mut nfs = Client::mount(HERE, exports.port(0));
        write(&mut nfs, "file", "text");
        assert_eq!(fs::metadata(share.path.join("file")).unwrap().uid(), share.uid);
        let pid = world.pids()[0];
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        for line in [
            "Uid:\t54321\t54321\t54321\t54321",
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
        ] {
            assert!(status.contains(line), "{line} not in {status}");
        }
        exports.stop().unwrap();
    });
}

#[test]
fn exports_outlive_the_controller_and_come_back_on_their_ports() {
    isolated(
        "exports_outlive_the_controller_and_come_back_on_their_ports",
        || {
            let world = Exported::new();
            let shares = [world.share("a", user()), world.share("b with space", user())];
            let exports = world.start(&shares).unwrap();
            let ports = [exports.port(0), exports.port(1)];
            let mut nfs = Client::mount(HERE, ports[1]);
            let file = write(&mut nfs, "file", "text");
            let pids = world.pids();
            assert_eq!(pids.len(), 2);

            // The controller goes; another adopts what runs, in whatever order its shares are.
            drop(exports);
            let [a, b] = shares;
            let mut exports = world.start(&[b.clone(), a.clone()]).unwrap();
            assert_eq!([exports.port(1), exports.port(0)], ports);
            assert_eq!(world.pids(), pids, "the same processes");
            exports.tend().unwrap();
            assert_eq!(world.pids(), pids);
            assert_eq!(nfs.read(&file, 0, 9).unwrap().0, b"text");

            // They are killed: started again, same ports, same handles.
            pids.iter().copied().for_each(kill);
            until("their end", || world.pids().is_empty());
            exports.tend().unwrap();
            assert_eq!([exports.port(1), exports.port(0)], ports);
            assert_eq!(world.pids().len(), 2);
            let mut again = Client::mount(HERE, ports[1]);
            assert_eq!(again.root, nfs.root);
            assert_eq!(again.read(&file, 0, 9).unwrap().0, b"text");

            // The port is taken meanwhile: another one, rather than none.
            world.pids().into_iter().for_each(kill);
            until("their end", || world.pids().is_empty());
            drop((again, nfs));
            let mut taken = None;
            until("the port", || {
                taken = std::net::TcpListener::bind((HERE, ports[0])).ok();
                taken.is_some()
            });
            exports.tend().unwrap();
            assert_ne!(exports.port(1), ports[0]);
            assert_eq!(exports.port(0), ports[1]);
            assert!(PORTS.contains(&exports.port(1)) && PORTS.contains(&exports.port(0)));
            drop(taken);

            // One alone, beside another that goes on.
            let one = world.start(std::slice::from_ref(&b)).unwrap();
            assert_eq!(one.port(0), ports[1]);
            one.end().unwrap();
            assert_eq!(world.pids().len(), 1);
            exports.tend().unwrap();

            // Ended whole, also one whose share is no longer configured.
            drop(exports);
            let exports = world.start(&[a]).unwrap();
            assert_eq!(world.pids().len(), 2);
            exports.stop().unwrap();
            assert!(world.pids().is_empty());
        },
    );
}

#[test]
fn what_cannot_be_exported_is_said() {
    isolated("what_cannot_be_exported_is_said", || {
        let world = Exported::new();
        let share = world.share("gone", user());
        fs::remove_dir(&share.path).unwrap();
        let error = world.start(std::slice::from_ref(&share)).unwrap_err().to_string();
        assert!(
            error.contains("No such file") && error.contains("gone"),
            "{error}"
        );
        let share = world.share("gone", user());
        let one = std::slice::from_ref(&share);
        let error = Exports::start(one, Ipv4Addr::new(10, 99, 0, 1), &world.thiao(), world.dir.path());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("10.99.0.1") && error.contains("bridge"), "{error}");
        let error = Exports::start(one, HERE, Path::new("/nonexistent"), world.dir.path());
        assert!(matches!(error, Err(ExportError::Start { .. })));
        let error = Exports::start(one, HERE, Path::new("/bin/true"), world.dir.path()).unwrap_err();
        assert!(error.to_string().contains("said nothing"), "{error}");
        assert!(world.pids().is_empty());
        if share.uid != 0 {
            fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
            let error = world.start(one).unwrap_err().to_string();
            assert!(error.contains("Permission denied"), "{error}");
        }
    });
}

#[test]
fn the_state_is_private() {
    isolated("the_state_is_private", || {
        let world = Exported::new();
        let exports = world.start(&[world.share("a", user())]).unwrap();
        let folder = world.dir.path().join("exports");
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        for file in fs::read_dir(&folder).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
        }
        exports.stop().unwrap();
        assert_eq!(child(&[]), std::process::ExitCode::FAILURE);
    });
}
