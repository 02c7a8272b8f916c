// SPDX-License-Identifier: GPL-2.0-or-later
//! Jool 3's command lines, which were made of flags, in today's words.
//!
//! `jool --pool4 --add --tcp --udp 192.0.2.1 1000-2000` becomes two lines of the [grammar]. Only
//! words are exchanged here; what they mean, and whether they make sense, stays the grammar's
//! business. A line of today's language is left alone: what comes before the mode there are `-i`,
//! `-f` and questions for help, and every other option in that place is old.
//!
//! [grammar]: super::grammar

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::grammar::{GrammarError, Personality};
use super::help;
use super::keywords::{Mode, resolve};
use super::values::{Shape, shape};
use crate::base::Protocol;
use crate::model::settings::Setting;

/// What an old line stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rewritten {
    /// Today's lines, without the name of the program; carried out one after the other.
    pub(super) lines: Vec<Vec<OsString>>,
    /// Whether it is enough that one of them finds something to remove.
    pub(super) any: bool,
}

impl Rewritten {
    /// Says how to write it today, in a way that a shell takes.
    pub(super) fn hint(&self, program: &str) -> String {
        let lines = self.lines.iter().map(|line| {
            let words: Vec<_> = line
                .iter()
                .map(|word| quoted(&word.to_string_lossy()))
                .collect();
            format!("{program} {}", words.join(" "))
        });
        let lines: Vec<String> = lines.collect();
        let today = lines.join(" && ");
        format!("these options are Jool 3's; write: {today}")
    }
}

/// A word as one types it; what one cannot type does not disturb the line.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:/#=+%@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.escape_debug())
}

/// Puts a line of Jool 3 into today's words; `None` if it is none.
///
/// # Errors
/// It is an old line, or one with an unknown option before its mode, and makes no sense.
//= jool#3.x
pub(super) fn rewrite(
    who: Personality,
    args: &[OsString],
) -> Result<Option<Rewritten>, GrammarError> {
    let Some(front) = Front::read(who, args) else {
        return Ok(None);
    };
    let mut line = Line::default();
    line.read(who, front.rest)?;
    let mut before = front.before;
    if let Some(file) = front.file {
        // A file and nothing to do is to be done itself.
        if line.mode.is_none() && line.operation.is_none() && line.settings.is_empty() {
            line.mode = Some(OldMode::File);
            line.file = Some(file);
        } else {
            before.extend(["--file".into(), file]);
        }
    }
    let (lines, any) = line.translate(who)?;
    let lines = lines.into_iter();
    let lines = lines.map(|line| before.iter().cloned().chain(line).collect());
    Ok(Some(Rewritten {
        lines: lines.collect(),
        any,
    }))
}

/// Today's options at the beginning of an old line.
struct Front<'a> {
    before: Vec<OsString>,
    /// What `--file` says. Today that is where the instance's name is, and once it was a mode.
    file: Option<OsString>,
    /// The old part.
    rest: &'a [OsString],
}

