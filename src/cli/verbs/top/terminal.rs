// SPDX-License-Identifier: GPL-2.0-or-later
//! The terminal: a screen of its own while we run, keys, signals; and as it was, afterwards.

use std::fs::File;
use std::io::{self, IsTerminal, Read, stdin, stdout};
use std::mem;
use std::os::fd::AsFd;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{Clear, ClearType, EnterAlternateScreen};
use ratatui::layout::Rect;
use ratatui::{DefaultTerminal, Frame, Terminal, TerminalOptions, Viewport};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::signal::unix::{SignalKind, signal};

use super::state::Key;
use super::{HUNG_UP, News};

/// The terminal while it is ours.
pub(super) struct Screen {
    /// `None` only while it is given back.
    terminal: Option<DefaultTerminal>,
    area: Rect,
}

impl Screen {
    /// Takes the terminal, and sees to it that a panic gives it back.
    ///
    /// # Errors
    /// It cannot be set.
    pub(super) fn open() -> io::Result<Self> {
        let area = area();
        let opened = || {
            let terminal = ratatui::try_init_with_options(options(area))?;
            execute!(stdout(), EnterAlternateScreen)?;
            Ok(terminal)
        };
        match opened() {
            Ok(terminal) => Ok(Self {
                terminal: Some(terminal),
                area,
            }),
            Err(error) => {
                let _ = ratatui::try_restore();
                Err(error)
            }
        }
    }

    pub(super) fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        let area = area();
        if area != self.area {
            self.area = area;
            // Made anew rather than resized: that would ask the terminal where its cursor is, and
            // the answer would come among the keys.
            execute!(stdout(), Clear(ClearType::All))?;
            self.forget();
            let backend = CrosstermBackend::new(stdout());
            self.terminal = Some(Terminal::with_options(backend, options(area))?);
        }
        match &mut self.terminal {
            Some(terminal) => terminal.draw(render).map(drop),
            None => Ok(()),
        }
    }
}

impl Screen {
    /// Shows the cursor. When that fails, dropping the terminal would complain on standard error,
    /// and panic if that has hung up, too.
    fn forget(&mut self) {
        if let Some(mut terminal) = self.terminal.take()
            && terminal.show_cursor().is_err()
        {
            mem::forget(terminal);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.forget();
        // Fails when the terminal is gone.
        let _ = ratatui::try_restore();
    }
}

const fn options(area: Rect) -> TerminalOptions {
    TerminalOptions {
        viewport: Viewport::Fixed(area),
    }
}

/// The size of the terminal; serial ones do not know theirs.
fn area() -> Rect {
    let size = rustix::termios::tcgetwinsize(stdout());
    match size.map(|size| (size.ws_col, size.ws_row)) {
        Ok((columns @ 1.., rows @ 1..)) => Rect::new(0, 0, columns, rows),
        Ok(_) | Err(_) => Rect::new(0, 0, super::WIDTH, super::HEIGHT),
    }
}

/// Has keys and signals told from now on.
///
/// # Errors
/// There are no keys to read, or no threads to be had.
pub(super) fn listen(sender: &Sender<News>) -> io::Result<()> {
    let keys = sender.clone();
    // As crossterm does for the settings. Its own reader of keys goes round in circles, without a
    // pause, once the terminal has hung up.
    let mut terminal = if stdin().is_terminal() {
        File::from(stdin().as_fd().try_clone_to_owned()?)
    } else {
        File::open("/dev/tty")?
    };
    spawn("keys", move || read_keys(&mut terminal, &keys))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let signals = sender.clone();
    spawn("signals", move || {
        // Whoever cannot be told to end by a signal still obeys the keys.
        let _ = runtime.block_on(read_signals(&signals));
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(work).map(drop)
}

async fn read_signals(sender: &Sender<News>) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut resize = signal(SignalKind::window_change())?;
    loop {
        let news = tokio::select! {
            _ = interrupt.recv() => News::Quit(0),
            _ = terminate.recv() => News::Quit(TERMINATED),
            _ = hangup.recv() => News::Quit(HUNG_UP),
            _ = resize.recv() => News::Resized,
        };
        if sender.send(news).is_err() {
            return Ok(());
        }
    }
}

fn read_keys(terminal: &mut (impl Read + AsFd), sender: &Sender<News>) {
    let mut buffer = [0; 256];
    loop {
        let mut length = match terminal.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => break,
            Ok(length) => length,
        };
        // What a key sends may come in pieces, of which the first is what Esc sends.
        if buffer
            .get(..length)
            .is_some_and(|read| read.ends_with(&[ESC]))
            && soon(terminal)
        {
            let rest = buffer.get_mut(length..).unwrap_or_default();
            length += terminal.read(rest).unwrap_or(0);
        }
        for key in keys(buffer.get(..length).unwrap_or_default()) {
            if sender.send(News::Key(key)).is_err() {
                return;
            }
        }
    }
    let _ = sender.send(News::Quit(HUNG_UP));
}

/// Whether more comes within the time that pieces need.
fn soon(terminal: &impl AsFd) -> bool {
    let mut ends = [PollFd::new(terminal, PollFlags::IN)];
    let patience = Timespec::try_from(PIECES).ok();
    poll(&mut ends, patience.as_ref()).is_ok_and(|ready| ready > 0)
}

/// What was typed.
fn keys(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while let Some((first, rest)) = bytes.split_first() {
        bytes = rest;
        keys.extend(match *first {
            ESC => match rest {
                [] | [ESC, ..] => Some(Key::Quit),
                [b'[' | b'O', sequence @ ..] => {
                    let end = sequence.iter().position(|byte| (0x40..0x7f).contains(byte));
                    let behind = end.map_or(sequence.len(), |end| end + 1);
                    bytes = sequence.get(behind..).unwrap_or_default();
                    None
                }
                [_, rest @ ..] => {
                    bytes = rest;
                    None
                }
            },
            b'q' | b'Q' | CTRL_C => Some(Key::Quit),
            b'i' | b'\t' => Some(Key::Next),
            b'p' | b' ' => Some(Key::Pause),
            b's' => Some(Key::Sort),
            b'g' => Some(Key::Group),
            b'+' => Some(Key::Slower),
            b'-' => Some(Key::Faster),
            b'?' | b'h' => Some(Key::Help),
            _ => None,
        });
    }
    keys
}

const ESC: u8 = 0x1b;
const CTRL_C: u8 = 3;

/// How long the pieces of a key may be apart.
const PIECES: Duration = Duration::from_millis(100);

/// What a shell says of a program that SIGTERM ended.
const TERMINATED: u8 = 128 + libc::SIGTERM as u8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_told_from_what_other_keys_send() {
        use Key::{Faster, Help, Next, Quit, Slower};
        assert_eq!(keys(b"+-\t?"), [Slower, Faster, Next, Help]);
        for quits in [&b"q"[..], b"\x1b", b"\x03"] {
            assert_eq!(keys(quits), [Quit]);
        }
        // Arrows, a function key, Alt and q, the mouse.
        assert_eq!(keys(b"\x1b[A\x1bOPx\x1b[15~\x1bq\x1b[<0;1;1M+"), [Slower]);
        assert_eq!(keys(b"\x1b["), []);
    }

    proptest! {
        #[test]
        fn anything_may_be_typed(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(keys(&bytes).len() <= bytes.len());
        }
    }
}
