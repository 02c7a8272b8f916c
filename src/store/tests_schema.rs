// SPDX-License-Identifier: GPL-2.0-or-later
//! Databases of every version of the schema so far, from `tests/fixtures/state`.

use std::net::Ipv4Addr;

use super::fuzzing::FIXTURES;
use super::journal::Config;
use super::tests::{Dir, clock, eam, mapping, session};
use super::*;
use crate::base::{Protocol, Transport4};
use crate::model::TcpState;
use crate::nat64::tcp::Lifetime;

/// The version that brought the tables of stateless translation.
const STATELESS: usize = 2;

/// The version that brought the history.
const HISTORY: usize = 3;

/// The version that brought the rules of MAP-T.
const MAPT: usize = 4;

/// The version that brought the segments of sessions.
const SEGMENT: usize = 5;

#[test]
fn every_version_is_brought_up_to_date_with_all_it_has() {
    for (version, sql) in (1..).zip(FIXTURES) {
        let dir = Dir::new(&format!("version-{version}"));
        fs::create_dir(&dir.0).unwrap();
        let db = Connection::open(dir.0.join(DATABASE)).unwrap();
        db.execute_batch(sql).unwrap();
        drop(db);
        if version < MIGRATIONS.len() {
            let error = inspect::check(&dir.0).unwrap_err();
            assert!(matches!(error, Error::Older { .. }), "{error}");
        }

        let (store, saved) = Store::open(&dir.0, clock).unwrap();
        expect(version, &saved);
        // It is fit for use, too.
        let row = eam("2001:db8:9::/120", "203.0.113.0/24");
        let siit = &saved[2];
        store.configure(Config::EamAdd(siit.id, row)).unwrap();
        drop(store);
        let (_store, again) = Store::open(&dir.0, clock).unwrap();
        assert!(again[2].eamt.contains(&row));
        assert_eq!(again[2].eamt.len(), siit.eamt.len() + 1);
        assert_eq!(again[0].sessions, saved[0].sessions);
        let mut gone = mapping(3, false).v4;
        let had = |v4| {
            let at = Some(clock().wall - 150_000);
            history::holders(&dir.0, Protocol::Tcp, v4, at).unwrap()
        };
        assert_eq!(had(gone).holders.len(), usize::from(version >= HISTORY));
        // There when it was first recorded, which is what is known of it.
        gone.port = 2;
        assert_eq!(had(gone).holders.len(), usize::from(version >= HISTORY));
        assert_eq!(inspect::check(&dir.0).unwrap(), [""; 0]);
    }
}

fn expect(version: usize, saved: &[Saved]) {
    let mapt = usize::from(version >= MAPT);
    let names: Vec<_> = saved
        .iter()
        .map(|s| (s.id.0, s.flavour, s.name.as_str(), s.framework, s.slot))
        .collect();
    assert_eq!(
        names,
        [
            (7, Flavour::Nat64, "default", Framework::Netfilter, 0),
            (8, Flavour::Nat64, "second", Framework::Iptables, 3),
            (9, Flavour::Siit, "default", Framework::Netfilter, 4),
            (10, Flavour::Mapt, "default", Framework::Netfilter, 5),
        ][..3 + mapt]
    );
    assert!(saved.iter().all(|s| s.unusable == 0));
    let pool6: Vec<_> = saved
        .iter()
        .map(|s| s.settings.pool6.unwrap().to_string())
        .collect();
    assert_eq!(
        pool6,
        [
            "64:ff9b::/96",
            "2001:db8:64::/96",
            "64:ff9b:1::/96",
            "64:ff9b:2::/96"
        ][..3 + mapt]
    );
    assert_eq!(saved[0].settings.tos, 9);

    let address = |text: &str| text.parse::<Ipv4Addr>().unwrap();
    let range = |protocol, mark, last: &str, min| Pool4Range {
        protocol,
        mark,
        first: address("192.0.2.1"),
        last: address(last),
        ports: PortRange { min, max: 65535 },
    };
    let set = |protocol, mark, iterations| Pool4Set {
        protocol,
        mark,
        iterations,
    };
    assert_eq!(
        saved[0].pool4,
        [
            range(Protocol::Tcp, 0, "192.0.2.1", 1),
            range(Protocol::Udp, 5, "192.0.2.16", 61001),
            range(Protocol::Icmp, 0, "192.0.2.1", 0),
        ]
    );
    assert_eq!(
        saved[0].pool4_sets,
        [
            set(Protocol::Tcp, 0, MaxIterations::Auto),
            set(Protocol::Udp, 5, MaxIterations::Infinity),
            set(Protocol::Icmp, 0, MaxIterations::Fixed(99)),
        ]
    );

    let other = |protocol, v4, v6| {
        let mut other = mapping(v4, false);
        other.protocol = protocol;
        other.v6.port = v6;
        other
    };
    assert_eq!(
        saved[0].mappings,
        [
            mapping(1, true),
            mapping(2, false),
            other(Protocol::Udp, 61001, 53),
            other(Protocol::Icmp, 7, 70),
        ]
    );
    let remote = |port| Transport4::new(address("203.0.113.1"), port);
    let known = if version >= SEGMENT { 1440 } else { 0 };
    let unknown = SessionState {
        segment: 0,
        ..session(1, 100_000)
    };
    let first = SessionState {
        segment: known,
        ..unknown
    };
    assert_eq!(
        saved[0].sessions,
        [
            first,
            SessionState {
                v4: mapping(2, false).v4,
                state: TcpState::Trans,
                lifetime: Lifetime::TcpTransitory,
                deadline: Tick(100_001),
                ..unknown
            },
            SessionState {
                protocol: Protocol::Udp,
                v4: mapping(61001, false).v4,
                remote: remote(53),
                state: TcpState::ALL[0],
                lifetime: Lifetime::Udp,
                deadline: Tick(100_002),
                ..unknown
            },
            SessionState {
                protocol: Protocol::Icmp,
                v4: mapping(7, false).v4,
                remote: remote(7),
                state: TcpState::ALL[0],
                lifetime: Lifetime::Icmp,
                deadline: Tick(100_003),
                ..unknown
            },
        ]
    );
    let mut second = mapping(1, true);
    second.v4.addr = address("192.0.3.1");
    assert_eq!(saved[1].mappings, [second]);

    let prefix = |text: &str| text.parse::<Prefix4>().unwrap();
    if version < STATELESS {
        assert!(saved[2].eamt.is_empty() && saved[2].denylist4.is_empty());
    } else {
        assert_eq!(
            saved[2].eamt,
            [
                eam("2001:db8:5::1/128", "192.0.2.1/32"),
                eam("2001:db8:4::/120", "198.51.100.0/24"),
            ]
        );
        assert_eq!(
            saved[2].denylist4,
            [prefix("192.168.0.0/16"), prefix("10.0.0.0/8")]
        );
    }
    if let Some(mapt) = saved.get(3) {
        let rules = mapt.fmrt.iter().map(ToString::to_string);
        let rules: Vec<_> = rules.collect();
        assert_eq!(
            rules,
            [
                "2001:db8:ce::/51 192.0.2.0/24 13 0",
                "2001:db8:cf::/48 198.51.100.0/24 16 6",
            ]
        );
    }
}
