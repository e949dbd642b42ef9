//! Configurations as sites have them, each from `thiao setup` to a job: a real slurmctld with the site's
//! lines, setup's beside them, `thiao doctor`, and one job on a node that is a slurmd in namespaces.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod sites;

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use thiao_core::view::{Gate, JobState};
use thiao_slurm::Admission;
use thiao_slurm::conf::Timeouts;
use thiao_slurm::{Version, installed_version};
use thiao_testkit::slurmctld::{Ctld, inside};

/// A site's configuration, and what is to come of ours in it.
struct Site {
    /// Its lines of slurm.conf, before ours.
    conf: &'static str,
    /// Its lines behind ours.
    after: &'static str,
    /// More files beside slurm.conf.
    files: &'static [(&'static str, &'static str)],
    cluster: &'static str,
    /// Whether the nodes are of job mode.
    job_mode: bool,
    /// Words of all that doctor says of Slurm; nothing more than that.
    said: &'static [&'static str],
    /// More arguments for sbatch.
    args: &'static [&'static str],
    /// Whether a job can run with what doctor says.
    runs: bool,
    /// The first release that knows its keys.
    since: Version,
}

impl Site {
    const PLAIN: Self = Self {
        conf: "NodeName=cn[01-02] NodeAddr=10.9.0.[201-202] CPUs=8 RealMemory=16000\n\
               PartitionName=batch Nodes=cn[01-02] Default=YES\n",
        after: "",
        files: &[],
        cluster: "lab",
        job_mode: false,
        said: &[],
        args: &[],
        runs: true,
        since: Version::new(22, 5, 0),
    };
}

/// The site's slurmctld, and then ours in it.
struct Lived {
    ctld: Ctld,
    dir: PathBuf,
}

impl Lived {
    fn new(dir: PathBuf, site: &Site) -> Self {
        for (name, text) in site.files {
            fs::write(dir.join(name), text.replace("@DIR@", dir.to_str().unwrap())).unwrap();
            let mode = if name.ends_with(".sh") { 0o755 } else { 0o644 };
            fs::set_permissions(dir.join(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        }
        let conf = site.conf.replace("@DIR@", dir.to_str().unwrap());
        let times = Timeouts::default();
        let change = |lab: &mut thiao_slurm::lab::Lab| {
            lab.nodes.clear();
            lab.hooks = None;
            lab.default_partition = None;
            lab.cluster = site.cluster.to_owned();
        };
        let ctld = Ctld::start_with(dir.clone(), times, change, &conf);
        let (mode, nodes) = if site.job_mode {
            ("job", "n[5-6]")
        } else {
            ("power-saving", "n[1-2]")
        };
        let settings = format!(
            "cluster = {:?}\nstate_dir = {:?}\n[slurm]\nconf = {:?}\n[[nodeset]]\nname = \"vm\"\nmode = {mode:?}\n\
             nodes = {nodes:?}\ncpus = 1\nmemory_mb = 100\npartition = \"vm\"\n[qemu]\nslurmctld_port = 7817\n[[qemu.host]]\nname = \"h\"\nmemory_mb = 4000\n",
            site.cluster,
            dir.join("thiao"),
            ctld.conf,
        );
        fs::write(dir.join("thiao.toml"), settings).unwrap();
        Self { ctld, dir }
    }

    fn thiao(&self, args: &[&str]) -> (bool, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_thiao"))
            .arg("--config")
            .arg(self.dir.join("thiao.toml"))
            .args(args)
            .env("SLURM_CONF", &self.ctld.conf)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.success(), text)
    }

    fn setup(&self) -> String {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let (done, text) = self.thiao(&[
            "setup",
            "--hooks",
            &path("hooks"),
            "--fragment",
            &path("thiao.conf"),
            "--hook-program",
            &path("node.sh"),
        ]);
        assert!(done, "{text}");
        text
    }

    /// Has slurmctld read the site's lines and ours.
    fn include(&mut self, after: &str) {
        let conf = fs::read_to_string(&self.ctld.conf).unwrap();
        self.ctld.stop();
        fs::write(&self.ctld.conf, format!("{conf}\nInclude thiao.conf\n{after}")).unwrap();
        // What the hooks' scripts know our nodes by, which the controller writes.
        fs::create_dir_all(self.dir.join("thiao/spool")).unwrap();
        fs::write(self.dir.join("thiao/spool/nodes"), "n[1-2],n[5-6]\n").unwrap();
        self.ctld.start_again();
    }

    /// All that doctor says of Slurm and is not good, but for what a controller that runs would mend.
    fn doctor(&self) -> Vec<String> {
        let hooks = self.dir.join("hooks").display().to_string();
        let (_, text) = self.thiao(&["doctor", "--json", "--hooks", &hooks]);
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let group = report["groups"]
            .as_array()
            .unwrap()
            .iter()
            .find(|group| group["title"] == "Slurm");
        let findings = group.unwrap()["findings"].as_array().unwrap().iter();
        findings
            .filter(|finding| finding["verdict"] != "ok" && finding["what"] != "spool")
            .filter(|finding| !finding["text"].as_str().unwrap().contains("no reservation"))
            .map(|finding| {
                format!(
                    "{}: {}",
                    finding["what"].as_str().unwrap(),
                    finding["text"].as_str().unwrap()
                )
            })
            .collect()
    }

    /// One job, until it ran.
    fn job(&self, site: &Site) {
        let out = self.dir.join("job.out");
        let args = [
            &[
                "-p",
                "vm",
                "-o",
                out.to_str().unwrap(),
                "--wrap",
                "echo ran; sleep 0.2",
            ],
            site.args,
        ]
        .concat();
        if site.job_mode {
            self.ctld.slurm.ensure_gate().unwrap();
        }
        let job = self.ctld.sbatch(&args);
        if site.job_mode {
            self.ctld.until("the job waits", |c| {
                c.job(job)
                    .is_some_and(|j| j.gate == Gate::Waits && j.state == JobState::Pending)
            });
            let all = self.ctld.slurm.admit(&[Admission {
                job,
                array: None,
                nodes: None,
                licenses: String::new(),
            }]);
            assert!(all.iter().all(|(_, told)| told.is_ok()), "{all:?}");
        }
        self.ctld.until("the job ran", |_| {
            fs::read_to_string(&out).is_ok_and(|text| text == "ran\n")
        });
    }
}

/// A site from setup to a job.
fn lives(dir: PathBuf, site: &Site) {
    let version = installed_version(None).unwrap();
    if version < site.since {
        eprintln!("skipped: Slurm {version} does not know these keys");
        return;
    }
    let mut lived = Lived::new(dir, site);
    lived.setup();
    lived.include(site.after);
    let said = lived.doctor();
    for word in site.said {
        assert!(
            said.iter().any(|text| text.contains(word)),
            "{word} not in {said:#?}"
        );
    }
    assert_eq!(said.len(), site.said.len(), "{said:#?}");
    if site.runs {
        lived.job(site);
    }
    // Set up once more, there is nothing to do.
    let again = lived.setup();
    assert!(
        !again.contains("replaced ") && !again.contains("\nnew "),
        "{again}"
    );
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
