// SPDX-License-Identifier: GPL-2.0-or-later
//! The copy of one instance: its versions, its stream, and how far it has come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::message::{Message, RECORDS_AT, Tag, Top, tag};
use super::origin::{Incoming, Outgoing};
use super::record::{Alive, Body, Packer, Record, SessionKey};
use super::round::Round;
use super::seal::{NodeId, OVERHEAD};
use super::shadow::{BUCKETS, Shadow, Version};
use super::stamp::{Clock, Knowledge, Stamp, Writer};
use super::stats::Stats;
use super::{Config, Table};
use crate::base::Tick;
use crate::model::Flavour;
use crate::model::settings::Settings;
use crate::nat64::question::Question;

pub(super) struct Instance {
    pub(super) flavour: Flavour,
    pub(super) name: String,
    pub(super) tag: Tag,
    /// Hash of what must be equal everywhere.
    pub(super) config: u64,
    pub(super) shadow: Shadow,
    pub(super) knowledge: Knowledge,
    pub(super) outgoing: Outgoing,
    pub(super) incoming: BTreeMap<NodeId, Incoming>,
    pub(super) pending: Pending,
    /// There is none before it is ready: it writes nothing.
    pub(super) writer: Option<Writer>,
    pub(super) phase: Phase,
    pub(super) round: Option<Round>,
    /// When a comparison ended.
    pub(super) compared: Tick,
    /// How far a look for changes that were not reported has come, in buckets and then in
    /// positions of the table.
    pub(super) rescan: Option<(u16, usize)>,
    /// Peers that are configured differently, with what they have.
    pub(super) mismatches: BTreeMap<NodeId, u64>,
}

/// How far an instance has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It looks for somebody who has everything.
    Joining,
    /// It goes through what its table had before it began: what nobody vouches for goes, or
    /// everything is adopted because there is nobody.
    Sweeping {
        cursor: usize,
        adopt: bool,
    },
    Ready,
}

/// What is to be told to the others.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// In order; only what is in `wanted` still counts.
    urgent: VecDeque<SessionKey>,
    wanted: BTreeSet<SessionKey>,
    lazy: BTreeSet<SessionKey>,
    pub(super) ended: VecDeque<(SessionKey, Ended)>,
    since: Option<Tick>,
    lazy_since: Option<Tick>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// By decision; when its mapping came to be.
    Deleted(u64),
    /// Of itself, in this version.
    Expired(Stamp),
}

/// What an instance works with for the moment.
pub(super) struct Scene<'a> {
    pub(super) now: Tick,
    pub(super) config: &'a Config,
    pub(super) clock: &'a mut Clock,
    pub(super) table: &'a mut dyn Table,
    pub(super) settings: &'a Settings,
    pub(super) stats: &'a mut Stats,
}

