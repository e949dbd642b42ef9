//! How the cluster's daemons know each other (`AuthType` of slurm.conf), and the secret of it.

use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// munged reads no more than this of a key (`MUNGE_MAXIMUM_SECRET_KEY_BYTES` is 1024).
const MAX_MUNGE_KEY: u64 = 1024;

/// A key of Slurm's, or a list of them (`slurm.jwks`), is small; Slurm itself has no limit.
const MAX_SLURM_KEY: u64 = 16 << 10;

/// Where this machine has the cluster's secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    Munge {
        /// The file with munged's key.
        key: PathBuf,
        /// The munge socket as `AuthInfo` in slurm.conf names it.
        socket: PathBuf,
    },
    /// `AuthType=auth/slurm`, since Slurm 23.11.
    Slurm {
        /// The file: `slurm.key`, or `slurm.jwks`.
        key: PathBuf,
    },
}

impl Credentials {
    /// The file with the secret.
    #[must_use]
    pub fn file(&self) -> &Path {
        match self {
            Self::Munge { key, .. } | Self::Slurm { key } => key,
        }
    }

    /// The word of `AuthType`.
    #[must_use]
    pub fn auth_type(&self) -> &'static str {
        match self {
            Self::Munge { .. } => "auth/munge",
            Self::Slurm { .. } => "auth/slurm",
        }
    }

    /// The secret's name, for people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Munge { .. } => "munge key",
            Self::Slurm { .. } => "Slurm key",
        }
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// When the file cannot be read, or cannot be a key.
    pub fn read(&self) -> io::Result<Auth> {
        let most = match self {
            Self::Munge { .. } => MAX_MUNGE_KEY,
            Self::Slurm { .. } => MAX_SLURM_KEY,
        };
        let mut key = Vec::new();
        File::open(self.file())?.take(most + 1).read_to_end(&mut key)?;
        if key.is_empty() || key.len() as u64 > most {
            return Err(io::Error::other(format!("it must have 1 to {most} bytes")));
        }
        let secret = Secret::from_bytes(&key);
        Ok(match self {
            Self::Munge { socket, .. } => Auth::Munge {
                munge_key: secret,
                munge_socket: socket.clone(),
            },
            Self::Slurm { .. } => Auth::Slurm { slurm_key: secret },
        })
    }
}

/// What a guest is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Auth {
    Munge {
        /// The cluster's munge key in hexadecimal.
        munge_key: Secret,
        /// The munge socket that slurm.conf's `AuthInfo` names.
        munge_socket: PathBuf,
    },
    /// By Slurm's own key.
    Slurm {
        /// The content of `slurm.key` or `slurm.jwks` in hexadecimal.
        slurm_key: Secret,
    },
}

/// Which variable tells slurmd where its key is: one key, or a list of them in JSON
/// (`auth/slurm` of Slurm 23.11 and later; lists since 24.05).
#[must_use]
pub fn key_variable(key: &Secret) -> &'static str {
    let first = key
        .to_bytes()
        .unwrap_or_default()
        .trim_ascii_start()
        .first()
        .copied();
    match first {
        Some(b'{') => "SLURM_SACK_JWKS",
        Some(_) | None => "SLURM_SACK_KEY",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_whole_or_not_at_all() {
        let dir = std::env::temp_dir().join(format!("thiao-auth-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let key = dir.join("key");
        let munge = Credentials::Munge {
            key: key.clone(),
            socket: "/s".into(),
        };
        let slurm = Credentials::Slurm { key: key.clone() };
        std::fs::write(&key, "secret").unwrap();
        assert_eq!(
            slurm.read().unwrap(),
            Auth::Slurm {
                slurm_key: Secret::from_bytes(b"secret")
            }
        );
        std::fs::write(&key, [7; 1025]).unwrap();
        assert!(munge.read().is_err() && slurm.read().is_ok());
        std::fs::write(&key, "").unwrap();
        assert!(slurm.read().is_err());
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(munge.read().is_err());
    }

    #[test]
    fn what_a_guest_is_told_has_its_kind_by_its_names() {
        let told: Auth = serde_json::from_str(r#"{"slurm_key":"6b"}"#).unwrap();
        assert_eq!(
            told,
            Auth::Slurm {
                slurm_key: Secret::from_bytes(b"k")
            }
        );
        assert!(serde_json::from_str::<Auth>(r#"{"munge_key":"6b"}"#).is_err());
        assert!(!format!("{told:?}").contains("6b"));
    }

    #[test]
    fn a_list_of_keys_is_told_as_such() {
        let variable = |key: &[u8]| key_variable(&Secret::from_bytes(key));
        assert_eq!(variable(b"random"), "SLURM_SACK_KEY");
        assert_eq!(variable(b"\n{\"keys\":[]}"), "SLURM_SACK_JWKS");
        assert_eq!(variable(b""), "SLURM_SACK_KEY");
    }
}
