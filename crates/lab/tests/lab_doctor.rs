//! `thiao doctor` in a whole lab: nothing bad where all is well, and its commands mend what it names.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::Value;
use std::process::Command;
use thiao_testkit::lab::{Lab, text, thiao, wait};

/// All findings that are not good: their verdict, what they are about, and the command that mends it.
fn wrong(lab: &Lab, more: &[&str]) -> Vec<(String, String, String)> {
    let program = thiao().display().to_string();
    let args = [&[program.as_str(), "doctor", "--json"], more].concat();
    let report: Value = serde_json::from_str(&lab.admin(&args)).unwrap();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    report["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["findings"].as_array().unwrap())
        .filter(|finding| finding["verdict"] != "ok")
        .map(|finding| {
            (
                text(finding, "verdict"),
                text(finding, "what"),
                text(finding, "command"),
            )
        })
        .collect()
}

#[test]
fn lab_doctor_names_what_mends_it() {
    let lab = Lab::up(&["--opennebula", "--nodes", "3", "--idle", "60"]);
    assert_eq!(wrong(&lab, &["--try"]), [], "a fresh lab has nothing wrong");
    let job = lab.submit(&["-w", "vm1", "-o", "out", "--wrap", "sleep 5"]);
    lab.wait_job(job, "COMPLETED", 180);
    assert_eq!(wrong(&lab, &["--try"]), [], "nor has one with a VM");

    lab.admin(&["scontrol", "update", "NodeName=vm2", "State=DOWN", "Reason=test"]);
    lab.admin(&["scontrol", "update", "NodeName=vm3", "State=DRAIN", "Reason=fan"]);
    let found = wrong(&lab, &["--try"]);
    let about: Vec<(&str, &str)> = found
        .iter()
        .map(|(verdict, what, _)| (verdict.as_str(), what.as_str()))
        .collect();
    assert_eq!(about, [("warn", "node vm2"), ("warn", "node vm3")]);
    for (_, _, command) in &found {
        lab.admin(&["sh", "-c", command]);
    }
    wait("what it named to mend it", 60, || {
        wrong(&lab, &["--try"]).is_empty().then_some(())
    });
    lab.down();
}

/// A lab's VMs are on a bridge of the lab's own network, which only its controller sees.
#[test]
fn lab_doctor_finds_the_bridge_from_outside() {
    let lab = Lab::up(&["--cold", "--nodes", "1"]);
    let settings = lab.dir.join("thiao.toml");
    let run = Command::new(thiao())
        .arg("--config")
        .arg(settings)
        .arg("doctor")
        .output()
        .unwrap();
    let said = text(&run);
    assert!(said.contains("bridge: thiao0 is there"), "{said}");
    lab.down();
}
