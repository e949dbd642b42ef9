//! A VM, and how oned shows it.

use crate::lifecycle::State;
use crate::rights::Object;
use crate::xml;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;
use thiao_opennebula::syntax::{Template, Value};

/// A VM as oned keeps it.
#[derive(Debug, Clone)]
pub struct Vm {
    pub id: u32,
    pub uid: u32,
    pub gid: u32,
    pub uname: String,
    pub gname: String,
    pub name: String,
    pub state: State,
    /// What listings show until then instead.
    pub shown: Option<(State, Instant)>,
    /// Whether it was marked for rescheduling.
    pub resched: bool,
    /// When it was made, and when it was over; Unix seconds.
    pub stime: u64,
    /// See `stime`; 0 before.
    pub etime: u64,
    /// The driver's name of it.
    pub deploy_id: String,
    /// What oned keeps of its template.
    pub template: Template,
    /// What is not in its template: tags and the like.
    pub user_template: Template,
    /// CPU in percent of a core.
    pub cpu_percent: u32,
    /// CPU as it was written.
    pub cpu: String,
    pub memory_mb: u64,
    /// VCPU, if it was given.
    pub vcpu: Option<u32>,
    /// Where it has been.
    pub history: Vec<History>,
    /// Where it goes while it moves.
    pub target: Option<u32>,
    /// Its leases: network and address.
    pub leases: Vec<(u32, std::net::Ipv4Addr)>,
    /// The secret for OneGate, if it may use it.
    pub token: Option<String>,
    /// Whether its driver shall end it at once.
    pub hard: bool,
    /// Counts its states, so that a driver's late word is not taken for a new one.
    pub epoch: u64,
    /// Whether its machine was started.
    pub started: bool,
    /// Level of a lock, if it is locked.
    pub locked: Option<i32>,
    /// Its element in short listings, escaped for XML-RPC, as long as nothing changed.
    pub cache: Option<String>,
}

/// A stay on a host.
#[derive(Debug, Clone)]
pub struct History {
    pub host: u32,
    pub hostname: String,
    /// The cluster that the host is in.
    pub cluster: u32,
    /// The system datastore that its discs are in.
    pub store: u32,
    /// Whether the scheduler chose it.
    pub by_scheduler: bool,
    /// Start and end of the stay; Unix seconds, 0 where it is not reached.
    pub stime: u64,
    /// When it was over: see `stime`; 0 before.
    pub etime: u64,
    /// Prolog's start and end.
    pub prolog: (u64, u64),
    /// The machine's start and end.
    pub running: (u64, u64),
    /// Epilog's start and end.
    pub epilog: (u64, u64),
    /// The number of the action that ended it, and who asked: action, user, group, request.
    pub action: Option<(u32, u32, u32, u32)>,
}

impl History {
    fn xml(&self, out: &mut String, vm: u32, seq: usize) {
        out.push_str("<HISTORY>");
        xml::element(out, "OID", vm);
        xml::element(out, "SEQ", seq);
        xml::element(out, "HOSTNAME", &self.hostname);
        xml::element(out, "HID", self.host);
        xml::element(out, "CID", self.cluster);
        xml::element(out, "STIME", self.stime);
        xml::element(out, "ETIME", self.etime);
        out.push_str("<VM_MAD><![CDATA[dummy]]></VM_MAD><TM_MAD><![CDATA[dummy]]></TM_MAD>");
        xml::element(out, "DS_ID", self.store);
        xml::element(out, "PLAN_ID", if self.by_scheduler { -1 } else { -2 });
        xml::element(out, "ACTION_ID", if self.by_scheduler { 0 } else { -1 });
        for (name, (start, end)) in [("P", self.prolog), ("R", self.running), ("E", self.epilog)] {
            let _ = write!(
                out,
                "<{name}STIME>{start}</{name}STIME><{name}ETIME>{end}</{name}ETIME>"
            );
        }
        match self.action {
            Some((action, uid, gid, request)) => {
                let _ = write!(
                    out,
                    "<ACTION>{action}</ACTION><UID>{uid}</UID><GID>{gid}</GID><REQUEST_ID>{request}</REQUEST_ID>"
                );
            }
            None => out.push_str("<ACTION>0</ACTION><UID>-1</UID><GID>-1</GID><REQUEST_ID>-1</REQUEST_ID>"),
        }
        out.push_str("</HISTORY>");
    }
}

