//! A clock that a test sets: libfaketime shows it to the programs that are started so.

use std::fs;
use std::path::{Path, PathBuf};

/// What a program is started with to see the clock in this file.
pub fn environment(clock: &Path) -> [(&'static str, PathBuf); 5] {
    [
        ("LD_PRELOAD", library()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_owned()),
        ("FAKETIME_NO_CACHE", "1".into()),
        // Nobody sets these clocks. The variable has had two names.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("DONT_FAKE_MONOTONIC", "1".into()),
    ]
}

/// Of Debian's package libfaketime: the one for processes with threads.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().flatten();
    let found = folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.is_file());
    found.expect("libfaketime: install the package libfaketime")
}

/// Sets the clock in this file to the machine's and so many seconds.
pub fn set(clock: &Path, seconds: i64) {
    let part = clock.with_extension("part");
    fs::write(&part, format!("{seconds:+}\n")).unwrap();
    fs::rename(part, clock).unwrap();
}
