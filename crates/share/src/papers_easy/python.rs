//! Python 2.7's sets and dictionaries of small numbers, as far as the order goes in which they give them.
//!
//! A table of slots, searched from the number itself on by CPython's rule of probes; what was removed leaves its slot
//! marked. Found by experiment with Python 2.7.18, and held to it by a test.

/// A slot of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Empty,
    /// Something was here, and was removed.
    Removed,
    Key(u32),
}

/// A set, or a dictionary's keys.
#[derive(Debug, Clone)]
pub struct Table {
    slots: Vec<Slot>,
    /// Slots that are not empty, and those with a key.
    filled: usize,
    used: usize,
    /// Where the next `pop` begins to look, unless slot 0 has a key.
    finger: usize,
}

impl Table {
    /// `set()`, with nothing in it.
    pub fn new() -> Self {
        Self {
            slots: vec![Slot::Empty; 8],
            filled: 0,
            used: 0,
            finger: 0,
        }
    }

    /// `set(...)` of a list.
    pub fn of(keys: impl IntoIterator<Item = u32>) -> Self {
        let mut table = Self::new();
        keys.into_iter().for_each(|key| table.add(key));
        table
    }

    /// `dict.fromkeys(...)` of a set; of a list it is as [`Table::of`].
    pub fn keys_of(set: &Self) -> Self {
        let mut table = Self::new();
        table.resize(set.used / 2 * 3);
        set.keys().for_each(|key| table.insert(key));
        table
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether a key is there.
    pub fn has(&self, key: u32) -> bool {
        self.slots[self.find(key)] == Slot::Key(key)
    }

    /// In the order of the slots.
    pub fn keys(&self) -> impl Iterator<Item = u32> + '_ {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Key(key) => Some(*key),
            Slot::Empty | Slot::Removed => None,
        })
    }

    /// The key's slot, or the one where it would be put.
    fn find(&self, key: u32) -> usize {
        let mask = self.slots.len() - 1;
        let (mut at, mut perturb, mut removed) = (key as usize, key as usize, None);
        loop {
            match self.slots[at & mask] {
                Slot::Empty => return removed.unwrap_or(at & mask),
                Slot::Key(there) if there == key => return at & mask,
                Slot::Removed => removed = removed.or(Some(at & mask)),
                Slot::Key(_) => {}
            }
            at = at.wrapping_mul(5).wrapping_add(perturb).wrapping_add(1);
            perturb >>= 5;
        }
    }

    fn insert(&mut self, key: u32) {
        let at = self.find(key);
        match self.slots[at] {
            Slot::Key(_) => return,
            Slot::Empty => self.filled += 1,
            Slot::Removed => {}
        }
        self.used += 1;
        self.slots[at] = Slot::Key(key);
        if at == 0 {
            self.finger = key as usize;
        }
    }

    /// More slots than this; what was removed is forgotten.
    fn resize(&mut self, more_than: usize) {
        let mut size = 8;
        while size <= more_than {
            size *= 2;
        }
        let old = std::mem::replace(
            self,
            Self {
                slots: vec![Slot::Empty; size],
                filled: 0,
                used: 0,
                finger: 0,
            },
        );
        old.keys().for_each(|key| self.insert(key));
    }

    /// `self.add(key)`, with its growth.
    pub fn add(&mut self, key: u32) {
        let before = self.used;
        self.insert(key);
        if self.used > before && self.filled * 3 >= self.slots.len() * 2 {
            self.resize(self.used * 4);
        }
    }

    /// `self.discard(key)`: its slot stays taken.
    pub fn discard(&mut self, key: u32) {
        let at = self.find(key);
        if self.slots[at] == Slot::Key(key) {
            self.slots[at] = Slot::Removed;
            self.used -= 1;
        }
    }

    /// `self.pop()`, which goes on where it was before.
    pub fn pop(&mut self) -> Option<u32> {
        if self.used == 0 {
            return None;
        }
        let key_at = |at: usize| match self.slots[at] {
            Slot::Key(key) => Some(key),
            Slot::Empty | Slot::Removed => None,
        };
        let mut at = 0;
        if key_at(0).is_none() {
            at = if (1..self.slots.len()).contains(&self.finger) {
                self.finger
            } else {
                1
            };
            while key_at(at).is_none() {
                at = if at + 1 == self.slots.len() { 1 } else { at + 1 };
            }
        }
        let key = key_at(at);
        self.slots[at] = Slot::Removed;
        self.used -= 1;
        self.finger = at + 1;
        key
    }

    /// `self |= other`, with its growth.
    pub fn unite(&mut self, other: &Self) {
        if other.used > 0 && (self.filled + other.used) * 3 >= self.slots.len() * 2 {
            self.resize((self.used + other.used) * 2);
        }
        other.keys().for_each(|key| self.insert(key));
    }

    /// `self - other`, as a new set.
    pub fn without(&self, other: &Self) -> Self {
        Self::of(self.keys().filter(|key| !other.has(*key)))
    }

    /// `self -= other`, with its shrinking.
    pub fn subtract(&mut self, other: &Self) {
        other.keys().for_each(|key| self.discard(key));
        if (self.filled - self.used) * 5 >= self.slots.len() - 1 {
            self.resize(self.used * 4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python 2.7.18 gives after the same twenty thousand operations, each order that it shows hashed.
    #[test]
    fn gives_the_order_of_python() {
        let mut seed = 7_u64;
        let mut draw = |n: u32| {
            seed = (seed * 1_103_515_245 + 12345) & 0x7FFF_FFFF;
            ((seed >> 12) % u64::from(n)) as u32
        };
        let mut set = Table::of(0..120);
        let mut hash = 0_u64;
        for _ in 0..20_000 {
            let order: Vec<u32> = match draw(8) {
                0..3 => {
                    let count = (draw(12) as usize).min(set.len());
                    let mut taken = Table::new();
                    (0..count)
                        .filter_map(|_| set.pop())
                        .for_each(|key| taken.add(key));
                    Table::keys_of(&taken).keys().collect()
                }
                5 => {
                    let key = draw(120);
                    set.discard(key);
                    vec![key]
                }
                what => {
                    let count = draw(20);
                    let other = Table::of((0..count).map(|_| draw(120)));
                    match what {
                        3 | 4 => {
                            let listed = Table::of(other.keys());
                            set.unite(&listed);
                            other.keys().collect()
                        }
                        6 => set.without(&other).keys().collect(),
                        _ => {
                            set.subtract(&other);
                            set.keys().collect()
                        }
                    }
                }
            };
            for key in order {
                hash = (hash * 31 + u64::from(key)) % 1_000_000_007;
            }
        }
        assert_eq!(hash, 366365271);
    }
}
