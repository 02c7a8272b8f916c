// SPDX-License-Identifier: GPL-2.0-or-later
//! A cluster of gateways that share their sessions: how a node is configured, and how it is.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::counters::{Counter, Counters};

/// What makes a gateway a node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// Unique in the cluster; 1 to 65535.
    pub node: u16,
    /// The first one seals, all of them open.
    pub keys: Vec<Secret>,
    pub reach: Reach,
    #[serde(default)]
    pub share: ShareMode,
}

/// How the other nodes are reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// A multicast group on one link.
    Group {
        group: IpAddr,
        port: u16,
        device: String,
    },
    /// Each by itself, where there is no multicast.
    Peers {
        bind: SocketAddr,
        peers: Vec<SocketAddr>,
    },
}

/// How pool4 is divided between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShareMode {
    /// It is not: one node is active at a time.
    #[default]
    Whole,
    /// The `index`-th of `of` equal parts, counted from 0. Nobody takes over the part of a dead
    /// node.
    Static { index: u8, of: u8 },
    /// By who is there. The share of a node that died is taken over by the others.
    Auto,
}

/// A pre-shared key: one byte that numbers it and 32 random ones. Shown as its number only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Secret {
    pub number: u8,
    pub bytes: [u8; 32],
}

/// Why a [`ClusterConfig`] makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    #[error("a node has a number from 1 to 65535")]
    Node,
    #[error("there is no key; make one with 'tylo sync keygen FILE'")]
    NoKey,
    #[error("two keys have the number {0}; make another one with 'tylo sync keygen FILE'")]
    SameNumber(u8),
    #[error("there may be {KEYS_MAX} keys at most")]
    Keys,
    #[error("'{0}' is not a multicast address")]
    Group(IpAddr),
    #[error("port 0 is none")]
    Port,
    #[error("there are no peers; name each with --peer ADDRESS:PORT")]
    NoPeers,
    #[error("'{0}' cannot be reached from '{1}': one is IPv4 and the other IPv6")]
    Family(SocketAddr, SocketAddr),
    #[error("a share is 1/N to N/N, with an N from 1 to 64")]
    Share,
    #[error("there may be {PEERS_MAX} peers at most")]
    Peers,
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key has 66 hexadecimal digits; make one with 'tylo sync keygen FILE'")]
pub struct NotAKey;

impl ClusterConfig {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn check(&self) -> Result<(), ClusterError> {
        if self.node == 0 {
            return Err(ClusterError::Node);
        }
        if self.keys.is_empty() {
            return Err(ClusterError::NoKey);
        }
        if self.keys.len() > KEYS_MAX {
            return Err(ClusterError::Keys);
        }
        for (i, key) in self.keys.iter().enumerate() {
            if self.keys.iter().take(i).any(|k| k.number == key.number) {
                return Err(ClusterError::SameNumber(key.number));
            }
        }
        if let ShareMode::Static { index, of } = self.share
            && (of > SLICES || index >= of)
        {
            return Err(ClusterError::Share);
        }
        match &self.reach {
            Reach::Group { group, .. } if !group.is_multicast() => Err(ClusterError::Group(*group)),
            Reach::Group { port: 0, .. } => Err(ClusterError::Port),
            Reach::Group { .. } => Ok(()),
            Reach::Peers { peers, .. } if peers.is_empty() => Err(ClusterError::NoPeers),
            Reach::Peers { peers, .. } if peers.len() > PEERS_MAX => Err(ClusterError::Peers),
            Reach::Peers { bind, peers } => {
                if bind.port() == 0 || peers.iter().any(|peer| peer.port() == 0) {
                    return Err(ClusterError::Port);
                }
                let foreign = peers.iter().find(|peer| peer.is_ipv4() != bind.is_ipv4());
                foreign.map_or(Ok(()), |peer| Err(ClusterError::Family(*peer, *bind)))
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.number)
    }
}

/// With the secret: for files that nobody else may read, and for the way to the daemon.
impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        let bytes = std::iter::once(secret.number).chain(secret.bytes);
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }
}

