// SPDX-License-Identifier: GPL-2.0-or-later
//! Against real databases in real directories.

use std::os::unix::fs::PermissionsExt;

use super::journal::Config;
use super::*;
use crate::base::prefix::Prefix6;
use crate::base::{Protocol, Transport4, Transport6};
use crate::model::TcpState;
use crate::nat64::tcp::Lifetime;
use crate::nat64::{Change, News};

/// A directory that goes away with the test.
pub(super) struct Dir(pub(super) PathBuf);

impl Dir {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tylo-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Ten seconds after boot, at some time of day.
pub(super) fn clock() -> Clock {
    Clock {
        tick: Tick(10_000),
        wall: 1_700_000_000_000,
    }
}

/// The same machine a minute later and after a reboot: the tick is small again.
fn after_reboot() -> Clock {
    Clock {
        tick: Tick(1_000),
        wall: 1_700_000_060_000,
    }
}

pub(super) fn add(store: &Store) -> InstanceId {
    let id = InstanceId(7);
    store
        .configure(Config::Add {
            id,
            flavour: Flavour::Nat64,
            name: "default".to_owned(),
            framework: Framework::Netfilter,
            slot: 0,
            settings: Box::default(),
        })
        .unwrap();
    id
}

pub(super) fn mapping(port: u16, is_static: bool) -> Mapping {
    Mapping {
        protocol: Protocol::Tcp,
        v6: Transport6::new("2001:db8::8".parse().unwrap(), port),
        v4: Transport4::new("192.0.2.1".parse().unwrap(), port),
        is_static,
    }
}

pub(super) fn session(port: u16, deadline: u64) -> SessionState {
    SessionState {
        protocol: Protocol::Tcp,
        v4: Transport4::new("192.0.2.1".parse().unwrap(), port),
        remote: Transport4::new("203.0.113.1".parse().unwrap(), 80),
        state: TcpState::V4FinRcv,
        lifetime: Lifetime::TcpEstablished,
        deadline: Tick(deadline),
        segment: 1440,
    }
}

pub(super) fn lives_on(session: SessionState) -> Change {
    Change::Session {
        session,
        v6: mapping(session.v4.port, false).v6,
        news: News::LivesOn,
    }
}

pub(super) fn eam(v6: &str, v4: &str) -> EamRow {
    EamRow {
        v6: v6.parse().unwrap(),
        v4: v4.parse().unwrap(),
    }
}

#[test]
fn what_was_stored_comes_back_with_the_time_it_has_left() {
    let dir = Dir::new("back");
    let (store, saved) = Store::open(&dir.0, clock).unwrap();
    assert!(saved.is_empty());
    let id = add(&store);
    let range = Pool4Range {
        protocol: Protocol::Icmp,
        mark: 4_000_000_000,
        first: "192.0.2.1".parse().unwrap(),
        last: "192.0.2.9".parse().unwrap(),
        ports: PortRange { min: 0, max: 65535 },
    };
    let set = Pool4Set {
        protocol: Protocol::Icmp,
        mark: 4_000_000_000,
        iterations: MaxIterations::Fixed(u32::MAX),
    };
    store
        .configure(Config::Pool4(id, vec![set.clone()], vec![range.clone()]))
        .unwrap();
    store.journal(
        id,
        vec![
            Change::Mapping(mapping(1, true)),
            Change::Mapping(mapping(2, false)),
            Change::Mapping(mapping(3, false)),
            lives_on(session(2, 200_000)),
            lives_on(session(2, 110_000)),
            lives_on(session(3, 70_000)),
            Change::MappingGone {
                protocol: Protocol::Tcp,
                v6: mapping(3, false).v6,
                v4: mapping(3, false).v4,
            },
        ],
    );
    drop(store);

    let (store, mut saved) = Store::open(&dir.0, after_reboot).unwrap();
    let saved = saved.pop().unwrap();
    assert_eq!(
        (saved.id, saved.name.as_str(), saved.slot),
        (id, "default", 0)
    );
    assert_eq!(saved.settings, Settings::default());
    assert_eq!((saved.pool4, saved.pool4_sets), (vec![range], vec![set]));
    assert_eq!(saved.mappings, [mapping(1, true), mapping(2, false)]);
    // 110 s minus 10 s were left, a minute is gone: 40 s from tick 1 s on.
    assert_eq!(saved.sessions, [session(2, 41_000)]);
    assert_eq!(store.lost(), 0);
    drop(store);

    let (_store, saved) = Store::open(&dir.0, || Clock {
        tick: Tick(5),
        wall: 1_700_000_100_000,
    })
    .unwrap();
    assert!(saved[0].sessions.is_empty(), "expired meanwhile");
}

#[test]
fn an_instance_goes_with_all_it_has_and_latecomers_are_ignored() {
    let dir = Dir::new("remove");
    let (store, _) = Store::open(&dir.0, clock).unwrap();
    let id = add(&store);
    store.journal(id, vec![Change::Mapping(mapping(1, true))]);
    store.configure(Config::Remove(id)).unwrap();
    store.journal(id, vec![Change::Mapping(mapping(2, true))]);
    store.replace(id, vec![Change::Mapping(mapping(3, true))]);
    drop(store);
    let (store, saved) = Store::open(&dir.0, clock).unwrap();
    assert!(saved.is_empty());
    assert_eq!(store.lost(), 0);
}

#[test]
fn what_returns_in_the_moment_in_which_it_went_is_stored() {
    let dir = Dir::new("returns");
    let (store, _) = Store::open(&dir.0, clock).unwrap();
    let id = add(&store);
    let Mapping {
        protocol, v6, v4, ..
    } = mapping(1, false);
    store.journal(
        id,
        vec![
            Change::Mapping(mapping(1, false)),
            lives_on(session(1, 90_000)),
            Change::SessionGone {
                protocol,
                v6,
                v4,
                remote: session(1, 0).remote,
            },
            Change::MappingGone { protocol, v6, v4 },
            Change::Mapping(mapping(1, false)),
            lives_on(session(1, 95_000)),
            Change::Mapping(mapping(2, false)),
            lives_on(session(2, 90_000)),
            Change::MappingGone {
                protocol,
                v6: mapping(2, false).v6,
                v4: mapping(2, false).v4,
            },
        ],
    );
    drop(store);
    let (_store, saved) = Store::open(&dir.0, clock).unwrap();
    assert_eq!(saved[0].mappings, [mapping(1, false)]);
    assert_eq!(saved[0].sessions, [session(1, 95_000)]);
}

#[test]
fn a_snapshot_takes_the_place_of_what_was_there() {
    let dir = Dir::new("snapshot");
    let (store, _) = Store::open(&dir.0, clock).unwrap();
    let id = add(&store);
    store.journal(
        id,
        vec![
            Change::Mapping(mapping(1, false)),
            lives_on(session(1, 90_000)),
        ],
    );
    store.replace(id, vec![Change::Mapping(mapping(2, true))]);
    drop(store);
    let (_store, saved) = Store::open(&dir.0, clock).unwrap();
    assert_eq!(saved[0].mappings, [mapping(2, true)]);
    assert!(saved[0].sessions.is_empty());
}

#[test]
fn a_state_directory_has_one_daemon_and_no_other_readers() {
    let dir = Dir::new("lock");
    let (store, _) = Store::open(&dir.0, clock).unwrap();
    let error = Store::open(&dir.0, clock).err().unwrap().to_string();
    assert!(
        error.contains("in use by another daemon (process"),
        "{error}"
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.0), 0o700);
    for file in ["state.db", "state.db-wal", "lock"] {
        assert_eq!(mode(&dir.0.join(file)), 0o600, "{file}");
    }
    drop(store);
    assert!(Store::open(&dir.0, clock).is_ok());
}

