mod opennebula;

use super::*;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiao_core::ids::{NodeName, NodesetName};
use thiao_core::policy::Policy;

const GOOD: &str = r#"
cluster = "lab"
[[nodeset]]
name = "fg"
nodes = "fg[0-7]"
memory_mb = 200
"#;

fn machine() -> Machine {
    Machine {
        name: "box".into(),
        cpus: 4,
        memory_mb: 8000,
        program: "/opt/x/thiao".into(),
        one_xmlrpc: None,
        one_auth: None,
        home: Some("/home/me".into()),
        agent: "/usr/lib/thiao/thiao-guest".into(),
        resolv_conf: "nameserver 10.7.7.53\n".into(),
        any_port: (40_000, 50_000),
        user: passwd::by_name,
        slurm: |bin_dir, plugins| {
            Ok(thiao_qemu::SlurmFiles {
                bin: bin_dir.unwrap_or(Path::new("/usr/bin")).to_owned(),
                sbin: "/usr/sbin".into(),
                plugins: plugins.to_vec(),
            })
        },
    }
}

fn read(text: &str) -> Result<Loaded, ConfigError> {
    parse(Path::new("thiao.toml"), text, &machine())
}

fn qemu(config: &Config) -> &thiao_qemu::Settings {
    config.provider.qemu().unwrap()
}

/// The problems of this text, which must have some.
#[track_caller]
fn wrong(text: &str) -> String {
    match read(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(e) => e.to_string(),
    }
}

/// Reads a good file with these lines before it; the file's first line is the second of these.
#[track_caller]
fn check(added: &str, expected: &str) {
    let problems = wrong(&format!("{GOOD}\n{added}"));
    assert!(
        problems.contains(expected),
        "{added}\ngave\n{problems}\nwithout\n{expected}"
    );
}

#[test]
fn the_old_name_of_a_key_is_taken_and_named() {
    for key in ["observation_max_age", "look_max_age"] {
        let loaded = read(&format!("{GOOD}[timing]\n{key} = 70\n")).unwrap();
        assert_eq!(loaded.config.timing.observation_max_age, Duration::from_secs(70));
        assert!(
            loaded.show().contains(&format!("{key} = 70")),
            "{}",
            loaded.show()
        );
    }
    check(
        "[timing]\nlook_max_age = 2",
        "timing.look_max_age: is shorter than",
    );
    check(
        "[timing]\nlook_max_age = 0",
        "timing.look_max_age: 0 is not a time from 1 to 3600 seconds",
    );
    check(
        "[timing]\nobservation_max_age = 70\nlook_max_age = 70",
        "timing.look_max_age: is the old name of observation_max_age: remove one of them",
    );
}

#[test]
fn guests_get_the_slurm_of_bin_dir_and_plugin_dir() {
    let text = "[slurm]\nbin_dir = \"/opt/s/bin\"\nplugin_dir = \"/opt/p:/opt/s/lib/slurm\"\n";
    let loaded = read(&format!("{GOOD}{text}")).unwrap();
    let files = qemu(&loaded.config).slurm.as_ref().unwrap();
    assert_eq!(files.bin, Path::new("/opt/s/bin"));
    assert_eq!(files.plugins, ["/opt/p", "/opt/s/lib/slurm"].map(PathBuf::from));
    check(
        "[slurm]\nplugin_dir = \"/a:b\"",
        "slurm.plugin_dir: \"/a:b\" is not possible: write absolute paths",
    );
}

#[test]
fn guests_know_the_cluster_by_one_secret_and_all_its_slurmctlds() {
    let text = "[qemu]\nslurm_key = \"/e/slurm.key\"\nslurmctld_backups = [\"head2(10.9.0.2)\"]\nslurm_user = \"adm\"\n";
    let loaded = read(&format!("{GOOD}{text}")).unwrap();
    let guest = &qemu(&loaded.config).guest;
    let key = PathBuf::from("/e/slurm.key");
    assert_eq!(guest.credentials, thiao_qemu::Credentials::Slurm { key });
    assert_eq!(
        (guest.backups[0].to_string().as_str(), guest.slurm_user.as_str()),
        ("head2(10.9.0.2)", "adm")
    );
    // What is shown is a file that gives the same settings.
    let again = read(&loaded.show()).unwrap_or_else(|e| panic!("{e}\n{}", loaded.show()));
    assert_eq!(format!("{:?}", again.config), format!("{:?}", loaded.config));

    check(
        "[qemu]\nslurm_key = \"/k\"\nmunge_key = \"/m\"",
        "qemu.munge_key: has no effect beside slurm_key",
    );
    check("[qemu]\nslurmctld_backups = [\"head2\"]", "write NAME(ADDRESS)");
}

