// SPDX-License-Identifier: GPL-2.0-or-later
//! The lines that `logging-bib` and `logging-session` ask for (RFC 6888 section 4).
//!
//! Their form is Jool's, so that its parsers go on working: instance, date and time in UTC without
//! leading zeroes, and what happened. They go to standard error, which is the journal, as they
//! are; a thread of its own makes and writes them. Unlike Jool's, the ends of mappings and sessions
//! are there whatever the cause, not only when they expired, and so are static mappings.

use std::fmt::{self, Write as _};
use std::io::Write;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::news::{News, row};
use super::outlet::{Next, Outlet, outlet};
use crate::nat64::{self, Change};

/// Takes what is to be logged. Dropping it writes what was taken.
pub(super) struct Log {
    outlet: Option<Outlet<Entry>>,
    /// Hangs up when everything is written.
    done: Mutex<Receiver<()>>,
}

/// Which lines an instance asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) bib: bool,
    pub(super) sessions: bool,
}

struct Entry {
    instance: String,
    wanted: Wanted,
    news: Arc<News>,
}

impl Log {
    /// Starts the thread, which writes to `sink`.
    ///
    /// # Errors
    /// There can be no more threads.
    pub(super) fn start(mut sink: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (outlet, mut inlet) = outlet::<Entry>();
        let (running, done) = mpsc::channel();
        std::thread::Builder::new()
            .name("tylo-log".to_owned())
            .spawn(move || {
                let _running: mpsc::Sender<()> = running;
                let (mut lost, mut complained) = (0, None);
                loop {
                    match inlet.next(LOOK_AGAIN) {
                        Next::News(entry) => write(&mut sink, &entry),
                        Next::Lost(lines) => lost += lines,
                        Next::Silence => {}
                        Next::Closed => break,
                    }
                    let due = complained.is_none_or(|at: Instant| at.elapsed() >= COMPLAIN_EVERY);
                    if lost > 0 && due {
                        complain(lost);
                        (lost, complained) = (0, Some(Instant::now()));
                    }
                }
                if lost > 0 {
                    complain(lost);
                }
            })?;
        Ok(Self {
            outlet: Some(outlet),
            done: Mutex::new(done),
        })
    }

    /// Takes the lines of an instance; never waits.
    pub(super) fn take(&self, instance: &str, wanted: Wanted, news: &Arc<News>) {
        let Some(outlet) = &self.outlet else { return };
        let entry = Entry {
            instance: instance.to_owned(),
            wanted,
            news: Arc::clone(news),
        };
        let lines = news.changes.iter().filter(|c| wanted.has(c)).count();
        outlet.offer(entry, lines);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.outlet = None;
        // Whoever reads standard error may have stopped to.
        let done = self.done.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = done.recv_timeout(LAST_WORDS);
    }
}

impl Wanted {
    /// Whether a change is worth a line.
    const fn has(self, change: &Change) -> bool {
        match change {
            Change::Mapping(_) | Change::MappingGone { .. } => self.bib,
            Change::Session { news, .. } => match news {
                nat64::News::Began => self.sessions,
                nat64::News::Changed | nat64::News::LivesOn => false,
            },
            Change::SessionGone { .. } => self.sessions,
            Change::MappingFixed(_) => false,
        }
    }
}

fn complain(lines: u64) {
    tracing::warn!(
        lines,
        "lines of logging-bib and logging-session were lost: standard error is read too slowly"
    );
}

/// Writes the lines of an entry at once, so that others do not come between.
fn write(sink: &mut impl Write, entry: &Entry) {
    let mut text = String::new();
    for change in &entry.news.changes {
        if entry.wanted.has(change) {
            // Strings take everything.
            let _ = line(&mut text, &entry.instance, &entry.news, change);
        }
        if text.len() >= WRITE_AT {
            let _ = sink.write_all(text.as_bytes());
            text.clear();
        }
    }
    // There is nowhere to complain about a closed standard error.
    let _ = sink.write_all(text.as_bytes());
}

//= jool#logging
fn line(text: &mut String, instance: &str, news: &News, change: &Change) -> fmt::Result {
    write!(text, "{instance} {} - ", Moment(news.clock.wall))?;
    match change {
        Change::Mapping(m) | Change::MappingFixed(m) => {
            writeln!(text, "Mapped {} to {} ({})", m.v6, m.v4, m.protocol)
        }
        Change::MappingGone { protocol, v6, v4 } => {
            writeln!(text, "Forgot {v6} to {v4} ({protocol})")
        }
        Change::Session { session: s, v6, .. } => {
            let row = row(s.protocol, news.pool6, *v6, s.v4, s.remote, 0, None);
            let (src6, dst6, src4, dst4) = (row.src6, row.dst6, row.src4, row.dst4);
            writeln!(
                text,
                "Added session {src6}|{dst6}|{src4}|{dst4}|{}",
                s.protocol
            )
        }
        Change::SessionGone {
            protocol,
            v6,
            v4,
            remote,
        } => {
            let row = row(*protocol, news.pool6, *v6, *v4, *remote, 0, None);
            let (src6, dst6, src4, dst4) = (row.src6, row.dst6, row.src4, row.dst4);
            writeln!(
                text,
                "Forgot session {src6}|{dst6}|{src4}|{dst4}|{protocol}"
            )
        }
    }
}

