//! What is told to people: each act, refusal and observed change, with its cause.

use crate::ids::{Generation, HostName, JobId, NodeName};
use std::fmt;

/// Something that happened, to be kept as an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub subject: Subject,
    /// A stable word for programs, e.g. `vm-ready`.
    pub kind: &'static str,
    /// A sentence for people.
    pub text: String,
}

impl Note {
    /// A note about `subject`.
    pub fn new(subject: Subject, kind: &'static str, text: impl Into<String>) -> Self {
        Self {
            subject,
            kind,
            text: text.into(),
        }
    }

    /// A note about a node.
    pub fn node(node: &NodeName, kind: &'static str, text: impl Into<String>) -> Self {
        Self::new(Subject::Node(node.clone()), kind, text)
    }

    /// A note about a node's VM.
    pub fn vm(node: &NodeName, generation: Generation, kind: &'static str, text: impl Into<String>) -> Self {
        Self::new(Subject::Vm(node.clone(), generation), kind, text)
    }
}

/// What a note or a line of a plan is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A node.
    Node(NodeName),
    /// A node's VM.
    Vm(NodeName, Generation),
    /// A job.
    Job(JobId),
    /// A host.
    Host(HostName),
    /// Slurm as a whole.
    Slurm,
    /// The provider as a whole.
    Provider,
    /// The controller itself.
    Controller,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Node(node) => write!(f, "node {node}"),
            Subject::Vm(node, generation) => write!(f, "vm {node}.{generation}"),
            Subject::Job(job) => write!(f, "job {job}"),
            Subject::Host(host) => write!(f, "host {host}"),
            Subject::Slurm => f.write_str("slurm"),
            Subject::Provider => f.write_str("provider"),
            Subject::Controller => f.write_str("controller"),
        }
    }
}
