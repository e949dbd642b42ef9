//! Opens a folder and a port, and serves the one at the other.

use crate::args::User;
use crate::error::ExportError;
use crate::fs;
use crate::nfs::Nfs;
use crate::server;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often files that nobody uses are closed.
const IDLE_CHECK: Duration = Duration::from_secs(10);

/// Serves a folder under this process's user, and gives the port to `ready` once it listens. Returns only when it
/// fails. Takes the process over: sets its umask to 0, since clients apply their own.
pub fn serve(dir: &Path, listen_on: SocketAddr, ready: impl FnOnce(u16)) -> Result<Infallible, ExportError> {
    let nfs = open(dir, User::current())?;
    let listener = listen(listen_on)?;
    ready(port(&listener)?);
    serve_on(&listener, nfs)
}

pub(crate) fn open(folder: &Path, owner: User) -> Result<Arc<Nfs>, ExportError> {
    let failed = |path: &Path, source| ExportError::Folder {
        folder: path.to_owned(),
        source,
    };
    // Files are opened again by their descriptors' names there.
    let proc = Path::new("/proc/self/fd");
    proc.read_dir().map_err(|e| failed(proc, e))?;
    let tree = fs::Tree::new(folder).map_err(|e| failed(folder, e.into()))?;
    Ok(Arc::new(Nfs::new(tree, owner)))
}

pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, ExportError> {
    TcpListener::bind(address).map_err(|source| ExportError::Listen { address, source })
}

pub(crate) fn port(listener: &TcpListener) -> Result<u16, ExportError> {
    let address = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    listener
        .local_addr()
        .map(|a| a.port())
        .map_err(|source| ExportError::Listen { address, source })
}

pub(crate) fn serve_on(listener: &TcpListener, nfs: Arc<Nfs>) -> Result<Infallible, ExportError> {
    rustix::process::umask(rustix::fs::Mode::empty());
    let mut files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    files.current = files.maximum;
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, files);
    let idle = Arc::clone(&nfs);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(IDLE_CHECK);
            idle.tree.close_idle();
        }
    });
    server::run(listener, &nfs)
}
