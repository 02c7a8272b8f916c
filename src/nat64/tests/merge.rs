// SPDX-License-Identifier: GPL-2.0-or-later
//! What becomes of the sessions that a peer tells of.

use super::super::merge::{ForeignSession, Merged, Order, Refusal};
use super::*;

const NEWER: Order = Order::Newer { linger: 0 };

fn v4(port: u16) -> Transport4 {
    Transport4::new([192, 0, 2, 1].into(), port)
}

/// An established connection of client 8 by way of port 61005.
fn connection() -> ForeignSession {
    ForeignSession {
        protocol: Protocol::Tcp,
        v6: client(8, 5),
        v4: v4(61005),
        remote: server(1, 80),
        state: TcpState::Established,
        lifetime: Lifetime::TcpEstablished,
        left: 7_000_000,
        segment: 0,
    }
}

fn opening() -> ForeignSession {
    ForeignSession {
        state: TcpState::V6Init,
        lifetime: Lifetime::TcpTransitory,
        left: 240_000,
        ..connection()
    }
}

fn merge(nat64: &mut Nat64, now: u64, foreign: &ForeignSession) -> Merged {
    nat64.merge_session(Tick(now), &Settings::default(), foreign, Order::Unknown)
}

fn found(nat64: &Nat64, foreign: &ForeignSession) -> SessionState {
    let found = nat64.session(foreign.protocol, foreign.v4, foreign.remote);
    let (v6, state) = found.unwrap();
    assert_eq!(v6, foreign.v6);
    state
}

//= jool#session-merge
//= type=test
#[test]
fn a_session_goes_on_where_the_peer_had_it() {
    let settings = Settings::default();
    for protocol in Protocol::ALL {
        let mut nat64 = nat64();
        let lifetime = match protocol {
            Protocol::Tcp => Lifetime::TcpEstablished,
            Protocol::Udp => Lifetime::Udp,
            Protocol::Icmp => Lifetime::Icmp,
        };
        let foreign = ForeignSession {
            protocol,
            lifetime,
            left: 50_000,
            ..connection()
        };
        assert_eq!(merge(&mut nat64, 100, &foreign), Merged::New);
        assert_eq!(found(&nat64, &foreign).deadline, Tick(50_100));
        let mut changes = Vec::new();
        nat64.drain_changes(&mut changes);
        assert!(
            matches!(
                changes[..],
                [
                    Change::Mapping(_),
                    Change::Session {
                        news: News::Began,
                        ..
                    }
                ]
            ),
            "{changes:?}"
        );
        // No SYN is needed, and both directions find their way.
        let flow = out(protocol, client(8, 5), server(1, 80), ACK);
        let got = nat64.outbound(Tick(200), &settings, &Nameless, flow);
        assert_eq!(got, Ok(v4(61005)));
        let back = inc(protocol, server(1, 80), v4(61005), ACK);
        assert_eq!(nat64.inbound(Tick(300), &settings, back), Ok(client(8, 5)));
        assert_eq!(nat64.table(protocol).session_count(), 1);
    }
}

//= jool#session-merge
//= type=test
#[test]
fn a_session_that_is_here_follows_the_peer() {
    let mut nat64 = nat64();
    assert_eq!(merge(&mut nat64, 0, &opening()), Merged::New);
    assert_eq!(merge(&mut nat64, 1, &connection()), Merged::Updated);
    assert_eq!(found(&nat64, &opening()).state, TcpState::Established);
    nat64.drain_changes(&mut Vec::new());
    // The same once more, and what was said before it.
    assert_eq!(merge(&mut nat64, 1, &connection()), Merged::Unchanged);
    assert_eq!(merge(&mut nat64, 2, &opening()), Merged::Unchanged);
    let shorter = ForeignSession {
        left: 6_000_000,
        ..connection()
    };
    assert_eq!(merge(&mut nat64, 2, &shorter), Merged::Unchanged);
    assert_eq!(merge(&mut nat64, 4_000, &connection()), Merged::Updated);
    let mut changes = Vec::new();
    nat64.drain_changes(&mut changes);
    assert_eq!(changes, [], "not worth a line yet");
    assert_eq!(merge(&mut nat64, 6_000, &connection()), Merged::Updated);
    nat64.drain_changes(&mut changes);
    assert_eq!(changes.len(), 1);
    let ended = ForeignSession {
        state: TcpState::Trans,
        lifetime: Lifetime::TcpTransitory,
        left: 240_000,
        ..connection()
    };
    assert_eq!(merge(&mut nat64, 7_000, &ended), Merged::Updated);
    assert_eq!(found(&nat64, &ended).deadline, Tick(247_000));
    assert_eq!(merge(&mut nat64, 8_000, &connection()), Merged::Updated);
}

