//! A real lab for tests: started as a person would start it, watched from
//! outside, gone with the test however that ends. Labs share nothing but the
//! image cache: several can run side by side.

use crate::wait::until_some;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::Duration;

/// A running lab, which ends with this.
pub struct Lab {
    pub dir: PathBuf,
    thiao: PathBuf,
    keeper: Child,
    /// The lab ends when this is closed: with this process at the latest.
    line: Option<ChildStdin>,
}

/// What people type; all that it needs beside it was built, too.
pub fn thiao() -> PathBuf {
    for name in ["thiaod", "thiao-lab", "thiao-hook", "thiao-guest"] {
        let _ = crate::program(name);
    }
    crate::program("thiao")
}

/// A folder for a lab, with a path short enough for sockets; not made yet.
pub fn fresh_dir() -> PathBuf {
    let dir = tempfile::Builder::new()
        .prefix("thiao-t")
        .tempdir_in("/tmp")
        .unwrap();
    let path = dir.path().to_path_buf();
    dir.close().unwrap();
    path
}

/// The demo with these options comes out right, by its own checks.
#[track_caller]
pub fn demo_comes_out_right(options: &[&str]) {
    let output = Command::new(thiao())
        .args(["lab", "demo"])
        .args(options)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    println!("{said}");
    assert!(said.contains("All came out right."), "{said}");
    assert!(!said.contains("WRONG"), "{said}");
}

/// Does `look` until it gives something; panics with `what` when that takes more seconds than `limit`.
#[track_caller]
pub fn wait<T>(what: &str, limit: u64, look: impl FnMut() -> Option<T>) -> T {
    wait_or(limit, look, || what.to_owned())
}

/// Looks cost a program each.
#[track_caller]
fn wait_or<T>(limit: u64, look: impl FnMut() -> Option<T>, story: impl FnOnce() -> String) -> T {
    until_some(
        Duration::from_secs(limit),
        Duration::from_millis(100),
        story,
        look,
    )
}

impl Lab {
    /// Starts a lab with these options of `thiao lab up`.
    pub fn up(options: &[&str]) -> Self {
        let mut command = Command::new(thiao());
        let dir = fresh_dir();
        command
            .args(["lab", "up", "--foreground", "--dir"])
            .arg(&dir)
            .args(options);
        // Another Slurm than the one by PATH, as in the tests with the real slurmctld.
        if let Some(prefix) = std::env::var_os("THIAO_TEST_SLURM_PREFIX") {
            command.arg("--slurm-bin-dir").arg(Path::new(&prefix).join("bin"));
        }
        Self::start(command, dir)
    }

    /// Starts a lab by a command that is `thiao lab up --foreground --dir DIR` at its heart.
    pub fn start(mut command: Command, dir: PathBuf) -> Self {
        let mut keeper = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let line = keeper.stdin.take();
        let mut lines = BufReader::new(keeper.stdout.take().unwrap()).lines();
        let up = lines.by_ref().map_while(Result::ok).any(|line| {
            println!("{line}");
            line.starts_with("The lab is up")
        });
        if !up {
            let mut errors = String::new();
            keeper.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
            let status = keeper.wait().unwrap();
            panic!("the lab did not come up ({status}): {errors}");
        }
        // What is said later must not fill the pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| println!("{line}")));
        Self {
            dir,
            thiao: thiao(),
            keeper,
            line,
        }
    }

    /// `thiao lab SUBCOMMAND --dir DIR ARGS`.
    pub fn lab(&self, subcommand: &str, args: &[&str]) -> Output {
        let mut command = Command::new(&self.thiao);
        command
            .args(["lab", subcommand, "--dir"])
            .arg(&self.dir)
            .args(args)
            .stdin(Stdio::null());
        command.output().unwrap()
    }

    /// Runs a command in the lab as its owner.
    pub fn run_as_admin(&self, args: &[&str]) -> Output {
        self.lab("exec", &[&["--admin", "--"], args].concat())
    }

