// SPDX-License-Identifier: GPL-2.0-or-later
//! Packets in, packets out.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::base::Tick;
use crate::base::counters::Counter;
use crate::base::host::Host;
use crate::engine::{Instance, Meta, Outcome};
use crate::model::Flavour;
use crate::model::settings::{Setting, Settings};
use crate::wire::output::Output;
use crate::wire::samples::*;

mod errors;
mod hairpin;
mod napt;
mod properties;

/// Without addresses but those that it sends errors from.
struct Gateway;

const OWN4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xce11);
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 56);

impl Host for Gateway {
    fn has_address4(&self, addr: Ipv4Addr) -> bool {
        addr == Ipv4Addr::new(192, 168, 0, 1)
    }

    fn has_broadcast4(&self, _: Ipv4Addr) -> bool {
        false
    }

    fn source4(&self, _: Ipv4Addr) -> Option<Ipv4Addr> {
        Some(OWN4)
    }

    fn source6(&self, _: Ipv6Addr) -> Option<Ipv6Addr> {
        Some(OWN6)
    }
}

/// An instance and what it wrote last.
struct Rig {
    instance: Instance,
    out: Output,
    now: Tick,
}

/// The rule of the tutorial's domain, and the prefixes of its customers.
const TUTORIAL: &str = "2001:db8:ce::/51 192.0.2.0/24 13 0";
const CE_11B: &str = "2001:db8:ce:11b::/64";
const CE_774: &str = "2001:db8:ce:774::/64";
const DMR: &str = "64:ff9b::/96";

impl Rig {
    fn new(keys: &[(&str, &str)], rules: &[&str]) -> Self {
        let mut settings = Settings::default();
        for (key, text) in keys {
            let setting = Setting::find(Flavour::Mapt, key).unwrap();
            let value = setting.parse(text).unwrap();
            settings.set(Flavour::Mapt, key, value, false).unwrap();
        }
        settings.check_mapt().unwrap();
        let mut instance = Instance::new(Flavour::Mapt, settings, [7; 16]);
        for rule in rules {
            let fmrt = &mut instance.mapt_mut().unwrap().fmrt;
            fmrt.insert(rule.parse().unwrap()).unwrap();
        }
        Self {
            instance,
            out: Output::new(),
            now: Tick(1_000),
        }
    }

    fn br(dmr: &str, rules: &[&str]) -> Self {
        Self::new(&[("pool6", dmr)], rules)
    }

    fn ce(dmr: &str, prefix: &str, bmr: &str, rules: &[&str]) -> Self {
        let keys = [
            ("pool6", dmr),
            ("end-user-ipv6-prefix", prefix),
            ("bmr", bmr),
        ];
        Self::new(&keys, rules)
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.instance.settings().clone();
        change(&mut settings);
        self.instance.set_settings(settings);
        self
    }

    fn handle(&mut self, packet: &[u8]) -> Outcome {
        self.out.clear();
        let meta = Meta {
            mark: 0,
            ingress_mtu: u32::MAX,
            reassembled: false,
            from_host: false,
            may_wait: false,
            offload: crate::wire::offload::Offload::NONE,
            host: &Gateway,
        };
        self.instance.handle(self.now, &meta, packet, &mut self.out)
    }

    /// Handles a packet that must become exactly one, and a sound one.
    #[track_caller]
    fn translate(&mut self, packet: &[u8]) -> Vec<u8> {
        assert_eq!(self.handle(packet), Outcome::Translated);
        assert_eq!(self.out.packets().count(), 1);
        let translated = self.out.packets().next().unwrap().to_vec();
        assert_intact(&translated);
        translated
    }

    /// Handles a packet that must be left alone, for this reason.
    #[track_caller]
    fn leave(&mut self, packet: &[u8], reason: Counter) {
        assert_eq!(self.handle(packet), Outcome::NotOurs(reason));
        assert!(self.out.is_empty() && self.out.errors().is_empty());
    }

    /// Handles a packet that must be dropped and counted, for this reason.
    #[track_caller]
    fn drop(&mut self, packet: &[u8], reason: Counter) {
        let before = self.instance.counters().get(reason);
        assert_eq!(self.handle(packet), Outcome::Dropped(reason));
        assert!(self.out.is_empty());
        assert_eq!(self.instance.counters().get(reason), before + 1);
    }
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn ends4(packet: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
    (addr4(packet, 12), addr4(packet, 16))
}

fn ends6(packet: &[u8]) -> (Ipv6Addr, Ipv6Addr) {
    (addr6(packet, 8), addr6(packet, 24))
}

/// The forwarding router behind the translator takes a hop, which the translator leaves to it.
fn hop(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
        return packet;
    }
    packet[8] -= 1;
    reseal4(&mut packet);
    packet
}

