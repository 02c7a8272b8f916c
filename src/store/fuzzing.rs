// SPDX-License-Identifier: GPL-2.0-or-later
//! For fuzz targets and tests: databases that no tylo wrote.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::{Clock, DATABASE, SCHEMA, Saved, inspect, open};
use crate::base::Tick;

/// A database of every version of the schema, in their order, as tools/make-state-fixture made it.
pub(super) const FIXTURES: [&str; SCHEMA] = [
    include_str!("../../tests/fixtures/state/v1.sql"),
    include_str!("../../tests/fixtures/state/v2.sql"),
    include_str!("../../tests/fixtures/state/v3.sql"),
    include_str!("../../tests/fixtures/state/v4.sql"),
    include_str!("../../tests/fixtures/state/v5.sql"),
];

/// What begins [`database`]'s input, beside the number of a version.
const ROWS: u8 = 0x00;
const BYTES: u8 = 0x40;
const WHOLE: u8 = 0x80;

/// Opens a database that was changed as `data` says, twice; returns what is in it.
///
/// The first byte chooses a version, and what follows: rows with other values in a column, bytes of
/// the file with their places, or a whole file.
///
/// # Panics
/// It is refused without a word, what is stored is lost, or it is another one the second time.
pub fn database(data: &[u8]) -> Vec<Saved> {
    let Some((choice, rest)) = data.split_first() else {
        return Vec::new();
    };
    let dir = Directory::new();
    let path = dir.0.join(DATABASE);
    let pristine = pristine(usize::from(choice & 0x3f) % SCHEMA);
    match choice & 0xc0 {
        ROWS => {
            fs::write(&path, pristine).expect("the directory can be written");
            change_rows(&path, rest);
        }
        BYTES => {
            let mut bytes = pristine.to_vec();
            for change in rest.chunks_exact(4) {
                let place = u32::from_be_bytes([0, change[0], change[1], change[2]]) as usize;
                let place = place % bytes.len();
                bytes[place] = change[3];
            }
            fs::write(&path, bytes).expect("the directory can be written");
        }
        _ => fs::write(&path, rest).expect("the directory can be written"),
    }
    let before = rows(&dir.0);
    let file = fs::read(&path).expect("the database can be read");
    let (db, lock, saved) = match open(&dir.0, CLOCK, false) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            if before.is_some() {
                assert_eq!(rows(&dir.0), before, "{error}");
            }
            return Vec::new();
        }
    };
    drop((db, lock));
    let entries = fs::read_dir(&dir.0).expect("the directory can be read");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let aside: Vec<_> = names
        .filter(|name| {
            name.contains("damaged") && !name.ends_with("-wal") && !name.ends_with("-shm")
        })
        .collect();
    match &aside[..] {
        [] if before.is_some() => assert_eq!(rows(&dir.0), before),
        [] => {}
        [name] => assert!(fs::read(dir.0.join(name)).is_ok_and(|kept| kept == file)),
        _ => panic!("set aside twice: {aside:?}"),
    }
    let again = open(&dir.0, CLOCK, false).expect("what was opened can be opened again");
    assert_eq!(format!("{:?}", again.2), format!("{saved:?}"));
    drop(again);
    if let Err(error) = inspect::check(&dir.0) {
        assert!(!error.to_string().is_empty());
    }
    saved
}

/// Inputs to start from, as [`database`] takes them.
pub fn seeds() -> Vec<Vec<u8>> {
    let versions = 0..SCHEMA as u8;
    let mut seeds: Vec<Vec<u8>> = versions.clone().map(|v| vec![v | ROWS]).collect();
    seeds.extend(versions.map(|v| vec![v | BYTES]));
    seeds.push(vec![WHOLE]);
    let newest = SCHEMA as u8 - 1;
    for table in 0..8 {
        for column in 0..9 {
            for value in [
                &[0][..],
                &[1, 255],
                &[2, 0, 0, 1, 0, 0, 0, 0, 0],
                &[3, 2, b'x', b'y'],
            ] {
                seeds.push([&[newest | ROWS, table, 0, column][..], value].concat());
            }
        }
    }
    // Of the page's header, of the first cells, of the schema.
    for place in [
        16u32, 18, 28, 44, 60, 100, 103, 108, 4096, 4099, 8192, 12_288,
    ] {
        let [_, place @ ..] = place.to_be_bytes();
        seeds.push([&[newest | BYTES][..], &place, &[0xff]].concat());
    }
    // An older one, damaged.
    seeds.push(vec![2 | BYTES, 0, 0xb0, 0, 0xff]);
    seeds
}

