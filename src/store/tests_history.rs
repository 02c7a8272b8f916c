// SPDX-License-Identifier: GPL-2.0-or-later
//! Who had which transport address, in real databases.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::journal::Config;
use super::tests::{Dir, clock, mapping, wait};
use super::*;
use crate::base::{Protocol, Transport6};
use crate::model::control::Holder;
use crate::nat64::Change;

const NOON: u64 = 1_700_000_000_000;
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const ID: InstanceId = InstanceId(7);

/// A clock that a test sets; each needs one of its own, for the writer reads it, too.
macro_rules! hands {
    ($now:ident, $clock:ident) => {
        static $now: AtomicU64 = AtomicU64::new(NOON);
        fn $clock() -> Clock {
            Clock {
                // Far from where the other one would seem to be set.
                tick: Tick($now.load(Ordering::Relaxed) - NOON + 10_000),
                wall: $now.load(Ordering::Relaxed),
            }
        }
    };
}

fn settings(retention: u64, most: u32) -> Settings {
    Settings {
        history_retention: retention,
        history_max_entries: most,
        ..Settings::default()
    }
}

fn add(store: &Store, retention: u64, most: u32) {
    let add = Config::Add {
        id: ID,
        flavour: Flavour::Nat64,
        name: "default".to_owned(),
        framework: Framework::Netfilter,
        slot: 0,
        settings: Box::new(settings(retention, most)),
    };
    store.configure(add).unwrap();
}

fn set(store: &Store, retention: u64, most: u32) {
    let settings = Box::new(settings(retention, most));
    store.configure(Config::Settings(ID, settings)).unwrap();
}

/// The mapping of a port, for one of several clients.
fn of(client: u16, port: u16) -> Mapping {
    Mapping {
        v6: Transport6::new("2001:db8::9".parse().unwrap(), client),
        ..mapping(port, false)
    }
}

fn begin(store: &Store, mapping: Mapping) {
    store.journal(ID, vec![Change::Mapping(mapping)]);
}

fn end(store: &Store, m: Mapping) {
    let (protocol, v6, v4) = (m.protocol, m.v6, m.v4);
    store.journal(ID, vec![Change::MappingGone { protocol, v6, v4 }]);
}

/// Those who had a port at some time after noon.
fn had(store: &Store, port: u16, after: u64) -> Vec<Holder> {
    let v4 = mapping(port, false).v4;
    let found = store.holders(Protocol::Tcp, v4, Some(NOON + after));
    found.unwrap().unwrap().holders
}

fn clients(found: &[Holder]) -> Vec<u16> {
    found.iter().map(|holder| holder.v6.port).collect()
}

fn rows(dir: &Dir) -> usize {
    let db = Connection::open(dir.0.join(DATABASE)).unwrap();
    db.query_row("SELECT count(*) FROM history", [], |row| {
        row.get::<_, u32>(0)
    })
    .unwrap() as usize
}

#[test]
fn every_life_of_a_transport_address_is_known() {
    hands!(NOW, hands);
    let at = |after: u64| NOW.store(NOON + after, Ordering::Relaxed);
    let dir = Dir::new("history-lives");
    let (store, _) = Store::open(&dir.0, hands).unwrap();
    add(&store, HOUR, 0);
    begin(&store, of(1, 80));
    at(10 * SECOND);
    end(&store, of(1, 80));
    at(20 * SECOND);
    begin(&store, of(2, 80));
    // What only becomes static is the same mapping.
    at(25 * SECOND);
    let fixed = Mapping {
        is_static: true,
        ..of(2, 80)
    };
    store.journal(ID, vec![Change::MappingFixed(fixed)]);
    for (after, who) in [
        (0, vec![1]),
        (10 * SECOND, vec![1]),
        (10 * SECOND + 1, vec![]),
        (20 * SECOND - 1, vec![]),
        (20 * SECOND, vec![2]),
        (25 * SECOND, vec![2]),
    ] {
        assert_eq!(clients(&had(&store, 80, after)), who, "{after}");
    }
    let first = Holder {
        v6: of(1, 80).v6,
        began: Some(NOON),
        began_or_before: false,
        ended: Some(NOON + 10 * SECOND),
        ended_or_before: false,
        is_static: false,
        instance: Some("default".to_owned()),
    };
    assert_eq!(had(&store, 80, 1), [first]);
    let v4 = fixed.v4;
    let now = store.holders(Protocol::Tcp, v4, None).unwrap().unwrap();
    assert_eq!(now.since, Some(NOON));
    let [second] = &now.holders[..] else {
        panic!("{now:?}");
    };
    assert_eq!((second.began, second.ended), (Some(NOON + 20_000), None));
    assert!(second.is_static);
    // Neither other ports nor protocols nor addresses.
    assert!(had(&store, 81, 1).is_empty());
    let udp = store.holders(Protocol::Udp, v4, Some(NOON + 1)).unwrap();
    assert!(udp.unwrap().holders.is_empty());

    // Two within a millisecond have lives of their own.
    at(30 * SECOND);
    for client in 3..6 {
        begin(&store, of(client, 90));
        end(&store, of(client, 90));
    }
    let mut found = clients(&had(&store, 90, 30 * SECOND));
    found.extend(clients(&had(&store, 90, 30 * SECOND + 1)));
    found.extend(clients(&had(&store, 90, 30 * SECOND + 2)));
    assert_eq!(found, [3, 4, 5]);

    // From beside a running writer, and after it.
    drop(store);
    let offline = history::holders(&dir.0, Protocol::Tcp, v4, Some(NOON + 1)).unwrap();
    assert_eq!(clients(&offline.holders), [1]);
    assert!(inspect::check(&dir.0).unwrap().is_empty());
}

