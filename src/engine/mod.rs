// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 4: one instance. A packet comes in, what becomes of it comes out.
//!
//! Brings together what the floors below know: parse, decide, translate, count. Time is an
//! argument, packets are slices, output is a buffer of the caller's: nothing here touches the
//! system.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;

use crate::base::counters::{Counter, Counters};
use crate::base::prefix::Pool6;
use crate::base::{Protocol, Tick, Transport4, Transport6};
use crate::model::settings::Settings;
use crate::nat64::{Change, Inbound, Nat64, Outbound, Probe};
use crate::wire::output::Output;
use crate::wire::{Inner, InnerL4, L4, Packet4, Packet6, Refusal, TcpFlags, Verdict};
use crate::xlat::{self, Plan, Rewrite, Rules};

/// A NAT64 instance: settings, tables, counters.
pub struct Instance {
    settings: Settings,
    nat64: Nat64,
    counters: Counters,
    identification: u16,
    /// The latest time that was heard of.
    now: Tick,
    /// Holds a packet between the two passes of a hairpin.
    scratch: Vec<u8>,
}

/// What is known about a packet besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// The packet mark; selects a set of pool4.
    pub mark: u32,
    /// MTU of the link it came in by, in bytes; `u32::MAX` where unknown.
    pub ingress_mtu: u32,
    /// It arrived in fragments, which the kernel put together.
    pub reassembled: bool,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Translated,
    /// The kernel shall go on with it, unchanged.
    NotOurs(Counter),
    /// It is gone; its sender may have been told.
    Dropped(Counter),
}

impl Instance {
    /// `key` seeds hashes and port selection; it should be random.
    pub fn new(settings: Settings, key: [u8; 16]) -> Self {
        Self {
            settings,
            nat64: Nat64::new(key),
            counters: Counters::default(),
            identification: u16::from_ne_bytes([key[0], key[1]]),
            now: Tick::default(),
            scratch: Vec::new(),
        }
    }

    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Puts other settings into force; sessions live on.
    pub fn set_settings(&mut self, settings: Settings) {
        self.nat64.retime(&self.settings, &settings);
        self.settings = settings;
    }

    pub const fn nat64(&self) -> &Nat64 {
        &self.nat64
    }

    pub const fn nat64_mut(&mut self) -> &mut Nat64 {
        &mut self.nat64
    }

