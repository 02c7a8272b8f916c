// SPDX-License-Identifier: GPL-2.0-or-later
//! The customer edge's own translation of private addresses.

use super::*;
use crate::base::{Protocol, Transport4, Transport6};
use crate::nat64::{Change, News};

const SYN: u8 = 2;
const ACK: u8 = 16;
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 4);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 5);
const SHARED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 8);

fn own() -> Ipv6Addr {
    v6("2001:db8:ce:11b:0:c000:208:1b")
}

fn server() -> Ipv6Addr {
    v6("64:ff9b::cb00:7138")
}

fn rig() -> Rig {
    Rig::ce(DMR, CE_11B, TUTORIAL, &[]).with(|settings| settings.mapt_napt = true)
}

fn ports6(packet: &[u8]) -> [u16; 2] {
    [40, 42].map(|at| u16::from_be_bytes([packet[at], packet[at + 1]]))
}

fn ports4(packet: &[u8]) -> [u16; 2] {
    [20, 22].map(|at| u16::from_be_bytes([packet[at], packet[at + 1]]))
}

//= rfc7599#section-8.1
//= type=test
#[test]
fn private_addresses_share_the_ports_of_the_set() {
    let mut ce = rig();
    let mut br = Rig::br(DMR, &[TUTORIAL]);
    let mut seen = Vec::new();
    for (client, port) in [(CLIENT, 5000), (OTHER, 5000), (CLIENT, 5001)] {
        let packet = ce.translate(&tcp([port, 80], SYN, b"").over4(client, SERVER));
        assert_eq!(ends6(&packet), (own(), server()));
        let [src, dst] = ports6(&packet);
        assert!((55296..=57343).contains(&src) && dst == 80, "{src}");
        assert!(!seen.contains(&src));
        seen.push(src);
        br.translate(&packet);
        let answer = br.translate(&tcp([80, src], SYN | ACK, b"").over4(SERVER, SHARED));
        let answer = ce.translate(&answer);
        assert_eq!(
            (ends4(&answer), ports4(&answer)),
            ((SERVER, client), [80, port])
        );
    }
    let again = ce.translate(&tcp([5000, 443], SYN, b"").over4(CLIENT, B4));
    assert_eq!(ports6(&again)[0], seen[0], "whatever the destination");
    let counters = ce.instance.counters();
    assert_eq!(counters.get(Counter::BibEntries), 3);
    assert_eq!(counters.get(Counter::Sessions), 4);
}

#[test]
fn udp_and_pings_are_shared_too() {
    let mut ce = rig();
    let packet = ce.translate(&udp([5000, 53], b"x").over4(CLIENT, SERVER));
    let [src, _] = ports6(&packet);
    let answer = ce.translate(&udp([53, src], b"y").over6(server(), own()));
    assert_eq!(
        (ends4(&answer), ports4(&answer)),
        ((SERVER, CLIENT), [53, 5000])
    );
    let ping = ce.translate(&icmp(8, 0, [0, 7, 0, 1], b"x").over4(CLIENT, SERVER));
    let id = [ping[44], ping[45]];
    assert!((55296..=57343).contains(&u16::from_be_bytes(id)));
    assert_eq!((ping[40], ends6(&ping)), (128, (own(), server())));
    let pong = icmp(129, 0, [id[0], id[1], 0, 1], b"x").over6(server(), own());
    let pong = ce.translate(&pong);
    assert_eq!(
        (pong[20], &pong[24..28], ends4(&pong).1),
        (0, &[0, 7, 0, 1][..], CLIENT)
    );
}

/// A set of 63 ranges of 4 ports.
#[test]
fn every_port_of_many_small_ranges_is_used_and_no_other() {
    let rule = "2001:db8::/40 192.0.2.0/24 16";
    let mut ce =
        Rig::ce(DMR, "2001:db8:12:3400::/56", rule, &[]).with(|settings| settings.mapt_napt = true);
    let mut ports: Vec<_> = (0..252)
        .map(|n| ports6(&ce.translate(&udp([4000 + n, 53], b"").over4(CLIENT, SERVER)))[0])
        .collect();
    ports.sort_unstable();
    let set: Vec<u16> = (1..64)
        .flat_map(|a| (0..4).map(move |j| a << 10 | 0x34 << 2 | j))
        .collect();
    assert_eq!(ports, set);
    ce.drop(
        &udp([4252, 53], b"").over4(CLIENT, SERVER),
        Counter::Bib6NotFound,
    );
}

#[test]
fn what_nobody_asked_for_is_dropped() {
    let mut ce = rig();
    ce.drop(
        &udp([53, 55296], b"").over6(server(), own()),
        Counter::Bib4NotFound,
    );
    ce.drop(
        &tcp([53, 55296], ACK, b"").over6(server(), own()),
        Counter::Syn4Expected,
    );
    ce.drop(
        &udp([53, 28672], b"").over6(server(), own()),
        Counter::MaptPsid,
    );
    // Private destinations are the customer's, and local ones the host's.
    for dst in ["10.1.2.3", "192.168.0.1", "255.255.255.255"] {
        ce.leave(
            &udp([1, 2], b"").over4(CLIENT, v4(dst)),
            Counter::FourSixDst,
        );
    }
    ce.leave(
        &udp([1, 2], b"").over6(A6, v6("2001:db8:ce:11b::5")),
        Counter::MaptEui6p,
    );
}

