// SPDX-License-Identifier: GPL-2.0-or-later
//! Answers as text: the tables and CSV that scripts know, byte for byte.
//!
//! Prints rows as they come and keeps none. Nothing is printed before the first answer, so that
//! a refused request leaves standard output empty.

use std::fmt::Display;
use std::io::{self, Write};
use std::net::IpAddr;

use super::names::Names;
use crate::base::counters::Counter;
use crate::base::prefix::Prefix4;
use crate::model::control::Reply;
use crate::model::mapt::MapRule;
use crate::model::settings::{Setting, Settings, Value, format_duration};
use crate::model::{
    AddressRule, BibRow, EamRow, Flavour, InstanceRow, Pool4Row, SessionRow, Translation,
};

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Instances,
    Settings(Flavour),
    Stats { all: bool, explain: bool },
    Pool4,
    Bib,
    Sessions,
    Eamt,
    Denylist4,
    Fmrt,
    Translation { verbose: bool },
}

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    pub(crate) csv: bool,
    pub(crate) headers: bool,
    /// No names of hosts and services.
    pub(crate) numeric: bool,
}

/// Prints one table.
pub(crate) struct Renderer<W> {
    out: W,
    table: Table,
    style: Style,
    names: Names,
    begun: bool,
    /// Stands above tables that do not say what they are about.
    title: Option<&'static str>,
    /// Mark and protocol of the last row of pool4.
    group: Option<(u32, crate::base::Protocol)>,
}

/// An answer that does not belong to the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Foreign;

impl<W: Write> Renderer<W> {
    pub(crate) fn new(out: W, table: Table, style: Style) -> Self {
        Self {
            out,
            table,
            style,
            names: if style.numeric {
                Names::numeric()
            } else {
                Names::system()
            },
            begun: false,
            title: None,
            group: None,
        }
    }

    /// Puts a line above the table; CSV has none.
    pub(crate) fn titled(self, title: Option<&'static str>) -> Self {
        Self { title, ..self }
    }

