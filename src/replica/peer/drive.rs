// SPDX-License-Identifier: GPL-2.0-or-later
//! What a node does of itself: beats, batches, comparisons, readiness, shares.

use super::instance::{Instance, Phase};
use super::message::Message;
use super::node::Node;
use super::round::Round;
use super::seal::NodeId;
use super::shadow::Version;
use super::stamp::Writer;
use super::{Destination, Event, Finding, Handle, Share, ShareMode, Tables};
use crate::base::Tick;

impl Node {
    /// Does what is due.
    pub fn on_tick(&mut self, now: Tick, tables: &mut dyn Tables) {
        let silent = Tick(now.0.saturating_sub(self.common.config.dead));
        for peer in self.peers.lapse(silent) {
            self.common.events.push_back(Event::PeerDown(peer));
        }
        let handles: Vec<Handle> = self.instances.keys().copied().collect();
        for handle in &handles {
            self.mend_gaps(now, *handle);
            self.drive(now, *handle, tables);
        }
        self.settle_share(now);
        if self.next_beat <= now {
            self.beat(now, Destination::Group, false);
        }
        for handle in &handles {
            self.flush_due(now, *handle, tables);
        }
        if self.bulk.is_empty() {
            self.serve(now, tables);
        }
        while self.pace.allows(now)
            && let Some((to, message)) = self.bulk.pop_front()
        {
            self.send(Destination::Peer(to), &message);
        }
        self.queries.retain(|query, asked| {
            let waits = now < asked.until;
            if !waits {
                self.common.end_query(*query, Finding::Silence);
            }
            waits
        });
    }

    fn flush_due(&mut self, now: Tick, handle: Handle, tables: &mut dyn Tables) {
        for _ in 0..BATCHES {
            let Some(instance) = self.instances.get_mut(&handle) else {
                return;
            };
            let due = instance.pending.is_due(now, &self.common.config);
            if !due || !self.pace.allows(now) || !self.flush(now, handle, tables) {
                return;
            }
        }
    }

    /// Sends one batch; false if there was nothing to say.
    pub(super) fn flush(&mut self, now: Tick, handle: Handle, tables: &mut dyn Tables) -> bool {
        let listening = self.peers.alive().next().is_some();
        let (Some(instance), Some(table)) = (self.instances.get_mut(&handle), tables.table(handle))
        else {
            return false;
        };
        let batch = instance.flush(&mut self.common.scene(now, table), listening);
        if let Some(batch) = batch.as_ref().filter(|batch| !batch.is_empty()) {
            self.send(Destination::Group, batch);
        }
        batch.is_some()
    }

    /// Sends what waits for company, before the node takes leave.
    pub fn flush_all(&mut self, now: Tick, tables: &mut dyn Tables) {
        let handles: Vec<Handle> = self.instances.keys().copied().collect();
        for handle in handles {
            while self.flush(now, handle, tables) {}
        }
    }

    fn mend_gaps(&mut self, now: Tick, handle: Handle) {
        #[cfg(test)]
        if !self.common.config.repair {
            return;
        }
        let Some(instance) = self.instances.get_mut(&handle) else {
            return;
        };
        let tag = instance.tag;
        let mut questions = Vec::new();
        for (peer, incoming) in &mut instance.incoming {
            let alive = self.peers.get(*peer).is_some_and(|peer| peer.alive);
            let ranges = if alive {
                incoming.gaps(now)
            } else {
                Vec::new()
            };
            if !ranges.is_empty() {
                self.common.stats.gaps += ranges.len() as u64;
                questions.push((*peer, Message::Again { tag, ranges }.write()));
            }
        }
        for (peer, question) in questions {
            self.send_to(peer, &question);
        }
    }

