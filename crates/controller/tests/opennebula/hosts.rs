//! People who do things to hosts.

use thiao_api::client::Client;
use thiao_oned::settings::Settings;
use thiao_oned::{Cluster, HostState, Lcm, State, StoreSetup};
use thiao_testkit::day::Day;
use thiao_testkit::site::rounds;
use thiao_testkit::wait::until;

/// What `onehost enable`, `disable` and `offline` do.
fn set(day: &Day, host: u32, status: u32) {
    let [host, status] = [host, status].map(|number| format!("<int>{number}</int>"));
    day.by_hand("one.host.status", &[&host, &status]);
}

const ENABLE: u32 = 0;
const DISABLE: u32 = 1;
const OFFLINE: u32 = 2;

/// What `onehost flush` does: it disables the host, and marks for rescheduling what is there (`host.rb` of 7.4).
fn flush(day: &Day, host: u32) {
    set(day, host, DISABLE);
    for vm in day.oned.vms().iter().filter(|vm| vm.host == Some(host)) {
        day.by_hand(
            "one.vm.action",
            &["<string>resched</string>", &format!("<int>{}</int>", vm.id)],
        );
    }
}

/// Waits until `thiao hosts` says of this host why it takes no VMs; empty: that it takes some.
#[track_caller]
fn until_shown(day: &Day, host: &str, why: &str) {
    until(&format!("thiao hosts shows {host} {why}"), || {
        let hosts = Client::new(&day.site.path("state")).hosts().unwrap_or_default();
        hosts.iter().any(|shown| {
            let says = shown.closed.as_deref().unwrap_or_default();
            shown.name == host
                && shown.usable == why.is_empty()
                && says.contains(why)
                && says.is_empty() == why.is_empty()
        })
    });
}

/// Its one VM goes on where it is, the next one goes to the other host, and each is told once.
fn closed_and_opened_again(close: impl Fn(&Day, u32), word: &str) {
    let mut day = Day::new(1);
    day.up();
    let (_, vm) = day.ours().remove(0);
    let here = vm.host.unwrap();
    let (name, other) = (format!("h{here}"), u32::from(here == 0));
    close(&day, here);
    day.until_logged(word);
    until_shown(&day, &name, word);
    for _ in 0..4 {
        rounds();
    }
    assert_eq!(
        (day.running(), day.site.told()),
        (1, String::new()),
        "what is there goes on"
    );
    assert_eq!(day.log().matches("takes no new VMs").count(), 1, "{}", day.log());
    day.wakes_again("n0");
    assert_eq!(day.ours()[0].1.host, Some(other));
    day.oned.set_host(here, HostState::Monitored);
    day.until_logged("takes new VMs again");
    until_shown(&day, &name, "");
    day.wakes_again("n0");
}

#[test]
fn a_disabled_host_keeps_its_vms_and_gets_no_more() {
    closed_and_opened_again(|day, host| set(day, host, DISABLE), "DISABLED");
}

/// It has no capacity either, by OpenNebula's word.
#[test]
fn an_offline_host_keeps_its_vms_and_gets_no_more() {
    closed_and_opened_again(|day, host| set(day, host, OFFLINE), "OFFLINE");
}

#[test]
fn a_host_that_cannot_be_monitored_gets_no_more_vms() {
    closed_and_opened_again(|day, host| day.oned.set_host(host, HostState::Error), "ERROR");
}

/// With every host closed nodes wait, are given up, and come back with the first host.
#[test]
fn nodes_come_back_when_a_host_is_enabled_again() {
    let mut day = Day::with(1, |_| (), "capacity_patience = 1");
    set(&day, 0, DISABLE);
    set(&day, 1, OFFLINE);
    day.resume("n0");
    day.start();
    day.until_logged("takes no new VMs: somebody has set it DISABLED");
    day.until_told("state=DOWN");
    day.until_told("no host takes VMs now");
    set(&day, 1, ENABLE);
    day.returns("n0");
    assert_eq!(day.ours()[0].1.host, Some(1));
}

/// OpenNebula's scheduler saves each VM, and restores it elsewhere: its job stands still meanwhile.
#[test]
fn a_flushed_host_is_left_by_its_vms_with_their_jobs() {
    let scheduled = |settings: &mut Settings| settings.scheduler = Some(std::time::Duration::from_millis(50));
    let mut day = Day::with(2, scheduled, "");
    day.up();
    let here = day.ours()[0].1.host.unwrap();
    let other = u32::from(here == 0);
    flush(&day, here);
    until("all are on the other host", || {
        let on = |vm: &thiao_oned::VmView| vm.host == Some(other) && vm.state == State::Active(Lcm::Running);
        day.ours().iter().filter(|(_, vm)| on(vm)).count() == 2
    });
    day.until_logged(&format!("moved from host h{here} to host h{other}"));
    until_shown(&day, &format!("h{here}"), "DISABLED");
    assert_eq!(day.site.told(), "", "their nodes and jobs stay as they are");
    assert_eq!(day.oned.promised(here).0, 0);
    day.wakes_again("n0");
}

/// Where there is no other host it stays, and its node with it.
#[test]
fn a_vm_that_cannot_leave_a_flushed_host_goes_on_there() {
    let one = |settings: &mut Settings| {
        settings.hosts.truncate(1);
        settings.scheduler = Some(std::time::Duration::from_millis(50));
    };
    let mut day = Day::with(1, one, "");
    day.up();
    flush(&day, 0);
    day.until_logged("takes no new VMs: somebody has set it DISABLED");
    for _ in 0..4 {
        rounds();
    }
    assert_eq!((day.running(), day.site.told()), (1, String::new()));
    set(&day, 0, ENABLE);
    day.until_logged("takes new VMs again");
    day.wakes_again("n0");
}

#[test]
fn a_host_is_not_deleted_under_a_vm_and_told_when_it_is_gone() {
    let mut day = Day::new(1);
    day.up();
    let here = day.ours()[0].1.host.unwrap();
    let said = day.refused("one.host.delete", &[&format!("<int>{here}</int>")]);
    assert!(said.contains("Can not remove a host with running VMs"), "{said}");
    let other = u32::from(here == 0);
    day.by_hand("one.host.delete", &[&format!("<int>{other}</int>")]);
    day.until_logged("the provider shows it no more");
    assert_eq!(day.running(), 1);
    day.wakes_again("n0");
    assert_eq!(day.ours()[0].1.host, Some(here));
}

/// OpenNebula takes a deploy to any host: in another cluster the VM would be without its network.
#[test]
fn hosts_of_a_cluster_without_the_network_get_no_vms() {
    let away = |settings: &mut Settings| {
        settings.hosts[1].cluster = Cluster {
            id: 100,
            name: "west".into(),
        };
        settings.stores.push(StoreSetup {
            id: 101,
            name: "west".into(),
            clusters: vec![100],
            free_mb: 1_000,
        });
        // Where most is free, but for that.
        settings.hosts[0].memory_mb /= 2;
    };
    let mut day = Day::with(3, away, "");
    day.up();
    assert_eq!(day.running(), 3);
    assert!(day.ours().iter().all(|(_, vm)| vm.host == Some(0)));
    let hosts = Client::new(&day.site.path("state")).hosts().unwrap();
    let why = |name: &str| {
        hosts
            .iter()
            .find(|host| host.name == name)
            .unwrap()
            .not_for
            .get("n")
            .cloned()
    };
    assert_eq!(why("h0"), None);
    assert_eq!(
        why("h1").as_deref(),
        Some("cluster west does not have the template's network cluster")
    );
}
