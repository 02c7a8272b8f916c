// SPDX-License-Identifier: GPL-2.0-or-later
//! From what stands behind the words to a request.

use std::path::PathBuf;

use clap::ArgMatches;

use super::{Call, GrammarError, Invocation, Output, checked};
use crate::base::Protocol;
use crate::base::prefix::Prefix4;
use crate::cli::follow::Form;
use crate::cli::keywords::Action;
use crate::cli::proxy::{self, ProxyConfig};
use crate::cli::render::{Style, Table};
use crate::cli::values::{self, Shape, ValueError, shape};
use crate::cli::{file, help};
use crate::model::control::{Command, Config, Request, VERSION};
use crate::model::mapt::MapRule;
use crate::model::settings::{Kind, Setting, SettingError};
use crate::model::{DEFAULT_INSTANCE, EamRow, Flavour, Framework, Pool4Entry, PortRange};

/// What was found behind the words.
pub(super) struct Operands {
    pub(super) found: ArgMatches,
    pub(super) path: String,
    /// The instance that `-i` or `-f` names.
    pub(super) given: Option<String>,
    pub(super) key: Option<&'static Setting>,
}

impl Operands {
    pub(super) fn invocation(
        &self,
        flavour: Flavour,
        action: Action,
    ) -> Result<Invocation, GrammarError> {
        let mut instance = self.given.clone();
        let mut warning = None;
        let (command, output) = match action {
            Action::InstanceDisplay => {
                warning = self.given.as_ref().map(|_| NAME_IGNORED.to_owned());
                (Command::InstanceDisplay, self.table(Table::Instances))
            }
            Action::InstanceAdd => {
                instance = self.instance()?;
                (self.instance_add()?, Output::Nothing)
            }
            Action::MaptAdd => {
                instance = self.instance()?;
                (self.mapt_add()?, Output::Nothing)
            }
            Action::InstanceRemove => {
                instance = self.instance()?;
                (Command::InstanceRemove, Output::Nothing)
            }
            Action::InstanceFlush => {
                warning = self.given.as_ref().map(|_| NAME_IGNORED.to_owned());
                (Command::InstanceFlush, Output::Nothing)
            }
            Action::InstanceStatus => {
                let json = self.flag("json");
                (Command::InstanceStatus, Output::Status { json })
            }
            Action::StatsDisplay => {
                let (all, explain) = (self.flag("all"), self.flag("explain"));
                let table = self.table(Table::Stats { all, explain });
                (Command::StatsDisplay, table)
            }
            Action::GlobalDisplay => (Command::GlobalDisplay, self.table(Table::Settings(flavour))),
            Action::GlobalUpdate => (self.global_update()?, Output::Nothing),
            Action::Pool4Display => {
                let protocol = self.protocol_or_tcp()?;
                (Command::Pool4Display { protocol }, self.table(Table::Pool4))
            }
            Action::Pool4Add => (self.pool4_add()?, Output::Nothing),
            Action::Pool4Remove => (self.pool4_remove()?, Output::Nothing),
            Action::Pool4Flush => {
                let quick = self.flag("quick");
                (Command::Pool4Flush { quick }, Output::Nothing)
            }
            Action::BibDisplay => {
                let protocol = self.protocol_or_tcp()?;
                (Command::BibDisplay { protocol }, self.table(Table::Bib))
            }
            Action::BibAdd | Action::BibRemove => (self.bib(action)?, Output::Nothing),
            Action::SessionDisplay => {
                let protocol = self.protocol_or_tcp()?;
                let table = self.table(Table::Sessions);
                (Command::SessionDisplay { protocol }, table)
            }
            Action::SessionFollow => {
                let (events, json) = (self.flag("events"), self.flag("json"));
                let command = Command::SessionFollow { ends: events };
                (command, Output::Follow(Form { events, json }))
            }
            Action::SessionProxy => return Ok(Invocation::Proxy(Box::new(self.proxy()?))),
            Action::SessionAdvertise => (Command::SessionAdvertise, Output::Nothing),
            Action::AddressQuery => {
                let verbose = self.flag("verbose");
                let table = self.table(Table::Translation { verbose });
                (self.address_query()?, table)
            }
            Action::EamtDisplay => (Command::EamtDisplay, self.table(Table::Eamt)),
            Action::EamtAdd | Action::EamtRemove => (self.eamt(action)?, Output::Nothing),
            Action::EamtFlush => (Command::EamtFlush, Output::Nothing),
            Action::Denylist4Display => (Command::Denylist4Display, self.table(Table::Denylist4)),
            Action::Denylist4Add => {
                let (prefix, force) = (self.denied()?, self.flag("force"));
                (Command::Denylist4Add { prefix, force }, Output::Nothing)
            }
            Action::Denylist4Remove => {
                let prefix = self.denied()?;
                (Command::Denylist4Remove { prefix }, Output::Nothing)
            }
            Action::Denylist4Flush => (Command::Denylist4Flush, Output::Nothing),
            Action::FmrtDisplay => (Command::FmrtDisplay, self.table(Table::Fmrt)),
            Action::FmrtAdd => {
                let rule = self.map_rule()?;
                (Command::FmrtAdd { rule }, Output::Nothing)
            }
            Action::FmrtRemove => {
                let rule = self.map_rule()?;
                (Command::FmrtRemove { rule }, Output::Nothing)
            }
            Action::FmrtFlush => (Command::FmrtFlush, Output::Nothing),
            Action::FileHandle => {
                let (name, config, force) = self.file(flavour)?;
                instance = Some(name);
                (Command::Replace { config, force }, Output::Nothing)
            }
            Action::FileCheck => {
                let (name, config, force) = self.file(flavour)?;
                instance = Some(name);
                (Command::Check { config, force }, Output::Check)
            }
        };
        Ok(Invocation::Call(Box::new(Call {
            request: Request {
                version: VERSION,
                flavour,
                instance: instance.unwrap_or_else(|| DEFAULT_INSTANCE.to_owned()),
                command,
            },
            output,
            warning,
        })))
    }

