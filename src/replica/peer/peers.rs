// SPDX-License-Identifier: GPL-2.0-or-later
//! The other nodes: who is there, and who only seems to be.
//!
//! A recording of what a node once sent opens like the real thing. So a life of a node (its epoch)
//! is believed only after it has named ours, which is drawn with every start and cannot occur in
//! an older recording; and a life that ended is never believed again.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::message::{About, Tag};
use super::seal::{Header, NodeId, Window};
use crate::base::Tick;

#[derive(Default)]
pub(super) struct Peers(BTreeMap<NodeId, Peer>);

/// A node, in all its lives.
pub(super) struct Peer {
    /// The life that is believed.
    life: Option<Life>,
    /// Lives that have yet to prove themselves, the one heard last at the back.
    candidates: VecDeque<Life>,
    ended: VecDeque<u64>,
    pub(super) alive: bool,
    pub(super) view: u64,
    /// When it was last heard to be ready.
    pub(super) ready_at: Option<Tick>,
    pub(super) instances: BTreeMap<Tag, About>,
}

pub(super) struct Life {
    pub(super) epoch: u64,
    pub(super) addr: SocketAddr,
    pub(super) heard: Tick,
    window: Window,
}

/// What a datagram that was opened is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Proven,
    /// It may say who it is, and nothing else.
    Unproven,
    /// Seen before, or from a life that ended.
    Replayed,
    /// There are too many nodes already.
    Crowded,
}

impl Peers {
    pub(super) fn get(&self, id: NodeId) -> Option<&Peer> {
        self.0.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut Peer> {
        self.0.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.0.iter().map(|(id, peer)| (*id, peer))
    }

    /// Those that are believed and were heard lately.
    pub(super) fn alive(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.iter().filter(|(_, peer)| peer.alive)
    }

    pub(super) fn addr(&self, id: NodeId) -> Option<SocketAddr> {
        let life = self.get(id)?.life.as_ref()?;
        Some(life.addr)
    }

    /// Notes a genuine datagram.
    pub(super) fn hear(&mut self, now: Tick, from: SocketAddr, header: Header) -> Standing {
        if !self.0.contains_key(&header.sender) && self.0.len() >= PEERS {
            return Standing::Crowded;
        }
        let peer = self.0.entry(header.sender).or_insert_with(Peer::new);
        peer.hear(now, from, header)
    }

    /// A life of a node has named ours: it is believed. True if another one was before, or none.
    pub(super) fn prove(&mut self, id: NodeId, epoch: u64) -> bool {
        self.get_mut(id).is_some_and(|peer| peer.prove(epoch))
    }

    /// The nodes that were heard last before `before` and are not alive any more.
    pub(super) fn lapse(&mut self, before: Tick) -> Vec<NodeId> {
        let mut lapsed = Vec::new();
        for (id, peer) in &mut self.0 {
            let silent = peer.life.as_ref().is_none_or(|life| life.heard < before);
            if peer.alive && silent {
                peer.alive = false;
                lapsed.push(*id);
            }
            peer.candidates.retain(|life| life.heard >= before);
        }
        lapsed
    }

    /// Every life that was heard, for telling: it proves to them that we are alive.
    pub(super) fn heard(&self) -> Vec<(NodeId, u64)> {
        let mut all = Vec::new();
        for (id, peer) in &self.0 {
            let life = peer.life.iter().filter(|_| peer.alive);
            all.extend(life.chain(&peer.candidates).map(|life| (*id, life.epoch)));
        }
        all
    }
}

impl Peer {
    const fn new() -> Self {
        Self {
            life: None,
            candidates: VecDeque::new(),
            ended: VecDeque::new(),
            alive: false,
            view: 0,
            ready_at: None,
            instances: BTreeMap::new(),
        }
    }

    #[cfg(test)]
    fn epoch(&self) -> Option<u64> {
        self.life.as_ref().map(|life| life.epoch)
    }

    pub(super) const fn life(&self) -> Option<&Life> {
        self.life.as_ref()
    }

