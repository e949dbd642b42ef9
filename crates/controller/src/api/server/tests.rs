//! A real server on a real socket before a controller that knows little.

mod crowd;

use super::*;
use crate::api::{ApiError, Demand, Read};
use crate::store::Which;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use std::io::{Read as _, Write as _};
use std::time::Instant;
use thiao_api::JobName;
use thiao_api::client::{Client, ClientError};
use thiao_api::types::{
    Accepted, Event, Explanation, Job, JobArray, JobStay, JobVm, JobVms, LastWords, Node, PlanLine, PlanView,
};
use thiao_core::hostlist;
use tokio::sync::oneshot;

fn job(id: u32, uid: u32) -> Job {
    Job {
        id,
        name: "j".into(),
        user: format!("u{uid}"),
        uid,
        state: "RUNNING".into(),
        reason: "None".into(),
        nodes: "fg0".into(),
        nodes_up: 1,
        node_count: 1,
        submit: None,
        start: None,
        array: None,
        het: None,
    }
}

/// A VM that a job had, whose user this is.
fn vm_of(job: u32, uid: Option<u32>) -> JobVm {
    JobVm {
        task: None,
        id: i64::from(job),
        job,
        uid,
        node: "s0".into(),
        vm: "s0.1".into(),
        host: None,
        cpus: 1,
        memory_mb: 200,
        share_percent: 100,
        gpus: 0,
        asked: 5,
        started: None,
        ready: None,
        up: None,
        ended: None,
        core_hours: 0.0,
    }
}

fn node(jobs: Vec<u32>) -> Node {
    Node {
        name: "fg0".into(),
        nodeset: "fg".into(),
        cpus: 1,
        memory_mb: 200,
        state: "up".into(),
        slurm: None,
        reason: None,
        desired: "up".into(),
        vm: None,
        host: None,
        jobs,
        failures: 0,
        retry_at: None,
        since: 0,
    }
}

fn event(id: i64, subject: &str, uid: Option<u32>) -> Event {
    Event {
        id,
        at: 5,
        subject: subject.into(),
        kind: "k".into(),
        message: "m".into(),
        uid,
    }
}

/// Jobs 1 and 2 are of uids 1001 and 1002; job 9 of 1001 is over.
fn history() -> Vec<Event> {
    let mut events = vec![
        event(1, "node fg0", None),
        event(2, "job 1", None),
        event(3, "job 2", None),
        event(4, "job 9", Some(1001)),
    ];
    events.extend((5..30).map(|id| event(id, "job 2", Some(1002))));
    events.push(event(30, "vm fg0.1", None));
    events
}

/// Two jobs, and tasks of a third.
fn jobs() -> Vec<Job> {
    let array = JobArray {
        job: 3,
        tasks: vec![1, 2],
    };
    let tasks = Job {
        array: Some(array),
        ..job(3, 1001)
    };
    vec![job(1, 1001), job(2, 1002), tasks]
}

fn events(limit: usize, after: Option<i64>, subject: Option<&str>) -> Vec<Event> {
    // Of a job without VMs, which is over.
    let past = subject.filter(|about| *about == "job 6");
    let all = history()
        .into_iter()
        .chain(past.map(|about| event(31, about, Some(1002))))
        .filter(|e| subject.is_none_or(|subject| *subject == e.subject));
    match after {
        Some(after) => all.filter(|e| e.id > after).take(limit).collect(),
        None => {
            let all: Vec<Event> = all.collect();
            all[all.len().saturating_sub(limit)..].to_vec()
        }
    }
}

fn plan() -> PlanView {
    let line = |subject: &str| PlanLine {
        subject: subject.into(),
        what: "w".into(),
        why: "y".into(),
    };
    PlanView {
        actions: vec![],
        held: vec![line("node fg0"), line("job 1"), line("job 2")],
        refused: vec![],
    }
}

