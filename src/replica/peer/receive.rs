// SPDX-License-Identifier: GPL-2.0-or-later
//! What becomes of a datagram.

use std::net::SocketAddr;

use super::apply::Effect;
use super::instance::{Instance, Phase};
use super::message::{Beat, Message, Tag};
use super::node::{Common, Node, Wanted};
use super::origin::{Incoming, Receipt};
use super::peers::{Peer, Standing};
use super::record::{Record, unpack};
use super::seal::{Header, NodeId, SealError};
use super::stamp::Stamp;
use super::{Destination, Event, Finding, Handle, Tables};
use crate::base::Tick;

/// What another node said, out of its envelope.
pub struct Letter {
    header: Header,
    from: SocketAddr,
    message: Vec<u8>,
}

impl Node {
    /// A datagram arrived, and is opened in place. `None` if it is forged, was here before, or is our
    /// own. Nobody without the key gets further than this, which needs no tables.
    pub fn open(&mut self, now: Tick, from: SocketAddr, datagram: &mut [u8]) -> Option<Letter> {
        let stats = &mut self.common.stats;
        stats.received_datagrams += 1;
        stats.received_bytes += datagram.len() as u64;
        let Ok(header) = Header::read(datagram) else {
            stats.malformed += 1;
            return None;
        };
        let config = &self.common.config;
        if (header.sender, header.epoch) == (config.node, config.epoch) {
            // The group brings back what we sent.
            return None;
        }
        let opened = self.seal.open(header, datagram);
        let message = match opened {
            Ok(opened) => opened,
            Err(SealError::UnknownKey | SealError::Forged) => {
                stats.auth_failures += 1;
                return None;
            }
            Err(SealError::Short | SealError::Version) => {
                stats.malformed += 1;
                return None;
            }
        };
        if header.sender == config.node {
            self.on_twin(header.epoch, message);
            return None;
        }
        match self.peers.hear(now, from, header) {
            Standing::Proven | Standing::Unproven => Some(Letter {
                header,
                from,
                message: message.to_vec(),
            }),
            Standing::Crowded => {
                self.common.stats.unproven += 1;
                None
            }
            Standing::Replayed => {
                self.common.stats.replayed += 1;
                None
            }
        }
    }

    /// Does what a letter says.
    pub fn on_letter(&mut self, now: Tick, letter: &Letter, tables: &mut dyn Tables) {
        let Letter { header, from, .. } = *letter;
        let Some(message) = Message::read(&letter.message) else {
            self.common.stats.malformed += 1;
            return;
        };
        let life = self.peers.get(header.sender).and_then(Peer::life);
        // It may have proven itself since this was opened.
        if life.is_none_or(|life| life.epoch != header.epoch) {
            let Message::Beat(beat) = &message else {
                self.common.stats.unproven += 1;
                return;
            };
            if !self.on_stranger(now, from, header, beat) {
                return;
            }
        }
        self.on_message(now, header.sender, header.epoch, message, tables);
    }

    /// Somebody has our number: an earlier life of ours, as a recording, or another node.
    fn on_twin(&mut self, epoch: u64, message: &[u8]) {
        let ours = (self.common.config.node, self.common.config.epoch);
        if let Some(Message::Beat(beat)) = Message::read(message)
            && beat.heard.contains(&ours)
            && self.twin == Some(epoch)
        {
            self.common.events.push_back(Event::DuplicateNode);
            self.twin = None;
            return;
        }
        self.common.stats.replayed += 1;
        self.twin = Some(epoch);
    }

    /// A life that is not believed yet says how it is; true if it proves to be real.
    fn on_stranger(&mut self, now: Tick, from: SocketAddr, header: Header, beat: &Beat) -> bool {
        let ours = (self.common.config.node, self.common.config.epoch);
        let proven = beat.heard.contains(&ours) && self.peers.prove(header.sender, header.epoch);
        if !proven {
            // A question, so that it need not wait for the next beat to prove itself.
            self.answer_beat(now, from, true);
            return false;
        }
        // What is being compared is what the life before had: this one may have nothing yet.
        for instance in self.instances.values_mut() {
            instance.round.take_if(|round| round.peer == header.sender);
        }
        true
    }

