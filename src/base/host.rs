// SPDX-License-Identifier: GPL-2.0-or-later
//! What a translator must ask the host it runs on.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The addresses of a host, as its kernel knows them now.
pub trait Host {
    /// Whether this is the address of one of its interfaces.
    fn has_address4(&self, addr: Ipv4Addr) -> bool;

    /// Whether this is the directed broadcast address of one of its interfaces (RFC 1812 section
    /// 5.3.5.2).
    fn has_broadcast4(&self, addr: Ipv4Addr) -> bool;

    /// Whether packets to this address go no further than this host or its links.
    fn is_local4(&self, addr: Ipv4Addr) -> bool {
        self.has_address4(addr) || self.has_broadcast4(addr)
    }

    /// The address that it would send from to `towards`; `None` without a route or an address.
    fn source4(&self, towards: Ipv4Addr) -> Option<Ipv4Addr>;

    /// The address that it would send from to `towards`; `None` without a route or an address.
    fn source6(&self, towards: Ipv6Addr) -> Option<Ipv6Addr>;
}

/// A host without addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nameless;

impl Host for Nameless {
    fn has_address4(&self, _: Ipv4Addr) -> bool {
        false
    }

    fn has_broadcast4(&self, _: Ipv4Addr) -> bool {
        false
    }

    fn source4(&self, _: Ipv4Addr) -> Option<Ipv4Addr> {
        None
    }

    fn source6(&self, _: Ipv6Addr) -> Option<Ipv6Addr> {
        None
    }
}
