//! Slurm's programs, as far as the controller needs them.

use super::site::Size;
use anyhow::Context;
use std::io::Write;
use std::path::Path;

/// Plays the program of that name, if it is one: whether it was.
pub fn play(called: &Path) -> anyhow::Result<bool> {
    let size = || {
        let bin = called.parent().context("a program is in a folder")?;
        Size::read(bin.parent().context("a site's programs are in its folder")?)
    };
    match called.file_name().and_then(|name| name.to_str()) {
        Some("sinfo") => {
            let Size {
                nodes, vms, waiting, ..
            } = size()?;
            // NodeList:|,StateComplete:|,Reason:|MARK
            list(nodes, |mark, line| {
                let state = match line {
                    _ if line < waiting => "allocated+cloud+powering_up",
                    _ if line < vms => "allocated+cloud",
                    _ => "idle+cloud+powered_down",
                };
                format!("n{line}|{state}|none|{mark}\n")
            })?;
        }
        Some("squeue") => {
            let Size { vms, waiting, .. } = size()?;
            list(vms, |mark, line| {
                let state = if line < waiting { "CONFIGURING" } else { "RUNNING" };
                let id = line + 1;
                format!(
                    "{id}|{id}|N/A|N/A|1000|vm|{state}|1|1|1790000000|1790000001|n{line}|4294901759|\
                     cpu=1,mem=100M,node=1,billing=1|1|1|1|0|1|100M|OK=oversubscribe{mark}user{mark}(null){mark}(null)\
                     {mark}None{mark}N/A|N/A|N/A|N/A{mark}(null){mark}job{mark}\n"
                )
            })?;
        }
        Some("scontrol") => {}
        _ => return Ok(false),
    }
    Ok(true)
}

/// Prints what Slurm would: the mark ends the asked-for format.
fn list(lines: usize, line: impl Fn(&str, usize) -> String) -> anyhow::Result<()> {
    let format = std::env::args().nth(4).unwrap_or_default();
    let mark = &format[format.rfind('@').unwrap_or(0)..];
    let text: String = (0..lines).map(|i| line(mark, i)).collect();
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
