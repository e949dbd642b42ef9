//! What may keep slurmctld from answering.

use crate::QUICK;
use crate::lab::{Ctld, inside};
use std::time::{Duration, Instant};
use thiao_core::view::JobState;

/// Names of cloud nodes that do not resolve: Debian's libslurm asks for one up to ten times, with a second
/// between, and slurmctld's locks are held meanwhile.
#[test]
fn slurmctld_answers_while_a_job_whose_nodes_boot_is_cancelled() {
    let Some(dir) = inside("answers::slurmctld_answers_while_a_job_whose_nodes_boot_is_cancelled") else {
        return;
    };
    let ctld = Ctld::start(dir, QUICK, |_| {});
    ctld.hold(true);
    let job = ctld.sbatch(&["-N2", "-w", "n[1-2]", "--wrap", "sleep 60"]);
    ctld.until("its nodes power up", |c| {
        c.job(job).is_some_and(|j| j.state == JobState::Configuring) && c.node("n2").flags.powering_up
    });
    ctld.run(false, &["scancel", &job.to_string()]).unwrap();
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(8) {
        let asked = Instant::now();
        assert!(ctld.slurm.ping().unwrap().is_up());
        ctld.slurm.look().unwrap();
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    eprintln!("the slowest answer took {slowest:?}");
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
}
