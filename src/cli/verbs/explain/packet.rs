// SPDX-License-Identifier: GPL-2.0-or-later
//! A packet in words becomes bytes.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use clap::{Arg, ArgAction, ArgMatches};

use super::view::{Load, View};
use crate::base::Protocol;
use crate::wire::checksum::{Sum, nonzero};
use crate::wire::write::{FRAGMENT_LEN, Head4, Head6, fragment_header, put16};
use crate::wire::{Fragment, ICMP4, ICMP6, TCP, UDP};

/// Where packets come from that are not made here.
const CAPTURES: [&str; 2] = ["pcap", "live"];

/// The words that make a packet.
pub(super) fn args() -> Vec<Arg> {
    let value = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .help(help)
            .allow_hyphen_values(true)
    };
    let value_of = |name, metavar, help| value(name, metavar, help).conflicts_with_all(CAPTURES);
    vec![
        Arg::new("packet")
            .value_names(["PROTOCOL", "SOURCE", "DESTINATION"])
            .help("tcp, udp, icmp or icmpv6, and twice ADDRESS[#PORT]; the port of a ping is its identifier"),
        value_of("flags", "FLAGS", "TCP flags: letters of S A F R P U, or none (default S)"),
        value_of("size", "BYTES", "How many bytes of data it carries (default 0)"),
        value_of("ttl", "N", "Its time to live or hop limit (default 64)"),
        value_of("tos", "N", "Its type of service or traffic class (default 0)"),
        value("mark", "N", "Its mark, which selects a part of pool4 (default 0)"),
        Arg::new("df")
            .long("df")
            .action(ArgAction::SetTrue)
            .conflicts_with_all(CAPTURES)
            .help("It must not be fragmented (IPv4)"),
        value_of("fragment", "OFFSET[,more]", "It is a fragment: where it begins, in bytes"),
        value_of("type", "N", "Type of an ICMP message (default: an echo request)"),
        value_of("code", "N", "Code of an ICMP message (default 0)"),
        value_of("error", "TYPE[/CODE]", "Not the packet, but the ICMP error about it that goes to its source"),
        value_of("router", "ADDRESS", "Where that error comes from (default: the packet's destination)"),
        value_of("mtu", "BYTES", "The MTU that the error tells of (default 1280)"),
    ]
}

/// A packet and what is known of it besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// From the IP header on.
    pub(super) bytes: Vec<u8>,
    pub(super) mark: u32,
}

/// Why words make no packet.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PacketError {
    #[error("'{0}' is not a protocol; use tcp, udp, icmp or icmpv6")]
    Protocol(String),
    #[error("'{0}' is not an IPv4 or IPv6 address, which may have #PORT behind it")]
    Address(String),
    #[error("'{0}' is not a port number (0-65535)")]
    Port(String),
    #[error("'{0}' has no port; write ADDRESS#PORT, for example {0}#80")]
    NoPort(String),
    #[error("{0} and {1} are of different families; a packet has one")]
    Families(IpAddr, IpAddr),
    #[error("icmpv6 goes between IPv6 addresses, not {0}; use icmp")]
    NotV6(IpAddr),
    #[error("'{0}' are no TCP flags; use letters of S A F R P U, for example SA, or none")]
    Flags(String),
    #[error("--{0} takes a number of at most {2}, not '{1}'")]
    Number(&'static str, String, u64),
    #[error("--{0} is for {1} only; leave it out")]
    Unfit(&'static str, &'static str),
    #[error(
        "--fragment takes a multiple of 8 of at most 65528, which ',more' may follow, not '{0}'"
    )]
    Fragment(String),
    #[error(
        "all but the last fragment carry a multiple of 8 bytes, and {0} is none; change --size"
    )]
    FragmentSize(usize),
    #[error("the packet would be {0} bytes long, and 65535 is the most; use a smaller --size")]
    Long(usize),
}

impl Packet {
    /// `None` where there are no words of a packet.
    ///
    /// # Errors
    /// Every [`PacketError`].
    pub(super) fn of(found: &ArgMatches) -> Result<Option<Self>, PacketError> {
        let Some(words) = found.get_many::<String>("packet") else {
            return Ok(None);
        };
        let mut words = words.map(String::as_str);
        let mut word = || words.next().unwrap_or_default();
        let (protocol, src, dst) = (word(), word(), word());
        let option = |name: &str| found.get_one::<String>(name).map(String::as_str);
        let words = Words {
            protocol,
            src,
            dst,
            df: found.get_flag("df"),
            option: &option,
        };
        words.packet(mark(found)?).map(Some)
    }

