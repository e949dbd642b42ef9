//! Real VMs: the image is built, guests boot, are killed, adopted and ended.
//! There is no slurmctld here: slurmd is started and gets no answer.
//!
//! Each test runs itself again under `unshare`: its bridge, taps and VMs are in
//! namespaces that vanish with it.

#![allow(clippy::unwrap_used, reason = "these helpers fail their test by it")]

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use thiao_core::ids::{ClusterName, HostName, JobId, NodesetName, VmId, VmTag};
use thiao_core::options::VmOptions;
use thiao_core::prolog::Leftovers;
use thiao_core::view::{ErrorClass, JobOwner, Shape, VmSpec, VmState};
use thiao_qemu::net::Network;
use thiao_qemu::{AccelChoice, Credentials, FenceSettings, GuestSettings, Host, Qemu, Settings, User};
use thiao_testkit::guest::{self, SLURMCTLD_PORT};
use thiao_testkit::ids;
use thiao_testkit::wait::until_some;

const SHAPE: Shape = Shape {
    cpus: 1,
    memory_mb: 200,
    share_percent: 100,
};

/// Between two observations of the machine.
const PAUSE: Duration = Duration::from_millis(20);

/// A shape of a nodeset.
fn of_vm(shape: Shape) -> (NodesetName, Shape) {
    (NodesetName::new("vm").unwrap(), shape)
}

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 231, 9, 1);

/// Builds the agent and the image, then runs `body` in namespaces of its own.
fn isolated(test: &str, body: fn()) {
    thiao_testkit::isolated::isolated_after(test, || drop(guest::build()), body);
}

struct Lab {
    folder: tempfile::TempDir,
    warm: bool,
    woken: Arc<AtomicUsize>,
}

impl Lab {
    fn new(warm: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("munge.key"), [7; 128]).unwrap();
        let lab = Self {
            folder,
            warm,
            woken: Arc::default(),
        };
        // Where slurmctld listens; with a machine's own network it does before.
        lab.settings().network.ensure_bridge().unwrap();
        guest::silent_slurmctld(GATEWAY);
        lab
    }

    fn settings(&self) -> Settings {
        Settings {
            cluster: ClusterName::new("boot-test").unwrap(),
            // Longer than a socket's address may be.
            state_dir: self.folder.path().join("a-long-folder-name".repeat(8)),
            cache_dir: guest::cache(),
            hosts: vec![Host {
                name: HostName::new("h1").unwrap(),
                cpus: 2,
                memory_mb: 700,
            }],
            network: Network {
                bridge: "thbr-test".to_owned(),
                address: GATEWAY,
                prefix_len: 24,
            },
            guests: thiao_qemu::Guests::Small,
            tmp_gb: 1,
            nodesets: std::collections::BTreeMap::new(),
            nodes: std::collections::BTreeMap::new(),
            accel: AccelChoice::Tcg,
            warm: self.warm,
            templates_max: 8,
            overhead_mb: 140,
            slurm: Ok(guest::slurm()),
            guest: GuestSettings {
                slurmctld_host: "head".to_owned(),
                slurmctld_addr: GATEWAY,
                slurmctld_port: SLURMCTLD_PORT,
                backups: vec![],
                slurm_user: "slurm".to_owned(),
                credentials: Credentials::Munge {
                    key: self.folder.path().join("munge.key"),
                    socket: "/run/lab/munge.socket".into(),
                },
                users: vec![User {
                    name: "ada".to_owned(),
                    uid: 1234,
                    gid: 1234,
                    home: "/home/ada".into(),
                    shell: "/bin/bash".into(),
                }],
                everybody: false,
                homes: false,
                mounts: vec![],
                resolver: Default::default(),
                shares: vec![],
            },
            fence: Some(FenceSettings::default()),
            agent: guest::agent(),
            program: "/nonexistent/thiao".into(),
        }
    }

    fn open(&self) -> Qemu {
        let woken = Arc::clone(&self.woken);
        let wake = move || {
            woken.fetch_add(1, Ordering::SeqCst);
        };
        let qemu = Qemu::open(self.settings(), Arc::new(wake)).unwrap();
        let prepared = qemu
            .prepare(&[of_vm(SHAPE)], &|words| println!("{words}"))
            .unwrap();
        assert_eq!(prepared.warm[0].1.is_ok(), self.warm, "{:?}", prepared.warm);
        qemu
    }

    fn vm_folder(&self, id: &VmId) -> PathBuf {
        self.settings().state_dir.join("vms").join(id.as_str())
    }

    /// Waits until the VM's state is as wanted; shows its story on the way out.
    fn wait(&self, qemu: &Qemu, id: &VmId, limit: Duration, wanted: fn(&VmState) -> bool) -> VmState {
        let state = || {
            let view = qemu.observe().unwrap();
            view.vms.iter().find(|vm| vm.id == *id).map(|vm| vm.state.clone())
        };
        let story = || {
            let console = std::fs::read_to_string(self.vm_folder(id).join("console.log"));
            format!(
                "{id} is {:?}: {:?}\n{}",
                state(),
                qemu.timeline(id),
                console.unwrap_or_default()
            )
        };
        until_some(limit, PAUSE, story, || state().filter(wanted))
    }

    /// Has slurmd start, and waits for that.
    fn ready(&self, qemu: &Qemu, id: &VmId) {
        qemu.start_slurmd(id, 1, Duration::ZERO).unwrap();
        self.wait(qemu, id, Duration::from_secs(90), |state| {
            *state == VmState::Ready
        });
        let story = qemu.timeline(id);
        let from = story[0].0;
        for (time, what) in &story {
            println!("{id} {:>9} {what}", time.since(from).to_string());
        }
    }
}

