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

use operands::Operands;

use super::follow::Form;
use super::keywords::{Action, Mode, WordError, resolve};
use super::proxy::ProxyConfig;
use super::render::{Style, Table};
use super::values::{self, EXIT_INVALID, ValueError};
use super::{complete, file, help};
use crate::base::prefix::Prefix4;
use crate::model::Flavour;
use crate::model::control::Request;
use crate::model::settings::Setting;

mod operands;

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// Help or version.
    Print(String),
    /// No mode at all: help, and a look at the instance that is named.
    Bare {
        help: String,
        instance: Option<String>,
    },
    Call(Box<Call>),
    /// Exchange sessions with other gateways.
    Proxy(Box<ProxyConfig>),
}

/// A request and what to do with the answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) request: Request,
    pub(crate) output: Output,
    pub(crate) warning: Option<String>,
}

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Nothing,
    /// Whether the instance runs.
    Status {
        json: bool,
    },
    Table(Table, Style),
    Json(Table),
    /// How many rows the table has.
    Count,
    /// Nothing; where no daemon runs, that what it knows was not looked at.
    Check,
    /// Sessions as they come and go.
    Follow(Form),
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
    let given = name(&top)?;
    let Some(first) = words.next() else {
        return Ok(Invocation::Bare {
            help: help::overview(who),
            instance: given,
        });
    };

    if first == complete::WORD {
        return Ok(Invocation::Print(complete::answer(who, words)?));
    }
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
        let setting = resolve(token.as_deref(), Setting::known(who.flavour))?;
        path = format!("{path} {}", setting.key);
        key = Some(setting);
    }
    let command = help::of_operation(operation.action, operation.about, &path);
    match take(command, &path, words)? {
        Ok(found) => {
            let operands = Operands {
                found,
                path,
                given,
                key,
            };
            let mut invocation = operands.invocation(who.flavour, operation.action)?;
            if let (Invocation::Call(call), Some(word)) = (&mut invocation, mode.replaced_by) {
                call.warning = Some(format!(
                    "the word '{}' is going to be forgotten; write '{word}'",
                    mode.name
                ));
            }
            Ok(invocation)
        }
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

#[cfg(test)]
mod tests;
