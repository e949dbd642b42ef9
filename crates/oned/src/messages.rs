//! What the hook manager says on the bus: see `bus`.

use crate::front_end::FrontEnd;
use crate::host::HostState;
use crate::xmlrpc::Value;
use std::fmt::Write as _;

/// Calls that are not published: all that show pools (`HookAPI.cc`, of which those that are played here).
const UNPUBLISHED: [&str; 16] = [
    "one.vm.info",
    "one.vmpool.info",
    "one.vmpool.infoextended",
    "one.template.info",
    "one.templatepool.info",
    "one.host.info",
    "one.hostpool.info",
    "one.group.info",
    "one.grouppool.info",
    "one.vn.info",
    "one.vnpool.info",
    "one.user.info",
    "one.userpool.info",
    "one.datastorepool.info",
    "one.imagepool.info",
    "one.clusterpool.info",
];

impl FrontEnd {
    /// Publishes a VM's state, after another one.
    pub fn tell_vm(&self, id: u32, before: (i32, i32)) {
        if let Some(state) = self.vms.get(&id).map(|vm| vm.state) {
            self.tell_vm_as(id, state.numbers(), before);
        }
    }

    /// Publishes a VM in a state that it need not be in: STATE and LCM_STATE.
    pub fn tell_vm_as(&self, id: u32, state: (i32, i32), before: (i32, i32)) {
        let Some(vm) = self.vms.get(&id).filter(|_| self.bus.is_heard()) else {
            return;
        };
        let (word, lcm) = words(state);
        let mut xml = String::from("<HOOK_MESSAGE><HOOK_TYPE>STATE</HOOK_TYPE><HOOK_OBJECT>VM</HOOK_OBJECT>");
        let _ = write!(
            xml,
            "<STATE>{word}</STATE><LCM_STATE>{lcm}</LCM_STATE><RESOURCE_ID>{id}</RESOURCE_ID>"
        );
        match vm.history.last() {
            Some(stay) => {
                let _ = write!(xml, "<REMOTE_HOST>{}</REMOTE_HOST>", stay.hostname);
            }
            None => xml.push_str("<REMOTE_HOST/>"),
        }
        vm.in_state(&mut xml, true, state, before);
        xml.push_str("</HOOK_MESSAGE>");
        self.bus.publish(format!("EVENT VM {id}/{word}/{lcm} "), &xml);
        self.bus
            .publish(format!("EVENT STATE VM/{word}/{lcm}/{id} "), &xml);
    }

    /// Publishes a host's state.
    pub fn tell_host(&self, id: u32) {
        let Some(host) = self.hosts.get(id as usize).filter(|_| self.bus.is_heard()) else {
            return;
        };
        let word = match host.state {
            HostState::Monitored => "MONITORED",
            HostState::Error => "ERROR",
            HostState::Disabled => "DISABLED",
            HostState::Offline => "OFFLINE",
            HostState::Init => "INIT",
        };
        let mut xml =
            String::from("<HOOK_MESSAGE><HOOK_TYPE>STATE</HOOK_TYPE><HOOK_OBJECT>HOST</HOOK_OBJECT>");
        let _ = write!(
            xml,
            "<STATE>{word}</STATE><REMOTE_HOST>{}</REMOTE_HOST><RESOURCE_ID>{id}</RESOURCE_ID>",
            host.setup.name
        );
        host.xml(&mut xml, false, self.now());
        xml.push_str("</HOOK_MESSAGE>");
        self.bus.publish(format!("EVENT HOST {id}/{word}/ "), &xml);
        self.bus.publish(format!("EVENT STATE HOST/{word}//{id} "), &xml);
    }

    /// Publishes the call that OneGate makes for a guest.
    pub fn tell_update(&self, id: u32, text: &str) {
        let id = Value::Int(i32::try_from(id).unwrap_or(i32::MAX));
        let session = Value::Text(String::new());
        let params = [session, id.clone(), Value::Text(text.to_owned()), Value::Int(1)];
        self.tell_call("one.vm.update", &params, &[Value::Bool(true), id, Value::Int(0)]);
    }

    /// Publishes a call and its answer.
    pub fn tell_call(&self, method: &str, params: &[Value], answer: &[Value]) {
        if !self.bus.is_heard() || UNPUBLISHED.contains(&method) {
            return;
        }
        let done = u8::from(matches!(answer.first(), Some(Value::Bool(true))));
        let mut xml = format!(
            "<HOOK_MESSAGE><HOOK_TYPE>API</HOOK_TYPE><CALL>{method}</CALL><CALL_INFO><RESULT>{done}</RESULT><PARAMETERS>"
        );
        for (at, param) in (1..).zip(params) {
            let text = match param {
                // The session is told to nobody.
                _ if at == 1 => "****".to_owned(),
                Value::Bool(yes) => u8::from(*yes).to_string(),
                other => plain(other),
            };
            parameter(&mut xml, at, "IN", &text);
        }
        for (at, part) in (1..).zip(answer.iter().take(4)) {
            parameter(&mut xml, at, "OUT", &plain(part));
        }
        xml.push_str("</PARAMETERS><EXTRA></EXTRA></CALL_INFO></HOOK_MESSAGE>");
        self.bus.publish(format!("EVENT API {method} {done}"), &xml);
    }
}

/// As they are, whatever is in them: oned escapes nothing here.
fn parameter(xml: &mut String, at: usize, kind: &str, text: &str) {
    let _ = write!(
        xml,
        "<PARAMETER><POSITION>{at}</POSITION><TYPE>{kind}</TYPE><VALUE>{text}</VALUE></PARAMETER>"
    );
}

fn plain(value: &Value) -> String {
    match value {
        Value::Int(number) => number.to_string(),
        Value::Long(number) => number.to_string(),
        Value::Bool(yes) => yes.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Text(text) | Value::Escaped(text) => text.clone(),
        Value::Array(_) | Value::Struct(_) => String::new(),
    }
}

/// The names of STATE and LCM_STATE.
fn words((state, lcm): (i32, i32)) -> (String, String) {
    let name = |state: thiao_opennebula::state::VmState| state.to_string();
    let word = match state {
        3 => "ACTIVE".to_owned(),
        _ => name(thiao_opennebula::state::VmState::new(state, 0)),
    };
    (word, name(thiao_opennebula::state::VmState::new(3, lcm)))
}
