//! Lines of TOML.

use std::fmt::{self, Write as _};

/// Appends a line `key = "value"`.
pub(super) fn text(to: &mut String, key: &str, value: impl fmt::Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(to, "{key} = {}", toml::Value::from(value.to_string()));
}
