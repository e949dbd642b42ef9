//! Reads `sinfo`'s listing of nodes.
//!
//! `sinfo -O` with `StateComplete` gives the base state and *all* flags, where `%T` has a place for one
//! suffix only. One line stands for all nodes of equal state and reason, so 10,000 nodes are a few
//! lines. `NodeList:` followed by a suffix and no size is printed at full length (20 characters
//! without the colon); both hold from 22.05 on. Measured on 22.05.8 with 10,000 nodes: 57 ms CPU of sinfo;
//! with `-N`, a line per node, 4.7 s; `scontrol show node -o` prints 5 MB.
//!
//! A node's life as seen here (22.05.8): `idle+cloud+powered_down`, `allocated+cloud+powered_down`,
//! `allocated+cloud+not_responding+powering_up`, `allocated+cloud`, `idle+cloud`, `idle+cloud+power_down`,
//! `idle+cloud+powering_down`, `idle+cloud+powered_down`; `powering_up` may be too short to be seen.
//! A node that registers while `idle~` (a VM started by hand) is `idle+cloud` at once and usable; nothing is
//! to be told to Slurm. Nodes that are in no partition are not listed: `scontrol show node NAME` has them.

use crate::error::SlurmError;
use crate::words;
use thiao_core::hostlist::{self, HostlistError, Problem};
use thiao_core::ids::NodeName;
use thiao_core::table::Table;
use thiao_core::view::{BaseState, NodeFlags, SlurmNode};

const WHAT: &str = "sinfo's list of nodes";

/// Between two fields: a byte that node names and states can't hold.
pub(crate) const SEPARATOR: char = '|';

/// The value of `sinfo -O` whose output [`parse`] reads. `mark` ends every line.
#[must_use]
pub fn format(mark: &str) -> String {
    // A suffix can't come before the first field: the mark ends the line.
    format!("NodeList:|,StateComplete:|,Reason:|{mark}")
}

/// Reads the whole listing; an error if it is cut off, or no such listing.
///
/// A node that is in several partitions appears more than once, with the same state. Nodes with names that
/// no node of ours can have are left out: a site's own odd names cost nothing else.
pub fn parse(text: &str, mark: &str) -> Result<Table<NodeName, SlurmNode>, SlurmError> {
    let mut nodes = Vec::new();
    let end = format!("{SEPARATOR}{mark}");
    // Split by our own mark, not by newlines alone: a reason is free text.
    let mut rest = text;
    while !rest.is_empty() {
        let Some((line, after)) = rest.split_once(end.as_str()) else {
            if rest.trim().is_empty() {
                break;
            }
            return Err(SlurmError::unparsable(WHAT, rest.trim(), "the line is cut off"));
        };
        rest = after.strip_prefix('\n').unwrap_or(after);
        let mut fields = line.splitn(3, SEPARATOR);
        let (Some(list), Some(state), Some(reason)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(SlurmError::unparsable(WHAT, line, "three fields are expected"));
        };
        let (names, _) = names(list.trim()).map_err(|e| SlurmError::unparsable(WHAT, line, e.to_string()))?;
        let (base, flags) = parse_state(state.trim());
        let node = SlurmNode {
            base,
            flags,
            reason: words::node_reason(reason),
            alloc: None,
        };
        nodes.extend(names.into_iter().map(|name| (name, node.clone())));
    }
    Ok(nodes.into_iter().collect())
}

/// The names of a hostlist, and whether these are all: names that no node of ours can have are left out.
///
/// # Errors
/// When there are more than any cluster has.
pub(crate) fn names(list: &str) -> Result<(Vec<NodeName>, bool), HostlistError> {
    match hostlist::expand(list) {
        Ok(names) => return Ok((names, true)),
        Err(e) if matches!(e.problem, Problem::TooMany(_) | Problem::TooLong(_)) => return Err(e),
        Err(_) => {}
    }
    let mut depth = 0_u32;
    let items = list.split(|c| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    let readable: Vec<&str> = items.filter(|item| hostlist::count(item).is_ok()).collect();
    match readable.is_empty() {
        true => Ok((Vec::new(), false)),
        false => hostlist::expand(readable.join(",")).map(|names| (names, false)),
    }
}

/// Slurm's word for a state with its flags, e.g. `idle+cloud+powered_down`, in any case.
#[must_use]
pub fn parse_state(text: &str) -> (BaseState, NodeFlags) {
    let mut words = text.split('+');
    let base = words.next().unwrap_or_default();
    let mut flags = NodeFlags::default();
    // scontrol marks a node that does not answer by an asterisk, sinfo by a word.
    let (base, silent) = match base.strip_suffix('*') {
        Some(base) => (base, true),
        None => (base, false),
    };
    flags.not_responding = silent;
    let is = |word: &str| base.eq_ignore_ascii_case(word);
    let state = if is("idle") {
        BaseState::Idle
    } else if is("allocated") {
        BaseState::Allocated
    } else if is("mixed") {
        BaseState::Mixed
    } else if is("down") {
        BaseState::Down
    } else if is("error") {
        BaseState::Error
    } else if is("future") {
        BaseState::Future
    } else {
        BaseState::Unknown(base.to_owned())
    };
    for word in words {
        set_flag(&mut flags, word.strip_suffix('*').unwrap_or(word));
        flags.not_responding |= word.ends_with('*');
    }
    (state, flags)
}

fn set_flag(flags: &mut NodeFlags, word: &str) {
    match word.to_ascii_lowercase().as_str() {
        "cloud" => flags.cloud = true,
        "powered_down" => flags.powered_down = true,
        "powering_up" => flags.powering_up = true,
        "powering_down" => flags.powering_down = true,
        "power_down" => flags.power_down = true,
        "drain" => flags.drain = true,
        "not_responding" => flags.not_responding = true,
        "completing" => flags.completing = true,
        // Words that change nothing for us: a power-up that is asked for and not begun, reservations, a
        // reboot asked for, how the node was made, the scheduler's plans. (REBOOT_ISSUED is not among
        // them: such a node is neither up nor surely without a job, as with a word that we do not know.)
        "power_up" | "maintenance" | "reserved" | "planned" | "blocked" | "dynamic_norm"
        | "dynamic_future" | "resume" | "fail" | "perfctrs" | "invalid_reg" | "reboot_requested" => {}
        _ => flags.unknown = true,
    }
}
