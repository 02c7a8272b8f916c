// SPDX-License-Identifier: GPL-2.0-or-later
//! Simultaneous open.

use super::*;

const TCP: Protocol = Protocol::Tcp;

fn pool(port: u16) -> Transport4 {
    Transport4::new([192, 0, 2, 1].into(), port)
}

fn knock(nat64: &mut Nat64, now: u64, settings: &Settings, host: u8, v4: Transport4) -> Refusal {
    let syn = inc(TCP, server(host, 80), v4, SYN);
    nat64.inbound(Tick(now), settings, syn).unwrap_err()
}

fn filtering() -> Settings {
    Settings {
        address_dependent_filtering: true,
        ..Settings::default()
    }
}

/// A gateway with a client that talks to server 1, and the client's address.
fn talking(settings: &Settings) -> (Nat64, Transport4) {
    let mut nat64 = nat64();
    let flow = out(TCP, client(8, 5), server(1, 80), SYN);
    let v4 = nat64.outbound(Tick(0), settings, &Nameless, flow).unwrap();
    (nat64, v4)
}

//= rfc6146#section-3.5.2.2
//= type=test
#[test]
fn a_client_gets_the_address_that_its_server_knocked_at() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    let refusal = knock(&mut nat64, 0, &settings, 1, pool(61007));
    assert_eq!(refusal, Refusal::drop(Counter::Type1pkt));
    assert_eq!(nat64.table(TCP).bib_count(), 0);
    // Only a SYN, and only to that server.
    let stray = out(TCP, client(8, 5), server(1, 80), ACK);
    let result = nat64.outbound(Tick(1), &settings, &Nameless, stray);
    assert_eq!(reason(result), Counter::Syn6Expected);
    let syn = out(TCP, client(8, 5), server(1, 80), SYN);
    let v4 = nat64.outbound(Tick(1), &settings, &Nameless, syn);
    assert_eq!(v4, Ok(pool(61007)));
    let (_, session) = nat64.table(TCP).sessions().next().unwrap();
    assert_eq!(session.state, TcpState::Established);
    assert_eq!(session.lifetime, Lifetime::TcpEstablished);
    nat64.expire(Tick(6_001), &settings, 100);
    assert!(nat64.drain_unopened().is_empty(), "it was not in vain");
}

//= rfc6146#section-3.5.2.2
//= type=test
#[test]
fn who_knocks_in_vain_is_told_so_after_six_seconds() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    knock(&mut nat64, 10, &settings, 1, pool(61007));
    assert_eq!(nat64.next_deadline(), Some(Tick(6_010)));
    nat64.expire(Tick(6_009), &settings, 100);
    assert!(nat64.drain_unopened().is_empty());
    assert!(nat64.expire(Tick(6_010), &settings, 0), "no budget");
    nat64.expire(Tick(6_010), &settings, 100);
    assert_eq!(nat64.drain_unopened(), [b"SYN"[..].into()]);
    assert!(nat64.drain_unopened().is_empty(), "once");
    assert_eq!(nat64.next_deadline(), None);
}

#[test]
fn one_knock_of_a_source_is_held_and_no_more_than_the_setting_says() {
    let mut nat64 = nat64();
    let settings = Settings {
        maximum_simultaneous_opens: 2,
        ..Settings::default()
    };
    knock(&mut nat64, 0, &settings, 1, pool(61007));
    let again = knock(&mut nat64, 5_000, &settings, 1, pool(61008));
    assert_eq!(again, Refusal::drop(Counter::SoExists));
    assert_eq!(nat64.next_deadline(), Some(Tick(6_000)), "is not put off");
    knock(&mut nat64, 1_000, &settings, 2, pool(61007));
    let third = knock(&mut nat64, 1_000, &settings, 3, pool(61007));
    assert_eq!(third, Refusal::reply(Counter::SoFull, 3, 3, [0; 4]));
    nat64.expire(Tick(6_000), &settings, 100);
    let later = knock(&mut nat64, 6_000, &settings, 3, pool(61007));
    assert_eq!(later.reason, Counter::Type1pkt);
    let none = Settings {
        maximum_simultaneous_opens: 0,
        ..settings
    };
    let refusal = knock(&mut nat64, 6_000, &none, 4, pool(61007));
    assert_eq!(refusal.reason, Counter::SoFull);
}

