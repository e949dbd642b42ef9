//! What is public says what it is for, and a doc comment says something: one of a word or two repeats the name that
//! it stands above. A field or a variant whose name says it all has none. rustc's own `missing_docs` asks for
//! words everywhere, and gets empty ones.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};

/// A doc comment has more words than these. Help texts of the command line are doc comments, too.
const FEW: usize = 3;

/// What follows `pub` where something is declared that others use: `async`, `unsafe` and `extern` begin functions.
const KINDS: [&str; 11] = [
    "fn", "struct", "enum", "trait", "const", "static", "type", "mod", "async", "unsafe", "extern",
];

/// A file that begins a line like that is let be: it says there for what reason.
const ALLOWED: &str = "#![allow(missing_docs";

/// What is wrong with the doc comments of a file, each with its line. `public`: what is public there needs one.
/// `mod_docs`: whether the file of a module says at its head what it is.
fn problems(text: &str, public: bool, mod_docs: impl Fn(&str) -> bool) -> Vec<(usize, String)> {
    let public = public && !text.lines().any(|line| line.starts_with(ALLOWED));
    let mut found = Vec::new();
    // The doc comment that goes on: its first line, and its words until now.
    let mut doc: Option<(usize, Vec<&str>)> = None;
    let mut documented = false;
    // A documented constant stands above: its words are those of the constants right below it as well.
    let mut constants = false;
    let mut attribute = false;
    for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line.trim())) {
        if let Some(more) = line.strip_prefix("///") {
            let (_, words) = doc.get_or_insert((number, Vec::new()));
            words.extend(more.split_whitespace());
            documented = true;
            continue;
        }
        if let Some((first, words)) = doc.take().filter(|(_, words)| words.len() <= FEW) {
            let short = format!("says too little, say more or leave it out: {}", words.join(" "));
            found.push((first, short));
        }
        if attribute || line.starts_with("#[") {
            // rustfmt lets one of several lines end like that, and no line within it.
            attribute = !line.ends_with(if attribute { ")]" } else { "]" });
        } else if line.starts_with("$(#[") {
            // A macro's: what it is given.
            documented = true;
        } else if !line.starts_with("//") {
            let constant = line.starts_with("pub const ") && line.ends_with(';');
            let told = documented || (constant && constants) || module(line).is_some_and(&mod_docs);
            if public && is_public(line) && !told {
                found.push((number, format!("has no doc comment: {line}")));
            }
            (documented, constants) = (false, constant && told);
        }
    }
    found
}

/// Whether this line begins something that others use.
fn is_public(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("pub") && words.next().is_some_and(|kind| KINDS.contains(&kind))
}

/// The module that has a file of its own, if this line declares one.
fn module(line: &str) -> Option<&str> {
    line.strip_prefix("pub mod ")?.strip_suffix(';')
}

/// Whether the file of a module that `file` declares has a doc comment at its head.
fn says_what_it_is(file: &Path, module: &str) -> bool {
    let folder = match file.file_stem().unwrap().to_str().unwrap() {
        "lib" | "main" | "mod" => file.parent().unwrap().to_owned(),
        _ => file.with_extension(""),
    };
    let files = [format!("{module}.rs"), format!("{module}/mod.rs")];
    let text = files
        .iter()
        .find_map(|name| std::fs::read_to_string(folder.join(name)).ok());
    text.is_some_and(|text| text.starts_with("//!"))
}

/// All Rust files below a folder, but what is built.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Whether a file, by its path in the workspace, is of a program or library, and no test of it.
fn is_source(path: &Path) -> bool {
    let has = |name: &str| path.iter().any(|part| part == name);
    has("src") && !has("tests") && !has("tests.rs")
}

#[test]
fn doc_comments_say_something_and_none_is_missing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for folder in ["crates", "xtask"] {
        rust_files(&root.join(folder), &mut files);
    }
    assert!(files.len() > 400, "{} files are seen", files.len());
    files.sort();
    let mut told = String::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let path = file.strip_prefix(root).unwrap();
        for (line, problem) in problems(&text, is_source(path), |module| says_what_it_is(&file, module)) {
            told += &format!("{}:{line} {problem}\n", path.display());
        }
    }
    assert!(told.is_empty(), "{told}");
}

#[test]
fn what_is_missing_or_too_short_is_found() {
    let lines = |text: &str, public| -> Vec<usize> {
        let found = problems(text, public, |module| module == "told");
        found.into_iter().map(|(line, _)| line).collect()
    };
    for (text, wrong) in [
        ("pub fn a() {}", vec![1]),
        ("/// It does what was asked.\npub fn a() {}", vec![]),
        ("/// It does this.\npub fn a() {}", vec![1]),
        ("/// It does\n/// what was asked.\npub fn a() {}", vec![]),
        ("/// Which.\nfile: PathBuf,\n/// Why.\nerror: Error,", vec![1, 3]),
        // What comes between, and what does not.
        (
            "/// Nothing is left of it.\n#[derive(Error)]\n#[error(\n\"a]\"\n)]\n// So.\npub struct A;",
            vec![],
        ),
        ("#[error(\n\"a\"\n)]\npub struct A;", vec![4]),
        ("/// It does what was asked.\nfn b() {}\npub fn a() {}", vec![3]),
        ("/// It does what was asked.\n\npub fn a() {}", vec![3]),
        ("$(#[$about])*\npub enum $name {", vec![]),
        // All kinds, and what is none.
        ("    pub async fn a() {}\n    pub const fn b() {}", vec![1, 2]),
        (
            "pub static A: u8 = 1;\npub type B = u8;\npub trait C {}",
            vec![1, 2, 3],
        ),
        ("pub(crate) fn a() {}\npub use a::B;\npub field: u8,", vec![]),
        // A module's own file, and one in place.
        ("pub mod told;\npub mod untold;\npub mod told {", vec![2, 3]),
        // Constants one below the other.
        (
            "/// As the standard names them.\npub const A: u8 = 1;\npub const B: u8 = 2;\npub fn c() {}",
            vec![4],
        ),
        ("pub const A: u8 = 1;\npub const B: u8 = 2;", vec![1, 2]),
    ] {
        assert_eq!(lines(text, true), wrong, "{text}");
    }
    // A test's helpers need none; a file may say why it has none. What is there says something anyway.
    let text = "pub fn a() {}\n/// Why.\npub fn b() {}";
    assert_eq!(lines(text, false), [2]);
    let allowed = format!("{ALLOWED}, reason = \"as in the standard\")]\n{text}");
    assert_eq!(lines(&allowed, true), [3]);
}

#[test]
fn tests_and_benches_are_no_sources() {
    for (path, source) in [
        ("crates/core/src/plan.rs", true),
        ("xtask/src/main.rs", true),
        ("crates/core/src/plan/tests.rs", false),
        ("crates/core/src/plan/tests/found.rs", false),
        ("crates/core/tests/plan.rs", false),
        ("crates/core/benches/plan.rs", false),
    ] {
        assert_eq!(is_source(Path::new(path)), source, "{path}");
    }
}
