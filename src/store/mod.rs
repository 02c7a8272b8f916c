// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 5: what survives the daemon, in one SQLite database.
//!
//! [`Store::open`] reads everything back and then hands the database to a [writer
//! thread](journal) of its own: no packet ever waits for a disk. Nothing here interprets what it
//! stores beyond refusing rows that cannot be.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior};

use crate::base::Tick;
use crate::base::prefix::Prefix4;
use crate::model::settings::Settings;
use crate::model::{EamRow, Flavour, Framework, MaxIterations, PortRange};
use crate::nat64::{Mapping, SessionState};

pub mod journal;
mod load;
mod write;

pub use journal::Store;

/// Two clocks read together: deadlines are kept by the wall clock, because the other one starts
/// anew with every boot.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub tick: Tick,
    /// Milliseconds since 1970.
    pub wall: u64,
}

/// An instance as it was stored.
#[derive(Debug)]
pub struct Saved {
    pub id: InstanceId,
    pub flavour: Flavour,
    pub name: String,
    pub framework: Framework,
    pub slot: usize,
    pub settings: Settings,
    pub pool4: Vec<Pool4Range>,
    pub pool4_sets: Vec<Pool4Set>,
    pub mappings: Vec<Mapping>,
    /// In ascending order of deadlines; expired ones are left out.
    pub sessions: Vec<SessionState>,
    pub eamt: Vec<EamRow>,
    /// In the order in which they were added.
    pub denylist4: Vec<Prefix4>,
    /// Rows that cannot be and were passed over.
    pub unusable: usize,
}

/// The database's number for an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub i64);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool4Range {
    pub protocol: crate::base::Protocol,
    pub mark: u32,
    pub first: std::net::Ipv4Addr,
    pub last: std::net::Ipv4Addr,
    pub ports: PortRange,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool4Set {
    pub protocol: crate::base::Protocol,
    pub mark: u32,
    pub iterations: MaxIterations,
}

/// What was not stored or read, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use the state directory {0}: {1}; give another with --state-dir")]
    Directory(PathBuf, std::io::Error),
    #[error(
        "everybody may write to the state directory {0}; forbid it (chmod o-w) or give another with --state-dir"
    )]
    Shared(PathBuf),
    #[error(
        "the state directory {0} is in use by another daemon{1}; give another with --state-dir"
    )]
    InUse(PathBuf, String),
    #[error(
        "{path} was written by a newer version of this program (schema {found}, known up to {known}); install that version or give another --state-dir"
    )]
    Newer {
        path: PathBuf,
        found: i64,
        known: usize,
    },
    #[error(
        "cannot use the database {0}: {1}; if it is damaged, move it away together with the files -wal and -shm beside it (do not delete them) and start again"
    )]
    Database(PathBuf, rusqlite::Error),
    #[error("the database has an instance '{0}' whose {1} cannot be read: {2}")]
    Instance(String, &'static str, String),
    #[error("cannot write to the database: {0}")]
    Write(#[from] rusqlite::Error),
    #[error("the database lacks earlier changes, which are written as soon as the disk allows")]
    Gaps,
    #[error("the database writer is gone")]
    Gone,
}

/// Opens and locks a state directory, brings the schema up to date.
fn prepare(dir: &Path) -> Result<(Connection, File), Error> {
    let unusable = |error| Error::Directory(dir.to_owned(), error);
    if !dir.is_dir() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(unusable)?;
    }
    if fs::metadata(dir).map_err(unusable)?.mode() & 0o002 != 0 {
        return Err(Error::Shared(dir.to_owned()));
    }
    let lock = lock(dir)?;
    let path = dir.join("state.db");
    // Made here so that it is never readable by others, not even for a moment.
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(unusable)?;
    let trouble = |error| Error::Database(path.clone(), error);
    let mut db = Connection::open(&path).map_err(trouble)?;
    configure(&db).map_err(trouble)?;
    migrate(&mut db, &path)?;
    Ok((db, lock))
}

fn lock(dir: &Path) -> Result<File, Error> {
    let unusable = |error| Error::Directory(dir.to_owned(), error);
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(unusable)?;
    if file.try_lock().is_err() {
        let holder = fs::read_to_string(&path).unwrap_or_default();
        let holder = match holder.trim() {
            "" => String::new(),
            pid => format!(" (process {pid})"),
        };
        return Err(Error::InUse(dir.to_owned(), holder));
    }
    file.set_len(0).map_err(unusable)?;
    writeln!(file, "{}", std::process::id()).map_err(unusable)?;
    Ok(file)
}

fn configure(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    // Survives the death of the daemon; the last moments may be lost with the power.
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Applies the migrations that the database lacks, each in a transaction of its own.
fn migrate(db: &mut Connection, path: &Path) -> Result<(), Error> {
    let trouble = |error| Error::Database(path.to_owned(), error);
    let version: i64 = db
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(trouble)?;
    let done = usize::try_from(version)
        .ok()
        .filter(|v| *v <= MIGRATIONS.len());
    let Some(done) = done else {
        return Err(Error::Newer {
            path: path.to_owned(),
            found: version,
            known: MIGRATIONS.len(),
        });
    };
    for (index, sql) in MIGRATIONS.iter().enumerate().skip(done) {
        let apply = |db: &mut Connection| {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            tx.execute_batch(sql)?;
            tx.pragma_update(None, "user_version", index as i64 + 1)?;
            tx.commit()
        };
        apply(db).map_err(trouble)?;
    }
    Ok(())
}

/// Forward only; a released one is never edited.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_initial.sql"),
    include_str!("../../migrations/0002_stateless.sql"),
];

#[cfg(test)]
mod tests;
