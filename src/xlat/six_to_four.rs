// SPDX-License-Identifier: GPL-2.0-or-later
//! IPv6 packets become IPv4 packets (RFC 7915 section 5).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::icmp::{HEADER, Layout, MAX_ERROR4, Quoted};
use super::left::Left;
use super::tables::{error_to_four, protocol_to_four};
use super::transport::{Change, Header};
use super::{Plan4, Rewrite, Rules};
use crate::base::counters::Counter;
use crate::wire::checksum::Sum;
use crate::wire::output::Output;
use crate::wire::write::{Head4, get4, put, put16};
use crate::wire::{Fragment, ICMP6, Inner, L4, Packet6, Refusal};

/// Types of echo requests and replies.
const ECHO4: [u8; 2] = [8, 0];
/// Longer packets must not be fragmented: 1280 bytes less what IPv6 headers are longer.
const MAY_FRAGMENT: usize = 1260;
const TRUNCATED: Refusal = Refusal::drop(Counter::SkbTruncated);

/// Translates a packet as planned and adds it to `out`.
///
/// The hop limit is checked but not lowered: the kernel forwards the result and does that.
///
/// # Errors
///
/// Why the packet has no translation, and what its sender is told; `out` is as it was.
pub fn six_to_four(
    packet: &Packet6<'_>,
    plan: &Plan4,
    rules: &Rules<'_>,
    out: &mut Output,
) -> Result<(), Refusal> {
    if let Some(refusal) = packet.refusal {
        return Err(refusal);
    }
    //= rfc7915#section-5.1
    if packet.hop_limit <= 1 {
        return Err(Refusal::reply(Counter::SixFourTtl, 3, 0, [0; 4]));
    }
    match packet.l4 {
        L4::Error { kind, code, inner } => error(packet, (kind, code), &inner, plan, rules, out),
        L4::Icmp { .. } => Err(Refusal::drop(Counter::UnknownIcmp6Type)),
        L4::Tcp { .. } | L4::Udp { .. } | L4::Echo { .. } | L4::Other | L4::LaterFragment => {
            simple(packet, &plan.outer, rules, out)
        }
    }
}

fn simple(
    packet: &Packet6<'_>,
    rewrite: &Rewrite<Ipv4Addr>,
    rules: &Rules<'_>,
    out: &mut Output,
) -> Result<(), Refusal> {
    let Some(protocol) = protocol_to_four(packet.protocol) else {
        return Err(Refusal::drop(Counter::UnknownL4Proto));
    };
    let payload = packet.bytes.get(packet.l4_offset..).unwrap_or_default();
    let len = Head4::LEN + payload.len();
    let offset = packet.fragment.map_or(0, |f| usize::from(f.offset));
    let (Ok(total_len), Ok(_)) = (u16::try_from(len), u16::try_from(offset + len)) else {
        // Just below 64 KiB, IPv6 packets may be too long for any IPv4 packet, and so may what a
        // receiver makes of their fragments.
        let mtu = (u32::from(u16::MAX) + 20).to_be_bytes();
        return Err(Refusal::reply(Counter::PktTooBig, 2, 0, mtu));
    };
    let header = Header::of(&packet.l4);
    let left = Left::of(rules, header, packet.fragment, payload);
    // What may be fragmented is told by the length of what will travel.
    let longest = left.map_or(total_len, |left| (Head4::LEN + left.longest()) as u16);
    let head = Head4 {
        total_len,
        ..outer(packet, rewrite, rules, longest, protocol)
    };
    let written = left.map_or(payload.len(), |left| left.written());
    let l4 = out.write(head.to_bytes(), payload.get(..written).unwrap_or(payload));
    if let Some(header) = header {
        change(header, [packet.src, packet.dst], rewrite, payload.len()).apply(header, l4, ECHO4);
    }
    if let Some(left) = left {
        left.prepare(l4, Sum::addr4(rewrite.src) + Sum::addr4(rewrite.dst));
        out.leave(left.virtio(false, Head4::LEN));
        if let Some(rest) = left.rest(packet.l4_offset) {
            out.follow(rest);
        }
    }
    Ok(())
}

/// The header of the resulting packet.
//= rfc7915#section-5.1
//= rfc7915#section-5.1.1
fn outer(
    packet: &Packet6<'_>,
    rewrite: &Rewrite<Ipv4Addr>,
    rules: &Rules<'_>,
    total_len: u16,
    protocol: u8,
) -> Head4 {
    Head4 {
        tos: rules.override_tos.unwrap_or(packet.traffic_class),
        ttl: packet.hop_limit,
        protocol,
        src: rewrite.src,
        dst: rewrite.dst,
        ..fragmentation(packet.fragment, total_len, rules)
    }
}

