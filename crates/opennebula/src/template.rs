//! What a VM is made from: the site's template, filled with what we know, and our
//! own attributes on top.
//!
//! A template in a file may use these variables, as `{{ node }}`:
//!
//! | variable | means | e.g. |
//! |---|---|---|
//! | `node` | Slurm's name of the node | `fg7` |
//! | `cluster` | Slurm's cluster | `prod` |
//! | `generation` | which of the node's VMs it is | `3` |
//! | `job` | the one job that it is for; not there outside of job mode | `42` |
//! | `vm_name` | the VM's name in OpenNebula | `prod-fg7-3` |
//! | `nodeset` | the node's nodeset | `small` |
//! | `host` | the host that Thiao chose; not there when OpenNebula places | `kvm-04` |
//! | `cpus` | vCPUs (`VCPU`) | `4` |
//! | `share` | promised cores (`CPU`) | `1.5` |
//! | `memory_mb` | the VM's memory in MiB (`MEMORY`), with Thiao's overhead | `4224` |
//! | `slurm_memory_mb` | what Slurm promises jobs (`RealMemory`) | `4096` |
//! | `network` | the nodeset's network as configured, or the one of several that was chosen; not there without one | `private` |
//! | `network_id` | its id in OpenNebula | `12` |
//! | `slurmctld_host` | slurmctld's name, as in slurm.conf | `head` |
//! | `slurmctld_addr` | where guests reach it | `10.0.0.1` |
//! | `slurmctld_port` | its port | `6817` |
//!
//! Nothing else is special, and an unknown name is an error. The munge key is no variable: it goes into
//! CONTEXT and nowhere else. A value is put in after the template was read, so that none can
//! become an attribute, wherever it stands.

pub mod cards;
mod context;
mod devices;
mod fill;
mod new_vm;
pub mod uses;

pub use context::context;
pub use new_vm::{JOB, NewVm, share, vm_name};

use crate::error::{Class, Error};
use crate::syntax::{MAX_TEXT, Template};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use thiao_core::ids::{ClusterName, Generation, NodeName, VmTag};

/// The tags that make a VM ours, in its user template.
pub const TAG_CLUSTER: &str = "THIAO_CLUSTER";
/// Which node it backs.
pub const TAG_NODE: &str = "THIAO_NODE";
/// Which of the node's VMs it is.
pub const TAG_GENERATION: &str = "THIAO_GENERATION";
/// How far a VM may grow: ours are as big as Slurm says, from their start to their end. With a
/// `MEMORY_MAX` a guest has all of it until its balloon fills, and with a `VCPU_MAX` no TOPOLOGY is
/// taken. oned keeps only what is above 0 (5.12 to 7.4, `VirtualMachine::insert`).
const LIMITS: [&str; 3] = ["MEMORY_MAX", "MEMORY_SLOTS", "VCPU_MAX"];

/// Our tag in a VM's user template, if it is there and whole.
#[must_use]
pub fn read_tag(get: impl Fn(&str) -> Option<String>) -> Option<VmTag> {
    Some(VmTag {
        cluster: ClusterName::new(&get(TAG_CLUSTER)?).ok()?,
        node: NodeName::new(&get(TAG_NODE)?).ok()?,
        generation: Generation::parse(&get(TAG_GENERATION)?)?,
    })
}

/// What goes on top of a registered template when it is instantiated.
///
/// oned replaces whole attributes: a CONTEXT of ours would remove the template's
/// (`Template::merge`), so this one holds both. The same restricted values as in the
/// template are allowed to everybody (`Template::check_restricted`).
pub fn over_registered(template: &Template, wanted: &NewVm<'_>) -> Result<Template, Error> {
    let mut extra = Template::default();
    put_ours(&mut extra, template, wanted)?;
    devices::put(&mut extra, template, wanted)?;
    extra.check()?;
    Ok(extra)
}

/// A whole template from a file's text: filled, read, ours on top. `origin` is the
/// file's name, for errors.
pub fn from_text(text: &str, origin: &str, wanted: &NewVm<'_>) -> Result<Template, Error> {
    let mut template = fill::fill(text, origin, wanted)?;
    let theirs = template.clone();
    put_ours(&mut template, &theirs, wanted)?;
    devices::put(&mut template, &theirs, wanted)?;
    template.set("NAME", vm_name(wanted.tag));
    template.check()?;
    Ok(template)
}

/// Puts our attributes into `onto`. What must be kept of `theirs` is kept.
fn put_ours(onto: &mut Template, theirs: &Template, wanted: &NewVm<'_>) -> Result<(), Error> {
    onto.set("CPU", share(wanted.spec.shape));
    onto.set("VCPU", wanted.spec.shape.cpus.to_string());
    onto.set("MEMORY", wanted.memory_mb().to_string());
    onto.set(TAG_CLUSTER, wanted.tag.cluster.as_str());
    onto.set(TAG_NODE, wanted.tag.node.as_str());
    onto.set(TAG_GENERATION, wanted.tag.generation.to_string());
    match wanted.spec.job {
        Some(job) => onto.set(JOB, job.to_string()),
        None => onto.remove(JOB),
    }
    onto.set_vector("CONTEXT", context(theirs, wanted)?);
    for limit in LIMITS.iter().filter(|limit| theirs.has(limit)) {
        onto.set(limit, "0");
    }
    cards::put(onto, theirs, wanted)
}

/// The file of one node in a folder of templates, as in 2011.
#[must_use]
pub fn node_file(folder: &Path, node: &NodeName) -> PathBuf {
    folder.join(format!("{node}.one"))
}

/// Reads a template's file: whoever may write it decides what our VMs are.
pub fn read_file(path: &Path) -> Result<String, Error> {
    let said = |what: &str| format!("template {}: {what}", path.display());
    let fail = |what: &str| Error::new(Class::BadTemplate, said(what));
    let read = || -> std::io::Result<(u32, bool, String)> {
        let file = File::open(path)?;
        let facts = file.metadata()?;
        let mut text = String::new();
        if facts.is_file() {
            file.take(MAX_TEXT as u64 + 1).read_to_string(&mut text)?;
        }
        Ok((facts.permissions().mode(), facts.is_file(), text))
    };
    let (mode, is_file, text) =
        read().map_err(|e| Error::of_file(Class::BadTemplate, said(&format!("cannot read it: {e}")), &e))?;
    if !is_file {
        return Err(fail("it is no file"));
    }
    if mode & 0o002 != 0 {
        return Err(fail("everybody may write it: chmod o-w it"));
    }
    if text.len() > MAX_TEXT {
        return Err(fail(&format!("it has more than {MAX_TEXT} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
