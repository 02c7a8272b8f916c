// SPDX-License-Identifier: GPL-2.0-or-later
//! Packets in, packets out.

use crate::base::Tick;
use crate::base::counters::Counter;
use crate::base::host::Host;
use crate::engine::{Instance, Meta, Outcome};
use crate::model::settings::Settings;
use crate::model::{EamRow, Flavour};
use crate::wire::offload::Offload;
use crate::wire::output::Output;
use crate::wire::samples::*;

use std::net::{Ipv4Addr, Ipv6Addr};

mod errors;
mod fragments;
mod hairpin;
mod properties;

/// On the IPv4 side, with an address that nothing maps but pool6.
const ROUTER4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
/// On the IPv6 side, with an address that nothing maps.
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1);
const OWN4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0xff, 0, 0, 0, 1);
const DENIED4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// The host that the instance runs on; it may have addresses to send from.
#[derive(Clone, Copy)]
struct Gateway {
    source4: Option<Ipv4Addr>,
    source6: Option<Ipv6Addr>,
}

impl Host for Gateway {
    fn has_address4(&self, addr: Ipv4Addr) -> bool {
        addr == OWN4
    }

    fn has_broadcast4(&self, _: Ipv4Addr) -> bool {
        false
    }

    fn source4(&self, _: Ipv4Addr) -> Option<Ipv4Addr> {
        self.source4
    }

    fn source6(&self, _: Ipv6Addr) -> Option<Ipv6Addr> {
        self.source6
    }
}

/// An instance that maps A6 to A4 and C6 to C4 and has a pool6, and what it wrote last.
struct Rig {
    instance: Instance,
    out: Output,
    host: Gateway,
    from_host: bool,
}

impl Rig {
    fn new() -> Self {
        let settings = Settings {
            pool6: Some("64:ff9b::/96".to_owned().try_into().unwrap()),
            ..Settings::default()
        };
        let mut instance = Instance::new(Flavour::Siit, settings, [5; 16]);
        let siit = instance.siit_mut().unwrap();
        siit.denylist4
            .add("10.0.0.0/8".parse().unwrap(), false)
            .unwrap();
        let rig = Self {
            instance,
            out: Output::new(),
            host: Gateway {
                source4: Some(OWN4),
                source6: Some(OWN6),
            },
            from_host: false,
        };
        rig.map(A6, A4).map(C6, C4)
    }

    fn map(mut self, v6: Ipv6Addr, v4: Ipv4Addr) -> Self {
        let row = EamRow {
            v6: v6.to_string().parse().unwrap(),
            v4: v4.to_string().parse().unwrap(),
        };
        let siit = self.instance.siit_mut().unwrap();
        siit.eamt.insert(row, false).unwrap();
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.instance.settings().clone();
        change(&mut settings);
        self.instance.set_settings(settings);
        self
    }

    fn pool(&self, addr: Ipv4Addr) -> Ipv6Addr {
        self.instance.settings().pool6.unwrap().embed(addr)
    }

    fn handle(&mut self, packet: &[u8]) -> Outcome {
        self.out.clear();
        let meta = Meta {
            mark: 0,
            ingress_mtu: u32::MAX,
            reassembled: false,
            from_host: self.from_host,
            may_wait: false,
            offload: Offload::NONE,
            host: &self.host,
        };
        self.instance.handle(Tick(1), &meta, packet, &mut self.out)
    }

    /// Handles a packet that must become exactly one, and a sound one.
    #[track_caller]
    fn translate(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut translated = self.translate_all(packet);
        assert_eq!(translated.len(), 1);
        let translated = translated.remove(0);
        assert_intact(&translated);
        translated
    }

    #[track_caller]
    fn translate_all(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        assert_eq!(self.handle(packet), Outcome::Translated);
        assert!(self.out.errors().is_empty());
        self.out.packets().map(<[u8]>::to_vec).collect()
    }

    /// Handles a packet that must be left alone, for this reason.
    #[track_caller]
    fn leave(&mut self, packet: &[u8], reason: Counter) {
        assert_eq!(self.handle(packet), Outcome::NotOurs(reason));
        assert!(self.out.is_empty() && self.out.errors().is_empty());
    }