/// Milliseconds since 1970, shown as Jool shows a moment.
struct Moment(u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1000;
        let (days, second) = (seconds / DAY, seconds % DAY);
        // Years that begin in March have their leap day at the end. 719,468 days lie between the
        // first of March of the year 0 and 1970.
        let days = days + 719_468;
        let (era, day) = (days / ERA, days % ERA);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 {
            (month + 3, 0)
        } else {
            (month - 9, 1)
        };
        let year = era * 400 + year + next;
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year}/{month}/{day} {hour}:{minute}:{second} (GMT)")
    }
}

/// Seconds.
const DAY: u64 = 86_400;

/// Days of 400 years.
const ERA: u64 = 146_097;

/// Bytes that are written at once.
const WRITE_AT: usize = 64 << 10;

const LOOK_AGAIN: Duration = Duration::from_secs(1);
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
const LAST_WORDS: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Protocol;
    use crate::daemon::news::tests::everything;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is written of one change of each kind.
    fn written(bib: bool, sessions: bool, protocol: Protocol) -> String {
        let sink = Sink::default();
        let log = Log::start(sink.clone()).unwrap();
        let wanted = Wanted { bib, sessions };
        log.take("default", wanted, &Arc::new(everything(protocol)));
        drop(log);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    //= jool#logging
    //= type=test
    #[test]
    fn lines_are_those_that_parsers_know() {
        let both = "\
default 2026/11/21 4:48:3 (GMT) - Mapped 2001:db8::8#5000 to 192.0.2.1#61001 (TCP)
default 2026/11/21 4:48:3 (GMT) - Added session 2001:db8::8#5000|64:ff9b::cb00:7102#80|192.0.2.1#61001|203.0.113.2#80|TCP
default 2026/11/21 4:48:3 (GMT) - Forgot session 2001:db8::8#5000|64:ff9b::cb00:7102#80|192.0.2.1#61001|203.0.113.2#80|TCP
default 2026/11/21 4:48:3 (GMT) - Forgot 2001:db8::8#5000 to 192.0.2.1#61001 (TCP)
";
        assert_eq!(written(true, true, Protocol::Tcp), both);
        let some = |sessions| -> String {
            let lines = both.split_inclusive('\n');
            lines
                .filter(|l| l.contains("session") == sessions)
                .collect()
        };
        assert_eq!(written(true, false, Protocol::Tcp), some(false));
        assert_eq!(written(false, true, Protocol::Tcp), some(true));
        assert_eq!(written(false, false, Protocol::Tcp), "");
        let ping = written(false, true, Protocol::Icmp);
        assert!(
            ping.contains("|64:ff9b::cb00:7102#5000|192.0.2.1#61001|203.0.113.2#61001|ICMP\n"),
            "{ping}"
        );
    }

    #[test]
    fn moments_are_dates() {
        for (seconds, text) in [
            (0, "1970/1/1 0:0:0"),
            (951_782_399, "2000/2/28 23:59:59"),
            (951_782_400, "2000/2/29 0:0:0"),
            (951_868_800, "2000/3/1 0:0:0"),
            (1_735_689_599, "2024/12/31 23:59:59"),
            (1_735_689_600, "2025/1/1 0:0:0"),
            (4_107_542_400, "2100/3/1 0:0:0"),
            (4_107_542_399, "2100/2/28 23:59:59"),
        ] {
            assert_eq!(Moment(seconds * 1000).to_string(), format!("{text} (GMT)"));
        }
    }

    /// A million sessions that end at once have all their lines.
    #[test]
    fn many_lines_at_once_are_written() {
        let sink = Sink::default();
        let log = Log::start(sink.clone()).unwrap();
        let mut news = everything(Protocol::Udp);
        let gone = news.changes.pop().unwrap();
        news.changes = vec![gone; 100_000];
        let wanted = Wanted {
            bib: true,
            sessions: false,
        };
        log.take("default", wanted, &Arc::new(news));
        drop(log);
        let lines = sink
            .0
            .lock()
            .unwrap()
            .iter()
            .filter(|b| **b == b'\n')
            .count();
        assert_eq!(lines, 100_000);
    }
}
