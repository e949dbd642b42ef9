//! What a site has of its own of the keys that our lines set: kept in them, and beside them in comments, for
//! once ours are in effect slurmctld knows no other.

use crate::conf_lines::{word_name, words};
use crate::info::{Config, Version};
use crate::join;
use crate::names::{self, GATE, GPU, HOOKS, VM};
use crate::quirks::Quirks;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How a comment begins that says it.
const MARK: &str = "# Your own: ";
/// The keys of words that job mode needs ours in.
pub(crate) const JOB_MODE: [&str; 4] = ["GresTypes", "Licenses", "SlurmdParameters", "JobSubmitPlugins"];
/// Other keys of words.
const LISTS: [&str; 3] = ["PrivateData", "SlurmctldParameters", names::SCHEDULER];
/// Keys of one number, and those that nobody has written: Slurm's own.
const NUMBERS: [(&str, &[u64]); 4] = [
    ("ResumeRate", &[300]),
    ("SuspendRate", &[60]),
    ("ReturnToService", &[0]),
    ("TreeWidth", &[16, 50]),
];

/// What an earlier setup wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Earlier {
    keys: BTreeSet<String>,
    own: BTreeMap<String, String>,
    /// Whether it kept what is the site's own.
    has_record: bool,
}

impl Earlier {
    /// Reads the lines that it wrote.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let own = text.lines().filter_map(|line| line.strip_prefix(MARK));
        Self {
            keys: keys(text).into_iter().map(str::to_owned).collect(),
            own: own
                .clone()
                .filter_map(|line| line.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            has_record: own.count() > 0,
        }
    }

    /// The site's own script is called by ours, or is not: if it is, so its plugin is the site's.
    #[must_use]
    pub fn with_script(mut self, is_called: bool) -> Self {
        const KEY: &str = "JobSubmitPlugins";
        if is_called && self.word(KEY, names::LUA).is_none() {
            let words = self.own.entry(KEY.to_owned()).or_default();
            let comma = if words.is_empty() { "" } else { "," };
            words.push_str(comma);
            words.push_str(names::LUA);
        }
        self
    }

    /// The site's own word of this name, where we have one, too.
    fn word<'w>(&'w self, key: &str, name: &str) -> Option<&'w str> {
        // Older lines do not say whose it is; to keep it harms nobody.
        if !self.has_record && name == GPU {
            return Some(GPU);
        }
        words(self.own.get(key).map(String::as_str)).find(|own| word_name(own) == name)
    }
}

/// What the site has of its own, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SiteKeys {
    values: BTreeMap<String, String>,
    /// Keys that the earlier lines set: whoever followed their steps has no other line for them.
    set_before: BTreeSet<String>,
}

impl SiteKeys {
    /// What slurmctld has without ours. `programs` are the site's own that ours take the place of, and
    /// `earlier` what was written before, if it was.
    #[must_use]
    pub fn of(
        present: &Config,
        hooks: &Path,
        version: Version,
        programs: &BTreeMap<&'static str, String>,
        earlier: Option<&Earlier>,
    ) -> Self {
        let is_in_effect = in_effect(present, hooks);
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        for (key, program) in programs {
            values.insert((*key).to_owned(), program.clone());
        }
        // A program that no script can name has its record alone.
        for (key, _) in HOOKS.iter().filter(|_| is_in_effect) {
            let recorded = earlier.and_then(|earlier| earlier.own.get(*key));
            if let (false, Some(program)) = (values.contains_key(*key), recorded) {
                values.insert((*key).to_owned(), program.clone());
            }
        }
        for key in JOB_MODE.iter().chain(&LISTS) {
            let is_ours = is_in_effect && earlier.is_none_or(|earlier| earlier.keys.contains(*key));
            let ours = our_words(key, version);
            let own = |word| {
                let name = word_name(word);
                match is_ours && ours.contains(&name) {
                    true => earlier.and_then(|earlier| earlier.word(key, &name)),
                    false => Some(word).filter(|_| name != GATE),
                }
            };
            let words: Vec<&str> = words(present.get(key)).filter_map(own).collect();
            if !words.is_empty() {
                values.insert((*key).to_owned(), words.join(","));
            }
        }
        for (key, usual) in NUMBERS {
            let recorded = || earlier.and_then(|earlier| earlier.own.get(key).cloned());
            let written = || present.number(key).filter(|number| !usual.contains(number));
            let value = match is_in_effect {
                true => recorded(),
                false => written().map(|number| number.to_string()),
            };
            values.extend(value.map(|value| (key.to_owned(), value)));
        }
        Self {
            values,
            set_before: earlier.map(|earlier| earlier.keys.clone()).unwrap_or_default(),
        }
    }