    /// Takes an instance a step further: to readiness, and to agreement with the others.
    fn drive(&mut self, now: Tick, handle: Handle, tables: &mut dyn Tables) {
        let Some(instance) = self.instances.get_mut(&handle) else {
            return;
        };
        instance.shadow.expire(now);
        if instance.is_looking()
            && let Some(table) = tables.table(handle)
        {
            instance.look_again(&mut self.common.scene(now, table));
        }
        if let Phase::Sweeping { adopt, .. } = instance.phase {
            if let Some(table) = tables.table(handle)
                && instance.sweep(&mut self.common.scene(now, table))
            {
                self.become_ready(now, handle, adopt);
            }
            return;
        }
        if let Some(round) = &mut instance.round {
            let peer = round.peer;
            if round.outcome().is_some() {
                self.finish_round(now, handle);
            } else if round.is_stuck(now) || self.peers.get(peer).is_none_or(|p| !p.alive) {
                instance.round = None;
                instance.compared = now;
            } else {
                for question in round.questions(now, &mut self.asks) {
                    self.send_to(peer, &question.write());
                }
            }
            return;
        }
        if let Some(peer) = self.next_round(now, handle) {
            self.begin_round(now, handle, peer);
        } else if self.may_go_alone(now, handle)
            && let Some(instance) = self.instances.get_mut(&handle)
        {
            let (cursor, adopt) = (0, true);
            instance.phase = Phase::Sweeping { cursor, adopt };
        }
    }

    fn begin_round(&mut self, now: Tick, handle: Handle, peer: NodeId) {
        if let Some(instance) = self.instances.get_mut(&handle) {
            let mut round = Round::new(now, instance.tag, peer);
            let questions = round.questions(now, &mut self.asks);
            instance.round = Some(round);
            for question in questions {
                self.send_to(peer, &question.write());
            }
        }
    }

    /// Whom to compare with now, if there is a reason to.
    fn next_round(&mut self, now: Tick, handle: Handle) -> Option<NodeId> {
        #[cfg(test)]
        if !self.common.config.repair {
            return None;
        }
        let instance = self.instances.get(&handle)?;
        let matching = self.matching(instance).filter(|(_, _, ready)| *ready);
        // In a different order with every question, so that nobody is always the first.
        let mut ready: Vec<_> = matching.map(|(id, peer, _)| (id, peer)).collect();
        let turn = now.0 as usize % ready.len().max(1);
        ready.rotate_left(turn);
        if instance.phase == Phase::Joining {
            return ready.first().map(|(id, _)| *id);
        }
        let since = now.since(instance.compared);
        if since >= AGAIN {
            let gap = |id: &NodeId| {
                let stream = instance.incoming.get(id);
                stream.is_some_and(|stream| stream.is_lost() || stream.through().is_none())
            };
            let lost = ready.iter().find(|(id, _)| gap(id));
            if let Some((id, _)) = lost {
                return Some(*id);
            }
        }
        if since < self.common.config.drift {
            return None;
        }
        let root = instance.shadow.root();
        let differs = ready.iter().find(|(_, peer)| {
            let about = peer.instances.get(&instance.tag);
            about.is_some_and(|about| about.root != root)
        });
        differs.map(|(id, _)| *id)
    }

    /// Whether an instance that found nobody to learn from may do without: of several that look
    /// for somebody, the one with the lowest number goes first.
    fn may_go_alone(&self, now: Tick, handle: Handle) -> bool {
        let (Some(instance), Some(born)) = (self.instances.get(&handle), self.born.get(&handle))
        else {
            return false;
        };
        let waited = now.since(*born) >= self.common.config.grace;
        let others = || {
            let peers = self.peers.alive();
            peers.filter_map(|(id, p)| Some((id, p.instances.get(&instance.tag)?)))
        };
        let lowest = others().all(|(id, about)| about.ready || self.common.config.node < id);
        let somebody = others().any(|(_, about)| about.ready);
        instance.phase == Phase::Joining && waited && lowest && !somebody
    }

    fn finish_round(&mut self, now: Tick, handle: Handle) {
        let Some(instance) = self.instances.get_mut(&handle) else {
            return;
        };
        let Some(round) = instance.round.take() else {
            return;
        };
        let Some(top) = round.outcome() else {
            return;
        };
        instance.knowledge.merge(&top.knowledge);
        for stamp in top.knowledge.iter() {
            self.common.clock.observe(stamp.time());
        }
        for (node, epoch, sequence) in &top.streams {
            let incoming = instance.incoming.get_mut(node);
            let incoming = incoming.filter(|incoming| incoming.epoch == *epoch);
            let covered = incoming.and_then(|incoming| incoming.cover(now, *sequence));
            if let Some(covered) = covered {
                instance.knowledge.advance(covered);
            }
        }
        instance.compared = now;
        let stats = &mut self.common.stats;
        stats.rounds += 1;
        stats.buckets_fetched += round.fetched;
        stats.drift += round.mended;
        self.common.events.push_back(Event::Compared {
            instance: handle,
            peer: round.peer,
            took: now.since(round.began),
            buckets: round.fetched,
            mended: round.mended,
        });
        if instance.phase == Phase::Joining {
            let (cursor, adopt) = (0, false);
            instance.phase = Phase::Sweeping { cursor, adopt };
        }
    }

