// SPDX-License-Identifier: GPL-2.0-or-later
//! Two IPv6 hosts, both in the EAM table, that know each other by IPv4 addresses only.

use super::*;
use crate::engine::tests::places::{bulk, stays};
use crate::model::HairpinMode;

impl Rig {
    fn hairpin(self, mode: HairpinMode) -> Self {
        self.with(|settings| settings.eam_hairpin_mode = mode)
    }
}

/// The hosts of RFC 7757 section 4.
//= rfc7757#section-4.2.2
//= type=test
#[test]
fn the_example_of_rfc_7757() {
    let (one, other) = (
        "2001:db8:aaaa::".parse().unwrap(),
        "2001:db8:bbbb::b".parse().unwrap(),
    );
    let (one4, other4) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
    let mut rig = Rig::new().map(one, one4).map(other, other4);
    let asked = rig.translate(&udp([4000, 53], b"?").over6(one, rig.pool(other4)));
    assert_eq!(ends6(&asked), (rig.pool(one4), other));
    let answer = rig.translate(&udp([53, 4000], b"!").over6(other, rig.pool(one4)));
    assert_eq!(ends6(&answer), (rig.pool(other4), one));
    assert_eq!(answer[7], TTL, "the kernel takes one hop");
    assert_eq!(rig.count(Counter::Success), 2, "counted once each");
    assert_eq!(rig.count(Counter::Received4), 0);
}

#[test]
fn intrinsic_errors_quote_what_their_receiver_sent() {
    let mut rig = Rig::new();
    let sent = tcp([4000, 80], 2, b"").over6(A6, rig.pool(C4));
    let got = rig.translate(&sent);
    assert_eq!(ends6(&got), (rig.pool(A4), C6));
    // The other end: it is called what it is called in the quoted packet.
    let error = rig.translate(&icmp(1, 4, [0; 4], &got).over6(C6, rig.pool(A4)));
    assert_eq!(ends6(&error), (rig.pool(C4), A6));
    assert_eq!((error[40], error[41]), (1, 4));
    assert_eq!(ends6(&error[48..]), (A6, rig.pool(C4)));
    assert_eq!(error[88..108], sent[40..60]);
    // A router in between that is in the table, and one that is not.
    let router = icmp(3, 0, [0; 4], &got);
    let mapped4 = Ipv4Addr::new(198, 51, 100, 200);
    let mut rig = rig.map(ROUTER6, mapped4);
    let error = rig.translate(&router.clone().over6(ROUTER6, rig.pool(A4)));
    assert_eq!(ends6(&error), (ROUTER6, A6));
    assert_eq!(ends6(&error[48..]), (A6, rig.pool(C4)));
    let error = rig.translate(&router.clone().over6(OWN6, rig.pool(A4)));
    assert_eq!(ends6(&error), (rig.pool(OWN4), A6));
    rig.host.source4 = None;
    let lost = router.over6(OWN6, rig.pool(A4));
    assert_eq!(rig.drop(&lost, Counter::SixFour6791Enoent), None);
}

/// What an error quotes says whether it is a hairpin, as long as its own destination has a way back:
/// otherwise it would leave for pool6, and come back with every round that it is sent.
#[test]
fn intrinsic_errors_go_by_what_they_quote() {
    let mut rig = Rig::new();
    let about = udp([1, 2], b"").over6(B6, C6);
    let error = icmp(1, 0, [0; 4], &about).over6(C6, rig.pool(A4));
    assert_eq!(ends4(&rig.translate(&error)), (C4, A4));
    let about = udp([1, 2], b"").over6(rig.pool(A4), C6);
    let error = rig.translate(&icmp(1, 0, [0; 4], &about).over6(C6, B6));
    assert_eq!(ends4(&error), (C4, B4));
    assert_eq!(ends4(&error[28..]), (A4, C4));
}

#[test]
fn what_fails_on_the_way_back_is_dropped_in_silence() {
    let mut rig = Rig::new();
    let mut packet = udp([1, 2], b"data").over6(A6, rig.pool(C4));
    packet[46..48].fill(0);
    let told = rig.drop(&packet, Counter::FourSixFragmentedZeroCsum);
    assert_eq!(told, None);
    // Its source has an IPv4 form, but no way back from that.
    let own = rig.pool(DENIED4);
    let error = {
        let about = udp([1, 2], b"").over6(rig.pool(A4), C6);
        icmp(1, 0, [0; 4], &about).over6(own, rig.pool(A4))
    };
    assert_eq!(rig.drop(&error, Counter::FourSixSrc), None);
}