/// What waits for its client alone is refused to everybody else, the server's answer included.
#[test]
fn what_the_client_opened_here_does_not_wait_for_it_again() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    assert_eq!(merge(&mut nat64, 0, &opening()), Merged::New);
    let knock = ForeignSession {
        state: TcpState::V4Init,
        lifetime: Lifetime::TcpIncomingSyn,
        left: 6_000,
        ..connection()
    };
    assert_eq!(merge(&mut nat64, 1, &knock), Merged::Unchanged);
    let back = inc(Protocol::Tcp, server(1, 80), v4(61005), SYN);
    assert_eq!(nat64.inbound(Tick(2), &settings, back), Ok(client(8, 5)));
}

#[test]
fn what_a_session_of_a_peer_cannot_be_it_is_not() {
    let mut nat64 = nat64();
    let mut newer = |foreign| nat64.merge_session(Tick(0), &Settings::default(), &foreign, NEWER);
    let odd = ForeignSession {
        lifetime: Lifetime::TcpIncomingSyn,
        ..connection()
    };
    let incoherent = Merged::Refused(Refusal::Incoherent);
    assert_eq!(
        newer(odd),
        incoherent,
        "established, but waiting for its client"
    );
    assert_eq!(newer(connection()), Merged::New);
    assert_eq!(
        newer(odd),
        incoherent,
        "established, but waiting for its client"
    );
    let ping = ForeignSession {
        protocol: Protocol::Icmp,
        state: TcpState::V4Init,
        lifetime: Lifetime::Icmp,
        ..connection()
    };
    assert_eq!(newer(ping), Merged::New);
    // The peer of an ICMP session has no port.
    let found = nat64.session(Protocol::Icmp, v4(61005), server(1, 0));
    let (_, session) = found.unwrap();
    assert_eq!(
        (session.remote, session.state),
        (server(1, 0), TcpState::V4Init)
    );
    assert_eq!(found_tcp(&nat64).state, TcpState::Established);
}

fn found_tcp(nat64: &Nat64) -> SessionState {
    found(nat64, &connection())
}

/// Copies live a little longer than what they are copies of, and not for ever.
#[test]
fn a_copy_may_linger() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    let mut newer = |foreign: &ForeignSession, linger| {
        let order = Order::Newer { linger };
        nat64.merge_session(Tick(5), &settings, foreign, order)
    };
    let forever = ForeignSession {
        left: u64::MAX,
        ..connection()
    };
    let over = ForeignSession {
        left: 0,
        ..connection()
    };
    assert_eq!(newer(&over, 0), Merged::Refused(Refusal::Over));
    assert_eq!(newer(&over, 12_000), Merged::New);
    assert_eq!(newer(&forever, 12_000), Merged::Updated);
    assert_eq!(found_tcp(&nat64).deadline, Tick(7_200_000 + 12_005));
}

/// Without pool4 the gateway's addresses are not looked at, but its programs keep their ports.
#[test]
fn without_pool4_low_ports_are_not_for_copies_either() {
    let mut nat64 = Nat64::new([1; 16]);
    for (port, order) in [(80, NEWER), (61_000, NEWER), (61_000, Order::Unknown)] {
        let low = ForeignSession {
            v4: v4(port),
            ..connection()
        };
        let merged = nat64.merge_session(Tick(0), &Settings::default(), &low, order);
        assert_eq!(merged, Merged::Refused(Refusal::OutsidePool4), "{port}");
    }
    assert_eq!(merge(&mut nat64, 0, &connection()), Merged::New);
}

#[test]
fn the_shorter_segments_of_two_gateways_count() {
    let mut nat64 = nat64();
    for order in [Order::Unknown, NEWER] {
        for (told, counts) in [(0, 0), (1440, 1440), (0, 1440), (1340, 1340), (1440, 1340)] {
            let foreign = ForeignSession {
                segment: told,
                remote: server(if order == NEWER { 1 } else { 2 }, 80),
                ..connection()
            };
            nat64.merge_session(Tick(0), &Settings::default(), &foreign, order);
            assert_eq!(nat64.segment(foreign.v4, foreign.remote), counts, "{told}");
        }
    }
}

#[test]
fn who_knows_that_it_is_newer_is_believed() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    let mut newer =
        |foreign: &ForeignSession| nat64.merge_session(Tick(0), &settings, foreign, NEWER);
    assert_eq!(newer(&connection()), Merged::New);
    assert_eq!(newer(&connection()), Merged::Unchanged);
    let shorter = ForeignSession {
        left: 6_000_000,
        ..connection()
    };
    assert_eq!(newer(&shorter), Merged::Updated);
    assert_eq!(newer(&opening()), Merged::Updated);
    assert_eq!(found(&nat64, &opening()).state, TcpState::V6Init);
}

