// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo diff`: what `file handle` would change.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command as Clap, value_parser};

use super::{Args, fetch, flavour, flavour_arg, flavours, instance, instance_arg, take};
use crate::cli::client::Client;
use crate::cli::file::{self, FileError};
use crate::cli::grammar::GrammarError;
use crate::cli::json::setting;
use crate::cli::run::{RunError, finish};
use crate::cli::say;
use crate::cli::values::EXIT_INVALID;
use crate::model::control::Config;
use crate::model::settings::{Setting, Settings};
use crate::model::{Flavour, MaxIterations};
use crate::nat64::pool4::Pool4;

pub(super) fn command() -> Clap {
    Clap::new("tylo diff")
        .about("Says what 'file handle' would change, line by line: - goes, + comes")
        .after_help("Exits with 0 if that is nothing, with 1 if it is something.")
        .arg(
            Arg::new("path")
                .value_name("FILE")
                .help("A JSON file")
                .required(true)
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(instance_arg())
        .arg(flavour_arg())
        .arg(
            Arg::new("force")
                .short('f')
                .long("force")
                .action(ArgAction::SetTrue)
                .help("Take values that look like mistakes, too"),
        )
}

/// The command `tylo diff`. `args` begins with its name.
pub(super) fn diff(args: Args<'_>) -> ExitCode {
    let found = match take(command(), args) {
        Ok(found) => found,
        Err(code) => return code,
    };
    finish(|out| match compare(&found, out) {
        Ok(false) => Ok(()),
        Ok(true) => Err(RunError::Said(EXIT_DIFFERS)),
        // The status of some nonsense is that of a difference.
        Err(error) if error.code() == EXIT_DIFFERS => {
            say("Error", &error);
            Err(RunError::Said(EXIT_INVALID))
        }
        Err(error) => Err(error),
    })
}

fn compare(found: &ArgMatches, out: &mut dyn Write) -> Result<bool, RunError> {
    let Some(path) = found.get_one::<PathBuf>("path") else {
        return Ok(false);
    };
    let given = instance(found)?;
    let mut client = Client::connect()?;
    let choice = flavour(found);
    let force = found.get_flag("force");
    let (flavour, name, config) = read(path, given, choice, force, &mut client)?;
    let exists = flavours(&mut client, &name)?.contains(&flavour);
    let running = if exists {
        Some(fetch(&mut client, flavour, &name)?)
    } else {
        None
    };
    let old = running.as_ref().map(|config| lines(flavour, config));
    let (mut gone, mut new) = (old.unwrap_or_default(), lines(flavour, &config));
    match &running {
        None => new.extend(bib(&config)),
        Some(running) => {
            let known = bib(running);
            if bib(&config).iter().any(|line| !known.contains(line)) {
                say(
                    "Warning",
                    &"'bib' is for new instances only; 'file handle' will not add it",
                );
            }
        }
    }
    subtract(&mut gone, &mut new);
    if gone.is_empty() && new.is_empty() {
        return Ok(false);
    }
    print(out, flavour, &name, running.is_some(), &gone, &new)?;
    Ok(true)
}

fn print(
    out: &mut dyn Write,
    flavour: Flavour,
    name: &str,
    exists: bool,
    gone: &[String],
    new: &[String],
) -> io::Result<()> {
    let note = if exists { "" } else { " (new)" };
    writeln!(out, "{} '{name}'{note}", flavour.name())?;
    gone.iter().try_for_each(|line| writeln!(out, "- {line}"))?;
    new.iter().try_for_each(|line| writeln!(out, "+ {line}"))
}

/// Reads the file as one about an instance of the flavour that was chosen, or else that runs, or
/// else that it can be about.
fn read(
    path: &Path,
    given: Option<String>,
    choice: Option<Flavour>,
    force: bool,
    client: &mut Client,
) -> Result<(Flavour, String, Config), RunError> {
    let open = |flavour| file::configuration(path, flavour, force).map_err(GrammarError::from);
    let named = |(name, config): (Option<String>, Config)| match (name, given.clone()) {
        (Some(name), Some(given)) if name != given => Err(GrammarError::TwoNames(given, name)),
        (Some(name), _) | (None, Some(name)) => Ok((name, config)),
        (None, None) => Err(FileError::NoInstance(path.to_owned()).into()),
    };
    let with = |flavour, (name, config)| (flavour, name, config);
    if let Some(flavour) = choice {
        return Ok(with(flavour, named(open(flavour)?)?));
    }
    let fit: Vec<Flavour> = Flavour::ALL
        .into_iter()
        .filter(|flavour| open(*flavour).is_ok())
        .collect();
    if let [flavour] = *fit {
        return Ok(with(flavour, named(open(flavour)?)?));
    }
    // It may be about several, or about none: then the error depends on what it is for.
    let name = match &given {
        Some(name) => name.clone(),
        None => file::instance(path).map_err(GrammarError::from)?,
    };
    if let [flavour] = *flavours(client, &name)? {
        return Ok(with(flavour, named(open(flavour)?)?));
    }
    if fit.is_empty() {
        open(Flavour::Nat64)?;
    }
    let fit: Vec<&str> = fit.into_iter().map(Flavour::name).collect();
    let message = format!("'{name}' may be {}; add --flavour", fit.join(" or "));
    Err(super::usage("diff", message))
}

/// All that `file handle` would replace, a line for each piece, in one order and one spelling.
fn lines(flavour: Flavour, config: &Config) -> Vec<String> {
    let mut settings = Settings::default();
    for (key, value) in &config.settings {
        // Was checked when it was read, or is in force.
        let _ = settings.set(flavour, key, value.clone(), true);
    }
    let mut lines = vec![format!("framework {}", config.framework.name())];
    let values = Setting::known(flavour).map(|s| (s.key, setting(&s.value(&settings))));
    lines.extend(values.map(|(key, value)| format!("global {key} {value}")));
    let mut pool4 = Pool4::default();
    config.pool4.iter().for_each(|entry| pool4.add(entry));
    for entry in pool4.entries() {
        let iterations = match entry.max_iterations {
            None | Some(MaxIterations::Auto) => "auto".to_owned(),
            Some(MaxIterations::Infinity) => "infinity".to_owned(),
            Some(MaxIterations::Fixed(n)) => n.to_string(),
        };
        lines.push(format!(
            "pool4 {} {} {}-{} mark {} max-iterations {iterations}",
            entry.protocol, entry.prefix, entry.ports.min, entry.ports.max, entry.mark
        ));
    }
    let eamt = config.eamt.iter();
    lines.extend(eamt.map(|row| format!("eamt {} {}", row.v6, row.v4)));
    let rules = config.fmrt.iter();
    lines.extend(rules.map(|rule| format!("fmrt {rule}")));
    let denied = config.denylist4.iter();
    lines.extend(denied.map(|prefix| format!("denylist4 {prefix}")));
    lines
}

fn bib(config: &Config) -> Vec<String> {
    let entries = config.bib.iter();
    let lines = entries.map(|entry| format!("bib {} {} {}", entry.protocol, entry.v6, entry.v4));
    lines.collect()
}

/// Takes out what both have, as often as both have it.
fn subtract(a: &mut Vec<String>, b: &mut Vec<String>) {
    let mut counts = std::collections::HashMap::new();
    for line in &*b {
        *counts.entry(line.clone()).or_insert(0_u32) += 1;
    }
    let mut common = std::collections::HashMap::new();
    a.retain(|line| match counts.get_mut(line).filter(|n| **n > 0) {
        Some(left) => {
            *left -= 1;
            *common.entry(line.clone()).or_insert(0_u32) += 1;
            false
        }
        None => true,
    });
    b.retain(|line| match common.get_mut(line).filter(|n| **n > 0) {
        Some(left) => {
            *left -= 1;
            false
        }
        None => true,
    });
}

const EXIT_DIFFERS: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_have_is_left_out_as_often_as_both_have_it() {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        for (a, b, gone, new) in [
            ("a b c", "a b c", "", ""),
            ("a b", "b c", "a", "c"),
            ("a a b", "a b b", "a", "b"),
            ("", "x x", "", "x x"),
        ] {
            let (mut old, mut fresh): (Vec<String>, Vec<String>) = (list(a), list(b));
            subtract(&mut old, &mut fresh);
            assert_eq!((old, fresh), (list(gone), list(new)), "{a} / {b}");
        }
    }
}
