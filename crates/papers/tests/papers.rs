//! What is written, and that nothing of the programs is left out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[test]
fn pages_and_completions_are_written_of_all_programs() {
    let dir = tempfile::tempdir().unwrap();
    thiao_papers::write(dir.path()).unwrap();
    for file in [
        "man/thiao.1",
        "man/thiao-nodes.1",
        "man/thiao-hostlist-fold.1",
        "man/thiao-lab-up.1",
        "man/thiao-sim-run.1",
        "man/thiao-sim-trace.1",
        "completions/thiao.bash",
        "completions/_thiao",
        "completions/thiao.fish",
    ] {
        let path = dir.path().join(file);
        assert!(path.metadata().is_ok_and(|m| m.len() > 100), "{file}");
    }
    let read = |file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap();
    assert!(read("man/thiao.1").contains("Exit codes"));
    for word in ["--job-nodes", "--no-shrink", "--restore-cost"] {
        assert!(read("completions/thiao.bash").contains(word), "{word}");
    }
}

#[test]
fn without_a_folder_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    for words in [&["--help"][..], &[], &["a", "b"]] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_thiao-papers"))
            .args(words)
            .current_dir(dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains("usage: thiao-papers DIR"),
            "{said}"
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{words:?}");
    }
}
