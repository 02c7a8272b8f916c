// SPDX-License-Identifier: GPL-2.0-or-later
//! What `tylo` can do beyond Jool's language: export, compare, ask every instance.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command as Clap};

use super::client::{Client, ClientError};
use super::grammar::GrammarError;
use super::run::{RunError, foreign};
use super::values;
use super::{db, health};
use crate::model::control::{Command, Config, Reply, Request, VERSION};
use crate::model::{DEFAULT_INSTANCE, Flavour};

mod all;
mod completion;
mod diff;
mod doctor;
mod explain;
mod export;
mod man;
mod mapt;
mod sync;
mod top;
mod upgrade;
mod who;

/// The words behind the name of a verb, which is the first of them.
type Args<'a> = &'a mut dyn Iterator<Item = OsString>;

/// One of the words behind `tylo`.
struct Verb {
    name: &'static str,
    /// What it takes.
    example: &'static str,
    about: &'static str,
    command: fn() -> Clap,
    /// Gets what tylod takes, too.
    run: fn(Args<'_>, fn() -> Clap) -> ExitCode,
}

macro_rules! verbs {
    ($($room:ident $example:literal $about:literal $run:expr;)*) => {
        &[$(Verb {
            name: stringify!($room),
            example: $example,
            about: $about,
            command: $room::command,
            run: $run,
        }),*]
    };
}

static VERBS: &[Verb] = verbs! {
    health "[--json] [--ready]" "Says whether all is well, for monitoring" |args, _| health::health(args);
    doctor "[--json] [--quiet]" "Says what is wrong, and what mends it" |args, _| doctor::doctor(args);
    top "[-i NAME] [--once]" "Shows rates, sessions, clients as they change" |args, _| top::top(args);
    explain "PROTOCOL SOURCE DEST" "Says what becomes of a packet, and why" |args, _| explain::explain(args);
    export "" "Prints an instance as a file for 'file handle'" |args, _| export::export(args);
    diff "FILE" "Says what 'file handle' would change" |args, _| diff::diff(args);
    all "MODE OPERATION" "Asks every instance" |args, _| all::all(args);
    completion "bash" "Prints what makes a shell complete words" |args, _| completion::completion(args);
    db "check|export|vacuum" "Looks after the database" |args, _| db::db(args);
    upgrade "" "Replaces the daemon by the installed version" |args, _| upgrade::upgrade(args);
    who "ADDRESS PORT PROTO" "Says who had an IPv4 address and port" |args, _| who::who(args);
    mapt "calc|rules|napt|..." "Explains mapping rules, helps customer edges" |args, _| mapt::mapt(args);
    sync "set|off|status|keygen" "Shares sessions with other gateways" |args, _| sync::sync(args);
    man "DIR" "Writes manual pages" man::man;
};

/// Carries out what `tylo` does under a word of its own; `None` if there is no such word. `args`
/// begins with the word, `daemon` is what tylod takes.
pub fn verb(
    word: &str,
    args: &mut dyn Iterator<Item = OsString>,
    daemon: fn() -> Clap,
) -> Option<ExitCode> {
    let verb = VERBS.iter().find(|verb| verb.name == word)?;
    Some((verb.run)(args, daemon))
}

/// The words that [`verb`] knows, each with what it takes, and what for.
pub fn verbs() -> impl Iterator<Item = (String, &'static str)> {
    VERBS
        .iter()
        .map(|verb| (format!("{} {}", verb.name, verb.example), verb.about))
}

/// Lets clap read the words of a verb, the first of which is its name; the inner error is the exit
/// status where there is nothing left to do.
pub(super) fn take(
    command: Clap,
    args: impl Iterator<Item = OsString>,
) -> Result<ArgMatches, ExitCode> {
    let name = command.get_name().to_owned();
    let read = command.bin_name(name).try_get_matches_from(args);
    read.map_err(|error| {
        // Nothing sensible can be done when even this cannot be printed.
        let _ = error.print();
        ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 })
    })
}

fn flavour_arg() -> Arg {
    Arg::new("flavour")
        .long("flavour")
        .value_name("FLAVOUR")
        .value_parser(Flavour::ALL.map(Flavour::name))
        .help("Which of two instances of one name")
}

fn instance_arg() -> Arg {
    Arg::new("instance")
        .short('i')
        .long("instance")
        .value_name("NAME")
        .help("The instance (default 'default')")
}

fn flavour(found: &ArgMatches) -> Option<Flavour> {
    let word = found.get_one::<String>("flavour")?;
    Flavour::ALL.into_iter().find(|f| f.name() == *word)
}

fn instance(found: &ArgMatches) -> Result<Option<String>, GrammarError> {
    let name = found.get_one::<String>("instance");
    let name = name.map(|name| values::instance_name(name)).transpose();
    name.map_err(|error| GrammarError::Value {
        what: "instance".to_owned(),
        error,
    })
}

fn request(flavour: Flavour, instance: &str, command: Command) -> Request {
    Request {
        version: VERSION,
        flavour,
        instance: instance.to_owned(),
        command,
    }
}

/// The names of all instances of a flavour.
fn names(client: &mut Client, flavour: Flavour) -> Result<Vec<String>, ClientError> {
    let mut names = Vec::new();
    let request = request(flavour, DEFAULT_INSTANCE, Command::InstanceDisplay);
    client.call(&request, |reply| {
        let Reply::Instances(rows) = reply else {
            return Err(foreign());
        };
        names.extend(rows.into_iter().map(|row| row.name));
        Ok(())
    })?;
    Ok(names)
}

/// The flavours that have an instance of this name.
fn flavours(client: &mut Client, name: &str) -> Result<Vec<Flavour>, ClientError> {
    let mut found = Vec::new();
    for flavour in Flavour::ALL {
        if names(client, flavour)?.iter().any(|n| n == name) {
            found.push(flavour);
        }
    }
    Ok(found)
}

/// What an instance is at this moment.
fn fetch(client: &mut Client, flavour: Flavour, name: &str) -> Result<Config, ClientError> {
    let mut whole: Option<Config> = None;
    client.call(&request(flavour, name, Command::Export), |reply| {
        let Reply::Config(page) = reply else {
            return Err(foreign());
        };
        match &mut whole {
            Some(whole) => whole.append(*page),
            None => whole = Some(*page),
        }
        Ok(())
    })?;
    whole.ok_or_else(foreign)
}

fn usage(verb: &str, message: String) -> RunError {
    let path = format!("tylo {verb}");
    GrammarError::Usage { message, path }.into()
}

/// EX_USAGE.
const EXIT_USAGE: u8 = 64;
