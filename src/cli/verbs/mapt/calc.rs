// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo mapt calc`: who has what.

use std::io::{self, Write};
use std::net::Ipv4Addr;

use clap::ArgMatches;

use super::{Question, shown, subject};
use crate::base::Transport4;
use crate::cli::run::RunError;
use crate::map::mapt::{Customer, PortSet, calc};
use crate::model::PortRange;

pub(super) fn calc(found: &ArgMatches, out: &mut dyn Write) -> Result<(), RunError> {
    let (customer, question) = subject(found)?;
    let most = if found.get_flag("all") {
        usize::MAX
    } else {
        MOST
    };
    Ok(print(out, customer, question, most)?)
}

fn print(
    out: &mut dyn Write,
    customer: Customer,
    question: Option<Question>,
    most: usize,
) -> io::Result<()> {
    let rule = customer.rule();
    let (o, p, k) = (rule.ea_bits(), rule.suffix_len(), rule.psid_len());
    writeln!(out, "rule             {rule}")?;
    writeln!(
        out,
        "                 {o} EA bits: {} of IPv4 address, {k} of PSID; {p} bits behind the IPv4 prefix",
        o.min(p)
    )?;
    writeln!(out, "end-user prefix  {}", customer.prefix())?;
    let first = customer.first4();
    match customer.v4_len() {
        32 => writeln!(out, "IPv4 address     {first}")?,
        len => writeln!(out, "IPv4 prefix      {first}/{len}")?,
    }
    if rule.shares() {
        let psid = customer.ports().psid();
        writeln!(out, "PSID             {psid} (0x{psid:x})")?;
    }
    let ports = customer.ports();
    writeln!(
        out,
        "ports            {}: {}",
        ports.count(),
        ranges(&ports, most)
    )?;
    writeln!(out, "MAP address      {}", customer.address(first))?;
    if let Some(Question::Port(asked)) = question {
        asked_about(out, customer, asked)?;
    }
    if rule.shares() {
        others(out, customer, question)?;
    }
    Ok(())
}

/// A port that nobody has looks like one of somebody's.
fn asked_about(out: &mut dyn Write, customer: Customer, asked: Transport4) -> io::Result<()> {
    let Some(holder) = calc::holder(customer.rule(), asked.addr, asked.port) else {
        return Ok(());
    };
    if asked.addr != customer.first4() {
        writeln!(out, "{:<16} {}", asked.addr, holder.address)?;
    }
    if !holder.allowed {
        let least = 1_u32 << 16 >> customer.rule().psid_offset();
        writeln!(
            out,
            "port {:<11} nobody's: below {least} the bits before the PSID are zero",
            asked.port
        )?;
    }
    Ok(())
}

/// What the same question has for an answer where the PSID is looked for elsewhere.
fn others(out: &mut dyn Write, customer: Customer, question: Option<Question>) -> io::Result<()> {
    writeln!(out, "with other PSID offsets:")?;
    for rule in calc::offsets(customer.rule()) {
        let a = rule.psid_offset();
        let mark = if a == customer.rule().psid_offset() {
            "  <- this rule"
        } else {
            ""
        };
        let text = match question {
            Some(Question::Port(asked)) => holder(rule, asked.addr, asked.port),
            Some(Question::Prefix(_)) | None => Customer::new(rule, customer.prefix())
                .map_or_else(|error| error.to_string(), |c| ranges(&c.ports(), 2)),
        };
        writeln!(out, "  {a:>2}  {text}{mark}")?;
    }
    Ok(())
}

fn holder(rule: crate::model::mapt::MapRule, addr: Ipv4Addr, port: u16) -> String {
    let Some(found) = calc::holder(rule, addr, port) else {
        return "nobody".to_owned();
    };
    let note = if found.allowed {
        ""
    } else {
        " (nobody's port)"
    };
    let psid = found.customer.ports().psid();
    format!("PSID {psid}, {}{note}", found.customer.prefix())
}

pub(super) fn ranges(ports: &PortSet, most: usize) -> String {
    let mut all = ports.ranges();
    let first: Vec<PortRange> = all.by_ref().take(most).collect();
    let first: Vec<String> = first.into_iter().map(shown).collect();
    let mut text = first.join(" ");
    // The iterator knows its end only by going there.
    let (mut more, mut last) = (0_usize, None);
    for range in all {
        (more, last) = (more + 1, Some(range));
    }
    match (more, last) {
        (0, _) | (_, None) => {}
        (1, Some(range)) => text = format!("{text} {}", shown(range)),
        (n, Some(range)) => text = format!("{text} ... {} ({} ranges)", shown(range), most + n),
    }
    text
}

/// How many ranges are printed, and the last.
pub(super) const MOST: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::verbs::mapt::read_words;

    fn answer(text: &str) -> String {
        let words: Vec<&str> = text.split(' ').collect();
        let (rule, question) = read_words(&words).unwrap();
        let customer = match question {
            Question::Prefix(prefix) => Customer::new(rule, prefix).unwrap(),
            Question::Port(port) => Customer::of(rule, port.addr, port.port).unwrap(),
        };
        let mut out = Vec::new();
        print(&mut out, customer, Some(question), MOST).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_a_customer_has() {
        let text = answer("2001:db8:ce::/51 192.0.2.0/24 13 0 2001:db8:ce:774::/64");
        let expected = "\
rule             2001:db8:ce::/51 192.0.2.0/24 13 0
                 13 EA bits: 8 of IPv4 address, 5 of PSID; 8 bits behind the IPv4 prefix
end-user prefix  2001:db8:ce:774::/64
IPv4 address     192.0.2.59
PSID             20 (0x14)
ports            2048: 40960-43007
MAP address      2001:db8:ce:774:0:c000:23b:14
with other PSID offsets:
   0  40960-43007  <- this rule
   1  53248-54271
";
        assert!(text.starts_with(expected), "{text}");
        // The offsets from 0 to 11 leave room for 5 bits of PSID.
        assert_eq!(text.lines().count(), 8 + 12);
    }

    #[test]
    fn who_has_a_port() {
        let rule = "2001:db8::/40 192.0.2.0/24 16 6";
        let text = answer(&format!("{rule} 192.0.2.18#1232"));
        for line in [
            "end-user prefix  2001:db8:12:3400::/56",
            "PSID             52 (0x34)",
            "ports            252: 1232-1235 2256-2259 3280-3283 4304-4307 ... 64720-64723 (63 ranges)",
            "MAP address      2001:db8:12:3400:0:c000:212:34",
            "   6  PSID 52, 2001:db8:12:3400::/56  <- this rule",
            "   0  PSID 4, 2001:db8:12:400::/56",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        let text = answer(&format!("{rule} 192.0.2.18#208"));
        let line = "port 208         nobody's: below 1024 the bits before the PSID are zero";
        assert!(text.lines().any(|l| l == line), "{text}");
    }

    #[test]
    fn a_customer_with_a_prefix_has_all_ports() {
        let text = answer("2001:db8::/64 192.0.2.0/28 1 2001:db8::/65");
        assert!(text.contains("IPv4 prefix      192.0.2.0/29\n"), "{text}");
        assert!(text.contains("ports            65536: 0-65535\n"), "{text}");
        assert!(!text.contains("PSID  "), "{text}");
    }
}
