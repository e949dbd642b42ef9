//! `docs/config.md` and the example settings say what the program says: every
//! key is there, with its kind of value, its range and its default; no other is.
//!
//! The keys are not listed here: the program is asked, by files that are wrong
//! on purpose. A key with a value of no possible kind is answered with what
//! would be right, and an unknown key with the known ones of its table.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The tables' heads as written in the file, and what each needs to be right: with either
/// provider; and with a nodeset of job mode, which has keys of its own.
const SITES: [&[(&str, &str)]; 3] = [
    &[
        ("", "cluster = \"lab\"\n"),
        (
            "[[nodeset]]",
            "name = \"fg\"\nnodes = \"fg[0-7]\"\nmemory_mb = 200\n",
        ),
        ("[slurm]", ""),
        ("[job]", ""),
        ("[[vm_options]]", ""),
        ("[sharing]", ""),
        ("[limits]", ""),
        ("[timing]", ""),
        ("[[mount]]", "source = \"files:/home\"\n"),
        ("[network]", ""),
        ("[qemu]", ""),
        ("[[qemu.host]]", "name = \"h\"\nmemory_mb = 4000\n"),
        ("[[qemu.user]]", "name = \"alice\"\nuid = 1000\ngid = 1000\n"),
        ("[[qemu.share]]", "source = \"/srv\"\nuser = \"alice\"\n"),
    ],
    &[
        ("", "cluster = \"lab\"\nprovider = \"opennebula\"\n"),
        (
            "[[nodeset]]",
            "name = \"fg\"\nnodes = \"fg[0-7]\"\nmemory_mb = 200\ntemplate = \"7\"\n",
        ),
        ("[nodeset.nfs]", "home = \"10.0.0.2:/home\"\n"),
        (
            "[nodeset.ldap]",
            "url = \"ldap://10.0.0.5\"\ndomain = \"example.org\"\n",
        ),
        ("[nodeset.infiniband]", "vendor = \"15b3\"\n"),
        ("[slurm]", ""),
        ("[job]", ""),
        ("[[vm_options]]", ""),
        ("[sharing]", ""),
        ("[limits]", ""),
        ("[timing]", ""),
        ("[network]", ""),
        ("[opennebula]", "slurmctld_addr = \"10.0.0.1\"\n"),
        (
            "[[opennebula.user]]",
            "name = \"alice\"\nuid = 1000\ngid = 1000\n",
        ),
        (
            "[[opennebula.share]]",
            "server = \"10.0.0.2\"\npath = \"/home\"\n",
        ),
    ],
    &[
        ("", "cluster = \"lab\"\n"),
        (
            "[[nodeset]]",
            "name = \"fg\"\nnodes = \"fg[0-7]\"\nmemory_mb = 200\nmode = \"job\"\n",
        ),
        ("[slurm]", ""),
        ("[job]", ""),
        ("[[vm_options]]", ""),
        ("[sharing]", ""),
        ("[limits]", ""),
        ("[timing]", ""),
        ("[[mount]]", "source = \"files:/home\"\n"),
        ("[network]", ""),
        ("[qemu]", ""),
        ("[[qemu.host]]", "name = \"h\"\nmemory_mb = 4000\n"),
        ("[[qemu.user]]", "name = \"alice\"\nuid = 1000\ngid = 1000\n"),
        ("[[qemu.share]]", "source = \"/srv\"\nuser = \"alice\"\n"),
    ],
];

type Tables = &'static [(&'static str, &'static str)];

/// No key looks like it, so that none is proposed instead.
const NO_KEY: &str = "zzzzzz";

/// No key takes a date.
const NO_VALUE: &str = "1979-05-27";

/// Defaults that depend on this machine or on other keys: the reference says so in words.
const IN_WORDS: [&str; 15] = [
    "nodeset.memory_per_cpu_mb",
    "nodeset.template",
    // Their tables must say something.
    "nodeset.nfs.home",
    "nodeset.infiniband.vendor",
    "mount.target",
    "network.dns",
    "qemu.agent",
    "qemu.slurmctld_host",
    "qemu.slurmctld_addr",
    "qemu.host.cpus",
    "qemu.share.target",
    "opennebula.endpoint",
    "opennebula.auth",
    "opennebula.slurmctld_host",
    "opennebula.share.target",
];

/// A table whose keys are free, and which is empty where it is not written.
const TABLE_OF_TEXTS: &str = "table of texts";

/// What the program says of a key.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    /// Its kind and its range.
    value: String,
    /// As in the file; empty: not set.
    default: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The right file, with the lines of one table changed by `edit`.
fn file(tables: Tables, table: &str, edit: impl Fn(&str) -> String) -> String {
    let part = |(head, lines): &(&str, &str)| {
        let lines = if *head == table {
            edit(lines)
        } else {
            (*lines).to_owned()
        };
        format!("{head}\n{lines}")
    };
    tables.iter().map(part).collect()
}

fn load(text: &str) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("thiao.toml");
    std::fs::write(&path, text).unwrap();
    thiao_config::load(Some(&path))
        .map(|loaded| loaded.show())
        .map_err(|error| error.to_string())
}

