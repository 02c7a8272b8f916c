// SPDX-License-Identifier: GPL-2.0-or-later
//! What the keys of a configuration file mean.
//!
//! Checks all that can be checked without the instance, because only here the line is known. The
//! daemon checks everything again.

use super::json::{Fault, Node, Problem, same};
use super::name_of;
use crate::base::Protocol;
use crate::base::prefix::Prefix4;
use crate::cli::values;
use crate::model::control::Config;
use crate::model::mapt::MapRule;
use crate::model::settings::{self, Kind, Setting, SettingError, Settings, Value};
use crate::model::{BibEntry, EamRow, Flavour, Framework, MaxIterations, Pool4Entry, PortRange};

/// Reads the root object.
//= jool#file-handle
pub(super) fn read(
    root: Node<'_>,
    flavour: Flavour,
    force: bool,
) -> Result<(Option<String>, Config), Fault<'_>> {
    let mut fmrt = None;
    let (common, [eamt, denylist4, blacklist4], [pool4, bib]) = match flavour {
        Flavour::Nat64 => {
            let [name, framework, global, pool4, bib] =
                root.members(["instance", "framework", "global", "pool4", "bib"])?;
            ([name, framework, global], [None; 3], [pool4, bib])
        }
        Flavour::Mapt => {
            let [name, framework, global, rules] =
                root.members(["instance", "framework", "global", "fmrt"])?;
            fmrt = rules;
            ([name, framework, global], [None; 3], [None; 2])
        }
        Flavour::Siit => {
            let [name, framework, global, eamt, denylist4, blacklist4] = root.members([
                "instance",
                "framework",
                "global",
                "eamt",
                "denylist4",
                "blacklist4",
            ])?;
            (
                [name, framework, global],
                [eamt, denylist4, blacklist4],
                [None; 2],
            )
        }
    };
    let [name, framework, global] = common;
    let name = name.map(name_of).transpose()?;
    let framework = read_framework(root.must("framework", framework)?)?;
    let settings = match global {
        Some(global) => read_settings(global, flavour, force)?,
        None => Vec::new(),
    };
    // Both names of the list may be used at once.
    let mut denied = list(denylist4, |node| read_denied(node, force))?;
    denied.append(&mut list(blacklist4, |node| read_denied(node, force))?);
    let config = Config {
        framework,
        settings,
        eamt: list(eamt, read_eam)?,
        denylist4: denied,
        fmrt: list(fmrt, read_map_rule)?,
        pool4: list(pool4, read_pool4)?,
        bib: list(bib, read_bib)?,
    };
    Ok((name, config))
}

/// The items of an array that may not be there.
fn list<'a, T>(
    node: Option<Node<'a>>,
    read: impl Fn(Node<'a>) -> Result<T, Fault<'a>>,
) -> Result<Vec<T>, Fault<'a>> {
    match node {
        Some(node) => node.array()?.map(read).collect(),
        None => Ok(Vec::new()),
    }
}

fn read_framework(node: Node<'_>) -> Result<Framework, Fault<'_>> {
    let word = node.text()?;
    let known = [Framework::Netfilter, Framework::Iptables];
    known
        .into_iter()
        .find(|framework| framework.name() == word)
        .ok_or_else(|| node.fault(Problem::Word(word, "netfilter, iptables")))
}

fn read_settings(
    global: Node<'_>,
    flavour: Flavour,
    force: bool,
) -> Result<Vec<(String, Value)>, Fault<'_>> {
    let mut found: Vec<(String, Value)> = Vec::new();
    for (name, node) in global.entries()? {
        let Some(setting) = Setting::known(flavour).find(|s| same(s.key, &name)) else {
            let known = Setting::known(flavour).map(|s| s.key).collect();
            return Err(node.fault(Problem::Unknown(known)));
        };
        if found.iter().any(|(key, _)| key == setting.key) {
            return Err(node.fault(Problem::Twice));
        }
        let value = read_value(setting, node)?;
        let mut trial = Settings::default();
        node.judge(trial.set(flavour, setting.key, value.clone(), force))?;
        found.push((setting.key.to_owned(), value));
    }
    Ok(found)
}

fn read_value<'a>(setting: &Setting, node: Node<'a>) -> Result<Value, Fault<'a>> {
    Ok(match setting.kind {
        Kind::Bool => Value::Bool(node.bool()?),
        Kind::Byte => Value::Number(node.number(u8::MAX.into())?),
        Kind::Number => Value::Number(node.number(u32::MAX)?),
        Kind::MaptType if node.is_null() => Value::MaptType(None),
        Kind::MapRule if node.is_null() => Value::MapRule(None),
        Kind::MapRule => Value::MapRule(Some(read_map_rule(node)?)),
        Kind::Duration | Kind::Hairpin | Kind::MaptType => {
            node.judge(setting.parse(&node.text()?))?
        }
        Kind::Plateaus => Value::Plateaus(read_plateaus(node)?),
        Kind::Prefix4 if node.is_null() => Value::Prefix4(None),
        Kind::Prefix4 => Value::Prefix4(Some(node.judge(values::prefix4(&node.text()?))?)),
        Kind::Prefix6 if node.is_null() => Value::Prefix6(None),
        Kind::Prefix6 => Value::Prefix6(Some(node.judge(values::prefix6(&node.text()?))?)),
    })
}

