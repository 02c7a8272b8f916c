// SPDX-License-Identifier: GPL-2.0-or-later
//! The explicit address mapping table (RFC 7757 section 3): pairs of prefixes that stand for
//! each other.

use std::cmp::Reverse;
use std::net::{Ipv4Addr, Ipv6Addr};

use hashbrown::HashTable;

use crate::base::prefix::{Prefix4, Prefix6};
use crate::model::EamRow;

/// All mappings of one instance, looked up by the longest matching prefix of either family.
//= rfc7757#section-3.1
#[derive(Clone, Debug, Default)]
pub struct Eamt {
    by6: Index,
    by4: Index,
}

/// Why a row was not added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EamError {
    #[error("the mapping {} - {} exists already", .0.v6, .0.v4)]
    Duplicate(EamRow),
    #[error("{} is mapped already, by {} - {}; remove that one first", .0.v4, .0.v6, .0.v4)]
    V4Taken(EamRow),
    #[error("{} is mapped already, by {} - {}; remove that one first", .0.v6, .0.v6, .0.v4)]
    V6Taken(EamRow),
    #[error(
        "{} - {} overlaps the mapping {} - {}; choose other prefixes or add --force",
        .new.v6, .new.v4, .old.v6, .old.v4
    )]
    Overlap { new: EamRow, old: EamRow },
    #[error(
        "{} leaves {} bits for hosts, more than the {} of {}; choose a shorter IPv6 or a longer IPv4 prefix",
        .0.v4, host_bits4(.0.v4), host_bits6(.0.v6), .0.v6
    )]
    SuffixTooLong(EamRow),
    #[error("there is no such mapping")]
    Absent,
}

impl Eamt {
    pub fn len(&self) -> usize {
        self.by4.levels.iter().map(|level| level.rows.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.by4.levels.is_empty()
    }

    /// Adds a row. `force` lets it overlap others: then the longest prefix decides. As with Jool,
    /// only the first address of the new prefixes is looked for in the existing rows.
    ///
    /// # Errors
    /// All of [`EamError`] but [`EamError::Absent`]; nothing changes then.
    //= jool#eamt
    pub fn insert(&mut self, row: EamRow, force: bool) -> Result<(), EamError> {
        let (bits6, bits4) = (host_bits6(row.v6), host_bits4(row.v4));
        if bits4 > bits6 {
            return Err(EamError::SuffixTooLong(row));
        }
        let (addr6, addr4) = (row.v6.network().into(), u32::from(row.v4.network()).into());
        match (self.by6.exact(addr6, bits6), self.by4.exact(addr4, bits4)) {
            (Some(old), _) if old == row => return Err(EamError::Duplicate(row)),
            (Some(old), _) => return Err(EamError::V6Taken(old)),
            (None, Some(old)) => return Err(EamError::V4Taken(old)),
            (None, None) => {}
        }
        if !force && let Some(old) = self.by6.longest(addr6).or_else(|| self.by4.longest(addr4)) {
            return Err(EamError::Overlap { new: row, old });
        }
        self.by6.insert(addr6, bits6, row);
        self.by4.insert(addr4, bits4, row);
        Ok(())
    }

    /// Removes the row that has all the prefixes given, and returns it.
    ///
    /// # Errors
    /// [`EamError::Absent`], also when no prefix is given.
    pub fn remove(&mut self, v6: Option<Prefix6>, v4: Option<Prefix4>) -> Result<EamRow, EamError> {
        let found = match (v6, v4) {
            (Some(v6), _) => self.by6.exact(v6.network().into(), host_bits6(v6)),
            (None, Some(v4)) => {
                let addr = u32::from(v4.network()).into();
                self.by4.exact(addr, host_bits4(v4))
            }
            (None, None) => None,
        };
        let row = found
            .filter(|row| v4.is_none_or(|v4| v4 == row.v4))
            .ok_or(EamError::Absent)?;
        self.by6.remove(row.v6.network().into(), host_bits6(row.v6));
        let addr = u32::from(row.v4.network()).into();
        self.by4.remove(addr, host_bits4(row.v4));
        Ok(row)
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// All rows in display order, Jool's: the IPv4 prefixes as a binary tree, each before those
    /// within it, the branch of bit 1 before that of bit 0.
    //= jool#eamt
    pub fn rows(&self) -> Vec<EamRow> {
        let levels = self.by4.levels.iter();
        let mut rows: Vec<_> = levels
            .flat_map(|level| level.rows.iter().map(|(_, row)| *row))
            .collect();
        rows.sort_unstable_by_key(|row| (Reverse(row.v4.last()), row.v4.prefix_len()));
        rows
    }

    /// The IPv4 address that stands for `addr`, and the row that says so.
    //= rfc7757#section-3.3.2
    pub fn to4(&self, addr: Ipv6Addr) -> Option<(Ipv4Addr, EamRow)> {
        let row = self.by6.longest(addr.into())?;
        let (bits6, bits4) = (host_bits6(row.v6), host_bits4(row.v4));
        // The IPv4 suffix is what follows the IPv6 prefix; the bits behind it have no meaning.
        // Shifted by 128 only when nothing is to be left.
        let suffix = u128::from(addr).checked_shr((bits6 - bits4).into());
        let suffix = suffix.unwrap_or(0) as u32 & low_bits4(bits4);
        Some(((u32::from(row.v4.network()) | suffix).into(), row))
    }

    /// The IPv6 address that stands for `addr`, and the row that says so.
    //= rfc7757#section-3.3.1
    pub fn to6(&self, addr: Ipv4Addr) -> Option<(Ipv6Addr, EamRow)> {
        let row = self.by4.longest(u32::from(addr).into())?;
        let (bits6, bits4) = (host_bits6(row.v6), host_bits4(row.v4));
        let suffix = u128::from(u32::from(addr) & low_bits4(bits4));
        // Shifted by 128 only when there is nothing to shift.
        let suffix = suffix.checked_shl((bits6 - bits4).into()).unwrap_or(0);
        Some(((u128::from(row.v6.network()) | suffix).into(), row))
    }
}

/// The rows by their prefixes of one family, a hash table for each prefix length in use.
#[derive(Clone, Debug, Default)]
struct Index {
    /// Longest prefix first; none is empty.
    levels: Vec<Level>,
}

#[derive(Clone, Debug)]
struct Level {
    /// How many bits of an address the prefixes of this length do not have.
    host_bits: u8,
    /// By the bits they do have.
    rows: HashTable<(u128, EamRow)>,
}

impl Index {
    fn longest(&self, addr: u128) -> Option<EamRow> {
        self.levels.iter().find_map(|level| level.find(addr))
    }

    fn exact(&self, addr: u128, host_bits: u8) -> Option<EamRow> {
        self.position(host_bits)
            .ok()
            .and_then(|at| self.levels.get(at)?.find(addr))
    }

    fn insert(&mut self, addr: u128, host_bits: u8, row: EamRow) {
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

    fn remove(&mut self, addr: u128, host_bits: u8) {
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

impl Level {
    fn find(&self, addr: u128) -> Option<EamRow> {
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

fn host_bits6(prefix: Prefix6) -> u8 {
    128 - prefix.prefix_len()
}

fn host_bits4(prefix: Prefix4) -> u8 {
    32 - prefix.prefix_len()
}

/// A mask for the last `bits` bits of an IPv4 address.
fn low_bits4(bits: u8) -> u32 {
    u32::MAX.checked_shr(32 - u32::from(bits)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
