//! `SLURM_RESUME_FILE`: which jobs a call of ResumeProgram is for.
//!
//! Measured on 22.05.8: `{"jobs":[{"job_id":1,"nodes":"v1"}],"all_nodes":"v1"}`. From 23.02 on the keys are
//! `nodes_resume` and `nodes_alloc`, and `all_nodes_resume`. Slurm removes the file about 10 s after the call.

use serde::Deserialize;
use thiao_core::hostlist::{self, Limits, Problem};
use thiao_core::ids::{JobId, NodeName};

/// The most nodes that a file may name, each as often as jobs have it: sixteen jobs on each node of
/// the largest cluster. A name takes some 60 bytes of memory, and few bytes of the file.
pub const MOST_NAMES: u64 = 1 << 20;

/// What the file tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResumeFile {
    /// The jobs that wait for nodes.
    pub jobs: Vec<ResumeJob>,
    /// All nodes to be resumed by this call.
    pub all_nodes: Vec<NodeName>,
}

/// A job that waits for nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeJob {
    pub id: JobId,
    /// Those of its nodes that must be resumed.
    pub resume: Vec<NodeName>,
    /// All its nodes, where this version of Slurm tells; else the same.
    pub alloc: Vec<NodeName>,
}

/// Why a resume file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ResumeFileError {
    /// Not JSON, or not of this form.
    #[error("SLURM_RESUME_FILE is not what Slurm 22.05 and later write: {0}")]
    Json(#[from] serde_json::Error),
    /// A list of nodes that is none.
    #[error("SLURM_RESUME_FILE names nodes as {list:?}: {why}")]
    Nodes {
        /// The text in the file, or its beginning.
        list: String,
        /// What is wrong with it.
        why: String,
    },
    /// More nodes than any cluster has for its jobs.
    #[error("SLURM_RESUME_FILE names more than {0} nodes for its jobs")]
    TooMany(u64),
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    jobs: Vec<Job>,
    #[serde(alias = "all_nodes_resume")]
    all_nodes: Option<String>,
}

#[derive(Deserialize)]
struct Job {
    job_id: u32,
    #[serde(alias = "nodes")]
    nodes_resume: Option<String>,
    nodes_alloc: Option<String>,
}

/// Reads the file's text. Keys that we do not know are skipped.
///
/// # Errors
/// When it is no JSON of that form, a node list is malformed, or it names more than [`MOST_NAMES`].
pub fn parse(text: &str) -> Result<ResumeFile, ResumeFileError> {
    parse_within(text, MOST_NAMES)
}

/// [`parse`] with another limit on the names of all lists together.
///
/// # Errors
/// See [`parse`].
pub fn parse_within(text: &str, most: u64) -> Result<ResumeFile, ResumeFileError> {
    let file: File = serde_json::from_str(text)?;
    let mut capacity = Capacity { most, left: most };
    let jobs = file.jobs.into_iter().map(|job| {
        let resume = capacity.expand(job.nodes_resume.as_deref())?;
        let alloc = match job.nodes_alloc {
            Some(list) => capacity.expand(Some(&list))?,
            None => capacity.again(&resume)?,
        };
        Ok(ResumeJob {
            id: JobId(job.job_id),
            resume,
            alloc,
        })
    });
    Ok(ResumeFile {
        jobs: jobs.collect::<Result<_, ResumeFileError>>()?,
        all_nodes: capacity.expand(file.all_nodes.as_deref())?,
    })
}

/// How many names may still come.
struct Capacity {
    most: u64,
    left: u64,
}

impl Capacity {
    fn expand(&mut self, list: Option<&str>) -> Result<Vec<NodeName>, ResumeFileError> {
        let list = match list.map(str::trim) {
            None | Some("" | "(null)") => return Ok(Vec::new()),
            Some(list) => list,
        };
        let each = Limits::default();
        let limits = Limits {
            names: each.names.min(self.left),
            ..each
        };
        let names = hostlist::expand_within(list, limits).map_err(|error| match error.problem {
            Problem::TooMany(limit) if limit < each.names => ResumeFileError::TooMany(self.most),
            _ => ResumeFileError::Nodes {
                // It ends in an event that people read.
                list: list.chars().take(100).collect(),
                why: error.to_string(),
            },
        })?;
        self.left -= names.len() as u64;
        Ok(names)
    }

    fn again(&mut self, names: &[NodeName]) -> Result<Vec<NodeName>, ResumeFileError> {
        let left = self.left.checked_sub(names.len() as u64);
        self.left = left.ok_or(ResumeFileError::TooMany(self.most))?;
        Ok(names.to_vec())
    }
}
