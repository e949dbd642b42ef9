//! One table under examination: its keys are taken one by one, by their kind.

use super::{Origin, Reader, Shown, join};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use thiao_core::ids::Millis;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One table of the file, or the place where it could be.
pub struct Section<'r, 't> {
    reader: &'r Reader,
    path: String,
    table: Option<&'r DeTable<'t>>,
    /// The line of its head.
    pub line: usize,
}

impl Reader {
    /// The table of the whole file.
    pub fn root<'r, 't>(&'r self, table: &'r DeTable<'t>) -> Section<'r, 't> {
        Section {
            reader: self,
            path: String::new(),
            table: Some(table),
            line: 0,
        }
    }
}

impl<'r, 't> Section<'r, 't> {
    /// Notes that something is wrong with a key of this table.
    pub fn problem(&self, key: &str, message: impl Into<String>) {
        self.reader
            .problem(self.line_of(key), join(&self.path, key), message);
    }

    /// The line of a key, or of the table when it is not written.
    pub fn line_of(&self, key: &str) -> usize {
        match self.table.and_then(|t| t.get_key_value(key)) {
            Some((key, _)) => self.reader.line(key.span().start),
            None => self.line,
        }
    }

    /// Whether the key is written.
    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|t| t.contains_key(key))
    }

    /// The name by which a key is to be taken that has another one now: the old one where only that is written.
    pub fn renamed(&self, key: &'static str, old: &'static str) -> &'static str {
        if self.has(old) {
            if !self.has(key) {
                return old;
            }
            // Known, so that it is not called unknown as well.
            self.value(old);
            self.problem(old, format!("is the old name of {key}: remove one of them"));
        }
        key
    }

    fn value(&self, key: &'static str) -> Option<&'r Spanned<DeValue<'t>>> {
        let mut known = self.reader.known.borrow_mut();
        if !known
            .iter()
            .any(|(section, k)| *section == self.path && *k == key)
        {
            known.push((self.path.clone(), key));
        }
        self.table.and_then(|t| t.get(key))
    }

    fn show(&self, key: impl Into<Cow<'static, str>>, value: Option<String>) {
        let key = key.into();
        let origin = if self.has(&key) {
            Origin::Line(self.line_of(&key))
        } else {
            Origin::Default
        };
        self.reader
            .shown
            .borrow_mut()
            .push(Shown::Key { key, value, origin });
    }

    /// Notes that the default of the key that was taken last is this variable's value.
    pub fn default_is_from(&self, variable: &'static str) {
        if let Some(Shown::Key {
            origin: origin @ Origin::Default,
            ..
        }) = self.reader.shown.borrow_mut().last_mut()
        {
            *origin = Origin::Environment(variable);
        }
    }

    /// Says why a key that is known elsewhere, or under other circumstances, may not be here.
    pub fn refuse(&self, key: &'static str, why: impl Into<String>) {
        if self.has(key) {
            self.reader.refused.borrow_mut().push((self.path.clone(), key));
            self.problem(key, why);
        }
    }

    /// Takes a key: `read` says what was wanted when the value is of another kind.
    fn take<T>(&self, key: &'static str, read: impl FnOnce(&DeValue<'t>) -> Result<T, String>) -> Option<T> {
        let value = self.value(key)?;
        match read(value.get_ref()) {
            Ok(value) => Some(value),
            Err(wanted) => {
                self.problem(key, format!("{} {wanted}", excerpt(value.get_ref())));
                None
            }
        }
    }

    /// A whole number within a range.
    pub fn number<N>(&self, key: &'static str, default: N, range: RangeInclusive<N>) -> N
    where
        N: Copy + Display + PartialOrd + TryFrom<u64>,
    {
        let number = self
            .take(key, |v| {
                let number = match v {
                    DeValue::Integer(i) => u64::from_str_radix(i.as_str(), i.radix()).ok(),
                    _ => None,
                };
                number
                    .and_then(|n| N::try_from(n).ok())
                    .filter(|n| range.contains(n))
                    .ok_or_else(|| format!("is not a whole number from {} to {}", range.start(), range.end()))
            })
            .unwrap_or(default);
        self.show(key, Some(number.to_string()));
        number
    }

    /// A whole number that has no default.
    pub fn required_number<N>(&self, key: &'static str, range: RangeInclusive<N>, what: &str) -> N
    where
        N: Copy + Display + PartialOrd + TryFrom<u64>,
    {
        if !self.has(key) {
            self.missing(key, what);
        }
        self.number(key, *range.start(), range)
    }

    /// A span of time, written in seconds, fractions allowed.
    pub fn seconds(&self, key: &'static str, default: Millis, range: RangeInclusive<u64>) -> Millis {
        let (least, most) = (*range.start(), *range.end());
        let span = self
            .take(key, |v| {
                let seconds = match v {
                    DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix()).ok().map(|n| n as f64),
                    DeValue::Float(f) => f.as_str().parse::<f64>().ok(),
                    _ => None,
                };
                seconds
                    .map(|s| s * 1000.0)
                    .filter(|ms| *ms >= least as f64 && *ms <= most as f64)
                    // Within the range, which fits u64.
                    .map(|ms| Millis(ms.round() as u64))
                    .ok_or_else(|| {
                        format!(
                            "is not a time from {} to {} seconds",
                            in_seconds(least),
                            in_seconds(most)
                        )
                    })
            })
            .unwrap_or(default);
        self.show(key, Some(in_seconds(span.0)));
        span
    }

    /// A key that is true or false.
    pub fn flag(&self, key: &'static str, default: bool) -> bool {
        let flag = self
            .take(key, |v| {
                v.as_bool().ok_or_else(|| "is neither true nor false".to_owned())
            })
            .unwrap_or(default);
        self.show(key, Some(flag.to_string()));
        flag
    }

    /// A text that is parsed into something; `None` when it is absent (or refused) and has no default.
    pub fn parsed<T>(&self, key: &'static str, default: Option<T>) -> Option<T>
    where
        T: FromStr<Err: Display> + Display,
    {
        self.checked(key, default, |text| {
            text.parse().map_err(|e: T::Err| e.to_string())
        })
    }

    /// A text that `check` turns into something or refuses with a sentence.
    pub fn checked<T: Display>(
        &self,
        key: &'static str,
        default: Option<T>,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self
            .take(key, |v| match v.as_str() {
                Some(text) => check(text).map_err(|e| format!("is not possible: {e}")),
                None => Err("is not a text; put it in quotes".to_owned()),
            })
            .or(default);
        self.show(key, value.as_ref().map(|v| quoted(&v.to_string())));
        value
    }

    /// One of some words, each of which stands for something.
    pub fn choice<T: Copy + PartialEq>(
        &self,
        key: &'static str,
        default: T,
        words: &[(&'static str, T)],
    ) -> T {
        let known = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        let chosen = self
            .take(key, |v| match v.as_str() {
                Some(text) => words
                    .iter()
                    .find(|(word, _)| *word == text)
                    .map(|(_, meaning)| *meaning)
                    .ok_or_else(|| format!("is not possible: use {}", either(&known()))),
                None => Err("is not a text; put it in quotes".to_owned()),
            })
            .unwrap_or(default);
        let word = words.iter().find(|(_, meaning)| *meaning == chosen);
        self.show(key, word.map(|(word, _)| quoted(word)));
        chosen
    }

    /// As [`Self::parsed`], but something must be there.
    pub fn required<T>(&self, key: &'static str, what: &str) -> Option<T>
    where
        T: FromStr<Err: Display> + Display,
    {
        if !self.has(key) {
            self.missing(key, what);
        }
        self.parsed(key, None)
    }

    /// A key that is an absolute path.
    pub fn path(&self, key: &'static str, default: Option<PathBuf>) -> Option<PathBuf> {
        let path = self
            .take(key, |v| match v.as_str() {
                Some(text) if text.starts_with('/') && !text.contains('\0') => Ok(PathBuf::from(text)),
                _ => Err("is not an absolute path in quotes".to_owned()),
            })
            .or(default);
        self.show(key, path.as_ref().map(|p| quoted(&p.to_string_lossy())));
        path
    }

    /// An absolute path that has a default, or an empty text for none.
    pub fn path_or_none(&self, key: &'static str, default: PathBuf) -> Option<PathBuf> {
        let path = self
            .take(key, |v| match v.as_str() {
                Some("") => Ok(PathBuf::new()),
                Some(text) if text.starts_with('/') && !text.contains('\0') => Ok(PathBuf::from(text)),
                _ => Err("is not an absolute path in quotes, or \"\" for none".to_owned()),
            })
            .unwrap_or(default);
        self.show(key, Some(quoted(&path.to_string_lossy())));
        Some(path).filter(|path| !path.as_os_str().is_empty())
    }

    /// A table of texts whose keys are free; `check` refuses a key and its text with a sentence.
    pub fn free_texts(
        &self,
        key: &'static str,
        check: impl Fn(&str, &str) -> Result<(), String>,
    ) -> BTreeMap<String, String> {
        let wanted = || format!("is not a table of texts; write [{}]", join(&self.path, key));
        let mut texts = BTreeMap::new();
        let Some(value) = self.value(key) else {
            return texts;
        };
        let Some(entries) = value.get_ref().as_table() else {
            self.problem(key, format!("{} {}", excerpt(value.get_ref()), wanted()));
            return texts;
        };
        let table = Section {
            reader: self.reader,
            path: join(&self.path, key),
            line: self.line_of(key),
            table: Some(entries),
        };
        self.reader
            .shown
            .borrow_mut()
            .push(Shown::Head(format!("[{}]", table.path)));
        for (name, value) in entries.iter() {
            let name: &str = name.get_ref();
            let Some(text) = value.get_ref().as_str() else {
                table.problem(
                    name,
                    format!("{} is not a text; put it in quotes", excerpt(value.get_ref())),
                );
                continue;
            };
            match check(name, text) {
                Ok(()) => {
                    table.show(name.to_owned(), Some(quoted(text)));
                    texts.insert(name.to_owned(), text.to_owned());
                }
                Err(why) => table.problem(name, why),
            }
        }
        texts
    }

    /// A list of texts, each of which `check` refuses with a sentence or takes.
    pub fn texts(&self, key: &'static str, check: impl Fn(&str) -> Result<(), String>) -> Vec<String> {
        let items = self.value(key).map(|value| {
            let items = value.get_ref().as_array();
            if items.is_none() {
                let wanted = "is not a list of texts; write [\"one\", \"two\"]";
                self.problem(key, format!("{} {wanted}", excerpt(value.get_ref())));
            }
            items
        });
        let mut texts = Vec::new();
        for item in items.flatten().into_iter().flat_map(|items| items.iter()) {
            let item = item.get_ref();
            let checked = match item.as_str() {
                Some(text) => check(text)
                    .map(|()| text.to_owned())
                    .map_err(|e| format!("is not possible: {e}")),
                None => Err("is not a text; put it in quotes".to_owned()),
            };
            match checked {
                Ok(text) => texts.push(text),
                Err(why) => self.problem(key, format!("{} {why}", excerpt(item))),
            }
        }
        let shown: Vec<String> = texts.iter().map(|t| quoted(t)).collect();
        self.show(key, Some(format!("[{}]", shown.join(", "))));
        texts
    }

    fn missing(&self, key: &'static str, what: &str) {
        self.problem(key, format!("is missing: {what}"));
    }

    /// A table in this one.
    pub fn table(&self, key: &'static str) -> Section<'r, 't> {
        let path = join(&self.path, key);
        self.reader
            .shown
            .borrow_mut()
            .push(Shown::Head(format!("[{path}]")));
        let table = self.take(key, |v| {
            v.as_table()
                .map(|_| ())
                .ok_or_else(|| format!("is not a table; write [{path}]"))
        });
        let table = table.and_then(|()| self.table?.get(key)?.get_ref().as_table());
        Section {
            reader: self.reader,
            line: self.line_of(key),
            path,
            table,
        }
    }

    /// A table in this one that means nothing where it is not written.
    pub fn table_if_written(&self, key: &'static str) -> Option<Section<'r, 't>> {
        self.value(key)?;
        Some(self.table(key))
    }

    /// All tables of a list of tables in this one.
    pub fn tables(&self, key: &'static str) -> Vec<Section<'r, 't>> {
        let path = join(&self.path, key);
        let wanted = || format!("is not a list of tables; write [[{path}]]");
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            self.problem(key, format!("{} {}", excerpt(value.get_ref()), wanted()));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in array.iter() {
            let line = self.reader.line(item.span().start);
            match item.get_ref().as_table() {
                Some(table) => {
                    let path = path.clone();
                    tables.push(Section {
                        reader: self.reader,
                        path,
                        table: Some(table),
                        line,
                    });
                }
                None => self.reader.problem(line, path.clone(), wanted()),
            }
        }
        tables
    }

    /// Shows the head of one of several tables; before its keys are taken.
    pub fn show_head(&self) {
        self.reader
            .shown
            .borrow_mut()
            .push(Shown::Head(format!("[[{}]]", self.path)));
    }

    /// Shows a table that is not written, with the values that hold instead.
    pub fn show_default(&self, key: &str, values: &[(&'static str, String)]) {
        let mut shown = self.reader.shown.borrow_mut();
        shown.push(Shown::Head(format!("[[{}]]", join(&self.path, key))));
        for (key, value) in values {
            shown.push(Shown::Key {
                key: (*key).into(),
                value: Some(value.clone()),
                origin: Origin::Default,
            });
        }
    }

    /// Says that all keys of this table were asked for: the others are mistakes.
    pub fn close(&self) {
        let known = self.reader.known.borrow();
        let refused = self.reader.refused.borrow();
        for (key, _) in self.table.into_iter().flat_map(|t| t.iter()) {
            let name: &str = key.get_ref();
            if !known
                .iter()
                .chain(refused.iter())
                .any(|(section, k)| *section == self.path && *k == name)
            {
                let line = self.reader.line(key.span().start);
                self.reader
                    .unknown
                    .borrow_mut()
                    .push((self.path.clone(), name.to_owned(), line));
            }
        }
    }
}

/// A value as a person would recognise it.
fn excerpt(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(&text.chars().take(60).collect::<String>()),
        DeValue::Integer(n) => n.to_string(),
        DeValue::Float(f) => f.to_string(),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::Datetime(d) => d.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Words as a choice: `a, b or c`.
fn either(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [some @ .., last] => format!("{} or {last}", some.join(", ")),
    }
}

/// A text in TOML.
pub fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Milliseconds as TOML seconds.
fn in_seconds(millis: u64) -> String {
    if millis.is_multiple_of(1000) {
        (millis / 1000).to_string()
    } else {
        let text = format!("{}.{:03}", millis / 1000, millis % 1000);
        text.trim_end_matches('0').to_owned()
    }
}
