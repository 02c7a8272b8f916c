// SPDX-License-Identifier: GPL-2.0-or-later
//! Answers as JSON, as `docs/json.md` describes it.
//!
//! One document, written row by row: a row is on its way before the next is read. Its shape is a
//! promise and therefore spelled out here, and not derived from what commands and daemon tell
//! each other. Numbers only, no names of hosts: nobody asks a resolver on behalf of a program.

use std::io::{self, Write};

use serde_json::{Value as Json, json};

use super::render::{Foreign, Table, shown};
use crate::base::counters::Counter;
use crate::model::control::{Reply, Request};
use crate::model::mapt::{MapRule, MaptType};
use crate::model::settings::{Setting, Value, format_duration};
use crate::model::{AddressRule, BibRow, EamRow, InstanceRow, Pool4Row, SessionRow, Translation};

/// The version of the documents. Keys may be added; anything else makes a new one.
const VERSION: u32 = 1;

/// Writes one document.
pub(super) struct Document<'a, W> {
    out: W,
    table: Table,
    request: &'a Request,
    rows: u64,
    begun: bool,
}

impl<'a, W: Write> Document<'a, W> {
    pub(super) fn new(out: W, table: Table, request: &'a Request) -> Self {
        Self {
            out,
            table,
            request,
            rows: 0,
            begun: false,
        }
    }

    /// Writes the rows of `reply`.
    ///
    /// # Errors
    /// Writing failed; or, inside, the reply is not about this table.
    pub(super) fn reply(&mut self, reply: &Reply) -> io::Result<Result<(), Foreign>> {
        match (self.table, reply) {
            (Table::Instances, Reply::Instances(rows)) => self.all(rows, instance)?,
            (Table::Settings(flavour), Reply::Settings(settings)) => {
                let rows = Setting::of(flavour).map(|s| (s.key, shown(s, settings)));
                let rows: Vec<_> = rows.collect();
                self.all(
                    &rows,
                    |(key, value)| json!({ "key": key, "value": setting(value) }),
                )?;
            }
            (Table::Stats { all, explain }, Reply::Stats(rows)) => {
                let shown = rows.iter().filter(|(_, n)| all || *n != 0);
                let shown: Vec<_> = shown.collect();
                self.all(&shown, |(name, value)| stat(name, *value, explain))?;
            }
            (Table::Pool4, Reply::Pool4(rows)) => self.all(rows, pool4)?,
            (Table::Bib, Reply::Bib(rows)) => self.all(rows, bib)?,
            (Table::Sessions, Reply::Sessions(rows)) => self.all(rows, session)?,
            (Table::Eamt, Reply::Eamt(rows)) => self.all(rows, eam)?,
            (Table::Denylist4, Reply::Denylist4(rows)) => {
                self.all(rows, |prefix| json!({ "ipv4_prefix": prefix.to_string() }))?;
            }
            (Table::Fmrt, Reply::Fmrt(rows)) => self.all(rows, map_rule)?,
            (Table::Translation { .. }, Reply::Translation(found)) => {
                self.all(std::slice::from_ref(found), translation)?;
            }
            (
                Table::Instances
                | Table::Settings(_)
                | Table::Stats { .. }
                | Table::Pool4
                | Table::Bib
                | Table::Sessions
                | Table::Eamt
                | Table::Denylist4
                | Table::Fmrt
                | Table::Translation { .. },
                _,
            ) => return Ok(Err(Foreign)),
        }
        Ok(Ok(()))
    }

