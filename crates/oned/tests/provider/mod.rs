//! Thiao's provider over a stand-in.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use thiao_core::ids::{ClusterName, HostName, NodeName, NodesetName, VmId};
use thiao_core::view::{Shape, VmSpec};
use thiao_oned::Oned;
use thiao_opennebula::OpenNebula;
use thiao_opennebula::settings::{Access, Guest, Placement, ReadyBy, TemplateSource, VmSource};
use thiao_testkit::ids::tag;

/// Over nodes n0 to n2, whose VMs are made of the template `worker`, in one of these networks.
pub fn provider(oned: &Oned, placement: Placement, networks: &[&str]) -> OpenNebula {
    let dir = tempfile::tempdir().unwrap();
    let access = access(oned, dir.path());
    OpenNebula::open(settings(access, placement, networks)).unwrap()
}

/// How oned is reached, with credentials in that folder, which are read once.
pub fn access(oned: &Oned, dir: &Path) -> Access {
    let auth = dir.join("one_auth");
    std::fs::write(&auth, "oneadmin:opennebula").unwrap();
    std::fs::set_permissions(&auth, std::fs::Permissions::from_mode(0o600)).unwrap();
    Access {
        endpoint: oned.endpoint(),
        auth,
        ca_file: None,
        timeout: Duration::from_secs(5),
        requests_per_second: 0,
        connections: 2,
    }
}

/// Such a provider's settings.
pub fn settings(access: Access, placement: Placement, networks: &[&str]) -> thiao_opennebula::Settings {
    let set = NodesetName::new("n").unwrap();
    let source = VmSource {
        template: TemplateSource::Registered("worker".into()),
        networks: networks.iter().map(|name| (*name).to_owned()).collect(),
        gpu_pci: None,
        inputs: Default::default(),
        context: Vec::new(),
    };
    thiao_opennebula::Settings {
        cluster: ClusterName::new("prod").unwrap(),
        access,
        placement,
        hosts: vec![],
        host_cluster: None,
        ready: ReadyBy::Slurm,
        overhead_mb: 100,
        terminate_grace: std::time::Duration::from_secs(60),
        nodesets: [(set.clone(), source)].into(),
        nodes: (0..3)
            .map(|n| (NodeName::new(&format!("n{n}")).unwrap(), set.clone()))
            .collect(),
        guest: Guest {
            slurmctld_host: "head".into(),
            slurmctld_addr: "10.0.0.1".parse().unwrap(),
            slurmctld_port: 6817,
            backups: vec![],
            slurm_user: "slurm".into(),
            credentials: None,
            users: vec![],
            shares: vec![],
            slurm_worker: false,
            context: Default::default(),
        },
        events: Default::default(),
        fence: None,
    }
}

/// Makes a VM of a CPU for that node, on that host.
pub fn create(provider: &OpenNebula, node: &str, host: &str) -> Result<VmId, thiao_opennebula::Error> {
    let tag = tag("prod", node, 1);
    let shape = Shape {
        cpus: 1,
        memory_mb: 512,
        share_percent: 100,
    };
    provider.create(
        &tag,
        &HostName::new(host).unwrap(),
        &VmSpec::of_node(shape),
        false,
    )
}
