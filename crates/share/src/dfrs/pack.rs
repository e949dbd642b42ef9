//! MCB8: packs all jobs anew, so that the least part that a job gets of its need is as big as can be.
//!
//! Tasks that need the same are alike to the packing. They are walked as one class, whose tasks go to its jobs one job
//! after another: the outcome is that of walking the jobs one by one.

use crate::job::{Host, HostId, Slot};

/// A job to be packed.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Its place in the order of submission.
    pub seq: u64,
    /// How many tasks.
    pub tasks: u32,
    /// CPU of each.
    pub cpu: u32,
    /// Memory of each.
    pub memory: u32,
    /// It stays where it is.
    pub kept: Option<&'a [Slot]>,
}

/// Tasks that need the same.
struct Class {
    cpu: u64,
    memory: u64,
    /// How many of them have no host yet.
    left: u64,
    /// Whose they are, the next at the end: the job, and how many of its tasks have no host yet.
    of: Vec<(usize, u32)>,
}

/// Where each job goes, by a search for the greatest least yield in steps of a half; [`None`] if nothing was found.
pub fn search(hosts: &[Host], items: &[Item<'_>]) -> Option<Vec<Vec<Slot>>> {
    let (mut found, mut low, mut high) = (None, 0.0, 1.0);
    while high - low > 0.01 {
        let middle: f64 = (low + high) / 2.0;
        match pack(hosts, items, middle) {
            Some(slots) => (found, low) = (Some(slots), middle),
            None => high = middle,
        }
    }
    found
}

/// Who needs more of a host's CPU than of its memory, and the others: each by falling need, as classes.
fn classes(items: &[Item<'_>], like: Host, part: f64) -> [Vec<Class>; 2] {
    let mut sides: [Vec<(u64, u64, u64, usize)>; 2] = [Vec::new(), Vec::new()];
    for (index, item) in items.iter().enumerate().filter(|(_, item)| item.kept.is_none()) {
        let cpu = ((part * f64::from(item.cpu)) as u64).max(1);
        let memory = u64::from(item.memory);
        if cpu * u64::from(like.memory) > memory * u64::from(like.cpu) {
            sides[0].push((cpu, memory, item.seq, index));
        } else {
            sides[1].push((memory, cpu, item.seq, index));
        }
    }
    let mut at = 0;
    sides.map(|mut side| {
        side.sort_unstable();
        let mut classes: Vec<Class> = Vec::new();
        for (first, second, _, index) in side.into_iter().rev() {
            let (cpu, memory) = if at == 0 { (first, second) } else { (second, first) };
            let tasks = items[index].tasks;
            match classes
                .last_mut()
                .filter(|class| (class.cpu, class.memory) == (cpu, memory))
            {
                Some(class) => {
                    class.left += u64::from(tasks);
                    class.of.push((index, tasks));
                }
                None => classes.push(Class {
                    cpu,
                    memory,
                    left: u64::from(tasks),
                    of: vec![(index, tasks)],
                }),
            }
        }
        for class in &mut classes {
            class.of.reverse();
        }
        at += 1;
        classes
    })
}

/// Packs with each task at this part of its need.
fn pack(hosts: &[Host], items: &[Item<'_>], part: f64) -> Option<Vec<Vec<Slot>>> {
    let like = *hosts.first()?;
    let mut loads: Vec<(u64, u64)> = vec![(0, 0); hosts.len()];
    for item in items {
        let cpu = ((part * f64::from(item.cpu)) as u64).max(1);
        for slot in item.kept.into_iter().flatten() {
            let load = &mut loads[slot.host.index()];
            load.0 += cpu * u64::from(slot.tasks);
            load.1 += u64::from(item.memory) * u64::from(slot.tasks);
        }
    }
    if loads
        .iter()
        .zip(hosts)
        .any(|(load, host)| load.0 > u64::from(host.cpu))
    {
        return None;
    }
    let mut sides = classes(items, like, part);
    // What is still to be placed, and what hosts have for it: no need to go on once it can't be enough.
    let wanted = |of: fn(&Class) -> u64| {
        sides
            .iter()
            .flatten()
            .map(|class| of(class) * class.left)
            .sum::<u64>()
    };
    let mut wanted = (wanted(|class| class.cpu), wanted(|class| class.memory));
    let room = |host: &Host, load: &(u64, u64)| {
        (
            u64::from(host.cpu) - load.0,
            u64::from(host.memory).saturating_sub(load.1),
        )
    };
    let mut rooms = hosts
        .iter()
        .zip(&loads)
        .map(|(host, load)| room(host, load))
        .fold((0, 0), |sum: (u64, u64), room| (sum.0 + room.0, sum.1 + room.1));
    let mut slots: Vec<Vec<Slot>> = items
        .iter()
        .map(|item| item.kept.map_or_else(Vec::new, <[Slot]>::to_vec))
        .collect();
    for (index, (host, mut load)) in hosts.iter().zip(loads).enumerate() {
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
            let fits = |class: &Class| {
                load.0 + class.cpu <= u64::from(host.cpu) && load.1 + class.memory <= u64::from(host.memory)
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
            give(class, index, &mut slots);
            if class.left == 0 {
                classes.remove(*at);
            }
        }
    }
    sides.iter().all(Vec::is_empty).then_some(slots)
}

/// The next task of the class is on this host.
fn give(class: &mut Class, host: usize, slots: &mut [Vec<Slot>]) {
    class.left -= 1;
    let Some((item, left)) = class.of.last_mut() else {
        return;
    };
    let (host, slots) = (HostId(host as u32), &mut slots[*item]);
    match slots.last_mut().filter(|slot| slot.host == host) {
        Some(slot) => slot.tasks += 1,
        None => slots.push(Slot { host, tasks: 1 }),
    }
    *left -= 1;
    if *left == 0 {
        class.of.pop();
    }
}
