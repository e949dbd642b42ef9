//! A private slurmctld inside namespaces, for tests: nothing outside is touched and nothing survives.

use crate::ids::node;
use crate::wait::until_some;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use thiao_core::ids::{JobId, NodeName};
use thiao_core::options::OptionRule;
use thiao_core::view::{JobState, SlurmJob, SlurmNode};
use thiao_slurm::conf::{JobLine, NodeLine, Timeouts};
use thiao_slurm::gate::Admission;
use thiao_slurm::lab::{Auth, CGROUP_CONF, Lab};
use thiao_slurm::{Quirks, Slurm, installed_version, lua};

/// Names the lab's folder for the test that runs inside the namespaces.
const INSIDE: &str = "THIAO_TEST_SLURM_DIR";
/// How many nodes have names that resolve.
const NAMED: usize = 20;
/// The longest wait for what should be soon.
const PATIENCE: Duration = Duration::from_secs(60);
/// Names the folder of another Slurm than the one that is found by `PATH`, with `bin` and `sbin` in it.
const PREFIX: &str = "THIAO_TEST_SLURM_PREFIX";
const PROGRAMS: &[(&str, &str)] = &[
    ("slurmctld", "slurmctld"),
    ("slurmd", "slurmd"),
    ("scontrol", "slurm-client"),
    ("munged", "munge"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
];

/// The folder to use when inside the namespaces; outside, runs the test of this name again inside, and
/// fails as it does.
pub fn inside(test: &str) -> Option<PathBuf> {
    let dir = dir();
    if dir.is_none() && is_wanted() {
        run_inside(test, &[]).unwrap_or_else(|why| panic!("{why}"));
    }
    dir
}

/// The folder to use inside the namespaces; none outside.
pub fn dir() -> Option<PathBuf> {
    std::env::var_os(INSIDE).map(PathBuf::from)
}

/// Whether Slurm is to be tested; fails if it is and something is missing.
pub fn is_wanted() -> bool {
    if std::env::var_os("THIAO_SKIP_SLURM").is_some_and(|v| v == "1") {
        eprintln!("skipped: THIAO_SKIP_SLURM=1");
        return false;
    }
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !installed(program))
        .map(|(_, p)| *p)
        .collect();
    assert!(
        missing.is_empty(),
        "install these Debian packages, or set THIAO_SKIP_SLURM=1: {}",
        missing.join(" ")
    );
    true
}

/// Runs a test again inside namespaces of its own, with this in its environment; how it failed, with what
/// its programs logged.
pub fn run_inside(test: &str, environment: &[(&str, &str)]) -> Result<(), String> {
    let dir = tempfile::Builder::new().prefix("thiao-slurm-").tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        // Slurm then runs as this user, who may do in here what root may.
        command.args(["-U", "--map-current-user", "--keep-caps"]);
    }
    command.args(["-n", "-m", "-p", "-f", "--mount-proc", "--kill-child"]);
    command
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"]);
    let status = command
        .env(INSIDE, dir.path())
        .env("PATH", path())
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .status()
        .unwrap();
    if status.success() {
        return Ok(());
    }
    let mut why = String::new();
    for log in [
        "slurmctld.log",
        "ctld.out",
        "backup.log",
        "backup.out",
        "hooks.log",
        "slurmd.n1.log",
        "slurmd.n5.log",
        "munged.log",
    ] {
        let text = std::fs::read_to_string(dir.path().join(log)).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(40).collect();
        let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
        why += &format!("--- {log}\n{tail}\n");
    }
    Err(format!(
        "{why}{test} failed inside the namespaces {environment:?}: {status}"
    ))
}

fn installed(program: &str) -> bool {
    std::env::split_paths(&path()).any(|dir| dir.join(program).is_file())
}

/// `PATH` inside the namespaces: the Slurm under test first.
fn path() -> std::ffi::OsString {
    let prefix = std::env::var_os(PREFIX).map(PathBuf::from).into_iter();
    let prefix = prefix.flat_map(|dir| [dir.join("sbin"), dir.join("bin")]);
    let usual = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    std::env::join_paths(prefix.chain(usual)).unwrap()
}

