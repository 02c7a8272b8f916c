// SPDX-License-Identifier: GPL-2.0-or-later
//! What the command says about itself, at every level, made from the tables that it obeys.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;

use clap::{Arg, ArgAction, Command, value_parser};

use super::examples;
use super::grammar::Personality;
use super::keywords::{Action, Mode};
use super::options::options;
use crate::model::Flavour;
use crate::model::settings::{Kind, Setting, Settings, Value, format_duration};

/// The version of Jool whose command language this is.
const LANGUAGE: &str = "4.1.15.0";

/// The answer to `--version`: one line, as scripts expect it.
pub(crate) fn version() -> String {
    format!("{LANGUAGE}\n")
}

/// True if a word asks for help where a mode, an operation or a key is expected.
pub(crate) fn wanted(word: &OsString) -> bool {
    let Some(word) = word.to_str() else {
        return false;
    };
    matches!(word, "-?" | "-h") || (word.len() > 2 && "--help".starts_with(word))
}

/// The options before the mode.
pub(crate) fn top(who: Personality) -> Command {
    common(Command::new(who.program))
        .about(ABOUT)
        .override_usage(format!(
            "{} [OPTIONS] MODE OPERATION [VALUES and OPTIONS]",
            who.program
        ))
        .after_help(modes(who))
        .arg(
            Arg::new("instance")
                .short('i')
                .long("instance")
                .value_name("NAME")
                .help("The instance to talk to (default 'default')")
                .allow_hyphen_values(true)
                .overrides_with("file"),
        )
        .arg(
            Arg::new("file")
                .short('f')
                .long("file")
                .value_name("FILE")
                .help("Take the instance's name from this JSON file (key 'instance')")
                .value_parser(value_parser!(PathBuf))
                .overrides_with("instance"),
        )
        .arg(
            Arg::new("words")
                .hide(true)
                .num_args(0..)
                .trailing_var_arg(true)
                .value_parser(value_parser!(OsString)),
        )
}

/// What `--help` says at the top.
pub(crate) fn overview(who: Personality) -> String {
    top(who).render_help().to_string()
}

/// What follows the words of an operation.
pub(crate) fn of_operation(action: Action, about: &'static str, path: &str) -> Command {
    let mut command = common(Command::new("operation"))
        .bin_name(path.to_owned())
        .about(about)
        .args(options(action));
    if let Some(program) = path.split(' ').next().filter(|name| !name.is_empty()) {
        let lines = examples::lines(program, action);
        command = command.after_help(format!("Examples:\n  {}", lines.join("\n  ")));
    }
    command
}

/// What `--help` says behind a mode.
pub(crate) fn of_mode(who: Personality, mode: &Mode) -> String {
    let path = format!("{} {}", who.program, mode.name);
    let mut text = format!(
        "{}\n\nUsage: {path} OPERATION [OPTIONS]\n\nOperations:\n",
        mode.about
    );
    for operation in mode.operations {
        line(&mut text, operation.name, operation.about);
    }
    line(
        &mut text,
        "-?, -h, --help",
        "Print help; also behind an operation",
    );
    text
}

/// What `--help` says in the place of a setting's name.
pub(crate) fn of_settings(flavour: Flavour, path: &str) -> String {
    let mut text = format!(
        "Change a setting\n\nUsage: {path} SETTING [--force] VALUE\n\nSettings and values:\n"
    );
    for setting in Setting::known(flavour) {
        line(&mut text, setting.key, kind(setting.kind));
    }
    text
}

/// A value that could follow.
pub(crate) fn example(setting: &Setting) -> String {
    match setting.value(&Settings::default()) {
        Value::Bool(on) => on.to_string(),
        Value::Number(n) => n.to_string(),
        Value::Duration(ms) => format_duration(ms),
        Value::Plateaus(_) => "1500,1280,576".to_owned(),
        Value::Prefix4(_) => "198.51.100.0/24".to_owned(),
        Value::Prefix6(_) => "64:ff9b::/96".to_owned(),
        Value::Hairpin(mode) => mode.name().to_owned(),
        Value::MapRule(_) => "2001:db8:ce::/51 192.0.2.0/24 13 0".to_owned(),
        Value::MaptType(_) => "CE".to_owned(),
    }
}

fn common(command: Command) -> Command {
    command
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .infer_long_args(true)
        .args_override_self(true)
        .arg(
            Arg::new("help")
                .short('?')
                .visible_short_alias('h')
                .long("help")
                .alias("usage")
                .help("Print help")
                .display_order(1000)
                .action(ArgAction::Help),
        )
        .arg(
            Arg::new("version")
                .short('V')
                .long("version")
                .help("Print the version of the command language")
                .display_order(1001)
                .action(ArgAction::SetTrue),
        )
}

fn modes(who: Personality) -> String {
    let mut text = "Modes:\n".to_owned();
    for mode in Mode::of(who.flavour).filter(|mode| !mode.hidden) {
        let operations: Vec<_> = mode.operations.iter().map(|o| o.name).collect();
        line(&mut text, mode.name, mode.about);
        line(&mut text, "", &operations.join(", "));
    }
    text.push_str(
        "\nWords may be abbreviated as long as they are clear: 'gl di' is 'global display'.\n\
         Add --help behind a mode or an operation for more.",
    );
    if let Some(line) = examples::first(who) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n\nBegin with:\n  {line}");
    }
    text
}

fn line(text: &mut String, name: &str, about: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  {name:<30} {about}");
}

/// The words that a setting takes, where there are but few.
pub(crate) const fn choices(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Bool => &["true", "false"],
        Kind::Hairpin => &["off", "simple", "intrinsic"],
        Kind::MaptType => &["CE", "BR"],
        Kind::Byte
        | Kind::Number
        | Kind::Duration
        | Kind::Plateaus
        | Kind::Prefix4
        | Kind::Prefix6
        | Kind::MapRule => &[],
    }
}

/// What the value of a setting looks like.
pub(crate) const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "true or false",
        Kind::Byte => "0 to 255",
        Kind::Number => "0 to 4294967295",
        Kind::Duration => "[HH:[MM:]]SS[.mmm]",
        Kind::Plateaus => "sizes in bytes, for example 1500,1280,576",
        Kind::Prefix4 => "an IPv4 prefix, or null",
        Kind::Prefix6 => "an IPv6 prefix, or null",
        Kind::Hairpin => "off, simple or intrinsic",
        Kind::MapRule => "IPV6-PREFIX IPV4-PREFIX EA-BITS [PSID-OFFSET], or null",
        Kind::MaptType => "CE or BR, or null",
    }
}

const ABOUT: &str = concat!(
    "Looks after the translators of tylo ",
    env!("CARGO_PKG_VERSION"),
    " in this network namespace, in Jool's command language"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_recognised_among_the_words() {
        for word in ["-?", "-h", "--help", "--he", "--h"] {
            assert!(wanted(&word.into()), "{word}");
        }
        for word in ["--", "-", "--helper", "help", "-i"] {
            assert!(!wanted(&word.into()), "{word}");
        }
    }
}
