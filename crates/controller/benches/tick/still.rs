//! A provider that costs nothing, and one that counts another's observations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use thiao_controller::provider::{Ended, Observed, Prepared, Provider, ProviderError};
use thiao_core::ids::{ClusterName, Generation, HostName, NodeName, VmId, VmTag};
use thiao_core::view::{HostView, ProviderView, Shape, VmSpec, VmState, VmView};
use thiao_testkit::big::site::Size;

/// Shows the same VMs again and again.
pub struct Still(ProviderView);

impl Still {
    pub fn new(size: Size) -> anyhow::Result<Self> {
        let cluster = ClusterName::new("bench")?;
        let host = |i: usize| HostName::new(&format!("h{}", i % size.hosts));
        let mut view = ProviderView::default();
        for i in 0..size.hosts {
            view.hosts.push(HostView {
                name: host(i)?,
                cpu_percent: 6400,
                memory_mb: 256_000,
                gpus: None,
                usable: true,
                closed: None,
                not_for: Default::default(),
                load: None,
            });
        }
        for i in 0..size.vms {
            view.vms.push(VmView {
                id: VmId::new(&format!("n{i}.1"))?,
                tag: Some(VmTag {
                    cluster: cluster.clone(),
                    node: NodeName::new(&format!("n{i}"))?,
                    generation: Generation(1),
                }),
                host: Some(host(i)?),
                memory_mb: 1140,
                cpu_percent: 100,
                state: VmState::Ready,
            });
        }
        Ok(Self(view))
    }
}

impl Provider for Still {
    fn name(&self) -> &'static str {
        "still"
    }
    fn prepare(
        &self,
        _: &[(thiao_core::ids::NodesetName, Shape)],
        _: &dyn Fn(&str),
    ) -> Result<Prepared, ProviderError> {
        Ok(Prepared::default())
    }
    fn observe(&self) -> Result<Observed, ProviderError> {
        Ok(Observed::Whole(self.0.clone()))
    }
    fn create(&self, tag: &VmTag, _: &HostName, _: &VmSpec, _: bool) -> Result<VmId, ProviderError> {
        panic!("nothing should be made in this bench: {tag}")
    }
    fn start_slurmd(&self, tag: &VmTag, _: Option<&VmId>, _: u32, _: Duration) -> Result<(), ProviderError> {
        panic!("nothing should come up in this bench: {tag}")
    }
    fn destroy(&self, tag: &VmTag, _: Option<&VmId>, _: bool) -> Result<Ended, ProviderError> {
        panic!("nothing should be destroyed in this bench: {tag}")
    }
    fn timeline(&self, _: &VmId) -> Vec<(u64, String)> {
        Vec::new()
    }
}

/// Any provider, with its observations counted.
pub struct Counted<P> {
    inner: P,
    observations: AtomicU64,
}

impl<P> Counted<P> {
    pub fn new(inner: P) -> Self {
        Self {
            inner,
            observations: AtomicU64::new(0),
        }
    }

    /// How many observations have ended.
    pub fn observations(&self) -> u64 {
        self.observations.load(Ordering::Relaxed)
    }
}

impl<P: Provider> Provider for Counted<P> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    fn prepare(
        &self,
        shapes: &[(thiao_core::ids::NodesetName, Shape)],
        progress: &dyn Fn(&str),
    ) -> Result<Prepared, ProviderError> {
        self.inner.prepare(shapes, progress)
    }
    fn observe(&self) -> Result<Observed, ProviderError> {
        let seen = self.inner.observe();
        self.observations.fetch_add(1, Ordering::Relaxed);
        seen
    }
    fn create(
        &self,
        tag: &VmTag,
        host: &HostName,
        spec: &VmSpec,
        again: bool,
    ) -> Result<VmId, ProviderError> {
        self.inner.create(tag, host, spec, again)
    }
    fn start_slurmd(
        &self,
        tag: &VmTag,
        id: Option<&VmId>,
        number: u32,
        wait: Duration,
    ) -> Result<(), ProviderError> {
        self.inner.start_slurmd(tag, id, number, wait)
    }
    fn destroy(&self, tag: &VmTag, id: Option<&VmId>, hard: bool) -> Result<Ended, ProviderError> {
        self.inner.destroy(tag, id, hard)
    }
    fn timeline(&self, id: &VmId) -> Vec<(u64, String)> {
        self.inner.timeline(id)
    }
}
