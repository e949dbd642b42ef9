//! A place for a cluster in OpenNebula, made and taken back: interrupted wherever it may be, the next run ends as
//! one that nothing happened to.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod stand_ins;

use stand_ins::{front_end, oneadmin, write};
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;
use thiao::create::carry_out::carry_out;
use thiao::create::observe::observe;
use thiao::create::{self, Making, Plan, Seen, Wanted};
use thiao_core::ids::ClusterName;
use thiao_oned::{Fault, Oned, Rule};
use thiao_opennebula::Client;
use thiao_opennebula::secgroup::Whose;
use thiao_opennebula::settings::{Access, Placement};

/// A front-end, an administrator's credentials and a place for the service's.
struct World {
    dir: tempfile::TempDir,
    oned: Oned,
}

impl World {
    fn new() -> Self {
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
            oned: front_end(oneadmin()),
        };
        write(&world.path("admin_auth"), "oneadmin:opennebula\n", 0o600);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn access(&self) -> Access {
        Access {
            endpoint: self.oned.endpoint(),
            auth: self.path("admin_auth"),
            ca_file: None,
            timeout: Duration::from_secs(5),
            requests_per_second: 0,
            connections: 1,
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.access()).unwrap()
    }

    fn wanted(&self, making: Option<Making>) -> Wanted {
        Wanted {
            cluster: ClusterName::new("lab").unwrap(),
            user: None,
            group: None,
            auth: self.path("one_auth"),
            templates: match making {
                Some(_) => Vec::new(),
                None => vec!["worker".to_owned()],
            },
            making,
            networks: Vec::new(),
            placement: Placement::Thiao,
            fence: true,
        }
    }

    fn seen(&self) -> Seen {
        observe(&self.client(), &self.access(), &self.path("one_auth")).unwrap()
    }

    fn plan(&self, wanted: &Wanted) -> Plan {
        create::plan(wanted, &self.seen()).unwrap()
    }

    fn carry_out(&self, plan: &Plan) -> anyhow::Result<()> {
        carry_out(&self.client(), plan, None, |_, _| ())
    }

    fn removal(&self) -> Plan {
        let (seen, cluster) = (self.seen(), ClusterName::new("lab").unwrap());
        let vms = create::vms_of(&self.client(), &seen, &cluster).unwrap();
        create::plan_removal(&cluster, &self.path("one_auth"), &seen, &vms).unwrap()
    }

    /// All that is there, without what differs between two runs that do the same: rules' ids, secrets.
    fn there(&self) -> Vec<String> {
        let seen = self.seen();
        let mut all: Vec<String> = seen
            .rules
            .iter()
            .map(|(_, rule)| format!("rule {rule}"))
            .collect();
        all.extend(seen.users.iter().map(|user| format!("{user:?}")));
        all.extend(seen.groups.iter().map(|group| format!("{group:?}")));
        all.extend(seen.templates.iter().map(|template| format!("{template:?}")));
        all.extend(seen.images.iter().map(|image| format!("{image:?}")));
        all.push(format!("{:?}", seen.auth));
        all.sort();
        all
    }
}

/// What VMs may be made from.
fn makings() -> Vec<Option<Making>> {
    vec![
        None,
        Some(Making::Image("img".to_owned())),
        Some(Making::Guest("/var/tmp/guest".into())),
        Some(Making::GuestOnHosts("/srv/guest".into())),
    ]
}

#[test]
fn a_guest_that_hosts_have_needs_no_images() {
    let world = World::new();
    let images = world.seen().images.len();
    let wanted = world.wanted(Some(Making::GuestOnHosts("/srv/guest".into())));
    world.carry_out(&world.plan(&wanted)).unwrap();
    let seen = world.seen();
    let body = &seen
        .templates
        .iter()
        .find(|found| found.name == "thiao-lab")
        .unwrap()
        .body;
    let os: BTreeMap<String, String> = body.vectors("OS").flatten().cloned().collect();
    assert_eq!(
        (os["KERNEL"].as_str(), os["INITRD"].as_str()),
        ("/srv/guest/vmlinuz", "/srv/guest/initrd")
    );
    assert!(!os.contains_key("KERNEL_DS") && !os.contains_key("INITRD_DS"));
    assert!(os["KERNEL_CMD"].contains("panic=-1"));
    assert_eq!(seen.images.len(), images);
}

#[test]
fn once_or_again_it_is_the_same_and_nothing_is_left_after_it() {
    for making in makings() {
        let world = World::new();
        let before = world.there();
        let wanted = world.wanted(making);
        world.carry_out(&world.plan(&wanted)).unwrap();
        let once = world.there();
        assert_ne!(once, before);
        let meta = std::fs::metadata(world.path("one_auth")).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o600);
        // What is there is taken: nothing is to be done.
        let again = world.plan(&wanted);
        assert!(!again.acts(), "{again:#?}");
        world.carry_out(&world.removal()).unwrap();
        assert_eq!(world.there(), before);
        assert!(!world.removal().acts());
    }
}