    /// Writes what comes after the last row.
    ///
    /// # Errors
    /// Writing failed.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.begin()?;
        if self.rows > 0 {
            writeln!(self.out)?;
        }
        writeln!(self.out, "]}}")?;
        self.out.flush()
    }

    fn begin(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        let flavour = self.request.flavour.name();
        write!(self.out, r#"{{"version":{VERSION},"flavour":"{flavour}","#)?;
        if self.table != Table::Instances {
            write!(self.out, r#""instance":{},"#, json!(self.request.instance))?;
        }
        write!(self.out, r#""rows":["#)
    }

    fn all<T>(&mut self, rows: &[T], row: impl Fn(&T) -> Json) -> io::Result<()> {
        self.begin()?;
        for one in rows {
            let separator = if self.rows == 0 { "\n" } else { ",\n" };
            write!(self.out, "{separator}{}", row(one))?;
            self.rows += 1;
        }
        Ok(())
    }
}

/// Writes what `instance status` has to say; `None` where it could not be found out.
///
/// # Errors
/// Writing failed.
pub(super) fn status(
    out: &mut dyn Write,
    request: &Request,
    running: Option<bool>,
) -> io::Result<()> {
    let row = json!({ "running": running });
    let (flavour, name) = (request.flavour.name(), json!(request.instance));
    writeln!(
        out,
        r#"{{"version":{VERSION},"flavour":"{flavour}","instance":{name},"rows":["#
    )?;
    writeln!(out, "{row}\n]}}")
}

fn instance(row: &InstanceRow) -> Json {
    json!({
        "namespace": format!("{:x}", row.namespace),
        "name": row.name,
        "framework": row.framework.name(),
    })
}

/// As in a configuration file.
pub(super) fn setting(value: &Value) -> Json {
    match value {
        Value::Bool(on) => json!(on),
        Value::Number(n) => json!(n),
        Value::Duration(ms) => json!(format_duration(*ms)),
        Value::Plateaus(list) => json!(list),
        Value::Prefix4(prefix) => json!(prefix.map(|p| p.to_string())),
        Value::Prefix6(prefix) => json!(prefix.map(|p| p.to_string())),
        Value::Hairpin(mode) => json!(mode.name()),
        Value::MapRule(rule) => json!(rule.as_ref().map(setting_of_rule)),
        Value::MaptType(end) => json!(end.map(MaptType::name)),
    }
}

fn stat(name: &str, value: u64, explain: bool) -> Json {
    let mut row = json!({ "name": name, "value": value });
    if let Some(object) = row.as_object_mut().filter(|_| explain) {
        let counter = Counter::ALL.iter().find(|counter| counter.name() == name);
        let text = counter.map(|counter| counter.explanation());
        object.insert("explanation".to_owned(), json!(text));
    }
    row
}

fn pool4(row: &Pool4Row) -> Json {
    json!({
        "mark": row.mark,
        "protocol": row.protocol.name(),
        "address": row.addr.to_string(),
        "ports": { "min": row.ports.min, "max": row.ports.max },
        "max_iterations": row.iterations,
        "max_iterations_fixed": row.iterations_fixed,
    })
}

fn bib(row: &BibRow) -> Json {
    json!({
        "protocol": row.protocol.name(),
        "ipv6": { "address": row.v6.addr.to_string(), "port": row.v6.port },
        "ipv4": { "address": row.v4.addr.to_string(), "port": row.v4.port },
        "static": row.is_static,
    })
}

fn session(row: &SessionRow) -> Json {
    json!({
        "protocol": row.protocol.name(),
        "ipv6_remote": { "address": row.src6.addr.to_string(), "port": row.src6.port },
        "ipv6_local": { "address": row.dst6.addr.to_string(), "port": row.dst6.port },
        "ipv4_local": { "address": row.src4.addr.to_string(), "port": row.src4.port },
        "ipv4_remote": { "address": row.dst4.addr.to_string(), "port": row.dst4.port },
        "expires_in_ms": row.expires_in,
        "state": row.state.map(|state| state.name()),
    })
}

fn eam(row: &EamRow) -> Json {
    json!({ "ipv6_prefix": row.v6.to_string(), "ipv4_prefix": row.v4.to_string() })
}

fn map_rule(rule: &MapRule) -> Json {
    json!({
        "ipv6_prefix": rule.v6().to_string(),
        "ipv4_prefix": rule.v4().to_string(),
        "ea_bits_length": rule.ea_bits(),
        "a": rule.psid_offset(),
    })
}

/// As in a configuration file.
pub(super) fn setting_of_rule(rule: &MapRule) -> Json {
    json!({
        "ipv6 prefix": rule.v6().to_string(),
        "ipv4 prefix": rule.v4().to_string(),
        "ea-bits length": rule.ea_bits(),
        "a": rule.psid_offset(),
    })
}

fn translation(found: &Translation) -> Json {
    let rule = match &found.rule {
        AddressRule::Eam(row) => json!({ "eam": eam(row) }),
        AddressRule::Pool6(pool6) => json!({ "pool6": pool6.to_string() }),
    };
    json!({
        "query": found.query.to_string(),
        "result": found.result.to_string(),
        "rule": rule,
    })
}

#[cfg(test)]
mod tests;
