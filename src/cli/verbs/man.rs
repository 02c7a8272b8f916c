// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo man`: manual pages, from the definitions that the commands obey.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command as Clap, value_parser};

use super::{Args, VERBS, take};
use crate::cli::examples;
use crate::cli::grammar::Personality;
use crate::cli::help;
use crate::cli::keywords::{Action, Mode};
use crate::cli::proxy::joold_command;
use crate::cli::run::{RunError, finish};
use crate::cli::{JOOL, JOOL_MAPT, JOOL_SIIT, say};
use crate::model::Flavour;
use crate::model::settings::Setting;

pub(super) fn command() -> Clap {
    Clap::new("tylo man")
        .about("Writes the manual pages of all commands into a folder")
        .arg(
            Arg::new("folder")
                .value_name("DIR")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("Where to; it is made if it is not there"),
        )
}

/// The command `tylo man`. `args` begins with its name; `daemon` is what tylod takes.
pub(super) fn man(args: Args<'_>, daemon: fn() -> Clap) -> ExitCode {
    let found = match take(command(), args) {
        Ok(found) => found,
        Err(code) => return code,
    };
    finish(|_| {
        let Some(folder) = found.get_one::<PathBuf>("folder") else {
            return Ok(());
        };
        let write = || {
            fs::create_dir_all(folder)?;
            pages(&daemon())
                .into_iter()
                .try_for_each(|(name, text)| fs::write(folder.join(format!("{name}.8")), text))
        };
        write().map_err(|error| {
            say("Error", &format!("{}: {error}", folder.display()));
            let code = error.raw_os_error().and_then(|n| u8::try_from(n).ok());
            RunError::Said(code.unwrap_or(5))
        })
    })
}

/// Name and text of every page.
fn pages(daemon: &Clap) -> Vec<(&'static str, String)> {
    vec![
        ("jool", language(JOOL)),
        ("jool_siit", language(JOOL_SIIT)),
        ("jool_mapt", language(JOOL_MAPT)),
        ("tylo", own()),
        ("tylod", single(daemon, "tylod", DAEMON)),
        ("joold", single(&joold_command(), "joold", JOOLD)),
    ]
}

/// The page of one of the commands with Jool's language.
fn language(who: Personality) -> String {
    let (program, top) = (who.program, help::top(who));
    let about = match who.flavour {
        Flavour::Nat64 => "controls the NAT64 translators of tylod",
        Flavour::Siit => "controls the SIIT translators of tylod",
        Flavour::Mapt => "controls the MAP-T translators of tylod",
    };
    let mut page = Page::new(program, about);
    page.section("SYNOPSIS");
    page.bold(program);
    page.text("[OPTIONS] MODE OPERATION [VALUES and OPTIONS]");
    page.section("DESCRIPTION");
    page.text(
        "Talks to the daemon of the network namespace that it runs in, in Jool's command language. \
         Words and long options may be abbreviated as long as they are clear. Without any words it \
         prints help, and exits with 0 only if the daemon answers and an instance runs.",
    );
    page.section("OPTIONS");
    page.arguments(&top, "");
    page.section("COMMANDS");
    page.text("Every one of them has --help and --version, too.");
    for mode in Mode::of(who.flavour).filter(|mode| !mode.hidden) {
        for operation in mode.operations {
            let command = help::of_operation(operation.action, operation.about, "");
            let values = command
                .get_positionals()
                .filter_map(|arg| arg.get_value_names());
            let values: Vec<_> = values.flatten().map(ToString::to_string).collect();
            let updates = operation.action == Action::GlobalUpdate;
            let key = if updates { "SETTING " } else { "" };
            let title = format!("{} {} {key}{}", mode.name, operation.name, values.join(" "));
            page.subsection(title.trim_end());
            page.text(&format!("{}.", operation.about));
            page.arguments(&command, "help version");
            let lines = examples::lines(program, operation.action);
            lines.iter().for_each(|line| page.example(line));
        }
    }
    page.section("SETTINGS");
    for setting in Setting::of(who.flavour) {
        page.item(setting.key, help::kind(setting.kind));
    }
    page.section("JOOL 3");
    page.text(
        "Command lines of Jool 3, such as --pool4 --add --tcp 192.0.2.1 1000-2000, are understood; \
         a hint says how to write them today.",
    );
    page.section("EXIT STATUS");
    for (code, meaning) in STATUSES {
        page.item(code, meaning);
    }
    page.end()
}

