use super::*;
use crate::state::{Kind, LcmState};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Create(u32),
    Destroy {
        n: u32,
        named: bool,
        hard: bool,
    },
    Observe,
    Pass,
    /// The controller dies; the next one knows nothing.
    Die,
    Fault(&'static str, Fault),
    /// A person ends one of our VMs.
    End(u32),
}

const CALLS: [&str; 7] = [
    "vms",
    "hosts",
    "vms_of",
    "instantiate",
    "deploy",
    "action",
    "recover",
];

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => Just(Fault::LoseAnswer),
        1 => Just(Fault::Refuse(Class::Network, "down")),
        1 => Just(Fault::Refuse(Class::Busy, "busy")),
        1 => Just(Fault::Refuse(Class::Capacity, "quota")),
        1 => Just(Fault::Refuse(Class::Unknown, "what?")),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_u32).prop_map(Step::Create),
        3 => (0..3_u32, any::<bool>(), any::<bool>()).prop_map(|(n, named, hard)| Step::Destroy { n, named, hard }),
        3 => Just(Step::Observe),
        3 => Just(Step::Pass),
        1 => Just(Step::Die),
        4 => (prop::sample::select(CALLS.to_vec()), fault()).prop_map(|(call, fault)| Step::Fault(call, fault)),
        1 => (0..8_u32).prop_map(Step::End),
    ]
}

/// VMs by node that did not end: those released, and those held.
fn alive(fake: &Fake, n: u32) -> (usize, usize) {
    let inside = fake.inside();
    let name = format!("fg{n}");
    let ours = inside.vms.values().filter(|vm| {
        vm.tags
            .get("THIAO_CLUSTER")
            .is_some_and(|cluster| cluster == "prod")
            && vm.tags.get("THIAO_NODE") == Some(&name)
            && vm.state.kind() != Kind::Done
    });
    let held = ours.clone().filter(|vm| vm.state.kind() == Kind::Held).count();
    (ours.count() - held, held)
}

proptest! {
    /// Whatever is lost, refused or ended, and whoever dies: no VM twice, no foreign one
    /// touched, and when the bad days are over all is as it was wanted.
    #[test]
    fn bad_days_leave_no_twins_and_no_orphans(steps in prop::collection::vec(step(), 0..60)) {
        let fake = Arc::new(Fake::default());
        let foreign = vm(
            VmState::Active(LcmState::Running),
            &[("THIAO_CLUSTER", "test"), ("THIAO_NODE", "fg0"), ("THIAO_GENERATION", "1")],
        );
        fake.put(100, foreign);
        fake.inside().next = 0;
        let mut provider = provider(&fake);
        // As the controller: asked before, since the last whole end.
        let mut asked = [false; 3];
        let mut ids: [Option<VmId>; 3] = Default::default();
        for step in steps {
            match step {
                Step::Create(n) => {
                    let made = provider.create(&tag(n), &host(), &spec(), asked[n as usize]);
                    asked[n as usize] = true;
                    if let Ok(id) = made {
                        ids[n as usize] = Some(id);
                    }
                }
                Step::Destroy { n, named, hard } => {
                    let id = ids[n as usize].clone().filter(|_| named);
                    if let Ok(Ended::Gone) = provider.destroy(&tag(n), id.as_ref(), hard) {
                        ids[n as usize] = None;
                    }
                }
                Step::Observe => drop(provider.observe()),
                Step::Pass => fake.pass(),
                Step::Die => provider = super::provider(&fake),
                Step::Fault(call, fault_) => fake.fault(call, fault_),
                Step::End(id) => {
                    if let Some(vm) = fake.inside().vms.get_mut(&id) {
                        vm.state = VmState::Done;
                    }
                }
            }
            for n in 0..3 {
                let (released, held) = alive(&fake, n);
                prop_assert!(released + held <= 1, "{released} and {held} of fg{n}");
            }
            prop_assert_eq!(fake.state(100), VmState::Active(LcmState::Running));
        }
        fake.inside().faults.clear();
        // All are wanted.
        for n in 0..3 {
            let made = provider.create(&tag(n), &host(), &spec(), asked[n as usize]);
            prop_assert!(made.is_ok() || alive(&fake, n) == (0, 0), "{:?}", made);
            ids[n as usize] = Some(provider.create(&tag(n), &host(), &spec(), true).expect("a good day"));
            prop_assert_eq!(alive(&fake, n).1, 0);
        }
        // None is.
        for _ in 0..6 {
            provider.observe().expect("a good day");
            for n in 0..3 {
                provider.destroy(&tag(n), ids[n as usize].as_ref(), true).expect("a good day");
            }
            fake.pass();
        }
        provider.observe().expect("a good day");
        for n in 0..3 {
            prop_assert_eq!(provider.destroy(&tag(n), None, true).expect("a good day"), Ended::Gone);
        }
        prop_assert_eq!(fake.alive(), [100]);
        prop_assert_eq!(seen(&provider), []);
    }
}

#[test]
fn many_creations_at_once_after_a_crash_make_each_vm_once() {
    let fake = Arc::new(Fake::default());
    let before = provider(&fake);
    for n in 0..32 {
        before.create(&tag(n), &host(), &spec(), false).unwrap();
    }
    let after = provider(&fake);
    after.observe().unwrap();
    let ids: std::collections::BTreeSet<VmId> = std::thread::scope(|scope| {
        let make = |n| {
            let after = &after;
            scope.spawn(move || after.create(&tag(n), &host(), &spec(), true).unwrap())
        };
        let made: Vec<_> = (0..64).map(make).collect();
        made.into_iter().map(|made| made.join().unwrap()).collect()
    });
    assert_eq!((ids.len(), fake.alive().len()), (64, 64));
}
