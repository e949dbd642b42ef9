//! Paths about single jobs of job mode, for their users: asking for VMs, letting
//! them go, and what they were.

use crate::api::server::asking::{Answer, Controller, SOME_EVENTS, malformed};
use crate::api::{ApiError, Demand, Read, Viewer};
use crate::store::Which;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiao_api::JobName;
use thiao_api::types::{Accepted, Give, JobStay, JobVm, JobVms};
use thiao_core::ids::{JobId, Time};
use thiao_core::options::VmOptions;

/// The largest body of a request, in bytes.
const MAX_BODY: usize = 4 << 10;

/// Most VMs in one answer.
const MAX_VMS: usize = 10_000;

pub(super) async fn give(
    State(controller): State<Controller>,
    Extension(viewer): Extension<Viewer>,
    name: Result<Path<String>, PathRejection>,
    body: Body,
) -> Answer<Accepted> {
    let job = named(name)?;
    let Give { options } = read(&controller, body).await?;
    controller.owned(viewer, job).await?;
    let options = VmOptions::parse(&options).map_err(ApiError::Malformed)?;
    controller
        .ask_slow(|reply| Demand::Give { job, options, reply })
        .await
        .map(Json)
}

pub(super) async fn clean(
    State(controller): State<Controller>,
    Extension(viewer): Extension<Viewer>,
    name: Result<Path<String>, PathRejection>,
) -> Answer<Accepted> {
    let job = named(name)?;
    controller.owned(viewer, job).await?;
    controller
        .ask(|reply| Demand::Clean { job, reply })
        .await
        .map(Json)
}

pub(super) async fn vms(
    State(controller): State<Controller>,
    Extension(viewer): Extension<Viewer>,
    name: Result<Path<String>, PathRejection>,
) -> Answer<JobVms> {
    let job = named(name)?;
    controller.owned(viewer, job).await?;
    controller.vms_of(viewer, job).await.map(Json)
}

/// Which page of all.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    since: u64,
    #[serde(default)]
    after: i64,
    limit: Option<usize>,
}

pub(super) async fn all(
    State(controller): State<Controller>,
    Extension(viewer): Extension<Viewer>,
    page: Result<Query<Page>, QueryRejection>,
) -> Answer<Vec<JobVm>> {
    let which = which(viewer, page)?;
    controller
        .ask(|reply| Read::JobsVms { which, reply })
        .await
        .map(Json)
}

pub(super) async fn nodes(
    State(controller): State<Controller>,
    Extension(viewer): Extension<Viewer>,
    page: Result<Query<Page>, QueryRejection>,
) -> Answer<Vec<JobStay>> {
    let which = which(viewer, page)?;
    controller
        .ask(|reply| Read::JobsNodes { which, reply })
        .await
        .map(Json)
}

/// A page of what the viewer may see.
fn which(viewer: Viewer, page: Result<Query<Page>, QueryRejection>) -> Result<Which, ApiError> {
    let Query(Page { since, after, limit }) = page.map_err(malformed)?;
    let limit = limit.unwrap_or(MAX_VMS);
    if !(1..=MAX_VMS).contains(&limit) {
        return Err(ApiError::Malformed(format!(
            "limit={limit} is not from 1 to {MAX_VMS}"
        )));
    }
    Ok(Which {
        // The store's numbers have a sign.
        since: Time(since.min(i64::MAX as u64)),
        of: (!viewer.trusted).then_some(viewer.uid),
        after,
        limit,
    })
}

impl Controller {
    /// Whether the viewer may act on this job: it is his, by Slurm's word, or when Slurm
    /// has forgotten it by ours; or he is trusted. Others are told that there is none.
    async fn owned(&self, viewer: Viewer, name: JobName) -> Result<(), ApiError> {
        let job = Some(JobId(name.id));
        if viewer.trusted {
            return self.seen(job).await;
        }
        let mut jobs = self.ask(Read::Jobs).await?;
        jobs.retain(|job| job.is(name));
        if jobs.is_empty() {
            self.seen(job).await?;
            jobs = self.ask(Read::Jobs).await?;
            jobs.retain(|job| job.is(name));
        }
        let own = if jobs.is_empty() {
            self.was_own(viewer, name).await?
        } else {
            jobs.iter().all(|job| job.uid == viewer.uid)
        };
        if own {
            Ok(())
        } else {
            Err(ApiError::NotFound(format!("you have no job {name}")))
        }
    }

    /// Whether a job that Slurm does not show was the viewer's, by what is known of its VMs and events.
    async fn was_own(&self, viewer: Viewer, name: JobName) -> Result<bool, ApiError> {
        let had = match self.vms_of(viewer, name).await {
            Err(ApiError::NotFound(_)) => return Ok(false),
            had => had?,
        };
        if had.uid == Some(viewer.uid) {
            return Ok(true);
        }
        let subject = Some(format!("job {}", had.job));
        let events = self
            .ask(|reply| Read::Events {
                limit: SOME_EVENTS,
                after: None,
                subject,
                reply,
            })
            .await?;
        Ok(events.iter().any(|event| event.uid == Some(viewer.uid)))
    }

    /// The VMs of a job. Its number may have been another user's before: those are not shown.
    async fn vms_of(&self, viewer: Viewer, job: JobName) -> Result<JobVms, ApiError> {
        let told = self.ask(|reply| Read::JobVms { job, reply }).await?;
        let mut vms = told.vms;
        vms.retain(|vm| viewer.trusted || vm.uid == Some(viewer.uid));
        Ok(JobVms::of(told.job, vms))
    }
}

fn named(name: Result<Path<String>, PathRejection>) -> Result<JobName, ApiError> {
    let Path(name) = name.map_err(malformed)?;
    // Bounded before it is told back.
    let name: String = name.chars().take(32).collect();
    name.parse().map_err(ApiError::Malformed)
}

/// Reads a request's body: bounded in size and in time.
async fn read<T: DeserializeOwned>(controller: &Controller, body: Body) -> Result<T, ApiError> {
    let whole = tokio::time::timeout(controller.patience, axum::body::to_bytes(body, MAX_BODY)).await;
    let bytes = whole
        .map_err(|_| ApiError::Malformed("the request's body did not come".to_owned()))?
        .map_err(|error| ApiError::Malformed(format!("the request's body cannot be read: {error}")))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::Malformed(format!("the request's body makes no sense: {error}")))
}
