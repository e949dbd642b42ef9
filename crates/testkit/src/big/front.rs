//! A front-end with our VMs, in a process of its own: its work is not the controller's.

use super::site::{self, Size};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use thiao_config::ProviderSettings;
use thiao_core::ids::{Generation, HostName, NodeName, VmTag};
use thiao_core::view::{Shape, VmSpec};
use thiao_oned::{HostSetup, Lcm, Oned, Settings, State, TemplateSetup};
use thiao_opennebula::OpenNebula;

/// The word that makes this program a front-end.
pub const WORD: &str = "front";

/// Threads that make the VMs.
const MAKERS: usize = 8;

/// The front-end's process, as the controller's has it. It ends with that one.
pub struct Front {
    _child: Child,
    ask: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Front {
    /// Starts that of the site in `dir`. When this returns, all VMs run, and `dir` has the settings for them.
    pub fn start(dir: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(WORD)
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (ask, said) = (child.stdin.take(), child.stdout.take());
        let mut front = Self {
            _child: child,
            ask: ask.context("no pipe")?,
            said: BufReader::new(said.context("no pipe")?),
        };
        if front.line()? != "ready" {
            bail!("the front-end did not start");
        }
        Ok(front)
    }

    /// Calls seen so far, by method.
    pub fn calls(&mut self) -> anyhow::Result<BTreeMap<String, u64>> {
        writeln!(self.ask)?;
        let line = self.line()?;
        let pairs = line.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(method, count)| Ok((method.to_owned(), count.parse()?)))
            .collect()
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

/// Is the front-end until nobody asks any more.
pub fn be(dir: &Path) -> anyhow::Result<()> {
    let size = Size::read(dir)?;
    let host = |n| HostSetup {
        name: format!("h{n}"),
        cpu_percent: 6400,
        memory_mb: 256_000,
        cluster: Default::default(),
    };
    let oned = Oned::start(Settings {
        // Guests that are played do not go there.
        onegate_endpoint: Some("http://127.0.0.1:9".to_owned()),
        hosts: (0..size.hosts).map(host).collect(),
        templates: vec![TemplateSetup {
            name: "worker".to_owned(),
            body: "CPU=1\nMEMORY=1000\nCONTEXT=[NETWORK=\"YES\"]\n".to_owned(),
            public: true,
        }],
        ..Settings::default()
    })?;
    for (file, text) in [
        ("one_auth", "oneadmin:opennebula"),
        ("munge.key", &"k".repeat(128)),
    ] {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(dir.join(file))?;
        file.write_all(text.as_bytes())?;
    }
    let more = format!(
        "[opennebula]\nendpoint = {:?}\nauth = {:?}\nmunge_key = {:?}\nready = {:?}\n\
         events = \"off\"\nslurmctld_host = \"head\"\nslurmctld_addr = \"127.0.0.1\"\n",
        oned.endpoint(),
        dir.join("one_auth"),
        dir.join("munge.key"),
        if size.waiting > 0 { "onegate" } else { "slurm" },
    );
    let config = site::configure(
        dir,
        "provider = \"opennebula\"\n",
        "template = \"worker\"\n",
        &more,
    )?;
    let ProviderSettings::OpenNebula(mut settings) = config.provider else {
        bail!("the settings are of another provider");
    };
    settings.access.requests_per_second = 0;
    make(&OpenNebula::open(settings)?, size)?;
    let running = |vm: &thiao_oned::VmView| vm.state == State::Active(Lcm::Running);
    while oned.vms().iter().filter(|vm| running(vm)).count() < size.vms {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for vm in oned.vms() {
        let node = vm.tags.get("THIAO_NODE").and_then(|name| name.strip_prefix('n'));
        if node
            .and_then(|n| n.parse::<usize>().ok())
            .is_some_and(|n| n >= size.waiting)
        {
            oned.set_tag(vm.id, "READY", Some("YES"));
        }
    }
    println!("ready");
    for _ in std::io::stdin().lines() {
        let calls = oned.all_calls();
        let pairs: Vec<String> = calls.iter().map(|(method, n)| format!("{method}={n}")).collect();
        println!("{}", pairs.join(" "));
    }
    Ok(())
}

/// Makes all VMs, as a controller would.
fn make(provider: &OpenNebula, size: Size) -> anyhow::Result<()> {
    let shape = Shape {
        cpus: 1,
        memory_mb: 1000,
        share_percent: 100,
    };
    let cluster = thiao_core::ids::ClusterName::new("bench")?;
    let next = AtomicUsize::new(0);
    let work = || -> anyhow::Result<()> {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= size.vms {
                return Ok(());
            }
            let tag = VmTag {
                cluster: cluster.clone(),
                node: NodeName::new(&format!("n{n}"))?,
                generation: Generation(1),
            };
            let host = HostName::new(&format!("h{}", n % size.hosts))?;
            provider.create(&tag, &host, &VmSpec::of_node(shape), false)?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..MAKERS).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })
}