    /// Asks about a flag that this operation may not have.
    fn flag(&self, id: &str) -> bool {
        matches!(self.found.try_get_one::<bool>(id), Ok(Some(true)))
    }

    fn option(&self, id: &str) -> Option<&str> {
        self.found
            .try_get_one::<String>(id)
            .ok()
            .flatten()
            .map(String::as_str)
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.found
            .try_get_many::<String>("words")
            .ok()
            .flatten()
            .into_iter()
            .flatten()
            .map(String::as_str)
    }

    fn table(&self, table: Table) -> Output {
        if self.flag("count") {
            return Output::Count;
        }
        if self.flag("json") {
            return Output::Json(table);
        }
        let style = Style {
            csv: self.flag("csv"),
            headers: !self.flag("no-headers"),
            numeric: self.flag("numeric"),
        };
        Output::Table(table, style)
    }

    fn surplus(&self, word: &str) -> GrammarError {
        GrammarError::Usage {
            message: format!("'{word}' is one value too many"),
            path: self.path.clone(),
        }
    }

    fn missing(&self, what: Vec<&'static str>) -> GrammarError {
        GrammarError::Missing {
            path: self.path.clone(),
            what,
        }
    }

    fn protocol(&self) -> Result<Option<Protocol>, GrammarError> {
        let mut given = Protocol::ALL
            .into_iter()
            .filter(|p| self.flag(protocol_flag(*p)));
        match (given.next(), given.next()) {
            (Some(_), Some(_)) => Err(GrammarError::TwoProtocols),
            (one, _) => Ok(one),
        }
    }

    fn protocol_or_tcp(&self) -> Result<Protocol, GrammarError> {
        Ok(self.protocol()?.unwrap_or(Protocol::Tcp))
    }

    /// The instance's name: behind the operation, or from `-i` or `-f`.
    fn instance(&self) -> Result<Option<String>, GrammarError> {
        let mut words = self.words();
        let Some(name) = words.next() else {
            return Ok(self.given.clone());
        };
        if let Some(word) = words.next() {
            return Err(self.surplus(word));
        }
        let name = checked("instance", values::instance_name(name))?;
        match &self.given {
            Some(given) if *given != name => Err(GrammarError::TwoNames(given.clone(), name)),
            Some(_) | None => Ok(Some(name)),
        }
    }

