// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 2: the tables and decisions of stateful NAT64 (RFC 6146).
//!
//! Takes tuples and TCP flags and says which addresses a packet gets; never sees a byte of one.
//! What the tables went through is gathered as [`Change`]s for whoever keeps a copy.

use std::net::Ipv4Addr;

use self::opens::Opens;
use self::pool4::{HOST_PORTS, Pool4};
use self::sessions::length;
use self::table::{Bib, Session, Table};
use self::tcp::{Lifetime, Side};
use crate::base::counters::Counter;
use crate::base::host::Host;
use crate::base::{Protocol, Tick, Transport4, Transport6};
use crate::model::settings::Settings;
use crate::model::{PortRange, TcpState};
use crate::wire::{IcmpReply, Refusal, TcpFlags, Verdict};

mod allocate;
mod gradual;
pub mod manage;
pub mod merge;
mod opens;
pub mod pool4;
pub mod question;
mod segment;
mod sessions;
mod settled;
pub mod table;
mod tally;
pub mod tcp;
mod used;

/// The state of one NAT64 instance.
pub struct Nat64 {
    pool4: Pool4,
    /// The ports that new clients may get, in order; all when it is missing.
    share: Option<Box<[PortRange]>>,
    tables: [Table; 3],
    changes: Vec<Change>,
    probes: Vec<Probe>,
    opens: Opens,
    unopened: Vec<Box<[u8]>>,
    refused: Refused,
    key: [u8; 16],
    /// RFC 6056 algorithm 3: goes up with every candidate tried, whoever asked.
    counter: u64,
    exhausted: Option<u32>,
}

/// Something that happened to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A mapping came to be.
    Mapping(Mapping),
    /// A mapping that was there became static.
    MappingFixed(Mapping),
    /// A mapping is gone. Its sessions went before, whatever made it go.
    MappingGone {
        protocol: Protocol,
        v6: Transport6,
        v4: Transport4,
    },
    Session {
        session: SessionState,
        v6: Transport6,
        news: News,
    },
    SessionGone {
        protocol: Protocol,
        v6: Transport6,
        v4: Transport4,
        remote: Transport4,
    },
}

/// What is to be said of a session that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It came to be.
    Began,
    /// Its state or its lifetime is another one.
    Changed,
    /// Its deadline moved.
    LivesOn,
}

/// A BIB entry as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub protocol: Protocol,
    pub v6: Transport6,
    pub v4: Transport4,
    pub is_static: bool,
}

/// A session as a value; `v4` names its mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionState {
    pub protocol: Protocol,
    pub v4: Transport4,
    pub remote: Transport4,
    pub state: TcpState,
    pub lifetime: Lifetime,
    pub deadline: Tick,
    /// The most data in a TCP segment, TCP options included, in bytes; 0 if unknown.
    pub segment: u16,
}

impl Change {
    fn of(protocol: Protocol, bib: &Bib, session: &Session, news: News) -> Self {
        Self::Session {
            session: SessionState::of(protocol, bib, session),
            v6: bib.v6,
            news,
        }
    }

    fn gone(protocol: Protocol, bib: &Bib, session: &Session) -> Self {
        Self::SessionGone {
            protocol,
            v6: bib.v6,
            v4: bib.v4,
            remote: session.remote,
        }
    }
}

impl SessionState {
    fn of(protocol: Protocol, bib: &Bib, session: &Session) -> Self {
        Self {
            protocol,
            v4: bib.v4,
            remote: session.remote,
            state: session.state,
            lifetime: session.lifetime,
            deadline: session.deadline(),
            segment: session.segment,
        }
    }
}

/// An established connection that fell silent: its IPv6 end is asked whether it still exists
/// (RFC 6146 section 3.5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub client: Transport6,
    pub remote: Transport4,
}

/// Flows that were refused for want of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// No free transport address in pool4 was found.
    pub pool4: u64,
    /// `maximum-sessions` was reached.
    pub sessions: u64,
    /// `maximum-sessions-per-prefix` was reached.
    pub prefix: u64,
}

impl Nat64 {
    /// `key` seeds hashes and port selection; it should be random.
    pub fn new(key: [u8; 16]) -> Self {
        Self {
            pool4: Pool4::default(),
            share: None,
            tables: [Table::new(key), Table::new(key), Table::new(key)],
            changes: Vec::new(),
            probes: Vec::new(),
            opens: Opens::default(),
            unopened: Vec::new(),
            refused: Refused::default(),
            key,
            counter: 0,
            exhausted: None,
        }
    }

    pub fn pool4(&self) -> &Pool4 {
        &self.pool4
    }

    /// Leaves all ports but these to other gateways, in the order of numbers; `None` takes all. What
    /// clients have, they keep.
    pub fn set_share(&mut self, ports: Option<Box<[PortRange]>>) {
        self.share = ports;
    }

