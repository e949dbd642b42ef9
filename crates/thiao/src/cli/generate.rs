//! Manual pages and shell completions, made from the command line's own words.

use super::args::{Cli, Papers};
use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;
use std::path::Path;

pub(super) fn run(what: Papers, dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let mut command = Cli::command();
    match what {
        Papers::Man => clap_mangen::generate_to(command, dir),
        Papers::Completions => [Shell::Bash, Shell::Zsh, Shell::Fish]
            .into_iter()
            .try_for_each(|shell| clap_complete::generate_to(shell, &mut command, "thiao", dir).map(drop)),
    }
    .with_context(|| format!("{} cannot be written", dir.display()))
}