impl FromStr for Secret {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let text = text.trim();
        let digits = text.chars().map(|digit| digit.to_digit(16));
        let digits: Vec<u32> = digits.collect::<Option<_>>().ok_or(NotAKey)?;
        if digits.len() != 66 {
            return Err(NotAKey);
        }
        let bytes = digits.chunks(2);
        let mut bytes =
            bytes.map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8));
        let mut secret = Self {
            number: bytes.next().ok_or(NotAKey)?,
            bytes: [0; 32],
        };
        for (place, byte) in secret.bytes.iter_mut().zip(bytes) {
            *place = byte;
        }
        Ok(secret)
    }
}

impl TryFrom<String> for Secret {
    type Error = NotAKey;

    fn try_from(text: String) -> Result<Self, NotAKey> {
        text.parse()
    }
}

/// A node of a cluster, for a monitoring system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterHealth {
    pub node: u16,
    /// The numbers of its keys; the first one seals.
    pub keys: Vec<u8>,
    pub reach: Reach,
    /// Whether it may become active: all of its instances have what the others have, or there are
    /// no others.
    pub ready: bool,
    /// What is wrong with the network.
    pub error: Option<String>,
    /// Another node was heard under this node's number.
    pub duplicate: bool,
    /// Nodes that are alive.
    pub peers: Vec<PeerHealth>,
    /// Nodes that were alive and are not heard any more, since this one began.
    #[serde(default)]
    pub lost: Vec<u16>,
    pub instances: Vec<ReplicaHealth>,
    /// How much of pool4 new clients may get here, in 64ths.
    pub share: u32,
    /// Sessions with news that were not told yet.
    pub backlog: u64,
    /// Datagrams that the kernel had no room for, before they were sent.
    pub unsent: u64,
    /// How often the tables were gone through again because changes came too fast.
    pub rescans: u64,
    /// Packets that wait for the others to say whether they know their flow.
    #[serde(default)]
    pub waiting: u64,
    /// Packets that did not wait because there were too many questions.
    #[serde(default)]
    pub unasked: u64,
    /// Packets that nobody knew anything about in time.
    #[serde(default)]
    pub late: u64,
    #[serde(flatten)]
    pub stats: Stats,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHealth {
    pub node: u16,
    pub address: SocketAddr,
}

/// The copy of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaHealth {
    pub name: String,
    pub ready: bool,
    /// Sessions that are known to the cluster.
    pub sessions: u64,
    /// Nodes whose pool6, pool4 or global settings differ.
    pub mismatches: Vec<u16>,
}

/// Counters of a node, all since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    pub sent_datagrams: u64,
    pub sent_bytes: u64,
    pub received_datagrams: u64,
    pub received_bytes: u64,
    /// Too short, of another version, or not to be understood although genuine.
    pub malformed: u64,
    /// Sealed with a key that this node does not have, or that is another one under its number.
    pub auth_failures: u64,
    /// Datagrams seen before, or from a life of a node that has ended.
    pub replayed: u64,
    /// Datagrams of lives that have not proven themselves yet, which were not looked at.
    pub unproven: u64,
    /// Batches that arrived twice.
    pub duplicates: u64,
    /// Gaps that were asked about.
    pub gaps: u64,
    /// Batches that closed a gap after it was asked about.
    pub repairs: u64,
    /// Batches sent again because somebody asked.
    pub resent: u64,
    pub sent_records: u64,
    pub received_records: u64,
    /// Records that changed the table.
    pub applied: u64,
    /// Records that were not newer than what is known.
    pub stale: u64,
    /// Records that the table had no place for.
    pub refused: u64,
    /// Mappings that lost against a younger one.
    pub conflicts: u64,
    /// Records for instances that are not here or are configured differently.
    pub mismatched: u64,
    /// Comparisons that came to an end.
    pub rounds: u64,
    pub buckets_fetched: u64,
    /// Differences that a comparison found although there should have been none.
    pub drift: u64,
    /// Answers that were not sent because too much was to be sent already.
    pub overruns: u64,
    /// Flows that the others were asked about because a packet came for one that is not known here.
    pub queries_sent: u64,
    /// Of those, the ones that somebody knew, that nobody knew, and that not all answered in time.
    pub queries_found: u64,
    pub queries_vain: u64,
    pub queries_timed_out: u64,
    /// Questions of others.
    pub queries_answered: u64,
    /// Milliseconds from the oldest change in the batch received last to its first sending.
    pub lag: u64,
}

