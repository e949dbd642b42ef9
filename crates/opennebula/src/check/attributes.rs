//! What a template says beside its discs and cards, and whether VMs of ours follow it.
//!
//! With `placement = "thiao"` VMs are deployed by host, and OpenNebula's scheduler is not asked: what only it
//! reads binds nothing then (seen on 7.4.0: `SCHED_REQUIREMENTS` does not bind a deploy). With `placement =
//! "opennebula"` all of that is the scheduler's.

use super::needs::{ANY_HOST, Needs, NodesetNeeds};
use super::requirements::meets;
use crate::model::Host;
use crate::settings::Placement;
use crate::syntax::{Template, Value};
use crate::template::cards::get;
use thiao_core::finding::{Finding, Verdict};
use thiao_core::world::Mode;

/// One attribute, and what is done about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub name: &'static str,
    /// Its name within a vector attribute.
    pub part: Option<&'static str>,
    rule: Rule,
}

#[derive(Debug, Clone, Copy)]
enum Rule {
    /// It reaches the VM as it is.
    Kept,
    /// How far a VM may grow: ours do not.
    Growth,
    /// Ours stands in its place: see [`crate::template`].
    Ours,
    /// The scheduler alone follows it: bad when VMs may then be where they must not be, a warning when it is a
    /// wish.
    Scheduler(Verdict),
    /// The same, and the hosts that we may use can all meet it.
    Hosts,
    /// The size of a VM must fit it.
    Topology,
    /// Hosts must have it.
    Device,
    /// OpenNebula does that to VMs under their jobs.
    Schedule,
    /// No two VMs can have it.
    Once,
    /// OpenNebula fills in its variables.
    Context,
}

const fn row(name: &'static str, rule: Rule) -> Row {
    Row {
        name,
        part: None,
        rule,
    }
}

const fn part(name: &'static str, part: &'static str, rule: Rule) -> Row {
    Row {
        name,
        part: Some(part),
        rule,
    }
}

/// Every attribute that we know to matter. One that is not here reaches the VM as it is.
pub(super) const TABLE: [Row; 27] = [
    row("CPU", Rule::Ours),
    row("VCPU", Rule::Ours),
    row("MEMORY", Rule::Ours),
    row("MEMORY_MAX", Rule::Growth),
    row("MEMORY_SLOTS", Rule::Growth),
    row("VCPU_MAX", Rule::Growth),
    row("HOT_RESIZE", Rule::Growth),
    row("CONTEXT", Rule::Context),
    row("CPU_MODEL", Rule::Kept),
    row("NIC_DEFAULT", Rule::Kept),
    row("NIC_ALIAS", Rule::Kept),
    // With the nodeset's network; without one no VM is made, which is told of the whole template.
    part("NIC", "NETWORK_MODE", Rule::Ours),
    part("NIC", "SCHED_REQUIREMENTS", Rule::Ours),
    part("NIC", "SCHED_RANK", Rule::Ours),
    part("NIC", "IP", Rule::Once),
    part("NIC", "MAC", Rule::Once),
    part("NIC_ALIAS", "IP", Rule::Once),
    part("NIC_ALIAS", "MAC", Rule::Once),
    row("PCI", Rule::Device),
    row("TOPOLOGY", Rule::Topology),
    // oned drops those of a VM that is not pinned.
    row("NUMA_NODE", Rule::Kept),
    row("SCHED_REQUIREMENTS", Rule::Hosts),
    row("SCHED_RANK", Rule::Scheduler(Verdict::Warn)),
    row("SCHED_DS_REQUIREMENTS", Rule::Scheduler(Verdict::Bad)),
    row("SCHED_DS_RANK", Rule::Scheduler(Verdict::Warn)),
    row("VMGROUP", Rule::Scheduler(Verdict::Bad)),
    row("SCHED_ACTION", Rule::Schedule),
];

/// The parts of TOPOLOGY that bind a VM to what a host has left of it.
const OF_HOSTS: [&str; 2] = ["HUGEPAGE_SIZE", "NODE_AFFINITY"];

const BY_SCHEDULER: &str = "or set placement = \"opennebula\", where its scheduler follows it";

impl Row {
    /// As people write it.
    pub fn path(&self) -> String {
        match self.part {
            None => self.name.to_owned(),
            Some(part) => format!("{}/{part}", self.name),
        }
    }

    /// What the template says there.
    fn values<'a>(&'a self, body: &'a Template) -> impl Iterator<Item = &'a Value> {
        let holds = |value: &Value| match (self.part, value) {
            (None, _) => true,
            (Some(part), Value::Vector(pairs)) => get(pairs, part).is_some(),
            (Some(_), Value::Single(_)) => false,
        };
        let named = body.0.iter().filter(|(name, _)| name == self.name);
        named.map(|(_, value)| value).filter(move |value| holds(value))
    }
}