impl<'a> Front<'a> {
    /// `None` if nothing of the line is old.
    fn read(who: Personality, mut args: &'a [OsString]) -> Option<Self> {
        let (mut before, mut file) = (Vec::new(), None);
        while let [word, rest @ ..] = args {
            let (name, joined) = split(word);
            let front = |kind: &str| name.len() > 2 && kind.starts_with(&name);
            if !is_option(&name) || name == "--" || asks(&name) {
                return None;
            }
            let long = front("--instance") || front("--file");
            if !long && !name.starts_with("-i") && !name.starts_with("-f") {
                break;
            }
            let apart = if long {
                joined.is_none()
            } else {
                name.len() == 2
            };
            let value = rest.first().filter(|_| apart);
            let mode = rest.get(1).map(|word| word.to_string_lossy());
            let today = mode.is_some_and(|m| resolve(Some(&m), Mode::of(who.flavour)).is_ok());
            if !today && value.is_some_and(|v| old(who, &split(v).0).is_some()) {
                break;
            }
            if apart && value.is_none() {
                return None;
            }
            if front("--file") {
                file = joined.or_else(|| value.cloned());
            } else {
                file = None;
                before.push(word.clone());
                before.extend(value.cloned());
            }
            args = rest.get(usize::from(apart)..).unwrap_or_default();
        }
        let old = !args.is_empty() || file.is_some();
        old.then_some(Self {
            before,
            file,
            rest: args,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OldMode {
    Global,
    Instance,
    Pool6,
    Pool6791,
    Pool4,
    Bib,
    Session,
    Eamt,
    Blacklist,
    Joold,
    File,
}

/// What an old option is about.
#[derive(Clone, Copy, Debug)]
enum Old {
    Mode(OldMode),
    Operation(&'static str),
    Protocol(Protocol),
    /// Goes on to be an option of today's operation.
    Flag(&'static str),
    /// The same, with a value.
    Value(&'static str),
    /// The mode that has a value.
    File,
    Setting(&'static str),
    /// A setting and the value that the option stands for.
    Switch(&'static str, &'static str),
    Gone(&'static str),
}

/// The pieces of an old line, which came in any order.
#[derive(Default)]
struct Line {
    mode: Option<OldMode>,
    operation: Option<&'static str>,
    protocols: Vec<Protocol>,
    /// Options for today's operation.
    options: Vec<OsString>,
    settings: Vec<(&'static str, OsString)>,
    words: Vec<OsString>,
    file: Option<OsString>,
}

impl Line {
    fn read(&mut self, who: Personality, args: &[OsString]) -> Result<(), GrammarError> {
        let mut args = args.iter();
        while let Some(word) = args.next() {
            let (name, joined) = split(word);
            if name == "--" {
                self.words.extend(args.cloned());
                return Ok(());
            } else if !is_option(&name) {
                self.words.push(word.clone());
            } else if name.starts_with("--") {
                let option = old(who, &name).ok_or_else(|| unknown(who, &name))?;
                self.take(who, &name, option, joined, &mut args)?;
            } else {
                self.cluster(who, word, &mut args)?;
            }
        }
        Ok(())
    }

    /// Short options behind one dash; the last of them may have its value there, too.
    fn cluster<'a>(
        &mut self,
        who: Personality,
        word: &OsStr,
        args: &mut impl Iterator<Item = &'a OsString>,
    ) -> Result<(), GrammarError> {
        let text = word.to_string_lossy();
        for (at, letter) in text.char_indices().skip(1) {
            let name = format!("-{letter}");
            let option = old(who, &name).ok_or_else(|| unknown(who, &text))?;
            if matches!(option, Old::Value(_) | Old::File) {
                let value = word.as_bytes().get(at + 1..).filter(|v| !v.is_empty());
                let value = value.map(|v| OsString::from_vec(v.to_vec()));
                return self.take(who, &name, option, value, args);
            }
            self.take(who, &name, option, None, args)?;
        }
        Ok(())
    }

    fn take<'a>(
        &mut self,
        who: Personality,
        name: &str,
        option: Old,
        joined: Option<OsString>,
        args: &mut impl Iterator<Item = &'a OsString>,
    ) -> Result<(), GrammarError> {
        let takes = matches!(option, Old::Value(_) | Old::File | Old::Setting(_));
        if !takes && joined.is_some() {
            return Err(usage(who, format!("'{name}' takes no value")));
        }
        let mut value = || {
            let value = joined.clone().or_else(|| args.next().cloned());
            value.ok_or_else(|| usage(who, format!("'{name}' needs a value")))
        };
        match option {
            Old::Mode(mode) => self.set_mode(who, mode)?,
            Old::File => {
                self.file = Some(value()?);
                self.set_mode(who, OldMode::File)?;
            }
            Old::Operation(word) => {
                if let Some(other) = self.operation.replace(word).filter(|o| *o != word) {
                    let message = format!("--{other} and --{word} cannot be done at once");
                    return Err(usage(who, message));
                }
            }
            Old::Protocol(protocol) => {
                self.protocols.push(protocol);
                self.protocols.sort_unstable();
                self.protocols.dedup();
            }
            Old::Flag(flag) => self.options.push(flag.into()),
            Old::Value(flag) => {
                let value = value()?;
                self.options.extend([flag.into(), value]);
            }
            Old::Setting(key) => self.settings.push((key, value()?)),
            Old::Switch(key, text) => self.settings.push((key, text.into())),
            Old::Gone(advice) => {
                return Err(usage(who, format!("'{name}' is gone: {advice}")));
            }
        }
        Ok(())
    }

    fn set_mode(&mut self, who: Personality, mode: OldMode) -> Result<(), GrammarError> {
        match self.mode.replace(mode) {
            Some(other) if other != mode => {
                let message = "two modes were given; leave one of them out".to_owned();
                Err(usage(who, message))
            }
            _ => Ok(()),
        }
    }

    /// Today's lines, and whether one that finds something is enough.
    fn translate(mut self, who: Personality) -> Result<(Vec<Vec<OsString>>, bool), GrammarError> {
        if !self.settings.is_empty() {
            let others = self.mode.is_some_and(|mode| mode != OldMode::Global)
                || self.operation.is_some_and(|word| word != "update");
            if others {
                let message = "settings are changed by a command of their own".to_owned();
                return Err(usage(who, message));
            }
            let settings = std::mem::take(&mut self.settings);
            let lines = settings
                .into_iter()
                .map(|(key, value)| self.line(["global", "update", key], [value], &[]));
            return Ok((lines.collect(), false));
        }
        let word = self.operation.unwrap_or("display");
        let counts = word == "count";
        let shown = if counts { "display" } else { word };
        let option: &[&str] = if counts { &["--count"] } else { &[] };
        let words = self.words.clone();
        let all = |mode: &str| Ok((self.each(mode, shown, option), self.any(word)));
        let one = |line| Ok((vec![line], false));
        match self.mode.unwrap_or(OldMode::Global) {
            OldMode::Global => one(self.line(["global", shown], words, option)),
            OldMode::Instance => one(self.line(["instance", shown], words, option)),
            OldMode::Pool6 => one(self.prefix(who, "pool6", word)?),
            OldMode::Pool6791 => {
                let v6 = words
                    .iter()
                    .any(|w| shape(&w.to_string_lossy()) == Shape::V6);
                let key = if v6 {
                    "rfc6791v6-prefix"
                } else {
                    "rfc6791v4-prefix"
                };
                one(self.prefix(who, key, word)?)
            }
            OldMode::Pool4 if word == "update" => Err(usage(
                who,
                "'--update' is gone: add one of the entries again, with '--max-iterations'"
                    .to_owned(),
            )),
            OldMode::Pool4 if word == "flush" => one(self.line(["pool4", word], words, option)),
            OldMode::Pool4 => all("pool4"),
            OldMode::Bib => all("bib"),
            OldMode::Session if word == "advertise" => {
                one(self.line(["session", word], words, option))
            }
            OldMode::Session => all("session"),
            OldMode::Eamt => one(self.line(["eamt", shown], words, option)),
            OldMode::Blacklist => one(self.line(["denylist4", shown], words, option)),
            OldMode::Joold if word != "advertise" => {
                let message = "'--joold' needs '--advertise'".to_owned();
                Err(usage(who, message))
            }
            OldMode::Joold => one(self.line(["session", word], words, option)),
            OldMode::File => {
                let words = self.file.clone().into_iter().chain(words);
                one(self.line(["file", "handle"], words, option))
            }
        }
    }

    /// A pool that is a setting today.
    fn prefix(
        &self,
        who: Personality,
        key: &'static str,
        word: &'static str,
    ) -> Result<Vec<OsString>, GrammarError> {
        match word {
            "display" => Ok(self.line(["global", word], self.words.clone(), &[])),
            "add" | "update" => Ok(self.line(["global", "update", key], self.words.clone(), &[])),
            // There is but one, so whatever it is called, it is meant.
            "remove" | "flush" => {
                let null = [OsString::from("null")];
                Ok(self.line(["global", "update", key], null, &[]))
            }
            _ => Err(usage(
                who,
                format!("'--{word}' is gone: {key} is a setting"),
            )),
        }
    }

    /// One line for each protocol; all of them when none was named.
    fn each(&self, mode: &str, operation: &str, option: &[&str]) -> Vec<Vec<OsString>> {
        let protocols: &[Protocol] = if self.protocols.is_empty() {
            &Protocol::ALL
        } else {
            &self.protocols
        };
        let mut words = self.words.clone();
        let ports = |word: &OsString| shape(&word.to_string_lossy()) == Shape::Other;
        if mode == "pool4" && operation == "add" && !words.iter().any(ports) {
            words.push("0-65535".into());
        }
        let lines = protocols.iter().map(|protocol| {
            let flag = flag(*protocol);
            let own = [mode, operation, flag]
                .into_iter()
                .chain(option.iter().copied());
            let own = own.map(OsString::from);
            own.chain(words.clone())
                .chain(self.options.clone())
                .collect()
        });
        lines.collect()
    }

    fn any(&self, word: &str) -> bool {
        word == "remove" && self.protocols.is_empty()
    }

    fn line<const N: usize>(
        &self,
        own: [&str; N],
        words: impl IntoIterator<Item = OsString>,
        option: &[&str],
    ) -> Vec<OsString> {
        let protocols = self.protocols.iter().map(|p| flag(*p));
        let own = own.into_iter().map(OsString::from);
        let option = option.iter().copied().chain(protocols).map(OsString::from);
        own.chain(words)
            .chain(option)
            .chain(self.options.clone())
            .collect()
    }
}

const fn flag(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "--tcp",
        Protocol::Udp => "--udp",
        Protocol::Icmp => "--icmp",
    }
}

/// The option that `name`, which may be abbreviated, stands for.
fn old(who: Personality, name: &str) -> Option<Old> {
    if let Some(letter) = name.strip_prefix('-').filter(|rest| !rest.starts_with('-')) {
        let first = letter.chars().next();
        let known = OPTIONS
            .iter()
            .find(|(short, ..)| short.is_some() && *short == first);
        return known.map(|(_, _, old)| *old);
    }
    let name = name.strip_prefix("--").filter(|name| !name.is_empty())?;
    let settings = Setting::of(who.flavour).map(|s| (s.key, Old::Setting(s.key)));
    let all = OPTIONS
        .iter()
        .map(|(_, long, old)| (*long, *old))
        .chain(settings);
    if let Some((_, exact)) = all.clone().find(|(long, _)| *long == name) {
        return Some(exact);
    }
    let mut found = all.filter(|(long, _)| long.starts_with(name));
    match (found.next(), found.next()) {
        (Some((_, old)), None) => Some(old),
        _ => None,
    }
}

fn is_option(name: &str) -> bool {
    name.len() > 1 && name.starts_with('-')
}

/// Whether a word asks for help or the version.
fn asks(name: &str) -> bool {
    let long = |full: &str| name.len() > 2 && full.starts_with(name);
    help::wanted(&name.into()) || name.starts_with("-V") || long("--version") || long("--usage")
}

/// The name of an option, and the value behind its `=`.
fn split(word: &OsStr) -> (String, Option<OsString>) {
    let bytes = word.as_bytes();
    let at = bytes.iter().position(|b| *b == b'=');
    match at
        .filter(|_| bytes.starts_with(b"--"))
        .and_then(|at| bytes.split_at_checked(at))
    {
        Some((name, value)) => {
            let value = value.get(1..).unwrap_or_default().to_vec();
            let name = String::from_utf8_lossy(name).into_owned();
            (name, Some(OsString::from_vec(value)))
        }
        None => (word.to_string_lossy().into_owned(), None),
    }
}

fn unknown(who: Personality, name: &str) -> GrammarError {
    usage(who, format!("'{name}' is unknown or ambiguous here"))
}

fn usage(who: Personality, message: String) -> GrammarError {
    GrammarError::Usage {
        message,
        path: who.program.to_owned(),
    }
}

const OPTIONS: &[(Option<char>, &str, Old)] = &[
    (Some('g'), "global", Old::Mode(OldMode::Global)),
    (None, "instance", Old::Mode(OldMode::Instance)),
    (Some('6'), "pool6", Old::Mode(OldMode::Pool6)),
    (None, "pool6791", Old::Mode(OldMode::Pool6791)),
    (Some('4'), "pool4", Old::Mode(OldMode::Pool4)),
    (Some('b'), "bib", Old::Mode(OldMode::Bib)),
    (Some('s'), "session", Old::Mode(OldMode::Session)),
    (Some('e'), "eamt", Old::Mode(OldMode::Eamt)),
    (None, "blacklist", Old::Mode(OldMode::Blacklist)),
    (None, "joold", Old::Mode(OldMode::Joold)),
    (Some('p'), "file", Old::File),
    (Some('d'), "display", Old::Operation("display")),
    (Some('c'), "count", Old::Operation("count")),
    (Some('a'), "add", Old::Operation("add")),
    (None, "update", Old::Operation("update")),
    (Some('r'), "remove", Old::Operation("remove")),
    (Some('f'), "flush", Old::Operation("flush")),
    (None, "advertise", Old::Operation("advertise")),
    (Some('t'), "tcp", Old::Protocol(Protocol::Tcp)),
    (Some('u'), "udp", Old::Protocol(Protocol::Udp)),
    (Some('i'), "icmp", Old::Protocol(Protocol::Icmp)),
    (Some('q'), "quick", Old::Flag("--quick")),
    (Some('n'), "numeric", Old::Flag("--numeric")),
    (None, "csv", Old::Flag("--csv")),
    (None, "no-headers", Old::Flag("--no-headers")),
    (None, "force", Old::Flag("--force")),
    (Some('m'), "mark", Old::Value("--mark")),
    (None, "max-iterations", Old::Value("--max-iterations")),
    (None, "enable", Old::Switch("manually-enabled", "true")),
    (None, "disable", Old::Switch("manually-enabled", "false")),
    (
        None,
        "fragment-arrival-timeout",
        Old::Gone("nothing waits for fragments any more; leave it out"),
    ),
];

#[cfg(test)]
mod tests;
