//! Some of the golden runs: those whose logs the repository holds. `cargo xtask golden` compares all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use thiao_trace::golden::published::{Published, waits};
use thiao_trace::golden::rows::{self, Row};
use thiao_trace::golden::{self, Traces};
use thiao_trace::read::{self, Log, Options};
use thiao_trace::workload::Workload;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn log(name: &str) -> Log {
    read::any(&file(name), &Options::default()).expect("a log of the repository")
}

fn rows() -> Vec<Row> {
    let text = std::fs::read_to_string(file("dfrs-golden.csv")).expect("the table");
    rows::read(&text).expect("a table")
}

fn traces() -> Traces {
    let named = |set: &'static str| move |trace: Workload| ((set.to_owned(), trace.name.clone()), trace);
    let weeks = golden::hpc2n(&log("HPC2N-2002-weeks.swf.gz")).expect("weeks");
    let typed = golden::typed(&log("lublin-typed.txt.gz")).expect("traces");
    let untyped = [1, 50].map(golden::untyped);
    let weeks = weeks.into_iter().map(named("hpc2n"));
    weeks
        .chain(typed.into_iter().map(named("lubT")))
        .chain(untyped.into_iter().map(named("lubN")))
        .collect()
}

#[test]
fn every_job_waits_as_long_as_was_published() {
    for published in Published::all()
        .into_iter()
        .filter(|published| published.log == "KTH-SP2")
    {
        let path = file(&format!("KTH-SP2.{}.swf.gz", published.kind));
        let workload = published.read_file(&path).expect("a published schedule");
        let outcome = published.run(&workload).expect("a run");
        let line = waits(&published, &workload, &outcome);
        assert_eq!(
            (line.equal, line.different),
            (5578, 0),
            "{}: {:?}",
            published.kind,
            line.examples
        );
    }
}

#[test]
fn all_columns_are_those_of_the_papers_simulator() {
    let (rows, traces) = (rows(), traces());
    let mut groups: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
    for row in &rows {
        groups.entry((&row.dataset, &row.name)).or_default().push(row);
    }
    let mut equal = 0;
    for ((dataset, name), rows) in groups {
        let line = golden::compare(dataset, name, &rows, &traces).expect("runs");
        assert_eq!(line.different, 0, "{dataset} {name}: {:?}", line.examples);
        equal += line.equal;
    }
    assert_eq!(equal, 120);
}

#[test]
fn one_wrong_digit_is_seen() {
    let (mut rows, traces) = (rows(), traces());
    let row = &mut rows[0];
    row.columns[13].push('0');
    let line = golden::compare("hpc2n", "easy", &[row], &traces).expect("a run");
    assert_eq!((line.equal, line.different), (0, 1));
    assert!(
        line.examples[0].contains("demand_integral"),
        "{:?}",
        line.examples
    );
}
