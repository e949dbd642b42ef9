//! `SLURM_RESUME_FILE`: which jobs a call of ResumeProgram is for.
//!
//! Measured on 22.05.8: `{"jobs":[{"job_id":1,"nodes":"v1"}],"all_nodes":"v1"}`. From 23.02 on the keys are
//! `nodes_resume` and `nodes_alloc`, and `all_nodes_resume`. Slurm removes the file about 10 s after the call.

use serde::Deserialize;
use thiao_core::hostlist;
use thiao_core::ids::{JobId, NodeName};

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
    /// Its id.
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
        /// The text in the file.
        list: String,
        /// What is wrong with it.
        why: String,
    },
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
/// When it is no JSON of that form or a node list is malformed.
pub fn parse(text: &str) -> Result<ResumeFile, ResumeFileError> {
    let file: File = serde_json::from_str(text)?;
    let jobs = file.jobs.into_iter().map(|job| {
        let resume = expand(job.nodes_resume.as_deref())?;
        let alloc = if job.nodes_alloc.is_some() {
            expand(job.nodes_alloc.as_deref())?
        } else {
            resume.clone()
        };
        Ok(ResumeJob {
            id: JobId(job.job_id),
            resume,
            alloc,
        })
    });
    Ok(ResumeFile {
        jobs: jobs.collect::<Result<_, ResumeFileError>>()?,
        all_nodes: expand(file.all_nodes.as_deref())?,
    })
}

fn expand(list: Option<&str>) -> Result<Vec<NodeName>, ResumeFileError> {
    match list.map(str::trim) {
        None | Some("" | "(null)") => Ok(Vec::new()),
        Some(list) => hostlist::expand(list).map_err(|e| ResumeFileError::Nodes {
            list: list.to_owned(),
            why: e.to_string(),
        }),
    }
}
