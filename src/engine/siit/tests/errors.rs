// SPDX-License-Identifier: GPL-2.0-or-later
//! ICMP errors: whom they come from, and what they are about.

use super::*;

/// A router on the IPv6 side complains about what B sent to A.
fn error6(src: Ipv6Addr) -> Vec<u8> {
    let about = udp([53, 4000], b"answer").over6(B6, A6);
    icmp(1, 0, [0; 4], &about).over6(src, B6)
}

/// A router on the IPv4 side complains about what A sent to B.
fn error4(src: Ipv4Addr) -> Vec<u8> {
    let about = udp([4000, 53], b"question").over4(A4, B4);
    icmp(3, 1, [0; 4], &about).over4(src, A4)
}

#[test]
fn quoted_packets_are_translated_too() {
    let mut rig = Rig::new();
    let error = rig.translate(&error6(C6));
    assert_eq!(ends4(&error), (C4, B4));
    assert_eq!((error[20], error[21]), (3, 1));
    assert_eq!(ends4(&error[28..]), (B4, A4));
    assert_eq!(error[48..], udp([53, 4000], b"answer").over4(B4, A4)[20..]);

    let error = rig.translate(&error4(ROUTER4));
    assert_eq!(ends6(&error), (rig.pool(ROUTER4), A6));
    assert_eq!((error[40], error[41]), (1, 0));
    assert_eq!(ends6(&error[48..]), (A6, B6));
    assert_eq!(
        error[88..],
        udp([4000, 53], b"question").over6(A6, B6)[40..]
    );
}

#[test]
fn a_quoted_packet_must_be_ours() {
    let mut rig = Rig::new();
    for (src, dst, reason) in [
        (B6, ROUTER6, Counter::SixFourSrc),
        (ROUTER6, A6, Counter::SixFourDst),
        (rig.pool(DENIED4), A6, Counter::SixFourDst),
        (rig.pool(OWN4), A6, Counter::SixFourDst),
    ] {
        let about = udp([1, 2], b"").over6(src, dst);
        rig.leave(&icmp(1, 0, [0; 4], &about).over6(A6, B6), reason);
    }
    for (src, dst, reason) in [
        (A4, DENIED4, Counter::FourSixDst),
        (DENIED4, B4, Counter::FourSixSrc),
        (OWN4, B4, Counter::FourSixSrc),
    ] {
        let about = udp([1, 2], b"").over4(src, dst);
        rig.leave(&icmp(3, 1, [0; 4], &about).over4(B4, A4), reason);
    }
}

/// What would be refused at the ends of a flow is good enough for an error.
#[test]
fn the_sender_of_an_error_is_spared_checks() {
    let mut rig = Rig::new();
    for own in [OWN4, DENIED4, Ipv4Addr::new(169, 254, 1, 1)] {
        let error = rig.translate(&error6(rig.pool(own)));
        assert_eq!(ends4(&error), (own, B4));
    }
    let error = rig.translate(&error4(OWN4));
    assert_eq!(ends6(&error), (rig.pool(OWN4), A6));
    rig.leave(&error4(DENIED4), Counter::FourSixSrc);
    rig.leave(&error6(Ipv6Addr::LOCALHOST), Counter::SixFourDst);
    // Destinations are checked as ever.
    let about = udp([1, 2], b"").over6(B6, A6);
    let error = icmp(1, 0, [0; 4], &about).over6(A6, rig.pool(OWN4));
    rig.leave(&error, Counter::SixFourSrc);
    let about = udp([1, 2], b"").over4(A4, B4);
    let error = icmp(3, 1, [0; 4], &about).over4(B4, OWN4);
    rig.leave(&error, Counter::FourSixDst);
}

/// The host complains to A4 and B6 about packets to itself; no source could be found for those.
#[test]
fn what_the_host_says_about_itself_needs_no_source() {
    let mut rig = Rig::new()
        .map(B6, B4)
        .with(|settings| settings.pool6 = None);
    rig.host.source4 = None;
    rig.host.source6 = None;
    rig.from_host = true;
    let about = udp([1, 2], b"").over4(A4, OWN4);
    rig.leave(
        &icmp(3, 3, [0; 4], &about).over4(OWN4, A4),
        Counter::FourSixSrc,
    );
    let about = udp([1, 2], b"").over6(B6, OWN6);
    rig.leave(
        &icmp(1, 4, [0; 4], &about).over6(OWN6, B6),
        Counter::SixFourDst,
    );
}

