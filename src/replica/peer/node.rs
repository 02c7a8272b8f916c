// SPDX-License-Identifier: GPL-2.0-or-later
//! A node: what goes in and what comes out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use super::instance::{Instance, Phase, Scene};
use super::message::{About, Beat, Message, Tag};
use super::origin::Outgoing;
use super::pace::Pace;
use super::peers::{Peer, Peers};
use super::round::Asks;
use super::seal::{Key, NodeId, OVERHEAD, Seal};
use super::stamp::Clock;
use super::{
    AddError, Config, Destination, Event, Finding, Handle, PAYLOAD_MIN, Place, Share, ShareMode,
    Stats, Tables, Transmit,
};
use crate::base::Tick;
use crate::model::{Flavour, INSTANCE_NAME_MAX};
use crate::nat64::Change;
use crate::nat64::question::Question;

/// One gateway's end of the protocol. See the [module](super).
pub struct Node {
    pub(super) common: Common,
    pub(super) seal: Seal,
    pub(super) pace: Pace,
    pub(super) peers: Peers,
    pub(super) instances: BTreeMap<Handle, Instance>,
    pub(super) born: BTreeMap<Handle, Tick>,
    /// The last batches of instances that were taken out: who comes back goes on from there, or
    /// its batches would be taken for those of before.
    left: BTreeMap<Tag, u64>,
    pub(super) asks: Asks,
    pub(super) queries: BTreeMap<u32, Query>,
    pub(super) out: VecDeque<Transmit>,
    /// What may wait: answers that are many datagrams long. Not sealed yet.
    pub(super) bulk: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Buckets that others asked for.
    pub(super) wanted: VecDeque<Wanted>,
    pub(super) share: Share,
    pub(super) view: u64,
    pub(super) next_beat: Tick,
    /// When a beat was last answered at once.
    pub(super) answered: Tick,
    /// Another life under our number, if one was heard.
    pub(super) twin: Option<u64>,
    next_handle: usize,
    next_query: u32,
}

/// What instances share.
pub(super) struct Common {
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) stats: Stats,
    pub(super) events: VecDeque<Event>,
}

/// A bucket that somebody asked for.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) by: NodeId,
    pub(super) tag: Tag,
    pub(super) bucket: u16,
    pub(super) ask: u32,
}

/// A question to all: who has this mapping?
pub(super) struct Query {
    pub(super) instance: Handle,
    pub(super) waiting: BTreeSet<NodeId>,
    pub(super) until: Tick,
}

impl Common {
    pub(super) fn end_query(&mut self, query: u32, finding: Finding) {
        match finding {
            Finding::Found => self.stats.queries_found += 1,
            Finding::Nobody => self.stats.queries_vain += 1,
            Finding::Silence => self.stats.queries_timed_out += 1,
        }
        self.events.push_back(Event::Answered { query, finding });
    }

    pub(super) fn scene<'a>(&'a mut self, now: Tick, (table, settings): Place<'a>) -> Scene<'a> {
        Scene {
            now,
            config: &self.config,
            clock: &mut self.clock,
            table,
            settings,
            stats: &mut self.stats,
        }
    }
}

impl Node {
    pub fn new(now: Tick, mut config: Config) -> Self {
        config.payload = config.payload.max(PAYLOAD_MIN);
        let share = match config.share {
            ShareMode::Whole => Share::WHOLE,
            ShareMode::Static { index, of } => Share::of_static(index, of),
            ShareMode::Auto => Share::NONE,
        };
        Self {
            asks: Asks::of_life(config.epoch),
            seal: Seal::new(&config.keys, config.node, config.epoch),
            pace: Pace::new(now, config.rate),
            common: Common {
                clock: Clock::new(now, config.wall),
                config,
                stats: Stats::default(),
                events: VecDeque::new(),
            },
            peers: Peers::default(),
            instances: BTreeMap::new(),
            born: BTreeMap::new(),
            left: BTreeMap::new(),
            queries: BTreeMap::new(),
            out: VecDeque::new(),
            bulk: VecDeque::new(),
            wanted: VecDeque::new(),
            share,
            view: 0,
            next_beat: now,
            answered: now,
            twin: None,
            next_handle: 0,
            next_query: 0,
        }
    }

    /// Adds an instance. `config` is a hash of what must be equal at all nodes: pool6, pool4 and
    /// the global settings that matter. What is in its table already counts only if another node
    /// has it too, or there is no other.
    ///
    /// # Errors
    /// [`AddError`].
    pub fn add_instance(
        &mut self,
        now: Tick,
        flavour: Flavour,
        name: &str,
        config: u64,
    ) -> Result<Handle, AddError> {
        if name.len() > INSTANCE_NAME_MAX {
            return Err(AddError::Name(name.to_owned()));
        }
        let mut instance = Instance::new(flavour, name, config, &self.common.config);
        if self
            .instances
            .values()
            .any(|other| other.tag == instance.tag)
        {
            return Err(AddError::Clash(name.to_owned()));
        }
        if let Some(sequence) = self.left.remove(&instance.tag) {
            instance.outgoing = Outgoing::after(sequence, self.common.config.history);
        }
        let handle = Handle(self.next_handle);
        self.next_handle += 1;
        self.instances.insert(handle, instance);
        self.born.insert(handle, now);
        self.next_beat = now;
        Ok(handle)
    }

