// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo db`: the database without the daemon.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, Command as Clap, value_parser};

use super::say;
use super::verbs::take;
use crate::store::inspect::{self, ExportError};

/// What `tylo db` takes.
pub(super) fn command() -> Clap {
    let verb = |name, about| Clap::new(name).about(about);
    Clap::new("tylo db")
        .bin_name("tylo db")
        .about("Looks after the database of a gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .arg(
            Arg::new("state-dir")
                .long("state-dir")
                .value_name("DIR")
                .default_value("/var/lib/tylo")
                .value_parser(value_parser!(PathBuf))
                .global(true)
                .help("Where the database is"),
        )
        .subcommand(verb(
            "check",
            "Says whether it is sound; tylod may be running",
        ))
        .subcommand(verb(
            "export",
            "Prints every row as a line of JSON; tylod may be running",
        ))
        .subcommand(verb(
            "vacuum",
            "Gives back the space that it does not use; tylod must be stopped",
        ))
}

/// The command `tylo db`. Exits with 0 when the database is sound, or the command was carried out;
/// with 1 otherwise.
pub(super) fn db(args: impl Iterator<Item = OsString>) -> ExitCode {
    let matches = match take(command(), args) {
        Ok(matches) => matches,
        Err(code) => return code,
    };
    let dir: PathBuf = matches.get_one("state-dir").cloned().unwrap_or_default();
    let mut out = BufWriter::new(io::stdout().lock());
    let result = match matches.subcommand_name() {
        Some("check") => inspect::check(&dir)
            .map_err(ExportError::from)
            .and_then(|found| report(&found, &mut out)),
        Some("export") => inspect::export(&dir, &mut out).map(|()| true),
        _ => inspect::vacuum(&dir)
            .map_err(ExportError::from)
            .and_then(|(before, after)| {
                writeln!(out, "{before} bytes before, {after} bytes now")?;
                Ok(true)
            }),
    };
    let result = result.and_then(|fine| {
        out.flush()?;
        Ok(fine)
    });
    // Whatever a failed write left behind would fail again when it is dropped.
    let _ = out.into_parts();
    match result {
        Ok(fine) => ExitCode::from(u8::from(!fine)),
        // The reader has seen enough.
        Err(ExportError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            say("Error", &error);
            ExitCode::FAILURE
        }
    }
}

/// Prints what a check found; true when that is nothing.
fn report(found: &[String], out: &mut impl Write) -> Result<bool, ExportError> {
    if found.is_empty() {
        writeln!(out, "OK")?;
    }
    for line in found {
        writeln!(out, "{line}")?;
    }
    Ok(found.is_empty())
}