    /// Handles a packet that must be dropped, for this reason; the type and code of what its
    /// sender is told.
    #[track_caller]
    fn drop(&mut self, packet: &[u8], reason: Counter) -> Option<(u8, u8)> {
        assert_eq!(self.handle(packet), Outcome::Dropped(reason));
        assert!(self.out.is_empty());
        let error = self.out.errors().first();
        error.map(|error| (error.message[0], error.message[1]))
    }

    fn count(&self, counter: Counter) -> u64 {
        self.instance.counters().get(counter)
    }
}

fn ends4(packet: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
    (addr4(packet, 12), addr4(packet, 16))
}

fn ends6(packet: &[u8]) -> (Ipv6Addr, Ipv6Addr) {
    (addr6(packet, 8), addr6(packet, 24))
}

//= rfc7915#section-6
//= type=test
#[test]
fn both_ends_are_translated_and_nothing_else() {
    let mut rig = Rig::new();
    for load in [
        tcp([4000, 80], 0x10, b"data"),
        udp([4000, 53], b"data"),
        load(132, b"any other transport".to_vec(), None),
    ] {
        let there = rig.handle(&load.clone().over6(A6, B6));
        assert_eq!(there, Outcome::Translated);
        let v4 = rig.out.get(0).unwrap().to_vec();
        assert_eq!(ends4(&v4), (A4, B4));
        assert_eq!(v4[8], TTL, "the kernel takes the hop");
        assert_eq!(v4[20..], load.clone().over4(A4, B4)[20..]);
        assert_eq!(rig.handle(&load.clone().over4(B4, A4)), Outcome::Translated);
        let v6 = rig.out.get(0).unwrap().to_vec();
        assert_eq!(ends6(&v6), (B6, A6));
        assert_eq!(v6[40..], load.over6(B6, A6)[40..]);
    }
    let ping = rig.translate(&icmp(128, 0, [0, 7, 0, 1], b"ping").over6(A6, B6));
    assert_eq!(ping, {
        let mut same = icmp(8, 0, [0, 7, 0, 1], b"ping").over4(A4, B4);
        same[4..6].copy_from_slice(&ping[4..6]);
        same[10..12].copy_from_slice(&ping[10..12]);
        same
    });
    let pong = rig.translate(&icmp(0, 0, [0, 7, 0, 1], b"ping").over4(B4, A4));
    assert_eq!((ends6(&pong), pong[40]), ((B6, A6), 129));
    assert_eq!(rig.count(Counter::Success), 8);
    assert_eq!(rig.count(Counter::Received6), 4);
    assert_eq!(rig.count(Counter::Received4), 4);
}

/// Two networks without a common prefix: everything by the table.
#[test]
fn the_table_does_without_pool6() {
    let mut rig = Rig::new()
        .map(B6, B4)
        .with(|settings| settings.pool6 = None);
    let v4 = rig.translate(&udp([1, 2], b"x").over6(A6, B6));
    assert_eq!(ends4(&v4), (A4, B4));
    let v6 = rig.translate(&udp([2, 1], b"x").over4(B4, A4));
    assert_eq!(ends6(&v6), (B6, A6));
    let stray = udp([1, 2], b"x").over4(ROUTER4, A4);
    rig.leave(&stray, Counter::FourSixSrc);
}

#[test]
fn what_has_no_translation_is_left_to_the_kernel() {
    let mut rig = Rig::new();
    let (loopback6, loopback4) = (Ipv6Addr::LOCALHOST, Ipv4Addr::LOCALHOST);
    let multicast = Ipv4Addr::new(224, 0, 0, 5);
    let pool = |addr| Rig::new().pool(addr);
    for (src, dst, reason) in [
        (A6, ROUTER6, Counter::SixFourSrc),
        (ROUTER6, B6, Counter::SixFourDst),
        (ROUTER6, ROUTER6, Counter::SixFourSrc),
        (loopback6, B6, Counter::SixFourDst),
        (A6, loopback6, Counter::SixFourSrc),
        (A6, pool(DENIED4), Counter::SixFourSrc),
        (pool(DENIED4), B6, Counter::SixFourDst),
        (A6, pool(OWN4), Counter::SixFourSrc),
        (A6, pool(loopback4), Counter::SixFourSrc),
        (pool(multicast), B6, Counter::SixFourDst),
    ] {
        rig.leave(&udp([1, 2], b"").over6(src, dst), reason);
    }
    for (src, dst, reason) in [
        (DENIED4, A4, Counter::FourSixSrc),
        (A4, DENIED4, Counter::FourSixDst),
        (DENIED4, DENIED4, Counter::FourSixDst),
        (OWN4, A4, Counter::FourSixSrc),
        (A4, OWN4, Counter::FourSixDst),
        (loopback4, A4, Counter::FourSixSrc),
        (A4, multicast, Counter::FourSixDst),
        (A4, Ipv4Addr::BROADCAST, Counter::FourSixDst),
    ] {
        rig.leave(&udp([1, 2], b"").over4(src, dst), reason);
    }
    rig.leave(&[], Counter::SkbTruncated);
    rig.leave(&[0x55; 40], Counter::SkbTruncated);
    let mut rig = Rig::new().with(|settings| settings.manually_enabled = false);
    let packet = udp([1, 2], b"").over6(A6, B6);
    rig.leave(&packet, Counter::XlatorDisabled);
    assert_eq!(rig.count(Counter::Received6), 1);
}

