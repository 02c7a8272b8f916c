// SPDX-License-Identifier: GPL-2.0-or-later
//! Who had which IPv4 transport address at what time.
//!
//! The row of a mapping says since when it is there. When the mapping goes, the row goes on in the
//! table `history`, in the same transaction. So nothing is written twice, and no crash leaves
//! anything open: what is in the table of mappings is there, or ends after the start. Times are the
//! wall clock's as it was; where that was set back, a life covers both ends of it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Row, Transaction, params};

use super::inspect::look;
use super::{DATABASE, Error, InstanceId};
use crate::base::{Protocol, Transport4, Transport6};
use crate::model::control::{Holder, Holders};
use crate::model::settings::Settings;
use crate::nat64::{Change, Mapping};

/// What the writer knows about recording.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    limits: HashMap<InstanceId, Limits>,
    /// Rows that were added since some were forgotten last.
    fresh: u64,
}

#[derive(Debug)]
struct Limits {
    /// Milliseconds; never 0.
    retention: u64,
    /// 0 is no limit.
    most: u64,
    /// How many there are, if that is known.
    entries: Option<u64>,
}

/// Milliseconds since 1970, as the database has them.
type Millis = i64;

impl Recorder {
    /// Takes the settings that an instance has.
    pub(super) fn set(&mut self, id: InstanceId, settings: &Settings) {
        if settings.history_retention == 0 {
            self.limits.remove(&id);
            return;
        }
        let entries = self.limits.get(&id).and_then(|limits| limits.entries);
        let limits = Limits {
            retention: settings.history_retention,
            most: settings.history_max_entries.into(),
            entries,
        };
        self.limits.insert(id, limits);
    }

    pub(super) fn remove(&mut self, id: InstanceId) {
        self.limits.remove(&id);
    }

    pub(super) fn records(&self, id: InstanceId) -> bool {
        self.limits.contains_key(&id)
    }

    /// Records the end of a mapping. To be called before its row goes.
    pub(super) fn end(
        &mut self,
        tx: &Transaction<'_>,
        id: InstanceId,
        protocol: Protocol,
        v4: Transport4,
        at: End,
    ) -> rusqlite::Result<()> {
        let Some(limits) = self.limits.get_mut(&id) else {
            return Ok(());
        };
        let (at, doubt) = at.parts();
        let mut insert = tx.prepare_cached(END)?;
        // One that began in the same millisecond has the key.
        for later in 0..KEYS {
            let added = insert.execute(params![
                id.0,
                protocol.index() as i64,
                u32::from(v4.addr),
                v4.port,
                at,
                later,
                doubt
            ])?;
            if added > 0 {
                self.fresh += 1;
                limits.entries = limits.entries.map(|entries| entries + 1);
                break;
            }
        }
        Ok(())
    }

    /// Ends what has the transport address of a new mapping, but belongs to another client: its end
    /// was not heard of.
    pub(super) fn displace(
        &mut self,
        tx: &Transaction<'_>,
        id: InstanceId,
        new: &Mapping,
        at: Millis,
    ) -> rusqlite::Result<()> {
        if !self.records(id) {
            return Ok(());
        }
        let displaced = tx.prepare_cached(DISPLACED)?.exists(params![
            id.0,
            new.protocol.index() as i64,
            u32::from(new.v4.addr),
            new.v4.port,
            new.v6.addr.octets(),
            new.v6.port
        ])?;
        if displaced {
            self.end(tx, id, new.protocol, new.v4, End::Before(at))?;
        }
        Ok(())
    }

    /// Ends the mappings that a snapshot does not have, and deletes them.
    pub(super) fn end_others(
        &mut self,
        tx: &Transaction<'_>,
        id: InstanceId,
        snapshot: &[Change],
        at: Millis,
    ) -> rusqlite::Result<()> {
        let mappings = snapshot.iter().filter_map(|change| match change {
            Change::Mapping(m) | Change::MappingFixed(m) => Some(((m.protocol, m.v4), m.v6)),
            Change::MappingGone { .. } | Change::Session { .. } | Change::SessionGone { .. } => {
                None
            }
        });
        let mappings: HashMap<_, _> = mappings.collect();
        let mut query = tx.prepare_cached(MAPPINGS)?;
        let mut rows = query.query([id.0])?;
        let mut others = Vec::new();
        while let Some(row) = rows.next()? {
            // What makes no sense was not there either.
            if let Some((protocol, v4, v6)) = mapping(row)
                && mappings.get(&(protocol, v4)) != Some(&v6)
            {
                others.push((protocol, v4));
            }
        }
        for (protocol, v4) in others {
            self.end(tx, id, protocol, v4, End::Before(at))?;
            tx.prepare_cached(super::write::DELETE_BIB)?
                .execute(params![
                    id.0,
                    protocol.index() as i64,
                    u32::from(v4.addr),
                    v4.port
                ])?;
        }
        Ok(())
    }