impl Instance {
    pub(super) fn new(flavour: Flavour, name: &str, config: u64, settings: &Config) -> Self {
        Self {
            flavour,
            name: name.to_owned(),
            tag: tag(flavour, name),
            config,
            shadow: Shadow::new(settings.hash_key),
            knowledge: Knowledge::default(),
            outgoing: Outgoing::after(0, settings.history),
            incoming: BTreeMap::new(),
            pending: Pending::default(),
            writer: None,
            phase: Phase::Joining,
            round: None,
            compared: Tick(0),
            rescan: None,
            mismatches: BTreeMap::new(),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Goes through the next part of what the table had; true once all is done.
    pub(super) fn sweep(&mut self, scene: &mut Scene<'_>) -> bool {
        let Phase::Sweeping { cursor, adopt } = self.phase else {
            return false;
        };
        let mut keys = Vec::new();
        let next = scene.table.scan(cursor, &mut keys);
        for key in keys {
            if self.shadow.get(&key).is_some_and(|v| v.installed) || self.pending.has(&key) {
                continue;
            }
            if adopt {
                self.pending.touch(scene.now, key, true);
            } else {
                scene.table.remove(&key);
            }
        }
        match next {
            Some(cursor) => self.phase = Phase::Sweeping { cursor, adopt },
            None => self.phase = Phase::Ready,
        }
        next.is_none()
    }

    /// Whether it looks for changes that were not reported. Not before it is ready: what it has
    /// then is not to be told to anybody.
    pub(super) fn is_looking(&self) -> bool {
        self.rescan.is_some() && self.is_ready()
    }

    /// Goes on with that, in portions: sessions that are gone are told as
    /// deleted, and whatever is there is told once more.
    pub(super) fn look_again(&mut self, scene: &mut Scene<'_>) {
        let Some((bucket, cursor)) = self.rescan else {
            return;
        };
        let buckets = BUCKETS as u16;
        if bucket < buckets {
            let last = (bucket + RESCAN_BUCKETS).min(buckets);
            for bucket in bucket..last {
                let installed = self.shadow.bucket(bucket).filter(|(_, v)| v.installed);
                let gone = installed.filter(|(key, _)| scene.table.session(key).is_none());
                let gone: Vec<SessionKey> = gone.map(|(key, _)| key).collect();
                for key in gone {
                    self.on_gone(scene, key, false);
                }
            }
            self.rescan = Some((last, cursor));
            return;
        }
        let mut keys = Vec::new();
        let next = scene.table.scan(cursor, &mut keys);
        for key in keys {
            self.pending.touch(scene.now, key, true);
        }
        self.rescan = next.map(|cursor| (bucket, cursor));
    }

    /// Writes the next batch, if there is anything to say. Nothing is made of it when nobody
    /// listens.
    pub(super) fn flush(&mut self, scene: &mut Scene<'_>, listening: bool) -> Option<Vec<u8>> {
        let writer = self.writer?;
        // Who is deleted and comes back in one batch is back.
        let deleted = Stamp::new(scene.clock.tick(scene.now), writer);
        let stamp = Stamp::new(scene.clock.tick(scene.now), writer);
        let room = room(scene.config);
        let mut packer = Packer::new(room, stamp);
        let mut count = 0;
        while let Some((key, ended)) = self.pending.ended.pop_front() {
            let (stamp, body) = match ended {
                Ended::Deleted(birth) => (deleted, Body::Deleted { birth }),
                Ended::Expired(stamp) => (stamp, Body::Expired),
            };
            if !packer.push(&Record { key, stamp, body }) {
                self.pending.ended.push_front((key, ended));
                break;
            }
            count += 1;
            if let Body::Deleted { birth } = body {
                // Somebody may have said that it lives before we could say that it does not.
                self.delete(scene, key, stamp, birth);
            }
        }
        while let Some(key) = self.pending.next() {
            let Some((client, session)) = scene.table.session(&key) else {
                continue;
            };
            if self.shadow.birth(key.protocol, key.v4) == 0 {
                self.shadow.be_born(key.protocol, key.v4, stamp.time());
            }
            let alive = Alive {
                client,
                state: session.state,
                lifetime: session.lifetime,
                remaining: remaining(scene.now, session.deadline),
                birth: self.shadow.birth(key.protocol, key.v4),
                segment: session.segment,
            };
            let body = Body::Alive(alive);
            if !packer.push(&Record { key, stamp, body }) {
                self.pending.put_back(key);
                break;
            }
            count += 1;
            let version = Version {
                stamp,
                installed: true,
            };
            self.shadow.set(key, version, alive.birth);
        }
        let waited = self.pending.waited(scene.now);
        self.pending.settle();
        if packer.is_empty() {
            return None;
        }
        self.knowledge.advance(stamp);
        if !listening {
            self.outgoing.skip();
            return Some(Vec::new());
        }
        scene.stats.sent_records += count;
        let sent = self.outgoing.push(scene.now, stamp, waited, packer.take());
        let message = Message::Batch {
            tag: self.tag,
            stamp,
            sequence: sent.sequence,
            waited,
            age: 0,
            records: &sent.records,
        };
        Some(message.write())
    }

    /// How things are here, for somebody who compares.
    pub(super) fn top(&self, ask: u32, node: NodeId, epoch: u64) -> Top {
        let own = (node, epoch, self.outgoing.sequence());
        let others = self.incoming.iter().filter_map(|(id, incoming)| {
            let through = incoming.through()?;
            Some((*id, incoming.epoch, through))
        });
        Top {
            tag: self.tag,
            ask,
            knowledge: self.knowledge.clone(),
            streams: std::iter::once(own).chain(others).take(STREAMS).collect(),
            groups: self.shadow.groups().to_vec(),
        }
    }

    /// What a bucket holds, as messages.
    pub(super) fn pieces(&self, scene: &Scene<'_>, bucket: u16, ask: u32) -> Vec<Vec<u8>> {
        let mut packer = Packer::new(room(scene.config), Stamp::ZERO);
        let mut parts = Vec::new();
        for (key, version) in self.shadow.bucket(bucket) {
            let record = self.record(scene, key, version);
            if !packer.push(&record) {
                parts.push(packer.take());
                packer.push(&record);
            }
        }
        if parts.is_empty() || !packer.is_empty() {
            parts.push(packer.take());
        }
        let count = parts.len() as u16;
        let messages = parts.iter().zip(0..).map(|(records, part)| {
            let message = Message::Piece {
                tag: self.tag,
                ask,
                bucket,
                part,
                parts: count,
                records,
            };
            message.write()
        });
        messages.collect()
    }

    /// The sessions of the mapping that somebody looks for, those that matter most first.
    fn sought(scene: &Scene<'_>, question: &Question) -> Vec<SessionKey> {
        let mapping = match *question {
            Question::Client { protocol, v4, .. } => scene.table.mapping_of_v4(protocol, v4),
            Question::Address { protocol, v6 } => scene.table.mapping_of_v6(protocol, v6),
        };
        let mut keys = mapping.map_or_else(Vec::new, |m| scene.table.sessions_of(&m));
        if let Question::Client { remote, .. } = question {
            keys.sort_unstable_by_key(|key| key.remote != *remote);
        }
        keys
    }

    /// Has sessions that somebody looks for told before all others; true if any were not told yet.
    pub(super) fn hurry(&mut self, scene: &Scene<'_>, question: &Question) -> bool {
        let keys = Self::sought(scene, question);
        let untold =
            |key: &SessionKey| self.pending.is_urgent(key) && self.shadow.get(key).is_none();
        let mut untold: Vec<_> = keys.into_iter().filter(untold).take(HURRIED).collect();
        untold.reverse();
        untold.iter().for_each(|key| self.pending.hurry(*key));
        !untold.is_empty()
    }

    /// The answer to a question: what is known of the mapping.
    pub(super) fn answer(&self, scene: &Scene<'_>, id: u32, question: &Question) -> Vec<u8> {
        let mut packer = Packer::new(room(scene.config), Stamp::ZERO);
        let keys = Self::sought(scene, question);
        for key in keys {
            if let Some(version) = self.shadow.get(&key)
                && !packer.push(&self.record(scene, key, version))
            {
                break;
            }
        }
        let message = Message::Answer {
            tag: self.tag,
            id,
            found: !packer.is_empty(),
            records: &packer.take(),
        };
        message.write()
    }

    fn record(&self, scene: &Scene<'_>, key: SessionKey, version: Version) -> Record {
        let session = scene.table.session(&key).filter(|_| version.installed);
        let alive = session.map(|(client, session)| {
            Body::Alive(Alive {
                client,
                state: session.state,
                lifetime: session.lifetime,
                remaining: remaining(scene.now, session.deadline),
                birth: self.shadow.birth(key.protocol, key.v4),
                segment: session.segment,
            })
        });
        Record {
            key,
            stamp: version.stamp,
            body: alive.unwrap_or(Body::Mentioned),
        }
    }
}

impl Pending {
    pub(super) fn has(&self, key: &SessionKey) -> bool {
        self.wanted.contains(key) || self.lazy.contains(key)
    }

    pub(super) fn is_urgent(&self, key: &SessionKey) -> bool {
        self.wanted.contains(key)
    }

    pub(super) fn len(&self) -> usize {
        self.wanted.len() + self.lazy.len() + self.ended.len()
    }

    /// A session has news; those that are not urgent may wait for more.
    pub(super) fn touch(&mut self, now: Tick, key: SessionKey, urgent: bool) {
        if urgent {
            self.lazy.remove(&key);
            if self.wanted.insert(key) {
                self.urgent.push_back(key);
            }
            self.since.get_or_insert(now);
        } else if !self.wanted.contains(&key) && self.lazy.insert(key) {
            self.lazy_since.get_or_insert(now);
        }
    }

    pub(super) fn end(&mut self, now: Tick, key: SessionKey, ended: Ended) {
        self.ended.push_back((key, ended));
        self.since.get_or_insert(now);
    }

    pub(super) fn forget(&mut self, key: &SessionKey) {
        self.wanted.remove(key);
        self.lazy.remove(key);
    }

    /// When something is to be told.
    pub(super) fn deadline(&self, config: &Config) -> Option<Tick> {
        let urgent = self.since.map(|since| since.after(config.batch));
        let lazy = self.lazy_since.map(|since| since.after(config.refresh));
        urgent.into_iter().chain(lazy).min()
    }

    /// Makes what has waited long enough urgent; whether there is anything to tell now. `room` is
    /// how many sessions fit into a batch: so many are not kept waiting.
    pub(super) fn is_due(&mut self, now: Tick, config: &Config) -> bool {
        let waited =
            |since: Option<Tick>, wait| since.is_some_and(|since| now.since(since) >= wait);
        if waited(self.lazy_since, config.refresh) {
            self.lazy_since = None;
            for key in std::mem::take(&mut self.lazy) {
                self.touch(now, key, true);
            }
        }
        let full = self.wanted.len() + self.ended.len() >= room(config) / SESSION;
        full || waited(self.since, config.batch)
    }

    fn next(&mut self) -> Option<SessionKey> {
        loop {
            let key = self.urgent.pop_front()?;
            if self.wanted.remove(&key) {
                return Some(key);
            }
        }
    }

    /// A session that waits is the next one.
    fn hurry(&mut self, key: SessionKey) {
        self.urgent.push_front(key);
    }

    fn put_back(&mut self, key: SessionKey) {
        self.wanted.insert(key);
        self.urgent.push_front(key);
    }

    fn waited(&self, now: Tick) -> u64 {
        self.since.map_or(0, |since| now.since(since))
    }

    /// A batch was written.
    fn settle(&mut self) {
        if self.wanted.is_empty() && self.ended.is_empty() {
            self.since = None;
            self.urgent.clear();
        }
    }
}

/// Bytes of records in a datagram.
fn room(config: &Config) -> usize {
    config.payload - OVERHEAD - RECORDS_AT
}

fn remaining(now: Tick, deadline: Tick) -> u32 {
    u32::try_from(deadline.since(now)).unwrap_or(u32::MAX)
}

/// Streams that fit into a [`Top`] together with everything else.
pub(super) const STREAMS: usize = 16;

/// Buckets looked at in one go by [`Instance::look_again`].
const RESCAN_BUCKETS: u16 = 32;

/// Sessions of one mapping that are told before all others.
const HURRIED: usize = 16;

/// Bytes of a session in a batch, about.
const SESSION: usize = 34;
