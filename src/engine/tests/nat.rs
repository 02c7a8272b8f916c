// SPDX-License-Identifier: GPL-2.0-or-later
//! What is asked of every NAT: RFC 4787 for UDP, RFC 5382 for TCP, RFC 5508 for ICMP.

use super::*;
use crate::wire::samples::{Load, with_options4};

/// The answer to a translated packet from a port, or with an identifier.
pub(super) type Answer = fn(u16) -> Load;

/// One packet of a client for each protocol, and its answer.
pub(super) fn flows() -> [(Load, Answer); 3] {
    [
        (tcp([4000, 80], SYN, b""), |to| {
            tcp([80, to], SYN | ACK, b"")
        }),
        (udp([4000, 53], b"?"), |to| udp([53, to], b"!")),
        (icmp(128, 0, [0, 7, 0, 1], b"ping"), |to| {
            let [a, b] = to.to_be_bytes();
            icmp(0, 0, [a, b, 0, 1], b"ping")
        }),
    ]
}

/// The port, or the identifier, that a translated packet comes from.
pub(super) fn mapped(packet: &[u8]) -> u16 {
    port(packet, if packet[9] == 1 { 24 } else { 20 })
}

/// A UDP datagram from IPv4 may lack a checksum; NAT64 makes one up, whatever is configured.
//= rfc6146#section-3.4
//= type=test
#[test]
fn a_missing_checksum_is_made_up() {
    let mut rig = Rig::new();
    assert!(!rig.instance.settings().amend_udp_checksum_zero);
    let out = rig.translate(&udp([4000, 53], b"?").over6(A6, B6));
    let mut answer = udp([53, mapped(&out)], b"an answer").over4(B4, POOL4);
    answer[26..28].fill(0);
    let back = rig.translate(&answer);
    assert_eq!(
        back[40..],
        udp([53, 4000], b"an answer").over6(B6, A6)[40..]
    );
}

/// RFC 4787 REQ-12, RFC 5382 REQ-10, RFC 5508 REQ-6.
#[test]
fn errors_neither_end_nor_prolong_a_flow() {
    for (packet, answer) in flows() {
        let mut rig = Rig::new();
        let sent = rig.translate(&packet.over6(A6, B6));
        let answer = answer(mapped(&sent)).over4(B4, POOL4);
        let got = rig.translate(&answer);
        let deadline = rig.instance.next_deadline();
        rig.now = rig.now.after(1_000);
        for (kind, code) in [(3, 0), (3, 1), (3, 2), (3, 3), (3, 4), (3, 13), (11, 0)] {
            let error = icmp(kind, code, [0, 0, 5, 0], &sent).over4(ROUTER4, POOL4);
            rig.translate(&error);
        }
        for (kind, code) in [(1, 0), (1, 1), (1, 3), (1, 4), (2, 0), (3, 0), (4, 1)] {
            let error = icmp(kind, code, [0, 0, 5, 0], &got).over6(C6, B6);
            rig.translate(&error);
        }
        assert_eq!(rig.instance.next_deadline(), deadline);
        assert_eq!(
            (rig.count(Counter::BibEntries), rig.count(Counter::Sessions)),
            (1, 1)
        );
        assert_eq!(addr6(&rig.translate(&answer), 24), A6);
    }
}

/// RFC 4787 REQ-6, for TCP connections that are open as well.
#[test]
fn packets_of_both_directions_keep_a_flow() {
    for (packet, answer) in flows() {
        let mut rig = Rig::new();
        let packet = packet.over6(A6, B6);
        let answer = answer(mapped(&rig.translate(&packet))).over4(B4, POOL4);
        for packet in [&answer, &packet, &answer] {
            let before = rig.instance.next_deadline();
            rig.now = rig.now.after(1_000);
            rig.translate(packet);
            assert!(rig.instance.next_deadline() > before);
        }
    }
}

/// RFC 5382 REQ-8: each hears the other by its address and port in IPv4.
//= rfc6146#section-3.8
//= type=test
#[test]
fn two_clients_connect_behind_the_gateway() {
    let mut rig = Rig::new();
    let (server, v4) = (Transport6::new(C6, 80), Transport4::new(POOL4, 61500));
    let nat64 = rig.instance.nat64_mut().unwrap();
    nat64.bib_add(Protocol::Tcp, server, v4).unwrap();
    let through = rig.instance.settings().pool6.unwrap().embed(POOL4);
    let syn = rig.translate(&tcp([4000, 61500], SYN, b"").over6(A6, through));
    assert_eq!((addr6(&syn, 8), addr6(&syn, 24)), (through, C6));
    let from = port(&syn, 40);
    assert!((61001..=61999).contains(&from) && port(&syn, 42) == 80);
    for flags in [SYN | ACK, ACK] {
        let answer = rig.translate(&tcp([80, from], flags, b"").over6(C6, through));
        assert_eq!((addr6(&answer, 8), addr6(&answer, 24)), (through, A6));
        assert_eq!((port(&answer, 40), port(&answer, 42)), (61500, 4000));
    }
}

/// RFC 5508 REQ-3: what is quoted counts for its addresses and ports only.
#[test]
fn quoted_packets_may_have_options_and_wrong_checksums() {
    let mut rig = Rig::new();
    let mut sent = rig.translate(&udp([4000, 53], b"?").over6(A6, B6));
    sent[26] ^= 0x55;
    let record_route = [7, 7, 4, 0, 0, 0, 0, 0];
    let error = icmp(3, 3, [0; 4], &with_options4(sent, &record_route)).over4(ROUTER4, POOL4);
    let error = rig.translate(&error);
    assert_eq!((addr6(&error, 56), addr6(&error, 72)), (A6, B6));
    assert_eq!((port(&error, 88), port(&error, 90)), (4000, 53));
}

/// RFC 6146 section 3.4: what does not say whose it is goes nowhere.
//= rfc6146#section-3.4
//= type=test
#[test]
fn errors_that_quote_too_little_or_an_error_are_dropped() {
    let mut rig = Rig::new();
    let sent = rig.translate(&udp([4000, 53], b"?").over6(A6, B6));
    for len in [0, 19, 20, 27] {
        let error = icmp(3, 3, [0; 4], &sent[..len]).over4(ROUTER4, POOL4);
        assert!(matches!(rig.handle(&error), Outcome::Dropped(_)), "{len}");
        assert!(rig.out.is_empty() && rig.out.errors().is_empty());
    }
    let error = icmp(3, 3, [0; 4], &sent).over4(ROUTER4, POOL4);
    let about_error = icmp(3, 3, [0; 4], &error).over4(B4, POOL4);
    let outcome = rig.handle(&about_error);
    assert_eq!(outcome, Outcome::Dropped(Counter::DoubleIcmp4Error));
    assert!(rig.out.errors().is_empty());
}

/// RFC 5508 REQ-4 and REQ-5: without a mapping there is nothing to restore.
#[test]
fn errors_about_flows_that_are_not_there_are_not_translated() {
    let mut rig = Rig::new();
    let asked = udp([61500, 53], b"?").over4(POOL4, B4);
    let outside = icmp(3, 3, [0; 4], &asked).over4(ROUTER4, POOL4);
    let answered = udp([53, 4000], b"!").over6(B6, A6);
    let inside = icmp(1, 4, [0; 4], &answered).over6(A6, B6);
    for error in [outside, inside] {
        let outcome = rig.handle(&error);
        assert_eq!(outcome, Outcome::NotOurs(Counter::SessionNotFound));
        assert!(rig.out.is_empty() && rig.out.errors().is_empty());
    }
    assert_eq!(rig.count(Counter::BibEntries), 0);
}
