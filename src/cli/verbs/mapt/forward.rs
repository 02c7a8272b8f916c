// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo mapt forward`: ports of a customer that always lead to one host behind its edge.
//!
//! To the daemon these are static mappings, whose private addresses are IPv4-mapped IPv6 addresses.

use std::io::Write;

use clap::{Arg, ArgAction, ArgMatches, Command as Clap};

use super::{calc, name, settings};
use crate::base::{Protocol, Transport4, Transport6};
use crate::cli::client::Client;
use crate::cli::grammar::GrammarError;
use crate::cli::run::{RunError, foreign};
use crate::cli::values::{self, ValueError};
use crate::cli::verbs::{instance_arg, request};
use crate::map::mapt::Customer;
use crate::model::control::{Command, Reply};
use crate::model::{BibRow, Flavour};

pub(super) fn command() -> Clap {
    Clap::new("forward")
        .about(
            "Has a port of the customer always lead to one host behind a customer edge that \
             translates ports itself; without values, lists such ports",
        )
        .arg(
            Arg::new("protocol")
                .value_name("tcp|udp|icmp")
                .value_parser(["tcp", "udp", "icmp"])
                .requires("port")
                .help("The protocol; with icmp, ports are identifiers of pings"),
        )
        .arg(
            Arg::new("port")
                .value_name("PORT")
                .help("One of the customer's"),
        )
        .arg(
            Arg::new("host")
                .value_name("ADDRESS#PORT")
                .help("Where it leads"),
        )
        .arg(
            Arg::new("remove")
                .long("remove")
                .action(ArgAction::SetTrue)
                .requires("port")
                .conflicts_with("host")
                .help("Take it back"),
        )
        .arg(instance_arg())
}

pub(super) fn forward(found: &ArgMatches, out: &mut dyn Write) -> Result<(), RunError> {
    let name = name(found)?;
    let mut client = Client::connect()?;
    let word = |id: &str| found.get_one::<String>(id).map(String::as_str);
    let (Some(protocol), Some(port)) = (word("protocol"), word("port")) else {
        return list(&mut client, &name, out);
    };
    let protocol = Protocol::ALL
        .into_iter()
        .find(|known| known.name().eq_ignore_ascii_case(protocol))
        .unwrap_or(Protocol::Tcp);
    let v4 = own(&mut client, &name, port)?;
    let command = match word("host") {
        Some(host) => {
            let host = values::transport4(host).map_err(|error| value("host", error))?;
            let v6 = Transport6::new(host.addr.to_ipv6_mapped(), host.port);
            Command::BibAdd { protocol, v6, v4 }
        }
        None if found.get_flag("remove") => Command::BibRemove {
            protocol,
            v6: None,
            v4: Some(v4),
        },
        None => {
            let message = "say where the port leads (ADDRESS#PORT), or --remove".to_owned();
            return Err(super::super::usage("mapt forward", message));
        }
    };
    Ok(client.call(&request(Flavour::Mapt, &name, command), |_| Err(foreign()))?)
}

/// The customer's address with one of its ports.
fn own(client: &mut Client, name: &str, port: &str) -> Result<Transport4, RunError> {
    let port = values::port_range(port).map_err(|error| value("port", error))?;
    let settings = settings(client, name)?;
    let customer = settings
        .bmr
        .zip(settings.end_user_ipv6_prefix)
        .and_then(|(rule, prefix)| Customer::new(rule, prefix).ok());
    let Some(customer) = customer.filter(|_| settings.mapt_napt) else {
        return Err(RunError::NotReady(
            "the instance is no customer edge that translates ports itself; see 'tylo mapt napt'"
                .to_owned(),
        ));
    };
    if port.min != port.max || !customer.ports().contains(port.min) {
        let ports = calc::ranges(&customer.ports(), calc::MOST);
        let (asked, psid) = (super::shown(port), customer.ports().psid());
        return Err(RunError::NotReady(format!(
            "{asked} is not a port of this customer, who has PSID {psid}: choose one of {ports}"
        )));
    }
    Ok(Transport4::new(customer.first4(), port.min))
}

fn list(client: &mut Client, name: &str, out: &mut dyn Write) -> Result<(), RunError> {
    for protocol in Protocol::ALL {
        let command = Command::BibDisplay { protocol };
        let mut found: Vec<BibRow> = Vec::new();
        client.call(&request(Flavour::Mapt, name, command), |reply| {
            let Reply::Bib(rows) = reply else {
                return Err(foreign());
            };
            found.extend(rows.into_iter().filter(|row| row.is_static));
            Ok(())
        })?;
        for BibRow { v6, v4, .. } in found {
            // Others than private addresses cannot be in there.
            let host = v6.addr.to_ipv4_mapped().unwrap_or(v4.addr);
            let host = Transport4::new(host, v6.port);
            writeln!(out, "{protocol} {v4} {host}")?;
        }
    }
    Ok(())
}

fn value(what: &str, error: ValueError) -> GrammarError {
    GrammarError::Value {
        what: what.to_owned(),
        error,
    }
}
