//! OpenNebula as a provider of VMs: it observes, makes, ends; it decides nothing.
//!
//! - A whole observation is two calls whatever the size: the VMs, then the hosts; and a third for
//!   those whose tags are not known yet, that may have become ready, or that the
//!   listing does not show any more. For a few that nothing shows one call each: whether they were
//!   given away (`given`). While the event bus is heard they are rare, and what is new of single VMs
//!   comes in between.
//! - A VM is made *held*, its id remembered, and then released: to the host that was
//!   chosen, or to OpenNebula's scheduler. One whose answer was lost has never run.
//! - Which VM is whose, its tags in OpenNebula say. Names are for people.
//! - Nothing is done to a VM that does not carry the tag in question.

mod bus;
mod calls;
mod end;
mod fence;
mod flight;
mod fold;
mod given;
mod listen;
mod make;
mod memory;
mod news;
mod push;
mod reach;
mod source;
#[cfg(test)]
mod tests;

pub use bus::Hearing;
pub use fold::PSEUDO_HOST;
pub use listen::{Listening, News, Observed};

use crate::client::Client;
use crate::error::{Class, Error};
use crate::inputs::Ldap;
use crate::model::{Devices, Host, Template, VmDetails};
use crate::places::Reach;
use crate::settings::{Bus, Placement, Settings, TemplateSource, VmSource};
use crate::state::VmState;
use crate::template::{NewVm, from_text, node_file, over_registered, read_file};
use calls::Calls;
use flight::Flight;
use memory::{Memory, Now, Shown};
use source::{Resolved, Sources};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use thiao_core::ids::{Generation, HostName, JobId, NodeName, NodesetName, Time, VmId, VmTag};
use thiao_core::options::VmOptions;
use thiao_core::view::{Ended, ErrorClass, ProviderView, Shape, VmSpec};
use thiao_guest::auth::Auth;

/// The oldest OpenNebula with all the calls: `one.vmpool.infoset` came with it.
const OLDEST: (u32, u32) = (5, 12);

/// How often what is really used of the hosts is asked for.
const LOADS_EVERY: Duration = Duration::from_secs(60);

/// What was found when everything was prepared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prepared {
    /// What people should know.
    pub notes: Vec<String>,
    /// Nodes for which no VM can be made until a person changes something, and why.
    pub faults: BTreeMap<NodeName, String>,
}

/// The provider. Clones share everything.
#[derive(Clone)]
pub struct OpenNebula {
    inner: Arc<Inner<Client>>,
}

impl fmt::Debug for OpenNebula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenNebula")
            .field("endpoint", &self.inner.settings.access.endpoint)
            .finish_non_exhaustive()
    }
}

impl OpenNebula {
    /// Reads the credentials; nothing is called yet.
    pub fn open(settings: Settings) -> Result<Self, Error> {
        let client = Client::new(&settings.access)?;
        Ok(Self {
            inner: Arc::new(Inner::new(settings, client)),
        })
    }

    /// Checks whether OpenNebula has what is needed: version, templates, networks, hosts.
    /// What people should know is returned. What fails here fails every creation too.
    pub fn prepare(&self, shapes: &[Shape], progress: &dyn Fn(&str)) -> Result<Prepared, Error> {
        self.inner.prepare(shapes, progress)
    }

    /// Listens to the bus from now on, if the settings name one. `wake` is called when an observation is worth while.
    ///
    /// # Errors
    /// There can be no thread for it.
    pub fn listen(&self, wake: Arc<dyn Fn() + Send + Sync>) -> std::io::Result<()> {
        let Some(address) = self.inner.settings.events.bus.address().map(str::to_owned) else {
            return Ok(());
        };
        let inner = Arc::downgrade(&self.inner);
        std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || listen::run(&inner, &address, &wake))?;
        Ok(())
    }

    /// How the bus is heard; none: nobody listens.
    #[must_use]
    pub fn listening(&self) -> Option<Listening> {
        let bus = &self.inner.settings.events.bus;
        Some(Listening {
            address: bus.address()?.to_owned(),
            configured: matches!(bus, Bus::At(_)),
            hearing: self.inner.bus().hearing()?,
        })
    }

    /// All VMs of this cluster and the hosts, whole; or, while the bus is heard, what is new; or an error.
    pub fn observe(&self) -> Result<Observed, Error> {
        let observed = self.inner.observe()?;
        self.inner.tend_groups(Instant::now());
        Ok(observed)
    }

    /// Makes the VM of this tag and releases it to this host ([`PSEUDO_HOST`]: wherever
    /// OpenNebula's scheduler puts it). `again`: it was asked for before, perhaps by
    /// another process, and is looked for first. When it returns an error, the VM may
    /// be there, held; [`OpenNebula::destroy`] ends it.
    pub fn create(&self, tag: &VmTag, host: &HostName, spec: &VmSpec, again: bool) -> Result<VmId, Error> {
        self.inner.create(tag, host, spec, again)
    }

    /// Gives the VM of this tag one push towards its end. `hard`: leaves its guest no time.
    /// Calling it again is harmless.
    pub fn destroy(&self, tag: &VmTag, id: Option<&VmId>, hard: bool) -> Result<Ended, Error> {
        self.inner.destroy(tag, id, hard)
    }

    /// What this process saw of a VM's life, oldest first.
    #[must_use]
    pub fn timeline(&self, id: &VmId) -> Vec<(Time, String)> {
        id.as_str()
            .parse()
            .map_or(Vec::new(), |id| self.inner.memory().story(id))
    }

    /// The connection, for checks and tools that share its budget.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.inner.calls
    }
}

