//! The controller: whether it answers, what it sees, and what holds it up.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;
use thiao_api::client::ClientError;
use thiao_api::state_dir;
use thiao_api::types::{EventBus, Observation, Status};
use thiao_cli::output::{span, when};
use thiao_core::finding::Finding;

/// Whether the state folder is safe from other users than the one whose it is.
#[must_use]
pub fn state_folder(dir: &Path) -> Finding {
    const WHAT: &str = "state folder";
    let meta = match std::fs::metadata(dir) {
        Ok(meta) => meta,
        Err(error) => {
            return Finding::warn(WHAT, format!("{}: {error}", dir.display()))
                .advice("the controller makes it when it starts")
                .unless_denied(error.kind() == ErrorKind::PermissionDenied);
        }
    };
    let own = state_dir::trouble(&meta, meta.uid()).map(|trouble| (dir.to_owned(), trouble));
    let mut troubles = own.into_iter().chain(state_dir::exposed_above(dir, meta.uid()));
    match troubles.next() {
        None => Finding::ok(WHAT, format!("{} is safe from other users", dir.display())),
        Some((folder, trouble)) => Finding::bad(
            WHAT,
            format!(
                "{} is not safe from other users, because of {}: {trouble}",
                dir.display(),
                folder.display()
            ),
        )
        .advice(trouble.remedy(&folder)),
    }
}

/// What the settings say now.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    pub cluster: &'a str,
    pub provider: &'a str,
    /// The version of the programs.
    pub version: &'a str,
    /// How old an observation may be.
    pub observation_max_age: Duration,
}

/// What the controller says of itself, against the settings.
#[must_use]
pub fn judge(status: &Result<Status, ClientError>, expected: Expected<'_>) -> Vec<Finding> {
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            return vec![
                Finding::bad("controller", format!("does not answer: {error}"))
                    .run("systemctl enable --now thiaod && journalctl -u thiaod -n 50")
                    .unless_denied(matches!(error, ClientError::Barred { .. })),
            ];
        }
    };
    let mut found = vec![Finding::ok(
        "controller",
        format!(
            "thiao {} answers, started {}",
            status.version,
            when(status.started, status.now)
        ),
    )];
    for (what, runs, now) in [
        ("version", status.version.as_str(), expected.version),
        ("cluster", status.cluster.as_str(), expected.cluster),
        ("provider", status.provider.as_str(), expected.provider),
    ] {
        if runs != now {
            found.push(
                Finding::warn(
                    "controller",
                    format!("still runs with {what} {runs}, not {now}: it reads its settings when it starts"),
                )
                .run("systemctl restart thiaod"),
            );
        }
    }
    if let Some(what) = &status.preparing {
        found.push(
            Finding::warn(
                "controller",
                format!("is preparing its provider, and makes no VM meanwhile: {what}"),
            )
            .run("thiao status --watch"),
        );
    }
    let faults = status.faults.iter();
    found.extend(faults.map(|fault| Finding::bad("controller", fault.clone()).run("thiao events provider")));
    let age = u64::try_from(expected.observation_max_age.as_millis()).unwrap_or(u64::MAX);
    for (what, side) in [
        ("observation of Slurm", &status.slurm),
        ("observation of the VMs", &status.vms),
    ] {
        found.push(seen(what, side, status.now, age));
    }
    found.extend(status.bus.as_ref().map(bus));
    if let Some(why) = &status.unstored {
        found.push(
            Finding::bad(
                "store",
                format!("nothing is done until it can be stored, and {why}"),
            )
            .run("thiao status; df -h; findmnt"),
        );
    }
    if let Some(why) = &status.breaker {
        found.push(
            Finding::bad("circuit breaker", format!("no VM is made now: {why}"))
                .run("thiao events provider && thiao resume --force NODES"),
        );
    }
    if status.pending_intents > 0 {
        found.push(
            Finding::warn(
                "orders",
                format!("{} of Slurm's orders wait in the spool", status.pending_intents),
            )
            .run("thiao events controller"),
        );
    }
    found
}

/// Whether OpenNebula's events are heard. Where nobody wrote down that they are there, nothing is missing.
fn bus(bus: &EventBus) -> Finding {
    const WHAT: &str = "OpenNebula's events";
    if !bus.configured || bus.relied_on || bus.silent {
        return Finding::ok(WHAT, bus.text.clone());
    }
    Finding::warn(WHAT, bus.text.clone()).advice(
        "one_hm must run on the front-end, and listen where thiaod reaches it (HM_MAD in oned.conf); or write \
         events = \"off\" in [opennebula]",
    )
}

fn seen(what: &str, side: &Observation, now: u64, max_age: u64) -> Finding {
    let age = side.last_ok.map(|at| now.saturating_sub(at));
    match (age, &side.error) {
        (Some(age), None) if age <= max_age => Finding::ok(what, format!("{} old", span(age))),
        (Some(age), error) => Finding::bad(
            what,
            format!(
                "the last good one is {} old{}; nothing is ended meanwhile",
                span(age),
                error.as_ref().map(|e| format!(" ({e})")).unwrap_or_default()
            ),
        )
        .run("thiao status"),
        (None, error) => Finding::bad(
            what,
            format!(
                "has never succeeded{}",
                error.as_ref().map(|e| format!(": {e}")).unwrap_or_default()
            ),
        )
        .run("thiao status"),
    }
}
