// SPDX-License-Identifier: GPL-2.0-or-later
//! The bytes of a datagram: a row of netlink attributes, one for each session.
//!
//! An attribute begins with its length (header included) and its type, 16 bits each in the byte
//! order of the sender's processor; the next one begins at a multiple of 4. Three forms of it are
//! out there, and nothing but their lengths tells them apart, see [`Format`].

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::base::prefix::Pool6;
use crate::base::{Protocol, Transport4, Transport6};
use crate::model::TcpState;
use crate::model::sync::Format;
use crate::nat64::merge::ForeignSession;
use crate::nat64::tcp::Lifetime;

/// A datagram that was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub format: Format,
    /// Entries that make no sense.
    pub malformed: u32,
    /// Entries whose server is not in this gateway's pool6: it is not the sender's.
    pub strangers: u32,
}

/// Why a datagram is not understood at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotJoold {
    #[error("it does not begin like a session of any version of Jool")]
    Unknown,
    #[error("its sender has a processor of the other byte order")]
    ByteOrder,
}

/// Adds the sessions of a datagram to `into`.
///
/// # Errors
/// [`NotJoold`]; nothing is added then.
//= jool#joold-wire
pub fn decode(
    pool6: Pool6,
    datagram: &[u8],
    into: &mut Vec<ForeignSession>,
) -> Result<Datagram, NotJoold> {
    let format = detect(datagram)?;
    let mut found = Datagram {
        format,
        malformed: 0,
        strangers: 0,
    };
    let mut attributes = Attributes(datagram);
    for attribute in attributes.by_ref() {
        let session = match format {
            Format::A => nested(attribute.payload, pool6),
            Format::B => flat(attribute.payload, pool6),
            Format::C => short(attribute.payload),
        };
        match session {
            Ok(session) => into.push(session),
            Err(Bad::Malformed) => found.malformed += 1,
            Err(Bad::Stranger) => found.strangers += 1,
        }
    }
    if !attributes.0.is_empty() {
        // Cut off somewhere.
        found.malformed += 1;
    }
    Ok(found)
}

/// Adds a session to a datagram.
//= jool#joold-wire
pub fn encode(format: Format, pool6: Pool6, session: &ForeignSession, into: &mut Vec<u8>) {
    let ForeignSession {
        protocol,
        v6,
        v4,
        remote,
        ..
    } = *session;
    let (port4, port6) = match protocol {
        Protocol::Tcp | Protocol::Udp => (remote.port, remote.port),
        Protocol::Icmp => (v4.port, v6.port),
    };
    let left = u32::try_from(session.left).unwrap_or(u32::MAX);
    let (state, timer) = numbers(session);
    let proto = protocol.index() as u8;
    let dst6 = pool6.embed(remote.addr);
    let flags = u16::from(proto) << 5 | u16::from(state) << 2 | u16::from(timer);
    match format {
        Format::A => {
            header(into, 140, ENTRY | NESTED);
            endpoint(into, 1, &v6.addr.octets(), v6.port);
            endpoint(into, 2, &dst6.octets(), port6);
            endpoint(into, 3, &v4.addr.octets(), v4.port);
            endpoint(into, 4, &remote.addr.octets(), port4);
            for (id, value) in [(5, proto), (6, state), (7, timer)] {
                header(into, 5, id);
                into.extend([value, 0, 0, 0]);
            }
            header(into, 8, 8);
            into.extend(left.to_le_bytes());
        }
        Format::B => {
            header(into, 52, ENTRY);
            into.extend(v6.addr.octets());
            into.extend(dst6.octets());
            into.extend(v4.addr.octets());
            into.extend(left.to_be_bytes());
            for field in [v6.port, port6, v4.port, flags] {
                into.extend(field.to_be_bytes());
            }
        }
        Format::C => {
            header(into, 40, ENTRY);
            into.extend(v6.addr.octets());
            into.extend(v4.addr.octets());
            into.extend(remote.addr.octets());
            into.extend(left.to_be_bytes());
            for field in [v6.port, v4.port, port4, flags] {
                into.extend(field.to_be_bytes());
            }
        }
    }
}

/// How many bytes a session takes.
pub const fn size(format: Format) -> usize {
    match format {
        Format::A => 140,
        Format::B => 52,
        Format::C => 40,
    }
}

/// What is wrong with an entry.
enum Bad {
    Malformed,
    Stranger,
}

fn detect(datagram: &[u8]) -> Result<Format, NotJoold> {
    if let Some(format) = format(datagram, u16::from_le_bytes) {
        return Ok(format);
    }
    Err(match format(datagram, u16::from_be_bytes) {
        Some(_) => NotJoold::ByteOrder,
        None => NotJoold::Unknown,
    })
}