//= rfc7599#section-5.1
//= type=test
#[test]
fn the_examples_of_rfc_7599() {
    let (rule, dmr) = ("2001:db8::/40 192.0.2.0/24 16", "2001:db8:ffff::/64");
    let (server4, server6) = (v4("10.2.3.4"), v6("2001:db8:ffff:0:a:203:400::"));
    let (client4, client6) = (v4("192.0.2.18"), v6("2001:db8:12:3400::c000:212:34"));
    let mut br = Rig::br(dmr, &[rule]);
    let mut ce = Rig::ce(dmr, "2001:db8:12:3400::/56", rule, &[]);
    let (there, back) = ([1232, 80], [80, 1232]);
    for load in [udp, |ports, data: &[u8]| tcp(ports, 2, data)] {
        let packet = br.translate(&load(back, b"x").over4(server4, client4));
        assert_eq!(packet[40..], load(back, b"x").over6(server6, client6)[40..]);
        assert_eq!(ends6(&packet), (server6, client6));
        let packet = ce.translate(&packet);
        assert_eq!(packet[20..], load(back, b"x").over4(server4, client4)[20..]);
        assert_eq!(ends4(&packet), (server4, client4));
        let packet = ce.translate(&load(there, b"x").over4(client4, server4));
        assert_eq!(ends6(&packet), (client6, server6));
        let packet = br.translate(&packet);
        assert_eq!(ends4(&packet), (client4, server4));
        assert_eq!(
            packet[20..],
            load(there, b"x").over4(client4, server4)[20..]
        );
    }
}

/// The identifier of an echo message is its port.
//= rfc7599#section-9
//= type=test
#[test]
fn pings_go_by_their_identifier() {
    let (mut ce, mut br) = (
        Rig::ce(DMR, CE_774, TUTORIAL, &[]),
        Rig::br(DMR, &[TUTORIAL]),
    );
    let client = v4("192.0.2.59");
    let ping = |id: u16| {
        let [a, b] = id.to_be_bytes();
        [a, b, 0, 1]
    };
    let packet = ce.translate(&icmp(8, 0, ping(40960), b"x").over4(client, SERVER));
    let own = v6("2001:db8:ce:774:0:c000:23b:14");
    assert_eq!(ends6(&packet), (own, v6("64:ff9b::cb00:7138")));
    assert_eq!(packet[40], 128);
    let packet = br.translate(&packet);
    assert_eq!((packet[20], ends4(&packet)), (8, (client, SERVER)));
    let packet = br.translate(&icmp(0, 0, ping(43007), b"x").over4(SERVER, client));
    assert_eq!((packet[40], ends6(&packet).1), (129, own));
    assert_eq!(ce.translate(&packet)[20], 0);
    let foreign = icmp(8, 0, ping(43008), b"x").over4(client, SERVER);
    ce.drop(&foreign, Counter::MaptPsid);
}

/// 2001:db8:4464::/56, where every customer has an address: hops are left to the kernel, DF is
/// cleared for small packets.
#[test]
fn a_simple_network_there_and_back() {
    let rule = "2001:db8:4464::/56 192.0.2.0/24 8";
    let mut ce = Rig::ce(DMR, "2001:db8:4464:8::/64", rule, &[]);
    let mut br = Rig::br(DMR, &[rule]);
    let (client, server) = (v4("192.0.2.8"), v4("203.0.113.8"));
    let mut packet = tcp([5, 80], 2, b"").over4(client, server);
    packet[8] = 64;
    let mut packet = with_flags4(packet, 0x4000);
    reseal4(&mut packet);
    let packet = hop(ce.translate(&packet));
    assert_eq!(packet[7], 63);
    let ends = (v6("2001:db8:4464:8:0:c000:208:0"), v6("64:ff9b::cb00:7108"));
    assert_eq!(ends6(&packet), ends);
    let packet = hop(br.translate(&packet));
    assert_eq!((packet[8], packet[6]), (62, 0), "hops, and DF");
    assert_eq!(ends4(&packet), (client, server));
    let mut spent = udp([5, 80], b"").over4(client, server);
    spent[8] = 1;
    reseal4(&mut spent);
    ce.drop(&spent, Counter::FourSixTtl);
}

/// A customer edge, a port it has, and the address that stands for both.
type Net<'a> = (&'a str, [&'a str; 2], &'a str, &'a str, u16, &'a str);

