//! The lines of `slurm.conf` and of the files that it includes, as Slurm reads them.

use std::path::{Path, PathBuf};

/// A line, without its comment; one that ends in a backslash with the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The file that it is in.
    pub file: PathBuf,
    /// Its number, or that of the first of several, from 1 on.
    pub number: usize,
    /// Its text, with no space around `=`.
    pub text: String,
}

impl Line {
    /// The file that it includes, if it does that.
    #[must_use]
    pub fn included(&self) -> Option<PathBuf> {
        let mut words = self.text.split_whitespace();
        let is_include = words.next()?.eq_ignore_ascii_case("include");
        let name = words.next().filter(|_| is_include)?;
        Some(self.file.with_file_name("").join(name))
    }
}

/// All lines, those of an included file behind the line that includes it. A file that cannot be read has none,
/// and each is read once.
#[must_use]
pub fn read(slurm_conf: &Path) -> Vec<Line> {
    let mut all = Vec::new();
    collect(slurm_conf, &mut Vec::new(), &mut all);
    all
}

/// The line of slurm.conf, or of a file that it includes, by which `wanted` is included.
#[must_use]
pub fn including(slurm_conf: &Path, wanted: &Path) -> Option<Line> {
    let mut lines = read(slurm_conf).into_iter();
    lines.find(|line| line.included().is_some_and(|path| path == wanted))
}

fn collect(file: &Path, seen: &mut Vec<PathBuf>, all: &mut Vec<Line>) {
    if seen.iter().any(|other| other == file) {
        return;
    }
    seen.push(file.to_owned());
    let text = std::fs::read_to_string(file).unwrap_or_default();
    for line in joined(file, &text) {
        let included = line.included();
        all.push(line);
        if let Some(path) = included {
            collect(&path, seen, all);
        }
    }
}

fn joined(file: &Path, text: &str) -> Vec<Line> {
    let mut all: Vec<Line> = Vec::new();
    let mut goes_on = false;
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim_end();
        let (line, more) = match line.strip_suffix('\\') {
            Some(line) => (line, true),
            None => (line, false),
        };
        match all.last_mut().filter(|_| goes_on) {
            Some(last) => {
                last.text.push(' ');
                last.text.push_str(line);
            }
            None => all.push(Line {
                file: file.to_owned(),
                number: at + 1,
                text: line.to_owned(),
            }),
        }
        goes_on = more;
    }
    for line in &mut all {
        let words: Vec<&str> = line.text.trim().split('=').map(str::trim).collect();
        line.text = words.join("=");
    }
    all
}

/// The words of a comma-separated value.
pub(crate) fn words(value: Option<&str>) -> impl Iterator<Item = &str> {
    value
        .filter(|value| !value.eq_ignore_ascii_case("none"))
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

/// What a word is called, of `name=value` or `name:count`.
pub(crate) fn word_name(word: &str) -> String {
    let name = word.split(['=', ':']).next().unwrap_or(word);
    name.trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_in_their_order_each_file_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let conf = "ClusterName = a # Include x\n include  more.conf # ours\nNodeName=b \\\n CPUs = 2\nInclude slurm.conf\n";
        std::fs::write(path("slurm.conf"), conf).unwrap();
        std::fs::write(path("more.conf"), "X=1\nInclude /nonexistent/y\n").unwrap();
        let all = read(&path("slurm.conf"));
        let told: Vec<(String, usize, &str)> = all
            .iter()
            .map(|line| {
                let name = line.file.file_name().unwrap().to_string_lossy().into_owned();
                (name, line.number, line.text.as_str())
            })
            .collect();
        let at = |name: &str, number, text| (name.to_owned(), number, text);
        assert_eq!(
            told,
            [
                at("slurm.conf", 1, "ClusterName=a"),
                at("slurm.conf", 2, "include  more.conf"),
                at("more.conf", 1, "X=1"),
                at("more.conf", 2, "Include /nonexistent/y"),
                at("slurm.conf", 3, "NodeName=b   CPUs=2"),
                at("slurm.conf", 5, "Include slurm.conf"),
            ]
        );
        assert_eq!(all[1].included(), Some(path("more.conf")));
        assert_eq!(all[3].included(), Some("/nonexistent/y".into()));
        assert!(all[0].included().is_none() && read(&path("none")).is_empty());
    }
}
