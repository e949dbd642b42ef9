//! The ways to make VMs and to end them.

use crate::raw::{Param, Raw, escaped, params};
use crate::site::{Piece, SHAPE, Site};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use thiao_core::ids::{VmId, VmTag};
use thiao_core::view::Ended;
use thiao_core::view::VmState;
use thiao_opennebula::OpenNebula;
use thiao_opennebula::provider::Observed;

/// The controller's own number (`CALLS_AT_ONCE` in its `execute`).
const CALLS_AT_ONCE: usize = 64;

type Outcome<T> = Result<T, Box<dyn Error>>;

pub trait Way {
    /// Makes them; when it returns, oned has taken all and, if it is us who place, deployed them.
    fn make(&self, pieces: &[Piece]) -> Outcome<Vec<u32>>;
    /// Ends them; when it returns, oned has taken all.
    fn end(&self, ids: &[u32]) -> Outcome<()>;
    /// Whether all are gone, as it knows itself.
    fn all_gone(&self, site: &Site, ids: &[u32]) -> Outcome<bool> {
        Ok(site.left(ids)?.is_empty())
    }
}

/// By hand, from so many threads.
pub struct ByHand {
    pub raw: Raw,
    pub threads: usize,
}

impl ByHand {
    pub fn new(site: &Site, threads: usize) -> Outcome<Self> {
        Ok(Self {
            raw: Raw::new(&site.endpoint, &site.session()?)?,
            threads,
        })
    }

    fn terminate(&self, id: u32) -> Outcome<u32> {
        let args = params(&[Param::Escaped("terminate"), Param::Int(id)]);
        self.raw.call("one.vm.action", &args)
    }
}

/// Held, then deployed: what the provider does.
pub struct Deploying<'a> {
    pub hand: ByHand,
    pub site: &'a Site,
    /// All are made before the first is deployed.
    pub all_held_first: bool,
}

impl Way for Deploying<'_> {
    fn make(&self, pieces: &[Piece]) -> Outcome<Vec<u32>> {
        let template = self.site.template.id;
        let extras: Vec<String> = pieces.iter().map(|piece| escaped(&piece.extra)).collect();
        let hold = |n: usize| {
            self.hand.raw.call(
                "one.template.instantiate",
                &params(&[
                    Param::Int(template),
                    Param::Escaped(&pieces[n].name),
                    Param::Bool(true),
                    Param::Escaped(&extras[n]),
                    Param::Bool(false),
                ]),
            )
        };
        let deploy = |n: usize, id: u32| {
            let host = [Param::Int(id), Param::Int(pieces[n].host_id), Param::Bool(true)];
            self.hand.raw.call("one.vm.deploy", &params(&host))
        };
        let (threads, count) = (self.hand.threads, pieces.len());
        if self.all_held_first {
            let ids = at_once(threads, count, hold)?;
            at_once(threads, count, |n| deploy(n, ids[n]))
        } else {
            at_once(threads, count, |n| deploy(n, hold(n)?))
        }
    }

    fn end(&self, ids: &[u32]) -> Outcome<()> {
        at_once(self.hand.threads, ids.len(), |n| self.hand.terminate(ids[n])).map(drop)
    }
}

/// One call after another, placed by OpenNebula's scheduler: as in 2011.
pub struct AsIn2011(pub ByHand);

impl Way for AsIn2011 {
    fn make(&self, pieces: &[Piece]) -> Outcome<Vec<u32>> {
        let make = |piece: &Piece| {
            let args = params(&[Param::Escaped(&escaped(&piece.whole)), Param::Bool(false)]);
            self.0.raw.call("one.vm.allocate", &args)
        };
        pieces.iter().map(make).collect()
    }

    fn end(&self, ids: &[u32]) -> Outcome<()> {
        ids.iter().try_for_each(|id| self.0.terminate(*id).map(drop))
    }
}

/// Thiao's provider, called as the controller calls it.
pub struct ByThiao {
    provider: OpenNebula,
    tags: Mutex<BTreeMap<u32, VmTag>>,
}

impl ByThiao {
    pub fn new(site: &Site, nodes: usize, per_second: u32) -> Outcome<Self> {
        let provider = OpenNebula::open(site.settings(nodes, per_second)?)?;
        // As at the controller's start: it knows the hosts and the template.
        provider.prepare(&[SHAPE], &|_| {})?;
        Ok(Self {
            provider,
            tags: Mutex::default(),
        })
    }

    fn destroy(&self, id: u32) -> Outcome<Ended> {
        let tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        let tag = tags.get(&id).cloned().ok_or("none of ours")?;
        drop(tags);
        Ok(self
            .provider
            .destroy(&tag, Some(&VmId::new(&id.to_string())?), false)?)
    }
}

impl Way for ByThiao {
    fn make(&self, pieces: &[Piece]) -> Outcome<Vec<u32>> {
        let ids = at_once(CALLS_AT_ONCE, pieces.len(), |n| {
            let piece = &pieces[n];
            let id = self.provider.create(
                &piece.tag,
                &piece.host,
                &thiao_core::view::VmSpec::of_node(SHAPE),
                false,
            )?;
            Ok(id.as_str().parse()?)
        })?;
        let tags = ids
            .iter()
            .copied()
            .zip(pieces.iter().map(|piece| piece.tag.clone()));
        *self.tags.lock().unwrap_or_else(PoisonError::into_inner) = tags.collect();
        Ok(ids)
    }

    fn end(&self, ids: &[u32]) -> Outcome<()> {
        at_once(CALLS_AT_ONCE, ids.len(), |n| self.destroy(ids[n]).map(drop)).map(drop)
    }

    /// By the provider's own word: a VM that an observation shows ended, and whose end it confirms.
    fn all_gone(&self, _: &Site, ids: &[u32]) -> Outcome<bool> {
        let Observed::Whole(view) = self.provider.observe()? else {
            return Err("nobody listens to events here".into());
        };
        for vm in &view.vms {
            let id: u32 = vm.id.as_str().parse()?;
            if matches!(vm.state, VmState::Dead(_)) && self.destroy(id)? != Ended::Gone {
                return Ok(false);
            }
        }
        let left = |vm: &&thiao_core::view::VmView| !matches!(vm.state, VmState::Dead(_));
        let ours = |vm: &&thiao_core::view::VmView| vm.id.as_str().parse().is_ok_and(|id| ids.contains(&id));
        Ok(view.vms.iter().filter(left).filter(ours).count() == 0)
    }
}

/// Does `count` things from so many threads; the answers in their order.
fn at_once<T: Send>(
    threads: usize,
    count: usize,
    act: impl Fn(usize) -> Outcome<T> + Sync,
) -> Outcome<Vec<T>> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, T)>, String> {
        let mut done = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return Ok(done);
            }
            // Errors of others cannot cross threads: their words can.
            done.push((n, act(n).map_err(|error| error.to_string())?));
        }
    };
    let mut all = std::thread::scope(|scope| -> Result<Vec<(usize, T)>, String> {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::with_capacity(count);
        for thread in threads {
            all.extend(thread.join().map_err(|_| "a thread panicked")??);
        }
        Ok(all)
    })?;
    all.sort_unstable_by_key(|(n, _)| *n);
    Ok(all.into_iter().map(|(_, done)| done).collect())
}