#[test]
fn many_mistakes_are_told_in_few_words() {
    // A key that is like none is answered with those that there are: each once, however many tables
    // have it. (Or the answer grows with the square of the file, which may have a megabyte.)
    let tables = 300;
    let said = wrong(&"[[nodeset]]\nzzzzzz = 1\n".repeat(tables));
    assert_eq!(said.matches("there is no such key").count(), tables);
    assert!(said.len() < 1_000 * tables, "{} bytes", said.len());
    // So do a list's names, which few bytes stand for: it ends where there are too many.
    let said = wrong(&"[[nodeset]]\nnodes = 'x[0-40000]'\n".repeat(tables));
    assert_eq!(said.matches("more than 65536 nodes in all").count(), 1);
}

#[test]
fn few_keys_are_enough() {
    let config = read(GOOD).unwrap().config;
    assert_eq!(config.cluster.as_str(), "lab");
    assert_eq!(config.state_dir, Path::new("/var/lib/thiao"));
    assert_eq!(config.nodes.len(), 8);
    let embedded = Policy {
        guests_wait: true,
        ..Policy::default()
    };
    assert_eq!(config.policy, embedded);
    let set = &config.nodesets[&NodesetName::new("fg").unwrap()];
    assert_eq!(
        (set.nodes.as_str(), set.count, set.partition.as_str()),
        ("fg[0-7]", 8, "vm")
    );
    assert_eq!(config.nodes[&NodeName::new("fg3").unwrap()].shape, set.shape);
    assert_eq!(qemu(&config).hosts.len(), 1);
    assert_eq!(
        (
            qemu(&config).hosts[0].name.as_str(),
            qemu(&config).hosts[0].memory_mb
        ),
        ("box", 6000)
    );
    assert_eq!(qemu(&config).agent, Path::new("/usr/lib/thiao/thiao-guest"));
    assert_eq!(qemu(&config).guest.slurmctld_host, "box");
    assert_eq!(qemu(&config).guest.slurmctld_addr, qemu(&config).network.address);
}

/// Every key that there is.
const EVERYTHING: &str = r#"
cluster = "lab"
state_dir = "/tmp/x"
[slurm]
conf = "/etc/slurm/slurm.conf"
bin_dir = "/opt/slurm/bin"
[[nodeset]]
name = "a"
nodes = "a[01-10]"
cpus = 2
memory_mb = 500
share_percent = 50
partition = "long"
features = ["vm", "big"]
[[nodeset]]
name = "b"
nodes = "b1,b2"
memory_mb = 100
[limits]
max_vms = 9
max_vms_per_host = 8
max_starting = 7
cpu_overcommit_percent = 200
overhead_mb = 100
tries_before_down = 3
breaker_failures = 4
[timing]
boot_timeout = 1.5
retry_first = 0.25
slurm_poll = 20
slurm_timeout = 3
events_keep = 86_400
[qemu]
bridge = "br7"
address = "10.1.2.1"
prefix_len = 24
accel = "tcg"
warm = false
cache_dir = "/tmp/c"
agent = "/a"
slurmctld_host = "ctl"
slurmctld_addr = "10.1.2.3"
slurmctld_port = 7000
munge_key = "/k"
munge_socket = "/s"
[[qemu.host]]
name = "h1"
cpus = 4
memory_mb = 1000
[[qemu.host]]
name = "h2"
memory_mb = 2000
[[qemu.user]]
name = "alice"
uid = 1000
gid = 1001
home = "/home/alice"
[[qemu.share]]
source = "/srv/alice"
target = "/home/alice"
user = "alice"
"#;

