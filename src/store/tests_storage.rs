// SPDX-License-Identifier: GPL-2.0-or-later
//! Storage that fails: damaged, cut off, full, not there.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use super::journal::Config;
use super::tests::{Dir, add, clock, lives_on, mapping, session, wait};
use super::*;
use crate::base::Protocol;
use crate::nat64::Change;

const PORTS: std::ops::Range<u16> = 1_000..21_000;

/// A state directory with an instance, mappings with a session each, and a static one.
fn filled(name: &str) -> Dir {
    let dir = Dir::new(name);
    let (store, _) = Store::open(&dir.0, clock).unwrap();
    let id = add(&store);
    let all = PORTS.flat_map(|port| {
        [
            Change::Mapping(mapping(port, port == PORTS.start)),
            lives_on(session(port, 100_000)),
        ]
    });
    store.save(id, all.collect()).unwrap();
    dir
}

/// The pages of a table, and how many rows each holds, in order.
fn pages(dir: &Dir, table: &str, kind: &str) -> Vec<(u64, usize)> {
    let db = Connection::open(dir.0.join(DATABASE)).unwrap();
    let mut query = db
        .prepare("SELECT pageno, ncell FROM dbstat WHERE name = ?1 AND pagetype = ?2 ORDER BY path")
        .unwrap();
    let rows = query.query_map([table, kind], |row| {
        Ok((row.get::<_, u32>(0)?.into(), row.get::<_, u16>(1)?.into()))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn overwrite(dir: &Dir, page: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    let file = OpenOptions::new().write(true).open(dir.0.join(DATABASE));
    file.unwrap()
        .write_all_at(bytes, (page - 1) * 4096)
        .unwrap();
}

fn names(dir: &Dir) -> BTreeSet<String> {
    let entries = fs::read_dir(&dir.0).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn what_can_be_read_of_a_damaged_database_goes_on() {
    // Which leaves of a table are damaged, and by what.
    type Which = fn(usize) -> Vec<usize>;
    let leaves: &[(&str, Which)] = &[
        ("bib", |n| vec![n / 2]),
        ("bib", |_| vec![0]),
        ("bib", |n| vec![n - 1]),
        ("bib", |n| {
            vec![n / 4, n / 2, n / 2 + 1, n / 2 + 2, n * 3 / 4]
        }),
        ("bib", |n| (1..n).step_by(2).collect()),
        ("session", |n| vec![n / 3, n / 2]),
    ];
    for (case, (table, which)) in leaves.iter().enumerate() {
        let dir = filled(&format!("damaged-{case}"));
        let all = pages(&dir, table, "leaf");
        let damaged: Vec<_> = which(all.len()).into_iter().map(|i| all[i]).collect();
        for (page, _) in &damaged {
            overwrite(&dir, *page, &[0x5a; 4096]);
        }
        let before = fs::read(dir.0.join(DATABASE)).unwrap();

        // Reading it shows the damage as well as examining it before.
        let opening = Opening {
            trusted: case % 2 == 1,
            ..Opening::default()
        };
        let (store, saved) = Store::open_with(&dir.0, clock, opening).unwrap();
        let saved = &saved[0];
        let total = PORTS.len();
        let lost: usize = damaged.iter().map(|(_, rows)| rows).sum();
        let rows = if *table == "bib" {
            assert_eq!(saved.sessions.len(), saved.mappings.len(), "case {case}");
            saved.mappings.len()
        } else {
            assert_eq!(saved.mappings.len(), total);
            saved.sessions.len()
        };
        // With a page goes the row that is kept above it.
        let least = total - lost - damaged.len();
        assert!(
            (least..=total - lost).contains(&rows),
            "case {case}: {rows}"
        );
        assert!(
            saved
                .mappings
                .iter()
                .all(|m| *m == mapping(m.v4.port, m.is_static))
        );
        assert_eq!(saved.name, "default");

        // The damaged one is kept as it was found.
        let aside = dir.0.join(format!("{DATABASE}.damaged-1700000000"));
        assert_eq!(fs::read(&aside).unwrap(), before, "case {case}");
        store.flush(saved.id).unwrap();
        drop(store);
        let (_store, again) = Store::open(&dir.0, clock).unwrap();
        assert_eq!(again[0].mappings, saved.mappings);
        let found = names(&dir).into_iter().filter(|n| n.contains("damaged-"));
        assert!(found.count() <= 3, "once only");
        assert!(inspect::check(&dir.0).unwrap().is_empty());
    }
}

#[test]
fn what_was_not_in_the_database_yet_is_salvaged_from_its_log() {
    let dir = filled("log");
    let copy = Dir::new("log-copy");
    let (store, saved) = Store::open(&dir.0, clock).unwrap();
    let gone = Change::MappingGone {
        protocol: Protocol::Tcp,
        v6: mapping(20_500, false).v6,
        v4: mapping(20_500, false).v4,
    };
    store.journal(
        saved[0].id,
        vec![Change::Mapping(mapping(30_000, true)), gone],
    );
    wait(|| store.backlog() == 0);
    // As a kill leaves it.
    copy_state(&dir, &copy);
    let all = pages(&copy, "bib", "leaf");
    copy_state(&dir, &copy);
    overwrite(&copy, all[all.len() / 2].0, &[0; 4096]);
    let log = fs::read(copy.0.join("state.db-wal")).unwrap();

    let (_store, saved) = Store::open(&copy.0, clock).unwrap();
    assert!(saved[0].mappings.contains(&mapping(30_000, true)));
    assert!(!saved[0].mappings.contains(&mapping(20_500, false)));
    let aside = copy.0.join("state.db.damaged-1700000000-wal");
    assert_eq!(fs::read(aside).unwrap(), log);
}

fn copy_state(from: &Dir, to: &Dir) {
    let _ = fs::remove_dir_all(&to.0);
    fs::create_dir(&to.0).unwrap();
    for name in [DATABASE, "state.db-wal"] {
        fs::copy(from.0.join(name), to.0.join(name)).unwrap();
    }
}

#[test]
fn a_log_that_was_cut_off_gives_what_was_committed_before() {
    let (dir, copy) = (Dir::new("cut"), Dir::new("cut-copy"));
    let (store, _) = Store::open(&dir.0, clock).unwrap();
    let id = add(&store);
    for port in 1..=20 {
        store.journal(id, vec![Change::Mapping(mapping(port, true))]);
        // Not flushed: that would empty the log.
        wait(|| store.backlog() == 0);
    }
    let whole = fs::metadata(dir.0.join("state.db-wal")).unwrap().len();
    let mut counts = BTreeSet::new();
    for part in (0..=40).rev() {
        copy_state(&dir, &copy);
        let log = OpenOptions::new()
            .write(true)
            .open(copy.0.join("state.db-wal"));
        log.unwrap().set_len(whole * part / 40).unwrap();
        let (_store, saved) = Store::open(&copy.0, clock).unwrap();
        let ports: Vec<u16> = saved
            .iter()
            .flat_map(|saved| saved.mappings.iter().map(|m| m.v4.port))
            .collect();
        assert_eq!(ports, (1..=ports.len() as u16).collect::<Vec<_>>());
        counts.insert(ports.len());
    }
    assert_eq!((counts.first(), counts.last()), (Some(&0), Some(&20)));
    assert!(counts.len() > 15);
}

#[test]
fn a_database_without_a_readable_instance_is_left_as_it_is() {
    for (name, table) in [("first-page", "sqlite_schema"), ("no-instance", "instance")] {
        let dir = filled(name);
        let [(page, _)] = pages(&dir, table, "leaf")[..] else {
            panic!("{table} has one page");
        };
        overwrite(&dir, page, &[0x5a; 4096]);
        let before = fs::read(dir.0.join(DATABASE)).unwrap();
        let error = Store::open(&dir.0, clock)
            .map(drop)
            .unwrap_err()
            .to_string();
        assert!(error.contains("move it away"), "{error}");
        assert_eq!(fs::read(dir.0.join(DATABASE)).unwrap(), before);
        assert!(
            names(&dir)
                .iter()
                .all(|n| !n.contains("salvag") && !n.contains("damaged"))
        );
    }
}

#[test]
fn a_crash_between_the_renames_loses_nothing() {
    let dir = filled("renames");
    let path = |name: &str| dir.0.join(name);
    // The copy is finished, the damaged one renamed, its log not yet.
    fs::rename(path(DATABASE), path("state.db.salvaged")).unwrap();
    fs::write(path("state.db.damaged-1700000000"), "damaged").unwrap();
    fs::write(path("state.db-wal"), "its log").unwrap();
    let (store, saved) = Store::open(&dir.0, clock).unwrap();
    assert_eq!(saved[0].mappings.len(), PORTS.len());
    assert_eq!(
        fs::read(path("state.db.damaged-1700000000")).unwrap(),
        b"damaged"
    );
    assert_eq!(
        fs::read(path("state.db.damaged-1700000001-wal")).unwrap(),
        b"its log"
    );
    drop(store);

    // One that is not needed any more, or not complete, is not used.
    fs::write(path("state.db.salvaged"), "old").unwrap();
    fs::write(path("state.db.salvaging"), "half").unwrap();
    let (_store, saved) = Store::open(&dir.0, clock).unwrap();
    assert_eq!(saved[0].mappings.len(), PORTS.len());
}

#[test]
fn a_full_disk_delays_the_journal_until_there_is_room() {
    let dir = Dir::new("full");
    let (store, _) = Store::open(&dir.0, clock).unwrap();
    let id = add(&store);
    store.journal(id, vec![Change::Mapping(mapping(1, true))]);
    store.flush(id).unwrap();
    // The limit is the connection's own; a trigger is seen by all.
    let other = Connection::open(dir.0.join(DATABASE)).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER full BEFORE INSERT ON bib BEGIN SELECT raise(ABORT, 'full'); END",
        )
        .unwrap();
    for port in 2..100 {
        store.journal(id, vec![Change::Mapping(mapping(port, true))]);
        store.flush(id).unwrap_err();
    }
    assert_eq!(store.take_resync().into_iter().collect::<Vec<_>>(), [id]);
    let all: Vec<_> = (1..100)
        .map(|port| Change::Mapping(mapping(port, true)))
        .collect();
    // Fails, and asks again.
    store.replace(id, all.clone());
    wait(|| store.take_resync().contains(&id));
    other.execute_batch("DROP TRIGGER full").unwrap();
    store.replace(id, all);
    store.journal(id, vec![Change::Mapping(mapping(100, true))]);
    store.flush(id).unwrap();
    assert!(store.take_resync().is_empty());
    drop(store);
    let (_store, saved) = Store::open(&dir.0, clock).unwrap();
    assert_eq!(saved[0].mappings.len(), 100);
}

#[test]
fn directories_are_made_where_they_are_missing() {
    let dir = Dir::new("missing");
    let (store, _) = Store::open(&dir.0.join("a/b"), clock).unwrap();
    drop(store);
    assert!(dir.0.join("a/b/state.db").exists());
    let error = Store::open(&dir.0.join("a/b/lock/c"), clock)
        .map(drop)
        .unwrap_err();
    assert!(matches!(error, Error::Directory(..)), "{error}");
}

#[test]
fn without_a_disk_everything_is_as_good_as_stored() {
    let store = Store::ephemeral(clock);
    let id = add(&store);
    store.journal(id, vec![Change::Mapping(mapping(1, true))]);
    store.replace(id, vec![Change::Mapping(mapping(1, true))]);
    store
        .save(id, vec![Change::Mapping(mapping(1, true))])
        .unwrap();
    store.flush(id).unwrap();
    assert_eq!((store.backlog(), store.lost()), (0, 0));
    assert!(store.take_resync().is_empty());
    assert!(store.is_ephemeral());
}

#[test]
fn a_look_from_outside_finds_what_is_wrong_and_changes_nothing() {
    let dir = filled("look");
    let (_store, saved) = Store::open(&dir.0, clock).unwrap();
    assert!(
        inspect::check(&dir.0).unwrap().is_empty(),
        "while it is in use"
    );
    let error = inspect::vacuum(&dir.0).unwrap_err();
    assert!(matches!(error, Error::InUse(..)), "{error}");
    let mut lines = Vec::new();
    inspect::export(&dir.0, &mut lines).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    assert_eq!(lines.lines().count(), 1 + 2 * PORTS.len());
    let first = r#"{"row":{"began":null,"doubt":0,"instance":7,"is_static":1,"protocol":0,"v4_addr":"192.0.2.1","v4_port":1000,"v6_addr":"2001:db8::8","v6_port":1000},"table":"bib"}"#;
    assert!(
        lines.lines().any(|line| line == first),
        "{}",
        lines.lines().nth(1).unwrap()
    );
    assert!(lines.starts_with(r#"{"row":{"flavour":"nat64","#));
    drop((_store, saved));

    let path = dir.0.join(DATABASE);
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "PRAGMA foreign_keys = OFF;
         DELETE FROM bib WHERE v4_port BETWEEN 1001 AND 20000;
         UPDATE bib SET v6_port = 1 WHERE v4_port > 20990;
         INSERT INTO denylist4 VALUES (9, 0, 0, 0);
         INSERT INTO session VALUES (7, 0, 3221225985, 1000, 1, 1, 77, 0, 1, 0);
         INSERT INTO instance VALUES (8, 'nat64', 'other', 'netfilter', 1, '{}');
         INSERT INTO bib SELECT 8, 0, v4_addr, v4_port, v6_addr, v6_port, 0, NULL, 0 FROM bib WHERE v4_port = 1000",
    )
    .unwrap();
    drop(db);
    let found = inspect::check(&dir.0).unwrap();
    assert_eq!(
        found,
        [
            "1 rows of instances that do not exist",
            "19000 sessions without their mapping",
            "1 IPv6 transport addresses with several mappings",
            "1 IPv4 transport addresses that several instances use",
            "1 rows of instance 'default' that make no sense",
        ]
    );
    let (before, after) = inspect::vacuum(&dir.0).unwrap();
    assert!(after < before && after == fs::metadata(&path).unwrap().len());
    overwrite(&dir, pages(&dir, "session", "leaf")[3].0, &[0x5a; 4096]);
    assert!(!inspect::check(&dir.0).unwrap().is_empty());
    let missing = Dir::new("look-missing");
    inspect::check(&missing.0).unwrap_err();
    inspect::vacuum(&missing.0).unwrap_err();
    assert!(!missing.0.exists());
}

#[test]
fn an_instance_added_with_others_is_known() {
    let dir = Dir::new("known");
    let (store, _) = Store::open(&dir.0, clock).unwrap();
    let id = add(&store);
    store
        .configure(Config::All(vec![Config::Remove(id)]))
        .unwrap();
    store.journal(id, vec![Change::Mapping(mapping(1, true))]);
    drop(store);
    let (store, saved) = Store::open(&dir.0, clock).unwrap();
    assert!(saved.is_empty());
    assert_eq!(store.lost(), 0);
}

#[test]
fn changes_that_wait_for_the_disk_grow_old() {
    static TICK: AtomicU64 = AtomicU64::new(10_000);
    fn running() -> Clock {
        let tick = TICK.load(Ordering::Relaxed);
        Clock {
            tick: Tick(tick),
            wall: 1_700_000_000_000 + tick,
        }
    }
    let dir = Dir::new("lag");
    let (store, _) = Store::open(&dir.0, running).unwrap();
    let id = add(&store);
    assert_eq!((store.backlog(), store.lag()), (0, 0));

    let other = Connection::open(dir.0.join(DATABASE)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.journal(id, vec![Change::Mapping(mapping(1, true))]);
    TICK.store(13_000, Ordering::Relaxed);
    wait(|| store.lag() == 3_000);
    store.journal(id, vec![Change::Mapping(mapping(2, true))]);
    TICK.store(14_000, Ordering::Relaxed);
    assert_eq!((store.backlog(), store.lag()), (2, 4_000));
    other.execute_batch("ROLLBACK").unwrap();
    store.flush(id).unwrap();
    assert_eq!((store.backlog(), store.lag()), (0, 0));
}