#[test]
fn two_clients_cannot_get_one_address() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    knock(&mut nat64, 0, &settings, 1, pool(61007));
    knock(&mut nat64, 0, &settings, 2, pool(61007));
    let mut syn = |host| {
        let flow = out(TCP, client(host, 5), server(host, 80), SYN);
        nat64.outbound(Tick(0), &settings, &Nameless, flow).unwrap()
    };
    assert_eq!(syn(1), pool(61007));
    assert_ne!(syn(2), pool(61007));
}

/// What was held for nobody is not in vain once somebody has the address and the two are in touch,
/// whoever spoke first.
#[test]
fn who_is_let_in_after_all_is_not_turned_away_later() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    for host in 1..=4 {
        knock(&mut nat64, 0, &settings, host, pool(61007));
    }
    let mut syn = |host| {
        let flow = out(TCP, client(8, 5), server(host, 80), SYN);
        nat64.outbound(Tick(1), &settings, &Nameless, flow)
    };
    assert_eq!(syn(1), Ok(pool(61007)));
    assert_eq!(syn(2), Ok(pool(61007)));
    let again = inc(TCP, server(3, 80), pool(61007), SYN);
    assert_eq!(nat64.inbound(Tick(2), &settings, again), Ok(client(8, 5)));
    assert_eq!(nat64.opens.len(), 1);
    nat64.expire(Tick(6_000), &settings, 100);
    assert_eq!(nat64.drain_unopened().len(), 1, "the fourth was in vain");
}

#[test]
fn the_mark_decides_whether_the_address_may_be_had() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    let mut pool4 = nat64.pool4().clone();
    pool4.add(&Pool4Entry {
        mark: 7,
        ..entry(TCP, 1001, 1001)
    });
    nat64.set_pool4(pool4, &[]);
    knock(&mut nat64, 0, &settings, 1, pool(61007));
    let syn = Outbound {
        mark: 7,
        ..out(TCP, client(8, 5), server(1, 80), SYN)
    };
    let v4 = nat64.outbound(Tick(0), &settings, &Nameless, syn);
    assert_eq!(v4, Ok(pool(1001)));
}

//= rfc6146#section-3.5.2.2
//= type=test
#[test]
fn a_filtered_stranger_waits_for_the_client() {
    let settings = filtering();
    let (mut nat64, v4) = talking(&settings);
    let refusal = knock(&mut nat64, 0, &settings, 2, v4);
    assert_eq!(refusal, Refusal::drop(Counter::Type2pkt));
    let again = knock(&mut nat64, 1, &settings, 2, v4);
    assert_eq!(again, Refusal::drop(Counter::SoExists));
    // Waiting does not make the address known, and nothing else gets through either.
    let ack = inc(TCP, server(2, 80), v4, ACK);
    assert_eq!(
        reason(nat64.inbound(Tick(1), &settings, ack)),
        Counter::SoExists
    );
    let other_port = inc(TCP, server(2, 81), v4, SYN);
    assert_eq!(
        reason(nat64.inbound(Tick(1), &settings, other_port)),
        Counter::Type2pkt
    );
    let syn = out(TCP, client(8, 5), server(2, 80), SYN);
    assert_eq!(nat64.outbound(Tick(2), &settings, &Nameless, syn), Ok(v4));
    assert_eq!(
        nat64.inbound(Tick(3), &settings, ack),
        Ok(client(8, 5)),
        "the connection is open"
    );
    nat64.expire(Tick(6_001), &settings, 100);
    assert_eq!(nat64.drain_unopened().len(), 1, "the other port's");
    assert_eq!(nat64.table(TCP).session_count(), 2);
}