    /// To be called when a transaction did not come about.
    pub(super) fn roll_back(&mut self) {
        for limits in self.limits.values_mut() {
            limits.entries = None;
        }
    }

    /// Forgets a portion of what is too old or too much; says when to go on.
    pub(super) fn forget(&mut self, db: &mut Connection, now: u64) -> rusqlite::Result<Duration> {
        let portion = PORTION + std::mem::take(&mut self.fresh);
        let tx = db.transaction()?;
        let (mut last, mut left) = (i64::MIN, portion);
        while let Some(instance) = next_instance(&tx, last)? {
            last = instance;
            let limits = self.limits.get_mut(&InstanceId(instance));
            let until = match &limits {
                Some(limits) => millis(now.saturating_sub(limits.retention)),
                // Of one that is not recorded any more, or does not exist.
                None => Millis::MAX,
            };
            let old = forget(&tx, instance, until, left)?;
            left -= old;
            let Some(limits) = limits.filter(|limits| limits.most > 0) else {
                continue;
            };
            let entries = match limits.entries {
                Some(entries) => entries.saturating_sub(old),
                None => count(&tx, instance)?,
            };
            let excess = entries.saturating_sub(limits.most).min(left);
            let gone = forget(&tx, instance, Millis::MAX, excess)?;
            left -= gone;
            limits.entries = Some(entries - gone);
        }
        tx.commit()?;
        Ok(if left == 0 {
            Duration::ZERO
        } else if self.limits.is_empty() {
            SELDOM
        } else {
            OFTEN
        })
    }
}

/// When a mapping ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    At(Millis),
    /// Nobody saw it.
    Before(Millis),
}

impl End {
    const fn parts(self) -> (Millis, u8) {
        match self {
            Self::At(at) => (at, 0),
            Self::Before(at) => (at, ENDED_BEFORE),
        }
    }
}

/// Notes since when an instance is recorded, or that it is not any more.
pub(super) fn switch(
    tx: &Transaction<'_>,
    id: InstanceId,
    settings: &Settings,
    now: u64,
) -> rusqlite::Result<()> {
    if settings.history_retention == 0 {
        tx.execute("DELETE FROM recording WHERE instance = ?1", [id.0])?;
    } else {
        tx.execute(
            "INSERT OR IGNORE INTO recording (instance, since) VALUES (?1, ?2)",
            params![id.0, millis(now)],
        )?;
    }
    Ok(())
}

/// Who had `v4` at some time, as far as the database in `dir` knows; who has it now when `at` is
/// `None`. Only reads, so a daemon may be using it.
///
/// # Errors
/// There is no database, it is of another version, or it cannot be read.
pub fn holders(
    dir: &Path,
    protocol: Protocol,
    v4: Transport4,
    at: Option<u64>,
) -> Result<Holders, Error> {
    let db = look(dir)?;
    let find = || {
        let mut found = Holders::default();
        let key = (protocol.index() as i64, u32::from(v4.addr), v4.port);
        let at = at.map(millis);
        for sql in [LIVING, GONE] {
            let mut query = db.prepare(sql)?;
            let rows = query.query_map(params![key.0, key.1, key.2, at], holder)?;
            for holder in rows {
                found.holders.push(holder?);
            }
        }
        found.since = db.query_row("SELECT min(since) FROM recording", [], |row| wall(row, 0))?;
        Ok(found)
    };
    find().map_err(|error| Error::Database(dir.join(DATABASE), error))
}

fn holder(row: &Row<'_>) -> rusqlite::Result<Holder> {
    let doubt: u8 = row.get(4)?;
    Ok(Holder {
        v6: Transport6::new(Ipv6Addr::from(row.get::<_, [u8; 16]>(0)?), row.get(1)?),
        began: wall(row, 2)?,
        ended: wall(row, 3)?,
        began_or_before: doubt & BEGAN_BEFORE != 0,
        ended_or_before: doubt & ENDED_BEFORE != 0,
        is_static: row.get(5)?,
        instance: row.get(6)?,
    })
}

