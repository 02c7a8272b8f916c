// SPDX-License-Identifier: GPL-2.0-or-later
//! What a translator must ask the host it runs on.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The addresses of a host, as its kernel knows them now.
pub trait Host {
    /// Whether this is the address of one of its interfaces, or the directed broadcast address of
    /// one (RFC 1812 section 5.3.5.2).
    fn is_local4(&self, addr: Ipv4Addr) -> bool;

    /// The address that it would send from to `towards`; `None` without a route or an address.
    fn source4(&self, towards: Ipv4Addr) -> Option<Ipv4Addr>;

    /// The address that it would send from to `towards`; `None` without a route or an address.
    fn source6(&self, towards: Ipv6Addr) -> Option<Ipv6Addr>;
}

/// A host without addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nameless;

impl Host for Nameless {
    fn is_local4(&self, _: Ipv4Addr) -> bool {
        false
    }

    fn source4(&self, _: Ipv4Addr) -> Option<Ipv4Addr> {
        None
    }

    fn source6(&self, _: Ipv6Addr) -> Option<Ipv6Addr> {
        None
    }
}
