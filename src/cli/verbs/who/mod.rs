// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo who`: who had an IPv4 transport address, and when.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command as Clap, value_parser};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::{Value as Json, json};

use super::{Args, request, take};
use crate::base::{Protocol, Transport4};
use crate::cli::client::{Client, ClientError};
use crate::cli::run::foreign;
use crate::cli::say;
use crate::model::control::{Command, Holders, Reply};
use crate::model::{DEFAULT_INSTANCE, Flavour};
use crate::store::{self, history};

mod time;

pub(super) fn command() -> Clap {
    let flag = |name, help| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(help)
    };
    let word = |name, value| Arg::new(name).value_name(value).required(true);
    Clap::new("tylo who")
        .about("Says which IPv6 client had an IPv4 address and port, and when")
        .after_help(
            "TIME is 'now', an age such as -90s, -15m, -1h or -2d, a time of the local time zone \
             (2026-11-21 14:30:00), or one that says its zone (2026-11-21T14:30:00Z, \
             2026-11-21T15:30:00+01:00). The answer is in UTC.\n\n\
             What was before is known when 'jool global update history-retention' says so; \
             mappings that are there are always known.\n\n\
             Exits with 0 when somebody had it, with 1 when nobody is known to, and with another \
             status when that could not be found out.",
        )
        .arg(
            word("address", "ADDRESS")
                .value_parser(value_parser!(Ipv4Addr))
                .help("The IPv4 address, one of pool4 or of a static mapping"),
        )
        .arg(
            word("port", "PORT")
                .value_parser(value_parser!(u16))
                .help("The port; the identifier for ICMP"),
        )
        .arg(
            word("protocol", "PROTOCOL")
                .value_parser(Protocol::ALL.map(|p| WORDS[p.index()]))
                .ignore_case(true)
                .help("Of which protocol"),
        )
        .arg(
            Arg::new("at")
                .long("at")
                .value_name("TIME")
                .default_value("now")
                .allow_hyphen_values(true)
                .help("When"),
        )
        .arg(flag("json", "Print one JSON object").conflicts_with("csv"))
        .arg(flag("csv", "Print a table of comma-separated values"))
        .arg(
            Arg::new("state-dir")
                .long("state-dir")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("Read the database there and do not ask the daemon, which may be running"),
        )
}