/// The format of a first entry, if `read` is the order of its bytes.
fn format(entry: &[u8], read: fn([u8; 2]) -> u16) -> Option<Format> {
    let field = |at: usize| Some(read(*entry.get(at..)?.first_chunk()?));
    match (field(0)?, field(2)?) {
        (40, ENTRY) => Some(Format::C),
        (52, ENTRY) => Some(Format::B),
        // Kernels before 5.2 do not say that an attribute is nested.
        (100.., kind) if kind & KIND == ENTRY => {
            (field(4)? == 32 && field(6)? & KIND == 1).then_some(Format::A)
        }
        _ => None,
    }
}

/// Format C: all but the IPv6 address of the server, which is this gateway's pool6 and the IPv4
/// address.
fn short(payload: &[u8]) -> Result<ForeignSession, Bad> {
    let mut fields = Fields(payload);
    let (src6, src4, dst4) = (fields.v6()?, fields.v4()?, fields.v4()?);
    let left = u32::from_be_bytes(fields.take()?);
    let (port6, port4, remote) = (fields.u16()?, fields.u16()?, fields.u16()?);
    let (protocol, state, timer) = flags(fields.u16()?);
    session(
        (protocol, state, timer),
        Transport6::new(src6, port6),
        Transport4::new(src4, port4),
        Transport4::new(dst4, remote),
        left,
    )
}

/// Format B: all but the IPv4 address of the server.
fn flat(payload: &[u8], pool6: Pool6) -> Result<ForeignSession, Bad> {
    let mut fields = Fields(payload);
    let (src6, dst6, src4) = (fields.v6()?, fields.v6()?, fields.v4()?);
    let left = u32::from_be_bytes(fields.take()?);
    let (port6, remote, port4) = (fields.u16()?, fields.u16()?, fields.u16()?);
    let (protocol, state, timer) = flags(fields.u16()?);
    let dst4 = pool6.extract(dst6).ok_or(Bad::Stranger)?;
    session(
        (protocol, state, timer),
        Transport6::new(src6, port6),
        Transport4::new(src4, port4),
        Transport4::new(dst4, remote),
        left,
    )
}

/// Format A: attributes in attributes, numbers in the byte order of the sender.
fn nested(payload: &[u8], pool6: Pool6) -> Result<ForeignSession, Bad> {
    let (mut src6, mut dst6, mut src4, mut dst4) = (None, None, None, None);
    let (mut protocol, mut state, mut timer, mut left) = (None, None, None, None);
    let mut attributes = Attributes(payload);
    for attribute in attributes.by_ref() {
        let mut fields = Fields(attribute.payload);
        match attribute.kind {
            1 => src6 = Some(address(attribute.payload)?),
            2 => dst6 = Some(address(attribute.payload)?),
            3 => src4 = Some(address(attribute.payload)?),
            4 => dst4 = Some(address(attribute.payload)?),
            5 => protocol = Some(u8::from_le_bytes(fields.take()?)),
            6 => state = Some(u8::from_le_bytes(fields.take()?)),
            7 => timer = Some(u8::from_le_bytes(fields.take()?)),
            8 => left = Some(u32::from_le_bytes(fields.take()?)),
            _ => return Err(Bad::Malformed),
        }
    }
    if !attributes.0.is_empty() {
        return Err(Bad::Malformed);
    }
    let all = src6.zip(dst6).zip(src4.zip(dst4));
    let numbers = protocol.zip(state).zip(timer.zip(left));
    let (Some(((src6, dst6), (src4, dst4))), Some(((protocol, state), (timer, left)))) =
        (all, numbers)
    else {
        return Err(Bad::Malformed);
    };
    let ((src6, port6), (dst6, _)): ((Ipv6Addr, u16), (Ipv6Addr, u16)) = (src6, dst6);
    let ((src4, port4), (dst4, remote)): ((Ipv4Addr, u16), (Ipv4Addr, u16)) = (src4, dst4);
    if pool6.extract(dst6) != Some(dst4) {
        return Err(Bad::Stranger);
    }
    session(
        (protocol, state, timer),
        Transport6::new(src6, port6),
        Transport4::new(src4, port4),
        Transport4::new(dst4, remote),
        left,
    )
}

/// An address and a port of format A.
fn address<A: From<[u8; N]>, const N: usize>(payload: &[u8]) -> Result<(A, u16), Bad> {
    let (mut addr, mut port) = (None, None);
    let mut attributes = Attributes(payload);
    for attribute in attributes.by_ref() {
        let mut fields = Fields(attribute.payload);
        match attribute.kind {
            1 => addr = Some(A::from(fields.take()?)),
            2 => port = Some(u16::from_le_bytes(fields.take()?)),
            _ => return Err(Bad::Malformed),
        }
    }
    addr.zip(port).ok_or(Bad::Malformed)
}

