// SPDX-License-Identifier: GPL-2.0-or-later
//! pool4: the IPv4 transport addresses that clients are hidden behind.
//!
//! A [set](Set) of transport addresses for every (protocol, mark). Addresses with equal port
//! ranges are kept as one block, so that a /8 costs no more than a /32.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::base::prefix::Prefix4;
use crate::base::{Protocol, Transport4};
use crate::model::{MaxIterations, Pool4Entry, Pool4Row, PortRange};

/// All sets of one instance.
#[derive(Clone, Debug, Default)]
pub struct Pool4 {
    sets: BTreeMap<(Protocol, u32), Set>,
    /// Per protocol, what any mark may use: packets from IPv4 are looked up here.
    union: [Blocks; 3],
}

/// The transport addresses that packets of one protocol and mark are given.
#[derive(Clone, Debug, Default)]
pub struct Set {
    iterations: MaxIterations,
    blocks: Blocks,
}

/// A run of addresses that have the same port ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
    /// Ascending, neither overlapping nor adjacent, never empty.
    pub ports: Vec<PortRange>,
}

impl Pool4 {
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Adds a prefix with a port range. A range given backwards is turned round; port 0 does not
    /// exist for TCP and UDP.
    pub fn add(&mut self, entry: &Pool4Entry) {
        let set = self.sets.entry((entry.protocol, entry.mark)).or_default();
        match entry.max_iterations {
            // Jool's `auto` does not take back what a set was told before.
            //= jool#pool4
            None | Some(MaxIterations::Auto) => {}
            Some(given) => set.iterations = given,
        }
        let ports = normal(entry.protocol, entry.ports);
        set.blocks.add(&entry.prefix, ports);
        self.union[entry.protocol.index()].add(&entry.prefix, ports);
    }

    /// Removes a prefix with a port range from one set; what is not there is not missed.
    pub fn remove(&mut self, entry: &Pool4Entry) {
        let key = (entry.protocol, entry.mark);
        if let Some(set) = self.sets.get_mut(&key) {
            set.blocks
                .remove(&entry.prefix, normal(entry.protocol, entry.ports));
            if set.blocks.0.is_empty() {
                self.sets.remove(&key);
            }
        }
        self.unite();
    }

    /// Adds a run of addresses, as [`Pool4::sets`] gave it.
    pub fn restore(
        &mut self,
        protocol: Protocol,
        mark: u32,
        first: Ipv4Addr,
        last: Ipv4Addr,
        ports: PortRange,
    ) {
        let (first, last) = (first.into(), last.into());
        let set = self.sets.entry((protocol, mark)).or_default();
        set.blocks.insert(first, last, ports);
        self.union[protocol.index()].insert(first, last, ports);
    }

    /// Sets how many candidates an existing set tries.
    pub fn set_iterations(&mut self, protocol: Protocol, mark: u32, iterations: MaxIterations) {
        if let Some(set) = self.sets.get_mut(&(protocol, mark)) {
            set.iterations = iterations;
        }
    }

    pub fn set(&self, protocol: Protocol, mark: u32) -> Option<&Set> {
        self.sets.get(&(protocol, mark))
    }

    /// Whether any mark may use this transport address.
    pub fn contains(&self, protocol: Protocol, v4: Transport4) -> bool {
        self.union[protocol.index()].contains(v4)
    }

    /// Whether any mark may use a transport address that `entry` has.
    pub fn overlaps(&self, entry: &Pool4Entry) -> bool {
        let ports = normal(entry.protocol, entry.ports);
        self.union[entry.protocol.index()].0.iter().any(|block| {
            block.first <= entry.prefix.last()
                && entry.prefix.network() <= block.last
                && block
                    .ports
                    .iter()
                    .any(|r| r.min <= ports.max && ports.min <= r.max)
        })
    }

    /// Whether the address occurs with any protocol, mark or port.
    pub fn has_address(&self, addr: Ipv4Addr) -> bool {
        self.union.iter().any(|blocks| blocks.find(addr).is_some())
    }

    /// The blocks that packets from IPv4 may be addressed to.
    pub fn blocks(&self) -> impl Iterator<Item = (Protocol, &Block)> {
        Protocol::ALL
            .into_iter()
            .flat_map(|p| self.union[p.index()].0.iter().map(move |b| (p, b)))
    }

    /// Every set's protocol, mark, iterations and blocks, for storing.
    pub fn sets(&self) -> impl Iterator<Item = (Protocol, u32, MaxIterations, &[Block])> {
        self.sets
            .iter()
            .map(|((p, m), set)| (*p, *m, set.iterations, set.blocks.0.as_slice()))
    }