/// A header with only length, identification and flags filled in.
fn fragmentation(fragment: Option<Fragment>, total_len: u16, rules: &Rules<'_>) -> Head4 {
    let dont_fragment =
        fragment.is_none() && usize::from(total_len) > MAY_FRAGMENT && !rules.reassembled;
    Head4 {
        tos: 0,
        total_len,
        identification: match fragment {
            Some(fragment) => fragment.identification as u16,
            None if dont_fragment => 0,
            None => rules.identification,
        },
        dont_fragment,
        offset: fragment.map_or(0, |f| f.offset),
        more: fragment.is_some_and(|f| f.more),
        ttl: 0,
        protocol: 0,
        src: Ipv4Addr::UNSPECIFIED,
        dst: Ipv4Addr::UNSPECIFIED,
    }
}

fn change(
    header: Header,
    [src, dst]: [Ipv6Addr; 2],
    rewrite: &Rewrite<Ipv4Addr>,
    l4_len: usize,
) -> Change {
    let (removed, added) = match header {
        Header::Tcp | Header::Udp => (
            Sum::addr6(src) + Sum::addr6(dst),
            Sum::addr4(rewrite.src) + Sum::addr4(rewrite.dst),
        ),
        // ICMPv4 has no pseudo-header.
        Header::Echo { .. } => (Sum::pseudo6(src, dst, ICMP6, l4_len), Sum::ZERO),
    };
    Change {
        removed,
        added,
        ports: rewrite.ports,
    }
}

//= rfc7915#section-5.2
//= rfc7915#section-5.3
fn error(
    packet: &Packet6<'_>,
    (kind, code): (u8, u8),
    inner: &Inner<Ipv6Addr>,
    plan: &Plan4,
    rules: &Rules<'_>,
    out: &mut Output,
) -> Result<(), Refusal> {
    let Some(rewrite) = &plan.inner else {
        return Err(Refusal::drop(Counter::Unknown));
    };
    let message = packet.bytes.get(packet.l4_offset..).unwrap_or_default();
    let Some(rest) = get4(message, 4) else {
        return Err(TRUNCATED);
    };
    let reply = error_to_four(kind, code, rest, rules)?;
    let pseudo = Sum::pseudo6(packet.src, packet.dst, ICMP6, message.len());
    if !(pseudo + Sum::bytes(message)).is_valid() {
        return Err(Refusal::drop(Counter::SixFourIcmpCsum));
    }
    let inner_header = Header::of_quoted(inner.l4);
    let protocol = match protocol_to_four(inner.protocol) {
        Some(_) if inner.protocol == ICMP6 && inner_header.is_none() => {
            return Err(Refusal::drop(Counter::UnknownIcmp6Type));
        }
        Some(protocol) => protocol,
        None => return Err(Refusal::drop(Counter::UnknownProtoInner)),
    };

    // RFC 4884 section 4: only these have a length field, and it counts eight bytes.
    let declared = match kind {
        1 | 3 => usize::from(rest[0]) * 8,
        _ => 0,
    };
    let quoted = Quoted::split(packet.bytes, inner, declared)?;
    let room = MAX_ERROR4 - Head4::LEN - HEADER;
    let layout = Layout::new(
        Head4::LEN + quoted.l4.len(),
        quoted.extension.len(),
        room,
        4,
    );
    let total_len = (Head4::LEN + HEADER + layout.padded + layout.extension) as u16;
    let buffer = out.packet(total_len.into());
    let (head, icmp) = buffer.split_at_mut(Head4::LEN);
    head.copy_from_slice(&outer(packet, &plan.outer, rules, total_len, 1).to_bytes());

    put(icmp, 0, &[reply.kind, reply.code]);
    put(icmp, 4, &reply.rest);
    if layout.length != 0 {
        put(icmp, 5, &[layout.length]);
    }
    let inner_head = Head4 {
        tos: rules.override_tos.unwrap_or(inner.traffic_class),
        ttl: inner.hop_limit,
        protocol,
        src: rewrite.src,
        dst: rewrite.dst,
        ..fragmentation(
            inner.fragment,
            inner.l4_len.saturating_add(Head4::LEN as u16),
            rules,
        )
    };
    put(icmp, HEADER, &inner_head.to_bytes());
    let kept = quoted
        .l4
        .get(..layout.quote - Head4::LEN)
        .unwrap_or_default();
    put(icmp, HEADER + Head4::LEN, kept);
    if let Some(header) = inner_header {
        let l4 = icmp
            .get_mut(HEADER + Head4::LEN..HEADER + layout.quote)
            .unwrap_or_default();
        let addresses = [inner.src, inner.dst];
        change(header, addresses, rewrite, inner.l4_len.into()).apply(header, l4, ECHO4);
    }
    if layout.extension != 0 {
        put(icmp, HEADER + layout.padded, quoted.extension);
    }
    let checksum = Sum::bytes(icmp).checksum();
    put16(icmp, 2, checksum);
    Ok(())
}

#[cfg(test)]
mod tests;