#[test]
fn what_cannot_be_used_is_refused_and_left_as_it_is() {
    let dir = Dir::new("refused");
    fs::write(&dir.0, "a file").unwrap();
    let error = Store::open(&dir.0, clock).err().unwrap().to_string();
    assert!(
        error.starts_with("cannot use the state directory"),
        "{error}"
    );
    fs::remove_file(&dir.0).unwrap();

    drop(Store::open(&dir.0, clock).unwrap());
    let path = dir.0.join("state.db");
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let error = Store::open(&dir.0, clock).err().unwrap().to_string();
    assert!(
        error.contains("newer version of this program (schema 99"),
        "{error}"
    );

    let garbage = vec![0x5a; 10_000];
    fs::write(&path, &garbage).unwrap();
    let error = Store::open(&dir.0, clock).err().unwrap().to_string();
    assert!(error.contains("move it away"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), garbage);
}

#[test]
fn rows_that_cannot_be_are_passed_over() {
    let dir = Dir::new("rows");
    let (store, _) = Store::open(&dir.0, clock).unwrap();
    let id = add(&store);
    store.journal(id, vec![Change::Mapping(mapping(1, true))]);
    drop(store);
    let db = Connection::open(dir.0.join("state.db")).unwrap();
    db.execute_batch(
        "INSERT INTO bib VALUES (7, 9, 1, 1, x'00000000000000000000000000000000', 1, 0, NULL, 0);
         INSERT INTO bib VALUES (7, 0, -1, 1, x'00000000000000000000000000000000', 1, 0, NULL, 0);
         INSERT INTO bib VALUES (7, 0, 1, 70000, x'00000000000000000000000000000000', 1, 0, NULL, 0);
         INSERT INTO bib VALUES (7, 0, 1, 1, x'00', 1, 0, NULL, 0);
         INSERT INTO session VALUES (7, 0, 1, 1, 1, 1, 7, 0, 1, 0);
         INSERT INTO session VALUES (7, 0, 1, 1, 1, 2, 0, 5, 1, 0);
         INSERT INTO session VALUES (7, 0, 1, 1, 1, 3, 0, 0, -1, 0);
         INSERT INTO pool4_range VALUES (7, 0, 0, 9, 1, 1, 1);
         INSERT INTO eamt VALUES (7, 1, 24, x'00000000000000000000000000000000', 64);
         INSERT INTO eamt VALUES (7, 256, 33, x'00000000000000000000000000000000', 64);
         INSERT INTO eamt VALUES (7, 256, 24, x'00000000000000000000000000000001', 64);
         INSERT INTO eamt VALUES (7, 512, 24, x'0000', 64);
         INSERT INTO eamt VALUES (7, 768, 24, x'00000000000000000000000000000000', 64);
         INSERT INTO denylist4 VALUES (7, 0, 1, 24);
         INSERT INTO denylist4 VALUES (7, 1, 4294967296, 32);
         INSERT INTO denylist4 VALUES (7, 2, 256, -1);
         INSERT INTO fmrt VALUES (7, x'00', 51, 0, 24, 13, 0);
         INSERT INTO fmrt VALUES (7, x'20010db800ce00000000000000000000', 51, 1, 24, 13, 0);
         INSERT INTO fmrt VALUES (7, x'20010db800ce00000000000000000000', 52, 0, 24, 49, 0);
         INSERT INTO fmrt VALUES (7, x'20010db800ce00000000000000000000', 53, 0, 24, 13, 12);",
    )
    .unwrap();
    drop(db);
    let (store, saved) = Store::open(&dir.0, clock).unwrap();
    assert_eq!(saved[0].mappings, [mapping(1, true)]);
    assert_eq!(saved[0].unusable, 19);
    assert_eq!(saved[0].eamt, [eam("::/64", "0.0.3.0/24")]);
    assert!(saved[0].denylist4.is_empty() && saved[0].fmrt.is_empty());
    drop(store);
    let db = Connection::open(dir.0.join("state.db")).unwrap();
    db.execute("UPDATE instance SET settings = '{'", [])
        .unwrap();
    drop(db);
    let error = Store::open(&dir.0, clock).err().unwrap().to_string();
    assert!(
        error.contains("'default' whose settings cannot be read"),
        "{error}"
    );
}

