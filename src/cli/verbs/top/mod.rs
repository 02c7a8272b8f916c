// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo top`: what the gateway does now, on a screen that is drawn anew all the time.
//!
//! Threads ask and listen: one for numbers, one for the sessions, which may take long, one for keys
//! and one for signals. What they find comes to the main thread in order, which draws.

use std::io::{self, IsTerminal, Write, stdout};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command as Clap, value_parser};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use self::render::Theme;
use self::state::{Key, Look, Question, Sample, State, Wanted};
use self::terminal::Screen;
use super::{Args, flavour, flavour_arg, instance, instance_arg, take, usage};
use crate::cli::client::ClientError;
use crate::cli::run::{RunError, finish};
use crate::model::Flavour;
use crate::model::control::{Failure, InstanceHealth};

mod ask;
mod numbers;
mod parts;
mod render;
mod state;
mod terminal;

/// The least screen, in columns and lines.
const WIDTH: u16 = 80;
const HEIGHT: u16 = 24;

pub(super) fn command() -> Clap {
    Clap::new("tylo top")
        .about("Shows rates, sessions, clients, pool4, workers and the cluster, as they change")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(
            "Needs a terminal of 80x24 at least; keys are on its last line. Users who are neither \
             root nor in the group 'tylo' see totals. With NO_COLOR in the environment there are \
             no colours.\n\n\
             Exits with 0 when a key or Ctrl-C ended it, with 143 after SIGTERM and 129 when the \
             terminal hung up.",
        )
        .arg(instance_arg().help("The instance to begin with (default: the first)"))
        .arg(flavour_arg())
        .arg(
            Arg::new("interval")
                .long("interval")
                .short('n')
                .value_name("SECONDS")
                .default_value("1")
                .value_parser(interval)
                .help("How often to ask, 0.5 to 3600"),
        )
        .arg(
            Arg::new("batch")
                .long("batch")
                .short('b')
                .value_name("NUMBER")
                .value_parser(value_parser!(u32).range(1..))
                .help("Print so many pages of text instead, one an interval"),
        )
        .arg(
            Arg::new("once")
                .long("once")
                .action(ArgAction::SetTrue)
                .conflicts_with("batch")
                .help("Print one page of text, after one interval"),
        )
}

/// Seconds.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(0.5..=3600.0).contains(&seconds) {
        return Err("choose 0.5 to 3600".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    flavour: Flavour,
    name: String,
}

impl Target {
    fn of(instance: &InstanceHealth) -> Self {
        Self {
            flavour: instance.flavour,
            name: instance.name.clone(),
        }
    }

    fn is(&self, instance: &InstanceHealth) -> bool {
        self.flavour == instance.flavour && self.name == instance.name
    }
}

/// What the main thread is told.
enum News {
    Key(Key),
    Resized,
    /// With this exit status.
    Quit(u8),
    Sample(Box<Result<Sample, String>>),
    Look(Box<Look>),
}

/// The command `tylo top`. `args` begins with its name.
pub(super) fn top(args: Args<'_>) -> ExitCode {
    let found = match take(command(), args) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let batch = found.get_one::<u32>("batch").copied();
    let pages = batch.or_else(|| found.get_flag("once").then_some(1));
    if let Some(pages) = pages {
        return finish(|out| print(state(&found)?, pages, out));
    }
    // Not within `finish`, which keeps standard output for this thread: a panic in another one
    // must be able to give the terminal back.
    let result = state(&found).and_then(show);
    finish(|_| result)
}

fn state(found: &ArgMatches) -> Result<State, RunError> {
    let wanted = Wanted {
        flavour: flavour(found),
        name: instance(found)?,
    };
    let interval = found.get_one("interval").copied();
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy().into_owned();
    Ok(State::new(host, wanted, interval.unwrap_or(SECOND)))
}

/// Text, for whom there is no terminal.
fn print(mut state: State, pages: u32, out: &mut dyn Write) -> Result<(), RunError> {
    let start = Instant::now();
    let sample = ask::sample(state.wanted(), start)?;
    if sample.target.is_none() {
        let message = "there is no such instance; see 'tylo health'".to_owned();
        let code = libc::ESRCH as u8;
        return Err(ClientError::Refused(Failure { code, message }).into());
    }
    state.hear(Ok(sample));
    for page in 0..pages {
        thread::sleep(state.interval);
        state.hear(Ok(ask::sample(state.wanted(), start)?));
        state.now = start.elapsed();
        if let Some(question) = state.question().filter(|_| state.look_due() <= state.now) {
            state.saw(ask::look(question, start));
        }
        state.now = start.elapsed();
        let area = Rect::new(0, 0, WIDTH, render::wanted_height(&state));
        let mut buffer = Buffer::empty(area);
        render::draw(&state, Theme { colours: false }, area, &mut buffer);
        if page > 0 {
            writeln!(out)?;
        }
        out.write_all(text(&buffer).as_bytes())?;
        out.flush()?;
    }
    Ok(())
}

