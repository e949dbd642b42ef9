//! A day: a site, a stand-in oned with two hosts, and a controller that can be killed.

use crate::site::{RESUME, Site};
use crate::wait::until;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;
use thiao_core::hostlist;
use thiao_core::spool::IntentKind;
use thiao_oned::settings::{HostSetup, NetworkSetup, Settings, TemplateSetup, UserSetup};
use thiao_oned::{Lcm, Oned, State, VmView};

/// A site with OpenNebula. Dropping it ends the controller.
pub struct Day {
    /// What stands in for Slurm.
    pub site: Site,
    /// What stands in for OpenNebula.
    pub oned: Oned,
    controller: Option<Child>,
    nodes: usize,
    /// What the controller is started with beside its own environment.
    pub environment: Vec<(&'static str, PathBuf)>,
}

/// The password of the service user, whom every test's controller is.
const SECRET: &str = "slurm:secret";

impl Day {
    /// A day with that many nodes `n0`, `n1`, ...
    pub fn new(nodes: usize) -> Self {
        Self::with(nodes, |_| (), "")
    }

    /// The same, with more to say of oned and in `thiao.toml`.
    pub fn with(nodes: usize, change: impl FnOnce(&mut Settings), toml: &str) -> Self {
        let user = UserSetup::of_cluster("slurm", "secret");
        let host = |name: &str| HostSetup {
            name: name.into(),
            cpu_percent: 200_000,
            memory_mb: 4_000_000,
            cluster: Default::default(),
        };
        let mut settings = Settings {
            users: vec![UserSetup::new("oneadmin", "opennebula"), user],
            hosts: vec![host("h0"), host("h1")],
            networks: vec![NetworkSetup {
                name: "cluster".into(),
                first: Ipv4Addr::new(10, 9, 0, 10),
                size: 60_000,
                template: BTreeMap::new(),
                public: true,
                clusters: vec![0],
            }],
            templates: vec![TemplateSetup {
                name: "worker".into(),
                body: "CPU=\"1\"\nMEMORY=\"64\"\nNIC=[NETWORK=\"cluster\"]\nCONTEXT=[NETWORK=\"YES\"]\n"
                    .into(),
                public: true,
            }],
            ..Settings::default()
        };
        change(&mut settings);
        let oned = Oned::start(settings).unwrap();
        // One that listens anywhere else than to this day's bus would hear that of another site.
        let events = match oned.bus_address() {
            Some(address) => format!("events = \"tcp://{address}\""),
            None => "events = \"off\"".to_owned(),
        };
        let last = nodes - 1;
        let site = Site::new(&format!(
            r#"provider = "opennebula"
[[nodeset]]
name = "n"
nodes = "n[0-{last}]"
memory_mb = 100
template = "worker"
[timing]
tick = 0.1
slurm_poll = 0.1
slurm_poll_busy = 0.1
vm_poll = 0.1
vm_poll_busy = 0.1
retry_first = 0.3
retry_max = 1
orphan_grace = 1
missing_grace = 1
terminate_grace = 1
breaker_pause = 0.5
opennebula_timeout = 5
{toml}
[opennebula]
endpoint = "{}"
auth = "@/one_auth"
requests_per_second = 0
{events}
events_poll = 15
slurmctld_host = "head"
slurmctld_addr = "10.9.0.1"
munge_key = ""
"#,
            oned.endpoint()
        ));
        let day = Self {
            site,
            oned,
            controller: None,
            nodes,
            environment: Vec::new(),
        };
        day.write_auth(SECRET);
        let file = day.site.path("thiao.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let dir = day.site.path("");
        let dir = dir.to_str().unwrap().trim_end_matches('/');
        std::fs::write(file, text.replace("\"@/", &format!("\"{dir}/"))).unwrap();
        day.all_nodes_are("idle+cloud+powered_down");
        day
    }

    /// The same with an event bus, and with polls that are minutes apart: what is seen sooner was told.
    pub fn told(nodes: usize, change: impl FnOnce(&mut Settings)) -> Self {
        let with_bus = |settings: &mut Settings| {
            settings.bus = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
            change(settings);
        };
        let day = Self::with(nodes, with_bus, "observation_max_age = 600");
        for (key, value) in [
            ("vm_poll", "500"),
            ("vm_poll_busy", "500"),
            ("events_poll", "500"),
        ] {
            day.set(key, value);
        }
        day
    }

    /// Changes a setting, before the controller is started. It must be there.
    pub fn set(&self, key: &str, value: &str) {
        let file = self.site.path("thiao.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let start = format!("{key} = ");
        assert!(
            text.lines().any(|line| line.starts_with(&start)),
            "{key} in {text}"
        );
        let lines = text.lines().map(|line| match line.starts_with(&start) {
            true => format!("{start}{value}\n"),
            false => format!("{line}\n"),
        });
        std::fs::write(&file, lines.collect::<String>()).unwrap();
    }

    /// Writes the credentials' file.
    pub fn write_auth(&self, session: &str) {
        let part = self.site.path("one_auth.part");
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)
            .and_then(|mut file| writeln!(file, "{session}"))
            .unwrap();
        std::fs::rename(part, self.site.path("one_auth")).unwrap();
    }

    /// What Slurm says of all nodes.
    pub fn all_nodes_are(&self, state: &str) {
        let lines: Vec<String> = (0..self.nodes).map(|n| format!("n{n}|{state}|none")).collect();
        self.site.slurm_says(&lines);
    }

    /// In what state Slurm shows these nodes from now on; the others as before.
    pub fn nodes_are(&self, nodes: &str, state: &str) {
        let names = hostlist::expand(nodes).unwrap();
        let before = std::fs::read_to_string(self.site.path("nodes")).unwrap();
        let lines = before.lines().map(|line| {
            let name = line.split('|').next().unwrap_or_default();
            match names.iter().any(|node| node.as_str() == name) {
                true => format!("{name}|{state}|none"),
                false => line.to_owned(),
            }
        });
        self.site.slurm_says(&lines.collect::<Vec<_>>());
    }

    /// Starts the controller's program.
    pub fn start(&mut self) {
        assert!(self.controller.is_none());
        let log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.site.path("log"))
            .unwrap();
        let child = Command::new(crate::program("thiaod"))
            .arg("--config")
            .arg(self.site.path("thiao.toml"))
            .env_remove("ONE_AUTH")
            .env_remove("ONE_XMLRPC")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stderr(log)
            .spawn()
            .unwrap();
        self.controller = Some(child);
    }

