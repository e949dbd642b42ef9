//! Words for commands that a person is told to type.

/// A word for a shell; in quotes only where it needs them.
pub(crate) fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", thiao_cli::output::clean(text).replace('\'', "'\\''"))
}
