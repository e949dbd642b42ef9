//! What the command line shows of a controller: a real API server on a real
//! socket, with answers made up here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod served;

use served::Served;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};
use thiao_api::SOCKET;
use thiao_api::types::{
    Accepted, Event, Everybody, Explanation, Host, Job, JobArray, LastWords, Node, Observation, PlanLine,
    PlanView, Status, Vm,
};
use thiao_api::words::NodeState;
use thiao_controller::api::{ApiError, Demand, Query, Read};
use thiao_core::hostlist;
use tokio::sync::mpsc;

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Ten thousand nodes: most are down, ten are up, one failed.
fn nodes() -> Vec<Node> {
    (0..10_000)
        .map(|n| Node {
            name: format!("fg{n}"),
            nodeset: "fg".into(),
            cpus: 2,
            memory_mb: 500,
            state: match n {
                100..110 => "up",
                7 => "failed",
                _ => "down",
            }
            .into(),
            slurm: Some(if n == 7 { "DOWN+CLOUD" } else { "IDLE+CLOUD" }.into()),
            reason: (n == 7).then(|| "thiao: no host\x1b[2J has capacity".into()),
            desired: "down".into(),
            vm: (100..110).contains(&n).then(|| format!("fg{n}.1")),
            host: None,
            jobs: vec![],
            failures: u32::from(n == 7),
            retry_at: (n == 7).then(|| now() + 630_000),
            since: now() - 90_000,
        })
        .collect()
}

fn event(id: i64) -> Event {
    Event {
        id,
        at: 1_700_000_000_000 + id.unsigned_abs(),
        subject: "node fg7".into(),
        kind: "node-down".into(),
        message: format!("because of {id}\x07"),
        uid: None,
    }
}

fn status() -> Status {
    Status {
        version: "9.9".into(),
        cluster: "lab".into(),
        provider: "qemu".into(),
        provider_notes: vec!["TCG: KVM guests hang here".into()],
        emulated: None,
        preparing: None,
        faults: vec![],
        unstored: None,
        started: now() - 120_000,
        now: now(),
        slurm: Observation {
            last_ok: Some(now() - 3_000),
            error: Some("slurmctld does not answer".into()),
        },
        vms: Observation {
            last_ok: Some(now()),
            error: None,
        },
        bus: None,
        ungated: Some("the reservation thiao-room holds 0 of 1 licences vm_room".into()),
        breaker: Some("open after 10 failures in a row".into()),
        nodes_by_state: [(NodeState::Up, 10), (NodeState::Down, 9_989)].into(),
        vm_count: 10,
        pending_intents: 2,
    }
}

/// One that we share with others, and one that the provider knows less of.
fn hosts() -> Vec<Host> {
    let host = |name: &str, usable, everybody| Host {
        name: name.into(),
        cpu_percent: 400,
        cpu_percent_used: 200,
        memory_mb: 16_384,
        memory_mb_used: 640,
        vms: 1,
        usable,
        closed: None,
        not_for: Default::default(),
        everybody,
    };
    let everybody = Everybody {
        vms: 4,
        cpu_percent: 350,
        memory_mb: 10_880,
        cpu_percent_load: Some(275),
        memory_mb_load: Some(9_000),
    };
    let scheduler = Host {
        cpu_percent: u32::MAX,
        ..host("any", true, None)
    };
    vec![
        host("a", true, Some(everybody)),
        host("b", false, None),
        scheduler,
    ]
}

fn vm() -> Vm {
    Vm {
        id: "fg100.1".into(),
        node: "fg100".into(),
        generation: 1,
        host: Some("a".into()),
        state: "ready".into(),
        memory_mb: 640,
        cpu_percent: 200,
        mode: "power-saving".into(),
        job: None,
        asked: Some(now() - 60_000),
        note: None,
    }
}

fn job() -> Job {
    Job {
        id: 17,
        name: "mpi".into(),
        user: "alice".into(),
        uid: 1000,
        state: "RUNNING".into(),
        reason: "None".into(),
        nodes: "fg[100-101]".into(),
        nodes_up: 2,
        node_count: 2,
        submit: Some(now() - 5_000),
        start: None,
        array: None,
        het: None,
    }
}

/// Tasks of an array that wait.
fn tasks() -> Job {
    Job {
        id: 20,
        nodes: String::new(),
        nodes_up: 0,
        state: "PENDING".into(),
        array: Some(JobArray {
            job: 18,
            tasks: vec![4, 5, 6, 9],
        }),
        ..job()
    }
}

