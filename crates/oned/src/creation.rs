//! `one.vm.allocate` and `one.template.instantiate`.

use crate::cluster::joined;
use crate::front_end::{FrontEnd, secret};
use crate::lifecycle::State;
use crate::refusal::{Code, Refusal};
use crate::template::parse;
use crate::topology;
use crate::user::User;
use crate::vm::{Vm, merge, replace};
use thiao_opennebula::syntax::{Template, Value};

/// What oned keeps in TEMPLATE; everything else becomes USER_TEMPLATE.
const KNOWN: [&str; 25] = [
    "CONTEXT",
    "CPU",
    "CPU_MODEL",
    "CREATED_BY",
    "DISK",
    "EMULATOR",
    "FEATURES",
    "GRAPHICS",
    "INPUT",
    "MEMORY",
    "NIC",
    "NIC_ALIAS",
    "NIC_DEFAULT",
    "NUMA_NODE",
    "OS",
    "PCI",
    "RAW",
    "SCHED_ACTION",
    "SUBMIT_ON_HOLD",
    "TEMPLATE_ID",
    "TM_MAD_SYSTEM",
    "TOPOLOGY",
    "VCPU",
    "VIDEO",
    "VMGROUP",
];

/// Attributes that plain users may not write (VM_RESTRICTED_ATTR of oned.conf), as far as
/// we model them; without a second name the whole of it. That `PCI` is one is recorded
/// (`one.system.config` of 7.4), not what is answered.
const RESTRICTED: [(&str, &str); 7] = [
    ("PCI", ""),
    ("NIC", "MAC"),
    ("NIC", "VLAN_ID"),
    ("NIC", "BRIDGE"),
    ("CONTEXT", "FILES"),
    ("DISK", "SOURCE"),
    ("DISK", "TOTAL_BYTES_SEC"),
];

/// Characters that no name has.
const NOT_IN_NAMES: &str = "&|:\\\";/'#{}$<>";

/// Whether oned takes the name.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("Invalid NAME, it cannot be empty".into());
    }
    if let Some(bad) = name.chars().find(|c| NOT_IN_NAMES.contains(*c)) {
        return Err(format!("Invalid NAME, char '{bad}' is not allowed"));
    }
    if name.len() > 128 {
        return Err("Invalid NAME, max length is 128 chars".into());
    }
    Ok(())
}

impl FrontEnd {
    /// Answers `one.vm.allocate`, with the new VM's id.
    pub fn allocate(&mut self, user: &User, text: &str, hold: bool) -> Result<u32, Refusal> {
        let mut template = parse(text).map_err(|text| Refusal::plain(Code::Internal, &text))?;
        self.check_restricted(user, &template, "VM Template")?;
        self.demand_create(user, "VM")?;
        topology::check(&mut template).map_err(|text| not_allocated("virtual machine", &text))?;
        self.create(user, template, hold).map_err(|refusal| refusal.0)
    }

    /// Answers `one.template.instantiate`, with the new VM's id.
    pub fn instantiate(
        &mut self,
        user: &User,
        id: i32,
        name: &str,
        hold: bool,
        extra: &str,
    ) -> Result<u32, Refusal> {
        let missing = || Refusal::no_such_signed("virtual machine template", id);
        let base = u32::try_from(id)
            .ok()
            .and_then(|id| self.templates.get(&id))
            .ok_or_else(missing)?;
        let (base_id, mut template) = (base.id, base.body.clone());
        if !extra.trim().is_empty() {
            let extra = parse(extra).map_err(|text| Refusal::plain(Code::Internal, &text))?;
            self.check_restricted(user, &extra, "VMTemplate")?;
            merge(&mut template, extra);
        }
        let mut missing = Vec::new();
        if self.used_template(user, id).is_err() {
            missing.push(format!("Not authorized to perform USE TEMPLATE [{id}]"));
        } else if !extra.trim().is_empty() && self.demand_create(user, "TEMPLATE").is_err() {
            missing.push("Not authorized to perform CREATE TEMPLATE".to_owned());
        }
        if !missing.is_empty() {
            return Err(Refusal::unauthorized(user.id, &missing.join("; ")));
        }
        topology::check(&mut template).map_err(|text| not_allocated(TEMPLATE, &text))?;
        replace(&mut template, "TEMPLATE_ID", base_id.to_string());
        template.0.retain(|(key, _)| key != "NAME");
        if !name.is_empty() {
            replace(&mut template, "NAME", name);
        }
        self.create(user, template, hold)
            .map_err(|Failed(mut refusal, late)| {
                // Failures of the pool are wrapped, those of rights and quotas are not.
                if late {
                    refusal = not_allocated(TEMPLATE, &refusal.text);
                }
                refusal
            })
    }

