// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 5: what survives the daemon, in one SQLite database.
//!
//! [`Store::open`] reads everything back and then hands the database to a [writer
//! thread](journal) of its own: no packet ever waits for a disk. Nothing here interprets what it
//! stores beyond refusing rows that cannot be. A damaged database is set aside, and what can be read
//! of it is salvaged.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::base::Tick;
use crate::base::prefix::Prefix4;
use crate::model::mapt::MapRule;
use crate::model::settings::Settings;
use crate::model::{EamRow, Flavour, Framework, MaxIterations, PortRange};
use crate::nat64::{Mapping, SessionState};

mod coalesce;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
pub mod history;
pub mod inspect;
pub mod journal;
mod load;
mod salvage;
mod shared;
mod write;

pub use journal::{COMMIT_AFTER, Store};

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
    pub fmrt: Vec<MapRule>,
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
        "{path} was written by an older version of this program (schema {found}, this has {known}); start tylod once, which brings it up to date"
    )]
    Older {
        path: PathBuf,
        found: i64,
        known: usize,
    },
    #[error("cannot use the database {0}: {1}; {advice}", advice = advice(.1))]
    Database(PathBuf, rusqlite::Error),
    #[error("the database {0} is damaged, and what can be read of it cannot be written beside it: {1}; {advice}", advice = advice(.1))]
    Salvage(PathBuf, rusqlite::Error),
    #[error("the database has an instance '{0}' whose {1} cannot be read: {2}")]
    Instance(String, &'static str, String),
    #[error("cannot write to the database: {0}")]
    Write(#[from] rusqlite::Error),
    #[error("the database lacks earlier changes, which are written as soon as the disk allows")]
    Gaps,
    #[error("the database writer is gone")]
    Gone,
}

impl Error {
    /// Whether the database does not hold what it was given.
    fn is_damage(&self) -> bool {
        match self {
            Self::Database(_, error) => is_damage(error),
            Self::Directory(..)
            | Self::Shared(_)
            | Self::InUse(..)
            | Self::Newer { .. }
            | Self::Older { .. }
            | Self::Salvage(..)
            | Self::Instance(..)
            | Self::Write(_)
            | Self::Gaps
            | Self::Gone => false,
        }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// What to do about a database that cannot be used.
fn advice(error: &rusqlite::Error) -> &'static str {
    if is_damage(error) {
        return "move it away together with the files -wal and -shm beside it (do not delete them) \
                and start again";
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds it: end that and start again"
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "it must be writable, and so must its directory; make it so or give another with \
             --state-dir"
        }
        _ => "see whether the file system is full or fails (df, dmesg), and start again",
    }
}

/// How a database is opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// How long changes are gathered before they are committed together.
    pub deadline: std::time::Duration,
    /// A predecessor wrote it until a moment ago: it is not examined before it is used. Damage that
    /// shows when it is read is dealt with as ever.
    pub trusted: bool,
}

impl Default for Opening {
    fn default() -> Self {
        Self {
            deadline: COMMIT_AFTER,
            trusted: false,
        }
    }
}

/// Opens and locks a state directory, brings the schema up to date and reads everything. A damaged
/// database is replaced by what can be read of it.
fn open(dir: &Path, clock: Clock, trusted: bool) -> Result<(Connection, File, Vec<Saved>), Error> {
    let lock = claim(dir)?;
    let seconds = clock.wall / 1_000;
    salvage::finish(dir, seconds)?;
    let suspect = dir.join(SUSPECT);
    let examine = match (suspect.exists(), trusted) {
        (true, _) => Examine::All,
        (false, false) => Examine::Present,
        (false, true) => Examine::Nothing,
    };
    let opened = match read(dir, clock, examine) {
        Err(error) if error.is_damage() => {
            salvage::salvage(dir, error, seconds)?;
            read(dir, clock, Examine::All)
        }
        opened => opened,
    };
    let (db, saved) = opened?;
    // One that stays costs time with the next start.
    let _ = fs::remove_file(suspect);
    Ok((db, lock, saved))
}

/// Makes a state directory if there is none, and locks it.
fn claim(dir: &Path) -> Result<File, Error> {
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
    lock(dir)
}

/// What is examined while it is read, beyond what reading itself shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Examine {
    All,
    /// All but what was, unless there is none.
    Present,
    Nothing,
}

fn read(dir: &Path, clock: Clock, examine: Examine) -> Result<(Connection, Vec<Saved>), Error> {
    let db = connect(dir, examine != Examine::Nothing)?;
    let path = dir.join(DATABASE);
    let trouble = |error| Error::Database(path.clone(), error);
    let saved = std::thread::scope(|scope| {
        // Finds what reading alone does not, and meanwhile the other processor reads.
        let check = scope.spawn(|| match examine {
            Examine::Nothing => Ok(()),
            Examine::Present => inspect::sound(&path, false),
            Examine::All => inspect::sound(&path, true),
        });
        let saved = load::instances(&db, clock);
        let sound = check.join().unwrap_or(Ok(()));
        sound.map_err(trouble).and(saved)
    });
    let saved = saved.map_err(|error| {
        if let Error::Write(error) = error {
            trouble(error)
        } else {
            error
        }
    })?;
    careful(&db, false).map_err(trouble)?;
    Ok((db, saved))
}

/// What is damaged stays as it is found: the log is not written into it when it is closed.
fn careful(db: &Connection, on: bool) -> rusqlite::Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, on)
        .map(drop)
}

/// Opens the database of a directory that is locked, and brings the schema up to date, having examined
/// it or not. It is [`careful`] still.
fn connect(dir: &Path, examine: bool) -> Result<Connection, Error> {
    let path = dir.join(DATABASE);
    // Made here so that it is never readable by others, not even for a moment.
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| Error::Directory(dir.to_owned(), error))?;
    let trouble = |error| Error::Database(path.clone(), error);
    let mut db = Connection::open(&path).map_err(trouble)?;
    careful(&db, true)
        .and_then(|()| configure(&db))
        .map_err(trouble)?;
    migrate(&mut db, &path, examine)?;
    Ok(db)
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
    // Only tells others who it is; a full disk need not keep it from starting.
    if file.set_len(0).is_ok() {
        let _ = writeln!(file, "{}", std::process::id());
    }
    Ok(file)
}

fn configure(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    // Survives the death of the daemon; the last moments may be lost with the power. The journal
    // takes care that configuration is not.
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    // A page that makes no sense is found when it is read, not when it does harm.
    db.pragma_update(None, "cell_size_check", true)?;
    db.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Applies the migrations that the database lacks, each in a transaction of its own.
fn migrate(db: &mut Connection, path: &Path, examine: bool) -> Result<(), Error> {
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
    // Nothing is written into what is damaged.
    if examine && (1..MIGRATIONS.len()).contains(&done) {
        inspect::sound(path, true).map_err(trouble)?;
    }
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

const DATABASE: &str = "state.db";

/// The version of the schema that this program writes.
pub const SCHEMA: usize = MIGRATIONS.len();

/// Says that damage was met while the database was in use.
const SUSPECT: &str = "state.db.suspect";

/// Forward only; a released one is never edited.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_initial.sql"),
    include_str!("../../migrations/0002_stateless.sql"),
    include_str!("../../migrations/0003_history.sql"),
    include_str!("../../migrations/0004_mapt.sql"),
    include_str!("../../migrations/0005_segment.sql"),
];

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_clock;
#[cfg(test)]
mod tests_history;
#[cfg(test)]
mod tests_schema;
#[cfg(test)]
mod tests_storage;
