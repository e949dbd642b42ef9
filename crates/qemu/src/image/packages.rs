//! Everything in the guest but the kernel: taken from the programs that are
//! installed on this machine, so that the guest's Slurm is the cluster's Slurm.

use super::cpio::{Node, Tree};
use crate::error::Error;
use crate::settings::SlurmFiles;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Slurm's programs without which no guest works, and the Debian package of each.
const DAEMONS: [(&str, &str); 2] = [("slurmd", "slurmd"), ("slurmstepd", "slurmd")];
const CLIENTS: [(&str, &str); 2] = [("srun", "slurm-client"), ("scontrol", "slurm-client")];

/// What guests need where Slurm's credentials are munge's.
const MUNGED: &str = "/usr/sbin/munged";

/// The same of others, where Debian has them.
const NEEDED: [(&str, &str); 2] = [("/usr/bin/bash", "bash"), ("/usr/bin/busybox", "busybox-static")];

/// Slurm's programs that jobs may like.
const WELCOME_CLIENTS: [&str; 6] = ["sbatch", "squeue", "sinfo", "scancel", "sbcast", "sstat"];

/// Programs that jobs may like, taken where they are. Where busybox has
/// the same, the system's own knows options that jobs use (`date +%N`, `ps -e`).
const WELCOME: [&str; 10] = [
    MUNGED,
    "/usr/bin/munge",
    "/usr/bin/unmunge",
    "/usr/bin/date",
    "/usr/bin/timeout",
    "/usr/bin/ps",
    "/usr/bin/free",
    "/usr/bin/uptime",
    "/usr/bin/taskset",
    "/usr/bin/getent",
];

/// Where every guest finds its programs, wherever they are.
const GUEST_BIN: &str = "usr/bin";
const GUEST_SBIN: &str = "usr/sbin";

/// Plugins of slurmrestd and slurmctld alone, by the beginning of their names, and the library of
/// Slurm's libpmi, which is not in guests.
const NOT_IN_GUESTS: [&str; 9] = [
    "libslurm_pmi",
    "openapi_",
    "rest_auth_",
    "slurmctld_",
    "sched_",
    "job_submit_",
    "jobcomp_",
    "burst_buffer_",
    "accounting_storage_slurmdbd",
];

/// The plugins that write JSON for Slurm's commands, one for each version of its form, 1 MB each. The
/// newest is the one that they use when none is named.
const JSON_FORMS: &str = "data_parser_";

/// A library that glibc opens by itself when a thread is cancelled.
const OPENED_BY_LIBC: &str = "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1";

/// Debian's dynamic loader, which also tells what a program needs.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// Whether guests of this machine's programs can use munge.
pub fn has_munge() -> bool {
    Path::new(MUNGED).exists()
}

/// The folders and links that every program expects.
pub fn skeleton(tree: &mut Tree) {
    for (link, to) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/sbin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
    ] {
        tree.add(link, Node::Link(to.into()));
    }
    for folder in [
        "dev",
        "etc",
        "home",
        "proc",
        "root",
        "run",
        "sys",
        "usr/bin",
        "usr/sbin",
        "usr/lib64",
        "var/lib",
        "var/log",
        "var/spool",
        "run/lock",
    ] {
        tree.add(folder, Node::Folder(if folder == "root" { 0o700 } else { 0o755 }));
    }
    tree.add("tmp", Node::Folder(0o1777));
    tree.add("var/tmp", Node::Folder(0o1777));
    tree.add("var/run", Node::Link("../run".into()));
    // The kernel opens its console before anything is mounted; Rust's runtime wants /dev/null.
    tree.add("dev/console", Node::Device(0o600, 5, 1));
    tree.add("dev/null", Node::Device(0o666, 1, 3));
    let files = [
        (
            "etc/nsswitch.conf",
            "passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\n",
        ),
        ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/hosts", "127.0.0.1 localhost\n"),
        ("etc/shells", "/bin/sh\n/bin/bash\n"),
        (
            "etc/profile",
            "export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\n",
        ),
    ];
    for (path, text) in files {
        tree.add(path, Node::File(0o644, text.as_bytes().to_vec()));
    }
}

