// SPDX-License-Identifier: GPL-2.0-or-later
//! Shares of the ports of pool4: which node may give a transport address to a new client.
//!
//! Ports are dealt out in blocks of 16 to 64 slices, over and over: every range of 1024 ports has
//! a block of each slice, on every address. A node owns slices, by a fixed split or by who is
//! there. Mappings that exist are nobody's share: whoever has them translates.

use super::seal::NodeId;
use crate::model::PortRange;
pub use crate::model::cluster::ShareMode;

/// A set of slices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    pub const WHOLE: Self = Self(u64::MAX);
    pub const NONE: Self = Self(0);

    /// A fixed part: slices `index`, `index + of`, and so on. Nothing if there is no such part.
    pub fn of_static(index: u8, of: u8) -> Self {
        let mine = (0..SLICES).filter(|slice| of != 0 && slice % of == index);
        Self(mine.fold(0, |all, slice| all | 1 << slice))
    }

    /// The part of `node` among `members`. Everybody who knows the same members comes to the same
    /// parts. When one leaves, only its slices move; when one comes, slices move only to it.
    pub fn of_member(node: NodeId, members: &[NodeId]) -> Self {
        let owns = |slice: u8| {
            let best = members.iter().max_by_key(|m| (weight(**m, slice), **m));
            best == Some(&node)
        };
        let mine = (0..SLICES).filter(|slice| owns(*slice));
        Self(mine.fold(0, |all, slice| all | 1 << slice))
    }

    /// Whether a port, or an ICMP identifier, is in it.
    pub const fn has(self, port: u16) -> bool {
        self.0 >> (port / BLOCK % SLICES as u16) & 1 != 0
    }

    pub const fn is_whole(self) -> bool {
        self.0 == u64::MAX
    }

    /// How many of 64 slices.
    pub const fn slices(self) -> u32 {
        self.0.count_ones()
    }

    /// The ports in it, from 0 on, as ranges that do not touch.
    pub fn ranges(self) -> impl Iterator<Item = PortRange> {
        let mut next = Some(0_u16);
        std::iter::from_fn(move || {
            let min = first_from(next?, |port| self.has(port))?;
            let end = first_from(min, |port| !self.has(port));
            next = end;
            Some(PortRange {
                min,
                max: end.map_or(u16::MAX, |end| end - 1),
            })
        })
    }

    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// The first port from `port` on, by blocks, that something is true of.
fn first_from(port: u16, is: impl Fn(u16) -> bool) -> Option<u16> {
    if is(port) {
        return Some(port);
    }
    let blocks = port / BLOCK + 1..=u16::MAX / BLOCK;
    blocks.map(|block| block * BLOCK).find(|first| is(*first))
}

/// How much a node wants a slice: rendezvous hashing.
const fn weight(node: NodeId, slice: u8) -> u64 {
    let mut x = (node as u64) << 8 | slice as u64;
    // The finalizer of splitmix64: every bit of the input changes half of the output.
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

const SLICES: u8 = 64;

/// Ports in a row that go to one node.
const BLOCK: u16 = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_static_split_leaves_no_port_out_and_none_twice() {
        for of in 1..=8 {
            for port in (0..=u16::MAX).step_by(7) {
                let owners = (0..of).filter(|i| Share::of_static(*i, of).has(port));
                assert_eq!(owners.count(), 1, "{port} of {of}");
            }
        }
        assert_eq!(Share::of_static(2, 2), Share::NONE);
        assert_eq!(Share::of_static(0, 0), Share::NONE);
        assert!(Share::of_static(0, 1).is_whole());
    }

    #[test]
    fn ranges_are_the_ports_of_a_share() {
        for share in [
            Share::WHOLE,
            Share::NONE,
            Share::of_static(1, 3),
            Share::of_member(5, &[5, 9]),
        ] {
            let mut ports = vec![false; 65536];
            for range in share.ranges() {
                for port in range.min..=range.max {
                    ports[usize::from(port)] = true;
                }
            }
            assert!((0..=u16::MAX).all(|p| ports[usize::from(p)] == share.has(p)));
        }
    }

    proptest! {
        #[test]
        fn members_come_and_go_and_only_their_slices_move(
            members in prop::collection::btree_set(1..500u16, 1..8),
            leaver in any::<prop::sample::Index>(),
        ) {
            let all: Vec<NodeId> = members.into_iter().collect();
            let leaver = all[leaver.index(all.len())];
            let rest: Vec<NodeId> = all.iter().copied().filter(|m| *m != leaver).collect();
            let mut union = 0;
            for member in &all {
                let share = Share::of_member(*member, &all);
                prop_assert_eq!(union & share.0, 0, "two owners");
                union |= share.0;
                if *member != leaver {
                    let later = Share::of_member(*member, &rest);
                    prop_assert_eq!(share.and(later), share, "lost a slice");
                }
            }
            prop_assert_eq!(union, u64::MAX);
        }
    }

    #[test]
    fn shares_are_about_equal() {
        for members in [vec![1, 2], vec![1, 2, 3], vec![10, 20, 30, 40]] {
            let fair = 64 / members.len() as u32;
            for member in &members {
                let slices = Share::of_member(*member, &members).slices();
                assert!(
                    (fair / 2..=fair * 2).contains(&slices),
                    "{slices} of {members:?}"
                );
            }
        }
    }
}
