// SPDX-License-Identifier: GPL-2.0-or-later
//! What is handled in turns, and what is left of it, against packets handled one by one.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use crate::base::counters::Counter;
use crate::base::host::Host;
use crate::base::{Protocol, Tick, Transport6};
use crate::engine::{Instance, Meta, Outcome};
use crate::model::settings::{Setting, Settings};
use crate::model::{EamRow, Flavour, Pool4Entry, PortRange};
use crate::nat64::pool4::Pool4;
use crate::nat64::{Change, Nat64};
use crate::wire::offload::{Offload, Segments, tcp_offset};
use crate::wire::output::Output;
use crate::wire::samples::{B4, B6, C6, icmp, tcp, udp};

const SYN: u8 = 0x02;
const POOL4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const CE: &str = "2001:db8:ce:11b::/64";
const RULE: &str = "2001:db8:ce:11b::/64 192.0.2.1/32 0 0";
const CE_ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xce, 0x11b, 0, 0xc000, 0x201, 0);

/// A host that may have the address that clients are hidden behind.
struct Gateway(bool);

impl Host for Gateway {
    fn has_address4(&self, addr: Ipv4Addr) -> bool {
        self.0 && addr == POOL4
    }

    fn has_broadcast4(&self, _: Ipv4Addr) -> bool {
        false
    }

    fn source4(&self, _: Ipv4Addr) -> Option<Ipv4Addr> {
        Some(POOL4)
    }

    fn source6(&self, _: Ipv6Addr) -> Option<Ipv6Addr> {
        Some(C6)
    }
}

/// Every second TCP packet is a super-packet, or has its checksum to be completed.
fn meta<'a>(host: &'a Gateway, packet: &[u8]) -> Meta<'a> {
    let tcp = tcp_offset(packet).is_some() && packet.len().is_multiple_of(2);
    Meta {
        offload: Offload {
            partial: tcp,
            segments: if tcp { Segments::Some } else { Segments::One },
            place: None,
        },
        mark: 0,
        ingress_mtu: u32::MAX,
        reassembled: false,
        from_host: false,
        may_wait: true,
        host,
    }
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Event {
    /// Bytes of a packet, and those that are other ones.
    Packet(Vec<u8>, Vec<(prop::sample::Index, u8)>),
    /// Milliseconds.
    Wait(u64),
    /// The host has its address, or lost it.
    Move(bool),
}

/// Packets of few flows, so that they meet; of the addresses of every kind of instance.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let six = (0u8..4, 0u8..3).prop_map(|(client, server)| {
        let client = match client {
            0 => CE_ADDRESS,
            n => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()),
        };
        let server = match server {
            // One of our own: a hairpin.
            0 => "64:ff9b::192.0.2.1".parse().unwrap(),
            n => Ipv6Addr::from(u128::from(B6) + u128::from(n)),
        };
        (client, server)
    });
    let four = (0u8..2, any::<bool>()).prop_map(|(server, private)| {
        let server = Ipv4Addr::from(u32::from(B4) + u32::from(server) + 1);
        let client = if private {
            Ipv4Addr::new(10, 0, 0, 1)
        } else {
            POOL4
        };
        (client, server)
    });
    let load = (0u8..4, 0u8..32, 0u16..3, any::<bool>()).prop_map(|(kind, flags, port, out)| {
        let ports = [61_001 + port, 80];
        let ports = if out { ports } else { [ports[1], ports[0]] };
        let [high, low] = ports[usize::from(!out)].to_be_bytes();
        let echo = if out { 8 } else { 0 };
        match kind {
            0 => (tcp(ports, flags, b"data"), out),
            1 => (tcp(ports, 0x10, b"data"), out),
            2 => (udp(ports, b"data"), out),
            _ => (icmp(echo, 0, [high, low, 0, 1], b"data"), out),
        }
    });
    (six, four, load, any::<bool>(), 0u8..8).prop_map(
        |((client6, server6), (client4, server4), (load, out), over6, about)| {
            let bytes = match (over6, out) {
                (true, true) => load.over6(client6, server6),
                (true, false) => load.over6(server6, client6),
                (false, true) => load.over4(client4, server4),
                (false, false) => load.over4(server4, client4),
            };
            match (about, over6, out) {
                (0, true, true) => icmp(1, 4, [0; 4], &bytes).over6(server6, client6),
                (0, true, false) => icmp(1, 4, [0; 4], &bytes).over6(client6, server6),
                (0, false, true) => icmp(3, 3, [0; 4], &bytes).over4(server4, client4),
                (0, false, false) => icmp(3, 3, [0; 4], &bytes).over4(client4, server4),
                _ => bytes,
            }
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let other = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3);
    prop_oneof![
        20 => packet().prop_map(|bytes| Event::Packet(bytes, Vec::new())),
        2 => (packet(), other).prop_map(|(bytes, other)| Event::Packet(bytes, other)),
        6 => prop::sample::select(vec![1, 30, 1_000, 4_000, 60_000, 7_200_000]).prop_map(Event::Wait),
        1 => any::<bool>().prop_map(Event::Move),
    ]
}

