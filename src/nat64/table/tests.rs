// SPDX-License-Identifier: GPL-2.0-or-later
use proptest::prelude::*;

use super::*;

fn table() -> Table {
    Table::new([7; 16])
}

fn v6(port: u16) -> Transport6 {
    Transport6::new("2001:db8::8".parse().unwrap(), port)
}

fn v4(port: u16) -> Transport4 {
    Transport4::new("192.0.2.1".parse().unwrap(), port)
}

fn session(table: &mut Table, bib: BibId, port: u16, deadline: u64) -> SessionId {
    table
        .add_session(
            bib,
            v4(port),
            TcpState::Established,
            Lifetime::Udp,
            Tick(deadline),
        )
        .unwrap()
}

#[test]
fn no_two_mappings_share_an_address() {
    let mut table = table();
    let id = table.add_bib(v6(1), v4(1), false).unwrap();
    assert!(table.add_bib(v6(1), v4(2), false).is_none());
    assert!(table.add_bib(v6(2), v4(1), false).is_none());
    assert_eq!(table.find_v6(v6(1)), Some(id));
    assert_eq!(table.find_v4(v4(1)), Some(id));
    assert!(table.drop_if_idle(id).is_some());
    assert_eq!(table.find_v6(v6(1)), None);
    assert_eq!(table.find_v4(v4(1)), None);
}

#[test]
fn sessions_come_due_in_order_of_deadline() {
    let mut table = table();
    let bib = table.add_bib(v6(1), v4(1), false).unwrap();
    let late = session(&mut table, bib, 30, 30);
    let early = session(&mut table, bib, 10, 10);
    let middle = session(&mut table, bib, 20, 20);
    assert_eq!(table.due(Lifetime::Udp, Tick(9)), None);
    assert_eq!(table.due(Lifetime::Udp, Tick(40)), Some(early));
    table.restart(early, Lifetime::Udp, Tick(50));
    assert_eq!(table.due(Lifetime::Udp, Tick(40)), Some(middle));
    table.remove_session(middle);
    assert_eq!(table.due(Lifetime::Udp, Tick(40)), Some(late));
    assert_eq!(table.next_deadline(), Some(Tick(30)));
    table.shift(Lifetime::Udp, 20, 5);
    assert_eq!(table.next_deadline(), Some(Tick(15)));
    table.remove_session(late);
    assert!(table.drop_if_idle(bib).is_none(), "one session is left");
    table.remove_session(early);
    assert!(table.drop_if_idle(bib).is_some());
    assert_eq!(table.next_deadline(), None);
}

