//! `SCHED_REQUIREMENTS`: which hosts may take a VM, in OpenNebula's words.
//!
//! Read from its grammar (7.4, `src/parsers/expr_bool.y`): `&`, `|` bind alike, from left to right; `!` binds
//! what follows it; an attribute that a host does not have meets nothing, `!=` neither. Texts are patterns of a
//! shell's.

/// How deep brackets may be in each other.
const DEPTH: usize = 32;

/// Whether a host with these attributes meets the requirements; none: that cannot be told, since they name
/// other attributes, or are written in another way.
#[must_use]
pub fn meets(text: &str, attribute: &dyn Fn(&str) -> Option<String>) -> Option<bool> {
    let mut reader = Reader {
        rest: text,
        attribute,
    };
    if reader.peek().is_none() {
        return Some(true);
    }
    let met = reader.expression(0)?;
    reader.peek().is_none().then_some(met)?.known()
}

/// What is known of a condition.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Met {
    Yes,
    No,
    Unknown,
}

impl Met {
    fn known(self) -> Option<bool> {
        match self {
            Met::Yes => Some(true),
            Met::No => Some(false),
            Met::Unknown => None,
        }
    }

    fn not(self) -> Self {
        match self {
            Met::Yes => Met::No,
            Met::No => Met::Yes,
            Met::Unknown => Met::Unknown,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Met::No, _) | (_, Met::No) => Met::No,
            (Met::Yes, Met::Yes) => Met::Yes,
            (Met::Unknown, _) | (_, Met::Unknown) => Met::Unknown,
        }
    }

    fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }

    fn of(met: bool) -> Self {
        if met { Met::Yes } else { Met::No }
    }
}

/// Reads from the front; none: it is written in another way than we know.
struct Reader<'a> {
    rest: &'a str,
    attribute: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Reader<'a> {
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn eat(&mut self, sign: char) -> bool {
        let found = self.peek() == Some(sign);
        if found {
            self.rest = self.rest.get(sign.len_utf8()..).unwrap_or_default();
        }
        found
    }

    fn expression(&mut self, depth: usize) -> Option<Met> {
        let mut met = self.term(depth)?;
        loop {
            if self.eat('&') {
                met = met.and(self.term(depth)?);
            } else if self.eat('|') {
                met = met.or(self.term(depth)?);
            } else {
                return Some(met);
            }
        }
    }

    fn term(&mut self, depth: usize) -> Option<Met> {
        if depth > DEPTH {
            return None;
        }
        if self.eat('!') {
            return self.term(depth + 1).map(Met::not);
        }
        if self.eat('(') {
            let met = self.expression(depth + 1)?;
            return self.eat(')').then_some(met);
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Option<Met> {
        let name = self.word()?;
        let different = self.eat('!');
        let sign = match self.peek()? {
            '=' => '=',
            sign @ ('<' | '>' | '@') if !different => sign,
            _ => return None,
        };
        self.eat(sign);
        if sign == '@' && !self.eat('>') {
            return None;
        }
        let quoted = self.peek() == Some('"');
        let wanted = self.word()?;
        let Some(has) = (self.attribute)(name) else {
            return Some(Met::Unknown);
        };
        let met = match (sign, quoted) {
            ('=' | '@', true) => matches(wanted, &has) != different,
            (sign, false) => {
                let wanted: f64 = wanted.parse().ok()?;
                // A text is no number, and meets nothing.
                has.parse::<f64>().is_ok_and(|has| match sign {
                    '<' => has < wanted,
                    '>' => has > wanted,
                    _ => (has == wanted) != different,
                })
            }
            (_, true) => return None,
        };
        Some(Met::of(met))
    }

    /// A name, a number, or what is between quotes.
    fn word(&mut self) -> Option<&'a str> {
        self.peek()?;
        let quoted = self.rest.strip_prefix('"');
        let (word, rest) = match quoted {
            Some(inside) => inside.split_once('"')?,
            None => {
                let is_plain = |c: char| c.is_ascii_alphanumeric() || "_/.-".contains(c);
                let end = self.rest.find(|c| !is_plain(c)).unwrap_or(self.rest.len());
                self.rest.split_at(end)
            }
        };
        self.rest = rest;
        (quoted.is_some() || !word.is_empty()).then_some(word)
    }
}

