//! What was seen against what is wanted. Pure.

use super::capacity::{Capacity, fit};
use super::functions::functions;
use super::held::{Held, held};
use super::needs::{Needs, NodesetNeeds};
use super::networks;
use super::seen::{Seen, registered};
use super::{attributes, cards, fence, rights};
use crate::error::{Class, Error};
use crate::model::{Host, Quota, User, VmDetails};
use crate::settings::{Placement, TemplateSource};
use crate::state::HostState;
use crate::syntax;
use crate::template::node_file;
use std::path::Path;
use thiao_core::finding::{Finding, Verdict};
use thiao_core::hostlist;
use thiao_core::ids::NodeName;
use thiao_core::world::Mode;

/// The first version with `one.vmpool.infoset`.
const OLDEST: (u32, u32) = (5, 12);
/// The newest major version that was tried.
const NEWEST: u32 = 7;

/// All that can be said of the front-end, good and bad, in the order in which it is to be mended.
#[must_use]
pub fn judge(seen: &Seen, wanted: &Needs) -> Vec<Finding> {
    let mut found = Vec::new();
    if !answers(seen, wanted, &mut found) {
        // Nothing else can be known.
        files(seen, wanted, &mut found);
        return found;
    }
    let held = held(seen, wanted);
    match &seen.user {
        Ok(user) => rights::judge(user, seen, wanted, &mut found),
        Err(error) => found.push(unreadable("user", "oneuser show", error)),
    }
    templates(seen, wanted, &mut found);
    files(seen, wanted, &mut found);
    networks(seen, wanted, &held, &mut found);
    fence::judge(seen, wanted, &mut found);
    if let Ok(user) = &seen.user {
        quotas(user, wanted, &held, &mut found);
    }
    hosts(seen, wanted, &held, &mut found);
    found
}

/// A listing that did not come.
fn unreadable(what: &str, command: &str, error: &Error) -> Finding {
    Finding::bad(what, format!("cannot be read: {error}"))
        .run(command)
        .unless_denied(error.denied)
}

/// Endpoint, credentials, version. Whether more can be asked.
fn answers(seen: &Seen, wanted: &Needs, found: &mut Vec<Finding>) -> bool {
    // oned refuses a wrong session on every call, this one too.
    let refused = [seen.version.as_ref().err(), seen.user.as_ref().err()]
        .into_iter()
        .flatten()
        .find(|error| error.class == Class::Authentication);
    match (&seen.version, refused) {
        (_, Some(error)) => {
            found.push(Finding::ok("endpoint", format!("{} answers", wanted.endpoint)));
            found.push(
                Finding::bad("credentials", format!("are not accepted: {error}")).advice(
                    "write `user:password`, or a token of `oneuser token-create`, into the file that \
                 opennebula.auth names",
                ),
            );
            false
        }
        (Err(error), None) => {
            let finding = Finding::bad(
                "endpoint",
                format!("{} does not answer: {error}", wanted.endpoint),
            );
            found.push(match error.class {
                Class::Network => finding.run(format!("curl -sS -o /dev/null {}", wanted.endpoint)),
                Class::Authentication
                | Class::Authorization
                | Class::NoSuchObject
                | Class::BadTemplate
                | Class::Capacity
                | Class::WrongState
                | Class::Busy
                | Class::Unknown => finding.advice("see oned's log, /var/log/one/oned.log, on the front-end"),
            });
            false
        }
        (Ok(text), None) => {
            found.push(Finding::ok("endpoint", format!("{} answers", wanted.endpoint)));
            found.push(version(text));
            if let Ok(user) = &seen.user {
                found.push(Finding::ok(
                    "credentials",
                    format!("are those of {} (user {})", user.name, user.id),
                ));
            }
            true
        }
    }
}

fn version(text: &str) -> Finding {
    let mut parts = text.trim().split('.').map(|part| part.parse::<u32>().ok());
    let (major, minor) = (parts.next().flatten(), parts.next().flatten());
    let (Some(major), Some(minor)) = (major, minor) else {
        return Finding::warn("version", format!("{text:?} is not a version that Thiao knows"));
    };
    if (major, minor) < OLDEST {
        return Finding::bad(
            "version",
            format!(
                "OpenNebula {text} is too old: {}.{} is the first that works",
                OLDEST.0, OLDEST.1
            ),
        )
        .advice("upgrade the front-end");
    }
    if major > NEWEST {
        return Finding::warn(
            "version",
            format!("OpenNebula {text} is newer than any that was tried ({NEWEST}.x)"),
        );
    }
    Finding::ok("version", format!("OpenNebula {text}"))
}

