//! A simulated provider: hosts and VMs in virtual time, with listings that may lie.

use crate::faults::{Fault, Faults};
use crate::rng::Rng;
use std::collections::BTreeMap;
use thiao_core::ids::{HostName, Millis, Time, VmId, VmTag};
use thiao_core::policy::Policy;
use thiao_core::view::{HostView, ProviderView, VmSpec, VmState, VmView};

/// The oldest state that a stale listing shows.
const STALEST: Millis = Millis::secs(15);

/// The provider's whole truth.
#[derive(Debug)]
pub struct Provider {
    pub hosts: Vec<HostView>,
    pub vms: BTreeMap<VmId, Vm>,
    /// The last listing, for stale ones.
    last: Option<(Time, ProviderView)>,
    next: u64,
    overhead_mb: u64,
    /// Whether guests start slurmd only when they are told.
    guests_wait: bool,
    rng: Rng,
}

/// A VM as it truly is.
#[derive(Debug, Clone)]
pub struct Vm {
    /// As a whole and honest listing shows it.
    pub view: VmView,
    /// What it was made to be; none of an outsider's.
    pub spec: Option<VmSpec>,
    /// Made by an outsider, not by us.
    pub outsider: bool,
    /// No journal knows it, since an older one was restored or somebody made a later VM of its tag. Then no
    /// listing leaves it out: nobody could know of it.
    pub forgotten: bool,
    /// When it leaves `Pending`.
    placed_at: Time,
    /// When its guest has all but slurmd; none if it hangs.
    prepared_at: Option<Time>,
    /// Which start of slurmd is due, and when at the earliest.
    due: (u32, Option<Time>),
    /// When slurmd was started last.
    pub slurmd: Option<Time>,
    /// How long a slurmd takes to register; none if it never does.
    registers_after: Option<Millis>,
    /// When its slurmd registers; none after it did, or if it never will.
    pub registers_at: Option<Time>,
    dies_at: Option<Time>,
    /// When its guest hangs.
    hangs_at: Option<Time>,
    /// Its slurmd answers no more.
    hung: bool,
    /// Not in any listing before.
    pub hidden_until: Time,
    /// When it is gone, once its end was asked; it runs no job any more.
    ends_at: Option<Time>,
    /// What somebody does to it by hand.
    by_hand: Option<ByHand>,
}

/// What somebody does to a VM by hand: it is shown so until then, and goes on, or dies.
#[derive(Debug, Clone)]
struct ByHand {
    shown: VmState,
    until: Time,
    dies: bool,
}

impl Vm {
    /// Whether it has not died.
    #[must_use]
    pub fn lives(&self) -> bool {
        !matches!(self.view.state, VmState::Dead(_))
    }

    /// Whether it was made and never released.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.view.state == VmState::Held
    }

    /// Somebody undeploys it: its guest shuts down by `until`, or overhears that.
    pub fn undeploy(&mut self, until: Time, overhears: bool) {
        self.by_hand = Some(ByHand {
            shown: VmState::Stopping,
            until,
            dies: !overhears,
        });
    }

    /// Somebody gives it to another user until then, who does nothing with it.
    pub fn give_away(&mut self, until: Time) {
        self.by_hand = Some(ByHand {
            shown: VmState::Unknown("belongs to somebody else now".into()),
            until,
            dies: false,
        });
    }

    /// What people did to it is undone.
    pub fn leave_alone(&mut self) {
        self.by_hand = None;
    }

    /// Its guest hangs from now on.
    pub fn hang(&mut self) {
        self.hung = true;
    }

    /// Starts slurmd when that is due and all else is there; whether it runs.
    fn starts_slurmd(&mut self, now: Time) -> bool {
        let (Some(prepared), (_, Some(due))) = (self.prepared_at, self.due) else {
            return self.slurmd.is_some();
        };
        let at = prepared.max(due);
        if at <= now {
            self.due.1 = None;
            self.slurmd = Some(at);
            self.registers_at = self.registers_after.map(|after| at + after);
        }
        self.slurmd.is_some()
    }

    /// Whether a slurmd in it could do its work.
    #[must_use]
    pub fn works(&self) -> bool {
        self.lives() && !self.hung && !self.is_held() && self.ends_at.is_none()
    }
}

