// SPDX-License-Identifier: GPL-2.0-or-later
use super::*;
use crate::wire::{InnerL4, L4, Packet4, Packet6};

fn read(line: &str) -> Result<Packet, PacketError> {
    let words = std::iter::once("explain").chain(line.split(' '));
    let found = crate::cli::verbs::explain::command()
        .try_get_matches_from(words)
        .unwrap();
    Packet::of(&found).map(Option::unwrap)
}

#[test]
fn words_become_the_packet_that_they_say() {
    let line =
        "tcp 2001:db8::8#5000 64:ff9b::192.0.2.8#80 --flags sa --size 5 --ttl 9 --tos 3 --mark 7";
    let packet = read(line).unwrap();
    assert_eq!((packet.mark, packet.bytes.len()), (7, 65));
    let parsed = Packet6::parse(&packet.bytes).unwrap();
    assert_eq!((parsed.hop_limit, parsed.traffic_class), (9, 3));
    assert!(matches!(parsed.l4, L4::Tcp { src: 5000, dst: 80, flags } if flags.syn && !flags.rst));
    let line = "udp 192.0.2.8 203.0.113.1#61001 --df --ttl 255";
    let packet = read(line).unwrap();
    let parsed = Packet4::parse(&packet.bytes).unwrap();
    assert!(parsed.dont_fragment && parsed.ttl == 255);
    assert!(matches!(
        parsed.l4,
        L4::Udp {
            src: 49_152,
            dst: 61_001
        }
    ));
    let packet = read("ICMP 192.0.2.8 203.0.113.1#77").unwrap();
    let parsed = Packet4::parse(&packet.bytes).unwrap();
    assert!(matches!(
        parsed.l4,
        L4::Echo {
            request: true,
            identifier: 77
        }
    ));
    let packet = read("icmp 2001:db8::8#7 64:ff9b::1 --type 129").unwrap();
    let parsed = Packet6::parse(&packet.bytes).unwrap();
    assert!(matches!(
        parsed.l4,
        L4::Echo {
            request: false,
            identifier: 7
        }
    ));
}

#[test]
fn fragments_and_errors_can_be_said() {
    for line in [
        "udp 192.0.2.8 192.0.2.9 --fragment 1480 --size 16",
        "udp 2001:db8::8 2001:db8::9 --fragment 1480,more --size 16",
    ] {
        let bytes = read(line).unwrap().bytes;
        let l4 = match Packet6::parse(&bytes) {
            Ok(packet) => (packet.fragment, packet.l4 == L4::LaterFragment),
            Err(_) => {
                let packet = Packet4::parse(&bytes).unwrap();
                (packet.fragment, packet.l4 == L4::LaterFragment)
            }
        };
        assert_eq!((l4.0.unwrap().offset, l4.1), (1480, true), "{line}");
    }
    let line = "udp 203.0.113.1#61001 192.0.2.8#53 --error 3/4 --router 198.51.100.1 --mtu 1400";
    let bytes = read(line).unwrap().bytes;
    let packet = Packet4::parse(&bytes).unwrap();
    assert_eq!(packet.too_big(), Some(1400));
    assert_eq!(packet.src, Ipv4Addr::new(198, 51, 100, 1));
    let L4::Error { inner, .. } = packet.l4 else {
        panic!("{packet:?}");
    };
    assert_eq!(
        inner.l4,
        InnerL4::Udp {
            src: 61001,
            dst: 53
        }
    );
    let bytes = read("tcp 2001:db8::1#1 2001:db8::2#2 --error 1")
        .unwrap()
        .bytes;
    let packet = Packet6::parse(&bytes).unwrap();
    assert!(matches!(
        packet.l4,
        L4::Error {
            kind: 1,
            code: 0,
            ..
        }
    ));
}

#[test]
fn every_wrong_word_is_named() {
    for (line, complaint) in [
        (
            "tpc 192.0.2.1#1 192.0.2.2#2",
            "'tpc' is not a protocol; use tcp, udp, icmp or icmpv6",
        ),
        (
            "tcp 192.0.2#1 192.0.2.2#2",
            "'192.0.2#1' is not an IPv4 or IPv6 address, which may have #PORT behind it",
        ),
        (
            "tcp 192.0.2.1#x 192.0.2.2#2",
            "'x' is not a port number (0-65535)",
        ),
        (
            "tcp 192.0.2.1#65536 192.0.2.2#2",
            "'65536' is not a port number (0-65535)",
        ),
        (
            "udp 192.0.2.1#1 192.0.2.2",
            "'192.0.2.2' has no port; write ADDRESS#PORT, for example 192.0.2.2#80",
        ),
        (
            "udp 192.0.2.1#1 ::1#2",
            "192.0.2.1 and ::1 are of different families; a packet has one",
        ),
        (
            "icmpv6 192.0.2.1 192.0.2.2",
            "icmpv6 goes between IPv6 addresses, not 192.0.2.1; use icmp",
        ),
        (
            "tcp ::1#1 ::2#2 --flags SX",
            "'SX' are no TCP flags; use letters of S A F R P U, for example SA, or none",
        ),
        (
            "tcp ::1#1 ::2#2 --ttl 256",
            "--ttl takes a number of at most 255, not '256'",
        ),
        (
            "tcp ::1#1 ::2#2 --ttl -1",
            "--ttl takes a number of at most 255, not '-1'",
        ),
        (
            "tcp ::1#1 ::2#2 --mark x",
            "--mark takes a number of at most 4294967295, not 'x'",
        ),
        (
            "tcp ::1#1 ::2#2 --df",
            "--df is for IPv4 only; leave it out",
        ),
        (
            "udp ::1#1 ::2#2 --flags S",
            "--flags is for TCP only; leave it out",
        ),
        (
            "udp ::1#1 ::2#2 --type 1",
            "--type is for ICMP only; leave it out",
        ),
        (
            "udp ::1#1 ::2#2 --mtu 1",
            "--mtu is for --error only; leave it out",
        ),
        (
            "udp ::1#1 ::2#2 --fragment 7",
            "--fragment takes a multiple of 8 of at most 65528, which ',more' may follow, not '7'",
        ),
        (
            "udp ::1#1 ::2#2 --fragment 0,more --size 3",
            "all but the last fragment carry a multiple of 8 bytes, and 11 is none; change --size",
        ),
        (
            "udp ::1#1 ::2#2 --size 65535",
            "the packet would be 65583 bytes long, and 65535 is the most; use a smaller --size",
        ),
        (
            "udp ::1#1 ::2#2 --error 1/x",
            "--error takes a number of at most 255, not 'x'",
        ),
        (
            "udp ::1#1 ::2#2 --error 1 --router 192.0.2.1",
            "192.0.2.1 and ::1 are of different families; a packet has one",
        ),
    ] {
        assert_eq!(read(line).unwrap_err().to_string(), complaint, "{line}");
    }
}