fn plan() -> PlanView {
    let line = |what: &str| PlanLine {
        subject: "node fg7".into(),
        what: what.into(),
        why: "asked".into(),
    };
    PlanView {
        actions: vec![line("create VM")],
        held: vec![],
        refused: vec![line("destroy")],
    }
}

fn explained(name: &str) -> Result<Explanation, ApiError> {
    if name == "18_4" || name == "18_0" {
        return Ok(Explanation {
            subject: format!("job of {name}"),
            now: vec![],
            story: vec![],
            uid: Some(0),
            last_words: vec![],
        });
    }
    if name != "fg7" {
        return Err(ApiError::NotFound(format!("nothing is named {name}")));
    }
    Ok(Explanation {
        subject: "node fg7".into(),
        now: vec!["It waits for capacity.".to_owned()],
        story: vec![event(1)],
        uid: None,
        last_words: vec![LastWords {
            vm: "fg7.2".into(),
            at: 1_700_000_000_000,
            text: format!(
                "{}slurmd: error: Unauthorized \x1bcredential\n\n",
                "boot\n".repeat(100)
            ),
            users: vec![],
        }],
    })
}

async fn controller(mut asked: mpsc::Receiver<Query>) {
    let mut newest = 3;
    while let Some(query) = asked.recv().await {
        match query {
            Query::Demand(Demand::JobSeen { reply, .. }) => drop(reply.send(Ok(()))),
            Query::Read(Read::Status(reply)) => drop(reply.send(Ok(status()))),
            Query::Read(Read::Nodes(reply)) => drop(reply.send(Ok(nodes()))),
            Query::Read(Read::Vms(reply)) => drop(reply.send(Ok(vec![vm()]))),
            Query::Read(Read::Hosts(reply)) => drop(reply.send(Ok(hosts()))),
            Query::Read(Read::Jobs(reply)) => drop(reply.send(Ok(vec![job(), tasks()]))),
            Query::Read(Read::Events {
                limit,
                after,
                subject,
                reply,
            }) => {
                // One more with each question of a follower.
                newest += i64::from(after.is_some());
                let from = after.map_or(1, |after| after + 1);
                let mut events: Vec<Event> = (from..=newest).map(event).collect();
                events.retain(|e| subject.as_ref().is_none_or(|s| *s == e.subject));
                let skip = if after.is_none() {
                    events.len().saturating_sub(limit)
                } else {
                    0
                };
                drop(reply.send(Ok(events.split_off(skip))));
            }
            Query::Read(Read::Plan(reply)) => drop(reply.send(Ok(plan()))),
            Query::Read(Read::Explain { name, reply }) => drop(reply.send(explained(&name))),
            Query::Demand(Demand::Resume { nodes, force, reply }) => {
                let message = format!("made now, force {force}");
                drop(reply.send(Ok(Accepted {
                    nodes: hostlist::fold(&nodes),
                    message,
                })));
            }
            Query::Demand(Demand::Suspend { reply, .. }) => {
                drop(reply.send(Err(ApiError::NotFound("not a node: fg0".into()))))
            }
            Query::Demand(Demand::JobReady { reply, .. }) => drop(reply.send(Ok(()))),
            // What cli_jobs.rs is about.
            Query::Demand(Demand::Give { reply, .. } | Demand::Clean { reply, .. }) => drop(reply),
            Query::Read(Read::JobVms { reply, .. }) => drop(reply),
            Query::Read(Read::JobsVms { reply, .. }) => drop(reply),
            Query::Read(Read::JobsNodes { reply, .. }) => drop(reply),
        }
    }
}

fn served() -> Served {
    Served::new(controller)
}

