//! What is another user's: his jobs, their VMs, their story; and what is in the state folder.

use super::{Day, as_user, ask, is_root, open_day, socket};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use thiao_testkit::wait::until;

/// Whose the stand-in squeue says all jobs are.
const OWNER: u32 = 1000;
const STRANGER: u32 = 1001;

/// Job 1 runs in `n0`'s VM.
fn day() -> Day {
    let mut day = open_day(1);
    day.up();
    day
}

#[test]
fn anothers_job_cannot_be_seen_nor_touched_by_any_path() {
    if !is_root() {
        return;
    }
    let day = day();
    let socket = socket(&day);
    let as_one =
        |uid, method: &str, path: &str, body: &str| as_user(uid, || ask(&socket, method, path, body));
    // The owner sees it.
    until("the job is seen", || {
        as_one(OWNER, "GET", "/v1/jobs", "").1.contains("\"id\":1")
    });
    assert_eq!(as_one(OWNER, "GET", "/v1/explain/1", "").0, 200);
    assert_eq!(
        as_one(OWNER, "GET", "/v1/jobs/1/ready?timeout_ms=20000", "").0,
        200
    );
    assert!(as_one(OWNER, "GET", "/v1/nodes", "").1.contains("\"jobs\":[1]"));

    // The other does not, whatever he asks.
    let options = r#"{"options":"share=50"}"#;
    for (method, path, body) in [
        ("GET", "/v1/explain/1", ""),
        ("GET", "/v1/jobs/1/ready", ""),
        ("GET", "/v1/jobs/1/vms", ""),
        ("POST", "/v1/jobs/1/clean", ""),
        ("POST", "/v1/jobs/1/give", options),
        // Other ways to write its number.
        ("GET", "/v1/explain/01", ""),
        ("GET", "/v1/jobs/%31/ready", ""),
        ("POST", "/v1/jobs/+1/clean", ""),
    ] {
        let (code, answer) = as_one(STRANGER, method, path, body);
        assert!(matches!(code, 400 | 404), "{method} {path}: {code} {answer}");
        assert!(
            !answer.contains("RUNNING") && !answer.contains("n0"),
            "{path}: {answer}"
        );
    }
    for path in [
        "/v1/jobs",
        "/v1/jobs/vms",
        "/v1/events?subject=job%201",
        "/v1/events?subject=job*",
    ] {
        assert_eq!(
            as_one(STRANGER, "GET", path, ""),
            (200, "[]".to_owned()),
            "{path}"
        );
    }
    assert!(as_one(STRANGER, "GET", "/v1/nodes", "").1.contains("\"jobs\":[]"));
    for path in [
        "/v1/plan",
        "/v1/events?limit=10000",
        "/v1/events?after=0",
        "/v1/explain/n0",
        "/v1/explain/n0.1",
    ] {
        let (code, answer) = as_one(STRANGER, "GET", path, "");
        assert!(code == 200 && !answer.contains("\"job 1\""), "{path}: {answer}");
    }
    for path in ["/v1/nodes/n0/suspend", "/v1/nodes/n0/resume?force=true"] {
        assert_eq!(as_one(STRANGER, "POST", path, "").0, 403, "{path}");
    }
    // What the trusted may say he is, he is not.
    let forged = b"GET /v1/jobs HTTP/1.1\r\nHost: t\r\nX-Uid: 0\r\nX-Forwarded-For: root\r\nAuthorization: Basic cm9vdDo=\r\nConnection: close\r\n\r\n";
    let answer = as_user(STRANGER, || super::raw(&socket, forged));
    assert!(answer.ends_with(b"[]"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(day.running(), 1);
    assert_eq!(day.site.told(), "", "nothing of it reached Slurm");
}

/// All below a folder, as its owner sees it.
fn all_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            found.extend(all_below(&path));
        }
        found.push(path);
    }
    found
}

#[test]
fn of_the_state_folder_others_reach_the_socket_alone() {
    let mut day = day();
    // Something of everything is there.
    day.kill();
    day.site.order(thiao_testkit::site::RESUME, "n0");
    let state = super::state(&day);
    let found = all_below(&state);
    for name in ["thiao.db", "lock", "poke.sock", "spool/new", "spool/nodes"] {
        assert!(found.contains(&state.join(name)), "{name}: {found:?}");
    }
    let mode = |path: &Path| path.symlink_metadata().unwrap().mode();
    assert_eq!(mode(&state) & 0o022, 0);
    for path in found {
        let inside = path.strip_prefix(&state).unwrap();
        if inside == Path::new("api.sock") {
            continue;
        }
        let closed = |part: &Path| part != Path::new("") && mode(&state.join(part)) & 0o077 == 0;
        assert!(
            inside.ancestors().any(closed),
            "{inside:?} is open: {:o}",
            mode(&path)
        );
    }
    if !is_root() {
        return;
    }
    let denied = |done: std::io::Result<()>| matches!(done, Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied);
    as_user(STRANGER, || {
        use std::fs;
        assert!(denied(fs::write(state.join("new"), "")));
        assert!(denied(fs::write(state.join("spool/new/order"), "")));
        assert!(denied(fs::remove_file(state.join("api.sock"))));
        assert!(denied(fs::rename(state.join("spool"), state.join("other"))));
        assert!(denied(fs::read(state.join("thiao.db")).map(drop)));
        assert!(denied(std::os::unix::fs::symlink("/etc", state.join("link"))));
        assert!(denied(fs::hard_link(state.join("thiao.db"), state.join("db2"))));
    });
    // All of it is as it was.
    assert!(
        state
            .join("api.sock")
            .symlink_metadata()
            .unwrap()
            .file_type()
            .is_socket()
    );
}