/// An instance of each kind; `filter` turns on what has packets refused.
fn instance(kind: u8, filter: bool) -> Instance {
    let (flavour, keys): (_, &[(&str, &str)]) = match kind {
        0 | 1 => (Flavour::Nat64, &[("pool6", "64:ff9b::/96")]),
        2 => (Flavour::Siit, &[("pool6", "64:ff9b::/96")]),
        3 => (Flavour::Mapt, &[("pool6", "64:ff9b::/96")]),
        _ => (
            Flavour::Mapt,
            &[
                ("pool6", "64:ff9b::/96"),
                ("end-user-ipv6-prefix", CE),
                ("bmr", RULE),
            ],
        ),
    };
    let mut settings = Settings::default();
    for (key, text) in keys {
        let value = Setting::find(flavour, key).unwrap().parse(text).unwrap();
        settings.set(flavour, key, value, false).unwrap();
    }
    settings.address_dependent_filtering = filter;
    settings.mapt_napt = kind == 4;
    settings.handle_rst_during_fin_rcv = filter;
    let mut instance = Instance::new(flavour, settings, [3; 16]);
    if kind == 0 {
        let mut pool4 = Pool4::default();
        for protocol in Protocol::ALL {
            pool4.add(&Pool4Entry {
                mark: 0,
                protocol,
                prefix: POOL4.to_string().parse().unwrap(),
                ports: PortRange {
                    min: 61_001,
                    max: 61_003,
                },
                max_iterations: None,
            });
        }
        instance.nat64_mut().unwrap().set_pool4(pool4, &[]);
    }
    if let Some(siit) = instance.siit_mut() {
        let row = EamRow {
            v6: "2001:db8::/126".parse().unwrap(),
            v4: "192.0.2.0/30".parse().unwrap(),
        };
        siit.eamt.insert(row, false).unwrap();
    }
    if let Some(mapt) = instance.mapt_mut().filter(|_| kind != 4) {
        mapt.fmrt.insert(RULE.parse().unwrap()).unwrap();
    }
    instance
}

/// All that can be seen of an instance, and what became of a packet.
#[derive(Debug, PartialEq)]
struct Seen {
    outcome: Option<Outcome>,
    out: Vec<Vec<u8>>,
    errors: String,
    changes: Vec<Change>,
    counters: Vec<(Counter, u64)>,
    sessions: Vec<Change>,
    strays: String,
}

fn look(instance: &mut Instance, outcome: Option<Outcome>, out: &mut Output) -> Seen {
    let mut changes = Vec::new();
    instance.drain_changes(&mut changes);
    let seen = Seen {
        outcome,
        out: out.packets().map(<[u8]>::to_vec).collect(),
        errors: format!("{:?}", out.errors()),
        changes,
        counters: instance.counters().iter().collect(),
        sessions: instance.sessions().map(Nat64::snapshot).unwrap_or_default(),
        strays: format!("{:?}", instance.strays()),
    };
    out.clear();
    seen
}

