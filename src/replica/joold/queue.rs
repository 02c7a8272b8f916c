// SPDX-License-Identifier: GPL-2.0-or-later
//! When sessions are told: alone and at once after a quiet while, in company when there are many.
//!
//! A state machine: what happens is an argument, and so is the time. One datagram is under way at a
//! time; the next waits until it is [acknowledged](Queue::acknowledge), but not longer than the
//! deadline.
//!
//! A session that changes again while it waits takes its old place: peers want to know how things
//! are, not how they came about. Jool's kernel module tells it twice.

use std::collections::{HashMap, VecDeque};

use super::wire;
use crate::base::counters::Counter;
use crate::base::{Protocol, Tick, Transport4, Transport6};
use crate::model::settings::Settings;
use crate::model::sync::Format;
use crate::nat64::SessionState;
use crate::nat64::merge::ForeignSession;

/// The sessions that wait to be told.
#[derive(Debug)]
pub struct Queue {
    waiting: VecDeque<Told>,
    /// Where they are, counted from the first that ever waited.
    places: HashMap<Key, u64>,
    /// How many do not wait any more.
    gone: u64,
    acknowledged: bool,
    advertisement: Advertisement,
    flushed: Tick,
}

/// A session to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub v6: Transport6,
    pub session: SessionState,
}

type Key = (Protocol, Transport6, Transport4);

/// How far it is with telling everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Advertisement {
    None,
    /// More will come.
    Begun,
    /// What there was is in the queue.
    Complete,
}

/// The settings that say when sessions are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Milliseconds that a session waits at most.
    deadline: u64,
    /// Sessions that wait at most, unless all are told.
    capacity: usize,
    /// Sessions of a datagram; at least 1.
    batch: usize,
    /// Do not wait for company.
    asap: bool,
}

/// What a look at the queue came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Empty,
    /// Sent, for the deadline has come.
    Timeout,
    /// Held back until the last datagram is acknowledged.
    MissingAck,
    /// Sent, for all sessions are being told.
    Advertising,
    /// Sent, for nothing shall wait for company.
    Asap,
    /// Sent, for there are enough for a datagram.
    Full,
    /// Held back for company.
    Queuing,
}

/// All sessions are being told already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an advertisement is in progress already; wait for its end")]
pub struct InProgress;

impl Limits {
    //= jool#session-queue
    pub fn new(settings: &Settings, format: Format) -> Self {
        let payload = (settings.ss_max_payload as usize).min(RECEIVED);
        let most = (payload / wire::size(format)).max(1);
        Self {
            deadline: settings.ss_flush_deadline.into(),
            capacity: settings.ss_capacity as usize,
            batch: (settings.ss_max_sessions_per_packet as usize).clamp(1, most),
            asap: settings.ss_flush_asap,
        }
    }

    /// Sessions of a datagram.
    pub const fn batch(&self) -> usize {
        self.batch
    }
}

impl Decision {
    /// Whether something is sent.
    pub const fn sends(self) -> bool {
        match self {
            Self::Timeout | Self::Advertising | Self::Asap | Self::Full => true,
            Self::Empty | Self::MissingAck | Self::Queuing => false,
        }
    }

    /// What counts it. Jool 4.1.12 alone has a counter for [`Decision::Asap`].
    pub const fn counter(self) -> Option<Counter> {
        match self {
            Self::Empty => Some(Counter::JooldEmpty),
            Self::Timeout => Some(Counter::JooldTimeout),
            Self::MissingAck => Some(Counter::JooldMissingAck),
            Self::Advertising => Some(Counter::JooldAdOngoing),
            Self::Asap => None,
            Self::Full => Some(Counter::JooldPktFull),
            Self::Queuing => Some(Counter::JooldQueuing),
        }
    }
}

impl Told {
    fn key(&self) -> Key {
        (self.session.protocol, self.v6, self.session.remote)
    }

    /// As it is put into a datagram now.
    pub const fn at(&self, now: Tick) -> ForeignSession {
        let SessionState {
            protocol,
            v4,
            remote,
            state,
            lifetime,
            deadline,
            segment: _,
        } = self.session;
        ForeignSession {
            protocol,
            v6: self.v6,
            v4,
            remote,
            state,
            lifetime,
            left: deadline.since(now),
            // Jool has no word for it.
            segment: 0,
        }
    }
}

