// SPDX-License-Identifier: GPL-2.0-or-later
//! From the words of a command line to a [`Request`] and the way its answer is printed.
//!
//! `PROGRAM [OPTIONS] MODE OPERATION [KEY] [OPTIONS and VALUES]`: the first and last part are
//! read by clap, the words between by the [keyword table](super::keywords). Nothing that was
//! typed is ignored. No talking to the daemon here.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::keywords::{Action, Mode, WordError, resolve};
use super::render::{Style, Table};
use super::values::{self, EXIT_INVALID, Shape, ValueError, shape};
use super::{file, help};
use crate::base::Protocol;
use crate::base::prefix::Prefix4;
use crate::model::control::{Command, Request, VERSION};
use crate::model::settings::Setting;
use crate::model::{DEFAULT_INSTANCE, Flavour, Framework, Pool4Entry, PortRange};

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// Help or version.
    Print(String),
    Call(Box<Call>),
}

/// A request and what to do with the answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) request: Request,
    pub(crate) output: Output,
    pub(crate) warning: Option<&'static str>,
}

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Nothing,
    /// Whether the instance runs.
    Status,
    Table(Table, Style),
}

/// Why a command line was not understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrammarError {
    #[error(transparent)]
    Word(#[from] WordError),
    #[error("{message}; see '{path} --help'")]
    Usage { message: String, path: String },
    #[error("{what}: {error}")]
    Value { what: String, error: ValueError },
    #[error("{path} lacks {}", and(.what))]
    Missing {
        path: String,
        what: Vec<&'static str>,
    },
    #[error("{0} needs a value, for example: {1} {2}")]
    NoValue(&'static str, String, String),
    #[error("only one protocol can be given at a time; repeat the command for each")]
    TwoProtocols,
    #[error("an instance has one framework; give either --netfilter or --iptables")]
    TwoFrameworks,
    #[error("two different instance names were given, '{0}' and '{1}'; leave one of them out")]
    TwoNames(String, String),
    #[error(
        "{0} holds more than 256 addresses, which is seldom meant for NAT64; \
         add --force if it is, or choose a prefix of length 24 or more"
    )]
    WidePrefix(Prefix4),
    #[error(transparent)]
    File(#[from] file::FileError),
}

impl GrammarError {
    /// The exit status of the command.
    //= jool#exit-status
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage { .. } => EXIT_USAGE,
            Self::Value { error, .. } => error.code(),
            Self::WidePrefix(_) => EXIT_TOO_BIG,
            Self::File(error) => error.code(),
            Self::Word(_)
            | Self::Missing { .. }
            | Self::NoValue(..)
            | Self::TwoProtocols
            | Self::TwoFrameworks
            | Self::TwoNames(..) => EXIT_INVALID,
        }
    }
}

/// Which command this is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Personality {
    pub(crate) program: &'static str,
    pub(crate) flavour: Flavour,
}

/// Reads a command line, without the program's own name.
///
/// # Errors
/// What was typed makes no sense, or the file that `-f` names cannot be used.
pub(crate) fn parse(
    who: Personality,
    args: impl Iterator<Item = OsString>,
) -> Result<Invocation, GrammarError> {
    let top = match take(help::top(who), who.program, args)? {
        Ok(top) => top,
        Err(text) => return Ok(Invocation::Print(text)),
    };
    let words: Vec<OsString> = top
        .get_many("words")
        .map_or_else(Vec::new, |words| words.cloned().collect());
    let mut words = words.into_iter();
    // An empty line is a question for help, too.
    let Some(first) = words.next() else {
        return Ok(Invocation::Print(help::overview(who)));
    };
    let given = name(&top)?;

    let mode = resolve(Some(&first.to_string_lossy()), Mode::of(who.flavour))?;
    let mut path = format!("{} {}", who.program, mode.name);
    let token = words.next();
    if token.as_ref().is_some_and(help::wanted) {
        return Ok(Invocation::Print(help::of_mode(who, mode)));
    }
    let token = token.map(|t| t.to_string_lossy().into_owned());
    let operation = resolve(token.as_deref(), mode.operations.iter())?;
    path = format!("{path} {}", operation.name);

    let mut key = None;
    if operation.action == Action::GlobalUpdate {
        let token = words.next();
        if token.as_ref().is_some_and(help::wanted) {
            return Ok(Invocation::Print(help::of_settings(who.flavour, &path)));
        }
        let token = token.map(|t| t.to_string_lossy().into_owned());
        let setting = resolve(token.as_deref(), Setting::of(who.flavour))?;
        path = format!("{path} {}", setting.key);
        key = Some(setting);
    }
    let command = help::of_operation(operation.action, operation.about, &path);
    match take(command, &path, words)? {
        Ok(found) => Operands {
            found,
            path,
            given,
            key,
        }
        .call(who.flavour, operation.action)
        .map(|call| Invocation::Call(Box::new(call))),
        Err(text) => Ok(Invocation::Print(text)),
    }
}

