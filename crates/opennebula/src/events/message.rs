//! What OpenNebula's hook manager publishes, as far as it concerns us. Read from the sources of 7.4 (`one_hm.rb`,
//! `HookStateVM.cc`, `HookStateHost.cc`, `HookAPI.cc`) and from recordings of 7.4.
//!
//! Each change of state is published by two topics; one of them is enough: `EVENT STATE VM/ACTIVE/RUNNING/42 `, whose
//! body is base64 of a `HOOK_MESSAGE` with the whole VM. Calls are published with their results, but not those that
//! list pools.

use super::zmtp::Message;
use crate::model::VmDetails;
use crate::read;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The topics that are subscribed to. Of calls those are heard that change what no state says: a VM's user template
/// (OneGate's READY), its owner and size; a host that is enabled, changed or removed.
pub const TOPICS: [&str; 8] = [
    STATE_VM,
    STATE_HOST,
    "EVENT API one.vm.update 1",
    "EVENT API one.vm.chown 1",
    "EVENT API one.vm.resize 1",
    "EVENT API one.host.status 1",
    "EVENT API one.host.update 1",
    "EVENT API one.host.delete 1",
];

const STATE_VM: &str = "EVENT STATE VM/";
const STATE_HOST: &str = "EVENT STATE HOST/";

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A VM's state changed; none: its body could not be read.
    Vm(u32, Option<Box<VmDetails>>),
    /// Somebody changed something else of a VM.
    VmChanged(u32),
    /// Something may be new of hosts, or of whose a VM is.
    Pool,
}

/// A VM's id in the topic, where the message is of a VM's state: others' need not be read.
#[must_use]
pub fn vm_id(message: &Message) -> Option<u32> {
    let topic = std::str::from_utf8(&message.topic).ok()?;
    let mut parts = topic.strip_prefix(STATE_VM)?.trim_end().rsplit('/');
    parts.next()?.parse().ok()
}

/// What a message says; none if it is nothing that concerns us. A VM that the topic does not name is not read.
#[must_use]
pub fn event(message: &Message) -> Option<Event> {
    if let Some(id) = vm_id(message) {
        let vm = body(message).and_then(|xml| read::hook_vm(&xml).ok());
        let vm = vm.filter(|vm| vm.row.id == id);
        return Some(Event::Vm(id, vm.map(Box::new)));
    }
    let topic = std::str::from_utf8(&message.topic).ok()?;
    if topic.starts_with(STATE_HOST) {
        return Some(Event::Pool);
    }
    match topic.strip_prefix("EVENT API ")?.split(' ').next()? {
        "one.vm.update" | "one.vm.resize" => {
            // The session, which oned does not tell, then the VM's id.
            let called = body(message).and_then(|xml| read::hook_parameter(&xml, 2));
            called.map(Event::VmChanged)
        }
        "one.vm.chown" | "one.host.status" | "one.host.update" | "one.host.delete" => Some(Event::Pool),
        _ => None,
    }
}

/// The XML in a message's body.
fn body(message: &Message) -> Option<String> {
    let bytes = STANDARD.decode(message.body.as_ref()?).ok()?;
    String::from_utf8(bytes).ok()
}