    fn become_ready(&mut self, now: Tick, handle: Handle, alone: bool) {
        let taken = self.writers(handle);
        if let Some(instance) = self.instances.get_mut(&handle) {
            instance.writer = Some(free_writer(instance, self.common.config.epoch, &taken));
            instance.compared = now;
            let instance = handle;
            self.common
                .events
                .push_back(Event::Ready { instance, alone });
            self.next_beat = now;
        }
    }

    /// Two nodes chose the same number to write under: the one with the higher node number
    /// chooses again, and says once more what it said under the old one.
    pub(super) fn mind_writers(&mut self, now: Tick, from: NodeId) {
        let handles: Vec<Handle> = self.instances.keys().copied().collect();
        for handle in handles {
            let taken = self.writers(handle);
            let Some(instance) = self.instances.get_mut(&handle) else {
                continue;
            };
            let theirs = self
                .peers
                .get(from)
                .and_then(|p| p.instances.get(&instance.tag));
            let theirs = theirs.map(|about| about.writer);
            let Some(writer) = instance.writer.filter(|w| Some(*w) == theirs) else {
                continue;
            };
            if self.common.config.node < from {
                continue;
            }
            instance.writer = Some(free_writer(instance, self.common.config.epoch, &taken));
            for bucket in 0..super::shadow::BUCKETS as u16 {
                let ours = |(_, version): &(_, Version)| version.stamp.writer() == writer;
                let keys: Vec<_> = instance.shadow.bucket(bucket).filter(ours).collect();
                for (key, _) in keys {
                    instance.pending.touch(now, key, true);
                }
            }
        }
    }

    /// The numbers that others write under.
    fn writers(&self, handle: Handle) -> Vec<Writer> {
        let Some(instance) = self.instances.get(&handle) else {
            return Vec::new();
        };
        let abouts = self.peers.iter();
        let abouts = abouts.filter_map(|(_, peer)| peer.instances.get(&instance.tag));
        abouts.map(|about| about.writer).collect()
    }

    /// Computes our share anew. What is not ours any more is given up at once; what is ours from
    /// now on is taken when all others agree on who is there, for then they have given it up.
    pub(super) fn settle_share(&mut self, now: Tick) {
        if self.common.config.share != ShareMode::Auto {
            return;
        }
        let hold = self.common.config.hold;
        let node = self.common.config.node;
        let ready = self.is_ready();
        let there = self.peers.iter().filter(|(_, peer)| {
            let at = peer.ready_at;
            at.is_some_and(|at| now.since(at) < hold)
        });
        let mut members: Vec<NodeId> = there.map(|(id, _)| id).collect();
        members.extend(ready.then_some(node));
        members.sort_unstable();
        self.view = members.iter().fold(VIEW, |hash, member| {
            (hash ^ u64::from(*member)).wrapping_mul(0x0100_0000_01b3)
        });
        let ours = Share::of_member(node, &members);
        let mut others = self.peers.alive();
        let agreed = others.all(|(id, peer)| !members.contains(&id) || peer.view == self.view);
        let share = if agreed { ours } else { ours.and(self.share) };
        if share != self.share {
            self.share = share;
            self.common.events.push_back(Event::Share(share));
        }
    }
}

/// A number to write under that nobody has used.
fn free_writer(instance: &Instance, epoch: u64, taken: &[Writer]) -> Writer {
    let first = epoch as Writer;
    let mut candidates = (0..=Writer::MAX).map(|i| first.wrapping_add(i));
    let free = candidates.find(|w| *w != 0 && !taken.contains(w) && !instance.knowledge.knows(*w));
    free.unwrap_or(first)
}

/// Batches that are sent at a time.
const BATCHES: usize = 256;

/// Milliseconds between attempts to find what was lost.
const AGAIN: u64 = 500;

const VIEW: u64 = 0xcbf2_9ce4_8422_2325;
