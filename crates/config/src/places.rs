//! What those need who only ask the controller or call one of Slurm's programs:
//! other mistakes in the file do not matter to them.

use crate::error::{ConfigError, PathDisplay};
use crate::load::{parse, read_trusted, this_machine};
use crate::resolve::folders;
use crate::usual::{DEFAULT_FILE, DEFAULT_STATE_DIR};
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// Where the controller's state is, and Slurm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The controller's state: `state_dir` of thiao.toml.
    pub state_dir: PathBuf,
    /// `slurm.conf`; none: where Slurm's programs look themselves.
    pub slurm_conf: Option<PathBuf>,
    /// Slurm's programs; none: by PATH.
    pub slurm_bin_dir: Option<PathBuf>,
    /// Slurm's plugins; empty: where they are installed.
    pub slurm_plugin_dirs: Vec<PathBuf>,
    /// Where the embedded provider keeps images; none: at the usual place.
    pub qemu_cache_dir: Option<PathBuf>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            state_dir: DEFAULT_STATE_DIR.into(),
            slurm_conf: None,
            slurm_bin_dir: None,
            slurm_plugin_dirs: Vec::new(),
            qemu_cache_dir: None,
        }
    }
}

/// The places that the file names. Without a file at the default place they are the default ones.
///
/// # Errors
/// When the file cannot be read or trusted, or one of them makes no sense.
pub fn places(file: Option<&Path>) -> Result<Places, ConfigError> {
    with(file, |file| {
        Ok(Places {
            state_dir: file.state_dir()?,
            slurm_conf: file.path("slurm", "conf")?,
            slurm_bin_dir: file.path("slurm", "bin_dir")?,
            slurm_plugin_dirs: file
                .path("slurm", "plugin_dir")?
                .map_or_else(Vec::new, |dirs| folders(&dirs.to_string_lossy())),
            qemu_cache_dir: file.path("qemu", "cache_dir")?,
        })
    })
    .map(Option::unwrap_or_default)
}

/// The state folder alone.
///
/// # Errors
/// When the file cannot be read or trusted, or its `state_dir` makes no sense.
pub fn state_dir(file: Option<&Path>) -> Result<PathBuf, ConfigError> {
    with(file, |file| file.state_dir()).map(|dir| dir.unwrap_or_else(|| Places::default().state_dir))
}

/// Reads the file; none if there is none and none was named.
fn with<T>(
    file: Option<&Path>,
    take: impl FnOnce(Read<'_>) -> Result<T, ConfigError>,
) -> Result<Option<T>, ConfigError> {
    if file.is_none() && !Path::new(DEFAULT_FILE).exists() {
        return Ok(None);
    }
    let file = file.unwrap_or(Path::new(DEFAULT_FILE));
    let text = read_trusted(file)?;
    let (table, _) = DeTable::parse_recoverable(&text);
    take(Read {
        file,
        text: &text,
        root: table.get_ref(),
    })
    .map(Some)
}

/// The file as far as it can be read.
struct Read<'a> {
    file: &'a Path,
    text: &'a str,
    root: &'a DeTable<'a>,
}

impl Read<'_> {
    fn state_dir(&self) -> Result<PathBuf, ConfigError> {
        let given = self.path("", "state_dir")?;
        Ok(given.unwrap_or_else(|| Places::default().state_dir))
    }

    fn path(&self, table: &str, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        let table = match table {
            "" => Some(self.root),
            name => self.root.get(name).and_then(|value| value.get_ref().as_table()),
        };
        match table.and_then(|table| table.get(key)) {
            None => Ok(None),
            Some(value) => match value.get_ref().as_str() {
                Some(path) if path.starts_with('/') => Ok(Some(path.into())),
                _ => Err(parse(self.file, self.text, &this_machine()).err().unwrap_or(
                    ConfigError::Untrusted {
                        file: PathDisplay(self.file.to_owned()),
                        why: format!("{key} is not an absolute path"),
                    },
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_from_a_file_that_is_wrong_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("thiao.toml");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            places(Some(&file))
        };
        let text = "state_dir = \"/s\"\nnonsense = 1\n[slurm]\nconf = \"/c\"\nbin_dir = \"/b\"\nplugin_dir = \"/p:/q\"\n\
                    [qemu]\ncache_dir = \"/k\"\n";
        let expected = Places {
            state_dir: "/s".into(),
            slurm_conf: Some("/c".into()),
            slurm_bin_dir: Some("/b".into()),
            slurm_plugin_dirs: vec!["/p".into(), "/q".into()],
            qemu_cache_dir: Some("/k".into()),
        };
        assert_eq!(read(text).unwrap(), expected);
        assert_eq!(read("").unwrap(), Places::default());
        let error = read("[slurm]\nbin_dir = 3\n").unwrap_err().to_string();
        assert!(error.contains("bin_dir"), "{error}");
        // Who needs the state folder alone is not kept from it.
        assert_eq!(state_dir(Some(&file)).unwrap(), Places::default().state_dir);
        assert!(places(Some(Path::new("/no/such/file"))).is_err());
    }
}
