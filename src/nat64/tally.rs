// SPDX-License-Identifier: GPL-2.0-or-later
//! How many there are of each.

use std::hash::Hash;

use siphasher::sip::SipHasher13;

use super::gradual::Gradual;
use super::table::hash_with;

/// A counter for every key that was counted at all; those that are back at 0 take no memory.
pub(super) struct Tally<K> {
    counts: Gradual<(K, u32)>,
    hasher: SipHasher13,
}

impl<K: Hash + Eq + Copy> Tally<K> {
    pub(super) fn new(hasher: SipHasher13) -> Self {
        Self {
            counts: Gradual::new(),
            hasher,
        }
    }

    pub(super) fn add(&mut self, key: K) {
        let hasher = &self.hasher;
        let hash = hash_with(hasher, &key);
        self.counts.change(
            hash,
            |(k, _)| *k == key,
            (key, 0),
            |(k, _)| hash_with(hasher, k),
            |(_, count)| *count += 1,
        );
    }

    /// Takes back one [`Tally::add`].
    pub(super) fn take(&mut self, key: K) {
        let hash = hash_with(&self.hasher, &key);
        if let Ok(mut found) = self.counts.find_entry(hash, |(k, _)| *k == key) {
            found.get_mut().1 -= 1;
            if found.get().1 == 0 {
                found.remove();
            }
        }
    }

    pub(super) fn get(&self, key: K) -> u32 {
        let hash = hash_with(&self.hasher, &key);
        self.counts
            .find(hash, |(k, _)| *k == key)
            .map_or(0, |(_, count)| *count)
    }
}