fn mapping(row: &Row<'_>) -> Option<(Protocol, Transport4, Transport6)> {
    let number: usize = row.get::<_, u32>(0).ok()? as usize;
    let v4 = Ipv4Addr::from(row.get::<_, u32>(1).ok()?);
    let v6 = Ipv6Addr::from(row.get::<_, [u8; 16]>(3).ok()?);
    Some((
        *Protocol::ALL.get(number)?,
        Transport4::new(v4, row.get(2).ok()?),
        Transport6::new(v6, row.get(4).ok()?),
    ))
}

/// The first instance behind this one that has a history.
fn next_instance(tx: &Transaction<'_>, last: i64) -> rusqlite::Result<Option<i64>> {
    tx.prepare_cached("SELECT min(instance) FROM history WHERE instance > ?1")?
        .query_row([last], |row| row.get(0))
}

fn count(tx: &Transaction<'_>, instance: i64) -> rusqlite::Result<u64> {
    tx.query_row(
        "SELECT count(*) FROM history WHERE instance = ?1",
        [instance],
        |row| row.get::<_, i64>(0),
    )
    .map(i64::unsigned_abs)
}

/// Deletes what ended first, and before `until`; returns how many rows.
fn forget(tx: &Transaction<'_>, instance: i64, until: Millis, most: u64) -> rusqlite::Result<u64> {
    if most == 0 {
        return Ok(0);
    }
    let gone = tx
        .prepare_cached(FORGET)?
        .execute(params![instance, until, most as i64])?;
    Ok(gone as u64)
}

fn wall(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    let found: Option<Millis> = row.get(column)?;
    Ok(found.and_then(|at| u64::try_from(at).ok()))
}

/// A point in time for SQLite, whose integers are signed.
pub(super) fn millis(wall: u64) -> Millis {
    Millis::try_from(wall).unwrap_or(Millis::MAX)
}

/// It was there when that was first looked at.
pub(super) const BEGAN_BEFORE: u8 = 1;
const ENDED_BEFORE: u8 = 2;

/// Rows that are forgotten in one go: some milliseconds of work.
const PORTION: u64 = 2_000;

/// How often to look whether there is something to forget, while mappings are recorded.
const OFTEN: Duration = Duration::from_secs(1);

/// The same while none are.
const SELDOM: Duration = Duration::from_secs(3_600);

/// How many mappings may have had one transport address in one millisecond.
const KEYS: i64 = 8;

const END: &str = "INSERT OR IGNORE INTO history \
    (protocol, v4_addr, v4_port, began, ended, instance, v6_addr, v6_port, doubt) \
    SELECT protocol, v4_addr, v4_port, min(b, ?5) + ?6, max(b, ?5) + ?6, instance, v6_addr, v6_port, \
    doubt | ?7 | (began IS NULL) \
    FROM (SELECT *, coalesce(began, (SELECT since FROM recording WHERE instance = ?1), ?5) AS b \
    FROM bib WHERE instance = ?1 AND protocol = ?2 AND v4_addr = ?3 AND v4_port = ?4)";
const DISPLACED: &str = "SELECT 1 FROM bib \
    WHERE instance = ?1 AND protocol = ?2 AND v4_addr = ?3 AND v4_port = ?4 \
    AND (v6_addr, v6_port) <> (?5, ?6)";
const MAPPINGS: &str = "SELECT protocol, v4_addr, v4_port, v6_addr, v6_port \
    FROM bib WHERE instance = ?1";
const FORGET: &str = "DELETE FROM history WHERE (protocol, v4_addr, v4_port, began) IN \
    (SELECT protocol, v4_addr, v4_port, began FROM history INDEXED BY history_age \
    WHERE instance = ?1 AND ended < ?2 ORDER BY ended LIMIT ?3)";
/// When that was not recorded, it is known to be there now.
const LIVING: &str = "SELECT b.v6_addr, b.v6_port, coalesce(b.began, r.since), NULL, \
    b.doubt | (b.began IS NULL), b.is_static, i.name \
    FROM bib AS b JOIN instance AS i ON i.id = b.instance LEFT JOIN recording AS r USING (instance) \
    WHERE b.instance IN (SELECT id FROM instance) AND b.protocol = ?1 AND b.v4_addr = ?2 \
    AND b.v4_port = ?3 AND (?4 IS NULL OR coalesce(b.began, r.since) <= ?4)";
const GONE: &str = "SELECT h.v6_addr, h.v6_port, h.began, h.ended, h.doubt, 0, i.name \
    FROM history AS h LEFT JOIN instance AS i ON i.id = h.instance \
    WHERE h.protocol = ?1 AND h.v4_addr = ?2 AND h.v4_port = ?3 \
    AND h.began <= ?4 AND h.ended >= ?4 ORDER BY h.began DESC";
