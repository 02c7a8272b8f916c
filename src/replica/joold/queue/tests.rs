// SPDX-License-Identifier: GPL-2.0-or-later
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::TcpState;
use crate::nat64::tcp::Lifetime;

fn told(port: u16, deadline: u64) -> Told {
    Told {
        v6: Transport6::new("2001:db8::8".parse().unwrap(), port),
        session: SessionState {
            protocol: Protocol::Udp,
            v4: Transport4::new([192, 0, 2, 1].into(), port),
            remote: Transport4::new([203, 0, 113, 1].into(), 53),
            state: TcpState::V6Init,
            lifetime: Lifetime::Udp,
            deadline: Tick(deadline),
            segment: 0,
        },
    }
}

const LIMITS: Limits = Limits {
    deadline: 2000,
    capacity: 5,
    batch: 3,
    asap: false,
};

/// A queue, and how it goes on when every datagram is acknowledged at once.
struct Bench {
    queue: Queue,
    limits: Limits,
    sent: Vec<Vec<u16>>,
}

impl Bench {
    fn new() -> Self {
        Self {
            queue: Queue::new(Tick(0)),
            limits: LIMITS,
            sent: Vec::new(),
        }
    }

    fn push(&mut self, now: u64, port: u16) -> Decision {
        assert!(self.queue.push(&self.limits, told(port, now)));
        self.poll(now)
    }

    fn poll(&mut self, now: u64) -> Decision {
        let mut batch = Vec::new();
        let decision = self.queue.poll(Tick(now), &self.limits, &mut batch);
        assert_eq!(decision.sends(), !batch.is_empty());
        if decision.sends() {
            self.sent
                .push(batch.iter().map(|told| told.v6.port).collect());
        }
        decision
    }
}

//= jool#session-queue
//= type=test
#[test]
fn after_a_quiet_while_a_session_is_told_at_once_and_then_in_company() {
    let mut bench = Bench::new();
    assert_eq!(bench.poll(5_000), Decision::Empty);
    assert_eq!(bench.push(5_000, 1), Decision::Timeout);
    bench.queue.acknowledge();
    assert_eq!(bench.push(5_001, 2), Decision::Queuing);
    assert_eq!(bench.push(5_002, 3), Decision::Queuing);
    assert_eq!(bench.push(5_003, 4), Decision::Full);
    bench.queue.acknowledge();
    assert_eq!(bench.push(5_004, 5), Decision::Queuing);
    assert_eq!(bench.queue.next_deadline(&LIMITS), Some(Tick(7_004)));
    assert_eq!(bench.poll(7_003), Decision::Queuing);
    assert_eq!(bench.poll(7_004), Decision::Timeout);
    assert_eq!(bench.queue.next_deadline(&LIMITS), None);
    assert_eq!(bench.sent, [vec![1], vec![2, 3, 4], vec![5]]);
}

//= jool#session-queue
//= type=test
#[test]
fn a_datagram_waits_for_the_last_one_but_not_beyond_the_deadline() {
    let mut bench = Bench::new();
    for port in 1..=3 {
        bench.push(1, port);
    }
    assert_eq!(bench.sent, [vec![1, 2, 3]]);
    for port in 4..=8 {
        assert_eq!(bench.push(2, port), Decision::MissingAck);
    }
    assert!(!bench.queue.push(&LIMITS, told(9, 2)), "no room");
    assert!(bench.queue.push(&LIMITS, told(8, 3)), "it has its place");
    assert_eq!(bench.poll(2_001), Decision::MissingAck);
    assert_eq!(bench.poll(2_002), Decision::Timeout);
    bench.queue.acknowledge();
    assert_eq!(bench.poll(2_003), Decision::Queuing);
    assert_eq!(bench.sent[1..], [vec![4, 5, 6]]);
}

//= jool#session-queue
//= type=test
#[test]
fn whoever_is_in_a_hurry_does_not_wait_for_company() {
    let mut bench = Bench::new();
    bench.limits.asap = true;
    for port in 1..4 {
        assert_eq!(bench.push(1, port), Decision::Asap);
        bench.queue.acknowledge();
    }
    assert_eq!(bench.sent, [vec![1], vec![2], vec![3]]);
}