#[test]
fn ten_thousand_nodes_fit_a_screen() {
    let served = served();
    let out = served.good(&["nodes"]);
    let lines: Vec<&str> = out.lines().collect();
    // The last tells how old it is.
    assert_eq!(lines.len(), 5, "{out}");
    assert_eq!(lines[4], "(Slurm as of 3 s ago)");
    assert!(lines[0].starts_with("NODESET"), "{out}");
    let line = |state: &str| {
        lines
            .iter()
            .find(|l| l.contains(state))
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        line(" down ")[..9],
        [
            "fg",
            "powered",
            "down",
            "9989",
            "IDLE+CLOUD",
            "2",
            "500",
            "MiB",
            "fg[0-6,8-99,110-9999]"
        ]
    );
    assert_eq!(line(" up ")[7], "fg[100-109]");
    assert!(
        out.contains("thiao: no host\\u{1b}[2J has capacity") && !out.contains('\x1b'),
        "{out:?}"
    );

    let out = served.good(&["nodes", "fg[6-8]", "--long"]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 5, "{out}");
    assert!(
        lines[2].starts_with("fg7 ") && lines[2].contains(" min ") && !lines[2].contains(" min ago"),
        "{out}"
    );
    // As wide as a terminal, where there is nothing to note.
    assert!(lines[0].len() <= 80 && lines[1].len() <= 80, "{out}");
    assert!(lines[2].contains("(failure 1, tried again in 10 min)"), "{out}");
    assert_eq!(served.good(&["nodes", "--long"]).lines().count(), 10_002);

    let (code, out, err) = served.run(&["nodes", "fg[9999-10001]"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("no nodeset has fg[10000-10001]"), "{err}");
}

#[test]
fn json_is_the_answer_itself() {
    let served = served();
    let nodes: Vec<Node> = serde_json::from_str(&served.good(&["nodes", "fg[100-104]", "--json"])).unwrap();
    assert_eq!(nodes.len(), 5);
    assert_eq!(nodes[0].vm.as_deref(), Some("fg100.1"));
    let status: Status = serde_json::from_str(&served.good(&["status", "--json"])).unwrap();
    assert_eq!((status.vm_count, status.pending_intents), (10, 2));
    let hosts: Vec<Host> = serde_json::from_str(&served.good(&["hosts", "--json"])).unwrap();
    assert_eq!(hosts[0].memory_mb, 16_384);
    assert_eq!(hosts[0].everybody.as_ref().unwrap().cpu_percent_load, Some(275));
    assert!(hosts[1].everybody.is_none());
    let events: Vec<Event> = serde_json::from_str(&served.good(&["events", "-n", "2", "--json"])).unwrap();
    assert_eq!(events.iter().map(|e| e.id).collect::<Vec<_>>(), [2, 3]);
    for command in ["vms", "jobs", "plan"] {
        serde_json::from_str::<serde_json::Value>(&served.good(&[command, "--json"])).unwrap();
    }
}

#[test]
fn people_read_sentences() {
    let served = served();
    let out = served.good(&["status"]);
    for text in [
        "thiao 9.9, started 2 min ago",
        "TCG: KVM guests hang here",
        "slurmctld does not answer (last read 3 s ago; nothing is destroyed on a failed observation)",
        "9989 powered down, 10 up",
        "intents     2 wait",
        "open after 10 failures in a row",
        "jobs of job mode do not wait for capacity: the reservation thiao-room holds 0 of 1",
    ] {
        assert!(out.contains(text), "{text} not in\n{out}");
    }
    let out = served.good(&["jobs"]);
    assert!(
        out.contains("fg[100-101]")
            && out.contains("2/2")
            && !out.contains("None")
            && out.contains("\n18_[4-6,9] "),
        "{out}"
    );
    assert!(served.good(&["vms"]).contains("1 min ago"));
    let out = served.good(&["hosts"]);
    let words: Vec<Vec<&str>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        words,
        [
            "HOST USABLE VMS CPU MEMORY OTHERS' VMS LOAD",
            "a yes 1 200 of 400 % 640 MiB of 16.0 GiB 3 with 150 %, 10.0 GiB 275 %, 9000 MiB",
            "b no 1 200 of 400 % 640 MiB of 16.0 GiB - -",
            "any yes 1 200 % 640 MiB - -",
            "(Slurm as of 3 s ago)",
        ]
        .map(|line| line.split_whitespace().collect::<Vec<_>>()),
        "{out}"
    );
    let out = served.good(&["plan"]);
    assert!(
        out.contains("To be done next\n") && out.contains("Refused by the linter\n"),
        "{out}"
    );
    assert!(!out.contains("Held back"), "{out}");
    let out = served.good(&["explain", "fg7"]);
    assert!(
        out.starts_with("node fg7\n  It waits for capacity.\n\nLast on the console of VM fg7.2, 2023-11-14 22:13:20.000:\n"),
        "{out}"
    );
    assert_eq!(out.matches("  | boot\n").count(), 1, "{out}");
    assert!(
        out.contains(
            "  | slurmd: error: Unauthorized \\u{1b}credential\n\n2023-11-14 22:13:20.001  node fg7"
        ),
        "{out}"
    );
    let out = served.good(&["events", "fg7"]);
    assert_eq!(out.lines().count(), 3);
    assert!(out.contains("because of 2\\u{7}"), "{out:?}");
    assert_eq!(served.good(&["events", "other"]), "");
}

#[test]
fn tasks_are_explained_as_squeue_lists_them() {
    let served = served();
    // One record is told once, and what is not known is left out.
    let out = served.good(&["explain", "18_[0,4-6,9%2]"]);
    let subjects: Vec<&str> = out.lines().filter(|line| line.starts_with("job")).collect();
    assert_eq!(subjects, ["job of 18_0", "job of 18_4"], "{out}");
    let (code, _, err) = served.run(&["explain", "18_[1]"]);
    assert_eq!((code, err.as_str()), (1, "thiao: nothing is named 18_1\n"));
}

