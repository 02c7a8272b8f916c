// SPDX-License-Identifier: GPL-2.0-or-later
//! Tells peers what happens to sessions.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::walker::walk_all;
use super::{Talk, is_told};
use crate::base::counters::{Counter, Counters};
use crate::base::prefix::Pool6;
use crate::daemon::news::News;
use crate::daemon::outlet::{Inlet, Next};
use crate::daemon::traffic::Slot;
use crate::dataplane::monotonic;
use crate::model::control::Reply;
use crate::nat64::Change;
use crate::replica::Socket;
use crate::replica::joold::queue::{Limits, Queue, Told};
use crate::replica::joold::wire;
use crate::replica::socket::SocketError;

/// Why it fell silent.
#[derive(Debug)]
pub(super) enum End {
    /// The command that wanted the exchange is gone.
    NobodyListens,
    /// The instance or the daemon is about to go.
    NothingLeft,
    /// The group cannot be reached any more.
    Cut(SocketError),
}

pub(super) struct Speaker<'a> {
    slot: &'a Slot,
    talk: &'a Talk,
    socket: &'a Socket,
    pool6: Pool6,
    queue: Queue,
    limits: Limits,
    /// All sessions, while they are told.
    pages: Option<Receiver<Vec<Told>>>,
    /// What is still to be added to the instance's counters.
    counters: Counters,
    batch: Vec<Told>,
    datagram: Vec<u8>,
    complained: Option<Instant>,
}

impl<'a> Speaker<'a> {
    pub(super) fn new(slot: &'a Slot, talk: &'a Talk, socket: &'a Socket, pool6: Pool6) -> Self {
        Self {
            slot,
            talk,
            socket,
            pool6,
            queue: Queue::new(monotonic()),
            limits: Limits::new(slot.read().settings(), talk.network.format),
            pages: None,
            counters: Counters::default(),
            batch: Vec::new(),
            datagram: Vec::new(),
            complained: None,
        }
    }