fn tag(node: &str, generation: u64) -> VmTag {
    ids::tag("boot-test", node, generation)
}

fn pid(lab: &Lab, id: &VmId) -> String {
    std::fs::read_to_string(lab.vm_folder(id).join("pid"))
        .unwrap()
        .trim()
        .to_owned()
}

fn told(qemu: &Qemu, id: &VmId, what: &str) -> usize {
    qemu.timeline(id)
        .iter()
        .filter(|(_, told)| told.starts_with(what))
        .count()
}

/// Waits until this was told of the VM.
fn until_told(qemu: &Qemu, id: &VmId, what: &str) {
    until_some(
        Duration::from_secs(90),
        PAUSE,
        || format!("\"{what}\": {:?}", qemu.timeline(id)),
        || (told(qemu, id, what) > 0).then_some(()),
    );
}

/// A guest has all else, and no slurmd before it is told.
fn waits_with_slurmd(qemu: &Qemu, id: &VmId) {
    until_told(qemu, id, "guest prepared");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(told(qemu, id, "slurmd started"), 0);
    assert_eq!(qemu.observe().unwrap().vms[0].state, VmState::Booting);
}

/// A number that the guest knows changes nothing, the next one ends slurmd and starts it.
fn starts_slurmd_again(qemu: &Qemu, id: &VmId) {
    qemu.start_slurmd(id, 1, Duration::ZERO).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(told(qemu, id, "slurmd started again"), 0);
    qemu.start_slurmd(id, 2, Duration::ZERO).unwrap();
    until_told(qemu, id, "slurmd started again: signal 9");
    assert!(
        qemu.start_slurmd(&VmId::new("n8.1").unwrap(), 1, Duration::ZERO)
            .is_err()
    );
}

/// The whole life of VMs; cold and warm are told apart by their story.
fn life(warm: bool) {
    let lab = Lab::new(warm);
    let host = HostName::new("h1").unwrap();
    let qemu = lab.open();
    let first = the_first_boots(&lab, &qemu, &host, warm);
    let second = the_second_fills_the_host(&lab, &qemu, &host);
    for id in [&first, &second] {
        answers_at_its_address(&lab, id);
    }
    goes_on_with_the_right_time(&lab, &second);
    a_killed_one_is_seen(&lab, &qemu, &first);
    let process = pid(&lab, &second);
    let qemu = another_takes_up_what_runs(&lab, qemu, &second);
    all_ends(&qemu, &second, &process);
}

fn the_first_boots(lab: &Lab, qemu: &Qemu, host: &HostName, warm: bool) -> VmId {
    // Somebody took the bridge away: it is made again.
    lab.settings().network.remove_bridge().unwrap();
    let first = qemu.create(&tag("n1", 1), host, &VmSpec::of_node(SHAPE)).unwrap();
    assert_eq!(first.as_str(), "n1.1");
    let process = pid(lab, &first);
    assert_eq!(
        qemu.create(&tag("n1", 1), host, &VmSpec::of_node(SHAPE)).unwrap(),
        first
    );
    assert_eq!(pid(lab, &first), process, "the same tag starts nothing twice");
    waits_with_slurmd(qemu, &first);
    lab.ready(qemu, &first);
    starts_slurmd_again(qemu, &first);
    assert_eq!(told(qemu, &first, "guest restored"), usize::from(warm));
    assert!(lab.woken.load(Ordering::SeqCst) > 0);

    let view = qemu.observe().unwrap();
    assert_eq!(
        (
            view.hosts.len(),
            view.hosts[0].memory_mb,
            view.hosts[0].cpu_percent
        ),
        (1, 700, 200)
    );
    assert_eq!(view.vms.len(), 1);
    assert_eq!((view.vms[0].memory_mb, view.vms[0].cpu_percent), (340, 100));
    assert_eq!(view.vms[0].tag, Some(tag("n1", 1)));
    assert_eq!(view.vms[0].host, Some(host.clone()));
    first
}

