//! Programs of others that checks need, installed once per machine in our cache and nowhere else.

use crate::steps::{self, cargo, has};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

/// Reads what comes into the program from outside; a version that takes our `deny.toml`.
const DENY: [&str; 3] = ["cargo-deny", "--version", "^0.20"];

/// `cargo deny` in the making, beside other work.
pub struct Deny(JoinHandle<Result<Command>>);

impl Deny {
    /// Finds it where it is installed, or in the cache; else begins to install it there (five minutes of CPU, once).
    #[must_use]
    pub fn start() -> Self {
        Self(std::thread::spawn(find_or_install))
    }

    /// Waits for the command, `cargo deny` without arguments.
    ///
    /// # Errors
    /// When it could be neither found nor installed, as without a network.
    pub fn wait(self) -> Result<Command> {
        self.0
            .join()
            .unwrap_or_else(|_| bail!("what looks for it panicked"))
    }
}

fn find_or_install() -> Result<Command> {
    if has("deny") {
        let mut command = cargo();
        command.arg("deny");
        return Ok(command);
    }
    let tools = steps::cache()?.join("tools");
    let program = tools.join("bin/cargo-deny");
    if !program.is_file() {
        println!("installing cargo-deny into {} (once)", tools.display());
        install(&tools)?;
    }
    let mut command = Command::new(program);
    // Its name as a command of cargo's.
    command.arg("deny");
    Ok(command)
}

/// Builds it behind everything else. Cargo keeps two of these apart by a lock of its own.
fn install(tools: &Path) -> Result<()> {
    let cargo = cargo();
    let output = Command::new("nice")
        .args(["-n", "10"])
        .arg(cargo.get_program())
        .args(["install", "--locked", "--quiet"])
        .args(DENY)
        .arg("--root")
        .arg(tools)
        .stdin(Stdio::null())
        .output()
        .context("nice cannot be run")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "cargo install {}: {}",
            DENY.join(" "),
            said.lines().last().unwrap_or("it says nothing")
        );
    }
    Ok(())
}
