// SPDX-License-Identifier: GPL-2.0-or-later
//! Which ports of which IPv4 addresses are taken, one bit each.
//!
//! Finding a free port next to a hundred taken ones must not take a hundred questions. The bits
//! of 64 ports are one word; a word of words tells which of 64 words are full, so that 4096 taken
//! ports are passed in one step. Words that are all zero do not exist: an address costs nothing
//! until it is used, and a full step stands for 4096 mappings, which bounds the steps by the size
//! of the table.

use std::net::Ipv4Addr;

use siphasher::sip::SipHasher13;

use super::gradual::Gradual;
use super::pool4::Block;
use super::table::hash_with;
use crate::base::Transport4;
use crate::model::PortRange;

/// The transport addresses in use.
pub(super) struct Used {
    words: Gradual<Word>,
    /// In order of addresses, then ports; no two overlap.
    ranges: Vec<Usage>,
    hasher: SipHasher13,
}

/// How much of a range of pool4 is in use: of every address, these ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
    /// Of addresses with very many ranges, the lowest and the highest port of all of them.
    pub ports: PortRange,
    /// Transport addresses there are.
    pub total: u64,
    /// Those that mappings have.
    pub used: u64,
}

#[derive(Clone, Copy, Debug)]
struct Word {
    addr: Ipv4Addr,
    index: u16,
    bits: u64,
}

impl Used {
    pub(super) fn new(hasher: SipHasher13) -> Self {
        Self {
            words: Gradual::new(),
            ranges: Vec::new(),
            hasher,
        }
    }

    /// Has the use of these counted from now on. Blocks are in ascending order.
    pub(super) fn measure<'a>(&mut self, blocks: impl Iterator<Item = &'a Block>) {
        self.ranges = blocks.flat_map(ranges).collect();
        for word in self.words.iter().filter(|word| word.index < FULL) {
            let port = word.index * WORD as u16;
            let last = port + (WORD - 1) as u16;
            match range_of(&mut self.ranges, word.addr, port) {
                Some(range) if last <= range.ports.max => {
                    range.used += u64::from(word.bits.count_ones());
                }
                Some(_) | None => {
                    for port in (port..=last).filter(|port| word.bits >> (port % 64) & 1 == 1) {
                        if let Some(range) = range_of(&mut self.ranges, word.addr, port) {
                            range.used += 1;
                        }
                    }
                }
            }
        }
    }

    pub(super) fn ranges(&self) -> &[Usage] {
        &self.ranges
    }

    pub(super) fn insert(&mut self, v4: Transport4) {
        if let Some(range) = range_of(&mut self.ranges, v4.addr, v4.port) {
            range.used += 1;
        }
        let (index, bit) = place(v4.port);
        if self.set(v4.addr, index, bit) == u64::MAX {
            let (index, bit) = place_full(index);
            self.set(v4.addr, index, bit);
        }
    }

    pub(super) fn remove(&mut self, v4: Transport4) {
        if let Some(range) = range_of(&mut self.ranges, v4.addr, v4.port) {
            range.used = range.used.saturating_sub(1);
        }
        let (index, bit) = place(v4.port);
        if self.clear(v4.addr, index, bit) == u64::MAX {
            let (index, bit) = place_full(index);
            self.clear(v4.addr, index, bit);
        }
    }

    /// The first free port of an address from `first` to `last`.
    pub(super) fn first_free(&self, addr: Ipv4Addr, first: u16, last: u16) -> Option<u16> {
        let mut port = u32::from(first);
        while port <= last.into() {
            let (index, bit) = place(port as u16);
            let free = !self.word(addr, index) & (u64::MAX << bit);
            if free != 0 {
                let found = port - u32::from(bit) + free.trailing_zeros();
                return u16::try_from(found).ok().filter(|port| *port <= last);
            }
            // On to the next word that is not full.
            let (index, bit) = place_full(index);
            let open = !self.word(addr, index) & (u64::MAX << bit);
            let group = port & !(GROUP - 1);
            port = match open.trailing_zeros() {
                64 => group + GROUP,
                // The word is not full: what is free in it lies before `port`.
                same if same == u32::from(bit) => (port & !(WORD - 1)) + WORD,
                other => group + other * WORD,
            };
        }
        None
    }

    fn word(&self, addr: Ipv4Addr, index: u16) -> u64 {
        let hash = self.hash(addr, index);
        let is_it = |w: &Word| w.addr == addr && w.index == index;
        let found = self.words.find(hash, is_it);
        found.map_or(0, |word| word.bits)
    }

    /// Sets a bit and says what the word is then.
    fn set(&mut self, addr: Ipv4Addr, index: u16, bit: u8) -> u64 {
        let hash = self.hash(addr, index);
        let hasher = &self.hasher;
        let new = Word {
            addr,
            index,
            bits: 0,
        };
        self.words.change(
            hash,
            |w| w.addr == addr && w.index == index,
            new,
            |w| hash_with(hasher, &(w.addr, w.index)),
            |word| {
                word.bits |= 1 << bit;
                word.bits
            },
        )
    }

    /// Clears a bit and says what the word was before.
    fn clear(&mut self, addr: Ipv4Addr, index: u16, bit: u8) -> u64 {
        let hash = self.hash(addr, index);
        let found = self
            .words
            .find_entry(hash, |w| w.addr == addr && w.index == index);
        let Ok(mut found) = found else { return 0 };
        let before = found.get().bits;
        found.get_mut().bits &= !(1 << bit);
        if found.get().bits == 0 {
            found.remove();
        }
        before
    }

    fn hash(&self, addr: Ipv4Addr, index: u16) -> u64 {
        hash_with(&self.hasher, &(addr, index))
    }
}

