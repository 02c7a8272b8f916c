// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo mapt`: the arithmetic of mapping rules, and what helps a customer edge.

use std::io::Write;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command as Clap};

use super::{Args, instance, instance_arg, request, take};
use crate::base::Transport4;
use crate::base::prefix::Prefix6;
use crate::cli::client::Client;
use crate::cli::grammar::GrammarError;
use crate::cli::run::{RunError, finish, foreign};
use crate::cli::values::{self, ValueError};
use crate::map::mapt::{Customer, PortSet};
use crate::model::control::{Command, Reply};
use crate::model::mapt::{MapRule, MaptType};
use crate::model::settings::{SettingError, Settings, Value};
use crate::model::{DEFAULT_INSTANCE, Flavour, PortRange};

mod calc;
mod check;
mod forward;
mod rules;

/// The ports of a customer, shortened.
pub(super) fn ranges(ports: &PortSet) -> String {
    calc::ranges(ports, calc::MOST)
}

pub(super) fn command() -> Clap {
    let words = || {
        Arg::new("words")
            .value_name("WORD")
            .num_args(0..)
            .action(ArgAction::Append)
            .help("PREFIX6 PREFIX4 EA-BITS [OFFSET], the mapping rule; and what is asked about")
    };
    Clap::new("tylo mapt")
        .bin_name("tylo mapt")
        .about("Explains mapping rules of MAP-T and helps customer edges")
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommand(
            Clap::new("calc")
                .about(
                    "Says who has an IPv4 address and port (ADDRESS#PORT), or what the customer \
                     with an IPv6 prefix or address has; without words, what an instance has",
                )
                .arg(words())
                .arg(instance_arg())
                .arg(
                    Arg::new("all")
                        .long("all")
                        .action(ArgAction::SetTrue)
                        .help("Print every range of ports"),
                ),
        )
        .subcommand(
            Clap::new("rules")
                .about(
                    "Prints nftables rules, for another namespace than that of the translator, \
                     that have hosts share the address and ports of a customer",
                )
                .after_help("Put them into force with: tylo mapt rules ... | nft -f -")
                .arg(words())
                .arg(instance_arg())
                .arg(
                    Arg::new("device")
                        .long("device")
                        .value_name("DEVICE")
                        .help("Only for packets that leave by this device"),
                )
                .arg(
                    Arg::new("source")
                        .long("source")
                        .value_name("PREFIX4")
                        .help("Only for packets from these addresses"),
                ),
        )
        .subcommand(
            Clap::new("napt")
                .about("Says whether a customer edge translates ports itself, or switches that")
                .arg(
                    Arg::new("switch")
                        .value_name("on|off")
                        .value_parser(["on", "off"])
                        .help("The same as 'jool_mapt global update mapt-napt'"),
                )
                .arg(instance_arg()),
        )
        .subcommand(forward::command())
        .subcommand(
            Clap::new("check")
                .about(
                    "Watches packets for a while and says whether those that were dropped look as \
                     if the other side had another mapping rule",
                )
                .after_help("Exits with 1 if packets disagree with the rule.")
                .arg(instance_arg())
                .arg(
                    Arg::new("seconds")
                        .long("seconds")
                        .value_name("N")
                        .default_value("10")
                        .help("How long; 0 looks at what happened since the instance was started"),
                ),
        )
}

/// The command `tylo mapt`. `args` begins with its name.
pub(super) fn mapt(args: Args<'_>) -> ExitCode {
    let found = match take(command(), args) {
        Ok(found) => found,
        Err(code) => return code,
    };
    finish(|out| match found.subcommand() {
        Some(("calc", found)) => calc::calc(found, out),
        Some(("rules", found)) => rules::rules(found, out),
        Some(("napt", found)) => napt(found, out),
        Some(("forward", found)) => forward::forward(found, out),
        Some(("check", found)) => check::check(found, out),
        // Others are refused before.
        Some(_) | None => Ok(()),
    })
}

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// The one with an IPv6 prefix, or an address in it.
    Prefix(Prefix6),
    Port(Transport4),
}

/// Rule and question as they are typed.
fn read_words(words: &[&str]) -> Result<(MapRule, Question), GrammarError> {
    let usage = |message: &str| GrammarError::Usage {
        message: message.to_owned(),
        path: "tylo mapt".to_owned(),
    };
    let (question, rule) = words
        .split_last()
        .filter(|(last, rule)| rule.len() >= 3 && last.contains([':', '#', '.']))
        .ok_or_else(|| {
            usage(
                "write a mapping rule and then ADDRESS#PORT or an IPv6 prefix, for example \
                 2001:db8:ce::/51 192.0.2.0/24 13 0 192.0.2.8#55296",
            )
        })?;
    let value = |what: &str, error: ValueError| GrammarError::Value {
        what: what.to_owned(),
        error,
    };
    let rule: MapRule = rule.join(" ").parse().map_err(|error| {
        let error = ValueError::from(SettingError::MapRule(error));
        value("mapping rule", error)
    })?;
    if question.contains(':') {
        let prefix = prefix_of(rule, question).map_err(|error| value("prefix", error))?;
        return Ok((rule, Question::Prefix(prefix)));
    }
    let port = match question.contains('#') {
        true => values::transport4(question),
        false if !rule.shares() => values::transport4(&format!("{question}#0")),
        false => return Err(usage("customers share addresses: write ADDRESS#PORT")),
    };
    let port = port.map_err(|error| value("address and port", error))?;
    Ok((rule, Question::Port(port)))
}