    pub const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// The counters, gauges included.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        let sum = |f: fn(&crate::nat64::table::Table) -> usize| {
            Protocol::ALL
                .iter()
                .map(|p| f(self.nat64.table(*p)) as u64)
                .sum()
        };
        counters.set(Counter::BibEntries, sum(|t| t.bib_count()));
        counters.set(Counter::Sessions, sum(|t| t.session_count()));
        counters
    }

    /// Whether the destination is one of this instance's: for packets that come without saying
    /// which instance they are for.
    pub fn concerns(&self, packet: &[u8]) -> bool {
        match version(packet) {
            Some(6) => destination6(packet)
                .zip(self.settings.pool6)
                .is_some_and(|(dst, pool6)| pool6.contains(dst)),
            Some(4) => destination4(packet).is_some_and(|dst| self.nat64.pool4().has_address(dst)),
            _ => false,
        }
    }

    /// Handles a packet that starts with its IP header. What is to be sent is added to `out`.
    pub fn handle(&mut self, now: Tick, meta: &Meta, packet: &[u8], out: &mut Output) -> Outcome {
        let now = self.clock(now);
        let result = match version(packet) {
            Some(6) => {
                self.counters.count(Counter::Received6);
                self.six(now, meta, packet, out)
            }
            Some(4) => {
                self.counters.count(Counter::Received4);
                self.four(now, meta, packet, out)
            }
            _ => Err(Refusal::accept(Counter::SkbTruncated)),
        };
        let Err(refusal) = result else {
            self.counters.count(Counter::Success);
            return Outcome::Translated;
        };
        self.counters.count(refusal.reason);
        match refusal.verdict {
            Verdict::Accept => Outcome::NotOurs(refusal.reason),
            Verdict::Drop => Outcome::Dropped(refusal.reason),
            Verdict::Reply(reply) => {
                if let Some(error) = xlat::icmp::reply_to(packet, reply) {
                    out.push_error(error);
                }
                Outcome::Dropped(refusal.reason)
            }
        }
    }

    /// Ends at most `budget` sessions that are due; true when more are due. Probes of silent
    /// connections are added to `out`.
    pub fn expire(&mut self, now: Tick, budget: usize, out: &mut Output) -> bool {
        let now = self.clock(now);
        let more = self.nat64.expire(now, &self.settings, budget);
        let Some(pool6) = self.settings.pool6 else {
            return more;
        };
        for probe in self.nat64.drain_probes() {
            write_probe(pool6, probe, out);
        }
        more
    }

    pub fn next_deadline(&self) -> Option<Tick> {
        self.nat64.next_deadline()
    }

    /// The time, which does not go back. A worker looks at its clock before it waits for its turn;
    /// with an older time each of its sessions would be sorted in behind all that others began
    /// meanwhile.
    fn clock(&mut self, now: Tick) -> Tick {
        self.now = self.now.max(now);
        self.now
    }

    /// Takes what happened to the tables since the last call; `into` is emptied first.
    pub fn drain_changes(&mut self, into: &mut Vec<Change>) {
        self.nat64.drain_changes(into);
    }

    fn six(
        &mut self,
        now: Tick,
        meta: &Meta,
        bytes: &[u8],
        out: &mut Output,
    ) -> Result<(), Refusal> {
        if !self.settings.manually_enabled {
            return Err(Refusal::accept(Counter::XlatorDisabled));
        }
        let Some(pool6) = self.settings.pool6 else {
            return Err(Refusal::accept(Counter::Pool6Unset));
        };
        if destination6(bytes).is_some_and(|dst| !pool6.contains(dst)) {
            return Err(Refusal::accept(Counter::Pool6Mismatch));
        }
        let packet = Packet6::parse(bytes)?;
        let Some(dst4) = pool6.extract(packet.dst) else {
            return Err(Refusal::accept(Counter::Pool6Mismatch));
        };
        //= rfc6146#section-3.5
        if pool6.contains(packet.src) {
            return Err(Refusal::drop(Counter::HairpinLoop));
        }
        if !is_one_host4(dst4) {
            return Err(Refusal::drop(Counter::UntranslatableDst6));
        }
        if let Some(refusal) = packet.refusal {
            return Err(refusal);
        }
        let (plan, protocol, peer) = match packet.l4 {
            L4::Tcp { src, dst, flags } => self.flow_out(
                now,
                meta,
                Protocol::Tcp,
                (packet.src, src),
                (dst4, dst),
                flags,
            )?,
            L4::Udp { src, dst } => {
                let (client, remote) = ((packet.src, src), (dst4, dst));
                self.flow_out(now, meta, Protocol::Udp, client, remote, NO_FLAGS)?
            }
            L4::Echo { identifier: id, .. } => {
                if self.settings.drop_icmpv6_info {
                    return Err(Refusal::drop(Counter::Icmp6Filter));
                }
                let (client, remote) = ((packet.src, id), (dst4, id));
                self.flow_out(now, meta, Protocol::Icmp, client, remote, NO_FLAGS)?
            }
            L4::Error { inner, .. } => self.error_out(pool6, dst4, &inner)?,
            L4::Icmp { .. } => return Err(Refusal::accept(Counter::UnknownIcmp6Type)),
            L4::Other => return Err(Refusal::accept(Counter::UnknownL4Proto)),
            // The kernel reassembles before we see a packet; a stray one has no ports.
            L4::LaterFragment => return Err(Refusal::drop(Counter::Hdr6)),
        };
        let first = out.len();
        xlat::six_to_four(&packet, &plan, &self.rules(meta), out)?;
        if !self.nat64.pool4().contains(protocol, peer) {
            return Ok(());
        }
        self.hairpin(now, meta, first, out)
    }

    /// A packet for one of our own transport addresses goes through the other translation at
    /// once, as if it had come from IPv4.
    //= rfc6146#section-3.8
    fn hairpin(
        &mut self,
        now: Tick,
        meta: &Meta,
        first: usize,
        out: &mut Output,
    ) -> Result<(), Refusal> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.extend_from_slice(out.get(first).unwrap_or_default());
        out.truncate(first);
        let result = self.four(now, meta, &scratch, out);
        self.scratch = scratch;
        // The packet in hand is not the one that came: neither kernel nor sender would know it.
        result.map_err(|refusal| Refusal::drop(refusal.reason))
    }

    fn flow_out(
        &mut self,
        now: Tick,
        meta: &Meta,
        protocol: Protocol,
        client: (Ipv6Addr, u16),
        remote: (Ipv4Addr, u16),
        flags: TcpFlags,
    ) -> Result<(Plan<Ipv4Addr>, Protocol, Transport4), Refusal> {
        if !is_routed6(client.0) {
            return Err(Refusal::accept(Counter::SixFourDst));
        }
        let flow = Outbound {
            protocol,
            client: Transport6::new(client.0, client.1),
            remote: Transport4::new(remote.0, remote.1),
            mark: meta.mark,
            flags,
        };
        let v4 = self.nat64.outbound(now, &self.settings, flow)?;
        let peer_port = match protocol {
            Protocol::Tcp | Protocol::Udp => remote.1,
            Protocol::Icmp => v4.port,
        };
        let outer = Rewrite {
            src: v4.addr,
            dst: remote.0,
            ports: Some([v4.port, peer_port]),
        };
        let plan = Plan { outer, inner: None };
        Ok((plan, protocol, Transport4::new(remote.0, peer_port)))
    }

    /// An ICMPv6 error is about a packet that was sent to a client: the quoted destination.
    //= rfc6146#section-3.6.1
    fn error_out(
        &self,
        pool6: Pool6,
        dst4: Ipv4Addr,
        inner: &Inner<Ipv6Addr>,
    ) -> Result<(Plan<Ipv4Addr>, Protocol, Transport4), Refusal> {
        let (protocol, src, dst) = inner_ports(inner)?;
        let Some(remote) = pool6.extract(inner.src) else {
            return Err(Refusal::accept(Counter::SessionNotFound));
        };
        let client = Transport6::new(inner.dst, dst);
        let Some(v4) = self.nat64.mapped_v4(protocol, client) else {
            return Err(Refusal::accept(Counter::SessionNotFound));
        };
        let peer_port = match protocol {
            Protocol::Tcp | Protocol::Udp => src,
            Protocol::Icmp => v4.port,
        };
        let plan = Plan {
            outer: Rewrite {
                src: v4.addr,
                dst: dst4,
                ports: None,
            },
            inner: Some(Rewrite {
                src: remote,
                dst: v4.addr,
                ports: Some([peer_port, v4.port]),
            }),
        };
        Ok((plan, protocol, Transport4::new(remote, peer_port)))
    }

    fn four(
        &mut self,
        now: Tick,
        meta: &Meta,
        bytes: &[u8],
        out: &mut Output,
    ) -> Result<(), Refusal> {
        if !self.settings.manually_enabled {
            return Err(Refusal::accept(Counter::XlatorDisabled));
        }
        let Some(pool6) = self.settings.pool6 else {
            return Err(Refusal::accept(Counter::Pool6Unset));
        };
        if destination4(bytes).is_some_and(|dst| !self.nat64.pool4().has_address(dst)) {
            return Err(Refusal::accept(Counter::Pool4Mismatch));
        }
        let packet = Packet4::parse(bytes)?;
        if !is_one_host4(packet.src) {
            return Err(Refusal::accept(Counter::FourSixSrc));
        }
        if let Some(refusal) = packet.refusal
            && self.is_ours(&packet)
        {
            return Err(refusal);
        }
        let plan = match packet.l4 {
            L4::Tcp { src, dst, flags } => self.flow_in(
                now,
                pool6,
                Protocol::Tcp,
                (packet.src, src),
                (packet.dst, dst),
                flags,
            )?,
            L4::Udp { src, dst } => {
                let (remote, v4) = ((packet.src, src), (packet.dst, dst));
                self.flow_in(now, pool6, Protocol::Udp, remote, v4, NO_FLAGS)?
            }
            L4::Echo { identifier: id, .. } => {
                let (remote, v4) = ((packet.src, id), (packet.dst, id));
                self.flow_in(now, pool6, Protocol::Icmp, remote, v4, NO_FLAGS)?
            }
            L4::Error { inner, .. } => self.error_in(pool6, packet.src, &inner)?,
            L4::Icmp { .. } => return Err(Refusal::accept(Counter::UnknownIcmp4Type)),
            L4::Other => return Err(Refusal::accept(Counter::UnknownL4Proto)),
            L4::LaterFragment => return Err(Refusal::drop(Counter::Hdr4)),
        };
        xlat::four_to_six(&packet, &plan, &self.rules(meta), out)
    }

    /// Whether a packet to one of our addresses is for us and not for the host that shares it.
    fn is_ours(&self, packet: &Packet4<'_>) -> bool {
        let (protocol, addr, port) = match packet.l4 {
            L4::Tcp { dst, .. } => (Protocol::Tcp, packet.dst, dst),
            L4::Udp { dst, .. } => (Protocol::Udp, packet.dst, dst),
            L4::Echo { identifier, .. } => (Protocol::Icmp, packet.dst, identifier),
            L4::Error { inner, .. } => match inner_ports(&inner) {
                Ok((protocol, port, _)) => (protocol, inner.src, port),
                Err(_) => return false,
            },
            L4::Other => return false,
            // Fragments do not say; whole messages of other kinds are the host's.
            L4::Icmp { .. } | L4::LaterFragment => return packet.fragment.is_some(),
        };
        let v4 = Transport4::new(addr, port);
        self.nat64.pool4().contains(protocol, v4)
    }

    fn flow_in(
        &mut self,
        now: Tick,
        pool6: Pool6,
        protocol: Protocol,
        remote: (Ipv4Addr, u16),
        v4: (Ipv4Addr, u16),
        flags: TcpFlags,
    ) -> Result<Plan<Ipv6Addr>, Refusal> {
        let v4 = Transport4::new(v4.0, v4.1);
        if !self.nat64.pool4().contains(protocol, v4) {
            return Err(Refusal::accept(Counter::Pool4Mismatch));
        }
        let flow = Inbound {
            protocol,
            v4,
            remote: Transport4::new(remote.0, remote.1),
            flags,
        };
        let client = self.nat64.inbound(now, &self.settings, flow)?;
        let peer_port = match protocol {
            Protocol::Tcp | Protocol::Udp => remote.1,
            Protocol::Icmp => client.port,
        };
        Ok(Plan {
            outer: Rewrite {
                src: pool6.embed(remote.0),
                dst: client.addr,
                ports: Some([peer_port, client.port]),
            },
            inner: None,
        })
    }

    /// An ICMPv4 error is about a packet that a client sent: the quoted source.
    //= rfc6146#section-3.6.1
    fn error_in(
        &self,
        pool6: Pool6,
        sender: Ipv4Addr,
        inner: &Inner<Ipv4Addr>,
    ) -> Result<Plan<Ipv6Addr>, Refusal> {
        let (protocol, src, dst) = inner_ports(inner)?;
        let v4 = Transport4::new(inner.src, src);
        if !self.nat64.pool4().contains(protocol, v4) {
            return Err(Refusal::accept(Counter::Pool4Mismatch));
        }
        let Some(client) = self.nat64.mapped_v6(protocol, v4) else {
            return Err(Refusal::accept(Counter::SessionNotFound));
        };
        let remote = pool6.embed(inner.dst);
        let peer_port = match protocol {
            Protocol::Tcp | Protocol::Udp => dst,
            Protocol::Icmp => client.port,
        };
        Ok(Plan {
            outer: Rewrite {
                src: if self.settings.source_icmpv6_errors_better {
                    pool6.embed(sender)
                } else {
                    remote
                },
                dst: client.addr,
                ports: None,
            },
            inner: Some(Rewrite {
                src: client.addr,
                dst: remote,
                ports: Some([client.port, peer_port]),
            }),
        })
    }

    fn rules(&mut self, meta: &Meta) -> Rules<'_> {
        self.identification = self.identification.wrapping_add(1);
        Rules {
            override_tos: self.settings.override_tos.then_some(self.settings.tos),
            zeroize_traffic_class: self.settings.zeroize_traffic_class,
            lowest_ipv6_mtu: self.settings.lowest_ipv6_mtu,
            plateaus: &self.settings.mtu_plateaus,
            ingress_mtu: meta.ingress_mtu,
            // The kernel knows the link the packet leaves by, and complains itself.
            egress_mtu: u32::MAX,
            //= rfc6146#section-3.4
            amend_udp_checksum_zero: true,
            reassembled: meta.reassembled,
            identification: self.identification,
        }
    }
}

