// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 0: what the command line, the daemon and the database tell each other.
//!
//! Rows and settings with their serde form, and the [control protocol](control). No behaviour
//! beyond checking values.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::base::prefix::{Pool6, Prefix4, Prefix6};
use crate::base::{Protocol, Transport4, Transport6};

pub mod cluster;
pub mod control;
pub mod dhcp;
pub mod mapt;
pub mod settings;
pub mod sync;

/// The name of an instance when none is given.
pub const DEFAULT_INSTANCE: &str = "default";

/// The longest instance name, in bytes.
pub const INSTANCE_NAME_MAX: usize = 15;

/// Which translator an instance is; each has a command of its own (`jool`, `jool_siit`, …).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    Nat64,
    Siit,
    Mapt,
}

impl Flavour {
    pub const ALL: [Self; 3] = [Self::Nat64, Self::Siit, Self::Mapt];

    /// The word in messages and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nat64 => "nat64",
            Self::Siit => "siit",
            Self::Mapt => "mapt",
        }
    }
}

/// What an SIIT instance does when both ends of a flow are in its EAM table (RFC 7757 section 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HairpinMode {
    Off,
    Simple,
    #[default]
    Intrinsic,
}

impl HairpinMode {
    pub const ALL: [Self; 3] = [Self::Off, Self::Simple, Self::Intrinsic];

    /// The word operators read and write.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Simple => "simple",
            Self::Intrinsic => "intrinsic",
        }
    }
}

/// An explicit address mapping (RFC 7757 section 3).
///
/// The IPv4 suffix is never longer than the IPv6 suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EamRow {
    pub v6: Prefix6,
    pub v4: Prefix4,
}

/// A packet that a MAP-T instance dropped because it disagrees with a mapping rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stray {
    /// Counts up with every one that is noted.
    pub serial: u64,
    pub src: IpAddr,
    pub dst: IpAddr,
    /// Those of the rule: in an ICMP error, the quoted packet's, which stand in reverse.
    pub ports: [u16; 2],
}

/// How an address is translated, for `address query`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translation {
    pub query: IpAddr,
    pub result: IpAddr,
    pub rule: AddressRule,
}

/// What made the result of a [`Translation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressRule {
    Eam(EamRow),
    Pool6(Pool6),
}

/// How packets reach an instance.
///
/// The words are Jool's, so that its scripts go on working: `netfilter` means that the daemon's
/// own rules divert everything that matches, `iptables` that only the administrator's rules do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Framework {
    Netfilter,
    Iptables,
}

impl Framework {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Netfilter => "netfilter",
            Self::Iptables => "iptables",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRow {
    /// Inode number of the network namespace, low 32 bits.
    pub namespace: u32,
    pub name: String,
    pub framework: Framework,
}

/// An inclusive range of ports, or of ICMP identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRange {
    pub min: u16,
    pub max: u16,
}

/// How many transport addresses of pool4 are tried before a packet is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaxIterations {
    /// Computed from the size of the set.
    #[default]
    Auto,
    Infinity,
    /// Never 0.
    Fixed(u32),
}

/// What `pool4 add` adds. The range `min` > `max` is swapped by the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool4Entry {
    pub mark: u32,
    pub protocol: Protocol,
    pub prefix: Prefix4,
    pub ports: PortRange,
    /// `None` leaves the value of the set (protocol, mark) as it is.
    pub max_iterations: Option<MaxIterations>,
}

/// One row of `pool4 display`: a single address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool4Row {
    pub mark: u32,
    pub protocol: Protocol,
    /// The value in force; `None` is unlimited.
    pub iterations: Option<u32>,
    /// False when `iterations` was computed from the size of the set.
    pub iterations_fixed: bool,
    pub addr: Ipv4Addr,
    pub ports: PortRange,
}

/// What `bib add` adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BibEntry {
    pub protocol: Protocol,
    pub v6: Transport6,
    pub v4: Transport4,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BibRow {
    pub protocol: Protocol,
    /// The IPv6 client.
    pub v6: Transport6,
    /// The pool4 transport address that stands for it.
    pub v4: Transport4,
    #[serde(rename = "static")]
    pub is_static: bool,
}

/// The state of a TCP session (RFC 6146 section 3.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TcpState {
    Established,
    V4Init,
    V6Init,
    V4FinRcv,
    V6FinRcv,
    #[serde(rename = "V4_FIN_V6_FIN_RCV")]
    V4FinV6FinRcv,
    Trans,
}

impl TcpState {
    pub const ALL: [Self; 7] = [
        Self::Established,
        Self::V4Init,
        Self::V6Init,
        Self::V4FinRcv,
        Self::V6FinRcv,
        Self::V4FinV6FinRcv,
        Self::Trans,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::V4Init => "V4_INIT",
            Self::V6Init => "V6_INIT",
            Self::V4FinRcv => "V4_FIN_RCV",
            Self::V6FinRcv => "V6_FIN_RCV",
            Self::V4FinV6FinRcv => "V4_FIN_V6_FIN_RCV",
            Self::Trans => "TRANS",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    pub protocol: Protocol,
    /// The IPv6 client.
    pub src6: Transport6,
    /// The IPv4 server as the client sees it: inside pool6.
    pub dst6: Transport6,
    /// The client as the server sees it: inside pool4.
    pub src4: Transport4,
    /// The IPv4 server.
    pub dst4: Transport4,
    /// Milliseconds until it expires; 0 when that is overdue.
    pub expires_in: u64,
    /// TCP only.
    pub state: Option<TcpState>,
}
