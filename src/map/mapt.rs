// SPDX-License-Identifier: GPL-2.0-or-later
//! The addresses of MAP-T (RFC 7597 section 5): which IPv6 address stands for an IPv4 address and
//! port, and the other way round.
//!
//! Without any state: all that is needed is in the rules.

pub mod calc;
mod customer;
mod fmrt;
mod ports;

use std::net::{Ipv4Addr, Ipv6Addr};

pub use self::customer::Customer;
pub use self::fmrt::{FmrError, Fmrt};
pub use self::ports::{PortSet, psid};
use crate::model::mapt::MapRule;

/// The tables of one MAP-T instance.
#[derive(Clone, Debug, Default)]
pub struct Mapt {
    pub fmrt: Fmrt,
}

/// The IPv6 address of the customer who has `psid` of `addr`, which is one of the rule's.
//= rfc7597#section-5.2
//= rfc7597#section-6
pub fn address(rule: MapRule, addr: Ipv4Addr, psid: u16) -> Ipv6Addr {
    let (prefix, suffix, k) = (rule.v6().prefix_len(), rule.suffix_len(), rule.psid_len());
    let addr = u128::from(u32::from(addr));
    let mut bits = addr << 16 | u128::from(psid);
    // The prefix may be longer than 64 bits: what stands before the interface identifier wins.
    for (at, len, value) in [
        (0, prefix, take(rule.v6().network().into(), 0, prefix)),
        (prefix, suffix, addr),
        (prefix + suffix, k, psid.into()),
    ] {
        bits = put(bits, at, len, value);
    }
    bits.into()
}

/// The IPv6 address that stands for an IPv4 address and a port, of which it depends who has it.
pub fn address_of(rule: MapRule, addr: Ipv4Addr, port: u16) -> Ipv6Addr {
    address(rule, addr, psid(rule, port))
}

/// The IPv4 address that an IPv6 address inside the rule's prefix stands for.
//= rfc7597#section-5.2
pub fn address4(rule: MapRule, addr: Ipv6Addr) -> Ipv4Addr {
    let suffix = take(addr.into(), rule.v6().prefix_len(), rule.suffix_len());
    // At most 32 bits.
    (u32::from(rule.v4().network()) | suffix as u32).into()
}

/// The PSID that stands in an IPv6 address inside the rule's prefix.
pub fn psid_in(rule: MapRule, addr: Ipv6Addr) -> u16 {
    let at = rule.v6().prefix_len() + rule.suffix_len();
    // At most 16 bits.
    take(addr.into(), at, rule.psid_len()) as u16
}

/// Whether an IPv6 address is the one that the rule makes of its IPv4 address and `port`, and the
/// port one that somebody may have.
//= rfc7599#section-8.3
pub fn agrees(rule: MapRule, addr: Ipv6Addr, port: u16) -> bool {
    let psid = psid(rule, port);
    address(rule, address4(rule, addr), psid) == addr && PortSet::of(rule, psid).contains(port)
}

/// Overwrites `len` bits, `at` bits from the left, by the last ones of `value`.
fn put(bits: u128, at: u8, len: u8, value: u128) -> u128 {
    let right = u32::from(128_u8.saturating_sub(at.saturating_add(len)));
    let mask = low(len).checked_shl(right).unwrap_or(0);
    let value = value.checked_shl(right).unwrap_or(0);
    bits & !mask | value & mask
}

/// The `len` bits that are `at` bits from the left.
fn take(bits: u128, at: u8, len: u8) -> u128 {
    let right = u32::from(128_u8.saturating_sub(at.saturating_add(len)));
    bits.checked_shr(right).unwrap_or(0) & low(len)
}

/// A mask for the last `len` bits.
fn low(len: u8) -> u128 {
    let shift = 128_u32.saturating_sub(len.into());
    u128::MAX.checked_shr(shift).unwrap_or(0)
}

#[cfg(test)]
mod tests;