    fn hear(&mut self, now: Tick, from: SocketAddr, header: Header) -> Standing {
        if let Some(life) = self.life.as_mut().filter(|l| l.epoch == header.epoch) {
            if !life.hear(now, from, header.counter) {
                return Standing::Replayed;
            }
            return Standing::Proven;
        }
        if self.ended.contains(&header.epoch) {
            return Standing::Replayed;
        }
        let mut candidates = self.candidates.iter();
        let known = candidates.position(|life| life.epoch == header.epoch);
        let mut life = known
            .and_then(|known| self.candidates.remove(known))
            .unwrap_or_else(|| Life {
                epoch: header.epoch,
                addr: from,
                heard: now,
                window: Window::new(),
            });
        let new = life.hear(now, from, header.counter);
        self.candidates.push_back(life);
        if self.candidates.len() > CANDIDATES {
            self.candidates.pop_front();
        }
        if new {
            Standing::Unproven
        } else {
            Standing::Replayed
        }
    }

    fn prove(&mut self, epoch: u64) -> bool {
        let found = self.candidates.iter().position(|life| life.epoch == epoch);
        let Some(life) = found.and_then(|found| self.candidates.remove(found)) else {
            return false;
        };
        if let Some(ended) = self.life.replace(life) {
            self.ended.push_back(ended.epoch);
            if self.ended.len() > ENDED {
                self.ended.pop_front();
            }
        }
        self.instances.clear();
        self.view = 0;
        self.ready_at = None;
        true
    }
}

impl Life {
    fn hear(&mut self, now: Tick, from: SocketAddr, counter: u64) -> bool {
        let new = self.window.accept(counter);
        if new {
            self.addr = from;
            self.heard = now;
        }
        new
    }
}

/// Nodes in a cluster, besides this one.
const PEERS: usize = 64;
/// Unproven lives of a node that are kept apart.
const CANDIDATES: usize = 4;
/// Lives of a node that are remembered to have ended.
const ENDED: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn from(epoch: u64, counter: u64) -> Header {
        Header {
            key: 1,
            sender: 7,
            epoch,
            counter,
        }
    }

    #[test]
    fn a_life_is_believed_once_it_proves_itself_and_not_after_its_end() {
        let mut peers = Peers::default();
        let addr: SocketAddr = "[2001:db8::1]:1".parse().unwrap();
        let hear = |peers: &mut Peers, header| peers.hear(Tick(1), addr, header);
        assert_eq!(hear(&mut peers, from(5, 1)), Standing::Unproven);
        assert_eq!(hear(&mut peers, from(5, 1)), Standing::Replayed);
        assert!(!peers.prove(7, 6) && peers.prove(7, 5) && !peers.prove(7, 5));
        assert_eq!(hear(&mut peers, from(5, 1)), Standing::Replayed);
        assert_eq!(hear(&mut peers, from(5, 2)), Standing::Proven);
        assert_eq!(hear(&mut peers, from(6, 1)), Standing::Unproven);
        assert_eq!(hear(&mut peers, from(5, 3)), Standing::Proven);
        assert!(peers.prove(7, 6));
        assert_eq!(hear(&mut peers, from(5, 4)), Standing::Replayed);
        assert_eq!(peers.get(7).unwrap().epoch(), Some(6));
    }

    #[test]
    fn recordings_cannot_crowd_out_the_one_heard_last() {
        let mut peers = Peers::default();
        let addr: SocketAddr = "192.0.2.1:1".parse().unwrap();
        for epoch in 1..100 {
            peers.hear(Tick(1), addr, from(epoch, 1));
        }
        assert!(peers.prove(7, 99));
        assert_eq!(peers.get(7).unwrap().candidates.len(), CANDIDATES - 1);
        for sender in 100..300 {
            let header = Header {
                sender,
                ..from(1, 1)
            };
            peers.hear(Tick(1), addr, header);
        }
        assert_eq!(peers.iter().count(), PEERS);
        let header = Header {
            sender: 999,
            ..from(1, 1)
        };
        assert_eq!(peers.hear(Tick(1), addr, header), Standing::Crowded);
    }
}
