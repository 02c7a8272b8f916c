// SPDX-License-Identifier: GPL-2.0-or-later
//! Random histories against the simplest thing that could be a NAT64's memory.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::merge::{ForeignSession, Merged, Order};
use super::super::sessions::{REPORT_AFTER, length};
use super::*;

/// One step of a random history.
#[derive(Clone, Debug)]
enum Event {
    Out(Protocol, u8, u16, u8, TcpFlags),
    In(Protocol, u16, u8, TcpFlags),
    Wait(u64),
    Add(Protocol, u8, u16, u16),
    Remove(Protocol, u16),
    Merge(ForeignSession, Order),
    Forget(Protocol, u16, u8),
    /// Other timeouts, in minutes, another filter, another limit of sessions.
    Configure(u64, bool, u32),
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let protocol = || prop::sample::select(Protocol::ALL.to_vec());
    let flags = || {
        (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(syn, fin, rst)| TcpFlags {
            syn,
            fin,
            rst,
        })
    };
    prop_oneof![
        6 => (protocol(), 0u8..6, 0u16..3, 0u8..4, flags())
            .prop_map(|(p, h, c, s, f)| Event::Out(p, h, c, s, f)),
        6 => (protocol(), 61000u16..61012, 0u8..4, flags())
            .prop_map(|(p, v, s, f)| Event::In(p, v, s, f)),
        2 => prop::sample::select(vec![1, 3_000, 50_000, 200_000, 8_000_000]).prop_map(Event::Wait),
        1 => (protocol(), 0u8..6, 0u16..3, 61000u16..61012).prop_map(|(p, h, c, v)| Event::Add(p, h, c, v)),
        1 => (protocol(), 61000u16..61012).prop_map(|(p, v)| Event::Remove(p, v)),
        4 => foreign().prop_map(|(foreign, order)| Event::Merge(foreign, order)),
        1 => (protocol(), 61000u16..61012, 0u8..4).prop_map(|(p, v, s)| Event::Forget(p, v, s)),
        1 => (2u64..20, any::<bool>(), 0u32..12).prop_map(|(m, f, n)| Event::Configure(m, f, n)),
        1 => Just(Event::Restart),
    ]
}

/// Milliseconds.
const LINGER: u64 = 12_000;

/// What a peer may say, sensible or not.
fn foreign() -> impl Strategy<Value = (ForeignSession, Order)> {
    use Lifetime::{Icmp, TcpEstablished, TcpIncomingSyn, TcpTransitory, Udp};
    let lifetimes = vec![Icmp, TcpEstablished, TcpIncomingSyn, TcpTransitory, Udp];
    (
        prop::sample::select(Protocol::ALL.to_vec()),
        (0u8..6, 0u16..3, 61000u16..61012, 0u8..4),
        prop::sample::select(TcpState::ALL.to_vec()),
        prop::sample::select(lifetimes),
        prop::sample::select(vec![0, 1, 3_000, 100_000, 7_200_000, u64::MAX]),
        prop::sample::select(vec![
            Order::Unknown,
            Order::Newer { linger: 0 },
            Order::Newer { linger: LINGER },
        ]),
    )
        .prop_map(|(protocol, (h, c, v, s), state, lifetime, left, order)| {
            let foreign = ForeignSession {
                protocol,
                v6: client(h, c),
                v4: Transport4::new([192, 0, 2, 1].into(), v),
                remote: server(s, 80),
                state,
                lifetime,
                left,
                segment: 0,
            };
            (foreign, order)
        })
}