/// Protocol, source port and destination port of a quoted packet.
fn inner_ports<A>(inner: &Inner<A>) -> Result<(Protocol, u16, u16), Refusal> {
    match inner.l4 {
        InnerL4::Tcp { src, dst } => Ok((Protocol::Tcp, src, dst)),
        InnerL4::Udp { src, dst } => Ok((Protocol::Udp, src, dst)),
        InnerL4::Echo { identifier, .. } => Ok((Protocol::Icmp, identifier, identifier)),
        InnerL4::Other => Err(Refusal::accept(Counter::UnknownProtoInner)),
    }
}

/// Asks the IPv6 end of a silent connection for a sign of life: a lone ACK that acknowledges
/// nothing, which a living connection answers and a dead one resets.
//= rfc6146#section-3.5.2.2
fn write_probe(pool6: Pool6, probe: Probe, out: &mut Output) {
    let (src, dst) = (pool6.embed(probe.remote.addr), probe.client.addr);
    let builder = PacketBuilder::ipv6(src.octets(), dst.octets(), PROBE_HOP_LIMIT)
        .tcp(probe.remote.port, probe.client.port, 0, PROBE_WINDOW)
        .ack(0);
    let packet = out.packet(builder.size(0));
    let mut cursor = std::io::Cursor::new(packet);
    // Writes exactly the size it announced.
    let written = builder.write(&mut cursor, &[]);
    debug_assert!(written.is_ok());
}

