// SPDX-License-Identifier: GPL-2.0-or-later
//! MAP-T's words (RFC 7599, which takes its addresses from RFC 7597): mapping rules, and which end
//! of the domain an instance is.
//!
//! The letters in error messages and comments are those of RFC 7597 section 5: `r` is the length
//! of the rule's IPv4 prefix, `o` that of the EA bits, `p` what is left of the IPv4 address, `k`
//! the bits of the PSID, `a` its offset, `m` the port bits behind it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::prefix::{Prefix4, Prefix6, PrefixError};

/// A mapping rule (RFC 7597 section 5): how IPv4 addresses and ports of one prefix are written
/// into IPv6 addresses of another.
///
/// A value that exists fits into an IPv6 address and into a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct MapRule {
    v6: Prefix6,
    v4: Prefix4,
    ea_bits: u8,
    psid_offset: u8,
}

/// Which end of a MAP domain an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum MaptType {
    /// Customer edge.
    Ce,
    /// Border relay.
    Br,
}

/// Why there is no such mapping rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapRuleError {
    #[error(
        "a mapping rule has 3 or 4 words: IPV6-PREFIX IPV4-PREFIX EA-BITS [PSID-OFFSET], for example \
         '2001:db8:ce::/51 192.0.2.0/24 13 0'; {0} were given"
    )]
    Words(usize),
    #[error("'{0}' is not a number of bits")]
    NotANumber(String),
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    #[error("the EA-bits length {0} is out of range (0-{EA_BITS_MAX})")]
    EaBits(u8),
    #[error("the PSID offset {0} is out of range (0-16)")]
    Offset(u8),
    #[error(
        "{} leaves {} bits, but {} EA bits{} need {}; use a shorter IPv6 prefix or fewer EA bits",
        .0.v6, 128 - .0.v6.prefix_len(), .0.ea_bits, subnet_words(.0), .0.ea_bits + .0.subnet_len()
    )]
    TooLong(MapRule),
    #[error(
        "{} leaves {} bits of an IPv4 address, so that {} of the {} EA bits are the PSID; with the \
         offset {} that makes {}, more than the 16 bits of a port: use an offset of at most {} or \
         fewer EA bits",
        .0.v4, .0.suffix_len(), .0.psid_len(), .0.ea_bits, .0.psid_offset,
        .0.psid_len() + .0.psid_offset, 16 - .0.psid_len()
    )]
    PsidAndOffset(MapRule),
    #[error(
        "{} leaves {} bits of an IPv4 address, so that {} of the {} EA bits are the PSID, more than \
         the 16 bits of a port: use at most {} EA bits",
        .0.v4, .0.suffix_len(), .0.psid_len(), .0.ea_bits, .0.suffix_len() + 16
    )]
    Psid(MapRule),
}

/// Why settings do not make a customer edge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CeError {
    #[error(
        "a CE needs an end-user IPv6 prefix; set it with 'global update end-user-ipv6-prefix', and \
         the type after it"
    )]
    NoPrefix,
    #[error(
        "a CE needs a basic mapping rule; set it with 'global update bmr', and the type after it"
    )]
    NoRule,
    #[error(
        "the BMR's {} has {} bits, which with {} EA bits makes {}, but the end-user prefix {prefix} \
         has {}; check which of the three is wrong",
        .rule.v6, .rule.v6.prefix_len(), .rule.ea_bits,
        .rule.v6.prefix_len() + .rule.ea_bits, .prefix.prefix_len()
    )]
    Length { rule: MapRule, prefix: Prefix6 },
    #[error(
        "the end-user prefix {prefix} is not inside {}, the BMR's; choose a BMR that it belongs to",
        .rule.v6
    )]
    Outside { rule: MapRule, prefix: Prefix6 },
}

impl MapRule {
    /// The PSID offset where none is given (RFC 7597 section 5.1).
    pub const DEFAULT_OFFSET: u8 = 6;

    /// # Errors
    /// Every [`MapRuleError`] that is about meaning.
    //= rfc7597#section-5.2
    pub fn new(
        v6: Prefix6,
        v4: Prefix4,
        ea_bits: u8,
        psid_offset: u8,
    ) -> Result<Self, MapRuleError> {
        if ea_bits > EA_BITS_MAX {
            return Err(MapRuleError::EaBits(ea_bits));
        }
        if psid_offset > 16 {
            return Err(MapRuleError::Offset(psid_offset));
        }
        let rule = Self {
            v6,
            v4,
            ea_bits,
            psid_offset,
        };
        if v6.prefix_len() + ea_bits + rule.subnet_len() > 128 {
            return Err(MapRuleError::TooLong(rule));
        }
        if rule.psid_len() > 16 {
            return Err(MapRuleError::Psid(rule));
        }
        if rule.shares() && rule.psid_len() + psid_offset > 16 {
            return Err(MapRuleError::PsidAndOffset(rule));
        }
        Ok(rule)
    }

