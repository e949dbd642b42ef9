//! OpenNebula's event bus: what is told reaches a round without a poll, what is lost is found, and what is made up
//! ends nothing.

use std::time::Duration;
use thiao_api::client::Client;
use thiao_core::spool::IntentKind;
use thiao_oned::{BusFaults, Lcm, Phase, State};
use thiao_testkit::day::Day;
use thiao_testkit::site::rounds;
use thiao_testkit::wait::until;

/// What `onevm ACTION ID` does.
fn by_console(day: &Day, action: &str, vm: u32) {
    let params = [format!("<string>{action}</string>"), format!("<int>{vm}</int>")];
    day.by_hand("one.vm.action", &[&params[0], &params[1]]);
}

/// Calls that show VMs: all of them, or some.
fn polls(day: &Day) -> (u64, u64) {
    (
        day.oned.calls("one.vmpool.info"),
        day.oned.calls("one.vmpool.infoset"),
    )
}

/// A day whose nodes are up, by a controller that hears the bus and does not poll.
fn up(nodes: usize) -> Day {
    let mut day = Day::told(nodes, |_| ());
    day.start();
    until("the bus is connected", || day.oned.is_heard());
    day.until_logged("thiaod is up");
    let last = nodes - 1;
    day.resume(&format!("n[0-{last}]"));
    day.until_running(nodes);
    day.all_nodes_are("allocated+cloud");
    let jobs = (0..nodes).map(|n| (u32::try_from(n + 1).unwrap(), "RUNNING", format!("n{n}")));
    day.site.jobs_are(jobs);
    until("all nodes are up", || {
        let log = day.log();
        (0..nodes).all(|n| log.contains(&format!("n{n} is up")))
    });
    day.until_logged("OpenNebula's events are heard");
    day
}

#[test]
fn what_happens_to_vms_reaches_a_round_without_a_poll() {
    let mut day = up(3);
    let before = polls(&day).0;
    let vms: Vec<u32> = day.ours().iter().map(|(_, vm)| vm.id).collect();
    by_console(&day, "suspend", vms[0]);
    day.until_logged("is saved to a disk and does not run");
    by_console(&day, "resume", vms[0]);
    day.until_logged("goes on");
    day.oned.die(vms[1]);
    day.until_told("state=DOWN");
    until("it is removed", || {
        day.oned.vm(vms[1]).unwrap().state == State::Done
    });
    let host = day.oned.vm(vms[2]).unwrap().host.unwrap();
    let params = [
        format!("<int>{}</int>", vms[2]),
        format!("<int>{}</int>", u32::from(host == 0)),
    ];
    day.by_hand(
        "one.vm.migrate",
        &[
            &params[0],
            &params[1],
            "<boolean>1</boolean>",
            "<boolean>0</boolean>",
            "<int>-1</int>",
            "<int>0</int>",
        ],
    );
    day.until_logged("moved from host");
    assert_eq!(polls(&day).0, before, "nobody asked for all VMs");
    day.suspend("n[0-2]");
    day.until_none();
    day.until_logged("gone: the node was ordered down");
    assert_eq!(polls(&day).0, before);
    day.no_node_has_two();
}

#[test]
fn a_node_comes_up_and_goes_again_and_again_without_a_poll() {
    let mut day = up(1);
    let before = polls(&day).0;
    for _ in 0..3 {
        day.suspend("n0");
        day.until_none();
        day.all_nodes_are("idle+cloud+powered_down");
        day.resume("n0");
        day.until_running(1);
        day.all_nodes_are("allocated+cloud");
    }
    assert_eq!(polls(&day).0, before);
}