    fn answer_beat(&mut self, now: Tick, to: SocketAddr, urgent: bool) {
        if now.since(self.answered) >= ANSWER_EVERY {
            self.answered = now;
            self.beat(now, Destination::Peer(to), urgent);
        }
    }

    fn on_message(
        &mut self,
        now: Tick,
        from: NodeId,
        epoch: u64,
        message: Message<'_>,
        tables: &mut dyn Tables,
    ) {
        if let Some(peer) = self.peers.get_mut(from)
            && !peer.alive
        {
            peer.alive = true;
            self.common.events.push_back(Event::PeerUp(from));
        }
        match message {
            Message::Beat(beat) => self.on_beat(now, from, epoch, beat),
            Message::Bye => {
                if let Some(peer) = self.peers.get_mut(from) {
                    peer.alive = false;
                    peer.ready_at = None;
                    self.common.events.push_back(Event::PeerDown(from));
                }
            }
            Message::Batch {
                tag,
                stamp,
                sequence,
                waited,
                age,
                records,
            } => {
                let Some(records) = self.unpack(records, stamp) else {
                    return;
                };
                let Some((handle, instance, common)) = self.shared(from, tag) else {
                    self.common.stats.mismatched += records.len() as u64;
                    return;
                };
                let incoming = stream(instance, from, epoch);
                let stats = &mut common.stats;
                let covered = match incoming.receive(now, sequence, stamp) {
                    Receipt::Duplicate => {
                        stats.duplicates += 1;
                        return;
                    }
                    Receipt::New { repair, covered } => {
                        stats.repairs += u64::from(repair);
                        covered
                    }
                };
                if age == 0 {
                    stats.lag = waited;
                }
                let Some(table) = tables.table(handle) else {
                    return;
                };
                let mut scene = common.scene(now, table);
                for record in &records {
                    instance.apply(&mut scene, record, age);
                }
                if let Some(covered) = covered {
                    instance.knowledge.advance(covered);
                }
            }
            Message::Again { tag, ranges } => self.on_again(now, from, tag, &ranges),
            Message::TooOld { tag, first } => {
                if let Some((_, instance, _)) = self.shared(from, tag) {
                    stream(instance, from, epoch).give_up(first);
                }
            }
            Message::AskTop { tag, ask } => {
                let (node, epoch) = (self.common.config.node, self.common.config.epoch);
                if let Some((_, instance, _)) = self.whole(from, tag) {
                    let top = instance.top(ask, node, epoch);
                    self.send_to(from, &Message::Top(top).write());
                }
            }
            Message::Top(top) => {
                if let Some((_, instance, _)) = self.shared(from, top.tag)
                    && let Some(round) = instance.round.as_mut().filter(|r| r.peer == from)
                {
                    round.on_top(now, top, &instance.shadow);
                }
            }
            Message::AskGroups { tag, ask, groups } => {
                let Some((_, instance, _)) = self.whole(from, tag) else {
                    return;
                };
                let groups = groups.into_iter().take(ASKED);
                let answers: Vec<_> = groups
                    .map(|group| {
                        let digests = instance.shadow.group(group.into());
                        let message = Message::Group {
                            tag,
                            ask,
                            group,
                            digests,
                        };
                        message.write()
                    })
                    .collect();
                answers.iter().for_each(|answer| self.send_to(from, answer));
            }
            Message::Group {
                tag,
                group,
                digests,
                ..
            } => {
                if let Some((_, instance, _)) = self.shared(from, tag)
                    && let Some(round) = instance.round.as_mut().filter(|r| r.peer == from)
                {
                    round.on_group(now, group, &digests, &instance.shadow);
                }
            }
            Message::AskBuckets { tag, ask, buckets } => {
                self.on_ask_buckets(from, tag, ask, &buckets);
            }
            Message::Piece {
                tag,
                ask,
                bucket,
                part,
                parts,
                records,
            } => {
                let Some(records) = self.unpack(records, Stamp::ZERO) else {
                    return;
                };
                self.on_piece(
                    now,
                    from,
                    tag,
                    (ask, bucket),
                    (part, parts),
                    &records,
                    tables,
                );
            }
            Message::Query { tag, id, question } => {
                let Some((handle, instance, common)) = self.shared(from, tag) else {
                    return;
                };
                let Some(table) = tables.table(handle) else {
                    return;
                };
                // What was not told yet has no version yet.
                if instance.hurry(&common.scene(now, table), &question) {
                    self.flush(now, handle, tables);
                }
                if let Some((_, instance, common)) = self.shared(from, tag)
                    && let Some(table) = tables.table(handle)
                {
                    let answer = instance.answer(&common.scene(now, table), id, &question);
                    self.common.stats.queries_answered += 1;
                    self.send_to(from, &answer);
                }
            }
            Message::Answer {
                tag,
                id,
                found,
                records,
            } => {
                let Some(records) = self.unpack(records, Stamp::ZERO) else {
                    return;
                };
                self.on_answer(now, from, (tag, id), found, &records, tables);
            }
        }
    }

