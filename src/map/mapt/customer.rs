// SPDX-License-Identifier: GPL-2.0-or-later
//! What a customer edge has (RFC 7597 section 5.2): read from its end-user IPv6 prefix.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{PortSet, address, address4, psid_in};
use crate::base::prefix::Prefix6;
use crate::model::mapt::{self, CeError, MapRule};

/// A customer of a mapping rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Customer {
    rule: MapRule,
    prefix: Prefix6,
    psid: u16,
}

impl Customer {
    /// # Errors
    /// [`CeError::Length`] and [`CeError::Outside`].
    //= rfc7597#section-5.2
    pub fn new(rule: MapRule, prefix: Prefix6) -> Result<Self, CeError> {
        mapt::check_ce(rule, prefix)?;
        Ok(Self {
            rule,
            prefix,
            psid: psid_in(rule, prefix.network()),
        })
    }

    /// The one who has this address and port; with a port that nobody has, the one whose PSID
    /// stands in it.
    pub fn of(rule: MapRule, addr: Ipv4Addr, port: u16) -> Option<Self> {
        let whole = super::address_of(rule, addr, port);
        let len = rule.v6().prefix_len() + rule.ea_bits();
        let host = u128::MAX.checked_shr(len.into()).unwrap_or(0);
        let prefix = Prefix6::new((u128::from(whole) & !host).into(), len).ok()?;
        let known = rule.v4().contains(addr);
        known.then(|| Self::new(rule, prefix).ok()).flatten()
    }

    pub const fn rule(&self) -> MapRule {
        self.rule
    }

    /// The end-user IPv6 prefix.
    pub const fn prefix(&self) -> Prefix6 {
        self.prefix
    }

    /// The first of its IPv4 addresses; mostly the only one.
    pub fn first4(&self) -> Ipv4Addr {
        address4(self.rule, self.prefix.network())
    }

    /// How long the prefix is that it has of IPv4; 32 for a single address.
    pub fn v4_len(&self) -> u8 {
        32 - self.rule.subnet_len()
    }

    /// Whether an IPv4 address is its own.
    pub fn owns(&self, addr: Ipv4Addr) -> bool {
        let different = u32::from(addr) ^ u32::from(self.first4());
        // Shifted by 32 only when it has all of IPv4.
        different
            .checked_shr(self.rule.subnet_len().into())
            .is_none_or(|head| head == 0)
    }

    /// Its ports: those of every one of its addresses.
    pub fn ports(&self) -> PortSet {
        PortSet::of(self.rule, self.psid)
    }

    /// The IPv6 address that stands for one of its IPv4 addresses.
    //= rfc7597#section-6
    pub fn address(&self, addr: Ipv4Addr) -> Ipv6Addr {
        address(self.rule, addr, self.psid)
    }

    /// Which of its own IPv4 addresses an IPv6 address stands for.
    pub fn own4(&self, addr: Ipv6Addr) -> Option<Ipv4Addr> {
        if !self.prefix.contains(addr) {
            return None;
        }
        let v4 = address4(self.rule, addr);
        (self.address(v4) == addr).then_some(v4)
    }
}
