// SPDX-License-Identifier: GPL-2.0-or-later
//! pool4: the IPv4 transport addresses that clients are hidden behind.
//!
//! A [set](Set) of transport addresses for every (protocol, mark). Addresses with equal port
//! ranges are kept as one block, so that a /8 costs no more than a /32.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

pub use self::blocks::Block;
use self::blocks::{Blocks, normal};
use crate::base::prefix::Prefix4;
use crate::base::{Protocol, Transport4};
use crate::model::{MaxIterations, Pool4Entry, Pool4Row, PortRange};

mod blocks;
mod entries;

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
    /// How many transport addresses there are before each block.
    starts: Vec<u64>,
    len: u64,
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
        set.edit(|blocks| blocks.add(&entry.prefix, ports));
        self.union[entry.protocol.index()].add(&entry.prefix, ports);
    }

    /// Removes a prefix with a port range from one set; what is not there is not missed.
    pub fn remove(&mut self, entry: &Pool4Entry) {
        let key = (entry.protocol, entry.mark);
        if let Some(set) = self.sets.get_mut(&key) {
            let ports = normal(entry.protocol, entry.ports);
            set.edit(|blocks| blocks.remove(&entry.prefix, ports));
            if set.blocks.0.is_empty() {
                self.sets.remove(&key);
            }
        }
        self.unite();
    }

    /// One prefix with the same ranges for every protocol, all of which may be tried. However many
    /// they are, they must be ascending and neither overlap nor touch. Port 0 does not exist for
    /// TCP and UDP.
    pub fn of_ranges(
        mark: u32,
        prefix: Prefix4,
        ranges: impl Iterator<Item = PortRange> + Clone,
    ) -> Self {
        let mut pool4 = Self::default();
        for protocol in Protocol::ALL {
            let exists = ranges
                .clone()
                .filter(|range| protocol == Protocol::Icmp || range.max != 0);
            let ports: Vec<_> = exists.map(|range| normal(protocol, range)).collect();
            if ports.is_empty() {
                continue;
            }
            let block = Block {
                first: prefix.network(),
                last: prefix.last(),
                ports,
            };
            let mut set = Set {
                iterations: MaxIterations::Infinity,
                ..Set::default()
            };
            set.edit(|blocks| blocks.0.push(block.clone()));
            pool4.sets.insert((protocol, mark), set);
            pool4.union[protocol.index()].0.push(block);
        }
        pool4
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
        set.edit(|blocks| blocks.insert(first, last, ports));
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
    /// What clients are hidden behind when there is no pool4: the upper ports of an address that
    /// belongs to the host.
    //= jool#pool4
    pub fn of_host(addr: Ipv4Addr) -> Self {
        let mut set = Self {
            iterations: MaxIterations::Infinity,
            ..Self::default()
        };
        set.edit(|blocks| blocks.insert(addr.into(), addr.into(), HOST_PORTS));
        set
    }

    /// How many transport addresses there are.
    pub const fn len(&self) -> u64 {
        self.len
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn contains(&self, v4: Transport4) -> bool {
        self.blocks.contains(v4)
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
    /// `offset`-th and going round once, as ranges of ports of one address.
    pub fn spans(&self, offset: u64) -> Spans<'_> {
        let position = offset.checked_rem(self.len).unwrap_or(0);
        let block = self.starts.partition_point(|start| *start <= position);
        let block = block.saturating_sub(1);
        let mut spans = Spans {
            blocks: &self.blocks.0,
            block,
            addr: 0,
            range: 0,
            skip: 0,
            left: self.len,
        };
        if let (Some(found), Some(start)) = (self.blocks.0.get(block), self.starts.get(block)) {
            let (inside, per_address) = (position - start, found.ports_per_address());
            spans.addr = u32::from(found.first) + (inside / per_address) as u32;
            spans.skip = inside % per_address;
        }
        // The ranges in front of the offset-th are passed.
        while let Some(range) = spans.range() {
            if spans.skip < range.len() {
                break;
            }
            spans.skip -= range.len();
            spans.range += 1;
        }
        spans
    }

    fn edit(&mut self, change: impl FnOnce(&mut Blocks)) {
        change(&mut self.blocks);
        self.len = 0;
        self.starts.clear();
        for block in &self.blocks.0 {
            self.starts.push(self.len);
            self.len += block.len();
        }
    }
}

/// See [`Set::spans`].
#[derive(Clone, Debug)]
pub struct Spans<'a> {
    blocks: &'a [Block],
    block: usize,
    addr: u32,
    range: usize,
    /// How many ports of the range come last instead of first.
    skip: u64,
    left: u64,
}

impl Spans<'_> {
    fn range(&self) -> Option<PortRange> {
        self.blocks.get(self.block)?.ports.get(self.range).copied()
    }
}

impl Iterator for Spans<'_> {
    type Item = (Ipv4Addr, PortRange);

    fn next(&mut self) -> Option<Self::Item> {
        let block = self.blocks.get(self.block)?;
        let range = self.range().filter(|_| self.left != 0)?;
        let count = (range.len() - self.skip).min(self.left);
        self.left -= count;
        let min = range.min + self.skip as u16;
        let max = (u64::from(min) + count - 1) as u16;
        let found = (self.addr.into(), PortRange { min, max });
        self.skip = 0;
        self.range += 1;
        if self.range == block.ports.len() {
            self.range = 0;
            if self.addr == u32::from(block.last) {
                self.block = (self.block + 1) % self.blocks.len();
                self.addr = self.blocks.get(self.block)?.first.into();
            } else {
                self.addr += 1;
            }
        }
        Some(found)
    }
}

/// The ports of the host's addresses that are ours when there is no pool4: those that Linux does
/// not give to programs by itself.
//= jool#pool4
pub const HOST_PORTS: PortRange = PortRange {
    min: 61_001,
    max: 65_535,
};

#[cfg(test)]
mod tests;