proptest! {
    /// No two mappings share an address, every session belongs to one, expiry leaves nothing
    /// behind. A copy that only ever hears of changes agrees with the tables, and a restart from the copy changes nothing.
    #[test]
    fn any_history_keeps_the_promises(events in prop::collection::vec(event(), 1..300)) {
        let (mut nat64, mut settings) = (nat64(), Settings::default());
        let mut now = Tick(1);
        let mut copy = Copy::default();
        let mut changes = Vec::new();
        for event in events {
            match event {
                Event::Out(p, h, c, s, f) => {
                    let before = nat64.mapped_v4(p, client(h, c));
                    let got = nat64.outbound(now, &settings, &Nameless, out(p, client(h, c), server(s, 80), f));
                    if let (Some(before), Ok(got)) = (before, got) {
                        prop_assert_eq!(before, got, "mappings do not move");
                    }
                }
                Event::In(p, v, s, f) => {
                    let v4 = Transport4::new([192, 0, 2, 1].into(), v);
                    let mapped = nat64.mapped_v6(p, v4);
                    let known = copy.knows(p, v4, server(s, 80));
                    let got = nat64.inbound(now, &settings, inc(p, server(s, 80), v4, f));
                    if settings.address_dependent_filtering && (p != Protocol::Tcp || f.syn) {
                        let limited = got.is_err_and(|r| r.reason == Counter::Enomem);
                        prop_assert_eq!(got.is_ok() || limited, known || limited, "strangers stay outside");
                    }
                    if let Ok(got) = got {
                        prop_assert_eq!(Some(got), mapped);
                    }
                }
                Event::Wait(ms) => {
                    now = now.after(ms);
                    nat64.expire(now, &settings, usize::MAX);
                    prop_assert!(nat64.next_deadline().is_none_or(|d| d > now));
                }
                Event::Add(p, h, c, v) => {
                    let v4 = Transport4::new([192, 0, 2, 1].into(), v);
                    let _ = nat64.bib_add(p, client(h, c), v4);
                }
                Event::Remove(p, v) => {
                    let v4 = Transport4::new([192, 0, 2, 1].into(), v);
                    let _ = nat64.bib_remove(p, None, Some(v4));
                }
                Event::Merge(foreign, order) => {
                    let ForeignSession { protocol, v6, v4, remote, .. } = foreign;
                    let before = nat64.mapped_v4(protocol, v6);
                    let merged = nat64.merge_session(now, &settings, &foreign, order);
                    let after = nat64.session(protocol, v4, remote);
                    let after = after.filter(|(client, _)| *client == v6).map(|(_, after)| after);
                    let linger = if order == Order::Unknown { 0 } else { LINGER };
                    match merged {
                        Merged::New | Merged::Updated => {
                            let after = after.unwrap();
                            prop_assert_eq!(after.lifetime, foreign.lifetime);
                            let longest = now.after(length(&settings, after.lifetime) + linger);
                            prop_assert!(after.deadline <= longest);
                            prop_assert!(before.is_some() || nat64.pool4().contains(protocol, v4));
                        }
                        Merged::Unchanged => prop_assert!(after.is_some()),
                        Merged::Displaced if order != Order::Unknown => prop_assert!(false, "of another mapping"),
                        Merged::Displaced | Merged::Collision => {
                            prop_assert!(before.is_some_and(|before| before != v4));
                        }
                        Merged::Refused(_) => prop_assert_eq!(before, nat64.mapped_v4(protocol, v6)),
                    }
                    if before.is_some() {
                        prop_assert_eq!(before, nat64.mapped_v4(protocol, v6), "mappings do not move");
                    }
                }
                Event::Forget(p, v, s) => {
                    let (v4, remote) = (Transport4::new([192, 0, 2, 1].into(), v), server(s, 80));
                    let there = nat64.session(p, v4, remote).is_some();
                    prop_assert_eq!(nat64.remove_session(p, v4, remote), there);
                    prop_assert!(nat64.session(p, v4, remote).is_none());
                }
                Event::Configure(minutes, filter, most) => {
                    let new = Settings {
                        udp_timeout: minutes * 60_000,
                        tcp_trans_timeout: minutes * 120_000,
                        address_dependent_filtering: filter,
                        handle_rst_during_fin_rcv: filter,
                        maximum_sessions_per_prefix: most,
                        source_prefix_length: 125,
                        ..settings.clone()
                    };
                    nat64.retime(&settings, &new);
                    settings = new;
                }
                Event::Restart => {
                    let mut next = self::nat64();
                    copy.restore(&mut next, now, &settings);
                    nat64 = next;
                }
            }
            nat64.drain_changes(&mut changes);
            copy.follow(&changes);
            copy.compare(&nat64)?;
            let held = nat64.opens.len();
            prop_assert!(held <= settings.maximum_simultaneous_opens as usize);
        }
        nat64.expire(Tick(u64::MAX), &settings, usize::MAX);
        nat64.expire(Tick(u64::MAX), &settings, usize::MAX);
        for protocol in Protocol::ALL {
            prop_assert_eq!(nat64.table(protocol).session_count(), 0);
            prop_assert!(nat64.table(protocol).bibs().all(|bib| bib.is_static));
            for bib in nat64.table(protocol).bibs().map(|bib| bib.v6).collect::<Vec<_>>() {
                nat64.bib_remove(protocol, Some(bib), None).unwrap();
            }
            let free = nat64.table(protocol).first_free([192, 0, 2, 1].into(), 61001, 61010);
            prop_assert_eq!(free, Some(61001), "every port is free again");
        }
        prop_assert_eq!(nat64.opens.len(), 0);
        prop_assert_eq!(nat64.next_deadline(), None);
    }
}

/// The simplest thing that could be a NAT64's memory.
#[derive(Default)]
struct Copy {
    mappings: BTreeMap<(Protocol, Transport4), Mapping>,
    sessions: BTreeMap<(Protocol, Transport4, Transport4), SessionState>,
}

