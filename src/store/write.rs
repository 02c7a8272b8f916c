// SPDX-License-Identifier: GPL-2.0-or-later
//! Changes as SQL, the other half of [`load`](super::load).

use rusqlite::{Transaction, params};

use super::history::{BEGAN_BEFORE, End, Recorder, millis, switch};
use super::journal::Config;
use super::load::{lifetime_number, state_number, wall};
use super::{Clock, InstanceId, Pool4Range, Pool4Set};
use crate::base::prefix::Prefix4;
use crate::model::mapt::MapRule;
use crate::model::settings::Settings;
use crate::model::{EamRow, MaxIterations};
use crate::nat64::Change;

/// Writes a change of configuration.
pub(super) fn config(
    tx: &Transaction<'_>,
    config: &Config,
    clock: Clock,
    recorder: &mut Recorder,
) -> rusqlite::Result<()> {
    match config {
        Config::Add {
            id,
            flavour,
            name,
            framework,
            slot,
            settings,
        } => {
            tx.execute(
                "INSERT INTO instance (id, flavour, name, framework, slot, settings) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    id.0,
                    flavour.name(),
                    name,
                    framework.name(),
                    *slot as i64,
                    json(settings)?
                ],
            )?;
            switch(tx, *id, settings, clock.wall)?;
        }
        Config::Remove(id) => {
            tx.execute("DELETE FROM instance WHERE id = ?1", [id.0])?;
        }
        Config::Settings(id, settings) => {
            tx.execute(
                "UPDATE instance SET settings = ?2 WHERE id = ?1",
                params![id.0, json(settings)?],
            )?;
            switch(tx, *id, settings, clock.wall)?;
        }
        Config::Pool4(id, sets, ranges) => write_pool4(tx, *id, sets, ranges)?,
        Config::EamAdd(id, row) => write_eam(tx, *id, row)?,
        Config::EamRemove(id, row) => {
            tx.execute(
                "DELETE FROM eamt WHERE instance = ?1 AND v4_addr = ?2 AND v4_len = ?3",
                params![id.0, u32::from(row.v4.network()), row.v4.prefix_len()],
            )?;
        }
        Config::Eamt(id, rows) => {
            tx.execute("DELETE FROM eamt WHERE instance = ?1", [id.0])?;
            for row in rows {
                write_eam(tx, *id, row)?;
            }
        }
        Config::Denylist4(id, rows) => write_denylist4(tx, *id, rows)?,
        Config::Fmrt(id, rules) => write_fmrt(tx, *id, rules)?,
        Config::Bib(id, changes) => {
            for each in changes {
                change(tx, *id, each, Event::seen(clock, clock.wall), recorder)?;
            }
        }
        Config::All(all) => {
            for each in all {
                self::config(tx, each, clock, recorder)?;
            }
        }
    }
    Ok(())
}

/// When something happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    clock: Clock,
    at: i64,
    /// See [`BEGAN_BEFORE`].
    doubt: u8,
}

impl Event {
    /// Something that was seen as it happened.
    pub(super) fn seen(clock: Clock, at: u64) -> Self {
        Self {
            clock,
            at: millis(at),
            doubt: 0,
        }
    }

    /// Something that is found to have happened.
    pub(super) fn found(clock: Clock) -> Self {
        Self {
            clock,
            at: millis(clock.wall),
            doubt: BEGAN_BEFORE,
        }
    }
}

/// Writes what happened to a table.
pub(super) fn change(
    tx: &Transaction<'_>,
    id: InstanceId,
    change: &Change,
    event: Event,
    recorder: &mut Recorder,
) -> rusqlite::Result<()> {
    match change {
        Change::Mapping(m) | Change::MappingFixed(m) => {
            recorder.displace(tx, id, m, event.at)?;
            let began = recorder.records(id).then_some(event.at);
            tx.prepare_cached(UPSERT_BIB)?.execute(params![
                id.0,
                m.protocol.index() as i64,
                u32::from(m.v4.addr),
                m.v4.port,
                m.v6.addr.octets(),
                m.v6.port,
                m.is_static,
                began,
                began.map_or(0, |_| event.doubt)
            ])?;
        }
        Change::MappingGone { protocol, v4, .. } => {
            recorder.end(tx, id, *protocol, *v4, End::At(event.at))?;
            let key = params![id.0, protocol.index() as i64, u32::from(v4.addr), v4.port];
            tx.prepare_cached(DELETE_SESSIONS)?.execute(key)?;
            tx.prepare_cached(DELETE_BIB)?.execute(key)?;
        }
        Change::Session { session: s, .. } => {
            tx.prepare_cached(UPSERT_SESSION)?.execute(params![
                id.0,
                s.protocol.index() as i64,
                u32::from(s.v4.addr),
                s.v4.port,
                u32::from(s.remote.addr),
                s.remote.port,
                state_number(s.state),
                lifetime_number(s.lifetime),
                wall(event.clock, s.deadline),
                s.segment
            ])?;
        }
        Change::SessionGone {
            protocol,
            v4,
            remote,
            ..
        } => {
            tx.prepare_cached(DELETE_SESSION)?.execute(params![
                id.0,
                protocol.index() as i64,
                u32::from(v4.addr),
                v4.port,
                u32::from(remote.addr),
                remote.port
            ])?;
        }
    }
    Ok(())
}

