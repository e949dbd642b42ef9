//! What a job may ask of its VMs beside Slurm's resources (`--vm-*`), how that is
//! written, and who may.
//!
//! Written as words in any order, separated by spaces, each once:
//! `template=NAME image=NAME share=PERCENT keep-on-failure`.

use std::fmt;

/// Begins the `AdminComment` of a job that has options for its VMs.
pub const COMMENT_PREFIX: &str = "vm:";

/// The variable of the environment in which `tsub` gives them to Slurm's lua script
/// (empty: none; it is a mark of `tsub` then). It survives `sbatch --export=NONE`.
pub const VARIABLE: &str = "SLURM_THIAO_VM";

/// Stands in the `AdminComment` of a job that was put back, before the reason.
const PUT_BACK: &str = "thiao: put back: ";

/// What a job's `AdminComment` says when it is put back into the queue: its options, and why.
#[must_use]
pub fn put_back_comment(options: &VmOptions, why: &str) -> String {
    comment_beside(options, &format!("{PUT_BACK}{why}"))
}

/// Why a job was put back, as [`put_back_comment`] says it.
#[must_use]
pub fn put_back_reason(comment: &str) -> Option<&str> {
    let rest = match comment.strip_prefix(COMMENT_PREFIX) {
        Some(after) => after.split_once("; ")?.1,
        None => comment,
    };
    rest.strip_prefix(PUT_BACK)
}

/// What the `AdminComment` of a job of another partition says once it is kept from the nodes of `from`, and why:
/// unlike [`put_back_comment`], which it has until then.
#[must_use]
pub fn turned_away_comment(from: &str, why: &str) -> String {
    format!("thiao: kept from {from}: {why}")
}

/// Begins what the `AdminComment` of a job says whose VMs do not see the folder where it runs.
const UNSHARED: &str = "thiao: note: ";

/// The `AdminComment` of a job that is told of its folder, beside its options; none if it says that already, or what
/// somebody else has written.
#[must_use]
pub fn unshared_comment(known: Option<&str>, text: &str) -> Option<String> {
    let known = known.unwrap_or_default();
    let says = known.contains(UNSHARED);
    let is_ours = known.is_empty() || known.starts_with(COMMENT_PREFIX) || known.starts_with(PUT_BACK);
    let options = VmOptions::from_comment(known).unwrap_or_default();
    (is_ours && !says).then(|| comment_beside(&options, &format!("{UNSHARED}{text}")))
}

/// The `AdminComment` of a job with these options.
#[must_use]
pub fn comment_of(options: &VmOptions) -> String {
    format!("{COMMENT_PREFIX} {options}")
}

/// An `AdminComment` that tells something beside a job's options.
#[must_use]
pub fn comment_beside(options: &VmOptions, text: &str) -> String {
    match options.is_empty() {
        true => text.to_owned(),
        false => format!("{COMMENT_PREFIX} {options}; {text}"),
    }
}

/// What a job asks of its VMs beside Slurm's resources.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VmOptions {
    /// Another template than the nodeset's.
    pub template: Option<String>,
    /// Another image for the first disc than the template's.
    pub image: Option<String>,
    /// Another share of a core for each vCPU than the nodeset's, in percent.
    pub share_percent: Option<u32>,
    /// Whether its VMs stay for a while when it fails.
    pub keep_on_failure: bool,
}

/// What a rule allows whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OptionRule {
    /// For jobs in this partition; none: in any.
    pub partition: Option<String>,
    /// For jobs of this account; none: of any.
    pub account: Option<String>,
    /// For jobs of this user; none: of any.
    pub user: Option<String>,
    /// Templates that may be named.
    pub templates: Vec<String>,
    /// Images that may be named.
    pub images: Vec<String>,
    /// Shares that may be asked for, in percent: least and most.
    pub share: Option<(u32, u32)>,
    /// Whether VMs may be kept after a failure.
    pub keep_on_failure: bool,
}

/// Whose job it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker<'a> {
    pub partition: &'a str,
    /// Its account; empty without accounting.
    pub account: &'a str,
    pub user: &'a str,
}

/// Longest name of a template or an image, in bytes.
const MAX_NAME: usize = 128;

