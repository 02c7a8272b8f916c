// SPDX-License-Identifier: GPL-2.0-or-later
//! The explicit address mapping table (RFC 7757 section 3): pairs of prefixes that stand for
//! each other.

use std::cmp::Reverse;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::index::{Index, host_bits4, host_bits6};
use crate::base::prefix::{Prefix4, Prefix6};
use crate::model::EamRow;

/// All mappings of one instance, looked up by the longest matching prefix of either family.
//= rfc7757#section-3.1
#[derive(Clone, Debug, Default)]
pub struct Eamt {
    by6: Index<EamRow>,
    by4: Index<EamRow>,
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
        self.by4.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by4.is_empty()
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
        let mut rows: Vec<_> = self.by4.rows().collect();
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

/// A mask for the last `bits` bits of an IPv4 address.
fn low_bits4(bits: u8) -> u32 {
    u32::MAX.checked_shr(32 - u32::from(bits)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
