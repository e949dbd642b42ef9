//! Reads `squeue`'s listing of jobs.
//!
//! A job's name is whatever its user typed, newlines included (measured on 22.05.8: `sbatch -J $'a\nb'`
//! puts a second line into the listing), and an `AdminComment` what an administrator did; without accounting
//! an account is free text, too, and from 25.05 on licences hold bars (`-L 'a|b'`). So a mark that nobody can
//! guess ends a record's numbers and names of the site's, and behind them each text of the user's: no user can
//! forge a record, or bend one. Of his own job he can bend what it asks of devices.
//!
//! `tres-alloc` of a pending job is what it asks for (`cpu=6,mem=900M,node=1,billing=6`). Without
//! accounting it has no word of GPUs, which no slurmctld takes into `AccountingStorageTRES` then: they are
//! read from what the job asked per node, job, socket and task.
//!
//! By itself squeue puts pending tasks of an array into one record, with the licences of one of them, and
//! cuts their list at 64 characters. `-r` keeps it from both, on every version: a record that stands for
//! many tasks is then a line for each, all with the record's own JobID (seen on 22.05.8, 24.11.5, 26.05.5).
//! slurmctld has no more tasks than its `MaxJobCount` (10,000 by default). 100,000 tasks in one record:
//! 18 MB, 0.5 s CPU of squeue (22.05.8 and 24.11.5). Of regular steps (`0-40:2`) `-r` leaves the last task
//! out, on all three, as long as more than five are left.

use crate::error::SlurmError;
use crate::info::Version;
use crate::licenses;
use crate::names::GPU;
use crate::{nodes, words};
use std::collections::HashMap;
use std::num::NonZeroU32;
use thiao_core::ids::{JobId, Time};
use thiao_core::options::COMMENT_PREFIX;
use thiao_core::table::Table;
use thiao_core::view::{ArrayTasks, Gate, GpusBy, JobState, MemoryBy, Request, SlurmJob};

const WHAT: &str = "squeue's list of jobs";
const FIELDS: &str = "fifteen fields are expected";
const BAD_TASKS: &str = "the array's tasks are no list";
/// Most tasks that an array's record may stand for: Slurm's own bound of `MaxArraySize`.
const MAX_TASKS: usize = 4_000_001;

/// As many nodes as one controller minds; no job of ours gets more.
const MOST_NODES: u32 = 65_536;
/// The most memory that a job may have on all its nodes together, in MiB: 65,536 nodes of 16 TiB each. For each of
/// an array's tasks, [`MAX_TASKS`] at most, that is still far from what 64 bits hold.
pub(crate) const MOST_MEMORY_MB: u64 = 1 << 40;

/// What squeue shows of a job that has its nodes whole, with what we have it write behind that.
const WHOLE: [&str; 2] = ["NO=oversubscribe", "NODE=exclusive"];
/// How that field ends from 26.05 on.
const SINCE_26_05: &str = "=exclusive";

/// The value of `squeue -O` whose output [`parse`] reads. `mark` ends every record. `squeue` is the
/// release of that program: up to 25.11 `--exclusive` is `OverSubscribe` `NO`; 26.05 says `NO` there of
/// every job, and has a field of its own, for whose name older ones fail (22.05.8, 26.05.5).
#[must_use]
pub fn format(mark: &str, squeue: Option<Version>) -> String {
    let sharing = match squeue {
        Some(version) if version >= Version::new(26, 5, 0) => "Exclusive:=exclusive",
        Some(_) => "OverSubscribe:=oversubscribe",
        None => "OverSubscribe:=unknown",
    };
    format!(
        "JobID:|,ArrayJobID:|,ArrayTaskID:|,HetJobID:|,UserID:|,Partition:|,State:|,NumNodes:|,NumTasks:|,\
         SubmitTime:|,StartTime:|,NodeList:|,PriorityLong:|,tres-alloc:|,Requeue:|,BatchFlag:|,MaxNodes:|,\
         NTPerNode:|,MinCPUs:|,MinMemory:|,{sharing}{mark},UserName:{mark},Account:{mark},Licenses:{mark},\
         Reason:{mark},tres-per-node:|,tres-per-job:|,tres-per-socket:|,tres-per-task:{mark},\
         admin_comment:{mark},Name:{mark}"
    )
}