impl VmOptions {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads what [`fmt::Display`] writes.
    ///
    /// # Errors
    /// A sentence for the person who typed it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for word in text.split_ascii_whitespace() {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            if seen.contains(&key) {
                return Err(format!("{key} is there twice"));
            }
            seen.push(key);
            match key {
                "template" => options.template = Some(name(key, value)?),
                "image" => options.image = Some(name(key, value)?),
                "share" => {
                    let share = value.parse().ok().filter(|share| (1..=100).contains(share));
                    let wrong = || format!("share={value} is not a percentage from 1 to 100");
                    options.share_percent = Some(share.ok_or_else(wrong)?);
                }
                "keep-on-failure" if !word.contains('=') => options.keep_on_failure = true,
                _ => {
                    return Err(format!(
                        "{word:?} is not an option for VMs: there are template=NAME, image=NAME, share=PERCENT and keep-on-failure"
                    ));
                }
            }
        }
        Ok(options)
    }

    /// Reads the options out of a job's `AdminComment`; none in any other comment.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn from_comment(comment: &str) -> Result<Self, String> {
        match comment.strip_prefix(COMMENT_PREFIX) {
            // What we add for people comes behind a semicolon.
            Some(rest) => Self::parse(rest.split(';').next().unwrap_or_default()),
            None => Ok(Self::default()),
        }
    }

    /// Whether the rules let this asker have these options: all of them by one rule.
    ///
    /// # Errors
    /// What is not allowed, and what would be.
    pub fn check(&self, rules: &[OptionRule], asker: Asker<'_>) -> Result<(), String> {
        if self.is_empty() {
            return Ok(());
        }
        let applying: Vec<&OptionRule> = rules.iter().filter(|rule| rule.applies(asker)).collect();
        if applying.is_empty() {
            return Err(format!(
                "no rule ([[vm_options]] in thiao.toml) gives {asker} any option for VMs: ask your administrator, or leave {self} out"
            ));
        }
        let mut why = String::new();
        for rule in applying {
            match self.allowed_by(rule) {
                Ok(()) => return Ok(()),
                Err(refusal) => why = refusal,
            }
        }
        Err(format!("{why} for {asker}"))
    }

    fn allowed_by(&self, rule: &OptionRule) -> Result<(), String> {
        listed("template", self.template.as_deref(), &rule.templates)?;
        listed("image", self.image.as_deref(), &rule.images)?;
        match (self.share_percent, rule.share) {
            (Some(share), Some((least, most))) if !(least..=most).contains(&share) => {
                return Err(format!("share={share} is not allowed, only {least} to {most}"));
            }
            (Some(share), None) => return Err(format!("share={share} is not allowed, nor any other")),
            (Some(_), Some(_)) | (None, _) => {}
        }
        if self.keep_on_failure && !rule.keep_on_failure {
            return Err("keep-on-failure is not allowed".to_owned());
        }
        Ok(())
    }
}

fn listed(what: &str, asked: Option<&str>, allowed: &[String]) -> Result<(), String> {
    let Some(asked) = asked else { return Ok(()) };
    if allowed.iter().any(|name| name == asked) {
        return Ok(());
    }
    Err(match allowed {
        [] => format!("{what}={asked} is not allowed, nor any other"),
        some => format!("{what}={asked} is not allowed, only {}", some.join(", ")),
    })
}

impl OptionRule {
    fn applies(&self, asker: Asker<'_>) -> bool {
        let is = |wanted: &Option<String>, it: &str| wanted.as_deref().is_none_or(|wanted| wanted == it);
        is(&self.partition, asker.partition) && is(&self.account, asker.account) && is(&self.user, asker.user)
    }
}

impl fmt::Display for Asker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {} in partition {}", self.user, self.partition)?;
        if !self.account.is_empty() {
            write!(f, " with account {}", self.account)?;
        }
        Ok(())
    }
}

