//! The hooks' folder and the spool, as Slurm's user finds them.

use super::Unseen;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use thiao_core::finding::Finding;
use thiao_core::spool;
use thiao_slurm::conf::HOOKS;

/// A link, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// It is not there.
    Missing,
    /// It leads there; whether that is a program, or for `state` a folder.
    To(PathBuf, bool),
    /// It is none.
    Other,
    /// It cannot be looked at.
    Unseen(Unseen),
}

/// What is on the disk.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The hooks' folder.
    pub hooks: PathBuf,
    /// Each of the programs.
    pub programs: Vec<(&'static str, Link)>,
    /// The link to the state folder.
    pub state: Link,
    /// The spool's folder for new orders: owner and mode, or why not.
    pub spool: Result<(u32, u32), Unseen>,
    /// Slurm's user, if Slurm told it.
    pub slurm_uid: Option<u32>,
}

/// Looks at the hooks' folder and the spool.
#[must_use]
pub fn look(hooks: &Path, state_dir: &Path, slurm_uid: Option<u32>) -> Facts {
    let runs = |path: &Path| {
        path.metadata()
            .is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
    };
    Facts {
        hooks: hooks.to_owned(),
        programs: HOOKS
            .iter()
            .map(|(_, name)| (*name, link(&hooks.join(name), runs)))
            .collect(),
        state: link(&hooks.join("state"), |path| path.is_dir()),
        spool: state_dir
            .join("spool")
            .join(spool::NEW)
            .metadata()
            .map(|meta| (meta.uid(), meta.mode()))
            .map_err(Unseen::from),
        slurm_uid,
    }
}

fn link(path: &Path, good: impl Fn(&Path) -> bool) -> Link {
    match std::fs::read_link(path) {
        Ok(target) => {
            let good = good(path);
            Link::To(target, good)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Link::Missing,
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Link::Other,
        Err(error) => Link::Unseen(error.into()),
    }
}

/// What is wrong with them; one good finding each when nothing is.
#[must_use]
pub fn judge(facts: &Facts, state_dir: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    let folder = facts.hooks.display();
    let setup = format!("thiao setup --hooks {folder}");
    let wrong: Vec<String> = facts
        .programs
        .iter()
        .filter_map(|(name, link)| match link {
            Link::To(_, true) => None,
            Link::To(target, false) => Some(format!(
                "{name} leads to {}, which is no program",
                target.display()
            )),
            Link::Missing => Some(format!("{name} is missing")),
            Link::Other => Some(format!("{name}: is no link")),
            Link::Unseen(why) => Some(format!("{name}: {why}")),
        })
        .collect();
    let mut programs = facts.programs.iter();
    let denied = programs.any(|(_, link)| matches!(link, Link::Unseen(why) if why.denied));
    found.push(if wrong.is_empty() {
        Finding::ok("hooks", format!("{folder} has the programs that Slurm runs"))
    } else {
        Finding::bad("hooks", format!("{folder}: {}", wrong.join(", ")))
            .run(setup.clone())
            .unless_denied(denied)
    });
    found.push(match &facts.state {
        Link::To(target, true) if target == state_dir => {
            Finding::ok("state link", format!("leads to {}", target.display()))
        }
        Link::To(target, true) => Finding::bad(
            "state link",
            format!(
                "leads to {}, not to {}: orders reach another controller",
                target.display(),
                state_dir.display()
            ),
        )
        .run(setup),
        Link::To(target, false) => Finding::bad(
            "state link",
            format!(
                "leads to {}, which is not there: the controller makes it",
                target.display()
            ),
        )
        .run("systemctl start thiaod"),
        Link::Missing | Link::Other | Link::Unseen(_) if state_dir == Path::new("/var/lib/thiao") => {
            Finding::ok(
                "state link",
                "is not there; the hooks use /var/lib/thiao, which is right",
            )
        }
        Link::Missing => Finding::bad("state link", format!("{folder}/state is missing")).run(setup),
        Link::Other => Finding::bad("state link", format!("{folder}/state is no link")).run(setup),
        Link::Unseen(why) => Finding::bad("state link", format!("{folder}/state: {why}"))
            .run(setup)
            .unless_denied(why.denied),
    });
    let spool = state_dir.join("spool");
    found.push(match (&facts.spool, facts.slurm_uid) {
        (Err(why), _) => Finding::bad("spool", format!("{}: {why}", spool.display()))
            .run("systemctl start thiaod")
            .unless_denied(why.denied),
        (Ok((uid, mode)), Some(slurm)) if *uid != slurm && mode & 0o002 == 0 && slurm != 0 => Finding::bad(
            "spool",
            format!(
                "{} belongs to uid {uid}, and Slurm's user is uid {slurm}: the hooks cannot leave their orders",
                spool.display()
            ),
        )
        .run(format!("systemctl stop thiaod && chown -R {slurm} {} && systemctl start thiaod", state_dir.display())),
        (Ok((_, mode)), _) if mode & 0o002 != 0 => Finding::bad(
            "spool",
            format!("everybody may write to {}: anyone could give orders", spool.display()),
        )
        .run(format!("chmod -R go-w {}", spool.display())),
        (Ok(_), Some(_)) => Finding::ok("spool", format!("{} takes Slurm's orders", spool.display())),
        (Ok((uid, _)), None) => Finding::ok("spool", format!("{} belongs to uid {uid}", spool.display())),
    });
    found
}