    /// As [`Self::run_as_admin`], and must succeed. Its output.
    pub fn admin(&self, args: &[&str]) -> String {
        let output = self.run_as_admin(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Submits a job as the lab's user; its id.
    pub fn submit(&self, args: &[&str]) -> u32 {
        let output = self.lab("submit", &[&["--parsable"], args].concat());
        assert!(output.status.success(), "sbatch: {}", text(&output));
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    /// Runs a command in the lab as one of its users, in his home folder.
    pub fn run_as(&self, user: &str, args: &[&str]) -> Output {
        self.lab("exec", &[&["--user", user, "--"], args].concat())
    }

    /// As [`Self::run_as`], and must succeed. Its output.
    pub fn by(&self, user: &str, args: &[&str]) -> String {
        let output = self.run_as(user, args);
        assert!(
            output.status.success(),
            "{user}: {args:?}: {}\n{}",
            text(&output),
            self.story()
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Submits a job as one of the lab's users, by `sbatch` or `tsub`; its id.
    pub fn submit_by(&self, user: &str, args: &[&str]) -> u32 {
        let (program, rest) = args.split_first().unwrap();
        let said = self.by(user, &[&[*program, "--parsable"], rest].concat());
        said.parse().unwrap_or_else(|_| panic!("{args:?}: {said}"))
    }

    /// Slurm's reason for a job that waits.
    pub fn reason_of(&self, job: u32) -> String {
        let job = job.to_string();
        self.admin(&["squeue", "-h", "-t", "all", "-o", "%r", "-j", &job])
            .trim()
            .to_owned()
    }

    /// The VMs that were made for a job alone, as `thiao jobs JOBID --json` tells them.
    pub fn vms_of(&self, job: u32) -> Vec<Value> {
        let said = self.admin(&["thiao", "jobs", &job.to_string(), "--json"]);
        let told: Value = serde_json::from_str(&said).unwrap();
        told["vms"].as_array().unwrap().clone()
    }

    /// The output of a job, by file name in its user's home folder.
    pub fn output_of(&self, user: &str, name: &str) -> String {
        let path = self.dir.join("home").join(user).join(name);
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", path.display(), self.story()))
    }

    /// A job's state as Slurm has it; none while slurmctld does not answer.
    pub fn state_of(&self, job: u32) -> Option<String> {
        let job = job.to_string();
        let output = self.run_as_admin(&["squeue", "-h", "-t", "all", "-o", "%T", "-j", &job]);
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Waits until a job is in this state.
    pub fn wait_job(&self, job: u32, state: &str, limit: u64) {
        let mut last = String::new();
        wait_or(
            limit,
            || {
                last = self.state_of(job).unwrap_or_else(|| "not known".to_owned());
                (last == state).then_some(())
            },
            || format!("job {job} is not {state}\n{}", self.story()),
        );
    }

    /// A node's state in Slurm's short word.
    pub fn node(&self, node: &str) -> String {
        self.admin(&["sinfo", "-h", "-N", "-n", node, "-o", "%t"])
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    }

    /// All events of the controller, oldest first; none while it does not answer.
    pub fn events(&self) -> Vec<Value> {
        let output = self.run_as_admin(&["thiao", "events", "--json", "--limit", "1000"]);
        if !output.status.success() {
            return Vec::new();
        }
        let text = String::from_utf8(output.stdout).unwrap();
        match serde_json::from_str(&text) {
            Ok(Value::Array(events)) => events,
            _ => text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect(),
        }
    }

    /// How often an event of this kind was about this subject.
    pub fn count(&self, subject: &str, kind: &str) -> usize {
        self.events()
            .iter()
            .filter(|event| event["kind"] == kind && is_about(event, subject))
            .count()
    }

    /// Waits until that event has come `times`.
    pub fn wait_event(&self, subject: &str, kind: &str, times: usize, limit: u64) {
        wait_or(
            limit,
            || (self.count(subject, kind) >= times).then_some(()),
            || format!("no event {kind} of {subject} ({times} times)\n{}", self.story()),
        );
    }

    /// Process ids inside the lab of the QEMU that backs this node.
    pub fn qemu_of(&self, node: &str) -> Vec<String> {
        let list = self.admin(&["ps", "-eo", "pid=,args="]);
        // QEMU's -name is thiao-CLUSTER-NODE.GENERATION.
        let is_it = |line: &&str| line.contains("qemu-system") && line.contains(&format!("-{node}."));
        list.lines()
            .filter(is_it)
            .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
            .collect()
    }

    /// What `thiao lab status --json` says.
    pub fn status(&self) -> Value {
        let output = self.lab("status", &["--json"]);
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Waits until every node is powered down and usable, and no VM is left.
    pub fn wait_all_back(&self, limit: u64) {
        wait_or(
            limit,
            || {
                let states = self.admin(&["sinfo", "-h", "-o", "%t"]);
                let idle = states.lines().all(|state| state.trim() == "idle~");
                (idle && self.status()["vms"] == 0).then_some(())
            },
            || {
                format!(
                    "not all nodes are back to idle~\n{}\n{}",
                    self.admin(&["sinfo", "-N"]),
                    self.story()
                )
            },
        );
    }

    /// The output of a job, by file name in the first user's home folder.
    pub fn output(&self, name: &str) -> (String, u32) {
        use std::os::unix::fs::MetadataExt;
        let path = self.home().join(name);
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (text, std::fs::metadata(path).unwrap().uid())
    }

    /// Whether a job has written something.
    pub fn has_output(&self, name: &str) -> bool {
        std::fs::metadata(self.home().join(name)).is_ok_and(|file| file.len() > 0)
    }

    fn home(&self) -> PathBuf {
        let mut homes = std::fs::read_dir(self.dir.join("home")).unwrap();
        homes.next().unwrap().unwrap().path()
    }

    /// The outer process id of the lab's first process.
    pub fn keeper_pid(&self) -> u32 {
        let children =
            std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.keeper.id())).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// The ends of the logs, for a failure's message.
    pub fn story(&self) -> String {
        let tail = |name: &str| {
            let text = std::fs::read_to_string(self.dir.join("log").join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!(
                "--- {name}\n{}\n",
                lines[lines.len().saturating_sub(40)..].join("\n")
            )
        };
        tail("thiao.log") + &tail("slurmctld.log")
    }

    /// Ends the lab and proves that nothing of it is left.
    pub fn down(mut self) {
        drop(self.line.take());
        let status = self.keeper.wait().unwrap();
        assert!(status.success(), "the lab did not end well: {status}");
        nothing_left(&self.dir);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.line.take());
        let _ = self.keeper.wait();
    }
}

/// Panics when a process, a file or an interface of the lab in `dir` is left.
pub fn nothing_left(dir: &Path) {
    assert!(!dir.exists(), "{} is left", dir.display());
    let mut left = String::new();
    // The kernel takes processes down one after the other.
    for _ in 0..20 {
        left = processes_of(dir);
        if left.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(left, "", "processes are left");
    assert!(!Path::new("/sys/class/net/thiao0").exists(), "a bridge is left");
}

/// The processes that name this folder on their command line, stand in it, or were told of it.
pub fn processes_of(dir: &Path) -> String {
    let name = dir.to_str().unwrap();
    let mut found = String::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |file: &str| {
            String::from_utf8_lossy(&std::fs::read(entry.path().join(file)).unwrap_or_default())
                .replace('\0', " ")
        };
        let line = read("cmdline");
        // QEMU, which has no word of the folder on its command line, has files of it open.
        let files = std::fs::read_dir(entry.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        let stands = [entry.path().join("cwd")]
            .into_iter()
            .chain(files.map(|file| file.path()))
            .any(|link| std::fs::read_link(link).is_ok_and(|target| target.starts_with(dir)));
        let own = entry.file_name() == std::process::id().to_string().as_str();
        if !own && (stands || line.contains(name) || read("environ").contains(name)) {
            found.push_str(&format!("{} {line}\n", entry.file_name().display()));
        }
    }
    found
}

/// What a command said.
pub fn text(output: &Output) -> String {
    format!(
        "{} {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// `node vm1` is itself; `vm vm1` is every VM of it.
fn is_about(event: &Value, subject: &str) -> bool {
    let found = event["subject"].as_str().unwrap_or_default();
    found == subject || subject.starts_with("vm ") && found.starts_with(&format!("{subject}."))
}