/// Lets clap read `args`; the inner error is help or the version, to be printed.
fn take(
    command: clap::Command,
    path: &str,
    args: impl Iterator<Item = OsString>,
) -> Result<Result<ArgMatches, String>, GrammarError> {
    match command.try_get_matches_from(args) {
        Ok(found) if found.get_flag("version") => Ok(Err(help::version())),
        Ok(found) => Ok(Ok(found)),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => Ok(Err(error.to_string())),
        Err(error) => Err(GrammarError::Usage {
            message: complaint(&error),
            path: path.to_owned(),
        }),
    }
}

fn complaint(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg)
    {
        return if arg.starts_with("--") || !arg.starts_with('-') {
            format!("'{arg}' is unknown or ambiguous here")
        } else {
            format!("'{arg}' is not an option here, and no value that begins with '-' is taken")
        };
    }
    let text = error.to_string();
    let line = text
        .lines()
        .next()
        .unwrap_or("the command is not understood");
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// The name that `-i` or `-f` gives; of several, the last counts.
fn name(top: &ArgMatches) -> Result<Option<String>, GrammarError> {
    let name = match (
        top.get_one::<String>("instance"),
        top.get_one::<PathBuf>("file"),
    ) {
        (Some(name), _) => name.clone(),
        (None, Some(path)) => file::instance(path)?,
        (None, None) => return Ok(None),
    };
    checked("instance", values::instance_name(&name)).map(Some)
}

fn checked<T>(what: &str, result: Result<T, ValueError>) -> Result<T, GrammarError> {
    result.map_err(|error| GrammarError::Value {
        what: what.to_owned(),
        error,
    })
}

/// What was found behind the words.
struct Operands {
    found: ArgMatches,
    path: String,
    /// The instance that `-i` or `-f` names.
    given: Option<String>,
    key: Option<&'static Setting>,
}

impl Operands {
    fn call(&self, flavour: Flavour, action: Action) -> Result<Call, GrammarError> {
        let mut instance = self.given.clone();
        let mut warning = None;
        let (command, output) = match action {
            Action::InstanceDisplay => {
                warning = self.given.as_ref().map(|_| NAME_IGNORED);
                (Command::InstanceDisplay, self.table(Table::Instances))
            }
            Action::InstanceAdd => {
                instance = self.instance()?;
                (self.instance_add()?, Output::Nothing)
            }
            Action::InstanceRemove => {
                instance = self.instance()?;
                (Command::InstanceRemove, Output::Nothing)
            }
            Action::InstanceFlush => {
                warning = self.given.as_ref().map(|_| NAME_IGNORED);
                (Command::InstanceFlush, Output::Nothing)
            }
            Action::InstanceStatus => (Command::InstanceStatus, Output::Status),
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
        };
        Ok(Call {
            request: Request {
                version: VERSION,
                flavour,
                instance: instance.unwrap_or_else(|| DEFAULT_INSTANCE.to_owned()),
                command,
            },
            output,
            warning,
        })
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

    fn instance_add(&self) -> Result<Command, GrammarError> {
        let framework = match (self.flag("netfilter"), self.flag("iptables")) {
            (true, true) => return Err(GrammarError::TwoFrameworks),
            (false, true) => Framework::Iptables,
            (true | false, false) => Framework::Netfilter,
        };
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
        if let Some(word) = words.next() {
            return Err(self.surplus(word));
        }
        if setting.kind == crate::model::settings::Kind::Prefix6 && text != "null" {
            checked(setting.key, values::prefix6(text))?;
        }
        let value = setting.parse(text).map_err(ValueError::from);
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
}

const fn protocol_flag(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
    }
}

/// Joins as in "a, b and c".
fn and(list: &[&str]) -> String {
    match list {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// EX_USAGE.
const EXIT_USAGE: u8 = 64;
/// -E2BIG, low octet.
const EXIT_TOO_BIG: u8 = 249;

const A_PREFIX4: &str = "an IPv4 prefix or address";
const A_TRANSPORT6: &str = "an IPv6 transport address (ADDRESS#PORT)";
const A_TRANSPORT4: &str = "an IPv4 transport address (ADDRESS#PORT)";
const NAME_IGNORED: &str =
    "this operation is about every instance; the name that was given does not matter";

#[cfg(test)]
mod tests;
