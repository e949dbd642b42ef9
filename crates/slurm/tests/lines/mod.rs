//! Lines as `squeue` prints them.

use thiao_core::hostlist;
use thiao_core::view::{ArrayTasks, Gate, JobState, Request, SlurmJob};

/// The mark that the recordings were made with; real ones are random.
pub const MARK: &str = "@0123456789abcdef";

/// As squeue prints it, hostile devices included.
pub fn job_line(job: &SlurmJob) -> String {
    let state = match &job.state {
        JobState::Pending => "PENDING",
        JobState::Configuring => "CONFIGURING",
        JobState::Running => "RUNNING",
        JobState::Suspended => "SUSPENDED",
        JobState::Completing => "COMPLETING",
        JobState::Over(word) | JobState::Unknown(word) => word,
    };
    let SlurmJob {
        id,
        uid,
        user,
        partition,
        reason,
        priority,
        name,
        ..
    } = job;
    let or = |text: &str, none: &str| {
        if text.is_empty() {
            none.to_owned()
        } else {
            text.to_owned()
        }
    };
    let (array, tasks) = match &job.array {
        Some(ArrayTasks { job, tasks }) => {
            let tasks: Vec<String> = tasks.iter().map(u32::to_string).collect();
            (*job, tasks.join(","))
        }
        None => (*id, "N/A".to_owned()),
    };
    let account = or(&job.account, "(null)");
    let count = match job.node_count {
        n if n % 1024 == 0 => format!("{}K", n / 1024),
        n => n.to_string(),
    };
    let submit = job.submit.map_or("N/A".to_owned(), |t| (t.0 / 1000).to_string());
    let list = if job.nodes.is_empty() {
        String::new()
    } else {
        hostlist::fold(&job.nodes)
    };
    let licenses = match (job.gate, job.licenses.as_str()) {
        (Gate::Open, others) => or(others, "(null)"),
        (Gate::Waits, "") => "vm_room:1".to_owned(),
        (Gate::Waits, others) => format!("{others},vm_room:1"),
    };
    let Request {
        cpus,
        memory_mb,
        nodes,
        most_nodes,
        node_cpus,
        task_cpus: _,
        memory_by: _,
        gpus_by: _,
        gpus,
        whole_nodes,
    } = job.request;
    let sharing = match (whole_nodes, job.requeue) {
        (true, true) => "NO=oversubscribe",
        (true, false) => "NODE=exclusive",
        (false, true) => "OK=oversubscribe",
        (false, false) => "NO=exclusive",
    };
    let requeue = u8::from(job.requeue);
    let devices = format!("gres:gpu:{},gres:x:|y", gpus / nodes.max(1));
    let comment = job.admin_comment.as_deref().unwrap_or("(null)");
    format!(
        "{id}|{array}|{tasks}|N/A|{uid}|{partition}|{state}|{count}|1|{submit}|N/A|{list}|{priority}|\
         cpu={cpus},mem={memory_mb}M,node={nodes},billing=1|{requeue}|1|{most_nodes}|0|{node_cpus}|N/A|{sharing}\
         {MARK}{user}{MARK}{account}{MARK}{licenses}{MARK}{reason}{MARK}{devices}|N/A|N/A|N/A\
         {MARK}{comment}{MARK}{name}{MARK}\n"
    )
}
