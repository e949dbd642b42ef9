//! `thiao setup` again, when its lines are in effect: what the site has of its own is not lost.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod setup_place;
#[allow(dead_code, reason = "of what there is this needs two things")]
mod stand_ins;

use setup_place::Place;

/// What a site has of its own.
const SITE: &str = "ResumeProgram = /site/resume\nPrologSlurmctld = /site/prolog\nPrivateData = jobs,usage\n\
                    GresTypes = gpu\nLicenses = matlab:10\nJobSubmitPlugins = lua,require_timelimit\n\
                    SlurmdParameters = l3cache_as_socket\n";

#[test]
fn without_slurmctld_no_lines_are_written_anew() {
    let place = Place::new();
    place.slurmctld_is_down();
    // A first time it may be away.
    let (code, out, err) = place.setup(&[]);
    assert!(code == 0 && out.contains("start it and repeat"), "{out}{err}");
    place.slurmctld_says("22.05.8", SITE, "", "");
    assert_eq!(place.setup(&[]).0, 0);
    let lines = place.fragment();
    assert!(lines.contains("PrivateData=jobs,usage,cloud\n"), "{lines}");

    place.slurmctld_is_down();
    place.change("fg[0-7]", "fg[0-8]");
    let (code, out, err) = place.setup(&[]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.contains("nothing was written: slurmctld does not answer")
            && err.contains("start slurmctld and repeat"),
        "{err}"
    );
    assert_eq!(place.fragment(), lines);
    assert_eq!(place.setup(&["--force"]).0, 0);
    assert!(place.fragment().contains("NodeName=fg[0-8]"));
}

#[test]
fn lines_that_slurm_takes_several_of_stay() {
    let place = Place::new();
    let step = |release: &str| {
        place.slurmctld_says(release, "PrologSlurmctld[0] = /site/prolog\n", "", "");
        let (code, out, err) = place.setup(&["--dry-run"]);
        assert_eq!(code, 0, "{out}{err}");
        let step = out.lines().find(|line| line.contains("3. ")).unwrap();
        step.to_owned()
    };
    let step_3 = step("24.11.5");
    assert!(
        step_3.contains("from slurm.conf: ResumeProgram, SuspendProgram, ResumeFailProgram, ResumeRate, ")
            && step_3.contains("Your own lines for PrologSlurmctld and EpilogSlurmctld stay"),
        "{step_3}"
    );
    let step_3 = step("22.05.8");
    assert!(
        step_3.contains("PrologSlurmctld, EpilogSlurmctld, ") && !step_3.contains("stay"),
        "{step_3}"
    );
}
