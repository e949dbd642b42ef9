//! A site's own programs beside ours, where `slurm.conf` has one place for both: a small script that Slurm
//! calls instead, in a folder beside the hooks.

use crate::info::{Config, Version};
use crate::names::HOOKS;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The scripts' folder, in that of the hooks.
pub const FOLDER: &str = "with-site";
/// How such a script begins.
pub const MARK: &str = "#!/bin/sh\n# Written by `thiao setup`";
/// What stands before the site's program in it.
const SITE: &str = "\nsite='";

/// From here on `PrologSlurmctld` and `EpilogSlurmctld` may stand there several times, and all are run.
const SEVERAL: Version = Version::new(24, 5, 0);

const NODES: &str = include_str!("join/nodes.sh");
const BEFORE: &str = include_str!("join/before.sh");
const AFTER: &str = include_str!("join/after.sh");

/// Whether this Slurm runs several programs of this key.
pub(crate) fn takes_several(key: &str, version: Version) -> bool {
    version >= SEVERAL && matches!(key, "PrologSlurmctld" | "EpilogSlurmctld")
}

/// Our program of a key, or the script around it.
#[must_use]
pub fn program(hooks: &Path, name: &str, joined: bool) -> PathBuf {
    match joined {
        true => hooks.join(FOLDER).join(name),
        false => hooks.join(name),
    }
}

/// The hooks' folder, by the program that slurmctld calls as ResumeProgram.
#[must_use]
pub fn hooks_of(resume_program: &Path) -> Option<&Path> {
    let folder = resume_program.parent()?;
    match folder.file_name().is_some_and(|name| name == FOLDER) {
        true => folder.parent(),
        false => Some(folder),
    }
}

/// The site's own program of each key that slurmctld has now and that ours would take the place of.
/// `script` reads one of our scripts, which has the site's program in it.
#[must_use]
pub fn of_site(
    present: &Config,
    hooks: &Path,
    version: Version,
    script: impl Fn(&Path) -> Option<String>,
) -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    for (key, name) in HOOKS {
        for value in present.values(key) {
            let path = Path::new(value);
            let theirs = if path == program(hooks, name, true) {
                // Also where there may be several: an older Slurm needed the script, and the site's line went.
                script(path).as_deref().and_then(site_in)
            } else {
                (path != hooks.join(name) && !takes_several(key, version)).then(|| value.to_owned())
            };
            found.extend(theirs.map(|theirs| (*key, theirs)));
        }
    }
    found
}

/// The site's programs of a key that slurmctld has now and that are neither ours nor called by ours.
#[must_use]
pub fn left_out<'c>(
    present: &'c Config,
    key: &str,
    name: &str,
    hooks: &Path,
    version: Version,
) -> Option<&'c str> {
    let ours = [program(hooks, name, false), program(hooks, name, true)];
    let values = present.values(key);
    let foreign = |value: &&str| !ours.iter().any(|path| path == Path::new(*value));
    let has_ours = !values.iter().all(foreign);
    let theirs = values.into_iter().find(foreign)?;
    (!(takes_several(key, version) && has_ours)).then_some(theirs)
}

/// The site's program in a script of ours.
#[must_use]
pub fn site_in(script: &str) -> Option<String> {
    if !script.starts_with(MARK) {
        return None;
    }
    let (_, rest) = script.split_once(SITE)?;
    rest.split_once('\'').map(|(site, _)| site.to_owned())
}

/// Whether the path can stand in such a script and in `slurm.conf`.
#[must_use]
pub fn is_plain(path: &str) -> bool {
    path.starts_with('/')
        && path
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c))
}

/// The script for one of [`HOOKS`] around the site's program. `nodes` is the file that lists our nodes,
/// `scontrol` the program that takes lists of nodes apart. All are [plain](is_plain).
#[must_use]
pub fn script(key: &str, hooks: &Path, name: &str, site: &str, nodes: &Path, scontrol: &Path) -> String {
    let body = match key {
        "PrologSlurmctld" => BEFORE,
        "EpilogSlurmctld" => AFTER,
        _ => NODES,
    };
    format!(
        "{MARK}: {key} of the site, and Thiao's.{SITE}{site}'\nthiao='{}'\nnodes='{}'\nscontrol='{}'\n{body}",
        hooks.join(name).display(),
        nodes.display(),
        scontrol.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_sites_is_found_again_in_our_script() {
        let hooks = Path::new("/h");
        let old = Version::new(22, 5, 8);
        let found = |text: &str, version| {
            of_site(&Config::parse(text), hooks, version, |path| {
                path.starts_with("/h/with-site").then(|| {
                    script(
                        "ResumeProgram",
                        hooks,
                        "Resume",
                        "/site/resume.sh",
                        Path::new("/n"),
                        Path::new("/usr/bin/scontrol"),
                    )
                })
            })
        };
        let later = found(
            "PrologSlurmctld[0] = /h/with-site/PrologSlurmctld\n",
            Version::new(24, 11, 5),
        );
        assert_eq!(
            later,
            BTreeMap::from([("PrologSlurmctld", "/site/resume.sh".to_owned())])
        );
        let site = BTreeMap::from([("ResumeProgram", "/site/resume.sh".to_owned())]);
        assert_eq!(found("ResumeProgram = /site/resume.sh\n", old), site);
        assert_eq!(found("ResumeProgram = /h/with-site/Resume\n", old), site);
        assert!(found("ResumeProgram = /h/Resume\n", old).is_empty());
        let prolog = "PrologSlurmctld = /site/p\n";
        assert_eq!(found(prolog, old).len(), 1);
        assert!(found("PrologSlurmctld[0] = /site/p\n", Version::new(24, 11, 5)).is_empty());
        assert_eq!(hooks_of(Path::new("/h/with-site/Resume")), Some(hooks));
        assert_eq!(hooks_of(Path::new("/h/Resume")), Some(hooks));
    }

    #[test]
    fn what_takes_our_place_is_named() {
        let said = |text: &str, version| {
            let config = Config::parse(text);
            left_out(
                &config,
                "PrologSlurmctld",
                "PrologSlurmctld",
                Path::new("/h"),
                version,
            )
            .map(str::to_owned)
        };
        let (old, new) = (Version::new(22, 5, 8), Version::new(24, 11, 5));
        assert_eq!(said("PrologSlurmctld = /x\n", old).as_deref(), Some("/x"));
        assert_eq!(
            said("PrologSlurmctld = /h/with-site/PrologSlurmctld\n", old),
            None
        );
        assert_eq!(
            said(
                "PrologSlurmctld[0] = /x\nPrologSlurmctld[1] = /h/PrologSlurmctld\n",
                new
            ),
            None
        );
        assert_eq!(said("PrologSlurmctld[0] = /x\n", new).as_deref(), Some("/x"));
        assert_eq!(said("", new), None);
    }
}
