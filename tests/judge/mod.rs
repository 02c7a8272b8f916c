// SPDX-License-Identifier: GPL-2.0-or-later
//! A judge of translations: compares a packet with what became of it, by RFC 7915.
//!
//! Slow and obvious, and it uses nothing of what it judges. The property tests call it, and so do
//! the fuzz targets. It panics when a translation is wrong.

use std::net::IpAddr;

pub(crate) mod trial;

/// What the judge must know besides the two packets.
pub(crate) struct Expected {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    /// Addresses of the packet quoted in an ICMP error.
    pub(crate) inner: [IpAddr; 2],
    /// IPv6 packets that may be fragmented are at most this long, in bytes.
    pub(crate) mtu: usize,
    /// The kernel put the packet together before it came.
    pub(crate) reassembled: bool,
    /// Type of service or traffic class, if it is not kept.
    pub(crate) tos: Option<u8>,
}

/// An IP header, read without trust.
pub(crate) struct Seen<'a> {
    pub(crate) v6: bool,
    pub(crate) tos: u8,
    /// Flow label of IPv6; flags and options of IPv4 are judged in place.
    pub(crate) label: u32,
    pub(crate) ttl: u8,
    pub(crate) id: u32,
    pub(crate) df: bool,
    /// Offset in bytes, and whether more fragments follow; also of atomic fragments.
    pub(crate) fragment: Option<(usize, bool)>,
    pub(crate) protocol: u8,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    /// As the header declares it, in bytes, from the transport header on.
    pub(crate) declared: usize,
    /// What is there of it.
    pub(crate) payload: &'a [u8],
    /// Headers of IPv6 that have no counterpart, or options of IPv4.
    pub(crate) extras: bool,
}

/// Reads the header of a packet or of the start of one.
pub(crate) fn look(bytes: &[u8]) -> Option<Seen<'_>> {
    match bytes.first()? >> 4 {
        4 => look4(bytes),
        6 => look6(bytes),
        _ => None,
    }
}

fn look4(bytes: &[u8]) -> Option<Seen<'_>> {
    let header = usize::from(bytes[0] & 15) * 4;
    let head = bytes.get(..header).filter(|head| head.len() >= 20)?;
    let total = usize::from(word(head, 2)?);
    let flags = word(head, 6)?;
    let (offset, more) = (usize::from(flags & 0x1fff) * 8, flags & 0x2000 != 0);
    let declared = total.checked_sub(header)?;
    let rest = &bytes[header..];
    Some(Seen {
        v6: false,
        tos: head[1],
        label: 0,
        ttl: head[8],
        id: word(head, 4)?.into(),
        df: flags & 0x4000 != 0,
        fragment: (offset != 0 || more).then_some((offset, more)),
        protocol: head[9],
        src: IpAddr::from(<[u8; 4]>::try_from(&head[12..16]).ok()?),
        dst: IpAddr::from(<[u8; 4]>::try_from(head.get(16..20)?).ok()?),
        declared,
        payload: rest.get(..declared).unwrap_or(rest),
        extras: header > 20,
    })
}

fn look6(bytes: &[u8]) -> Option<Seen<'_>> {
    let head = bytes.get(..40)?;
    let mut rest = &bytes[40..];
    let mut declared = usize::from(word(head, 4)?);
    let mut seen = Seen {
        v6: true,
        tos: head[0] << 4 | head[1] >> 4,
        label: u32::from_be_bytes([0, head[1] & 15, head[2], head[3]]),
        ttl: head[7],
        id: 0,
        df: false,
        fragment: None,
        protocol: head[6],
        src: IpAddr::from(<[u8; 16]>::try_from(&head[8..24]).ok()?),
        dst: IpAddr::from(<[u8; 16]>::try_from(&head[24..40]).ok()?),
        declared,
        payload: rest,
        extras: false,
    };
    while matches!(seen.protocol, 0 | 43 | 44 | 60) && seen.fragment.is_none_or(|f| f.0 == 0) {
        let header = rest.get(..8)?;
        let len = match seen.protocol {
            // A second one makes the packet untranslatable.
            44 if seen.fragment.is_some() => 8,
            44 => {
                let field = word(header, 2)?;
                seen.fragment = Some((usize::from(field & !7), field & 1 != 0));
                seen.id = u32::from_be_bytes(header[4..8].try_into().ok()?);
                8
            }
            _ => {
                seen.extras = true;
                8 + usize::from(header[1]) * 8
            }
        };
        seen.protocol = header[0];
        rest = rest.get(len..)?;
        declared = declared.saturating_sub(len);
    }
    seen.declared = declared;
    seen.payload = rest;
    Some(seen)
}

