// SPDX-License-Identifier: GPL-2.0-or-later
//! Packets through a NAT64 instance (RFC 6146): its tables say which addresses and ports they get.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;

use super::asks::Asks;
use super::tables::Tables;
use super::{Env, destination4, destination6, version};
use crate::base::counters::Counter;
use crate::base::host::Host;
use crate::base::prefix::Pool6;
use crate::base::{Protocol, Tick, Transport4, Transport6};
use crate::model::settings::Settings;
use crate::nat64::question::Question;
use crate::nat64::{Inbound, Nat64, Outbound, Probe};
use crate::wire::offload::{fitting, maximum};
use crate::wire::output::Output;
use crate::wire::{IcmpReply, Inner, InnerL4, L4, Packet4, Packet6, Refusal, TcpFlags, Verdict};
use crate::xlat::{self, Plan, Rewrite};

/// What a NAT64 instance has besides settings and counters.
pub(super) struct Stateful<T> {
    pub(super) nat64: T,
    /// What waits for other gateways; where several threads look at the tables, nothing can.
    pub(super) asks: Option<Box<Asks>>,
}

impl Stateful<Nat64> {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self {
            nat64: Nat64::new(key),
            asks: Some(Box::default()),
        }
    }

    /// Ends at most `budget` sessions that are due; true when more are due.
    pub(super) fn expire(
        &mut self,
        now: Tick,
        settings: &Settings,
        budget: usize,
        out: &mut Output,
    ) -> bool {
        let more = self.nat64.expire(now, settings, budget);
        turn_away(&mut self.nat64, out);
        let Some(pool6) = settings.pool6 else {
            return more;
        };
        for probe in self.nat64.drain_probes() {
            write_probe(pool6, probe, out);
        }
        more
    }

    /// Ends all waiting: nobody will come any more.
    pub(super) fn close(&mut self, out: &mut Output) {
        self.nat64.release_held();
        turn_away(&mut self.nat64, out);
    }
}

impl<T: Tables> Stateful<T> {
    pub(super) fn six(
        &mut self,
        env: &Env<'_>,
        bytes: &[u8],
        out: &mut Output,
    ) -> Result<(), Refusal> {
        let Some(pool6) = env.settings.pool6 else {
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
            L4::Tcp { src, dst, flags } => {
                let (client, remote) = ((packet.src, src), (dst4, dst));
                let flow = self.flow_out(env, Protocol::Tcp, client, remote, flags);
                let flow = flow.map_err(|refusal| {
                    let (protocol, v6) = (Protocol::Tcp, Transport6::new(packet.src, src));
                    self.ask(env, Question::Address { protocol, v6 }, bytes, refusal)
                })?;
                if flags.syn {
                    let most = maximum(packet.transport(), true);
                    self.nat64.bound_segment(source(&flow.0), flow.2, most);
                }
                flow
            }
            L4::Udp { src, dst } => {
                let (client, remote) = ((packet.src, src), (dst4, dst));
                self.flow_out(env, Protocol::Udp, client, remote, NO_FLAGS)?
            }
            L4::Echo { identifier: id, .. } => {
                if env.settings.drop_icmpv6_info {
                    return Err(Refusal::drop(Counter::Icmp6Filter));
                }
                let (client, remote) = ((packet.src, id), (dst4, id));
                self.flow_out(env, Protocol::Icmp, client, remote, NO_FLAGS)?
            }
            L4::Error { inner, .. } => self.error_out(pool6, dst4, &inner)?,
            L4::Icmp { .. } => return Err(Refusal::accept(Counter::UnknownIcmp6Type)),
            L4::Other => return Err(Refusal::accept(Counter::UnknownL4Proto)),
            // The kernel reassembles before we see a packet; a stray one has no ports.
            L4::LaterFragment => return Err(Refusal::drop(Counter::Hdr6)),
        };
        let first = out.len();
        let returns = self.nat64.look().covers(env.meta.host, protocol, peer);
        let rules = env.rules_of(!returns, || self.nat64.look().segment(source(&plan), peer));
        xlat::six_to_four(&packet, &plan, &rules, out)?;
        if protocol == Protocol::Tcp
            && let Some(mtu) = packet.too_big()
            && let Some(inner) = &plan.inner
        {
            let own = Transport4::new(inner.dst, inner.ports.map_or(0, |[_, own]| own));
            self.nat64.bound_segment(own, peer, fitting(mtu, true));
        }
        if !returns {
            return Ok(());
        }
        self.hairpin(env, bytes, first, out)
    }

    /// A packet for one of our own transport addresses goes through the other translation at
    /// once, as if it had come from IPv4.
    //= rfc6146#section-3.8
    fn hairpin(
        &mut self,
        env: &Env<'_>,
        original: &[u8],
        first: usize,
        out: &mut Output,
    ) -> Result<(), Refusal> {
        let packet = out.take_back(first);
        let result = self.inward(env, &packet, original, out);
        out.give_back(packet);
        // The packet in hand is not the one that came: neither kernel nor sender would know it.
        result.map_err(|refusal| {
            if refusal.reason == Counter::SoFull {
                let reply = Verdict::Reply(port_unreachable(original));
                return Refusal {
                    verdict: reply,
                    ..refusal
                };
            }
            if refusal.verdict == Verdict::Hold {
                return refusal;
            }
            Refusal::drop(refusal.reason)
        })
    }