//= rfc7597#section-5.2
//= type=test
#[test]
fn networks_of_every_shape() {
    let md = |tail1: &'static str, tail2: &'static str| [tail1, tail2];
    let equal = md(
        "2001:db8:4464:1::/64 192.0.2.0/24 8",
        "2001:db8:4464:2::/64 198.51.100.0/24 8",
    );
    let more = md(
        "2001:db8:4464:1::/64 192.0.2.0/28 8",
        "2001:db8:4464:2::/64 198.51.100.0/28 8",
    );
    let less = md(
        "2001:db8:4464:1::/64 192.0.2.0/28 1",
        "2001:db8:4464:2::/64 198.51.100.0/28 1",
    );
    let long = md(
        "2001:db8:4464:1::/112 192.0.2.0/24 16",
        "2001:db8:4464:2::/112 198.51.100.0/24 16",
    );
    let nets: [Net<'_>; 9] = [
        (
            "2001:db8:4464:1:100::/72",
            equal,
            "192.0.2.1",
            equal[0],
            7,
            "2001:db8:4464:1:100:c000:201:0",
        ),
        (
            "2001:db8:4464:1:200::/72",
            equal,
            "192.0.2.2",
            equal[0],
            7,
            "2001:db8:4464:1:200:c000:202:0",
        ),
        (
            "2001:db8:4464:1:1100::/72",
            more,
            "192.0.2.1",
            more[0],
            1088,
            "2001:db8:4464:1:1100:c000:201:1",
        ),
        (
            "2001:db8:4464:1:1200::/72",
            more,
            "192.0.2.1",
            more[0],
            1154,
            "2001:db8:4464:1:1200:c000:201:2",
        ),
        (
            "2001:db8:4464:2:1100::/72",
            more,
            "198.51.100.1",
            more[1],
            1092,
            "2001:db8:4464:2:1100:c633:6401:1",
        ),
        (
            "2001:db8:4464:1::/65",
            less,
            "192.0.2.2",
            less[0],
            7,
            "2001:db8:4464:1:2000:c000:202:0",
        ),
        (
            "2001:db8:4464:1:8000::/65",
            less,
            "192.0.2.10",
            less[0],
            7,
            "2001:db8:4464:1:a000:c000:20a:0",
        ),
        (
            "2001:db8:4464:1::100/128",
            long,
            "192.0.2.1",
            long[0],
            1024,
            "2001:db8:4464:1::100",
        ),
        (
            "2001:db8:4464:2::100/128",
            long,
            "198.51.100.1",
            long[1],
            1027,
            "2001:db8:4464:2::100",
        ),
    ];
    let (server4, server6) = (v4("203.0.113.4"), v6("64:ff9b::cb00:7104"));
    for (prefix, rules, client, bmr, port, address) in nets {
        let mut br = Rig::br(DMR, &rules);
        let mut ce = Rig::ce(DMR, prefix, bmr, &rules);
        let packet = ce.translate(&udp([port, 80], b"x").over4(v4(client), server4));
        assert_eq!(ends6(&packet), (v6(address), server6), "{prefix}");
        assert_eq!(ends4(&br.translate(&packet)), (v4(client), server4));
        let packet = br.translate(&udp([80, port], b"x").over4(server4, v4(client)));
        assert_eq!(ends6(&packet), (server6, v6(address)), "{prefix}");
        assert_eq!(ends4(&ce.translate(&packet)), (server4, v4(client)));
    }
}

/// Between customers, without the border relay.
#[test]
fn customers_reach_each_other_by_forwarding_rules() {
    let mut one = Rig::ce(DMR, CE_11B, TUTORIAL, &[TUTORIAL]);
    let mut other = Rig::ce(DMR, CE_774, TUTORIAL, &[TUTORIAL]);
    let (a, b) = (v4("192.0.2.8"), v4("192.0.2.59"));
    let packet = one.translate(&udp([55296, 40960], b"x").over4(a, b));
    let ends = (
        "2001:db8:ce:11b:0:c000:208:1b",
        "2001:db8:ce:774:0:c000:23b:14",
    );
    assert_eq!(ends6(&packet), (v6(ends.0), v6(ends.1)));
    assert_eq!(ends4(&other.translate(&packet)), (a, b));
    // Without the rule, by the border relay.
    let mut one = Rig::ce(DMR, CE_11B, TUTORIAL, &[]);
    let packet = one.translate(&udp([55296, 40960], b"x").over4(a, b));
    assert_eq!(ends6(&packet).1, v6("64:ff9b::c000:23b"));
}

