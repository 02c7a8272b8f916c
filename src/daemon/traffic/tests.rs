// SPDX-License-Identifier: GPL-2.0-or-later
//! What becomes of packets on their way to the instances.

use super::*;
use crate::base::Protocol;
use crate::daemon::gateway::{stateful, stateless};
use crate::dataplane::BURST;
use crate::model::settings::Settings;
use crate::model::{EamRow, Pool4Entry, PortRange};
use crate::nat64::pool4::Pool4;
use crate::store::Clock;
use crate::wire::offload::Offload;
use crate::wire::samples::{A4, A6, B4, B6, C4, C6, icmp, tcp, udp};

fn clock() -> Clock {
    Clock {
        tick: Tick(1),
        wall: 1,
    }
}

fn slot(number: usize, flavour: Flavour, pool6: Option<&str>) -> Slot {
    let settings = Settings {
        pool6: pool6.map(|text| text.to_owned().try_into().unwrap()),
        ..Settings::default()
    };
    Slot::new(
        InstanceId(number as i64),
        number.to_string(),
        flavour,
        Framework::Netfilter,
        number,
        Instance::new(flavour, settings, [1; 16]),
    )
}

#[test]
fn an_iptables_instance_gets_what_passes_by_rules_alone() {
    let dir = std::env::temp_dir().join(format!("tylo-passing-{}", std::process::id()));
    let (store, _) = Store::open(&dir, clock).unwrap();
    let traffic = Traffic::new(
        Vec::new(),
        store,
        Addresses::open().unwrap(),
        Log::start(std::io::sink()).unwrap(),
    );
    let mut nat64 = slot(1, Flavour::Nat64, Some("64:ff9b::/96"));
    nat64.framework = Framework::Iptables;
    let mut pool4 = Pool4::default();
    pool4.add(&Pool4Entry {
        mark: 0,
        protocol: Protocol::Udp,
        prefix: A4.to_string().parse().unwrap(),
        ports: PortRange { min: 1, max: 9 },
        max_iterations: None,
    });
    stateful(&mut nat64.lock()).unwrap().set_pool4(pool4, &[]);
    traffic.insert(Arc::new(nat64));

    let load = || udp([7, 8], b"routed here");
    for (bytes, received) in [
        (load().over6(A6, B6), 0),
        (load().over4(C4, A4), 0),
        // From pool4 to pool4: one client of an instance to another.
        (load().over4(A4, A4), 1),
    ] {
        let (mut verdicts, mut out) = ([Verdict::Taken], Output::new());
        let packets = [packet(&bytes, false)];
        traffic.burst(Tick(1), Source::Tun, &packets, &mut verdicts, &mut out);
        let nat64 = traffic.find(Flavour::Nat64, "1").unwrap();
        let counters = nat64.lock().counters();
        let seen = [Counter::Received6, Counter::Received4].map(|c| counters.get(c));
        assert_eq!(seen, [0, received]);
    }
    drop(traffic);
    std::fs::remove_dir_all(&dir).unwrap();
}

fn packet(bytes: &[u8], from_host: bool) -> Received<'_> {
    Received {
        bytes,
        mark: 0,
        ingress_mtu: u32::MAX,
        reassembled: false,
        from_host,
        offload: Offload::NONE,
    }
}

/// What becomes of a packet in the queue of a slot.
fn verdict(traffic: &Traffic, number: usize, bytes: &[u8], from_host: bool) -> Verdict {
    let packet = packet(bytes, from_host);
    let (mut verdicts, mut out) = ([Verdict::Taken], Output::new());
    let source = Source::Slot(number);
    traffic.burst(Tick(1), source, &[packet], &mut verdicts, &mut out);
    assert_eq!(out.len(), usize::from(verdicts[0] == Verdict::Taken));
    verdicts[0]
}