/// What stands behind the fields of a record: texts, each as its user or Slurm wrote it.
struct Words<'a> {
    user: &'a str,
    account: &'a str,
    licenses: &'a str,
    reason: &'a str,
    /// What it asks per node, job, socket and task, with bars between.
    devices: &'a str,
    comment: &'a str,
    name: &'a str,
}

/// Reads the whole listing; an error if it is cut off. A record that cannot be read is a job in a
/// [`JobState::Unknown`] that says why.
pub fn parse(text: &str, mark: &str) -> Result<Table<JobId, SlurmJob>, SlurmError> {
    let mut jobs = Listed::default();
    let mut rest = text;
    while !rest.trim_ascii().is_empty() {
        let mut after = rest;
        let mut piece = || {
            let cut_off = || SlurmError::unparsable(WHAT, rest.trim(), "the record is cut off");
            let (piece, more) = after.split_once(mark).ok_or_else(cut_off)?;
            after = more;
            Ok::<_, SlurmError>(piece)
        };
        let fields = piece()?;
        let words = Words {
            user: piece()?,
            account: piece()?,
            licenses: piece()?,
            reason: piece()?,
            devices: piece()?,
            comment: piece()?,
            name: piece()?,
        };
        rest = after.strip_prefix('\n').unwrap_or(after);
        if !jobs.more_tasks(fields) {
            jobs.add(parse_job(fields, &words)?);
        }
    }
    let mut jobs: Table<JobId, SlurmJob> = jobs.rows.into_iter().collect();
    for job in jobs.values_mut() {
        if let Some(array) = &mut job.array
            && !array.tasks.is_sorted_by(|a, b| a < b)
        {
            array.tasks.sort_unstable();
            array.tasks.dedup();
        }
    }
    wait_with_leader(&mut jobs);
    Ok(jobs)
}

/// Of a heterogeneous job all parts start together, and from 23.02 on only its leader may come with a
/// licence: where that one waits at the gate, all do.
fn wait_with_leader(jobs: &mut Table<JobId, SlurmJob>) {
    let waits = |job: &SlurmJob| job.state == JobState::Pending && job.gate == Gate::Waits;
    let leaders: Vec<JobId> = jobs
        .values()
        .filter(|job| job.het == Some(job.id) && waits(job))
        .map(|job| job.id)
        .collect();
    for part in jobs.values_mut().filter(|job| job.state == JobState::Pending) {
        if part
            .het
            .is_some_and(|leader| leaders.binary_search(&leader).is_ok())
        {
            part.gate = Gate::Waits;
        }
    }
}

/// What was read of a listing, in its own order: the most urgent job first.
#[derive(Default)]
struct Listed {
    rows: Vec<(JobId, SlurmJob)>,
    /// Where each job is.
    places: HashMap<JobId, usize>,
}

impl Listed {
    fn add(&mut self, job: SlurmJob) {
        self.places.insert(job.id, self.rows.len());
        self.rows.push((job.id, job));
    }

    /// Whether this is a further line of a record that stands for many tasks of an array, which it then gets.
    fn more_tasks(&mut self, record: &str) -> bool {
        let mut fields = record.splitn(4, '|');
        let id = fields.next().and_then(number).map(JobId);
        let array = fields.next().and_then(number).map(JobId);
        let list = fields.next().and_then(some);
        let at = id.and_then(|id| self.places.get(&id).copied());
        let Some((_, job)) = at.and_then(|at| self.rows.get_mut(at)) else {
            return false;
        };
        let known = job.array.as_mut().filter(|known| Some(known.job) == array);
        let (Some(known), Some(list)) = (known, list) else {
            return false;
        };
        match tasks(list) {
            Some(more) if known.tasks.len().saturating_add(more.len()) <= MAX_TASKS => {
                known.tasks.extend(more)
            }
            Some(_) | None => job.state = JobState::Unknown(format!("unreadable: {BAD_TASKS}")),
        }
        true
    }
}