    /// Speaks until nobody listens to `reply`, or nothing more will come.
    pub(super) fn speak<'scope>(
        mut self,
        scope: &'scope Scope<'scope, 'a>,
        inlet: &mut Inlet<Arc<News>>,
        reply: &mut dyn FnMut(Reply) -> bool,
    ) -> End
    where
        'a: 'scope,
    {
        let mut looked: Option<Instant> = None;
        loop {
            if looked.is_none_or(|at| at.elapsed() >= LOOK_AROUND) {
                looked = Some(Instant::now());
                if !reply(Reply::Events(Vec::new())) {
                    return End::NobodyListens;
                }
                self.settle();
                if let Err(error) = self.socket.check() {
                    return End::Cut(error);
                }
            }
            self.advertise(scope);
            match inlet.next(self.patience()) {
                Next::News(news) => self.hear(&news),
                Next::Lost(lines) => self.talk.counts().untold += lines,
                Next::Silence => {}
                Next::Closed => {
                    self.settle();
                    return End::NothingLeft;
                }
            }
            self.flush();
        }
    }

    /// Takes what packets did.
    fn hear(&mut self, news: &News) {
        for change in news.changes.iter().filter(|change| is_told(change)) {
            let Change::Session { session, v6, .. } = change else {
                continue;
            };
            self.counters.count(Counter::JooldSssQueued);
            let told = Told {
                v6: *v6,
                session: *session,
            };
            if !self.queue.push(&self.limits, told) {
                self.counters.count(Counter::JooldSssEnospc);
                self.talk.counts().untold += 1;
                self.complain("they come faster than ss-capacity and ss-flush-deadline allow");
            } else if self.queue.len() >= self.limits.batch() {
                // Before there is no room.
                self.flush();
            }
        }
    }

    /// Sends what is to be sent now.
    fn flush(&mut self) {
        for sent in 1u32.. {
            let now = monotonic();
            let decision = self.queue.poll(now, &self.limits, &mut self.batch);
            if let Some(counter) = decision.counter() {
                self.counters.count(counter);
            }
            if !decision.sends() {
                return;
            }
            self.datagram.clear();
            for told in &self.batch {
                let format = self.talk.network.format;
                wire::encode(format, self.pool6, &told.at(now), &mut self.datagram);
            }
            self.send();
            // Whatever became of it, the next one may go.
            self.queue.acknowledge();
            self.counters.count(Counter::JooldAcks);
            if sent.is_multiple_of(BURST) {
                // Peers with little room get time to read.
                thread::sleep(BREATH);
            }
        }
    }

    fn send(&mut self) {
        let sessions = self.batch.len() as u64;
        match self.socket.send(&self.datagram) {
            Ok(()) => {
                self.counters.count(Counter::JooldPktSent);
                self.counters.add(Counter::JooldSssSent, sessions);
                let mut counts = self.talk.counts();
                counts.datagrams_out += 1;
                counts.bytes_out += self.datagram.len() as u64;
                counts.sessions_out += sessions;
            }
            Err(error) => {
                self.talk.counts().lost_out += 1;
                self.complain(&error.to_string());
            }
        }
    }

    /// Begins to tell everything if that is wanted, or goes on with it.
    fn advertise<'scope>(&mut self, scope: &'scope Scope<'scope, 'a>)
    where
        'a: 'scope,
    {
        let wanted = self.talk.advertising.load(Ordering::Relaxed);
        if wanted && self.queue.begin_advertisement().is_ok() {
            self.counters.count(Counter::JooldAds);
            let (sender, receiver) = sync_channel(PAGES);
            let slot = self.slot;
            let walker = thread::Builder::new().name("tylo-sync-all".to_owned());
            match walker.spawn_scoped(scope, move || walk_all(slot, &sender)) {
                Ok(_) => self.pages = Some(receiver),
                Err(error) => {
                    self.queue.end_advertisement();
                    self.complain(&error.to_string());
                }
            }
        }
        // A page at a time, so that what happens meanwhile is not forgotten.
        if self.queue.is_hungry(&self.limits)
            && let Some(pages) = &self.pages
        {
            match pages.try_recv() {
                Ok(page) => {
                    let sessions = page.len() as u64;
                    self.counters.add(Counter::JooldSssQueued, sessions);
                    self.queue.advertise(page);
                    self.flush();
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    self.pages = None;
                    self.queue.end_advertisement();
                }
            }
        }
        if wanted && !self.queue.is_advertising() {
            self.talk.advertising.store(false, Ordering::Relaxed);
        }
    }

    /// How long to wait for news.
    fn patience(&self) -> Duration {
        if self.queue.is_advertising() {
            return BREATH;
        }
        let due = self.queue.next_deadline(&self.limits);
        let left = due.map(|due| Duration::from_millis(due.since(monotonic())));
        left.map_or(LOOK_AROUND, |left| left.min(LOOK_AROUND))
    }

    /// Looks at the settings, and tells how much was done.
    fn settle(&mut self) {
        let mut instance = self.slot.lock();
        self.limits = Limits::new(instance.settings(), self.talk.network.format);
        let counters = instance.counters_mut();
        for (counter, count) in self.counters.iter().filter(|(_, count)| *count > 0) {
            counters.add(counter, count);
        }
        drop(instance);
        self.counters = Counters::default();
    }

    /// Once a minute is enough.
    fn complain(&mut self, why: &str) {
        if self
            .complained
            .is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY)
        {
            self.complained = Some(Instant::now());
            let instance = &self.slot.name;
            tracing::warn!(instance, why, "peers were not told of some sessions");
        }
    }
}

/// How often it is looked whether the command still listens, and what the settings are.
const LOOK_AROUND: Duration = Duration::from_millis(200);

/// Datagrams that are sent without a break, and the break behind them. Jool's nodes have room for
/// about ninety that are not read yet.
const BURST: u32 = 8;
const BREATH: Duration = Duration::from_millis(1);

/// Pages of an advertisement that wait.
const PAGES: usize = 4;

const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
