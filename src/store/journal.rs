// SPDX-License-Identifier: GPL-2.0-or-later
//! The writer thread: the only one that touches the database once it is open.
//!
//! Changes are gathered for a moment and committed together; of several changes to one session
//! only the last is written. Configuration is committed at once, and whoever asked waits for it.
//! When the writer falls behind or the disk fails, packets go on: what could not be taken is
//! counted, and the instance is written anew as a whole when that is possible again.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::coalesce::{Taken, latest};
use super::history::{Recorder, millis};
use super::shared::Shared;
use super::write::Event;
use super::{
    Clock, Error, InstanceId, Opening, Pool4Range, Pool4Set, SUSPECT, Saved, history, is_damage,
    open, write,
};
use crate::base::prefix::Prefix4;
use crate::base::{Protocol, Transport4};
use crate::model::control::Holders;
use crate::model::mapt::MapRule;
use crate::model::settings::Settings;
use crate::model::{EamRow, Flavour, Framework};
use crate::nat64::Change;

/// A handle on the writer thread. Dropping it commits what was taken and ends the thread.
pub struct Store {
    /// `None` when nothing is to be stored.
    sender: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    clock: fn() -> Clock,
    /// Where the database is.
    dir: Option<PathBuf>,
    /// Held for as long as the state directory is in use.
    _lock: Option<File>,
}

/// A change of configuration.
#[derive(Debug)]
pub enum Config {
    Add {
        id: InstanceId,
        flavour: Flavour,
        name: String,
        framework: Framework,
        slot: usize,
        settings: Box<Settings>,
    },
    Remove(InstanceId),
    Settings(InstanceId, Box<Settings>),
    /// The whole pool4 of an instance.
    Pool4(InstanceId, Vec<Pool4Set>, Vec<Pool4Range>),
    EamAdd(InstanceId, EamRow),
    EamRemove(InstanceId, EamRow),
    /// The whole EAM table of an instance.
    Eamt(InstanceId, Vec<EamRow>),
    /// The whole denylist of an instance.
    Denylist4(InstanceId, Vec<Prefix4>),
    /// All forwarding mapping rules of an instance.
    Fmrt(InstanceId, Vec<MapRule>),
    /// The first mappings of an instance.
    Bib(InstanceId, Vec<Change>),
    /// Several changes, of which all are stored or none.
    All(Vec<Self>),
}

enum Message {
    Config(Config, mpsc::Sender<Result<(), Error>>),
    /// What happened, and when by the wall clock.
    Changes(InstanceId, u64, Vec<Change>),
    /// Everything an instance has, in place of what is stored.
    Replace(
        InstanceId,
        Vec<Change>,
        Option<mpsc::Sender<Result<(), Error>>>,
    ),
    Flush(InstanceId, mpsc::Sender<Result<(), Error>>),
    /// Writes what was taken so far.
    Commit(mpsc::Sender<Result<(), Error>>),
}

impl Store {
    /// Opens the database in `dir`, reads everything and starts the writer. A damaged database is
    /// kept under another name, and what can be read of it goes on.
    ///
    /// # Errors
    /// The directory or database cannot be used, is in use, is newer than the program, holds an
    /// instance that makes no sense, or is damaged beyond reading any instance. Nothing stored is
    /// changed then.
    pub fn open(dir: &Path, clock: fn() -> Clock) -> Result<(Self, Vec<Saved>), Error> {
        Self::open_with(dir, clock, Opening::default())
    }

