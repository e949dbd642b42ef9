//! Jobs on nodes of power-saving mode: each VM backs its node for whatever jobs
//! come, and is given back when the node has been idle for a while.

use super::checks;
use super::follow::{Early, begin, expected, submit, until_back, until_over};
use super::jobs::{NewJob, Runs};
use super::show::Show;
use super::track::Story;
use crate::enter::Running;
use crate::plan::Options;
use anyhow::{Result, bail};

/// Seconds that each job stays.
const STAY_S: u32 = 3;

/// Whether such a lab can show it.
pub fn possible(options: &Options) -> Result<()> {
    if options.nodes < 5 {
        bail!("the demo's jobs need 5 nodes at once: --nodes 5 or more");
    }
    Ok(())
}

/// A parallel job and three single ones at once.
pub fn run(lab: &Running, show: &mut Show, stories: &mut Vec<Story>) -> Result<bool, Early> {
    let mut story = begin(lab);
    for (name, nodes) in [("parallel", 2), ("single-1", 1), ("single-2", 1), ("single-3", 1)] {
        let wanted = NewJob {
            user: lab.plan.submitter(),
            program: "sbatch",
            name,
            nodes,
            size: None,
            array: 0,
            runs: Runs::Proof {
                stay: STAY_S,
                gathers: false,
            },
        };
        submit(lab, &mut story, show, &wanted)?;
    }
    until_over(lab, &mut story, show)?;
    let expected = expected(lab, show);
    show.say("all jobs are over; Slurm gives the nodes back when they have been idle for a while");
    let back = until_back(lab, &mut story, show)?;
    show.end(&story);
    let mut checks = checks::of_jobs(&story, &expected);
    checks.extend(back);
    stories.push(story);
    Ok(show.checks(&checks))
}
