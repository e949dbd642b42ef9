//! Security groups: what oned says of them, and whom the VMs of Thiao's provider reach by them, judged as a host does.
//! Facts: the sources of 7.4.0, as `src/secgroup.rs` names them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod caller;
#[allow(dead_code, reason = "other tests make VMs of one kind")]
mod provider;

use caller::{B, I, S, call, call_as, id};
use std::cell::Cell;
use std::net::Ipv4Addr;
use thiao_core::ids::{HostName, JobId};
use thiao_core::view::{JobOwner, Shape, VmSpec};
use thiao_oned::{HostSetup, NetworkSetup, Oned, Phase, Settings, TemplateSetup};
use thiao_opennebula::settings::{Allowed, Fence, Placement};
use thiao_opennebula::{Client, OpenNebula};
use thiao_testkit::ids::tag;

fn oned() -> Oned {
    Oned::start(Settings {
        hosts: vec![HostSetup {
            name: "h".into(),
            cpu_percent: 800,
            memory_mb: 8192,
            cluster: Default::default(),
        }],
        networks: vec![NetworkSetup {
            name: "vms".into(),
            first: "10.2.0.10".parse().unwrap(),
            size: 4,
            template: [("VN_MAD", "fw"), ("DNS", "10.1.0.53")]
                .map(|(key, text)| (key.to_owned(), text.to_owned()))
                .into(),
            public: true,
            clusters: vec![0],
        }],
        templates: vec![TemplateSetup {
            name: "worker".into(),
            body: "DISK = [ IMAGE_ID = 0 ]".into(),
            public: true,
        }],
        ..Settings::default()
    })
    .unwrap()
}

const RULES: &str =
    "NAME=\"g\"\nRULE=[PROTOCOL=\"TCP\",RULE_TYPE=\"INBOUND\",IP=\"10.0.0.1\",SIZE=\"1\",RANGE=\"22\"]\n";

