//! Where one installation of Slurm has its parts: Debian's, an RPM's, or one of its own folder such as
//! `/opt/slurm`.
//!
//! Programs for people are in a folder `bin`, those that run all the time in its sibling `sbin`, plugins in
//! a library folder of the same parent. Two installations on one machine must not be mixed: programs of one
//! release do not understand slurmctld of an older one.

use crate::error::SlurmError;
use crate::info::Version;
use crate::programs::find;
use crate::run::Runner;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where plugins are below an installation's folder: built from source, an RPM's, Debian's.
const PLUGIN_DIRS: &[&str] = &[
    "lib/slurm",
    "lib64/slurm",
    "lib/x86_64-linux-gnu/slurm-wlm",
    "lib/x86_64-linux-gnu/slurm",
];

/// How long a program may take to tell its version.
const VERSION_WAIT: Duration = Duration::from_secs(20);

/// The folders of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Install {
    /// `scontrol`, `srun` and the like.
    pub bin: PathBuf,
    /// `slurmd`, `slurmstepd` and the like.
    pub sbin: PathBuf,
    /// Plugins; the first that has one counts.
    pub plugins: Vec<PathBuf>,
}

impl Install {
    /// Finds the installation whose client programs are in `bin_dir` (none: by `PATH` and in the usual
    /// places). `plugins` is what slurm.conf says of `PluginDir`; empty: where they are installed.
    ///
    /// # Errors
    /// When a program is missing, or no folder has plugins.
    pub fn find(bin_dir: Option<&Path>, plugins: &[PathBuf]) -> Result<Self, SlurmError> {
        let folder = |program: &str| {
            let mut path = find(program, bin_dir)?;
            path.pop();
            Ok(path)
        };
        let (bin, sbin) = (folder("scontrol")?, folder("slurmd")?);
        let plugins = match plugins {
            [] => vec![plugins_of(&bin, &sbin)?],
            given => given.to_vec(),
        };
        Ok(Self { bin, sbin, plugins })
    }
}

/// The installed plugins of programs in these folders.
fn plugins_of(bin: &Path, sbin: &Path) -> Result<PathBuf, SlurmError> {
    let prefixes = [bin, sbin].into_iter().filter_map(Path::parent);
    let mut dirs = prefixes.flat_map(|prefix| PLUGIN_DIRS.iter().map(|dir| prefix.join(dir)));
    dirs.find(|dir| has_plugins(dir))
        .ok_or_else(|| SlurmError::NoPlugins { bin: bin.to_owned() })
}

/// Each release has a plugin of this one kind at least.
fn has_plugins(dir: &Path) -> bool {
    let mut entries = dir.read_dir().into_iter().flatten().flatten();
    entries.any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("auth_") && name.ends_with(".so")
    })
}

/// The version of the slurmctld that is installed, by its own word: it needs no slurm.conf for that, while
/// the programs for people look for one first (22.05).
///
/// # Errors
/// When it is missing, cannot be run or names no version.
pub fn installed_version(bin_dir: Option<&Path>) -> Result<Version, SlurmError> {
    let runner = Runner {
        conf: None,
        bin_dir: bin_dir.map(Path::to_owned),
        timeout: VERSION_WAIT,
    };
    let text = runner.run("slurmctld", ["-V"])?;
    Version::parse(&text)
        .ok_or_else(|| SlurmError::unparsable("slurmctld's version", text.trim(), "no version number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn installed(files: &[&str]) -> tempfile::TempDir {
        let prefix = tempfile::tempdir().unwrap();
        for file in files {
            let path = prefix.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        prefix
    }

    #[test]
    fn an_installation_is_found_by_the_folder_of_its_clients() {
        for plugins in PLUGIN_DIRS {
            let plugin = format!("{plugins}/auth_munge.so");
            let prefix = installed(&["bin/scontrol", "sbin/slurmd", &plugin]);
            let at = |part: &str| prefix.path().join(part);
            let bin = at("bin");
            let found = Install::find(Some(&bin), &[]).unwrap();
            let expected = Install {
                bin: bin.clone(),
                sbin: at("sbin"),
                plugins: vec![at(plugins)],
            };
            assert_eq!(found, expected);
            // What slurm.conf says comes first.
            let other = [PathBuf::from("/else/where")];
            assert_eq!(Install::find(Some(&bin), &other).unwrap().plugins, other);
        }
    }

    #[test]
    fn what_is_missing_is_named_and_no_other_installation_steps_in() {
        let prefix = installed(&["bin/scontrol", "lib/slurm/README.so"]);
        let bin = prefix.path().join("bin");
        let error = Install::find(Some(&bin), &[]).unwrap_err();
        assert!(
            matches!(error, SlurmError::Missing { ref program, .. } if program == "slurmd"),
            "{error}"
        );
        let prefix = installed(&["bin/scontrol", "sbin/slurmd", "lib/slurm/README.so"]);
        let error = Install::find(Some(&prefix.path().join("bin")), &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("plugin_dir"), "{error}");
    }
}
