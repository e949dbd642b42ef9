//! Manual pages and shell completions, made from the words of all programs that people type. Not part of what is
//! installed: `cargo xtask dist` runs it.

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;
use std::path::Path;

/// All that can be typed after `thiao`, that of its other programs included.
fn whole() -> Command {
    thiao::cli::command()
        .mut_subcommand("lab", |_| thiao_lab::command().name("lab"))
        .mut_subcommand("sim", |_| thiao_sim::cli::command().name("sim"))
}

/// Writes `man` and `completions` into this folder.
///
/// # Errors
/// When they cannot be written.
pub fn write(dir: &Path) -> anyhow::Result<()> {
    let [man, completions] = ["man", "completions"].map(|name| dir.join(name));
    for dir in [&man, &completions] {
        std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    }
    clap_mangen::generate_to(whole(), &man)
        .with_context(|| format!("{} cannot be written", man.display()))?;
    [Shell::Bash, Shell::Zsh, Shell::Fish]
        .into_iter()
        .try_for_each(|shell| {
            clap_complete::generate_to(shell, &mut whole(), "thiao", &completions).map(drop)
        })
        .with_context(|| format!("{} cannot be written", completions.display()))
}
