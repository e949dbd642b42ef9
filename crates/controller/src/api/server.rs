//! The API's server: who may come in, how long he may stay, what he may see.
//!
//! Connections are bounded in number (per user and in all), in the size of their heads,
//! in time, and in what they have been answered and do not take. Users' questions come
//! before the controller a few at a time, so that root's and Slurm's never wait behind many
//! of them, and those that call for an observation of Slurm are gathered. Nothing here keeps state
//! of the controller: every answer is asked for over the channel.
//!
//! *Architecture invariant:* permissions are decided here and nowhere else, by
//! the kernel's peer credentials; the controller answers all that is asked.

mod asking;
mod doors;
mod limits;
mod routes;

use super::{ApiError, Query, Viewer};
use asking::Controller;
use axum::response::IntoResponse as _;
use doors::{Doors, Pass, SubordinateUids};
use hyper::body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use limits::Limits;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiao_api::state_dir::{OVERFLOW_UID, own_uid};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

/// The largest head of a request, in bytes. A hostlist of many odd names is in it.
const MAX_HEAD: usize = 64 << 10;

/// The most lines of a request's head.
const MAX_HEADERS: usize = 32;

/// What one is told who lets his answers lie.
const UNTAKEN: &str = "too many answers wait for you to read them: read them, and try again";

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

/// Makes the socket: everybody may connect, the credentials decide. Its name is there once it listens and is open
/// to all, so that nobody is turned away who comes at once.
fn bind(socket: &Path) -> io::Result<UnixListener> {
    let explain = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", socket.display()));
    let new = socket.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(explain(e)),
        _ => {}
    }
    let listener = UnixListener::bind(&new).map_err(explain)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o666)).map_err(explain)?;
    std::fs::rename(&new, socket).map_err(explain)?;
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
    let own_uid = own_uid();
    let answers = Answers::within(queries, limits);
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
        match answers.doors.enter(viewer) {
            Some(pass) => {
                tokio::spawn(answers.clone().talk(stream, viewer, Arc::new(pass)));
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

/// What answers those who ask.
#[derive(Clone)]
pub struct Answers {
    doors: Arc<Doors>,
    of_trusted: axum::Router,
    of_others: axum::Router,
    limits: Limits,
}

impl Answers {
    /// Answers by what the controller says to these questions.
    #[must_use]
    pub fn new(queries: mpsc::Sender<Query>) -> Self {
        Self::within(queries, Limits::default())
    }

    fn within(queries: mpsc::Sender<Query>, limits: Limits) -> Self {
        Self {
            doors: Arc::new(Doors::new(&limits, SubordinateUids::of_machine())),
            of_trusted: routes::router(Controller::new(queries.clone(), limits.answer)),
            of_others: routes::router(Controller::for_many(queries, &limits)),
            limits,
        }
    }

    /// Answers one connection's requests, until it ends; `viewer` is who is at its other end.
    /// If it is not let in, nothing is said.
    pub async fn converse(&self, stream: impl AsyncRead + AsyncWrite + Unpin, viewer: Viewer) {
        if let Some(pass) = self.doors.enter(viewer) {
            self.clone().talk(stream, viewer, Arc::new(pass)).await;
        }
    }

    async fn talk(self, stream: impl AsyncRead + AsyncWrite + Unpin, viewer: Viewer, pass: Arc<Pass>) {
        let router = if viewer.trusted {
            self.of_trusted
        } else {
            self.of_others
        };
        // Whether the controller is at work for it, or it has its answer.
        let (at_work, seen) = watch::channel(false);
        let at_work = Arc::new(at_work);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(viewer);
            at_work.send_replace(true);
            let asked = TowerToHyperService::new(router.clone()).call(request);
            let (at_work, pass) = (at_work.clone(), pass.clone());
            async move {
                let answer = asked.await;
                at_work.send_replace(false);
                let bytes = answer.as_ref().map_or(0, |answer| answer.size_hint().lower());
                match pass.carry(bytes) {
                    true => answer,
                    false => Ok(ApiError::Unavailable(UNTAKEN.to_owned()).into_response()),
                }
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        let ended = tokio::select! {
            ended = connection => ended.map_err(|error| error.to_string()),
            () = not_taken(seen, self.limits.taking) => Err("its answer was not taken".to_owned()),
        };
        if let Err(error) = ended {
            tracing::debug!(uid = viewer.uid, %error, "a connection to the API ended early");
        }
    }
}

/// Returns when so long nothing is asked and nothing is worked at.
async fn not_taken(mut at_work: watch::Receiver<bool>, limit: Duration) {
    loop {
        // Whatever has changed, several times perhaps: the time begins anew.
        let works = *at_work.borrow_and_update();
        let changed = match works {
            true => Ok(at_work.changed().await),
            false => tokio::time::timeout(limit, at_work.changed()).await,
        };
        match changed {
            Ok(Ok(())) => {}
            // The connection has ended: its own end is told.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// Says that there are too many; as far as the socket takes it at once.
fn turn_away(stream: &UnixStream) {
    let body = r#"{"error":"too many connections to thiaod: try again in a moment"}"#;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.try_write(answer.as_bytes());
}

#[cfg(test)]
mod tests;
