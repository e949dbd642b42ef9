//! Whether anything of a lab is left on this machine after its end.

use super::checks::Check;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Looks for processes, files, interfaces and control groups of the lab that was in `dir`.
pub fn find(dir: &Path, cluster: &str, bridge: &str) -> Vec<Check> {
    let processes = processes_naming(dir);
    let groups = groups_of(cluster);
    vec![
        Check {
            what: "no process of the lab is left".to_owned(),
            wrong: (!processes.is_empty()).then(|| processes.join(", ")),
        },
        Check {
            what: "no file of the lab is left".to_owned(),
            wrong: dir.exists().then(|| dir.display().to_string()),
        },
        Check {
            what: "no bridge of the lab is left".to_owned(),
            wrong: Path::new("/sys/class/net")
                .join(bridge)
                .exists()
                .then(|| bridge.to_owned()),
        },
        Check {
            what: "no control group of the lab is left".to_owned(),
            wrong: (!groups.is_empty()).then(|| groups.join(", ")),
        },
    ]
}

/// Processes other than this one that name the folder on their command line, stand in it, or were told of it.
fn processes_naming(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return vec!["/proc cannot be read".to_owned()];
    };
    let own = std::process::id().to_string();
    let name = dir.as_os_str().as_bytes();
    let names = |text: &[u8]| text.windows(name.len()).any(|part| part == name);
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|pid| *pid != own && pid.bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|pid| {
            let process = Path::new("/proc").join(&pid);
            let line = std::fs::read(process.join("cmdline")).ok()?;
            let told = || std::fs::read(process.join("environ")).is_ok_and(|environment| names(&environment));
            let stands = || std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
            (names(&line) || told() || stands()).then(|| {
                format!(
                    "{pid} ({})",
                    String::from_utf8_lossy(&line).replace('\0', " ").trim_end()
                )
            })
        })
        .collect()
}

/// Control groups that carry the cluster's name.
fn groups_of(cluster: &str) -> Vec<String> {
    /// Deep enough for a session's own scope below its user's slice.
    const DEPTH: u32 = 7;
    let mut found = Vec::new();
    let mut folders = vec![(Path::new("/sys/fs/cgroup").to_path_buf(), 0)];
    let prefix = format!("thiao-{cluster}");
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                found.push(entry.path().display().to_string());
            } else if depth < DEPTH {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_and_a_file_that_are_left_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x");
        std::fs::write(&file, "").unwrap();
        let mut child = std::process::Command::new("tail")
            .arg("-f")
            .arg(&file)
            .spawn()
            .unwrap();
        let wrong = |checks: Vec<Check>| checks.into_iter().filter(|check| check.wrong.is_some()).count();
        // The child's command line is there only when it has become tail.
        std::thread::sleep(std::time::Duration::from_millis(200));
        let before = wrong(find(dir.path(), "labnone", "nobridge0"));
        child.kill().unwrap();
        child.wait().unwrap();
        let path = dir.path().to_path_buf();
        drop(dir);
        assert_eq!(before, 2);
        assert_eq!(wrong(find(&path, "labnone", "nobridge0")), 0);
    }
}