fn templates(seen: &Seen, wanted: &Needs, found: &mut Vec<Finding>) {
    let sets: Vec<(&NodesetNeeds, &str)> = wanted
        .nodesets
        .iter()
        .flat_map(|set| set.registered().map(move |name| (set, name)))
        .collect();
    if sets.is_empty() {
        return;
    }
    let all = match &seen.templates {
        Ok(all) => all,
        Err(error) => return found.push(unreadable("templates", "onetemplate list", error)),
    };
    for (set, name) in sets {
        let what = format!("template {name}");
        match registered(all, name) {
            Err(why) => {
                found.push(Finding::bad(what, format!("nodeset {}: {why}", set.name)).run("onetemplate list"))
            }
            Ok(known) => found.extend(template(
                (set, &known.body),
                (seen, wanted),
                &what,
                format!("is there (id {})", known.id),
                set.nodes.len(),
            )),
        }
    }
}

/// What is to be said of one template of a nodeset's: `good` when its VMs have a network, and what of its
/// attributes they do not follow. `vms`: how many may be made of it.
fn template(
    (set, body): (&NodesetNeeds, &syntax::Template),
    (seen, wanted): (&Seen, &Needs),
    what: &str,
    good: String,
    vms: usize,
) -> Vec<Finding> {
    let of = attributes::Of {
        set,
        wanted,
        hosts: seen.hosts.as_deref().unwrap_or_default(),
        vms,
    };
    let mut found = Vec::new();
    match cards::trouble(set, wanted, body) {
        Some((why, cure)) => {
            found.push(Finding::bad(what, format!("nodeset {}: {why}", set.name)).advice(cure));
        }
        // What is told of CONTEXT says why.
        None if !attributes::makes_one(body) => {}
        None => found.push(Finding::ok(what, good)),
    }
    found.extend(inputs(set, body, what));
    found.extend(attributes::judge(body, what, &of));
    found
}

/// What of the nodeset's inputs VMs of that template would not follow: one without a disc, whose first file
/// system is a ramdisk, is Thiao's own guest, which has no sssd and no driver of InfiniBand.
fn inputs(set: &NodesetNeeds, body: &syntax::Template, what: &str) -> Option<Finding> {
    let ramdisk = body
        .vectors("OS")
        .flatten()
        .any(|(name, _)| matches!(name.as_str(), "INITRD" | "INITRD_DS"));
    let inputs = &set.source.inputs;
    let said = [
        ("ldap", inputs.ldap.is_some()),
        ("infiniband", inputs.infiniband.is_some()),
    ];
    let mut without = said
        .iter()
        .filter(|(_, said)| *said)
        .map(|(key, _)| *key)
        .peekable();
    if !ramdisk || body.has("DISK") || without.peek().is_none() {
        return None;
    }
    let keys = without.collect::<Vec<_>>().join(" and ");
    let text = format!(
        "nodeset {}: its VMs have no disc, as Thiao's own guest, which does not follow {keys}",
        set.name
    );
    Some(Finding::warn(what, text).advice(
        "name people in [[opennebula.user]], or use a template of an image with sssd and InfiniBand's drivers",
    ))
}

fn files(seen: &Seen, wanted: &Needs, found: &mut Vec<Finding>) {
    for set in &wanted.nodesets {
        match &set.source.template {
            TemplateSource::Registered(_) => {}
            TemplateSource::File(file) => {
                let what = format!("file {}", file.display());
                match seen.files.get(file) {
                    // A network of the nodeset's is in it by now.
                    Some(Ok(body)) => found.extend(template(
                        (set, body),
                        (seen, wanted),
                        &what,
                        "makes a VM of OpenNebula's".to_owned(),
                        set.nodes.len(),
                    )),
                    Some(Err(error)) => found.push(
                        Finding::bad(what, format!("nodeset {}: {error}", set.name))
                            .advice("mend what the message says, or write the template in a form that OpenNebula takes")
                            .unless_denied(error.denied),
                    ),
                    None => {}
                }
            }
            TemplateSource::PerNode(folder) => {
                let what = format!("folder {}", folder.display());
                let file = |node: &NodeName| seen.files.get(&node_file(folder, node));
                let missing: Vec<&NodeName> = set
                    .nodes
                    .iter()
                    .filter(|node| matches!(file(node), Some(Err(_))))
                    .collect();
                let why = missing.iter().find_map(|node| match file(node) {
                    Some(Err(error)) => Some(error),
                    Some(Ok(_)) | None => None,
                });
                let worse = wrong_files(set, folder, (seen, wanted));
                found.extend(worse.clone());
                found.push(if let Some(why) = why {
                    Finding::bad(
                        what,
                        format!(
                            "nodeset {}: no usable .one file for {}: {why}",
                            set.name,
                            hostlist::fold(missing)
                        ),
                    )
                    .advice("write a file NODE.one for each, or use one template for all")
                    .unless_denied(why.denied)
                } else if worse.iter().any(|finding| finding.what == what) {
                    continue;
                } else {
                    Finding::ok(what, format!("has a file for each of {} nodes", set.nodes.len()))
                });
            }
        }
    }
}