#[test]
fn a_failing_disk_is_counted_and_asks_for_a_snapshot() {
    let dir = Dir::new("failing");
    let (store, _) = Store::open(&dir.0, clock).unwrap();
    let id = add(&store);
    // A table that is gone fails every write, as a full disk would.
    let db = Connection::open(dir.0.join("state.db")).unwrap();
    db.execute_batch("ALTER TABLE bib RENAME TO hidden")
        .unwrap();
    store.journal(id, vec![Change::Mapping(mapping(1, true))]);
    wait(|| store.backlog() == 0);
    assert_eq!(store.lost(), 1);
    assert_eq!(store.take_resync().into_iter().collect::<Vec<_>>(), [id]);
    db.execute_batch("ALTER TABLE hidden RENAME TO bib")
        .unwrap();
    store.replace(id, vec![Change::Mapping(mapping(1, true))]);
    drop(store);
    let (_store, saved) = Store::open(&dir.0, clock).unwrap();
    assert_eq!(saved[0].mappings, [mapping(1, true)]);
}

pub(super) fn wait(done: impl Fn() -> bool) {
    // On a crowded machine everything takes its time.
    for _ in 0..6_000 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("waited for a minute");
}

#[test]
fn an_instance_that_could_not_be_removed_goes_on() {
    let dir = Dir::new("unremoved");
    {
        let (store, _) = Store::open(&dir.0, clock).unwrap();
        let id = add(&store);
        let other = Connection::open(dir.0.join("state.db")).unwrap();
        // Fails at the commit, as a full disk does.
        other
            .execute_batch(
                "CREATE TABLE holder (instance REFERENCES instance DEFERRABLE INITIALLY DEFERRED);
                 INSERT INTO holder VALUES (7)",
            )
            .unwrap();
        store.configure(Config::Remove(id)).unwrap_err();
        store.journal(id, vec![Change::Mapping(mapping(1, true))]);
        store.replace(id, vec![Change::Mapping(mapping(2, true))]);
        store.journal(id, vec![Change::Mapping(mapping(3, true))]);
    }
    let (_store, saved) = Store::open(&dir.0, clock).unwrap();
    assert_eq!(saved[0].mappings, [mapping(2, true), mapping(3, true)]);
}