    fn framework(&self) -> Result<Framework, GrammarError> {
        match (self.flag("netfilter"), self.flag("iptables")) {
            (true, true) => Err(GrammarError::TwoFrameworks),
            (false, true) => Ok(Framework::Iptables),
            (true | false, false) => Ok(Framework::Netfilter),
        }
    }

    fn instance_add(&self) -> Result<Command, GrammarError> {
        let framework = self.framework()?;
        let pool6 = self
            .option("pool6")
            .map(|text| checked("pool6", values::prefix6(text)))
            .transpose()?;
        Ok(Command::InstanceAdd { framework, pool6 })
    }

    fn global_update(&self) -> Result<Command, GrammarError> {
        // The table of words has made sure that there is a key.
        let Some(setting) = self.key else {
            return Err(self.missing(vec!["the name of a setting"]));
        };
        let mut words = self.words();
        let Some(text) = words.next() else {
            let example = help::example(setting);
            return Err(GrammarError::NoValue(
                setting.key,
                self.path.clone(),
                example,
            ));
        };
        let text = if setting.kind == Kind::MapRule && text != "null" {
            // Its parts are words of their own.
            words.fold(text.to_owned(), |text, word| text + " " + word)
        } else if let Some(word) = words.next() {
            return Err(self.surplus(word));
        } else {
            text.to_owned()
        };
        if setting.kind == Kind::Prefix6 && text != "null" {
            checked(setting.key, values::prefix6(&text))?;
        }
        let value = setting.parse(&text).map_err(ValueError::from);
        Ok(Command::GlobalUpdate {
            key: setting.key.to_owned(),
            value: checked(setting.key, value)?,
            force: self.flag("force"),
        })
    }

    /// The prefix and the ports, in any order.
    fn pool4_words(&self) -> Result<(Option<Prefix4>, Option<PortRange>), GrammarError> {
        let (mut prefix, mut ports) = (None, None);
        for word in self.words() {
            match shape(word) {
                Shape::V4 | Shape::V6 if prefix.is_none() => {
                    prefix = Some(checked("prefix", values::prefix4(word))?);
                }
                Shape::Other if ports.is_none() => {
                    ports = Some(checked("ports", values::port_range(word))?);
                }
                Shape::V4 | Shape::V6 | Shape::Other => return Err(self.surplus(word)),
            }
        }
        Ok((prefix, ports))
    }

    fn mark(&self) -> Result<u32, GrammarError> {
        match self.option("mark") {
            Some(text) => checked("mark", values::number(text)),
            None => Ok(0),
        }
    }

    //= jool#pool4-add
    fn pool4_add(&self) -> Result<Command, GrammarError> {
        let protocol = self.protocol()?;
        let (prefix, ports) = self.pool4_words()?;
        let mark = self.mark()?;
        let max_iterations = self
            .option("max-iterations")
            .map(|text| checked("max-iterations", values::iterations(text)))
            .transpose()?;
        let (Some(prefix), Some(ports), Some(protocol)) = (prefix, ports, protocol) else {
            let needs = [
                (prefix.is_none(), A_PREFIX4),
                (ports.is_none(), "a port (or ICMP identifier) range"),
                (protocol.is_none(), "a protocol (--tcp, --udp or --icmp)"),
            ];
            let what = needs.into_iter().filter(|(lacks, _)| *lacks);
            return Err(self.missing(what.map(|(_, what)| what).collect()));
        };
        let force = self.flag("force");
        if prefix.prefix_len() < 24 && !force {
            return Err(GrammarError::WidePrefix(prefix));
        }
        let entry = Pool4Entry {
            mark,
            protocol,
            prefix,
            ports,
            max_iterations,
        };
        Ok(Command::Pool4Add { entry, force })
    }

