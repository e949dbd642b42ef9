//! Kinds of jobs, by what they need.

use crate::workload::TraceJob;

/// A job that runs for less is short, in seconds.
pub const SHORT: u64 = 600;
/// A job that runs for as long, or longer, is long, in seconds.
pub const LONG: u64 = 3600;
/// A job that can use more than this share of the cluster's CPU is wide: an eighth.
pub const WIDE: f64 = 0.125;

/// How long a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    Short,
    /// Neither short nor long.
    Medium,
    Long,
}

impl Length {
    /// Each, the shortest first.
    pub const ALL: [Self; 3] = [Self::Short, Self::Medium, Self::Long];

    /// Its name, a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Medium => "medium",
            Self::Long => "long",
        }
    }

    /// Of a job that runs for so many seconds.
    #[must_use]
    pub const fn of(run: u64) -> Self {
        match run {
            0..SHORT => Self::Short,
            SHORT..LONG => Self::Medium,
            LONG.. => Self::Long,
        }
    }
}

/// By the share of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    Narrow,
    Wide,
}

/// A kind of job, by both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// How long they run.
    pub length: Length,
    /// How much of the cluster they use.
    pub width: Width,
}

impl Class {
    /// Each, the narrow ones first.
    pub const ALL: [Self; 6] = {
        use {Length::*, Width::*};
        const fn class(length: Length, width: Width) -> Class {
            Class { length, width }
        }
        [
            class(Short, Narrow),
            class(Medium, Narrow),
            class(Long, Narrow),
            class(Short, Wide),
            class(Medium, Wide),
            class(Long, Wide),
        ]
    };

    /// Of a job, in a cluster with so much CPU.
    #[must_use]
    pub fn of(job: &TraceJob, capacity: f64) -> Self {
        let demand = f64::from(job.tasks) * f64::from(job.cpu);
        let width = if demand > capacity * WIDE {
            Width::Wide
        } else {
            Width::Narrow
        };
        Self {
            length: Length::of(job.run),
            width,
        }
    }

    /// Its place in [`Class::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.length as usize + self.width as usize * Length::ALL.len()
    }

    /// Its name, two words.
    #[must_use]
    pub fn name(self) -> String {
        let width = match self.width {
            Width::Narrow => "narrow",
            Width::Wide => "wide",
        };
        format!("{} {width}", self.length.name())
    }
}
