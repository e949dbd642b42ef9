//! What the linter refuses, whoever planned it.

use super::*;

#[test]
fn the_linter_refuses_what_the_planner_must_never_plan() {
    use crate::plan::{Plan, Step};
    let mut w = world();
    w.up("n0");
    let tag = w.tag(&node("n0"), Generation(1));
    let foreign = VmTag {
        cluster: ClusterName::new("other").unwrap(),
        ..tag.clone()
    };
    let shape = w.specs[&node("n0")].shape;
    let bad = [
        Action::Vm(
            tag.clone(),
            VmVerb::Destroy {
                id: None,
                cause: Cause::Ordered,
                hard: false,
            },
        ),
        Action::Vm(
            tag.clone(),
            VmVerb::Destroy {
                id: None,
                cause: Cause::Orphan,
                hard: false,
            },
        ),
        Action::Vm(
            tag.clone(),
            VmVerb::Destroy {
                id: None,
                cause: Cause::BootTimeout,
                hard: true,
            },
        ),
        Action::Vm(
            tag.clone(),
            VmVerb::Destroy {
                id: None,
                cause: Cause::Dead { why: "guess".into() },
                hard: true,
            },
        ),
        Action::Vm(
            foreign,
            VmVerb::Destroy {
                id: None,
                cause: Cause::Orphan,
                hard: false,
            },
        ),
        Action::Vm(
            VmTag {
                generation: Generation(2),
                ..tag.clone()
            },
            VmVerb::Create {
                host: host("a"),
                spec: VmSpec::of_node(shape),
                again: false,
            },
        ),
        Action::Vm(
            w.tag(&node("n1"), Generation(1)),
            VmVerb::Create {
                host: host("a"),
                spec: VmSpec::of_node(shape),
                again: false,
            },
        ),
        Action::Vm(
            w.tag(&node("zz"), Generation(1)),
            VmVerb::Create {
                host: host("a"),
                spec: VmSpec::of_node(shape),
                again: false,
            },
        ),
        Action::Node(
            node("n0"),
            NodeVerb::SetDown {
                reason: "thiao: x".into(),
                jobs: vec![],
            },
        ),
        Action::Node(
            node("n1"),
            NodeVerb::SetDown {
                reason: "x".into(),
                jobs: vec![],
            },
        ),
        Action::Node(node("n1"), NodeVerb::Return),
        Action::Node(node("n0"), NodeVerb::EndWithJob(EndWhy::OneJob)),
        Action::Node(node("n0"), NodeVerb::EndWithJob(EndWhy::NoPartition)),
        Action::Node(node("n0"), NodeVerb::EndWithJob(EndWhy::Forgotten)),
        Action::Node(node("n0"), NodeVerb::EndWithJob(EndWhy::Unheard)),
        Action::Node(node("n0"), NodeVerb::PowerDown),
        Action::Job(JobId(99), JobVerb::StartNow),
    ];
    for action in bad {
        let plan = Plan {
            steps: vec![Step {
                action: action.clone(),
                why: String::new(),
            }],
            held: vec![],
        };
        let (good, refused) = lint(&w, &plan);
        assert_eq!((good.len(), refused.len()), (0, 1), "{action}");
    }
}
