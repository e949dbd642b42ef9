//! One call by HTTP: a POST of its own connection, for oned closes after each.

use crate::error::{Class, Error};
use crate::settings::Access;
use crate::wire::{self, Answer, LARGEST_ANSWER};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Timeout};

/// Longer than this no connection is waited for.
const CONNECT: Duration = Duration::from_secs(10);

/// Where systems keep the certificates that they trust.
const SYSTEM_CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A call that failed, with what counts for making it again.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    /// It may have reached oned.
    pub(super) sent: bool,
    /// oned answered, and says no.
    pub(super) refused: bool,
}

impl Failed {
    /// It may have reached oned.
    fn unsure(error: Error) -> Self {
        Self {
            error,
            sent: true,
            refused: false,
        }
    }

    /// oned answered, and says no.
    pub(super) fn refused(error: Error) -> Self {
        Self {
            error,
            sent: true,
            refused: true,
        }
    }

    /// Whatever is done, it fails again.
    pub(super) fn final_one(error: Error) -> Self {
        Self::refused(error)
    }
}

/// What makes the calls.
#[derive(Debug)]
pub(super) struct Http {
    agent: Agent,
    endpoint: String,
}

impl Http {
    pub(super) fn new(access: &Access) -> Result<Self, Error> {
        let endpoint = endpoint(&access.endpoint)?;
        let mut tls = TlsConfig::builder();
        if endpoint.starts_with("https://") {
            tls = tls.root_certs(trusted(access.ca_file.as_deref())?);
        }
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .timeout_connect(Some(access.timeout.min(CONNECT)))
            // An answer is looked at here, whatever its status.
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(0)
            // No environment: how oned is reached is in the settings.
            .proxy(None)
            .user_agent("thiao")
            .build()
            .new_agent();
        Ok(Self { agent, endpoint })
    }

    /// The body of the answer.
    pub(super) fn post(&self, body: &str, timeout: Duration, doing: &str) -> Result<Vec<u8>, Failed> {
        let mut response = self
            .agent
            .post(&self.endpoint)
            .config()
            .timeout_global(Some(timeout))
            .build()
            .header("Content-Type", "text/xml")
            .send(body.as_bytes())
            .map_err(|e| self.failed(&e, doing))?;
        let status = response.status().as_u16();
        if status != 200 {
            let to = response.headers().get("location").and_then(|to| to.to_str().ok());
            return Err(self.status(status, to, doing));
        }
        response
            .body_mut()
            .with_config()
            .limit(LARGEST_ANSWER as u64)
            .read_to_vec()
            .map_err(|e| self.failed(&e, doing))
    }

    /// A status that oned does not give for a call.
    fn status(&self, status: u16, to: Option<&str>, doing: &str) -> Failed {
        let at = &self.endpoint;
        let (class, why) = match status {
            300..=399 => {
                let to: String = to.unwrap_or("somewhere else").chars().take(200).collect();
                (
                    Class::Unknown,
                    format!("{at} redirects to {to}: use oned's own address"),
                )
            }
            // What stands between oned and us is busy, or oned is.
            429 | 503 => (Class::Busy, format!("{at} is busy (HTTP status {status})")),
            502 | 504 => (
                Class::Network,
                format!("a proxy at {at} cannot reach oned (HTTP status {status})"),
            ),
            _ => (
                Class::Unknown,
                format!("{at} answers with HTTP status {status}: is an oned there? Its path is /RPC2"),
            ),
        };
        Failed::unsure(Error::new(class, format!("cannot {doing}: {why}")))
    }

    fn failed(&self, error: &ureq::Error, doing: &str) -> Failed {
        let at = &self.endpoint;
        let (sent, class, why) = match error {
            ureq::Error::HostNotFound => (
                false,
                Class::Network,
                format!("no address is known for the host of {at}"),
            ),
            ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) | ureq::Error::ConnectionFailed => {
                (false, Class::Network, format!("{at} cannot be reached"))
            }
            ureq::Error::Timeout(_) => (true, Class::Network, format!("{at} did not answer in time")),
            ureq::Error::Io(e) => match e.kind() {
                ErrorKind::ConnectionRefused => (
                    false,
                    Class::Network,
                    format!("nothing listens at {at}: is oned running?"),
                ),
                // What the TLS library says of certificates comes as such.
                ErrorKind::InvalidData => (true, Class::Network, untrusted(at, e)),
                _ => (true, Class::Network, format!("the connection to {at} broke: {e}")),
            },
            ureq::Error::BodyExceedsLimit(limit) => (
                true,
                Class::Unknown,
                format!("the answer of {at} is larger than {limit} bytes"),
            ),
            ureq::Error::Rustls(e) => (true, Class::Network, untrusted(at, e)),
            ureq::Error::Protocol(e) => (true, Class::Network, format!("{at} does not speak HTTP: {e}")),
            e => (true, Class::Network, format!("the call to {at} failed: {e}")),
        };
        Failed {
            error: Error::new(class, format!("cannot {doing}: {why}")),
            sent,
            refused: false,
        }
    }
}