impl Vm {
    /// What rules are about.
    pub fn object(&self) -> Object {
        Object {
            kind: "VM",
            id: Some(self.id),
            uid: self.uid,
            gid: self.gid,
            public: false,
        }
    }

    /// The host of its present or last stay.
    pub fn host(&self) -> Option<u32> {
        self.history.last().map(|stay| stay.host)
    }

    /// The host of the stay before, if that was another.
    pub fn host_before(&self) -> Option<u32> {
        let mut hosts = self.history.iter().rev().map(|stay| stay.host);
        let last = hosts.next()?;
        hosts.next().filter(|before| *before != last)
    }

    fn shown_state(&self, now: Instant) -> State {
        match self.shown {
            Some((state, until)) if now < until => state,
            Some(_) | None => self.state,
        }
    }

    fn owner(&self, out: &mut String) {
        xml::element(out, "ID", self.id);
        xml::element(out, "UID", self.uid);
        xml::element(out, "GID", self.gid);
        xml::element(out, "UNAME", &self.uname);
        xml::element(out, "GNAME", &self.gname);
        // oned writes names as they are: their characters are restricted.
        xml::element(out, "NAME", &self.name);
    }

    /// Everything: `one.vm.info` shows all stays, extended listings the last one.
    pub fn full(&self, out: &mut String, all_history: bool, now: Instant) {
        let state = self.shown_state(now);
        let numbers = (state.number(), state.lcm_number());
        self.in_state(out, all_history, numbers, numbers);
    }

    /// The same in some state, after another one.
    pub fn in_state(&self, out: &mut String, all_history: bool, state: (i32, i32), before: (i32, i32)) {
        out.push_str("<VM>");
        self.owner(out);
        xml::permissions(out, false);
        if let Some(level) = self.locked {
            let _ = write!(
                out,
                "<LOCK><LOCKED>{level}</LOCKED><OWNER>{}</OWNER><TIME>{}</TIME><REQ_ID>-1</REQ_ID></LOCK>",
                self.uid, self.stime
            );
        }
        xml::element(out, "LAST_POLL", 0);
        xml::element(out, "STATE", state.0);
        xml::element(out, "LCM_STATE", state.1);
        xml::element(out, "PREV_STATE", before.0);
        xml::element(out, "PREV_LCM_STATE", before.1);
        xml::element(out, "RESCHED", u8::from(self.resched));
        xml::element(out, "STIME", self.stime);
        xml::element(out, "ETIME", self.etime);
        xml::element(out, "DEPLOY_ID", &self.deploy_id);
        out.push_str("<MONITORING></MONITORING><SCHED_ACTIONS></SCHED_ACTIONS>");
        xml::template(out, "TEMPLATE", &self.template);
        xml::template(out, "USER_TEMPLATE", &self.user_template);
        if self.history.is_empty() {
            out.push_str("<HISTORY_RECORDS/>");
        } else {
            out.push_str("<HISTORY_RECORDS>");
            let skip = if all_history { 0 } else { self.history.len() - 1 };
            for (seq, stay) in self.history.iter().enumerate().skip(skip) {
                stay.xml(out, self.id, seq);
            }
            out.push_str("</HISTORY_RECORDS>");
        }
        out.push_str("<BACKUPS><BACKUP_CONFIG/><BACKUP_IDS></BACKUP_IDS></BACKUPS></VM>");
    }

