//! The machine's clock is set while the controller runs and while it is away: by libfaketime,
//! which shows the controller's process another one.

use thiao_core::spool::IntentKind;
use thiao_testkit::day::Day;
use thiao_testkit::faketime;
use thiao_testkit::site::{RESUME, rounds};
use thiao_testkit::wait::until;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// Sets the clock that the next controller and the hooks see, and the running one.
fn set(day: &mut Day, seconds: i64) {
    faketime::set(&day.site.path("clock"), seconds);
    day.site.clock_s = seconds;
}

/// A day on a machine whose clock can be set.
fn day(toml: &str) -> Day {
    let mut day = Day::with(2, |_| (), toml);
    day.environment = faketime::environment(&day.site.path("clock")).into();
    set(&mut day, 0);
    day
}

/// The first node is up, for a job; the second one's VM boots.
fn one_is_up_and_one_boots(day: &mut Day) {
    day.resume("n[0-1]");
    day.start();
    day.until_running(2);
    day.site
        .slurm_says(&["n0|allocated+cloud|none", "n1|allocated+cloud+powering_up|none"]);
    day.until_logged("n0 is up");
}

/// The VM of the second node, by OpenNebula's number.
fn second(day: &Day) -> Option<u32> {
    let ours = day.ours();
    let vm = ours.iter().find(|(node, _)| node == "n1");
    vm.map(|(_, vm)| vm.id)
}

/// Orders about the second node are followed.
fn orders_are_followed(day: &mut Day, when: &str) {
    day.site.order(IntentKind::Suspend, "n1");
    until(&format!("{when}: it is ended"), || second(day).is_none());
    day.site.order(RESUME, "n1");
    until(&format!("{when}: it has another"), || second(day).is_some());
    day.until_running(2);
}

#[test]
fn whatever_the_clock_is_set_to_no_vm_ends_and_orders_are_followed() {
    let mut day = day("boot_timeout = 300");
    one_is_up_and_one_boots(&mut day);
    let mut booting = second(&day);
    for (seconds, when) in [
        (HOUR, "set ahead by an hour"),
        (-HOUR, "set back by two hours"),
        (DAY, "set ahead by a day and an hour"),
        (0, "set back by a day"),
    ] {
        set(&mut day, seconds);
        rounds();
        assert_eq!((day.running(), second(&day)), (2, booting), "{when}");
        orders_are_followed(&mut day, when);
        booting = second(&day);
    }
    let log = day.log();
    for told in [
        "set ahead by 3600s",
        "set back by 7200s",
        "set ahead by 90000s",
        "set back by 86400s",
    ] {
        assert!(log.contains(told), "{told}\n{log}");
    }
}

#[test]
fn whatever_is_set_while_it_is_away_the_next_one_goes_on() {
    let mut day = day("boot_timeout = 300");
    one_is_up_and_one_boots(&mut day);
    let mut booting = second(&day);
    for (seconds, when) in [
        (HOUR, "ahead"),
        (-HOUR, "back"),
        (DAY, "far ahead"),
        (0, "far back"),
    ] {
        day.kill();
        // One from before and one from after: the names are in the other order if it was set back.
        day.site.order(IntentKind::Suspend, "n1");
        rounds();
        set(&mut day, seconds);
        day.site.order(RESUME, "n1");
        day.start();
        until(&format!("{when}: the orders are taken"), || {
            day.site.waiting_orders() == 0
        });
        rounds();
        assert_eq!(
            (day.running(), second(&day)),
            (2, booting),
            "{when}: {}",
            day.log()
        );
        orders_are_followed(&mut day, when);
        booting = second(&day);
    }
}

#[test]
fn after_the_clock_was_set_back_waits_still_end() {
    let mut day = day("boot_timeout = 5");
    one_is_up_and_one_boots(&mut day);
    let first = second(&day);
    set(&mut day, -HOUR);
    until("the VM that never comes up is replaced", || {
        second(&day).is_some_and(|vm| Some(vm) != first)
    });
    // A controller that knows only what is stored, and sees the clock where it was.
    let next = second(&day);
    day.kill();
    set(&mut day, -DAY);
    day.start();
    until("so is the next one ended", || second(&day) != next);
}