#[test]
fn a_static_mapping_lets_strangers_in() {
    let mut ce = rig();
    let v6 = Transport6::new(CLIENT.to_ipv6_mapped(), 80);
    let v4 = Transport4::new(SHARED, 55380);
    let nat64 = ce.instance.sessions_mut().unwrap();
    nat64.bib_add(Protocol::Tcp, v6, v4).unwrap();
    let packet = ce.translate(&tcp([7, 55380], SYN, b"").over6(server(), own()));
    assert_eq!(
        (ends4(&packet), ports4(&packet)),
        ((SERVER, CLIENT), [7, 80])
    );
}

#[test]
fn errors_reach_private_addresses_and_leave_them() {
    let mut ce = rig();
    let packet = ce.translate(&udp([5000, 53], b"question").over4(CLIENT, SERVER));
    let [src, _] = ports6(&packet);
    let router = v6("64:ff9b::c633:64fe");
    let error = ce.translate(&icmp(1, 4, [0; 4], &packet).over6(router, own()));
    assert_eq!(ends4(&error), (v4("198.51.100.254"), CLIENT));
    assert_eq!((error[20], error[21]), (3, 3));
    assert_eq!(
        error[48..],
        udp([5000, 53], b"question").over4(CLIENT, SERVER)[20..]
    );
    let answer = ce.translate(&udp([53, src], b"answer").over6(server(), own()));
    let error = ce.translate(&icmp(3, 3, [0; 4], &answer).over4(CLIENT, SERVER));
    assert_eq!(ends6(&error), (own(), server()));
    assert_eq!(
        error[88..],
        udp([53, src], b"answer").over6(server(), own())[40..]
    );
    let about = udp([53, 9], b"").over4(SERVER, CLIENT);
    let stray = icmp(3, 3, [0; 4], &about).over4(CLIENT, SERVER);
    ce.leave(&stray, Counter::SessionNotFound);
    let about = udp([55297, 53], b"").over6(own(), server());
    let stray = icmp(1, 4, [0; 4], &about).over6(router, own());
    ce.drop(&stray, Counter::SessionNotFound);
}

#[test]
fn errors_about_pings_have_the_identifier_of_their_sender() {
    let mut ce = rig();
    let ping = ce.translate(&icmp(8, 0, [0, 7, 0, 1], b"x").over4(CLIENT, SERVER));
    let error = ce.translate(&icmp(3, 0, [0; 4], &ping).over6(server(), own()));
    assert_eq!((error[20], ends4(&error[28..])), (11, (CLIENT, SERVER)));
    assert_eq!((error[48], &error[52..56]), (8, &[0, 7, 0, 1][..]));
}

/// Two private hosts by the address that they share.
//= rfc7599#section-8.1
//= type=test
#[test]
fn private_hosts_meet_at_the_shared_address() {
    let mut ce = rig();
    let packet = ce.translate(&udp([5000, 53], b"").over4(OTHER, SERVER));
    let [open, _] = ports6(&packet);
    let packet = ce.translate(&udp([6000, open], b"x").over4(CLIENT, SHARED));
    let [from, to] = ports4(&packet);
    assert_eq!((ends4(&packet), to), ((SHARED, OTHER), 5000));
    assert!((55296..=57343).contains(&from));
    let back = ce.translate(&udp([5000, from], b"y").over4(OTHER, SHARED));
    assert_eq!(
        (ends4(&back), ports4(&back)),
        ((SHARED, CLIENT), [open, 6000])
    );
    let error = ce.translate(&icmp(3, 3, [0; 4], &packet).over4(OTHER, SHARED));
    assert_eq!(ends4(&error), (SHARED, CLIENT));
    assert_eq!(
        error[48..],
        udp([6000, open], b"x").over4(CLIENT, SHARED)[20..]
    );
}

#[test]
fn sessions_end_and_are_told_like_those_of_nat64() {
    let mut ce = rig();
    ce.translate(&udp([5000, 53], b"").over4(CLIENT, SERVER));
    let mut changes = Vec::new();
    ce.instance.drain_changes(&mut changes);
    let client = Transport6::new(CLIENT.to_ipv6_mapped(), 5000);
    assert!(matches!(changes[0], Change::Mapping(mapping) if mapping.v6 == client));
    let began = matches!(
        changes[1],
        Change::Session {
            news: News::Began,
            ..
        }
    );
    assert!(began && changes.len() == 2);
    let due = ce.instance.next_deadline().unwrap();
    assert_eq!(due, ce.now.after(300_000));
    assert!(!ce.instance.expire(due, 10, &mut ce.out));
    ce.instance.drain_changes(&mut changes);
    assert!(matches!(
        changes[..],
        [Change::SessionGone { .. }, Change::MappingGone { .. }]
    ));
    assert_eq!(ce.instance.next_deadline(), None);
}