    fn on_beat(&mut self, now: Tick, from: NodeId, epoch: u64, beat: Beat) {
        self.common.clock.observe(beat.time);
        let Some(peer) = self.peers.get_mut(from) else {
            return;
        };
        peer.view = beat.view;
        if !beat.instances.is_empty() && beat.instances.iter().all(|about| about.ready) {
            peer.ready_at = Some(now);
        }
        let addr = peer.life().map(|life| life.addr);
        for about in beat.instances {
            peer.instances
                .insert(super::message::tag(about.flavour, &about.name), about);
        }
        self.judge(from);
        for instance in self.instances.values_mut() {
            let about = self
                .peers
                .get(from)
                .and_then(|p| p.instances.get(&instance.tag));
            if let Some(about) = about.filter(|about| about.config == instance.config) {
                let sequence = about.sequence;
                stream(instance, from, epoch).announce(now, sequence);
            }
        }
        if let Some(addr) = addr.filter(|_| beat.urgent) {
            self.answer_beat(now, addr, false);
        }
        self.mind_writers(now, from);
        self.settle_share(now);
    }

    fn on_again(&mut self, now: Tick, from: NodeId, tag: Tag, ranges: &[(u64, u64)]) {
        let Some((_, instance, common)) = self.shared(from, tag) else {
            return;
        };
        let (mut again, mut missing) = (Vec::new(), false);
        for (first, last) in ranges {
            let (sent, gone) = instance.outgoing.again(*first, *last);
            missing |= gone;
            let room = RESENT.saturating_sub(again.len());
            again.extend(sent.take(room).map(|sent| {
                let message = Message::Batch {
                    tag,
                    stamp: sent.stamp,
                    sequence: sent.sequence,
                    waited: sent.waited,
                    age: now.since(sent.at),
                    records: &sent.records,
                };
                message.write()
            }));
        }
        let first = instance.outgoing.oldest();
        common.stats.resent += again.len() as u64;
        if missing {
            self.send_to(from, &Message::TooOld { tag, first }.write());
        }
        self.send_in_bulk(from, again);
    }

    fn on_ask_buckets(&mut self, from: NodeId, tag: Tag, ask: u32, buckets: &[u16]) {
        for bucket in buckets.iter().take(ASKED) {
            let (by, bucket) = (from, *bucket);
            let mut wanted = self.wanted.iter_mut();
            // Who asks again does not want what was asked for before.
            let before = wanted.find(|w| (w.by, w.tag, w.bucket) == (by, tag, bucket));
            if let Some(before) = before {
                before.ask = ask;
            } else if self.wanted.len() < WANTED {
                self.wanted.push_back(Wanted {
                    by,
                    tag,
                    bucket,
                    ask,
                });
            } else {
                self.common.stats.overruns += 1;
            }
        }
    }