    /// Whose tables it needs; `None` is any.
    pub(super) fn protocol(&self) -> Option<Protocol> {
        match View::read(&self.bytes).ok()?.load {
            Load::Error(_, quote) => quote.flow.map(|(protocol, _)| protocol),
            Load::Tcp(..) => Some(Protocol::Tcp),
            Load::Udp(_) => Some(Protocol::Udp),
            Load::Echo { .. } => Some(Protocol::Icmp),
            Load::Icmp(_) | Load::Other(_) | Load::Later(_) => None,
        }
    }
}

/// The mark that packets have.
pub(super) fn mark(found: &ArgMatches) -> Result<u32, PacketError> {
    let word = found.get_one::<String>("mark");
    word.map_or(Ok(0), |word| number("mark", word))
}

struct Words<'a> {
    protocol: &'a str,
    src: &'a str,
    dst: &'a str,
    df: bool,
    option: &'a dyn Fn(&str) -> Option<&'a str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Icmp,
}

/// What the IP header says.
struct Header {
    src: IpAddr,
    dst: IpAddr,
    ttl: u8,
    tos: u8,
    df: bool,
    fragment: Option<Fragment>,
}

impl Words<'_> {
    fn packet(&self, mark: u32) -> Result<Packet, PacketError> {
        let kind = match self.protocol.to_ascii_lowercase().as_str() {
            "tcp" => Kind::Tcp,
            "udp" => Kind::Udp,
            "icmp" | "icmpv6" => Kind::Icmp,
            _ => return Err(PacketError::Protocol(self.protocol.to_owned())),
        };
        let (src, source_port) = transport(self.src)?;
        let (dst, port) = transport(self.dst)?;
        if src.is_ipv6() != dst.is_ipv6() {
            return Err(PacketError::Families(src, dst));
        }
        if self.protocol.eq_ignore_ascii_case("icmpv6") && src.is_ipv4() {
            return Err(PacketError::NotV6(src));
        }
        self.fit(kind, src)?;
        let fragment = (self.option)("fragment").map(fragment).transpose()?;
        let header = Header {
            src,
            dst,
            ttl: self.number("ttl", 64)?,
            tos: self.number("tos", 0)?,
            df: self.df,
            fragment,
        };
        let data = vec![0x2e; usize::from(self.number::<u16>("size", 0)?)];
        let later = fragment.is_some_and(|fragment| fragment.offset != 0);
        let (number, payload) = if later {
            (number_of(kind, src), data)
        } else {
            let ports = match (kind, source_port, port) {
                (Kind::Icmp, a, b) => [a.or(b).unwrap_or(1); 2],
                (_, _, None) => return Err(PacketError::NoPort(self.dst.to_owned())),
                (_, a, Some(b)) => [a.unwrap_or(CLIENT_PORT), b],
            };
            (
                number_of(kind, src),
                self.message(kind, &header, ports, &data)?,
            )
        };
        if fragment.is_some_and(|fragment| fragment.more) && !payload.len().is_multiple_of(8) {
            return Err(PacketError::FragmentSize(payload.len()));
        }
        let mut bytes = header.write(number, &payload)?;
        if let Some(error) = (self.option)("error") {
            bytes = self.error(error, &header, &bytes)?;
        }
        Ok(Packet { bytes, mark })
    }

    /// Refuses options that the packet has no place for.
    fn fit(&self, kind: Kind, src: IpAddr) -> Result<(), PacketError> {
        let given = |name| (self.option)(name).is_some();
        let complaints = [
            ("flags", given("flags") && kind != Kind::Tcp, "TCP"),
            ("type", given("type") && kind != Kind::Icmp, "ICMP"),
            ("code", given("code") && kind != Kind::Icmp, "ICMP"),
            ("df", self.df && src.is_ipv6(), "IPv4"),
            ("router", given("router") && !given("error"), "--error"),
            ("mtu", given("mtu") && !given("error"), "--error"),
        ];
        match complaints.into_iter().find(|(_, unfit, _)| *unfit) {
            Some((name, _, whose)) => Err(PacketError::Unfit(name, whose)),
            None => Ok(()),
        }
    }

    /// Transport header and data.
    fn message(
        &self,
        kind: Kind,
        header: &Header,
        [src, dst]: [u16; 2],
        data: &[u8],
    ) -> Result<Vec<u8>, PacketError> {
        let ports = [src.to_be_bytes(), dst.to_be_bytes()].concat();
        let (mut bytes, at) = match kind {
            Kind::Tcp => {
                let flags = flags((self.option)("flags").unwrap_or("S"))?;
                let mut bytes = ports;
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
                (bytes, 16)
            }
            Kind::Udp => {
                let len = u16::try_from(8 + data.len()).unwrap_or(u16::MAX);
                (([&ports[..], &len.to_be_bytes(), &[0, 0]]).concat(), 6)
            }
            Kind::Icmp => {
                let echo = if header.src.is_ipv6() { 128 } else { 8 };
                let (kind, code) = (self.number("type", echo)?, self.number("code", 0)?);
                let [id0, id1] = src.to_be_bytes();
                (vec![kind, code, 0, 0, id0, id1, 0, 1], 2)
            }
        };
        bytes.extend(data);
        seal(&mut bytes, at, header, kind);
        Ok(bytes)
    }

    /// An ICMP error about a packet, to its source.
    fn error(&self, words: &str, about: &Header, packet: &[u8]) -> Result<Vec<u8>, PacketError> {
        let (kind, code) = words.split_once('/').unwrap_or((words, "0"));
        let (kind, code) = (number("error", kind)?, number("error", code)?);
        let router = match (self.option)("router") {
            Some(word) => transport(word)?.0,
            None => about.dst,
        };
        if router.is_ipv6() != about.src.is_ipv6() {
            return Err(PacketError::Families(router, about.src));
        }
        let mtu: u16 = self.number("mtu", 1280)?;
        let [m0, m1] = mtu.to_be_bytes();
        let rest = match (router, kind, code) {
            (IpAddr::V6(_), 2, _) | (IpAddr::V4(_), 3, 4) => [0, 0, m0, m1],
            (IpAddr::V6(_) | IpAddr::V4(_), _, _) => [0; 4],
        };
        let mut bytes = vec![kind, code, 0, 0];
        bytes.extend(rest);
        bytes.extend(packet.iter().take(MOST_QUOTED));
        let header = Header {
            src: router,
            dst: about.src,
            ttl: 64,
            tos: 0,
            df: false,
            fragment: None,
        };
        seal(&mut bytes, 2, &header, Kind::Icmp);
        header.write(number_of(Kind::Icmp, router), &bytes)
    }

    fn number<T: FromStr + Limit>(&self, name: &'static str, default: T) -> Result<T, PacketError> {
        (self.option)(name).map_or(Ok(default), |word| number(name, word))
    }
}

