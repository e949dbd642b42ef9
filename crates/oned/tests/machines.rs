//! Real VMs as OpenNebula would make them: told by a context disc, heard by
//! OneGate. There is no slurmctld here: slurmd is started and gets no answer.

#![allow(clippy::unwrap_used, reason = "these helpers fail their test by it")]

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use thiao_core::ids::{ClusterName, HostName};
use thiao_guest::auth::Auth;
use thiao_guest::protocol::OneContext;
use thiao_guest::secret::Secret;
use thiao_oned::machines::{Machines, Nic, Seen, VmSpec};
use thiao_oned::qemu::QemuMachines;
use thiao_qemu::image::Image;
use thiao_qemu::net::Network;
use thiao_qemu::{AccelChoice, Credentials, GuestSettings, Host, Settings};
use thiao_testkit::guest::{self, SLURMCTLD_PORT};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 231, 10, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 231, 10, 77);
const ONEGATE_PORT: u16 = 5030;

fn settings(folder: &Path) -> Settings {
    Settings {
        cluster: ClusterName::new("one").unwrap(),
        state_dir: folder.join("state"),
        cache_dir: guest::cache(),
        hosts: vec![Host {
            name: HostName::new("h1").unwrap(),
            cpus: 2,
            memory_mb: 700,
        }],
        network: Network {
            bridge: "thbr-one".to_owned(),
            address: GATEWAY,
            prefix_len: 24,
        },
        guests: thiao_qemu::Guests::Small,
        tmp_gb: 1,
        nodesets: std::collections::BTreeMap::new(),
        nodes: std::collections::BTreeMap::new(),
        accel: AccelChoice::Tcg,
        warm: false,
        templates_max: 8,
        overhead_mb: 0,
        slurm: Ok(guest::slurm()),
        guest: GuestSettings {
            slurmctld_host: "head".to_owned(),
            slurmctld_addr: GATEWAY,
            slurmctld_port: SLURMCTLD_PORT,
            backups: vec![],
            slurm_user: "slurm".to_owned(),
            credentials: Credentials::Munge {
                key: "/nonexistent/munge.key".into(),
                socket: "/run/lab/munge.socket".into(),
            },
            users: vec![],
            everybody: false,
            homes: false,
            mounts: vec![],
            resolver: Default::default(),
            shares: vec![],
        },
        fence: None,
        agent: guest::agent(),
        program: "/nonexistent/thiao".into(),
    }
}

fn spec(id: u32) -> VmSpec {
    let told = OneContext {
        id: format!("fg{id}.1"),
        hostname: format!("fg{id}"),
        slurmctld_host: "head".to_owned(),
        slurmctld_addr: GATEWAY,
        slurmctld_port: SLURMCTLD_PORT,
        backups: vec![],
        auth: Auth::Munge {
            munge_key: Secret::from_bytes(&[7; 128]),
            munge_socket: "/run/lab/munge.socket".into(),
        },
        users: vec![],
        groups: vec![],
        shares: vec![],
        resolver: Default::default(),
    };
    let context = [
        ("ETH0_IP", ADDRESS.to_string()),
        ("ETH0_MAC", "02:00:0a:e7:0a:4d".to_owned()),
        ("ETH0_MASK", "255.255.255.0".to_owned()),
        ("ETH0_GATEWAY", GATEWAY.to_string()),
        ("NETWORK", "YES".to_owned()),
        ("ONEGATE_ENDPOINT", format!("http://{GATEWAY}:{ONEGATE_PORT}")),
        ("SET_HOSTNAME", format!("fg{id}")),
        ("NOTE", "it's\nodd".to_owned()),
        (
            "THIAO_CONTEXT",
            STANDARD.encode(serde_json::to_vec(&told).unwrap()),
        ),
        ("TOKEN", "YES".to_owned()),
        ("VMID", id.to_string()),
    ];
    VmSpec {
        id,
        name: format!("c-fg{id}-1"),
        host: "h1".to_owned(),
        vcpu: 1,
        cpu_percent: 100,
        memory_mb: 340,
        nics: vec![Nic {
            network: "vms".to_owned(),
            ip: ADDRESS,
            mac: "02:00:0a:e7:0a:4d".to_owned(),
            mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
            gateway: Some(GATEWAY),
            passes: None,
        }],
        context: context
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        user_template: BTreeMap::new(),
        onegate_token: Some("c2VjcmV0".to_owned()),
    }
}

