//! munged and slurmd as services of the system that this guest has on its disk: started by its own
//! units, with what [`crate::root`] added to them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use thiao_guest::auth::{Auth, key_variable};
use thiao_guest::protocol::OneContext;

use crate::context::{MUNGE_KEY, SLURM_KEY};
use crate::slurm;

/// What slurmd's unit takes from its context.
pub const SLURMD_ENVIRONMENT: &str = "/run/thiao/slurmd.env";

/// What makes the distribution's slurmd one of a node that was made for Slurm. Its conditions ask for
/// a slurm.conf, which comes from slurmctld. How often it is started, this program decides. What is added
/// in every VM ([`thiao_guest::units::SLURMD_SERVICE`]) follows.
pub const SLURMD_DROP_IN: &str = "[Unit]\n\
    ConditionPathExists=\n\
    StartLimitIntervalSec=0\n\
    [Service]\n\
    Type=simple\n\
    EnvironmentFile=/run/thiao/slurmd.env\n\
    ExecStart=\n\
    ExecStart=/usr/sbin/slurmd -D -b --conf-server ${THIAO_SLURMCTLDS}\n\
    Restart=no\n";

/// What makes the distribution's munged wait for nothing but its key;
/// [`thiao_guest::units::MUNGE_SERVICE`] follows.
pub const MUNGE_DROP_IN: &str = "[Unit]\nAfter=\nWants=\n";

/// Where Slurm's plugins are, in Debian and elsewhere.
const PLUGINS: [&str; 2] = ["/usr/lib/x86_64-linux-gnu/slurm-wlm", "/usr/lib64/slurm"];

/// How long a system may take to rest, and over which time it must.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);
const SETTLE_STEP: Duration = Duration::from_millis(500);

/// How many lines of their journal are told when munged or slurmd fails, and of how many bytes at most.
const LAST_LINES: &str = "10";
const LAST_BYTES: usize = 1500;

/// Returns when the system has come up: all that it starts by itself was started.
pub fn wait_until_up() {
    // `degraded` is no reason to wait, nor to give up: what failed is told by who needs it.
    let _ = systemctl(&["is-system-running", "--wait", "--quiet"]);
}

/// Has in memory what a node needs next, and waits until the system rests: guests that are restored from here on find
/// it so. One that is this node already has better things to do.
pub fn settle() {
    for (program, argument) in [("slurmd", "-V"), ("slurmstepd", "-V"), ("munged", "--version")] {
        let _ = run(program, &[argument]);
    }
    for file in PLUGINS
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .flatten()
    {
        let _ = fs::read(file.path());
    }
    let _ = running_slurmd();
    let until = Instant::now() + SETTLE_LIMIT;
    while Instant::now() < until {
        let before = idle_ticks();
        std::thread::sleep(SETTLE_STEP);
        let rests = idle_ticks().zip(before).is_none_or(|(now, before)| {
            let (idle, all) = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
            idle.saturating_mul(10) >= all.saturating_mul(9)
        });
        if rests {
            return;
        }
    }
}

/// How long the processors did nothing, and how long they did anything, in ticks.
fn idle_ticks() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let ticks = text.lines().next()?.split_whitespace().skip(1);
    let ticks: Vec<u64> = ticks.map_while(|number| number.parse().ok()).collect();
    Some((*ticks.get(3)?, ticks.iter().take(8).sum()))
}

/// Starts munged, with the key that is there.
pub fn munge(socket: &Path) -> Result<(), String> {
    let folder = Path::new(MUNGE_KEY).parent().unwrap_or(Path::new("/"));
    let owner = user("munge").ok_or("the image has no user munge: install the package munge in it")?;
    let say = |e: std::io::Error| format!("cannot give {MUNGE_KEY} to munge: {e}");
    chown(folder, Some(owner.0), Some(owner.1)).map_err(say)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(say)?;
    chown(MUNGE_KEY, Some(owner.0), Some(owner.1)).map_err(say)?;
    start("munge.service")?;
    slurm::munge_answers(socket).map_err(|why| with_last_words(&why))
}

