// SPDX-License-Identifier: GPL-2.0-or-later
//! A look at a database from outside the daemon: is it sound, what does it have, make it small.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, ffi};
use serde_json::{Map, Value, json};

use super::{Clock, DATABASE, Error, MIGRATIONS, careful, claim, connect, is_damage, load};
use crate::base::Tick;

/// Everything that is wrong with the database in `dir`, in words. Only reads, so a daemon may be
/// using it; takes its time.
///
/// # Errors
/// There is no database, it is newer than the program, or it cannot be opened.
pub fn check(dir: &Path) -> Result<Vec<String>, Error> {
    let db = look(dir)?;
    let trouble = |error| Error::Database(dir.join(DATABASE), error);
    let mut found = match pragma(&db, "integrity_check") {
        Err(error) if is_damage(&error) => vec![error.to_string()],
        checked => checked.map_err(trouble)?,
    };
    if !found.is_empty() {
        // More would be said about the same places.
        return Ok(found);
    }
    for (query, what) in INVARIANTS {
        let count: i64 = db.query_row(query, [], |row| row.get(0)).map_err(trouble)?;
        if count > 0 {
            found.push(format!("{count} {what}"));
        }
    }
    let any_time = Clock {
        tick: Tick(0),
        wall: 0,
    };
    match load::instances(&db, any_time) {
        Ok(all) => found.extend(all.iter().filter(|saved| saved.unusable > 0).map(|saved| {
            format!(
                "{} rows of instance '{}' that make no sense",
                saved.unusable, saved.name
            )
        })),
        Err(Error::Write(error)) => return Err(trouble(error)),
        Err(error) => found.push(error.to_string()),
    }
    Ok(found)
}

/// Writes every row of the database in `dir` as a line of JSON, as of one moment. Only reads, so a
/// daemon may be using it.
///
/// # Errors
/// As with [`check`]; or it is damaged, or `out` cannot be written.
pub fn export(dir: &Path, out: &mut impl Write) -> Result<(), ExportError> {
    let db = look(dir)?;
    let trouble = |error| Error::Database(dir.join(DATABASE), error);
    // All tables as of the same moment.
    db.execute_batch("BEGIN").map_err(trouble)?;
    let names: Vec<String> = db
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid")
        .and_then(|mut query| query.query_map([], |row| row.get(0))?.collect())
        .map_err(trouble)?;
    for name in names {
        let mut query = db
            .prepare(&format!("SELECT * FROM \"{name}\""))
            .map_err(trouble)?;
        let columns: Vec<String> = query.column_names().map(str::to_owned).collect();
        let mut rows = query.query([]).map_err(trouble)?;
        while let Some(row) = rows.next().map_err(trouble)? {
            let mut values = Map::new();
            for (index, column) in columns.iter().enumerate() {
                let found = row.get_ref(index).map_err(trouble)?;
                values.insert(column.clone(), value(column, found));
            }
            writeln!(out, "{}", json!({ "table": name, "row": values }))?;
        }
    }
    Ok(())
}

/// Gives back the space that the database in `dir` does not use; returns its size before and after,
/// in bytes.
///
/// # Errors
/// A daemon uses it, or it cannot be written.
pub fn vacuum(dir: &Path) -> Result<(u64, u64), Error> {
    // Not made here, as a daemon would.
    drop(look(dir)?);
    let _lock = claim(dir)?;
    let db = connect(dir, true)?;
    let path = dir.join(DATABASE);
    careful(&db, false).map_err(|error| Error::Database(path.clone(), error))?;
    let size = || {
        std::fs::metadata(&path)
            .map(|file| file.len())
            .map_err(|error| Error::Directory(dir.to_owned(), error))
    };
    let tidy = |sql| {
        db.execute_batch(sql)
            .map_err(|error| Error::Database(path.clone(), error))
    };
    tidy("PRAGMA wal_checkpoint(TRUNCATE)")?;
    let before = size()?;
    tidy("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok((before, size()?))
}

/// What stops an export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Store(#[from] Error),
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Fails when the pages of the database at `path` do not fit together. Reads all of it; without
/// `suspect` not a history, which may be larger than all the rest and is not needed for a start.
pub(super) fn sound(path: &Path, suspect: bool) -> rusqlite::Result<()> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    let mut checks = vec!["quick_check(1)".to_owned()];
    if !suspect && db.prepare("SELECT 1 FROM history")?.exists([])? {
        // The table of tables stands for what belongs to none, too.
        let mut query = db.prepare(
            "SELECT 'sqlite_schema' UNION ALL \
             SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'history'",
        )?;
        let names = query.query_map([], |row| row.get::<_, String>(0))?;
        let names: Vec<_> = names.collect::<Result<_, _>>()?;
        checks = names.iter().map(|n| format!("quick_check({n})")).collect();
    }
    for check in checks {
        if let Some(what) = pragma(&db, &check)?.pop() {
            return Err(rusqlite::Error::SqliteFailure(
                ffi::Error::new(ffi::SQLITE_CORRUPT),
                Some(what),
            ));
        }
    }
    Ok(())
}

