//! Programs in a process group of their own: what they signal to their group (mmdebstrap sends SIGHUP to its own
//! when it cannot write) is not for this process, and what interrupts this process is passed on to all of them.

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often is looked whether this process was interrupted.
const LOOK: Duration = Duration::from_millis(100);

/// How long programs may take to clean up once they were told to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long is waited for words of others once the program itself has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs a program to its end and passes on each line of its standard error. When `interrupted` names a signal, the
/// whole group gets it. Nothing of the group is left.
///
/// # Errors
/// When it cannot be started, or is lost sight of.
pub fn run(
    command: &mut Command,
    line: &mut dyn FnMut(String),
    interrupted: &dyn Fn() -> Option<i32>,
) -> io::Result<ExitStatus> {
    let mut child = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let group = Pid::from_child(&child);
    let lines = child.stderr.take().map(lines_of);
    follow(&child, lines, line, interrupted);
    // It has ended and was not waited for yet: its number is nobody else's.
    let _ = kill_process_group(group, Signal::KILL);
    child.wait()
}

/// Gives a program that root runs mounts of its own: what it mounts is gone with it, however it ends. Where that is
/// not allowed, it has those of all.
pub fn with_own_mounts(command: &mut Command) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // SAFETY: between fork and exec two plain system calls are made, on values that are there already.
    unsafe {
        command.pre_exec(|| {
            if unshare_unsafe(UnshareFlags::NEWNS).is_ok() {
                let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
                mount_change(c"/", flags)?;
            }
            Ok(())
        });
    }
}

/// Returns when the program has ended.
fn follow(
    child: &Child,
    lines: Option<Receiver<String>>,
    line: &mut dyn FnMut(String),
    interrupted: &dyn Fn() -> Option<i32>,
) {
    let group = Pid::from_child(child);
    let mut told: Option<Instant> = None;
    let mut ended: Option<Instant> = None;
    let mut lines = lines;
    loop {
        match lines.as_ref().map(|lines| lines.recv_timeout(LOOK)) {
            Some(Ok(words)) => line(words),
            Some(Err(RecvTimeoutError::Timeout)) => {}
            // Nobody speaks any more.
            Some(Err(RecvTimeoutError::Disconnected)) => lines = None,
            None if has_ended(group) => return,
            None => std::thread::sleep(LOOK),
        }
        if ended.is_none() && has_ended(group) {
            ended = Some(Instant::now());
        }
        if ended.is_some_and(|since| since.elapsed() > LAST_WORDS) {
            return;
        }
        match (told, interrupted().and_then(Signal::from_named_raw)) {
            (None, Some(signal)) => {
                let _ = kill_process_group(group, signal);
                told = Some(Instant::now());
            }
            (Some(since), _) if since.elapsed() > PATIENCE => {
                let _ = kill_process_group(group, Signal::KILL);
            }
            (None, None) | (Some(_), _) => {}
        }
    }
}

/// Whether the first of the group has ended; it is still to be waited for.
fn has_ended(first: Pid) -> bool {
    let how = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    !matches!(waitid(WaitId::Pid(first), how), Ok(None))
}

/// The lines of a stream as they come, whatever their bytes.
fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut bytes = Vec::new();
        while stream
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|length| length > 0)
        {
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            if tell.send(text).is_err() {
                return;
            }
            bytes.clear();
        }
    });
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::os::unix::process::ExitStatusExt as _;

    fn sh(script: &str, interrupted: &dyn Fn(&[String]) -> Option<i32>) -> (ExitStatus, Vec<String>) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let words = std::cell::RefCell::new(Vec::new());
        let status = run(&mut command, &mut |line| words.borrow_mut().push(line), &|| {
            interrupted(&words.borrow())
        });
        (status.unwrap(), words.into_inner())
    }

    #[test]
    fn a_program_that_signals_its_group_does_not_end_this_one() {
        let (status, words) = sh("echo one >&2; kill -HUP 0; sleep 100", &|_| None);
        assert_eq!((status.signal(), words), (Some(1), vec!["one".to_owned()]));
    }

    #[test]
    fn what_root_mounts_for_a_program_is_not_seen_elsewhere() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", "mount -t tmpfs none \"$1\" && touch \"$1\"/in-it", "sh"])
            .arg(dir.path());
        with_own_mounts(&mut command);
        let mut words = Vec::new();
        let status = run(&mut command, &mut |line| words.push(line), &|| None).unwrap();
        // Where root may not mount, there is nothing to see.
        assert!(status.success() || !words.is_empty());
        assert!(!dir.path().join("in-it").exists());
    }

    #[test]
    fn the_whole_group_is_interrupted_and_cleans_up() {
        let script =
            "trap 'echo cleaned >&2; exit 1' TERM; (trap - TERM; exec sleep 100) & echo here >&2; wait";
        let told = Cell::new(0);
        let (status, words) = sh(script, &|words| {
            told.set(told.get() + 1);
            (!words.is_empty()).then_some(libc::SIGTERM)
        });
        assert_eq!(status.code(), Some(1));
        assert_eq!(words, ["here", "cleaned"]);
    }

    #[test]
    fn nothing_of_the_group_is_left_and_nobody_is_waited_for() {
        let (status, words) = sh("sleep 1000 & echo $! >&2; exit 3", &|_| None);
        assert_eq!(status.code(), Some(3));
        let left = || std::fs::read_to_string(format!("/proc/{}/stat", words[0])).unwrap_or_default();
        let begun = Instant::now();
        while !(left().is_empty() || left().contains(") Z ")) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", left());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn words_that_are_no_text_do_not_stop_it() {
        let (status, words) = sh("printf '\\377\\n' >&2; seq 100000 >&2; exit 0", &|_| None);
        assert!(status.success());
        assert_eq!((words.len(), words[100_000].as_str()), (100_001, "100000"));
    }
}