/// The command `tylo who`. `args` begins with its name.
pub(super) fn who(args: Args<'_>) -> ExitCode {
    let found = match take(command(), args) {
        Ok(found) => found,
        Err(code) => return code,
    };
    match answer(&found, &mut std::io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOBODY),
        Err(error) => {
            say("Error", &error);
            ExitCode::from(error.code())
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum WhoError {
    #[error(transparent)]
    Time(#[from] time::TimeError),
    #[error("{0}; or give --state-dir DIR to read the database there")]
    NoDaemon(ClientError),
    #[error(transparent)]
    Client(ClientError),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<ClientError> for WhoError {
    fn from(error: ClientError) -> Self {
        if matches!(error, ClientError::NoDaemon) {
            Self::NoDaemon(error)
        } else {
            Self::Client(error)
        }
    }
}

impl WhoError {
    fn code(&self) -> u8 {
        match self {
            Self::Time(_) => super::EXIT_USAGE,
            // EPERM is what says that nobody had it.
            Self::NoDaemon(error) | Self::Client(error) => match error.code() {
                NOBODY => EXIT_NO_PERMISSION,
                code => code,
            },
            Self::Store(_) => EXIT_IO,
        }
    }
}

/// Asks and prints; true when somebody had it.
fn answer(found: &ArgMatches, out: &mut dyn Write) -> Result<bool, WhoError> {
    let at = found.get_one::<String>("at").map_or("now", String::as_str);
    let at = time::parse(at, &Zoned::now())?;
    let word = found
        .get_one::<String>("protocol")
        .map_or("", String::as_str);
    let protocol = Protocol::ALL
        .into_iter()
        .find(|p| WORDS[p.index()].eq_ignore_ascii_case(word))
        .unwrap_or(Protocol::Tcp);
    let v4 = Transport4::new(
        found
            .get_one("address")
            .copied()
            .unwrap_or(Ipv4Addr::UNSPECIFIED),
        found.get_one("port").copied().unwrap_or(0),
    );
    let millis = at.map(|at| u64::try_from(at.as_millisecond()).unwrap_or(0));
    let all = match found.get_one::<PathBuf>("state-dir") {
        Some(dir) => history::holders(dir, protocol, v4, millis)?,
        None => ask(protocol, v4, millis)?,
    };
    let asked = Asked { protocol, v4, at };
    // The exit status tells, even if nobody reads on.
    let _ = if found.get_flag("json") {
        writeln!(out, "{}", asked.json(&all))
    } else if found.get_flag("csv") {
        asked.csv(&all, out)
    } else {
        asked.prose(&all, out)
    };
    Ok(!all.holders.is_empty())
}

fn ask(protocol: Protocol, v4: Transport4, at: Option<u64>) -> Result<Holders, ClientError> {
    let command = Command::Who { protocol, v4, at };
    let mut found = None;
    Client::connect()?.call(
        &request(Flavour::Nat64, DEFAULT_INSTANCE, command),
        |reply| {
            let Reply::Holders(holders) = reply else {
                return Err(foreign());
            };
            found = Some(holders);
            Ok(())
        },
    )?;
    found.ok_or_else(foreign)
}

/// The question.
struct Asked {
    protocol: Protocol,
    v4: Transport4,
    /// `None` is now.
    at: Option<Timestamp>,
}

impl Asked {
    fn prose(&self, all: &Holders, out: &mut dyn Write) -> std::io::Result<()> {
        let Self { protocol, v4, .. } = self;
        for holder in &all.holders {
            let began = match holder.began {
                Some(at) if holder.began_or_before => format!("from {} or before", utc(at)),
                Some(at) => format!("from {}", utc(at)),
                None => "from a time that was not recorded".to_owned(),
            };
            let ended = match holder.ended {
                Some(at) if holder.ended_or_before => format!("until {} or before", utc(at)),
                Some(at) => format!("until {}", utc(at)),
                None => "until now".to_owned(),
            };
            let fixed = if holder.is_static {
                " as a static mapping"
            } else {
                ""
            };
            let instance = match &holder.instance {
                Some(name) => format!("instance '{name}'"),
                None => "an instance that is gone".to_owned(),
            };
            writeln!(
                out,
                "{} had {v4} ({}){fixed} {began} {ended}, {instance}",
                holder.v6,
                protocol.name()
            )?;
        }
        if !all.holders.is_empty() {
            return Ok(());
        }
        let when = self
            .at
            .map_or_else(|| "now".to_owned(), |at| format!("at {at}"));
        let known = match (all.since, self.at) {
            (Some(since), _) => format!("mappings are recorded since {}", utc(since)),
            (None, Some(_)) => "mappings that are gone are not recorded; \
                                see 'jool global update history-retention'"
                .to_owned(),
            (None, None) => return writeln!(out, "nobody has {v4} ({})", protocol.name()),
        };
        writeln!(
            out,
            "nobody is known to have {v4} ({}) {when}; {known}",
            protocol.name()
        )
    }

    fn csv(&self, all: &Holders, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(
            out,
            "Protocol,IPv4 Address,IPv4 L4-ID,IPv6 Address,IPv6 L4-ID,Began,Began or before,Ended,\
             Ended or before,Static,Instance"
        )?;
        let (protocol, v4) = (self.protocol.name(), self.v4);
        for h in &all.holders {
            let time = |at: Option<u64>| at.map(utc).unwrap_or_default();
            writeln!(
                out,
                "{protocol},{},{},{},{},{},{},{},{},{},{}",
                v4.addr,
                v4.port,
                h.v6.addr,
                h.v6.port,
                time(h.began),
                u8::from(h.began_or_before),
                time(h.ended),
                u8::from(h.ended_or_before),
                u8::from(h.is_static),
                // Names have no line breaks, but may have the rest.
                quoted(h.instance.as_deref().unwrap_or_default()),
            )?;
        }
        Ok(())
    }

    fn json(&self, all: &Holders) -> Json {
        let rows: Vec<Json> = all
            .holders
            .iter()
            .map(|h| {
                json!({
                    "ipv6": { "address": h.v6.addr.to_string(), "port": h.v6.port },
                    "began": h.began.map(utc),
                    "began_or_before": h.began_or_before,
                    "ended": h.ended.map(utc),
                    "ended_or_before": h.ended_or_before,
                    "static": h.is_static,
                    "instance": h.instance,
                })
            })
            .collect();
        json!({
            "version": 1,
            "protocol": WORDS[self.protocol.index()],
            "ipv4": { "address": self.v4.addr.to_string(), "port": self.v4.port },
            "at": self.at.map(|at| at.to_string()),
            "recorded_since": all.since.map(utc),
            "rows": rows,
        })
    }
}

/// Milliseconds since 1970 as people write them.
fn utc(millis: u64) -> String {
    let at = i64::try_from(millis).ok();
    let at = at.and_then(|at| Timestamp::from_millisecond(at).ok());
    at.map_or_else(
        || millis.to_string(),
        |at| {
            at.to_zoned(TimeZone::UTC)
                .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
                .to_string()
        },
    )
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// In the order of [`Protocol::index`].
const WORDS: [&str; 3] = ["tcp", "udp", "icmp"];

const NOBODY: u8 = 1;
/// EX_NOPERM.
const EXIT_NO_PERMISSION: u8 = 77;
/// EX_IOERR.
const EXIT_IO: u8 = 74;
