//! What the tests of this crate share.

/// The body of a recorded answer of a real oned 7.4.1; `name` without its ending.
pub(crate) fn recording(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/{name}.response.xml", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}
