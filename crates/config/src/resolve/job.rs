//! Job mode: what a nodeset of it says, and what its jobs may ask for.

use super::machine::word;
use crate::read::Section;
use crate::settings::{JobNodeset, JobSettings, Nodeset};
use std::collections::BTreeMap;
use thiao_core::ids::NodesetName;
use thiao_core::options::{OptionRule, VmOptions};
use thiao_core::view::Shape;
use thiao_core::world::Mode;

/// The words for a nodeset's mode.
pub const MODES: [(&str, Mode); 2] = [("power-saving", Mode::PowerSaving), ("job", Mode::Job)];

/// Why a key is refused in the other mode.
const ONLY: &str = "has an effect only with mode = \"job\": remove it, or set the mode";

/// Memory for each CPU of a job that names none, in MiB.
const MEMORY_PER_CPU_MB: u64 = 1024;

/// Reads what a nodeset says only in job mode.
pub fn nodeset(table: &Section<'_, '_>, mode: Mode, most: Shape) -> Option<JobNodeset> {
    match mode {
        Mode::PowerSaving => {
            for key in ["memory_per_cpu_mb", "warm", "gpus"] {
                table.refuse(key, ONLY);
            }
            None
        }
        Mode::Job => {
            let each = MEMORY_PER_CPU_MB
                .min(most.memory_mb / u64::from(most.cpus))
                .max(16);
            let warm = table.texts("warm", |text| size(text, most).map(drop));
            Some(JobNodeset {
                memory_per_cpu_mb: table.number("memory_per_cpu_mb", each, 16..=1 << 24),
                warm: warm.iter().filter_map(|text| size(text, most).ok()).collect(),
                gpus: table.number("gpus", 0, 0..=64),
            })
        }
    }
}

/// A VM's size as `2x1024`: CPUs and MiB.
fn size(text: &str, most: Shape) -> Result<Shape, String> {
    let parsed = text.split_once('x').and_then(|(cpus, memory)| {
        Some(Shape {
            cpus: cpus.parse().ok()?,
            memory_mb: memory.parse().ok()?,
            ..most
        })
    });
    let shape = parsed.ok_or("write a size as CPUS x MIB, e.g. \"2x1024\"")?;
    if shape.cpus == 0 || shape.memory_mb < 16 || shape.cpus > most.cpus || shape.memory_mb > most.memory_mb {
        return Err(format!(
            "no job can be of this size: from 1x16 to {}x{}, the nodeset's cpus and memory_mb",
            most.cpus, most.memory_mb
        ));
    }
    Ok(shape)
}

/// Both modes in one partition would put jobs of either onto nodes of the other.
pub fn partitions(root: &Section<'_, '_>, sets: &BTreeMap<NodesetName, Nodeset>) {
    for (name, set) in sets {
        let other = sets
            .iter()
            .find(|(_, other)| other.partition == set.partition && other.mode() != set.mode());
        if let Some((other, _)) = other
            && set.mode() == Mode::Job
        {
            root.problem(
                "nodeset",
                format!(
                    "{name} is in job mode and {other} is not, but both are in partition {}: give one of them another",
                    set.partition
                ),
            );
        }
    }
}

/// Reads `[job]` and the `[[vm_options]]`.
pub fn settings(root: &Section<'_, '_>) -> JobSettings {
    let table = root.table("job");
    let admin_comment = table.flag("admin_comment", false);
    table.close();
    let options = root.tables("vm_options").iter().map(rule).collect();
    JobSettings {
        options,
        admin_comment,
    }
}

fn rule(table: &Section<'_, '_>) -> OptionRule {
    table.show_head();
    let name = |text: &str| VmOptions::parse(&format!("image={text}")).map(drop);
    let share = table.checked("share", None, range);
    let rule = OptionRule {
        partition: table.checked("partition", None, word),
        account: table.checked("account", None, word),
        user: table.checked("user", None, word),
        templates: table.texts("templates", name),
        images: table.texts("images", name),
        share: share.map(|Range(least, most)| (least, most)),
        keep_on_failure: table.flag("keep_on_failure", false),
    };
    table.close();
    rule
}

/// Percentages from the first to the second.
struct Range(u32, u32);

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

fn range(text: &str) -> Result<Range, String> {
    let parsed = text.split_once('-').and_then(|(least, most)| {
        let (least, most) = (least.trim().parse().ok()?, most.trim().parse().ok()?);
        ((1..=100).contains(&least) && (least..=100).contains(&most)).then_some(Range(least, most))
    });
    parsed.ok_or_else(|| "write the least and the most percent of a core, e.g. \"25-100\"".to_owned())
}