/// Reads one record. What of it cannot be read costs this job alone: it is there, in an unknown state that
/// says why, with what could be read before. A listing without ids is none.
fn parse_job(record: &str, words: &Words<'_>) -> Result<SlurmJob, SlurmError> {
    let mut fields = record.splitn(17, '|');
    let id = fields.next().and_then(number);
    let id = id.ok_or_else(|| SlurmError::unparsable(WHAT, record, "the job id is no number"))?;
    let mut job = SlurmJob::new(JobId(id));
    words.name.clone_into(&mut job.name);
    words.user.clone_into(&mut job.user);
    some(words.account)
        .unwrap_or_default()
        .clone_into(&mut job.account);
    job.reason = words::job_reason(words.reason);
    (job.gate, job.licenses) = licenses::split(some(words.licenses).unwrap_or_default());
    job.admin_comment = some(words.comment).map(str::to_owned);
    job.has_options = job.admin_comment.as_deref().is_some_and(has_options);
    if let Err(why) = read_fields(&mut job, fields, words.devices) {
        job.state = JobState::Unknown(format!("unreadable: {why}"));
    }
    Ok(job)
}

/// Reads what comes behind the id; the error says what cannot be read.
fn read_fields<'a>(
    job: &mut SlurmJob,
    mut fields: impl Iterator<Item = &'a str>,
    devices: &str,
) -> Result<(), &'static str> {
    let mut field = || fields.next().ok_or(FIELDS);
    let (array_job, list, het) = (field()?, field()?, field()?);
    let uid = uid(field()?);
    field()?.clone_into(&mut job.partition);
    let state = parse_state(field()?.trim());
    let (node_count, task_count) = (parse_count(field()?), parse_count(field()?).unwrap_or(1));
    job.submit = parse_time(field()?);
    job.start = parse_time(field()?);
    let nodes = some(field()?).map_or(Ok((Vec::new(), true)), nodes::names);
    let (nodes, all_nodes) = nodes.unwrap_or_default();
    job.nodes = nodes;
    let priority = field()?.trim().parse();
    let tres = some(field()?).unwrap_or_default();
    let requeue = field()?.trim() == "1";
    let batch = field()?.trim() == "1";
    job.requeue = requeue && batch;

    job.array = match some(list) {
        Some(list) => Some(ArrayTasks {
            job: JobId(number(array_job).ok_or("the array's id is no number")?),
            tasks: tasks(list).ok_or(BAD_TASKS)?,
        }),
        None => None,
    };
    job.het = some(het).and_then(number).map(JobId);
    job.uid = uid.ok_or("the uid is no number")?;
    job.node_count = node_count.ok_or("the node count is no number")?;
    if !all_nodes {
        return Err("its nodes are no list of names");
    }
    job.priority = priority.map_err(|_| "the priority is no number")?;
    job.request = request(tres, job.node_count);
    let rest = fields.next().unwrap_or_default();
    let (gpus, by) = gpus(devices, job.request.nodes, task_count);
    job.request.gpus_by = by;
    if job.request.gpus == 0 {
        job.request.gpus = gpus;
    }
    more_of_request(&mut job.request, rest, job.node_count, task_count);
    believable(&job.request)?;
    job.state = state;
    Ok(())
}

/// Whether there could be a cluster that has what is asked for.
fn believable(request: &Request) -> Result<(), &'static str> {
    if request.nodes.max(request.most_nodes) > MOST_NODES {
        return Err("it asks for more nodes than Slurm can have");
    }
    if request.memory_mb > MOST_MEMORY_MB {
        return Err("it asks for more memory than all nodes can have");
    }
    Ok(())
}

/// A value that is there: squeue has several words for one that is not.
fn some(text: &str) -> Option<&str> {
    let text = text.trim();
    (!matches!(text, "" | "(null)" | "N/A")).then_some(text)
}

