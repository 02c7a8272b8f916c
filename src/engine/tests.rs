// SPDX-License-Identifier: GPL-2.0-or-later
//! Packets in, packets out.

use super::*;
use crate::base::host::Nameless;
use crate::base::prefix::Prefix4;
use crate::base::{Transport4, Transport6};
use crate::model::{Pool4Entry, PortRange};
use crate::nat64::pool4::Pool4;
use crate::wire::samples::{A6, B4, B6, C6, addr4, addr6, assert_intact, icmp, raw6, tcp, udp};

mod asks;
mod nat;
pub(super) mod places;
mod segments;

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const POOL4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ROUTER4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
const META: Meta<'_> = Meta {
    mark: 0,
    ingress_mtu: u32::MAX,
    reassembled: false,
    from_host: false,
    may_wait: false,
    offload: Offload::NONE,
    host: &Nameless,
};

/// An instance and what it wrote last.
struct Rig {
    instance: Instance,
    out: Output,
    now: Tick,
}

impl Rig {
    fn new() -> Self {
        let settings = Settings {
            pool6: Some("64:ff9b::/96".to_owned().try_into().unwrap()),
            ..Settings::default()
        };
        let mut instance = Instance::new(Flavour::Nat64, settings, [3; 16]);
        let mut pool4 = Pool4::default();
        for protocol in Protocol::ALL {
            pool4.add(&Pool4Entry {
                mark: 0,
                protocol,
                prefix: Prefix4::new(POOL4, 32).unwrap(),
                ports: PortRange {
                    min: 61001,
                    max: 61999,
                },
                max_iterations: None,
            });
        }
        instance.nat64_mut().unwrap().set_pool4(pool4, &[]);
        Self {
            instance,
            out: Output::new(),
            now: Tick(1_000),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.instance.settings().clone();
        change(&mut settings);
        self.instance.set_settings(settings);
        self
    }

    fn handle(&mut self, packet: &[u8]) -> Outcome {
        self.out.clear();
        self.instance.handle(self.now, &META, packet, &mut self.out)
    }

    /// Handles a packet that must become exactly one.
    fn translate(&mut self, packet: &[u8]) -> Vec<u8> {
        assert_eq!(self.handle(packet), Outcome::Translated);
        assert_eq!(self.out.len(), 1);
        let translated = self.out.get(0).unwrap().to_vec();
        assert_intact(&translated);
        translated
    }

    fn count(&self, counter: Counter) -> u64 {
        self.instance.counters().get(counter)
    }
}

fn port(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

//= rfc6146#section-3
//= type=test
#[test]
fn a_flow_goes_out_and_its_answer_comes_back() {
    let mut rig = Rig::new();
    let mapped = {
        let out = rig.translate(&tcp([4000, 80], SYN, b"").over6(A6, B6));
        assert_eq!((addr4(&out, 12), addr4(&out, 16)), (POOL4, B4));
        assert_eq!(port(&out, 22), 80);
        port(&out, 20)
    };
    assert!((61001..=61999).contains(&mapped));
    let back = rig.translate(&tcp([80, mapped], SYN | ACK, b"").over4(B4, POOL4));
    assert_eq!((addr6(&back, 8), addr6(&back, 24)), (B6, A6));
    assert_eq!((port(&back, 40), port(&back, 42)), (80, 4000));

    let out = rig.translate(&udp([4000, 53], b"?").over6(A6, B6));
    let mapped = port(&out, 20);
    let back = rig.translate(&udp([53, mapped], b"!").over4(B4, POOL4));
    assert_eq!((addr6(&back, 24), port(&back, 42)), (A6, 4000));

    let out = rig.translate(&icmp(128, 0, [0, 7, 0, 1], b"ping").over6(A6, B6));
    assert_eq!(out[20], 8);
    let mapped = out[24..26].to_vec();
    let back = icmp(0, 0, [mapped[0], mapped[1], 0, 1], b"ping").over4(B4, POOL4);
    let back = rig.translate(&back);
    assert_eq!((back[40], port(&back, 44)), (129, 7));

    assert_eq!(rig.count(Counter::Success), 6);
    assert_eq!(rig.count(Counter::Sessions), 3);
    assert_eq!(rig.count(Counter::BibEntries), 3);
}

#[test]
fn what_is_not_ours_is_left_to_the_kernel() {
    let mut rig = Rig::new();
    let stray = "192.0.2.9".parse().unwrap();
    for (packet, reason) in [
        (udp([1, 2], b"").over6(A6, C6), Counter::Pool6Mismatch),
        (udp([1, 2], b"").over4(B4, stray), Counter::Pool4Mismatch),
        (udp([1, 2], b"").over4(B4, POOL4), Counter::Pool4Mismatch),
        (
            tcp([1, 22], SYN, b"").over4(B4, POOL4),
            Counter::Pool4Mismatch,
        ),
        (udp([1, 61001], b"").over4(B4, POOL4), Counter::Bib4NotFound),
        (
            icmp(8, 0, [0xee, 0x49, 0, 0], b"").over4(B4, POOL4),
            Counter::Bib4NotFound,
        ),
        (
            icmp(13, 0, [0; 4], b"").over4(B4, POOL4),
            Counter::UnknownIcmp4Type,
        ),
        (
            icmp(133, 0, [0; 4], b"").over6(A6, B6),
            Counter::UnknownIcmp6Type,
        ),
        (raw6(A6, B6, 132, &[0; 12]), Counter::UnknownL4Proto),
        (vec![], Counter::SkbTruncated),
        (vec![0x55; 40], Counter::SkbTruncated),
    ] {
        assert_eq!(rig.handle(&packet), Outcome::NotOurs(reason));
        assert!(rig.out.is_empty() && rig.out.errors().is_empty());
    }
    let mut rig = rig.with(|s| s.manually_enabled = false);
    let packet = udp([1, 2], b"").over6(A6, B6);
    assert_eq!(
        rig.handle(&packet),
        Outcome::NotOurs(Counter::XlatorDisabled)
    );
    assert_eq!(rig.count(Counter::Sessions), 0);
}

//= rfc6146#section-3.5
//= type=test
#[test]
fn what_must_not_go_through_is_dropped() {
    let mut rig = Rig::new();
    for (packet, reason) in [
        (udp([1, 2], b"").over6(B6, B6), Counter::HairpinLoop),
        (tcp([1, 2], ACK, b"").over6(A6, B6), Counter::Syn6Expected),
        (
            tcp([1, 61001], RST, b"").over4(B4, POOL4),
            Counter::Syn4Expected,
        ),
        (udp([1, 2], b"").over6(A6, B6)[..44].to_vec(), Counter::Hdr6),
    ] {
        assert_eq!(rig.handle(&packet), Outcome::Dropped(reason));
        assert!(rig.out.is_empty() && rig.out.errors().is_empty());
    }
    let mut rig = rig.with(|s| s.drop_icmpv6_info = true);
    let ping = icmp(128, 0, [0; 4], b"").over6(A6, B6);
    assert_eq!(rig.handle(&ping), Outcome::Dropped(Counter::Icmp6Filter));
}

#[test]
fn the_last_hop_is_told_to_the_sender() {
    let mut rig = Rig::new();
    let mut packet = udp([1, 2], b"").over6(A6, B6);
    packet[7] = 1;
    assert_eq!(rig.handle(&packet), Outcome::Dropped(Counter::SixFourTtl));
    let error = &rig.out.errors()[0];
    assert_eq!((error.to, error.message[0]), (A6.into(), 3));
    assert_eq!(&error.message[8..], packet);
}

//= rfc6146#section-3.6.1
//= type=test
#[test]
fn errors_find_the_client_and_the_server() {
    let mut rig = Rig::new();
    let sent = rig.translate(&udp([4000, 53], b"question").over6(A6, B6));
    let mapped = port(&sent, 20);
    // A router on the IPv4 side: port unreachable about what the client sent.
    let error = icmp(3, 3, [0; 4], &sent).over4(ROUTER4, POOL4);
    let error = rig.translate(&error);
    let router6 = rig.instance.settings().pool6.unwrap().embed(ROUTER4);
    assert_eq!((addr6(&error, 8), addr6(&error, 24)), (router6, A6));
    assert_eq!((error[40], error[41]), (1, 4));
    assert_eq!((addr6(&error, 56), addr6(&error, 72)), (A6, B6));
    assert_eq!((port(&error, 88), port(&error, 90)), (4000, 53));

    let mut plain = Rig::new().with(|s| s.source_icmpv6_errors_better = false);
    let sent = plain.translate(&udp([4000, 53], b"question").over6(A6, B6));
    let error = plain.translate(&icmp(3, 3, [0; 4], &sent).over4(ROUTER4, POOL4));
    assert_eq!(addr6(&error, 8), B6);

    // A router on the IPv6 side: too big about what the server sent.
    let answer = rig.translate(&udp([53, mapped], b"answer").over4(B4, POOL4));
    let error = icmp(2, 0, 1400u32.to_be_bytes(), &answer).over6(C6, B6);
    let error = rig.translate(&error);
    assert_eq!((addr4(&error, 12), addr4(&error, 16)), (POOL4, B4));
    assert_eq!((error[20], error[21], port(&error, 26)), (3, 4, 1380));
    assert_eq!((addr4(&error, 40), addr4(&error, 44)), (B4, POOL4));
    assert_eq!((port(&error, 48), port(&error, 50)), (53, mapped));

    // About a flow that does not exist.
    let unknown = udp([61500, 53], b"").over4(POOL4, B4);
    let error = icmp(3, 3, [0; 4], &unknown).over4(ROUTER4, POOL4);
    assert_eq!(
        rig.handle(&error),
        Outcome::NotOurs(Counter::SessionNotFound)
    );
}

//= rfc6146#section-3.8
//= type=test
#[test]
fn two_clients_meet_behind_the_gateway() {
    let mut rig = Rig::new();
    let server = Transport6::new(C6, 53);
    let v4 = Transport4::new(POOL4, 61500);
    rig.instance
        .nat64_mut()
        .unwrap()
        .bib_add(Protocol::Udp, server, v4)
        .unwrap();
    let pool6 = rig.instance.settings().pool6.unwrap();
    let through = pool6.embed(POOL4);
    let asked = rig.translate(&udp([4000, 61500], b"?").over6(A6, through));
    assert_eq!((addr6(&asked, 8), addr6(&asked, 24)), (through, C6));
    let (mapped, to) = (port(&asked, 40), port(&asked, 42));
    assert_eq!(to, 53);
    let answer = rig.translate(&udp([53, mapped], b"!").over6(C6, through));
    assert_eq!((addr6(&answer, 8), addr6(&answer, 24)), (through, A6));
    assert_eq!((port(&answer, 40), port(&answer, 42)), (61500, 4000));
    assert_eq!(rig.count(Counter::Success), 2, "counted once each");
    // An error about a hairpinned packet goes the same way.
    let error = icmp(1, 4, [0; 4], &asked).over6(C6, through);
    let error = rig.translate(&error);
    assert_eq!((addr6(&error, 24), error[40], error[41]), (A6, 1, 4));
    assert_eq!((addr6(&error, 56), port(&error, 88)), (A6, 4000));
    // Nobody there: the sender learns nothing, and the kernel is not bothered either.
    let nobody = udp([4000, 61501], b"?").over6(A6, through);
    assert_eq!(rig.handle(&nobody), Outcome::Dropped(Counter::Bib4NotFound));
    assert!(rig.out.is_empty());
}

//= rfc6146#section-3.5.2.2
//= type=test
#[test]
fn a_silent_connection_is_asked_for_a_sign_of_life() {
    let mut rig = Rig::new();
    let out = rig.translate(&tcp([4000, 80], SYN, b"").over6(A6, B6));
    rig.translate(&tcp([80, port(&out, 20)], SYN | ACK, b"").over4(B4, POOL4));
    rig.out.clear();
    let late = rig.now.after(rig.instance.settings().tcp_est_timeout);
    assert!(!rig.instance.expire(late, 10, &mut rig.out));
    let probe = rig.out.get(0).unwrap();
    assert_intact(probe);
    assert_eq!((addr6(probe, 8), addr6(probe, 24)), (B6, A6));
    assert_eq!((port(probe, 40), port(probe, 42)), (80, 4000));
    assert_eq!((probe[7], probe[53]), (255, ACK));
    assert_eq!(
        probe[44..52],
        [0; 8],
        "sequence and acknowledgement numbers"
    );
}

#[test]
fn expiry_takes_portions() {
    let mut rig = Rig::new();
    for source in 0..10 {
        rig.translate(&udp([4000 + source, 53], b"").over6(A6, B6));
    }
    let late = rig.now.after(rig.instance.settings().udp_timeout);
    assert!(rig.instance.expire(late, 4, &mut rig.out));
    assert_eq!(rig.count(Counter::Sessions), 6);
    assert!(!rig.instance.expire(late, 100, &mut rig.out));
    assert_eq!(rig.count(Counter::BibEntries), 0);
}

#[test]
fn a_packet_without_a_queue_finds_its_instance() {
    let rig = Rig::new();
    assert!(
        rig.instance
            .concerns(&Nameless, &udp([1, 2], b"").over6(A6, B6))
    );
    assert!(
        !rig.instance
            .concerns(&Nameless, &udp([1, 2], b"").over6(A6, C6))
    );
    assert!(
        rig.instance
            .concerns(&Nameless, &udp([1, 2], b"").over4(B4, POOL4))
    );
    assert!(
        !rig.instance
            .concerns(&Nameless, &udp([1, 2], b"").over4(POOL4, B4))
    );
    assert!(!rig.instance.concerns(&Nameless, &[0x60]) && !rig.instance.concerns(&Nameless, &[]));
}

/// Two workers share an instance; the one that waited for it brings an older time.
#[test]
fn time_does_not_go_back() {
    let mut rig = Rig::new();
    for (source, now) in [(1, 1_000), (2, 990), (3, 1_000)] {
        rig.now = Tick(now);
        rig.translate(&udp([source, 53], b"").over6(A6, B6));
    }
    let mut changes = Vec::new();
    rig.instance.drain_changes(&mut changes);
    let deadlines = changes.iter().filter_map(|change| match change {
        Change::Session { session, .. } => Some(session.deadline),
        Change::Mapping(_)
        | Change::MappingFixed(_)
        | Change::MappingGone { .. }
        | Change::SessionGone { .. } => None,
    });
    let expected = Tick(1_000).after(rig.instance.settings().udp_timeout);
    assert_eq!(deadlines.collect::<Vec<_>>(), [expected; 3]);
}

#[test]
fn a_source_route_to_the_host_itself_is_its_own_business() {
    let mut rig = Rig::new();
    let routed = |port| {
        let mut packet = udp([53, port], b"").over4(B4, POOL4);
        packet.splice(20..20, [131, 7, 4, 198, 51, 100, 1, 0]);
        packet[0] = 0x47;
        packet[3] += 8;
        packet
    };
    let own = rig.handle(&routed(123));
    assert_eq!(own, Outcome::NotOurs(Counter::Pool4Mismatch));
    assert!(rig.out.errors().is_empty());
    let ours = rig.handle(&routed(61001));
    assert_eq!(ours, Outcome::Dropped(Counter::FourSixSrcRoute));
    assert_eq!(rig.out.errors().len(), 1);
}

//= rfc4291#section-2.5.6
//= type=test
//= rfc1122#section-3.2.1.3
//= type=test
/// The kernel would drop these, but it sees them only after us, in the other family.
#[test]
fn addresses_that_are_no_single_host_are_not_translated() {
    let mut rig = Rig::new();
    for source in ["::", "::1", "fe80::1", "ff02::1"] {
        let packet = udp([1, 2], b"").over6(source.parse().unwrap(), B6);
        let outcome = rig.handle(&packet);
        assert_eq!(outcome, Outcome::NotOurs(Counter::SixFourDst), "{source}");
    }
    let pool6 = rig.instance.settings().pool6.unwrap();
    for host in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
        let host = host.parse().unwrap();
        let packet = udp([1, 2], b"").over6(A6, pool6.embed(host));
        let outcome = rig.handle(&packet);
        assert_eq!(outcome, Outcome::Dropped(Counter::UntranslatableDst6));
        let packet = udp([1, 61001], b"").over4(host, POOL4);
        let outcome = rig.handle(&packet);
        assert_eq!(outcome, Outcome::NotOurs(Counter::FourSixSrc), "{host}");
    }
    assert_eq!(rig.count(Counter::Sessions), 0);
}

/// One million packets, from noise to nearly right, into an instance with live sessions: each
/// ends translated, dropped or left alone, and whatever comes out is sound.
#[test]
fn a_million_random_packets() {
    let mut rig = Rig::new();
    let mapped = port(&rig.translate(&udp([4000, 53], b"?").over6(A6, B6)), 20);
    let sent = udp([mapped, 53], b"?").over4(POOL4, B4);
    let got = udp([53, 4000], b"!").over6(B6, A6);
    let seeds = [
        udp([4000, 53], b"some data here").over6(A6, B6),
        tcp([4000, 80], SYN, b"more data").over6(A6, B6),
        icmp(128, 0, [0, 7, 0, 1], b"ping").over6(A6, B6),
        icmp(2, 0, [0, 0, 5, 0], &got).over6(C6, B6),
        udp([53, mapped], b"some data here").over4(B4, POOL4),
        tcp([80, mapped], SYN, b"more data").over4(B4, POOL4),
        icmp(0, 0, [0xee, 0x49, 0, 1], b"ping").over4(B4, POOL4),
        icmp(3, 4, [0, 0, 5, 0], &sent).over4(ROUTER4, POOL4),
    ];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut outcomes = [0u32; 3];
    let mut packet = Vec::new();
    for _ in 0..1_000_000 {
        packet.clear();
        if random.below(4) == 0 {
            let first = [0x60, 0x45, 0x4f, 0x00][random.below(4)];
            packet.push(first);
            packet.extend((0..random.below(100)).map(|_| random.next() as u8));
        } else {
            packet.extend_from_slice(&seeds[random.below(seeds.len())]);
            for _ in 0..random.below(4) {
                let at = random.below(packet.len());
                packet[at] = random.next() as u8;
            }
            if random.below(8) == 0 {
                packet.truncate(random.below(packet.len() + 1));
            }
        }
        rig.now = rig.now.after(random.below(50) as u64);
        let kind = match rig.handle(&packet) {
            Outcome::Translated => {
                assert!(!rig.out.is_empty());
                0
            }
            Outcome::NotOurs(_) => 1,
            Outcome::Dropped(_) | Outcome::Held => 2,
        };
        outcomes[kind] += 1;
        assert!(kind == 0 || rig.out.is_empty());
        rig.instance.expire(rig.now, 10, &mut rig.out);
    }
    assert!(outcomes.iter().all(|n| *n > 10_000), "{outcomes:?}");
}

/// A small generator, the same every time (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Who was sent an ICMP error last, its type and its code.
fn told(rig: &Rig) -> Vec<(std::net::IpAddr, u8, u8)> {
    let errors = rig.out.errors().iter();
    errors.map(|e| (e.to, e.message[0], e.message[1])).collect()
}

//= rfc6146#section-3.5.2.2
//= type=test
#[test]
fn who_opens_a_connection_in_vain_is_told() {
    let mut rig = Rig::new().with(|s| s.maximum_simultaneous_opens = 1);
    let syn = tcp([80, 61500], SYN, b"").over4(B4, POOL4);
    assert_eq!(rig.handle(&syn), Outcome::Dropped(Counter::Type1pkt));
    assert_eq!(rig.handle(&syn), Outcome::Dropped(Counter::SoExists));
    assert_eq!(told(&rig), []);
    let other = tcp([81, 61500], SYN, b"").over4(B4, POOL4);
    assert_eq!(rig.handle(&other), Outcome::Dropped(Counter::SoFull));
    assert_eq!(told(&rig), [(B4.into(), 3, 3)]);
    rig.out.clear();
    let late = rig.now.after(6_000);
    rig.instance.expire(late, 10, &mut rig.out);
    assert_eq!(told(&rig), [(B4.into(), 3, 3)]);
    let quoted = &rig.out.errors()[0].message[8..];
    assert_eq!(quoted, syn, "as it came");
    // An instance that goes does not leave anybody waiting.
    assert_eq!(rig.handle(&syn), Outcome::Dropped(Counter::Type1pkt));
    rig.instance.close(&mut rig.out);
    assert_eq!(told(&rig), [(B4.into(), 3, 3)]);
}

//= rfc6146#section-3.8
//= type=test
#[test]
fn a_client_that_opens_a_connection_to_another_in_vain_is_told_in_its_language() {
    let mut rig = Rig::new().with(|s| s.maximum_simultaneous_opens = 1);
    let pool6 = rig.instance.settings().pool6.unwrap();
    let syn = tcp([4000, 61500], SYN, b"").over6(A6, pool6.embed(POOL4));
    assert_eq!(rig.handle(&syn), Outcome::Dropped(Counter::Type1pkt));
    assert!(rig.out.is_empty());
    let second = tcp([4001, 61500], SYN, b"").over6(A6, pool6.embed(POOL4));
    assert_eq!(rig.handle(&second), Outcome::Dropped(Counter::SoFull));
    assert_eq!(told(&rig), [(A6.into(), 1, 4)]);
    rig.out.clear();
    let late = rig.now.after(6_000);
    rig.instance.expire(late, 10, &mut rig.out);
    assert_eq!(told(&rig), [(A6.into(), 1, 4)]);
    assert_eq!(rig.out.errors()[0].message[8..], syn);
}

/// A host with one IPv4 address.
struct OneAddress;

impl Host for OneAddress {
    fn has_address4(&self, addr: Ipv4Addr) -> bool {
        addr == POOL4
    }