    /// Starts it, and waits until it has given up: its exit code.
    pub fn start_in_vain(&mut self) -> Option<i32> {
        self.start();
        self.controller.take().unwrap().wait().unwrap().code()
    }

    /// The process id of the controller, which runs.
    pub fn pid(&self) -> u32 {
        self.controller.as_ref().unwrap().id()
    }

    /// Whether the controller has ended by itself, without success.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.controller.as_mut().unwrap().try_wait().unwrap();
        assert!(ended.is_none_or(|status| !status.success()));
        ended.is_some()
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.controller.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Slurm asks for nodes: they are powering up, for a job.
    pub fn resume(&mut self, nodes: &str) {
        self.nodes_are(nodes, "allocated+cloud+powering_up");
        self.site.order(RESUME, nodes);
    }

    /// From now on OpenNebula's scheduler places its VMs.
    pub fn placed_by_opennebula(&self) {
        let file = self.site.path("thiao.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let with = "[opennebula]\nplacement = \"opennebula\"\n";
        std::fs::write(file, text.replace("[opennebula]\n", with)).unwrap();
    }

    /// Slurm shows this node up, which has a VM.
    pub fn node_up(&self, node: &str) {
        self.nodes_are(node, "allocated+cloud");
        self.until_logged(&format!("{node} is up"));
    }

    /// Slurm shows all nodes up.
    pub fn nodes_up(&self) {
        self.all_nodes_are("allocated+cloud");
        self.until_logged("is up");
    }

    /// Slurm asks for nodes, and all come up with a job on each.
    pub fn up(&mut self) {
        let last = self.nodes - 1;
        self.resume(&format!("n[0-{last}]"));
        self.start();
        self.until_running(self.nodes);
        self.all_nodes_are("allocated+cloud");
        let jobs = (0..self.nodes).map(|n| (u32::try_from(n + 1).unwrap(), "RUNNING", format!("n{n}")));
        self.site.jobs_are(jobs);
        let nodes = self.nodes;
        until("all nodes are up", || {
            let log = self.log();
            (0..nodes).all(|n| log.contains(&format!("n{n} is up")))
        });
    }

    /// The only node comes up, with VMs of others there that may look like ours.
    pub fn up_beside_others(&mut self) {
        let before = self.oned.vms().len();
        self.resume("n0");
        self.start();
        until("its VM runs", || {
            let vms = self.oned.vms();
            let running = |vm: &VmView| vm.state == State::Active(Lcm::Running);
            vms.len() == before + 1 && vms.iter().any(running)
        });
        self.all_nodes_are("allocated+cloud");
        self.until_logged("n0 is up");
    }

    /// Slurm powers nodes down.
    pub fn suspend(&mut self, nodes: &str) {
        std::fs::write(self.site.path("jobs"), "").unwrap();
        self.nodes_are(nodes, "idle+cloud+powering_down");
        self.site.order(IntentKind::Suspend, nodes);
    }

    /// A node whose loss Slurm was told is given back once it is powered down, and gets a VM again.
    #[track_caller]
    pub fn returns(&mut self, node: &str) {
        self.is_given_back(node);
        self.wakes(node);
    }

    /// A node whose loss Slurm was told is given back once it is powered down, and waits for its next job.
    #[track_caller]
    pub fn is_given_back(&self, node: &str) {
        std::fs::write(self.site.path("jobs"), "").unwrap();
        let before = std::fs::read_to_string(self.site.path("nodes")).unwrap();
        let down = |line: &str| match line.starts_with(&format!("{node}|")) {
            true => format!("{node}|down+cloud+powered_down|thiao: its VM died"),
            false => line.to_owned(),
        };
        self.site
            .slurm_says(&before.lines().map(down).collect::<Vec<_>>());
        let given_back = format!("nodename={node} state=resume");
        until(&format!("{node} is given back"), || {
            self.site.told().to_lowercase().contains(&given_back)
        });
        self.nodes_are(node, "idle+cloud+powered_down");
    }

    /// A node that is powered down and up again gets a VM of its own.
    #[track_caller]
    pub fn wakes_again(&mut self, node: &str) {
        self.suspend(node);
        until(&format!("no VM of {node} is left"), || {
            self.ours().iter().all(|(of, _)| of != node)
        });
        self.nodes_are(node, "idle+cloud+powered_down");
        self.wakes(node);
    }

    /// Slurm asks for a node without a VM, and it comes up.
    #[track_caller]
    fn wakes(&mut self, node: &str) {
        self.resume(node);
        let runs = |(of, vm): &(String, VmView)| of == node && vm.state == State::Active(Lcm::Running);
        until(&format!("a VM of {node} runs"), || self.ours().iter().any(runs));
        self.nodes_are(node, "allocated+cloud");
        self.no_node_has_two();
    }

    /// Our VMs that are there, by node.
    pub fn ours(&self) -> Vec<(String, VmView)> {
        let tagged = |vm: VmView| vm.tags.get("THIAO_NODE").cloned().map(|node| (node, vm));
        self.oned.vms().into_iter().filter_map(tagged).collect()
    }

    /// The VM of the only node.
    pub fn vm(&self) -> u32 {
        let [(_, vm)] = &self.ours()[..] else {
            panic!("{:?}", self.ours())
        };
        vm.id
    }

    /// How many of ours run.
    pub fn running(&self) -> usize {
        let running = |vm: &VmView| vm.state == State::Active(Lcm::Running);
        self.ours().iter().filter(|(_, vm)| running(vm)).count()
    }

    #[track_caller]
    /// Waits until so many VMs run.
    pub fn until_running(&self, count: usize) {
        until(&format!("{count} VMs run"), || self.running() == count);
        self.no_node_has_two();
    }

    #[track_caller]
    /// Waits until no VM is left.
    pub fn until_none(&self) {
        until("none of our VMs is left", || self.ours().is_empty());
    }

    /// Invariant 2, by the tags at OpenNebula: VMs that are held have never run.
    #[track_caller]
    pub fn no_node_has_two(&self) {
        let mut seen = BTreeMap::new();
        for (node, vm) in self.ours().iter().filter(|(_, vm)| vm.state != State::Hold) {
            if let Some(other) = seen.insert(node.clone(), vm.id) {
                panic!("{node} has VMs {other} and {}\n{}", vm.id, self.log());
            }
        }
    }

    /// What the controller logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.site.path("log")).unwrap_or_default()
    }