fn write_pool4(
    tx: &Transaction<'_>,
    id: InstanceId,
    sets: &[Pool4Set],
    ranges: &[Pool4Range],
) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM pool4_set WHERE instance = ?1", [id.0])?;
    tx.execute("DELETE FROM pool4_range WHERE instance = ?1", [id.0])?;
    for set in sets {
        let iterations = match set.iterations {
            MaxIterations::Auto => None,
            MaxIterations::Infinity => Some(0),
            MaxIterations::Fixed(n) => Some(n),
        };
        tx.prepare_cached(
            "INSERT INTO pool4_set (instance, protocol, mark, max_iterations) \
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            id.0,
            set.protocol.index() as i64,
            set.mark,
            iterations
        ])?;
    }
    for range in ranges {
        tx.prepare_cached(
            "INSERT INTO pool4_range \
             (instance, protocol, mark, first_addr, last_addr, min_port, max_port) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            id.0,
            range.protocol.index() as i64,
            range.mark,
            u32::from(range.first),
            u32::from(range.last),
            range.ports.min,
            range.ports.max
        ])?;
    }
    Ok(())
}

fn write_eam(tx: &Transaction<'_>, id: InstanceId, row: &EamRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO eamt (instance, v4_addr, v4_len, v6_addr, v6_len) \
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        id.0,
        u32::from(row.v4.network()),
        row.v4.prefix_len(),
        row.v6.network().octets(),
        row.v6.prefix_len()
    ])?;
    Ok(())
}

fn write_denylist4(tx: &Transaction<'_>, id: InstanceId, rows: &[Prefix4]) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM denylist4 WHERE instance = ?1", [id.0])?;
    for (position, prefix) in rows.iter().enumerate() {
        tx.prepare_cached(
            "INSERT INTO denylist4 (instance, position, addr, len) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            id.0,
            position as i64,
            u32::from(prefix.network()),
            prefix.prefix_len()
        ])?;
    }
    Ok(())
}

fn write_fmrt(tx: &Transaction<'_>, id: InstanceId, rules: &[MapRule]) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM fmrt WHERE instance = ?1", [id.0])?;
    for rule in rules {
        tx.prepare_cached(
            "INSERT INTO fmrt \
             (instance, v6_addr, v6_len, v4_addr, v4_len, ea_bits, psid_offset) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            id.0,
            rule.v6().network().octets(),
            rule.v6().prefix_len(),
            u32::from(rule.v4().network()),
            rule.v4().prefix_len(),
            rule.ea_bits(),
            rule.psid_offset()
        ])?;
    }
    Ok(())
}

fn json(settings: &Settings) -> rusqlite::Result<String> {
    serde_json::to_string(settings)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

const UPSERT_BIB: &str = "INSERT INTO bib \
    (instance, protocol, v4_addr, v4_port, v6_addr, v6_port, is_static, began, doubt) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) \
    ON CONFLICT DO UPDATE SET v6_addr = excluded.v6_addr, v6_port = excluded.v6_port, \
    is_static = excluded.is_static, \
    began = iif((v6_addr, v6_port) = (excluded.v6_addr, excluded.v6_port), began, excluded.began), \
    doubt = iif((v6_addr, v6_port) = (excluded.v6_addr, excluded.v6_port), doubt, excluded.doubt)";
pub(super) const DELETE_BIB: &str = "DELETE FROM bib \
    WHERE instance = ?1 AND protocol = ?2 AND v4_addr = ?3 AND v4_port = ?4";
const UPSERT_SESSION: &str = "INSERT INTO session \
    (instance, protocol, v4_addr, v4_port, remote_addr, remote_port, state, lifetime, expires, \
    segment) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
    ON CONFLICT DO UPDATE SET state = excluded.state, lifetime = excluded.lifetime, \
    expires = excluded.expires, segment = excluded.segment";
const DELETE_SESSION: &str = "DELETE FROM session \
    WHERE instance = ?1 AND protocol = ?2 AND v4_addr = ?3 AND v4_port = ?4 \
    AND remote_addr = ?5 AND remote_port = ?6";
const DELETE_SESSIONS: &str = "DELETE FROM session \
    WHERE instance = ?1 AND protocol = ?2 AND v4_addr = ?3 AND v4_port = ?4";
