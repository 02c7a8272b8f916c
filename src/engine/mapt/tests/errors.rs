// SPDX-License-Identifier: GPL-2.0-or-later
//! ICMP errors: whom they come from, and what they are about.

use super::*;

const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 8);
const ROUTER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 6, 0, 0, 0, 0, 9);

fn own() -> Ipv6Addr {
    v6("2001:db8:ce:11b:0:c000:208:1b")
}

fn server() -> Ipv6Addr {
    v6("64:ff9b::cb00:7138")
}

//= rfc7599#section-9
//= type=test
#[test]
fn errors_about_what_customers_sent() {
    let (mut ce, mut br) = (
        Rig::ce(DMR, CE_11B, TUTORIAL, &[]),
        Rig::br(DMR, &[TUTORIAL]),
    );
    let about = udp([55296, 80], b"question").over4(CLIENT, SERVER);
    let error = br.translate(&icmp(3, 3, [0; 4], &about).over4(ROUTER4, CLIENT));
    assert_eq!(ends6(&error), (v6("64:ff9b::c633:64fe"), own()));
    assert_eq!((error[40], error[41]), (1, 4));
    assert_eq!(ends6(&error[48..]), (own(), server()));
    assert_eq!(error[48 + 7], TTL, "hops are quoted as they are");
    let error = ce.translate(&error);
    assert_eq!(ends4(&error), (ROUTER4, CLIENT));
    assert_eq!((error[20], error[21]), (3, 3));
    assert_eq!(ends4(&error[28..]), (CLIENT, SERVER));
    assert_eq!(error[28 + 8], TTL);
    assert_eq!(error[48..], about[20..]);
}

#[test]
fn errors_about_what_customers_were_sent() {
    let (mut ce, mut br) = (
        Rig::ce(DMR, CE_11B, TUTORIAL, &[]),
        Rig::br(DMR, &[TUTORIAL]),
    );
    let about = udp([80, 55296], b"answer").over4(SERVER, CLIENT);
    let error = ce.translate(&icmp(3, 3, [0; 4], &about).over4(CLIENT, SERVER));
    assert_eq!(ends6(&error), (own(), server()));
    assert_eq!(ends6(&error[48..]), (server(), own()));
    let error = br.translate(&error);
    assert_eq!(
        (ends4(&error), error[20], error[21]),
        ((CLIENT, SERVER), 3, 3)
    );
    assert_eq!(ends4(&error[28..]), (SERVER, CLIENT));
    assert_eq!(error[48..], about[20..]);
    let (ping, answer) = (icmp(8, 0, [0xd8, 0, 0, 1], b""), [0xd8, 0, 0, 1]);
    let about = ping.over4(SERVER, CLIENT);
    let error = ce.translate(&icmp(3, 1, [0; 4], &about).over4(CLIENT, SERVER));
    assert_eq!((error[88], &error[92..96]), (128, &answer[..]));
}

/// Paths of the IPv6 network are told to the IPv4 server, and the other way round.
#[test]
fn sizes_are_told_across_the_domain() {
    let (mut ce, mut br) = (
        Rig::ce(DMR, CE_11B, TUTORIAL, &[]),
        Rig::br(DMR, &[TUTORIAL]),
    );
    let about = udp([80, 55296], b"answer").over6(server(), own());
    let big = icmp(2, 0, [0, 0, 5, 0x78], &about).over6(ROUTER6, server());
    let error = br.translate(&big);
    assert_eq!((error[20], error[21]), (3, 4));
    assert_eq!(error[26..28], 1380_u16.to_be_bytes());
    assert_eq!(ends4(&error[28..]), (SERVER, CLIENT));
    let about = udp([55296, 80], b"question").over6(own(), server());
    let big = icmp(2, 0, [0, 0, 5, 0x78], &about).over6(ROUTER6, own());
    let error = ce.translate(&big);
    assert_eq!(
        (ends4(&error), error[20], error[21]),
        ((OWN4, CLIENT), 3, 4)
    );
}