impl ClusterHealth {
    /// What the statistics of an instance that takes part have of it.
    pub fn count(&self, counters: &mut Counters) {
        let stats = &self.stats;
        let values = [
            (Counter::SyncPeers, self.peers.len() as u64),
            (Counter::SyncLag, stats.lag),
            (Counter::SyncGaps, stats.gaps),
            (Counter::SyncRepairs, stats.repairs),
            // Who doubles datagrams has them refused before it is looked what they are.
            (
                Counter::SyncDuplicates,
                stats.replayed.saturating_add(stats.duplicates),
            ),
            (Counter::SyncAuthFailures, stats.auth_failures),
            (Counter::SyncMalformed, stats.malformed),
            (Counter::SyncConflicts, stats.conflicts),
            (Counter::SyncDrift, stats.drift),
        ];
        for (counter, value) in values {
            counters.set(counter, value);
        }
    }
}

/// One to seal, the next, the one before, and one to spare.
pub const KEYS_MAX: usize = 4;

/// Pool4 is not divided into more parts.
const SLICES: u8 = 64;

const PEERS_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(number: u8) -> Secret {
        Secret {
            number,
            bytes: [0xa5; 32],
        }
    }

    fn config(keys: Vec<Secret>, reach: Reach) -> ClusterConfig {
        ClusterConfig {
            node: 1,
            keys,
            reach,
            share: ShareMode::Whole,
        }
    }

    fn peers(bind: &str, peers: &[&str]) -> Reach {
        Reach::Peers {
            bind: bind.parse().unwrap(),
            peers: peers.iter().map(|p| p.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_key_is_read_as_written_and_never_shown() {
        let text = String::from(secret(7));
        assert_eq!(text, format!("07{}", "a5".repeat(32)));
        assert_eq!(format!("{text}\n").parse(), Ok(secret(7)));
        assert_eq!(format!("{:?}", secret(7)), "Secret(7)");
        for bad in [
            "",
            "07",
            &text[1..],
            &format!("{text}0"),
            &text.replace('7', "x"),
        ] {
            assert_eq!(bad.parse::<Secret>(), Err(NotAKey), "{bad}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let fine = peers("10.0.0.1:6465", &["10.0.0.2:6465"]);
        let check = |keys, reach: &Reach| config(keys, reach.clone()).check();
        assert_eq!(check(vec![secret(1), secret(2)], &fine), Ok(()));
        assert_eq!(check(vec![], &fine), Err(ClusterError::NoKey));
        let twice = check(vec![secret(1), secret(1)], &fine);
        assert_eq!(twice, Err(ClusterError::SameNumber(1)));
        let nobody = check(vec![secret(1)], &peers("10.0.0.1:6465", &[]));
        assert_eq!(nobody, Err(ClusterError::NoPeers));
        let foreign = check(vec![secret(1)], &peers("10.0.0.1:6465", &["[::1]:6465"]));
        assert!(matches!(foreign, Err(ClusterError::Family(..))));
        let port = check(vec![secret(1)], &peers("10.0.0.1:0", &["10.0.0.2:1"]));
        assert_eq!(port, Err(ClusterError::Port));
        let group = Reach::Group {
            group: "192.0.2.1".parse().unwrap(),
            port: 6465,
            device: "eth2".to_owned(),
        };
        assert!(matches!(
            check(vec![secret(1)], &group),
            Err(ClusterError::Group(_))
        ));
        let mut nobody = config(vec![secret(1)], fine);
        nobody.node = 0;
        assert_eq!(nobody.check(), Err(ClusterError::Node));
        nobody.node = 1;
        for (index, of, fine) in [
            (0, 1, true),
            (1, 2, true),
            (2, 2, false),
            (0, 0, false),
            (0, 65, false),
        ] {
            nobody.share = ShareMode::Static { index, of };
            assert_eq!(nobody.check().is_ok(), fine, "{index} of {of}");
        }
    }
}
