//! The planner of sharing on logs of real clusters.

pub mod engine;
pub mod figures;
pub mod golden;
pub mod lublin;
pub mod plot;
pub mod policies;
pub mod read;
pub mod record;
pub mod runs;
pub mod weeks;
pub mod what_if;
pub mod workload;
