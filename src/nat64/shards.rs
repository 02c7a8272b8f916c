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
