//! VMs and their security groups.

use super::fake::{ME, address};
use super::*;
use crate::secgroup::{Whose, template};
use crate::settings::Fence;
use crate::state::LcmState;
use thiao_core::view::JobOwner;

/// A provider that fences.
fn fencing(fake: &Arc<Fake>) -> Inner<Arc<Fake>> {
    let settings = Settings {
        fence: Some(Fence {
            allow: Vec::new(),
            any_port: (32_768, 60_999),
        }),
        ..settings()
    };
    Inner::new(settings, fake.clone())
}

fn of_job(job: u32, leader: u32) -> VmSpec {
    VmSpec {
        job: Some(JobId(job)),
        owner: Some(JobOwner {
            uid: 1000,
            leader: JobId(leader),
        }),
        ..spec()
    }
}

fn make(provider: &Inner<Arc<Fake>>, n: u32, spec: &VmSpec) -> Result<VmId, Error> {
    provider.create(&tag(n), &host(), spec, false)
}

/// The next observation looks at the groups, whatever time it is.
fn tend(provider: &Inner<Arc<Fake>>) {
    provider.tend_groups(Instant::now() + Duration::from_secs(3600));
}

#[test]
fn a_job_vm_has_its_group_before_it_is_released() {
    let fake = Arc::new(Fake::default());
    let provider = fencing(&fake);
    provider.observe().unwrap();
    fake.calls();
    make(&provider, 0, &of_job(42, 42)).unwrap();
    assert_eq!(
        fake.calls(),
        [
            "wires",
            "make_secgroup thiao-prod-job-42",
            "templates",
            "networks",
            "instantiate 5 prod-fg0-1",
            "wired 0",
            "update_secgroup 100",
            "attach_secgroup 0 100",
            "detach_secgroup 0 0",
            "deploy 0 1"
        ]
    );
    make(&provider, 1, &of_job(42, 42)).unwrap();
    make(&provider, 2, &of_job(43, 43)).unwrap();
    // A part of a heterogeneous job is of its leader's group.
    make(&provider, 3, &of_job(44, 43)).unwrap();
    let (groups, of) = fake.in_groups();
    assert_eq!(groups, [100, 101]);
    assert_eq!(
        of,
        BTreeMap::from([(0, vec![100]), (1, vec![100]), (2, vec![101]), (3, vec![101])])
    );
    let inbound = |first: u32| format!("{}+2", address(first));
    assert!(fake.let_in(100).contains(&inbound(0)) && !fake.let_in(100).contains(&inbound(2)));
    assert!(fake.let_in(101).contains(&inbound(2)) && !fake.let_in(101).contains(&inbound(0)));
    // slurmctld's machine reaches all of them.
    assert!(fake.let_in(101).contains(&"10.0.0.1+1".to_owned()));
}

#[test]
fn vms_of_power_saving_mode_share_a_group_that_is_written_once() {
    let fake = Arc::new(Fake::default());
    let provider = fencing(&fake);
    for n in 0..3 {
        make(&provider, n, &spec()).unwrap();
    }
    let calls = fake.calls();
    let count = |name: &str| calls.iter().filter(|call| call.starts_with(name)).count();
    assert_eq!(
        (count("make_secgroup"), count("update_secgroup")),
        (1, 1),
        "{calls:?}"
    );
    assert_eq!(
        fake.in_groups().1,
        BTreeMap::from([(0, vec![100]), (1, vec![100]), (2, vec![100])])
    );
    // The addresses of their network, whoever has them.
    assert!(fake.let_in(100).contains(&format!("{}+100", address(0))));
}

#[test]
fn without_a_group_no_vm_is_made_and_without_a_fence_nobody_asks() {
    let fake = Arc::new(Fake::default());
    let provider = fencing(&fake);
    fake.fault(
        "make_secgroup",
        Fault::Refuse(Class::Authorization, "Not authorized to perform CREATE SECGROUP"),
    );
    let error = make(&provider, 0, &of_job(42, 42)).unwrap_err();
    assert_eq!(error.class, Class::Authorization);
    assert!(
        error.text.contains("CREATE SECGROUP") && error.text.contains("fence = false"),
        "{error}"
    );
    assert_eq!(fake.alive(), [0; 0]);
    let open = super::provider(&fake);
    fake.calls();
    make(&open, 0, &of_job(42, 42)).unwrap();
    open.tend_groups(Instant::now() + Duration::from_secs(3600));
    let calls = fake.calls();
    assert!(
        !calls
            .iter()
            .any(|call| call.contains("secgroup") || call.contains("wire")),
        "{calls:?}"
    );
}

#[test]
fn a_vm_that_cannot_be_put_into_its_group_stays_held() {
    for call in ["wired", "update_secgroup", "attach_secgroup", "detach_secgroup"] {
        let fake = Arc::new(Fake::default());
        let provider = fencing(&fake);
        fake.fault(call, Fault::Refuse(Class::Busy, "not now"));
        assert!(make(&provider, 0, &of_job(42, 42)).is_err(), "{call}");
        assert_eq!(fake.state(0), VmState::Hold, "{call}");
        // The next try goes on, with the same VM and the same group.
        provider.create(&tag(0), &host(), &of_job(42, 42), true).unwrap();
        assert_eq!(
            fake.in_groups(),
            (vec![100], BTreeMap::from([(0, vec![100])])),
            "{call}"
        );
        assert_eq!(fake.state(0), VmState::Active(LcmState::Prolog), "{call}");
        assert!(fake.let_in(100).contains(&format!("{}+1", address(0))), "{call}");
    }
}