/// Panics unless `output` is what RFC 7915 makes of `input`.
pub(crate) fn judge(input: &[u8], output: &[&[u8]], expected: &Expected) {
    let from = look(input).expect("what was translated can be read");
    // Whatever lies behind the end of an IPv4 packet is not part of it.
    let to: Vec<Seen<'_>> = output.iter().map(|o| look(o).expect("readable")).collect();
    assert!(!to.is_empty(), "translated into nothing");
    for (bytes, to) in output.iter().zip(&to) {
        judge_header(&from, bytes, to);
        assert_eq!((to.src, to.dst), (expected.src, expected.dst));
        assert_eq!(to.tos, expected.tos.unwrap_or(from.tos));
        // The kernel forwards the result and takes the hop.
        assert!(to.ttl == from.ttl && to.ttl > 1);
    }
    if is_error(&from) {
        assert_eq!(output.len(), 1, "errors are never split");
        assert!(output[0].len() <= if to[0].v6 { 1280 } else { 576 });
        assert_eq!(to[0].fragment, None);
        assert!(is_error(&to[0]) && is_valid(&to[0]));
        judge_error(&from, &to[0], expected);
        return;
    }
    judge_fragmentation(&from, output, &to, expected);
    let payload: Vec<u8> = to.iter().flat_map(|to| to.payload.to_vec()).collect();
    judge_payload(&from, &payload);
    if from.fragment.is_none_or(|f| f == (0, false)) {
        let whole = Seen {
            payload: &payload,
            declared: payload.len(),
            ..look(output[0]).expect("readable")
        };
        judge_checksum(&from, &whole);
    }
}

/// What holds for every header that the translator writes, outer or quoted.
fn judge_header(from: &Seen<'_>, bytes: &[u8], to: &Seen<'_>) {
    assert_ne!(from.v6, to.v6, "the family changes");
    assert!(!to.extras, "neither options nor extension headers are made");
    let protocol = match (from.v6, from.protocol) {
        (false, 1) => 58,
        (true, 58) => 1,
        (_, other) => other,
    };
    assert_eq!(to.protocol, protocol);
    if to.v6 {
        assert_eq!(to.label, 0);
        assert_ne!(to.fragment, Some((0, false)), "an atomic fragment");
    } else {
        assert_eq!(bytes[0], 0x45);
        assert_eq!(sum(&bytes[..20]), 0xffff, "checksum of the IPv4 header");
        assert_eq!(bytes[6] & 0x80, 0, "a reserved bit is set");
    }
}

fn judge_fragmentation(from: &Seen<'_>, output: &[&[u8]], to: &[Seen<'_>], expected: &Expected) {
    for (bytes, to) in output.iter().zip(to) {
        let header = match (to.v6, to.fragment) {
            (true, Some(_)) => 48,
            (true, None) => 40,
            (false, _) => 20,
        };
        assert_eq!(bytes.len(), header + to.declared);
        assert_eq!(to.declared, to.payload.len());
    }
    if from.v6 {
        assert_eq!(output.len(), 1, "IPv6 packets are never split");
        let to = &to[0];
        match from.fragment {
            Some((offset, more)) => {
                assert_eq!(to.fragment, (offset != 0 || more).then_some((offset, more)));
                assert_eq!((to.id, to.df), (from.id & 0xffff, false));
            }
            None => {
                assert_eq!(to.fragment, None);
                assert_eq!(to.df, output[0].len() > 1260 && !expected.reassembled);
            }
        }
        return;
    }
    let extension = if from.fragment.is_some() { 8 } else { 0 };
    let fits = 40 + extension + from.payload.len() <= expected.mtu;
    if (from.df && !expected.reassembled) || fits {
        assert_eq!(output.len(), 1, "nothing to split");
        assert_eq!(to[0].fragment, from.fragment);
        assert!(from.fragment.is_none() || to[0].id == from.id);
        return;
    }
    let (mut at, more) = from.fragment.unwrap_or((0, false));
    for (i, (bytes, to)) in output.iter().zip(to).enumerate() {
        assert!(bytes.len() <= expected.mtu);
        let more = more || i + 1 < output.len();
        assert_eq!((to.fragment, to.id), (Some((at, more)), from.id));
        at += to.payload.len();
    }
}

/// Nothing but ports, types, identifiers and checksums changes.
fn judge_payload(from: &Seen<'_>, payload: &[u8]) {
    assert_eq!(from.payload.len(), payload.len());
    judge_bytes(from, payload);
}

/// The same as far as both go.
fn judge_bytes(from: &Seen<'_>, payload: &[u8]) {
    let first = from.fragment.is_none_or(|f| f.0 == 0);
    let may_change: &[usize] = match from.protocol {
        6 if first => &[0, 1, 2, 3, 16, 17],
        17 if first => &[0, 1, 2, 3, 6, 7],
        1 | 58 if first => &[0, 1, 2, 3, 4, 5],
        _ => &[],
    };
    for (at, (old, new)) in from.payload.iter().zip(payload).enumerate() {
        assert!(old == new || may_change.contains(&at), "byte {at}");
    }
    // A quoted header may declare less than is there.
    if let (1 | 58, true, [old, ..], [kind, code, ..]) =
        (from.protocol, first, from.payload, payload)
    {
        let expected = match (from.v6, *old) {
            (true, 128) => 8,
            (true, 129) => 0,
            (false, 8) => 128,
            (false, 0) => 129,
            other => panic!("{other:?} must not be translated"),
        };
        // There is no other code.
        assert_eq!((*kind, *code), (expected, 0));
    }
}

