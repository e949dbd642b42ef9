//! The API's paths: what each asks the controller, and what of the answer the
//! viewer may see.

mod of_jobs;

use super::asking::{Answer, Controller, SOME_EVENTS, malformed};
use crate::api::{ApiError, Demand, Read, Viewer};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;
use thiao_api::types::{
    Accepted, Event, Explanation, Host, Job, Node, PlanView, Problem, Status, Version, Vm,
};
use thiao_api::{JobName, VERSION};
use thiao_core::hostlist;
use thiao_core::ids::JobId;
use thiao_core::spool::WORK_DIR_HEADER;

/// Most events in one answer.
const MAX_EVENTS: usize = 10_000;

/// The longest name that is asked about, in bytes: `NODE.GENERATION` at most.
const MAX_NAME: usize = 96;

/// How long a job's nodes are waited for, when nobody says and at most.
const READY_WAIT: Duration = Duration::from_secs(30);
const READY_WAIT_MAX: Duration = Duration::from_secs(3600);

/// All paths, and what answers each.
pub(super) fn router(controller: Controller) -> Router {
    let v1 = Router::new()
        .route("/status", get(status))
        .route("/nodes", get(nodes))
        .route("/vms", get(vms))
        .route("/hosts", get(hosts))
        .route("/jobs", get(jobs))
        .route("/jobs/vms", get(of_jobs::all))
        .route("/jobs/nodes", get(of_jobs::nodes))
        .route("/jobs/{id}/ready", get(job_ready))
        .route("/jobs/{id}/vms", get(of_jobs::vms))
        .route("/jobs/{id}/give", post(of_jobs::give))
        .route("/jobs/{id}/clean", post(of_jobs::clean))
        .route("/events", get(events))
        .route("/explain/{name}", get(explain))
        .route("/plan", get(plan))
        .route("/nodes/{hostlist}/resume", post(resume))
        .route("/nodes/{hostlist}/suspend", post(suspend));
    Router::new()
        .route("/version", get(version))
        .nest("/v1", v1)
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(controller)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (
            code,
            Json(Problem {
                error: self.to_string(),
            }),
        )
            .into_response()
    }
}

async fn version() -> Json<Version> {
    Json(Version {
        thiao: env!("CARGO_PKG_VERSION").to_owned(),
        api: vec![VERSION],
    })
}

async fn no_such_path(uri: Uri) -> ApiError {
    let first = uri.path().split('/').nth(1).unwrap_or_default();
    let version = first
        .strip_prefix('v')
        .and_then(|digits| digits.parse::<u32>().ok());
    ApiError::NotFound(match version {
        Some(version) if version != VERSION => format!(
            "this controller (thiao {}) speaks version {VERSION} of the API, not {version}: \
             use the thiao command that belongs to it, or restart thiaod after an upgrade",
            env!("CARGO_PKG_VERSION")
        ),
        _ => format!("there is no {} in this API", uri.path()),
    })
}

async fn no_such_method(uri: Uri) -> Response {
    let error = format!(
        "{} does not take this method: GET reads, POST changes",
        uri.path()
    );
    (StatusCode::METHOD_NOT_ALLOWED, Json(Problem { error })).into_response()
}

async fn status(State(controller): State<Controller>) -> Answer<Status> {
    controller.ask(Read::Status).await.map(Json)
}

async fn vms(State(controller): State<Controller>, Extension(viewer): Extension<Viewer>) -> Answer<Vec<Vm>> {
    let sight = controller.sight(viewer).await?;
    let mut vms = controller.ask(Read::Vms).await?;
    for vm in &mut vms {
        vm.job = vm.job.filter(|job| sight.job(*job));
    }
    Ok(Json(vms))
}

async fn hosts(State(controller): State<Controller>) -> Answer<Vec<Host>> {
    controller.ask(Read::Hosts).await.map(Json)
}

async fn nodes(
    State(controller): State<Controller>,
    Extension(viewer): Extension<Viewer>,
) -> Answer<Vec<Node>> {
    let sight = controller.sight(viewer).await?;
    let mut nodes = controller.ask(Read::Nodes).await?;
    for node in &mut nodes {
        node.jobs.retain(|id| sight.job(*id));
    }
    Ok(Json(nodes))
}

/// How jobs are listed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    /// Also those of this moment: Slurm is observed first.
    #[serde(default)]
    fresh: bool,
}

async fn jobs(
    State(controller): State<Controller>,
    Extension(viewer): Extension<Viewer>,
    how: Result<Query<Listing>, QueryRejection>,
) -> Answer<Vec<Job>> {
    let Query(Listing { fresh }) = how.map_err(malformed)?;
    if fresh {
        controller.seen(None).await?;
    }
    let mut jobs = controller.ask(Read::Jobs).await?;
    jobs.retain(|job| viewer.may_see(Some(job.uid)));
    Ok(Json(jobs))
}

async fn plan(
    State(controller): State<Controller>,
    Extension(viewer): Extension<Viewer>,
) -> Answer<PlanView> {
    let sight = controller.sight(viewer).await?;
    let mut plan = controller.ask(Read::Plan).await?;
    for lines in [&mut plan.actions, &mut plan.held, &mut plan.refused] {
        lines.retain(|line| sight.subject(&line.subject, None));
    }
    Ok(Json(plan))
}

/// What of the past is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    limit: Option<usize>,
    after: Option<i64>,
    subject: Option<String>,
}

