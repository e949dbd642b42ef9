use super::*;
use proptest::prelude::*;
use std::os::unix::fs::PermissionsExt as _;

/// As it was shipped in 2011.
const SHIPPED: &str = include_str!("../../tests/data/legacy/thiao.cfg");

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/legacy")
}

/// The shipped file and VM files, with everything below `dir`.
fn site(dir: &Path, hostname_is_file: &str) -> PathBuf {
    let examples = dir.join("examples");
    std::fs::create_dir(&examples).unwrap();
    for name in ["fg0", "fg1", "fg2", "fg3", "fg.vmg"] {
        let name = format!("{name}.one");
        std::fs::copy(files().join(&name), examples.join(&name)).unwrap();
    }
    std::fs::write(dir.join("thiao.db"), "").unwrap();
    std::fs::write(dir.join("one_auth"), "oneadmin:secret\n").unwrap();
    for (name, mode) in [("thiao.db", 0o666), ("one_auth", 0o600)] {
        std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let text = SHIPPED
        .replace("/opt/thiao", &dir.to_string_lossy())
        .replace("/var/lib/one/.one/one_auth", "one_auth")
        .replace(
            "HostnameIsVMfile = yes",
            &format!("HostnameIsVMfile = {hostname_is_file}"),
        );
    let file = dir.join("thiao.cfg");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn the_shipped_file_is_understood() {
    let legacy = Legacy::parse(SHIPPED).unwrap();
    assert_eq!(
        legacy.auth.as_deref(),
        Some(Path::new("/var/lib/one/.one/one_auth"))
    );
    assert_eq!(legacy.database.as_deref(), Some(Path::new("/opt/thiao/thiao.db")));
    assert_eq!(legacy.folder.as_deref(), Some(Path::new("/opt/thiao/examples/")));
    assert!(legacy.file_per_node);
    assert_eq!(
        legacy.template.as_deref(),
        Some(Path::new("/opt/thiao/examples/fg.vmg.one"))
    );
    let others: Vec<&str> = legacy.others.iter().map(|(_, entry)| entry.as_str()).collect();
    assert_eq!(
        others,
        [
            "[thiao] thiaohome = /opt/thiao",
            "[thiao] dbfile = thiao.db",
            "[thiao] tcleanlog = /var/log/slurm-llnl/tclean.log",
            "[thiao] suspendlog = /var/log/slurm-llnl/suspend.log",
            "[thiao] resumelog = /var/log/slurm-llnl/resume.log",
            "[vm] createvmfile = no",
        ]
    );
}

#[test]
fn case_blanks_comments_and_colons_do_not_matter() {
    let text = "\u{feff}# first\n; second\n[ THIAO ]\nthiaohome:/srv/t ; here\n ONEAUTH=ONE_AUTH=/a#b # there\n\
                [Vm]\nvmscriptdir = %(Base)s/vms\nbase = x%%y\nHostnameIsVMFile = 1\nVMTemplate =\n";
    let legacy = Legacy::parse(text).unwrap();
    assert_eq!(legacy.auth.as_deref(), Some(Path::new("/a#b")));
    assert_eq!(legacy.folder.as_deref(), Some(Path::new("/srv/t/x%y/vms")));
    assert!(legacy.file_per_node);
    assert_eq!((legacy.template, legacy.database), (None, None));
}

#[test]
fn what_is_no_such_file_is_refused_with_its_line() {
    for (text, why) in [
        ("", "nothing is set"),
        ("# only\n[vm]\n", "nothing is set"),
        ("OneAuth = x\n", "line 1 is in no section"),
        ("[vm\n", "line 1: the section's ] is missing"),
        ("[vm]\n\nhello\n", "line 3 is neither"),
        ("[vm]\na = 1\nA = 2\n", "line 3: a is in line 2 already"),
    ] {
        assert!(Legacy::parse(text).unwrap_err().contains(why), "{text:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let error = read(&dir.path().join("thiao.cfg")).unwrap_err().to_string();
    assert!(error.contains("thiao.cfg: No such file"), "{error}");
}

#[test]
fn nodes_and_shapes_come_from_the_vm_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = site(dir.path(), "yes");
    let examples = dir.path().join("examples");
    std::fs::write(examples.join("fg4.one"), "VCPU = 2\nCPU = 1\nMEMORY = 2000\n").unwrap();
    let imported = read(&file).unwrap();
    assert_eq!(imported.auth, Some(dir.path().join("one_auth")));
    let folder = TemplateSource::PerNode(dir.path().join("examples"));
    let set = |name: &str, nodes: &str, cpus, share_percent, memory_mb| ImportedSet {
        name: name.to_owned(),
        nodes: nodes.to_owned(),
        size: Size {
            cpus,
            share_percent,
            memory_mb,
        },
        source: folder.clone(),
    };
    // Of fg.vmg.one, the file for all, no node is made.
    assert_eq!(
        imported.sets,
        [set("fg", "fg4", 2, 50, 2000), set("fg-2", "fg[0-3]", 3, 33, 3000)]
    );
    assert_eq!(imported.sets[1].size.shape(140).memory_mb, 2860);
    assert_eq!(imported.template, None);
    assert!(
        imported.taken[2].starts_with("nodeset fg-2: fg[0-3], 3 CPUs of 33 %, 3000 MiB, from "),
        "{imported:?}"
    );
    assert!(
        imported
            .dropped
            .iter()
            .any(|line| line.contains(":4: [thiao] dbfile = thiao.db")),
        "{imported:?}"
    );
    let [warning] = imported.warnings.as_slice() else {
        panic!("{:?}", imported.warnings)
    };
    assert!(
        warning.starts_with("everybody may write to ") && warning.contains("thiao.db"),
        "{warning}"
    );
}

#[test]
fn without_files_per_node_the_one_for_all_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let imported = read(&site(dir.path(), "no")).unwrap();
    assert_eq!(imported.sets, []);
    assert_eq!(
        imported.template,
        Some(TemplateSource::File(dir.path().join("examples/fg.vmg.one")))
    );
    assert_eq!(imported.size.unwrap().memory_mb, 3000);
}

#[test]
fn what_cannot_be_used_is_named_and_the_rest_taken() {
    let dir = tempfile::tempdir().unwrap();
    let file = site(dir.path(), "yes");
    let examples = dir.path().join("examples");
    for (name, text) in [
        ("fg1.one", "CPU = 1\n"),
        ("fg2.one", "MEMORY = 1G\n"),
        ("fg3.one", "MEMORY = [\n"),
        ("a b.one", "MEMORY = 100\n"),
    ] {
        std::fs::write(examples.join(name), text).unwrap();
    }
    std::fs::set_permissions(
        dir.path().join("one_auth"),
        std::fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    let imported = read(&file).unwrap();
    let nodes: Vec<&str> = imported.sets.iter().map(|set| set.nodes.as_str()).collect();
    assert_eq!(nodes, ["fg0"]);
    for words in [
        "chmod 600",
        "fg1.one: it has no MEMORY: fg1 is left out",
        "fg2.one: MEMORY is \"1G\"",
        "fg3.one: ",
        "\"a b\" is not a host name",
    ] {
        assert!(
            imported.warnings.iter().any(|w| w.contains(words)),
            "{words}: {:#?}",
            imported.warnings
        );
    }
    // Not one is left.
    for name in ["fg0.one", "fg.vmg.one"] {
        std::fs::remove_file(examples.join(name)).unwrap();
    }
    let imported = read(&file).unwrap();
    assert!(imported.sets.is_empty() && imported.template.is_none());
    assert!(
        imported
            .warnings
            .iter()
            .any(|w| w.contains("name a template and the nodes yourself")),
        "{:?}",
        imported.warnings
    );
}

proptest! {
    #[test]
    fn no_text_breaks_it(text in "(\\[[a-z]{0,3}\\]?\n|[A-Za-z%()]{0,8} ?[=:]? ?[^\n]{0,12}\n|[#;][^\n]{0,5}\n){0,12}") {
        if let Ok(legacy) = Legacy::parse(&text) {
            prop_assert!(legacy.auth.is_none() || text.to_ascii_lowercase().contains("oneauth"));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        drop(Legacy::parse(&text));
    }
}