    /// Like [`open`](Self::open), in another way.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(
        dir: &Path,
        clock: fn() -> Clock,
        opening: Opening,
    ) -> Result<(Self, Vec<Saved>), Error> {
        let (db, lock, saved) = open(dir, clock(), opening.trusted)?;
        let mut recorder = Recorder::default();
        for each in &saved {
            recorder.set(each.id, &each.settings);
        }
        let (sender, receiver) = mpsc::sync_channel(QUEUE);
        let shared = Arc::new(Shared::new(saved.iter().map(|s| s.id), clock()));
        let writer = Writer {
            db,
            clock,
            deadline: opening.deadline,
            suspect: dir.join(SUSPECT),
            shared: Arc::clone(&shared),
            removed: HashSet::new(),
            recorder,
            forget: Instant::now(),
            complained: None,
        };
        let thread = std::thread::Builder::new()
            .name("tylo-store".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(|error| Error::Directory(dir.to_owned(), error))?;
        let store = Self {
            sender: Some(sender),
            thread: Some(thread),
            shared,
            clock,
            dir: Some(dir.to_owned()),
            _lock: Some(lock),
        };
        Ok((store, saved))
    }

    /// One that stores nothing and touches no disk: every change is as good as stored.
    pub fn ephemeral(clock: fn() -> Clock) -> Self {
        Self {
            sender: None,
            thread: None,
            shared: Arc::new(Shared::new(std::iter::empty(), clock())),
            clock,
            dir: None,
            _lock: None,
        }
    }

    /// Whether nothing is stored.
    pub const fn is_ephemeral(&self) -> bool {
        self.sender.is_none()
    }

    /// Commits a change of configuration; returns when it is on disk.
    ///
    /// # Errors
    /// It is not on disk.
    pub fn configure(&self, config: Config) -> Result<(), Error> {
        self.ask(|reply| Message::Config(config, reply))
    }

    /// Returns when everything taken of an instance is on disk.
    ///
    /// # Errors
    /// Not all of it is.
    pub fn flush(&self, instance: InstanceId) -> Result<(), Error> {
        self.ask(|reply| Message::Flush(instance, reply))
    }

    /// Like [`replace`](Self::replace), but waits for the disk: for the end.
    ///
    /// # Errors
    /// The snapshot is not on disk.
    pub fn save(&self, instance: InstanceId, snapshot: Vec<Change>) -> Result<(), Error> {
        if self.is_ephemeral() {
            return Ok(());
        }
        let count = snapshot.len() as u64;
        self.shared.backlog.fetch_add(count, Ordering::Relaxed);
        self.ask(|reply| Message::Replace(instance, snapshot, Some(reply)))
    }

    fn ask(
        &self,
        message: impl FnOnce(mpsc::Sender<Result<(), Error>>) -> Message,
    ) -> Result<(), Error> {
        let Some(sender) = self.sender.as_ref() else {
            return Ok(());
        };
        let (reply, answer) = mpsc::channel();
        sender.send(message(reply)).map_err(|_| Error::Gone)?;
        answer.recv().map_err(|_| Error::Gone)?
    }

    /// Takes changes for writing. Never waits: what the writer cannot take is counted, and the
    /// instance is [asked for](Self::take_resync) as a whole later.
    pub fn journal(&self, instance: InstanceId, changes: Vec<Change>) {
        let at = (self.clock)().wall;
        self.send(instance, changes, |id, all| Message::Changes(id, at, all));
    }

    /// Takes everything an instance has, in place of what is stored. Never waits either.
    pub fn replace(&self, instance: InstanceId, snapshot: Vec<Change>) {
        self.send(instance, snapshot, |id, all| {
            Message::Replace(id, all, None)
        });
    }

    /// The instances whose copy on disk has gaps and that shall be [replaced](Self::replace);
    /// none before the writer has caught up. When the wall clock was set these are all, for what
    /// they have on disk ends by the clock as it was.
    pub fn take_resync(&self) -> HashSet<InstanceId> {
        if self.shared.clock_was_set((self.clock)()) {
            tracing::info!("the clock was set; all sessions are written anew");
            let all = self.shared.instances().clone();
            self.shared.resync().extend(all);
        }
        // Snapshots are large: they would pile up in front of a slow disk, and delay it further.
        if self.backlog() > QUEUE as u64 / 2 {
            return HashSet::new();
        }
        std::mem::take(&mut *self.shared.resync())
    }

    fn send(
        &self,
        instance: InstanceId,
        changes: Vec<Change>,
        message: impl FnOnce(InstanceId, Vec<Change>) -> Message,
    ) {
        let count = changes.len() as u64;
        let Some(sender) = self.sender.as_ref() else {
            return;
        };
        self.shared.backlog.fetch_add(count, Ordering::Relaxed);
        match sender.try_send(message(instance, changes)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.backlog.fetch_sub(count, Ordering::Relaxed);
                self.shared.lose(instance, count);
            }
        }
    }

    /// Who had a transport address at some time, or has it now; `None` when nothing is stored. Reads
    /// beside the writer, after what it was given before.
    ///
    /// # Errors
    /// The database lacks something, or cannot be read.
    pub fn holders(
        &self,
        protocol: Protocol,
        v4: Transport4,
        at: Option<u64>,
    ) -> Result<Option<Holders>, Error> {
        let Some(dir) = &self.dir else {
            return Ok(None);
        };
        self.ask(Message::Commit)?;
        history::holders(dir, protocol, v4, at).map(Some)
    }

    /// Changes taken but not on disk yet.
    pub fn backlog(&self) -> u64 {
        self.shared.backlog.load(Ordering::Relaxed)
    }

    /// Milliseconds since the oldest change happened that is not on disk yet; 0 when all are.
    pub fn lag(&self) -> u64 {
        self.shared.lag((self.clock)())
    }

    /// Changes that did not reach the disk by themselves.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has nothing left to commit.
            let _ = thread.join();
        }
    }
}