/// The provider over any calls.
struct Inner<C> {
    settings: Settings,
    calls: C,
    memory: Mutex<Memory>,
    flight: Flight,
    sources: Sources,
    loads: Mutex<Option<Loads>>,
    places: Mutex<Option<reach::Known>>,
    bus: Mutex<bus::Bus>,
    wakes: Mutex<listen::Wakes>,
    groups: Mutex<fence::Groups>,
    /// Who changes security groups.
    turn: Mutex<()>,
    /// Whether any nodeset has GPUs or InfiniBand: else nobody asks what devices hosts have.
    devices: Devices,
    /// The id of our user, once somebody asked.
    me: OnceLock<u32>,
}

impl<C: Calls> Inner<C> {
    fn new(settings: Settings, calls: C) -> Self {
        let has_devices = |source: &VmSource| source.gpu_pci.is_some() || source.function().is_some();
        let devices = match settings.nodesets.values().any(has_devices) {
            true => Devices::Read,
            false => Devices::Left,
        };
        Self {
            devices,
            settings,
            calls,
            memory: Mutex::default(),
            flight: Flight::default(),
            sources: Sources::default(),
            loads: Mutex::default(),
            places: Mutex::default(),
            bus: Mutex::default(),
            wakes: Mutex::default(),
            groups: Mutex::new(fence::Groups::new()),
            turn: Mutex::default(),
            me: OnceLock::new(),
        }
    }

    /// Never held during a call.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Taken after the memory, where both are.
    fn bus(&self) -> MutexGuard<'_, bus::Bus> {
        self.bus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Taken after the memory and the bus.
    fn wakes(&self) -> MutexGuard<'_, listen::Wakes> {
        self.wakes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules<'a>(&'a self, reach: &'a Reach) -> fold::Rules<'a> {
        let settings = &self.settings;
        fold::Rules {
            placement: settings.placement,
            ready: settings.ready,
            hosts: &settings.hosts,
            host_cluster: settings.host_cluster.as_deref(),
            sources: &settings.nodesets,
            reach,
        }
    }

    /// What the last observation showed.
    fn view(&self) -> ProviderView {
        let reach = self.reach();
        let memory = self.memory();
        fold::view(self.rules(&reach), &memory.ours, &memory.hosts)
    }

    /// Brings the memory up to what OpenNebula has, by an observation that began after this call;
    /// those who wait for one share it.
    fn fresh(&self) -> Result<(), Error> {
        self.flight.share(|| self.remember())
    }

    /// Asks, and remembers the answers.
    fn remember(&self) -> Result<(), Error> {
        let began = Instant::now();
        // VMs before hosts: see `fold`.
        let rows = self.calls.vms()?;
        let ids = self.memory().to_ask(&rows, self.settings.ready, began);
        let mut hosts = self.calls.hosts(self.devices)?;
        self.add_loads(&mut hosts, began);
        self.look_at_places(&hosts, began);
        let details = match ids.as_slice() {
            [] => Vec::new(),
            ids => self.calls.vms_of(ids)?,
        };
        let mut seen = Shown {
            rows,
            details,
            hosts,
            ..Shown::default()
        };
        self.ask_for_missing(&mut seen, began);
        let listed: BTreeSet<u32> = match seen.details.as_slice() {
            [] => BTreeSet::new(),
            _ => seen.rows.iter().map(|row| row.id).collect(),
        };
        // Those that ended are in no listing.
        let unlisted = |vm: &VmDetails| vm.row.state != VmState::Done && !listed.contains(&vm.row.id);
        if seen.details.iter().any(unlisted) {
            seen.me = Some(self.me()?);
        }
        self.memory().take(&self.settings.cluster, seen, began, now());
        Ok(())
    }