/// Adds the programs, Slurm's plugins, busybox's commands, and every library that they need.
///
/// Slurm's parts stay where they are on this machine: slurmd knows the place of slurmstepd and of the
/// plugins from when it was built (`SLURM_PREFIX`). Links at the usual places lead to them.
pub fn programs(tree: &mut Tree, slurm: &SlurmFiles) -> Result<(), Error> {
    let in_dir = |dir: &Path, programs: &[(&str, &'static str)]| -> Vec<(PathBuf, &'static str)> {
        let place = |(name, package): &(&str, &'static str)| (dir.join(name), *package);
        programs.iter().map(place).collect()
    };
    let (daemons, clients) = (in_dir(&slurm.sbin, &DAEMONS), in_dir(&slurm.bin, &CLIENTS));
    let mut wanted: Vec<PathBuf> = Vec::new();
    let others = NEEDED.map(|(program, package)| (PathBuf::from(program), package));
    for (program, package) in daemons.into_iter().chain(clients).chain(others) {
        if !program.exists() {
            return Err(Error::Image(format!(
                "{} is not there, and guests need it; install the Debian package {package}",
                program.display()
            )));
        }
        wanted.push(program);
    }
    let welcome = WELCOME.iter().map(PathBuf::from);
    let welcome = welcome.chain(WELCOME_CLIENTS.iter().map(|name| slurm.bin.join(name)));
    wanted.extend(welcome.filter(|path| path.exists()));
    let plugins = plugins(&slurm.plugins)?;

    let mut libraries = BTreeSet::from([PathBuf::from(LOADER)]);
    if Path::new(OPENED_BY_LIBC).exists() {
        libraries.insert(OPENED_BY_LIBC.into());
    }
    for program in &wanted {
        match needs(program)? {
            Needs::Libraries(found) => libraries.extend(found),
            Needs::Missing(name) => {
                return Err(Error::Image(format!(
                    "{} needs {name}, which is not installed",
                    program.display()
                )));
            }
        }
        add_file(tree, program, 0o755)?;
    }
    for plugin in &plugins {
        // A plugin whose libraries are not installed would not load on this machine either.
        if let Needs::Libraries(found) = needs(plugin)? {
            libraries.extend(found);
            add_file(tree, plugin, 0o644)?;
        }
    }
    for library in &libraries {
        add_file(tree, library, 0o755)?;
    }
    for (usual, dir) in [(GUEST_BIN, &slurm.bin), (GUEST_SBIN, &slurm.sbin)] {
        let programs = wanted.iter().filter(|program| program.parent() == Some(dir));
        programs
            .into_iter()
            .try_for_each(|program| link(tree, usual, program))?;
    }
    busybox(tree)
}

/// Adds what the agent itself needs, where nothing else runs before a disk's system does.
pub fn agent_alone(tree: &mut Tree, agent: &Path) -> Result<(), Error> {
    let Needs::Libraries(found) = needs(agent)? else {
        return Err(Error::Image(format!("{} lacks a library", agent.display())));
    };
    found
        .iter()
        .map(PathBuf::as_path)
        .chain([Path::new(LOADER)])
        .try_for_each(|library| add_file(tree, library, 0o755))
}

/// The plugins in these folders, without those that no guest loads.
fn plugins(folders: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut plugins: Vec<PathBuf> = Vec::new();
    for folder in folders {
        let entries = fs::read_dir(folder).map_err(|e| Error::io("read Slurm's plugins in", folder, e))?;
        let files = entries.flatten().map(|entry| entry.path());
        plugins.extend(
            files.filter(|path| path.extension().is_some_and(|ending| ending == "so") && in_guests(path)),
        );
    }
    plugins.sort();
    drop_old_json(&mut plugins);
    Ok(plugins)
}

/// Leaves of the sorted plugins only the newest form of JSON.
fn drop_old_json(plugins: &mut Vec<PathBuf>) {
    let is_json = |path: &Path| name(path).starts_with(JSON_FORMS);
    let newest = plugins.iter().rfind(|path| is_json(path)).cloned();
    plugins.retain(|path| !is_json(path) || Some(path) == newest.as_ref());
}

fn in_guests(plugin: &Path) -> bool {
    let name = name(plugin);
    !NOT_IN_GUESTS.iter().any(|start| name.starts_with(start))
}

fn name(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// What the loader says about a program or library.
#[derive(Debug, PartialEq, Eq)]
enum Needs {
    /// These files, none for a static program.
    Libraries(Vec<PathBuf>),
    /// This one was not found.
    Missing(String),
}

fn needs(path: &Path) -> Result<Needs, Error> {
    let out = Command::new(LOADER)
        .arg("--list")
        .arg(path)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Error::io("run the loader", Path::new(LOADER), e))?;
    // The loader refuses static programs, which need nothing.
    Ok(parse_list(&String::from_utf8_lossy(&out.stdout)))
}

/// Reads lines like `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f..)`.
fn parse_list(text: &str) -> Needs {
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((name, place)) = line.trim().split_once(" => ") else {
            continue;
        };
        match place.rsplit_once(" (0x") {
            Some((path, _)) if path.starts_with('/') => found.push(path.into()),
            _ => return Needs::Missing(name.to_owned()),
        }
    }
    Needs::Libraries(found)
}

/// Copies a file to the same place in the guest, links resolved: the folder's
/// own name, then the file's name as it is asked for. The folder's other name
/// leads there.
fn add_file(tree: &mut Tree, path: &Path, mode: u32) -> Result<(), Error> {
    let place = place(path)?;
    if !tree.has(&place.to_string_lossy()) {
        let content = fs::read(path).map_err(|e| Error::io("read", path, e))?;
        tree.add(&place.to_string_lossy(), Node::File(mode, content));
    }
    if let (Some(asked), Some(folder)) = (path.parent(), place.parent())
        && asked != folder
    {
        let asked = asked.to_string_lossy();
        let top = asked
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default();
        if !tree.is_link(top) {
            tree.add(&asked, Node::Link(folder.to_string_lossy().into_owned()));
        }
    }
    Ok(())
}

/// Where a file of this machine is in the guest.
fn place(path: &Path) -> Result<PathBuf, Error> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let folder = folder.canonicalize().map_err(|e| Error::io("read", path, e))?;
    Ok(folder.join(path.file_name().unwrap_or_default()))
}