#[test]
fn refusals_are_passed_on() {
    let served = served();
    assert_eq!(
        served.good(&["resume", "-f", "fg[1,0]"]),
        "fg[0-1]: made now, force true\n"
    );
    let (code, _, err) = served.run(&["suspend", "fg0"]);
    assert_eq!((code, err.as_str()), (1, "thiao: not a node: fg0\n"));
    let (code, _, err) = served.run(&["explain", "x"]);
    assert_eq!((code, err.as_str()), (1, "thiao: nothing is named x\n"));
    let (code, _, err) = served.run(&["explain", "a b"]);
    assert_eq!(
        (code, err.as_str()),
        (
            2,
            "thiao: name a node (fg0), a VM (fg0.3) or a job (17, 17_3, 17+1)\n"
        )
    );
}

/// Ends a program that would go on, when a test leaves it.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lines_of(command: &mut Command, count: usize) -> (Vec<String>, std::process::ExitStatus, String) {
    let mut child = Ended(
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let out = BufReader::new(child.0.stdout.take().unwrap());
    let lines: Vec<String> = out.lines().take(count).map(Result::unwrap).collect();
    // The reader is gone: the next line ends the program, which is no error.
    let status = child.0.wait().unwrap();
    let mut err = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (lines, status, err)
}

#[test]
fn followers_see_what_comes_and_may_leave() {
    let served = served();
    let (lines, status, err) = lines_of(&mut served.command(&["events", "--follow", "--json"]), 6);
    let ids: Vec<i64> = lines
        .iter()
        .map(|l| serde_json::from_str::<Event>(l).unwrap().id)
        .collect();
    assert_eq!(
        (ids.as_slice(), status.code(), err.as_str()),
        ([1, 2, 3, 4, 5, 6].as_slice(), Some(0), "")
    );

    let (lines, status, err) = lines_of(&mut served.command(&["status", "--watch", "--json"]), 2);
    for line in lines {
        serde_json::from_str::<Status>(&line).unwrap();
    }
    assert_eq!((status.code(), err.as_str()), (Some(0), ""));

    let (lines, status, err) = lines_of(&mut served.command(&["nodes", "--long"]), 3);
    assert_eq!((lines.len(), status.code(), err.as_str()), (3, Some(0), ""));
}

#[test]
fn a_controller_of_another_version_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let answer = |status: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for (answer, code, expected) in [
        (
            answer(
                "404 Not Found",
                r#"{"error":"this controller speaks version 2 of the API, not 1"}"#,
            ),
            1,
            "speaks version 2",
        ),
        (answer("200 OK", "[]"), 1, "makes no sense to thiao"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}".to_owned(),
            1,
            "it is cut off",
        ),
        ("hello".to_owned(), 1, "it has no head"),
        (String::new(), 3, "broke off or was too slow"),
    ] {
        let (code_seen, err) = against(dir.path(), &answer);
        assert!(
            code_seen == code && err.contains(expected),
            "{answer:?} gave {code_seen} {err}"
        );
    }
}

/// `thiao status` against a server that says only this.
fn against(dir: &Path, answer: &str) -> (i32, String) {
    use std::io::Write as _;
    let socket = dir.join(SOCKET);
    let _ = std::fs::remove_file(&socket);
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let answer = answer.to_owned();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let config = dir.join("thiao.toml");
    std::fs::write(&config, format!("state_dir = {dir:?}\n")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_thiao"))
        .args(["status", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    server.join().unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn a_stranger_is_refused_orders_by_the_kernels_word() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    // Only root can become a stranger.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let served = served();
    std::fs::set_permissions(served.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = served.dir.path().join("thiao");
    std::fs::copy(env!("CARGO_BIN_EXE_thiao"), &program).unwrap();
    let as_stranger = |args: &[&str]| {
        let mut command = Command::new(&program);
        command
            .args(args)
            .env("THIAO_CONFIG", &served.config)
            .uid(1001)
            .gid(1001);
        let output = command.output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, _, err) = as_stranger(&["resume", "fg0"]);
    assert!(
        code == 1 && err.contains("only root and thiaod's user"),
        "{code} {err}"
    );
    assert_eq!(
        as_stranger(&["jobs"]).1,
        "Slurm cannot be read now, so its jobs are not known: slurmctld does not answer\n(Slurm as of 3 s ago)\n"
    );
    assert_eq!(as_stranger(&["nodes"]).0, 0);
}
