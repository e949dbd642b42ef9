//! Whose certificates a guest trusts. `thiao guest` puts them into its first file system.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Where the guest has them, without the first `/`.
pub const FILE: &str = "etc/ssl/certs/ca-certificates.crt";

/// PEM has lines of so many digits (RFC 7468).
const LINE: usize = 64;

/// The certificates in a PEM text, whatever else is in it.
///
/// # Errors
/// It is no PEM, or has none.
pub fn read(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err("it has no certificate in PEM".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(error.to_string()),
    }
}

/// These certificates as PEM, and nothing else: a key that stood beside one goes into no guest.
#[must_use]
pub fn write(certificates: &[CertificateDer<'_>]) -> String {
    let mut pem = String::new();
    for certificate in certificates {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = STANDARD.encode(certificate);
        while !rest.is_empty() {
            let after = rest.split_off(rest.len().min(LINE));
            pem.push_str(&rest);
            pem.push('\n');
            rest = after;
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_alone_are_passed_on() {
        let (ca, server) = (
            include_bytes!("../tests/data/ca.pem").as_slice(),
            include_bytes!("../tests/data/server.pem").as_slice(),
        );
        let key = include_bytes!("../tests/data/server.key").as_slice();
        let all = [ca, key, server].concat();
        let read_back = read(&all).unwrap();
        assert_eq!(read_back.len(), 2);
        let pem = write(&read_back);
        assert!(!pem.contains("KEY"), "{pem}");
        assert_eq!(read(pem.as_bytes()).unwrap(), read_back);
        assert!(read(key).unwrap_err().contains("no certificate"));
        assert!(read(b"").is_err() && read(b"-----BEGIN CERTIFICATE-----\nx").is_err());
    }
}
