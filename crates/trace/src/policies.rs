//! The policies by the names that people type, each with the world that it is simulated in.

use crate::engine::{Clock, Order, Setup};
use crate::what_if::WhatIf;
use thiao_share::{Arrival, Backfill, Dfrs, Levels, Ms, Overheads, Policy, Queue};

/// A policy that was asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its name, as tables have it.
    pub name: String,
    world: World,
    policy: Policy,
    exact: bool,
}

/// What a policy knows of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum World {
    /// CPUs alone: how batch schedulers are simulated in the literature.
    Pool,
    /// Hosts with their CPU and memory.
    Hosts,
}

/// What there is, by name: of those of the DFRS papers these are the ones with published figures.
const ALL: &[(&str, &str)] = &[
    (
        "exclusive",
        "EASY on hosts with their CPU and memory, which jobs have to themselves",
    ),
    (
        "fcfs",
        "first come, first served; knows CPUs alone, as the next three do",
    ),
    ("easy", "EASY backfilling by time limits"),
    (EXACT, "EASY that knows the run times: what ratios are against"),
    ("easy-sjbf", "the same, the shortest backfilled first"),
    (SHARED, "levels of attained service: this project's own"),
    (
        "greedy*",
        "of the DFRS papers, as those below: equal shares, nobody paused",
    ),
    ("greedyp*", "others saved for who comes"),
    ("greedypm*", "others saved or moved for who comes"),
    (
        "greedypm*/per/vt600",
        "and all packed anew every 600 s, but for the youngest",
    ),
    ("mcb8/per", "all packed anew for who comes, and every 600 s"),
];

/// The policy that ratios are against.
pub const EXACT: &str = "easy-exact";
/// The policy that this is about.
pub const SHARED: &str = "shared";
/// What is run when nothing is asked for.
pub const USUAL: [&str; 3] = [EXACT, "easy", SHARED];

/// Names and what each is, in the order of lists.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    ALL.iter().copied()
}

/// The policy of this name, in whatever case. Those of the papers have names of parts: `greedypm`, `*` for those that
/// try waiting jobs again after whatever happens, `/per` with a period in seconds (600), `/vt` with the attained
/// service in seconds below which a job stays where it is.
///
/// # Errors
/// When there is none; it says which there are.
pub fn parse(name: &str) -> Result<Asked, String> {
    let name = name.to_ascii_lowercase();
    let published = |backfill| Policy::Queue(Queue::published(backfill));
    let (world, policy, exact) = match name.as_str() {
        "exclusive" => (World::Hosts, Policy::Queue(Queue::new(Backfill::InOrder)), false),
        "fcfs" => (World::Pool, published(Backfill::Never), false),
        "easy" => (World::Pool, published(Backfill::InOrder), false),
        EXACT => (World::Pool, published(Backfill::InOrder), true),
        "easy-sjbf" => (World::Pool, published(Backfill::ShortestFirst), true),
        SHARED => (World::Hosts, Policy::Levels(Levels::default()), false),
        other => match dfrs(other) {
            Some(dfrs) => (World::Hosts, Policy::Dfrs(dfrs), false),
            None => {
                let names: Vec<_> = all().map(|(name, _)| name).collect();
                return Err(format!(
                    "there is no policy '{name}'; there are {}",
                    names.join(", ")
                ));
            }
        },
    };
    Ok(Asked {
        name,
        world,
        policy,
        exact,
    })
}

/// How often all are packed anew, if nobody says.
const PERIOD: u64 = 600;
/// No period and no service is longer: a year, in seconds.
const LONGEST: u64 = 31_536_000;

/// One of the DFRS papers' own.
fn dfrs(name: &str) -> Option<Dfrs> {
    let mut parts = name.split('/');
    let (arrival, retry) = match parts.next()? {
        "" => (Arrival::Wait, false),
        "greedy" => (Arrival::Greedy, false),
        "greedy*" => (Arrival::Greedy, true),
        "greedyp" => (Arrival::Pause, false),
        "greedyp*" => (Arrival::Pause, true),
        "greedypm" => (Arrival::Move, false),
        "greedypm*" => (Arrival::Move, true),
        "mcb8" => (Arrival::Pack, false),
        "mcb8*" => (Arrival::Pack, true),
        _ => return None,
    };
    let seconds = |text: &str| {
        text.parse::<u64>()
            .ok()
            .filter(|s| (1..=LONGEST).contains(s))
            .map(|s| s * 1000)
    };
    let (mut period, mut keep): (Option<Ms>, Ms) = (None, 0);
    for part in parts {
        match (part.strip_prefix("per"), part.strip_prefix("vt")) {
            (Some(""), _) if period.is_none() => period = Some(PERIOD * 1000),
            (Some(text), _) if period.is_none() => period = Some(seconds(text)?),
            (_, Some(text)) if keep == 0 => keep = seconds(text)?,
            _ => return None,
        }
    }
    // Without a period, who waits for the next packing waits for ever; who is not tried again may do so, too.
    (period.is_some() || (retry && arrival != Arrival::Wait)).then_some(Dfrs {
        arrival,
        retry,
        period,
        keep,
    })
}

