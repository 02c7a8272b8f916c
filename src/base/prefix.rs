// SPDX-License-Identifier: GPL-2.0-or-later
//! Address prefixes, and RFC 6052's way of carrying an IPv4 address inside an IPv6 one.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::decimal;

/// Why a text or a pair of address and length is not a usable prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    #[error("'{0}' is not an IPv4 address or prefix")]
    NotV4(String),
    #[error("'{0}' is not an IPv6 address or prefix")]
    NotV6(String),
    #[error("prefix length '{0}' is out of range (0-{1})")]
    Length(String, u8),
    #[error("'{0}' has bits set behind its prefix length; did you mean '{1}'?")]
    HostBits(String, String),
    #[error("prefix length {0} cannot carry IPv4 addresses (use 32, 40, 48, 56, 64 or 96)")]
    Pool6Length(u8),
    #[error(
        "bits 64 to 71 of '{0}' must be zero (RFC 6052 section 2.2); choose another prefix or add --force"
    )]
    UOctet(String),
}

macro_rules! prefix {
    ($name:ident, $net:ty, $addr:ty, $max:literal, $not:ident, $doc:literal) => {
        #[doc = $doc]
        ///
        /// A value that exists has no bits set behind its length.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(into = "String", try_from = "String")]
        pub struct $name($net);

        impl $name {
            /// # Errors
            /// [`PrefixError::Length`] and [`PrefixError::HostBits`].
            pub fn new(addr: $addr, len: u8) -> Result<Self, PrefixError> {
                let net = <$net>::new(addr, len)
                    .map_err(|_| PrefixError::Length(len.to_string(), $max))?;
                if net.trunc() != net {
                    return Err(PrefixError::HostBits(
                        net.to_string(),
                        net.trunc().to_string(),
                    ));
                }
                Ok(Self(net))
            }

            pub fn network(&self) -> $addr {
                self.0.network()
            }

            /// The highest address inside.
            pub fn last(&self) -> $addr {
                self.0.broadcast()
            }

            pub fn prefix_len(&self) -> u8 {
                self.0.prefix_len()
            }

            pub fn contains(&self, addr: $addr) -> bool {
                self.0.contains(&addr)
            }

            /// Whether any address is in both; then one is within the other.
            pub fn intersects(&self, other: &Self) -> bool {
                self.0.contains(&other.network()) || other.0.contains(&self.network())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0.to_string())
            }
        }

        impl FromStr for $name {
            type Err = PrefixError;

            /// Reads `ADDRESS[/LENGTH]`; the length defaults to the full address.
            fn from_str(text: &str) -> Result<Self, PrefixError> {
                let (addr, len) = match text.split_once('/') {
                    Some((addr, len)) => (
                        addr,
                        decimal(len).ok_or_else(|| PrefixError::Length(len.to_owned(), $max))?,
                    ),
                    None => (text, $max),
                };
                let addr = addr
                    .parse()
                    .map_err(|_| PrefixError::$not(text.to_owned()))?;
                Self::new(addr, len)
            }
        }

        impl From<$name> for String {
            fn from(prefix: $name) -> Self {
                prefix.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = PrefixError;

            fn try_from(text: String) -> Result<Self, PrefixError> {
                text.parse()
            }
        }
    };
}

prefix!(Prefix4, Ipv4Net, Ipv4Addr, 32, NotV4, "An IPv4 prefix.");
prefix!(Prefix6, Ipv6Net, Ipv6Addr, 128, NotV6, "An IPv6 prefix.");

/// IPv4 addresses that never leave their link or host: "this network", loopback, link-local,
/// multicast, broadcast (RFC 6890 section 2.2.2).
pub const SCOPED4: [Prefix4; 5] = [
    Prefix4(Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8)),
    Prefix4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    Prefix4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)),
    Prefix4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4)),
    Prefix4(Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32)),
];

/// An IPv6 prefix that IPv4 addresses are embedded in (RFC 6052 section 2.2).
///
/// The length is 32, 40, 48, 56, 64 or 96. Bits 64 to 71 of an embedded address are zero when
/// written and ignored when read, and so is the suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Pool6(Prefix6);

