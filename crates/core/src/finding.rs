//! What a check has to say to people: what was looked at, how it stands, and what mends it.

/// How something that was checked stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could, or it could not be told.
    Warn,
    /// It does not work.
    Bad,
}

impl Verdict {
    /// Its word, for programs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// What a person does about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// Type this command line.
    Run(String),
    /// Do what this sentence says.
    Advice(String),
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, e.g. `network vms` or `node fg[0-3]`.
    pub what: String,
    pub verdict: Verdict,
    /// How and why, in a sentence.
    pub text: String,
    /// What mends it, if something is to be mended.
    pub remedy: Option<Remedy>,
    /// Whether it is only that the person who asks was not let see it.
    pub denied: bool,
}

impl Finding {
    /// It is as it should be.
    pub fn ok(what: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(what, Verdict::Ok, text)
    }

    /// Somebody may want to look at it.
    pub fn warn(what: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(what, Verdict::Warn, text)
    }

    /// It does not work.
    pub fn bad(what: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(what, Verdict::Bad, text)
    }

    /// A finding with this verdict, and without a remedy.
    pub fn new(what: impl Into<String>, verdict: Verdict, text: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            verdict,
            text: text.into(),
            remedy: None,
            denied: false,
        }
    }

    /// And this command mends it.
    #[must_use]
    pub fn run(self, command: impl Into<String>) -> Self {
        Self {
            remedy: Some(Remedy::Run(command.into())),
            ..self
        }
    }

    /// Unless the person who asks was not let see it.
    #[must_use]
    pub fn unless_denied(self, denied: bool) -> Self {
        Self { denied, ..self }
    }

    /// And this mends it.
    #[must_use]
    pub fn advice(self, sentence: impl Into<String>) -> Self {
        Self {
            remedy: Some(Remedy::Advice(sentence.into())),
            ..self
        }
    }
}

/// The worst verdict of all; nothing found is nothing wrong.
#[must_use]
pub fn worst<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Verdict {
    findings
        .into_iter()
        .map(|finding| finding.verdict)
        .max()
        .unwrap_or(Verdict::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_counts() {
        let found = [
            Finding::ok("a", ""),
            Finding::bad("b", "").run("x"),
            Finding::warn("c", ""),
        ];
        assert_eq!(worst(&found), Verdict::Bad);
        assert_eq!(worst(&found[..1]), Verdict::Ok);
        assert_eq!(worst([]), Verdict::Ok);
        assert_eq!(found[1].remedy, Some(Remedy::Run("x".to_owned())));
    }
}