impl Queue {
    pub fn new(now: Tick) -> Self {
        Self {
            waiting: VecDeque::new(),
            places: HashMap::new(),
            gone: 0,
            acknowledged: true,
            advertisement: Advertisement::None,
            flushed: now,
        }
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A session changed. False if there is no room for it.
    //= jool#session-queue
    pub fn push(&mut self, limits: &Limits, told: Told) -> bool {
        let known = self.places.contains_key(&told.key());
        if !known && !self.is_advertising() && self.waiting.len() >= limits.capacity {
            return false;
        }
        self.put(told);
        true
    }

    /// The last datagram is on its way.
    pub const fn acknowledge(&mut self) {
        self.acknowledged = true;
    }

    /// All sessions are to be told; they are [added](Self::advertise) piece by piece.
    ///
    /// # Errors
    /// [`InProgress`].
    pub const fn begin_advertisement(&mut self) -> Result<(), InProgress> {
        if self.is_advertising() {
            return Err(InProgress);
        }
        self.advertisement = Advertisement::Begun;
        Ok(())
    }

    /// Some of all sessions. What waits already is newer.
    pub fn advertise(&mut self, told: impl IntoIterator<Item = Told>) {
        for told in told {
            if !self.places.contains_key(&told.key()) {
                self.put(told);
            }
        }
    }

    /// There were no more sessions.
    pub fn end_advertisement(&mut self) {
        if self.is_advertising() {
            self.advertisement = Advertisement::Complete;
            self.settle();
        }
    }

    /// Whether some of all sessions are still to be told.
    pub const fn is_advertising(&self) -> bool {
        !matches!(self.advertisement, Advertisement::None)
    }

    /// Whether more of all sessions can be added without keeping many here.
    pub fn is_hungry(&self, limits: &Limits) -> bool {
        self.advertisement == Advertisement::Begun && self.waiting.len() < 2 * limits.batch
    }

    /// Looks whether something is to be sent, and if so moves the sessions of a datagram into
    /// `batch`, which is emptied first.
    //= jool#session-queue
    pub fn poll(&mut self, now: Tick, limits: &Limits, batch: &mut Vec<Told>) -> Decision {
        batch.clear();
        let decision = self.decide(now, limits);
        if decision.sends() {
            for _ in 0..limits.batch {
                let Some(told) = self.waiting.pop_front() else {
                    break;
                };
                self.places.remove(&told.key());
                self.gone += 1;
                batch.push(told);
            }
            self.acknowledged = false;
            self.flushed = now;
            self.settle();
        }
        decision
    }

    /// When to look again, if nothing happens before.
    pub fn next_deadline(&self, limits: &Limits) -> Option<Tick> {
        (!self.is_empty()).then(|| self.flushed.after(limits.deadline).after(1))
    }

    fn decide(&self, now: Tick, limits: &Limits) -> Decision {
        if self.is_empty() {
            Decision::Empty
        } else if now.since(self.flushed) > limits.deadline {
            Decision::Timeout
        } else if !self.acknowledged {
            Decision::MissingAck
        } else if self.is_advertising() {
            Decision::Advertising
        } else if limits.asap {
            Decision::Asap
        } else if self.waiting.len() >= limits.batch {
            Decision::Full
        } else {
            Decision::Queuing
        }
    }

    fn put(&mut self, told: Told) {
        let next = self.gone + self.waiting.len() as u64;
        let place = *self.places.entry(told.key()).or_insert(next);
        match self.waiting.get_mut((place - self.gone) as usize) {
            Some(before) => *before = told,
            None => self.waiting.push_back(told),
        }
    }

    /// An advertisement ends with the last of its sessions.
    fn settle(&mut self) {
        if self.advertisement == Advertisement::Complete && self.is_empty() {
            self.advertisement = Advertisement::None;
        }
    }
}

/// What Jool's nodes read of a datagram, in bytes.
const RECEIVED: usize = 2048;

#[cfg(test)]
mod tests;
