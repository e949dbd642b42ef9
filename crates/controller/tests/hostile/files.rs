//! Things in the state folder that are not what they should be.

use super::{Day, assert_harmless, is_root, open_day, thiao};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use thiao_testkit::site::RESUME;
use thiao_testkit::wait::until;

fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[test]
fn nothing_in_the_spool_hangs_the_controller_or_is_followed() {
    let mut day = open_day(2);
    let new = day.site.path("state/spool/new");
    fs::create_dir_all(&new).unwrap();
    let secret = day.site.path("secret");
    fs::write(&secret, "a secret").unwrap();
    let mut odd = vec![
        "0-folder",
        "1-link",
        "2-dangling",
        "3-pipe",
        "4-socket",
        "5-huge",
        "6-empty",
        "7-a\nb\x1b[2J",
    ];
    fs::create_dir(new.join(odd[0])).unwrap();
    fs::write(new.join(odd[0]).join("x"), "").unwrap();
    symlink(&secret, new.join(odd[1])).unwrap();
    symlink("/nowhere/at/all", new.join(odd[2])).unwrap();
    pipe(&new.join(odd[3]));
    let _socket = UnixListener::bind(new.join(odd[4])).unwrap();
    // Takes no space on the disc.
    fs::File::create(new.join(odd[5]))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    fs::write(new.join(odd[6]), "").unwrap();
    fs::write(new.join(odd[7]), "no order").unwrap();
    if is_root() {
        // Another user's, and as whole as can be.
        day.site.order(RESUME, "n1");
        let order = fs::read_dir(&new)
            .unwrap()
            .flatten()
            .find(|e| !odd.iter().any(|o| e.file_name() == **o));
        fs::rename(order.unwrap().path(), new.join("8-others")).unwrap();
        std::os::unix::fs::chown(new.join("8-others"), Some(1001), Some(1001)).unwrap();
        odd.push("8-others");
    }
    fs::write(new.join(OsStr::from_bytes(b"9-\xff\xfe")), "no text").unwrap();
    // Two of the names are taken where they are put aside.
    let bad = day.site.path("state/spool/bad");
    fs::create_dir_all(bad.join(odd[6]).join("in the way")).unwrap();

    day.resume("n0");
    day.start();
    day.until_running(1);
    until("all else is aside", || fs::read_dir(&new).unwrap().count() == 0);
    for name in &odd {
        assert!(bad.join(name).symlink_metadata().is_ok(), "{name:?}");
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "a secret");
    assert_eq!(fs::read_dir(&bad).unwrap().count(), odd.len() + 2);
    for kind in ["not a plain file", "has more than", "no hook gives such a name"] {
        day.until_logged(kind);
    }
    if is_root() {
        day.until_logged("it is owned by the user with uid 1001");
    }
    assert_eq!(day.ours().len(), 1, "no order but the good one was taken");
    // What the admin reads of it cannot steer his terminal.
    let (code, out, _) = thiao(&day, ["events", "--limit", "1000"]);
    assert_eq!(code, 0);
    assert_harmless(&out);
    assert!(String::from_utf8_lossy(&out).contains("7-a\\nb\\u{1b}[2J"));
    assert_harmless(day.log().as_bytes());
}

/// Starts the controller, which must end by itself, and says why.
fn refusal(day: &mut Day) -> String {
    let log = day.site.path("log");
    let _ = fs::remove_file(&log);
    day.start();
    until("it ends", || day.has_ended());
    day.kill();
    fs::read_to_string(log).unwrap()
}

#[test]
fn what_the_controller_keeps_is_no_link_and_no_pipe() {
    for name in ["lock", "thiao.db"] {
        let mut day = open_day(1);
        let state = day.site.path("state");
        fs::create_dir(&state).unwrap();
        let target = day.site.path("target");
        fs::write(&target, "precious").unwrap();
        symlink(&target, state.join(name)).unwrap();
        let said = refusal(&mut day);
        assert!(
            said.contains(name) && said.contains("it is not a plain file"),
            "{name}: {said}"
        );
        fs::remove_file(state.join(name)).unwrap();
        pipe(&state.join(name));
        let said = refusal(&mut day);
        assert!(
            said.contains(name) && said.contains("it is not a plain file"),
            "{name}: {said}"
        );
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    }
}

#[test]
fn folders_that_are_not_ours_alone_are_refused() {
    let mut day = open_day(1);
    let state = day.site.path("state");
    fs::create_dir(&state).unwrap();
    let chmod = |mode| fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
    chmod(0o777);
    let said = refusal(&mut day);
    assert!(
        said.contains("other users may write into it") && said.contains("chmod go-w"),
        "{said}"
    );
    chmod(0o755);
    symlink("/tmp", state.join("spool")).unwrap();
    let said = refusal(&mut day);
    assert!(
        said.contains("spool") && said.contains("it is not a folder"),
        "{said}"
    );
    fs::remove_file(state.join("spool")).unwrap();
    if is_root() {
        let to = |path: &Path, uid| std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
        fs::create_dir(state.join("spool")).unwrap();
        to(&state.join("spool"), 1001);
        assert!(refusal(&mut day).contains("it is owned by the user with uid 1001"));
        to(&state.join("spool"), 0);
        to(&state, 1001);
        assert!(refusal(&mut day).contains("it is owned by the user with uid 1001"));
    }
}

#[test]
fn an_open_spool_is_closed_before_it_is_used() {
    let mut day = open_day(1);
    let spool = day.site.path("state/spool");
    for sub in ["", "tmp", "new", "bad"] {
        fs::create_dir_all(spool.join(sub)).unwrap();
        fs::set_permissions(spool.join(sub), fs::Permissions::from_mode(0o777)).unwrap();
    }
    // A link where a list for the hooks is about to be written.
    let target = day.site.path("target");
    fs::write(&target, "precious").unwrap();
    symlink(&target, spool.join("nodes.part")).unwrap();
    day.start();
    until("it is up", || spool.join("job-nodes").exists());
    for sub in ["", "tmp", "new", "bad"] {
        let mode = fs::metadata(spool.join(sub)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{sub}");
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert_eq!(fs::read_to_string(spool.join("nodes")).unwrap(), "n0\n");
}
