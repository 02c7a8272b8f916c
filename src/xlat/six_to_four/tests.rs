// SPDX-License-Identifier: GPL-2.0-or-later
//! IPv6 packets in, IPv4 packets out.

use super::*;
use crate::wire::samples::*;
use crate::wire::write::get16;

const RULES: Rules<'static> = Rules {
    override_tos: None,
    zeroize_traffic_class: false,
    lowest_ipv6_mtu: 1280,
    plateaus: &[],
    ingress_mtu: u32::MAX,
    egress_mtu: u32::MAX,
    amend_udp_checksum_zero: true,
    reassembled: false,
    identification: 0x4242,
    offload: crate::wire::offload::Offload::NONE,
    segment: 0,
};

fn plan(ports: Option<[u16; 2]>) -> Plan4 {
    Plan4 {
        outer: Rewrite {
            src: A4,
            dst: B4,
            ports,
        },
        // The packet quoted in an error went the other way.
        inner: Some(Rewrite {
            src: B4,
            dst: A4,
            ports: ports.map(|[src, dst]| [dst, src]),
        }),
    }
}

fn translate_with(bytes: &[u8], plan: &Plan4, rules: &Rules<'_>) -> Result<Vec<u8>, Refusal> {
    let mut out = Output::new();
    let packet = Packet6::parse(bytes)?;
    let result = six_to_four(&packet, plan, rules, &mut out);
    assert_eq!(out.len(), usize::from(result.is_ok()));
    result.map(|()| out.get(0).unwrap().to_vec())
}

#[track_caller]
fn translated(bytes: &[u8]) -> Vec<u8> {
    translate_with(bytes, &plan(None), &RULES).unwrap()
}

#[track_caller]
fn refused(bytes: &[u8]) -> Refusal {
    translate_with(bytes, &plan(None), &RULES).unwrap_err()
}

#[test]
//= rfc7915#section-5.1
//= type=test
fn a_packet_keeps_everything_but_addresses_and_ports() {
    let plan = plan(Some([61001, 80]));
    for load in [
        tcp([40000, 80], 2, b"odd"),
        udp([40000, 80], b"even"),
        udp([40000, 80], b""),
    ] {
        let bytes = load.over6(A6, B6);
        let result = translate_with(&bytes, &plan, &RULES).unwrap();
        assert_intact(&result);
        assert_eq!((addr4(&result, 12), addr4(&result, 16)), (A4, B4));
        assert_eq!((result[0], result[1]), (0x45, TOS));
        assert_eq!((result[8], result[9]), (TTL, bytes[6]));
        assert_eq!(get16(&result, 20), Some(61001));
        assert_eq!(get16(&result, 22), Some(80));
        assert_eq!(result[24..26], bytes[44..46]);
        assert_eq!(
            result[28..36.min(result.len())],
            bytes[48..56.min(bytes.len())]
        );
        assert_eq!(result[38.min(result.len())..], bytes[58.min(bytes.len())..]);
        assert_eq!(get16(&result, 4), Some(0x4242));
    }
}

#[test]
//= rfc7915#section-5.2
//= type=test
fn echo_messages_change_type_and_identifier() {
    for (kind, expected) in [(128, 8), (129, 0)] {
        let bytes = icmp(kind, 0, [1, 2, 3, 4], b"ping data").over6(A6, B6);
        let plan = plan(Some([0xabcd, 0xabcd]));
        let result = translate_with(&bytes, &plan, &RULES).unwrap();
        assert_intact(&result);
        assert_eq!(result[9], 1);
        assert_eq!(result[20..22], [expected, 0]);
        assert_eq!(result[24..28], [0xab, 0xcd, 3, 4]);
        assert_eq!(result[28..], b"ping data"[..]);
        let unchanged = translated(&bytes);
        assert_intact(&unchanged);
        assert_eq!(unchanged[24..28], [1, 2, 3, 4]);
    }
}

#[test]
fn a_message_of_zeros_has_a_checksum() {
    // An echo reply without anything in it; ICMPv4 has no pseudo-header to make the sum non-zero.
    let bytes = icmp(129, 0, [0; 4], &[0; 20]).over6(A6, B6);
    let result = translated(&bytes);
    assert_intact(&result);
    assert_eq!(result[20..28], [0, 0, 0xff, 0xff, 0, 0, 0, 0]);
}

#[test]
fn wrong_checksums_stay_wrong() {
    for (load, at) in [(tcp([1, 2], 2, b"x"), 16), (udp([1, 2], b"x"), 6)] {
        let mut bytes = load.over6(A6, B6);
        let right = translated(&bytes);
        for wrong in [0, 1, 0x00ff] {
            bytes[40 + at..][..2].copy_from_slice(&u16::to_be_bytes(wrong));
            let result = translated(&bytes);
            assert_ne!(get16(&result, 20 + at), get16(&right, 20 + at));
        }
    }
}