//= rfc6146#section-3.5.2.2
//= type=test
#[test]
fn a_filtered_stranger_is_told_when_the_client_does_not_come() {
    let settings = filtering();
    let (mut nat64, v4) = talking(&settings);
    knock(&mut nat64, 0, &settings, 2, v4);
    nat64.expire(Tick(6_000), &settings, 100);
    assert_eq!(nat64.drain_unopened(), [b"SYN"[..].into()]);
    assert_eq!(nat64.table(TCP).session_count(), 1);
}

#[test]
fn a_full_store_takes_no_filtered_stranger() {
    let settings = Settings {
        maximum_simultaneous_opens: 1,
        ..filtering()
    };
    let (mut nat64, v4) = talking(&settings);
    knock(&mut nat64, 0, &settings, 2, v4);
    let full = knock(&mut nat64, 0, &settings, 3, v4);
    assert_eq!(full, Refusal::reply(Counter::SoFull, 3, 3, [0; 4]));
    assert_eq!(nat64.table(TCP).session_count(), 2);
}

#[test]
fn no_connections_from_outside_means_nothing_is_held() {
    let settings = Settings {
        drop_externally_initiated_tcp: true,
        ..filtering()
    };
    let (mut nat64, v4) = talking(&settings);
    for target in [v4, pool(if v4.port == 61001 { 61002 } else { 61001 })] {
        let refusal = knock(&mut nat64, 0, &settings, 2, target);
        assert_eq!(refusal, Refusal::drop(Counter::V4Syn));
    }
    assert_eq!(nat64.opens.len(), 0);
}

#[test]
fn whatever_ends_a_wait_hands_the_packet_back() {
    let settings = filtering();
    // A mapping is removed.
    let (mut nat64, v4) = talking(&settings);
    knock(&mut nat64, 0, &settings, 2, v4);
    knock(&mut nat64, 0, &settings, 3, v4);
    nat64.bib_remove(TCP, None, Some(v4)).unwrap();
    assert_eq!(nat64.drain_unopened().len(), 2);
    // pool4 is flushed.
    let (mut nat64, v4) = talking(&settings);
    let free = pool(if v4.port == 61001 { 61002 } else { 61001 });
    knock(&mut nat64, 0, &settings, 2, v4);
    knock(&mut nat64, 0, &settings, 2, free);
    nat64.set_pool4(Pool4::default(), &Protocol::ALL);
    assert_eq!(nat64.drain_unopened().len(), 2);
    assert_eq!(nat64.next_deadline(), None);
    // The instance ends.
    let (mut nat64, v4) = talking(&settings);
    knock(&mut nat64, 0, &settings, 2, v4);
    knock(&mut nat64, 0, &settings, 2, free);
    nat64.release_held();
    assert_eq!(nat64.drain_unopened().len(), 2);
    assert_eq!(nat64.opens.len(), 0);
}

//= jool#pool4
//= type=test
#[test]
fn a_static_mapping_ends_the_wait_without_a_word() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    knock(&mut nat64, 0, &settings, 1, pool(61007));
    knock(&mut nat64, 0, &settings, 2, pool(61008));
    nat64.bib_add(TCP, client(8, 80), pool(61007)).unwrap();
    assert_eq!(nat64.opens.len(), 1);
    assert!(nat64.drain_unopened().is_empty());
    let syn = inc(TCP, server(1, 80), pool(61007), SYN);
    assert_eq!(nat64.inbound(Tick(1), &settings, syn), Ok(client(8, 80)));
}

#[test]
fn large_packets_are_held_without_their_bytes() {
    let (mut nat64, settings) = (nat64(), Settings::default());
    let large = Inbound {
        packet: &[0; 1501],
        ..inc(TCP, server(1, 80), pool(61007), SYN)
    };
    assert_eq!(
        reason(nat64.inbound(Tick(0), &settings, large)),
        Counter::Type1pkt
    );
    nat64.expire(Tick(6_000), &settings, 100);
    assert_eq!(nat64.drain_unopened(), [Box::default()]);
}
