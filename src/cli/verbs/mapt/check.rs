// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo mapt check`: whether the other side of a domain has another rule.
//!
//! A packet that disagrees with the rule was made by somebody who computed otherwise. Which rule
//! they computed by is found by trying: other PSID offsets, and other EA-bits lengths.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::Duration;

use clap::ArgMatches;

use super::{name, settings, shown};
use crate::base::counters::Counter;
use crate::cli::client::Client;
use crate::cli::grammar::GrammarError;
use crate::cli::run::{RunError, foreign};
use crate::cli::values::{self, ValueError};
use crate::cli::verbs::request;
use crate::map::mapt::{Customer, PortSet, agrees};
use crate::model::control::{Command, Reply};
use crate::model::mapt::{MapRule, MaptType};
use crate::model::settings::Settings;
use crate::model::{Flavour, Stray};

pub(super) fn check(found: &ArgMatches, out: &mut dyn Write) -> Result<(), RunError> {
    let name = name(found)?;
    let text = found
        .get_one::<String>("seconds")
        .map_or("", String::as_str);
    let seconds = values::number(text).map_err(|error: ValueError| GrammarError::Value {
        what: "seconds".to_owned(),
        error,
    })?;
    let mut client = Client::connect()?;
    let before = match seconds {
        0 => Look::default(),
        _ => look(&mut client, &name)?,
    };
    thread::sleep(Duration::from_secs(seconds.into()));
    let after = look(&mut client, &name)?;
    let known = before.strays.iter().map(|stray| stray.serial).max();
    let mut new = after.strays.clone();
    new.retain(|stray| Some(stray.serial) > known);
    let domain = Domain {
        settings: settings(&mut client, &name)?,
        fmrt: after.fmrt.clone(),
    };
    let dropped = after.dropped.saturating_sub(before.dropped);
    let since = match seconds {
        0 => "since the start".to_owned(),
        _ => format!("{seconds} s"),
    };
    writeln!(
        out,
        "{since}: {} packets were translated, {dropped} were dropped because they disagree with their rule",
        after.translated.saturating_sub(before.translated)
    )?;
    let groups = domain.sort(&new);
    for (what, evidence) in &groups {
        report(out, *what, evidence)?;
    }
    if dropped == 0 && groups.is_empty() {
        return Ok(());
    }
    Err(RunError::Said(EXIT_DISAGREE))
}

/// What the daemon knows at one moment.
#[derive(Default)]
struct Look {
    translated: u64,
    dropped: u64,
    strays: Vec<Stray>,
    fmrt: Vec<MapRule>,
}

fn look(client: &mut Client, name: &str) -> Result<Look, RunError> {
    let mut look = Look::default();
    let ask = |command| request(Flavour::Mapt, name, command);
    client.call(&ask(Command::StatsDisplay), |reply| {
        let Reply::Stats(rows) = reply else {
            return Err(foreign());
        };
        let value = |counter: Counter| {
            let row = rows.iter().find(|(name, _)| name == counter.name());
            row.map_or(0, |(_, value)| *value)
        };
        look.translated = value(Counter::Success);
        look.dropped = value(Counter::MaptPsid);
        Ok(())
    })?;
    client.call(&ask(Command::Strays), |reply| {
        let Reply::Strays(rows) = reply else {
            return Err(foreign());
        };
        look.strays.extend(rows);
        Ok(())
    })?;
    client.call(&ask(Command::FmrtDisplay), |reply| {
        let Reply::Fmrt(rows) = reply else {
            return Err(foreign());
        };
        look.fmrt.extend(rows);
        Ok(())
    })?;
    Ok(look)
}

struct Domain {
    settings: Settings,
    fmrt: Vec<MapRule>,
}

/// Whose packets disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// Those that a customer edge gets.
    ToUs,
    /// Those that the hosts behind a customer edge send.
    FromUs,
    /// Those of another customer.
    FromCustomer,
    /// Those to a port that no customer has.
    ToNobody,
}

