// SPDX-License-Identifier: GPL-2.0-or-later
//! Packets as they come in, by `tcpdump`.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::net::netdevice::name_to_index;
use socket2::{Domain, Socket, Type};

use super::Asked;
use super::capture::{Capture, CaptureError, Nothing};
use super::local::START;
use super::packet::Packet;
use super::story::explain as tell;
use crate::base::Protocol;
use crate::cli::follow::{on_interrupt, reader_left};
use crate::cli::run::RunError;
use crate::cli::say;
use crate::cli::verbs::doctor::TUN;

/// Explains packets until Ctrl-C, the reader's end, or the limit.
pub(super) fn live(asked: &Asked, filter: &str, out: &mut dyn Write) -> Result<(), RunError> {
    // Complains before anything is captured; and a file is read only once.
    let mut world = asked.world(Some(Protocol::Icmp))?;
    let mut dump = Dump::start(filter)?;
    let child = Arc::clone(&dump.child);
    let stopped = on_interrupt(move || kill(&child))?;
    let (child, left) = (Arc::clone(&dump.child), Arc::clone(&stopped));
    // There may be no further packet to find out by.
    thread::Builder::new().spawn(move || {
        if reader_left(None) {
            left.store(true, Ordering::Relaxed);
            kill(&child);
        }
    })?;
    say("Note", &"explaining what comes in; Ctrl-C ends it");
    let result = follow(asked, &mut world, &mut dump, out);
    dump.end();
    match result {
        Ok(Some(error)) if !stopped.load(Ordering::Relaxed) => {
            Err(failed(&error, dump.complaint()))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The inner error is the capture's.
fn follow(
    asked: &Asked,
    world: &mut super::World,
    dump: &mut Dump,
    out: &mut dyn Write,
) -> Result<Option<CaptureError>, RunError> {
    let Some(packets) = dump.packets.take() else {
        return Ok(None);
    };
    let mut capture = match Capture::open(packets, own_interface()) {
        Ok(capture) => capture,
        Err(error) => return Ok(Some(error)),
    };
    let mut number = 0;
    loop {
        let record = match capture.next() {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some(error)),
        };
        let why = match record.packet {
            Ok(bytes) => {
                number += 1;
                let mark = asked.mark;
                let packet = Packet { bytes, mark };
                if asked.config.is_none() {
                    *world = asked.world(packet.protocol())?;
                }
                let story = tell(world, &asked.choice, &packet, START);
                asked.print(out, &story, Some(number), false)?;
                None
            }
            Err(Nothing::Outgoing | Nothing::NotIp(_)) => None,
            Err(why) => Some(why),
        };
        if let Some(why) = why {
            number += 1;
            asked.skip(out, number, &why.to_string())?;
        }
        // Somebody watches.
        out.flush()?;
        if asked.limit.is_some_and(|limit| number >= limit) {
            return Ok(None);
        }
    }
}

/// A running tcpdump.
struct Dump {
    child: Arc<Mutex<Child>>,
    packets: Option<std::process::ChildStdout>,
    complaints: Option<thread::JoinHandle<String>>,
}

impl Dump {
    fn start(filter: &str) -> Result<Self, RunError> {
        let mut command = Command::new("tcpdump");
        // All of every packet that comes in, by whatever interface, as soon as it does.
        command.args([
            "-i",
            "any",
            "-Q",
            "in",
            "-s",
            "0",
            "-U",
            "--immediate-mode",
            "-w",
            "-",
            "--",
        ]);
        command.arg(filter);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            RunError::NotReady(if error.kind() == io::ErrorKind::NotFound {
                "--live needs the program tcpdump, which is not installed: apt-get install tcpdump"
                    .to_owned()
            } else {
                format!("tcpdump cannot be started: {error}")
            })
        })?;
        let packets = child.stdout.take();
        let complaints = child.stderr.take().map(|mut from| {
            thread::spawn(move || {
                let mut text = Vec::new();
                // What it says besides does not matter, but it must not wait for a reader.
                let _ = from.read_to_end(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        Ok(Self {
            child: Arc::new(Mutex::new(child)),
            packets,
            complaints,
        })
    }

    fn end(&self) {
        kill(&self.child);
        let _ = lock(&self.child).wait();
    }

    /// What it said last.
    fn complaint(mut self) -> String {
        let said = self.complaints.take().and_then(|thread| thread.join().ok());
        let said = said.unwrap_or_default();
        let mut lines = said.lines().filter(|line| !line.contains("listening on"));
        lines.next_back().unwrap_or_default().to_owned()
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        self.end();
    }
}

fn kill(child: &Mutex<Child>) {
    // It may have ended by itself.
    let _ = lock(child).kill();
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(error: &CaptureError, said: String) -> RunError {
    RunError::NotReady(if said.is_empty() {
        error.to_string()
    } else {
        said
    })
}

/// The number of the device that translated packets come back by, if it has its usual name.
fn own_interface() -> Option<u32> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).ok()?;
    name_to_index(&socket, TUN).ok()
}