/// The table's path: `qemu.host` of `[[qemu.host]]`.
fn path(head: &str) -> &str {
    head.trim_matches(['[', ']'])
}

/// The keys of a table, tables in it included.
fn names(tables: Tables, head: &str) -> Vec<String> {
    let said = load(&file(tables, head, |lines| format!("{lines}{NO_KEY} = 1\n"))).unwrap_err();
    let list = said
        .lines()
        .find_map(|line| line.split_once(&format!("{NO_KEY}: there is no such key; the keys here are ")))
        .unwrap_or_else(|| panic!("{head}: {said}"))
        .1;
    let mut names: Vec<String> = list.split(", ").map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// What a key takes; none when it is a table.
fn kind(tables: Tables, head: &str, name: &str) -> Option<String> {
    let text = file(tables, head, |lines| {
        let others = lines.lines().filter(|line| line.split(" =").next() != Some(name));
        let others: String = others.map(|line| format!("{line}\n")).collect();
        format!("{others}{name} = {NO_VALUE}\n")
    });
    let said = load(&text).unwrap_err();
    let wanted = said
        .lines()
        .find_map(|line| line.split_once(&format!("{name}: {NO_VALUE} ")))
        .unwrap_or_else(|| panic!("{head} {name}: {said}"))
        .1;
    let range = |from: &str| wanted.strip_prefix(from).map(str::to_owned);
    Some(if let Some(range) = range("is not a whole number from ") {
        format!("whole number, {range}")
    } else if let Some(range) = range("is not a time from ") {
        range
    } else if wanted.starts_with("is neither true nor false") {
        "`true` or `false`".into()
    } else if wanted.starts_with("is not a text") {
        "text".into()
    } else if wanted.starts_with("is not an absolute path") {
        "absolute path".into()
    } else if wanted.starts_with("is not a list of texts") {
        "list of texts".into()
    } else if wanted.starts_with("is not a table of texts") {
        TABLE_OF_TEXTS.into()
    } else {
        panic!("{head} {name}: a kind of value that this test does not know: {wanted}")
    })
}

/// All keys by their full names, as the program tells them.
fn keys() -> BTreeMap<String, Key> {
    let [qemu, opennebula, job_mode] = SITES.map(keys_with);
    let mut keys = qemu;
    for (name, key) in opennebula {
        match keys.get_mut(&name) {
            None => drop(keys.insert(name, key)),
            // Only one of the two can be the default.
            Some(_) if name == "provider" => (),
            Some(there) => {
                assert_eq!(there.value, key.value, "{name}");
                if there.default != key.default {
                    let Key { default, .. } = key;
                    there.default = format!("{}; OpenNebula: {default}", there.default);
                }
            }
        }
    }
    for (name, key) in job_mode {
        keys.entry(name).or_insert(key);
    }
    keys
}

/// The keys that there are at one site.
fn keys_with(tables: Tables) -> BTreeMap<String, Key> {
    let shown = load(&file(tables, "none", str::to_owned)).unwrap();
    let mut table = "";
    let mut defaults = BTreeMap::new();
    for line in shown.lines() {
        let (text, origin) = line.rsplit_once(" # ").unwrap_or((line, ""));
        if text.starts_with('[') {
            table = path(text.trim());
        } else if let Some((name, value)) = text.trim_start_matches("# ").split_once(" =") {
            let default = match origin {
                "default" => format!("`{}`", value.trim()),
                "not set" => "none".to_owned(),
                _ => "required".to_owned(),
            };
            defaults.insert(join(table, name), default);
        }
    }
    let is_table = |full: &str| tables.iter().any(|(head, _)| path(head) == full);
    let mut keys = BTreeMap::new();
    for (head, _) in tables {
        for name in names(tables, head) {
            let full = join(path(head), &name);
            if is_table(&full) {
                continue;
            }
            let value = kind(tables, head, &name).unwrap();
            let default = match defaults.get(&full) {
                Some(default) => default.clone(),
                None if value == TABLE_OF_TEXTS => "empty".to_owned(),
                None => panic!("{full} is not shown"),
            };
            keys.insert(full, Key { value, default });
        }
    }
    keys
}

fn join(table: &str, name: &str) -> String {
    if table.is_empty() {
        name.to_owned()
    } else {
        format!("{table}.{name}")
    }
}

/// The keys of the reference: rows of four cells below a heading that names their table.
fn documented() -> BTreeMap<String, Key> {
    let text = std::fs::read_to_string(root().join("docs/config.md")).unwrap();
    let mut table = "";
    let mut keys = BTreeMap::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            let head = heading.split('`').nth(1).unwrap_or_default();
            table = path(head);
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", name, value, default, meaning, ""] = cells[..]
            && let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'))
        {
            assert!(!meaning.is_empty(), "{name} has no meaning");
            let key = Key {
                value: value.to_owned(),
                default: default.to_owned(),
            };
            assert!(
                keys.insert(join(table, name), key).is_none(),
                "{name} is there twice"
            );
        }
    }
    keys
}

