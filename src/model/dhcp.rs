// SPDX-License-Identifier: GPL-2.0-or-later
//! What a DHCPv6 server says about MAP-T (RFC 7598).
//!
//! Reads options as they stand in a message: a MAP-T container, or what would be inside one, and
//! prefixes that were delegated (RFC 8415). What else is there is passed over; what is about MAP-T
//! and cannot be is an error. No DHCP client: the bytes come from one.

use super::mapt::{CeError, MapRule, MapRuleError, check_ce};
use crate::base::prefix::{Prefix4, Prefix6};

/// What the options say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provision {
    pub rules: Vec<ProvisionedRule>,
    /// The default mapping rule: what stands for the IPv4 Internet.
    pub dmr: Option<Prefix6>,
    /// Prefixes delegated to the customer edge, one of which is its end-user prefix.
    pub delegated: Vec<Prefix6>,
}

/// A mapping rule (OPTION_S46_RULE), whose parts are of the right form but need not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvisionedRule {
    pub v6: Prefix6,
    pub v4: Prefix4,
    /// Bits.
    pub ea_bits: u8,
    /// The PSID offset; `None` where the option leaves it to the default.
    pub offset: Option<u8>,
    /// May be used to reach other customer edges, too (the F-flag).
    pub forwarding: bool,
}

/// The settings of the customer edge that options describe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerEdge {
    pub dmr: Prefix6,
    pub end_user: Prefix6,
    pub bmr: MapRule,
    pub fmrt: Vec<MapRule>,
}

/// Why options cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DhcpError {
    #[error("the options end within {0}; is the text complete?")]
    Truncated(&'static str),
    #[error("there is neither a MAP-T container (option 95) nor a MAP-T rule (89) nor a DMR (91)")]
    NoMapT,
    #[error(
        "the options are about {0} (option {1}), which is not MAP-T; ask the server for option 95"
    )]
    OtherSoftwire(&'static str, u16),
    #[error("{0} has a prefix length of {1}, and {2} is the most")]
    Length(&'static str, u8, u8),
    #[error("the rule has an EA-bits length of {0}, and 48 is the most (RFC 7598 section 4.1)")]
    EaBits(u8),
    #[error("the rule has a PSID offset of {0}, and 15 is the most (RFC 7598 section 4.5)")]
    Offset(u8),
    #[error(
        "the port parameters of the rule give a PSID of {given} bits, but EA-bits length {ea_bits} less the {suffix} bits of the IPv4 suffix is {computed}; a PSID that is not part of the End-user prefix is not supported"
    )]
    PsidLength {
        given: u8,
        ea_bits: u8,
        suffix: u8,
        computed: u8,
    },
    #[error("there are two default mapping rules (option 91), {0} and {1}; one is meant")]
    TwoDmrs(Prefix6, Prefix6),
    #[error("there is no default mapping rule (option 91) among the options; give it with --dmr")]
    NoDmr,
    #[error("there is no mapping rule (option 89) among the options; ask the server for option 95")]
    NoRule,
    #[error(
        "there is no delegated prefix (option 25) among the options; give this customer's with --end-user-ipv6-prefix"
    )]
    NoPrefix,
    #[error("no mapping rule of the options is for {0}; is it the prefix of this customer?")]
    NoRuleFor(Prefix6),
    #[error(transparent)]
    Rule(#[from] MapRuleError),
    #[error(transparent)]
    Ce(#[from] CeError),
    #[error(
        "'{0}' is not a hexadecimal digit, and there is no file of such a name; write bytes like 005f001b or 00:5f:00:1b"
    )]
    NotHex(char),
    #[error("the hexadecimal digits are odd in number; each byte has two")]
    OddHex,
    #[error("the text holds no bytes at all")]
    Empty,
}

/// Reads bytes written as hexadecimal digits, in pairs or not, between which blanks, line ends,
/// colons, dashes and commas may stand.
///
/// # Errors
/// [`DhcpError::NotHex`], [`DhcpError::OddHex`], [`DhcpError::Empty`].
pub fn bytes(text: &str) -> Result<Vec<u8>, DhcpError> {
    let text = text.trim();
    let text = text.strip_prefix("0x").unwrap_or(text);
    let digits = text
        .chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, ':' | '-' | ','))
        .map(|c| c.to_digit(16).ok_or(DhcpError::NotHex(c)))
        .collect::<Result<Vec<u32>, _>>()?;
    if digits.is_empty() {
        return Err(DhcpError::Empty);
    }
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(DhcpError::OddHex);
    }
    // Both are below 16.
    Ok(pairs.iter().map(|[h, l]| (h << 4 | l) as u8).collect())
}