#[test]
fn nothing_is_remembered_unless_that_is_wanted() {
    hands!(NOW, hands);
    let at = |after: u64| NOW.store(NOON + after, Ordering::Relaxed);
    let dir = Dir::new("history-off");
    let (store, _) = Store::open(&dir.0, hands).unwrap();
    add(&store, 0, 0);
    for client in 1..4 {
        begin(&store, of(client, client));
    }
    end(&store, of(1, 1));
    assert!(had(&store, 1, 0).is_empty());
    // Who is there now is known anyway, but not since when.
    assert!(had(&store, 2, 0).is_empty());
    let v4 = of(2, 2).v4;
    let now = store.holders(Protocol::Tcp, v4, None).unwrap().unwrap();
    assert_eq!((now.holders.len(), now.since), (1, None));
    assert_eq!(now.holders[0].began, None);
    assert_eq!(rows(&dir), 0);

    // What is there already began when recording did, or before.
    at(10 * SECOND);
    set(&store, HOUR, 0);
    at(20 * SECOND);
    end(&store, of(2, 2));
    for (port, ended) in [(2, Some(NOON + 20_000)), (3, None)] {
        assert!(had(&store, port, 9_999).is_empty());
        let found = had(&store, port, 10_000);
        let [one] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!((one.began, one.ended), (Some(NOON + 10_000), ended));
        assert!(one.began_or_before && !one.ended_or_before);
    }
    // A change of the limits is no new beginning.
    at(30 * SECOND);
    set(&store, 2 * HOUR, 5);
    let again = store.holders(Protocol::Tcp, v4, None).unwrap().unwrap();
    assert_eq!(again.since, Some(NOON + 10_000));

    set(&store, 0, 0);
    wait(|| rows(&dir) == 0);
    set(&store, HOUR, 0);
    end(&store, of(3, 3));
    assert_eq!(clients(&had(&store, 3, 30_000)), [3]);
    // It goes with the instance.
    store.configure(Config::Remove(ID)).unwrap();
    wait(|| rows(&dir) == 0);
}

#[test]
fn what_is_too_old_or_too_much_is_forgotten_in_portions() {
    hands!(NOW, hands);
    let dir = Dir::new("history-bounds");
    let (store, _) = Store::open(&dir.0, hands).unwrap();
    add(&store, HOUR, 7_000);
    // Several portions, the oldest first.
    for port in 1..=20_000u16 {
        NOW.store(NOON + u64::from(port), Ordering::Relaxed);
        begin(&store, of(1, port));
        end(&store, of(1, port));
        if port % 2_000 == 0 {
            wait(|| store.backlog() == 0);
        }
    }
    assert_eq!(store.lost(), 0);
    wait(|| rows(&dir) == 7_000);
    assert!(had(&store, 13_000, 13_000).is_empty());
    assert_eq!(had(&store, 13_001, 13_001).len(), 1);
    // How many there are is counted anew after a start.
    drop(store);
    let (store, _) = Store::open(&dir.0, hands).unwrap();
    set(&store, HOUR, 6_000);
    wait(|| rows(&dir) == 6_000);
    // Whoever is there all the time is not old.
    begin(&store, of(2, 21_000));
    wait(|| store.backlog() == 0);
    NOW.store(NOON + HOUR + 18_000, Ordering::Relaxed);
    wait(|| rows(&dir) == 2_001);
    NOW.store(NOON + 3 * HOUR, Ordering::Relaxed);
    wait(|| rows(&dir) == 0);
    assert_eq!(clients(&had(&store, 21_000, 2 * HOUR)), [2]);
    end(&store, of(2, 21_000));
    assert_eq!(clients(&had(&store, 21_000, 2 * HOUR)), [2]);
}

