//! What comes from outside is as deny.toml says. `cargo xtask test` has `cargo deny` ask the same and more; this is
//! asked wherever tests run, also without a network.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// The keys of deny.toml that are followed here, and those that do not apply: of advisories, whose
/// database changes by itself, and of the texts of licences that a package does not name.
const KEYS: [&str; 14] = [
    "graph.targets",
    "graph.all-features",
    "advisories.version",
    "advisories.yanked",
    "licenses.version",
    "licenses.allow",
    "licenses.exceptions",
    "licenses.confidence-threshold",
    "bans.multiple-versions",
    "bans.wildcards",
    "bans.allow-wildcard-paths",
    "sources.unknown-registry",
    "sources.unknown-git",
    "sources.allow-registry",
];

/// What is wrong with these packages, as `cargo metadata` shows them.
fn problems(rules: &Value, packages: &[Value]) -> Vec<String> {
    let mut found = unknown_keys(rules);
    found.extend(packages.iter().flat_map(|package| licence(rules, package)));
    found.extend(packages.iter().flat_map(|package| source(rules, package)));
    found.extend(packages.iter().flat_map(|package| wildcards(rules, package)));
    found.extend(duplicates(rules, packages));
    found
}

/// A rule that nobody follows would only seem to hold.
fn unknown_keys(rules: &Value) -> Vec<String> {
    let tables = rules.as_object().unwrap().iter();
    let keys = tables.flat_map(|(table, keys)| {
        let keys = keys.as_object().unwrap().keys();
        keys.map(move |key| format!("{table}.{key}"))
    });
    keys.filter(|key| !KEYS.contains(&key.as_str()))
        .map(|key| format!("deny.toml: {key} is not known here"))
        .collect()
}

fn licence(rules: &Value, package: &Value) -> Option<String> {
    let exceptions = rules["licenses"]["exceptions"].as_array().into_iter().flatten();
    let allowed: BTreeSet<&str> = exceptions
        .filter(|exception| exception["crate"] == package["name"])
        .map(|exception| &exception["allow"])
        .chain([&rules["licenses"]["allow"]])
        .flat_map(texts)
        .collect();
    let problem = match package["license"].as_str() {
        None => "names no licence".to_owned(),
        Some(licence) => match permits(licence, &allowed) {
            Some(true) => return None,
            Some(false) => format!("is under {licence}"),
            None => format!("has a licence that cannot be read: {licence}"),
        },
    };
    Some(format!("{} {problem}", name(package)))
}

fn source(rules: &Value, package: &Value) -> Option<String> {
    // Ours are in this folder.
    let source = package["source"].as_str()?;
    let rule = match source.starts_with("git+") {
        true => "unknown-git",
        false => "unknown-registry",
    };
    let registry = source.strip_prefix("registry+");
    let known = texts(&rules["sources"]["allow-registry"]).any(|known| registry == Some(known));
    let wrong = !known && rules["sources"][rule] == "deny";
    wrong.then(|| format!("{} is from {source}", name(package)))
}

fn wildcards(rules: &Value, package: &Value) -> Vec<String> {
    let bans = &rules["bans"];
    // Who publishes nothing may name a folder without a version.
    let private = package["publish"] == json!([]);
    let paths = private && bans["allow-wildcard-paths"] == true;
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    dependencies
        .filter(|needed| bans["wildcards"] == "deny" && needed["req"] == "*")
        .filter(|needed| !(paths && needed["path"].is_string()))
        .map(|needed| {
            let other = needed["name"].as_str().unwrap();
            format!("{} takes any version of {other}", name(package))
        })
        .collect()
}

fn duplicates(rules: &Value, packages: &[Value]) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for package in packages {
        let of_name = versions.entry(package["name"].as_str().unwrap()).or_default();
        of_name.push(name(package));
    }
    versions
        .into_values()
        .filter(|of_name| rules["bans"]["multiple-versions"] == "deny" && of_name.len() > 1)
        .map(|of_name| format!("there are {}", of_name.join(", ")))
        .collect()
}

