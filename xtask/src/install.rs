//! `cargo xtask install`: what `dist` made, put where it belongs; and taken away again.
//!
//! A list of all that was installed lies beside the programs. What is not on it is somebody else's.

use crate::steps;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// The program that people type.
const BIN: &str = "/usr/local/bin";
/// The others, where that one finds them.
const LIBEXEC: &str = "/usr/lib/thiao";
const MAN: &str = "/usr/local/share/man/man1";
const DOC: &str = "/usr/local/share/doc/thiao";
const COMPLETION: &str = "/etc/bash_completion.d";
const UNITS: &str = "/etc/systemd/system";

/// The list of what was installed.
const LIST: &str = "/usr/lib/thiao/installed";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    Install {
        /// Whether to take what `dist` left, and build nothing.
        built: bool,
        /// Whether to replace files of others.
        force: bool,
        /// The root of another file system than this machine's.
        destdir: Option<PathBuf>,
    },
    Remove {
        /// The root of that file system.
        destdir: Option<PathBuf>,
    },
}

impl Wanted {
    /// Reads the words behind `install`.
    pub fn read(words: &[String]) -> Result<Self> {
        let (mut built, mut force, mut remove, mut destdir) = (false, false, false, None);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--built" => built = true,
                "--force" => force = true,
                "--remove" => remove = true,
                "--destdir" => destdir = Some(words.next().context("--destdir takes a folder")?.into()),
                other => bail!("install does not know {other}; `cargo xtask --help` lists what it knows"),
            }
        }
        match remove {
            true if built || force => bail!("--remove stands alone, or with --destdir"),
            true => Ok(Self::Remove { destdir }),
            false => Ok(Self::Install {
                built,
                force,
                destdir,
            }),
        }
    }
}