/// The end-user prefix that is written, or that an address is in.
fn prefix_of(rule: MapRule, text: &str) -> Result<Prefix6, ValueError> {
    if text.contains('/') {
        return values::prefix6(text);
    }
    let whole = values::prefix6(text)?;
    let length = rule.v6().prefix_len() + rule.ea_bits();
    let host = u128::MAX.checked_shr(length.into()).unwrap_or(0);
    let addr = u128::from(whole.network()) & !host;
    Ok(Prefix6::new(addr.into(), length)?)
}

/// The customer that is typed, or else that an instance is.
fn subject(found: &ArgMatches) -> Result<(Customer, Option<Question>), RunError> {
    let words: Vec<&str> = found
        .get_many::<String>("words")
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    if words.is_empty() {
        let settings = settings(&mut Client::connect()?, &name(found)?)?;
        return match (
            settings.mapt_role(),
            settings.bmr,
            settings.end_user_ipv6_prefix,
        ) {
            (MaptType::Ce, Some(rule), Some(prefix)) => {
                Ok((Customer::new(rule, prefix).map_err(refused)?, None))
            }
            _ => Err(RunError::NotReady(
                "the instance is a border relay and no customer; write a mapping rule and what is \
                 asked about"
                    .to_owned(),
            )),
        };
    }
    let (rule, question) = read_words(&words)?;
    let customer = match question {
        Question::Prefix(prefix) => Customer::new(rule, prefix).map_err(refused)?,
        Question::Port(port) => Customer::of(rule, port.addr, port.port).ok_or_else(|| {
            RunError::NotReady(format!(
                "{} is not inside {}, the rule's",
                port.addr,
                rule.v4()
            ))
        })?,
    };
    Ok((customer, Some(question)))
}

fn refused(error: impl Into<SettingError>) -> RunError {
    let error = ValueError::from(error.into());
    let what = "end-user prefix".to_owned();
    GrammarError::Value { what, error }.into()
}

fn name(found: &ArgMatches) -> Result<String, RunError> {
    let name = instance(found)?;
    Ok(name.unwrap_or_else(|| DEFAULT_INSTANCE.to_owned()))
}

fn settings(client: &mut Client, name: &str) -> Result<Settings, RunError> {
    let mut settings = None;
    client.call(
        &request(Flavour::Mapt, name, Command::GlobalDisplay),
        |reply| {
            let Reply::Settings(found) = reply else {
                return Err(foreign());
            };
            settings = Some(*found);
            Ok(())
        },
    )?;
    Ok(settings.ok_or_else(foreign)?)
}

fn napt(found: &ArgMatches, out: &mut dyn Write) -> Result<(), RunError> {
    let name = name(found)?;
    let mut client = Client::connect()?;
    if let Some(switch) = found.get_one::<String>("switch") {
        let command = Command::GlobalUpdate {
            key: "mapt-napt".to_owned(),
            value: Value::Bool(switch == "on"),
            force: false,
        };
        client.call(&request(Flavour::Mapt, &name, command), |_| Err(foreign()))?;
    }
    let settings = settings(&mut client, &name)?;
    let state = match (settings.mapt_napt, settings.mapt_role()) {
        (true, MaptType::Ce) => "on: hosts behind this gateway share its address and ports",
        (true, MaptType::Br) => "on, but without effect: a border relay has no ports of its own",
        (false, _) => "off: only packets that have an address and port of the customer already",
    };
    Ok(writeln!(out, "{state}")?)
}

/// Ranges of ports as people read them.
fn shown(range: PortRange) -> String {
    if range.min == range.max {
        range.min.to_string()
    } else {
        format!("{}-{}", range.min, range.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "2001:db8:ce::/51 192.0.2.0/24 13 0";

    fn read(text: &str) -> Result<(MapRule, Question), GrammarError> {
        read_words(&text.split(' ').collect::<Vec<_>>())
    }

    #[test]
    fn a_rule_and_what_is_asked_about() {
        let (rule, question) = read(&format!("{RULE} 192.0.2.8#55296")).unwrap();
        assert_eq!(rule.to_string(), RULE);
        assert_eq!(question, Question::Port("192.0.2.8#55296".parse().unwrap()));
        let prefix = Question::Prefix("2001:db8:ce:11b::/64".parse().unwrap());
        for text in ["2001:db8:ce:11b::/64", "2001:db8:ce:11b:0:c000:208:1b"] {
            assert_eq!(read(&format!("{RULE} {text}")).unwrap(), (rule, prefix));
        }
        let (rule, _) = read("2001:db8::/40 192.0.2.0/24 16 192.0.2.18#1232").unwrap();
        assert_eq!(rule.psid_offset(), 6, "the default");
        let single = read("2001:db8::/56 192.0.2.0/24 8 192.0.2.18").unwrap();
        assert_eq!(single.1, Question::Port("192.0.2.18#0".parse().unwrap()));
    }

    #[test]
    fn questions_that_make_no_sense_are_refused() {
        for text in [
            "192.0.2.8#1",
            RULE,
            "2001:db8:ce::/51 192.0.2.0/24 13 0 5",
            "2001:db8:ce::/51 192.0.2.0/24 13 0 192.0.2.8",
            "2001:db8:ce::/51 192.0.2.0/24 49 0 192.0.2.8#1",
            "2001:db8:ce::/51 192.0.2.0/24 13 0 192.0.2.8#70000",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
