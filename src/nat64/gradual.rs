// SPDX-License-Identifier: GPL-2.0-or-later
//! A hash table that moves to a larger place bit by bit.

use hashbrown::HashTable;
use hashbrown::hash_table::{AbsentEntry, OccupiedEntry};

/// A hash table that no packet has to wait for while a million entries move.
///
/// When it is full, what it has stays where it is, and every change afterwards takes a few entries
/// along to the larger place. Until all have moved there are two places to look at.
pub(super) struct Gradual<T> {
    now: HashTable<T>,
    /// What has not moved yet; empty most of the time.
    before: HashTable<T>,
    /// The first bucket of `before` that may still have something.
    cursor: usize,
}

impl<T> Gradual<T> {
    pub(super) const fn new() -> Self {
        Self {
            now: HashTable::new(),
            before: HashTable::new(),
            cursor: 0,
        }
    }

    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&T> {
        let found = self.now.find(hash, &is_it);
        if found.is_some() || self.before.is_empty() {
            return found;
        }
        self.find_before(hash, is_it)
    }

    #[cold]
    fn find_before(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&T> {
        self.before.find(hash, is_it)
    }

    /// The entry for it to be changed or removed.
    pub(super) fn find_entry(
        &mut self,
        hash: u64,
        is_it: impl Fn(&T) -> bool,
    ) -> Result<OccupiedEntry<'_, T>, AbsentEntry<'_, T>> {
        match self.now.find_bucket_index(hash, &is_it) {
            Some(bucket) => self.now.get_bucket_entry(bucket),
            None => self.before.find_entry(hash, is_it),
        }
    }

    /// Changes what is there, or `new` and adds it.
    pub(super) fn change<R>(
        &mut self,
        hash: u64,
        is_it: impl Fn(&T) -> bool,
        new: T,
        hasher: impl Fn(&T) -> u64,
        change: impl FnOnce(&mut T) -> R,
    ) -> R {
        // Not by `HashTable::entry`, which makes room at once, wanted or not.
        if let Ok(mut found) = self.find_entry(hash, is_it) {
            return change(found.get_mut());
        }
        change(self.insert(hash, new, hasher))
    }

    /// Adds what is not there.
    pub(super) fn insert(&mut self, hash: u64, value: T, hasher: impl Fn(&T) -> u64) -> &mut T {
        if self.now.len() == self.now.capacity() {
            self.make_room(&hasher);
        }
        self.move_some(STEP, &hasher);
        self.now.insert_unique(hash, value, hasher).into_mut()
    }

    /// Begins to move. A table that is full of the traces of what was removed needs no larger
    /// place, only a clean one.
    fn make_room(&mut self, hasher: impl Fn(&T) -> u64) {
        self.move_some(usize::MAX, hasher);
        let full = self.now.num_buckets() / 8 * 7;
        let room = if self.now.len() > full / 2 {
            self.now.len() * 2
        } else {
            full
        };
        let larger = HashTable::with_capacity(room.max(SMALLEST));
        self.before = std::mem::replace(&mut self.now, larger);
        self.cursor = 0;
    }

    /// Moves what is in so many buckets.
    fn move_some(&mut self, buckets: usize, hasher: impl Fn(&T) -> u64) {
        if self.before.is_empty() {
            return;
        }
        let end = self
            .before
            .num_buckets()
            .min(self.cursor.saturating_add(buckets));
        for bucket in self.cursor..end {
            if let Ok(entry) = self.before.get_bucket_entry(bucket) {
                let (value, _) = entry.remove();
                self.now.insert_unique(hasher(&value), value, &hasher);
            }
        }
        self.cursor = end;
        if self.before.is_empty() {
            self.before = HashTable::new();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.now.iter().chain(self.before.iter())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.now.is_empty() && self.before.is_empty()
    }
}

/// Finds positions in a slab by the hash of what lies there.
///
/// Only positions are kept: the smaller an index, the more of it the processor's caches hold. What
/// moves is hashed anew.
pub(super) struct Index(Gradual<u32>);

impl Index {
    pub(super) const fn new() -> Self {
        Self(Gradual::new())
    }

    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(usize) -> bool) -> Option<u32> {
        self.0.find(hash, |id| is_it(*id as usize)).copied()
    }

    /// Adds a position that is not there.
    pub(super) fn insert(&mut self, hash: u64, id: u32, hasher: impl Fn(usize) -> u64) {
        self.0.insert(hash, id, |id| hasher(*id as usize));
    }

    pub(super) fn remove(&mut self, hash: u64, id: u32) {
        if let Ok(found) = self.0.find_entry(hash, |entry| *entry == id) {
            found.remove();
        }
    }
}

/// Buckets that move with a change. All have moved after a quarter as many changes as there are
/// buckets, long before the larger place is full.
const STEP: usize = 4;

/// Smaller places are not worth moving out of.
const SMALLEST: usize = 28;

#[cfg(test)]
mod tests {
    use super::*;

