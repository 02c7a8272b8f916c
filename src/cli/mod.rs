// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 6: the commands.
//!
//! A command line becomes a request (`grammar`, `keywords`, `values`, `help`), the [client] takes
//! it to the daemon, and `render` prints the answer. Commands hold no state and decide nothing
//! about translation. Exit statuses and tables are Jool's; texts are our own.
//!
//! Where Jool takes nonsense without a word (unknown options before the mode, letters behind a
//! number, surplus values, an empty name) these commands say so and fail.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use client::{Client, ClientError};
use grammar::{Call, Invocation, Output, Personality};
use render::{Foreign, Renderer, Style, Table};

use crate::model::Flavour;
use crate::model::control::Reply;

pub mod client;
mod file;
mod grammar;
mod health;
mod help;
mod keywords;
mod names;
mod options;
mod render;
mod values;

/// The command `jool`: NAT64 instances. `args` begins with the name of the program.
pub fn jool(args: impl Iterator<Item = OsString>) -> ExitCode {
    run(
        Personality {
            program: "jool",
            flavour: Flavour::Nat64,
        },
        args,
    )
}

/// The command `jool_siit`: SIIT instances. `args` begins with the name of the program.
pub fn jool_siit(args: impl Iterator<Item = OsString>) -> ExitCode {
    run(
        Personality {
            program: "jool_siit",
            flavour: Flavour::Siit,
        },
        args,
    )
}

pub use health::health;

/// What stops a command.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("standard output cannot be written: {0}")]
    Output(#[from] io::Error),
}

fn run(who: Personality, mut args: impl Iterator<Item = OsString>) -> ExitCode {
    args.next();
    let mut out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
    let result = match grammar::parse(who, args) {
        Ok(Invocation::Print(text)) => out.write_all(text.as_bytes()).map_err(RunError::from),
        Ok(Invocation::Call(call)) => {
            if let Some(warning) = &call.warning {
                say("Warning", warning);
            }
            carry_out(&call, &mut out)
        }
        Err(error) => {
            say("Error", &error);
            return ExitCode::from(error.code());
        }
    };
    // What was printed before an error belongs before its message.
    let flushed = out.flush();
    let result = result.and_then(|()| Ok(flushed?));
    // Whatever a failed write left behind would fail again when it is dropped.
    let _ = out.into_parts();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has seen enough.
        Err(RunError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            say("Error", &error);
            ExitCode::from(match error {
                RunError::Client(error) => error.code(),
                RunError::Output(error) => error
                    .raw_os_error()
                    .and_then(|n| u8::try_from(n).ok())
                    .unwrap_or(EXIT_IO),
            })
        }
    }
}

fn carry_out(call: &Call, out: &mut impl Write) -> Result<(), RunError> {
    match call.output {
        Output::Nothing => Client::connect()?.call(&call.request, |_| Err(foreign().into())),
        Output::Status => status(call, out),
        Output::Table(table, style) => display(call, table, style, out),
    }
}

fn display(call: &Call, table: Table, style: Style, out: &mut impl Write) -> Result<(), RunError> {
    let mut renderer = Renderer::new(out, table, style);
    Client::connect()?.call(&call.request, |reply| match renderer.reply(&reply)? {
        Ok(()) => Ok(()),
        Err(Foreign) => Err(RunError::from(foreign())),
    })?;
    renderer.end()?;
    if renderer.names_failed() {
        say(
            "Warning",
            &"names could not be looked up, so numbers are shown; --numeric asks for them",
        );
    }
    Ok(())
}

//= jool#instance-status
fn status(call: &Call, out: &mut impl Write) -> Result<(), RunError> {
    let mut running = None;
    let result = Client::connect().map_err(RunError::from).and_then(|mut c| {
        c.call(&call.request, |reply| {
            let Reply::Status { running: now } = reply else {
                return Err(foreign().into());
            };
            running = Some(now);
            Ok(())
        })
    });
    match (&result, running) {
        (Ok(()), Some(true)) => writeln!(out, "Running")?,
        (Ok(()), Some(false)) => {
            let name = &call.request.instance;
            writeln!(out, "Dead\n(Instance '{name}' does not exist.)")?;
        }
        (Ok(()), None) => return Err(foreign().into()),
        (Err(RunError::Client(ClientError::NoDaemon)), _) => writeln!(out, "Dead")?,
        (Err(_), _) => writeln!(out, "Status unknown")?,
    }
    result
}

fn foreign() -> ClientError {
    ClientError::Unintelligible("the answer does not belong to the question".to_owned())
}

fn say(kind: &str, text: &impl Display) {
    // There is nowhere left to complain about a closed standard error.
    let _ = writeln!(io::stderr(), "{kind}: {text}");
}

/// Bytes of output that are collected before they are written.
const BUFFER: usize = 64 << 10;
/// EIO.
const EXIT_IO: u8 = 5;

/// The parser, for fuzz targets; no other build has this.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    use std::ffi::OsString;

    use super::grammar::parse;
    use super::{Flavour, Personality};

    /// Reads the words behind the name of the program; an error is put into words, too.
    pub fn command_line(words: impl Iterator<Item = OsString>) {
        let who = Personality {
            program: "jool",
            flavour: Flavour::Nat64,
        };
        if let Err(error) = parse(who, words) {
            assert!(!error.to_string().is_empty() && error.code() != 0);
        }
    }
}