    #[track_caller]
    /// Waits until the controller's log has this text.
    pub fn until_logged(&self, text: &str) {
        until(&format!("the log says {text:?}"), || self.log().contains(text));
    }

    /// Waits until Slurm was told something.
    #[track_caller]
    pub fn until_told(&self, text: &str) {
        until(&format!("Slurm is told {text:?}"), || {
            self.site.told().contains(text)
        });
    }

    /// Somebody else's call, as oneadmin, with parameters as XML.
    pub fn by_hand(&self, method: &str, params: &[&str]) -> String {
        self.call("oneadmin:opennebula", method, params)
    }

    /// A call as the controller's own user.
    pub fn by_service_user(&self, method: &str, params: &[&str]) -> String {
        self.call(SECRET, method, params)
    }

    /// Somebody else's call that is refused, as oneadmin.
    pub fn refused(&self, method: &str, params: &[&str]) -> String {
        let answer = self.answer("oneadmin:opennebula", method, params);
        assert!(answer.contains("<boolean>0</boolean>"), "{method}: {answer}");
        answer
    }

    fn call(&self, session: &str, method: &str, params: &[&str]) -> String {
        let answer = self.answer(session, method, params);
        assert!(answer.contains("<boolean>1</boolean>"), "{method}: {answer}");
        answer
    }

    fn answer(&self, session: &str, method: &str, params: &[&str]) -> String {
        let params: String = [format!("<string>{session}</string>").as_str()]
            .iter()
            .chain(params)
            .map(|param| format!("<param><value>{param}</value></param>"))
            .collect();
        let body = format!(
            "<?xml version=\"1.0\"?><methodCall><methodName>{method}</methodName><params>{params}</params></methodCall>"
        );
        let endpoint = self.oned.endpoint();
        let address = endpoint.trim_start_matches("http://").trim_end_matches("/RPC2");
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(
            stream,
            "POST /RPC2 HTTP/1.1\r\nHost: oned\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Day {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let end: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the controller's last words");
            end.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
