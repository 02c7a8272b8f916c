// SPDX-License-Identifier: GPL-2.0-or-later
//! IPv4 packets become IPv6 packets, in several fragments if need be (RFC 7915 section 4).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::icmp::{HEADER, Layout, MAX_ERROR6, Quoted};
use super::left::Left;
use super::tables::{MIN_MTU6, error_to_six, protocol_to_six};
use super::transport::{Change, Header};
use super::{Plan6, Rewrite, Rules};
use crate::base::counters::Counter;
use crate::wire::checksum::{Sum, nonzero};
use crate::wire::output::Output;
use crate::wire::write::{FRAGMENT_LEN, Head6, fragment_header, get4, get16, put, put16};
use crate::wire::{Fragment, ICMP4, ICMP6, Inner, InnerL4, L4, Packet4, Refusal, UDP};

/// Types of echo requests and replies.
const ECHO6: [u8; 2] = [128, 129];
/// Next header number of the fragment header.
const FRAGMENT: u8 = 44;
const CONTRADICTION: Refusal = Refusal::drop(Counter::Hdr4);
const TRUNCATED: Refusal = Refusal::drop(Counter::SkbTruncated);

/// Translates a packet as planned and adds it, in one or more pieces, to `out`.
///
/// The time to live is checked but not lowered: the kernel forwards the result and does that.
/// Packets that must not be fragmented are translated whole, however long: the kernel compares
/// them with the MTU of the way on.
///
/// # Errors
///
/// Why the packet has no translation, and what its sender is told; `out` is as it was.
pub fn four_to_six(
    packet: &Packet4<'_>,
    plan: &Plan6,
    rules: &Rules<'_>,
    out: &mut Output,
) -> Result<(), Refusal> {
    if let Some(refusal) = packet.refusal {
        return Err(refusal);
    }
    //= rfc7915#section-4.1
    if packet.ttl <= 1 {
        return Err(Refusal::reply(Counter::FourSixTtl, 11, 0, [0; 4]));
    }
    match packet.l4 {
        L4::Error { kind, code, inner } => error(packet, (kind, code), &inner, plan, rules, out),
        L4::Icmp { .. } => Err(Refusal::drop(Counter::UnknownIcmp4Type)),
        L4::Tcp { .. } | L4::Udp { .. } | L4::Echo { .. } | L4::Other | L4::LaterFragment => {
            simple(packet, &plan.outer, rules, out)
        }
    }
}

fn simple(
    packet: &Packet4<'_>,
    rewrite: &Rewrite<Ipv6Addr>,
    rules: &Rules<'_>,
    out: &mut Output,
) -> Result<(), Refusal> {
    let Some(protocol) = protocol_to_six(packet.protocol) else {
        return Err(Refusal::drop(Counter::UnknownL4Proto));
    };
    let mtu = rules.lowest_ipv6_mtu.min(rules.egress_mtu);
    if mtu < MIN_MTU6 {
        return Err(Refusal::drop(Counter::FourSixBadMtu));
    }
    let mtu = usize::try_from(mtu).unwrap_or(usize::MAX);
    let payload = packet.bytes.get(packet.l4_offset..).unwrap_or_default();
    let fresh = fresh_checksum(packet, payload, rules)?;
    let patch = |l4: &mut [u8]| {
        let Some(header) = Header::of(&packet.l4) else {
            return;
        };
        if let Some(checksum) = fresh {
            put16(l4, 6, checksum);
        }
        change(header, [packet.src, packet.dst], rewrite, payload.len()).apply(header, l4, ECHO6);
    };
    let head = outer(packet, rewrite, rules, protocol);

    let extension = packet.fragment.map_or(0, |_| FRAGMENT_LEN);
    let may_fragment = !packet.dont_fragment || rules.reassembled;
    if let Some(mut left) = Left::of(rules, Header::of(&packet.l4), packet.fragment, payload) {
        if may_fragment {
            left.limit(mtu.saturating_sub(Head6::LEN));
        }
        let Ok(payload_len) = u16::try_from(payload.len()) else {
            return Err(CONTRADICTION);
        };
        let head = Head6 {
            payload_len,
            ..head
        };
        let written = payload.get(..left.written()).unwrap_or(payload);
        let l4 = out.write(head.to_bytes(), written);
        patch(l4);
        left.prepare(l4, Sum::addr6(rewrite.src) + Sum::addr6(rewrite.dst));
        out.leave(left.virtio(true, Head6::LEN));
        if let Some(rest) = left.rest(packet.l4_offset) {
            out.follow(rest);
        }
        return Ok(());
    }
    if may_fragment && Head6::LEN + extension + payload.len() > mtu {
        return split(packet, &head, payload, mtu, patch, out);
    }
    let l4 = piece(&head, packet.fragment, payload, out)?;
    patch(l4);
    Ok(())
}

