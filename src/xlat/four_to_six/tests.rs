// SPDX-License-Identifier: GPL-2.0-or-later
//! IPv4 packets in, IPv6 packets out.

use super::*;
use crate::wire::samples::*;

const RULES: Rules<'static> = Rules {
    override_tos: None,
    zeroize_traffic_class: false,
    lowest_ipv6_mtu: 1280,
    plateaus: &[1492, 1006],
    ingress_mtu: u32::MAX,
    egress_mtu: u32::MAX,
    amend_udp_checksum_zero: true,
    reassembled: false,
    identification: 0x4242,
    offload: crate::wire::offload::Offload::NONE,
    segment: 0,
};
const DONT_FRAGMENT: u16 = 0x4000;
const MORE: u16 = 0x2000;

fn plan(ports: Option<[u16; 2]>) -> Plan6 {
    Plan6 {
        outer: Rewrite {
            src: B6,
            dst: A6,
            ports,
        },
        // The packet quoted in an error went the other way.
        inner: Some(Rewrite {
            src: A6,
            dst: B6,
            ports: ports.map(|[src, dst]| [dst, src]),
        }),
    }
}

fn translate_with(bytes: &[u8], plan: &Plan6, rules: &Rules<'_>) -> Result<Vec<Vec<u8>>, Refusal> {
    let mut out = Output::new();
    let packet = Packet4::parse(bytes)?;
    let result = four_to_six(&packet, plan, rules, &mut out);
    assert_eq!(out.is_empty(), result.is_err());
    result.map(|()| out.packets().map(<[u8]>::to_vec).collect())
}

#[track_caller]
fn translated(bytes: &[u8]) -> Vec<u8> {
    let mut packets = translate_with(bytes, &plan(None), &RULES).unwrap();
    assert_eq!(packets.len(), 1);
    packets.remove(0)
}

#[track_caller]
fn refused(bytes: &[u8]) -> Refusal {
    translate_with(bytes, &plan(None), &RULES).unwrap_err()
}

#[test]
//= rfc7915#section-4.1
//= type=test
fn a_packet_keeps_everything_but_addresses_and_ports() {
    let plan = plan(Some([80, 40000]));
    for load in [
        tcp([80, 61001], 2, b"odd"),
        udp([80, 61001], b"even"),
        udp([80, 61001], b""),
    ] {
        let bytes = with_options4(load.over4(B4, A4), &[1; 4]);
        let result = &translate_with(&bytes, &plan, &RULES).unwrap()[0];
        assert_intact(result);
        assert_eq!((addr6(result, 8), addr6(result, 24)), (B6, A6));
        assert_eq!(result[..4], [0x60 | TOS >> 4, TOS << 4, 0, 0]);
        assert_eq!((result[7], result[6]), (TTL, bytes[9]));
        assert_eq!(get16(result, 40), Some(80));
        assert_eq!(get16(result, 42), Some(40000));
        assert_eq!(result.len(), bytes.len() + 20 - 4);
        assert_eq!(result[44..46], bytes[28..30]);
        assert_eq!(result[58.min(result.len())..], bytes[42.min(bytes.len())..]);
    }
}

#[test]
//= rfc7915#section-4.2
//= type=test
fn echo_messages_change_type_and_identifier() {
    for (kind, expected) in [(8, 128), (0, 129)] {
        let bytes = icmp(kind, 0, [1, 2, 3, 4], b"ping data").over4(B4, A4);
        let plan = plan(Some([0xabcd, 0xabcd]));
        let result = &translate_with(&bytes, &plan, &RULES).unwrap()[0];
        assert_intact(result);
        assert_eq!(result[6], 58);
        assert_eq!(result[40..42], [expected, 0]);
        assert_eq!(result[44..48], [0xab, 0xcd, 3, 4]);
        assert_eq!(result[48..], b"ping data"[..]);
    }
}

