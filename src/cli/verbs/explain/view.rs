// SPDX-License-Identifier: GPL-2.0-or-later
//! Packets for people: what one is in a line, and what became of its headers.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::divert::Head;
use crate::base::Protocol;
use crate::base::counters::Counter;
use crate::wire::checksum::Sum;
use crate::wire::{Fragment, ICMP4, ICMP6, Inner, InnerL4, L4, Packet4, Packet6, TCP, UDP};

/// A packet of either family.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) ttl: u8,
    pub(super) tos: u8,
    /// With all headers, in bytes.
    pub(super) len: usize,
    /// IPv4 only.
    pub(super) dont_fragment: bool,
    /// A fragment header of an unfragmented packet is none.
    pub(super) fragment: Option<Fragment>,
    pub(super) load: Load,
    /// `None` where it cannot be told, or there is none.
    pub(super) intact: Option<bool>,
}

/// What it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// With all flags of the header.
    Tcp([u16; 2], u8),
    Udp([u16; 2]),
    Echo {
        request: bool,
        identifier: u16,
    },
    Error(IcmpType, Quote),
    Icmp(IcmpType),
    Other(u8),
    /// A fragment other than the first, of this protocol.
    Later(u8),
}

/// Type and code, and an MTU where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IcmpType {
    pub(super) kind: u8,
    pub(super) code: u8,
    pub(super) mtu: Option<u32>,
}

/// The packet that an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Quote {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    /// `None` for anything else.
    pub(super) flow: Option<(Protocol, [u16; 2])>,
}

impl View {
    /// # Errors
    /// Why it cannot be read.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Counter> {
        if bytes.first().is_some_and(|first| first >> 4 == 6) {
            let packet = Packet6::parse(bytes).map_err(|refusal| refusal.reason)?;
            let fragment = packet.fragment.filter(|f| f.more || f.offset != 0);
            let pseudo = |len| Sum::pseudo6(packet.src, packet.dst, packet.protocol, len);
            let l4 = packet.transport();
            return Ok(Self {
                src: packet.src.into(),
                dst: packet.dst.into(),
                ttl: packet.hop_limit,
                tos: packet.traffic_class,
                len: bytes.len(),
                dont_fragment: false,
                fragment,
                load: Load::of(&packet.l4, packet.protocol, l4, packet.too_big()),
                intact: intact(packet.protocol, fragment, l4, pseudo(l4.len())),
            });
        }
        let packet = Packet4::parse(bytes).map_err(|refusal| refusal.reason)?;
        let l4 = packet.transport();
        let pseudo = match packet.protocol {
            ICMP4 => Sum::ZERO,
            protocol => Sum::pseudo4(packet.src, packet.dst, protocol, l4.len()),
        };
        Ok(Self {
            src: packet.src.into(),
            dst: packet.dst.into(),
            ttl: packet.ttl,
            tos: packet.tos,
            len: bytes.len(),
            dont_fragment: packet.dont_fragment,
            fragment: packet.fragment,
            load: Load::of(&packet.l4, packet.protocol, l4, packet.too_big()),
            intact: intact(packet.protocol, packet.fragment, l4, pseudo),
        })
    }

    /// What rules look at.
    pub(super) fn head(&self) -> Head {
        let number = match self.load {
            Load::Tcp(..) => TCP,
            Load::Udp(_) => UDP,
            Load::Echo { .. } | Load::Error(..) | Load::Icmp(_) => ICMP6,
            Load::Other(number) | Load::Later(number) => number,
        };
        let protocol = match number {
            TCP => Some(Protocol::Tcp),
            UDP => Some(Protocol::Udp),
            ICMP4 | ICMP6 => Some(Protocol::Icmp),
            _ => None,
        };
        Head {
            src: self.src,
            dst: self.dst,
            protocol,
            port: self.flow().map(|(_, [_, dst])| dst),
        }
    }

    /// Protocol and ports; for pings, the identifier is both.
    pub(super) const fn flow(&self) -> Option<(Protocol, [u16; 2])> {
        match self.load {
            Load::Tcp(ports, _) => Some((Protocol::Tcp, ports)),
            Load::Udp(ports) => Some((Protocol::Udp, ports)),
            Load::Echo { identifier, .. } => Some((Protocol::Icmp, [identifier; 2])),
            Load::Error(..) | Load::Icmp(_) | Load::Other(_) | Load::Later(_) => None,
        }
    }

    pub(super) const fn ttl_name(&self) -> &'static str {
        if self.src.is_ipv6() {
            "hop limit"
        } else {
            "TTL"
        }
    }

    const fn tos_name(&self) -> &'static str {
        if self.src.is_ipv6() {
            "traffic class"
        } else {
            "TOS"
        }
    }
}

