//! Asks a person at the terminal: one line per question, each with a default.

use std::io::{self, BufRead, IsTerminal as _, Write};
use thiao_cli::output::Printer;

/// Who is asked, if anybody.
pub(super) enum Asker<'a> {
    /// Nobody: only what was typed and what is sure counts. What lacks is kept.
    Nobody { missing: Vec<String> },
    /// A person at a terminal.
    Person {
        input: &'a mut dyn BufRead,
        output: &'a mut dyn Write,
    },
}

/// What is wanted of a person or an option.
pub(super) struct Question<'q> {
    /// The option that gives it, for those who are not asked.
    pub(super) flag: &'static str,
    pub(super) text: &'static str,
    /// What was typed as an option.
    pub(super) given: Option<String>,
    /// What is proposed in its place.
    pub(super) default: Option<String>,
    /// Whether that may be taken without asking.
    pub(super) sure: bool,
    /// Why an answer will not do.
    pub(super) check: &'q dyn Fn(&str) -> Result<(), String>,
}

impl<'a> Asker<'a> {
    pub(super) fn nobody() -> Self {
        Self::Nobody { missing: Vec::new() }
    }

    pub(super) fn person(input: &'a mut dyn BufRead, output: &'a mut dyn Write) -> Self {
        Self::Person { input, output }
    }

    /// Tells a person something, on a line of its own.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        match self {
            Self::Nobody { .. } => Ok(()),
            Self::Person { output, .. } => writeln!(output, "{text}"),
        }
    }

    /// The answer; `None` when nobody is there to give it.
    pub(super) fn ask(&mut self, question: Question<'_>) -> io::Result<Option<String>> {
        let Question {
            flag,
            text,
            given,
            default,
            sure,
            check,
        } = question;
        if given.is_some() {
            return Ok(given);
        }
        let (input, output) = match self {
            Self::Nobody { missing } => {
                let taken = default.filter(|_| sure);
                if taken.is_none() {
                    missing.push(flag.to_owned());
                }
                return Ok(taken);
            }
            Self::Person { input, output } => (input, output),
        };
        loop {
            match &default {
                Some(default) => write!(output, "{text} [{default}]: ")?,
                None => write!(output, "{text}: ")?,
            }
            output.flush()?;
            let mut line = String::new();
            if input.read_line(&mut line)? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the input ended before the last question; nothing was written",
                ));
            }
            let answer = match (line.trim(), &default) {
                ("", Some(default)) => default.clone(),
                (answer, _) => answer.to_owned(),
            };
            match check(&answer) {
                Ok(()) => return Ok(Some(answer)),
                Err(why) => writeln!(output, "  {why}")?,
            }
        }
    }
}

/// Calls `then` with the person at the terminal, or with nobody.
pub(super) fn with_somebody<T>(
    printer: Printer,
    then: impl FnOnce(&mut Asker<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    if !io::stdin().is_terminal() || !printer.terminal {
        return then(&mut Asker::nobody());
    }
    let (mut input, mut output) = (io::stdin().lock(), io::stdout());
    then(&mut Asker::person(&mut input, &mut output))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<(), String> {
        text.parse::<u32>().map(drop).map_err(|e| e.to_string())
    }

    fn question(given: Option<&str>, sure: bool) -> Question<'static> {
        Question {
            flag: "--cpus",
            text: "CPUs of each node",
            given: given.map(str::to_owned),
            default: Some("2".to_owned()),
            sure,
            check: &number,
        }
    }

    #[test]
    fn people_are_asked_until_the_answer_will_do() {
        let (mut input, mut output) = (&b"many\n 4 \n\n"[..], Vec::new());
        let mut asker = Asker::person(&mut input, &mut output);
        assert_eq!(
            asker.ask(question(Some("8"), false)).unwrap().as_deref(),
            Some("8")
        );
        assert_eq!(asker.ask(question(None, true)).unwrap().as_deref(), Some("4"));
        assert_eq!(asker.ask(question(None, false)).unwrap().as_deref(), Some("2"));
        let ended = asker.ask(question(None, true)).unwrap_err();
        assert!(ended.to_string().contains("nothing was written"));
        let shown = String::from_utf8(output).unwrap();
        assert_eq!(shown.matches("CPUs of each node [2]: ").count(), 4, "{shown}");
        assert!(shown.contains("  invalid digit"), "{shown}");
    }

    #[test]
    fn nobody_is_asked_for_what_is_sure() {
        let mut asker = Asker::nobody();
        assert_eq!(asker.ask(question(None, true)).unwrap().as_deref(), Some("2"));
        assert_eq!(asker.ask(question(None, false)).unwrap(), None);
        assert!(matches!(&asker, Asker::Nobody { missing } if missing == &["--cpus"]));
    }
}
