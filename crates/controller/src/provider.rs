//! What the controller needs of a provider, in the words that all share.

use crate::store::Store;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use thiao_core::hostlist;
use thiao_core::ids::{HostName, NodeName, NodesetName, VmId, VmTag};
use thiao_core::prolog::Leftovers;
use thiao_core::table::Table;
pub use thiao_core::view::Ended;
use thiao_core::view::{ErrorClass, Shape, VmSpec};
use thiao_core::world::NodeRecord;
pub use thiao_opennebula::provider::{Hearing, Listening, News, Observed};

/// Why a provider's call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ProviderError {
    /// What that means for the next try.
    pub class: ErrorClass,
    /// What failed, why, what to do.
    pub text: String,
}

/// What a provider found when it prepared itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prepared {
    /// What people should know.
    pub notes: Vec<String>,
    /// Why VMs are emulated, if they are: several times slower than by the processor's virtualisation.
    pub emulated: Option<String>,
    /// Nodes for which no VM can be made until a person changes something, and why.
    pub faults: BTreeMap<NodeName, String>,
}

/// What came of telling a guest whose job comes.
#[derive(Debug)]
pub struct Welcome {
    /// Whether the job may start there.
    pub told: Result<(), ProviderError>,
    /// The guest did not answer, in the time that it has.
    pub unheard: bool,
}

/// Makes VMs. Calls block; the controller makes them away from its own task.
pub trait Provider: Send + Sync + 'static {
    /// Its word in the configuration.
    fn name(&self) -> &'static str;

    /// Whatever takes long and is done once: images, templates, trials. Says
    /// what it does by `progress`. An error: no VM can be made at all.
    fn prepare(
        &self,
        shapes: &[(NodesetName, Shape)],
        progress: &dyn Fn(&str),
    ) -> Result<Prepared, ProviderError>;

    /// Everything it has, whole; or, where something else tells it what happens, what is new of single VMs since it
    /// said everything; or an error.
    fn observe(&self) -> Result<Observed, ProviderError>;

    /// How that which tells it is heard; none: it has nothing of the kind.
    fn listening(&self) -> Option<Listening> {
        None
    }

    /// Makes the VM of this tag on this host, once, however often it is called. `again`:
    /// it was asked for before, perhaps by a controller that has died since.
    /// [`ErrorClass::Transient`] leaves open whether it was made.
    fn create(&self, tag: &VmTag, host: &HostName, spec: &VmSpec, again: bool)
    -> Result<VmId, ProviderError>;

    /// Has the guest of this tag's VM start slurmd for the `number`th time, after `wait`; a number
    /// that it knows changes nothing. Not asked where guests do not wait for it (`guests_wait` of
    /// the policy).
    fn start_slurmd(
        &self,
        tag: &VmTag,
        id: Option<&VmId>,
        number: u32,
        wait: Duration,
    ) -> Result<(), ProviderError>;

    /// Whether its guests must be told whose jobs come ([`Self::welcome`]); else they find users out by themselves.
    fn welcomes(&self) -> bool {
        false
    }

    /// Has the guest of a VM of power-saving mode know the user of a job that comes there, and see what he sees. Called
    /// before the job starts, however often. That what earlier jobs left there cannot be removed keeps no job back.
    fn welcome(&self, _tag: &VmTag, _id: Option<&VmId>, _uid: u32, _leftovers: Leftovers) -> Welcome {
        Welcome {
            told: Ok(()),
            unheard: false,
        }
    }

    /// Whether a VM's guest sees a folder as it is elsewhere, once its job's user is there; none: that is not known.
    fn sees(&self, _tag: &VmTag, _id: Option<&VmId>, _folder: &Path) -> Option<bool> {
        None
    }

    /// Ends the VM of this tag; `hard`: without leaving its guest time. Calling it again is harmless.
    fn destroy(&self, tag: &VmTag, id: Option<&VmId>, hard: bool) -> Result<Ended, ProviderError>;

    /// What the guest of this tag's VM wrote on its console last, where that can be read: asked before the VM's end.
    fn last_words(&self, _tag: &VmTag, _id: Option<&VmId>) -> Option<String> {
        None
    }

    /// What is known of a VM's way up, with times in milliseconds since the epoch.
    fn timeline(&self, id: &VmId) -> Vec<(u64, String)>;
}

/// The shapes, whatever nodesets they are of.
fn of_any(shapes: &[(NodesetName, Shape)]) -> Vec<Shape> {
    shapes.iter().map(|(_, shape)| *shape).collect()
}

