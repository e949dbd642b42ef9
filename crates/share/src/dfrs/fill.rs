//! Progressive filling: each job gets as much as the most needed of its hosts can give to all who are there.

use crate::job::{Host, Slot};

/// A job that is to run: what each task can use, and where they are.
pub struct Placed<'a> {
    /// CPU of a task.
    pub cpu: u32,
    /// The hosts that they are on.
    pub slots: &'a [Slot],
}

/// The part of its need that a task gets, in hundredths: reckoned in floating point, since the published figures hang on
/// how 29 hundredths of 100 are rounded.
pub fn part(cpu: u32, hundredths: i64) -> u32 {
    let part = hundredths as f64 / 100.0;
    ((part * f64::from(cpu)) as u32).max(1)
}

/// What each job's tasks get; `need` is the CPU that is needed of each host.
pub fn fill(hosts: &[Host], need: &[u64], jobs: &[Placed<'_>]) -> Vec<u32> {
    let mut need: Vec<i64> = need.iter().map(|need| *need as i64).collect();
    if need
        .iter()
        .zip(hosts)
        .all(|(need, host)| *need <= i64::from(host.cpu))
    {
        return jobs.iter().map(|job| job.cpu).collect();
    }
    let mut free: Vec<i64> = hosts.iter().map(|host| i64::from(host.cpu)).collect();
    let mut on = vec![Vec::new(); hosts.len()];
    for (index, job) in jobs.iter().enumerate() {
        for slot in job.slots {
            on[slot.host.index()].push(index);
        }
    }
    let mut allocs: Vec<Option<u32>> = vec![None; jobs.len()];
    let mut unfilled: Vec<usize> = (0..hosts.len()).collect();
    let mut parts = vec![0; hosts.len()];
    loop {
        unfilled.retain(|host| need[*host] > 0);
        for &host in &unfilled {
            parts[host] = (100 * free[host]).div_euclid(need[host]).min(100);
        }
        let Some(least) = unfilled.iter().map(|host| parts[*host]).min() else {
            break;
        };
        for &host in unfilled.iter().filter(|host| parts[**host] == least) {
            for &index in &on[host] {
                if allocs[index].is_some() {
                    continue;
                }
                let alloc = part(jobs[index].cpu, least);
                allocs[index] = Some(alloc);
                for slot in jobs[index].slots {
                    free[slot.host.index()] -= i64::from(alloc) * i64::from(slot.tasks);
                    need[slot.host.index()] -= i64::from(jobs[index].cpu) * i64::from(slot.tasks);
                }
            }
        }
        unfilled.retain(|host| parts[*host] != least);
    }
    allocs
        .into_iter()
        .zip(jobs)
        .map(|(alloc, job)| alloc.unwrap_or(job.cpu))
        .collect()
}
