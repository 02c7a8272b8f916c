// SPDX-License-Identifier: GPL-2.0-or-later
//! From customer to customer, by whoever sees both.

use super::*;
use crate::engine::tests::places::{bulk, stays};

const ONE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 8);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 59);

#[test]
fn the_border_relay_turns_customers_round() {
    let mut one = Rig::ce(DMR, CE_11B, TUTORIAL, &[]);
    let mut br = Rig::br(DMR, &[TUTORIAL]);
    let mut other = Rig::ce(DMR, CE_774, TUTORIAL, &[]);
    let packet = one.translate(&udp([55296, 40960], b"x").over4(ONE, OTHER));
    let packet = br.translate(&packet);
    let ends = (v6("64:ff9b::c000:208"), v6("2001:db8:ce:774:0:c000:23b:14"));
    assert_eq!(ends6(&packet), ends);
    assert_eq!(packet[7], TTL, "the hop is the kernel's");
    let packet = other.translate(&packet);
    assert_eq!(ends4(&packet), (ONE, OTHER));
    assert_eq!(
        packet[20..],
        udp([55296, 40960], b"x").over4(ONE, OTHER)[20..]
    );

    let about = udp([55296, 40960], b"x").over4(ONE, OTHER);
    let error = other.translate(&icmp(3, 3, [0; 4], &about).over4(OTHER, ONE));
    let error = br.translate(&error);
    assert_eq!(ends6(&error).1, v6("2001:db8:ce:11b:0:c000:208:1b"));
    assert_eq!(
        ends6(&error[48..]),
        (ends6(&error).1, v6("64:ff9b::c000:23b"))
    );
    let error = one.translate(&error);
    assert_eq!((ends4(&error), error[20], error[21]), ((OTHER, ONE), 3, 3));
    assert_eq!(ends4(&error[28..]), (ONE, OTHER));
}

#[test]
fn a_customer_that_nobody_can_be_is_dropped() {
    let mut br = Rig::br(DMR, &["2001:db8::/40 192.0.2.0/24 16"]);
    let src = v6("2001:db8:12:3400::c000:212:34");
    let packet = udp([1232, 5], b"").over6(src, v6("64:ff9b::c000:212"));
    br.drop(&packet, Counter::MaptPsid);
}

#[test]
fn a_customer_edge_with_a_prefix_turns_its_own_round() {
    let rule = "2001:db8:4464:1::/64 192.0.2.0/28 1";
    let mut ce = Rig::ce(DMR, "2001:db8:4464:1:8000::/65", rule, &[rule]);
    let (a, b) = (v4("192.0.2.9"), v4("192.0.2.10"));
    let packet = ce.translate(&udp([1, 2], b"x").over4(a, b));
    assert_eq!((ends4(&packet), packet[8]), ((a, b), TTL));
    assert_eq!(packet[20..], udp([1, 2], b"x").over4(a, b)[20..]);
    let about = udp([1, 2], b"x").over4(a, b);
    let error = ce.translate(&icmp(3, 3, [0; 4], &about).over4(b, a));
    assert_eq!((ends4(&error), ends4(&error[28..])), ((b, a), (a, b)));
    // Without the rule they are beyond, like all else.
    let mut ce = Rig::ce(DMR, "2001:db8:4464:1:8000::/65", rule, &[]);
    let packet = ce.translate(&udp([1, 2], b"x").over4(a, b));
    assert_eq!(ends6(&packet).1, v6("64:ff9b::c000:20a"));
}

/// Nothing of it goes over IPv6, where it would have to be in pieces.
#[test]
fn what_turns_round_at_a_customer_edge_stays_whole() {
    let rule = "2001:db8:4464:1::/64 192.0.2.0/28 1";
    let mut ce = Rig::ce(DMR, "2001:db8:4464:1:8000::/65", rule, &[rule]);
    let (a, b) = (v4("192.0.2.9"), v4("192.0.2.10"));
    let load: Vec<u8> = (0..3000).map(|n| n as u8).collect();
    for size in [1240, 1400, 3000] {
        let sent = with_flags4(udp([1, 2], &load[..size]).over4(a, b), 0);
        let packet = ce.translate(&sent);
        assert_eq!(ends4(&packet), (a, b));
        assert_eq!(packet[20..], sent[20..], "{size}");
        assert_eq!(packet[6] & 0x40, 0, "a link behind may be narrow: {size}");
    }
    let sent = udp([1, 2], &load[..1400]).over4(a, b);
    let whole = with_flags4(sent, 0x4000);
    assert_eq!(ce.translate(&whole)[6], 0x40);
}

/// Only what is translated once can have its data left where it is.
#[test]
fn data_stays_in_place_unless_a_packet_turns_round() {
    let whole = |packet| with_flags4(packet, 0x4000);
    let mut ce = Rig::ce(DMR, CE_11B, TUTORIAL, &[]);
    let mut br = Rig::br(DMR, &[TUTORIAL]);
    let stays = |rig: &mut Rig, packet: &[u8]| stays(&mut rig.instance, &Gateway, packet);
    let up = bulk([55296, 80]).over4(ONE, SERVER);
    assert!(stays(&mut ce, &whole(up.clone())));
    assert!(stays(&mut br, &ce.translate(&whole(up))));
    let down = bulk([80, 55296]).over4(SERVER, ONE);
    assert!(stays(&mut br, &whole(down.clone())));
    assert!(stays(&mut ce, &br.translate(&whole(down))));
    let across = ce.translate(&whole(bulk([55296, 40960]).over4(ONE, OTHER)));
    assert!(!stays(&mut br, &across));

    let rule = "2001:db8:4464:1::/64 192.0.2.0/28 1";
    let mut ce = Rig::ce(DMR, "2001:db8:4464:1:8000::/65", rule, &[rule]);
    let own = bulk([1, 2]).over4(v4("192.0.2.9"), v4("192.0.2.10"));
    assert!(!stays(&mut ce, &whole(own)));
}