/// A hundred at once: they are asked for together.
/// Hosts are asked for rarely then: a VM of ours that has ended since counted as one of others.
#[test]
fn what_others_have_on_hosts_holds_while_ours_come_and_go() {
    let mut day = up(2);
    let client = Client::new(&day.site.path("state"));
    let others = || {
        let hosts = client.hosts().unwrap();
        let all = hosts
            .iter()
            .filter_map(|host| Some((host, host.everybody.as_ref()?)));
        all.map(|(host, all)| {
            let (cpu, memory) = (host.cpu_percent_used, host.memory_mb_used);
            assert!(host.vms <= all.vms && cpu <= all.cpu_percent && memory <= all.memory_mb);
            let (cpu, memory) = (all.cpu_percent - cpu, all.memory_mb - memory);
            (host.vms, all.vms - host.vms, cpu, memory)
        })
        .fold((0, 0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2, a.3 + b.3))
    };
    let before = polls(&day).0;
    until("both are ours", || others() == (2, 0, 0, 0));
    by_console(&day, "terminate-hard", day.ours()[0].1.id);
    until("one is left", || others().0 == 1);
    assert_eq!((others(), polls(&day).0), ((1, 0, 0, 0), before));
    day.suspend("n[0-1]");
    day.until_none();
    until("none is left", || others() == (0, 0, 0, 0));
}

#[test]
fn many_ends_at_once_are_few_calls() {
    let day = up(100);
    let before = polls(&day);
    for (_, vm) in day.ours() {
        day.oned.die(vm.id);
    }
    until("all are told", || {
        day.site.told().matches("state=DOWN").count() >= 1
            && day.log().matches("died while its node was up").count() >= 100
    });
    until("all are removed", || day.ours().is_empty());
    let after = polls(&day);
    assert_eq!(after.0, before.0);
    assert!(after.1 - before.1 < 40, "{} calls", after.1 - before.1);
}

#[test]
fn a_made_up_end_ends_nothing() {
    let mut day = up(2);
    let vms: Vec<u32> = day.ours().iter().map(|(_, vm)| vm.id).collect();
    let lies = [
        State::Done,
        State::Poweroff,
        State::Active(Lcm::BootFailure),
        State::Suspended,
        State::Active(Lcm::Shutdown),
        State::Hold,
    ];
    for lie in lies {
        let before = polls(&day).1;
        day.oned.lie(vms[0], lie);
        until("OpenNebula was asked", || polls(&day).1 > before);
    }
    rounds();
    rounds();
    assert_eq!((day.running(), day.site.told()), (2, String::new()));
    let log = day.log();
    assert!(!log.contains("died"), "{log}");
    assert!(!log.contains("stands still"), "{log}");
    // Nor is a VM gone whose end was asked for, because somebody says so: its node would get another beside it.
    day.oned.hold_phase(Phase::Shutdown);
    day.suspend("n[0-1]");
    until("both are being ended", || {
        let states = vms.iter().map(|vm| day.oned.vm(*vm).unwrap().state);
        states
            .into_iter()
            .all(|state| state == State::Active(Lcm::Shutdown))
    });
    let before = polls(&day).1;
    vms.iter().for_each(|vm| day.oned.lie(*vm, State::Done));
    until("OpenNebula was asked", || polls(&day).1 > before);
    day.resume("n[0-1]");
    rounds();
    rounds();
    assert_eq!(day.ours().len(), 2, "none was made beside them");
    day.oned.let_phase(Phase::Shutdown);
    day.until_running(2);
    assert_eq!(day.ours().len(), 2);
}

/// So that the tests above cannot pass by polling.
#[test]
fn what_nobody_tells_waits_for_the_poll() {
    let day = up(1);
    day.oned.bus_faults(BusFaults {
        silent: true,
        ..BusFaults::default()
    });
    let polled = polls(&day);
    day.oned.die(day.vm());
    rounds();
    assert_eq!(day.site.told(), "", "nobody told");
    assert_eq!(polls(&day), polled, "the poll is minutes away");
}

