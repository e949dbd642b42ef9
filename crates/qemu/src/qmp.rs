//! QEMU's control socket: one question at a time, events kept on the way.
//! Reference: QEMU's `docs/interop/qmp-intro.rst`.

use crate::error::Error;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The first version that saves guests to files, and finds them there, by name.
const FILES_SINCE: (u64, u64) = (8, 2);

/// A connection to one QEMU.
pub struct Qmp {
    stream: BufReader<UnixStream>,
    events: Vec<String>,
    /// QEMU's major and minor version, as its greeting has it.
    version: (u64, u64),
}

impl Qmp {
    /// Connects to the socket `name` in `folder` and takes up the protocol.
    pub fn connect(folder: &Path, name: &str, limit: Duration) -> Result<Self, Error> {
        let stream = connect(folder, name).map_err(|e| Error::io("connect to", &folder.join(name), e))?;
        let mut qmp = Self {
            stream: BufReader::new(stream),
            events: Vec::new(),
            version: (0, 0),
        };
        let until = Instant::now() + limit;
        // The greeting comes first.
        let greeting = qmp.read(until)?;
        let version = &greeting["QMP"]["version"]["qemu"];
        let number = |name: &str| version[name].as_u64().unwrap_or_default();
        qmp.version = (number("major"), number("minor"));
        qmp.ask("qmp_capabilities", json!({}), limit)?;
        Ok(qmp)
    }

    /// Where QEMU saves a guest to, or has it from, as `migrate` and `migrate-incoming` are told:
    /// `path`, an absolute one, open as `file`. From 8.2 on QEMU opens it itself; older ones know
    /// open files alone, which 11.1 refuses ("migration to a file is not supported").
    pub fn state_file(&mut self, path: &Path, file: BorrowedFd<'_>, limit: Duration) -> Result<Value, Error> {
        if self.version >= FILES_SINCE {
            let address = json!({ "transport": "file", "filename": path.to_string_lossy(), "offset": 0 });
            return Ok(json!({ "channels": [{ "channel-type": "main", "addr": address }] }));
        }
        self.give("state", file, limit)?;
        Ok(json!({ "uri": "fd:state" }))
    }

    /// Gives a command and returns its answer.
    pub fn ask(&mut self, command: &str, arguments: Value, limit: Duration) -> Result<Value, Error> {
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        let until = Instant::now() + limit;
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .map_err(|e| said(command, &e.to_string()))?;
        loop {
            let mut message = self.read(until)?;
            if let Some(event) = message["event"].as_str() {
                self.events.push(event.to_owned());
            } else if let Some(why) = message["error"]["desc"].as_str() {
                return Err(said(command, why));
            } else {
                return Ok(message["return"].take());
            }
        }
    }

    /// Hands over an open file, which commands then name `fd:NAME`.
    fn give(&mut self, name: &str, file: BorrowedFd<'_>, limit: Duration) -> Result<(), Error> {
        // The file rides on a space, which QEMU skips; the command then takes the last one that came.
        let fds = [file];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut extra = SendAncillaryBuffer::new(&mut space);
        extra.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(
            self.stream.get_ref(),
            &[IoSlice::new(b" ")],
            &mut extra,
            SendFlags::NOSIGNAL,
        )
        .map_err(|e| said("getfd", &e.to_string()))?;
        self.ask("getfd", json!({ "fdname": name }), limit).map(drop)
    }

    /// Waits for an event, seen since the connection began.
    pub fn wait_for(&mut self, event: &str, limit: Duration) -> Result<(), Error> {
        let until = Instant::now() + limit;
        while !self.events.iter().any(|seen| seen == event) {
            let message = self.read(until)?;
            if let Some(seen) = message["event"].as_str() {
                self.events.push(seen.to_owned());
            }
        }
        Ok(())
    }