impl Load {
    fn of<A: Copy + Into<IpAddr>>(
        l4: &L4<A>,
        protocol: u8,
        bytes: &[u8],
        mtu: Option<u32>,
    ) -> Self {
        let icmp = |kind, code| IcmpType { kind, code, mtu };
        match l4 {
            L4::Tcp { src, dst, .. } => {
                let flags = bytes.get(13).copied().unwrap_or_default();
                Self::Tcp([*src, *dst], flags)
            }
            L4::Udp { src, dst } => Self::Udp([*src, *dst]),
            L4::Echo {
                request,
                identifier,
            } => Self::Echo {
                request: *request,
                identifier: *identifier,
            },
            L4::Error { kind, code, inner } => Self::Error(icmp(*kind, *code), Quote::of(inner)),
            L4::Icmp { kind, code } => Self::Icmp(icmp(*kind, *code)),
            L4::Other => Self::Other(protocol),
            L4::LaterFragment => Self::Later(protocol),
        }
    }
}

impl Quote {
    fn of<A: Copy + Into<IpAddr>>(inner: &Inner<A>) -> Self {
        let flow = match inner.l4 {
            InnerL4::Tcp { src, dst } => Some((Protocol::Tcp, [src, dst])),
            InnerL4::Udp { src, dst } => Some((Protocol::Udp, [src, dst])),
            InnerL4::Echo { identifier, .. } => Some((Protocol::Icmp, [identifier; 2])),
            InnerL4::Other => None,
        };
        Self {
            src: inner.src.into(),
            dst: inner.dst.into(),
            flow,
        }
    }
}

fn intact(protocol: u8, fragment: Option<Fragment>, l4: &[u8], pseudo: Sum) -> Option<bool> {
    if fragment.is_some() || ![TCP, UDP, ICMP4, ICMP6].contains(&protocol) {
        return None;
    }
    if protocol == UDP && l4.get(6..8) == Some(&[0, 0]) {
        return None;
    }
    Some((pseudo + Sum::bytes(l4)).is_valid())
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (src, dst) = (self.src, self.dst);
        let family = if src.is_ipv6() { "IPv6" } else { "IPv4" };
        match &self.load {
            Load::Tcp([from, to], flags) => {
                write!(
                    f,
                    "{family} TCP {src}#{from} > {dst}#{to}, {}",
                    names(*flags)
                )?;
            }
            Load::Udp([from, to]) => write!(f, "{family} UDP {src}#{from} > {dst}#{to}")?,
            Load::Echo {
                request,
                identifier,
            } => {
                let what = if *request { "request" } else { "reply" };
                write!(
                    f,
                    "{family} ICMP echo {what} {src} > {dst}, identifier {identifier}"
                )?;
            }
            Load::Error(icmp, quote) => {
                let name = icmp.show(src);
                write!(f, "{family} ICMP {name} {src} > {dst}, about {quote}")?;
            }
            Load::Icmp(icmp) => write!(f, "{family} ICMP {} {src} > {dst}", icmp.show(src))?,
            Load::Other(number) => write!(f, "{family} protocol {number} {src} > {dst}")?,
            Load::Later(number) => write!(f, "{family} protocol {number} {src} > {dst}")?,
        }
        if let Some(fragment) = self.fragment {
            let more = if fragment.more {
                ", more follow"
            } else {
                ", the last"
            };
            write!(f, ", fragment from byte {}{more}", fragment.offset)?;
        }
        if self.tos != 0 {
            write!(f, ", {} {}", self.tos_name(), self.tos)?;
        }
        write!(f, ", {} {}, {} bytes", self.ttl_name(), self.ttl, self.len)?;
        if self.dont_fragment {
            write!(f, ", DF")?;
        }
        Ok(())
    }
}