    fn flow_out(
        &mut self,
        env: &Env<'_>,
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
            mark: env.meta.mark,
            flags,
        };
        let v4 = self.nat64.outbound(env, flow)?;
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
        let Some(v4) = self.nat64.look().mapped_v4(protocol, client) else {
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

    pub(super) fn four(
        &mut self,
        env: &Env<'_>,
        bytes: &[u8],
        out: &mut Output,
    ) -> Result<(), Refusal> {
        self.inward(env, bytes, bytes, out)
    }

    /// `original` is the packet as its sender knows it.
    fn inward(
        &mut self,
        env: &Env<'_>,
        bytes: &[u8],
        original: &[u8],
        out: &mut Output,
    ) -> Result<(), Refusal> {
        let host = env.meta.host;
        let Some(pool6) = env.settings.pool6 else {
            return Err(Refusal::accept(Counter::Pool6Unset));
        };
        if destination4(bytes).is_some_and(|dst| !self.nat64.look().covers_address(host, dst)) {
            return Err(Refusal::accept(Counter::Pool4Mismatch));
        }
        let packet = Packet4::parse(bytes)?;
        if !is_one_host4(packet.src) {
            return Err(Refusal::accept(Counter::FourSixSrc));
        }
        if let Some(refusal) = packet.refusal
            && self.is_ours(host, &packet)
        {
            return Err(refusal);
        }
        let plan = match packet.l4 {
            L4::Tcp { src, dst, flags } => {
                let (remote, v4) = ((packet.src, src), (packet.dst, dst));
                let flow = inbound(Protocol::Tcp, remote, v4, flags, original);
                let plan = self.flow_in(env, pool6, flow);
                if flags.syn {
                    // Also when it is held back.
                    let most = maximum(packet.transport(), false);
                    self.nat64.bound_segment(flow.v4, flow.remote, most);
                }
                plan?
            }
            L4::Udp { src, dst } => {
                let (remote, v4) = ((packet.src, src), (packet.dst, dst));
                let flow = inbound(Protocol::Udp, remote, v4, NO_FLAGS, original);
                self.flow_in(env, pool6, flow)?
            }
            L4::Echo { identifier: id, .. } => {
                let (remote, v4) = ((packet.src, id), (packet.dst, id));
                let flow = inbound(Protocol::Icmp, remote, v4, NO_FLAGS, original);
                self.flow_in(env, pool6, flow)?
            }
            L4::Error { inner, .. } => {
                let plan = self.error_in(env, pool6, packet.src, &inner);
                plan.map_err(|refusal| match inner_ports(&inner) {
                    Ok((protocol, src, dst)) => {
                        let v4 = Transport4::new(inner.src, src);
                        let remote = Transport4::new(inner.dst, dst);
                        let question = Question::client(protocol, v4, remote);
                        self.ask(env, question, original, refusal)
                    }
                    Err(_) => refusal,
                })?
            }
            L4::Icmp { .. } => return Err(Refusal::accept(Counter::UnknownIcmp4Type)),
            L4::Other => return Err(Refusal::accept(Counter::UnknownL4Proto)),
            L4::LaterFragment => return Err(Refusal::drop(Counter::Hdr4)),
        };
        let rules = env.rules_of(std::ptr::eq(bytes, original), || {
            let L4::Tcp { src, dst, .. } = packet.l4 else {
                return 0;
            };
            let own = Transport4::new(packet.dst, dst);
            let remote = Transport4::new(packet.src, src);
            self.nat64.look().segment(own, remote)
        });
        xlat::four_to_six(&packet, &plan, &rules, out)?;
        if let L4::Error { inner, .. } = &packet.l4
            && let Some(mtu) = packet.too_big()
            && let (Protocol::Tcp, src, dst) = inner_ports(inner)?
        {
            let own = Transport4::new(inner.src, src);
            let remote = Transport4::new(inner.dst, dst);
            self.nat64.bound_segment(own, remote, fitting(mtu, false));
        }
        Ok(())
    }

    /// Whether a packet to one of our addresses is for us and not for the host that shares it.
    fn is_ours(&self, host: &dyn Host, packet: &Packet4<'_>) -> bool {
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
        self.nat64.look().covers(host, protocol, v4)
    }

    fn flow_in(
        &mut self,
        env: &Env<'_>,
        pool6: Pool6,
        flow: Inbound<'_>,
    ) -> Result<Plan<Ipv6Addr>, Refusal> {
        if !self
            .nat64
            .look()
            .covers(env.meta.host, flow.protocol, flow.v4)
        {
            return Err(Refusal::accept(Counter::Pool4Mismatch));
        }
        let question = Question::client(flow.protocol, flow.v4, flow.remote);
        // Before the tables take an answer for a stranger's knock, and keep it for a client that is to
        // open a connection as well.
        let asks = self.asks.as_ref().is_some_and(|asks| asks.is_open());
        if flow.flags.syn && asks && !self.nat64.knows(env, &question) {
            let knock = Refusal::drop(Counter::Syn4Expected);
            let refusal = self.ask(env, question, flow.packet, knock);
            if refusal.verdict == Verdict::Hold {
                return Err(refusal);
            }
        }
        let client = self.nat64.inbound(env, flow);
        let client = client.map_err(|refusal| self.ask(env, question, flow.packet, refusal))?;
        let peer_port = match flow.protocol {
            Protocol::Tcp | Protocol::Udp => flow.remote.port,
            Protocol::Icmp => client.port,
        };
        Ok(Plan {
            outer: Rewrite {
                src: pool6.embed(flow.remote.addr),
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
        env: &Env<'_>,
        pool6: Pool6,
        sender: Ipv4Addr,
        inner: &Inner<Ipv4Addr>,
    ) -> Result<Plan<Ipv6Addr>, Refusal> {
        let (protocol, src, dst) = inner_ports(inner)?;
        let v4 = Transport4::new(inner.src, src);
        if !self.nat64.look().covers(env.meta.host, protocol, v4) {
            return Err(Refusal::accept(Counter::Pool4Mismatch));
        }
        let Some(client) = self.nat64.look().mapped_v6(protocol, v4) else {
            return Err(Refusal::accept(Counter::SessionNotFound));
        };
        let remote = pool6.embed(inner.dst);
        let peer_port = match protocol {
            Protocol::Tcp | Protocol::Udp => dst,
            Protocol::Icmp => client.port,
        };
        Ok(Plan {
            outer: Rewrite {
                src: if env.settings.source_icmpv6_errors_better {
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
}

impl<T: Tables> Stateful<T> {
    /// What becomes of a packet that was refused: where another gateway may know what is missing, it
    /// waits for that instead.
    #[cold]
    fn ask(
        &mut self,
        env: &Env<'_>,
        question: Question,
        original: &[u8],
        refusal: Refusal,
    ) -> Refusal {
        let unknown = matches!(
            refusal.reason,
            Counter::Syn4Expected
                | Counter::Syn6Expected
                | Counter::Bib4NotFound
                | Counter::SessionNotFound
                | Counter::Adf
        );
        if !unknown || !self.nat64.look().may_be_known_elsewhere(&question) {
            return refusal;
        }
        let Some(asks) = &mut self.asks else {
            self.nat64.unsettle();
            return refusal;
        };
        if asks.hold(env.now, question, env.meta, original) {
            return Refusal {
                verdict: Verdict::Hold,
                ..refusal
            };
        }
        refusal
    }
}

/// The transport address that a packet gets.
fn source(plan: &Plan<Ipv4Addr>) -> Transport4 {
    Transport4::new(plan.outer.src, plan.outer.ports.map_or(0, |[src, _]| src))
}

/// Tells those who waited in vain for a client that there is none.
//= rfc6146#section-3.5.2.2
pub(super) fn turn_away(nat64: &mut Nat64, out: &mut Output) {
    for packet in nat64.drain_unopened() {
        let reply = port_unreachable(&packet);
        if let Some(error) = xlat::icmp::reply_to(&packet, reply) {
            out.push_error(error);
        }
    }
}

pub(super) const fn inbound(
    protocol: Protocol,
    remote: (Ipv4Addr, u16),
    v4: (Ipv4Addr, u16),
    flags: TcpFlags,
    packet: &[u8],
) -> Inbound<'_> {
    Inbound {
        protocol,
        v4: Transport4::new(v4.0, v4.1),
        remote: Transport4::new(remote.0, remote.1),
        flags,
        packet,
    }
}

/// In the words of the packet's own family.
pub(super) fn port_unreachable(packet: &[u8]) -> IcmpReply {
    let (kind, code) = match version(packet) {
        Some(6) => (1, 4),
        _ => (3, 3),
    };
    IcmpReply {
        kind,
        code,
        rest: [0; 4],
    }
}

/// Protocol, source port and destination port of a quoted packet.
pub(super) fn inner_ports<A>(inner: &Inner<A>) -> Result<(Protocol, u16, u16), Refusal> {
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
pub(super) const fn is_one_host4(addr: Ipv4Addr) -> bool {
    !(addr.octets()[0] == 0 || addr.is_loopback() || addr.is_multicast() || addr.is_broadcast())
}

pub(super) const NO_FLAGS: TcpFlags = TcpFlags {
    syn: false,
    fin: false,
    rst: false,
};

pub(super) const PROBE_HOP_LIMIT: u8 = 255;

pub(super) const PROBE_WINDOW: u16 = 8192;

//= rfc6146#section-3.4
pub(super) const AMEND: bool = true;