    pub fn table(&self, protocol: Protocol) -> &Table {
        &self.tables[protocol.index()]
    }

    /// Whether a transport address is one that clients are hidden behind: that of any mark.
    ///
    /// Without pool4 it is one of the upper ports of the host's own addresses.
    //= jool#pool4
    pub fn covers(&self, host: &dyn Host, protocol: Protocol, v4: Transport4) -> bool {
        if self.pool4.is_empty() {
            HOST_PORTS.min <= v4.port && self.covers_address(host, v4.addr)
        } else {
            self.pool4.contains(protocol, v4)
        }
    }

    /// Whether an address has transport addresses that clients are hidden behind.
    pub fn covers_address(&self, host: &dyn Host, addr: Ipv4Addr) -> bool {
        if self.pool4.is_empty() {
            !addr.is_loopback() && host.has_address4(addr)
        } else {
            self.pool4.has_address(addr)
        }
    }

    /// Decides on a packet from IPv6: the transport address that `src6` is hidden behind.
    /// `flags` are given for TCP.
    ///
    /// # Errors
    /// The packet must not be translated.
    //= rfc6146#section-3.5
    pub fn outbound(
        &mut self,
        now: Tick,
        settings: &Settings,
        host: &dyn Host,
        flow: Outbound,
    ) -> Result<Transport4, Refusal> {
        let flow = Outbound {
            remote: peer(flow.protocol, flow.remote),
            ..flow
        };
        let Outbound {
            protocol, client, ..
        } = flow;
        if self.pool4.is_empty() {
            self.drop_displaced(host, protocol, client);
        } else if self.pool4.set(protocol, flow.mark).is_none() {
            return Err(Refusal::drop(Counter::MaskDomainNotFound));
        }
        let table = &self.tables[protocol.index()];
        let bib = table.find_v6(client);
        let session = bib.and_then(|bib| table.find_session(bib, flow.remote));
        if let (Some(bib), Some(session)) = (bib, session) {
            let v4 = table.bib(bib).v4;
            self.touch(now, settings, protocol, session, Side::V6, flow.flags);
            return Ok(v4);
        }
        if protocol == Protocol::Tcp && !flow.flags.syn {
            // Nothing to begin a session with, but a mapping is good enough to go through.
            return match bib {
                Some(bib) => Ok(table.bib(bib).v4),
                None => Err(Refusal::drop(Counter::Syn6Expected)),
            };
        }
        self.admit(settings, client.addr)?;
        let (bib, state) = match bib {
            Some(bib) => (bib, TcpState::V6Init),
            None => match self.awaited(host, flow) {
                Some(bib) => (bib, TcpState::Established),
                None => (self.map(settings, host, flow)?, TcpState::V6Init),
            },
        };
        let v4 = self.tables[protocol.index()].bib(bib).v4;
        let lifetime = match (protocol, state) {
            (Protocol::Tcp, TcpState::Established) => Lifetime::TcpEstablished,
            (Protocol::Tcp, _) => Lifetime::TcpTransitory,
            (Protocol::Udp, _) => Lifetime::Udp,
            (Protocol::Icmp, _) => Lifetime::Icmp,
        };
        let deadline = now.after(length(settings, lifetime));
        self.begin(protocol, bib, flow.remote, state, lifetime, deadline)?;
        if protocol == Protocol::Tcp {
            self.opens.settle(flow.remote, v4);
        }
        Ok(v4)
    }

