// SPDX-License-Identifier: GPL-2.0-or-later
//! The decisions of RFC 6146 without a packet.

use super::manage::BibError;
use super::*;
use crate::base::host::Nameless;
use crate::base::prefix::Prefix4;
use crate::model::{MaxIterations, Pool4Entry};

mod ends;
mod host;
mod limits;
mod merge;
mod model;
mod opens;
mod states;

const SYN: TcpFlags = TcpFlags {
    syn: true,
    fin: false,
    rst: false,
};
const FIN: TcpFlags = TcpFlags {
    syn: false,
    fin: true,
    rst: false,
};
const RST: TcpFlags = TcpFlags {
    syn: false,
    fin: false,
    rst: true,
};
const ACK: TcpFlags = TcpFlags {
    syn: false,
    fin: false,
    rst: false,
};

fn client(host: u8, port: u16) -> Transport6 {
    Transport6::new(format!("2001:db8::{host:x}").parse().unwrap(), port)
}

fn server(host: u8, port: u16) -> Transport4 {
    Transport4::new([203, 0, 113, host].into(), port)
}

fn entry(protocol: Protocol, min: u16, max: u16) -> Pool4Entry {
    Pool4Entry {
        mark: 0,
        protocol,
        prefix: Prefix4::new([192, 0, 2, 1].into(), 32).unwrap(),
        ports: PortRange { min, max },
        max_iterations: None,
    }
}

fn nat64() -> Nat64 {
    let mut pool4 = Pool4::default();
    for protocol in Protocol::ALL {
        pool4.add(&entry(protocol, 61001, 61010));
    }
    let mut nat64 = Nat64::new([1; 16]);
    nat64.set_pool4(pool4, &[]);
    nat64
}

fn out(protocol: Protocol, client: Transport6, remote: Transport4, flags: TcpFlags) -> Outbound {
    Outbound {
        protocol,
        client,
        remote,
        mark: 0,
        flags,
    }
}

fn inc(
    protocol: Protocol,
    remote: Transport4,
    v4: Transport4,
    flags: TcpFlags,
) -> Inbound<'static> {
    Inbound {
        protocol,
        v4,
        remote,
        flags,
        packet: b"SYN",
    }
}

fn reason<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Counter {
    result.unwrap_err().reason
}

//= rfc6146#section-3.5.1.1
//= type=test
#[test]
fn a_client_keeps_its_address_towards_everybody() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    for protocol in Protocol::ALL {
        let one = nat64
            .outbound(
                Tick(0),
                &settings,
                &Nameless,
                out(protocol, client(8, 5), server(1, 80), SYN),
            )
            .unwrap();
        let two = nat64
            .outbound(
                Tick(0),
                &settings,
                &Nameless,
                out(protocol, client(8, 5), server(2, 81), SYN),
            )
            .unwrap();
        assert_eq!(one, two);
        assert!((61001..=61010).contains(&one.port));
        assert_eq!(nat64.table(protocol).session_count(), 2);
        // Endpoint-independent filtering: a stranger gets through as well.
        let stranger = inc(protocol, server(9, 99), one, SYN);
        assert_eq!(
            nat64.inbound(Tick(0), &settings, stranger),
            Ok(client(8, 5))
        );
    }
}

#[test]
fn what_nobody_asked_for_is_left_alone_or_dropped() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    let v4 = Transport4::new([192, 0, 2, 1].into(), 61001);
    for (protocol, flags, expected, verdict) in [
        (Protocol::Udp, ACK, Counter::Bib4NotFound, Verdict::Accept),
        (Protocol::Icmp, ACK, Counter::Bib4NotFound, Verdict::Accept),
        (Protocol::Tcp, ACK, Counter::Syn4Expected, Verdict::Drop),
        (Protocol::Tcp, SYN, Counter::Type1pkt, Verdict::Drop),
    ] {
        let refusal = nat64
            .inbound(Tick(0), &settings, inc(protocol, server(1, 80), v4, flags))
            .unwrap_err();
        assert_eq!((refusal.reason, refusal.verdict), (expected, verdict));
    }
    let stray = out(Protocol::Tcp, client(8, 5), server(1, 80), ACK);
    assert_eq!(
        reason(nat64.outbound(Tick(0), &settings, &Nameless, stray)),
        Counter::Syn6Expected
    );
    let marked = Outbound {
        mark: 3,
        ..out(Protocol::Udp, client(8, 5), server(1, 80), ACK)
    };
    assert_eq!(
        reason(nat64.outbound(Tick(0), &settings, &Nameless, marked)),
        Counter::MaskDomainNotFound
    );
}

