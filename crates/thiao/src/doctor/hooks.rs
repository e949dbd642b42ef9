//! The hooks' folder and the spool, as Slurm's user finds them.

use super::Unseen;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use thiao_core::finding::Finding;
use thiao_core::spool::NEW;
use thiao_slurm::names::HOOKS;

/// A link, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// It is not there.
    Missing,
    /// It leads there; whether that is a program, or for `state` a folder.
    To(PathBuf, bool),
    /// It is no link.
    Other,
    /// It cannot be looked at.
    Unseen(Unseen),
}

/// What is on the disk.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The folder with the hooks.
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

/// Observes the hooks' folder and the spool.
#[must_use]
pub fn observe(hooks: &Path, state_dir: &Path, slurm_uid: Option<u32>) -> Facts {
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
            .join(NEW)
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
    vec![
        programs(facts),
        state_link(facts, state_dir),
        spool(facts, state_dir),
    ]
}

/// What writes the folder anew.
fn setup(facts: &Facts) -> String {
    format!("thiao setup --hooks {}", facts.hooks.display())
}

fn programs(facts: &Facts) -> Finding {
    let folder = facts.hooks.display();
    let mut denied = false;
    let mut wrong = Vec::new();
    for (name, link) in &facts.programs {
        wrong.push(match link {
            Link::To(_, true) => continue,
            Link::To(target, false) => {
                format!("{name} points to {}, which is not a program", target.display())
            }
            Link::Missing => format!("{name} is missing"),
            Link::Other => format!("{name}: is not a link"),
            Link::Unseen(why) => {
                denied |= why.denied;
                format!("{name}: {why}")
            }
        });
    }
    if wrong.is_empty() {
        return Finding::ok("hooks", format!("{folder} has the programs that Slurm runs"));
    }
    Finding::bad("hooks", format!("{folder}: {}", wrong.join(", ")))
        .run(setup(facts))
        .unless_denied(denied)
}

fn state_link(facts: &Facts, state_dir: &Path) -> Finding {
    const WHAT: &str = "state link";
    let folder = facts.hooks.display();
    match &facts.state {
        Link::To(target, true) if target == state_dir => {
            Finding::ok(WHAT, format!("leads to {}", target.display()))
        }
        Link::To(target, true) => Finding::bad(
            WHAT,
            format!(
                "points to {}, not to {}: orders reach another controller",
                target.display(),
                state_dir.display()
            ),
        )
        .run(setup(facts)),
        Link::To(target, false) => Finding::bad(
            WHAT,
            format!(
                "points to {}, which is not there: the controller makes it",
                target.display()
            ),
        )
        .run("systemctl start thiaod"),
        Link::Missing | Link::Other | Link::Unseen(_) if state_dir == Path::new("/var/lib/thiao") => {
            Finding::ok(WHAT, "is not there; the hooks use /var/lib/thiao, which is right")
        }
        Link::Missing => Finding::bad(WHAT, format!("{folder}/state is missing")).run(setup(facts)),
        Link::Other => Finding::bad(WHAT, format!("{folder}/state is not a link")).run(setup(facts)),
        Link::Unseen(why) => Finding::bad(WHAT, format!("{folder}/state: {why}"))
            .run(setup(facts))
            .unless_denied(why.denied),
    }
}

fn spool(facts: &Facts, state_dir: &Path) -> Finding {
    const WHAT: &str = "spool";
    let spool = state_dir.join("spool");
    let spool = spool.display();
    match (&facts.spool, facts.slurm_uid) {
        (Err(why), _) => Finding::bad(WHAT, format!("{spool}: {why}"))
            .run("systemctl start thiaod")
            .unless_denied(why.denied),
        (Ok((uid, mode)), Some(slurm)) if *uid != slurm && mode & 0o002 == 0 && slurm != 0 => Finding::bad(
            WHAT,
            format!(
                "{spool} belongs to uid {uid}, and Slurm's user is uid {slurm}: the hooks cannot leave their orders"
            ),
        )
        .run(format!(
            "systemctl stop thiaod && chown -R {slurm} {} && systemctl start thiaod",
            state_dir.display()
        )),
        (Ok((_, mode)), _) if mode & 0o002 != 0 => Finding::bad(
            WHAT,
            format!("everybody may write to {spool}: anyone could give orders"),
        )
        .run(format!("chmod -R go-w {spool}")),
        (Ok(_), Some(_)) => Finding::ok(WHAT, format!("{spool} takes Slurm's orders")),
        (Ok((uid, _)), None) => Finding::ok(WHAT, format!("{spool} belongs to uid {uid}")),
    }
}
