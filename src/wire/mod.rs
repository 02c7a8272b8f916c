// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 1: bytes of packets.
//!
//! Untrusted bytes become a [`Packet6`] or a [`Packet4`] in one pass that checks every length;
//! what comes after works on the facts found and cannot fail. Nothing here knows translation.

use std::net::{Ipv4Addr, Ipv6Addr};

use self::write::{get4, get16};
use crate::base::Protocol;
use crate::base::counters::Counter;

pub mod checksum;
pub mod offload;
pub mod output;
mod parse4;
mod parse6;
#[cfg(test)]
pub(crate) mod samples;
pub mod segments;
mod transport;
pub mod write;

/// Protocol numbers (IPv4 "protocol", IPv6 "next header").
pub const ICMP4: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP6: u8 = 58;

/// What a packet carries, for statistics: nothing is checked. `None` is anything else, or no packet.
pub fn protocol(packet: &[u8]) -> Option<Protocol> {
    let (number, icmp) = match packet.first()? >> 4 {
        6 => (parse6::protocol(packet)?, ICMP6),
        4 => (*packet.get(9)?, ICMP4),
        _ => return None,
    };
    match number {
        TCP => Some(Protocol::Tcp),
        UDP => Some(Protocol::Udp),
        number if number == icmp => Some(Protocol::Icmp),
        _ => None,
    }
}

/// A packet that is not processed further, why, and what its sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Counter,
    pub verdict: Verdict,
}

impl Refusal {
    /// The kernel goes on with the packet.
    pub const fn accept(reason: Counter) -> Self {
        Self {
            reason,
            verdict: Verdict::Accept,
        }
    }

    /// The packet is dropped silently.
    pub const fn drop(reason: Counter) -> Self {
        Self {
            reason,
            verdict: Verdict::Drop,
        }
    }

    /// The packet is dropped and its sender gets an ICMP error.
    pub const fn reply(reason: Counter, kind: u8, code: u8, rest: [u8; 4]) -> Self {
        Self {
            reason,
            verdict: Verdict::Reply(IcmpReply { kind, code, rest }),
        }
    }
}

/// What happens to a packet that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not the translator's business: the kernel goes on with it, unchanged.
    Accept,
    Drop,
    /// Dropped, and an ICMP error of the packet's own family goes to its source.
    Reply(IcmpReply),
    /// Whoever refused it keeps a copy and decides later.
    Hold,
}

/// The head of an ICMP error: type, code, and the four bytes behind the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpReply {
    pub kind: u8,
    pub code: u8,
    /// MTU, pointer or zero, as it stands on the wire.
    pub rest: [u8; 4],
}

/// An IPv6 packet whose headers are all there.
#[derive(Clone, Copy, Debug)]
pub struct Packet6<'a> {
    /// The whole packet, exactly as long as its header says.
    pub bytes: &'a [u8],
    pub src: Ipv6Addr,
    pub dst: Ipv6Addr,
    pub traffic_class: u8,
    pub hop_limit: u8,
    /// Set by a fragment header, even one of an unfragmented ("atomic") packet.
    pub fragment: Option<Fragment>,
    /// The protocol behind all extension headers.
    pub protocol: u8,
    /// Where the transport header (or the fragment's payload) starts in `bytes`.
    pub l4_offset: usize,
    pub l4: L4<Ipv6Addr>,
    /// Something well-formed that must not be translated was found on the way. Whoever finds the
    /// packet to be the translator's business refuses it with this before state is made for it;
    /// translation refuses it in any case.
    pub refusal: Option<Refusal>,
}

/// An IPv4 packet whose headers are all there.
#[derive(Clone, Copy, Debug)]
pub struct Packet4<'a> {
    /// The whole packet, exactly as long as its header says.
    pub bytes: &'a [u8],
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub tos: u8,
    pub ttl: u8,
    pub identification: u16,
    pub dont_fragment: bool,
    /// Set for real fragments only.
    pub fragment: Option<Fragment>,
    pub protocol: u8,
    pub l4_offset: usize,
    pub l4: L4<Ipv4Addr>,
    /// Something well-formed that must not be translated was found on the way. Whoever finds the
    /// packet to be the translator's business refuses it with this before state is made for it;
    /// translation refuses it in any case.
    pub refusal: Option<Refusal>,
}

impl<'a> Packet6<'a> {
    /// The transport header and what follows it.
    pub fn transport(&self) -> &'a [u8] {
        self.bytes.get(self.l4_offset..).unwrap_or_default()
    }

    /// The MTU in a Packet Too Big message.
    pub fn too_big(&self) -> Option<u32> {
        let L4::Error { kind: 2, .. } = self.l4 else {
            return None;
        };
        get4(self.transport(), 4).map(u32::from_be_bytes)
    }
}

impl<'a> Packet4<'a> {
    /// The transport header and what follows it.
    pub fn transport(&self) -> &'a [u8] {
        self.bytes.get(self.l4_offset..).unwrap_or_default()
    }

    /// The MTU in a message "fragmentation needed"; some have 0 there.
    pub fn too_big(&self) -> Option<u32> {
        let L4::Error {
            kind: 3, code: 4, ..
        } = self.l4
        else {
            return None;
        };
        get16(self.transport(), 6).map(u32::from)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    pub identification: u32,
    /// In bytes, a multiple of 8.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
}

/// What the packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4<A> {
    Tcp {
        src: u16,
        dst: u16,
        flags: TcpFlags,
    },
    Udp {
        src: u16,
        dst: u16,
    },
    /// An echo request or reply.
    Echo {
        request: bool,
        identifier: u16,
    },
    /// An ICMP error with the head of the packet it is about.
    Error {
        kind: u8,
        code: u8,
        inner: Inner<A>,
    },
    /// Any other ICMP message.
    Icmp {
        kind: u8,
        code: u8,
    },
    /// A transport that is none of the above.
    Other,
    /// A fragment other than the first: no transport header in it.
    LaterFragment,
}

/// The addresses and ports quoted in an ICMP error, as they stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner<A> {
    pub src: A,
    pub dst: A,
    /// Where the quoted packet starts in the outer packet's bytes.
    pub offset: usize,
    /// Where its transport header starts, in the outer packet's bytes.
    pub l4_offset: usize,
    pub protocol: u8,
    pub traffic_class: u8,
    pub hop_limit: u8,
    /// Set as in the packets themselves; the offset is always 0.
    pub fragment: Option<Fragment>,
    /// Bytes from the transport header to the end of the packet, as its header says; fewer may be
    /// quoted.
    pub l4_len: u16,
    pub l4: InnerL4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InnerL4 {
    Tcp {
        src: u16,
        dst: u16,
    },
    Udp {
        src: u16,
        dst: u16,
    },
    Echo {
        request: bool,
        identifier: u16,
    },
    /// Not TCP, UDP or an echo message.
    Other,
}

/// The flags of a TCP header that matter to a translator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags {
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
}

#[cfg(test)]
mod tests;