#[test]
fn everything_can_be_said() {
    let loaded = read(EVERYTHING).unwrap();
    let c = &loaded.config;
    assert_eq!(c.policy.boot_timeout.0, 1500);
    assert_eq!(c.policy.retry_first.0, 250);
    assert_eq!(c.policy.max_starting, 7);
    assert_eq!(c.slurm.timeout, Duration::from_secs(3));
    assert_eq!(c.timing.events_keep, Duration::from_secs(86_400));
    assert_eq!(c.nodes.len(), 12);
    assert_eq!(qemu(c).accel, thiao_qemu::AccelChoice::Tcg);
    assert_eq!(qemu(c).hosts[1].cpus, 4);
    assert_eq!(qemu(c).guest.users[0].shell, Path::new("/bin/bash"));
    let share = &qemu(c).guest.shares[0];
    assert_eq!(
        (share.uid, share.gid, share.target.as_path()),
        (1000, 1001, Path::new("/home/alice"))
    );
    assert_eq!(
        (qemu(c).state_dir.as_path(), qemu(c).overhead_mb),
        (Path::new("/tmp/x"), 100)
    );

    // What is shown is a file that gives the same settings.
    let shown = loaded.show();
    let again = read(&shown).unwrap_or_else(|e| panic!("{e}\n{shown}"));
    assert_eq!(format!("{:?}", again.config), format!("{c:?}"));
    assert!(shown.contains("boot_timeout = 1.5"), "{shown}");
    let line = |what: &str| {
        shown
            .lines()
            .find(|l| l.starts_with(what))
            .unwrap_or_else(|| panic!("{what}: {shown}"))
    };
    assert!(line("max_starting").ends_with("# line 22"), "{shown}");
    assert!(line("retry_max").ends_with("# default"), "{shown}");
    assert!(line("# ").contains("resolved from thiao.toml"));
}

#[test]
fn defaults_are_shown_as_a_file_that_is_right() {
    let loaded = read(GOOD).unwrap();
    let shown = loaded.show();
    let again = read(&shown).unwrap_or_else(|e| panic!("{e}\n{shown}"));
    assert_eq!(format!("{:?}", again.config), format!("{:?}", loaded.config));
    assert!(shown.contains("[[qemu.host]]\nname = \"box\" "), "{shown}");
}

#[test]
fn a_typo_is_named_with_the_nearest_key() {
    check(
        "[limits]\nmax_vm = 3",
        "thiao.toml:9: limits.max_vm: there is no such key; did you mean max_vms?",
    );
    check(
        "[timing]\nboot_timeot = 3",
        "timing.boot_timeot: there is no such key; did you mean boot_timeout?",
    );
    check(
        "[qmeu]\nwarm = true",
        "thiao.toml:8: qmeu: there is no such key; did you mean qemu?",
    );
    check(
        "[[qemu.host]]\nnam = 'x'\nname='y'\nmemory_mb=999",
        "qemu.host.nam: there is no such key; did you mean name?",
    );
    check(
        "node = 'x'",
        "nodeset.node: there is no such key; did you mean nodes?",
    );
    check(
        "[limits]\nboot_timeout = 3",
        "limits.boot_timeout: there is no such key; did you mean timing.boot_timeout?",
    );
    check(
        "[slurm]\nzzz = 3",
        "slurm.zzz: there is no such key; the keys here are conf, bin_dir",
    );
}

#[test]
fn a_bad_value_is_named_with_its_range() {
    check(
        "[limits]\nmax_vms = 0",
        "thiao.toml:9: limits.max_vms: 0 is not a whole number from 1 to 65536",
    );
    check(
        "[limits]\nmax_vms = -1",
        "limits.max_vms: -1 is not a whole number",
    );
    check(
        "[limits]\nmax_vms = '5'",
        "limits.max_vms: \"5\" is not a whole number",
    );
    check(
        "[limits]\nmax_vms = 99999999999999999999",
        "is not a whole number",
    );
    check(
        "[timing]\nboot_timeout = 0.5",
        "timing.boot_timeout: 0.5 is not a time from 1 to 3600 seconds",
    );
    check("[timing]\nboot_timeout = nan", "nan is not a time");
    check("[timing]\nboot_timeout = inf", "inf is not a time");
    check(
        "[timing]\nretry_first = 9\nretry_max = 8",
        "timing.retry_max: is shorter than retry_first",
    );
    check(
        "[timing]\nslurm_poll = 1\nslurm_poll_busy = 2",
        "slurm_poll_busy: is longer than slurm_poll",
    );
    check(
        "[timing]\nobservation_max_age = 2",
        "timing.observation_max_age: is shorter than",
    );
}