#[test]
//= rfc7915#section-5.5
//= type=test
fn udp_checksums_never_become_zero() {
    // One of all ports gives a datagram whose checksum over IPv4 is zero.
    let found = (0..=u16::MAX).any(|port| {
        let result = translated(&udp([port, 9], b"").over6(A6, B6));
        assert_ne!(get16(&result, 26), Some(0));
        get16(&result, 26) == Some(0xffff)
    });
    assert!(found);
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let mut packet = udp([1, 2], b"tunnel").over6(A6, B6);
    packet[46..48].copy_from_slice(&[0, 0]);
    assert_eq!(translated(&packet)[26..28], [0, 0]);
}

#[test]
//= rfc7915#section-5.1.1
//= type=test
fn fragment_fields_follow_the_fragment_header() {
    // Payload length, fragment header, reassembled; flags and offset, identification.
    let cases = [
        (1240, None, false, 0x0000, 0x4242),
        (1241, None, false, 0x4000, 0),
        (1480, None, false, 0x4000, 0),
        (1480, None, true, 0x0000, 0x4242),
        (1480, Some(0), false, 0x0000, 0x5678),
        (1480, Some(1), false, 0x2000, 0x5678),
        (1480, Some(1480 | 1), false, 0x2000 | 185, 0x5678),
        (100, Some(2960), false, 370, 0x5678),
    ];
    for (len, fragment, reassembled, flags, identification) in cases {
        let load = udp([1, 2], &vec![7; len - 8]);
        let bytes = match fragment {
            None => load.over6(A6, B6),
            Some(field) => load.over6_behind(44, &fragment6(17, field, 0x1234_5678)),
        };
        let rules = Rules {
            reassembled,
            ..RULES
        };
        let result = translate_with(&bytes, &plan(None), &rules).unwrap();
        assert_eq!(result.len(), len + 20);
        assert_eq!(get16(&result, 6), Some(flags), "{len} {fragment:?}");
        assert_eq!(
            get16(&result, 4),
            Some(identification),
            "{len} {fragment:?}"
        );
        assert_eq!(naive(&result[..20]), 0xffff);
        if fragment.is_some_and(|f| f > 1) {
            assert_eq!(result[20..], bytes[48..], "no header, no change");
        }
    }
}

#[test]
fn type_of_service_can_be_overridden() {
    let bytes = udp([1, 2], b"").over6(A6, B6);
    let rules = Rules {
        override_tos: Some(0x20),
        ..RULES
    };
    let result = translate_with(&bytes, &plan(None), &rules).unwrap();
    assert_eq!(result[1], 0x20);
    let error = icmp(1, 0, [0; 4], &udp([1, 2], b"").over6(B6, A6)).over6(C6, B6);
    let result = translate_with(&error, &plan(None), &rules).unwrap();
    assert_eq!((result[1], result[29]), (0x20, 0x20), "outer and quoted");
}

#[test]
fn extension_headers_disappear() {
    let headers = [60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0];
    let result = translated(&udp([1, 2], b"abc").over6_behind(0, &headers));
    assert_eq!((result.len(), result[9]), (31, 17));
    assert_intact(&result);
}

