//! What Slurm said, made into orders. Nothing here reads the environment, a file
//! or a clock: all comes in as values, so that any nonsense can be tried.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use thiao_core::hostlist::{self, HostlistError, Limits, NameSet};
use thiao_core::ids::{ClusterName, JobId, NodeName};
use thiao_core::spool::IntentKind;

/// The most nodes that a cluster has; those of one order are fewer.
const KNOWN: Limits = Limits {
    names: 1 << 20,
    bytes: 32 << 20,
};

/// What slurmctld (22.05.8) has for the nodes of a job that had none.
const NO_NODES: &str = "(null)";

/// What a list of nodes in the spool says.
#[derive(Debug)]
pub enum Listed {
    /// There is no such list.
    Unsaid,
    /// It cannot be read, which was told.
    Unclear,
    /// There are no nodes.
    None,
    These(NameSet),
}

impl Listed {
    /// Reads the text of such a list.
    ///
    /// # Errors
    /// The place and the reason, when it is malformed or over a limit.
    pub fn read(text: &str) -> Result<Self, HostlistError> {
        match text.trim_end() {
            "" => Ok(Self::None),
            list => NameSet::parse(list, KNOWN).map(Self::These),
        }
    }

    /// Whether it has this node, or does not say that it has not: that is no reason to lose an order.
    #[must_use]
    pub fn may_have(&self, node: &NodeName) -> bool {
        match self {
            Self::Unsaid | Self::Unclear => true,
            Self::None => false,
            Self::These(names) => names.contains(node),
        }
    }
}

/// The nodes of an order, sorted out.
#[derive(Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Those that the order is kept for, as a hostlist; none: there is nothing to keep.
    pub nodes: Option<String>,
    /// Those that the controller does not know.
    pub unknown: BTreeSet<NodeName>,
}

/// Which nodes of a hostlist the controller knows.
///
/// # Errors
/// The place and the reason, when it is no hostlist.
pub fn choose(list: &[u8], known: &Listed) -> Result<Chosen, HostlistError> {
    let (ours, unknown): (Vec<NodeName>, Vec<NodeName>) = hostlist::expand(list)?
        .into_iter()
        .partition(|name| known.may_have(name));
    let nodes = match (ours.is_empty(), unknown.is_empty()) {
        (true, _) => None,
        // As it was: it may name a node twice, and is shorter than what we could write.
        (false, true) => Some(String::from_utf8_lossy(list).into_owned()),
        (false, false) => Some(hostlist::fold(&ours)),
    };
    Ok(Chosen {
        nodes,
        unknown: unknown.into_iter().collect(),
    })
}

/// A cluster that is not the controller's calls.
#[derive(Debug, PartialEq, Eq)]
pub struct OtherCluster {
    pub calling: String,
    /// Whom the controller serves.
    pub ours: String,
}

/// The cluster that calls by `SLURM_CLUSTER_NAME`, if that is a name; `ours` is the one that
/// the controller serves, if it has said so.
///
/// # Errors
/// When these are two.
pub fn cluster(calling: &OsStr, ours: Option<&str>) -> Result<Option<ClusterName>, OtherCluster> {
    let calling = calling.to_string_lossy();
    match ours {
        Some(ours) if ours != calling => Err(OtherCluster {
            calling: calling.into_owned(),
            ours: ours.to_owned(),
        }),
        _ => Ok(ClusterName::new(&calling).ok()),
    }
}

/// Why what slurmctld says of a job's end makes no sense.
#[derive(Debug)]
pub enum BadEnd {
    /// `SLURM_JOB_ID` is no number.
    Job(String),
    /// `SLURM_JOB_NODELIST` is no hostlist, and why.
    Nodes(String, HostlistError),
}

impl fmt::Display for BadEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(id) => write!(f, "SLURM_JOB_ID={id} is not a job's number"),
            Self::Nodes(list, error) => write!(f, "SLURM_JOB_NODELIST={list}: {error}"),
        }
    }
}

/// The order that follows from a job's end, and its nodes as a hostlist: those of job mode, which
/// `ours` lists. None, if it had no such nodes. The texts are `SLURM_JOB_ID`, `SLURM_JOB_NODELIST`
/// and `SLURM_JOB_EXIT_CODE`.
///
/// # Errors
/// When the first or the second makes no sense.
pub fn job_end(
    id: &OsStr,
    list: &OsStr,
    exit: Option<&OsStr>,
    ours: &Listed,
) -> Result<Option<(IntentKind, String)>, BadEnd> {
    if matches!(ours, Listed::Unsaid) || list == NO_NODES {
        return Ok(None);
    }
    let job = number(id).ok_or_else(|| BadEnd::Job(id.display().to_string()))?;
    let mut nodes = hostlist::expand(list.as_bytes())
        .map_err(|error| BadEnd::Nodes(list.display().to_string(), error))?;
    nodes.retain(|node| ours.may_have(node));
    let kind = IntentKind::JobEnd {
        job: JobId(job),
        // A status as of wait(2) in decimal; SLURM_JOB_EXIT_CODE2 is the same as 1:0.
        exit: exit.and_then(number),
    };
    Ok((!nodes.is_empty()).then(|| (kind, hostlist::fold(&nodes))))
}

/// Whether a job may have a node of ours: `list` is its `SLURM_JOB_NODELIST`. In doubt it may.
#[must_use]
pub fn may_have_ours(list: &OsStr, ours: &Listed) -> bool {
    match hostlist::expand(list.as_bytes()) {
        Ok(nodes) => nodes.iter().any(|node| ours.may_have(node)),
        Err(_) => true,
    }
}

/// A number in digits alone.
#[must_use]
pub fn number(text: &OsStr) -> Option<u32> {
    let text = text.to_str()?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// The controller's answer to a prolog, as far as it matters there.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Its text on one line.
    pub body: String,
}

/// Reads `HTTP/1.1 STATUS ...`, headers, an empty line and a body.
#[must_use]
pub fn answer(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let words: Vec<&str> = body.split_whitespace().collect();
    Some(Answer {
        status,
        body: words.join(" "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(list: &str, known: &str) -> Chosen {
        choose(list.as_bytes(), &Listed::read(known).expect("a hostlist")).expect("a hostlist")
    }

    #[test]
    fn an_order_is_for_the_nodes_that_are_known() {
        let Chosen { nodes, unknown } = chosen("fg2,fg[0-1]", "fg[0-7]\n");
        assert_eq!(nodes.as_deref(), Some("fg2,fg[0-1]"), "as it was written");
        assert!(unknown.is_empty());
        let Chosen { nodes, unknown } = chosen("x9,fg[0-1],x8,x9", "fg[0-7]\n");
        assert_eq!(nodes.as_deref(), Some("fg[0-1]"));
        assert_eq!(hostlist::fold(&unknown), "x[8-9]");
    }

    #[test]
    fn an_unknown_node_named_twice_leaves_nothing_to_keep() {
        assert_eq!(chosen("x9,x9", "fg[0-7]\n").nodes, None);
        assert_eq!(chosen("fg0", "\n").nodes, None);
    }

    #[test]
    fn reads_a_status_and_a_body() {
        let read =
            answer(b"HTTP/1.1 409 Conflict\r\ncontent-length: 9\r\n\r\nno\n nodes ").expect("an answer");
        assert_eq!((read.status, read.body.as_str()), (409, "no nodes"));
        for odd in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 x\r\n\r\n",
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 99999 X\r\n\r\n",
        ] {
            assert!(answer(odd.as_bytes()).is_none(), "{odd:?}");
        }
    }
}