fn the_second_fills_the_host(lab: &Lab, qemu: &Qemu, host: &HostName) -> VmId {
    let second = qemu.create(&tag("n2", 4), host, &VmSpec::of_node(SHAPE)).unwrap();
    lab.ready(qemu, &second);
    let third = qemu
        .create(&tag("n3", 1), host, &VmSpec::of_node(SHAPE))
        .unwrap_err();
    assert_eq!(third.class(), ErrorClass::Full, "{third}");
    assert!(!lab.vm_folder(&VmId::new("n3.1").unwrap()).exists());
    second
}

/// Each has the identity that it was given.
fn answers_at_its_address(lab: &Lab, id: &VmId) {
    let record = std::fs::read_to_string(lab.vm_folder(id).join("vm.json")).unwrap();
    let address = record
        .split("\"address\": \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let ping = Command::new("busybox")
        .args(["ping", "-c", "1", "-W", "5", address])
        .output()
        .unwrap();
    assert!(
        ping.status.success(),
        "{id} at {address}: {}",
        String::from_utf8_lossy(&ping.stdout)
    );
}

/// Paused for a while, as whoever suspends, saves or moves a VM does.
fn goes_on_with_the_right_time(lab: &Lab, id: &VmId) {
    const AWAY: Duration = Duration::from_secs(4);
    let console = lab.vm_folder(id).join("console.log");
    let set = || {
        let text = std::fs::read_to_string(&console).unwrap();
        let line = text.lines().rfind(|line| line.contains("the clock was at"));
        line.map(|line| line.trim().to_owned())
    };
    assert_eq!(set(), None, "nothing is wrong with it before");
    // Sockets' addresses are short.
    let folder = lab.folder.path().join("vm");
    std::os::unix::fs::symlink(lab.vm_folder(id), &folder).unwrap();
    let mut monitor = UnixStream::connect(folder.join("qmp.sock")).unwrap();
    let mut answers = BufReader::new(monitor.try_clone().unwrap()).lines();
    let mut order = |command: &str| {
        writeln!(monitor, "{{\"execute\": \"{command}\"}}").unwrap();
        let done = answers.find(|line| line.as_ref().unwrap().contains("\"return\""));
        assert!(done.is_some(), "QEMU answers {command}");
    };
    order("qmp_capabilities");
    order("stop");
    std::thread::sleep(AWAY);
    order("cont");
    let words = until_some(
        Duration::from_secs(30),
        PAUSE,
        || std::fs::read_to_string(&console).unwrap(),
        set,
    );
    let seen = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    println!("{id} at {seen}: {words}");
    let numbers = words.split([' ', ',', ':']).filter_map(|word| word.parse().ok());
    let numbers: Vec<u64> = numbers.collect();
    let [was, is] = numbers[..] else {
        panic!("two times: {words}")
    };
    let away = AWAY.as_secs();
    assert!((away - 2..=away + 2).contains(&(is - was)), "{words}");
    // What is seen later than it was said only makes this larger.
    assert!(is <= seen && seen - is <= 20, "seen at {seen}: {words}");
}

/// Killed from outside, while the controller is there.
fn a_killed_one_is_seen(lab: &Lab, qemu: &Qemu, first: &VmId) {
    assert!(
        Command::new("kill")
            .args(["-9", &pid(lab, first)])
            .status()
            .unwrap()
            .success()
    );
    let dead = lab.wait(qemu, first, Duration::from_secs(5), |state| {
        matches!(state, VmState::Dead(_))
    });
    println!("{dead:?}");
    qemu.destroy(first).unwrap();
    qemu.destroy(first).unwrap();
    assert!(!lab.vm_folder(first).exists());
}

/// The controller goes away and another takes up what runs.
fn another_takes_up_what_runs(lab: &Lab, qemu: Qemu, second: &VmId) -> Qemu {
    let process = pid(lab, second);
    drop(qemu);
    // What a controller leaves that is killed between making a folder and starting QEMU.
    let half = VmId::new("n9.1").unwrap();
    std::fs::create_dir(lab.vm_folder(&half)).unwrap();
    let qemu = lab.open();
    let never = lab.wait(&qemu, &half, Duration::ZERO, |state| {
        matches!(state, VmState::Dead(_))
    });
    assert_eq!(never, VmState::Dead("QEMU was never started".to_owned()));
    qemu.destroy(&half).unwrap();
    lab.wait(&qemu, second, Duration::from_secs(20), |state| {
        *state == VmState::Ready
    });
    assert_eq!(pid(lab, second), process);
    // Not by its beginning: without slurmctld, slurmd may have been started again meanwhile.
    let story = qemu.timeline(second);
    let told_as = |word: &str| story.iter().filter(|(_, what)| what == word).count();
    for word in ["guest prepared", "slurmd started"] {
        assert_eq!(told_as(word), 1, "the story is not told twice: {story:?}");
    }
    assert_eq!(told(&qemu, second, "context sent"), 1);
    qemu
}

fn all_ends(qemu: &Qemu, second: &VmId, process: &str) {
    let started = Instant::now();
    qemu.destroy(second).unwrap();
    println!("ended in {:?}", started.elapsed());
    assert!(qemu.observe().unwrap().vms.is_empty());
    // The test is the first process here and reaps nobody: a dead one has no command line.
    let command = std::fs::read_to_string(Path::new("/proc").join(process).join("cmdline"));
    assert_eq!(command.unwrap_or_default(), "");
    let links = Command::new("ip").args(["-o", "link"]).output().unwrap();
    let links = String::from_utf8(links.stdout).unwrap();
    assert!(
        !links.contains(": th0") && !links.contains(": tm"),
        "taps are left:\n{links}"
    );
}

#[test]
fn vms_boot_die_are_adopted_and_end() {
    isolated("vms_boot_die_are_adopted_and_end", || life(false));
}

#[test]
fn vms_start_from_a_template() {
    isolated("vms_start_from_a_template", || life(true));
}

/// Jobs' VMs have sizes that nobody has a template for.
#[test]
fn vms_of_any_size_have_what_was_promised() {
    isolated("vms_of_any_size_have_what_was_promised", || {
        let lab = Lab::new(false);
        let host = Host {
            name: HostName::new("h1").unwrap(),
            cpus: 4,
            memory_mb: 5000,
        };
        let settings = Settings {
            hosts: vec![host.clone()],
            ..lab.settings()
        };
        let qemu = Qemu::open(settings, Arc::new(|| ())).unwrap();
        qemu.prepare(&[], &|words| println!("{words}")).unwrap();
        let spec = |cpus, memory_mb| VmSpec {
            job: Some(JobId(42)),
            owner: Some(JobOwner {
                uid: 1234,
                leader: JobId(42),
            }),
            ..VmSpec::of_node(Shape {
                cpus,
                memory_mb,
                share_percent: 50,
            })
        };
        // Above 3 GiB in all, some of a guest's memory is beyond 4 GiB.
        let sizes = [(1, 64), (3, 700), (2, 3000)];
        for (n, (cpus, memory_mb)) in sizes.into_iter().enumerate() {
            let tag = tag(&format!("n{n}"), 1);
            let id = qemu.create(&tag, &host.name, &spec(cpus, memory_mb)).unwrap();
            lab.ready(&qemu, &id);
            let view = qemu.observe().unwrap();
            assert_eq!(view.vms[0].cpu_percent, cpus * 50, "its share is its job's");
            let record = std::fs::read_to_string(lab.vm_folder(&id).join("vm.json")).unwrap();
            assert!(record.contains("\"job\": 42"), "{record}");
            let console = std::fs::read_to_string(lab.vm_folder(&id).join("console.log")).unwrap();
            let seen = console
                .lines()
                .find(|line| line.contains(" MiB of memory"))
                .unwrap();
            println!("{cpus} CPUs and {memory_mb} MiB promised: {seen}");
            let numbers: Vec<u64> = seen.split(' ').filter_map(|word| word.parse().ok()).collect();
            assert_eq!(numbers[0], u64::from(cpus), "{seen}");
            assert!(numbers[1] >= memory_mb, "{memory_mb} MiB promised: {seen}");
            qemu.destroy(&id).unwrap();
        }

        // What there is not is said, and makes nothing.
        for (gpus, options, said) in [
            (0, "template=big", "cannot provide template big (--vm-template)"),
            (0, "image=rocky", "cannot provide image rocky (--vm-image)"),
            (
                2,
                "",
                "cannot provide 2 GPUs: the VMs of provider \"qemu\" have no devices",
            ),
        ] {
            let spec = VmSpec {
                gpus,
                options: VmOptions::parse(options).unwrap(),
                ..spec(1, 64)
            };
            let error = qemu.create(&tag("n9", 1), &host.name, &spec).unwrap_err();
            assert_eq!(error.class(), ErrorClass::Refused);
            assert!(error.to_string().starts_with(said), "{error}");
        }
        assert!(qemu.observe().unwrap().vms.is_empty());
    });
}

#[test]
fn people_come_to_a_running_guest_and_strangers_get_no_vm() {
    isolated("people_come_to_a_running_guest_and_strangers_get_no_vm", || {
        let lab = Lab::new(false);
        let open = || {
            let mut settings = lab.settings();
            settings.guest.everybody = true;
            let qemu = Qemu::open(settings, Arc::new(|| ())).unwrap();
            qemu.prepare(&[], &|_| ()).unwrap();
            qemu
        };
        let qemu = open();
        let host = HostName::new("h1").unwrap();
        // Of no system that this runs on.
        let stranger = 4_000_000;
        let spec = VmSpec {
            job: Some(JobId(7)),
            owner: Some(JobOwner {
                uid: stranger,
                leader: JobId(7),
            }),
            ..VmSpec::of_node(SHAPE)
        };
        let error = qemu.create(&tag("n2", 1), &host, &spec).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Refused);
        assert!(error.to_string().contains("no user with uid 4000000"), "{error}");
        assert!(qemu.observe().unwrap().vms.is_empty());

        let id = qemu
            .create(&tag("n1", 1), &host, &VmSpec::of_node(SHAPE))
            .unwrap();
        lab.ready(&qemu, &id);
        // daemon; and one who was there from the start.
        for uid in [1, 1234] {
            qemu.welcome(&id, uid, Leftovers::Keep).unwrap();
        }
        assert!(qemu.welcome(&id, stranger, Leftovers::Keep).is_err());
        let people = lab.vm_folder(&id).join("people.json");
        let people: serde_json::Value = serde_json::from_slice(&std::fs::read(people).unwrap()).unwrap();
        assert_eq!(people["arrived"], serde_json::json!([1, 1234]));
        let console = lab.vm_folder(&id).join("console.log");
        let words = [vec![b'x'; 3 << 19], b"\nthe last words\n".to_vec()].concat();
        std::fs::write(&console, words).unwrap();
        qemu.observe().unwrap();
        assert!(std::fs::metadata(&console).unwrap().len() < 1 << 20);
        assert!(qemu.last_words(&id).unwrap().contains("the last words"));
        assert_eq!(qemu.sees(&id, Path::new("/nowhere")), Some(false));
        assert_eq!(qemu.sees(&VmId::new("n9.1").unwrap(), Path::new("/")), None);
        drop(qemu);
        let qemu = open();
        qemu.welcome(&id, 1, Leftovers::Remove).unwrap();
        qemu.destroy(&id).unwrap();
    });
}

