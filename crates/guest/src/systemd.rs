//! munged and slurmd as services of the system that this guest has on its disk: started by its own
//! units, with what [`crate::root`] added to them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use thiao_guest::auth::{Auth, key_variable};
use thiao_guest::protocol::OneContext;

use crate::context::{MUNGE_KEY, SLURM_KEY};
use crate::slurm;

/// What slurmd's unit takes from its context.
pub const SLURMD_ENVIRONMENT: &str = "/run/thiao/slurmd.env";

/// What makes the distribution's slurmd one of a node that was made for Slurm. Its conditions ask for
/// a slurm.conf, which comes from slurmctld.
pub const SLURMD_DROP_IN: &str = "[Unit]\n\
    ConditionPathExists=\n\
    [Service]\n\
    Type=simple\n\
    EnvironmentFile=/run/thiao/slurmd.env\n\
    ExecStart=\n\
    ExecStart=/usr/sbin/slurmd -D -b --conf-server ${THIAO_SLURMCTLDS}\n\
    Restart=no\n\
    Delegate=yes\n\
    StandardOutput=journal+console\n\
    StandardError=journal+console\n";

/// What makes the distribution's munged wait for nothing but its key.
pub const MUNGE_DROP_IN: &str = "[Unit]\nAfter=\nWants=\n";

/// Returns when the system has come up: all that it starts by itself was started.
pub fn wait_until_up() {
    // `degraded` is no reason to wait, nor to give up: what failed is told by who needs it.
    let _ = systemctl(&["is-system-running", "--wait", "--quiet"]);
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
    slurm::munge_answers(socket)
}

/// Starts slurmd; returns its process id.
pub fn slurmd(context: &OneContext) -> Result<u32, String> {
    let mut environment = format!("THIAO_SLURMCTLDS={}\n", context.servers());
    if let Auth::Slurm { slurm_key } = &context.auth {
        environment += &format!("{}={SLURM_KEY}\n", key_variable(slurm_key));
    }
    fs::write(SLURMD_ENVIRONMENT, environment)
        .map_err(|e| format!("cannot write {SLURMD_ENVIRONMENT}: {e}"))?;
    start("slurmd.service")?;
    main_pid().ok_or_else(|| format!("slurmd ended at once; its unit: {}", result("slurmd.service")))
}

/// Waits for the end of slurmd; how it ended.
pub fn wait_for(slurmd: u32) -> String {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let pid = i32::try_from(slurmd).ok().and_then(Pid::from_raw);
    if let Some(Ok(fd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        while poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
    }
    result("slurmd.service")
}

/// How a unit is, for people.
fn result(unit: &str) -> String {
    let shown = systemctl(&["show", "--property=Result,ExecMainCode,ExecMainStatus", unit]);
    shown.map_or_else(
        |why| why,
        |text| text.split_whitespace().collect::<Vec<_>>().join(" "),
    )
}

fn main_pid() -> Option<u32> {
    let shown = systemctl(&["show", "--property=MainPID", "--value", "slurmd.service"]).ok()?;
    shown.trim().parse().ok().filter(|pid| *pid != 0)
}

fn start(unit: &str) -> Result<(), String> {
    systemctl(&["start", unit]).map(drop)
}

/// Asks systemd for something; its answer, or why there is none.
fn systemctl(arguments: &[&str]) -> Result<String, String> {
    let out = Command::new("systemctl")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot run systemctl: {e}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&out.stderr);
    Err(format!(
        "systemctl {} failed: {}",
        arguments.join(" "),
        words.trim()
    ))
}

/// A user's ids, as `/etc/passwd` has them.
fn user(name: &str) -> Option<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}