/// Lets a program be found in the usual folder, too.
fn link(tree: &mut Tree, usual: &str, program: &Path) -> Result<(), Error> {
    let name = name(program);
    let usual = format!("{usual}/{name}");
    if !tree.has(&usual) {
        let place = place(program)?.to_string_lossy().into_owned();
        tree.add(&usual, Node::Link(place));
    }
    Ok(())
}

/// Links for busybox's commands, where no program of that name is in the image.
fn busybox(tree: &mut Tree) -> Result<(), Error> {
    let program = Path::new("/usr/bin/busybox");
    let out = Command::new(program)
        .arg("--list")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Error::io("run", program, e))?;
    for name in String::from_utf8_lossy(&out.stdout).lines() {
        let taken = tree.has(&format!("usr/bin/{name}")) || tree.has(&format!("usr/sbin/{name}"));
        if !taken && !name.is_empty() && !name.contains('/') {
            tree.add(&format!("usr/bin/{name}"), Node::Link("busybox".into()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_loaders_list_is_read() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f1)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        assert_eq!(
            parse_list(text),
            Needs::Libraries(vec!["/lib/x86_64-linux-gnu/libm.so.6".into()])
        );
        assert_eq!(
            parse_list("\tliblua.so => not found\n"),
            Needs::Missing("liblua.so".into())
        );
        assert_eq!(parse_list(""), Needs::Libraries(vec![]));
    }

    #[test]
    fn guests_get_the_newest_form_of_json_alone() {
        let mut plugins = [
            "cred_munge",
            "data_parser_v0_0_39",
            "data_parser_v0_0_42",
            "hash_k12",
        ]
        .map(PathBuf::from)
        .to_vec();
        drop_old_json(&mut plugins);
        let left = ["cred_munge", "data_parser_v0_0_42", "hash_k12"].map(PathBuf::from);
        assert_eq!(plugins, left);
        assert!(in_guests(Path::new("/p/auth_munge.so")) && !in_guests(Path::new("/p/libslurm_pmi.so")));
    }

    #[test]
    fn a_program_elsewhere_is_at_its_place_and_at_the_usual_one() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("slurm-25.11/sbin");
        fs::create_dir_all(&real).unwrap();
        fs::write(real.join("slurmd"), "program").unwrap();
        std::os::unix::fs::symlink("slurm-25.11", dir.path().join("slurm")).unwrap();
        let mut tree = Tree::default();
        skeleton(&mut tree);
        let asked = dir.path().join("slurm/sbin/slurmd");
        add_file(&mut tree, &asked, 0o755).unwrap();
        link(&mut tree, GUEST_SBIN, &asked).unwrap();

        let real = real.canonicalize().unwrap();
        let mut expected = Tree::default();
        skeleton(&mut expected);
        let place = real.join("slurmd").to_string_lossy().into_owned();
        expected.add(&place, Node::File(0o755, b"program".to_vec()));
        expected.add(
            &asked.parent().unwrap().to_string_lossy(),
            Node::Link(real.to_string_lossy().into_owned()),
        );
        expected.add("usr/sbin/slurmd", Node::Link(place));
        assert_eq!(tree, expected);
    }

    proptest! {
        #[test]
        fn any_list_is_survived(text in ".{0,200}") {
            let _ = parse_list(&text);
        }
    }
}
