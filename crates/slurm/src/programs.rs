//! Where Slurm's programs are, by name.

use crate::error::SlurmError;
use std::path::{Path, PathBuf};

/// Where Slurm's programs are looked for after `PATH`.
const USUAL_DIRS: &[&str] = &[
    "/usr/local/bin",
    "/usr/bin",
    "/bin",
    "/usr/local/sbin",
    "/usr/sbin",
    "/opt/slurm/bin",
    "/opt/slurm/sbin",
];

/// Where one of Slurm's programs is: in this folder or its sibling `sbin`, or without it by `PATH` and in
/// the usual places. A daemon is taken from the installation of the `scontrol` that is found so.
///
/// # Errors
/// When it is nowhere.
pub fn find(program: &str, bin_dir: Option<&Path>) -> Result<PathBuf, SlurmError> {
    let dirs: Vec<PathBuf> = match bin_dir {
        Some(dir) => with_sibling(dir),
        None => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let all: Vec<PathBuf> = std::env::split_paths(&path)
                .chain(USUAL_DIRS.iter().map(PathBuf::from))
                .collect();
            let home = all.iter().find(|dir| is_program(&dir.join("scontrol")));
            let first = home.filter(|_| is_daemon(program)).map(|dir| with_sibling(dir));
            first.into_iter().flatten().chain(all.clone()).collect()
        }
    };
    dirs.iter()
        .map(|d| d.join(program))
        .find(|p| is_program(p))
        .ok_or_else(|| SlurmError::Missing {
            program: program.to_owned(),
            package: package_of(program),
            searched: match bin_dir {
                Some(dir) => dir.display().to_string(),
                None => "PATH".to_owned(),
            },
        })
}

/// The folder of the clients, and that of the daemons beside it.
fn with_sibling(dir: &Path) -> Vec<PathBuf> {
    vec![dir.to_owned(), dir.with_file_name("sbin")]
}

fn is_daemon(program: &str) -> bool {
    matches!(program, "slurmctld" | "slurmd" | "slurmstepd" | "sackd")
}

/// The Debian package of one of Slurm's programs.
#[must_use]
pub fn package_of(program: &str) -> &'static str {
    match program {
        "slurmctld" => "slurmctld",
        "slurmd" | "slurmstepd" => "slurmd",
        "munged" | "munge" | "unmunge" | "mungekey" => "munge",
        _ => "slurm-client",
    }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
