// SPDX-License-Identifier: GPL-2.0-or-later
//! Carries command lines out: asks the daemon and prints what it says.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use super::client::{Client, ClientError};
use super::follow;
use super::grammar::{Call, GrammarError, Invocation, Output, Personality, parse};
use super::json::Document;
use super::legacy;
use super::render::{Foreign, Renderer, Style, Table, rows};
use super::{health, proxy, say};
use crate::base::Protocol;
use crate::model::control::{Command, Reply};

/// What stops a command.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("standard output cannot be written: {0}")]
    Output(#[from] io::Error),
    #[error("the terminal cannot be used: {0}")]
    Terminal(#[source] io::Error),
    #[error("{0}")]
    NotReady(String),
    /// There is nothing more to say, only an exit status to give.
    #[error("exit status {0}")]
    Said(u8),
}

impl RunError {
    /// The exit status of the command.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Grammar(error) => error.code(),
            Self::Client(error) => error.code(),
            Self::Output(error) | Self::Terminal(error) => error
                .raw_os_error()
                .and_then(|n| u8::try_from(n).ok())
                .unwrap_or(EXIT_IO),
            Self::NotReady(_) => EXIT_NOT_READY,
            Self::Said(code) => *code,
        }
    }
}

/// What a command line comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Invocation>,
    /// How to write it today.
    pub(super) hint: Option<String>,
    /// Whether it is enough that one step finds something to remove.
    any: bool,
}

/// Reads a command line of today's or of Jool 3's language, without the program's own name.
///
/// # Errors
/// What was typed makes no sense, or a file that it names cannot be used.
pub(super) fn read(
    who: Personality,
    args: impl Iterator<Item = OsString>,
) -> Result<Plan, GrammarError> {
    let args: Vec<OsString> = args.collect();
    let Some(old) = legacy::rewrite(who, &args)? else {
        return Ok(Plan {
            steps: vec![parse(who, args.into_iter())?],
            hint: None,
            any: false,
        });
    };
    let hint = old.hint(who.program);
    let steps = old.lines.into_iter();
    let steps = steps.map(|line| parse(who, line.into_iter()));
    Ok(Plan {
        steps: steps.collect::<Result<_, _>>()?,
        hint: Some(hint),
        any: old.any,
    })
}

/// Carries a command line out, which begins with the name of the program.
pub(super) fn run(who: Personality, mut args: impl Iterator<Item = OsString>) -> ExitCode {
    args.next();
    finish(|out| {
        let plan = read(who, args)?;
        if let Some(hint) = &plan.hint {
            say("Hint", hint);
        }
        plan.carry_out(who, out)
    })
}

/// Runs `work` with a buffered standard output and turns what comes of it into an exit status.
pub(super) fn finish(work: impl FnOnce(&mut dyn Write) -> Result<(), RunError>) -> ExitCode {
    let mut out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
    let result = work(&mut out);
    // What was printed before an error belongs before its message.
    let flushed = out.flush();
    let result = result.and_then(|()| Ok(flushed?));
    // Whatever a failed write left behind would fail again when it is dropped.
    let _ = out.into_parts();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has seen enough.
        Err(RunError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(RunError::Said(code)) => ExitCode::from(code),
        Err(error) => {
            say("Error", &error);
            ExitCode::from(error.code())
        }
    }
}

