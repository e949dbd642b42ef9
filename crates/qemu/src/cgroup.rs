//! A VM's share of its host's processors, held by the kernel's control groups.
//!
//! Shares are weights: a VM may use whatever is idle, and gets no less than
//! its part when there is contention. Each VM has a group of its own beside
//! the controller's other children, so its weight counts against all of them;
//! a whole core's share weighs as much as the kernel's default for one group.
//!
//! ```text
//! v2:  <own group>/thiao-<cluster>@<vm>/cpu.weight   100 per core
//! v1:  <own group>/thiao-<cluster>@<vm>/cpu.shares  1024 per core
//! ```
//!
//! Where our own group has no weights to give (v2 in a login session), one
//! above it is taken if it has and lets us: the machine's root group, for root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiao_core::ids::{ClusterName, VmId};

/// What went wrong with a VM's group.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}: {source}; the VM runs on without its CPU share being enforced")]
pub struct CgroupError {
    /// What was tried, as a verb.
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The machine's control groups, as far as they are ours to use.
#[derive(Debug, Clone)]
pub struct Cgroups {
    /// How a VM's group is named before its id.
    prefix: String,
    control: Control,
}

#[derive(Debug, Clone)]
enum Control {
    /// Groups can be made in this folder.
    On { version: Version, parent: PathBuf },
    /// They cannot be made, and why.
    Off(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }

    fn weight_file(self) -> &'static str {
        match self {
            Self::V1 => "cpu.shares",
            Self::V2 => "cpu.weight",
        }
    }

    /// The weight of a share in percent of a core, within what the kernel takes.
    fn weight(self, cpu_percent: u32) -> u64 {
        let percent = u64::from(cpu_percent);
        match self {
            Self::V1 => (percent * 1024 / 100).clamp(2, 262_144),
            Self::V2 => percent.clamp(1, 10_000),
        }
    }
}

/// How often, and how long after each other, the removal of a group is tried
/// while its last process is still being taken down.
const REMOVE_TRIES: u32 = 20;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

impl Cgroups {
    /// Finds out by trying which control groups this process may use, and
    /// removes empty groups that VMs of this cluster have left.
    #[must_use]
    pub fn detect(cluster: &ClusterName) -> Self {
        Self::detect_under(Path::new("/"), cluster)
    }

    /// [`Self::detect`] in another root folder, for tests.
    #[must_use]
    pub fn detect_under(root: &Path, cluster: &ClusterName) -> Self {
        // '@' is in no name of ours: one cluster's prefix is never another's.
        let prefix = format!("thiao-{cluster}@");
        let probe = format!("thiao-{cluster}-probe");
        let control = find(root).and_then(|places| {
            let mut first = None;
            for (version, parent) in places {
                match prepare(version, &parent, &probe) {
                    Ok(()) => return Ok(Control::On { version, parent }),
                    Err(why) => first = first.or(Some(why)),
                }
            }
            Err(first.unwrap_or_else(|| NOT_GIVEN.to_owned()))
        });
        let control = control.unwrap_or_else(Control::Off);
        let cgroups = Self { prefix, control };
        cgroups.sweep();
        cgroups
    }

