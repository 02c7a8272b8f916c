// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 3: a plan (which addresses and ports) and a packet become translated packets, to the
//! letter of RFC 7915. Nothing here decides; nothing here keeps state.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::wire::offload::Offload;

mod four_to_six;
pub mod icmp;
mod left;
mod six_to_four;
mod tables;
mod transport;

pub use four_to_six::four_to_six;
pub use six_to_four::six_to_four;

/// The new addresses and ports of a packet, and of the packet quoted in it if it is an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan<A> {
    pub outer: Rewrite<A>,
    pub inner: Option<Rewrite<A>>,
}

pub type Plan4 = Plan<Ipv4Addr>;
pub type Plan6 = Plan<Ipv6Addr>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite<A> {
    pub src: A,
    pub dst: A,
    /// Source and destination port; for echo messages both are the identifier. `None` leaves
    /// them as they are.
    pub ports: Option<[u16; 2]>,
}

/// What the translation of a packet depends on besides the packet and the plan.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Replaces the traffic class on the way to IPv4.
    pub override_tos: Option<u8>,
    /// Clears the type of service on the way to IPv6.
    pub zeroize_traffic_class: bool,
    /// IPv4 packets that may be fragmented leave as IPv6 packets of at most this size, in bytes.
    pub lowest_ipv6_mtu: u32,
    /// Descending; for Fragmentation Needed messages without an MTU (RFC 7915 section 4.2).
    pub plateaus: &'a [u16],
    /// The largest packet the link carries that the packet came from and the one it leaves by,
    /// in bytes; `u32::MAX` where unknown. They bound the MTU in Packet Too Big messages; the latter also bounds
    /// IPv6 fragments.
    pub ingress_mtu: u32,
    pub egress_mtu: u32,
    /// UDP packets without a checksum: compute it (stateful), or refuse the packet.
    pub amend_udp_checksum_zero: bool,
    /// The packet arrived in fragments that the kernel put together; it may be fragmented again.
    pub reassembled: bool,
    /// Identification for IPv4 packets that need one.
    pub identification: u16,
    /// What is left to do on the packet, and after its translation again.
    pub offload: Offload,
    /// The most data in a segment of the connection, TCP options included, in bytes; 0 where
    /// unknown. Only looked at when the packet does not say.
    pub segment: u16,
}
