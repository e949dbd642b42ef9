//! The machine itself fails under a stream of jobs: its disk is full and then cannot be
//! written, its clock is set, the VMs' bridge is removed, and a crowd talks to the socket. Nothing is killed by us, so no
//! job may be forgotten: each one completes.

use super::storm::Kills;
use super::{Helped, OPTIONS, comes_to_rest, under_jobs, with_shared_home};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use thiao_testkit::faketime;
use thiao_testkit::lab::{Lab, fresh_dir, text, thiao, wait};

/// How long each state of affairs lasts.
const WHILE: Duration = Duration::from_secs(6);

/// How far the clock is set, in seconds. Set back, it lets slurmctld take a booted node for one that
/// was up before it was asked for, and wait until its clock is where it was: no longer than we do.
/// Hours and days are tried on the controller alone (`tests/opennebula/clock.rs`).
const STEPS: [i64; 3] = [30, -30, 0];

/// Clients that come at once.
const CLIENTS: usize = 1_000;

pub fn fails() {
    let seed = super::seed();
    println!("a failing machine: seed {seed}");
    let clock = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    faketime::set(clock.path(), 0);
    let dir = fresh_dir();
    let shared = with_shared_home(&dir);
    let mut command = Command::new(thiao());
    command
        .args(["lab", "up", "--foreground", "--cold", "--dir"])
        .arg(&dir)
        .arg("--extra-config")
        .arg(shared.path())
        .args(OPTIONS)
        .envs(faketime::environment(clock.path()));
    let lab = Lab::start(command, dir);
    let disk = Disk::under(&lab);
    let (submitted, watch) = under_jobs(&lab, seed, || {
        std::thread::sleep(WHILE);
        disk.is_full_for(WHILE);
        std::thread::sleep(WHILE);
        disk.cannot_be_written_for(WHILE);
        std::thread::sleep(WHILE);
        for seconds in STEPS {
            faketime::set(clock.path(), seconds);
            std::thread::sleep(WHILE / 2);
        }
        // Those that run are cut off, and put on the next bridge: within ten seconds, or with the next VM.
        lab.admin(&["ip", "link", "delete", "dev", "thiao0"]);
        std::thread::sleep(2 * WHILE);
        flooded_for(&lab, WHILE);
    });
    let verdict = comes_to_rest(&lab, &submitted, watch, &Kills::default(), Helped::default());
    assert!(verdict.completed > 5, "hardly any job was taken");
    lab.down();
}

/// The state folder's disk.
struct Disk<'a> {
    lab: &'a Lab,
    folder: PathBuf,
}

impl<'a> Disk<'a> {
    /// Gives the state folder a disk of its own, before anything is in it that matters.
    fn under(lab: &'a Lab) -> Self {
        let folder = lab.dir.join("s");
        let disk = Self { lab, folder };
        disk.service("stop");
        disk.mount(&["-t", "tmpfs", "-o", "size=64m,mode=0755", "none"]);
        disk.service("start");
        wait("a controller on its new disk", 30, || {
            disk.answers().then_some(())
        });
        disk
    }

    fn is_full_for(&self, time: Duration) {
        let fill = self.folder.join("fill");
        let fill = fill.to_str().unwrap();
        let of = format!("of={fill}");
        let filled = self.lab.run_as_admin(&["dd", "if=/dev/zero", "bs=4k", &of]);
        assert!(text(&filled).contains("No space left"), "{}", text(&filled));
        std::thread::sleep(time);
        // Questions are answered, and told what the matter is.
        let status = self.lab.admin(&["thiao", "status"]);
        println!("with a full disk: {status}");
        self.lab.admin(&["rm", fill]);
    }

    /// VMs have files open that they go on writing, as on a disk that the kernel has set
    /// read-only. What is opened now finds it so: by the next controller, and by the hooks.
    fn cannot_be_written_for(&self, time: Duration) {
        self.service("stop");
        wait("the controller ends", 30, || (!self.answers()).then_some(()));
        let folder = self.folder.to_str().unwrap();
        self.mount(&["--bind", folder]);
        self.mount(&["-o", "remount,bind,ro"]);
        self.service("start");
        std::thread::sleep(time);
        self.lab.admin(&["umount", "--lazy", folder]);
        wait("a controller on a disk that it can write", 30, || {
            self.answers().then_some(())
        });
    }

    fn answers(&self) -> bool {
        self.lab.run_as_admin(&["thiao", "status"]).status.success()
    }

    fn service(&self, action: &str) {
        let done = self.lab.lab("service", &[action, "thiao"]);
        assert!(done.status.success(), "{action}: {}", text(&done));
    }

    fn mount(&self, how: &[&str]) {
        let place = self.folder.to_str().unwrap();
        self.lab.admin(&[&["mount"], how, &[place]].concat());
    }
}

/// A crowd comes to the socket: some say nothing, some nonsense, some ask and do not listen.
fn flooded_for(lab: &Lab, time: Duration) {
    // As the lab's programs see it: the disk is mounted there alone.
    let root = PathBuf::from(format!("/proc/{}/root", lab.keeper_pid()));
    let socket = root.join(lab.dir.join("s/api.sock").strip_prefix("/").unwrap());
    let until = Instant::now() + time;
    let mut crowd: Vec<UnixStream> = Vec::new();
    let mut asked = 0;
    while Instant::now() < until {
        while crowd.len() < CLIENTS {
            let Ok(mut client) = UnixStream::connect(&socket) else {
                break;
            };
            client.set_nonblocking(true).unwrap();
            let _ = match crowd.len() % 4 {
                0 => Ok(()),
                1 => client.write_all(&[0xff; 4_000]),
                2 => client.write_all("GET /v1/nodes HTTP/1.1\r\n\r\n".repeat(50).as_bytes()),
                _ => client.write_all(b"POST /v1/nodes/j[0-9999999]/suspend HTTP/1.1\r\nX: "),
            };
            crowd.push(client);
        }
        // Whoever asks in earnest is answered.
        lab.admin(&["thiao", "status"]);
        asked += 1;
        // Some leave, others come.
        crowd.drain(..crowd.len() / 2);
    }
    println!("asked {asked} times among {CLIENTS} others");
}