#[test]
fn a_size_that_is_asked_for_often_gets_a_template() {
    isolated("a_size_that_is_asked_for_often_gets_a_template", || {
        let lab = Lab::new(true);
        let qemu = Qemu::open(lab.settings(), Arc::new(|| ())).unwrap();
        qemu.prepare(&[], &|words| println!("{words}")).unwrap();
        let host = HostName::new("h1").unwrap();
        let make = |generation| {
            let id = qemu
                .create(&tag("n1", generation), &host, &VmSpec::of_node(SHAPE))
                .unwrap();
            let restored = told(&qemu, &id, "guest restored") == 1;
            if restored {
                lab.ready(&qemu, &id);
            }
            qemu.destroy(&id).unwrap();
            restored
        };
        assert_eq!([1, 2, 3].map(make), [false; 3]);
        let templates = lab.settings().state_dir.join("templates");
        let whole = || {
            let folders = std::fs::read_dir(&templates).unwrap().flatten();
            let mut names = folders.map(|folder| folder.file_name().to_string_lossy().into_owned());
            names.any(|name| !name.contains("new"))
        };
        let limit = Duration::from_secs(120);
        until_some(limit, PAUSE, || "a template".to_owned(), || whole().then_some(()));
        std::thread::sleep(Duration::from_millis(200));
        assert!(make(4), "it starts from the template");
        // It is of the work beside: the next start has what is asked for only.
        let prepared = qemu.prepare(&[of_vm(SHAPE)], &|_| ()).unwrap();
        let price = prepared.warm[0].1.clone().unwrap();
        assert!((20..340).contains(&price), "{price} MiB on disk");
    });
}

