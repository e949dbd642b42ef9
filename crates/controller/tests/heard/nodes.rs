//! A provider whose VMs are namespaces: ready at once, with a real slurmd each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use thiao_controller::provider::{Ended, Observed, Prepared, Provider, ProviderError};
use thiao_core::ids::{HostName, VmId, VmTag};
use thiao_core::view::{ErrorClass, HostView, ProviderView, Shape, VmSpec, VmState, VmView};
use tokio::sync::Notify;

/// When a guest's slurmd starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// When the controller says so.
    Told,
    /// When the VM is made; what the controller says changes nothing.
    Early,
    /// The same, and once more each time that the controller says so again.
    Mended,
    /// After the second in which the VM was asked for, and VMs are not made before Slurm asks.
    Late,
}

impl Way {
    pub const ALL: [(&'static str, Self); 4] = [
        ("told", Self::Told),
        ("early", Self::Early),
        ("mended", Self::Mended),
        ("late", Self::Late),
    ];
}

pub struct Nodes {
    dir: PathBuf,
    way: Way,
    /// How long each takes until all but its slurmd is there.
    boot: Duration,
    /// Each with the number of the last start of its slurmd.
    vms: Mutex<BTreeMap<VmId, (VmView, u32)>>,
    changed: Arc<Notify>,
    pub made: AtomicUsize,
    /// Starts of slurmd beyond the first.
    pub again: AtomicUsize,
}

impl Nodes {
    pub fn new(dir: &Path, way: Way, boot: Duration, changed: Arc<Notify>) -> Arc<Self> {
        std::fs::write(dir.join("vm.sh"), include_str!("node.sh")).unwrap();
        Arc::new(Self {
            dir: dir.to_owned(),
            way,
            boot,
            vms: Mutex::default(),
            changed,
            made: AtomicUsize::new(0),
            again: AtomicUsize::new(0),
        })
    }

    fn node(&self, what: &str, tag: &VmTag) -> Result<(), ProviderError> {
        let status = Command::new("sh")
            .arg(self.dir.join("vm.sh"))
            .args([what, tag.node.as_str()])
            .stdin(Stdio::null())
            .status()
            .unwrap();
        status.success().then_some(()).ok_or_else(|| ProviderError {
            class: ErrorClass::Refused,
            text: format!("{what} {tag}: {status}"),
        })
    }

    fn slurmd(&self, tag: &VmTag, id: &VmId, wait: Duration) -> Result<(), ProviderError> {
        std::thread::sleep(wait);
        self.node("slurmd", tag)?;
        if let Some((vm, _)) = self.vms.lock().unwrap().get_mut(id) {
            vm.state = VmState::Ready;
        }
        self.changed.notify_one();
        Ok(())
    }
}

/// What is left of this second.
fn left_of_second() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Duration::from_secs(now.as_secs() + 1) - now
}

fn id_of(tag: &VmTag) -> VmId {
    VmId::new(&format!("{}.{}", tag.node, tag.generation)).unwrap()
}

impl Provider for Nodes {
    fn name(&self) -> &'static str {
        "namespaces"
    }

    fn prepare(
        &self,
        _: &[(thiao_core::ids::NodesetName, Shape)],
        _: &dyn Fn(&str),
    ) -> Result<Prepared, ProviderError> {
        Ok(Prepared::default())
    }

    fn observe(&self) -> Result<Observed, ProviderError> {
        let host = HostView {
            name: HostName::new("a").unwrap(),
            cpu_percent: 100_000,
            memory_mb: 1 << 20,
            gpus: None,
            usable: true,
            closed: None,
            not_for: Default::default(),
            load: None,
        };
        let vms = self.vms.lock().unwrap();
        Ok(Observed::Whole(ProviderView {
            hosts: vec![host],
            vms: vms.values().map(|(vm, _)| vm.clone()).collect(),
        }))
    }

    fn create(&self, tag: &VmTag, host: &HostName, _: &VmSpec, _: bool) -> Result<VmId, ProviderError> {
        let id = id_of(tag);
        let vm = VmView {
            id: id.clone(),
            tag: Some(tag.clone()),
            host: Some(host.clone()),
            memory_mb: 240,
            cpu_percent: 100,
            state: VmState::Booting,
        };
        if self.vms.lock().unwrap().insert(id.clone(), (vm, 0)).is_some() {
            return Ok(id);
        }
        self.made.fetch_add(1, Ordering::Relaxed);
        let waits_until = Instant::now() + left_of_second();
        self.node("boot", tag)?;
        std::thread::sleep(self.boot);
        match self.way {
            Way::Told => {}
            Way::Early | Way::Mended => self.slurmd(tag, &id, Duration::ZERO)?,
            Way::Late => self.slurmd(tag, &id, waits_until.saturating_duration_since(Instant::now()))?,
        }
        Ok(id)
    }

    fn start_slurmd(
        &self,
        tag: &VmTag,
        _: Option<&VmId>,
        number: u32,
        wait: Duration,
    ) -> Result<(), ProviderError> {
        let id = id_of(tag);
        if let Some((_, known)) = self.vms.lock().unwrap().get_mut(&id) {
            if *known >= number {
                return Ok(());
            }
            *known = number;
        }
        self.again.fetch_add(usize::from(number > 1), Ordering::Relaxed);
        match self.way {
            Way::Told => self.slurmd(tag, &id, wait),
            Way::Mended if number > 1 => self.slurmd(tag, &id, wait),
            Way::Early | Way::Mended | Way::Late => Ok(()),
        }
    }

    fn destroy(&self, tag: &VmTag, _: Option<&VmId>, _: bool) -> Result<Ended, ProviderError> {
        self.node("kill", tag)?;
        self.vms.lock().unwrap().remove(&id_of(tag));
        Ok(Ended::Gone)
    }

    fn timeline(&self, _: &VmId) -> Vec<(u64, String)> {
        Vec::new()
    }
}
