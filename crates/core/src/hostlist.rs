//! Hostlists: many node names in one short expression, as Slurm writes and
//! reads them (`fg0,fg[3-5]`, `vm[001-010]`, `a[1-2]b[3-4]`).
//!
//! - [`expand`] gives the names in the order of `scontrol show hostnames`,
//!   duplicates kept. With several brackets in a name the last one runs
//!   fastest, then the first, the second and so on: Slurm's order.
//! - [`fold`] goes the other way, as `scontrol show hostlistsorted` does, but
//!   for a *set* of names: each once, the result independent of their order.
//! - [`count`] counts without expanding, [`NameSet`] looks names up without it.
//!
//! Grammar:
//! ```text
//! list   = name { "," name }
//! name   = { text | ranges }     text may not follow the last ranges
//! ranges = "[" range { "," range } "]"
//! range  = number [ "-" number ] the width of the first number pads with zeros
//! text   = letters, digits, ".", "_", "-"
//! ```
//! Every name of an accepted list is a valid [`NodeName`]. Nothing is expanded
//! before it is counted and found to be within [`Limits`], so that no short
//! text can take much memory.
//!
//! We refuse on purpose what Slurm 22.05 takes in a meaning nobody wants:
//! `a[1` (Slurm: the node `a]`), `a]`, `a[1-]` (`a1`), `a[+1]` and `a[ 1]`
//! (`a01`), a bracket in a bracket (`a[9[6]`: `a[96`), empty names (`a,,b`, a
//! comma at the end), blanks, an empty list, other characters in names, numbers
//! of more than 18 digits (Slurm: the largest number of 64 bits). Text after the last bracket (`a[1-2]b`) is
//! refused by 22.05 too; some later versions read it, none writes it.

mod set;

pub use set::NameSet;

use crate::ids::NodeName;
use std::cmp::Ordering;
use std::fmt::{self, Write as _};

/// The most that one expression may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Names in all, duplicates counted.
    pub names: u64,
    /// Bytes of the expression itself.
    pub bytes: usize,
}

impl Default for Limits {
    /// 65,536 names (what Slurm takes in one range) in at most 1 MiB of text.
    fn default() -> Self {
        Self {
            names: 65_536,
            bytes: 1 << 20,
        }
    }
}

/// The longest name, in bytes: that of [`NodeName`].
const MAX_NAME: usize = 63;

/// The most digits of a number that is counted with; so it always fits 64 bits.
const MAX_DIGITS: usize = 18;

/// Why a text is not a hostlist, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostlistError {
    /// The byte, from 0, at which the text stops making sense.
    pub at: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a hostlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Nothing where a name should be.
    NoName,
    /// A name starts with something else than a letter or digit.
    BadStart,
    /// A byte that no name has.
    BadByte(u8),
    /// A `[` without its `]`.
    Unclosed,
    /// A `]` without its `[`.
    Unopened,
    /// Something else where a number should be.
    NoNumber,
    /// Something else than `,`, `-` or `]` after a range's first number.
    AfterNumber,
    /// Something else than `,` or `]` after a range's last number.
    AfterRange,
    /// A range that goes backwards.
    Reversed,
    /// A number of too many digits.
    BigNumber,
    /// Text after the last bracket of a name.
    TextAfterBracket,
    /// Names of more than 63 bytes.
    LongName,
    /// More names than allowed, from this part of the list on.
    TooMany(u64),
    /// More text than allowed.
    TooLong(usize),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoName => f.write_str("expected a node name here"),
            Self::BadStart => f.write_str("a node name starts with a letter or a digit"),
            Self::BadByte(byte) if byte.is_ascii_whitespace() => {
                f.write_str("expected a comma between names, without blanks")
            }
            Self::BadByte(byte) => write!(
                f,
                "'{}' is in no node name; expected letters, digits, '.', '_', '-', or '[', ','",
                byte.escape_ascii()
            ),
            Self::Unclosed => f.write_str("this '[' is never closed; expected a ']' behind its numbers"),
            Self::Unopened => f.write_str("this ']' has no '[' before it"),
            Self::NoNumber => f.write_str("expected a number, as in [3], [0-7] or [0-3,7]"),
            Self::AfterNumber => {
                f.write_str("expected '-', ',' or ']' after the number (there are no steps)")
            }
            Self::AfterRange => f.write_str("expected ',' or ']' after the range (there are no steps)"),
            Self::Reversed => f.write_str("the range goes backwards; expected the smaller number first"),
            Self::BigNumber => write!(f, "the number is too long; expected at most {MAX_DIGITS} digits"),
            Self::TextAfterBracket => {
                f.write_str("text after a name's last bracket; expected ',', another '[', or the end")
            }
            Self::LongName => write!(f, "names longer than {MAX_NAME} bytes"),
            Self::TooMany(limit) => write!(f, "more than {limit} names; expected a shorter list"),
            Self::TooLong(limit) => write!(f, "more than {limit} bytes; expected a shorter list"),
        }
    }
}