impl fmt::Display for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (src, dst) = (self.src, self.dst);
        match self.flow {
            Some((protocol, [from, to])) => write!(f, "{protocol} {src}#{from} > {dst}#{to}"),
            None => write!(f, "{src} > {dst}"),
        }
    }
}

impl IcmpType {
    pub(super) fn show(&self, family: IpAddr) -> String {
        let Self { kind, code, mtu } = self;
        let name = match (family, kind) {
            (IpAddr::V6(_), 1) | (IpAddr::V4(_), 3) => "destination unreachable",
            (IpAddr::V6(_), 2) => "packet too big",
            (IpAddr::V6(_), 3) | (IpAddr::V4(_), 11) => "time exceeded",
            (IpAddr::V6(_), 4) | (IpAddr::V4(_), 12) => "parameter problem",
            (IpAddr::V6(_) | IpAddr::V4(_), _) => return format!("type {kind} code {code}"),
        };
        let mtu = mtu.map(|mtu| format!(", MTU {mtu}")).unwrap_or_default();
        format!("{name} (type {kind} code {code}{mtu})")
    }
}

fn names(flags: u8) -> String {
    let all = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"]
        .into_iter()
        .enumerate();
    let set: Vec<&str> = all
        .filter(|(bit, _)| flags >> bit & 1 != 0)
        .map(|(_, name)| name)
        .collect();
    if set.is_empty() {
        "no flags".to_owned()
    } else {
        set.join(" ")
    }
}

/// What became of a header: what, and by which clauses and settings.
pub(super) type Detail = (&'static str, String, &'static str);

/// What the translation of one packet into others did to its headers, beyond addresses and ports.
pub(super) fn differences(old: &View, new: &[View]) -> Vec<Detail> {
    let Some(first) = new.first() else {
        return Vec::new();
    };
    let to6 = first.src.is_ipv6();
    let same = old.src.is_ipv6() == to6;
    let clause = match (same, to6) {
        (true, _) => "RFC 7915 section 4.1, RFC 7915 section 5.1",
        (false, true) => "RFC 7915 section 4.1",
        (false, false) => "RFC 7915 section 5.1",
    };
    let message = matches!(old.load, Load::Echo { .. } | Load::Error(..));
    let sums = match (same, to6, message) {
        (true, ..) => "RFC 7915 section 4.5, RFC 7915 section 5.5",
        (false, true, true) => "RFC 7915 section 4.2",
        (false, true, false) => "RFC 7915 section 4.5",
        (false, false, true) => "RFC 7915 section 5.2",
        (false, false, false) => "RFC 7915 section 5.5",
    };
    let mut all: Vec<Detail> = Vec::new();
    let hops = format!(
        "{} {} as before; the kernel, which forwards it, makes it {}",
        first.ttl_name(),
        first.ttl,
        first.ttl.saturating_sub(1)
    );
    all.push(("hops", hops, clause));
    if old.tos != first.tos || old.tos != 0 {
        let (text, why) = if old.tos == first.tos {
            (
                format!("{} {} is copied", first.tos_name(), first.tos),
                clause,
            )
        } else {
            let text = format!("{} {} instead of {}", first.tos_name(), first.tos, old.tos);
            let why = match (same, to6) {
                (true, _) => "override-tos, tos, zeroize-traffic-class",
                (false, true) => "zeroize-traffic-class",
                (false, false) => "override-tos, tos",
            };
            (text, why)
        };
        all.push(("tos", text, why));
    }
    let lengths: Vec<String> = new.iter().map(|view| view.len.to_string()).collect();
    let size = format!("{} bytes become {}", old.len, lengths.join(" + "));
    all.push(("size", size, clause));
    fragmentation(old, first, new.len(), &mut all);
    icmp(old, first, &mut all);
    match (old.intact, first.intact) {
        (Some(false), _) => all.push((
            "checksum",
            "wrong before, so wrong after: a card may still have had to fill it in where it was captured"
                .to_owned(),
            sums,
        )),
        (None, Some(_)) if old.fragment.is_none() && matches!(old.load, Load::Udp(_)) => {
            let text = "had none; it is computed".to_owned();
            all.push(("checksum", text, "RFC 7915 section 4.5, amend-udp-checksum-zero"));
        }
        (Some(true), Some(true)) => {
            let text = "brought up to date, and right".to_owned();
            all.push(("checksum", text, sums));
        }
        (Some(true), _) | (None, _) => {}
    }
    all
}

