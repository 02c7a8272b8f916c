// SPDX-License-Identifier: GPL-2.0-or-later
use std::sync::mpsc::sync_channel;

use super::walker::walk_all;
use super::*;
use crate::base::counters::Counter;
use crate::base::prefix::Pool6;
use crate::base::{Protocol, Tick};
use crate::daemon::log::Log;
use crate::daemon::outlet::Next;
use crate::daemon::traffic::Traffic;
use crate::dataplane::{Addresses, Handler, Received, Source, Verdict};
use crate::engine::Instance;
use crate::model::settings::Settings;
use crate::model::sync::Format;
use crate::model::{Flavour, Framework, Pool4Entry, PortRange, TcpState};
use crate::nat64::merge::ForeignSession;
use crate::nat64::pool4::Pool4;
use crate::replica::joold::wire;
use crate::store::{Clock, InstanceId, Store};
use crate::wire::output::Output;
use crate::wire::samples::{A6, udp};

const NOW: Duration = Duration::ZERO;

fn pool6() -> Pool6 {
    "64:ff9b::/96".to_owned().try_into().unwrap()
}

/// A gateway with one instance.
fn traffic(ss_enabled: bool) -> (Traffic, Arc<Slot>) {
    let settings = Settings {
        pool6: Some(pool6()),
        ss_enabled,
        ..Settings::default()
    };
    let mut instance = Instance::new(Flavour::Nat64, settings, [1; 16]);
    let mut pool4 = Pool4::default();
    for protocol in Protocol::ALL {
        pool4.add(&Pool4Entry {
            mark: 0,
            protocol,
            prefix: "192.0.2.1".parse().unwrap(),
            ports: PortRange {
                min: 61_001,
                max: 65_535,
            },
            max_iterations: None,
        });
    }
    stateful(&mut instance).unwrap().set_pool4(pool4, &[]);
    let (nat64, framework) = (Flavour::Nat64, Framework::Netfilter);
    let slot = Slot::new(InstanceId(1), "x".to_owned(), nat64, framework, 1, instance);
    let slot = Arc::new(slot);
    let clock = || Clock {
        tick: Tick(1),
        wall: 1,
    };
    let traffic = Traffic::new(
        vec![Arc::clone(&slot)],
        Store::ephemeral(clock),
        Addresses::open().unwrap(),
        Log::start(std::io::sink()).unwrap(),
    );
    (traffic, slot)
}

fn network() -> Network {
    Network {
        group: "ff08::1".parse().unwrap(),
        port: 6464,
        dev_in: None,
        dev_out: None,
        ttl: 1,
        format: Format::C,
        stats: None,
    }
}

fn foreign(protocol: Protocol, port: u16, remote: &str) -> ForeignSession {
    ForeignSession {
        protocol,
        v6: format!("2001:db8::9#{port}").parse().unwrap(),
        v4: format!("192.0.2.1#{port}").parse().unwrap(),
        remote: remote.parse().unwrap(),
        state: TcpState::Established,
        lifetime: match protocol {
            Protocol::Tcp => Lifetime::TcpEstablished,
            Protocol::Udp => Lifetime::Udp,
            Protocol::Icmp => Lifetime::Icmp,
        },
        left: 50_000,
        segment: 0,
    }
}

/// Has a listener hear a datagram with these sessions.
fn hear(traffic: &Traffic, slot: &Slot, talk: &Talk, sessions: &[ForeignSession]) {
    let mut datagram = Vec::new();
    for session in sessions {
        wire::encode(Format::A, pool6(), session, &mut datagram);
    }
    let mut listener = Listener::new(traffic, slot, talk, pool6());
    for _ in 0..2 {
        listener.take("[fe80::1]:6464".parse().unwrap(), &datagram);
    }
    listener.merge();
}