impl fmt::Display for HostlistError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed hostlist at byte {}: {}", self.at, self.problem)
    }
}

impl std::error::Error for HostlistError {}

impl HostlistError {
    /// Two lines that show the place: the text (`expr`, as it was parsed) or
    /// the part of it around the error, and below it a caret.
    #[must_use]
    pub fn caret(&self, expr: impl AsRef<[u8]>) -> String {
        const AROUND: usize = 32;
        let expr = expr.as_ref();
        let at = self.at.min(expr.len());
        let from = at.saturating_sub(AROUND);
        let to = expr.len().min(at + AROUND);
        let dots = |cut| if cut { "..." } else { "" };
        let shown: String = expr[from..to]
            .iter()
            .map(|&b| {
                if b.is_ascii_graphic() || b == b' ' {
                    b as char
                } else {
                    '?'
                }
            })
            .collect();
        let before = dots(from > 0);
        format!(
            "{before}{shown}{}\n{:>2$}",
            dots(to < expr.len()),
            '^',
            before.len() + at - from + 1
        )
    }
}

/// All names of `expr`, in Slurm's order, duplicates kept; within the default
/// [`Limits`].
///
/// # Errors
/// The place and the reason, when it is malformed or over a limit.
pub fn expand(expr: impl AsRef<[u8]>) -> Result<Vec<NodeName>, HostlistError> {
    expand_within(expr, Limits::default())
}

/// [`expand`] with limits of one's own.
///
/// # Errors
/// The place and the reason, when it is malformed or over a limit.
pub fn expand_within(expr: impl AsRef<[u8]>, limits: Limits) -> Result<Vec<NodeName>, HostlistError> {
    let (terms, count) = parse(expr.as_ref(), limits)?;
    // An estimate only; `count` is within the limit here.
    let mut names = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    for term in &terms {
        term.push_names(&mut names)?;
    }
    Ok(names)
}

/// How many names [`expand`] would give, without a limit on them: nothing is expanded.
///
/// # Errors
/// The place and the reason, when it is malformed, or has more names than fit 64 bits.
pub fn count(expr: impl AsRef<[u8]>) -> Result<u64, HostlistError> {
    parse(
        expr.as_ref(),
        Limits {
            names: u64::MAX,
            ..Limits::default()
        },
    )
    .map(|(_, count)| count)
}

/// The shortest list that Slurm would write for the set of these names:
/// sorted, each once. The empty text for no names.
///
/// Names are ordered by their text before the last number, numbers inside it
/// by value; then by the length of the last number, then by its value. So
/// `a9`, `a10` and `a08` give `a[9,08-10]`.
#[must_use]
pub fn fold<'a>(names: impl IntoIterator<Item = &'a NodeName>) -> String {
    let mut names: Vec<Numbered<'_>> = names
        .into_iter()
        .map(|name| Numbered::new(name.as_str()))
        .collect();
    names.sort_unstable_by(Numbered::order);
    names.dedup();

    let mut list = String::new();
    for group in names.chunk_by(|a, b| !a.digits.is_empty() && !b.digits.is_empty() && a.text == b.text) {
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(group[0].text);
        if let [one] = group {
            list.push_str(one.digits);
            continue;
        }
        let mut separator = '[';
        let mut rest = group;
        while let Some(first) = rest.first() {
            let run = 1 + rest
                .windows(2)
                .take_while(|pair| first.goes_on(pair[0], pair[1]))
                .count();
            list.push(separator);
            list.push_str(first.digits);
            if run > 1 {
                list.push('-');
                list.push_str(rest[run - 1].digits);
            }
            separator = ',';
            rest = &rest[run..];
        }
        list.push(']');
    }
    list
}

/// A name cut before the number at its end.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Numbered<'a> {
    text: &'a str,
    /// Empty if there is no number, or one too long to count with.
    digits: &'a str,
    value: u64,
}

impl<'a> Numbered<'a> {
    fn new(name: &'a str) -> Self {
        let text = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = &name[text.len()..];
        match digits.parse() {
            Ok(value) if digits.len() <= MAX_DIGITS => Self { text, digits, value },
            _ => Self {
                text: name,
                digits: "",
                value: 0,
            },
        }
    }