//= jool#session-queue
//= type=test
#[test]
fn an_advertisement_tells_everything_as_fast_as_it_is_acknowledged() {
    let mut bench = Bench::new();
    bench.push(1, 100);
    assert_eq!(bench.queue.begin_advertisement(), Ok(()));
    assert_eq!(bench.queue.begin_advertisement(), Err(InProgress));
    assert!(bench.queue.is_hungry(&LIMITS));
    bench.queue.advertise((1..=20).map(|port| told(port, 1)));
    assert!(!bench.queue.is_hungry(&LIMITS));
    // What changes meanwhile has room, too.
    assert_eq!(bench.push(1, 200), Decision::Advertising);
    assert_eq!(bench.poll(2), Decision::MissingAck);
    while bench.queue.len() > 1 {
        bench.queue.acknowledge();
        assert_eq!(bench.poll(2), Decision::Advertising);
    }
    assert!(bench.queue.is_hungry(&LIMITS));
    bench.queue.advertise([told(21, 1)]);
    bench.queue.end_advertisement();
    assert!(!bench.queue.is_hungry(&LIMITS) && bench.queue.is_advertising());
    bench.queue.acknowledge();
    assert_eq!(bench.poll(2), Decision::Advertising);
    assert!(!bench.queue.is_advertising());
    let told: Vec<u16> = bench.sent.concat();
    let expected: Vec<u16> = [100].into_iter().chain(1..=20).chain([200, 21]).collect();
    assert_eq!(told, expected);
    assert_eq!(bench.queue.begin_advertisement(), Ok(()));
    bench.queue.end_advertisement();
    assert!(!bench.queue.is_advertising(), "there was nothing to tell");
}

#[test]
fn a_session_that_changes_while_it_waits_is_told_once() {
    let mut queue = Queue::new(Tick(0));
    for deadline in [10, 20, 30] {
        assert!(queue.push(&LIMITS, told(1, deadline)));
    }
    queue.begin_advertisement().unwrap();
    // Older than what waits.
    queue.advertise([told(1, 5), told(2, 5)]);
    let mut batch = Vec::new();
    queue.poll(Tick(1), &LIMITS, &mut batch);
    assert_eq!(batch, [told(1, 30), told(2, 5)]);
    assert_eq!(batch[0].at(Tick(12)).left, 18);
    assert_eq!(batch[1].at(Tick(12)).left, 0);
}

//= jool#session-queue
//= type=test
#[test]
fn a_datagram_is_as_large_as_settings_and_format_let_it() {
    let settings = |per_packet, payload| Settings {
        ss_max_sessions_per_packet: per_packet,
        ss_max_payload: payload,
        ..Settings::default()
    };
    let batch = |settings: &Settings, format| Limits::new(settings, format).batch;
    let default = Settings::default();
    assert_eq!(Format::ALL.map(|f| batch(&default, f)), [10, 27, 36]);
    assert_eq!(batch(&settings(5, 1452), Format::C), 5);
    assert_eq!(batch(&settings(0, 0), Format::C), 1);
    // Nobody reads more.
    assert_eq!(batch(&settings(u32::MAX, u32::MAX), Format::C), 51);
}

proptest! {
    /// Nothing is lost, nothing is told twice without a change, and what is told is the newest.
    #[test]
    fn every_change_is_told(
        events in prop::collection::vec((0u8..4, 0u16..12, 0u64..900), 1..200),
        asap in any::<bool>(),
    ) {
        let limits = Limits { asap, capacity: usize::MAX, ..LIMITS };
        let (mut queue, mut now) = (Queue::new(Tick(0)), 0);
        let (mut open, mut batch) = (BTreeMap::new(), Vec::new());
        for (event, port, wait) in events {
            now += wait;
            match event {
                0 => queue.acknowledge(),
                1 => drop(queue.begin_advertisement()),
                2 => queue.end_advertisement(),
                _ => {
                    prop_assert!(queue.push(&limits, told(port, now)));
                    open.insert(port, now);
                }
            }
            let decision = queue.poll(Tick(now), &limits, &mut batch);
            prop_assert_eq!(decision.sends(), !batch.is_empty());
            prop_assert!(batch.len() <= limits.batch);
            for told in &batch {
                prop_assert_eq!(open.remove(&told.v6.port), Some(told.session.deadline.0));
            }
            prop_assert_eq!(queue.len(), open.len());
            prop_assert_eq!(queue.places.len(), open.len());
        }
        while let Some(due) = queue.next_deadline(&limits) {
            queue.poll(due, &limits, &mut batch);
            for told in &batch {
                prop_assert_eq!(open.remove(&told.v6.port), Some(told.session.deadline.0));
            }
        }
        prop_assert!(open.is_empty());
    }
}
