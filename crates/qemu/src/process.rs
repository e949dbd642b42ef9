//! QEMU as a process: started with nothing inherited, and what it said last.

use crate::error::Error;
use crate::machine::PROGRAM;
use crate::vmdir::LOG_FILE;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The most that QEMU may write to any one file, so that no guest fills the
/// disk through its console: 1 MiB.
pub const FILE_LIMIT: u64 = 1 << 20;

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

/// QEMU for a machine that is only tried: it ends with the thread that waits for it.
pub fn foreground(folder: &Path, file_limit: u64) -> Result<Command, Error> {
    let mut command = command(folder, &[], file_limit.max(FILE_LIMIT))?;
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

/// How much of a log stays that has become too long, in bytes.
const KEPT: u64 = 64 << 10;

/// Cuts a log that QEMU appends to to its last part, if it is longer than [`FILE_LIMIT`]: the kernel does not bound it
/// where a guest's disks may be long. Whether it was.
pub fn bound(path: &Path) -> io::Result<bool> {
    // What is there could be anything but a log, should QEMU be somebody else's.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    if fs::symlink_metadata(path)?.len() <= FILE_LIMIT {
        return Ok(false);
    }
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .custom_flags(flags)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(false);
    }
    let end = last(&mut file, KEPT)?;
    // What is said in between is lost, or stands before the rest.
    file.set_len(0)?;
    file.write_all(&end)?;
    Ok(true)
}

/// So many bytes at a file's end.
fn last(file: &mut File, most: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The end of a log, if there is something.
pub fn end_of(path: &Path) -> Option<String> {
    let bytes = last(&mut File::open(path).ok()?, END).ok()?;
    let text = String::from_utf8_lossy(&bytes).replace('\r', "");
    Some(text).filter(|text| !text.trim().is_empty())
}

/// The last words in a log: at most five lines, on one.
pub fn tail(path: &Path) -> String {
    let Ok(bytes) = File::open(path).and_then(|mut file| last(&mut file, END)) else {
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

    #[test]
    fn a_log_that_is_too_long_keeps_its_end_and_grows_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut qemu = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let length = || fs::metadata(&path).unwrap().len();
        qemu.write_all(&vec![b'a'; FILE_LIMIT as usize]).unwrap();
        assert!(!bound(&path).unwrap());
        assert_eq!(length(), FILE_LIMIT);
        qemu.write_all(b"\nlast words\n").unwrap();
        assert!(bound(&path).unwrap());
        assert_eq!(length(), KEPT);
        qemu.write_all(b"and more\n").unwrap();
        assert!(!bound(&path).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("aaa\nlast words\nand more\n"), "{}", text.len());
        // A link is nobody's log.
        let link = dir.path().join("link");
        let long = dir.path().join("long");
        fs::write(&long, vec![b'b'; FILE_LIMIT as usize + 1]).unwrap();
        std::os::unix::fs::symlink(&long, &link).unwrap();
        assert!(!bound(&link).unwrap_or_default());
        assert_eq!(fs::metadata(&long).unwrap().len(), FILE_LIMIT + 1);
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