/// What is wrong with the files of single nodes, each kind once.
fn wrong_files(set: &NodesetNeeds, folder: &Path, around: (&Seen, &Needs)) -> Vec<Finding> {
    let mut kinds: Vec<(Finding, Vec<&NodeName>)> = Vec::new();
    for node in &set.nodes {
        let Some(Ok(body)) = around.0.files.get(&node_file(folder, node)) else {
            continue;
        };
        let what = format!("folder {}", folder.display());
        let said = template((set, body), around, &what, String::new(), 1);
        for finding in said.into_iter().filter(|finding| finding.verdict != Verdict::Ok) {
            match kinds.iter_mut().find(|(kind, _)| *kind == finding) {
                Some((_, nodes)) => nodes.push(node),
                None => kinds.push((finding, vec![node])),
            }
        }
    }
    let told = |(finding, nodes): (Finding, Vec<&NodeName>)| Finding {
        text: format!("the file of {}: {}", hostlist::fold(nodes), finding.text),
        ..finding
    };
    kinds.into_iter().map(told).collect()
}

fn networks(seen: &Seen, wanted: &Needs, held: &Held<'_>, found: &mut Vec<Finding>) {
    let any = wanted
        .nodesets
        .iter()
        .any(|set| !cards::networks(set, wanted, seen).is_empty());
    match &seen.networks {
        Ok(all) => networks::judge(all, (seen, wanted), held, found),
        Err(error) if any => found.push(unreadable("networks", "onevnet list", error)),
        Err(_) => {}
    }
}

fn quotas(user: &User, wanted: &Needs, held: &Held<'_>, found: &mut Vec<Finding>) {
    // oneadmin and its group have none.
    if user.id == 0 || user.groups.contains(&0) {
        return;
    }
    for Quota { what, limit, used } in &user.quotas {
        let of = |set: &NodesetNeeds| match *what {
            "VMS" => 1,
            "CPU" => set.cpu_percent(),
            "MEMORY" => set.memory_mb(),
            _ => 0,
        };
        let shown = |amount: u64| match *what {
            "CPU" => format!("{}.{:02} cores", amount / 100, amount % 100),
            "MEMORY" => format!("{amount} MiB"),
            _ => format!("{amount} VMs"),
        };
        let needed: u64 = wanted
            .nodesets
            .iter()
            .map(|set| of(set).saturating_mul(held.missing(set) as u64))
            .fold(0, u64::saturating_add);
        let largest = wanted.nodesets.iter().map(of).max().unwrap_or(0);
        let free = limit.saturating_sub(*used);
        let what = format!("quota {what}");
        let finding = if needed <= free {
            Finding::ok(
                what,
                format!("{} are free, {} are needed", shown(free), shown(needed)),
            )
        } else if largest > *limit {
            Finding::bad(
                what,
                format!("{} in all, and one VM needs {}", shown(*limit), shown(largest)),
            )
        } else {
            Finding::warn(
                what,
                format!(
                    "{} of {} are free, the nodes without a VM need {}: not all can be up at once",
                    shown(free),
                    shown(*limit),
                    shown(needed)
                ),
            )
        };
        found.push(match finding.verdict {
            Verdict::Ok => finding,
            Verdict::Warn | Verdict::Bad => finding.run(format!("oneuser quota {}", user.id)),
        });
    }
}

fn hosts(seen: &Seen, wanted: &Needs, held: &Held<'_>, found: &mut Vec<Finding>) {
    let all = match &seen.hosts {
        Ok(all) => all,
        Err(error) => return found.push(unreadable("hosts", "onehost list", error)),
    };
    if all.is_empty() {
        found.push(invisible(seen, wanted));
        return;
    }
    let ours: Vec<&Host> = all.iter().filter(|host| wanted.may_use(host)).collect();
    for name in &wanted.hosts {
        if !all.iter().any(|host| host.name == name.as_str()) {
            found.push(
                Finding::warn(format!("host {name}"), "OpenNebula shows no host of that name")
                    .run("onehost list"),
            );
        }
    }
    if ours.is_empty() {
        found.push(
            Finding::bad(
                "hosts",
                format!(
                    "none of the {} hosts may take our VMs: see opennebula.hosts and opennebula.host_cluster",
                    all.len()
                ),
            )
            .run("onehost list"),
        );
        return;
    }
    let mut usable = Vec::new();
    for host in ours {
        if host.takes_vms() {
            usable.push(host);
        } else {
            found.push(out_of_service(host));
        }
    }
    if usable.is_empty() {
        found.push(Finding::bad("hosts", "none takes VMs now").run("onehost list"));
        return;
    }
    found.push(capacity(&usable, wanted, held));
    networks::reach(&usable, seen, wanted, found);
    functions(&usable, wanted, found);
}