impl Copy {
    fn follow(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Mapping(m) => {
                    let before = self.mappings.insert((m.protocol, m.v4), *m);
                    assert_eq!(before, None, "nothing is born twice");
                }
                Change::MappingFixed(m) => {
                    let before = self.mappings.insert((m.protocol, m.v4), *m);
                    assert_eq!(before.map(|b| b.v6), Some(m.v6));
                }
                Change::MappingGone { protocol, v6, v4 } => {
                    let before = self.mappings.remove(&(*protocol, *v4));
                    assert_eq!(before.map(|b| b.v6), Some(*v6));
                    let mut left = self.sessions.keys().map(|(p, m, _)| (p, m));
                    assert!(!left.any(|key| key == (protocol, v4)), "each death is told");
                }
                Change::Session {
                    session: s,
                    v6,
                    news,
                } => {
                    let before = self.sessions.insert((s.protocol, s.v4, s.remote), *s);
                    assert_eq!(self.mappings[&(s.protocol, s.v4)].v6, *v6);
                    let moved = before.map(|b| (b.state, b.lifetime) != (s.state, s.lifetime));
                    match news {
                        News::Began => assert_eq!(before, None),
                        News::Changed => assert_eq!(moved, Some(true)),
                        // A snapshot tells of sessions that are new to whoever reads it.
                        News::LivesOn => assert_ne!(moved, Some(true)),
                    }
                }
                Change::SessionGone {
                    protocol,
                    v6,
                    v4,
                    remote,
                } => {
                    let before = self.sessions.remove(&(*protocol, *v4, *remote));
                    assert!(before.is_some(), "nothing dies twice");
                    assert_eq!(self.mappings[&(*protocol, *v4)].v6, *v6);
                }
            }
        }
    }

    fn knows(&self, protocol: Protocol, v4: Transport4, remote: Transport4) -> bool {
        self.sessions
            .keys()
            .filter(|key| self.sessions[key].lifetime != Lifetime::TcpIncomingSyn)
            .any(|(p, m, r)| (*p, *m, r.addr) == (protocol, v4, remote.addr))
    }

    fn compare(&self, nat64: &Nat64) -> Result<(), TestCaseError> {
        let mut other = Self::default();
        other.follow(&nat64.snapshot());
        prop_assert_eq!(&self.mappings, &other.mappings);
        let keys = |c: &Self| c.sessions.keys().copied().collect::<BTreeSet<_>>();
        prop_assert_eq!(keys(self), keys(&other));
        for (key, theirs) in &other.sessions {
            let ours = &self.sessions[key];
            prop_assert_eq!((ours.state, ours.lifetime), (theirs.state, theirs.lifetime));
            prop_assert!(ours.deadline.0.abs_diff(theirs.deadline.0) < REPORT_AFTER);
            prop_assert!(self.mappings.contains_key(&(key.0, key.1)));
        }
        let mut portions = BTreeMap::new();
        for protocol in Protocol::ALL {
            for at in (0..nat64.table(protocol).session_positions()).step_by(3) {
                for both in nat64.snapshot_at(protocol, at..at + 3).chunks(2) {
                    let [Change::Mapping(m), Change::Session { session: s, .. }] = both else {
                        panic!("{both:?}");
                    };
                    prop_assert_eq!(Some(m), other.mappings.get(&(protocol, s.v4)));
                    portions.insert((protocol, s.v4, s.remote), *s);
                }
            }
        }
        prop_assert_eq!(&portions, &other.sessions);
        for protocol in Protocol::ALL {
            let clients: BTreeSet<_> = nat64.table(protocol).bibs().map(|b| b.v6).collect();
            prop_assert_eq!(clients.len(), nat64.table(protocol).bib_count());
            let addresses: BTreeSet<_> = nat64.table(protocol).bibs().map(|b| b.v4).collect();
            prop_assert_eq!(addresses.len(), nat64.table(protocol).bib_count());
            let free = (61001..=61010)
                .find(|port| !addresses.contains(&Transport4::new([192, 0, 2, 1].into(), *port)));
            let found = nat64
                .table(protocol)
                .first_free([192, 0, 2, 1].into(), 61001, 61010);
            prop_assert_eq!(found, free);
        }
        Ok(())
    }

    /// What comes back lingers no longer.
    fn restore(&mut self, nat64: &mut Nat64, now: Tick, settings: &Settings) {
        for mapping in self.mappings.values() {
            assert!(nat64.import_mapping(*mapping));
        }
        let mut sessions: Vec<_> = self.sessions.values_mut().collect();
        sessions.sort_by_key(|s| s.deadline);
        for session in sessions {
            let longest = now.after(length(settings, session.lifetime));
            session.deadline = session.deadline.min(longest);
            assert!(nat64.import_session(now, settings, *session));
        }
    }
}