struct Writer {
    db: Connection,
    clock: fn() -> Clock,
    /// How long changes are gathered before they are committed together.
    deadline: Duration,
    /// Has the next start look at all of the database.
    suspect: PathBuf,
    shared: Arc<Shared>,
    /// Workers may report changes of an instance a moment longer than it exists.
    removed: HashSet<InstanceId>,
    complained: Option<Instant>,
    recorder: Recorder,
    /// When to look for what can be forgotten.
    forget: Instant,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Message>) {
        let mut batch = Vec::new();
        loop {
            let idle = self.forget.saturating_duration_since(Instant::now());
            let mut next = match receiver.recv_timeout(idle) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let until = Instant::now() + self.deadline;
            while let Some(message) = next.take() {
                match message {
                    Message::Changes(id, _, changes) if self.removed.contains(&id) => {
                        let count = changes.len() as u64;
                        self.shared.backlog.fetch_sub(count, Ordering::Relaxed);
                    }
                    Message::Changes(id, at, changes) => {
                        if batch.is_empty() {
                            self.shared.note_oldest((self.clock)(), at);
                        }
                        batch.extend(changes.into_iter().map(|change| (id, at, change)));
                    }
                    Message::Replace(id, snapshot, reply) => {
                        // A failure is counted and complained about.
                        let _ = self.commit(&mut batch);
                        let clock = (self.clock)();
                        self.shared.note_oldest(clock, clock.wall);
                        let result = self.replace(id, snapshot);
                        if let Some(reply) = reply {
                            let _ = reply.send(result.map_err(Error::from));
                        }
                    }
                    Message::Flush(id, reply) => {
                        let result = self.commit(&mut batch).and_then(|()| self.sync());
                        let result = result.map_err(Error::from);
                        let gaps = self.shared.resync().contains(&id);
                        let result = if gaps {
                            result.and(Err(Error::Gaps))
                        } else {
                            result
                        };
                        let _ = reply.send(result);
                    }
                    Message::Commit(reply) => {
                        let _ = reply.send(self.commit(&mut batch).map_err(Error::from));
                    }
                    Message::Config(config, reply) => {
                        // In order: an instance must exist before it has sessions.
                        let _ = self.commit(&mut batch);
                        // Whoever asked may have given up waiting.
                        let _ = reply.send(self.configure(config));
                    }
                }
                if batch.len() < BATCH {
                    let left = until.saturating_duration_since(Instant::now());
                    next = receiver.recv_timeout(left).ok();
                }
            }
            let _ = self.commit(&mut batch);
            self.forget();
        }
    }

    fn commit(&mut self, batch: &mut Vec<Taken>) -> rusqlite::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let count = batch.len() as u64;
        let clock = (self.clock)();
        let mut write = || {
            let tx = begin(&mut self.db)?;
            for (id, at, change) in latest(batch) {
                let event = Event::seen(clock, *at);
                write::change(&tx, *id, change, event, &mut self.recorder)?;
            }
            tx.commit()
        };
        let result = write();
        if let Err(error) = &result {
            self.complain(error);
            for (id, ..) in batch.iter() {
                self.shared.lose(*id, 1);
            }
        }
        self.shared.done(count);
        batch.clear();
        result
    }

    fn replace(&mut self, id: InstanceId, mut snapshot: Vec<Change>) -> rusqlite::Result<()> {
        let count = snapshot.len() as u64;
        if self.removed.contains(&id) {
            snapshot.clear();
        }
        let clock = (self.clock)();
        let mut write = || {
            let tx = begin(&mut self.db)?;
            tx.execute("DELETE FROM session WHERE instance = ?1", [id.0])?;
            if self.recorder.records(id) {
                let now = millis(clock.wall);
                self.recorder.end_others(&tx, id, &snapshot, now)?;
            } else {
                tx.execute("DELETE FROM bib WHERE instance = ?1", [id.0])?;
            }
            for change in &snapshot {
                write::change(&tx, id, change, Event::found(clock), &mut self.recorder)?;
            }
            tx.commit()
        };
        let result = write();
        if let Err(error) = &result {
            self.complain(error);
            self.shared.lose(id, count);
        }
        self.shared.done(count);
        result
    }

    fn configure(&mut self, config: Config) -> Result<(), Error> {
        // Sessions may be lost with the power, what somebody was told is stored may not.
        self.db.pragma_update(None, "synchronous", "FULL")?;
        let result = self.apply(&config);
        self.db.pragma_update(None, "synchronous", "NORMAL")?;
        if result.is_err() {
            self.recorder.roll_back();
        }
        result?;
        // Not before: an instance that could not be removed lives on.
        self.note(&config);
        Ok(())
    }

    fn apply(&mut self, config: &Config) -> rusqlite::Result<()> {
        let tx = begin(&mut self.db)?;
        write::config(&tx, config, (self.clock)(), &mut self.recorder)?;
        tx.commit()
    }

    /// Has everything committed so far survive a loss of power, too: the log is synchronised before
    /// it is copied.
    fn sync(&self) -> rusqlite::Result<()> {
        self.db
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    }

    /// Keeps track of which instances there are.
    fn note(&mut self, config: &Config) {
        match config {
            Config::Add { id, settings, .. } => {
                self.shared.instances().insert(*id);
                self.recorder.set(*id, settings);
            }
            Config::Settings(id, settings) => {
                self.recorder.set(*id, settings);
                self.forget = Instant::now();
            }
            Config::Remove(id) => {
                self.shared.instances().remove(id);
                self.removed.insert(*id);
                self.recorder.remove(*id);
                self.forget = Instant::now();
            }
            Config::All(all) => all.iter().for_each(|each| self.note(each)),
            Config::Pool4(..)
            | Config::EamAdd(..)
            | Config::EamRemove(..)
            | Config::Eamt(..)
            | Config::Denylist4(..)
            | Config::Fmrt(..)
            | Config::Bib(..) => {}
        }
    }

    /// Forgets what is too old or too much, in portions between which the rest is written.
    fn forget(&mut self) {
        if Instant::now() < self.forget {
            return;
        }
        let now = (self.clock)().wall;
        let next = self.recorder.forget(&mut self.db, now);
        if let Err(error) = &next {
            self.complain(error);
        }
        self.forget = Instant::now() + next.unwrap_or(FORGET_AGAIN);
    }

    /// Says that the disk fails, but not with every batch.
    fn complain(&mut self, error: &rusqlite::Error) {
        self.recorder.roll_back();
        if is_damage(error) {
            // It is worth a try.
            let _ = File::create(&self.suspect);
        }
        if self
            .complained
            .is_none_or(|t| t.elapsed() >= COMPLAIN_EVERY)
        {
            self.complained = Some(Instant::now());
            let what = "sessions cannot be written to the database; translation goes on";
            if is_damage(error) {
                tracing::error!(%error, "{what}; a restart salvages what the database has");
            } else {
                tracing::error!(%error, "{what}");
            }
        }
    }
}

pub(super) fn begin(db: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    db.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// How long changes are gathered when nobody says otherwise.
pub const COMMIT_AFTER: Duration = Duration::from_millis(10);

/// How many changes are committed together at most.
const BATCH: usize = 20_000;

/// How many bursts of changes may wait for the writer.
const QUEUE: usize = 8_192;

/// When to try again after a failure.
const FORGET_AGAIN: Duration = Duration::from_secs(30);

const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