    fn order(&self, other: &Self) -> Ordering {
        // Of one text, mostly: then there is nothing to read byte by byte.
        let texts = match self.text == other.text {
            true => Ordering::Equal,
            false => natural(self.text.as_bytes(), other.text.as_bytes()),
        };
        texts
            .then(self.digits.len().cmp(&other.digits.len()))
            .then(self.value.cmp(&other.value))
    }

    /// Whether the range that starts at `self` and has come to `last` can take
    /// `next` too: the next number, and written as the range would write it.
    fn goes_on(&self, last: Self, next: Self) -> bool {
        next.value == last.value + 1
            && (next.digits.len() == self.digits.len() || !next.digits.starts_with('0'))
    }
}

/// Text order, but runs of digits by value; where one of them has a leading
/// zero, digit by digit. This is the order of Slurm's `strnatcmp`; equal only
/// for equal texts.
fn natural(mut a: &[u8], mut b: &[u8]) -> Ordering {
    loop {
        let run = |s: &[u8]| s.iter().take_while(|b| b.is_ascii_digit()).count();
        let (in_a, in_b) = (run(a), run(b));
        let (step, order) = if in_a > 0 && in_b > 0 {
            let by_length = if a[0] == b'0' || b[0] == b'0' {
                Ordering::Equal
            } else {
                in_a.cmp(&in_b)
            };
            (in_a, by_length.then_with(|| a[..in_a].cmp(&b[..in_b])))
        } else if a.is_empty() && b.is_empty() {
            return Ordering::Equal;
        } else {
            (1, a.first().cmp(&b.first()))
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (&a[step..], &b[step..]);
    }
}

/// One name of a list, with its brackets.
struct Term<'a> {
    at: usize,
    parts: Vec<Part<'a>>,
}

enum Part<'a> {
    Text(&'a str),
    Ranges(Vec<Range>),
}

#[derive(Clone, Copy)]
struct Range {
    low: u64,
    high: u64,
    /// Digits that numbers are padded to with zeros.
    width: usize,
}

impl Range {
    fn count(self) -> u64 {
        // No overflow: a number has at most 18 digits.
        self.high - self.low + 1
    }

    fn longest(self) -> usize {
        self.width
            .max(self.high.checked_ilog10().unwrap_or(0) as usize + 1)
    }
}

impl Term<'_> {
    /// The number of names; `None` if it does not fit.
    fn count(&self) -> Option<u64> {
        self.parts.iter().try_fold(1_u64, |count, part| match part {
            Part::Text(_) => Some(count),
            Part::Ranges(ranges) => {
                let here = ranges
                    .iter()
                    .try_fold(0_u64, |sum, range| sum.checked_add(range.count()))?;
                count.checked_mul(here)
            }
        })
    }

    /// Length of the longest name.
    fn longest(&self) -> usize {
        let longest = |part: &Part<'_>| match part {
            Part::Text(text) => text.len(),
            Part::Ranges(ranges) => ranges.iter().map(|range| range.longest()).max().unwrap_or(0),
        };
        self.parts.iter().map(longest).sum()
    }

    fn push_names(&self, names: &mut Vec<NodeName>) -> Result<(), HostlistError> {
        // Slowest first: the last bracket but one down to the first, then the last.
        let brackets = self
            .parts
            .iter()
            .enumerate()
            .filter(|(_, part)| matches!(part, Part::Ranges(_)));
        let mut order: Vec<usize> = brackets.map(|(index, _)| index).rev().collect();
        if !order.is_empty() {
            order.rotate_left(1);
        }
        let mut chosen = vec![(0, 0); self.parts.len()];
        self.choose(&order, &mut chosen, &mut String::new(), names)
    }

    /// Tries all numbers for the parts in `order`, given those `chosen` for the others.
    fn choose(
        &self,
        order: &[usize],
        chosen: &mut [(u64, usize)],
        name: &mut String,
        names: &mut Vec<NodeName>,
    ) -> Result<(), HostlistError> {
        if let [first, rest @ ..] = order {
            if let Part::Ranges(ranges) = &self.parts[*first] {
                for range in ranges {
                    for number in range.low..=range.high {
                        chosen[*first] = (number, range.width);
                        self.choose(rest, chosen, name, names)?;
                    }
                }
            }
            return Ok(());
        }
        name.clear();
        for (part, (number, width)) in self.parts.iter().zip(chosen.iter()) {
            match part {
                Part::Text(text) => name.push_str(text),
                // Writing to a string does not fail.
                Part::Ranges(_) => _ = write!(name, "{number:0width$}"),
            }
        }
        // Checked while parsing; said again rather than taken for granted.
        let name = NodeName::new(name).map_err(|_| HostlistError {
            at: self.at,
            problem: Problem::BadStart,
        })?;
        names.push(name);
        Ok(())
    }
}

