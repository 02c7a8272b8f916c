// SPDX-License-Identifier: GPL-2.0-or-later
//! Reading the database back. Its contents are not trusted: a row that cannot be is passed over
//! and counted, an instance that cannot be is an error.

use std::net::{Ipv4Addr, Ipv6Addr};

use rusqlite::{Connection, Row};

use super::{Clock, Error, InstanceId, Pool4Range, Pool4Set, Saved};
use crate::base::prefix::{Prefix4, Prefix6};
use crate::base::{Protocol, Tick, Transport4, Transport6};
use crate::model::mapt::MapRule;
use crate::model::{EamRow, Flavour, Framework, MaxIterations, PortRange, TcpState};
use crate::nat64::tcp::Lifetime;
use crate::nat64::{Mapping, SessionState};

/// Reads every instance with all it has.
pub(super) fn instances(db: &Connection, clock: Clock) -> Result<Vec<Saved>, Error> {
    let mut query = db
        .prepare("SELECT id, name, flavour, framework, slot, settings FROM instance ORDER BY id")?;
    let mut rows = query.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(instance(db, row, clock)?);
    }
    Ok(all)
}

fn instance(db: &Connection, row: &Row<'_>, clock: Clock) -> Result<Saved, Error> {
    let (id, name): (i64, String) = (row.get(0)?, row.get(1)?);
    let (flavour, framework): (String, String) = (row.get(2)?, row.get(3)?);
    let bad = |what, value: &str| Error::Instance(name.clone(), what, value.to_owned());
    let flavour = match flavour.as_str() {
        "nat64" => Flavour::Nat64,
        "siit" => Flavour::Siit,
        "mapt" => Flavour::Mapt,
        other => return Err(bad("flavour", other)),
    };
    let framework = match framework.as_str() {
        "netfilter" => Framework::Netfilter,
        "iptables" => Framework::Iptables,
        other => return Err(bad("framework", other)),
    };
    let slot: i64 = row.get(4)?;
    let slot = usize::try_from(slot).map_err(|_| bad("slot", &slot.to_string()))?;
    let settings: String = row.get(5)?;
    let settings =
        serde_json::from_str(&settings).map_err(|error| bad("settings", &error.to_string()))?;
    let mut unusable = 0;
    let pool4_sets = collect(db, POOL4_SETS, id, &mut unusable, pool4_set)?;
    let pool4 = collect(db, POOL4_RANGES, id, &mut unusable, pool4_range)?;
    let mappings = collect(db, BIB, id, &mut unusable, mapping)?;
    let mut sessions = collect(db, SESSIONS, id, &mut unusable, |row| session(row, clock))?;
    sessions.retain(|session| session.deadline > clock.tick);
    sessions.sort_by_key(|session| session.deadline);
    let eamt = collect(db, EAMT, id, &mut unusable, eam)?;
    let denylist4 = collect(db, DENYLIST4, id, &mut unusable, |row| prefix4(row, 0))?;
    let fmrt = collect(db, FMRT, id, &mut unusable, map_rule)?;
    Ok(Saved {
        id: InstanceId(id),
        flavour,
        name,
        framework,
        slot,
        settings,
        pool4,
        pool4_sets,
        mappings,
        sessions,
        eamt,
        denylist4,
        fmrt,
        unusable,
    })
}

fn collect<T>(
    db: &Connection,
    sql: &str,
    instance: i64,
    unusable: &mut usize,
    parse: impl Fn(&Row<'_>) -> Option<T>,
) -> Result<Vec<T>, Error> {
    let mut query = db.prepare(sql)?;
    let mut rows = query.query([instance])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        match parse(row) {
            Some(value) => all.push(value),
            None => *unusable += 1,
        }
    }
    Ok(all)
}

fn pool4_set(row: &Row<'_>) -> Option<Pool4Set> {
    Some(Pool4Set {
        protocol: protocol(row, 0)?,
        mark: row.get(1).ok()?,
        iterations: match row.get::<_, Option<u32>>(2).ok()? {
            None => MaxIterations::Auto,
            Some(0) => MaxIterations::Infinity,
            Some(n) => MaxIterations::Fixed(n),
        },
    })
}

fn pool4_range(row: &Row<'_>) -> Option<Pool4Range> {
    let range = Pool4Range {
        protocol: protocol(row, 0)?,
        mark: row.get(1).ok()?,
        first: ipv4(row, 2)?,
        last: ipv4(row, 3)?,
        ports: PortRange {
            min: row.get(4).ok()?,
            max: row.get(5).ok()?,
        },
    };
    (range.first <= range.last && range.ports.min <= range.ports.max).then_some(range)
}

fn mapping(row: &Row<'_>) -> Option<Mapping> {
    let v6: [u8; 16] = row.get_ref(3).ok()?.as_blob().ok()?.try_into().ok()?;
    Some(Mapping {
        protocol: protocol(row, 0)?,
        v4: Transport4::new(ipv4(row, 1)?, row.get(2).ok()?),
        v6: Transport6::new(Ipv6Addr::from(v6), row.get(4).ok()?),
        is_static: row.get(5).ok()?,
    })
}

