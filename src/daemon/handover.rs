// SPDX-License-Identifier: GPL-2.0-or-later
//! A running program gives way to its successor without a packet lost.
//!
//! Its workers end, everything is written to disk, and the program is replaced in place (`execve`):
//! the process, the queues with the packets that wait there, the TUN device, the rules and the
//! control socket stay. The successor finds their descriptors by names in its environment.
//!
//! Or else a service manager that keeps descriptors (systemd's `FileDescriptorStoreMax=`) hands
//! them to the program that it starts next.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use sd_notify::NotifyState;

use super::sandbox;
use crate::base::Tick;
use crate::dataplane::{self, Inherited};
use crate::model::control::Takeover;
use crate::ruleset::{Keeper, Mode};
use crate::store;

/// What one program leaves to the next.
#[derive(Default)]
pub(super) struct Legacy {
    pub(super) dataplane: Inherited,
    pub(super) control: Option<UnixListener>,
    /// The socket that the rules belong to, and what rules they are.
    pub(super) rules: Option<Keeper>,
    pub(super) ruleset: Option<u64>,
    /// How rules hand packets over, which does not change while the kernel runs.
    pub(super) mode: Option<Mode>,
    /// Since when packets wait, by the clock of [`dataplane::monotonic`].
    pub(super) since: Option<Tick>,
    pub(super) takeover: Takeover,
    /// Whether the predecessor gave up [system calls](sandbox), which lasts.
    pub(super) filtered: bool,
}

impl Legacy {
    /// What the program that was here before has left, if there was one.
    pub(super) fn from_environment() -> anyhow::Result<Self> {
        if let Some(text) = std::env::var_os(VARIABLE) {
            let mut legacy = Self {
                filtered: std::env::var_os(FILTERED).is_some(),
                ..Self::default()
            };
            legacy
                .read(&text.to_string_lossy(), &mut HashSet::new())
                .with_context(|| {
                    format!(
                        "{VARIABLE} is not what a predecessor leaves; start without this variable"
                    )
                })?;
            return Ok(legacy);
        }
        let kept = match sd_notify::listen_fds_with_names() {
            Ok(kept) => Self::from_service_manager(kept),
            Err(error) => Err(error.into()),
        };
        Ok(kept.unwrap_or_else(|error| {
            tracing::warn!("what the service manager kept is of no use: {error:#}");
            Self::default()
        }))
    }