#[test]
fn a_bad_value_of_this_machines_is_named_too() {
    check(
        "[qemu]\naccel = 'hvf'",
        "qemu.accel: \"hvf\" is not possible: use auto, kvm or tcg",
    );
    check(
        "[qemu]\naddress = '10.1.1'",
        "qemu.address: \"10.1.1\" is not possible",
    );
    check(
        "[qemu]\nwarm = 'yes'",
        "qemu.warm: \"yes\" is neither true nor false",
    );
    check(
        "[qemu]\nmunge_key = 'munge.key'",
        "\"munge.key\" is not an absolute path",
    );
    check("[qemu]\nbridge = 'averylongbridgename'", "use 1 to 15 of");
    check(
        "[qemu]\nusers = ['no-such-user-here']",
        "this machine has no user no-such-user-here",
    );
    check("[qemu]\nusers = ['root']", "root has uid 0");
    check("[qemu]\nusers = 'x'", "is not a list of texts");
    check(
        "[qemu]\nprefix_len = 30",
        "prefix_len leaves 1 addresses for 8 VMs",
    );
    check(
        "[[qemu.share]]\nsource='/x'\nuser='bob'",
        "qemu.share.user: bob is not among the guests' users",
    );
    check("[[qemu.share]]\nuser='bob'", "qemu.share.source: is missing");
    let user = "[[qemu.user]]\nname='bob'\nuid=1000\ngid=1000\n";
    check(
        &format!("{user}[[qemu.share]]\nsource='/srv'\ntarget='/usr'\nuser='bob'"),
        "qemu.share.target: \"/usr\" would hide the guests' own system",
    );
    check(
        &format!("{user}[[qemu.share]]\nsource='/s'\nuser='bob'\n[[mount]]\nsource='f:/s'"),
        "qemu.share.target: \"/s\" is the place of another folder already",
    );
    for (target, why) in [
        ("/etc", "would hide the guests' own system"),
        ("/home/..", "has \"..\" in it"),
        ("/", "is the guests' own root"),
        ("/home/", "is the place of another folder already"),
    ] {
        let mounts = format!("[[mount]]\nsource='f:/home'\n[[mount]]\nsource='f:/x'\ntarget='{target}'");
        check(&mounts, &format!("mount.target: {target:?} {why}"));
    }
    check(
        "[network]\nallow = ['10.0.0.0/8', 'x', 3]",
        "network.allow: \"x\" is not possible: write an IPv4",
    );
    check(
        "[network]\nallow = ['10.0.0.0/8', 'x', 3]",
        "network.allow: 3 is not a text; put it in quotes",
    );
    check(
        "[[qemu.user]]\nname='a:b'\nuid=5\ngid=5",
        "qemu.user.name: is no login name",
    );
    check(
        "[[qemu.user]]\nname='a'\nuid=0\ngid=5",
        "qemu.user.uid: 0 is not a whole number from 1",
    );
    check(
        "[[qemu.user]]\nname='a'\nuid=5\ngid=5\n[[qemu.user]]\nname='b'\nuid=5\ngid=5",
        "b (uid 5) is there twice",
    );
    check(
        "[[qemu.host]]\nname='h'\nmemory_mb=300",
        "no host can carry one of its VMs, which needs 376 MiB",
    );
    check(
        "[[qemu.host]]\nname='h'\nmemory_mb=999\n[[qemu.host]]\nname='h'\nmemory_mb=999",
        "two hosts named h",
    );
    check(
        "[qemu]\nhost = 3",
        "qemu.host: 3 is not a list of tables; write [[qemu.host]]",
    );
}

#[test]
fn nodesets_are_checked() {
    check(
        "[[nodeset]]\nname='x'\nnodes='fg7,x1'\nmemory_mb=100",
        "thiao.toml:10: nodeset.nodes: fg7 is already in nodeset fg",
    );
    check(
        "[[nodeset]]\nname='fg'\nnodes='x1'\nmemory_mb=100",
        "there are two nodesets named fg",
    );
    check(
        "[[nodeset]]\nname='x'\nnodes='x[1-'\nmemory_mb=100",
        "malformed hostlist at byte",
    );
    check(
        "[[nodeset]]\nname='x'\nnodes='x[0-99999]'\nmemory_mb=100",
        "more than 65536 names",
    );
    check(
        "[[nodeset]]\nname='x'\nnodes='x[0-65000]'\nmemory_mb=100\n[[nodeset]]\nname='y'\nnodes='y[0-999]'\nmemory_mb=9",
        "more than 65536 nodes in all",
    );
    check(
        "[[nodeset]]\nname='x'\nnodes='x1'",
        "thiao.toml:8: nodeset.memory_mb: is missing",
    );
    check(
        "[[nodeset]]\nname='x'\nnodes='x1'\nmemory_mb=50\nfeatures=['a b']",
        "nodeset.features: \"a b\" is not possible: use 1 to 63",
    );
    let missing = wrong("cluster = 'lab'");
    assert!(
        missing.contains("thiao.toml: nodeset: is missing: write at least one [[nodeset]]"),
        "{missing}"
    );
    let single = wrong("cluster = 'lab'\n[nodeset]\nname = 'x'");
    assert!(
        single.contains("thiao.toml:2: nodeset: a table is not a list of tables; write [[nodeset]]"),
        "{single}"
    );
}