#[test]
fn destinations_by_the_table_are_no_hairpins() {
    let mut rig = Rig::new();
    let v4 = rig.translate(&udp([1, 2], b"").over6(A6, C6));
    assert_eq!(ends4(&v4), (A4, C4));
    let v4 = rig.translate(&udp([1, 2], b"").over6(A6, B6));
    assert_eq!(ends4(&v4), (A4, B4));
    // Intrinsic hairpins never meet IPv4, so that sources from there are what the table says.
    let v6 = rig.translate(&udp([1, 2], b"").over4(A4, C4));
    assert_eq!(ends6(&v6), (A6, C6));
}

//= rfc7757#section-4.2.1
//= type=test
#[test]
fn simple_hairpins_go_through_ipv4() {
    let mut rig = Rig::new().hairpin(HairpinMode::Simple);
    let v4 = rig.translate(&udp([4000, 53], b"?").over6(A6, rig.pool(C4)));
    assert_eq!(ends4(&v4), (A4, C4));
    let got = rig.translate(&v4);
    assert_eq!(ends6(&got), (rig.pool(A4), C6));
    let v4 = rig.translate(&udp([53, 4000], b"!").over6(C6, rig.pool(A4)));
    let answer = rig.translate(&v4);
    assert_eq!(ends6(&answer), (rig.pool(C4), A6));

    let v4 = rig.translate(&icmp(1, 4, [0; 4], &got).over6(C6, rig.pool(A4)));
    assert_eq!((ends4(&v4), ends4(&v4[28..])), ((C4, A4), (A4, C4)));
    let error = rig.translate(&v4);
    assert_eq!(ends6(&error), (rig.pool(C4), A6));
    assert_eq!(ends6(&error[48..]), (A6, rig.pool(C4)));
    // A router in between is not an end: it keeps its name.
    let about = udp([1, 2], b"").over4(A4, C4);
    let router4 = Ipv4Addr::new(198, 51, 100, 200);
    let mut rig = rig.map(ROUTER6, router4);
    let error = rig.translate(&icmp(11, 0, [0; 4], &about).over4(router4, A4));
    assert_eq!(ends6(&error), (ROUTER6, A6));
    assert_eq!(ends6(&error[48..]), (A6, rig.pool(C4)));
    // Without a pool6, sources have no other name than the table's.
    let mut rig = rig.with(|settings| settings.pool6 = None);
    let stray = udp([1, 2], b"").over4(A4, C4);
    rig.leave(&stray, Counter::FourSixSrc);
}

#[test]
fn without_hairpins_the_table_always_wins() {
    let mut rig = Rig::new().hairpin(HairpinMode::Off);
    let v4 = rig.translate(&udp([4000, 53], b"?").over6(A6, rig.pool(C4)));
    assert_eq!(ends4(&v4), (A4, C4));
    let v6 = rig.translate(&v4);
    assert_eq!(ends6(&v6), (A6, C6));
    let about = udp([1, 2], b"").over4(A4, C4);
    let error = rig.translate(&icmp(3, 1, [0; 4], &about).over4(C4, A4));
    assert_eq!(ends6(&error), (C6, A6));
    assert_eq!(ends6(&error[48..]), (A6, C6));
    let about = udp([1, 2], b"").over6(rig.pool(A4), C6);
    let error = rig.translate(&icmp(1, 0, [0; 4], &about).over6(C6, rig.pool(A4)));
    assert_eq!((ends4(&error), ends4(&error[28..])), ((C4, A4), (A4, C4)));
}

/// Only what is translated once can have its data left where it is.
#[test]
fn data_stays_in_place_unless_a_packet_turns_round() {
    for (mode, stay) in [
        (HairpinMode::Off, true),
        (HairpinMode::Simple, true),
        (HairpinMode::Intrinsic, false),
    ] {
        let mut rig = Rig::new().hairpin(mode);
        let mut stays = |packet: &[u8]| stays(&mut rig.instance, &rig.host, packet);
        let pool = |addr| Rig::new().pool(addr);
        assert!(stays(&bulk([1, 2]).over6(A6, pool(B4))));
        let from4 = bulk([2, 1]).over4(B4, A4);
        assert!(stays(&with_flags4(from4, 0x4000)));
        assert_eq!(stays(&bulk([1, 2]).over6(A6, pool(C4))), stay, "{mode:?}");
    }
}