/// Reads the options of a DHCPv6 message, or those inside a MAP-T container.
///
/// # Errors
/// An option that is about MAP-T is incomplete or holds what cannot be, or none is.
pub fn parse(options: &[u8]) -> Result<Provision, DhcpError> {
    let mut found = Provision::default();
    let mut other = None;
    let mut rest = options;
    while let Some((code, body)) = next(&mut rest)? {
        match code {
            CONT_MAPT => container(body, &mut found)?,
            RULE => found.rules.push(rule(body)?),
            DMR => set_dmr(&mut found, body)?,
            IA_PD => delegation(body, &mut found)?,
            BR | CONT_MAPE => other = other.or(Some(("MAP-E", code))),
            V4V6BIND | CONT_LW => other = other.or(Some(("lightweight 4over6", code))),
            _ => {}
        }
    }
    if !found.rules.is_empty() || found.dmr.is_some() {
        return Ok(found);
    }
    Err(other.map_or(DhcpError::NoMapT, |(what, code)| {
        DhcpError::OtherSoftwire(what, code)
    }))
}

impl Provision {
    /// What this makes of a customer edge. A prefix that is given stands in for one of the options.
    ///
    /// Of the delegated prefixes and the rules, the basic mapping rule is the one with the longest
    /// prefix that holds a delegated one.
    ///
    /// # Errors
    /// Something is missing, or parts do not fit together.
    //= rfc7597#section-5
    pub fn customer_edge(
        &self,
        dmr: Option<Prefix6>,
        end_user: Option<Prefix6>,
    ) -> Result<CustomerEdge, DhcpError> {
        let dmr = dmr.or(self.dmr).ok_or(DhcpError::NoDmr)?;
        let prefixes = end_user
            .as_ref()
            .map_or(&*self.delegated, std::slice::from_ref);
        let first = prefixes.first().ok_or(DhcpError::NoPrefix)?;
        if self.rules.is_empty() {
            return Err(DhcpError::NoRule);
        }
        let pairs = prefixes.iter().flat_map(|prefix| {
            let rules = self.rules.iter().map(move |rule| (rule, *prefix));
            rules.filter(|(rule, prefix)| {
                rule.v6.contains(prefix.network()) && rule.v6.prefix_len() <= prefix.prefix_len()
            })
        });
        let (bmr, end_user) = pairs
            .max_by_key(|(rule, _)| rule.v6.prefix_len())
            .ok_or(DhcpError::NoRuleFor(*first))?;
        let bmr = bmr.rule()?;
        check_ce(bmr, end_user)?;
        let fmrt = self.rules.iter().filter(|rule| rule.forwarding);
        Ok(CustomerEdge {
            dmr,
            end_user,
            bmr,
            fmrt: fmrt.map(ProvisionedRule::rule).collect::<Result<_, _>>()?,
        })
    }
}

impl ProvisionedRule {
    fn rule(&self) -> Result<MapRule, MapRuleError> {
        let offset = self.offset.unwrap_or(MapRule::DEFAULT_OFFSET);
        MapRule::new(self.v6, self.v4, self.ea_bits, offset)
    }
}

//= rfc7598#section-5.2
fn container(mut rest: &[u8], found: &mut Provision) -> Result<(), DhcpError> {
    while let Some((code, body)) = next(&mut rest)? {
        match code {
            RULE => found.rules.push(rule(body)?),
            DMR => set_dmr(found, body)?,
            _ => {}
        }
    }
    Ok(())
}

//= rfc7598#section-4.1
fn rule(body: &[u8]) -> Result<ProvisionedRule, DhcpError> {
    const WHAT: &str = "a MAP rule (option 89)";
    let mut rest = Reader(body, WHAT);
    let [flags, ea_bits, len4] = rest.take()?;
    let addr4: [u8; 4] = rest.take()?;
    let v6 = rest.prefix6()?;
    if ea_bits > 48 {
        return Err(DhcpError::EaBits(ea_bits));
    }
    let host = u32::MAX.checked_shr(len4.into()).unwrap_or(0);
    let addr4 = u32::from_be_bytes(addr4) & !host;
    // With nothing behind it, only the length can be wrong.
    let v4 = Prefix4::new(addr4.into(), len4).map_err(|_| DhcpError::Length(WHAT, len4, 32))?;
    let mut offset = None;
    let mut inner = rest.0;
    while let Some((code, body)) = next(&mut inner)? {
        if code == PORTPARAMS {
            offset = Some(port_parameters(body, ea_bits, 32 - len4)?);
        }
    }
    Ok(ProvisionedRule {
        v6,
        v4,
        ea_bits,
        offset,
        forwarding: flags & 1 != 0,
    })
}

