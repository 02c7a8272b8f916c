// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo export`: an instance as a file that `file handle` takes.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Command as Clap;
use serde_json::{Value as Json, json};

use super::{
    Args, fetch, flavour, flavour_arg, flavours, instance, instance_arg, request, take, usage,
};
use crate::cli::client::{Client, ClientError};
use crate::cli::json::setting;
use crate::cli::run::finish;
use crate::cli::say;
use crate::model::control::{Command, Config};
use crate::model::{DEFAULT_INSTANCE, Flavour, MaxIterations, Pool4Entry};

pub(super) fn command() -> Clap {
    Clap::new("tylo export")
        .about("Prints the configuration of an instance as a file that 'file handle' takes")
        .arg(instance_arg())
        .arg(flavour_arg())
}

/// The command `tylo export`. `args` begins with its name.
pub(super) fn export(args: Args<'_>) -> ExitCode {
    let found = match take(command(), args) {
        Ok(found) => found,
        Err(code) => return code,
    };
    finish(|out| {
        let name = instance(&found)?.unwrap_or_else(|| DEFAULT_INSTANCE.to_owned());
        let mut client = Client::connect()?;
        let flavour = match (flavour(&found), &*flavours(&mut client, &name)?) {
            (Some(flavour), _) => flavour,
            (None, [flavour]) => *flavour,
            (None, []) => Flavour::Nat64,
            (None, _) => {
                let message = format!("there are several instances '{name}'; add --flavour");
                return Err(usage("export", message));
            }
        };
        let config = fetch(&mut client, flavour, &name)?;
        write(out, flavour, &name, &config)?;
        let mut check = |force| {
            let config = Box::new(config.clone());
            let check = request(flavour, &name, Command::Check { config, force });
            match client.call(&check, |_| Ok::<_, ClientError>(())) {
                Err(ClientError::Refused(failure)) => Some(failure),
                // What is printed is right, whatever became of the daemon.
                Ok(()) | Err(_) => None,
            }
        };
        match (check(false), check(true)) {
            (None, _) => {}
            (Some(failure), None) => {
                let message = format!("'file handle' takes this with --force only: {failure}");
                say("Warning", &message);
            }
            (Some(_), Some(failure)) => {
                let message = format!("'file handle' would not take this: {failure}");
                say("Warning", &message);
            }
        }
        Ok(())
    })
}

fn write(out: &mut dyn Write, flavour: Flavour, name: &str, config: &Config) -> io::Result<()> {
    let framework = config.framework.name();
    writeln!(out, "{{\n  \"instance\": {},", json!(name))?;
    write!(out, "  \"framework\": \"{framework}\"")?;
    let settings = config.settings.iter();
    let settings = settings.map(|(key, value)| format!("\"{key}\": {}", setting(value)));
    list(out, "global", ['{', '}'], settings)?;
    match flavour {
        Flavour::Nat64 => {
            list(out, "pool4", ['[', ']'], config.pool4.iter().map(pool4))?;
            let bib = config.bib.iter().map(|entry| {
                object(&[
                    ("protocol", json!(entry.protocol.name())),
                    ("ipv6 address", json!(entry.v6.to_string())),
                    ("ipv4 address", json!(entry.v4.to_string())),
                ])
            });
            list(out, "bib", ['[', ']'], bib)?;
        }
        Flavour::Mapt => {
            let rules = config.fmrt.iter().map(|rule| {
                object(&[
                    ("ipv6 prefix", json!(rule.v6().to_string())),
                    ("ipv4 prefix", json!(rule.v4().to_string())),
                    ("ea-bits length", json!(rule.ea_bits())),
                    ("a", json!(rule.psid_offset())),
                ])
            });
            list(out, "fmrt", ['[', ']'], rules)?;
        }
        Flavour::Siit => {
            let eamt = config.eamt.iter().map(|row| {
                object(&[
                    ("ipv6 prefix", json!(row.v6.to_string())),
                    ("ipv4 prefix", json!(row.v4.to_string())),
                ])
            });
            list(out, "eamt", ['[', ']'], eamt)?;
            let denied = config.denylist4.iter().map(|p| json!(p).to_string());
            list(out, "denylist4", ['[', ']'], denied)?;
        }
    }
    writeln!(out, "\n}}")
}

fn pool4(entry: &Pool4Entry) -> String {
    let mut pairs = vec![
        ("protocol", json!(entry.protocol.name())),
        ("prefix", json!(entry.prefix.to_string())),
        (
            "port range",
            json!(format!("{}-{}", entry.ports.min, entry.ports.max)),
        ),
        ("mark", json!(entry.mark)),
    ];
    match entry.max_iterations {
        None | Some(MaxIterations::Auto) => {}
        Some(MaxIterations::Infinity) => pairs.push(("max-iterations", json!("infinity"))),
        Some(MaxIterations::Fixed(n)) => pairs.push(("max-iterations", json!(n))),
    }
    object(&pairs)
}

/// An object on one line, its keys in this order.
fn object(pairs: &[(&str, Json)]) -> String {
    let pairs = pairs
        .iter()
        .map(|(key, value)| format!("\"{key}\": {value}"));
    let pairs: Vec<String> = pairs.collect();
    format!("{{ {} }}", pairs.join(", "))
}

/// A member of the root, one line for each item.
fn list(
    out: &mut dyn Write,
    key: &str,
    [open, close]: [char; 2],
    items: impl Iterator<Item = String>,
) -> io::Result<()> {
    write!(out, ",\n  \"{key}\": {open}")?;
    let mut any = false;
    for item in items {
        let separator = if any { "," } else { "" };
        write!(out, "{separator}\n    {item}")?;
        any = true;
    }
    let end = if any { "\n  " } else { "" };
    write!(out, "{end}{close}")
}