fn session(row: &Row<'_>, clock: Clock) -> Option<SessionState> {
    let protocol = protocol(row, 0)?;
    let state: usize = row.get::<_, u32>(5).ok()? as usize;
    let lifetime: u32 = row.get(6).ok()?;
    let expires: i64 = row.get(7).ok()?;
    // A wall clock that was set back must not make sessions live for ever; the tables have the
    // last word on what a lifetime may be.
    let left = u64::try_from(expires).ok()?.saturating_sub(clock.wall);
    Some(SessionState {
        protocol,
        v4: Transport4::new(ipv4(row, 1)?, row.get(2).ok()?),
        remote: Transport4::new(ipv4(row, 3)?, row.get(4).ok()?),
        state: *TcpState::ALL.get(state)?,
        lifetime: lifetime_from(lifetime)?,
        deadline: clock.tick.after(left),
        segment: row.get(8).ok()?,
    })
}

fn eam(row: &Row<'_>) -> Option<EamRow> {
    Some(EamRow {
        v4: prefix4(row, 0)?,
        v6: prefix6(row, 2)?,
    })
}

fn map_rule(row: &Row<'_>) -> Option<MapRule> {
    let (v6, v4) = (prefix6(row, 0)?, prefix4(row, 2)?);
    MapRule::new(v6, v4, row.get(4).ok()?, row.get(5).ok()?).ok()
}

/// A prefix in two columns, the address first.
fn prefix4(row: &Row<'_>, column: usize) -> Option<Prefix4> {
    Prefix4::new(ipv4(row, column)?, row.get(column + 1).ok()?).ok()
}

/// The same for IPv6.
fn prefix6(row: &Row<'_>, column: usize) -> Option<Prefix6> {
    let addr = row.get_ref(column).ok()?.as_blob().ok()?;
    let addr: [u8; 16] = addr.try_into().ok()?;
    Prefix6::new(addr.into(), row.get(column + 1).ok()?).ok()
}

fn protocol(row: &Row<'_>, column: usize) -> Option<Protocol> {
    let number: u32 = row.get(column).ok()?;
    Protocol::ALL.get(number as usize).copied()
}

fn ipv4(row: &Row<'_>, column: usize) -> Option<Ipv4Addr> {
    row.get::<_, u32>(column).ok().map(Ipv4Addr::from)
}

/// The number that stands for a lifetime in the database.
pub(super) const fn lifetime_number(lifetime: Lifetime) -> u32 {
    match lifetime {
        Lifetime::TcpEstablished => 0,
        Lifetime::TcpTransitory => 1,
        Lifetime::TcpIncomingSyn => 2,
        Lifetime::Udp => 3,
        Lifetime::Icmp => 4,
    }
}

fn lifetime_from(number: u32) -> Option<Lifetime> {
    [
        Lifetime::TcpEstablished,
        Lifetime::TcpTransitory,
        Lifetime::TcpIncomingSyn,
        Lifetime::Udp,
        Lifetime::Icmp,
    ]
    .into_iter()
    .find(|lifetime| lifetime_number(*lifetime) == number)
}

/// The number that stands for a TCP state in the database: its position in [`TcpState::ALL`].
pub(super) fn state_number(state: TcpState) -> i64 {
    TcpState::ALL
        .iter()
        .position(|s| *s == state)
        .map_or(-1, |position| position as i64)
}

/// A [`Tick`] as wall clock time.
pub(super) const fn wall(clock: Clock, deadline: Tick) -> i64 {
    let wall = clock.wall.saturating_add(deadline.since(clock.tick));
    // Far beyond any lifetime, and safe in SQLite's signed integers.
    if wall > i64::MAX as u64 {
        i64::MAX
    } else {
        wall as i64
    }
}

const POOL4_SETS: &str = "SELECT protocol, mark, max_iterations FROM pool4_set WHERE instance = ?1";
const POOL4_RANGES: &str = "SELECT protocol, mark, first_addr, last_addr, min_port, max_port \
     FROM pool4_range WHERE instance = ?1";
const BIB: &str = "SELECT protocol, v4_addr, v4_port, v6_addr, v6_port, is_static \
     FROM bib WHERE instance = ?1";
const SESSIONS: &str = "SELECT protocol, v4_addr, v4_port, remote_addr, remote_port, state, \
     lifetime, expires, segment FROM session WHERE instance = ?1";
const EAMT: &str = "SELECT v4_addr, v4_len, v6_addr, v6_len FROM eamt WHERE instance = ?1";
const DENYLIST4: &str = "SELECT addr, len FROM denylist4 WHERE instance = ?1 ORDER BY position";
const FMRT: &str = "SELECT v6_addr, v6_len, v4_addr, v4_len, ea_bits, psid_offset \
     FROM fmrt WHERE instance = ?1";