#[test]
fn whoever_waits_for_the_disk_is_told_when_it_fails() {
    let dir = Dir::new("wait");
    let (store, _) = Store::open(&dir.0, clock).unwrap();
    let id = add(&store);
    let change = || vec![Change::Mapping(mapping(1, true))];
    store.journal(id, change());
    store.flush(id).unwrap();
    let other = Connection::open(dir.0.join("state.db")).unwrap();
    let stored = || -> i64 {
        other
            .query_row("SELECT count(*) FROM bib", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(stored(), 1, "on disk when flush returns");
    other
        .execute_batch(
            "CREATE TRIGGER full BEFORE INSERT ON bib BEGIN SELECT raise(ABORT, 'full'); END",
        )
        .unwrap();
    store.journal(id, change());
    assert!(matches!(store.flush(id), Err(Error::Write(_))));
    assert!(matches!(store.flush(id), Err(Error::Gaps)));
    assert!(matches!(store.save(id, change()), Err(Error::Write(_))));
    other.execute_batch("DROP TRIGGER full").unwrap();
    store.save(id, change()).unwrap();
    assert_eq!(store.backlog(), 0);
}

#[test]
fn a_writer_that_is_behind_is_not_given_snapshots_on_top() {
    let dir = Dir::new("behind");
    let (store, _) = Store::open(&dir.0, clock).unwrap();
    let id = add(&store);
    let other = Connection::open(dir.0.join("state.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    while store.lost() == 0 {
        store.journal(id, vec![Change::Mapping(mapping(1, true))]);
    }
    assert!(store.take_resync().is_empty());
    other.execute_batch("COMMIT").unwrap();
    wait(|| store.take_resync().contains(&id));
}

#[test]
fn a_directory_that_everybody_may_write_to_is_refused() {
    let dir = Dir::new("shared");
    fs::create_dir(&dir.0).unwrap();
    fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o1777)).unwrap();
    let error = Store::open(&dir.0, clock).map(drop).unwrap_err();
    assert!(matches!(error, Error::Shared(_)), "{error}");
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0);
}

