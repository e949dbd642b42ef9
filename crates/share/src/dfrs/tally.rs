//! What jobs that are on hosts, or are to be, need of them; and the greedy choice of hosts.

use crate::job::{Host, HostId, Job, Slot};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// For each host, what its jobs need together.
#[derive(Debug, Clone)]
pub struct Tally {
    hosts: Vec<Host>,
    /// CPU: more than there is, where jobs share.
    need: Vec<u64>,
    memory: Vec<u64>,
}

impl Tally {
    /// Of hosts on which nobody is.
    pub fn new(hosts: &[Host]) -> Self {
        Self {
            hosts: hosts.to_vec(),
            need: vec![0; hosts.len()],
            memory: vec![0; hosts.len()],
        }
    }

    /// The CPU that is needed, by host.
    pub fn need(&self) -> &[u64] {
        &self.need
    }

    /// From now on nobody is anywhere.
    pub fn clear(&mut self) {
        self.need.fill(0);
        self.memory.fill(0);
    }

    /// A job is there, too.
    pub fn add(&mut self, job: &Job, slots: &[Slot]) {
        for slot in slots {
            self.need[slot.host.index()] += u64::from(job.cpu) * u64::from(slot.tasks);
            self.memory[slot.host.index()] += u64::from(job.memory) * u64::from(slot.tasks);
        }
    }

    /// A job is there no more.
    pub fn remove(&mut self, job: &Job, slots: &[Slot]) {
        for slot in slots {
            self.need[slot.host.index()] -= u64::from(job.cpu) * u64::from(slot.tasks);
            self.memory[slot.host.index()] -= u64::from(job.memory) * u64::from(slot.tasks);
        }
    }

    /// Whether there is memory for it just there.
    pub fn holds(&self, job: &Job, slots: &[Slot]) -> bool {
        slots.iter().all(|slot| {
            let host = slot.host.index();
            self.memory[host] + u64::from(job.memory) * u64::from(slot.tasks)
                <= u64::from(self.hosts[host].memory)
        })
    }

    /// For how many more tasks of a job a host has memory.
    fn tasks(&self, host: usize, job: &Job) -> u64 {
        match job.memory {
            0 => u64::from(job.tasks),
            memory => {
                u64::from(self.hosts[host].memory).saturating_sub(self.memory[host]) / u64::from(memory)
            }
        }
    }

    /// Whether all tasks of a job have memory.
    pub fn fits(&self, job: &Job) -> bool {
        let mut room = 0;
        (0..self.hosts.len()).any(|host| {
            room += self.tasks(host, job);
            room >= u64::from(job.tasks)
        })
    }

    /// Task by task the host of which least CPU is needed, among those with memory; the job is added there.
    pub fn greedy(&mut self, job: &Job) -> Option<Vec<Slot>> {
        if !self.fits(job) {
            return None;
        }
        let mut heap: BinaryHeap<Reverse<(u64, usize)>> = (0..self.hosts.len())
            .filter(|host| self.tasks(*host, job) > 0)
            .map(|host| Reverse((self.need[host], host)))
            .collect();
        let mut counts = vec![0; self.hosts.len()];
        for _ in 0..job.tasks {
            let Reverse((_, host)) = heap.pop()?;
            counts[host] += 1;
            self.need[host] += u64::from(job.cpu);
            self.memory[host] += u64::from(job.memory);
            if self.tasks(host, job) > 0 {
                heap.push(Reverse((self.need[host], host)));
            }
        }
        let used = counts.into_iter().enumerate().filter(|(_, tasks)| *tasks > 0);
        Some(
            used.map(|(host, tasks)| Slot {
                host: HostId(host as u32),
                tasks,
            })
            .collect(),
        )
    }
}
