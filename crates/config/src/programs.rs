//! Where the programs of Thiao are.

use std::path::{Path, PathBuf};

/// Where packages put those that people do not type.
pub const LIBEXEC: &str = "/usr/lib/thiao";

/// One of our programs is not there.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name} is neither beside {beside} nor in {LIBEXEC}: install it there (`cargo xtask dist` makes it), or, in a \
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
    let place = place(own, name);
    if place.is_file() {
        return Ok(place);
    }
    Err(Missing {
        name: name.to_owned(),
        beside: own.display().to_string(),
    })
}