//= rfc6146#section-3.5.2.2
//= type=test
#[test]
fn a_silent_connection_is_probed_then_forgotten() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    let (c, s) = (client(8, 5), server(1, 80));
    let v4 = nat64
        .outbound(Tick(0), &settings, &Nameless, out(Protocol::Tcp, c, s, SYN))
        .unwrap();
    nat64
        .inbound(Tick(10), &settings, inc(Protocol::Tcp, s, v4, SYN))
        .unwrap();
    let two_hours = 7_200_000;
    assert_eq!(nat64.next_deadline(), Some(Tick(10 + two_hours)));
    nat64.expire(Tick(9 + two_hours), &settings, 100);
    assert!(nat64.drain_probes().is_empty());
    nat64.expire(Tick(10 + two_hours), &settings, 100);
    assert_eq!(
        nat64.drain_probes(),
        [Probe {
            client: c,
            remote: s
        }]
    );
    // The client answers: the connection lives on.
    nat64
        .outbound(
            Tick(20 + two_hours),
            &settings,
            &Nameless,
            out(Protocol::Tcp, c, s, ACK),
        )
        .unwrap();
    nat64.expire(Tick(20 + 2 * two_hours), &settings, 100);
    // This time nobody answers.
    nat64.expire(Tick(20 + 2 * two_hours + 240_000), &settings, 100);
    assert_eq!(nat64.table(Protocol::Tcp).session_count(), 0);
    assert_eq!(nat64.table(Protocol::Tcp).bib_count(), 0);
}

//= rfc6056#section-3.3.3
//= type=test
#[test]
fn exhaustion_is_told_and_harms_no_session() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    for host in 0..10 {
        nat64
            .outbound(
                Tick(0),
                &settings,
                &Nameless,
                out(Protocol::Udp, client(host, 5), server(1, 80), ACK),
            )
            .unwrap();
    }
    let eleventh = out(Protocol::Udp, client(11, 5), server(1, 80), ACK);
    assert_eq!(
        reason(nat64.outbound(Tick(0), &settings, &Nameless, eleventh)),
        Counter::Bib6NotFound
    );
    assert_eq!(nat64.take_exhausted(), Some(0));
    assert_eq!(nat64.take_exhausted(), None);
    assert_eq!(nat64.refused().pool4, 1);
    let known = out(Protocol::Udp, client(3, 5), server(2, 80), ACK);
    assert!(nat64.outbound(Tick(0), &settings, &Nameless, known).is_ok());
    // When one expires, its port is free again.
    nat64.expire(Tick(settings.udp_timeout), &settings, 100);
    assert!(
        nat64
            .outbound(Tick(settings.udp_timeout), &settings, &Nameless, eleventh)
            .is_ok()
    );
}

//= jool#max-iterations
//= type=test
#[test]
fn max_iterations_bounds_the_search() {
    let (mut nat64, settings) = (Nat64::new([1; 16]), Settings::default());
    let mut pool4 = Pool4::default();
    pool4.add(&Pool4Entry {
        max_iterations: Some(MaxIterations::Fixed(1)),
        ..entry(Protocol::Udp, 1, 2)
    });
    nat64.set_pool4(pool4, &[]);
    let mut refused = 0;
    for host in 0..100 {
        let flow = out(Protocol::Udp, client(host, 5), server(1, 80), ACK);
        refused += u32::from(nat64.outbound(Tick(0), &settings, &Nameless, flow).is_err());
    }
    assert_eq!(refused, 98);
}

//= rfc6146#section-3.5.1
//= type=test
#[test]
fn filters_do_what_they_say() {
    let mut nat64 = nat64();
    let settings = Settings {
        address_dependent_filtering: true,
        drop_externally_initiated_tcp: true,
        ..Settings::default()
    };
    let flow = out(Protocol::Udp, client(8, 5), server(1, 80), ACK);
    let v4 = nat64.outbound(Tick(0), &settings, &Nameless, flow).unwrap();
    let stranger = nat64
        .inbound(
            Tick(0),
            &settings,
            inc(Protocol::Udp, server(2, 80), v4, ACK),
        )
        .unwrap_err();
    assert_eq!(stranger.reason, Counter::Adf);
    assert_eq!(
        stranger.verdict,
        Verdict::Reply(ADMINISTRATIVELY_PROHIBITED)
    );
    let other_port = inc(Protocol::Udp, server(1, 81), v4, ACK);
    assert!(nat64.inbound(Tick(0), &settings, other_port).is_ok());
    let flow = out(Protocol::Tcp, client(8, 5), server(1, 80), SYN);
    let v4 = nat64.outbound(Tick(0), &settings, &Nameless, flow).unwrap();
    let syn = inc(Protocol::Tcp, server(1, 81), v4, SYN);
    assert_eq!(
        reason(nat64.inbound(Tick(0), &settings, syn)),
        Counter::V4Syn
    );
}