impl Provider for thiao_qemu::Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    // An image that cannot be made costs its nodesets alone, and a template its shape warm starts alone.
    fn prepare(
        &self,
        shapes: &[(NodesetName, Shape)],
        progress: &dyn Fn(&str),
    ) -> Result<Prepared, ProviderError> {
        let prepared = thiao_qemu::Qemu::prepare(self, shapes, progress).map_err(told)?;
        let mut notes = vec![
            format!(
                "guests run with {}: {}",
                prepared.verdict.accel.as_str(),
                prepared.verdict.why
            ),
            format!("shares of the host: {}", prepared.cpu_shares),
        ];
        for (shape, outcome) in &prepared.warm {
            let Shape { cpus, memory_mb, .. } = shape;
            notes.push(match outcome {
                Ok(price) => format!(
                    "VMs of {cpus} CPUs and {memory_mb} MiB are cloned from a warm template ({price} MiB on disk)"
                ),
                Err(why) => format!("VMs of {cpus} CPUs and {memory_mb} MiB boot each time: {why}"),
            });
        }
        let verdict = prepared.verdict;
        Ok(Prepared {
            notes,
            emulated: (verdict.accel == thiao_qemu::Accel::Tcg).then_some(verdict.why),
            faults: prepared.faults,
        })
    }

    fn observe(&self) -> Result<Observed, ProviderError> {
        thiao_qemu::Qemu::observe(self).map(Observed::Whole).map_err(told)
    }

    // Its VMs are claimed by making their folders: it need not know what was asked before.
    fn create(
        &self,
        tag: &VmTag,
        host: &HostName,
        spec: &VmSpec,
        _again: bool,
    ) -> Result<VmId, ProviderError> {
        thiao_qemu::Qemu::create(self, tag, host, spec).map_err(told)
    }

    fn start_slurmd(
        &self,
        tag: &VmTag,
        id: Option<&VmId>,
        number: u32,
        wait: Duration,
    ) -> Result<(), ProviderError> {
        thiao_qemu::Qemu::start_slurmd(self, &own_id(tag, id)?, number, wait).map_err(told)
    }

    fn welcomes(&self) -> bool {
        true
    }

    fn welcome(&self, tag: &VmTag, id: Option<&VmId>, uid: u32, leftovers: Leftovers) -> Welcome {
        let id = match own_id(tag, id) {
            Ok(id) => id,
            Err(error) => {
                return Welcome {
                    told: Err(error),
                    unheard: false,
                };
            }
        };
        match thiao_qemu::Qemu::welcome(self, &id, uid, leftovers) {
            Ok(heard) => Welcome {
                told: Ok(()),
                unheard: heard == thiao_qemu::Heard::No,
            },
            Err(error) => Welcome {
                unheard: matches!(error, thiao_qemu::Error::Unheard(_)),
                told: Err(told(error)),
            },
        }
    }

    fn sees(&self, tag: &VmTag, id: Option<&VmId>, folder: &Path) -> Option<bool> {
        thiao_qemu::Qemu::sees(self, &own_id(tag, id).ok()?, folder)
    }

    fn destroy(&self, tag: &VmTag, id: Option<&VmId>, _hard: bool) -> Result<Ended, ProviderError> {
        let gone = thiao_qemu::Qemu::destroy(self, &own_id(tag, id)?).map_err(told);
        gone.map(|()| Ended::Gone)
    }

    fn last_words(&self, tag: &VmTag, id: Option<&VmId>) -> Option<String> {
        thiao_qemu::Qemu::last_words(self, &own_id(tag, id).ok()?)
    }

    fn timeline(&self, id: &VmId) -> Vec<(u64, String)> {
        thiao_qemu::Qemu::timeline(self, id)
            .into_iter()
            .map(|(at, what)| (at.0, what))
            .collect()
    }
}

/// The embedded provider's VMs are called by their tags.
fn own_id(tag: &VmTag, id: Option<&VmId>) -> Result<VmId, ProviderError> {
    match id {
        Some(id) => Ok(id.clone()),
        None => VmId::new(&format!("{}.{}", tag.node, tag.generation)).map_err(|error| ProviderError {
            class: ErrorClass::Refused,
            text: error.to_string(),
        }),
    }
}

fn told(error: thiao_qemu::Error) -> ProviderError {
    ProviderError {
        class: error.class(),
        text: chain(&error),
    }
}