/// Whose template it is, and for which VMs.
pub(super) struct Of<'a> {
    pub set: &'a NodesetNeeds,
    pub wanted: &'a Needs,
    /// The hosts that the user may see.
    pub hosts: &'a [Host],
    /// How many VMs may be made from it.
    pub vms: usize,
}

/// What is to be said of a template's attributes; `what` is the template.
pub(super) fn judge(body: &Template, what: &str, of: &Of<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for row in &TABLE {
        let path = row.path();
        let said = row.values(body).find_map(|value| of.one(row, value, body));
        if let Some((verdict, why, cure)) = said {
            let text = format!("nodeset {}: {why}", of.set.name);
            found.push(Finding::new(format!("{what}, {path}"), verdict, text).advice(cure));
        }
    }
    found
}

/// How bad it is, why, and the cure.
type Said = (Verdict, String, String);

/// Whether a VM of it could grow, by what the template says: 0 and NO, as Sunstone writes, ask for nothing.
fn grows(value: &Value) -> bool {
    let asks = |text: &str| !matches!(text.trim().to_ascii_uppercase().as_str(), "" | "0" | "NO");
    match value {
        Value::Single(text) => asks(text),
        Value::Vector(pairs) => pairs.iter().any(|(_, text)| asks(text)),
    }
}

impl Of<'_> {
    fn one(&self, row: &Row, value: &Value, body: &Template) -> Option<Said> {
        let path = row.path();
        let by_us = self.wanted.placement == Placement::Thiao;
        match (row.rule, value) {
            (Rule::Kept | Rule::Ours, _) => None,
            (Rule::Growth, value) => grows(value).then(|| {
                (
                    Verdict::Warn,
                    "it does not hold: a VM is as big as Slurm says, and does not grow".to_owned(),
                    format!("take {path} out of the template"),
                )
            }),
            (Rule::Scheduler(verdict), _) => by_us.then(|| {
                (
                    verdict,
                    "only OpenNebula's scheduler follows it, and with placement = \"thiao\" it is not asked"
                        .to_owned(),
                    format!("take {path} out of the template, {BY_SCHEDULER}"),
                )
            }),
            (Rule::Hosts, Value::Single(text)) => by_us.then(|| self.requirements(text)).flatten(),
            (Rule::Topology, Value::Vector(topology)) => self.topology(topology, by_us),
            (Rule::Context, Value::Vector(context)) => filled_in(context, body),
            (Rule::Hosts, Value::Vector(_)) | (Rule::Topology | Rule::Context, Value::Single(_)) => Some((
                Verdict::Bad,
                "it is not in a form that OpenNebula takes".to_owned(),
                format!("mend {path} in the template"),
            )),
            (Rule::Device, _) => by_us.then(|| {
                (
                    Verdict::Warn,
                    "Thiao does not look for hosts that have the device; one without it refuses the VM"
                        .to_owned(),
                    format!("limit opennebula.hosts to hosts that have it, {BY_SCHEDULER}"),
                )
            }),
            (Rule::Schedule, _) => Some((
                Verdict::Bad,
                "OpenNebula does that to every VM of this template when the time comes, even under a running job"
                    .to_owned(),
                format!("take {path} out of the template"),
            )),
            (Rule::Once, _) => (self.vms > 1).then(|| {
                (
                    Verdict::Bad,
                    format!(
                        "{} VMs may be made from it, and only one of them can have a fixed one",
                        self.vms
                    ),
                    format!("take {path} out of the template: OpenNebula leases addresses"),
                )
            }),
        }
    }

    /// Whether the hosts that we may use are those that it allows.
    fn requirements(&self, text: &str) -> Option<Said> {
        let ours = self.hosts.iter().filter(|host| self.wanted.may_use(host));
        let met: Vec<(&Host, Option<bool>)> = ours
            .map(|host| {
                (
                    host,
                    meets(&text.replace(ANY_HOST, &host.name), &|name| attribute(host, name)),
                )
            })
            .collect();
        let allowed: Vec<String> = met
            .iter()
            .filter(|(_, met)| *met == Some(true))
            .map(|(host, _)| format!("{:?}", host.name))
            .collect();
        if met.iter().any(|(_, met)| met.is_none()) {
            return Some((
                Verdict::Bad,
                format!(
                    "only OpenNebula's scheduler can tell whether hosts meet {text:?}, and with placement = \"thiao\" it is not asked"
                ),
                format!(
                    "name the hosts in opennebula.hosts and take SCHED_REQUIREMENTS out of the template, {BY_SCHEDULER}"
                ),
            ));
        }
        let refused: Vec<&str> = met
            .iter()
            .filter(|(_, met)| *met == Some(false))
            .map(|(host, _)| host.name.as_str())
            .collect();
        (!refused.is_empty()).then(|| {
            (
                Verdict::Bad,
                format!(
                    "{text:?} does not allow {}, where Thiao would put its VMs too",
                    refused.join(", ")
                ),
                match allowed.is_empty() {
                    true => format!("name a host in opennebula.hosts that it allows, {BY_SCHEDULER}"),
                    false => format!("set opennebula.hosts = [{}], {BY_SCHEDULER}", allowed.join(", ")),
                },
            )
        })
    }

    /// `VirtualMachine::parse_topology` of oned (7.4) refuses what does not fit the size.
    fn topology(&self, topology: &[(String, String)], by_us: bool) -> Option<Said> {
        let pinned = get(topology, "PIN_POLICY").filter(|policy| !policy.eq_ignore_ascii_case("NONE"));
        let bound = OF_HOSTS.into_iter().find(|name| get(topology, name).is_some());
        if let (true, Some(part)) = (by_us, pinned.map(|_| "PIN_POLICY").or(bound)) {
            return Some((
                Verdict::Bad,
                format!(
                    "{part} takes what a host has left of its cores and memory, and Thiao does not count that"
                ),
                format!("take {part} out of TOPOLOGY, {BY_SCHEDULER}"),
            ));
        }
        let number = |name: &str| {
            get(topology, name)
                .and_then(|text| text.trim().parse::<u32>().ok())
                .unwrap_or(0)
        };
        let parts = [number("SOCKETS"), number("CORES"), number("THREADS")];
        if parts == [0, 0, 0] {
            return None;
        }
        let cure =
            "take SOCKETS, CORES and THREADS out of TOPOLOGY: OpenNebula makes cores of all VCPUs then"
                .to_owned();
        if parts.contains(&0) {
            let why = "OpenNebula takes SOCKETS, CORES and THREADS together, or none of them".to_owned();
            return pinned.is_none().then_some((Verdict::Bad, why, cure));
        }
        let [sockets, cores, threads] = parts;
        let product = u64::from(sockets)
            .saturating_mul(u64::from(cores))
            .saturating_mul(u64::from(threads));
        let most = self.set.shape.cpus;
        let sizes = match self.set.mode {
            Mode::Job if most > 1 => format!("1 to {most}"),
            Mode::PowerSaving | Mode::Job => most.to_string(),
        };
        (sizes != product.to_string()).then(|| {
            (
                Verdict::Bad,
                format!(
                    "it is for {product} VCPUs (SOCKETS x CORES x THREADS), and its VMs have {sizes}: OpenNebula refuses \
                     others"
                ),
                cure,
            )
        })
    }
}