/// Cuts the payload into fragments that, with their headers, are at most `mtu` bytes long.
//= rfc7915#section-4
fn split(
    packet: &Packet4<'_>,
    head: &Head6,
    payload: &[u8],
    mtu: usize,
    mut patch: impl FnMut(&mut [u8]),
    out: &mut Output,
) -> Result<(), Refusal> {
    let whole = packet.fragment.unwrap_or_else(|| Fragment {
        identification: packet.identification.into(),
        offset: 0,
        more: false,
    });
    // At least 1232, since the MTU is at least 1280: transport headers stay in the first piece.
    let room = mtu.saturating_sub(Head6::LEN + FRAGMENT_LEN).max(8) & !7;
    let before = out.len();
    for (i, part) in payload.chunks(room).enumerate() {
        let start = i * room;
        let Ok(offset) = u16::try_from(usize::from(whole.offset) + start) else {
            out.truncate(before);
            return Err(CONTRADICTION);
        };
        let fragment = Fragment {
            identification: whole.identification,
            offset,
            more: whole.more || start + part.len() < payload.len(),
        };
        match piece(head, Some(fragment), part, out) {
            Ok(l4) if i == 0 => patch(l4),
            Ok(_) => {}
            Err(refusal) => {
                out.truncate(before);
                return Err(refusal);
            }
        }
    }
    Ok(())
}

/// Writes one packet and lends what it carries.
#[inline]
fn piece<'a>(
    head: &Head6,
    fragment: Option<Fragment>,
    payload: &[u8],
    out: &'a mut Output,
) -> Result<&'a mut [u8], Refusal> {
    let extension = fragment.map_or(0, |_| FRAGMENT_LEN);
    let Ok(payload_len) = u16::try_from(extension + payload.len()) else {
        return Err(CONTRADICTION);
    };
    let head = Head6 {
        payload_len,
        ..*head
    };
    let Some(fragment) = fragment else {
        return Ok(out.write(head.to_bytes(), payload));
    };
    let second = fragment_header(head.next_header, fragment);
    let first = Head6 {
        next_header: FRAGMENT,
        ..head
    };
    let mut both = [0; Head6::LEN + FRAGMENT_LEN];
    put(&mut both, 0, &first.to_bytes());
    put(&mut both, Head6::LEN, &second);
    Ok(out.write(both, payload))
}

/// The header of the resulting packets, but for their length.
//= rfc7915#section-4.1
fn outer(
    packet: &Packet4<'_>,
    rewrite: &Rewrite<Ipv6Addr>,
    rules: &Rules<'_>,
    next_header: u8,
) -> Head6 {
    Head6 {
        traffic_class: traffic_class(packet.tos, rules),
        payload_len: 0,
        next_header,
        hop_limit: packet.ttl,
        src: rewrite.src,
        dst: rewrite.dst,
    }
}

const fn traffic_class(tos: u8, rules: &Rules<'_>) -> u8 {
    if rules.zeroize_traffic_class { 0 } else { tos }
}

/// The checksum of a UDP packet that came without one, still with the old addresses and ports;
/// none for packets that have one.
//= rfc7915#section-4.5
fn fresh_checksum(
    packet: &Packet4<'_>,
    payload: &[u8],
    rules: &Rules<'_>,
) -> Result<Option<u16>, Refusal> {
    let L4::Udp { .. } = packet.l4 else {
        return Ok(None);
    };
    if get16(payload, 6) != Some(0) {
        return Ok(None);
    }
    if !rules.amend_udp_checksum_zero || packet.fragment.is_some() {
        return Err(Refusal::reply(
            Counter::FourSixFragmentedZeroCsum,
            3,
            13,
            [0; 4],
        ));
    }
    let len = get16(payload, 4).map_or(0, usize::from);
    let datagram = match payload.get(..len) {
        Some(datagram) if len >= 8 => datagram,
        Some(_) | None => return Err(CONTRADICTION),
    };
    let sum = Sum::pseudo4(packet.src, packet.dst, UDP, len) + Sum::bytes(datagram);
    Ok(Some(nonzero(sum.checksum())))
}