impl Provider {
    /// A provider without VMs.
    #[must_use]
    pub fn new(hosts: Vec<HostView>, policy: &Policy, rng: Rng) -> Self {
        Self {
            hosts,
            vms: BTreeMap::new(),
            last: None,
            next: 1,
            overhead_mb: policy.overhead_mb,
            guests_wait: policy.guests_wait,
            rng,
        }
    }

    /// Lets time pass until `now`.
    pub fn step(&mut self, now: Time) {
        self.vms.retain(|_, vm| vm.ends_at.is_none_or(|at| at > now));
        let active = |vm: &&mut Vm| vm.lives() && !vm.is_held() && vm.ends_at.is_none();
        for vm in self.vms.values_mut().filter(active) {
            vm.hung |= vm.hangs_at.is_some_and(|at| at <= now);
            let over = vm.by_hand.take_if(|hand| hand.until <= now);
            if over.is_some_and(|hand| hand.dies) {
                vm.view.state = VmState::Dead("powered off by somebody".into());
            } else if vm.dies_at.is_some_and(|at| at <= now) {
                vm.view.state = VmState::Dead("it ended by itself".into());
            } else if vm.starts_slurmd(now) {
                vm.view.state = VmState::Ready;
            } else if vm.view.state == VmState::Pending && vm.placed_at <= now {
                vm.view.state = VmState::Booting;
            }
        }
    }

    /// Whether a slurmd in that VM could do its work.
    #[must_use]
    pub fn works(&self, id: &VmId) -> bool {
        self.vms.get(id).is_some_and(Vm::works)
    }

    /// Memory on `host` that no VM has, in MiB.
    #[must_use]
    pub fn free_mb(&self, host: &HostName) -> u64 {
        let used: u64 = self
            .vms
            .values()
            .filter(|vm| vm.view.host.as_ref() == Some(host))
            .map(|vm| vm.view.memory_mb)
            .sum();
        let all = self.hosts.iter().find(|seen| seen.name == *host);
        all.map_or(0, |seen| seen.memory_mb.saturating_sub(used))
    }

    /// Makes the VM of `tag`, once: asked again, it gives the same VM's id.
    ///
    /// # Errors
    /// What a provider would say; then nothing was made, or what was made is dead.
    pub fn create(
        &mut self,
        tag: &VmTag,
        host: &HostName,
        spec: &VmSpec,
        faults: &Faults,
        now: Time,
    ) -> Result<VmId, String> {
        let waits = self.guests_wait;
        let held = match self.made_before(tag)? {
            Some(vm) if vm.is_held() => Some(vm.view.id.clone()),
            Some(vm) => return Ok(vm.view.id.clone()),
            None => None,
        };
        let memory_mb = spec.shape.total_mb(self.overhead_mb);
        self.takes(host, memory_mb)?;
        if faults.strikes(Fault::CreateFails) {
            return Err("no image today".into());
        }
        // One that waits for the word may be there at once.
        let boots = match waits && self.rng.chance(300) {
            true => Millis(100),
            false => Millis(self.rng.between(2000, 9000)),
        };
        let registers_after = Millis(self.rng.below(1500));
        let silent = faults.strikes(Fault::NeverRegisters);
        let hung = silent && self.rng.coin();
        let dies = if faults.strikes(Fault::DiesBooting) {
            Some(self.rng.below(boots.0))
        } else if faults.strikes(Fault::DiesLater) {
            Some(boots.0 + self.rng.below(60_000))
        } else {
            None
        };
        let hangs = faults.strikes(Fault::HangsLater);
        let hangs_at = hangs.then(|| now + boots + Millis(self.rng.below(60_000)));
        let vm = Vm {
            view: VmView {
                id: held.unwrap_or_else(|| self.fresh_id()),
                tag: Some(tag.clone()),
                host: Some(host.clone()),
                memory_mb,
                cpu_percent: spec.shape.cpu_percent(),
                state: VmState::Pending,
            },
            spec: Some(spec.clone()),
            outsider: false,
            forgotten: self.has_later_twin(tag),
            placed_at: now + Millis(self.rng.below(1500)),
            prepared_at: (!hung).then_some(now + boots),
            due: if waits { (0, None) } else { (1, Some(now)) },
            slurmd: None,
            registers_after: (!silent).then_some(registers_after),
            registers_at: None,
            dies_at: dies.map(|after| now + Millis(after)),
            hangs_at,
            hung: false,
            hidden_until: Time(0),
            ends_at: None,
            by_hand: None,
        };
        let id = vm.view.id.clone();
        if faults.strikes(Fault::CreateTwice) {
            let mut twin = vm.clone();
            twin.view.id = self.fresh_id();
            self.hold_back(twin);
        }
        self.vms.insert(id.clone(), vm);
        Ok(id)
    }

