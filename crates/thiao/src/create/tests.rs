//! Plans, of made-up front-ends.

use super::*;
use std::collections::BTreeMap;
use std::path::Path;
use thiao_opennebula::syntax::Template;

fn object(id: u32, name: &str, body: &str) -> Object {
    Object {
        id,
        name: name.into(),
        owner: "oneadmin".into(),
        for_all: false,
        kind: None,
        state: Some(1),
        vms: 0,
        datastore: None,
        clusters: Vec::new(),
        free_mb: 0,
        body: Template::parse(body).expect("a template"),
    }
}

fn account(id: u32, name: &str, group: u32, template: &[(&str, &str)]) -> Account {
    Account {
        id,
        name: name.into(),
        groups: vec![group],
        template: pairs(template),
    }
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pair = |(key, text): &(&str, &str)| ((*key).to_owned(), (*text).to_owned());
    pairs.iter().map(pair).collect()
}

fn rules(texts: &[&str]) -> Vec<(u32, Rule)> {
    let rule = |text: &&str| Rule::parse(text).expect("a rule");
    (0..).zip(texts.iter().map(rule)).collect()
}

/// A front-end as it comes, with a template, an image and two networks.
fn seen() -> Seen {
    Seen {
        me: User {
            id: 0,
            name: "oneadmin".into(),
            groups: vec![0],
            template: BTreeMap::new(),
            quotas: Vec::new(),
        },
        users: vec![account(0, "oneadmin", 0, &[])],
        groups: Vec::new(),
        rules: rules(&["@1 VM+TEMPLATE+SECGROUP/* CREATE", "@1 NET/* USE"]),
        templates: vec![object(3, "worker", "DISK=[IMAGE=\"os\"]\nNIC=[NETWORK=\"a\"]")],
        images: vec![object(7, "os", "")],
        networks: vec![object(0, "a", ""), object(1, "b", "")],
        datastores: Vec::new(),
        secgroups: Vec::new(),
        auth: AuthFile::Missing,
    }
}

fn wanted() -> Wanted {
    Wanted {
        cluster: ClusterName::new("prod").expect("a name"),
        user: None,
        group: None,
        auth: "/etc/thiao/one_auth".into(),
        templates: vec!["worker".into()],
        making: None,
        networks: Vec::new(),
        placement: Placement::Thiao,
        fence: true,
    }
}

/// What is done, a line each.
fn done(plan: &Plan) -> Vec<String> {
    let acts = plan.steps.iter().filter(|step| step.action.is_some());
    acts.map(|step| format!("{} {}", step.verb.word(), step.what))
        .collect()
}

fn refused(wanted: &Wanted, seen: &Seen) -> String {
    plan(wanted, seen).expect_err("no plan").to_string()
}

#[test]
fn a_user_is_made_with_what_it_needs_and_no_more() {
    let made = plan(&wanted(), &seen()).expect("a plan");
    assert_eq!(
        done(&made),
        [
            "make /etc/thiao/one_auth",
            "make group thiao-prod",
            "change group thiao-prod",
            "make user thiao-prod",
            "change user thiao-prod",
            "give TEMPLATE/#3 USE",
            "give IMAGE/#7 USE",
            "give NET/#0 USE",
            "give HOST/* USE+MANAGE",
            "give TEMPLATE/* CREATE",
            "give SECGROUP/* CREATE",
        ]
    );
    assert_eq!(
        (made.template.as_deref(), made.network.clone()),
        (Some("worker"), None)
    );
    // OpenNebula's own scheduler deploys; what everybody may use needs no rule.
    let mut open = seen();
    open.networks[0].for_all = true;
    let wanted = Wanted {
        placement: Placement::OpenNebula,
        ..wanted()
    };
    let lines = done(&plan(&wanted, &open).expect("a plan"));
    assert!(
        !lines
            .iter()
            .any(|line| line.contains("HOST") || line.contains("NET")),
        "{lines:?}"
    );
    assert!(script(&made, "slurm").contains("VM_MANAGE_OPERATIONS=\"deploy, delete\"\n"));
    assert!(script(&plan(&wanted, &open).expect("a plan"), "slurm").contains("OPERATIONS=\"delete\"\n"));
}