#[test]
fn complaints_of_the_kernel_find_the_instance_that_they_are_for() {
    let dir = std::env::temp_dir().join(format!("tylo-traffic-{}", std::process::id()));
    let (store, _) = Store::open(&dir, clock).unwrap();
    let mapped = slot(2, Flavour::Siit, None);
    for (v6, v4) in [(A6, A4), (C6, C4)] {
        let (v6, v4) = (v6.to_string(), v4.to_string());
        let row = EamRow {
            v6: v6.parse().unwrap(),
            v4: v4.parse().unwrap(),
        };
        let mut instance = mapped.lock();
        let siit = stateless(&mut instance).unwrap();
        siit.eamt.insert(row, false).unwrap();
    }
    let slots = [slot(1, Flavour::Siit, None), mapped];
    let slots = slots.into_iter().map(Arc::new).collect();
    let traffic = Traffic::new(
        slots,
        store,
        Addresses::open().unwrap(),
        Log::start(std::io::sink()).unwrap(),
    );

    let about = udp([7, 8], b"too long").over6(C6, A6);
    let complaint = icmp(2, 0, [0, 0, 5, 0], &about).over6(A6, C6);
    let asked = udp([7, 8], b"too long").over4(C4, A4);
    assert_eq!(verdict(&traffic, 2, &asked, false), Verdict::Taken);
    // In the queue of the first instance, which does not know the addresses.
    assert_eq!(verdict(&traffic, 1, &complaint, true), Verdict::Taken);
    assert_eq!(verdict(&traffic, 1, &complaint, false), Verdict::Accept);
    assert_eq!(verdict(&traffic, 2, &complaint, false), Verdict::Taken);
    let talk = udp([7, 8], b"not a complaint").over6(A6, C6);
    assert_eq!(verdict(&traffic, 1, &talk, true), Verdict::Accept);
    // What a NAT64 instance has sent, the TUN device brings back to it.
    let nat64 = slot(3, Flavour::Nat64, Some("2001:db8:2::/96"));
    traffic.insert(Arc::new(nat64));
    assert_eq!(verdict(&traffic, 1, &complaint, true), Verdict::Accept);
    drop(traffic);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A gateway in service with one NAT64 instance in its first queue, and where its files are.
fn nat64(name: &str) -> (Traffic, std::path::PathBuf) {
    let dir = std::env::temp_dir().join(format!("tylo-{name}-{}", std::process::id()));
    let (store, _) = Store::open(&dir, clock).unwrap();
    let nat64 = slot(1, Flavour::Nat64, Some("64:ff9b::/96"));
    let mut pool4 = Pool4::default();
    for protocol in Protocol::ALL {
        pool4.add(&Pool4Entry {
            mark: 0,
            protocol,
            prefix: A4.to_string().parse().unwrap(),
            ports: PortRange {
                min: 1_024,
                max: 65_535,
            },
            max_iterations: None,
        });
    }
    stateful(&mut nat64.lock()).unwrap().set_pool4(pool4, &[]);
    let traffic = Traffic::new(
        vec![Arc::new(nat64)],
        store,
        Addresses::open().unwrap(),
        Log::start(std::io::sink()).unwrap(),
    );
    (traffic, dir)
}

/// Hands over bursts to a queue; what came out.
fn through(traffic: &Traffic, now: u64, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for burst in packets.chunks(BURST) {
        let received: Vec<_> = burst.iter().map(|bytes| packet(bytes, false)).collect();
        let (mut verdicts, mut out) = ([Verdict::Accept; BURST], Output::new());
        let verdicts = &mut verdicts[..burst.len()];
        let source = Source::Slot(1);
        traffic.burst(Tick(now), source, &received, verdicts, &mut out);
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Taken));
        all.extend(out.packets().map(<[u8]>::to_vec));
    }
    all
}

