// SPDX-License-Identifier: GPL-2.0-or-later
//! A hash table that grows piece by piece.

use hashbrown::HashTable;

/// Hash tables that share the entries between them by hash. When one is full, only its own part is
/// moved to a larger place, so that no packet waits until a million entries are.
pub(super) struct Shards<T>(Box<[HashTable<T>]>);

impl<T> Shards<T> {
    pub(super) fn new() -> Self {
        Self((0..COUNT).map(|_| HashTable::new()).collect())
    }

    /// The table that entries with this hash are in.
    pub(super) fn of(&self, hash: u64) -> &HashTable<T> {
        &self.0[shard(hash)]
    }

    pub(super) fn of_mut(&mut self, hash: u64) -> &mut HashTable<T> {
        &mut self.0[shard(hash)]
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(HashTable::is_empty)
    }
}

/// Finds positions in a slab by hash.
///
/// Half of the hash is kept: otherwise a table that grows would have to look at every entry where
/// it lies, at a cache miss each.
pub(super) struct Index(Shards<(u32, u32)>);

impl Index {
    pub(super) fn new() -> Self {
        Self(Shards::new())
    }

    pub(super) fn find(&self, hash: u64, is_it: impl Fn(usize) -> bool) -> Option<u32> {
        let half = hash as u32;
        let found = self
            .0
            .of(hash)
            .find(whole(half), |(h, id)| *h == half && is_it(*id as usize));
        found.map(|(_, id)| *id)
    }

    /// Adds a position that is not there.
    pub(super) fn insert(&mut self, hash: u64, id: u32) {
        let half = hash as u32;
        let table = self.0.of_mut(hash);
        table.insert_unique(whole(half), (half, id), |(half, _)| whole(*half));
    }

    pub(super) fn remove(&mut self, hash: u64, id: u32) {
        let half = hash as u32;
        let found = self
            .0
            .of_mut(hash)
            .find_entry(whole(half), |entry| *entry == (half, id));
        if let Ok(found) = found {
            found.remove();
        }
    }
}

/// A hash for a table, which wants entropy at both ends.
const fn whole(half: u32) -> u64 {
    (half as u64) << 32 | half as u64
}

/// Shards are of all sizes between one and its double, lest all of them grow at the same time: the
/// share of the hashes that the first get is 3/4 of the average, that of the last 3/2.
///
/// The tables themselves look at the lowest and the topmost bits of a hash, this at others.
const fn shard(hash: u64) -> usize {
    let fraction = (hash >> 40) % ONE;
    let bent = fraction * (4 * ONE - fraction) / (3 * ONE);
    (bent * COUNT as u64 / ONE) as usize
}

/// Fractions are so many parts of one.
const ONE: u64 = 1 << 16;

/// A part of a million entries then takes well below a millisecond to move.
const COUNT: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_gets_its_share() {
        let mut shares = vec![0u64; COUNT];
        for fraction in 0..ONE {
            shares[shard(fraction << 40)] += 1;
        }
        let average = ONE / COUNT as u64;
        assert!(shares.iter().all(|s| *s > average / 2 && *s < average * 2));
        assert!(shares[0] < average && shares[COUNT - 1] > average);
    }
}