    const fn spread(value: u64) -> u64 {
        value.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn hash(value: &(u64, u32)) -> u64 {
        spread(value.0)
    }

    fn find(table: &Gradual<(u64, u32)>, key: u64) -> Option<u32> {
        let found = table.find(spread(key), |(k, _)| *k == key);
        found.map(|(_, value)| *value)
    }

    fn remove(table: &mut Gradual<(u64, u32)>, key: u64) -> bool {
        let found = table.find_entry(spread(key), |(k, _)| *k == key);
        found.map(OccupiedEntry::remove).is_ok()
    }

    #[test]
    fn nothing_is_lost_while_entries_move() {
        let mut table = Gradual::new();
        let mut moving = 0;
        for key in 0..5_000 {
            table.insert(spread(key), (key, 1), hash);
            moving += usize::from(!table.before.is_empty());
            // Everything a moment ago and now and then everything at all.
            let from = if key % 500 == 0 {
                0
            } else {
                key.saturating_sub(9)
            };
            assert!((from..=key).all(|k| find(&table, k) == Some(1)), "{key}");
        }
        assert!(moving > 500, "{moving}");
        assert!((0..5_000).all(|key| remove(&mut table, key)));
        assert!(table.is_empty());
    }

    #[test]
    fn what_is_changed_while_it_moves_is_there_once() {
        let mut table = Gradual::new();
        for key in 0..113 {
            table.insert(spread(key), (key, 0), hash);
        }
        assert!(table.before.len() > 50, "{}", table.before.len());
        for round in 1..=2 {
            for key in 0..113 {
                let is_it = |entry: &(u64, u32)| entry.0 == key;
                table.change(spread(key), is_it, (key, 0), hash, |entry| entry.1 += 1);
                assert_eq!(find(&table, key), Some(round));
            }
        }
        assert_eq!(table.now.len() + table.before.len(), 113);
    }

    #[test]
    fn a_change_moves_nothing_at_once() {
        let mut table = Gradual::new();
        for key in 0..112 {
            table.insert(spread(key), (key, 0), hash);
        }
        assert_eq!(table.now.len(), table.now.capacity());
        let buckets = table.now.num_buckets();
        table.change(spread(7), |entry| entry.0 == 7, (7, 0), hash, |_| ());
        assert_eq!((table.now.num_buckets(), table.before.len()), (buckets, 0));
        table.change(spread(112), |entry| entry.0 == 112, (112, 0), hash, |_| ());
        assert!(table.before.len() > 100, "{}", table.before.len());
    }

    #[test]
    fn a_table_in_use_for_long_does_not_grow() {
        let mut table = Gradual::new();
        for key in 0..100_000 {
            table.insert(spread(key), (key, 1), hash);
            if key >= 100 {
                assert!(remove(&mut table, key - 100));
            }
        }
        assert!(
            table.now.num_buckets() <= 512,
            "{}",
            table.now.num_buckets()
        );
    }

    #[test]
    fn the_larger_place_is_not_full_before_all_have_moved() {
        let mut table = Gradual::new();
        for key in 0..200_000 {
            if table.now.len() == table.now.capacity() {
                assert!(table.before.is_empty(), "{key}");
            }
            table.insert(spread(key), (key, 1), hash);
            if key % 3 == 0 {
                assert!(remove(&mut table, key / 3));
            }
        }
    }
}