impl Provider for thiao_opennebula::OpenNebula {
    fn name(&self) -> &'static str {
        "opennebula"
    }

    fn prepare(
        &self,
        shapes: &[(NodesetName, Shape)],
        progress: &dyn Fn(&str),
    ) -> Result<Prepared, ProviderError> {
        let prepared =
            thiao_opennebula::OpenNebula::prepare(self, &of_any(shapes), progress).map_err(meant)?;
        Ok(Prepared {
            notes: prepared.notes,
            emulated: None,
            faults: prepared.faults,
        })
    }

    fn observe(&self) -> Result<Observed, ProviderError> {
        thiao_opennebula::OpenNebula::observe(self).map_err(meant)
    }

    fn listening(&self) -> Option<Listening> {
        thiao_opennebula::OpenNebula::listening(self)
    }

    fn create(
        &self,
        tag: &VmTag,
        host: &HostName,
        spec: &VmSpec,
        again: bool,
    ) -> Result<VmId, ProviderError> {
        thiao_opennebula::OpenNebula::create(self, tag, host, spec, again).map_err(meant)
    }

    // Its guests start slurmd by themselves: their VMs are made when Slurm has asked.
    fn start_slurmd(&self, _: &VmTag, _: Option<&VmId>, _: u32, _: Duration) -> Result<(), ProviderError> {
        Ok(())
    }

    fn destroy(&self, tag: &VmTag, id: Option<&VmId>, hard: bool) -> Result<Ended, ProviderError> {
        thiao_opennebula::OpenNebula::destroy(self, tag, id, hard).map_err(meant)
    }

    fn timeline(&self, id: &VmId) -> Vec<(u64, String)> {
        thiao_opennebula::OpenNebula::timeline(self, id)
            .into_iter()
            .map(|(at, what)| (at.0, what))
            .collect()
    }
}

fn meant(error: thiao_opennebula::Error) -> ProviderError {
    ProviderError {
        class: error.class.meaning(),
        text: error.text,
    }
}

/// Notes whose VMs the records are about, and refuses another provider while there
/// are some: it would not find them, and take their nodes for lost.
pub fn keep_to_one(
    store: &mut Store,
    records: &Table<NodeName, NodeRecord>,
    name: &str,
) -> anyhow::Result<()> {
    let before = store.provider()?;
    let Some(other) = before.filter(|before| before != name) else {
        return Ok(store.set_provider(name)?);
    };
    let with_vm: Vec<&NodeName> = records
        .iter()
        .filter(|(_, record)| record.vm.is_some())
        .map(|(node, _)| node)
        .collect();
    if !with_vm.is_empty() {
        let nodes = hostlist::fold(with_vm);
        anyhow::bail!(
            "{nodes} still have VMs of the provider {other}, and thiao.toml now names {name}, which knows nothing of \
             them. Write provider = \"{other}\" again, start, `thiao suspend {nodes}`, and change it when `thiao vms` \
             shows none; or give the new provider another state_dir"
        );
    }
    Ok(store.set_provider(name)?)
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use thiao_core::ids::{Generation, Time};
    use thiao_core::journal::{Entry, Journal as _};
    use thiao_core::vm::{Life, Registration, VmRecord};

    #[test]
    fn vms_stay_with_the_provider_that_made_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("thiao.db")).unwrap();
        let mut records: Table<NodeName, NodeRecord> = ["fg0", "fg1", "fg2"]
            .map(|name| (NodeName::new(name).unwrap(), NodeRecord::default()))
            .into();
        keep_to_one(&mut store, &records, "qemu").unwrap();
        // Without VMs it may change, and it is known from then on.
        keep_to_one(&mut store, &records, "opennebula").unwrap();
        for record in records.values_mut().take(2) {
            record.vm = Some(VmRecord {
                generation: Generation(1),
                id: None,
                host: None,
                spec: None,
                life: Life::Asked,
                registration: Registration::NotYet,
                asked: Time(1),
                since: Time(1),
                aside: Default::default(),
                missing_since: None,
                kept: None,
                starts: Default::default(),
            });
        }
        store.save(&records, &Entry::default(), Time(2)).unwrap();
        keep_to_one(&mut store, &records, "opennebula").unwrap();
        let said = keep_to_one(&mut store, &records, "qemu").unwrap_err().to_string();
        assert!(
            said.starts_with("fg[0-1] still have VMs of the provider opennebula")
                && said.contains("`thiao suspend fg[0-1]`"),
            "{said}"
        );
        // A refusal changes nothing.
        keep_to_one(&mut store, &records, "opennebula").unwrap();
    }
}
