// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo explain`: what becomes of a packet, and why.
//!
//! Makes copies of the daemon's instances in its own process and lets the engine itself handle the
//! packet there: what it says cannot disagree with the gateway, and changes nothing of it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command as Clap, value_parser};

use self::capture::{Capture, CaptureError, Record};
use self::local::{Choice, START, World};
use self::packet::{Packet, PacketError};
use self::story::{Story, explain as tell};
use super::{Args, flavour, flavour_arg, instance, instance_arg, take, usage};
use crate::base::{Protocol, Tick};
use crate::cli::run::{RunError, finish};
use crate::wire::output::Output;

mod advice;
mod capture;
mod divert;
mod live;
mod local;
mod packet;
mod story;
mod tables;
#[cfg(test)]
mod tests;
mod view;

pub(super) fn command() -> Clap {
    Clap::new("tylo explain")
        .about("Says step by step what becomes of a packet, and by which RFC clause or setting")
        .override_usage(
            "tylo explain [OPTIONS] PROTOCOL SOURCE DESTINATION\n       \
             tylo explain [OPTIONS] --pcap FILE\n       \
             tylo explain [OPTIONS] --live FILTER",
        )
        .after_help(
            "Copies the instances of the daemon (or reads one from --config) and lets the packet go \
             through the copy: the gateway itself is not changed and sends nothing. Without -i, the \
             instances are those that the rules would hand the packet to, in their order. What is \
             in [brackets] is the clause of an RFC or the key of a setting; what is behind -> \
             changes it.\n\n\
             The packets of a file go through one copy, one after the other, so that later ones find \
             what earlier ones made. With --live, the instances are copied anew for every packet; the \
             gateway may have handled it by then.\n\n\
             Which port of pool4 a new client gets is decided by a secret of the gateway and may be \
             another one than here. Nothing is known here of other gateways of a cluster, of links' \
             MTUs, and of rules and routes that are not tylo's; with --config, nor of the host's addresses.\n\n\
             Exits with 0 when the packet was explained, whatever becomes of it.",
        )
        .args(packet::args())
        .arg(
            Arg::new("pcap")
                .long("pcap")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Explain the packets of a capture, pcap or pcapng; - is standard input"),
        )
        .arg(
            Arg::new("live")
                .long("live")
                .value_name("FILTER")
                .help("Explain packets as they come in, by tcpdump with this filter, until Ctrl-C"),
        )
        .group(
            ArgGroup::new("what")
                .args(["packet", "pcap", "live"])
                .required(true),
        )
        .arg(instance_arg().help("Only this instance (default: those that would get it)"))
        .arg(flavour_arg().help("Only instances of this flavour"))
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Explain against this file for 'file handle' and ask no daemon"),
        )
        .arg(
            Arg::new("limit")
                .long("limit")
                .value_name("N")
                .value_parser(value_parser!(u64).range(1..))
                .conflicts_with("packet")
                .help("End after so many packets (default: 100 of a file, no end with --live)"),
        )
        .arg(
            Arg::new("verbose")
                .short('v')
                .long("verbose")
                .action(ArgAction::SetTrue)
                .help("All steps of every packet, not just a line for each"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print a JSON object on a line for each packet"),
        )
}

/// The command `tylo explain`. `args` begins with its name.
pub(super) fn explain(args: Args<'_>) -> ExitCode {
    let found = match take(command(), args) {
        Ok(found) => found,
        Err(code) => return code,
    };
    finish(|out| {
        let asked = Asked::of(&found)?;
        if let Some(packet) = &asked.packet {
            let mut world = asked.world(packet.protocol())?;
            let story = tell(&mut world, &asked.choice, packet, START);
            return Ok(asked.print(out, &story, None, true)?);
        }
        match (&asked.pcap, &asked.filter) {
            (Some(path), _) => file(&asked, path, out),
            (None, Some(filter)) => live::live(&asked, filter, out),
            (None, None) => Ok(()),
        }
    })
}

/// The command line.
struct Asked {
    packet: Option<Packet>,
    mark: u32,
    pcap: Option<PathBuf>,
    filter: Option<String>,
    choice: Choice,
    config: Option<PathBuf>,
    limit: Option<u64>,
    verbose: bool,
    json: bool,
}

impl Asked {
    fn of(found: &ArgMatches) -> Result<Self, RunError> {
        let wrong = |error: PacketError| usage("explain", error.to_string());
        Ok(Self {
            packet: Packet::of(found).map_err(wrong)?,
            mark: packet::mark(found).map_err(wrong)?,
            pcap: found.get_one("pcap").cloned(),
            filter: found.get_one("live").cloned(),
            choice: Choice {
                name: instance(found)?,
                flavour: flavour(found),
            },
            config: found.get_one("config").cloned(),
            limit: found.get_one("limit").copied(),
            verbose: found.get_flag("verbose"),
            json: found.get_flag("json"),
        })
    }