/// `fnmatch` without flags: `*`, `?`, `[a-c]`, `[!a]`.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut pattern, mut text) = (pattern.as_slice(), text.as_slice());
    // Where to go on when the last star has to take one more.
    let mut star: Option<(&[char], &[char])> = None;
    loop {
        match (pattern, text) {
            (['*', rest @ ..], _) => {
                star = Some((rest, text));
                pattern = rest;
                continue;
            }
            ([], []) => return true,
            ([_, ..], [c, after @ ..]) => {
                if let Some(rest) = one(pattern, *c) {
                    (pattern, text) = (rest, after);
                    continue;
                }
            }
            ([], [_, ..]) | ([_, ..], []) => {}
        }
        match star {
            Some((rest, [_, after @ ..])) => {
                star = Some((rest, after));
                (pattern, text) = (rest, after);
            }
            Some((_, [])) | None => return false,
        }
    }
}

/// The pattern after its first part, if that takes the character.
fn one(pattern: &[char], c: char) -> Option<&[char]> {
    match pattern {
        ['?', rest @ ..] => Some(rest),
        ['[', class @ ..] => {
            let (negated, class) = match class {
                ['!' | '^', rest @ ..] => (true, rest),
                _ => (false, class),
            };
            // One that comes first is of the class.
            let end = 1 + class.iter().skip(1).position(|c| *c == ']')?;
            let (mut of, rest) = (class.get(..end)?, class.get(end + 1..)?);
            let mut taken = false;
            while let Some((first, others)) = of.split_first() {
                (taken, of) = match others {
                    ['-', last, others @ ..] => (taken || (*first..=*last).contains(&c), others),
                    _ => (taken || *first == c, others),
                };
            }
            (taken != negated).then_some(rest)
        }
        [first, rest @ ..] => (*first == c).then_some(rest),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn h12(name: &str) -> Option<String> {
        let known = [
            ("ID", "2"),
            ("NAME", "h12"),
            ("CLUSTER", "slurm"),
            ("CLUSTER_ID", "100"),
            ("HYPERVISOR", "kvm"),
        ];
        let found = known.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn simple_requirements_are_met_or_not() {
        for (text, met) in [
            ("", Some(true)),
            ("ID=2", Some(true)),
            ("ID = \"3\" | ID = \"2\"", Some(true)),
            ("ID != 2", Some(false)),
            ("NAME=\"h[12]*\" & CLUSTER_ID = 100", Some(true)),
            ("NAME=\"h?3\"", Some(false)),
            ("HYPERVISOR!=\"vcenter\"", Some(true)),
            ("!(CLUSTER = \"gpu\") & !ID > 2", Some(true)),
            // From left to right.
            ("ID=2 | ID=3 & ID=3", Some(false)),
            // Not all is known of a host here.
            ("FREE_CPU > 10", None),
            ("FREE_CPU > 10 & ID=3", Some(false)),
            ("HYPERVISOR=\"kvm\" & FREE_CPU > 10", None),
            ("GPU = \"yes\" | ID=2", Some(true)),
            // Nor how all can be written.
            ("ID=2 ID=3", None),
            ("ID=", None),
            ("(ID=2", None),
            ("ID = two", None),
            ("NAME < \"h12\"", None),
        ] {
            assert_eq!(meets(text, &h12), met, "{text}");
        }
        assert_eq!(meets(&"(".repeat(100_000), &h12), None);
    }

    #[test]
    fn patterns_are_a_shells() {
        for (pattern, text, met) in [
            ("a*c*e", "abcde", true),
            ("a*c", "abcd", false),
            ("[!a-c]x", "dx", true),
            ("[^a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[a", "a", false),
            ("**", "", true),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern, text), met, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_not_known(text in "[A-C0-9 =!&|()<>@\"*\\[\\]?-]{0,40}") {
            let _ = meets(&text, &h12);
        }

        #[test]
        fn a_name_meets_itself_and_its_begin(name in "[a-z0-9-]{1,12}", cut in 0usize..12) {
            let has = |_: &str| Some(name.clone());
            let wanted = format!("NAME = \"{name}\"");
            prop_assert_eq!(meets(&wanted, &has), Some(true));
            let negated = format!("!({wanted})");
            prop_assert_eq!(meets(&negated, &has), Some(false));
            let begin = format!("NAME = \"{}*\"", &name[..cut.min(name.len())]);
            prop_assert_eq!(meets(&begin, &has), Some(true));
        }
    }
}
