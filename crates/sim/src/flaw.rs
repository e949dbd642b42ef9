//! Planted faults: the controller's logic made wrong in one place each, to prove that this
//! world would find it. A flaw stands at a seam of the controller (what it takes in, what
//! it decides, what it keeps); the logic itself is left as it is.

use crate::disk::{Disk, Memory};
use std::str::FromStr;
use thiao_core::fold::Outcome;
use thiao_core::ids::{NodeName, Time};
use thiao_core::journal::{Entry, Journal};
use thiao_core::plan::{Action, EndWhy, JobVerb, NodeVerb, Step, VmVerb};
use thiao_core::policy::Policy;
use thiao_core::table::Table;
use thiao_core::view::{ProviderView, SlurmView, VmState, VmView, Whose};
use thiao_core::world::{Desired, NodeRecord, World};

/// Declares the flaws with what each does wrong.
macro_rules! flaws {
    ($($(#[doc = $what:literal])+ $flaw:ident $name:literal,)*) => {
        /// What is wrong with the controller.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Flaw { $($(#[doc = $what])+ $flaw,)* }

        impl Flaw {
            /// All flaws that there are.
            pub const ALL: &[Flaw] = &[$(Flaw::$flaw),*];

            /// Its name for people and programs.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Flaw::$flaw => $name,)* }
            }

            /// What it does wrong, as a sentence.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self { $(Flaw::$flaw => concat!($($what),+).trim_ascii(),)* }
            }
        }
    };
}

flaws! {
    /// VMs are adopted by their node's name alone, whatever cluster their tag names.
    AdoptsByName "adopts-by-name",
    /// A VM that one listing leaves out is taken for dead.
    AbsenceIsDeath "absence-is-death",
    /// A listing that failed is taken for an empty one.
    FailedListingIsEmpty "failed-listing-is-empty",
    /// When an observation fails, the last one is acted on, however old.
    TrustsOldObservations "trusts-old-observations",
    /// A VM in a state that we do not know is taken for dead.
    UnknownIsDead "unknown-is-dead",
    /// A creation of which nothing was heard is forgotten: the next one is of another VM.
    ForgetsUnheardCreations "forgets-unheard-creations",
    /// What is under way is forgotten: it is decided again.
    ForgetsWhatIsUnderway "forgets-what-is-underway",
    /// The journal is not synced: a kill loses its last rounds.
    NoFsync "no-fsync",
    /// Actions are executed before the journal is written.
    ActsBeforeItKeeps "acts-before-it-keeps",
    /// Orders are removed from the spool before what they change is kept.
    RemovesOrdersFirst "removes-orders-first",
    /// Which orders were taken is not remembered: one that is still there counts again.
    TakesOrdersAgain "takes-orders-again",
    /// Orders count in the order in which they are read, not in which they were given.
    LateOrdersWin "late-orders-win",
    /// VMs that back nothing are left where they are.
    LeavesOrphans "leaves-orphans",
    /// There is no limit to how many VMs there are, and start at once.
    NoCaps "no-caps",
    /// DOWN is lifted whoever set it, for whatever reason.
    LiftsOthersDown "lifts-others-down",
    /// A node that cannot be backed is not told to Slurm.
    TellsNobody "tells-nobody",
    /// A node that was set DOWN is not given back.
    KeepsNodesDown "keeps-nodes-down",
    /// In job mode every VM is made as big as its node can be.
    OneSizeForAll "one-size-for-all",
    /// In job mode a node is powered down at once where it should end with its job.
    EndsNodesAtOnce "ends-nodes-at-once",
    /// In job mode a job starts on a VM that was made for another.
    StartsAnyJob "starts-any-job",
    /// A node that no partition has is taken for one that nothing uses.
    AbsenceIsUnused "absence-is-unused",
    /// In job mode jobs of other partitions are left on its nodes.
    LeavesOthersJobs "leaves-others-jobs",
    /// An order counts until there is another, whatever Slurm shows.
    OrdersOutliveSlurm "orders-outlive-slurm",
    /// slurmd starts by the prolog's word, before Slurm has asked for its node.
    StartsSlurmdEarly "starts-slurmd-early",
    /// An idle VM keeps its place, whoever waits for that.
    NobodyGivesWay "nobody-gives-way",
    /// A drained node that is idle gives way, and its drain is forgotten with that.
    DrainedGiveWay "drained-give-way",
    /// A node that Slurm has drained for what went wrong in its VM is not undrained.
    KeepsDrains "keeps-drains",
    /// A drain is lifted whoever began it, for whatever reason.
    LiftsOthersDrains "lifts-others-drains",
}