/// Whether OpenNebula makes a VM of it at all: it does not when it cannot read what it is to fill in.
pub(super) fn makes_one(body: &Template) -> bool {
    let mut contexts = body.0.iter().filter(|(name, _)| name == "CONTEXT");
    contexts.all(|(_, context)| match context {
        Value::Vector(pairs) => pairs.iter().all(|(_, text)| variables(text).is_some()),
        Value::Single(_) => true,
    })
}

/// What stands in a script and is no variable of OpenNebula's, and the cure.
fn filled_in(context: &[(String, String)], body: &Template) -> Option<Said> {
    let cure = |name: &str| match name {
        "START_SCRIPT" => "give the script as START_SCRIPT_BASE64 instead, in base64".to_owned(),
        _ => format!("write {name} without $"),
    };
    let of = |(name, text): &(String, String)| match variables(text) {
        None => Some((
            Verdict::Bad,
            format!(
                "OpenNebula takes a $ in {name} for one of its variables, cannot read it, and makes no VM"
            ),
            cure(name),
        )),
        Some(plain) if name == "START_SCRIPT" => {
            let known = |word: &str| ["VMID", "NAME"].contains(&word) || body.has(&word.to_ascii_uppercase());
            let lost = plain.into_iter().find(|word| !known(word))?;
            let why =
                format!("OpenNebula fills in its own variables in {name}, and puts nothing for ${lost}");
            Some((Verdict::Warn, why, cure(name)))
        }
        Some(_) => None,
    };
    context.iter().find_map(of)
}

/// The variables without `[ ]` that OpenNebula fills in; none: it cannot read the text. From its grammar
/// (7.4, `vm_var_parser.l`); `${X}` and `$(...)` were seen to fail, and `$HOME` to become nothing, on 7.4.1.
fn variables(text: &str) -> Option<Vec<&str>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        rest = after;
        let escapes = before.len() - before.trim_end_matches('\\').len();
        if escapes % 2 == 1 {
            continue;
        }
        let end = after
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(after.len());
        let (name, behind) = after.split_at(end);
        if name.is_empty() || (behind.starts_with('[') && !behind.contains(']')) {
            return None;
        }
        if !behind.starts_with('[') {
            found.push(name);
        }
    }
    Some(found)
}

/// What we know of a host by that name.
fn attribute(host: &Host, name: &str) -> Option<String> {
    match name {
        "ID" => Some(host.id.to_string()),
        "NAME" => Some(host.name.clone()),
        "CLUSTER" => Some(host.cluster.clone()),
        "CLUSTER_ID" => Some(host.cluster_id.to_string()),
        "HYPERVISOR" => Some(host.hypervisor.clone()).filter(|known| !known.is_empty()),
        _ => None,
    }
}
