//! What VMs wrote on their consoles before their end: of so many, and no more than that of each.

use rusqlite::{Connection, OptionalExtension as _, params};
use thiao_core::ids::{Generation, NodeName, Time};
use thiao_core::journal::LastWords;

/// Of how many VMs they are kept: of those that ended badly, and of the others.
const KEPT: [(bool, i64); 2] = [(true, 2_000), (false, 500)];

/// The most of one VM's, in bytes.
const MOST: usize = 4 << 10;

/// What is kept of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub at: Time,
    /// Whether it ended otherwise than was meant for it.
    pub badly: bool,
    pub text: String,
}

/// Writes those of VMs that are gone, and forgets the oldest.
pub fn write(db: &Connection, words: &[LastWords], now: Time) -> rusqlite::Result<()> {
    for said in words {
        // The first time it is asked after is the one at which its console was there.
        db.prepare_cached(
            "INSERT OR IGNORE INTO last_words (node, generation, at, badly, text) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            said.node.as_str(),
            said.generation.0 as i64,
            now.0 as i64,
            said.badly,
            tail(&said.text),
        ])?;
    }
    if words.is_empty() {
        return Ok(());
    }
    for (badly, most) in KEPT {
        db.prepare_cached(
            "DELETE FROM last_words WHERE badly = ?1 AND at < (
                 SELECT at FROM last_words WHERE badly = ?1 ORDER BY at DESC LIMIT 1 OFFSET ?2)",
        )?
        .execute(params![badly, most - 1])?;
    }
    Ok(())
}

/// Whole lines of the end.
fn tail(text: &str) -> &str {
    let Some(cut) = text.len().checked_sub(MOST) else {
        return text;
    };
    let from = (cut..=text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(cut);
    let rest = &text[from..];
    match rest.split_once('\n') {
        Some((_, lines)) if !lines.trim().is_empty() => lines,
        Some(_) | None => rest,
    }
}

/// Those of one VM.
pub fn of_vm(db: &Connection, node: &NodeName, generation: Generation) -> rusqlite::Result<Option<Kept>> {
    db.prepare_cached("SELECT at, text, badly FROM last_words WHERE node = ?1 AND generation = ?2")?
        .query_row(params![node.as_str(), generation.0 as i64], |row| {
            Ok(Kept {
                at: Time(row.get::<_, i64>(0)?.max(0) as u64),
                text: row.get(1)?,
                badly: row.get(2)?,
            })
        })
        .optional()
}

/// The newest VM of this node that ended badly and of which something is kept.
pub fn last_bad(db: &Connection, node: &NodeName) -> rusqlite::Result<Option<Generation>> {
    db.prepare_cached(
        "SELECT generation FROM last_words WHERE node = ?1 AND badly ORDER BY generation DESC LIMIT 1",
    )?
    .query_row([node.as_str()], |row| {
        Ok(Generation(row.get::<_, i64>(0)?.max(0) as u64))
    })
    .optional()
}

/// Forgets those of before.
pub fn prune(db: &Connection, before: Time) -> rusqlite::Result<()> {
    db.execute("DELETE FROM last_words WHERE at < ?1", [before.0 as i64])
        .map(drop)
}

#[cfg(test)]
mod tests;