    /// What is enforced, and how, or why not; for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.control {
            Control::On { version, parent } => {
                format!(
                    "CPU shares are enforced by cgroup {} under {}",
                    version.name(),
                    parent.display()
                )
            }
            Control::Off(why) => format!("CPU shares are not enforced: {why}"),
        }
    }

    /// Gives the VM's process, and what it starts from now on, its share: `cpu_percent` in percent of a core.
    /// Does nothing where nothing can be enforced (see [`Self::describe`]).
    pub fn place(&self, vm: &VmId, pid: i32, cpu_percent: u32) -> Result<(), CgroupError> {
        let Control::On { version, parent } = &self.control else {
            return Ok(());
        };
        let group = parent.join(format!("{}{vm}", self.prefix));
        let failed = |what, path: &Path, source| CgroupError {
            what,
            path: path.to_owned(),
            source,
        };
        make(*version, &group).map_err(|e| failed("make", &group, e))?;
        for (file, value) in [
            (version.weight_file(), version.weight(cpu_percent)),
            ("cgroup.procs", u64::from(pid.unsigned_abs())),
        ] {
            let path = group.join(file);
            fs::write(&path, value.to_string()).map_err(|e| failed("write", &path, e))?;
        }
        Ok(())
    }

    /// Removes the VM's group. One that still holds processes stays, and is removed by a later [`Self::detect`].
    pub fn remove(&self, vm: &VmId) {
        let Control::On { parent, .. } = &self.control else {
            return;
        };
        let group = parent.join(format!("{}{vm}", self.prefix));
        for _ in 0..REMOVE_TRIES {
            match fs::remove_dir(&group) {
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(REMOVE_PAUSE),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return,
                Err(e) => return tracing::debug!(group = %group.display(), "the group stays: {e}"),
                Ok(()) => return,
            }
        }
        tracing::debug!(group = %group.display(), "the group stays: it still holds processes");
    }

    /// Removes this cluster's groups that hold no process: the kernel refuses to remove any other.
    fn sweep(&self) {
        let Control::On { parent, .. } = &self.control else {
            return;
        };
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry
                .file_name()
                .to_str()
                .is_some_and(|n| n.starts_with(&self.prefix))
            {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

const NOT_GIVEN: &str = "the CPU controller is not given to our control group: run the controller as a systemd \
                         service with Delegate=yes, or as root";

/// The groups in which VMs' groups may be made, best first. The error says why there is none.
///
/// That is our own group. For v2 also those above it that have the controller
/// enabled for their children: there nothing needs to be changed, and to root
/// they are open.
fn find(root: &Path) -> Result<Vec<(Version, PathBuf)>, String> {
    let read = |name: &str| {
        let path = root.join(name);
        fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))
    };
    let mounts = read("proc/self/mountinfo")?;
    let own = read("proc/self/cgroup")?;
    let mut mounted = false;
    let mut places = Vec::new();
    for mount in mounts.lines().filter_map(Mount::parse) {
        let version = match mount.kind {
            "cgroup" if mount.options.split(',').any(|o| o == "cpu") => Version::V1,
            "cgroup2" => Version::V2,
            _ => continue,
        };
        mounted = true;
        let Some(path) = own_group(&own, version) else {
            continue;
        };
        // What is mounted may be a part of the hierarchy only, as in a container.
        let below = path
            .strip_prefix(mount.root)
            .unwrap_or(path)
            .trim_start_matches('/');
        let top = root.join(mount.point.trim_start_matches('/'));
        let own = top.join(below);
        match version {
            Version::V1 => places.push((version, own)),
            Version::V2 => {
                let above = own.ancestors().skip(1).take_while(|p| p.starts_with(&top));
                let open = above
                    .filter(|p| has_cpu(&p.join("cgroup.subtree_control")))
                    .map(Path::to_owned);
                let own = has_cpu(&own.join("cgroup.controllers")).then(|| own.clone());
                places.extend(own.into_iter().chain(open).map(|p| (version, p)));
            }
        }
    }
    if mounted {
        Ok(places)
    } else {
        Err("no control groups with the CPU controller are mounted".to_owned())
    }
}

/// Makes sure that groups made in `parent` get weights, by making one.
fn prepare(version: Version, parent: &Path, probe: &str) -> Result<(), String> {
    let failed = |what: &str, path: &Path, e: io::Error| format!("cannot {what} {}: {e}", path.display());
    let subtree = parent.join("cgroup.subtree_control");
    if version == Version::V2 && !has_cpu(&subtree) {
        fs::write(&subtree, "+cpu").map_err(|e| failed("enable the CPU controller in", &subtree, e))?;
    }
    let group = parent.join(probe);
    make(version, &group).map_err(|e| failed("make the control group", &group, e))?;
    let weight = group.join(version.weight_file());
    let written =
        fs::write(&weight, version.weight(100).to_string()).map_err(|e| failed("write", &weight, e));
    let _ = fs::remove_dir(&group);
    written
}

