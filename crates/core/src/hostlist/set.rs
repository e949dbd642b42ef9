//! Looking names up in a hostlist without expanding it.

use super::{HostlistError, Limits, Numbered, Part, Problem, Range, Term, parse};
use crate::ids::NodeName;

/// The most names that are kept one by one although brackets stand for them.
const MAX_EXPANDED: u64 = 65_536;

/// The names of a hostlist, to be asked for one by one. What it takes grows
/// with the text of the list, not with its names. But for lists that [`fold`]
/// would not write: names of several brackets, or with a digit before one, are
/// expanded, and may be 65,536.
///
/// [`fold`]: super::fold
#[derive(Debug, Clone)]
pub struct NameSet {
    /// Sorted, none overlapping another.
    spans: Vec<Span>,
    /// All other names, sorted.
    others: Vec<NodeName>,
    /// How many of the others stood in brackets.
    expanded: u64,
}

/// Names that differ in the last number alone, all of one length.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    text: String,
    digits: usize,
    low: u64,
    high: u64,
}

impl NameSet {
    /// Reads the list.
    ///
    /// # Errors
    /// The place and the reason, when it is malformed or over a limit.
    pub fn parse(list: impl AsRef<[u8]>, limits: Limits) -> Result<Self, HostlistError> {
        let (terms, _) = parse(list.as_ref(), limits)?;
        let mut set = Self {
            spans: Vec::new(),
            others: Vec::new(),
            expanded: 0,
        };
        for term in &terms {
            set.add(term)?;
        }
        set.others.sort_unstable();
        set.spans.sort_unstable();
        set.spans.dedup_by(|next, last| {
            let joins = (&next.text, next.digits) == (&last.text, last.digits) && next.low <= last.high;
            if joins {
                last.high = last.high.max(next.high);
            }
            joins
        });
        Ok(set)
    }

    fn add(&mut self, term: &Term<'_>) -> Result<(), HostlistError> {
        let ends_in_digit = |text: &str| text.ends_with(|c: char| c.is_ascii_digit());
        match term.parts.as_slice() {
            [Part::Ranges(ranges)] => self.add_ranges("", ranges),
            [Part::Text(text), Part::Ranges(ranges)] if !ends_in_digit(text) => self.add_ranges(text, ranges),
            [Part::Text(name)] if !Numbered::new(name).digits.is_empty() => {
                let Numbered { text, digits, value } = Numbered::new(name);
                self.add_ranges(
                    text,
                    &[Range {
                        low: value,
                        high: value,
                        width: digits.len(),
                    }],
                );
            }
            [Part::Text(_)] => term.push_names(&mut self.others)?,
            _ => {
                let here = term.count().and_then(|here| self.expanded.checked_add(here));
                self.expanded = here.filter(|all| *all <= MAX_EXPANDED).ok_or(HostlistError {
                    at: term.at,
                    problem: Problem::TooMany(MAX_EXPANDED),
                })?;
                term.push_names(&mut self.others)?;
            }
        }
        Ok(())
    }

    /// One span for each length that a range's numbers are written in.
    fn add_ranges(&mut self, text: &str, ranges: &[Range]) {
        for range in ranges {
            let mut low = range.low;
            while low <= range.high {
                let digits = range.width.max(length(low));
                // At most 18 digits: it fits.
                let high = range
                    .high
                    .min(10_u64.pow(u32::try_from(digits).unwrap_or(18)) - 1);
                self.spans.push(Span {
                    text: text.to_owned(),
                    digits,
                    low,
                    high,
                });
                low = high + 1;
            }
        }
    }

    /// Whether the list has this name.
    #[must_use]
    pub fn contains(&self, name: &NodeName) -> bool {
        let Numbered { text, digits, value } = Numbered::new(name.as_str());
        let key = (text, digits.len(), value);
        let after = self
            .spans
            .partition_point(|span| (span.text.as_str(), span.digits, span.low) <= key);
        let in_span = after
            .checked_sub(1)
            .and_then(|last| self.spans.get(last))
            .is_some_and(|span| {
                (span.text.as_str(), span.digits) == (text, digits.len()) && value <= span.high
            });
        in_span || self.others.binary_search(name).is_ok()
    }
}

/// Digits of a number.
fn length(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}
