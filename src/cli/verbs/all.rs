// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo all`: one command for every instance.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command as Clap, value_parser};

use super::{Args, names, take, usage};
use crate::cli::client::Client;
use crate::cli::grammar::{GrammarError, Invocation, Output, Personality, parse};
use crate::cli::run::{RunError, carry_out, finish};
use crate::cli::{JOOL, JOOL_MAPT, JOOL_SIIT, say};
use crate::model::DEFAULT_INSTANCE;
use crate::model::control::Command;

pub(super) fn command() -> Clap {
    Clap::new("tylo all")
        .about(
            "Carries a command of jool, jool_siit and jool_mapt out for every instance that has it",
        )
        .after_help("Exits with the status of the first that fails; the others are asked, too.")
        .arg(
            Arg::new("words")
                .value_name("WORD")
                .help("Mode, operation, values and options, as behind jool")
                .required(true)
                .action(ArgAction::Append)
                .num_args(1..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .value_parser(value_parser!(OsString)),
        )
}

/// The command `tylo all`. `args` begins with its name.
pub(super) fn all(args: Args<'_>) -> ExitCode {
    let found = match take(command(), args) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let words = found.get_many::<OsString>("words");
    let words: Vec<OsString> = words.into_iter().flatten().cloned().collect();
    finish(|out| ask(&words, out))
}

fn ask(words: &[OsString], out: &mut dyn Write) -> Result<(), RunError> {
    if words
        .first()
        .is_some_and(|word| word.to_string_lossy().starts_with('-'))
    {
        let message = "begin with the mode; the names of the instances are added".to_owned();
        return Err(usage("all", message));
    }
    let read = |who: Personality, name: &str| {
        let line = [OsString::from("-i"), name.into()];
        parse(who, line.into_iter().chain(words.iter().cloned()))
    };
    // Who knows these words: what one of them has need not exist for the others.
    let mut who: Vec<Personality> = Vec::new();
    let mut complaint = None;
    for candidate in [JOOL, JOOL_SIIT, JOOL_MAPT] {
        match read(candidate, DEFAULT_INSTANCE) {
            Ok(Invocation::Print(text) | Invocation::Bare { help: text, .. }) => {
                return Ok(out.write_all(text.as_bytes())?);
            }
            Ok(Invocation::Call(call)) if !about_one(&call.request.command) => {
                let message = "this command is not about one instance that is there".to_owned();
                return Err(usage("all", message));
            }
            Ok(Invocation::Proxy(_)) => {
                let message = "this command serves one instance until it is ended".to_owned();
                return Err(usage("all", message));
            }
            Ok(Invocation::Call(_)) => who.push(candidate),
            Err(error @ GrammarError::Word(_)) => complaint = complaint.or(Some(error)),
            Err(error) => return Err(error.into()),
        }
    }
    if let (true, Some(error)) = (who.is_empty(), complaint) {
        return Err(error.into());
    }
    let mut client = Client::connect()?;
    let mut result = Ok(());
    for who in who {
        for name in names(&mut client, who.flavour)? {
            let Invocation::Call(call) = read(who, &name)? else {
                continue;
            };
            // A document says whose it is.
            if !matches!(call.output, Output::Json(_) | Output::Status { json: true }) {
                writeln!(out, "{} '{name}':", who.flavour.name())?;
            }
            if let Err(error) = carry_out(&call, call.output, None, out) {
                if let RunError::Output(_) = error {
                    return Err(error);
                }
                say(
                    "Error",
                    &format!("{} '{name}': {error}", who.flavour.name()),
                );
                result = result.and_then(|()| Err(RunError::Said(error.code())));
            }
        }
    }
    result
}

/// Whether a command is about an instance that exists.
fn about_one(command: &Command) -> bool {
    !matches!(
        command,
        Command::InstanceDisplay
            | Command::InstanceAdd { .. }
            | Command::Create { .. }
            | Command::InstanceFlush
    )
}
