// SPDX-License-Identifier: GPL-2.0-or-later
//! IPv4 addresses that pool6 does not stand for.

use std::net::Ipv4Addr;

use crate::base::prefix::Prefix4;
use crate::model::settings::{SettingError, unscoped};

/// Prefixes in the order in which they were added; the same one may be there twice.
#[derive(Clone, Debug, Default)]
pub struct Denylist4 {
    rows: Vec<Prefix4>,
    /// First and last address of what the rows cover: ascending, neither overlapping nor adjacent.
    ranges: Vec<(u32, u32)>,
}

impl Denylist4 {
    /// Adds a prefix. `force` takes also one whose addresses never leave their link: those are
    /// not translated anyway.
    ///
    /// # Errors
    /// [`SettingError::Scoped`]; nothing changes then.
    pub fn add(&mut self, prefix: Prefix4, force: bool) -> Result<(), SettingError> {
        if !force {
            unscoped(prefix)?;
        }
        self.rows.push(prefix);
        self.cover(prefix);
        Ok(())
    }

    /// Removes a prefix once; false if it is not there.
    pub fn remove(&mut self, prefix: Prefix4) -> bool {
        let Some(at) = self.rows.iter().position(|row| *row == prefix) else {
            return false;
        };
        self.rows.remove(at);
        let mut rest = Self::default();
        for row in &self.rows {
            rest.cover(*row);
        }
        self.ranges = rest.ranges;
        true
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn rows(&self) -> &[Prefix4] {
        &self.rows
    }

    pub fn contains(&self, addr: Ipv4Addr) -> bool {
        let addr = u32::from(addr);
        let after = self.ranges.partition_point(|(first, _)| *first <= addr);
        let before = after.checked_sub(1).and_then(|at| self.ranges.get(at));
        before.is_some_and(|(_, last)| addr <= *last)
    }

    fn cover(&mut self, prefix: Prefix4) {
        let mut first = u32::from(prefix.network());
        let mut last = u32::from(prefix.last());
        let ranges = &self.ranges;
        let start = ranges.partition_point(|(_, l)| l.saturating_add(1) < first);
        let end = ranges.partition_point(|(f, _)| *f <= last.saturating_add(1));
        for (f, l) in ranges.get(start..end).unwrap_or_default() {
            first = first.min(*f);
            last = last.max(*l);
        }
        self.ranges.splice(start..end, [(first, last)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix4 {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_grow_together_and_fall_apart() {
        let mut list = Denylist4::default();
        for row in ["10.0.2.0/24", "10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/24"] {
            list.add(prefix(row), false).unwrap();
        }
        assert_eq!(list.ranges.len(), 1);
        assert_eq!(list.rows().len(), 4, "duplicates stay");
        let has = |list: &Denylist4, addr: &str| list.contains(addr.parse().unwrap());
        assert!(has(&list, "10.0.0.0") && has(&list, "10.0.2.255"));
        assert!(!has(&list, "9.255.255.255") && !has(&list, "10.0.3.0"));
        assert!(list.remove(prefix("10.0.1.0/24")) && !list.remove(prefix("10.0.1.0/24")));
        assert!(has(&list, "10.0.0.9") && !has(&list, "10.0.1.9") && has(&list, "10.0.2.9"));
        assert!(list.remove(prefix("10.0.0.0/24")) && has(&list, "10.0.0.9"));
        assert!(list.remove(prefix("10.0.0.0/24")) && !has(&list, "10.0.0.9"));
        assert_eq!(list.rows(), [prefix("10.0.2.0/24")]);
        list.clear();
        assert!(list.rows().is_empty() && !has(&list, "10.0.2.9"));
    }

    #[test]
    fn the_ends_of_the_address_space_can_be_denied() {
        let mut list = Denylist4::default();
        assert!(matches!(
            list.add(prefix("240.0.0.0/4"), false),
            Err(SettingError::Scoped(..))
        ));
        assert!(list.rows().is_empty());
        list.add(prefix("240.0.0.0/4"), true).unwrap();
        list.add(prefix("255.255.255.255"), true).unwrap();
        list.add(prefix("0.0.0.0"), true).unwrap();
        assert!(list.contains(Ipv4Addr::BROADCAST) && list.contains(Ipv4Addr::UNSPECIFIED));
        list.add(prefix("0.0.0.0/0"), true).unwrap();
        assert_eq!(list.ranges, [(0, u32::MAX)]);
    }
}
