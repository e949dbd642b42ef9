//! What is odd about a log, counted: real ones are never clean, and a figure is worth what it leaves out.

use std::fmt;

/// How many malformed lines are kept for showing.
const KEPT: usize = 5;

/// Ways in which a job of a real log is odd, each with what is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oddity {
    /// The line ends early.
    Short,
    /// Nobody knows when it was submitted.
    NoSubmit,
    /// Its run time is unknown or nothing.
    NoRun,
    /// It has no processors.
    NoProcessors,
    /// Not a job, but what one did between two checkpoints.
    Part,
    /// Not a job, but a step of one.
    Step,
    /// It was cancelled or failed before it began.
    NeverRan,
    /// It waited, ran or was suspended when the log was written.
    Unfinished,
    /// It needs more than all hosts have.
    Wider,
    /// It got other than it asked for.
    ProcessorsDiffer,
    /// A task of it asks for more CPU than a host has.
    CpuCut,
    /// A task of it asks for more memory than a host has.
    MemoryCut,
    /// Its memory is unknown.
    NoMemory,
    /// Its memory is known, and that of a host is not.
    MemoryIgnored,
    /// It has no time limit.
    NoLimit,
    /// It ran for longer than its time limit.
    OverLimit,
    /// Its user is unknown.
    NoUser,
    /// It was held for some time after its submission: by a dependency, or on its user's wish.
    Held,
    /// It stands behind one that was submitted later.
    Disordered,
    /// Its times are in an hour that was skipped, or was there twice.
    ClockChange,
}

impl Oddity {
    /// All ways to be odd, in the order in which they are told.
    pub const ALL: [Self; 20] = [
        Self::Short,
        Self::NoSubmit,
        Self::NoRun,
        Self::NoProcessors,
        Self::Part,
        Self::Step,
        Self::NeverRan,
        Self::Unfinished,
        Self::Wider,
        Self::ProcessorsDiffer,
        Self::CpuCut,
        Self::MemoryCut,
        Self::NoMemory,
        Self::MemoryIgnored,
        Self::NoLimit,
        Self::OverLimit,
        Self::NoUser,
        Self::Held,
        Self::Disordered,
        Self::ClockChange,
    ];

    /// Whether such a line is left out.
    #[must_use]
    pub const fn left_out(self) -> bool {
        match self {
            Self::NoSubmit
            | Self::NoRun
            | Self::NoProcessors
            | Self::Part
            | Self::Step
            | Self::NeverRan
            | Self::Unfinished
            | Self::Wider => true,
            Self::Short
            | Self::ProcessorsDiffer
            | Self::CpuCut
            | Self::MemoryCut
            | Self::NoMemory
            | Self::MemoryIgnored
            | Self::NoLimit
            | Self::OverLimit
            | Self::NoUser
            | Self::Held
            | Self::Disordered
            | Self::ClockChange => false,
        }
    }

    /// One word for programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Short => "short_line",
            Self::NoSubmit => "no_submit",
            Self::NoRun => "no_run",
            Self::NoProcessors => "no_processors",
            Self::Part => "part",
            Self::Step => "step",
            Self::NeverRan => "never_ran",
            Self::Unfinished => "unfinished",
            Self::Wider => "wider",
            Self::ProcessorsDiffer => "processors_differ",
            Self::CpuCut => "cpu_cut",
            Self::MemoryCut => "memory_cut",
            Self::NoMemory => "no_memory",
            Self::MemoryIgnored => "memory_ignored",
            Self::NoLimit => "no_limit",
            Self::OverLimit => "over_limit",
            Self::NoUser => "no_user",
            Self::Held => "held",
            Self::Disordered => "disordered",
            Self::ClockChange => "clock_change",
        }
    }
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "line ends early: what is missing counts as unknown",
            Self::NoSubmit => "no time of submission: left out",
            Self::NoRun => "no run time, or 0 s: left out",
            Self::NoProcessors => "no processors: left out",
            Self::Part => "part of a job that has a line of its own: left out",
            Self::Step => "step of a job: left out",
            Self::NeverRan => "never ran: left out",
            Self::Unfinished => "had not ended when the log was written: left out",
            Self::Wider => "needs more than all hosts have: left out",
            Self::ProcessorsDiffer => "got other processors than it asked for: the rule says which count",
            Self::CpuCut => "asks for more CPU than a host has: gets a whole host's",
            Self::MemoryCut => "asks for more memory than a host has: gets a whole host's",
            Self::NoMemory => "memory unknown: gets the default share",
            Self::MemoryIgnored => "memory known, but not that of a host: gets the default share",
            Self::NoLimit => "no time limit: its run time counts as it",
            Self::OverLimit => "ran longer than its time limit: the limit is its run time",
            Self::NoUser => "user unknown: all of these are one",
            Self::Held => "held after its submission: comes when it may run",
            Self::Disordered => "stands behind one that came later: sorted",
            Self::ClockChange => "time in the hour of a clock change: the one that fits",
        })
    }
}