#[test]
fn what_nobody_saw_is_told_with_what_is_certain() {
    hands!(NOW, hands);
    let at = |after: u64| NOW.store(NOON + after, Ordering::Relaxed);
    let dir = Dir::new("history-gap");
    let (store, _) = Store::open(&dir.0, hands).unwrap();
    add(&store, HOUR, 0);
    for port in 1..4 {
        begin(&store, of(1, port));
    }
    wait(|| store.backlog() == 0);
    // A gap: 1 goes on, 2 is another's, 3 is gone, 4 is new.
    at(10 * SECOND);
    let snapshot = [of(1, 1), of(2, 2), of(1, 4)].map(Change::Mapping);
    store.save(ID, snapshot.to_vec()).unwrap();
    at(20 * SECOND);
    let now = had(&store, 1, 15_000);
    assert_eq!((now[0].began, now[0].began_or_before), (Some(NOON), false));
    for port in [2, 3] {
        let before = had(&store, port, 5_000);
        assert_eq!(clients(&before), [1]);
        assert_eq!(before[0].ended, Some(NOON + 10_000));
        assert!(before[0].ended_or_before && !before[0].began_or_before);
    }
    for (port, client) in [(2, 2), (4, 1)] {
        let after = had(&store, port, 10_001);
        assert_eq!(clients(&after), [client]);
        assert_eq!(after[0].began, Some(NOON + 10_000));
        assert!(after[0].began_or_before);
    }
    assert!(had(&store, 3, 10_001).is_empty());
    // The end of another's was not heard of, but a new client has it.
    begin(&store, of(5, 1));
    assert_eq!(clients(&had(&store, 1, 19_999)), [1]);
    assert!(had(&store, 1, 19_999)[0].ended_or_before);
    assert_eq!(clients(&had(&store, 1, 20_000)), [5, 1]);
}

#[test]
fn a_crash_leaves_nothing_open() {
    hands!(NOW, hands);
    let (dir, copy) = (Dir::new("history-crash"), Dir::new("history-crash-copy"));
    let (store, _) = Store::open(&dir.0, hands).unwrap();
    add(&store, HOUR, 0);
    begin(&store, of(1, 1));
    begin(&store, of(1, 2));
    begin(&store, of(1, 3));
    end(&store, of(1, 3));
    wait(|| store.backlog() == 0);
    fs::create_dir(&copy.0).unwrap();
    for name in [DATABASE, "state.db-wal"] {
        fs::copy(dir.0.join(name), copy.0.join(name)).unwrap();
    }
    NOW.store(NOON + 60_000, Ordering::Relaxed);
    let (store, saved) = Store::open(&copy.0, hands).unwrap();
    assert_eq!(saved[0].mappings.len(), 2);
    // One lives on, the other has no session any more.
    end(&store, of(1, 2));
    let lives = had(&store, 1, 60_000);
    assert_eq!((lives[0].began, lives[0].ended), (Some(NOON), None));
    let over = had(&store, 2, 1);
    assert_eq!(over[0].ended, Some(NOON + 60_000));
    assert_eq!(clients(&had(&store, 3, 0)), [1]);
}

#[test]
fn a_clock_that_is_set_back_hides_nobody() {
    hands!(NOW, hands);
    let dir = Dir::new("history-back");
    let (store, _) = Store::open(&dir.0, hands).unwrap();
    add(&store, HOUR, 0);
    NOW.store(NOON + 60_000, Ordering::Relaxed);
    begin(&store, of(1, 1));
    NOW.store(NOON + 30_000, Ordering::Relaxed);
    end(&store, of(1, 1));
    for (after, count) in [
        (29_999, 0),
        (30_000, 1),
        (45_000, 1),
        (60_000, 1),
        (60_001, 0),
    ] {
        assert_eq!(had(&store, 1, after).len(), count, "{after}");
    }
}