#[test]
fn static_mappings_are_guarded_and_survive_their_sessions() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    let v4 = Transport4::new([192, 0, 2, 1].into(), 61005);
    let outside = Transport4::new([192, 0, 2, 1].into(), 80);
    let tcp = Protocol::Tcp;
    assert_eq!(
        nat64.bib_add(tcp, client(8, 80), outside),
        Err(BibError::OutsidePool4(tcp, outside))
    );
    nat64.bib_add(tcp, client(8, 80), v4).unwrap();
    nat64.bib_add(tcp, client(8, 80), v4).unwrap();
    assert_eq!(
        nat64
            .bib_add(tcp, client(9, 80), v4)
            .unwrap_err()
            .to_string(),
        "2001:db8::9#80 - 192.0.2.1#61005 collides with the existing \
         2001:db8::8#80 - 192.0.2.1#61005; remove that one first"
    );
    let syn = inc(tcp, server(1, 999), v4, SYN);
    assert_eq!(nat64.inbound(Tick(0), &settings, syn), Ok(client(8, 80)));
    nat64.expire(Tick(u64::MAX), &settings, 100);
    assert_eq!(nat64.table(tcp).session_count(), 0);
    assert_eq!(nat64.mapped_v6(tcp, v4), Some(client(8, 80)));
    assert_eq!(
        nat64.bib_remove(tcp, Some(client(8, 80)), Some(outside)),
        Err(BibError::Absent)
    );
    assert_eq!(nat64.bib_remove(tcp, None, None), Err(BibError::Absent));
    nat64.bib_remove(tcp, None, Some(v4)).unwrap();
    assert_eq!(nat64.mapped_v6(tcp, v4), None);
}

#[test]
fn taking_addresses_away_takes_their_mappings_away_when_asked_to() {
    for purge in [&[][..], &Protocol::ALL] {
        let (mut nat64, settings) = (nat64(), Settings::default());
        let flow = out(Protocol::Udp, client(8, 5), server(1, 80), ACK);
        nat64.outbound(Tick(0), &settings, &Nameless, flow).unwrap();
        let mut pool4 = nat64.pool4().clone();
        pool4.remove(&entry(Protocol::Tcp, 0, 65535));
        nat64.set_pool4(pool4.clone(), purge);
        assert_eq!(nat64.table(Protocol::Udp).bib_count(), 1);
        pool4.remove(&entry(Protocol::Udp, 0, 65535));
        nat64.set_pool4(pool4, purge);
        assert_eq!(
            nat64.table(Protocol::Udp).bib_count(),
            usize::from(purge.is_empty())
        );
    }
}

#[test]
fn lifetimes_follow_their_settings_at_once() {
    let (mut nat64, old) = (nat64(), Settings::default());
    let flow = out(Protocol::Udp, client(8, 5), server(1, 80), ACK);
    nat64.outbound(Tick(1000), &old, &Nameless, flow).unwrap();
    let new = Settings {
        udp_timeout: 120_000,
        ..old.clone()
    };
    nat64.retime(&old, &new);
    assert_eq!(nat64.next_deadline(), Some(Tick(121_000)));
}

#[test]
fn another_lifetime_with_the_same_end_is_told_as_well() {
    let (mut nat64, mut changes) = (nat64(), Vec::new());
    let settings = Settings {
        handle_rst_during_fin_rcv: true,
        ..Settings::default()
    };
    let (tcp, c, s) = (Protocol::Tcp, client(8, 5), server(1, 80));
    let flow = out(tcp, c, s, SYN);
    let v4 = nat64.outbound(Tick(0), &settings, &Nameless, flow).unwrap();
    for (now, flags) in [(0, SYN), (0, FIN)] {
        let answer = inc(tcp, s, v4, flags);
        nat64.inbound(Tick(now), &settings, answer).unwrap();
    }
    nat64.drain_changes(&mut changes);
    let late = Tick(settings.tcp_est_timeout - settings.tcp_trans_timeout);
    let reset = inc(tcp, s, v4, RST);
    nat64.inbound(late, &settings, reset).unwrap();
    nat64.drain_changes(&mut changes);
    let [Change::Session { session: told, .. }] = changes[..] else {
        panic!("{changes:?}");
    };
    assert_eq!(told.lifetime, Lifetime::TcpTransitory);
}