    fn read(&mut self, until: Instant) -> Result<Value, Error> {
        let left = until
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        let mut line = String::new();
        let read = self
            .stream
            .get_ref()
            .set_read_timeout(Some(left))
            .and_then(|()| self.stream.read_line(&mut line))
            .map_err(|e| said("listening", &e.to_string()))?;
        if read == 0 {
            return Err(said("listening", "QEMU is gone"));
        }
        serde_json::from_str(&line).map_err(|e| said("listening", &e.to_string()))
    }
}

fn said(command: &str, why: &str) -> Error {
    Error::Qemu(format!("QEMU did not do what it was told ({command}): {why}"))
}

/// Connects to a socket in a folder, however long the folder's path is: a
/// socket's address holds 107 bytes, and this one is short.
pub fn connect(folder: &Path, name: &str) -> io::Result<UnixStream> {
    let folder = std::fs::File::open(folder)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    /// Plays QEMU: sends `lines`, one per line that it reads, the first at once.
    fn fake(folder: &Path, lines: &'static [&'static str]) -> std::thread::JoinHandle<()> {
        let listener = UnixListener::bind(folder.join("s")).unwrap();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            for (at, line) in lines.iter().enumerate() {
                if at > 0 && reader.read_line(&mut String::new()).unwrap() == 0 {
                    return;
                }
                writeln!(&stream, "{line}").unwrap();
            }
        })
    }

    #[test]
    fn answers_errors_and_events_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let qemu = fake(
            folder.path(),
            &[
                r#"{"QMP":{}}"#,
                r#"{"return":{}}"#,
                "{\"event\":\"RESUME\"}\n{\"return\":{\"running\":true}}",
                r#"{"error":{"class":"GenericError","desc":"no such thing"}}"#,
            ],
        );
        let limit = Duration::from_secs(5);
        let mut qmp = Qmp::connect(folder.path(), "s", limit).unwrap();
        assert_eq!(
            qmp.ask("query-status", json!({}), limit).unwrap()["running"],
            true
        );
        qmp.wait_for("RESUME", limit).unwrap();
        let error = qmp.ask("nonsense", json!({}), limit).unwrap_err().to_string();
        assert!(
            error.contains("nonsense") && error.contains("no such thing"),
            "{error}"
        );
        qemu.join().unwrap();
        assert!(
            qmp.wait_for("STOP", limit)
                .unwrap_err()
                .to_string()
                .contains("gone")
        );
    }

    #[test]
    fn a_saved_guest_is_named_as_the_version_knows_it() {
        let limit = Duration::from_secs(5);
        let ask = |lines| {
            let folder = tempfile::tempdir().unwrap();
            let qemu = fake(folder.path(), lines);
            let mut qmp = Qmp::connect(folder.path(), "s", limit).unwrap();
            let file = std::fs::File::open("/dev/null").unwrap();
            let told = qmp
                .state_file(Path::new("/t/state"), file.as_fd(), limit)
                .unwrap();
            qemu.join().unwrap();
            told
        };
        let old = ask(&[
            r#"{"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7}}}}"#,
            r#"{"return":{}}"#,
            r#"{"return":{}}"#,
        ]);
        assert_eq!(old, json!({ "uri": "fd:state" }));
        for greeting in [
            &[
                r#"{"QMP":{"version":{"qemu":{"micro":0,"minor":2,"major":8}}}}"#,
                r#"{"return":{}}"#,
            ],
            &[
                r#"{"QMP":{"version":{"qemu":{"micro":2,"minor":1,"major":11}}}}"#,
                r#"{"return":{}}"#,
            ],
        ] {
            let new = ask(greeting);
            let address = &new["channels"][0]["addr"];
            assert_eq!(
                (&address["transport"], &address["filename"]),
                (&json!("file"), &json!("/t/state"))
            );
        }
    }

    #[test]
    fn a_silent_qemu_is_not_waited_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let _listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let started = Instant::now();
        assert!(Qmp::connect(folder.path(), "s", Duration::from_millis(50)).is_err());
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}