/// What is counted of a block by itself: its ranges of ports, unless they are very many.
fn ranges(block: &Block) -> impl Iterator<Item = Usage> {
    let whole = block.ports.first().zip(block.ports.last());
    let whole = whole.map(|(first, last)| PortRange {
        min: first.min,
        max: last.max,
    });
    let many = block.ports.len() > RANGES;
    let each = block.ports.iter().copied().filter(move |_| !many);
    let addresses = u64::from(u32::from(block.last) - u32::from(block.first)) + 1;
    each.chain(whole.filter(|_| many)).map(move |ports| Usage {
        first: block.first,
        last: block.last,
        ports,
        total: addresses
            * if many {
                block.ports_per_address()
            } else {
                ports.len()
            },
        used: 0,
    })
}

/// The range that has a transport address, if any.
fn range_of(ranges: &mut [Usage], addr: Ipv4Addr, port: u16) -> Option<&mut Usage> {
    let after = ranges.partition_point(|range| range.first <= addr);
    let ranges = ranges.get_mut(..after)?;
    let first = ranges.last()?.first;
    let before = ranges.partition_point(|range| range.first < first);
    let ranges = ranges.get_mut(before..)?;
    let after = ranges.partition_point(|range| range.ports.min <= port);
    let range = ranges.get_mut(..after)?.last_mut()?;
    (addr <= range.last && port <= range.ports.max).then_some(range)
}

/// The word and the bit of a port.
const fn place(port: u16) -> (u16, u8) {
    (port / WORD as u16, (port % WORD as u16) as u8)
}

/// The word and the bit that say whether a word is full.
const fn place_full(index: u16) -> (u16, u8) {
    (FULL + index / WORD as u16, (index % WORD as u16) as u8)
}

/// Ports a word.
const WORD: u32 = 64;

/// Ranges of ports of an address that are counted one by one. MAP-T gives customers thousands.
const RANGES: usize = 16;

/// Ports a word of words.
const GROUP: u32 = WORD * WORD;

