//! slurmctld's own log, whose times are exact to the millisecond
//! (`LogTimeFormat=iso8601_ms`; the lab's runs with `TZ=UTC`): what becomes of
//! jobs, and when nodes register. The words are those of 22.05.8.

/// One thing that the log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'a> {
    /// Something happened to a job, or to tasks of an array.
    Job(Which, Moment),
    /// A node's slurmd has registered.
    Registered(&'a str),
}

/// Which job, or tasks of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Which {
    /// The job's id, or its array's.
    pub id: u32,
    /// The task of the array; none: the whole job, or tasks that are still one record.
    pub task: Option<u32>,
}

/// A job's way through slurmctld. The order is that of a good day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// It is in the queue.
    Queued,
    /// It need not wait for capacity any more.
    Admitted,
    /// It has its nodes.
    Allocated,
    /// The prolog has ended and all nodes are there: Slurm launches it.
    Launched,
    /// The job is over.
    Ended,
}

impl Which {
    /// Whether that job, or task of an array, is among these.
    pub fn covers(self, id: u32, task: Option<u32>) -> bool {
        self.id == id && (self.task.is_none() || self.task == task)
    }

    /// `5`, `4_3(7)`, `4_[0-3,7]`, `4_*`, whatever follows.
    fn read(text: &str) -> Option<Self> {
        let (id, rest) = number(text)?;
        let task = rest.strip_prefix('_').and_then(number).map(|(task, _)| task);
        Some(Self { id, task })
    }
}

/// The number that a text begins with, and the rest.
fn number(text: &str) -> Option<(u32, &str)> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// All that the log tells, with the times in milliseconds since the epoch.
pub fn read(log: &str) -> impl Iterator<Item = (u64, Said<'_>)> {
    log.lines().filter_map(|line| {
        let (at, text) = line.strip_prefix('[')?.split_once("] ")?;
        Some((time(at)?, said(text)?))
    })
}

fn said(text: &str) -> Option<Said<'_>> {
    if let Some(node) = text
        .strip_prefix("Node ")
        .and_then(|text| text.strip_suffix(" now responding"))
    {
        return Some(Said::Registered(node));
    }
    let (before, after) = text.split_once("JobId=")?;
    let moment = if before.contains("submit_batch_job: ") {
        Moment::Queued
    } else if before.contains("changing licenses from ") {
        // 'vm_room,matlab:2' to 'matlab:2'
        let (from, to) = before.split_once(" to ")?;
        (from.contains("vm_room") && !to.contains("vm_room")).then_some(Moment::Admitted)?
    } else if before.ends_with("Started ") || before.ends_with("sched: Allocate ") {
        Moment::Allocated
    } else if before.ends_with("onfiguration for ") && after.ends_with(" complete") {
        Moment::Launched
    } else if before.ends_with("_job_complete: ") && after.ends_with(" done") {
        Moment::Ended
    } else {
        return None;
    };
    Some(Said::Job(Which::read(after)?, moment))
}

fn time(text: &str) -> Option<u64> {
    let time: jiff::civil::DateTime = text.parse().ok()?;
    let stamp = time.to_zoned_datetime(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    u64::try_from(stamp.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_way_is_read() {
        let log = "\
[1970-01-01T00:00:01.001] _slurm_rpc_submit_batch_job: JobId=5 InitPrio=4294901759 usec=413
[1970-01-01T00:00:01.002] _update_job: changing licenses from 'vm_room,a:2' to 'a:2' for pending JobId=5
[1970-01-01T00:00:01.003] sched/backfill: _start_job: Started JobId=5 in jobs on j1
[1970-01-01T00:00:01.004] Node j1 now responding
[1970-01-01T00:00:01.005] prolog_running_decr: Configuration for JobId=5 is complete
[1970-01-01T00:00:01.006] _job_complete: JobId=5 WEXITSTATUS 0
[1970-01-01T00:00:01.007] _job_complete: JobId=5 done
[1970-01-01T00:00:01.008] _update_job: changing licenses from 'a:2' to 'a:2,vm_room' for pending JobId=5
rubbish
[x] Node j1 now responding
";
        let job = |moment| Said::Job(Which { id: 5, task: None }, moment);
        let expected = [
            (1001, job(Moment::Queued)),
            (1002, job(Moment::Admitted)),
            (1003, job(Moment::Allocated)),
            (1004, Said::Registered("j1")),
            (1005, job(Moment::Launched)),
            (1007, job(Moment::Ended)),
        ];
        assert_eq!(read(log).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn tasks_of_arrays_are_told_apart() {
        let one = Which::read("4_3(7) is complete").unwrap();
        assert!(one.covers(4, Some(3)) && !one.covers(4, Some(2)) && !one.covers(5, Some(3)));
        for all in ["4_[0-3,7]", "4_*", "4"] {
            let all = Which::read(all).unwrap();
            assert!(all.covers(4, Some(3)) && all.covers(4, None) && !all.covers(40, None));
        }
        assert_eq!(Which::read("x"), None);
    }
}
