//! The front-end that is measured: a stand-in, or the one that the environment names.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use thiao_core::ids::{ClusterName, Generation, HostName, NodeName, NodesetName, VmTag};
use thiao_core::view::{Shape, VmSpec};
use thiao_oned::{Fault, HostSetup, Oned, Rule, TemplateSetup};
use thiao_opennebula::model::{Devices, Host, Template};
use thiao_opennebula::settings::{Access, Guest, Placement, ReadyBy, Settings, TemplateSource, VmSource};
use thiao_opennebula::state::{HostState, VmState};
use thiao_opennebula::template::{NewVm, over_registered, vm_name};
use thiao_opennebula::{Client, state::LcmState};

/// So long a call takes in the stand-in.
pub const CALL: Duration = Duration::from_millis(7);
/// So many calls go on at once there; the others wait. A real oned gains nothing from more.
pub const AT_ONCE: usize = 4;
/// How often its scheduler goes to work.
const WINDOW: Duration = Duration::from_secs(10);
const HOSTS: usize = 100;

pub const SHAPE: Shape = Shape {
    cpus: 1,
    memory_mb: 64,
    share_percent: 10,
};

pub struct Site {
    pub endpoint: String,
    pub auth: PathBuf,
    /// Whose VMs these are: no other run's.
    pub cluster: ClusterName,
    pub nodeset: NodesetName,
    pub template: Template,
    pub hosts: Vec<Host>,
    /// For what is not measured.
    pub client: Client,
    oned: Option<Oned>,
    _dir: tempfile::TempDir,
}

/// A VM that is to be made, and all that has to be said for it.
pub struct Piece {
    pub tag: VmTag,
    pub name: String,
    pub host: HostName,
    pub host_id: u32,
    /// On top of the registered template.
    pub extra: String,
    /// All of it, for a creation without a registered template.
    pub whole: String,
}

