//! What Slurm's programs print.

use crate::input::{says_something, text};
use std::collections::BTreeMap;
use thiao_core::options::{VmOptions, put_back_reason};
use thiao_core::table::Table;
use thiao_core::view::JobState;
use thiao_slurm::{Config, Ping, SlurmError, Version, details, jobs, nodes};

/// Ends the records in the recordings; in an observation it is another each time.
const MARK: &str = "@0123456789abcdef";

/// What is read is of sizes that there are; what is not read is refused with a reason.
pub fn check(input: &[u8]) {
    let text = text(input);
    // Slurm has as many nodes as it says. Lists of more than some hundred are slow to try, and the
    // target `hostlist` does: no ranges of thousands, and no second bracket of a name.
    let large = |range: &[u8]| range[0] == b'-' && range[1..].iter().all(u8::is_ascii_digit);
    let second = |pair: &[u8]| pair[0] == b']' && (pair[1] == b'[' || pair[1].is_ascii_alphanumeric());
    if input.windows(4).any(large) || input.windows(2).any(second) {
        return;
    }
    let (jobs, allocs) = (jobs::parse(&text, MARK), details::parse_allocs(&text));
    for job in jobs.iter().flat_map(Table::values) {
        let asked = &job.request;
        let few = asked.memory_mb <= 1 << 40 && asked.nodes.max(asked.most_nodes) <= 65_536;
        assert!(few || matches!(job.state, JobState::Unknown(_)), "{asked:?}");
    }
    for alloc in allocs.iter().flat_map(BTreeMap::values).flatten() {
        assert!(alloc.memory_mb <= 1 << 40 && alloc.cpus <= 65_535, "{alloc:?}");
    }
    let errors = [
        nodes::parse(&text, MARK).err(),
        jobs.err(),
        details::parse(&text).err(),
        allocs.err(),
        Some(SlurmError::from_message("squeue", "exit status: 1", &text)),
    ];
    for error in errors.iter().flatten() {
        says_something(error, input);
    }
    let config = Config::parse(&text);
    let inside = |found: Option<&str>| assert!(found.is_none_or(|found| text.contains(found)));
    inside(config.get("Licenses"));
    inside(config.option("SlurmctldParameters", "cloud_reg_addrs"));
    assert!(config.number("ResumeTimeout").is_none() || config.get("ResumeTimeout").is_some());
    assert!(!Ping::parse(&text).is_up() || text.contains("UP"));
    if let Some(version) = Version::parse(&text) {
        assert_eq!(Version::parse(&version.to_string()), Some(version));
    }

    match VmOptions::from_comment(&text) {
        Ok(options) => assert_eq!(VmOptions::parse(&options.to_string()), Ok(options)),
        Err(error) => says_something(&error, input),
    }
    assert!(put_back_reason(&text).is_none_or(|why| text.ends_with(why)));
}
