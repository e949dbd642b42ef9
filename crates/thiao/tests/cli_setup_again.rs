//! `thiao setup` again, when its lines are in effect: what the site has of its own is not lost.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod setup_place;
mod stand_ins;

use setup_place::{Place, names};
use stand_ins::write;
use thiao_testkit::process::run;

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
    assert!(
        code == 0 && out.contains("start slurmctld and repeat"),
        "{out}{err}"
    );
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
    let (code, _, err) = place.setup(&["--dry-run"]);
    assert!(
        code == 1 && err.contains("would be refused, and nothing written: slurmctld"),
        "{err}"
    );
    assert_eq!(place.setup(&["--force"]).0, 0);
    // By what the earlier lines say.
    let lines = lines.replace("fg[0-7]", "fg[0-8]");
    assert_eq!(place.fragment(), lines);
    assert!(place.path("hooks/with-site/Resume").exists());
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

const JOB_MODE: &str = "[[nodeset]]\nname = \"own\"\nmode = \"job\"\nnodes = \"j[0-3]\"\ncpus = 1\nmemory_mb = 400\n\
                        partition = \"jobs\"\n[timing]";

#[test]
fn what_is_the_sites_stays_without_job_mode() {
    for release in ["22.05.8", "24.11.5"] {
        let place = Place::new();
        place.slurmctld_says(release, SITE, "", "");
        place.change("[timing]", JOB_MODE);
        assert_eq!(place.setup(&[]).0, 0);
        let has = |lines: &[&str]| {
            let text = place.fragment();
            for line in lines {
                assert!(text.lines().any(|have| have == *line), "{line} not in {text}");
            }
        };
        let record = [
            "# Your own: Licenses=matlab:10",
            "# Your own: GresTypes=gpu",
            "# Your own: JobSubmitPlugins=lua,require_timelimit",
            "# Your own: ResumeProgram=/site/resume",
            "# Your own: PrivateData=jobs,usage",
        ];
        // From 24.05 on Slurm knows the other word by itself.
        let record = if release == "22.05.8" {
            &record[..]
        } else {
            &record[..4]
        };
        has(record);
        has(&[
            "GresTypes=gpu,vm",
            "Licenses=matlab:10,vm_room:1",
            "JobSubmitPlugins=lua,require_timelimit",
            "SlurmdParameters=l3cache_as_socket,config_overrides",
        ]);
        // The steps were followed; setup again changes nothing.
        place.slurmctld_reads_the_fragment(release);
        let text = place.fragment();
        assert_eq!(place.setup(&[]).0, 0);
        assert_eq!(place.fragment(), text);

        place.change(JOB_MODE, "[timing]");
        // The second time when slurmctld has read that.
        for _ in 0..2 {
            assert_eq!(place.setup(&[]).0, 0);
            has(record);
            has(&[
                "GresTypes=gpu",
                "Licenses=matlab:10",
                "JobSubmitPlugins=lua,require_timelimit",
                "SlurmdParameters=l3cache_as_socket",
            ]);
            place.slurmctld_reads_the_fragment(release);
        }
    }
}

#[test]
fn a_script_that_no_nodeset_needs_goes() {
    let place = Place::new();
    let (script, conf) = (place.path("etc/job_submit.lua"), place.path("etc/slurm.conf"));
    place.slurmctld_says("22.05.8", "", "", "");
    place.change("[timing]", JOB_MODE);
    assert_eq!(place.setup(&[]).0, 0);
    assert!(script.exists());
    place.slurmctld_reads_the_fragment("22.05.8");
    place.change(JOB_MODE, "[timing]");
    // What slurm.conf asks for itself is not taken away.
    let (code, out, _) = place.setup(&["--dry-run"]);
    assert!(
        code == 0 && out.contains("remove it once JobSubmitPlugins"),
        "{out}"
    );
    write(&conf, "Include thiao.conf\n", 0o644);
    let (code, out, _) = place.setup(&["--dry-run"]);
    assert!(code == 0 && out.contains("removed "), "{out}");
    assert!(script.exists());
    assert_eq!(place.setup(&[]).0, 0);
    assert!(!script.exists());

    // With a script of the site's own, whose plugin stays, too.
    write(&script, "-- mine\n", 0o644);
    place.change("[timing]", JOB_MODE);
    place.slurmctld_says("22.05.8", "JobSubmitPlugins = lua\n", "", "");
    assert_eq!(place.setup(&[]).0, 0);
    assert_ne!(std::fs::read_to_string(&script).unwrap(), "-- mine\n");
    place.slurmctld_reads_the_fragment("22.05.8");
    place.change(JOB_MODE, "[timing]");
    let (code, out, _) = place.setup(&[]);
    assert!(code == 0 && out.contains("put back "), "{out}");
    assert_eq!(std::fs::read_to_string(&script).unwrap(), "-- mine\n");
    assert!(!place.path("etc/job_submit.site.lua").exists());
    assert!(
        place.fragment().contains("\nJobSubmitPlugins=lua\n"),
        "{}",
        place.fragment()
    );
}