    /// The rows of one protocol as they are displayed: highest mark first, one address a row.
    pub fn rows(&self, protocol: Protocol) -> impl Iterator<Item = Pool4Row> {
        self.sets
            .range((protocol, 0)..=(protocol, u32::MAX))
            .rev()
            .flat_map(|((protocol, mark), set)| {
                let rows = set.blocks.0.iter().flat_map(|block| {
                    (u32::from(block.first)..=u32::from(block.last)).flat_map(|addr| {
                        block.ports.iter().map(move |p| (Ipv4Addr::from(addr), *p))
                    })
                });
                rows.map(|(addr, ports)| Pool4Row {
                    mark: *mark,
                    protocol: *protocol,
                    iterations: set.max_iterations(),
                    iterations_fixed: set.iterations != MaxIterations::Auto,
                    addr,
                    ports,
                })
            })
    }

    fn unite(&mut self) {
        self.union = Default::default();
        for ((protocol, _), set) in &self.sets {
            let union = &mut self.union[protocol.index()];
            for block in &set.blocks.0 {
                for ports in &block.ports {
                    union.insert(block.first.into(), block.last.into(), *ports);
                }
            }
        }
    }
}

impl Set {
    /// How many transport addresses there are.
    pub fn len(&self) -> u64 {
        self.blocks.0.iter().map(Block::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.0.is_empty()
    }

    /// How many candidates are tried for a new mapping; `None` is all of them.
    //= jool#max-iterations
    pub fn max_iterations(&self) -> Option<u32> {
        match self.iterations {
            MaxIterations::Auto => Some((self.len() / 128).clamp(1024, 8192) as u32),
            MaxIterations::Infinity => None,
            MaxIterations::Fixed(n) => Some(n),
        }
    }

    /// The transport addresses in their order (by address, then port), beginning with the
    /// `offset`-th and going round once.
    pub fn from_offset(&self, offset: u64) -> Candidates<'_> {
        let mut left = offset % self.len().max(1);
        for (index, block) in self.blocks.0.iter().enumerate() {
            if left < block.len() {
                return Candidates {
                    blocks: &self.blocks.0,
                    block: index,
                    position: left,
                    left: self.len(),
                };
            }
            left -= block.len();
        }
        Candidates {
            blocks: &[],
            block: 0,
            position: 0,
            left: 0,
        }
    }
}

impl Block {
    fn ports_per_address(&self) -> u64 {
        self.ports.iter().map(PortRange::len).sum()
    }

    fn len(&self) -> u64 {
        let addresses = u64::from(u32::from(self.last) - u32::from(self.first)) + 1;
        addresses * self.ports_per_address()
    }

    fn nth(&self, position: u64) -> Option<Transport4> {
        let per_address = self.ports_per_address();
        let addr = u64::from(u32::from(self.first)) + position.checked_div(per_address)?;
        let mut left = position % per_address;
        for range in &self.ports {
            if left < range.len() {
                let port = u64::from(range.min) + left;
                return Some(Transport4::new(Ipv4Addr::from(addr as u32), port as u16));
            }
            left -= range.len();
        }
        None
    }
}

impl PortRange {
    fn len(&self) -> u64 {
        u64::from(self.max - self.min) + 1
    }
}

/// See [`Set::from_offset`].
#[derive(Clone, Debug)]
pub struct Candidates<'a> {
    blocks: &'a [Block],
    block: usize,
    position: u64,
    left: u64,
}

impl Iterator for Candidates<'_> {
    type Item = Transport4;

    fn next(&mut self) -> Option<Transport4> {
        self.left = self.left.checked_sub(1)?;
        let block = self.blocks.get(self.block)?;
        let found = block.nth(self.position);
        self.position += 1;
        if self.position == block.len() {
            self.position = 0;
            self.block = (self.block + 1) % self.blocks.len();
        }
        found
    }
}

/// Blocks in ascending order of addresses; no two overlap.
#[derive(Clone, Debug, Default)]
struct Blocks(Vec<Block>);

impl Blocks {
    fn find(&self, addr: Ipv4Addr) -> Option<&Block> {
        let after = self.0.partition_point(|b| b.first <= addr);
        self.0[..after].last().filter(|b| addr <= b.last)
    }

    fn contains(&self, v4: Transport4) -> bool {
        self.find(v4.addr).is_some_and(|block| {
            let after = block.ports.partition_point(|r| r.min <= v4.port);
            block.ports[..after]
                .last()
                .is_some_and(|r| v4.port <= r.max)
        })
    }

    fn add(&mut self, prefix: &Prefix4, ports: PortRange) {
        self.insert(prefix.network().into(), prefix.last().into(), ports);
    }

    fn insert(&mut self, first: u32, last: u32, ports: PortRange) {
        self.edit(first, last, |list| fuse(list, ports));
    }