#[test]
fn the_commands_hold_no_secret_and_quote_what_a_shell_would_read() {
    let wanted = Wanted {
        auth: "/etc/it's thiao/$(one)".into(),
        user: Some("a*".into()),
        ..wanted()
    };
    let text = script(&plan(&wanted, &seen()).expect("a plan"), "slurm");
    assert!(
        text.contains("install -D -m 600 -o slurm /dev/null '/etc/it'\\''s thiao/$(one)'\n"),
        "{text}"
    );
    assert!(
        text.contains("user=$(oneuser create 'a*' --group \"$group\" --read-file <(sed -n"),
        "{text}"
    );
    assert!(
        text.contains("oneacl create \"#$user HOST/* USE+MANAGE\"\n"),
        "{text}"
    );
}

#[test]
fn a_name_that_oned_refuses_is_refused_before_a_file_is_written() {
    for name in ["", "a:b", "a b", "a\nb", "$(a)", "o'x", &"a".repeat(129)] {
        let user = Wanted {
            user: Some(name.into()),
            ..wanted()
        };
        let text = refused(&user, &seen());
        assert!(text.contains("name another with --user"), "{text}");
        let group = Wanted {
            group: Some(name.into()),
            ..wanted()
        };
        let text = refused(&group, &seen());
        assert!(text.contains("name another with --group"), "{text}");
    }
    let fine = Wanted {
        user: Some("a.b-c_d@e*".into()),
        ..wanted()
    };
    plan(&fine, &seen()).expect("a plan");
}

#[test]
fn only_administrators_plan() {
    let mut seen = seen();
    seen.me.id = 5;
    seen.me.groups = vec![1];
    let text = refused(&wanted(), &seen);
    assert!(
        text.contains("not in OpenNebula's group oneadmin") && text.contains("MANAGE of ACL"),
        "{text}"
    );
    let text = plan_removal(&wanted().cluster, Path::new("/a"), &seen, &[])
        .expect_err("none")
        .to_string();
    assert!(text.contains("group oneadmin"), "{text}");
}

#[test]
fn a_user_of_others_is_taken_if_it_may_enough_and_gets_nothing() {
    let mut seen = seen();
    seen.users.push(account(
        5,
        "slurm",
        1,
        &[("VM_MANAGE_OPERATIONS", "deploy,delete")],
    ));
    seen.auth = AuthFile::There {
        user: "slurm".into(),
        made: None,
        accepted: true,
    };
    let text = refused(&wanted(), &seen);
    for command in [
        "oneacl create '#5 TEMPLATE/#3 USE'",
        "oneacl create '#5 IMAGE/#7 USE'",
        "oneacl create '#5 HOST/* USE+MANAGE'",
    ] {
        assert!(text.contains(command), "{text}");
    }
    // By its group it may use networks and make templates and security groups.
    assert!(
        !text.contains("NET") && !text.contains("CREATE") && !text.contains("VM/@"),
        "{text}"
    );
    seen.rules
        .extend(rules(&["#5 TEMPLATE+IMAGE/* USE", "#5 HOST/* USE+MANAGE"]));
    assert_eq!(
        done(&plan(&wanted(), &seen).expect("a plan")),
        Vec::<String>::new()
    );
    seen.auth = AuthFile::There {
        user: "slurm".into(),
        made: None,
        accepted: false,
    };
    assert!(refused(&wanted(), &seen).contains("oned does not take the password of slurm"));
}

#[test]
fn what_was_made_for_another_cluster_is_not_touched() {
    let mut seen = seen();
    seen.users.push(account(5, "thiao-prod", 100, &[(MARK, "other")]));
    seen.auth = AuthFile::There {
        user: "thiao-prod".into(),
        made: Some(Note {
            cluster: "prod".into(),
            group: None,
        }),
        accepted: true,
    };
    assert!(refused(&wanted(), &seen).contains("was made for cluster other"));
    let plan = plan_removal(&wanted().cluster, Path::new("/a"), &seen, &[]).expect("a plan");
    let gone: Vec<&str> = plan.steps.iter().map(|step| step.what.as_str()).collect();
    assert_eq!(gone, ["/a"], "nothing but its own file");
}

