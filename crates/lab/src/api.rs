//! The lab's questions to its own controller.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use thiao_api::types::{Event, Explanation, Status, Vm};

/// The controller's status; none while it does not answer.
pub fn status(socket: &Path) -> Option<Status> {
    serde_json::from_slice(&get(socket, "/v1/status")?).ok()
}

/// Events after number `after`, oldest first; none while the controller does not answer.
pub fn events(socket: &Path, after: i64) -> Option<Vec<Event>> {
    serde_json::from_slice(&get(socket, &format!("/v1/events?limit=1000&after={after}"))?).ok()
}

/// All VMs; none while the controller does not answer.
pub fn vms(socket: &Path) -> Option<Vec<Vm>> {
    serde_json::from_slice(&get(socket, "/v1/vms")?).ok()
}

/// What holds of a node; none while the controller does not answer, or knows no such node.
pub fn explain(socket: &Path, node: &str) -> Option<Explanation> {
    serde_json::from_slice(&get(socket, &format!("/v1/explain/{node}"))?).ok()
}

/// One request on one connection. The keeper has no other threads and must get none,
/// so this is no place for an asynchronous client.
fn get(socket: &Path, path: &str) -> Option<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(5))).ok()?;
    // HTTP/1.0: the answer ends with the connection and is never chunked.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: thiao\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.take(64 << 20).read_to_end(&mut answer).ok()?;
    body_of(&answer).map(<[u8]>::to_vec)
}

/// The body of a successful answer.
fn body_of(answer: &[u8]) -> Option<&[u8]> {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let ok = answer.starts_with(b"HTTP/1.") && answer.get(9..12) == Some(b"200");
    ok.then(|| &answer[head + 4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_success_has_a_body() {
        assert_eq!(
            body_of(b"HTTP/1.1 200 OK\r\na: b\r\n\r\n{}"),
            Some(b"{}".as_slice())
        );
        assert_eq!(body_of(b"HTTP/1.1 503 No\r\n\r\n{}"), None);
        assert_eq!(body_of(b"HTTP/1.1 200 OK\r\n"), None);
        assert_eq!(body_of(b""), None);
    }
}