    /// The VM of `tag` that is there already; an error if it is dead.
    fn made_before(&self, tag: &VmTag) -> Result<Option<&Vm>, String> {
        let same = self.vms.values().filter(|vm| vm.view.tag.as_ref() == Some(tag));
        match same.min_by_key(|vm| (vm.is_held(), vm.view.id.clone())) {
            Some(vm) if !vm.lives() => Err("it was made and died".into()),
            found => Ok(found),
        }
    }

    /// Whether somebody has made a later VM of that tag's node: the node's record may become that one's.
    fn has_later_twin(&self, tag: &VmTag) -> bool {
        let mut twins = self.vms.values().filter(|vm| vm.outsider);
        twins.any(|vm| {
            let its = vm.view.tag.as_ref().filter(|its| its.cluster == tag.cluster);
            its.is_some_and(|its| its.node == tag.node && its.generation > tag.generation)
        })
    }

    /// Whether a VM of this size may go to `host`; with others' VMs there, only if it has capacity.
    fn takes(&self, host: &HostName, memory_mb: u64) -> Result<(), String> {
        if !self.hosts.iter().any(|seen| seen.name == *host && seen.usable) {
            return Err(format!("host {host} takes no VMs"));
        }
        let mut vms = self.vms.values();
        let outsiders = vms.any(|vm| vm.outsider && vm.view.host.as_ref() == Some(host));
        if outsiders && self.free_mb(host) < memory_mb {
            return Err(format!("host {host} is full"));
        }
        Ok(())
    }

    /// A creation of which nobody hears: if it is the first, its VM is made and held.
    pub fn create_held(&mut self, tag: &VmTag, spec: &VmSpec) {
        if self.vms.values().any(|vm| vm.view.tag.as_ref() == Some(tag)) {
            return;
        }
        let view = VmView {
            id: self.fresh_id(),
            tag: Some(tag.clone()),
            host: None,
            memory_mb: spec.shape.total_mb(self.overhead_mb),
            cpu_percent: spec.shape.cpu_percent(),
            state: VmState::Held,
        };
        self.hold_back(Vm {
            view,
            spec: Some(spec.clone()),
            outsider: false,
            forgotten: self.has_later_twin(tag),
            placed_at: Time(0),
            prepared_at: None,
            due: (0, None),
            slurmd: None,
            registers_after: None,
            registers_at: None,
            dies_at: None,
            hangs_at: None,
            hung: false,
            hidden_until: Time(0),
            ends_at: None,
            by_hand: None,
        });
    }

    fn hold_back(&mut self, mut vm: Vm) {
        vm.view.state = VmState::Held;
        vm.view.host = None;
        (vm.prepared_at, vm.dies_at, vm.hangs_at) = (None, None, None);
        self.vms.insert(vm.view.id.clone(), vm);
    }

    /// Has the guest of this tag's VM start slurmd for the `number`th time, not before `at`; a
    /// number that it knows changes nothing. Whether there is such a VM.
    pub fn start_slurmd(&mut self, tag: &VmTag, id: Option<&VmId>, number: u32, at: Time) -> bool {
        let meant = |vm: &&mut Vm| {
            let this = vm.view.tag.as_ref() == Some(tag) && id.is_none_or(|id| *id == vm.view.id);
            this && vm.lives() && !vm.is_held() && vm.ends_at.is_none()
        };
        let Some(vm) = self.vms.values_mut().find(meant) else {
            return false;
        };
        if number > vm.due.0 {
            vm.due = (number, Some(at));
        }
        true
    }