    /// Prints the rows of `reply`.
    ///
    /// # Errors
    /// Writing failed; or, inside, the reply is not about this table.
    pub(crate) fn reply(&mut self, reply: &Reply) -> io::Result<Result<(), Foreign>> {
        match (self.table, reply) {
            (Table::Instances, Reply::Instances(rows)) => {
                self.begin()?;
                rows.iter().try_for_each(|row| self.instance(row))?;
            }
            (Table::Settings(flavour), Reply::Settings(settings)) => {
                self.begin()?;
                self.settings(flavour, settings)?;
            }
            (Table::Stats { all, explain }, Reply::Stats(rows)) => {
                self.begin()?;
                rows.iter()
                    .filter(|(_, value)| all || *value != 0)
                    .try_for_each(|(name, value)| self.stat(name, *value, explain))?;
            }
            (Table::Pool4, Reply::Pool4(rows)) => {
                self.begin()?;
                rows.iter().try_for_each(|row| self.pool4(row))?;
            }
            (Table::Bib, Reply::Bib(rows)) => {
                self.begin()?;
                rows.iter().try_for_each(|row| self.bib(row))?;
            }
            (Table::Sessions, Reply::Sessions(rows)) => {
                self.begin()?;
                rows.iter().try_for_each(|row| self.session(row))?;
            }
            (Table::Eamt, Reply::Eamt(rows)) => {
                self.begin()?;
                rows.iter().try_for_each(|row| self.eam(row))?;
            }
            (Table::Denylist4, Reply::Denylist4(rows)) => {
                self.begin()?;
                rows.iter().try_for_each(|row| self.denied(row))?;
            }
            (Table::Fmrt, Reply::Fmrt(rows)) => {
                self.begin()?;
                rows.iter().try_for_each(|row| self.map_rule(row))?;
            }
            (Table::Translation { verbose }, Reply::Translation(translation)) => {
                self.translation(translation, verbose)?;
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

    /// Prints what comes after the last row.
    ///
    /// # Errors
    /// Writing failed.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.begin()?;
        if !self.style.csv {
            match self.table {
                Table::Instances => writeln!(self.out, "{INSTANCE_LINE}")?,
                Table::Pool4 => writeln!(self.out, "{POOL4_LINE}")?,
                Table::Eamt => writeln!(self.out, "{EAMT_LINE}")?,
                Table::Denylist4 => writeln!(self.out, "{DENYLIST4_LINE}")?,
                Table::Fmrt => writeln!(self.out, "{FMRT_LINE}")?,
                Table::Settings(_)
                | Table::Stats { .. }
                | Table::Bib
                | Table::Sessions
                | Table::Translation { .. } => {}
            }
        }
        self.out.flush()
    }

    /// True if names were wanted and could not be had.
    pub(crate) const fn names_failed(&self) -> bool {
        self.names.gave_up()
    }

    fn begin(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        if let Some(title) = self.title.filter(|_| !self.style.csv) {
            writeln!(self.out, "{title}:")?;
        }
        match (self.style.csv, self.style.headers) {
            (true, true) => writeln!(self.out, "{}", self.csv_header()),
            (true, false) => Ok(()),
            (false, headers) => self.titles(headers),
        }
    }

    const fn csv_header(&self) -> &'static str {
        match self.table {
            Table::Instances => "Namespace,Name,Framework",
            Table::Settings(_) => "Field,Value",
            Table::Stats { explain: false, .. } => "Stat,Value",
            Table::Stats { explain: true, .. } => "Stat,Value,Explanation",
            Table::Pool4 => "Mark,Protocol,Address,Min port,Max port,Iterations,Iterations fixed",
            Table::Bib => "Protocol,IPv6 Address,IPv6 L4-ID,IPv4 Address,IPv4 L4-ID,Static?",
            Table::Sessions => {
                "Protocol,IPv6 Remote Address,IPv6 Remote L4-ID,IPv6 Local Address,\
                 IPv6 Local L4-ID,IPv4 Local Address,IPv4 Local L4-ID,IPv4 Remote Address,\
                 IPv4 Remote L4-ID,Expires in,State"
            }
            Table::Eamt => "IPv6 Prefix,IPv4 Prefix",
            Table::Denylist4 => "IPv4 Prefix",
            Table::Fmrt => "IPv6 Prefix,IPv4 Prefix,EA-bits Length,a",
            Table::Translation { .. } => "",
        }
    }

    fn titles(&mut self, headers: bool) -> io::Result<()> {
        match self.table {
            Table::Instances => {
                if headers {
                    writeln!(self.out, "{INSTANCE_LINE}")?;
                    self.instance_cells("Namespace", "Name", "Framework")?;
                }
                writeln!(self.out, "{INSTANCE_LINE}")
            }
            Table::Pool4 => {
                if headers {
                    writeln!(self.out, "{POOL4_LINE}")?;
                    self.pool4_cells("Mark", "Proto", "Max iterations", "Address", "Ports")?;
                }
                writeln!(self.out, "{POOL4_LINE}")
            }
            Table::Sessions => writeln!(self.out, "{SESSION_LINE}"),
            // Unlike others, these have no line above rows without titles.
            Table::Eamt if headers => {
                let titles = format!("| {:>43} | {:>18} |", "IPv6 Prefix", "IPv4 Prefix");
                writeln!(self.out, "{EAMT_LINE}\n{titles}\n{EAMT_LINE}")
            }
            Table::Denylist4 if headers => {
                let title = format!("| {:>18} |", "IPv4 Prefix");
                writeln!(self.out, "{DENYLIST4_LINE}\n{title}\n{DENYLIST4_LINE}")
            }
            Table::Fmrt if headers => {
                writeln!(self.out, "{FMRT_LINE}")?;
                writeln!(
                    self.out,
                    "| {:>43} | {:>18} | EA-bits Length |  a |",
                    "IPv6 Prefix", "IPv4 Prefix"
                )?;
                writeln!(self.out, "{FMRT_LINE}")
            }
            Table::Settings(_)
            | Table::Stats { .. }
            | Table::Bib
            | Table::Eamt
            | Table::Denylist4
            | Table::Fmrt
            | Table::Translation { .. } => Ok(()),
        }
    }

    //= jool#instance-display
    fn instance(&mut self, row: &InstanceRow) -> io::Result<()> {
        let (namespace, framework) = (format!("{:x}", row.namespace), row.framework.name());
        if self.style.csv {
            writeln!(self.out, "{namespace},{},{framework}", csv(&row.name))
        } else {
            self.instance_cells(&namespace, &row.name, framework)
        }
    }

    fn instance_cells(&mut self, namespace: &str, name: &str, framework: &str) -> io::Result<()> {
        writeln!(
            self.out,
            "| {namespace:>18} | {name:>15} | {framework:>9} |"
        )
    }

    //= jool#global-display
    fn settings(&mut self, flavour: Flavour, settings: &Settings) -> io::Result<()> {
        for setting in Setting::of(flavour) {
            let value = shown(setting, settings);
            if self.style.csv {
                writeln!(self.out, "{},{}", setting.key, csv_value(&value))?;
            } else {
                writeln!(
                    self.out,
                    "  {}: {}",
                    setting.key,
                    console_value(setting.key, &value)
                )?;
            }
        }
        Ok(())
    }

    //= jool#stats-display
    fn stat(&mut self, name: &str, value: u64, explain: bool) -> io::Result<()> {
        let separator = if self.style.csv { "," } else { ": " };
        write!(self.out, "{name}{separator}{value}")?;
        if explain {
            let text = Counter::ALL
                .iter()
                .find(|counter| counter.name() == name)
                .map_or("This command does not know this counter.", |counter| {
                    counter.explanation()
                });
            if self.style.csv {
                write!(self.out, ",{}", quoted(text))?;
            } else {
                write!(self.out, "\n{text}\n")?;
            }
        }
        writeln!(self.out)
    }

    //= jool#pool4-display
    fn pool4(&mut self, row: &Pool4Row) -> io::Result<()> {
        let Pool4Row {
            mark,
            protocol,
            addr,
            ports,
            iterations,
            iterations_fixed: fixed,
        } = row;
        let limit = iterations.map(|n| n.to_string());
        if self.style.csv {
            return writeln!(
                self.out,
                "{mark},{protocol},{addr},{},{},{},{}",
                ports.min,
                ports.max,
                limit.as_deref().unwrap_or("infinite"),
                u8::from(*fixed)
            );
        }
        let (addr, ports) = (
            addr.to_string(),
            format!("{:>5}-{:>5}", ports.min, ports.max),
        );
        let group = (*mark, *protocol);
        match self.group.replace(group) {
            Some(last) if last == group => return self.pool4_cells("", "", "", &addr, &ports),
            Some(_) => writeln!(self.out, "{POOL4_LINE}")?,
            None => {}
        }
        let limit = format!(
            "{:>10} ({:>5})",
            limit.as_deref().unwrap_or("Infinite"),
            if *fixed { "fixed" } else { "auto" }
        );
        self.pool4_cells(&mark.to_string(), protocol.name(), &limit, &addr, &ports)
    }

    fn pool4_cells(
        &mut self,
        mark: &str,
        protocol: &str,
        limit: &str,
        addr: &str,
        ports: &str,
    ) -> io::Result<()> {
        writeln!(
            self.out,
            "| {mark:>10} | {protocol:>5} | {limit:>18} | {addr:>15} | {ports:>11} |"
        )
    }

    //= jool#bib-display
    fn bib(&mut self, row: &BibRow) -> io::Result<()> {
        let BibRow {
            protocol,
            v6,
            v4,
            is_static,
        } = row;
        let (host, service) = self.names.of(IpAddr::V6(v6.addr), v6.port, *protocol);
        if self.style.csv {
            let (addr, port, is_static) = (v4.addr, v4.port, u8::from(*is_static));
            writeln!(
                self.out,
                "{protocol},{host},{service},{addr},{port},{is_static}"
            )
        } else {
            let kind = if *is_static { "Static" } else { "Dynamic" };
            writeln!(self.out, "[{kind} {protocol}] {v4} - {host}#{service}")
        }
    }

    //= jool#session-display
    fn session(&mut self, row: &SessionRow) -> io::Result<()> {
        let SessionRow {
            protocol,
            src6,
            dst6,
            src4,
            dst4,
            expires_in,
            state,
        } = row;
        let (host6, service6) = self.names.of(IpAddr::V6(src6.addr), src6.port, *protocol);
        let (host4, service4) = self.names.of(IpAddr::V4(dst4.addr), dst4.port, *protocol);
        let expires = format_duration(*expires_in);
        if self.style.csv {
            write!(
                self.out,
                "{protocol},{host6},{service6},{},{},{},{},{host4},{service4},{expires}",
                dst6.addr, dst6.port, src4.addr, src4.port
            )?;
            if let Some(state) = state {
                write!(self.out, ",{}", state.name())?;
            }
            writeln!(self.out)
        } else {
            if let Some(state) = state {
                write!(self.out, "({}) ", state.name())?;
            }
            writeln!(self.out, "Expires in {expires}")?;
            writeln!(self.out, "Remote: {host4}#{service4}\t{host6}#{service6}")?;
            writeln!(self.out, "Local: {src4}\t{dst6}")?;
            writeln!(self.out, "{SESSION_LINE}")
        }
    }

    //= jool#eamt-display
    fn eam(&mut self, EamRow { v6, v4 }: &EamRow) -> io::Result<()> {
        if self.style.csv {
            return writeln!(self.out, "{v6},{v4}");
        }
        let (addr6, len6) = (v6.network().to_string(), v6.prefix_len());
        let v4 = cell(*v4);
        writeln!(self.out, "| {addr6:>39}/{len6:<3} | {v4} |")
    }

    //= jool#denylist4-display
    fn denied(&mut self, prefix: &Prefix4) -> io::Result<()> {
        if self.style.csv {
            writeln!(self.out, "{prefix}")
        } else {
            writeln!(self.out, "| {} |", cell(*prefix))
        }
    }

    //= jool#fmrt-display
    fn map_rule(&mut self, rule: &MapRule) -> io::Result<()> {
        let (v6, v4) = (rule.v6(), rule.v4());
        let (ea_bits, offset) = (rule.ea_bits(), rule.psid_offset());
        if self.style.csv {
            return writeln!(self.out, "{v6},{v4},{ea_bits},{offset}");
        }
        let (addr6, len6) = (v6.network().to_string(), v6.prefix_len());
        let v4 = cell(v4);
        writeln!(
            self.out,
            "| {addr6:>39}/{len6:<3} | {v4} | {ea_bits:<14} | {offset:>2} |"
        )
    }

    //= jool#address-query
    fn translation(&mut self, found: &Translation, verbose: bool) -> io::Result<()> {
        let Translation {
            query,
            result,
            rule,
        } = found;
        if !verbose {
            return writeln!(self.out, "{result}");
        }
        writeln!(self.out, "  Query: {query}")?;
        match rule {
            AddressRule::Eam(EamRow { v6, v4 }) => {
                let (from, to): (&dyn Display, &dyn Display) =
                    if query.is_ipv4() { (v4, v6) } else { (v6, v4) };
                writeln!(self.out, "  Scheme: EAMT\n    EAM: {v6} | {v4}")?;
                writeln!(self.out, "  Operation: {query} - {from} + {to} = {result}")?;
            }
            AddressRule::Pool6(pool6) => {
                writeln!(self.out, "  Scheme: RFC 6052 prefix\n    Prefix: {pool6}")?;
                if query.is_ipv4() {
                    writeln!(self.out, "  Operation: {pool6} + {query} = {result}")?;
                } else {
                    writeln!(self.out, "  Operation: {query} - {pool6} = {result}")?;
                }
            }
        }
        writeln!(self.out, "  Result: {result}")
    }
}

/// How many rows a reply has.
pub(crate) fn rows(reply: &Reply) -> Result<usize, Foreign> {
    match reply {
        Reply::Instances(rows) => Ok(rows.len()),
        Reply::Pool4(rows) => Ok(rows.len()),
        Reply::Bib(rows) => Ok(rows.len()),
        Reply::Sessions(rows) => Ok(rows.len()),
        Reply::Eamt(rows) => Ok(rows.len()),
        Reply::Denylist4(rows) => Ok(rows.len()),
        Reply::Fmrt(rows) => Ok(rows.len()),
        Reply::Status { .. }
        | Reply::Settings(_)
        | Reply::Strays(_)
        | Reply::Translation(_)
        | Reply::Stats(_)
        | Reply::Health(_)
        | Reply::Holders(_)
        | Reply::Config(_)
        | Reply::Events(_)
        | Reply::Lost(_)
        | Reply::Done
        | Reply::Summary(_)
        | Reply::Metrics(_)
        | Reply::Error(_) => Err(Foreign),
    }
}

/// What a setting is, for display: a type that nobody gave is the one that is in force.
pub(super) fn shown(setting: &Setting, settings: &Settings) -> Value {
    let value = setting.value(settings);
    if value == Value::MaptType(None) {
        return Value::MaptType(Some(settings.mapt_role()));
    }
    value
}

/// A prefix with its slash in the same column as all others.
fn cell(prefix: Prefix4) -> String {
    let (addr, len) = (prefix.network().to_string(), prefix.prefix_len());
    format!("{addr:>15}/{len:<2}")
}

fn console_value(key: &str, value: &Value) -> String {
    match value {
        Value::Bool(on) => on.to_string(),
        // The only number that is a set of switches.
        Value::Number(n) if key == "f-args" => format!(
            "{n} (0b{n:04b}): SrcAddr:{} SrcPort:{} DstAddr:{} DstPort:{}",
            n >> 3 & 1,
            n >> 2 & 1,
            n >> 1 & 1,
            n & 1
        ),
        Value::Number(n) => n.to_string(),
        Value::Duration(ms) => format!("{} (HH:MM:SS)", format_duration(*ms)),
        Value::Plateaus(list) => plateaus(list),
        Value::Prefix4(None) | Value::Prefix6(None) => "(unset)".to_owned(),
        Value::Prefix4(Some(prefix)) => prefix.to_string(),
        Value::Prefix6(Some(prefix)) => prefix.to_string(),
        Value::Hairpin(mode) => mode.name().to_owned(),
        Value::MapRule(None) | Value::MaptType(None) => "(unset)".to_owned(),
        Value::MapRule(Some(rule)) => rule.to_string(),
        Value::MaptType(Some(end)) => end.name().to_owned(),
    }
}

fn csv_value(value: &Value) -> String {
    match value {
        Value::Bool(true) => "TRUE".to_owned(),
        Value::Bool(false) => "FALSE".to_owned(),
        Value::Number(n) => n.to_string(),
        Value::Duration(ms) => format_duration(*ms),
        Value::Plateaus(list) => quoted(&plateaus(list)),
        Value::Prefix4(None) | Value::Prefix6(None) => String::new(),
        Value::Prefix4(Some(prefix)) => prefix.to_string(),
        Value::Prefix6(Some(prefix)) => prefix.to_string(),
        Value::Hairpin(mode) => mode.name().to_owned(),
        Value::MapRule(None) | Value::MaptType(None) => String::new(),
        Value::MapRule(Some(rule)) => rule.to_string().replace(' ', ","),
        Value::MaptType(Some(end)) => end.name().to_owned(),
    }
}

fn plateaus(list: &[u16]) -> String {
    let list: Vec<String> = list.iter().map(u16::to_string).collect();
    list.join(",")
}

/// A CSV field, quoted where it must be (RFC 4180 section 2).
fn csv(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        quoted(text)
    } else {
        text.to_owned()
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

const INSTANCE_LINE: &str = "+--------------------+-----------------+-----------+";
const POOL4_LINE: &str =
    "+------------+-------+--------------------+-----------------+-------------+";
const EAMT_LINE: &str = "+---------------------------------------------+--------------------+";
const FMRT_LINE: &str = "+---------------------------------------------+--------------------+\
                         ----------------+----+";
const DENYLIST4_LINE: &str = "+--------------------+";
const SESSION_LINE: &str = "---------------------------------";

#[cfg(test)]
mod tests;