fn untrusted(at: &str, why: impl std::fmt::Display) -> String {
    format!(
        "cannot trust the certificate of {at}: {why}. If a private authority signed it, give that authority's certificate as ca_file"
    )
}

/// The answer in a body.
pub(super) fn expect_answer(body: &[u8], doing: &str) -> Result<Answer, Failed> {
    wire::answer(body).map_err(|malformed| {
        let start: Vec<u8> = body
            .trim_ascii_start()
            .iter()
            .take(14)
            .map(u8::to_ascii_lowercase)
            .collect();
        let error = if start.starts_with(b"<html") || start.starts_with(b"<!doctype html") {
            Error::new(
                Class::Unknown,
                format!("cannot {doing}: a web page answers, not oned. Check the endpoint"),
            )
        } else {
            malformed.into_error(doing)
        };
        Failed::unsure(error)
    })
}

/// The address with oned's path, which people leave out.
fn endpoint(given: &str) -> Result<String, Error> {
    let rest = given
        .strip_prefix("http://")
        .or_else(|| given.strip_prefix("https://"))
        .filter(|rest| !rest.is_empty() && !rest.starts_with('/'));
    let usable = !given.contains(|c: char| c.is_whitespace() || c.is_control());
    match rest {
        // A secret in an address would be in every error.
        Some(rest) if usable && !rest.contains('@') => Ok(match rest.split_once('/') {
            None => format!("{given}/RPC2"),
            Some((_, "")) => format!("{given}RPC2"),
            Some(_) => given.to_owned(),
        }),
        _ => Err(Error::new(
            Class::Unknown,
            "OpenNebula's endpoint must be like http://HOST:2633/RPC2, or https, without user and password",
        )),
    }
}

/// Whose certificates are trusted.
fn trusted(ca_file: Option<&Path>) -> Result<RootCerts, Error> {
    let bad = |file: &Path, why: String| {
        Error::new(
            Class::Unknown,
            format!("cannot use the certificates in {}: {why}", file.display()),
        )
    };
    let file = match ca_file {
        Some(file) => file,
        None => SYSTEM_CERTIFICATES
            .iter()
            .map(Path::new)
            .find(|file| file.exists())
            .ok_or_else(|| {
                Error::new(
                    Class::Unknown,
                    "this system has no certificates to trust: install ca-certificates, or set ca_file",
                )
            })?,
    };
    let pem = std::fs::read(file).map_err(|e| bad(file, e.to_string()))?;
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for item in ureq::tls::parse_pem(&pem) {
        // Keys and such are none of ours.
        if let PemItem::Certificate(certificate) = item.map_err(|e| bad(file, e.to_string()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(bad(file, "there are none".into()));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_gets_oneds_path_and_holds_no_secret() {
        for (given, taken) in [
            ("http://front:2633/RPC2", "http://front:2633/RPC2"),
            ("http://front:2633", "http://front:2633/RPC2"),
            ("https://front/", "https://front/RPC2"),
            ("https://front/one/RPC2", "https://front/one/RPC2"),
        ] {
            assert_eq!(endpoint(given).as_deref(), Ok(taken));
        }
        for given in [
            "",
            "front:2633",
            "ftp://front",
            "http://",
            "http:///RPC2",
            "http://a b/",
        ] {
            assert!(endpoint(given).is_err(), "{given}");
        }
        let error = endpoint("http://me:hidden@front/RPC2").expect_err("refused");
        assert!(!error.text.contains("hidden"));
    }

    #[test]
    fn without_certificates_https_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(trusted(Some(file.path())).is_err());
        assert!(trusted(Some(Path::new("/nowhere/ca.pem"))).is_err());
    }
}
