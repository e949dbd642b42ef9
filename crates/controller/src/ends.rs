//! How jobs on our nodes ended: Slurm's listing leaves them out then, and is asked once what became of them, so that
//! `thiao explain JOB` can tell as long as events are kept.

use crate::message::Message;
use crate::owner::Owner;
use crate::provider::Provider;
use std::collections::BTreeSet;
use thiao_core::event::{Event, Kind, Subject};
use thiao_core::ids::{JobId, Millis, Time};
use thiao_core::view::SlurmView;
use thiao_core::world::World;
use thiao_slurm::ends::Ended;

/// Not asked more often: Slurm remembers for longer (MinJobAge), and many may end at once.
const APART: Millis = Millis::secs(5);

/// Most jobs that are asked about, and remembered for that.
const MOST: usize = 5_000;

/// Jobs on our nodes, and those that were and are not any more.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    here: BTreeSet<JobId>,
    due: BTreeSet<JobId>,
    /// When Slurm was asked last, unless it has not answered yet.
    asked: Option<Time>,
    waits: bool,
}

impl Ends {
    /// Takes an observation of Slurm.
    fn see(&mut self, world: &World, view: &SlurmView) {
        let ours = view.jobs.values().filter(|job| {
            let on = |node| world.records.contains_key(node);
            !job.is_over() && job.nodes.iter().any(on)
        });
        let here: BTreeSet<JobId> = ours.map(|job| job.id).collect();
        let listed = |id: &JobId| view.jobs.get(id).is_some_and(|job| !job.is_over());
        let left = std::mem::replace(&mut self.here, here);
        let gone = left.into_iter().filter(|id| !listed(id));
        self.due.extend(gone);
        while self.due.len() > MOST {
            self.due.pop_first();
        }
    }

    /// Those that Slurm is to be asked about now.
    fn take_due(&mut self, now: Time) -> Vec<JobId> {
        let lately = self.asked.is_some_and(|at| now.since(at) < APART);
        if self.waits || lately || self.due.is_empty() {
            return Vec::new();
        }
        (self.asked, self.waits) = (Some(now), true);
        std::mem::take(&mut self.due).into_iter().collect()
    }
}

impl<P: Provider> Owner<P> {
    /// Takes an observation of Slurm, before it is folded, and asks how those jobs ended that it does not show.
    pub(super) fn see_ends(&mut self, view: &SlurmView) {
        let world = self.rounds.world();
        self.ends.see(world, view);
        let due = self.ends.take_due(world.now);
        if due.is_empty() {
            return;
        }
        let (slurm, messages) = (self.slurm.clone(), self.messages.0.clone());
        tokio::task::spawn_blocking(move || {
            let ends = slurm.ends(&due).unwrap_or_else(|error| {
                tracing::debug!(%error, "Slurm did not tell how jobs ended");
                Vec::new()
            });
            // The owner is gone only when the process ends.
            let _ = messages.blocking_send(Message::JobsEnded(ends));
        });
    }

    /// Tells whoever's jobs they were.
    pub(super) fn told_of_ends(&mut self, ends: Vec<Ended>) {
        self.ends.waits = false;
        for Ended { job, uid, end } in ends {
            if let Some(text) = end.text() {
                let event = Event::new(Subject::Job(job), Kind::JobFailed, text);
                self.record_of(event, uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use thiao_core::ids::{ClusterName, NodeName};
    use thiao_core::policy::Policy;
    use thiao_core::table::Table;
    use thiao_core::view::{JobState, SlurmJob};
    use thiao_core::world::NodeRecord;

    fn view(jobs: &[(u32, &str, JobState)]) -> SlurmView {
        let job = |(id, node, state): &(u32, &str, JobState)| {
            let job = SlurmJob {
                nodes: vec![NodeName::new(node).unwrap()],
                state: state.clone(),
                ..SlurmJob::new(JobId(*id))
            };
            (job.id, job)
        };
        SlurmView {
            jobs: jobs.iter().map(job).collect(),
            ..SlurmView::default()
        }
    }

    #[test]
    fn who_is_listed_no_more_is_asked_about_once_and_not_too_often() {
        let cluster = ClusterName::new("c").unwrap();
        let mut world = World::new(Time(100_000), cluster, Policy::default(), Table::new());
        world
            .records
            .insert(NodeName::new("n0").unwrap(), NodeRecord::default());
        let world = Arc::new(world);
        let mut ends = Ends::default();
        let on = |id| (id, "n0", JobState::Running);
        ends.see(
            &world,
            &view(&[on(1), on(2), on(3), (4, "other", JobState::Running)]),
        );
        assert_eq!(ends.take_due(Time(100_000)), []);
        // 2 is back in the queue, 3 is shown as over.
        let later = [
            (2, "n0", JobState::Pending),
            (3, "n0", JobState::Over("FAILED".into())),
        ];
        ends.see(&world, &view(&later));
        assert_eq!(ends.take_due(Time(100_000)), [JobId(1), JobId(3)]);
        ends.see(&world, &view(&[]));
        assert_eq!(ends.take_due(Time(200_000)), [], "Slurm has not answered yet");
        ends.waits = false;
        assert_eq!(ends.take_due(Time(100_000 + APART.0 - 1)), []);
        assert_eq!(ends.take_due(Time(100_000 + APART.0)), [JobId(2)]);
        ends.waits = false;
        assert_eq!(ends.take_due(Time(300_000)), []);
    }
}
