//! The API's client: one question, one answer, without threads or a runtime.
//! It speaks HTTP/1.0, so that an answer ends with its connection.

use crate::types::{
    Accepted, Event, Explanation, Give, Host, Job, JobStay, JobVm, JobVms, Node, PlanView, Problem, Status,
    Version, Vm,
};
use crate::{JobName, SOCKET, VERSION};
use rustix::process::Pid;
use serde::de::DeserializeOwned;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiao_core::options::VmOptions;

/// How long the controller may keep us waiting; longer than the server lets it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest answer, in bytes: 65,536 nodes at some 400 bytes each, twice.
const MAX_ANSWER: u64 = 64 << 20;

/// Where the controller is asked.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody serves the socket.
    #[error(
        "no controller answers at {socket} ({error}): is thiaod running? Start it with `systemctl start thiaod` or `thiao serve`"
    )]
    NoController {
        /// The socket, for people.
        socket: String,
        error: io::Error,
    },
    /// The way to the socket is barred.
    #[error(
        "you may not open {socket} ({error}): the state folder and those above it must be searchable (chmod o+x)"
    )]
    Barred {
        /// The socket, for people.
        socket: String,
        error: io::Error,
    },
    /// The conversation broke off.
    #[error(
        "the controller at {socket} broke off or was too slow ({error}): see its log (`journalctl -u thiaod`)"
    )]
    Broken {
        /// The socket, for people.
        socket: String,
        error: io::Error,
    },
    /// It speaks, but not our language.
    #[error("the answer of {socket} makes no sense to thiao {}: {why}; after an upgrade, restart thiaod", env!("CARGO_PKG_VERSION"))]
    Foreign {
        /// The socket, for people.
        socket: String,
        why: String,
    },
    /// It says no, and why.
    #[error("{error}")]
    Refused {
        code: u16,
        /// What the controller says, for people.
        error: String,
    },
}

impl ClientError {
    /// Whether no controller could be reached at all, as opposed to one that refuses.
    #[must_use]
    pub fn unreachable(&self) -> bool {
        match self {
            Self::NoController { .. } | Self::Barred { .. } | Self::Broken { .. } => true,
            Self::Foreign { .. } | Self::Refused { .. } => false,
        }
    }
}

impl Client {
    /// The client of the controller with this state folder. Nothing is connected yet.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self {
            socket: state_dir.join(SOCKET),
        }
    }

    /// Whether surely nobody serves the socket: it is missing, refuses, or takes nobody in within `limit`.
    #[must_use]
    pub fn is_absent(&self, limit: Duration) -> bool {
        use rustix::io::Errno;
        use rustix::net::sockopt::{Timeout, set_socket_timeout};
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
        let asked = || -> Result<(), Errno> {
            let address = SocketAddrUnix::new(&self.socket)?;
            let socket = socket_with(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )?;
            // It holds for connecting too, as unix(7) does not say: EAGAIN (Linux 6.1).
            set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
            connect(&socket, &address)
        };
        matches!(asked(), Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN))
    }

    /// The process that listens on the socket, if somebody does.
    #[must_use]
    pub fn controller(&self) -> Option<Pid> {
        let stream = UnixStream::connect(&self.socket).ok()?;
        let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
        Some(peer.pid)
    }

    /// How it goes.
    ///
    /// # Errors
    /// As all of these: when there is no answer, or it is a refusal.
    pub fn status(&self) -> Result<Status, ClientError> {
        self.get("/status")
    }

    /// All configured nodes.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn nodes(&self) -> Result<Vec<Node>, ClientError> {
        self.get("/nodes")
    }

    /// All VMs.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn vms(&self) -> Result<Vec<Vm>, ClientError> {
        self.get("/vms")
    }

    /// All hosts.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn hosts(&self) -> Result<Vec<Host>, ClientError> {
        self.get("/hosts")
    }

    /// The jobs that this user may see; `fresh`: also those that were submitted just now, for which Slurm is
    /// observed.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn jobs(&self, fresh: bool) -> Result<Vec<Job>, ClientError> {
        self.get(&format!("/jobs?fresh={fresh}"))
    }

    /// The newest events, or those after one; about one subject, or all.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn events(
        &self,
        limit: usize,
        after: Option<i64>,
        subject: Option<&str>,
    ) -> Result<Vec<Event>, ClientError> {
        let mut path = format!("/events?limit={limit}");
        if let Some(after) = after {
            path.push_str(&format!("&after={after}"));
        }
        if let Some(subject) = subject {
            path.push_str("&subject=");
            path.push_str(&encode(subject));
        }
        self.get(&path)
    }

    /// The story of a node, a VM or a job.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn explain(&self, name: &str) -> Result<Explanation, ClientError> {
        self.get(&format!("/explain/{}", encode(name)))
    }

    /// What would be done now.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn plan(&self) -> Result<PlanView, ClientError> {
        self.get("/plan")
    }

    /// Asks for nodes.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn resume(&self, hostlist: &str, force: bool) -> Result<Accepted, ClientError> {
        self.post(&format!("/nodes/{}/resume?force={force}", encode(hostlist)))
    }

    /// Gives nodes back.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn suspend(&self, hostlist: &str, force: bool) -> Result<Accepted, ClientError> {
        self.post(&format!("/nodes/{}/suspend?force={force}", encode(hostlist)))
    }

    /// Gives a queued job VMs of its own, with these options.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn give(&self, job: JobName, options: &VmOptions) -> Result<Accepted, ClientError> {
        let options = options.to_string();
        let body = serde_json::to_string(&Give { options }).unwrap_or_default();
        self.ask("POST", &format!("/v{VERSION}/jobs/{job}/give"), &body)
    }

    /// Lets a job's own VMs go.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn clean(&self, job: JobName) -> Result<Accepted, ClientError> {
        self.post(&format!("/jobs/{job}/clean"))
    }

    /// The VMs that a job had for itself.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn job_vms(&self, job: JobName) -> Result<JobVms, ClientError> {
        self.get(&format!("/jobs/{job}/vms"))
    }

    /// Which VMs the jobs that this user may see were on since that time: those after the stay with the id `after`,
    /// `limit` at most.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub fn jobs_nodes(&self, since: u64, after: i64, limit: usize) -> Result<Vec<JobStay>, ClientError> {
        self.get(&format!("/jobs/nodes?since={since}&after={after}&limit={limit}"))
    }

    /// The VMs that were there since that time for jobs that this user may see: those after the
    /// one with this id, at most `limit`.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn jobs_vms(&self, since: u64, after: i64, limit: usize) -> Result<Vec<JobVm>, ClientError> {
        self.get(&format!("/jobs/vms?since={since}&after={after}&limit={limit}"))
    }

    /// Which versions the controller speaks.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub fn version(&self) -> Result<Version, ClientError> {
        self.ask("GET", "/version", "")
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask("GET", &format!("/v{VERSION}{path}"), "")
    }

    fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask("POST", &format!("/v{VERSION}{path}"), "")
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, path: &str, body: &str) -> Result<T, ClientError> {
        let stream = UnixStream::connect(&self.socket).map_err(|error| {
            let socket = self.name();
            match error.kind() {
                io::ErrorKind::PermissionDenied => ClientError::Barred { socket, error },
                _ => ClientError::NoController { socket, error },
            }
        })?;
        let answer = converse(stream, method, path, body).map_err(|error| ClientError::Broken {
            socket: self.name(),
            error,
        })?;
        let foreign = |why: String| ClientError::Foreign {
            socket: self.name(),
            why,
        };
        let (code, body) = split(&answer).map_err(|why| foreign(why.to_owned()))?;
        if code != 200 {
            let problem: Problem =
                serde_json::from_slice(body).map_err(|e| foreign(format!("HTTP {code}, {e}")))?;
            return Err(ClientError::Refused {
                code,
                error: problem.error,
            });
        }
        serde_json::from_slice(body).map_err(|e| foreign(e.to_string()))
    }

    fn name(&self) -> String {
        self.socket.display().to_string()
    }
}