    pub fn remove_instance(&mut self, instance: Handle) {
        if let Some(gone) = self.instances.remove(&instance) {
            self.left.insert(gone.tag, gone.outgoing.sequence());
        }
        self.born.remove(&instance);
        self.queries.retain(|_, query| query.instance != instance);
    }

    /// The configuration of an instance is another one.
    pub fn set_instance_config(&mut self, now: Tick, instance: Handle, config: u64) {
        if let Some(instance) = self.instances.get_mut(&instance) {
            instance.config = config;
            self.next_beat = now;
            let known: Vec<NodeId> = self.peers.iter().map(|(id, _)| id).collect();
            for peer in known {
                self.judge(peer);
            }
        }
    }

    /// Changes of a table were lost before they could be reported: the table is gone through.
    pub fn rescan(&mut self, instance: Handle) {
        if let Some(instance) = self.instances.get_mut(&instance) {
            instance.rescan = Some((0, 0));
        }
    }

    /// Exchanges the keys; the first one seals.
    pub fn set_keys(&mut self, keys: &[Key]) {
        self.seal.set_keys(keys);
    }

    /// Something happened to a table here, other than through [`Table`](super::Table). `expired` tells whether
    /// a session that is gone ended of itself, by its timer, or was removed.
    pub fn on_change(
        &mut self,
        now: Tick,
        instance: Handle,
        change: &Change,
        expired: bool,
        tables: &mut dyn Tables,
    ) {
        let Some(found) = self.instances.get_mut(&instance) else {
            return;
        };
        if let Some(table) = tables.table(instance) {
            found.on_change(&mut self.common.scene(now, table), change, expired);
        }
    }

    /// Asks the others who has a mapping, and for its sessions. [`Event::Answered`] follows.
    pub fn query(&mut self, now: Tick, instance: Handle, question: Question) -> u32 {
        self.next_query = self.next_query.wrapping_add(1);
        let id = self.next_query;
        let found = self.instances.get(&instance);
        let waiting = found.map(|found| self.matching(found).map(|(peer, ..)| peer).collect());
        let waiting: BTreeSet<NodeId> = waiting.unwrap_or_default();
        let tag = found.map(|found| found.tag);
        let Some(tag) = tag.filter(|_| !waiting.is_empty() && self.queries.len() < QUERIES) else {
            self.common.end_query(id, Finding::Silence);
            return id;
        };
        let until = now.after(self.common.config.query);
        let query = Query {
            instance,
            waiting,
            until,
        };
        self.queries.insert(id, query);
        self.common.stats.queries_sent += 1;
        let message = Message::Query { tag, id, question };
        self.send(Destination::Group, &message.write());
        id
    }

    /// Whether there is anybody to [ask](Self::query).
    pub fn can_ask(&self, instance: Handle) -> bool {
        let found = self.instances.get(&instance);
        found.is_some_and(|found| self.matching(found).next().is_some())
    }

    /// Takes leave: the others need not wait until they miss us.
    pub fn leave(&mut self) {
        self.send(Destination::Group, &Message::Bye.write());
    }