#[test]
fn a_choice_of_networks_is_a_persons() {
    let wanted = Wanted {
        templates: Vec::new(),
        making: Some(Making::Image("os".into())),
        ..wanted()
    };
    assert_eq!(open_networks(&wanted, &seen()), ["a", "b"]);
    assert!(refused(&wanted, &seen()).contains("name the network for VMs with --network: a, b"));
    let mut one = seen();
    one.networks.pop();
    assert!(open_networks(&wanted, &one).is_empty());
    assert_eq!(plan(&wanted, &one).expect("a plan").network.as_deref(), Some("a"));
    one.networks.pop();
    assert!(refused(&wanted, &one).contains("onevnet create"));
}

#[test]
fn a_template_that_was_made_of_another_image_is_written_anew() {
    let mut seen = seen();
    seen.images.push(object(8, "newer", ""));
    let mut wanted = Wanted {
        templates: Vec::new(),
        networks: vec!["b".into()],
        making: Some(Making::Image("os".into())),
        ..wanted()
    };
    let first = plan(&wanted, &seen).expect("a plan");
    let text = first.steps.iter().find_map(|step| match &step.action {
        Some(Action::MakeTemplate { text }) => Some(text.clone()),
        _ => None,
    });
    seen.templates
        .push(object(9, "thiao-prod", &text.expect("it is made")));
    let lines = done(&plan(&wanted, &seen).expect("a plan"));
    assert!(
        !lines.iter().any(|line| line.contains("template thiao-prod")),
        "{lines:?}"
    );
    wanted.making = Some(Making::Image("newer".into()));
    let lines = done(&plan(&wanted, &seen).expect("a plan"));
    assert!(
        lines.contains(&"change template thiao-prod (9)".to_owned()),
        "{lines:?}"
    );
    seen.templates.retain(|template| template.id != 9);
    seen.templates.push(object(9, "thiao-prod", "CPU=1"));
    assert!(refused(&wanted, &seen).contains("was not made for this cluster"));
}

#[test]
fn what_others_use_stays_and_vms_keep_all() {
    let mark = format!("{MARK}=\"prod\"\n");
    let mut seen = seen();
    seen.groups = vec![Circle {
        id: 100,
        name: "thiao-prod".into(),
        users: vec![5, 6],
        template: pairs(&[(MARK, "prod")]),
    }];
    seen.users.push(account(5, "thiao-prod", 100, &[(MARK, "prod")]));
    seen.images = vec![
        object(7, "os", &mark),
        object(8, "busy", &mark),
        object(9, "free", &mark),
    ];
    seen.images[1].vms = 2;
    let cluster = wanted().cluster;
    let planned = plan_removal(&cluster, Path::new("/a"), &seen, &[]).expect("a plan");
    let lines: Vec<String> = planned
        .steps
        .iter()
        .map(|step| format!("{} {}: {}", step.verb.word(), step.what, step.why))
        .collect();
    assert_eq!(
        lines,
        [
            "leave image os: template worker of others names it",
            "leave image busy: 2 VMs of others use it",
            "remove image free (9): made for the cluster",
            "remove user thiao-prod (5): and with it the 0 ACL rules for it",
            "leave group thiao-prod: others are in it",
        ]
    );
    let text = plan_removal(&cluster, Path::new("/a"), &seen, &[12, 13])
        .expect_err("none")
        .to_string();
    assert!(
        text.contains("12, 13") && text.contains("thiao suspend"),
        "{text}"
    );
}

#[test]
fn the_comment_of_a_file_is_read_as_it_was_written() {
    for group in [None, Some("g".to_owned())] {
        let note = Note {
            cluster: "prod".into(),
            group,
        };
        assert_eq!(Note::parse(&note.to_string()), Some(note));
    }
    assert_eq!(Note::parse("somebody's own words"), None);
}