    /// What was [left with](Self::deposit) the service manager.
    fn from_service_manager(kept: impl Iterator<Item = (RawFd, String)>) -> anyhow::Result<Self> {
        let (mut legacy, mut taken) = (Self::default(), HashSet::new());
        let kept: Vec<_> = kept.collect();
        // It has others of its own, with which queues would stay in use that this program closes, and
        // which it would hand to the program that follows a crash.
        let names: HashSet<_> = kept.iter().map(|(_, name)| name.as_str()).collect();
        for name in names {
            sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])?;
        }
        for (number, name) in kept {
            if name == NOTES {
                let mut notes = File::from(descriptor(number, &mut taken)?);
                let mut text = String::new();
                notes.rewind()?;
                notes.take(NOTES_MAX).read_to_string(&mut text)?;
                legacy.read(&text, &mut taken)?;
            } else {
                legacy.take(&name, &number.to_string(), &mut taken)?;
            }
        }
        Ok(legacy)
    }

    fn read(&mut self, text: &str, taken: &mut HashSet<RawFd>) -> anyhow::Result<()> {
        for (name, value) in text.split(',').filter_map(|item| item.split_once('=')) {
            self.take(name, value, taken)
                .with_context(|| format!("{name}={value}"))?;
        }
        Ok(())
    }

    fn take(&mut self, name: &str, value: &str, taken: &mut HashSet<RawFd>) -> anyhow::Result<()> {
        match name {
            "version" => value.clone_into(&mut self.takeover.from),
            "count" => self.takeover.count = value.parse()?,
            "since" => self.since = Some(Tick(value.parse()?)),
            "mode" => self.mode = Mode::ALL.into_iter().find(|m| m.to_string() == value),
            "ruleset" => self.ruleset = Some(value.parse()?),
            name => {
                let fd = descriptor(value.parse()?, taken)?;
                match (name, self.dataplane.take(name, fd)?) {
                    ("control", Some(fd)) => self.control = Some(fd.into()),
                    ("rules", Some(fd)) => self.rules = Some(fd.into()),
                    // Left by a newer version; closed.
                    (_, _) => {}
                }
            }
        }
        Ok(())
    }

    /// Whether there was a program before.
    pub(super) const fn is_left(&self) -> bool {
        self.since.is_some()
    }

    /// Packets wait from now on.
    pub(super) fn begin(&mut self, before: &Takeover) {
        self.since = Some(dataplane::monotonic());
        self.takeover = Takeover {
            count: before.count + 1,
            from: env!("CARGO_PKG_VERSION").to_owned(),
            waited_ms: 0,
            failed: None,
        };
    }

    /// Packets are read again.
    pub(super) fn over(&mut self) -> Takeover {
        if let Some(since) = self.since.take() {
            self.takeover.waited_ms = dataplane::monotonic().since(since);
        }
        self.takeover.clone()
    }

    /// What is written down, and descriptors by name.
    fn into_parts(self) -> (String, Vec<(String, OwnedFd)>) {
        let mut named: Vec<(String, OwnedFd)> = self.dataplane.into_named().collect();
        named.extend(self.control.map(|fd| ("control".to_owned(), fd.into())));
        named.extend(self.rules.map(|fd| ("rules".to_owned(), fd.into())));
        let Takeover { count, from, .. } = &self.takeover;
        let mut text = format!("version={from},count={count}");
        if let Some(mode) = self.mode {
            let _ = write!(text, ",mode={mode}");
        }
        if let Some(since) = self.since {
            let _ = write!(text, ",since={}", since.0);
        }
        if let Some(ruleset) = self.ruleset {
            let _ = write!(text, ",ruleset={ruleset}");
        }
        (text, named)
    }

    /// Leaves everything with the service manager, for the program that it starts next. One that
    /// does not keep descriptors closes them, which is what would have happened without.
    ///
    /// # Errors
    /// The service manager cannot be told.
    pub(super) fn deposit(self) -> io::Result<()> {
        let (text, mut named) = self.into_parts();
        let mut notes = File::from(memfd_create("tylo", MemfdFlags::CLOEXEC)?);
        notes.write_all(text.as_bytes())?;
        named.push((NOTES.to_owned(), notes.into()));
        for (name, fd) in &named {
            let state = [NotifyState::FdStore, NotifyState::FdName(name)];
            sd_notify::notify_with_fds(&state, &[fd.as_fd()])?;
        }
        Ok(())
    }

    /// Becomes `program`. Returns only when that failed, and then what the program was to get.
    pub(super) fn exec(self, program: &Path) -> Self {
        let mut back = Self {
            ruleset: self.ruleset,
            mode: self.mode,
            since: self.since,
            takeover: self.takeover.clone(),
            filtered: self.filtered,
            ..Self::default()
        };
        let (mut text, named) = self.into_parts();
        for (name, fd) in &named {
            // Whoever cannot be handed over is not there, and is opened anew.
            if fcntl_setfd(fd, FdFlags::empty()).is_ok() {
                let _ = write!(text, ",{name}={}", fd.as_raw_fd());
            }
        }
        let mut arguments = std::env::args_os();
        let mut command = Command::new(program);
        command
            .arg0(arguments.next().unwrap_or_else(|| OsString::from("tylod")))
            .args(arguments)
            .env(VARIABLE, text);
        if back.filtered {
            command.env(FILTERED, "1");
        }
        let error = command.exec();
        survive_broken_pipes();
        let program = program.display();
        tracing::error!(%error, %program, "cannot become this program; going on");
        back.takeover.failed = Some(format!("cannot become {program}: {error}"));
        for (name, fd) in named {
            let _ = fcntl_setfd(&fd, FdFlags::CLOEXEC);
            match (name.as_str(), back.dataplane.take(&name, fd)) {
                ("control", Ok(Some(fd))) => back.control = Some(fd.into()),
                ("rules", Ok(Some(fd))) => back.rules = Some(fd.into()),
                (_, _) => {}
            }
        }
        back
    }
}

