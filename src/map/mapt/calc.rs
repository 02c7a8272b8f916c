// SPDX-License-Identifier: GPL-2.0-or-later
//! The arithmetic of a rule for people: who has a port, and what another PSID offset would make of
//! it. A wrong offset is the mistake that nothing else shows. What a customer has, [`Customer`]
//! says.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Customer, address_of};
use crate::model::mapt::MapRule;

/// What a rule says of an IPv4 address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub customer: Customer,
    /// The IPv6 address that stands for them.
    pub address: Ipv6Addr,
    /// False where the bits before the PSID are all zero: then nobody has the port.
    pub allowed: bool,
}

/// Who has an IPv4 address and a port; `None` if the address is not one of the rule's.
pub fn holder(rule: MapRule, addr: Ipv4Addr, port: u16) -> Option<Holder> {
    let customer = Customer::of(rule, addr, port)?;
    Some(Holder {
        customer,
        address: address_of(rule, addr, port),
        allowed: customer.ports().contains(port),
    })
}

/// The same rule with every PSID offset that it could have, its own among them, in ascending
/// order. Only its own where addresses are not shared, since then it has no meaning.
pub fn offsets(rule: MapRule) -> impl Iterator<Item = MapRule> {
    let all = if rule.shares() { 0..=16 } else { 0..=0 };
    all.filter_map(move |offset| {
        let offset = if rule.shares() {
            offset
        } else {
            rule.psid_offset()
        };
        MapRule::new(rule.v6(), rule.v4(), rule.ea_bits(), offset).ok()
    })
}