//= jool#session-merge
//= type=test
#[test]
fn what_contradicts_the_tables_is_left_out() {
    let mut nat64 = nat64();
    assert_eq!(merge(&mut nat64, 0, &connection()), Merged::New);
    nat64.drain_changes(&mut Vec::new());
    let elsewhere = ForeignSession {
        v4: v4(61006),
        ..connection()
    };
    assert_eq!(merge(&mut nat64, 0, &elsewhere), Merged::Collision);
    let settings = Settings::default();
    for remote in [server(1, 80), server(2, 80)] {
        let foreign = ForeignSession {
            remote,
            ..elsewhere
        };
        let merged = nat64.merge_session(Tick(0), &settings, &foreign, NEWER);
        assert_eq!(merged, Merged::Collision, "newer, but of another mapping");
    }
    let thief = ForeignSession {
        v6: client(9, 5),
        ..connection()
    };
    let outside = ForeignSession {
        v6: client(9, 5),
        v4: v4(80),
        ..connection()
    };
    let odd = ForeignSession {
        lifetime: Lifetime::Udp,
        ..connection()
    };
    let half = ForeignSession {
        lifetime: Lifetime::TcpTransitory,
        ..connection()
    };
    let over = ForeignSession {
        left: 0,
        ..connection()
    };
    for (foreign, refusal) in [
        (thief, Refusal::Taken),
        (outside, Refusal::OutsidePool4),
        (odd, Refusal::Incoherent),
        (half, Refusal::Incoherent),
        (over, Refusal::Over),
    ] {
        assert_eq!(merge(&mut nat64, 0, &foreign), Merged::Refused(refusal));
    }
    let mut changes = Vec::new();
    nat64.drain_changes(&mut changes);
    assert_eq!(changes, []);
    // A client keeps what it has here; the session with another server joins it.
    let other = ForeignSession {
        remote: server(2, 80),
        ..elsewhere
    };
    assert_eq!(merge(&mut nat64, 0, &other), Merged::Displaced);
    assert_eq!(nat64.table(Protocol::Tcp).bib_count(), 1);
    assert_eq!(nat64.table(Protocol::Tcp).session_count(), 2);
}

#[test]
fn the_peers_clock_and_settings_are_not_ours() {
    let mut nat64 = nat64();
    let forever = ForeignSession {
        left: u64::MAX,
        ..connection()
    };
    assert_eq!(merge(&mut nat64, 5, &forever), Merged::New);
    assert_eq!(found(&nat64, &forever).deadline, Tick(7_200_005));
    let stored = ForeignSession {
        remote: server(2, 80),
        state: TcpState::V4Init,
        lifetime: Lifetime::TcpIncomingSyn,
        ..forever
    };
    assert_eq!(merge(&mut nat64, 5, &stored), Merged::New);
    assert_eq!(found(&nat64, &stored).deadline, Tick(6_005));
    nat64.expire(Tick(6_005), &Settings::default(), 10);
    assert_eq!(nat64.drain_unopened().len(), 0, "the peer has the packet");
}

#[test]
fn limits_hold_for_peers_too() {
    let mut nat64 = nat64();
    let settings = Settings {
        maximum_sessions: 1,
        ..Settings::default()
    };
    let mut merge = |foreign| nat64.merge_session(Tick(0), &settings, &foreign, Order::Unknown);
    assert_eq!(merge(connection()), Merged::New);
    let more = ForeignSession {
        v6: client(9, 5),
        v4: v4(61006),
        ..connection()
    };
    assert_eq!(merge(more), Merged::Refused(Refusal::Full));
    assert_eq!(nat64.table(Protocol::Tcp).bib_count(), 1);
}

#[test]
fn a_session_that_is_gone_there_goes_here() {
    let mut nat64 = nat64();
    assert_eq!(merge(&mut nat64, 0, &connection()), Merged::New);
    let (tcp, remote) = (Protocol::Tcp, server(1, 80));
    assert!(!nat64.remove_session(tcp, v4(61006), remote));
    assert!(nat64.remove_session(tcp, v4(61005), remote));
    assert!(!nat64.remove_session(tcp, v4(61005), remote));
    assert_eq!(nat64.table(tcp).bib_count(), 0);
}

//= jool#session-merge
//= type=test
#[test]
fn who_waited_for_the_client_hears_that_it_came_by_the_peer() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    let syn = inc(Protocol::Tcp, server(1, 80), v4(61005), SYN);
    let held = nat64.inbound(Tick(0), &settings, syn);
    assert_eq!(reason(held), Counter::Type1pkt);
    assert_eq!(merge(&mut nat64, 1, &connection()), Merged::New);
    nat64.expire(Tick(10_000), &settings, 10);
    assert_eq!(nat64.drain_unopened().len(), 0);
}