/// Installs or removes, as it was asked for.
pub fn install(wanted: &Wanted) -> Result<ExitCode> {
    let (Wanted::Install { destdir, .. } | Wanted::Remove { destdir }) = wanted;
    let here = destdir.is_none();
    if here && !is_root() {
        bail!(
            "this writes into /usr and /etc: run it as root. Built as another user: `cargo xtask dist`, and then as \
             root, in the same folder, `target/debug/xtask install --built`"
        );
    }
    let root = destdir.clone().unwrap_or_else(|| "/".into());
    match wanted {
        Wanted::Install { built, force, .. } => {
            if !built {
                steps::dist()?;
            }
            put(&steps::target().join("dist"), &root, *force)?;
            if here {
                reload();
            }
            println!("installed; next: thiao setup (README.md, in {DOC})");
        }
        Wanted::Remove { .. } => {
            if here && is_active() {
                bail!(
                    "thiaod runs: `systemctl disable --now thiaod` first; docs/operations.md tells the whole way"
                );
            }
            let count = remove(&root)?;
            if here {
                reload();
            }
            println!("{count} files removed; settings, state and cache are left (docs/operations.md)");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is put somewhere.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A file of `dist`, with these permissions.
    File(PathBuf, u32),
    /// A link to this.
    Link(PathBuf),
}

/// All that is installed of `dist`, and where.
fn layout(dist: &Path) -> Result<Vec<(PathBuf, What)>> {
    let mut all = vec![
        (Path::new(BIN).join("tsub"), What::Link("thiao".into())),
        (
            Path::new(BIN).join("tclean"),
            What::Link(Path::new(LIBEXEC).join("thiao-hook")),
        ),
    ];
    for (from, to, mode) in [
        ("bin", LIBEXEC, 0o755),
        ("man", MAN, 0o644),
        ("docs", &format!("{DOC}/docs"), 0o644),
        ("", DOC, 0o644),
    ] {
        let folder = dist.join(from);
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("{} cannot be read: `cargo xtask dist` makes it", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let to = match (from, name.to_str()) {
                ("bin", Some("thiao")) => Path::new(BIN),
                // Linked above, each to where its program is.
                ("bin", Some("tsub" | "tclean")) => continue,
                ("", Some("thiaod.service")) => Path::new(UNITS),
                _ => Path::new(to),
            };
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                all.push((to.join(&name), What::Link(fs::read_link(&path)?)));
            } else if kind.is_file() {
                all.push((to.join(&name), What::File(path, mode)));
            }
        }
    }
    let completion = dist.join("completions/thiao.bash");
    all.push((
        Path::new(COMPLETION).join("thiao.bash"),
        What::File(completion, 0o644),
    ));
    all.sort();
    Ok(all)
}

/// Where a path of the machine's is below this root.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// What an earlier install put there.
fn listed(root: &Path) -> BTreeSet<PathBuf> {
    let list = fs::read_to_string(below(root, Path::new(LIST))).unwrap_or_default();
    list.lines().map(PathBuf::from).collect()
}

fn put(dist: &Path, root: &Path, force: bool) -> Result<()> {
    let all = layout(dist)?;
    let ours = listed(root);
    let others: Vec<String> = all
        .iter()
        .filter(|(path, what)| !ours.contains(path) && !force && is_others(&below(root, path), what))
        .map(|(path, _)| path.display().to_string())
        .collect();
    if !others.is_empty() {
        bail!(
            "these are there and were not installed by this: {}. Move them away, or say --force",
            others.join(", ")
        );
    }
    // The list first: what is put down is on it, whatever comes between.
    let now: BTreeSet<PathBuf> = all.iter().map(|(path, _)| path.clone()).collect();
    write_list(root, &now.union(&ours).cloned().collect())?;
    for (path, what) in &all {
        place(&below(root, path), what).with_context(|| format!("{} cannot be installed", path.display()))?;
    }
    for gone in ours.difference(&now) {
        let _ = fs::remove_file(below(root, gone));
    }
    write_list(root, &now)
}

fn write_list(root: &Path, paths: &BTreeSet<PathBuf>) -> Result<()> {
    let text: String = paths.iter().map(|path| format!("{}\n", path.display())).collect();
    let list = below(root, Path::new(LIST));
    let make = || {
        fs::create_dir_all(below(root, Path::new(LIBEXEC)))?;
        fs::write(&list, text)
    };
    make().with_context(|| format!("{} cannot be written", list.display()))
}

/// Whether something else is there than what would be put there.
fn is_others(path: &Path, what: &What) -> bool {
    match (path.symlink_metadata(), what) {
        (Err(_), _) => false,
        (Ok(_), What::Link(to)) => fs::read_link(path).ok().as_ref() != Some(to),
        (Ok(_), What::File(from, _)) => fs::read(path).ok() != fs::read(from).ok(),
    }
}

/// Beside first, then in place: a program that runs keeps its file.
fn place(path: &Path, what: &What) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.new"));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let _ = fs::remove_file(&fresh);
    match what {
        What::Link(to) => symlink(to, &fresh)?,
        What::File(from, mode) => {
            fs::copy(from, &fresh)?;
            fs::set_permissions(&fresh, fs::Permissions::from_mode(*mode))?;
        }
    }
    fs::rename(&fresh, path)?;
    Ok(())
}

/// Removes all that is on the list, and the folders that are ours; says how many files there were.
fn remove(root: &Path) -> Result<usize> {
    let all = listed(root);
    if all.is_empty() {
        bail!("nothing was installed: there is no {LIST}");
    }
    for path in &all {
        let path = below(root, path);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                bail!("{} cannot be removed: {error}", path.display())
            }
            _ => {}
        }
    }
    fs::remove_file(below(root, Path::new(LIST))).context("the list cannot be removed")?;
    for folder in [LIBEXEC, &format!("{DOC}/docs"), DOC] {
        // One that holds something else stays.
        let _ = fs::remove_dir(below(root, Path::new(folder)));
    }
    Ok(all.len())
}

/// Whether root runs this.
pub fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uids.and_then(|uids| uids.split_whitespace().nth(1)) == Some("0")
}

