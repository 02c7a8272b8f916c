// SPDX-License-Identifier: GPL-2.0-or-later
//! What the parsers find, and what they refuse to read.

use super::samples::*;
use super::*;

const HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

#[track_caller]
fn parsed6(bytes: &[u8]) -> Packet6<'_> {
    Packet6::parse(bytes).unwrap()
}

#[track_caller]
fn parsed4(bytes: &[u8]) -> Packet4<'_> {
    Packet4::parse(bytes).unwrap()
}

#[track_caller]
fn dropped6(bytes: &[u8], reason: Counter) {
    assert_eq!(Packet6::parse(bytes).unwrap_err(), Refusal::drop(reason));
}

#[track_caller]
fn dropped4(bytes: &[u8], reason: Counter) {
    assert_eq!(Packet4::parse(bytes).unwrap_err(), Refusal::drop(reason));
}

#[test]
fn headers_of_plain_packets_are_read() {
    let bytes = tcp([40000, 80], 0b10_0101, b"hello").over6(A6, B6);
    let packet = parsed6(&bytes);
    assert_eq!((packet.src, packet.dst), (A6, B6));
    assert_eq!((packet.traffic_class, packet.hop_limit), (TOS, TTL));
    assert_eq!((packet.protocol, packet.l4_offset), (TCP, 40));
    assert_eq!((packet.fragment, packet.refusal), (None, None));
    let flags = TcpFlags {
        syn: false,
        fin: true,
        rst: true,
    };
    assert_eq!(
        packet.l4,
        L4::Tcp {
            src: 40000,
            dst: 80,
            flags
        }
    );

    let mut bytes = with_options4(udp([53, 5353], b"hello").over4(A4, B4), &[1, 1, 1, 0]);
    let len = bytes.len();
    bytes.extend([7; 6]);
    let packet = parsed4(&bytes);
    assert_eq!(packet.bytes.len(), len, "Ethernet padding is cut off");
    assert_eq!((packet.src, packet.dst), (A4, B4));
    assert_eq!((packet.tos, packet.ttl), (TOS, TTL));
    assert_eq!((packet.protocol, packet.l4_offset), (UDP, 24));
    assert_eq!((packet.identification, packet.dont_fragment), (ID, false));
    assert_eq!((packet.fragment, packet.refusal), (None, None));
    assert_eq!(packet.l4, L4::Udp { src: 53, dst: 5353 });
}

#[test]
fn icmp_messages_are_told_apart() {
    let rest = [0x12, 0x34, 0, 1];
    for (kind, l4) in [
        (128, Some(true)),
        (129, Some(false)),
        (0, None),
        (5, None),
        (100, None),
        (127, None),
        (130, None),
        (135, None),
        (137, None),
    ] {
        let bytes = icmp(kind, 0, rest, b"x").over6(A6, B6);
        assert_eq!(parsed6(&bytes).l4, expected_icmp(kind, l4));
    }
    for (kind, l4) in [
        (8, Some(true)),
        (0, Some(false)),
        (9, None),
        (10, None),
        (13, None),
        (18, None),
        (128, None),
    ] {
        let bytes = icmp(kind, 0, rest, b"x").over4(A4, B4);
        assert_eq!(parsed4(&bytes).l4, expected_icmp(kind, l4));
    }
}

fn expected_icmp<A>(kind: u8, request: Option<bool>) -> L4<A> {
    match request {
        Some(request) => L4::Echo {
            request,
            identifier: 0x1234,
        },
        None => L4::Icmp { kind, code: 0 },
    }
}

#[test]
fn errors_show_the_packet_they_are_about() {
    let quoted = udp([1000, 2000], b"some data").over6(B6, A6);
    for kind in 1..=4 {
        let bytes = icmp(kind, 1, [0; 4], &quoted[..48]).over6(C6, B6);
        let L4::Error {
            kind: k,
            code: 1,
            inner,
        } = parsed6(&bytes).l4
        else {
            panic!()
        };
        assert_eq!(k, kind);
        let expected = Inner {
            src: B6,
            dst: A6,
            offset: 48,
            l4_offset: 88,
            protocol: UDP,
            traffic_class: TOS,
            hop_limit: TTL,
            fragment: None,
            l4_len: 17,
            l4: InnerL4::Udp {
                src: 1000,
                dst: 2000,
            },
        };
        assert_eq!(inner, expected);
    }
    let quoted = with_options4(tcp([1000, 2000], 2, b"").over4(B4, A4), &[1; 8]);
    for kind in [3, 4, 5, 11, 12] {
        let bytes = icmp(kind, 1, [0; 4], &quoted[..36]).over4(C4, B4);
        let L4::Error { inner, .. } = parsed4(&bytes).l4 else {
            panic!()
        };
        assert_eq!((inner.offset, inner.l4_offset, inner.l4_len), (28, 56, 20));
        assert_eq!(
            inner.l4,
            InnerL4::Tcp {
                src: 1000,
                dst: 2000
            }
        );
    }
}