/// Protocol, state and timer.
const fn flags(field: u16) -> (u8, u8, u8) {
    let [high, low] = field.to_be_bytes();
    // What is above the protocol makes it one that does not exist.
    let protocol = if high == 0 { low >> 5 } else { u8::MAX };
    (protocol, low >> 2 & 7, low & 3)
}

fn session(
    (protocol, state, timer): (u8, u8, u8),
    v6: Transport6,
    v4: Transport4,
    remote: Transport4,
    left: u32,
) -> Result<ForeignSession, Bad> {
    let protocol = Protocol::ALL.get(usize::from(protocol));
    let protocol = *protocol.ok_or(Bad::Malformed)?;
    let (state, lifetime) = match protocol {
        Protocol::Tcp => {
            let state = STATES.get(usize::from(state)).ok_or(Bad::Malformed)?;
            let lifetime = TIMERS.get(usize::from(timer)).ok_or(Bad::Malformed)?;
            (*state, *lifetime)
        }
        Protocol::Udp => (STATES[0], Lifetime::Udp),
        Protocol::Icmp => (STATES[0], Lifetime::Icmp),
    };
    Ok(ForeignSession {
        protocol,
        v6,
        v4,
        remote: match protocol {
            Protocol::Tcp | Protocol::Udp => remote,
            Protocol::Icmp => Transport4::new(remote.addr, 0),
        },
        state,
        lifetime,
        left: left.into(),
        segment: 0,
    })
}

/// State and timer as numbers, 0 where the protocol has none.
fn numbers(session: &ForeignSession) -> (u8, u8) {
    if session.protocol != Protocol::Tcp {
        return (0, 0);
    }
    let state = STATES.iter().position(|state| *state == session.state);
    let timer = TIMERS.iter().position(|timer| *timer == session.lifetime);
    (
        state.unwrap_or_default() as u8,
        timer.unwrap_or_default() as u8,
    )
}

/// Appends an attribute with an address and a port.
fn endpoint(into: &mut Vec<u8>, id: u16, addr: &[u8], port: u16) {
    header(into, 4 + 4 + addr.len() as u16 + 8, id | NESTED);
    header(into, 4 + addr.len() as u16, 1);
    into.extend(addr);
    header(into, 6, 2);
    into.extend(port.to_le_bytes());
    into.extend([0, 0]);
}

fn header(into: &mut Vec<u8>, length: u16, kind: u16) {
    into.extend(length.to_le_bytes());
    into.extend(kind.to_le_bytes());
}

/// Attributes one after the other; what is left is none.
struct Attributes<'a>(&'a [u8]);

struct Attribute<'a> {
    kind: u16,
    payload: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let (header, _) = self.0.split_first_chunk::<4>()?;
        let [l0, l1, k0, k1] = *header;
        let length = usize::from(u16::from_le_bytes([l0, l1]));
        let payload = self.0.get(4..length)?;
        let next = length.next_multiple_of(4).min(self.0.len());
        self.0 = &self.0[next..];
        Some(Attribute {
            kind: u16::from_le_bytes([k0, k1]) & KIND,
            payload,
        })
    }
}

/// Fields one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Bad::Malformed)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u16(&mut self) -> Result<u16, Bad> {
        Ok(u16::from_be_bytes(self.take()?))
    }

    fn v4(&mut self) -> Result<Ipv4Addr, Bad> {
        Ok(Ipv4Addr::from(self.take::<4>()?))
    }

    fn v6(&mut self) -> Result<Ipv6Addr, Bad> {
        Ok(Ipv6Addr::from(self.take::<16>()?))
    }
}

/// The type of a session's attribute.
const ENTRY: u16 = 1;

/// Set in the type of an attribute that has attributes in it.
const NESTED: u16 = 0x8000;

/// What is left of a type without its flags.
const KIND: u16 = 0x3fff;

/// States by number.
const STATES: [TcpState; 7] = [
    TcpState::Established,
    TcpState::V6Init,
    TcpState::V4Init,
    TcpState::V4FinRcv,
    TcpState::V6FinRcv,
    TcpState::V4FinV6FinRcv,
    TcpState::Trans,
];

/// Lifetimes of TCP by number.
const TIMERS: [Lifetime; 3] = [
    Lifetime::TcpEstablished,
    Lifetime::TcpTransitory,
    Lifetime::TcpIncomingSyn,
];

#[cfg(test)]
mod tests;
