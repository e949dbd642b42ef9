//! Where the programs of Thiao are.

use std::path::{Path, PathBuf};

/// Where packages put those that people do not type.
pub const LIBEXEC: &str = "/usr/lib/thiao";

/// One of our programs is not there.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name} is neither beside {beside} nor in {LIBEXEC}: `cargo xtask install` puts it there, or, in a \
     source tree, build all of Thiao (`cargo build`)"
)]
pub struct Missing {
    name: String,
    beside: String,
}

/// Where one of our programs is: beside `own`, the path of a running one, else where packages put it.
#[must_use]
pub fn place(own: &Path, name: &str) -> PathBuf {
    let beside = own.with_file_name(name);
    if beside.is_file() {
        beside
    } else {
        Path::new(LIBEXEC).join(name)
    }
}

/// As [`place`], of a program that has to be there.
///
/// # Errors
/// [`Missing`], when it is in neither.
pub fn find(own: &Path, name: &str) -> Result<PathBuf, Missing> {
    Some(place(own, name))
        .filter(|place| place.is_file())
        .ok_or_else(|| missing(own, name))
}

/// As [`find`], of a program that people type: packages put it into a folder of `PATH`.
///
/// # Errors
/// [`Missing`], when it is nowhere.
pub fn find_typed(own: &Path, name: &str) -> Result<PathBuf, Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(own.with_file_name(name))
        .chain(std::env::split_paths(&path).map(|folder| folder.join(name)))
        .chain(["/usr/local/bin", "/usr/bin"].map(|folder| Path::new(folder).join(name)))
        .find(|place| place.is_file())
        .ok_or_else(|| missing(own, name))
}

fn missing(own: &Path, name: &str) -> Missing {
    Missing {
        name: name.to_owned(),
        beside: own.display().to_string(),
    }
}