    fn remove(&mut self, prefix: &Prefix4, ports: PortRange) {
        self.edit(prefix.network().into(), prefix.last().into(), |list| {
            cut(list, ports);
        });
    }

    /// Applies `change` to the port ranges of every address from `first` to `last`.
    fn edit(&mut self, first: u32, last: u32, change: impl Fn(&mut Vec<PortRange>)) {
        let mut result: Vec<Block> = Vec::with_capacity(self.0.len() + 2);
        let mut push = |first: u32, last: u32, ports: Vec<PortRange>| {
            if ports.is_empty() {
                return;
            }
            match result.last_mut() {
                Some(b) if b.ports == ports && u32::from(b.last).checked_add(1) == Some(first) => {
                    b.last = last.into();
                }
                _ => result.push(Block {
                    first: first.into(),
                    last: last.into(),
                    ports,
                }),
            }
        };
        let fresh = || {
            let mut ports = Vec::new();
            change(&mut ports);
            ports
        };
        // The first address of the edited span that no block has covered yet; None: all done.
        let mut next = Some(first);
        for block in self.0.drain(..) {
            let (b_first, b_last) = (u32::from(block.first), u32::from(block.last));
            if b_last < first {
                push(b_first, b_last, block.ports);
                continue;
            }
            if b_first > last {
                if let Some(from) = next.take() {
                    push(from, last, fresh());
                }
                push(b_first, b_last, block.ports);
                continue;
            }
            if b_first < first {
                push(b_first, first - 1, block.ports.clone());
            }
            let (from, to) = (b_first.max(first), b_last.min(last));
            if let Some(gap) = next.filter(|gap| *gap < from) {
                push(gap, from - 1, fresh());
            }
            let mut ports = block.ports.clone();
            change(&mut ports);
            push(from, to, ports);
            next = if to < last { Some(to + 1) } else { None };
            if b_last > last {
                push(last + 1, b_last, block.ports);
            }
        }
        if let Some(from) = next {
            push(from, last, fresh());
        }
        self.0 = result;
    }
}

fn normal(protocol: Protocol, ports: PortRange) -> PortRange {
    let (min, max) = (ports.min.min(ports.max), ports.min.max(ports.max));
    match protocol {
        Protocol::Tcp | Protocol::Udp => PortRange {
            min: min.max(1),
            max: max.max(1),
        },
        Protocol::Icmp => PortRange { min, max },
    }
}

/// Adds a range to a sorted list, joining what overlaps or touches.
fn fuse(list: &mut Vec<PortRange>, mut new: PortRange) {
    list.retain(|r| {
        let apart =
            u32::from(r.max) + 1 < u32::from(new.min) || u32::from(new.max) + 1 < u32::from(r.min);
        if !apart {
            new.min = new.min.min(r.min);
            new.max = new.max.max(r.max);
        }
        apart
    });
    let at = list.partition_point(|r| r.min < new.min);
    list.insert(at, new);
}