    fn has_broadcast4(&self, _: Ipv4Addr) -> bool {
        false
    }

    fn source4(&self, _: Ipv4Addr) -> Option<Ipv4Addr> {
        Some(POOL4)
    }

    fn source6(&self, _: Ipv6Addr) -> Option<Ipv6Addr> {
        None
    }
}

//= jool#pool4
//= type=test
#[test]
fn without_pool4_the_gateway_lends_its_own_address() {
    let mut rig = Rig::new();
    let nat64 = rig.instance.nat64_mut().unwrap();
    nat64.set_pool4(Pool4::default(), &[]);
    let meta = Meta {
        host: &OneAddress,
        ..META
    };
    let mut handle = |packet: &[u8]| {
        rig.out.clear();
        let outcome = rig.instance.handle(rig.now, &meta, packet, &mut rig.out);
        (outcome, rig.out.get(0).map(<[u8]>::to_vec))
    };
    let (_, out) = handle(&udp([4000, 53], b"?").over6(A6, B6));
    let out = out.unwrap();
    assert_eq!(addr4(&out, 12), POOL4);
    let mapped = port(&out, 20);
    assert!(mapped >= 61_001);
    let (_, back) = handle(&udp([53, mapped], b"!").over4(B4, POOL4));
    assert_eq!(addr6(&back.unwrap(), 24), A6);
    let (outcome, _) = handle(&udp([53, 61_000], b"!").over4(B4, POOL4));
    assert_eq!(outcome, Outcome::NotOurs(Counter::Pool4Mismatch));
    let (outcome, _) = handle(&udp([53, mapped], b"!").over4(B4, ROUTER4));
    assert_eq!(outcome, Outcome::NotOurs(Counter::Pool4Mismatch));
    let to_us = udp([53, mapped], b"!").over4(B4, POOL4);
    assert!(rig.instance.concerns(&OneAddress, &to_us));
    assert!(!rig.instance.concerns(&Nameless, &to_us));
}