/// The page of `tylo` and what follows its name.
fn own() -> String {
    let mut page = Page::new("tylo", "NAT64, SIIT and MAP-T gateway");
    page.section("SYNOPSIS");
    page.bold("tylo");
    page.text("VERB [VALUES and OPTIONS]");
    page.section("DESCRIPTION");
    page.text(
        "One program with several names. As tylod, jool, jool_siit, jool_mapt and joold it is what \
         their own pages say; those names can be its first word, too. These are its other verbs:",
    );
    for verb in VERBS {
        let command = (verb.command)();
        page.section(&format!("TYLO {}", verb.name.to_uppercase()));
        page.text(&format!("{}.", verb.about));
        page.arguments(&command, "");
        for part in command.get_subcommands() {
            page.subsection(&format!("tylo {} {}", verb.name, part.get_name()));
            let about = part.get_about().map(ToString::to_string);
            page.text(&format!("{}.", about.unwrap_or_default()));
            page.arguments(part, "");
        }
        if let Some(more) = command.get_after_help() {
            page.paragraph(&more.to_string());
        }
    }
    page.end()
}

/// The page of a command without words.
fn single(command: &Clap, name: &str, description: &str) -> String {
    let about = command.get_about().map(ToString::to_string);
    let mut page = Page::new(name, &about.unwrap_or_default());
    page.section("SYNOPSIS");
    page.bold(name);
    let values = command
        .get_positionals()
        .filter_map(|arg| arg.get_value_names());
    let values: Vec<_> = values.flatten().map(|v| format!("[{v}]")).collect();
    page.text(&format!("[OPTIONS] {}", values.join(" ")));
    page.section("DESCRIPTION");
    description
        .split("\n\n")
        .for_each(|text| page.paragraph(text));
    page.section("OPTIONS");
    page.arguments(command, "");
    page.end()
}

/// A manual page in the making (man(7)).
struct Page(String);

impl Page {
    fn new(name: &str, about: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let mut page = Self(format!(
            ".TH {} 8 \"\" \"tylo {version}\"\n",
            escape(&name.to_uppercase())
        ));
        page.section("NAME");
        page.text(&format!("{name} - {about}"));
        page
    }

    fn macro_line(&mut self, name: &str, text: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, ".{name} \"{}\"", escape(text).replace('"', "\\(dq"));
    }

    fn section(&mut self, title: &str) {
        self.macro_line("SH", title);
    }

    fn subsection(&mut self, title: &str) {
        self.macro_line("SS", title);
    }

    fn bold(&mut self, text: &str) {
        self.macro_line("B", text);
    }

    fn text(&mut self, text: &str) {
        let _ = writeln!(self.0, "{}", escape(text));
    }

    fn paragraph(&mut self, text: &str) {
        self.0.push_str(".PP\n");
        self.text(text);
    }

    /// A line that one could type.
    fn example(&mut self, line: &str) {
        let _ = writeln!(self.0, ".PP\n.EX\n{}\n.EE", escape(line));
    }

    fn item(&mut self, term: &str, text: &str) {
        self.0.push_str(".TP\n");
        self.bold(term);
        self.text(text);
    }

    /// Every option and value of a command but for some.
    fn arguments(&mut self, command: &Clap, but: &str) {
        let known = |arg: &&Arg| but.split(' ').any(|id| arg.get_id() == id);
        let shown = command
            .get_arguments()
            .filter(|arg| !arg.is_hide_set() && !known(arg));
        for arg in shown {
            let mut names: Vec<String> = Vec::new();
            names.extend(arg.get_short().map(|short| format!("-{short}")));
            names.extend(arg.get_long().map(|long| format!("--{long}")));
            let mut term = names.join(", ");
            let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
            let value = arg.get_value_names().filter(|_| takes).unwrap_or_default();
            for name in value {
                let separator = if term.is_empty() { "" } else { " " };
                let _ = write!(term, "{separator}{name}");
            }
            let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
            self.item(&term, &format!("{about}."));
        }
    }

    fn end(mut self) -> String {
        self.section("SEE ALSO");
        self.text("tylo(8), tylod(8), jool(8), jool_siit(8), jool_mapt(8), joold(8), nft(8)");
        self.0
    }
}