proptest! {
    #[test]
    fn deadlines_may_come_in_any_order(
        steps in prop::collection::vec((0u16..20, any::<bool>(), 100u64..400), 1..60),
        shift in 0u64..100,
    ) {
        let mut table = table();
        let bib = table.add_bib(v6(1), v4(1), true).unwrap();
        let mut model = std::collections::BTreeMap::new();
        for (port, remove, deadline) in steps {
            match (table.find_session(bib, v4(port)), remove) {
                (Some(id), true) => {
                    table.remove_session(id);
                    model.remove(&port);
                    continue;
                }
                (Some(id), false) => table.restart(id, Lifetime::Udp, Tick(deadline)),
                (None, _) => drop(session(&mut table, bib, port, deadline)),
            }
            model.insert(port, deadline);
        }
        table.shift(Lifetime::Udp, shift, 0);
        let mut expected: Vec<u64> = model.values().map(|deadline| deadline - shift).collect();
        expected.sort_unstable();
        prop_assert_eq!(table.next_deadline(), expected.first().copied().map(Tick));
        let mut found = Vec::new();
        while let Some(id) = table.due(Lifetime::Udp, Tick(u64::MAX)) {
            prop_assert_eq!(table.session(id).reported, table.session(id).deadline());
            found.push(table.session(id).deadline().0);
            table.remove_session(id);
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(table.session_count(), 0);
        prop_assert!(table.early.iter().all(BTreeSet::is_empty));
    }
}

/// A peer that tells of all it has, and a database, come in the order of something else.
#[test]
fn a_row_from_elsewhere_does_not_walk_along_a_list() {
    let mut table = table();
    let bib = table.add_bib(v6(1), v4(1), true).unwrap();
    for port in 0..=u16::MAX {
        session(&mut table, bib, port, 1_000_000 - u64::from(port));
    }
    assert_eq!(table.early[Lifetime::Udp as usize].len(), 65_535);
    assert_eq!(table.next_deadline(), Some(Tick(1_000_000 - 65_535)));
}

#[test]
fn a_purged_mapping_takes_its_sessions_along() {
    let mut table = table();
    let bib = table.add_bib(v6(1), v4(1), true).unwrap();
    let other = table.add_bib(v6(2), v4(2), false).unwrap();
    for port in 0..100 {
        session(&mut table, bib, port, port.into());
    }
    let kept = session(&mut table, other, 1, 1);
    assert_eq!(table.session_count(), 101);
    table.purge_bib(bib, |_, _| {});
    assert_eq!(table.session_count(), 1);
    assert_eq!(table.find_session(other, v4(1)), Some(kept));
    assert_eq!(table.due(Lifetime::Udp, Tick(9)), Some(kept));
}

#[test]
fn hosts_are_known_as_long_as_they_have_sessions() {
    let mut table = table();
    let bib = table.add_bib(v6(1), v4(1), false).unwrap();
    let other = table.add_bib(v6(2), v4(2), false).unwrap();
    let addr = v4(0).addr;
    let before = session(&mut table, bib, 10, 10);
    assert!(table.knows(bib, addr) && !table.knows(other, addr));
    assert!(!table.knows(bib, Ipv4Addr::LOCALHOST));
    let after = session(&mut table, bib, 20, 20);
    table.remove_session(before);
    assert!(table.knows(bib, addr));
    table.remove_session(after);
    assert!(!table.knows(bib, addr));
    session(&mut table, other, 10, 10);
    table.forget_hosts();
    assert!(table.knows(other, addr));
    table.purge_bib(other, |_, _| {});
    let other = table.add_bib(v6(2), v4(2), false).unwrap();
    assert!(!table.knows(other, addr));
}

#[test]
fn hosts_that_wait_for_the_client_are_not_known_yet() {
    let mut table = table();
    let bib = table.add_bib(v6(1), v4(1), false).unwrap();
    let (syn, est) = (Lifetime::TcpIncomingSyn, Lifetime::TcpEstablished);
    let add = |table: &mut Table, port| {
        let state = TcpState::V4Init;
        table
            .add_session(bib, v4(port), state, syn, Tick(6))
            .unwrap()
    };
    let before = add(&mut table, 10);
    assert!(!table.knows(bib, v4(0).addr));
    let after = add(&mut table, 20);
    assert!(!table.knows(bib, v4(0).addr));
    table.restart(before, est, Tick(7));
    assert!(table.knows(bib, v4(0).addr));
    table.remove_session(before);
    assert!(!table.knows(bib, v4(0).addr));
    table.remove_session(after);
    assert!(!table.knows(bib, v4(0).addr));
}

#[test]
fn sessions_are_counted_by_prefix() {
    let mut table = table();
    let neighbour = Transport6::new("2001:db8::1:0:0:9".parse().unwrap(), 1);
    let stranger = Transport6::new("2001:db8:0:1::8".parse().unwrap(), 1);
    for (i, client) in [v6(1), neighbour, stranger].into_iter().enumerate() {
        let port = i as u16;
        let bib = table.add_bib(client, v4(port), false).unwrap();
        session(&mut table, bib, 1, 1);
        if i == 0 {
            assert_eq!(table.sessions_of_prefix(client.addr, 64), 1);
        }
    }
    for (len, expected) in [(0, 3), (63, 3), (64, 2), (127, 1), (128, 1)] {
        assert_eq!(table.sessions_of_prefix(v6(0).addr, len), expected, "{len}");
    }
    assert_eq!(table.sessions_of_prefix(v6(0).addr, 64), 2);
    let bib = table.find_v6(neighbour).unwrap();
    table.purge_bib(bib, |_, _| {});
    assert_eq!(table.sessions_of_prefix(v6(0).addr, 64), 1);
    table.forget_prefixes();
    assert_eq!(table.sessions_of_prefix(stranger.addr, 64), 1);
}

/// Whoever has a prefix to choose addresses from can have many prefixes counted.
#[test]
fn a_counted_prefix_takes_no_more_than_its_bytes() {
    fn entry<K>(_: &Tally<K>) -> usize {
        size_of::<(K, u32)>()
    }
    let mut table = table();
    table.sessions_of_prefix(v6(0).addr, 64);
    let (_, prefixes) = table.prefixes.as_ref().unwrap();
    assert_eq!(entry(prefixes), 16 + 4);
}

/// A line of most processors' caches is 64 bytes; a session should not need two.
#[test]
fn what_packets_change_costs_no_memory() {
    assert!(size_of::<Session>() <= 48);
}

#[test]
fn a_session_that_was_put_off_ends_in_its_turn() {
    let mut table = table();
    let bib = table.add_bib(v6(1), v4(1), false).unwrap();
    let first = session(&mut table, bib, 10, 100);
    let second = session(&mut table, bib, 20, 200);
    let put_off = |table: &Table, to| table.session(first).put_off(Tick(to));
    assert!(!put_off(&table, 99), "never brought nearer");
    assert!(
        put_off(&table, 150) && put_off(&table, 120),
        "the latest counts"
    );
    assert_eq!(table.session(first).deadline(), Tick(150));
    assert!(!put_off(&table, 100 + 65_536), "does not lag so far behind");
    assert_eq!(table.due(Lifetime::Udp, Tick(100)), Some(first));
    table.list_anew(first);
    assert_eq!(table.due(Lifetime::Udp, Tick(149)), None);
    assert_eq!(table.due(Lifetime::Udp, Tick(150)), Some(first));
    table.remove_session(first);
    assert_eq!(table.due(Lifetime::Udp, Tick(200)), Some(second));
    table.session(second).put_off(Tick(300));
    table.restart(second, Lifetime::Udp, Tick(250));
    assert_eq!(table.session(second).deadline(), Tick(250));
}