fn fragmentation(old: &View, new: &View, count: usize, all: &mut Vec<Detail>) {
    if count > 1 {
        let text = format!("longer than lowest-ipv6-mtu and DF is not set: {count} fragments");
        all.push(("fragments", text, "RFC 7915 section 4, lowest-ipv6-mtu"));
    } else if let Some(fragment) = new.fragment.filter(|_| old.fragment.is_some()) {
        let text = format!(
            "translated alone; it begins at byte {} still",
            fragment.offset
        );
        all.push((
            "fragments",
            text,
            "RFC 7915 section 4.1, RFC 7915 section 5.1.1",
        ));
    } else if !new.src.is_ipv6() {
        let text = if new.dont_fragment {
            "DF is set, for it is longer than 1260 bytes: whoever cannot carry it says so"
        } else {
            "DF is not set, for it is no longer than 1260 bytes"
        };
        all.push(("df", text.to_owned(), "RFC 7915 section 5.1"));
    } else if !old.src.is_ipv6() {
        let text = if old.dont_fragment {
            "DF was set: a link that cannot carry it is complained about"
        } else {
            "no fragment header: it fits into lowest-ipv6-mtu"
        };
        all.push(("df", text.to_owned(), "RFC 7915 section 4, lowest-ipv6-mtu"));
    }
}

fn icmp(old: &View, new: &View, all: &mut Vec<Detail>) {
    let show = |view: &View| match &view.load {
        Load::Error(icmp, _) | Load::Icmp(icmp) => Some(icmp.show(view.src)),
        Load::Echo { request, .. } => {
            let kind = match (view.src, request) {
                (IpAddr::V6(_), true) => 128,
                (IpAddr::V6(_), false) => 129,
                (IpAddr::V4(_), true) => 8,
                (IpAddr::V4(_), false) => 0,
            };
            Some(format!("type {kind}"))
        }
        Load::Tcp(..) | Load::Udp(_) | Load::Other(_) | Load::Later(_) => None,
    };
    if let (Some(before), Some(after)) = (show(old), show(new)) {
        let why = if new.src.is_ipv6() {
            "RFC 7915 section 4.2"
        } else {
            "RFC 7915 section 5.2"
        };
        all.push(("icmp", format!("{before} becomes {after}"), why));
    }
    if let (Load::Error(_, before), Load::Error(_, after)) = (&old.load, &new.load) {
        let why = "RFC 7915 section 4.3, RFC 7915 section 5.3";
        all.push(("quoted", format!("{before} becomes {after}"), why));
    }
}

/// An IPv6 address as an instance of MAP-T's port translation has private ones.
pub(super) const fn as_client(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    }
}
