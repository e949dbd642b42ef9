//! Disks that are full, cannot be written, or have lost a part of the database: nothing is
//! done that is not stored, nothing is lost, and it is told what helps.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use thiao_core::spool::IntentKind;
use thiao_testkit::day::Day;
use thiao_testkit::site::{RESUME, rounds};
use thiao_testkit::wait::until;

/// Runs `body` in a mount namespace of its own (and, for anybody but root, a user namespace), by
/// starting this test again there, with a day whose state folder is a disk of 1 MiB.
fn on_a_small_disk(test: &str, body: fn(Day)) {
    const INSIDE: &str = "THIAO_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        let day = Day::new(2);
        let state = day.site.path("state");
        fs::create_dir(&state).unwrap();
        mount(&["-t", "tmpfs", "-o", "size=1m,mode=0755", "none"], &state);
        return body(day);
    }
    let users: &[&str] = match rustix::process::geteuid().is_root() {
        true => &[],
        false => &["--user", "--map-root-user"],
    };
    let output = Command::new("unshare")
        .args(users)
        .arg("--mount")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, test)
        .output()
        .expect("unshare (package util-linux) starts");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{said:?}");
    assert!(said[0].contains("1 passed"), "it did not run inside: {said:?}");
}

fn mount(args: &[&str], place: &Path) {
    let status = Command::new("mount").args(args).arg(place).status().unwrap();
    assert!(status.success(), "mount {args:?} {}", place.display());
}

/// Leaves no space on the state folder's disk.
fn fill(day: &Day) -> PathBuf {
    let path = day.site.path("state/fill");
    let mut file = fs::File::create(&path).unwrap();
    let mut size = 1 << 16;
    while size > 0 {
        if file.write_all(&vec![b'x'; size]).is_err() {
            size /= 2;
        }
    }
    path
}

fn thiao(day: &Day, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(thiao_testkit::program("thiao"));
    command
        .arg("--config")
        .arg(day.site.path("thiao.toml"))
        .args(args);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.code(), said.concat())
}

/// The first node is up, for a job; the other one is off, and nobody wants it.
fn one_is_up(day: &mut Day) {
    day.resume("n0");
    day.start();
    day.until_running(1);
    day.site
        .slurm_says(&["n0|allocated+cloud|none", "n1|idle+cloud+powered_down|none"]);
    day.until_logged("n0 is up");
}

/// Slurm powers the other node up. Not before the disk is as it is to be: Slurm's state is an order, too.
fn the_other_powers_up(day: &Day) {
    day.site
        .slurm_says(&["n0|allocated+cloud|none", "n1|allocated+cloud+powering_up|none"]);
}

#[test]
fn on_a_full_disk_nothing_is_done_and_nothing_lost() {
    on_a_small_disk(
        "disk::on_a_full_disk_nothing_is_done_and_nothing_lost",
        |mut day| {
            one_is_up(&mut day);
            let (from, to) = day.site.draft(RESUME, "n1");
            let fill = fill(&day);
            the_other_powers_up(&day);
            fs::rename(from, to).unwrap();
            until("it is told in the status", || {
                thiao(&day, &["status"])
                    .1
                    .contains("nothing is done until it can be stored")
            });
            let (_, said) = thiao(&day, &["status"]);
            assert!(said.contains("Free space"), "{said}");
            let (code, said) = thiao(&day, &["suspend", "n0"]);
            assert_ne!(code, Some(0), "{said}");
            assert!(said.contains("could not be stored"), "{said}");
            rounds();
            assert_eq!(
                (day.running(), day.site.waiting_orders()),
                (1, 1),
                "{}",
                day.log()
            );
            let told = day.log().matches("nothing is done until").count();
            assert_eq!(told, 1, "once, and not in each round: {}", day.log());

            fs::remove_file(fill).unwrap();
            day.until_running(2);
            until("the order is taken", || day.site.waiting_orders() == 0);
            day.until_logged("rounds are stored again");
            rounds();
            assert_eq!(day.running(), 2, "what was refused is not followed later");
            assert_eq!(day.oned.calls("one.template.instantiate"), 2, "none twice");
            assert!(!thiao(&day, &["status"]).1.contains("nothing is done"));
        },
    );
}

#[test]
fn started_on_a_full_disk_it_says_so_and_the_next_one_does_what_waited() {
    on_a_small_disk(
        "disk::started_on_a_full_disk_it_says_so_and_the_next_one_does_what_waited",
        |mut day| {
            one_is_up(&mut day);
            day.kill();
            the_other_powers_up(&day);
            day.site.order(RESUME, "n1");
            day.site.order(IntentKind::Suspend, "n1");
            day.site.order(RESUME, "n1");
            let fill = fill(&day);
            assert_eq!(day.start_in_vain(), Some(1));
            day.until_logged("Free space");
            assert_eq!((day.running(), day.site.waiting_orders()), (1, 3));
            fs::remove_file(fill).unwrap();
            day.start();
            day.until_running(2);
            until("the orders are taken", || day.site.waiting_orders() == 0);
            assert_eq!(day.oned.calls("one.template.instantiate"), 2, "none twice");
        },
    );
}

#[test]
fn started_on_a_read_only_disk_it_says_so_and_the_next_one_goes_on() {
    on_a_small_disk(
        "disk::started_on_a_read_only_disk_it_says_so_and_the_next_one_goes_on",
        |mut day| {
            one_is_up(&mut day);
            day.kill();
            the_other_powers_up(&day);
            day.site.order(RESUME, "n1");
            let state = day.site.path("state");
            mount(&["-o", "remount,bind,ro"], &state);
            assert_eq!(day.start_in_vain(), Some(1));
            day.until_logged("Read-only file system");
            day.until_logged("dmesg says why");
            assert_eq!((day.running(), day.site.waiting_orders()), (1, 1));
            mount(&["-o", "remount,bind,rw"], &state);
            day.start();
            day.until_running(2);
        },
    );
}

/// Damages the database of a controller that was killed; none of it is in its log any more.
fn damage(day: &mut Day, how: fn(&mut Vec<u8>)) {
    one_is_up(day);
    day.kill();
    let path = day.site.path("state/thiao.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    drop(db);
    let mut bytes = fs::read(&path).unwrap();
    how(&mut bytes);
    fs::write(&path, &bytes).unwrap();

    assert_eq!(day.start_in_vain(), Some(1));
    day.until_logged("It is damaged");
    assert!(!day.log().contains("panicked"), "{}", day.log());
    assert_eq!(fs::read(&path).unwrap(), bytes, "it is left as it is");
    assert_eq!(day.running(), 1, "so are the VMs");

    // What is advised.
    let aside = day.site.path("aside");
    fs::create_dir(&aside).unwrap();
    for name in ["thiao.db", "thiao.db-wal", "thiao.db-shm"] {
        let _ = fs::rename(day.site.path("state").join(name), aside.join(name));
    }
    day.start();
    day.until_logged("adopted");
    rounds();
    assert_eq!(day.running(), 1, "{}", day.log());
    assert_eq!(day.oned.calls("one.template.instantiate"), 1);
}

#[test]
fn a_truncated_database_is_told_and_left_alone() {
    damage(&mut Day::new(2), |bytes| bytes.truncate(bytes.len() / 2));
}

#[test]
fn a_database_of_garbage_is_told_and_left_alone() {
    damage(&mut Day::new(2), |bytes| bytes[..512].fill(b'?'));
}

#[test]
fn a_database_with_a_hole_is_told_and_left_alone() {
    // All but the first page, which says what should be there.
    damage(&mut Day::new(2), |bytes| bytes[4096..].fill(0));
}