    /// Adds a VM that somebody else made.
    pub fn add_outsider(&mut self, tag: Option<VmTag>, host: &HostName, memory_mb: u64) {
        let id = self.fresh_id();
        let state = match self.rng.below(4) {
            0 => VmState::Dead("whatever".into()),
            1 => VmState::Stopping,
            2 => VmState::Booting,
            _ => VmState::Ready,
        };
        let vm = Vm {
            view: VmView {
                id: id.clone(),
                tag,
                host: Some(host.clone()),
                memory_mb,
                cpu_percent: 10,
                state,
            },
            spec: None,
            outsider: true,
            forgotten: false,
            placed_at: Time(0),
            prepared_at: None,
            due: (0, None),
            slurmd: None,
            registers_after: None,
            registers_at: None,
            dies_at: None,
            hangs_at: None,
            hung: true,
            hidden_until: Time(0),
            ends_at: None,
            by_hand: None,
        };
        self.vms.insert(id, vm);
    }

    /// Ends the VM of `tag` (that one alone with `id`, if given); fine if there is none.
    /// Whether it is gone; if not, it is on its way, perhaps until that is asked hard.
    pub fn destroy(
        &mut self,
        tag: &VmTag,
        id: Option<&VmId>,
        hard: bool,
        faults: &Faults,
        now: Time,
    ) -> bool {
        let meant = |own: &VmId, vm: &Vm| vm.view.tag.as_ref() == Some(tag) && id.is_none_or(|id| id == own);
        let slow = faults.strikes(Fault::EndsSlowly);
        let takes = match self.rng.coin() {
            true => Millis(self.rng.below(20_000)),
            false => Millis::secs(3600),
        };
        let mut gone = true;
        self.vms.retain(|own, vm| {
            let ending = vm.ends_at.is_some();
            if !meant(own, vm) {
                return true;
            }
            if hard || !vm.lives() || vm.is_held() || !(slow || ending) {
                return false;
            }
            gone = false;
            vm.view.state = VmState::Stopping;
            vm.ends_at.get_or_insert(now + takes);
            true
        });
        gone
    }

    /// A listing at `now`, as good or bad as the faults make it; none if it fails.
    pub fn list(&mut self, faults: &Faults, now: Time) -> Option<ProviderView> {
        if faults.strikes(Fault::ListFails) {
            return None;
        }
        if faults.strikes(Fault::ListStale)
            && let Some((_, last)) = self.last.as_ref().filter(|(at, _)| now.since(*at) < STALEST)
            && !self.vms.values().any(|vm| vm.forgotten)
        {
            return Some(last.clone());
        }
        let mut view = ProviderView {
            hosts: self.hosts.clone(),
            vms: Vec::with_capacity(self.vms.len()),
        };
        for vm in self.vms.values() {
            let hidden = !vm.forgotten && (vm.hidden_until > now || faults.strikes(Fault::ListOmits));
            if hidden {
                continue;
            }
            let mut shown = vm.view.clone();
            if shown.state == VmState::Pending {
                shown.host = None; // not placed yet, as far as the provider says
            }
            if let Some(hand) = vm
                .by_hand
                .as_ref()
                .filter(|_| vm.lives() && !vm.is_held() && vm.ends_at.is_none())
            {
                shown.state = hand.shown.clone();
            }
            if faults.strikes(Fault::ListUnknown) {
                shown.state = VmState::Unknown("CLONING_FAILURE_MAYBE".into());
            }
            view.vms.push(shown);
        }
        // Kept for a few listings, so that a stale one may be several rounds old.
        if self.last.is_none() || self.rng.chance(300) {
            self.last = Some((now, view.clone()));
        }
        Some(view)
    }

    fn fresh_id(&mut self) -> VmId {
        let id = VmId::new(&format!("vm{}", self.next)).expect("letters and digits");
        self.next += 1;
        id
    }
}