/// Gives n1 and so on their addresses: from 23.02 on Debian's slurmctld waits for names that do not resolve.
pub fn name_nodes(dir: &Path, count: usize) {
    let hosts = Path::new("/etc/hosts");
    let mut text = std::fs::read_to_string(hosts).unwrap_or_else(|_| {
        std::fs::write(hosts, "").unwrap(); // something to mount on
        String::new()
    });
    (1..=count).for_each(|n| text += &format!("10.9.0.{} n{n}\n", 10 + n));
    let own = dir.join("hosts");
    std::fs::write(&own, text).unwrap();
    call("mount", &["--bind", own.to_str().unwrap(), "/etc/hosts"]);
}

/// A bridge on which slurmctld and the nodes are.
fn make_network() {
    call("ip", &["link", "set", "lo", "up"]);
    call(
        "ip",
        &[
            "link",
            "add",
            "br0",
            "address",
            "02:00:00:00:00:01",
            "type",
            "bridge",
        ],
    );
    call("ip", &["addr", "add", "10.9.0.1/24", "dev", "br0"]);
    call("ip", &["link", "set", "br0", "up"]);
}

/// The lab that tests have where they do not change it.
fn usual_lab(dir: &Path, timeouts: Timeouts) -> Lab {
    Lab {
        quirks: Quirks::of(installed_version(None).unwrap()),
        cluster: "lab".into(),
        host: host_name(),
        address: IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1)),
        slurmctld_port: 7817,
        slurmd_port: 7818,
        user: user_name(),
        state: dir.join("state"),
        log: dir.join("slurmctld.log"),
        pid_file: dir.join("slurmctld.pid"),
        auth: Auth::Munge("/run/munge/munge.socket.2".into()),
        cgroups: false,
        hooks: Some(dir.join("hooks")),
        nodes: vec![NodeLine {
            nodes: "n[1-4]".into(),
            cpus: 1,
            memory_mb: 100,
            features: vec!["vm".into()],
            partition: "vm".into(),
            job: None,
        }],
        default_partition: Some("vm".into()),
        timeouts,
    }
}

/// The program that stands for all hooks and nodes, under their names, and what it reads.
fn write_scripts(lab: &Lab, dir: &Path) {
    std::fs::write(dir.join("path"), path().as_encoded_bytes()).unwrap();
    let servers = format!("10.9.0.1:{}", lab.slurmctld_port);
    std::fs::write(dir.join("servers"), servers).unwrap();
    let script = dir.join("node.sh");
    std::fs::write(&script, include_str!("node.sh")).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    for name in [
        "Resume",
        "Suspend",
        "ResumeFail",
        "PrologSlurmctld",
        "EpilogSlurmctld",
        "Start",
        "Kill",
    ] {
        symlink(&script, dir.join("hooks").join(name)).unwrap();
    }
}

fn slurm_conf(lab: &Lab, dir: &Path) -> String {
    // The nodes' slurmds are on the same file system: each needs a spool of its own. Priorities by age
    // alone are the default up to 22.05.
    let own = format!(
        "SlurmdSpoolDir={}/spool/%n\nSlurmdPidFile={0}/spool/%n.pid\nPriorityType=priority/basic\n",
        dir.display()
    );
    // In a VM slurmd is root; without root here it is this user.
    let text = lab
        .slurm_conf()
        .replace("SlurmdUser=root", &format!("SlurmdUser={}", lab.user));
    // A licence of somebody else's beside ours.
    let text = text.replace("Licenses=", "Licenses=a:4,");
    own + &text
}

fn names<'a>(lines: impl IntoIterator<Item = &'a NodeLine>) -> BTreeSet<NodeName> {
    let expanded = |line: &NodeLine| thiao_core::hostlist::expand(&line.nodes).unwrap();
    lines.into_iter().flat_map(expanded).collect()
}

/// A running slurmctld with cloud nodes n1 to n4.
pub struct Ctld {
    pub dir: PathBuf,
    /// How it is asked.
    pub slurm: Slurm,
    pub conf: PathBuf,
    child: Child,
}

impl Ctld {
    /// Starts it. `change` may change the configuration before.
    pub fn start(dir: PathBuf, timeouts: Timeouts, change: impl FnOnce(&mut Lab)) -> Self {
        name_nodes(&dir, NAMED);
        Self::start_with(dir, timeouts, change, "")
    }