    fn check_restricted(&self, user: &User, template: &Template, what: &str) -> Result<(), Refusal> {
        if user.is_admin() {
            return Ok(());
        }
        for (name, sub) in RESTRICTED {
            let has = |pairs: &[(String, String)]| sub.is_empty() || pairs.iter().any(|(key, _)| key == sub);
            if template.vectors(name).any(has) {
                let attribute = if sub.is_empty() { name } else { sub };
                let text = format!("{what} includes a restricted attribute {attribute}");
                return Err(Refusal::unauthorized(user.id, &text));
            }
        }
        Ok(())
    }

    fn create(&mut self, user: &User, mut template: Template, hold: bool) -> Result<u32, Failed> {
        let late = |code: Code, text: &str| Failed(Refusal::plain(code, text), true);
        let id = self.next_vm;
        let numbers = Numbers::of(&template).map_err(|text| late(Code::Internal, &text))?;
        self.check_images(user, &template)?;
        self.check_networks(user, &template)?;
        self.check_quota(user, numbers.cpu_percent, numbers.memory_mb)
            .map_err(|refusal| Failed(refusal, false))?;
        let name = template
            .get("NAME")
            .map_or_else(|| format!("one-{id}"), str::to_owned);
        check_name(&name).map_err(|text| late(Code::Internal, &text))?;

        template
            .0
            .retain(|(key, _)| key != "NAME" && key != "TEMPLATE_NAME");
        let (mut known, user_template) = split(template);
        let leases = self.lease_all(id, &mut known)?;
        let networks: Vec<u32> = leases.iter().map(|(network, _)| *network).collect();
        let clusters = match self.common_clusters(&networks) {
            Ok(clusters) => clusters,
            Err(text) => {
                self.give_back(&leases);
                return Err(late(Code::Internal, &text));
            }
        };
        self.complete(&mut known, &user_template, id, hold, &clusters);
        let token = match self.context(&mut known, user, id, &name) {
            Ok(token) => token,
            Err(text) => {
                self.give_back(&leases);
                return Err(late(Code::Internal, &text));
            }
        };
        let now = self.now();
        self.next_vm += 1;
        self.live.insert(id);
        self.vms.insert(
            id,
            Vm {
                id,
                uid: user.id,
                gid: user.gid,
                uname: user.setup.name.clone(),
                gname: user.gname.clone(),
                name,
                state: if hold { State::Hold } else { State::Pending },
                shown: None,
                resched: false,
                stime: now,
                etime: 0,
                deploy_id: String::new(),
                template: known,
                user_template,
                cpu_percent: numbers.cpu_percent,
                cpu: numbers.cpu,
                memory_mb: numbers.memory_mb,
                vcpu: numbers.vcpu,
                history: Vec::new(),
                target: None,
                leases,
                token,
                hard: false,
                epoch: 0,
                started: false,
                locked: None,
                cache: None,
            },
        );
        self.write_rules(id);
        let first = if hold { State::Hold } else { State::Pending };
        self.tell_vm(id, first.numbers());
        Ok(id)
    }