#[test]
fn groups_are_made_by_name_and_removed_when_no_vm_has_them() {
    let oned = oned();
    let group = id(&call(&oned, "one.secgroup.allocate", &[S(RULES)])).unwrap();
    assert_eq!(group, 100, "regular ones start there");
    let again = call(&oned, "one.secgroup.allocate", &[S(RULES)]);
    assert_eq!(id(&again), Err(0x2000));
    assert!(
        again.contains("NAME is already taken by SecurityGroup 100."),
        "{again}"
    );
    let vm = "CPU=1\nMEMORY=64\nNIC=[NETWORK=\"vms\",SECURITY_GROUPS=\"100\"]\n";
    let vm = id(&call(&oned, "one.vm.allocate", &[S(vm), B(true)])).unwrap();
    let shown = call(&oned, "one.vm.info", &[I(vm.into())]);
    assert!(
        shown.contains("<![CDATA[0,100]]&gt;") || shown.contains("CDATA[0,100]"),
        "its network's too: {shown}"
    );
    for (which, why) in [
        (0, "The default security group (ID 0) cannot be deleted."),
        (100, "The security group has VMs using it"),
    ] {
        let refused = call(&oned, "one.secgroup.delete", &[I(which)]);
        assert_eq!(id(&refused), Err(0x800));
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!(
        id(&call(&oned, "one.vm.detachsg", &[I(vm.into()), I(0), I(100)])),
        Ok(vm)
    );
    assert_eq!(
        id(&call(&oned, "one.vm.detachsg", &[I(vm.into()), I(0), I(100)])),
        Err(0x800)
    );
    assert_eq!(id(&call(&oned, "one.secgroup.delete", &[I(100)])), Ok(100));
    assert_eq!(
        id(&call(&oned, "one.secgroup.info", &[I(100), B(false)])),
        Err(0x400)
    );
    for (wrong, why) in [
        (
            "NAME=\"w\"\nRULE=[PROTOCOL=\"SCTP\",RULE_TYPE=\"INBOUND\"]",
            "Wrong PROTOCOL",
        ),
        (
            "NAME=\"w\"\nRULE=[PROTOCOL=\"TCP\",RULE_TYPE=\"SIDEWAYS\"]",
            "Wrong RULE_TYPE",
        ),
        (
            "NAME=\"w\"\nRULE=[PROTOCOL=\"TCP\",RULE_TYPE=\"INBOUND\",IP=\"10.0.0.1\"]",
            "empty SIZE",
        ),
    ] {
        let refused = call(&oned, "one.secgroup.allocate", &[S(wrong)]);
        assert_eq!(id(&refused), Err(0x2000));
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn who_may_not_make_a_group_is_told_so() {
    let oned = oned();
    id(&call(&oned, "one.group.allocate", &[S("g")])).unwrap();
    call(&oned, "one.user.allocate", &[S("u"), S("pw"), S("core")]);
    // As any user of a fresh installation.
    assert_eq!(
        id(&call_as(&oned, "u:pw", "one.secgroup.allocate", &[S(RULES)])),
        Ok(100)
    );
    assert_eq!(
        id(&call_as(&oned, "u:pw", "one.secgroup.delete", &[I(0)])),
        Err(0x200)
    );
    let own = call_as(&oned, "u:pw", "one.secgrouppool.info", &[I(-3), I(-1), I(-1)]);
    assert!(own.contains("CDATA[TCP]") && !own.contains("default"), "{own}");
}

#[test]
fn a_vm_that_boots_keeps_old_rules_until_they_are_committed_again() {
    let oned = oned();
    let group = id(&call(&oned, "one.secgroup.allocate", &[S(RULES)])).unwrap();
    let vm = "CPU=1\nMEMORY=64\nNIC=[NETWORK=\"vms\",SECURITY_GROUPS=\"100\"]\n";
    let vm = id(&call(&oned, "one.vm.allocate", &[S(vm), B(true)])).unwrap();
    oned.hold_phase(Phase::Boot);
    call(
        &oned,
        "one.vm.deploy",
        &[I(vm.into()), I(0), B(true), I(-1), S("")],
    );
    until(|| call(&oned, "one.vm.info", &[I(vm.into())]).contains("LCM_STATE&gt;2&lt;"));
    let other = RULES.replace("\"22\"", "\"23\"");
    let update = [I(group.into()), S(&other), I(0)];
    assert_eq!(id(&call(&oned, "one.secgroup.update", &update)), Ok(group));
    let has = |range: &str| call(&oned, "one.vm.info", &[I(vm.into())]).contains(&format!("CDATA[{range}]"));
    assert!(has("22") && !has("23"));
    let shown = call(&oned, "one.secgroup.info", &[I(group.into()), B(false)]);
    assert!(
        shown.contains(&format!("ERROR_VMS&gt;&lt;ID&gt;{vm}&lt;")),
        "{shown}"
    );
    oned.let_phase(Phase::Boot);
    until(|| call(&oned, "one.vm.info", &[I(vm.into())]).contains("LCM_STATE&gt;3&lt;"));
    assert_eq!(
        id(&call(&oned, "one.secgroup.commit", &[I(group.into()), B(true)])),
        Ok(group)
    );
    assert!(has("23") && !has("22"));
}

fn until(so: impl Fn() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !so() {
        assert!(std::time::Instant::now() < end, "it never came");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Thiao's provider with a fence, over this oned.
struct Site {
    oned: Oned,
    thiao: OpenNebula,
    client: Client,
    /// VMs that were made.
    made: Cell<u64>,
}

impl Site {
    fn new(allow: Vec<Allowed>) -> Self {
        Self::with(Some(Fence {
            allow,
            any_port: (32_768, 60_999),
        }))
    }

    fn with(fence: Option<Fence>) -> Self {
        let oned = oned();
        let dir = tempfile::tempdir().unwrap();
        let access = provider::access(&oned, dir.path());
        let mut settings = provider::settings(access, Placement::Thiao, &["vms"]);
        settings.fence = fence;
        let client = Client::new(&settings.access).unwrap();
        let thiao = OpenNebula::open(settings).unwrap();
        Self {
            oned,
            thiao,
            client,
            made: Cell::new(0),
        }
    }

    /// Makes a VM of that job for the node; none: of power-saving mode.
    fn make(&self, node: &str, job: Option<u32>) -> u32 {
        let spec = VmSpec {
            job: job.map(JobId),
            owner: job.map(|job| JobOwner {
                uid: 1000 + job,
                leader: JobId(job),
            }),
            ..VmSpec::of_node(Shape {
                cpus: 1,
                memory_mb: 512,
                share_percent: 100,
            })
        };
        let host = HostName::new("h").unwrap();
        self.made.set(self.made.get() + 1);
        let made = self
            .thiao
            .create(&tag("prod", node, self.made.get()), &host, &spec, false)
            .unwrap();
        made.as_str().parse().unwrap()
    }

    fn address(&self, vm: u32) -> Ipv4Addr {
        let wired = self.client.wired(&[vm]).unwrap();
        wired[0].cards[0].address.unwrap()
    }

    /// Whether a host lets a TCP connection pass that begins in that direction at this VM's card: some rule of its
    /// groups does (`security_groups_iptables.rb`; without a rule it is dropped).
    fn passes(&self, vm: u32, direction: &str, peer: Ipv4Addr, port: u16) -> bool {
        let shown = call(&self.oned, "one.vm.info", &[I(vm.into())]);
        let shown = shown.replace("&lt;", "<").replace("&gt;", ">");
        let rules = shown.split("<SECURITY_GROUP_RULE>").skip(1);
        rules.into_iter().any(|rule| {
            let rule = rule.split("</SECURITY_GROUP_RULE>").next().unwrap();
            let get = |name: &str| {
                let (_, rest) = rule.split_once(&format!("<{name}><![CDATA["))?;
                Some(rest.split_once("]]>")?.0.to_owned())
            };
            let of_peer = get("IP").is_none_or(|first| {
                let first = u64::from(first.parse::<Ipv4Addr>().unwrap().to_bits());
                let size: u64 = get("SIZE").unwrap().parse().unwrap();
                (first..first + size).contains(&u64::from(peer.to_bits()))
            });
            let of_port = get("RANGE").is_none_or(|range| {
                let (first, last) = range.split_once(':').unwrap_or((&range, &range));
                (first.parse().unwrap()..=last.parse::<u16>().unwrap()).contains(&port)
            });
            let protocol = get("PROTOCOL").unwrap();
            get("RULE_TYPE").as_deref() == Some(direction)
                && matches!(protocol.as_str(), "ALL" | "TCP")
                && of_peer
                && of_port
        })
    }

    /// What a scan from one VM finds open at another, of a few ports.
    fn reaches(&self, from: u32, to: u32) -> bool {
        let (own, other) = (self.address(from), self.address(to));
        [22, 6818, 40_000]
            .into_iter()
            .any(|port| self.passes(from, "OUTBOUND", other, port) && self.passes(to, "INBOUND", own, port))
    }
}

#[test]
fn a_job_that_scans_finds_its_own_vms_and_slurmctld() {
    let allow = Allowed {
        address: Ipv4Addr::UNSPECIFIED,
        prefix_len: 0,
        ports: Some((443, 443)),
    };
    let site = Site::new(vec![allow]);
    let (a, mate) = (site.make("n0", Some(1)), site.make("n1", Some(1)));
    let (b, saving) = (site.make("n2", Some(2)), site.make("n0", None));
    // The later one is in the rules of the first, which may be in BOOT when it is made: then it is told later.
    let settled = || {
        site.thiao.observe().unwrap();
        site.reaches(a, mate) && site.reaches(mate, a)
    };
    until(settled);
    for other in [b, saving] {
        for ours in [a, mate] {
            assert!(
                !site.reaches(ours, other) && !site.reaches(other, ours),
                "{ours} {other}"
            );
        }
    }
    assert!(!site.reaches(b, saving) && !site.reaches(saving, b));
    // slurmctld, where srun waits, name servers, and what is allowed: no VM by it.
    let head: Ipv4Addr = "10.0.0.1".parse().unwrap();
    for vm in [a, mate, b, saving] {
        let out = |to: Ipv4Addr, port| site.passes(vm, "OUTBOUND", to, port);
        assert!(out(head, 6817) && site.passes(vm, "INBOUND", head, 6818));
        assert!(!out(head, 22));
        assert!(out("10.1.0.53".parse().unwrap(), 53));
        assert!(out("8.8.8.8".parse().unwrap(), 443) && !out("8.8.8.8".parse().unwrap(), 80));
    }
    assert!(!site.passes(a, "OUTBOUND", site.address(b), 443));
    assert!(!site.passes(a, "INBOUND", site.address(b), 443));
}

#[test]
fn an_address_that_is_another_jobs_now_opens_nothing() {
    let site = Site::new(Vec::new());
    let (a, mate) = (site.make("n0", Some(1)), site.make("n1", Some(1)));
    let address = site.address(mate);
    until(|| {
        site.thiao.observe().unwrap();
        site.reaches(a, mate)
    });
    let gone = call(&site.oned, "one.vm.recover", &[I(mate.into()), I(3)]);
    assert_eq!(id(&gone), Ok(mate));
    assert!(site.passes(a, "OUTBOUND", address, 22), "its rules are old");
    // Its address comes round: there are four.
    let b = loop {
        let b = site.make("n2", Some(2));
        if site.address(b) == address {
            break b;
        }
    };
    assert!(!site.reaches(a, b) && !site.reaches(b, a));
}

#[test]
fn a_job_that_scans_would_find_everything_without_a_fence() {
    let site = Site::with(None);
    let (a, b) = (site.make("n0", Some(1)), site.make("n1", Some(2)));
    assert!(site.reaches(a, b) && site.reaches(b, a));
}
