// SPDX-License-Identifier: GPL-2.0-or-later
//! The customer edge's translation of private addresses (RFC 7599 section 8.1) to its own and to
//! ports of its set, by the tables of NAT64: to them, a private address is an IPv4-mapped IPv6
//! address.

use std::net::Ipv4Addr;

use etherparse::PacketBuilder;

use crate::base::counters::Counter;
use crate::base::prefix::Prefix4;
use crate::base::{Protocol, Tick, Transport4, Transport6};
use crate::engine::Env;
use crate::engine::nat64::{
    NO_FLAGS, PROBE_HOP_LIMIT, PROBE_WINDOW, inbound, inner_ports, port_unreachable, turn_away,
};
use crate::engine::tables::Tables;
use crate::map::mapt::Customer;
use crate::model::settings::Settings;
use crate::nat64::pool4::Pool4;
use crate::nat64::{Nat64, Outbound, Probe};
use crate::wire::output::Output;
use crate::wire::{Inner, L4, Refusal, TcpFlags, Verdict};

pub(in crate::engine) struct Napt {
    pub(in crate::engine) nat64: Nat64,
    own: Option<Customer>,
}

impl Napt {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self {
            nat64: Nat64::new(key),
            own: None,
        }
    }

    /// Mappings to addresses and ports that are not the customer's go.
    pub(super) fn set_customer(&mut self, own: &Customer) {
        if self.own == Some(*own) {
            return;
        }
        self.own = Some(*own);
        let Ok(prefix) = Prefix4::new(own.first4(), own.v4_len()) else {
            return;
        };
        let pool4 = Pool4::of_ranges(MARK, prefix, own.ports().ranges());
        self.nat64.set_pool4(pool4, &Protocol::ALL);
    }

    /// Ends at most `budget` sessions that are due; true when more are due.
    pub(in crate::engine) fn expire(
        &mut self,
        now: Tick,
        settings: &Settings,
        budget: usize,
        out: &mut Output,
    ) -> bool {
        let more = self.nat64.expire(now, settings, budget);
        turn_away(&mut self.nat64, out);
        for probe in self.nat64.drain_probes() {
            write_probe(probe, out);
        }
        more
    }

    /// Ends all waiting: nobody will come any more.
    pub(in crate::engine) fn close(&mut self, out: &mut Output) {
        self.nat64.release_held();
        turn_away(&mut self.nat64, out);
    }
}

/// What a packet from a private address leaves by, and its new port at the other end, which
/// is another one only for ICMP.
pub(super) fn leave(
    tables: &mut impl Tables,
    env: &Env<'_>,
    client: Ipv4Addr,
    remote: Ipv4Addr,
    l4: &L4<Ipv4Addr>,
    [src, dst]: [u16; 2],
) -> Result<(Transport4, u16), Refusal> {
    let (protocol, flags) = flow(l4);
    let flow = Outbound {
        protocol,
        client: Transport6::new(client.to_ipv6_mapped(), src),
        remote: Transport4::new(remote, dst),
        mark: MARK,
        flags,
    };
    let v4 = tables.outbound(env, flow)?;
    Ok((v4, other_end(protocol, dst, v4.port)))
}

/// The private end of a packet that came to `own`, and its new port at the other end.
/// `original` is the packet as its sender knows it.
pub(super) fn arrive<A>(
    tables: &mut impl Tables,
    env: &Env<'_>,
    own: Transport4,
    remote: Transport4,
    l4: &L4<A>,
    original: &[u8],
) -> Result<(Transport4, u16), Refusal> {
    let (protocol, flags) = flow(l4);
    let (v4, from) = ((own.addr, own.port), (remote.addr, remote.port));
    let flow = inbound(protocol, from, v4, flags, original);
    let client = tables.inbound(env, flow);
    let client = client.map_err(|refusal| ours(refusal, original))?;
    let client = unmapped(client)?;
    Ok((client, other_end(protocol, remote.port, client.port)))
}

/// What the private end of a packet quoted in an error that it sends is known as, and the
/// port at the other end.
pub(super) fn known_as(
    nat64: &Nat64,
    inner: &Inner<Ipv4Addr>,
) -> Result<(Transport4, u16), Refusal> {
    let (protocol, src, dst) = inner_ports(inner)?;
    let client = Transport6::new(inner.dst.to_ipv6_mapped(), dst);
    let v4 = nat64.mapped_v4(protocol, client);
    let v4 = v4.ok_or(Refusal::accept(Counter::SessionNotFound))?;
    Ok((v4, other_end(protocol, src, v4.port)))
}

/// Who stands behind `own`, which sent a packet quoted in an error, and the port at the other
/// end.
pub(super) fn behind<A>(
    nat64: &Nat64,
    own: Transport4,
    inner: &Inner<A>,
) -> Result<(Transport4, u16), Refusal> {
    let (protocol, _, dst) = inner_ports(inner)?;
    let client = nat64.mapped_v6(protocol, own);
    let client = client.ok_or(Refusal::drop(Counter::SessionNotFound))?;
    let client = unmapped(client)?;
    Ok((client, other_end(protocol, dst, client.port)))
}

/// What comes to the customer's address is the translator's, whether it knows it or not. The tables
/// would answer in the words of IPv4.
fn ours(refusal: Refusal, original: &[u8]) -> Refusal {
    match refusal.verdict {
        Verdict::Reply(_) if refusal.reason == Counter::SoFull => Refusal {
            verdict: Verdict::Reply(port_unreachable(original)),
            ..refusal
        },
        Verdict::Accept | Verdict::Drop | Verdict::Reply(_) | Verdict::Hold => {
            Refusal::drop(refusal.reason)
        }
    }
}

/// A row that somebody else put into the table may stand for no private address.
fn unmapped(client: Transport6) -> Result<Transport4, Refusal> {
    let addr = client.addr.to_ipv4_mapped();
    let addr = addr.ok_or(Refusal::drop(Counter::Bib4NotFound))?;
    Ok(Transport4::new(addr, client.port))
}

/// The identifier of an echo message is that of both ends.
const fn other_end(protocol: Protocol, port: u16, translated: u16) -> u16 {
    match protocol {
        Protocol::Tcp | Protocol::Udp => port,
        Protocol::Icmp => translated,
    }
}

/// Protocol and flags of what is neither an error nor without ports.
const fn flow<A>(l4: &L4<A>) -> (Protocol, TcpFlags) {
    match l4 {
        L4::Tcp { flags, .. } => (Protocol::Tcp, *flags),
        L4::Udp { .. } => (Protocol::Udp, NO_FLAGS),
        L4::Echo { .. } | L4::Error { .. } | L4::Icmp { .. } | L4::Other | L4::LaterFragment => {
            (Protocol::Icmp, NO_FLAGS)
        }
    }
}

/// Asks the private end of a silent connection for a sign of life, as NAT64 does.
//= rfc6146#section-3.5.2.2
fn write_probe(probe: Probe, out: &mut Output) {
    let Ok(client) = unmapped(probe.client) else {
        return;
    };
    let (src, dst) = (probe.remote.addr.octets(), client.addr.octets());
    let builder = PacketBuilder::ipv4(src, dst, PROBE_HOP_LIMIT)
        .tcp(probe.remote.port, client.port, 0, PROBE_WINDOW)
        .ack(0);
    let packet = out.packet(builder.size(0));
    let mut cursor = std::io::Cursor::new(packet);
    // Writes exactly the size it announced.
    let written = builder.write(&mut cursor, &[]);
    debug_assert!(written.is_ok());
}

/// All packets have one set of ports, whatever their mark.
const MARK: u32 = 0;