    /// The rule's IPv6 prefix.
    pub const fn v6(&self) -> Prefix6 {
        self.v6
    }

    /// The rule's IPv4 prefix.
    pub const fn v4(&self) -> Prefix4 {
        self.v4
    }

    /// `o`: bits of the IPv6 prefix that tell one customer from another.
    pub const fn ea_bits(&self) -> u8 {
        self.ea_bits
    }

    /// `a`: bits of a port before the PSID. Where they are all zero, nobody has the port.
    pub const fn psid_offset(&self) -> u8 {
        self.psid_offset
    }

    /// `p`: bits of an IPv4 address behind the rule's prefix.
    pub fn suffix_len(&self) -> u8 {
        32 - self.v4.prefix_len()
    }

    /// `k`: bits of the PSID; 0 where an IPv4 address has one customer.
    pub fn psid_len(&self) -> u8 {
        self.ea_bits.saturating_sub(self.suffix_len())
    }

    /// `m`: bits of a port behind the PSID; all but the offset where there is none.
    pub fn contiguous_len(&self) -> u8 {
        16_u8.saturating_sub(self.psid_offset + self.psid_len())
    }

    /// Whether customers share IPv4 addresses.
    pub fn shares(&self) -> bool {
        self.psid_len() > 0
    }

    /// Bits of the IPv4 address behind the end-user prefix: of customers who have a whole prefix.
    pub fn subnet_len(&self) -> u8 {
        self.suffix_len().saturating_sub(self.ea_bits)
    }
}

impl fmt::Display for MapRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            v6,
            v4,
            ea_bits,
            psid_offset,
        } = self;
        write!(f, "{v6} {v4} {ea_bits} {psid_offset}")
    }
}

impl FromStr for MapRule {
    type Err = MapRuleError;

    /// Reads `IPV6-PREFIX IPV4-PREFIX EA-BITS [PSID-OFFSET]`.
    fn from_str(text: &str) -> Result<Self, MapRuleError> {
        let words: Vec<_> = text.split_whitespace().collect();
        let (v6, v4, ea_bits, offset) = match *words {
            [v6, v4, ea_bits] => (v6, v4, ea_bits, None),
            [v6, v4, ea_bits, offset] => (v6, v4, ea_bits, Some(offset)),
            _ => return Err(MapRuleError::Words(words.len())),
        };
        Self::new(
            v6.parse()?,
            v4.parse()?,
            bits(ea_bits)?,
            offset.map_or(Ok(Self::DEFAULT_OFFSET), bits)?,
        )
    }
}

impl MaptType {
    pub const ALL: [Self; 2] = [Self::Ce, Self::Br];

    /// The word operators read and write.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ce => "CE",
            Self::Br => "BR",
        }
    }
}

/// Whether an end-user prefix is one of a rule's.
///
/// # Errors
/// [`CeError::Length`] and [`CeError::Outside`].
//= rfc7597#section-5.2
pub fn check_ce(rule: MapRule, prefix: Prefix6) -> Result<(), CeError> {
    if rule.v6.prefix_len() + rule.ea_bits != prefix.prefix_len() {
        return Err(CeError::Length { rule, prefix });
    }
    if !rule.v6.contains(prefix.network()) {
        return Err(CeError::Outside { rule, prefix });
    }
    Ok(())
}

/// A mapping rule whose meaning is not checked yet.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Raw {
    v6: Prefix6,
    v4: Prefix4,
    ea_bits: u8,
    psid_offset: u8,
}

impl From<MapRule> for Raw {
    fn from(rule: MapRule) -> Self {
        Self {
            v6: rule.v6,
            v4: rule.v4,
            ea_bits: rule.ea_bits,
            psid_offset: rule.psid_offset,
        }
    }
}

impl TryFrom<Raw> for MapRule {
    type Error = MapRuleError;

    fn try_from(raw: Raw) -> Result<Self, MapRuleError> {
        Self::new(raw.v6, raw.v4, raw.ea_bits, raw.psid_offset)
    }
}

fn bits(word: &str) -> Result<u8, MapRuleError> {
    let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| word.parse().ok()).flatten();
    number.ok_or_else(|| MapRuleError::NotANumber(word.to_owned()))
}

/// What [`MapRuleError::TooLong`] says of the bits of the IPv4 address that are not EA bits.
fn subnet_words(rule: &MapRule) -> String {
    match rule.subnet_len() {
        0 => String::new(),
        n => format!(" and the {n} bits of {} behind them", rule.v4),
    }
}

/// RFC 7597 section 5: 32 bits of an address and 16 of a port.
const EA_BITS_MAX: u8 = 48;

#[cfg(test)]
mod tests;
