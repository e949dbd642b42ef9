//! `thiao-papers DIR`: see the library.

use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from);
    thiao_papers::write(&dir.unwrap_or_default())
}
