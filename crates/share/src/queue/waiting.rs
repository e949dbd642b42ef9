//! Who waits, in an order, searched by what they need: a treap, so that a queue of any length costs little.

use crate::job::{Job, JobId, Ms};

/// A job's place in the order of the search.
pub type Key = (u64, u64);

/// What a job needs; of a part of the queue, the least of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// CPU of all tasks.
    pub total: u64,
    /// How many tasks it has.
    pub tasks: u32,
    /// CPU of one of them.
    pub cpu: u32,
    /// Memory of one of them.
    pub memory: u32,
    /// How long, as far as is known.
    pub limit: Ms,
}

impl Need {
    /// What this job needs, from what is known of it.
    pub fn of(job: &Job) -> Self {
        Self {
            total: job.demand(),
            tasks: job.tasks,
            cpu: job.cpu,
            memory: job.memory,
            limit: job.limit,
        }
    }

    fn least(self, other: Self) -> Self {
        Self {
            total: self.total.min(other.total),
            tasks: self.tasks.min(other.tasks),
            cpu: self.cpu.min(other.cpu),
            memory: self.memory.min(other.memory),
            limit: self.limit.min(other.limit),
        }
    }

    /// Whether there is no room for it wherever there is none for the other: it has as many tasks, each as big.
    fn covers(&self, other: &Self) -> bool {
        self.tasks >= other.tasks && self.cpu >= other.cpu && self.memory >= other.memory
    }
}

/// What was found to have no room: the smallest such needs alone.
#[derive(Debug, Default)]
pub struct NoRoom(Vec<Need>);

impl NoRoom {
    /// There was no room for this.
    pub fn add(&mut self, need: Need) {
        self.0.retain(|known| !known.covers(&need));
        self.0.push(need);
    }

    /// Whether there can be some for this.
    pub fn allows(&self, need: &Need) -> bool {
        !self.0.iter().any(|known| need.covers(known))
    }
}

/// Where there is no node.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone)]
struct Node {
    key: Key,
    id: JobId,
    need: Need,
    least: Need,
    left: u32,
    right: u32,
}

/// The waiting jobs, each with its place in the order of the search.
#[derive(Debug, Clone)]
pub struct Waiting {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
}

/// Which of two nodes is nearer to the root: drawn from the index alone, so that all runs are alike.
fn weight(node: u32) -> u64 {
    let mixed = (u64::from(node) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            root: NONE,
        }
    }
}

impl Waiting {
    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    fn update(&mut self, at: u32) {
        let Node {
            need, left, right, ..
        } = *self.node(at);
        let mut least = need;
        for child in [left, right] {
            if child != NONE {
                least = least.least(self.node(child).least);
            }
        }
        self.nodes[at as usize].least = least;
    }

    /// Those before `key`, and the others.
    fn split(&mut self, at: u32, key: Key) -> (u32, u32) {
        if at == NONE {
            return (NONE, NONE);
        }
        let Node {
            key: own,
            left,
            right,
            ..
        } = *self.node(at);
        if own < key {
            let (low, high) = self.split(right, key);
            self.nodes[at as usize].right = low;
            self.update(at);
            (at, high)
        } else {
            let (low, high) = self.split(left, key);
            self.nodes[at as usize].left = high;
            self.update(at);
            (low, at)
        }
    }

    fn merge(&mut self, low: u32, high: u32) -> u32 {
        if low == NONE {
            return high;
        }
        if high == NONE {
            return low;
        }
        if weight(low) > weight(high) {
            let right = self.node(low).right;
            let merged = self.merge(right, high);
            self.nodes[low as usize].right = merged;
            self.update(low);
            low
        } else {
            let left = self.node(high).left;
            let merged = self.merge(low, left);
            self.nodes[high as usize].left = merged;
            self.update(high);
            high
        }
    }

    /// One more waits; nobody has its key yet.
    pub fn insert(&mut self, key: Key, id: JobId, need: Need) {
        let node = Node {
            key,
            id,
            need,
            least: need,
            left: NONE,
            right: NONE,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        };
        let (low, high) = self.split(self.root, key);
        let low = self.merge(low, at);
        self.root = self.merge(low, high);
    }

    /// It waits no more; says whether it did.
    pub fn remove(&mut self, key: Key) -> bool {
        let (low, rest) = self.split(self.root, key);
        let (found, high) = self.split(rest, (key.0, key.1 + 1));
        self.root = self.merge(low, high);
        if found != NONE {
            self.free.push(found);
        }
        found != NONE
    }

    /// The first after `after` whose need passes. A need that passes must also pass with less of anything.
    pub fn next(&self, after: Option<Key>, passes: &dyn Fn(Need) -> bool) -> Option<(Key, JobId)> {
        self.find(self.root, after, passes)
    }

    fn find(&self, at: u32, after: Option<Key>, passes: &dyn Fn(Need) -> bool) -> Option<(Key, JobId)> {
        if at == NONE {
            return None;
        }
        let node = self.node(at);
        if !passes(node.least) {
            return None;
        }
        if after.is_some_and(|after| node.key <= after) {
            return self.find(node.right, after, passes);
        }
        if let Some(found) = self.find(node.left, after, passes) {
            return Some(found);
        }
        if passes(node.need) {
            return Some((node.key, node.id));
        }
        self.find(node.right, None, passes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// What is found is what a walk over a sorted table finds.
        #[test]
        fn finds_as_a_walk_does(
            steps in proptest::collection::vec((0u64..40, 1u64..20, 1u64..20, any::<bool>()), 1..120),
            cpu in 1u64..20,
            limit in 1u64..20,
            after in proptest::option::of(0u64..40),
        ) {
            let (mut waiting, mut table) = (Waiting::default(), BTreeMap::new());
            for (seq, cpu, limit, comes) in steps {
                let small = cpu as u32;
                let need = Need { total: cpu, tasks: 1, cpu: small, memory: 0, limit };
                let key = (cpu % 3, seq);
                if comes && !table.contains_key(&key) {
                    waiting.insert(key, JobId(seq as u32), need);
                    table.insert(key, need);
                } else if !comes {
                    prop_assert_eq!(waiting.remove(key), table.remove(&key).is_some());
                }
            }
            let after = after.map(|seq| (1, seq));
            let passes = |need: Need| need.total <= cpu && need.limit <= limit;
            let walked = table
                .iter()
                .find(|(key, need)| after.is_none_or(|after| **key > after) && passes(**need))
                .map(|(key, _)| (*key, JobId(key.1 as u32)));
            prop_assert_eq!(waiting.next(after, &passes), walked);
        }
    }
}
