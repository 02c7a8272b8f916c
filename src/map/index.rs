// SPDX-License-Identifier: GPL-2.0-or-later
//! Rows found by the longest prefix that matches an address.

use hashbrown::HashTable;

use crate::base::prefix::{Prefix4, Prefix6};

/// The rows by their prefixes of one family, a hash table for each prefix length in use.
#[derive(Clone, Debug)]
pub(super) struct Index<R> {
    /// Longest prefix first; none is empty.
    levels: Vec<Level<R>>,
}

#[derive(Clone, Debug)]
struct Level<R> {
    /// How many bits of an address the prefixes of this length do not have.
    host_bits: u8,
    /// By the bits they do have.
    rows: HashTable<(u128, R)>,
}

impl<R> Default for Index<R> {
    fn default() -> Self {
        Self { levels: Vec::new() }
    }
}

impl<R: Copy> Index<R> {
    pub(super) fn len(&self) -> usize {
        self.levels.iter().map(|level| level.rows.len()).sum()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// In no order.
    pub(super) fn rows(&self) -> impl Iterator<Item = R> + '_ {
        let levels = self.levels.iter();
        levels.flat_map(|level| level.rows.iter().map(|(_, row)| *row))
    }

    pub(super) fn longest(&self, addr: u128) -> Option<R> {
        self.levels.iter().find_map(|level| level.find(addr))
    }

    pub(super) fn exact(&self, addr: u128, host_bits: u8) -> Option<R> {
        self.position(host_bits)
            .ok()
            .and_then(|at| self.levels.get(at)?.find(addr))
    }

    pub(super) fn insert(&mut self, addr: u128, host_bits: u8, row: R) {
        let at = self.position(host_bits).unwrap_or_else(|at| {
            let rows = HashTable::new();
            self.levels.insert(at, Level { host_bits, rows });
            at
        });
        if let Some(level) = self.levels.get_mut(at) {
            let key = key(addr, host_bits);
            level
                .rows
                .insert_unique(hash(key), (key, row), |(key, _)| hash(*key));
        }
    }

    pub(super) fn remove(&mut self, addr: u128, host_bits: u8) {
        let Ok(at) = self.position(host_bits) else {
            return;
        };
        let Some(level) = self.levels.get_mut(at) else {
            return;
        };
        let key = key(addr, host_bits);
        if let Ok(entry) = level.rows.find_entry(hash(key), |(k, _)| *k == key) {
            entry.remove();
        }
        if level.rows.is_empty() {
            self.levels.remove(at);
        }
    }

    /// Where the level is, or where it would have to be.
    fn position(&self, host_bits: u8) -> Result<usize, usize> {
        self.levels
            .binary_search_by_key(&host_bits, |level| level.host_bits)
    }
}

impl<R: Copy> Level<R> {
    fn find(&self, addr: u128) -> Option<R> {
        let key = key(addr, self.host_bits);
        let found = self.rows.find(hash(key), |(k, _)| *k == key);
        found.map(|(_, row)| *row)
    }
}

/// The network bits of an address.
fn key(addr: u128, host_bits: u8) -> u128 {
    addr.checked_shr(host_bits.into()).unwrap_or(0)
}

/// Two halves multiplied into each other. It has no secret: only operators write to the tables.
const fn hash(key: u128) -> u64 {
    let low = key as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let high = (key >> 64) as u64 ^ 0xd6e8_feb8_6659_fd93;
    let product = low as u128 * high as u128;
    product as u64 ^ (product >> 64) as u64
}

pub(super) fn host_bits6(prefix: Prefix6) -> u8 {
    128 - prefix.prefix_len()
}

pub(super) fn host_bits4(prefix: Prefix4) -> u8 {
    32 - prefix.prefix_len()
}