    /// What the earlier lines say of it; all there is while slurmctld does not answer.
    #[must_use]
    pub fn recorded(earlier: &Earlier) -> Self {
        Self {
            values: earlier.own.clone(),
            set_before: earlier.keys.clone(),
        }
    }

    /// The site's own value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// Whether the site has this word of its own.
    #[must_use]
    pub fn has(&self, key: &str, word: &str) -> bool {
        words(self.get(key)).any(|own| word_name(own) == word)
    }

    /// The site's own programs, by key.
    #[must_use]
    pub fn programs(&self) -> BTreeMap<&'static str, String> {
        let program = |(key, _): &(&'static str, &str)| Some((*key, self.get(key)?.to_owned()));
        HOOKS.iter().filter_map(program).collect()
    }

    /// The site's own value where the earlier lines took its place.
    pub(crate) fn left(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|_| self.set_before.contains(key))
    }

    /// The lines for slurm.conf that these lines take the place of.
    #[must_use]
    pub fn lines(&self, text: &str) -> Vec<String> {
        keys(text)
            .into_iter()
            .filter_map(|key| Some(format!("{key}={}", self.get(key)?)))
            .collect()
    }

    /// Those of them that are not in effect.
    #[must_use]
    pub fn lacking(&self, text: &str, present: Option<&Config>) -> Vec<String> {
        let is_there = |line: &String| {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            let there = present.and_then(|present| present.get(key)).unwrap_or_default();
            let there: Vec<&str> = there.split([',', ' ']).collect();
            words(Some(value)).all(|word| there.contains(&word))
        };
        let mut lines = self.lines(text);
        lines.retain(|line| !is_there(line));
        lines
    }

    /// The comment that keeps them.
    pub(crate) fn record(&self, text: &str) -> String {
        let mut lines = self.lines(text);
        if lines.is_empty() {
            lines.push("nothing".to_owned());
        }
        lines.iter().map(|line| format!("{MARK}{line}\n")).collect()
    }
}

/// The keys that lines set, without nodes and partitions.
pub(crate) fn keys(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .filter(|key| !key.contains('#') && !matches!(*key, "NodeName" | "PartitionName"))
        .collect()
}

/// Whether slurmctld calls one of our programs: then it has read our lines.
#[must_use]
pub fn in_effect(present: &Config, hooks: &Path) -> bool {
    called(present, hooks).is_some()
}

/// The first of our programs that slurmctld calls, with its key.
#[must_use]
pub fn called(present: &Config, hooks: &Path) -> Option<(&'static str, PathBuf)> {
    HOOKS.iter().find_map(|(key, name)| {
        let ours = [false, true].map(|joined| join::program(hooks, name, joined));
        let mut values = present.values(key).into_iter().map(PathBuf::from);
        values.find(|path| ours.contains(path)).map(|path| (*key, path))
    })
}

