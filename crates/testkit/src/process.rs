//! Programs that are run to their end.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::time::Timespec;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Output, Stdio};

/// Runs it: its exit code, what it printed, and what it complained of.
#[track_caller]
pub fn run(command: &mut Command) -> (i32, String, String) {
    said(command.output().unwrap())
}

/// The same of a program that has ended.
#[track_caller]
pub fn said(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Runs it at a terminal, where somebody types what `answer` gives for a line that ends with "]: ", a question: its
/// exit code, and what stood there at the end. An answer ends with an end of the line, or of the input (`\x04`).
#[track_caller]
pub fn at_terminal<'a>(command: &mut Command, answer: impl Fn(&str) -> &'a [u8]) -> (i32, String) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let name = OsStr::from_bytes(name.as_bytes());
    let end = OpenOptions::new().read(true).write(true).open(name).unwrap();
    let mut child = command
        .stdin(end.try_clone().unwrap())
        .stdout(end.try_clone().unwrap())
        .stderr(end)
        .spawn()
        .unwrap();
    // As long as one end is open here, the other one hears of no end.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut terminal = File::from(terminal);
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let mut readable = [PollFd::new(&terminal, PollFlags::IN)];
        if poll(&mut readable, Some(&LONG)) == Ok(0) {
            child.kill().unwrap();
            panic!("it waits: {}", String::from_utf8_lossy(&text));
        }
        // The kernel's word for its end is EIO.
        let Ok(count @ 1..) = terminal.read(&mut part) else {
            break;
        };
        text.extend_from_slice(&part[..count]);
        let so_far = String::from_utf8_lossy(&text);
        let line = so_far.rsplit('\n').next().unwrap_or_default();
        if line.ends_with("]: ") {
            terminal.write_all(answer(line)).unwrap();
        }
    }
    let code = child.wait().unwrap().code().unwrap();
    (code, String::from_utf8_lossy(&text).replace("\r\n", "\n"))
}

/// How long nothing may happen at a terminal.
const LONG: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};