#[test]
fn killed_between_any_two_steps_the_next_run_goes_on() {
    for making in makings() {
        let whole = World::new();
        let wanted = whole.wanted(making.clone());
        let plan = whole.plan(&wanted);
        whole.carry_out(&plan).unwrap();
        let once = whole.there();
        for killed in 0..plan.steps.len() {
            let world = World::new();
            let before = world.there();
            let wanted = world.wanted(making.clone());
            let mut part = world.plan(&wanted);
            part.steps.truncate(killed);
            world.carry_out(&part).unwrap();
            world.carry_out(&world.plan(&wanted)).unwrap();
            assert_eq!(world.there(), once, "after {killed} steps");
            // And whatever was made is found again, also when it was not all of it.
            let other = World::new();
            let mut part = other.plan(&other.wanted(making.clone()));
            part.steps.truncate(killed);
            other.carry_out(&part).unwrap();
            other.carry_out(&other.removal()).unwrap();
            assert_eq!(other.there(), before, "after {killed} steps");
        }
    }
}

#[test]
fn a_call_whose_answer_is_lost_or_that_fails_is_made_up_for() {
    let methods = [
        "one.group.allocate",
        "one.group.update",
        "one.user.allocate",
        "one.user.update",
        "one.acl.addrule",
        "one.image.allocate",
        "one.template.allocate",
    ];
    let making = Some(Making::Guest("/var/tmp/guest".into()));
    let whole = World::new();
    whole
        .carry_out(&whole.plan(&whole.wanted(making.clone())))
        .unwrap();
    let once = whole.there();
    for method in methods {
        for fault in [Fault::LoseAnswer, Fault::Refuse(0x200, "no".into())] {
            let world = World::new();
            let before = world.there();
            let wanted = world.wanted(making.clone());
            world.oned.fault(Rule::once(method, fault.clone()));
            let error = world.carry_out(&world.plan(&wanted)).unwrap_err();
            assert!(
                format!("{error:#}").contains("it goes on from there"),
                "{error:#}"
            );
            world.carry_out(&world.plan(&wanted)).unwrap();
            assert_eq!(world.there(), once, "{method} {fault:?}");
            world.carry_out(&world.removal()).unwrap();
            assert_eq!(world.there(), before, "{method} {fault:?}");
        }
    }
}

#[test]
fn a_password_that_was_lost_is_set_anew_for_a_user_that_was_made_and_for_no_other() {
    let world = World::new();
    let wanted = world.wanted(None);
    world.carry_out(&world.plan(&wanted)).unwrap();
    let auth = world.path("one_auth");
    std::fs::remove_file(&auth).unwrap();
    world.carry_out(&world.plan(&wanted)).unwrap();
    assert!(!world.plan(&wanted).acts(), "oned takes the new password");
    std::fs::set_permissions(&auth, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = observe(&world.client(), &world.access(), &auth).unwrap_err();
    assert!(error.text.contains("chmod 600"), "{error}");
    std::fs::remove_file(&auth).unwrap();
    let wanted = Wanted {
        user: Some("serveradmin".to_owned()),
        ..wanted
    };
    let refused = create::plan(&wanted, &world.seen()).unwrap_err().to_string();
    assert!(
        refused.contains("user serveradmin is there, and was not made by this"),
        "{refused}"
    );
}

#[test]
fn the_user_can_make_security_groups_and_what_is_left_of_them_goes_with_him() {
    let world = World::new();
    let wanted = world.wanted(None);
    world.carry_out(&world.plan(&wanted)).unwrap();
    let access = Access {
        auth: world.path("one_auth"),
        ..world.access()
    };
    let service = Client::new(&access).unwrap();
    let of = |cluster: &str| {
        let cluster = ClusterName::new(cluster).unwrap();
        thiao_opennebula::secgroup::template(&cluster, Whose::Everybody, &[], true)
    };
    service.make_secgroup(&of("lab")).unwrap();
    service.make_secgroup(&of("other")).unwrap();
    // One that a try of the doctor left.
    let mut tried = thiao_opennebula::syntax::Template::default();
    tried.set("NAME", "thiao-lab-try");
    tried.set(thiao_opennebula::check::TAG_TRY, "lab");
    service.make_secgroup(&tried).unwrap();
    world.client().make_secgroup(&of("lab")).unwrap();
    world.carry_out(&world.removal()).unwrap();
    let left = world.seen().secgroups;
    let mut left: Vec<(String, u32)> = left.into_iter().map(|group| (group.name, group.owner)).collect();
    left.sort();
    // Of the service's user's only that of the cluster, and nobody else's.
    let names: Vec<&str> = left.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["default", "thiao-lab", "thiao-other"]);
    assert_eq!(left[1].1, 0);
}