/// An address that is mapped and denied is translated: the list is about pool6.
#[test]
fn the_denylist_is_about_pool6_only() {
    let mut rig = Rig::new().map(ROUTER6, DENIED4);
    let v4 = rig.translate(&udp([1, 2], b"").over6(ROUTER6, B6));
    assert_eq!(ends4(&v4), (DENIED4, B4));
    let v6 = rig.translate(&udp([1, 2], b"").over4(B4, DENIED4));
    assert_eq!(ends6(&v6), (B6, ROUTER6));
}

#[test]
fn what_must_not_go_through_is_dropped_only_if_it_is_ours() {
    let mut rig = Rig::new();
    let routed = |src, dst| {
        with_options4(
            udp([1, 2], b"").over4(src, dst),
            &[131, 7, 4, 198, 51, 100, 1, 0],
        )
    };
    let told = rig.drop(&routed(B4, A4), Counter::FourSixSrcRoute);
    assert_eq!(told, Some((3, 5)));
    rig.leave(&routed(B4, OWN4), Counter::FourSixDst);
    rig.leave(&routed(OWN4, A4), Counter::FourSixSrc);

    let routing = [17, 0, 0, 1, 0, 0, 0, 0];
    let left = udp([1, 2], b"").over6_behind(43, &routing);
    let told = rig.drop(&left, Counter::SixFourSegmentsLeft);
    assert_eq!(told, Some((4, 0)));
    assert_eq!(rig.out.errors()[0].message[4..8], [0, 0, 0, 43]);
    let with = |src: Ipv6Addr, dst: Ipv6Addr| {
        let mut packet = left.clone();
        packet[8..24].copy_from_slice(&src.octets());
        packet[24..40].copy_from_slice(&dst.octets());
        packet
    };
    rig.leave(&with(A6, ROUTER6), Counter::SixFourSrc);
    rig.leave(&with(ROUTER6, B6), Counter::SixFourDst);

    let cut = |mut packet: Vec<u8>| {
        packet.pop();
        packet
    };
    rig.drop(&cut(udp([1, 2], b"").over6(A6, B6)), Counter::Hdr6);
    let other = cut(udp([1, 2], b"").over6(A6, ROUTER6));
    rig.leave(&other, Counter::SixFourSrc);
    rig.drop(&cut(udp([1, 2], b"").over4(B4, A4)), Counter::Hdr4);
    rig.leave(&cut(udp([1, 2], b"").over4(B4, OWN4)), Counter::FourSixDst);
    rig.drop(&[0x60; 39], Counter::SkbTruncated);
    rig.drop(&[0x45; 19], Counter::SkbTruncated);
}

/// Hosts in the table talk to others without translation, too, through the same gateway.
#[test]
fn what_cannot_be_read_is_dropped_only_if_it_is_ours() {
    let mut rig = Rig::new();
    // The middle of a packet from A to a host that nothing maps ran out of hops.
    let later = [&fragment6(17, 1280, 7)[..], b"the middle of a datagram"].concat();
    let error = |src, to| {
        let about = raw6(A6, to, 44, &later);
        icmp(3, 0, [0; 4], &about).over6(src, A6)
    };
    rig.leave(&error(ROUTER6, ROUTER6), Counter::SixFourDst);
    rig.drop(&error(B6, B6), Counter::Hdr6);
    let short = raw6(ROUTER6, A6, 6, &[0; 19]);
    rig.leave(&short, Counter::SixFourDst);
    rig.drop(&raw6(B6, A6, 6, &[0; 19]), Counter::SkbTruncated);
    rig.drop(&raw6(ROUTER6, B6, 6, &[0; 19]), Counter::SkbTruncated);
    rig.from_host = true;
    rig.leave(&error(OWN6, ROUTER6), Counter::SixFourDst);
}