fn out_of_service(host: &Host) -> Finding {
    if let Some(beyond) = host.beyond {
        return Finding::warn(
            format!("host {}", host.name),
            format!("takes no VMs: OpenNebula reports {beyond} there"),
        )
        .run(format!("onehost show {}", host.id));
    }
    let finding = Finding::warn(
        format!("host {}", host.name),
        format!("takes no new VMs: it is {}", host.state),
    );
    match host.state {
        HostState::Disabled | HostState::Offline => finding.run(format!("onehost enable {}", host.id)),
        HostState::Error => finding.run(format!("onehost show {}", host.id)),
        HostState::Init | HostState::Monitored => {
            finding.advice("wait for OpenNebula to look at it; see `onehost list`")
        }
        HostState::Unknown(_) => finding.run(format!("onehost show {}", host.id)),
    }
}

fn invisible(seen: &Seen, wanted: &Needs) -> Finding {
    let text = "OpenNebula shows no host: there is none, or the user has no right to see them";
    let user = seen
        .user
        .as_ref()
        .map_or_else(|_| "USER".to_owned(), |user| format!("#{}", user.id));
    let grant = format!("oneacl create '{user} HOST/* USE+MANAGE'");
    match wanted.placement {
        Placement::Thiao => Finding::bad("hosts", format!("{text}; Thiao's placement needs them")).run(grant),
        Placement::OpenNebula => Finding::warn(
            "hosts",
            format!("{text}; so nobody can say whether the nodes fit"),
        )
        .run(grant),
    }
}

/// Whether all nodes' VMs fit at once, beside what others have there.
fn capacity(hosts: &[&Host], wanted: &Needs, held: &Held<'_>) -> Finding {
    let capacity = |host: &&Host| {
        let ours: Vec<&&VmDetails> = held
            .vms
            .iter()
            .filter(|vm| vm.row.host.as_ref().is_some_and(|(_, id)| *id == host.id))
            .collect();
        let cpu: u64 = ours.iter().map(|vm| u64::from(vm.row.cpu_percent)).sum();
        let memory: u64 = ours.iter().map(|vm| vm.row.memory_mb).sum();
        let others_cpu = u64::from(host.promised_cpu_percent).saturating_sub(cpu);
        let others_memory = host.promised_memory_mb.saturating_sub(memory);
        Capacity {
            cpu_percent: u64::from(host.max_cpu_percent).saturating_sub(others_cpu),
            memory_mb: host.max_memory_mb.saturating_sub(others_memory),
            vms: wanted.max_vms_per_host,
        }
    };
    let capacities: Vec<Capacity> = hosts.iter().map(capacity).collect();
    let kinds: Vec<(Capacity, usize)> = wanted
        .nodesets
        .iter()
        .map(|set| {
            let size = Capacity {
                cpu_percent: set.cpu_percent(),
                memory_mb: set.memory_mb(),
                vms: 1,
            };
            let count = match set.mode {
                Mode::PowerSaving => set.nodes.len(),
                // Names for VMs as small as their jobs, which wait until they have capacity.
                Mode::Job => 0,
            };
            (size, count)
        })
        .collect();
    let fitting = fit(&capacities, &kinds);
    let nodes: usize = kinds.iter().map(|(_, count)| count).sum();
    let fitted: usize = fitting.iter().sum();
    let most = wanted.max_vms.min(nodes);
    let on = format!("{} host{}", hosts.len(), if hosts.len() == 1 { "" } else { "s" });
    let text = match nodes {
        0 => format!("jobs get VMs of their own on {on}"),
        nodes => format!("{} of {nodes} nodes' VMs fit at once on {on}", fitted.min(nodes)),
    };
    // Each alone on empty hosts: what never fits is another matter than what has to wait.
    let never: Vec<&str> = wanted
        .nodesets
        .iter()
        .zip(&kinds)
        .filter(|(set, (size, _))| !set.nodes.is_empty() && fit(&capacities, &[(*size, 1)]) == [0])
        .map(|(set, _)| set.name.as_str())
        .collect();
    if !never.is_empty() {
        return Finding::bad(
            "hosts",
            format!(
                "{text}; a full-size VM of nodeset {} fits on none of them",
                never.join(", ")
            ),
        )
        .advice("make its nodes smaller (cpus, share_percent, memory_mb), or free a host");
    }
    if fitted < most {
        return Finding::warn("hosts", format!("{text}: jobs for more wait"))
            .advice("a smaller share_percent packs more VMs on a core; or add hosts, or take fewer nodes");
    }
    Finding::ok("hosts", text)
}
