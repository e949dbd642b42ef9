//! MCB8: packs all jobs anew, so that the least part that a job gets of its need is as big as can be.
//!
//! Tasks that need the same are alike to the packing. They are walked as one class, whose tasks go to its jobs one job
//! after another: the outcome is that of walking the jobs one by one.

use crate::job::{Host, HostId, Slot};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A job to be packed.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Its place in the order of submission.
    pub seq: u64,
    /// How many tasks it has.
    pub tasks: u32,
    /// The CPU that each can use.
    pub cpu: u32,
    /// The memory that each holds.
    pub memory: u32,
    /// It stays where it is.
    pub kept: Option<&'a [Slot]>,
}

/// A job of a class: its place in the order, its index, and how many tasks it has.
type Member = (u64, usize, u32);

/// Tasks that need the same of a host, at some part of their need.
struct Class<'a> {
    cpu: u64,
    memory: u64,
    /// How many of them have no host yet.
    left: u64,
    /// Whose they are, the next at the end.
    of: Cow<'a, [Member]>,
    /// Those before this have no host yet, but for so many tasks of the last.
    end: usize,
    placed: u32,
}

/// What is to be packed.
pub struct Packing<'a> {
    hosts: &'a [Host],
    items: Vec<Item<'a>>,
    /// Who is not kept: by CPU and memory of a task, then in the order of submission.
    groups: BTreeMap<(u32, u32), Vec<Member>>,
    kept: Vec<usize>,
}

impl<'a> Packing<'a> {
    /// Of these jobs on these hosts.
    pub fn new(hosts: &'a [Host], items: Vec<Item<'a>>) -> Self {
        let (mut groups, mut kept) = (BTreeMap::<_, Vec<Member>>::new(), Vec::new());
        for (index, item) in items.iter().enumerate() {
            match item.kept {
                Some(_) => kept.push(index),
                None => groups
                    .entry((item.cpu, item.memory))
                    .or_default()
                    .push((item.seq, index, item.tasks)),
            }
        }
        groups.values_mut().for_each(|group| group.sort_unstable());
        Self {
            hosts,
            items,
            groups,
            kept,
        }
    }

    /// How many jobs are left to be packed.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Leaves out the last of the jobs.
    pub fn pop(&mut self) {
        let Some(item) = self.items.pop() else { return };
        self.kept.retain(|index| *index < self.items.len());
        if let Some(group) = self.groups.get_mut(&(item.cpu, item.memory)) {
            group.retain(|(_, index, _)| *index < self.items.len());
        }
    }

    /// Where each job goes, by a search for the greatest least yield in steps of a half; [`None`] if nothing was found.
    pub fn search(&self) -> Option<Vec<Vec<Slot>>> {
        let (mut found, mut low, mut high) = (None, 0.0, 1.0);
        while high - low > 0.01 {
            let middle: f64 = (low + high) / 2.0;
            match self.pack(middle) {
                Some(placed) => (found, low) = (Some(placed), middle),
                None => high = middle,
            }
        }
        let mut slots: Vec<Vec<Slot>> = self
            .items
            .iter()
            .map(|item| item.kept.unwrap_or_default().to_vec())
            .collect();
        for (item, slot) in found? {
            // Another job's task may have come to the host between two of its own.
            match slots[item].last_mut().filter(|last| last.host == slot.host) {
                Some(last) => last.tasks += slot.tasks,
                None => slots[item].push(slot),
            }
        }
        Some(slots)
    }