    /// The id of our user, by whom our VMs are told from others'.
    fn me(&self) -> Result<u32, Error> {
        if let Some(me) = self.me.get() {
            return Ok(*me);
        }
        let me = self.calls.user()?.id;
        Ok(*self.me.get_or_init(|| me))
    }

    /// Adds what is really used of the hosts, asked for once a minute: people look at it,
    /// nothing is decided by it, and an observation is as good without.
    fn add_loads(&self, hosts: &mut [Host], now: Instant) {
        // Only one observation at a time is under way: nobody waits for this.
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let late = |loads: &Loads| now.duration_since(loads.asked) >= LOADS_EVERY;
        if loads.as_ref().is_none_or(late) {
            *loads = Some(Loads {
                asked: now,
                by_host: self.calls.loads().unwrap_or_default(),
            });
        }
        for host in hosts {
            let known = loads.as_ref().and_then(|loads| loads.by_host.get(&host.id));
            host.load = host.load.or(known.copied());
        }
    }

    /// The nodeset that a node is of, and what its VMs are made from.
    fn source_of(&self, node: &NodeName) -> Result<(&NodesetName, &VmSource), Error> {
        let settings = &self.settings;
        let nodeset = settings.nodes.get(node);
        nodeset
            .and_then(|name| settings.nodesets.get_key_value(name))
            .ok_or_else(|| {
                Error::new(
                    Class::BadTemplate,
                    format!("node {node} is in no nodeset: its VM has no template"),
                )
            })
    }

    /// The secret that guests get from us.
    fn auth(&self) -> Result<Option<Auth>, Error> {
        let Some(credentials) = &self.settings.guest.credentials else {
            return Ok(None);
        };
        let fail = |error| {
            let (what, file) = (credentials.name(), credentials.file().display());
            Error::new(
                Class::BadTemplate,
                format!("cannot read the {what} {file}: {error}; the controller's user must be able to"),
            )
        };
        credentials.read().map(Some).map_err(fail)
    }