/// With polls of a second: they find it, and a bus that leaves out so much is not relied on.
#[test]
fn a_bus_that_leaves_out_things_is_not_relied_on() {
    let mut day = Day::told(4, |_| ());
    day.set("events_poll", "1");
    day.set("vm_poll", "0.1");
    day.set("vm_poll_busy", "0.1");
    day.start();
    until("the bus is connected", || day.oned.is_heard());
    day.resume("n[0-3]");
    day.until_running(4);
    day.all_nodes_are("allocated+cloud");
    day.until_logged("OpenNebula's events are heard");
    day.oned.bus_faults(BusFaults {
        silent: true,
        ..BusFaults::default()
    });
    // What an observation shows that was under way anyway, the bus has not left out: more follows.
    let mut verbs = ["suspend", "resume"].into_iter().cycle();
    until("it is not relied on", || {
        let verb = verbs.next().unwrap_or_default();
        for (_, vm) in day.ours() {
            by_console(&day, verb, vm.id);
        }
        // Each state lasts until a poll that began after it has seen it.
        let polled = polls(&day).0;
        until("it is looked at", || polls(&day).0 > polled + 1);
        day.log().contains("OpenNebula's events are not relied on")
    });
    let polled = polls(&day).0;
    until("it is polled as without", || polls(&day).0 > polled + 10);
    // It makes good what it left out: then it is.
    day.oned.bus_faults(BusFaults::default());
    if verbs.next() == Some("resume") {
        for (_, vm) in day.ours() {
            by_console(&day, "resume", vm.id);
        }
    }
    until("they run", || day.running() == 4);
    until("it is relied on again", || {
        let polled = polls(&day).0;
        for (_, vm) in day.ours() {
            day.oned.lie(vm.id, State::Active(Lcm::Running));
        }
        std::thread::sleep(Duration::from_secs(1));
        polls(&day).0 <= polled + 2
    });
}

#[test]
fn a_bus_that_goes_away_and_comes_back_loses_nothing() {
    let mut day = up(2);
    day.oned.close_bus();
    day.until_logged("OpenNebula's events are not heard");
    let vms: Vec<u32> = day.ours().iter().map(|(_, vm)| vm.id).collect();
    // While nobody hears it.
    by_console(&day, "suspend", vms[0]);
    until("it sleeps", || {
        day.oned.vm(vms[0]).unwrap().state == State::Suspended
    });
    day.oned.open_bus().unwrap();
    day.until_logged("is saved to a disk and does not run");
    until("the bus is connected", || day.oned.is_heard());
    by_console(&day, "resume", vms[0]);
    day.until_logged("goes on");
    let polled = polls(&day).0;
    by_console(&day, "suspend", vms[1]);
    day.until_logged("is saved to a disk and does not run: its job stands still subject=vm n1.1");
    assert_eq!(polls(&day).0, polled, "it is heard again");
}

#[test]
fn a_bus_that_cannot_be_reached_is_told_once_and_does_no_harm() {
    let mut day = Day::with(1, |_| (), "");
    day.set("events", "\"tcp://127.0.0.1:1\"");
    day.up();
    day.until_logged("OpenNebula's events are not heard at 127.0.0.1:1");
    let vm = day.vm();
    day.oned.die(vm);
    day.until_told("state=DOWN");
    until("it is removed", || day.oned.vm(vm).unwrap().state == State::Done);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(day.log().matches("OpenNebula's events are not heard").count(), 1);
}

#[test]
fn messages_that_come_late_or_twice_do_no_harm() {
    let mut day = Day::told(3, |_| ());
    day.set("events_poll", "1");
    day.oned.bus_faults(BusFaults {
        delay: Duration::from_millis(300),
        twice: true,
        ..BusFaults::default()
    });
    day.start();
    until("the bus is connected", || day.oned.is_heard());
    for _ in 0..2 {
        day.resume("n[0-2]");
        day.until_running(3);
        day.all_nodes_are("allocated+cloud");
        rounds();
        day.site.order(IntentKind::Suspend, "n[0-2]");
        day.suspend("n[0-2]");
        day.until_none();
        day.all_nodes_are("idle+cloud+powered_down");
    }
    let log = day.log();
    assert!(!log.contains("died while"), "{log}");
    day.no_node_has_two();
}