    /// What short listings show: no tags, no context.
    pub fn short(&self, out: &mut String, now: Instant) {
        let state = self.shown_state(now);
        out.push_str("<VM>");
        self.owner(out);
        xml::element(out, "LAST_POLL", 0);
        xml::element(out, "STATE", state.number());
        xml::element(out, "LCM_STATE", state.lcm_number());
        xml::element(out, "RESCHED", u8::from(self.resched));
        xml::element(out, "STIME", self.stime);
        xml::element(out, "ETIME", self.etime);
        xml::element(out, "DEPLOY_ID", &self.deploy_id);
        out.push_str("<TEMPLATE>");
        xml::element(out, "CPU", &self.cpu);
        xml::element(out, "MEMORY", self.memory_mb);
        xml::element(
            out,
            "VCPU",
            self.vcpu.map(|count| count.to_string()).unwrap_or_default(),
        );
        for nic in self.template.vectors("NIC") {
            out.push_str("<NIC>");
            for key in [
                "IP",
                "NETWORK_MODE",
                "SCHED_REQUIREMENTS",
                "SCHED_RANK",
                "MAC",
                "NETWORK",
                "NETWORK_ID",
                "NIC_ID",
                "SECURITY_GROUPS",
            ] {
                if let Some((_, value)) = nic.iter().find(|(name, _)| name == key) {
                    xml::cdata(out, key, value);
                }
            }
            out.push_str("</NIC>");
        }
        out.push_str("</TEMPLATE><MONITORING/><USER_TEMPLATE>");
        for key in [
            "ERROR",
            "LABELS",
            "SCHED_MESSAGE",
            "SCHED_RANK",
            "SCHED_REQUIREMENTS",
        ] {
            if let Some(value) = self.user_template.get(key) {
                xml::cdata(out, key, value);
            }
        }
        out.push_str("</USER_TEMPLATE>");
        match self.history.last() {
            None => out.push_str("<HISTORY_RECORDS/>"),
            Some(stay) => {
                out.push_str("<HISTORY_RECORDS><HISTORY>");
                xml::element(out, "OID", self.id);
                xml::element(out, "SEQ", self.history.len() - 1);
                xml::cdata(out, "HOSTNAME", &stay.hostname);
                xml::element(out, "HID", stay.host);
                xml::element(out, "CID", stay.cluster);
                xml::element(out, "DS_ID", stay.store);
                out.push_str("<VM_MAD><![CDATA[dummy]]></VM_MAD><TM_MAD><![CDATA[dummy]]></TM_MAD>");
                xml::cdata(
                    out,
                    "ACTION",
                    &stay.action.map_or(0, |(action, ..)| action).to_string(),
                );
                out.push_str("</HISTORY></HISTORY_RECORDS>");
            }
        }
        out.push_str("</VM>");
    }

    /// The short form, escaped for XML-RPC; kept until something changes.
    pub fn short_escaped(&mut self, out: &mut String, now: Instant) {
        if let Some((_, until)) = self.shown {
            let mut text = String::new();
            self.short(&mut text, now);
            crate::xmlrpc::escape_into(out, &text);
            if now >= until {
                self.shown = None;
                self.cache = None;
            }
            return;
        }
        if self.cache.is_none() {
            let mut text = String::with_capacity(800);
            self.short(&mut text, now);
            self.cache = Some(crate::xmlrpc::escape(&text));
        }
        out.push_str(self.cache.as_deref().unwrap_or_default());
    }

    /// The plain attributes of USER_TEMPLATE.
    pub fn tags(&self) -> BTreeMap<String, String> {
        self.user_template
            .0
            .iter()
            .filter_map(|(key, value)| match value {
                Value::Single(text) => Some((key.clone(), text.clone())),
                Value::Vector(_) => None,
            })
            .collect()
    }
}

/// Puts the attributes of `new` in place of those of the same names, as oned merges templates.
pub fn merge(old: &mut Template, new: Template) {
    old.0
        .retain(|(key, _)| !new.0.iter().any(|(other, _)| other == key));
    old.0.extend(new.0);
}

/// Puts one plain attribute in place of all of that name.
pub fn replace(template: &mut Template, key: &str, value: impl Into<String>) {
    template.0.retain(|(name, _)| name != key);
    template.0.push((key.to_owned(), Value::Single(value.into())));
}