//= rfc6791#section-5
//= type=test
#[test]
fn routers_that_no_rule_knows_get_an_address() {
    let rule = "2001:db8:4464:1::/64 192.0.2.0/28 1";
    let ce = || Rig::ce(DMR, "2001:db8:4464:1::/65", rule, &[]);
    let about = udp([80, 7], b"").over4(SERVER, v4("192.0.2.2"));
    let error = icmp(3, 1, [0; 4], &about).over4(v4("127.0.0.1"), SERVER);
    assert_eq!(ends6(&ce().translate(&error)).0, OWN6);
    let mut pooled = ce().with(|settings| {
        settings.rfc6791v6_prefix = Some("2001:db8::ffff".parse().unwrap());
    });
    assert_eq!(ends6(&pooled.translate(&error)).0, v6("2001:db8::ffff"));

    let br = || Rig::br(DMR, &[TUTORIAL]);
    let about = udp([80, 55296], b"").over6(server(), own());
    let error = icmp(1, 0, [0; 4], &about).over6(ROUTER6, server());
    assert_eq!(ends4(&br().translate(&error)).0, OWN4);
    let mut pooled = br().with(|settings| {
        settings.rfc6791v4_prefix = Some("192.0.2.255".parse().unwrap());
    });
    assert_eq!(ends4(&pooled.translate(&error)).0, v4("192.0.2.255"));
}

#[test]
fn a_quoted_packet_must_agree_with_its_rule() {
    let (mut ce, mut br) = (
        Rig::ce(DMR, CE_11B, TUTORIAL, &[]),
        Rig::br(DMR, &[TUTORIAL]),
    );
    let about = udp([80, 7], b"").over6(server(), own());
    br.drop(
        &icmp(1, 0, [0; 4], &about).over6(own(), server()),
        Counter::MaptPsid,
    );
    let about = udp([80, 55296], b"").over6(A6, own());
    br.leave(
        &icmp(1, 0, [0; 4], &about).over6(own(), server()),
        Counter::MaptPool6,
    );
    let about = udp([80, 55296], b"").over6(server(), A6);
    br.leave(
        &icmp(1, 0, [0; 4], &about).over6(own(), server()),
        Counter::MaptFmr6,
    );
    let about = udp([7, 80], b"").over6(own(), server());
    ce.drop(
        &icmp(1, 0, [0; 4], &about).over6(ROUTER6, own()),
        Counter::MaptPsid,
    );
    let about = udp([55296, 80], b"").over6(A6, server());
    ce.leave(
        &icmp(1, 0, [0; 4], &about).over6(ROUTER6, own()),
        Counter::MaptEui6p,
    );
    let about = udp([80, 7], b"").over4(SERVER, CLIENT);
    ce.drop(
        &icmp(3, 0, [0; 4], &about).over4(CLIENT, SERVER),
        Counter::MaptPsid,
    );
    let about = udp([80, 7], b"").over4(SERVER, v4("192.168.0.4"));
    ce.leave(
        &icmp(3, 0, [0; 4], &about).over4(CLIENT, SERVER),
        Counter::MaptAddr4,
    );
}

//= rfc7599#section-10.2
//= type=test
#[test]
fn stray_fragments_are_dropped() {
    let (mut ce, mut br) = (
        Rig::ce(DMR, CE_11B, TUTORIAL, &[]),
        Rig::br(DMR, &[TUTORIAL]),
    );
    let later = |packet| with_flags4(packet, 4);
    let packet = later(udp([55296, 80], b"later").over4(CLIENT, SERVER));
    ce.drop(&packet, Counter::Hdr4);
    let packet = later(udp([80, 55296], b"later").over4(SERVER, CLIENT));
    br.drop(&packet, Counter::Hdr4);
    let later = [fragment6(17, 8 << 3, 9), vec![0; 16]].concat();
    ce.drop(&raw6(server(), own(), 44, &later), Counter::Hdr6);
    br.drop(&raw6(own(), server(), 44, &later), Counter::Hdr6);
}