impl Header {
    fn write(&self, protocol: u8, payload: &[u8]) -> Result<Vec<u8>, PacketError> {
        let extension = match self.fragment {
            Some(_) if self.src.is_ipv6() => FRAGMENT_LEN,
            Some(_) | None => 0,
        };
        let (head, len) = match self.src {
            IpAddr::V6(_) => (Head6::LEN, extension + payload.len()),
            IpAddr::V4(_) => (Head4::LEN, Head4::LEN + payload.len()),
        };
        let total = head + extension + payload.len();
        let reach = self
            .fragment
            .map_or(0, |fragment| usize::from(fragment.offset));
        let (Ok(len), true) = (u16::try_from(len), total + reach <= usize::from(u16::MAX)) else {
            return Err(PacketError::Long(total + reach));
        };
        let mut bytes = match (self.src, self.dst) {
            (IpAddr::V6(src), IpAddr::V6(dst)) => Head6 {
                traffic_class: self.tos,
                payload_len: len,
                next_header: if extension == 0 { protocol } else { FRAGMENT },
                hop_limit: self.ttl,
                src,
                dst,
            }
            .to_bytes()
            .to_vec(),
            (src, dst) => Head4 {
                tos: self.tos,
                total_len: len,
                identification: IDENTIFICATION,
                dont_fragment: self.df,
                offset: self.fragment.map_or(0, |fragment| fragment.offset),
                more: self.fragment.is_some_and(|fragment| fragment.more),
                ttl: self.ttl,
                protocol,
                src: four(src),
                dst: four(dst),
            }
            .to_bytes()
            .to_vec(),
        };
        if let (Some(fragment), true) = (self.fragment, extension != 0) {
            bytes.extend(fragment_header(protocol, fragment));
        }
        bytes.extend(payload);
        Ok(bytes)
    }
}