proptest! {
    #[test]
    fn a_turn_and_what_it_leaves_come_to_the_same_as_one_by_one(
        kind in 0u8..6,
        filter in any::<bool>(),
        events in prop::collection::vec(event(), 1..150),
    ) {
        let (mut alone, mut turns) = (instance(kind, filter), instance(kind, filter));
        let (mut now, mut host, mut out) = (Tick(1_000), Gateway(true), Output::new());
        for (number, event) in events.into_iter().enumerate() {
            let (one, other) = match event {
                Event::Packet(mut bytes, changes) => {
                    for (at, byte) in changes {
                        let at = at.index(bytes.len());
                        bytes[at] = byte;
                    }
                    // Of the same packet, as its number is.
                    for instance in [&mut alone, &mut turns] {
                        *instance.identification.get_mut() = number as u16;
                    }
                    let meta = meta(&host, &bytes);
                    let outcome = alone.handle(now, &meta, &bytes, &mut out);
                    let one = look(&mut alone, Some(outcome), &mut out);
                    let mut outcome = turns.turn(now, number, 1).handle(&meta, &bytes, &mut out);
                    if outcome.is_none() {
                        prop_assert!(out.is_empty() && out.errors().is_empty());
                        *turns.identification.get_mut() = number as u16;
                        outcome = Some(turns.handle(now, &meta, &bytes, &mut out));
                    }
                    (one, look(&mut turns, outcome, &mut out))
                }
                Event::Wait(ms) => {
                    now = now.after(ms);
                    alone.expire(now, usize::MAX, &mut out);
                    let one = look(&mut alone, None, &mut out);
                    turns.expire(now, usize::MAX, &mut out);
                    (one, look(&mut turns, None, &mut out))
                }
                Event::Move(has) => {
                    host.0 = has;
                    continue;
                }
            };
            prop_assert_eq!(one, other);
        }
    }
}

/// Whether a packet is handled in a turn. What is not is handled afterwards.
fn is_shared(instance: &mut Instance, now: Tick, packet: &[u8]) -> bool {
    let (host, mut out) = (Gateway(true), Output::new());
    let meta = meta(&host, packet);
    let outcome = instance.turn(now, 0, 1).handle(&meta, packet, &mut out);
    let shared = outcome == Some(Outcome::Translated);
    if outcome.is_none() {
        instance.handle(now, &meta, packet, &mut out);
    }
    shared
}

#[test]
fn packets_of_known_sessions_need_no_instance_for_themselves() {
    let (client, server) = (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), B6);
    let mut nat64 = instance(0, false);
    let mut shared = |ms: u64, load: crate::wire::samples::Load| {
        is_shared(&mut nat64, Tick(ms), &load.over6(client, server))
    };
    let segment = |flags| tcp([4000, 80], flags, b"data");
    assert!(!shared(1_000, udp([4000, 53], b"begins a session")));
    assert!(shared(1_001, udp([4000, 53], b"keeps it alive")));
    assert!(shared(5_999, udp([4000, 53], b"keeps it alive")));
    assert!(!shared(6_000, udp([4000, 53], b"is worth a report")));
    assert!(shared(6_001, udp([4000, 53], b"keeps it alive")));
    assert!(!shared(1_000, segment(SYN)));
    assert!(
        shared(1_000, segment(0x10)),
        "is not open yet, nothing moves"
    );
    let tables = nat64.nat64().unwrap();
    let v4 = tables.mapped_v4(Protocol::Tcp, Transport6::new(client, 4000));
    let answer = tcp([80, v4.unwrap().port], SYN | 0x10, b"").over4(B4, POOL4);
    assert!(!is_shared(&mut nat64, Tick(1_000), &answer));
    let mut shared = |flags| {
        is_shared(
            &mut nat64,
            Tick(1_000),
            &segment(flags).over6(client, server),
        )
    };
    assert!(shared(0x10));
    assert!(!shared(SYN));
    assert!(!shared(0x11), "FIN");
    assert!(shared(0x10), "half-closed");

    // Not what the host is called itself.
    let other = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
    let stateless = [
        (2, udp([4000, 53], b"").over6(other, server)),
        (3, udp([53, 4000], b"").over4(B4, POOL4)),
        (3, udp([4000, 53], b"").over6(CE_ADDRESS, server)),
        (5, udp([53, 4000], b"").over6(server, CE_ADDRESS)),
        (5, udp([4000, 53], b"").over4(POOL4, B4)),
    ];
    for (kind, packet) in stateless {
        let shared = is_shared(&mut instance(kind, false), Tick(1), &packet);
        assert!(shared, "{kind} {packet:?}");
    }
    let mut napt = instance(4, false);
    let private = udp([4000, 53], b"").over4(Ipv4Addr::new(10, 0, 0, 1), B4);
    assert!(!is_shared(&mut napt, Tick(1), &private));
    assert!(is_shared(&mut napt, Tick(1), &private));
}
