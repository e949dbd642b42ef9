//! An owner's task of which each move is the test's: it makes no round by itself.

use super::*;
use crate::api::{Demand, Read, Reply};
use crate::message::Message;
use crate::provider::{Ended, Observed, Prepared, ProviderError};
use std::sync::Arc;
use std::time::Duration;
use thiao_core::ids::{HostName, JobId, NodeName, Time, VmId, VmTag};
use thiao_core::view::{Shape, SlurmJob, SlurmView, VmSpec};
use thiao_slurm::Slurm;
use thiao_testkit::site::Site;
use tokio::sync::oneshot;

/// Is never asked for anything.
struct Idle;

impl Provider for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn prepare(
        &self,
        _: &[(thiao_core::ids::NodesetName, Shape)],
        _: &dyn Fn(&str),
    ) -> Result<Prepared, ProviderError> {
        unreachable!()
    }

    fn observe(&self) -> Result<Observed, ProviderError> {
        unreachable!()
    }

    fn create(&self, _: &VmTag, _: &HostName, _: &VmSpec, _: bool) -> Result<VmId, ProviderError> {
        unreachable!()
    }

    fn start_slurmd(&self, _: &VmTag, _: Option<&VmId>, _: u32, _: Duration) -> Result<(), ProviderError> {
        unreachable!()
    }

    fn destroy(&self, _: &VmTag, _: Option<&VmId>, _: bool) -> Result<Ended, ProviderError> {
        unreachable!()
    }

    fn timeline(&self, _: &VmId) -> Vec<(u64, String)> {
        Vec::new()
    }
}

fn owner() -> (Site, Owner<Idle>) {
    let site = Site::new("[[nodeset]]\nname = \"n\"\nnodes = \"n[0-1]\"\nmemory_mb = 100\n");
    let config = site.config();
    crate::make_state_dir(&config.state_dir).unwrap();
    let slurm = Slurm::new(
        config.slurm.conf.clone(),
        config.slurm.bin_dir.clone(),
        config.slurm.timeout,
    );
    let owner = Owner::open(&config, Arc::new(Idle), slurm, Arc::default()).unwrap();
    (site, owner)
}

/// The answer, which must be there at once.
#[track_caller]
fn read<T>(reader: &Reader<Idle>, question: impl FnOnce(Reply<T>) -> Read) -> T {
    let (reply, mut answer) = oneshot::channel();
    reader.answer(question(reply));
    answer.try_recv().unwrap().unwrap()
}

#[tokio::test]
async fn who_gave_an_order_sees_it_as_soon_as_it_is_taken() {
    let (_site, mut owner) = owner();
    let reader = owner.reader().unwrap();
    let desired_states = || {
        read(&reader, Read::Nodes)
            .into_iter()
            .map(|node| node.desired.to_string())
    };
    let told = || {
        let events = read(&reader, |reply| Read::Events {
            limit: 10,
            after: None,
            subject: Some("node n0".into()),
            reply,
        });
        events.len()
    };
    assert_eq!(
        (desired_states().collect::<Vec<_>>(), told()),
        (vec!["unasked".to_owned(); 2], 0)
    );
    for (number, force) in [false, true].into_iter().enumerate() {
        let (reply, mut answer) = oneshot::channel();
        let nodes = vec![NodeName::new("n0").unwrap()];
        owner.demand(Demand::Resume { nodes, force, reply });
        answer.try_recv().unwrap().unwrap();
        assert_eq!(desired_states().next().unwrap(), "up");
        assert_eq!(told(), number + 1);
    }
}

#[tokio::test]
async fn who_waited_for_an_observation_sees_what_it_shows() {
    let (_site, mut owner) = owner();
    let reader = owner.reader().unwrap();
    let (reply, mut answer) = oneshot::channel();
    owner.demand(Demand::JobSeen {
        job: Some(JobId(7)),
        reply,
    });
    assert!(read(&reader, Read::Jobs).is_empty());
    let mut view = SlurmView::default();
    view.jobs.insert(JobId(7), SlurmJob::new(JobId(7)));
    assert!(answer.try_recv().is_err(), "nobody has observed Slurm");
    owner.take(Message::Slurm(reader.clock.now(), Ok(view)));
    answer.try_recv().unwrap().unwrap();
    assert_eq!(read(&reader, Read::Jobs)[0].id, 7);
    assert!(owner.shown.snapshots().borrow().shows(JobId(7)));
    // That it cannot be read is seen as well.
    let (reply, mut answer) = oneshot::channel();
    owner.demand(Demand::JobSeen { job: None, reply });
    owner.take(Message::Slurm(reader.clock.now(), Err("no answer".into())));
    answer.try_recv().unwrap().unwrap();
    assert_eq!(read(&reader, Read::Status).slurm.error.unwrap(), "no answer");
}

#[tokio::test]
async fn many_readers_after_a_round_share_one_copy_of_the_state() {
    let (_site, owner) = owner();
    let first = owner.shown.snapshots().borrow().clone();
    let shows = |snapshot: &Arc<Snapshot>| Arc::ptr_eq(&owner.shown.snapshots().borrow(), snapshot);
    owner.shown.renewed().await;
    owner.publish_if_wanted();
    assert!(shows(&first), "there was no round");
    owner.publish_if_due();
    assert!(shows(&first), "nobody reads");
    let mut reading = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let shown = owner.shown.clone();
        reading.spawn(async move {
            shown.renewed().await;
            shown.snapshots().borrow().clone()
        });
    }
    let mut seen = Vec::new();
    while !reading.is_empty() {
        tokio::select! {
            Some(snapshot) = reading.join_next() => seen.push(snapshot.unwrap()),
            () = owner.shown.called() => owner.publish_if_wanted(),
        }
    }
    assert_eq!(seen.len(), 1000);
    assert!(seen.iter().all(|snapshot| Arc::ptr_eq(snapshot, &seen[0])) && !shows(&first));
}

#[tokio::test]
async fn an_owner_that_is_busy_is_not_waited_for_and_shows_no_old_state() {
    let (_site, mut owner) = owner();
    let first = owner.shown.taken();
    owner.rounds.wake(Time(first.0 + 999));
    owner.publish_if_due();
    // Nobody hears that.
    owner.shown.renewed().await;
    assert_eq!(owner.shown.taken(), first);
    owner.publish();
    for (after, expected) in [(1_998, 999), (1_999, 1_999)] {
        owner.rounds.wake(Time(first.0 + after));
        owner.publish_if_due();
        assert_eq!(owner.shown.taken(), Time(first.0 + expected), "{after} ms");
    }
}
