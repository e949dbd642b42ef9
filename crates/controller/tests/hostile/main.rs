//! Hostile users of the machine against the controller's own program: they flood its
//! socket, ask for what is not theirs, and put things where they do not belong. The VMs
//! are those of a stand-in `oned`, Slurm's programs are stand-ins.
//!
//! Being several users needs root; without it these tests do what one user can show.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod files;
mod flood;
mod names;
mod people;

use std::io::{Read as _, Write as _};
use std::os::fd::IntoRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use thiao_testkit::day::Day;

/// A day whose folder everybody may enter, as /var/lib is.
fn open_day(nodes: usize) -> Day {
    let day = Day::new(nodes);
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(day.site.path(""), everybody).unwrap();
    day
}

/// The state folder by a way that is open to every user, also where /tmp or what TMPDIR
/// names is closed to them: this process has the folder open until it ends.
fn state(day: &Day) -> PathBuf {
    let folder = std::fs::File::open(day.site.path("")).unwrap();
    PathBuf::from(format!("/proc/self/fd/{}/state", folder.into_raw_fd()))
}

fn socket(day: &Day) -> PathBuf {
    state(day).join("api.sock")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Does this as another user: the kernel knows a thread by the user that it became.
fn as_user<T: Send>(uid: u32, act: impl FnOnce() -> T + Send) -> T {
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    let become_and_act = || {
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(group, group, group).unwrap();
        set_thread_res_uid(user, user, user).unwrap();
        act()
    };
    std::thread::scope(|scope| scope.spawn(become_and_act).join()).unwrap()
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Asks in so many bytes, and reads all that comes back.
fn raw(socket: &Path, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(socket);
    // Whom it turns away it does not listen to.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Asks, and returns the code and the body.
fn ask(socket: &Path, method: &str, path: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let answer = String::from_utf8(raw(socket, request.as_bytes())).unwrap();
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.unwrap(), body.to_owned())
}

/// Runs `thiao` with these words: its exit code, and what it printed.
fn thiao<S: AsRef<std::ffi::OsStr>>(day: &Day, args: impl IntoIterator<Item = S>) -> (i32, Vec<u8>, Vec<u8>) {
    let output = Command::new(thiao_testkit::program("thiao"))
        .args(args)
        .env("THIAO_CONFIG", day.site.path("thiao.toml"))
        .env("PATH", day.site.path("bin"))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    (output.status.code().unwrap(), output.stdout, output.stderr)
}

/// Nothing in it steers a terminal.
#[track_caller]
fn assert_harmless(text: &[u8]) {
    let text = String::from_utf8(text.to_vec()).unwrap();
    let odd = text.chars().find(|c| c.is_control() && *c != '\n');
    assert!(odd.is_none(), "{odd:?} in {text:?}");
}