/// A line that nobody can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// What was odd about a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Odd {
    counts: [u64; Oddity::ALL.len()],
    /// How many lines could not be read.
    pub malformed: u64,
    /// The first few of them.
    pub first: Vec<Malformed>,
}

impl Odd {
    /// One more of a kind.
    pub fn count(&mut self, kind: Oddity) {
        self.counts[kind as usize] += 1;
    }

    /// One more line that cannot be read.
    pub fn malformed(&mut self, line: u64, why: String) {
        self.malformed += 1;
        if self.first.len() < KEPT {
            self.first.push(Malformed { line, why });
        }
    }

    /// How many there were of a kind.
    #[must_use]
    pub const fn of(&self, kind: Oddity) -> u64 {
        self.counts[kind as usize]
    }

    /// The kinds that there were, with how many.
    pub fn kinds(&self) -> impl Iterator<Item = (Oddity, u64)> + '_ {
        Oddity::ALL
            .into_iter()
            .map(|kind| (kind, self.of(kind)))
            .filter(|(_, count)| *count > 0)
    }

    /// How many jobs of the log are not in the workload.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.kinds()
            .filter(|(kind, _)| kind.left_out())
            .map(|(_, count)| count)
            .sum::<u64>()
            + self.malformed
    }

    /// Adds what was found later.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.malformed += other.malformed;
        let room = KEPT - self.first.len();
        self.first.extend(other.first.iter().take(room).cloned());
    }
}

/// A line for each kind, then the first of the malformed ones; nothing if nothing was odd.
impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, count) in self.kinds() {
            writeln!(f, "{count:>9}  {kind}")?;
        }
        if self.malformed > 0 {
            writeln!(f, "{:>9}  malformed: left out", self.malformed)?;
            for Malformed { line, why } in &self.first {
                writeln!(f, "{:>9}  line {line}: {why}", "")?;
            }
            if self.malformed > self.first.len() as u64 {
                writeln!(f, "{:>9}  ...", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_place_and_word() {
        for (at, kind) in Oddity::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
            let same = Oddity::ALL
                .into_iter()
                .filter(|other| other.word() == kind.word());
            assert_eq!(same.count(), 1, "{kind}");
            assert_eq!(kind.to_string().ends_with("left out"), kind.left_out(), "{kind}");
        }
    }

    #[test]
    fn what_is_found_later_is_added() {
        let mut odd = Odd::default();
        odd.count(Oddity::Wider);
        (1..=4).for_each(|line| odd.malformed(line, "nonsense".into()));
        let mut both = odd.clone();
        both.add(&odd);
        assert_eq!(
            (both.of(Oddity::Wider), both.malformed, both.left_out()),
            (2, 8, 10)
        );
        assert_eq!(
            both.first
                .iter()
                .map(|malformed| malformed.line)
                .collect::<Vec<_>>(),
            [1, 2, 3, 4, 1]
        );
        assert!(both.to_string().ends_with("...\n"), "{both}");
    }
}
