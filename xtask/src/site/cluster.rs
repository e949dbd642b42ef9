//! The cluster that is there before Thiao comes: its files, its people, and jobs on it.

use super::machine::{Machine, NAME, Root};
use anyhow::{Context, Result, bail};
use std::fmt;
use std::time::{Duration, Instant};

/// Who submits the jobs: known to the directory alone, a member of a second group there.
pub const USER: &str = "ada";
const UID: u32 = 5001;
const GIDS: [u32; 2] = [6000, 6001];

/// Control groups as a site has them.
const SLURM_CONF: &str = "\
ClusterName=site
SlurmctldHost=head
SlurmUser=slurm
AuthType=auth/munge
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup,task/affinity
JobAcctGatherType=jobacct_gather/cgroup
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=1
NodeName=head CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=metal Nodes=head Default=YES State=UP
";

/// Memory and cores of jobs are theirs alone.
const CGROUP_CONF: &str = "ConstrainCores=yes\nConstrainRAMSpace=yes\n";

/// The people that the directory knows, and nobody else does.
const PEOPLE: &str = "\
dn: ou=people,dc=nodomain
objectClass: organizationalUnit
ou: people

dn: cn=science,ou=people,dc=nodomain
objectClass: posixGroup
cn: science
gidNumber: 6000

dn: cn=physics,ou=people,dc=nodomain
objectClass: posixGroup
cn: physics
gidNumber: 6001
memberUid: ada

dn: uid=ada,ou=people,dc=nodomain
objectClass: account
objectClass: posixAccount
uid: ada
cn: ada
uidNumber: 5001
gidNumber: 6000
homeDirectory: /home/ada
loginShell: /bin/bash
";

/// systemd-nspawn shows control groups of version 1 read-only.
const GROUPS_UNIT: &str = "\
[Unit]
Description=Control groups that slurmd can write
Before=slurmd.service
ConditionPathIsDirectory=/sys/fs/cgroup/memory

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'for c in memory cpuset freezer devices cpuacct; do mount -o remount,bind,rw /sys/fs/cgroup/$$c; done'

[Install]
WantedBy=multi-user.target
";

/// Asks for 100 MiB and takes 300.
const GREEDY: &str =
    "#!/bin/bash\n#SBATCH --mem=100\npython3 -c 'x = bytearray(300 << 20); print(\"got it\")'\n";

/// Says what limits hold on a physical node, and who the job is.
const LIMITED: &str = "\
#!/bin/bash
#SBATCH --mem=200
id -G
cat /sys/fs/cgroup/memory/slurm_*/uid_$(id -u)/job_$SLURM_JOB_ID/memory.limit_in_bytes
";

/// Says where it is, who it is, and in which control group.
const PYTHON: &str = "\
#!/usr/bin/env python3
import os, platform
print('host', platform.node())
print('ids', os.getuid(), *sorted(os.getgroups()))
print('group', open('/proc/self/cgroup').read().strip().splitlines()[-1])
print('system', open('/etc/os-release').readline().strip())
";

/// A job that takes its time.
const LONG: &str = "#!/bin/sh
n=0
while [ $n -lt 20 ]; do n=$((n + 1)); sleep 1; done
echo \"counted $n, started ${SLURM_RESTART_COUNT:-0} times before\"
";

/// The same for an image that has no Python.
const SHELL: &str = "#!/bin/bash\necho host $(hostname)\necho ids $(id -u) $(id -G)\n";