    /// The same with more lines at the end of slurm.conf, and without [`name_nodes`].
    pub fn start_with(dir: PathBuf, timeouts: Timeouts, change: impl FnOnce(&mut Lab), more: &str) -> Self {
        call("mount", &["-t", "tmpfs", "none", "/run"]);
        make_network();
        for part in ["state", "spool", "hooks"] {
            std::fs::create_dir(dir.join(part)).unwrap();
        }
        std::fs::create_dir("/run/munge").unwrap();
        start_munged(&dir);
        let mut lab = usual_lab(&dir, timeouts);
        change(&mut lab);
        write_scripts(&lab, &dir);
        let conf = dir.join("slurm.conf");
        std::fs::write(&conf, slurm_conf(&lab, &dir) + more).unwrap();
        std::fs::write(dir.join("cgroup.conf"), CGROUP_CONF).unwrap();
        let jobs: Vec<&NodeLine> = lab.nodes.iter().filter(|line| line.job.is_some()).collect();
        if !jobs.is_empty() {
            let partitions: Vec<String> = jobs.iter().map(|line| line.partition.clone()).collect();
            let first = partitions.first().map(String::as_str);
            let script = lua::script(&partitions, first, &rules(), None, None);
            std::fs::write(dir.join(lua::FILE), script).unwrap();
        }
        let child = spawn(&conf, &dir);
        let slurm = Slurm::new(Some(conf.clone()), None, Duration::from_secs(20))
            .with_nodes(Arc::new(names(&lab.nodes)))
            .with_job_nodes(Arc::new(names(jobs)));
        let ctld = Self {
            dir,
            slurm,
            conf,
            child,
        };
        ctld.wait_up();
        ctld
    }

    /// Waits until it answers.
    pub fn wait_up(&self) {
        self.until("slurmctld answers", |c| c.slurm.ping().is_ok_and(|p| p.is_up()));
    }

    /// Ends slurmctld and waits for its end.
    pub fn stop(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().unwrap();
    }

    /// Starts it with the state that it saved.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.conf, &self.dir);
        self.wait_up();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Submits a job, which sbatch takes.
    pub fn sbatch(&self, args: &[&str]) -> JobId {
        self.submit(None, args).unwrap()
    }

    /// Submits a job with options for its VMs, as `tsub` does; what sbatch says when it is refused.
    pub fn submit(&self, options: Option<&str>, args: &[&str]) -> Result<JobId, String> {
        let mut command = Command::new("sbatch");
        command
            .args(["--parsable", "-o", "/dev/null"])
            .args(args)
            .env("SLURM_CONF", &self.conf)
            .env_remove(thiao_core::options::VARIABLE);
        command.envs(options.map(|text| (thiao_core::options::VARIABLE, text)));
        let output = command.current_dir("/").output().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8(output.stderr).unwrap());
        }
        Ok(JobId(
            String::from_utf8(output.stdout).unwrap().trim().parse().unwrap(),
        ))
    }

    /// Runs a program that must succeed.
    pub fn call(&self, program: &str, args: &[&str]) {
        call(program, args);
    }

    /// Runs one of Slurm's programs, as `nobody` if it is said so.
    pub fn run(&self, nobody: bool, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new(if nobody { "setpriv" } else { words[0] });
        if nobody {
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
            command.args(words);
        } else {
            command.args(&words[1..]);
        }
        let output = command
            .env("SLURM_CONF", &self.conf)
            .current_dir("/")
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        match output.status.success() {
            true => Ok(text(output.stdout)),
            false => Err(text(output.stderr) + &text(output.stdout)),
        }
    }

    /// What it shows of a node.
    pub fn node(&self, name: &str) -> SlurmNode {
        self.slurm.observe().unwrap().nodes[&node(name)].clone()
    }

    /// What it shows of a job, if it knows it.
    pub fn job(&self, id: JobId) -> Option<SlurmJob> {
        self.slurm.observe().unwrap().jobs.get(&id).cloned()
    }

    /// Whether a job is there, in this state.
    pub fn is(&self, job: JobId, state: &JobState) -> bool {
        self.job(job).is_some_and(|j| j.state == *state)
    }

    /// Admits jobs, which must not fail.
    pub fn admit(&self, jobs: &[Admission]) {
        for (job, result) in self.slurm.admit(jobs) {
            assert!(result.is_ok(), "{job}: {result:?}");
        }
    }

    /// What a job asks per node, as this release writes it.
    pub fn vm(&self) -> String {
        format!("{}vm:1", self.slurm.quirks().unwrap().gres)
    }

    /// What it shows of a job that it must know.
    pub fn seen(&self, job: JobId) -> SlurmJob {
        self.job(job).unwrap()
    }

    /// Waits until `done`; fails after a while that is long for a busy machine, too, with what was
    /// wanted and what is.
    #[track_caller]
    pub fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        until_some(
            PATIENCE,
            Duration::from_millis(50),
            || format!("{what}; now {:?}", self.slurm.observe()),
            || done(self).then_some(()),
        );
    }

    /// Runs one of the lab's hooks by hand.
    pub fn hook(&self, name: &str, arg: &str) {
        call(self.dir.join("hooks").join(name).to_str().unwrap(), &[arg]);
    }

    /// Keeps new nodes from starting, or lets them.
    pub fn hold(&self, on: bool) {
        let file = self.dir.join("hooks/hold");
        if on {
            std::fs::write(file, "").unwrap();
        } else {
            std::fs::remove_file(file).unwrap();
        }
    }

    /// The hooks' calls so far, e.g. `Resume n1`.
    pub fn hooks(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.join("hooks.log")).unwrap_or_default();
        text.lines()
            .filter_map(|l| l.split_once(' '))
            .map(|(_, call)| call.to_owned())
            .collect()
    }
}

