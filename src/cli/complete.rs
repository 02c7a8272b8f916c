// SPDX-License-Identifier: GPL-2.0-or-later
//! What could be typed next, for a shell that completes words.
//!
//! `autocomplete DEPTH TOKENS...` answers with what could stand in place DEPTH of the tokens, which
//! are counted from 0 and begin behind the name of the program.

use std::ffi::OsString;

use super::grammar::{GrammarError, Personality};
use super::keywords::{Action, Keyword, Mode, resolve};
use super::{help, values};
use crate::model::settings::Setting;

/// The hidden mode that asks.
pub(super) const WORD: &str = "autocomplete";

/// The candidates, with blanks between them.
///
/// # Errors
/// The depth is not a number.
//= jool#autocomplete
pub(super) fn answer(
    who: Personality,
    mut words: impl Iterator<Item = OsString>,
) -> Result<String, GrammarError> {
    let depth = words.next().unwrap_or_default();
    let depth = values::number(&depth.to_string_lossy()).map_err(|error| GrammarError::Value {
        what: "DEPTH".to_owned(),
        error,
    })?;
    let tokens: Vec<String> = words.map(|w| w.to_string_lossy().into_owned()).collect();
    let before = usize::try_from(depth)
        .unwrap_or(usize::MAX)
        .min(tokens.len());
    let (before, rest) = tokens.split_at(before);
    let typed = rest.first().map_or("", String::as_str);
    let mut found = candidates(who, before, typed);
    found.retain(|candidate| candidate.starts_with(typed));
    found.dedup();
    Ok(found.join(" "))
}

fn candidates(who: Personality, before: &[String], typed: &str) -> Vec<String> {
    let Some(before) = skip_options(before) else {
        // The value of an option of which nothing is known.
        return Vec::new();
    };
    let mode = match before {
        [] if typed.starts_with('-') => return longs(&help::top(who)),
        [] => return visible(Mode::of(who.flavour)),
        [mode, ..] => resolve(Some(mode), Mode::of(who.flavour)),
    };
    let Ok(mode) = mode else { return Vec::new() };
    let operation = match before.get(1) {
        None => return visible(mode.operations.iter()),
        Some(word) => resolve(Some(word), mode.operations.iter()),
    };
    let Ok(operation) = operation else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if operation.action == Action::GlobalUpdate {
        match before.get(2) {
            None => return visible(Setting::of(who.flavour)),
            Some(key) => {
                if let Ok(setting) = resolve(Some(key), Setting::of(who.flavour)) {
                    found.extend(help::choices(setting.kind).iter().map(|w| (*w).to_owned()));
                }
            }
        }
    }
    let command = help::of_operation(operation.action, operation.about, "");
    found.extend(longs(&command));
    found
}

/// The words from the mode on; `None` if what comes next is the value of an option.
fn skip_options(mut words: &[String]) -> Option<&[String]> {
    while let [word, rest @ ..] = words {
        if !word.starts_with('-') {
            break;
        }
        let apart = matches!(word.as_str(), "-i" | "--instance" | "-f" | "--file");
        words = if apart { rest.get(1..)? } else { rest };
    }
    Some(words)
}

fn visible<'a, K: Keyword + 'a>(words: impl Iterator<Item = &'a K>) -> Vec<String> {
    let shown = words.filter(|word| !word.hidden());
    shown.map(|word| word.word().to_owned()).collect()
}

/// The long options of a command.
fn longs(command: &clap::Command) -> Vec<String> {
    let longs = command.get_arguments().filter_map(clap::Arg::get_long);
    longs.map(|long| format!("--{long}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::grammar::{Invocation, parse};
    use crate::cli::{JOOL, JOOL_SIIT};

    fn ask(who: Personality, line: &str) -> String {
        let words = line.split(' ').map(OsString::from);
        match parse(who, words) {
            Ok(Invocation::Print(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    //= jool#autocomplete
    //= type=test
    #[test]
    fn words_are_offered_where_they_can_stand() {
        for (line, expected) in [
            (
                "autocomplete 0",
                "instance stats global pool4 bib session file",
            ),
            ("autocomplete 0 s", "stats session"),
            ("autocomplete 0 zz", ""),
            ("autocomplete 1 instance", "display add remove flush status"),
            ("autocomplete 1 inst a", "add"),
            ("autocomplete 1 frob", ""),
            (
                "autocomplete 2 global update tcp-",
                "tcp-est-timeout tcp-trans-timeout",
            ),
            ("autocomplete 3 global update ss-enabled t", "true"),
            ("autocomplete 2 pool4 add --t", "--tcp"),
            ("autocomplete 2 pool4 flush -", "--help --version --quick"),
            (
                "autocomplete 4 pool4 add --tcp 192.0.2.1 --ma",
                "--mark --max-iterations",
            ),
            ("autocomplete 0 --i", "--instance"),
            ("autocomplete 2 -i x pool", "pool4"),
            ("autocomplete 1 -i", ""),
            ("autocomplete 9 instance flush", "--help --version"),
        ] {
            assert_eq!(ask(JOOL, line), expected, "{line}");
        }
        assert_eq!(ask(JOOL_SIIT, "autocomplete 0 e"), "eamt");
        let modes = ask(JOOL_SIIT, "autocomplete 3 global update eam-hairpin-mode ");
        assert!(modes.starts_with("off simple intrinsic "), "{modes}");
        let error = parse(JOOL, ["autocomplete", "x"].map(OsString::from).into_iter());
        assert_eq!(error.unwrap_err().code(), 1);
    }
}
