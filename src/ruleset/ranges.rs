// SPDX-License-Identifier: GPL-2.0-or-later
//! Ranges of addresses of either family, as numbers.

use std::net::Ipv6Addr;

use crate::base::prefix::{Prefix4, Prefix6};

/// First and last address.
pub(super) type Range = (u128, u128);

pub(super) fn range4(prefix: &Prefix4) -> Range {
    let number = |addr| u128::from(u32::from(addr));
    (number(prefix.network()), number(prefix.last()))
}

pub(super) fn range6(prefix: &Prefix6) -> Range {
    (prefix.network().into(), prefix.last().into())
}

pub(super) fn single6(addr: &Ipv6Addr) -> Range {
    ((*addr).into(), (*addr).into())
}

/// The ranges in ascending order, with overlapping and touching ones merged.
pub(super) fn merged(ranges: impl Iterator<Item = Range>) -> Vec<Range> {
    let mut all: Vec<_> = ranges.collect();
    all.sort_unstable();
    let mut out: Vec<Range> = Vec::with_capacity(all.len());
    for (first, last) in all {
        match out.last_mut() {
            Some(open) if first <= open.1.saturating_add(1) => open.1 = open.1.max(last),
            _ => out.push((first, last)),
        }
    }
    out
}

/// At most `most` ranges that cover all of `ranges` and some of the gaps between them, the
/// smallest ones. Gaps that hold anything of `spare` stay, even if there are more of them.
///
/// Both are as from [`merged`].
pub(super) fn coarsened(ranges: &[Range], spare: &[Range], most: usize) -> Vec<Range> {
    let excess = ranges.len().saturating_sub(most);
    let spared = |(from, to): Range| {
        let next = spare.partition_point(|(_, last)| *last < from);
        spare.get(next).is_some_and(|(first, _)| *first <= to)
    };
    let mut gaps: Vec<_> = ranges
        .windows(2)
        .filter_map(|pair| match *pair {
            [(_, last), (first, _)] => Some((last.saturating_add(1), first.saturating_sub(1))),
            _ => None,
        })
        .filter(|gap| excess > 0 && !spared(*gap))
        .collect();
    gaps.sort_unstable_by_key(|(from, to)| to - from);
    gaps.truncate(excess);
    merged(ranges.iter().copied().chain(gaps))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn overlapping_and_touching_prefixes_are_merged() {
        let merged = |prefixes: &[&str]| {
            merged(prefixes.iter().map(|p| range4(&p.parse().unwrap())))
                .iter()
                .map(|(first, last)| {
                    let [first, last] = [first, last].map(|n| Ipv4Addr::from(*n as u32));
                    format!("{first}-{last}")
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            merged(&["192.0.2.4", "192.0.2.0/30", "192.0.2.2", "192.0.2.6/31"]),
            ["192.0.2.0-192.0.2.4", "192.0.2.6-192.0.2.7"]
        );
        assert_eq!(
            merged(&["255.255.255.255", "0.0.0.0/0"]),
            ["0.0.0.0-255.255.255.255"]
        );
        assert_eq!(merged(&[]), [""; 0]);
        assert_eq!(
            super::merged([(u128::MAX, u128::MAX), (0, u128::MAX)].into_iter()),
            [(0, u128::MAX)]
        );
    }

    #[test]
    fn the_smallest_gaps_are_closed_unless_spared() {
        let ranges = [(0, 0), (2, 3), (10, 11), (15, 15), (20, u128::MAX)];
        let coarse = |spare: &[Range], most| coarsened(&ranges, spare, most);
        assert_eq!(coarse(&[], 5), ranges);
        assert_eq!(
            coarse(&[], 4),
            [(0, 3), (10, 11), (15, 15), (20, u128::MAX)]
        );
        assert_eq!(coarse(&[], 2), [(0, 3), (10, u128::MAX)]);
        assert_eq!(coarse(&[], 0), [(0, u128::MAX)]);
        // What is spared may also be in a range.
        assert_eq!(
            coarse(&[(1, 1), (3, 3), (9, 9)], 2),
            [(0, 0), (2, 3), (10, u128::MAX)]
        );
        assert_eq!(coarsened(&[], &[], 0), []);
    }
}