#[test]
fn extension_headers_of_quoted_packets_are_skipped() {
    let hop = [FRAGMENT, 0, 1, 4, 0, 0, 0, 0];
    let headers = [hop.to_vec(), fragment6(UDP, 1, 7)].concat();
    let quoted = udp([1000, 2000], &[0; 16]).over6_behind(HOP, &headers);
    let bytes = icmp(3, 0, [0; 4], &quoted).over6(C6, B6);
    let L4::Error { inner, .. } = parsed6(&bytes).l4 else {
        panic!()
    };
    assert_eq!((inner.l4_offset, inner.l4_len), (48 + 56, 24));
    assert!(inner.fragment.unwrap().more);
}

#[test]
fn bad_quotes_drop_the_error() {
    use Counter::{DoubleIcmp4Error, DoubleIcmp6Error, Hdr4, Hdr6, SkbTruncated};

    let about6 = |quoted: &[u8]| icmp(1, 0, [0; 4], quoted).over6(C6, B6);
    let about4 = |quoted: &[u8]| icmp(3, 0, [0; 4], quoted).over4(C4, B4);
    let udp6 = udp([1, 2], b"").over6(A6, B6);
    let udp4 = udp([1, 2], b"").over4(A4, B4);

    dropped6(&about6(&udp6[..39]), SkbTruncated);
    dropped6(&about6(&udp6[..47]), SkbTruncated);
    dropped6(&about6(&[&udp4[..], &[0; 40]].concat()), Hdr6);
    let later = raw6(A6, B6, FRAGMENT, &fragment6(UDP, 8, 1));
    dropped6(&about6(&later), Hdr6);
    let second = [fragment6(FRAGMENT, 0, 1), fragment6(UDP, 0, 1)].concat();
    dropped6(
        &about6(&udp([1, 2], b"").over6_behind(FRAGMENT, &second)),
        Counter::SixFour2xFrag,
    );
    dropped6(
        &about6(&icmp(4, 0, [0; 4], b"").over6(A6, B6)),
        DoubleIcmp6Error,
    );
    assert!(Packet6::parse(&about6(&raw6(A6, B6, 50, &[]))).is_ok());

    dropped4(&about4(&udp4[..19]), SkbTruncated);
    dropped4(&about4(&udp4[..27]), SkbTruncated);
    dropped4(&about4(&udp6), Hdr4);
    dropped4(&about4(&with_flags4(udp4.clone(), 1)), Hdr4);
    for (at, value) in [(0, 0x44), (3, 19)] {
        let mut bad = udp4.clone();
        bad[at] = value;
        dropped4(&about4(&bad), Hdr4);
    }
    let mut long = udp4;
    long[0] = 0x4f;
    long[3] = 60;
    dropped4(&about4(&long), SkbTruncated);
    dropped4(
        &about4(&icmp(11, 0, [0; 4], b"").over4(A4, B4)),
        DoubleIcmp4Error,
    );
    assert!(Packet4::parse(&about4(&raw4(A4, B4, 50, &[]))).is_ok());
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    use Counter::{Hdr4, Hdr6, SkbTruncated};

    let mut bytes = udp([1, 2], b"abc").over6(A6, B6);
    dropped6(&[], SkbTruncated);
    dropped6(&bytes[..39], SkbTruncated);
    dropped6(&bytes[..50], Hdr6);
    bytes.push(0);
    dropped6(&bytes, Hdr6);
    bytes.pop();
    bytes[0] = 0x45;
    dropped6(&bytes, Hdr6);

    let bytes = udp([1, 2], b"abc").over4(A4, B4);
    dropped4(&[], SkbTruncated);
    dropped4(&bytes[..19], SkbTruncated);
    dropped4(&bytes[..30], Hdr4);
    for (at, value) in [(0, 0x65), (0, 0x44), (3, 19), (3, 32)] {
        let mut bad = bytes.clone();
        bad[at] = value;
        dropped4(&bad, Hdr4);
    }
}

