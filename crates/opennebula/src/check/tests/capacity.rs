//! What must fit on the hosts.

use super::*;

#[test]
fn names_of_job_mode_need_not_all_fit() {
    let mut wanted = wanted();
    wanted.nodesets[0].nodes = nodes("fg[0-999]");
    let hosts = |wanted: &Needs| {
        let found = judge(&seen(), wanted);
        found.into_iter().find(|finding| finding.what == "hosts").unwrap()
    };
    assert_eq!(hosts(&wanted).verdict, Verdict::Warn);
    wanted.nodesets[0].mode = Mode::Job;
    assert_eq!(hosts(&wanted).verdict, Verdict::Ok);
    // But the largest of them must.
    wanted.nodesets[0].shape.memory_mb = 1 << 30;
    assert_eq!(hosts(&wanted).verdict, Verdict::Bad);
}