/// Addresses and ports of a packet that belong together by a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    Six(MapRule, Ipv6Addr, u16),
    Four(Customer, Ipv4Addr, u16),
    Port(u16),
}

impl Domain {
    fn sort(&self, strays: &[Stray]) -> BTreeMap<What, Vec<Evidence>> {
        let mut groups: BTreeMap<What, Vec<Evidence>> = BTreeMap::new();
        for (what, evidence) in strays.iter().filter_map(|stray| self.evidence(stray)) {
            groups.entry(what).or_default().push(evidence);
        }
        groups
    }

    fn evidence(&self, stray: &Stray) -> Option<(What, Evidence)> {
        let own = match (self.settings.mapt_role(), self.settings.bmr) {
            (MaptType::Ce, Some(rule)) => {
                Customer::new(rule, self.settings.end_user_ipv6_prefix?).ok()
            }
            (MaptType::Ce | MaptType::Br, _) => None,
        };
        let [from, to] = stray.ports;
        match (stray.src, stray.dst) {
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let outside = self.settings.pool6.is_some_and(|dmr| dmr.contains(src));
                let rule = self.fmrt.iter().find(|rule| rule.v6().contains(src));
                match (own, rule.filter(|_| !outside)) {
                    (Some(own), None) => Some((What::ToUs, Evidence::Six(own.rule(), dst, to))),
                    (Some(own), Some(rule)) if agrees(*rule, src, from) => {
                        Some((What::ToUs, Evidence::Six(own.rule(), dst, to)))
                    }
                    (_, Some(rule)) => Some((What::FromCustomer, Evidence::Six(*rule, src, from))),
                    (None, None) => None,
                }
            }
            (IpAddr::V4(src), IpAddr::V4(_)) => match own {
                Some(own) if !(own.owns(src) && own.ports().contains(from)) => {
                    Some((What::FromUs, Evidence::Four(own, src, from)))
                }
                Some(_) | None => Some((What::ToNobody, Evidence::Port(to))),
            },
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }
}

impl Evidence {
    /// The rules by which the packet would be right: EA-bits length and PSID offset.
    fn fits(&self) -> Vec<(u8, u8)> {
        let (rule, lengths) = match self {
            Self::Six(rule, ..) => (*rule, 0..=48),
            // The length of the end-user prefix tells how many EA bits there are.
            Self::Four(own, ..) => (own.rule(), own.rule().ea_bits()..=own.rule().ea_bits()),
            Self::Port(_) => return Vec::new(),
        };
        let pairs = lengths.flat_map(|ea_bits| (0..=16).map(move |offset| (ea_bits, offset)));
        let fitting = pairs.filter(|(ea_bits, offset)| {
            let Ok(other) = MapRule::new(rule.v6(), rule.v4(), *ea_bits, *offset) else {
                return false;
            };
            // Without a PSID, every offset is as good as any.
            if !other.shares() && *offset != rule.psid_offset() {
                return false;
            }
            match self {
                Self::Six(_, addr, port) => agrees(other, *addr, *port),
                Self::Four(own, addr, port) => Customer::new(other, own.prefix())
                    .is_ok_and(|own| own.owns(*addr) && own.ports().contains(*port)),
                Self::Port(_) => false,
            }
        });
        fitting.collect()
    }

    const fn rule(&self) -> Option<MapRule> {
        match self {
            Self::Six(rule, ..) => Some(*rule),
            Self::Four(own, ..) => Some(own.rule()),
            Self::Port(_) => None,
        }
    }
}

/// The other rules that explain most of the samples, and how many these are.
fn explanation(evidence: &[Evidence]) -> (usize, Vec<(u8, u8)>) {
    let mut explained: BTreeMap<(u8, u8), usize> = BTreeMap::new();
    for fit in evidence.iter().flat_map(Evidence::fits) {
        *explained.entry(fit).or_default() += 1;
    }
    let most = explained.values().copied().max().unwrap_or(0);
    let best = explained.into_iter().filter(|(_, n)| *n == most);
    (most, best.map(|(fit, _)| fit).collect())
}

