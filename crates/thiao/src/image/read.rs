//! What this machine and an image say of themselves: pure readers.

use std::collections::BTreeMap;
use std::fs;

/// The release of Debian on this machine, by its name.
#[must_use]
pub fn this_suite() -> Option<String> {
    suite_of(&fs::read_to_string("/etc/os-release").ok()?)
}

/// The release that an `os-release` names.
#[must_use]
pub fn suite_of(os_release: &str) -> Option<String> {
    let line = os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    let name = line.trim().trim_matches('"');
    is_suite(name).then(|| name.to_owned())
}

/// Whether this can be the name of a release: it becomes a word of a command line.
pub fn is_suite(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Whether this can be a package's name (Debian Policy, 5.6.1). `gcc-` apt takes for "without gcc" (apt-get(8)).
pub fn is_package(text: &str) -> bool {
    text.len() > 1
        && !text.ends_with('-')
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.'))
}

/// The installed packages with their versions, from dpkg's `status`.
pub fn packages(status: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for paragraph in status.split("\n\n") {
        let field = |name: &str| {
            let lines = paragraph.lines();
            lines
                .filter_map(|line| line.split_once(": "))
                .find_map(|(field, value)| (field == name).then(|| value.trim().to_owned()))
        };
        if field("Status").is_some_and(|status| status.ends_with(" installed"))
            && let (Some(name), Some(version)) = (field("Package"), field("Version"))
        {
            found.insert(name, version);
        }
    }
    found
}

/// The version of a program in its package's: without Debian's parts of it.
pub fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version.rsplit_once('-').map_or(version, |(upstream, _)| upstream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_machine_says_its_release() {
        let text = "NAME=\"Debian GNU/Linux\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(suite_of(text).as_deref(), Some("bookworm"));
        assert_eq!(
            suite_of("VERSION_CODENAME=\"trixie\"\n").as_deref(),
            Some("trixie")
        );
        assert_eq!(suite_of("VERSION_CODENAME=--hook=x\n"), None);
        assert_eq!(suite_of("ID=arch\n"), None);
    }

    #[test]
    fn packages_names_are_no_options() {
        for good in ["gcc", "libstdc++6", "python3.11", "0ad"] {
            assert!(is_package(good), "{good}");
        }
        for bad in [
            "",
            "x",
            "-gcc",
            "gcc-",
            "a,b",
            "gcc/sid",
            "gcc=1",
            "A1",
            "?essential",
            "./a.deb",
        ] {
            assert!(!is_package(bad), "{bad}");
        }
    }

    #[test]
    fn dpkgs_status_is_read() {
        let status = "Package: slurmd\nStatus: install ok installed\nVersion: 22.05.8-4+deb12u3\nDescription: x\n \
                      Version: no\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n";
        let found = packages(status);
        assert_eq!(found.len(), 1);
        assert_eq!(upstream(&found["slurmd"]), "22.05.8");
        assert_eq!(upstream("1:2.3-rc1-4"), "2.3-rc1");
        assert_eq!(upstream("7"), "7");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in "(?s).{0,200}") {
            packages(&text);
            upstream(&text);
            let _ = suite_of(&text);
        }
    }
}