impl FromStr for Flaw {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|flaw| flaw.name() == text);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|flaw| flaw.name()).collect();
            format!("there is no flaw '{text}': there are {}", names.join(", "))
        })
    }
}

impl Flaw {
    /// Whether the controller has this one.
    #[must_use]
    pub fn is(self, flaw: Option<Flaw>) -> bool {
        flaw == Some(self)
    }

    /// What the controller believes its limits to be.
    #[must_use]
    pub fn policy(flaw: Option<Flaw>, policy: Policy) -> Policy {
        match flaw {
            Some(Self::NoCaps) => Policy {
                max_vms: usize::MAX,
                max_vms_per_host: usize::MAX,
                max_starting: usize::MAX,
                ..policy
            },
            Some(Self::TrustsOldObservations) => Policy {
                observation_max_age: thiao_core::ids::Millis(u64::MAX),
                ..policy
            },
            _ => policy,
        }
    }

    /// What the controller reads of a listing.
    #[must_use]
    pub fn listing(flaw: Option<Flaw>, world: &World, view: Option<ProviderView>) -> Option<ProviderView> {
        let Some(mut view) = view else {
            let hosts = world
                .provider
                .iter()
                .flat_map(|last| last.hosts.clone())
                .collect();
            let empty = ProviderView {
                hosts,
                vms: Vec::new(),
            };
            return Self::FailedListingIsEmpty.is(flaw).then_some(empty);
        };
        if Self::AdoptsByName.is(flaw) {
            for tag in view.vms.iter_mut().filter_map(|vm| vm.tag.as_mut()) {
                tag.cluster = world.cluster.clone();
            }
        }
        if Self::UnknownIsDead.is(flaw) {
            for vm in &mut view.vms {
                if let VmState::Unknown(word) = &vm.state {
                    vm.state = VmState::Dead(word.clone());
                }
            }
        }
        if Self::AbsenceIsDeath.is(flaw) {
            let lost = world.records.iter().filter_map(|(node, record)| {
                let vm = record.vm.as_ref()?;
                let id = vm.id.clone()?;
                let shown = view.vms.iter().any(|seen| seen.id == id);
                (!shown && !world.busy.contains(node)).then(|| VmView {
                    id,
                    tag: Some(world.tag(node, vm.generation)),
                    host: vm.host.clone(),
                    memory_mb: 0,
                    cpu_percent: 0,
                    state: VmState::Dead("it is not listed".into()),
                })
            });
            let lost: Vec<VmView> = lost.collect();
            view.vms.extend(lost);
        }
        Some(view)
    }

    /// What the controller reads of an observation of Slurm.
    #[must_use]
    pub fn observation(flaw: Option<Flaw>, mut view: SlurmView) -> SlurmView {
        if Self::LiftsOthersDown.is(flaw) {
            for reason in view.nodes.values_mut().filter_map(|node| node.reason.as_mut()) {
                reason.whose = Whose::Ours;
            }
        }
        if Self::LiftsOthersDrains.is(flaw) {
            let drained = view.nodes.values_mut().filter(|node| node.flags.drain);
            for reason in drained.filter_map(|node| node.reason.as_mut()) {
                reason.whose = Whose::ItsVm;
            }
        }
        if Self::DrainedGiveWay.is(flaw) {
            let drained = view.nodes.values_mut().filter(|node| node.is_drained_by_others());
            drained.for_each(|node| node.flags.drain = false);
        }
        if Self::OrdersOutliveSlurm.is(flaw) {
            view.jobs.values_mut().for_each(|job| job.start = Some(Time(0)));
        }
        if Self::AbsenceIsUnused.is(flaw) {
            for node in std::mem::take(&mut view.without_partition) {
                view.nodes.remove(&node);
                for job in view.jobs.values_mut() {
                    job.nodes.retain(|name| *name != node);
                }
                view.gone.insert(node);
            }
        }
        view
    }

    /// When the controller takes an order to have been given.
    #[must_use]
    pub fn order(flaw: Option<Flaw>, world: &World, at: Time) -> Time {
        match Self::LateOrdersWin.is(flaw) {
            true => world.now,
            false => at,
        }
    }

