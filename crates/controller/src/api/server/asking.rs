//! The way to the controller, for those who may come in.

use super::limits::Limits;
use crate::api::{ApiError, Demand, Query as Question, Read, Reply, Viewer};
use axum::Json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiao_api::JobName;
use thiao_core::ids::JobId;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Events in an answer when nobody says how many.
pub(super) const SOME_EVENTS: usize = 100;

pub(super) type Answer<T> = Result<Json<T>, ApiError>;

/// The way to the controller.
#[derive(Clone)]
pub(super) struct Controller {
    queries: mpsc::Sender<Question>,
    pub(super) patience: Duration,
    /// How many questions are before it at once by this way: those that it answers by itself.
    turns: Arc<Semaphore>,
    /// And those for which it asks Slurm something, which may take seconds.
    slow_turns: Arc<Semaphore>,
    /// What calls for an observation of Slurm is gathered for so long, from this instant on.
    gather: Option<(Instant, Duration)>,
}

impl Controller {
    /// For the trusted, who wait for nobody.
    pub(super) fn new(queries: mpsc::Sender<Question>, patience: Duration) -> Self {
        Self {
            queries,
            patience,
            turns: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            slow_turns: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            gather: None,
        }
    }

    /// For all others together: they may be many, and each may ask without end.
    pub(super) fn for_many(queries: mpsc::Sender<Question>, limits: &Limits) -> Self {
        Self {
            queries,
            patience: limits.answer,
            turns: Arc::new(Semaphore::new(limits.turns)),
            slow_turns: Arc::new(Semaphore::new(limits.turns)),
            gather: Some((Instant::now(), limits.gather)),
        }
    }

    /// To be awaited before what calls for an observation of Slurm: all who come within a period go
    /// on together at its end, and share the observation.
    pub(super) async fn gather(&self) {
        let Some((since, period)) = self.gather else {
            return;
        };
        tokio::time::sleep(rest(since.elapsed(), period)).await;
    }

    /// Sees to it that a job that may be new was looked for, or any (none). All who wait for that wait for one
    /// observation.
    pub(super) async fn seen(&self, job: Option<JobId>) -> Result<(), ApiError> {
        self.gather().await;
        self.in_time(self.ask_unbounded(|reply| Demand::JobSeen { job, reply }))
            .await
    }

    /// Asks, and waits for the answer for a bounded time.
    pub(super) async fn ask<T, Q: Into<Question>>(
        &self,
        question: impl FnOnce(Reply<T>) -> Q,
    ) -> Result<T, ApiError> {
        self.ask_in_turn(&self.turns, question).await
    }

    /// The same of what the controller asks Slurm.
    pub(super) async fn ask_slow<T>(&self, question: impl FnOnce(Reply<T>) -> Demand) -> Result<T, ApiError> {
        self.ask_in_turn(&self.slow_turns, question).await
    }

    async fn ask_in_turn<T, Q: Into<Question>>(
        &self,
        turns: &Semaphore,
        question: impl FnOnce(Reply<T>) -> Q,
    ) -> Result<T, ApiError> {
        self.in_time(async {
            // Closed by nobody.
            let _turn = turns.acquire().await;
            self.ask_unbounded(question).await
        })
        .await
    }

    async fn in_time<T>(&self, asked: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        let busy = |_| ApiError::Unavailable("the controller is busy: try again in a moment".to_owned());
        tokio::time::timeout(self.patience, asked).await.map_err(busy)?
    }

    /// Asks, and waits for the answer for as long as it takes.
    pub(super) async fn ask_unbounded<T, Q: Into<Question>>(
        &self,
        question: impl FnOnce(Reply<T>) -> Q,
    ) -> Result<T, ApiError> {
        let ends =
            || ApiError::Unavailable("the controller is stopping: try again when it is back".to_owned());
        let (reply, answer) = oneshot::channel();
        self.queries
            .send(question(reply).into())
            .await
            .map_err(|_| ends())?;
        answer.await.map_err(|_| ends())?
    }

    /// What this viewer may see of jobs.
    pub(super) async fn sight(&self, viewer: Viewer) -> Result<Sight, ApiError> {
        let own = if viewer.trusted {
            BTreeSet::new()
        } else {
            let jobs = self.ask(Read::Jobs).await?;
            jobs.into_iter()
                .filter(|job| job.uid == viewer.uid)
                .flat_map(|job| [Some(job.id), job.array.map(|array| array.job)])
                .flatten()
                .collect()
        };
        Ok(Sight { viewer, own })
    }
}

/// How long it is to the end of the period that began last.
fn rest(elapsed: Duration, period: Duration) -> Duration {
    let into = elapsed.as_nanos() % period.as_nanos().max(1);
    period.saturating_sub(Duration::from_nanos(u64::try_from(into).unwrap_or(0)))
}

/// What a viewer may see of jobs.
pub(super) struct Sight {
    viewer: Viewer,
    /// His jobs and arrays that are not over; empty for those who see all.
    own: BTreeSet<u32>,
}

impl Sight {
    /// Whether it is known as one of his jobs: it need not be looked for.
    pub(super) fn knows(&self, job: JobName) -> bool {
        self.own.contains(&job.id)
    }

    pub(super) fn job(&self, id: u32) -> bool {
        self.viewer.trusted || self.own.contains(&id)
    }

    /// Whether the console of a VM may be shown on which these users' jobs were: to one whose alone it was.
    pub(super) fn console(&self, users: &[u32]) -> bool {
        self.viewer.trusted || users == [self.viewer.uid]
    }

    /// Whether something about this subject may be shown: of a job, to its owner alone.
    pub(super) fn subject(&self, subject: &str, owner: Option<u32>) -> bool {
        match (owner, subject.strip_prefix("job ")) {
            (None, Some(id)) => self.viewer.trusted || id.parse().is_ok_and(|id| self.job(id)),
            (owner, _) => self.viewer.may_see(owner),
        }
    }
}

pub(super) fn malformed(rejection: impl std::fmt::Display) -> ApiError {
    ApiError::Malformed(rejection.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_come_within_a_period_go_on_together() {
        let ms = Duration::from_millis;
        for (elapsed, period, expected) in [
            (0, 500, 500),
            (1, 500, 499),
            (499, 500, 1),
            (1_700, 500, 300),
            (7, 0, 0),
        ] {
            assert_eq!(rest(ms(elapsed), ms(period)), ms(expected), "{elapsed} {period}");
        }
    }
}