/// Fills in the checksum of a message.
fn seal(bytes: &mut [u8], at: usize, header: &Header, kind: Kind) {
    let number = number_of(kind, header.src);
    let pseudo = match (header.src, header.dst) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => Sum::pseudo6(src, dst, number, bytes.len()),
        _ if kind == Kind::Icmp => Sum::ZERO,
        (src, dst) => Sum::pseudo4(four(src), four(dst), number, bytes.len()),
    };
    let sum = (pseudo + Sum::bytes(bytes)).checksum();
    put16(
        bytes,
        at,
        if kind == Kind::Udp { nonzero(sum) } else { sum },
    );
}

const fn number_of(kind: Kind, addr: IpAddr) -> u8 {
    match (kind, addr) {
        (Kind::Tcp, _) => TCP,
        (Kind::Udp, _) => UDP,
        (Kind::Icmp, IpAddr::V4(_)) => ICMP4,
        (Kind::Icmp, IpAddr::V6(_)) => ICMP6,
    }
}

/// An address whose family was looked at before.
const fn four(addr: IpAddr) -> Ipv4Addr {
    match addr {
        IpAddr::V4(addr) => addr,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

fn transport(word: &str) -> Result<(IpAddr, Option<u16>), PacketError> {
    let (addr, port) = match word.split_once('#') {
        Some((addr, port)) => (addr, Some(port)),
        None => (word, None),
    };
    let bad = || PacketError::Address(word.to_owned());
    let addr = match addr.parse::<Ipv4Addr>() {
        Ok(addr) => addr.into(),
        Err(_) => addr.parse::<Ipv6Addr>().map_err(|_| bad())?.into(),
    };
    let port = port.map(|port| digits(port).ok_or_else(|| PacketError::Port(port.to_owned())));
    Ok((addr, port.transpose()?))
}

fn flags(word: &str) -> Result<u8, PacketError> {
    if word == "none" {
        return Ok(0);
    }
    let bit = |letter| "FSRPAU".find(letter).map(|at| 1_u8 << at);
    let mut all = 0;
    for letter in word.chars() {
        let bit = bit(letter.to_ascii_uppercase());
        all |= bit.ok_or_else(|| PacketError::Flags(word.to_owned()))?;
    }
    if all == 0 {
        return Err(PacketError::Flags(word.to_owned()));
    }
    Ok(all)
}

fn fragment(word: &str) -> Result<Fragment, PacketError> {
    let (offset, more) = match word.strip_suffix(",more") {
        Some(offset) => (offset, true),
        None => (word, false),
    };
    let offset = digits::<u16>(offset).filter(|offset| offset % 8 == 0);
    Ok(Fragment {
        identification: IDENTIFICATION.into(),
        offset: offset.ok_or_else(|| PacketError::Fragment(word.to_owned()))?,
        more,
    })
}

fn number<T: FromStr + Limit>(name: &'static str, word: &str) -> Result<T, PacketError> {
    digits(word).ok_or_else(|| PacketError::Number(name, word.to_owned(), T::MOST))
}

/// Digits and nothing but digits; `str::parse` would take a sign as well.
fn digits<T: FromStr>(word: &str) -> Option<T> {
    let all = word.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| word.parse().ok())?
}

/// Numbers that know how large they can be.
trait Limit: Display {
    const MOST: u64;
}

impl Limit for u8 {
    const MOST: u64 = Self::MAX as u64;
}

impl Limit for u16 {
    const MOST: u64 = Self::MAX as u64;
}

impl Limit for u32 {
    const MOST: u64 = Self::MAX as u64;
}

/// The first of the ports that clients take (RFC 6335 section 6).
const CLIENT_PORT: u16 = 49_152;

const IDENTIFICATION: u16 = 1;

/// The number of the fragment header.
const FRAGMENT: u8 = 44;

/// What an error quotes at most: with all its headers, it is no longer than a router would send it
/// (RFC 1812 section 4.3.2.3).
const MOST_QUOTED: usize = 548;

#[cfg(test)]
mod tests;