/// Text as roff wants it.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = text.lines().map(|line| {
        if line.starts_with(['.', '\'']) {
            format!("\\&{line}")
        } else {
            line.to_owned()
        }
    });
    let lines: Vec<String> = lines.collect();
    lines.join("\n")
}

const STATUSES: &[(&str, &str)] = &[
    ("0", "Success."),
    (
        "1",
        "The user may not do this, or a number is not made of digits.",
    ),
    ("2", "A file cannot be found."),
    ("3", "There is no such instance or row."),
    ("17", "There is such an instance or row already."),
    (
        "22",
        "The daemon, or a check that is its business, refused a value.",
    ),
    ("64", "Unknown options, too many values."),
    (
        "95",
        "This version, or this kind of instance, cannot do that.",
    ),
    (
        "107",
        "The sessions of the instance are not exchanged; run 'session proxy' first.",
    ),
    (
        "234",
        "Words that make no sense, values out of range, something is missing.",
    ),
    ("249", "A prefix is too large; --force takes it."),
    ("253", "No daemon runs in this network namespace."),
];

const DAEMON: &str = "\
Translates between IPv6 and IPv4 in the network namespace that it runs in, one to a namespace. It \
runs in the foreground and is controlled with jool, jool_siit and jool_mapt from within the same \
namespace. Instances, mappings and sessions survive a restart.

Stops when it gets SIGTERM, SIGINT or SIGHUP, and takes its rules and its device away unless it \
was started with --keep-rules. A daemon that was killed leaves its rules: packets that they divert \
are dropped until the next start.";

const JOOLD: &str = "\
NETSOCKET is a JSON object with the keys 'multicast address' (which must be there), 'multicast \
port' (6400), 'in interface', 'out interface', 'reuseaddr' (without effect), 'ttl' (1) and 'format' (c). \
MODSOCKET has the key 'instance' (default). With PORT, a server of statistics listens there.

The daemon of the network namespace exchanges the instance's sessions with those gateways for as long \
as this command runs; it waits for a daemon that is started anew. The setting ss-enabled of the \
instance has to be true. 'jool session proxy' is the same without files.";

#[cfg(test)]
mod tests {
    use super::*;

    fn page(name: &str) -> String {
        let daemon = Clap::new("tylod").arg(Arg::new("x").long("x-option").help("An option"));
        let pages = pages(&daemon);
        let (_, text) = pages.into_iter().find(|(n, _)| *n == name).unwrap();
        text.replace("\\-", "-")
    }

    #[test]
    fn pages_mention_every_word_and_option() {
        for who in [JOOL, JOOL_SIIT, JOOL_MAPT] {
            let text = page(who.program);
            for mode in Mode::of(who.flavour).filter(|mode| !mode.hidden) {
                for operation in mode.operations {
                    let title = format!(".SS \"{} {}", mode.name, operation.name);
                    let (_, rest) = text.split_once(&title).expect(&title);
                    let body = rest.split(".SS").next().unwrap();
                    let command = help::of_operation(operation.action, operation.about, "");
                    let longs = command.get_arguments().filter_map(Arg::get_long);
                    for long in longs.filter(|long| !["help", "version"].contains(long)) {
                        assert!(body.contains(&format!("--{long}")), "{title} {long}");
                    }
                }
            }
            for setting in Setting::of(who.flavour) {
                assert!(
                    text.contains(&format!(".B \"{}\"", setting.key)),
                    "{}",
                    setting.key
                );
            }
        }
        assert!(page("tylod").contains("--x-option"));
        assert!(page("jool").contains(".EX\njool pool4 add --tcp 192.0.2.1 61001-65535\n.EE"));
        for key in [
            "multicast address",
            "format",
            "ss-enabled",
            "NETSOCKET",
            "MODSOCKET",
        ] {
            assert!(page("joold").contains(key), "{key}");
        }
        let own = page("tylo");
        for verb in VERBS {
            assert!(own.contains(&format!("TYLO {}", verb.name.to_uppercase())));
            for long in (verb.command)().get_arguments().filter_map(Arg::get_long) {
                assert!(own.contains(&format!("--{long}")), "{} {long}", verb.name);
            }
        }
    }

    #[test]
    fn what_roff_would_take_for_its_own_is_escaped() {
        assert_eq!(escape(".a\n'b\\c-d"), "\\&.a\n\\&'b\\ec\\-d");
    }
}