    /// Decides on a packet from IPv4: the client that `v4`, one of [ours](Self::covers), stands
    /// for.
    ///
    /// # Errors
    /// The packet must not be translated. It may be held back, see [`Nat64::drain_unopened`].
    //= rfc6146#section-3.5
    pub fn inbound(
        &mut self,
        now: Tick,
        settings: &Settings,
        flow: Inbound<'_>,
    ) -> Result<Transport6, Refusal> {
        let Inbound {
            protocol,
            v4,
            remote,
            flags,
            packet,
        } = flow;
        let remote = peer(protocol, remote);
        let table = &mut self.tables[protocol.index()];
        let tcp = protocol == Protocol::Tcp;
        let Some(bib) = table.find_v4(v4) else {
            return Err(match (tcp, flags.syn) {
                (true, true) if settings.drop_externally_initiated_tcp => {
                    Refusal::drop(Counter::V4Syn)
                }
                (true, true) => self.hold_unmapped(now, settings, flow),
                (true, false) => Refusal::drop(Counter::Syn4Expected),
                (false, _) => Refusal::accept(Counter::Bib4NotFound),
            });
        };
        let client = table.bib(bib).v6;
        if let Some(session) = table.find_session(bib, remote) {
            if table.session(session).lifetime == Lifetime::TcpIncomingSyn {
                return Err(Refusal::drop(Counter::SoExists));
            }
            self.touch(now, settings, protocol, session, Side::V4, flags);
            return Ok(client);
        }
        if tcp && !flags.syn {
            return Ok(client);
        }
        if tcp && settings.drop_externally_initiated_tcp {
            return Err(Refusal::drop(Counter::V4Syn));
        }
        //= rfc6146#section-3.5.1
        let stranger = settings.address_dependent_filtering && !table.knows(bib, remote.addr);
        let lifetime = match protocol {
            Protocol::Tcp if stranger => {
                self.room_to_hold(settings)?;
                Lifetime::TcpIncomingSyn
            }
            Protocol::Udp | Protocol::Icmp if stranger => {
                return Err(Refusal {
                    reason: Counter::Adf,
                    verdict: Verdict::Reply(ADMINISTRATIVELY_PROHIBITED),
                });
            }
            // A connection that is only half open lives as long as RFC 5382 REQ-5 has it: with
            // TCP_INCOMING_SYN, an answer that takes longer than 6 s would find no session.
            Protocol::Tcp => Lifetime::TcpTransitory,
            Protocol::Udp => Lifetime::Udp,
            Protocol::Icmp => Lifetime::Icmp,
        };
        self.admit(settings, client.addr)?;
        let (state, deadline) = (TcpState::V4Init, now.after(length(settings, lifetime)));
        self.begin(protocol, bib, remote, state, lifetime, deadline)?;
        if tcp {
            self.opens.settle(remote, v4);
        }
        if lifetime == Lifetime::TcpIncomingSyn {
            self.opens.hold_session(v4, remote, packet);
            return Err(Refusal::drop(Counter::Type2pkt));
        }
        Ok(client)
    }

    /// The transport address that a client is hidden behind, if it has one.
    pub fn mapped_v4(&self, protocol: Protocol, client: Transport6) -> Option<Transport4> {
        let table = self.table(protocol);
        table.find_v6(client).map(|bib| table.bib(bib).v4)
    }

    /// The client that a transport address stands for, if any.
    pub fn mapped_v6(&self, protocol: Protocol, v4: Transport4) -> Option<Transport6> {
        let table = self.table(protocol);
        table.find_v4(v4).map(|bib| table.bib(bib).v6)
    }

    pub fn next_deadline(&self) -> Option<Tick> {
        let sessions = self.tables.iter().filter_map(Table::next_deadline);
        sessions.chain(self.opens.next_deadline()).min()
    }

    /// Takes what happened since the last call; `into` is emptied first.
    pub fn drain_changes(&mut self, into: &mut Vec<Change>) {
        into.clear();
        std::mem::swap(&mut self.changes, into);
    }

    /// Takes the probes to send.
    pub fn drain_probes(&mut self) -> Vec<Probe> {
        std::mem::take(&mut self.probes)
    }

    /// Takes the packets that were held back for a client that did not come: SYNs whose senders
    /// get an ICMP error, port unreachable.
    //= rfc6146#section-3.5.2.2
    pub fn drain_unopened(&mut self) -> Vec<Box<[u8]>> {
        std::mem::take(&mut self.unopened)
    }

    /// What was refused for want of room, since there is this instance.
    pub const fn refused(&self) -> Refused {
        self.refused
    }

    /// The mark whose set ran out since the last call, if any did.
    pub fn take_exhausted(&mut self) -> Option<u32> {
        self.exhausted.take()
    }
}

/// A packet from IPv6, as the tables see it.
#[derive(Clone, Copy, Debug)]
pub struct Outbound {
    pub protocol: Protocol,
    /// `src6`.
    pub client: Transport6,
    /// `dst4`: the destination without pool6. For ICMP its port is not looked at.
    pub remote: Transport4,
    pub mark: u32,
    /// All false for other protocols than TCP.
    pub flags: TcpFlags,
}

/// A packet from IPv4, as the tables see it.
#[derive(Clone, Copy, Debug)]
pub struct Inbound<'a> {
    pub protocol: Protocol,
    /// The destination: a transport address of pool4.
    pub v4: Transport4,
    pub remote: Transport4,
    pub flags: TcpFlags,
    /// What is kept, should the packet be held back.
    pub packet: &'a [u8],
}

impl PortRange {
    /// All ports.
    pub const ALL: Self = Self {
        min: 0,
        max: u16::MAX,
    };
}

/// What tells the sessions of a mapping apart: an ICMP session is known by addresses and the
/// mapping's identifier alone (RFC 6146 section 3.1).
const fn peer(protocol: Protocol, remote: Transport4) -> Transport4 {
    match protocol {
        Protocol::Tcp | Protocol::Udp => remote,
        Protocol::Icmp => Transport4::new(remote.addr, 0),
    }
}

const ADMINISTRATIVELY_PROHIBITED: IcmpReply = IcmpReply {
    kind: 3,
    code: 13,
    rest: [0; 4],
};

#[cfg(test)]
mod tests;
