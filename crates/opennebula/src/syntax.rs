//! OpenNebula's template syntax: `KEY = "value"` and `KEY = [ SUB = "value", ... ]`.

use crate::error::Error;

/// A template: attributes in order; names may repeat (DISK, NIC).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template(pub Vec<(String, Value)>);

/// What an attribute holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// One text.
    Single(String),
    /// Named texts.
    Vector(Vec<(String, String)>),
}

impl Template {
    /// Reads the textual form; comments are dropped.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let _ = text;
        todo!()
    }

    /// Writes the XML form (`<TEMPLATE>...`), which oned takes wherever it takes the
    /// textual one. No value can become an attribute.
    #[must_use]
    pub fn to_xml(&self) -> String {
        todo!()
    }

    /// Writes the textual form. No value can become an attribute.
    #[must_use]
    pub fn to_text(&self) -> String {
        todo!()
    }

    /// The first single attribute of that name, in capitals.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|(key, value)| match value {
            Value::Single(text) if key == name => Some(text.as_str()),
            Value::Single(_) | Value::Vector(_) => None,
        })
    }

    /// All vector attributes of that name.
    pub fn vectors<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [(String, String)]> {
        self.0.iter().filter_map(move |(key, value)| match value {
            Value::Vector(pairs) if key == name => Some(pairs.as_slice()),
            Value::Single(_) | Value::Vector(_) => None,
        })
    }
}
