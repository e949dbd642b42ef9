//! Names that are none: on the command line, in the API's paths and bodies, and of jobs.

use super::{ask, assert_harmless, open_day, raw, socket, thiao};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use thiao_testkit::wait::until;

/// What people type who mean no good; none of it is a name of anything.
fn odd_names() -> Vec<OsString> {
    let mut names: Vec<OsString> = [
        "../../etc/passwd",
        "/etc/passwd",
        "n0/../../..",
        "n0\nn1",
        "n0\r\nX: y",
        "\x1b[2J\x1b]0;x\x07",
        "\u{9b}2J",
        "%2e%2e%2f",
        "%00",
        "n0'; DROP TABLE nodes; --",
        "$(reboot)",
        "`reboot`",
        "*",
        "n0 n1",
        "-1",
        "",
        ".",
        "..",
        "n[0-99999999]",
        "n[0-",
        "4294967296",
        "17_",
        "17_4294967296",
        "\u{202e}0n",
        "𝖓𝟎",
    ]
    .map(OsString::from)
    .into();
    names.push(OsStr::from_bytes(b"\xff\xfe").into());
    names.push("n".repeat(100_000).into());
    names
}

#[test]
fn odd_words_on_the_command_line_do_nothing() {
    let mut day = open_day(1);
    day.start();
    let socket = socket(&day);
    until("the API", || socket.exists());
    for name in odd_names() {
        for words in [
            vec!["explain", "--"],
            vec!["nodes", "--"],
            vec!["jobs", "--"],
            vec!["events", "--about"],
            vec!["clean", "--"],
            vec!["resume", "--"],
            vec!["suspend", "--"],
            vec!["hostlist", "expand", "--"],
            vec!["submit", "--vm-image"],
            vec!["submit", "--vm-template"],
        ] {
            let args = words.iter().map(OsString::from).chain([name.clone()]);
            let (code, out, err) = thiao(&day, args);
            let shown = format!("{words:?} {name:?}: {code} {}", String::from_utf8_lossy(&err));
            // 0 where it can mean something: all nodes, no events. 101 would be a panic.
            assert!((0..=3).contains(&code), "{shown}");
            assert_harmless(&out);
            if code != 2 {
                // The parser of the command line shows a person his own words as he typed them.
                assert_harmless(&err);
            }
        }
    }
    assert_eq!(ask(&socket, "GET", "/v1/status", "").0, 200);
    assert_eq!(day.ours().len(), 0, "nothing was ordered");
    assert_eq!(day.site.told(), "");
    assert_eq!(day.site.waiting_orders(), 0);
}

#[test]
fn odd_paths_and_bodies_are_refused_and_told_in_json() {
    let mut day = open_day(1);
    day.start();
    let socket = socket(&day);
    until("the API", || socket.exists());
    let encoded = |name: &OsStr| -> String { name.as_bytes().iter().map(|b| format!("%{b:02X}")).collect() };
    for name in odd_names() {
        let name: String = encoded(&name).chars().take(30_000).collect();
        for (method, before, after) in [
            ("GET", "/v1/explain/", ""),
            ("GET", "/v1/jobs/", "/ready?timeout_ms=1"),
            ("GET", "/v1/jobs/", "/vms"),
            ("POST", "/v1/jobs/", "/clean"),
            ("POST", "/v1/jobs/", "/give"),
            ("POST", "/v1/nodes/", "/resume"),
            ("GET", "/v1/events?subject=", ""),
            ("GET", "/v1/events?limit=", ""),
            ("GET", "/v1/", ""),
        ] {
            let path = format!("{before}{name}{after}");
            let (code, body) = ask(&socket, method, &path, "");
            let fine = (400..500).contains(&code) || code == 200 && path.contains("subject=");
            assert!(fine, "{method} {path}: {code} {body}");
            assert!(
                serde_json::from_str::<serde_json::Value>(&body).is_ok(),
                "{path}: {body}"
            );
        }
    }
    let nested = format!("{}1{}", "[".repeat(2_000), "]".repeat(2_000));
    for body in [
        nested.as_str(),
        "{\"options\":\"image=../x\"}",
        "{\"options\":\"image=\\u0000\"}",
        "{\"options\":7}",
        "\0\0",
    ] {
        let (code, answer) = ask(&socket, "POST", "/v1/jobs/1/give", body);
        assert!((400..500).contains(&code), "{body}: {code} {answer}");
    }
    // What is not HTTP gets no answer, or a refusal.
    for odd in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET /v1/status\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ] {
        let mut request = odd.to_vec();
        request.extend(b"\r\n\r\n");
        let answer = raw(&socket, &request);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert_eq!(ask(&socket, "GET", "/v1/status", "").0, 200);
}

#[test]
fn a_jobs_name_and_a_nodes_reason_cannot_steer_an_admins_terminal() {
    let mut day = open_day(1);
    // As squeue prints a job whose name has a line in it that looks like a job of root's.
    let squeue = day.site.path("bin/squeue");
    let script = std::fs::read_to_string(&squeue).unwrap();
    let hostile = "\\033[2J\\033]0;owned\\007\\302\\2332J\\n99  backup  root  RUNNING\\177";
    assert!(script.contains("wrap"));
    std::fs::write(&squeue, script.replace("wrap", hostile)).unwrap();
    std::fs::set_permissions(&squeue, std::fs::Permissions::from_mode(0o755)).unwrap();
    day.site
        .slurm_says(&["n0|idle+cloud+powered_down|\x1b[31mred\x07"]);
    day.site.jobs_are([(7, "RUNNING", "n0".into())]);
    day.start();
    let jobs = || thiao(&day, ["jobs"]).1;
    until("the job is seen", || {
        String::from_utf8_lossy(&jobs()).contains("owned")
    });
    let shown = String::from_utf8(jobs()).unwrap();
    assert_harmless(shown.as_bytes());
    // How old the answer is may stand below.
    let lines = shown.lines().filter(|line| !line.starts_with('('));
    assert_eq!(lines.count(), 2, "a head and one job: {shown}");
    for words in [
        &["jobs", "--json"][..],
        &["nodes"],
        &["nodes", "--json"],
        &["explain", "7"],
        &["explain", "n0"],
        &["events"],
        &["plan"],
        &["vms"],
    ] {
        let (code, out, err) = thiao(&day, words);
        assert_eq!(code, 0, "{words:?}: {}", String::from_utf8_lossy(&err));
        assert_harmless(&out);
    }
    assert_harmless(day.log().as_bytes());
}
