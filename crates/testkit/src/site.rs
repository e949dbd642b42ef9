//! A site for tests of the whole controller: a folder with stand-ins for `sinfo`,
//! `squeue` and `scontrol`, which print what the test wrote and keep what they were told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use thiao_config::Config;
use thiao_core::ids::Time;
use thiao_core::spool::{IntentFile, IntentKind, file_name};

/// What `Resume` asks, not forced.
pub const RESUME: IntentKind = IntentKind::Resume { force: false };

/// The folder, and what was ordered in it.
pub struct Site {
    dir: tempfile::TempDir,
    orders: u32,
    /// By how many seconds the clock is off that the hooks see.
    pub clock_s: i64,
}

const SINFO: &str = r#"#!/bin/sh
mark="${4##*Reason:|}"
while IFS= read -r line; do printf '%s|%s\n' "$line" "$mark"; done < "${0%/bin/*}/nodes"
"#;
const SQUEUE: &str = r#"#!/bin/sh
if [ "$4" = -t ]; then
    m="${9##*Reason:}"
    while IFS= read -r line; do printf "%s$m\n" "$line"; done < "${0%/bin/*}/ends"
    exit
fi
m="${4##*Name:}"
words="u${m}(null)${m}${m}None${m}N/A|N/A|N/A|N/A${m}(null)${m}wrap"
while IFS= read -r line; do printf "%s$m$words$m\n" "$line"; done < "${0%/bin/*}/jobs"
"#;
const SCONTROL: &str = r#"#!/bin/sh
[ "$*" != "show config" ] || exec cat "${0%/bin/*}/config"
[ "$*" != "-o show licenses" ] || exec cat "${0%/bin/*}/licenses"
printf '%s\n' "$*" >> "${0%/bin/*}/told"
[ "$*" != "show config" ] || echo "SLURM_VERSION = 24.11.5"
"#;

impl Site {
    /// A site whose `thiao.toml` has this text after the part about the site itself.
    pub fn new(toml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for (name, text) in [("sinfo", SINFO), ("squeue", SQUEUE), ("scontrol", SCONTROL)] {
            fs::write(bin.join(name), text).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let site = Self {
            dir,
            orders: 0,
            clock_s: 0,
        };
        for (name, text) in [
            ("slurm.conf", ""),
            ("jobs", ""),
            ("ends", ""),
            ("told", ""),
            ("config", ""),
        ] {
            fs::write(site.path(name), text).unwrap();
        }
        site.gate_holds(1);
        let text = format!(
            "cluster = \"c\"\nstate_dir = {:?}\n{toml}\n[slurm]\nbin_dir = {:?}\nconf = {:?}\n",
            site.path("state"),
            site.path("bin"),
            site.path("slurm.conf"),
        );
        fs::write(site.path("thiao.toml"), text).unwrap();
        site
    }

    /// Of a file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its settings, read as the controller reads them.
    pub fn config(&self) -> Config {
        Config::load(Some(&self.path("thiao.toml"))).unwrap()
    }

    /// The version that slurmctld has; none is known before.
    pub fn version_is(&self, version: &str) {
        fs::write(self.path("config"), format!("SLURM_VERSION = {version}\n")).unwrap();
    }

    /// What `sinfo` says from now on: `node|state|reason`.
    pub fn slurm_says(&self, lines: &[impl AsRef<str>]) {
        let part = self.path("nodes.part");
        let text: String = lines.iter().map(|line| format!("{}\n", line.as_ref())).collect();
        fs::write(&part, text).unwrap();
        fs::rename(part, self.path("nodes")).unwrap();
    }

    /// How many of the gate's licences a reservation holds from now on, of one.
    pub fn gate_holds(&self, held: u32) {
        let line = format!("LicenseName=vm_room Total=1 Used=0 Free=1 Reserved={held} Remote=no\n");
        let part = self.path("licenses.part");
        fs::write(&part, line).unwrap();
        fs::rename(part, self.path("licenses")).unwrap();
    }

    /// The jobs that `squeue` lists from now on: id, state and node of each.
    pub fn jobs_are(&self, jobs: impl IntoIterator<Item = (u32, &'static str, String)>) {
        let line = |(id, state, node)| {
            format!("{id}|{id}|N/A|N/A|1000|vm|{state}|1|1|1790000000|1790000001|{node}|1|cpu=1,node=1|1|1\n")
        };
        let text: String = jobs.into_iter().map(line).collect();
        fs::write(self.path("jobs"), text).unwrap();
    }

    /// The one job is on this node, and began just now.
    pub fn job_begins(&self, id: u32, node: &str) {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let line = format!("{id}|{id}|N/A|N/A|1000|vm|RUNNING|1|1|{now}|{now}|{node}|1|cpu=1,node=1|1|1\n");
        fs::write(self.path("jobs"), line).unwrap();
    }

    /// What a hook does.
    pub fn order(&mut self, kind: IntentKind, nodes: &str) {
        let (from, to) = self.draft(kind, nodes);
        fs::rename(from, to).unwrap();
    }

    /// What a hook does until the order is written: where that is, and where it is given.
    pub fn draft(&mut self, kind: IntentKind, nodes: &str) -> (PathBuf, PathBuf) {
        let [new, tmp] = ["state/spool/new", "state/spool/tmp"].map(|name| self.path(name));
        fs::create_dir_all(&new).unwrap();
        fs::create_dir_all(&tmp).unwrap();
        self.orders += 1;
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let now = i128::try_from(now.as_nanos()).unwrap() + i128::from(self.clock_s) * 1_000_000_000;
        let file = IntentFile {
            kind,
            at: Time(u64::try_from(now / 1_000_000).unwrap()),
            uid: 0,
            cluster: None,
            nodes: nodes.into(),
            resume_file: Vec::new(),
        };
        let name = file_name(u128::try_from(now).unwrap(), self.orders, kind);
        let part = tmp.join(&name);
        fs::write(&part, file.encode()).unwrap();
        (part, new.join(name))
    }

    /// How many orders nobody has taken yet.
    pub fn waiting_orders(&self) -> usize {
        fs::read_dir(self.path("state/spool/new")).unwrap().count()
    }

    /// All that `scontrol` was told.
    pub fn told(&self) -> String {
        fs::read_to_string(self.path("told")).unwrap()
    }
}

/// Time for some rounds, in which nothing must happen.
pub fn rounds() {
    tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(500)));
}