    /// What the controller has forgotten when it plans.
    pub fn before_plan(flaw: Option<Flaw>, world: &mut World) {
        match flaw {
            Some(Self::ForgetsWhatIsUnderway) => {
                world.busy.clear();
                world.busy_jobs.clear();
            }
            Some(Self::LeavesOrphans) => world.strays.clear(),
            Some(Self::NobodyGivesWay) => world.idle.clear(),
            Some(Self::OrdersOutliveSlurm) => world.powers.clear(),
            Some(Self::StartsSlurmdEarly) => {
                for record in world.records.values_mut() {
                    if let Desired::Early { since } = record.desired {
                        record.desired = Desired::Up { since };
                    }
                }
            }
            _ => {}
        }
    }

    /// What becomes of a round's steps.
    #[must_use]
    pub fn decided(flaw: Option<Flaw>, world: &World, mut steps: Vec<(i64, Step)>) -> Vec<(i64, Step)> {
        steps.retain(|(_, step)| match step.action {
            Action::Node(_, NodeVerb::SetDown { .. }) => !Self::TellsNobody.is(flaw),
            Action::Node(_, NodeVerb::Return) => !Self::KeepsNodesDown.is(flaw),
            Action::Node(_, NodeVerb::Undrain { .. }) => !Self::KeepsDrains.is(flaw),
            Action::Job(_, JobVerb::TurnAway { .. }) => !Self::LeavesOthersJobs.is(flaw),
            _ => true,
        });
        if Self::EndsNodesAtOnce.is(flaw) {
            for (_, step) in &mut steps {
                if let Action::Node(node, NodeVerb::EndWithJob(why)) = &step.action
                    && *why != EndWhy::GivesWay
                {
                    step.action = Action::Node(node.clone(), NodeVerb::PowerDown);
                }
            }
        }
        if Self::OneSizeForAll.is(flaw) {
            for (_, step) in &mut steps {
                if let Action::Vm(tag, VmVerb::Create { spec, .. }) = &mut step.action
                    && let Some(node) = world.specs.get(&tag.node)
                {
                    spec.shape = node.shape;
                }
            }
        }
        steps
    }

    /// What the controller forgets when an action has ended.
    pub fn ended(flaw: Option<Flaw>, world: &mut World, action: &Action, outcome: &Outcome) {
        if Self::ForgetsUnheardCreations.is(flaw)
            && let (Action::Vm(tag, VmVerb::Create { .. }), Outcome::Failed(_)) = (action, outcome)
            && let Some(record) = world.records.get_mut(&tag.node)
        {
            record.vm = None;
        }
    }

    /// The journal that the controller has.
    #[must_use]
    pub fn disk(flaw: Option<Flaw>) -> Box<dyn Disk> {
        match flaw {
            Some(Self::NoFsync | Self::TakesOrdersAgain) => Box::new(Careless {
                flaw,
                ..Careless::default()
            }),
            _ => Box::new(Memory::default()),
        }
    }
}

/// How many rounds an unsynced journal holds back.
const UNSYNCED: usize = 3;

/// A journal that does not keep what it promised.
#[derive(Debug, Default)]
struct Careless {
    flaw: Option<Flaw>,
    now: Memory,
    /// What is truly on disk.
    synced: Memory,
    unsynced: usize,
}

impl Journal for Careless {
    type Error = String;

    fn load(&mut self) -> Result<Table<NodeName, NodeRecord>, String> {
        self.now.load()
    }

    fn save(
        &mut self,
        records: &Table<NodeName, NodeRecord>,
        entry: &Entry,
        now: Time,
    ) -> Result<(), String> {
        if Flaw::TakesOrdersAgain.is(self.flaw) {
            self.now.forget_orders();
        }
        self.now.save(records, entry, now)?;
        self.unsynced += 1;
        if self.unsynced > UNSYNCED {
            self.unsynced = 0;
            self.synced = self.now.clone();
        }
        Ok(())
    }

    fn is_taken(&self, name: &str) -> Result<bool, String> {
        Ok(self.now.is_taken(name)? && !Flaw::TakesOrdersAgain.is(self.flaw))
    }

    fn next_action(&self) -> Result<i64, String> {
        self.now.next_action()
    }

    fn interrupted(&mut self, now: Time) -> Result<Vec<String>, String> {
        self.now.interrupted(now)
    }
}

impl Disk for Careless {
    fn reopen(&mut self) {
        if Flaw::NoFsync.is(self.flaw) {
            self.now = self.synced.clone();
        }
    }

    fn set_full(&mut self, full: bool) {
        self.now.set_full(full);
    }

    fn back_up(&mut self) {
        self.now.back_up();
    }

    fn restore(&mut self) -> bool {
        self.now.restore()
    }
}