    /// Who needs more of a host's CPU than of its memory, and the others: each by falling need.
    fn classes(&self, like: Host, part: f64) -> [Vec<Class<'_>>; 2] {
        let mut sides: [Vec<Class<'_>>; 2] = [Vec::new(), Vec::new()];
        for ((cpu, memory), group) in self.groups.iter().filter(|(_, group)| !group.is_empty()) {
            let (cpu, memory) = (needed(part, *cpu), u64::from(*memory));
            let by_cpu = cpu * u64::from(like.memory) > memory * u64::from(like.cpu);
            let left = group.iter().map(|(_, _, tasks)| u64::from(*tasks)).sum();
            let side = &mut sides[usize::from(!by_cpu)];
            match side
                .iter_mut()
                .find(|class| (class.cpu, class.memory) == (cpu, memory))
            {
                Some(class) => {
                    class.left += left;
                    class.of.to_mut().extend_from_slice(group);
                    class.of.to_mut().sort_unstable();
                    class.end = class.of.len();
                }
                None => {
                    let (of, end) = (Cow::Borrowed(group.as_slice()), group.len());
                    side.push(Class {
                        cpu,
                        memory,
                        left,
                        of,
                        end,
                        placed: 0,
                    });
                }
            }
        }
        sides[0].sort_unstable_by_key(|class| std::cmp::Reverse((class.cpu, class.memory)));
        sides[1].sort_unstable_by_key(|class| std::cmp::Reverse((class.memory, class.cpu)));
        sides
    }

    /// What those who are kept take of each host; [`None`] if that is too much.
    fn loads(&self, part: f64) -> Option<Vec<(u64, u64)>> {
        let mut loads: Vec<(u64, u64)> = vec![(0, 0); self.hosts.len()];
        for item in self.kept.iter().map(|index| &self.items[*index]) {
            for slot in item.kept.into_iter().flatten() {
                let load = &mut loads[slot.host.index()];
                load.0 += needed(part, item.cpu) * u64::from(slot.tasks);
                load.1 += u64::from(item.memory) * u64::from(slot.tasks);
            }
        }
        let fits = loads
            .iter()
            .zip(self.hosts)
            .all(|(load, host)| load.0 <= u64::from(host.cpu));
        fits.then_some(loads)
    }

    /// Packs with each task at this part of its need.
    fn pack(&self, part: f64) -> Option<Vec<(usize, Slot)>> {
        let like = *self.hosts.first()?;
        let loads = self.loads(part)?;
        let mut sides = self.classes(like, part);
        // What is still to be placed, and what hosts have for it: no need to go on once it can't be enough.
        let all = |of: fn(&Class<'_>) -> u64| {
            sides
                .iter()
                .flatten()
                .map(|class| of(class) * class.left)
                .sum::<u64>()
        };
        let mut wanted = (all(|class| class.cpu), all(|class| class.memory));
        let room = |host: &Host, load: &(u64, u64)| {
            (
                u64::from(host.cpu) - load.0,
                u64::from(host.memory).saturating_sub(load.1),
            )
        };
        let rooms = self.hosts.iter().zip(&loads).map(|(host, load)| room(host, load));
        let mut rooms = rooms.fold((0, 0), |sum: (u64, u64), room| (sum.0 + room.0, sum.1 + room.1));
        let mut placed = Vec::new();
        for (index, (host, mut load)) in self.hosts.iter().zip(loads).enumerate() {
            if sides.iter().all(Vec::is_empty) {
                break;
            }
            if wanted.0 > rooms.0 || wanted.1 > rooms.1 {
                return None;
            }
            let free = room(host, &load);
            rooms = (rooms.0 - free.0, rooms.1 - free.1);
            let mut at = [0, 0];
            while at[0] < sides[0].len() || at[1] < sides[1].len() {
                let cpu_first = load.0 * u64::from(like.memory) <= load.1 * u64::from(like.cpu);
                let side = usize::from(!((cpu_first && at[0] < sides[0].len()) || at[1] >= sides[1].len()));
                let (classes, at) = (&mut sides[side], &mut at[side]);
                let fits = |class: &Class<'_>| {
                    load.0 + class.cpu <= u64::from(host.cpu)
                        && load.1 + class.memory <= u64::from(host.memory)
                };
                *at += classes[*at..]
                    .iter()
                    .position(fits)
                    .unwrap_or(classes.len() - *at);
                let Some(class) = classes.get_mut(*at) else {
                    continue;
                };
                load = (load.0 + class.cpu, load.1 + class.memory);
                wanted = (wanted.0 - class.cpu, wanted.1 - class.memory);
                class.give(HostId(index as u32), &mut placed);
                if class.left == 0 {
                    classes.remove(*at);
                }
            }
        }
        sides.iter().all(Vec::is_empty).then_some(placed)
    }
}

/// That part of a task's need, as much as counts.
fn needed(part: f64, cpu: u32) -> u64 {
    ((part * f64::from(cpu)) as u64).max(1)
}

impl Class<'_> {
    /// The next task is on this host.
    fn give(&mut self, host: HostId, placed: &mut Vec<(usize, Slot)>) {
        let (_, item, tasks) = self.of[self.end - 1];
        match placed
            .last_mut()
            .filter(|(last, slot)| *last == item && slot.host == host)
        {
            Some((_, slot)) => slot.tasks += 1,
            None => placed.push((item, Slot { host, tasks: 1 })),
        }
        self.left -= 1;
        self.placed += 1;
        if self.placed == tasks {
            (self.end, self.placed) = (self.end - 1, 0);
        }
    }
}