#[test]
fn peers_hear_what_packets_do_and_not_what_peers_said() {
    let (traffic, slot) = traffic(true);
    let followed = slot.followers.subscribe(true).unwrap();
    let mut guard = slot.sync.begin("x", network()).unwrap().unwrap();
    let bytes = udp([5000, 53], b"question").over6(A6, pool6().embed([203, 0, 113, 2].into()));
    let packet = Received {
        bytes: &bytes,
        mark: 0,
        ingress_mtu: u32::MAX,
        reassembled: false,
        from_host: false,
        offload: crate::wire::offload::Offload::NONE,
    };
    let (mut verdicts, mut out) = ([Verdict::Accept], Output::new());
    let source = Source::Slot(1);
    traffic.burst(Tick(1), source, &[packet], &mut verdicts, &mut out);
    assert_eq!(verdicts, [Verdict::Taken]);
    let Next::News(news) = guard.inlet.next(NOW) else {
        panic!("nothing was told");
    };
    assert_eq!(news.changes.iter().filter(|c| is_told(c)).count(), 1);

    let talk = Arc::clone(&guard.talk);
    let tcp = foreign(Protocol::Tcp, 61_005, "203.0.113.1#80");
    let outside = foreign(Protocol::Udp, 80, "203.0.113.1#53");
    hear(&traffic, &slot, &talk, &[tcp, outside]);
    assert!(matches!(guard.inlet.next(NOW), Next::Silence));
    let counts = *talk.counts();
    let size = 2 * wire::size(Format::A) as u64;
    let expected = Counts {
        datagrams_in: 2,
        bytes_in: 2 * size,
        sessions_in: 2,
        merged: 1,
        duplicates: 1,
        refused: 1,
        ..Counts::default()
    };
    assert_eq!(counts, expected);
    let counters = slot.lock().counters();
    let seen = [
        Counter::Sessions,
        Counter::JooldPktRcvd,
        Counter::JooldSssRcvd,
    ];
    assert_eq!(seen.map(|c| counters.get(c)), [2, 2, 2]);
    drop(followed);
    slot.sync.close();
    assert!(matches!(guard.inlet.next(NOW), Next::Closed));
    assert!(slot.sync.begin("x", network()).unwrap().is_none());
}

#[test]
fn whoever_does_not_share_is_not_told_anything() {
    let (traffic, slot) = traffic(false);
    let guard = slot.sync.begin("x", network()).unwrap().unwrap();
    let tcp = foreign(Protocol::Tcp, 61_005, "203.0.113.1#80");
    hear(&traffic, &slot, &guard.talk, &[tcp]);
    assert_eq!(guard.talk.counts().refused, 1);
    assert_eq!(slot.lock().counters().get(Counter::Sessions), 0);
    let health = slot.sync.health(false).unwrap();
    assert!(!health.enabled && health.traffic.refused == 1);
}

#[test]
fn a_place_is_free_as_soon_as_its_holder_is_gone() {
    let port = Port::default();
    let first = port.begin("x", network()).unwrap().unwrap();
    thread::scope(|scope| {
        let second = scope.spawn(|| port.begin("x", network()).map(|guard| guard.is_some()));
        thread::sleep(LOOK_AGAIN);
        drop(first);
        assert_eq!(second.join().unwrap(), Ok(true));
    });
    assert!(!port.is_open() && port.health(true).is_none());
}

//= jool#session-advertise
//= type=test
#[test]
fn all_sessions_are_told_by_protocol_mapping_and_server() {
    let (traffic, slot) = traffic(true);
    let guard = slot.sync.begin("x", network()).unwrap().unwrap();
    let all = [
        foreign(Protocol::Tcp, 61_001, "203.0.113.1#81"),
        foreign(Protocol::Tcp, 61_001, "203.0.113.2#80"),
        foreign(Protocol::Tcp, 61_002, "203.0.113.1#80"),
        foreign(Protocol::Udp, 61_001, "203.0.113.1#53"),
        foreign(Protocol::Icmp, 61_001, "203.0.113.1#0"),
    ];
    let mut shuffled = all;
    shuffled.reverse();
    hear(&traffic, &slot, &guard.talk, &shuffled);
    let (sender, receiver) = sync_channel(8);
    walk_all(&slot, &sender);
    drop(sender);
    let told: Vec<_> = receiver.into_iter().flatten().collect();
    let found: Vec<_> = told
        .iter()
        .map(|t| (t.session.protocol, t.v6, t.session.remote))
        .collect();
    let expected: Vec<_> = all.iter().map(|s| (s.protocol, s.v6, s.remote)).collect();
    assert_eq!(found, expected);
    // Nobody takes them.
    let (sender, receiver) = sync_channel(0);
    drop(receiver);
    walk_all(&slot, &sender);
}
