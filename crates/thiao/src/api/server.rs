//! The API's server: who may come in, how long he may stay, what he may see.
//!
//! Connections are bounded in number (per user and in all), in the size of
//! their heads and in time. Nothing here keeps state of the controller: every
//! answer is asked for over the channel.
//!
//! *Architecture invariant:* permissions are decided here and nowhere else, by
//! the kernel's peer credentials; the controller answers all that is asked.

mod doors;
mod routes;

use super::{Query, Viewer};
use doors::Doors;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// What an asker may take of us.
#[derive(Debug, Clone)]
struct Limits {
    /// How long he may take to send a request's head, also between two requests.
    head: Duration,
    /// How long the controller may take to answer, where nothing is waited for.
    answer: Duration,
    /// Connections in all.
    connections: usize,
    /// Connections of users that are not trusted, in all.
    others: usize,
    /// Connections of one such user.
    per_user: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            answer: Duration::from_secs(15),
            // One per job that waits in its prolog.
            connections: 4096,
            others: 256,
            per_user: 32,
        }
    }
}

/// The largest head of a request, in bytes. A hostlist of many odd names is in it.
const MAX_HEAD: usize = 64 << 10;

/// The most lines of a request's head.
const MAX_HEADERS: usize = 32;

/// The uid that the kernel shows for users it cannot map into this user namespace.
const OVERFLOW_UID: u32 = 65_534;

/// Serves the API on this socket until dropped. A socket that is left from an earlier
/// controller is replaced: the caller holds the state folder's lock.
///
/// # Errors
/// When the socket cannot be made.
pub async fn serve(socket: PathBuf, queries: mpsc::Sender<Query>) -> io::Result<()> {
    let files = more_files();
    let mut limits = Limits::default();
    // The rest is for the controller's own files and children.
    limits.connections = limits.connections.min(files / 2);
    listen(bind(&socket)?, queries, limits).await
}

/// Makes the socket: everybody may connect, the credentials decide.
fn bind(socket: &Path) -> io::Result<UnixListener> {
    let explain = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", socket.display()));
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(explain(e)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(explain)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).map_err(explain)?;
    Ok(listener)
}

/// Allows this process as many open files as it may have, and says how many: each waiting prolog is one.
fn more_files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let most = now.maximum.unwrap_or(1 << 20).min(1 << 20);
    let wanted = Rlimit {
        current: Some(most),
        maximum: now.maximum,
    };
    let files = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => most,
        Err(_) => now.current.unwrap_or(1024),
    };
    usize::try_from(files).unwrap_or(usize::MAX)
}

async fn listen(listener: UnixListener, queries: mpsc::Sender<Query>, limits: Limits) -> io::Result<()> {
    let own_uid = rustix::process::geteuid().as_raw();
    let doors = Arc::new(Doors::new(&limits));
    let answers = Answers::within(queries, &limits);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of files, mostly: those who are inside will leave.
                tracing::warn!(%error, "a connection to the API could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(peer) = stream.peer_cred() else { continue };
        let viewer = viewer(peer.uid(), own_uid);
        match doors.enter(viewer) {
            Some(pass) => {
                let answers = answers.clone();
                tokio::spawn(async move {
                    answers.converse(stream, viewer).await;
                    drop(pass);
                });
            }
            None => turn_away(&stream),
        }
    }
}

/// Root and the controller's own user are trusted.
fn viewer(uid: u32, own_uid: u32) -> Viewer {
    Viewer {
        uid,
        trusted: uid == 0 || (uid == own_uid && uid != OVERFLOW_UID),
    }
}

/// What answers an asker who was let in.
#[derive(Clone)]
pub struct Answers {
    router: axum::Router,
    head: Duration,
}

impl Answers {
    /// Answers by what the controller says to these questions.
    #[must_use]
    pub fn new(queries: mpsc::Sender<Query>) -> Self {
        Self::within(queries, &Limits::default())
    }

    fn within(queries: mpsc::Sender<Query>, limits: &Limits) -> Self {
        Self {
            router: routes::router(queries, limits.answer),
            head: limits.head,
        }
    }

    /// Answers one connection's requests, until it ends; `viewer` is who is at its other end.
    pub async fn converse(&self, stream: impl AsyncRead + AsyncWrite + Unpin, viewer: Viewer) {
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(viewer);
            TowerToHyperService::new(self.router.clone()).call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!(uid = viewer.uid, %error, "a connection to the API ended early");
        }
    }
}

/// Says that there are too many; as far as the socket takes it at once.
fn turn_away(stream: &UnixStream) {
    let body = r#"{"error":"too many connections to thiaod: come again in a moment"}"#;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.try_write(answer.as_bytes());
}

#[cfg(test)]
mod tests;