fn name(package: &Value) -> String {
    let text = |key: &str| package[key].as_str().unwrap();
    format!("{} {}", text("name"), text("version"))
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Whether a licence (an SPDX expression; of old, `/` means OR) can be kept with those allowed. None: it
/// cannot be read.
fn permits(licence: &str, allowed: &BTreeSet<&str>) -> Option<bool> {
    let spaced = licence
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let permitted = any_of(&mut words, allowed)?;
    words.next().is_none().then_some(permitted)
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> Option<bool> {
    let mut permitted = all_of(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        permitted |= all_of(words, allowed)?;
    }
    Some(permitted)
}

fn all_of(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> Option<bool> {
    let mut permitted = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        permitted &= one(words, allowed)?;
    }
    Some(permitted)
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> Option<bool> {
    match words.next()? {
        "(" => {
            let permitted = any_of(words, allowed)?;
            words.next_if_eq(&")").map(|_| permitted)
        }
        ")" | "OR" | "AND" | "WITH" => None,
        licence if words.next_if_eq(&"WITH").is_some() => {
            let exact = format!("{licence} WITH {}", words.next()?);
            Some(allowed.contains(exact.as_str()))
        }
        licence => Some(allowed.contains(licence)),
    }
}

/// deny.toml as it is.
fn rules() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deny.toml");
    toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// All packages that are built from, on the systems and with the features that deny.toml names.
fn packages(rules: &Value) -> Vec<Value> {
    let graph = &rules["graph"];
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["metadata", "--format-version=1", "--locked"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    if graph["all-features"] == true {
        command.arg("--all-features");
    }
    for target in texts(&graph["targets"]) {
        command.args(["--filter-platform", target]);
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

#[test]
fn what_comes_from_outside_is_as_deny_toml_says() {
    let rules = rules();
    let packages = packages(&rules);
    assert!(packages.len() > 20, "{} packages are seen", packages.len());
    let problems = problems(&rules, &packages);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn each_rule_of_deny_toml_can_fail() {
    let rules = rules();
    let sound = json!({
        "name": "a", "version": "1.0.0", "license": "MIT", "publish": null,
        "source": "registry+https://github.com/rust-lang/crates.io-index",
        "dependencies": [{ "name": "b", "req": "^1" }],
    });
    let of = |key: &str, value: Value| {
        let mut package = sound.clone();
        package[key] = value;
        problems(&rules, &[package])
    };
    assert!(problems(&rules, std::slice::from_ref(&sound)).is_empty());
    for (key, value, problem) in [
        ("license", json!("NCSA"), "a 1.0.0 is under NCSA"),
        ("license", json!(null), "a 1.0.0 names no licence"),
        (
            "license",
            json!("MIT OR"),
            "a 1.0.0 has a licence that cannot be read: MIT OR",
        ),
        (
            "source",
            json!("registry+https://example.org/index"),
            "a 1.0.0 is from registry+https://example.org/index",
        ),
        (
            "source",
            json!("sparse+https://example.org/index"),
            "a 1.0.0 is from sparse+https://example.org/index",
        ),
        (
            "source",
            json!("git+https://example.org/a?branch=b#c"),
            "a 1.0.0 is from git+https://example.org/a?branch=b#c",
        ),
        (
            "dependencies",
            json!([{ "name": "b", "req": "*" }]),
            "a 1.0.0 takes any version of b",
        ),
        (
            "dependencies",
            json!([{ "name": "b", "req": "*", "path": "/b" }]),
            "a 1.0.0 takes any version of b",
        ),
    ] {
        assert_eq!(of(key, value), [problem]);
    }
    // The exception is for one package.
    let mut fuzzer = sound.clone();
    fuzzer["license"] = json!("(MIT OR Apache-2.0) AND NCSA");
    assert_eq!(problems(&rules, std::slice::from_ref(&fuzzer)).len(), 1);
    fuzzer["name"] = json!("libfuzzer-sys");
    assert!(problems(&rules, &[fuzzer]).is_empty());
    // Ours name each other by path, and are not published.
    let ours = json!({
        "name": "a", "version": "1.0.0", "license": "GPL-3.0-or-later", "publish": [], "source": null,
        "dependencies": [{ "name": "b", "req": "*", "path": "/b" }],
    });
    assert!(problems(&rules, &[ours]).is_empty());
}

#[test]
fn rules_that_do_not_deny_are_let_be_and_unknown_ones_are_named() {
    let mut rules = rules();
    let package = |version: &str| json!({ "name": "a", "version": version, "license": "MIT" });
    let both = [package("1.0.0"), package("2.0.0")];
    assert!(problems(&rules, &both).is_empty());
    rules["bans"]["multiple-versions"] = json!("deny");
    assert_eq!(problems(&rules, &both), ["there are a 1.0.0, a 2.0.0"]);
    rules["bans"] = json!({ "skip": ["a"] });
    assert_eq!(
        problems(&rules, &both),
        ["deny.toml: bans.skip is not known here"]
    );
}

#[test]
fn licences_are_expressions() {
    let allowed = BTreeSet::from(["MIT", "ISC", "GPL-2.0 WITH Classpath"]);
    for (licence, permitted) in [
        ("MIT", Some(true)),
        ("NCSA", Some(false)),
        ("NCSA OR MIT", Some(true)),
        ("NCSA/MIT", Some(true)),
        ("MIT AND NCSA", Some(false)),
        ("NCSA OR MIT AND ISC", Some(true)),
        ("(NCSA OR MIT) AND ISC", Some(true)),
        ("(NCSA OR MIT) AND NCSA", Some(false)),
        ("MIT AND (NCSA OR (ISC))", Some(true)),
        ("GPL-2.0 WITH Classpath", Some(true)),
        ("GPL-2.0", Some(false)),
        ("MIT WITH Classpath OR NCSA", Some(false)),
        ("", None),
        ("MIT ISC", None),
        ("(MIT", None),
        ("MIT)", None),
        ("MIT AND", None),
        ("MIT WITH", None),
        ("OR", None),
    ] {
        assert_eq!(permits(licence, &allowed), permitted, "{licence:?}");
    }
}