/// The list's names and their number in all.
fn parse(expr: &[u8], limits: Limits) -> Result<(Vec<Term<'_>>, u64), HostlistError> {
    if expr.len() > limits.bytes {
        return Err(HostlistError {
            at: limits.bytes,
            problem: Problem::TooLong(limits.bytes),
        });
    }
    let mut parser = Parser { expr, at: 0 };
    let mut terms = Vec::new();
    let mut count = 0_u64;
    loop {
        let term = parser.term()?;
        count = term
            .count()
            .and_then(|here| count.checked_add(here))
            .filter(|&count| count <= limits.names)
            .ok_or(HostlistError {
                at: term.at,
                problem: Problem::TooMany(limits.names),
            })?;
        terms.push(term);
        if parser.peek().is_none() {
            return Ok((terms, count));
        }
        // A term ends at a comma or at the end.
        parser.at += 1;
    }
}

struct Parser<'a> {
    expr: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.expr.get(self.at).copied()
    }

    fn error<T>(&self, at: usize, problem: Problem) -> Result<T, HostlistError> {
        Err(HostlistError { at, problem })
    }

    /// Takes bytes as long as they fit. They must all be ASCII.
    fn take(&mut self, fits: impl Fn(u8) -> bool) -> &'a str {
        let rest = &self.expr[self.at..];
        let taken = &rest[..rest.iter().take_while(|&&byte| fits(byte)).count()];
        self.at += taken.len();
        std::str::from_utf8(taken).unwrap_or_default()
    }

    fn term(&mut self) -> Result<Term<'a>, HostlistError> {
        let at = self.at;
        let mut parts = Vec::new();
        let mut text_at = at;
        loop {
            match self.peek() {
                None | Some(b',') => break,
                Some(b'[') => parts.push(Part::Ranges(self.ranges()?)),
                Some(b']') => return self.error(self.at, Problem::Unopened),
                Some(byte) if is_name_byte(byte) => {
                    text_at = self.at;
                    parts.push(Part::Text(self.take(is_name_byte)));
                }
                Some(byte) => return self.error(self.at, Problem::BadByte(byte)),
            }
        }
        match parts.as_slice() {
            [] => return self.error(at, Problem::NoName),
            [Part::Text(text), ..] if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) => {
                return self.error(at, Problem::BadStart);
            }
            [_, .., Part::Text(_)] => return self.error(text_at, Problem::TextAfterBracket),
            _ => {}
        }
        let term = Term { at, parts };
        if term.longest() > MAX_NAME {
            return self.error(at, Problem::LongName);
        }
        Ok(term)
    }

    /// From the `[` to behind the `]`.
    fn ranges(&mut self) -> Result<Vec<Range>, HostlistError> {
        let open = self.at;
        let mut ranges = Vec::new();
        loop {
            // Over the '[' or ','.
            self.at += 1;
            ranges.push(self.range(open)?);
            match self.peek() {
                Some(b',') => {}
                Some(b']') => break,
                None => return self.error(open, Problem::Unclosed),
                Some(_) => return self.error(self.at, Problem::AfterRange),
            }
        }
        self.at += 1;
        Ok(ranges)
    }

    fn range(&mut self, open: usize) -> Result<Range, HostlistError> {
        let (low, width) = self.number(open)?;
        let high = match self.peek() {
            Some(b'-') => {
                self.at += 1;
                let at = self.at;
                let (high, _) = self.number(open)?;
                if high < low {
                    return self.error(at, Problem::Reversed);
                }
                high
            }
            Some(b',' | b']') | None => low,
            Some(_) => return self.error(self.at, Problem::AfterNumber),
        };
        Ok(Range { low, high, width })
    }

    /// A number's value and its digits.
    fn number(&mut self, open: usize) -> Result<(u64, usize), HostlistError> {
        let at = self.at;
        let digits = self.take(|byte| byte.is_ascii_digit());
        if digits.is_empty() {
            return match self.peek() {
                None => self.error(open, Problem::Unclosed),
                Some(_) => self.error(at, Problem::NoNumber),
            };
        }
        match digits.parse() {
            Ok(value) if digits.len() <= MAX_DIGITS => Ok((value, digits.len())),
            _ => self.error(at, Problem::BigNumber),
        }
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests;