/// A OneGate that is busy at first, then takes everything; what it was asked comes out.
fn onegate() -> Receiver<String> {
    let listener = TcpListener::bind((GATEWAY, ONEGATE_PORT)).unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"READY=YES") {
                let mut chunk = [0; 1024];
                let got = stream.read(&mut chunk).unwrap();
                assert!(got > 0, "{}", String::from_utf8_lossy(&asked));
                asked.extend_from_slice(&chunk[..got]);
            }
            let answer = if count == 0 {
                "503 Service Unavailable"
            } else {
                "200 OK"
            };
            write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").unwrap();
            tell.send(String::from_utf8(asked).unwrap()).unwrap();
        }
    });
    told
}

fn wait_ended(machines: &QemuMachines, id: u32, limit: Duration) -> bool {
    let started = Instant::now();
    while machines.poll() != [(id, Seen::Ended)] {
        if started.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

fn life() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    settings.network.ensure_bridge().unwrap();
    guest::silent_slurmctld(GATEWAY);
    let asked = onegate();
    let console = |id: u32| {
        let path = folder.path().join(format!("state/vms/one-{id}.1/console.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    };

    let (machines, _) = QemuMachines::open(settings.clone(), &|words| println!("{words}")).unwrap();
    let spec = spec(42);
    let started = Instant::now();
    machines.start(&spec).unwrap();
    machines.start(&spec).unwrap();
    assert_eq!(machines.poll(), [(42, Seen::Running)]);
    let limit = Duration::from_secs(90);
    let first = asked
        .recv_timeout(limit)
        .unwrap_or_else(|_| panic!("{}", console(42)));
    println!("ready after {:?}", started.elapsed());
    assert!(
        first.contains("X-ONEGATE-TOKEN: c2VjcmV0\r\n") && first.contains("X-ONEGATE-VMID: 42\r\n"),
        "{first}"
    );
    // The first one was refused.
    let again = asked
        .recv_timeout(limit)
        .unwrap_or_else(|_| panic!("{}", console(42)));
    assert_eq!(first, again);
    let ping = Command::new("busybox")
        .args(["ping", "-c", "1", "-W", "5", &ADDRESS.to_string()])
        .output()
        .unwrap();
    assert!(ping.status.success(), "{}", console(42));
    let secret = console(42).contains("c2VjcmV0") || console(42).contains("07070707");
    assert!(!secret, "{}", console(42));

    // The stand-in goes away; the next one finds the machine.
    drop(machines);
    let (machines, _) = QemuMachines::open(settings, &|words| println!("{words}")).unwrap();
    assert_eq!(machines.poll(), [(42, Seen::Running)]);

    let pressed = Instant::now();
    machines.stop(42, false).unwrap();
    assert!(
        wait_ended(&machines, 42, Duration::from_secs(60)),
        "it does not know the button: {}",
        console(42)
    );
    println!("off after {:?}", pressed.elapsed());
    machines.remove(42).unwrap();
    assert!(machines.poll().is_empty());

    // One that is told nonsense ends, and says why on its console.
    let mut odd = self::spec(43);
    odd.context.insert("THIAO_CONTEXT".to_owned(), "e30=".to_owned());
    machines.start(&odd).unwrap();
    assert!(wait_ended(&machines, 43, limit), "{}", console(43));
    assert!(
        console(43).contains("THIAO_CONTEXT is not what this guest knows"),
        "{}",
        console(43)
    );
    machines.remove(43).unwrap();

    // At once, while it boots.
    machines.start(&self::spec(44)).unwrap();
    machines.stop(44, true).unwrap();
    assert!(wait_ended(&machines, 44, Duration::from_secs(60)));
    machines.remove(44).unwrap();
    machines.remove(44).unwrap();
    assert!(machines.poll().is_empty());
}

/// A whole machine, as OpenNebula's drivers describe one to libvirt: IDE, PCI, no channel of ours.
fn full_machine(image: &Image, folder: &Path, machine: &[&str]) -> String {
    let onegate = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = onegate.local_addr().unwrap().port();
    let mut spec = spec(7);
    for (name, value) in [
        ("ETH0_IP", "10.0.2.15".to_owned()),
        ("ETH0_GATEWAY", "10.0.2.2".to_owned()),
        // QEMU's own network leads its gateway's ports to this machine's loopback.
        ("ONEGATE_ENDPOINT", format!("http://10.0.2.2:{port}")),
    ] {
        spec.context.insert(name.to_owned(), value);
    }
    let text: String = spec
        .context
        .iter()
        .map(|(name, value)| format!("{name}='{}'\n", value.replace('\'', "'\\''")))
        .collect();
    let files = BTreeMap::from([("context.sh", text.as_bytes()), ("token.txt", &b"c2VjcmV0"[..])]);
    std::fs::write(
        folder.join("context.iso"),
        thiao_qemu::iso::disc("CONTEXT", &files).unwrap(),
    )
    .unwrap();
    let mut qemu = Command::new("qemu-system-x86_64")
        .current_dir(folder)
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-m",
            "400",
            "-nodefaults",
        ])
        .args([
            "-display",
            "none",
            "-serial",
            "file:console.log",
            "-netdev",
            "user,id=n",
        ])
        .args(["-device", "virtio-net-pci,netdev=n,mac=02:00:0a:e7:0a:4d"])
        .args(["-drive", "if=none,id=c,format=raw,readonly=on,file=context.iso"])
        .args(machine)
        .args([
            "-append",
            "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off",
        ])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initramfs)
        .spawn()
        .unwrap();
    let started = Instant::now();
    onegate.set_nonblocking(true).unwrap();
    let console = || std::fs::read_to_string(folder.join("console.log")).unwrap_or_default();
    let heard = loop {
        match onegate.accept() {
            Ok((mut stream, _)) => {
                let mut asked = [0; 4096];
                stream.set_nonblocking(false).unwrap();
                let got = stream.read(&mut asked).unwrap();
                break String::from_utf8_lossy(&asked[..got]).into_owned();
            }
            Err(_) if started.elapsed() < Duration::from_secs(90) && qemu.try_wait().unwrap().is_none() => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(e) => {
                let _ = qemu.kill();
                panic!("{machine:?}: {e}: {}", console());
            }
        }
    };
    println!("{machine:?}: ready after {:?}", started.elapsed());
    qemu.kill().unwrap();
    qemu.wait().unwrap();
    heard
}

#[test]
fn guests_of_full_machines_are_told_by_their_cd() {
    let image = guest::build();
    for machine in [
        // OpenNebula's default: a CD at the IDE controller of the old chipset.
        ["-M", "pc", "-device", "ide-cd,drive=c"],
        ["-M", "q35", "-device", "virtio-blk-pci,drive=c"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let heard = full_machine(&image, folder.path(), &machine);
        assert!(
            heard.starts_with("PUT /vm ") && heard.contains("X-ONEGATE-VMID: 7\r\n"),
            "{heard}"
        );
    }
}

#[test]
fn vms_are_told_by_disc_and_say_that_they_are_ready() {
    thiao_testkit::isolated::isolated_after(
        "vms_are_told_by_disc_and_say_that_they_are_ready",
        || drop(guest::build()),
        life,
    );
}
