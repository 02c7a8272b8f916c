// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo doctor`: looks for what keeps a gateway from working, and says what mends it.
//!
//! It changes nothing. What the daemon knows is asked of it; the rest is read from `/proc` and from
//! `ip`, `nft` and `ethtool`, whose answers in JSON are made for that. A check that cannot be made
//! says so instead of being left out.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command as Clap, value_parser};
use serde_json::json;

use self::system::System;
pub(super) use self::system::TUN;
use super::{Args, take};

mod daemon;
mod host;
mod network;
mod rules;
mod system;

pub(super) fn command() -> Clap {
    Clap::new("tylo doctor")
        .about("Looks for what keeps the gateway from working, and says what mends it")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(
            "Looks at the network namespace it runs in, and changes nothing. Each line begins with \
             'ok', 'WRONG' (packets are lost, or will be), 'doubt' (works, but not as well as it \
             could, or depends on what cannot be seen from here) or '?' (could not be looked at), \
             and the name of the check; the line below it is a command that mends it, or shows more.\n\n\
             Exits with 0 when nothing is wrong, with 1 otherwise.",
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print an array of objects with check, verdict, what and mend"),
        )
        .arg(
            Arg::new("quiet")
                .long("quiet")
                .short('q')
                .action(ArgAction::SetTrue)
                .help("Leave out what is fine"),
        )
        .arg(
            Arg::new("state-dir")
                .long("state-dir")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .default_value("/var/lib/tylo")
                .help("Where tylod keeps its database"),
        )
}

/// What a check comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// It could not be looked at.
    Unknown,
    /// It works, but not as well as it could, or depends on what cannot be seen from here.
    Doubt,
    /// Packets are lost, or will be.
    Wrong,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Unknown => "?",
            Self::Doubt => "doubt",
            Self::Wrong => "WRONG",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Unknown => "unknown",
            Self::Doubt => "doubt",
            Self::Wrong => "wrong",
        }
    }
}

/// What is the case, and a command for a shell that mends it or shows more; what it does not say is
/// a comment behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    verdict: Verdict,
    what: String,
    /// Empty where there is nothing to mend.
    mend: String,
}

impl Finding {
    fn fine(what: impl Into<String>) -> Self {
        Self::new(Verdict::Fine, what, "")
    }

    fn unknown(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Verdict::Unknown, what, mend)
    }

    fn doubt(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Verdict::Doubt, what, mend)
    }

    fn wrong(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Verdict::Wrong, what, mend)
    }

    fn new(verdict: Verdict, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            verdict,
            what: what.into(),
            mend: mend.into(),
        }
    }
}

/// A check is a name and what it finds; finding nothing means that it does not apply.
type Check = (&'static str, fn(&System) -> Vec<Finding>);

const CHECKS: &[Check] = &[
    ("privileges", host::privileges),
    ("daemon", daemon::daemon),
    ("storage", daemon::storage),
    ("kernel-queues", host::kernel_queues),
    ("tun", host::tun),
    ("rules", rules::present),
    ("rules-first", rules::first),
    ("forwarding", host::forwarding),
    ("reverse-path", network::reverse_path),
    ("pool6-route", network::pool6_route),
    ("ipv4-route", network::ipv4_route),
    ("pool4-address", network::pool4_address),
    ("pool4-ports", network::pool4_ports),
    ("mtu", network::mtu),
    ("offloads", network::offloads),
    ("queue-drops", daemon::queue_drops),
    ("cluster", daemon::cluster),
    ("clock", host::clock),
    ("other-translators", host::other_translators),
];

/// The command `tylo doctor`. `args` begins with its name.
pub(super) fn doctor(args: Args<'_>) -> ExitCode {
    let found = match take(command(), args) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let state_dir = found
        .get_one::<PathBuf>("state-dir")
        .cloned()
        .unwrap_or_default();
    let system = System::look(state_dir);
    let findings: Vec<(&str, Finding)> = CHECKS
        .iter()
        .flat_map(|(name, check)| check(&system).into_iter().map(|finding| (*name, finding)))
        .collect();
    // The exit status tells, even if nobody reads the lines.
    let _ = print(&findings, &found, &mut io::stdout().lock());
    let wrong = findings
        .iter()
        .any(|(_, finding)| finding.verdict == Verdict::Wrong);
    ExitCode::from(u8::from(wrong))
}

fn print(
    findings: &[(&str, Finding)],
    options: &ArgMatches,
    out: &mut dyn Write,
) -> io::Result<()> {
    let quiet = options.get_flag("quiet");
    let shown = findings
        .iter()
        .filter(|(_, finding)| !quiet || finding.verdict != Verdict::Fine);
    if options.get_flag("json") {
        let rows: Vec<_> = shown
            .map(|(check, finding)| {
                let (verdict, what) = (finding.verdict.name(), &finding.what);
                json!({"check": check, "verdict": verdict, "what": what, "mend": finding.mend})
            })
            .collect();
        return writeln!(out, "{}", serde_json::Value::from(rows));
    }
    for (check, finding) in shown {
        writeln!(
            out,
            "{:<5}  {check}: {}",
            finding.verdict.word(),
            finding.what
        )?;
        if !finding.mend.is_empty() {
            writeln!(out, "       -> {}", finding.mend)?;
        }
    }
    Ok(())
}