#[test]
fn the_reference_has_every_key_as_the_program_knows_it() {
    let (program, reference) = (keys(), documented());
    let mut wrong = Vec::new();
    for (name, key) in &program {
        let Key { value, default } = key;
        let row = format!("| `{name}` | {value} | {default} |");
        match reference.get(name) {
            None => wrong.push(format!("is missing: {row}")),
            Some(there) if there.value != *value => wrong.push(format!("has another value: {row}")),
            Some(there) => {
                let in_words = IN_WORDS.contains(&name.as_str());
                if in_words && there.default.starts_with('`') {
                    wrong.push(format!("has a default that does not hold everywhere: {name}"));
                } else if !in_words && there.default != *default {
                    wrong.push(format!("has another default: {row}"));
                }
            }
        }
    }
    for name in reference.keys().filter(|name| !program.contains_key(*name)) {
        wrong.push(format!("names a key that there is not: {name}"));
    }
    assert!(
        wrong.is_empty(),
        "docs/config.md does not say what the program does:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_examples_are_right() {
    for name in [
        "packaging/thiao.toml.example",
        "packaging/thiao-opennebula.toml.example",
    ] {
        let example = std::fs::read_to_string(root().join(name)).unwrap();
        load(&example).unwrap_or_else(|said| panic!("{name}: {said}"));
        // The lines for those who uncomment them: `#key = value`, while words begin with `# `.
        // Users of the example are not this machine's.
        let all: String = example
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if setting.starts_with("users = ") => "\n".to_owned(),
                Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        load(&all).unwrap_or_else(|said| panic!("{name}, uncommented: {said}\n{all}"));
    }
}

/// All that the documents point at: files by links and by paths, tests by their names.
#[test]
fn what_the_documents_name_is_there() {
    let root = root();
    let mut sources = String::new();
    for folder in ["crates", "xtask"] {
        read_sources(&root.join(folder), &mut sources);
    }
    let mut wrong = Vec::new();
    for (file, folder) in [
        ("README.md", ""),
        ("ARCHITECTURE.md", ""),
        ("CONTRIBUTING.md", ""),
        ("docs/config.md", "docs"),
        ("docs/sharing.md", "docs"),
        ("docs/opennebula.md", "docs"),
    ] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            if !target.starts_with("http") && !leads_somewhere(&root.join(folder), &text, target) {
                wrong.push(format!("{file}: there is no {target}"));
            }
        }
        // Between backticks, those of code blocks left out.
        let prose: String = text.split("```").step_by(2).collect();
        for word in prose.split('`').skip(1).step_by(2) {
            let is_path = ["crates/", "packaging/", "docs/", "xtask/"]
                .iter()
                .any(|start| word.starts_with(start));
            if is_path && !root.join(word).exists() {
                wrong.push(format!("{file}: there is no {word}"));
            }
            // The tests' names are sentences; long keys are in the other documents.
            let is_test = file == "ARCHITECTURE.md"
                && word.matches('_').count() >= 3
                && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            if is_test && !sources.contains(&format!("fn {word}(")) {
                wrong.push(format!("{file}: there is no test {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What people do by hand is told once, each with tests that are there.
#[test]
fn each_row_of_what_people_do_is_there_once_with_its_tests() {
    let root = root();
    let mut sources = String::new();
    read_sources(&root.join("crates"), &mut sources);
    let text = std::fs::read_to_string(root.join("docs/opennebula.md")).unwrap();
    let (_, table) = text.split_once("| a test |\n").unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let mut told = Vec::new();
    let mut wrong = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.split(" | ").collect();
        let (what, tests) = (cells[0], *cells.last().unwrap());
        if told.contains(&what) {
            wrong.push(format!("{what} is there twice"));
        }
        told.push(what);
        for test in tests.split('`').skip(1).step_by(2) {
            if !sources.contains(&format!("fn {test}(")) {
                wrong.push(format!("{what}: there is no test {test}"));
            }
        }
    }
    assert!(told.len() > 10, "{told:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a link's file is there, and the heading in it.
fn leads_somewhere(folder: &Path, text: &str, target: &str) -> bool {
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let file = folder.join(file);
    let there = match target.starts_with('#') {
        true => text.to_owned(),
        false if file.is_file() => std::fs::read_to_string(file).unwrap(),
        false => return file.is_dir(),
    };
    // As forges make them: small letters, `-` for spaces, nothing for other characters.
    let anchor = |line: &str| -> String {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    heading.is_empty()
        || there
            .lines()
            .any(|line| line.starts_with('#') && anchor(line) == heading)
}

/// The pictures of a VM's two axes are drawn twice: beside the types, and for readers.
#[test]
fn both_axes_are_drawn_as_beside_the_types() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let types = std::fs::read_to_string(root().join("crates/core/src/vm.rs")).unwrap();
    for drawn in [1, 3].map(|picture| types.split("```").nth(picture).unwrap()) {
        let lines: Vec<&str> = drawn
            .lines()
            .filter_map(|line| line.strip_prefix("//!"))
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        assert!(lines.len() > 2, "the picture is not where it was: {lines:?}");
        for line in lines {
            assert!(text.contains(line), "ARCHITECTURE.md lacks: {line}");
        }
    }
}

fn read_sources(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_sources(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}
