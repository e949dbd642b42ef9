//! A table that is sorted by its key, for what is walked side by side: Slurm's nodes, their records, their specs.
//!
//! It does what a `BTreeMap` does, and remembers where it was asked last: whoever walks through one table and asks
//! others about each key finds the answers a row or two further on, without a search. New keys in the midst are
//! dear: all that follows is moved.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Index;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Rows by ascending keys, each key once.
pub struct Table<K, V> {
    rows: Vec<(K, V)>,
    /// The row that was asked for last; any number is right, a near one is quick.
    last: AtomicUsize,
}

impl<K: Ord, V> Table<K, V> {
    /// A table without rows.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            rows: Vec::new(),
            last: AtomicUsize::new(0),
        }
    }

    /// Where `key` is, or else where it would be: steps that double, from where it was asked last.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        let rows = &self.rows;
        let from = self.last.load(Relaxed).min(rows.len().saturating_sub(1));
        let Some((first, _)) = rows.get(from) else {
            return Err(0);
        };
        // All rows before `low` are smaller than the key, those from `high` on are not.
        let (mut low, mut high) = (0, rows.len());
        let mut step = 1;
        match first.borrow().cmp(key) {
            Ordering::Equal => return Ok(from),
            Ordering::Less => {
                low = from + 1;
                while let Some((next, _)) = rows.get(low + step - 1) {
                    if next.borrow() >= key {
                        high = low + step - 1;
                        break;
                    }
                    low += step;
                    step *= 2;
                }
            }
            Ordering::Greater => {
                high = from;
                while step <= high {
                    if rows[high - step].0.borrow() < key {
                        low = high - step + 1;
                        break;
                    }
                    high -= step;
                    step *= 2;
                }
            }
        }
        let at = low + rows[low..high].partition_point(|(other, _)| other.borrow() < key);
        self.last.store(at, Relaxed);
        match rows.get(at) {
            Some((found, _)) if found.borrow() == key => Ok(at),
            Some(_) | None => Err(at),
        }
    }

    /// What stands at `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|at| &self.rows[at].1)
    }

    /// The same, with the row's own key.
    pub fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        let (key, value) = &self.rows[self.find(key).ok()?];
        Some((key, value))
    }

    /// What stands at `key`, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|at| &mut self.rows[at].1)
    }

    /// Whether `key` has a row.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// Puts `value` at `key`; what stood there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(at) => Some(std::mem::replace(&mut self.rows[at].1, value)),
            Err(at) => {
                self.rows.insert(at, (key, value));
                None
            }
        }
    }

    /// What stands at `key`, which gets a row if it has none.
    pub fn or_default(&mut self, key: &K) -> &mut V
    where
        K: Clone,
        V: Default,
    {
        let at = self.find(key).unwrap_or_else(|at| {
            self.rows.insert(at, (key.clone(), V::default()));
            at
        });
        &mut self.rows[at].1
    }

    /// Takes `key`'s row out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|at| self.rows.remove(at).1)
    }

    /// Keeps the rows for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.rows.retain_mut(|(key, value)| keep(key, value));
    }

    /// Takes all rows out.
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows, by ascending keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.into_iter()
    }

    /// The keys of all rows, ascending.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &K> + Clone {
        self.rows.iter().map(|(key, _)| key)
    }

    /// What stands in all rows, by ascending keys.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> + Clone {
        self.rows.iter().map(|(_, value)| value)
    }

    /// The same, and the table is gone.
    pub fn into_values(self) -> impl ExactSizeIterator<Item = V> {
        self.rows.into_iter().map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub fn values_mut(&mut self) -> impl ExactSizeIterator<Item = &mut V> {
        self.rows.iter_mut().map(|(_, value)| value)
    }
}

/// The rows of a table, by ascending keys.
pub type Iter<'a, K, V> = std::iter::Map<std::slice::Iter<'a, (K, V)>, fn(&(K, V)) -> (&K, &V)>;
/// The same, to be changed.
pub type IterMut<'a, K, V> = std::iter::Map<std::slice::IterMut<'a, (K, V)>, fn(&mut (K, V)) -> (&K, &mut V)>;

impl<'a, K, V> IntoIterator for &'a Table<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;
    fn into_iter(self) -> Self::IntoIter {
        self.rows.iter().map(|(key, value)| (key, value))
    }
}

impl<'a, K, V> IntoIterator for &'a mut Table<K, V> {
    type Item = (&'a K, &'a mut V);
    type IntoIter = IterMut<'a, K, V>;
    fn into_iter(self) -> Self::IntoIter {
        self.rows.iter_mut().map(|(key, value)| (&*key, value))
    }
}

impl<K, V> IntoIterator for Table<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;
    fn into_iter(self) -> Self::IntoIter {
        self.rows.into_iter()
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Table<K, V> {
    /// Of several rows with one key the last one counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(rows: I) -> Self {
        let mut rows: Vec<(K, V)> = rows.into_iter().collect();
        rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        rows.shrink_to_fit();
        rows.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        Self {
            rows,
            last: AtomicUsize::new(0),
        }
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for Table<K, V> {
    fn from(rows: [(K, V); N]) -> Self {
        rows.into_iter().collect()
    }
}

impl<K: Ord, V> Extend<(K, V)> for Table<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, rows: I) {
        let mut new = Vec::new();
        for (key, value) in rows {
            match self.find(&key) {
                Ok(at) => self.rows[at].1 = value,
                Err(_) => new.push((key, value)),
            }
        }
        if !new.is_empty() {
            let before = std::mem::take(&mut self.rows);
            *self = before.into_iter().chain(new).collect();
        }
    }
}

impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> Index<&Q> for Table<K, V> {
    type Output = V;

    /// What stands at `key`.
    ///
    /// # Panics
    /// When that has no row.
    fn index(&self, key: &Q) -> &V {
        match self.find(key) {
            Ok(at) => &self.rows[at].1,
            Err(_) => panic!("the table has no row of that key"),
        }
    }
}

impl<K: Clone, V: Clone> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self {
            rows: self.rows.clone(),
            last: AtomicUsize::new(0),
        }
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            last: AtomicUsize::new(0),
        }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Table<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows
    }
}

impl<K: Eq, V: Eq> Eq for Table<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

/// Values that share keys, by ascending keys; those of one key in the order in which they came.
#[derive(Debug, Clone)]
pub struct Groups<K, V> {
    values: Vec<V>,
    /// Where those of a key begin and end.
    spans: Table<K, (usize, usize)>,
}

impl<K: Ord, V> Groups<K, V> {
    /// The values of `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> &[V]
    where
        K: Borrow<Q>,
    {
        let (from, to) = self.spans.get(key).copied().unwrap_or_default();
        &self.values[from..to]
    }

    /// All keys with their values, by ascending keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &[V])> {
        let spans = self.spans.iter();
        spans.map(|(key, (from, to))| (key, &self.values[*from..*to]))
    }
}

impl<K, V> Default for Groups<K, V> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            spans: Table::default(),
        }
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Groups<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut pairs: Vec<(K, V)> = pairs.into_iter().collect();
        pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut values = Vec::with_capacity(pairs.len());
        let mut rows: Vec<(K, (usize, usize))> = Vec::new();
        for (key, value) in pairs {
            values.push(value);
            let to = values.len();
            match rows.last_mut() {
                Some((last, span)) if *last == key => span.1 = to,
                Some(_) | None => rows.push((key, (to - 1, to))),
            }
        }
        Self {
            values,
            spans: Table {
                rows,
                last: AtomicUsize::new(0),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// What is asked of a table.
    #[derive(Debug, Clone)]
    enum Ask {
        Get(u8),
        Insert(u8, u32),
        OrDefault(u8),
        Remove(u8),
        Extend(Vec<(u8, u32)>),
        RetainOdd,
    }

    fn asks() -> impl Strategy<Value = Ask> {
        prop_oneof![
            4 => any::<u8>().prop_map(Ask::Get),
            3 => any::<(u8, u32)>().prop_map(|(key, value)| Ask::Insert(key, value)),
            1 => any::<u8>().prop_map(Ask::OrDefault),
            2 => any::<u8>().prop_map(Ask::Remove),
            1 => proptest::collection::vec(any::<(u8, u32)>(), 0..20).prop_map(Ask::Extend),
            1 => Just(Ask::RetainOdd),
        ]
    }

    proptest! {
        /// Each value is with those of its key, in the order in which they came.
        #[test]
        fn groups_lose_nothing(pairs in proptest::collection::vec(any::<(u8, u32)>(), 0..100)) {
            let groups: Groups<u8, u32> = pairs.iter().copied().collect();
            for key in 0..=u8::MAX {
                let of_key = pairs.iter().filter(|(its, _)| *its == key);
                prop_assert!(groups.get(&key).iter().eq(of_key.map(|(_, value)| value)));
            }
            let all: usize = groups.iter().map(|(_, values)| values.len()).sum();
            prop_assert_eq!(all, pairs.len());
        }

        /// Wherever it was asked before, it answers as a map does.
        #[test]
        fn it_is_a_map(
            rows in proptest::collection::vec(any::<(u8, u32)>(), 0..100),
            asks in proptest::collection::vec(asks(), 0..100),
        ) {
            let mut map: BTreeMap<u8, u32> = rows.iter().copied().collect();
            let mut table: Table<u8, u32> = rows.into_iter().collect();
            for ask in asks {
                match ask {
                    Ask::Get(key) => {
                        prop_assert_eq!(table.get(&key), map.get(&key));
                        prop_assert_eq!(table.get_mut(&key), map.get_mut(&key));
                        prop_assert_eq!(table.contains_key(&key), map.contains_key(&key));
                    }
                    Ask::Insert(key, value) => {
                        prop_assert_eq!(table.insert(key, value), map.insert(key, value));
                    }
                    Ask::OrDefault(key) => {
                        prop_assert_eq!(table.or_default(&key), map.entry(key).or_default());
                    }
                    Ask::Remove(key) => prop_assert_eq!(table.remove(&key), map.remove(&key)),
                    Ask::Extend(more) => {
                        table.extend(more.iter().copied());
                        map.extend(more);
                    }
                    Ask::RetainOdd => {
                        table.retain(|key, _| key % 2 == 1);
                        map.retain(|key, _| key % 2 == 1);
                    }
                }
                prop_assert_eq!(table.len(), map.len());
                prop_assert!(table.iter().eq(map.iter()));
            }
        }
    }
}
