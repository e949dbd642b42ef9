use super::*;
use hooks::{Facts, Link};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use thiao_slurm::names::HOOKS;

fn facts() -> Facts {
    Facts {
        hooks: PathBuf::from("/h"),
        programs: HOOKS
            .iter()
            .map(|(_, name)| (*name, Link::To("/t".into(), true)))
            .collect(),
        state: Link::To("/s".into(), true),
        spool: Ok((64030, 0o40700)),
        slurm_uid: Some(64030),
    }
}

fn said(facts: &Facts) -> Vec<Finding> {
    let mut found = hooks::judge(facts, Path::new("/s"));
    found.retain(|finding| finding.verdict != Verdict::Ok);
    found
}

#[test]
fn each_mistake_is_named_with_its_remedy() {
    assert_eq!(said(&facts()), []);
    assert_eq!(hooks::judge(&facts(), Path::new("/s")).len(), 3);
    let with = |change: fn(&mut Facts)| {
        let mut facts = facts();
        change(&mut facts);
        said(&facts)
    };
    let setup = "thiao setup --hooks /h";
    for (found, what, words, remedy) in [
        (
            with(|f| f.programs[0].1 = Link::Missing),
            "hooks",
            "Resume is missing",
            setup,
        ),
        (
            with(|f| f.programs[1].1 = Link::To("/x".into(), false)),
            "hooks",
            "Suspend points to /x, which is not a program",
            setup,
        ),
        (
            with(|f| f.programs[1].1 = Link::Other),
            "hooks",
            "Suspend: is not a link",
            setup,
        ),
        (
            with(|f| f.state = Link::To("/other".into(), true)),
            "state link",
            "orders reach another controller",
            setup,
        ),
        (
            with(|f| f.state = Link::To("/s".into(), false)),
            "state link",
            "is not there",
            "systemctl start thiaod",
        ),
        (
            with(|f| f.state = Link::Missing),
            "state link",
            "/h/state is missing",
            setup,
        ),
        (
            with(|f| f.spool = Err(Unseen::new("no such file"))),
            "spool",
            "no such file",
            "systemctl start thiaod",
        ),
        (
            with(|f| f.spool = Ok((0, 0o40700))),
            "spool",
            "belongs to uid 0, and Slurm's user is uid 64030",
            "chown -R 64030 /s",
        ),
        (
            with(|f| f.spool = Ok((64030, 0o40777))),
            "spool",
            "anyone could give orders",
            "chmod -R go-w /s/spool",
        ),
    ] {
        holds(&found, what, Verdict::Bad, words, remedy);
    }
    // Slurm as root writes everywhere.
    assert_eq!(
        with(|f| {
            f.slurm_uid = Some(0);
            f.spool = Ok((64030, 0o40700));
        }),
        []
    );
}

#[test]
fn they_are_seen_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (hooks, state) = (dir.path().join("hooks"), dir.path().join("state"));
    std::fs::create_dir_all(state.join("spool/new")).unwrap();
    std::fs::create_dir(&hooks).unwrap();
    let program = dir.path().join("thiao-hook");
    std::fs::write(&program, "").unwrap();
    symlink(&program, hooks.join("Resume")).unwrap();
    symlink(&state, hooks.join("state")).unwrap();
    std::fs::write(hooks.join("Suspend"), "").unwrap();
    let seen = hooks::observe(&hooks, &state, None);
    assert_eq!(seen.programs[0], ("Resume", Link::To(program.clone(), false)));
    assert_eq!(seen.programs[1], ("Suspend", Link::Other));
    assert_eq!(seen.programs[2], ("ResumeFail", Link::Missing));
    assert_eq!(seen.state, Link::To(state.clone(), true));
    assert_eq!(seen.spool.unwrap().0, dir.path().metadata().unwrap().uid());
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let seen = hooks::observe(&hooks, &state, None);
    assert_eq!(seen.programs[0], ("Resume", Link::To(program, true)));
}