impl fmt::Display for VmOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            self.template.as_ref().map(|name| format!("template={name}")),
            self.image.as_ref().map(|name| format!("image={name}")),
            self.share_percent.map(|share| format!("share={share}")),
            self.keep_on_failure.then(|| "keep-on-failure".to_owned()),
        ];
        f.write_str(&words.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

/// A name that needs no quoting anywhere.
fn name(key: &str, value: &str) -> Result<String, String> {
    let good = (1..=MAX_NAME).contains(&value.len())
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if good {
        Ok(value.to_owned())
    } else {
        Err(format!(
            "{key}={value}: use 1 to {MAX_NAME} of letters, digits, '.', '_' and '-'"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ADA: Asker<'_> = Asker {
        partition: "jobs",
        account: "",
        user: "ada",
    };

    #[test]
    fn a_job_is_told_of_its_folder_once_and_nobody_elses_words_are_lost() {
        let first = unshared_comment(None, "lost").unwrap();
        assert_eq!(first, "thiao: note: lost");
        assert_eq!(unshared_comment(Some(&first), "lost"), None);
        let beside = unshared_comment(Some("vm: share=50"), "lost").unwrap();
        assert_eq!(beside, "vm: share=50; thiao: note: lost");
        assert_eq!(unshared_comment(Some(&beside), "lost"), None);
        assert_eq!(VmOptions::from_comment(&beside).unwrap().to_string(), "share=50");
        let back = put_back_comment(&VmOptions::default(), "no capacity");
        assert!(unshared_comment(Some(&back), "lost").is_some());
        assert_eq!(unshared_comment(Some("ask Eve first"), "lost"), None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let all = VmOptions {
            template: Some("gpu-12".into()),
            image: Some("debian_12".into()),
            share_percent: Some(50),
            keep_on_failure: true,
        };
        assert_eq!(VmOptions::parse(&all.to_string()), Ok(all.clone()));
        assert_eq!(
            VmOptions::from_comment(&format!("vm: {all}; no capacity")),
            Ok(all)
        );
        assert_eq!(
            VmOptions::from_comment("share=3, as ever"),
            Ok(VmOptions::default())
        );
    }

    #[test]
    fn a_job_that_was_put_back_keeps_its_options() {
        let some = VmOptions::parse("share=50").unwrap();
        let comment = put_back_comment(&some, "no capacity; sorry");
        assert_eq!(VmOptions::from_comment(&comment), Ok(some));
        let none = put_back_comment(&VmOptions::default(), "no capacity");
        assert_eq!(VmOptions::from_comment(&none), Ok(VmOptions::default()));
        assert_eq!(put_back_reason(&comment), Some("no capacity; sorry"));
        assert_eq!(put_back_reason(&none), Some("no capacity"));
        assert_eq!(put_back_reason("vm: share=50"), None);
    }

    #[test]
    fn nonsense_is_refused_with_what_there_is() {
        for bad in [
            "share=0",
            "share=101",
            "share=",
            "share",
            "template=",
            "template=a/b",
            "keep-on-failure=no",
            "x",
            "share=1 share=2",
            "image=$(x)",
        ] {
            assert!(VmOptions::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rules_limit_by_partition_account_and_user() {
        let rule = OptionRule {
            partition: Some("jobs".into()),
            user: Some("ada".into()),
            share: Some((25, 100)),
            templates: vec!["small".into()],
            ..OptionRule::default()
        };
        let asks = |text: &str, asker| {
            VmOptions::parse(text)
                .unwrap()
                .check(std::slice::from_ref(&rule), asker)
        };
        assert_eq!(asks("share=50 template=small", ADA), Ok(()));
        assert_eq!(
            asks("share=10", ADA).unwrap_err(),
            "share=10 is not allowed, only 25 to 100 for user ada in partition jobs"
        );
        assert!(asks("template=big", ADA).unwrap_err().contains("only small"));
        assert!(asks("image=x", ADA).unwrap_err().contains("nor any other"));
        assert!(asks("keep-on-failure", ADA).is_err());
        let bob = Asker { user: "bob", ..ADA };
        assert!(asks("share=50", bob).unwrap_err().contains("no rule"));
        assert_eq!(asks("", bob), Ok(()));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            if let Ok(options) = VmOptions::parse(&text) {
                prop_assert_eq!(VmOptions::parse(&options.to_string()), Ok(options));
            }
        }
    }
}
