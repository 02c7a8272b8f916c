// SPDX-License-Identifier: GPL-2.0-or-later
//! What can still be read of a damaged database, in a new one.
//!
//! The damaged one is only read. The new one is complete on disk before the damaged one is renamed,
//! and takes its place last; [`finish`] completes what a crash interrupted.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, params_from_iter};

use super::{DATABASE, Error, migrate};

/// Puts a database with what can be read of the damaged one in its place, and keeps that one under
/// another name.
///
/// # Errors
/// No instance can be read, or the new database cannot be written. Nothing is changed then.
pub(super) fn salvage(dir: &Path, cause: Error, seconds: u64) -> Result<(), Error> {
    let unusable = |error| Error::Directory(dir.to_owned(), error);
    let (path, fresh) = (dir.join(DATABASE), dir.join(UNFINISHED));
    remove(&fresh).map_err(unusable)?;
    remove(&dir.join(format!("{UNFINISHED}-journal"))).map_err(unusable)?;
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(unusable)?;
    let tables = match copy(&path, &fresh) {
        Ok(tables) => tables,
        Err(error) => {
            let _ = fs::remove_file(&fresh);
            return Err(error);
        }
    };
    // Without instances there would be no rules either, and packets would leave untranslated.
    if !tables.iter().any(|t| t.name == "instance" && t.saved > 0) {
        let _ = fs::remove_file(&fresh);
        return Err(cause);
    }
    fs::rename(&fresh, dir.join(FINISHED)).map_err(unusable)?;
    let aside = set_aside(dir, seconds).map_err(unusable)?;
    fs::rename(dir.join(FINISHED), &path).map_err(unusable)?;
    sync(dir).map_err(unusable)?;
    tracing::error!(%cause, kept = %aside.display(), "the database was damaged; a new one has what could be read");
    for table in &tables {
        if table.whole() {
            tracing::info!("salvaged: {table}");
        } else {
            tracing::warn!("salvaged: {table}");
        }
    }
    Ok(())
}

/// Completes a [`salvage`] that was interrupted between its renames.
pub(super) fn finish(dir: &Path, seconds: u64) -> Result<(), Error> {
    let unusable = |error| Error::Directory(dir.to_owned(), error);
    let path = dir.join(DATABASE);
    if path.exists() || !dir.join(FINISHED).exists() {
        return Ok(());
    }
    // Its log must not be applied to the new one.
    set_aside(dir, seconds).map_err(unusable)?;
    fs::rename(dir.join(FINISHED), &path).map_err(unusable)
}

/// What became of a table.
#[derive(Debug)]
struct Table {
    name: String,
    saved: u64,
    /// Rows that make no sense, or lack the row that they belong to.
    dropped: u64,
    /// Places where nothing could be read; nobody knows how many rows were there.
    gaps: u64,
}

impl Table {
    const fn whole(&self) -> bool {
        self.dropped == 0 && self.gaps == 0
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {}, {} rows", self.name, self.saved)?;
        if self.dropped > 0 {
            write!(f, "; {} rows lost that belong to no other", self.dropped)?;
        }
        if self.gaps > 0 {
            write!(
                f,
                "; the rows of {} damaged places are lost, too",
                self.gaps
            )?;
        }
        Ok(())
    }
}

fn copy(damaged: &Path, fresh: &Path) -> Result<Vec<Table>, Error> {
    let trouble = |error| Error::Salvage(damaged.to_owned(), error);
    let from =
        Connection::open_with_flags(damaged, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(trouble)?;
    let mut to = Connection::open(fresh).map_err(trouble)?;
    to.pragma_update(None, "foreign_keys", true)
        .map_err(trouble)?;
    migrate(&mut to, fresh, false)?;
    let fill = |to: &mut Connection| {
        let tx = to.transaction()?;
        let names: Vec<String> = {
            let mut query = tx.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
            query
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?
        };
        let mut tables = Vec::new();
        for name in names {
            tables.push(Damaged::of(&from, &tx, &name)?.copy(&tx)?);
        }
        let orphans = tx.execute(ORPHANS, [])? as u64;
        for table in tables.iter_mut().filter(|t| t.name == "session") {
            table.saved -= orphans;
            table.dropped += orphans;
        }
        tx.commit()?;
        Ok(tables)
    };
    fill(&mut to).map_err(trouble)
}

/// A table that is walked in the order of its primary key, which is made of integers.
struct Damaged<'a> {
    db: &'a Connection,
    name: &'a str,
    /// Those of the primary key come first.
    columns: Vec<String>,
    keys: usize,
}

