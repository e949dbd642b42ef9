//! Days of an administrator, as docs/operations.md has them: an upgrade under a running job, the database saved and put
//! back, another key, and the machine's restart.

use super::cluster::{Ended, Job, ids};
use super::machine::Machine;
use super::{JOB, Story, install, wait_no_jobs, wait_no_vms, wait_powered_down, wait_prepared};
use anyhow::{Context, Result};

/// "Upgrading", after the new programs were installed.
const UPGRADE: &str = "systemctl restart thiaod";
/// "Saving the database": what makes a whole copy of it.
const SAVE: &str = "sqlite3 /var/lib/thiao/thiao.db \"VACUUM INTO '/root/thiao.db'\"";
const PUT_BACK: [&str; 4] = [
    "systemctl stop thiaod",
    "rm -f /var/lib/thiao/thiao.db-wal /var/lib/thiao/thiao.db-shm",
    "install -o slurm -g slurm -m 600 /root/thiao.db /var/lib/thiao/thiao.db",
    "systemctl start thiaod",
];
/// "Another key": what has all programs use it.
const KEY: [&str; 4] = [
    "runuser -u munge -- mungekey --create --force",
    "systemctl restart munge",
    "systemctl restart slurmctld",
    "systemctl restart thiaod",
];
const END_VMS: &str = "scontrol update NodeName='vm[000-003]' State=POWER_DOWN_FORCE";

/// Lives through all of them.
pub fn pass(story: &mut Story, machine: &mut Machine) -> Result<()> {
    upgraded(story, machine)?;
    saved(story, machine)?;
    another_key(story, machine)?;
    restarted(story, machine)
}

fn upgraded(story: &mut Story, machine: &Machine) -> Result<()> {
    let job = Job::submit(machine, &["-p", "vm"], "long.sh")?;
    job.wait_running(machine, JOB)?;
    install(story, machine)?;
    story.types(machine, 60, UPGRADE)?;
    let job = job.wait(machine, JOB);
    let has = |job: Ended| job.must_be("COMPLETED", &["counted 20, started 0 times before"]);
    story.check("a job that runs does not notice an upgrade", job.and_then(has));
    Ok(())
}

fn saved(story: &mut Story, machine: &Machine) -> Result<()> {
    story.say(format_args!("# {SAVE}"));
    machine.run(
        60,
        &[
            "sqlite3",
            "/var/lib/thiao/thiao.db",
            "VACUUM INTO '/root/thiao.db'",
        ],
    )?;
    let job = Job::submit(machine, &["-p", "vm"], "long.sh")?;
    job.wait_running(machine, JOB)?;
    for line in PUT_BACK {
        story.types(machine, 60, line)?;
    }
    machine.run(10, &["rm", "/root/thiao.db"])?;
    let job = job.wait(machine, JOB);
    let has = |job: Ended| job.must_be("COMPLETED", &["counted 20, started 0 times before"]);
    story.check("nor that the database is put back", job.and_then(has));
    let past = machine.run(30, &["thiao", "jobs", "--since", "1d"])?;
    let is_there = past
        .contains("vm00")
        .then_some("thiao jobs --since 1d lists it")
        .with_context(|| format!("thiao jobs --since 1d says: {past}"));
    story.check("the past is there", is_there);
    Ok(())
}

fn another_key(story: &mut Story, machine: &Machine) -> Result<()> {
    machine.run(10, &["cp", "-p", "/etc/munge/munge.key", "/root/munge.key"])?;
    rotated(story, machine, KEY[0])?;
    let job = Job::submit(machine, &["-p", "vm"], "python.sh")?.wait(machine, JOB);
    let has = |job: Ended| job.must_be("COMPLETED", &["host vm00", &ids()]);
    story.check("a job after another key was made", job.and_then(has));
    let said = machine.try_run(60, &["thiao", "doctor"])?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let line = said.lines().find(|line| line.contains("key"));
    story.say(format_args!(
        "thiao doctor: {}",
        line.unwrap_or("nothing of a key").trim()
    ));
    // The cluster is to be as it was.
    rotated(story, machine, "cp -p /root/munge.key /etc/munge/munge.key")?;
    machine.run(10, &["rm", "/root/munge.key"]).map(drop)
}

/// Ends the VMs, puts a key in place by this line, and has all take it.
fn rotated(story: &Story, machine: &Machine, line: &str) -> Result<()> {
    wait_no_jobs(machine)?;
    story.types(machine, 60, END_VMS)?;
    wait_powered_down(machine)?;
    wait_no_vms(machine)?;
    for line in [line].iter().chain(&KEY[1..]) {
        story.types(machine, 60, line)?;
    }
    wait_prepared(story, machine)
}

fn restarted(story: &mut Story, machine: &mut Machine) -> Result<()> {
    let job = Job::submit(machine, &["-p", "vm"], "long.sh")?;
    job.wait_running(machine, JOB)?;
    story.say("# systemctl reboot");
    machine.reboot()?;
    story.say("it has booted again");
    wait_prepared(story, machine)?;
    let id = job.id().to_owned();
    let job = job.wait(machine, JOB);
    let has = |job: Ended| job.must_be("COMPLETED", &["counted 20, started 1 times before"]);
    story.check(
        "a job that ran then runs again after the restart",
        job.and_then(has),
    );
    let told = machine.run(30, &["thiao", "explain", &id])?;
    // That the machine was restarted, a VM's record tells by the kernel's boot id, which goes on here.
    let line = told
        .lines()
        .find(|line| line.contains("died while its node was up"));
    let line = line
        .map(str::to_owned)
        .with_context(|| format!("thiao explain {id} says: {told}"));
    story.check("its story says what became of its first VM", line);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_what_the_docs_say() {
        let operations = super::super::flat("docs/operations.md");
        for line in [UPGRADE, SAVE, END_VMS].iter().chain(&PUT_BACK).chain(&KEY) {
            assert!(
                operations.contains(line),
                "docs/operations.md does not say: {line}"
            );
        }
    }
}