impl Site {
    /// `template`: its name in a real front-end.
    pub fn open(template: &str) -> Result<Self, Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let (endpoint, auth, oned) = match (std::env::var("ONE_XMLRPC"), std::env::var_os("ONE_AUTH")) {
            (Ok(endpoint), Some(auth)) => (endpoint, PathBuf::from(auth), None),
            _ => {
                let auth = dir.path().join("one_auth");
                std::fs::write(&auth, "oneadmin:opennebula")?;
                std::fs::set_permissions(&auth, std::fs::Permissions::from_mode(0o600))?;
                let oned = stand_in(template)?;
                (oned.endpoint(), auth, Some(oned))
            }
        };
        let client = Client::new(&access(&endpoint, auth.clone(), 0, 2))?;
        let mut hosts = client.hosts(Devices::Left)?;
        hosts.retain(|host| host.state == HostState::Monitored);
        if hosts.is_empty() {
            return Err("the front-end shows no host that works".into());
        }
        let template = client
            .templates()?
            .into_iter()
            .find(|known| known.name == template)
            .ok_or(format!("no template {template:?}: name one by --template"))?;
        Ok(Self {
            cluster: ClusterName::new(&format!("bench{}", std::process::id()))?,
            nodeset: NodesetName::new("bench")?,
            endpoint,
            auth,
            template,
            hosts,
            client,
            oned,
            _dir: dir,
        })
    }

    pub fn is_stand_in(&self) -> bool {
        self.oned.is_some()
    }

    /// Calls seen so far, where that can be counted.
    pub fn calls(&self) -> Option<u64> {
        self.oned.as_ref().map(|oned| oned.all_calls().values().sum())
    }

    pub fn session(&self) -> Result<String, Box<dyn Error>> {
        let text = std::fs::read_to_string(&self.auth)?;
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    }

    pub fn settings(&self, nodes: usize, per_second: u32) -> Result<Settings, Box<dyn Error>> {
        let source = VmSource {
            template: TemplateSource::Registered(self.template.id.to_string()),
            networks: Vec::new(),
            gpu_pci: None,
            inputs: Default::default(),
            context: Vec::new(),
        };
        let nodes: Result<BTreeMap<_, _>, Box<dyn Error>> =
            (0..nodes).map(|n| Ok((node(n)?, self.nodeset.clone()))).collect();
        Ok(Settings {
            cluster: self.cluster.clone(),
            access: access(&self.endpoint, self.auth.clone(), per_second, 8),
            placement: Placement::Thiao,
            hosts: Vec::new(),
            host_cluster: None,
            ready: ReadyBy::Slurm,
            overhead_mb: 0,
            terminate_grace: std::time::Duration::from_secs(60),
            nodesets: BTreeMap::from([(self.nodeset.clone(), source)]),
            nodes: nodes?,
            guest: guest(),
            events: Default::default(),
            fence: None,
        })
    }

    /// VMs that never were: each run has a generation of its own.
    pub fn pieces(&self, count: usize, generation: u64) -> Result<Vec<Piece>, Box<dyn Error>> {
        let guest = guest();
        let piece = |(n, host): (usize, &Host)| {
            let tag = VmTag {
                cluster: self.cluster.clone(),
                node: node(n)?,
                generation: Generation(generation),
            };
            let name = HostName::new(&host.name)?;
            let wanted = NewVm {
                tag: &tag,
                nodeset: &self.nodeset,
                host: Some(&name),
                spec: &VmSpec::of_node(SHAPE),
                gpu_pci: None,
                inputs: &Default::default(),
                ldap_password: None,
                context: &[],
                overhead_mb: 0,
                network: None,
                ready: ReadyBy::Slurm,
                guest: &guest,
                auth: None,
            };
            let extra = over_registered(&self.template.body, &wanted)?;
            let mut whole = self.template.body.clone();
            for (key, value) in &extra.0 {
                whole.remove(key);
                whole.0.push((key.clone(), value.clone()));
            }
            whole.set("NAME", vm_name(&tag));
            Ok(Piece {
                name: vm_name(&tag),
                host: name,
                host_id: host.id,
                extra: extra.to_xml(),
                whole: whole.to_xml(),
                tag,
            })
        };
        (0..count).zip(self.hosts.iter().cycle()).map(piece).collect()
    }

    /// Those that are not DONE, with their states.
    pub fn left(&self, ids: &[u32]) -> Result<BTreeMap<u32, VmState>, Box<dyn Error>> {
        let ids: BTreeSet<u32> = ids.iter().copied().collect();
        let rows = self.client.vms()?;
        Ok(rows
            .into_iter()
            .filter(|row| ids.contains(&row.id))
            .map(|row| (row.id, row.state))
            .collect())
    }

    pub fn all_running(&self, ids: &[u32]) -> Result<bool, Box<dyn Error>> {
        let left = self.left(ids)?;
        let running = |state: &VmState| *state == VmState::Active(LcmState::Running);
        Ok(left.values().filter(|state| running(state)).count() == ids.len())
    }

    /// How often it observes while something is waited for: an observation costs oned's time.
    pub fn pause(&self) -> Duration {
        Duration::from_millis(if self.is_stand_in() { 20 } else { 500 })
    }

    /// The time from `since` until something holds.
    pub fn wait(
        &self,
        since: Instant,
        mut holds: impl FnMut() -> Result<bool, Box<dyn Error>>,
    ) -> Result<Duration, Box<dyn Error>> {
        while !holds()? {
            if since.elapsed() > Duration::from_secs(600) {
                return Err("after ten minutes the VMs are still not where they should be".into());
            }
            std::thread::sleep(self.pause());
        }
        Ok(since.elapsed())
    }
}

fn node(n: usize) -> Result<NodeName, Box<dyn Error>> {
    Ok(NodeName::new(&format!("n{n}"))?)
}

fn access(endpoint: &str, auth: PathBuf, per_second: u32, connections: usize) -> Access {
    Access {
        endpoint: endpoint.to_owned(),
        auth,
        ca_file: None,
        timeout: Duration::from_secs(30),
        requests_per_second: per_second,
        connections,
    }
}

fn guest() -> Guest {
    Guest {
        slurmctld_host: "head".to_owned(),
        slurmctld_addr: std::net::Ipv4Addr::LOCALHOST,
        slurmctld_port: 6817,
        backups: vec![],
        slurm_user: "slurm".to_owned(),
        credentials: None,
        users: Vec::new(),
        shares: Vec::new(),
        slurm_worker: false,
        context: BTreeMap::new(),
    }
}

fn stand_in(template: &str) -> Result<Oned, Box<dyn Error>> {
    let host = |n| HostSetup {
        name: format!("h{n}"),
        cpu_percent: 6400,
        memory_mb: 256_000,
        cluster: Default::default(),
    };
    let oned = Oned::start(thiao_oned::Settings {
        connections: AT_ONCE,
        hosts: (0..HOSTS).map(host).collect(),
        templates: vec![TemplateSetup {
            name: template.to_owned(),
            body: "CPU=1\nMEMORY=64\n".to_owned(),
            public: true,
        }],
        scheduler: Some(WINDOW),
        ..thiao_oned::Settings::default()
    })?;
    oned.fault(Rule::all(Fault::Slow(CALL)));
    Ok(oned)
}