/// Ports are few: whoever wants them back sooner says so, also for sessions that there are.
#[test]
fn sessions_end_when_the_settings_say() {
    let set = |rig: Rig, text: &str| {
        rig.with(|settings| {
            let setting = Setting::find(Flavour::Mapt, "udp-timeout").unwrap();
            let value = setting.parse(text).unwrap();
            let done = settings.set(Flavour::Mapt, "udp-timeout", value, false);
            done.unwrap();
        })
    };
    let mut ce = set(rig(), "2:00");
    ce.translate(&udp([5000, 53], b"").over4(CLIENT, SERVER));
    let due = |rig: &Rig| rig.instance.next_deadline().unwrap();
    assert_eq!(due(&ce), ce.now.after(120_000));
    let ce = set(ce, "4:00");
    assert_eq!(due(&ce), ce.now.after(240_000));
}

#[test]
fn silent_connections_are_asked_at_their_private_end() {
    let mut ce = rig();
    let packet = ce.translate(&tcp([5000, 80], SYN, b"").over4(CLIENT, SERVER));
    let [src, _] = ports6(&packet);
    ce.translate(&tcp([80, src], SYN | ACK, b"").over6(server(), own()));
    ce.translate(&tcp([5000, 80], ACK, b"").over4(CLIENT, SERVER));
    let due = ce.instance.next_deadline().unwrap();
    ce.out.clear();
    ce.instance.expire(due, 10, &mut ce.out);
    let probe = ce.out.packets().next().unwrap();
    assert_intact(probe);
    assert_eq!(
        (ends4(probe), ports4(probe)),
        ((SERVER, CLIENT), [80, 5000])
    );
}

#[test]
fn those_who_wait_in_vain_are_told() {
    let mut ce = rig();
    let syn = tcp([7, 55300], SYN, b"").over6(server(), own());
    ce.drop(&syn, Counter::Type1pkt);
    ce.out.clear();
    ce.instance.close(&mut ce.out);
    assert_eq!(ce.out.errors().len(), 1);
    assert_eq!(ce.out.errors()[0].message[..2], [1, 4]);
}

/// In the words of the family that the packet has.
#[test]
fn one_stranger_too_many_is_told_at_once() {
    let mut ce = rig();
    let most = ce.instance.settings().maximum_simultaneous_opens as u16;
    for n in 0..most {
        let syn = tcp([7 + n, 55300], SYN, b"").over6(server(), own());
        ce.drop(&syn, Counter::Type1pkt);
    }
    let syn = tcp([7 + most, 55300], SYN, b"").over6(server(), own());
    ce.drop(&syn, Counter::SoFull);
    assert_eq!(ce.out.errors().len(), 1);
    assert_eq!(ce.out.errors()[0].message[..2], [1, 4]);
    // Their own hosts, by the shared address.
    let syn = tcp([7, 55300], SYN, b"").over4(CLIENT, SHARED);
    ce.drop(&syn, Counter::SoFull);
    assert_eq!(ce.out.errors().len(), 1);
    assert_eq!(ce.out.errors()[0].message[..2], [3, 3]);
}

#[test]
fn another_prefix_takes_its_mappings_along() {
    let mut ce = rig();
    ce.translate(&udp([5000, 53], b"").over4(CLIENT, SERVER));
    let ce = ce.with(|settings| settings.end_user_ipv6_prefix = Some(CE_774.parse().unwrap()));
    assert_eq!(ce.instance.counters().get(Counter::BibEntries), 0);
    let mut ce = ce;
    let packet = ce.translate(&udp([5000, 53], b"").over4(CLIENT, SERVER));
    assert_eq!(ends6(&packet).0, v6("2001:db8:ce:774:0:c000:23b:14"));
    let mut ce = ce.with(|settings| settings.mapt_napt = false);
    ce.leave(
        &udp([5000, 53], b"").over4(CLIENT, SERVER),
        Counter::MaptAddr4,
    );
}

#[test]
fn no_port_is_taken_for_what_goes_nowhere() {
    let rule = "2001:db8::/40 192.0.2.0/24 16";
    let napt = |settings: &mut Settings| settings.mapt_napt = true;
    let mut ce = Rig::ce(DMR, "2001:db8:12:3400::/56", rule, &[rule]).with(napt);
    // Nobody has this port of another customer.
    ce.drop(
        &udp([5000, 80], b"").over4(CLIENT, v4("192.0.2.19")),
        Counter::MaptPsid,
    );
    let mut ce = ce.with(|settings| settings.pool6 = None);
    ce.leave(
        &udp([5000, 80], b"").over4(CLIENT, SERVER),
        Counter::Pool6Unset,
    );
    assert_eq!(ce.instance.counters().get(Counter::BibEntries), 0);
}