#[test]
fn what_is_taken_away_says_what_it_took_the_place_of() {
    let place = Place::new();
    place.slurmctld_says("22.05.8", SITE, "", "");
    place.change("[timing]", JOB_MODE);
    assert_eq!(place.setup(&[]).0, 0);
    // No settings are needed, and no slurmctld.
    std::fs::remove_file(place.path("thiao.toml")).unwrap();
    let path = place.dir.path().display().to_string();
    let undo = || place.setup(&["--undo", "--slurm-bin-dir", &path]);
    place.slurmctld_reads_the_fragment("22.05.8");
    let (code, _, err) = undo();
    assert_eq!(code, 1);
    let lines = [
        "ResumeProgram=/site/resume",
        "PrivateData=jobs,usage",
        "Licenses=matlab:10",
        "JobSubmitPlugins=lua,require_timelimit",
    ];
    assert!(err.contains("Put back there what it replaced:"), "{err}");
    for line in lines {
        assert!(err.contains(&format!("\n       {line}\n")), "{line} not in {err}");
    }
    // Some of it was done.
    place.slurmctld_says(
        "22.05.8",
        "PrivateData = jobs,usage\nLicenses = matlab:10\n",
        "",
        "",
    );
    let (code, out, err) = undo();
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("Put back into slurm.conf"), "{out}");
    for (line, is_told) in lines.into_iter().zip([true, false, false, true]) {
        assert_eq!(
            out.contains(&format!("       {line}\n")),
            is_told,
            "{line}: {out}"
        );
    }
    assert_eq!(names(&place.path("hooks")), [""; 0]);
    assert!(names(&place.path("etc")).is_empty());
}

#[test]
fn names_that_the_site_has_are_refused() {
    let place = Place::new();
    let nodes = "NodeName=cn1 CPUTot=1 State=IDLE\nNodeName=cn2 CPUTot=1 State=IDLE\n";
    let partitions = "PartitionName=vm Nodes=cn[1-2] MaxTime=UNLIMITED\n";
    place.slurmctld_says("22.05.8", "", partitions, nodes);
    let (code, out, err) = place.setup(&[]);
    assert!(
        code == 1 && err.contains("partition vm is there already with cn[1-2]"),
        "{out}{err}"
    );
    assert!(!place.path("etc").exists() && !place.path("hooks").exists());
    // A dry run shows all, and says what a real one does.
    let (code, out, err) = place.setup(&["--dry-run"]);
    assert!(
        out.contains("Note: partition vm is there already") && out.contains("Next:"),
        "{out}"
    );
    assert!(
        code == 1
            && err.starts_with(
                "thiao: without --dry-run this would be refused, and nothing written: partition vm"
            ),
        "{err}"
    );
    let (code, _, err) = place.setup(&["--dry-run", "--force"]);
    assert_eq!((code, err.as_str()), (0, ""));

    let nodes = "NodeName=fg2 CPUTot=1 State=IDLE\n";
    place.slurmctld_says("22.05.8", "", "PartitionName=all Nodes=fg2\n", nodes);
    let (code, out, err) = place.setup(&[]);
    assert!(
        code == 1 && err.contains("fg2 is there already, and not State=CLOUD"),
        "{out}{err}"
    );
    assert_eq!(place.setup(&["--force"]).0, 0);

    // Ours in effect; one node less than before.
    place.change("fg[0-7]", "fg[0-6]");
    let nodes: String = (0..8)
        .map(|n| format!("NodeName=fg{n} State=IDLE+CLOUD+POWERED_DOWN\n"))
        .collect();
    let partitions = "PartitionName=vm Nodes=fg[0-7]\nPartitionName=batch Nodes=cn1\n";
    place.slurmctld_says("22.05.8", "", partitions, &(nodes + "NodeName=cn1 State=IDLE\n"));
    let (code, out, err) = place.setup(&[]);
    // slurmctld has ours, and does not show them in batch.
    assert!(code == 0 && !out.contains("partition batch"), "{out}{err}");
    place.slurmctld_says(
        "22.05.8",
        "",
        "PartitionName=batch Nodes=cn1\n",
        "NodeName=cn1 State=IDLE\n",
    );
    let (code, out, err) = place.setup(&[]);
    assert!(
        code == 0 && out.contains("Note: partition batch has all nodes of the cluster"),
        "{out}{err}"
    );
}

