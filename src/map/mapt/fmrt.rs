// SPDX-License-Identifier: GPL-2.0-or-later
//! The table of forwarding mapping rules (RFC 7597 section 5): where in the domain an IPv4 address
//! is.

use std::cmp::Reverse;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::map::index::{Index, host_bits4, host_bits6};
use crate::model::mapt::MapRule;

/// All rules of one instance, looked up by the longest matching prefix of either family.
//= rfc7597#section-5.2
#[derive(Clone, Debug, Default)]
pub struct Fmrt {
    by6: Index<MapRule>,
    by4: Index<MapRule>,
}

/// Why a rule was not added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FmrError {
    #[error("the rule '{0}' exists already")]
    Duplicate(MapRule),
    #[error("'{new}' overlaps the rule '{old}'; remove that one first, or choose other prefixes")]
    Overlap { new: MapRule, old: MapRule },
    #[error("there is no rule '{0}'; all four values must be as in 'fmrt display'")]
    Absent(MapRule),
}

impl Fmrt {
    pub fn len(&self) -> usize {
        self.by4.len()
    }

    pub const fn is_empty(&self) -> bool {
        self.by4.is_empty()
    }

    /// Adds a rule. As with Jool, only the first address of its prefixes is looked for in the
    /// existing rules, so that a shorter prefix can come after a longer one.
    ///
    /// # Errors
    /// [`FmrError::Duplicate`] and [`FmrError::Overlap`]; nothing changes then.
    pub fn insert(&mut self, rule: MapRule) -> Result<(), FmrError> {
        let (addr6, addr4) = keys(rule);
        match self.by6.longest(addr6).or_else(|| self.by4.longest(addr4)) {
            Some(old) if old == rule => Err(FmrError::Duplicate(rule)),
            Some(old) => Err(FmrError::Overlap { new: rule, old }),
            None => {
                let (len6, len4) = lengths(rule);
                self.by6.insert(addr6, len6, rule);
                self.by4.insert(addr4, len4, rule);
                Ok(())
            }
        }
    }

    /// Removes the rule that is the same in everything.
    ///
    /// # Errors
    /// [`FmrError::Absent`].
    pub fn remove(&mut self, rule: MapRule) -> Result<(), FmrError> {
        let ((addr6, addr4), (len6, len4)) = (keys(rule), lengths(rule));
        if self.by6.exact(addr6, len6) != Some(rule) {
            return Err(FmrError::Absent(rule));
        }
        self.by6.remove(addr6, len6);
        self.by4.remove(addr4, len4);
        Ok(())
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// All rules in display order: the IPv4 prefixes as a binary tree, each before those within
    /// it, the branch of bit 1 before that of bit 0, as in the EAM table.
    pub fn rows(&self) -> Vec<MapRule> {
        let mut rows: Vec<_> = self.by4.rows().collect();
        rows.sort_unstable_by_key(|rule| (Reverse(rule.v4().last()), rule.v4().prefix_len()));
        rows
    }

    /// The rule of an IPv6 address.
    pub fn find6(&self, addr: Ipv6Addr) -> Option<MapRule> {
        self.by6.longest(addr.into())
    }

    /// The rule of an IPv4 address.
    pub fn find4(&self, addr: Ipv4Addr) -> Option<MapRule> {
        self.by4.longest(u32::from(addr).into())
    }
}

/// The first addresses of the prefixes.
fn keys(rule: MapRule) -> (u128, u128) {
    let v4 = u32::from(rule.v4().network());
    (rule.v6().network().into(), v4.into())
}

/// How many bits the prefixes leave.
fn lengths(rule: MapRule) -> (u8, u8) {
    (host_bits6(rule.v6()), host_bits4(rule.v4()))
}
