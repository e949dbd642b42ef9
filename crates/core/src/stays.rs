//! Which VMs jobs are on: what changes of it from one observation of Slurm to the next, to be kept longer than
//! Slurm shows it.

use crate::ids::{Generation, HostName, JobId, NodeName};
use crate::table::Table;
use crate::view::SlurmView;
use crate::world::NodeRecord;
use std::collections::BTreeMap;

/// A job on a node, in the VM that backs the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stay {
    pub job: JobId,
    /// Whose job it is.
    pub uid: u32,
    pub node: NodeName,
    /// Which VM of the node.
    pub generation: Generation,
    pub host: Option<HostName>,
    /// Whether it ended before it was kept.
    pub over: bool,
}

/// What changed between two observations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moves {
    /// Stays that are new, or whose host is.
    pub begun: Vec<Stay>,
    /// Jobs that have no nodes any more.
    pub left: Vec<JobId>,
    /// Whether `begun` is all that there is: who kept others before takes them for over.
    pub all: bool,
}

impl Moves {
    /// Whether there is nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.left.is_empty() && !self.all
    }

    /// Adds what changed after that.
    pub fn extend(&mut self, later: Self) {
        let over = self
            .begun
            .iter_mut()
            .filter(|stay| later.left.contains(&stay.job));
        over.for_each(|stay| stay.over = true);
        self.begun.extend(later.begun);
        self.left.extend(later.left);
        self.all |= later.all;
    }
}

/// The stays that are known, to tell what is new.
#[derive(Debug, Default)]
pub struct Stays {
    known: BTreeMap<JobId, Vec<Where>>,
    /// Whether any observation was followed.
    began: bool,
}

type Where = (NodeName, Generation, Option<HostName>);

impl Stays {
    /// Follows an observation of Slurm, by the records of the nodes' VMs.
    pub fn follow(&mut self, slurm: &SlurmView, records: &Table<NodeName, NodeRecord>) -> Moves {
        let mut moves = Moves {
            all: !self.began,
            ..Moves::default()
        };
        self.began = true;
        let gone = |job: &JobId| slurm.jobs.get(job).is_none_or(|seen| seen.nodes.is_empty());
        moves
            .left
            .extend(self.known.keys().filter(|job| gone(job)).copied());
        for job in &moves.left {
            self.known.remove(job);
        }
        for (id, job) in &slurm.jobs {
            let known = self.known.get(id).map_or(&[][..], Vec::as_slice);
            let mut fresh = Vec::new();
            for node in &job.nodes {
                let Some(vm) = records.get(node).and_then(|record| record.vm.as_ref()) else {
                    continue;
                };
                let is_known = |(at, generation, host): &Where| {
                    at == node && *generation == vm.generation && *host == vm.host
                };
                if !known.iter().any(is_known) {
                    fresh.push((node.clone(), vm.generation, vm.host.clone()));
                }
            }
            if fresh.is_empty() {
                continue;
            }
            moves
                .begun
                .extend(fresh.iter().map(|(node, generation, host)| Stay {
                    job: *id,
                    uid: job.uid,
                    node: node.clone(),
                    generation: *generation,
                    host: host.clone(),
                    over: false,
                }));
            let known = self.known.entry(*id).or_default();
            known.retain(|(node, ..)| fresh.iter().all(|(other, ..)| other != node));
            known.extend(fresh);
        }
        moves
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Time;
    use crate::view::{Shape, SlurmJob, VmSpec};
    use crate::vm::VmRecord;

    fn records(vms: &[(&str, u64, &str)]) -> Table<NodeName, NodeRecord> {
        let shape = Shape {
            cpus: 1,
            memory_mb: 100,
            share_percent: 100,
        };
        let record = |(node, generation, host): &(&str, u64, &str)| {
            let (host, spec) = (HostName::new(host).unwrap(), VmSpec::of_node(shape));
            let vm = VmRecord::asked(Generation(*generation), host, spec, Time(1));
            let record = NodeRecord {
                vm: Some(vm),
                ..NodeRecord::default()
            };
            (NodeName::new(node).unwrap(), record)
        };
        vms.iter().map(record).collect()
    }

    fn jobs(jobs: &[(u32, &[&str])]) -> SlurmView {
        let job = |(id, nodes): &(u32, &[&str])| {
            let job = SlurmJob {
                uid: 1000 + id,
                nodes: nodes.iter().map(|node| NodeName::new(node).unwrap()).collect(),
                ..SlurmJob::new(JobId(*id))
            };
            (job.id, job)
        };
        SlurmView {
            jobs: jobs.iter().map(job).collect(),
            ..SlurmView::default()
        }
    }

    fn told(moves: &Moves) -> Vec<String> {
        let begun = moves.begun.iter().map(|stay| {
            let host = stay.host.as_ref().map_or("?", HostName::as_str);
            format!(
                "{} of {} on {}.{} {host}",
                stay.job, stay.uid, stay.node, stay.generation
            )
        });
        begun
            .chain(moves.left.iter().map(|job| format!("{job} left")))
            .collect()
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut stays = Stays::default();
        let there = records(&[("a", 3, "h"), ("b", 1, "h")]);
        let first = stays.follow(&jobs(&[(7, &["a", "phys"]), (8, &[])]), &there);
        assert!(first.all);
        assert_eq!(told(&first), ["7 of 1007 on a.3 h"]);
        let same = stays.follow(&jobs(&[(7, &["a", "phys"])]), &there);
        assert!(same.is_empty(), "{same:?}");
        // Another job beside it, and another VM under it, on another host.
        let next = stays.follow(
            &jobs(&[(7, &["a"]), (9, &["a", "b"])]),
            &records(&[("a", 4, "i"), ("b", 1, "h")]),
        );
        assert_eq!(
            told(&next),
            ["7 of 1007 on a.4 i", "9 of 1009 on a.4 i", "9 of 1009 on b.1 h"]
        );
        // One is over, the other waits in the queue again.
        let over = stays.follow(&jobs(&[(9, &[])]), &there);
        assert_eq!(told(&over), ["7 left", "9 left"]);
        assert!(stays.follow(&jobs(&[(9, &[])]), &there).is_empty());
    }

    #[test]
    fn what_could_not_be_kept_is_kept_with_what_follows() {
        let mut stays = Stays::default();
        let there = records(&[("a", 3, "h")]);
        let mut kept = stays.follow(&jobs(&[(7, &["a"])]), &there);
        kept.extend(stays.follow(&jobs(&[(7, &["a"]), (8, &["a"])]), &there));
        assert!(kept.all);
        assert_eq!(told(&kept), ["7 of 1007 on a.3 h", "8 of 1008 on a.3 h"]);
        kept.extend(stays.follow(&jobs(&[]), &there));
        assert_eq!(kept.left, [JobId(7), JobId(8)]);
        assert!(kept.begun.len() == 2 && kept.begun.iter().all(|stay| stay.over));
    }
}
