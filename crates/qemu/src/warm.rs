//! What `prepare` readies: image, acceleration, and the templates by shape. A
//! template that turns out broken is thrown away and made anew, once, beside
//! the work; until then guests of its shape boot. Sizes that are asked for often
//! get one beside the work, too, up to a cap.

mod demand;

use crate::accel::{self, Choice};
use crate::error::Error;
use crate::image::{self, Image};
use crate::settings::Settings;
use crate::template::{self, Plan, Template};
use crate::vmdir;
use demand::{Demand, Key, OFTEN};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use thiao_core::view::Shape;

/// How far the making of a template that nobody waits for stands back: a tenth of a
/// processor is left to it where guests take the rest.
const NICE: i32 = 10;

/// What [`crate::Qemu::prepare`] has readied.
pub struct Ready {
    pub image: Image,
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
    /// Readies everything for these shapes.
    pub fn prepare(
        settings: &Settings,
        shapes: &[Shape],
        progress: &dyn Fn(&str),
    ) -> Result<(Self, Warmth), Error> {
        image::can_take(&settings.guest.credentials)?;
        let image = image::of(
            &settings.cache_dir,
            &settings.agent,
            &settings.guests,
            settings.slurm.as_ref(),
            progress,
        )?;
        let (verdict, new) = accel::judge(&settings.cache_dir, &image, settings.accel)?;
        if new {
            progress(&format!(
                "guests run with {}: {}",
                verdict.accel.as_str(),
                verdict.why
            ));
        }
        let folder = settings.state_dir.join("templates");
        vmdir::keep_private(&folder)?;
        let keys = shapes.iter().map(|shape| key_of(shape, settings.overhead_mb));
        let ready = Self {
            image,
            verdict,
            settings: settings.clone(),
            folder: folder.canonicalize().map_err(|e| Error::io("find", &folder, e))?,
            emulator: accel::emulator()?,
            templates: Mutex::new(Templates {
                usable: BTreeMap::new(),
                remade: BTreeSet::new(),
                demand: Demand::new(settings.templates_max, keys.collect()),
            }),
        };
        let warmth = shapes
            .iter()
            .map(|shape| (*shape, ready.warm(*shape, progress)))
            .collect();
        template::prune(
            &ready.folder,
            &ready.templates().usable.values().collect::<Vec<_>>(),
        );
        Ok((ready, warmth))
    }

    /// The template for guests of this key, if one is usable. If none is, and it is
    /// asked for often, one is made beside the work for those to come.
    pub fn template(self: &Arc<Self>, key: Key) -> Option<Template> {
        let mut templates = self.templates();
        let now = Instant::now();
        if let Some(template) = templates.usable.get(&key).cloned() {
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
        let ready = Arc::clone(self);
        std::thread::spawn(move || {
            tracing::info!(
                cpus = key.0,
                memory_mb = key.1,
                "guests of this size were asked for {OFTEN} times: a template is made"
            );
            // Of this thread alone, and of the QEMU that it starts.
            if let Err(error) = rustix::process::nice(NICE) {
                tracing::debug!(%error, "the template is made without standing back");
            }
            ready.make_beside(key);
            ready.templates().demand.ended();
        });
        None
    }

    fn make_beside(&self, key: Key) {
        match self.make(key, &|words| tracing::info!("{words}")) {
            Ok(price_mb) => tracing::info!(cpus = key.0, memory_mb = key.1, price_mb, "a template is ready"),
            Err(error) => {
                tracing::warn!(%error, cpus = key.0, memory_mb = key.1, "a template cannot be made; guests boot");
            }
        }
    }

    /// Throws a template away, and makes it anew once.
    pub fn distrust(self: &Arc<Self>, key: Key) {
        let mut templates = self.templates();
        let Some(template) = templates.usable.remove(&key) else {
            return;
        };
        template.discard();
        templates.demand.lost(key);
        if !templates.remade.insert(key) {
            return;
        }
        drop(templates);
        let ready = Arc::clone(self);
        std::thread::spawn(move || ready.make_beside(key));
    }

    fn warm(&self, shape: Shape, progress: &dyn Fn(&str)) -> Result<u64, String> {
        if !self.settings.warm {
            return Err("templates are switched off".to_owned());
        }
        let key = key_of(&shape, self.settings.overhead_mb);
        self.make(key, progress).map_err(|error| {
            progress(&format!("guests of {} CPUs boot each time: {error}", shape.cpus));
            error.to_string()
        })
    }

    /// Makes it, unless it is there; says what it takes on disk, in MiB.
    fn make(&self, key: Key, progress: &dyn Fn(&str)) -> Result<u64, Error> {
        if let Some(template) = self.templates().usable.get(&key) {
            return Ok(template.price_mb());
        }
        let plan = Plan {
            folder: &self.folder,
            cluster: &self.settings.cluster,
            image: &self.image,
            verdict: &self.verdict,
            emulator: &self.emulator,
            cpus: key.0,
            total_mb: key.1,
        };
        let template = plan.prepare(&self.settings.network, progress)?;
        let price_mb = template.price_mb();
        let mut templates = self.templates();
        templates.usable.insert(key, template);
        templates.demand.placed(key, Instant::now());
        Ok(price_mb)
    }

    fn templates(&self) -> MutexGuard<'_, Templates> {
        self.templates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key_of(shape: &Shape, overhead_mb: u64) -> Key {
    (shape.cpus, shape.total_mb(overhead_mb))
}