fn read_plateaus(node: Node<'_>) -> Result<Vec<u16>, Fault<'_>> {
    let sizes = node.array()?.map(|size| size.number(u16::MAX.into()));
    // In range: that is what `number` was asked for.
    let sizes = sizes.map(|size| size.map(|n| u16::try_from(n).unwrap_or(u16::MAX)));
    let sizes: Vec<u16> = sizes.collect::<Result<_, _>>()?;
    if sizes.is_empty() {
        return node.judge(Err(SettingError::NoPlateaus));
    }
    Ok(sizes)
}

fn read_eam(node: Node<'_>) -> Result<EamRow, Fault<'_>> {
    let [v6, v4] = node.members(["ipv6 prefix", "ipv4 prefix"])?;
    let (v6, v4) = (node.must("ipv6 prefix", v6)?, node.must("ipv4 prefix", v4)?);
    Ok(EamRow {
        v6: v6.judge(values::prefix6(&v6.text()?))?,
        v4: v4.judge(values::prefix4(&v4.text()?))?,
    })
}

fn read_map_rule(node: Node<'_>) -> Result<MapRule, Fault<'_>> {
    const KEYS: [&str; 4] = ["ipv6 prefix", "ipv4 prefix", "ea-bits length", "a"];
    let [v6, v4, ea_bits, offset] = node.members(KEYS)?;
    let (v6, v4) = (node.must("ipv6 prefix", v6)?, node.must("ipv4 prefix", v4)?);
    let ea_bits = node.must("ea-bits length", ea_bits)?;
    let rule = MapRule::new(
        v6.judge(values::prefix6(&v6.text()?))?,
        v4.judge(values::prefix4(&v4.text()?))?,
        bits(ea_bits)?,
        offset.map_or(Ok(MapRule::DEFAULT_OFFSET), bits)?,
    );
    node.judge(rule.map_err(SettingError::MapRule))
}

/// A number of bits.
fn bits(node: Node<'_>) -> Result<u8, Fault<'_>> {
    // In range: that is what was asked for.
    node.number(u8::MAX.into()).map(|n| n as u8)
}

fn read_denied(node: Node<'_>, force: bool) -> Result<Prefix4, Fault<'_>> {
    let prefix = node.judge(values::prefix4(&node.text()?))?;
    if !force {
        node.judge(settings::unscoped(prefix))?;
    }
    Ok(prefix)
}

fn read_pool4(node: Node<'_>) -> Result<Pool4Entry, Fault<'_>> {
    let [protocol, prefix, ports, mark, max_iterations] =
        node.members(["protocol", "prefix", "port range", "mark", "max-iterations"])?;
    let protocol = read_protocol(node.must("protocol", protocol)?)?;
    let prefix = node.must("prefix", prefix)?;
    Ok(Pool4Entry {
        mark: mark.map_or(Ok(0), |mark| mark.number(u32::MAX))?,
        protocol,
        prefix: prefix.judge(values::prefix4(&prefix.text()?))?,
        ports: match ports {
            Some(ports) => ports.judge(values::port_range(&ports.text()?))?,
            None => DEFAULT_PORTS,
        },
        max_iterations: max_iterations.map(read_iterations).transpose()?,
    })
}

fn read_iterations(node: Node<'_>) -> Result<MaxIterations, Fault<'_>> {
    if node.is_text() {
        return match node.text()?.as_str() {
            "auto" => Ok(MaxIterations::Auto),
            "infinity" => Ok(MaxIterations::Infinity),
            word => Err(node.fault(Problem::Word(word.to_owned(), "a number, auto, infinity"))),
        };
    }
    let number = node.number(u32::MAX)?;
    node.judge(values::iterations(&number.to_string()))
}

fn read_bib(node: Node<'_>) -> Result<BibEntry, Fault<'_>> {
    let [protocol, v6, v4] = node.members(["protocol", "ipv6 address", "ipv4 address"])?;
    let protocol = read_protocol(node.must("protocol", protocol)?)?;
    let v6 = node.must("ipv6 address", v6)?;
    let v4 = node.must("ipv4 address", v4)?;
    Ok(BibEntry {
        protocol,
        v6: v6.judge(values::transport6(&v6.text()?))?,
        v4: v4.judge(values::transport4(&v4.text()?))?,
    })
}

fn read_protocol(node: Node<'_>) -> Result<Protocol, Fault<'_>> {
    let word = node.text()?;
    Protocol::ALL
        .into_iter()
        .find(|protocol| same(protocol.name(), &word))
        .ok_or_else(|| node.fault(Problem::Word(word, "TCP, UDP, ICMP")))
}

/// The ports of an entry of pool4 that names none.
const DEFAULT_PORTS: PortRange = PortRange {
    min: 61001,
    max: u16::MAX,
};