/// The lines of a page but for the last, which is about keys.
fn text(buffer: &Buffer) -> String {
    let rows = buffer.content.chunks(usize::from(buffer.area.width).max(1));
    let lines = rows.map(|row| {
        let line: String = row.iter().map(|cell| cell.symbol()).collect();
        format!("{}\n", line.trim_end())
    });
    let lines: Vec<String> = lines.collect();
    let lines = lines.split_last().map_or(&[][..], |(_, lines)| lines);
    format!("{}\n", lines.concat().trim_end())
}

/// The screen, until somebody ends it.
fn show(state: State) -> Result<(), RunError> {
    if !stdout().is_terminal() {
        let message = "standard output is no terminal; --once or --batch NUMBER prints text";
        return Err(usage("top", message.to_owned()));
    }
    match on_screen(state).map_err(RunError::Terminal)? {
        0 => Ok(()),
        code => Err(RunError::Said(code)),
    }
}

/// The exit status.
fn on_screen(state: State) -> io::Result<u8> {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let theme = Theme {
        colours: !no_colour,
    };
    let (sender, news) = mpsc::channel();
    let start = Instant::now();
    // Before the terminal is changed: who is told to end must be able to give it back.
    terminal::listen(&sender)?;
    let (samples, wants) = mpsc::channel::<Wanted>();
    let to = sender.clone();
    serve("samples", wants, to, move |wanted| {
        let sample = ask::sample(&wanted, start).map_err(|error| error.to_string());
        News::Sample(Box::new(sample))
    })?;
    let (looks, questions) = mpsc::channel::<Question>();
    serve("sessions", questions, sender, move |question| {
        News::Look(Box::new(ask::look(question, start)))
    })?;
    let mut screen = Screen::open()?;
    Show {
        state,
        theme,
        start,
        samples,
        looks,
        sample_due: Some(Duration::ZERO),
        looking: false,
        again: false,
    }
    .run(&news, &mut screen)
}

/// A thread that answers one question after the other.
fn serve<T: Send + 'static>(
    name: &str,
    questions: Receiver<T>,
    sender: Sender<News>,
    mut answer: impl FnMut(T) -> News + Send + 'static,
) -> io::Result<()> {
    let thread = thread::Builder::new().name(name.to_owned());
    let work = move || {
        for question in questions {
            if sender.send(answer(question)).is_err() {
                return;
            }
        }
    };
    thread.spawn(work).map(drop)
}

struct Show {
    state: State,
    theme: Theme,
    start: Instant,
    samples: Sender<Wanted>,
    looks: Sender<Question>,
    /// When to ask for numbers again; `None` while an answer is awaited.
    sample_due: Option<Duration>,
    /// Whether an answer is awaited.
    looking: bool,
    /// Whether the answer that is awaited is not what is wanted any more.
    again: bool,
}

impl Show {
    /// The exit status.
    fn run(mut self, news: &Receiver<News>, screen: &mut Screen) -> io::Result<u8> {
        loop {
            self.state.now = self.start.elapsed();
            self.ask()?;
            let (state, theme) = (&self.state, self.theme);
            let drawn =
                screen.draw(|frame| render::draw(state, theme, frame.area(), frame.buffer_mut()));
            match drawn {
                Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(HUNG_UP),
                drawn => drawn?,
            }
            let first = match news.recv_timeout(self.patience()) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                // Who could tell us to end is gone.
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            };
            // All that is there, before it is drawn.
            for news in first.into_iter().chain(news.try_iter()) {
                if let Some(code) = self.hear(news) {
                    return Ok(code);
                }
            }
        }
    }

    fn ask(&mut self) -> io::Result<()> {
        let now = self.state.now;
        if self.state.paused {
            return Ok(());
        }
        if self.sample_due.is_some_and(|due| due <= now) {
            self.sample_due = None;
            self.again = false;
            let wanted = self.state.wanted().clone();
            self.samples.send(wanted).map_err(io::Error::other)?;
        }
        if !self.looking
            && self.state.look_due() <= now
            && let Some(question) = self.state.question()
        {
            self.looking = true;
            self.looks.send(question).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// How long nothing changes: figures grow older each second.
    fn patience(&self) -> Duration {
        let due = self.sample_due.filter(|_| !self.state.paused);
        let wait = due.map_or(SECOND, |due| due.saturating_sub(self.state.now));
        wait.min(SECOND)
    }

    fn hear(&mut self, news: News) -> Option<u8> {
        self.state.now = self.start.elapsed();
        match news {
            News::Quit(code) => return Some(code),
            News::Key(Key::Quit) => return Some(0),
            News::Key(key) => {
                if self.state.press(key) {
                    self.again = self.sample_due.is_none();
                    self.sample_due = self.sample_due.map(|_| self.state.now);
                }
            }
            News::Resized => {}
            News::Sample(answer) => {
                let rest = Some(self.state.interval).filter(|_| !self.again);
                self.sample_due = Some(self.state.now + rest.unwrap_or_default());
                self.state.hear(*answer);
            }
            News::Look(look) => {
                self.looking = false;
                self.state.saw(*look);
            }
        }
        None
    }
}

/// What a shell says of a program that the end of its terminal ended.
const HUNG_UP: u8 = 128 + libc::SIGHUP as u8;

const SECOND: Duration = Duration::from_secs(1);
