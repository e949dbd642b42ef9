//! oned's answers: the envelope, and the XML that it carries as a text.
//!
//! What is no answer is read as such XML itself, so that both are tried.

use crate::input::{says_something, text};
use std::collections::BTreeMap;
use thiao_opennebula::model::Devices;
use thiao_opennebula::wire::{Answer, Arg, Malformed, Value, answer, call};
use thiao_opennebula::{read, size as sizes};

/// No answer becomes much more than its bytes; what is none is refused with a reason.
pub fn check(input: &[u8]) {
    match answer(input) {
        Ok(Answer::Done(value)) => {
            assert!(size(&value) <= 3 * input.len(), "more than there was");
            if let Value::Text(xml) = value {
                content(&xml);
            }
        }
        // A byte that is no text becomes three.
        Ok(Answer::Refused { message, .. } | Answer::Fault { message, .. }) => {
            assert!(message.len() <= 3 * input.len());
        }
        Err(error) => {
            says_something(&error, input);
            content(&text(input));
        }
    }
    carried(&text(input));
}

/// Bytes of texts and number of values.
fn size(value: &Value) -> usize {
    match value {
        Value::Text(text) => 1 + text.len(),
        Value::Int(_) | Value::Bool(_) => 1,
        Value::Array(values) => 1 + values.iter().map(size).sum::<usize>(),
        Value::Struct(members) => {
            1 + members
                .iter()
                .map(|(name, value)| name.len() + size(value))
                .sum::<usize>()
        }
    }
}

/// All that read a document; each refuses what is not its own.
fn content(xml: &str) {
    let many = |read: Result<usize, Malformed>| match read {
        Ok(items) => assert!(items <= xml.len() / 4, "more than there was"),
        Err(error) => says_something(&error, xml.as_bytes()),
    };
    many(read::acls(xml).map(|rules| rules.len()));
    many(read::accounts(xml).map(|users| users.len()));
    many(read::circles(xml).map(|groups| groups.len()));
    many(read::images(xml).map(|images| images.len()));
    let rows = read::vms(xml);
    let details = read::vm_details(xml);
    if let (Ok(rows), Ok(details)) = (&rows, &details) {
        // Tags and context aside, both see the same VMs.
        assert_eq!(rows.len(), details.len());
        for (row, whole) in rows.iter().zip(details) {
            assert_eq!(
                (row.id, row.state, &row.host),
                (whole.row.id, whole.row.state, &whole.row.host)
            );
        }
    }
    if let Ok(rows) = &rows {
        rows.iter()
            .for_each(|vm| believable(vm.cpu_percent, vm.memory_mb));
    }
    many(rows.map(|rows| rows.len()));
    many(details.map(|vms| vms.len()));
    many(read::one_vm(xml).map(|vm| vm.user_template.len() + vm.context.len()));
    let hosts = read::hosts(xml, Devices::Read);
    for host in hosts.iter().flatten() {
        believable(host.max_cpu_percent, host.max_memory_mb);
        believable(host.promised_cpu_percent, host.promised_memory_mb);
        assert!(host.vms <= sizes::MOST_VMS);
    }
    many(hosts.map(|hosts| hosts.len()));
    let loads = read::loads(xml);
    for (cpu_percent, memory_mb) in loads.iter().flat_map(BTreeMap::values) {
        believable(*cpu_percent, *memory_mb);
    }
    many(loads.map(|loads| loads.len()));
    many(read::templates(xml).map(|templates| templates.len()));
    many(read::one_template(xml).map(|template| template.body.0.len()));
    many(read::networks(xml).map(|networks| networks.len()));
    many(read::secgroups(xml).map(|groups| groups.len()));
    many(read::one_secgroup(xml).map(|group| group.vms.len()));
    many(read::wires(xml).map(|networks| networks.len()));
    many(read::wired(xml).map(|vms| vms.len()));
    many(read::user(xml).map(|user| user.groups.len().max(user.template.len())));
    many(read::group(xml).map(|_| 0));
}

/// Sums over a pool of such sizes do not overflow.
fn believable(cpu_percent: u32, memory_mb: u64) {
    assert!(cpu_percent <= sizes::MOST_CPU_PERCENT && memory_mb <= sizes::MOST_MEMORY_MB);
}

/// A text that we send, sent back by oned: either refused at once or the same.
fn carried(text: &str) {
    let Ok(body) = call("one.x", &[Arg::Text(text)]) else {
        return;
    };
    let (_, escaped) = body.split_once("<string>").expect("a text");
    let (escaped, _) = escaped.rsplit_once("</string>").expect("a text");
    let back = format!(
        "<methodResponse><params><param><value><array><data><value><boolean>1</boolean></value>\
         <value><string>{escaped}</string></value></data></array></value></param></params></methodResponse>"
    );
    assert_eq!(
        answer(back.as_bytes()),
        Ok(Answer::Done(Value::Text(text.to_owned())))
    );
}
