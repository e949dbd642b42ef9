//! What `prepare` readies: image, acceleration, and the templates by shape. A
//! template that turns out broken is thrown away and made anew, once, beside
//! the work; until then guests of its shape boot. Sizes that are asked for often
//! get one beside the work, too, up to a cap.

mod demand;

use crate::accel::{self, Choice};
use crate::error::Error;
use crate::image::{self, System};
use crate::settings::{Guests, Settings};
use crate::template::{self, Plan, Template};
use crate::vmdir;
use demand::{Demand, Key, OFTEN};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use thiao_core::ids::{NodeName, NodesetName};
use thiao_core::view::Shape;

/// How far the making of a template that nobody waits for stands back: a tenth of a
/// processor is left to it where guests take the rest.
const NICE: i32 = 10;

/// What [`crate::Qemu::prepare`] has readied.
pub struct Ready {
    /// What each kind of guest starts from; else why there is nothing.
    systems: BTreeMap<Guests, Result<System, String>>,
    pub verdict: Choice,
    settings: Settings,
    folder: PathBuf,
    emulator: String,
    templates: Mutex<Templates>,
}

struct Templates {
    usable: BTreeMap<Key, Template>,
    /// Those that were made anew already: a second failure has another cause.
    remade: BTreeSet<Key>,
    demand: Demand,
}

/// Shapes that start from a template, with its price in MiB on disk; those that boot
/// each time say why.
pub type Warmth = Vec<(Shape, Result<u64, String>)>;

impl Ready {
    /// Readies everything for these shapes of these nodesets. An image that cannot be made costs its own
    /// guests alone, as long as there is another.
    pub fn prepare(
        settings: &Settings,
        shapes: &[(NodesetName, Shape)],
        progress: &dyn Fn(&str),
    ) -> Result<(Self, Warmth), Error> {
        image::can_take(&settings.guest.credentials)?;
        let systems = systems(settings, progress)?;
        // Whether guests run with KVM is asked with one of ours, which says hello.
        let ours = systems.values().find_map(|system| match system {
            Ok(System::Made(image)) => Some(image.clone()),
            Ok(System::Brought(_)) | Err(_) => None,
        });
        let ours = match ours {
            Some(image) => image,
            None => image::prepare(
                &settings.cache_dir,
                &settings.agent,
                settings.slurm.as_ref(),
                None,
                progress,
            )?,
        };
        let (verdict, new) = accel::judge(&settings.cache_dir, &ours, settings.accel)?;
        if new {
            progress(&format!(
                "guests run with {}: {}",
                verdict.accel.as_str(),
                verdict.why
            ));
        }
        let folder = settings.state_dir.join("templates");
        vmdir::keep_private(&folder)?;
        let mut keys: Vec<(Key, Shape)> = shapes
            .iter()
            .map(|(nodeset, shape)| {
                (
                    key_of(settings.guests_in(nodeset), shape, settings.overhead_mb),
                    *shape,
                )
            })
            .collect();
        keys.sort_by(|(one, _), (other, _)| one.cmp(other));
        keys.dedup_by(|(one, _), (other, _)| one == other);
        let kept = keys.iter().map(|(key, _)| key.clone()).collect();
        let ready = Self {
            systems,
            verdict,
            settings: settings.clone(),
            folder: folder.canonicalize().map_err(|e| Error::io("find", &folder, e))?,
            emulator: accel::emulator()?,
            templates: Mutex::new(Templates {
                usable: BTreeMap::new(),
                remade: BTreeSet::new(),
                demand: Demand::new(settings.templates_max, kept),
            }),
        };
        let warmth = keys
            .iter()
            .map(|(key, shape)| (*shape, ready.warm(key, progress)))
            .collect();
        template::prune(
            &ready.folder,
            &ready.templates().usable.values().collect::<Vec<_>>(),
        );
        Ok((ready, warmth))
    }

    /// What this kind of guest starts from.
    pub fn system(&self, guests: &Guests) -> Result<&System, Error> {
        match self.systems.get(guests) {
            Some(Ok(system)) => Ok(system),
            Some(Err(why)) => Err(Error::Refused(why.clone())),
            None => Err(Error::Refused("its image was not readied".to_owned())),
        }
    }

    /// Nodes whose guests have no image, and why.
    pub fn faults(&self) -> BTreeMap<NodeName, String> {
        let why = |node| self.systems.get(self.settings.guests_of(node))?.as_ref().err();
        let nodes = self.settings.nodes.keys();
        nodes
            .filter_map(|node| Some((node.clone(), why(node)?.clone())))
            .collect()
    }

