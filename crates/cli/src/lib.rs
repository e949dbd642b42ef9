//! What the programs that people type have in common: how they print (`output`), and how they end (`exit`).

pub mod exit;
pub mod output;
