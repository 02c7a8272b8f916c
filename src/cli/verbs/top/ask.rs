// SPDX-License-Identifier: GPL-2.0-or-later
//! Asks the daemon. Each time over a connection of its own: the daemon may have been started anew,
//! and hangs up soon on users without rights.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::Target;
use super::numbers::Numbers;
use super::state::{Look, Question, Sample, Wanted};
use crate::cli::client::{Client, ClientError};
use crate::cli::run::foreign;
use crate::cli::verbs::request;
use crate::model::control::{Command, Health, Reply, SessionSummary};
use crate::model::{DEFAULT_INSTANCE, Flavour};

/// All that counts but for the sessions. What this user may not have is left out.
pub(super) fn sample(wanted: &Wanted, start: Instant) -> Result<Sample, ClientError> {
    let mut client = Client::connect()?;
    let health = health(&mut client)?;
    let target = wanted.pick(&health).map(Target::of);
    let mut sample = Sample {
        at: start.elapsed(),
        wall: wall(),
        health,
        target,
        numbers: Numbers::default(),
        denied: None,
    };
    let Some(target) = &sample.target else {
        return Ok(sample);
    };
    let ask = |command| request(target.flavour, &target.name, command);
    let numbers = &mut sample.numbers;
    let metrics = client.call(&ask(Command::Metrics), |reply| {
        let Reply::Metrics(lines) = reply else {
            return Err(foreign());
        };
        numbers.read(&lines, target);
        Ok(())
    });
    match metrics {
        Ok(()) => {}
        Err(ClientError::Refused(failure)) => {
            sample.denied = Some(failure.message);
            client.call(&ask(Command::StatsDisplay), |reply| {
                let Reply::Stats(rows) = reply else {
                    return Err(foreign());
                };
                numbers.take(&rows, target);
                Ok(())
            })?;
        }
        Err(error) => return Err(error),
    }
    sample.at = start.elapsed();
    Ok(sample)
}

fn health(client: &mut Client) -> Result<Health, ClientError> {
    let mut health = None;
    let request = request(Flavour::Nat64, DEFAULT_INSTANCE, Command::Health);
    client.call(&request, |reply| {
        let Reply::Health(found) = reply else {
            return Err(foreign());
        };
        health = Some(*found);
        Ok(())
    })?;
    health.ok_or_else(foreign)
}

/// A look at the sessions.
pub(super) fn look(question: Question, start: Instant) -> Look {
    let began = start.elapsed();
    let found = summary(&question).map_err(|error| error.to_string());
    let at = start.elapsed();
    Look {
        at,
        took: at.saturating_sub(began),
        question,
        found,
    }
}

fn summary(question: &Question) -> Result<SessionSummary, ClientError> {
    let Target { flavour, name } = &question.target;
    let command = Command::SessionSummary {
        prefix: question.prefix,
        protocol: question.protocol,
    };
    let mut summary = None;
    Client::connect()?.call(&request(*flavour, name, command), |reply| {
        let Reply::Summary(found) = reply else {
            return Err(foreign());
        };
        summary = Some(found);
        Ok(())
    })?;
    summary.ok_or_else(foreign)
}

fn wall() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