fn systemctl(words: &[&str]) -> bool {
    // Without systemd there is nobody to tell.
    Path::new("/run/systemd/system").exists()
        && Command::new("systemctl")
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

fn is_active() -> bool {
    systemctl(&["is-active", "--quiet", "thiaod.service"])
}

fn reload() {
    systemctl(&["daemon-reload"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Wanted> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Wanted::read(&words)
    }

    #[test]
    fn what_is_typed_makes_sense_or_is_refused() {
        let destdir = Some(PathBuf::from("/d"));
        assert_eq!(
            words("--built --destdir /d").unwrap(),
            Wanted::Install {
                built: true,
                force: false,
                destdir: destdir.clone()
            }
        );
        assert_eq!(
            words("--remove --destdir /d").unwrap(),
            Wanted::Remove { destdir }
        );
        for bad in ["--remove --force", "--destdir", "now"] {
            assert!(words(bad).is_err(), "{bad}");
        }
    }

    /// As `dist` makes it, with a word in each file.
    fn dist(dir: &Path, word: &str) -> PathBuf {
        let dist = dir.join("dist");
        let _ = fs::remove_dir_all(&dist);
        for name in [
            "bin/thiao",
            "bin/thiaod",
            "bin/thiao-hook",
            "man/thiao.1",
            "docs/config.md",
            "completions/thiao.bash",
            "thiaod.service",
            "thiao.toml.example",
            "README.md",
        ] {
            let path = dist.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{name} {word}")).unwrap();
        }
        symlink("thiao", dist.join("bin/tsub")).unwrap();
        symlink("thiao-submit.1", dist.join("man/tsub.1")).unwrap();
        dist
    }

    fn all_below(root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![root.to_owned()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                match entry.file_type().unwrap().is_dir() {
                    true => open.push(entry.path()),
                    false => found.push(entry.path().strip_prefix(root).unwrap().display().to_string()),
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn all_is_put_where_it_belongs_replaced_and_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("usr/local/bin")).unwrap();
        fs::write(root.join("usr/local/bin/theirs"), "").unwrap();
        put(&dist(dir.path(), "old"), &root, false).unwrap();
        let expected = [
            "etc/bash_completion.d/thiao.bash",
            "etc/systemd/system/thiaod.service",
            "usr/lib/thiao/installed",
            "usr/lib/thiao/thiao-hook",
            "usr/lib/thiao/thiaod",
            "usr/local/bin/tclean",
            "usr/local/bin/theirs",
            "usr/local/bin/thiao",
            "usr/local/bin/tsub",
            "usr/local/share/doc/thiao/README.md",
            "usr/local/share/doc/thiao/docs/config.md",
            "usr/local/share/doc/thiao/thiao.toml.example",
            "usr/local/share/man/man1/thiao.1",
            "usr/local/share/man/man1/tsub.1",
        ];
        assert_eq!(all_below(&root), expected);
        let mode = |name: &str| fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (
                mode("usr/lib/thiao/thiaod"),
                mode("etc/systemd/system/thiaod.service")
            ),
            (0o755, 0o644)
        );
        let tclean = fs::read_link(root.join("usr/local/bin/tclean")).unwrap();
        assert_eq!(tclean, Path::new("/usr/lib/thiao/thiao-hook"));

        // A newer one, which has one file less.
        let newer = dist(dir.path(), "new");
        fs::remove_file(newer.join("docs/config.md")).unwrap();
        put(&newer, &root, false).unwrap();
        let text = fs::read_to_string(root.join("usr/lib/thiao/thiaod")).unwrap();
        assert_eq!(text, "bin/thiaod new");
        assert_eq!(all_below(&root).len(), expected.len() - 1);

        assert_eq!(remove(&root).unwrap(), expected.len() - 3);
        assert_eq!(all_below(&root), ["usr/local/bin/theirs"]);
        assert!(!root.join("usr/lib/thiao").exists() && !root.join("usr/local/share/doc/thiao").exists());
        assert!(remove(&root).is_err());
    }

    #[test]
    fn files_of_others_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let theirs = root.join("usr/local/bin/tsub");
        fs::create_dir_all(theirs.parent().unwrap()).unwrap();
        fs::write(&theirs, "theirs").unwrap();
        let dist = dist(dir.path(), "new");
        let refused = put(&dist, &root, false).unwrap_err().to_string();
        assert!(refused.contains("/usr/local/bin/tsub"), "{refused}");
        assert_eq!(all_below(&root), ["usr/local/bin/tsub"], "nothing was put down");
        put(&dist, &root, true).unwrap();
        assert!(theirs.is_symlink());
    }
}