/// Makes a group that can hold a process beside those of the group above it.
///
/// With v2 that takes a *threaded* group: an ordinary one can't be used while
/// the group above holds processes (as a service's own group does), and, once
/// in use, would keep systemd from starting the service again. Where threaded
/// groups can't be made, ordinary ones can be used: right below the root, and
/// below groups that hold no processes.
fn make(version: Version, group: &Path) -> io::Result<()> {
    match fs::create_dir(group) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let kind = group.join("cgroup.type");
    let below_root = !group.parent().is_some_and(|p| p.join("cgroup.type").exists());
    if version == Version::V1 || below_root {
        return Ok(());
    }
    match fs::write(&kind, "threaded") {
        Err(e) if fs::read_to_string(&kind)?.trim() != "domain" => Err(e),
        _ => Ok(()),
    }
}

fn has_cpu(file: &Path) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.split_whitespace().any(|c| c == "cpu"))
}

/// Our own group's path, from the lines `id:controllers:path` of `/proc/self/cgroup`; v2 has id 0 and no controllers.
fn own_group(text: &str, version: Version) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let matches = match version {
            Version::V1 => controllers.split(',').any(|c| c == "cpu"),
            Version::V2 => id == "0" && controllers.is_empty(),
        };
        matches.then_some(path)
    })
}

