// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo mapt rules`: port translation by the kernel, for the ports of one customer.
//!
//! The kernel translates to one range of ports at a time. With several, which is the rule, each new
//! connection gets one at random.

use std::io::{self, Write};
use std::net::Ipv4Addr;

use clap::ArgMatches;

use super::{shown, subject};
use crate::base::prefix::Prefix4;
use crate::cli::grammar::GrammarError;
use crate::cli::run::RunError;
use crate::cli::values;
use crate::map::mapt::PortSet;

pub(super) fn rules(found: &ArgMatches, out: &mut dyn Write) -> Result<(), RunError> {
    let (customer, _) = subject(found)?;
    let device = found.get_one::<String>("device").map(String::as_str);
    if let Some(name) = device.filter(|name| !harmless(name)) {
        let message = format!("{name:?} is not the name of a device");
        return Err(super::super::usage("mapt rules", message));
    }
    let source = found.get_one::<String>("source");
    let source = source.map(|text| values::prefix4(text)).transpose();
    let source = source.map_err(|error| GrammarError::Value {
        what: "source".to_owned(),
        error,
    })?;
    writeln!(out, "# {}: {}", customer.prefix(), customer.rule())?;
    Ok(print(
        out,
        customer.first4(),
        customer.ports(),
        device,
        source,
    )?)
}

/// It stands between quotes in the rules.
fn harmless(device: &str) -> bool {
    let fine = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '/');
    (1..=15).contains(&device.len()) && device.chars().all(fine)
}

fn print(
    out: &mut dyn Write,
    addr: Ipv4Addr,
    ports: PortSet,
    device: Option<&str>,
    source: Option<Prefix4>,
) -> io::Result<()> {
    let device = device.map_or_else(String::new, |name| format!("oifname \"{name}\" "));
    let source = source.map_or_else(
        || format!("ip saddr != {addr} "),
        |prefix| format!("ip saddr {prefix} "),
    );
    writeln!(out, "table ip tylo_mapt_napt")?;
    writeln!(out, "delete table ip tylo_mapt_napt")?;
    writeln!(out, "table ip tylo_mapt_napt {{")?;
    writeln!(out, "\tchain postrouting {{")?;
    writeln!(
        out,
        "\t\ttype nat hook postrouting priority srcnat; policy accept;"
    )?;
    writeln!(
        out,
        "\t\t{device}{source}meta l4proto {{ tcp, udp, icmp }} goto customer"
    )?;
    writeln!(out, "\t}}")?;
    writeln!(out, "\tchain customer {{")?;
    let count = ports.ranges().count();
    for (n, range) in ports.ranges().enumerate() {
        let chance = match count - n {
            1 => String::new(),
            left => format!("numgen random mod {left} 0 "),
        };
        let range = shown(range);
        for protocols in ["{ tcp, udp }", "icmp"] {
            // Identifiers of pings are like ports.
            writeln!(
                out,
                "\t\tmeta l4proto {protocols} {chance}snat to {addr}:{range}"
            )?;
        }
    }
    writeln!(out, "\t}}\n}}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::mapt::Customer;

    fn of(rule: &str, prefix: &str) -> String {
        let customer = Customer::new(rule.parse().unwrap(), prefix.parse().unwrap()).unwrap();
        let mut out = Vec::new();
        let source = Some("192.168.0.0/24".parse().unwrap());
        print(
            &mut out,
            customer.first4(),
            customer.ports(),
            Some("to_ce"),
            source,
        )
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_range_needs_no_dice() {
        let text = of("2001:db8:ce::/51 192.0.2.0/24 13 0", "2001:db8:ce:11b::/64");
        let expected = "\
table ip tylo_mapt_napt
delete table ip tylo_mapt_napt
table ip tylo_mapt_napt {
\tchain postrouting {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\toifname \"to_ce\" ip saddr 192.168.0.0/24 meta l4proto { tcp, udp, icmp } goto customer
\t}
\tchain customer {
\t\tmeta l4proto { tcp, udp } snat to 192.0.2.8:55296-57343
\t\tmeta l4proto icmp snat to 192.0.2.8:55296-57343
\t}
}
";
        assert_eq!(text, expected);
    }

    #[test]
    fn many_ranges_are_all_there() {
        let text = of("2001:db8::/40 192.0.2.0/24 16 6", "2001:db8:12:3400::/56");
        assert_eq!(text.matches(" snat to 192.0.2.18:").count(), 2 * 63);
        assert!(
            text.contains("{ tcp, udp } numgen random mod 63 0 snat to 192.0.2.18:1232-1235\n")
        );
        assert!(text.contains("{ tcp, udp } snat to 192.0.2.18:64720-64723\n"));
    }

    #[test]
    fn names_of_devices_do_not_break_out() {
        assert!(harmless("wan0.5") && harmless("to-ce@x"));
        for name in ["", "a\"", "a b", "sixteen-bytes-xx", "a\n"] {
            assert!(!harmless(name), "{name}");
        }
    }
}