/// The primary key of a row, or the first columns of it.
type Key = Vec<i64>;

impl<'a> Damaged<'a> {
    fn of(db: &'a Connection, like: &Connection, name: &'a str) -> rusqlite::Result<Self> {
        let mut query =
            like.prepare("SELECT name, pk FROM pragma_table_info(?1) ORDER BY pk = 0, pk, cid")?;
        let mut rows = query.query([name])?;
        let (mut columns, mut keys) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let (column, key): (String, i64) = (row.get(0)?, row.get(1)?);
            // Of an older version of the schema; the rest have a default.
            let lacks = format!("SELECT {column} FROM {name} LIMIT 0");
            if key == 0 && db.prepare(&lacks).is_err() {
                continue;
            }
            columns.push(column);
            keys += usize::from(key > 0);
        }
        Ok(Self {
            db,
            name,
            columns,
            keys,
        })
    }

    /// Fails only when the new database cannot be written.
    fn copy(&self, tx: &Transaction<'_>) -> rusqlite::Result<Table> {
        let mut table = Table {
            name: self.name.to_owned(),
            saved: 0,
            dropped: 0,
            gaps: 0,
        };
        let mut insert = tx.prepare(&format!(
            "INSERT OR IGNORE INTO {} ({}) VALUES ({})",
            self.name,
            self.columns.join(", "),
            vec!["?"; self.columns.len()].join(", ")
        ))?;
        let mut store = |row: Vec<Value>| -> rusqlite::Result<()> {
            match insert.execute(params_from_iter(row)) {
                Ok(1) => table.saved += 1,
                Ok(_) => table.dropped += 1,
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                    table.dropped += 1;
                }
                Err(error) => return Err(error),
            }
            Ok(())
        };
        let mut at = Vec::new();
        loop {
            let mut last = at.clone();
            if self.walk(&at, &mut last, &mut store)? {
                break;
            }
            table.gaps += 1;
            match self.behind(&last) {
                // Pages that lead in a circle must not do so for ever.
                Some(next) if next > at => at = next,
                Some(_) | None => break,
            }
        }
        Ok(table)
    }

    /// Hands out the rows from a key on; true when that were all, false where it cannot go on.
    /// `last` is the last row's key then.
    fn walk(
        &self,
        from: &[i64],
        last: &mut Key,
        store: &mut impl FnMut(Vec<Value>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<bool> {
        let Ok(mut query) = self.db.prepare(&self.select(from.len(), "")) else {
            return Ok(false);
        };
        let Ok(mut rows) = query.query(params_from_iter(from)) else {
            return Ok(false);
        };
        loop {
            let row: Vec<Value> = match rows.next() {
                Ok(Some(row)) => {
                    let values = (0..self.columns.len()).map(|column| row.get(column));
                    // What is not even a text counts as nothing, which the new table refuses.
                    values.map(|v| v.unwrap_or(Value::Null)).collect()
                }
                Ok(None) => return Ok(true),
                Err(_) => return Ok(false),
            };
            if let Some(key) = self.key(&row) {
                *last = key;
            }
            store(row)?;
        }
    }

    /// The first key behind a damaged place at `at` from which rows can be read; `None` when there
    /// is none.
    ///
    /// Steps over the least significant column first. Where that leads nowhere, it steps over a more
    /// significant one, and then looks in the columns behind it where exactly reading works again: a
    /// damaged page costs some hundred attempts, however many rows are lost.
    fn behind(&self, at: &[i64]) -> Option<Key> {
        let mut at = at.to_vec();
        at.resize(self.keys, 0);
        let (key, step) = (1..=self.keys).rev().find_map(|columns| {
            let key = at.get(..columns)?.to_vec();
            let step = self.step(&key)?;
            Some((key, step))
        })?;
        let mut found = self.first(&forward(&key, step)).ok()?;
        // With a step of 1 the columns behind were tried already.
        if step > 1 {
            let mut fails = forward(&key, step - 1);
            while fails.len() < self.keys {
                fails.push(0);
                let Some(step) = self.step(&fails) else {
                    break;
                };
                found = self.first(&forward(&fails, step)).ok()?;
                fails = forward(&fails, step - 1);
            }
        }
        found
    }

    /// By how much the last column of a key must grow for reading to work from there on: longer and
    /// longer steps, then shorter ones.
    fn step(&self, key: &[i64]) -> Option<i64> {
        let works = |step: i64| self.first(&forward(key, step)).is_ok();
        let mut far = (0..=32).map(|n| 1i64 << n).find(|step| works(*step))?;
        let mut near = far / 2;
        while far - near > 1 {
            let middle = near + (far - near) / 2;
            if works(middle) {
                far = middle;
            } else {
                near = middle;
            }
        }
        Some(far)
    }

    /// The key of the first row from a key on.
    fn first(&self, from: &[i64]) -> rusqlite::Result<Option<Key>> {
        let mut query = self.db.prepare(&self.select(from.len(), "LIMIT 1"))?;
        let mut rows = query.query(params_from_iter(from))?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        (0..self.keys)
            .map(|column| row.get(column))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    fn select(&self, given: usize, end: &str) -> String {
        let keys = |count: usize| self.columns.iter().take(count).map(String::as_str);
        let list = |count| keys(count).collect::<Vec<_>>().join(", ");
        let from = match given {
            0 => String::new(),
            n => format!("WHERE ({}) >= ({})", list(n), vec!["?"; n].join(", ")),
        };
        format!(
            "SELECT {} FROM {} {from} ORDER BY {} {end}",
            self.columns.join(", "),
            self.name,
            list(self.keys)
        )
    }

    fn key(&self, row: &[Value]) -> Option<Key> {
        let number = |value: &Value| match value {
            Value::Integer(n) => Some(*n),
            Value::Null | Value::Real(_) | Value::Text(_) | Value::Blob(_) => None,
        };
        row.get(..self.keys)?.iter().map(number).collect()
    }
}

/// A key whose last column is greater by `step`.
fn forward(key: &[i64], step: i64) -> Key {
    let mut key = key.to_vec();
    if let Some(last) = key.last_mut() {
        *last = last.saturating_add(step);
    }
    key
}

/// Renames the database and what belongs to it; returns its new name.
fn set_aside(dir: &Path, seconds: u64) -> io::Result<PathBuf> {
    let name = |number: u64| dir.join(format!("{DATABASE}.damaged-{number}"));
    let belongs = |aside: &Path, suffix: &str| {
        let mut name = aside.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    // One of the same second may be there, or only its log.
    let taken = |number: &u64| SUFFIXES.iter().any(|s| belongs(&name(*number), s).exists());
    let number = (seconds..).find(|number| !taken(number));
    let aside = name(number.unwrap_or(seconds));
    for suffix in SUFFIXES {
        let from = belongs(&dir.join(DATABASE), suffix);
        match fs::rename(from, belongs(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    sync(dir)?;
    Ok(aside)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The database first: without it, and with a finished copy, [`finish`] sees what to do.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];
const UNFINISHED: &str = "state.db.salvaging";
const FINISHED: &str = "state.db.salvaged";
const ORPHANS: &str = "DELETE FROM session AS s WHERE NOT EXISTS (SELECT 1 FROM bib AS b \
    WHERE b.instance = s.instance AND b.protocol = s.protocol \
    AND b.v4_addr = s.v4_addr AND b.v4_port = s.v4_port)";