    fn pool4_remove(&self) -> Result<Command, GrammarError> {
        let protocol = self.protocol_or_tcp()?;
        let (prefix, ports) = self.pool4_words()?;
        let mark = self.mark()?;
        let Some(prefix) = prefix else {
            return Err(self.missing(vec![A_PREFIX4]));
        };
        Ok(Command::Pool4Remove {
            mark,
            protocol,
            prefix,
            ports: ports.unwrap_or(PortRange {
                min: 0,
                max: u16::MAX,
            }),
            quick: self.flag("quick"),
        })
    }

    fn bib(&self, action: Action) -> Result<Command, GrammarError> {
        let protocol = self.protocol_or_tcp()?;
        let (mut v6, mut v4) = (None, None);
        for word in self.words() {
            match shape(word) {
                Shape::V6 if v6.is_none() => {
                    v6 = Some(checked("IPv6 transport address", values::transport6(word))?);
                }
                Shape::V4 if v4.is_none() => {
                    v4 = Some(checked("IPv4 transport address", values::transport4(word))?);
                }
                Shape::V6 | Shape::V4 => return Err(self.surplus(word)),
                Shape::Other => {
                    return Err(GrammarError::Usage {
                        message: format!("'{word}' is not a transport address (ADDRESS#PORT)"),
                        path: self.path.clone(),
                    });
                }
            }
        }
        match (action == Action::BibAdd, v6, v4) {
            (true, Some(v6), Some(v4)) => Ok(Command::BibAdd { protocol, v6, v4 }),
            (true, None, None) => Err(self.missing(vec![A_TRANSPORT6, A_TRANSPORT4])),
            (true, None, Some(_)) => Err(self.missing(vec![A_TRANSPORT6])),
            (true, Some(_), None) => Err(self.missing(vec![A_TRANSPORT4])),
            (false, None, None) => Err(self.missing(vec!["at least one transport address"])),
            (false, v6, v4) => Ok(Command::BibRemove { protocol, v6, v4 }),
        }
    }

    fn proxy(&self) -> Result<ProxyConfig, GrammarError> {
        // Of several groups the last counts, as of several options.
        let Some(group) = self.words().last() else {
            return Err(self.missing(vec!["a multicast address"]));
        };
        let mut config = ProxyConfig::new(checked("GROUP", proxy::group(group))?);
        if let Some(name) = &self.given {
            config.instance.clone_from(name);
        }
        if let Some(text) = self.option("net.mcast.port") {
            config.network.port = checked("net.mcast.port", proxy::port(text, "udp"))?;
        }
        if let Some(text) = self.option("net.dev.in") {
            config.network.dev_in = Some(checked("net.dev.in", config.device(text))?);
        }
        if let Some(text) = self.option("net.dev.out") {
            config.network.dev_out = Some(checked("net.dev.out", config.device(text))?);
        }
        if let Some(text) = self.option("net.ttl") {
            config.network.ttl = checked("net.ttl", proxy::ttl(text))?;
        }
        if let Some(text) = self.option("net.format") {
            config.network.format = checked("net.format", proxy::format(text))?;
        }
        if let Some(text) = self.option("stats.address") {
            let address = checked("stats.address", values::address(text))?;
            config.stats_server().set_ip(address);
        }
        if let Some(text) = self.option("stats.port") {
            let port = checked("stats.port", proxy::port(text, "tcp"))?;
            config.stats_server().set_port(port);
        }
        Ok(config)
    }

    fn address_query(&self) -> Result<Command, GrammarError> {
        let Some(word) = self.words().next() else {
            return Err(self.missing(vec!["an IP address"]));
        };
        if shape(word) == Shape::Other {
            return Err(GrammarError::Usage {
                message: format!("'{word}' is not an IP address"),
                path: self.path.clone(),
            });
        }
        let address = checked("address", values::address(word))?;
        Ok(Command::AddressQuery { address })
    }