    /// All instances, as far as they matter to packets of one protocol, or of all.
    fn world(&self, protocol: Option<Protocol>) -> Result<World, RunError> {
        match &self.config {
            Some(path) => World::of_file(path, &self.choice),
            None => World::of_daemon(&self.choice, protocol),
        }
    }

    /// `alone` is for one packet: all of it is told.
    fn print(
        &self,
        out: &mut dyn Write,
        story: &Story,
        number: Option<u64>,
        alone: bool,
    ) -> io::Result<()> {
        if self.json {
            return writeln!(out, "{}", story.json(number));
        }
        if let Some(number) = number.filter(|_| !alone) {
            writeln!(out, "{number}. {}", story.summary())?;
        }
        if alone || self.verbose {
            steps(out, story)?;
        }
        Ok(())
    }

    /// What there is to say of a record without a packet.
    fn skip(&self, out: &mut dyn Write, number: u64, why: &str) -> io::Result<()> {
        if self.json {
            let object = serde_json::json!({
                "version": 1, "number": number, "outcome": "skipped", "text": why
            });
            return writeln!(out, "{object}");
        }
        writeln!(out, "{number}. skipped: {why}")
    }
}

fn steps(out: &mut dyn Write, story: &Story) -> io::Result<()> {
    for step in &story.steps {
        let why = match step.why.as_str() {
            "" => String::new(),
            why => format!("  [{why}]"),
        };
        writeln!(out, "{:<12}  {}{why}", step.step, step.text)?;
        if !step.remedy.is_empty() {
            writeln!(out, "{:<12}  -> {}", "", step.remedy)?;
        }
    }
    Ok(())
}

/// Explains the packets of a file.
fn file(asked: &Asked, path: &Path, out: &mut dyn Write) -> Result<(), RunError> {
    let complaint =
        |what: &str| RunError::NotReady(format!("the file '{}': {what}", path.display()));
    let opened = if path == Path::new("-") {
        Capture::open(io::stdin(), None)
    } else {
        let opened = File::open(path).map_err(|error| complaint(&error.to_string()))?;
        Capture::open(opened, None)
    };
    let capture = opened.map_err(|error| complaint(&error.to_string()))?;
    let mut world = asked.world(None)?;
    let read = records(asked, capture, &mut world, out)?;
    read.map_err(|error| complaint(&error.to_string()))
}

/// Explains all packets of a capture by one copy; the inner error is about the capture.
fn records(
    asked: &Asked,
    mut capture: Capture,
    world: &mut World,
    out: &mut dyn Write,
) -> io::Result<Result<(), CaptureError>> {
    let limit = asked.limit.unwrap_or(FILE_LIMIT);
    let (mut number, mut clock) = (0, Clock::default());
    let mut first: Option<Story> = None;
    loop {
        let record = match capture.next() {
            Ok(Some(record)) => record,
            Ok(None) => break,
            Err(error) => {
                flush_first(asked, &mut first, out, false)?;
                return Ok(Err(error));
            }
        };
        if number == limit {
            flush_first(asked, &mut first, out, false)?;
            if !asked.json {
                writeln!(out, "... and more; --limit {limit} ends it here")?;
            }
            return Ok(Ok(()));
        }
        number += 1;
        let now = clock.now(&record);
        world.expire(now);
        match record.packet {
            Ok(bytes) => {
                let mark = asked.mark;
                let packet = Packet { bytes, mark };
                let story = tell(world, &asked.choice, &packet, now);
                if number == 1 {
                    // All of it is told if it remains the only one.
                    first = Some(story);
                    continue;
                }
                flush_first(asked, &mut first, out, false)?;
                asked.print(out, &story, Some(number), false)?;
            }
            Err(why) => {
                flush_first(asked, &mut first, out, false)?;
                asked.skip(out, number, &why.to_string())?;
            }
        }
    }
    flush_first(asked, &mut first, out, true)?;
    if number == 0 && !asked.json {
        writeln!(out, "the capture has no packets")?;
    }
    Ok(Ok(()))
}

fn flush_first(
    asked: &Asked,
    first: &mut Option<Story>,
    out: &mut dyn Write,
    alone: bool,
) -> io::Result<()> {
    match first.take() {
        Some(story) => asked.print(out, &story, Some(1), alone),
        None => Ok(()),
    }
}

/// Time as the records have it, which does not go back.
#[derive(Default)]
struct Clock {
    first: Option<u64>,
    latest: u64,
}

impl Clock {
    fn now(&mut self, record: &Record) -> Tick {
        if let Some(at) = record.at {
            let first = *self.first.get_or_insert(at);
            self.latest = self.latest.max(at.saturating_sub(first));
        }
        START.after(self.latest)
    }
}

impl World {
    /// Ends what is over by then.
    fn expire(&mut self, now: Tick) {
        let mut out = Output::new();
        for local in &mut self.locals {
            local.instance.expire(now, usize::MAX, &mut out);
            // Nobody asks what ended.
            local.instance.drain_changes(&mut Vec::new());
        }
    }
}

/// Packets of a file that are explained when nothing else is said.
const FILE_LIMIT: u64 = 100;
