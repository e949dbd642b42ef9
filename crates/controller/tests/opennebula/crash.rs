//! Controllers that die, and many VMs at once.

use std::time::Duration;
use thiao_oned::{Fault, Rule};
use thiao_testkit::day::Day;
use thiao_testkit::site::rounds;
use thiao_testkit::wait::until;

#[test]
fn a_crash_in_the_middle_of_a_thousand_creations_makes_nothing_twice() {
    let mut day = Day::with(1000, |_| (), "[limits]\nmax_vms_per_host = 1000");
    day.resume("n[0-999]");
    for made in [100, 400, 700] {
        day.start();
        until("some are made", || {
            day.oned.calls("one.template.instantiate") >= made
        });
        day.kill();
        day.no_node_has_two();
    }
    // The last one's calls may have been under way: their VMs are found and none is made again.
    day.start();
    until("all run", || day.running() == 1000);
    day.no_node_has_two();
    until("nothing held is left over", || day.ours().len() == 1000);
    let made = day.oned.calls("one.template.instantiate");
    assert!(
        made <= 1000 + 3 * 8,
        "{made} creations for 1000 VMs: more than calls in flight at the crashes"
    );
    day.all_nodes_are("idle+cloud");
    rounds();
    day.suspend("n[0-999]");
    day.until_none();
}

#[test]
fn a_slow_oned_that_answers_after_our_patience_makes_nothing_twice() {
    let mut day = Day::new(3);
    day.oned.fault(Rule {
        method: Some("one.template.instantiate".into()),
        fault: Fault::Slow(Duration::from_secs(7)),
        times: Some(3),
    });
    day.resume("n[0-2]");
    day.start();
    until("all run", || day.running() == 3);
    day.no_node_has_two();
    // What came of the late answers was held, has never run, and is ended.
    until("nothing is left over", || {
        day.oned.calls("one.template.instantiate") >= 6 && day.ours().len() == 3
    });
    assert_eq!(day.running(), 3);
}