/// Nodes of job mode, n5 to n8: larger than what any of them has.
pub fn job_nodes() -> NodeLine {
    NodeLine {
        nodes: "n[5-8]".into(),
        cpus: 64,
        memory_mb: 4 << 20,
        features: Vec::new(),
        partition: "jobs".into(),
        job: Some(JobLine {
            memory_per_cpu_mb: 100,
            gpus: 0,
        }),
    }
}

/// What who may ask of VMs.
pub fn rules() -> Vec<OptionRule> {
    let me = user_name();
    vec![
        OptionRule {
            partition: Some("jobs".into()),
            user: Some(me.clone()),
            templates: vec!["small".into(), "big".into()],
            share: Some((25, 75)),
            ..OptionRule::default()
        },
        OptionRule {
            user: Some(me),
            images: vec!["deb-12".into()],
            keep_on_failure: true,
            ..OptionRule::default()
        },
        OptionRule {
            account: Some("physics".into()),
            share: Some((1, 100)),
            ..OptionRule::default()
        },
    ]
}

/// Of this machine, without its domain.
pub fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_str().unwrap();
    name.split('.').next().unwrap_or(name).to_owned()
}

/// Of who runs this.
pub fn user_name() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn start_munged(dir: &Path) {
    let key: Vec<u8> = std::fs::read("/proc/sys/kernel/random/uuid").unwrap().repeat(4);
    let path = dir.join("munge.key");
    std::fs::write(&path, key).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
    let option = |name: &str, file: &str| format!("--{name}={}", dir.join(file).display());
    call(
        "munged",
        &[
            "--force",
            "--socket=/run/munge/munge.socket.2",
            // Else it is what this machine's name resolves to. From 23.11 on a slurmctld without accounting
            // fails an update that names a partition by whatever errno is left: that of looking this up.
            "--origin=127.0.0.1",
            &option("key-file", "munge.key"),
            &option("pid-file", "munged.pid"),
            &option("log-file", "munged.log"),
            &option("seed-file", "munged.seed"),
        ],
    );
}

fn spawn(conf: &Path, dir: &Path) -> Child {
    let out = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join("ctld.out"))
        .unwrap();
    let mut command = Command::new("slurmctld");
    command
        .arg("-D")
        .arg("-f")
        .arg(conf)
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(out);
    let key = dir.join("slurm.key");
    if key.exists() {
        command.env("SLURM_SACK_KEY", key);
    }
    command.spawn().unwrap()
}

fn call(program: &str, args: &[&str]) {
    let mut command = Command::new(program);
    let status = command.args(args).stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "{program} {args:?}: {status}");
}
