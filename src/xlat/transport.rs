// SPDX-License-Identifier: GPL-2.0-or-later
//! What changes in TCP, UDP and echo headers, outer or quoted: ports, types, checksums.
//!
//! Checksums are brought up to date, never verified: bad ones stay bad.

use crate::wire::checksum::{Sum, update, update_udp};
use crate::wire::write::{get16, put16};
use crate::wire::{InnerL4, L4};

/// The headers that change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    Tcp,
    Udp,
    Echo { request: bool },
}

impl Header {
    pub(super) const fn of<A>(l4: &L4<A>) -> Option<Self> {
        match l4 {
            L4::Tcp { .. } => Some(Self::Tcp),
            L4::Udp { .. } => Some(Self::Udp),
            L4::Echo { request, .. } => Some(Self::Echo { request: *request }),
            L4::Error { .. } | L4::Icmp { .. } | L4::Other | L4::LaterFragment => None,
        }
    }

    pub(super) const fn of_quoted(l4: InnerL4) -> Option<Self> {
        match l4 {
            InnerL4::Tcp { .. } => Some(Self::Tcp),
            InnerL4::Udp { .. } => Some(Self::Udp),
            InnerL4::Echo { request, .. } => Some(Self::Echo { request }),
            InnerL4::Other => None,
        }
    }
}

/// What becomes different around and in a transport header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    /// Sum of the addresses (for echo messages: the pseudo-header) before and after; zero where
    /// the checksum does not cover them.
    pub(super) removed: Sum,
    pub(super) added: Sum,
    pub(super) ports: Option<[u16; 2]>,
}

impl Change {
    /// Changes a header in place, as far as it is there.
    ///
    /// `echo` are the types of echo requests and replies in the new family.
    //= rfc7915#section-4.5
    //= rfc7915#section-5.5
    pub(super) fn apply(mut self, header: Header, bytes: &mut [u8], echo: [u8; 2]) {
        match header {
            Header::Tcp => {
                self.swap_ports(bytes);
                self.update_at(bytes, 16, update);
            }
            Header::Udp => {
                self.swap_ports(bytes);
                // No checksum: IPv4 allows it, and tunnels over IPv6 do it (RFC 6935). An update would
                // make a wrong one of it.
                self.update_at(bytes, 6, |old, removed, added| match old {
                    0 => 0,
                    _ => update_udp(old, removed, added),
                });
            }
            Header::Echo { request } => {
                let [kind, other] = echo;
                let kind = if request { kind } else { other };
                self.swap(bytes, 0, u16::from_be_bytes([kind, 0]));
                if let Some([identifier, _]) = self.ports {
                    self.swap(bytes, 4, identifier);
                }
                self.update_at(bytes, 2, update);
                // An ICMPv4 message may be nothing but zeros, and then the other zero is right.
                if bytes.iter().all(|byte| *byte == 0) {
                    put16(bytes, 2, 0xffff);
                }
            }
        }
    }

    fn swap_ports(&mut self, bytes: &mut [u8]) {
        if let Some([src, dst]) = self.ports {
            self.swap(bytes, 0, src);
            self.swap(bytes, 2, dst);
        }
    }

    fn swap(&mut self, bytes: &mut [u8], at: usize, new: u16) {
        let Some(old) = get16(bytes, at) else { return };
        self.removed = self.removed + Sum::word(old);
        self.added = self.added + Sum::word(new);
        put16(bytes, at, new);
    }

    fn update_at(self, bytes: &mut [u8], at: usize, update: fn(u16, Sum, Sum) -> u16) {
        if let Some(old) = get16(bytes, at) {
            put16(bytes, at, update(old, self.removed, self.added));
        }
    }
}
