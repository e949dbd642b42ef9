//! Namespaces of a test's own.

use std::process::Command;

/// Runs `body` in new network and mount namespaces (and, for anybody but root, a user namespace), by starting this
/// test again in them. Nothing that it does to the network is seen outside.
pub fn isolated(test: &str, body: fn()) {
    isolated_after(test, || {}, body);
}

/// The same, with what needs the outer network or folders done before, outside.
pub fn isolated_after(test: &str, before: fn(), body: fn()) {
    const INSIDE: &str = "THIAO_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some_and(|t| t == test) {
        return body();
    }
    before();
    // Root of the machine needs no user namespace; anybody else becomes root of one.
    let users: &[&str] = if rustix::process::geteuid().is_root() {
        &[]
    } else {
        &["--user", "--map-root-user"]
    };
    let output = Command::new("unshare")
        .args(users)
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, test)
        .output()
        .expect("unshare (package util-linux) starts");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "the test did not run inside: {said}");
}

/// Runs `ip` and gives what it printed.
pub fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