/// Whether a service manager started this program, one that may keep descriptors.
pub(super) fn is_managed() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Whoever hangs up must not end this program. `exec` gives programs the signal as they expect it,
/// which stays so when it fails.
#[expect(unsafe_code)]
fn survive_broken_pipes() {
    // SAFETY: there is no handler that could run.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// The program that this one was started from, as it is now: a package may have replaced it.
///
/// # Errors
/// There is none there, or it cannot take over from this one, which may have given up system calls.
pub(super) fn successor(filtered: bool) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("cannot tell where this program is")?;
    // What the kernel adds when the file was replaced.
    let path = match path
        .to_str()
        .and_then(|path| path.strip_suffix(" (deleted)"))
    {
        Some(path) => PathBuf::from(path),
        None => path,
    };
    let mut arguments = std::env::args_os();
    let mut asked = Command::new(&path)
        .arg0(arguments.next().unwrap_or_else(|| OsString::from("tylod")))
        .args(arguments)
        .arg("--preflight")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", path.display()))?;
    let end = Instant::now() + ANSWERS_WITHIN;
    while asked.try_wait().is_ok_and(|status| status.is_none()) {
        if Instant::now() >= end {
            let _ = asked.kill().and_then(|()| asked.wait());
            bail!("{} does not answer", path.display());
        }
        thread::sleep(LOOK_AGAIN);
    }
    let output = asked
        .wait_with_output()
        .with_context(|| format!("cannot listen to {}", path.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut words = said.split_whitespace();
    let mut number = || words.next().and_then(|word| word.parse::<usize>().ok());
    let (Some(format), Some(schema)) = (number(), number()) else {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint = complaint.lines().next().unwrap_or("it says nothing").trim();
        bail!(
            "{} cannot be started with the options of this daemon: {complaint}",
            path.display()
        );
    };
    if format != FORMAT {
        bail!(
            "{} takes over in another way (format {format}) than this version hands over (format {FORMAT}); restart the daemon instead",
            path.display()
        );
    }
    if schema < store::SCHEMA {
        bail!(
            "{} is older: its database has schema {schema}, the one in use {}",
            path.display(),
            store::SCHEMA
        );
    }
    // Programs that do not say so came before there was such a list.
    if filtered && words.next().is_some_and(|needs| !sandbox::suffices(needs)) {
        bail!(
            "{} needs system calls that this version has given up; restart the daemon instead",
            path.display()
        );
    }
    Ok(path)
}

/// What a program that is asked whether it could take over answers.
pub(super) fn preflight() -> String {
    format!("{FORMAT} {} {}", store::SCHEMA, sandbox::needs())
}

/// A descriptor that was inherited by number, each of which is taken once.
#[expect(unsafe_code)]
fn descriptor(number: RawFd, taken: &mut HashSet<RawFd>) -> anyhow::Result<OwnedFd> {
    if number <= 2 || !taken.insert(number) {
        bail!("descriptor {number} is not one that is handed over, or comes twice");
    }
    // SAFETY: called once for each number, before this program opened anything that it goes on
    // using, so that nobody else owns what is open there.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    if let Err(error) = fcntl_getfd(&fd).and_then(|_| fcntl_setfd(&fd, FdFlags::CLOEXEC)) {
        // Not open: there is nothing to close.
        std::mem::forget(fd);
        return Err(io::Error::from(error)).context("it is not open");
    }
    Ok(fd)
}

/// How long a program may take to say whether it could take over; it only has to look at its
/// options.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Names and numbers of what is handed over.
const VARIABLE: &str = "TYLO_HANDOVER";

/// There if system calls were given up.
const FILTERED: &str = "TYLO_FILTERED";

/// The name of what is written down for the program that the service manager starts next.
const NOTES: &str = "notes";

/// More than is ever written there, in bytes.
const NOTES_MAX: u64 = 1 << 12;

/// Changes when a program of an earlier version could not make use of what it gets.
const FORMAT: usize = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn take(items: &[(&str, &str)]) -> anyhow::Result<Legacy> {
        let (mut legacy, mut taken) = (Legacy::default(), HashSet::new());
        for (name, value) in items {
            legacy.take(name, value, &mut taken)?;
        }
        Ok(legacy)
    }

    /// A number that nobody else closes.
    fn open(what: impl Into<OwnedFd>) -> String {
        use std::os::fd::IntoRawFd as _;
        what.into().into_raw_fd().to_string()
    }

    #[test]
    fn what_a_predecessor_says_is_understood() {
        let legacy = take(&[
            ("version", "0.9"),
            ("count", "3"),
            ("since", "77"),
            ("ruleset", "18446744073709551615"),
        ])
        .unwrap();
        assert_eq!(legacy.takeover.from, "0.9");
        assert_eq!((legacy.takeover.count, legacy.since), (3, Some(Tick(77))));
        assert_eq!(legacy.ruleset, Some(u64::MAX));
    }

    #[test]
    fn nonsense_is_refused_and_what_is_new_is_closed() {
        let null = || File::open("/dev/null").unwrap();
        for (name, value) in [
            ("count", "many"),
            ("since", "-1"),
            ("control", "0"),
            ("control", "2"),
            ("control", "1000000"),
            ("control", "x"),
            // Not a queue socket.
            ("queue-6400", &open(null())),
        ] {
            assert!(take(&[(name, value)]).is_err(), "{name} {value}");
        }
        let twice = open(null());
        assert!(take(&[("rules", &twice), ("control", &twice)]).is_err());
        let new = open(null());
        assert!(take(&[("not-known-yet", &new)]).is_ok());
    }

    #[test]
    fn this_program_could_follow_itself() {
        let said = preflight();
        let words: Vec<_> = said.split(' ').collect();
        let numbers: Vec<usize> = words[..2].iter().map(|n| n.parse().unwrap()).collect();
        assert_eq!(numbers, [FORMAT, store::SCHEMA]);
        assert!(sandbox::suffices(words[2]));
    }
}
