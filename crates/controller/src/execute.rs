//! Executes what was decided. No choices here: each step becomes one call, and
//! its answer becomes a message to the owner.

use crate::addresses::Addresses;
use crate::clock::Clock;
use crate::message::Message;
use crate::provider::{Ended, Provider, ProviderError, chain};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use thiao_core::fold::Outcome;
use thiao_core::ids::{JobId, NodeName, VmId, VmTag};
use thiao_core::options::{VmOptions, comment_beside};
use thiao_core::plan::{Action, EndWhy, JobVerb, NodeVerb, Step, VmVerb};
use thiao_core::view::ErrorClass;
use thiao_slurm::{Admission, Slurm, SlurmError};
use tokio::sync::{Semaphore, mpsc};

/// An action with its key in the journal.
#[derive(Debug, Clone)]
struct Key(i64, Action);

/// What one call is made for, each with the action that it carries out. The call gives what came of each, in the
/// same order.
type Batch<T> = Vec<(Key, T)>;

/// Calls at once, each on a thread of its own. Observations need threads of the same
/// pool, so that a thousand creations must not take them all.
const CALLS_AT_ONCE: usize = 64;

/// Whom steps are told to, and who hears what came of them.
pub struct Executor<P> {
    provider: Arc<P>,
    slurm: Arc<Slurm>,
    messages: mpsc::Sender<Message>,
    clock: Arc<Clock>,
    addresses: Arc<Addresses>,
    /// Keeps calls from being too many at once.
    slots: Arc<Semaphore>,
}

impl<P: Provider> Executor<P> {
    /// One that has done nothing yet.
    pub fn new(
        provider: Arc<P>,
        slurm: Arc<Slurm>,
        messages: mpsc::Sender<Message>,
        clock: Arc<Clock>,
    ) -> Self {
        Self {
            provider,
            slurm,
            messages,
            clock,
            addresses: Arc::default(),
            slots: Arc::new(Semaphore::new(CALLS_AT_ONCE)),
        }
    }

    /// Tells Slurm of nodes that wait for their VMs.
    pub fn wait(&self, nodes: BTreeSet<NodeName>) {
        if self.addresses.wait(nodes) {
            let (addresses, slurm) = (self.addresses.clone(), self.slurm.clone());
            tokio::task::spawn_blocking(move || addresses.tell_waiting(&slurm));
        }
    }

    /// Starts all steps; Slurm's are batched so that it gets few calls. `options`: those of jobs
    /// that have some, which must stay in what they are told.
    pub fn execute(&self, steps: Vec<(i64, Step)>, options: &Arc<BTreeMap<JobId, VmOptions>>) {
        let unmade = Arc::new(Unmade::of(&steps));
        let mut nodes = BTreeMap::<ForNodes, Batch<(NodeName, Vec<JobId>)>>::new();
        let (mut starts, mut admissions) = (Batch::new(), Batch::new());
        for (id, Step { action, .. }) in steps {
            let key = Key(id, action.clone());
            match action {
                Action::Vm(tag, verb) => self.on_vm(key, tag, verb, &unmade),
                Action::Node(node, verb) => {
                    let (what, jobs) = ForNodes::of(verb);
                    nodes.entry(what).or_default().push((key, (node, jobs)));
                }
                Action::Job(job, verb) => match verb {
                    JobVerb::StartNow => starts.push((key, job)),
                    JobVerb::Admit {
                        array,
                        nodes,
                        licenses,
                    } => {
                        let admission = Admission {
                            job,
                            array,
                            nodes,
                            licenses,
                        };
                        admissions.push((key, admission));
                    }
                    JobVerb::CloseGate { array, licenses } => {
                        let gate = Admission {
                            job,
                            array,
                            nodes: None,
                            licenses,
                        };
                        self.on_job(key, move |slurm| slurm.close_gate(&gate));
                    }
                    JobVerb::PutBack { licenses, comment } => {
                        self.on_job(key, move |slurm| slurm.put_back(job, &licenses, &comment));
                    }
                    JobVerb::FinishPutBack { licenses } => {
                        self.on_job(key, move |slurm| slurm.reopen(job, &licenses));
                    }
                    JobVerb::Refuse { why } => self.on_job(key, move |slurm| slurm.refuse(job, &why)),
                    JobVerb::TurnAway { from, why } => {
                        self.on_job(key, move |slurm| slurm.turn_away(job, &from, &why));
                    }
                },
            }
        }
        for (what, batch) in nodes {
            let (slurm, options) = (self.slurm.clone(), options.clone());
            self.run(batch, move |batch| what.done_to(&slurm, batch, &options));
        }
        let slurm = self.slurm.clone();
        self.run(starts, move |batch| {
            let jobs: Vec<JobId> = batch.iter().map(|(_, job)| *job).collect();
            all(batch, slurm.start_now(&jobs))
        });
        let slurm = self.slurm.clone();
        self.run(admissions, move |batch| admit(&slurm, batch));
    }