#[test]
fn transport_headers_cut_short_are_refused() {
    for (protocol, least) in [(TCP, 20), (UDP, 8), (ICMP6, 8)] {
        let payload = [5; 24];
        let short = raw6(A6, B6, protocol, &payload[..least - 1]);
        dropped6(&short, Counter::SkbTruncated);
    }
    for (protocol, least) in [(TCP, 20), (UDP, 8), (ICMP4, 8)] {
        let payload = [9; 24];
        let short = raw4(A4, B4, protocol, &payload[..least - 1]);
        dropped4(&short, Counter::SkbTruncated);
    }
    let mut options_missing = tcp([1, 2], 2, b"").over4(A4, B4);
    options_missing[32] = 0x60;
    dropped4(&options_missing, Counter::SkbTruncated);
    assert_eq!(parsed6(&raw6(A6, B6, 50, &[])).l4, L4::Other);
    assert_eq!(parsed4(&raw4(A4, B4, 132, &[])).l4, L4::Other);
}

#[test]
fn extension_headers_are_walked() {
    let headers = [
        vec![DESTINATION, 1],
        vec![0; 14],
        vec![ROUTING, 0, 0, 0, 0, 0, 0, 0],
        vec![FRAGMENT, 0, 4, 0, 0, 0, 0, 0],
        fragment6(UDP, 0, 0xdead_beef),
    ]
    .concat();
    let bytes = udp([7, 9], b"abc").over6_behind(HOP, &headers);
    let packet = parsed6(&bytes);
    assert_eq!((packet.protocol, packet.l4_offset), (UDP, 40 + 40));
    assert_eq!(packet.refusal, None);
    let atomic = Fragment {
        identification: 0xdead_beef,
        offset: 0,
        more: false,
    };
    assert_eq!(packet.fragment, Some(atomic));
    assert_eq!(packet.l4, L4::Udp { src: 7, dst: 9 });

    dropped6(&raw6(A6, B6, HOP, &headers[..7]), Counter::SkbTruncated);
    dropped6(&raw6(A6, B6, HOP, &headers[..8]), Counter::SkbTruncated);
    let endless = [HOP, 0, 0, 0, 0, 0, 0, 0].repeat(1000);
    dropped6(&raw6(A6, B6, HOP, &endless), Counter::Hdr6);
    for other in [50, 51, 59, 135, 139] {
        assert_eq!(parsed6(&raw6(A6, B6, other, &[1])).l4, L4::Other);
    }
}

#[test]
fn later_fragments_have_no_transport_header() {
    let bytes = raw6(A6, B6, FRAGMENT, &fragment6(TCP, 1480 | 1, 5));
    let packet = parsed6(&bytes);
    let fragment = Fragment {
        identification: 5,
        offset: 1480,
        more: true,
    };
    assert_eq!(
        (packet.l4, packet.fragment),
        (L4::LaterFragment, Some(fragment))
    );
    let bytes = with_flags4(raw4(A4, B4, TCP, &[0; 8]), 0x2000 | 185);
    let packet = parsed4(&bytes);
    let fragment = Fragment {
        identification: ID.into(),
        ..fragment
    };
    assert_eq!(
        (packet.l4, packet.fragment),
        (L4::LaterFragment, Some(fragment))
    );
    assert!(parsed4(&with_flags4(bytes.clone(), 0x4000 | 185)).dont_fragment);
}

#[test]
//= rfc7915#section-5.1
//= type=test
fn what_must_not_be_translated_is_noted_in_ipv6_packets() {
    let cases = [
        (
            "segments left",
            udp([1, 2], b"").over6_behind(
                DESTINATION,
                &[ROUTING, 0, 0, 0, 0, 0, 0, 0, UDP, 0, 0, 2, 0, 0, 0, 0],
            ),
            Refusal::reply(Counter::SixFourSegmentsLeft, 4, 0, [0, 0, 0, 51]),
        ),
        (
            "two fragment headers",
            udp([1, 2], b"").over6_behind(
                FRAGMENT,
                &[fragment6(FRAGMENT, 0, 1), fragment6(UDP, 0, 1)].concat(),
            ),
            Refusal::drop(Counter::SixFour2xFrag),
        ),
        (
            "options behind the fragment header",
            udp([1, 2], b"").over6_behind(
                FRAGMENT,
                &[fragment6(DESTINATION, 0, 1), vec![UDP, 0, 1, 4, 0, 0, 0, 0]].concat(),
            ),
            Refusal::reply(Counter::SixFourFragThenExt, 1, 1, [0; 4]),
        ),
        (
            "options in a later fragment",
            raw6(A6, B6, FRAGMENT, &fragment6(HOP, 64, 1)),
            Refusal::reply(Counter::SixFourFragThenExt, 1, 1, [0; 4]),
        ),
        (
            "first fragment of ICMPv6",
            icmp(128, 0, [0; 4], b"").over6_behind(FRAGMENT, &fragment6(ICMP6, 1, 1)),
            Refusal::drop(Counter::SixFourFragmentedIcmp),
        ),
        (
            "later fragment of ICMPv6",
            raw6(A6, B6, FRAGMENT, &fragment6(ICMP6, 8, 1)),
            Refusal::drop(Counter::SixFourFragmentedIcmp),
        ),
    ];
    for (what, bytes, refusal) in cases {
        assert_eq!(parsed6(&bytes).refusal, Some(refusal), "{what}");
    }
    let atomic = icmp(128, 0, [0; 4], b"").over6_behind(FRAGMENT, &fragment6(ICMP6, 0, 1));
    assert_eq!(parsed6(&atomic).refusal, None);
    assert!(matches!(parsed6(&atomic).l4, L4::Echo { .. }));
}

