// SPDX-License-Identifier: GPL-2.0-or-later
//! The tables of RFC 7915 sections 4.2 and 5.2: types, codes, pointers and MTUs of ICMP errors.

use super::Rules;
use crate::base::counters::Counter;
use crate::wire::{IcmpReply, Refusal};

/// IPv6 is this much larger than IPv4, in bytes.
const HEADER_GROWTH: u32 = 20;
/// What every IPv6 link carries, in bytes (RFC 8200 section 5).
pub(super) const MIN_MTU6: u32 = 1280;
/// What every IPv4 link carries, in bytes (RFC 791).
const MIN_MTU4: u32 = 68;

/// The ICMPv4 error that stands for an ICMPv6 error; `rest` are the bytes behind its checksum.
/// The length of an extension (RFC 4884) is left out.
//= rfc7915#section-5.2
pub(super) fn error_to_four(
    kind: u8,
    code: u8,
    rest: [u8; 4],
    rules: &Rules<'_>,
) -> Result<IcmpReply, Refusal> {
    const UNKNOWN: Refusal = Refusal::drop(Counter::UnknownIcmp6Type);

    let (kind, code, rest) = match (kind, code) {
        (1, 0 | 2 | 3) => (3, 1, [0; 4]),
        (1, 1) => (3, 10, [0; 4]),
        (1, 4) => (3, 3, [0; 4]),
        (2, _) => {
            let [m0, m1] = mtu_to_four(u32::from_be_bytes(rest), rules).to_be_bytes();
            (3, 4, [0, 0, m0, m1])
        }
        (3, code) => (11, code, [0; 4]),
        (4, 0) => {
            let Some(pointer) = pointer_to_four(u32::from_be_bytes(rest)) else {
                return Err(Refusal::drop(Counter::SixFourUntranslatableParamProbPtr));
            };
            (12, 0, [pointer, 0, 0, 0])
        }
        (4, 1) => (3, 2, [0; 4]),
        _ => return Err(UNKNOWN),
    };
    Ok(IcmpReply { kind, code, rest })
}

/// The ICMPv6 error that stands for an ICMPv4 error; `rest` are the bytes behind its checksum and
/// `quoted_len` is the total length of the packet it is about.
//= rfc7915#section-4.2
pub(super) fn error_to_six(
    kind: u8,
    code: u8,
    rest: [u8; 4],
    quoted_len: u32,
    rules: &Rules<'_>,
) -> Result<IcmpReply, Refusal> {
    const UNKNOWN: Refusal = Refusal::drop(Counter::UnknownIcmp4Type);

    let [pointer, _, m0, m1] = rest;
    let (kind, code, rest) = match (kind, code) {
        (3, 0 | 1 | 5..=8 | 11 | 12) => (1, 0, [0; 4]),
        // The pointer is at "next header".
        (3, 2) => (4, 1, [0, 0, 0, 6]),
        (3, 3) => (1, 4, [0; 4]),
        (3, 4) => {
            let mtu = mtu_to_six(u16::from_be_bytes([m0, m1]), quoted_len, rules);
            (2, 0, mtu.to_be_bytes())
        }
        (3, 9 | 10 | 13 | 15) => (1, 1, [0; 4]),
        (11, code) => (3, code, [0; 4]),
        (12, 0 | 2) => {
            let Some(pointer) = pointer_to_six(pointer) else {
                return Err(Refusal::drop(Counter::FourSixUntranslatableParamProblemPtr));
            };
            (4, 0, u32::from(pointer).to_be_bytes())
        }
        _ => return Err(UNKNOWN),
    };
    Ok(IcmpReply { kind, code, rest })
}

/// The MTU of a Packet Too Big, for a Fragmentation Needed.
fn mtu_to_four(mtu: u32, rules: &Rules<'_>) -> u16 {
    let mtu = mtu
        .saturating_sub(HEADER_GROWTH)
        .min(rules.egress_mtu)
        .min(rules.ingress_mtu.saturating_sub(HEADER_GROWTH))
        .max(MIN_MTU4);
    u16::try_from(mtu).unwrap_or(u16::MAX)
}

/// The MTU of a Fragmentation Needed, for a Packet Too Big.
///
/// Routers older than RFC 1191 leave it 0; then it is guessed as the first of the usual MTUs
/// that is smaller than the packet that did not fit.
fn mtu_to_six(mtu: u16, quoted_len: u32, rules: &Rules<'_>) -> u32 {
    let mtu = match mtu {
        0 => rules
            .plateaus
            .iter()
            .map(|plateau| u32::from(*plateau))
            .find(|plateau| *plateau < quoted_len)
            .unwrap_or(0),
        mtu => mtu.into(),
    };
    (mtu + HEADER_GROWTH)
        .min(rules.egress_mtu)
        .min(rules.ingress_mtu.saturating_add(HEADER_GROWTH))
        .max(MIN_MTU6)
}

/// RFC 7915 figure 6: the field of the IPv4 header that stands for one of the IPv6 header.
const fn pointer_to_four(pointer: u32) -> Option<u8> {
    Some(match pointer {
        // Version, traffic class.
        0 | 1 => pointer as u8,
        // Payload length: total length.
        4 | 5 => 2,
        // Next header: protocol.
        6 => 9,
        // Hop limit: time to live.
        7 => 8,
        8..=23 => 12,
        24..=39 => 16,
        _ => return None,
    })
}

/// RFC 7915 figure 4: the field of the IPv6 header that stands for one of the IPv4 header.
const fn pointer_to_six(pointer: u8) -> Option<u8> {
    Some(match pointer {
        // Version, type of service.
        0 | 1 => pointer,
        // Total length: payload length.
        2 | 3 => 4,
        // Time to live: hop limit.
        8 => 7,
        // Protocol: next header.
        9 => 6,
        12..=15 => 8,
        16..=19 => 24,
        _ => return None,
    })
}

/// The IPv4 protocol for an IPv6 next header; none for ICMPv4, which does not belong there.
pub(super) const fn protocol_to_four(next_header: u8) -> Option<u8> {
    match next_header {
        1 => None,
        58 => Some(1),
        other => Some(other),
    }
}

/// The IPv6 next header for an IPv4 protocol; none for ICMPv6 and for the numbers that would
/// make the payload an IPv6 extension header.
pub(super) const fn protocol_to_six(protocol: u8) -> Option<u8> {
    match protocol {
        0 | 43 | 44 | 58 | 60 => None,
        1 => Some(58),
        other => Some(other),
    }
}