fn version(packet: &[u8]) -> Option<u8> {
    packet.first().map(|byte| byte >> 4)
}

fn destination6(packet: &[u8]) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
    Some(octets.into())
}

fn destination4(packet: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    Some(octets.into())
}

/// Whether routers may forward packets from this address (RFC 4291 section 2.5). The kernel sees
/// to that for packets it forwards, but translated ones it sees in the other family only.
//= rfc4291#section-2.5.6
const fn is_routed6(addr: Ipv6Addr) -> bool {
    !(addr.is_unspecified()
        || addr.is_loopback()
        || addr.is_unicast_link_local()
        || addr.is_multicast())
}

/// Whether packets may come from and go to this address through a router: not "this network",
/// loopback, multicast or broadcast. The kernel's own check is evaded as above.
//= rfc1122#section-3.2.1.3
const fn is_one_host4(addr: Ipv4Addr) -> bool {
    !(addr.octets()[0] == 0 || addr.is_loopback() || addr.is_multicast() || addr.is_broadcast())
}

const NO_FLAGS: TcpFlags = TcpFlags {
    syn: false,
    fin: false,
    rst: false,
};

const PROBE_HOP_LIMIT: u8 = 255;

const PROBE_WINDOW: u16 = 8192;

#[cfg(test)]
mod tests;