//= rfc7599#section-8.2
//= type=test
//= rfc7599#section-8.3
//= type=test
#[test]
fn what_disagrees_with_the_rule_is_dropped_and_counted() {
    let server6 = v6("64:ff9b::cb00:7138");
    let own = v6("2001:db8:ce:11b:0:c000:208:1b");
    let client = v4("192.0.2.8");
    let mut ce = Rig::ce(DMR, CE_11B, TUTORIAL, &[]);
    let mut br = Rig::br(DMR, &[TUTORIAL]);
    // The range that the published tutorial gives the second customer is another's.
    ce.drop(
        &udp([28672, 80], b"").over4(client, SERVER),
        Counter::MaptPsid,
    );
    ce.drop(
        &udp([55296, 80], b"").over4(v4("192.0.2.9"), SERVER),
        Counter::MaptAddr4,
    );
    ce.drop(
        &udp([80, 28672], b"").over6(server6, own),
        Counter::MaptPsid,
    );
    br.drop(
        &udp([28672, 80], b"").over6(own, server6),
        Counter::MaptPsid,
    );
    // The right customer, but not the address that the rule makes.
    for src in [
        "2001:db8:ce:11b::1",
        "2001:db8:ce:11b:0:c000:208:1a",
        "2001:db8:ce:11b:1:c000:208:1b",
    ] {
        br.drop(
            &udp([55296, 80], b"").over6(v6(src), server6),
            Counter::MaptPsid,
        );
        ce.leave(
            &udp([80, 55296], b"").over6(server6, v6(src)),
            Counter::MaptEui6p,
        );
    }
    // Ports below the first that the offset leaves to anyone.
    let rule = "2001:db8::/40 192.0.2.0/24 16";
    let mut ce = Rig::ce(DMR, "2001:db8:12:3400::/56", rule, &[]);
    let mut br = Rig::br(DMR, &[rule]);
    let (host4, host6) = (v4("192.0.2.18"), v6("2001:db8:12:3400::c000:212:34"));
    ce.drop(&udp([208, 80], b"").over4(host4, SERVER), Counter::MaptPsid);
    ce.drop(
        &udp([80, 208], b"").over6(server6, host6),
        Counter::MaptPsid,
    );
    br.drop(&udp([80, 208], b"").over4(SERVER, host4), Counter::MaptPsid);
    br.drop(
        &udp([208, 80], b"").over6(host6, server6),
        Counter::MaptPsid,
    );
}

#[test]
fn a_lenient_instance_lets_pass_what_jool_does() {
    let server6 = v6("64:ff9b::cb00:7138");
    let own = v6("2001:db8:ce:11b:0:c000:208:1b");
    let lenient = |settings: &mut Settings| settings.mapt_lenient = true;
    let mut ce = Rig::ce(DMR, CE_11B, TUTORIAL, &[]).with(lenient);
    let mut br = Rig::br(DMR, &[TUTORIAL]).with(lenient);
    let foreign = [28672, 80];
    assert_eq!(
        ends4(&br.translate(&udp(foreign, b"").over6(own, server6))),
        (v4("192.0.2.8"), SERVER)
    );
    ce.translate(&udp([80, 28672], b"").over6(server6, own));
    ce.translate(&udp([80, 1], b"").over6(server6, v6("2001:db8:ce:11b::1")));
    ce.leave(
        &udp(foreign, b"").over4(v4("192.0.2.8"), SERVER),
        Counter::MaptPsid,
    );
    let rule = "2001:db8::/40 192.0.2.0/24 16";
    let mut ce = Rig::ce(DMR, "2001:db8:12:3400::/56", rule, &[]).with(lenient);
    ce.translate(&udp([208, 80], b"").over4(v4("192.0.2.18"), SERVER));
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let mut ce = Rig::ce(DMR, CE_11B, TUTORIAL, &[TUTORIAL]);
    let mut br = Rig::br(DMR, &[TUTORIAL]);
    let (own, server6) = (
        v6("2001:db8:ce:11b:0:c000:208:1b"),
        v6("64:ff9b::cb00:7138"),
    );
    let load = || udp([55296, 80], b"");
    // A host that has IPv6 itself, with a customer's prefix.
    let native = v6("2001:db8:ce:11b::5");
    ce.leave(&load().over6(A6, native), Counter::MaptEui6p);
    ce.leave(
        &load().over6(v6("2001:db8:ce:774::5"), native),
        Counter::MaptEui6p,
    );
    ce.leave(&load().over6(server6, native), Counter::MaptEui6p);
    ce.leave(&load().over6(server6, A6), Counter::MaptEui6p);
    ce.leave(&load().over6(A6, own), Counter::MaptPool6);
    ce.leave(&load().over4(v4("192.168.0.4"), SERVER), Counter::MaptAddr4);
    ce.leave(
        &load().over4(v4("192.0.2.8"), v4("192.168.0.1")),
        Counter::FourSixDst,
    );
    ce.leave(
        &load().over4(v4("192.0.2.8"), v4("224.0.0.251")),
        Counter::FourSixDst,
    );
    br.leave(&load().over6(own, A6), Counter::MaptPool6);
    br.leave(&load().over6(A6, server6), Counter::MaptFmr6);
    br.leave(&load().over4(SERVER, B4), Counter::MaptFmr4);
    br.leave(
        &raw4(SERVER, v4("192.0.2.8"), 47, &[0; 20]),
        Counter::UnknownL4Proto,
    );
    let mut br = Rig::new(&[], &[TUTORIAL]);
    br.leave(
        &udp([80, 55296], b"").over4(SERVER, v4("192.0.2.8")),
        Counter::Pool6Unset,
    );
    let mut ce = Rig::new(&[("map-t-type", "BR")], &[]).with(|settings| {
        settings.map_t_type = Some(crate::model::mapt::MaptType::Ce);
    });
    ce.leave(&load().over6(server6, own), Counter::MaptEui6p);
}