    /// What is to be sent next.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.common.events.pop_front()
    }

    pub const fn stats(&self) -> Stats {
        self.common.stats
    }

    /// Whether all instances have what the others have, or there are no others.
    pub fn is_ready(&self) -> bool {
        self.instances.values().all(Instance::is_ready)
    }

    /// Whether an instance has what the others have, or there are no others.
    pub fn is_instance_ready(&self, instance: Handle) -> bool {
        self.instances
            .get(&instance)
            .is_some_and(Instance::is_ready)
    }

    /// Nodes whose pool6, pool4 or global settings of an instance differ from ours.
    pub fn mismatches(&self, instance: Handle) -> Vec<NodeId> {
        let found = self.instances.get(&instance);
        let found = found.map(|found| found.mismatches.keys().copied().collect());
        found.unwrap_or_default()
    }

    /// Which transport addresses this node may give to new clients.
    pub const fn share(&self) -> Share {
        self.share
    }

    /// The nodes that are alive, and where they were heard last.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, SocketAddr)> {
        let alive = self.peers.alive();
        alive.filter_map(|(id, peer)| peer.life().map(|life| (id, life.addr)))
    }

    /// The nodes that were alive and are not heard any more.
    pub fn lost(&self) -> impl Iterator<Item = NodeId> {
        let lost = |(_, peer): &(_, &Peer)| !peer.alive && peer.life().is_some();
        self.peers.iter().filter(lost).map(|(id, _)| id)
    }

    /// How many sessions have news that were not told yet.
    pub fn backlog(&self) -> usize {
        let pending = self.instances.values().map(|i| i.pending.len());
        pending.sum()
    }

    /// How many sessions of an instance have a version.
    pub fn sessions(&self, instance: Handle) -> usize {
        let found = self.instances.get(&instance);
        found.map_or(0, |found| found.shadow.len())
    }

    /// A number that is equal at two nodes if their copies of an instance are.
    pub fn digest(&self, instance: Handle) -> Option<u64> {
        let found = self.instances.get(&instance)?;
        Some(found.shadow.root())
    }

    /// When to call [`Node::on_tick`] at the latest. It may be in the past.
    pub fn next_deadline(&self) -> Tick {
        let config = &self.common.config;
        let mut next = self.next_beat;
        if !self.bulk.is_empty() {
            next = next.min(self.pace.next());
        } else if !self.wanted.is_empty() {
            return Tick(0);
        }
        for instance in self.instances.values() {
            if matches!(instance.phase, Phase::Sweeping { .. }) || instance.is_looking() {
                return Tick(0);
            }
            let pending = instance.pending.deadline(config);
            let pending = pending.filter(|_| instance.writer.is_some());
            let round = instance.round.as_ref().and_then(|round| round.deadline());
            let alive = |id: &NodeId| self.peers.get(*id).is_some_and(|peer| peer.alive);
            let gaps = instance.incoming.iter().filter(|(id, _)| alive(id));
            let gaps = gaps.filter_map(|(_, incoming)| incoming.deadline());
            let all = gaps.chain(pending).chain(round);
            next = all.fold(next, Tick::min);
        }
        let queries = self.queries.values().map(|query| query.until);
        queries.fold(next, Tick::min)
    }

    /// Alive peers that have an instance with equal configuration, and whether they are ready.
    pub(super) fn matching<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> impl Iterator<Item = (NodeId, &'a Peer, bool)> {
        self.peers.alive().filter_map(move |(id, peer)| {
            let about = peer.instances.get(&instance.tag)?;
            (about.config == instance.config).then_some((id, peer, about.ready))
        })
    }

    /// Compares a peer's configuration with ours, and says so if it is another one.
    pub(super) fn judge(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get(id) else {
            return;
        };
        for instance in self.instances.values_mut() {
            let Some(about) = peer.instances.get(&instance.tag) else {
                continue;
            };
            let (flavour, name) = (instance.flavour, instance.name.clone());
            let event = if about.config == instance.config {
                let before = instance.mismatches.remove(&id);
                // What came meanwhile was not looked at.
                before.map(|_| instance.incoming.remove(&id));
                let peer = id;
                before.map(|_| Event::Match {
                    peer,
                    flavour,
                    name,
                })
            } else {
                let before = instance.mismatches.insert(id, about.config);
                let peer = id;
                (before != Some(about.config)).then_some(Event::Mismatch {
                    peer,
                    flavour,
                    name,
                })
            };
            self.common.events.extend(event);
        }
    }

    /// Says that we are alive, and how we are.
    pub(super) fn beat(&mut self, now: Tick, to: Destination, urgent: bool) {
        let mut heard = self.peers.heard();
        heard.extend(self.twin.map(|epoch| (self.common.config.node, epoch)));
        heard.truncate(HEARD);
        let abouts = self.instances.values().map(|instance| About {
            flavour: instance.flavour,
            name: instance.name.clone(),
            ready: instance.is_ready(),
            config: instance.config,
            root: instance.shadow.root(),
            writer: instance.writer.unwrap_or(0),
            sequence: instance.outgoing.sequence(),
        });
        let mut abouts: Vec<About> = abouts.collect();
        let room = self.common.config.payload - OVERHEAD - BEAT_HEAD - heard.len() * 10;
        let each = (room / About::SIZE).max(1);
        loop {
            let rest = abouts.split_off(abouts.len().min(each));
            let beat = Beat {
                urgent,
                time: self.common.clock.last(),
                view: self.view,
                heard: heard.clone(),
                instances: abouts,
            };
            self.send(to, &Message::Beat(beat).write());
            if rest.is_empty() {
                break;
            }
            abouts = rest;
        }
        if to == Destination::Group {
            self.next_beat = now.after(self.common.config.beat);
        }
    }

    pub(super) fn send(&mut self, to: Destination, message: &[u8]) {
        let Some(bytes) = self.seal.seal(message) else {
            return;
        };
        self.pace.spend(bytes.len());
        self.common.stats.sent_datagrams += 1;
        self.common.stats.sent_bytes += bytes.len() as u64;
        self.out.push_back(Transmit { to, bytes });
    }

    pub(super) fn send_to(&mut self, peer: NodeId, message: &[u8]) {
        if let Some(addr) = self.peers.addr(peer) {
            self.send(Destination::Peer(addr), message);
        }
    }
}

/// Queries that wait for answers, at most.
const QUERIES: usize = 4_096;

/// Lives that are named in a heartbeat, at most.
const HEARD: usize = 80;

/// What stands before the lists in a heartbeat.
const BEAT_HEAD: usize = 19;