/// A checksum is right afterwards if and only if it was before; one that was missing is added
/// where IPv6 needs it.
fn judge_checksum(from: &Seen<'_>, to: &Seen<'_>) {
    if !matches!(from.protocol, 1 | 6 | 17 | 58) {
        return;
    }
    if from.protocol == 17 && word(from.payload, 6) == Some(0) {
        if from.v6 {
            assert_eq!(word(to.payload, 6), Some(0), "tunnels do without");
            return;
        }
        let len = usize::from(word(to.payload, 4).expect("a UDP header"));
        let datagram = &to.payload[..len];
        assert!(is_valid_for(to, datagram), "a new checksum is right");
        return;
    }
    // Nothing but zeros has no right checksum, but an update cannot know.
    if from.payload.iter().any(|byte| *byte != 0) {
        assert_eq!(is_valid(from), is_valid(to), "checksum of the transport");
    }
    assert!(to.protocol != 17 || word(to.payload, 6) != Some(0));
}

/// The packet in the packet, and what is behind it.
fn judge_error(from: &Seen<'_>, to: &Seen<'_>, expected: &Expected) {
    let (old, new) = (&from.payload[8..], &to.payload[8..]);
    let inner_from = look(old).expect("a quoted packet can be read");
    let inner_to = look(new).expect("a quoted packet can be read");
    judge_header(&inner_from, new, &inner_to);
    assert_eq!([inner_to.src, inner_to.dst], expected.inner);
    assert_eq!(
        inner_to.ttl, inner_from.ttl,
        "nothing passes a quoted packet on"
    );
    assert_eq!(inner_to.tos, expected.tos.unwrap_or(inner_from.tos));
    let whole = |f: Option<(usize, bool)>| f.filter(|f| *f != (0, false));
    assert_eq!(whole(inner_to.fragment), whole(inner_from.fragment));
    if inner_to.fragment.is_some() {
        assert_eq!(inner_to.id & 0xffff, inner_from.id & 0xffff);
    }
    // An IPv6 packet may be longer than any IPv4 packet.
    assert_eq!(inner_to.declared, inner_from.declared.min(65515));

    let length = length_field(to);
    assert!(length == 0 || (length >= 128 && length < new.len()));
    // Where the quote ends, its padding or an extension begins.
    let end = |length: usize, all: &[u8]| if length == 0 { all.len() } else { length };
    let old = &old[..end(length_field(from), old).min(old.len())];
    let (inner_from, inner_to) = (look(old), look(&new[..end(length, new)]));
    let (Some(inner_from), Some(inner_to)) = (inner_from, inner_to) else {
        panic!("the quote is cut off");
    };
    judge_bytes(&inner_from, inner_to.payload);
    let whole = |seen: &Seen<'_>| {
        let fragment = seen.fragment.is_some_and(|f| f != (0, false));
        seen.payload.len() == seen.declared && !fragment
    };
    let unchecked = inner_from.protocol == 17 && word(inner_from.payload, 6) == Some(0);
    if whole(&inner_from) && whole(&inner_to) && !unchecked {
        judge_checksum(&inner_from, &inner_to);
    }
}

/// How long the quote with its padding is where an extension follows (RFC 4884), in bytes.
fn length_field(error: &Seen<'_>) -> usize {
    match (error.v6, error.payload[0]) {
        (true, 1 | 3) => usize::from(error.payload[4]) * 8,
        (false, 3 | 11 | 12) => usize::from(error.payload[5]) * 4,
        _ => 0,
    }
}

fn is_error(seen: &Seen<'_>) -> bool {
    let errors: &[u8] = if seen.v6 {
        &[1, 2, 3, 4]
    } else {
        &[3, 4, 5, 11, 12]
    };
    let whole = seen.fragment.is_none_or(|f| f == (0, false));
    let icmp = seen.protocol == if seen.v6 { 58 } else { 1 };
    icmp && whole
        && seen
            .payload
            .first()
            .is_some_and(|kind| errors.contains(kind))
}

/// Whether the checksum of the transport is right, over all of the payload.
pub(crate) fn is_valid(seen: &Seen<'_>) -> bool {
    is_valid_for(seen, seen.payload)
}

fn is_valid_for(seen: &Seen<'_>, payload: &[u8]) -> bool {
    let octets = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    };
    let mut bytes = Vec::new();
    if seen.v6 || seen.protocol != 1 {
        bytes.extend(octets(seen.src));
        bytes.extend(octets(seen.dst));
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend([0, seen.protocol]);
    }
    bytes.extend(payload);
    sum(&bytes) == 0xffff
}

/// Word by word, as RFC 1071 section 4.1 explains it.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}
