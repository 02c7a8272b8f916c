// SPDX-License-Identifier: GPL-2.0-or-later
//! Which customer has which ports of an IPv4 address (RFC 7597 section 5.1).
//!
//! A port is `a` bits that are not all zero, then the PSID, then the rest; the sets of the PSIDs
//! are disjoint. Without a PSID, one customer has all ports.

use crate::model::PortRange;
use crate::model::mapt::MapRule;

/// The ports of one customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSet {
    /// `a`; 0 where there is no PSID.
    offset: u8,
    /// `k`.
    psid_len: u8,
    psid: u16,
}

/// The PSID of the customer who has this port; 0 where addresses are not shared.
//= rfc7597#section-5.1
pub fn psid(rule: MapRule, port: u16) -> u16 {
    let shifted = u32::from(port) >> rule.contiguous_len();
    shifted as u16 & low(rule.psid_len())
}

impl PortSet {
    /// What the rule leaves to the customer with this PSID, of which the last bits count.
    pub fn of(rule: MapRule, psid: u16) -> Self {
        Self {
            offset: if rule.shares() { rule.psid_offset() } else { 0 },
            psid_len: rule.psid_len(),
            psid: psid & low(rule.psid_len()),
        }
    }

    pub const fn psid(&self) -> u16 {
        self.psid
    }

    //= rfc7597#section-5.1
    pub fn contains(&self, port: u16) -> bool {
        let head = u32::from(port) >> self.rest_len();
        head & u32::from(low(self.psid_len)) == u32::from(self.psid)
            && (self.offset == 0 || head >> self.psid_len != 0)
    }

    /// How many ports there are; 0 only of 16 bits of offset, of which none are left for a PSID.
    pub const fn count(&self) -> u32 {
        self.blocks() << self.rest_len()
    }

    /// In ascending order. They do not touch each other.
    pub fn ranges(&self) -> impl Iterator<Item = PortRange> + Clone + use<> {
        let set = *self;
        (0..set.blocks()).map(move |block| set.range(block))
    }

    /// The port at a place in ascending order, counted from 0.
    pub fn port(&self, index: u32) -> Option<u16> {
        let block = index >> self.rest_len();
        let within = index & low32(self.rest_len());
        let range = (block < self.blocks()).then(|| self.range(block))?;
        // It does not exceed the end of its range.
        Some(range.min + within as u16)
    }

    /// The place of a port in ascending order, counted from 0.
    pub fn index(&self, port: u16) -> Option<u32> {
        if !self.contains(port) {
            return None;
        }
        let port = u32::from(port);
        // What is in the set has a block.
        let block = (port >> (self.rest_len() + self.psid_len)) - self.first_block();
        Some(block << self.rest_len() | port & low32(self.rest_len()))
    }

    const fn first_block(&self) -> u32 {
        if self.offset == 0 { 0 } else { 1 }
    }

    const fn blocks(&self) -> u32 {
        (1 << self.offset) - self.first_block()
    }

    /// `m`: at most 16.
    const fn rest_len(&self) -> u8 {
        16 - self.offset - self.psid_len
    }

    /// The ports that have one value before the PSID.
    const fn range(&self, block: u32) -> PortRange {
        let head = (block + self.first_block()) << self.psid_len | self.psid as u32;
        let min = head << self.rest_len();
        PortRange {
            min: min as u16,
            max: (min | low32(self.rest_len())) as u16,
        }
    }
}

fn low(len: u8) -> u16 {
    low32(len) as u16
}

const fn low32(len: u8) -> u32 {
    (1 << len) - 1
}
