// SPDX-License-Identifier: GPL-2.0-or-later
//! Sets of transport addresses as runs of addresses with equal port ranges.

use std::net::Ipv4Addr;

use crate::base::prefix::Prefix4;
use crate::base::{Protocol, Transport4};
use crate::model::PortRange;

/// A run of addresses that have the same port ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
    /// Ascending, neither overlapping nor adjacent, never empty.
    pub ports: Vec<PortRange>,
}

impl Block {
    /// How many transport addresses each address has.
    pub(in crate::nat64) fn ports_per_address(&self) -> u64 {
        self.ports.iter().map(PortRange::len).sum()
    }

    pub(super) fn len(&self) -> u64 {
        let addresses = u64::from(u32::from(self.last) - u32::from(self.first)) + 1;
        addresses * self.ports_per_address()
    }
}

impl PortRange {
    pub(in crate::nat64) fn len(&self) -> u64 {
        u64::from(self.max - self.min) + 1
    }
}

/// Blocks in ascending order of addresses; no two overlap.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks(pub(super) Vec<Block>);

impl Blocks {
    pub(super) fn find(&self, addr: Ipv4Addr) -> Option<&Block> {
        let after = self.0.partition_point(|b| b.first <= addr);
        self.0[..after].last().filter(|b| addr <= b.last)
    }

    pub(super) fn contains(&self, v4: Transport4) -> bool {
        self.find(v4.addr).is_some_and(|block| {
            let after = block.ports.partition_point(|r| r.min <= v4.port);
            block.ports[..after]
                .last()
                .is_some_and(|r| v4.port <= r.max)
        })
    }

    pub(super) fn add(&mut self, prefix: &Prefix4, ports: PortRange) {
        self.insert(prefix.network().into(), prefix.last().into(), ports);
    }

    pub(super) fn insert(&mut self, first: u32, last: u32, ports: PortRange) {
        self.edit(first, last, |list| fuse(list, ports));
    }

    pub(super) fn remove(&mut self, prefix: &Prefix4, ports: PortRange) {
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

pub(super) fn normal(protocol: Protocol, ports: PortRange) -> PortRange {
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