/// A line of `/proc/self/mountinfo`, see proc_pid_mountinfo(5).
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    /// Those of the file system, where v1 names its controllers.
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut filesystem = filesystem.split(' ');
        Some(Self {
            root: mount.next()?,
            point: mount.next()?,
            kind: filesystem.next()?,
            options: filesystem.nth(1)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "31 25 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                      32 25 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn cluster() -> ClusterName {
        ClusterName::new("c1").unwrap()
    }

    fn vm() -> VmId {
        VmId::new("fg0.7").unwrap()
    }

    /// A root folder whose process is in `own`; `files` are made with their text.
    fn root(mountinfo: &str, own: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in [("proc/self/mountinfo", mountinfo), ("proc/self/cgroup", own)]
            .iter()
            .chain(files)
        {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn v1_shares_are_written_in_our_own_group() {
        let files = [
            ("sys/fs/cgroup/cpu/a/b/tasks", ""),
            ("sys/fs/cgroup/unified/cgroup.controllers", ""),
        ];
        let root = root(V1, "3:memory:/m\n2:cpu,cpuacct:/a/b\n0::/\n", &files);
        let cgroups = Cgroups::detect_under(root.path(), &cluster());
        assert!(
            cgroups
                .describe()
                .starts_with("CPU shares are enforced by cgroup v1 under"),
            "{}",
            cgroups.describe()
        );
        cgroups.place(&vm(), 4711, 150).unwrap();
        cgroups.place(&vm(), 4711, 150).unwrap();
        let group = root.path().join("sys/fs/cgroup/cpu/a/b/thiao-c1@fg0.7");
        assert_eq!(fs::read_to_string(group.join("cpu.shares")).unwrap(), "1536");
        assert_eq!(fs::read_to_string(group.join("cgroup.procs")).unwrap(), "4711");
    }

    #[test]
    fn v2_enables_the_controller_and_writes_weights() {
        let files = [
            ("sys/fs/cgroup/svc/cgroup.controllers", "cpu memory\n"),
            ("sys/fs/cgroup/svc/cgroup.subtree_control", "memory\n"),
        ];
        let root = root(V2, "0::/svc\n", &files);
        let cgroups = Cgroups::detect_under(root.path(), &cluster());
        assert!(cgroups.describe().contains("cgroup v2"), "{}", cgroups.describe());
        let own = root.path().join("sys/fs/cgroup/svc");
        assert_eq!(
            fs::read_to_string(own.join("cgroup.subtree_control")).unwrap(),
            "+cpu"
        );
        cgroups.place(&vm(), 12, 50).unwrap();
        assert_eq!(
            fs::read_to_string(own.join("thiao-c1@fg0.7/cpu.weight")).unwrap(),
            "50"
        );
    }

    #[test]
    fn a_container_sees_a_part_of_the_hierarchy() {
        let mountinfo = V2.replace("0:26 / ", "0:26 /docker/x ");
        let files = [
            ("sys/fs/cgroup/in/cgroup.controllers", "cpu"),
            ("sys/fs/cgroup/in/cgroup.subtree_control", "cpu"),
        ];
        let root = root(&mountinfo, "0::/docker/x/in\n", &files);
        let cgroups = Cgroups::detect_under(root.path(), &cluster());
        assert!(
            cgroups.describe().ends_with("/sys/fs/cgroup/in"),
            "{}",
            cgroups.describe()
        );
    }

    #[test]
    fn v2_climbs_to_a_group_that_has_weights_to_give() {
        let files = [
            ("sys/fs/cgroup/cgroup.subtree_control", "cpu memory"),
            ("sys/fs/cgroup/user/cgroup.controllers", "memory"),
            ("sys/fs/cgroup/user/cgroup.subtree_control", ""),
            ("sys/fs/cgroup/user/session/cgroup.controllers", "memory"),
        ];
        let root = root(V2, "0::/user/session\n", &files);
        let cgroups = Cgroups::detect_under(root.path(), &cluster());
        assert!(
            cgroups.describe().ends_with("/sys/fs/cgroup"),
            "{}",
            cgroups.describe()
        );
        let unchanged = fs::read_to_string(root.path().join("sys/fs/cgroup/user/cgroup.subtree_control"));
        assert_eq!(unchanged.unwrap(), "");
    }

    #[test]
    fn v2_groups_beside_processes_are_threaded() {
        let own = "sys/fs/cgroup/svc";
        let controllers = format!("{own}/cgroup.controllers");
        let kind = format!("{own}/cgroup.type");
        let root = root(V2, "0::/svc\n", &[(&controllers, "cpu"), (&kind, "domain")]);
        let cgroups = Cgroups::detect_under(root.path(), &cluster());
        cgroups.place(&vm(), 12, 50).unwrap();
        let group = root.path().join(own).join("thiao-c1@fg0.7");
        assert_eq!(fs::read_to_string(group.join("cgroup.type")).unwrap(), "threaded");
    }

    #[test]
    fn what_cannot_be_enforced_is_said_and_harms_nothing() {
        for (mountinfo, own, word) in [
            ("", "", "no control groups"),
            (V2, "0::/user\n", "Delegate=yes"),
            (
                "30 23 0:26 / /nowhere rw - cgroup cgroup rw,cpu\n",
                "1:cpu:/\n",
                "cannot make",
            ),
        ] {
            let root = root(mountinfo, own, &[]);
            let cgroups = Cgroups::detect_under(root.path(), &cluster());
            assert!(
                cgroups.describe().starts_with("CPU shares are not enforced"),
                "{}",
                cgroups.describe()
            );
            assert!(
                cgroups.describe().contains(word),
                "{word}: {}",
                cgroups.describe()
            );
            cgroups.place(&vm(), 1, 100).unwrap();
            cgroups.remove(&vm());
        }
    }

    #[test]
    fn weights_stay_within_the_kernels_bounds() {
        assert_eq!(
            (
                Version::V1.weight(0),
                Version::V1.weight(100),
                Version::V1.weight(u32::MAX)
            ),
            (2, 1024, 262_144)
        );
        assert_eq!(
            (
                Version::V2.weight(0),
                Version::V2.weight(100),
                Version::V2.weight(u32::MAX)
            ),
            (1, 100, 10_000)
        );
    }
}
