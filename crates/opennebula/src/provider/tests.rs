//! Bad days, against a scripted oned in memory.

mod bad_days;
mod ends;
mod fake;
mod fence;
mod given;
mod heard;
mod makes;
mod observations;

use super::*;
use crate::settings::{Access, Events, Guest, ReadyBy};
use crate::state::VmState;
use fake::{Fake, Fault, vm};
use std::time::Duration;
use thiao_core::ids::ClusterName;
use thiao_core::view::VmState as Seen;

const SHAPE: Shape = Shape {
    cpus: 2,
    memory_mb: 1024,
    share_percent: 50,
};

fn settings() -> Settings {
    let set = NodesetName::new("small").unwrap();
    let source = VmSource {
        template: TemplateSource::Registered("worker".to_owned()),
        networks: vec!["net".to_owned()],
        gpu_pci: None,
        inputs: Default::default(),
        context: Vec::new(),
    };
    Settings {
        cluster: ClusterName::new("prod").unwrap(),
        access: Access {
            endpoint: "http://127.0.0.1:1/RPC2".to_owned(),
            auth: "/none".into(),
            ca_file: None,
            timeout: Duration::from_secs(1),
            requests_per_second: 30,
            connections: 8,
        },
        placement: Placement::Thiao,
        hosts: vec![],
        host_cluster: None,
        ready: ReadyBy::OneGate,
        overhead_mb: 64,
        terminate_grace: Duration::from_secs(60),
        nodesets: BTreeMap::from([(set.clone(), source)]),
        nodes: (0..64).map(|n| (node(n), set.clone())).collect(),
        guest: Guest {
            slurmctld_host: "head".to_owned(),
            slurmctld_addr: std::net::Ipv4Addr::new(10, 0, 0, 1),
            slurmctld_port: 6817,
            backups: vec![],
            slurm_user: "slurm".to_owned(),
            credentials: None,
            slurm_worker: false,
            users: vec![],
            shares: vec![],
            context: BTreeMap::new(),
        },
        events: Events::default(),
        fence: None,
    }
}

/// A VM of the shape, for whatever jobs come.
fn spec() -> VmSpec {
    VmSpec::of_node(SHAPE)
}

/// A provider over a fake; the fake outlives it, as oned outlives a controller.
fn provider(fake: &Arc<Fake>) -> Inner<Arc<Fake>> {
    Inner::new(settings(), fake.clone())
}

fn node(n: u32) -> NodeName {
    NodeName::new(&format!("fg{n}")).unwrap()
}

fn tag(n: u32) -> VmTag {
    VmTag {
        cluster: ClusterName::new("prod").unwrap(),
        node: node(n),
        generation: Generation(1),
    }
}

fn host() -> HostName {
    HostName::new("h1").unwrap()
}

fn id(id: u32) -> VmId {
    VmId::new(&id.to_string()).unwrap()
}

/// A whole observation, which nobody doubts without a bus.
fn whole(provider: &Inner<Arc<Fake>>) -> ProviderView {
    match provider.observe().expect("an observation") {
        Observed::Whole(view) => view,
        Observed::News(news) => panic!("only news: {news:?}"),
    }
}

/// What an observation shows of each VM.
fn seen(provider: &Inner<Arc<Fake>>) -> Vec<(String, Seen)> {
    let view = whole(provider);
    let of = |vm: thiao_core::view::VmView| (vm.id.to_string(), vm.state);
    view.vms.into_iter().map(of).collect()
}

impl Calls for Arc<Fake> {
    fn version(&self) -> Result<String, Error> {
        Fake::version(self)
    }
    fn user(&self) -> Result<crate::model::User, Error> {
        Fake::user(self)
    }
    fn hosts(&self, _: crate::model::Devices) -> Result<Vec<crate::model::Host>, Error> {
        Fake::hosts(self)
    }
    fn vms(&self) -> Result<Vec<crate::model::VmRow>, Error> {
        Fake::vms(self)
    }
    fn vms_of(&self, ids: &[u32]) -> Result<Vec<crate::model::VmDetails>, Error> {
        Fake::vms_of(self, ids)
    }
    fn vm(&self, id: u32) -> Result<crate::model::VmDetails, Error> {
        Fake::vm(self, id)
    }
    fn templates(&self) -> Result<Vec<crate::model::Template>, Error> {
        Fake::templates(self)
    }
    fn template(&self, id: u32) -> Result<crate::model::Template, Error> {
        Fake::template(self, id)
    }
    fn networks(&self) -> Result<Vec<crate::model::Network>, Error> {
        Fake::networks(self)
    }
    fn instantiate(&self, template: &crate::model::Template, name: &str, extra: &str) -> Result<u32, Error> {
        Fake::instantiate(self, template.id, name, extra)
    }
    fn allocate(&self, template: &str) -> Result<u32, Error> {
        Fake::allocate(self, template)
    }
    fn places(&self) -> Result<crate::places::Places, Error> {
        Fake::places(self)
    }
    fn deploy(&self, vm: u32, host: u32, store: Option<u32>) -> Result<(), Error> {
        Fake::deploy(self, vm, host, store)
    }
    fn action(&self, vm: u32, action: crate::client::VmAction) -> Result<(), Error> {
        Fake::action(self, vm, action)
    }
    fn recover(&self, vm: u32, how: crate::client::Recovery) -> Result<(), Error> {
        Fake::recover(self, vm, how)
    }
    fn secgroups(&self) -> Result<Vec<crate::secgroup::SecGroup>, Error> {
        Fake::secgroups(self)
    }
    fn make_secgroup(&self, template: &crate::syntax::Template) -> Result<u32, Error> {
        Fake::make_secgroup(self, template)
    }
    fn update_secgroup(&self, id: u32, template: &crate::syntax::Template) -> Result<(), Error> {
        Fake::update_secgroup(self, id, template)
    }
    fn commit_secgroup(&self, id: u32) -> Result<(), Error> {
        Fake::commit_secgroup(self, id)
    }
    fn delete_secgroup(&self, id: u32) -> Result<(), Error> {
        Fake::delete_secgroup(self, id)
    }
    fn attach_secgroup(&self, vm: u32, _: u32, group: u32) -> Result<(), Error> {
        self.card("attach_secgroup", vm, group, true)
    }
    fn detach_secgroup(&self, vm: u32, _: u32, group: u32) -> Result<(), Error> {
        self.card("detach_secgroup", vm, group, false)
    }
    fn wired(&self, ids: &[u32]) -> Result<Vec<crate::secgroup::Wired>, Error> {
        Fake::wired(self, ids)
    }
    fn wires(&self) -> Result<Vec<crate::secgroup::Wires>, Error> {
        Fake::wires(self)
    }
}