/// Writes over the pages of the history, but for the first.
fn damage(dir: &Dir) {
    use std::os::unix::fs::FileExt as _;
    let path = dir.0.join(DATABASE);
    let db = Connection::open(&path).unwrap();
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let mut query = db
        .prepare(
            "SELECT pageno FROM dbstat WHERE name = 'history' AND pagetype = 'leaf' ORDER BY path",
        )
        .unwrap();
    let pages = query.query_map([], |row| row.get::<_, u32>(0)).unwrap();
    let pages: Vec<u32> = pages.map(Result::unwrap).collect();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for page in &pages[pages.len() - 3..] {
        file.write_all_at(&[0x5a; 4096], u64::from(page - 1) * 4096)
            .unwrap();
    }
}

#[test]
fn a_damaged_history_is_salvaged_when_it_is_met() {
    let dir = Dir::new("history-damaged");
    let (store, _) = Store::open(&dir.0, clock).unwrap();
    add(&store, HOUR, 0);
    for port in 1..10_000 {
        begin(&store, of(1, port));
        end(&store, of(1, port));
        if port % 2_000 == 0 {
            wait(|| store.backlog() == 0);
        }
    }
    begin(&store, of(1, 10_000));
    drop(store);
    damage(&dir);
    assert!(!inspect::check(&dir.0).unwrap().is_empty());
    // A start does not read it all.
    let (store, saved) = Store::open(&dir.0, clock).unwrap();
    assert_eq!(saved[0].mappings, [of(1, 10_000)]);
    begin(&store, of(2, 9_999));
    end(&store, of(2, 9_999));
    wait(|| store.lost() > 0);
    drop(store);
    assert!(dir.0.join(SUSPECT).exists());
    let (store, saved) = Store::open(&dir.0, clock).unwrap();
    assert!(!dir.0.join(SUSPECT).exists());
    assert_eq!(saved[0].mappings, [of(1, 10_000)]);
    let left = rows(&dir);
    assert!((9_000..10_000).contains(&left), "{left}");
    assert_eq!(clients(&had(&store, 1, 0)), [1]);
    assert!(inspect::check(&dir.0).unwrap().is_empty());
}

#[test]
fn a_damaged_database_of_an_older_version_is_salvaged() {
    let dir = Dir::new("history-older");
    fs::create_dir(&dir.0).unwrap();
    let db = Connection::open(dir.0.join(DATABASE)).unwrap();
    db.execute_batch(include_str!("../../tests/fixtures/state/v2.sql"))
        .unwrap();
    drop(db);
    let cause = Error::Database(dir.0.clone(), rusqlite::Error::InvalidQuery);
    salvage::salvage(&dir.0, cause, 1).unwrap();
    let (_store, saved) = Store::open(&dir.0, clock).unwrap();
    assert_eq!((saved[0].mappings.len(), saved[0].sessions.len()), (4, 4));
}

#[test]
fn a_deadline_is_kept_and_what_is_confirmed_does_not_wait_for_it() {
    let dir = Dir::new("deadline");
    let stored = || {
        let db = Connection::open(dir.0.join(DATABASE)).unwrap();
        db.query_row("SELECT count(*) FROM bib", [], |row| row.get::<_, u32>(0))
            .unwrap()
    };
    // So long that no test would wait for it.
    let long = Duration::from_secs(3_600);
    let (store, _) = Store::open_with(&dir.0, clock, opening(long)).unwrap();
    add(&store, 0, 0);
    begin(&store, of(1, 1));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!((stored(), store.backlog()), (0, 1), "a kill would lose it");
    set(&store, 0, 1);
    assert_eq!((stored(), store.backlog()), (1, 0));
    begin(&store, of(2, 2));
    store.flush(ID).unwrap();
    assert_eq!(stored(), 2);
    begin(&store, of(3, 3));
    drop(store);
    assert_eq!(stored(), 3, "a clean end");
    let (store, _) = Store::open_with(&dir.0, clock, opening(Duration::from_millis(1))).unwrap();
    begin(&store, of(4, 4));
    wait(|| stored() == 4);
}

fn opening(deadline: Duration) -> Opening {
    Opening {
        deadline,
        ..Opening::default()
    }
}
