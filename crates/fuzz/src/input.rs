//! What all targets do with their input.

/// Refusing is right; doing so without a word, or with as many as one likes to provoke, is not.
#[track_caller]
pub(crate) fn says_something(error: &impl std::fmt::Display, input: &[u8]) {
    let text = error.to_string();
    assert!(!text.trim().is_empty(), "an error without a word");
    // Each byte may be told as several, e.g. as `\u{fffd}`, and in two places.
    let most = 2_000 + 24 * input.len();
    assert!(text.len() <= most, "an error of {} bytes", text.len());
}

/// The input's text, as programs' output and files are read.
pub(crate) fn text(input: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(input)
}