/// Starts slurmd; returns its process id, unless it has ended already.
pub fn slurmd(context: &OneContext) -> Result<Option<u32>, String> {
    let mut environment = format!("THIAO_SLURMCTLDS={}\n", context.servers());
    if let Auth::Slurm { slurm_key } = &context.auth {
        environment += &format!("{}={SLURM_KEY}\n", key_variable(slurm_key));
    }
    fs::write(SLURMD_ENVIRONMENT, environment)
        .map_err(|e| format!("cannot write {SLURMD_ENVIRONMENT}: {e}"))?;
    start("slurmd.service")?;
    running_slurmd()
}

/// The process id of slurmd, if it runs.
pub fn running_slurmd() -> Result<Option<u32>, String> {
    let shown = systemctl(&["show", "--property=MainPID", "--value", "slurmd.service"])?;
    Ok(shown.trim().parse().ok().filter(|pid| *pid != 0))
}

/// Waits for the end of slurmd, if it runs.
pub fn wait_for(slurmd: u32) {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let pid = i32::try_from(slurmd).ok().and_then(Pid::from_raw);
    if let Some(Ok(fd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        while poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
    }
}

/// How slurmd ended, for people.
pub fn slurmds_end() -> String {
    let shown = systemctl(&[
        "show",
        "--property=Result,ExecMainCode,ExecMainStatus",
        "slurmd.service",
    ]);
    let shown = shown.map_or_else(
        |why| why,
        |text| text.split_whitespace().collect::<Vec<_>>().join(" "),
    );
    with_last_words(&shown)
}

fn start(unit: &str) -> Result<(), String> {
    systemctl(&["start", unit])
        .map(drop)
        .map_err(|why| with_last_words(&why))
}

/// What failed, and what the journal has of munged and slurmd: it ends with the VM.
fn with_last_words(what: &str) -> String {
    // What they said last may still be on its way.
    let _ = run("journalctl", &["--sync"]);
    // Of any machine: journald goes on in its folder after the guest was given a number of its own.
    let of = ["--merge", "--unit=munge.service", "--unit=slurmd.service"];
    let form = ["--lines", LAST_LINES, "--output=cat", "--no-pager", "--quiet"];
    let words = run("journalctl", &[&of[..], &form[..]].concat());
    match words.as_deref().map(one_line) {
        Ok(words) if words.is_empty() => what.to_owned(),
        Ok(words) => format!("{what}; the last of its journal: {words}"),
        Err(why) => format!("{what}; its journal cannot be read: {why}"),
    }
}

/// The end of a text, with its lines in one.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines
        .collect::<Vec<_>>()
        .join(" | ")
        .replace(char::is_control, " ");
    let mut ends = line.len().saturating_sub(LAST_BYTES)..;
    let cut = ends.find(|at| line.is_char_boundary(*at)).unwrap_or_default();
    line[cut..].to_owned()
}

/// Asks systemd for something; its answer, or why there is none.
fn systemctl(arguments: &[&str]) -> Result<String, String> {
    run("systemctl", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let out = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot run {program}: {e}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&out.stderr);
    Err(format!(
        "{program} {} failed: {}",
        arguments.join(" "),
        one_line(&words)
    ))
}

/// A user's ids, as `/etc/passwd` has them.
fn user(name: &str) -> Option<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_was_said_is_told_in_one_line() {
        assert_eq!(one_line("\n"), "");
        assert_eq!(
            one_line("slurmd: error: Unauthorized credential\n  bye \n"),
            "slurmd: error: Unauthorized credential | bye"
        );
        let long = format!("{}end", "é".repeat(LAST_BYTES));
        let said = one_line(&long);
        assert!(
            said.ends_with("éend") && said.len() <= LAST_BYTES,
            "{}",
            said.len()
        );
    }
}
