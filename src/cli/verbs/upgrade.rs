// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo upgrade`: the daemon is replaced by the program that is installed now.

use std::io::Write as _;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Command as Clap;

use super::{Args, request, take};
use crate::cli::client::{Client, ClientError};
use crate::cli::{health, say};
use crate::model::control::{Command, Failure, Health};
use crate::model::{DEFAULT_INSTANCE, Flavour};

pub(super) fn command() -> Clap {
    Clap::new("tylo upgrade")
        .about("Replaces the running daemon by the installed version, without losing a packet")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(
            "The daemon first makes sure that the program at the place it was started from runs \
             with its options. Then it writes what is not on disk yet and becomes that program: \
             process, queues, rules and device stay, and packets wait in the kernel meanwhile. \
             Prints how long they waited.",
        )
}

pub(super) fn upgrade(args: Args<'_>) -> ExitCode {
    if let Err(code) = take(command(), args) {
        return code;
    }
    match replace() {
        Ok(health) => report(&health),
        Err(error) => {
            say("Error", &error);
            ExitCode::from(error.code())
        }
    }
}

fn replace() -> Result<Health, ClientError> {
    let before = health::ask()?;
    let request = request(Flavour::Nat64, DEFAULT_INSTANCE, Command::Upgrade);
    Client::connect()?.call::<ClientError>(&request, |_| Ok(()))?;
    let begin = Instant::now();
    loop {
        // Whoever asks one that is about to go is cut off, or turned away for a moment.
        match health::ask() {
            Ok(health) if health.pid != before.pid => return Err(died(&health)),
            Ok(health) if health.takeover.count > before.takeover.count => return Ok(health),
            Err(error) if begin.elapsed() >= PATIENCE => return Err(error),
            Ok(_) if begin.elapsed() >= PATIENCE => return Err(ClientError::Timeout),
            Ok(_) | Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// What replaced the daemon did not live, and another one was started in its place.
fn died(now: &Health) -> ClientError {
    let message = format!(
        "the new program ended, and version {} was started anew; see the log of tylod",
        now.version
    );
    let code = libc::ECHILD as u8;
    ClientError::Refused(Failure { code, message })
}

fn report(health: &Health) -> ExitCode {
    let takeover = &health.takeover;
    if let Some(reason) = &takeover.failed {
        let version = &health.version;
        say(
            "Error",
            &format!(
                "{reason}; version {version} goes on, packets waited {} ms",
                takeover.waited_ms
            ),
        );
        return ExitCode::FAILURE;
    }
    // The exit status tells, even if nobody reads the line.
    let _ = writeln!(
        std::io::stdout(),
        "{} -> {}, packets waited {} ms",
        takeover.from,
        health.version,
        takeover.waited_ms
    );
    ExitCode::SUCCESS
}

/// How long a new program may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