fn report(out: &mut dyn Write, what: What, evidence: &[Evidence]) -> io::Result<()> {
    let all = evidence.len();
    let about = match what {
        What::ToUs => "packets to this customer with a port or address that is not its own",
        What::FromUs => {
            "packets of hosts behind this gateway with a port that is not the customer's"
        }
        What::FromCustomer => "packets of customers with a port or address that is not theirs",
        What::ToNobody => "packets to ports that no customer has",
    };
    writeln!(out, "{about} ({all} samples)")?;
    for sample in evidence.iter().take(SAMPLES) {
        match sample {
            Evidence::Six(_, addr, port) => writeln!(out, "    {addr} port {port}")?,
            Evidence::Four(_, addr, port) => writeln!(out, "    {addr} port {port}")?,
            Evidence::Port(port) => writeln!(out, "    port {port}")?,
        }
    }
    let Some(rule) = evidence.iter().find_map(Evidence::rule) else {
        return writeln!(
            out,
            "  the bits before the PSID are zero in them; they are often somebody's scan"
        );
    };
    let (count, mut best) = explanation(evidence);
    // With few samples, much can be chance.
    if count * 4 < all * 3 || best.len() > CHANCE {
        best.clear();
    }
    let same_length = best.iter().any(|(ea_bits, _)| *ea_bits == rule.ea_bits());
    best.retain(|(ea_bits, _)| !same_length || *ea_bits == rule.ea_bits());
    for (ea_bits, offset) in &best {
        let mut changes = Vec::new();
        if *offset != rule.psid_offset() {
            let here = rule.psid_offset();
            changes.push(format!("the PSID offset {offset} instead of {here}"));
        }
        if *ea_bits != rule.ea_bits() {
            let here = rule.ea_bits();
            changes.push(format!("an EA-bits length of {ea_bits} instead of {here}"));
        }
        writeln!(
            out,
            "  {count} of {all} would be right with {}",
            changes.join(" and ")
        )?;
    }
    if let (true, What::FromUs, Some(Evidence::Four(own, ..))) =
        (best.is_empty(), what, evidence.first())
    {
        return other_psids(out, own, evidence);
    }
    if best.is_empty() {
        writeln!(
            out,
            "  no other offset or EA-bits length explains them all; compare all four values of the rule with the other side's"
        )?;
    }
    Ok(())
}

/// Ports that belong to another customer of the same rule: of whom?
fn other_psids(out: &mut dyn Write, own: &Customer, evidence: &[Evidence]) -> io::Result<()> {
    let mut psids: BTreeMap<u16, usize> = BTreeMap::new();
    for sample in evidence {
        if let Evidence::Four(_, addr, port) = sample
            && let Some(other) = Customer::of(own.rule(), *addr, *port)
        {
            *psids.entry(other.ports().psid()).or_default() += 1;
        }
    }
    let first = |ports: PortSet| ports.ranges().next().map(shown).unwrap_or_default();
    let (ours, wanted) = (own.ports().psid(), first(own.ports()));
    for (psid, count) in psids.into_iter().take(SAMPLES) {
        let ports = first(PortSet::of(own.rule(), psid));
        writeln!(
            out,
            "  {count} of them belong to PSID {psid} (from {ports} on), but this customer has PSID {ours} (from {wanted} on)"
        )?;
    }
    writeln!(
        out,
        "  whatever translates their ports should take those of 'tylo mapt rules', or leave it to 'tylo mapt napt on'"
    )
}