#[test]
fn traffic_class_can_be_cleared() {
    let rules = Rules {
        zeroize_traffic_class: true,
        ..RULES
    };
    let bytes = udp([1, 2], b"").over4(B4, A4);
    let result = &translate_with(&bytes, &plan(None), &rules).unwrap()[0];
    assert_eq!(result[..4], [0x60, 0, 0, 0]);
}

#[test]
fn wrong_checksums_stay_wrong() {
    for (load, at) in [(tcp([1, 2], 2, b"x"), 16), (udp([1, 2], b"x"), 6)] {
        let mut bytes = load.over4(B4, A4);
        let right = translated(&bytes);
        for wrong in [1, 0x00ff] {
            bytes[20 + at..][..2].copy_from_slice(&u16::to_be_bytes(wrong));
            let result = translated(&bytes);
            assert_ne!(get16(&result, 40 + at), get16(&right, 40 + at));
        }
    }
}

//= rfc6146#section-3.4
//= type=test
#[test]
//= rfc7915#section-4.5
//= type=test
fn udp_without_a_checksum_gets_one() {
    let plan = plan(Some([80, 40000]));
    for data in [&b""[..], b"odd", b"even", &[9; 3000]] {
        let mut bytes = udp([80, 61001], data).over4(B4, A4);
        bytes[26..28].fill(0);
        let mut results = translate_with(&bytes, &plan, &RULES).unwrap();
        let first = results.remove(0);
        let expected = udp([80, 40000], data).over6(B6, A6);
        let l4 = if results.is_empty() { 40 } else { 48 };
        assert_eq!(first[l4..l4 + 8], expected[40..48]);
    }
    let mut padded = udp([80, 61001], b"data and padding").over4(B4, A4);
    padded[24..28].copy_from_slice(&[0, 12, 0, 0]);
    let result = &translate_with(&padded, &plan, &RULES).unwrap()[0];
    let expected = udp([80, 40000], b"data").over6(B6, A6);
    assert_eq!(result[40..52], expected[40..]);

    for len in [7, 25] {
        padded[25] = len;
        assert_eq!(refused(&padded), Refusal::drop(Counter::Hdr4));
    }
}

#[test]
fn udp_without_a_checksum_is_refused_where_none_can_be_computed() {
    let expected = Refusal::reply(Counter::FourSixFragmentedZeroCsum, 3, 13, [0; 4]);
    let mut bytes = udp([80, 61001], &[0; 8]).over4(B4, A4);
    bytes[26..28].fill(0);
    let rules = Rules {
        amend_udp_checksum_zero: false,
        ..RULES
    };
    assert_eq!(translate_with(&bytes, &plan(None), &rules), Err(expected));
    assert_eq!(refused(&with_flags4(bytes.clone(), MORE)), expected);
    // Nobody can tell from a later fragment.
    translated(&with_flags4(bytes, 2));
}

#[test]
fn udp_checksums_never_become_zero() {
    let found = (0..=u16::MAX).any(|port| {
        let result = translated(&udp([port, 9], b"").over4(B4, A4));
        assert_ne!(get16(&result, 46), Some(0));
        get16(&result, 46) == Some(0xffff)
    });
    assert!(found);
}

/// Fragment header and payload of a translated fragment.
fn fragment(packet: &[u8]) -> (u8, u16, bool, u32, &[u8]) {
    assert_eq!(packet[6], 44);
    assert_eq!(get16(packet, 4), Some(packet.len() as u16 - 40));
    let field = get16(packet, 42).unwrap();
    let id = u32::from_be_bytes(get4(packet, 44).unwrap());
    (packet[40], field & !7, field & 1 != 0, id, &packet[48..])
}