    /// What a guest is made from: a VM of this many vCPUs and this memory in MiB, for this node.
    pub fn key(&self, node: &NodeName, cpus: u32, total_mb: u64) -> Key {
        Key {
            guests: self.settings.guests_of(node).clone(),
            cpus,
            total_mb,
        }
    }

    /// The template for guests of this key, if one is usable. If none is, and it is
    /// asked for often, one is made beside the work for those to come.
    pub fn template(self: &Arc<Self>, key: &Key) -> Option<Template> {
        let mut templates = self.templates();
        let now = Instant::now();
        if let Some(template) = templates.usable.get(key).cloned() {
            templates.demand.used(key, now);
            return Some(template);
        }
        if !self.settings.warm {
            return None;
        }
        let worth = templates.demand.missed(key, now)?;
        let other = worth.instead_of.and_then(|other| templates.usable.remove(&other));
        drop(templates);
        if let Some(other) = other {
            other.discard();
        }
        let (ready, key) = (Arc::clone(self), key.clone());
        std::thread::spawn(move || {
            tracing::info!(
                cpus = key.cpus,
                memory_mb = key.total_mb,
                "guests of this size were asked for {OFTEN} times: a template is made"
            );
            // Of this thread alone, and of the QEMU that it starts.
            if let Err(error) = rustix::process::nice(NICE) {
                tracing::debug!(%error, "the template is made without standing back");
            }
            ready.make_beside(&key);
            ready.templates().demand.ended();
        });
        None
    }

    fn make_beside(&self, key: &Key) {
        match self.make(key, &|words| tracing::info!("{words}")) {
            Ok(price_mb) => tracing::info!(
                cpus = key.cpus,
                memory_mb = key.total_mb,
                price_mb,
                "a template is ready"
            ),
            Err(error) => {
                tracing::warn!(%error, cpus = key.cpus, memory_mb = key.total_mb, "a template cannot be made; guests boot");
            }
        }
    }

    /// Throws a template away, and makes it anew once.
    pub fn distrust(self: &Arc<Self>, key: &Key) {
        let mut templates = self.templates();
        let Some(template) = templates.usable.remove(key) else {
            return;
        };
        template.discard();
        templates.demand.lost(key);
        if !templates.remade.insert(key.clone()) {
            return;
        }
        drop(templates);
        let (ready, key) = (Arc::clone(self), key.clone());
        std::thread::spawn(move || ready.make_beside(&key));
    }

    fn warm(&self, key: &Key, progress: &dyn Fn(&str)) -> Result<u64, String> {
        if !self.settings.warm {
            return Err("templates are switched off".to_owned());
        }
        self.make(key, progress).map_err(|error| {
            progress(&format!("guests of {} CPUs boot each time: {error}", key.cpus));
            error.to_string()
        })
    }

    /// Makes it, unless it is there; says what it takes on disk, in MiB.
    fn make(&self, key: &Key, progress: &dyn Fn(&str)) -> Result<u64, Error> {
        if let Some(template) = self.templates().usable.get(key) {
            return Ok(template.price_mb());
        }
        let System::Made(image) = self.system(&key.guests)? else {
            return Err(Error::Refused(
                "an image with cloud-init learns who it is as it boots".to_owned(),
            ));
        };
        let plan = Plan {
            folder: &self.folder,
            cluster: &self.settings.cluster,
            image,
            verdict: &self.verdict,
            emulator: &self.emulator,
            cpus: key.cpus,
            total_mb: key.total_mb,
        };
        let template = plan.prepare(&self.settings.network, progress)?;
        let price_mb = template.price_mb();
        let mut templates = self.templates();
        templates.usable.insert(key.clone(), template);
        templates.demand.placed(key.clone(), Instant::now());
        Ok(price_mb)
    }

    fn templates(&self) -> MutexGuard<'_, Templates> {
        self.templates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What each kind of guest starts from. If nothing can be made, the first one's failure is told.
fn systems(
    settings: &Settings,
    progress: &dyn Fn(&str),
) -> Result<BTreeMap<Guests, Result<System, String>>, Error> {
    let mut systems = BTreeMap::new();
    let mut first = None;
    for guests in settings.kinds() {
        let system = image::of(
            &settings.cache_dir,
            &settings.agent,
            guests,
            settings.tmp_gb,
            settings.slurm.as_ref(),
            progress,
        );
        let told = system.as_ref().map_err(ToString::to_string).cloned();
        systems.insert(guests.clone(), told);
        first = first.or(system.err());
    }
    match first {
        Some(error) if systems.values().all(Result::is_err) => Err(error),
        _ => Ok(systems),
    }
}

fn key_of(guests: &Guests, shape: &Shape, overhead_mb: u64) -> Key {
    Key {
        guests: guests.clone(),
        cpus: shape.cpus,
        total_mb: shape.total_mb(overhead_mb),
    }
}