    fn eamt(&self, action: Action) -> Result<Command, GrammarError> {
        let (mut v6, mut v4, mut surplus) = (None, None, None);
        for word in self.words() {
            match shape(word) {
                Shape::V6 if v6.is_none() => {
                    v6 = Some(checked("IPv6 prefix", values::prefix6(word))?);
                }
                Shape::V4 if v4.is_none() => {
                    v4 = Some(checked("IPv4 prefix", values::prefix4(word))?);
                }
                Shape::V6 | Shape::V4 => surplus = surplus.or(Some(word)),
                Shape::Other => {
                    return Err(GrammarError::Usage {
                        message: format!("'{word}' is not a prefix"),
                        path: self.path.clone(),
                    });
                }
            }
        }
        let command = match (action == Action::EamtAdd, v6, v4) {
            (true, Some(v6), Some(v4)) => Command::EamtAdd {
                row: EamRow { v6, v4 },
                force: self.flag("force"),
            },
            (true, None, None) => return Err(self.missing(vec![A_PREFIX6, A_PREFIX4])),
            (true, None, Some(_)) => return Err(self.missing(vec![A_PREFIX6])),
            (true, Some(_), None) => return Err(self.missing(vec![A_PREFIX4])),
            (false, None, None) => return Err(self.missing(vec!["a prefix"])),
            (false, v6, v4) => Command::EamtRemove { v6, v4 },
        };
        // Two of a kind most often means that the other kind is missing, which is said first.
        match surplus {
            Some(word) => Err(self.surplus(word)),
            None => Ok(command),
        }
    }

    fn map_rule(&self) -> Result<MapRule, GrammarError> {
        let words: Vec<&str> = self.words().collect();
        let rule = words.join(" ").parse().map_err(SettingError::MapRule);
        checked("mapping rule", rule.map_err(ValueError::from))
    }

    fn mapt_add(&self) -> Result<Command, GrammarError> {
        let framework = self.framework()?;
        let prefix = |id: &str| {
            let text = self.option(id);
            let prefix = text.map(|text| checked(id, values::prefix6(text)));
            prefix.transpose()
        };
        let (pool6, given) = (prefix("dmr")?, prefix("end-user-ipv6-prefix")?);
        if let Some(text) = self.option("from-dhcp") {
            let config = file::from_dhcp(text, framework, pool6, given)?;
            let config = Box::new(config);
            return Ok(Command::Create { config });
        }
        if given.is_some() {
            return Err(GrammarError::Usage {
                message: "--end-user-ipv6-prefix goes with --from-dhcp; otherwise set it with \
                          'global update', together with the BMR"
                    .to_owned(),
                path: self.path.clone(),
            });
        }
        Ok(Command::InstanceAdd { framework, pool6 })
    }

    fn denied(&self) -> Result<Prefix4, GrammarError> {
        match self.words().next() {
            Some(word) => checked("prefix", values::prefix4(word)),
            None => Err(self.missing(vec![A_PREFIX4])),
        }
    }

    /// The instance that the file is about, and what it says; whether that is taken by force.
    //= jool#file-handle
    fn file(&self, flavour: Flavour) -> Result<(String, Box<Config>, bool), GrammarError> {
        let Some(path) = self.found.get_one::<PathBuf>("path") else {
            return Err(self.missing(vec!["the name of a file"]));
        };
        let force = self.flag("force");
        let (name, config) = file::configuration(path, flavour, force)?;
        let name = match (name, &self.given) {
            (Some(name), Some(given)) if name != *given => {
                return Err(GrammarError::TwoNames(given.clone(), name));
            }
            (Some(name), _) => name,
            (None, Some(given)) => given.clone(),
            (None, None) => return Err(file::FileError::NoInstance(path.clone()).into()),
        };
        Ok((name, Box::new(config), force))
    }
}

const fn protocol_flag(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
    }
}

const A_PREFIX4: &str = "an IPv4 prefix or address";
const A_PREFIX6: &str = "an IPv6 prefix or address";
const A_TRANSPORT6: &str = "an IPv6 transport address (ADDRESS#PORT)";
const A_TRANSPORT4: &str = "an IPv4 transport address (ADDRESS#PORT)";
const NAME_IGNORED: &str =
    "this operation is about every instance; the name that was given does not matter";
