// SPDX-License-Identifier: GPL-2.0-or-later
//! Our own protocol between gateways: every node has every session, and they agree.
//!
//! Pure: no socket, no clock, no randomness. A [`Node`] is told what time it is, what arrived and
//! what happened in the tables here; it says what to send ([`Node::poll_transmit`]), what happened
//! ([`Node::poll_event`]) and when it wants to be asked again ([`Node::next_deadline`]), and it
//! changes the tables through the trait [`Table`]. `docs/sync.md` describes the protocol.
//!
//! ```text
//!  changes here ─► pending ─► batch ─► seal ─► group              live: one stream a node
//!  datagram ─► open ─► peers ─► stream, gaps ─► apply ─► table     repair: sent again on demand
//!  digests differ ─► round: groups ─► buckets ─► pieces ─► apply   join, drift, long absence
//! ```
//!
//! What makes copies agree is in [`apply`](self) and [`stamp`](self): versions that are ordered,
//! and knowledge of what was seen, by which a deleted session is told from a new one.

use crate::base::{Protocol, Tick, Transport4, Transport6};
use crate::model::Flavour;
use crate::model::settings::Settings;
use crate::nat64::merge::ForeignSession;
use crate::nat64::{Mapping, SessionState};

pub use self::node::Node;
pub use self::receive::Letter;
pub use self::record::SessionKey;
pub use self::seal::{Key, NodeId};
pub use self::share::{Share, ShareMode};
pub use self::stats::Stats;

mod apply;
mod codec;
mod drive;
mod instance;
mod message;
mod node;
mod origin;
mod pace;
mod peers;
mod receive;
mod record;
mod round;
mod seal;
mod shadow;
mod share;
mod stamp;
mod stats;
mod table;

#[cfg(any(fuzzing, test))]
pub mod fuzzing;
#[cfg(test)]
mod sim;

/// What a node is told once. Times are milliseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// Unique in the cluster; 1 to 65535.
    pub node: NodeId,
    /// The first one seals, all of them open.
    pub keys: Vec<Key>,
    /// Random, and another one with every start: the same epoch twice breaks the encryption.
    pub epoch: u64,
    /// Random: seeds the hashes of the tables.
    pub hash_key: [u8; 16],
    /// The wall clock, since 1970. A wrong one does no harm.
    pub wall: u64,
    pub share: ShareMode,
    /// The largest datagram, in bytes of UDP payload; at least [`PAYLOAD_MIN`].
    pub payload: usize,
    /// Between two heartbeats.
    pub beat: u64,
    /// Silence after which a node is taken for dead.
    pub dead: u64,
    /// Silence after which the share of a node is taken over. Longer than `dead`.
    pub hold: u64,
    /// How long to look for others before going on alone.
    pub grace: u64,
    /// How long a change may wait for others to share a datagram with.
    pub batch: u64,
    /// How long it may take to tell that a session merely lives on.
    pub refresh: u64,
    /// How much longer than at its origin a session lives in the copies. Longer than what the
    /// origin may keep to itself: `refresh`, and what its table does not report.
    pub linger: u64,
    /// How long deleted sessions are remembered as such.
    pub grave: u64,
    /// Between comparisons, while copies differ.
    pub drift: u64,
    /// How long a query waits for answers.
    pub query: u64,
    /// Bytes of batches kept for sending again, for each instance.
    pub history: usize,
    /// Bytes a second that are sent at most.
    pub rate: u64,
    /// Whether gaps are repaired and copies compared: false only to prove that tests notice.
    #[cfg(test)]
    pub repair: bool,
}

impl Config {
    /// The defaults.
    pub const fn new(
        node: NodeId,
        keys: Vec<Key>,
        epoch: u64,
        hash_key: [u8; 16],
        wall: u64,
    ) -> Self {
        Self {
            node,
            keys,
            epoch,
            hash_key,
            wall,
            share: ShareMode::Whole,
            payload: 1_400,
            beat: 500,
            dead: 2_000,
            hold: 10_000,
            grace: 3_000,
            batch: 20,
            refresh: 5_000,
            linger: 12_000,
            grave: 60_000,
            drift: 30_000,
            query: 100,
            history: 16 << 20,
            rate: 50_000_000,
            #[cfg(test)]
            repair: true,
        }
    }
}

/// The smallest [`Config::payload`]: IPv6 guarantees 1280 bytes a packet.
pub const PAYLOAD_MIN: usize = 1_200;

/// The table of an instance, as far as synchronisation concerns itself with it.
///
/// What is changed through it must not be reported back by [`Node::on_change`]; everything else
/// that happens to the table must be, before the next call that hands the table over.
pub trait Table {
    /// A session and its client.
    fn session(&self, key: &SessionKey) -> Option<(Transport6, SessionState)>;

    fn mapping_of_v4(&self, protocol: Protocol, v4: Transport4) -> Option<Mapping>;

    fn mapping_of_v6(&self, protocol: Protocol, v6: Transport6) -> Option<Mapping>;

    fn sessions_of(&self, mapping: &Mapping) -> Vec<SessionKey>;

    /// Adds a session, with its mapping if there is none, or replaces it, for `linger` milliseconds
    /// longer than it says. False if there is no place for it, or its mapping contradicts another one.
    fn put(
        &mut self,
        now: Tick,
        settings: &Settings,
        session: &ForeignSession,
        linger: u64,
    ) -> bool;

    /// Removes a session, with its mapping if that has no other and is not static. One that does
    /// not exist is not missed.
    fn remove(&mut self, key: &SessionKey);

    /// Some of the sessions from position `cursor` on, and where to go on; `None` at the end.
    /// Sessions keep their positions. A thousand at a time are about right.
    fn scan(&self, cursor: usize, into: &mut Vec<SessionKey>) -> Option<usize>;
}

/// Finds the table of an instance.
pub trait Tables {
    /// `None` for one that is gone.
    fn table(&mut self, instance: Handle) -> Option<Place<'_>>;
}

/// A table, and the settings of its instance.
pub type Place<'a> = (&'a mut dyn Table, &'a Settings);

/// An instance of a [`Node`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub usize);

/// Why an instance cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    #[error("the name '{0}' cannot be told from that of another instance; choose another name")]
    Clash(String),
    #[error("'{0}' is longer than 15 bytes; choose a shorter name")]
    Name(String),
}

/// Something to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    pub to: Destination,
    pub bytes: Vec<u8>,
}

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The multicast group, or every configured peer.
    Group,
    Peer(std::net::SocketAddr),
}

/// Something to log, or to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    PeerUp(NodeId),
    PeerDown(NodeId),
    /// Another node has our number.
    DuplicateNode,
    /// A peer's pool6, pool4 or global settings differ: nothing is shared for this instance.
    Mismatch {
        peer: NodeId,
        flavour: Flavour,
        name: String,
    },
    /// The difference is gone.
    Match {
        peer: NodeId,
        flavour: Flavour,
        name: String,
    },
    /// An instance has everything that others have, or there are none.
    Ready {
        instance: Handle,
        alone: bool,
    },
    /// A comparison came to an end. `mended` are differences that should not have been.
    Compared {
        instance: Handle,
        peer: NodeId,
        took: u64,
        buckets: u64,
        mended: u64,
    },
    /// This node may give other transport addresses to new clients from now on.
    Share(Share),
    /// A [`Node::query`] came to an end.
    Answered {
        query: u32,
        finding: Finding,
    },
}

/// What came of a [`Node::query`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Somebody has it. What was found is in the table.
    Found,
    /// All that could be asked said that they do not have it.
    Nobody,
    /// Nobody said that they have it, and not all have said anything.
    Silence,
}
