//! The user that `thiao setup --create` makes is enough for the whole life of a VM, and no more than enough.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Command, Stdio};
use thiao_oned::settings::Settings;
use thiao_testkit::day::Day;
use thiao_testkit::process::run;
use thiao_testkit::program;
use thiao_testkit::wait::until;

/// `thiao setup`, with an administrator's credentials, for the settings of the day.
fn setup(day: &Day, more: &[&str]) -> (i32, String, String) {
    let path = |name: &str| day.site.path(name);
    let mut command = Command::new(program("thiao"));
    command.args(["setup", "--opennebula", "--slurm-version", "24.11", "--yes"]);
    for (option, name) in [
        ("--config", "thiao.toml"),
        ("--hooks", "hooks"),
        ("--fragment", "thiao.conf"),
        ("--admin-auth", "admin_auth"),
    ] {
        command.arg(option).arg(path(name));
    }
    command.arg("--hook-program").arg(program("thiao-hook"));
    run(command.args(more).stdin(Stdio::null()))
}

#[test]
fn a_user_made_from_credentials_alone_makes_deploys_and_ends_vms() {
    // Nobody may use them unless a rule says so.
    let closed = |settings: &mut Settings| {
        settings.networks[0].public = false;
        settings.templates[0].public = false;
    };
    let mut day = Day::with(2, closed, "");
    fs::remove_file(day.site.path("one_auth")).unwrap();
    let admin = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(day.site.path("admin_auth"));
    std::io::Write::write_all(&mut admin.unwrap(), b"oneadmin:opennebula\n").unwrap();
    let (code, out, err) = setup(&day, &["--create"]);
    assert!(
        code == 0 && out.contains("done     make user thiao-c (3)"),
        "{out}{err}"
    );
    day.resume("n0");
    day.start();
    day.until_running(1);
    let vm = day.vm();
    let shown = day.by_hand("one.vm.info", &[&format!("<int>{vm}</int>")]);
    assert!(shown.contains("thiao-c"), "it is that user's: {shown}");
    // While it is there, nothing of it can be taken away.
    day.kill();
    let (code, _, err) = setup(&day, &["--remove"]);
    assert!(
        code == 1 && err.contains(&format!("are there still: {vm}.")),
        "{err}"
    );
    day.start();
    day.suspend("n0");
    day.until_none();
    day.kill();
    until("all is taken back", || setup(&day, &["--remove"]).0 == 0);
    assert!(!day.site.path("one_auth").exists());
}
