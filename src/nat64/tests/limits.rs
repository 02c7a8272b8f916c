// SPDX-License-Identifier: GPL-2.0-or-later
//! Limits of sessions.

use super::*;

const UDP: Protocol = Protocol::Udp;

/// Server number `host` is spoken to; the reason if it is refused.
fn speak(nat64: &mut Nat64, settings: &Settings, client: Transport6, host: u8) -> Option<Counter> {
    let flow = out(UDP, client, server(host, 53), ACK);
    let result = nat64.outbound(Tick(0), settings, &Nameless, flow);
    result.err().map(|refusal| refusal.reason)
}

#[test]
fn there_is_no_limit_unless_asked_for() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    for host in 0..200 {
        assert_eq!(speak(&mut nat64, &settings, client(8, 5), host), None);
    }
    assert_eq!(nat64.refused(), Refused::default());
}

#[test]
fn a_full_gateway_serves_whom_it_knows() {
    let mut nat64 = nat64();
    let settings = Settings {
        maximum_sessions: 3,
        ..Settings::default()
    };
    for host in 0..3 {
        assert_eq!(speak(&mut nat64, &settings, client(host, 5), 1), None);
    }
    let newcomer = client(9, 5);
    assert_eq!(
        speak(&mut nat64, &settings, newcomer, 1),
        Some(Counter::Enomem)
    );
    assert_eq!(nat64.mapped_v4(UDP, newcomer), None, "nor a mapping");
    assert_eq!(speak(&mut nat64, &settings, client(2, 5), 1), None);
    // Strangers fill it no more than clients.
    let v4 = nat64.mapped_v4(UDP, client(2, 5)).unwrap();
    let stranger = inc(UDP, server(77, 1), v4, ACK);
    let result = nat64.inbound(Tick(0), &settings, stranger);
    assert_eq!(reason(result), Counter::Enomem);
    assert_eq!(nat64.refused().sessions, 2);
    nat64.expire(Tick(settings.udp_timeout), &settings, 1);
    assert_eq!(speak(&mut nat64, &settings, newcomer, 1), None);
}

#[test]
fn a_prefix_cannot_take_the_share_of_others() {
    let mut nat64 = nat64();
    let settings = Settings {
        maximum_sessions_per_prefix: 3,
        ..Settings::default()
    };
    let neighbour = Transport6::new("2001:db8::ffff:0:0:1".parse().unwrap(), 5);
    let other = Transport6::new("2001:db8:0:1::8".parse().unwrap(), 5);
    assert_eq!(speak(&mut nat64, &settings, client(1, 5), 1), None);
    assert_eq!(speak(&mut nat64, &settings, neighbour, 2), None);
    let ping = out(Protocol::Icmp, client(1, 5), server(1, 5), ACK);
    let result = nat64.outbound(Tick(0), &settings, &Nameless, ping);
    assert!(result.is_ok(), "all protocols count");
    for who in [client(1, 5), client(2, 5), neighbour] {
        assert_eq!(speak(&mut nat64, &settings, who, 9), Some(Counter::Enomem));
    }
    assert_eq!(nat64.refused().prefix, 3);
    assert_eq!(speak(&mut nat64, &settings, other, 9), None);
    // Another length takes effect at once.
    let narrow = Settings {
        source_prefix_length: 128,
        ..settings.clone()
    };
    nat64.retime(&settings, &narrow);
    assert_eq!(speak(&mut nat64, &narrow, client(2, 5), 9), None);
    let off = Settings {
        maximum_sessions_per_prefix: 0,
        ..settings.clone()
    };
    nat64.retime(&narrow, &off);
    assert_eq!(speak(&mut nat64, &off, neighbour, 3), None);
    nat64.retime(&off, &settings);
    assert_eq!(
        speak(&mut nat64, &settings, neighbour, 9),
        Some(Counter::Enomem)
    );
}

#[test]
fn new_clients_get_ports_of_the_share_and_others_keep_theirs() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    assert_eq!(speak(&mut nat64, &settings, client(1, 5), 1), None);
    let before = nat64.mapped_v4(UDP, client(1, 5)).unwrap();
    let whole: Vec<u16> = nat64.pool4().rows(UDP).map(|row| row.ports.min).collect();
    let first = whole[0];
    let part = |min, max| PortRange { min, max };
    // The first begins before pool4, the last lies behind it.
    let share = [
        part(0, first),
        part(first + 4, first + 5),
        part(65_535, 65_535),
    ];
    nat64.set_share(Some(share.into()));
    let mut given = Vec::new();
    for host in 2..9 {
        if speak(&mut nat64, &settings, client(host, 5), 1).is_none() {
            given.push(nat64.mapped_v4(UDP, client(host, 5)).unwrap().port);
        }
    }
    given.retain(|port| *port != 65_535);
    given.push(before.port);
    given.sort_unstable();
    given.dedup();
    let expected = [first, first + 4, first + 5, before.port];
    assert!(
        given.iter().all(|port| expected.contains(port)),
        "{given:?}"
    );
    assert!(given.len() >= 3, "{given:?}");
    assert_eq!(nat64.mapped_v4(UDP, client(1, 5)), Some(before));
    // Nothing is left of an empty share.
    nat64.set_share(Some([].into()));
    let nobody = speak(&mut nat64, &settings, client(20, 5), 1);
    assert_eq!(nobody, Some(Counter::Bib6NotFound));
    assert_eq!(speak(&mut nat64, &settings, client(1, 5), 2), None);
    nat64.set_share(None);
    assert_eq!(speak(&mut nat64, &settings, client(20, 5), 1), None);
}