/// Ten seconds after boot, when all sessions of the fixtures live.
const CLOCK: Clock = Clock {
    tick: Tick(10_000),
    wall: 1_700_000_000_000,
};

/// The file of a database as of a version, counted from 0.
fn pristine(version: usize) -> &'static [u8] {
    static FILES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let make = |sql: &&str| {
        let dir = Directory::new();
        let path = dir.0.join(DATABASE);
        let db = Connection::open(&path).expect("a database can be made");
        db.pragma_update(None, "journal_mode", "WAL")
            .and_then(|()| db.execute_batch(sql))
            .expect("the fixture is one");
        drop(db);
        fs::read(path).expect("the database can be read")
    };
    &FILES.get_or_init(|| FIXTURES.iter().map(make).collect())[version]
}

/// Puts copies of rows into their tables that differ in one column: table, row, column, value. Where
/// the column is of the primary key, the row it was copied from stays.
fn change_rows(path: &Path, mut rest: &[u8]) {
    let db = Connection::open(path).expect("the database can be opened");
    db.pragma_update(None, "foreign_keys", false)
        .expect("that is no question of contents");
    let list = |sql: &str| -> Vec<String> {
        let mut query = db.prepare(sql).expect("the schema is there");
        let names = query.query_map([], |row| row.get(0));
        names
            .and_then(Iterator::collect)
            .expect("the schema is there")
    };
    let tables = list("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid");
    while let [table, row, column, tail @ ..] = rest {
        let value = value(tail, &mut rest);
        // The one behind the last table is the version.
        let Some(table) = tables.get(usize::from(*table) % (tables.len() + 1)) else {
            if let Value::Integer(version) = value {
                let _ = db.pragma_update(None, "user_version", version);
            }
            continue;
        };
        let columns = list(&format!("SELECT name FROM pragma_table_info('{table}')"));
        let found = db.query_row(
            &format!("SELECT * FROM {table} LIMIT 1 OFFSET {row}"),
            [],
            |row| {
                (0..columns.len())
                    .map(|i| row.get::<_, Value>(i))
                    .collect::<Result<Vec<_>, _>>()
            },
        );
        let Ok(mut values) = found else { continue };
        let place = usize::from(*column) % columns.len();
        values[place] = value;
        let marks = vec!["?"; columns.len()].join(", ");
        // Types and NOT NULL are SQLite's to keep.
        let _ = db.execute(
            &format!("INSERT OR REPLACE INTO {table} VALUES ({marks})"),
            params_from_iter(values),
        );
    }
}

/// Takes a value off: nothing, a small number, any number, a text or bytes.
fn value<'a>(bytes: &'a [u8], rest: &mut &'a [u8]) -> Value {
    let (kind, tail) = bytes.split_first().unwrap_or((&0, &[]));
    let mut take = |length: usize| {
        let (taken, tail) = tail.split_at(length.min(tail.len()));
        *rest = tail;
        taken
    };
    match kind % 5 {
        0 => {
            take(0);
            Value::Null
        }
        1 => Value::Integer(take(1).first().copied().unwrap_or(0).into()),
        2 => {
            let bytes = take(8).iter();
            Value::Integer(bytes.fold(0, |number, byte| number << 8 | i64::from(*byte)))
        }
        _ => {
            let length = tail.first().copied().map_or(0, usize::from);
            let bytes = take(1 + length).get(1..).unwrap_or_default();
            match kind % 5 {
                3 => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
                _ => Value::Blob(bytes.to_vec()),
            }
        }
    }
}

/// Every row, in words; `None` when it is of another version of the schema, or cannot be read.
fn rows(dir: &Path) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    inspect::export(dir, &mut out).ok().map(|()| out)
}

/// A directory that goes away.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        // In memory, where there is such a place: nothing here is to last.
        let memory = Path::new("/dev/shm");
        let above = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = above.join(format!("tylo-fuzz-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .expect("a directory can be made");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
