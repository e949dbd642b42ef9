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

/// What a message is about, as far as that concerns us.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{LcmState, VmState};

    /// The messages of a recording of a real oned 7.4.0.
    fn recorded(step: &str) -> Vec<Message> {
        let file = format!("{}/tests/data/events/{step}.txt", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let of = |pair: &[&str]| Message {
            topic: pair[0].as_bytes().to_vec(),
            body: Some(pair[1].as_bytes().to_vec()),
        };
        lines.chunks(2).map(of).collect()
    }

    /// The states that are told in it, of which VM, and where that is.
    fn states(step: &str) -> Vec<(u32, VmState, Option<u32>)> {
        let told = recorded(step).into_iter().map(|message| {
            let topic = String::from_utf8(message.topic.clone()).unwrap();
            assert!(TOPICS.iter().any(|prefix| topic.starts_with(prefix)), "{topic}");
            match event(&message) {
                Some(Event::Vm(id, Some(vm))) => {
                    assert_eq!((vm_id(&message), vm.row.id), (Some(id), id));
                    (id, vm.row.state, vm.row.host.map(|(_, host)| host))
                }
                other => panic!("{topic}: {other:?}"),
            }
        });
        told.collect()
    }

    #[test]
    fn recorded_states_are_read() {
        let active = VmState::Active;
        assert_eq!(states("create-held"), [(1, VmState::Hold, None)]);
        let up = [
            LcmState::Init,
            LcmState::Prolog,
            LcmState::Boot,
            LcmState::Running,
        ];
        assert_eq!(states("deploy"), up.map(|lcm| (1, active(lcm), Some(3))));
        let on = |step| {
            states(step)
                .into_iter()
                .map(|(_, state, _)| state)
                .collect::<Vec<_>>()
        };
        assert_eq!(on("suspend"), [active(LcmState::SaveSuspend), VmState::Suspended]);
        assert_eq!(
            on("poweroff"),
            [active(LcmState::ShutdownPoweroff), VmState::Poweroff]
        );
        // The newest of many stays is where it is.
        let moved = states("migrate-live");
        assert_eq!(moved.last(), Some(&(1, active(LcmState::Running), Some(2))));
        assert_eq!(on("terminate").last(), Some(&VmState::Done));
        // In whatever order they come.
        assert_eq!(
            on("recover-delete"),
            [VmState::Done, active(LcmState::CleanupDelete)]
        );
    }

    #[test]
    fn recorded_calls_are_read() {
        let events = |step| recorded(step).iter().map(event).collect::<Vec<_>>();
        assert_eq!(events("update-append"), [Some(Event::VmChanged(1))]);
        assert_eq!(events("chown"), [Some(Event::Pool)]);
        assert_eq!(events("host-disable"), [Some(Event::Pool), Some(Event::Pool)]);
    }

    #[test]
    fn a_vms_tags_come_with_its_state() {
        let Some(Event::Vm(_, Some(vm))) = event(&recorded("deploy")[3]) else {
            panic!("no VM")
        };
        assert_eq!(vm.user_template["THIAO_CLUSTER"], "c1");
        assert_eq!((vm.row.cpu_percent, vm.row.memory_mb), (100, 512));
    }

    #[test]
    fn what_cannot_be_read_says_of_which_vm_it_is() {
        let good = &recorded("deploy")[3];
        let with = |topic: &str, body: Option<&[u8]>| {
            event(&Message {
                topic: topic.as_bytes().to_vec(),
                body: body.map(<[u8]>::to_vec),
            })
        };
        let topic = "EVENT STATE VM/ACTIVE/RUNNING/7 ";
        for body in [None, Some(&b"?"[..]), Some(b"PEE+"), good.body.as_deref()] {
            assert_eq!(
                with(topic, body),
                Some(Event::Vm(7, None)),
                "its body is about another"
            );
        }
        for topic in [
            "",
            "EVENT",
            "EVENT STATE VM/",
            "EVENT STATE VM/A/B/x ",
            "EVENT STATE VM/A/B/-1 ",
            "EVENT API ",
        ] {
            assert_eq!(with(topic, good.body.as_deref()), None, "{topic}");
        }
    }
}