#[test]
//= rfc7915#section-4
//= type=test
fn long_packets_are_split_where_that_is_allowed() {
    // IPv4 payload length, IPv4 flags and offset, lowest MTU, reassembled; lengths of the pieces.
    let cases: [(usize, u16, u32, bool, &[usize]); 12] = [
        (1240, 0, 1280, false, &[1280]),
        (1241, 0, 1280, false, &[48 + 1232, 48 + 9]),
        (1480, 0, 1280, false, &[48 + 1232, 48 + 248]),
        (1480, 0, 1500, false, &[48 + 1448, 48 + 32]),
        (1460, 0, 1500, false, &[1500]),
        (2464, 0, 1280, false, &[48 + 1232, 48 + 1232]),
        (2465, 0, 1287, false, &[48 + 1232, 48 + 1232, 48 + 1]),
        (1480, DONT_FRAGMENT, 1280, false, &[1520]),
        (1480, DONT_FRAGMENT, 1280, true, &[48 + 1232, 48 + 248]),
        (1232, MORE, 1280, false, &[48 + 1232]),
        (1480, MORE | 185, 1280, false, &[48 + 1232, 48 + 248]),
        (1233, 370, 1280, false, &[48 + 1232, 48 + 1]),
    ];
    for (len, flags, lowest_ipv6_mtu, reassembled, expected) in cases {
        let rules = Rules {
            lowest_ipv6_mtu,
            reassembled,
            ..RULES
        };
        let data: Vec<u8> = (0..len - 8).map(|i| i as u8).collect();
        let bytes = with_flags4(udp([80, 61001], &data).over4(B4, A4), flags);
        let packets = translate_with(&bytes, &plan(Some([80, 9])), &rules).unwrap();
        let lens: Vec<usize> = packets.iter().map(Vec::len).collect();
        assert_eq!(lens, expected, "{len} {flags:x}");
        if packets[0][6] != 44 {
            assert_intact(&packets[0]);
            continue;
        }
        let mut together: Vec<u8> = Vec::new();
        for (i, packet) in packets.iter().enumerate() {
            let (next_header, offset, more, id, payload) = fragment(packet);
            assert_eq!((next_header, id), (17, ID.into()));
            assert_eq!(
                usize::from(offset),
                usize::from(flags & 0x1fff) * 8 + together.len()
            );
            assert_eq!(more, i + 1 < packets.len() || flags & MORE != 0);
            together.extend(payload);
        }
        if flags & 0x1fff == 0 {
            let mut whole = udp([80, 9], &data).over6(B6, A6);
            assert_eq!(together, whole.split_off(40));
        } else {
            assert_eq!(together, bytes[20..], "no header, no change");
        }
    }
}

#[test]
fn long_pings_are_split() {
    let bytes = icmp(8, 0, [1, 2, 3, 4], &[7; 2000]).over4(B4, A4);
    let packets = translate_with(&bytes, &plan(None), &RULES).unwrap();
    let together: Vec<u8> = packets
        .iter()
        .flat_map(|p| fragment(p).4.to_vec())
        .collect();
    assert_intact(&raw6(B6, A6, 58, &together));
    assert_eq!(together[0], 128);
}

#[test]
fn links_too_small_for_ipv6_are_refused() {
    let bytes = udp([1, 2], b"").over4(B4, A4);
    let refusal = Err(Refusal::drop(Counter::FourSixBadMtu));
    for (lowest_ipv6_mtu, egress_mtu) in [(1279, 1500), (1500, 1279)] {
        let rules = Rules {
            lowest_ipv6_mtu,
            egress_mtu,
            ..RULES
        };
        assert_eq!(translate_with(&bytes, &plan(None), &rules), refusal);
    }
}

#[test]
fn other_protocols_are_copied() {
    let result = translated(&raw4(B4, A4, 50, b"secret"));
    assert_eq!((result[6], &result[40..]), (50, &b"secret"[..]));
    assert_eq!(translated(&raw4(B4, A4, 50, b"")).len(), 40);
    for protocol in [0, 43, 44, 58, 60] {
        let refusal = Refusal::drop(Counter::UnknownL4Proto);
        assert_eq!(refused(&raw4(B4, A4, protocol, &[0; 16])), refusal);
    }
}