#[test]
fn a_broken_template_costs_no_vm() {
    isolated("a_broken_template_costs_no_vm", || {
        let lab = Lab::new(true);
        let host = HostName::new("h1").unwrap();
        let qemu = lab.open();
        let templates = lab.settings().state_dir.join("templates");
        let states = || -> Vec<PathBuf> {
            let folders = std::fs::read_dir(&templates).unwrap().flatten();
            folders
                .map(|folder| folder.path().join("state"))
                .filter(|state| state.exists())
                .collect()
        };
        let [state] = &states()[..] else {
            panic!("one template: {:?}", states())
        };
        let saved = std::fs::metadata(state).unwrap().len();
        std::fs::write(state, vec![0xab; 4096]).unwrap();

        let id = qemu
            .create(&tag("n1", 1), &host, &VmSpec::of_node(SHAPE))
            .unwrap();
        assert_eq!(
            told(&qemu, &id, "not restored, boots instead"),
            1,
            "{:?}",
            qemu.timeline(&id)
        );
        lab.ready(&qemu, &id);

        // It is made anew meanwhile, and the next VM starts from it.
        until_some(
            Duration::from_secs(90),
            PAUSE,
            || format!("a new template: {:?}", states()),
            || {
                std::fs::metadata(state)
                    .is_ok_and(|meta| meta.len() == saved)
                    .then_some(())
            },
        );
        std::thread::sleep(Duration::from_millis(500));
        let next = qemu
            .create(&tag("n2", 1), &host, &VmSpec::of_node(SHAPE))
            .unwrap();
        lab.ready(&qemu, &next);
        assert_eq!(told(&qemu, &next, "guest restored"), 1);
        for id in [id, next] {
            qemu.destroy(&id).unwrap();
        }
    });
}

