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

/// RFC 7915 figure 3: the field of the IPv6 header that stands for one of the IPv4 header.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ICMP4, ICMP6};

    const PLATEAUS: &[u16] = &[
        65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68,
    ];

    fn rules(ingress_mtu: u32, egress_mtu: u32) -> Rules<'static> {
        Rules {
            override_tos: None,
            zeroize_traffic_class: false,
            lowest_ipv6_mtu: 1280,
            plateaus: PLATEAUS,
            ingress_mtu,
            egress_mtu,
            amend_udp_checksum_zero: true,
            reassembled: false,
            identification: 0,
            offload: crate::wire::offload::Offload::NONE,
            segment: 0,
        }
    }

    #[test]
    //= rfc7915#section-5.2
    //= type=test
    fn icmpv6_errors_become_icmpv4_errors() {
        let rules = rules(u32::MAX, u32::MAX);
        let translate = |kind, code| error_to_four(kind, code, [0, 0, 0, 7], &rules);
        for ((kind, code), (kind4, code4, rest)) in [
            ((1, 0), (3, 1, [0; 4])),
            ((1, 1), (3, 10, [0; 4])),
            ((1, 2), (3, 1, [0; 4])),
            ((1, 3), (3, 1, [0; 4])),
            ((1, 4), (3, 3, [0; 4])),
            ((3, 0), (11, 0, [0; 4])),
            ((3, 1), (11, 1, [0; 4])),
            ((4, 0), (12, 0, [8, 0, 0, 0])),
            ((4, 1), (3, 2, [0; 4])),
        ] {
            let expected = IcmpReply {
                kind: kind4,
                code: code4,
                rest,
            };
            assert_eq!(translate(kind, code), Ok(expected), "{kind}/{code}");
        }
        for (kind, code) in [(1, 5), (1, 6), (1, 255), (4, 2), (4, 3), (0, 0), (5, 0)] {
            let refusal = Refusal::drop(Counter::UnknownIcmp6Type);
            assert_eq!(translate(kind, code), Err(refusal), "{kind}/{code}");
        }
    }

    #[test]
    //= rfc7915#section-4.2
    //= type=test
    fn icmpv4_errors_become_icmpv6_errors() {
        let rules = rules(u32::MAX, u32::MAX);
        let translate = |kind, code| error_to_six(kind, code, [8, 9, 0, 0], 100, &rules);
        let unreachable = [0, 1, 5, 6, 7, 8, 11, 12].map(|code| ((3, code), (1, 0, 0)));
        let prohibited = [9, 10, 13, 15].map(|code| ((3, code), (1, 1, 0)));
        let others = [
            ((3, 2), (4, 1, 6)),
            ((3, 3), (1, 4, 0)),
            ((11, 0), (3, 0, 0)),
            ((11, 1), (3, 1, 0)),
            ((12, 0), (4, 0, 7)),
            ((12, 2), (4, 0, 7)),
        ];
        for ((kind, code), (kind6, code6, rest)) in
            unreachable.into_iter().chain(prohibited).chain(others)
        {
            let expected = IcmpReply {
                kind: kind6,
                code: code6,
                rest: u32::to_be_bytes(rest),
            };
            assert_eq!(translate(kind, code), Ok(expected), "{kind}/{code}");
        }
        for (kind, code) in [(3, 14), (3, 16), (3, 255), (4, 0), (5, 0), (12, 1), (12, 3)] {
            let refusal = Refusal::drop(Counter::UnknownIcmp4Type);
            assert_eq!(translate(kind, code), Err(refusal), "{kind}/{code}");
        }
    }

    #[test]
    fn nothing_else_is_translated() {
        let rules = rules(u32::MAX, u32::MAX);
        for kind in 0..=255 {
            for code in 0..=255 {
                let four = match kind {
                    1 => code <= 4,
                    2 | 3 => true,
                    4 => code <= 1,
                    _ => false,
                };
                let result = error_to_four(kind, code, [0; 4], &rules);
                assert_eq!(result.is_ok(), four, "{kind}/{code}");
                let six = match kind {
                    3 => code <= 13 || code == 15,
                    11 => true,
                    12 => code == 0 || code == 2,
                    _ => false,
                };
                let result = error_to_six(kind, code, [0; 4], 100, &rules);
                assert_eq!(result.is_ok(), six, "{kind}/{code}");
            }
        }
    }

    #[test]
    fn pointers_go_to_the_field_of_the_same_meaning() {
        let to_four = |pointer: u32| match pointer {
            0 => Some(0),
            1 => Some(1),
            4 | 5 => Some(2),
            6 => Some(9),
            7 => Some(8),
            8..24 => Some(12),
            24..40 => Some(16),
            _ => None,
        };
        let rules = rules(u32::MAX, u32::MAX);
        for pointer in (0..300).chain([256 + 6, 65536, u32::MAX]) {
            let result = error_to_four(4, 0, pointer.to_be_bytes(), &rules);
            match to_four(pointer) {
                Some(expected) => assert_eq!(result.unwrap().rest, [expected, 0, 0, 0]),
                None => assert_eq!(
                    result,
                    Err(Refusal::drop(Counter::SixFourUntranslatableParamProbPtr))
                ),
            }
        }
        let to_six = [
            (0, 0),
            (1, 1),
            (2, 4),
            (3, 4),
            (8, 7),
            (9, 6),
            (12, 8),
            (13, 8),
            (14, 8),
            (15, 8),
            (16, 24),
            (17, 24),
            (18, 24),
            (19, 24),
        ];
        for pointer in 0..=255 {
            let result = error_to_six(12, 0, [pointer, 0, 0, 0], 100, &rules);
            match to_six.iter().find(|(from, _)| *from == pointer) {
                Some((_, to)) => assert_eq!(result.unwrap().rest, [0, 0, 0, *to]),
                None => assert_eq!(
                    result,
                    Err(Refusal::drop(Counter::FourSixUntranslatableParamProblemPtr))
                ),
            }
        }
    }

    #[test]
    fn mtus_grow_and_shrink_by_the_difference_of_the_headers() {
        let none = u32::MAX;
        for (mtu, ingress, egress, expected) in [
            (1280, none, none, 1260),
            (1500, none, none, 1480),
            (1500, none, 1400, 1400),
            (1500, 1300, 1400, 1280),
            (1500, 10, none, 68),
            (0, none, none, 68),
            (19, none, none, 68),
            (70_000, none, none, 65_535),
            (none, none, none, 65_535),
        ] {
            assert_eq!(mtu_to_four(mtu, &rules(ingress, egress)), expected);
        }
        for (mtu, ingress, egress, expected) in [
            (1480, none, none, 1500),
            (1480, none, 1400, 1400),
            (1480, 1400, none, 1420),
            (68, none, none, 1280),
            (1300, none, 100, 1280),
            (65_535, none, none, 65_555),
        ] {
            assert_eq!(mtu_to_six(mtu, 100, &rules(ingress, egress)), expected);
        }
    }

    #[test]
    fn an_mtu_of_zero_is_guessed() {
        for (quoted_len, expected) in [
            (65_535, 32_020),
            (32_000, 17_934),
            (1500, 1512),
            (1492, 1280),
            (60, 1280),
        ] {
            assert_eq!(
                mtu_to_six(0, quoted_len, &rules(u32::MAX, u32::MAX)),
                expected
            );
        }
    }

    #[test]
    fn protocols_of_one_family_only_do_not_cross() {
        assert_eq!(protocol_to_four(ICMP6), Some(ICMP4));
        assert_eq!(protocol_to_six(ICMP4), Some(ICMP6));
        assert_eq!(protocol_to_four(ICMP4), None);
        for protocol in [ICMP6, 0, 43, 44, 60] {
            assert_eq!(protocol_to_six(protocol), None);
        }
        for protocol in [6, 17, 50, 51, 59, 132, 136] {
            assert_eq!(protocol_to_four(protocol), Some(protocol));
            assert_eq!(protocol_to_six(protocol), Some(protocol));
        }
    }
}
