//! `job_submit.lua`: what slurmctld does with jobs of job mode when they are submitted and changed.
//!
//! Each job gets the gate's licence and asks for one VM per node ([`crate::gate`]); the options for its VMs
//! are checked here, where a refusal reaches its user at once, and go into its `AdminComment`, which users
//! cannot write. The script has the same meaning as [`thiao_core::options`], which the controller asks again.
//!
//! Measured on 22.05.8 (Lua 5.1):
//! - A script that fails lets the job pass: ours catches its own errors and refuses.
//! - It is read again when the file changes, without a restart.
//! - What is told by `log_user` reaches users at submission only; at a change it goes to slurmctld's log.
//! - `srun` and `salloc` bring no environment: they have no options.
//! - A question for the expected start (`--test-only`) cannot be told from a submission.
//! - A script cannot set licences to nothing, only to other ones.
//! - A job never loses a generic resource again, whatever its `TresPerNode` shows (`BadConstraints` elsewhere):
//!   it can be moved into a partition of job mode, and not out of it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use thiao_core::options::{COMMENT_PREFIX, OptionRule, VARIABLE};

use crate::names::{GATE, VM};

/// The file's name; slurmctld looks for it beside `slurm.conf`.
pub const FILE: &str = "job_submit.lua";
/// Where a site's own file of that name is kept, beside ours, which calls its functions first.
pub const SITE: &str = "job_submit.site.lua";
/// The name of ours where a site's own file runs it at its end, as an older `thiao setup` advised.
pub const BESIDE: &str = "thiao_job_submit.lua";
/// What is in the variable once it was read: jobs hand their environment on to those that they submit.
const USED: &str = "-";

/// How a script of ours begins.
pub const MARK: &str = "-- Written by `thiao setup`";

const BODY: &str = include_str!("lua/job_submit.lua");

/// What stands before the site's script in ours.
const SITE_LINE: &str = "local SITE = ";

/// The site's script that one of ours calls.
#[must_use]
pub fn site_of(text: &str) -> Option<PathBuf> {
    let line = text.lines().find_map(|line| line.strip_prefix(SITE_LINE))?;
    // A path that is quoted otherwise is none that setup takes.
    let path = line.strip_prefix('"')?.strip_suffix('"')?;
    (!path.contains('\\')).then(|| path.into())
}

/// The script's text, for these partitions of job mode. Jobs by `tsub` that name no partition go to
/// `default`, unless Slurm's own default is of job mode. `submitted`: a file that is touched when
/// such a job comes, so that the controller hears of it at once. `site`: the site's own script, whose
/// functions are called first.
#[must_use]
pub fn script(
    partitions: &[String],
    default: Option<&str>,
    rules: &[OptionRule],
    submitted: Option<&Path>,
    site: Option<&Path>,
) -> String {
    let mut text = format!(
        "{MARK}: jobs in partitions of job mode wait for their VMs.\n\
         -- Functions of your own go into {SITE}: `thiao setup` finds them there.\n\n",
    );
    let constants = [
        ("GATE", GATE),
        ("VM", VM),
        ("VARIABLE", VARIABLE),
        ("USED", USED),
        ("PREFIX", COMMENT_PREFIX),
    ];
    for (name, value) in constants {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "local {name} = {}", quoted(value));
    }
    let file = |path: Option<&Path>| path.map_or("nil".to_owned(), |path| quoted(&path.to_string_lossy()));
    let _ = writeln!(
        text,
        "{SITE_LINE}{}\nlocal SUBMITTED = {}\nlocal partitions = {{",
        file(site),
        file(submitted)
    );
    for name in partitions {
        let _ = writeln!(text, "    [{}] = true,", quoted(name));
    }
    let _ = writeln!(
        text,
        "}}\nlocal default_partition = {}\nlocal rules = {{",
        default.map_or("nil".to_owned(), quoted)
    );
    for rule in rules {
        let _ = writeln!(text, "    {{ {} }},", fields(rule));
    }
    text.push_str("}\n");
    text.push_str(BODY);
    text
}

fn fields(rule: &OptionRule) -> String {
    let OptionRule {
        partition,
        account,
        user,
        templates,
        images,
        share,
        keep_on_failure,
    } = rule;
    let mut words: Vec<String> = [("partition", partition), ("account", account), ("user", user)]
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key} = {}", quoted(value.as_deref()?))))
        .collect();
    for (key, names) in [("templates", templates), ("images", images)] {
        let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        words.push(match names.as_slice() {
            [] => format!("{key} = {{}}"),
            some => format!("{key} = {{ {} }}", some.join(", ")),
        });
    }
    if let Some((least, most)) = share {
        words.push(format!("share = {{ {least}, {most} }}"));
    }
    words.push(format!("keep_on_failure = {keep_on_failure}"));
    words.join(", ")
}

/// A string of Lua that is this text, whatever is in it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' '..=b'~' => out.push(char::from(byte)),
            // Three digits, so that none that follows belongs to it.
            _ => {
                let _ = write!(out, "\\{byte:03}");
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_ends_its_quotes() {
        assert_eq!(quoted("jobs"), "\"jobs\"");
        assert_eq!(
            quoted("\"] = os.exit() --\\\n1ü"),
            "\"\\\"] = os.exit() --\\\\\\0101\\195\\188\""
        );
    }

    #[test]
    fn rules_become_a_table() {
        let rule = OptionRule {
            partition: Some("jobs".into()),
            user: Some("ada".into()),
            templates: vec!["gpu".into(), "big".into()],
            share: Some((25, 100)),
            ..OptionRule::default()
        };
        let text = script(
            &["jobs".into(), "more".into()],
            Some("jobs"),
            &[rule],
            Some(Path::new("/var/lib/thiao/spool/submitted")),
            Some(Path::new("/etc/slurm/job_submit.site.lua")),
        );
        assert_eq!(site_of(&text), Some("/etc/slurm/job_submit.site.lua".into()));
        for line in [
            "    [\"more\"] = true,",
            "local default_partition = \"jobs\"",
            "    { partition = \"jobs\", user = \"ada\", templates = { \"gpu\", \"big\" }, images = {}, share = { 25, 100 }, keep_on_failure = false },",
            "local GATE = \"vm_room\"",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in {text}");
        }
        assert!(script(&[], None, &[], None, None).contains("default_partition = nil"));
        assert_eq!(site_of(&script(&[], None, &[], None, None)), None);
    }
}