fn explained(name: &str) -> Result<Explanation, ApiError> {
    let (subject, story, uid) = match name {
        "fg0" => ("node fg0", history(), None),
        "2" => ("job 2", vec![], None),
        "9" => ("job 9", vec![], Some(1001)),
        other => return Err(ApiError::NotFound(format!("nothing is named {other}"))),
    };
    Ok(Explanation {
        subject: subject.into(),
        now: vec![],
        story,
        uid,
        last_words: [vec![], vec![1001], vec![1002], vec![1001, 1002]]
            .map(words)
            .into(),
    })
}

/// Of a VM on which these users' jobs were.
fn words(users: Vec<u32>) -> LastWords {
    LastWords {
        vm: "fg0.1".into(),
        at: 1,
        text: format!("console of {users:?}"),
        users,
    }
}

/// Job 2's number was 1001's once; 9 is over, and of nobody's 8 was seen whose it is.
fn vms_of_job(job: JobName) -> JobVms {
    let vms = match job.id {
        2 => vec![vm_of(2, Some(1001)), vm_of(2, Some(1002))],
        8 => vec![vm_of(8, None)],
        9 => vec![vm_of(9, Some(1001))],
        _ => vec![],
    };
    JobVms::of(job.id, vms)
}

fn vms_of_jobs(which: &Which) -> Vec<JobVm> {
    let all = [vm_of(2, Some(1002)), vm_of(8, None), vm_of(9, Some(1001))];
    all.into_iter()
        .filter(|vm| which.of.is_none_or(|uid| vm.uid == Some(uid)) && vm.id > which.after)
        .take(which.limit)
        .collect()
}

fn accepted(nodes: &str, message: String) -> Result<Accepted, ApiError> {
    Ok(Accepted {
        nodes: nodes.into(),
        message,
    })
}

/// Answers until nobody asks any more; never about job 3. Tells when an asker has left.
async fn controller(mut asked: mpsc::Receiver<Query>, left: oneshot::Sender<()>) {
    let mut left = Some(left);
    while let Some(query) = asked.recv().await {
        match query {
            Query::Read(Read::Status(reply)) => drop(reply),
            Query::Read(Read::Nodes(reply)) => drop(reply.send(Ok(vec![node(vec![1, 2])]))),
            Query::Read(Read::Vms(reply)) => {
                drop(reply.send(Err(ApiError::Internal("the disk is on fire".into()))))
            }
            // Never answers.
            Query::Read(Read::Hosts(reply)) => std::mem::forget(reply),
            Query::Read(Read::Jobs(reply)) => drop(reply.send(Ok(jobs()))),
            Query::Read(Read::Events {
                limit,
                after,
                subject,
                reply,
            }) => drop(reply.send(Ok(events(limit, after, subject.as_deref())))),
            Query::Read(Read::Plan(reply)) => drop(reply.send(Ok(plan()))),
            Query::Read(Read::Explain { name, reply }) => drop(reply.send(explained(&name))),
            Query::Demand(Demand::Resume { nodes, force, reply }) => {
                let message = format!("{} force={force}", nodes.len());
                drop(reply.send(accepted(&hostlist::fold(&nodes), message)));
            }
            Query::Demand(Demand::Suspend { nodes, force, reply }) => {
                let message = format!("suspend force={force}");
                drop(reply.send(accepted(&hostlist::fold(&nodes), message)));
            }
            Query::Demand(Demand::Give { job, options, reply }) => {
                let message = format!("{job} gets {options:?} as {options}");
                drop(reply.send(accepted("", message)));
            }
            Query::Demand(Demand::Clean { job, reply }) => {
                drop(reply.send(accepted("s0", format!("{job} is cleaned up after"))));
            }
            Query::Read(Read::JobVms { job, reply }) => drop(reply.send(Ok(vms_of_job(job)))),
            Query::Read(Read::JobsNodes { which, reply }) => {
                let stays = vms_of_jobs(&which).into_iter().map(|vm| JobStay {
                    id: vm.id,
                    job: vm.job,
                    task: None,
                    uid: vm.uid.unwrap_or(0),
                    node: vm.node,
                    vm: vm.vm,
                    host: None,
                    began: 1,
                    ended: None,
                });
                drop(reply.send(Ok(stays.collect())));
            }
            Query::Read(Read::JobsVms { which, reply }) => drop(reply.send(Ok(vms_of_jobs(&which)))),
            Query::Demand(Demand::JobSeen { reply, .. }) => drop(reply.send(Ok(()))),
            Query::Demand(Demand::JobReady { job, mut reply, .. }) => match job.0 {
                1 => drop(reply.send(Ok(()))),
                2 => drop(reply.send(Err(ApiError::Conflict("it can never start".into())))),
                _ => {
                    let left = left.take();
                    tokio::spawn(async move {
                        reply.closed().await;
                        left.map(|left| left.send(()))
                    });
                }
            },
        }
    }
}