const MPI: &str = "#!/bin/bash\nsrun --mpi=pmix ./ring\n";
const RING: &str = "\
#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv) {
  int rank, size, sum, length, mine;
  char name[MPI_MAX_PROCESSOR_NAME];
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Get_processor_name(name, &length);
  mine = rank + 1;
  MPI_Allreduce(&mine, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  printf(\"rank %d of %d on %s: sum %d\\n\", rank, size, name, sum);
  MPI_Finalize();
  return 0;
}
";

/// Makes the machine a cluster's, with people of a directory.
///
/// # Errors
/// When its files cannot be written.
pub fn furnish(root: &Root) -> Result<()> {
    for (file, text) in [
        ("etc/hostname", "head\n"),
        ("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 head\n"),
        ("etc/slurm/slurm.conf", SLURM_CONF),
        ("etc/slurm/cgroup.conf", CGROUP_CONF),
        ("etc/systemd/system/slurm-cgroups.service", GROUPS_UNIT),
        (
            "etc/nslcd.conf",
            "uid nslcd\ngid nslcd\nuri ldapi:///\nbase dc=nodomain\n",
        ),
        (
            "etc/nsswitch.conf",
            "passwd: files ldap\ngroup: files ldap\nshadow: files\nhosts: files dns\n",
        ),
        ("root/people.ldif", PEOPLE),
        ("home/ada/greedy.sh", GREEDY),
        ("home/ada/limited.sh", LIMITED),
        ("home/ada/python.sh", PYTHON),
        ("home/ada/shell.sh", SHELL),
        ("home/ada/long.sh", LONG),
        ("home/ada/mpi.sh", MPI),
        ("home/ada/ring.c", RING),
    ] {
        root.write(file, text)?;
    }
    let [group, _] = GIDS;
    root.call(&["slapadd", "-n", "1", "-l", "/root/people.ldif"])?;
    root.call(&["chown", "-R", "openldap:openldap", "/var/lib/ldap"])?;
    root.call(&["chown", "-R", &format!("{UID}:{group}"), "/home/ada"])?;
    root.call(&["chmod", "700", "/home/ada"])?;
    root.call(&["systemctl", "-q", "enable", "slurm-cgroups.service"])?;
    // It changed the modes of the outer machine's devices.
    root.call(&[
        "systemctl",
        "-q",
        "mask",
        "systemd-udevd.service",
        "systemd-udevd-kernel.socket",
        "systemd-udevd-control.socket",
    ])
}

/// Waits until the physical node is in service.
///
/// # Errors
/// When it is not after a minute.
pub fn wait_idle(machine: &Machine) -> Result<()> {
    let begun = Instant::now();
    loop {
        let state = machine.try_run(10, &["sinfo", "-h", "-n", NAME, "-p", "metal", "-o", "%T"])?;
        let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
        match state.as_str() {
            "idle" => return Ok(()),
            _ if begun.elapsed() > Duration::from_secs(60) => {
                bail!("the physical node is not idle after a minute: {state}")
            }
            _ => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

/// A job that was submitted.
pub struct Job {
    id: String,
    begun: Instant,
}

/// What became of a job.
pub struct Ended {
    pub id: String,
    /// How it ended, in Slurm's word.
    pub state: String,
    /// Where it ran, as Slurm has it.
    pub nodes: String,
    /// From sbatch to running.
    pub waited: Duration,
    pub output: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            state,
            nodes,
            waited,
            ..
        } = self;
        write!(
            f,
            "job {id} on {nodes}: {state}, running {:.1} s after sbatch",
            waited.as_secs_f64()
        )
    }
}

impl Ended {
    /// Whether it ended so, and its output has all of these.
    ///
    /// # Errors
    /// When not: what it has instead.
    pub fn must_be(self, state: &str, words: &[&str]) -> Result<Self> {
        if self.state != state {
            bail!("{self}, not {state}; its output: {}", self.output.trim());
        }
        match words.iter().find(|word| !self.output.contains(**word)) {
            Some(word) => bail!(
                "{self}; its output has no {word:?}: {}",
                self.output.trim().replace('\n', "; ")
            ),
            None => Ok(self),
        }
    }
}

/// Numbers of the user and of all his groups, as jobs print them.
pub fn ids() -> String {
    format!("{} {}", GIDS[0], GIDS[1])
}

impl Job {
    /// Submits a script of the user's home.
    ///
    /// # Errors
    /// When Slurm refuses it.
    pub fn submit(machine: &Machine, options: &[&str], script: &str) -> Result<Self> {
        let begun = Instant::now();
        let words = [&["sbatch", "--parsable", "-o", "%j.out"], options, &[script]].concat();
        let id = machine.run_as(USER, 30, &words)?.trim().to_owned();
        Ok(Self { id, begun })
    }

    /// What Slurm calls it: its number.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits until it runs.
    ///
    /// # Errors
    /// When it does not run in time.
    pub fn wait_running(&self, machine: &Machine, limit: Duration) -> Result<()> {
        loop {
            let said = machine.run(30, &["scontrol", "-o", "show", "job", &self.id])?;
            match field(&said, "JobState") {
                Some("RUNNING") => return Ok(()),
                state if self.begun.elapsed() > limit => {
                    bail!("job {} is {state:?} after {} s", self.id, limit.as_secs())
                }
                _ => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it is not over in time; it is cancelled then.
    pub fn wait(self, machine: &Machine, limit: Duration) -> Result<Ended> {
        let mut waited = None;
        let (state, nodes) = loop {
            let said = machine.run(30, &["scontrol", "-o", "show", "job", &self.id])?;
            let state = field(&said, "JobState").context("Slurm says no state of a job")?;
            if waited.is_none() && !matches!(state, "PENDING" | "CONFIGURING") {
                waited = Some(self.begun.elapsed());
            }
            if !matches!(state, "PENDING" | "CONFIGURING" | "RUNNING" | "COMPLETING") {
                break (
                    state.to_owned(),
                    field(&said, "NodeList").unwrap_or_default().to_owned(),
                );
            }
            if self.begun.elapsed() > limit {
                let (state, id) = (state.to_owned(), &self.id);
                let explained = machine.run(30, &["thiao", "explain", id]).unwrap_or_default();
                machine.run(30, &["scancel", id])?;
                bail!("job {id} is {state} after {} s: {explained}", limit.as_secs());
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let file = format!("/home/{USER}/{}.out", self.id);
        let output = machine.run(10, &["cat", &file]).unwrap_or_default();
        Ok(Ended {
            id: self.id,
            state,
            nodes,
            waited: waited.unwrap_or_default(),
            output,
        })
    }
}

/// A field of what scontrol says on one line.
fn field<'a>(said: &'a str, name: &str) -> Option<&'a str> {
    said.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let said = "JobId=7 ReqNodeList=(null) NodeList=vm[1-2] JobState=OUT_OF_MEMORY";
        assert_eq!(field(said, "NodeList"), Some("vm[1-2]"));
        assert_eq!(field(said, "JobState"), Some("OUT_OF_MEMORY"));
        assert_eq!(field(said, "Node"), None);
    }
}