#[test]
fn what_is_replaced_is_kept() {
    let place = Place::new();
    assert_eq!(place.setup(&[]).0, 0);
    assert_eq!(names(&place.path("etc")), ["thiao.conf"]);
    let edited = place.fragment() + "# A person's\n";
    let kept = place.path("etc/thiao.conf.bak");
    write(&kept, "older\n", 0o644);
    write(&place.path("etc/thiao.conf"), &edited, 0o600);
    let (code, out, _) = place.setup(&[]);
    assert!(
        code == 0 && out.contains(&format!("(what was there: {})", kept.display())),
        "{out}"
    );
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), edited);
    assert!(!place.fragment().contains("A person's"));
    assert_eq!(names(&place.path("etc")), ["thiao.conf", "thiao.conf.bak"]);
    // What is somebody else's, too.
    write(&place.path("etc/thiao.conf"), "# mine\n", 0o644);
    assert_eq!(place.setup(&["--force"]).0, 0);
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "# mine\n");
}

#[test]
fn our_hooks_in_another_folder_are_not_the_sites() {
    let place = Place::new();
    place.slurmctld_says("22.05.8", SITE, "", "");
    assert_eq!(place.setup(&[]).0, 0);
    place.slurmctld_reads_the_fragment("22.05.8");
    let record = place.fragment().matches("# Your own: ").count();
    let elsewhere = place.path("elsewhere");
    let (code, out, err) = run(&mut place.command_at("thiao.toml", "elsewhere"));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(!out.contains("joins the two"), "{out}");
    assert_eq!(place.fragment().matches("# Your own: ").count(), record);
    assert_eq!(names(&elsewhere.join("with-site")), ["PrologSlurmctld", "Resume"]);
    let script = std::fs::read_to_string(elsewhere.join("with-site/Resume")).unwrap();
    assert!(script.contains("site='/site/resume'\n"), "{script}");
}

#[test]
fn defaults_of_nodes_that_harm_ours_are_told() {
    let place = Place::new();
    place.slurmctld_says("22.05.8", "", "", "");
    std::fs::create_dir(place.path("etc")).unwrap();
    let conf = "NodeName=DEFAULT CPUs=8 SocketsPerBoard=2\nNodeName=cn1\n";
    write(&place.path("etc/slurm.conf"), conf, 0o644);
    let (code, out, err) = place.setup(&["--dry-run"]);
    assert!(
        code == 0 && out.contains("Note: NodeName=DEFAULT of slurm.conf has SocketsPerBoard"),
        "{out}{err}"
    );
}

#[test]
fn what_guests_are_told_otherwise_than_slurmctld_says_is_noted() {
    let place = Place::new();
    place.change(
        "[[qemu.host]]",
        "[qemu]\nslurmctld_host = \"head\"\n[[qemu.host]]",
    );
    place.slurmctld_says("22.05.8", "SlurmctldPort = 7817-7818\n", "", "");
    let (code, out, err) = place.setup(&["--dry-run"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.contains(
            "Note: SlurmctldPort is 7817-7818, and guests ask port 6817; set slurmctld_port = 7817 in thiao.toml.\n"
        ),
        "{out}"
    );
    place.change("slurmctld_host", "slurmctld_port = 7818\nslurmctld_host");
    let (_, out, _) = place.setup(&["--dry-run"]);
    assert!(!out.contains("SlurmctldPort is"), "{out}");
}

#[test]
fn programs_that_guests_see_are_not_noted() {
    let place = Place::new();
    place.slurmctld_says("22.05.8", "Prolog = /opt/site/prolog.sh\n", "", "");
    let noted = || {
        place
            .setup(&["--dry-run"])
            .1
            .contains("Note: Prolog is /opt/site/prolog.sh")
    };
    assert!(noted());
    place.change(
        "[[qemu.host]]",
        "[[qemu.user]]\nname = \"ada\"\nuid = 1001\ngid = 1001\n[[qemu.share]]\nsource = \"/srv\"\n\
         target = \"/opt/site\"\nuser = \"ada\"\n[[qemu.host]]",
    );
    assert!(!noted());
}

#[test]
fn a_default_partition_that_is_none_of_ours_is_refused() {
    let place = Place::new();
    let (code, _, err) = place.setup(&["--default-partition", "nope"]);
    assert!(
        code == 1 && err.contains("no nodeset has the partition nope"),
        "{err}"
    );
    assert!(!place.path("etc").exists() && !place.path("hooks").exists());
}
