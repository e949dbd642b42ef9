//! What the bus tells, early, late, twice, not at all, and made up.

use super::*;
use crate::events::zmtp::Message;
use crate::provider::news::News as Notes;
use crate::state::LcmState;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

const RUNNING: VmState = active(LcmState::Running);

const fn active(lcm: LcmState) -> VmState {
    VmState::Active(lcm)
}

/// The tags of the first VM of this node.
fn tags(n: u32) -> [(&'static str, String); 3] {
    [
        ("THIAO_CLUSTER", "prod".to_owned()),
        ("THIAO_NODE", format!("fg{n}")),
        ("THIAO_GENERATION", "1".to_owned()),
    ]
}

/// VMs 1, 2, ... of nodes fg1, fg2, ... in that state on host 1, and a provider that has seen them and hears the bus.
fn heard(state: VmState, vms: u32) -> (Arc<Fake>, Inner<Arc<Fake>>) {
    let fake = Arc::new(Fake::default());
    for n in 1..=vms {
        let tags = tags(n);
        let tags = [0, 1, 2].map(|at| (tags[at].0, tags[at].1.as_str()));
        let host = (state != VmState::Hold).then_some(1);
        fake.put(
            n,
            fake::Vm {
                host,
                ..vm(state, &tags)
            },
        );
    }
    let provider = provider(&fake);
    provider.connected();
    whole(&provider);
    provider.bus().told();
    provider.me().expect("our user's id, which is asked for once");
    assert_eq!(news(&provider), []);
    fake.calls();
    (fake, provider)
}

/// A message as OpenNebula's hook manager makes it.
fn message(id: u32, state: VmState, host: Option<u32>, tags: &[(&str, String)]) -> Message {
    let (number, lcm, me) = (state.numbers().0, state.numbers().1, fake::ME);
    let host = host.map_or(String::new(), |host| {
        format!("<HISTORY><OID>{id}</OID><SEQ>0</SEQ><HOSTNAME>h{host}</HOSTNAME><HID>{host}</HID></HISTORY>")
    });
    let tags: String = tags
        .iter()
        .map(|(name, text)| format!("<{name}>{text}</{name}>"))
        .collect();
    let xml = format!(
        "<HOOK_MESSAGE><HOOK_TYPE>STATE</HOOK_TYPE><HOOK_OBJECT>VM</HOOK_OBJECT><RESOURCE_ID>{id}</RESOURCE_ID><VM>\
         <ID>{id}</ID><UID>{me}</UID><UNAME>slurm</UNAME><STATE>{number}</STATE><LCM_STATE>{lcm}</LCM_STATE><TEMPLATE><CPU>1</CPU><MEMORY>1088</MEMORY>\
         </TEMPLATE><USER_TEMPLATE>{tags}</USER_TEMPLATE><HISTORY_RECORDS>{host}</HISTORY_RECORDS></VM></HOOK_MESSAGE>"
    );
    Message {
        topic: format!("EVENT STATE VM/A/B/{id} ").into_bytes(),
        body: Some(STANDARD.encode(xml).into_bytes()),
    }
}

/// A message about the VM of that node, as it is now.
fn told(fake: &Fake, id: u32) -> Message {
    let host = fake.inside().vms[&id].host;
    message(id, fake.state(id), host, &tags(id))
}

/// What an observation has as news: ids, states, and whether oned was asked.
fn news(provider: &Inner<Arc<Fake>>) -> Vec<(String, Seen, bool)> {
    match provider.observe().expect("an observation") {
        Observed::News(news) => {
            let of = |news: News| (news.vm.id.to_string(), news.vm.state, news.asked.is_some());
            news.into_iter().map(of).collect()
        }
        Observed::Whole(view) => panic!("all was asked for: {view:?}"),
    }
}

/// Until oned may be asked.
fn a_moment() {
    std::thread::sleep(Duration::from_millis(250));
}

#[test]
fn a_vm_on_its_way_up_is_followed_without_a_call() {
    let (fake, provider) = heard(RUNNING, 0);
    provider.create(&tag(1), &host(), &spec(), false).unwrap();
    let made = fake.calls().len();
    for state in [Seen::Pending, Seen::Pending, Seen::Booting] {
        let id = *fake.alive().first().unwrap();
        fake.inside().vms.get_mut(&id).unwrap().host = Some(1);
        provider.hear(&message(id, fake.state(id), Some(1), &tags(1)));
        assert_eq!(news(&provider), [(id.to_string(), state, false)]);
        fake.pass();
    }
    a_moment();
    news(&provider);
    assert_eq!(fake.calls(), Vec::<String>::new(), "after {made} for making it");
}

#[test]
fn what_comes_in_another_order_costs_nothing() {
    let (fake, provider) = heard(VmState::Hold, 1);
    fake.inside().vms.get_mut(&1).unwrap().host = Some(1);
    for state in [
        LcmState::Prolog,
        LcmState::Boot,
        LcmState::Init,
        LcmState::Running,
        LcmState::Boot,
    ] {
        provider.hear(&message(1, active(state), Some(1), &tags(1)));
    }
    assert_eq!(provider.memory().ours[&1].row.state, RUNNING);
    a_moment();
    news(&provider);
    assert_eq!(fake.calls(), Vec::<String>::new());
}

#[test]
fn what_else_happens_to_vms_is_asked_for_at_once_and_together() {
    let (fake, provider) = heard(RUNNING, 3);
    for (id, state) in [(1, VmState::Poweroff), (3, VmState::Suspended)] {
        fake.set(id, state);
        provider.hear(&told(&fake, id));
    }
    a_moment();
    let news = news(&provider);
    assert_eq!(fake.calls(), ["vms_of 1,3"]);
    assert!(
        matches!(&news[..], [(_, Seen::Dead(_), true), (_, Seen::Saved, true)]),
        "{news:?}"
    );
}

#[test]
fn an_end_that_was_made_up_is_none() {
    for state in [
        VmState::Done,
        VmState::Poweroff,
        active(LcmState::BootFailure),
        VmState::Unknown(77),
    ] {
        let (fake, provider) = heard(RUNNING, 1);
        provider.hear(&message(1, state, Some(1), &tags(1)));
        assert_eq!(news(&provider), [], "{state}");
        a_moment();
        assert_eq!(
            news(&provider),
            [("1".to_owned(), Seen::Booting, true)],
            "{state}"
        );
        assert_eq!(fake.calls(), ["vms_of 1"]);
    }
}

#[test]
fn what_does_not_fit_is_asked_for() {
    let odd = [
        message(1, RUNNING, Some(2), &tags(1)),
        message(1, RUNNING, Some(9), &tags(1)),
        message(1, RUNNING, None, &tags(1)),
        message(1, RUNNING, Some(1), &tags(2)),
        message(1, RUNNING, Some(1), &[]),
        message(1, active(LcmState::Prolog), Some(1), &tags(1)),
        Message {
            body: None,
            ..message(1, RUNNING, Some(1), &tags(1))
        },
        Message {
            body: Some(b"<HOOK_MESSAGE>".to_vec()),
            ..message(1, RUNNING, Some(1), &tags(1))
        },
    ];
    for message in odd {
        let (fake, provider) = heard(active(LcmState::Boot), 1);
        provider.hear(&message);
        a_moment();
        news(&provider);
        assert_eq!(fake.calls(), ["vms_of 1"], "{message:?}");
    }
}

#[test]
fn others_vms_cost_nothing() {
    let (fake, provider) = heard(RUNNING, 1);
    let mut others = tags(1);
    others[0].1 = "other".to_owned();
    provider.hear(&message(50, VmState::Done, Some(1), &[]));
    provider.hear(&message(51, VmState::Poweroff, Some(1), &others));
    a_moment();
    assert_eq!(news(&provider), []);
    assert_eq!(fake.calls(), Vec::<String>::new());
}

/// Whoever may make VMs may write our tags on them.
#[test]
fn a_vm_of_another_user_is_not_ours_whatever_its_tags_say() {
    let (fake, provider) = heard(RUNNING, 1);
    let tags = tags(2);
    let tags = [0, 1, 2].map(|at| (tags[at].0, tags[at].1.as_str()));
    fake.put(
        2,
        fake::Vm {
            host: Some(1),
            ..vm(RUNNING, &tags)
        },
    );
    fake.inside().given.push(2);
    for _ in 0..2 {
        provider.hear(&told(&fake, 2));
        a_moment();
        let shown: Vec<String> = match provider.observe().expect("an observation") {
            Observed::News(news) => news.into_iter().map(|news| news.vm.id.to_string()).collect(),
            Observed::Whole(view) => view.vms.iter().map(|vm| vm.id.to_string()).collect(),
        };
        assert!(!shown.contains(&"2".to_owned()), "{shown:?}");
    }
    let calls = fake.calls();
    assert!(
        calls.iter().any(|call| call.starts_with("vms_of")),
        "oned was asked for it: {calls:?}"
    );
}

#[test]
fn the_way_of_an_ordered_end_is_not_asked_for_and_its_end_is() {
    let (fake, provider) = heard(RUNNING, 1);
    provider.destroy(&tag(1), Some(&id(1)), false).unwrap();
    assert_eq!(fake.calls(), ["action Terminate 1"]);
    for _ in 0..2 {
        provider.hear(&told(&fake, 1));
        a_moment();
        assert_eq!(news(&provider), []);
        assert_eq!(fake.calls(), Vec::<String>::new());
        fake.pass();
    }
    // A message alone is no end: another VM of the node must not be made beside it.
    provider.hear(&told(&fake, 1));
    assert_eq!(news(&provider), []);
    a_moment();
    assert!(matches!(&news(&provider)[..], [(_, Seen::Dead(_), true)]));
    assert_eq!(fake.calls(), ["vms_of 1"]);
    assert_eq!(provider.destroy(&tag(1), Some(&id(1)), false), Ok(Ended::Gone));
    provider.hear(&message(1, VmState::Done, Some(1), &tags(1)));
    a_moment();
    assert_eq!(news(&provider), [], "it comes twice");
    assert_eq!(fake.calls(), Vec::<String>::new());
}

/// Changes do not come evenly: those that follow each other wait only where many do.
#[test]
fn few_changes_are_asked_for_at_once_and_many_keep_to_their_share() {
    let (apart, start) = (Duration::from_millis(200), Instant::now());
    let asked = |changes: u64, pause: u64| {
        let mut news = Notes::default();
        let moments = (0..changes * pause).step_by(5).map(Duration::from_millis);
        let asked = moments.filter(|at| {
            if at.as_millis() % u128::from(pause) == 0 {
                news.ask(1, true, start + *at);
            }
            !news.take_asks(apart, start + *at).is_empty()
        });
        asked.count() as u64
    };
    // Each alone, before the next one comes.
    assert_eq!(asked(5, 100), 5);
    let share = 200;
    assert!(
        (share..share + 7).contains(&asked(400, 100)),
        "{}",
        asked(400, 100)
    );
}

/// oned says so first, and stores it then.
#[test]
fn an_answer_from_before_the_message_is_asked_for_again() {
    let (fake, provider) = heard(RUNNING, 1);
    provider.hear(&message(1, VmState::Poweroff, Some(1), &tags(1)));
    a_moment();
    news(&provider);
    fake.set(1, VmState::Poweroff);
    a_moment();
    assert!(matches!(&news(&provider)[..], [(_, Seen::Dead(_), true)]));
    assert_eq!(fake.calls(), ["vms_of 1", "vms_of 1"]);
    a_moment();
    news(&provider);
    assert_eq!(fake.calls(), Vec::<String>::new());
}

/// A creation that is asked again looks for its VM: the controller must hear of all that this showed.
#[test]
fn what_somebody_else_observed_is_given_too() {
    let (fake, provider) = heard(RUNNING, 1);
    fake.set(1, VmState::Poweroff);
    provider.hear(&told(&fake, 1));
    provider.create(&tag(7), &host(), &spec(), true).unwrap();
    let view = whole(&provider);
    assert!(matches!(view.vms[0].state, Seen::Dead(_)), "{view:?}");
}

#[test]
fn an_answer_that_was_lost_calls_for_a_whole_observation() {
    let (fake, provider) = heard(RUNNING, 1);
    fake.fault("vms_of", Fault::Refuse(crate::error::Class::Network, "down"));
    fake.set(1, VmState::Poweroff);
    provider.hear(&told(&fake, 1));
    a_moment();
    assert!(provider.observe().is_err());
    let view = whole(&provider);
    assert!(matches!(view.vms[0].state, Seen::Dead(_)));
}

#[test]
fn ready_and_hosts_are_heard_of_too() {
    let (fake, provider) = heard(RUNNING, 1);
    let called = "<HOOK_MESSAGE><HOOK_TYPE>API</HOOK_TYPE><CALL>one.vm.update</CALL><CALL_INFO><RESULT>1</RESULT><PARAMETERS>\
        <PARAMETER><POSITION>1</POSITION><TYPE>IN</TYPE><VALUE>****</VALUE></PARAMETER>\
        <PARAMETER><POSITION>2</POSITION><TYPE>IN</TYPE><VALUE>1</VALUE></PARAMETER>\
        <PARAMETER><POSITION>3</POSITION><TYPE>IN</TYPE><VALUE>READY=YES & more</VALUE></PARAMETER></PARAMETERS></CALL_INFO></HOOK_MESSAGE>";
    fake.inside()
        .vms
        .get_mut(&1)
        .unwrap()
        .tags
        .insert("READY".into(), "YES".into());
    provider.hear(&Message {
        topic: b"EVENT API one.vm.update 1".to_vec(),
        body: Some(STANDARD.encode(called).into_bytes()),
    });
    a_moment();
    assert_eq!(news(&provider), [("1".to_owned(), Seen::Ready, true)]);
    provider.hear(&Message {
        topic: b"EVENT STATE HOST/DISABLED//1 ".to_vec(),
        body: None,
    });
    std::thread::sleep(Duration::from_millis(1100));
    whole(&provider);
}

#[test]
fn what_a_listing_shows_and_nobody_told_counts() {
    let (fake, provider) = heard(RUNNING, 4);
    for id in 1..=4 {
        fake.set(id, VmState::Suspended);
    }
    provider.memory().news.call_for_whole_now(Instant::now());
    whole(&provider);
    // It is on its way.
    provider.hear(&told(&fake, 4));
    assert!(provider.bus().is_heard());
    std::thread::sleep(Duration::from_millis(2100));
    provider.needs_whole();
    assert_eq!(provider.bus().hearing(), Some(Hearing::Badly(3)));
    whole(&provider);
    // Another connection begins anew.
    assert!(provider.lost("closed".into()));
    whole(&provider);
    provider.connected();
    whole(&provider);
    provider.bus().told();
    news(&provider);
}

/// What happens to VMs, and what is told of it.
#[derive(Debug, Clone)]
enum Step {
    /// A VM's state changes.
    Becomes(u32, VmState),
    /// What is true now is told of a VM.
    Told(u32),
    /// A message from nowhere.
    MadeUp(u32, VmState, u32),
    /// Somebody observes; or everything.
    Observe(bool),
    Create(u32),
    Destroy(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let states = vec![
        VmState::Hold,
        VmState::Done,
        VmState::Poweroff,
        VmState::Suspended,
        active(LcmState::Prolog),
        active(LcmState::Boot),
        RUNNING,
        active(LcmState::Shutdown),
        active(LcmState::Migrate),
        active(LcmState::BootFailure),
        VmState::Unknown(99),
    ];
    let state = prop::sample::select(states);
    prop_oneof![
        (1..4_u32, state.clone()).prop_map(|(id, state)| Step::Becomes(id, state)),
        (1..4_u32).prop_map(Step::Told),
        (0..6_u32, state, 0..3_u32).prop_map(|(id, state, host)| Step::MadeUp(id, state, host)),
        any::<bool>().prop_map(Step::Observe),
        (4..6_u32).prop_map(Step::Create),
        (1..6_u32).prop_map(Step::Destroy),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is told: only oned's own word ends anything, and in the end all is as it is.
    #[test]
    fn no_message_ends_a_vm(steps in prop::collection::vec(step(), 1..25)) {
        let (fake, provider) = heard(RUNNING, 3);
        for step in steps {
            match step {
                Step::Becomes(id, state) if fake.state(id) != VmState::Done => fake.set(id, state),
                Step::Becomes(..) => {}
                Step::Told(id) => provider.hear(&told(&fake, id)),
                Step::MadeUp(id, state, host) => {
                    provider.hear(&message(id, state, (host > 0).then_some(host), &tags(id)));
                }
                Step::Create(n) => drop(provider.create(&tag(n), &host(), &spec(), true)),
                Step::Destroy(n) => drop(provider.destroy(&tag(n), None, true)),
                Step::Observe(all) => {
                    if all {
                        provider.memory().news.call_for_whole_now(Instant::now());
                    }
                    // Whatever waits to be asked for is due.
                    provider.memory().news.hasten(Instant::now());
                    let Ok(Observed::News(news)) = provider.observe() else { continue };
                    for News { vm, asked } in news {
                        match asked {
                            // PROLOG and BOOT are shown as pending, RUNNING as booting.
                            None => prop_assert!(
                                matches!(vm.state, Seen::Pending | Seen::Booting | Seen::Ready),
                                "{:?}",
                                vm
                            ),
                            Some(_) => prop_assert!(fake.inside().vms.contains_key(&vm.id.as_str().parse().unwrap())),
                        }
                        if let Seen::Dead(_) = vm.state {
                            prop_assert!(asked.is_some());
                        }
                    }
                }
            }
        }
        provider.memory().news.call_for_whole_now(Instant::now());
        let view = whole(&provider);
        let after = super::provider(&fake);
        let truth = whole(&after);
        let alive = |view: &ProviderView| {
            let alive = view.vms.iter().filter(|vm| !matches!(vm.state, Seen::Dead(_)));
            alive.map(|vm| (vm.id.clone(), vm.state.clone(), vm.host.clone())).collect::<Vec<_>>()
        };
        prop_assert_eq!(alive(&view), alive(&truth));
    }
}