#[test]
fn other_protocols_are_copied() {
    let result = translated(&raw6(A6, B6, 50, b"secret"));
    assert_eq!((result[9], &result[20..]), (50, &b"secret"[..]));
    let foreign = raw6(A6, B6, 1, &[8, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(refused(&foreign), Refusal::drop(Counter::UnknownL4Proto));
}

#[test]
fn packets_that_cannot_go_on_are_refused() {
    let mut bytes = udp([1, 2], b"").over6(A6, B6);
    for hop_limit in [0, 1] {
        bytes[7] = hop_limit;
        let expected = Refusal::reply(Counter::SixFourTtl, 3, 0, [0; 4]);
        assert_eq!(refused(&bytes), expected);
    }
    bytes[7] = 2;
    assert_eq!(translated(&bytes)[8], 2, "the kernel takes the hop");
    let unknown = Refusal::drop(Counter::UnknownIcmp6Type);
    assert_eq!(refused(&icmp(135, 0, [0; 4], b"").over6(A6, B6)), unknown);
    let huge = raw6(A6, B6, 50, &[0; 65516]);
    assert_eq!(
        refused(&huge),
        Refusal::reply(Counter::PktTooBig, 2, 0, [0, 1, 0, 19])
    );
    assert_eq!(translated(&raw6(A6, B6, 50, &[0; 65515])).len(), 65535);
    let segments = udp([1, 2], b"").over6_behind(43, &[17, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(refused(&segments).reason, Counter::SixFourSegmentsLeft);
}

#[test]
fn fragments_of_what_no_ipv4_packet_could_hold_are_refused() {
    let last = |len: usize| {
        let bytes = [fragment6(17, 0xfff8 - 64, 1), vec![0; len]].concat();
        raw6(A6, B6, 44, &bytes)
    };
    // Offset, header and payload together are 65535 bytes at most.
    assert_eq!(translated(&last(51)).len(), 20 + 51);
    assert_eq!(refused(&last(52)).reason, Counter::PktTooBig);
}

#[test]
//= rfc7915#section-5.3
//= type=test
fn quoted_packets_are_translated() {
    let plan = plan(Some([1111, 2222]));
    for load in [
        tcp([2000, 1000], 2, b"data"),
        udp([2000, 1000], b"data"),
        icmp(128, 0, [7, 7, 0, 1], b"data"),
    ] {
        let whole = load.over6(B6, A6);
        let mut results = Vec::new();
        for quoted in [48, 56, 58, whole.len()] {
            let quoted = quoted.min(whole.len());
            let bytes = icmp(3, 1, [0; 4], &whole[..quoted]).over6(C6, B6);
            let result = translate_with(&bytes, &plan, &RULES).unwrap();
            assert_intact(&result);
            assert_eq!((addr4(&result, 12), addr4(&result, 16)), (A4, B4));
            assert_eq!(result[20..22], [11, 1]);
            assert_eq!(result[24..28], [0; 4]);
            let inner = &result[28..];
            assert_eq!(inner.len(), quoted - 20);
            assert_eq!(naive(&inner[..20]), 0xffff);
            assert_eq!((addr4(inner, 12), addr4(inner, 16)), (B4, A4));
            assert_eq!((inner[1], inner[8]), (TOS, TTL));
            let declared = whole.len() as u16 - 20;
            assert_eq!(get16(inner, 2), Some(declared));
            if inner[9] == 1 {
                assert_eq!(inner[20..22], [8, 0]);
                assert_eq!(get16(inner, 24), Some(2222));
                assert_eq!(inner[26..28], [0, 1]);
            } else {
                assert_eq!(get16(inner, 20), Some(2222));
                assert_eq!(get16(inner, 22), Some(1111));
            }
            results.push(inner.to_vec());
        }
        let complete = results.pop().unwrap();
        assert_intact(&complete);
        for cut in results {
            assert_eq!(cut, complete[..cut.len()], "no matter how much is quoted");
        }
    }
}

#[test]
fn quoted_fragments_keep_their_fields() {
    let whole = udp([1, 2], &[0; 100]).over6_behind(44, &fragment6(17, 1, 0x1234_5678));
    let result = translated(&icmp(1, 4, [0; 4], &whole).over6(C6, B6));
    let inner = &result[28..];
    assert_eq!(get16(inner, 6), Some(0x2000));
    assert_eq!(get16(inner, 4), Some(0x5678));
    assert_eq!(get16(inner, 2), Some(128));

    let big = udp([1, 2], &[0; 1400]).over6(B6, A6);
    let result = translated(&icmp(2, 0, [0, 0, 5, 0], &big[..1232]).over6(C6, B6));
    assert_eq!(get16(&result[28..], 6), Some(0x4000), "more than 1260");
    assert_eq!(get16(&result[28..], 2), Some(1428));
    assert_eq!(result[20..22], [3, 4]);
    assert_eq!(get16(&result, 26), Some(1260));
    assert_eq!(result.len(), 576);
    assert_eq!(get16(&result, 6), Some(0));
    assert_intact(&result);
}

#[test]
fn errors_with_wrong_checksums_or_without_a_plan_are_dropped() {
    let quoted = udp([1, 2], b"").over6(B6, A6);
    let mut bytes = icmp(1, 0, [0; 4], &quoted).over6(C6, B6);
    let without = Plan4 {
        inner: None,
        ..plan(None)
    };
    assert_eq!(
        translate_with(&bytes, &without, &RULES),
        Err(Refusal::drop(Counter::Unknown))
    );
    bytes[47] ^= 1;
    assert_eq!(refused(&bytes), Refusal::drop(Counter::SixFourIcmpCsum));
}

#[test]
fn errors_about_untranslatable_packets_are_dropped() {
    for (quoted, reason) in [
        (
            icmp(135, 0, [0; 4], b"").over6(B6, A6),
            Counter::UnknownIcmp6Type,
        ),
        (raw6(B6, A6, 1, &[0; 8]), Counter::UnknownProtoInner),
    ] {
        let bytes = icmp(1, 0, [0; 4], &quoted).over6(C6, B6);
        assert_eq!(refused(&bytes), Refusal::drop(reason));
    }
    let quoted = raw6(B6, A6, 50, b"secret");
    let result = translated(&icmp(1, 0, [0; 4], &quoted).over6(C6, B6));
    assert_eq!(result[48..], b"secret"[..]);
}

#[test]
//= rfc4884#section-5.1
//= type=test
fn extensions_move_behind_the_translated_quote() {
    let extension = [0x20, 0, 0, 0, 0, 8, 1, 1, 9, 9, 9, 9];
    let whole = udp([1, 2], &[5; 300]).over6(B6, A6);
    // Type, bytes quoted, with padding; length field of the result.
    for (kind, quoted, padded, words) in [
        (1, 128, 128, 32),
        (3, 64, 128, 32),
        (1, 64, 64, 32),
        (1, 200, 200, 45),
        (3, 348, 352, 82),
    ] {
        let mut packet = whole[..quoted].to_vec();
        if quoted < 128 {
            // A packet that is shorter than what must be quoted.
            packet = udp([1, 2], &[5; 16]).over6(B6, A6);
        }
        packet.resize(padded, 0);
        packet.extend(extension);
        let rest = [(padded / 8) as u8, 0, 0, 0];
        let result = translated(&icmp(kind, 0, rest, &packet).over6(C6, B6));
        assert_intact(&result);
        assert_eq!(result[24..28], [0, words, 0, 0], "{kind} {quoted}");
        let end = 28 + usize::from(words) * 4;
        assert_eq!(result[end..], extension);
        assert_eq!(result[56..72], [5; 16]);
        let padding = &result[28 + quoted - 20..end];
        assert!(padding.iter().all(|b| *b == 0));
    }
}

#[test]
fn extension_lengths_are_judged() {
    let whole = udp([1, 2], &[5; 1100]).over6(B6, A6);
    let with = |units: u8, len: usize| {
        let rest = [units, 0, 0, 0];
        icmp(1, 0, rest, &whole[..len]).over6(C6, B6)
    };
    assert_eq!(refused(&with(26, 200)), Refusal::drop(Counter::IcmpextBig));
    assert_eq!(refused(&with(5, 200)), Refusal::drop(Counter::SkbTruncated));
    let none = translated(&with(25, 200));
    assert_eq!((none.len(), none[25]), (28 + 180, 0), "no extension");
    let removed = translated(&with(16, 128 + 424));
    assert_eq!((removed.len(), removed[25]), (28 + 108, 0), "too large");
    let kept = translated(&with(80, 640 + 420));
    assert_eq!((kept.len(), kept[25]), (576, 32));
    assert_eq!(kept[28 + 128..], whole[640..1060]);
    assert_eq!(kept[56..156], whole[48..148]);
}

#[test]
//= rfc7915#section-5.2
//= type=test
fn other_icmp_messages_are_dropped() {
    for kind in (0..=255).filter(|kind| !matches!(kind, 1..=4 | 128 | 129)) {
        let refusal = refused(&icmp(kind, 0, [0; 4], &[0; 60]).over6(A6, B6));
        assert_eq!(refusal, Refusal::drop(Counter::UnknownIcmp6Type), "{kind}");
    }
}

#[test]
fn ipsec_is_payload() {
    for protocol in [50, 51] {
        let result = translated(&raw6(A6, B6, protocol, b"secret"));
        assert_eq!((result[9], &result[20..]), (protocol, &b"secret"[..]));
        let fragment = [&fragment6(protocol, 1, 7)[..], b"secrets!"].concat();
        let result = translated(&raw6(A6, B6, 44, &fragment));
        assert_eq!((result[9], &result[20..]), (protocol, &b"secrets!"[..]));
    }
}

#[test]
fn fragments_do_not_depend_on_each_other() {
    let fragment = |offset: u16, byte: u8| {
        let bytes = [fragment6(17, offset | 1, 7), vec![byte; 16]].concat();
        raw6(A6, B6, 44, &bytes)
    };
    let mut out = Output::new();
    // The second one overlaps the first; the receiver is the one to notice.
    for (offset, byte) in [(0, 1), (8, 2)] {
        let bytes = fragment(offset, byte);
        let packet = Packet6::parse(&bytes).unwrap();
        six_to_four(&packet, &plan(None), &RULES, &mut out).unwrap();
    }
    for (packet, field) in out.packets().zip([0x2000, 0x2001]) {
        assert_eq!(get16(packet, 6), Some(field));
        assert_eq!(get16(packet, 4), Some(7));
    }
    assert_eq!(out.get(1).unwrap()[20..], [2; 16]);
}
