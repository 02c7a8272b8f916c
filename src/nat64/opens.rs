// SPDX-License-Identifier: GPL-2.0-or-later
//! Simultaneous open of TCP connections: SYNs from IPv4 that came before their client's.
//!
//! When both ends open a connection at once, the server's SYN arrives at a transport address that
//! nobody has yet, or that is closed to strangers. It is held back for as long as the client may
//! take to send its own; only then its sender learns that there is nobody. Nothing here looks into
//! the packets.
//!
//! Strangers fill this store, so that its size is limited: `maximum-simultaneous-opens` packets of
//! at most [`LARGEST`] bytes.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{Tick, Transport4};

/// The packets that are held back.
#[derive(Default)]
pub(super) struct Opens {
    /// Nobody has the destination yet. By source: one is enough of those that knock everywhere.
    unmapped: BTreeMap<Transport4, Knock>,
    queue: BTreeSet<(Tick, Transport4)>,
    /// The destination is closed to the source. By destination and source; each belongs to a
    /// session, with which it ends.
    filtered: BTreeMap<(Transport4, Transport4), Box<[u8]>>,
}

struct Knock {
    v4: Transport4,
    deadline: Tick,
    packet: Box<[u8]>,
}

impl Opens {
    pub(super) fn len(&self) -> usize {
        self.unmapped.len() + self.filtered.len()
    }

    /// Where a source has knocked without anybody there.
    pub(super) fn target(&self, remote: Transport4) -> Option<Transport4> {
        self.unmapped.get(&remote).map(|knock| knock.v4)
    }

    /// Holds a packet to an address that nobody has; its source must not have one here yet.
    pub(super) fn hold(
        &mut self,
        remote: Transport4,
        v4: Transport4,
        deadline: Tick,
        packet: &[u8],
    ) {
        let packet = bounded(packet);
        let knock = Knock {
            v4,
            deadline,
            packet,
        };
        self.unmapped.insert(remote, knock);
        self.queue.insert((deadline, remote));
    }

    /// Takes the packet of a source to an address that nobody had.
    pub(super) fn take(&mut self, remote: Transport4) -> Option<Box<[u8]>> {
        let knock = self.unmapped.remove(&remote)?;
        self.queue.remove(&(knock.deadline, remote));
        Some(knock.packet)
    }

    /// Forgets the packet of a source to an address that somebody got meanwhile.
    pub(super) fn settle(&mut self, remote: Transport4, v4: Transport4) {
        if self.target(remote) == Some(v4) {
            self.take(remote);
        }
    }

    /// Takes the packets to addresses that nobody had and that `gone` chooses.
    pub(super) fn take_if(&mut self, gone: impl Fn(Transport4) -> bool) -> Vec<Box<[u8]>> {
        let chosen = self.unmapped.iter().filter(|(_, knock)| gone(knock.v4));
        let remotes: Vec<_> = chosen.map(|(remote, _)| *remote).collect();
        remotes.into_iter().filter_map(|r| self.take(r)).collect()
    }

    /// Holds the packet that a session began with.
    pub(super) fn hold_session(&mut self, v4: Transport4, remote: Transport4, packet: &[u8]) {
        self.filtered.insert((v4, remote), bounded(packet));
    }

    /// Takes the packet of a session, if one is held.
    pub(super) fn take_session(&mut self, v4: Transport4, remote: Transport4) -> Option<Box<[u8]>> {
        self.filtered.remove(&(v4, remote))
    }

    /// Takes the packets of all sessions of a mapping.
    pub(super) fn take_mapping(&mut self, v4: Transport4) -> Vec<Box<[u8]>> {
        let all = (v4, FIRST)..=(v4, LAST);
        let keys: Vec<_> = self.filtered.range(all).map(|(key, _)| *key).collect();
        let packets = keys.iter().filter_map(|key| self.filtered.remove(key));
        packets.collect()
    }

    /// All packets.
    pub(super) fn into_packets(self) -> impl Iterator<Item = Box<[u8]>> {
        let unmapped = self.unmapped.into_values().map(|knock| knock.packet);
        unmapped.chain(self.filtered.into_values())
    }

    /// Takes a packet to an address that nobody got in time.
    pub(super) fn take_due(&mut self, now: Tick) -> Option<Box<[u8]>> {
        let (_, remote) = *self.queue.first().filter(|(due, _)| *due <= now)?;
        self.take(remote)
    }

    /// When the next packet is due that does not belong to a session.
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        self.queue.first().map(|(due, _)| *due)
    }
}

/// A copy of a packet. One that is too large is forgotten: its sender is not told.
fn bounded(packet: &[u8]) -> Box<[u8]> {
    match packet.len() {
        0..=LARGEST => packet.into(),
        _ => Box::default(),
    }
}

/// Bytes of a packet that is held; SYNs hardly ever have a tenth of it.
pub(super) const LARGEST: usize = 1500;

const FIRST: Transport4 = Transport4::new(std::net::Ipv4Addr::UNSPECIFIED, 0);
const LAST: Transport4 = Transport4::new(std::net::Ipv4Addr::BROADCAST, u16::MAX);
