// SPDX-License-Identifier: GPL-2.0-or-later
//! The addresses of MAP-T (RFC 7597 section 5): which IPv6 address stands for an IPv4 address and
//! port, and the other way round.

use crate::model::mapt::MapRule;

/// The tables of one MAP-T instance.
#[derive(Clone, Debug, Default)]
pub struct Mapt {
    pub fmrt: Fmrt,
}

/// Forwarding mapping rules, looked up by the longest matching prefix of either family.
#[derive(Clone, Debug, Default)]
pub struct Fmrt {
    rows: Vec<MapRule>,
}

/// Why a rule was not added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FmrError {
    #[error("the rule {0} exists already")]
    Duplicate(MapRule),
    #[error("{new} overlaps the rule {old}; remove that one first, or choose other prefixes")]
    Overlap { new: MapRule, old: MapRule },
    #[error("there is no such rule; all four values must be those of 'fmrt display'")]
    Absent,
}

impl Fmrt {
    pub const fn len(&self) -> usize {
        self.rows.len()
    }

    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a rule. Only the first address of its prefixes is looked for in the existing rules,
    /// as with Jool.
    ///
    /// # Errors
    /// [`FmrError::Duplicate`] and [`FmrError::Overlap`]; nothing changes then.
    pub fn insert(&mut self, rule: MapRule) -> Result<(), FmrError> {
        if self.rows.contains(&rule) {
            return Err(FmrError::Duplicate(rule));
        }
        self.rows.push(rule);
        Ok(())
    }

    /// Removes the rule that is the same in everything.
    ///
    /// # Errors
    /// [`FmrError::Absent`].
    pub fn remove(&mut self, rule: MapRule) -> Result<(), FmrError> {
        let at = self.rows.iter().position(|row| *row == rule);
        self.rows.remove(at.ok_or(FmrError::Absent)?);
        Ok(())
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// All rules in display order.
    pub fn rows(&self) -> Vec<MapRule> {
        self.rows.clone()
    }
}