#[test]
fn what_comes_by_a_route_is_told_by_its_destination() {
    let ce = Rig::ce(DMR, CE_11B, TUTORIAL, &[]);
    let br = Rig::br(DMR, &[TUTORIAL]);
    let (own, server6) = (
        v6("2001:db8:ce:11b:0:c000:208:1b"),
        v6("64:ff9b::cb00:7138"),
    );
    let load = || udp([1, 1], b"");
    let concern = |rig: &Rig, packet: &[u8]| rig.instance.concerns(&Gateway, packet);
    for (packet, by_ce, by_br) in [
        (load().over6(A6, own), true, false),
        (load().over6(A6, v6("2001:db8:ce:11b::5")), false, false),
        (load().over6(A6, server6), false, true),
        (load().over4(B4, SERVER), true, false),
        (load().over4(B4, v4("192.168.0.1")), false, false),
        (load().over4(B4, v4("192.0.2.8")), true, true),
        (Vec::new(), false, false),
    ] {
        assert_eq!(concern(&ce, &packet), by_ce, "{packet:?}");
        assert_eq!(concern(&br, &packet), by_br, "{packet:?}");
    }
}

/// Who is to blame for a wrong source is told; whoever merely sends to a wrong port is not.
//= rfc7599#section-8.3
//= type=test
//= rfc7599#section-8.2
//= type=test
#[test]
fn wrong_sources_are_told() {
    let mut ce = Rig::ce(DMR, CE_11B, TUTORIAL, &[TUTORIAL]);
    let mut br = Rig::br(DMR, &[TUTORIAL]);
    let (own, server6) = (
        v6("2001:db8:ce:11b:0:c000:208:1b"),
        v6("64:ff9b::cb00:7138"),
    );
    let other = v6("2001:db8:ce:774:0:c000:23b:14");
    br.drop(
        &udp([28672, 80], b"").over6(own, server6),
        Counter::MaptPsid,
    );
    assert_eq!(br.out.errors()[0].message[..2], [1, 5]);
    ce.drop(
        &udp([28672, 55296], b"").over6(other, own),
        Counter::MaptPsid,
    );
    assert_eq!(ce.out.errors()[0].message[..2], [1, 5]);
    ce.drop(
        &udp([80, 28672], b"").over6(server6, own),
        Counter::MaptPsid,
    );
    assert!(ce.out.errors().is_empty());
}

//= rfc7599#section-10.3
//= type=test
#[test]
fn fragments_of_customers_who_share_an_address_are_told_apart() {
    let mut ce = Rig::ce(DMR, CE_774, TUTORIAL, &[]);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let packet = udp([40960, 80], &[0; 1400]).over4(v4("192.0.2.59"), SERVER);
        assert_eq!(ce.handle(&with_flags4(packet, 0)), Outcome::Translated);
        let ids = ce.out.packets().map(|packet| {
            assert_eq!(packet[6], 44, "a fragment");
            u32::from_be_bytes([packet[44], packet[45], packet[46], packet[47]])
        });
        let ids: Vec<_> = ids.collect();
        assert!(ids.len() == 2 && ids[0] == ids[1]);
        assert!((40960..=43007).contains(&ids[0]) && !seen.contains(&ids[0]));
        seen.push(ids[0]);
    }
}
