//! What `prepare` readies: image, acceleration, and the templates by shape. A
//! template that turns out broken is thrown away and made anew, once, beside
//! the work; until then guests of its shape boot.

use crate::accel::{self, Verdict};
use crate::error::Error;
use crate::image::{self, Image};
use crate::settings::Settings;
use crate::template::{self, Plan, Template};
use crate::vmdir;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiao_core::view::Shape;

/// What tells one template from another within a [`Ready`]: vCPUs, and memory in MiB, overhead included.
pub type Key = (u32, u64);

/// What [`crate::Qemu::prepare`] has readied.
pub struct Ready {
    /// The guests' image.
    pub image: Image,
    /// What runs them.
    pub verdict: Verdict,
    settings: Settings,
    folder: PathBuf,
    emulator: String,
    templates: Mutex<Templates>,
}

#[derive(Default)]
struct Templates {
    usable: BTreeMap<Key, Template>,
    /// Those that were made anew already: a second failure has another cause.
    remade: BTreeSet<Key>,
}

/// Shapes that start from a template; those that boot each time say why.
pub type Warmth = Vec<(Shape, Result<(), String>)>;

impl Ready {
    /// Readies everything for these shapes.
    pub fn prepare(
        settings: &Settings,
        shapes: &[Shape],
        progress: &dyn Fn(&str),
    ) -> Result<(Self, Warmth), Error> {
        let image = image::prepare(&settings.cache_dir, &settings.agent, progress)?;
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
        let ready = Self {
            image,
            verdict,
            settings: settings.clone(),
            folder: folder.canonicalize().map_err(|e| Error::io("find", &folder, e))?,
            emulator: accel::emulator()?,
            templates: Mutex::default(),
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

    /// The template for guests of this key, if one is usable.
    pub fn template(&self, key: Key) -> Option<Template> {
        self.templates().usable.get(&key).cloned()
    }

    /// Throws a template away, and makes it anew once.
    pub fn distrust(self: &Arc<Self>, key: Key) {
        let mut templates = self.templates();
        let Some(template) = templates.usable.remove(&key) else {
            return;
        };
        template.discard();
        if !templates.remade.insert(key) {
            return;
        }
        drop(templates);
        let ready = Arc::clone(self);
        std::thread::spawn(move || {
            if let Err(error) = ready.make(key, &|words| tracing::info!("{words}")) {
                tracing::warn!(%error, cpus = key.0, memory_mb = key.1, "a template cannot be made; guests boot");
            }
        });
    }

    fn warm(&self, shape: Shape, progress: &dyn Fn(&str)) -> Result<(), String> {
        if !self.settings.warm {
            return Err("templates are switched off".to_owned());
        }
        self.make((shape.cpus, shape.total_mb(self.settings.overhead_mb)), progress)
            .map_err(|error| {
                progress(&format!("guests of {} CPUs boot each time: {error}", shape.cpus));
                error.to_string()
            })
    }

    fn make(&self, key: Key, progress: &dyn Fn(&str)) -> Result<(), Error> {
        if self.templates().usable.contains_key(&key) {
            return Ok(());
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
        self.templates().usable.insert(key, template);
        Ok(())
    }

    fn templates(&self) -> MutexGuard<'_, Templates> {
        self.templates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