impl Pool6 {
    /// `64:ff9b::/96` (RFC 6052 section 2.1).
    pub const WELL_KNOWN: Self = Self(Prefix6(Ipv6Net::new_assert(
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0),
        96,
    )));

    /// # Errors
    /// [`PrefixError::Pool6Length`] unless the length is one of RFC 6052's six.
    pub fn new(prefix: Prefix6) -> Result<Self, PrefixError> {
        match prefix.prefix_len() {
            32 | 40 | 48 | 56 | 64 | 96 => Ok(Self(prefix)),
            other => Err(PrefixError::Pool6Length(other)),
        }
    }

    /// Like [`Pool6::new`], and refuses a prefix that sets bits 64 to 71.
    ///
    /// # Errors
    /// Also [`PrefixError::UOctet`].
    pub fn strict(prefix: Prefix6) -> Result<Self, PrefixError> {
        if prefix.network().octets()[8] != 0 {
            return Err(PrefixError::UOctet(prefix.to_string()));
        }
        Self::new(prefix)
    }

    pub const fn prefix(&self) -> Prefix6 {
        self.0
    }

    pub fn contains(&self, addr: Ipv6Addr) -> bool {
        self.0.contains(addr)
    }

    /// The IPv6 address that stands for `addr`.
    //= rfc6052#section-2.2
    pub fn embed(&self, addr: Ipv4Addr) -> Ipv6Addr {
        let mut out = self.0.network().octets();
        let (start, v4) = (usize::from(self.0.prefix_len() / 8), addr.octets());
        if start == 12 {
            out[12..].copy_from_slice(&v4);
            return out.into();
        }
        out[8] = 0;
        let mut at = start;
        for byte in v4 {
            if at == 8 {
                at = 9;
            }
            out[at] = byte;
            at += 1;
        }
        out.into()
    }

    /// The IPv4 address that `addr` stands for; `None` if `addr` is outside the prefix.
    //= rfc6052#section-2.2
    pub fn extract(&self, addr: Ipv6Addr) -> Option<Ipv4Addr> {
        if !self.contains(addr) {
            return None;
        }
        let (octets, mut at) = (addr.octets(), usize::from(self.0.prefix_len() / 8));
        if at == 12 {
            return Some(Ipv4Addr::new(
                octets[12], octets[13], octets[14], octets[15],
            ));
        }
        let mut out = [0; 4];
        for byte in &mut out {
            if at == 8 {
                at = 9;
            }
            *byte = octets[at];
            at += 1;
        }
        Some(out.into())
    }
}

impl fmt::Display for Pool6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Pool6> for String {
    fn from(pool6: Pool6) -> Self {
        pool6.to_string()
    }
}

impl TryFrom<String> for Pool6 {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        Self::new(text.parse()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= rfc6052#section-2.2
    //= type=test
    //= rfc6052#section-2.4
    //= type=test
    #[test]
    fn the_examples_of_rfc_6052() {
        let v4 = Ipv4Addr::new(192, 0, 2, 33);
        for (prefix, expected) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ] {
            let pool6 = Pool6::strict(prefix.parse().unwrap()).unwrap();
            let expected: Ipv6Addr = expected.parse().unwrap();
            assert_eq!(pool6.embed(v4), expected, "{prefix}");
            assert_eq!(pool6.extract(expected), Some(v4), "{prefix}");
        }
    }

    #[test]
    fn prefixes_are_checked() {
        let error = |t: &str| t.parse::<Prefix4>().unwrap_err().to_string();
        assert_eq!(
            error("192.0.2.300"),
            "'192.0.2.300' is not an IPv4 address or prefix"
        );
        assert_eq!(
            error("192.0.2.0/+24"),
            "prefix length '+24' is out of range (0-32)"
        );
        assert_eq!(
            error("192.0.2.0/33"),
            "prefix length '33' is out of range (0-32)"
        );
        assert_eq!(
            error("192.0.2.1/24"),
            "'192.0.2.1/24' has bits set behind its prefix length; did you mean '192.0.2.0/24'?"
        );
        assert!(Pool6::new("64:ff9b::/95".parse().unwrap()).is_err());
        assert!(Pool6::strict("2001:db8:0:0:ff00::/96".parse().unwrap()).is_err());
        assert!(Pool6::new("2001:db8:0:0:ff00::/96".parse().unwrap()).is_ok());
    }
}