/// Takes a range out of a sorted list.
fn cut(list: &mut Vec<PortRange>, gone: PortRange) {
    let mut rest = Vec::with_capacity(list.len() + 1);
    for r in list.drain(..) {
        if r.max < gone.min || gone.max < r.min {
            rest.push(r);
            continue;
        }
        if r.min < gone.min {
            rest.push(PortRange {
                min: r.min,
                max: gone.min - 1,
            });
        }
        if gone.max < r.max {
            rest.push(PortRange {
                min: gone.max + 1,
                max: r.max,
            });
        }
    }
    *list = rest;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn entry(prefix: &str, min: u16, max: u16, mark: u32) -> Pool4Entry {
        Pool4Entry {
            mark,
            protocol: Protocol::Tcp,
            prefix: prefix.parse().unwrap(),
            ports: PortRange { min, max },
            max_iterations: None,
        }
    }

    fn shown(pool4: &Pool4) -> Vec<String> {
        pool4
            .rows(Protocol::Tcp)
            .map(|r| format!("{} {} {}-{}", r.mark, r.addr, r.ports.min, r.ports.max))
            .collect()
    }

    #[test]
    fn ranges_fuse_split_and_sort() {
        let mut pool4 = Pool4::default();
        pool4.add(&entry("192.0.2.1/32", 2000, 1000, 0));
        pool4.add(&entry("192.0.2.1/32", 1500, 2500, 0));
        pool4.add(&entry("192.0.2.1/32", 2501, 2600, 0));
        pool4.add(&entry("192.0.2.0/30", 0, 10, 7));
        assert_eq!(
            shown(&pool4),
            [
                "7 192.0.2.0 1-10",
                "7 192.0.2.1 1-10",
                "7 192.0.2.2 1-10",
                "7 192.0.2.3 1-10",
                "0 192.0.2.1 1000-2600",
            ]
        );
        pool4.remove(&entry("192.0.2.2/31", 0, 65535, 7));
        pool4.remove(&entry("192.0.2.1/32", 1200, 1300, 0));
        assert_eq!(
            shown(&pool4),
            [
                "7 192.0.2.0 1-10",
                "7 192.0.2.1 1-10",
                "0 192.0.2.1 1000-1199",
                "0 192.0.2.1 1301-2600",
            ]
        );
        assert!(pool4.contains(Protocol::Tcp, "192.0.2.1#5".parse().unwrap()));
        assert!(!pool4.contains(Protocol::Tcp, "192.0.2.1#1250".parse().unwrap()));
        assert!(!pool4.contains(Protocol::Udp, "192.0.2.1#5".parse().unwrap()));
        pool4.remove(&entry("0.0.0.0/0", 0, 65535, 7));
        pool4.remove(&entry("0.0.0.0/0", 0, 65535, 0));
        assert!(pool4.is_empty());
    }

    #[test]
    fn overlaps_are_seen() {
        let mut pool4 = Pool4::default();
        pool4.add(&entry("192.0.2.4/30", 100, 200, 7));
        for (prefix, min, max, expected) in [
            ("192.0.2.7/32", 200, 300, true),
            ("192.0.2.0/24", 300, 150, true),
            ("192.0.2.7/32", 201, 300, false),
            ("192.0.2.8/32", 100, 200, false),
            ("192.0.2.0/30", 100, 200, false),
        ] {
            let other = entry(prefix, min, max, 0);
            assert_eq!(pool4.overlaps(&other), expected, "{prefix} {min}-{max}");
        }
        let udp = Pool4Entry {
            protocol: Protocol::Udp,
            ..entry("192.0.2.4/30", 100, 200, 7)
        };
        assert!(!pool4.overlaps(&udp));
    }

    #[test]
    fn candidates_go_round_once() {
        let mut pool4 = Pool4::default();
        pool4.add(&entry("192.0.2.0/31", 5, 6, 0));
        pool4.add(&entry("192.0.2.0/31", 9, 9, 0));
        let set = pool4.set(Protocol::Tcp, 0).unwrap();
        assert_eq!(set.len(), 6);
        let from = |o| {
            set.from_offset(o)
                .map(|t| t.to_string())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            from(2),
            "192.0.2.0#9 192.0.2.1#5 192.0.2.1#6 192.0.2.1#9 192.0.2.0#5 192.0.2.0#6"
        );
        assert_eq!(from(8), from(2));
    }

    #[test]
    fn the_largest_pool_is_counted() {
        let mut pool4 = Pool4::default();
        pool4.add(&entry("0.0.0.0/0", 0, 65535, 0));
        let set = pool4.set(Protocol::Tcp, 0).unwrap();
        assert_eq!(set.len(), 65535 << 32);
        assert_eq!(set.max_iterations(), Some(8192));
        assert_eq!(
            set.from_offset(set.len() - 1).take(2).collect::<Vec<_>>(),
            [
                "255.255.255.255#65535".parse().unwrap(),
                "0.0.0.0#1".parse().unwrap()
            ]
        );
    }

    proptest! {
        #[test]
        fn blocks_behave_like_a_set_of_transport_addresses(
            steps in prop::collection::vec(
                (any::<bool>(), 0u32..16, 0u8..4, 1u16..12, 0u16..6), 1..40)
        ) {
            let mut blocks = Blocks::default();
            let mut model = BTreeSet::new();
            for (add, addr, host_bits, min, more) in steps {
                let first = addr >> host_bits << host_bits;
                let prefix = Prefix4::new(first.into(), 32 - host_bits).unwrap();
                let ports = PortRange { min, max: min + more };
                for a in first..first + (1 << host_bits) {
                    for p in ports.min..=ports.max {
                        if add { model.insert((a, p)); } else { model.remove(&(a, p)); }
                    }
                }
                if add { blocks.add(&prefix, ports) } else { blocks.remove(&prefix, ports) }
                let set = Set { blocks: blocks.clone(), ..Set::default() };
                let listed: Vec<_> = set.from_offset(0).map(|t| (u32::from(t.addr), t.port)).collect();
                prop_assert_eq!(listed, model.iter().copied().collect::<Vec<_>>());
                for window in blocks.0.windows(2) {
                    prop_assert!(window[0].last < window[1].first);
                }
                for a in 0..20 { for p in 0..20 {
                    prop_assert_eq!(
                        blocks.contains(Transport4::new(a.into(), p)), model.contains(&(a, p)));
                }}
            }
        }
    }
}