    /// Makes one call for a batch, on a thread of its own; the owner hears what came of each action.
    fn run<T: Send + 'static>(
        &self,
        batch: Batch<T>,
        call: impl FnOnce(&Batch<T>) -> Vec<Outcome> + Send + 'static,
    ) {
        if batch.is_empty() {
            return;
        }
        let (messages, slots) = (self.messages.clone(), self.slots.clone());
        let keys: Vec<Key> = batch.iter().map(|(key, _)| key.clone()).collect();
        tokio::spawn(async move {
            // Closed by nobody.
            let _slot = slots.acquire_owned().await;
            let ended = tokio::task::spawn_blocking(move || call(&batch)).await;
            let outcomes = ended.unwrap_or_else(|error| {
                let failed = Outcome::Failed(format!("the call ended badly: {error}"));
                vec![failed; keys.len()]
            });
            let finished = keys.into_iter().zip(outcomes);
            let finished = finished
                .map(|(Key(id, action), outcome)| (id, action, outcome))
                .collect();
            // The owner is gone only when the process ends.
            drop(messages.send(Message::Finished(finished)).await);
        });
    }

    fn on_vm(&self, key: Key, tag: VmTag, verb: VmVerb, unmade: &Arc<Unmade>) {
        let (provider, clock, messages) = (self.provider.clone(), self.clock.clone(), self.messages.clone());
        let before = match verb {
            VmVerb::Create { .. } => Some((unmade.clone(), self.addresses.clone(), self.slurm.clone())),
            VmVerb::StartSlurmd { .. } | VmVerb::Destroy { .. } => None,
        };
        self.run(vec![(key, (tag, verb))], move |batch| {
            if let Some((unmade, addresses, slurm)) = before {
                unmade.tell(&addresses, &slurm);
            }
            for (_, (tag, verb)) in batch {
                if let VmVerb::Destroy { id, cause, .. } = verb
                    && let Some(words) = provider.last_words(tag, id.as_ref())
                {
                    let words = Message::LastWords(tag.clone(), cause.clone(), words);
                    drop(messages.blocking_send(words));
                }
            }
            each(batch, |(tag, verb)| at_provider(&*provider, &clock, tag, verb))
        });
    }

    /// Makes a call about one job.
    fn on_job(&self, key: Key, call: impl FnOnce(&Slurm) -> Result<(), SlurmError> + Send + 'static) {
        let slurm = self.slurm.clone();
        self.run(vec![(key, ())], move |batch| all(batch, call(&slurm)));
    }
}

/// Nodes whose VMs are made now, and were not asked for before: Slurm hears by one call that they have no
/// address yet, before the first of the VMs is made.
struct Unmade {
    nodes: Vec<NodeName>,
    told: OnceLock<()>,
}

impl Unmade {
    fn of(steps: &[(i64, Step)]) -> Self {
        let new = steps.iter().filter_map(|(_, step)| match &step.action {
            Action::Vm(tag, VmVerb::Create { again: false, .. }) => Some(tag.node.clone()),
            Action::Vm(..) | Action::Node(..) | Action::Job(..) => None,
        });
        Self {
            nodes: new.collect(),
            told: OnceLock::new(),
        }
    }

    fn tell(&self, addresses: &Addresses, slurm: &Slurm) {
        self.told.get_or_init(|| addresses.tell_made(slurm, &self.nodes));
    }
}

/// What Slurm does to several nodes by one call: of those to be DOWN, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum ForNodes {
    SetDown(String),
    Return,
    Undrain,
    EndWithJob(EndWhy),
    PowerDown,
}

