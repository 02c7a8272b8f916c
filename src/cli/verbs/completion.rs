// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo completion`: what makes a shell complete the words of the commands.

use std::process::ExitCode;

use clap::{Arg, Command as Clap};

use super::{Args, VERBS, take};
use crate::cli::run::finish;

pub(super) fn command() -> Clap {
    Clap::new("tylo completion")
        .about("Prints a script that makes a shell complete the words of all commands")
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(["bash"])
                .help("The shell"),
        )
}

/// The command `tylo completion`. `args` begins with its name.
pub(super) fn completion(args: Args<'_>) -> ExitCode {
    match take(command(), args) {
        Ok(_) => finish(|out| Ok(out.write_all(script().as_bytes())?)),
        Err(code) => code,
    }
}

fn script() -> String {
    let mut words = vec!["tylod", "jool", "jool_siit", "jool_mapt", "joold"];
    words.extend(VERBS.iter().map(|verb| verb.name));
    let parts = VERBS.iter().filter_map(|verb| {
        let command = (verb.command)();
        let parts: Vec<_> = command.get_subcommands().map(Clap::get_name).collect();
        if parts.is_empty() {
            let longs = command.get_arguments().filter_map(Arg::get_long);
            let longs: Vec<_> = longs.map(|long| format!("--{long}")).collect();
            let line = format!("\t\t{}) words=\"{}\" ;;\n", verb.name, longs.join(" "));
            return Some(line).filter(|_| !longs.is_empty());
        }
        Some(format!(
            "\t\t{}) [ \"$COMP_CWORD\" -ne 2 ] || words=\"{}\" ;;\n",
            verb.name,
            parts.join(" ")
        ))
    });
    let parts: String = parts.collect();
    BASH.replace("@VERBS@", &words.join(" "))
        .replace("@PARTS@", &parts)
}

const BASH: &str = include_str!("completion.bash");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_knows_every_first_word() {
        let script = script();
        for verb in VERBS {
            assert!(script.contains(&format!(" {}", verb.name)), "{}", verb.name);
            let command = (verb.command)();
            let whole = command.get_subcommands().next().is_none();
            for long in command.get_arguments().filter_map(Arg::get_long) {
                let known = script.contains(&format!("--{long}"));
                assert!(known || !whole, "{} {long}", verb.name);
            }
        }
        assert!(!script.contains("S@"));
    }
}