//= rfc6791#section-5
//= type=test
#[test]
fn a_router_without_an_ipv4_address_borrows_one() {
    let mut rig = Rig::new();
    assert_eq!(ends4(&rig.translate(&error6(ROUTER6))), (OWN4, B4));
    rig.host.source4 = None;
    let told = rig.drop(&error6(ROUTER6), Counter::SixFour6791Enoent);
    assert_eq!(told, None);

    let pool = "198.18.0.0/24".parse().unwrap();
    let mut rig = rig.with(|settings| settings.rfc6791v4_prefix = Some(pool));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let (src, dst) = ends4(&rig.translate(&error6(ROUTER6)));
        assert!(pool.contains(src) && dst == B4);
        seen.insert(src);
    }
    assert!(seen.len() > 50, "{} different addresses", seen.len());

    let mut rig = rig.with(|settings| settings.randomize_rfc6791_addresses = false);
    let (src, _) = ends4(&rig.translate(&error6(ROUTER6)));
    assert_eq!(src, Ipv4Addr::new(198, 18, 0, TTL), "the hops it came by");
    let mut rig = rig.with(|settings| {
        settings.rfc6791v4_prefix = Some("198.18.0.96/28".parse().unwrap());
    });
    let (src, _) = ends4(&rig.translate(&error6(ROUTER6)));
    assert_eq!(src, Ipv4Addr::new(198, 18, 0, 96 | TTL & 15));
    // A pool is for those without an address.
    assert_eq!(ends4(&rig.translate(&error6(C6))), (C4, B4));
}

#[test]
fn a_router_without_an_ipv6_address_borrows_one() {
    let mut rig = Rig::new()
        .map(B6, B4)
        .with(|settings| settings.pool6 = None);
    assert_eq!(ends6(&rig.translate(&error4(ROUTER4))), (OWN6, A6));
    rig.host.source6 = None;
    let told = rig.drop(&error4(ROUTER4), Counter::FourSix6791Enoent);
    assert_eq!(told, None);
    for prefix in ["2001:db8:6791::/64", "2001:db8:6791::1/128", "::/0"] {
        let pool = prefix.parse().unwrap();
        rig = rig.with(|settings| settings.rfc6791v6_prefix = Some(pool));
        let (one, _) = ends6(&rig.translate(&error4(ROUTER4)));
        let (other, _) = ends6(&rig.translate(&error4(ROUTER4)));
        assert!(pool.contains(one) && pool.contains(other), "{prefix}");
        assert_eq!(one == other, pool.prefix_len() == 128);
    }
}

/// Another key, other addresses; the same key, the same ones.
#[test]
fn borrowed_addresses_depend_on_the_key() {
    let borrow = |key| {
        let mut rig = Rig::new();
        let settings = Settings {
            rfc6791v4_prefix: Some("198.18.0.0/15".parse().unwrap()),
            ..rig.instance.settings().clone()
        };
        rig.instance = Instance::new(Flavour::Siit, settings, key);
        let mut rig = rig.map(A6, A4);
        [(); 4].map(|()| ends4(&rig.translate(&error6(ROUTER6))).0)
    };
    assert_eq!(borrow([1; 16]), borrow([1; 16]));
    assert_ne!(borrow([1; 16]), borrow([2; 16]));
}

/// The kernel complains about packets that the instance gave it; nothing else that the host sends
/// is for the instance.
#[test]
fn of_what_the_host_sends_only_errors_are_translated() {
    let mut rig = Rig::new();
    rig.from_host = true;
    // About packets that went by without being translated.
    rig.leave(&error4(OWN4), Counter::FourSixSrc);
    rig.leave(&error6(OWN6), Counter::SixFourDst);
    rig.from_host = false;
    let asked = rig.translate(&udp([4000, 53], b"question").over6(A6, B6));
    assert_eq!(ends4(&asked), (A4, B4));
    let answered = rig.translate(&udp([53, 4000], b"answer").over4(B4, A4));
    assert_eq!(ends6(&answered), (B6, A6));
    rig.from_host = true;
    let error = rig.translate(&error4(OWN4));
    assert_eq!(ends6(&error), (rig.pool(OWN4), A6));
    let error = rig.translate(&error6(OWN6));
    assert_eq!(ends4(&error), (OWN4, B4));
    rig.leave(&udp([1, 2], b"").over4(B4, A4), Counter::FourSixSrc);
    rig.leave(&udp([1, 2], b"").over6(A6, B6), Counter::SixFourDst);
    let ping = icmp(8, 0, [0; 4], b"").over4(B4, A4);
    rig.leave(&ping, Counter::FourSixSrc);
}

#[test]
fn an_error_that_says_nothing_new_is_dropped_only_if_it_is_ours() {
    let mut rig = Rig::new();
    let mut bad = error4(ROUTER4);
    bad[22] ^= 1;
    rig.drop(&bad, Counter::FourSixIcmpCsum);
    let mut bad = error6(C6);
    bad[42] ^= 1;
    rig.drop(&bad, Counter::SixFourIcmpCsum);
    let about = error4(ROUTER4);
    let double = icmp(3, 1, [0; 4], &about).over4(B4, A4);
    rig.drop(&double, Counter::DoubleIcmp4Error);
    let double = icmp(3, 1, [0; 4], &about).over4(B4, OWN4);
    rig.leave(&double, Counter::FourSixDst);
}