#[test]
fn the_last_hop_is_told_to_the_sender() {
    let mut rig = Rig::new();
    let mut packet = udp([1, 2], b"").over6(A6, B6);
    packet[7] = 1;
    assert_eq!(rig.drop(&packet, Counter::SixFourTtl), Some((3, 0)));
    let mut packet = udp([1, 2], b"").over4(B4, A4);
    packet[8] = 1;
    assert_eq!(rig.drop(&packet, Counter::FourSixTtl), Some((11, 0)));
}

//= rfc7915#section-4.5
//= type=test
#[test]
fn a_missing_checksum_is_made_up_only_on_request() {
    let mut packet = udp([1, 2], b"data").over4(B4, A4);
    packet[26..28].fill(0);
    let mut rig = Rig::new();
    let told = rig.drop(&packet, Counter::FourSixFragmentedZeroCsum);
    assert_eq!(told, Some((3, 13)));
    let mut rig = rig.with(|settings| settings.amend_udp_checksum_zero = true);
    rig.translate(&packet);
}

#[test]
fn other_icmp_messages_stay_on_their_side() {
    let mut rig = Rig::new();
    for kind in [130, 131, 132, 133, 134, 135, 136, 137, 143] {
        let packet = icmp(kind, 0, [0; 4], b"").over6(A6, B6);
        rig.leave(&packet, Counter::UnknownIcmp6Type);
    }
    for kind in [138, 139, 200, 5, 100] {
        let packet = |src| icmp(kind, 0, [0; 4], b"").over6(src, B6);
        rig.drop(&packet(A6), Counter::UnknownIcmp6Type);
        rig.leave(&packet(ROUTER6), Counter::SixFourDst);
    }
    for kind in [9, 13, 17] {
        let packet = |src| icmp(kind, 0, [0; 4], b"").over4(src, A4);
        rig.drop(&packet(B4), Counter::UnknownIcmp4Type);
        rig.leave(&packet(OWN4), Counter::FourSixSrc);
    }
    // Source quench and redirect are errors, but have no counterpart.
    let about = udp([1, 2], b"").over4(A4, B4);
    for kind in [4, 5] {
        let error = icmp(kind, 0, [0; 4], &about).over4(B4, A4);
        rig.drop(&error, Counter::UnknownIcmp4Type);
    }
}

#[test]
fn settings_are_obeyed() {
    let mut rig = Rig::new().with(|settings| {
        settings.zeroize_traffic_class = true;
        settings.override_tos = true;
        settings.tos = 0x28;
        settings.lowest_ipv6_mtu = 1400;
    });
    let v4 = rig.translate(&udp([1, 2], b"").over6(A6, B6));
    assert_eq!(v4[1], 0x28);
    let v6 = rig.translate(&udp([1, 2], b"").over4(B4, A4));
    assert_eq!((v6[0] << 4 | v6[1] >> 4), 0);
    let parts = rig.translate_all(&udp([1, 2], &[0; 1400]).over4(B4, A4));
    assert_eq!(parts[0].len(), 1400);
}

#[test]
fn a_stateless_instance_has_no_state() {
    let mut rig = Rig::new();
    let packet = udp([1, 2], b"").over6(A6, B6);
    rig.translate(&packet);
    assert_eq!(rig.instance.flavour(), Flavour::Siit);
    assert!(rig.instance.nat64().is_none() && rig.instance.nat64_mut().is_none());
    assert!(
        !rig.instance.concerns(&crate::base::host::Nameless, &packet),
        "what comes by a route is not for it"
    );
    assert!(!rig.instance.expire(Tick(u64::MAX), 10, &mut rig.out));
    assert_eq!(rig.instance.next_deadline(), None);
    let mut changes = Vec::new();
    rig.instance.drain_changes(&mut changes);
    assert!(changes.is_empty());
}
