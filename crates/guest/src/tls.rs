//! https, to a server whose certificate is of an authority that this guest knows.

use rustls::pki_types::{InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use thiao_guest::authorities;

/// A connection that others can neither read nor change.
pub type Secure = StreamOwned<ClientConnection, TcpStream>;

/// Speaks TLS over `stream` to the server of that name or address; `trusted`: the file with the authorities.
///
/// # Errors
/// The file cannot be used, or the server is not whom its certificate says, by those authorities.
pub fn over(mut stream: TcpStream, host: &str, trusted: &Path) -> io::Result<Secure> {
    let other = |what: String| io::Error::other(what);
    let pem = fs::read(trusted).map_err(|e| {
        other(format!(
            "this guest has no authorities to trust ({}: {e}): make it anew with `thiao guest`",
            trusted.display()
        ))
    })?;
    let certificates = authorities::read(&pem).map_err(|e| other(format!("{}: {e}", trusted.display())))?;
    let mut roots = RootCertStore::empty();
    // A system's list has some that are too odd for every library.
    roots.add_parsable_certificates(certificates);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())
        .map_err(|e: InvalidDnsNameError| other(format!("{host}: {e}")))?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection
            .complete_io(&mut stream)
            .map_err(|e| explained(e, host))?;
    }
    Ok(StreamOwned::new(connection, stream))
}

/// With what to do, where it is the certificate.
fn explained(error: io::Error, host: &str) -> io::Error {
    let tls = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(_)) => io::Error::other(format!(
            "cannot trust the certificate of {host}: {error}. `thiao guest --ca FILE` makes a guest that knows \
             the authority which signed it"
        )),
        Some(_) | None => error,
    }
}