impl Plan {
    fn carry_out(&self, who: Personality, out: &mut dyn Write) -> Result<(), RunError> {
        let several = self.steps.len() > 1;
        let (mut found, mut absent) = (false, None);
        for (n, step) in self.steps.iter().enumerate() {
            let result = match step {
                Invocation::Print(text) => out.write_all(text.as_bytes()).map_err(RunError::from),
                Invocation::Bare { help, instance } => bare(who, help, instance.as_deref(), out),
                Invocation::Proxy(config) => proxy::start(config, out),
                Invocation::Call(call) => {
                    if let Some(warning) = &call.warning {
                        say("Warning", warning);
                    }
                    let title = title(&call.request.command).filter(|_| several);
                    let mut output = call.output;
                    // CSV of several tables is one table in several parts.
                    if let Output::Table(_, style) = &mut output
                        && n > 0
                        && style.csv
                    {
                        style.headers = false;
                    }
                    carry_out(call, output, title, out)
                }
            };
            match result {
                Ok(()) => found = true,
                Err(error) if self.any && is_absent(&error) => absent = Some(error),
                Err(error) if n > 0 => {
                    say("Warning", &Partly(n, self.steps.len()));
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        absent.filter(|_| !found).map_or(Ok(()), Err)
    }
}

struct Partly(usize, usize);

impl std::fmt::Display for Partly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(done, all) = self;
        write!(f, "of {all} commands the first {done} had been carried out")
    }
}

/// Whether there was nothing to remove.
fn is_absent(error: &RunError) -> bool {
    matches!(error, RunError::Client(ClientError::Refused(failure))
        if i32::from(failure.code) == libc::ESRCH)
}

/// What several tables of one kind are told apart by, where their rows do not say it.
fn title(command: &Command) -> Option<Protocol> {
    if let Command::SessionDisplay { protocol }
    | Command::Pool4Display { protocol }
    | Command::BibDisplay { protocol } = command
    {
        Some(*protocol)
    } else {
        None
    }
}

/// Carries out one request.
pub(super) fn carry_out(
    call: &Call,
    output: Output,
    title: Option<Protocol>,
    out: &mut dyn Write,
) -> Result<(), RunError> {
    match output {
        Output::Nothing => Client::connect()?.call(&call.request, |_| Err(foreign().into())),
        Output::Check => match Client::connect() {
            Err(ClientError::NoDaemon) => {
                say(
                    "Warning",
                    &"no tylod runs here, so only the file itself was checked",
                );
                Ok(())
            }
            client => client?.call(&call.request, |_| Err(foreign().into())),
        },
        Output::Status { json } => status(call, json, out),
        Output::Follow(form) => follow::follow(call, form, out),
        Output::Table(table, style) => {
            let title = title.filter(|_| table == Table::Sessions);
            display(call, table, style, title, out)
        }
        Output::Json(table) => {
            let mut document = Document::new(out, table, &call.request);
            Client::connect()?.call(&call.request, |reply| match document.reply(&reply)? {
                Ok(()) => Ok(()),
                Err(Foreign) => Err(RunError::from(foreign())),
            })?;
            Ok(document.end()?)
        }
        Output::Count => {
            let mut count = 0;
            Client::connect()?.call(&call.request, |reply| {
                count += rows(&reply).map_err(|Foreign| foreign())?;
                Ok::<_, ClientError>(())
            })?;
            if let Some(title) = title {
                write!(out, "{title}: ")?;
            }
            Ok(writeln!(out, "{count}")?)
        }
    }
}

fn display(
    call: &Call,
    table: Table,
    style: Style,
    title: Option<Protocol>,
    out: &mut dyn Write,
) -> Result<(), RunError> {
    let mut renderer = Renderer::new(out, table, style).titled(title.map(Protocol::name));
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
fn status(call: &Call, json: bool, out: &mut dyn Write) -> Result<(), RunError> {
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
    if json {
        let known = match (&result, running) {
            (Ok(()), Some(now)) => Some(now),
            (Err(RunError::Client(ClientError::NoDaemon)), _) => Some(false),
            (Ok(()), None) => return Err(foreign().into()),
            (Err(_), _) => None,
        };
        super::json::status(out, &call.request, known)?;
        return result;
    }
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

/// Prints help. Watchdogs ask like this whether translation works, so the exit status tells.
//= jool#health
fn bare(
    who: Personality,
    help: &str,
    instance: Option<&str>,
    out: &mut dyn Write,
) -> Result<(), RunError> {
    out.write_all(help.as_bytes())?;
    let health = health::ask()?;
    let mut ours = health.instances.iter().filter(|i| i.flavour == who.flavour);
    let program = who.program;
    let complaint = match instance {
        _ if !health.ready => "rules or packet workers are gone; see the log of tylod".to_owned(),
        None if ours.next().is_none() => {
            format!("no instance runs; add one with '{program} instance add'")
        }
        Some(name) if !ours.any(|i| i.name == name) => {
            format!("no instance '{name}' runs; add it with '{program} instance add'")
        }
        None | Some(_) => return Ok(()),
    };
    Err(RunError::NotReady(complaint))
}

pub(super) fn foreign() -> ClientError {
    ClientError::Unintelligible("the answer does not belong to the question".to_owned())
}

/// Bytes of output that are collected before they are written.
const BUFFER: usize = 64 << 10;
/// EIO.
const EXIT_IO: u8 = 5;
const EXIT_NOT_READY: u8 = 1;