async fn events(
    State(controller): State<Controller>,
    Extension(viewer): Extension<Viewer>,
    which: Result<Query<Which>, QueryRejection>,
) -> Answer<Vec<Event>> {
    let Query(Which {
        limit,
        after,
        subject,
    }) = which.map_err(malformed)?;
    let limit = limit.unwrap_or(SOME_EVENTS);
    if !(1..=MAX_EVENTS).contains(&limit) {
        return Err(ApiError::Malformed(format!(
            "limit={limit} is not from 1 to {MAX_EVENTS}"
        )));
    }
    if subject.as_ref().is_some_and(|text| text.len() > MAX_NAME) {
        return Err(ApiError::Malformed(format!(
            "the subject is longer than {MAX_NAME} bytes"
        )));
    }
    let sight = controller.sight(viewer).await?;
    // A follower must get past other people's events, in few questions.
    let page = match (viewer.trusted, after) {
        (false, Some(_)) => MAX_EVENTS,
        (true, _) | (false, None) => limit,
    };
    let mut after = after;
    loop {
        let subject = subject.clone();
        let mut events = controller
            .ask(|reply| Read::Events {
                limit: page,
                after,
                subject,
                reply,
            })
            .await?;
        let full = events.len() >= page;
        let last = events.last().map(|event| event.id);
        events.retain(|event| sight.subject(&event.subject, event.uid));
        if !events.is_empty() || !full || after.is_none() || last <= after {
            events.truncate(limit);
            return Ok(Json(events));
        }
        after = last;
    }
}

async fn explain(
    State(controller): State<Controller>,
    Extension(viewer): Extension<Viewer>,
    name: Result<Path<String>, PathRejection>,
) -> Answer<Explanation> {
    let Path(name) = name.map_err(malformed)?;
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+');
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(good) {
        return Err(ApiError::Malformed(
            "name a node (fg0), a VM (fg0.3) or a job (17, 17_3, 17+1)".to_owned(),
        ));
    }
    let mut sight = controller.sight(viewer).await?;
    if let Ok(job) = name.parse::<JobName>()
        && !sight.knows(job)
    {
        controller.seen(Some(JobId(job.id))).await?;
        sight = controller.sight(viewer).await?;
    }
    let mut told = controller
        .ask(|reply| Read::Explain {
            name: name.clone(),
            reply,
        })
        .await?;
    if !sight.subject(&told.subject, told.uid) {
        return Err(ApiError::NotFound(format!("you have no job {name}")));
    }
    told.story
        .retain(|event| sight.subject(&event.subject, event.uid));
    told.last_words.retain(|words| sight.console(&words.users));
    Ok(Json(told))
}

/// How long to wait.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    timeout_ms: Option<u64>,
}

/// What a job's prolog is told when it may end.
#[derive(serde::Serialize)]
struct Ready {
    ready: bool,
}

/// The folder that a header names, with `%2F` for what headers cannot have; none if it is not whole.
fn folder(value: &HeaderValue) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let mut byte = *first;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            rest = after;
        }
        bytes.push(byte);
    }
    let folder = PathBuf::from(OsString::from_vec(bytes));
    folder.is_absolute().then_some(folder)
}

async fn job_ready(
    State(controller): State<Controller>,
    Extension(viewer): Extension<Viewer>,
    id: Result<Path<u32>, PathRejection>,
    headers: HeaderMap,
    wait: Result<Query<Wait>, QueryRejection>,
) -> Answer<Ready> {
    let Path(id) = id.map_err(malformed)?;
    let Query(Wait { timeout_ms }) = wait.map_err(malformed)?;
    if !controller.sight(viewer).await?.job(id) {
        return Err(ApiError::NotFound(format!("you have no job {id}")));
    }
    controller.gather().await;
    let wait = timeout_ms
        .map_or(READY_WAIT, Duration::from_millis)
        .min(READY_WAIT_MAX);
    let answer = controller.ask_unbounded(|reply| Demand::JobReady {
        job: JobId(id),
        work_dir: headers.get(WORK_DIR_HEADER).and_then(folder),
        reply,
    });
    match tokio::time::timeout(wait, answer).await {
        Ok(answer) => answer.map(|()| Json(Ready { ready: true })),
        Err(_) => Err(ApiError::Unavailable(format!(
            "the nodes of job {id} were not all up within {} ms",
            wait.as_millis()
        ))),
    }
}

/// How nodes are asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct How {
    #[serde(default)]
    force: bool,
}

async fn resume(
    State(controller): State<Controller>,
    Extension(viewer): Extension<Viewer>,
    list: Result<Path<String>, PathRejection>,
    how: Result<Query<How>, QueryRejection>,
) -> Answer<Accepted> {
    let nodes = ordered(viewer, list)?;
    let Query(How { force }) = how.map_err(malformed)?;
    controller
        .ask(|reply| Demand::Resume { nodes, force, reply })
        .await
        .map(Json)
}

async fn suspend(
    State(controller): State<Controller>,
    Extension(viewer): Extension<Viewer>,
    list: Result<Path<String>, PathRejection>,
    how: Result<Query<How>, QueryRejection>,
) -> Answer<Accepted> {
    let nodes = ordered(viewer, list)?;
    let Query(How { force }) = how.map_err(malformed)?;
    controller
        .ask(|reply| Demand::Suspend { nodes, force, reply })
        .await
        .map(Json)
}

/// The nodes that a trusted viewer gives an order about, each once.
fn ordered(
    viewer: Viewer,
    list: Result<Path<String>, PathRejection>,
) -> Result<Vec<thiao_core::ids::NodeName>, ApiError> {
    if !viewer.trusted {
        return Err(ApiError::Forbidden(
            "only root and thiaod's user may resume or suspend nodes: submit a job, and Slurm does it"
                .to_owned(),
        ));
    }
    let Path(list) = list.map_err(malformed)?;
    let mut nodes =
        hostlist::expand(&list).map_err(|e| ApiError::Malformed(format!("{e}\n{}", e.caret(&list))))?;
    nodes.sort_unstable();
    nodes.dedup();
    Ok(nodes)
}
