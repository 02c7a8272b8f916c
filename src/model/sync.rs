// SPDX-License-Identifier: GPL-2.0-or-later
//! How the sessions of an instance are exchanged with other gateways.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The form of the sessions that Jool's nodes send each other. All are read; this is what is
/// written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Jool 4.0 to 4.1.11.
    A,
    /// Jool 4.1.12.
    B,
    /// Jool 4.1.13 and later.
    #[default]
    C,
}

impl Format {
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::C];

    /// The word operators read and write.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
        }
    }
}

/// A multicast group, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// A multicast address.
    pub group: IpAddr,
    /// Never 0.
    pub port: u16,
    /// Where to listen; `None` leaves it to the kernel.
    pub dev_in: Option<Device>,
    pub dev_out: Option<Device>,
    pub ttl: u8,
    pub format: Format,
    /// Where a server of statistics listens.
    pub stats: Option<SocketAddr>,
}

/// An interface, as each family names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// For a group of IPv4: one of its addresses.
    Address(Ipv4Addr),
    /// For a group of IPv6: its name.
    Name(String),
}

/// The exchange of sessions, for a monitoring system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncHealth {
    pub group: IpAddr,
    pub port: u16,
    pub format: Format,
    /// Whether `ss-enabled` lets sessions be exchanged at all.
    pub enabled: bool,
    /// Whether all sessions are being told.
    pub advertising: bool,
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// What went over the network since the exchange began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    pub datagrams_in: u64,
    pub bytes_in: u64,
    pub datagrams_out: u64,
    pub bytes_out: u64,
    pub sessions_in: u64,
    pub sessions_out: u64,
    /// Sessions of peers that changed something here.
    pub merged: u64,
    /// Datagrams that came a second time.
    pub duplicates: u64,
    /// Sessions that were known, or older than what is known.
    pub unchanged: u64,
    /// Sessions that have another transport address here.
    pub collisions: u64,
    /// Sessions that have no place here.
    pub refused: u64,
    /// Datagrams and sessions that make no sense.
    pub malformed: u64,
    /// Datagrams that the kernel had no room for before they were read.
    pub lost_in: u64,
    /// Datagrams that the kernel did not send.
    pub lost_out: u64,
    /// Changes of sessions that were not told, because they came too fast.
    pub untold: u64,
}

impl Traffic {
    /// Adds up.
    pub const fn add(&mut self, more: &Self) {
        self.datagrams_in += more.datagrams_in;
        self.bytes_in += more.bytes_in;
        self.datagrams_out += more.datagrams_out;
        self.bytes_out += more.bytes_out;
        self.sessions_in += more.sessions_in;
        self.sessions_out += more.sessions_out;
        self.merged += more.merged;
        self.duplicates += more.duplicates;
        self.unchanged += more.unchanged;
        self.collisions += more.collisions;
        self.refused += more.refused;
        self.malformed += more.malformed;
        self.lost_in += more.lost_in;
        self.lost_out += more.lost_out;
        self.untold += more.untold;
    }
}
