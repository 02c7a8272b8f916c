// SPDX-License-Identifier: GPL-2.0-or-later
//! What becomes of packets on their way to the instances.

use super::*;
use crate::base::Protocol;
use crate::daemon::gateway::{stateful, stateless};
use crate::model::settings::Settings;
use crate::model::{EamRow, Pool4Entry, PortRange};
use crate::nat64::pool4::Pool4;
use crate::store::Clock;
use crate::wire::samples::{A4, A6, B6, C4, C6, icmp, udp};

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