/// Asks the router as this user, without a socket.
async fn ask(uid: u32, method: &str, path: &str) -> (StatusCode, String) {
    ask_with(uid, method, path, Body::empty()).await
}

async fn ask_with(uid: u32, method: &str, path: &str, body: Body) -> (StatusCode, String) {
    let (queries, asked) = mpsc::channel(4);
    let (left, _) = oneshot::channel();
    tokio::spawn(controller(asked, left));
    let router = routes::router(Controller::new(queries, Duration::from_millis(300)));
    let mut request = Request::builder().method(method).uri(path).body(body).unwrap();
    request.extensions_mut().insert(viewer(uid, 0));
    let answer = TowerToHyperService::new(router).call(request).await.unwrap();
    let code = answer.status();
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

fn ids(body: &str) -> Vec<i64> {
    let values: Vec<serde_json::Value> = serde_json::from_str(body).unwrap();
    values.iter().map(|v| v["id"].as_i64().unwrap()).collect()
}

#[test]
fn root_and_the_own_user_are_trusted() {
    assert!(viewer(0, 64030).trusted);
    assert!(viewer(64030, 64030).trusted);
    assert!(!viewer(1000, 64030).trusted);
    assert!(!viewer(OVERFLOW_UID, OVERFLOW_UID).trusted, "may be anybody");
}

#[tokio::test]
async fn others_see_only_their_own_jobs() {
    assert_eq!(ids(&ask(0, "GET", "/v1/jobs").await.1), [1, 2, 3]);
    assert_eq!(ids(&ask(1001, "GET", "/v1/jobs").await.1), [1, 3]);
    assert!(ids(&ask(1003, "GET", "/v1/jobs").await.1).is_empty());

    assert!(ask(0, "GET", "/v1/nodes").await.1.contains(r#""jobs":[1,2]"#));
    assert!(ask(1002, "GET", "/v1/nodes").await.1.contains(r#""jobs":[2]"#));

    let (_, plan) = ask(1001, "GET", "/v1/plan").await;
    assert!(
        plan.contains("node fg0") && plan.contains("job 1") && !plan.contains("job 2"),
        "{plan}"
    );
    assert!(ask(0, "GET", "/v1/plan").await.1.contains("job 2"));
}

#[tokio::test]
async fn others_see_only_events_of_their_own_jobs() {
    assert_eq!(ids(&ask(0, "GET", "/v1/events").await.1).len(), 30);
    assert_eq!(ids(&ask(1001, "GET", "/v1/events").await.1), [1, 2, 4, 30]);
    assert_eq!(ids(&ask(1003, "GET", "/v1/events").await.1), [1, 30]);
    assert_eq!(ids(&ask(0, "GET", "/v1/events?limit=2").await.1), [29, 30]);
    assert_eq!(ids(&ask(0, "GET", "/v1/events?limit=2&after=7").await.1), [8, 9]);
    assert_eq!(ids(&ask(0, "GET", "/v1/events?subject=node%20fg0").await.1), [1]);
    // Whole pages of what he may not see do not stop a follower.
    assert_eq!(ids(&ask(1001, "GET", "/v1/events?limit=3&after=4").await.1), [30]);
}

#[tokio::test]
async fn others_get_no_story_of_foreign_jobs() {
    assert_eq!(ask(1002, "GET", "/v1/explain/2").await.0, StatusCode::OK);
    assert_eq!(ask(1001, "GET", "/v1/explain/9").await.0, StatusCode::OK);
    for (uid, job) in [(1001, 2), (1002, 9)] {
        let (code, body) = ask(uid, "GET", &format!("/v1/explain/{job}")).await;
        assert_eq!(
            (code, body),
            (
                StatusCode::NOT_FOUND,
                format!("{{\"error\":\"you have no job {job}\"}}")
            )
        );
    }
    let (_, story) = ask(1003, "GET", "/v1/explain/fg0").await;
    assert!(!story.contains("job "), "{story}");
    assert_eq!(
        ask(0, "GET", "/v1/explain/nothing").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        ask(0, "GET", "/v1/explain/a%20b").await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(ask(0, "GET", "/v1/explain/%ff").await.0, StatusCode::BAD_REQUEST);
}

/// It may show what jobs did.
#[tokio::test]
async fn a_vms_console_is_shown_to_root_and_to_one_whose_jobs_alone_were_on_it() {
    for (uid, seen) in [
        (0, vec!["[]", "[1001]", "[1002]", "[1001, 1002]"]),
        (1001, vec!["[1001]"]),
        (1002, vec!["[1002]"]),
        (1003, vec![]),
    ] {
        let (_, body) = ask(uid, "GET", "/v1/explain/fg0").await;
        let told: Explanation = serde_json::from_str(&body).unwrap();
        let texts: Vec<String> = told.last_words.into_iter().map(|words| words.text).collect();
        assert_eq!(
            texts,
            seen.iter()
                .map(|of| format!("console of {of}"))
                .collect::<Vec<_>>(),
            "{uid}"
        );
    }
}

#[tokio::test]
async fn only_the_trusted_give_orders() {
    let (code, body) = ask(0, "POST", "/v1/nodes/fg%5B0-2%5D,fg1/resume?force=true").await;
    assert_eq!(
        (code, body.as_str()),
        (StatusCode::OK, r#"{"nodes":"fg[0-2]","message":"3 force=true"}"#)
    );
    for (how, force) in [("", false), ("?force=false", false), ("?force=true", true)] {
        let (code, body) = ask(0, "POST", &format!("/v1/nodes/fg0/suspend{how}")).await;
        assert_eq!(code, StatusCode::OK);
        assert!(body.contains(&format!("suspend force={force}")), "{body}");
    }
    for path in ["/v1/nodes/fg0/resume", "/v1/nodes/fg0/suspend"] {
        let (code, body) = ask(1001, "POST", path).await;
        assert_eq!(code, StatusCode::FORBIDDEN);
        assert!(body.contains("only root and thiaod's user"), "{body}");
        assert_eq!(ask(0, "GET", path).await.0, StatusCode::METHOD_NOT_ALLOWED);
    }
    let (code, body) = ask(0, "POST", "/v1/nodes/fg%5B0-/resume").await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(body.contains("malformed hostlist at byte"), "{body}");
}

#[tokio::test]
async fn a_prolog_waits_until_its_nodes_are_up() {
    assert_eq!(
        ask(0, "GET", "/v1/jobs/1/ready?timeout_ms=5000").await.0,
        StatusCode::OK
    );
    assert_eq!(ask(0, "GET", "/v1/jobs/2/ready").await.0, StatusCode::CONFLICT);
    let start = Instant::now();
    let (code, body) = ask(0, "GET", "/v1/jobs/3/ready?timeout_ms=700").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("not all up within 700 ms"), "{body}");
    assert!(
        start.elapsed() >= Duration::from_millis(700),
        "longer than other answers may take"
    );
    assert_eq!(ask(1001, "GET", "/v1/jobs/1/ready").await.0, StatusCode::OK);
    assert_eq!(
        ask(1001, "GET", "/v1/jobs/2/ready").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(ask(0, "GET", "/v1/jobs/x/ready").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn users_act_on_their_own_jobs_alone() {
    let give = async |uid, job: &str, body: &'static str| {
        ask_with(uid, "POST", &format!("/v1/jobs/{job}/give"), body.into()).await
    };
    let body = r#"{"options":"share=50"}"#;
    for (uid, job) in [(1001, "1"), (1001, "3_2"), (0, "2"), (1002, "2")] {
        let (code, answer) = give(uid, job, body).await;
        assert_eq!(code, StatusCode::OK, "{uid} {job}: {answer}");
        assert!(
            answer.contains(&format!("{job} gets")) && answer.contains("as share=50"),
            "{answer}"
        );
    }
    for (uid, job) in [
        (1001, "2"),
        (1002, "1"),
        (1002, "3_1"),
        (1001, "3_3"),
        (1001, "7"),
    ] {
        let (code, answer) = give(uid, job, body).await;
        assert_eq!(
            (code, answer),
            (
                StatusCode::NOT_FOUND,
                format!("{{\"error\":\"you have no job {job}\"}}")
            )
        );
    }
    for (uid, job, expected) in [
        (1001, 1, StatusCode::OK),
        (1001, 9, StatusCode::OK), // over: by our own word
        (1002, 2, StatusCode::OK),
        (1002, 6, StatusCode::OK), // the same, of one that had no VMs for itself
        (0, 8, StatusCode::OK),
        (1001, 6, StatusCode::NOT_FOUND),
        (1001, 2, StatusCode::NOT_FOUND), // was his once, and is another's
        (1002, 9, StatusCode::NOT_FOUND),
        (1002, 8, StatusCode::NOT_FOUND),
    ] {
        assert_eq!(
            ask(uid, "POST", &format!("/v1/jobs/{job}/clean")).await.0,
            expected,
            "{uid} {job}"
        );
        assert_eq!(
            ask(uid, "GET", &format!("/v1/jobs/{job}/vms")).await.0,
            expected,
            "{uid} {job}"
        );
    }
    // Another user's VM of the same number is not shown.
    let (_, told) = ask(1002, "GET", "/v1/jobs/2/vms").await;
    let told: JobVms = serde_json::from_str(&told).unwrap();
    assert_eq!((told.vms.len(), told.uid), (1, Some(1002)));
    let (_, told) = ask(0, "GET", "/v1/jobs/2/vms").await;
    assert_eq!(serde_json::from_str::<JobVms>(&told).unwrap().vms.len(), 2);
}

#[tokio::test]
async fn what_others_jobs_cost_is_not_shown() {
    assert_eq!(ids(&ask(0, "GET", "/v1/jobs/vms").await.1), [2, 8, 9]);
    assert_eq!(ids(&ask(0, "GET", "/v1/jobs/vms?after=2&limit=1").await.1), [8]);
    assert_eq!(ids(&ask(1001, "GET", "/v1/jobs/vms?since=5").await.1), [9]);
    assert!(ids(&ask(1003, "GET", "/v1/jobs/vms").await.1).is_empty());
    assert_eq!(ids(&ask(0, "GET", "/v1/jobs/nodes").await.1), [2, 8, 9]);
    assert_eq!(ids(&ask(1001, "GET", "/v1/jobs/nodes?since=5").await.1), [9]);
    assert!(ids(&ask(1003, "GET", "/v1/jobs/nodes").await.1).is_empty());
    for bad in ["limit=0", "limit=10001", "since=-1", "of=1001"] {
        let (code, body) = ask(1001, "GET", &format!("/v1/jobs/vms?{bad}")).await;
        assert_eq!(code, StatusCode::BAD_REQUEST, "{bad}: {body}");
    }
}

/// A body of which nothing ever comes.
struct Never;

impl hyper::body::Body for Never {
    type Data = hyper::body::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test]
async fn a_body_that_makes_no_sense_is_refused() {
    for (body, text) in [
        (String::new(), "makes no sense"),
        ("{}".into(), "missing field `options`"),
        (r#"{"options":"","x":1}"#.into(), "unknown field `x`"),
        (r#"{"options":"share=0"}"#.into(), "share=0 is not a percentage"),
        (
            format!(r#"{{"options":"{}"}}"#, "x".repeat(9_000)),
            "cannot be read",
        ),
    ] {
        let (code, answer) = ask_with(1001, "POST", "/v1/jobs/1/give", body.into()).await;
        assert_eq!(code, StatusCode::BAD_REQUEST);
        assert!(answer.contains(text), "{answer}");
    }
    let (code, answer) = ask(1001, "POST", "/v1/jobs/1_x/give").await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(answer.contains("write one as 17"), "{answer}");
    // One that never comes.
    let never = Body::new(Never);
    let (code, answer) = ask_with(1001, "POST", "/v1/jobs/1/give", never).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(answer.contains("did not come"), "{answer}");
}

#[tokio::test]
async fn every_refusal_is_a_problem_in_json() {
    for (path, code, text) in [
        ("/", 404, "there is no / in this API"),
        ("/v1/nope", 404, "there is no /v1/nope"),
        ("/v2/status", 404, "speaks version 1 of the API, not 2"),
        ("/v1/vms", 500, "the disk is on fire"),
        ("/v1/status", 503, "the controller is stopping"),
        ("/v1/hosts", 503, "the controller is busy"),
        ("/v1/events?limit=0", 400, "limit=0 is not from 1 to 10000"),
        ("/v1/events?limit=x", 400, "limit"),
        ("/v1/events?foo=1", 400, "unknown field `foo`"),
        ("/v1/nodes/fg0/resume", 405, "GET reads, POST changes"),
    ] {
        let (status, body) = ask(0, "GET", path).await;
        assert_eq!(status.as_u16(), code, "{path}: {body}");
        let problem: thiao_api::types::Problem =
            serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"));
        assert!(problem.error.contains(text), "{path}: {}", problem.error);
    }
    assert!(ask(1001, "GET", "/version").await.1.contains(r#""api":[1]"#));
}

/// A server on a socket; the receiver is told when an asker about job 3 has left.
fn served(limits: Limits) -> (tempfile::TempDir, PathBuf, oneshot::Receiver<()>) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join(thiao_api::SOCKET);
    let listener = bind(&socket).unwrap();
    let (queries, asked) = mpsc::channel(4);
    let (left, gone) = oneshot::channel();
    tokio::spawn(controller(asked, left));
    tokio::spawn(listen(listener, queries, limits));
    (dir, socket, gone)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_is_understood() {
    let (dir, socket, _gone) = served(Limits::default());
    assert_eq!(
        std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o666
    );
    let client = Client::new(dir.path());
    tokio::task::spawn_blocking(move || {
        assert_eq!(client.version().unwrap().api, [1]);
        assert_eq!(client.nodes().unwrap()[0].name, "fg0");
        assert_eq!(client.events(2, Some(7), None).unwrap().len(), 2);
        assert_eq!(client.events(9, None, Some("node fg0")).unwrap().len(), 1);
        assert_eq!(client.resume("fg[0-1]", true).unwrap().nodes, "fg[0-1]");
        let options = thiao_core::options::VmOptions::parse("keep-on-failure").unwrap();
        let given = client.give("3_2".parse().unwrap(), &options).unwrap();
        assert!(given.message.ends_with("as keep-on-failure"), "{given:?}");
        assert_eq!(client.clean("9".parse().unwrap()).unwrap().nodes, "s0");
        assert_eq!(client.job_vms("2".parse().unwrap()).unwrap().vms.len(), 2);
        assert_eq!(client.jobs_vms(0, 2, 9).unwrap().len(), 2);
        let refused = client.vms().unwrap_err();
        assert!(
            matches!(&refused, ClientError::Refused { code: 500, .. }),
            "{refused:?}"
        );
        assert!(!refused.unreachable());
        assert_eq!(refused.to_string(), "the disk is on fire");
    })
    .await
    .unwrap();
    // A later controller takes the socket of one that was killed.
    assert!(bind(&socket).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asker_who_leaves_is_noticed() {
    let (_dir, socket, gone) = served(Limits::default());
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    stream
        .write_all(b"GET /v1/jobs/3/ready?timeout_ms=60000 HTTP/1.1\r\nHost: thiao\r\n\r\n")
        .unwrap();
    std::thread::sleep(Duration::from_millis(100));
    drop(stream);
    tokio::time::timeout(Duration::from_secs(5), gone)
        .await
        .expect("noticed")
        .unwrap();
}