#[test]
fn names_are_taken_as_slurm_takes_them() {
    let config = read(&GOOD.replace("\"lab\"", "\"MyCluster\"")).unwrap();
    assert_eq!(config.config.cluster.as_str(), "mycluster");
    for name in ["default", "DEFAULT", "Default"] {
        check(
            &format!("[[nodeset]]\nname='x'\nnodes='x1'\nmemory_mb=50\npartition='{name}'"),
            "is a word of Slurm's own (PartitionName=DEFAULT)",
        );
        check(
            &format!("[[nodeset]]\nname='x'\nnodes='x[1-2],{name}'\nmemory_mb=50"),
            "is a word of Slurm's own, no name for a node",
        );
    }
    check(
        "[[nodeset]]\nname='x'\nnodes='all'\nmemory_mb=50",
        "all is a word of Slurm's own, no name for a node",
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let problems =
        wrong("[[nodeset]]\nname = 'a b'\nnods = 'x'\nmemory_mb = 'much'\n[limits]\nmax_vms = 0\n[limit]\n");
    for expected in [
        "cluster: is missing",
        "nodeset.name: \"a b\"",
        "nodeset.nods",
        "memory_mb: \"much\"",
        "max_vms: 0",
        "limit: there is",
    ] {
        assert!(problems.contains(expected), "{expected} not in\n{problems}");
    }
    assert_eq!(problems.lines().count(), 7, "{problems}");
}

#[test]
fn what_is_no_toml_is_named_with_the_line() {
    let problems = wrong("cluster = \"lab\"\nx = = 3\n");
    assert!(problems.contains("thiao.toml:2: is not TOML"), "{problems}");
    let twice = wrong("cluster = 'a'\ncluster = 'b'\n");
    assert!(
        twice.contains("thiao.toml:2: is not TOML: duplicate key"),
        "{twice}"
    );
}

#[test]
fn a_long_state_dir_is_refused() {
    let text = format!("state_dir = \"/{}\"\n{GOOD}", "x".repeat(90));
    assert!(wrong(&text).contains("thiao.toml:1: state_dir: is longer than 80 bytes"));
}

#[test]
fn a_file_that_everybody_may_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("thiao.toml");
    std::fs::write(&file, GOOD).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    let error = Config::load(Some(&file)).unwrap_err().to_string();
    assert!(error.contains("everybody may write to it: chmod o-w "), "{error}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o664)).unwrap();
    assert!(Config::load(Some(&file)).is_ok());
    let none = Config::load(Some(&dir.path().join("none.toml")))
        .unwrap_err()
        .to_string();
    assert!(
        none.contains("none.toml: No such file") && none.contains("--config"),
        "{none}"
    );
    let folder = Config::load(Some(dir.path())).unwrap_err().to_string();
    assert!(folder.contains("is not a file"), "{folder}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[a-z_\\[\\]='\"0-9. \n]{0,200}") {
        let _ = read(&text);
        let _ = read(&format!("{GOOD}\n{text}"));
    }
}

#[test]
fn hosts_are_not_shared_yet() {
    assert_eq!(read(GOOD).unwrap().config.sharing, Sharing::Exclusive);
    let with = |policy: &str| format!("{GOOD}[sharing]\npolicy = \"{policy}\"\n");
    assert_eq!(
        read(&with("exclusive")).unwrap().config.sharing,
        Sharing::Exclusive
    );
    let said = wrong(&with("shared"));
    for words in [
        "thiao.toml:8:",
        "sharing.policy",
        "does not act on it yet",
        "thiao sim trace",
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert!(wrong(&with("share")).contains("use \"exclusive\""));
}
