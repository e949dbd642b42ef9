//! What the settings want of a front-end.

use crate::model::Host;
use crate::settings::{Placement, Settings, TemplateSource, VmSource};
use std::collections::BTreeMap;
use thiao_core::ids::{ClusterName, HostName, JobId, NodeName, NodesetName};
use thiao_core::view::{Shape, VmSpec};
use thiao_core::world::Mode;

/// Stands for the host that is chosen, in a file that names it.
pub(super) const ANY_HOST: &str = "host-that-is-chosen";

/// What is wanted of the front-end.
#[derive(Debug, Clone)]
pub struct Needs {
    /// Whose VMs these are.
    pub cluster: ClusterName,
    /// How oned is reached, for people.
    pub endpoint: String,
    pub placement: Placement,
    /// The only hosts that take our VMs; empty: all.
    pub hosts: Vec<HostName>,
    /// The only OpenNebula cluster whose hosts take our VMs.
    pub host_cluster: Option<String>,
    /// Most VMs at once.
    pub max_vms: usize,
    /// Most VMs on one host.
    pub max_vms_per_host: usize,
    pub nodesets: Vec<NodesetNeeds>,
    /// Whether security groups keep VMs to whom they may reach.
    pub fence: bool,
}

/// What a nodeset wants.
#[derive(Debug, Clone)]
pub struct NodesetNeeds {
    pub name: NodesetName,
    pub nodes: Vec<NodeName>,
    /// How big each VM is, as its jobs see it; in job mode at most.
    pub shape: Shape,
    /// And at least: in job mode that of a job which asks for one CPU and nothing else.
    pub smallest: Shape,
    /// The most GPUs of a VM.
    pub gpus: u32,
    /// For whom its VMs are made.
    pub mode: Mode,
    /// Memory of each VM beside that, in MiB.
    pub overhead_mb: u64,
    /// What its VMs are made from.
    pub source: VmSource,
    /// Registered templates that its jobs may name in place of that.
    pub named: Vec<String>,
}

/// How a nodeset's VMs are asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// How big each is, as its jobs see it; in job mode at most.
    pub shape: Shape,
    /// How big each is at least.
    pub smallest: Shape,
    /// The most GPUs of one.
    pub gpus: u32,
    /// For whom they are made.
    pub mode: Mode,
    /// Registered templates that its jobs may name in place of the nodeset's.
    pub named: Vec<String>,
}

impl NodesetNeeds {
    /// All registered templates that its VMs may be of, each once.
    pub(super) fn registered(&self) -> impl Iterator<Item = &str> {
        let own = match &self.source.template {
            TemplateSource::Registered(name) => Some(name.as_str()),
            TemplateSource::File(_) | TemplateSource::PerNode(_) => None,
        };
        let named = self.named.iter().map(String::as_str);
        own.into_iter()
            .chain(named.filter(move |name| Some(*name) != own))
    }

    /// Core share of each VM, in percent of a core.
    pub(super) fn cpu_percent(&self) -> u64 {
        u64::from(self.shape.cpus) * u64::from(self.shape.share_percent)
    }

    /// Memory of each VM, in MiB.
    pub(super) fn memory_mb(&self) -> u64 {
        self.shape.total_mb(self.overhead_mb)
    }
}

impl NodesetNeeds {
    /// A VM of that size as a job would have it.
    pub(super) fn spec(&self, shape: Shape) -> VmSpec {
        VmSpec {
            job: match self.mode {
                Mode::Job => Some(JobId(1)),
                Mode::PowerSaving => None,
            },
            ..VmSpec::of_node(shape)
        }
    }
}

impl Needs {
    /// What these settings want; `asked`: of each nodeset's VMs.
    #[must_use]
    pub fn new(
        settings: &Settings,
        asked: &BTreeMap<NodesetName, Asked>,
        max_vms: usize,
        max_vms_per_host: usize,
    ) -> Self {
        let set = |(name, source): (&NodesetName, &VmSource)| {
            let asked = asked.get(name)?;
            Some(NodesetNeeds {
                shape: asked.shape,
                smallest: asked.smallest,
                gpus: asked.gpus,
                mode: asked.mode,
                named: asked.named.clone(),
                overhead_mb: settings.overhead_mb,
                name: name.clone(),
                nodes: settings
                    .nodes
                    .iter()
                    .filter(|(_, set)| *set == name)
                    .map(|(node, _)| node.clone())
                    .collect(),
                source: source.clone(),
            })
        };
        Self {
            cluster: settings.cluster.clone(),
            endpoint: settings.access.endpoint.clone(),
            placement: settings.placement,
            hosts: settings.hosts.clone(),
            host_cluster: settings.host_cluster.clone(),
            max_vms,
            max_vms_per_host,
            nodesets: settings.nodesets.iter().filter_map(set).collect(),
            fence: settings.fence.is_some(),
        }
    }

    /// Whether our VMs may go there.
    pub(super) fn may_use(&self, host: &Host) -> bool {
        let named = self.hosts.is_empty() || self.hosts.iter().any(|name| name.as_str() == host.name);
        named
            && self
                .host_cluster
                .as_ref()
                .is_none_or(|cluster| *cluster == host.cluster)
    }
}