#[test]
fn stateless_tables_come_back_as_they_were_left() {
    let dir = Dir::new("stateless");
    let (store, _) = Store::open(&dir.0, clock).unwrap();
    let id = InstanceId(1);
    let prefix = |text: &str| text.parse::<Prefix4>().unwrap();
    let added = Config::All(vec![
        Config::Add {
            id,
            flavour: Flavour::Siit,
            name: "default".to_owned(),
            framework: Framework::Iptables,
            slot: 3,
            settings: Box::default(),
        },
        Config::Eamt(id, vec![eam("2001:db8::/120", "192.0.2.0/24")]),
        Config::Denylist4(id, vec![prefix("10.0.0.0/8")]),
    ]);
    store.configure(added).unwrap();
    let nat64 = add(&store);
    let (kept, gone) = (
        eam("2001:db8::1/128", "192.0.2.1/32"),
        eam("2001:db8::1:0/112", "198.51.0.0/16"),
    );
    store.configure(Config::EamAdd(id, gone)).unwrap();
    store.configure(Config::EamAdd(id, kept)).unwrap();
    store.configure(Config::EamRemove(id, gone)).unwrap();
    // Duplicates count, and so does the order.
    let denied = ["192.0.2.7/32", "10.0.0.0/8", "192.0.2.7/32"].map(prefix);
    store
        .configure(Config::Denylist4(id, denied.to_vec()))
        .unwrap();
    drop(store);

    let (store, saved) = Store::open(&dir.0, clock).unwrap();
    assert_eq!(
        (saved[0].flavour, saved[0].framework),
        (Flavour::Siit, Framework::Iptables)
    );
    assert_eq!(saved[0].eamt, [eam("2001:db8::/120", "192.0.2.0/24"), kept]);
    assert_eq!(saved[0].denylist4, denied);
    assert_eq!(saved[0].unusable, 0);
    assert!(saved[1].eamt.is_empty(), "another instance's");
    store.configure(Config::Eamt(id, Vec::new())).unwrap();
    store.configure(Config::Remove(nat64)).unwrap();
    store.configure(Config::Remove(id)).unwrap();
    drop(store);
    let db = Connection::open(dir.0.join("state.db")).unwrap();
    let left: i64 = db
        .query_row(
            "SELECT (SELECT count(*) FROM eamt) + (SELECT count(*) FROM denylist4)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(left, 0);
}

#[test]
fn of_several_changes_at_once_all_are_stored_or_none() {
    let dir = Dir::new("all");
    let (store, _) = Store::open(&dir.0, clock).unwrap();
    let id = add(&store);
    let row = eam("2001:db8::/120", "192.0.2.0/24");
    store.configure(Config::EamAdd(id, row)).unwrap();
    let settings = Settings {
        tos: 9,
        ..Settings::default()
    };
    let change = |eamt| {
        Config::All(vec![
            Config::Settings(id, Box::new(settings.clone())),
            Config::Bib(id, vec![Change::Mapping(mapping(1, true))]),
            Config::Eamt(id, eamt),
        ])
    };
    // One IPv4 prefix twice.
    store.configure(change(vec![row, row])).unwrap_err();
    drop(store);
    let (store, saved) = Store::open(&dir.0, clock).unwrap();
    assert_eq!(saved[0].settings, Settings::default());
    assert!(saved[0].mappings.is_empty());
    assert_eq!(saved[0].eamt, [row]);
    store.configure(change(Vec::new())).unwrap();
    drop(store);
    let (_store, saved) = Store::open(&dir.0, clock).unwrap();
    assert_eq!(saved[0].settings, settings);
    assert_eq!(saved[0].mappings, [mapping(1, true)]);
    assert!(saved[0].eamt.is_empty());
}

#[test]
fn a_hundred_thousand_eam_rows_are_one_transaction() {
    let dir = Dir::new("large");
    let (store, _) = Store::open(&dir.0, clock).unwrap();
    let id = add(&store);
    let base = u128::from("2001:db8::".parse::<std::net::Ipv6Addr>().unwrap());
    let rows: Vec<EamRow> = (0..100_000u32)
        .map(|n| EamRow {
            v4: Prefix4::new((0x0a00_0000 + n).into(), 32).unwrap(),
            v6: Prefix6::new((base + u128::from(n)).into(), 128).unwrap(),
        })
        .collect();
    store.configure(Config::Eamt(id, rows.clone())).unwrap();
    drop(store);
    let (_store, saved) = Store::open(&dir.0, clock).unwrap();
    assert_eq!(saved[0].eamt, rows);
}
