//! OpenNebula's template syntax, as people's files have it: filled, read, ours on top; and its requirements.

use crate::input::{says_something, text};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use thiao_core::ids::{ClusterName, Generation, HostName, JobId, NodeName, NodesetName, VmTag};
use thiao_core::view::{Shape, VmSpec};
use thiao_opennebula::check::meets;
use thiao_opennebula::settings::{Guest, ReadyBy};
use thiao_opennebula::syntax::{MAX_TEXT, Template, Value};
use thiao_opennebula::template::{NewVm, from_text, read_tag};

/// A template that is read is written so that it is read as the same.
pub fn check(input: &[u8]) {
    let text = text(input);
    match Template::parse(&text) {
        Err(error) => says_something(&error, input),
        Ok(template) => {
            template.check().expect("what is read can be kept");
            let written = template.to_text();
            assert_eq!(Template::parse(&written).as_ref(), Ok(&template), "{written}");
        }
    }
    filled(&text);
    required(&text);
}

/// What is known of a host or not decides the same, wherever brackets are.
fn required(text: &str) {
    let known = |name: &str| (name.len() < 3).then(|| name.to_owned());
    let met = meets(text, &known);
    if met.is_some() && !text.trim().is_empty() {
        assert_eq!(meets(&format!("({text})"), &known), met);
        assert_eq!(meets(&format!("!({text})"), &known), met.map(|met| !met));
    }
}

/// As a VM would be made from it.
fn filled(text: &str) {
    let name = "a name";
    let tag = VmTag {
        cluster: ClusterName::new("lab").expect(name),
        node: NodeName::new("fg7").expect(name),
        generation: Generation(3),
    };
    let spec = VmSpec {
        job: Some(JobId(17)),
        ..VmSpec::of_node(Shape {
            cpus: 2,
            memory_mb: 512,
            share_percent: 50,
        })
    };
    let nodeset = NodesetName::new("fg").expect(name);
    let host = HostName::new("h1").expect(name);
    let guest = Guest {
        slurmctld_host: "head".to_owned(),
        slurmctld_addr: Ipv4Addr::new(10, 0, 0, 1),
        slurmctld_port: 6817,
        backups: vec![],
        slurm_user: "slurm".to_owned(),
        credentials: None,
        users: vec![],
        shares: vec![],
        slurm_worker: false,
        context: BTreeMap::new(),
    };
    let wanted = NewVm {
        tag: &tag,
        nodeset: &nodeset,
        host: Some(&host),
        spec: &spec,
        gpu_pci: None,
        inputs: &Default::default(),
        ldap_password: None,
        context: &[],
        overhead_mb: 64,
        network: Some(("net", 1)),
        ready: ReadyBy::Slurm,
        guest: &guest,
        auth: None,
    };
    match from_text(text, "x.one", &wanted) {
        Err(error) => says_something(&error, text.as_bytes()),
        Ok(template) => {
            template.check().expect("it reaches oned as it is");
            // Whatever the file says, the VM is ours, of this size, and told what we tell.
            assert_eq!(read_tag(|key| template.get(key).map(str::to_owned)), Some(tag));
            let named = |wanted: &str| template.0.iter().filter(|(key, _)| key == wanted).count();
            for key in ["CPU", "VCPU", "MEMORY", "NAME", "CONTEXT", "THIAO_NODE"] {
                assert_eq!(named(key), 1, "{key}");
            }
            assert_eq!(template.get("VCPU"), Some("2"));
            let size: usize = template.0.iter().map(|(_, value)| size(value)).sum();
            assert!(size < 3 * MAX_TEXT, "{size} bytes");
        }
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Single(text) => text.len(),
        Value::Vector(pairs) => pairs.iter().map(|(name, text)| name.len() + text.len()).sum(),
    }
}
