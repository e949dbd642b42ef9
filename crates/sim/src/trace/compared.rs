//! What the policies did, beside each other.

use thiao_trace::figures::Figures;
use thiao_trace::policies::{Asked, EXACT};
use thiao_trace::runs::{self, Ran};
use thiao_trace::workload::Workload;

/// What clusters do today, if it was run: EASY with the time limits that people ask for.
const TODAY: &str = "easy";

/// A policy, and what came of it.
#[derive(Debug)]
pub struct Policy {
    pub name: String,
    /// Against EASY with exact run times.
    pub figures: Figures,
    /// Against what clusters do today.
    pub today: Figures,
    /// How long it took to run, on one core.
    pub seconds: f64,
}

/// All that were run.
#[derive(Debug)]
pub struct Compared {
    /// In the order in which they were asked for.
    pub policies: Vec<Policy>,
    /// Which of them is what clusters do today.
    pub today: usize,
}

impl Compared {
    /// Of these runs; one of the policies must be EASY with exact run times.
    pub fn of(parts: &[Workload], asked: &[Asked], ran: &[Vec<Ran>]) -> Self {
        let at = |name: &str| asked.iter().position(|asked| asked.name == name);
        let exact = at(EXACT).unwrap_or(0);
        let today = at(TODAY).unwrap_or(exact);
        let against = |policy: usize, reference: usize| runs::figures(parts, &ran[policy], &ran[reference]);
        let policies = asked.iter().enumerate().map(|(policy, asked)| {
            let figures = against(policy, exact);
            let today = if today == exact {
                figures.clone()
            } else {
                against(policy, today)
            };
            let seconds = ran[policy].iter().map(|ran| ran.seconds).sum();
            Policy {
                name: asked.name.clone(),
                figures,
                today,
                seconds,
            }
        });
        Self {
            policies: policies.collect(),
            today,
        }
    }
}