/// A user's number. Slurm prints those from 2^31 on as negative ones (22.05.8).
pub(crate) fn uid(text: &str) -> Option<u32> {
    let number: i64 = text.trim().parse().ok()?;
    u32::try_from(number)
        .ok()
        .or_else(|| i32::try_from(number).ok().map(i32::cast_unsigned))
}

fn number(text: &str) -> Option<u32> {
    text.trim().parse().ok()
}

/// Whether the comment has options for VMs: something between its prefix and what we add for people.
fn has_options(comment: &str) -> bool {
    let options = comment
        .strip_prefix(COMMENT_PREFIX)
        .and_then(|rest| rest.split(';').next());
    options.is_some_and(|options| !options.trim().is_empty())
}

/// Slurm's word for a job's state, long (`CONFIGURING`).
#[must_use]
pub fn parse_state(word: &str) -> JobState {
    match word {
        "PENDING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "SPECIAL_EXIT" | "RESV_DEL_HOLD" => {
            JobState::Pending
        }
        "CONFIGURING" | "POWER_UP_NODE" => JobState::Configuring,
        "RUNNING" | "RESIZING" | "SIGNALING" => JobState::Running,
        "SUSPENDED" | "STOPPED" => JobState::Suspended,
        "COMPLETING" | "STAGE_OUT" => JobState::Completing,
        "COMPLETED" | "CANCELLED" | "FAILED" | "TIMEOUT" | "NODE_FAIL" | "PREEMPTED" | "BOOT_FAIL"
        | "DEADLINE" | "OUT_OF_MEMORY" | "REVOKED" | "LAUNCH_FAILED" | "RECONFIG_FAIL" => {
            JobState::Over(word.to_owned())
        }
        _ => JobState::Unknown(word.to_owned()),
    }
}

/// The tasks of an array as squeue lists them: `3,7-9`, `0-20:2%3`; what comes behind `%` is how many may
/// run at once.
fn tasks(list: &str) -> Option<Vec<u32>> {
    let list = list.split('%').next().unwrap_or_default();
    let mut tasks = Vec::new();
    for part in list.split(',') {
        let (range, step) = match part.split_once(':') {
            Some((range, step)) => (range, number(step)?),
            None => (part, 1),
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(range)?, number(range)?),
        };
        let step = usize::try_from(step).ok().filter(|step| *step > 0)?;
        let count = usize::try_from(last.checked_sub(first)?).ok()? / step + 1;
        if tasks.len().saturating_add(count) > MAX_TASKS {
            return None;
        }
        tasks.extend((first..=last).step_by(step));
    }
    Some(tasks)
}

/// Reads `cpu=6,mem=900M,node=1,billing=6,gres/gpu=2`; words that we do not know are left out.
fn request(tres: &str, node_count: u32) -> Request {
    let mut request = Request {
        nodes: node_count,
        ..Request::default()
    };
    for word in tres.split(',') {
        let Some((key, value)) = word.split_once('=') else {
            continue;
        };
        match key {
            "cpu" => request.cpus = parse_count(value).unwrap_or(0),
            "mem" => request.memory_mb = memory_mb(value).unwrap_or(0),
            "node" => request.nodes = parse_count(value).unwrap_or(node_count),
            "gres/gpu" => request.gpus = parse_count(value).unwrap_or(0),
            _ => {}
        }
    }
    request
}