    /// What to send for this VM.
    fn order<'a>(
        &self,
        tag: &VmTag,
        host: Option<&HostName>,
        spec: &VmSpec,
        (resolved, network): (&'a Resolved, Option<(&str, u32)>),
    ) -> Result<Order<'a>, Error> {
        let (nodeset, source) = self.source_of(&tag.node)?;
        let auth = self.auth()?;
        let ldap = source.inputs.ldap.as_ref();
        let ldap_password = ldap.map(Ldap::password).transpose()?.flatten();
        let wanted = NewVm {
            tag,
            nodeset,
            host,
            spec,
            gpu_pci: source.gpu_pci.as_deref(),
            inputs: &source.inputs,
            ldap_password: ldap_password.as_ref(),
            context: &source.context,
            overhead_mb: self.settings.overhead_mb,
            network,
            ready: self.settings.ready,
            guest: &self.settings.guest,
            auth: auth.as_ref(),
        };
        let from_file = |path: &std::path::Path| {
            let text = read_file(path)?;
            from_text(&text, &path.display().to_string(), &wanted).map(|whole| Order::Whole(whole.to_xml()))
        };
        match (&source.with(&spec.options).template, &resolved.template) {
            (TemplateSource::File(path), _) => from_file(path),
            (TemplateSource::PerNode(folder), _) => from_file(&node_file(folder, &tag.node)),
            (TemplateSource::Registered(_), Some(template)) => Ok(Order::Registered {
                template,
                extra: over_registered(&template.body, &wanted)?.to_xml(),
            }),
            (TemplateSource::Registered(name), None) => Err(Error::new(
                Class::NoSuchObject,
                format!("nodeset {nodeset}: the template {name:?} was not found"),
            )),
        }
    }

    fn prepare(&self, shapes: &[Shape], progress: &dyn Fn(&str)) -> Result<Prepared, Error> {
        progress("asking OpenNebula for its version, templates, networks and hosts");
        // A controller that starts observes by itself at the same time: once is enough.
        let observation = self.flight.current();
        let version = self.calls.version()?;
        if parse_version(&version).is_none_or(|version| version < OLDEST) {
            return Err(Error::new(
                Class::Unknown,
                format!(
                    "{} is OpenNebula {version:?}: Thiao needs {}.{} or later",
                    self.settings.access.endpoint, OLDEST.0, OLDEST.1
                ),
            ));
        }
        let user = self.calls.user()?;
        let mut notes = vec![format!(
            "OpenNebula {version} at {}, as user {}",
            self.settings.access.endpoint, user.name
        )];
        let faults = self.faults(shapes.first().copied().unwrap_or(Shape {
            cpus: 1,
            memory_mb: 512,
            share_percent: 100,
        }))?;
        self.flight.share_from(observation, || self.remember())?;
        notes.extend(self.notes_on(&self.view()));
        Ok(Prepared {
            notes,
            faults: faults
                .into_iter()
                .map(|(node, error)| (node, error.text))
                .collect(),
        })
    }

    /// Nodes for which no VM can be made, and why: what is wrong with a nodeset's template costs that nodeset
    /// alone, with a node's own that node.
    fn faults(&self, shape: Shape) -> Result<BTreeMap<NodeName, Error>, Error> {
        let nodes = &self.settings.nodes;
        // One VM of each nodeset, or of each node where each has a template of its own.
        let mut samples: BTreeMap<&NodesetName, Vec<&NodeName>> = BTreeMap::new();
        for (node, nodeset) in nodes {
            let of = samples.entry(nodeset).or_default();
            if of.is_empty() || self.has_own_template(node)? {
                of.push(node);
            }
        }
        let mut faults = BTreeMap::new();
        for (nodeset, of) in samples {
            for node in of {
                let Err(error) = self.sample(nodeset, node, shape) else {
                    continue;
                };
                if error.class.meaning() != ErrorClass::Refused {
                    return Err(error);
                }
                if self.has_own_template(node)? {
                    faults.insert(node.clone(), error);
                } else {
                    let alike = nodes.iter().filter(|(_, of)| *of == nodeset);
                    faults.extend(alike.map(|(name, _)| (name.clone(), error.clone())));
                }
            }
        }
        Ok(faults)
    }

    /// Whether the node's VM is made from a file that is for this node alone.
    fn has_own_template(&self, node: &NodeName) -> Result<bool, Error> {
        let (_, source) = self.source_of(node)?;
        Ok(matches!(source.template, TemplateSource::PerNode(_)))
    }

    /// What people should know of what is there.
    fn notes_on(&self, view: &ProviderView) -> Vec<String> {
        let settings = &self.settings;
        let mut notes = vec![match settings.placement {
            Placement::Thiao if view.hosts.is_empty() => {
                "OpenNebula shows no host to this user: placing VMs needs rights on hosts \
                 (oneacl create '#UID HOST/* USE+MANAGE'), or placement = \"opennebula\""
                    .to_owned()
            }
            Placement::Thiao => {
                let usable = view.hosts.iter().filter(|host| host.usable).count();
                format!("{usable} of {} hosts take VMs", view.hosts.len())
            }
            Placement::OpenNebula => "OpenNebula's own scheduler places the VMs".to_owned(),
        }];
        for host in &settings.hosts {
            if !view.hosts.iter().any(|shown| shown.name == *host) {
                notes.push(format!(
                    "OpenNebula shows no host {host} to this user (or it is of another OpenNebula cluster)"
                ));
            }
        }
        for host in &self.memory().hosts {
            if let Some(beyond) = host.beyond {
                notes.push(format!(
                    "host {} takes no VMs: OpenNebula reports {beyond} there",
                    host.name
                ));
            }
        }
        if !view.vms.is_empty() {
            notes.push(format!(
                "{} VMs of cluster {} are there",
                view.vms.len(),
                settings.cluster
            ));
        }
        notes
    }

    /// Tries what the creation of a node's VM would order.
    fn sample(&self, nodeset: &NodesetName, node: &NodeName, shape: Shape) -> Result<(), Error> {
        let (_, source) = self.source_of(node)?;
        let resolved = self
            .sources
            .get(&self.calls, nodeset, source, &VmOptions::default())?;
        let tag = VmTag {
            cluster: self.settings.cluster.clone(),
            node: node.clone(),
            generation: Generation(1),
        };
        let host = HostName::new("host").ok();
        let host = host.as_ref().and_then(|host| self.chosen(host));
        // A file of job mode may name its job.
        let spec = VmSpec {
            job: Some(JobId(1)),
            ..VmSpec::of_node(shape)
        };
        let network = resolved.network_in(None);
        self.order(&tag, host, &spec, (&resolved, network)).map(drop)
    }

    /// The host, if it is us who choose one.
    fn chosen<'a>(&self, host: &'a HostName) -> Option<&'a HostName> {
        match self.settings.placement {
            Placement::Thiao => Some(host),
            Placement::OpenNebula => None,
        }
    }
}

/// What is really used of the hosts: by id, percent of a core and MiB.
struct Loads {
    asked: Instant,
    by_host: BTreeMap<u32, (u32, u64)>,
}

/// What makes a VM.
enum Order<'a> {
    /// A registered template, and what goes on top.
    Registered { template: &'a Template, extra: String },
    /// A whole template, of which nothing is registered.
    Whole(String),
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn now() -> Now {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Now {
        instant: Instant::now(),
        time: Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
    }
}
