// SPDX-License-Identifier: GPL-2.0-or-later
//! `session follow`: sessions as they begin and change, a line each.
//!
//! Standard output has nothing but rows. What Jool says there before the first row is said on
//! standard error, and so is what was missed: whoever parses rows need not know of it.

use std::io::{self, Write};
use std::net::Shutdown;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::client::Client;
use super::grammar::Call;
use super::run::{RunError, foreign};
use super::say;
use crate::model::SessionRow;
use crate::model::control::{Reply, SessionEvent, SessionEventKind};
use crate::model::settings::format_duration;

/// What a line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// A first column that says what happened. Ends of sessions are there only with it.
    pub(super) events: bool,
    /// JSON objects instead of comma-separated values.
    pub(super) json: bool,
}

/// Follows until Ctrl-C, the reader's end, or the end of what is followed.
pub(super) fn follow(call: &Call, form: Form, out: &mut dyn Write) -> Result<(), RunError> {
    let mut client = Client::connect()?;
    let stream = client.handle()?;
    let stopped = on_interrupt(move || {
        // Fails when the other end has hung up already.
        let _ = stream.shutdown(Shutdown::Both);
    })?;
    let mut begun = false;
    let result = client.call(&call.request, |reply| {
        if let Reply::Lost(lines) = reply {
            say(
                "Warning",
                &format!("{lines} lines are missing here: they were not read fast enough"),
            );
            return Ok(());
        }
        let Reply::Events(events) = reply else {
            return Err(RunError::from(foreign()));
        };
        if !std::mem::replace(&mut begun, true) {
            let name = &call.request.instance;
            say(
                "Note",
                &format!("following the sessions of instance '{name}'; Ctrl-C ends it"),
            );
        }
        for event in &events {
            line(out, form, event)?;
        }
        out.flush()?;
        // Without rows, nothing else would tell.
        if events.is_empty() && reader_left(Some(&Timespec::default())) {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
        }
        Ok(())
    });
    match result {
        Err(RunError::Client(_)) if stopped.load(Ordering::Relaxed) => Ok(()),
        Ok(()) | Err(_) => result,
    }
}

//= jool#session-follow
fn line(out: &mut (impl Write + ?Sized), form: Form, event: &SessionEvent) -> io::Result<()> {
    #[derive(Serialize)]
    struct Object<'a> {
        event: SessionEventKind,
        #[serde(flatten)]
        session: &'a SessionRow,
    }
    let SessionEvent { event, session } = event;
    if form.json {
        let object = Object {
            event: *event,
            session,
        };
        return writeln!(out, "{}", serde_json::to_string(&object)?);
    }
    if form.events {
        write!(out, "{},", event.name())?;
    }
    let (src6, src4, dst4) = (session.src6, session.src4, session.dst4);
    writeln!(
        out,
        "{},{},{},{},{},{},{},{}",
        session.protocol,
        src6.addr,
        src6.port,
        src4.addr,
        src4.port,
        dst4.addr,
        dst4.port,
        format_duration(session.expires_in)
    )
}

/// Lets Ctrl-C do something that ends all else, so that no row is cut in two; the flag says that it
/// did.
pub(super) fn on_interrupt(end: impl FnOnce() + Send + 'static) -> io::Result<Arc<AtomicBool>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let stopped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stopped);
    thread::Builder::new().spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_err() {
            return;
        }
        flag.store(true, Ordering::Relaxed);
        end();
        // Whoever is stuck in writing to a reader that does not read has nothing to finish.
        thread::sleep(FAREWELL);
        process::exit(0);
    })?;
    Ok(stopped)
}

/// Whether nobody reads standard output any more, or ceases to within that time.
pub(super) fn reader_left(within: Option<&Timespec>) -> bool {
    let out = io::stdout();
    let mut ends = [PollFd::new(&out, PollFlags::empty())];
    let found = poll(&mut ends, within).is_ok();
    let [end] = ends;
    found && end.revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

const FAREWELL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Protocol;
    use crate::model::TcpState;

    fn event() -> SessionEvent {
        SessionEvent {
            event: SessionEventKind::Update,
            session: SessionRow {
                protocol: Protocol::Tcp,
                src6: "2001:db8::8#37878".parse().unwrap(),
                dst6: "64:ff9b::c000:208#1234".parse().unwrap(),
                src4: "192.0.2.1#62805".parse().unwrap(),
                dst4: "192.0.2.8#1234".parse().unwrap(),
                expires_in: 7_198_232,
                state: Some(TcpState::Established),
            },
        }
    }

    fn printed(events: bool, json: bool) -> String {
        let mut out = Vec::new();
        line(&mut out, Form { events, json }, &event()).unwrap();
        String::from_utf8(out).unwrap()
    }

    //= jool#session-follow
    //= type=test
    #[test]
    fn columns_are_those_of_jool() {
        let row = "TCP,2001:db8::8,37878,192.0.2.1,62805,192.0.2.8,1234,1:59:58.232\n";
        assert_eq!(printed(false, false), row);
        assert_eq!(printed(true, false), format!("update,{row}"));
    }

    #[test]
    fn objects_have_all_that_is_known() {
        let object = "{\"event\":\"update\",\"protocol\":\"TCP\",\"src6\":\"2001:db8::8#37878\",\
                      \"dst6\":\"64:ff9b::c000:208#1234\",\"src4\":\"192.0.2.1#62805\",\
                      \"dst4\":\"192.0.2.8#1234\",\"expires_in\":7198232,\
                      \"state\":\"ESTABLISHED\"}\n";
        assert_eq!(printed(false, true), object);
        assert_eq!(printed(true, true), object);
    }
}