/// The names of our words of a key.
fn our_words(key: &str, version: Version) -> Vec<String> {
    let words = match key {
        "GresTypes" => vec![VM, GPU],
        "Licenses" => vec![GATE],
        "SlurmdParameters" => vec![names::OVERRIDES],
        "JobSubmitPlugins" => vec![names::LUA],
        "PrivateData" => vec![names::CLOUD],
        "SlurmctldParameters" => {
            let mut words = names::slurmctld_parameters(Quirks::of(version));
            // An older Slurm's word, before an upgrade.
            words.push(names::REG_ADDRS);
            words
        }
        _ => Vec::new(),
    };
    words.into_iter().map(word_name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOOKS_DIR: &str = "/h";
    const VERSION: Version = Version::new(22, 5, 8);

    fn own(present: &str, earlier: Option<&str>) -> SiteKeys {
        let earlier = earlier.map(Earlier::parse);
        SiteKeys::of(
            &Config::parse(present),
            Path::new(HOOKS_DIR),
            VERSION,
            &BTreeMap::new(),
            earlier.as_ref(),
        )
    }

    #[test]
    fn before_our_lines_all_is_the_sites() {
        let present =
            "JobSubmitPlugins = lua,x\nTreeWidth = 50\nResumeRate = 10 nodes/min\nPrivateData = none\n";
        let own = own(present, None);
        assert_eq!(own.get("JobSubmitPlugins"), Some("lua,x"));
        let text = "PrivateData=cloud\nTreeWidth=65533\nResumeRate=0\nJobSubmitPlugins=lua,x\n";
        assert_eq!(own.lines(text), ["ResumeRate=10", "JobSubmitPlugins=lua,x"]);
        assert_eq!(
            own.record(text),
            "# Your own: ResumeRate=10\n# Your own: JobSubmitPlugins=lua,x\n"
        );
        assert_eq!(own.record(""), "# Your own: nothing\n");
    }

    #[test]
    fn in_effect_ours_are_told_from_the_sites() {
        let present = "ResumeProgram = /h/Resume\nGresTypes = gpu,vm\nLicenses = a:1,vm_room:1\nResumeRate = 0\n\
                       SlurmctldParameters = power_save_interval=1,enable_configless,x\nAcct = y\n";
        let lines = "GresTypes=gpu,vm\nLicenses=a:1,vm_room:1\nSlurmctldParameters=x\nResumeRate=0\n";
        let kept = format!(
            "# Your own: ResumeRate=10\n# Your own: GresTypes=gpu\n\
             # Your own: SlurmctldParameters=power_save_interval=9,x\n{lines}"
        );
        let known = own(present, Some(&kept));
        assert_eq!(known.get("GresTypes"), Some("gpu"));
        assert_eq!(known.get("Licenses"), Some("a:1"));
        assert_eq!(known.get("SlurmctldParameters"), Some("power_save_interval=9,x"));
        assert_eq!(known.get("ResumeRate"), Some("10"));
        assert_eq!(known.left("Licenses"), Some("a:1"));
        // Lines without a record.
        let unknown = own(present, Some(lines));
        assert_eq!(unknown.get("GresTypes"), Some("gpu"));
        assert_eq!(unknown.get("SlurmctldParameters"), Some("x"));
        let nothing = format!("# Your own: nothing\n{lines}");
        assert_eq!(own(present, Some(&nothing)).get("GresTypes"), None);
        // What our lines did not set is the site's.
        let present = "ResumeProgram = /h/Resume\nJobSubmitPlugins = lua\n";
        assert_eq!(
            own(present, Some("ResumeRate=0\n")).get("JobSubmitPlugins"),
            Some("lua")
        );
    }

    #[test]
    fn a_script_that_is_called_needs_its_plugin() {
        let earlier = |is_called| Earlier::parse("# Your own: JobSubmitPlugins=x\n").with_script(is_called);
        let get = |is_called| {
            SiteKeys::recorded(&earlier(is_called))
                .get("JobSubmitPlugins")
                .map(str::to_owned)
        };
        assert_eq!(get(true).as_deref(), Some("x,lua"));
        assert_eq!(get(false).as_deref(), Some("x"));
    }
}