#[inline]
fn change(
    header: Header,
    [src, dst]: [Ipv4Addr; 2],
    rewrite: &Rewrite<Ipv6Addr>,
    l4_len: usize,
) -> Change {
    let (removed, added) = match header {
        Header::Tcp | Header::Udp => (
            Sum::addr4(src) + Sum::addr4(dst),
            Sum::addr6(rewrite.src) + Sum::addr6(rewrite.dst),
        ),
        // ICMPv4 has no pseudo-header.
        Header::Echo { .. } => (
            Sum::ZERO,
            Sum::pseudo6(rewrite.src, rewrite.dst, ICMP6, l4_len),
        ),
    };
    Change {
        removed,
        added,
        ports: rewrite.ports,
    }
}

//= rfc7915#section-4.2
//= rfc7915#section-4.3
fn error(
    packet: &Packet4<'_>,
    (kind, code): (u8, u8),
    inner: &Inner<Ipv4Addr>,
    plan: &Plan6,
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
    let inner_header_len = inner.l4_offset.saturating_sub(inner.offset);
    let quoted_len = u32::from(inner.l4_len) + inner_header_len as u32;
    let reply = error_to_six(kind, code, rest, quoted_len, rules)?;
    if !Sum::bytes(message).is_valid() {
        return Err(Refusal::drop(Counter::FourSixIcmpCsum));
    }
    let inner_header = Header::of_quoted(inner.l4);
    let protocol = match protocol_to_six(inner.protocol) {
        Some(_) if inner.protocol == ICMP4 && inner_header.is_none() => {
            return Err(Refusal::drop(Counter::UnknownIcmp4Type));
        }
        Some(protocol) => protocol,
        None => return Err(Refusal::drop(Counter::UnknownProtoInner)),
    };

    // RFC 4884 section 4: these have a length field, and it counts four bytes.
    let declared = match kind {
        3 | 11 | 12 => usize::from(rest[1]) * 4,
        _ => 0,
    };
    let quoted = Quoted::split(packet.bytes, inner, declared)?;
    let extension = match reply.kind {
        1 | 3 => quoted.extension,
        _ => &[],
    };
    let inner_len = Head6::LEN + inner.fragment.map_or(0, |_| FRAGMENT_LEN);
    let room = MAX_ERROR6 - Head6::LEN - HEADER;
    let layout = Layout::new(inner_len + quoted.l4.len(), extension.len(), room, 8);
    let payload_len = HEADER + layout.padded + layout.extension;
    let buffer = out.packet(Head6::LEN + payload_len);
    let (head, icmp) = buffer.split_at_mut(Head6::LEN);
    let outer = Head6 {
        payload_len: payload_len as u16,
        ..outer(packet, &plan.outer, rules, ICMP6)
    };
    head.copy_from_slice(&outer.to_bytes());

    put(icmp, 0, &[reply.kind, reply.code]);
    put(icmp, 4, &reply.rest);
    if layout.length != 0 {
        put(icmp, 4, &[layout.length]);
    }
    let mut inner_head = Head6 {
        traffic_class: traffic_class(inner.traffic_class, rules),
        payload_len: inner.l4_len.saturating_add((inner_len - Head6::LEN) as u16),
        next_header: protocol,
        hop_limit: inner.hop_limit,
        src: rewrite.src,
        dst: rewrite.dst,
    };
    if let Some(fragment) = inner.fragment {
        let bytes = fragment_header(protocol, fragment);
        put(icmp, HEADER + Head6::LEN, &bytes);
        inner_head.next_header = FRAGMENT;
    }
    put(icmp, HEADER, &inner_head.to_bytes());
    let kept = quoted
        .l4
        .get(..layout.quote - inner_len)
        .unwrap_or_default();
    put(icmp, HEADER + inner_len, kept);
    let unchecked = matches!(inner.l4, InnerL4::Udp { .. }) && get16(kept, 6) == Some(0);
    if let Some(header) = inner_header {
        let l4 = icmp
            .get_mut(HEADER + inner_len..HEADER + layout.quote)
            .unwrap_or_default();
        let addresses = [inner.src, inner.dst];
        change(header, addresses, rewrite, inner.l4_len.into()).apply(header, l4, ECHO6);
        if unchecked {
            put16(l4, 6, 0);
        }
    }
    if layout.extension != 0 {
        put(icmp, HEADER + layout.padded, extension);
    }
    let pseudo = Sum::pseudo6(plan.outer.src, plan.outer.dst, ICMP6, payload_len);
    let checksum = (pseudo + Sum::bytes(icmp)).checksum();
    put16(icmp, 2, checksum);
    Ok(())
}

#[cfg(test)]
mod tests;
