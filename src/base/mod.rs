// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 0: the words that every floor shares.
//!
//! Plain values with no behaviour beyond parsing and printing: protocols, transport addresses,
//! prefixes, points in time, counters. Nothing here knows a packet, a table or the system.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub mod counters;
pub mod host;
pub mod prefix;

/// A transport protocol that has a BIB of its own (RFC 6146 section 3).
///
/// `Icmp` stands for ICMPv4 and ICMPv6 alike; its "port" is the identifier of echo messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    Tcp,
    Udp,
    Icmp,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    /// Position in [`Protocol::ALL`]; also the number stored in the database.
    pub const fn index(self) -> usize {
        match self {
            Self::Tcp => 0,
            Self::Udp => 1,
            Self::Icmp => 2,
        }
    }

    /// The word operators read and write: `TCP`, `UDP` or `ICMP`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Icmp => "ICMP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A point in time: milliseconds of a clock that never goes back.
///
/// The core never reads a clock; whoever calls it says what time it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u64);

impl Tick {
    /// This moment plus `ms` milliseconds, or the end of time.
    #[must_use]
    pub const fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment; 0 if `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// An IPv4 transport address, written `192.0.2.1#80`. The port is the identifier for ICMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Transport4 {
    pub addr: Ipv4Addr,
    pub port: u16,
}

/// An IPv6 transport address, written `2001:db8::1#80`. The port is the identifier for ICMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Transport6 {
    pub addr: Ipv6Addr,
    pub port: u16,
}

/// Why a text is not a transport address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    #[error("'{0}' has no port; write ADDRESS#PORT, for example {1}")]
    NoPort(String, &'static str),
    #[error("'{0}' is not an {1} address")]
    Address(String, &'static str),
    #[error("'{0}' is not a port number (0-65535)")]
    Port(String),
}

/// Reads digits and nothing but digits; `str::parse` would take a sign as well.
fn decimal<T: FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

macro_rules! transport {
    ($name:ident, $addr:ty, $family:literal, $example:literal) => {
        impl $name {
            pub const fn new(addr: $addr, port: u16) -> Self {
                Self { addr, port }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}#{}", self.addr, self.port)
            }
        }

        impl FromStr for $name {
            type Err = TransportError;

            fn from_str(text: &str) -> Result<Self, TransportError> {
                let Some((addr, port)) = text.split_once('#') else {
                    return Err(TransportError::NoPort(text.to_owned(), $example));
                };
                Ok(Self {
                    addr: addr
                        .parse()
                        .map_err(|_| TransportError::Address(addr.to_owned(), $family))?,
                    port: decimal(port).ok_or_else(|| TransportError::Port(port.to_owned()))?,
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

transport!(Transport4, Ipv4Addr, "IPv4", "192.0.2.1#80");
transport!(Transport6, Ipv6Addr, "IPv6", "2001:db8::1#80");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transport_addresses_round_trip() {
        for text in ["192.0.2.1#0", "255.255.255.255#65535"] {
            assert_eq!(text.parse::<Transport4>().unwrap().to_string(), text);
        }
        for text in ["::#0", "2001:db8::1#65535"] {
            assert_eq!(text.parse::<Transport6>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_transport_addresses_say_what_is_wrong() {
        let error = |t: &str| t.parse::<Transport4>().unwrap_err().to_string();
        assert_eq!(
            error("192.0.2.1"),
            "'192.0.2.1' has no port; write ADDRESS#PORT, for example 192.0.2.1#80"
        );
        assert_eq!(
            error("192.0.2.1#+80"),
            "'+80' is not a port number (0-65535)"
        );
        assert_eq!(error("::1#80"), "'::1' is not an IPv4 address");
        assert_eq!(
            error("192.0.2.1#70000"),
            "'70000' is not a port number (0-65535)"
        );
    }

    #[test]
    fn ticks_saturate() {
        assert_eq!(Tick(u64::MAX).after(1), Tick(u64::MAX));
        assert_eq!(Tick(1).since(Tick(2)), 0);
    }
}