/// Reads the last fields of a record: how Slurm may share out what the
/// job asks for. `shown` is its `NumNodes`, `tasks` its `NumTasks`.
///
/// Of a range (`-N1-4`) `NumNodes` is what Slurm would give, once it has looked at the job, and the fewest
/// before; `MaxNodes` is the most. A job that names no count gets the fewest that hold its tasks, which
/// `NumNodes` is then; 26.05 says that such a job has at most as many nodes as tasks, and gives it the fewest
/// all the same (22.05.8, 24.11.5, 26.05.5). There a range that ends with the number of tasks, at which Slurm
/// has not looked yet, is not told from none.
fn more_of_request(request: &mut Request, fields: &str, shown: u32, tasks: u32) {
    let mut words = fields.rsplit('|').map(str::trim);
    let mut word = || words.next().unwrap_or_default();
    let sharing = word();
    request.whole_nodes = WHOLE.contains(&sharing);
    let memory = memory_mb(word());
    request.node_cpus = parse_count(word()).unwrap_or(0);
    let tasks_each = parse_count(word()).unwrap_or(0);
    let most = parse_count(word()).unwrap_or(0);
    let of_tasks = sharing.ends_with(SINCE_26_05) && most > shown && most == tasks;
    // More than there can be is as good as all.
    request.most_nodes = if of_tasks {
        shown
    } else {
        most.min(MOST_NODES).max(shown)
    };
    if request.cpus.checked_rem(tasks) == Some(0) {
        request.task_cpus = request.cpus / tasks;
    }
    let is = |times: u32| memory.is_some_and(|each| each.saturating_mul(times.into()) == request.memory_mb);
    request.memory_by = match (is(request.cpus), is(request.nodes)) {
        (true, false) => MemoryBy::Cpu,
        (false, true) => MemoryBy::Node,
        (true, true) | (false, false) => MemoryBy::Unknown,
    };
    // Up to 24.11 what is asked for is told as if one node held all tasks, and on all as if one had all GPUs.
    let holding = match (tasks_each, request.gpus_by) {
        (0, GpusBy::Job) => shown,
        (0, GpusBy::Node | GpusBy::Task(_)) => 1,
        (each, _) => tasks.div_ceil(each),
    };
    if holding > request.nodes {
        request.nodes = holding;
        if let (MemoryBy::Node, Some(each)) = (request.memory_by, memory) {
            request.memory_mb = each.saturating_mul(holding.into());
        }
    }
}

/// Memory as Slurm writes it, in MiB: `900M`, `2G`, `1.50T`.
fn memory_mb(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, unit_kb) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1),
        b'M' => (&text[..text.len() - 1], 1 << 10),
        b'G' => (&text[..text.len() - 1], 1 << 20),
        b'T' => (&text[..text.len() - 1], 1 << 30),
        b'P' => (&text[..text.len() - 1], 1 << 40),
        _ => (text, 1 << 10),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let whole: u64 = whole.parse().ok()?;
    let tenths = 10u64.checked_pow(u32::try_from(part.len()).ok()?)?;
    let part = part.parse::<u64>().ok()?.checked_mul(unit_kb)? / tenths;
    Some(whole.checked_mul(unit_kb)?.checked_add(part)? / 1024)
}

/// GPUs of a whole job by what it asked per node, job, socket and task, and by which of these. A job that says
/// it in more than one way means the same ones.
fn gpus(asked: &str, nodes: u32, tasks: u32) -> (u32, GpusBy) {
    if !asked.contains(GPU) {
        return (0, GpusBy::Node);
    }
    let mut asked = asked.splitn(5, '|').map(|list| gres_count(list, GPU));
    let mut next = || asked.next().unwrap_or(0);
    let (node, job, socket, task) = (next(), next(), next(), next());
    let by = match (NonZeroU32::new(task), job) {
        (Some(each), _) => GpusBy::Task(each),
        (None, 1..) => GpusBy::Job,
        (None, 0) => GpusBy::Node,
    };
    // A node of job mode is one socket.
    let all = [
        node.saturating_mul(nodes),
        job,
        socket.saturating_mul(nodes),
        task.saturating_mul(tasks),
    ]
    .into_iter()
    .max()
    .unwrap_or(0);
    (all, by)
}

/// How many of a kind a list of generic resources has: `gres:gpu:tesla:2,gres:vm:1`, `gpu:2(IDX:0-1),vm:1`.
pub(crate) fn gres_count(list: &str, kind: &str) -> u32 {
    if !list.contains(kind) {
        return 0;
    }
    let mut depth = 0_u32;
    let plain: String = list
        .chars()
        .filter(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => return depth == 0,
            }
            false
        })
        .collect();
    let count = |item: &str| {
        let item = item.trim();
        let item = item
            .strip_prefix("gres:")
            .or_else(|| item.strip_prefix("gres/"))
            .unwrap_or(item);
        let mut parts = item.split([':', '=']);
        if parts.next() != Some(kind) {
            return 0;
        }
        // A kind alone, or one with a type, is one.
        parts.next_back().map_or(1, |last| parse_count(last).unwrap_or(1))
    };
    plain
        .split(',')
        .fold(0_u32, |sum, item| sum.saturating_add(count(item)))
}

