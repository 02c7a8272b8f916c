// SPDX-License-Identifier: GPL-2.0-or-later
//! What holds for every rule and every packet.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::base::prefix::{Prefix4, Prefix6};
use crate::map::mapt::Customer;
use crate::model::mapt::MapRule;

/// Rules inside 2001:db8::/32 and 192.0.0.0/8, so that neither the server nor the DMR is in one.
fn rules() -> impl Strategy<Value = MapRule> {
    let parts = (
        any::<u128>(),
        32..=128_u8,
        any::<u32>(),
        8..=32_u8,
        0..=40_u8,
        0..=16_u8,
    );
    parts.prop_filter_map("no such rule", |(v6, n6, v4, r, o, a)| {
        let v6 = 0x2001_0db8_u128 << 96 | v6 >> 32;
        let v4 = 192 << 24 | v4 >> 8;
        let v6 = v6 & u128::MAX << (128 - n6);
        let v4 = v4 & u32::MAX << (32 - r);
        let v6 = Prefix6::new(v6.into(), n6).unwrap();
        MapRule::new(v6, Prefix4::new(v4.into(), r).unwrap(), o, a).ok()
    })
}

/// A customer edge and the border relay of its domain, and one of the customer's addresses.
fn domain(rule: MapRule, host: u32, port: u16) -> (Rig, Rig, Customer, Ipv4Addr) {
    let hosts = u32::MAX
        .checked_shr(rule.v4().prefix_len().into())
        .unwrap_or(0);
    let host = (u32::from(rule.v4().network()) | host & hosts).into();
    let customer = Customer::of(rule, host, port).unwrap();
    let (prefix, rule) = (customer.prefix().to_string(), rule.to_string());
    let ce = Rig::ce(DMR, &prefix, &rule, &[]);
    (ce, Rig::br(DMR, &[&rule]), customer, host)
}

proptest! {
    #[test]
    fn there_and_back_again(
        rule in rules(),
        host: u32,
        ports: [u16; 2],
        payload in vec(any::<u8>(), 0..100),
    ) {
        let (mut ce, mut br, customer, host) = domain(rule, host, ports[0]);
        let there = udp(ports, &payload).over4(host, SERVER);
        if !customer.ports().contains(ports[0]) {
            ce.drop(&there, Counter::MaptPsid);
            return Ok(());
        }
        let packet = br.translate(&{ ce.translate(&there) });
        prop_assert_eq!(ends4(&packet), (host, SERVER));
        prop_assert_eq!(&packet[20..], &there[20..]);
        let back = udp([ports[1], ports[0]], &payload).over4(SERVER, host);
        let packet = ce.translate(&{ br.translate(&back) });
        prop_assert_eq!(ends4(&packet), (SERVER, host));
        prop_assert_eq!(&packet[20..], &back[20..]);
    }

    /// Nobody can send by another's address or port, and nobody is sent what is another's.
    #[test]
    fn nobody_has_what_is_another_s(rule in rules(), host: u32, ports: [u16; 2], other: u16) {
        let (mut ce, mut br, customer, host) = domain(rule, host, ports[0]);
        let (own, server) = (customer.address(host), v6("64:ff9b::cb00:7138"));
        let theirs = customer.ports().contains(other);
        let sent = br.handle(&udp([other, 80], b"").over6(own, server));
        prop_assert_eq!(sent == Outcome::Translated, theirs);
        let received = ce.handle(&udp([80, other], b"").over6(server, own));
        prop_assert_eq!(received == Outcome::Translated, theirs);
    }

    #[test]
    fn private_addresses_get_ports_of_the_set(
        rule in rules(),
        host: u32,
        ports in vec(any::<[u16; 2]>(), 1..20),
    ) {
        let (ce, mut br, customer, _) = domain(rule, host, ports[0][0]);
        let mut ce = ce.with(|settings| settings.mapt_napt = true);
        for ports in ports {
            let client = Ipv4Addr::new(192, 168, 0, 4);
            let sent = udp(ports, b"x").over4(client, SERVER);
            let packet = match ce.handle(&sent) {
                Outcome::Translated => ce.out.packets().next().unwrap().to_vec(),
                refused @ (Outcome::NotOurs(_) | Outcome::Dropped(_) | Outcome::Held) => {
                    prop_assert_eq!(refused, Outcome::Dropped(Counter::Bib6NotFound));
                    continue;
                }
            };
            let packet = br.translate(&packet);
            let (own, _) = ends4(&packet);
            let port = u16::from_be_bytes([packet[20], packet[21]]);
            prop_assert!(customer.owns(own) && customer.ports().contains(port));
            let answer = br.translate(&udp([ports[1], port], b"y").over4(SERVER, own));
            let answer = ce.translate(&answer);
            prop_assert_eq!(ends4(&answer), (SERVER, client));
            prop_assert_eq!(&answer[20..], &udp([ports[1], ports[0]], b"y").over4(SERVER, client)[20..]);
        }
    }

    #[test]
    fn noise_is_survived(
        bytes in vec(any::<u8>(), 0..200),
        version in prop::sample::select(vec![0x45, 0x60]),
        known: bool,
        napt: bool,
    ) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        let (own, server) = (v6("2001:db8:ce:11b:0:c000:208:1b"), v6("64:ff9b::cb00:7138"));
        if known && version == 0x60 && bytes.len() >= 40 {
            bytes[24..40].copy_from_slice(&own.octets());
            bytes[8..24].copy_from_slice(&server.octets());
        }
        let mut ce = Rig::ce(DMR, CE_11B, TUTORIAL, &[TUTORIAL])
            .with(|settings| settings.mapt_napt = napt);
        let mut br = Rig::br(DMR, &[TUTORIAL]);
        for rig in [&mut ce, &mut br] {
            if rig.handle(&bytes) != Outcome::Translated {
                prop_assert!(rig.out.is_empty());
            }
        }
    }
}
