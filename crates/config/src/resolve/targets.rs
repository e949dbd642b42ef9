//! Where guests see folders: nowhere where their own system is, and no two in one place.

use crate::read::Section;
use std::path::{Component, Path, PathBuf};

/// The places that are taken, and by whose folders; none: by those of everybody.
#[derive(Default)]
pub struct Targets(Vec<(PathBuf, Option<u32>)>);

impl Targets {
    /// Takes the place of a table's folder, which is one user's alone or everybody's. Two users may have their own
    /// folders in one place: a VM of job mode sees those of one.
    pub fn take(&mut self, table: &Section<'_, '_>, target: &Path, user: Option<u32>) {
        let shared = |other: &Option<u32>| other.is_none() || user.is_none() || *other == user;
        if let Some(why) = trouble(target) {
            table.problem("target", format!("{:?} {why}", target.to_string_lossy()));
        } else if self
            .0
            .iter()
            .any(|(taken, other)| taken == target && shared(other))
        {
            table.problem(
                "target",
                format!(
                    "{:?} is the place of another folder already: guests would see one of them alone",
                    target.to_string_lossy()
                ),
            );
        }
        self.0.push((target.to_owned(), user));
    }
}

/// Why no folder can be seen there. (Labs have their folders below `/tmp`, which is fine.)
fn trouble(target: &Path) -> Option<&'static str> {
    let mut names = Vec::new();
    for component in target.components() {
        match component {
            Component::Normal(name) => names.push(name.to_string_lossy()),
            Component::ParentDir => return Some("has \"..\" in it: write the folder's own path"),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let system = match names.as_slice() {
        [] => return Some("is the guests' own root"),
        ["tmp"] | ["var", "tmp"] => return Some("is where guests have their own space for what jobs leave"),
        [
            "bin" | "boot" | "dev" | "etc" | "lib" | "lib32" | "lib64" | "libx32" | "proc" | "run" | "sbin"
            | "sys",
            ..,
        ] => true,
        ["usr"]
        | [
            "usr",
            "bin" | "lib" | "lib32" | "lib64" | "libexec" | "libx32" | "sbin",
            ..,
        ] => true,
        ["var"] | ["var", "cache" | "lib" | "log" | "spool"] | ["var", "lock" | "run", ..] => true,
        _ => false,
    };
    system.then_some("would hide the guests' own system: choose another place, as below /home, /srv or /opt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_own_system_stays_in_sight() {
        for bad in [
            "/",
            "//",
            "/.",
            "/etc",
            "/etc/",
            "/etc/x",
            "/usr",
            "/usr/bin",
            "/bin",
            "/sbin",
            "/lib",
            "/lib64/x",
            "/proc",
            "/sys/fs",
            "/dev/shm",
            "/run/thiao",
            "/boot",
            "/var",
            "/var/lib",
            "/tmp",
            "/tmp/",
            "/home/..",
            "/home/../etc",
        ] {
            assert!(trouble(bad.as_ref()).is_some(), "{bad}");
        }
        for good in [
            "/home",
            "/library",
            "/opt/site",
            "/usr/local",
            "/usr/share/site",
            "/tmp/lab/home/user1",
            "/var/lib/site",
            "/etcetera",
        ] {
            assert_eq!(trouble(good.as_ref()), None, "{good}");
        }
    }
}
