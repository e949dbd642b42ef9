//! What goes wrong on demand.

use std::time::Duration;

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is executed after this while.
    Slow(Duration),
    /// It is refused with this code and text, and not executed.
    Refuse(i32, String),
    /// It is executed, and the connection closes without an answer.
    LoseAnswer,
    /// It is executed, and the answer ends in the middle.
    CutAnswer,
    /// It is not executed: the connection closes.
    Drop,
    /// It is not executed; the answer is this status and page.
    Page(u16, &'static str, String),
    /// It is not executed; the answer is so many bytes of text that never close.
    Huge(usize),
    /// It is not executed; the answer declares entities that grow without bound.
    EntityBomb,
}

/// Which calls, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The method; none: all.
    pub method: Option<String>,
    pub fault: Fault,
    /// To the next so many calls; none: until it is taken away.
    pub times: Option<u32>,
}

impl Rule {
    /// The next call of that method.
    pub fn once(method: &str, fault: Fault) -> Self {
        Rule {
            method: Some(method.into()),
            fault,
            times: Some(1),
        }
    }

    /// All calls of that method from now on.
    pub fn always(method: &str, fault: Fault) -> Self {
        Rule {
            method: Some(method.into()),
            fault,
            times: None,
        }
    }

    /// All calls from now on.
    pub fn all(fault: Fault) -> Self {
        Rule {
            method: None,
            fault,
            times: None,
        }
    }
}

/// The rules in force.
#[derive(Debug, Default)]
pub struct Faults(pub Vec<Rule>);

impl Faults {
    /// What happens to this call: every delay, and the first other fault.
    pub fn take(&mut self, method: &str) -> (Duration, Option<Fault>) {
        let mut delay = Duration::ZERO;
        let mut found = None;
        for rule in &mut self.0 {
            if rule.method.as_deref().is_some_and(|name| name != method) || rule.times == Some(0) {
                continue;
            }
            match &rule.fault {
                Fault::Slow(more) => delay += *more,
                Fault::Refuse(..)
                | Fault::LoseAnswer
                | Fault::CutAnswer
                | Fault::Drop
                | Fault::Page(..)
                | Fault::Huge(_)
                | Fault::EntityBomb => {
                    if found.is_some() {
                        continue;
                    }
                    found = Some(rule.fault.clone());
                }
            }
            if let Some(times) = &mut rule.times {
                *times -= 1;
            }
        }
        self.0.retain(|rule| rule.times != Some(0));
        (delay, found)
    }
}

/// An answer whose entities would be gigabytes.
pub fn entity_bomb() -> String {
    let mut text = String::from("<?xml version=\"1.0\"?>\n<!DOCTYPE bomb [\n<!ENTITY a0 \"ha\">\n");
    for level in 1..30 {
        let below = format!("&a{};", level - 1).repeat(10);
        text.push_str(&format!("<!ENTITY a{level} \"{below}\">\n"));
    }
    text.push_str("]>\n<methodResponse><params><param><value><string>&a29;</string></value></param></params></methodResponse>");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_ends_after_its_times() {
        let mut faults = Faults(vec![
            Rule {
                method: None,
                fault: Fault::Slow(Duration::from_millis(5)),
                times: Some(2),
            },
            Rule::once("a", Fault::Drop),
        ]);
        assert_eq!(faults.take("b"), (Duration::from_millis(5), None));
        assert_eq!(faults.take("a"), (Duration::from_millis(5), Some(Fault::Drop)));
        assert_eq!(faults.take("a"), (Duration::ZERO, None));
        assert!(faults.0.is_empty());
    }
}
