//! What a guest's agent has to know again when systemd starts it once more in a guest that has begun: it may be
//! killed, by a full memory above all, and the node's jobs go on meanwhile.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use thiao_guest::protocol::{Card, OneContext, Phase, Report};

/// Where it is kept, in memory: it has the cluster's key in it, and only root may look.
const FOLDER: &str = "/run/thiao/agent";

/// The file's name there.
const FILE: &str = "kept.json";

/// What a guest was told, and how far it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub context: OneContext,
    pub card: Card,
    /// Which start of slurmd was asked for.
    pub asked: u32,
    /// Which one was made.
    pub made: u32,
    pub history: Vec<Report>,
}

/// Where a guest goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Where it took its context: all that follows may be done twice.
    Beginning,
    /// Where all was there but slurmd.
    Prepared,
    /// After slurmd was started, at this uptime in milliseconds.
    Started(u64),
}

impl Kept {
    /// Where a guest that kept this goes on.
    pub fn place(&self) -> Place {
        let reached = |phase| self.history.iter().rfind(|report| report.phase == phase);
        match (reached(Phase::Prepared), reached(Phase::Slurmd)) {
            (_, Some(report)) => Place::Started(report.uptime_ms),
            (Some(_), None) => Place::Prepared,
            (None, None) => Place::Beginning,
        }
    }

    /// What was kept in this guest; none if it has taken no context yet.
    pub fn read() -> Result<Option<Self>, String> {
        read_in(Path::new(FOLDER))
    }

    /// Keeps it for whoever comes after this process.
    pub fn write(&self) -> Result<(), String> {
        self.write_in(Path::new(FOLDER))
    }

    fn write_in(&self, folder: &Path) -> Result<(), String> {
        let say = |e: io::Error| {
            format!(
                "cannot keep what this guest was told in {}: {e}",
                folder.display()
            )
        };
        let text = serde_json::to_vec(self).map_err(|e| say(e.into()))?;
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(say(e)),
            _ => {}
        }
        let fresh = folder.join("kept.new");
        let _ = fs::remove_file(&fresh);
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(say)?;
        file.write_all(&text).map_err(say)?;
        fs::rename(&fresh, folder.join(FILE)).map_err(say)
    }
}

fn read_in(folder: &Path) -> Result<Option<Kept>, String> {
    let file = folder.join(FILE);
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("cannot read {}: {e}", file.display())),
    };
    // It may hold a secret: the place is said, not the text.
    let kept = serde_json::from_slice(&text)
        .map_err(|e| format!("cannot read {}: column {}", file.display(), e.column()))?;
    Ok(Some(kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::os::unix::fs::PermissionsExt;
    use thiao_guest::auth::Auth;
    use thiao_guest::protocol::Resolver;
    use thiao_guest::secret::Secret;

    fn kept(reached: &[Phase]) -> Kept {
        let report = |phase: &Phase| Report {
            phase: *phase,
            uptime_ms: 7,
            detail: None,
            arrival: None,
        };
        Kept {
            context: OneContext {
                id: "fg1.3".into(),
                hostname: "fg1".into(),
                slurmctld_host: "head".into(),
                slurmctld_addr: Ipv4Addr::new(10, 9, 0, 1),
                slurmctld_port: 6817,
                backups: vec![],
                auth: Auth::Slurm {
                    slurm_key: Secret::from_bytes(b"key"),
                },
                users: vec![],
                groups: vec![],
                shares: vec![],
                resolver: Resolver::default(),
            },
            card: Card {
                address: Ipv4Addr::new(10, 9, 0, 2),
                prefix_len: 24,
                gateway: None,
                mac: [2; 6],
            },
            asked: 2,
            made: 1,
            history: reached.iter().map(report).collect(),
        }
    }

    #[test]
    fn it_comes_back_and_root_alone_may_look() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("agent");
        assert_eq!(read_in(&folder).unwrap(), None);
        kept(&[]).write_in(&folder).unwrap();
        let last = kept(&[Phase::Waiting, Phase::Prepared]);
        last.write_in(&folder).unwrap();
        assert_eq!(read_in(&folder).unwrap(), Some(last));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(FILE))), (0o700, 0o600));
    }

    #[test]
    fn a_damaged_one_is_told_without_its_secret() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), b"{\"context\": \"6b6579\"").unwrap();
        let why = read_in(folder.path()).unwrap_err();
        assert!(why.contains(FILE) && !why.contains("6b6579"), "{why}");
    }

    #[test]
    fn it_goes_on_where_it_was() {
        use Phase::{Configured, Munge, Prepared, Shares, Slurmd, Waiting};
        assert_eq!(kept(&[Waiting, Configured, Munge]).place(), Place::Beginning);
        assert_eq!(kept(&[Waiting, Shares, Prepared]).place(), Place::Prepared);
        assert_eq!(kept(&[Waiting, Prepared, Slurmd]).place(), Place::Started(7));
    }
}