/// The port of a packet at an offset.
fn port(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// Two workers have the two directions of all flows, a third one begins and ends others.
#[test]
fn the_directions_of_a_flow_meet_on_different_workers() {
    const FLOWS: u16 = 300;
    const ROUNDS: u64 = 200;
    let (traffic, dir) = nat64("directions");
    let ask = |flow: u16| udp([flow, 53], &flow.to_be_bytes()).over6(A6, B6);
    let asked: Vec<_> = (1..=FLOWS).map(ask).collect();
    let sent = through(&traffic, 1, &asked);
    let ports: Vec<_> = sent.iter().map(|packet| port(packet, 20)).collect();
    let answer = |(flow, to): (u16, &u16)| udp([53, *to], &flow.to_be_bytes()).over4(B4, A4);
    let answers: Vec<_> = (1..=FLOWS).zip(&ports).map(answer).collect();
    let segment = |flags: u8| tcp([4000, 80], flags, b"").over6(A6, B6);

    let begin = std::sync::Barrier::new(3);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            begin.wait();
            for round in 0..ROUNDS {
                let sent = through(&traffic, 1 + 97 * round, &asked);
                assert_eq!(sent.len(), asked.len());
                for packet in &sent {
                    let flow = port(packet, 28);
                    assert_eq!(port(packet, 20), ports[usize::from(flow - 1)]);
                }
            }
        });
        scope.spawn(|| {
            begin.wait();
            for round in 0..ROUNDS {
                let back = through(&traffic, 1 + 97 * round, &answers);
                assert_eq!(back.len(), answers.len());
                for packet in &back {
                    assert_eq!(packet[24..40], A6.octets());
                    assert_eq!(port(packet, 42), port(packet, 48), "to its own client");
                }
            }
        });
        scope.spawn(|| {
            begin.wait();
            for round in 0..ROUNDS {
                let packets = [segment(0x02), udp([9_999, round as u16], b"").over6(A6, B6)];
                assert_eq!(through(&traffic, 1 + 97 * round, &packets).len(), 2);
            }
        });
    });

    let slot = traffic.find(Flavour::Nat64, "1").unwrap();
    let instance = slot.read();
    let counters = instance.counters();
    let (flows, rounds) = (u64::from(FLOWS), ROUNDS);
    let (six, four) = (flows * (rounds + 1) + 2 * rounds, flows * rounds);
    assert_eq!(counters.get(Counter::Received6), six);
    assert_eq!(counters.get(Counter::Received4), four);
    assert_eq!(counters.get(Counter::Success), six + four);
    assert_eq!(counters.get(Counter::Sessions), flows + 1 + rounds);
    let last = Tick(1 + 97 * (ROUNDS - 1)).after(instance.settings().udp_timeout);
    let udp = instance.nat64().unwrap().table(Protocol::Udp);
    let of_flows = udp.sessions().filter(|(bib, _)| bib.v6.port <= FLOWS);
    assert!(
        of_flows
            .map(|(_, session)| session.deadline())
            .all(|end| end == last)
    );
    drop((instance, traffic));
    std::fs::remove_dir_all(&dir).unwrap();
}

/// What ends a connection needs the instance for itself; what follows it in the same burst does
/// not, and waits nevertheless.
#[test]
fn no_packet_overtakes_one_of_its_flow() {
    let (traffic, dir) = nat64("order");
    let segment = |port: u16, flags: u8, data: &[u8]| tcp([port, 80], flags, data).over6(A6, B6);
    let mut now = 1;
    for flow in 1..=40 {
        let syn = through(&traffic, now, &[segment(flow, 0x02, b"")]);
        let to = port(&syn[0], 20);
        through(&traffic, now, &[tcp([80, to], 0x12, b"").over4(B4, A4)]);
        now += 1;
    }
    let mut burst = Vec::new();
    for (number, flags) in [0x10, 0x11, 0x10].into_iter().enumerate() {
        burst.extend((1..=20).map(|flow| segment(2 * flow, flags, &[number as u8])));
    }
    let sent = through(&traffic, now, &burst);
    assert_eq!(sent.len(), burst.len());
    let mut seen = std::collections::BTreeMap::<_, Vec<u8>>::new();
    for packet in &sent {
        seen.entry(port(packet, 20)).or_default().push(packet[40]);
    }
    assert_eq!(seen.len(), 20);
    assert!(
        seen.values().all(|numbers| *numbers == [0, 1, 2]),
        "{seen:?}"
    );
    drop(traffic);
    std::fs::remove_dir_all(&dir).unwrap();
}