/// Opens the database of a directory to read it.
pub(super) fn look(dir: &Path) -> Result<Connection, Error> {
    let path = dir.join(DATABASE);
    std::fs::metadata(&path).map_err(|error| Error::Directory(dir.to_owned(), error))?;
    let open = || {
        let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(std::time::Duration::from_secs(5))?;
        let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        Ok((db, version))
    };
    let (db, found) = open().map_err(|error| Error::Database(path.clone(), error))?;
    let known = MIGRATIONS.len();
    match usize::try_from(found) {
        Ok(version) if version == known => Ok(db),
        Ok(version) if version < known => Err(Error::Older { path, found, known }),
        Ok(_) | Err(_) => Err(Error::Newer { path, found, known }),
    }
}

/// What a check of SQLite's own complains about.
fn pragma(db: &Connection, check: &str) -> rusqlite::Result<Vec<String>> {
    let mut query = db.prepare(&format!("PRAGMA {check}"))?;
    let lines = query.query_map([], |row| row.get(0))?;
    let mut lines: Vec<String> = lines.collect::<Result<_, _>>()?;
    lines.retain(|line| line != "ok");
    Ok(lines)
}

/// A column as people read it.
fn value(column: &str, found: ValueRef<'_>) -> Value {
    let address = column.ends_with("addr");
    match found {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => match u32::try_from(n) {
            Ok(n) if address => Ipv4Addr::from(n).to_string().into(),
            Ok(_) | Err(_) => n.into(),
        },
        ValueRef::Real(x) => x.into(),
        ValueRef::Text(text) => {
            let json = (column == "settings").then(|| serde_json::from_slice(text).ok());
            json.flatten()
                .unwrap_or_else(|| String::from_utf8_lossy(text).into())
        }
        ValueRef::Blob(bytes) => match <[u8; 16]>::try_from(bytes) {
            Ok(bytes) => Ipv6Addr::from(bytes).to_string().into(),
            Err(_) => bytes
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect::<String>()
                .into(),
        },
    }
}

/// Counts of what must not be, and what that is.
const INVARIANTS: &[(&str, &str)] = &[
    (
        "SELECT count(*) FROM pragma_foreign_key_check",
        "rows of instances that do not exist",
    ),
    (
        "SELECT count(*) FROM session AS s WHERE NOT EXISTS (SELECT 1 FROM bib AS b \
         WHERE b.instance = s.instance AND b.protocol = s.protocol \
         AND b.v4_addr = s.v4_addr AND b.v4_port = s.v4_port)",
        "sessions without their mapping",
    ),
    (
        "SELECT count(*) FROM (SELECT 1 FROM bib GROUP BY instance, protocol, v6_addr, v6_port \
         HAVING count(*) > 1)",
        "IPv6 transport addresses with several mappings",
    ),
    (
        "SELECT count(*) FROM (SELECT 1 FROM bib GROUP BY protocol, v4_addr, v4_port \
         HAVING count(*) > 1)",
        "IPv4 transport addresses that several instances use",
    ),
];