    /// Answers some of what was asked for, once the answers before are gone.
    pub(super) fn serve(&mut self, now: Tick, tables: &mut dyn Tables) {
        let mut room = SERVED;
        while room > 0
            && let Some(wanted) = self.wanted.pop_front()
        {
            let Wanted { by, tag, .. } = wanted;
            if let Some((handle, instance, common)) = self.whole(by, tag)
                && let Some(table) = tables.table(handle)
            {
                let scene = common.scene(now, table);
                let pieces = instance.pieces(&scene, wanted.bucket, wanted.ask);
                room = room.saturating_sub(pieces.len());
                self.send_in_bulk(by, pieces);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a message")]
    fn on_piece(
        &mut self,
        now: Tick,
        from: NodeId,
        tag: Tag,
        (ask, bucket): (u32, u16),
        (part, parts): (u16, u16),
        records: &[Record],
        tables: &mut dyn Tables,
    ) {
        let Some((handle, instance, common)) = self.shared(from, tag) else {
            return;
        };
        let Some(mut round) = instance.round.take_if(|round| round.peer == from) else {
            return;
        };
        if let Some(table) = tables.table(handle) {
            let joined = instance.phase == Phase::Ready;
            let mut scene = common.scene(now, table);
            let settled = scene.clock.last().saturating_sub(SETTLED);
            for record in records {
                let effect = instance.apply(&mut scene, record, 0);
                let drift = effect == Effect::Applied && record.stamp.time() < settled;
                round.mended += u64::from(joined && drift);
            }
            let keys = records.iter().map(|record| record.key);
            let theirs = round.on_piece(now, (ask, bucket), (part, parts), keys);
            if let (Some(theirs), Some(knowledge)) = (theirs, round.knowledge()) {
                let dropped = instance.drop_absent(&mut scene, bucket, &theirs, knowledge);
                round.mended += if joined { dropped } else { 0 };
            }
        }
        instance.round = Some(round);
    }

    fn on_answer(
        &mut self,
        now: Tick,
        from: NodeId,
        (tag, id): (Tag, u32),
        found: bool,
        records: &[Record],
        tables: &mut dyn Tables,
    ) {
        let Some((handle, instance, common)) = self.shared(from, tag) else {
            return;
        };
        if let Some(table) = tables.table(handle) {
            let mut scene = common.scene(now, table);
            for record in records {
                instance.apply(&mut scene, record, 0);
            }
        }
        let Some(query) = self.queries.get_mut(&id) else {
            return;
        };
        query.waiting.remove(&from);
        if found || query.waiting.is_empty() {
            self.queries.remove(&id);
            let finding = if found {
                Finding::Found
            } else {
                Finding::Nobody
            };
            self.common.end_query(id, finding);
        }
    }

    fn unpack(&mut self, records: &[u8], base: Stamp) -> Option<Vec<Record>> {
        let records = unpack(records, base);
        self.common.stats.malformed += u64::from(records.is_none());
        records
    }

    /// The instance of a message, if the sender has the same configuration for it.
    fn shared(&mut self, from: NodeId, tag: Tag) -> Option<(Handle, &mut Instance, &mut Common)> {
        let about = self.peers.get(from)?.instances.get(&tag)?;
        let mut instances = self.instances.iter_mut();
        let (handle, instance) = instances.find(|(_, instance)| instance.tag == tag)?;
        (about.config == instance.config).then_some((*handle, instance, &mut self.common))
    }

    /// The same, if it has everything: what it lacks before that is not deleted.
    fn whole(&mut self, from: NodeId, tag: Tag) -> Option<(Handle, &mut Instance, &mut Common)> {
        let shared = self.shared(from, tag);
        shared.filter(|(_, instance, _)| instance.is_ready())
    }

    fn send_in_bulk(&mut self, to: NodeId, messages: Vec<Vec<u8>>) {
        if let Some(addr) = self.peers.addr(to) {
            self.bulk
                .extend(messages.into_iter().map(|bytes| (addr, bytes)));
        }
    }
}

/// The stream of a node in its present life.
fn stream(instance: &mut Instance, from: NodeId, epoch: u64) -> &mut Incoming {
    let incoming = instance.incoming.entry(from);
    let incoming = incoming.or_insert_with(|| Incoming::new(epoch));
    if incoming.epoch != epoch {
        *incoming = Incoming::new(epoch);
    }
    incoming
}

/// Milliseconds between beats that are sent because somebody asked.
const ANSWER_EVERY: u64 = 20;

/// Groups or buckets that are answered at once.
const ASKED: usize = 64;

/// Batches that are sent again for one question.
const RESENT: usize = 256;

/// Buckets that wait to be sent, at which questions are not answered any more.
const WANTED: usize = 1_024;

/// Datagrams of buckets that are written at a time: packets wait meanwhile.
const SERVED: usize = 16;

/// What is older than this should be known everywhere: 5 seconds.
const SETTLED: u64 = 5_000 * 64;
