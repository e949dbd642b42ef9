//! The nodesets of new settings: their nodes, how big these are, and what OpenNebula makes their VMs from.

use crate::cli::setup::ask::{Asker, Question};
use crate::cli::setup::given::{Given, Maker};
use crate::cli::setup::text::text;
use std::fmt::Write as _;
use std::io;
use thiao_config::import::{ImportedSet, Size};
use thiao_core::hostlist;
use thiao_core::ids::NodesetName;
use thiao_core::policy::Policy;
use thiao_core::view::Shape;
use thiao_opennebula::settings::TemplateSource;

/// A nodeset to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    name: String,
    nodes: String,
    cpus: String,
    memory_mb: String,
    share_percent: Option<u32>,
    partition: Option<String>,
    made_from: MadeFrom,
}

/// What OpenNebula makes VMs from; nothing where this machine makes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct MadeFrom {
    template: Option<TemplateSource>,
    network: Option<String>,
}

/// Those of the old file, or the one that is typed and asked for; none: an answer is missing.
pub(super) fn sets(given: Given<'_>, maker: Maker, asker: &mut Asker<'_>) -> io::Result<Option<Vec<Set>>> {
    let old = &given.imported.sets;
    if given.flags.nodes.is_none() && !old.is_empty() {
        return Ok(Some(old.iter().map(|set| imported(set, given, maker)).collect()));
    }
    Ok(asked(given, maker, asker)?.map(|set| vec![set]))
}

/// What jobs see of a VM of that size.
fn shape(size: Size) -> Shape {
    size.shape(Policy::default().overhead_mb)
}

/// A nodeset of the old file, with what was typed in place of what it says.
fn imported(set: &ImportedSet, given: Given<'_>, maker: Maker) -> Set {
    let (flags, shape) = (given.flags, shape(set.size));
    Set {
        name: set.name.clone(),
        nodes: set.nodes.clone(),
        cpus: flags.cpus.unwrap_or(shape.cpus).to_string(),
        memory_mb: flags.memory_mb.unwrap_or(shape.memory_mb).to_string(),
        share_percent: Some(flags.share_percent.unwrap_or(shape.share_percent)),
        partition: flags.partition.clone(),
        made_from: match maker {
            Maker::Qemu => MadeFrom::default(),
            Maker::OpenNebula => MadeFrom {
                template: Some(flags.source().unwrap_or_else(|| set.source.clone())),
                network: flags.network.clone(),
            },
        },
    }
}

/// One nodeset, by what is typed and answered.
fn asked(given: Given<'_>, maker: Maker, asker: &mut Asker<'_>) -> io::Result<Option<Set>> {
    let flags = given.flags;
    let shape = given.imported.size.map(shape);
    let nodes = asker.ask(Question {
        flag: "--nodes",
        text: "The nodes' names, as Slurm writes them",
        given: flags.nodes.clone(),
        default: Some("vm[0-3]".to_owned()),
        sure: false,
        check: &|text| hostlist::expand(text).map(drop).map_err(|e| e.to_string()),
    })?;
    let number = |text: &str| text.parse::<u64>().map(drop).map_err(|e| e.to_string());
    let cpus = asker.ask(Question {
        flag: "--cpus",
        text: "CPUs of each node",
        given: flags.cpus.map(|n| n.to_string()),
        default: Some(shape.map_or(1, |shape| shape.cpus).to_string()),
        sure: true,
        check: &number,
    })?;
    let memory_mb = asker.ask(Question {
        flag: "--memory-mb",
        text: "Memory of each node for its jobs, in MiB",
        given: flags.memory_mb.map(|n| n.to_string()),
        default: Some(shape.map_or(1024, |shape| shape.memory_mb).to_string()),
        sure: shape.is_some(),
        check: &number,
    })?;
    let partition = asker.ask(Question {
        flag: "--partition",
        text: "Slurm's partition for them",
        given: flags.partition.clone(),
        default: Some("vm".to_owned()),
        sure: true,
        check: &filled,
    })?;
    let made_from = match maker {
        Maker::Qemu => MadeFrom::default(),
        Maker::OpenNebula => made_from(given, asker)?,
    };
    let (Some(nodes), Some(cpus), Some(memory_mb)) = (nodes, cpus, memory_mb) else {
        return Ok(None);
    };
    Ok(Some(Set {
        name: match &flags.nodeset {
            Some(name) => name.to_string(),
            None => set_name(&nodes),
        },
        nodes,
        cpus,
        memory_mb,
        share_percent: flags.share_percent.or(shape.map(|shape| shape.share_percent)),
        partition,
        made_from,
    }))
}

/// The template, typed, of the old file or asked for; of the network only a person is asked, and only where
/// the template may have none.
fn made_from(given: Given<'_>, asker: &mut Asker<'_>) -> io::Result<MadeFrom> {
    let known = given.flags.source().or_else(|| given.imported.template.clone());
    let network = given.flags.network.clone();
    if known.is_some() {
        return Ok(MadeFrom {
            template: known,
            network,
        });
    }
    let template = asker.ask(Question {
        flag: "--template",
        text: "OpenNebula's VM template, by name or id (see `onetemplate list`)",
        given: None,
        default: None,
        sure: false,
        check: &filled,
    })?;
    let network = if network.is_none() && matches!(asker, Asker::Person { .. }) {
        let named = asker.ask(Question {
            flag: "--network",
            text: "The network for VMs whose template has no NIC (empty: it has one)",
            given: None,
            default: Some(String::new()),
            sure: true,
            check: &|_| Ok(()),
        })?;
        named.filter(|name| !name.is_empty())
    } else {
        network
    };
    Ok(MadeFrom {
        template: template.map(TemplateSource::Registered),
        network,
    })
}

fn filled(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("there is no default for it".to_owned());
    }
    Ok(())
}

/// The letters that the list begins with.
fn set_name(nodes: &str) -> String {
    let letters: String = nodes.chars().take_while(|c| c.is_ascii_alphabetic()).collect();
    match NodesetName::new(&letters) {
        Ok(name) => name.to_string(),
        Err(_) => "vms".to_owned(),
    }
}

impl Set {
    pub(super) fn write(&self, to: &mut String) {
        to.push_str("\n[[nodeset]]\n");
        text(to, "name", &self.name);
        text(to, "nodes", &self.nodes);
        let _ = writeln!(to, "cpus = {}\nmemory_mb = {}", self.cpus, self.memory_mb);
        if let Some(percent) = self.share_percent {
            let _ = writeln!(to, "share_percent = {percent}");
        }
        if let Some(partition) = &self.partition {
            text(to, "partition", partition);
        }
        match &self.made_from.template {
            Some(TemplateSource::Registered(name)) => text(to, "template", name),
            Some(TemplateSource::File(file)) => text(to, "template_file", file.display()),
            Some(TemplateSource::PerNode(dir)) => text(to, "template_dir", dir.display()),
            None => {}
        }
        if let Some(network) = &self.made_from.network {
            text(to, "network", network);
        }
    }
}