#[test]
fn packets_that_cannot_go_on_are_refused() {
    let mut bytes = udp([1, 2], b"").over4(B4, A4);
    for ttl in [0, 1] {
        bytes[8] = ttl;
        let expected = Refusal::reply(Counter::FourSixTtl, 11, 0, [0; 4]);
        assert_eq!(refused(&bytes), expected);
    }
    bytes[8] = 2;
    assert_eq!(translated(&bytes)[7], 2, "the kernel takes the hop");
    let unknown = Refusal::drop(Counter::UnknownIcmp4Type);
    assert_eq!(refused(&icmp(13, 0, [0; 4], b"").over4(B4, A4)), unknown);
    let routed = with_options4(bytes, &[131, 7, 4, 1, 1, 1, 1, 0]);
    assert_eq!(refused(&routed).reason, Counter::FourSixSrcRoute);
}

#[test]
//= rfc7915#section-4.3
//= type=test
fn quoted_packets_are_translated() {
    let plan = plan(Some([1111, 2222]));
    for load in [
        tcp([2000, 1000], 2, b"data"),
        udp([2000, 1000], b"data"),
        icmp(8, 0, [7, 7, 0, 1], b"data"),
    ] {
        let whole = with_options4(load.over4(A4, B4), &[1; 8]);
        let mut results = Vec::new();
        for quoted in [36, 44, 46, whole.len()] {
            let quoted = quoted.min(whole.len());
            let bytes = icmp(11, 1, [0; 4], &whole[..quoted]).over4(C4, A4);
            let result = &translate_with(&bytes, &plan, &RULES).unwrap()[0];
            assert_intact(result);
            assert_eq!((addr6(result, 8), addr6(result, 24)), (B6, A6));
            assert_eq!(result[40..42], [3, 1]);
            assert_eq!(result[44..48], [0; 4]);
            let inner = &result[48..];
            assert_eq!(inner.len(), quoted - 28 + 40);
            assert_eq!((addr6(inner, 8), addr6(inner, 24)), (A6, B6));
            assert_eq!(inner[..4], [0x60 | TOS >> 4, TOS << 4, 0, 0]);
            assert_eq!(inner[7], TTL);
            assert_eq!(get16(inner, 4), Some(whole.len() as u16 - 28));
            if inner[6] == 58 {
                assert_eq!(inner[40..42], [128, 0]);
                assert_eq!(get16(inner, 44), Some(2222));
                assert_eq!(inner[46..48], [0, 1]);
            } else {
                assert_eq!(get16(inner, 40), Some(2222));
                assert_eq!(get16(inner, 42), Some(1111));
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
fn quoted_udp_without_a_checksum_stays_without() {
    let mut whole = udp([1, 2], b"data").over4(A4, B4);
    whole[26..28].fill(0);
    let result = translated(&icmp(3, 3, [0; 4], &whole).over4(C4, A4));
    assert_intact(&result);
    assert_eq!(result[40..42], [1, 4]);
    assert_eq!(get16(&result[48..], 46), Some(0));
}

#[test]
fn quoted_fragments_keep_their_fields() {
    let whole = with_flags4(udp([1, 2], &[5; 100]).over4(A4, B4), MORE);
    let result = translated(&icmp(3, 1, [0; 4], &whole).over4(C4, A4));
    assert_intact(&result);
    let (next_header, offset, more, id, payload) = fragment(&result[48..]);
    assert_eq!((next_header, offset, more, id), (17, 0, true, ID.into()));
    assert_eq!(payload.len(), 108);
}

#[test]
fn too_big_for_ipv4_is_too_big_for_ipv6() {
    let whole = with_flags4(tcp([1, 2], 2, &[5; 1460]).over4(A4, B4), DONT_FRAGMENT);
    for (field, ingress_mtu, expected) in
        [(1400, u32::MAX, 1420), (0, 1600, 1512), (1400, 1300, 1320)]
    {
        let [m0, m1] = u16::to_be_bytes(field);
        let bytes = icmp(3, 4, [0, 0, m0, m1], &whole[..28]).over4(C4, A4);
        let rules = Rules {
            ingress_mtu,
            ..RULES
        };
        let result = &translate_with(&bytes, &plan(None), &rules).unwrap()[0];
        assert_intact(result);
        assert_eq!(result[40..42], [2, 0]);
        assert_eq!(result[44..48], u32::to_be_bytes(expected));
    }
}

#[test]
fn errors_are_cut_to_the_least_mtu_and_never_split() {
    let whole = udp([1, 2], &[5; 2000]).over4(A4, B4);
    let result = translated(&icmp(3, 1, [0; 4], &whole).over4(C4, A4));
    assert_eq!(result.len(), 1280);
    assert_intact(&result);
    assert_eq!(get16(&result[48..], 4), Some(2008));
}

#[test]
fn bad_errors_are_dropped() {
    let quoted = udp([1, 2], b"").over4(A4, B4);
    let mut bytes = icmp(3, 0, [0; 4], &quoted).over4(C4, A4);
    let without = Plan6 {
        inner: None,
        ..plan(None)
    };
    assert_eq!(
        translate_with(&bytes, &without, &RULES),
        Err(Refusal::drop(Counter::Unknown))
    );
    bytes[27] ^= 1;
    assert_eq!(refused(&bytes), Refusal::drop(Counter::FourSixIcmpCsum));
    for (quoted, reason) in [
        (
            icmp(13, 0, [0; 4], b"").over4(A4, B4),
            Counter::UnknownIcmp4Type,
        ),
        (raw4(A4, B4, 58, &[0; 8]), Counter::UnknownProtoInner),
    ] {
        let bytes = icmp(3, 0, [0; 4], &quoted).over4(C4, A4);
        assert_eq!(refused(&bytes), Refusal::drop(reason));
    }
}

#[test]
//= rfc4884#section-5.1
//= type=test
fn extensions_move_behind_the_translated_quote() {
    let extension = [0x20, 0, 0, 0, 0, 8, 1, 1, 9, 9, 9, 9];
    let whole = udp([1, 2], &[5; 300]).over4(A4, B4);
    // Type, code, bytes quoted; length field of the result.
    for (kind, code, quoted, units) in [
        (11, 0, 128, 19),
        (3, 1, 132, 19),
        (3, 13, 64, 16),
        (3, 3, 328, 44),
    ] {
        let data = [&whole[..quoted], &extension].concat();
        let rest = [0, (quoted / 4) as u8, 0, 0];
        let result = translated(&icmp(kind, code, rest, &data).over4(C4, A4));
        assert_intact(&result);
        assert_eq!(result[44..48], [units, 0, 0, 0], "{kind} {quoted}");
        let end = 48 + usize::from(units) * 8;
        assert_eq!(result[end..], extension);
        let padding = &result[48 + quoted + 20..end];
        assert!(padding.iter().all(|b| *b == 0));
    }
    // No length field, no extension.
    for (kind, code, rest) in [
        (3, 2, [0, 32, 0, 0]),
        (3, 4, [0, 32, 5, 0]),
        (12, 0, [0, 32, 0, 0]),
    ] {
        let data = [&whole[..128], &extension].concat();
        let result = translated(&icmp(kind, code, rest, &data).over4(C4, A4));
        assert_intact(&result);
        assert_eq!(result.len(), 48 + 148);
    }
    let result = translated(&icmp(3, 1, [0, 33, 0, 0], &whole[..132]).over4(C4, A4));
    assert_eq!((result[44], result.len()), (0, 48 + 152), "no extension");
    let too_long = icmp(3, 1, [0, 34, 0, 0], &whole[..132]).over4(C4, A4);
    assert_eq!(refused(&too_long), Refusal::drop(Counter::IcmpextBig));
}

#[test]
//= rfc7915#section-4.2
//= type=test
fn other_icmp_messages_are_dropped() {
    for kind in (0..=255).filter(|kind| !matches!(kind, 0 | 3 | 4 | 5 | 8 | 11 | 12)) {
        let refusal = refused(&icmp(kind, 0, [0; 4], &[0; 60]).over4(B4, A4));
        assert_eq!(refusal, Refusal::drop(Counter::UnknownIcmp4Type), "{kind}");
    }
}
