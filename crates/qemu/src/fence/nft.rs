//! Tells the kernel, by the program `nft`: JSON on its standard input, never words of a shell.

use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Where distributions keep it; a service's `PATH` may name none of them.
const PROGRAMS: [&str; 4] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/bin/nft"];

/// What went wrong with the fence.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The program `nft` is not there.
    #[error(
        "VMs cannot be kept from each other, and none is made: the program nft is missing. Install the package \
         nftables; or, where that does not matter, write fence = false in [network] of thiao.toml"
    )]
    NoProgram,
    /// We lack the right to change the kernel's tables.
    #[error(
        "VMs cannot be kept from each other, and none is made: nft may not change the kernel's tables. It takes \
         CAP_NET_ADMIN, as thiaod's unit gives it"
    )]
    NotPermitted,
    /// The kernel, or the program, does not know what it was told.
    #[error(
        "VMs cannot be kept from each other, and none is made: nft says: {said}. The kernel must have nftables for \
         bridges (the module nf_tables, with CONFIG_NF_TABLES_BRIDGE, as Debian's has)"
    )]
    Refused {
        /// What it printed, in its own words.
        said: String,
    },
    #[error("cannot run nft: {0}")]
    Io(#[from] io::Error),
}

/// Carries these commands of libnftables-json(5) out: all of them, or none.
///
/// # Errors
/// nft is not there, may not do that, or does not know what it was told.
pub fn tell(commands: &Value) -> Result<(), FenceError> {
    run(&["--json", "--file", "-"], commands.to_string().as_bytes()).map(drop)
}

/// Whether there is a table of this name.
pub fn has(table: &str) -> Result<bool, FenceError> {
    let said = run(&["--json", "list", "tables", "bridge"], b"")?;
    let listing: Value = serde_json::from_slice(&said).map_err(io::Error::from)?;
    let tables = listing["nftables"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    Ok(tables.iter().any(|entry| entry["table"]["name"] == table))
}

/// Removes a table of the family `bridge`.
pub fn remove(table: &str) -> Result<(), FenceError> {
    tell(&json!({"nftables": [{"delete": {"table": {"family": "bridge", "name": table}}}]}))
}

fn run(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, FenceError> {
    let program = PROGRAMS.into_iter().find(|program| Path::new(program).exists());
    let mut child = Command::new(program.ok_or(FenceError::NoProgram)?)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut pipe| pipe.write_all(input));
    let output = child.wait_with_output()?;
    if output.status.success() {
        written?;
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("Operation not permitted") {
        return Err(FenceError::NotPermitted);
    }
    // Its first line says what; the others repeat what it was told.
    let said = said.lines().next().unwrap_or("nothing").trim().to_owned();
    Err(FenceError::Refused { said })
}