/// How many samples are printed.
const SAMPLES: usize = 3;
/// With so many explanations, none is one.
const CHANCE: usize = 3;
const EXIT_DISAGREE: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::mapt::address_of;

    const RULE: &str = "2001:db8::/40 192.0.2.0/24 16 6";

    fn rule(text: &str) -> MapRule {
        text.parse().unwrap()
    }

    fn stray(src: &str, dst: &str, ports: [u16; 2]) -> Stray {
        Stray {
            serial: 1,
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            ports,
        }
    }

    fn domain(ce: bool) -> Domain {
        let dmr = "64:ff9b::/96".to_owned();
        let mut settings = Settings {
            pool6: Some(dmr.try_into().unwrap()),
            ..Settings::default()
        };
        if ce {
            settings.bmr = Some(rule(RULE));
            settings.end_user_ipv6_prefix = Some("2001:db8:12:3400::/56".parse().unwrap());
        }
        Domain {
            settings,
            fmrt: if ce { Vec::new() } else { vec![rule(RULE)] },
        }
    }

    fn said(domain: &Domain, strays: &[Stray]) -> String {
        let mut out = Vec::new();
        for (what, evidence) in domain.sort(strays) {
            report(&mut out, what, &evidence).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    /// What a border relay makes of ports with another rule.
    fn sent_by(text: &str, ports: impl Iterator<Item = u16>) -> Vec<Stray> {
        let other = rule(text);
        let to = |port| address_of(other, "192.0.2.18".parse().unwrap(), port).to_string();
        let strays = ports.map(|port| stray("64:ff9b::1", &to(port), [80, port]));
        strays.collect()
    }

    #[test]
    fn a_relay_with_another_offset_is_found_out() {
        // With the offset 4 and 8 bits of PSID, these have the PSID 0x34.
        let ports = (1..16).map(|block| block << 12 | 0x34 << 4 | block);
        let strays = sent_by("2001:db8::/40 192.0.2.0/24 16 4", ports);
        let text = said(&domain(true), &strays);
        assert!(text.starts_with("packets to this customer"), "{text}");
        assert!(
            text.contains("15 of 15 would be right with the PSID offset 4 instead of 6\n"),
            "{text}"
        );
    }

    #[test]
    fn a_customer_with_another_ea_length_is_found_out() {
        let other = rule("2001:db8::/40 192.0.2.0/24 14 6");
        let strays: Vec<_> = (1..20)
            .map(|n| {
                let port = n * 3001;
                let src = address_of(other, "192.0.2.18".parse().unwrap(), port);
                stray(&src.to_string(), "64:ff9b::1", [port, 80])
            })
            .collect();
        let text = said(&domain(false), &strays);
        assert!(text.starts_with("packets of customers"), "{text}");
        assert!(
            text.contains("an EA-bits length of 14 instead of 16"),
            "{text}"
        );
    }

    /// The published tutorial's mistake.
    #[test]
    fn translation_to_another_customers_ports_is_found_out() {
        let mut domain = domain(true);
        domain.settings.bmr = Some(rule("2001:db8:ce::/51 192.0.2.0/24 13 0"));
        domain.settings.end_user_ipv6_prefix = Some("2001:db8:ce:774::/64".parse().unwrap());
        let strays: Vec<_> = (0..8)
            .map(|n| stray("192.0.2.59", "203.0.113.56", [28672 + 250 * n, 80]))
            .collect();
        let text = said(&domain, &strays);
        assert!(
            text.contains("8 of them belong to PSID 14 (from 28672-30719 on), but this customer has PSID 20 (from 40960-43007 on)"),
            "{text}"
        );
    }

    #[test]
    fn scans_and_chance_are_no_explanation() {
        let text = said(
            &domain(false),
            &[stray("203.0.113.1", "192.0.2.18", [4000, 80])],
        );
        assert!(
            text.contains("no customer has (1 samples)\n    port 80\n"),
            "{text}"
        );
        let one = sent_by("2001:db8::/40 192.0.2.0/24 16 6", [4].into_iter());
        let other = stray("64:ff9b::1", "2001:db8:12:3400::1", [80, 99]);
        let text = said(&domain(true), &[other, one[0]]);
        assert!(text.contains("no other offset"), "{text}");
    }
}