#[test]
fn answers_that_are_lost_cost_no_second_group() {
    for call in [
        "make_secgroup",
        "update_secgroup",
        "attach_secgroup",
        "detach_secgroup",
    ] {
        let fake = Arc::new(Fake::default());
        let provider = fencing(&fake);
        fake.fault(call, Fault::LoseAnswer);
        let first = make(&provider, 0, &of_job(42, 42));
        if first.is_err() {
            provider.create(&tag(0), &host(), &of_job(42, 42), true).unwrap();
        }
        assert_eq!(
            fake.in_groups(),
            (vec![100], BTreeMap::from([(0, vec![100])])),
            "{call}"
        );
    }
}

#[test]
fn a_controller_that_starts_anew_finds_the_group_with_its_vms() {
    let fake = Arc::new(Fake::default());
    make(&fencing(&fake), 0, &of_job(42, 42)).unwrap();
    let provider = fencing(&fake);
    make(&provider, 1, &of_job(42, 42)).unwrap();
    assert_eq!(fake.in_groups().0, [100]);
    assert!(fake.let_in(100).contains(&format!("{}+2", address(0))));
    // Of power-saving mode nothing has to be written again.
    make(&provider, 2, &spec()).unwrap();
    let next = fencing(&fake);
    fake.calls();
    make(&next, 3, &spec()).unwrap();
    let calls = fake.calls();
    assert!(
        !calls.iter().any(|call| call.starts_with("update_secgroup")),
        "{calls:?}"
    );
}

#[test]
fn groups_that_no_vm_has_go_and_those_of_others_stay() {
    let fake = Arc::new(Fake::default());
    let ours = |cluster: &str, job| {
        let mut body = template(
            &ClusterName::new(cluster).unwrap(),
            Whose::Job(JobId(job)),
            &[],
            false,
        );
        body.set("NAME", format!("thiao-{cluster}-job-{job}"));
        body
    };
    // Left by a crash; another cluster's; somebody else's; one of the same name, without our tags.
    fake.put_group(200, ME, ours("prod", 1));
    fake.put_group(201, ME, ours("test", 2));
    fake.put_group(202, 9, ours("prod", 3));
    let mut named = crate::syntax::Template::default();
    named.set("NAME", "thiao-prod-job-4");
    fake.put_group(203, ME, named);
    let provider = fencing(&fake);
    make(&provider, 0, &of_job(42, 42)).unwrap();
    tend(&provider);
    assert_eq!(fake.in_groups().0, [201, 202, 203, 204]);
    fake.set(0, VmState::Done);
    tend(&provider);
    assert_eq!(fake.in_groups().0, [201, 202, 203]);
    // The job may have VMs again.
    make(&provider, 1, &of_job(42, 42)).unwrap();
    assert_eq!(fake.in_groups().1, BTreeMap::from([(1, vec![204])]));
    // And one whose name somebody else's group has gets none.
    let error = make(&provider, 2, &of_job(4, 4)).unwrap_err();
    assert!(error.text.contains("already taken"), "{error}");
}

#[test]
fn a_vm_that_booted_while_its_group_grew_is_told_later() {
    let fake = Arc::new(Fake::default());
    let provider = fencing(&fake);
    make(&provider, 0, &of_job(42, 42)).unwrap();
    fake.set(0, VmState::Active(LcmState::Boot));
    make(&provider, 1, &of_job(42, 42)).unwrap();
    assert_eq!(fake.inside().untold.len(), 1);
    fake.set(0, VmState::Active(LcmState::Running));
    tend(&provider);
    assert_eq!(fake.inside().untold.len(), 0);
}

#[test]
fn a_group_that_somebody_removed_is_made_anew() {
    let fake = Arc::new(Fake::default());
    let provider = fencing(&fake);
    make(&provider, 0, &spec()).unwrap();
    fake.set(0, VmState::Done);
    fake.inside().groups.clear();
    tend(&provider);
    make(&provider, 1, &spec()).unwrap();
    let (groups, of) = fake.in_groups();
    assert_eq!((groups, of), (vec![100], BTreeMap::from([(1, vec![100])])));
}

#[test]
fn a_vm_that_runs_needs_no_right_to_make_groups() {
    let fake = Arc::new(Fake::default());
    make(&fencing(&fake), 0, &of_job(42, 42)).unwrap();
    fake.set(0, VmState::Active(LcmState::Running));
    let provider = fencing(&fake);
    fake.fault("make_secgroup", Fault::Refuse(Class::Authorization, "no more"));
    fake.calls();
    let made = provider.create(&tag(0), &host(), &of_job(42, 42), true);
    assert_eq!(made.unwrap(), id(0));
    assert!(
        !fake
            .calls()
            .iter()
            .any(|call| call.contains("secgroup") && call != "secgroups")
    );
}

#[test]
fn a_card_whose_network_the_scheduler_chooses_is_not_let_go() {
    let fake = Arc::new(Fake::default());
    fake.inside().unchosen = true;
    let error = make(&fencing(&fake), 0, &spec()).unwrap_err();
    assert_eq!(error.class, Class::BadTemplate);
    assert_eq!(fake.state(0), VmState::Hold);
}