/// The PSID offset. A length of the PSID, if it is given, must be the one that the rule implies.
//= rfc7598#section-4.5
fn port_parameters(body: &[u8], ea_bits: u8, suffix: u8) -> Result<u8, DhcpError> {
    let mut rest = Reader(body, "the port parameters of a MAP rule (option 93)");
    let [offset, length, _, _] = rest.take()?;
    if offset > 15 {
        return Err(DhcpError::Offset(offset));
    }
    let computed = ea_bits.saturating_sub(suffix);
    if length != 0 && length != computed {
        return Err(DhcpError::PsidLength {
            given: length,
            ea_bits,
            suffix,
            computed,
        });
    }
    Ok(offset)
}

//= rfc7598#section-4.3
fn set_dmr(found: &mut Provision, body: &[u8]) -> Result<(), DhcpError> {
    let dmr = Reader(body, "the default mapping rule (option 91)").prefix6()?;
    match found.dmr.replace(dmr) {
        Some(old) if old != dmr => Err(DhcpError::TwoDmrs(old, dmr)),
        Some(_) | None => Ok(()),
    }
}

/// The prefixes in an identity association (RFC 8415 sections 21.21 and 21.22).
fn delegation(body: &[u8], found: &mut Provision) -> Result<(), DhcpError> {
    const WHAT: &str = "delegated prefixes (option 25)";
    let mut head = Reader(body, WHAT);
    // IAID, T1, T2.
    let _: [u8; 12] = head.take()?;
    let mut rest = head.0;
    while let Some((code, body)) = next(&mut rest)? {
        if code != IAPREFIX {
            continue;
        }
        let mut prefix = Reader(body, WHAT);
        // Preferred lifetime.
        let _: [u8; 4] = prefix.take()?;
        let valid: [u8; 4] = prefix.take()?;
        let [length] = prefix.take()?;
        let addr: [u8; 16] = prefix.take()?;
        // The server takes it back.
        if valid == [0; 4] {
            continue;
        }
        found.delegated.push(whole_prefix(WHAT, addr, length)?);
    }
    Ok(())
}

/// Takes an option off: code and contents.
fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<(u16, &'a [u8])>, DhcpError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let truncated = DhcpError::Truncated("an option");
    let Some(([c, d, l, m], after)) = rest.split_first_chunk::<4>() else {
        return Err(truncated);
    };
    let length = usize::from(u16::from_be_bytes([*l, *m]));
    let (body, after) = after.split_at_checked(length).ok_or(truncated)?;
    *rest = after;
    Ok(Some((u16::from_be_bytes([*c, *d]), body)))
}

/// What is left of an option, and what to call it.
struct Reader<'a>(&'a [u8], &'static str);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DhcpError> {
        let (head, rest) = self
            .0
            .split_first_chunk()
            .ok_or(DhcpError::Truncated(self.1))?;
        self.0 = rest;
        Ok(*head)
    }

    /// A length in bits and as many bytes as that needs; what they hold beyond is padding.
    fn prefix6(&mut self) -> Result<Prefix6, DhcpError> {
        let [length] = self.take()?;
        let (bytes, rest) = self
            .0
            .split_at_checked(usize::from(length.div_ceil(8)))
            .ok_or(DhcpError::Truncated(self.1))?;
        self.0 = rest;
        let mut addr = [0; 16];
        addr.get_mut(..bytes.len())
            .ok_or(DhcpError::Length(self.1, length, 128))?
            .copy_from_slice(bytes);
        whole_prefix(self.1, addr, length)
    }
}

/// A prefix without what an address has behind its length.
fn whole_prefix(what: &'static str, addr: [u8; 16], length: u8) -> Result<Prefix6, DhcpError> {
    let host = u128::MAX.checked_shr(length.into()).unwrap_or(0);
    let addr = u128::from_be_bytes(addr) & !host;
    // As above.
    Prefix6::new(addr.into(), length).map_err(|_| DhcpError::Length(what, length, 128))
}

const IA_PD: u16 = 25;
const IAPREFIX: u16 = 26;
const RULE: u16 = 89;
const BR: u16 = 90;
const DMR: u16 = 91;
const V4V6BIND: u16 = 92;
const PORTPARAMS: u16 = 93;
const CONT_MAPE: u16 = 94;
const CONT_MAPT: u16 = 95;
const CONT_LW: u16 = 96;

#[cfg(test)]
mod tests;