/// Sends a request and reads everything that comes back.
fn converse(mut stream: UnixStream, method: &str, path: &str, body: &str) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"),
    };
    let request =
        format!("{method} {path} HTTP/1.0\r\nHost: thiao\r\nAccept: application/json\r\n{length}\r\n{body}");
    // A server that turns us away may answer and close before it has read.
    let sent = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    if answer.is_empty() {
        sent?;
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

/// The code and the body of an answer, if it came whole.
fn split(answer: &[u8]) -> Result<(u16, &[u8]), &'static str> {
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .ok_or("it has no head")?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| "its head is no text")?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let code = lines
        .next()
        .filter(|line| line.starts_with("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .ok_or("it is not HTTP")?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    if length.is_some_and(|length| length != body.len()) {
        return Err("it is cut off");
    }
    Ok((code, body))
}

/// Percent-encodes all but letters, digits, '.', '_' and '-'.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        assert_eq!(
            split(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
            Ok((200, b"{}".as_slice()))
        );
        assert_eq!(
            split(b"HTTP/1.1 404 Not Found\r\n\r\nx"),
            Ok((404, b"x".as_slice()))
        );
        assert_eq!(
            split(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n{}"),
            Err("it is cut off")
        );
        assert_eq!(split(b"SSH-2.0\r\n\r\n"), Err("it is not HTTP"));
        assert_eq!(split(b"HTTP/1.0 200 OK\r\n"), Err("it has no head"));
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(encode("fg[0-3],a b"), "fg%5B0-3%5D%2Ca%20b");
    }

    #[test]
    fn an_absent_controller_is_noticed_at_once() {
        let limit = Duration::from_millis(200);
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(dir.path());
        assert!(client.is_absent(limit), "there is no socket");
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        assert!(!client.is_absent(limit));
        // One that takes nobody in, and has no place for more who wait.
        rustix::net::listen(&listener, 0).unwrap();
        // Whoever asks waits in its queue; not with `connect`, which would wait for ever.
        let asked = (0..10).find(|_| client.is_absent(limit));
        assert!(asked.is_some(), "the queue is never full");
        let start = std::time::Instant::now();
        assert!(client.is_absent(limit));
        assert!(
            (limit..limit * 20).contains(&start.elapsed()),
            "{:?}",
            start.elapsed()
        );
        drop(listener);
        assert!(client.is_absent(limit), "nobody listens any more");
    }

    #[test]
    fn an_absent_controller_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = Client::new(dir.path()).status().unwrap_err();
        assert!(error.unreachable());
        assert!(
            error.to_string().contains("is thiaod running? Start it with"),
            "{error}"
        );
        // A socket that nobody listens on any more.
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        let error = Client::new(dir.path()).status().unwrap_err();
        assert!(error.to_string().contains("Connection refused"), "{error}");
    }
}