impl Asked {
    /// Whether it knows CPUs alone, and not on which hosts they are.
    #[must_use]
    pub fn is_pooled(&self) -> bool {
        self.world == World::Pool
    }

    /// How it is run, where its decisions cost so much, and something is other than in the log.
    #[must_use]
    pub fn setup(&self, overheads: Overheads, what_if: WhatIf) -> Setup {
        let (clock, order) = match self.policy {
            // The order of the published schedules.
            Policy::Queue(_) => (Clock::Millis, Order::OneByOne),
            Policy::Levels(_) | Policy::PapersEasy(_) => (Clock::Millis, Order::Together),
            // As the papers' simulator.
            Policy::Dfrs(_) => (Clock::Seconds, Order::Together),
        };
        let cpu = match self.policy {
            // Whoever does not share gives each job all that it asked for.
            Policy::Queue(_) | Policy::PapersEasy(_) => None,
            Policy::Levels(_) | Policy::Dfrs(_) => what_if.cpu,
        };
        Setup {
            policy: self.policy.clone(),
            overheads,
            exact: self.exact,
            pool: self.is_pooled(),
            clock,
            order,
            what_if: WhatIf { cpu, ..what_if },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is typed is a policy of that name, or refused.
        #[test]
        fn any_name_is_known_or_refused(name in "[a-z0-9*/]{0,20}|(greedy|mcb8|/)(p|pm)?\\*?(/(per|vt)[0-9]{0,22}){0,3}") {
            if let Ok(asked) = parse(&name) {
                prop_assert_eq!(&asked.name, &name);
                if let Policy::Dfrs(dfrs) = asked.policy {
                    prop_assert!(dfrs.period != Some(0));
                }
            }
        }
    }

    #[test]
    fn each_name_is_a_policy_of_that_name() {
        for (name, about) in all() {
            assert!(!about.is_empty());
            assert_eq!(parse(name).unwrap().name, name);
            assert_eq!(parse(&name.to_uppercase()).unwrap().name, name);
        }
        for name in USUAL {
            assert!(parse(name).is_ok());
        }
        let said = parse("easier").unwrap_err();
        assert!(said.contains("'easier'") && said.contains("easy-sjbf"), "{said}");
    }

    #[test]
    fn only_exact_ones_are_told_run_times() {
        let exact = all().filter(|(name, _)| {
            parse(name)
                .unwrap()
                .setup(Overheads::default(), WhatIf::default())
                .exact
        });
        assert_eq!(
            exact.map(|(name, _)| name).collect::<Vec<_>>(),
            [EXACT, "easy-sjbf"]
        );
    }

    #[test]
    fn names_of_the_papers_have_parts() {
        let of = |name: &str| match parse(name).map(|asked| asked.policy) {
            Ok(Policy::Dfrs(dfrs)) => Some((dfrs.arrival, dfrs.retry, dfrs.period, dfrs.keep)),
            _ => None,
        };
        assert_eq!(of("greedypm*"), Some((Arrival::Move, true, None, 0)));
        assert_eq!(
            of("GreedyPM*/per/VT600"),
            Some((Arrival::Move, true, Some(600_000), 600_000))
        );
        assert_eq!(
            of("mcb8/per3000"),
            Some((Arrival::Pack, false, Some(3_000_000), 0))
        );
        assert_eq!(
            of("/per/vt600"),
            Some((Arrival::Wait, false, Some(600_000), 600_000))
        );
        // Some would wait for ever.
        let wrong = [
            "greedy",
            "greedyp",
            "mcb8",
            "",
            "/vt600",
            "greedy*/per0",
            "greedy*/per/per",
            "greedy*/",
            "mcb8/perx",
        ];
        for wrong in wrong {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