/// The index of the first word of words, behind those of ports.
const FULL: u16 = 1024;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn used() -> Used {
        Used::new(SipHasher13::new_with_key(&[3; 16]))
    }

    #[test]
    fn a_full_address_is_known_to_be_full() {
        let (mut used, addr) = (used(), Ipv4Addr::new(192, 0, 2, 1));
        for port in 0..=u16::MAX {
            assert_eq!(used.first_free(addr, 0, u16::MAX), Some(port));
            used.insert(Transport4::new(addr, port));
        }
        assert_eq!(used.first_free(addr, 0, u16::MAX), None);
        let other = Ipv4Addr::new(192, 0, 2, 2);
        assert_eq!(used.first_free(other, 7, u16::MAX), Some(7));
        used.remove(Transport4::new(addr, 40_000));
        assert_eq!(used.first_free(addr, 0, u16::MAX), Some(40_000));
        assert_eq!(used.first_free(addr, 40_001, u16::MAX), None);
        assert_eq!(used.first_free(addr, 0, 39_999), None);
        for port in 0..=u16::MAX {
            used.remove(Transport4::new(addr, port));
        }
        assert!(used.words.is_empty(), "what is not used costs nothing");
    }

    #[test]
    fn what_is_in_use_is_known_for_each_range() {
        let block = |first: u8, last: u8, ports: &[(u16, u16)]| Block {
            first: Ipv4Addr::new(192, 0, 2, first),
            last: Ipv4Addr::new(192, 0, 2, last),
            ports: ports
                .iter()
                .map(|&(min, max)| PortRange { min, max })
                .collect(),
        };
        let scattered: Vec<_> = (0..17).map(|i| (i * 100, i * 100 + 9)).collect();
        let blocks = [
            block(1, 4, &[(0, 99), (150, 65_535)]),
            block(7, 7, &[(40, 80)]),
            block(9, 9, &scattered),
        ];
        let numbers = |used: &Used| -> Vec<_> {
            let ranges = used.ranges().iter();
            ranges.map(|r| (r.total, r.used)).collect()
        };
        let mut used = used();
        used.measure(blocks.iter());
        assert_eq!(
            numbers(&used),
            [(400, 0), (4 * 65_386, 0), (41, 0), (170, 0)]
        );
        assert_eq!(used.ranges()[3].ports, PortRange { min: 0, max: 1609 });
        let v4 = |host, port| Transport4::new(Ipv4Addr::new(192, 0, 2, host), port);
        let taken = [
            (0, 5),
            (1, 0),
            (4, 99),
            (4, 100),
            (2, 150),
            (3, 65_535),
            (1, 192),
            (1, 193),
            (5, 5),
            (7, 39),
            (7, 40),
            (7, 80),
            (9, 109),
            (10, 109),
        ];
        for (host, port) in taken {
            used.insert(v4(host, port));
        }
        let expected = [(400, 2), (4 * 65_386, 4), (41, 2), (170, 1)];
        assert_eq!(numbers(&used), expected);
        // The same when it is counted afterwards.
        used.measure(std::iter::empty());
        assert_eq!(numbers(&used), []);
        used.measure(blocks.iter());
        assert_eq!(numbers(&used), expected);
        for (host, port) in taken {
            used.remove(v4(host, port));
        }
        assert_eq!(
            numbers(&used),
            [(400, 0), (4 * 65_386, 0), (41, 0), (170, 0)]
        );
    }

    proptest! {
        #[test]
        fn free_ports_are_found_as_by_counting(
            spans in prop::collection::vec((any::<bool>(), any::<u16>(), 0u16..9000), 1..12),
            questions in prop::collection::vec((any::<u16>(), any::<u16>()), 1..20),
        ) {
            let (mut used, addr) = (used(), Ipv4Addr::new(192, 0, 2, 1));
            let mut model = BTreeSet::new();
            for (add, first, more) in spans {
                for port in first..=first.saturating_add(more) {
                    if add {
                        used.insert(Transport4::new(addr, port));
                        model.insert(port);
                    } else {
                        used.remove(Transport4::new(addr, port));
                        model.remove(&port);
                    }
                }
            }
            for (first, last) in questions {
                let expected = (first..=last).find(|port| !model.contains(port));
                prop_assert_eq!(used.first_free(addr, first, last), expected);
            }
        }
    }
}
