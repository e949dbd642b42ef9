//! A place for `thiao setup`, with a `scontrol` that answers as 22.05.8 did.

#![allow(dead_code, reason = "no test needs all of it")]

use crate::stand_ins::write;
use std::path::{Path, PathBuf};
use std::process::Command;
use thiao_testkit::process::run;

/// A folder with all that `thiao setup` asks and writes, and settings for eight nodes.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let scontrol = "#!/bin/sh\ncase \"$1\" in\n-V) echo 'slurm-wlm 22.05.8' ;;\n-a) ;;\n*) echo 'Configuration data as of now'\n\
                        echo 'SlurmctldParameters     = max_rpc=3,power_save_interval=9'\necho 'PrivateData = none'\necho 'ClusterName = lab'\n\
                        echo 'SlurmctldHost[0] = head(10.9.0.1)' ;;\nesac\n";
        let place = Self { dir };
        for (name, text) in [("scontrol", scontrol), ("thiao-hook", "#!/bin/sh\n")] {
            write(&place.path(name), text, 0o755);
        }
        let config = format!(
            "cluster = \"lab\"\nstate_dir = {:?}\n[slurm]\nbin_dir = {:?}\n\
             [[nodeset]]\nname = \"fg\"\nnodes = \"fg[0-7]\"\nmemory_mb = 200\nfeatures = [\"vm\"]\n\
             [timing]\nboot_timeout = 400\n[[qemu.host]]\nname = \"h\"\nmemory_mb = 4000\n",
            place.path("state"),
            place.dir.path()
        );
        std::fs::write(place.path("thiao.toml"), config).unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn setup(&self, more: &[&str]) -> (i32, String, String) {
        run(self.command("thiao.toml").args(more))
    }

    /// `thiao setup` for this settings file, with all that it writes in this place.
    pub fn command(&self, settings: &str) -> Command {
        self.command_at(settings, "hooks")
    }

    /// The same with another folder for the hooks.
    pub fn command_at(&self, settings: &str, hooks: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thiao"));
        command
            .args(["setup", "--config"])
            .arg(self.path(settings))
            .arg("--hooks")
            .arg(self.path(hooks))
            .arg("--fragment")
            .arg(self.path("etc/thiao.conf"))
            .arg("--hook-program")
            .arg(self.path("thiao-hook"))
            .env_remove("SLURM_CONF");
        command
    }

    /// From now on `scontrol show config` says this, and the other listings this.
    pub fn slurmctld_says(&self, release: &str, config: &str, partitions: &str, nodes: &str) {
        for (name, text) in [("config", config), ("partition", partitions), ("node", nodes)] {
            std::fs::write(self.path(&format!("says-{name}")), text).unwrap();
        }
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in\n-V*) echo 'slurm-wlm {release}' ;;\n\
             *'show partition'*) cat {0}/says-partition ;;\n*'show node'*) cat {0}/says-node ;;\n\
             *'show config'*) cat {0}/says-config; echo 'SLURM_VERSION = {release}'; echo 'ClusterName = lab'; \
             echo 'SlurmctldHost[0] = head(10.9.0.1)'; echo 'SLURM_CONF = {0}/etc/slurm.conf' ;;\nesac\n",
            self.dir.path().display()
        );
        write(&self.path("scontrol"), &text, 0o755);
    }

    /// From now on slurmctld answers nobody.
    pub fn slurmctld_is_down(&self) {
        let text = "#!/bin/sh\n[ \"$1\" = -V ] && { echo 'slurm-wlm 22.05.8'; exit; }\n\
                    echo 'Unable to contact slurm controller (connect failure)' >&2; exit 1\n";
        write(&self.path("scontrol"), text, 0o755);
    }

    /// From now on the lines of `thiao.conf` are in effect, and nothing else.
    pub fn slurmctld_reads_the_fragment(&self, release: &str) {
        let config: String = self
            .fragment()
            .lines()
            .filter(|line| !line.starts_with("NodeName=") && !line.starts_with("PartitionName="))
            .filter_map(|line| line.split_once('=').filter(|(key, _)| !key.contains('#')))
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect();
        self.slurmctld_says(release, &config, "", "");
    }

    /// Writes this over a part of the settings.
    pub fn change(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("thiao.toml")).unwrap();
        assert!(text.contains(from), "{from} not in {text}");
        std::fs::write(self.path("thiao.toml"), text.replace(from, to)).unwrap();
    }

    pub fn fragment(&self) -> String {
        std::fs::read_to_string(self.path("etc/thiao.conf")).unwrap()
    }

    pub fn target(&self, name: &str) -> PathBuf {
        std::fs::read_link(self.path("hooks").join(name)).unwrap()
    }
}

/// What is in a folder.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