#[test]
//= rfc7915#section-4.1
//= type=test
fn what_must_not_be_translated_is_noted_in_ipv4_packets() {
    let source_route = Some(Refusal::reply(Counter::FourSixSrcRoute, 3, 5, [0; 4]));
    let contradiction = Some(Refusal::drop(Counter::Hdr4));
    for (options, refusal) in [
        ([131, 7, 4, 1, 1, 1, 1, 0], source_route),
        ([1, 137, 7, 4, 1, 1, 1, 1], source_route),
        ([1, 137, 7, 7, 1, 1, 1, 1], source_route),
        ([1, 137, 7, 8, 1, 1, 1, 1], None),
        ([0, 131, 7, 4, 1, 1, 1, 1], None),
        ([7, 7, 4, 0, 0, 0, 0, 1], None),
        ([68, 0, 0, 0, 0, 0, 0, 0], contradiction),
        ([68, 9, 0, 0, 0, 0, 0, 0], contradiction),
        ([1, 1, 1, 1, 1, 1, 1, 7], contradiction),
    ] {
        let bytes = with_options4(udp([1, 2], b"").over4(A4, B4), &options);
        assert_eq!(parsed4(&bytes).refusal, refusal, "{options:?}");
    }
    for flags in [0x2000, 1] {
        let bytes = with_flags4(icmp(8, 0, [0; 4], b"").over4(A4, B4), flags);
        let refusal = Refusal::drop(Counter::FourSixFragmentedIcmp);
        assert_eq!(parsed4(&bytes).refusal, Some(refusal));
    }
    // Offset, header and payload of a fragment are 65535 bytes at most.
    let offset = 0x2000 - 8;
    for (len, refusal) in [(43, None), (44, contradiction), (64, contradiction)] {
        let last = with_flags4(raw4(A4, B4, UDP, &vec![0; len]), offset);
        assert_eq!(parsed4(&last).refusal, refusal, "{len}");
    }
}

#[test]
fn what_a_packet_carries_is_told_without_reading_it() {
    let options: Vec<u8> = [DESTINATION, 1].into_iter().chain([0; 14]).collect();
    let fragment = fragment6(UDP, 8, 1);
    for (packet, expected) in [
        (tcp([1, 2], 0, b"").over6(A6, B6), Some(Protocol::Tcp)),
        (udp([1, 2], b"").over4(A4, C4), Some(Protocol::Udp)),
        (icmp(8, 0, [0; 4], b"").over4(A4, C4), Some(Protocol::Icmp)),
        (
            icmp(128, 0, [0; 4], b"").over6(A6, B6),
            Some(Protocol::Icmp),
        ),
        (raw6(A6, B6, ICMP4, &[0; 8]), None),
        (raw4(A4, C4, ICMP6, &[0; 8]), None),
        (raw6(A6, B6, FRAGMENT, &fragment), Some(Protocol::Udp)),
        (raw6(A6, B6, DESTINATION, &options), None),
        (
            raw6(A6, B6, HOP, &[TCP, 0, 0, 0, 0, 0, 0, 0]),
            Some(Protocol::Tcp),
        ),
        (vec![0x60], None),
        (vec![0x45; 9], None),
        (vec![0x15; 40], None),
        (Vec::new(), None),
    ] {
        assert_eq!(protocol(&packet), expected, "{packet:?}");
    }
}