/// Of a file of the same size with other bytes.
#[test]
fn what_is_damaged_is_found_by_its_sum_and_made_anew() {
    isolated("what_is_damaged_is_found_by_its_sum_and_made_anew", || {
        let lab = Lab::new(true);
        // One of its own: other tests start guests from the other.
        let settings = Settings {
            cache_dir: lab.folder.path().join("cache"),
            ..lab.settings()
        };
        let copied = Command::new("cp")
            .arg("-r")
            .args([&lab.settings().cache_dir, &settings.cache_dir])
            .status();
        assert!(copied.unwrap().success());
        let prepared = || -> (Vec<PathBuf>, Vec<String>) {
            let words = std::cell::RefCell::new(Vec::new());
            let qemu = Qemu::open(settings.clone(), Arc::new(|| ())).unwrap();
            let prepared = qemu
                .prepare(&[of_vm(SHAPE)], &|said| words.borrow_mut().push(said.to_owned()))
                .unwrap();
            assert!(prepared.warm[0].1.is_ok(), "{:?}", prepared.warm);
            let image = thiao_qemu::image::prepare(
                &settings.cache_dir,
                &settings.agent,
                settings.slurm.as_ref(),
                None,
                &|said| panic!("{said}: it was made by then"),
            )
            .unwrap();
            let templates = std::fs::read_dir(settings.state_dir.join("templates")).unwrap();
            let memory = templates
                .map(|folder| folder.unwrap().path().join("memory"))
                .next()
                .unwrap();
            (vec![image.kernel, image.initramfs, memory], words.into_inner())
        };
        let (files, _) = prepared();
        let again = prepared();
        assert_eq!(again, (files.clone(), vec![]), "nothing is made twice");
        for (file, said) in
            files
                .iter()
                .zip(["unpacking", "writing the guest image", "damaged: it is made anew"])
        {
            let good = std::fs::read(file).unwrap();
            // Somewhere in what is written of it.
            let at = good.iter().rposition(|byte| *byte != 0).unwrap();
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(file, &bad).unwrap();
            let (_, words) = prepared();
            assert!(
                words.iter().any(|words| words.contains(said)),
                "{said}: {words:?}"
            );
            assert_ne!(std::fs::read(file).unwrap(), bad, "{}", file.display());
        }
        assert_eq!(prepared().1, Vec::<String>::new());
    });
}
