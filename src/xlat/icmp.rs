// SPDX-License-Identifier: GPL-2.0-or-later
//! ICMP errors: the parts that translation in both directions shares, and errors of our own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::base::counters::Counter;
use crate::wire::checksum::Sum;
use crate::wire::output::ErrorMessage;
use crate::wire::write::put16;
use crate::wire::{IcmpReply, Inner, InnerL4, L4, Packet4, Packet6, Refusal};

/// Type, code, checksum and the four bytes behind it.
pub(super) const HEADER: usize = 8;
/// What an IPv6 packet with an ICMPv6 error may be long (RFC 4443 section 2.4(c)).
pub(super) const MAX_ERROR6: usize = 1280;
/// What an IPv4 packet with an ICMPv4 error may be long (RFC 1812 section 4.3.2.3).
pub(super) const MAX_ERROR4: usize = 576;
/// The least that is quoted in front of an extension (RFC 4884 section 5.1).
const MIN_EXTENDED_QUOTE: usize = 128;

/// An ICMP error about a packet, to its sender.
///
/// `packet` starts with an IP header of either family; the error is of the same family. `None`
/// if there must be none: about an ICMP error, a redirect, a fragment other than the first, a
/// packet to or from more than one host, and a packet that cannot be read (RFC 4443 section
/// 2.4(e), RFC 1812 section 4.3.2.7).
pub fn reply_to(packet: &[u8], reply: IcmpReply) -> Option<ErrorMessage> {
    let [first, ..] = packet else { return None };
    if first >> 4 == 6 {
        let packet = Packet6::parse(packet).ok()?;
        if !may_answer6(&packet) {
            return None;
        }
        let room = MAX_ERROR6 - 40;
        Some(ErrorMessage {
            to: packet.src.into(),
            message: message(packet.bytes, reply, room),
        })
    } else {
        let packet = Packet4::parse(packet).ok()?;
        if !may_answer4(&packet) {
            return None;
        }
        let mut message = message(packet.bytes, reply, MAX_ERROR4 - 20);
        let checksum = Sum::bytes(&message).checksum();
        put16(&mut message, 2, checksum);
        Some(ErrorMessage {
            to: IpAddr::V4(packet.src),
            message,
        })
    }
}

fn message(packet: &[u8], reply: IcmpReply, room: usize) -> Vec<u8> {
    let quote = packet.get(..room - HEADER).unwrap_or(packet);
    let mut message = Vec::with_capacity(HEADER + quote.len());
    message.extend([reply.kind, reply.code, 0, 0]);
    message.extend(reply.rest);
    message.extend(quote);
    message
}

//= rfc4443#section-2.4
fn may_answer6(packet: &Packet6<'_>) -> bool {
    let about = match packet.l4 {
        L4::Tcp { .. } | L4::Udp { .. } | L4::Echo { .. } | L4::Other => true,
        // Below 128 are errors, 137 is a redirect.
        L4::Icmp { kind, .. } => kind >= 128 && kind != 137,
        L4::Error { .. } | L4::LaterFragment => false,
    };
    let unicast = |addr: Ipv6Addr| !addr.is_multicast() && !addr.is_unspecified();
    about && unicast(packet.src) && !packet.src.is_loopback() && unicast(packet.dst)
}

//= rfc1812#section-4.3.2.7
fn may_answer4(packet: &Packet4<'_>) -> bool {
    let about = match packet.l4 {
        L4::Tcp { .. } | L4::Udp { .. } | L4::Echo { .. } | L4::Other => true,
        L4::Icmp { kind, .. } => !matches!(kind, 3 | 4 | 5 | 11 | 12),
        L4::Error { .. } | L4::LaterFragment => false,
    };
    // 0.0.0.0/8, and everything from 224.0.0.0 on: multicast, class E, broadcast.
    let one_host = |addr: Ipv4Addr| addr.octets()[0] != 0 && addr.octets()[0] < 224;
    about && one_host(packet.src) && !packet.src.is_loopback() && one_host(packet.dst)
}

/// The packet quoted in an ICMP error, split from the extension behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quoted<'a> {
    /// From the transport header on.
    pub(super) l4: &'a [u8],
    /// RFC 4884; empty if there is none.
    pub(super) extension: &'a [u8],
}

impl<'a> Quoted<'a> {
    /// `declared` is how long the quote with its padding claims to be, in bytes; 0 if it does not.
    pub(super) fn split<A>(
        bytes: &'a [u8],
        inner: &Inner<A>,
        declared: usize,
    ) -> Result<Self, Refusal> {
        const TRUNCATED: Refusal = Refusal::drop(Counter::SkbTruncated);

        let data = bytes.get(inner.offset..).unwrap_or_default();
        let (quote, extension) = match declared {
            0 => (data, &[][..]),
            _ => match data.split_at_checked(declared) {
                Some(parts) => parts,
                None => return Err(Refusal::drop(Counter::IcmpextBig)),
            },
        };
        let head = inner.l4_offset.saturating_sub(inner.offset);
        let Some(mut l4) = quote.get(head..) else {
            return Err(TRUNCATED);
        };
        match inner.l4 {
            InnerL4::Tcp { .. } | InnerL4::Udp { .. } | InnerL4::Echo { .. } if l4.len() < 8 => {
                return Err(TRUNCATED);
            }
            InnerL4::Tcp { .. } | InnerL4::Udp { .. } | InnerL4::Echo { .. } | InnerL4::Other => {}
        }
        if !extension.is_empty() {
            // Padding is not part of the packet.
            let len = usize::from(inner.l4_len).max(8);
            l4 = l4.get(..len).unwrap_or(l4);
        }
        Ok(Self { l4, extension })
    }
}

/// How much of a translated quote and of its extension fit into an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes of the quoted packet.
    pub(super) quote: usize,
    /// The same with padding; the extension starts behind it.
    pub(super) padded: usize,
    /// All of the extension or nothing.
    pub(super) extension: usize,
    /// For the length field, in its own unit.
    pub(super) length: u8,
}

impl Layout {
    /// Both parts go into `room` bytes; the length field counts in `unit` bytes.
    pub(super) fn new(quote: usize, extension: usize, room: usize, unit: usize) -> Self {
        if extension == 0 || extension + MIN_EXTENDED_QUOTE > room {
            let quote = quote.min(room);
            return Self {
                quote,
                padded: quote,
                extension: 0,
                length: 0,
            };
        }
        let most = (room - extension) / unit * unit;
        let quote = quote.min(most);
        let padded = quote.next_multiple_of(unit).max(MIN_EXTENDED_QUOTE);
        Self {
            quote,
            padded,
            extension,
            // At most (1280 - 48) / 8 or (576 - 28) / 4.
            length: u8::try_from(padded / unit).unwrap_or(u8::MAX),
        }
    }
}

#[cfg(test)]
mod tests;
