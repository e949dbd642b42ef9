//! oned is away, refuses, or answers badly.

use thiao_api::client::Client;
use thiao_oned::{Fault, HostState, Rule};
use thiao_testkit::day::Day;
use thiao_testkit::site::rounds;
use thiao_testkit::wait::until;

const OBSERVATIONS: [&str; 3] = ["one.vmpool.info", "one.hostpool.info", "one.vmpool.infoset"];

#[test]
fn oned_is_down_at_the_start_and_comes_back() {
    let mut day = Day::new(2);
    day.oned.pause();
    day.resume("n[0-1]");
    day.start();
    day.until_logged("cannot be read");
    day.oned.resume().unwrap();
    day.until_running(2);
}

#[test]
fn oned_is_down_in_the_middle_and_no_job_loses_its_vm() {
    let mut day = Day::new(2);
    day.up();
    day.oned.pause();
    day.until_logged("cannot be read");
    rounds();
    rounds();
    day.oned.resume().unwrap();
    day.until_logged("can be read again");
    rounds();
    assert_eq!(day.running(), 2);
    assert_eq!(day.site.told(), "", "Slurm had nothing to hear");
    day.suspend("n[0-1]");
    day.until_none();
}

#[test]
fn lost_answers_make_nothing_twice() {
    let mut day = Day::new(4);
    for (method, times) in [
        ("one.template.instantiate", 3),
        ("one.vm.deploy", 3),
        ("one.vmpool.info", 2),
        ("one.vm.action", 3),
    ] {
        day.oned.fault(Rule {
            method: Some(method.into()),
            fault: Fault::LoseAnswer,
            times: Some(times),
        });
    }
    day.resume("n[0-3]");
    day.start();
    day.until_running(4);
    until("nothing is left over", || day.ours().len() == 4);
    assert_eq!(day.oned.calls("one.template.instantiate"), 4);
    day.all_nodes_are("allocated+cloud");
    rounds();
    day.suspend("n[0-3]");
    day.until_none();
}

#[test]
fn what_a_quota_refuses_is_told_and_the_rest_runs() {
    let mut day = Day::new(4);
    day.oned.set_quota("slurm", 2, -1, -1);
    day.resume("n[0-3]");
    day.start();
    day.until_running(2);
    day.until_told("state=DOWN");
    until("two nodes are given up", || {
        day.site.told().matches("state=DOWN").count() >= 1 && day.site.told().to_lowercase().contains("quota")
    });
    assert_eq!(day.running(), 2);
    until("nothing half made is left", || day.ours().len() == 2);
}

#[test]
fn a_disabled_host_gets_no_vms() {
    let mut day = Day::new(4);
    day.oned.set_host(0, HostState::Disabled);
    day.resume("n[0-3]");
    day.start();
    day.until_running(4);
    assert!(day.ours().iter().all(|(_, vm)| vm.host == Some(1)));
}

#[test]
fn full_hosts_are_told_with_what_is_free() {
    let small = |settings: &mut thiao_oned::Settings| {
        settings.hosts.truncate(1);
        settings.hosts[0].memory_mb = 300;
    };
    let mut day = Day::with(2, small, "capacity_patience = 0.5");
    day.resume("n[0-1]");
    day.start();
    day.until_told("state=DOWN");
    day.until_told("has capacity for 276 MiB");
    day.until_running(1);
}

#[test]
fn wrong_credentials_are_told_and_right_ones_need_no_restart() {
    let mut day = Day::new(1);
    day.write_auth("slurm:wrong");
    day.resume("n0");
    day.start();
    day.until_logged("credentials");
    assert!(!day.log().contains("slurm:wrong"), "secrets are not logged");
    day.write_auth("slurm:secret");
    day.until_running(1);
}

#[test]
fn a_deleted_template_is_told_and_another_one_taken_when_it_is_there() {
    let mut day = Day::new(2);
    day.up();
    day.suspend("n1");
    until("n1 is gone", || day.ours().len() == 1);
    day.by_hand("one.template.delete", &["<int>0</int>"]);
    day.resume("n1");
    day.until_told("state=DOWN");
    day.until_told("template");
    assert_eq!(day.running(), 1, "the other one is left alone");
}

#[test]
fn answers_that_are_cut_huge_or_hostile_end_nothing() {
    let bad = [
        Fault::CutAnswer,
        Fault::Huge(64 << 20),
        Fault::EntityBomb,
        Fault::Page(502, "text/html", "<html>Bad gateway</html>".into()),
        Fault::Page(200, "text/xml", "<methodResponse>".into()),
        Fault::Drop,
    ];
    let mut day = Day::new(2);
    day.up();
    for fault in bad {
        for method in OBSERVATIONS {
            day.oned.fault(Rule::always(method, fault.clone()));
        }
        let observations = |day: &Day| day.oned.calls("one.vmpool.info");
        let before = observations(&day);
        until("it has observed in vain", || observations(&day) > before + 2);
        rounds();
        day.oned.clear_faults();
        let before = observations(&day);
        until("it has observed again", || observations(&day) > before + 2);
        assert_eq!(day.running(), 2, "{fault:?}");
    }
    assert_eq!(day.site.told(), "");
    day.suspend("n[0-1]");
    day.until_none();
}

/// oned's answer to an observation, with another number in each element of that name.
fn lied(day: &Day, method: &str, params: &[&str], element: &str, number: &str) -> String {
    let answer = day.by_service_user(method, params);
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let (opened, closed) = (format!("&lt;{element}&gt;"), format!("&lt;/{element}&gt;"));
    let mut pieces = body.split(&opened);
    let mut text = pieces.next().unwrap().to_owned();
    let mut lies = 0;
    for piece in pieces {
        let (_, rest) = piece.split_once(&closed).unwrap();
        text += &format!("{opened}{number}{closed}{rest}");
        lies += 1;
    }
    assert!(lies > 0, "no {element} in {body}");
    text
}

#[test]
fn sizes_that_no_machine_has_stop_nothing() {
    let one_host = |settings: &mut thiao_oned::Settings| settings.hosts.truncate(1);
    let mut day = Day::with(3, one_host, "");
    day.resume("n[0-1]");
    day.start();
    day.until_running(2);
    day.all_nodes_are("allocated+cloud");
    let client = Client::new(&day.site.path("state"));
    let all = ["<int>-3</int>", "<int>-1</int>", "<int>-1</int>", "<int>-1</int>"];
    for (method, params, element, number) in [
        ("one.vmpool.info", &all[..], "MEMORY", "18446744073709551615"),
        ("one.vmpool.info", &all[..], "CPU", "1e300"),
        ("one.hostpool.info", &[], "MAX_MEM", "1e300"),
        ("one.hostpool.info", &[], "MEM_USAGE", "18446744073709551615"),
        ("one.hostpool.info", &[], "CPU_USAGE", "inf"),
    ] {
        let page = lied(&day, method, params, element, number);
        day.oned
            .fault(Rule::always(method, Fault::Page(200, "text/xml", page)));
        let observations = || day.oned.calls("one.hostpool.info");
        let before = observations();
        until("it has observed", || observations() > before + 2);
        rounds();
        let (status, hosts) = (client.status().unwrap(), client.hosts().unwrap());
        assert_eq!(status.vms.error, None, "{element}: the others can be read");
        assert_eq!(hosts.len(), 1, "{element}");
        day.oned.clear_faults();
        assert_eq!(day.running(), 2, "{element}");
    }
    assert!(!day.log().contains("panicked"), "{}", day.log());
    day.suspend("n[0-1]");
    day.until_none();
}
