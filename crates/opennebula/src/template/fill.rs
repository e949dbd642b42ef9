//! Fills a template's variables. What `{{ name }}` stands for does not go into the text:
//! a mark does, and the value takes the mark's place when the text was read.
//!
//! Nothing else is special: a file may hold a shell's `${#a[@]}` and other programs'
//! `{{.ID}}` as they are.

use super::new_vm::{NewVm, share, vm_name};
use crate::error::{Class, Error};
use crate::syntax::{MAX_TEXT, Template, Value as Attribute};

/// Around the number of a variable; no template has a use for them (Unicode's private characters).
const OPEN: char = '\u{e000}';
const CLOSE: char = '\u{e001}';

/// What a variable stands between.
const BEFORE: &str = "{{";
const AFTER: &str = "}}";

/// The variables of this VM, by name.
fn variables(wanted: &NewVm<'_>) -> Vec<(&'static str, String)> {
    let (tag, guest, shape) = (wanted.tag, wanted.guest, wanted.spec.shape);
    let always = [
        ("cluster", tag.cluster.to_string()),
        ("cpus", shape.cpus.to_string()),
        ("generation", tag.generation.to_string()),
        ("memory_mb", wanted.memory_mb().to_string()),
        ("node", tag.node.to_string()),
        ("nodeset", wanted.nodeset.to_string()),
        ("share", share(shape)),
        ("slurm_memory_mb", shape.memory_mb.to_string()),
        ("slurmctld_addr", guest.slurmctld_addr.to_string()),
        ("slurmctld_host", guest.slurmctld_host.clone()),
        ("slurmctld_port", guest.slurmctld_port.to_string()),
        ("vm_name", vm_name(tag)),
    ];
    let (network, network_id) = wanted.network.unzip();
    let some = [
        ("job", wanted.spec.job.map(|job| job.to_string())),
        ("host", wanted.host.map(ToString::to_string)),
        ("network", network.map(str::to_owned)),
        ("network_id", network_id.map(|id| id.to_string())),
    ];
    let some = some.into_iter().filter_map(|(name, value)| Some((name, value?)));
    always.into_iter().chain(some).collect()
}

/// Fills and reads a template.
pub fn fill(text: &str, origin: &str, wanted: &NewVm<'_>) -> Result<Template, Error> {
    let bad = |what: String| Error::new(Class::BadTemplate, format!("template {origin}: {what}"));
    let variables = variables(wanted);
    let marked = mark(text, &variables).map_err(&bad)?;
    let mut template = Template::parse(&marked).map_err(|error| {
        let mark = OPEN.escape_default().to_string();
        bad(if error.text.contains(&mark) {
            let text = error.text.replace(&mark, BEFORE);
            format!("{text}: a variable can only be in a value")
        } else {
            error.text
        })
    })?;
    for (_, attribute) in &mut template.0 {
        match attribute {
            Attribute::Single(text) => put(text, &variables),
            Attribute::Vector(pairs) => pairs.iter_mut().for_each(|(_, text)| put(text, &variables)),
        }
    }
    Ok(template)
}

/// The text with a mark in place of each variable; or why not, and where.
fn mark(text: &str, variables: &[(&str, String)]) -> Result<String, String> {
    if text.contains([OPEN, CLOSE]) {
        return Err("it has characters of Unicode's private range: remove them".to_owned());
    }
    let mut marked = String::with_capacity(text.len());
    let mut capacity = MAX_TEXT;
    let mut rest = text;
    while let Some((plain, after)) = rest.split_once(BEFORE) {
        marked.push_str(plain);
        let fail = |what: String| {
            let before = text.len() - after.len();
            let line = 1 + text.bytes().take(before).filter(|b| *b == b'\n').count();
            Err(format!("line {line}: {what}"))
        };
        let inside = after.trim_start();
        let end = inside
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(inside.len());
        let (name, behind) = inside.split_at(end);
        let known = variables
            .iter()
            .enumerate()
            .find(|(_, (known, _))| *known == name);
        match (known, behind.trim_start().strip_prefix(AFTER)) {
            (Some((number, (_, value))), Some(behind)) => {
                let Some(left) = capacity.checked_sub(value.len()) else {
                    return Err(format!("its values have more than {MAX_TEXT} bytes"));
                };
                capacity = left;
                marked.push_str(&format!("{OPEN}{number}{CLOSE}"));
                rest = behind;
            }
            (Some(_), None) => {
                return fail(format!("only the name can stand there: {BEFORE} {name} {AFTER}"));
            }
            (None, Some(_)) if !name.is_empty() => {
                let known: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
                return fail(format!(
                    "there is no variable {name:?} here; there are {}. Text that is not for Thiao can be put in \
                     base64 (START_SCRIPT_BASE64)",
                    known.join(", ")
                ));
            }
            // Not ours; its second brace may begin one that is.
            (None, _) => {
                marked.push('{');
                rest = rest.get(plain.len() + 1..).unwrap_or_default();
            }
        }
    }
    marked.push_str(rest);
    Ok(marked)
}

/// Puts the values where their marks are.
fn put(text: &mut String, variables: &[(&str, String)]) {
    if !text.contains(OPEN) {
        return;
    }
    let mut filled = String::new();
    let mut rest = text.as_str();
    while let Some((before, marked)) = rest.split_once(OPEN) {
        filled.push_str(before);
        let (number, after) = marked.split_once(CLOSE).unwrap_or((marked, ""));
        if let Some((_, value)) = number
            .parse()
            .ok()
            .and_then(|number: usize| variables.get(number))
        {
            filled.push_str(value);
        }
        rest = after;
    }
    filled.push_str(rest);
    *text = filled;
}