/// A count as squeue prints it: a number, with `K` or `M` for exact multiples of 1024, or the least of a range.
pub(crate) fn parse_count(text: &str) -> Option<u32> {
    let text = text.trim();
    let least = text.split_once('-').map_or(text, |(least, _)| least);
    let (digits, unit) = match least.as_bytes().last()? {
        b'K' => (&least[..least.len() - 1], 1024),
        b'M' => (&least[..least.len() - 1], 1024 * 1024),
        _ => (least, 1),
    };
    digits.parse::<u32>().ok()?.checked_mul(unit)
}

/// Seconds since the epoch (`SLURM_TIME_FORMAT=%s`); anything else, such as `N/A`, is no time.
fn parse_time(text: &str) -> Option<Time> {
    let secs: u64 = text.trim().parse().ok()?;
    (secs > 0).then(|| Time(secs.saturating_mul(1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_of_arrays_are_read() {
        assert_eq!(tasks("3,7-9"), Some(vec![3, 7, 8, 9]));
        assert_eq!(tasks("0-20:5%3"), Some(vec![0, 5, 10, 15, 20]));
        assert_eq!(tasks("0-499%50").map(|t| t.len()), Some(500));
        for bad in ["", "3-", "9-7", "a", "0-4:0", "0-4294967295"] {
            assert_eq!(tasks(bad), None, "{bad}");
        }
    }

    #[test]
    fn users_with_the_highest_numbers_are_read() {
        for (text, number) in [
            ("1000", 1000),
            ("-1294967296", 3_000_000_000),
            ("3000000000", 3_000_000_000),
        ] {
            assert_eq!(uid(text), Some(number), "{text}");
        }
        for bad in ["", "x", "4294967296", "-2147483649"] {
            assert_eq!(uid(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_a_job_asks_for_is_read() {
        let asked = request("cpu=6,mem=900M,node=2,billing=6,gres/gpu=4,gres/gpu:tesla=4", 1);
        let wanted = Request {
            cpus: 6,
            memory_mb: 900,
            nodes: 2,
            gpus: 4,
            ..Request::default()
        };
        assert_eq!(asked, wanted);
        assert_eq!(request("", 3).nodes, 3);
        for (text, mb) in [
            ("1.50G", 1536),
            ("2T", 2 << 20),
            ("512K", 0),
            ("900", 900),
            ("2048K", 2),
        ] {
            assert_eq!(memory_mb(text), Some(mb), "{text}");
        }
        for bad in [
            "",
            "G",
            "1.x",
            "99999999999999999999G",
            "1.99999999999999999999999M",
        ] {
            assert_eq!(memory_mb(bad), None, "{bad}");
        }
    }

    #[test]
    fn gpus_are_counted_however_they_are_asked_for() {
        let two = NonZeroU32::MIN.saturating_add(1);
        assert_eq!(gpus("gres:gpu:1,gres:vm:1|N/A|N/A|N/A", 2, 2), (2, GpusBy::Node));
        assert_eq!(gpus("gres:vm:1|gres:gpu:3|N/A|N/A", 2, 2), (3, GpusBy::Job));
        assert_eq!(
            gpus("gres:vm:1|N/A|N/A|gres:gpu:tesla:2", 1, 4),
            (8, GpusBy::Task(two))
        );
        assert_eq!(gpus("gres:gpu|N/A|gres:gpu|N/A", 4, 4), (4, GpusBy::Node));
        assert_eq!(gpus("", 1, 1), (0, GpusBy::Node));
        assert_eq!(gres_count("vm:1,gpu:tesla:2(IDX:0,2),gpu:k:1(S:0)", "gpu"), 3);
    }
}