    /// What oned adds by itself.
    fn complete(&self, known: &mut Template, user: &Template, id: u32, hold: bool, clusters: &[u32]) {
        // Requirements of the user's own come in front only while scheduling.
        let _ = user;
        if clusters.is_empty() {
            replace(known, "AUTOMATIC_REQUIREMENTS", "!(PIN_POLICY = PINNED)");
        } else {
            let contain = format!(
                "(\"CLUSTERS/ID\" @> {})",
                joined(clusters, " | \"CLUSTERS/ID\" @> ")
            );
            replace(known, "AUTOMATIC_DS_REQUIREMENTS", contain.clone());
            replace(known, "AUTOMATIC_NIC_REQUIREMENTS", contain);
            replace(
                known,
                "AUTOMATIC_REQUIREMENTS",
                format!(
                    "(CLUSTER_ID = {}) & !(PIN_POLICY = PINNED)",
                    joined(clusters, " | CLUSTER_ID = ")
                ),
            );
        }
        if hold {
            replace(known, "SUBMIT_ON_HOLD", "YES");
        }
        replace(known, "VMID", id.to_string());
        let uuid = secret();
        let part = |from: usize, to: usize| uuid.get(from..to).unwrap_or_default().to_owned();
        let uuid = format!(
            "{}-{}-4{}-a{}-{}",
            part(0, 8),
            part(8, 12),
            part(13, 16),
            part(17, 20),
            part(20, 32)
        );
        let os = known.0.iter_mut().find_map(|(key, value)| match value {
            Value::Vector(pairs) if key == "OS" => Some(pairs),
            Value::Vector(_) | Value::Single(_) => None,
        });
        match os {
            Some(pairs) => pairs.push(("UUID".into(), uuid)),
            None => known
                .0
                .push(("OS".into(), Value::Vector(vec![("UUID".into(), uuid)]))),
        }
    }
}

/// What `one.template.instantiate` calls what it makes.
const TEMPLATE: &str = "virtual machine template";

fn not_allocated(what: &str, why: &str) -> Refusal {
    Refusal::plain(Code::Allocate, &format!("Error allocating a new {what}. {why}"))
}

/// A failed creation: why, and whether instantiate wraps it in its own words.
pub struct Failed(pub Refusal, pub bool);

fn split(template: Template) -> (Template, Template) {
    let (known, user) = template
        .0
        .into_iter()
        .partition(|(key, value)| KNOWN.contains(&key.as_str()) || is_limit(key, value));
    (Template(known), Template(user))
}

/// How far a VM may grow; 0 is as if it were not there.
fn is_limit(key: &str, value: &Value) -> bool {
    match value {
        Value::Single(text) => {
            ["MEMORY_MAX", "MEMORY_SLOTS", "VCPU_MAX"].contains(&key)
                && text.trim().parse::<i64>().is_ok_and(|most| most > 0)
        }
        Value::Vector(_) => false,
    }
}

/// CPU, MEMORY and VCPU.
struct Numbers {
    cpu: String,
    cpu_percent: u32,
    memory_mb: u64,
    vcpu: Option<u32>,
}

impl Numbers {
    fn of(template: &Template) -> Result<Self, String> {
        let memory_mb = template
            .get("MEMORY")
            .and_then(|text| text.trim().parse::<u64>().ok());
        let memory_mb = memory_mb
            .filter(|memory| *memory > 0)
            .ok_or("MEMORY attribute must be a positive integer value.")?;
        let cpu_text = template.get("CPU").unwrap_or_default().trim();
        let cpu = cpu_text
            .parse::<f64>()
            .ok()
            .filter(|cpu| *cpu > 0.0 && cpu.is_finite());
        let cpu = cpu.ok_or("CPU attribute must be a positive float or integer value.")?;
        let vcpu = match template.get("VCPU") {
            None => None,
            Some(text) => {
                let count = text.trim().parse::<u32>().ok().filter(|count| *count > 0);
                Some(count.ok_or("VCPU attribute must be a positive integer value.")?)
            }
        };
        // oned counts in whole percents.
        let cpu_percent = (cpu * 100.0).floor().min(f64::from(u32::MAX)) as u32;
        Ok(Numbers {
            cpu: cpu_text.to_owned(),
            cpu_percent,
            memory_mb,
            vcpu,
        })
    }
}
