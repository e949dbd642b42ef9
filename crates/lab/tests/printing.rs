//! The program `thiao-lab` where nobody reads what it prints any more.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::{Command, Stdio};

/// A pipe whose reader has left.
fn left() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_reader_who_left_is_no_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none");
    let none = none.to_str().unwrap();
    for (words, code) in [
        (&["--help"][..], 0),
        (&["down", "--dir", none], 0),
        (&["down", "--purge", "--dir", none], 0),
        // There is no lab, and nobody who hears it.
        (&["status", "--dir", none], 1),
        (&["shell", "--dir", none], 1),
    ] {
        let ended = Command::new(env!("CARGO_BIN_EXE_thiao-lab"))
            .args(words)
            .stdin(Stdio::null())
            .stdout(left())
            .stderr(left())
            .status()
            .unwrap();
        assert_eq!(ended.code(), Some(code), "{words:?}");
    }
}
