// SPDX-License-Identifier: GPL-2.0-or-later
//! Errors of our own, and the sums of sizes in translated ones.

use super::*;
use crate::wire::samples::*;

const TIME_EXCEEDED4: IcmpReply = IcmpReply {
    kind: 11,
    code: 0,
    rest: [0; 4],
};
const TOO_BIG6: IcmpReply = IcmpReply {
    kind: 2,
    code: 0,
    rest: [0, 0, 5, 0],
};

#[test]
fn our_errors_quote_as_much_as_fits() {
    for (data, quoted) in [(0, 48), (1184, 1232), (1185, 1232), (3000, 1232)] {
        let packet = udp([1, 2], &vec![7; data]).over6(A6, B6);
        let error = reply_to(&packet, TOO_BIG6).unwrap();
        assert_eq!(error.to, IpAddr::V6(A6));
        assert_eq!(error.message[..8], [2, 0, 0, 0, 0, 0, 5, 0]);
        assert_eq!(error.message[8..], packet[..quoted]);
    }
    for (data, quoted) in [(0, 28), (520, 548), (521, 548), (3000, 548)] {
        let packet = udp([1, 2], &vec![7; data]).over4(A4, B4);
        let error = reply_to(&packet, TIME_EXCEEDED4).unwrap();
        assert_eq!(error.to, IpAddr::V4(A4));
        assert_eq!(error.message[..2], [11, 0]);
        assert_eq!(error.message[8..], packet[..quoted]);
        assert_eq!(naive(&error.message), 0xffff);
    }
}

#[test]
fn what_is_refused_with_a_reply_can_be_answered() {
    let segments = udp([1, 2], b"").over6_behind(43, &[17, 0, 0, 1, 0, 0, 0, 0]);
    assert!(reply_to(&segments, TOO_BIG6).is_some());
    let ping = icmp(128, 0, [0; 4], b"").over6(A6, B6);
    assert!(reply_to(&ping, TOO_BIG6).is_some());
    let routed = with_options4(
        icmp(8, 0, [0; 4], b"").over4(A4, B4),
        &[131, 7, 4, 1, 1, 1, 1, 0],
    );
    assert!(reply_to(&routed, TIME_EXCEEDED4).is_some());
    let first = with_flags4(udp([1, 2], b"").over4(A4, B4), 0x2000);
    assert!(reply_to(&first, TIME_EXCEEDED4).is_some());
}

#[test]
//= rfc4443#section-2.4
//= type=test
fn no_icmpv6_error_where_it_could_do_harm() {
    let load = || udp([1, 2], b"");
    let quoted = load().over6(B6, A6);
    let ip = |text: &str| text.parse().unwrap();
    let cases = [
        ("an error", icmp(1, 0, [0; 4], &quoted).over6(A6, B6)),
        ("an unknown error", icmp(100, 0, [0; 4], b"").over6(A6, B6)),
        ("a redirect", icmp(137, 0, [0; 4], b"").over6(A6, B6)),
        ("a multicast group", load().over6(A6, ip("ff02::1"))),
        ("nowhere", load().over6(A6, ip("::"))),
        ("many", load().over6(ip("ff02::1"), B6)),
        ("nobody", load().over6(ip("::"), B6)),
        ("this host", load().over6(ip("::1"), B6)),
        ("a later fragment", raw6(A6, B6, 44, &fragment6(17, 8, 1))),
        ("rubbish", vec![0x60; 50]),
        ("nothing", vec![]),
    ];
    for (what, packet) in cases {
        assert_eq!(reply_to(&packet, TOO_BIG6), None, "{what}");
    }
}

#[test]
//= rfc1812#section-4.3.2.7
//= type=test
fn no_icmpv4_error_where_it_could_do_harm() {
    let load = || udp([1, 2], b"");
    let quoted = load().over4(B4, A4);
    let ip = |text: &str| text.parse().unwrap();
    let mut cases = vec![
        ("a multicast group", load().over4(A4, ip("224.0.0.1"))),
        ("all", load().over4(A4, ip("255.255.255.255"))),
        ("many", load().over4(ip("239.1.1.1"), B4)),
        ("everybody", load().over4(ip("255.255.255.255"), B4)),
        ("class E", load().over4(ip("240.0.0.1"), B4)),
        ("nobody", load().over4(ip("0.0.0.0"), B4)),
        ("this host", load().over4(ip("127.0.0.1"), B4)),
        ("a later fragment", with_flags4(load().over4(A4, B4), 1)),
        ("rubbish", vec![0x45; 50]),
    ];
    for kind in [3, 4, 5, 11, 12] {
        cases.push(("an error", icmp(kind, 0, [0; 4], &quoted).over4(A4, B4)));
    }
    for (what, packet) in cases {
        assert_eq!(reply_to(&packet, TIME_EXCEEDED4), None, "{what}");
    }
}

#[test]
fn quote_and_extension_share_the_room() {
    // Quote, extension, room, unit; quote, padded, extension, length field.
    for (from, to) in [
        ((100, 0, 548, 4), (100, 100, 0, 0)),
        ((900, 0, 548, 4), (548, 548, 0, 0)),
        ((100, 12, 548, 4), (100, 128, 12, 32)),
        ((130, 12, 548, 4), (130, 132, 12, 33)),
        ((900, 12, 548, 4), (536, 536, 12, 134)),
        ((900, 13, 548, 4), (532, 532, 13, 133)),
        ((900, 420, 548, 4), (128, 128, 420, 32)),
        ((900, 421, 548, 4), (548, 548, 0, 0)),
        ((130, 12, 1232, 8), (130, 136, 12, 17)),
        ((1300, 12, 1232, 8), (1216, 1216, 12, 152)),
        ((1300, 1105, 1232, 8), (1232, 1232, 0, 0)),
    ] {
        let (quote, extension, room, unit) = from;
        let layout = Layout::new(quote, extension, room, unit);
        let (quote, padded, extension, length) = to;
        let expected = Layout {
            quote,
            padded,
            extension,
            length,
        };
        assert_eq!(layout, expected, "{from:?}");
        assert!(layout.padded + layout.extension <= room);
    }
}