impl ForNodes {
    /// The same of one node, and the jobs to tell.
    fn of(verb: NodeVerb) -> (Self, Vec<JobId>) {
        match verb {
            NodeVerb::SetDown { reason, jobs } => (Self::SetDown(reason), jobs),
            NodeVerb::Return => (Self::Return, Vec::new()),
            NodeVerb::Undrain { .. } => (Self::Undrain, Vec::new()),
            NodeVerb::EndWithJob(why) => (Self::EndWithJob(why), Vec::new()),
            NodeVerb::PowerDown => (Self::PowerDown, Vec::new()),
        }
    }

    fn done_to(
        &self,
        slurm: &Slurm,
        batch: &Batch<(NodeName, Vec<JobId>)>,
        options: &BTreeMap<JobId, VmOptions>,
    ) -> Vec<Outcome> {
        let nodes: Vec<NodeName> = batch.iter().map(|(_, (node, _))| node.clone()).collect();
        let result = match self {
            Self::SetDown(reason) => {
                tell_jobs(slurm, batch, reason, options);
                slurm.set_down(&nodes, reason)
            }
            Self::Return => slurm.return_to_service(&nodes),
            Self::Undrain => slurm.undrain(&nodes),
            Self::EndWithJob(why) => slurm.end_with_job(&nodes, why.reason()),
            Self::PowerDown => slurm.power_down_now(&nodes, EndWhy::OneJob.reason()),
        };
        all(batch, result)
    }
}

fn each<T>(batch: &Batch<T>, call: impl Fn(&T) -> Outcome) -> Vec<Outcome> {
    batch.iter().map(|(_, what)| call(what)).collect()
}

/// One answer for all.
fn all<T>(batch: &Batch<T>, result: Result<(), SlurmError>) -> Vec<Outcome> {
    vec![done(result); batch.len()]
}

fn done(result: Result<(), SlurmError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Failed(chain(&error)),
    }
}

fn at_provider<P: Provider>(provider: &P, clock: &Clock, tag: &VmTag, verb: &VmVerb) -> Outcome {
    match verb {
        VmVerb::Create { host, spec, again } => created(provider.create(tag, host, spec, *again)),
        VmVerb::StartSlurmd { id, number, asked } => {
            match provider.start_slurmd(tag, id.as_ref(), *number, clock.left_of_second(*asked)) {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Failed(error.text),
            }
        }
        VmVerb::Destroy { id, hard, .. } => match provider.destroy(tag, id.as_ref(), *hard) {
            Ok(Ended::Gone) => Outcome::Done,
            Ok(Ended::Underway(what)) => Outcome::Ending(what),
            Err(error) => Outcome::Failed(error.text),
        },
    }
}

fn created(result: Result<VmId, ProviderError>) -> Outcome {
    match result {
        Ok(id) => Outcome::Created(id),
        Err(error) => match error.class {
            ErrorClass::Transient => Outcome::Failed(error.text),
            ErrorClass::Full | ErrorClass::Refused => Outcome::NotCreated(error.text),
        },
    }
}

/// Admits jobs; what came of each.
fn admit(slurm: &Slurm, batch: &Batch<Admission>) -> Vec<Outcome> {
    let admissions: Vec<Admission> = batch.iter().map(|(_, one)| one.clone()).collect();
    let answers = slurm.admit(&admissions).into_iter();
    let told: BTreeMap<JobId, Outcome> = answers.map(|(job, result)| (job, done(result))).collect();
    let unsaid = || Outcome::Failed("it got no answer".into());
    each(batch, |one| told.get(&one.job).cloned().unwrap_or_else(unsaid))
}

/// Jobs are told before their node is DOWN: then Slurm requeues them and their output is closed. A job that
/// can't be told keeps nothing from being done.
fn tell_jobs(
    slurm: &Slurm,
    batch: &Batch<(NodeName, Vec<JobId>)>,
    reason: &str,
    options: &BTreeMap<JobId, VmOptions>,
) {
    let mut told: BTreeMap<JobId, Vec<&NodeName>> = BTreeMap::new();
    for (_, (node, jobs)) in batch {
        jobs.iter()
            .for_each(|job| told.entry(*job).or_default().push(node));
    }
    for (job, nodes) in told {
        let names = thiao_core::hostlist::fold(nodes);
        let own = options.get(&job).cloned().unwrap_or_default();
        let text = comment_beside(&own, &format!("{reason} [{names}]"));
        if let Err(error) = slurm.notify_job(job, &text) {
            tracing::warn!(%job, %error, "the job could not be told");
        }
    }
}
